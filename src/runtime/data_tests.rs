//! Data tests at work: the rows a test returns are counted, judged by its conditions, and kept where it says so.
//!
//! 1. The test's query runs over committed tables; its rows stream by and are counted, at most `limit` of them.
//! 2. With `store_failures` they go into a Delta table on the way, which holds the last run's failures and nothing else.
//! 3. The number of failures is the number of rows, or what `fail_calc` makes of them.
//! 4. `error_if` and `warn_if` decide; a test of severity `warn` never fails.
//!
//! Invariant: a test changes no table but its own.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::json::json_lines;
use super::query::Reader;
use crate::error::{Error, Result};
use crate::lake::{CommitRequest, Table, TableDocs, TableSpec};
use crate::project::answers::is_failure;
use crate::project::{DataTest, Severity, SourceMap, StoreFailures};

/// Failing rows shown to a person.
const EXAMPLES: usize = 3;
/// Table of failing rows: a checkpoint after so many runs of its test.
const CHECKPOINT_EVERY: i64 = 50;
/// The name `fail_calc` is computed over, as in dbt.
const INTERNAL: &str = "dbt_internal_test";

/// How tests are run.
#[derive(Debug, Clone, Copy, Default)]
pub struct TestOptions {
    /// Keep the failing rows of tests that do not say whether to.
    pub store_failures: bool,
    /// A warning is a failure.
    pub warn_error: bool,
}

/// How a test ended; the names are dbt's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestStatus {
    Pass,
    Warn,
    Fail,
    /// It could not be run.
    Error,
    Skipped,
}

/// What a test found.
#[derive(Debug)]
pub struct TestResult {
    pub status: TestStatus,
    pub failures: i64,
    /// `Got 3 results, configured to fail if != 0`; why it was skipped; empty for one that passed.
    pub message: String,
    /// Some failing rows, as JSON texts.
    pub examples: Vec<String>,
    /// Where all of them are: schema and name.
    pub stored: Option<(String, String)>,
    /// Why it could not be run.
    pub errors: Vec<Error>,
    pub elapsed: Duration,
}

impl TestResult {
    /// A test that was not run, and why.
    pub fn skipped(why: impl Into<String>) -> Self {
        TestResult { message: why.into(), ..TestResult::new(TestStatus::Skipped) }
    }

    /// A test that could not be run.
    pub fn failed(errors: Vec<Error>) -> Self {
        let message = errors.first().map(|e| e.message().to_string()).unwrap_or_default();
        TestResult { message, errors, ..TestResult::new(TestStatus::Error) }
    }

    pub(super) fn new(status: TestStatus) -> Self {
        TestResult {
            status,
            failures: 0,
            message: String::new(),
            examples: Vec::new(),
            stored: None,
            errors: Vec::new(),
            elapsed: Duration::ZERO,
        }
    }
}

/// The rows a test returned.
struct Failing {
    rows: i64,
    examples: Vec<RecordBatch>,
    table: Option<Table>,
}

impl Reader {
    /// Runs a data test.
    pub async fn test(&self, test: &DataTest, options: TestOptions) -> TestResult {
        let started = Instant::now();
        let mut result = match &test.waits {
            Some(error) if is_failure(error) => TestResult {
                message: error.message().to_string(),
                errors: vec![error.clone()],
                ..TestResult::new(TestStatus::Error)
            },
            Some(waits) => TestResult::skipped(waits.message()),
            None => match self.judged(test, options).await {
                Ok(result) => result,
                Err(errors) => TestResult::failed(errors),
            },
        };
        result.elapsed = started.elapsed();
        result
    }

    async fn judged(&self, test: &DataTest, options: TestOptions) -> Result<TestResult, Vec<Error>> {
        let one = |e: Error| vec![e];
        let config = &test.config;
        let store = match config.store {
            None if options.store_failures => StoreFailures::Table,
            None => StoreFailures::Ephemeral,
            Some(store) => store,
        };
        let mut failing = self.failing(test, store == StoreFailures::Table).await?;
        let failures = match config.fail_calc.trim().to_lowercase().replace(' ', "").as_str() {
            "count(*)" => failing.rows,
            _ => self.calculated(test, failing.table.as_ref()).await?,
        };
        let is_error = test.severity == Severity::Error && self.holds(test, failures, &config.error_if).await?;
        let status = match is_error {
            true => TestStatus::Fail,
            false if !self.holds(test, failures, &config.warn_if).await? => TestStatus::Pass,
            false if options.warn_error => TestStatus::Fail,
            false => TestStatus::Warn,
        };
        if let Some(table) = &mut failing.table
            && table.version() > 0
            && table.version() % CHECKPOINT_EVERY == 0
        {
            table.checkpoint().await.map_err(one)?;
        }
        let mut result = TestResult { failures, ..TestResult::new(status) };
        if status != TestStatus::Pass {
            let results = if failures == 1 { "result" } else { "results" };
            let condition = match is_error {
                true => format!("fail if {}", config.error_if),
                false => format!("warn if {}", config.warn_if),
            };
            result.message = format!("Got {failures} {results}, configured to {condition}");
            result.examples = json_lines(&failing.examples, EXAMPLES).map_err(one)?;
            result.stored = (store != StoreFailures::Ephemeral).then(|| config.audit.clone());
        }
        Ok(result)
    }

    /// Counts the rows the test returns, keeps some for show and, if `kept`, all of them in the test's table.
    async fn failing(&self, test: &DataTest, kept: bool) -> Result<Failing, Vec<Error>> {
        let one = |e: Error| vec![e];
        let plan = self.plan(&test.sql, &test.source_map).await?;
        let stream = self.planner.execute(&plan).await.map_err(one)?;
        let schema = stored_names(&stream.schema());
        let (mut counted, mut examples) = (0, Vec::new());
        let mut left = test.config.limit.unwrap_or(u64::MAX);
        let mut shown = EXAMPLES;
        let renamed = Arc::clone(&schema);
        let mut rows = stream
            .map(|batch| {
                let batch = batch.map_err(Error::from)?;
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(batch.num_rows());
                left -= take as u64;
                let show = shown.min(take);
                if show > 0 {
                    examples.push(batch.slice(0, show));
                    shown -= show;
                }
                counted += take as i64;
                let columns = batch.slice(0, take).columns().to_vec();
                let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(take));
                let batch = RecordBatch::try_new_with_options(Arc::clone(&renamed), columns, &options)?;
                Ok::<_, Error>((batch, left > 0))
            })
            .boxed();
        // A limit ends the query: no row behind it is computed.
        let limited = futures::stream::unfold(Some(&mut rows), |rows| async {
            let rows = rows?;
            let (batch, more) = match rows.next().await? {
                Ok((batch, more)) => (Ok(batch), more),
                Err(e) => (Err(e), false),
            };
            Some((batch, more.then_some(rows)))
        })
        .boxed();
        let table = match kept {
            true => Some(self.store(&test.config.audit, &schema, limited).await.map_err(one)?),
            false => {
                limited.try_for_each(|_| async { Ok(()) }).await.map_err(one)?;
                None
            }
        };
        drop(rows);
        Ok(Failing { rows: counted, examples, table })
    }

    /// Makes `rows` the content of an audit table.
    async fn store(
        &self,
        (schema, name): &(String, String),
        columns: &SchemaRef,
        rows: impl futures::Stream<Item = Result<RecordBatch>> + Send + Unpin,
    ) -> Result<Table> {
        let mut table = match self.lake.table(schema, name).await? {
            Some(table) => table,
            None => {
                let spec = TableSpec {
                    docs: TableDocs {
                        description: Some("Rows that fail a data test, as of its last run.".to_string()),
                        comments: None,
                    },
                    ..TableSpec::new(Arc::clone(columns), false)
                };
                self.lake.create_table(schema, name, spec).await?
            }
        };
        table.replace(Arc::clone(columns), BTreeMap::new(), rows).await?;
        table.commit(CommitRequest::default()).await?;
        Ok(table)
    }

    /// What `fail_calc` says of the failing rows.
    async fn calculated(&self, test: &DataTest, stored: Option<&Table>) -> Result<i64, Vec<Error>> {
        let fail_calc = &test.config.fail_calc;
        let head = format!("select {fail_calc} as failures from ");
        let (plan, sql);
        let batches = match stored {
            Some(table) => {
                sql = format!("{head}{INTERNAL}");
                let provider = table.committed_snapshot().provider();
                let tables = [(String::new(), INTERNAL.to_string(), provider as _)];
                plan = self.planner.plan_query(&sql, &test.source_map.at_start(&sql), &tables)?;
                self.collect(&plan).await?
            }
            None => {
                let before = match test.config.limit {
                    None => format!("{head}(\n"),
                    Some(_) => format!("{head}(select * from (\n"),
                };
                let after = match test.config.limit {
                    None => format!("\n) as {INTERNAL}"),
                    Some(limit) => format!("\n) as unlimited limit {limit}) as {INTERNAL}"),
                };
                sql = format!("{before}{}{after}", test.sql.trim_end().trim_end_matches(';'));
                let map = test.source_map.within(before.len(), after.len());
                plan = self.plan(&sql, &map).await?;
                self.collect(&plan).await?
            }
        };
        let value = batches.iter().find(|b| b.num_rows() == 1 && b.num_columns() == 1).map(|b| b.column(0));
        let number = value.and_then(|v| arrow::compute::cast(v, &arrow::datatypes::DataType::Int64).ok());
        match number {
            // A sum over no rows.
            Some(number) if number.is_null(0) => Ok(0),
            Some(number) => Ok(number.as_primitive::<Int64Type>().value(0)),
            None => Err(vec![
                Error::user("fail-calc", format!("`fail_calc: {fail_calc}` gives no number"))
                    .with_span(test.source_map.start())
                    .with_hint("write an aggregate over the failing rows: fail_calc: sum(n_records)"),
            ]),
        }
    }

    /// Whether `failures` meets the condition, as SQL understands it.
    async fn holds(&self, test: &DataTest, failures: i64, condition: &str) -> Result<bool, Vec<Error>> {
        if condition == "!= 0" {
            return Ok(failures != 0);
        }
        let sql = format!("select {failures} {condition} as holds");
        let bad = |detail: String| {
            vec![
                Error::user(
                    "bad-condition",
                    format!("`{condition}` is no condition on the number of failures{detail}"),
                )
                .with_span(test.source_map.start())
                .with_hint("write error_if: \"> 10\", or warn_if: \"between 1 and 10\""),
            ]
        };
        let map = SourceMap::verbatim(PathBuf::from("condition"), sql.as_str());
        let plan = self.planner.plan_query(&sql, &map, &[]).map_err(|errors| match errors.first() {
            Some(error) => bad(format!(": {}", error.message())),
            None => bad(String::new()),
        })?;
        let batches = self.collect(&plan).await?;
        let value = batches.first().and_then(|b| b.column(0).as_boolean_opt().map(|v| v.is_valid(0) && v.value(0)));
        value.ok_or_else(|| bad(String::new()))
    }
}

/// The columns under names a Delta table can have, no two of them equal.
fn stored_names(schema: &Schema) -> SchemaRef {
    let mut seen = HashSet::new();
    let mut fields = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let clean: String =
            field.name().chars().map(|c| if " ,;{}()\n\t=".contains(c) || c.is_control() { '_' } else { c }).collect();
        let clean = if clean.is_empty() { "column".to_string() } else { clean };
        let mut name = clean.clone();
        let mut number = 2;
        while !seen.insert(name.to_lowercase()) {
            name = format!("{clean}_{number}");
            number += 1;
        }
        fields.push(Field::new(name, field.data_type().clone(), true));
    }
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::DataType;

    #[test]
    fn failing_rows_get_names_a_table_can_have() {
        let field = |name: &str| Field::new(name, DataType::Int64, false);
        let schema = Schema::new(vec![field("id"), field("ID"), field("count(*)"), field(""), field("a b")]);
        let names: Vec<String> = stored_names(&schema).fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names, ["id", "ID_2", "count_*_", "column", "a_b"]);
    }
}

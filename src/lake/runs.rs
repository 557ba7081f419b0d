//! `_smelt/runs`: what commands have done, one row for each node of each.
//!
//! Rows are appended when a command ends. Nobody owns the table: `test` may write it beside `up`, and whoever loses the race for a
//! version reads the table again and appends to that. Once it has many files it is written anew, without the rows that are older than
//! the target's `runs_retention`; so its size is bounded by what happens in that time.

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use futures::{StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::catalog::{Lake, OWN, TableSpec};
use super::commit::CommitRequest;
use super::docs::TableDocs;
use super::table::Table;
use crate::error::{Error, ErrorKind, Result};
use crate::types::SignedBatch;

const NAME: &str = "runs";
/// With so many files the table is written anew.
const FILES: usize = 64;
/// Races that one append may lose.
const ATTEMPTS: usize = 8;

/// One node in one command.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunRow {
    /// That of the command, as in its artifacts.
    pub invocation_id: String,
    /// `run`, `build`, `up`, …
    pub command: String,
    /// Target of the project.
    pub target: String,
    pub unique_id: String,
    pub name: String,
    /// `model`, `snapshot`, `seed`, `test`, `unit_test`.
    pub resource_type: String,
    /// dbt's: `success`, `error`, `skipped`, `pass`, `warn`, `fail`.
    pub status: String,
    /// µs since 1970.
    pub started_at: i64,
    pub ended_at: i64,
    /// Of work, not of waiting.
    pub seconds: f64,
    /// In the table afterwards.
    pub rows: Option<i64>,
    pub rows_inserted: Option<i64>,
    pub rows_deleted: Option<i64>,
    /// Rows a test has found.
    pub failures: Option<i64>,
    /// Planned instant of the run, µs.
    pub planned_at: Option<i64>,
    pub version: Option<i64>,
    pub epoch: Option<i64>,
    pub message: Option<String>,
}

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn schema() -> SchemaRef {
    let field = |name: &str, kind: DataType| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        field("invocation_id", DataType::Utf8),
        field("command", DataType::Utf8),
        field("target", DataType::Utf8),
        field("unique_id", DataType::Utf8),
        field("name", DataType::Utf8),
        field("resource_type", DataType::Utf8),
        field("status", DataType::Utf8),
        field("started_at", instant()),
        field("ended_at", instant()),
        field("seconds", DataType::Float64),
        field("rows", DataType::Int64),
        field("rows_inserted", DataType::Int64),
        field("rows_deleted", DataType::Int64),
        field("failures", DataType::Int64),
        field("planned_at", instant()),
        field("version", DataType::Int64),
        field("epoch", DataType::Int64),
        field("message", DataType::Utf8),
    ]))
}

fn batch(rows: &[RunRow]) -> Result<RecordBatch> {
    let text = |of: fn(&RunRow) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(of))) };
    let number = |of: fn(&RunRow) -> Option<i64>| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<Int64Array>()) };
    let time = |of: fn(&RunRow) -> Option<i64>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
    };
    let columns = vec![
        text(|r| &r.invocation_id),
        text(|r| &r.command),
        text(|r| &r.target),
        text(|r| &r.unique_id),
        text(|r| &r.name),
        text(|r| &r.resource_type),
        text(|r| &r.status),
        time(|r| Some(r.started_at)),
        time(|r| Some(r.ended_at)),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.seconds))),
        number(|r| r.rows),
        number(|r| r.rows_inserted),
        number(|r| r.rows_deleted),
        number(|r| r.failures),
        time(|r| r.planned_at),
        number(|r| r.version),
        number(|r| r.epoch),
        Arc::new(rows.iter().map(|r| r.message.as_deref()).collect::<StringArray>()),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

impl Lake {
    /// The past runs, if there are any.
    pub async fn runs(&self) -> Result<Option<Table>> {
        self.table(OWN, NAME).await
    }

    /// Appends rows. Those that ended longer than `kept` before `now` (µs) go when the table is written anew.
    pub async fn append_runs(&self, rows: &[RunRow], now: i64, kept: Duration) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut attempt = 1;
        loop {
            match self.try_append(rows, now, kept).await {
                Err(error) if attempt < ATTEMPTS && is_lost(&error) => attempt += 1,
                done => return done,
            }
        }
    }

    async fn try_append(&self, rows: &[RunRow], now: i64, kept: Duration) -> Result<()> {
        let mut table = match self.runs().await? {
            Some(table) => table,
            None => {
                let description = Some("One row per node of every command: how it ended".to_string());
                self.create_table(
                    OWN,
                    NAME,
                    TableSpec { docs: TableDocs { description, comments: None }, ..TableSpec::new(schema(), false) },
                )
                .await?
            }
        };
        let new = batch(rows)?;
        let snapshot = table.committed_snapshot();
        let is_full = snapshot.file_count() >= FILES;
        if is_full {
            let oldest = now.saturating_sub(i64::try_from(kept.as_micros()).unwrap_or(i64::MAX));
            let mut young = Vec::new();
            let mut old = snapshot.rows();
            while let Some(batch) = old.try_next().await? {
                young.push(younger(&batch, oldest)?);
            }
            young.push(new);
            let all = futures::stream::iter(young.into_iter().map(Ok::<_, Error>)).boxed();
            table.replace(schema(), BTreeMap::new(), all).await?;
        } else {
            table.stage(&[SignedBatch::inserts(new)]).await?;
        }
        let properties = table.changed_retention();
        table.commit(CommitRequest { properties, ..CommitRequest::default() }).await?;
        if is_full {
            table.checkpoint().await?;
        }
        Ok(())
    }
}

/// Whether another command was there first.
fn is_lost(error: &Error) -> bool {
    error.kind() == ErrorKind::Diverged || matches!(error.code(), "foreign-change" | "table-exists")
}

fn younger(batch: &RecordBatch, oldest: i64) -> Result<RecordBatch> {
    use arrow::array::AsArray;
    let ended = batch.column_by_name("ended_at").ok_or_else(|| Error::internal("past runs without times"))?;
    let ended = ended.as_primitive::<TimestampMicrosecondType>();
    let keep: BooleanArray = ended.iter().map(|at| Some(at.is_some_and(|at| at >= oldest))).collect();
    Ok(filter_record_batch(batch, &keep)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Env, FaultPlan, FaultyStore};
    use crate::lake::LakeOptions;
    use arrow::array::AsArray;

    #[tokio::test]
    async fn rows_stay_as_long_as_the_target_says() {
        let hour = 3_600_000_000;
        for (hours, oldest) in [(10, 54), (1000, 0)] {
            let env = Env::simulated(1, 0, BTreeMap::new(), FaultyStore::new(FaultPlan::default()));
            let lake = Lake::open(&env, "memory://lake", LakeOptions::default()).unwrap();
            let kept = Duration::from_secs(hours * 3600);
            // One an hour; with the first that finds as many files as there may be, the table is written anew.
            for at in 0..=FILES as i64 {
                let row = RunRow { ended_at: at * hour, epoch: Some(at), ..RunRow::default() };
                lake.append_runs(&[row], at * hour, kept).await.unwrap();
            }
            let rows: Vec<_> =
                lake.runs().await.unwrap().unwrap().committed_snapshot().rows().try_collect().await.unwrap();
            let epochs = |b: &RecordBatch| {
                b.column_by_name("epoch").unwrap().as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
            };
            let mut found: Vec<i64> = rows.iter().flat_map(epochs).collect();
            found.sort_unstable();
            assert_eq!(found, (oldest..=FILES as i64).collect::<Vec<_>>(), "{hours} hours");
        }
    }
}

//! What a snapshot's table looks like: its query's columns, then those that say when a version was valid.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, LogicalPlan};
use std::sync::Arc;

use super::diagnose;
use super::fault::Fault;
use super::relation::Scope;
use super::session::Planner;
use crate::error::did_you_mean;
use crate::project::{HardDeletes, SnapshotColumns, SnapshotConfig, SnapshotStrategy};

/// A snapshot, its columns found. Columns are indices into the query's schema.
#[derive(Debug, Clone)]
pub struct CompiledSnapshot {
    /// Columns of the query; the table has them and more, perhaps in another order.
    pub query: SchemaRef,
    pub key: Vec<usize>,
    /// Columns whose change makes a version; `None`: strategy `timestamp`.
    pub check: Option<Vec<usize>>,
    /// The column of strategy `timestamp`.
    pub updated_at: Option<usize>,
    pub hard_deletes: HardDeletes,
    pub names: SnapshotColumns,
    /// What stands in `valid_to` of current rows instead of NULL, µs.
    pub valid_to_current: Option<i64>,
}

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl CompiledSnapshot {
    pub(super) fn new(config: &SnapshotConfig, query: &SchemaRef, planner: &Planner) -> Result<Self, Vec<Fault>> {
        let find = |what: &str, name: &str| {
            let found = query.fields().iter().position(|f| f.name().eq_ignore_ascii_case(name));
            found.ok_or_else(|| {
                let fault = Fault::new("unknown-column", format!("`{what}`: the snapshot has no column `{name}`"));
                vec![match did_you_mean(name, query.fields().iter().map(|f| f.name().as_str())) {
                    Some(near) => fault.hint(format!("did you mean `{near}`?")),
                    None => fault.hint("select the column in the snapshot's query"),
                }]
            })
        };
        let find_all =
            |what: &str, names: &[String]| names.iter().map(|n| find(what, n)).collect::<Result<Vec<_>, _>>();
        let comparable = |what: &str, columns: &[usize]| match columns
            .iter()
            .map(|c| query.field(*c))
            .find(|f| !RowConverter::supports_fields(&[SortField::new(f.data_type().clone())]))
        {
            Some(field) => Err(vec![
                Fault::new(
                    "type",
                    format!("`{what}`: `{}` is {}, which cannot be compared", field.name(), field.data_type()),
                )
                .hint("select its parts, or list other columns"),
            ]),
            None => Ok(()),
        };
        let key = find_all("unique_key", &config.unique_key)?;
        comparable("unique_key", &key)?;
        let (check, updated_at) = match &config.strategy {
            SnapshotStrategy::Check(names) if names.is_empty() => (Some((0..query.fields().len()).collect()), None),
            SnapshotStrategy::Check(names) => (Some(find_all("check_cols", names)?), None),
            SnapshotStrategy::Timestamp(name) => {
                let column = find("updated_at", name)?;
                let field = query.field(column);
                if !matches!(field.data_type(), DataType::Timestamp(..) | DataType::Date32) {
                    return Err(vec![
                        Fault::new("type", format!("`updated_at`: `{name}` is {}, not a timestamp", field.data_type()))
                            .hint("cast it in the snapshot's query, or use strategy: check"),
                    ]);
                }
                (None, Some(column))
            }
        };
        comparable("check_cols", check.as_deref().unwrap_or_default())?;
        let valid_to_current = match &config.valid_to_current {
            Some(text) => Some(constant(text, planner)?),
            None => None,
        };
        let compiled = CompiledSnapshot {
            query: Arc::clone(query),
            key,
            check,
            updated_at,
            hard_deletes: config.hard_deletes,
            names: config.columns.clone(),
            valid_to_current,
        };
        for added in compiled.added() {
            if query.fields().iter().any(|f| f.name().eq_ignore_ascii_case(added.name())) {
                return Err(vec![
                    Fault::new(
                        "duplicate-column",
                        format!("the snapshot adds `{}`, and its query has it too", added.name()),
                    )
                    .hint("select the column under another name, or set snapshot_meta_column_names"),
                ]);
            }
        }
        Ok(compiled)
    }

    /// The columns a snapshot adds to its query's.
    pub fn added(&self) -> Vec<Field> {
        let mut fields = vec![
            Field::new(&self.names.scd_id, DataType::Utf8, true),
            Field::new(&self.names.updated_at, instant(), true),
            Field::new(&self.names.valid_from, instant(), true),
            Field::new(&self.names.valid_to, instant(), true),
        ];
        if self.hard_deletes == HardDeletes::NewRecord {
            fields.push(Field::new(&self.names.is_deleted, DataType::Utf8, true));
        }
        fields
    }

    /// Columns of the table: those it has (`before`) stay where they are, new ones are added at the end.
    pub(super) fn table_schema(&self, before: Option<&SchemaRef>) -> SchemaRef {
        let mut fields: Vec<Arc<Field>> = before.map_or_else(Vec::new, |s| s.fields().iter().cloned().collect());
        for field in self.query.fields().iter().cloned().chain(self.added().into_iter().map(Arc::new)) {
            if !fields.iter().any(|f| f.name().eq_ignore_ascii_case(field.name())) {
                fields.push(field);
            }
        }
        Arc::new(Schema::new(fields))
    }
}

/// The value of an expression without columns, as an instant in µs.
fn constant(text: &str, planner: &Planner) -> Result<i64, Vec<Fault>> {
    let sql = format!("select cast(({text}\n) as timestamp) as v");
    let wrong = || {
        vec![
            Fault::new("expression", format!("dbt_valid_to_current: `{text}` is no constant instant"))
                .hint("write dbt_valid_to_current: \"date '9999-12-31'\""),
        ]
    };
    let planned = planner.plan_sql(&sql, &Scope::default()).map_err(|_| wrong())?;
    let plan = planner.analyze(planned.plan).map_err(|e| diagnose::of_text(&e, &sql, planner))?;
    let LogicalPlan::Projection(projection) = &plan else { return Err(wrong()) };
    let [expr] = projection.expr.as_slice() else { return Err(wrong()) };
    let simple = planner.simplify(expr.clone().unalias(), Arc::clone(projection.input.schema()));
    match simple {
        Ok(Expr::Literal(ScalarValue::TimestampMicrosecond(Some(micros), _), _)) => Ok(micros),
        Ok(Expr::Literal(ScalarValue::TimestampNanosecond(Some(nanos), _), _)) => Ok(nanos.div_euclid(1000)),
        Ok(Expr::Literal(ScalarValue::TimestampMillisecond(Some(millis), _), _)) => Ok(millis * 1000),
        Ok(Expr::Literal(ScalarValue::TimestampSecond(Some(seconds), _), _)) => Ok(seconds * 1_000_000),
        _ => Err(wrong()),
    }
}

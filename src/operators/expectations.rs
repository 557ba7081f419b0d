//! Expectations: row predicates that must be TRUE, and what becomes of rows for which they are not.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::{and, cast, not};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use std::sync::Arc;

use super::expr::{self, Bound};
use crate::error::Result;
use crate::plan::CompiledExpectation;
use crate::project::OnViolation;
use crate::types::{RejectKind, SignedBatch, reject_schema};

/// The expectations of one model.
pub struct Expectations {
    checks: Vec<Check>,
}

struct Check {
    name: String,
    predicate: Bound,
    on_violation: OnViolation,
}

/// A change after its expectations.
pub struct Applied {
    /// What goes into the table.
    pub kept: SignedBatch,
    /// What goes into quarantine, in [`reject_schema`]; retractions take back what was quarantined before.
    pub quarantined: SignedBatch,
    /// Violating rows inserted, per expectation.
    pub counts: Vec<(String, usize)>,
    /// The first row that violates a `fail` expectation.
    pub failed: Option<Failed>,
}

/// A row that failed its model.
#[derive(Debug, Clone)]
pub struct Failed {
    pub name: String,
    /// The row as JSON text.
    pub row: String,
}

impl Expectations {
    /// Binds compiled expectations to the model's output.
    pub fn new(expectations: &[CompiledExpectation], schema: &SchemaRef, session: &SessionState) -> Result<Self> {
        let schema = DFSchema::try_from(schema.as_ref().clone())?;
        let checks = expectations
            .iter()
            .map(|e| {
                Ok(Check {
                    name: e.name.clone(),
                    predicate: expr::bind(&e.predicate, &schema, session)?,
                    on_violation: e.on_violation,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Expectations { checks })
    }

    /// Routes the rows of one change of `model`. A row goes to quarantine once per expectation it violates; a row that is
    /// dropped or quarantined by one expectation is still judged, and counted, by all.
    pub fn apply(&self, model: &str, change: SignedBatch) -> Result<Applied> {
        let mut keep: Option<BooleanArray> = None;
        let mut quarantined = Vec::new();
        let mut counts = Vec::new();
        let mut failed = None;
        for check in &self.checks {
            let holds = expr::mask(&check.predicate, &change.rows)?;
            if holds.true_count() == holds.len() {
                continue;
            }
            let violates = not(&holds)?;
            let inserted = (0..violates.len()).filter(|i| violates.value(*i) && change.weight(*i) > 0).count();
            if inserted > 0 {
                counts.push((check.name.clone(), inserted));
            }
            match check.on_violation {
                OnViolation::Warn => continue,
                OnViolation::Fail => {
                    let first = (0..violates.len()).find(|i| violates.value(*i) && change.weight(*i) > 0);
                    if let (Some(row), None) = (first, &failed) {
                        let text = json_rows(&change.rows.slice(row, 1))?.value(0).to_string();
                        failed = Some(Failed { name: check.name.clone(), row: text });
                    }
                }
                OnViolation::Quarantine => {
                    let rows = change.filter(&violates)?;
                    quarantined.push(rejects(model, &check.name, &rows)?);
                }
                OnViolation::Drop => {}
            }
            keep = Some(match keep {
                None => holds,
                Some(keep) => and(&keep, &holds)?,
            });
        }
        let kept = match keep {
            None => change,
            Some(keep) => change.filter(&keep)?,
        };
        Ok(Applied { kept, quarantined: SignedBatch::concat(&reject_schema(), &quarantined)?, counts, failed })
    }
}

/// Violating rows in the side tables' schema: coordinates and payload are taken from columns of the same names.
fn rejects(model: &str, expectation: &str, rows: &SignedBatch) -> Result<SignedBatch> {
    let count = rows.num_rows();
    let text = |value: &str| -> ArrayRef { Arc::new(StringArray::from(vec![value; count])) };
    let schema = reject_schema();
    let columns = schema
        .fields()
        .iter()
        .map(|field| -> Result<ArrayRef> {
            Ok(match field.name().as_str() {
                "model" => text(model),
                "kind" => text(RejectKind::Quarantine.name()),
                "reason" => text(expectation),
                "row" => Arc::new(json_rows(&rows.rows)?),
                name => match rows.rows.column_by_name(name) {
                    Some(column) => cast(column, field.data_type())?,
                    None => new_null_array(field.data_type(), count),
                },
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(rows.with_rows(RecordBatch::try_new(schema, columns)?))
}

/// Each row as a JSON object without its payload columns, which have columns of their own.
pub(super) fn json_rows(rows: &RecordBatch) -> Result<StringArray> {
    let wanted: Vec<usize> = rows
        .schema()
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, f)| !matches!(f.name().as_str(), "raw_data" | "raw_bytes") && *f.data_type() != DataType::Null)
        .map(|(i, _)| i)
        .collect();
    let rows = rows.project(&wanted)?;
    let mut writer = arrow::json::WriterBuilder::new()
        .with_explicit_nulls(false)
        .build::<_, arrow::json::writer::LineDelimited>(Vec::new());
    writer.write(&rows)?;
    writer.finish()?;
    let text = writer.into_inner();
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().map(Some).collect::<StringArray>())
}

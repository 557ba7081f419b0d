//! Expectations: row predicates that must be TRUE.
//!
//! A model's change is split before it reaches its table: kept rows, and quarantined ones in the shape of
//! [`crate::types::reject_schema`]. Both are signed, so corrected input takes rows out of quarantine again.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::SchemaRef;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use std::sync::Arc;

use super::eval::Predicate;
use super::linear::in_parts;
use crate::error::{Error, Result};
use crate::plan::CompiledExpectation;
use crate::project::OnViolation;
use crate::types::{RejectKind, SignedBatch, reject_schema};

/// The expectations of one model.
pub struct Expectations {
    expectations: Vec<(String, OnViolation, Predicate)>,
    threads: usize,
}

/// A change after its expectations.
#[derive(Debug)]
pub struct Applied {
    /// What goes into the model's table.
    pub kept: SignedBatch,
    /// What goes into its quarantine table.
    pub quarantined: SignedBatch,
    /// Inserted rows that violate, by expectation; retracted ones do not count.
    pub counts: Vec<(String, u64)>,
    /// The first inserted row that violates an expectation with `on_violation: fail`.
    pub failed: Option<Violation>,
}

/// A row that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub expectation: String,
    /// As JSON.
    pub row: String,
}

impl Expectations {
    /// Predicates are over `schema`, the model's stored columns, unqualified.
    pub fn new(expectations: &[CompiledExpectation], schema: &SchemaRef, session: &SessionState) -> Result<Self> {
        let schema = DFSchema::try_from(schema.as_ref().clone())?;
        let compile = |e: &CompiledExpectation| {
            Ok((e.name.clone(), e.on_violation, Predicate::new(&e.predicate, &schema, session)?))
        };
        let threads = session.config().target_partitions();
        Ok(Expectations { expectations: expectations.iter().map(compile).collect::<Result<_>>()?, threads })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.expectations.is_empty()
    }

    /// Of `counts`, which were made over all rows of a model, those that its tables did not hold before: rows that violate and came
    /// (`delta`), or were set aside (`quarantined`). Dropped rows leave no trace: they count as they are.
    pub fn newly_counted(
        &self,
        counts: Vec<(String, usize)>,
        delta: &[SignedBatch],
        quarantined: &[SignedBatch],
    ) -> Result<Vec<(String, usize)>> {
        let inserted = |batch: &SignedBatch, hit: &dyn Fn(usize) -> bool| -> usize {
            let rows = (0..batch.num_rows()).filter(|i| hit(*i));
            rows.map(|i| usize::try_from(batch.weight(i)).unwrap_or(0)).sum()
        };
        let mut newly = Vec::with_capacity(counts.len());
        for (name, count) in counts {
            let known = self.expectations.iter().find(|(known, ..)| *known == name);
            let mut new = count;
            match known {
                Some((_, OnViolation::Warn, predicate)) => {
                    new = 0;
                    for batch in delta {
                        let holds = predicate.evaluate(&batch.rows)?;
                        new += inserted(batch, &|i| !holds.value(i));
                    }
                }
                Some((_, OnViolation::Quarantine, _)) => {
                    new = 0;
                    for batch in quarantined {
                        let reasons = batch.rows.column_by_name("reason").and_then(|c| c.as_string_opt::<i32>());
                        let reasons = reasons.ok_or_else(|| Error::internal("quarantined rows without a reason"))?;
                        new += inserted(batch, &|i| reasons.is_valid(i) && reasons.value(i) == name);
                    }
                }
                _ => {}
            }
            newly.push((name, new));
        }
        Ok(newly)
    }

    /// Splits `change`, rows of the model `model` in stored types: one part after the other, in their order.
    pub fn apply(&self, model: &str, change: Vec<SignedBatch>) -> Result<Vec<Applied>> {
        in_parts(change, self.threads, |part| self.split(model, part).map(Some))
    }

    fn split(&self, model: &str, change: SignedBatch) -> Result<Applied> {
        let rows = change.num_rows();
        let mut keep = vec![true; rows];
        // The first violated expectation, by quarantined row.
        let mut reasons: Vec<Option<String>> = vec![None; rows];
        let mut counts = Vec::with_capacity(self.expectations.len());
        let mut failed = None;
        for (name, on_violation, predicate) in &self.expectations {
            let holds = predicate.evaluate(&change.rows)?;
            let mut count = 0;
            for i in (0..rows).filter(|i| !holds.value(*i)) {
                count += u64::try_from(change.weight(i)).unwrap_or(0);
                match on_violation {
                    OnViolation::Warn => {}
                    OnViolation::Drop => keep[i] = false,
                    OnViolation::Quarantine => {
                        keep[i] = false;
                        // A row is set aside once; what it violated first says why.
                        reasons[i].get_or_insert_with(|| name.clone());
                    }
                    OnViolation::Fail if change.weight(i) > 0 && failed.is_none() => {
                        let row = json_rows(&change.rows.slice(i, 1))?.swap_remove(0);
                        failed = Some(Violation { expectation: name.clone(), row });
                    }
                    OnViolation::Fail => {}
                }
            }
            counts.push((name.clone(), count));
        }
        let quarantined = rejected(model, RejectKind::Quarantine, &change, &reasons)?;
        let kept = if keep.iter().all(|k| *k) { change } else { change.filter(&BooleanArray::from(keep))? };
        Ok(Applied { kept, quarantined, counts, failed })
    }
}

/// Rows with a reason, as rejects.
pub fn rejected(
    model: &str,
    kind: RejectKind,
    change: &SignedBatch,
    reasons: &[Option<String>],
) -> Result<SignedBatch> {
    let schema = reject_schema();
    if reasons.iter().all(Option::is_none) {
        return Ok(SignedBatch::empty(schema));
    }
    let mask: BooleanArray = reasons.iter().map(|r| Some(r.is_some())).collect();
    let rejected = change.filter(&mask)?;
    let count = rejected.num_rows();
    let columns = schema.fields().iter().map(|field| -> Result<ArrayRef> {
        Ok(match field.name().as_str() {
            "model" => Arc::new(StringArray::from(vec![model; count])),
            "kind" => Arc::new(StringArray::from(vec![kind.name(); count])),
            "reason" => Arc::new(StringArray::from_iter_values(reasons.iter().flatten())),
            "row" => Arc::new(StringArray::from(json_rows(&rejected.rows)?)),
            // Where the row came from, as far as the model kept it.
            name => match rejected.rows.column_by_name(name) {
                Some(column) if can_cast_types(column.data_type(), field.data_type()) => {
                    cast_with_options(column, field.data_type(), &CastOptions { safe: true, ..Default::default() })?
                }
                _ => new_null_array(field.data_type(), count),
            },
        })
    });
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_>>()?)?;
    Ok(rejected.with_rows(rows))
}

/// Each row as one JSON object, NULLs included.
pub(super) fn json_rows(rows: &RecordBatch) -> Result<Vec<String>> {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(rows)?;
    writer.finish()?;
    let text = String::from_utf8(writer.into_inner()).map_err(|e| Error::internal(e.to_string()))?;
    // Line breaks inside strings are escaped.
    let lines: Vec<String> = text.lines().map(str::to_string).collect();
    if lines.len() != rows.num_rows() {
        return Err(Error::internal("rows and their JSON texts differ in number"));
    }
    Ok(lines)
}

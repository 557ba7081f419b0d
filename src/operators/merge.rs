//! Runs of incremental models: from a run's rows and the rows of the table they concern to the signed change of the table.

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, interleave, take_record_batch};
use arrow::datatypes::{SchemaRef, UInt64Type};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use std::collections::HashMap;
use std::sync::Arc;

use super::consolidate;
use crate::error::{Error, Result};
use crate::types::SignedBatch;

/// Which rows a merge updates, and in which columns.
pub struct Merge<'a> {
    /// The model, for messages.
    pub name: &'a str,
    pub schema: SchemaRef,
    pub key: &'a [usize],
    /// Per column whether a row that is there takes the new value.
    pub updated: &'a [bool],
}

impl Merge<'_> {
    /// The change when `matched` rows of the table (their columns, then the number of the new row each matches) meet the new
    /// `rows`: a matched row is updated, a new row that matches none is added.
    ///
    /// Two new rows for one row of the table are an error, as in every engine's MERGE: which of them would win is nobody's guess.
    pub fn change(&self, matched: &[RecordBatch], rows: &RecordBatch) -> Result<Vec<SignedBatch>> {
        let mut change = Vec::new();
        let mut is_matched = vec![false; rows.num_rows()];
        for batch in matched.iter().filter(|b| b.num_rows() > 0) {
            let (numbers, columns) =
                batch.columns().split_last().ok_or_else(|| Error::internal("a match without columns"))?;
            let numbers = numbers.as_primitive::<UInt64Type>();
            let was = RecordBatch::try_new(Arc::clone(&self.schema), columns.to_vec())?;
            numbers.values().iter().for_each(|row| is_matched[*row as usize] = true);
            let is = self.updated(&was, rows, numbers)?;
            change.push(SignedBatch::retracts(was));
            change.push(SignedBatch::inserts(is));
        }
        self.check_single(rows, &is_matched)?;
        let new: UInt64Array = (0..rows.num_rows()).filter(|row| !is_matched[*row]).map(|row| row as u64).collect();
        if !new.is_empty() {
            change.push(SignedBatch::inserts(take_record_batch(rows, &new)?));
        }
        net(&self.schema, change)
    }

    /// Rows of the table with the new values in the columns that are updated.
    fn updated(&self, was: &RecordBatch, rows: &RecordBatch, numbers: &UInt64Array) -> Result<RecordBatch> {
        let columns = self.updated.iter().enumerate().map(|(column, updated)| -> Result<ArrayRef> {
            if !updated {
                return Ok(Arc::clone(was.column(column)));
            }
            let places: Vec<(usize, usize)> = numbers.values().iter().map(|row| (0, *row as usize)).collect();
            Ok(interleave(&[rows.column(column).as_ref()], &places)?)
        });
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<_>>()?)?)
    }

    fn check_single(&self, rows: &RecordBatch, is_matched: &[bool]) -> Result<()> {
        let fields = self.key.iter().map(|i| SortField::new(self.schema.field(*i).data_type().clone()));
        let keys = RowConverter::new(fields.collect())?.convert_columns(rows.project(self.key)?.columns())?;
        let mut seen = HashMap::with_capacity(rows.num_rows());
        for row in (0..rows.num_rows()).filter(|row| is_matched[*row]) {
            if seen.insert(keys.row(row).owned(), row).is_some() {
                let shown = self.key.iter().map(|i| {
                    let value = array_value_to_string(rows.column(*i), row).unwrap_or_default();
                    format!("{} = {value}", self.schema.field(*i).name())
                });
                let message = format!(
                    "{}: the run has several rows for {}, and its table has a row with that key",
                    self.name,
                    shown.collect::<Vec<_>>().join(", ")
                );
                return Err(Error::user("merge-duplicate", message).with_hint(
                    "keep one row per unique_key: qualify row_number() over (partition by … order by …) = 1",
                ));
            }
        }
        Ok(())
    }
}

/// The change when `gone` rows of the table make place for new `rows`.
pub fn replace(schema: &SchemaRef, gone: Vec<RecordBatch>, rows: Vec<RecordBatch>) -> Result<Vec<SignedBatch>> {
    let retracts = gone.into_iter().map(SignedBatch::retracts);
    let change = retracts.chain(rows.into_iter().map(SignedBatch::inserts)).filter(|b| !b.is_empty()).collect();
    net(schema, change)
}

/// Without what is retracted and inserted again: an unchanged row is no change.
fn net(schema: &SchemaRef, change: Vec<SignedBatch>) -> Result<Vec<SignedBatch>> {
    if change.iter().any(SignedBatch::has_retractions) { consolidate(schema, change) } else { Ok(change) }
}

/// `rows` as one batch with a last column that numbers them.
pub fn numbered(rows: &[RecordBatch], schema: &SchemaRef, with: &SchemaRef) -> Result<(RecordBatch, RecordBatch)> {
    let rows = concat_batches(schema, rows)?;
    let numbers: UInt64Array = (0..rows.num_rows() as u64).collect::<Vec<_>>().into();
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(numbers));
    let numbered = RecordBatch::try_new(Arc::clone(with), columns)?;
    Ok((rows, numbered))
}

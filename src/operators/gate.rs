//! The gate above a stream: rows that come behind the watermark are late. They are set aside and go no further.
//!
//! It remembers nothing but the clock, so that the same rows at the same clock are late again when they come again after a crash. A row without an
//! instant (no time, or one that WHERE leaves out) is not judged.

use arrow::array::{Array, AsArray, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use std::collections::HashMap;

use super::eval::Exprs;
use super::expectations::json_rows;
use crate::error::{Error, Result};
use crate::plan::incremental::Bound;
use crate::types::SignedBatch;

/// Rows by what they hold, as JSON without NULLs, and how many there are of each.
pub type Known = HashMap<String, i64>;

pub(super) struct Gate {
    /// The stream.
    pub slot: usize,
    bound: Bound,
    expr: Exprs,
    /// µs.
    clock: i64,
    late: Vec<SignedBatch>,
    /// While rows that were judged before come again: those that were late then.
    recalled: Option<Known>,
}

impl Gate {
    pub fn new(slot: usize, bound: Bound, expr: Exprs) -> Self {
        Gate { slot, bound, expr, clock: i64::MIN, late: vec![], recalled: None }
    }

    pub fn set_clock(&mut self, now: i64) {
        self.clock = self.clock.max(now);
    }

    /// Rows that came late since this was last asked.
    pub fn take_late(&mut self) -> Vec<SignedBatch> {
        std::mem::take(&mut self.late)
    }

    /// The next step's rows were judged before: those in `late` were late then, the others were not, wherever the clock stands now.
    pub fn recall(&mut self, late: Known) {
        self.recalled = Some(late);
    }

    pub fn step(&mut self, input: Vec<SignedBatch>) -> Result<Vec<SignedBatch>> {
        let mut recalled = self.recalled.take();
        let mut output = Vec::with_capacity(input.len());
        for batch in input {
            let behind = self.behind(&batch)?;
            let behind = match &mut recalled {
                Some(late) => known(&batch, behind, late)?,
                None => behind,
            };
            if behind.is_empty() {
                output.push(batch);
                continue;
            }
            let mut on_time = Vec::with_capacity(batch.num_rows() - behind.len());
            let mut next = behind.iter().copied().peekable();
            for row in 0..batch.num_rows() as u64 {
                if next.next_if_eq(&row).is_none() {
                    on_time.push(row);
                }
            }
            self.late.push(batch.take(&UInt64Array::from(behind))?);
            output.push(batch.take(&UInt64Array::from(on_time))?);
        }
        Ok(output)
    }

    /// The rows of `input` that are late where the clock stands.
    pub fn judge(&self, input: &[SignedBatch]) -> Result<Vec<SignedBatch>> {
        input.iter().map(|batch| batch.take(&UInt64Array::from(self.behind(batch)?))).collect()
    }

    /// Which rows are behind the clock, ascending.
    fn behind(&self, batch: &SignedBatch) -> Result<Vec<u64>> {
        let mut behind = Vec::new();
        for values in self.expr.evaluate(&batch.rows)? {
            let values = cast(&values, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
            let values = values.as_primitive::<TimestampMicrosecondType>();
            let is_behind = |i: &usize| values.is_valid(*i) && self.bound.span(values.value(*i)).1 <= self.clock;
            behind.extend((0..values.len()).filter(is_behind).map(|i| i as u64));
        }
        Ok(behind)
    }
}

/// Of the rows `behind` the clock those in `late`, which are crossed out there.
fn known(batch: &SignedBatch, behind: Vec<u64>, late: &mut Known) -> Result<Vec<u64>> {
    let texts = texts(&batch.take(&UInt64Array::from(behind.clone()))?)?;
    let mut found = Vec::new();
    for (row, text) in behind.into_iter().zip(texts) {
        if let Some(count) = late.get_mut(&text).filter(|count| **count > 0) {
            *count -= 1;
            found.push(row);
        }
    }
    Ok(found)
}

/// What each row holds.
pub fn texts(batch: &SignedBatch) -> Result<Vec<String>> {
    json_rows(&batch.rows)?.iter().map(|row| without_nulls(row)).collect()
}

/// A row's JSON without the columns that are NULL: a row says the same when its table has got another column.
pub fn without_nulls(row: &str) -> Result<String> {
    let mut row: serde_json::Value =
        serde_json::from_str(row).map_err(|e| Error::internal(format!("a row set aside: {e}")))?;
    if let Some(members) = row.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    Ok(row.to_string())
}

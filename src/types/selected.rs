//! Some rows of a batch, by a selection vector.

use arrow::array::{RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take_record_batch;

use super::{SignedBatch, Weight};
use crate::error::Result;

/// Rows of a batch that others have rows of, too: they stay where they are until somebody wants them side by side.
#[derive(Debug, Clone)]
pub struct SelectedBatch {
    batch: SignedBatch,
    /// In this order; None: all of them.
    selection: Option<UInt32Array>,
}

impl From<SignedBatch> for SelectedBatch {
    fn from(batch: SignedBatch) -> Self {
        SelectedBatch { batch, selection: None }
    }
}

impl SelectedBatch {
    /// The rows of `batch` at `selection`, which has no NULL.
    pub fn new(batch: SignedBatch, selection: UInt32Array) -> Self {
        SelectedBatch { batch, selection: Some(selection) }
    }

    /// The batch the rows are of.
    pub fn whole(&self) -> &SignedBatch {
        &self.batch
    }

    /// Where they are in it; None: they are all of it.
    pub fn selection(&self) -> Option<&UInt32Array> {
        self.selection.as_ref()
    }

    /// Number of selected rows, whatever their weights.
    pub fn num_rows(&self) -> usize {
        self.selection.as_ref().map_or(self.batch.num_rows(), |selection| selection.values().len())
    }

    /// Whether no row is selected.
    pub fn is_empty(&self) -> bool {
        self.num_rows() == 0
    }

    /// Weight of selected row `i`.
    pub fn weight(&self, i: usize) -> Weight {
        match (&self.batch.weights, &self.selection) {
            (None, _) => 1,
            (Some(weights), None) => weights.value(i),
            (Some(weights), Some(selection)) => weights.value(selection.value(i) as usize),
        }
    }

    /// Whether a selected row has a negative weight.
    pub fn has_retractions(&self) -> bool {
        match (&self.batch.weights, &self.selection) {
            (None, _) => false,
            (Some(_), None) => self.batch.has_retractions(),
            (Some(weights), Some(selection)) => selection.values().iter().any(|row| weights.value(*row as usize) < 0),
        }
    }

    /// These columns of the selected rows.
    pub fn columns(&self, columns: &[usize]) -> Result<RecordBatch> {
        let rows = self.batch.rows.project(columns)?;
        match &self.selection {
            None => Ok(rows),
            Some(selection) if columns.is_empty() => {
                let options = RecordBatchOptions::new().with_row_count(Some(selection.values().len()));
                Ok(RecordBatch::try_new_with_options(rows.schema(), vec![], &options)?)
            }
            Some(selection) => Ok(take_record_batch(&rows, selection)?),
        }
    }

    /// The selected rows as a batch of their own.
    pub fn materialize(&self) -> Result<SignedBatch> {
        self.selection.as_ref().map_or_else(|| Ok(self.batch.clone()), |selection| self.batch.take(selection))
    }
}

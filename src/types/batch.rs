//! A signed batch: rows of a Z-set with their integer weights.

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::compute::{concat, concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::SchemaRef;
use std::sync::Arc;

use crate::error::Result;

/// How often a row is in a relation (state), or by how much that changes (delta).
pub type Weight = i64;

/// Rows and their weights: +1 inserts a row, −1 retracts it, 0 never occurs in output of [`SignedBatch::new`].
///
/// `weights` is `None` when every weight is +1, which is what append-only inputs always look like: no array is
/// allocated for them and operators take cheaper paths.
#[derive(Debug, Clone)]
pub struct SignedBatch {
    /// The rows; the weight is never a column of them.
    pub rows: RecordBatch,
    /// One weight per row, never null; `None` means +1 for all.
    pub weights: Option<Int64Array>,
}

impl SignedBatch {
    /// Rows that are all inserted once.
    pub fn inserts(rows: RecordBatch) -> Self {
        SignedBatch { rows, weights: None }
    }

    /// Rows that are all retracted once.
    pub fn retracts(rows: RecordBatch) -> Self {
        let weights = Some(Int64Array::from(vec![-1; rows.num_rows()]));
        SignedBatch { rows, weights }
    }

    /// Rows with weights; rows of weight 0 are left out, all-ones weights become `None`.
    pub fn new(rows: RecordBatch, weights: Int64Array) -> Result<Self> {
        debug_assert_eq!(rows.num_rows(), weights.len());
        let values = weights.values();
        if values.iter().all(|w| *w == 1) {
            return Ok(SignedBatch { rows, weights: None });
        }
        if values.iter().all(|w| *w != 0) {
            return Ok(SignedBatch { rows, weights: Some(weights) });
        }
        let keep = values.iter().map(|w| Some(*w != 0)).collect::<arrow::array::BooleanArray>();
        let rows = filter_record_batch(&rows, &keep)?;
        let weights: Int64Array = values.iter().copied().filter(|w| *w != 0).collect::<Vec<_>>().into();
        Self::new(rows, weights)
    }

    /// No rows.
    pub fn empty(schema: SchemaRef) -> Self {
        SignedBatch { rows: RecordBatch::new_empty(schema), weights: None }
    }

    /// Number of rows, whatever their weights.
    pub fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }

    /// Schema of the rows.
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// Weight of row `i`.
    pub fn weight(&self, i: usize) -> Weight {
        self.weights.as_ref().map_or(1, |w| w.value(i))
    }

    /// Weights of all rows, materialised.
    pub fn weights_array(&self) -> Int64Array {
        self.weights.clone().unwrap_or_else(|| Int64Array::from(vec![1; self.num_rows()]))
    }

    /// Whether any weight is negative.
    pub fn has_retractions(&self) -> bool {
        self.weights.as_ref().is_some_and(|w| w.values().iter().any(|w| *w < 0))
    }

    /// The same weights over other rows (a projection of them).
    pub fn with_rows(&self, rows: RecordBatch) -> Self {
        debug_assert_eq!(rows.num_rows(), self.num_rows());
        SignedBatch { rows, weights: self.weights.clone() }
    }

    /// `rows` rows from row `from` on, with their weights; nothing is copied.
    pub fn slice(&self, from: usize, rows: usize) -> Self {
        SignedBatch { rows: self.rows.slice(from, rows), weights: self.weights.as_ref().map(|w| w.slice(from, rows)) }
    }

    /// The rows at `indices`, an array of integers, with their weights.
    pub fn take(&self, indices: &dyn Array) -> Result<Self> {
        let rows = take_record_batch(&self.rows, indices)?;
        let weights = match &self.weights {
            None => None,
            Some(w) => {
                let taken: ArrayRef = arrow::compute::take(w, indices, None)?;
                Some(taken.as_any().downcast_ref::<Int64Array>().cloned().unwrap_or_else(|| w.slice(0, 0)))
            }
        };
        Ok(SignedBatch { rows, weights })
    }

    /// The rows where `mask` is true, with their weights. A null mask counts as false.
    pub fn filter(&self, mask: &arrow::array::BooleanArray) -> Result<Self> {
        let rows = filter_record_batch(&self.rows, mask)?;
        let weights = match &self.weights {
            None => None,
            Some(w) => {
                let kept = arrow::compute::filter(w, mask)?;
                kept.as_any().downcast_ref::<Int64Array>().cloned()
            }
        };
        Ok(SignedBatch { rows, weights })
    }

    /// All batches as one. `schema` serves when there are none.
    pub fn concat(schema: &SchemaRef, batches: &[SignedBatch]) -> Result<Self> {
        match batches {
            [] => return Ok(Self::empty(Arc::clone(schema))),
            [one] => return Ok(one.clone()),
            _ => {}
        }
        let rows = concat_batches(schema, batches.iter().map(|b| &b.rows))?;
        if batches.iter().all(|b| b.weights.is_none()) {
            return Ok(SignedBatch { rows, weights: None });
        }
        let arrays: Vec<Int64Array> = batches.iter().map(SignedBatch::weights_array).collect();
        let refs: Vec<&dyn Array> = arrays.iter().map(|a| a as &dyn Array).collect();
        let weights = concat(&refs)?;
        let weights = weights.as_any().downcast_ref::<Int64Array>().cloned();
        Ok(SignedBatch { rows, weights })
    }
}

//! Netting: rows of a delta that cancel each other never reach a file.

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;

use super::hash::RowHasher;
use crate::error::Result;
use crate::types::SignedBatch;

/// A delta after netting.
#[derive(Debug)]
pub struct Net {
    /// Rows to insert, each as often as its weight says.
    pub inserts: RecordBatch,
    /// Their hashes.
    pub insert_hashes: Vec<u128>,
    /// Rows to retract, once per unit of weight.
    pub retract_hashes: Vec<u128>,
    /// One row per entry of `retract_hashes`.
    pub retracts: RecordBatch,
}

/// Nets `batches` (all of `schema`). Order of first appearance is kept.
pub fn net(batches: &[SignedBatch], schema: &SchemaRef, hasher: &RowHasher) -> Result<Net> {
    let rows = concat_batches(schema, batches.iter().map(|b| &b.rows))?;
    let hashes = hasher.hash(&rows)?;
    let signed = batches.iter().any(SignedBatch::has_retractions);
    let mut weights: Vec<i64> = Vec::with_capacity(hashes.len());
    for batch in batches {
        match &batch.weights {
            Some(w) => weights.extend_from_slice(w.values()),
            None => weights.resize(weights.len() + batch.num_rows(), 1),
        }
    }
    let (mut plus, mut minus) = (Vec::new(), Vec::new());
    if signed {
        // Weight of each distinct row, and for each the index where it first appears.
        let mut sums: HashMap<u128, (i64, usize)> = HashMap::with_capacity(hashes.len());
        for (i, (hash, weight)) in hashes.iter().zip(&weights).enumerate() {
            sums.entry(*hash).or_insert((0, i)).0 += weight;
        }
        for (i, hash) in hashes.iter().enumerate() {
            if let Some((sum, first)) = sums.get(hash)
                && *first == i
            {
                let side = if *sum > 0 { &mut plus } else { &mut minus };
                side.extend(std::iter::repeat_n(i as u64, sum.unsigned_abs() as usize));
            }
        }
    } else {
        for (i, weight) in weights.iter().enumerate() {
            plus.extend(std::iter::repeat_n(i as u64, weight.unsigned_abs() as usize));
        }
    }
    let pick = |side: &[u64]| side.iter().map(|i| hashes[*i as usize]).collect::<Vec<_>>();
    let (insert_hashes, retract_hashes) = (pick(&plus), pick(&minus));
    let inserts = if plus.len() == rows.num_rows() && plus.iter().enumerate().all(|(i, p)| i as u64 == *p) {
        rows.clone()
    } else {
        take_record_batch(&rows, &UInt64Array::from(plus))?
    };
    let retracts = take_record_batch(&rows, &UInt64Array::from(minus))?;
    Ok(Net { inserts, insert_hashes, retract_hashes, retracts })
}

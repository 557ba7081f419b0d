//! Equal rows of a change net out.

use arrow::array::{Int64Array, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use hashbrown::HashMap;

use super::RowCodec;
use crate::error::Result;
use crate::types::SignedBatch;

/// The change as a Z-set: each distinct row once, with its total weight; rows of weight 0 are gone. Keeps the order of first
/// occurrence, so the result is deterministic.
pub fn consolidate(schema: &SchemaRef, batches: &[SignedBatch]) -> Result<SignedBatch> {
    let all = SignedBatch::concat(schema, batches)?;
    if !all.has_retractions() {
        // Nothing can cancel; equal rows may stand more than once.
        return Ok(all);
    }
    let types: Vec<DataType> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
    if types.is_empty() {
        return Ok(all);
    }
    let codec = RowCodec::new(&types)?;
    let rows = codec.encode(all.rows.columns())?;
    let mut totals: HashMap<&[u8], usize> = HashMap::with_capacity(all.num_rows());
    let mut kept: Vec<(u64, i64)> = Vec::with_capacity(all.num_rows());
    let encoded: Vec<arrow::row::Row<'_>> = rows.iter().collect();
    for (i, row) in encoded.iter().enumerate() {
        let weight = all.weight(i);
        match totals.entry(row.data()) {
            hashbrown::hash_map::Entry::Occupied(at) => kept[*at.get()].1 += weight,
            hashbrown::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(kept.len());
                kept.push((i as u64, weight));
            }
        }
    }
    kept.retain(|(_, weight)| *weight != 0);
    let indices: UInt64Array = kept.iter().map(|(i, _)| *i).collect::<Vec<_>>().into();
    let weights: Int64Array = kept.iter().map(|(_, w)| *w).collect::<Vec<_>>().into();
    SignedBatch::new(take_record_batch(&all.rows, &indices)?, weights)
}

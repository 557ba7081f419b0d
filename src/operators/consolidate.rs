//! Netting out equal rows.

use arrow::array::{Int64Array, UInt64Array};
use arrow::datatypes::SchemaRef;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::error::Result;
use crate::state::RowCodec;
use crate::types::SignedBatch;

/// The same change with every row at most once, and none of weight 0. Insertions alone are passed on as they are: there is
/// nothing to net out.
pub fn consolidate(schema: &SchemaRef, batches: Vec<SignedBatch>) -> Result<Vec<SignedBatch>> {
    if !batches.iter().any(SignedBatch::has_retractions) {
        return Ok(batches);
    }
    let all = SignedBatch::concat(schema, &batches)?;
    let codec = RowCodec::new(schema.fields().iter().map(|f| f.data_type().clone()))?;
    let encoded = codec.encode(all.rows.columns(), all.num_rows())?;
    let mut first: HashTable<(u64, usize)> = HashTable::with_capacity(all.num_rows());
    let mut weights = vec![0i64; all.num_rows()];
    for i in 0..all.num_rows() {
        let hash = encoded.hash(i);
        let same = |(h, at): &(u64, usize)| *h == hash && encoded.row(*at) == encoded.row(i);
        let at = match first.entry(hash, same, |(h, _)| *h) {
            Entry::Occupied(entry) => entry.get().1,
            Entry::Vacant(entry) => {
                entry.insert((hash, i));
                i
            }
        };
        weights[at] += all.weight(i);
    }
    let keep: Vec<u64> = (0..weights.len()).filter(|i| weights[*i] != 0).map(|i| i as u64).collect();
    if keep.is_empty() {
        return Ok(vec![]);
    }
    let kept: Int64Array = keep.iter().map(|i| weights[*i as usize]).collect::<Vec<_>>().into();
    let rows = arrow::compute::take_record_batch(&all.rows, &UInt64Array::from(keep))?;
    Ok(vec![SignedBatch::new(rows, kept)?])
}

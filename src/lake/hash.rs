//! 128-bit hashes of rows: what locators know a row by.
//!
//! The bytes that are hashed are arrow's row encoding of all columns, in schema order, after [`super::schema::conform`]:
//! the same row always has the same hash, whichever file or batch it stands in. Two different rows with one hash are
//! never expected (a chance of 2^-128 per pair).

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::row::{RowConverter, SortField};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::Result;

/// Rows encoded at once: bounds the memory of the encoding.
const CHUNK: usize = 8192;

/// Hashes rows of one schema.
#[derive(Debug)]
pub struct RowHasher {
    converter: RowConverter,
}

impl RowHasher {
    /// For rows of `schema`.
    pub fn new(schema: &Schema) -> Result<Self> {
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        Ok(RowHasher { converter: RowConverter::new(fields)? })
    }

    /// One hash per row.
    pub fn hash(&self, batch: &RecordBatch) -> Result<Vec<u128>> {
        let mut hashes = Vec::with_capacity(batch.num_rows());
        let mut start = 0;
        while start < batch.num_rows() {
            let length = CHUNK.min(batch.num_rows() - start);
            let rows = self.converter.convert_columns(batch.slice(start, length).columns())?;
            hashes.extend(rows.iter().map(|row| xxh3_128(row.data())));
            start += length;
        }
        Ok(hashes)
    }
}

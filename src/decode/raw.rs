//! `format: raw`: no columns and no bad record. The payload is read through the source's metadata columns.

use arrow::array::{RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::Schema;
use std::sync::Arc;

use super::Decoder;
use crate::error::Result;
use crate::types::{DecodedChunk, RawChunk};

/// One row without columns per record, tombstones included.
#[derive(Debug)]
pub struct RawDecoder;

impl Decoder for RawDecoder {
    fn decode(&mut self, chunk: &RawChunk) -> Result<DecodedChunk> {
        let options = RecordBatchOptions::new().with_row_count(Some(chunk.len()));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?;
        let records = UInt32Array::from_iter_values(0..chunk.len() as u32);
        Ok(DecodedChunk { rows, records, weights: None, rescued: None, errors: Vec::new() })
    }
}

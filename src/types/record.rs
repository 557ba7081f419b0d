//! Raw records as a source reads them, and what a decoder makes of them.

use arrow::array::{BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array};
use std::sync::Arc;

use super::payloads::Payloads;

/// A run of records of one partition, columnar and still undecoded: every payload was copied once, into `values`.
#[derive(Debug, Clone)]
pub struct RawChunk {
    /// Kafka topic, or the source table's name.
    pub topic: Arc<str>,
    /// Kafka partition; for files the ledger's sequence number of the file.
    pub partition: i32,
    /// The file the records came from, for files sources.
    pub file: Option<Arc<str>>,
    /// Payloads.
    pub values: Payloads,
    /// Record keys; `None` when no record of the chunk has one.
    pub keys: Option<BinaryArray>,
    /// Offsets, ascending, not necessarily dense. For files the number of the record in its file.
    pub offsets: Int64Array,
    /// Broker timestamps in µs UTC; null when unknown.
    pub timestamps: TimestampMicrosecondArray,
    /// Record headers as JSON text, only when the source includes them.
    pub headers: Option<StringArray>,
}

impl RawChunk {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }
}

/// Why a record could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// Index of the record in its chunk.
    pub record: u32,
    /// The reason, with the position inside the record: `line 1 column 17: expected , or }`.
    pub reason: String,
}

/// What a decoder makes of a [`RawChunk`].
#[derive(Debug, Clone)]
pub struct DecodedChunk {
    /// Rows in the declared columns' schema. Bad records have no row here, unless the decoder keeps them.
    pub rows: RecordBatch,
    /// For each row the index of its record in the chunk; ascending, repeated where one record gives several rows
    /// (a Debezium update gives −before and +after).
    pub records: UInt32Array,
    /// Weight per row for changelog formats; `None` for append-only ones. For a keyed changelog −1 means
    /// "delete this key", +1 "this key is now this row".
    pub weights: Option<Int64Array>,
    /// Unknown or unconvertible fields per row as JSON text, when asked for.
    pub rescued: Option<StringArray>,
    /// The bad records, ascending.
    pub errors: Vec<RecordError>,
}

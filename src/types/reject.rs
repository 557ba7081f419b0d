//! Rows that did not make it into their table. Dead letters, quarantined and late rows share one schema, so that one
//! view (`_smelt.rejects`) shows them all.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::sync::{Arc, LazyLock};

/// Why a row stands in a side table; the suffix of that table's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectKind {
    /// The record could not be decoded.
    DeadLetter,
    /// An expectation with `on_violation: quarantine` was not TRUE.
    Quarantine,
    /// The row's window had closed.
    Late,
}

impl RejectKind {
    /// `dead_letter`, `quarantine`, `late`.
    pub fn name(self) -> &'static str {
        match self {
            RejectKind::DeadLetter => "dead_letter",
            RejectKind::Quarantine => "quarantine",
            RejectKind::Late => "late",
        }
    }

    /// The side table of model `model`: `stg_calls__quarantine`.
    pub fn table(self, model: &str) -> String {
        format!("{model}__{}", self.name())
    }
}

/// `model, kind, reason, row` (the row as JSON text; NULL for a dead letter), `raw_data` (the payload as text, when it is
/// valid UTF-8), `raw_bytes` (the payload, when it is not), then its coordinates `topic, partition, offset, timestamp`.
pub fn reject_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("model", DataType::Utf8, true),
            Field::new("kind", DataType::Utf8, true),
            Field::new("reason", DataType::Utf8, true),
            Field::new("row", DataType::Utf8, true),
            Field::new("raw_data", DataType::Utf8, true),
            Field::new("raw_bytes", DataType::Binary, true),
            Field::new("topic", DataType::Utf8, true),
            Field::new("partition", DataType::Int32, true),
            Field::new("offset", DataType::Int64, true),
            Field::new("timestamp", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        ]))
    });
    Arc::clone(&SCHEMA)
}

//! Bytes → Arrow: a [`RawChunk`] of records becomes rows in the declared columns' types, and the bad records come back with
//! their reasons, exactly isolated: a bad record changes nothing about its neighbours.
//!
//! [`decoder`] picks one by format: [`json`] (the engine's own, for `from_json` too), [`csv`], [`debezium`] (change
//! envelopes with weights) and raw (no columns: the record is read through the source's metadata columns).
//!
//! Decoders keep no row between chunks; they are cheap to reuse and costly to make.

mod raw;

pub mod csv;
pub mod debezium;
pub mod infer;
pub mod json;

use arrow::datatypes::SchemaRef;
use std::collections::BTreeMap;

use crate::error::Result;
use crate::types::{DecodedChunk, RawChunk};

pub use csv::CsvOptions;
pub use raw::RawDecoder;

/// chrono strftime formats of text dates and timestamps, by the column's name; a member of a STRUCT is `column.member`.
pub type Formats = BTreeMap<String, String>;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeFormat {
    /// One JSON object.
    Json,
    /// One CSV record.
    Csv,
    /// One Debezium change event as JSON.
    DebeziumJson,
    /// Anything.
    Raw,
}

/// What the records are decoded into.
#[derive(Debug, Clone)]
pub struct DecodeOptions {
    /// The declared columns, in types of [`crate::types::parse_sql_type`], all nullable.
    pub columns: SchemaRef,
    /// Declared formats. ISO 8601 is read besides.
    pub formats: Formats,
    /// Fill [`DecodedChunk::rescued`]: unknown fields, and fields that do not fit, which then are NULL instead of making
    /// the record bad.
    pub rescued: bool,
    /// A bad record is a row too, of NULLs, beside its error.
    pub keep: bool,
    /// Debezium: rows are upserts and deletes by these columns. Empty: `before` counts −1 and `after` +1.
    pub primary_key: Vec<String>,
    pub csv: CsvOptions,
}

impl DecodeOptions {
    /// Plain decoding into `columns`.
    pub fn new(columns: SchemaRef) -> Self {
        DecodeOptions {
            columns,
            formats: Formats::new(),
            rescued: false,
            keep: false,
            primary_key: Vec::new(),
            csv: CsvOptions::default(),
        }
    }
}

/// Turns chunks of records into rows.
pub trait Decoder: Send {
    /// The rows of `chunk`. Bad records are in the result; an error means that the decoder itself cannot go on.
    fn decode(&mut self, chunk: &RawChunk) -> Result<DecodedChunk>;
}

/// The decoder for `format`.
pub fn decoder(format: DecodeFormat, options: &DecodeOptions) -> Result<Box<dyn Decoder>> {
    Ok(match format {
        DecodeFormat::Json => Box::new(json::JsonDecoder::new(options)?),
        DecodeFormat::Csv => Box::new(csv::CsvDecoder::new(options)?),
        DecodeFormat::DebeziumJson => Box::new(debezium::DebeziumJsonDecoder::new(options)?),
        DecodeFormat::Raw => Box::new(RawDecoder),
    })
}

#[cfg(test)]
mod tests;

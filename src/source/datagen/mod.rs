//! Sources that make their own rows: the sample project's telecom traffic, and rows by column rules.
//!
//! ```yaml
//! config: {connector: datagen, options: {generator: telecom, topic: call_event, rate: 500}}   # telecom
//! config: {connector: datagen, options: {rate: 100, rows: 10000}}                             # columns, the default
//! ```
//!
//! A generator makes raw JSON records, and they go through the same decoder as those of Kafka and files: `format`,
//! `include` and `on_error` mean what they mean there. Record n of a partition is the same at every start, so a datagen source can
//! be replayed and its position is an offset.

mod columns;
mod stream;
pub mod nexmark;
pub mod telecom;
pub mod tpch;

#[cfg(test)]
mod tests;

use arrow::datatypes::SchemaRef;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

use self::columns::ColumnStream;
use self::stream::{RawRecord, RecordStream, StreamSource, StreamSpec};
use self::telecom::{Options, PARTITIONS, Telecom, Topic};
use crate::env::Env;
use crate::error::{Error, Result, did_you_mean};
use crate::project::{Format, SourceTable};
use crate::types::{RawChunk, Source, SourceBatch};

/// Turns raw records into the rows of a source: (records of one partition, µs now) → rows, rejects, next position.
pub(super) type Assemble = stream::Assemble;

/// Opens the generator that `options` name. `schema` and `assemble` are the source's own: see [`super`].
pub(super) fn open(
    table: &Arc<SourceTable>,
    options: &BTreeMap<String, Value>,
    env: &Env,
    schema: SchemaRef,
    assemble: impl FnMut(&RawChunk, i64) -> Result<SourceBatch> + Send + 'static,
) -> Result<Box<dyn Source>> {
    let at = |e: Error| if e.span().is_none() { e.with_span(table.span.clone()) } else { e };
    if !matches!(table.format, Format::Json | Format::Raw) {
        return Err(at(Error::user("bad-format", "datagen makes JSON: the format can be json or raw")));
    }
    let assemble: Assemble = Box::new(assemble);
    let spec = match options.get("generator").map(|g| g.as_str().unwrap_or_default()) {
        Some("telecom") => telecom_spec(options, schema, assemble),
        None | Some("columns") => columns_spec(table, options, schema, assemble),
        Some(other) => {
            let error = Error::user("unknown-generator", format!("there is no generator `{other}`"));
            Err(match did_you_mean(other, ["telecom", "columns"]) {
                Some(meant) => error.with_hint(format!("did you mean `{meant}`?")),
                None => error.with_hint("it can be: telecom, columns"),
            })
        }
    };
    Ok(Box::new(StreamSource::new(spec.map_err(at)?, env.clone())))
}

fn telecom_spec(options: &BTreeMap<String, Value>, schema: SchemaRef, assemble: Assemble) -> Result<StreamSpec> {
    let mut options = options.clone();
    options.remove("generator");
    let topic = match options.remove("topic") {
        Some(name) => Topic::ALL.into_iter().find(|t| name.as_str() == Some(t.name())).ok_or_else(|| {
            Error::user("unknown-topic", format!("the telecom generator has no topic {name}"))
                .with_hint("it can be: call_event, sms_event")
        })?,
        None => {
            return Err(Error::user("missing-topic", "the telecom generator needs a `topic`")
                .with_hint("write options: {generator: telecom, topic: call_event}"));
        }
    };
    let options = Options::from_map(&options)?;
    // The rate changes no byte, so it may change between two starts.
    let identity = Options { rate: None, ..options.clone() };
    Ok(StreamSpec {
        topic: topic.name().into(),
        schema,
        rate: options.rate,
        restart: Box::new(move || {
            Ok(Box::new(TelecomStream { telecom: Telecom::new(options.clone())?, topic: topic.name() }))
        }),
        assemble,
        partitions: PARTITIONS,
        identity: identity_text("telecom", &identity)?,
    })
}

fn columns_spec(
    table: &Arc<SourceTable>,
    options: &BTreeMap<String, Value>,
    schema: SchemaRef,
    assemble: Assemble,
) -> Result<StreamSpec> {
    ColumnStream::new(table, options)?;
    let rate = stream::rate(options)?;
    let identity = identity_text("columns", options)?;
    let (table, options) = (Arc::clone(table), options.clone());
    Ok(StreamSpec {
        topic: table.name.as_str().into(),
        schema,
        rate,
        restart: Box::new(move || Ok(Box::new(ColumnStream::new(&table, &options)?))),
        assemble,
        partitions: 1,
        identity,
    })
}

fn identity_text(generator: &str, options: &impl serde::Serialize) -> Result<String> {
    let options = serde_json::to_string(options).map_err(|e| Error::internal(e.to_string()))?;
    Ok(format!("{generator} {options}"))
}

/// One topic of the telecom traffic.
struct TelecomStream {
    telecom: Telecom,
    topic: &'static str,
}

impl RecordStream for TelecomStream {
    fn next(&mut self) -> Option<RawRecord> {
        let record = self.telecom.find(|record| record.topic == self.topic)?;
        Some(RawRecord {
            partition: record.partition,
            key: Some(record.key),
            value: record.value,
            timestamp_micros: record.timestamp_micros,
        })
    }

    fn is_endless(&self) -> bool {
        false
    }
}

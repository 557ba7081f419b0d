//! Records, decoded rows and errors → the rows of a source table and its dead letters.

use arrow::array::{
    Array, ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray, StringBuilder,
    StructArray, TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Fields, Schema, SchemaRef};
use std::collections::HashMap;
use std::sync::Arc;

use super::schema::{declared, relation_schema, shows_declared};
use crate::decode::{CsvOptions, DecodeFormat, DecodeOptions, Decoder, decoder};
use crate::error::{Error, Result};
use crate::project::{Connector, Format, Include, OnError, SourceTable};
use crate::types::{RawChunk, RecordError, RejectKind, SignedBatch, SourceBatch, SourcePartition, reject_schema};

/// Turns chunks of records into rows of one source table.
pub(super) struct Assembler {
    table: Arc<SourceTable>,
    declared: Fields,
    schema: SchemaRef,
    /// None for `format: raw`.
    decoder: Option<Box<dyn Decoder>>,
    csv: CsvOptions,
}

fn decode_options(table: &SourceTable, declared: &Fields, csv: CsvOptions) -> DecodeOptions {
    DecodeOptions {
        formats: table.columns.iter().filter_map(|c| Some((c.name.clone(), c.format.clone()?))).collect(),
        rescued: table.rescued_data.is_some(),
        // Their offsets stay ascending.
        keep: table.on_error == OnError::Keep,
        primary_key: table.primary_key.clone(),
        csv,
        ..DecodeOptions::new(Arc::new(Schema::new(declared.clone())))
    }
}

/// `options: {delimiter, quote, "null"}` of a files source.
fn csv_options(table: &SourceTable) -> CsvOptions {
    let mut csv = CsvOptions::default();
    if let Connector::Files(config) = &table.connector {
        let text = |name: &str| config.options.get(name).and_then(|v| v.as_str());
        let byte = |name: &str| text(name).and_then(|t| t.bytes().next());
        csv.delimiter = byte("delimiter").unwrap_or(csv.delimiter);
        csv.quote = byte("quote").unwrap_or(csv.quote);
        csv.null = text("null").map(str::to_string);
    }
    csv
}

/// Rows and rejects of one chunk, each with the index of its record.
pub(super) struct Assembled {
    pub rows: SignedBatch,
    pub records: UInt32Array,
    pub rejects: Option<(RecordBatch, UInt32Array)>,
}

impl Assembler {
    pub(super) fn new(table: Arc<SourceTable>) -> Result<Self> {
        let declared = declared(&table)?;
        let schema = relation_schema(&table)?;
        let format = match table.format {
            Format::Json => Some(DecodeFormat::Json),
            Format::Csv => Some(DecodeFormat::Csv),
            Format::DebeziumJson => Some(DecodeFormat::DebeziumJson),
            Format::Raw => None,
            // Parquet files are columns already: the files source fills them in.
            Format::Parquet => None,
        };
        let csv = csv_options(&table);
        let decoder = match format {
            None => None,
            Some(format) => Some(decoder(format, &decode_options(&table, &declared, csv.clone()))?),
        };
        Ok(Assembler { table, declared, schema, decoder, csv })
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The next chunks are CSV records whose cells have these names.
    pub(super) fn set_csv_header(&mut self, header: Vec<String>) -> Result<()> {
        if self.csv.header.as_ref() != Some(&header) {
            self.csv.header = Some(header);
            let options = decode_options(&self.table, &self.declared, self.csv.clone());
            self.decoder = Some(decoder(DecodeFormat::Csv, &options)?);
        }
        Ok(())
    }

    /// How the source's CSV files are written.
    pub(super) fn csv(&self) -> &CsvOptions {
        &self.csv
    }

    /// The declared columns.
    pub(super) fn declared(&self) -> &Fields {
        &self.declared
    }

    /// Rows whose declared columns are known already; `chunk` says only where they come from.
    pub(super) fn columns(&self, chunk: &RawChunk, columns: &[ArrayRef], processing_time: i64) -> Result<Assembled> {
        let records: UInt32Array = (0..chunk.len() as u32).collect::<Vec<_>>().into();
        let rows = self.rows(chunk, columns, &records, None, &HashMap::new(), processing_time)?;
        Ok(Assembled { rows: SignedBatch::inserts(rows), records, rejects: None })
    }

    /// Decodes a chunk read at `processing_time` (µs).
    pub(super) fn assemble(&mut self, chunk: &RawChunk, processing_time: i64) -> Result<Assembled> {
        let count = chunk.len();
        let Some(decoder) = &mut self.decoder else {
            let records: UInt32Array = (0..count as u32).collect::<Vec<_>>().into();
            let rows = self.rows(chunk, &[], &records, None, &HashMap::new(), processing_time)?;
            return Ok(Assembled { rows: SignedBatch::inserts(rows), records, rejects: None });
        };
        let decoded = decoder.decode(chunk)?;
        if decoded.errors.is_empty() {
            let rows = self.rows(
                chunk,
                decoded.rows.columns(),
                &decoded.records,
                decoded.rescued.as_ref(),
                &HashMap::new(),
                processing_time,
            )?;
            let rows = signed(rows, decoded.weights)?;
            return Ok(Assembled { rows, records: decoded.records, rejects: None });
        }
        match self.table.on_error {
            OnError::Fail => {
                let error = &decoded.errors[0];
                Err(Error::user("bad-record", format!("{}: {}", coordinates(chunk, error.record), error.reason))
                    .with_hint("correct the producer, or set `on_error: dead_letter` or `keep` on the source"))
            }
            OnError::DeadLetter => {
                let rejects = dead_letters(chunk, &decoded.errors)?;
                let rows = self.rows(
                    chunk,
                    decoded.rows.columns(),
                    &decoded.records,
                    decoded.rescued.as_ref(),
                    &HashMap::new(),
                    processing_time,
                )?;
                let rows = signed(rows, decoded.weights)?;
                Ok(Assembled { rows, records: decoded.records, rejects: Some(rejects) })
            }
            OnError::Keep => {
                let reasons: HashMap<u32, &str> =
                    decoded.errors.iter().map(|e| (e.record, e.reason.as_str())).collect();
                let columns = decoded.rows.columns();
                let rescued = decoded.rescued.as_ref();
                let rows = self.rows(chunk, columns, &decoded.records, rescued, &reasons, processing_time)?;
                Ok(Assembled { rows: signed(rows, decoded.weights)?, records: decoded.records, rejects: None })
            }
        }
    }

    /// Decodes a chunk into a batch whose positions are its records' offsets.
    pub(super) fn batch(&mut self, chunk: &RawChunk, processing_time: i64) -> Result<SourceBatch> {
        let assembled = self.assemble(chunk, processing_time)?;
        let offsets = |records: &UInt32Array| -> Int64Array {
            records.values().iter().map(|r| chunk.offsets.value(*r as usize)).collect::<Vec<_>>().into()
        };
        Ok(SourceBatch {
            partition: SourcePartition { topic: Arc::clone(&chunk.topic), partition: chunk.partition },
            next: chunk.offsets.values().last().map_or(0, |o| o + 1),
            offsets: offsets(&assembled.records),
            rejects: assembled.rejects.map(|(rows, records)| (rows, offsets(&records))),
            rows: assembled.rows,
        })
    }

    fn rows(
        &self,
        chunk: &RawChunk,
        columns: &[ArrayRef],
        records: &UInt32Array,
        rescued: Option<&StringArray>,
        reasons: &HashMap<u32, &str>,
        processing_time: i64,
    ) -> Result<RecordBatch> {
        let count = records.len();
        // The usual case: every record gave one row, nothing has to be picked.
        let all = count == chunk.len() && records.values().iter().enumerate().all(|(i, r)| i as u32 == *r);
        let pick = |array: &dyn Array| -> Result<ArrayRef> {
            if all { Ok(array.slice(0, array.len())) } else { Ok(take(array, records, None)?) }
        };
        let mut out: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        if shows_declared(&self.table) {
            out.extend(columns.iter().cloned());
        }
        if self.table.rescued_data.is_some() {
            out.push(match rescued {
                Some(rescued) => Arc::new(rescued.clone()),
                None => new_null_array(&DataType::Utf8, count),
            });
        }
        for (include, _) in &self.table.include {
            out.push(match include {
                Include::Key => match &chunk.keys {
                    Some(keys) => pick(&texts(keys))?,
                    None => new_null_array(&DataType::Utf8, count),
                },
                Include::Value => pick(chunk.values.texts())?,
                Include::ValueBytes => pick(&chunk.values.others())?,
                Include::Topic => {
                    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(chunk.topic.as_ref(), count)))
                }
                Include::Partition => Arc::new(Int32Array::from(vec![chunk.partition; count])),
                Include::Offset => pick(&chunk.offsets)?,
                Include::Timestamp => pick(&chunk.timestamps.clone().with_timezone("UTC"))?,
                Include::Headers => match &chunk.headers {
                    Some(headers) => pick(headers)?,
                    None => new_null_array(&DataType::Utf8, count),
                },
                Include::ProcessingTime => {
                    Arc::new(TimestampMicrosecondArray::from(vec![processing_time; count]).with_timezone("UTC"))
                }
                Include::File => match &chunk.file {
                    Some(file) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(file.as_ref(), count))),
                    None => new_null_array(&DataType::Utf8, count),
                },
                Include::Error if reasons.is_empty() => new_null_array(&DataType::Utf8, count),
                Include::Error => {
                    Arc::new(records.values().iter().map(|r| reasons.get(r).copied()).collect::<StringArray>())
                }
                Include::Parsed => {
                    let nulls = (!reasons.is_empty()).then(|| {
                        records.values().iter().map(|r| !reasons.contains_key(r)).collect::<arrow::buffer::NullBuffer>()
                    });
                    let parts = if columns.is_empty() && !self.declared.is_empty() {
                        self.declared.iter().map(|f| new_null_array(f.data_type(), count)).collect()
                    } else {
                        columns.to_vec()
                    };
                    Arc::new(StructArray::try_new_with_length(self.declared.clone(), parts, nulls, count)?)
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), out, &options)?)
    }
}

fn signed(rows: RecordBatch, weights: Option<Int64Array>) -> Result<SignedBatch> {
    Ok(match weights {
        None => SignedBatch::inserts(rows),
        Some(weights) => SignedBatch { rows, weights: Some(weights) },
    })
}

/// Bytes as text; NULL where they are not UTF-8.
fn texts(values: &BinaryArray) -> StringArray {
    // All valid, which is checked once over the whole buffer: no copy.
    if let Ok(all) = StringArray::try_from_binary(values.clone()) {
        return all;
    }
    let mut out = StringBuilder::with_capacity(values.len(), values.value_data().len());
    for value in values {
        out.append_option(value.and_then(|v| std::str::from_utf8(v).ok()));
    }
    out.finish()
}

fn coordinates(chunk: &RawChunk, record: u32) -> String {
    let offset = chunk.offsets.value(record as usize);
    match &chunk.file {
        Some(file) => format!("{file}, record {offset}"),
        None => format!("topic {}, partition {}, offset {offset}", chunk.topic, chunk.partition),
    }
}

fn dead_letters(chunk: &RawChunk, errors: &[RecordError]) -> Result<(RecordBatch, UInt32Array)> {
    let records: UInt32Array = errors.iter().map(|e| e.record).collect::<Vec<_>>().into();
    let count = records.len();
    let at = |array: &dyn Array| -> Result<ArrayRef> { Ok(take(array, &records, None)?) };
    let schema = reject_schema();
    let columns = schema
        .fields()
        .iter()
        .map(|field| -> Result<ArrayRef> {
            Ok(match field.name().as_str() {
                "kind" => Arc::new(StringArray::from(vec![RejectKind::DeadLetter.name(); count])),
                "reason" => Arc::new(errors.iter().map(|e| Some(e.reason.as_str())).collect::<StringArray>()),
                "raw_data" => at(chunk.values.texts())?,
                "raw_bytes" => at(&chunk.values.others())?,
                "topic" => Arc::new(StringArray::from(vec![chunk.topic.as_ref(); count])),
                "partition" => Arc::new(Int32Array::from(vec![chunk.partition; count])),
                "offset" => at(&chunk.offsets)?,
                "timestamp" => at(&chunk.timestamps.clone().with_timezone("UTC"))?,
                _ => new_null_array(field.data_type(), count),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok((RecordBatch::try_new(schema, columns)?, records))
}

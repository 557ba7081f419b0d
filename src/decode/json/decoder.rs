//! The decoders over whole chunks and arrays.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, StructArray, UInt32Array};
use arrow::datatypes::{DataType, Fields, SchemaRef};
use std::sync::Arc;

use super::column::{Bytes, Column};
use super::fault::{Fault, Step};
use super::object::{Object, to_object};
use super::scan::Scan;
use crate::decode::{DecodeOptions, Decoder, Formats};
use crate::error::{Error, Result};
use crate::types::{DecodedChunk, Payload, RawChunk, RecordError};

/// Rows being built from records' objects: what every format over JSON shares.
#[derive(Debug)]
pub(crate) struct Records {
    pub root: Object,
    schema: SchemaRef,
    rescued: Option<Bytes>,
    keep: bool,
}

impl Records {
    pub fn new(options: &DecodeOptions) -> Result<Self> {
        let root = Object::new(options.columns.fields(), "", &options.formats)?;
        let schema = Arc::clone(&options.columns);
        Ok(Records { root, schema, rescued: options.rescued.then(Bytes::default), keep: options.keep })
    }

    /// A scanner that rescues if these rows want it.
    pub fn scan<'a>(&self) -> Scan<'a> {
        Scan { rescue: self.rescued.is_some(), ..Scan::default() }
    }

    /// Whether these rows want unknown and unconvertible fields.
    pub fn rescues(&self) -> bool {
        self.rescued.is_some()
    }

    /// Number of whole rows.
    pub fn len(&self) -> usize {
        self.root.len()
    }

    /// Reads the object at the cursor as a row. After an error: [`Records::truncate`].
    #[inline]
    pub fn read(&mut self, s: &mut Scan<'_>) -> Step {
        if s.peek() != b'{' {
            return Err(not_an_object(s));
        }
        self.root.read(s)?;
        self.rescue(s);
        Ok(())
    }

    /// Ends a row's rescued column with what `s` has rescued.
    #[inline]
    pub fn rescue(&mut self, s: &mut Scan<'_>) {
        match &mut self.rescued {
            None => {}
            Some(rescued) if s.rescued.is_empty() => rescued.push_null(),
            Some(rescued) => {
                rescued.push(&to_object(&s.rescued));
                s.rescued.clear();
            }
        }
    }

    /// After a record that is bad: drops what it has left behind the first `len` rows, and puts a row of NULLs in its place if bad records are kept. Returns whether it did.
    #[cold]
    pub fn give_up(&mut self, len: usize) -> bool {
        self.truncate(len);
        if self.keep {
            self.root.push_null();
            if let Some(rescued) = &mut self.rescued {
                rescued.push_null();
            }
        }
        self.keep
    }

    /// Drops everything behind the first `len` rows.
    pub fn truncate(&mut self, len: usize) {
        self.root.truncate(len);
        if let Some(rescued) = &mut self.rescued {
            rescued.truncate(len);
        }
    }

    /// The rows, and their rescued fields; empty afterwards.
    pub fn finish(&mut self) -> Result<(RecordBatch, Option<StringArray>)> {
        let (_, len, _, arrays) = self.root.finish()?;
        let options = RecordBatchOptions::new().with_row_count(Some(len));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?;
        let rescued = match &mut self.rescued {
            Some(rescued) => Some(rescued.finish_text()?),
            None => None,
        };
        Ok((rows, rescued))
    }
}

/// The root of a record is something else than an object, or nothing.
#[cold]
pub(crate) fn not_an_object(s: &mut Scan<'_>) -> Box<Fault> {
    let at = s.at;
    if at >= s.bytes.len() {
        return Fault::syntax(at, "the record is empty");
    }
    match s.skip() {
        Err(fault) => fault,
        Ok(()) => Fault::syntax(at, "the record is no object"),
    }
}

/// Why a tombstone is a bad record, where rows are not changes by key.
pub(crate) const TOMBSTONE: &str = "tombstone (null value)";

/// Payload `i` of a chunk for a decoder; `None` for a tombstone.
#[inline]
pub(crate) fn payload(chunk: &RawChunk, i: usize) -> Option<Step<&[u8]>> {
    match chunk.values.get(i) {
        Payload::Text(text) => Some(Ok(text.as_bytes())),
        Payload::Bytes(bytes) => Some(check_utf8(bytes)),
        Payload::Tombstone => None,
    }
}

fn check_utf8(bytes: &[u8]) -> Step<&[u8]> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(bytes),
        Err(e) => Err(Fault::syntax(e.valid_up_to(), "invalid UTF-8")),
    }
}

/// `format: json`: each record is one JSON object.
#[derive(Debug)]
pub struct JsonDecoder {
    records: Records,
}

impl JsonDecoder {
    pub fn new(options: &DecodeOptions) -> Result<Self> {
        Ok(JsonDecoder { records: Records::new(options)? })
    }

    #[inline]
    fn record<'a>(&mut self, s: &mut Scan<'a>, payload: Step<&'a [u8]>) -> Step {
        s.start(payload?);
        s.space();
        self.records.read(s)?;
        s.end()
    }
}

impl Decoder for JsonDecoder {
    fn decode(&mut self, chunk: &RawChunk) -> Result<DecodedChunk> {
        let mut s = self.records.scan();
        let mut records = Vec::with_capacity(chunk.len());
        let mut errors = Vec::new();
        for i in 0..chunk.len() {
            let row = self.records.len();
            let read = match payload(chunk, i) {
                Some(payload) => {
                    self.record(&mut s, payload).map_err(|fault| fault.reason(chunk.values.get(i).bytes()))
                }
                None => Err(TOMBSTONE.to_string()),
            };
            if let Err(reason) = read {
                errors.push(RecordError { record: i as u32, reason });
                if !self.records.give_up(row) {
                    continue;
                }
            }
            records.push(i as u32);
        }
        let (rows, rescued) = self.records.finish()?;
        Ok(DecodedChunk { rows, records: UInt32Array::from(records), weights: None, rescued, errors })
    }
}

/// `from_json(text, type)`: JSON texts into an array of any type.
#[derive(Debug)]
pub struct FromJson {
    column: Column,
}

impl FromJson {
    /// Decodes into `data_type`; `formats` are by the members' dotted names.
    pub fn new(data_type: &DataType, formats: &Formats) -> Result<Self> {
        Ok(FromJson { column: Column::new(data_type, "", formats)? })
    }

    /// One value per text: NULL for NULL, and for a text that cannot be decoded, whose row and reason come beside.
    /// `texts` is a string or binary array of any width.
    pub fn decode(&mut self, texts: &dyn Array) -> Result<(ArrayRef, Vec<RecordError>)> {
        match texts.data_type() {
            DataType::Utf8 => self.all(texts.as_string::<i32>().iter().map(|t| t.map(|t| Ok(t.as_bytes())))),
            DataType::LargeUtf8 => self.all(texts.as_string::<i64>().iter().map(|t| t.map(|t| Ok(t.as_bytes())))),
            DataType::Utf8View => self.all(texts.as_string_view().iter().map(|t| t.map(|t| Ok(t.as_bytes())))),
            DataType::Binary => self.all(texts.as_binary::<i32>().iter().map(|t| t.map(check_utf8))),
            DataType::LargeBinary => self.all(texts.as_binary::<i64>().iter().map(|t| t.map(check_utf8))),
            DataType::BinaryView => self.all(texts.as_binary_view().iter().map(|t| t.map(check_utf8))),
            other => Err(Error::internal(format!("from_json reads text, not {other}"))),
        }
    }

    fn all<'a>(&mut self, texts: impl Iterator<Item = Option<Step<&'a [u8]>>>) -> Result<(ArrayRef, Vec<RecordError>)> {
        let mut s = Scan::default();
        let mut errors = Vec::new();
        for (row, text) in texts.enumerate() {
            let Some(text) = text else {
                self.column.push_null();
                continue;
            };
            if let Err((bytes, fault)) = self.one(&mut s, text) {
                self.column.truncate(row);
                self.column.push_null();
                errors.push(RecordError { record: row as u32, reason: fault.reason(bytes) });
            }
        }
        Ok((self.column.finish()?, errors))
    }

    fn one<'a>(&mut self, s: &mut Scan<'a>, text: Step<&'a [u8]>) -> std::result::Result<(), (&'a [u8], Box<Fault>)> {
        let bytes = text.map_err(|fault| (&b""[..], fault))?;
        s.start(bytes);
        s.space();
        let read = match s.peek() {
            _ if s.at == bytes.len() => Err(not_an_object(s)),
            _ => self.column.read(s),
        };
        read.and_then(|()| s.end()).map_err(|fault| (bytes, fault))
    }
}

/// [`FromJson`] into a STRUCT of `fields`, for one array.
pub fn decode_texts(texts: &dyn Array, fields: &Fields) -> Result<(StructArray, Vec<RecordError>)> {
    let (array, errors) = FromJson::new(&DataType::Struct(fields.clone()), &Formats::new())?.decode(texts)?;
    Ok((array.as_struct().clone(), errors))
}

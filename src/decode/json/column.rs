//! Columns being built: growable, and truncatable to any earlier length, which is how a bad record leaves no trace.
//!
//! Invariants: a nested column's children may run ahead of it while one of its rows is being read, never lag behind; after
//! `truncate(n)` it and its children hold exactly its first n rows, wherever in a row reading stopped.

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, ListArray, MapArray, PrimitiveArray,
    StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowNativeType, ArrowPrimitiveType, DataType, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit,
};
use std::sync::Arc;

use super::object::Object;
use super::time::Format;
use crate::decode::Formats;
use crate::error::{Error, Result};

/// Which rows are null: their indices, ascending. A column without nulls costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Nulls(Vec<u32>);

impl Nulls {
    pub fn push(&mut self, row: usize) {
        self.0.push(row as u32);
    }

    pub fn truncate(&mut self, len: usize) {
        while self.0.last().is_some_and(|row| *row as usize >= len) {
            self.0.pop();
        }
    }

    pub fn contains(&self, row: usize) -> bool {
        self.0.binary_search(&(row as u32)).is_ok()
    }

    pub fn finish(&mut self, len: usize) -> Option<NullBuffer> {
        let rows = std::mem::take(&mut self.0);
        if rows.is_empty() {
            return None;
        }
        let mut bits = vec![0xffu8; len.div_ceil(8)];
        for row in rows {
            bits[row as usize / 8] &= !(1 << (row % 8));
        }
        Some(NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(bits), 0, len)))
    }
}

/// Values of fixed width.
#[derive(Debug, Default)]
pub(crate) struct Values<T> {
    pub values: Vec<T>,
    pub nulls: Nulls,
}

impl<T: Copy + Default> Values<T> {
    #[inline]
    pub fn push(&mut self, value: T) {
        self.values.push(value);
    }

    fn push_null(&mut self) {
        self.nulls.push(self.values.len());
        self.values.push(T::default());
    }

    fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.nulls.truncate(len);
    }

    /// The values and nulls; the next ones will probably be as many.
    fn take(&mut self) -> (Vec<T>, Option<NullBuffer>) {
        let len = self.values.len();
        let values = std::mem::replace(&mut self.values, Vec::with_capacity(len));
        (values, self.nulls.finish(len))
    }

    fn primitive<A: ArrowPrimitiveType<Native = T>>(&mut self) -> PrimitiveArray<A>
    where
        T: ArrowNativeType,
    {
        let (values, nulls) = self.take();
        PrimitiveArray::new(ScalarBuffer::from(values), nulls)
    }
}

/// Values of variable width. Bytes of a value that is being read stand in `data` beyond the last offset.
#[derive(Debug)]
pub(crate) struct Bytes {
    /// One more than there are values.
    offsets: Vec<i32>,
    pub data: Vec<u8>,
    nulls: Nulls,
}

impl Default for Bytes {
    fn default() -> Self {
        Bytes { offsets: vec![0], data: Vec::new(), nulls: Nulls::default() }
    }
}

impl Bytes {
    #[inline]
    pub fn push(&mut self, value: &[u8]) {
        self.data.extend_from_slice(value);
        self.seal();
    }

    /// Makes what stands in `data` beyond the last value the next value.
    #[inline]
    pub fn seal(&mut self) {
        // A chunk's payloads fit i32 offsets, and what is decoded from them is never longer; `take` makes sure.
        self.offsets.push(self.data.len() as i32);
    }

    pub fn push_null(&mut self) {
        self.nulls.push(self.len());
        self.seal();
    }

    fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len + 1);
        self.data.truncate(self.offsets.last().map_or(0, |end| *end as usize));
        self.nulls.truncate(len);
    }

    pub fn value(&self, row: usize) -> &[u8] {
        &self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    /// The values, which are valid UTF-8, as text.
    pub fn finish_text(&mut self) -> Result<StringArray> {
        let (offsets, data, nulls) = self.take()?;
        Ok(StringArray::try_new(offsets, data, nulls)?)
    }

    fn take(&mut self) -> Result<(OffsetBuffer<i32>, Buffer, Option<NullBuffer>)> {
        let len = self.len();
        if i32::try_from(self.data.len()).is_err() {
            self.truncate(0);
            return Err(Error::user("too-large", "a batch holds more than 2 GiB of text in one column"));
        }
        let mut fresh = Vec::with_capacity(len + 1);
        fresh.push(0);
        let offsets = std::mem::replace(&mut self.offsets, fresh);
        let size = self.data.len();
        let data = std::mem::replace(&mut self.data, Vec::with_capacity(size));
        Ok((OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from_vec(data), self.nulls.finish(len)))
    }
}

/// ARRAY: offsets into the items.
#[derive(Debug)]
pub(crate) struct List {
    pub offsets: Vec<i32>,
    pub nulls: Nulls,
    pub items: Column,
    field: FieldRef,
}

/// MAP: offsets into keys and values.
#[derive(Debug)]
pub(crate) struct Map {
    pub offsets: Vec<i32>,
    pub nulls: Nulls,
    pub keys: Column,
    pub values: Column,
    entries: FieldRef,
    sorted: bool,
}

/// A column being built.
#[derive(Debug)]
pub(crate) enum Column {
    Boolean(Values<bool>),
    Int8(Values<i8>),
    Int16(Values<i16>),
    Int32(Values<i32>),
    Int64(Values<i64>),
    Float32(Values<f32>),
    Float64(Values<f64>),
    Decimal { values: Values<i128>, precision: u8, scale: i8 },
    Date { values: Values<i32>, format: Option<Format> },
    Timestamp { values: Values<i64>, zone: Option<Arc<str>>, format: Option<Format> },
    String(Bytes),
    Binary(Bytes),
    Struct(Box<Object>),
    List(Box<List>),
    Map(Box<Map>),
}

impl Column {
    /// An empty column of `data_type`. `path` is its dotted name, under which `formats` may have its strftime format.
    pub fn new(data_type: &DataType, path: &str, formats: &Formats) -> Result<Self> {
        let format = || formats.get(path).map(|format| Format::new(format, path)).transpose();
        Ok(match data_type {
            DataType::Boolean => Column::Boolean(Values::default()),
            DataType::Int8 => Column::Int8(Values::default()),
            DataType::Int16 => Column::Int16(Values::default()),
            DataType::Int32 => Column::Int32(Values::default()),
            DataType::Int64 => Column::Int64(Values::default()),
            DataType::Float32 => Column::Float32(Values::default()),
            DataType::Float64 => Column::Float64(Values::default()),
            DataType::Decimal128(precision, scale) if *scale >= 0 => {
                Column::Decimal { values: Values::default(), precision: *precision, scale: *scale }
            }
            DataType::Date32 => Column::Date { values: Values::default(), format: format()? },
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                Column::Timestamp { values: Values::default(), zone: zone.clone(), format: format()? }
            }
            DataType::Utf8 => Column::String(Bytes::default()),
            DataType::Binary => Column::Binary(Bytes::default()),
            DataType::Struct(fields) => Column::Struct(Box::new(Object::new(fields, path, formats)?)),
            DataType::List(field) => Column::List(Box::new(List {
                offsets: vec![0],
                nulls: Nulls::default(),
                items: Column::new(field.data_type(), path, formats)?,
                field: Arc::clone(field),
            })),
            DataType::Map(entries, sorted) => match entries.data_type() {
                DataType::Struct(pair) if pair.len() == 2 => Column::Map(Box::new(Map {
                    offsets: vec![0],
                    nulls: Nulls::default(),
                    keys: Column::new(pair[0].data_type(), path, formats)?,
                    values: Column::new(pair[1].data_type(), path, formats)?,
                    entries: Arc::clone(entries),
                    sorted: *sorted,
                })),
                _ => return Err(unsupported(data_type, path)),
            },
            _ => return Err(unsupported(data_type, path)),
        })
    }

    /// Number of whole rows.
    pub fn len(&self) -> usize {
        match self {
            Column::Boolean(v) => v.values.len(),
            Column::Int8(v) => v.values.len(),
            Column::Int16(v) => v.values.len(),
            Column::Int32(v) | Column::Date { values: v, .. } => v.values.len(),
            Column::Int64(v) | Column::Timestamp { values: v, .. } => v.values.len(),
            Column::Float32(v) => v.values.len(),
            Column::Float64(v) => v.values.len(),
            Column::Decimal { values, .. } => values.values.len(),
            Column::String(v) | Column::Binary(v) => v.len(),
            Column::Struct(object) => object.len(),
            Column::List(list) => list.offsets.len() - 1,
            Column::Map(map) => map.offsets.len() - 1,
        }
    }

    /// Appends NULL.
    pub fn push_null(&mut self) {
        match self {
            Column::Boolean(v) => v.push_null(),
            Column::Int8(v) => v.push_null(),
            Column::Int16(v) => v.push_null(),
            Column::Int32(v) | Column::Date { values: v, .. } => v.push_null(),
            Column::Int64(v) | Column::Timestamp { values: v, .. } => v.push_null(),
            Column::Float32(v) => v.push_null(),
            Column::Float64(v) => v.push_null(),
            Column::Decimal { values, .. } => values.push_null(),
            Column::String(v) | Column::Binary(v) => v.push_null(),
            Column::Struct(object) => object.push_null(),
            Column::List(list) => {
                list.nulls.push(list.offsets.len() - 1);
                list.offsets.push(list.items.len() as i32);
            }
            Column::Map(map) => {
                map.nulls.push(map.offsets.len() - 1);
                map.offsets.push(map.keys.len() as i32);
            }
        }
    }

    /// Drops everything behind the first `len` rows, half-read rows too.
    pub fn truncate(&mut self, len: usize) {
        match self {
            Column::Boolean(v) => v.truncate(len),
            Column::Int8(v) => v.truncate(len),
            Column::Int16(v) => v.truncate(len),
            Column::Int32(v) | Column::Date { values: v, .. } => v.truncate(len),
            Column::Int64(v) | Column::Timestamp { values: v, .. } => v.truncate(len),
            Column::Float32(v) => v.truncate(len),
            Column::Float64(v) => v.truncate(len),
            Column::Decimal { values, .. } => values.truncate(len),
            Column::String(v) | Column::Binary(v) => v.truncate(len),
            Column::Struct(object) => object.truncate(len),
            Column::List(list) => {
                list.nulls.truncate(len);
                list.offsets.truncate(len + 1);
                list.items.truncate(list.offsets.last().map_or(0, |end| *end as usize));
            }
            Column::Map(map) => {
                map.nulls.truncate(len);
                map.offsets.truncate(len + 1);
                let end = map.offsets.last().map_or(0, |end| *end as usize);
                map.keys.truncate(end);
                map.values.truncate(end);
            }
        }
    }

    /// Whether row `row` is null.
    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Column::Boolean(v) => v.nulls.contains(row),
            Column::Int8(v) => v.nulls.contains(row),
            Column::Int16(v) => v.nulls.contains(row),
            Column::Int32(v) | Column::Date { values: v, .. } => v.nulls.contains(row),
            Column::Int64(v) | Column::Timestamp { values: v, .. } => v.nulls.contains(row),
            Column::Float32(v) => v.nulls.contains(row),
            Column::Float64(v) => v.nulls.contains(row),
            Column::Decimal { values, .. } => values.nulls.contains(row),
            Column::String(v) | Column::Binary(v) => v.nulls.contains(row),
            Column::Struct(object) => object.is_null(row),
            Column::List(list) => list.nulls.contains(row),
            Column::Map(map) => map.nulls.contains(row),
        }
    }

    /// The rows as an array; the column is empty afterwards.
    pub fn finish(&mut self) -> Result<ArrayRef> {
        Ok(match self {
            Column::Boolean(v) => {
                let (values, nulls) = v.take();
                Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
            }
            Column::Int8(v) => Arc::new(v.primitive::<Int8Type>()),
            Column::Int16(v) => Arc::new(v.primitive::<Int16Type>()),
            Column::Int32(v) => Arc::new(v.primitive::<Int32Type>()),
            Column::Int64(v) => Arc::new(v.primitive::<Int64Type>()),
            Column::Float32(v) => Arc::new(v.primitive::<Float32Type>()),
            Column::Float64(v) => Arc::new(v.primitive::<Float64Type>()),
            Column::Decimal { values, precision, scale } => {
                let array: Decimal128Array = values.primitive();
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
            Column::Date { values, .. } => {
                let array: Date32Array = values.primitive();
                Arc::new(array)
            }
            Column::Timestamp { values, zone, .. } => {
                let array: TimestampMicrosecondArray = values.primitive();
                Arc::new(array.with_timezone_opt(zone.clone()))
            }
            Column::String(bytes) => Arc::new(bytes.finish_text()?),
            Column::Binary(bytes) => {
                let (offsets, data, nulls) = bytes.take()?;
                Arc::new(BinaryArray::try_new(offsets, data, nulls)?)
            }
            Column::Struct(object) => {
                let (fields, len, nulls, arrays) = object.finish()?;
                Arc::new(StructArray::try_new_with_length(fields, arrays, nulls, len)?)
            }
            Column::List(list) => {
                let offsets = std::mem::replace(&mut list.offsets, vec![0]);
                let nulls = list.nulls.finish(offsets.len() - 1);
                let items = list.items.finish()?;
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                Arc::new(ListArray::try_new(Arc::clone(&list.field), offsets, items, nulls)?)
            }
            Column::Map(map) => {
                let offsets = std::mem::replace(&mut map.offsets, vec![0]);
                let nulls = map.nulls.finish(offsets.len() - 1);
                let pair = vec![map.keys.finish()?, map.values.finish()?];
                let DataType::Struct(fields) = map.entries.data_type() else {
                    return Err(Error::internal("a map's entries are a struct"));
                };
                let entries = StructArray::try_new(fields.clone(), pair, None)?;
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                Arc::new(MapArray::try_new(Arc::clone(&map.entries), offsets, entries, nulls, map.sorted)?)
            }
        })
    }
}

fn unsupported(data_type: &DataType, path: &str) -> Error {
    Error::user("column-type", format!("column `{path}`: records cannot be decoded into {data_type}"))
}

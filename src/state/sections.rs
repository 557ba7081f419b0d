//! State as bytes: what a stateful node keeps is written as a list of named sections and read back in the same order.
//!
//! Numbers become little-endian words, keys and rows lengths and bytes, columns Arrow IPC. Writing copies numbers and bytes and shares
//! columns, so that it is quick and can happen between two epochs; columns are encoded later, by whoever stores the sections
//! ([`Section::into_bytes`]). A reader asks for each section by name: one that has another name, or another length than the rest
//! implies, is damage and nothing of it is used.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use std::collections::VecDeque;
use std::sync::Arc;

use super::Multiset;
use crate::error::{Error, Result};

/// One piece of state, by name.
#[derive(Debug, Clone)]
pub struct Section {
    pub name: String,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Bytes(Buffer),
    Columns(RecordBatch),
}

impl Section {
    /// As it was stored.
    pub fn new(name: String, bytes: Buffer) -> Self {
        Section { name, content: Content::Bytes(bytes) }
    }

    /// Its bytes; columns are encoded now.
    pub fn into_bytes(self) -> Result<Buffer> {
        match self.content {
            Content::Bytes(bytes) => Ok(bytes),
            Content::Columns(rows) => {
                let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref())?;
                writer.write(&rows)?;
                Ok(Buffer::from_vec(writer.into_inner()?))
            }
        }
    }
}

/// What is said of state that cannot be read.
pub(crate) fn damaged(what: &str) -> Error {
    Error::environment("state-snapshot", format!("the stored state is not what this version writes: {what}"))
        .permanent()
}

/// A number of fixed width.
pub trait Word: Copy {
    const WIDTH: usize;
    fn put(self, out: &mut Vec<u8>);
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! words {
    ($($word:ty),*) => {$(
        impl Word for $word {
            const WIDTH: usize = size_of::<$word>();

            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn get(bytes: &[u8]) -> Self {
                let mut word = [0; size_of::<$word>()];
                word.copy_from_slice(bytes);
                <$word>::from_le_bytes(word)
            }
        }
    )*};
}

words!(u32, u64, i64, u128, i128);

/// Collects the sections of one state.
#[derive(Debug, Default)]
pub struct StateWriter {
    sections: Vec<Section>,
}

impl StateWriter {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything written, in order.
    pub fn finish(self) -> Vec<Section> {
        self.sections
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, name: &str, bytes: Vec<u8>) {
        self.sections.push(Section::new(name.to_string(), Buffer::from_vec(bytes)));
    }

    /// Numbers.
    pub fn words<T: Word>(&mut self, name: &str, words: impl IntoIterator<Item = T>) {
        let words = words.into_iter();
        let mut bytes = Vec::with_capacity(words.size_hint().0 * T::WIDTH);
        words.for_each(|word| word.put(&mut bytes));
        self.bytes(name, bytes);
    }

    /// Byte strings.
    pub fn strings<'a>(&mut self, name: &str, strings: impl IntoIterator<Item = &'a [u8]>) {
        let mut lengths: Vec<u8> = Vec::new();
        let mut bytes = Vec::new();
        for string in strings {
            // Row bytes are limited by what an Arrow row may be: far below 4 GiB.
            u32::try_from(string.len()).unwrap_or(u32::MAX).put(&mut lengths);
            bytes.extend_from_slice(string);
        }
        self.bytes(name, lengths);
        self.bytes(name, bytes);
    }

    /// Columns of `rows` rows; they are shared, not copied.
    pub fn columns(&mut self, name: &str, columns: &[ArrayRef], rows: usize) -> Result<()> {
        let schema = ipc_schema(columns.iter().map(|c| c.data_type().clone()));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(schema, columns.to_vec(), &options)?;
        self.sections.push(Section { name: name.to_string(), content: Content::Columns(batch) });
        Ok(())
    }

    /// Multisets of byte strings.
    pub fn multisets<'a>(&mut self, name: &str, sets: impl IntoIterator<Item = &'a Multiset>) {
        let (mut counts, mut lengths, mut weights, mut bytes): (Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>) =
            Default::default();
        for set in sets {
            u32::try_from(set.len()).unwrap_or(u32::MAX).put(&mut counts);
            for (value, weight) in set.iter() {
                u32::try_from(value.len()).unwrap_or(u32::MAX).put(&mut lengths);
                weight.put(&mut weights);
                bytes.extend_from_slice(value);
            }
        }
        for part in [counts, lengths, weights, bytes] {
            self.bytes(name, part);
        }
    }
}

fn ipc_schema(types: impl IntoIterator<Item = DataType>) -> SchemaRef {
    let fields = types.into_iter().enumerate().map(|(i, t)| Field::new(i.to_string(), t, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Gives the sections back in the order they were written.
#[derive(Debug, Default)]
pub struct StateReader {
    sections: VecDeque<Section>,
}

impl StateReader {
    /// Of these sections.
    pub fn new(sections: Vec<Section>) -> Self {
        StateReader { sections: sections.into() }
    }

    /// The next section, which must have this name.
    pub fn bytes(&mut self, name: &str) -> Result<Buffer> {
        let section = self.sections.pop_front().ok_or_else(|| damaged(&format!("`{name}` is missing")))?;
        if section.name != name {
            return Err(damaged(&format!("`{}` stands where `{name}` is expected", section.name)));
        }
        section.into_bytes()
    }

    /// Numbers.
    pub fn words<T: Word>(&mut self, name: &str) -> Result<Vec<T>> {
        let bytes = self.bytes(name)?;
        if !bytes.len().is_multiple_of(T::WIDTH) {
            return Err(damaged(&format!("`{name}` is cut")));
        }
        Ok(bytes.chunks_exact(T::WIDTH).map(T::get).collect())
    }

    /// Exactly so many numbers.
    pub fn exactly<T: Word>(&mut self, name: &str, count: usize) -> Result<Vec<T>> {
        let words = self.words(name)?;
        if words.len() == count { Ok(words) } else { Err(damaged(&format!("`{name}` has another length"))) }
    }

    /// Byte strings.
    pub fn strings(&mut self, name: &str) -> Result<Strings> {
        let lengths = self.words::<u32>(name)?;
        Strings::new(name, lengths, self.bytes(name)?)
    }

    /// Columns of these types, and how many rows they have.
    pub fn columns(&mut self, name: &str, types: &[DataType]) -> Result<(Vec<ArrayRef>, usize)> {
        let mut bytes = self.bytes(name)?;
        let mut decoder = StreamDecoder::new();
        let batch = decoder.decode(&mut bytes)?.ok_or_else(|| damaged(&format!("`{name}` has no rows")))?;
        let same = batch.num_columns() == types.len()
            && batch.columns().iter().zip(types).all(|(column, data_type)| column.data_type() == data_type);
        if !same {
            return Err(damaged(&format!("`{name}` has other columns")));
        }
        Ok((batch.columns().to_vec(), batch.num_rows()))
    }

    /// So many multisets.
    pub fn multisets(&mut self, name: &str, count: usize) -> Result<Vec<Multiset>> {
        let counts = self.exactly::<u32>(name, count)?;
        let lengths = self.words::<u32>(name)?;
        let weights = self.exactly::<i64>(name, lengths.len())?;
        let values = Strings::new(name, lengths, self.bytes(name)?)?;
        if counts.iter().map(|c| *c as usize).sum::<usize>() != weights.len() || weights.contains(&0) {
            return Err(damaged(&format!("`{name}` has another length")));
        }
        let mut values = values.iter().zip(weights);
        Ok(counts.into_iter().map(|count| values.by_ref().take(count as usize).collect()).collect())
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<()> {
        match self.sections.front() {
            None => Ok(()),
            Some(section) => Err(damaged(&format!("`{}` belongs to nothing", section.name))),
        }
    }
}

/// Byte strings, one after the other.
pub struct Strings {
    lengths: Vec<u32>,
    bytes: Buffer,
}

impl Strings {
    fn new(name: &str, lengths: Vec<u32>, bytes: Buffer) -> Result<Self> {
        if lengths.iter().map(|l| *l as usize).sum::<usize>() != bytes.len() {
            return Err(damaged(&format!("`{name}` is cut")));
        }
        Ok(Strings { lengths, bytes })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        self.lengths.iter().map(move |length| {
            // The lengths add up to the bytes.
            let (string, tail) = rest.split_at((*length as usize).min(rest.len()));
            rest = tail;
            string
        })
    }
}

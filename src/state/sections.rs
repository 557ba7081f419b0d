//! State as bytes: what a stateful node keeps is written as a list of named sections and read back in the same order.
//!
//! Numbers become little-endian words, as narrow as the widest of a section allows, keys and rows lengths and bytes, columns Arrow
//! IPC. Writing shares columns and whatever stands in pages ([`Paged`], keys), and copies the rest, so that it is quick and can happen between
//! two epochs; columns are encoded and shared pages read later, by whoever stores the sections ([`Section::into_stored`]). Stored sections are unpacked when they are asked for, straight to
//! where they will stay. A reader asks for each section by name: one that has another name, or another length than the rest
//! implies, is damage and nothing of it is used.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::arena::Arena;
use super::parallel::{dealt_out, in_threads};
use super::stored::Packed;
use super::{Multiset, Paged};
use crate::error::{Error, Result};

/// One piece of state, by name.
#[derive(Debug)]
pub struct Section {
    pub name: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Bytes(Buffer),
    /// Numbers of `width` bytes each.
    Words {
        bytes: Buffer,
        width: usize,
    },
    Columns(RecordBatch),
    /// What stands where it stood when it was written.
    Shared(Box<dyn Shared>),
    /// As it was stored, cut between numbers; see [`Section::into_stored`] for `width`.
    Stored {
        width: usize,
        blocks: Vec<Packed>,
    },
}

/// What is to be stored of a section.
pub enum ToStore {
    Whole(Buffer),
    Shared(Box<dyn Shared>),
}

/// Numbers or bytes that are read where they stand, while whoever they are shared with goes on.
pub trait Shared: Send {
    /// Bytes that the widest number needs; 0: they are no numbers.
    fn width(&self) -> usize;
    /// Hands all of them, piece by piece, to `put`, numbers by so many bytes each.
    fn read(&self, width: usize, put: &mut dyn FnMut(&[u8]));
}

impl fmt::Debug for dyn Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("shared")
    }
}

/// What hands over slices of numbers, the same ones each time.
struct Numbers<T, E> {
    each: E,
    of: PhantomData<fn() -> T>,
}

impl<T: Word, E: Fn(&mut dyn FnMut(&[T])) + Send> Shared for Numbers<T, E> {
    fn width(&self) -> usize {
        let mut width = 1;
        (self.each)(&mut |slice| width = T::width(slice).max(width));
        width
    }

    fn read(&self, width: usize, put: &mut dyn FnMut(&[u8])) {
        let mut bytes = Vec::new();
        (self.each)(&mut |slice| {
            bytes.clear();
            T::append(slice, width, &mut bytes);
            put(&bytes);
        });
    }
}

impl Shared for Arc<Arena> {
    fn width(&self) -> usize {
        0
    }

    fn read(&self, _: usize, put: &mut dyn FnMut(&[u8])) {
        let mut bytes = Vec::with_capacity(PIECE);
        for string in self.iter() {
            if bytes.len() + string.len() > PIECE {
                put(&bytes);
                bytes.clear();
            }
            bytes.extend_from_slice(string);
        }
        put(&bytes);
    }
}

impl Section {
    /// As it was stored.
    pub fn stored(name: String, width: usize, blocks: Vec<Packed>) -> Self {
        Section { name, content: Content::Stored { width, blocks } }
    }

    /// What is stored of it, and how many bytes a number has there: no more than the widest needs. 0: it holds no numbers.
    pub fn into_stored(self) -> Result<(usize, ToStore)> {
        match self.content {
            Content::Words { bytes, width } => Ok((width, ToStore::Whole(bytes))),
            Content::Shared(shared) => Ok((shared.width(), ToStore::Shared(shared))),
            _ => Ok((0, ToStore::Whole(self.into_bytes(1)?))),
        }
    }

    /// With what is shared put together.
    fn put_together(mut self) -> Self {
        if let Content::Shared(shared) = &self.content {
            let (width, mut bytes) = (shared.width(), Vec::new());
            shared.read(width, &mut |piece| bytes.extend_from_slice(piece));
            let bytes = Buffer::from_vec(bytes);
            self.content = if width == 0 { Content::Bytes(bytes) } else { Content::Words { bytes, width } };
        }
        self
    }

    /// Its bytes; columns are encoded now.
    fn into_bytes(self, threads: usize) -> Result<Buffer> {
        match self.content {
            Content::Bytes(bytes) => Ok(bytes),
            Content::Columns(rows) => {
                let bytes = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
                let about = rows.columns().iter().map(|column| bytes(column) + IPC_OF_COLUMN).sum();
                let mut writer = StreamWriter::try_new(Vec::with_capacity(about), rows.schema_ref())?;
                writer.write(&rows)?;
                Ok(Buffer::from_vec(writer.into_inner()?))
            }
            Content::Stored { width: 0, blocks } => {
                let bytes = unpacked(&self.name, blocks, 1, threads, |bytes: &[u8], out: &mut [u8]| {
                    out.copy_from_slice(bytes);
                });
                Ok(Buffer::from_vec(bytes?))
            }
            Content::Words { .. } | Content::Shared(_) | Content::Stored { .. } => {
                Err(damaged(&format!("`{}` holds numbers", self.name)))
            }
        }
    }

    fn into_words<T: Word>(self, threads: usize) -> Result<Vec<T>> {
        let others = || damaged(&format!("`{}` holds other numbers, or none", self.name));
        match self.content {
            Content::Words { bytes, width } if width <= T::WIDTH => {
                let mut all = vec![T::default(); bytes.len() / width];
                T::widen(&bytes, width, &mut all);
                Ok(all)
            }
            Content::Stored { width, blocks } => {
                let fits = width.is_power_of_two() && width <= T::WIDTH && blocks.iter().all(|b| b.raw() % width == 0);
                if !fits {
                    return Err(others());
                }
                unpacked(&self.name, blocks, width, threads, |bytes, out| T::widen(bytes, width, out))
            }
            _ => Err(others()),
        }
    }
}

/// All blocks of a section, each put in its place of the result by `put`; `width` bytes are one of its elements.
fn unpacked<T: Copy + Default + Send>(
    section: &str,
    blocks: Vec<Packed>,
    width: usize,
    threads: usize,
    put: impl Fn(&[u8], &mut [T]) + Sync,
) -> Result<Vec<T>> {
    let length = blocks.iter().map(Packed::raw).sum::<usize>() / width;
    // Memory that was never used is zero already: nothing is written here.
    let mut all = vec![T::default(); with_headroom(length)];
    all.truncate(length);
    let mut rest = all.as_mut_slice();
    let mut work = Vec::with_capacity(blocks.len());
    for block in blocks {
        let (place, behind) = rest.split_at_mut(block.raw() / width);
        rest = behind;
        work.push((block, place));
    }
    let unpack = |lot: Vec<(Packed, &mut [T])>| {
        let mut scratch = Vec::new();
        lot.into_iter().try_for_each(|(block, place)| block.unpack(section, &mut scratch, |bytes| put(bytes, place)))
    };
    in_threads(dealt_out(work, threads), unpack)?.into_iter().collect::<Result<()>>()?;
    Ok(all)
}

/// Numbers or bytes that are put together before they are handed on.
const PIECE: usize = if cfg!(test) { 5 } else { 1 << 14 };

/// Bytes that a column takes in Arrow IPC beside its values, about.
const IPC_OF_COLUMN: usize = 512;

/// Room for what the first epochs add, so that they need not move what came back.
pub(super) fn with_headroom(length: usize) -> usize {
    length + length / 16
}

/// What is said of state that cannot be read.
pub(crate) fn damaged(what: &str) -> Error {
    Error::environment("state-snapshot", format!("the stored state is not what this version writes: {what}"))
        .permanent()
}

/// A number of fixed width.
pub trait Word: Copy + Default + Send {
    const WIDTH: usize;
    /// Bytes that the widest of them needs: 1, 2, 4, 8 or 16.
    fn width(words: &[Self]) -> usize;
    /// Numbers of `width` bytes each, which is enough for them.
    fn append(words: &[Self], width: usize, out: &mut Vec<u8>);
    /// Numbers of `width` bytes each, 1, 2, 4, 8 or 16 but no more than the full width.
    fn widen(bytes: &[u8], width: usize, out: &mut [Self]);
}

macro_rules! words {
    ($($word:ty: $w1:ty, $w2:ty, $w4:ty, $w8:ty, $w16:ty);*) => {$(
        impl Word for $word {
            const WIDTH: usize = size_of::<$word>();

            fn width(words: &[Self]) -> usize {
                let signed = <$word>::MIN != 0;
                // Bits that only carry the sign on need not be kept.
                let sign = |word: $word| if signed { word >> (<$word>::BITS - 1) } else { 0 };
                let used = words.iter().fold(0, |used: $word, word| used | (word ^ sign(*word)));
                let bits = <$word>::BITS - used.leading_zeros() + u32::from(signed);
                (bits.div_ceil(8).max(1) as usize).next_power_of_two()
            }

            fn append(words: &[Self], width: usize, out: &mut Vec<u8>) {
                let start = out.len();
                out.resize(start + words.len() * width, 0);
                macro_rules! put {
                    ($narrow:ty) => {
                        out[start..]
                            .as_chunks_mut()
                            .0
                            .iter_mut()
                            .zip(words)
                            .for_each(|(o, w)| *o = (*w as $narrow).to_le_bytes())
                    };
                }
                match width {
                    1 => put!($w1),
                    2 => put!($w2),
                    4 => put!($w4),
                    8 => put!($w8),
                    _ => put!($w16),
                }
            }

            fn widen(bytes: &[u8], width: usize, out: &mut [Self]) {
                macro_rules! put {
                    ($narrow:ty) => {
                        out.iter_mut().zip(bytes.as_chunks().0).for_each(|(o, w)| *o = <$narrow>::from_le_bytes(*w) as $word)
                    };
                }
                match width {
                    1 => put!($w1),
                    2 => put!($w2),
                    4 => put!($w4),
                    8 => put!($w8),
                    _ => put!($w16),
                }
            }
        }
    )*};
}

words!(
    i8: i8, i16, i32, i64, i128;
    i16: i8, i16, i32, i64, i128;
    i32: i8, i16, i32, i64, i128;
    u32: u8, u16, u32, u64, u128;
    u64: u8, u16, u32, u64, u128;
    i64: i8, i16, i32, i64, i128;
    u128: u8, u16, u32, u64, u128;
    i128: i8, i16, i32, i64, i128
);

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
        self.sections.push(Section { name: name.to_string(), content: Content::Bytes(Buffer::from_vec(bytes)) });
    }

    /// Numbers.
    pub fn words<T: Word>(&mut self, name: &str, words: impl IntoIterator<Item = T>) {
        let words: Vec<T> = words.into_iter().collect();
        self.slices(name, [words.as_slice()]);
    }

    /// Numbers that stand in these slices.
    pub fn slices<'a, T: Word + 'a>(&mut self, name: &str, slices: impl IntoIterator<Item = &'a [T]>) {
        let slices: Vec<&[T]> = slices.into_iter().collect();
        let width = slices.iter().map(|slice| T::width(slice)).max().unwrap_or(1);
        let mut bytes = Vec::with_capacity(slices.iter().map(|slice| slice.len() * width).sum());
        slices.into_iter().for_each(|slice| T::append(slice, width, &mut bytes));
        let content = Content::Words { bytes: Buffer::from_vec(bytes), width };
        self.sections.push(Section { name: name.to_string(), content });
    }

    /// Numbers in pages, which are shared.
    pub fn paged<T: Word + Sync + 'static>(&mut self, name: &str, numbers: &mut Paged<T>) {
        let shared = numbers.share();
        self.shared(name, move |put: &mut dyn FnMut(&[T])| shared.slices().for_each(put));
    }

    /// Numbers that `each` hands over slice by slice, the same ones whenever it is called: later, of what it shares with others.
    pub fn shared<T: Word + 'static>(&mut self, name: &str, each: impl Fn(&mut dyn FnMut(&[T])) + Send + 'static) {
        let shared = Box::new(Numbers { each, of: PhantomData });
        self.sections.push(Section { name: name.to_string(), content: Content::Shared(shared) });
    }

    /// Byte strings of an arena, which are shared.
    pub(super) fn arena(&mut self, name: &str, strings: &mut Arena) {
        let strings = Arc::new(strings.share());
        let lengths = Arc::clone(&strings);
        self.shared(name, move |put: &mut dyn FnMut(&[u32])| {
            // Row bytes are limited by what an Arrow row may be: far below 4 GiB.
            let length = |string: &[u8]| u32::try_from(string.len()).unwrap_or(u32::MAX);
            in_pieces(lengths.iter().map(length), put);
        });
        self.sections.push(Section { name: name.to_string(), content: Content::Shared(Box::new(strings)) });
    }

    /// Byte strings.
    pub fn strings<'a>(&mut self, name: &str, strings: impl IntoIterator<Item = &'a [u8]>) {
        let mut lengths: Vec<u32> = Vec::new();
        let mut bytes = Vec::new();
        for string in strings {
            // Row bytes are limited by what an Arrow row may be: far below 4 GiB.
            lengths.push(u32::try_from(string.len()).unwrap_or(u32::MAX));
            bytes.extend_from_slice(string);
        }
        self.slices(name, [lengths.as_slice()]);
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
        let (mut counts, mut lengths, mut weights, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for set in sets {
            counts.push(u32::try_from(set.len()).unwrap_or(u32::MAX));
            for (value, weight) in set.iter() {
                lengths.push(u32::try_from(value.len()).unwrap_or(u32::MAX));
                weights.push(weight);
                bytes.extend_from_slice(value);
            }
        }
        self.slices(name, [counts.as_slice()]);
        self.slices(name, [lengths.as_slice()]);
        self.slices(name, [weights.as_slice()]);
        self.bytes(name, bytes);
    }
}

/// Hands over numbers in slices of some length.
pub fn in_pieces<T: Copy>(numbers: impl Iterator<Item = T>, put: &mut dyn FnMut(&[T])) {
    let mut piece = Vec::with_capacity(numbers.size_hint().0.min(PIECE));
    for number in numbers {
        if piece.len() == PIECE {
            put(&piece);
            piece.clear();
        }
        piece.push(number);
    }
    put(&piece);
}

fn ipc_schema(types: impl IntoIterator<Item = DataType>) -> SchemaRef {
    let fields = types.into_iter().enumerate().map(|(i, t)| Field::new(i.to_string(), t, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Gives the sections back in the order they were written.
#[derive(Debug, Default)]
pub struct StateReader {
    sections: VecDeque<Section>,
    threads: usize,
}

impl StateReader {
    /// Of these sections, unpacked by so many threads.
    pub fn new(sections: Vec<Section>, threads: usize) -> Self {
        StateReader { sections: sections.into_iter().map(Section::put_together).collect(), threads }
    }

    /// How many threads to use.
    pub fn threads(&self) -> usize {
        self.threads.max(1)
    }

    /// Whether the next section has this name.
    pub fn is_next(&self, name: &str) -> bool {
        self.sections.front().is_some_and(|section| section.name == name)
    }

    fn next(&mut self, name: &str) -> Result<Section> {
        let section = self.sections.pop_front().ok_or_else(|| damaged(&format!("`{name}` is missing")))?;
        if section.name != name {
            return Err(damaged(&format!("`{}` stands where `{name}` is expected", section.name)));
        }
        Ok(section)
    }

    /// The bytes of the next section, which must have this name.
    pub fn bytes(&mut self, name: &str) -> Result<Buffer> {
        self.next(name)?.into_bytes(self.threads)
    }

    /// Numbers.
    pub fn words<T: Word>(&mut self, name: &str) -> Result<Vec<T>> {
        self.next(name)?.into_words(self.threads)
    }

    /// Bytes that a number of the next section takes where it is stored; 0: it holds none.
    pub fn width(&self) -> usize {
        self.sections.front().map_or(0, |section| match &section.content {
            Content::Words { width, .. } | Content::Stored { width, .. } => *width,
            Content::Bytes(_) | Content::Columns(_) | Content::Shared(_) => 0,
        })
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

    /// Columns of these types, and how many rows they have. Texts that were packed are dictionaries still.
    pub fn columns(&mut self, name: &str, types: &[DataType]) -> Result<(Vec<ArrayRef>, usize)> {
        let mut bytes = self.bytes(name)?;
        let mut decoder = StreamDecoder::new();
        let batch = decoder.decode(&mut bytes)?.ok_or_else(|| damaged(&format!("`{name}` has no rows")))?;
        let is = |column: &ArrayRef, wanted: &DataType| match column.data_type() {
            DataType::Dictionary(_, values) => **values == *wanted,
            other => other == wanted,
        };
        let same = batch.num_columns() == types.len() && batch.columns().iter().zip(types).all(|(c, t)| is(c, t));
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

    /// Takes the sections from the first one of this name on.
    pub fn split_off(&mut self, name: &str) -> StateReader {
        let at = self.sections.iter().position(|section| section.name == name).unwrap_or(self.sections.len());
        StateReader { sections: self.sections.split_off(at), threads: self.threads }
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

    /// Their lengths, and the bytes of all.
    pub fn into_parts(self) -> (Vec<u32>, Buffer) {
        (self.lengths, self.bytes)
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

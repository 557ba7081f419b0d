//! Rows that only come, stored by column and addressed by the order they came in.

mod keyed;
mod shared;
#[cfg(test)]
mod tests;

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::{concat, interleave, take};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::collections::HashMap;
use std::sync::Arc;

use super::sections::damaged;
use super::{Applied, NONE, Narrow, StateReader, StateWriter, canonical};
use crate::error::{Error, Result};
use crate::types::{SelectedBatch, Weight};

pub use keyed::{LogKeyed, LogKeying, LogKeys};
pub use shared::{SharedLog, SharedLogs};

/// Rows from which on a piece is settled: it never changes any more. Tests settle small ones.
const SETTLED: usize = if cfg!(test) { 1 << 4 } else { 1 << 13 };
/// Small pieces are merged up to this many rows.
const MERGED: usize = if cfg!(test) { 1 << 7 } else { 1 << 16 };

/// Rows by id: 0, 1, 2 … in the order they were appended. Nothing is looked up by value, so a row is neither hashed nor encoded, and
/// equal rows are rows of their own.
///
/// Pieces of a large epoch are its batches as they came, or a selection of their rows: nothing is copied as long as the rows of one epoch
/// are most of what their buffers hold. Small epochs append small pieces to the tail, which are merged as they come (the last two
/// whenever they are of similar size), so that a row is copied a logarithmic number of times.
pub struct RowLog {
    types: Vec<DataType>,
    pieces: Vec<Piece>,
    /// How many of the pieces are settled: the first ones, each of [`SETTLED`] rows or more.
    settled: usize,
    /// By `id / SETTLED`, of settled rows: the piece of the first of these rows.
    places: Vec<u32>,
    /// Rows of settled pieces.
    settled_rows: usize,
    rows: usize,
    /// Weights by id, once one is not 1.
    weights: Option<Narrow>,
    bytes: usize,
}

struct Piece {
    /// Id of its first row.
    start: usize,
    rows: usize,
    columns: Vec<ArrayRef>,
    /// Where its rows are in the columns; None: they are all of them.
    selection: Option<UInt32Array>,
    bytes: usize,
}

impl Piece {
    fn new(start: usize, rows: usize, columns: Vec<ArrayRef>, selection: Option<UInt32Array>) -> Self {
        let whole: usize = columns.iter().map(slice_size).sum();
        let bytes = match (&selection, columns.first()) {
            (Some(selection), Some(column)) => {
                whole * rows / column.len().max(1) + size_of_val(&selection.values()[..])
            }
            _ => whole,
        };
        Piece { start, rows, columns, selection, bytes }
    }

    /// The place in the columns of its row `at`.
    #[inline]
    fn place(&self, at: usize) -> usize {
        self.selection.as_ref().map_or(at, |selection| selection.value(at) as usize)
    }

    /// Its rows of a column, side by side.
    fn column(&self, column: usize) -> Result<ArrayRef> {
        match &self.selection {
            None => Ok(Arc::clone(&self.columns[column])),
            Some(selection) => Ok(take(&self.columns[column], selection, None)?),
        }
    }
}

/// Bytes of the rows of an array, however large the buffers are that they stand in.
fn slice_size(array: &ArrayRef) -> usize {
    let data = array.to_data();
    data.get_slice_memory_size().unwrap_or_else(|_| data.get_array_memory_size())
}

/// The array without what else its buffers hold.
fn owned(array: &ArrayRef) -> Result<ArrayRef> {
    // Of one array alone it would give back the same buffers.
    Ok(concat(&[array.as_ref(), array.slice(0, 0).as_ref()])?)
}

/// By column, whether `batches` are most of what its buffers hold: then they can stay there.
fn fill_their_buffers(batches: &[SelectedBatch], columns: usize) -> Vec<bool> {
    let fills = |column: usize| {
        // By buffer, or array if it has none of its own: bytes of it, and those of its rows.
        let mut buffers: HashMap<usize, (usize, usize)> = HashMap::new();
        for array in batches.iter().map(|batch| batch.whole().rows.column(column)) {
            let data = array.to_data();
            let buffer =
                data.buffers().last().map_or(Arc::as_ptr(array).cast::<u8>(), |buffer| buffer.data_ptr().as_ptr());
            let (_, used) = buffers.entry(buffer as usize).or_insert((array.get_buffer_memory_size(), 0));
            *used += slice_size(array);
        }
        buffers.values().all(|(size, used)| *size <= 2 * used + 1024)
    };
    (0..columns).map(fills).collect()
}

impl RowLog {
    /// No rows, of these columns.
    pub fn new(schema: &SchemaRef) -> Self {
        let types = schema.fields().iter().map(|f| f.data_type().clone()).collect();
        RowLog {
            types,
            pieces: Vec::new(),
            settled: 0,
            places: Vec::new(),
            settled_rows: 0,
            rows: 0,
            weights: None,
            bytes: 0,
        }
    }

    /// Appends the rows of one epoch. A retraction is an error.
    pub fn apply(&mut self, batches: &[SelectedBatch]) -> Result<Applied> {
        let total: usize = batches.iter().map(SelectedBatch::num_rows).sum();
        let start = self.rows;
        // Two values of u32 mark absence.
        if start + total >= NONE as usize - 1 {
            return Err(Error::environment("state-full", "too many rows in one state").permanent());
        }
        let mut applied = Applied { ids: (start as u32..(start + total) as u32).collect(), ..Applied::default() };
        applied.net.reserve(total);
        let stay = fill_their_buffers(batches, self.types.len());
        for batch in batches {
            if batch.has_retractions() {
                return Err(Error::diverged("a row of append-only input is retracted"));
            }
            let first = self.rows;
            applied.net.extend((0..batch.num_rows()).map(|i| ((first + i) as u32, batch.weight(i))));
            self.append(batch, &stay)?;
            self.weigh(first, batch);
        }
        Ok(applied)
    }

    fn weigh(&mut self, first: usize, batch: &SelectedBatch) {
        if self.weights.is_none() && batch.whole().weights.is_none() {
            return;
        }
        let weights = self.weights.get_or_insert_with(|| Narrow::up_to(1, (0..first).map(|_| 1)));
        (0..batch.num_rows()).for_each(|i| weights.push(batch.weight(i)));
    }

    fn append(&mut self, batch: &SelectedBatch, stay: &[bool]) -> Result<()> {
        let arrived = batch.whole().rows.columns();
        let mut columns = arrived.iter().map(canonical).collect::<Result<Vec<_>>>()?;
        let mut selection = batch.selection();
        let same = |(column, arrived): (&ArrayRef, &ArrayRef)| Arc::ptr_eq(column, arrived);
        if let Some(rows) = selection {
            // What canonical form made of a column is this log's alone, and holds the rows of others, too.
            if rows.len() < SETTLED || stay.contains(&false) || !columns.iter().zip(arrived).all(same) {
                columns = columns.iter().map(|c| Ok(take(c, rows, None)?)).collect::<Result<_>>()?;
                selection = None;
            }
        } else {
            for (column, _) in columns.iter_mut().zip(stay).filter(|(_, stay)| !**stay) {
                *column = owned(column)?;
            }
        }
        let rows = batch.num_rows();
        let mut from = 0;
        while from < rows {
            let (tail, rest) = (self.rows - self.settled_rows, rows - from);
            let count = match tail {
                // Together they are enough, and what is left of the batch is nothing or enough, too.
                1..SETTLED if rest >= SETTLED && tail + rest >= 2 * SETTLED => SETTLED - tail,
                _ => rest,
            };
            let piece = match selection {
                None => Piece::new(self.rows, count, columns.iter().map(|c| c.slice(from, count)).collect(), None),
                Some(rows) => Piece::new(self.rows, count, columns.clone(), Some(rows.slice(from, count))),
            };
            if count >= SETTLED && tail >= SETTLED {
                self.settle()?;
            }
            self.push(piece);
            self.rows += count;
            from += count;
            if count >= SETTLED || tail + count >= MERGED || (tail > 0 && from < rows) {
                self.settle()?;
            } else {
                self.merge_tail()?;
            }
        }
        Ok(())
    }

    fn push(&mut self, piece: Piece) {
        self.bytes += piece.bytes;
        self.pieces.push(piece);
    }

    /// The tail becomes one settled piece. It has enough rows.
    fn settle(&mut self) -> Result<()> {
        if self.settled == self.pieces.len() {
            return Ok(());
        }
        self.merge(self.settled)?;
        self.places.resize(self.rows.div_ceil(SETTLED), self.settled as u32);
        self.settled += 1;
        self.settled_rows = self.rows;
        Ok(())
    }

    fn merge_tail(&mut self) -> Result<()> {
        while let [.., a, b] = &self.pieces[self.settled..] {
            if a.rows > 2 * b.rows {
                break;
            }
            self.merge(self.pieces.len() - 2)?;
        }
        Ok(())
    }

    /// Makes one of all pieces from `first` on.
    fn merge(&mut self, first: usize) -> Result<()> {
        let parts = &self.pieces[first..];
        let [one, _, ..] = parts else { return Ok(()) };
        let (start, rows) = (one.start, parts.iter().map(|p| p.rows).sum());
        let column = |c: usize| -> Result<ArrayRef> {
            let parts = parts.iter().map(|p| p.column(c)).collect::<Result<Vec<_>>>()?;
            Ok(concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?)
        };
        let columns = (0..self.types.len()).map(column).collect::<Result<Vec<_>>>()?;
        self.bytes -= parts.iter().map(|p| p.bytes).sum::<usize>();
        self.pieces.truncate(first);
        self.push(Piece::new(start, rows, columns, None));
        Ok(())
    }

    /// Weight of a row.
    #[inline]
    pub fn weight(&self, id: u32) -> Weight {
        self.weights.as_ref().map_or(1, |weights| weights.get(id as usize))
    }

    /// The piece of a row.
    #[inline]
    fn piece(&self, id: usize) -> usize {
        match self.places.get(id / SETTLED) {
            // The next one begins within these rows at the earliest, and the one after it beyond them.
            Some(piece) if id < self.settled_rows => {
                let piece = *piece as usize;
                piece + usize::from(self.pieces.get(piece + 1).is_some_and(|next| next.start <= id))
            }
            _ => self.settled + self.pieces[self.settled..].partition_point(|p| p.start <= id) - 1,
        }
    }

    /// These columns of the rows `ids`; [`NONE`] gives NULLs.
    pub fn columns(&self, ids: &[u32], columns: &[usize]) -> Result<Vec<ArrayRef>> {
        let absent = |id: &u32| *id == NONE;
        let optional = ids.iter().any(absent);
        let known = || ids.iter().copied().filter(|id| *id != NONE);
        let (Some(low), Some(high)) = (known().min(), known().max()) else {
            return Ok(columns.iter().map(|c| new_null_array(&self.types[*c], ids.len())).collect());
        };
        let (first, last) = (self.piece(low as usize), self.piece(high as usize));
        if first == last {
            let piece = &self.pieces[first];
            let from = low as usize - piece.start;
            if piece.selection.is_none() && !optional && ids.windows(2).all(|pair| pair[0] + 1 == pair[1]) {
                return Ok(columns.iter().map(|c| piece.columns[*c].slice(from, ids.len())).collect());
            }
            let row = |id: &u32| (*id != NONE).then(|| piece.place(*id as usize - piece.start) as u32);
            let rows: UInt32Array = ids.iter().map(row).collect();
            return columns.iter().map(|c| Ok(take(&piece.columns[*c], &rows, None)?)).collect();
        }
        let null = (last + 1 - first, 0);
        let place = |id: &u32| match *id {
            NONE => null,
            id => {
                let at = self.piece(id as usize);
                let piece = &self.pieces[at];
                (at - first, piece.place(id as usize - piece.start))
            }
        };
        let places: Vec<(usize, usize)> = ids.iter().map(place).collect();
        let gather = |c: &usize| -> Result<ArrayRef> {
            let nulls = new_null_array(&self.types[*c], usize::from(optional));
            let pieces = self.pieces[first..=last].iter().map(|piece| piece.columns[*c].as_ref());
            let arrays: Vec<&dyn Array> = pieces.chain(optional.then_some(nulls.as_ref())).collect();
            Ok(interleave(&arrays, &places)?)
        };
        columns.iter().map(gather).collect()
    }

    /// All columns of the rows `ids`.
    pub fn all_columns(&self, ids: &[u32]) -> Result<Vec<ArrayRef>> {
        self.columns(ids, &(0..self.types.len()).collect::<Vec<_>>())
    }

    /// Above the ids of all rows.
    pub fn bound(&self) -> usize {
        self.rows
    }

    /// Writes rows and weights.
    pub fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.words("log.pieces", self.pieces.iter().map(|p| p.rows as u64));
        out.words("log.weights", self.weights.iter().flat_map(Narrow::iter));
        for piece in &self.pieces {
            let columns = (0..self.types.len()).map(|c| piece.column(c)).collect::<Result<Vec<_>>>()?;
            out.columns("log.columns", &columns, piece.rows)?;
        }
        Ok(())
    }

    /// Becomes what [`RowLog::save`] wrote of one with the same columns.
    pub fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        let pieces = from.words::<u64>("log.pieces")?;
        let weights = from.words::<i64>("log.weights")?;
        *self = RowLog { types: std::mem::take(&mut self.types), ..RowLog::new(&SchemaRef::new(Schema::empty())) };
        for rows in pieces {
            let (columns, found) = from.columns("log.columns", &self.types)?;
            if found as u64 != rows || found == 0 || self.rows + found >= NONE as usize - 1 {
                return Err(damaged("a piece has another number of rows"));
            }
            let is_tail = found < SETTLED || self.settled < self.pieces.len();
            // The columns share one allocation: each by its part of it.
            self.push(Piece::new(self.rows, found, columns, None));
            self.rows += found;
            if !is_tail {
                self.settle()?;
            }
        }
        if !(weights.is_empty() || weights.len() == self.rows) || weights.iter().any(|weight| *weight <= 0) {
            return Err(damaged("rows and weights do not belong together"));
        }
        self.weights = weights.iter().max().map(|most| Narrow::up_to(*most, weights.iter().copied()));
        Ok(())
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        self.bytes
            + self.pieces.capacity() * size_of::<Piece>()
            + self.places.capacity() * size_of::<u32>()
            + self.weights.as_ref().map_or(0, |weights| weights.heap_size())
    }
}

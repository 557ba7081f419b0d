//! Rows that only come, stored by column and addressed by the order they came in.

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::{concat, interleave, take};
use arrow::datatypes::{DataType, SchemaRef};

use super::sections::damaged;
use super::{Applied, NONE, Narrow, StateReader, StateWriter, canonical};
use crate::error::{Error, Result};
use crate::types::{SignedBatch, Weight};

/// Rows of a full piece: where a row stands is in the bits of its id.
const PIECE: usize = 1 << 16;

/// Rows by id: 0, 1, 2 … in the order they were appended. Nothing is looked up by value, so a row is neither hashed nor encoded, and
/// equal rows are rows of their own.
///
/// Full pieces never change. Small epochs append small pieces to the tail, which are merged as they come (the last two
/// whenever they are of similar size), so that a row is copied a logarithmic number of times; whole pieces of a large epoch not at all.
pub struct RowLog {
    types: Vec<DataType>,
    pieces: Vec<Piece>,
    /// How many of the pieces are full: the first ones.
    full: usize,
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
    bytes: usize,
}

impl Piece {
    fn new(start: usize, rows: usize, columns: Vec<ArrayRef>) -> Result<Self> {
        let columns = columns.into_iter().map(owned).collect::<Result<Vec<_>>>()?;
        let bytes = columns.iter().map(slice_size).sum();
        Ok(Piece { start, rows, columns, bytes })
    }
}

/// Bytes of the rows of an array, however large the buffers are that they stand in.
fn slice_size(array: &ArrayRef) -> usize {
    let data = array.to_data();
    data.get_slice_memory_size().unwrap_or_else(|_| data.get_array_memory_size())
}

/// The array without what else its buffers hold, if that is most of them.
fn owned(array: ArrayRef) -> Result<ArrayRef> {
    if array.get_buffer_memory_size() <= 2 * slice_size(&array) + 1024 {
        return Ok(array);
    }
    // Of one array alone it would give back the same buffers.
    Ok(concat(&[array.as_ref(), array.slice(0, 0).as_ref()])?)
}

impl RowLog {
    /// No rows, of these columns.
    pub fn new(schema: &SchemaRef) -> Self {
        let types = schema.fields().iter().map(|f| f.data_type().clone()).collect();
        RowLog { types, pieces: Vec::new(), full: 0, rows: 0, weights: None, bytes: 0 }
    }

    /// Appends the rows of one epoch. A retraction is an error.
    pub fn apply(&mut self, batches: &[SignedBatch]) -> Result<Applied> {
        let total: usize = batches.iter().map(SignedBatch::num_rows).sum();
        let start = self.rows;
        // Two values of u32 mark absence.
        if start + total >= NONE as usize - 1 {
            return Err(Error::environment("state-full", "too many rows in one state").permanent());
        }
        let mut applied = Applied { ids: (start as u32..(start + total) as u32).collect(), ..Applied::default() };
        applied.net.reserve(total);
        for batch in batches {
            if batch.has_retractions() {
                return Err(Error::diverged("a row of append-only input is retracted"));
            }
            let first = self.rows;
            applied.net.extend((0..batch.num_rows()).map(|i| ((first + i) as u32, batch.weight(i))));
            self.append(batch.rows.columns(), batch.num_rows())?;
            self.weigh(first, batch);
        }
        Ok(applied)
    }

    fn weigh(&mut self, first: usize, batch: &SignedBatch) {
        if self.weights.is_none() && batch.weights.is_none() {
            return;
        }
        let weights = self.weights.get_or_insert_with(|| Narrow::up_to(1, (0..first).map(|_| 1)));
        (0..batch.num_rows()).for_each(|i| weights.push(batch.weight(i)));
    }

    fn append(&mut self, columns: &[ArrayRef], rows: usize) -> Result<()> {
        let columns = columns.iter().map(canonical).collect::<Result<Vec<_>>>()?;
        let mut from = 0;
        while from < rows {
            let room = PIECE - self.rows % PIECE;
            let count = room.min(rows - from);
            let part = columns.iter().map(|c| c.slice(from, count)).collect();
            self.push(Piece::new(self.rows, count, part)?);
            self.rows += count;
            from += count;
            if self.rows.is_multiple_of(PIECE) {
                self.merge(self.full)?;
                self.full += 1;
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

    fn merge_tail(&mut self) -> Result<()> {
        while let [.., a, b] = &self.pieces[self.full..] {
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
            Ok(concat(&parts.iter().map(|p| p.columns[c].as_ref()).collect::<Vec<_>>())?)
        };
        let columns = (0..self.types.len()).map(column).collect::<Result<Vec<_>>>()?;
        self.bytes -= parts.iter().map(|p| p.bytes).sum::<usize>();
        self.pieces.truncate(first);
        self.push(Piece::new(start, rows, columns)?);
        Ok(())
    }

    /// Weight of a row.
    #[inline]
    pub fn weight(&self, id: u32) -> Weight {
        self.weights.as_ref().map_or(1, |weights| weights.get(id as usize))
    }

    /// Piece and row.
    #[inline]
    fn locate(&self, id: usize) -> (usize, usize) {
        let piece = id / PIECE;
        if piece < self.full {
            return (piece, id % PIECE);
        }
        let piece = self.full + self.pieces[self.full..].partition_point(|p| p.start <= id) - 1;
        (piece, id - self.pieces[piece].start)
    }

    /// These columns of the rows `ids`; [`NONE`] gives NULLs.
    pub fn columns(&self, ids: &[u32], columns: &[usize]) -> Result<Vec<ArrayRef>> {
        let absent = |id: &u32| *id == NONE;
        let optional = ids.iter().any(absent);
        let known = || ids.iter().copied().filter(|id| *id != NONE);
        let (Some(low), Some(high)) = (known().min(), known().max()) else {
            return Ok(columns.iter().map(|c| new_null_array(&self.types[*c], ids.len())).collect());
        };
        let ((first, from), (last, _)) = (self.locate(low as usize), self.locate(high as usize));
        if first == last {
            let piece = &self.pieces[first];
            if !optional && ids.windows(2).all(|pair| pair[0] + 1 == pair[1]) {
                return Ok(columns.iter().map(|c| piece.columns[*c].slice(from, ids.len())).collect());
            }
            let rows: UInt32Array =
                ids.iter().map(|id| (*id != NONE).then(|| id.wrapping_sub(piece.start as u32))).collect();
            return columns.iter().map(|c| Ok(take(&piece.columns[*c], &rows, None)?)).collect();
        }
        let null = (last + 1 - first, 0);
        let place = |id: &u32| match *id {
            NONE => null,
            id => {
                let (piece, row) = self.locate(id as usize);
                (piece - first, row)
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

    /// Writes rows and weights.
    pub fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.words("log.pieces", self.pieces.iter().map(|p| p.rows as u64));
        out.words("log.weights", self.weights.iter().flat_map(Narrow::iter));
        self.pieces.iter().try_for_each(|piece| out.columns("log.columns", &piece.columns, piece.rows))
    }

    /// Becomes what [`RowLog::save`] wrote of one with the same columns.
    pub fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        let pieces = from.words::<u64>("log.pieces")?;
        let weights = from.words::<i64>("log.weights")?;
        (self.pieces, self.full, self.rows, self.bytes) = (Vec::new(), 0, 0, 0);
        for rows in pieces {
            let (columns, found) = from.columns("log.columns", &self.types)?;
            if found as u64 != rows
                || found == 0
                || found > PIECE
                || self.rows / PIECE != (self.rows + found - 1) / PIECE
            {
                return Err(damaged("a piece has another number of rows"));
            }
            // The columns share one allocation: each by its part of it.
            let bytes = columns.iter().map(slice_size).sum();
            self.push(Piece { start: self.rows, rows: found, columns, bytes });
            self.rows += found;
            self.full += usize::from(found == PIECE);
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
            + self.weights.as_ref().map_or(0, |weights| weights.heap_size())
    }
}

//! Rows that only come, which several operators append in the same order, stored once.
//!
//! A log is as long as the longest of its holders has made it. A [`SharedLog`] is one holder: it has the log's first so many rows, under the ids
//! that a [`RowLog`] of its own would give them. What it appends is compared with what stands behind them: where that is the same, nothing is
//! stored; where it is not, since the holder was filled in another order, it goes on in a log of its own, with the same columns as far as they
//! are its own. A holder without rows takes a place in any log of its name ([`SharedLogs`]) that begins with what it gets.
//!
//! So holders may be at different versions, stand still, be filled anew or come back from disk, and nothing depends on who shares what. Weights are
//! each holder's own. Whoever looks into a log says how far; rows that nobody looks at any more go.

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::keyed::Chains;
use super::{Piece, RowLog, SETTLED, fill_their_buffers, owned};
use crate::error::{Error, Result};
use crate::state::rows::failed;
use crate::state::shared_keys::KeyIndexes;
use crate::state::{Applied, NONE, Narrow, PoolName, StateReader, StateWriter, canonical};
use crate::types::{SelectedBatch, SignedBatch, Weight};

/// The logs of one name, whose rows differ somewhere.
type Branches = Mutex<Vec<Weak<Mutex<Log>>>>;

/// Rows of one name and of these columns.
type LogName = (PoolName, Vec<DataType>);

/// The shared logs of one pipeline.
#[derive(Default)]
pub struct SharedLogs(Mutex<HashMap<LogName, Weak<Branches>>>);

impl SharedLogs {
    /// A holder, of no rows yet, of the logs of this name and these columns, of which it asks for those in `shown` only.
    pub fn hold(&self, name: PoolName, schema: &SchemaRef, shown: Vec<usize>) -> Result<SharedLog> {
        let own = RowLog::new(schema);
        let key = (name, own.types.clone());
        let mut logs = self.0.lock().map_err(|_| failed())?;
        logs.retain(|_, branches| branches.strong_count() > 0);
        let branches = logs.get(&key).and_then(Weak::upgrade).unwrap_or_default();
        logs.insert(key, Arc::downgrade(&branches));
        Ok(SharedLog { branches, seat: Seat::new(own, 0), shown, rows: 0, weights: None })
    }
}

/// Rows that holders have the first so many of.
pub(super) struct Log {
    pub rows: RowLog,
    /// By their places.
    pub indexes: KeyIndexes<Chains>,
    /// Who looks into it, by seat.
    seats: Vec<Option<Look>>,
    /// Set while rows change: an error leaves it set.
    broken: bool,
}

/// Up to which row somebody looks into a log, and whether that is for rows, not keys.
#[derive(Clone, Copy)]
struct Look {
    reach: usize,
    holds: bool,
}

impl Log {
    fn new(rows: RowLog) -> Self {
        Log { rows, indexes: KeyIndexes::default(), seats: Vec::new(), broken: false }
    }

    fn sit(&mut self, look: Look) -> usize {
        let free = self.seats.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.seats.push(None);
            self.seats.len() - 1
        });
        self.seats[at] = Some(look);
        at
    }

    fn leave(&mut self, seat: usize) {
        self.seats[seat] = None;
        let longest = self.seats.iter().flatten().map(|look| look.reach).max().unwrap_or(0);
        if longest >= self.rows.len() || self.broken {
            return;
        }
        match self.rows.first(longest) {
            Ok(rows) => {
                self.rows = rows;
                self.indexes.iter_mut().for_each(|index| index.truncate(longest));
            }
            // What is left of it is as it was.
            Err(_) => self.broken = true,
        }
    }

    /// Whether `new` is what stands behind the first `from` rows, as far as rows stand there.
    fn agrees(&self, mut from: usize, new: &[SelectedBatch]) -> Result<bool> {
        for batch in new {
            let known = self.rows.len().saturating_sub(from).min(batch.num_rows());
            if !self.rows.stands(from, batch, known)? {
                return Ok(false);
            }
            from += batch.num_rows();
        }
        Ok(true)
    }

    /// Appends what of `new` does not stand behind the first `from` rows yet.
    fn append(&mut self, mut from: usize, new: &[SelectedBatch]) -> Result<()> {
        let mut rest: Vec<SelectedBatch> = Vec::with_capacity(new.len());
        for batch in new {
            let known = self.rows.len().saturating_sub(from).min(batch.num_rows());
            if known < batch.num_rows() {
                rest.push(behind(batch, known));
            }
            from += batch.num_rows();
        }
        self.broken = true;
        let stay = fill_their_buffers(&rest, self.rows.types.len());
        rest.iter().try_for_each(|batch| self.rows.append(batch, &stay))?;
        self.broken = false;
        Ok(())
    }

    /// Who sits there looks so far at least.
    pub fn looks(&mut self, seat: usize, reach: usize) {
        if let Some(look) = &mut self.seats[seat] {
            look.reach = look.reach.max(reach);
        }
    }

    fn holders(&self) -> usize {
        self.seats.iter().flatten().filter(|look| look.holds).count()
    }
}

/// The batch without its first rows.
fn behind(batch: &SelectedBatch, rows: usize) -> SelectedBatch {
    match batch.selection() {
        _ if rows == 0 => batch.clone(),
        None => batch.whole().slice(rows, batch.num_rows() - rows).into(),
        Some(selection) => SelectedBatch::new(batch.whole().clone(), selection.slice(rows, batch.num_rows() - rows)),
    }
}

/// A place from where a log is looked into.
pub(super) struct Seat {
    log: Arc<Mutex<Log>>,
    at: usize,
}

impl Seat {
    /// The first, of a holder, in a log of its own.
    fn new(rows: RowLog, reach: usize) -> Self {
        let mut log = Log::new(rows);
        let at = log.sit(Look { reach, holds: true });
        Seat { log: Arc::new(Mutex::new(log)), at }
    }

    /// One for keys in the log of `other`, that looks nowhere yet.
    pub fn beside(other: &Seat) -> Result<Self> {
        let at = other.lock()?.sit(Look { reach: 0, holds: false });
        Ok(Seat { log: Arc::clone(&other.log), at })
    }

    pub fn lock(&self) -> Result<MutexGuard<'_, Log>> {
        let log = self.log.lock().map_err(|_| failed())?;
        if log.broken { Err(failed()) } else { Ok(log) }
    }

    /// Its place in the log.
    pub fn at(&self) -> usize {
        self.at
    }

    pub fn is_beside(&self, other: &Seat) -> bool {
        Arc::ptr_eq(&self.log, &other.log)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // In one that is broken nobody reads any more.
        if let Ok(mut log) = self.log.lock() {
            log.leave(self.at);
        }
    }
}

/// The rows of one holder.
pub struct SharedLog {
    branches: Arc<Branches>,
    pub(super) seat: Seat,
    shown: Vec<usize>,
    rows: usize,
    /// Weights by id, once one is not 1.
    weights: Option<Narrow>,
}

impl SharedLog {
    /// As [`RowLog::apply`].
    pub fn apply(&mut self, batches: &[SelectedBatch]) -> Result<Applied> {
        let total: usize = batches.iter().map(SelectedBatch::num_rows).sum();
        let start = self.rows;
        // Two values of u32 mark absence.
        if start + total >= NONE as usize - 1 {
            return Err(Error::environment("state-full", "too many rows in one state").permanent());
        }
        if batches.iter().any(SelectedBatch::has_retractions) {
            return Err(Error::diverged("a row of append-only input is retracted"));
        }
        if total > 0 {
            self.take(batches)?;
        }
        let weights = || batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|i| batch.weight(i)));
        if self.weights.is_some() || batches.iter().any(|batch| batch.whole().weights.is_some()) {
            let own = self.weights.get_or_insert_with(|| Narrow::up_to(1, (0..start).map(|_| 1)));
            weights().for_each(|weight| own.push(weight));
        }
        let ids: Vec<u32> = (start as u32..(start + total) as u32).collect();
        let net = ids.iter().copied().zip(weights()).collect();
        Ok(Applied { ids, net, ..Applied::default() })
    }

    /// Gets rows, which stand in its log already, are appended there, or part it from it.
    fn take(&mut self, new: &[SelectedBatch]) -> Result<()> {
        let reach = self.rows + new.iter().map(SelectedBatch::num_rows).sum::<usize>();
        if self.rows == 0 {
            self.find(new)?;
        }
        let mut log = self.seat.lock()?;
        if !log.agrees(self.rows, new)? {
            let own = log.rows.first(self.rows)?;
            drop(log);
            self.part(own)?;
            log = self.seat.lock()?;
        }
        log.append(self.rows, new)?;
        log.looks(self.seat.at, reach);
        drop(log);
        self.rows = reach;
        Ok(())
    }

    /// Takes a place in a log that begins with `new`, if there is one; else others may find it in its own.
    fn find(&mut self, new: &[SelectedBatch]) -> Result<()> {
        let branches = Arc::clone(&self.branches);
        let mut branches = branches.lock().map_err(|_| failed())?;
        branches.retain(|log| log.strong_count() > 0);
        for log in branches.iter().filter_map(Weak::upgrade) {
            let at = match log.lock() {
                Ok(mut log) if !log.broken && log.agrees(0, new)? => log.sit(Look { reach: 0, holds: true }),
                _ => continue,
            };
            self.seat = Seat { log, at };
            return Ok(());
        }
        branches.push(Arc::downgrade(&self.seat.log));
        Ok(())
    }

    /// Goes on in a log of its own.
    fn part(&mut self, rows: RowLog) -> Result<()> {
        let reach = rows.len();
        self.seat = Seat::new(rows, reach);
        self.branches.lock().map_err(|_| failed())?.push(Arc::downgrade(&self.seat.log));
        Ok(())
    }

    /// Weight of a row.
    #[inline]
    pub fn weight(&self, id: u32) -> Weight {
        self.weights.as_ref().map_or(1, |weights| weights.get(id as usize))
    }

    /// As [`RowLog::columns`], of the columns that are shown.
    pub fn columns(&self, ids: &[u32], columns: &[usize]) -> Result<Vec<ArrayRef>> {
        self.seat.lock()?.rows.columns(ids, &self.places(columns))
    }

    /// As [`RowLog::all_columns`], of those that are not shown, too.
    pub fn all_columns(&self, ids: &[u32]) -> Result<Vec<ArrayRef>> {
        self.seat.lock()?.rows.all_columns(ids)
    }

    /// Above the ids of its rows.
    pub fn bound(&self) -> usize {
        self.rows
    }

    /// Where the columns that are shown are in rows of the log.
    pub fn places(&self, columns: &[usize]) -> Vec<usize> {
        columns.iter().map(|column| self.shown[*column]).collect()
    }

    /// Writes what [`RowLog::save`] would of a log of these rows alone.
    pub fn save(&self, out: &mut StateWriter) -> Result<()> {
        let mut own = self.seat.lock()?.rows.first(self.rows)?;
        own.weights = self.weights.as_ref().map(|weights| {
            let weights: Vec<i64> = weights.iter().collect();
            Narrow::up_to(weights.iter().copied().max().unwrap_or(1), weights.into_iter())
        });
        own.save(out)
    }

    /// Becomes what [`RowLog::save`] or [`SharedLog::save`] wrote of the same columns.
    pub fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        let mut stored = self.seat.lock()?.rows.first(0)?;
        stored.restore(from)?;
        self.weights = stored.weights.take();
        self.rows = 0;
        if stored.is_empty() {
            return Ok(());
        }
        let new = stored.pieces.iter().map(|piece| stored.batch(piece)).collect::<Result<Vec<_>>>()?;
        self.find(&new)?;
        let mut log = self.seat.lock()?;
        if log.rows.is_empty() {
            // As they stand.
            self.rows = stored.len();
            log.rows = stored;
            log.looks(self.seat.at, self.rows);
            return Ok(());
        }
        drop(log);
        self.take(&new)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes on the heap: its own, and its part of what all holders have together.
    pub fn heap_size(&self) -> usize {
        let shared = self.seat.lock().map_or(0, |log| log.rows.heap_size() / log.holders().max(1));
        self.weights.as_ref().map_or(0, Narrow::heap_size) + shared
    }
}

impl RowLog {
    /// Its first so many rows, without weights. Columns of whole pieces are the same ones.
    fn first(&self, rows: usize) -> Result<RowLog> {
        let types = self.types.clone();
        let mut first = RowLog { types, ..RowLog::new(&SchemaRef::new(Schema::empty())) };
        for piece in self.pieces.iter().take_while(|piece| piece.start < rows) {
            let Piece { start, columns, selection, bytes, .. } = piece;
            let count = piece.rows.min(rows - start);
            let is_tail = count < SETTLED || first.settled < first.pieces.len();
            let (start, columns, selection) = (*start, columns.clone(), selection.clone());
            first.push(match selection {
                selection if count == piece.rows => Piece { start, rows: count, columns, selection, bytes: *bytes },
                Some(selection) => Piece::new(start, count, columns, Some(selection.slice(0, count))),
                None => {
                    let part = |column: &ArrayRef| owned(&column.slice(0, count));
                    Piece::new(start, count, columns.iter().map(part).collect::<Result<_>>()?, None)
                }
            });
            first.rows += count;
            if !is_tail {
                first.settle()?;
            }
        }
        Ok(first)
    }

    /// A piece as a batch.
    fn batch(&self, piece: &Piece) -> Result<SelectedBatch> {
        let fields: Vec<Field> = self.types.iter().map(|of| Field::new("", of.clone(), true)).collect();
        let rows = SignedBatch::inserts(RecordBatch::try_new(Arc::new(Schema::new(fields)), piece.columns.clone())?);
        Ok(match &piece.selection {
            None => rows.into(),
            Some(selection) => SelectedBatch::new(rows, selection.clone()),
        })
    }

    /// Whether the first so many rows of a batch stand from row `from` on, bit for bit.
    fn stands(&self, from: usize, batch: &SelectedBatch, rows: usize) -> Result<bool> {
        let mut done = 0;
        while done < rows {
            let piece = &self.pieces[self.piece(from + done)];
            let at = from + done - piece.start;
            let count = (piece.rows - at).min(rows - done);
            let new = batch.selection().map(|selection| selection.slice(done, count));
            let old = piece.selection.as_ref().map(|selection| selection.slice(at, count));
            for (arrived, stored) in batch.whole().rows.columns().iter().zip(&piece.columns) {
                // Mostly what other models get is the same columns.
                let same = match (&new, &old) {
                    (Some(new), Some(old)) => new.values() == old.values() && is_same(arrived, stored),
                    _ => false,
                };
                if !same {
                    let (arrived, stored) = (part(arrived, &new, done, count)?, part(stored, &old, at, count)?);
                    if !is_same(&arrived, &stored) && canonical(&arrived)?.to_data() != stored.to_data() {
                        return Ok(false);
                    }
                }
            }
            done += count;
        }
        Ok(true)
    }
}

/// Whether two arrays are one.
fn is_same(one: &ArrayRef, other: &ArrayRef) -> bool {
    Arc::ptr_eq(one, other) || one.to_data().ptr_eq(&other.to_data())
}

/// Rows of a column, at a selection or so many from a place on.
fn part(column: &ArrayRef, selection: &Option<UInt32Array>, from: usize, count: usize) -> Result<ArrayRef> {
    match selection {
        Some(selection) => Ok(take(column, selection, None)?),
        None => Ok(column.slice(from, count)),
    }
}

//! Forgotten sessions that a change touches, found again among the rows of their table.
//!
//! A row that comes or goes touches the session it lies in, or one on each side that is less than a gap away: no other one is joined, parted, made longer
//! or shorter. How far these reach is known when a gap without rows is seen on either side. So reading goes in rounds:
//!
//! 1. [`Recall::start`] is told the late rows and which sessions of their keys are there, and wants what is within a gap of each row.
//! 2. [`Recall::take`] gets the rows of the table in [`Recall::spans`], and keeps those of the keys and times that are wanted.
//! 3. [`Recall::advance`] looks at the sessions these make. Where one may go on beyond what was read it wants more, twice as much each time; in
//!    the end it gives out the rows of whole sessions.
//!
//! What holds: sessions that an operator has are whole, so around each of them a gap without rows is known; and all rows from `clock` on are there, since a session
//! with one of them has not ended.

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::execution::SessionState;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::operators::eval::{Exprs, instants};
use crate::plan::incremental::{Length, Node};
use crate::state::RowCodec;
use crate::types::SignedBatch;

/// A key, encoded.
pub type Key = Box<[u8]>;

/// Sessions by key: where they begin, and the time of their last rows (µs).
pub type Held = HashMap<Key, Vec<(i64, i64)>>;

/// Spans of time, each without its end; none overlaps another one.
#[derive(Debug, Default, Clone)]
struct Ranges(BTreeMap<i64, i64>);

impl Ranges {
    /// One more; those that it overlaps become one with it.
    fn add(&mut self, (mut from, mut until): (i64, i64)) {
        let overlapping: Vec<(i64, i64)> = self.overlapping(from, until).collect();
        for (start, end) in overlapping {
            self.0.remove(&start);
            (from, until) = (from.min(start), until.max(end));
        }
        if from < until {
            self.0.insert(from, until);
        }
    }

    fn overlapping(&self, from: i64, until: i64) -> impl DoubleEndedIterator<Item = (i64, i64)> + '_ {
        let first = self.0.range(..=from).next_back().filter(|(_, end)| **end > from);
        let first = first.map_or(from, |(start, _)| *start);
        self.0.range(first..until.max(first)).map(|(start, end)| (*start, *end))
    }

    fn contains(&self, time: i64) -> bool {
        self.0.range(..=time).next_back().is_some_and(|(_, end)| time < *end)
    }

    /// What of a span lies in none of these.
    fn missing(&self, (from, until): (i64, i64)) -> Vec<(i64, i64)> {
        let (mut at, mut missing) = (from, Vec::new());
        for (start, end) in self.overlapping(from, until) {
            if start > at {
                missing.push((at, start));
            }
            at = at.max(end);
        }
        if at < until {
            missing.push((at, until));
        }
        missing
    }
}

/// What is known of one key.
#[derive(Default)]
struct OfKey {
    /// Times at which rows come or go.
    late: BTreeSet<i64>,
    /// Sessions of the rows that are known, each to its end: its last row and the gap.
    sessions: Ranges,
    /// Where all rows are known.
    known: Ranges,
    /// Where they are being read.
    wanted: Ranges,
    /// Times of those that were.
    found: Vec<i64>,
}

impl OfKey {
    /// From the first row to the end of all that a row at `time` touches, as far as it is known.
    fn touched(&self, time: i64, gap: i64) -> (i64, i64) {
        let own = (time, time.saturating_add(gap));
        let touched = self.sessions.overlapping(own.0, own.1);
        touched.fold(own, |(from, until), (start, end)| (from.min(start), until.max(end)))
    }

    /// Takes in what was read, and wants what is missing: beyond that, too, where it is not the `first` round.
    fn advance(&mut self, gap: i64, first: bool) {
        std::mem::take(&mut self.wanted).0.into_iter().for_each(|range| self.known.add(range));
        std::mem::take(&mut self.found).into_iter().for_each(|at| self.sessions.add((at, at.saturating_add(gap))));
        for time in &self.late {
            let (start, end) = self.touched(*time, gap);
            // A row before that is less than a gap away.
            let from = start.saturating_sub(gap).saturating_add(1);
            let missing = self.known.missing((from, end));
            let (Some(lowest), Some(highest)) = (missing.first(), missing.last()) else { continue };
            let more = if first { 0 } else { end.saturating_sub(start) };
            let lowest = if lowest.0 == from { from.saturating_sub(more) } else { lowest.0 };
            let highest = if highest.1 == end { end.saturating_add(more) } else { highest.1 };
            self.known.missing((lowest, highest)).into_iter().for_each(|range| self.wanted.add(range));
        }
    }
}

/// Sessions that are being read.
struct Reading {
    keys: HashMap<Key, OfKey>,
    /// Rows of the operator's input.
    rows: Vec<SignedBatch>,
}

/// What was read again.
pub struct Whole {
    /// All rows of the sessions.
    pub rows: Vec<SignedBatch>,
    /// Where each of them begins.
    pub starts: BTreeSet<i64>,
}

/// How an operator that has forgotten sessions gets them back.
pub struct Recall {
    partition: Exprs,
    time: Exprs,
    codec: RowCodec,
    gap: i64,
    /// Since the last step: where the rows of a key are known to be there.
    settled: HashMap<Key, Ranges>,
    reading: Option<Reading>,
    /// What the operator says of sessions that came back, for those above it.
    pub shown: Option<Vec<SignedBatch>>,
    /// After sessions were forgotten: those that were not, for the operators above.
    pub left: Option<Arc<Left>>,
}

impl Recall {
    /// Of a [`Node::Session`] with a bucket.
    pub fn new(plan: &Node, session: &SessionState) -> Result<Self> {
        let Node::Session { input, partition, time, gap: Length::Micros(gap), .. } = plan else {
            return Err(Error::internal("a node that forgets sessions is none"));
        };
        let partition = Exprs::new(partition, input.schema(), session)?;
        Ok(Recall {
            codec: RowCodec::new(partition.types.iter().cloned())?,
            partition,
            time: Exprs::new([time], input.schema(), session)?,
            gap: *gap,
            settled: HashMap::new(),
            reading: None,
            shown: None,
            left: None,
        })
    }

    pub fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// What was found around late rows may change now.
    pub fn stepped(&mut self) {
        self.settled.clear();
    }

    /// Does `with` to key and time of every row.
    fn each(&self, batch: &SignedBatch, mut with: impl FnMut(usize, &[u8], i64)) -> Result<()> {
        let time = self.time.evaluate(&batch.rows)?.pop().ok_or_else(|| Error::internal("a session without a time"))?;
        let times = instants(&time)?;
        let keys = self.codec.encode(&self.partition.evaluate(&batch.rows)?, batch.num_rows())?;
        (0..batch.num_rows()).filter(|i| times.is_valid(*i)).for_each(|i| with(i, keys.row(i), times.value(i)));
        Ok(())
    }

    /// Of rows that come or go, and of the sessions of their keys that are there: whether others have to be read. All rows from `clock` on are there.
    pub fn start(&mut self, rows: &[SignedBatch], held: &Held, clock: i64) -> Result<()> {
        let mut keys: HashMap<Key, OfKey> = HashMap::new();
        for batch in rows {
            self.each(batch, |_, key, time| {
                if time < clock {
                    match keys.get_mut(key) {
                        Some(of_key) => of_key.late.insert(time),
                        None => keys.entry(key.into()).or_default().late.insert(time),
                    };
                }
            })?;
        }
        for (key, of_key) in &mut keys {
            of_key.known = self.settled.get(key).cloned().unwrap_or_default();
            of_key.known.add((clock, i64::MAX));
            for (start, last) in held.get(key).into_iter().flatten() {
                let end = last.saturating_add(self.gap);
                of_key.sessions.add((*start, end));
                of_key.known.add((start.saturating_sub(self.gap).saturating_add(1), end));
            }
            of_key.advance(self.gap, true);
        }
        keys.retain(|_, of_key| !of_key.wanted.0.is_empty());
        self.reading = (!keys.is_empty()).then_some(Reading { keys, rows: vec![] });
        Ok(())
    }

    /// Where in the time of sessions rows are wanted, in order.
    pub fn spans(&self) -> Vec<(i64, i64)> {
        let mut spans = Ranges::default();
        let keys = self.reading.iter().flat_map(|reading| reading.keys.values());
        keys.flat_map(|of_key| &of_key.wanted.0).for_each(|(from, until)| spans.add((*from, *until)));
        spans.0.into_iter().collect()
    }

    /// Some rows of these spans, or others. How many are wanted.
    pub fn take(&mut self, rows: Vec<SignedBatch>) -> Result<usize> {
        let Some(mut reading) = self.reading.take() else { return Err(Error::internal("no sessions are being read")) };
        let mut taken = 0;
        for batch in rows {
            let mut wanted = vec![false; batch.num_rows()];
            self.each(&batch, |i, key, time| {
                if let Some(of_key) = reading.keys.get_mut(key).filter(|of_key| of_key.wanted.contains(time)) {
                    of_key.found.push(time);
                    wanted[i] = true;
                }
            })?;
            let wanted = batch.filter(&BooleanArray::from(wanted))?;
            taken += wanted.num_rows();
            reading.rows.extend(Some(wanted).filter(|batch| !batch.is_empty()));
        }
        self.reading = Some(reading);
        Ok(taken)
    }

    /// All rows of the spans were taken. What they are, unless more has to be read.
    pub fn advance(&mut self) -> Result<Option<Whole>> {
        let Some(mut reading) = self.reading.take() else { return Err(Error::internal("no sessions are being read")) };
        reading.keys.values_mut().for_each(|of_key| of_key.advance(self.gap, false));
        if reading.keys.values().any(|of_key| !of_key.wanted.0.is_empty()) {
            self.reading = Some(reading);
            return Ok(None);
        }
        let (mut whole, mut starts): (HashMap<&Key, Ranges>, _) = (HashMap::new(), BTreeSet::new());
        for (key, of_key) in &reading.keys {
            for time in &of_key.late {
                let (start, end) = of_key.touched(*time, self.gap);
                starts.insert(start);
                whole.entry(key).or_default().add((start, end));
                let settled = (start.saturating_sub(self.gap).saturating_add(1), end);
                self.settled.entry(key.clone()).or_default().add(settled);
            }
        }
        let whole: HashMap<&[u8], Ranges> = whole.into_iter().map(|(key, ranges)| (&**key, ranges)).collect();
        let mut rows = Vec::with_capacity(reading.rows.len());
        for batch in &reading.rows {
            let mut of_whole = vec![false; batch.num_rows()];
            self.each(batch, |i, key, time| {
                of_whole[i] = whole.get(key).is_some_and(|ranges| ranges.contains(time));
            })?;
            rows.push(batch.filter(&BooleanArray::from(of_whole))?);
        }
        rows.retain(|batch| !batch.is_empty());
        Ok(Some(Whole { rows, starts }))
    }
}

/// Sessions that an operator still has: what stands above it keeps their groups.
pub struct Left {
    codec: RowCodec,
    types: Vec<DataType>,
    starts: HashMap<Key, HashSet<i64>>,
}

impl Left {
    pub fn new(types: &[DataType], held: Held) -> Result<Self> {
        let starts =
            held.into_iter().map(|(key, sessions)| (key, sessions.into_iter().map(|(start, _)| start).collect()));
        Ok(Left { codec: RowCodec::new(types.iter().cloned())?, types: types.to_vec(), starts: starts.collect() })
    }

    /// For each of some sessions, given by the columns of their keys and their starts, whether it is one of them.
    pub fn has(&self, keys: &[ArrayRef], starts: &ArrayRef) -> Result<Vec<bool>> {
        let starts = instants(starts)?;
        if !keys.iter().map(|column| column.data_type()).eq(&self.types) {
            return Err(Error::internal("the keys of sessions are of other types above them"));
        }
        let keys = self.codec.encode(keys, starts.len())?;
        let has = |i: usize| self.starts.get(keys.row(i)).is_some_and(|known| known.contains(&starts.value(i)));
        Ok((0..starts.len()).map(has).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_that_overlap_become_one() {
        let mut ranges = Ranges::default();
        [(10, 20), (30, 40), (20, 25), (50, 60)].into_iter().for_each(|range| ranges.add(range));
        assert_eq!(ranges.0.len(), 4, "those that touch stay apart");
        assert_eq!(ranges.missing((0, 45)), [(0, 10), (25, 30), (40, 45)]);
        assert_eq!(ranges.missing((12, 25)), []);
        ranges.add((15, 31));
        assert_eq!(ranges.0.into_iter().collect::<Vec<_>>(), [(10, 40), (50, 60)]);
    }

    /// How often rows are read until the session around `late` is whole, and how many of them.
    fn rounds(rows: &[i64], gap: i64, late: i64) -> (usize, usize) {
        let mut of_key = OfKey { late: [late].into(), ..OfKey::default() };
        of_key.known.add((1_000_000, i64::MAX));
        of_key.advance(gap, true);
        let (mut rounds, mut read) = (0, 0);
        while !of_key.wanted.0.is_empty() {
            of_key.found = rows.iter().copied().filter(|time| of_key.wanted.contains(*time)).collect();
            (rounds, read) = (rounds + 1, read + of_key.found.len());
            of_key.advance(gap, false);
        }
        (rounds, read)
    }

    #[test]
    fn a_long_session_is_read_in_a_few_rounds() {
        let rows: Vec<i64> = (0..1_000).map(|i| 1_000 + i * 9).collect();
        let (count, read) = rounds(&rows, 10, 5_000);
        assert!((4..=12).contains(&count) && read == 1_000, "{count} rounds, {read} rows");
        assert!(rounds(&rows, 9, 5_000).1 <= 6, "rows that are a gap apart are sessions of their own");
        assert_eq!(rounds(&[], 10, 5_000), (1, 0));
        assert_eq!(rounds(&rows, 10, 990), (1, 0), "the first row is a gap away");
    }
}

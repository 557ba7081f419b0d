//! Sessions: rows of one key that follow one another within a gap.
//!
//! 1. An epoch's rows are applied to the rows kept ([`Relation`]), and stand in the order of time by key ([`Spans`]).
//! 2. A time that is new makes a session, makes one longer, or joins two; one that is gone makes it shorter, or two of it. What becomes of
//!    sessions in between is nobody's business: at the end those that are no more and those that are new are known ([`Touched`]).
//! 3. A row that came or went is given out with its session. Those that stay are looked at only where sessions overlap whose start, or end,
//!    is another: what else a session holds is not read.
//!
//! Below `emit: on_close` rows stay until the watermark has passed the end of their session. In a view they may be forgotten from then on ([`forgetting`]), and are read
//! again where a late row needs them ([`recall`]).

mod forgetting;
pub(super) mod recall;
mod spans;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use datafusion::execution::SessionState;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use self::spans::{Place, Session, Spans, Touched};
use super::eval::{self, Exprs, arrow_schema};
use super::sharded::{Shard, materialized};
use crate::error::{Error, Result};
use crate::plan::incremental::{Node, SessionEnd};
use crate::state::{GroupIndex, Relation, RowCodec, StateReader, StateWriter};
use crate::types::{SelectedBatch, SignedBatch, Weight};

pub(super) struct Sessions {
    partition: Exprs,
    time: Exprs,
    ends: SessionEnd,
    key_codec: RowCodec,
    schema: SchemaRef,
    input: SchemaRef,
    /// How many columns the input has.
    width: usize,
    keys: GroupIndex,
    rows: Relation,
    spans: Spans,
    /// How far past the end of a session the watermark is when its rows leave, µs. None: they stay.
    closes: Option<i64>,
    /// Until when sessions are over, µs.
    clock: i64,
}

/// A row whose weight an epoch changes.
struct Change {
    place: Place,
    before: Weight,
    after: Weight,
}

/// Rows to be given out.
#[derive(Default)]
struct Output {
    ids: Vec<u32>,
    starts: Vec<i64>,
    ends: Vec<Option<i64>>,
    weights: Vec<Weight>,
}

impl Output {
    fn push(&mut self, id: u32, (start, end): Shown, weight: Weight) {
        self.ids.push(id);
        self.starts.push(start);
        self.ends.push(end);
        self.weights.push(weight);
    }
}

/// What a row says of its session: start, and end.
type Shown = (i64, Option<i64>);

impl Sessions {
    /// Of a [`Node::Session`].
    pub fn new(plan: &Node, session: &SessionState) -> Result<Self> {
        let Node::Session { input, partition, time, gap, ends, closes, schema, .. } = plan else {
            return Err(Error::internal("a node of the plan is no session"));
        };
        let rows = arrow_schema(input.schema());
        let partition = Exprs::new(partition, input.schema(), session)?;
        Ok(Sessions {
            key_codec: RowCodec::new(partition.types.iter().cloned())?,
            partition,
            time: Exprs::new([time], input.schema(), session)?,
            ends: *ends,
            schema: arrow_schema(schema),
            width: rows.fields().len(),
            keys: GroupIndex::new(),
            // Rows of a stream leave by their ids.
            rows: if closes.is_some() {
                Relation::unindexed(&rows)
            } else {
                Relation::new(&rows, input.is_append_only())?
            },
            spans: Spans::new(*gap, closes.is_some()),
            input: rows,
            closes: *closes,
            clock: i64::MIN,
        })
    }

    /// The clock of the steps that follow, µs. One that is earlier than before changes nothing.
    pub fn set_clock(&mut self, now: i64) {
        self.clock = self.clock.max(now.saturating_sub(self.behind()));
    }

    fn behind(&self) -> i64 {
        self.closes.unwrap_or(0)
    }

    /// When the next session closes, µs.
    pub fn next_change(&self) -> Result<Option<i64>> {
        Ok(self.spans.next_end()?.map(|end| end.saturating_add(self.behind())))
    }

    /// When the last one does, µs.
    pub fn last_change(&self) -> Result<Option<i64>> {
        Ok(self.spans.last_end()?.map(|end| end.saturating_add(self.behind())))
    }

    /// Applies an epoch's rows to those that are kept: what changes, by key and time, and the keys that are met.
    fn changes(&mut self, input: &[SignedBatch]) -> Result<(Vec<Change>, BTreeSet<u32>)> {
        let mut timed = Vec::with_capacity(input.len());
        let mut places: Vec<(u32, i64)> = Vec::with_capacity(input.iter().map(SignedBatch::num_rows).sum());
        for batch in input {
            let mut batch = batch.clone();
            let mut times = self.times(&batch)?;
            // A row without a time lies in no window.
            if let Some(nulls) = times.nulls().filter(|nulls| nulls.null_count() > 0) {
                batch = batch.filter(&BooleanArray::new(nulls.inner().clone(), None))?;
                times = self.times(&batch)?;
            }
            let keys = self.key_codec.encode(&self.partition.evaluate(&batch.rows)?, batch.num_rows())?;
            places.extend(self.keys.intern(&keys)?.into_iter().zip(times.values().iter().copied()));
            timed.push(batch);
        }
        let timed: Vec<SelectedBatch> = timed.into_iter().map(SelectedBatch::from).collect();
        let ids = self.rows.apply(&timed)?.ids;
        let weights = timed.iter().flat_map(|batch| (0..batch.num_rows()).map(|i| batch.weight(i)));
        let mut all: Vec<(Place, Weight)> = places
            .iter()
            .zip(ids)
            .zip(weights)
            .map(|(((key, time), id), weight)| ((*key, *time, id), weight))
            .collect();
        all.sort_unstable();
        let mut changes: Vec<Change> = Vec::with_capacity(all.len());
        for same in all.chunk_by(|a, b| a.0 == b.0) {
            let (place, net) = (same[0].0, same.iter().map(|(_, weight)| weight).sum::<Weight>());
            let after = self.rows.weight(place.2);
            if net != 0 {
                changes.push(Change { place, before: after - net, after });
            }
        }
        Ok((changes, places.into_iter().map(|(key, _)| key).collect()))
    }

    fn times(&self, batch: &SignedBatch) -> Result<TimestampMicrosecondArray> {
        let values = self.time.evaluate(&batch.rows)?;
        let time = values.first().ok_or_else(|| Error::internal("a session without a time"))?;
        let times = cast(time, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        Ok(times.as_primitive::<TimestampMicrosecondType>().clone())
    }

    /// Takes the rows of sessions out whose end the watermark has passed; their ids.
    fn close(
        &mut self,
        changes: &mut Vec<Change>,
        keys: &mut BTreeSet<u32>,
        touched: &mut Touched,
    ) -> Result<Vec<u32>> {
        let gone = self.spans.close(self.clock, touched)?;
        let ids: HashSet<u32> = gone.iter().map(|(_, _, id)| *id).collect();
        let mut known = HashSet::new();
        for change in changes.iter_mut().filter(|change| ids.contains(&change.place.2)) {
            known.insert(change.place.2);
            change.after = 0;
        }
        for place in gone {
            keys.insert(place.0);
            if !known.contains(&place.2) {
                changes.push(Change { place, before: self.rows.weight(place.2), after: 0 });
            }
        }
        Ok(ids.into_iter().collect())
    }

    fn shown(&self, id: u32, start: i64, session: &Session) -> Result<Shown> {
        let end = match self.ends {
            SessionEnd::Absent => None,
            SessionEnd::Last if session.bearer != id => None,
            SessionEnd::Each | SessionEnd::Last => Some(self.spans.end(session.last)?),
        };
        Ok((start, end))
    }

    /// What the rows that came and went say, and what others say now of another session.
    fn output(&self, changes: &[Change], touched: &Touched) -> Result<Output> {
        let mut output = Output::default();
        let lost = || Error::internal("a row is in no session");
        // Rows that follow one another are mostly of one session.
        let mut known: Option<(u32, i64, Session)> = None;
        for Change { place: (key, time, id), before, after } in changes {
            let old = match before {
                0 => None,
                _ => {
                    let (start, session) =
                        touched.before(*key, *time).or_else(|| self.spans.at(*key, *time)).ok_or_else(lost)?;
                    Some(self.shown(*id, start, &session)?)
                }
            };
            let new = match after {
                0 => None,
                _ => {
                    let is_in = |(of, start, session): &(u32, i64, Session)| {
                        of == key && start <= time && *time <= session.last
                    };
                    let (start, session) = match known.filter(is_in) {
                        Some((_, start, session)) => (start, session),
                        None => self.spans.at(*key, *time).ok_or_else(lost)?,
                    };
                    known = Some((*key, start, session));
                    Some(self.shown(*id, start, &session)?)
                }
            };
            match (old, new) {
                (Some(old), Some(new)) if old == new => output.push(*id, new, after - before),
                (old, new) => {
                    old.into_iter().for_each(|old| output.push(*id, old, -before));
                    new.into_iter().for_each(|new| output.push(*id, new, *after));
                }
            }
        }
        let changed: HashSet<u32> = changes.iter().map(|change| change.place.2).collect();
        for (key, (start, old), (now, new)) in touched.overlaps() {
            let same = match self.ends {
                SessionEnd::Each => (start, old.last) == (now, new.last),
                SessionEnd::Absent | SessionEnd::Last => start == now,
            };
            let range = start.max(now)..=old.last.min(new.last);
            let rows: Vec<u32> = match (same, self.ends) {
                (false, _) => self.spans.rows(key, range).collect(),
                (true, SessionEnd::Last) => {
                    let bearers = [old, new].into_iter().filter(|session| range.contains(&session.last));
                    let mut bearers: Vec<u32> = bearers.map(|session| session.bearer).collect();
                    bearers.dedup();
                    bearers
                }
                (true, _) => vec![],
            };
            for id in rows.into_iter().filter(|id| !changed.contains(id)) {
                let (was, is) = (self.shown(id, start, &old)?, self.shown(id, now, &new)?);
                if was != is {
                    output.push(id, was, -self.rows.weight(id));
                    output.push(id, is, self.rows.weight(id));
                }
            }
        }
        Ok(output)
    }

    fn batch(&self, output: Output) -> Result<Vec<SignedBatch>> {
        if output.ids.is_empty() {
            return Ok(vec![]);
        }
        let mut columns = self.rows.columns(&output.ids, &(0..self.width).collect::<Vec<_>>())?;
        let utc = |times: TimestampMicrosecondArray| Arc::new(times.with_timezone("UTC")) as ArrayRef;
        columns.push(utc(output.starts.into()));
        if self.ends != SessionEnd::Absent {
            columns.push(utc(output.ends.into()));
        }
        let rows = eval::rows(&self.schema, columns, output.weights.len())?;
        let batch = SignedBatch::new(rows, Int64Array::from(output.weights))?;
        Ok(if batch.is_empty() { vec![] } else { vec![batch] })
    }
}

impl Shard for Sessions {
    fn step(&mut self, mut inputs: Vec<Vec<SelectedBatch>>, _: bool) -> Result<Vec<SignedBatch>> {
        let (mut changes, mut keys) = self.changes(&materialized(inputs.pop())?)?;
        let mut touched = Touched::default();
        self.insert(&changes, &mut touched)?;
        for change in changes.iter().filter(|change| change.after == 0) {
            self.spans.remove(change.place, &mut touched)?;
        }
        let closed = match self.closes.is_some() {
            true => self.close(&mut changes, &mut keys, &mut touched)?,
            false => vec![],
        };
        let output = self.batch(self.output(&changes, &touched)?)?;
        closed.into_iter().for_each(|id| self.rows.remove(id));
        self.rows.sweep()?;
        for key in keys {
            if !self.spans.has(key) {
                self.keys.remove(key);
            }
        }
        Ok(output)
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        self.keys.save(out);
        out.words("session.clock", [self.clock]);
        self.spans.save(out);
        self.rows.save(out)
    }

    fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        self.keys = GroupIndex::restore(from)?;
        self.clock = from.exactly::<i64>("session.clock", 1)?.first().copied().unwrap_or(i64::MIN);
        self.spans.restore(from)?;
        self.rows.restore(from)?;
        match self.spans.len() == self.rows.len() {
            true => Ok(()),
            false => Err(Error::internal("stored rows are not those of the sessions")),
        }
    }

    fn state_rows(&self) -> usize {
        self.rows.len()
    }

    fn state_bytes(&self) -> usize {
        self.keys.heap_size() + self.rows.heap_size() + self.spans.heap_size()
    }
}

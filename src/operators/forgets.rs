//! What an operator has forgotten: the groups, or the rows of partitions, of time buckets behind the watermark, and nothing of them is kept.
//!
//! A bucket is a number that rises with the event time of a table (`plan::forgetting`), so those that ended are all before one number, `end`, and their rows
//! before one instant, the `mark`. Only rows before the mark can belong to a forgotten bucket. When such rows are about to come (or to go),
//! [`Forgets::touched`] names their buckets and [`Forgets::spans`] where in time all rows of these lie: the rows that the table had until then are
//! taken in first, after which the operator is what it would be if it had never forgotten. The buckets stay until the next time.
//!
//! Of sessions the number is the time from which on rows can belong to one that has not ended; [`Recall`] says what is read of them.
//!
//! Going through all groups is worth it when many are there: it is done when the state has doubled since the last time. And rows that come in any
//! order, as in a first load, would have it read everything again and again: nothing is forgotten before as many rows have come as were read
//! again since the last time. So reading again never costs more than all the rows that came.

use arrow::array::{Array, ArrayRef, BooleanArray, Date32Array, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::eval::{Exprs, instants};
use super::session::recall::Recall;
use crate::error::{Error, Result};
use crate::plan::incremental::Bucket;
use crate::state::{GroupIndex, StateReader, StateWriter};
use crate::types::SignedBatch;

/// Rows of state that may always stay. Tests hardly have any.
const LEAST: usize = if cfg!(test) { 2 } else { 4_096 };
/// How many rows may be read again for each that comes. Tests are to forget as often as possible.
const AGAIN: u64 = if cfg!(test) { 8 } else { 1 };
/// Buckets whose spans of time are told apart.
const APART: usize = 16;
/// µs.
const DAY: i64 = 86_400_000_000;

/// State by key that can do without some keys.
pub(super) trait Forgetting {
    /// Takes inserted rows in that were given out before: with others of their keys, or alone.
    fn remember(&mut self, rows: &[SignedBatch]) -> Result<()>;
    /// Forgets all keys but those that stay. The room of these is no larger than they need.
    fn forget(&mut self, stays: &Stays<'_>) -> Result<()>;
}

/// For each of some keys, given by their columns, whether it stays.
pub(super) type Stays<'a> = dyn Fn(&[ArrayRef]) -> Result<Vec<bool>> + 'a;

/// Those stay whose column `key` is no instant before `end` (µs), NULLs among them.
pub(super) fn from(key: usize, end: i64) -> impl Fn(&[ArrayRef]) -> Result<Vec<bool>> {
    move |columns| {
        let times = instants(columns.get(key).ok_or_else(|| Error::internal("a bucket is no key"))?)?;
        Ok(times.iter().map(|time| time.is_none_or(|time| time >= end)).collect())
    }
}

/// The ids of the keys that stay, unless all do. `decode`: the columns of some keys.
pub(super) fn kept(
    keys: &GroupIndex,
    decode: impl Fn(&[u32]) -> Result<Vec<ArrayRef>>,
    stays: &Stays<'_>,
) -> Result<Option<Vec<u32>>> {
    let all = keys.ids();
    let mut kept = Vec::with_capacity(all.len());
    // So many are decoded at once.
    for ids in all.chunks(8_192) {
        let stay = stays(&decode(ids)?)?;
        kept.extend(ids.iter().zip(stay).filter(|(_, stays)| *stays).map(|(id, _)| *id));
    }
    Ok((kept.len() < all.len()).then_some(kept))
}

/// What a circuit has forgotten and a change needs.
#[derive(Debug, Clone)]
pub struct Needed {
    /// Which of the operators that forget.
    pub(super) node: usize,
    /// The table it is made of.
    pub slot: usize,
    /// The columns that are wanted, as indices into the relation's schema, in this order.
    pub columns: Vec<usize>,
    /// The column of event time, likewise.
    pub time: usize,
    /// All rows whose time (µs) lies in one of these spans are wanted, ends excluded; they do not overlap.
    pub spans: Vec<(i64, i64)>,
    pub(super) buckets: BTreeSet<i64>,
}

pub(super) struct Forgets {
    pub bucket: Bucket,
    /// The bucket of each row of the operator's input.
    key: Exprs,
    /// The first bucket and the last that a row of some time lies in.
    ends: Exprs,
    schema: SchemaRef,
    /// The watermark up to which groups were forgotten, µs.
    mark: i64,
    /// Buckets before this one were; it is the first one of the mark.
    end: i64,
    /// Those that were read again since.
    remembered: BTreeSet<i64>,
    /// Rows of state that were left the last time.
    left: usize,
    /// Rows that came since then, and that were read again.
    pub came: u64,
    pub again: u64,
    /// How often groups were forgotten, and how many buckets were read again.
    pub counts: (u64, u64),
    /// Of sessions.
    pub sessions: Option<Box<Recall>>,
}

impl Forgets {
    /// `keys` over `input` are those of the operator.
    pub fn new(bucket: &Bucket, keys: &[Expr], input: &DFSchema, session: &SessionState) -> Result<Self> {
        let key = keys.get(bucket.key).ok_or_else(|| Error::internal("a bucket is no key"))?;
        let schema = bucket.time_schema();
        let time = DFSchema::try_from(schema.as_ref().clone())?;
        Ok(Forgets {
            key: Exprs::new([key], input, session)?,
            ends: Exprs::new([&bucket.low, &bucket.high], &time, session)?,
            bucket: bucket.clone(),
            schema,
            mark: i64::MIN,
            end: i64::MIN,
            remembered: BTreeSet::new(),
            left: 0,
            came: 0,
            again: 0,
            counts: (0, 0),
            sessions: None,
        })
    }

    /// Of the changes of all inputs the rows that may belong to a forgotten bucket, in the columns that are read.
    pub fn late(&self, inputs: &[Vec<SignedBatch>]) -> Result<Vec<SignedBatch>> {
        let mut late = Vec::new();
        for batch in inputs.get(self.bucket.slot).into_iter().flatten().filter(|_| self.mark > i64::MIN) {
            let times = instants(batch.rows.column(self.bucket.time))?;
            let is_late = |i: &u64| times.is_valid(*i as usize) && times.value(*i as usize) < self.mark;
            let rows: Vec<u64> = (0..times.len() as u64).filter(is_late).collect();
            if !rows.is_empty() {
                let taken = batch.take(&UInt64Array::from(rows))?;
                late.push(taken.with_rows(taken.rows.project(&self.bucket.columns)?));
            }
        }
        Ok(late)
    }

    /// The forgotten buckets among those of `rows`, which are of the operator's input.
    pub fn touched(&self, rows: &[SignedBatch]) -> Result<BTreeSet<i64>> {
        let mut touched = BTreeSet::new();
        for batch in rows {
            let buckets = self.buckets(&batch.rows)?;
            let forgotten = |bucket: &i64| *bucket < self.end && !self.remembered.contains(bucket);
            touched.extend(buckets.iter().flatten().filter(forgotten));
        }
        Ok(touched)
    }

    fn buckets(&self, rows: &RecordBatch) -> Result<TimestampMicrosecondArray> {
        let key = self.key.evaluate(rows)?.pop().ok_or_else(|| Error::internal("a bucket is no key"))?;
        instants(&key)
    }

    /// What is needed of the table to have `buckets` again.
    pub fn needed(&self, node: usize, buckets: BTreeSet<i64>) -> Needed {
        self.needed_within(node, self.spans(&buckets), buckets)
    }

    fn needed_within(&self, node: usize, spans: Vec<(i64, i64)>, buckets: BTreeSet<i64>) -> Needed {
        let Bucket { slot, columns, time, .. } = &self.bucket;
        Needed { node, slot: *slot, columns: columns.clone(), time: *time, spans, buckets }
    }

    /// Where buckets and sessions were forgotten: those before this one, and sessions that ended until then.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// What is needed of the table to have sessions again, whose rows lie in `spans` of their own time.
    pub fn needed_of_sessions(&self, node: usize, spans: &[(i64, i64)]) -> Needed {
        // Sessions from the mark on are there.
        let instant = |bucket: i64| self.first(|_, high| high >= bucket.min(self.end)).unwrap_or(i64::MIN);
        let within = match (spans.first(), spans.last()) {
            (Some(first), Some(last)) if spans.len() > APART => vec![(instant(first.0), instant(last.1))],
            _ => spans.iter().map(|(from, until)| (instant(*from), instant(*until))).collect(),
        };
        self.needed_within(node, within, BTreeSet::new())
    }

    /// A step with so many rows begins.
    pub fn steps(&mut self, rows: usize) -> Result<()> {
        self.came += rows as u64;
        match &mut self.sessions {
            Some(recall) if recall.is_reading() => {
                Err(Error::internal("sessions that a step needs were not read again"))
            }
            Some(recall) => {
                recall.stepped();
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Where in time the rows of `buckets` lie, and others perhaps.
    fn spans(&self, buckets: &BTreeSet<i64>) -> Vec<(i64, i64)> {
        let span = |first: i64, last: i64| {
            let from = self.first(|_, high| high >= first).unwrap_or(i64::MIN);
            (from, self.first(|low, _| low > last).unwrap_or(self.mark))
        };
        let (Some(first), Some(last)) = (buckets.first(), buckets.last()) else { return vec![] };
        if buckets.len() > APART {
            return vec![span(*first, *last)];
        }
        let mut spans: Vec<(i64, i64)> = Vec::new();
        // The later bucket has the later span.
        for (from, until) in buckets.iter().map(|bucket| span(*bucket, *bucket)) {
            match spans.last_mut().filter(|before| from <= before.1) {
                Some(before) => before.1 = before.1.max(until),
                None => spans.push((from, until)),
            }
        }
        spans
    }

    /// The first instant whose buckets are so, as all later ones are, those of the mark among them; None where the calendar ends before it.
    fn first(&self, are: impl Fn(i64, i64) -> bool) -> Option<i64> {
        let are = |time: i64| self.ends_at(time).map(|(low, high)| are(low, high));
        let (mut yes, mut step) = (self.mark, 1_000_000i64);
        let mut no = loop {
            let before = yes.checked_sub(step)?;
            if !are(before)? {
                break before;
            }
            (yes, step) = (before, step.saturating_mul(2));
        };
        while yes - no > 1 {
            let middle = no + (yes - no) / 2;
            *(if are(middle)? { &mut yes } else { &mut no }) = middle;
        }
        Some(yes)
    }

    /// The first bucket and the last of a row of this time.
    fn ends_at(&self, time: i64) -> Option<(i64, i64)> {
        let column: ArrayRef = match self.bucket.field.data_type() {
            DataType::Date32 => Arc::new(Date32Array::from(vec![i32::try_from(time.div_euclid(DAY)).ok()?])),
            DataType::Timestamp(_, zone) => {
                Arc::new(TimestampMicrosecondArray::from(vec![time]).with_timezone_opt(zone.clone()))
            }
            _ => return None,
        };
        let row = RecordBatch::try_new(Arc::clone(&self.schema), vec![column]).ok()?;
        let ends = self.ends.evaluate(&row).ok()?;
        let end = |i: usize| {
            let end = instants(ends.get(i)?).ok()?;
            end.is_valid(0).then(|| end.value(0))
        };
        Some((end(0)?, end(1)?))
    }

    /// Rows of the operator's input that lie in `buckets`.
    pub fn only(&self, rows: Vec<SignedBatch>, buckets: &BTreeSet<i64>) -> Result<Vec<SignedBatch>> {
        let only = |batch: SignedBatch| {
            let wanted = self.buckets(&batch.rows)?;
            let wanted: BooleanArray =
                wanted.iter().map(|bucket| Some(bucket.is_some_and(|bucket| buckets.contains(&bucket)))).collect();
            batch.filter(&wanted)
        };
        rows.into_iter().map(only).collect()
    }

    /// These buckets are known again.
    pub fn remembered(&mut self, buckets: &BTreeSet<i64>) {
        self.remembered.extend(buckets);
        self.counts.1 += buckets.len() as u64;
    }

    /// Which buckets to forget now: those before this one. `rows`: how much state there is.
    pub fn due(&self, watermark: i64, rows: usize) -> Option<i64> {
        let end = self.ends_at(watermark)?.0.max(self.end);
        let has_some = end > self.end || !self.remembered.is_empty();
        let is_worth = rows >= 2 * self.left + LEAST && self.came.saturating_mul(AGAIN) >= self.again;
        (has_some && is_worth).then_some(end)
    }

    /// Buckets before `end` were forgotten, and so many rows of state are left.
    pub fn forgot(&mut self, watermark: i64, end: i64, left: usize) {
        if end > self.end {
            (self.mark, self.end) = (watermark, end);
        }
        self.remembered.clear();
        (self.left, self.came, self.again) = (left, 0, 0);
        self.counts.0 += 1;
    }

    pub fn save(&self, out: &mut StateWriter) {
        out.words("forgotten.mark", [self.mark]);
        out.words("forgotten.remembered", self.remembered.iter().copied());
    }

    /// `rows`: how much state there is.
    pub fn restore(&mut self, from: &mut StateReader, rows: usize) -> Result<()> {
        self.mark = from.exactly::<i64>("forgotten.mark", 1)?.first().copied().unwrap_or(i64::MIN);
        self.remembered = from.words::<i64>("forgotten.remembered")?.into_iter().collect();
        self.left = rows;
        self.end = match self.mark {
            i64::MIN => i64::MIN,
            mark => {
                let unknown = || Error::internal("stored state was forgotten up to no bucket");
                self.ends_at(mark).ok_or_else(unknown)?.0
            }
        };
        Ok(())
    }
}

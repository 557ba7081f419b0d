//! Rows that come and go with the clock: WHERE conditions that compare a row's time with `now()`.
//!
//! For each row the conditions hold from some instant on until another, whatever else happens. So a row is given out with its
//! weight when both it and the clock are there, and retracted when its time is over; one whose time was over when it came is never
//! given out, nor is its retraction. What has an instant still to come waits in the order of those instants.
//!
//! The clock is an input: it stands still within a step and never goes backwards.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType};

use super::eval::{self, Exprs};
use crate::error::{Error, Result};
use crate::plan::incremental::{Bound, TemporalRole};
use crate::state::{Multiset, Presence, RowCodec, StateReader, StateWriter};
use crate::types::SignedBatch;

/// Columns before the row's own: its next instant, and when its time is over.
const INSTANTS: usize = 2;

pub(super) struct Temporal {
    bounds: Vec<Bound>,
    /// One per bound.
    exprs: Exprs,
    codec: RowCodec,
    schema: SchemaRef,
    /// Rows with an instant to come, those whose is nearest first.
    waiting: Multiset,
    /// µs.
    clock: i64,
    role: TemporalRole,
}

impl Temporal {
    pub fn new(bounds: Vec<Bound>, exprs: Exprs, schema: SchemaRef, role: TemporalRole) -> Result<Self> {
        let instants = [DataType::Int64, DataType::Int64].into_iter();
        let codec = RowCodec::new(instants.chain(schema.fields().iter().map(|f| f.data_type().clone())))?;
        // No watermark stands before every row.
        let clock = if role == TemporalRole::Filter { 0 } else { i64::MIN };
        Ok(Temporal { bounds, exprs, codec, schema, waiting: Multiset::default(), clock, role })
    }

    /// The clock of the steps that follow, µs. One that is earlier than before changes nothing.
    pub fn set_clock(&mut self, now: i64) {
        self.clock = self.clock.max(now);
    }

    /// Whether it stands above a join of streams.
    pub fn settles(&self) -> bool {
        self.role == TemporalRole::Settle
    }

    /// When the next row comes or goes, µs.
    pub fn next_change(&self) -> Result<Option<i64>> {
        let Some(first) = self.waiting.first() else { return Ok(None) };
        let columns = self.codec.decode([first])?;
        Ok(columns.first().map(|next| next.as_primitive::<Int64Type>().value(0)))
    }

    /// When the last row that waits comes or goes, µs.
    pub fn last_change(&self) -> Result<Option<i64>> {
        let Some(last) = self.waiting.last() else { return Ok(None) };
        let columns = self.codec.decode([last])?;
        Ok(columns.first().map(|next| next.as_primitive::<Int64Type>().value(0)))
    }

    pub fn step(&mut self, input: Vec<SignedBatch>) -> Result<Vec<SignedBatch>> {
        let mut output = self.advance()?;
        for retracting in [false, true] {
            for batch in &input {
                if retracting && !batch.has_retractions() {
                    continue;
                }
                output.extend(self.apply(batch, retracting)?);
            }
        }
        Ok(output)
    }

    /// What comes and goes because the clock has moved.
    fn advance(&mut self) -> Result<Vec<SignedBatch>> {
        if self.next_change()?.is_none_or(|next| next > self.clock) {
            return Ok(vec![]);
        }
        // Encoded instants sort as numbers do: everything up to the last one that is due.
        let mark: ArrayRef = std::sync::Arc::new(Int64Array::from(vec![self.clock]));
        let mark = RowCodec::new([DataType::Int64])?.encode(&[mark], 1)?;
        let is_due = |value: &[u8]| value.get(..mark.row(0).len()).is_some_and(|next| next <= mark.row(0));
        let due: Vec<(Box<[u8]>, i64)> =
            self.waiting.iter().take_while(|(v, _)| is_due(v)).map(|(v, w)| (Box::from(v), w)).collect();
        let mut columns = self.codec.decode(due.iter().map(|(value, _)| &**value))?;
        let rows = columns.split_off(INSTANTS);
        let (next, until) = (columns[0].as_primitive::<Int64Type>(), columns[1].as_primitive::<Int64Type>());
        let mut weights = Vec::with_capacity(due.len());
        let mut stays = Vec::new();
        for (i, (value, weight)) in due.iter().enumerate() {
            self.wait(value, -weight)?;
            let over = until.value(i) <= self.clock;
            weights.push(match (next.value(i) == until.value(i), over) {
                // Its time is over.
                (true, _) => -weight,
                // It came and went since the last step.
                (false, true) => 0,
                (false, false) => {
                    if until.value(i) < i64::MAX {
                        stays.push((i, *weight));
                    }
                    *weight
                }
            });
        }
        let instants = [until.clone(), until.clone()];
        self.keep(&instants, &rows, &stays)?;
        let batch = eval::rows(&self.schema, rows, weights.len())?;
        let batch = SignedBatch::new(batch, weights.into())?;
        Ok(if batch.is_empty() { vec![] } else { vec![batch] })
    }

    /// Insertions, or retractions, of a change.
    fn apply(&mut self, batch: &SignedBatch, retracting: bool) -> Result<Option<SignedBatch>> {
        let spans = self.spans(batch)?;
        let mut weights = vec![0; batch.num_rows()];
        let mut waits = Vec::new();
        let (mut next, mut ends) = (vec![0; batch.num_rows()], vec![0; batch.num_rows()]);
        for (i, (from, until)) in spans.into_iter().enumerate() {
            let weight = batch.weight(i);
            if (weight < 0) != retracting || until <= self.clock || from >= until {
                continue;
            }
            let visible = from <= self.clock;
            // What was written stays so when its rows are forgotten.
            if visible && matches!(self.role, TemporalRole::Close | TemporalRole::Settle) {
                if from == i64::MIN && weight > 0 {
                    weights[i] = weight;
                }
                continue;
            }
            if visible {
                weights[i] = weight;
            }
            if !visible || until < i64::MAX {
                (next[i], ends[i]) = (if visible { until } else { from }, until);
                waits.push((i, weight));
            }
        }
        self.keep(&[next.into(), ends.into()], batch.rows.columns(), &waits)?;
        let batch = SignedBatch::new(
            eval::rows(&self.schema, batch.rows.columns().to_vec(), batch.num_rows())?,
            weights.into(),
        )?;
        Ok((!batch.is_empty()).then_some(batch))
    }

    /// From when until when all conditions hold for each row.
    fn spans(&self, batch: &SignedBatch) -> Result<Vec<(i64, i64)>> {
        let mut spans = vec![(i64::MIN, i64::MAX); batch.num_rows()];
        for (bound, values) in self.bounds.iter().zip(self.exprs.evaluate(&batch.rows)?) {
            let values = cast(&values, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
            let values = values.as_primitive::<TimestampMicrosecondType>();
            for (i, span) in spans.iter_mut().enumerate() {
                let (from, until) = match values.is_valid(i) {
                    true => bound.span(values.value(i)),
                    false if self.role == TemporalRole::Settle => (i64::MIN, i64::MAX),
                    // NULL never holds.
                    false => (i64::MAX, i64::MIN),
                };
                *span = (span.0.max(from), span.1.min(until));
            }
        }
        Ok(spans)
    }

    /// Rows `picked`, with their weights, wait for the instant in the first of `instants`.
    fn keep(&mut self, instants: &[Int64Array; 2], rows: &[ArrayRef], picked: &[(usize, i64)]) -> Result<()> {
        if picked.is_empty() {
            return Ok(());
        }
        let [next, until] = instants.clone();
        let mut columns: Vec<ArrayRef> = vec![std::sync::Arc::new(next), std::sync::Arc::new(until)];
        columns.extend_from_slice(rows);
        let encoded = self.codec.encode(&columns, columns[0].len())?;
        picked.iter().try_for_each(|(i, weight)| self.wait(encoded.row(*i), *weight))
    }

    fn wait(&mut self, value: &[u8], weight: i64) -> Result<()> {
        match self.waiting.add(value, weight) {
            Presence::Vanished => Ok(()),
            Presence::Appeared if weight > 0 => Ok(()),
            Presence::Stays(left) if left > 0 => Ok(()),
            _ => Err(Error::diverged("a row that waits for the clock is retracted and is not there")),
        }
    }

    pub fn save(&mut self, out: &mut StateWriter) {
        out.words("temporal.clock", [self.clock as u64]);
        out.multisets("temporal", std::slice::from_ref(&self.waiting));
    }

    pub fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        self.clock = from.exactly::<u64>("temporal.clock", 1)?.first().copied().unwrap_or(0) as i64;
        self.waiting = from.multisets("temporal", 1)?.pop().unwrap_or_default();
        Ok(())
    }

    pub fn state_rows(&self) -> usize {
        self.waiting.len()
    }

    pub fn state_bytes(&self) -> usize {
        self.waiting.heap_size()
    }
}

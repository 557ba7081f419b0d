//! Watermarks: how far event time has come in what a table is made of.
//!
//! A table that reads a source with a watermark notes the latest event time of each partition, one with a watermark of its own that of its
//! rows; both stand in the commit that holds the rows (`txn`). The watermark of a stream is the earliest of its partitions' latest times,
//! less the delay. A partition that has been silent for `idle_timeout`, or was read to its end, does not hold it back.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use std::collections::BTreeMap;

use super::compute::EpochState;
use super::pipeline::{Node, Pipeline, Upstream, cell_name};
use super::positions::{closed_app, partition_watermark_app, watermark_app};
use crate::error::Result;
use crate::project::Watermark;
use crate::types::SignedBatch;

/// The latest event time of a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// µs.
    pub latest: i64,
    /// When it last had rows, by the machine's clock: µs.
    pub at: i64,
}

/// What a table's commits know.
pub(super) fn known(consumed: &BTreeMap<String, i64>, table: &str, now: i64) -> BTreeMap<String, Seen> {
    let own = watermark_app(table);
    let partitions = format!("{own}/");
    let is_one = |app: &str| app == own || app.starts_with(&partitions);
    let apps = consumed.iter().filter(|(app, _)| is_one(app));
    apps.map(|(app, latest)| (app.clone(), Seen { latest: *latest, at: now })).collect()
}

impl Pipeline {
    /// Notes what this epoch's rows of model `index` say, for its commit; `closed`: up to where its windows are written.
    pub(super) fn note_watermarks(&mut self, index: usize, state: &EpochState, closed: Option<i64>) -> Result<()> {
        let node = &self.nodes[index];
        let Some(main) = &node.main else { return Ok(()) };
        let table = cell_name(main)?;
        let mut latest: Vec<(String, i64)> = Vec::new();
        if let Some(watermark) = &node.compiled.model.config.watermark {
            let times = state.deltas[index].iter().map(|batch| latest_time(batch, &watermark.column));
            latest.extend(times.collect::<Result<Vec<_>>>()?.into_iter().flatten().map(|t| (watermark_app(&table), t)));
        } else if let Some((source, watermark)) = self.marked_source(node) {
            for batch in state.sources.get(&source).into_iter().flatten() {
                if let Some(time) = latest_time(&batch.rows, &watermark.column)? {
                    let app = partition_watermark_app(&table, &self.sources[source].name, &batch.partition);
                    latest.push((app, time));
                }
            }
        }
        let now = self.env.now_micros();
        let node = &mut self.nodes[index];
        let Some(main) = &mut node.main else { return Ok(()) };
        for (app, time) in latest {
            let seen = node.seen.entry(app.clone()).or_insert(Seen { latest: time, at: now });
            *seen = Seen { latest: seen.latest.max(time), at: now };
            main.pending.insert(app, seen.latest);
        }
        if let Some(closed) = closed {
            main.pending.insert(closed_app(&table), closed);
        }
        Ok(())
    }

    /// The source with a watermark that a streaming table reads.
    fn marked_source<'a>(&'a self, node: &'a Node) -> Option<(usize, &'a Watermark)> {
        match node.upstreams.get(node.compiled.stream?)? {
            Upstream::Source(source) => Some((*source, self.sources[*source].table.watermark.as_ref()?)),
            _ => None,
        }
    }

    /// How far event time has come in the stream of model `index`, µs; of two streams the earlier time, but for one that is silent.
    pub(super) fn stream_watermark(&self, index: usize) -> Option<i64> {
        let node = &self.nodes[index];
        let of_stream = |slot: usize| match node.upstreams.get(slot)? {
            Upstream::Node(up) => Some((self.watermark(*up)?, self.is_silent(*up))),
            _ => None,
        };
        let first = of_stream(node.compiled.stream?)?;
        let Some(second) = node.compiled.joined_stream.map(of_stream) else { return Some(first.0) };
        let second = second?;
        Some(match (first.1, second.1) {
            (true, false) => second.0,
            (false, true) => first.0,
            _ => first.0.min(second.0),
        })
    }

    /// Whether rows of a model come or go by now although nothing has arrived.
    pub(super) fn is_time_due(&self) -> Result<bool> {
        let now = self.env.now_micros().max(self.clock);
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.runs()) {
            let now = match (node.is_timed(), node.compiled.model.config.emit_on_close) {
                (true, _) => now,
                (_, true) => self.stream_watermark(index).unwrap_or(i64::MIN),
                _ => continue,
            };
            if let Some(circuit) = &node.circuit
                && circuit.next_change()?.is_some_and(|next| next <= now)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether all that model `index` is made of is silent. What was read to its end is not: more may come in the next run.
    fn is_silent(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        let Some(watermark) = self.own_watermark(node) else {
            return match node.compiled.stream.and_then(|slot| node.upstreams.get(slot)) {
                Some(Upstream::Node(up)) => self.is_silent(*up),
                _ => false,
            };
        };
        let now = self.env.now_micros();
        self.ended.is_none() && node.seen.values().all(|seen| now - seen.at > micros(watermark.idle_timeout))
    }

    fn own_watermark<'a>(&'a self, node: &'a Node) -> Option<&'a Watermark> {
        node.compiled.model.config.watermark.as_ref().or_else(|| Some(self.marked_source(node)?.1))
    }

    /// How far event time has come in the rows of model `index`, µs.
    pub(super) fn watermark(&self, index: usize) -> Option<i64> {
        let node = &self.nodes[index];
        let Some(watermark) = self.own_watermark(node) else { return self.stream_watermark(index) };
        let now = self.env.now_micros();
        let is_active = |seen: &&Seen| self.ended.is_none() && now - seen.at <= micros(watermark.idle_timeout);
        let active = node.seen.values().filter(is_active).map(|seen| seen.latest).min();
        let latest = active.or_else(|| node.seen.values().map(|seen| seen.latest).max())?;
        Some(latest.saturating_sub(micros(watermark.delay)))
    }
}

fn micros(length: std::time::Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX)
}

/// The latest time in a column of inserted rows, µs.
fn latest_time(batch: &SignedBatch, column: &str) -> Result<Option<i64>> {
    let schema = batch.schema();
    let Some(at) = schema.fields().iter().position(|f| f.name().eq_ignore_ascii_case(column)) else { return Ok(None) };
    let times = cast(batch.rows.column(at), &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    Ok((0..times.len()).filter(|i| times.is_valid(*i) && batch.weight(*i) > 0).map(|i| times.value(i)).max())
}

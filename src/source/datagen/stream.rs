//! A source over any stream of generated records: the same records at the same offsets at every start, so its position is
//! all it needs to go on where it stopped.

use arrow::array::{BinaryBuilder, Int64Builder, TimestampMicrosecondBuilder};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::env::Env;
use crate::error::{Error, Result};
use crate::types::{
    ChangeKind, PayloadsBuilder, Poll, PollLimit, Positions, RawChunk, Source, SourceBatch, SourcePartition,
};

/// One record of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawRecord {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub timestamp_micros: i64,
}

/// Records in a fixed order. A record's offset is its number in its partition.
pub(super) trait RecordStream: Send {
    fn next(&mut self) -> Option<RawRecord>;

    /// Whether it never ends.
    fn is_endless(&self) -> bool;
}

/// Records per second, from options.
pub(super) fn rate(options: &BTreeMap<String, Value>) -> Result<Option<f64>> {
    match options.get("rate") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(rate) if rate.is_finite() && rate > 0.0 => Ok(Some(rate)),
            _ => Err(Error::user("bad-option", format!("`rate` must be a number above 0, not {value}"))),
        },
    }
}

/// Turns raw records into the source's rows, with its metadata columns and its bad records set aside or kept.
pub(super) type Assemble = Box<dyn FnMut(&RawChunk, i64) -> Result<SourceBatch> + Send>;

/// What a [`StreamSource`] is made of.
pub(super) struct StreamSpec {
    /// Topic of its positions and records.
    pub topic: Arc<str>,
    pub schema: SchemaRef,
    /// Starts the stream anew.
    pub restart: Box<dyn Fn() -> Result<Box<dyn RecordStream>> + Send + Sync>,
    pub assemble: Assemble,
    /// Partitions it has, from 0.
    pub partitions: i32,
    /// Records per second; `None`: as fast as they are wanted.
    pub rate: Option<f64>,
    /// What the stream depends on; other options are another stream.
    pub identity: String,
}

/// A generated stream as a source.
pub(super) struct StreamSource {
    spec: StreamSpec,
    env: Env,
    stream: Option<Box<dyn RecordStream>>,
    /// Next offset of each partition.
    next: Vec<i64>,
    bounded: bool,
    /// A bounded read of an endless stream ends there.
    until: Option<Positions>,
    opened_at: i64,
    /// Records returned since it was opened.
    returned: u64,
}

impl StreamSource {
    pub fn new(spec: StreamSpec, env: Env) -> Self {
        let next = vec![0; spec.partitions as usize];
        StreamSource { spec, env, stream: None, next, bounded: false, until: None, opened_at: 0, returned: 0 }
    }

    fn partition(&self, partition: usize) -> SourcePartition {
        SourcePartition { topic: Arc::clone(&self.spec.topic), partition: partition as i32 }
    }

    /// How many records may be returned now; `u64::MAX` when nothing limits it.
    fn allowance(&self, endless: bool) -> u64 {
        match self.spec.rate {
            // Catching up with what is there: everything, but of an endless stream one second more.
            _ if self.bounded && !endless => u64::MAX,
            _ if self.bounded && self.until.is_some() => match self.is_behind() {
                true => u64::MAX,
                false => 0,
            },
            rate if self.bounded => (rate.unwrap_or(1000.0) as u64).max(1).saturating_sub(self.returned),
            Some(rate) => {
                let elapsed = (self.env.now_micros() - self.opened_at).max(0) as f64 / 1e6;
                ((elapsed * rate) as u64).saturating_sub(self.returned)
            }
            None => u64::MAX,
        }
    }

    /// Whether a record before the end that was asked for is still to come.
    fn is_behind(&self) -> bool {
        let until = |p: usize| self.until.as_ref().and_then(|u| u.get(&self.partition(p))).copied().unwrap_or(0);
        (0..self.next.len()).any(|p| self.next[p] < until(p))
    }

    /// Takes up to `most` records out of the stream, as one chunk per partition.
    fn take(&mut self, most: u64) -> Vec<RawChunk> {
        let Some(stream) = self.stream.as_mut() else { return Vec::new() };
        let mut builders: BTreeMap<i32, ChunkBuilder> = BTreeMap::new();
        for _ in 0..most {
            let Some(record) = stream.next() else {
                self.stream = None;
                break;
            };
            let Some(offset) = self.next.get_mut(record.partition as usize) else { continue };
            builders.entry(record.partition).or_default().push(&record, *offset);
            *offset += 1;
            self.returned += 1;
        }
        builders.into_iter().map(|(partition, builder)| builder.finish(&self.spec.topic, partition)).collect()
    }
}

#[async_trait]
impl Source for StreamSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn change_kind(&self) -> ChangeKind {
        ChangeKind::Append
    }

    async fn open(&mut self, from: &Positions, bounded: bool) -> Result<Positions> {
        let mut stream = (self.spec.restart)()?;
        let mut starts = Positions::new();
        let mut skip = vec![0; self.next.len()];
        for (partition, skipped) in skip.iter_mut().enumerate() {
            let key = self.partition(partition);
            let start = from.get(&key).copied().unwrap_or(0);
            self.next[partition] = start;
            *skipped = start;
            starts.insert(key, start);
        }
        if skip.iter().any(|n| *n > 0) {
            stream = Box::new(SkipTo { stream, skip });
        }
        self.stream = Some(stream);
        self.bounded = bounded;
        self.opened_at = self.env.now_micros();
        self.returned = 0;
        Ok(starts)
    }

    async fn poll(&mut self, limit: PollLimit) -> Result<Poll> {
        let Some(stream) = &self.stream else {
            return Ok(at_end(self.bounded, limit.wait).await);
        };
        let endless = stream.is_endless();
        let mut allowed = self.allowance(endless);
        if allowed == 0 {
            if self.bounded {
                return Ok(Poll::End);
            }
            // Long enough for one record, not longer than asked for. Nothing is taken yet: dropping this loses nothing.
            let one = Duration::from_secs_f64((1.0 / self.spec.rate.unwrap_or(1000.0)).clamp(0.001, 3600.0));
            tokio::time::sleep(one.min(limit.wait)).await;
            allowed = self.allowance(endless);
            if allowed == 0 {
                return Ok(Poll::Idle);
            }
        }
        let chunks = self.take(allowed.min(limit.max_rows.max(1) as u64));
        if chunks.is_empty() {
            return Ok(at_end(self.bounded, Duration::ZERO).await);
        }
        let now = self.env.now_micros();
        chunks.iter().map(|chunk| (self.spec.assemble)(chunk, now)).collect::<Result<Vec<_>>>().map(Poll::Batches)
    }

    fn ends(&self) -> Option<Positions> {
        match &self.stream {
            Some(stream) if stream.is_endless() => None,
            // Where it ends is known when it is there.
            _ => Some((0..self.next.len()).map(|p| (self.partition(p), i64::MAX)).collect()),
        }
    }

    fn read_until(&mut self, until: &Positions) {
        self.until = Some(until.clone());
    }

    async fn committed(&mut self, _positions: &Positions) -> Result<()> {
        Ok(())
    }

    async fn lag(&mut self) -> Result<Positions> {
        Ok(Positions::new())
    }

    fn identity(&self) -> Vec<(String, String)> {
        vec![("datagen".to_string(), self.spec.identity.clone())]
    }
}

/// What a stream that has ended answers.
async fn at_end(bounded: bool, wait: Duration) -> Poll {
    if bounded {
        return Poll::End;
    }
    tokio::time::sleep(wait).await;
    Poll::Idle
}

/// Leaves out the first records of each partition.
struct SkipTo {
    stream: Box<dyn RecordStream>,
    skip: Vec<i64>,
}

impl RecordStream for SkipTo {
    fn next(&mut self) -> Option<RawRecord> {
        loop {
            let record = self.stream.next()?;
            match self.skip.get_mut(record.partition as usize) {
                Some(left) if *left > 0 => *left -= 1,
                _ => return Some(record),
            }
        }
    }

    fn is_endless(&self) -> bool {
        self.stream.is_endless()
    }
}

/// Records of one partition becoming a chunk.
#[derive(Default)]
struct ChunkBuilder {
    values: PayloadsBuilder,
    keys: BinaryBuilder,
    keyed: bool,
    offsets: Int64Builder,
    timestamps: TimestampMicrosecondBuilder,
}

impl ChunkBuilder {
    fn push(&mut self, record: &RawRecord, offset: i64) {
        self.values.push(Some(&record.value));
        self.keys.append_option(record.key.as_deref());
        self.keyed |= record.key.is_some();
        self.offsets.append_value(offset);
        self.timestamps.append_value(record.timestamp_micros);
    }

    fn finish(mut self, topic: &Arc<str>, partition: i32) -> RawChunk {
        RawChunk {
            topic: Arc::clone(topic),
            partition,
            file: None,
            values: self.values.finish(),
            keys: self.keyed.then(|| self.keys.finish()),
            offsets: self.offsets.finish(),
            timestamps: self.timestamps.finish(),
            headers: None,
        }
    }
}

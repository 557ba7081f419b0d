//! Kafka topics as a source: the consumer's chunks through the decoder.

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::OpenContext;
use super::assemble::Assembler;
use super::schema::change_kind;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::kafka::{Consumer, ConsumerConfig, Delivery, Gap, OnLoss, StartAt, TopicChoice};
use crate::project::{Include, KafkaConfig, OnDataLoss, SourceTable, Start, Topics};
use crate::types::{
    ChangeKind, Poll, PollLimit, Positions, RawChunk, RejectKind, SignedBatch, Source, SourceBatch, SourcePartition,
    reject_schema,
};

/// A Kafka source.
pub(super) struct Kafka {
    table: Arc<SourceTable>,
    env: Env,
    consumer: Consumer,
    assembler: Assembler,
    /// What is left of chunks that were longer than a poll may be.
    rest: VecDeque<(RawChunk, i64)>,
    /// Position per partition after what polls have returned.
    returned: Positions,
    /// Found after rows that had to be returned first.
    failed: Option<Error>,
    bounded: bool,
}

/// What the table's settings mean to the consumer.
pub(super) fn consumer_config(table: &SourceTable, config: &KafkaConfig, context: &OpenContext) -> ConsumerConfig {
    ConsumerConfig {
        name: format!("{}.{}", table.source, table.name),
        properties: config.properties.clone(),
        group: format!("smelt-{}-{}", context.project, context.target),
        topics: match &config.topics {
            Topics::Named(names) => TopicChoice::Named(names.clone()),
            Topics::Pattern(pattern) => TopicChoice::Pattern(pattern.clone()),
        },
        start: match &config.start {
            Start::Earliest => StartAt::Earliest,
            Start::Latest => StartAt::Latest,
            Start::Timestamp(micros) => StartAt::Timestamp(*micros),
            Start::Offsets(offsets) => StartAt::Offsets(offsets.clone()),
        },
        on_data_loss: match config.on_data_loss {
            OnDataLoss::Fail => OnLoss::Fail,
            OnDataLoss::Skip => OnLoss::Skip,
        },
        headers: table.include.iter().any(|(include, _)| *include == Include::Headers),
    }
}

impl Kafka {
    pub(super) fn new(table: Arc<SourceTable>, config: &KafkaConfig, context: &OpenContext) -> Result<Self> {
        let consumer = Consumer::new(consumer_config(&table, config, context));
        Ok(Kafka {
            assembler: Assembler::new(Arc::clone(&table))?,
            consumer: consumer.map_err(|e| if e.span().is_none() { e.with_span(table.span.clone()) } else { e })?,
            env: context.env.clone(),
            table,
            rest: VecDeque::new(),
            returned: Positions::new(),
            failed: None,
            bounded: false,
        })
    }

    /// Rows of at most `most` records of the chunk; the others wait for the next poll.
    fn chunk(&mut self, chunk: RawChunk, next: i64, most: usize) -> Result<SourceBatch> {
        let most = most.max(1);
        let (chunk, next) = if chunk.len() > most {
            let head = slice(&chunk, 0, most);
            self.rest.push_front((slice(&chunk, most, chunk.len() - most), next));
            let next = head.offsets.value(most - 1) + 1;
            (head, next)
        } else {
            (chunk, next)
        };
        let mut batch = self.assembler.batch(&chunk, self.env.now_micros())?;
        batch.next = next;
        self.returned.insert(batch.partition.clone(), next);
        Ok(batch)
    }

    /// What a delivery says, added to `batches`.
    fn take(&mut self, delivery: Delivery, most: usize, batches: &mut Vec<SourceBatch>) -> Result<()> {
        match delivery {
            Delivery::Chunk { chunk, next } => batches.push(self.chunk(chunk, next, most)?),
            Delivery::End { partition, next } => {
                let waiting = self
                    .rest
                    .iter_mut()
                    .find(|(c, _)| c.topic == partition.topic && c.partition == partition.partition);
                if let Some((_, after)) = waiting {
                    *after = next.max(*after);
                } else if self.returned.get(&partition).is_none_or(|position| *position < next) {
                    // Markers at the end of a transaction: no rows, but the position moves past them.
                    self.returned.insert(partition.clone(), next);
                    match batches.iter_mut().rfind(|b| b.partition == partition) {
                        Some(batch) => batch.next = next,
                        None => batches.push(self.empty(partition, next)),
                    }
                }
            }
            Delivery::Gap(gap) => {
                let mut batch = self.empty(gap.partition.clone(), gap.to);
                batch.rejects = Some(gap_row(&gap)?);
                self.returned.insert(gap.partition, gap.to);
                batches.push(batch);
            }
        }
        Ok(())
    }

    fn empty(&self, partition: SourcePartition, next: i64) -> SourceBatch {
        SourceBatch {
            partition,
            next,
            rows: SignedBatch::empty(self.assembler.schema()),
            offsets: Int64Array::from(Vec::<i64>::new()),
            rejects: None,
        }
    }

    /// What is here already, up to the limit.
    fn gather(&mut self, first: Option<Delivery>, limit: PollLimit) -> Result<Vec<SourceBatch>> {
        let mut batches = Vec::new();
        let mut left = limit.max_rows.max(1);
        let mut first = first;
        loop {
            let before = batches.len();
            let step = if let Some(delivery) = first.take() {
                self.take(delivery, left, &mut batches)
            } else if let Some((chunk, next)) = self.rest.pop_front() {
                self.chunk(chunk, next, left).map(|batch| batches.push(batch))
            } else {
                match self.consumer.try_next() {
                    Some(delivery) => delivery.and_then(|delivery| self.take(delivery, left, &mut batches)),
                    None => return Ok(batches),
                }
            };
            if let Err(error) = step {
                if batches.is_empty() {
                    return Err(error);
                }
                // What was read before it is good: it goes first.
                self.failed = Some(error);
                return Ok(batches);
            }
            let rows: usize = batches[before..].iter().map(|b| b.rows.num_rows().max(1)).sum();
            left = left.saturating_sub(rows);
            if left == 0 {
                return Ok(batches);
            }
        }
    }
}

#[async_trait]
impl Source for Kafka {
    fn schema(&self) -> SchemaRef {
        self.assembler.schema()
    }

    fn change_kind(&self) -> ChangeKind {
        change_kind(&self.table)
    }

    async fn open(&mut self, from: &Positions, bounded: bool) -> Result<Positions> {
        self.rest.clear();
        self.failed = None;
        self.bounded = bounded;
        self.returned = self.consumer.open(from, bounded).await?;
        Ok(self.returned.clone())
    }

    async fn poll(&mut self, limit: PollLimit) -> Result<Poll> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let deadline = Instant::now() + limit.wait;
        loop {
            let first = if self.rest.is_empty() {
                if self.bounded && self.consumer.is_done() {
                    return Ok(Poll::End);
                }
                let left = deadline.saturating_duration_since(Instant::now());
                match tokio::time::timeout(left, self.consumer.next()).await {
                    Ok(delivery) => Some(delivery?),
                    Err(_) => return Ok(Poll::Idle),
                }
            } else {
                None
            };
            // No await from here to the return: dropping the future loses nothing.
            let batches = self.gather(first, limit)?;
            if !batches.is_empty() {
                return Ok(Poll::Batches(batches));
            }
        }
    }

    fn ends(&self) -> Option<Positions> {
        Some(self.consumer.ends().clone())
    }

    async fn committed(&mut self, positions: &Positions) -> Result<()> {
        self.consumer.commit(positions).await
    }

    async fn lag(&mut self) -> Result<Positions> {
        Ok(self.consumer.lag())
    }

    fn identity(&self) -> Vec<(String, String)> {
        self.consumer.identity().to_vec()
    }
}

/// Records `from..from + len`, without a copy.
fn slice(chunk: &RawChunk, from: usize, len: usize) -> RawChunk {
    RawChunk {
        topic: Arc::clone(&chunk.topic),
        partition: chunk.partition,
        file: chunk.file.clone(),
        values: chunk.values.slice(from, len),
        keys: chunk.keys.as_ref().map(|keys| keys.slice(from, len)),
        offsets: chunk.offsets.slice(from, len),
        timestamps: chunk.timestamps.slice(from, len),
        headers: chunk.headers.as_ref().map(|headers| headers.slice(from, len)),
    }
}

/// Lost data as a dead letter: it is committed with the position that leaves the gap behind.
fn gap_row(gap: &Gap) -> Result<(RecordBatch, Int64Array)> {
    let schema = reject_schema();
    let columns = schema
        .fields()
        .iter()
        .map(|field| -> ArrayRef {
            match field.name().as_str() {
                "kind" => Arc::new(StringArray::from(vec![RejectKind::DeadLetter.name()])),
                "reason" => Arc::new(StringArray::from(vec![format!("data lost in {}", gap.reason)])),
                "topic" => Arc::new(StringArray::from(vec![gap.partition.topic.as_ref()])),
                "partition" => Arc::new(Int32Array::from(vec![gap.partition.partition])),
                "offset" => Arc::new(Int64Array::from(vec![gap.from])),
                _ => new_null_array(field.data_type(), 1),
            }
        })
        .collect();
    Ok((RecordBatch::try_new(schema, columns)?, Int64Array::from(vec![gap.from])))
}

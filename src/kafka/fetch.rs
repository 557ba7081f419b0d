//! The thread that takes records out of librdkafka.

use parking_lot::Mutex;
use rdkafka::Offset;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as std_mpsc;
use std::time::Duration;
use tokio::sync::mpsc;

use super::chunk::ChunkBuilder;
use super::config::ConsumerConfig;
use super::consumer::{Delivery, Gap, Handed};
use super::discover::{Begin, Client, Discovery};
use super::native::{BatchQueue, Logs, Message};
use crate::error::{Error, Result};
use crate::types::{Positions, SourcePartition};

/// Records taken out of librdkafka's queue at once.
pub(super) const BATCH: usize = 4096;
/// A hand-over ends when it holds so many records or bytes.
const MAX_RECORDS: usize = 65_536;
const MAX_BYTES: usize = 8 << 20;
/// How long to wait for the first record; a stop or a new partition is noticed after it.
const WAIT: Duration = Duration::from_millis(100);
/// How long to go on gathering when the reader is busy.
const GATHER: Duration = Duration::from_millis(5);

/// State of the thread.
pub(super) struct Fetch {
    pub client: Arc<Client>,
    pub config: Arc<ConsumerConfig>,
    pub queue: BatchQueue,
    pub logs: Arc<Logs>,
    pub stop: Arc<AtomicBool>,
    /// Partitions found later.
    pub added: std_mpsc::Receiver<Vec<Begin>>,
    pub out: mpsc::Sender<Handed>,
    /// How far each partition has been read, for who watches.
    pub read: Arc<Mutex<Positions>>,
    pub slots: Slots,
}

/// The partitions, and what has been read of each and not handed over.
pub(super) struct Slots {
    slots: Vec<Slot>,
    by_topic: HashMap<Vec<u8>, HashMap<i32, usize>>,
    /// Runs of records of one partition are the rule.
    last: usize,
    headers: bool,
    records: usize,
    bytes: usize,
    faults: Vec<Fault>,
    ends: bool,
}

struct Slot {
    partition: SourcePartition,
    builder: ChunkBuilder,
    /// The next offset wanted; what lies below has been read.
    next: i64,
    end: Option<i64>,
}

/// An error in place of a record.
struct Fault {
    slot: Option<usize>,
    code: RDKafkaErrorCode,
    reason: String,
}

impl Slots {
    pub fn new(headers: bool) -> Self {
        Slots {
            slots: Vec::new(),
            by_topic: HashMap::new(),
            last: 0,
            headers,
            records: 0,
            bytes: 0,
            faults: Vec::new(),
            ends: false,
        }
    }

    pub fn add(&mut self, begin: &Begin) {
        let partition = begin.partition.clone();
        let index = self.slots.len();
        self.by_topic.entry(partition.topic.as_bytes().to_vec()).or_default().insert(partition.partition, index);
        self.slots.push(Slot { partition, builder: ChunkBuilder::new(self.headers), next: begin.position, end: None });
    }

    fn find(&self, message: &Message<'_>) -> Option<usize> {
        let topic = message.topic()?;
        if let Some(slot) = self.slots.get(self.last)
            && slot.partition.partition == message.partition()
            && slot.partition.topic.as_bytes() == topic
        {
            return Some(self.last);
        }
        self.by_topic.get(topic)?.get(&message.partition()).copied()
    }

    fn take(&mut self, message: &Message<'_>) {
        let index = self.find(message);
        match (message.error(), index) {
            (None, Some(index)) => {
                self.last = index;
                let slot = &mut self.slots[index];
                if message.offset() < slot.next {
                    return;
                }
                slot.next = message.offset() + 1;
                slot.end = None;
                self.bytes += slot.builder.push(message);
                self.records += 1;
            }
            (Some(RDKafkaErrorCode::PartitionEOF), Some(index)) => {
                let slot = &mut self.slots[index];
                // The end lies past transaction markers, which are no records.
                slot.next = slot.next.max(message.offset());
                slot.end = Some(slot.next);
                self.ends = true;
            }
            (Some(RDKafkaErrorCode::PartitionEOF), None) | (None, None) => {}
            (Some(code), slot) => self.faults.push(Fault { slot, code, reason: message.reason() }),
        }
    }

    fn is_empty(&self) -> bool {
        self.records == 0 && !self.ends
    }

    fn is_full(&self) -> bool {
        self.records >= MAX_RECORDS || self.bytes >= MAX_BYTES
    }

    fn hand_over(&mut self, read: &Mutex<Positions>) -> Handed {
        self.records = 0;
        self.bytes = 0;
        self.ends = false;
        let mut out = Vec::new();
        let mut read = read.lock();
        for slot in &mut self.slots {
            if slot.builder.rows() > 0 {
                let chunk = slot.builder.finish(&slot.partition.topic, slot.partition.partition);
                out.push(Delivery::Chunk { chunk, next: slot.next });
                read.insert(slot.partition.clone(), slot.next);
            }
            if let Some(next) = slot.end.take() {
                out.push(Delivery::End { partition: slot.partition.clone(), next });
                read.insert(slot.partition.clone(), slot.next);
            }
        }
        Handed::Deliveries(out)
    }
}

impl Fetch {
    /// Until told to stop, or nobody takes the records, or an error ends it.
    pub fn run(mut self) {
        if let Err(error) = self.loop_until_stopped() {
            // The reader may be gone: then nobody needs to know.
            let _ = self.out.blocking_send(Handed::Failed(error));
        }
    }

    fn loop_until_stopped(&mut self) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) && !self.out.is_closed() {
            while let Ok(begins) = self.added.try_recv() {
                super::consumer::assign(&self.client, &begins, true)?;
                begins.iter().for_each(|begin| self.slots.add(begin));
            }
            let wait = if self.slots.is_empty() { WAIT } else { Duration::ZERO };
            let slots = &mut self.slots;
            let count = self.queue.consume(wait, |message| slots.take(message));
            self.logs.drain();
            if count > self.slots.faults.len() {
                self.client.context().well();
            }
            if self.slots.is_full() {
                if self.out.blocking_send(self.slots.hand_over(&self.read)).is_err() {
                    return Ok(());
                }
            } else if !self.slots.is_empty() && count < BATCH {
                // Nothing more is waiting. A reader that is busy gets a larger chunk later instead of many small ones.
                match self.out.try_reserve() {
                    Ok(permit) => permit.send(self.slots.hand_over(&self.read)),
                    Err(_) => {
                        let slots = &mut self.slots;
                        self.queue.consume(GATHER, |message| slots.take(message));
                    }
                }
            }
            let faults = std::mem::take(&mut self.slots.faults);
            for fault in faults {
                self.handle(&fault)?;
            }
        }
        Ok(())
    }

    fn handle(&mut self, fault: &Fault) -> Result<()> {
        use RDKafkaErrorCode as Code;
        let partition = fault.slot.map(|slot| self.slots.slots[slot].partition.clone());
        match (fault.code, partition) {
            (Code::AutoOffsetReset | Code::OffsetOutOfRange, Some(partition)) => {
                self.find_again(fault.slot.unwrap_or_default(), partition)
            }
            (Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition, Some(partition)) => {
                // Also said in passing while brokers restart: the cluster's metadata decide.
                let discovery = Discovery { client: &self.client, config: &self.config, logs: &self.logs, again: true };
                match discovery.topics() {
                    Ok(topics) if topics.get(&partition.topic).is_some_and(|count| partition.partition < *count) => {
                        Ok(())
                    }
                    Ok(_) => {
                        Err(Error::user("unknown-topic", format!("source {}: {partition} is gone", self.config.name))
                            .with_hint("it was deleted while being read"))
                    }
                    Err(error) if error.is_retryable() => Ok(()),
                    Err(error) => Err(error),
                }
            }
            (Code::TopicAuthorizationFailed, _) | (Code::Fatal, _) => Err(Error::environment(
                "kafka",
                format!("source {}: Kafka refuses: {}", self.config.name, fault.reason),
            )
            .permanent()),
            _ => {
                self.client.context().unwell(&fault.reason);
                Ok(())
            }
        }
    }

    /// The offset we want is not there: either data is lost, or the broker was wrong for a moment.
    fn find_again(&mut self, slot: usize, partition: SourcePartition) -> Result<()> {
        let position = self.slots.slots[slot].next;
        // What was read before the gap goes first.
        if !self.slots.is_empty() && self.out.blocking_send(self.slots.hand_over(&self.read)).is_err() {
            return Ok(());
        }
        let discovery = Discovery { client: &self.client, config: &self.config, logs: &self.logs, again: true };
        let begin = match discovery.resume(partition, position) {
            Ok(begin) => begin,
            // Not reachable: fetching goes on where it was, and fails again when it must.
            Err(error) if error.is_retryable() => return self.seek(slot, position),
            Err(error) => return Err(error),
        };
        self.slots.slots[slot].next = begin.position;
        if let Some(gap) = begin.gap {
            self.report(gap);
        }
        self.seek(slot, begin.fetch)
    }

    fn report(&self, gap: Gap) {
        // The reader may be gone: the loop notices by itself.
        let _ = self.out.blocking_send(Handed::Deliveries(vec![Delivery::Gap(gap)]));
    }

    fn seek(&self, slot: usize, offset: i64) -> Result<()> {
        let partition = &self.slots.slots[slot].partition;
        let done =
            self.client.seek(&partition.topic, partition.partition, Offset::Offset(offset), self.config.patience());
        done.map_err(|e| {
            Error::environment("kafka", format!("source {}: {partition}: cannot seek: {e}", self.config.name))
        })
    }
}

//! A reader of topics whose positions are somebody else's (the lake's).

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as std_mpsc;
use std::time::Duration;
use tokio::sync::mpsc;

use super::config::{ConsumerConfig, refused};
use super::context::Context;
use super::discover::{Begin, Client, Discovery};
use super::fetch::{BATCH, Fetch, Slots};
use super::native::{self, BatchQueue, Logs};
use crate::error::{Error, Result};
use crate::types::{Positions, RawChunk, SourcePartition};

/// Hand-overs that wait for the reader; each is at most 8 MB or one record, roughly.
const WAITING: usize = 2;
/// Offsets for lag tools are a courtesy: they may not hold up reading longer than this.
const COMMIT_PATIENCE: Duration = Duration::from_secs(2);

/// What [`Consumer::next`] gives.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Chunks are what it is almost always; boxing them would cost each.
pub enum Delivery {
    /// Records of one partition; `next` is the position after them.
    Chunk { chunk: RawChunk, next: i64 },
    /// Everything readable in the partition has been delivered; `next` is the position, past transaction markers.
    End { partition: SourcePartition, next: i64 },
    /// Records were lost, and are skipped.
    Gap(Gap),
    /// Reading has ended.
    Failed(Error),
}

/// Offsets `from..to` of a partition that will never be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub partition: SourcePartition,
    pub from: i64,
    pub to: i64,
    pub reason: String,
}

/// Reads topics from given positions. Made by [`Consumer::new`], reads after [`Consumer::open`].
pub struct Consumer {
    config: Arc<ConsumerConfig>,
    running: Option<Running>,
    waiting: VecDeque<Delivery>,
    identity: Vec<(String, String)>,
    /// Next offset per partition, as delivered.
    positions: Positions,
    /// With `bounded`: partitions that have not been read to the end they had at `open`, and that end.
    left: BTreeMap<SourcePartition, i64>,
    /// The end of every partition at `open`; with `bounded` only.
    ends: Positions,
    bounded: bool,
}

struct Running {
    client: Arc<Client>,
    deliveries: mpsc::Receiver<Vec<Delivery>>,
    stop: Arc<AtomicBool>,
    /// Dropping it ends the discovery thread.
    _discovery: Option<std_mpsc::Sender<()>>,
    committing: Arc<AtomicBool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The threads hold the client: the last of them closes it, not the task that drops us.
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Consumer {
    /// Checks the configuration; connects to nothing.
    pub fn new(config: ConsumerConfig) -> Result<Self> {
        config.client()?;
        Ok(Consumer {
            config: Arc::new(config),
            running: None,
            waiting: VecDeque::new(),
            identity: Vec::new(),
            positions: Positions::new(),
            left: BTreeMap::new(),
            ends: Positions::new(),
            bounded: false,
        })
    }

    /// Connects and starts reading at `from`; returns where every partition starts. Nothing in `from`: the configured start.
    /// Lost data is reported by [`Consumer::next`], after the caller has seen [`Consumer::identity`]: in a topic that was made anew every
    /// offset looks lost.
    pub async fn open(&mut self, from: &Positions, bounded: bool) -> Result<Positions> {
        self.running = None;
        let (config, from) = (Arc::clone(&self.config), from.clone());
        let opened = tokio::task::spawn_blocking(move || Opened::connect(config, &from, bounded))
            .await
            .map_err(|e| Error::internal(e.to_string()))??;
        self.bounded = bounded;
        self.identity = opened.identity;
        self.positions = opened.positions;
        self.ends = self.positions.clone();
        self.ends.extend(opened.left.clone());
        self.left = opened.left;
        self.waiting = opened.first;
        self.running = opened.running;
        Ok(self.positions.clone())
    }

    /// Cluster id and topic ids, as far as the cluster has them.
    pub fn identity(&self) -> &[(String, String)] {
        &self.identity
    }

    /// With `bounded`: everything that was there at `open` has been delivered.
    pub fn is_done(&self) -> bool {
        self.bounded && self.left.is_empty() && self.waiting.is_empty()
    }

    /// With `bounded`: the end of every partition at `open`.
    pub fn ends(&self) -> &Positions {
        &self.ends
    }

    /// The next delivery. Cancel-safe.
    pub async fn next(&mut self) -> Result<Delivery> {
        loop {
            if let Some(delivery) = self.waiting.pop_front() {
                return self.note(delivery);
            }
            let Some(running) = &mut self.running else {
                return Err(Error::internal("a Kafka consumer that is not open"));
            };
            match running.deliveries.recv().await {
                Some(deliveries) => self.waiting.extend(deliveries),
                None => return Err(Error::internal("the thread that reads Kafka has ended")),
            }
        }
    }

    /// The next delivery if it is here already.
    pub fn try_next(&mut self) -> Option<Result<Delivery>> {
        if self.waiting.is_empty() {
            self.waiting.extend(self.running.as_mut()?.deliveries.try_recv().ok()?);
        }
        let delivery = self.waiting.pop_front()?;
        Some(self.note(delivery))
    }

    fn note(&mut self, delivery: Delivery) -> Result<Delivery> {
        let (partition, next, ended) = match &delivery {
            Delivery::Chunk { chunk, next } => {
                (SourcePartition { topic: Arc::clone(&chunk.topic), partition: chunk.partition }, *next, false)
            }
            Delivery::End { partition, next } => (partition.clone(), *next, true),
            Delivery::Gap(gap) => (gap.partition.clone(), gap.to, false),
            Delivery::Failed(error) => return Err(error.clone()),
        };
        if ended || self.left.get(&partition).is_some_and(|end| next >= *end) {
            self.left.remove(&partition);
        }
        self.positions.insert(partition, next);
        Ok(delivery)
    }

    /// Tells the consumer group how far the lake has come: for lag tools, never read back.
    pub async fn commit(&self, positions: &Positions) -> Result<()> {
        let Some(running) = &self.running else { return Ok(()) };
        if running.committing.swap(true, Ordering::AcqRel) {
            // The last one is still under way: the next one says more.
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (partition, next) in positions {
            if *next >= 0 {
                list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(*next))
                    .map_err(|e| Error::internal(e.to_string()))?;
            }
        }
        let (client, committing) = (Arc::clone(&running.client), Arc::clone(&running.committing));
        let task = tokio::task::spawn_blocking(move || {
            let done = if list.count() == 0 { Ok(()) } else { client.commit(&list, CommitMode::Sync) };
            committing.store(false, Ordering::Release);
            done
        });
        match tokio::time::timeout(COMMIT_PATIENCE, task).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(Error::environment("kafka-commit", error.to_string())),
            Ok(Err(error)) => Err(Error::internal(error.to_string())),
            Err(_) => Err(Error::environment("kafka-commit", "the broker does not answer")),
        }
    }

    /// Records behind the end of each partition, as the client last heard; no request is made.
    pub fn lag(&self) -> Positions {
        let Some(running) = &self.running else { return Positions::new() };
        let mut lag = Positions::new();
        for (partition, next) in &self.positions {
            if let Some((_, high)) = native::cached_watermarks(&running.client, &partition.topic, partition.partition) {
                lag.insert(partition.clone(), (high - next).max(0));
            }
        }
        lag
    }

    /// What is wrong with the connection right now; reading goes on by itself when it is over.
    pub fn trouble(&self) -> Option<String> {
        self.running.as_ref()?.client.context().trouble()
    }
}

/// What opening gives.
struct Opened {
    running: Option<Running>,
    first: VecDeque<Delivery>,
    identity: Vec<(String, String)>,
    positions: Positions,
    left: BTreeMap<SourcePartition, i64>,
}

impl Opened {
    fn connect(config: Arc<ConsumerConfig>, from: &Positions, bounded: bool) -> Result<Self> {
        let client: Client = config.client()?.create_with_context(Context::new(&config.name)).map_err(refused)?;
        let client = Arc::new(client);
        let logs = Arc::new(Logs::new(&client)?);
        let discovery = Discovery { client: &client, config: &config, logs: &logs };
        let topics = discovery.topics()?;
        if topics.is_empty() {
            tracing::warn!("source {}: no topic matches yet", config.name);
        }
        let identity = discovery.identity(topics.keys().map(AsRef::as_ref));
        let begins = match discovery.begins(&topics, from) {
            Ok(begins) => begins,
            Err(error) if error.is_retryable() => return Err(error),
            Err(error) => {
                let first = VecDeque::from([Delivery::Failed(error)]);
                let positions = from.clone();
                return Ok(Opened { running: None, first, identity, positions, left: BTreeMap::new() });
            }
        };
        let known: BTreeSet<SourcePartition> = begins.iter().map(|b| b.partition.clone()).collect();
        let positions = begins.iter().map(|b| (b.partition.clone(), b.position)).collect();
        let left =
            begins.iter().filter(|b| bounded && b.position < b.high).map(|b| (b.partition.clone(), b.high)).collect();
        let mut slots = Slots::new(config.headers);
        begins.iter().for_each(|begin| slots.add(begin));
        assign(&client, &begins, false)?;
        let first = begins.into_iter().filter_map(|b| b.gap).map(Delivery::Gap).collect();

        let (out, deliveries) = mpsc::channel(WAITING);
        let (added_tx, added) = std_mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let fetch = Fetch {
            queue: BatchQueue::new(&client, BATCH)?,
            client: Arc::clone(&client),
            config: Arc::clone(&config),
            logs: Arc::clone(&logs),
            stop: Arc::clone(&stop),
            added,
            out: out.clone(),
            slots,
        };
        spawn("kafka-fetch", move || fetch.run())?;
        // A bounded run reads what was there: what appears later is the next run's.
        let discovery = if bounded {
            None
        } else {
            let (quit, quitting) = std_mpsc::channel();
            let (client, identity) = (Arc::clone(&client), identity.clone());
            let watch = Watch { client, config, logs, known, identity, added: added_tx, out };
            spawn("kafka-discover", move || watch.run(&quitting))?;
            Some(quit)
        };
        let committing = Arc::new(AtomicBool::new(false));
        let running = Some(Running { client, deliveries, stop, _discovery: discovery, committing });
        Ok(Opened { running, first, identity, positions, left })
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name(name.to_string()).spawn(body)?;
    Ok(())
}

/// Assigns partitions, in addition to those there are or instead of them.
pub(super) fn assign(client: &Client, begins: &[Begin], more: bool) -> Result<()> {
    let mut list = TopicPartitionList::with_capacity(begins.len());
    for begin in begins {
        list.add_partition_offset(&begin.partition.topic, begin.partition.partition, Offset::Offset(begin.fetch))
            .map_err(|e| Error::internal(e.to_string()))?;
    }
    let done = if more { client.incremental_assign(&list) } else { client.assign(&list) };
    done.map_err(|e| Error::internal(format!("cannot assign Kafka partitions: {e}")))
}

/// Looks for new partitions and topics, and for topics made anew, while reading goes on.
struct Watch {
    client: Arc<Client>,
    config: Arc<ConsumerConfig>,
    logs: Arc<Logs>,
    known: BTreeSet<SourcePartition>,
    identity: Vec<(String, String)>,
    added: std_mpsc::Sender<Vec<Begin>>,
    out: mpsc::Sender<Vec<Delivery>>,
}

impl Watch {
    fn run(mut self, quitting: &std_mpsc::Receiver<()>) {
        while let Err(std_mpsc::RecvTimeoutError::Timeout) = quitting.recv_timeout(self.config.refresh()) {
            match self.look() {
                Ok(()) => {}
                // Brokers come back; the context has said that they are away.
                Err(error) if error.is_retryable() => {}
                Err(error) => {
                    let _ = self.out.blocking_send(vec![Delivery::Failed(error)]);
                    return;
                }
            }
        }
    }

    fn look(&mut self) -> Result<()> {
        let discovery = Discovery { client: &self.client, config: &self.config, logs: &self.logs };
        let mut topics = discovery.topics()?;
        let now = discovery.identity(topics.keys().map(AsRef::as_ref));
        for (key, value) in &now {
            match self.identity.iter().find(|(k, _)| k == key) {
                Some((_, known)) if known != value => {
                    return Err(Error::user(
                        "source-recreated",
                        format!("source {}: {key} was {known} and is {value} now: made anew", self.config.name),
                    )
                    .with_hint(format!(
                        "to read the new one from its configured start and keep the rows already in the lake: --reset-source {}",
                        self.config.name
                    )));
                }
                Some(_) => {}
                None => self.identity.push((key.clone(), value.clone())),
            }
        }
        // Everything in a partition that appeared since is new: each starts at its beginning.
        let mut fresh = Vec::new();
        for (topic, count) in std::mem::take(&mut topics) {
            for partition in 0..count {
                let partition = SourcePartition { topic: Arc::clone(&topic), partition };
                if self.known.contains(&partition) {
                    continue;
                }
                let (low, high) = discovery.watermarks(&partition)?;
                tracing::info!("source {}: found {partition}", self.config.name);
                fresh.push(Begin { partition, position: low, fetch: low, high, gap: None });
            }
        }
        if !fresh.is_empty() {
            self.known.extend(fresh.iter().map(|b| b.partition.clone()));
            // The reader may be gone: then this thread ends soon, too.
            let _ = self.added.send(fresh);
        }
        Ok(())
    }
}

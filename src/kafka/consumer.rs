//! A reader of topics whose positions are somebody else's (the lake's).

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as std_mpsc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::config::ConsumerConfig;
use super::discover::{self, Begin, Client, Discovery, same_identity};
use super::fetch::{BATCH, Fetch, Slots};
use super::native::{self, BatchQueue, Logs};
use super::watch::{LONGEST_SILENCE, Silence, Watch};
use crate::error::{Error, Result};
use crate::types::{Positions, RawChunk, SourcePartition};

/// Hand-overs that wait for the reader; each is at most 8 MB or one record, roughly.
const WAITING: usize = 2;
/// Offsets for lag tools are a courtesy: they may not hold up reading longer than this.
const COMMIT_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two attempts to connect anew.
const PAUSE: Duration = Duration::from_secs(1);

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
}

/// What the threads hand to the reader.
pub(super) enum Handed {
    Deliveries(Vec<Delivery>),
    /// Reading has ended.
    Failed(Error),
    /// The client reads no more and does not say so: another one has to.
    Silent(String),
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
    /// Instead of `running` while a client is replaced.
    connecting: Option<Connecting>,
    waiting: VecDeque<Result<Delivery>>,
    identity: Vec<(String, String)>,
    /// Next offset per partition, as delivered.
    positions: Positions,
    /// With `bounded`: partitions that have not been read to the end they had at `open`, and that end.
    left: BTreeMap<SourcePartition, i64>,
    /// The end of every partition at `open`; with `bounded` only.
    ends: Positions,
    bounded: bool,
    /// How long a partition that has more may give nothing.
    patience: Duration,
}

struct Running {
    client: Arc<Client>,
    handed: mpsc::Receiver<Handed>,
    /// Ends the thread that fetches. The threads hold the client: the last of them closes it, not the task that drops us.
    _stop: StopOnDrop,
    /// Dropping it ends the thread that watches.
    _watch: std_mpsc::Sender<()>,
    committing: Arc<AtomicBool>,
}

struct Connecting {
    task: JoinHandle<Result<Opened>>,
    /// Why.
    reason: String,
    _stop: StopOnDrop,
}

/// Tells a thread to stop when it is dropped.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Consumer {
    /// Checks the configuration; connects to nothing.
    pub fn new(config: ConsumerConfig) -> Result<Self> {
        config.client()?;
        Ok(Consumer {
            patience: config.silence(),
            config: Arc::new(config),
            running: None,
            connecting: None,
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
        (self.running, self.connecting, self.bounded) = (None, None, bounded);
        self.waiting.clear();
        let opening =
            Opening { config: Arc::clone(&self.config), from: from.clone(), bounded, patience: self.patience };
        let opened = tokio::task::spawn_blocking(move || opening.connect(false))
            .await
            .map_err(|e| Error::internal(e.to_string()))??;
        self.identity = opened.identity;
        self.positions = opened.positions;
        self.ends = self.positions.clone();
        self.ends.extend(opened.left.clone());
        self.left = opened.left;
        self.waiting = opened.first;
        self.running = opened.running;
        Ok(self.positions.clone())
    }

    /// Reads on with another client.
    fn connect_anew(&mut self, reason: String) {
        tracing::warn!("source {}: {reason}; connecting anew", self.config.name);
        self.running = None;
        // Whoever is slow, and not silent, gets there in the end.
        self.patience = (self.patience * 2).min(LONGEST_SILENCE);
        let opening = Opening {
            config: Arc::clone(&self.config),
            from: self.positions.clone(),
            bounded: self.bounded,
            patience: self.patience,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::task::spawn_blocking(move || {
            loop {
                match opening.connect(true) {
                    Err(error) if error.is_retryable() && !stopped.load(Ordering::Relaxed) => std::thread::sleep(PAUSE),
                    opened => return opened,
                }
            }
        });
        self.connecting = Some(Connecting { task, reason, _stop: StopOnDrop(stop) });
    }

    fn connected_anew(&mut self, opened: Opened) -> Result<()> {
        same_identity(&self.config.name, &mut self.identity, opened.identity)?;
        self.positions.extend(opened.positions);
        self.waiting = opened.first;
        self.running = opened.running;
        Ok(())
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
                return self.note(delivery?);
            }
            if let Some(connecting) = &mut self.connecting {
                let opened = (&mut connecting.task).await;
                self.connecting = None;
                self.connected_anew(opened.map_err(|e| Error::internal(e.to_string()))??)?;
            } else if let Some(running) = &mut self.running {
                match running.handed.recv().await {
                    Some(handed) => self.take(handed),
                    None => return Err(Error::internal("the thread that reads Kafka has ended")),
                }
            } else {
                return Err(Error::internal("a Kafka consumer that is not open"));
            }
        }
    }

    /// The next delivery if it is here already.
    pub fn try_next(&mut self) -> Option<Result<Delivery>> {
        if self.waiting.is_empty() {
            let handed = self.running.as_mut()?.handed.try_recv().ok()?;
            self.take(handed);
        }
        let delivery = self.waiting.pop_front()?;
        Some(delivery.and_then(|delivery| self.note(delivery)))
    }

    fn take(&mut self, handed: Handed) {
        match handed {
            Handed::Deliveries(deliveries) => self.waiting.extend(deliveries.into_iter().map(Ok)),
            Handed::Failed(error) => self.waiting.push_back(Err(error)),
            Handed::Silent(reason) => self.connect_anew(reason),
        }
    }

    fn note(&mut self, delivery: Delivery) -> Result<Delivery> {
        let (partition, next, ended) = match &delivery {
            Delivery::Chunk { chunk, next } => {
                (SourcePartition { topic: Arc::clone(&chunk.topic), partition: chunk.partition }, *next, false)
            }
            Delivery::End { partition, next } => (partition.clone(), *next, true),
            Delivery::Gap(gap) => (gap.partition.clone(), gap.to, false),
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
        match (&self.connecting, &self.running) {
            (Some(connecting), _) => Some(connecting.reason.clone()),
            (None, running) => running.as_ref()?.client.context().trouble(),
        }
    }
}

/// What to open.
struct Opening {
    config: Arc<ConsumerConfig>,
    from: Positions,
    bounded: bool,
    patience: Duration,
}

/// What opening gives.
struct Opened {
    running: Option<Running>,
    first: VecDeque<Result<Delivery>>,
    identity: Vec<(String, String)>,
    positions: Positions,
    left: BTreeMap<SourcePartition, i64>,
}

impl Opening {
    /// `again`: this is not the first time, so what was there before is there still.
    fn connect(&self, again: bool) -> Result<Opened> {
        let (config, bounded) = (Arc::clone(&self.config), self.bounded);
        let client = Arc::new(discover::client(&config)?);
        let logs = Arc::new(Logs::new(&client)?);
        let discovery = Discovery { client: &client, config: &config, logs: &logs, again };
        let topics = discovery.topics()?;
        if topics.is_empty() {
            tracing::warn!("source {}: no topic matches yet", config.name);
        }
        let identity = discovery.identity(topics.keys().map(AsRef::as_ref));
        let begins = match discovery.begins(&topics, &self.from) {
            Ok(begins) => begins,
            Err(error) if error.is_retryable() => return Err(error),
            Err(error) => {
                let (first, positions) = (VecDeque::from([Err(error)]), self.from.clone());
                return Ok(Opened { running: None, first, identity, positions, left: BTreeMap::new() });
            }
        };
        let known: BTreeSet<SourcePartition> = begins.iter().map(|b| b.partition.clone()).collect();
        let positions: Positions = begins.iter().map(|b| (b.partition.clone(), b.position)).collect();
        let left =
            begins.iter().filter(|b| bounded && b.position < b.high).map(|b| (b.partition.clone(), b.high)).collect();
        let mut slots = Slots::new(config.headers);
        begins.iter().for_each(|begin| slots.add(begin));
        assign(&client, &begins, false)?;
        let first = begins.into_iter().filter_map(|b| b.gap).map(|gap| Ok(Delivery::Gap(gap))).collect();

        let (out, handed) = mpsc::channel(WAITING);
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
            read: Arc::default(),
            slots,
        };
        let watch = Watch {
            client: Arc::clone(&client),
            config,
            logs,
            known,
            identity: identity.clone(),
            added: (!bounded).then_some(added_tx),
            out,
            silence: Silence::new(self.patience, positions.clone()),
            read: Arc::clone(&fetch.read),
        };
        spawn("kafka-fetch", move || fetch.run())?;
        let (quit, quitting) = std_mpsc::channel();
        spawn("kafka-watch", move || watch.run(&quitting))?;
        let running = Running {
            client,
            handed,
            _stop: StopOnDrop(stop),
            _watch: quit,
            committing: Arc::new(AtomicBool::new(false)),
        };
        Ok(Opened { running: Some(running), first, identity, positions, left })
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

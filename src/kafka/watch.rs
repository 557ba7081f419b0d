//! The thread that looks after a client that reads: for new partitions and topics, for topics made anew, and for silence.
//!
//! librdkafka connects again by itself, almost always. When the only broker shuts down and leaves itself out of its last answer
//! about the cluster, the client may end without any broker it would try: the timer that brings the configured ones back can be
//! stopped by that very answer (`rd_kafka_rebootstrap_tmr_stop`, 2.12). Leaders that change twice in quick succession can leave a
//! partition with a broker that refuses it (confluentinc/librdkafka#5593). Neither is reported, so it is found out here.

use parking_lot::Mutex;
use rdkafka::consumer::Consumer as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{self as std_mpsc, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

use super::config::ConsumerConfig;
use super::consumer::Handed;
use super::discover::{self, Begin, Client, Discovery, same_identity};
use super::native::Logs;
use crate::error::Result;
use crate::types::{Positions, SourcePartition};

/// Silence that is borne at most.
pub(super) const LONGEST_SILENCE: Duration = Duration::from_secs(15 * 60);

/// State of the thread.
pub(super) struct Watch {
    pub client: Arc<Client>,
    pub config: Arc<ConsumerConfig>,
    pub logs: Arc<Logs>,
    pub known: BTreeSet<SourcePartition>,
    pub identity: Vec<(String, String)>,
    /// Takes partitions that appear. None: what appears later is the next run's.
    pub added: Option<std_mpsc::Sender<Vec<Begin>>>,
    pub out: mpsc::Sender<Handed>,
    pub silence: Silence,
    /// How far each partition has been read.
    pub read: Arc<Mutex<Positions>>,
}

impl Watch {
    /// Until told to quit, or reading is over.
    pub fn run(mut self, quitting: &std_mpsc::Receiver<()>) {
        while let Err(RecvTimeoutError::Timeout) = quitting.recv_timeout(self.config.refresh()) {
            let word = match self.look().and_then(|()| self.listen()) {
                Ok(None) => continue,
                Ok(Some(reason)) => Handed::Silent(reason),
                Err(error) if error.is_retryable() => {
                    // Brokers come back, which the client notices. A client that has none to try does not say that they are away.
                    if self.client.context().trouble().is_none() {
                        self.client.context().unwell(error.message());
                    }
                    let quit = || !matches!(quitting.try_recv(), Err(std_mpsc::TryRecvError::Empty));
                    if quit() || !self.is_cut_off() {
                        continue;
                    }
                    Handed::Silent("Kafka answers others and not this client".to_string())
                }
                Err(error) => Handed::Failed(error),
            };
            // The reader may be gone: then nobody needs to know.
            let _ = self.out.blocking_send(word);
            return;
        }
    }

    fn discovery(&self) -> Discovery<'_> {
        Discovery { client: &self.client, config: &self.config, logs: &self.logs, again: true }
    }

    fn look(&mut self) -> Result<()> {
        let topics = self.discovery().topics()?;
        let now = self.discovery().identity(topics.keys().map(AsRef::as_ref));
        same_identity(&self.config.name, &mut self.identity, now)?;
        let Some(added) = &self.added else { return Ok(()) };
        // Everything in a partition that appeared since is new: each starts at its beginning.
        let mut fresh = Vec::new();
        for (topic, count) in topics {
            for partition in 0..count {
                let partition = SourcePartition { topic: Arc::clone(&topic), partition };
                if self.known.contains(&partition) {
                    continue;
                }
                let (low, high) = self.discovery().watermarks(&partition)?;
                tracing::info!("source {}: found {partition}", self.config.name);
                fresh.push(Begin { partition, position: low, fetch: low, high, gap: None });
            }
        }
        if !fresh.is_empty() {
            self.known.extend(fresh.iter().map(|b| b.partition.clone()));
            self.silence.begins(fresh.iter().map(|b| (b.partition.clone(), b.position)));
            // The reader may be gone: then this thread ends soon, too.
            let _ = added.send(fresh);
        }
        Ok(())
    }

    /// What is wrong with a client that does not say so.
    fn listen(&mut self) -> Result<Option<String>> {
        let ends = self.discovery().ends(&self.known)?;
        if self.out.capacity() == 0 {
            // The reader is busy: nobody knows whether more would come.
            self.silence.broken();
            return Ok(None);
        }
        let silent = self.silence.note(Instant::now(), &self.read.lock(), &ends);
        Ok(silent.map(|(partition, time)| {
            format!("{partition} has more, but nothing of it has come for {} s", time.as_secs())
        }))
    }

    /// Whether the cluster answers a new client, and still not this one.
    fn is_cut_off(&self) -> bool {
        let answers = |client: &Arc<Client>, logs: &Logs| {
            let discovery = Discovery { client, config: &self.config, logs, again: true };
            !matches!(discovery.topics(), Err(error) if error.is_retryable())
        };
        let Ok(fresh) = discover::client(&self.config).map(Arc::new) else { return false };
        let Ok(logs) = Logs::new(&fresh) else { return false };
        answers(&fresh, &logs) && !answers(&self.client, &self.logs)
    }
}

/// Since when partitions have given nothing although they have more.
pub(super) struct Silence {
    patience: Duration,
    /// Where reading begins.
    begins: Positions,
    since: BTreeMap<SourcePartition, (i64, Instant)>,
}

impl Silence {
    pub fn new(patience: Duration, begins: Positions) -> Self {
        Silence { patience, begins, since: BTreeMap::new() }
    }

    /// Other partitions are read, too.
    pub fn begins(&mut self, partitions: impl Iterator<Item = (SourcePartition, i64)>) {
        self.begins.extend(partitions);
    }

    /// What was silence may not have been any.
    pub fn broken(&mut self) {
        self.since.clear();
    }

    /// Takes note of how far partitions have been `read` at an instant and how far they could be; returns one that has been silent
    /// for too long, and for how long.
    pub fn note(&mut self, now: Instant, read: &Positions, ends: &Positions) -> Option<(SourcePartition, Duration)> {
        for (partition, end) in ends {
            let Some(begin) = self.begins.get(partition) else { continue };
            let position = read.get(partition).map_or(*begin, |read| *read.max(begin));
            match self.since.get(partition) {
                _ if position >= *end => {
                    self.since.remove(partition);
                }
                Some((before, _)) if *before == position => {}
                _ => {
                    self.since.insert(partition.clone(), (position, now));
                }
            }
        }
        let times = self.since.iter().map(|(partition, (_, since))| (partition, now.duration_since(*since)));
        let (partition, time) = times.max_by_key(|(_, time)| *time).filter(|(_, time)| *time >= self.patience)?;
        Some((partition.clone(), time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: i64) -> Positions {
        Positions::from([(SourcePartition { topic: "calls".into(), partition: 3 }, position)])
    }

    #[test]
    fn only_a_partition_that_has_more_and_gives_nothing_is_silent() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::new(Duration::from_secs(30), at(10));
        // It has nothing more.
        assert_eq!(silence.note(after(0), &Positions::new(), &at(10)), None);
        assert_eq!(silence.note(after(100), &Positions::new(), &at(10)), None);
        // It is read, if slowly.
        assert_eq!(silence.note(after(110), &Positions::new(), &at(20)), None);
        assert_eq!(silence.note(after(139), &at(11), &at(20)), None);
        assert_eq!(silence.note(after(168), &at(12), &at(30)), None);
        // The reader was busy.
        assert_eq!(silence.note(after(190), &at(12), &at(30)), None);
        silence.broken();
        assert_eq!(silence.note(after(200), &at(12), &at(30)), None);
        assert_eq!(silence.note(after(229), &at(12), &at(40)), None);
        let partition = at(0).into_keys().next().unwrap();
        assert_eq!(silence.note(after(230), &at(12), &at(40)), Some((partition, Duration::from_secs(30))));
        // It came after all.
        assert_eq!(silence.note(after(231), &at(40), &at(40)), None);
        // Ends of partitions that are not read say nothing.
        let mut silence = Silence::new(Duration::ZERO, Positions::new());
        assert_eq!(silence.note(after(0), &Positions::new(), &at(5)), None);
        silence.begins(at(5).into_iter());
        assert_eq!(silence.note(after(0), &Positions::new(), &at(5)), None);
    }
}

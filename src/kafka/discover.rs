//! What the cluster has, and where each partition starts.

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::{ConsumerConfig, OnLoss, StartAt, TopicChoice, refused};
use super::consumer::Gap;
use super::context::Context;
use super::native::{self, Logs};
use crate::error::{Error, Result, did_you_mean};
use crate::types::{Positions, SourcePartition};

pub(super) type Client = BaseConsumer<Context>;

/// Pause between two questions to a cluster that is in the middle of something.
const PAUSE: Duration = Duration::from_millis(200);
/// A new leader can for a moment report a high watermark below what it had before.
const WATERMARK_PATIENCE: Duration = Duration::from_secs(3);

/// How a partition starts.
#[derive(Debug)]
pub(super) struct Begin {
    pub partition: SourcePartition,
    /// The position it goes on from: records below are not handed over.
    pub position: i64,
    /// The offset to fetch from; below `position` only when the log was cut.
    pub fetch: i64,
    /// One past the last offset in use now.
    pub high: i64,
    /// What is lost before it.
    pub gap: Option<Gap>,
}

/// Asks one cluster, with a deadline for each question.
pub(super) struct Discovery<'a> {
    pub client: &'a Client,
    pub config: &'a ConsumerConfig,
    pub logs: &'a Logs,
    /// The topics have been read before: brokers that are just starting may not know them, and are asked again.
    pub again: bool,
}

/// A client that has not connected yet.
pub(super) fn client(config: &ConsumerConfig) -> Result<Client> {
    config.client()?.create_with_context(Context::new(&config.name)).map_err(refused)
}

/// Adds what `now` knows to `known`; it is an error if the cluster or a topic is another one by now.
pub(super) fn same_identity(source: &str, known: &mut Vec<(String, String)>, now: Vec<(String, String)>) -> Result<()> {
    for (key, value) in now {
        match known.iter().find(|(k, _)| *k == key) {
            Some((_, before)) if *before != value => {
                return Err(Error::user(
                    "source-recreated",
                    format!("source {source}: {key} was {before} and is {value} now: made anew"),
                )
                .with_hint(format!(
                    "to read the new one from its configured start and keep the rows already in the lake: --reset-source {source}"
                )));
            }
            Some(_) => {}
            None => known.push((key, value)),
        }
    }
    Ok(())
}

impl Discovery<'_> {
    fn patience(&self) -> Duration {
        self.config.patience()
    }

    /// The topics to read, with the number of partitions of each.
    pub fn topics(&self) -> Result<BTreeMap<Arc<str>, i32>> {
        match &self.config.topics {
            TopicChoice::Named(names) => {
                names.iter().map(|name| Ok((name.as_str().into(), self.named(name)?))).collect()
            }
            TopicChoice::Pattern(pattern) => {
                let regex = regex::Regex::new(&format!("^(?:{pattern})$")).map_err(|e| {
                    Error::user("kafka-topic", format!("source {}: topic_pattern: {e}", self.config.name))
                })?;
                let mut found = self.all()?;
                found.retain(|name, _| !name.starts_with("__") && regex.is_match(name));
                Ok(found)
            }
        }
    }

    /// Partitions of the topic `name`.
    fn named(&self, name: &str) -> Result<i32> {
        let deadline = Instant::now() + self.patience();
        loop {
            let metadata = self.client.fetch_metadata(Some(name), left(deadline)).map_err(|e| self.unreachable(&e))?;
            self.client.context().well();
            let topic = metadata.topics().iter().find(|t| t.name() == name);
            let error = topic.and_then(|t| t.error()).map(RDKafkaErrorCode::from);
            match (topic, error) {
                (Some(topic), None) if !topic.partitions().is_empty() => return Ok(topic.partitions().len() as i32),
                (_, Some(RDKafkaErrorCode::TopicAuthorizationFailed)) => {
                    return Err(Error::user(
                        "kafka-topic",
                        format!("source {}: not allowed to read topic `{name}`", self.config.name),
                    )
                    .with_hint("the user of the connection needs DESCRIBE and READ on it"));
                }
                (_, Some(RDKafkaErrorCode::InvalidTopic)) => {
                    return Err(Error::user(
                        "kafka-topic",
                        format!("source {}: `{name}` is no valid topic name", self.config.name),
                    ));
                }
                // Right after a restart a broker may not know all leaders yet.
                (_, Some(RDKafkaErrorCode::LeaderNotAvailable)) if Instant::now() < deadline => {}
                (_, Some(RDKafkaErrorCode::UnknownTopicOrPartition)) if self.again && Instant::now() < deadline => {}
                _ => return Err(self.unknown(name)),
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn unknown(&self, name: &str) -> Error {
        let error = Error::user(
            "unknown-topic",
            format!("source {}: there is no topic `{name}` at {}", self.config.name, self.config.bootstrap()),
        );
        // Listing may not be allowed; then there is nothing to suggest.
        let all = self.all().unwrap_or_default();
        match did_you_mean(name, all.keys().map(AsRef::as_ref)) {
            Some(near) => error.with_hint(format!("did you mean `{near}`?")),
            None => error.with_hint("create it, or correct `topic` of the source"),
        }
    }

    fn all(&self) -> Result<BTreeMap<Arc<str>, i32>> {
        let metadata = self.client.fetch_metadata(None, self.patience()).map_err(|e| self.unreachable(&e))?;
        self.client.context().well();
        Ok(metadata
            .topics()
            .iter()
            .filter(|t| !t.partitions().is_empty())
            .map(|t| (t.name().into(), t.partitions().len() as i32))
            .collect())
    }

    /// Cluster id, and the id of each topic, as far as the cluster has them.
    pub fn identity<'t>(&self, topics: impl Iterator<Item = &'t str>) -> Vec<(String, String)> {
        let topics: Vec<&str> = topics.collect();
        let cluster = self.client.client().fetch_cluster_id(self.patience());
        let ids = native::topic_ids(self.client, &topics, self.patience());
        let cluster = cluster.filter(|id| !id.is_empty()).map(|id| ("cluster_id".to_string(), id));
        cluster.into_iter().chain(ids.into_iter().map(|(name, id)| (format!("topic_id.{name}"), id))).collect()
    }

    /// How each partition of `topics` starts that `from` names or that is `fresh`: never read although others were, so that everything
    /// in it is new.
    pub fn begins(&self, topics: &BTreeMap<Arc<str>, i32>, from: &Positions) -> Result<Vec<Begin>> {
        let partitions: Vec<SourcePartition> = topics
            .iter()
            .flat_map(|(topic, count)| {
                (0..*count).map(|partition| SourcePartition { topic: Arc::clone(topic), partition })
            })
            .collect();
        let first = from.is_empty();
        let at_time = match self.config.start {
            StartAt::Timestamp(micros) if first => self.offsets_at(&partitions, micros)?,
            _ => Positions::new(),
        };
        partitions
            .into_iter()
            .map(|partition| {
                if let Some(position) = from.get(&partition) {
                    return self.resume(partition, *position);
                }
                let (low, high) = self.watermarks(&partition)?;
                let position = match &self.config.start {
                    StartAt::Latest if first => high,
                    StartAt::Timestamp(_) if first => at_time.get(&partition).copied().unwrap_or(high),
                    StartAt::Offsets(offsets) => offsets.get(&partition.partition).copied().unwrap_or(low),
                    _ => low,
                };
                if position < low || position > high {
                    // Only an offset somebody wrote down can be outside.
                    return self.resume(partition, position);
                }
                Ok(Begin { partition, position, fetch: position, high, gap: None })
            })
            .collect()
    }

    /// Going on at `position`: data loss is noticed here.
    pub fn resume(&self, partition: SourcePartition, position: i64) -> Result<Begin> {
        let deadline = Instant::now() + WATERMARK_PATIENCE;
        loop {
            let (low, high) = self.watermarks(&partition)?;
            if (low..=high).contains(&position) {
                return Ok(Begin { partition, position, fetch: position, high, gap: None });
            }
            if position > high && Instant::now() < deadline {
                std::thread::sleep(PAUSE);
                continue;
            }
            let gap = if position < low {
                Gap {
                    partition: partition.clone(),
                    from: position,
                    to: low,
                    reason: format!(
                        "{partition}: offsets {position} to {} are gone, the first one left is {low}",
                        low - 1
                    ),
                }
            } else {
                Gap {
                    partition: partition.clone(),
                    from: high,
                    to: position,
                    reason: format!(
                        "{partition}: the log was cut back to offset {high}, but everything below {position} has been read"
                    ),
                }
            };
            if self.config.on_data_loss == OnLoss::Fail {
                return Err(self.lost(&gap, position > high));
            }
            tracing::warn!("source {}: data lost in {}; going on", self.config.name, gap.reason);
            // A position never moves backwards: offsets that are given out a second time are not read.
            return Ok(if position < low {
                Begin { partition, position: low, fetch: low, high, gap: Some(gap) }
            } else {
                Begin { partition, position, fetch: high, high, gap: Some(gap) }
            });
        }
    }

    fn lost(&self, gap: &Gap, cut: bool) -> Error {
        let error = Error::user("data-loss", format!("source {}: data lost in {}", self.config.name, gap.reason));
        if cut {
            error.with_hint(format!(
                "the topic was made anew or its log truncated: --reset-source {} reads it from its configured start, `on_data_loss: skip` goes on after offset {}",
                self.config.name, gap.to
            ))
        } else {
            error.with_hint(format!(
                "`on_data_loss: skip` goes on at offset {} and records the gap; a longer retention of the topic prevents it",
                gap.to
            ))
        }
    }

    /// (first offset left, one past the last in use).
    pub fn watermarks(&self, partition: &SourcePartition) -> Result<(i64, i64)> {
        let deadline = Instant::now() + self.patience();
        loop {
            match self.client.fetch_watermarks(&partition.topic, partition.partition, left(deadline)) {
                Ok(marks) => return Ok(marks),
                Err(error) if Instant::now() >= deadline => {
                    return Err(self.unreachable(&error).context(format!("offsets of {partition}")));
                }
                // Leaders move while brokers restart.
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    fn offsets_at(&self, partitions: &[SourcePartition], micros: i64) -> Result<Positions> {
        // Kafka counts in ms; rounded up, so that no record before the instant is read.
        let millis = micros.div_euclid(1000) + i64::from(micros.rem_euclid(1000) > 0);
        self.offsets(partitions, Offset::Offset(millis))
    }

    /// One past the last offset that can be read, of each partition.
    pub fn ends<'p>(&self, partitions: impl IntoIterator<Item = &'p SourcePartition>) -> Result<Positions> {
        self.offsets(partitions, Offset::End)
    }

    /// The first offset of each partition at an instant, in ms; none of those that have none.
    fn offsets<'p>(
        &self,
        partitions: impl IntoIterator<Item = &'p SourcePartition>,
        instant: Offset,
    ) -> Result<Positions> {
        let mut wanted = TopicPartitionList::new();
        for partition in partitions {
            wanted
                .add_partition_offset(&partition.topic, partition.partition, instant)
                .map_err(|e| Error::internal(e.to_string()))?;
        }
        if wanted.count() == 0 {
            return Ok(Positions::new());
        }
        let found = self.client.offsets_for_times(wanted, self.patience()).map_err(|e| self.unreachable(&e))?;
        let mut positions = Positions::new();
        for element in found.elements() {
            element.error().map_err(|e| self.unreachable(&e))?;
            if let Offset::Offset(offset) = element.offset()
                && offset >= 0
            {
                let partition = SourcePartition { topic: element.topic().into(), partition: element.partition() };
                positions.insert(partition, offset);
            }
        }
        Ok(positions)
    }

    fn unreachable(&self, error: &KafkaError) -> Error {
        self.logs.drain();
        let trouble = self.client.context().trouble();
        let reason = trouble.unwrap_or_else(|| match error.rdkafka_error_code() {
            Some(code) => code.to_string(),
            None => error.to_string(),
        });
        let error = Error::environment(
            "kafka-unreachable",
            format!(
                "source {}: no answer from Kafka at {} within {} s: {reason}",
                self.config.name,
                self.config.bootstrap(),
                self.patience().as_secs_f32()
            ),
        );
        if reason.to_lowercase().contains("authentication") || reason.contains("SSL handshake") {
            error.with_hint("check security.protocol, sasl.* and ssl.* of the connection")
        } else {
            error.with_hint("check `bootstrap.servers` of the connection, and that the broker runs")
        }
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

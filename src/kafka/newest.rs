//! When the newest record of a source was written: for freshness.
//!
//! Each partition's last record is read: its offset is not known (transaction markers and compaction leave holes), so reading starts
//! one before the end, and further back as long as nothing is found.

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::ConsumerConfig;
use super::context::Context;
use super::discover::{self, Discovery};
use super::native::Logs;
use crate::error::{Error, Result};

/// Each time nothing is found, so many times further back.
const FURTHER: i64 = 16;
const POLL: Duration = Duration::from_millis(200);

/// The time of the newest record of every topic, ms since 1970; `None`: the topic is empty.
pub async fn newest_records(config: ConsumerConfig) -> Result<BTreeMap<String, Option<i64>>> {
    tokio::task::spawn_blocking(move || read(&config)).await.map_err(|e| Error::internal(e.to_string()))?
}

fn read(config: &ConsumerConfig) -> Result<BTreeMap<String, Option<i64>>> {
    let client = Arc::new(discover::client(config)?);
    let logs = Logs::new(&client)?;
    let topics = Discovery { client: &client, config, logs: &logs, again: false }.topics()?;
    let mut newest = BTreeMap::new();
    for (topic, partitions) in topics {
        let found = of_topic(&client, &topic, partitions, config.patience());
        let found = found.map_err(|e| e.context(format!("source {}: topic {topic}", config.name)))?;
        newest.insert(topic.to_string(), found);
    }
    Ok(newest)
}

fn of_topic(client: &BaseConsumer<Context>, topic: &str, partitions: i32, patience: Duration) -> Result<Option<i64>> {
    let unreachable = |e: KafkaError| Error::environment("kafka", format!("the broker does not answer: {e}"));
    // Partition → its first and one past its last offset.
    let mut left: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
    for partition in 0..partitions {
        let (low, high) = client.fetch_watermarks(topic, partition, patience).map_err(unreachable)?;
        if low < high {
            left.insert(partition, (low, high));
        }
    }
    let mut newest = None;
    let mut back = 1;
    while !left.is_empty() {
        let mut from = TopicPartitionList::with_capacity(left.len());
        for (partition, (low, high)) in &left {
            let start = Offset::Offset((high - back).max(*low));
            from.add_partition_offset(topic, *partition, start).map_err(|e| Error::internal(e.to_string()))?;
        }
        client.assign(&from).map_err(|e| Error::internal(e.to_string()))?;
        let found = until_the_end(client, left.keys().copied().collect(), patience)?;
        left.retain(|partition, (low, high)| !found.contains_key(partition) && *high - back > *low);
        newest = newest.max(found.into_values().max());
        back = back.saturating_mul(FURTHER);
    }
    Ok(newest)
}

/// Reads the assigned partitions to their ends; the newest record's time of each that had one.
fn until_the_end(
    client: &BaseConsumer<Context>,
    mut open: std::collections::BTreeSet<i32>,
    patience: Duration,
) -> Result<BTreeMap<i32, i64>> {
    let mut found: BTreeMap<i32, i64> = BTreeMap::new();
    let mut heard = Instant::now();
    while !open.is_empty() {
        match client.poll(POLL) {
            Some(Ok(message)) => {
                heard = Instant::now();
                if let Some(millis) = message.timestamp().to_millis() {
                    let known = found.entry(message.partition()).or_insert(millis);
                    *known = millis.max(*known);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                heard = Instant::now();
                open.remove(&partition);
            }
            // What can be tried again is, by the client.
            Some(Err(_)) | None if heard.elapsed() < patience => {}
            Some(Err(e)) => return Err(Error::environment("kafka", format!("the broker does not answer: {e}"))),
            None => return Err(Error::environment("kafka", "the broker does not answer")),
        }
    }
    Ok(found)
}

//! The generator's records in the broker, and reading them back without smelt's engine.

use smelt::kafka::{
    Admin, Consumer, ConsumerConfig, Delivery, OnLoss, Producer, Record, StartAt, TopicChoice, TopicSpec,
};
use smelt::source::datagen::telecom::{self, Options, Telecom};
use smelt::types::Positions;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::Failure;

pub struct Backlog {
    pub count: u64,
    pub bytes: u64,
}

/// Makes both topics, their names followed by `suffix`.
pub async fn topics(servers: &str, suffix: &str) -> Result<(), Failure> {
    let admin = Admin::new(servers)?;
    for topic in telecom::Topic::ALL {
        admin.ensure_topic(&TopicSpec::event_time(&format!("{}{suffix}", topic.name()), telecom::PARTITIONS)).await?;
    }
    Ok(())
}

/// Everything at once, and the reference data as files.
pub async fn backlog(servers: &str, dir: &Path, events: u64) -> Result<Backlog, Failure> {
    let telecom = Telecom::new(Options { events, ..Options::default() })?;
    telecom::write_reference(&telecom, &dir.join("data"))?;
    topics(servers, "").await?;
    let mut backlog = Backlog { count: 0, bytes: 0 };
    send(telecom, servers, "", f64::INFINITY, |_, record| {
        backlog.count += 1;
        backlog.bytes += record.value.len() as u64;
    })
    .await?;
    Ok(backlog)
}

/// Sends `rate` records a second to the topics followed by `suffix`; `going` sees each of them, with its number, as it goes out.
pub async fn send(
    records: impl IntoIterator<Item = telecom::GeneratedRecord>,
    servers: &str,
    suffix: &str,
    rate: f64,
    mut going: impl FnMut(u64, &telecom::GeneratedRecord),
) -> smelt::error::Result<()> {
    let mut producer = Producer::new(servers)?;
    let started = tokio::time::Instant::now();
    for (n, record) in (0..).zip(records) {
        let due = started + Duration::from_secs_f64(n as f64 / rate);
        if due > tokio::time::Instant::now() + Duration::from_millis(1) {
            tokio::time::sleep_until(due).await;
        }
        going(n, &record);
        let topic = format!("{}{suffix}", record.topic);
        let record = Record {
            topic: &topic,
            partition: record.partition,
            key: Some(&record.key),
            value: Some(&record.value),
            timestamp_millis: Some(record.timestamp_micros / 1000),
        };
        producer.send(record).await?;
    }
    producer.flush().await
}

/// Reads every record of both topics and does nothing with it.
pub async fn fetch(servers: &str) -> Result<u64, Failure> {
    let mut consumer = Consumer::new(ConsumerConfig {
        name: "bench".into(),
        properties: BTreeMap::from([("bootstrap.servers".to_string(), servers.to_string())]),
        group: "bench".into(),
        topics: TopicChoice::Named(telecom::Topic::ALL.iter().map(|t| t.name().to_string()).collect()),
        start: StartAt::Earliest,
        on_data_loss: OnLoss::Fail,
        headers: false,
    })?;
    consumer.open(&Positions::new(), true).await?;
    let mut records = 0;
    while !consumer.is_done() {
        if let Delivery::Chunk { chunk, .. } = consumer.next().await? {
            records += chunk.len() as u64;
        }
    }
    Ok(records)
}

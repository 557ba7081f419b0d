//! The Kafka consumer against a real Apache Kafka.

use arrow::array::Array;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use smelt::error::{Error, ErrorKind};
use smelt::kafka::{
    Admin, Consumer, ConsumerConfig, Delivery, OnLoss, Producer, Record, StartAt, TopicChoice, TopicSpec,
};
use smelt::types::{Positions, SourcePartition};

use crate::broker::{self, Broker};

const PATIENCE: Duration = Duration::from_secs(60);

fn config(servers: &str, topic: &str) -> ConsumerConfig {
    ConsumerConfig {
        name: format!("telco.{topic}"),
        properties: BTreeMap::from([
            ("bootstrap.servers".to_string(), servers.to_string()),
            ("topic.metadata.refresh.interval.ms".to_string(), "300".to_string()),
        ]),
        group: format!("smelt-test-{topic}"),
        topics: TopicChoice::Named(vec![topic.to_string()]),
        start: StartAt::Earliest,
        on_data_loss: OnLoss::Fail,
        headers: false,
    }
}

fn at(topic: &str, partition: i32) -> SourcePartition {
    SourcePartition { topic: topic.into(), partition }
}

async fn topic(servers: &str, name: &str, partitions: i32) -> Admin {
    let admin = Admin::new(servers).unwrap();
    admin.create_topic(&TopicSpec::event_time(name, partitions)).await.unwrap();
    admin
}

async fn send(producer: &mut Producer, topic: &str, partition: i32, values: std::ops::Range<usize>) {
    for i in values {
        let value = format!("v{i}");
        let record = Record {
            topic,
            partition,
            key: Some(b"k"),
            value: Some(value.as_bytes()),
            timestamp_millis: Some(1_700_000_000_000 + i as i64),
        };
        producer.send(record).await.unwrap();
    }
}

/// Values per partition, checked to be in offset order.
#[derive(Debug, Default)]
struct Read {
    values: BTreeMap<i32, Vec<String>>,
    positions: Positions,
    gaps: Vec<(i64, i64)>,
}

impl Read {
    fn take(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Chunk { chunk, next } => {
                let partition = at(&chunk.topic, chunk.partition);
                let from = self.positions.get(&partition).copied().unwrap_or(0);
                assert!(chunk.offsets.value(0) >= from, "{partition}: an offset twice");
                assert!(chunk.offsets.values().windows(2).all(|w| w[0] < w[1]));
                assert!(next > chunk.offsets.value(chunk.len() - 1));
                let values = self.values.entry(chunk.partition).or_default();
                values.extend(chunk.values.texts().iter().map(|v| v.unwrap().to_string()));
                self.positions.insert(partition, next);
            }
            Delivery::End { partition, next } => {
                self.positions.insert(partition, next);
            }
            Delivery::Gap(gap) => self.gaps.push((gap.from, gap.to)),
        }
    }

    fn count(&self) -> usize {
        self.values.values().map(Vec::len).sum()
    }

    async fn until_end(&mut self, consumer: &mut Consumer) -> Result<(), Error> {
        while !consumer.is_done() {
            let delivery = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("the end does not come")?;
            self.take(delivery);
        }
        Ok(())
    }

    async fn until(&mut self, consumer: &mut Consumer, count: usize) {
        let started = Instant::now();
        while self.count() < count {
            assert!(started.elapsed() < PATIENCE, "{} of {count} records", self.count());
            if let Ok(delivery) = tokio::time::timeout(Duration::from_millis(500), consumer.next()).await {
                self.take(delivery.unwrap());
            }
        }
    }
}

/// Everything that is there, from `from`.
async fn read(config: ConsumerConfig, from: &Positions) -> Result<Read, Error> {
    let mut consumer = Consumer::new(config)?;
    let mut read = Read { positions: consumer.open(from, true).await?, ..Read::default() };
    read.until_end(&mut consumer).await?;
    Ok(read)
}

fn values(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("v{i}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_read_once_in_order_and_positions_go_on() {
    let servers = &broker::shared().plain;
    topic(servers, "plain", 3).await;
    let mut producer = Producer::new(servers).unwrap();
    for partition in 0..3 {
        send(&mut producer, "plain", partition, 0..5_000).await;
    }
    producer.flush().await.unwrap();
    let first = read(config(servers, "plain"), &Positions::new()).await.unwrap();
    for partition in 0..3 {
        assert_eq!(first.values[&partition], values(0..5_000));
        assert_eq!(first.positions[&at("plain", partition)], 5_000);
    }
    // Nothing new: nothing read, at once.
    assert_eq!(read(config(servers, "plain"), &first.positions).await.unwrap().count(), 0);
    send(&mut producer, "plain", 1, 5_000..5_010).await;
    producer.flush().await.unwrap();
    let second = read(config(servers, "plain"), &first.positions).await.unwrap();
    assert_eq!(second.values, BTreeMap::from([(1, values(5_000..5_010))]));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_timestamps_headers_and_tombstones_arrive() {
    let servers = &broker::shared().plain;
    topic(servers, "parts", 1).await;
    let mut producer = Producer::new(servers).unwrap();
    let record = Record { topic: "parts", partition: 0, key: None, value: None, timestamp_millis: Some(1_234) };
    producer.send(record).await.unwrap();
    let record = Record { key: Some(b"k1"), value: Some(b"x"), ..record };
    let headers: [(&str, Option<&[u8]>); 3] = [("a", Some(b"1")), ("b", None), ("c", Some(b"\xff"))];
    producer.send_with_headers(record, &headers).await.unwrap();
    producer.flush().await.unwrap();
    let mut consumer = Consumer::new(ConsumerConfig { headers: true, ..config(servers, "parts") }).unwrap();
    consumer.open(&Positions::new(), true).await.unwrap();
    let (mut records, mut end) = (Vec::new(), 0);
    while !consumer.is_done() {
        let Delivery::Chunk { chunk, next } = consumer.next().await.unwrap() else { continue };
        let text = |array: &arrow::array::BinaryArray, i: usize| {
            array.is_valid(i).then(|| String::from_utf8(array.value(i).to_vec()).unwrap())
        };
        for i in 0..chunk.len() {
            let key = chunk.keys.as_ref().and_then(|keys| text(keys, i));
            let headers = chunk.headers.as_ref().filter(|h| h.is_valid(i)).map(|h| h.value(i).to_string());
            let values = chunk.values.texts();
            let value = values.is_valid(i).then(|| values.value(i).to_string());
            records.push((key, value, chunk.timestamps.value(i), headers));
        }
        end = next;
    }
    let headers = r#"{"a":"1","b":null,"c":"0xff"}"#.to_string();
    assert_eq!(
        records,
        [(None, None, 1_234_000, None), (Some("k1".into()), Some("x".into()), 1_234_000, Some(headers))]
    );
    assert_eq!(end, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_are_unseen_and_the_position_moves_past_markers() {
    let servers = &broker::shared().plain;
    topic(servers, "tx", 1).await;
    let mut producer = Producer::transactional(servers, "tx-test").unwrap();
    producer.begin_transaction().unwrap();
    send(&mut producer, "tx", 0, 0..10).await;
    producer.commit_transaction().await.unwrap();
    producer.begin_transaction().unwrap();
    send(&mut producer, "tx", 0, 100..110).await;
    producer.flush().await.unwrap();
    producer.abort_transaction().await.unwrap();
    producer.begin_transaction().unwrap();
    send(&mut producer, "tx", 0, 10..20).await;
    producer.commit_transaction().await.unwrap();
    let read_all = read(config(servers, "tx"), &Positions::new()).await.unwrap();
    assert_eq!(read_all.values[&0], values(0..20));
    // 10 + marker, 10 aborted + marker, 10 + marker.
    assert_eq!(read_all.positions[&at("tx", 0)], 33);
    let again = read(config(servers, "tx"), &read_all.positions).await.unwrap();
    assert_eq!((again.count(), again.positions[&at("tx", 0)]), (0, 33));
    // An open transaction is not waited for.
    producer.begin_transaction().unwrap();
    send(&mut producer, "tx", 0, 20..25).await;
    producer.flush().await.unwrap();
    assert_eq!(read(config(servers, "tx"), &read_all.positions).await.unwrap().count(), 0);
    producer.commit_transaction().await.unwrap();
    let last = read(config(servers, "tx"), &read_all.positions).await.unwrap();
    assert_eq!(last.values[&0], values(20..25));
    assert_eq!(last.positions[&at("tx", 0)], 39);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_are_read_from_their_beginning() {
    let servers = &broker::shared().plain;
    let admin = topic(servers, "grow", 1).await;
    let mut producer = Producer::new(servers).unwrap();
    send(&mut producer, "grow", 0, 0..10).await;
    producer.flush().await.unwrap();
    // Also with `start: latest`: what appears later is new from its first record.
    let config = ConsumerConfig { start: StartAt::Latest, ..config(servers, "grow") };
    let mut consumer = Consumer::new(config.clone()).unwrap();
    let start = consumer.open(&Positions::new(), false).await.unwrap();
    assert_eq!(start, Positions::from([(at("grow", 0), 10)]));
    let mut seen = Read::default();
    admin.add_partitions("grow", 3).await.unwrap();
    // A producer that knew the topic before would not see the new partitions at once.
    let mut producer = Producer::new(servers).unwrap();
    send(&mut producer, "grow", 2, 0..10).await;
    send(&mut producer, "grow", 0, 10..15).await;
    producer.flush().await.unwrap();
    seen.until(&mut consumer, 15).await;
    assert_eq!(seen.values, BTreeMap::from([(0, values(10..15)), (2, values(0..10))]));
    // The same at a restart that finds them.
    let restarted = read(config, &start).await.unwrap();
    assert_eq!(restarted.values, seen.values);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_finds_topics_that_appear_later() {
    let servers = &broker::shared().plain;
    topic(servers, "match_a", 1).await;
    topic(servers, "no_match_a", 1).await;
    let config = ConsumerConfig { topics: TopicChoice::Pattern("match_.".into()), ..config(servers, "pattern") };
    let mut consumer = Consumer::new(config).unwrap();
    assert_eq!(consumer.open(&Positions::new(), false).await.unwrap(), Positions::from([(at("match_a", 0), 0)]));
    topic(servers, "match_b", 1).await;
    let mut producer = Producer::new(servers).unwrap();
    send(&mut producer, "match_b", 0, 0..3).await;
    send(&mut producer, "no_match_a", 0, 0..3).await;
    producer.flush().await.unwrap();
    let mut seen = Read::default();
    seen.until(&mut consumer, 3).await;
    assert_eq!(seen.positions.keys().find(|p| p.topic.as_ref() != "match_a"), Some(&at("match_b", 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_settled_when_opened() {
    let servers = &broker::shared().plain;
    topic(servers, "starts", 2).await;
    let mut producer = Producer::new(servers).unwrap();
    send(&mut producer, "starts", 0, 0..100).await;
    send(&mut producer, "starts", 1, 0..50).await;
    producer.flush().await.unwrap();
    let start = |start: StartAt| {
        let mut consumer = Consumer::new(ConsumerConfig { start, ..config(servers, "starts") }).unwrap();
        async move {
            let at_open = consumer.open(&Positions::new(), true).await.unwrap();
            [0, 1].map(|partition| at_open[&at("starts", partition)])
        }
    };
    assert_eq!(start(StartAt::Earliest).await, [0, 0]);
    assert_eq!(start(StartAt::Latest).await, [100, 50]);
    // Record i has the timestamp 1,700,000,000,000 ms + i; an instant between two ms is after the first.
    assert_eq!(start(StartAt::Timestamp(1_700_000_000_020_000)).await, [20, 20]);
    assert_eq!(start(StartAt::Timestamp(1_700_000_000_019_001)).await, [20, 20]);
    assert_eq!(start(StartAt::Timestamp(1_700_000_000_070_000)).await, [70, 50]);
    assert_eq!(start(StartAt::Offsets(BTreeMap::from([(1, 7)]))).await, [0, 7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_data_fails_or_is_skipped_with_the_gap() {
    let servers = &broker::shared().plain;
    let admin = topic(servers, "lost", 1).await;
    let mut producer = Producer::new(servers).unwrap();
    send(&mut producer, "lost", 0, 0..100).await;
    producer.flush().await.unwrap();
    admin.delete_records("lost", 0, 40).await.unwrap();
    // Nothing was read yet: the start is what is left.
    assert_eq!(read(config(servers, "lost"), &Positions::new()).await.unwrap().values[&0], values(40..100));
    let from = Positions::from([(at("lost", 0), 10)]);
    let error = read(config(servers, "lost"), &from).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("data-loss", ErrorKind::User));
    assert!(error.message().contains("lost/0: offsets 10 to 39 are gone, the first one left is 40"), "{error}");
    assert!(error.hint().unwrap().contains("on_data_loss: skip"));
    let skip = ConsumerConfig { on_data_loss: OnLoss::Skip, ..config(servers, "lost") };
    let skipped = read(skip.clone(), &from).await.unwrap();
    assert_eq!((skipped.values[&0].clone(), skipped.gaps), (values(40..100), vec![(10, 40)]));
    // A position beyond the end: the log was cut back.
    let beyond = Positions::from([(at("lost", 0), 105)]);
    let error = read(config(servers, "lost"), &beyond).await.unwrap_err();
    assert!(error.message().contains("cut back to offset 100") && error.hint().unwrap().contains("--reset-source"));
    // Going on there, offsets that are given out again are not read a second time.
    let mut consumer = Consumer::new(skip).unwrap();
    consumer.open(&beyond, false).await.unwrap();
    send(&mut producer, "lost", 0, 100..110).await;
    producer.flush().await.unwrap();
    let mut seen = Read::default();
    seen.until(&mut consumer, 5).await;
    assert_eq!((seen.values[&0].clone(), seen.gaps), (values(105..110), vec![(100, 105)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_is_noticed() {
    let servers = &broker::shared().plain;
    let admin = topic(servers, "anew", 1).await;
    let mut producer = Producer::new(servers).unwrap();
    send(&mut producer, "anew", 0, 0..10).await;
    producer.flush().await.unwrap();
    let mut consumer = Consumer::new(config(servers, "anew")).unwrap();
    consumer.open(&Positions::new(), false).await.unwrap();
    let before = consumer.identity().to_vec();
    assert!(before.iter().any(|(key, id)| key == "cluster_id" && !id.is_empty()), "{before:?}");
    assert!(before.iter().any(|(key, id)| key == "topic_id.anew" && !id.is_empty()), "{before:?}");
    let mut seen = Read::default();
    seen.until(&mut consumer, 10).await;
    drop(consumer);
    admin.delete_topic("anew").await.unwrap();
    admin.create_topic(&TopicSpec::event_time("anew", 1)).await.unwrap();
    // The caller can compare identities although the position lies beyond the new topic's end.
    let mut consumer = Consumer::new(config(servers, "anew")).unwrap();
    consumer.open(&seen.positions, false).await.unwrap();
    let after = consumer.identity().to_vec();
    let changed = |key: &str| before.iter().find(|(k, _)| k == key) != after.iter().find(|(k, _)| k == key);
    assert!(changed("topic_id.anew") && !changed("cluster_id"));
    // And while reading.
    let mut consumer = Consumer::new(config(servers, "anew")).unwrap();
    consumer.open(&Positions::new(), false).await.unwrap();
    admin.delete_topic("anew").await.unwrap();
    let _ = admin.create_topic(&TopicSpec::event_time("anew", 1)).await;
    let error = loop {
        match tokio::time::timeout(PATIENCE, consumer.next()).await.expect("unnoticed") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error.code(), "source-recreated" | "unknown-topic"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn group_offsets_and_lag_are_for_lag_tools() {
    let servers = &broker::shared().plain;
    let admin = topic(servers, "lag", 1).await;
    let mut producer = Producer::new(servers).unwrap();
    send(&mut producer, "lag", 0, 0..10).await;
    producer.flush().await.unwrap();
    let mut consumer = Consumer::new(config(servers, "lag")).unwrap();
    consumer.open(&Positions::new(), false).await.unwrap();
    let mut seen = Read::default();
    seen.until(&mut consumer, 10).await;
    assert_eq!(consumer.lag(), Positions::from([(at("lag", 0), 0)]));
    consumer.commit(&Positions::from([(at("lag", 0), 4)])).await.unwrap();
    assert_eq!(admin.committed("smelt-test-lag", "lag", 1).await.unwrap(), Positions::from([(at("lag", 0), 4)]));
    // Never read back.
    assert_eq!(read(config(servers, "lag"), &Positions::new()).await.unwrap().count(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn sasl_over_tls_works_by_properties() {
    let addresses = broker::shared();
    topic(&addresses.plain, "tls", 1).await;
    let mut producer = Producer::new(&addresses.plain).unwrap();
    send(&mut producer, "tls", 0, 0..10).await;
    producer.flush().await.unwrap();
    let secure = |password: &str| {
        let mut config = config(&addresses.tls, "tls");
        let certificate = addresses.certificate.display().to_string();
        for (key, value) in [
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", broker::USER),
            ("sasl.password", password),
            ("ssl.ca.location", &certificate),
            ("socket.connection.setup.timeout.ms", "5000"),
        ] {
            config.properties.insert(key.into(), value.into());
        }
        config
    };
    assert_eq!(read(secure(broker::PASSWORD), &Positions::new()).await.unwrap().values[&0], values(0..10));
    let error = read(secure("wrong"), &Positions::new()).await.unwrap_err();
    assert_eq!(error.code(), "kafka-unreachable");
    assert!(error.message().contains("uthentication failed"), "{error}");
    assert!(error.hint().unwrap().contains("sasl.*"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_topic_and_a_silent_broker_are_clear_errors() {
    let servers = &broker::shared().plain;
    topic(servers, "call_event", 1).await;
    let error = read(config(servers, "call_evnt"), &Positions::new()).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("unknown-topic", ErrorKind::User));
    assert_eq!(error.hint(), Some("did you mean `call_event`?"));
    // Nobody listens on port 1.
    let mut down = config("127.0.0.1:1", "calls");
    down.properties.insert("socket.connection.setup.timeout.ms".into(), "1500".into());
    let started = Instant::now();
    let error = read(down, &Positions::new()).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(15));
    assert_eq!((error.code(), error.is_retryable()), ("kafka-unreachable", true));
    assert!(error.message().contains("127.0.0.1:1") && error.message().contains("refused"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_survives_brokers_that_go_and_come() {
    let mut broker = Broker::start();
    let servers = broker.addresses().plain;
    topic(&servers, "restart", 2).await;
    let mut producer = Producer::new(&servers).unwrap();
    send(&mut producer, "restart", 0, 0..1_000).await;
    producer.flush().await.unwrap();
    let mut consumer = Consumer::new(config(&servers, "restart")).unwrap();
    consumer.open(&Positions::new(), false).await.unwrap();
    let mut seen = Read::default();
    seen.until(&mut consumer, 1_000).await;
    for round in 1..3 {
        if round == 1 {
            broker.stop()
        } else {
            broker.kill()
        }
        let started = Instant::now();
        while consumer.trouble().is_none() {
            assert!(started.elapsed() < PATIENCE, "nobody noticed that the broker is gone");
            if let Ok(delivery) = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await {
                seen.take(delivery.unwrap());
            }
        }
        broker.restart();
        send(&mut producer, "restart", 0, round * 1_000..(round + 1) * 1_000).await;
        send(&mut producer, "restart", 1, (round - 1) * 500..round * 500).await;
        producer.flush().await.unwrap();
        seen.until(&mut consumer, 1_000 + round * 1_500).await;
    }
    assert_eq!(seen.values, BTreeMap::from([(0, values(0..3_000)), (1, values(0..1_000))]));
    assert_eq!(consumer.trouble(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_nothing_brings_back_is_replaced() {
    let mut broker = Broker::start();
    let (first, second) = (broker.addresses().plain, Broker::free_address());
    topic(&first, "moved", 1).await;
    let mut producer = Producer::new(&first).unwrap();
    send(&mut producer, "moved", 0, 0..100).await;
    producer.flush().await.unwrap();
    let mut config = config(&format!("{first},{second}"), "moved");
    for (key, value) in [
        // This client forgets the addresses it was given as soon as it knows the broker, whose address changes.
        ("metadata.recovery.strategy", "none"),
        ("socket.connection.setup.timeout.ms", "3000"),
        ("queued.max.messages.kbytes", "64"),
        ("fetch.message.max.bytes", "65536"),
    ] {
        config.properties.insert(key.into(), value.into());
    }
    let mut consumer = Consumer::new(config.clone()).unwrap();
    consumer.open(&Positions::new(), false).await.unwrap();
    let mut seen = Read::default();
    seen.until(&mut consumer, 100).await;
    let identity = consumer.identity().to_vec();
    broker.stop();
    broker.move_to(&second);
    broker.restart();
    let mut producer = Producer::new(&second).unwrap();
    send(&mut producer, "moved", 0, 100..100_000).await;
    producer.flush().await.unwrap();
    seen.until(&mut consumer, 100_000).await;
    assert_eq!(seen.values, BTreeMap::from([(0, values(0..100_000))]));
    assert_eq!((consumer.identity(), consumer.trouble()), (identity.as_slice(), None));

    // In a run that ends, too, with much of it unread.
    let mut consumer = Consumer::new(config).unwrap();
    let mut seen = Read { positions: consumer.open(&Positions::new(), true).await.unwrap(), ..Read::default() };
    seen.take(consumer.next().await.unwrap());
    assert!(seen.count() < 100_000);
    broker.stop();
    broker.move_to(&first);
    broker.restart();
    let mut producer = Producer::new(&first).unwrap();
    send(&mut producer, "moved", 0, 100_000..100_010).await;
    producer.flush().await.unwrap();
    seen.until_end(&mut consumer).await.unwrap();
    assert_eq!(seen.values[&0][..100_000], values(0..100_000));
}

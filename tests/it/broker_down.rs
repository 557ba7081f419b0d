//! Kafka that is not there, at the start and in the middle, seen through the binary.

use smelt::kafka::{Admin, Producer, Record, TopicSpec};
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::support::{Sandbox, eventually};

const PATIENCE: Duration = Duration::from_secs(90);

fn project(servers: &str) -> Sandbox {
    let project = format!(
        "name: telco\ntarget: dev\ntargets:\n  dev:\n    lake: ./lake\n    commit_interval: 200ms\n    connections:\n      broker: \
         {{type: kafka, bootstrap.servers: \"{servers}\", socket.connection.setup.timeout.ms: 1500}}\n"
    );
    Sandbox::with(&[
        ("smelt.yml", &project),
        (
            "models/sources.yml",
            "version: 2\nsources:\n  - name: telco\n    config: {connector: kafka, connection: broker, format: json}\n    tables:\n      \
             - name: calls\n        config: {topic: calls}\n        columns: [{name: id, data_type: BIGINT}]\n",
        ),
        (
            "queries/calls.sql",
            "{{ config(materialized='streaming_table') }}\nselect id from {{ source('telco', 'calls') }}",
        ),
        ("queries/total.sql", "select count(*) as n, sum(id) as ids from {{ ref('calls') }}"),
    ])
}

async fn send(servers: &str, ids: std::ops::Range<i64>) {
    let mut producer = Producer::new(servers).unwrap();
    for id in ids {
        let value = format!("{{\"id\": {id}}}");
        let record = Record {
            topic: "calls",
            partition: (id % 2) as i32,
            key: None,
            value: Some(value.as_bytes()),
            timestamp_millis: Some(1_700_000_000_000 + id),
        };
        producer.send(record).await.unwrap();
    }
    producer.flush().await.unwrap();
}

#[track_caller]
fn assert_exact(sandbox: &Sandbox, rows: i64) {
    let all = format!("{{\"n\":{rows},\"ids\":{}}}", rows * (rows - 1) / 2);
    assert_eq!(sandbox.rows("select * from total"), std::slice::from_ref(&all));
    assert_eq!(sandbox.rows("select count(distinct id) as n, sum(id) as ids from calls"), [all]);
    assert_eq!(sandbox.count("calls"), rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_down_at_the_start_and_in_the_middle_costs_no_row() {
    let mut broker = Broker::start();
    let servers = broker.addresses().plain;
    let admin = Admin::new(&servers).unwrap();
    admin.create_topic(&TopicSpec::event_time("calls", 2)).await.unwrap();
    send(&servers, 0..500).await;
    broker.stop();
    let sandbox = project(&servers);
    // A bounded run gives up after its attempts, and says what to look at.
    let started = Instant::now();
    let ended = sandbox.smelt(&["run"]).fails(2, "error[kafka-unreachable]: source telco.calls");
    assert!(ended.stderr.contains("check `bootstrap.servers`"), "{}", ended.stderr);
    assert!(started.elapsed() < PATIENCE);
    assert_eq!(ended.stderr.matches("source telco.calls").count(), ended.stderr.matches("kafka-unreachable").count());
    assert_eq!(sandbox.count("calls"), 0, "the tables are there and empty");
    sandbox.smelt(&["debug"]).fails(1, "error[kafka-unreachable]: source telco.calls");
    // `up` waits for it.
    let mut up = sandbox.spawn(&["up"], &[]);
    eventually("it says that Kafka is away", PATIENCE, || up.log().contains("kafka-unreachable"));
    broker.restart();
    eventually("the first records are in", PATIENCE, || sandbox.count("calls") == 500);
    for round in 1..3 {
        if round == 1 {
            broker.stop()
        } else {
            broker.kill()
        }
        std::thread::sleep(Duration::from_secs(3));
        assert!(up.is_running(), "{}", up.log());
        broker.restart();
        send(&servers, round * 500..(round + 1) * 500).await;
        let rows = (round + 1) * 500;
        eventually("the later records are in", PATIENCE, || sandbox.count("calls") == rows);
    }
    assert_eq!(up.stop(), Some(0), "{}", up.log());
    assert_exact(&sandbox, 1_500);
    sandbox.smelt(&["run"]).ok();
    assert_exact(&sandbox, 1_500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_there_is_named_with_the_one_that_was_meant() {
    let servers = &crate::broker::shared().plain;
    let admin = Admin::new(servers).unwrap();
    admin.create_topic(&TopicSpec::event_time("callz", 1)).await.unwrap();
    let sandbox = project(servers);
    let ended = sandbox.smelt(&["run"]).fails(2, "error[unknown-topic]");
    assert!(ended.stderr.contains("calls") && ended.stderr.contains("did you mean `callz`?"), "{}", ended.stderr);
    admin.create_topic(&TopicSpec::event_time("calls", 2)).await.unwrap();
    send(servers, 0..10).await;
    sandbox.smelt(&["run"]).ok();
    assert_exact(&sandbox, 10);
}

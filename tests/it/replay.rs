//! Views over sources, and sources themselves, in queries: read from the source, to one end, in the rows its readers would have.

use smelt::kafka::{Admin, Producer, Record, TopicSpec};

use crate::broker;
use crate::support::Sandbox;

fn settings(servers: &str) -> String {
    format!(
        "name: shop\ntarget: dev\ntargets:\n  dev:\n    lake: ./lake\n    commit_interval: 100ms\n    connections: {{k: {{type: kafka, bootstrap.servers: \"{servers}\"}}}}\n"
    )
}

const ORDERS: &str = "version: 2
sources:
  - name: raw
    config: {connector: files, format: json}
    tables:
      - name: orders
        config: {path: data, include: {partition: file}}
        columns: [{name: id, data_type: BIGINT}]
";

#[test]
fn an_older_epoch_is_read_to_where_its_tables_had_read() {
    let sandbox = Sandbox::with(&[
        ("smelt.yml", &settings("nowhere:1")),
        ("models/sources.yml", ORDERS),
        ("queries/seen.sql", "{{ config(materialized='view') }}\nselect * from {{ source('raw', 'orders') }}"),
        ("queries/kept.sql", "select * from {{ ref('seen') }}"),
        ("data/b.json", "{\"id\": 1}\n"),
    ]);
    sandbox.smelt(&["query", "select * from seen", "--epoch", "1"]).fails(2, "error[unknown-epoch]");
    assert_eq!(sandbox.count("seen"), 1, "nothing has run yet");
    sandbox.smelt(&["run"]).ok();
    // Its name comes first, its number does not.
    sandbox.write("data/a.json", "{\"id\": 2}\n");
    let both = [r#"{"id":1,"file":0}"#, r#"{"id":2,"file":1}"#];
    assert_eq!(sandbox.rows("select id, file from seen"), both);
    assert_eq!(sandbox.rows("select id, file from kept"), both[..1]);
    let epoch = sandbox.value("select max(epoch) from _smelt.epochs").to_string();
    let then = sandbox.smelt(&["query", "select id, file from seen", "--epoch", &epoch, "--output", "json"]).ok();
    assert_eq!(then.stdout.trim(), both[0]);
    sandbox
        .smelt(&["query", "select * from raw.orders", "--version", "1"])
        .fails(2, "source raw.orders has no versions");
    sandbox.smelt(&["run"]).ok();
    assert_eq!(sandbox.rows("select id, file from kept"), both);
    let shown = sandbox.smelt(&["show", "seen", "--output", "json"]).ok();
    assert_eq!(shown.stdout.lines().count(), 2);
}

#[test]
fn of_a_changelog_the_rows_are_there_that_it_leaves() {
    let sources = "version: 2
sources:
  - name: raw
    config: {connector: files, format: debezium-json, path: data}
    tables:
      - name: keyed
        config: {primary_key: [id]}
        columns: [{name: id, data_type: BIGINT}, {name: city, data_type: STRING}]
        data_tests: [{unique: {column_name: id}}]
      - name: signed
        columns: [{name: id, data_type: BIGINT}, {name: city, data_type: STRING}]
";
    let changes = "{\"op\": \"c\", \"before\": null, \"after\": {\"id\": 1, \"city\": \"Bonn\"}}
{\"op\": \"c\", \"before\": null, \"after\": {\"id\": 2, \"city\": \"Ulm\"}}
{\"op\": \"u\", \"before\": {\"id\": 1, \"city\": \"Bonn\"}, \"after\": {\"id\": 1, \"city\": \"Kiel\"}}
{\"op\": \"d\", \"before\": {\"id\": 2, \"city\": \"Ulm\"}, \"after\": null}
";
    let sandbox = Sandbox::with(&[
        ("smelt.yml", &settings("nowhere:1")),
        ("models/sources.yml", sources),
        ("data/1.json", changes),
        ("queries/tests/one.sql", "select * from {{ source('raw', 'signed') }} where city <> 'Kiel'"),
    ]);
    for table in ["raw.keyed", "\"raw\".\"signed\""] {
        assert_eq!(sandbox.rows(&format!("select * from {table}")), [r#"{"id":1,"city":"Kiel"}"#], "{table}");
    }
    let tested = sandbox.smelt(&["test"]).ok();
    assert!(tested.stdout.contains("PASS=2"), "{}", tested.stdout);
}

#[test]
fn what_never_ends_is_read_as_far_as_the_lake_has_read_it() {
    let sources = "version: 2
sources:
  - name: made
    tables:
      - name: ticks
        config: {connector: datagen, format: json, options: {rate: 7}}
        columns: [{name: n, data_type: BIGINT}]
";
    let sandbox = Sandbox::with(&[
        ("smelt.yml", &settings("nowhere:1")),
        ("models/sources.yml", sources),
        ("queries/seen.sql", "{{ config(materialized='view') }}\nselect n from {{ source('made', 'ticks') }}"),
        ("queries/sums.sql", "select count(*) as n from {{ ref('seen') }}"),
    ]);
    assert_eq!(sandbox.count("seen"), 7, "a second of it");
    for seconds in 1..4 {
        sandbox.smelt(&["run"]).ok();
        assert_eq!(sandbox.value("select n from sums"), 7 * seconds);
        assert_eq!(sandbox.count("seen"), 7 * seconds);
    }
    // Rebuilt, the table holds what it held.
    sandbox.write("queries/sums.sql", "select count(n) as n from {{ ref('seen') }} where n >= 0");
    sandbox.smelt(&["run"]).ok();
    assert_eq!(sandbox.value("select n from sums"), 28);
}

#[test]
fn a_topic_is_read_to_its_end_wherever_readers_start() {
    let servers = &broker::shared().plain;
    let topic = "replay-calls";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let send = |values: std::ops::Range<i32>| {
        runtime.block_on(async {
            let mut producer = Producer::new(servers).unwrap();
            for i in values {
                let value = if i == 3 { "{\"id\": \"bad\"}".to_string() } else { format!("{{\"id\": {i}}}") };
                let record = Record {
                    topic,
                    partition: i % 2,
                    key: None,
                    value: Some(value.as_bytes()),
                    timestamp_millis: None,
                };
                producer.send(record).await.unwrap();
            }
            producer.flush().await.unwrap();
        });
    };
    runtime.block_on(async {
        Admin::new(servers).unwrap().create_topic(&TopicSpec::event_time(topic, 2)).await.unwrap();
    });
    send(0..10);
    let sources = format!(
        "version: 2
sources:
  - name: telco
    config: {{connector: kafka, connection: k, format: json, start: latest}}
    tables:
      - name: calls
        config: {{topic: {topic}}}
        columns: [{{name: id, data_type: BIGINT, data_tests: [not_null, unique]}}]
"
    );
    let sandbox = Sandbox::with(&[
        ("smelt.yml", &settings(servers)),
        ("models/sources.yml", &sources),
        ("queries/seen.sql", "{{ config(materialized='view') }}\nselect id from {{ source('telco', 'calls') }}"),
        (
            "queries/calls.sql",
            "{{ config(materialized='streaming_table') }}\nselect id from STREAM {{ source('telco', 'calls') }}",
        ),
    ]);
    assert_eq!(sandbox.count("seen"), 9);
    sandbox.smelt(&["run"]).ok();
    send(10..14);
    sandbox.smelt(&["run"]).ok();
    assert_eq!(sandbox.count("calls"), 4);
    assert_eq!(sandbox.value("select count(*) as n from seen a join seen b on a.id = b.id"), 13);
    let tested = sandbox.smelt(&["test"]).ok();
    assert!(tested.stdout.contains("PASS=2"), "{}", tested.stdout);
}

//! `smelt source freshness` through the binary: files, Delta tables, generated rows, and a real broker.

use serde_json::Value;
use std::time::{Duration, SystemTime};

use smelt::kafka::{Admin, Producer, Record, TopicSpec};

use crate::broker;
use crate::support::Sandbox;

fn settings(servers: &str) -> String {
    format!(
        "name: shop\ntarget: dev\ntargets:\n  dev:\n    lake: ./lake\n    commit_interval: 100ms\n    connections: {{k: {{type: kafka, bootstrap.servers: \"{servers}\"}}}}\n"
    )
}

const FILES: &str = "version: 2
sources:
  - name: raw
    freshness: {warn_after: {count: 1, period: hour}, error_after: {count: 2, period: day}}
    config: {connector: files, format: json}
    tables:
      - name: orders
        config: {path: data}
        columns: [{name: id, data_type: BIGINT}]
      - name: unlimited
        freshness: null
        config: {path: data}
        columns: [{name: id, data_type: BIGINT}]
  - name: made
    schema: default
    tables:
      - name: by_commit
        identifier: loads
        config: {freshness: {error_after: {count: 10, period: minute}}}
        columns: [{name: id, data_type: BIGINT}, {name: loaded, data_type: TIMESTAMP}]
      - name: by_field
        identifier: loads
        loaded_at_field: loaded
        freshness: {warn_after: {count: 1, period: day}, filter: id > 1}
        columns: [{name: id, data_type: BIGINT}, {name: loaded, data_type: TIMESTAMP}]
";

fn results(sandbox: &Sandbox, path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(sandbox.path().join(path)).unwrap();
    let artifact: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(artifact["metadata"]["dbt_schema_version"], "https://schemas.getdbt.com/dbt/sources/v3.json");
    artifact["results"].as_array().unwrap().clone()
}

fn aged(sandbox: &Sandbox, path: &str, hours: u64) {
    let file = std::fs::File::options().write(true).open(sandbox.path().join(path)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
}

#[test]
fn files_by_their_age_and_delta_tables_by_field_or_commit() {
    let sandbox = Sandbox::with(&[
        ("smelt.yml", &settings("nowhere:1")),
        ("models/sources.yml", FILES),
        (
            "queries/loads.sql",
            "{{ config(materialized='table') }}\nselect 1 as id, now() as loaded union all select 2, now() - interval '3 days'",
        ),
        ("data/old.json", "{\"id\": 1}\n"),
        ("data/new.json", "{\"id\": 2}\n"),
    ]);
    sandbox.smelt(&["run"]).ok();
    aged(&sandbox, "data/old.json", 100);
    aged(&sandbox, "data/new.json", 3);
    let ended = sandbox.smelt(&["source", "freshness"]).ok();
    assert!(ended.stdout.contains("WARN freshness of raw.orders ."), "{}", ended.stdout);
    assert!(ended.stdout.contains("PASS freshness of made.by_commit ."), "{}", ended.stdout);
    assert!(ended.stdout.contains("WARN freshness of made.by_field ."), "{}", ended.stdout);
    assert!(ended.stdout.contains("Done. PASS=1 WARN=2 ERROR=0 TOTAL=3"), "{}", ended.stdout);
    let found = results(&sandbox, "target/sources.json");
    let orders = found.iter().find(|r| r["unique_id"] == "source.shop.raw.orders").unwrap();
    assert_eq!((&orders["status"], &orders["criteria"]["warn_after"]["period"]), (&"warn".into(), &"hour".into()));
    assert!((orders["max_loaded_at_time_ago_in_s"].as_f64().unwrap() - 3.0 * 3600.0).abs() < 600.0, "{orders}");

    crate::artifacts::valid(&sandbox, &["manifest.json", "run_results.json", "sources.json"]);
    aged(&sandbox, "data/new.json", 50);
    let ended = sandbox.smelt(&["source", "freshness", "--select", "source:raw", "--output", "out/fresh.json"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(ended.stdout.contains("ERROR STALE freshness of raw.orders ."), "{}", ended.stdout);
    assert_eq!(results(&sandbox, "out/fresh.json").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_by_its_newest_record_whatever_transactions_left_behind_it() {
    let servers = broker::shared().plain.clone();
    let admin = Admin::new(&servers).unwrap();
    for topic in ["fresh_orders", "fresh_nothing"] {
        admin.create_topic(&TopicSpec::event_time(topic, 3)).await.unwrap();
    }
    let now = i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let mut producer = Producer::new(&servers).unwrap();
    for (partition, hours) in [(0, 30), (1, 5), (0, 40)] {
        let record = Record {
            topic: "fresh_orders",
            partition,
            key: None,
            value: Some(b"{}"),
            timestamp_millis: Some(now - hours * 3_600_000),
        };
        producer.send(record).await.unwrap();
    }
    producer.flush().await.unwrap();
    let sources = "version: 2
sources:
  - name: k
    freshness: {warn_after: {count: 4, period: hour}, error_after: {count: 6, period: hour}}
    config: {connector: kafka, connection: k, format: json}
    tables:
      - {name: orders, config: {topic: fresh_orders}, columns: [{name: id, data_type: BIGINT}]}
      - {name: nothing, config: {topic: fresh_nothing}, columns: [{name: id, data_type: BIGINT}]}
      - {name: absent, config: {topic: fresh_absent}, columns: [{name: id, data_type: BIGINT}]}
";
    let sandbox = Sandbox::with(&[
        ("smelt.yml", &settings(&servers)),
        ("models/sources.yml", sources),
        ("queries/a.sql", "select 1 as id"),
    ]);
    let ended = tokio::task::spawn_blocking(move || {
        let ended = sandbox.smelt(&["source", "freshness"]);
        (ended, results(&sandbox, "target/sources.json"))
    });
    let (ended, found) = ended.await.unwrap();
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(ended.stdout.contains("WARN freshness of k.orders ."), "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("ERROR EMPTY freshness of k.nothing ."), "{}", ended.stdout);
    assert!(ended.stderr.contains("there is no topic `fresh_absent`"), "{}", ended.stderr);
    let orders = found.iter().find(|r| r["unique_id"] == "source.shop.k.orders").unwrap();
    assert!((orders["max_loaded_at_time_ago_in_s"].as_f64().unwrap() - 5.0 * 3600.0).abs() < 600.0, "{orders}");
    let absent = found.iter().find(|r| r["unique_id"] == "source.shop.k.absent").unwrap();
    assert_eq!(absent["status"], "runtime error");
}

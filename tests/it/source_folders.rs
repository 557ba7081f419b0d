//! `sources:` of a project file: configuration of all source tables below a folder.

use super::support::Sandbox;

const PROJECT: &str = "\
name: shop
version: '1.0'
profile: shop
sources:
  +meta: {owner: everybody, level: project}
  shop:
    +loaded_at_field: at
    landing:
      +meta: {level: landing}
      +tags: [landed]
      +connector: files
      +format: json
      +freshness: {warn_after: {count: 1, period: hour}}
      raw: {closed: {+enabled: false}}
";

const SOURCES: &str = "\
version: 2
sources:
  - name: raw
    config: {meta: {own: source}}
    tables:
      - name: clicks
        config: {meta: {smelt: {path: data/clicks}}, tags: [own], freshness: {error_after: {count: 1, period: day}}}
        columns: [{name: id, data_type: bigint}, {name: at, data_type: timestamp}]
      - name: visits
        config: {meta: {smelt: {path: data/visits, format: csv}}}
        columns: [{name: id, data_type: bigint}]
      - name: closed
        config: {meta: {smelt: {path: data/closed}}}
        columns: [{name: id, data_type: bigint}]
";

#[test]
fn a_folder_configures_the_sources_below_it() {
    let sandbox = Sandbox::with(&[
        ("dbt_project.yml", PROJECT),
        ("profiles.yml", "shop: {target: dev, outputs: {dev: {type: duckdb, path: shop.duckdb, schema: main}}}\n"),
        ("smelt.yml", "lake: ./lake\n"),
        ("models/landing/sources.yml", SOURCES),
        ("models/clicks.sql", "{{ config(materialized='table') }}select id from {{ source('raw', 'clicks') }}"),
        ("models/visits.sql", "{{ config(materialized='table') }}select id from {{ source('raw', 'visits') }}"),
        ("data/clicks/1.json", "{\"id\": 1, \"at\": \"2024-01-01T00:00:00Z\"}\n"),
        ("data/visits/1.csv", "id\n7\n"),
    ]);
    let built = sandbox.smelt(&["build"]).ok();
    assert!(!built.stderr.contains("unknown-config"), "{}", built.stderr);
    assert_eq!(sandbox.rows("select * from main.clicks"), [r#"{"id":1}"#]);
    assert_eq!(sandbox.rows("select * from main.visits"), [r#"{"id":7}"#], "the table's own word wins");
    let manifest = std::fs::read_to_string(sandbox.path().join("target/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let clicks = &manifest["sources"]["source.shop.raw.clicks"];
    assert_eq!(clicks["meta"]["owner"], "everybody");
    assert_eq!(clicks["meta"]["level"], "landing");
    assert_eq!(clicks["meta"]["own"], "source");
    assert_eq!(clicks["tags"], serde_json::json!(["landed", "own"]));
    assert_eq!(clicks["loaded_at_field"], "at");
    assert_eq!(clicks["freshness"]["warn_after"], serde_json::json!({"count": 1, "period": "hour"}));
    assert_eq!(clicks["freshness"]["error_after"], serde_json::json!({"count": 1, "period": "day"}));
    assert!(manifest["sources"]["source.shop.raw.closed"].is_null());
    let listed = sandbox.smelt(&["ls", "--select", "tag:landed", "--resource-type", "source"]).ok();
    assert_eq!(listed.stdout.lines().count(), 2, "{}", listed.stdout);
}

//! `--defer`: models that are not built here are read from the tables of another run, in its own lake.

use crate::support::Sandbox;

/// Two targets with a lake each; a stream, views on it, an incremental model, a snapshot, tests.
fn shop() -> Sandbox {
    let sandbox = Sandbox::with(&[
        (
            "smelt.yml",
            "name: shop\ntarget: dev\nmodels: {shop: {+schema: \"{{ 'live' if target.name == 'prod' else 'mine' }}\"}}\n\
             snapshots: {shop: {+schema: \"{{ 'live' if target.name == 'prod' else 'mine' }}\"}}\n\
             targets:\n  dev: {lake: ./dev, commit_interval: 100ms}\n  prod: {lake: ./prod, commit_interval: 100ms}\n",
        ),
        (
            "models/shop.yml",
            "version: 2\nsources:\n  - name: raw\n    config: {connector: files, format: json}\n    tables:\n      - name: orders\n        \
             config: {path: data}\n        columns: [{name: id, data_type: BIGINT}, {name: amount, data_type: BIGINT}]\nmodels:\n  \
             - {name: orders, columns: [{name: id, data_tests: [not_null]}]}\n\
             snapshots:\n  - {name: history, relation: ref('totals'), config: {strategy: check, unique_key: id, check_cols: all}}\n",
        ),
        (
            "queries/orders.sql",
            "{{ config(materialized='streaming_table') }}\nselect * from {{ source('raw', 'orders') }}",
        ),
        ("queries/large.sql", "{{ config(materialized='view') }}select * from {{ ref('orders') }} where amount > 1"),
        ("queries/totals.sql", "select id, sum(amount) as amount from {{ ref('large') }} group by id"),
        ("queries/report.sql", "select count(*) as n, sum(amount) as amount from {{ ref('totals') }}"),
        (
            "queries/copied.sql",
            "{{ config(materialized='streaming_table') }}\nselect id, amount from STREAM {{ ref('orders') }}",
        ),
        (
            "queries/grown.sql",
            "{{ config(materialized='incremental', unique_key='id') }}\nselect id, amount from {{ ref('orders') }}\n\
             {% if is_incremental() %} where id > (select max(id) from {{ this }}) {% endif %}",
        ),
        ("queries/tests/positive.sql", "select * from {{ ref('totals') }} where amount < 0"),
        ("data/1.json", "{\"id\": 1, \"amount\": 5}\n{\"id\": 2, \"amount\": 7}\n{\"id\": 1, \"amount\": 1}\n"),
    ]);
    sandbox.smelt(&["run", "--target", "prod"]).ok();
    keep_artifacts(&sandbox);
    sandbox
}

fn keep_artifacts(sandbox: &Sandbox) {
    let manifest = std::fs::read(sandbox.path().join("target/manifest.json")).unwrap();
    sandbox.write("prod-artifacts/manifest.json", manifest);
}

/// More rows in production, and nowhere else.
fn more(sandbox: &Sandbox, file: &str, text: &str) {
    sandbox.write(file, text);
    sandbox.smelt(&["run", "--target", "prod"]).ok();
}

const DEFER: [&str; 3] = ["--defer", "--state", "prod-artifacts"];

#[test]
fn what_is_not_built_here_is_read_from_the_other_lake() {
    let sandbox = shop();
    sandbox.smelt(&["run", "--select", "totals"]).fails(2, "or read the table of another run: --defer --state DIR");
    let ran = sandbox.smelt(&[&["run", "--select", "totals", "report"], &DEFER[..]].concat()).ok();
    let prod = sandbox.path().join("prod");
    assert!(ran.stdout.contains(&format!("deferred to {}: live.orders", prod.display())), "{}", ran.stdout);
    assert_eq!(
        sandbox.rows("select id, amount from mine.totals"),
        [r#"{"id":1,"amount":5}"#, r#"{"id":2,"amount":7}"#]
    );
    assert_eq!(sandbox.value("select amount from report"), 12, "its own table is read, not the other run's");
    assert!(!sandbox.path().join("dev/mine/orders").exists());

    // The other lake goes on, and so does this one; nothing is written there.
    let instances = || std::fs::read_dir(prod.join("_smelt/instances")).unwrap().count();
    let before = instances();
    more(&sandbox, "data/2.json", "{\"id\": 2, \"amount\": 3}\n");
    assert_eq!(instances(), before + 1);
    sandbox.smelt(&[&["run", "--select", "totals"], &DEFER[..]].concat()).ok();
    assert_eq!(instances(), before + 1);
    assert_eq!(sandbox.value("select amount from totals where id = 2"), 10);

    // Once it is built here, it is read here.
    sandbox.smelt(&["run"]).ok();
    let ran = sandbox.smelt(&[&["run", "--select", "totals"], &DEFER[..]].concat()).ok();
    assert!(!ran.stdout.contains("deferred to"), "{}", ran.stdout);
    let ran = sandbox.smelt(&[&["run", "--select", "totals", "--favor-state"], &DEFER[..]].concat()).ok();
    assert!(ran.stdout.contains("live.orders, live.copied, live.grown, live.history, live.report"), "{}", ran.stdout);
}

#[test]
fn streams_incremental_models_and_snapshots_follow_the_other_lake() {
    let sandbox = shop();
    let select = ["run", "--select", "copied", "grown", "history"];
    sandbox.smelt(&[&select[..], &DEFER[..]].concat()).ok();
    assert_eq!(sandbox.count("mine.copied"), 3);
    assert_eq!(sandbox.value("select sum(amount) from grown where id = 2"), 7);
    assert_eq!(sandbox.count("mine.history"), 2);
    more(&sandbox, "data/2.json", "{\"id\": 3, \"amount\": 30}\n");
    more(&sandbox, "data/3.json", "{\"id\": 4, \"amount\": 40}\n");
    for _ in 0..2 {
        sandbox.smelt(&[&select[..], &DEFER[..]].concat()).ok();
        assert_eq!(sandbox.count("mine.copied"), 5, "each row of the other lake once");
        assert_eq!(sandbox.count("mine.grown"), 5);
    }
    sandbox.smelt(&[&["snapshot"], &DEFER[..]].concat()).ok();
    assert_eq!(sandbox.count("mine.history"), 4);
}

#[test]
fn tests_and_compiled_sql_name_the_other_tables() {
    let sandbox = shop();
    let tested = sandbox.smelt(&[&["test"], &DEFER[..]].concat()).ok();
    assert!(tested.stdout.contains("PASS=2"), "{}", tested.stdout);
    sandbox.smelt(&["test"]).fails(1, "has no table yet");
    sandbox.write("queries/tests/positive.sql", "select * from {{ ref('totals') }} where amount > 6");
    let failed = sandbox.smelt(&[&["test", "--select", "positive"], &DEFER[..]].concat());
    assert_eq!(failed.code, Some(1), "{}", failed.stdout);
    sandbox.smelt(&[&["compile"], &DEFER[..]].concat()).ok();
    let compiled = std::fs::read_to_string(sandbox.path().join("target/compiled/queries/report.sql")).unwrap();
    assert!(compiled.contains("from \"live\".\"totals\""), "{compiled}");
    let manifest = std::fs::read_to_string(sandbox.path().join("target/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let totals = &manifest["nodes"]["model.shop.totals"];
    assert_eq!(totals["schema"], "mine");
    assert_eq!(totals["defer_relation"]["relation_name"], "\"live\".\"totals\"");
    // `build` makes what is selected and tests it where it is.
    let built = sandbox.smelt(&[&["build", "--select", "totals"], &DEFER[..]].concat());
    assert!(built.stdout.contains("FAIL 1 positive"), "{}", built.stdout);
    assert_eq!(sandbox.count("mine.totals"), 2);
}

#[test]
fn one_lake_may_hold_both_runs() {
    let sandbox = shop();
    let run = ["run", "--select", "report", "--lake", "./prod"];
    let ran = sandbox.smelt(&[&run[..], &DEFER[..]].concat()).ok();
    assert!(ran.stdout.contains("live.totals") && ran.stdout.contains("mine.report"), "{}", ran.stdout);
    let found = sandbox.smelt(&["query", "select amount from report", "--lake", "./prod", "--output", "csv"]).ok();
    assert_eq!(found.stdout, "amount\n12\n");
}

#[test]
fn what_is_missing_is_named() {
    let sandbox = shop();
    sandbox.smelt(&["run", "--select", "totals", "--defer"]).fails(2, "--defer needs another run to read from");
    sandbox.smelt(&["run", "--select", "totals", "--defer", "--defer-state", "data"]).fails(2, "has no manifest.json");
    // What nothing here reads need not be there.
    sandbox.remove("prod/live/copied");
    sandbox.smelt(&[&["run", "--select", "report"], &DEFER[..]].concat()).ok();
    sandbox.remove("prod/live/orders");
    let run = [&["run", "--select", "totals"], &DEFER[..]].concat();
    sandbox.smelt(&run).fails(2, "`orders` is deferred to `live`.`orders`").fails(2, "which is not there");
}

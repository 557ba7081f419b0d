//! `smelt retry`: the last command for what failed, and a running `up` asked to try its stopped models again.

use std::time::Duration;

use crate::support::{Sandbox, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

/// A model that fails as long as a row says zero, one that reads it, and one that has nothing to do with them.
fn project() -> Sandbox {
    Sandbox::with(&[
        (
            "smelt.yml",
            "name: shop\ntarget: dev\ntargets:\n  dev: {lake: ./lake, commit_interval: 100ms}\nmodels: {shop: {+schema: shop}}\n",
        ),
        (
            "models/shop.yml",
            "version: 2\nsources:\n  - name: raw\n    config: {connector: files, format: json}\n    tables:\n      - name: orders\n        \
             config: {path: data}\n        columns: [{name: id, data_type: BIGINT}, {name: amount, data_type: BIGINT}]\nmodels:\n  \
             - {name: shares, expectations: [{name: positive, expect: amount > 0, on_violation: fail}]}\n",
        ),
        (
            "queries/orders.sql",
            "{{ config(materialized='streaming_table') }}\nselect * from {{ source('raw', 'orders') }}",
        ),
        (
            "queries/shares.sql",
            "select id, sum(amount) as amount from {{ ref('orders') }} where amount < {{ var('limit', 1000) }} group by id",
        ),
        ("queries/readers.sql", "select count(*) as n from {{ ref('shares') }}"),
        ("queries/other.sql", "select count(*) as n from {{ ref('orders') }}"),
        ("data/1.json", "{\"id\": 1, \"amount\": 5}\n{\"id\": 2, \"amount\": -7}\n"),
    ])
}

/// What the first run of that project has left.
fn results(args: &str, statuses: &[(&str, &str)]) -> String {
    let one = |(id, status): &(&str, &str)| format!(r#"{{"unique_id": "model.shop.{id}", "status": "{status}"}}"#);
    let results: Vec<String> = statuses.iter().map(one).collect();
    format!(r#"{{"metadata": {{}}, "args": {args}, "results": [{}]}}"#, results.join(", "))
}

#[test]
fn what_failed_or_was_skipped_runs_again_with_the_flags_of_then() {
    let sandbox = project();
    sandbox.smelt(&["retry"]).fails(2, "no previous run");
    sandbox.smelt(&["run"]).fails(1, "positive");
    let statuses = [("orders", "success"), ("other", "success"), ("shares", "error"), ("readers", "skipped")];
    let args = r#"{"which": "run", "select": ["+readers"], "vars": {"limit": 100}, "epoch_rows": 5, "invocation_command": "x"}"#;
    sandbox.write("target/run_results.json", results(args, &statuses));
    // The record that is wrong is corrected; one above the limit of then does not come in.
    sandbox.write("data/2.json", "{\"id\": 2, \"amount\": 20}\n{\"id\": 3, \"amount\": 500}\n");
    sandbox.smelt(&["run", "--select", "orders"]).ok();
    sandbox.write("target/run_results.json", results(args, &statuses));
    let ended = sandbox.smelt(&["retry"]).ok();
    assert!(ended.stdout.contains("shop.shares") && ended.stdout.contains("shop.readers"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("shop.other"), "{}", ended.stdout);
    assert_eq!(sandbox.rows("select id, amount from shares"), [r#"{"id":1,"amount":5}"#, r#"{"id":2,"amount":13}"#]);
    sandbox.write("target/run_results.json", results(args, &[("shares", "success")]));
    assert!(sandbox.smelt(&["retry"]).ok().stdout.contains("nothing failed in the last `smelt run`"));
    sandbox.write("target/run_results.json", results(r#"{"which": "list"}"#, &[("shares", "error")]));
    sandbox.smelt(&["retry"]).fails(2, "the last command was `list`, which cannot be repeated");
    sandbox.write("target/run_results.json", "{");
    sandbox.smelt(&["retry"]).fails(2, "is no artifact");
}

#[test]
fn every_flag_of_the_last_command_is_repeated() {
    let sandbox = project();
    let flags =
        ["--vars", "{limit: 100}", "--epoch-rows", "5", "--target", "dev", "--threads", "1", "--exclude", "other"];
    sandbox.smelt(&[&["run"], &flags[..]].concat()).fails(1, "positive");
    let path = sandbox.path().join("target/run_results.json");
    let results = std::fs::read_to_string(&path).unwrap();
    let args = serde_json::from_str::<serde_json::Value>(&results).unwrap()["args"].clone();
    assert_eq!(args["vars"], serde_json::json!({"limit": 100}));
    assert_eq!((&args["epoch_rows"], &args["threads"]), (&serde_json::json!(5), &serde_json::json!(1)));
    sandbox.write("data/2.json", "{\"id\": 2, \"amount\": 20}\n{\"id\": 3, \"amount\": 500}\n");
    sandbox.smelt(&["run", "--select", "orders"]).ok();
    sandbox.write("target/run_results.json", &results);
    let ended = sandbox.smelt(&["retry"]).ok();
    assert!(!ended.stdout.contains("shop.other"), "{}", ended.stdout);
    assert_eq!(sandbox.value("select count(*) from shares where amount > 100"), 0, "with the variable of then");
    let again = std::fs::read_to_string(&path).unwrap();
    let args = serde_json::from_str::<serde_json::Value>(&again).unwrap()["args"].clone();
    assert_eq!((&args["epoch_rows"], &args["vars"]["limit"]), (&serde_json::json!(5), &serde_json::json!(100)));
}

#[test]
fn a_running_up_tries_its_stopped_models_again() {
    let sandbox = project();
    let mut up = sandbox.spawn(&["up"], &[]);
    eventually("a model stops", PATIENCE, || up.log().contains("shares stopped"));
    // What it reads is mended behind its back.
    sandbox.write("data/2.json", "{\"id\": 2, \"amount\": 20}\n");
    eventually("the correction is there", PATIENCE, || sandbox.count("orders") == 3);
    let ended = sandbox.smelt(&["retry"]).ok();
    assert!(ended.stdout.contains("to try its stopped models again"), "{}", ended.stdout);
    eventually("the model and its reader are there", PATIENCE, || {
        sandbox.smelt(&["query", "select n from readers", "--output", "json"]).stdout.trim() == r#"{"n":2}"#
    });
    assert!(up.log().contains("asked to try stopped models again"), "{}", up.log());
    assert_eq!(up.stop(), Some(0), "{}", up.log());
}

#[test]
fn failing_fast_leaves_the_rest_alone() {
    let sandbox = project();
    sandbox.write("queries/tests/a_first.sql", "select 1 as x");
    sandbox.write("queries/tests/b_second.sql", "select 2 as x");
    sandbox.smelt(&["run", "--select", "orders"]).ok();
    assert!(sandbox.smelt(&["test"]).fails(1, "").stdout.contains("ERROR=2"));
    let ended = sandbox.smelt(&["test", "--fail-fast"]).fails(1, "");
    assert!(ended.stdout.contains("ERROR=1") && ended.stdout.contains("SKIP=1"), "{}", ended.stdout);
    assert!(sandbox.smelt(&["test", "-x", "--no-fail-fast"]).fails(1, "").stdout.contains("b_second"));
    let ended = sandbox.smelt(&["build", "-x"]).fails(1, "");
    assert!(ended.stdout.contains("Done. PASS=0 WARN=0 ERROR=1 SKIP=5 TOTAL=6"), "{}", ended.stdout);
    sandbox.remove("queries/tests");
    sandbox.smelt(&["build", "-x"]).fails(1, "positive");
    sandbox.smelt(&["run", "--threads", "0"]).fails(2, "--threads");
}

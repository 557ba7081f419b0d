//! `_smelt.runs` and `smelt runs`: what was made and tested, when, and how it ended. `smelt debug` as programs read it.

use serde_json::Value;
use std::time::Duration;

use crate::support::{Sandbox, eventually};

fn shop() -> Sandbox {
    Sandbox::with(&[
        ("smelt.yml", "name: shop\ntarget: dev\ntargets:\n  dev: {lake: ./lake, commit_interval: 100ms}\n"),
        (
            "models/shop.yml",
            "version: 2\nsources:\n  - name: raw\n    config: {connector: files, format: json}\n    tables:\n      - name: orders\n        \
             config: {path: data}\n        columns: [{name: id, data_type: BIGINT}, {name: amount, data_type: BIGINT}]\nmodels:\n  \
             - name: orders\n    expectations:\n      - {name: small, expect: amount < 100, on_violation: quarantine}\n      \
             - {name: even, expect: amount % 2 = 0, on_violation: warn}\n    columns: [{name: id, data_tests: [unique]}]\n",
        ),
        ("queries/orders.sql", "select id, amount from {{ source('raw', 'orders') }}"),
        (
            "queries/totals.sql",
            "{{ config(materialized='table', schedule='every 1 second') }}\nselect count(*) as n from {{ ref('orders') }}",
        ),
        ("data/1.json", "{\"id\": 1, \"amount\": 2}\n{\"id\": 2, \"amount\": 3}\n{\"id\": 3, \"amount\": 500}\n"),
    ])
}

#[test]
fn every_command_notes_what_it_did_to_each_node() {
    let sandbox = shop();
    assert!(sandbox.smelt(&["runs"]).ok().stdout.contains("no runs"));
    sandbox.smelt(&["build"]).ok();
    let noted = "select command, resource_type, name, status, rows, rows_inserted, failures from _smelt.runs";
    assert_eq!(
        sandbox.rows(noted),
        [
            r#"{"command":"build","resource_type":"model","name":"orders","status":"success","rows":2,"rows_inserted":2,"failures":null}"#,
            r#"{"command":"build","resource_type":"model","name":"totals","status":"success","rows":1,"rows_inserted":1,"failures":null}"#,
            r#"{"command":"build","resource_type":"test","name":"unique_orders_id","status":"pass","rows":null,"rows_inserted":null,"failures":0}"#,
        ]
    );
    sandbox.write("data/2.json", "{\"id\": 1, \"amount\": 4}\n");
    sandbox.smelt(&["test"]).ok();
    sandbox.smelt(&["run", "--select", "orders"]).ok();
    sandbox.smelt(&["build"]).fails(1, "");
    assert_eq!(sandbox.count("_smelt.runs"), 3 + 1 + 1 + 3);
    let failed = sandbox.smelt(&["runs", "--failed", "--output", "json"]).ok();
    let failed: Vec<Value> = failed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed.iter().any(|r| r["name"] == "totals" && r["status"] == "skipped"), "{failed:?}");
    let test = failed.iter().find(|r| r["name"] == "unique_orders_id").unwrap();
    assert_eq!((&test["status"], &test["failures"]), (&"fail".into(), &1.into()));
    let results = std::fs::read_to_string(sandbox.path().join("target/run_results.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    assert_eq!(test["invocation_id"], results["metadata"]["invocation_id"]);
    let shown = sandbox.smelt(&["runs", "orders", "--limit", "2"]).ok().stdout;
    assert_eq!(shown.matches("success").count(), 2, "{shown}");
    // `up` notes the runs that its schedules ask for.
    let mut up = sandbox.spawn(&["up"], &[]);
    eventually("a scheduled run is noted", Duration::from_secs(60), || {
        sandbox.count("_smelt.runs where command = 'up' and name = 'totals' and status = 'success'") > 0
    });
    assert_eq!(up.stop(), Some(0), "{}", up.log());
}

#[test]
fn the_table_stays_small() {
    let sandbox = shop();
    sandbox.smelt(&["run", "--select", "orders"]).ok();
    for _ in 0..66 {
        sandbox.smelt(&["test"]).ok();
    }
    assert_eq!(sandbox.count("_smelt.runs"), 67);
    let files = std::fs::read_dir(sandbox.table("_smelt", "runs")).unwrap();
    let live = sandbox.smelt(&["query", "select count(*) as n from _smelt.runs where command = 'run'"]).ok();
    assert!(live.stdout.contains("| 1 |"), "{}", live.stdout);
    let log = std::fs::read_dir(sandbox.table("_smelt", "runs").join("_delta_log")).unwrap();
    let checkpoints = log.filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().contains("checkpoint")).count();
    assert!(checkpoints > 0, "it was written anew: {} files", files.count());
}

#[test]
fn what_is_recomputed_counts_only_what_is_new() {
    let sandbox = shop();
    let first = sandbox.smelt(&["run"]).ok();
    assert!(
        first.stdout.contains("1 quarantined, 2 violated even, 1 violated small")
            || first.stdout.contains("1 quarantined, 1 violated even, 1 violated small"),
        "{}",
        first.stdout
    );
    // The model is recomputed at each start: nothing new is violated.
    sandbox
        .write("data/2.json", "{\"id\": 4, \"amount\": 700}\n{\"id\": 5, \"amount\": 9}\n{\"id\": 6, \"amount\": 8}\n");
    let second = sandbox.smelt(&["run"]).ok();
    assert!(second.stdout.contains("(+2 −0)"), "{}", second.stdout);
    assert!(second.stdout.contains("1 quarantined, 1 violated even, 1 violated small"), "{}", second.stdout);
}

#[test]
fn debug_says_what_it_found_to_a_program() {
    let sandbox = shop();
    sandbox.smelt(&["run"]).ok();
    let found: Value = serde_json::from_str(&sandbox.smelt(&["debug", "--output", "json"]).ok().stdout).unwrap();
    assert_eq!((&found["project"], &found["models"], &found["target"]), (&"shop".into(), &2.into(), &"dev".into()));
    assert_eq!((&found["checks"][0]["check"], &found["checks"][0]["status"]), (&"lake".into(), &"ok".into()));
    assert!(found["checks"][0]["found"].as_str().unwrap().contains("tables; last written by instance"), "{found}");
    sandbox.write("lake2", "no folder");
    let failed = sandbox.smelt(&["debug", "--output", "json", "--lake", "lake2/x"]);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    let found: Value = serde_json::from_str(&failed.stdout).unwrap();
    assert_eq!(found["checks"][0]["status"], "error", "{found}");
}

#[test]
fn up_leaves_the_results_of_its_runs() {
    let sandbox = shop();
    let query = |divisor: &str| {
        format!(
            "{{{{ config(materialized='table', schedule='every 1 second') }}}}\nselect 6 / ({divisor}) as n from {{{{ ref('orders') }}}}"
        )
    };
    sandbox.write("queries/fragile.sql", query("count(*)"));
    let results = || {
        let text = std::fs::read_to_string(sandbox.path().join("target/run_results.json")).unwrap_or_default();
        let results: Value = serde_json::from_str(&text).unwrap_or_default();
        let status = |name: &str| {
            let all = results["results"].as_array().cloned().unwrap_or_default();
            let found = all.into_iter().find(|r| r["unique_id"] == format!("model.shop.{name}"));
            found.map(|r| r["status"].as_str().unwrap().to_string())
        };
        (status("totals"), status("fragile"), results)
    };
    let mut up = sandbox.spawn(&["up"], &[]);
    eventually("runs have results", Duration::from_secs(60), || results().1.as_deref() == Some("success"));
    let (totals, _, first) = results();
    assert_eq!(totals.as_deref(), Some("success"));
    assert_eq!(first["args"]["which"], "up");
    sandbox.write("queries/fragile.sql", query("count(*) - count(*)"));
    eventually("a failure has a result", Duration::from_secs(60), || results().1.as_deref() == Some("error"));
    assert_eq!(up.stop(), Some(0), "{}", up.log());
    let (_, _, last) = results();
    crate::artifacts::valid(&sandbox, &["manifest.json", "run_results.json"]);
    // What failed can be had by hand; validation takes the artifacts away.
    sandbox.write("target/run_results.json", last.to_string());
    sandbox.write("queries/fragile.sql", query("count(*)"));
    let again = sandbox.smelt(&["retry"]).ok();
    assert!(again.stdout.contains("fragile") && !again.stdout.contains("totals"), "{}", again.stdout);
}

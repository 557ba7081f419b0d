//! Hooks and operations: SQL that runs around a command and around models, and macros that are called for what they run.

use std::time::Duration;

use super::support::{Sandbox, eventually};

const SMELT: &str = "\
name: shop
targets: {dev: {lake: ./lake, commit_interval: 50ms}}
on-run-start: \"insert into {{ source('ops', 'audit') }} select 'start', '{{ flags.WHICH }}', {{ selected_resources | length }}\"
on-run-end:
  - \"{% for r in results if r.node.resource_type != 'operation' %}insert into {{ source('ops', 'audit') }} values ('{{ r.node.name }}', '{{ r.status }}', {{ schemas | length }});{% endfor %}\"
  - sql: \"insert into {{ source('ops', 'audit') }} (step, n) values ('end', {{ run_query('select count(*) from ' ~ ref('orders')).rows[0][0] }})\"
    transaction: false
models:
  shop:
    +post-hook: \"insert into {{ source('ops', 'audit') }} select 'folder', '{{ this.identifier }}', count(*) from {{ this }}\"
";

const PROPERTIES: &str = "\
version: 2
sources:
  - name: shop
    config: {connector: files, format: json, path: data/orders}
    tables:
      - name: orders
        columns: [{name: id, data_type: BIGINT}]
  - name: ops
    tables:
      - name: audit
        columns: [{name: step, data_type: STRING}, {name: what, data_type: STRING}, {name: n, data_type: BIGINT}]
models:
  - name: orders
    config: {pre_hook: \"insert into {{ source('ops', 'audit') }} values ('pre', '{{ model.name }}', 0)\"}
";

const ORDERS: &str = "{{ config(materialized='table', post_hook=[\"insert into {{ source('ops', 'audit') }} select 'own', '{{ this.name }}', sum(id) from {{ this }}\"]) }}select id from {{ source('shop', 'orders') }}";

fn shop(files: &[(&str, &str)]) -> Sandbox {
    let sandbox = Sandbox::with(&[
        ("smelt.yml", SMELT),
        ("models/shop.yml", PROPERTIES),
        ("queries/orders.sql", ORDERS),
        ("data/orders/1.json", "{\"id\": 1}\n{\"id\": 2}\n"),
    ]);
    files.iter().for_each(|(path, text)| sandbox.write(path, text));
    sandbox
}

/// What the audit table holds, in the order of its commits.
fn audit(sandbox: &Sandbox) -> Vec<String> {
    let mut rows = sandbox.rows("select step || ' ' || coalesce(what, '-') || ' ' || n as row from ops.audit");
    rows.iter_mut().for_each(|row| *row = row.trim_start_matches("{\"row\":\"").trim_end_matches("\"}").to_string());
    rows
}

#[test]
fn hooks_run_around_a_run_and_around_its_models() {
    let sandbox = shop(&[]);
    let ended = sandbox.smelt(&["run"]).ok();
    assert_eq!(
        audit(&sandbox),
        ["end - 2", "folder orders 2", "orders success 1", "own orders 3", "pre orders 0", "start run 1"]
    );
    // In dbt's order: of the run, before the model, the model, after it with the folder's first, of the run.
    let order = [
        "hook shop.on-run-start.0",
        "hook orders.pre-hook.0",
        "open: ",
        "hook orders.post-hook.0",
        "hook orders.post-hook.1",
    ];
    let places: Vec<Option<usize>> = order.iter().map(|what| ended.stdout.find(what)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}\n{}", ended.stdout);
    // Nothing changes, and hooks run all the same.
    sandbox.smelt(&["run"]).ok();
    assert_eq!(audit(&sandbox).len(), 12);
    let results = std::fs::read_to_string(sandbox.path().join("target/run_results.json")).unwrap();
    assert!(results.contains("operation.shop.shop-on-run-end-1"), "{results}");
}

#[test]
fn a_failing_pre_hook_fails_its_model_and_what_reads_it_only() {
    let sandbox = shop(&[
        ("queries/other.sql", "select id from {{ source('shop', 'orders') }}"),
        ("queries/reader.sql", "select id from {{ ref('broken') }}"),
        (
            "queries/broken.sql",
            "{{ config(materialized='table', pre_hook='select * from nowhere') }}select id from {{ ref('other') }}",
        ),
    ]);
    let ended = sandbox.smelt(&["run"]).fails(1, "hook broken.pre-hook.0: ");
    assert!(ended.stderr.contains("nowhere"), "{}", ended.stderr);
    assert_eq!(sandbox.count("other"), 2);
    assert!(!sandbox.table("default", "broken").exists());
    assert!(!sandbox.table("default", "reader").exists());
    let rows = audit(&sandbox);
    for row in ["broken error 1", "reader skipped 1", "other success 1", "end - 2"] {
        assert!(rows.iter().any(|r| r == row), "{row}: {rows:?}");
    }
}

#[test]
fn a_failing_start_stops_the_run_and_the_end_still_runs() {
    let sandbox = shop(&[]);
    sandbox.smelt(&["run"]).ok();
    sandbox
        .write("smelt.yml", SMELT.replace("on-run-start: \"insert", "on-run-start: \"select * from nowhere; insert"));
    sandbox.write("data/orders/2.json", "{\"id\": 3}\n");
    sandbox.smelt(&["run"]).fails(1, "hook shop.on-run-start.0");
    assert_eq!(sandbox.count("orders"), 2, "nothing was made");
    assert!(audit(&sandbox).iter().any(|r| r == "orders skipped 0"), "{:?}", audit(&sandbox));
}

#[test]
fn only_tables_that_are_no_querys_result_take_rows() {
    let sandbox = shop(&[
        ("seeds/colours.csv", "name\nred\n"),
        ("queries/log.sql", "{{ config(materialized='incremental', unique_key='id') }}select id from {{ ref('orders') }}"),
        ("queries/readers.sql", "select count(*) as n from {{ ref('log') }}"),
        (
            "macros/ops.sql",
            "{% macro add(to, value='7') %}{% do run_query('insert into ' ~ ref(to) ~ ' values (' ~ value ~ ')') %}{% endmacro %}
             {% macro housekeeping() %}{% call statement('x') %}optimize {{ ref('log') }}; vacuum {{ ref('log') }}; grant select on {{ ref('log') }} to someone{% endcall %}{{ log(load_result('x').response._message, info=true) }}{% endmacro %}
             {% macro count(of) %}{% set found = run_query('select count(*) as n from ' ~ ref(of)) %}{{ print(of ~ ': ' ~ found.columns['n'].values()[0]) }}{% endmacro %}",
        ),
    ]);
    sandbox.smelt(&["run"]).ok();
    sandbox.smelt(&["run-operation", "add", "--args", "{to: log}"]).ok();
    sandbox.smelt(&["run-operation", "shop.add", "--args", "{to: colours, value: \"'blue'\"}"]).ok();
    let counted = sandbox.smelt(&["run-operation", "count", "--args", "{of: log}"]).ok();
    assert!(counted.stdout.contains("log: 3"), "{}", counted.stdout);
    assert_eq!(sandbox.rows("select name from colours"), [r#"{"name":"blue"}"#, r#"{"name":"red"}"#]);
    sandbox
        .smelt(&["run-operation", "add", "--args", "{to: readers}"])
        .fails(1, "a materialized_view holds what its query returns");

    // What reads the table follows at the next run, and the model's own rows stay right.
    sandbox.write("data/orders/2.json", "{\"id\": 3}\n");
    sandbox.smelt(&["run"]).ok();
    assert_eq!(sandbox.rows("select id from log"), [r#"{"id":1}"#, r#"{"id":2}"#, r#"{"id":3}"#, r#"{"id":7}"#]);
    assert_eq!(sandbox.rows("select n from readers"), [r#"{"n":4}"#]);

    let kept = sandbox.smelt(&["run-operation", "housekeeping"]).ok();
    assert!(
        kept.stderr.contains("warning[skipped-statement]: housekeeping: GRANT SELECT is skipped"),
        "{}",
        kept.stderr
    );
    assert!(kept.stdout.contains("GRANT SELECT (skipped)"), "{}", kept.stdout);
    assert_eq!(sandbox.count("log"), 4);
}

#[test]
fn an_operation_that_cannot_be_called_says_why() {
    let sandbox = shop(&[("macros/ops.sql", "{% macro tidy(days) %}{{ run_query('select ' ~ days) }}{% endmacro %}")]);
    sandbox.smelt(&["run-operation", "tidi"]).fails(2, "did you mean `tidy`?");
    sandbox.smelt(&["run-operation", "tidy", "--args", "[1]"]).fails(2, "--args is not a YAML mapping");
    sandbox.smelt(&["run-operation", "tidy", "--args", "{dayz: 3}"]).fails(1, "unknown keyword argument `dayz`");
    sandbox.smelt(&["run-operation", "tidy", "--args", "{days: nothing}"]).fails(1, "nothing");
    sandbox.smelt(&["run-operation", "tidy", "--args", "{days: 3}"]).ok();
}

#[test]
fn hooks_that_are_no_sql_are_mistakes() {
    let wrong = SMELT
        .replace("+post-hook: \"", "+post-hook: {sequel: \"")
        .replace("count(*) from {{ this }}\"", "count(*) from {{ this }}\"}");
    let sandbox = shop(&[("smelt.yml", &wrong)]);
    sandbox.smelt(&["compile"]).fails(2, "`post-hook` must be SQL, or a list of SQL");
}

#[test]
fn up_runs_hooks_at_its_start_and_at_its_clean_end() {
    let sandbox = shop(&[(
        "queries/live.sql",
        "{{ config(materialized='streaming_table') }}select id from {{ source('shop', 'orders') }}",
    )]);
    let mut up = sandbox.spawn(&["up", "--no-http"], &[]);
    let version = sandbox.table("default", "orders").join("_delta_log/00000000000000000001.json");
    eventually("the first epoch", Duration::from_secs(60), || version.exists() && up.log().contains("committed"));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(up.stop(), Some(0), "{}", up.log());
    let rows = audit(&sandbox);
    for row in ["start up 2", "pre orders 0", "folder live 2", "own orders 3", "end - 2"] {
        assert!(rows.iter().any(|r| r == row), "{row}: {rows:?}\n{}", up.log());
    }
}

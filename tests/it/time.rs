//! Time: lists unfolded, windows, watermarks, the clock (docs/time.md).

use super::support::Sandbox;

const PROJECT: &str =
    "name: shop\ntarget: dev\ntargets: {dev: {lake: ./lake}}\nmodel-paths: [queries]\nproperty-paths: [models]\n";

const SOURCES: &str = "\
version: 2
sources:
  - name: shop
    config: {connector: files, format: json}
    tables:
      - name: orders
        config: {path: data/orders}
        columns: [{name: id, data_type: bigint}, {name: who, data_type: string}, {name: at, data_type: timestamp}, {name: tags, data_type: array<string>}]
";

/// `{"id": …, …}` lines.
fn orders(rows: &[(i64, &str, &str, &str)]) -> String {
    let line = |(id, who, at, tags): &(i64, &str, &str, &str)| {
        format!("{{\"id\": {id}, \"who\": \"{who}\", \"at\": \"2024-03-01T{at}Z\", \"tags\": {tags}}}\n")
    };
    rows.iter().map(line).collect()
}

#[test]
fn lists_are_unfolded_in_streams_and_views() {
    let sandbox = Sandbox::with(&[
        ("smelt.yml", PROJECT),
        ("models/shop.yml", SOURCES),
        (
            "queries/tagged.sql",
            "{{ config(materialized='streaming_table') }}select o.id, u.tag from STREAM {{ source('shop', 'orders') }} as o, unnest(o.tags) as u(tag)",
        ),
        (
            "queries/per_tag.sql",
            "{{ config(incremental='strict') }}select u.tag, count(*) as n from {{ source('shop', 'orders') }} as o left join unnest(o.tags) as u(tag) on true group by u.tag",
        ),
    ]);
    sandbox.write("data/orders/1.json", orders(&[(1, "a", "10:00:00", "[\"x\", \"y\"]"), (2, "b", "10:00:00", "[]")]));
    sandbox.smelt(&["run"]).ok();
    sandbox.write("data/orders/2.json", orders(&[(3, "b", "10:00:00", "[\"y\", null]"), (4, "b", "10:00:00", "null")]));
    sandbox.smelt(&["run"]).ok();
    assert_eq!(
        sandbox.rows("select * from tagged"),
        [r#"{"id":1,"tag":"x"}"#, r#"{"id":1,"tag":"y"}"#, r#"{"id":3,"tag":"y"}"#, r#"{"id":3,"tag":null}"#]
    );
    assert_eq!(
        sandbox.rows("select * from per_tag"),
        [r#"{"tag":"x","n":1}"#, r#"{"tag":"y","n":2}"#, r#"{"tag":null,"n":3}"#]
    );
}

#[test]
fn windows_are_kept_right_by_late_rows() {
    let sandbox = Sandbox::with(&[
        ("smelt.yml", PROJECT),
        ("models/shop.yml", SOURCES),
        (
            "queries/per_hour.sql",
            "{{ config(incremental='strict') }}select window_start, window_end, count(*) as n from tumble({{ source('shop', 'orders') }}, at, interval '1 hour') group by 1, 2",
        ),
        (
            "queries/hops.sql",
            "{{ config(incremental='strict') }}select id, window_start from hop({{ source('shop', 'orders') }}, at, interval '30 minutes', interval '1 hour')",
        ),
        (
            "queries/visits.sql",
            "select who, window_start, window_end, count(*) as n from session({{ source('shop', 'orders') }}, at, interval '10 minutes', who) group by 1, 2, 3",
        ),
    ]);
    let first = [(1, "a", "10:00:00", "[]"), (2, "a", "10:15:00", "[]"), (3, "b", "10:05:00", "[]")];
    sandbox.write("data/orders/1.json", orders(&first));
    sandbox.smelt(&["run"]).ok();
    let visits = "select who, window_start, window_end, n from visits";
    let visit = |who: &str, from: &str, to: &str, n: i64| {
        format!(r#"{{"who":"{who}","window_start":"2024-03-01T{from}Z","window_end":"2024-03-01T{to}Z","n":{n}}}"#)
    };
    assert_eq!(
        sandbox.rows(visits),
        [
            visit("a", "10:00:00", "10:10:00", 1),
            visit("a", "10:15:00", "10:25:00", 1),
            visit("b", "10:05:00", "10:15:00", 1)
        ]
    );
    // A late row joins two sessions into one; one at the very end of a session begins another.
    sandbox.write("data/orders/2.json", orders(&[(4, "a", "10:07:00", "[]"), (5, "b", "10:15:00", "[]")]));
    sandbox.smelt(&["run"]).ok();
    assert_eq!(
        sandbox.rows(visits),
        [
            visit("a", "10:00:00", "10:25:00", 3),
            visit("b", "10:05:00", "10:15:00", 1),
            visit("b", "10:15:00", "10:25:00", 1)
        ]
    );
    assert_eq!(
        sandbox.rows("select window_start, window_end, n from per_hour"),
        [r#"{"window_start":"2024-03-01T10:00:00Z","window_end":"2024-03-01T11:00:00Z","n":5}"#]
    );
    assert_eq!(
        sandbox.rows("select * from hops where id < 3"),
        [
            r#"{"id":1,"window_start":"2024-03-01T09:30:00Z"}"#,
            r#"{"id":1,"window_start":"2024-03-01T10:00:00Z"}"#,
            r#"{"id":2,"window_start":"2024-03-01T09:30:00Z"}"#,
            r#"{"id":2,"window_start":"2024-03-01T10:00:00Z"}"#,
        ]
    );
}

#[test]
fn rows_expire_without_input_and_appear_when_their_time_has_come() {
    let sandbox = Sandbox::with(&[
        ("smelt.yml", &PROJECT.replace("lake: ./lake", "lake: ./lake, commit_interval: 100ms")),
        ("models/shop.yml", SOURCES),
        (
            "queries/recent.sql",
            "select id from {{ source('shop', 'orders') }} where at > now() - interval '20 seconds' and at <= now()",
        ),
        ("queries/how_many.sql", "select count(*) as n from {{ ref('recent') }}"),
    ]);
    let now = chrono::Utc::now();
    let order = |id: i64, seconds: i64| {
        let at = (now + chrono::Duration::seconds(seconds)).to_rfc3339();
        format!("{{\"id\": {id}, \"who\": \"a\", \"at\": \"{at}\", \"tags\": []}}\n")
    };
    sandbox.write("data/orders/1.json", [order(1, -3600), order(2, 0), order(3, 15), order(4, 3600)].concat());
    sandbox.smelt(&["run"]).ok();
    assert_eq!(sandbox.rows("select * from recent"), [r#"{"id":2}"#]);
    let mut up = sandbox.spawn(&["up", "--no-http"], &[]);
    // Order 3 appears, order 2 goes, order 3 goes: nothing arrives meanwhile.
    for expected in [vec![r#"{"id":3}"#], vec![]] {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
        while sandbox.rows("select * from recent") != expected {
            assert!(
                std::time::Instant::now() < deadline,
                "{:?} is not {expected:?}",
                sandbox.rows("select * from recent")
            );
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
    up.stop();
    assert_eq!(sandbox.rows("select * from how_many"), [r#"{"n":0}"#]);
}

#[test]
fn rows_that_expired_while_nobody_ran_are_gone_after_the_next_run() {
    let sandbox = Sandbox::with(&[
        ("smelt.yml", PROJECT),
        ("models/shop.yml", SOURCES),
        ("queries/recent.sql", "select id from {{ source('shop', 'orders') }} where at > now() - interval '8 seconds'"),
    ]);
    let now = chrono::Utc::now();
    let order = |id: i64, seconds: i64| {
        let at = (now + chrono::Duration::seconds(seconds)).to_rfc3339();
        format!("{{\"id\": {id}, \"who\": \"a\", \"at\": \"{at}\", \"tags\": []}}\n")
    };
    sandbox.write("data/orders/1.json", [order(1, 0), order(2, 3600)].concat());
    sandbox.smelt_with(&["run"], &[("SMELT_CRASH_AT", "before-epochs-row")]);
    sandbox.smelt(&["run"]).ok();
    std::thread::sleep(std::time::Duration::from_secs(9));
    sandbox.smelt(&["run"]).ok();
    assert_eq!(sandbox.rows("select * from recent"), [r#"{"id":2}"#]);
}

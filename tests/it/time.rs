//! Time: lists unfolded, windows, watermarks, the clock (docs/time.md).

use super::support::Sandbox;

pub(super) const PROJECT: &str =
    "name: shop\ntarget: dev\ntargets: {dev: {lake: ./lake}}\nmodel-paths: [queries]\nproperty-paths: [models]\n";

pub(super) const SOURCES: &str = "\
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
pub(super) fn orders(rows: &[(i64, &str, &str, &str)]) -> String {
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

#[test]
fn a_view_forgets_hours_that_are_over_and_a_late_row_finds_its_hour_all_the_same() {
    let sandbox = Sandbox::with(&[
        ("smelt.yml", &PROJECT.replace("lake: ./lake", "lake: ./lake, epoch: {max_files: 1}")),
        ("models/shop.yml", SOURCES),
        (
            "queries/bronze.sql",
            "{{ config(materialized='streaming_table', watermark={'column': 'at', 'delay': '5 minutes'}) }}select id, who, at from STREAM {{ source('shop', 'orders') }}",
        ),
        (
            "queries/hourly.sql",
            "select window_start, who, count(*) as n, min(id) as first from tumble({{ ref('bronze') }}, at, interval '1 hour') group by 1, 2",
        ),
    ]);
    let line = |(id, who, at): (i64, String, &str)| {
        format!("{{\"id\": {id}, \"who\": \"{who}\", \"at\": \"2024-03-01T{at}Z\", \"tags\": []}}\n")
    };
    let many = |first: i64, who: &str, at: &'static str| -> String {
        (0..3_000).map(|i| line((first + i, format!("{who}{i}"), at))).collect()
    };
    // The state of the second file's hour is worth forgetting the first one's.
    sandbox.write("data/orders/1.json", line((9_000, "early".into(), "09:30:00")) + &many(0, "w", "10:30:00"));
    sandbox.write("data/orders/2.json", many(5_000, "n", "12:00:00"));
    sandbox.write(
        "data/orders/3.json",
        line((9_002, "early".into(), "09:59:00")) + &line((9_003, "n0".into(), "12:01:00")),
    );
    sandbox.smelt(&["run"]).ok();
    assert_eq!(sandbox.rows("select count(*) as n from hourly"), [r#"{"n":6001}"#]);
    let some = "select who, n, first from hourly where who in ('early', 'n0', 'w7')";
    let expected = |early: i64, seven: i64| {
        [
            format!(r#"{{"who":"early","n":{early},"first":9000}}"#),
            r#"{"who":"n0","n":2,"first":5000}"#.to_string(),
            format!(r#"{{"who":"w7","n":{seven},"first":7}}"#),
        ]
    };
    assert_eq!(sandbox.rows(some), expected(2, 1));
    let explained = sandbox.smelt(&["explain", "hourly"]).ok().stdout;
    assert!(explained.contains("behind the watermark of bronze are forgotten"), "{explained}");
    assert!(explained.contains("state bounded by the watermark"), "{explained}");
    assert!(explained.contains("; state 3,001 rows, "), "{explained}");
    sandbox.write(
        "data/orders/4.json",
        line((9_004, "w7".into(), "10:00:00")) + &line((9_005, "early".into(), "09:00:00")),
    );
    sandbox.smelt(&["run"]).ok();
    assert_eq!(sandbox.rows(some), expected(3, 2));
}

/// A stream with a watermark five minutes behind its latest row, and its hours, written when they close.
fn closing() -> Sandbox {
    let watermark = "config: {path: data/orders, watermark: {column: at, delay: 5 minutes}}";
    Sandbox::with(&[
        ("smelt.yml", PROJECT),
        ("models/shop.yml", &SOURCES.replace("config: {path: data/orders}", watermark)),
        (
            "queries/bronze.sql",
            "{{ config(materialized='streaming_table') }}select id, who, at from STREAM {{ source('shop', 'orders') }}",
        ),
        (
            "queries/hours.sql",
            "{{ config(materialized='streaming_table', emit='on_close') }}select window_start, window_end, count(*) as n from tumble(STREAM {{ ref('bronze') }}, at, interval '1 hour') group by 1, 2",
        ),
        ("queries/total.sql", "select sum(n) as n from {{ ref('hours') }}"),
    ])
}

fn hours(sandbox: &Sandbox) -> Vec<String> {
    let rows = sandbox.rows("select date_part('hour', window_start) as h, n from hours");
    rows.iter().map(|row| row.replace(['{', '}', '"'], "")).collect()
}

/// The rows set aside, as they came.
fn late(sandbox: &Sandbox, table: &str) -> Vec<String> {
    let rows =
        sandbox.rows(&format!("select row from {table}__late where kind = 'late' and reason like '%watermark%'"));
    let row = |line: &String| line.replace("\\\"", "\"").replace("{\"row\":\"", "").replace("\"}\"}", "\"}");
    rows.iter().map(row).collect()
}

fn order(id: i64, who: &str, at: &str) -> String {
    format!("{{\"id\":{id},\"who\":\"{who}\",\"at\":\"2024-03-01T{at}Z\"}}")
}

/// What arrives in a run, what stands in the table after it, and whose rows stand aside.
type Arrival = (&'static [(i64, &'static str, &'static str, &'static str)], &'static [&'static str], &'static [i64]);

const ARRIVALS: [Arrival; 4] = [
    (&[(1, "a", "10:00:00", "[]"), (2, "a", "10:30:00", "[]"), (3, "b", "11:02:00", "[]")], &[], &[]),
    (&[(4, "b", "10:50:00", "[]"), (5, "b", "11:06:00", "[]")], &["h:10,n:3"], &[]),
    (&[(6, "a", "10:59:00", "[]"), (7, "a", "11:30:00", "[]")], &["h:10,n:3"], &[6]),
    (&[(8, "a", "12:30:00", "[]"), (9, "c", "10:01:00", "[]")], &["h:10,n:3", "h:11,n:3"], &[6, 9]),
];

fn late_orders(ids: &[i64]) -> Vec<String> {
    let rows = ARRIVALS.iter().flat_map(|(rows, _, _)| rows.iter()).filter(|(id, ..)| ids.contains(id));
    rows.map(|(id, who, at, _)| order(*id, who, at)).collect()
}

#[test]
fn each_window_is_written_once_and_late_rows_stand_aside() {
    let sandbox = closing();
    for (number, (rows, written, set_aside)) in ARRIVALS.iter().enumerate() {
        sandbox.write(&format!("data/orders/{number}.json"), orders(rows));
        let ended = sandbox.smelt(&["run"]).ok();
        let said = ended.stdout + &ended.stderr;
        assert_eq!(said.contains(", 1 late"), number >= 2, "{said}");
        assert_eq!(hours(&sandbox), *written, "after {number}");
        assert_eq!(late(&sandbox, "hours"), late_orders(set_aside), "after {number}");
    }
    // Nothing arrives, nothing closes; the end of input is then made the end of time.
    sandbox.smelt(&["run"]).ok();
    assert_eq!(hours(&sandbox).len(), 2);
    sandbox.smelt(&["run", "--final"]).ok();
    assert_eq!(hours(&sandbox), ["h:10,n:3", "h:11,n:3", "h:12,n:1"]);
    assert_eq!(sandbox.rows("select n from total"), [r#"{"n":7}"#]);
    sandbox.write("data/orders/9.json", orders(&[(10, "a", "12:59:00", "[]"), (11, "a", "13:01:00", "[]")]));
    sandbox.smelt(&["run", "--final"]).ok();
    assert_eq!(hours(&sandbox), ["h:10,n:3", "h:11,n:3", "h:12,n:1", "h:13,n:1"]);
    assert_eq!(late(&sandbox, "hours"), [vec![order(10, "a", "12:59:00")], late_orders(&[6, 9])].concat());
    let explained = sandbox.smelt(&["explain", "hours"]).ok();
    assert!(explained.stdout.contains("bounded by the watermark"), "{}", explained.stdout);
}

const VISITS: &str = "{{ config(materialized='streaming_table', emit='on_close') }}select who, window_start, window_end, count(*) as n from session(STREAM {{ ref('bronze') }}, at, interval '10 minutes', who) where who <> 'z' group by 1, 2, 3";

/// What arrives in a run, the visits that are written after it (who, minute of the start, minute of the end, rows), and whose rows stand aside.
const VISITORS: [Arrival; 4] = [
    // The watermark stands at 10:15, 10:26, 10:40.
    (&[(1, "a", "10:00:00", "[]"), (2, "a", "10:09:00", "[]"), (3, "b", "10:20:00", "[]")], &[], &[]),
    // A row joins the session of a row that lies behind the watermark; one that does itself is late, though its session is open.
    (
        &[(4, "a", "10:16:00", "[]"), (5, "a", "10:14:00", "[]"), (6, "z", "10:31:00", "[]")],
        &["who:a,s:0,e:26,n:3"],
        &[5],
    ),
    // At the very end of a session another begins, in one run with a late one.
    (
        &[(7, "a", "10:26:00", "[]"), (8, "b", "10:25:00", "[]"), (9, "c", "10:45:00", "[]")],
        &["who:a,s:0,e:26,n:3", "who:a,s:26,e:36,n:1", "who:b,s:20,e:30,n:1"],
        &[5, 8],
    ),
    (
        &[(10, "c", "10:54:00", "[]"), (11, "b", "10:39:00", "[]"), (12, "c", "11:03:00", "[]")],
        &["who:a,s:0,e:26,n:3", "who:a,s:26,e:36,n:1", "who:b,s:20,e:30,n:1"],
        &[5, 8, 11],
    ),
];

fn visits(sandbox: &Sandbox) -> Vec<String> {
    let minute = |column: &str| format!("date_part('hour', {column}) * 60 + date_part('minute', {column}) - 600");
    let sql = format!("select who, {} as s, {} as e, n from visits", minute("window_start"), minute("window_end"));
    sandbox.rows(&sql).iter().map(|row| row.replace(['{', '}', '"'], "")).collect()
}

fn late_visitors(ids: &[i64]) -> Vec<String> {
    let rows = VISITORS.iter().flat_map(|(rows, _, _)| rows.iter()).filter(|(id, ..)| ids.contains(id));
    let mut rows: Vec<String> = rows.map(|(id, who, at, _)| order(*id, who, at)).collect();
    rows.sort();
    rows
}

fn sorted_late(sandbox: &Sandbox) -> Vec<String> {
    let mut rows = late(sandbox, "visits");
    rows.sort();
    rows
}

#[test]
fn each_session_is_written_once_and_rows_behind_the_watermark_stand_aside() {
    let sandbox = closing();
    sandbox.write("queries/visits.sql", VISITS);
    for (number, (rows, written, set_aside)) in VISITORS.iter().enumerate() {
        sandbox.write(&format!("data/orders/{number}.json"), orders(rows));
        sandbox.smelt(&["run"]).ok();
        assert_eq!(visits(&sandbox), *written, "after {number}");
        assert_eq!(sorted_late(&sandbox), late_visitors(set_aside), "after {number}");
    }
    sandbox.smelt(&["run", "--final"]).ok();
    let all = [VISITORS[3].1, &["who:c,s:45,e:73,n:3"]].concat();
    assert_eq!(visits(&sandbox), all);
    sandbox.write("data/orders/9.json", orders(&[(13, "c", "11:12:00", "[]"), (14, "c", "11:13:00", "[]")]));
    sandbox.smelt(&["run", "--final"]).ok();
    assert_eq!(visits(&sandbox), [all.as_slice(), &["who:c,s:73,e:83,n:1"]].concat());
    assert_eq!(sorted_late(&sandbox).len(), 4);
}

#[test]
fn sessions_are_written_once_whatever_instant_a_run_is_killed_at() {
    let sandbox = closing();
    sandbox.write("queries/visits.sql", VISITS);
    let points = [
        "after-uploads",
        "before-log-put:3",
        "before-log-put:7",
        "after-log-put:7",
        "after-log-put:8",
        "after-log-put:9",
        "after-log-put:10",
        "after-log-put:11",
        "after-log-put:12",
        "before-epochs-row",
        "after-epochs-row",
    ];
    for (number, (rows, _, _)) in VISITORS.iter().enumerate() {
        sandbox.write(&format!("data/orders/{number}.json"), orders(rows));
        for point in points {
            sandbox.smelt_with(&["run"], &[("SMELT_CRASH_AT", point)]);
        }
        sandbox.smelt(&["run"]).ok();
        let (_, written, set_aside) = VISITORS[number];
        assert_eq!(visits(&sandbox), written, "after {number}");
        assert_eq!(sorted_late(&sandbox), late_visitors(set_aside), "after {number}");
    }
    sandbox.smelt(&["run", "--final"]).ok();
    assert_eq!(visits(&sandbox), [VISITORS[3].1, &["who:c,s:45,e:73,n:3"]].concat());
}

#[test]
fn a_model_whose_windows_close_is_tested_as_if_all_had_closed() {
    let sandbox = closing();
    sandbox.write(
        "models/tests.yml",
        "version: 2\nunit_tests:\n  - name: counted\n    model: hours\n    given:\n      - input: ref('bronze')\n        rows: [{id: 1, at: 2024-03-01T10:00:00Z}, {id: 2, at: 2024-03-01T10:59:00Z}, {id: 3, at: 2024-03-01T11:00:00Z}]\n    expect:\n      rows:\n        - {window_start: 2024-03-01T10:00:00Z, window_end: 2024-03-01T11:00:00Z, n: 2}\n        - {window_start: 2024-03-01T11:00:00Z, window_end: 2024-03-01T12:00:00Z, n: 1}\n",
    );
    sandbox.smelt(&["test"]).ok();
    sandbox.smelt(&["build"]).ok();
}

/// Instants of a run with a few streaming tables: each log entry of a round, of which side tables are the first.
pub const KILLED_AT: [&str; 8] = [
    "after-uploads",
    "before-log-put:7",
    "after-log-put:7",
    "after-log-put:8",
    "after-log-put:9",
    "after-log-put:10",
    "before-epochs-row",
    "after-epochs-row",
];

#[test]
fn windows_are_written_once_whatever_instant_a_run_is_killed_at() {
    let sandbox = closing();
    for (number, (rows, _, _)) in ARRIVALS.iter().enumerate() {
        sandbox.write(&format!("data/orders/{number}.json"), orders(rows));
        for point in KILLED_AT {
            sandbox.smelt_with(&["run"], &[("SMELT_CRASH_AT", point)]);
        }
    }
    sandbox.smelt(&["run"]).ok();
    assert_eq!(hours(&sandbox), ["h:10,n:3", "h:11,n:3"]);
    assert_eq!(late(&sandbox, "hours"), late_orders(&[6, 9]));
    assert_eq!(sandbox.rows("select n from total"), [r#"{"n":6}"#]);
}

#[test]
fn a_bucket_that_is_selected_says_when_its_window_ends() {
    let sandbox = closing();
    let on_close = "{{ config(materialized='streaming_table', emit='on_close') }}";
    let model = |key: &str| {
        format!("{on_close} select {key} as t, count(*) as n from STREAM {{{{ ref('bronze') }}}} group by 1")
    };
    sandbox.write("queries/bins.sql", model("date_bin(interval '30 minutes', at)"));
    sandbox.write("queries/truncated.sql", model("date_trunc('hour', at)"));
    sandbox.write("queries/days.sql", model("cast(at as date)"));
    sandbox.write("queries/months.sql", model("date_trunc('month', at)"));
    let written = |table: &str| sandbox.rows(&format!("select cast(t as varchar) as t, n from {table}"));
    sandbox.write("data/orders/1.json", orders(&[(1, "a", "10:00:00", "[]"), (2, "a", "10:40:00", "[]")]));
    sandbox.smelt(&["run"]).ok();
    assert_eq!(written("bins"), [r#"{"t":"2024-03-01T10:00:00Z","n":1}"#]);
    assert!(written("truncated").is_empty() && written("days").is_empty() && written("months").is_empty());
    sandbox.write("data/orders/2.json", orders(&[(3, "a", "23:59:00", "[]"), (4, "a", "10:01:00", "[]")]));
    sandbox.smelt(&["run"]).ok();
    assert_eq!(written("truncated"), [r#"{"t":"2024-03-01T10:00:00Z","n":3}"#]);
    assert!(written("days").is_empty());
    let next_day = "{\"id\": 5, \"who\": \"a\", \"at\": \"2024-03-02T00:05:00Z\", \"tags\": []}\n";
    sandbox.write("data/orders/3.json", next_day);
    sandbox.smelt(&["run"]).ok();
    assert_eq!(written("days"), [r#"{"t":"2024-03-01","n":4}"#]);
    assert!(written("months").is_empty());
    sandbox.smelt(&["run", "--final"]).ok();
    assert_eq!(written("months"), [r#"{"t":"2024-03-01T00:00:00Z","n":5}"#]);
    assert_eq!(late(&sandbox, "bins"), [order(4, "a", "10:01:00")]);
}

#[test]
fn a_row_is_late_when_all_its_windows_are_closed_and_windows_may_be_grouped_again() {
    let sandbox = closing();
    let on_close = "{{ config(materialized='streaming_table', emit='on_close') }}";
    let hops = "hop(STREAM {{ ref('bronze') }}, at, interval '30 minutes', interval '1 hour')";
    let per_who = "select window_end, who, count(*) as n from tumble(STREAM {{ ref('bronze') }}, at, interval '1 hour') group by 1, 2";
    sandbox.write(
        "queries/hops.sql",
        format!("{on_close} select window_start, window_end, count(*) as n from {hops} where who <> 'z' group by 1, 2"),
    );
    sandbox.write(
        "queries/most.sql",
        format!("{on_close} select window_end, max(n) as most, count(*) as whos from ({per_who}) as w group by 1"),
    );
    sandbox.write(
        "queries/busiest.sql",
        format!("{on_close} select window_end, who, n from ({per_who}) as w qualify row_number() over (partition by window_end order by n desc, who) = 1"),
    );
    let hops = || {
        sandbox
            .rows("select date_part('hour', window_start) * 100 + date_part('minute', window_start) as w, n from hops")
    };
    // The watermark stands at 10:35.
    sandbox.write("data/orders/1.json", orders(&[(1, "a", "10:10:00", "[]"), (2, "b", "10:40:00", "[]")]));
    sandbox.smelt(&["run"]).ok();
    assert_eq!(hops(), [r#"{"w":930,"n":1}"#]);
    // Of the first, one window is still open; of the second and third, none, and the third is nobody's.
    let behind = [(3, "b", "10:20:00", "[]"), (4, "a", "09:50:00", "[]"), (5, "z", "09:50:00", "[]")];
    sandbox.write("data/orders/2.json", orders(&behind));
    sandbox.smelt(&["run"]).ok();
    sandbox.smelt(&["run", "--final"]).ok();
    assert_eq!(hops(), [r#"{"w":1000,"n":3}"#, r#"{"w":1030,"n":1}"#, r#"{"w":930,"n":1}"#]);
    assert_eq!(late(&sandbox, "hops"), [order(4, "a", "09:50:00")]);
    assert_eq!(sandbox.rows("select most, whos from most"), [r#"{"most":2,"whos":2}"#]);
    assert_eq!(sandbox.rows("select who, n from busiest"), [r#"{"who":"b","n":2}"#]);
    assert_eq!(late(&sandbox, "most"), [order(4, "a", "09:50:00"), order(5, "z", "09:50:00")]);
}

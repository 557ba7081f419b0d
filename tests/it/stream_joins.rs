//! Streams joined within an interval, enriched and grouped into windows (docs/time.md).

use super::support::Sandbox;
use super::time::{KILLED_AT, PROJECT, SOURCES, orders};

/// Calls and the bills that follow them within an hour, each with a watermark five minutes behind its latest row.
fn joining() -> Sandbox {
    let watermark = |path: &str| format!("config: {{path: data/{path}, watermark: {{column: at, delay: 5 minutes}}}}");
    let table = "      - name: orders\n        config: {path: data/orders}\n";
    let second = SOURCES.split_once(table).unwrap().1.trim_end();
    let sources = SOURCES.replace("config: {path: data/orders}", &watermark("orders"));
    let sources = format!("{sources}      - name: bills\n        {}\n{second}\n", watermark("bills"));
    let bronze = |name: &str| {
        format!(
            "{{{{ config(materialized='streaming_table') }}}}select id, who, at from STREAM {{{{ source('shop', '{name}') }}}}"
        )
    };
    Sandbox::with(&[
        ("smelt.yml", PROJECT),
        ("models/shop.yml", &sources),
        ("queries/ordered.sql", &bronze("orders")),
        ("queries/billed.sql", &bronze("bills")),
        (
            "queries/paid.sql",
            "{{ config(materialized='streaming_table', emit='on_close') }}select o.id as o, b.id as b from STREAM {{ ref('ordered') }} as o left join STREAM {{ ref('billed') }} as b on o.who = b.who and b.at between o.at and o.at + interval '1 hour'",
        ),
        ("queries/unpaid.sql", "select count(*) as n from {{ ref('paid') }} where b is null"),
    ])
}

type Orders = &'static [(i64, &'static str, &'static str, &'static str)];

/// Orders and bills as they arrive, run by run, and what the table holds after that.
const DEALS: [(Orders, Orders, &[&str]); 4] = [
    (&[(1, "a", "10:00:00", "[]"), (2, "b", "10:10:00", "[]")], &[(101, "a", "10:30:00", "[]")], &["1-101"]),
    // Both streams have come to 11:00, less five minutes: a second bill for the first order, and two that are late.
    (&[(3, "c", "11:00:00", "[]")], &[(102, "a", "11:00:00", "[]"), (103, "d", "11:00:00", "[]")], &["1-101", "1-102"]),
    (
        &[(4, "a", "10:20:00", "[]"), (5, "c", "11:20:00", "[]")],
        &[(104, "b", "10:50:00", "[]"), (105, "c", "11:10:00", "[]")],
        &["1-101", "1-102", "3-105"],
    ),
    // Orders 2 and 5 have waited long enough.
    (
        &[(6, "e", "12:30:00", "[]")],
        &[(106, "c", "11:15:00", "[]"), (107, "x", "12:40:00", "[]")],
        &["1-101", "1-102", "2-null", "3-105", "3-106", "5-null"],
    ),
];

fn paid(sandbox: &Sandbox) -> Vec<String> {
    let rows = sandbox.rows("select o, b from paid");
    rows.iter().map(|row| row.replace(",\"b\":", "-").replace(['{', '}', '"', 'o', ':'], "")).collect()
}

fn late_deals(sandbox: &Sandbox) -> Vec<String> {
    sandbox.rows("select topic, get_field(from_json(row, 'STRUCT<id: BIGINT>'), 'id') as id from paid__late")
}

const LATE_DEALS: [&str; 2] = [r#"{"topic":"billed","id":104}"#, r#"{"topic":"ordered","id":4}"#];

fn arrive(sandbox: &Sandbox, number: usize) {
    sandbox.write(&format!("data/orders/{number}.json"), orders(DEALS[number].0));
    sandbox.write(&format!("data/bills/{number}.json"), orders(DEALS[number].1));
}

#[test]
fn streams_are_joined_within_an_interval_and_late_rows_stand_aside() {
    let sandbox = joining();
    for (number, (_, _, expected)) in DEALS.iter().enumerate() {
        arrive(&sandbox, number);
        sandbox.smelt(&["run"]).ok();
        assert_eq!(paid(&sandbox), *expected, "after {number}");
    }
    assert_eq!(late_deals(&sandbox), LATE_DEALS);
    sandbox.smelt(&["run", "--final"]).ok();
    assert_eq!(paid(&sandbox), ["1-101", "1-102", "2-null", "3-105", "3-106", "5-null", "6-null"]);
    assert_eq!(sandbox.rows("select n from unpaid"), [r#"{"n":3}"#]);
    let explained = sandbox.smelt(&["explain", "paid"]).ok();
    assert!(explained.stdout.contains("bounded by the watermarks of both streams"), "{}", explained.stdout);
}

/// Runs it once per instant, up to that instant; how many were killed.
fn killed_runs(sandbox: &Sandbox, points: &[&str]) -> usize {
    points.iter().filter(|point| sandbox.smelt_with(&["run"], &[("SMELT_CRASH_AT", point)]).code != Some(0)).count()
}

#[test]
fn a_join_of_streams_is_the_same_whatever_instant_a_run_is_killed_at() {
    let sandbox = joining();
    let mut killed = 0;
    for number in 0..DEALS.len() {
        arrive(&sandbox, number);
        killed += killed_runs(&sandbox, &KILLED_AT);
        sandbox.smelt(&["run"]).ok();
        assert_eq!(paid(&sandbox), DEALS[number].2, "after {number}");
    }
    assert!(killed > 10, "{killed} runs were killed");
    assert_eq!(late_deals(&sandbox), LATE_DEALS);
}

/// The same with the names of customers, which change: `paid` is the pairs with a name, `hourly` what is paid per hour and name.
fn enriched() -> Sandbox {
    let sandbox = joining();
    let sources = std::fs::read_to_string(sandbox.path().join("models/shop.yml")).unwrap();
    let name = "      - name: people\n        config: {path: data/people}\n        columns: [{name: who, data_type: string}, {name: name, data_type: string}]\n";
    sandbox.write("models/shop.yml", sources + name);
    sandbox
        .write("queries/names.sql", "select who, max(name) as name from {{ source('shop', 'people') }} group by who");
    let on_close = "{{ config(materialized='streaming_table', emit='on_close') }}";
    let from = "STREAM {{ ref('ordered') }} as o left join {{ ref('names') }} as n on n.who = o.who left join STREAM {{ ref('billed') }} as b on o.who = b.who and b.at between o.at and o.at + interval '1 hour'";
    sandbox.write("queries/paid.sql", format!("{on_close} select o.id as o, b.id as b, n.name from {from}"));
    sandbox.write(
        "queries/hourly.sql",
        format!("{on_close} select date_bin(interval '1 hour', o.at) as hour, n.name, count(distinct o.id) as orders, count(b.id) as bills from {from} group by 1, 2"),
    );
    sandbox
}

/// Names that are known from a run on.
const NAMES: [&[(&str, &str)]; 4] = [&[("a", "Ann"), ("b", "Bob")], &[], &[("c", "Cid")], &[("a", "Zoe")]];

fn arrive_with_names(sandbox: &Sandbox, number: usize) {
    arrive(sandbox, number);
    let line = |(who, name): &(&str, &str)| format!("{{\"who\": \"{who}\", \"name\": \"{name}\"}}\n");
    sandbox.write(&format!("data/people/{number}.json"), NAMES[number].iter().map(line).collect::<String>());
}

/// What stands in `paid` after each run, by the name that was known when it was written, and in `hourly`: hour, name, orders, bills.
const ENRICHED: [(&[&str], &[&str]); 4] = [
    (&["1-101 Ann"], &[]),
    (&["1-101 Ann", "1-102 Ann"], &[]),
    (&["1-101 Ann", "1-102 Ann", "3-105 Cid"], &[]),
    // The hour from ten is written an hour after its end, with the names as they are then.
    (&["1-101 Ann", "1-102 Ann", "2-null Bob", "3-105 Cid", "3-106 Cid", "5-null Cid"], &["10 Bob 1 0", "10 Zoe 1 2"]),
];

fn pairs_and_hours(sandbox: &Sandbox) -> (Vec<String>, Vec<String>) {
    let text = |row: &String| row.replace("{\"t\":\"", "").replace("\"}", "");
    let paid = "select o::varchar || '-' || coalesce(b::varchar, 'null') || ' ' || coalesce(name, '?') as t from paid";
    let hourly = "select date_part('hour', hour)::int::varchar || ' ' || coalesce(name, '?') || ' ' || orders::varchar || ' ' || bills::varchar as t from hourly";
    (sandbox.rows(paid).iter().map(text).collect(), sandbox.rows(hourly).iter().map(text).collect())
}

#[test]
fn joined_streams_are_enriched_and_their_windows_written_once() {
    let sandbox = enriched();
    for (number, (pairs, hours)) in ENRICHED.iter().enumerate() {
        arrive_with_names(&sandbox, number);
        sandbox.smelt(&["run"]).ok();
        let (paid, hourly) = pairs_and_hours(&sandbox);
        assert_eq!(paid, *pairs, "after {number}");
        assert_eq!(hourly, *hours, "after {number}");
    }
    assert_eq!(late_deals(&sandbox), LATE_DEALS);
    let late = sandbox.rows("select count(*) as n from hourly__late");
    assert_eq!(late, [r#"{"n":2}"#]);
    sandbox.smelt(&["run", "--final"]).ok();
    let (paid, hourly) = pairs_and_hours(&sandbox);
    assert_eq!(paid, [ENRICHED[3].0, &["6-null ?"]].concat());
    assert_eq!(hourly, ["10 Bob 1 0", "10 Zoe 1 2", "11 Cid 2 2", "12 ? 1 0"]);
    let explained = sandbox.smelt(&["explain", "hourly"]).ok();
    assert!(explained.stdout.contains("and 3600s more"), "{}", explained.stdout);
    // What comes for an hour that is written is late.
    sandbox.write("data/orders/9.json", orders(&[(9, "a", "12:40:00", "[]")]));
    sandbox.smelt(&["run", "--final"]).ok();
    assert_eq!(pairs_and_hours(&sandbox).1.len(), 4);
}

#[test]
fn enriched_joins_and_their_windows_are_the_same_whatever_instant_a_run_is_killed_at() {
    let sandbox = enriched();
    let points = [
        "after-uploads",
        "before-log-put:3",
        "before-log-put:7",
        "after-log-put:8",
        "after-log-put:9",
        "after-log-put:10",
        "after-log-put:11",
        "after-log-put:12",
        "after-log-put:13",
        "after-log-put:14",
        "before-epochs-row",
        "after-epochs-row",
    ];
    let mut killed = 0;
    for (number, (pairs, hours)) in ENRICHED.iter().enumerate() {
        arrive_with_names(&sandbox, number);
        killed += killed_runs(&sandbox, &points);
        sandbox.smelt(&["run"]).ok();
        let (paid, hourly) = pairs_and_hours(&sandbox);
        assert_eq!(paid, *pairs, "after {number}");
        assert_eq!(hourly, *hours, "after {number}");
    }
    assert!(killed > 15, "{killed} runs were killed");
    assert_eq!(late_deals(&sandbox), LATE_DEALS);
    sandbox.smelt(&["run", "--final"]).ok();
    assert_eq!(pairs_and_hours(&sandbox).1, ["10 Bob 1 0", "10 Zoe 1 2", "11 Cid 2 2", "12 ? 1 0"]);
}

#[test]
fn a_join_of_streams_says_how_far_apart_its_rows_are() {
    let sandbox = joining();
    let paid = "{{ config(materialized='streaming_table', emit='on_close') }}select o.id as o, b.id as b from STREAM {{ ref('ordered') }} as o join STREAM {{ ref('billed') }} as b on o.who = b.who and b.at >= o.at";
    sandbox.write("queries/paid.sql", paid);
    let failed = sandbox.smelt(&["compile"]);
    assert!(failed.stderr.contains("error[unbounded-join]"), "{}", failed.stderr);
    assert!(failed.stderr.contains("b.ts between a.ts - interval '10 minutes'"), "{}", failed.stderr);
}

/// Windows of `hop` and sessions of what the join gives.
fn windowed() -> Sandbox {
    let sandbox = joining();
    let on_close = "{{ config(materialized='streaming_table', emit='on_close') }}";
    let rows = "(select o.who, o.at as t, b.id as b from STREAM {{ ref('ordered') }} as o left join STREAM {{ ref('billed') }} as b on o.who = b.who and b.at between o.at and o.at + interval '1 hour')";
    sandbox.write(
        "queries/hops.sql",
        format!("{on_close} select window_start, window_end, count(*) as n, count(b) as bills from hop({rows}, t, interval '30 minutes', interval '1 hour') group by 1, 2"),
    );
    sandbox.write(
        "queries/visits.sql",
        format!("{on_close} select who, window_start, window_end, count(*) as n, count(b) as bills from session({rows}, t, interval '1 hour', who) group by 1, 2, 3"),
    );
    sandbox
}

fn hops_and_visits(sandbox: &Sandbox) -> (Vec<String>, Vec<String>) {
    let minute = |column: &str| {
        format!(
            "lpad(date_part('hour', {column})::int::varchar, 2, '0') || ':' || lpad(date_part('minute', {column})::int::varchar, 2, '0')"
        )
    };
    let [start, end] = ["window_start", "window_end"].map(minute);
    let rows = |select: String| -> Vec<String> {
        let rows = sandbox.rows(&format!("{select} order by t"));
        rows.iter().map(|row| row.replace("{\"t\":\"", "").replace("\"}", "")).collect()
    };
    (
        rows(format!("select {start} || '-' || {end} || ' ' || n::varchar || ' ' || bills::varchar as t from hops")),
        rows(format!(
            "select who || ' ' || {start} || '-' || {end} || ' ' || n::varchar || ' ' || bills::varchar as t from visits"
        )),
    )
}

/// When the watermark is an hour past their end, since a bill may come so late: at 12:25 those that ended until 11:25.
const HOPS: [&str; 6] =
    ["09:30-10:30 3 2", "10:00-11:00 3 2", "10:30-11:30 3 2", "11:00-12:00 3 2", "12:00-13:00 1 0", "12:30-13:30 1 0"];
const VISITS: [&str; 4] = ["a 10:00-11:00 2 2", "b 10:10-11:10 1 0", "c 11:00-12:20 3 2", "e 12:30-13:30 1 0"];

#[test]
fn hopping_windows_and_sessions_of_joined_streams_are_written_once_whatever_instant_a_run_is_killed_at() {
    for points in [&[][..], &KILLED_AT[..]] {
        let sandbox = windowed();
        let mut killed = 0;
        for number in 0..DEALS.len() {
            arrive(&sandbox, number);
            killed += killed_runs(&sandbox, points);
            sandbox.smelt(&["run"]).ok();
            let (hops, visits) = hops_and_visits(&sandbox);
            let count = if number == 3 { 2 } else { 0 };
            assert_eq!(hops, HOPS[..count], "after {number}");
            assert_eq!(visits, VISITS[..count], "after {number}");
        }
        assert!(points.is_empty() || killed > 10, "{killed} runs were killed");
        sandbox.smelt(&["run", "--final"]).ok();
        let (hops, visits) = hops_and_visits(&sandbox);
        assert_eq!(hops, HOPS);
        assert_eq!(visits, VISITS);
        assert_eq!(sandbox.rows("select count(*) as n from visits__late"), [r#"{"n":2}"#]);
    }
}

//! WITH RECURSIVE through the binary: recomputed at every change, and the difference is what is committed.

use crate::support::Sandbox;

const SOURCES: &str = r#"
version: 2
sources:
  - name: hr
    config: {connector: files, format: debezium-json, primary_key: [id]}
    tables:
      - name: staff
        config: {path: "data/staff-*.json"}
        columns: [{name: id, data_type: BIGINT}, {name: boss, data_type: BIGINT}, {name: name, data_type: STRING}]
"#;

/// Everybody below somebody, with how far below.
const BELOW: &str = "with recursive below as (
  select id as head, id, 0 as depth from {{ ref('staff') }}
  union all
  select b.head, s.id, b.depth + 1 from below as b join {{ ref('staff') }} as s on s.boss = b.id
)
select head, id, depth from below where depth > 0";

fn company() -> Sandbox {
    Sandbox::with(&[
        ("smelt.yml", "name: hr\ntarget: dev\ntargets:\n  dev: {lake: ./lake, schema: main}\n"),
        ("models/sources.yml", SOURCES),
        (
            "queries/staff.sql",
            "{{ config(materialized='streaming_table') }}\nselect id, boss, name from {{ source('hr', 'staff') }}",
        ),
        ("queries/below.sql", BELOW),
        // What reads it is maintained from its difference.
        ("queries/teams.sql", "select head, count(*) as n, max(depth) as levels from {{ ref('below') }} group by head"),
    ])
}

fn record(op: char, id: i64, boss: Option<i64>) -> String {
    let boss = boss.map_or("null".to_string(), |b| b.to_string());
    let row = format!("{{\"id\": {id}, \"boss\": {boss}, \"name\": \"n{id}\"}}");
    let (before, after) = if op == 'd' { (row.as_str(), "null") } else { ("null", row.as_str()) };
    format!("{{\"op\": \"{op}\", \"before\": {before}, \"after\": {after}, \"ts_ms\": 1}}\n")
}

#[test]
fn updates_and_deletes_reach_every_row_that_depends_on_them() {
    let sandbox = company();
    let explained = sandbox.smelt(&["explain", "below"]).ok().stdout;
    assert!(
        explained.contains("full refresh: WITH RECURSIVE: a change can reach any row of the result"),
        "{explained}"
    );
    let teams = sandbox.smelt(&["explain", "teams"]).ok().stdout;
    assert!(teams.contains("aggregate") && !teams.contains("full refresh"), "{teams}");

    let below = |rows: &[&str]| {
        let found = sandbox.rows("select concat(head, '>', id, ' ', depth) as r from below");
        let found: Vec<String> = found
            .iter()
            .map(|r| serde_json::from_str::<serde_json::Value>(r).unwrap()["r"].as_str().unwrap().to_string())
            .collect();
        assert_eq!(found, rows);
    };
    let teams = |rows: &[&str]| {
        let found = sandbox.rows("select concat(head, ': ', n, ' in ', levels) as r from teams");
        let found: Vec<String> = found
            .iter()
            .map(|r| serde_json::from_str::<serde_json::Value>(r).unwrap()["r"].as_str().unwrap().to_string())
            .collect();
        assert_eq!(found, rows);
    };
    sandbox.write(
        "data/staff-1.json",
        record('c', 1, None) + &record('c', 2, Some(1)) + &record('c', 3, Some(2)) + &record('c', 4, Some(2)),
    );
    sandbox.smelt(&["run"]).ok();
    below(&["1>2 1", "1>3 2", "1>4 2", "2>3 1", "2>4 1"]);
    teams(&["1: 3 in 2", "2: 2 in 1"]);

    // An update in the middle moves a branch; an insert below it follows.
    sandbox.write("data/staff-2.json", record('u', 3, Some(1)) + &record('c', 5, Some(3)));
    let ran = sandbox.smelt(&["run"]).ok().stdout;
    below(&["1>2 1", "1>3 1", "1>4 2", "1>5 2", "2>4 1", "3>5 1"]);
    teams(&["1: 4 in 2", "2: 1 in 1", "3: 1 in 1"]);
    // The commit has the difference only: three of six rows were there before.
    let line = ran.lines().find(|l| l.contains("main.below")).unwrap();
    assert!(line.contains("(+3 −2)"), "{ran}");

    // A delete cuts off what hangs below; nothing changes what is not below.
    sandbox.write("data/staff-3.json", record('d', 2, Some(1)));
    sandbox.smelt(&["run"]).ok();
    below(&["1>3 1", "1>5 2", "3>5 1"]);
    teams(&["1: 2 in 2", "3: 1 in 1"]);
    sandbox.write(
        "data/staff-4.json",
        record('d', 1, None) + &record('d', 3, Some(1)) + &record('d', 4, Some(2)) + &record('d', 5, Some(3)),
    );
    sandbox.smelt(&["run"]).ok();
    below(&[]);
    teams(&[]);
}

#[test]
fn a_model_that_must_be_incremental_is_refused_with_the_reason() {
    let sandbox = company();
    sandbox.write("queries/below.sql", format!("{{{{ config(incremental='strict') }}}}\n{BELOW}"));
    sandbox.smelt(&["compile"]).fails(2, "WITH RECURSIVE");
}

//! Snapshots through the binary: by hand, by `up` on time, and when they fail.

use serde_json::Value;
use std::time::Duration;

use crate::support::{Sandbox, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

/// Users in loads, one file each; the newest load of each; its history.
fn project(schedule: &str) -> Sandbox {
    let snapshots = format!(
        "version: 2\nsnapshots:\n  - name: history\n    relation: ref('users')\n    config: {{unique_key: id, strategy: check, check_cols: [city], \
         schedule: {schedule}}}\n    columns: [{{name: dbt_scd_id, data_tests: [not_null, unique]}}]\n"
    );
    Sandbox::with(&[
        (
            "smelt.yml",
            "name: crm\ntarget: dev\ntargets:\n  dev: {lake: ./lake, commit_interval: 100ms}\nmodels: {crm: {+schema: crm}}\n\
             snapshots: {crm: {+schema: crm}}\n",
        ),
        (
            "models/sources.yml",
            "version: 2\nsources:\n  - name: raw\n    config: {connector: files, format: json}\n    tables:\n      - name: users\n        \
             config: {path: data, include: {partition: load}}\n        columns: [{name: id, data_type: BIGINT}, {name: city, data_type: STRING}]\n",
        ),
        ("models/snapshots.yml", &snapshots),
        (
            "queries/bronze.sql",
            "{{ config(materialized='streaming_table') }}\nselect * from {{ source('raw', 'users') }}",
        ),
        (
            "queries/users.sql",
            "select id, city from {{ ref('bronze') }} where city <> 'nowhere'\nqualify row_number() over (partition by id order by load desc) = 1",
        ),
        ("queries/current_users.sql", "select id, city from {{ ref('history') }} where dbt_valid_to is null"),
        ("data/1.json", "{\"id\": 1, \"city\": \"Cairo\"}\n{\"id\": 2, \"city\": \"Giza\"}\n"),
    ])
}

fn listed(sandbox: &Sandbox) -> Value {
    let ended = sandbox.smelt(&["ls", "--output", "json", "--select", "history", "--resource-type", "snapshot"]).ok();
    serde_json::from_str(ended.stdout.trim()).unwrap()
}

#[test]
fn by_hand_each_planned_instant_is_taken_once() {
    let sandbox = project("\"0 2 * * *\"");
    assert_eq!(listed(&sandbox)["last_run"], Value::Null);
    let build = |planned: &str| sandbox.smelt(&["build", "--planned", planned]).ok();
    let built = build("2026-01-05T02:00:00Z");
    assert!(built.stdout.contains("history for 2026-01-05 02:00:00: +2 −0"), "{}", built.stdout);
    assert!(built.stdout.contains("ERROR=0 SKIP=0 TOTAL=6"), "{}", built.stdout);
    sandbox.write("data/2.json", "{\"id\": 1, \"city\": \"Luxor\"}\n");
    // A retry of the run that was made: the rows come, the snapshot does not move.
    build("2026-01-05T02:00:00Z");
    assert_eq!((sandbox.count("history"), sandbox.count("bronze")), (2, 3));
    build("2026-01-06T04:00:00+02:00");
    assert_eq!(sandbox.count("history"), 3);
    assert_eq!(
        sandbox.rows("select id, city, dbt_valid_from as f, dbt_valid_to as t from history"),
        [
            r#"{"id":1,"city":"Cairo","f":"2026-01-05T02:00:00Z","t":"2026-01-06T02:00:00Z"}"#,
            r#"{"id":1,"city":"Luxor","f":"2026-01-06T02:00:00Z","t":null}"#,
            r#"{"id":2,"city":"Giza","f":"2026-01-05T02:00:00Z","t":null}"#,
        ]
    );
    assert_eq!(
        sandbox.rows("select id, city from current_users"),
        [r#"{"id":1,"city":"Luxor"}"#, r#"{"id":2,"city":"Giza"}"#],
        "what reads it follows in the same run"
    );
    let shown = listed(&sandbox);
    assert_eq!((&shown["resource_type"], &shown["schedule"]), (&"snapshot".into(), &"0 2 * * *".into()));
    assert_eq!(shown["last_run"], "2026-01-06T02:00:00Z");
    assert!(shown["next_run"].as_str().unwrap().ends_with("T02:00:00Z"), "{shown}");
    sandbox.smelt(&["snapshot", "--planned", "tomorrow"]).fails(2, "write 2026-01-05T02:00:00Z");
    // A query that names one key twice fails by name, and changes nothing.
    sandbox.write("queries/users.sql", "select id, city from {{ ref('bronze') }}");
    let ended = sandbox.smelt(&["build", "--planned", "2026-01-07T02:00:00Z"]);
    ended.fails(1, "snapshot history: its query returns several rows with id = 1");
    assert_eq!(sandbox.count("history"), 3);
}

#[test]
fn up_takes_them_on_time_and_again_after_a_kill() {
    let sandbox = project("every 1 second");
    let mut up = sandbox.spawn(&["up"], &[]);
    eventually("the first versions are there", PATIENCE, || {
        up.log().contains("history for") && sandbox.count("history") == 2
    });
    for (round, city) in ["Luxor", "Aswan", "Edfu", "Luxor"].into_iter().enumerate() {
        sandbox.write(&format!("data/{}.json", round + 2), format!("{{\"id\": 1, \"city\": \"{city}\"}}\n"));
        if round % 2 == 1 {
            up.kill();
            up = sandbox.spawn(&["up"], &[]);
        }
        let versions = 3 + i64::try_from(round).unwrap();
        eventually("the next version is there", PATIENCE, || sandbox.count("history") == versions);
        eventually("its reader follows", PATIENCE, || {
            sandbox.rows("select city from current_users where id = 1") == [format!("{{\"city\":\"{city}\"}}")]
        });
    }
    assert_eq!(up.stop(), Some(0), "{}", up.log());
    // Versions of a user follow each other without gap or overlap.
    let gaps =
        "select count(*) as n from history as a join history as b on a.id = b.id and a.dbt_valid_to = b.dbt_valid_from";
    assert_eq!(sandbox.value(gaps), 4);
    assert_eq!(sandbox.value("select count(distinct dbt_scd_id) as n from history"), 6);
}

#[test]
fn a_snapshot_gains_columns_and_keeps_those_it_loses() {
    let sandbox = project("every 1 day");
    sandbox.smelt(&["build", "--planned", "2026-01-05T00:00:00Z"]).ok();
    let users = |columns: &str| {
        let sql = format!(
            "select {columns} from {{{{ ref('bronze') }}}}\nqualify row_number() over (partition by id order by load desc) = 1"
        );
        sandbox.write("queries/users.sql", sql);
    };
    users("id, city, id * 10 as code");
    sandbox.write("data/2.json", "{\"id\": 1, \"city\": \"Luxor\"}\n");
    sandbox.smelt(&["build", "--planned", "2026-01-06T00:00:00Z"]).ok();
    assert_eq!(
        sandbox.rows("select id, city, code from history"),
        [
            r#"{"id":1,"city":"Cairo","code":null}"#,
            r#"{"id":1,"city":"Luxor","code":10}"#,
            r#"{"id":2,"city":"Giza","code":null}"#
        ]
    );
    users("id, city");
    sandbox.write("data/3.json", "{\"id\": 2, \"city\": \"Aswan\"}\n");
    sandbox.smelt(&["build", "--planned", "2026-01-07T00:00:00Z"]).ok();
    assert_eq!(
        sandbox.rows("select id, city, code from history where city = 'Aswan'"),
        [r#"{"id":2,"city":"Aswan","code":null}"#]
    );
    assert_eq!(sandbox.count("history"), 4);
}

#[test]
fn mistakes_point_at_the_snapshot() {
    for (config, said) in [
        ("unique_key: idd, strategy: check, check_cols: [city]", "`unique_key`: the snapshot has no column `idd`"),
        ("unique_key: id, strategy: check, check_cols: [town]", "`check_cols`: the snapshot has no column `town`"),
        ("unique_key: id, strategy: timestamp, updated_at: city", "`updated_at`: `city` is Utf8, not a timestamp"),
        (
            "unique_key: id, strategy: check, check_cols: all, dbt_valid_to_current: city",
            "dbt_valid_to_current: `city` is no constant instant",
        ),
        (
            "unique_key: id, strategy: check, check_cols: all, snapshot_meta_column_names: {dbt_valid_to: city}",
            "the snapshot adds `city`, and its query has it too",
        ),
    ] {
        let sandbox = project("every 1 day");
        sandbox.write(
            "models/snapshots.yml",
            format!(
                "version: 2\nsnapshots:\n  - name: history\n    relation: ref('users')\n    config: {{{config}}}\n"
            ),
        );
        let ended = sandbox.smelt(&["compile"]).fails(2, said);
        assert!(ended.stderr.contains("models/snapshots.yml:3:"), "{}", ended.stderr);
    }
    let sandbox = project("every 1 day");
    sandbox.write(
        "models/snapshots.yml",
        "version: 2\nsnapshots:\n  - name: history\n    relation: ref('usrs')\n    config: {unique_key: id, strategy: check, check_cols: all}\n",
    );
    let ended = sandbox.smelt(&["compile"]).fails(2, "no model `usrs`");
    assert!(ended.stderr.contains("models/snapshots.yml:4:15"), "{}", ended.stderr);
}

#[test]
fn a_far_end_stands_for_now() {
    let sandbox = project("every 1 day");
    sandbox.write(
        "models/snapshots.yml",
        "version: 2\nsnapshots:\n  - name: history\n    relation: ref('users')\n    config: {unique_key: id, strategy: check, check_cols: all, \
         dbt_valid_to_current: \"timestamp '9999-12-31'\", hard_deletes: invalidate}\n",
    );
    sandbox.smelt(&["build", "--planned", "2026-01-05T00:00:00Z"]).ok();
    sandbox.write("data/2.json", "{\"id\": 1, \"city\": \"Luxor\"}\n{\"id\": 2, \"city\": \"nowhere\"}\n");
    // The newest load of 2 is filtered out before the newest is chosen: its older one stays.
    sandbox.smelt(&["build", "--planned", "2026-01-06T00:00:00Z"]).ok();
    assert_eq!(
        sandbox.rows("select id, city, dbt_valid_to as t from history"),
        [
            r#"{"id":1,"city":"Cairo","t":"2026-01-06T00:00:00Z"}"#,
            r#"{"id":1,"city":"Luxor","t":"9999-12-31T00:00:00Z"}"#,
            r#"{"id":2,"city":"Giza","t":"9999-12-31T00:00:00Z"}"#,
        ]
    );
}

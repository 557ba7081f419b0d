//! Incremental models and seeds through the binary, run by run, as dbt defines them.

use crate::support::Sandbox;

/// Events as loads, one file each: `id`, `city`, `n`, the load's number, and a time that says which day it is.
fn project(model: &str) -> Sandbox {
    Sandbox::with(&[
        (
            "smelt.yml",
            "name: shop\ntarget: dev\ntargets:\n  dev: {lake: ./lake, commit_interval: 100ms}\nmodels: {shop: {+schema: shop}}\n\
             seeds: {shop: {+schema: shop}}\n",
        ),
        (
            "models/sources.yml",
            "version: 2\nsources:\n  - name: raw\n    config: {connector: files, format: json}\n    tables:\n      - name: events\n        \
             config: {path: data, include: {partition: load}}\n        columns:\n          - {name: id, data_type: BIGINT}\n          \
             - {name: city, data_type: STRING}\n          - {name: n, data_type: BIGINT}\n          - {name: at, data_type: TIMESTAMP}\n",
        ),
        (
            "queries/events.sql",
            "{{ config(materialized='streaming_table', event_time='at') }}\nselect * from {{ source('raw', 'events') }}",
        ),
        ("queries/m.sql", model),
        ("queries/total.sql", "select count(*) as n, sum(n) as s from {{ ref('m') }}"),
    ])
}

/// `id city n day` separated by commas, as load `number`.
fn load(sandbox: &Sandbox, number: u32, rows: &str) {
    let lines = rows.split(',').map(|row| {
        let mut parts = row.split_whitespace();
        let mut next = || parts.next().unwrap();
        format!(
            "{{\"id\": {}, \"city\": \"{}\", \"n\": {}, \"at\": \"2026-01-{}T06:00:00Z\"}}\n",
            next(),
            next(),
            next(),
            next()
        )
    });
    sandbox.write(&format!("data/{number:03}.json"), lines.collect::<String>());
}

fn run(sandbox: &Sandbox) {
    sandbox.smelt(&["run"]).ok();
}

/// `id city n`, sorted.
fn held(sandbox: &Sandbox) -> String {
    let rows = sandbox.rows("select concat(id, ' ', city, ' ', n) as r from m order by r");
    let text = |row: String| row.trim_start_matches("{\"r\":\"").trim_end_matches("\"}").to_string();
    let rows: Vec<String> = rows.into_iter().map(text).collect();
    // What reads the model has followed.
    assert_eq!(sandbox.value("select n from total"), i64::try_from(rows.len()).unwrap());
    rows.join(", ")
}

const NEWER: &str = "{% if is_incremental() %}where load > (select max(load) from {{ this }}){% endif %}";

#[test]
fn append_adds_what_the_query_returns_once_per_run() {
    let model = format!(
        "{{{{ config(materialized='incremental') }}}}\nselect id, city, n, load from {{{{ ref('events') }}}} {NEWER}"
    );
    let sandbox = project(&model);
    load(&sandbox, 1, "1 Cairo 10 05,2 Giza 20 05");
    run(&sandbox);
    assert_eq!(held(&sandbox), "1 Cairo 10, 2 Giza 20");
    load(&sandbox, 2, "1 Luxor 11 06");
    load(&sandbox, 3, "3 Aswan 30 06,3 Aswan 30 06");
    run(&sandbox);
    assert_eq!(held(&sandbox), "1 Cairo 10, 1 Luxor 11, 2 Giza 20, 3 Aswan 30, 3 Aswan 30");
    run(&sandbox);
    assert_eq!(held(&sandbox).split(", ").count(), 5, "nothing is newer");
    // Without the guard each run adds everything once more: that is what the model says.
    sandbox.write(
        "queries/m.sql",
        "{{ config(materialized='incremental') }}\nselect id, city, n, load from {{ ref('events') }}",
    );
    run(&sandbox);
    assert_eq!(held(&sandbox).split(", ").count(), 10);
    sandbox.smelt(&["run", "--full-refresh"]).ok();
    assert_eq!(held(&sandbox).split(", ").count(), 5);
    // The planned instant of a run makes a retry harmless.
    let planned = ["build", "--planned", "2030-01-01T00:00:00Z"];
    sandbox.smelt(&planned).ok();
    sandbox.smelt(&planned).ok();
    assert_eq!(held(&sandbox).split(", ").count(), 10);
}

#[test]
fn a_run_killed_at_its_commit_is_made_once() {
    let model = "{{ config(materialized='incremental') }}\nselect id, city, n, load from {{ ref('events') }}";
    let sandbox = project(model);
    load(&sandbox, 1, "1 Cairo 10 05,2 Giza 20 05");
    run(&sandbox);
    let planned = ["build", "--planned", "2030-01-01T00:00:00Z"];
    for point in ["after-uploads", "before-epochs-row", "after-epochs-row"] {
        for nth in 1..=3 {
            sandbox.smelt_with(&planned, &[("SMELT_CRASH_AT", &format!("{point}:{nth}"))]);
        }
    }
    sandbox.smelt(&planned).ok();
    assert_eq!(held(&sandbox), "1 Cairo 10, 1 Cairo 10, 2 Giza 20, 2 Giza 20");
}

#[test]
fn merge_updates_rows_by_key_and_keeps_excluded_columns() {
    let model = |config: &str| {
        format!(
            "{{{{ config(materialized='incremental', unique_key='id'{config}) }}}}\nselect id, city, n, load from {{{{ ref('events') }}}} {NEWER}"
        )
    };
    let sandbox = project(&model(""));
    load(&sandbox, 1, "1 Cairo 10 05,2 Giza 20 05");
    run(&sandbox);
    load(&sandbox, 2, "1 Luxor 11 06,3 Aswan 30 06");
    run(&sandbox);
    assert_eq!(held(&sandbox), "1 Luxor 11, 2 Giza 20, 3 Aswan 30");
    sandbox.write("queries/m.sql", model(", merge_exclude_columns=['city']"));
    load(&sandbox, 3, "1 Edfu 12 07");
    run(&sandbox);
    assert_eq!(held(&sandbox), "1 Luxor 12, 2 Giza 20, 3 Aswan 30");
    sandbox.write("queries/m.sql", model(", merge_update_columns=['city', 'load']"));
    load(&sandbox, 4, "1 Edfu 13 07");
    run(&sandbox);
    assert_eq!(held(&sandbox), "1 Edfu 12, 2 Giza 20, 3 Aswan 30");
    // Rows of the table that a predicate leaves out match nothing.
    sandbox.write("queries/m.sql", model(", incremental_predicates=['DBT_INTERNAL_DEST.n > 15']"));
    load(&sandbox, 5, "1 Qena 14 08,2 Qena 21 08");
    run(&sandbox);
    assert_eq!(held(&sandbox), "1 Edfu 12, 1 Qena 14, 2 Qena 21, 3 Aswan 30");
    // Two rows for one row that is there: an error that names the key, and nothing changes.
    sandbox.write("queries/m.sql", model(""));
    load(&sandbox, 6, "3 Siwa 1 09,3 Siwa 2 09");
    sandbox.smelt(&["run"]).fails(1, "the run has several rows for id = 3");
    assert_eq!(held(&sandbox), "1 Edfu 12, 1 Qena 14, 2 Qena 21, 3 Aswan 30");
}

#[test]
fn keys_of_several_columns_and_null_keys() {
    let model = format!(
        "{{{{ config(materialized='incremental', unique_key=['id', 'k']) }}}}\nselect id, city, n, load, nullif(city, 'none') as k from {{{{ ref('events') }}}} {NEWER}"
    );
    let sandbox = project(&model);
    load(&sandbox, 1, "1 Cairo 10 05,1 Giza 20 05,2 none 1 05");
    run(&sandbox);
    load(&sandbox, 2, "1 Cairo 11 06,2 none 2 06");
    run(&sandbox);
    assert_eq!(held(&sandbox), "1 Cairo 11, 1 Giza 20, 2 none 1, 2 none 2", "a NULL key equals no other");
}

#[test]
fn delete_insert_replaces_all_rows_of_a_key() {
    let model = format!(
        "{{{{ config(materialized='incremental', unique_key='id', incremental_strategy='delete+insert') }}}}\nselect id, city, n, load from {{{{ ref('events') }}}} {NEWER}"
    );
    let sandbox = project(&model);
    load(&sandbox, 1, "1 Cairo 10 05,1 Giza 20 05,2 Siwa 5 05");
    run(&sandbox);
    load(&sandbox, 2, "1 Luxor 11 06,1 Luxor 12 06,1 Luxor 12 06");
    run(&sandbox);
    assert_eq!(held(&sandbox), "1 Luxor 11, 1 Luxor 12, 1 Luxor 12, 2 Siwa 5");
}

#[test]
fn insert_overwrite_replaces_the_partitions_that_come() {
    let model = |partition: &str| {
        format!(
            "{{{{ config(materialized='incremental', incremental_strategy='insert_overwrite'{partition}) }}}}\nselect id, city, n, load from {{{{ ref('events') }}}} {NEWER}"
        )
    };
    let sandbox = project(&model(", partition_by=['city']"));
    load(&sandbox, 1, "1 Cairo 10 05,2 Cairo 20 05,3 Giza 30 05");
    run(&sandbox);
    load(&sandbox, 2, "9 Cairo 90 06,4 Siwa 40 06");
    run(&sandbox);
    assert_eq!(held(&sandbox), "3 Giza 30, 4 Siwa 40, 9 Cairo 90");
    let whole = project(&model(""));
    load(&whole, 1, "1 Cairo 10 05,2 Giza 20 05");
    run(&whole);
    load(&whole, 2, "9 Luxor 90 06");
    run(&whole);
    assert_eq!(held(&whole), "9 Luxor 90", "without partitions the table is one");
}

#[test]
fn microbatch_makes_the_batches_since_the_last_run_again() {
    let model = "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='at', begin='2026-01-05', \
                 batch_size='day', lookback=1) }}\nselect id, city, sum(n) as n, min(at) as at from {{ ref('events') }} group by id, city";
    let sandbox = project(model);
    let build = |planned: &str| sandbox.smelt(&["build", "--planned", planned]).ok();
    load(&sandbox, 1, "1 Cairo 10 04,1 Cairo 1 05,1 Cairo 2 06,2 Giza 5 06");
    build("2026-01-06T12:00:00Z");
    assert_eq!(
        held(&sandbox),
        "1 Cairo 1, 1 Cairo 2, 2 Giza 5",
        "the fourth is before `begin`; each day is a batch of its own"
    );
    // Late rows of the fifth and sixth, and a row of the seventh: the lookback reaches the fifth from a run on the sixth only.
    load(&sandbox, 2, "1 Cairo 100 05,1 Cairo 200 06,3 Siwa 7 07");
    build("2026-01-07T01:00:00Z");
    assert_eq!(held(&sandbox), "1 Cairo 101, 1 Cairo 202, 2 Giza 5, 3 Siwa 7");
    load(&sandbox, 3, "1 Cairo 1000 05,3 Siwa 70 07");
    build("2026-01-07T02:00:00Z");
    assert_eq!(held(&sandbox), "1 Cairo 101, 1 Cairo 202, 2 Giza 5, 3 Siwa 77", "the fifth is out of reach");
    // By hand, any batches; those already there stay.
    let again = [
        "build",
        "--planned",
        "2026-01-07T02:30:00Z",
        "--event-time-start",
        "2026-01-05",
        "--event-time-end",
        "2026-01-06",
    ];
    sandbox.smelt(&again).ok();
    assert_eq!(held(&sandbox), "1 Cairo 1101, 1 Cairo 202, 2 Giza 5, 3 Siwa 77");
    sandbox.smelt(&["build", "--full-refresh", "--planned", "2026-01-07T03:00:00Z"]).ok();
    assert_eq!(held(&sandbox), "1 Cairo 1101, 1 Cairo 202, 2 Giza 5, 3 Siwa 77");
}

#[test]
fn on_schema_change_has_four_answers() {
    let model = |change: &str, columns: &str| {
        format!(
            "{{{{ config(materialized='incremental', unique_key='id', on_schema_change='{change}') }}}}\nselect {columns} from {{{{ ref('events') }}}} {NEWER}"
        )
    };
    let sandbox = project(&model("ignore", "id, city, n, load"));
    let columns = || {
        let shown = sandbox.smelt(&["show", "m", "--columns"]).ok().stdout;
        shown.lines().map(|l| l.split_whitespace().next().unwrap().to_string()).collect::<Vec<_>>().join(" ")
    };
    load(&sandbox, 1, "1 Cairo 10 05");
    run(&sandbox);
    // ignore: a new column is left out, a missing one is an error.
    sandbox.write("queries/m.sql", model("ignore", "id, city, n, load, upper(city) as big"));
    load(&sandbox, 2, "2 Giza 20 06");
    run(&sandbox);
    assert_eq!((held(&sandbox).as_str(), columns().as_str()), ("1 Cairo 10, 2 Giza 20", "id city n load"));
    sandbox.write("queries/m.sql", model("ignore", "id, city, load"));
    sandbox.smelt(&["run"]).fails(2, "shop.m has `n`, which the query does not select any more");
    // fail: any difference is an error.
    sandbox.write("queries/m.sql", model("fail", "id, city, n, load, upper(city) as big"));
    sandbox.smelt(&["run"]).fails(2, "on_schema_change: fail, and compared with shop.m the query adds `big`");
    sandbox.write("queries/m.sql", model("fail", "load, n, city, id"));
    run(&sandbox);
    assert_eq!(held(&sandbox), "1 Cairo 10, 2 Giza 20", "the order of columns is no difference");
    // append_new_columns: old rows have NULL in it; a missing one stays.
    sandbox.write("queries/m.sql", model("append_new_columns", "id, n, load, upper('x' || id) as big"));
    sandbox.write("queries/total.sql", "select count(*) as n, sum(n) as s, count(big) as b from {{ ref('m') }}");
    load(&sandbox, 3, "3 Siwa 30 07");
    run(&sandbox);
    assert_eq!(columns(), "id city n load big");
    assert_eq!(
        sandbox.rows("select id, city, big from m order by id"),
        [
            r#"{"id":1,"city":"Cairo","big":null}"#,
            r#"{"id":2,"city":"Giza","big":null}"#,
            r#"{"id":3,"city":null,"big":"X3"}"#
        ]
    );
    assert_eq!(sandbox.value("select b from total"), 1);
    // sync_all_columns: columns go, come, and change their type.
    sandbox.write("queries/m.sql", model("sync_all_columns", "id, cast(n as double) / 4 as n, load, city as town"));
    sandbox.write("queries/total.sql", "select count(*) as n, sum(n) as s, count(town) as b from {{ ref('m') }}");
    load(&sandbox, 4, "4 Qena 41 08");
    run(&sandbox);
    assert_eq!(columns(), "id n load town");
    assert_eq!(
        sandbox.rows("select id, n, town from m order by id"),
        [
            r#"{"id":1,"n":10.0,"town":null}"#,
            r#"{"id":2,"n":20.0,"town":null}"#,
            r#"{"id":3,"n":30.0,"town":null}"#,
            r#"{"id":4,"n":10.25,"town":"Qena"}"#
        ]
    );
    assert_eq!(sandbox.value("select n * 10 + b as v from total"), 41);
    // A full refresh follows the query whatever it was.
    sandbox.write("queries/m.sql", model("fail", "id, city, n, load"));
    sandbox.write("queries/total.sql", "select count(*) as n, sum(n) as s from {{ ref('m') }}");
    sandbox.smelt(&["run", "--full-refresh"]).ok();
    assert_eq!(columns(), "id city n load");
    assert_eq!(held(&sandbox), "1 Cairo 10, 2 Giza 20, 3 Siwa 30, 4 Qena 41");
}

#[test]
fn seeds_are_loaded_before_what_reads_them_and_again_when_edited() {
    let sandbox = project(
        "select s.id, s.city, e.n from {{ ref('cities') }} as s join {{ ref('events') }} as e on e.city = s.city",
    );
    sandbox.write(
        "seeds/cities.csv",
        "id,city,code,share,since,seen,big\n1,Cairo,002,0.5,2026-01-01,2026-01-01 10:00:00,true\n2,\"Giza, west\",020,1,2026-01-02,2026-01-01T10:00:00,false\n",
    );
    load(&sandbox, 1, "7 Cairo 10 05,8 Siwa 20 05");
    run(&sandbox);
    assert_eq!(held(&sandbox), "1 Cairo 10");
    assert_eq!(
        sandbox.rows("select * from cities order by id")[1],
        r#"{"id":2,"city":"Giza, west","code":"020","share":1.0,"since":"2026-01-02","seen":"2026-01-01T10:00:00Z","big":false}"#
    );
    // An edited file is a change like any other: only what differs is written.
    sandbox.write(
        "seeds/cities.csv",
        "id,city,code,share,since,seen,big\n1,Cairo,002,0.5,2026-01-01,2026-01-01 10:00:00,true\n3,Siwa,,,,,\n",
    );
    let ended = sandbox.smelt(&["seed"]).ok();
    assert!(ended.stdout.contains("+1 −1"), "{}", ended.stdout);
    run(&sandbox);
    assert_eq!(held(&sandbox), "1 Cairo 10, 3 Siwa 20");
    // Other columns and declared types.
    sandbox.write("seeds/cities.csv", "id;city\n1;Cairo\n");
    sandbox.write(
        "models/seeds.yml",
        "version: 2\nseeds:\n  - name: cities\n    config: {delimiter: ';', column_types: {id: varchar(3)}}\n    columns: [{name: id, data_tests: [unique]}]\n",
    );
    sandbox.write(
        "queries/m.sql",
        "select s.id, s.city, e.n from {{ ref('cities') }} as s join {{ ref('events') }} as e on e.city = s.city",
    );
    let built = sandbox.smelt(&["build"]).ok();
    assert!(built.stdout.contains("ERROR=0 SKIP=0 TOTAL=5"), "{}", built.stdout);
    assert_eq!(sandbox.rows("select * from cities"), [r#"{"id":"1","city":"Cairo"}"#]);
    assert_eq!(held(&sandbox), "1 Cairo 10");
    // A cell that does not fit names its line.
    sandbox.write("models/seeds.yml", "version: 2\nseeds:\n  - {name: cities, config: {column_types: {id: int}}}\n");
    sandbox.write("seeds/cities.csv", "id,city\n1,Cairo\nx,Giza\n");
    sandbox.smelt(&["seed"]).fails(2, "seeds/cities.csv:3:1");
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let sandbox = project(
        "{{ config(materialized='incremental', unique_key='idd') }}\nselect id, city, n from {{ ref('events') }}",
    );
    sandbox.smelt(&["compile"]).fails(2, "`unique_key`: `m` has no column `idd`");
    let wrong = |sql: &str, message: &str| {
        sandbox.write("queries/m.sql", sql);
        sandbox.smelt(&["compile"]).fails(2, message);
    };
    wrong(
        "{{ config(materialized='incremental', incremental_strategy='upsert') }}\nselect id, city, n from {{ ref('events') }}",
        "unknown incremental strategy `upsert`",
    );
    wrong(
        "{{ config(materialized='incremental', incremental_strategy='microbatch') }}\nselect id, city, n from {{ ref('events') }}",
        "strategy `microbatch` needs `event_time`",
    );
    wrong(
        "{{ config(materialized='incremental', unique_key='id', incremental_predicates=['nosuch > 1']) }}\nselect id, city, n from {{ ref('events') }}",
        "incremental_predicates of `m`",
    );
    wrong(
        "{{ config(materialized='incremental') }}\nselect id, city, n {% if is_incremental() %}, 1 as x{% endif %} from {{ ref('events') }}",
        "where is_incremental() is false, the query does not select `x`",
    );
    wrong(
        "{{ config(materialized='incremental') }}\nselect id, city, n from {{ ref('events') }} where n > (select max(n) from {{ this }})",
        "{{ this }} is not there in the first run",
    );
    wrong(
        "{{ config(materialized='incremental') }}\nselect id, city, n from {{ source('raw', 'event') }}",
        "source `raw` has no table `event`",
    );
}

#[test]
fn now_is_the_time_of_the_run_in_every_kind_of_table() {
    let sandbox =
        project("{{ config(materialized='incremental') }}\nselect id, city, n, now() as at from {{ ref('events') }}");
    sandbox.write("queries/stream.sql", "{{ config(materialized='streaming_table') }}\nselect id, current_timestamp as at from STREAM {{ ref('events') }}");
    sandbox.write("queries/made.sql", "{{ config(materialized='table') }}\nselect current_date as day, now() as at");
    load(&sandbox, 1, "1 Cairo 10 05");
    run(&sandbox);
    for table in ["m", "stream", "made"] {
        let recent =
            format!("select count(*) as n from {table} where at between now() - interval '10 minutes' and now()");
        assert_eq!(sandbox.value(&recent), 1, "{table}");
    }
    assert_eq!(sandbox.value("select count(*) as n from made where day = cast(at as date)"), 1);
}

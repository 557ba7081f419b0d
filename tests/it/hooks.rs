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
        "default.orders for ",
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

/// orders → first → second (both with hooks, by their folder) → third, and `beside`, which has none.
fn chain(files: &[(&str, &str)]) -> Sandbox {
    let settings = "\
name: shop
targets: {dev: {lake: ./lake, commit_interval: 50ms}}
models:
  shop:
    hooked:
      +pre-hook: \"{% if adapter.get_relation(none, 'default', this.name) %}insert into {{ source('ops', 'audit') }} select 'pre', '{{ this.name }}', count(*) from {{ this }}{% endif %}\"
      +post-hook: \"insert into {{ source('ops', 'audit') }} select 'post', '{{ this.name }}', count(*) from {{ this }}\"
";
    let sandbox = Sandbox::with(&[
        ("smelt.yml", settings),
        ("models/shop.yml", PROPERTIES.split("models:").next().unwrap()),
        ("queries/hooked/first.sql", "{{ config(materialized='table') }}select id from {{ source('shop', 'orders') }}"),
        ("queries/hooked/second.sql", "select id from {{ ref('first') }}"),
        ("queries/third.sql", "select count(*) as n from {{ ref('second') }}"),
        ("queries/beside.sql", "select id from {{ source('shop', 'orders') }}"),
        ("data/orders/1.json", "{\"id\": 1}\n{\"id\": 2}\n"),
    ]);
    files.iter().for_each(|(path, text)| sandbox.write(path, text));
    sandbox
}

/// The hooks of a command, and what its tables had when they ran.
fn hooks_in(sandbox: &Sandbox, command: &str) -> Vec<String> {
    let before = audit(sandbox).len();
    let ended = sandbox.smelt(&[command]).ok();
    let order =
        ended.stdout.lines().filter_map(|line| line.split_once(" hook ")?.1.split_once(':').map(|(name, _)| name));
    let order: Vec<String> = order.map(str::to_string).collect();
    assert_eq!(order, ["first.pre-hook.0", "first.post-hook.0", "second.pre-hook.0", "second.post-hook.0"]);
    let versions = sandbox.rows("select step || ' ' || what || ' ' || n as row from ops.audit");
    assert!(versions.len() > before);
    audit(sandbox)
}

#[test]
fn hooks_stand_right_around_their_model() {
    let sandbox = chain(&[]);
    sandbox.smelt(&["run"]).ok();
    assert_eq!(audit(&sandbox), ["post first 2", "post second 2"], "before its first run a model has no table");
    for (command, rows) in [("run", 3), ("build", 4)] {
        sandbox.write(&format!("data/orders/{rows}.json"), format!("{{\"id\": {rows}}}\n"));
        let audited = hooks_in(&sandbox, command);
        let before = rows - 1;
        for row in [
            format!("pre first {before}"),
            format!("post first {rows}"),
            // `first` has been made by now, `second` has not.
            format!("pre second {before}"),
            format!("post second {rows}"),
        ] {
            assert!(audited.contains(&row), "{command}: {row}: {audited:?}");
        }
        assert_eq!(sandbox.rows("select n from third"), [format!("{{\"n\":{rows}}}")]);
        assert_eq!(sandbox.count("beside"), rows);
    }
}

#[test]
fn a_failing_post_hook_fails_its_model_which_stays_made() {
    let broken = "{{ config(materialized='table', post_hook='select * from nowhere') }}select id from {{ source('shop', 'orders') }}";
    let tested = "{% test never(model) %}select * from {{ model }}{% endtest %}";
    let yaml =
        format!("{}models:\n  - {{name: first, data_tests: [never]}}\n", PROPERTIES.split("models:").next().unwrap());
    for (command, skipped) in [("run", 2), ("build", 3)] {
        let sandbox =
            chain(&[("queries/hooked/first.sql", broken), ("macros/never.sql", tested), ("models/shop.yml", &yaml)]);
        let ended = sandbox.smelt(&[command]).fails(1, "hook first.post-hook.1: ");
        assert!(ended.stderr.contains("nowhere"), "{}", ended.stderr);
        assert_eq!(sandbox.count("first"), 2);
        assert_eq!(sandbox.count("beside"), 2);
        for unmade in ["second", "third"] {
            assert!(!sandbox.table("default", unmade).exists(), "{unmade}");
        }
        let results = std::fs::read_to_string(sandbox.path().join("target/run_results.json")).unwrap();
        let results: serde_json::Value = serde_json::from_str(&results).unwrap();
        let count =
            |status: &str| results["results"].as_array().unwrap().iter().filter(|r| r["status"] == status).count();
        assert_eq!((count("error"), count("skipped"), count("success")), (1, skipped, 1), "{command}: {results:#}");
    }
}

#[test]
fn what_a_hook_inserts_is_there_for_the_models_after_it() {
    let sandbox = chain(&[
        (
            "queries/hooked/first.sql",
            "{{ config(materialized='incremental', post_hook='insert into {{ this }} values (100)') }}select id from {{ source('shop', 'orders') }}{% if is_incremental() %} where id > (select max(id) from {{ this }} where id < 100){% endif %}",
        ),
        (
            "queries/hooked/second.sql",
            "select id, (select count(*) from {{ source('ops', 'audit') }}) as n from {{ ref('first') }}",
        ),
    ]);
    sandbox.smelt(&["run-operation", "nothing"]).fails(2, "no macro");
    sandbox.smelt(&["run", "-s", "first"]).ok();
    assert_eq!(sandbox.count("first"), 3);
    sandbox.write("data/orders/2.json", "{\"id\": 3}\n");
    sandbox.smelt(&["run"]).ok();
    // 1, 2, 100, 3, 100: the model's own rows, and one of each run's hook.
    assert_eq!(sandbox.count("first"), 5);
    assert_eq!(sandbox.rows("select n from third"), [r#"{"n":5}"#]);
    // Two hooks of the first run, three before `second` in this one, or its own before it: all that had been when it was made.
    assert_eq!(sandbox.rows("select distinct n from second"), [r#"{"n":3}"#]);
    sandbox.smelt(&["run"]).ok();
    assert_eq!(sandbox.rows("select n from third"), [r#"{"n":6}"#]);
}

#[test]
fn hooks_of_what_is_made_at_times_stand_around_each_of_its_runs() {
    let sandbox = shop(&[
        ("smelt.yml", SMELT.split("models:").next().unwrap()),
        (
            "queries/orders.sql",
            "{{ config(materialized='table', schedule='every 1 second', post_hook=\"insert into {{ source('ops', 'audit') }} select 'post', 'orders', count(*) from {{ this }}\") }}select id from {{ source('shop', 'orders') }}",
        ),
        // Another program's commit to a table that the engine holds: it opens anew, and goes on.
        (
            "queries/log.sql",
            "{{ config(materialized='incremental', schedule='every 1 second', post_hook='insert into {{ this }} values (100)') }}select id from {{ ref('orders') }}{% if is_incremental() %} where false{% endif %}",
        ),
        ("queries/readers.sql", "select count(*) as n from {{ ref('log') }}"),
        (
            "queries/live.sql",
            "{{ config(materialized='streaming_table', post_hook=\"insert into {{ source('ops', 'audit') }} values ('post', 'live', 0)\") }}select id from {{ source('shop', 'orders') }}",
        ),
    ]);
    let mut up = sandbox.spawn(&["up", "--no-http"], &[]);
    eventually("three runs", Duration::from_secs(120), || up.log().matches("hook orders.post-hook.0").count() >= 3);
    sandbox.write("data/orders/2.json", "{\"id\": 3}\n");
    eventually("a run with the new row", Duration::from_secs(60), || {
        sandbox.rows("select n from ops.audit where step = 'post' and what = 'orders' and n = 3").len() > 1
    });
    assert_eq!(up.stop(), Some(0), "{}", up.log());
    let rows = audit(&sandbox);
    let count = |row: &str| rows.iter().filter(|r| r.starts_with(row)).count();
    assert_eq!(count("pre orders"), count("post orders"), "{rows:?}\n{}", up.log());
    assert_eq!(count("post live"), 1, "{rows:?}");
    let logged = sandbox.count("log");
    assert!(logged >= 4, "{logged}: two rows, and one of every run's hook\n{}", up.log());
    assert_eq!(up.log().matches("hook log.post-hook.0: INSERT 1").count() as i64, logged - 2, "{}", up.log());
    assert_eq!(sandbox.rows("select n from readers").len(), 1);
    // What stands around a run fails: the run is not made, and tried again at its next time.
    sandbox.write(
        "models/shop.yml",
        PROPERTIES
            .replace("insert into {{ source('ops', 'audit') }} values ('pre'", "select * from nowhere; select ('pre'"),
    );
    let rows = audit(&sandbox).len();
    let mut up = sandbox.spawn(&["up", "--no-http"], &[]);
    eventually("two failures", Duration::from_secs(120), || up.log().matches("orders failed for").count() >= 2);
    assert_eq!(up.stop(), Some(0), "{}", up.log());
    let now = audit(&sandbox);
    assert!(!now[rows..].iter().any(|r| r.starts_with("post orders")), "{now:?}");
}

#[test]
fn every_command_that_dbt_runs_hooks_for_runs_them_and_knows_what_is_selected() {
    let settings = "\
name: shop
targets: {dev: {lake: ./lake, commit_interval: 50ms}}
on-run-start: \"insert into {{ source('ops', 'audit') }} values ('start', '{{ flags.WHICH }} {{ selected_resources | sort | join(\\\"+\\\") }}', 0)\"
on-run-end: \"insert into {{ source('ops', 'audit') }} values ('end', '{{ flags.WHICH }}', {{ results | length }})\"
";
    let yaml = PROPERTIES.split("models:").next().unwrap().replace("config: {connector: files, format: json, path: data/orders}", "config: {connector: files, format: json, path: data/orders}\n    freshness: {warn_after: {count: 100000, period: day}}");
    let yaml = format!(
        "{yaml}models:\n  - name: orders\n    columns: [{{name: id, data_tests: [not_null]}}]\nsnapshots:\n  - {{name: past, relation: ref('orders'), config: {{strategy: check, unique_key: id, check_cols: all}}}}\n"
    );
    let sandbox = Sandbox::with(&[
        ("smelt.yml", settings),
        ("models/shop.yml", &yaml),
        // A template knows too what is selected.
        (
            "queries/orders.sql",
            "{{ config(materialized='table') }}select id, {{ selected_resources | length }} as n from {{ source('shop', 'orders') }}",
        ),
        ("seeds/colours.csv", "name\nred\n"),
        ("data/orders/1.json", "{\"id\": 1}\n"),
    ]);
    let expected = [
        (&["seed"][..], "seed seed.shop.colours"),
        (&["build", "-s", "+orders"], "build model.shop.orders+test.shop.not_null_orders_id.9ee8ee8e3d"),
        (&["run", "-s", "orders"], "run model.shop.orders"),
        (&["snapshot"], "snapshot snapshot.shop.past"),
        (&["test"], "test test.shop.not_null_orders_id.9ee8ee8e3d"),
        (&["source", "freshness", "-s", "source:shop"], "freshness source.shop.shop.orders"),
    ];
    let digest = "not_null_orders_id.";
    for (command, selected) in expected {
        let before = audit_lines(&sandbox);
        sandbox.smelt(command).ok();
        let mut now = audit_lines(&sandbox);
        now.retain(|line| !before.contains(line));
        let cut = |text: &str| match text.split_once(digest) {
            Some((before, after)) => format!("{before}{digest}{}", &after[10..]),
            None => text.to_string(),
        };
        let which = selected.split(' ').next().unwrap();
        let count = if which == "build" { 2 } else { usize::from(which != "freshness") };
        assert_eq!(
            now.iter().map(|line| cut(line)).collect::<Vec<_>>(),
            [format!("end {which} {count}"), cut(&format!("start {selected} 0"))],
            "{command:?}"
        );
    }
    assert_eq!(sandbox.rows("select n from orders"), [r#"{"n":1}"#]);
    // As dbt 1.10, whatever its manual says: these two make and ask nothing.
    let before = audit_lines(&sandbox);
    sandbox.smelt(&["compile"]).ok();
    sandbox.smelt(&["docs", "generate"]).ok();
    assert_eq!(audit_lines(&sandbox), before);
    let compiled = std::fs::read_to_string(sandbox.path().join("target/compiled/queries/orders.sql")).unwrap();
    assert!(compiled.contains("4 as n"), "{compiled}");
}

fn audit_lines(sandbox: &Sandbox) -> Vec<String> {
    match sandbox.path().join("lake/ops/audit").exists() {
        true => audit(sandbox),
        false => Vec::new(),
    }
}

#[test]
fn when_the_start_of_a_test_fails_no_test_runs() {
    let sandbox = shop(&[
        (
            "smelt.yml",
            "name: shop\ntargets: {dev: {lake: ./lake}}\non-run-start: [select 1, select * from nowhere, select 2]\non-run-end: \"{{ log('the end: ' ~ results | map(attribute='status') | join(','), info=true) }}\"\n",
        ),
        ("queries/tests/none.sql", "select * from {{ ref('orders') }} where id < 0"),
    ]);
    let ended = sandbox.smelt(&["test"]).fails(1, "hook shop.on-run-start.1: ");
    assert!(ended.stdout.contains("SKIP none"), "{}", ended.stdout);
    assert!(ended.stdout.contains("the end: error,skipped"), "{}", ended.stdout);
    let results = std::fs::read_to_string(sandbox.path().join("target/run_results.json")).unwrap();
    let results: serde_json::Value = serde_json::from_str(&results).unwrap();
    let one = |r: &serde_json::Value| {
        format!("{} {} {}", r["unique_id"].as_str().unwrap(), r["status"].as_str().unwrap(), r["failures"])
    };
    // As dbt writes them: what stands behind a hook that failed is skipped.
    assert_eq!(
        results["results"].as_array().unwrap().iter().map(one).collect::<Vec<_>>(),
        [
            "operation.shop.shop-on-run-start-0 success 0",
            "operation.shop.shop-on-run-start-1 error 1",
            "operation.shop.shop-on-run-start-2 skipped 1",
            "test.shop.none skipped null",
            "operation.shop.shop-on-run-end-0 success 0",
        ]
    );
}

#[test]
fn an_operation_that_failed_is_repeated_by_retry() {
    let sandbox = shop(&[(
        "macros/ops.sql",
        "{% macro add(to, value='7') %}{% do run_query('insert into ' ~ source('ops', to) ~ \" values ('op', '\" ~ value ~ \"', \" ~ (selected_resources | length) ~ ')') %}{% endmacro %}",
    )]);
    sandbox.smelt(&["run-operation", "shop.add", "--args", "{to: audit, value: \"it's\"}"]).fails(1, "");
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(sandbox.path().join("target").join(name)).unwrap()).unwrap()
    };
    let results = read("run_results.json");
    assert_eq!(results["args"]["which"], "run-operation");
    assert_eq!(results["results"][0]["unique_id"], "macro.shop.add");
    assert_eq!(results["results"][0]["status"], "error");
    assert_eq!(results["results"][0]["failures"], 1);
    assert!(read("manifest.json")["nodes"]["operation.shop.shop-on-run-start-0"].is_object());
    sandbox.write("macros/ops.sql", "{% macro add(to, value='7') %}{% do run_query('insert into ' ~ source('ops', to) ~ \" values ('op', 'again', \" ~ (value | length) ~ ')') %}{% endmacro %}");
    sandbox.smelt(&["retry"]).ok();
    assert_eq!(audit(&sandbox), ["op again 4"]);
    assert_eq!(read("run_results.json")["results"][0]["status"], "success");
    let nothing = sandbox.smelt(&["retry"]).ok();
    assert!(nothing.stdout.contains("nothing failed in the last `smelt run-operation`"), "{}", nothing.stdout);
}

#[test]
fn templates_find_everything_of_the_project_in_its_graph() {
    let sandbox = shop(&[
        (
            "models/more.yml",
            "version: 2\nexposures: [{name: board, type: dashboard, owner: {name: Ann}, depends_on: [ref('orders')]}]\ngroups: [{name: finance, owner: {name: Ann}}]\n\
             unit_tests: [{name: sums, model: orders, given: [{input: \"source('shop', 'orders')\", rows: [{id: 1}]}], expect: {rows: [{id: 1}]}}]\n",
        ),
        (
            "models/tests.yml",
            "version: 2\nsnapshots: [{name: past, relation: ref('orders'), config: {strategy: check, unique_key: id, check_cols: all}, columns: [{name: id, data_tests: [{not_null: {config: {severity: warn}}}]}]}]\n",
        ),
        ("seeds/colours.csv", "name\nred\n"),
        ("analyses/look.sql", "select count(*) as n from {{ ref('orders') }}"),
        (
            "queries/tests/complete.sql",
            "{% if execute and graph.nodes.values() | selectattr('resource_type', 'equalto', 'test') | list | length != 2 %}select 'a test is missing' as what{% else %}select 1 as x where false{% endif %}",
        ),
        (
            "queries/shape.sql",
            "{{ config(materialized='table') }}{% if execute %}{% set kinds = [] %}{% for n in graph.nodes.values() %}{% do kinds.append(n.resource_type) %}{% endfor %}\
             select '{{ kinds | sort | join(' ') }}' as kinds, \
             '{{ graph.exposures['exposure.shop.board'].depends_on.nodes | join }} {{ graph.groups['group.shop.finance'].owner.name }} {{ graph.unit_tests | length }} {{ graph.metrics | length }} {{ graph.semantic_models | length }} {{ graph.saved_queries | length }}' as rest, \
             {% set t = graph.nodes.values() | selectattr('name', 'equalto', 'not_null_past_id') | first %}'{{ t.attached_node }} {{ t.column_name }} {{ t.test_metadata.name }} {{ t.config.severity | lower }} {{ t.depends_on.nodes | join }}' as test, \
             '{{ graph.nodes['operation.shop.shop-on-run-start-0'].depends_on.nodes | join }} {{ graph.nodes['analysis.shop.look'].depends_on.nodes | join }}' as plain{% endif %}",
        ),
    ]);
    sandbox.smelt(&["build", "--exclude", "sums"]).ok();
    assert_eq!(
        sandbox.rows("select * from shape"),
        [concat!(
            r#"{"kinds":"analysis model model operation operation operation seed snapshot test test","#,
            r#""rest":"model.shop.orders Ann 1 0 0 0","#,
            r#""test":"snapshot.shop.past id not_null warn snapshot.shop.past","#,
            r#""plain":"source.shop.ops.audit model.shop.orders"}"#
        )]
    );
    sandbox.smelt(&["compile"]).ok();
    let compiled = std::fs::read_to_string(sandbox.path().join("target/compiled/analyses/look.sql")).unwrap();
    assert!(compiled.contains("select count(*) as n from \"default\".\"orders\""), "{compiled}");
}

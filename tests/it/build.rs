//! `smelt build` through the binary: models, snapshots and seeds in dbt's order, tests between them, and what a failure keeps from being made.

use serde_json::Value;

use crate::support::Sandbox;

const SETTINGS: &str = "name: shop\ntarget: dev\ntargets:\n  dev: {lake: ./lake, commit_interval: 100ms}\n";
const YAML: &str = "version: 2
sources:
  - name: raw
    config: {connector: files, format: json}
    tables:
      - name: orders
        config: {path: data}
        columns: [{name: id, data_type: BIGINT}, {name: amount, data_type: BIGINT}]
models:
  - name: stg
    columns: [{name: id, data_tests: [unique, {accepted_values: {name: known, arguments: {values: [1, 2, 3], quote: false}, config: {severity: warn}}}]}]
  - name: totals
    columns: [{name: n, data_tests: [not_null]}]
snapshots:
  - {name: history, relation: ref('stg'), config: {strategy: check, unique_key: id, check_cols: [amount]}}
unit_tests:
  - name: adds_up
    model: totals
    given: [{input: ref('stg'), rows: [{id: 1, amount: 2}, {id: 2, amount: 3}]}]
    expect: {rows: [{n: 2, total: 5}]}
";

/// raw → stg → totals → big (a view) → mart (a table), a snapshot of stg, and `other`, which only reads raw.
fn shop() -> Sandbox {
    Sandbox::with(&[
        ("smelt.yml", SETTINGS),
        ("models/shop.yml", YAML),
        (
            "queries/stg.sql",
            "select id, amount from {{ source('raw', 'orders') }} where amount < {{ var('limit', 100) }}",
        ),
        ("queries/totals.sql", "select count(*) as n, sum(amount) as total from {{ ref('stg') }}"),
        ("queries/big.sql", "{{ config(materialized='view') }}\nselect * from {{ ref('totals') }} where total > 0"),
        ("queries/mart.sql", "{{ config(materialized='table') }}\nselect n from {{ ref('big') }}"),
        ("queries/other.sql", "select count(*) as n from {{ source('raw', 'orders') }}"),
        ("data/1.json", "{\"id\": 1, \"amount\": 5}\n{\"id\": 2, \"amount\": 7}\n"),
    ])
}

/// The numbered lines of a build without dots, times and figures: `OK materialized_view default.stg`.
fn lines(stdout: &str) -> Vec<String> {
    let line = |line: &str| {
        let (number, rest) = line.trim_start().split_once(" of ")?;
        number.parse::<u32>().ok()?;
        let (_, rest) = rest.split_once(' ')?;
        let (label, _) = rest.split_once(" .").or_else(|| rest.split_once(" ["))?;
        Some(label.to_string())
    };
    stdout.lines().filter_map(line).collect()
}

fn statuses(sandbox: &Sandbox) -> Vec<String> {
    let text = std::fs::read_to_string(sandbox.path().join("target/run_results.json")).unwrap();
    let results: Value = serde_json::from_str(&text).unwrap();
    let one = |r: &Value| {
        let id = r["unique_id"].as_str().unwrap().split('.').nth(2).unwrap().to_string();
        format!("{id} {}", r["status"].as_str().unwrap())
    };
    results["results"].as_array().unwrap().iter().map(one).collect()
}

#[test]
fn tests_stand_between_what_they_test_and_what_reads_it() {
    let sandbox = shop();
    let built = sandbox.smelt(&["build"]).ok();
    assert_eq!(
        lines(&built.stdout),
        [
            "OK materialized_view default.other",
            "OK materialized_view default.stg",
            "PASS known",
            "PASS unique_stg_id",
            "PASS totals::adds_up",
            "OK snapshot default.history",
            "OK materialized_view default.totals",
            "PASS not_null_totals_n",
            "OK view default.big",
            "OK table default.mart",
        ],
        "{}",
        built.stdout
    );
    assert!(built.stdout.contains("Done. PASS=10 WARN=0 ERROR=0 SKIP=0 TOTAL=10"), "{}", built.stdout);
    assert_eq!(sandbox.rows("select * from mart"), [r#"{"n":2}"#]);
    assert_eq!(sandbox.count("history"), 2);
    // Only the last stage leaves all tables at one cut.
    let partial = sandbox.smelt(&["query", "select partial from _smelt.epochs order by epoch", "--output", "csv"]).ok();
    let partial: Vec<&str> = partial.stdout.lines().skip(1).collect();
    let (last, earlier) = partial.split_last().unwrap();
    assert!(*last == "false" && !earlier.is_empty() && earlier.iter().all(|p| *p == "true"), "{partial:?}");

    // An id comes twice: what stands behind stays as it is, the rest goes on.
    sandbox.write("data/2.json", "{\"id\": 2, \"amount\": 50}\n{\"id\": 9, \"amount\": 1}\n");
    let failed = sandbox.smelt(&["build"]);
    assert_eq!(failed.code, Some(1), "{}\n{}", failed.stdout, failed.stderr);
    assert_eq!(
        lines(&failed.stdout),
        [
            "OK materialized_view default.other",
            "OK materialized_view default.stg",
            "WARN 1 known",
            "FAIL 1 unique_stg_id",
            "SKIP totals::adds_up",
            "SKIP snapshot default.history",
            "SKIP materialized_view default.totals",
            "SKIP not_null_totals_n",
            "SKIP view default.big",
            "SKIP table default.mart",
        ],
        "{}\n{}",
        failed.stdout,
        failed.stderr
    );
    assert!(failed.stdout.contains("[SKIP: data test unique_stg_id failed]"), "{}", failed.stdout);
    assert!(failed.stdout.contains("Done. PASS=2 WARN=1 ERROR=1 SKIP=6 TOTAL=10"), "{}", failed.stdout);
    assert_eq!(sandbox.count("stg"), 4);
    assert_eq!(sandbox.rows("select * from other"), [r#"{"n":4}"#]);
    assert_eq!(sandbox.rows("select * from totals"), [r#"{"n":2,"total":12}"#]);
    assert_eq!(sandbox.rows("select * from mart"), [r#"{"n":2}"#]);
    assert_eq!(sandbox.count("history"), 2);
    assert_eq!(
        statuses(&sandbox),
        [
            "other success",
            "stg success",
            "known warn",
            "unique_stg_id fail",
            "totals skipped",
            "history skipped",
            "totals skipped",
            "not_null_totals_n skipped",
            "big skipped",
            "mart skipped",
        ]
    );
    crate::artifacts::valid(&sandbox, &["manifest.json", "run_results.json"]);

    // `run` knows no tests; a build after the correction catches up with everything.
    sandbox.smelt(&["build", "--vars", "{limit: 20}"]).ok();
    assert_eq!(sandbox.rows("select * from totals"), [r#"{"n":3,"total":13}"#]);
    assert_eq!(sandbox.rows("select * from mart"), [r#"{"n":3}"#]);
}

#[test]
fn a_unit_test_that_fails_keeps_its_model_from_being_made() {
    let sandbox = shop();
    sandbox.smelt(&["build"]).ok();
    sandbox.write("data/2.json", "{\"id\": 3, \"amount\": 1}\n");
    sandbox.write("models/shop.yml", YAML.replace("total: 5", "total: 6"));
    let failed = sandbox.smelt(&["build"]).fails(1, "");
    let shown = lines(&failed.stdout);
    assert_eq!(shown[4], "FAIL 1 totals::adds_up", "{}", failed.stdout);
    assert_eq!(shown[5..7], ["OK snapshot default.history", "SKIP materialized_view default.totals"]);
    assert!(failed.stdout.contains("[SKIP: unit test adds_up failed]"), "{}", failed.stdout);
    assert_eq!(sandbox.rows("select * from totals"), [r#"{"n":2,"total":12}"#]);
    assert_eq!(sandbox.count("history"), 3, "it does not read that model");

    // What failed and what was skipped runs again, tests before what they guard.
    sandbox.write("models/shop.yml", YAML);
    let again = sandbox.smelt(&["retry"]).ok();
    assert_eq!(
        lines(&again.stdout),
        [
            "PASS totals::adds_up",
            "OK materialized_view default.totals",
            "PASS not_null_totals_n",
            "OK view default.big",
            "OK table default.mart",
        ]
    );
    assert_eq!(sandbox.rows("select * from mart"), [r#"{"n":3}"#]);
}

#[test]
fn a_model_that_fails_skips_its_tests_and_fail_fast_everything() {
    let sandbox = shop();
    sandbox
        .write("queries/stg.sql", "select id, cast(id || 'x' as bigint) as amount from {{ source('raw', 'orders') }}");
    let failed = sandbox.smelt(&["build"]).fails(1, "stg stopped");
    assert!(failed.stdout.contains("[SKIP: stg was not made]"), "{}", failed.stdout);
    assert!(failed.stdout.contains("[SKIP: it reads stg, which was not made]"), "{}", failed.stdout);
    assert!(failed.stdout.contains("Done. PASS=1 WARN=0 ERROR=1 SKIP=8 TOTAL=10"), "{}", failed.stdout);

    let sandbox = shop();
    sandbox.write("data/2.json", "{\"id\": 2, \"amount\": 50}\n");
    sandbox.write("queries/tests/z.sql", "select * from {{ ref('other') }} where n < 0");
    sandbox.write("queries/late.sql", "select n from {{ ref('other') }}");
    let all = sandbox.smelt(&["build"]).fails(1, "");
    assert!(lines(&all.stdout).contains(&"OK materialized_view default.late".to_string()), "{}", all.stdout);
    let fast = sandbox.smelt(&["build", "--fail-fast"]).fails(1, "");
    assert!(lines(&fast.stdout).contains(&"SKIP z".to_string()), "{}", fast.stdout);
    assert!(lines(&fast.stdout).contains(&"SKIP materialized_view default.late".to_string()), "{}", fast.stdout);
}

#[test]
fn tests_alone_run_without_making_anything() {
    let sandbox = shop();
    sandbox.smelt(&["build", "--select", "stg"]).ok();
    let epochs = sandbox.count("_smelt.epochs");
    let tests = sandbox.smelt(&["build", "--select", "test_type:data,stg", "test_type:unit"]).ok();
    assert_eq!(lines(&tests.stdout), ["PASS known", "PASS unique_stg_id", "PASS totals::adds_up"]);
    assert_eq!(sandbox.count("_smelt.epochs"), epochs);
    // The test of a table that is not made stands before what is made from it.
    sandbox.write("data/2.json", "{\"id\": 2, \"amount\": 50}\n");
    sandbox.smelt(&["run", "--select", "stg"]).ok();
    let behind = sandbox.smelt(&["build", "--select", "totals", "unique_stg_id"]).fails(1, "");
    let shown = [
        "FAIL 1 unique_stg_id",
        "SKIP totals::adds_up",
        "SKIP materialized_view default.totals",
        "SKIP not_null_totals_n",
    ];
    assert_eq!(lines(&behind.stdout), shown);
}

#[test]
fn a_build_that_is_killed_between_or_within_stages_is_made_again() {
    for point in ["after-uploads:2", "before-epochs-row:2", "after-epochs-row:2", "before-epochs-row:3"] {
        let sandbox = shop();
        sandbox.smelt(&["build"]).ok();
        sandbox.write("data/2.json", "{\"id\": 3, \"amount\": 50}\n");
        let killed = sandbox.smelt_with(&["build"], &[("SMELT_CRASH_AT", point)]);
        assert_ne!(killed.code, Some(0), "{point}: it is not reached\n{}", killed.stdout);
        sandbox.smelt(&["build"]).ok();
        assert_eq!(sandbox.rows("select * from totals"), [r#"{"n":3,"total":62}"#], "{point}");
        assert_eq!(sandbox.rows("select * from mart"), [r#"{"n":3}"#], "{point}");
        assert_eq!(sandbox.rows("select * from other"), [r#"{"n":3}"#], "{point}");
        assert_eq!(sandbox.count("history"), 3, "{point}");
    }
}

#[test]
fn the_first_build_makes_no_table_of_a_model_that_it_skips() {
    let sandbox = shop();
    sandbox.write("data/2.json", "{\"id\": 2, \"amount\": 50}\n");
    sandbox.smelt(&["build"]).fails(1, "");
    let made = |name: &str| sandbox.path().join("lake/default").join(name).join("_delta_log").exists();
    assert!(made("stg") && made("other"));
    for skipped in ["totals", "mart", "history"] {
        assert!(!made(skipped), "{skipped}");
    }
    // Without the row whose id comes twice.
    sandbox.smelt(&["build", "--vars", "{limit: 40}"]).ok();
    assert!(made("totals") && made("mart") && made("history"));
    assert_eq!(sandbox.rows("select n from mart"), [r#"{"n":2}"#]);
}

#[test]
fn with_fail_fast_models_that_were_not_finished_are_skipped() {
    let sandbox = shop();
    sandbox.smelt(&["build"]).ok();
    // A table beside the one that fails: it is made at the end of the stage.
    sandbox.write("queries/beside.sql", "{{ config(materialized='table') }}\nselect n from {{ ref('other') }}");
    sandbox.write("data/2.json", "{\"id\": 3, \"amount\": 9}\n");
    sandbox.write("queries/stg.sql", "select id, amount / (amount - 9) as amount from {{ source('raw', 'orders') }}");
    let fast = sandbox.smelt(&["build", "--fail-fast"]).fails(1, "");
    let shown = lines(&fast.stdout);
    assert!(shown.contains(&"ERROR materialized_view default.stg".to_string()), "{}", fast.stdout);
    assert!(shown.contains(&"SKIP table default.beside".to_string()), "{}", fast.stdout);
    assert!(statuses(&sandbox).contains(&"beside skipped".to_string()));
    let slow = sandbox.smelt(&["build"]).fails(1, "");
    assert!(lines(&slow.stdout).contains(&"OK table default.beside".to_string()), "{}", slow.stdout);
}

#[test]
fn a_test_that_asks_the_lake_stands_before_what_hangs_behind_it() {
    let sandbox = shop();
    // As many rows as ids, by a query at compile time.
    let asks = "{% set ids = run_query('select count(distinct id) as n from ' ~ ref('stg')) %}
select n from (select count(*) as n from {{ ref('stg') }}) where n <> {{ ids.columns[0].values()[0] if execute else 0 }}";
    sandbox.write("queries/tests/asks.sql", asks);
    sandbox.write("models/shop.yml", YAML.replace("unique, ", ""));
    let built = sandbox.smelt(&["build"]).ok();
    let shown = lines(&built.stdout);
    let at = |line: &str| shown.iter().position(|l| l == line).unwrap_or_else(|| panic!("{line}: {}", built.stdout));
    assert!(at("OK materialized_view default.stg") < at("PASS asks"));
    assert!(at("PASS asks") < at("OK materialized_view default.totals"));

    sandbox.write("data/2.json", "{\"id\": 2, \"amount\": 50}\n");
    let failed = sandbox.smelt(&["build"]).fails(1, "");
    let shown = lines(&failed.stdout);
    assert!(shown.contains(&"FAIL 1 asks".to_string()), "{}", failed.stdout);
    assert!(failed.stdout.contains("[SKIP: data test asks failed]"), "{}", failed.stdout);
    assert!(shown.contains(&"SKIP materialized_view default.totals".to_string()), "{}", failed.stdout);
    assert_eq!(sandbox.rows("select * from totals"), [r#"{"n":2,"total":12}"#]);
}

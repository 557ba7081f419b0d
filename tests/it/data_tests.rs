//! Data tests through the binary: their options, what they print, what they leave.

use crate::support::Sandbox;

const SETTINGS: &str = "name: shop\ntarget: dev\ntargets:\n  dev: {lake: ./lake, commit_interval: 100ms}\n";
const SOURCES: &str = "version: 2\nsources:\n  - name: raw\n    config: {connector: files, format: json}\n    tables:\n      - name: orders\n        \
     config: {path: data}\n        columns: [{name: id, data_type: BIGINT}, {name: state, data_type: STRING}, {name: amount, data_type: BIGINT}]\n";

/// Six orders of one model; `tests` is the YAML of its tests, four spaces in.
fn shop(tests: &str) -> Sandbox {
    shop_with(tests, &[])
}

fn shop_with(tests: &str, files: &[(&str, &str)]) -> Sandbox {
    let sandbox = Sandbox::with(&[
        ("smelt.yml", SETTINGS),
        ("models/sources.yml", SOURCES),
        ("queries/orders.sql", "select * from {{ source('raw', 'orders') }}"),
        (
            "data/1.json",
            "{\"id\": 1, \"state\": \"new\", \"amount\": 5}\n{\"id\": 2, \"state\": \"paid\", \"amount\": -1}\n\
             {\"id\": 2, \"state\": \"lost\", \"amount\": -2}\n{\"id\": 3, \"state\": \"lost\", \"amount\": 8}\n\
             {\"id\": null, \"state\": null, \"amount\": null}\n{\"id\": null, \"state\": \"new\", \"amount\": 1}\n",
        ),
        ("models/orders.yml", &format!("version: 2\nmodels:\n  - name: orders\n{tests}")),
    ]);
    files.iter().for_each(|(path, text)| sandbox.write(path, text));
    sandbox.smelt(&["run"]).ok();
    sandbox
}

/// The lines of tests, without their dots and times: `FAIL 2 not_null_orders_id`.
fn verdicts(stdout: &str) -> Vec<String> {
    let test = |line: &str| {
        let (_, rest) = line.split_once(" of ")?;
        let (_, rest) = rest.split_once(' ')?;
        let (label, _) = rest.split_once(" .").or_else(|| rest.split_once(" ["))?;
        Some(label.to_string())
    };
    stdout.lines().filter_map(test).collect()
}

#[test]
fn thresholds_severities_and_conditions_are_dbts() {
    let sandbox = shop(
        r#"    data_tests:
      - unique: {column_name: id, name: all_defaults}
      - not_null: {name: error_above_two, column_name: id, config: {error_if: "> 2"}}
      - not_null: {name: between_is_a_condition, column_name: id, error_if: between 2 and 3, warn_if: "!= 0"}
      - not_null: {name: warns_only, column_name: id, config: {severity: warn}}
      - not_null: {name: warns_from_three, column_name: id, config: {severity: WARN, warn_if: ">= 3"}}
      - not_null: {name: of_the_new, column_name: id, config: {where: "state = 'paid'"}}
      - accepted_values: {name: sum_of_rows, column_name: state, arguments: {values: [new, paid]}, config: {fail_calc: sum(n_records)}}
      - accepted_values: {name: no_rows_no_sum, column_name: state, values: [new, paid, lost], config: {fail_calc: sum(n_records)}}
      - not_null: {name: one_is_enough, column_name: id, config: {limit: 1}}
      - accepted_values: {name: unquoted, column_name: amount, arguments: {values: [5, -1, -2, 8, 1], quote: false}}
      - unique: {name: not_wanted, column_name: id, config: {enabled: false}}
"#,
    );
    let ended = sandbox.smelt(&["test"]);
    assert_eq!(ended.code, Some(1), "{}\n{}", ended.stdout, ended.stderr);
    assert_eq!(
        verdicts(&ended.stdout),
        [
            "FAIL 1 all_defaults",
            "FAIL 2 between_is_a_condition",
            "WARN 2 error_above_two",
            "PASS no_rows_no_sum",
            "PASS of_the_new",
            "FAIL 1 one_is_enough",
            "FAIL 2 sum_of_rows",
            "PASS unquoted",
            "PASS warns_from_three",
            "WARN 2 warns_only",
        ]
    );
    assert!(ended.stdout.contains("Done. PASS=4 WARN=2 ERROR=4 SKIP=0 TOTAL=10"), "{}", ended.stdout);
    assert!(
        ended.stdout.contains(
            "Failure in test between_is_a_condition (models/orders.yml)\n  Got 2 results, configured to fail if between 2 and 3\n  \
             compiled SQL: target/compiled/models/orders.yml/between_is_a_condition.sql\n    {\"id\":null"
        ),
        "{}",
        ended.stdout
    );
    let compiled = std::fs::read_to_string(sandbox.path().join("target/compiled/models/orders.yml/of_the_new.sql"));
    assert!(compiled.unwrap().contains("where state = 'paid'"));

    // Warnings alone end well, unless they are to be errors.
    let warned = sandbox.smelt(&["test", "--select", "warns_only"]).ok();
    assert!(warned.stdout.contains("Warning in test warns_only"), "{}", warned.stdout);
    let strict = sandbox.smelt(&["test", "--select", "warns_only", "--warn-error"]);
    assert_eq!(strict.code, Some(1), "{}", strict.stdout);
    assert!(strict.stdout.contains("FAIL 2 warns_only"), "{}", strict.stdout);

    let stopped = sandbox.smelt(&["test", "-x"]);
    assert_eq!(stopped.code, Some(1));
    assert!(stopped.stdout.contains("Done. PASS=0 WARN=0 ERROR=1 SKIP=9 TOTAL=10"), "{}", stopped.stdout);
}

#[test]
fn failing_rows_are_kept_where_a_test_says() {
    let sandbox = shop(
        r#"    columns:
      - name: id
        data_tests:
          - not_null: {config: {store_failures: true}}
          - unique: {config: {store_failures: true, schema: kept, alias: twice}}
      - name: state
        data_tests:
          - accepted_values: {name: by_view, values: [new, paid], config: {store_failures_as: view}}
          - accepted_values: {name: nowhere, values: [new, paid], config: {store_failures_as: ephemeral}}
          - not_null: {name: as_asked}
"#,
    );
    let ended = sandbox.smelt(&["test"]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stdout.contains("all failures: smelt query 'select * from \"dbt_test__audit\".\"not_null_orders_id\"'"),
        "{}",
        ended.stdout
    );
    assert_eq!(
        sandbox.rows("select state, amount from dbt_test__audit.not_null_orders_id"),
        [r#"{"state":"new","amount":1}"#, r#"{"state":null,"amount":null}"#]
    );
    assert_eq!(sandbox.rows("select * from kept.twice"), [r#"{"unique_field":2,"n_records":2}"#]);
    assert_eq!(sandbox.rows("select * from by_view"), [r#"{"value_field":"lost","n_records":2}"#]);
    assert!(!sandbox.table("dbt_test__audit", "nowhere").exists());
    assert!(!sandbox.table("dbt_test__audit", "as_asked").exists());
    // Other rows fail the next time: the table holds those alone. A view says what is true now.
    sandbox.write("data/2.json", "{\"id\": 7, \"state\": \"gone\", \"amount\": 7}\n");
    sandbox.write("queries/orders.sql", "select * from {{ source('raw', 'orders') }} where amount > 1");
    sandbox.smelt(&["run"]).ok();
    assert_eq!(sandbox.count("dbt_test__audit.not_null_orders_id"), 2, "only a test changes it");
    assert_eq!(
        sandbox.rows("select value_field from by_view"),
        [r#"{"value_field":"gone"}"#, r#"{"value_field":"lost"}"#]
    );
    sandbox.smelt(&["test", "--store-failures"]);
    assert_eq!(sandbox.count("dbt_test__audit.not_null_orders_id"), 0);
    assert_eq!(sandbox.count("dbt_test__audit.as_asked"), 0, "a test that passes has an empty table");
    assert!(!sandbox.table("dbt_test__audit", "nowhere").exists(), "what a test says wins over the flag");
    // Nobody prunes what tests keep.
    let pruned = sandbox.smelt(&["prune", "--dry-run"]).ok();
    assert!(!pruned.stdout.contains("dbt_test__audit"), "{}", pruned.stdout);
}

#[test]
fn tests_of_ones_own_and_in_place_of_built_in_ones() {
    let sandbox = shop_with(
        r#"    data_tests:
      - at_most: {n: 3}
    columns:
      - name: id
        data_tests:
          - unique
          - at_most: {n: 9, config: {severity: error}}
"#,
        &[
            (
                "queries/tests/generic/at_most.sql",
                "{% test at_most(model, n, column_name='*') %}\n{{ config(severity='warn') }}\n\
         select count({{ column_name }}) as n from {{ model }} having count({{ column_name }}) > {{ n }}\n{% endtest %}\n",
            ),
            (
                "macros/unique.sql",
                "{% test unique(model, column_name) %}\nselect {{ column_name }} from {{ model }} where {{ column_name }} is not null\n\
         group by 1 having count(*) > 2\n{% endtest %}\n",
            ),
            (
                "queries/tests/no_debts.sql",
                "{{ config(severity='warn', warn_if='> 1', store_failures=true, fail_calc='coalesce(sum(debt), 0)') }}\n\
         select id, -amount as debt from {{ ref('orders') }} where amount < 0",
            ),
        ],
    );
    let ended = sandbox.smelt(&["test"]).ok();
    assert_eq!(
        verdicts(&ended.stdout),
        ["WARN 1 at_most_orders_3", "PASS at_most_orders_id__9", "WARN 3 no_debts", "PASS unique_orders_id"]
    );
    assert_eq!(sandbox.count("dbt_test__audit.no_debts"), 2);
    // A test that cannot run is an error of its own; the others run.
    sandbox.write("queries/tests/no_debts.sql", "select * from {{ ref('orders') }} where amont < 0");
    let ended = sandbox.smelt(&["test"]).fails(1, "queries/tests/no_debts.sql:1:41");
    assert!(ended.stderr.contains("did you mean `amount`?"), "{}", ended.stderr);
    assert!(ended.stdout.contains("Done. PASS=2 WARN=1 ERROR=1 SKIP=0 TOTAL=4"), "{}", ended.stdout);
}

#[test]
fn sources_and_views_over_them_are_tested_by_reading_them() {
    let sandbox = shop("    config: {materialized: view}\n    columns: [{name: id, data_tests: [unique]}]\n");
    sandbox.write(
        "models/sources.yml",
        SOURCES.replace("{name: id, data_type: BIGINT}", "{name: id, data_type: BIGINT, data_tests: [not_null]}"),
    );
    sandbox.write(
        "queries/tests/debts.sql",
        "select o.id from {{ ref('orders') }} o join {{ source('raw', 'orders') }} s on o.id = s.id where s.amount < 0",
    );
    let ended = sandbox.smelt(&["test"]);
    assert_eq!(ended.code, Some(1), "{}\n{}", ended.stdout, ended.stderr);
    let names = ["FAIL 4 debts", "FAIL 2 source_not_null_raw_orders_id", "FAIL 1 unique_orders_id"];
    assert_eq!(verdicts(&ended.stdout), names, "{}", ended.stderr);
    assert_eq!(sandbox.count("orders"), 6);
    assert_eq!(sandbox.count("raw.orders"), 6);

    // A bad record has no row, and what is written after the last run is there.
    sandbox.write("data/2.json", "{\"id\": 9, \"state\": \"new\"}\n{\"id\": \"nine\"}\n");
    assert_eq!(sandbox.count("orders"), 7);
    let twice =
        "select count(*) from orders a full join orders b on a.id = b.id and a.state = b.state where a.id is null";
    assert_eq!(sandbox.value(twice), 4, "both sides are read to the same end");
    assert!(!sandbox.table("_smelt", "files__smelt_files__raw__orders").exists(), "a query numbers no file");
}

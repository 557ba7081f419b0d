//! Contracts: what a model promises is checked when it is compiled, and of every row before it is committed.

use crate::support::Sandbox;

fn project(contract: &str, columns: &str) -> Sandbox {
    Sandbox::with(&[
        ("smelt.yml", "name: shop\ntarget: dev\ntargets: {dev: {lake: ./lake}}\nmodels: {shop: {+schema: shop}}\n"),
        (
            "models/m.yml",
            &format!(
                "version: 2\nsources:\n  - name: raw\n    config: {{connector: files, format: json}}\n    tables:\n      - {{name: orders, config: {{path: data}}, \
                 columns: [{{name: id, data_type: BIGINT}}, {{name: amount, data_type: BIGINT}}]}}\nmodels:\n  - name: orders\n    \
                 config: {{contract: {contract}}}\n    constraints: [{{type: check, expression: amount < 1000}}]\n    columns: [{columns}]\n"
            ),
        ),
        (
            "queries/orders.sql",
            "{{ config(materialized='streaming_table') }}\nselect id, amount from {{ source('raw', 'orders') }}",
        ),
        ("data/1.json", "{\"id\": 1, \"amount\": 10}\n{\"id\": 2, \"amount\": null}\n"),
    ])
}

const PROMISED: &str =
    "{name: amount, data_type: bigint}, {name: id, data_type: BIGINT, constraints: [{type: not_null}]}";

#[test]
fn a_row_that_breaks_a_constraint_stops_the_model_by_name() {
    let sandbox = project("{enforced: true}", PROMISED);
    sandbox.smelt(&["run"]).ok();
    assert_eq!(sandbox.count("orders"), 2, "a CHECK is met by NULL");
    sandbox.write("data/2.json", "{\"amount\": 3}\n");
    sandbox.smelt(&["run"]).fails(1, "expectation `not_null id` of orders failed");
    assert_eq!(sandbox.count("orders"), 2);
    sandbox.write("data/2.json", "{\"id\": 3, \"amount\": 1000}\n");
    let other = project("{enforced: true}", PROMISED);
    other.write("data/1.json", "{\"id\": 3, \"amount\": 1000}\n");
    other.smelt(&["run"]).fails(1, "expectation `check amount < 1000` of orders failed");
    assert_eq!(other.count("orders"), 0);
    // Not enforced: nothing is promised.
    let free = project("{enforced: false}", PROMISED);
    free.write("data/1.json", "{\"id\": null, \"amount\": 1000}\n");
    free.smelt(&["run"]).ok();
    assert_eq!(free.count("orders"), 1);
}

#[test]
fn the_columns_of_a_primary_key_are_not_null() {
    let key = "{name: amount, data_type: bigint}, {name: id, data_type: BIGINT, constraints: [{type: primary_key}]}";
    let sandbox = project("{enforced: true}", key);
    sandbox.write("data/2.json", "{\"id\": 1, \"amount\": 4}\n");
    let ended = sandbox.smelt(&["run"]).ok();
    let warned = "warning[unenforced]: a `primary_key` constraint is informational, as on Databricks and Snowflake: it is not enforced; only that its columns are not NULL is";
    assert!(ended.stderr.contains(warned), "{}", ended.stderr);
    assert!(ended.stderr.contains("add the data test `unique`"), "{}", ended.stderr);
    assert_eq!(sandbox.count("orders"), 3);
    sandbox.write("data/3.json", "{\"id\": null, \"amount\": 3}\n");
    sandbox.smelt(&["run"]).fails(1, "of orders failed on row {\"id\":null,\"amount\":3}");
    assert_eq!(sandbox.count("orders"), 3);
}

#[test]
fn other_columns_than_promised_are_compile_errors() {
    let broken = |columns: &str, text: &str| {
        project("{enforced: true}", columns).smelt(&["compile"]).fails(2, text);
    };
    broken("{name: id, data_type: BIGINT}", "the contract of `orders`: `amount` (BIGINT) is not in it");
    broken(
        "{name: id, data_type: STRING}, {name: amount, data_type: BIGINT}",
        "the contract of `orders`: `id` is BIGINT, the contract says STRING",
    );
    broken(
        "{name: id, data_type: BIGINT}, {name: amount, data_type: BIGINT}, {name: city, data_type: STRING}",
        "the contract of `orders`: the query does not select `city`",
    );
    broken("{name: id}, {name: amount, data_type: BIGINT}", "the contract of `orders`: `id` has no data_type");
    broken(
        "{name: id, data_type: BIGINT, constraints: [{type: notnull}]}, {name: amount, data_type: BIGINT}",
        "unknown constraint type `notnull`",
    );
}

#[test]
fn what_is_not_enforced_says_so_once_and_can_be_told_not_to() {
    let columns = |more: &str| {
        format!(
            "{{name: amount, data_type: bigint}}, {{name: id, data_type: BIGINT, constraints: [{{type: unique{more}}}, {{type: foreign_key, to: ref('x'), to_columns: [id]{more}}}]}}"
        )
    };
    let sandbox = project("{enforced: true}", &columns(""));
    sandbox.write("data/2.json", "{\"id\": 1, \"amount\": 4}\n");
    let ended = sandbox.smelt(&["run"]).ok();
    for (kind, test) in [("unique", "unique"), ("foreign_key", "relationships")] {
        assert!(ended.stderr.contains(&format!("a `{kind}` constraint is informational")), "{}", ended.stderr);
        assert!(ended.stderr.contains(&format!("add the data test `{test}`")), "{}", ended.stderr);
    }
    assert_eq!(sandbox.count("orders"), 3, "the id that comes twice is there twice");
    let quiet = project("{enforced: true}", &columns(", warn_unenforced: false")).smelt(&["run"]).ok();
    assert!(!quiet.stderr.contains("warning"), "{}", quiet.stderr);
}

#[test]
fn constraints_of_a_view_are_ignored_and_its_columns_are_checked() {
    let sandbox = project("{enforced: true}", PROMISED);
    sandbox.write(
        "queries/orders.sql",
        "{{ config(materialized='view') }}\nselect id, amount from {{ source('raw', 'orders') }}",
    );
    sandbox.write("queries/all.sql", "select * from {{ ref('orders') }}");
    sandbox.write("data/2.json", "{\"id\": null, \"amount\": 4000}\n");
    let ended = sandbox.smelt(&["run"]).ok();
    let warned = "warning[unsupported]: constraints are not supported for `view` materializations and are ignored";
    assert_eq!(ended.stderr.matches(warned).count(), 1, "{}", ended.stderr);
    assert_eq!(sandbox.count("all"), 3);
    sandbox
        .write("queries/orders.sql", "{{ config(materialized='view') }}\nselect id from {{ source('raw', 'orders') }}");
    sandbox.smelt(&["compile"]).fails(2, "the contract of `orders`: the query does not select `amount`");
}

//! Selection through the binary: what `ls` lists, what commands take, and what is said of mistakes.

use crate::support::Sandbox;

/// Orders from files, two models on top of each other, tests on both and between them.
fn shop() -> Sandbox {
    Sandbox::with(&[
        (
            "smelt.yml",
            "name: shop\ntarget: dev\ntargets:\n  dev: {lake: ./lake, commit_interval: 100ms}\nmodels: {shop: {+schema: shop}}\n",
        ),
        (
            "models/shop.yml",
            "version: 2\nsources:\n  - name: raw\n    config: {connector: files, format: json}\n    tables:\n      - name: orders\n        \
             config: {path: data}\n        columns: [{name: id, data_type: BIGINT}, {name: amount, data_type: BIGINT}]\nmodels:\n  \
             - {name: orders, config: {tags: [core]}, columns: [{name: id, data_tests: [not_null]}]}\n  \
             - {name: totals, columns: [{name: id, data_tests: [{relationships: {name: known, to: ref('orders'), field: id}}]}]}\n",
        ),
        (
            "queries/bronze/orders.sql",
            "{{ config(materialized='streaming_table') }}\nselect * from {{ source('raw', 'orders') }}",
        ),
        ("queries/gold/totals.sql", "select id, sum(amount) as amount from {{ ref('orders') }} group by id"),
        ("queries/gold/other.sql", "select count(*) as n from {{ ref('orders') }}"),
        ("queries/tests/positive.sql", "select * from {{ ref('totals') }} where amount < 0"),
        ("data/1.json", "{\"id\": 1, \"amount\": 5}\n{\"id\": 2, \"amount\": 7}\n"),
        (
            "selectors.yml",
            "selectors:\n  - name: gold\n    definition: {method: path, value: queries/gold, indirect_selection: cautious}\n",
        ),
    ])
}

#[track_caller]
fn lists(sandbox: &Sandbox, args: &[&str], expected: &[&str]) {
    let ended = sandbox.smelt(&[&["ls"], args].concat()).ok();
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), expected, "{args:?}");
}

#[test]
fn ls_lists_every_type_in_the_form_asked_for() {
    let sandbox = shop();
    lists(
        &sandbox,
        &[],
        &[
            "shop.bronze.orders",
            "shop.gold.other",
            "shop.gold.totals",
            "source:shop.raw.orders",
            "shop.known",
            "shop.not_null_orders_id",
            "shop.positive",
        ],
    );
    lists(&sandbox, &["--resource-type", "source", "--output", "name"], &["raw.orders"]);
    lists(
        &sandbox,
        &["--select", "totals", "--output", "path"],
        &["queries/gold/totals.sql", "models/shop.yml", "queries/tests/positive.sql"],
    );
    lists(
        &sandbox,
        &["-s", "tag:core", "--exclude-resource-type", "test", "--output", "selector"],
        &["shop.bronze.orders"],
    );
    lists(&sandbox, &["--selector", "gold", "--output", "name"], &["other", "totals", "positive"]);
    lists(
        &sandbox,
        &["-m", "totals", "--indirect-selection", "empty", "--output", "json", "--output-keys", "name depends_on"],
        &[r#"{"name":"totals","depends_on":{"nodes":["model.shop.orders"],"macros":[]}}"#],
    );
}

#[test]
fn commands_take_what_is_selected() {
    let sandbox = shop();
    let ran = sandbox.smelt(&["run", "--select", "+totals"]).ok();
    assert!(ran.stdout.contains("shop.totals") && !ran.stdout.contains("shop.other"), "{}", ran.stdout);
    let tested = |args: &[&str], expected: &[&str]| {
        let ended = sandbox.smelt(&[&["test"], args].concat()).ok();
        let names = ended.stdout.lines().filter_map(|l| l.split_once("PASS ")?.1.split_whitespace().next());
        assert_eq!(names.collect::<Vec<_>>(), expected, "{args:?}: {}", ended.stdout);
    };
    tested(&["-s", "orders"], &["known", "not_null_orders_id"]);
    tested(&["-s", "orders", "--indirect-selection", "cautious"], &["not_null_orders_id"]);
    tested(&["-s", "totals", "--exclude", "test_type:generic"], &["positive"]);
    tested(&["-s", "test_name:relationships"], &["known"]);
    let planned = sandbox.smelt(&["plan", "--select", "gold"]).ok();
    assert!(planned.stdout.contains("shop.other") && !planned.stdout.contains("shop.orders"), "{}", planned.stdout);
}

#[test]
fn words_that_match_nothing_are_warnings_and_words_that_mean_nothing_are_errors() {
    let sandbox = shop();
    let ended = sandbox.smelt(&["run", "--select", "totls"]).ok();
    assert!(ended.stderr.contains("the selection `totls` does not match any enabled node\n  = did you mean `totals`?"));
    assert!(ended.stdout.contains("Nothing to do"), "{}", ended.stdout);
    // Said once, though building looks twice.
    let ended = sandbox.smelt(&["build", "--select", "totls"]).ok();
    assert_eq!(ended.stderr.matches("does not match any").count(), 1, "{}", ended.stderr);
    sandbox.smelt(&["run", "--select", "tags:core"]).fails(2, "unknown selection method `tags`");
    sandbox.smelt(&["run", "--selector", "glod"]).fails(2, "did you mean `gold`?");
    sandbox.smelt(&["ls", "--resource-type", "modle"]).fails(2, "there are: model, snapshot");
    sandbox.write("selectors.yml", "selectors:\n  - name: gold\n    definition: {method: paht, value: x}\n");
    let ended = sandbox.smelt(&["ls"]).fails(2, "unknown selection method `paht`");
    assert!(ended.stderr.contains("selectors.yml:3:26"), "{}", ended.stderr);
}

#[test]
fn without_artifacts_the_lake_says_what_has_changed() {
    let sandbox = shop();
    let lists = |word: &str, expected: &[&str]| {
        let args = ["--select", word, "--resource-type", "model", "--output", "name"];
        lists(&sandbox, &args, expected);
    };
    lists("state:new", &["orders", "other", "totals"]);
    sandbox.smelt(&["run", "--exclude", "other"]).ok();
    lists("state:new", &["other"]);
    lists("state:unmodified", &["orders", "totals"]);
    sandbox
        .write("queries/gold/totals.sql", "select id, sum(amount) + 1 as amount from {{ ref('orders') }} group by id");
    lists("state:modified,state:old", &["totals"]);
    let planned = sandbox.smelt(&["plan", "--select", "state:old,state:modified"]).ok();
    assert!(planned.stdout.starts_with("changed") && planned.stdout.contains("shop.totals"), "{}", planned.stdout);
    // A comment and the layout change nothing.
    sandbox.write(
        "queries/bronze/orders.sql",
        "{{ config(materialized='streaming_table') }} -- all\nselect *\nfrom {{ source('raw', 'orders') }}",
    );
    lists("state:modified+", &["other", "totals"]);
    let ran = sandbox.smelt(&["run", "--select", "state:modified"]).ok();
    assert!(ran.stdout.contains("shop.totals") && !ran.stdout.contains("shop.orders"), "{}", ran.stdout);
    lists("state:modified", &[]);
    assert_eq!(sandbox.value("select sum(amount) as n from totals"), 14);
    sandbox.smelt(&["ls", "--select", "state:modified.body"]).fails(2, "needs another run to compare with");
    sandbox.smelt(&["ls", "--select", "state:new", "--state", "nowhere"]).fails(2, "there is no such folder");
}

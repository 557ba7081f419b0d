//! `--select` and `--exclude`.

use super::Folder;
use crate::project::{Project, select};

fn project() -> Project {
    let sources = "\
version: 2
sources:
  - {name: telco, config: {connector: kafka, connection: telco}, tables: [{name: calls, config: {topic: c}, columns: [{name: sid, data_type: STRING}]}, {name: sms, config: {topic: s}, columns: [{name: sid, data_type: STRING}]}]}
models:
  - {name: silver_calls, config: {tags: [hourly, core]}, columns: [{name: sid, data_tests: [unique]}]}
  - {name: gold_kpi, config: {tags: nightly, meta: {owner: bi}}}
";
    Folder::new(&[
        ("models/m.yml", sources),
        (
            "queries/bronze/bronze_calls.sql",
            "{{ config(materialized='streaming_table') }}select * from {{ source('telco', 'calls') }}",
        ),
        (
            "queries/bronze/bronze_sms.sql",
            "{{ config(materialized='streaming_table') }}select * from {{ source('telco', 'sms') }}",
        ),
        ("queries/silver/silver_calls.sql", "select * from {{ ref('bronze_calls') }}"),
        ("queries/silver/silver_sms.sql", "{{ config(materialized='view') }}select * from {{ ref('bronze_sms') }}"),
        (
            "queries/gold/gold_kpi.sql",
            "select * from {{ ref('silver_calls') }} union all select * from {{ ref('silver_sms') }}",
        ),
    ])
    .load()
}

#[track_caller]
fn check(select_words: &str, exclude: &str, expected: &str) {
    let words = |text: &str| if text.is_empty() { Vec::new() } else { vec![text.to_string()] };
    let names = select(&project(), &words(select_words), &words(exclude)).unwrap();
    assert_eq!(
        names.into_iter().collect::<Vec<_>>().join(" "),
        expected,
        "--select {select_words} --exclude {exclude}"
    );
}

#[test]
fn methods_operators_and_sets() {
    const ALL: &str = "bronze_calls bronze_sms gold_kpi silver_calls silver_sms unique_silver_calls_sid";
    check("", "", ALL);
    check("silver_sms", "", "silver_sms");
    check("SILVER_SMS", "", "silver_sms");
    check("silver_calls", "", "silver_calls unique_silver_calls_sid");
    check("+silver_sms", "", "bronze_sms silver_sms");
    check("bronze_sms+", "", "bronze_sms gold_kpi silver_sms");
    check("1+gold_kpi", "unique_silver_calls_sid", "gold_kpi silver_calls silver_sms");
    check("bronze_sms+1", "", "bronze_sms silver_sms");
    check("@bronze_sms", "test_type:generic", "bronze_calls bronze_sms gold_kpi silver_calls silver_sms");
    check("bronze", "", "bronze_calls bronze_sms");
    check("telecom.gold", "", "gold_kpi");
    check("*_sms", "", "bronze_sms silver_sms");
    check("tag:nightly tag:hourly", "", "gold_kpi silver_calls unique_silver_calls_sid");
    check("tag:hourly,tag:nightly", "", "");
    check("path:queries/silver", "", "silver_calls silver_sms unique_silver_calls_sid");
    check("queries/gold/gold_kpi.sql", "", "gold_kpi");
    check("path:queries/*/*_sms.sql,config.materialized:view", "", "silver_sms");
    check("source:telco.sms+", "", "bronze_sms gold_kpi silver_sms");
    check("source:telco+,config.materialized:streaming_table", "", "bronze_calls bronze_sms");
    check("config.meta.owner:bi", "", "gold_kpi");
    check("resource_type:test", "", "unique_silver_calls_sid");
    check("unique_silver_calls_sid", "", "unique_silver_calls_sid");
    check("", "gold silver_calls+ unique_silver_calls_sid", "bronze_calls bronze_sms silver_sms");
    check("", "path:nowhere", ALL);
}

#[test]
fn mistakes_are_named() {
    let error = |word: &str| select(&project(), &[word.to_string()], &[]).unwrap_err().render();
    assert_eq!(
        error("silver_cals"),
        "error[empty-selection]: nothing is called `silver_cals`\n  = did you mean `silver_calls`?"
    );
    assert_eq!(error("tags:x"), "error[bad-selection]: unknown selection method `tags`\n  = did you mean `tag`?");
    assert_eq!(
        error("path:queries/glod"),
        "error[empty-selection]: no model is at `queries/glod`\n  = paths are relative to the project: path:queries/gold"
    );
    assert!(error("tag:").contains("nothing is named"));
}

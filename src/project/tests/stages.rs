//! In which stages a build makes models, and which tests stand between them.

use std::collections::BTreeSet;

use super::Folder;
use crate::project::{Project, Stages};

/// raw → a → b → c → d, and e which reads b and the seed `s`; tests as `yaml` has them, by model.
fn project(yaml: &str) -> Project {
    Folder::new(&[
        ("models/m.yml", &format!("version: 2\nsources: [{{name: raw, tables: [{{name: x, columns: [{{name: id, data_type: INT}}]}}]}}]\n{yaml}")),
        ("seeds/s.csv", "id\n1\n"),
        ("queries/a.sql", "select id from {{ source('raw', 'x') }}"),
        ("queries/b.sql", "select id from {{ ref('a') }}"),
        ("queries/c.sql", "{{ config(materialized='view') }}\nselect id from {{ ref('b') }}"),
        ("queries/d.sql", "select id from {{ ref('c') }}"),
        ("queries/e.sql", "select id from {{ ref('b') }} join {{ ref('s') }} using (id)"),
    ])
    .load()
}

/// `a b | unique_b | c d e`: the tests between the stages of the models.
fn stages(project: &Project, selected: Option<&[&str]>) -> String {
    let selected: Option<BTreeSet<String>> = selected.map(|s| s.iter().map(|s| s.to_string()).collect());
    let tests: Vec<_> = project.tests.iter().collect();
    let stages = Stages::new(project, selected.as_ref(), &tests);
    let names = |ids: &Vec<String>| -> Vec<String> {
        ids.iter().map(|id| project.tests.iter().find(|t| t.unique_id == *id).unwrap().name.clone()).collect()
    };
    let mut parts = Vec::new();
    for (number, tests) in stages.tests.iter().enumerate() {
        parts.push(names(tests).join(" "));
        if let Some(models) = stages.models.get(number) {
            parts.push(models.iter().cloned().collect::<Vec<_>>().join(" "));
        }
    }
    parts.join(" | ")
}

fn on(model: &str) -> String {
    format!("{{name: {model}, columns: [{{name: id, data_tests: [unique]}}]}}")
}

#[test]
fn what_stands_behind_a_test_is_made_after_it() {
    let none = project("");
    assert_eq!(stages(&none, None), " | a b c d e s | ");
    let b = project(&format!("models: [{}]", on("b")));
    assert_eq!(stages(&b, None), " | a b s | unique_b_id | c d e | ");
    let several = project(&format!("models: [{}, {}, {}]", on("a"), on("c"), on("d")));
    assert_eq!(stages(&several, None), " | a s | unique_a_id | b c e | unique_c_id | d | unique_d_id");
    let seed = project(&format!("seeds: [{}]", on("s")));
    assert_eq!(stages(&seed, None), " | a b c d s | unique_s_id | e | ");
}

#[test]
fn a_test_of_two_models_stands_before_what_reads_both() {
    let yaml = "models: [{name: b, columns: [{name: id, data_tests: [{relationships: {arguments: {to: ref('s'), field: id}}}]}]}]";
    assert_eq!(stages(&project(yaml), None), " | a b c d s | relationships_b_id__id__ref_s_ | e | ");
}

#[test]
fn tests_of_what_is_not_made_come_first() {
    let sources = Folder::new(&[
        ("models/m.yml", "version: 2\nsources: [{name: raw, tables: [{name: x, columns: [{name: id, data_type: INT, data_tests: [unique]}]}]}]\n"),
        ("queries/a.sql", "select id from {{ source('raw', 'x') }}"),
    ])
    .load();
    assert_eq!(stages(&sources, None), "source_unique_raw_x_id | a | ");
    let b = project(&format!("models: [{}]", on("b")));
    assert_eq!(stages(&b, Some(&["d", "e"])), "unique_b_id | d e | ");
    // What is made from a table that is tested, by way of one that is not made.
    assert_eq!(stages(&b, Some(&["b", "d"])), " | b | unique_b_id | d | ");
    assert_eq!(stages(&b, Some(&[])), "unique_b_id");
}

#[test]
fn a_table_that_is_read_as_a_source_is_made_before_it_is_tested() {
    let project = Folder::new(&[
        (
            "models/m.yml",
            "version: 2\nsources:\n  - {name: raw, tables: [{name: x, columns: [{name: id, data_type: INT}]}]}\n  \
             - {name: made, schema: default, tables: [{name: z, columns: [{name: id, data_type: INT, data_tests: [not_null]}]}]}\n\
             models:\n  - {name: a, columns: [{name: id, data_tests: [unique]}]}\n",
        ),
        ("queries/a.sql", "{{ config(materialized='view') }}\nselect id from {{ source('made', 'z') }}"),
        ("queries/y.sql", "select id from {{ source('raw', 'x') }}"),
        ("queries/z.sql", "select id from {{ ref('y') }}"),
    ])
    .load();
    let z = project.models.iter().find(|m| m.name == "z").unwrap();
    assert_eq!(z.schema, "default");
    assert_eq!(stages(&project, None), " | y z | source_not_null_made_z_id | a | unique_a_id");
}

#[test]
fn failures_reach_everything_behind_them() {
    let project = project(&format!("models: [{}]", on("b")));
    let tests: Vec<_> = project.tests.iter().collect();
    let stages = Stages::new(&project, None, &tests);
    let names = |found: Vec<&String>| found.into_iter().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(names(stages.behind_test(&tests[0].unique_id).collect()), "c d e");
    assert_eq!(names(stages.behind_model("a").collect()), "b c d e");
    assert_eq!(names(stages.behind_model("d").collect()), "");
}

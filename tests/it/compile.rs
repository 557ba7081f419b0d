//! `smelt compile`: what is wrong with a project, all of it at once.

use super::support::Sandbox;

#[test]
fn errors_of_every_kind_are_shown_together() {
    let sandbox = Sandbox::with(&[
        ("smelt.yml", "name: shop\ntargets: {dev: {lake: ./lake}}\n"),
        (
            "models/shop.yml",
            "version: 2\nsources:\n  - name: shop\n    config: {connector: datagen}\n    tables: [{name: clicks, columns: [{name: id, data_type: BIGINT}]}]\n",
        ),
        ("models/wrong.yml", "version: 2\nmodels:\n  - name: described\n    columms: []\n"),
        ("queries/described.sql", "select idd from {{ source('shop', 'clicks') }}"),
        ("queries/jinja.sql", "select {{ undefined_name }} as x"),
        ("queries/reads_jinja.sql", "select nothing from {{ ref('jinja') }}"),
        ("queries/unknown.sql", "select nothing from {{ ref('nowhere') }}"),
        ("queries/sql.sql", "select idd from {{ source('shop', 'clicks') }}"),
        ("queries/reads_sql.sql", "select nothing from {{ ref('sql') }}"),
        ("queries/syntax.sql", "select from where"),
        ("queries/right.sql", "select id from {{ source('shop', 'clicks') }}"),
    ]);
    let ended = sandbox.smelt(&["compile"]).fails(2, "5 errors: ");
    for place in [
        "models/wrong.yml:4",
        "queries/jinja.sql:1",
        "queries/unknown.sql:1",
        "queries/sql.sql:1:8",
        "queries/syntax.sql:1",
    ] {
        assert!(ended.stderr.contains(place), "{place}: {}", ended.stderr);
    }
    // What reads something wrong has nothing to complain about.
    for file in ["/reads_jinja", "/reads_sql", "/described.sql", "/right"] {
        assert!(!ended.stderr.contains(file), "{file}: {}", ended.stderr);
    }
    // Where only SQL is wrong, nothing is said twice.
    for file in [
        "models/wrong.yml",
        "queries/jinja.sql",
        "queries/unknown.sql",
        "queries/reads_jinja.sql",
        "queries/described.sql",
    ] {
        sandbox.remove(file);
    }
    sandbox.smelt(&["compile"]).fails(2, "2 errors: ");
}

#[test]
fn mistakes_of_some_leave_the_sql_of_others() {
    let sandbox = crate::support::Sandbox::with(&[
        ("smelt.yml", "name: shop\ntargets: {dev: {lake: ./lake}}\n"),
        ("queries/good.sql", "select 1 as a\n"),
        ("queries/reader.sql", "select a from {{ ref('good') }}\n"),
        ("queries/described.sql", "select 1 as a\n"),
        ("queries/bad_jinja.sql", "select {{ nothing }}\n"),
        ("queries/bad_sql.sql", "select b from {{ ref('good') }}\n"),
        ("models/wrong.yml", "version: 2\nmodels:\n  - {name: described, colums: []}\n"),
    ]);
    let compiled = |name: &str| sandbox.path().join(format!("target/compiled/queries/{name}.sql"));
    let ended = sandbox.smelt(&["compile"]).fails(2, "`nothing` is not defined");
    assert!(ended.stderr.contains("no column `b`") && ended.stderr.contains("colums"), "{}", ended.stderr);
    assert!(ended.stdout.contains("SQL of 3 models without mistakes is in"), "{}", ended.stdout);
    assert_eq!(std::fs::read_to_string(compiled("reader")).unwrap(), "select a from \"default\".\"good\"\n");
    assert!(compiled("good").exists());
    // Its Jinja is sound: a person can look at the SQL that is wrong.
    assert!(compiled("bad_sql").exists());
    assert!(!compiled("bad_jinja").exists() && !compiled("described").exists());
}

#[test]
fn flags_of_the_project_file_take_effect() {
    let project = |flags: &str| {
        format!("name: shop\ntargets: {{dev: {{lake: ./lake}}}}\nquery-comment: by smelt\nflags: {flags}\n")
    };
    let sandbox = crate::support::Sandbox::with(&[
        ("smelt.yml", &project("{}")),
        ("queries/a.sql", "select 1 as a\n"),
        ("queries/b.sql", "select a from {{ ref('a') }}\n"),
        (
            "models/m.yml",
            "version: 2\nmodels:\n  - {name: nowhere}\n  - {name: b, columns: [{name: a, data_tests: [{relationships: {to: ref('a'), field: a}}]}]}\n",
        ),
        ("queries/tests/t1.sql", "select a from {{ ref('a') }}\n"),
        ("queries/tests/t2.sql", "select a + 1 as a from {{ ref('a') }}\n"),
    ]);
    let with = |flags: &str| sandbox.write("smelt.yml", project(flags));
    let unused = "there is no model `nowhere` to describe";
    let plain = sandbox.smelt(&["compile"]).ok();
    assert!(plain.stderr.contains(unused) && !plain.stderr.contains("query-comment"), "{}", plain.stderr);
    with("{warn_error: true}");
    sandbox.smelt(&["compile"]).fails(2, unused);
    with("{warn_error_options: {error: all, warn: [unused-properties]}}");
    assert!(sandbox.smelt(&["compile"]).ok().stderr.contains(unused));
    with("{warn_error_options: {include: [unused-properties]}}");
    sandbox.smelt(&["compile"]).fails(2, unused);
    with("{warn_error_options: {silence: [unused-properties]}}");
    assert!(!sandbox.smelt(&["compile"]).ok().stderr.contains(unused));

    with(
        "{indirect_selection: cautious, printer_width: 120, use_colors: false, log_format: json, partial_parse: true}",
    );
    let listed = sandbox.smelt(&["ls", "-s", "b", "--resource-type", "test"]).ok();
    assert!(!listed.stdout.contains("relationships"), "it reads `a` too: {}", listed.stdout);
    assert!(!listed.stderr.contains("flag"), "{}", listed.stderr);
    let listed = sandbox.smelt(&["ls", "-s", "b", "--resource-type", "test", "--indirect-selection", "eager"]).ok();
    assert!(listed.stdout.contains("relationships"), "the command line wins: {}", listed.stdout);

    with("{fail_fast: true}");
    sandbox.smelt(&["run"]).ok();
    let tested = sandbox.smelt(&["test", "-s", "test_type:singular"]).fails(1, "");
    assert!(tested.stdout.contains("FAIL 1 t1") && tested.stdout.contains("SKIP t2"), "{}", tested.stdout);

    with("{full_refresh: true, fail_fats: true}");
    let ended = sandbox.smelt(&["compile"]).ok();
    assert!(ended.stderr.contains("`full_refresh` in `flags` has no effect"), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("no flag `fail_fats`") && ended.stderr.contains("did you mean `fail_fast`"),
        "{}",
        ended.stderr
    );

    with("{skip_nodes_if_on_run_start_fails: false}\non-run-start: select * from nowhere");
    let ended = sandbox.smelt(&["run"]).fails(1, "nowhere");
    assert!(ended.stdout.contains("2 OK, 0 ERROR"), "{}", ended.stdout);
}

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

//! One name in several packages: which one `ref` means, and when two of them clash.

use super::support::Sandbox;

/// A project `shop` with the package `crm`, whose tables land in a schema of their own.
fn shop(files: &[(&str, &str)]) -> Sandbox {
    let sandbox = Sandbox::with(&[
        (
            "dbt_project.yml",
            "name: shop\nversion: '1.0'\nprofile: shop\nmodels: {crm: {+schema: crm}}\nseeds: {crm: {+schema: crm}}\n",
        ),
        ("profiles.yml", "shop: {target: dev, outputs: {dev: {type: duckdb, path: shop.duckdb, schema: main}}}\n"),
        ("smelt.yml", "lake: ./lake\n"),
        ("packages.yml", "packages: [{local: dbt_packages/crm}]\n"),
        ("dbt_packages/crm/dbt_project.yml", "name: crm\nversion: '1.0'\n"),
        ("dbt_packages/crm/seeds/people.csv", "id,name\n1,crm\n"),
        (
            "dbt_packages/crm/models/users.sql",
            "{{ config(materialized='table') }}select id, name, '{{ label() }}' as label from {{ ref('people') }}",
        ),
        (
            "dbt_packages/crm/models/deals.sql",
            "{{ config(materialized='table') }}select count(*) as n, min(name) as whose from {{ ref('users') }}",
        ),
        (
            "dbt_packages/crm/models/crm.yml",
            "version: 2\nmodels: [{name: users, description: of crm, columns: [{name: id, data_tests: [unique]}]}]\n",
        ),
        ("dbt_packages/crm/macros/label.sql", "{% macro label() %}crm{% endmacro %}"),
        ("seeds/people.csv", "id,name\n1,shop\n2,shop\n"),
        (
            "models/users.sql",
            "{{ config(materialized='table') }}select id, name, '{{ label() }}' as label from {{ ref('people') }}",
        ),
        ("models/both.sql", "select name from {{ ref('users') }} union all select name from {{ ref('crm', 'users') }}"),
        (
            "models/shop.yml",
            "version: 2\nmodels: [{name: users, description: of shop, columns: [{name: id, data_tests: [unique, not_null]}]}]\n",
        ),
        ("macros/label.sql", "{% macro label() %}shop{% endmacro %}"),
    ]);
    files.iter().for_each(|(path, text)| sandbox.write(path, text));
    sandbox
}

#[test]
fn ref_takes_the_package_it_names_then_its_own_then_the_project() {
    let sandbox = shop(&[("dbt_packages/crm/models/mine.sql", "select name from {{ ref('both') }}")]);
    let built = sandbox.smelt(&["build"]).ok();
    assert!(built.stdout.contains("ERROR=0 SKIP=0"), "{}", built.stdout);
    assert_eq!(
        sandbox.rows("select * from main.users"),
        [r#"{"id":1,"name":"shop","label":"shop"}"#, r#"{"id":2,"name":"shop","label":"shop"}"#]
    );
    assert_eq!(sandbox.rows("select * from main_crm.users"), [r#"{"id":1,"name":"crm","label":"crm"}"#]);
    assert_eq!(sandbox.rows("select * from main_crm.deals"), [r#"{"n":1,"whose":"crm"}"#]);
    assert_eq!(
        sandbox.rows("select name, count(*) as n from both group by name"),
        [r#"{"name":"crm","n":1}"#, r#"{"name":"shop","n":2}"#]
    );
    assert_eq!(sandbox.count("main_crm.mine"), 3);
}

#[test]
fn both_keep_their_names_and_ids_in_selections_and_in_the_manifest() {
    let sandbox = shop(&[]);
    let listed = sandbox.smelt(&["ls", "--select", "users", "--resource-type", "model", "--output", "name"]).ok();
    assert_eq!(listed.stdout.lines().collect::<Vec<_>>(), ["users", "users"]);
    let listed = sandbox.smelt(&["ls", "--select", "crm.users+"]).ok();
    assert_eq!(
        listed.stdout.lines().collect::<Vec<_>>(),
        ["crm.deals", "crm.users", "shop.both", "crm.unique_users_id"]
    );
    sandbox.smelt(&["seed"]).ok();
    sandbox.smelt(&["run", "--select", "package:crm"]).ok();
    assert_eq!(sandbox.count("main_crm.users"), 1);
    sandbox.smelt(&["query", "select * from main.users"]).fails(2, "users has no table");

    sandbox.smelt(&["compile"]).ok();
    let manifest = std::fs::read_to_string(sandbox.path().join("target/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    for (package, table) in [("shop", "main"), ("crm", "main_crm")] {
        let node = &manifest["nodes"][format!("model.{package}.users")];
        assert_eq!(node["name"], "users", "{package}");
        assert_eq!(node["schema"], table, "{package}");
        assert_eq!(node["description"], format!("of {package}"), "{package}");
        assert_eq!(node["depends_on"]["nodes"][0], format!("seed.{package}.people"), "{package}");
    }
    let both = &manifest["nodes"]["model.shop.both"]["depends_on"]["nodes"];
    assert_eq!(*both, serde_json::json!(["model.shop.users", "model.crm.users"]));
    let test = manifest["nodes"]
        .as_object()
        .unwrap()
        .values()
        .find(|n| n["package_name"] == "crm" && n["resource_type"] == "test");
    let test = test.unwrap();
    assert_eq!(test["attached_node"], "model.crm.users");
    assert_eq!(test["test_metadata"]["kwargs"]["model"], "{{ get_where_subquery(ref('users')) }}");
}

#[test]
fn a_model_that_is_disabled_leaves_its_name_to_another_package() {
    let sandbox = shop(&[(
        "dbt_project.yml",
        "name: shop\nversion: '1.0'\nprofile: shop\nmodels: {crm: {+schema: crm, users: {+enabled: false}, deals: {+materialized: view}}}\nseeds: {crm: {+schema: crm}}\n",
    )]);
    sandbox.smelt(&["compile"]).fails(2, "error[disabled-ref]: model `users` is disabled");
    sandbox.remove("models/both.sql");
    sandbox.smelt(&["build"]).ok();
    // The package now reads the project's.
    assert_eq!(sandbox.rows("select * from main_crm.deals"), [r#"{"n":2,"whose":"shop"}"#]);
}

#[test]
fn two_that_make_one_table_and_names_that_are_nowhere_are_errors() {
    let sandbox =
        shop(&[("dbt_project.yml", "name: shop\nversion: '1.0'\nprofile: shop\nseeds: {crm: {+schema: crm}}\n")]);
    let ended = sandbox
        .smelt(&["compile"])
        .fails(2, "two resources have the database representation `main.users`: model.shop.users and model.crm.users");
    assert!(
        ended.stderr.contains("give one of them another `schema` or `alias`; the other is models/users.sql"),
        "{}",
        ended.stderr
    );

    let sandbox = shop(&[("models/lost.sql", "select 1 as x from {{ ref('crm', 'both') }}")]);
    sandbox.smelt(&["compile"]).fails(2, "no model `both` in `crm`").fails(2, "did you mean ref('shop', 'both')?");
    let sandbox = shop(&[("models/lost.sql", "select 1 as x from {{ ref('crn', 'users') }}")]);
    sandbox.smelt(&["compile"]).fails(2, "no project or package `crn`").fails(2, "did you mean `crm`?");
}

#[test]
fn sources_of_one_name_stand_in_two_packages() {
    let source = |file: &str| {
        format!(
            "version: 2\nsources:\n  - name: raw\n    tables:\n      - name: clicks\n        config: {{meta: {{smelt: {{connector: files, format: json, path: data/{file}}}}}}}\n        columns: [{{name: id, data_type: bigint}}]\n"
        )
    };
    let own = source("own");
    let theirs = source("theirs");
    let sandbox = shop(&[
        ("models/sources.yml", &own),
        ("dbt_packages/crm/models/sources.yml", &theirs),
        ("data/own/1.json", "{\"id\": 1}\n"),
        ("data/theirs/1.json", "{\"id\": 2}\n{\"id\": 3}\n"),
        ("models/clicks.sql", "{{ config(materialized='table') }}select id from {{ source('raw', 'clicks') }}"),
        (
            "dbt_packages/crm/models/clicks.sql",
            "{{ config(materialized='table') }}select id from {{ source('raw', 'clicks') }}",
        ),
    ]);
    sandbox.smelt(&["build"]).ok();
    assert_eq!(sandbox.rows("select * from main.clicks"), [r#"{"id":1}"#]);
    assert_eq!(sandbox.count("main_crm.clicks"), 2);
    let listed = sandbox.smelt(&["ls", "--resource-type", "source"]).ok();
    assert_eq!(listed.stdout.lines().collect::<Vec<_>>(), ["source:crm.raw.clicks", "source:shop.raw.clicks"]);
}

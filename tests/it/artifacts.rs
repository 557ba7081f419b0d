//! What commands leave in `target/` for other tools: valid against dbt's published schemas, and saying what is so.

use serde_json::{Value, json};
use std::process::Command;

use crate::python;
use crate::support::Sandbox;

/// A project with everything an artifact speaks of: `orders` → `totals`, a snapshot, a view, a macro, a group, an exposure.
pub fn shop() -> Sandbox {
    Sandbox::with(&[
        (
            "smelt.yml",
            "name: shop\ntarget: dev\ntargets:\n  dev: {lake: ./lake, commit_interval: 100ms}\n\
             models: {shop: {+schema: shop}}\nsnapshots: {shop: {+schema: shop}}\n",
        ),
        (
            "models/sources.yml",
            "version: 2\nsources:\n  - name: raw\n    description: What the tills send.\n    meta: {team: tills}\n    \
             config: {connector: files, format: json}\n    freshness: {warn_after: {count: 1, period: day}}\n    tables:\n      - name: orders\n        \
             description: '{{ doc(\"orders\") }}'\n        config: {path: data, meta: {pii: false}, tags: [raw]}\n        columns:\n          \
             - {name: id, data_type: BIGINT, description: Number of the order.}\n          - {name: amount, data_type: 'DECIMAL(10,2)'}\n          - {name: city, data_type: STRING}\n",
        ),
        (
            "models/models.yml",
            "version: 2\nmodels:\n  - name: orders\n    description: '{{ doc(\"orders\") }} Typed.'\n    group: finance\n    access: public\n    \
             expectations: [{name: positive, expect: amount >= 0, on_violation: warn}]\n    columns:\n      - name: id\n        description: Number of the order.\n        \
             data_type: BIGINT\n        meta: {key: true}\n        tags: [pii]\n        data_tests: [unique, not_null]\n      \
             - {name: city, data_tests: [{accepted_values: {values: [Cairo, Giza]}}]}\n  \
             - {name: totals, description: Money by city., config: {meta: {owner: ann}, tags: [money]}}\n\
             snapshots:\n  - name: history\n    description: Versions of totals.\n    relation: ref('totals')\n    \
             config: {unique_key: city, strategy: check, check_cols: all, schedule: every 1 day}\n\
             groups:\n  - {name: finance, owner: {name: Finance, email: finance@example.org}, description: Money people.}\n\
             exposures:\n  - name: cash\n    label: Cash board\n    type: dashboard\n    maturity: high\n    url: https://example.org/cash\n    \
             description: Seen by everybody.\n    owner: {name: Ann, email: ann@example.org}\n    depends_on: [ref('totals'), \"source('raw', 'orders')\"]\n    \
             tags: [board]\n    meta: {floor: 3}\n\
             macros:\n  - {name: cents, description: Money in cents., arguments: [{name: column, type: string, description: What to turn.}]}\n",
        ),
        ("models/docs.md", "# Notes\n\n{% docs orders %}\nOrders **as sold**.\n{% enddocs %}\n"),
        (
            "macros/money.sql",
            "{% macro cents(column) %}({{ column }} * 100){% endmacro %}\n{% macro twice(c) %}{{ cents(c) }} * 2{% endmacro %}\n",
        ),
        (
            "queries/orders.sql",
            "{{ config(materialized='streaming_table') }}\nselect id, amount, city from {{ source('raw', 'orders') }}\n",
        ),
        (
            "queries/marts/totals.sql",
            "select city, sum({{ cents('amount') }}) as cents from {{ ref('orders') }} group by city\n",
        ),
        (
            "queries/marts/rich.sql",
            "{{ config(materialized='view') }}\nselect * from {{ ref('totals') }} where cents > 1000\n",
        ),
        ("queries/off.sql", "{{ config(enabled=false) }}\nselect 1 as one\n"),
        ("queries/tests/no_debt.sql", "select * from {{ ref('totals') }} where cents < 0\n"),
        (
            "data/1.json",
            "{\"id\": 1, \"amount\": 12.5, \"city\": \"Cairo\"}\n{\"id\": 2, \"amount\": 3, \"city\": \"Luxor\"}\n",
        ),
    ])
}

/// An artifact of the project, which must be there.
#[track_caller]
pub fn artifact(sandbox: &Sandbox, name: &str) -> Value {
    let path = sandbox.path().join("target").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Fails the test unless those files of `target/`, and no other artifacts, are there and valid; then removes them. What circuits measured is no
/// artifact of dbt's.
#[track_caller]
pub fn valid(sandbox: &Sandbox, names: &[&str]) {
    let target = sandbox.path().join("target");
    let mut there: Vec<String> = std::fs::read_dir(&target)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.ends_with(".json") && n != "operators.json")
        .collect();
    there.sort();
    assert_eq!(there, names, "the artifacts of the command");
    if python::available() {
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/validate_artifacts.py");
        let output =
            Command::new(python::python()).arg(script).args(names.iter().map(|n| target.join(n))).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    names.iter().for_each(|n| std::fs::remove_file(target.join(n)).unwrap());
}

/// The results by unique id: (status, failures).
fn outcomes(sandbox: &Sandbox) -> Vec<(String, String, Value)> {
    let results = artifact(sandbox, "run_results.json");
    let one = |r: &Value| {
        (r["unique_id"].as_str().unwrap().to_string(), r["status"].as_str().unwrap().to_string(), r["failures"].clone())
    };
    let mut all: Vec<_> = results["results"].as_array().unwrap().iter().map(one).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn every_command_leaves_valid_artifacts() {
    let sandbox = shop();
    let both = ["manifest.json", "run_results.json"];
    sandbox.smelt(&["ls"]).ok();
    valid(&sandbox, &["manifest.json"]);
    for (args, code, names) in [
        (&["compile"][..], 0, &both),
        (&["run"], 0, &both),
        (&["snapshot"], 0, &both),
        (&["test"], 1, &both),
        (&["build", "--select", "orders"], 1, &both),
    ] {
        let ended = sandbox.smelt(args);
        assert_eq!(ended.code, Some(code), "{args:?}\n{}\n{}", ended.stdout, ended.stderr);
        valid(&sandbox, names);
    }
    // Looking at rows leaves nothing.
    sandbox.smelt(&["show", "totals"]).ok();
    valid(&sandbox, &[]);
}

#[test]
fn results_say_what_happened_to_each_node() {
    let sandbox = shop();
    sandbox.smelt(&["build"]).fails(1, "");
    let accepted = "test.shop.accepted_values_orders_city__Cairo__Giza.";
    let found = outcomes(&sandbox);
    let shown: Vec<(&str, &str, &Value)> = found.iter().map(|(id, s, f)| (id.as_str(), s.as_str(), f)).collect();
    assert_eq!(
        shown.iter().filter(|(id, ..)| !id.starts_with("test.")).collect::<Vec<_>>(),
        [
            &("model.shop.orders", "success", &Value::Null),
            &("model.shop.rich", "skipped", &Value::Null),
            &("model.shop.totals", "skipped", &Value::Null),
            &("snapshot.shop.history", "skipped", &Value::Null),
        ],
        "they stand behind a test that fails"
    );
    let tests: Vec<(bool, &str, &Value)> = shown
        .iter()
        .filter(|(id, ..)| id.starts_with("test."))
        .map(|(id, s, f)| (id.starts_with(accepted), *s, *f))
        .collect();
    let (zero, one) = (json!(0), json!(1));
    let skipped = (false, "skipped", &Value::Null);
    assert_eq!(tests, [(true, "fail", &one), skipped, (false, "pass", &zero), (false, "pass", &zero)]);
    let results = artifact(&sandbox, "run_results.json");
    assert_eq!((&results["args"]["which"], &results["args"]["full_refresh"]), (&json!("build"), &json!(false)));
    let orders = results["results"].as_array().unwrap().iter().find(|r| r["unique_id"] == "model.shop.orders").unwrap();
    assert_eq!(orders["relation_name"], r#""shop"."orders""#);
    assert_eq!(orders["compiled_code"], "\nselect id, amount, city from \"raw\".\"orders\"\n");
    let response = &orders["adapter_response"];
    assert_eq!((&response["rows_affected"], &response["rows"]), (&json!(2), &json!(2)));
    assert!(response["version"].as_i64().unwrap() >= 1 && response["epoch"].as_i64().unwrap() >= 1, "{response}");
    assert!(orders["timing"][0]["completed_at"].as_str() >= orders["timing"][0]["started_at"].as_str());

    // A model that cannot be computed is an error, its readers are skipped, the rest is made.
    sandbox.write("queries/marts/totals.sql", "select city, cast(city as bigint) as cents from {{ ref('orders') }}\n");
    sandbox.smelt(&["run"]).fails(1, "");
    let found: Vec<(String, String)> = outcomes(&sandbox).into_iter().map(|(id, status, _)| (id, status)).collect();
    let expected = [
        ("model.shop.orders", "success"),
        ("model.shop.rich", "skipped"),
        ("model.shop.totals", "error"),
        ("snapshot.shop.history", "skipped"),
    ];
    assert_eq!(found, expected.map(|(id, status)| (id.to_string(), status.to_string())));
    // A project that cannot be read leaves the last artifacts as they are.
    sandbox.write("queries/marts/totals.sql", "select {{ ref('nothing') }}");
    sandbox.smelt(&["run"]).fails(2, "nothing");
    assert_eq!(outcomes(&sandbox).len(), 4);
}

#[test]
fn the_manifest_describes_the_project() {
    let sandbox = shop();
    sandbox.smelt(&["compile"]).ok();
    let manifest = artifact(&sandbox, "manifest.json");
    let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(manifest["metadata"]["dbt_schema_version"], "https://schemas.getdbt.com/dbt/manifest/v12.json");
    assert_eq!(manifest["metadata"]["project_name"], "shop");
    let nodes = keys(&manifest["nodes"]);
    assert_eq!(&nodes[..4], ["model.shop.orders", "model.shop.rich", "model.shop.totals", "snapshot.shop.history"]);
    assert_eq!(nodes.len(), 8, "{nodes:?}");
    assert_eq!(keys(&manifest["disabled"]), ["model.shop.off"]);

    let orders = &manifest["nodes"]["model.shop.orders"];
    assert_eq!(orders["description"], "Orders **as sold**. Typed.", "doc() is resolved");
    assert_eq!(orders["patch_path"], "shop://models/models.yml");
    assert_eq!(orders["config"]["materialized"], "streaming_table");
    assert_eq!((&orders["group"], &orders["access"]), (&json!("finance"), &json!("public")));
    assert_eq!(orders["primary_key"], json!(["id"]));
    assert_eq!(orders["columns"]["id"]["meta"], json!({"key": true}));
    assert_eq!(orders["columns"]["id"]["tags"], json!(["pii"]));
    assert_eq!(
        orders["meta"]["smelt"]["expectations"],
        json!([{"name": "positive", "expect": "amount >= 0", "on_violation": "warn"}])
    );
    let totals = &manifest["nodes"]["model.shop.totals"];
    assert_eq!(totals["path"], "marts/totals.sql");
    assert_eq!(totals["fqn"], json!(["shop", "marts", "totals"]));
    assert_eq!(totals["depends_on"], json!({"macros": ["macro.shop.cents"], "nodes": ["model.shop.orders"]}));
    assert_eq!(
        totals["raw_code"],
        "select city, sum({{ cents('amount') }}) as cents from {{ ref('orders') }} group by city"
    );
    assert_eq!(
        totals["compiled_code"].as_str().unwrap().trim(),
        r#"select city, sum((amount * 100)) as cents from "shop"."orders" group by city"#
    );
    // printf '%s' "$raw_code" | sha256sum
    assert_eq!(totals["checksum"]["name"], "sha256");
    assert_eq!(totals["checksum"]["checksum"], "699c5d647b2c684ed120a6daa50787d8bdf81ef21d250764c5a1f0e70d8e092c");
    assert_eq!((&totals["config"]["meta"], &totals["tags"]), (&json!({"owner": "ann"}), &json!(["money"])));

    let source = &manifest["sources"]["source.shop.raw.orders"];
    assert_eq!((&source["meta"], &source["tags"]), (&json!({"team": "tills", "pii": false}), &json!(["raw"])));
    assert_eq!(source["description"], "Orders **as sold**.");
    assert_eq!(source["freshness"]["warn_after"], json!({"count": 1, "period": "day"}));
    assert_eq!(source["columns"]["id"]["data_type"], "BIGINT");

    assert_eq!(manifest["macros"]["macro.shop.twice"]["depends_on"]["macros"], json!(["macro.shop.cents"]));
    assert_eq!(manifest["macros"]["macro.shop.cents"]["arguments"][0]["description"], "What to turn.");
    assert_eq!(manifest["docs"]["doc.shop.orders"]["block_contents"], "Orders **as sold**.");
    assert_eq!(manifest["group_map"], json!({"finance": ["model.shop.orders"]}));
    let exposure = &manifest["exposures"]["exposure.shop.cash"];
    assert_eq!(exposure["depends_on"]["nodes"], json!(["model.shop.totals", "source.shop.raw.orders"]));
    assert_eq!((&exposure["type"], &exposure["owner"]["email"]), (&json!("dashboard"), &json!("ann@example.org")));

    assert_eq!(manifest["parent_map"]["snapshot.shop.history"], json!(["model.shop.totals"]));
    assert_eq!(
        manifest["child_map"]["model.shop.totals"],
        json!(["exposure.shop.cash", "model.shop.rich", "snapshot.shop.history", "test.shop.no_debt"])
    );
    let unique =
        manifest["nodes"].as_object().unwrap().iter().find(|(id, _)| id.starts_with("test.shop.unique_")).unwrap().1;
    assert_eq!((&unique["attached_node"], &unique["column_name"]), (&json!("model.shop.orders"), &json!("id")));
    assert_eq!(unique["test_metadata"]["name"], "unique");

    // The same project gives the same text, but for ids and times.
    sandbox.smelt(&["compile"]).ok();
    let again = artifact(&sandbox, "manifest.json");
    let mut stripped = [manifest, again];
    stripped.iter_mut().for_each(strip);
    assert_eq!(stripped[0].to_string(), stripped[1].to_string());
}

/// Removes what differs from run to run.
fn strip(json: &mut Value) {
    match json {
        Value::Object(members) => {
            for key in ["created_at", "generated_at", "invocation_id", "invocation_started_at", "run_started_at"] {
                members.remove(key);
            }
            members.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

#[test]
fn secrets_never_reach_an_artifact() {
    let sandbox = shop();
    sandbox.write(
        "queries/keyed.sql",
        "{{ config(meta={'key': env_var('SMELT_SECRET_KEY')}) }}\nselect '{{ env_var('SMELT_SECRET_KEY') }}' as k, city from {{ ref('orders') }}\n",
    );
    let secret = "p\"w\\d-7781";
    sandbox.smelt_with(&["run"], &[("SMELT_SECRET_KEY", secret)]).ok();
    for name in ["manifest.json", "run_results.json"] {
        let json = artifact(&sandbox, name);
        assert!(!holds(&json, secret), "{name}");
        assert!(holds(&json, "****"), "{name} says that something is left out");
    }
}

fn holds(json: &Value, text: &str) -> bool {
    match json {
        Value::String(s) => s.contains(text),
        Value::Array(items) => items.iter().any(|i| holds(i, text)),
        Value::Object(members) => members.iter().any(|(k, v)| k.contains(text) || holds(v, text)),
        _ => false,
    }
}

#[test]
fn mistakes_point_at_their_place() {
    for (file, text, place, said) in [
        ("models/docs.md", "{% docs orders %}\nnever closed\n", "models/docs.md:1:1", "docs block `orders` never ends"),
        ("models/docs.md", "{% docs sales %}x{% enddocs %}\n", "models/models.yml:4:18", "no docs block `orders`"),
        (
            "models/more.yml",
            "exposures:\n  - {name: board, type: chart, owner: {name: Ann}}\n",
            "models/more.yml:2:25",
            "`type` cannot be `chart`",
        ),
        (
            "models/more.yml",
            "exposures:\n  - {name: board, type: notebook, owner: {name: Ann}, depends_on: [ref('totls')]}\n",
            "models/more.yml:2:68",
            "did you mean `totals`?",
        ),
        ("models/more.yml", "exposures:\n  - {name: board, type: notebook}\n", "models/more.yml:2:12", "has no owner"),
        (
            "models/more.yml",
            "models:\n  - {name: rich, config: {group: finanze}}\n",
            "models/more.yml:2:34",
            "did you mean `finance`?",
        ),
    ] {
        let sandbox = shop();
        sandbox.write(file, text);
        let ended = sandbox.smelt(&["ls"]).fails(2, said);
        assert!(ended.stderr.contains(place), "{place} is not in\n{}", ended.stderr);
    }
}

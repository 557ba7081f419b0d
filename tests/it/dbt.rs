//! A repository written for dbt (`tests/dbt_project`) runs with smelt, and dbt-core's own parser makes the same nodes of it.
//!
//! dbt-core is in a Python environment of its own (`scripts/setup.sh test`, tests/python/dbt-requirements.txt); without it the
//! comparisons are skipped, unless `SMELT_REQUIRE_SERVICES=1`.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use smelt::env::Env;
use smelt::project::{self, Dependency, HookPoint, LoadOptions, Model, Project};

use crate::support::Sandbox;

/// A copy of the repository.
fn shop() -> Sandbox {
    fn copy(from: &Path, below: &Path, sandbox: &Sandbox) {
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let inside = below.join(path.file_name().unwrap());
            if path.is_dir() {
                copy(&path, &inside, sandbox);
            } else {
                sandbox.write(inside.to_str().unwrap(), std::fs::read(&path).unwrap());
            }
        }
    }
    let sandbox = Sandbox::new();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dbt_project"), Path::new(""), &sandbox);
    sandbox
}

#[test]
fn a_dbt_repository_runs_as_it_is() {
    let sandbox = shop();
    sandbox
        .smelt(&["compile"])
        .fails(2, "1 of 1 packages are not installed: packages/shop_utils")
        .fails(2, "smelt deps");
    let deps = sandbox.smelt(&["deps"]).ok();
    assert!(deps.stdout.contains("installed shop_utils from packages/shop_utils"), "{}", deps.stdout);

    let built = sandbox.smelt(&["build"]).ok();
    assert!(built.stdout.contains("ERROR=0 SKIP=0"), "{}", built.stdout);
    let customers = "select name, country_name, orders, cast(amount as varchar) as amount from customer_orders";
    let customers = customers.replace("customer_orders", "shop_marts.customer_orders");
    assert_eq!(
        sandbox.rows(&customers),
        [
            r#"{"name":"Amal","country_name":"Egypt","orders":2,"amount":"13.50"}"#,
            r#"{"name":"Berta","country_name":"Germany","orders":1,"amount":"9.99"}"#,
        ]
    );
    assert_eq!(sandbox.count("shop_marts.order_events"), 3);
    assert_eq!(sandbox.count("shop_history.customer_history"), 2);
    assert_eq!(sandbox.count("shop_reference.countries"), 2);
    assert_eq!(sandbox.value("select cents_per_unit from shop_utils.util_days"), 100);

    // A later order, and one that comes too late for the filter on `this`; a customer who moves.
    sandbox.write(
        "data/orders/2.json",
        "{\"order_id\": 13, \"customer_id\": 2, \"amount_cents\": 1, \"status\": \"placed\", \"ordered_at\": \"2026-01-07T08:00:00Z\"}\n\
         {\"order_id\": 14, \"customer_id\": 2, \"amount_cents\": 1, \"status\": \"placed\", \"ordered_at\": \"2026-01-02T08:00:00Z\"}\n",
    );
    sandbox.smelt(&["run"]).ok();
    assert_eq!(
        sandbox.rows("select order_id from shop_marts.order_events"),
        [10, 11, 12, 13].map(|id| format!("{{\"order_id\":{id}}}"))
    );
    assert_eq!(sandbox.value("select orders from shop_marts.customer_orders where name = 'Berta'"), 3);
    assert_eq!(sandbox.count("shop_history.order_history"), 3, "`run` takes snapshots that are due, and new ones");
    sandbox.smelt(&["build"]).ok();
    assert_eq!(sandbox.count("shop_history.order_history"), 5);
}

#[test]
fn dbt_parses_the_same_nodes() {
    let Some(dbt) = dbt() else { return };
    let sandbox = shop();
    sandbox.smelt(&["deps"]).ok();
    let lock = std::fs::read_to_string(sandbox.path().join("package-lock.yml")).unwrap();
    run_dbt(&dbt, &sandbox, &["deps"]);
    let after = std::fs::read_to_string(sandbox.path().join("package-lock.yml")).unwrap();
    assert_eq!(lock, after, "dbt deps finds our lock file good");
    run_dbt(&dbt, &sandbox, &["parse", "--no-partial-parse"]);
    let manifest = std::fs::read_to_string(sandbox.path().join("target/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();

    let theirs = nodes_of_dbt(&manifest);
    let project = load(&sandbox);
    let operations = project.operations.clone().unwrap();
    let points = [HookPoint::RunEnd, HookPoint::RunStart];
    let hooks: Vec<String> = points.iter().flat_map(|p| operations.hooks(*p)).map(|h| h.unique_id()).collect();
    let is_hook = |id: &String| id.starts_with("operation.");
    assert_eq!(hooks, theirs.keys().filter(|id| is_hook(id)).cloned().collect::<Vec<_>>(), "the same hooks");
    let is_plain = |id: &String| is_hook(id) || id.starts_with("analysis.");
    let ours = nodes_of_smelt(&project);
    let names = |nodes: &BTreeMap<String, Value>| nodes.keys().cloned().collect::<Vec<_>>();
    let models: BTreeMap<String, Value> = theirs.clone().into_iter().filter(|(id, _)| !is_plain(id)).collect();
    assert_eq!(names(&ours), names(&models), "the same nodes");
    for (id, node) in &models {
        assert_eq!(&ours[id], node, "{id}");
    }
    assert!(theirs.len() > 25, "the repository has nodes of every kind");
    assert!(manifest["disabled"].get("model.shop.retired").is_some());

    // What `target/manifest.json` says to tools that read dbt's.
    std::fs::remove_file(sandbox.path().join("target/manifest.json")).unwrap();
    sandbox.smelt(&["ls"]).ok();
    let written = std::fs::read_to_string(sandbox.path().join("target/manifest.json")).unwrap();
    let whole: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(whole["selectors"], manifest["selectors"]);
    // Hooks and analyses key by key, but for what the adapter says.
    for id in theirs.keys().filter(|id| is_plain(id)) {
        let same = |node: &Value| {
            let mut node = node.as_object().unwrap().clone();
            for key in
                ["database", "created_at", "compiled", "compiled_code", "unrendered_config", "doc_blocks", "checksum"]
            {
                node.remove(key);
            }
            if let Some(tags) = node.get_mut("tags").and_then(Value::as_array_mut) {
                tags.sort_by_key(ToString::to_string);
            }
            node["depends_on"]["macros"].take();
            serde_json::Value::Object(node)
        };
        assert_eq!(same(&whole["nodes"][id]), same(&manifest["nodes"][id]), "{id}");
        assert_eq!(whole["parent_map"][id], manifest["parent_map"][id], "{id}");
        assert_eq!(whole["child_map"][id], manifest["child_map"][id], "{id}");
    }
    let written = nodes_of_dbt(&whole);
    assert_eq!(names(&written), names(&theirs), "the same nodes in the manifest");
    for (id, node) in manifest["nodes"].as_object().unwrap().iter().filter(|(id, _)| theirs.contains_key(*id)) {
        for key in ["refs", "sources"] {
            assert_eq!(whole["nodes"][id][key], node[key], "{key} of {id}");
        }
    }
    for (id, node) in &theirs {
        assert_eq!(&written[id], node, "{id}, in the manifest");
    }
}

fn load(sandbox: &Sandbox) -> Project {
    let options = LoadOptions { dir: sandbox.path().to_path_buf(), ..LoadOptions::default() };
    project::load(&options, &Env::real()).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(|e| e.render()).collect::<Vec<_>>().join("\n"));
    })
}

/// What both say of a node, in one form.
fn node(fqn: &[String], package: &str, depends_on: BTreeSet<String>, tags: &[String], config: Value) -> Value {
    let tags: BTreeSet<&String> = tags.iter().collect();
    serde_json::json!({"fqn": fqn, "package": package, "depends_on": depends_on, "tags": tags, "config": config})
}

/// Configuration that both must understand alike, where it is set.
const CONFIGS: [&str; 10] = [
    "unique_key",
    "strategy",
    "updated_at",
    "check_cols",
    "incremental_strategy",
    "on_schema_change",
    "column_types",
    "hard_deletes",
    "meta",
    "alias",
];

fn nodes_of_dbt(manifest: &Value) -> BTreeMap<String, Value> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|v| v.as_str().unwrap().to_string()).collect()
    };
    let mut nodes = BTreeMap::new();
    for (id, n) in manifest["nodes"].as_object().unwrap() {
        let mut config = serde_json::Map::new();
        let kind = n["resource_type"].as_str().unwrap();
        if kind == "test" {
            config.insert("severity".into(), n["config"]["severity"].as_str().unwrap().to_lowercase().into());
            config.insert("resolved".into(), serde_json::json!([n["schema"], n["alias"]]));
        } else {
            let resolved = serde_json::json!([n["schema"], n["alias"], n["config"]["materialized"]]);
            config.insert("resolved".into(), resolved);
            for key in CONFIGS {
                let value = &n["config"][key];
                if is_set(kind, key, value) {
                    config.insert(key.into(), value.clone());
                }
            }
        }
        let reads = texts(&n["depends_on"]["nodes"]).into_iter().collect();
        let package = n["package_name"].as_str().unwrap();
        let made = node(&texts(&n["fqn"]), package, reads, &texts(&n["tags"]), config.into());
        nodes.insert(id.clone(), made);
    }
    for (id, n) in manifest["sources"].as_object().unwrap() {
        let package = n["package_name"].as_str().unwrap();
        nodes.insert(id.clone(), node(&texts(&n["fqn"]), package, BTreeSet::new(), &[], Value::Null));
    }
    nodes
}

/// Whether a value says more than dbt's default.
fn is_set(kind: &str, key: &str, value: &Value) -> bool {
    let default = match (kind, key) {
        (_, "on_schema_change") => value == "ignore",
        (_, "hard_deletes") => value == "ignore",
        _ => false,
    };
    let empty = value.as_object().is_some_and(|m| m.is_empty()) || value.as_array().is_some_and(|a| a.is_empty());
    !(value.is_null() || default || empty)
}

fn nodes_of_smelt(project: &Project) -> BTreeMap<String, Value> {
    let id = |dependency: &Dependency| match dependency {
        Dependency::Model(name) => project.models.iter().find(|m| m.name == *name).unwrap().unique_id.clone(),
        Dependency::Source(source, table) => {
            let found = project.sources.iter().find(|s| s.source == *source && s.name == *table);
            found.unwrap().unique_id.clone()
        }
    };
    let reads = |depends_on: &[Dependency]| depends_on.iter().map(id).collect::<BTreeSet<String>>();
    let mut nodes = BTreeMap::new();
    for model in &project.models {
        let made = node(&model.fqn, &model.package, reads(&model.depends_on), &model.tags, config(model));
        assert!(nodes.insert(model.unique_id.clone(), made).is_none());
    }
    for test in &project.tests {
        let severity = format!("{:?}", test.severity).to_lowercase();
        let config = serde_json::json!({"severity": severity, "resolved": [test.config.audit.0, test.config.audit.1]});
        let made = node(&test.fqn, &test.package, reads(&test.depends_on), &test.tags, config);
        assert!(nodes.insert(test.unique_id.clone(), made).is_none());
    }
    for source in &project.sources {
        let made = node(&source.fqn, &source.package, BTreeSet::new(), &[], Value::Null);
        nodes.insert(source.unique_id.clone(), made);
    }
    nodes
}

fn config(model: &Model) -> Value {
    let mut config = serde_json::Map::new();
    let resolved = serde_json::json!([model.schema, model.alias, model.materialized.name()]);
    config.insert("resolved".into(), resolved);
    let kind = model.unique_id.split('.').next().unwrap();
    for key in CONFIGS {
        if let Some(value) = model.config.all.get(key).filter(|value| is_set(kind, key, value)) {
            config.insert(key.into(), value.clone());
        }
    }
    config.into()
}

#[test]
fn packages_come_from_repositories_at_the_commit_that_is_locked() {
    let sandbox = Sandbox::with(&[
        ("app/dbt_project.yml", "name: app\nprofile: app\n"),
        ("app/profiles.yml", "app: {outputs: {dev: {type: snowflake, schema: s}}}\n"),
        ("app/smelt.yml", "lake: ../lake\n"),
        ("app/packages.yml", "packages:\n  - git: ../shared\n    revision: main\n    subdirectory: dbt/tools\n"),
        ("app/models/a.sql", "select {{ tools.one() }} as x from {{ ref('tools', 'from_tools') }}\n"),
        ("shared/dbt/tools/dbt_project.yml", "name: tools\nprofile: app\n"),
        ("shared/dbt/tools/macros/one.sql", "{% macro one() %}1{% endmacro %}\n"),
        ("shared/dbt/tools/models/from_tools.sql", "select 'first' as v\n"),
    ]);
    let shared = sandbox.path().join("shared");
    let git = |args: &[&str]| {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"];
        let output = Command::new("git").args(identity).args(args).current_dir(&shared).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_string()
    };
    let commit = |message: &str| {
        git(&["add", "-A"]);
        git(&["commit", "--quiet", "-m", message]);
        git(&["rev-parse", "HEAD"])
    };
    git(&["init", "--quiet"]);
    let first = commit("first");
    let smelt = |args: &[&str]| sandbox.smelt(&[&["--project-dir", "app"], args].concat());

    smelt(&["deps"]).ok();
    let lock = || std::fs::read_to_string(sandbox.path().join("app/package-lock.yml")).unwrap();
    assert!(lock().contains(&first), "{}", lock());
    assert!(lock().contains("subdirectory: dbt/tools") && lock().contains("name: tools"), "{}", lock());
    smelt(&["compile"]).ok();

    sandbox.write("shared/dbt/tools/models/from_tools.sql", "select 'second' as v\n");
    let second = commit("second");
    smelt(&["deps"]).ok();
    let installed = sandbox.path().join("app/dbt_packages/tools/models/from_tools.sql");
    assert_eq!(std::fs::read_to_string(&installed).unwrap(), "select 'first' as v\n", "the lock decides");
    smelt(&["deps", "--upgrade"]).ok();
    assert!(lock().contains(&second), "{}", lock());
    assert_eq!(std::fs::read_to_string(&installed).unwrap(), "select 'second' as v\n");

    sandbox.write(
        "app/packages.yml",
        "packages:\n  - git: ../shared\n    revision: no-such-tag\n    subdirectory: dbt/tools\n",
    );
    smelt(&["deps"]).fails(2, "is there a branch, tag or commit `no-such-tag`?");
    sandbox.write("app/packages.yml", "packages:\n  - package: dbt-labs/dbt_utils\n    version: 1.3.0\n");
    smelt(&["deps"]).fails(2, "packages of the kind `package` cannot be installed").fails(2, "packages.yml:2");
    sandbox
        .write("app/packages.yml", "packages:\n  - git: ../shared\n    subdirectory: dbt/tools\n  - local: ../more\n");
    smelt(&["compile"]).fails(2, "1 of 2 packages are not installed");
}

/// The `dbt` of the environment for it.
fn dbt() -> Option<PathBuf> {
    let python = crate::python::python();
    let dbt = python.parent()?.parent()?.parent()?.join("dbt/bin/dbt");
    if dbt.exists() {
        return Some(dbt);
    }
    assert!(
        std::env::var_os("SMELT_REQUIRE_SERVICES").is_none_or(|v| v != "1"),
        "SMELT_REQUIRE_SERVICES=1, but {} is missing: run scripts/setup.sh test",
        dbt.display()
    );
    eprintln!("skipped: no {} (scripts/setup.sh test makes it)", dbt.display());
    None
}

fn run_dbt(dbt: &Path, sandbox: &Sandbox, args: &[&str]) {
    let output = Command::new(dbt)
        .args(args)
        .arg("--no-version-check")
        .current_dir(sandbox.path())
        .env("DBT_SEND_ANONYMOUS_USAGE_STATS", "false")
        .env("DBT_PROFILES_DIR", sandbox.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "dbt {args:?}:\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

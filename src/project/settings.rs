//! `smelt.yml`: the project's name, paths, variables, defaults per folder, and the target it runs on.
//!
//! Read in this order, because each step may use what the one before found: name and variables, the chosen target's name,
//! that target (its texts may contain Jinja; the other targets' are left alone, they may need variables this machine lacks),
//! then the rest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::config::{self, Level};
use super::jinja::{Dispatch, Engine, Globals, Scope};
use super::problems::{Problems, suggest};
use super::yaml::{self, Node, Text, Value};
use super::{Dialect, LoadOptions, Target, targets};
use crate::env::Env;
use crate::error::{Error, Result, Span};

/// The project file's possible names, in order of preference.
const FILES: [&str; 2] = ["smelt.yml", "smelt.yaml"];

/// `smelt.yml`, read.
pub(super) struct Settings {
    pub name: String,
    pub dialect: Dialect,
    pub model_paths: Vec<String>,
    pub property_paths: Vec<String>,
    pub macro_paths: Vec<String>,
    pub test_paths: Vec<String>,
    pub snapshot_paths: Vec<String>,
    pub seed_paths: Vec<String>,
    /// Where Markdown files with docs blocks are; empty: in all the others.
    pub docs_paths: Vec<String>,
    pub target: Target,
    pub default_schema: String,
    pub globals: Arc<Globals>,
    /// `models:` flattened: configuration per folder, outermost first.
    pub model_defaults: Vec<Level>,
    /// `snapshots:` likewise.
    pub snapshot_defaults: Vec<Level>,
    /// `seeds:` likewise.
    pub seed_defaults: Vec<Level>,
    /// `data_tests:` likewise.
    pub test_defaults: Vec<Level>,
    /// The project file, for problems that stand nowhere else.
    pub span: Span,
}

const KEYS: &[&str] = &[
    "name",
    "version",
    "config-version",
    "require-dbt-version",
    "dialect",
    "profile",
    "model-paths",
    "property-paths",
    "macro-paths",
    "test-paths",
    "seed-paths",
    "snapshot-paths",
    "analysis-paths",
    "docs-paths",
    "asset-paths",
    "clean-targets",
    "target-path",
    "vars",
    "models",
    "data_tests",
    "tests",
    "sources",
    "seeds",
    "snapshots",
    "target",
    "targets",
    "flags",
    "quoting",
];

const DIALECTS: &[(&str, Dialect)] = &[
    ("datafusion", Dialect::DataFusion),
    ("postgres", Dialect::Postgres),
    ("duckdb", Dialect::DuckDb),
    ("spark", Dialect::Spark),
    ("databricks", Dialect::Databricks),
    ("snowflake", Dialect::Snowflake),
];

/// Reads the project file of `options.dir`, which is absolute.
pub(super) fn read(options: &LoadOptions, env: &Env, p: &mut Problems) -> Result<Settings> {
    let text = project_file(&options.dir)?;
    let root = yaml::parse(&text)?;
    root.check_keys("smelt.yml", KEYS, p);
    let whole = text.span(0, 1);

    let name = match root.get("name") {
        Some(node) => node.text("name", p).unwrap_or_default(),
        None => {
            p.error("missing-name", whole.clone(), "smelt.yml has no `name`", "add a line: name: my_project");
            String::new()
        }
    };
    if let Some(node) = root.get("name")
        && node.as_str().is_some()
        && (name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')))
    {
        p.error("bad-name", node.span(), format!("`{name}` is no project name"), "use letters, digits and _");
    }
    let dialect = root.get("dialect").and_then(|n| n.choice("dialect", DIALECTS, p)).unwrap_or_default();

    let mut vars = BTreeMap::new();
    if let Some(node) = root.get("vars") {
        read_vars(node, &name, &mut vars, p);
    }
    vars.extend(options.vars.clone());

    let mut globals = Globals {
        project_name: name.clone(),
        package: name.clone(),
        vars,
        target: BTreeMap::new(),
        full_refresh: options.full_refresh,
        started_at: env.now_micros(),
        invocation_id: options.invocation_id.clone().unwrap_or_else(|| env.new_uuid().to_string()),
        env: env.clone(),
        env_overrides: BTreeMap::new(),
    };
    // Macros are not visible in YAML values, as in dbt.
    let engine = Engine::new(Vec::new(), Dispatch::default(), env, p);
    let chosen = choose_target(&root, options, &engine, &globals, p)?;
    globals.target.insert("name".to_string(), Json::from(chosen.name.as_str()));
    let scope = Scope::reading(&Arc::new(globals.clone()));
    let node = chosen.node.map(|n| engine.render_yaml(n, &[], &scope, p));
    let at = node.as_ref().map_or_else(|| whole.clone(), Node::span);
    let (target, default_schema) = targets::read(&chosen.name, node.as_ref(), &at, options, p);
    globals.target = targets::jinja_values(&target, &default_schema, &name);
    let globals = Arc::new(globals);

    let scope = Scope::reading(&globals);
    let defaults = |key: &str, p: &mut Problems| match root.get(key) {
        Some(node) => config::flatten(&engine.render_yaml(node, &[], &scope, p), p),
        None => Vec::new(),
    };
    let model_defaults = defaults("models", p);
    let snapshot_defaults = defaults("snapshots", p);
    let seed_defaults = defaults("seeds", p);
    let test_defaults = [defaults("tests", p), defaults("data_tests", p)].concat();
    let paths = |key: &str, default: &[&str], p: &mut Problems| match root.get(key) {
        Some(node) => engine.render_yaml(node, &[], &scope, p).texts(key, p).unwrap_or_default(),
        None => default.iter().map(ToString::to_string).collect(),
    };
    Ok(Settings {
        model_paths: paths("model-paths", &["queries"], p),
        property_paths: paths("property-paths", &["models"], p),
        macro_paths: paths("macro-paths", &["macros"], p),
        test_paths: paths("test-paths", &["queries/tests"], p),
        snapshot_paths: paths("snapshot-paths", &["snapshots"], p),
        seed_paths: paths("seed-paths", &["seeds"], p),
        docs_paths: paths("docs-paths", &[], p),
        name,
        dialect,
        target,
        default_schema,
        globals,
        model_defaults,
        snapshot_defaults,
        seed_defaults,
        test_defaults,
        span: whole,
    })
}

/// What `smelt clean` removes, as written in the project file, relative to the project; `None` where it says nothing.
/// Reads the project file only: a project whose models are broken can be cleaned.
pub fn clean_targets(dir: &Path) -> Result<Option<Vec<PathBuf>>> {
    let root = yaml::parse(&project_file(dir)?)?;
    let mut p = Problems::default();
    let Some(node) = root.get("clean-targets") else { return Ok(None) };
    let targets = node.texts("clean-targets", &mut p).unwrap_or_default();
    for target in &targets {
        let path = Path::new(target);
        let outside = path.is_absolute() || path.components().any(|c| matches!(c, std::path::Component::ParentDir));
        if outside || path.as_os_str().is_empty() || path == Path::new(".") {
            return Err(Error::user(
                "bad-path",
                format!("clean-targets: `{target}` is not a folder inside the project"),
            )
            .with_span(node.span())
            .with_hint("name folders relative to the project: clean-targets: [target]"));
        }
    }
    match p.errors.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(Some(targets.into_iter().map(PathBuf::from).collect())),
    }
}

fn project_file(dir: &Path) -> Result<Arc<Text>> {
    for name in FILES {
        match std::fs::read_to_string(dir.join(name)) {
            Ok(content) => return Ok(Text::new(name, content)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                return Err(Error::environment(
                    "unreadable-file",
                    format!("cannot read {}: {e}", dir.join(name).display()),
                )
                .permanent());
            }
        }
    }
    let error = Error::user("no-project", format!("no smelt.yml in {}", dir.display()));
    Err(error.with_hint("start one with `smelt init`, or name the folder with --project-dir"))
}

/// Variables: for everybody, and under the project's name, which win.
fn read_vars(node: &Node, project: &str, vars: &mut BTreeMap<String, Json>, p: &mut Problems) {
    let Value::Map(entries) = &node.value else {
        if !matches!(node.value, Value::Null) {
            p.error("wrong-type", node.span(), format!("`vars` must be a mapping, found {}", node.kind()), "");
        }
        return;
    };
    for entry in entries.iter().filter(|e| e.key != project) {
        vars.insert(entry.key.clone(), entry.value.json());
    }
    for entry in node.get(project).map_or(&[][..], Node::entries) {
        vars.insert(entry.key.clone(), entry.value.json());
    }
}

struct Chosen<'a> {
    name: String,
    node: Option<&'a Node>,
}

fn choose_target<'a>(
    root: &'a Node,
    options: &LoadOptions,
    engine: &Engine,
    globals: &Globals,
    p: &mut Problems,
) -> Result<Chosen<'a>> {
    let targets = root.get("targets");
    if let Some(node) = targets
        && !matches!(node.value, Value::Map(_) | Value::Null)
    {
        p.error("wrong-type", node.span(), format!("`targets` must be a mapping, found {}", node.kind()), "");
    }
    let entries = targets.map_or(&[][..], Node::entries);
    let written = root.get("target").and_then(|n| {
        let scope = Scope::reading(&Arc::new(globals.clone()));
        let node = engine.render_yaml(n, &[], &scope, p);
        Some((node.text("target", p)?, node.span()))
    });
    let name = match (&options.target, &written, entries) {
        (Some(name), _, _) => name.clone(),
        (None, Some((name, _)), _) => name.clone(),
        (None, None, [one]) => one.key.clone(),
        (None, None, []) => "dev".to_string(),
        (None, None, _) if targets.is_some_and(|t| t.get("dev").is_some()) => "dev".to_string(),
        (None, None, many) => {
            let names: Vec<&str> = many.iter().map(|e| e.key.as_str()).collect();
            let error = Error::user("no-target", "smelt.yml has several targets and none is chosen");
            return Err(error.with_hint(format!(
                "add `target: {}` or pass --target; targets: {}",
                names[0],
                names.join(", ")
            )));
        }
    };
    for entry in entries.iter().filter(|e| e.key != name) {
        targets::check_unchosen(&entry.value, p);
    }
    let node = entries.iter().find(|e| e.key == name).map(|e| &e.value);
    if node.is_none() && !(entries.is_empty() && options.target.is_none() && written.is_none()) {
        let hint = suggest(&name, entries.iter().map(|e| e.key.as_str()), "targets");
        let error = Error::user("unknown-target", format!("no target `{name}` in smelt.yml")).with_hint(hint);
        return Err(match (&options.target, written) {
            (None, Some((_, span))) => error.with_span(span),
            _ => error,
        });
    }
    Ok(Chosen { name, node })
}

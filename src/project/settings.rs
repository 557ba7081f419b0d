//! The project file: name, paths, variables, defaults per folder, and the target it runs on.
//!
//! `smelt.yml` alone makes a smelt project. With a `dbt_project.yml` everything has dbt's meaning and defaults, and a
//! `smelt.yml` beside it only says what dbt has no words for: targets, lake, connections, dialect. Each installed package is
//! read the same way and shares the root project's target.
//!
//! Read in this order, because each step may use what the one before found: name and variables, the chosen target's name,
//! that target (its texts may contain Jinja; the other targets' are left alone, they may need variables this machine lacks),
//! then the rest, then packages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::config::{self, Level};
use super::dbt_version;
use super::flags::ProjectFlags;
use super::jinja::{Dispatch, Engine, Globals, Scope};
use super::packages;
use super::problems::{Problems, suggest};
use super::profile::{self, Output, Profile};
use super::yaml::{self, Node, Text, Value};
use super::{Dialect, LoadOptions, Materialization, Target, targets};
use crate::env::Env;
use crate::error::{Error, Result, Span};

/// The project file's possible names, in order of preference.
const FILES: [&str; 2] = ["smelt.yml", "smelt.yaml"];
const DBT_FILE: &str = "dbt_project.yml";

/// Where tables of a dbt project go that says nothing about a lake.
const DEFAULT_LAKE: &str = "./lake";

/// The project, or one of its packages, read.
pub(super) struct Settings {
    pub name: String,
    /// The package's folder below the project's; empty for the project itself.
    pub folder: PathBuf,
    /// It has a `dbt_project.yml`: dbt's defaults and naming hold.
    pub is_dbt: bool,
    pub dialect: Dialect,
    pub model_paths: Vec<String>,
    pub property_paths: Vec<String>,
    pub macro_paths: Vec<String>,
    pub test_paths: Vec<String>,
    pub snapshot_paths: Vec<String>,
    pub seed_paths: Vec<String>,
    pub analysis_paths: Vec<String>,
    /// Where Markdown files with docs blocks are; empty: in all the others.
    pub docs_paths: Vec<String>,
    pub target: Target,
    pub default_schema: String,
    /// How a model is materialized that does not say it.
    pub materialized: Materialization,
    pub globals: Arc<Globals>,
    /// Its own configuration per folder, outermost first.
    pub defaults: Defaults,
    /// The root project's, which wins over everything a package says; empty for the project itself.
    pub overrides: Defaults,
    /// Of the root project.
    pub dispatch: Dispatch,
    /// `on-run-start` and `on-run-end`, as written: they are rendered when they run.
    pub hooks: [Option<Json>; 2],
    /// Of the root project.
    pub flags: ProjectFlags,
    /// The project file, for problems that stand nowhere else.
    pub span: Span,
}

/// Configuration per folder, by what it is for.
#[derive(Debug, Clone, Default)]
pub(super) struct Defaults {
    pub models: Vec<Level>,
    pub snapshots: Vec<Level>,
    pub seeds: Vec<Level>,
    pub sources: Vec<Level>,
    pub tests: Vec<Level>,
}

/// What both kinds of project file may say.
const KEYS: &[&str] = &[
    "name",
    "version",
    "config-version",
    "require-dbt-version",
    "profile",
    "model-paths",
    "macro-paths",
    "test-paths",
    "seed-paths",
    "snapshot-paths",
    "analysis-paths",
    "docs-paths",
    "asset-paths",
    "function-paths",
    "clean-targets",
    "target-path",
    "log-path",
    "packages-install-path",
    "vars",
    "models",
    "data_tests",
    "tests",
    "unit_tests",
    "sources",
    "seeds",
    "snapshots",
    "exposures",
    "metrics",
    "semantic-models",
    "saved-queries",
    "functions",
    "flags",
    "quoting",
    "dispatch",
    "on-run-start",
    "on-run-end",
    "query-comment",
    "restrict-access",
    "dbt-cloud",
    "sync",
];
/// Only in a smelt project's.
const SMELT_KEYS: &[&str] = &["dialect", "property-paths", "target", "targets"];
/// In a `smelt.yml` beside a `dbt_project.yml`.
const BESIDE_KEYS: &[&str] = &["name", "dialect", "target", "targets", "lake", "connections"];
/// dbt's old names of paths.
const RENAMED: &[(&str, &str)] =
    &[("source-paths", "model-paths"), ("data-paths", "seed-paths"), ("modules-path", "packages-install-path")];

const DIALECTS: &[(&str, Dialect)] = &[
    ("datafusion", Dialect::DataFusion),
    ("postgres", Dialect::Postgres),
    ("duckdb", Dialect::DuckDb),
    ("spark", Dialect::Spark),
    ("databricks", Dialect::Databricks),
    ("snowflake", Dialect::Snowflake),
];

/// Reads the project in `options.dir`, which is absolute, and its installed packages: the project first.
pub(super) fn read(options: &LoadOptions, env: &Env, p: &mut Problems) -> Result<Vec<Settings>> {
    let files = ProjectFiles::find(&options.dir)?;
    let root = yaml::parse(&files.project)?;
    let beside = files.beside.as_ref().map(yaml::parse).transpose()?;
    let is_dbt = files.is_dbt;
    check_keys(&root, is_dbt, p);
    if let Some(beside) = &beside {
        check_beside(beside, p);
    }
    let whole = files.project.span(0, 1);
    let name = project_name(&root, &whole, p);
    dbt_version::check(&root, &name, p);
    dbt_version::note(&root, p);
    let flags = super::flags::read(&root, p);

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
        answers: options.answers.clone(),
        which: if options.which.is_empty() { "run".to_string() } else { options.which.clone() },
        selected: options.selected.clone(),
        env_overrides: BTreeMap::new(),
    };
    // Macros are not visible in YAML values, as in dbt.
    let engine = Engine::new(Vec::new(), Dispatch::default(), env, p);
    let scope = Scope::reading(&Arc::new(globals.clone()));
    let profile = match root.get("profile").filter(|_| is_dbt) {
        None if is_dbt && beside.as_ref().is_none_or(|b| b.get("targets").is_none()) => {
            let message = format!("{DBT_FILE} names no profile");
            p.error("no-profile", whole.clone(), message, "add `profile: …`, or `targets:` in a smelt.yml beside it");
            None
        }
        None => None,
        Some(node) => {
            let required = beside.as_ref().is_none_or(|b| b.get("targets").is_none());
            profile::read(node, required, options, (&engine, &scope, env), p)?
        }
    };
    let own = beside.as_ref().unwrap_or(&root);
    let chosen = choose_target(own, profile.as_ref(), options, &engine, &globals, p)?;
    globals.target.insert("name".to_string(), Json::from(chosen.name.as_str()));
    let scope = Scope::reading(&Arc::new(globals.clone()));
    let output = chosen.output.map(|node| Output::read(node, &engine, &scope, p)).unwrap_or_default();
    let node = chosen.node.map(|n| engine.render_yaml(n, &[], &scope, p));
    let at = node.as_ref().map_or_else(|| whole.clone(), Node::span);
    let shared = Shared::read(beside.as_ref(), &engine, &scope, p);
    let lake = is_dbt.then(|| shared.lake.clone().unwrap_or_else(|| DEFAULT_LAKE.to_string()));
    let told = node.as_ref().is_some_and(|n| n.get("lake").is_some()) || shared.lake.is_some();
    if is_dbt && !told && options.lake.is_none() {
        p.warn(
            "default-lake",
            whole.clone(),
            format!("nothing says where tables go: they go to {DEFAULT_LAKE}"),
            "write smelt.yml beside it, with one line: `lake: ./lake`, or a URL; or pass --lake",
        );
    }
    let (mut target, schema) = targets::read(&chosen.name, node.as_ref(), &at, lake, options, p);
    for (name, connection) in shared.connections {
        target.connections.entry(name).or_insert(connection);
    }
    let default_schema =
        schema.or_else(|| output.schema.clone()).unwrap_or_else(|| targets::DEFAULT_SCHEMA.to_string());
    if let (Some(threads), None) = (output.threads, node.as_ref().and_then(|n| n.get("threads"))) {
        target.threads = threads;
    }
    globals.target = targets::jinja_values(&target, &default_schema, profile.as_ref().map_or(&name, |p| &p.name));
    globals.target.extend(output.values.clone());
    if let Some(database) = output.values.get("database").and_then(Json::as_str) {
        target.database = database.to_string();
    }
    globals.target.insert("database".to_string(), Json::from(target.database.as_str()));
    globals.target.insert("schema".to_string(), Json::from(default_schema.as_str()));
    globals.target.insert("threads".to_string(), Json::from(target.threads));

    let declared = own.get("dialect").and_then(|n| n.choice("dialect", DIALECTS, p));
    let dialect = declared.or_else(|| output.dialect()).unwrap_or_default();
    if let (Some(adapter), None, None) = (&output.adapter, output.dialect(), declared) {
        let message = format!("there is no dialect for `{adapter}`: models are read as `datafusion`");
        let hint = "write `dialect: …` in a smelt.yml beside dbt_project.yml";
        p.warn("unknown-dialect", chosen.output.map_or_else(|| whole.clone(), Node::span), message, hint);
    }
    let globals = Arc::new(globals);
    let scope = Scope::reading(&globals);
    let reader = Reader { engine: &engine, scope: &scope };
    let adapters = output.prefixes(dialect);
    let dispatch = Dispatch { orders: reader.search_orders(&root, p), adapters };
    let settings = Settings {
        name,
        folder: PathBuf::new(),
        is_dbt,
        dialect,
        target,
        default_schema,
        globals,
        overrides: Defaults::default(),
        dispatch,
        flags,
        span: whole,
        ..reader.settings(&root, is_dbt, Path::new(""), p)
    };
    let install = reader.texts(&root, "packages-install-path", &[packages::INSTALL_PATH], p).join("");
    let mut all = vec![settings];
    for folder in packages::installed(&options.dir, &install, &engine, &scope, p) {
        let package = package(&options.dir, &folder, &root, options, &all, &engine, p);
        all.extend(p.ok(package).flatten());
    }
    Ok(all)
}

/// The settings of an installed package.
fn package(
    dir: &Path,
    folder: &Path,
    root: &Node,
    options: &LoadOptions,
    read: &[Settings],
    engine: &Engine,
    p: &mut Problems,
) -> Result<Option<Settings>> {
    let Some(project) = read.first() else { return Ok(None) };
    let files = ProjectFiles::find_in(&dir.join(folder), folder)?;
    let node = yaml::parse(&files.project)?;
    check_keys(&node, files.is_dbt, p);
    let whole = files.project.span(0, 1);
    let name = project_name(&node, &whole, p);
    dbt_version::check(&node, &name, p);
    if let Some(first) = read.iter().find(|s| s.name == name) {
        let place = if first.folder.as_os_str().is_empty() { "the project itself" } else { "another package" };
        p.error("duplicate-package", whole, format!("{place} is named `{name}` too"), "remove one of them");
        return Ok(None);
    }
    let mut vars = BTreeMap::new();
    // The root project's word on a package's variables is the last.
    for node in [node.get("vars"), root.get("vars")].into_iter().flatten() {
        read_vars(node, &name, &mut vars, p);
    }
    vars.extend(options.vars.clone());
    let globals = Arc::new(Globals { package: name.clone(), vars, ..(*project.globals).clone() });
    let scope = Scope::reading(&globals);
    let reader = Reader { engine, scope: &scope };
    Ok(Some(Settings {
        name,
        folder: folder.to_path_buf(),
        is_dbt: files.is_dbt,
        dialect: project.dialect,
        target: project.target.clone(),
        default_schema: project.default_schema.clone(),
        globals,
        overrides: project.defaults.clone(),
        dispatch: project.dispatch.clone(),
        span: whole,
        ..reader.settings(&node, files.is_dbt, folder, p)
    }))
}

/// The files a project is described by.
struct ProjectFiles {
    project: Arc<Text>,
    is_dbt: bool,
    /// `smelt.yml` beside a `dbt_project.yml`.
    beside: Option<Arc<Text>>,
}

impl ProjectFiles {
    fn find(dir: &Path) -> Result<Self> {
        Self::find_in(dir, Path::new(""))
    }

    /// The files in `dir`, which messages name by `shown`.
    fn find_in(dir: &Path, shown: &Path) -> Result<Self> {
        let mut own = None;
        for name in FILES {
            own = own.or(project_text(dir, shown, name)?);
        }
        match (project_text(dir, shown, DBT_FILE)?, own) {
            (Some(project), beside) => Ok(ProjectFiles { project, is_dbt: true, beside }),
            (None, Some(project)) => Ok(ProjectFiles { project, is_dbt: false, beside: None }),
            (None, None) => {
                let message = format!("no smelt.yml or {DBT_FILE} in {}", dir.display());
                let hint = "start one with `smelt init`, or name the folder with --project-dir";
                Err(Error::user("no-project", message).with_hint(hint))
            }
        }
    }
}

/// Hooks of a project file: SQL, a list of it, or mappings with `sql`.
fn hooks(key: &str, node: &Node, p: &mut Problems) -> Json {
    let json = node.json();
    config::check_hooks(key, &json, &node.span(), p);
    json
}

/// Whether a file, as messages name it, describes a project rather than what is in it.
pub(super) fn is_project_file(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    FILES.contains(&&*name) || matches!(&*name, DBT_FILE | "profiles.yml" | "selectors.yml")
}

fn project_text(dir: &Path, shown: &Path, name: &str) -> Result<Option<Arc<Text>>> {
    match std::fs::read_to_string(dir.join(name)) {
        Ok(content) => Ok(Some(Text::new(shown.join(name), content))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => {
            let message = format!("cannot read {}: {e}", dir.join(name).display());
            Err(Error::environment("unreadable-file", message).permanent())
        }
    }
}

fn check_keys(root: &Node, is_dbt: bool, p: &mut Problems) {
    for (old, new) in RENAMED.iter().filter(|_| is_dbt) {
        if let Some(node) = root.get(old) {
            let message = format!("`{old}` is called `{new}` since dbt 1.0");
            p.warn("renamed-key", node.span(), message, format!("write `{new}:`"));
        }
    }
    if is_dbt {
        let renamed: Vec<&str> = RENAMED.iter().map(|(old, _)| *old).collect();
        root.check_keys(DBT_FILE, &[KEYS, &renamed].concat(), p);
    } else {
        root.check_keys("smelt.yml", &[KEYS, SMELT_KEYS].concat(), p);
    }
}

fn check_beside(beside: &Node, p: &mut Problems) {
    for entry in beside.entries() {
        if KEYS.contains(&entry.key.as_str()) && !BESIDE_KEYS.contains(&entry.key.as_str()) {
            p.error(
                "unknown-key",
                beside.span_of(entry.key_mark),
                format!("`{}` belongs into {DBT_FILE}, which is beside this file", entry.key),
                format!("here may stand: {}", BESIDE_KEYS.join(", ")),
            );
        }
    }
    let known = [KEYS, BESIDE_KEYS].concat();
    beside.check_keys("smelt.yml", &known, p);
}

fn project_name(root: &Node, whole: &Span, p: &mut Problems) -> String {
    let file = whole.file.file_name().unwrap_or_default().to_string_lossy();
    let name = match root.get("name") {
        Some(node) => node.text("name", p).unwrap_or_default(),
        None => {
            p.error("missing-name", whole.clone(), format!("{file} has no `name`"), "add a line: name: my_project");
            String::new()
        }
    };
    if let Some(node) = root.get("name")
        && node.as_str().is_some()
        && (name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')))
    {
        p.error("bad-name", node.span(), format!("`{name}` is no project name"), "use letters, digits and _");
    }
    name
}

/// What a `smelt.yml` beside a `dbt_project.yml` says for all targets.
#[derive(Default)]
struct Shared {
    lake: Option<String>,
    connections: BTreeMap<String, super::Connection>,
}

impl Shared {
    fn read(beside: Option<&Node>, engine: &Engine, scope: &Arc<Scope>, p: &mut Problems) -> Self {
        let Some(beside) = beside else { return Shared::default() };
        let lake = beside.get("lake").and_then(|n| engine.render_yaml(n, &[], scope, p).text("lake", p));
        let connections = beside.get("connections").map(|n| engine.render_yaml(n, &[], scope, p));
        let connections = connections.map(|n| targets::read_connections(&n, p)).unwrap_or_default();
        Shared { lake, connections }
    }
}

/// Reads the parts of a project file that are alike in projects and packages.
struct Reader<'a> {
    engine: &'a Engine,
    scope: &'a Arc<Scope>,
}

impl Reader<'_> {
    /// Paths and configuration of a project in `folder`; everything else is the caller's.
    fn settings(&self, root: &Node, is_dbt: bool, folder: &Path, p: &mut Problems) -> Settings {
        let paths = |key: &str, smelt: &[&str], dbt: &[&str], p: &mut Problems| -> Vec<String> {
            let paths = self.texts(root, key, if is_dbt { dbt } else { smelt }, p);
            match folder.as_os_str().is_empty() {
                true => paths,
                false => paths.iter().map(|path| format!("{}/{path}", folder.display())).collect(),
            }
        };
        let defaults = |key: &str, p: &mut Problems| match root.get(key) {
            Some(node) => {
                let known = if key == "sources" { super::sources::CONFIG_KEYS } else { config::MODEL_KEYS };
                config::flatten(&self.engine.render_yaml(node, config::HOOK_KEYS, self.scope, p), known, p)
            }
            None => Vec::new(),
        };
        Settings {
            model_paths: paths("model-paths", &["queries"], &["models"], p),
            property_paths: paths("property-paths", &["models"], &[], p),
            macro_paths: paths("macro-paths", &["macros"], &["macros"], p),
            test_paths: paths("test-paths", &["queries/tests"], &["tests"], p),
            snapshot_paths: paths("snapshot-paths", &["snapshots"], &["snapshots"], p),
            seed_paths: paths("seed-paths", &["seeds"], &["seeds"], p),
            analysis_paths: paths("analysis-paths", &["analyses"], &["analyses"], p),
            docs_paths: paths("docs-paths", &[], &[], p),
            materialized: if is_dbt { Materialization::View } else { Materialization::MaterializedView },
            defaults: Defaults {
                models: defaults("models", p),
                snapshots: defaults("snapshots", p),
                seeds: defaults("seeds", p),
                sources: defaults("sources", p),
                tests: [defaults("tests", p), defaults("data_tests", p)].concat(),
            },
            name: String::new(),
            folder: PathBuf::new(),
            is_dbt,
            dialect: Dialect::default(),
            target: targets::nowhere(""),
            default_schema: String::new(),
            globals: Arc::clone(&self.scope.globals),
            overrides: Defaults::default(),
            dispatch: Dispatch::default(),
            hooks: ["on-run-start", "on-run-end"].map(|key| root.get(key).map(|node| hooks(key, node, p))),
            flags: ProjectFlags::default(),
            span: root.span(),
        }
    }

    fn texts(&self, root: &Node, key: &str, default: &[&str], p: &mut Problems) -> Vec<String> {
        let renamed = RENAMED.iter().find(|(_, new)| *new == key).and_then(|(old, _)| root.get(old));
        match root.get(key).or(renamed) {
            Some(node) => self.engine.render_yaml(node, &[], self.scope, p).texts(key, p).unwrap_or_default(),
            None => default.iter().map(ToString::to_string).collect(),
        }
    }

    /// `dispatch: [{macro_namespace: dbt_utils, search_order: [my_project, dbt_utils]}]`
    fn search_orders(&self, root: &Node, p: &mut Problems) -> BTreeMap<String, Vec<String>> {
        let Some(node) = root.get("dispatch") else { return BTreeMap::new() };
        let node = self.engine.render_yaml(node, &[], self.scope, p);
        let mut orders = BTreeMap::new();
        for item in node.items("dispatch", p) {
            if !item.check_keys("an item of `dispatch`", &["macro_namespace", "search_order"], p) {
                continue;
            }
            let namespace = item.get("macro_namespace").and_then(|n| n.text("macro_namespace", p));
            let order = item.get("search_order").and_then(|n| n.texts("search_order", p));
            match (namespace, order) {
                (Some(namespace), Some(order)) => {
                    orders.insert(namespace, order);
                }
                _ => p.error(
                    "bad-dispatch",
                    item.span(),
                    "an item of `dispatch` needs `macro_namespace` and `search_order`",
                    "write - {macro_namespace: dbt_utils, search_order: [my_project, dbt_utils]}",
                ),
            }
        }
        orders
    }
}

/// The project file of a folder, parsed.
pub(super) fn project_node(dir: &Path) -> Result<Node> {
    yaml::parse(&ProjectFiles::find(dir)?.project)
}

/// What `smelt clean` removes, as written in the project file, relative to the project; `None` where it says nothing.
/// Reads the project file only: a project whose models are broken can be cleaned.
pub fn clean_targets(dir: &Path) -> Result<Option<Vec<PathBuf>>> {
    let root = project_node(dir)?;
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
    /// The entry of `targets:` in smelt.yml.
    node: Option<&'a Node>,
    /// The output of the profile.
    output: Option<&'a Node>,
}

fn choose_target<'a>(
    root: &'a Node,
    profile: Option<&'a Profile>,
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
    let outputs = profile.map_or(&[][..], |profile| profile.outputs.entries());
    let written = root.get("target").and_then(|n| {
        let scope = Scope::reading(&Arc::new(globals.clone()));
        let node = engine.render_yaml(n, &[], &scope, p);
        Some((node.text("target", p)?, node.span()))
    });
    let of_profile = profile.and_then(|profile| profile.target.clone());
    let name = match (&options.target, &written, of_profile, entries, outputs) {
        (Some(name), ..) => name.clone(),
        (None, Some((name, _)), ..) => name.clone(),
        (None, None, Some(name), ..) => name,
        (None, None, None, _, [one]) | (None, None, None, [one], []) => one.key.clone(),
        (None, None, None, [], _) if profile.is_some() => "default".to_string(),
        (None, None, None, [], _) => "dev".to_string(),
        _ if targets.is_some_and(|t| t.get("dev").is_some()) => "dev".to_string(),
        (.., many, _) => {
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
    let find = |entries: &'a [yaml::Entry]| entries.iter().find(|e| e.key == name).map(|e| &e.value);
    let (node, output) = (find(entries), find(outputs));
    let none_there = entries.is_empty() && outputs.is_empty() && profile.is_none();
    if node.is_none() && output.is_none() && !(none_there && options.target.is_none() && written.is_none()) {
        let hint = suggest(&name, entries.iter().chain(outputs).map(|e| e.key.as_str()), "targets");
        let place = match profile {
            Some(profile) => format!("profile `{}`", profile.name),
            None => "smelt.yml".to_string(),
        };
        let error = Error::user("unknown-target", format!("no target `{name}` in {place}")).with_hint(hint);
        return Err(match (&options.target, written) {
            (None, Some((_, span))) => error.with_span(span),
            _ => error,
        });
    }
    Ok(Chosen { name, node, output })
}

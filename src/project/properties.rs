//! Properties files (`models/*.yml`): sources, and what is said about models beside their SQL.

use super::config::{self, RawConfig};
use super::docs_blocks::DocsBlocks;
use super::jinja::{Engine, Scope};
use super::problems::Problems;
use super::sources::{self, DeclaredTable, named};
use super::unit_tests;
use super::yaml::{self, Node, Text, Value};
use super::{Column, Expectation, OnViolation, Target};
use crate::error::Span;
use std::path::Path;
use std::sync::Arc;

const FILE_KEYS: &[&str] = &[
    "version",
    "sources",
    "models",
    "exposures",
    "macros",
    "groups",
    "data_tests",
    "tests",
    "snapshots",
    "seeds",
    "exports",
    "analyses",
    "metrics",
    "semantic_models",
    "saved_queries",
    "unit_tests",
    "docs",
    "anchors",
    "functions",
];
/// Declared by the design, built by a later version.
const LATER: &[&str] = &["exports"];

const MODEL_KEYS: &[&str] = &[
    "name",
    "description",
    "config",
    "expectations",
    "columns",
    "data_tests",
    "tests",
    "tags",
    "docs",
    "access",
    "group",
    "constraints",
    "latest_version",
    "versions",
    "deprecation_date",
    "freshness",
    "time_spine",
];

const ON_VIOLATION: &[(&str, OnViolation)] = &[
    ("warn", OnViolation::Warn),
    ("drop", OnViolation::Drop),
    ("fail", OnViolation::Fail),
    ("quarantine", OnViolation::Quarantine),
];

/// Texts that are not Jinja, or are rendered where they are used.
const UNRENDERED: &[&str] =
    &["description", "data_tests", "tests", "unit_tests", "expect", "pre_hook", "pre-hook", "post_hook", "post-hook"];

/// What a properties file says about one model or snapshot.
#[derive(Debug, Clone)]
pub(super) struct ModelProperties {
    pub name: String,
    pub span: Span,
    pub description: Option<String>,
    pub config: RawConfig,
    pub expectations: Vec<(Expectation, Node)>,
    pub columns: Vec<Column>,
    /// The entry, for its data tests.
    pub node: Node,
    /// `relation:` of a snapshot that is declared here.
    pub relation: Option<Node>,
}

/// Whom a properties file belongs to.
pub(super) struct Owner<'a> {
    /// `[package, folder, …]`: where the file stands.
    pub prefix: &'a [String],
    pub target: &'a Target,
    /// What relative paths of files start from.
    pub dir: &'a Path,
    /// `sources:` of the package's project file, and of the root project's.
    pub defaults: [&'a [config::Level]; 2],
}

/// All properties files together.
#[derive(Debug, Default)]
pub(super) struct Properties {
    pub sources: Vec<DeclaredTable>,
    pub models: Vec<ModelProperties>,
    pub snapshots: Vec<ModelProperties>,
    pub seeds: Vec<ModelProperties>,
    pub unit_tests: Vec<unit_tests::Declared>,
    /// Configuration of singular tests, by name.
    pub tests: Vec<(String, RawConfig)>,
    /// What `doc()` in descriptions means.
    pub docs: DocsBlocks,
    /// Entries of `exposures:`, `groups:` and `macros:`: read when names are known.
    pub exposures: Vec<Node>,
    pub groups: Vec<Node>,
    pub macros: Vec<Node>,
}

impl Properties {
    /// Reads one file into this.
    pub fn read(&mut self, text: &Arc<Text>, owner: &Owner<'_>, engine: &Engine, scope: &Arc<Scope>, p: &mut Problems) {
        let Some(root) = p.ok(yaml::parse(text)) else { return };
        if matches!(root.value, Value::Null) || !root.check_keys("a properties file", FILE_KEYS, p) {
            return;
        }
        let root = self.docs.resolve(engine.render_yaml(&root, UNRENDERED, scope, p), p);
        if let Some(version) = root.get("version")
            && !matches!(version.value, Value::Int(2))
        {
            p.error(
                "bad-version",
                version.span(),
                format!("properties file version {} is unknown", version.shown()),
                "write version: 2",
            );
        }
        for key in LATER {
            if let Some(node) = root.get(key).filter(|n| !matches!(n.value, Value::Null)) {
                p.warn("ignored", node.span(), format!("`{key}` has no effect in this version of smelt"), "");
            }
        }
        for source in list(&root, "sources", p) {
            self.sources.extend(sources::read(source, owner, p));
        }
        for model in list(&root, "models", p) {
            if let Some(model) = read_model(model, "a model", MODEL_KEYS, p) {
                add("model", &mut self.models, model, p);
            }
        }
        let snapshot_keys = [MODEL_KEYS, &["relation"]].concat();
        for snapshot in list(&root, "snapshots", p) {
            if let Some(snapshot) = read_model(snapshot, "a snapshot", &snapshot_keys, p) {
                add("snapshot", &mut self.snapshots, snapshot, p);
            }
        }
        for seed in list(&root, "seeds", p) {
            if let Some(seed) = read_model(seed, "a seed", MODEL_KEYS, p) {
                add("seed", &mut self.seeds, seed, p);
            }
        }
        let package = owner.prefix.first().map_or("", String::as_str);
        self.unit_tests.extend(unit_tests::declared(&root, package, p));
        self.exposures.extend_from_slice(list(&root, "exposures", p));
        self.groups.extend_from_slice(list(&root, "groups", p));
        self.macros.extend_from_slice(list(&root, "macros", p));
        for key in ["data_tests", "tests"] {
            for test in list(&root, key, p) {
                if test.check_keys("a data test", &["name", "description", "config"], p)
                    && let Some(name) = named(test, "a data test", p)
                {
                    let config = test
                        .get("config")
                        .map(|n| config::read(n, super::data_tests::CONFIG_KEYS, p))
                        .unwrap_or_default();
                    self.tests.push((name, config));
                }
            }
        }
    }
}

fn add(kind: &str, known: &mut Vec<ModelProperties>, new: ModelProperties, p: &mut Problems) {
    match known.iter().find(|m| m.name.eq_ignore_ascii_case(&new.name)) {
        Some(first) => {
            let message = format!("{kind} `{}` has properties twice", new.name);
            p.error(
                "duplicate-properties",
                new.span,
                message,
                format!("they are also at {}:{}: merge them", first.span.file.display(), first.span.line),
            );
        }
        None => known.push(new),
    }
}

fn list<'a>(root: &'a Node, key: &str, p: &mut Problems) -> &'a [Node] {
    root.get(key).map_or(&[][..], |n| n.items(key, p))
}

fn read_model(node: &Node, what: &str, keys: &[&str], p: &mut Problems) -> Option<ModelProperties> {
    if !node.check_keys(what, keys, p) {
        return None;
    }
    let name = named(node, what, p)?;
    let mut config = RawConfig::new();
    // Older dbt files say these beside `config:`.
    for key in ["tags", "meta", "group", "access"] {
        if let Some(value) = node.get(key) {
            config.insert(key.to_string(), config::Setting::of(value));
        }
    }
    if let Some(own) = node.get("config") {
        config::merge(&mut config, &config::read_model(own, p));
    }
    Some(ModelProperties {
        name,
        span: node.get("name").unwrap_or(node).span(),
        description: node.get("description").and_then(|n| n.text("description", p)),
        config,
        expectations: expectations(node, p),
        columns: sources::columns(node.get("columns"), false, p),
        node: node.clone(),
        relation: node.get("relation").cloned(),
    })
}

fn expectations(node: &Node, p: &mut Problems) -> Vec<(Expectation, Node)> {
    let mut all: Vec<(Expectation, Node)> = Vec::new();
    for item in list(node, "expectations", p) {
        if !item.check_keys("an expectation", &["name", "expect", "on_violation", "description"], p) {
            continue;
        }
        let Some(name) = named(item, "an expectation", p) else { continue };
        let Some(expect) = item.get("expect") else {
            p.error(
                "missing-expect",
                item.span(),
                format!("expectation `{name}` has no `expect`"),
                "add expect: amount >= 0",
            );
            continue;
        };
        if all.iter().any(|(e, _)| e.name == name) {
            let span = item.get("name").unwrap_or(item).span();
            p.error(
                "duplicate-expectation",
                span,
                format!("expectation `{name}` is declared twice"),
                "give each its own name",
            );
            continue;
        }
        let on_violation = item
            .get("on_violation")
            .and_then(|n| n.choice("on_violation", ON_VIOLATION, p))
            .unwrap_or(OnViolation::Warn);
        if let Some(text) = expect.text("expect", p) {
            all.push((Expectation { name, expect: text, on_violation, span: expect.span() }, expect.clone()));
        }
    }
    all
}

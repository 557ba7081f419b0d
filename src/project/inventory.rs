//! What a project says of itself beyond what runs: descriptions' blocks, macros, exposures, groups, and every entry of
//! properties files as written. Artifacts and the documentation are made of it; nothing here changes a table.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value as Json;

use super::{Dependency, Materialization};

/// Everything of that kind in a project.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Calls of `ref` in models' templates as they are written, (package, name), by unique id.
    pub refs: BTreeMap<String, Vec<(Option<String>, String)>>,
    /// Entries of `models:` and `snapshots:`, by the model's name in lower case.
    pub models: BTreeMap<String, Declared>,
    /// Entries of `sources:`, by (source, table).
    pub sources: BTreeMap<(String, String), DeclaredSource>,
    /// In the order of files.
    pub macros: Vec<MacroDefinition>,
    pub docs: Vec<DocsBlock>,
    pub exposures: Vec<Exposure>,
    pub groups: Vec<Group>,
    /// Hooks of the projects, and analyses.
    pub plain: Vec<PlainNode>,
    /// Models and snapshots with `enabled: false`.
    pub disabled: Vec<DisabledModel>,
}

impl Inventory {
    /// Adds what a package has; names are unique over all of them.
    pub(super) fn extend(&mut self, more: Inventory) {
        self.refs.extend(more.refs);
        self.models.extend(more.models);
        self.sources.extend(more.sources);
        self.macros.extend(more.macros);
        self.docs.extend(more.docs);
        self.exposures.extend(more.exposures);
        self.groups.extend(more.groups);
        self.plain.extend(more.plain);
        self.disabled.extend(more.disabled);
    }
}

/// An entry of a properties file: its Jinja is rendered, `doc()` in descriptions is resolved.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    /// Relative to the project.
    pub path: PathBuf,
    pub entry: Json,
}

/// A table of a source, with the source's own entry.
#[derive(Debug, Clone, Default)]
pub struct DeclaredSource {
    pub path: PathBuf,
    pub table: Json,
    pub source: Json,
    /// What project files say of its folders: its package's, and the root project's of a package.
    pub folders: [Json; 2],
    /// `config:` of both as it is written, the table's over the source's, and the folders'.
    pub written: serde_json::Map<String, Json>,
}

impl DeclaredSource {
    /// Tags of the source and of the table, in that order.
    pub fn tags(&self) -> Vec<String> {
        let config = |entry: &Json| entry.get("config").and_then(|c| c.get("tags")).cloned();
        let above = config(&self.source).or_else(|| self.source.get("tags").cloned());
        let mut tags: Vec<String> = Vec::new();
        let [below, over] = [0, 1].map(|i: usize| self.folders[i].get("tags").cloned());
        let own = [above, self.table.get("tags").cloned(), config(&self.table)];
        for written in [below].into_iter().chain(own).chain([over]).flatten() {
            let written = match written {
                Json::Array(items) => items,
                one => vec![one],
            };
            for tag in written.iter().filter_map(Json::as_str) {
                if !tags.iter().any(|t| t == tag) {
                    tags.push(tag.to_string());
                }
            }
        }
        tags
    }

    /// `config:` of the table over that of its source, between what project files say.
    pub fn config(&self) -> serde_json::Map<String, Json> {
        let of = |entry: &Json| entry.get("config").and_then(Json::as_object).cloned().unwrap_or_default();
        let folders = |i: usize| self.folders[i].as_object().cloned().unwrap_or_default();
        folders(0).into_iter().chain(of(&self.source)).chain(of(&self.table)).chain(folders(1)).collect()
    }
}

/// `{% macro name(…) %}` or `{% test name(…) %}`.
#[derive(Debug, Clone)]
pub struct MacroDefinition {
    /// `cents`, or `test_positive` for a test.
    pub name: String,
    /// The project or package that defines it.
    pub package: String,
    pub path: PathBuf,
    /// From the opening tag to the end tag.
    pub sql: String,
    /// Names in its signature.
    pub arguments: Vec<String>,
    /// Its entry in `macros:`.
    pub declared: Option<Declared>,
}

/// `{% docs name %} … {% enddocs %}` in a Markdown file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocsBlock {
    pub name: String,
    pub path: PathBuf,
    pub text: String,
}

/// Something outside that uses models: a dashboard, a notebook, an application.
#[derive(Debug, Clone)]
pub struct Exposure {
    pub name: String,
    /// `exposure.<package>.<name>`.
    pub unique_id: String,
    pub package: String,
    /// `[package, folder, …, name]`.
    pub fqn: Vec<String>,
    pub path: PathBuf,
    /// `dashboard`, `notebook`, `analysis`, `ml` or `application`.
    pub kind: &'static str,
    pub label: Option<String>,
    /// `high`, `medium` or `low`.
    pub maturity: Option<&'static str>,
    pub url: Option<String>,
    pub description: String,
    /// `name`, `email`, and what else is said.
    pub owner: Json,
    pub depends_on: Vec<Dependency>,
    pub tags: Vec<String>,
    pub meta: Json,
    pub config: Json,
}

/// Who owns models.
#[derive(Debug, Clone)]
pub struct Group {
    pub name: String,
    pub path: PathBuf,
    pub description: Option<String>,
    pub owner: Json,
    pub config: Json,
}

/// A node that makes no table: a hook of a project (`operation`), or an `analysis`.
#[derive(Debug, Clone, Default)]
pub struct PlainNode {
    pub name: String,
    /// `operation.shop.shop-on-run-start-0`, `analysis.shop.look`.
    pub unique_id: String,
    pub resource_type: &'static str,
    pub package: String,
    pub fqn: Vec<String>,
    /// Where its text would stand in a folder of its kind.
    pub path: PathBuf,
    /// The file that it is written in.
    pub file: PathBuf,
    pub schema: String,
    pub raw: String,
    /// Of an analysis whose template needs no answer.
    pub sql: Option<String>,
    pub depends_on: Vec<Dependency>,
    pub tags: Vec<String>,
    pub config: BTreeMap<String, Json>,
    /// Of a hook: its place among those of its point, from 0.
    pub index: Option<usize>,
}

/// A model that does not take part.
#[derive(Debug, Clone)]
pub struct DisabledModel {
    pub name: String,
    pub fqn: Vec<String>,
    pub path: PathBuf,
    pub materialized: Materialization,
    pub schema: String,
    pub alias: String,
    pub raw: Arc<str>,
    pub tags: Vec<String>,
    pub config: BTreeMap<String, Json>,
}

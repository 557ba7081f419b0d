//! Nodes of the manifest: models, snapshots, seeds, and data tests.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use regex::Regex;
use serde_json::{Map, Value as Json, json};

use super::compiled::{inside, model_path, test_path};
use super::manifest::{call_finder, macro_id, relation_name, slashes};
use super::{Invocation, node_config};
use crate::project::{
    DataTest, Declared, Deferred, Dependency, DisabledModel, Model, OnViolation, Project, TestMetadata,
};

/// What is needed to write any node of one project.
pub(super) struct Writer<'a> {
    pub project: &'a Project,
    /// Seconds since 1970.
    pub created_at: f64,
    /// Unique ids of models by name.
    ids: HashMap<&'a str, &'a str>,
    /// Unique ids of source tables by (source, table).
    sources: HashMap<(&'a str, &'a str), &'a str>,
    calls: Option<Regex>,
    /// Columns of each model that a `unique` and a `not_null` test both stand on.
    keys: HashMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Writer<'a> {
    pub fn new(project: &'a Project, invocation: &Invocation) -> Self {
        Writer {
            project,
            created_at: invocation.started_at as f64 / 1e6,
            ids: project.models.iter().map(|m| (m.name.as_str(), m.unique_id.as_str())).collect(),
            sources: project
                .sources
                .iter()
                .map(|s| ((s.source.as_str(), s.name.as_str()), s.unique_id.as_str()))
                .collect(),
            calls: call_finder(project),
            keys: keys(project),
        }
    }

    /// Every enabled node by its id.
    pub fn nodes(&self) -> BTreeMap<String, Json> {
        let models = self.project.models.iter().map(|m| (m.unique_id.clone(), self.model(m)));
        let tests = self.project.tests.iter().map(|t| (t.unique_id.clone(), self.test(t)));
        let plain = self.project.inventory.plain.iter().map(|node| (node.unique_id.clone(), self.plain(node)));
        models.chain(tests).chain(plain).collect()
    }

    /// Models that take no part, by id.
    pub fn disabled(&self) -> BTreeMap<String, Vec<Json>> {
        let mut all: BTreeMap<String, Vec<Json>> = BTreeMap::new();
        for model in &self.project.inventory.disabled {
            let node = self.disabled_model(model);
            all.entry(node["unique_id"].as_str().unwrap_or_default().to_string()).or_default().push(node);
        }
        all
    }

    /// Unique ids of what is read.
    pub fn node_ids(&self, depends_on: &[Dependency]) -> Vec<String> {
        let id = |dependency: &Dependency| match dependency {
            Dependency::Model(name) => self.ids.get(name.as_str()).map(ToString::to_string),
            Dependency::Source(source, table) => {
                self.sources.get(&(source.as_str(), table.as_str())).map(ToString::to_string)
            }
        };
        depends_on.iter().filter_map(id).collect()
    }

    /// Ids of the project's macros that a text calls, each once, by name.
    pub fn called_macros(&self, jinja: &str, but: Option<&str>) -> Vec<String> {
        let Some(calls) = &self.calls else { return Vec::new() };
        let names: BTreeSet<&str> =
            calls.captures_iter(jinja).filter_map(|c| Some(c.get(1)?.as_str())).filter(|n| Some(*n) != but).collect();
        // The project's own macro is found first, as when it is called.
        let defined = |name: &&str| self.project.inventory.macros.iter().find(|m| m.name == **name);
        names.iter().filter_map(defined).map(macro_id).collect()
    }

    fn declared(&self, model: &str) -> Option<&'a Declared> {
        self.project.inventory.models.get(&model.to_lowercase())
    }

    fn model(&self, model: &Model) -> Json {
        let resource = model.unique_id.split('.').next().unwrap_or("model");
        let none = Declared::default();
        let declared = self.declared(&model.name);
        let entry = &declared.unwrap_or(&none).entry;
        let raw = raw_code(model);
        let config = node_config::model(model, entry, resource);
        let (mut refs, sources) = mentions(self.project, &model.depends_on);
        if let Some(written) = self.project.inventory.refs.get(&model.unique_id) {
            let one =
                |(package, name): &(Option<String>, String)| json!({"name": name, "package": package, "version": null});
            refs = written.iter().map(one).collect();
        }
        let mut meta = object(config.get("meta"));
        let own = own_facts(model);
        if !own.is_empty() {
            let mut smelt = object(meta.get("smelt"));
            smelt.extend(own);
            meta.insert("smelt".to_string(), smelt.into());
        }
        let has_relation = model.materialized.name() != "ephemeral";
        let mut node = json!({
            "database": null,
            "schema": model.schema,
            "name": model.own_name(),
            "resource_type": resource,
            "package_name": model.package,
            "path": below(&model.fqn, &model.path),
            "original_file_path": own_path(self.project, &model.package, &model.path),
            "unique_id": model.unique_id,
            "fqn": model.fqn,
            "alias": model.alias,
            "checksum": checksum(&raw),
            "config": config,
            "tags": model.tags,
            "description": model.description.clone().unwrap_or_default(),
            "columns": columns(entry.get("columns")),
            "meta": meta,
            "group": config.get("group"),
            "docs": docs(config.get("docs")),
            "patch_path": declared.map(|d| patch_path(self.project, &model.package, &d.path)),
            "build_path": null,
            "unrendered_config": model.config.written,
            "created_at": self.created_at,
            "relation_name": has_relation.then(|| relation_name(self.project, &model.schema, &model.alias)),
            "raw_code": raw,
            "depends_on": {"macros": self.called_macros(&raw, None), "nodes": self.node_ids(&model.depends_on)},
        });
        if let Some(table) = &model.deferred {
            node["defer_relation"] = defer_relation(self.project, model, resource, table);
        }
        if resource == "seed" {
            if let Some(file) = &model.seed {
                node["checksum"] = json!({"name": "sha256", "checksum": file.dbt_checksum});
            }
            node["raw_code"] = "".into();
            node["root_path"] = self.project.dir.to_string_lossy().into();
            node["depends_on"] = json!({"macros": []});
            return node;
        }
        extend(
            &mut node,
            json!({
                "language": "sql",
                "refs": refs,
                "sources": sources,
                "metrics": [],
                "compiled_path": slashes(&Path::new("target/compiled").join(inside(&model_path(model)))),
                "compiled": true,
                "compiled_code": model.sql,
                "extra_ctes_injected": true,
                "extra_ctes": [],
                "contract": contract(&config),
            }),
        );
        if resource == "model" {
            let keys = self.keys.get(model.name.as_str()).cloned().unwrap_or_default();
            extend(
                &mut node,
                json!({
                    "access": config.get("access"),
                    "constraints": constraints(entry.get("constraints"), true),
                    "version": null,
                    "latest_version": entry.get("latest_version"),
                    "deprecation_date": entry.get("deprecation_date"),
                    "primary_key": keys,
                }),
            );
        }
        node
    }

    fn disabled_model(&self, model: &DisabledModel) -> Json {
        let resource = if model.materialized.name() == "snapshot" { "snapshot" } else { "model" };
        let mut config = node_config::defaults(resource);
        node_config::overlay(&mut config, &model.config);
        config.insert("enabled".to_string(), false.into());
        config.insert("materialized".to_string(), model.materialized.name().into());
        json!({
            "database": null,
            "schema": model.schema,
            "name": model.name,
            "resource_type": resource,
            "package_name": self.project.name,
            "path": below(&model.fqn, &model.path),
            "original_file_path": slashes(&model.path),
            "unique_id": format!("{resource}.{}.{}", self.project.name, model.name),
            "fqn": model.fqn,
            "alias": model.alias,
            "checksum": checksum(model.raw.trim()),
            "config": config,
            "tags": model.tags,
            "description": "",
            "columns": {},
            "meta": object(config.get("meta")),
            "raw_code": model.raw.trim(),
            "language": "sql",
            "created_at": self.created_at,
            "unrendered_config": model.config,
        })
    }

    fn test(&self, test: &DataTest) -> Json {
        let mut reads = test.depends_on.clone();
        if test.generic.is_some() && !reads.is_empty() {
            // dbt renders the arguments before `model`.
            reads.rotate_left(1);
        }
        let (refs, sources) = mentions(self.project, &reads);
        let alias = test.config.audit.1.clone();
        let kind = test.test_name.as_deref().unwrap_or_default();
        let raw = match &test.generic {
            Some(generic) => {
                let namespace = generic.namespace.as_ref().map(|n| format!("{n}.")).unwrap_or_default();
                format!("{{{{ {namespace}test_{kind}(**_dbt_generic_test_kwargs) }}}}")
            }
            None => test.source_map.text().trim().to_string(),
        };
        let file = test_path(test);
        let path = match test.generic {
            Some(_) => format!("{}.sql", test.config.file),
            None => test.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        };
        let called = match &test.generic {
            Some(_) => self.called_macros(&format!("test_{kind}("), None),
            None => self.called_macros(&raw, None),
        };
        let config = node_config::test(test, &alias);
        let mut node = json!({
            "database": null,
            "schema": test.config.audit.0,
            "name": test.name,
            "resource_type": "test",
            "package_name": test.package,
            "path": path,
            "original_file_path": own_path(self.project, &test.package, &test.path),
            "unique_id": test.unique_id,
            "fqn": test.fqn,
            "alias": alias,
            "checksum": match test.generic {
                Some(_) => json!({"name": "none", "checksum": ""}),
                None => checksum(&raw),
            },
            "config": config,
            "tags": test.tags,
            "description": "",
            "columns": {},
            "meta": object(config.get("meta")),
            "group": null,
            "docs": docs(None),
            "patch_path": null,
            "build_path": null,
            "unrendered_config": test.config.written,
            "created_at": self.created_at,
            "relation_name": null,
            "raw_code": raw,
            "language": "sql",
            "refs": refs,
            "sources": sources,
            "metrics": [],
            "depends_on": {"macros": called, "nodes": self.node_ids(&test.depends_on)},
            "compiled_path": slashes(&Path::new("target/compiled").join(inside(&file))),
            "compiled": true,
            "compiled_code": test.sql,
            "extra_ctes_injected": true,
            "extra_ctes": [],
            "contract": {"enforced": false, "alias_types": true, "checksum": null},
        });
        if let Some(generic) = &test.generic {
            let attached = test.model.as_deref().and_then(|m| self.ids.get(m));
            let key_name = attached.and_then(|id| {
                let (kind, rest) = id.split_once('.')?;
                Some(format!("{kind}s.{}", rest.split_once('.')?.1))
            });
            let own = attached.and_then(|id| id.splitn(3, '.').nth(2));
            extend(
                &mut node,
                json!({
                    "column_name": generic.column,
                    "file_key_name": key_name,
                    "attached_node": attached,
                    "test_metadata": {"name": kind, "kwargs": kwargs(test, generic, own), "namespace": generic.namespace},
                }),
            );
        }
        node
    }
}

/// Everything a generic test is called with, in dbt's words; `model` is what its file calls the model it stands on.
fn kwargs(test: &DataTest, generic: &TestMetadata, model: Option<&str>) -> BTreeMap<String, Json> {
    let mut kwargs = generic.arguments.clone();
    let relation = match (model, test.depends_on.first()) {
        (Some(model), _) => format!("ref('{model}')"),
        (None, Some(Dependency::Source(key, table))) => {
            let source = key.strip_prefix(&format!("{}.", test.package)).unwrap_or(key);
            format!("source('{source}', '{table}')")
        }
        (None, _) => String::new(),
    };
    kwargs.insert("model".to_string(), format!("{{{{ get_where_subquery({relation}) }}}}").into());
    if let Some(column) = &generic.column {
        kwargs.insert("column_name".to_string(), column.as_str().into());
    }
    kwargs
}

/// The table that the readers of a model read in its place.
fn defer_relation(project: &Project, model: &Model, resource: &str, table: &Deferred) -> Json {
    json!({
        "database": null,
        "schema": table.schema,
        "alias": table.alias,
        "relation_name": relation_name(project, &table.schema, &table.alias),
        "resource_type": resource,
        "name": model.own_name(),
        "description": model.description.clone().unwrap_or_default(),
        "compiled_code": null,
        "meta": {},
        "tags": model.tags,
        "config": null,
    })
}

/// What only smelt knows of a model.
fn own_facts(model: &Model) -> Map<String, Json> {
    let mut facts = Map::new();
    if !model.expectations.is_empty() {
        let one = |e: &crate::project::Expectation| {
            let action = match e.on_violation {
                OnViolation::Warn => "warn",
                OnViolation::Drop => "drop",
                OnViolation::Fail => "fail",
                OnViolation::Quarantine => "quarantine",
            };
            json!({"name": e.name, "expect": e.expect, "on_violation": action})
        };
        facts.insert("expectations".to_string(), model.expectations.iter().map(one).collect());
    }
    if let Some(schedule) = &model.config.schedule {
        facts.insert("schedule".to_string(), schedule.when.to_string().into());
    }
    facts
}

/// Columns of each model that are unique, and never NULL if there are such, by its tests.
fn keys(project: &Project) -> HashMap<&str, BTreeSet<&str>> {
    let tested = |name: &str| -> HashMap<&str, BTreeSet<&str>> {
        let mut found: HashMap<&str, BTreeSet<&str>> = HashMap::new();
        for test in &project.tests {
            if let (Some(model), Some(TestMetadata { column: Some(column), .. })) = (&test.model, &test.generic)
                && test.test_name.as_deref() == Some(name)
            {
                found.entry(model).or_default().insert(column);
            }
        }
        found
    };
    let not_null = tested("not_null");
    let mut keys = tested("unique");
    for (model, columns) in &mut keys {
        let both: BTreeSet<&str> =
            columns.iter().copied().filter(|c| not_null.get(model).is_some_and(|n| n.contains(c))).collect();
        // Without one that is also never NULL, dbt takes what is unique.
        if !both.is_empty() {
            *columns = both;
        }
    }
    keys
}

/// A model's file; of a snapshot block only the block.
fn raw_code(model: &Model) -> String {
    let text = model.source_map.text();
    let own = match model.unique_id.starts_with("snapshot.") {
        true => super::compiled::snapshot_block(text, model.own_name()).unwrap_or(text),
        false => text,
    };
    own.trim().to_string()
}

/// A file below the folder that holds its kind: folders of the fqn and the file's name.
fn below(fqn: &[String], file: &Path) -> String {
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = file.file_stem().map(|n| n.to_string_lossy().into_owned());
    let mut folders = fqn.get(1..fqn.len().saturating_sub(1)).unwrap_or_default();
    // The file of a snapshot block stands in its fqn.
    if folders.last() == stem.as_ref() && !file.parent().is_some_and(|p| p.ends_with(stem.clone().unwrap_or_default()))
    {
        folders = &folders[..folders.len() - 1];
    }
    folders.iter().cloned().chain([name]).collect::<Vec<_>>().join("/")
}

pub(super) fn checksum(raw: &str) -> Json {
    use sha2::{Digest, Sha256};
    let digest: String = Sha256::digest(raw.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    json!({"name": "sha256", "checksum": digest})
}

/// `refs` and `sources` of a node.
pub(super) fn mentions(project: &Project, depends_on: &[Dependency]) -> (Vec<Json>, Vec<Json>) {
    let (mut refs, mut sources) = (Vec::new(), Vec::new());
    for dependency in depends_on {
        match dependency {
            Dependency::Model(key) => {
                let name = project.models.iter().find(|m| m.name == *key).map_or(key.as_str(), |m| m.own_name());
                refs.push(json!({"name": name, "package": null, "version": null}));
            }
            Dependency::Source(key, table) => {
                let found = project.sources.iter().find(|s| s.source == *key && s.name == *table);
                sources.push(json!([found.map_or(key.as_str(), |s| s.source_name()), table]));
            }
        }
    }
    (refs, sources)
}

/// Declared columns by name.
pub(super) fn columns(declared: Option<&Json>) -> Map<String, Json> {
    let one = |column: &Json| {
        let name = column["name"].as_str()?.to_string();
        let config = object(column.get("config"));
        let meta = object(config.get("meta").or(column.get("meta")));
        let tags = list(config.get("tags").or(column.get("tags")));
        let node = json!({
            "name": name,
            "description": column["description"].as_str().unwrap_or_default(),
            "meta": meta,
            "data_type": column.get("data_type"),
            "constraints": constraints(column.get("constraints"), false),
            "quote": column.get("quote"),
            "config": {"meta": meta, "tags": tags},
            "tags": tags,
        });
        Some((name, node))
    };
    list(declared).iter().filter_map(one).collect()
}

/// Constraints with dbt's keys only; `columns` stands on those of a whole model.
fn constraints(declared: Option<&Json>, of_model: bool) -> Vec<Json> {
    const KEYS: [&str; 7] = ["type", "name", "expression", "warn_unenforced", "warn_unsupported", "to", "to_columns"];
    let one = |constraint: &Json| {
        let kept = object(Some(constraint))
            .into_iter()
            .filter(|(k, _)| KEYS.contains(&k.as_str()) || of_model && k == "columns");
        Json::Object(kept.collect())
    };
    list(declared).iter().map(one).collect()
}

fn contract(config: &Map<String, Json>) -> Json {
    let enforced = config.get("contract").and_then(|c| c.get("enforced")).and_then(Json::as_bool).unwrap_or(false);
    json!({"enforced": enforced, "alias_types": true, "checksum": null})
}

pub(super) fn docs(declared: Option<&Json>) -> Json {
    let show = declared.and_then(|d| d.get("show")).and_then(Json::as_bool).unwrap_or(true);
    json!({"show": show, "node_color": declared.and_then(|d| d.get("node_color"))})
}

/// `telecom://models/gold.yml`
pub(super) fn patch_path(project: &Project, package: &str, path: &Path) -> String {
    format!("{package}://{}", own_path(project, package, path))
}

/// A path as its package has it: below the folder that the package is installed in.
pub(super) fn own_path(project: &Project, package: &str, path: &Path) -> String {
    let mut inside = path.components();
    if package != project.name && inside.by_ref().any(|c| c.as_os_str() == package) {
        return slashes(inside.as_path());
    }
    slashes(path)
}

/// A JSON object, or an empty one.
pub(super) fn object(json: Option<&Json>) -> Map<String, Json> {
    json.and_then(Json::as_object).cloned().unwrap_or_default()
}

/// A JSON list; one value counts as a list of one.
pub(super) fn list(json: Option<&Json>) -> Vec<Json> {
    match json {
        Some(Json::Array(items)) => items.clone(),
        None | Some(Json::Null) => Vec::new(),
        Some(one) => vec![one.clone()],
    }
}

fn extend(node: &mut Json, more: Json) {
    if let (Json::Object(node), Json::Object(more)) = (node, more) {
        node.extend(more);
    }
}

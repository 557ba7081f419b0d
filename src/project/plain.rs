//! Nodes that make no table: analyses, and hooks of a project, which dbt lists among its nodes too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::config::{self, RawConfig};
use super::facts;
use super::graph::Names;
use super::jinja::{Asked, Resolve, Scope, Template};
use super::load::{Attempt, Loader};
use super::operations::{Hook, HookPoint};
use super::problems::Problems;
use super::texts::{files, stem};
use super::yaml::Text;
use super::{DataTest, Dependency, Inventory, PlainNode, UnitTest};

impl Loader<'_> {
    /// The analyses: queries that are compiled, and never run.
    pub(super) fn analyses(&self, names: &Arc<Names>, p: &mut Problems) -> Vec<PlainNode> {
        let mut analyses = Vec::new();
        for (text, folders) in files(self.dir, &self.settings.analysis_paths, "sql", p) {
            let Some(template) = p.ok(Template::checked(Arc::clone(&text), 0)) else { continue };
            let Some(attempt) = self.render(&template, names, None, BTreeMap::new(), false, p) else { continue };
            let Attempt { rendered, reads, scope, waits } = attempt;
            let name = stem(&text.file);
            let mut raw = RawConfig::new();
            for call in scope.configs() {
                config::merge(&mut raw, &self.called_config(&template, &call, p));
            }
            let (package, file) = (&self.settings.name, text.file.file_name());
            let below: PathBuf = folders.iter().map(String::as_str).chain(file.and_then(|f| f.to_str())).collect();
            analyses.push(PlainNode {
                unique_id: format!("analysis.{package}.{name}"),
                resource_type: "analysis",
                fqn: [&[package.clone(), "analysis".to_string()], &folders[..], std::slice::from_ref(&name)].concat(),
                path: Path::new("analysis").join(below),
                file: text.file.clone(),
                raw: text.content.trim().to_string(),
                sql: waits.is_none().then_some(rendered.sql),
                depends_on: reads.into_iter().map(|(dependency, _)| dependency).collect(),
                ..self.plain(name, raw)
            });
        }
        analyses
    }

    /// `on-run-start` and `on-run-end` of this package.
    pub(super) fn hook_nodes(&self, names: &Names) -> Vec<PlainNode> {
        let points = [HookPoint::RunStart, HookPoint::RunEnd].into_iter().zip(&self.settings.hooks);
        let package = &self.settings.name;
        let hooks = points.flat_map(|(point, written)| Hook::of(point, package, None, written.as_ref()));
        let one = |hook: Hook| {
            let name = hook.node_name();
            let mut node = self.plain(name.clone(), RawConfig::new());
            node.tags.insert(0, hook.point.name().to_string());
            PlainNode {
                unique_id: hook.unique_id(),
                resource_type: "operation",
                fqn: vec![package.clone(), "hooks".to_string(), name.clone()],
                path: Path::new("hooks").join(format!("{name}.sql")),
                file: Path::new(if self.settings.is_dbt { "./dbt_project.yml" } else { "./smelt.yml" }).to_path_buf(),
                raw: hook.sql().to_string(),
                depends_on: self.read_by(hook.sql(), names),
                index: Some(hook.index),
                ..node
            }
        };
        hooks.map(one).collect()
    }

    /// What stands in a hook's template as dbt parses it. Mistakes are told when it runs.
    fn read_by(&self, sql: &str, names: &Names) -> Vec<Dependency> {
        let scope = Scope::reading(&self.globals);
        let Ok(template) = Template::checked(Text::new("hook", sql), 0) else { return Vec::new() };
        let _ = self.engine.render(&template, &scope);
        let relation = |asked: Asked| match asked {
            Asked::Model(call) => names.model(call.package.as_deref(), &call.name, &self.settings.name),
            Asked::Source(call) => names.source(&call.source, &call.table, &self.settings.name),
        };
        let mut found: Vec<Dependency> = Vec::new();
        for dependency in scope.take_asked().into_iter().filter_map(|asked| relation(asked).ok()?.dependency) {
            if !found.contains(&dependency) {
                found.push(dependency);
            }
        }
        found
    }

    /// With the configuration of models that stands for everything in the package, and the node's own.
    fn plain(&self, name: String, own: RawConfig) -> PlainNode {
        let fqn = [self.settings.name.clone()];
        let mut raw = config::defaults(&self.settings.defaults.models, &fqn);
        config::merge(&mut raw, &own);
        config::merge(&mut raw, &config::defaults(&self.settings.overrides.models, &fqn));
        let config: BTreeMap<String, Json> = raw.iter().map(|(k, s)| (k.clone(), s.value.clone())).collect();
        let tags = match config.get("tags") {
            Some(Json::Array(tags)) => tags.iter().filter_map(Json::as_str).map(str::to_string).collect(),
            Some(Json::String(tag)) => vec![tag.clone()],
            _ => Vec::new(),
        };
        let (package, schema) = (self.settings.name.clone(), self.settings.default_schema.clone());
        PlainNode { name, package, schema, tags, config, ..PlainNode::default() }
    }
}

/// What stands in `graph` beside models and sources.
pub(super) fn facts(
    graph: &mut Json,
    tests: &[DataTest],
    unit_tests: &[UnitTest],
    inventory: &Inventory,
    names: &Names,
    project: &str,
) {
    let ids = |depends_on: &[Dependency]| -> BTreeSet<String> {
        depends_on.iter().filter_map(|dependency| names.unique_id(dependency)).collect()
    };
    for test in tests {
        let mut node = facts::draft(&test.name, &test.unique_id, "test", &test.package, &test.fqn, &test.path);
        let attached = test.model.as_ref().and_then(|model| names.unique_id(&Dependency::Model(model.clone())));
        let severity = if test.severity == super::Severity::Warn { "WARN" } else { "ERROR" };
        let mut config = json!({"enabled": true, "materialized": "test", "severity": severity, "tags": test.tags});
        facts::complete(&mut config, json!(test.config.all));
        let metadata = test.generic.as_ref().map(
            |generic| json!({"name": test.test_name, "namespace": generic.namespace, "kwargs": generic.arguments}),
        );
        facts::complete(
            &mut node,
            json!({
                "tags": test.tags, "config": config, "meta": test.config.all.get("meta").cloned().unwrap_or(json!({})),
                "depends_on": {"macros": [], "nodes": ids(&test.depends_on)}, "test_metadata": metadata,
                "column_name": test.generic.as_ref().and_then(|g| g.column.clone()), "attached_node": attached,
                "raw_code": test.source_map.text().trim(),
            }),
        );
        graph["nodes"][&test.unique_id] = node;
    }
    for plain in &inventory.plain {
        let PlainNode { name, unique_id, package, fqn, file, config, tags, raw, .. } = plain;
        let mut node = facts::draft(name, unique_id, plain.resource_type, package, fqn, file);
        let reads = ids(&plain.depends_on);
        facts::complete(
            &mut node,
            json!({
                "path": plain.path, "schema": plain.schema, "tags": tags, "config": config, "raw_code": raw,
                "depends_on": {"macros": [], "nodes": reads}, "index": plain.index,
            }),
        );
        graph["nodes"][unique_id] = node;
    }
    for exposure in &inventory.exposures {
        let id = &exposure.unique_id;
        graph["exposures"][id] = json!({
            "unique_id": id, "resource_type": "exposure", "name": exposure.name, "package_name": exposure.package,
            "fqn": exposure.fqn, "path": exposure.path, "original_file_path": exposure.path, "type": exposure.kind,
            "label": exposure.label, "maturity": exposure.maturity, "url": exposure.url, "owner": exposure.owner,
            "description": exposure.description, "tags": exposure.tags, "meta": exposure.meta, "config": exposure.config,
            "depends_on": {"macros": [], "nodes": ids(&exposure.depends_on)},
        });
    }
    for group in &inventory.groups {
        let id = format!("group.{project}.{}", group.name);
        graph["groups"][&id] = json!({
            "unique_id": id, "resource_type": "group", "name": group.name, "package_name": project,
            "path": group.path, "original_file_path": group.path, "owner": group.owner, "description": group.description,
            "config": group.config,
        });
    }
    for test in unit_tests {
        let (id, model) = (&test.unique_id, Dependency::Model(test.model.clone()));
        graph["unit_tests"][id] = json!({
            "unique_id": id, "resource_type": "unit_test", "name": test.name, "package_name": test.package,
            "fqn": test.fqn, "path": test.path, "original_file_path": test.path, "model": test.model,
            "description": test.description, "config": test.config, "depends_on": {"macros": [], "nodes": ids(&[model])},
        });
    }
}

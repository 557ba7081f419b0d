//! The schema and name of a model's table.
//!
//! A macro `generate_schema_name` or `generate_alias_name` of the model's package, or of the root project, decides, as in dbt.
//! Without one a dbt project puts `schema: x` at `<target schema>_x`, and a smelt project at `x`.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::config::Configured;
use super::jinja::{Engine, Scope};
use super::problems::Problems;
use super::settings::Settings;
use super::yaml::Text;
use super::{DataTest, Materialization, config::RawConfig};

/// A model as the naming macros get it.
pub(super) struct Named<'a> {
    pub name: &'a str,
    pub unique_id: &'a str,
    pub fqn: &'a [String],
    pub text: &'a Arc<Text>,
    pub raw: &'a RawConfig,
    pub configured: &'a Configured,
}

/// Schema and name of the table of `model`, which belongs to the package of `settings`.
pub(super) fn table_of(model: &Named<'_>, settings: &Settings, engine: &Engine, p: &mut Problems) -> (String, String) {
    let custom = &model.configured.schema;
    let calls = Calls { model, settings, engine };
    let is_snapshot = model.configured.materialized == Materialization::Snapshot;
    let fixed = model.raw.get("target_schema").and_then(|s| s.value.as_str()).filter(|_| is_snapshot);
    let schema = match (fixed, calls.call("generate_schema_name", custom.as_deref(), p)) {
        (Some(schema), _) => schema.to_string(),
        (None, Some(schema)) => schema,
        (None, None) => match custom {
            Some(custom) if settings.is_dbt => format!("{}_{}", settings.default_schema, custom.trim()),
            Some(custom) => custom.clone(),
            None => settings.default_schema.clone(),
        },
    };
    let alias = model.configured.alias.as_deref();
    let alias = calls.call("generate_alias_name", alias, p).unwrap_or_else(|| alias.unwrap_or(model.name).to_string());
    // There are no databases in a lake, but a macro that refuses one wants to be heard.
    let database = model.raw.get("database").and_then(|s| s.value.as_str());
    calls.call("generate_database_name", database, p);
    (schema, alias)
}

/// Schema of the table that keeps the failing rows of `test`, whose configuration says its own part of it.
pub(super) fn audit_schema(test: &DataTest, settings: &Settings, engine: &Engine, p: &mut Problems) -> String {
    const MACRO: &str = "generate_schema_name";
    let custom = &test.config.audit.0;
    let globals = &settings.globals;
    let has = |package: &str| engine.macros_of(package).iter().any(|m| m == MACRO);
    if has(&globals.package) || has(&globals.project_name) {
        let node = json!({
            "name": test.name, "resource_type": "test", "package_name": test.package, "unique_id": test.unique_id, "fqn": test.fqn,
            "path": test.path, "original_file_path": test.path, "tags": test.tags, "config": test.config.all,
            "schema": settings.default_schema, "alias": test.config.audit.1, "database": null,
        });
        let called = engine.call(MACRO, &[custom.as_str().into(), node], &Scope::reading(globals));
        let made = p.ok(called.map_err(|e| if e.span().is_some() { e } else { e.with_span(settings.span.clone()) }));
        if let Some(made) = made.map(|m| m.trim().to_string()).filter(|m| !m.is_empty() && !m.contains(['/', '\\'])) {
            return made;
        }
    }
    if settings.is_dbt { format!("{}_{custom}", settings.default_schema) } else { custom.clone() }
}

struct Calls<'a> {
    model: &'a Named<'a>,
    settings: &'a Settings,
    engine: &'a Engine,
}

impl Calls<'_> {
    /// What the macro `name` makes of a configured name; None when there is no such macro, or it fails.
    fn call(&self, name: &str, custom: Option<&str>, p: &mut Problems) -> Option<String> {
        let globals = &self.settings.globals;
        let has = |package: &str| self.engine.macros_of(package).iter().any(|m| m == name);
        if !has(&globals.package) && !has(&globals.project_name) {
            return None;
        }
        let scope = Scope::reading(globals);
        let called = self.engine.call(name, &[custom.map_or(Json::Null, Json::from), self.node()], &scope);
        let text = &self.model.text;
        let called = called.map_err(|error| {
            let hint = format!("{} (naming the table of `{}`)", error.hint().unwrap_or(""), self.model.name);
            let error = error.with_hint(hint.trim_start());
            if error.span().is_some() { error } else { error.with_span(text.span(0, 1)) }
        });
        let made = p.ok(called)?.trim().to_string();
        if made.is_empty() || made.contains(['/', '\\']) || made.starts_with('.') {
            let message =
                format!("macro `{name}` makes `{made}` of `{}`, which cannot be a folder's name", self.model.name);
            p.error("bad-name", text.span(0, 1), message, "return letters, digits and _");
            return None;
        }
        Some(made)
    }

    fn node(&self) -> Json {
        let Named { name, unique_id, fqn, text, raw, configured } = self.model;
        let config: serde_json::Map<String, Json> = raw.iter().map(|(k, s)| (k.clone(), s.value.clone())).collect();
        let resource_type = unique_id.split('.').next().unwrap_or("model");
        json!({
            "name": name, "resource_type": resource_type, "package_name": self.settings.name, "unique_id": unique_id,
            "fqn": fqn, "path": text.file, "original_file_path": text.file, "tags": configured.tags, "config": config,
            "schema": self.settings.default_schema, "alias": name, "database": null, "version": null,
            "meta": raw.get("meta").map(|s| s.value.clone()),
        })
    }
}

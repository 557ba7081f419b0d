//! `profiles.yml`: what a dbt user has configured for a warehouse, as far as it means something without one.
//!
//! Of the chosen output only the keys below are read and rendered: the adapter says the dialect, its schema and threads are the
//! target's, the rest is `target.…` for templates. Passwords, tokens and keys are left alone, so they can reach nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::jinja::{Engine, Scope};
use super::problems::{Problems, suggest};
use super::yaml::{self, Node, Text};
use super::{Dialect, LoadOptions};
use crate::env::Env;
use crate::error::{Error, Result};

const FILE: &str = "profiles.yml";

/// Keys of an output that templates see under `target`.
const SHOWN: [&str; 14] = [
    "type",
    "schema",
    "dataset",
    "threads",
    "database",
    "dbname",
    "catalog",
    "project",
    "user",
    "role",
    "warehouse",
    "account",
    "host",
    "port",
];
/// What adapters call the database.
const DATABASE: [&str; 4] = ["database", "dbname", "catalog", "project"];

/// One profile of the file.
pub(super) struct Profile {
    pub name: String,
    /// The one it runs on unless told otherwise.
    pub target: Option<String>,
    /// Named outputs; nothing in them is rendered.
    pub outputs: Node,
}

/// What an output says.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// `snowflake`, `duckdb`, …
    pub adapter: Option<String>,
    pub schema: Option<String>,
    pub threads: Option<usize>,
    /// For `target` in templates.
    pub values: BTreeMap<String, Json>,
}

/// Finds and reads the profile. None when there is no such file, or not this profile in it, and `required` is false.
pub(super) fn read(
    name: &Node,
    required: bool,
    options: &LoadOptions,
    (engine, scope, env): (&Engine, &Arc<Scope>, &Env),
    p: &mut Problems,
) -> Result<Option<Profile>> {
    let folders = folders(options, env);
    let name = match &options.profile {
        Some(name) => Node { value: yaml::Value::Str(name.clone()), ..name_node(name, &folders) },
        None => engine.render_yaml(name, &[], scope, p),
    };
    let Some(text) = name.text("profile", p) else { return Ok(None) };
    let found = folders.iter().find_map(|folder| {
        let path = folder.join(FILE);
        std::fs::read_to_string(&path).ok().map(|content| (path, content))
    });
    let shown: Vec<String> = folders.iter().map(|f| f.join(FILE).display().to_string()).collect();
    let missing = |message: String, hint: String| match required {
        true if options.profile.is_some() => Err(Error::user("no-profile", message).with_hint(hint)),
        true => Err(Error::user("no-profile", message).with_hint(hint).with_span(name.span())),
        false => Ok(None),
    };
    let Some((path, content)) = found else {
        let hint = format!("looked for {}; write one, or give `targets:` in a smelt.yml beside", shown.join(", "));
        return missing(format!("there is no profiles.yml for the profile `{text}`"), hint);
    };
    let shown = path.strip_prefix(&options.dir).unwrap_or(&path);
    let root = yaml::parse(&Text::new(shown, content))?;
    let Some(profile) = root.get(&text) else {
        let known = root.entries().iter().map(|e| e.key.as_str()).filter(|k| *k != "config");
        return missing(format!("no profile `{text}` in {}", path.display()), suggest(&text, known, "profiles"));
    };
    let target = profile.get("target").and_then(|n| engine.render_yaml(n, &[], scope, p).text("target", p));
    let outputs = match profile.get("outputs") {
        Some(outputs) => outputs.clone(),
        None => {
            let message = format!("profile `{text}` has no `outputs`");
            p.error("missing-outputs", profile.span(), message, "add outputs: {dev: {type: duckdb}}");
            Node { value: yaml::Value::Null, ..profile.clone() }
        }
    };
    Ok(Some(Profile { name: text, target, outputs }))
}

fn name_node(name: &str, folders: &[PathBuf]) -> Node {
    let file = folders.first().cloned().unwrap_or_default().join(FILE);
    Node { value: yaml::Value::Null, mark: yaml::Mark::default(), text: Text::new(file, name), written: None }
}

/// Where `profiles.yml` may be: where the command line or `DBT_PROFILES_DIR` say, else beside the project, else in `~/.dbt`.
fn folders(options: &LoadOptions, env: &Env) -> Vec<PathBuf> {
    let told = options.profiles_dir.clone().or_else(|| env.var("DBT_PROFILES_DIR").map(PathBuf::from));
    match told {
        Some(folder) => vec![std::path::absolute(&folder).unwrap_or(folder)],
        None => {
            let home = env.var("HOME").map(|home| Path::new(&home).join(".dbt"));
            [options.dir.clone()].into_iter().chain(home).collect()
        }
    }
}

impl Output {
    pub fn read(node: &Node, engine: &Engine, scope: &Arc<Scope>, p: &mut Problems) -> Self {
        let mut values = BTreeMap::new();
        let rendered = |key: &str, p: &mut Problems| {
            let node = engine.render_yaml(node.get(key)?, &[], scope, p);
            (!matches!(node.value, yaml::Value::Null | yaml::Value::Failed)).then_some(node)
        };
        let mut threads = None;
        for key in SHOWN {
            let Some(node) = rendered(key, p) else { continue };
            if key == "threads" {
                threads = node.count("threads", 1, p);
            }
            values.insert(key.to_string(), node.json());
        }
        let text = |key: &str| values.get(key).and_then(Json::as_str).map(str::to_string);
        let adapter = text("type").map(|t| t.to_lowercase());
        let is_duckdb = adapter.as_deref() == Some("duckdb");
        let schema = text("schema").or_else(|| text("dataset")).or_else(|| is_duckdb.then(|| "main".to_string()));
        let database = DATABASE.iter().find_map(|key| text(key)).or_else(|| {
            // DuckDB names a database after its file.
            let path = rendered("path", p).and_then(|n| n.text("path", p));
            let path = path.filter(|path| path != ":memory:");
            let stem = path.and_then(|path| Some(Path::new(&path).file_stem()?.to_string_lossy().into_owned()));
            is_duckdb.then(|| stem.unwrap_or_else(|| "memory".to_string()))
        });
        for (key, value) in [("schema", &schema), ("database", &database)] {
            if let Some(value) = value {
                values.insert(key.to_string(), Json::from(value.as_str()));
            }
        }
        Output { adapter, schema, threads, values }
    }

    /// The dialect its models are written in; None for an adapter whose SQL smelt has no dialect for.
    pub fn dialect(&self) -> Option<Dialect> {
        Some(match self.adapter.as_deref()? {
            "snowflake" => Dialect::Snowflake,
            "postgres" | "redshift" | "greenplum" | "materialize" | "risingwave" | "alloydb" => Dialect::Postgres,
            "duckdb" | "motherduck" => Dialect::DuckDb,
            "spark" | "fabricspark" | "glue" => Dialect::Spark,
            "databricks" => Dialect::Databricks,
            _ => return None,
        })
    }

    /// The prefixes of macros that are written for it, its own first.
    pub fn prefixes(&self, dialect: Dialect) -> Vec<String> {
        let inherited: &[&str] = match self.adapter.as_deref() {
            Some("redshift" | "greenplum" | "materialize" | "risingwave" | "alloydb") => &["postgres"],
            Some("databricks" | "fabricspark" | "glue") => &["spark"],
            _ => &[],
        };
        match &self.adapter {
            Some(own) => [own.as_str()].iter().chain(inherited).map(ToString::to_string).collect(),
            None => prefixes(dialect),
        }
    }
}

/// The prefixes of macros that are written for a dialect.
pub(super) fn prefixes(dialect: Dialect) -> Vec<String> {
    let names: &[&str] = match dialect {
        Dialect::DataFusion => &["datafusion"],
        Dialect::Postgres => &["postgres"],
        Dialect::DuckDb => &["duckdb"],
        Dialect::Spark => &["spark"],
        Dialect::Databricks => &["databricks", "spark"],
        Dialect::Snowflake => &["snowflake"],
    };
    names.iter().map(ToString::to_string).collect()
}

//! What commands leave in `target/` for people and tools: dbt's artifacts, in the versions dbt 1.10 writes, and compiled SQL.
//!
//! [`manifest`] says what the project is, [`run_results`] what a command did to it, [`catalog`] what the tables hold,
//! [`sources`] how fresh the sources are, [`compiled`] the SQL file by file. Each JSON begins with the same metadata
//! ([`Invocation`]) and goes through [`write()`], which keeps secrets out.
//!
//! Invariants: every file is valid against dbt's published schema, so what only smelt knows stands under `config` or `meta`;
//! the same project gives the same text but for times and ids; a reader never sees half a file.

mod catalog;
mod compiled;
mod manifest;
mod node_config;
mod nodes;
mod plain;
mod run_results;
mod sources;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::Project;
use crate::env::Env;
use crate::error::{Error, Result};

pub use catalog::{CatalogColumn, CatalogSize, CatalogTable, catalog};
pub use compiled::{test_path, write_compiled, write_compiled_tests, write_compiled_unit_tests};
pub use manifest::manifest;
pub use run_results::{RunResult, RunStatus, Timing, run_results};
pub use sources::{FreshnessStatus, Measured, SourceFreshness, sources};

/// The dbt whose schemas the artifacts follow: tools compare it before they read on.
const DBT_VERSION: &str = "1.10.0";

/// One run of a command: what all of its artifacts say of themselves.
#[derive(Debug, Clone, Default)]
pub struct Invocation {
    pub id: String,
    /// µs since 1970.
    pub started_at: i64,
    /// Name of the command and flags that were given, as `run_results.json` has them: `which`, `select`, …
    pub args: BTreeMap<String, Json>,
}

impl Invocation {
    /// One that begins now.
    pub fn new(env: &Env, args: BTreeMap<String, Json>) -> Self {
        Invocation { id: env.new_uuid().to_string(), started_at: env.now_micros(), args }
    }

    /// `metadata` of the artifact whose schema is `schema` (`manifest/v12`).
    fn metadata(&self, schema: &str, env: &Env) -> Json {
        json!({
            "dbt_schema_version": format!("https://schemas.getdbt.com/dbt/{schema}.json"),
            "dbt_version": DBT_VERSION,
            "generated_at": rfc3339(env.now_micros()),
            "invocation_id": self.id,
            "invocation_started_at": rfc3339(self.started_at),
            "env": {"smelt_version": env!("CARGO_PKG_VERSION")},
        })
    }
}

/// An instant (µs since 1970) as artifacts write it.
fn rfc3339(micros: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

/// The folder that artifacts go to.
pub fn target_dir(project: &Project) -> PathBuf {
    project.dir.join("target")
}

/// Writes `target/<name>`, whole or not at all, with every secret in its texts replaced.
pub fn write(project: &Project, name: &str, mut artifact: Json, env: &Env) -> Result<PathBuf> {
    redact(&mut artifact, env);
    write_text(project, name, &artifact.to_string())
}

/// The same for a text that holds no secrets.
pub fn write_text(project: &Project, name: &str, text: &str) -> Result<PathBuf> {
    let folder = target_dir(project);
    std::fs::create_dir_all(&folder).map_err(|e| unwritable(&folder, e))?;
    let path = folder.join(name);
    // Two commands may write at the same time, and each must find its own file to rename.
    let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    std::fs::write(&temporary, text).map_err(|e| unwritable(&temporary, e))?;
    std::fs::rename(&temporary, &path).map_err(|e| unwritable(&path, e))?;
    Ok(path)
}

/// What `target/<name>` holds; None when it is not there, or is no JSON.
pub fn read(project: &Project, name: &str) -> Option<Json> {
    serde_json::from_slice(&std::fs::read(target_dir(project).join(name)).ok()?).ok()
}

fn unwritable(path: &Path, e: std::io::Error) -> Error {
    Error::environment("unwritable-target", format!("cannot write {}: {e}", path.display())).permanent()
}

/// Replaces secrets text by text: one with quotes or line breaks would not be found in the JSON it is escaped in.
pub fn redact(json: &mut Json, env: &Env) {
    match json {
        Json::String(text) => {
            let clean = env.redact(text);
            if clean != *text {
                *text = clean;
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| redact(item, env)),
        Json::Object(members) => {
            for (key, mut value) in std::mem::take(members) {
                redact(&mut value, env);
                members.insert(env.redact(&key), value);
            }
        }
        // A number can be a secret too: an account's, a port's.
        Json::Number(number) => {
            let text = number.to_string();
            let clean = env.redact(&text);
            if clean != text {
                *json = Json::String(clean);
            }
        }
        Json::Null | Json::Bool(_) => {}
    }
}

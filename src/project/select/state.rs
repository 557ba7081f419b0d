//! What another run left in its folder of artifacts, and what has changed since: `state:`, `result:`, `source_status:`.
//!
//! The manifest of then is compared with the one this project would write now, entry by entry, by dbt's rules: what is written
//! in files counts, not what a target makes of it. Manifests of dbt and of smelt are read alike; only the keys that are compared
//! are looked at.
//!
//! Without such a folder the lake says what has changed: each table carries the fingerprint of the SQL it holds the rows of.

use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::artifact::artifact;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::project::{Project, artifacts, problems::suggest};

/// Values of `state:`.
pub(super) const CHECKS: [&str; 10] = [
    "new",
    "old",
    "modified",
    "unmodified",
    "modified.body",
    "modified.configs",
    "modified.persisted_descriptions",
    "modified.relation",
    "modified.contract",
    "modified.macros",
];

/// Values of `result:`.
pub(super) const STATUSES: [&str; 9] =
    ["success", "error", "skipped", "pass", "fail", "warn", "partial_success", "runtime_error", "no-op"];

/// How a model's table in the lake stands to the model's SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LakeState {
    /// There is no table.
    New,
    Modified,
    Unmodified,
}

/// The artifacts in the folder that `--state` names, and what this project would write in their place.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    manifests: Option<Manifests>,
    /// Status by unique id.
    results: Option<BTreeMap<String, String>>,
    /// `max_loaded_at` by unique id, then and now.
    freshness: Option<Freshness>,
    current_freshness: Option<Freshness>,
}

type Freshness = BTreeMap<String, String>;

/// The manifest of then and the one this project would write now.
#[derive(Debug)]
struct Manifests {
    /// Everything that can be selected, by unique id.
    before: BTreeMap<String, Json>,
    now: BTreeMap<String, Json>,
    /// Ids of macros that differ, or call one that does.
    other_macros: BTreeSet<String>,
}

impl Manifests {
    fn new(mut before: Json, mut now: Json) -> Self {
        let other_macros = other_macros(before["macros"].take(), now["macros"].take());
        Manifests { before: nodes_of(before), now: nodes_of(now), other_macros }
    }

    fn has_other_macros(&self, node: &Json) -> bool {
        called(node).any(|id| self.other_macros.contains(id))
    }
}

/// Ids of the macros that a node or macro calls.
fn called(node: &Json) -> impl Iterator<Item = &str> {
    node["depends_on"]["macros"].as_array().into_iter().flatten().filter_map(Json::as_str)
}

/// Macros of now that are new or whose text differs, those that are gone, and all that call one of them, however far away.
fn other_macros(before: Json, now: Json) -> BTreeSet<String> {
    let (Json::Object(before), Json::Object(now)) = (before, now) else { return BTreeSet::new() };
    let sql = |node: &Json| text(node, "macro_sql").trim().to_string();
    let differs = |(id, node): &(&String, &Json)| before.get(*id).is_none_or(|old| sql(old) != sql(node));
    let mut other: BTreeSet<String> = now.iter().filter(differs).map(|(id, _)| id.clone()).collect();
    other.extend(before.keys().filter(|id| !now.contains_key(*id)).cloned());
    loop {
        let callers = now.iter().filter(|(id, node)| !other.contains(*id) && called(node).any(|c| other.contains(c)));
        let callers: Vec<String> = callers.map(|(id, _)| id.clone()).collect();
        if callers.is_empty() {
            return other;
        }
        other.extend(callers);
    }
}

fn nodes_of(mut manifest: Json) -> BTreeMap<String, Json> {
    let mut nodes = BTreeMap::new();
    for key in ["nodes", "sources", "exposures", "unit_tests"] {
        if let Some(Json::Object(members)) = manifest.get_mut(key).map(Json::take) {
            nodes.extend(members);
        }
    }
    nodes
}

impl State {
    /// Reads what is in `dir`, a path relative to the project or absolute. Any of its artifacts may be missing.
    pub fn read(dir: &Path, project: &Project, env: &Env) -> Result<Self> {
        let dir = project.dir.join(dir);
        if !dir.is_dir() {
            return Err(Error::user("no-state", format!("--state {}: there is no such folder", dir.display()))
                .with_hint("name the folder that holds manifest.json of another run: its `target`, or a copy of it"));
        }
        let manifests = artifact(&dir, "manifest.json")?.map(|old| {
            let mut now = artifacts::manifest(project, &artifacts::Invocation::default(), env);
            // What has been written went through the same filter.
            artifacts::redact(&mut now, env);
            Manifests::new(old, now)
        });
        let results = artifact(&dir, "run_results.json")?.map(|json| each(&json, "status"));
        let freshness = artifact(&dir, "sources.json")?.map(|json| each(&json, "max_loaded_at"));
        let now = artifact(&project.dir.join("target"), "sources.json")?.map(|json| each(&json, "max_loaded_at"));
        Ok(State { dir, manifests, results, freshness, current_freshness: now })
    }

    fn missing(&self, file: &str, method: &str) -> Error {
        Error::user("no-state", format!("`{method}:` needs {file}, and {} has none", self.dir.display()))
            .with_hint("name the folder of a run's artifacts with --state")
    }

    /// Whether the node answers `state:<check>`.
    pub(super) fn is(&self, check: &str, unique_id: &str) -> Result<bool> {
        let Some(manifests) = &self.manifests else { return Err(self.missing("manifest.json", "state")) };
        let Some(new) = manifests.now.get(unique_id) else { return Ok(false) };
        let old = manifests.before.get(unique_id);
        let differs = |same: fn(&Pair<'_>) -> bool| old.is_none_or(|old| !same(&Pair { old, new }));
        let kind = text(new, "resource_type");
        // dbt takes a new source or exposure for one that has not changed.
        let macros = || manifests.has_other_macros(new);
        let modified =
            || macros() || !(old.is_none() && matches!(kind, "source" | "exposure")) && differs(|p| p.same_contents());
        let has_body = !matches!(kind, "source" | "exposure" | "unit_test");
        Ok(match check {
            "new" => old.is_none(),
            "old" => old.is_some(),
            "modified" => modified(),
            "unmodified" => !modified(),
            "modified.body" => has_body && differs(|p| p.same_body()),
            "modified.configs" => differs(|p| p.same_config()),
            "modified.persisted_descriptions" => has_body && differs(|p| p.same_persisted_description()),
            "modified.relation" => (has_body || kind == "source") && differs(|p| p.same_relation()),
            "modified.macros" => macros(),
            "modified.contract" => has_body && differs(|p| p.same_contract()),
            _ => false,
        })
    }

    /// How the node ended in that run.
    pub(super) fn status(&self, unique_id: &str) -> Result<Option<&str>> {
        let results = self.results.as_ref().ok_or_else(|| self.missing("run_results.json", "result"))?;
        Ok(results.get(unique_id).map(String::as_str))
    }

    /// Whether the source has newer rows than then, as the last `smelt source freshness` here found.
    pub(super) fn is_fresher(&self, unique_id: &str) -> Result<bool> {
        let then = self.freshness.as_ref().ok_or_else(|| self.missing("sources.json", "source_status"))?;
        let now = self.current_freshness.as_ref().ok_or_else(|| {
            Error::user("no-state", "`source_status:` needs target/sources.json of this project, and there is none")
                .with_hint("run `smelt source freshness` first")
        })?;
        Ok(match (then.get(unique_id), now.get(unique_id)) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(then), Some(now)) => instant(now) > instant(then),
        })
    }
}

/// `key` of each of an artifact's `results`, by unique id.
fn each(json: &Json, key: &str) -> BTreeMap<String, String> {
    let results = json["results"].as_array().map_or(&[][..], Vec::as_slice);
    let one = |r: &Json| Some((r["unique_id"].as_str()?.to_string(), r[key].as_str()?.to_string()));
    results.iter().filter_map(one).collect()
}

/// An instant as artifacts write it, with or without a zone; what is none stands before all.
fn instant(text: &str) -> i64 {
    let zoned = chrono::DateTime::parse_from_rfc3339(text).map(|t| t.timestamp_micros());
    let naive = || text.parse::<chrono::NaiveDateTime>().map(|t| t.and_utc().timestamp_micros());
    zoned.or_else(|_| naive()).unwrap_or(i64::MIN)
}

fn text<'a>(node: &'a Json, key: &str) -> &'a str {
    node[key].as_str().unwrap_or_default()
}

/// A node then and now.
struct Pair<'a> {
    old: &'a Json,
    new: &'a Json,
}

impl Pair<'_> {
    /// What this project does not say of itself is not compared.
    fn same(&self, key: &str) -> bool {
        self.new.get(key).is_none_or(|new| bare(&self.old[key]) == bare(new))
    }

    fn same_contents(&self) -> bool {
        let kind = text(self.new, "resource_type");
        match kind {
            "source" => {
                self.same_relation()
                    && self.same_config()
                    && ["fqn", "freshness", "loaded_at_field"].iter().all(|k| self.same(k))
            }
            "exposure" => {
                let keys = ["fqn", "type", "owner", "maturity", "url", "description", "label"];
                let reads = |node: &Json| -> BTreeSet<String> {
                    let nodes = node["depends_on"]["nodes"].as_array().into_iter().flatten();
                    nodes.filter_map(|n| n.as_str().map(str::to_string)).collect()
                };
                keys.iter().all(|k| self.same(k)) && reads(self.old) == reads(self.new) && self.same_config()
            }
            "unit_test" => {
                let smelt = |node: &Json| ["now", "then"].map(|key| bare(&node["config"]["meta"]["smelt"][key]));
                ["model", "overrides"].iter().all(|k| self.same(k))
                    && inputs(self.old) == inputs(self.new)
                    && bare(&self.old["expect"]["rows"]) == bare(&self.new["expect"]["rows"])
                    && smelt(self.old) == smelt(self.new)
            }
            "test" if !self.new["test_metadata"].is_null() => self.same_config() && self.same("fqn"),
            _ => {
                let refs = kind != "model"
                    || ["latest_version", "deprecation_date"].iter().all(|k| self.same(k)) && self.same_access();
                self.same_body()
                    && self.same_config()
                    && self.same_persisted_description()
                    && self.same("fqn")
                    && self.same_relation()
                    && self.same_contract()
                    && refs
            }
        }
    }

    fn same_access(&self) -> bool {
        let access = |node: &Json| node["access"].as_str().unwrap_or("protected").to_string();
        access(self.old) == access(self.new)
    }

    fn same_body(&self) -> bool {
        match text(self.new, "resource_type") {
            "seed" => self.old["checksum"]["checksum"] == self.new["checksum"]["checksum"],
            // A block's text stands in its file, and a snapshot without a block is written as a query by whoever reads it.
            "snapshot" => {
                let dense = |node: &Json| text(node, "raw_code").split_whitespace().collect::<String>();
                dense(self.new).contains(&dense(self.old))
            }
            // A generic test's is what its id is made of.
            _ if !self.new["test_metadata"].is_null() => true,
            _ => text(self.old, "raw_code").trim() == text(self.new, "raw_code").trim(),
        }
    }

    /// As written; what says where a table lands is compared by [`Pair::same_relation`], and tags and groups change nothing.
    fn same_config(&self) -> bool {
        const LEFT_OUT: [&str; 5] = ["alias", "schema", "database", "tags", "group"];
        let written = |node: &Json| -> Map<String, Json> {
            let config = node["unrendered_config"].as_object().or_else(|| node["config"].as_object());
            let members = config.into_iter().flatten().filter(|(k, _)| !LEFT_OUT.contains(&k.as_str()));
            members.map(|(k, v)| (k.clone(), bare(v))).filter(|(_, v)| !v.is_null()).collect()
        };
        self.new.get("unrendered_config").is_none() || written(self.old) == written(self.new)
    }

    fn same_relation(&self) -> bool {
        if text(self.new, "resource_type") == "source" {
            return self.same("schema") && self.same("identifier");
        }
        let written = |node: &Json, key: &str| bare(&node["unrendered_config"][key]);
        ["database", "schema", "alias"].iter().all(|k| written(self.old, k) == written(self.new, k))
    }

    fn same_persisted_description(&self) -> bool {
        let persists = |what: &str| self.new["config"]["persist_docs"][what] == Json::Bool(true);
        let columns = |node: &Json| -> BTreeMap<String, String> {
            let columns = node["columns"].as_object().into_iter().flatten();
            columns.map(|(name, c)| (name.clone(), text(c, "description").to_string())).collect()
        };
        (!persists("relation") || text(self.old, "description") == text(self.new, "description"))
            && (!persists("columns") || columns(self.old) == columns(self.new))
    }

    fn same_contract(&self) -> bool {
        let enforced = |node: &Json| node["contract"]["enforced"] == Json::Bool(true);
        match (enforced(self.old), enforced(self.new)) {
            (false, false) => true,
            // Digests of two writers say nothing of each other.
            (true, true) => types(self.old) == types(self.new),
            _ => false,
        }
    }
}

/// What a unit test gives to each input, which is written in more ways than one.
fn inputs(test: &Json) -> BTreeMap<String, Json> {
    let given = test["given"].as_array().into_iter().flatten();
    let name = |input: &Json| text(input, "input").replace('"', "'").split_whitespace().collect::<String>();
    given.map(|input| (name(input), bare(&input["rows"]))).collect()
}

/// Columns with their declared types and constraints.
fn types(node: &Json) -> Vec<(String, String, Json)> {
    let columns = node["columns"].as_object().into_iter().flatten();
    let one =
        |(name, c): (&String, &Json)| (name.clone(), text(c, "data_type").to_lowercase(), bare(&c["constraints"]));
    let mut types: Vec<_> = columns.map(one).collect();
    types.sort_by(|a, b| a.0.cmp(&b.0));
    types
}

/// Without what says nothing: nulls, empty mappings and lists.
fn bare(json: &Json) -> Json {
    let says = |v: &Json| match v {
        Json::Null => false,
        Json::Object(m) => !m.is_empty(),
        Json::Array(a) => !a.is_empty(),
        _ => true,
    };
    match json {
        Json::Object(members) => {
            let kept: Map<String, Json> =
                members.iter().map(|(k, v)| (k.clone(), bare(v))).filter(|(_, v)| says(v)).collect();
            if kept.is_empty() { Json::Null } else { Json::Object(kept) }
        }
        Json::Array(items) if items.is_empty() => Json::Null,
        Json::Array(items) => Json::Array(items.iter().map(bare).collect()),
        other => other.clone(),
    }
}

/// A `state:` or `result:` value that there is not.
pub(super) fn unknown(method: &str, value: &str, known: &[&str]) -> Error {
    Error::user("bad-selection", format!("unknown value `{value}` of `{method}:`")).with_hint(suggest(
        value,
        known.iter().copied(),
        "it can be",
    ))
}

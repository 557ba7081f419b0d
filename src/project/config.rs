//! Configuration of models: from `smelt.yml`, properties and `config()` in the file, in that order, later ones win.
//!
//! A [`RawConfig`] keeps every value with the place it was written at, so that a wrong value is reported there whatever
//! level it came from. [`model_config`] turns the merged result into typed values.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::problems::{Problems, suggest};
use super::reader::parse_bool;
use super::yaml::{Entry, Node, Value};
use super::{Materialization, ModelConfig, PersistDocs, contract, incremental, schedule, snapshot, watermark};
use crate::error::Span;

/// A configuration value and where it is written.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub value: Json,
    pub span: Span,
    /// What the last level that says it has written, where that is not `value`: Jinja, and what is not merged with the levels below.
    pub written: Option<Json>,
}

pub(super) type RawConfig = BTreeMap<String, Setting>;

/// Configuration for everything below a folder.
#[derive(Debug, Clone)]
pub(super) struct Level {
    /// `[project, folder, …]`; empty: everything.
    pub path: Vec<String>,
    pub config: RawConfig,
    /// The same as it stands in the file; keys without `+`.
    pub entries: Vec<Entry>,
    /// Where the folder is named.
    pub span: Option<Span>,
}

/// Keys that do something.
pub(super) const MODEL_KEYS: &[&str] = &[
    "materialized",
    "schema",
    "alias",
    "tags",
    "meta",
    "enabled",
    "partition_by",
    "deletion_vectors",
    "incremental",
    "skip_change_commits",
    "emit",
    "watermark",
    "on_foreign_change",
    "full_refresh",
    "schedule",
    "table_properties",
    "tblproperties",
    "persist_docs",
];

/// Keys of dbt and later versions: kept, and harmless.
pub(super) const KEPT_KEYS: &[&str] = &[
    "description",
    "pre_hook",
    "pre-hook",
    "post_hook",
    "post-hook",
    "database",
    "unique_key",
    "incremental_strategy",
    "incremental_predicates",
    "predicates",
    "on_schema_change",
    "merge_update_columns",
    "merge_exclude_columns",
    "begin",
    "batch_size",
    "lookback",
    "concurrent_batches",
    "column_types",
    "quote_columns",
    "delimiter",
    "watermark",
    "contract",
    "docs",
    "grants",
    "group",
    "access",
    "cluster_by",
    "liquid_clustered_by",
    "file_format",
    "location_root",
    "event_time",
    "freshness",
    "quoting",
    "severity",
    "where",
    "limit",
    "store_failures",
    "store_failures_as",
    "warn_if",
    "error_if",
    "fail_calc",
    "strategy",
    "updated_at",
    "check_cols",
    "hard_deletes",
    "invalidate_hard_deletes",
    "snapshot_meta_column_names",
    "dbt_valid_to_current",
    "target_schema",
    "target_database",
];

/// Keys that would change what a table holds, and do not yet: saying nothing would be lying.
pub(super) const LATER_KEYS: &[&str] = &["emit", "sql_header"];

/// Hooks: their Jinja is rendered when they run.
pub(super) const HOOK_KEYS: &[&str] =
    &["pre_hook", "pre-hook", "post_hook", "post-hook", "+pre_hook", "+pre-hook", "+post_hook", "+post-hook"];

/// The name under which hooks add up, however the key is written.
fn canonical(key: &str) -> &str {
    match key {
        "pre_hook" => "pre-hook",
        "post_hook" => "post-hook",
        other => other,
    }
}

/// Records hooks that are neither SQL, nor a list of it, nor mappings with `sql`.
pub(super) fn check_hooks(key: &str, value: &Json, span: &Span, p: &mut Problems) {
    let is_hook = |hook: &Json| match hook {
        Json::String(_) => true,
        Json::Object(members) => members.get("sql").is_some_and(Json::is_string),
        _ => false,
    };
    if !as_list(value).iter().all(is_hook) {
        let message = format!("`{key}` must be SQL, or a list of SQL");
        p.error("wrong-type", span.clone(), message, "a hook is text, or a mapping: {sql: …, transaction: false}");
    }
}

/// Flattens `models: {project: {folder: {+key: …}}}`, outermost folders first.
pub(super) fn flatten(node: &Node, known: &[&str], p: &mut Problems) -> Vec<Level> {
    let mut levels = Vec::new();
    flatten_into(node, known, Vec::new(), None, &mut levels, p);
    // A folder named deeper in the tree wins over its parents wherever it is written.
    levels.sort_by_key(|l| l.path.len());
    levels
}

fn flatten_into(
    node: &Node,
    known: &[&str],
    path: Vec<String>,
    span: Option<Span>,
    levels: &mut Vec<Level>,
    p: &mut Problems,
) {
    let Value::Map(entries) = &node.value else {
        if !matches!(node.value, Value::Null) {
            p.error("wrong-type", node.span(), format!("configuration must be a mapping, found {}", node.kind()), "");
        }
        return;
    };
    let (mut config, mut own) = (RawConfig::new(), Vec::new());
    for entry in entries {
        let is_known = known.contains(&entry.key.as_str()) || KEPT_KEYS.contains(&entry.key.as_str());
        let bare = entry.key.strip_prefix('+');
        if bare.is_some() || is_known || !matches!(entry.value.value, Value::Map(_)) {
            let key = bare.unwrap_or(&entry.key).to_string();
            config.insert(key.clone(), Setting::of(&entry.value));
            warn_unknown(&key, entry.value.span_of(entry.key_mark), known, p);
            own.push(Entry { key, ..entry.clone() });
        } else {
            let mut below = path.clone();
            below.push(entry.key.clone());
            flatten_into(&entry.value, known, below, Some(entry.value.span_of(entry.key_mark)), levels, p);
        }
    }
    if !config.is_empty() || span.is_some() {
        levels.push(Level { path, config, entries: own, span });
    }
}

/// The configuration of a YAML `config:` block; unknown keys are kept and noted.
pub(super) fn read(node: &Node, known: &[&str], p: &mut Problems) -> RawConfig {
    let mut config = RawConfig::new();
    let Value::Map(entries) = &node.value else {
        if !matches!(node.value, Value::Null) {
            p.error("wrong-type", node.span(), format!("`config` must be a mapping, found {}", node.kind()), "");
        }
        return config;
    };
    // dbt and smelt can share a repository: `meta: {smelt: {…}}` says what dbt would not accept.
    for entry in node.get("meta").and_then(|m| m.get("smelt")).map_or(&[][..], Node::entries) {
        warn_unknown(&entry.key, entry.value.span_of(entry.key_mark), known, p);
        config.insert(entry.key.clone(), Setting::of(&entry.value));
    }
    for entry in entries {
        let key = entry.key.strip_prefix('+').unwrap_or(&entry.key);
        warn_unknown(key, entry.value.span_of(entry.key_mark), known, p);
        config.insert(key.to_string(), Setting::of(&entry.value));
    }
    config
}

pub(super) fn read_model(node: &Node, p: &mut Problems) -> RawConfig {
    read(node, MODEL_KEYS, p)
}

/// Notes a key of `config:` that nobody knows: it is kept, and probably a typing error.
pub(super) fn warn_unknown(key: &str, span: Span, known: &[&str], p: &mut Problems) {
    if LATER_KEYS.contains(&key) {
        p.warn(
            "ignored-config",
            span,
            format!("`{key}` has no effect in this version of smelt"),
            "the value is kept in the manifest",
        );
    } else if !known.contains(&key) && !KEPT_KEYS.contains(&key) && key != "meta" {
        let hint = match crate::error::did_you_mean(key, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? It is kept, and has no effect"),
            None => "it is kept, and has no effect; put keys of your own under `meta:`".to_string(),
        };
        p.warn("unknown-config", span, format!("unknown config `{key}`"), hint);
    }
}

/// Notes unknown keys of a `config()` call in a model.
pub(super) fn warn_unknown_in_file(key: &str, span: Span, p: &mut Problems) {
    warn_unknown(key, span, MODEL_KEYS, p);
}

/// `over` on top of `base`: tags add up, `meta` and table properties merge by key, everything else is replaced.
pub(super) fn merge(base: &mut RawConfig, over: &RawConfig) {
    for (key, setting) in over {
        let key = canonical(key);
        let merged = match (key, base.get(key)) {
            ("pre-hook" | "post-hook", below) => {
                let mut hooks = below.map(|s| as_list(&s.value)).unwrap_or_default();
                hooks.extend(as_list(&setting.value));
                Json::Array(hooks)
            }
            ("tags", Some(below)) => {
                let mut tags = as_list(&below.value);
                for tag in as_list(&setting.value) {
                    if !tags.contains(&tag) {
                        tags.push(tag);
                    }
                }
                Json::Array(tags)
            }
            ("meta" | "table_properties" | "tblproperties" | "properties" | "options", Some(below)) => {
                match (&below.value, &setting.value) {
                    (Json::Object(below), Json::Object(over)) => {
                        let mut all = below.clone();
                        all.extend(over.clone());
                        Json::Object(all)
                    }
                    (_, over) => over.clone(),
                }
            }
            _ => setting.value.clone(),
        };
        let written = setting.written.clone().or_else(|| (merged != setting.value).then(|| setting.value.clone()));
        base.insert(key.to_string(), Setting { value: merged, span: setting.span.clone(), written });
    }
}

/// Configuration as it is written: Jinja as text, of each key what the last level says.
pub(super) fn written(raw: &RawConfig) -> BTreeMap<String, Json> {
    raw.iter().map(|(k, s)| (k.clone(), s.written.clone().unwrap_or_else(|| s.value.clone()))).collect()
}

fn as_list(value: &Json) -> Vec<Json> {
    match value {
        Json::Array(items) => items.clone(),
        Json::Null => Vec::new(),
        one => vec![one.clone()],
    }
}

/// The defaults of all folders that contain `fqn` (`[project, folder, …, model]`).
pub(super) fn defaults(levels: &[Level], fqn: &[String]) -> RawConfig {
    let mut config = RawConfig::new();
    for level in levels.iter().filter(|l| fqn.starts_with(&l.path)) {
        merge(&mut config, &level.config);
    }
    config
}

/// What a model is after inheritance.
#[derive(Debug, Clone)]
pub(super) struct Configured {
    pub materialized: Materialization,
    pub schema: Option<String>,
    pub alias: Option<String>,
    pub tags: Vec<String>,
    pub config: ModelConfig,
}

const MATERIALIZATIONS: &[(&str, Materialization)] = &[
    ("streaming_table", Materialization::StreamingTable),
    ("materialized_view", Materialization::MaterializedView),
    ("view", Materialization::View),
    ("ephemeral", Materialization::Ephemeral),
    ("table", Materialization::Table),
    ("incremental", Materialization::Incremental),
    ("snapshot", Materialization::Snapshot),
];

/// Checks and types the merged configuration of a model that stands at `at`; `default` is how it is materialized unless it says so.
pub(super) fn model_config(raw: &RawConfig, default: Materialization, at: &Span, p: &mut Problems) -> Configured {
    let materialized = match raw.get("materialized") {
        Some(setting) => materialization(setting, default, p),
        None => default,
    };
    let schedule = raw.get("schedule").and_then(|s| schedule::read(s, p));
    if let (Some(_), false) = (&schedule, materialized.is_scheduled()) {
        let kind = materialized.name();
        let message = format!("`schedule` has no effect: a {kind} is always up to date");
        let hint = "it is for `table`, `incremental` and `snapshot`; without it they run at start";
        p.warn("ignored-config", raw["schedule"].span.clone(), message, hint);
    }
    let properties = |key: &str, p: &mut Problems| match raw.get(key) {
        Some(setting) => setting.object(key, p),
        None => BTreeMap::new(),
    };
    let mut table_properties = properties("tblproperties", p);
    table_properties.extend(properties("table_properties", p));
    for key in ["pre-hook", "post-hook"] {
        if let Some(hooks) = raw.get(key) {
            check_hooks(key, &hooks.value, &hooks.span, p);
        }
    }
    let flag = |key: &str, p: &mut Problems| raw.get(key).and_then(|s| s.boolean(key, p));
    let strict = raw.get("incremental").is_some_and(|s| match s.value.as_str() {
        Some("strict") => true,
        Some("auto") => false,
        _ => {
            let shown = s.shown();
            p.error(
                "unknown-value",
                s.span.clone(),
                format!("`incremental` cannot be {shown}"),
                "it can be: auto, strict",
            );
            false
        }
    });
    let on_foreign_change = raw.get("on_foreign_change").and_then(|s| match s.value.as_str() {
        Some("park") => Some(super::OnForeignChange::Park),
        Some("repair") => Some(super::OnForeignChange::Repair),
        _ => {
            let message = format!("`on_foreign_change` cannot be {}", s.shown());
            p.error("unknown-value", s.span.clone(), message, "it can be: park, repair");
            None
        }
    });
    let emit_on_close = raw.get("emit").is_some_and(|s| {
        let closes = s.value.as_str() == Some("on_close");
        if !closes {
            let message = format!("`emit` cannot be {}", s.shown());
            p.error("unknown-value", s.span.clone(), message, "it can be: on_close");
        }
        closes
    });
    let config = ModelConfig {
        emit_on_close,
        watermark: watermark::of_model(raw, p),
        partition_by: raw.get("partition_by").map_or_else(Vec::new, |s| s.texts("partition_by", p)),
        deletion_vectors: flag("deletion_vectors", p),
        incremental_strict: strict,
        skip_change_commits: flag("skip_change_commits", p).unwrap_or(false),
        on_foreign_change,
        full_refresh: flag("full_refresh", p),
        enabled: flag("enabled", p).unwrap_or(true),
        schedule: schedule.filter(|_| materialized.is_scheduled()),
        snapshot: match materialized {
            Materialization::Snapshot => snapshot::read(raw, at, p),
            _ => None,
        },
        incremental: match materialized {
            Materialization::Incremental => incremental::read(raw, at, p),
            _ => None,
        },
        contract: contract::is_enforced(raw),
        event_time: incremental::event_time(raw, p),
        persist_docs: persist_docs(raw, p),
        table_properties,
        all: raw.iter().map(|(k, s)| (k.clone(), s.value.clone())).collect(),
        written: written(raw),
    };
    let name = |key: &str, p: &mut Problems| {
        let setting = raw.get(key).filter(|s| !s.value.is_null())?;
        let text = setting.text(key, p)?;
        let usable = !text.is_empty()
            && !text.contains(['/', '\\'])
            && !text.starts_with('.')
            && !text.chars().any(char::is_control);
        if !usable {
            let message = format!("`{key}` cannot be `{text}`: it becomes a folder's name");
            p.error("bad-name", setting.span.clone(), message, "use letters, digits and _");
        }
        usable.then_some(text)
    };
    Configured {
        materialized,
        schema: name("schema", p).or_else(|| match materialized {
            // Where dbt's older snapshots say it.
            Materialization::Snapshot => name("target_schema", p),
            _ => None,
        }),
        alias: name("alias", p),
        tags: raw.get("tags").map_or_else(Vec::new, |s| s.texts("tags", p)),
        config,
    }
}

fn persist_docs(raw: &RawConfig, p: &mut Problems) -> PersistDocs {
    let mut found = PersistDocs::default();
    let Some(setting) = raw.get("persist_docs").filter(|s| !s.value.is_null()) else { return found };
    let hint = "write persist_docs: {relation: true, columns: true}";
    let Json::Object(members) = &setting.value else {
        let message = format!("`persist_docs` must be a mapping, found {}", setting.shown());
        p.error("wrong-type", setting.span.clone(), message, hint);
        return found;
    };
    for (key, value) in members {
        match (key.as_str(), value.as_bool()) {
            ("relation", Some(on)) => found.relation = on,
            ("columns", Some(on)) => found.columns = on,
            (_, None) => {
                let message = format!("`persist_docs: {{{key}: …}}` must be true or false, found {value}");
                p.error("wrong-type", setting.span.clone(), message, hint);
            }
            (other, Some(_)) => {
                let message = format!("`persist_docs` has no `{other}`");
                p.warn("unknown-config", setting.span.clone(), message, hint);
            }
        }
    }
    found
}

fn materialization(setting: &Setting, default: Materialization, p: &mut Problems) -> Materialization {
    let Some(text) = setting.text("materialized", p) else { return default };
    if let Some((_, found)) = MATERIALIZATIONS.iter().find(|(name, _)| *name == text) {
        return *found;
    }
    let hint = match text.as_str() {
        "seed" => "a seed is a CSV file in seeds/: it needs no SQL".to_string(),
        "dynamic_table" => "did you mean `materialized_view`?".to_string(),
        other => {
            let hint = suggest(other, MATERIALIZATIONS.iter().map(|(name, _)| *name), "it can be");
            match hint.starts_with("did you mean") {
                true => hint,
                false => format!("{hint}; materializations of one's own cannot be run"),
            }
        }
    };
    p.error("unknown-materialization", setting.span.clone(), format!("unknown materialization `{text}`"), hint);
    default
}

impl Setting {
    /// The value of a node.
    pub fn of(node: &Node) -> Self {
        let (value, written) = (node.json(), node.written_json());
        let written = (written != value).then_some(written);
        Setting { value, span: node.span(), written }
    }

    /// A value that stands at `span`.
    pub fn new(value: Json, span: Span) -> Self {
        Setting { value, span, written: None }
    }

    fn wrong(&self, key: &str, expected: &str, p: &mut Problems) {
        let message = format!("`{key}` must be {expected}, found {}", self.shown());
        p.error("wrong-type", self.span.clone(), message, "");
    }

    pub fn shown(&self) -> String {
        match &self.value {
            Json::Null => "nothing".to_string(),
            Json::Array(_) => "a list".to_string(),
            Json::Object(_) => "a mapping".to_string(),
            Json::String(s) => format!("`{s}`"),
            other => format!("`{other}`"),
        }
    }

    pub fn text(&self, key: &str, p: &mut Problems) -> Option<String> {
        match &self.value {
            Json::String(s) => Some(s.clone()),
            Json::Number(n) => Some(n.to_string()),
            Json::Bool(b) => Some(b.to_string()),
            _ => {
                self.wrong(key, "text", p);
                None
            }
        }
    }

    pub fn boolean(&self, key: &str, p: &mut Problems) -> Option<bool> {
        let value = match &self.value {
            Json::Bool(b) => Some(*b),
            Json::String(s) => parse_bool(s),
            _ => None,
        };
        if value.is_none() && !self.value.is_null() {
            self.wrong(key, "true or false", p);
        }
        value
    }

    pub fn texts(&self, key: &str, p: &mut Problems) -> Vec<String> {
        let mut texts = Vec::new();
        for item in as_list(&self.value) {
            match item {
                Json::String(s) => texts.push(s),
                Json::Number(n) => texts.push(n.to_string()),
                _ => self.wrong(key, "a list of names", p),
            }
        }
        texts
    }

    pub fn object(&self, key: &str, p: &mut Problems) -> BTreeMap<String, String> {
        match &self.value {
            Json::Object(members) => {
                let text = |v: &Json| v.as_str().map_or_else(|| v.to_string(), str::to_string);
                members.iter().map(|(k, v)| (k.clone(), text(v))).collect()
            }
            Json::Null => BTreeMap::new(),
            _ => {
                self.wrong(key, "a mapping", p);
                BTreeMap::new()
            }
        }
    }
}

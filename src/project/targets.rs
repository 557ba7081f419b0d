//! Targets: where a project's tables are and how it runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value as Json;

use super::problems::Problems;
use super::yaml::{Node, Value};
use super::{Connection, LoadOptions, OnForeignChange, StateSnapshots, Target};
use crate::error::Span;

const KEYS: &[&str] = &[
    "lake",
    "schema",
    "commit_interval",
    "epoch",
    "heartbeat",
    "deleted_file_retention",
    "log_retention",
    "runs_retention",
    "fsync",
    "memory_limit",
    "threads",
    "connections",
    "state_snapshots",
    "on_foreign_change",
];

const CONNECTION_TYPES: &[(&str, ())] = &[("kafka", ()), ("files", ()), ("delta", ()), ("postgres", ()), ("http", ())];

/// Schema of models that no configuration gives one.
pub(super) const DEFAULT_SCHEMA: &str = "default";

/// What the lake is called where a database is asked for, unless a profile gives its name.
const DEFAULT_DATABASE: &str = "lake";

/// A target with every default, and no lake.
pub(super) fn nowhere(name: &str) -> Target {
    Target {
        name: name.to_string(),
        lake: String::new(),
        database: DEFAULT_DATABASE.to_string(),
        commit_interval: Duration::from_secs(1),
        epoch_max_rows: 131_072,
        epoch_max_files: 1_000,
        heartbeat: Duration::from_secs(60),
        deleted_file_retention: Duration::from_secs(3600),
        log_retention: Duration::from_secs(86_400),
        runs_retention: Duration::from_secs(30 * 86_400),
        fsync: true,
        memory_limit: None,
        threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
        connections: BTreeMap::new(),
        state_snapshots: StateSnapshots::default(),
        on_foreign_change: OnForeignChange::default(),
    }
}

/// Reads a target whose Jinja has been rendered; `default_lake` is where its tables go unless it says so. Returns it with the
/// schema it gives models that name none.
pub(super) fn read(
    name: &str,
    node: Option<&Node>,
    at: &Span,
    default_lake: Option<String>,
    options: &LoadOptions,
    p: &mut Problems,
) -> (Target, Option<String>) {
    let mut target = nowhere(name);
    let mut schema = None;
    let mut lake = None;
    let mut has_lake = false;
    if let Some(node) = node {
        node.check_keys(&format!("target `{name}`"), KEYS, p);
        has_lake = node.get("lake").is_some();
        lake = node.get("lake").and_then(|n| n.text("lake", p));
        if let Some(text) = node.get("schema").and_then(|n| n.text("schema", p)) {
            schema = Some(text);
        }
        let duration = |key: &str, into: &mut Duration, p: &mut Problems| {
            if let Some(value) = node.get(key).and_then(|n| n.duration(key, p)) {
                *into = value;
            }
        };
        duration("commit_interval", &mut target.commit_interval, p);
        duration("heartbeat", &mut target.heartbeat, p);
        duration("deleted_file_retention", &mut target.deleted_file_retention, p);
        duration("log_retention", &mut target.log_retention, p);
        duration("runs_retention", &mut target.runs_retention, p);
        if let Some(epoch) = node.get("epoch")
            && epoch.check_keys("`epoch`", &["max_rows", "max_files"], p)
        {
            let count = |key: &str, into: &mut usize, p: &mut Problems| {
                if let Some(value) = epoch.get(key).and_then(|n| n.count(key, 1, p)) {
                    *into = value;
                }
            };
            count("max_rows", &mut target.epoch_max_rows, p);
            count("max_files", &mut target.epoch_max_files, p);
        }
        if let Some(fsync) = node.get("fsync").and_then(|n| n.boolean("fsync", p)) {
            target.fsync = fsync;
        }
        target.memory_limit = node.get("memory_limit").and_then(|n| n.bytes("memory_limit", p));
        if let Some(threads) = node.get("threads").and_then(|n| n.count("threads", 1, p)) {
            target.threads = threads;
        }
        let choices = &[("park", OnForeignChange::Park), ("repair", OnForeignChange::Repair)];
        if let Some(choice) = node.get("on_foreign_change").and_then(|n| n.choice("on_foreign_change", choices, p)) {
            target.on_foreign_change = choice;
        }
        if let Some(states) = node.get("state_snapshots")
            && states.check_keys("`state_snapshots`", &["enabled", "interval", "min_rows"], p)
        {
            let into = &mut target.state_snapshots;
            if let Some(enabled) = states.get("enabled").and_then(|n| n.boolean("enabled", p)) {
                into.enabled = enabled;
            }
            if let Some(interval) = states.get("interval").and_then(|n| n.duration("interval", p)) {
                into.interval = interval;
            }
            if let Some(rows) = states.get("min_rows").and_then(|n| n.count("min_rows", 0, p)) {
                into.min_rows = rows as u64;
            }
        }
        if let Some(connections) = node.get("connections") {
            target.connections = read_connections(connections, p);
        }
    }
    let lake = if has_lake { lake } else { lake.or(default_lake) };
    match options.lake.clone().or(lake) {
        Some(lake) => target.lake = located(&lake, &options.dir),
        // Its value is wrong, and that has been said.
        None if has_lake => {}
        None => p.error(
            "missing-lake",
            at.clone(),
            format!("target `{name}` has no `lake`"),
            format!("say where its tables go: targets: {{{name}: {{lake: ./lake}}}}"),
        ),
    }
    (target, schema)
}

pub(super) fn read_connections(node: &Node, p: &mut Problems) -> BTreeMap<String, Connection> {
    let mut connections = BTreeMap::new();
    let Value::Map(entries) = &node.value else {
        if !matches!(node.value, Value::Null) {
            p.error("wrong-type", node.span(), format!("`connections` must be a mapping, found {}", node.kind()), "");
        }
        return connections;
    };
    for entry in entries {
        let mut properties = entry.value.properties(&entry.key, p);
        let kind = match entry.value.get("type") {
            Some(node) => {
                node.choice("type", CONNECTION_TYPES, p);
                properties.remove("type").unwrap_or_default()
            }
            None => {
                let message = format!("connection `{}` has no `type`", entry.key);
                p.error("missing-type", entry.value.span_of(entry.key_mark), message, "add type: kafka");
                String::new()
            }
        };
        connections.insert(entry.key.clone(), Connection { kind: kind.trim().to_lowercase(), properties });
    }
    connections
}

/// A target that is not run on: its keys are checked, its values are not rendered.
pub(super) fn check_unchosen(node: &Node, p: &mut Problems) {
    if !matches!(node.value, Value::Null) {
        node.check_keys("a target", KEYS, p);
    }
}

/// `target.*` as templates see it. No connection: they may hold secrets.
pub(super) fn jinja_values(target: &Target, schema: &str, project: &str) -> BTreeMap<String, Json> {
    BTreeMap::from([
        ("name".to_string(), Json::from(target.name.as_str())),
        ("schema".to_string(), Json::from(schema)),
        ("type".to_string(), Json::from("smelt")),
        ("lake".to_string(), Json::from(target.lake.as_str())),
        ("threads".to_string(), Json::from(target.threads)),
        ("profile_name".to_string(), Json::from(project)),
    ])
}

/// A path relative to the project made absolute; URLs and absolute paths stay.
pub(super) fn located(path: &str, dir: &Path) -> String {
    if path.contains("://") || Path::new(path).is_absolute() {
        return path.to_string();
    }
    let mut out = dir.to_path_buf();
    for part in Path::new(path).components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out.to_string_lossy().into_owned()
}

//! `sources:` in properties files: what a table of the outside looks like and where it is read.

use std::path::Path;
use std::time::Duration;

use super::config::Level;
use super::problems::{Problems, suggest};
use super::properties::Owner;
use super::yaml::{Entry, Node, Value};
use super::{Column, Connector, Format, Include, OnError, SourceTable, Target, Watermark};

const SOURCE_KEYS: &[&str] = &[
    "name",
    "description",
    "config",
    "tables",
    "schema",
    "database",
    "tags",
    "loader",
    "freshness",
    "loaded_at_field",
    "loaded_at_query",
    "quoting",
    "overrides",
];
const TABLE_KEYS: &[&str] = &[
    "name",
    "description",
    "identifier",
    "config",
    "columns",
    "tags",
    "data_tests",
    "tests",
    "freshness",
    "loaded_at_field",
    "loaded_at_query",
    "external",
    "quoting",
    "loader",
];
pub(super) const COLUMN_KEYS: &[&str] = &[
    "name",
    "description",
    "data_type",
    "format",
    "data_tests",
    "tests",
    "tags",
    "quote",
    "constraints",
    "config",
    "policy_tags",
];
pub(super) const CONFIG_KEYS: &[&str] = &[
    "connector",
    "connection",
    "format",
    "start",
    "on_error",
    "include",
    "rescued_data",
    "topic",
    "topics",
    "topic_pattern",
    "path",
    "options",
    "primary_key",
    "watermark",
    "event_time",
    "on_data_loss",
    "properties",
    "enabled",
    "tags",
    "meta",
    "freshness",
    "loaded_at_field",
    "loaded_at_query",
];

const FORMATS: &[(&str, Format)] = &[
    ("json", Format::Json),
    ("csv", Format::Csv),
    ("parquet", Format::Parquet),
    ("raw", Format::Raw),
    ("debezium-json", Format::DebeziumJson),
];

const INCLUDES: &[(&str, Include)] = &[
    ("key", Include::Key),
    ("value", Include::Value),
    ("value_bytes", Include::ValueBytes),
    ("topic", Include::Topic),
    ("partition", Include::Partition),
    ("offset", Include::Offset),
    ("timestamp", Include::Timestamp),
    ("headers", Include::Headers),
    ("processing_time", Include::ProcessingTime),
    ("file", Include::File),
    ("error", Include::Error),
    ("parsed", Include::Parsed),
];

/// A declared table and the YAML its data tests stand in.
#[derive(Debug, Clone)]
pub(super) struct DeclaredTable {
    pub table: SourceTable,
    pub node: Node,
    /// The whole entry of its source.
    pub source: Node,
    /// What the project file of its package says of its folders, and the root project's of a package.
    pub folders: [Option<Node>; 2],
    pub enabled: bool,
}

/// Reads one entry of `sources:`.
pub(super) fn read(node: &Node, owner: &Owner<'_>, p: &mut Problems) -> Vec<DeclaredTable> {
    if !node.check_keys("a source", SOURCE_KEYS, p) {
        return Vec::new();
    }
    hint_misplaced(node, SOURCE_KEYS, p);
    let Some(source) = named(node, "a source", p) else { return Vec::new() };
    let schema = node.get("schema").and_then(|n| n.text("schema", p)).unwrap_or_else(|| source.clone());
    let Some(tables) = node.get("tables") else {
        p.error("missing-tables", node.span(), format!("source `{source}` has no `tables`"), "add tables: [{name: …}]");
        return Vec::new();
    };
    let reader = Reader {
        source: &source,
        schema: &schema,
        entry: node,
        base: node.get("config"),
        declared: node,
        prefix: owner.prefix,
        defaults: owner.defaults,
        target: owner.target,
        dir: owner.dir,
    };
    tables.items("tables", p).iter().filter_map(|table| reader.table(table, p)).collect()
}

/// What a project file says of the folders that hold `fqn`, as a `config:` would: deeper folders win, mappings that add up do.
fn folders(levels: &[Level], fqn: &[String], at: &Node) -> Option<Node> {
    const MERGED: [&str; 3] = ["meta", "properties", "options"];
    let mut all: Vec<Entry> = Vec::new();
    for entry in levels.iter().filter(|l| fqn.starts_with(&l.path)).flat_map(|l| &l.entries) {
        let below = all.iter().position(|e| e.key == entry.key).map(|i| all.remove(i));
        let mut entry = entry.clone();
        if let (Some(below), true) = (below, MERGED.contains(&entry.key.as_str()))
            && let (Value::Map(kept), Value::Map(own)) = (below.value.value, &mut entry.value.value)
        {
            let mut merged: Vec<Entry> = kept.into_iter().filter(|k| own.iter().all(|o| o.key != k.key)).collect();
            merged.append(own);
            *own = merged;
        }
        all.push(entry);
    }
    (!all.is_empty()).then(|| Node { value: Value::Map(all), ..at.clone() })
}

/// Keys of `config:` one level too high: the usual slip.
fn hint_misplaced(node: &Node, known: &[&str], p: &mut Problems) {
    for entry in node.entries() {
        let key = entry.key.as_str();
        if CONFIG_KEYS.contains(&key) && !known.contains(&key) {
            let span = node.span_of(entry.key_mark);
            if let Some(error) =
                p.errors.iter_mut().rev().find(|e| e.code() == "unknown-key" && e.span() == Some(&span))
            {
                *error = error.clone().with_hint(format!("put it under `config:` → config: {{{key}: …}}"));
            }
        }
    }
}

/// The `name` of an entry.
pub(super) fn named(node: &Node, what: &str, p: &mut Problems) -> Option<String> {
    match node.get("name") {
        Some(name) => name.text("name", p),
        None => {
            p.error("missing-name", node.span(), format!("{what} without `name`"), "add name: …");
            None
        }
    }
}

pub(super) struct Reader<'a> {
    pub(super) source: &'a str,
    prefix: &'a [String],
    defaults: [&'a [Level]; 2],
    pub(super) schema: &'a str,
    entry: &'a Node,
    base: Option<&'a Node>,
    /// The whole entry.
    declared: &'a Node,
    pub(super) target: &'a Target,
    pub(super) dir: &'a Path,
}

/// What a `config:` says of a key, itself or under `meta: {smelt: …}`, where dbt does not look.
fn said<'a>(config: &'a Node, key: &str) -> Option<&'a Node> {
    config.get(key).or_else(|| config.get("meta")?.get("smelt")?.get(key))
}

/// What configures a table, what wins first: the root project's folders (for a package's table), its own `config:`, that of its source,
/// the folders of its package.
pub(super) struct Config<'a> {
    pub(super) own: Option<&'a Node>,
    levels: Vec<&'a Node>,
}

impl<'a> Config<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.levels.iter().filter_map(|n| said(n, key)).find(|n| !matches!(n.value, Value::Null))
    }

    /// Entries of a mapping that each level extends.
    pub(super) fn entries(&self, key: &str) -> Vec<&'a Entry> {
        let mut all: Vec<&Entry> = Vec::new();
        for level in self.levels.iter().rev() {
            let own = said(level, key).map_or(&[][..], Node::entries);
            all.retain(|below| own.iter().all(|o| o.key != below.key));
            all.extend(own);
        }
        all
    }
}

impl Reader<'_> {
    fn table(&self, node: &Node, p: &mut Problems) -> Option<DeclaredTable> {
        if !node.check_keys("a source table", TABLE_KEYS, p) {
            return None;
        }
        hint_misplaced(node, TABLE_KEYS, p);
        let name = named(node, "a source table", p)?;
        for config in [self.base, node.get("config")].into_iter().flatten() {
            super::config::read(config, CONFIG_KEYS, p);
        }
        let fqn = [self.prefix, &[self.source.to_string(), name.clone()]].concat();
        let [package_folders, root_folders] = self.defaults.map(|levels| folders(levels, &fqn, node));
        let levels = [root_folders.as_ref(), node.get("config"), self.base, package_folders.as_ref()];
        let config = Config { own: node.get("config"), levels: levels.into_iter().flatten().collect() };
        let format = config.get("format").and_then(|n| self.format(n, p)).unwrap_or(Format::Json);
        let identifier = node.get("identifier").and_then(|n| n.text("identifier", p)).unwrap_or_else(|| name.clone());
        let connector = self.connector(&name, identifier, &config, node, format, p)?;
        let include = self.include(&config, p);
        let rescued_data = config.get("rescued_data").and_then(|n| n.text("rescued_data", p));
        let is_delta = matches!(connector, Connector::Delta { .. });
        let metadata: Vec<&str> = include.iter().map(|(_, n)| n.as_str()).chain(rescued_data.as_deref()).collect();
        let declared = columns(node.get("columns"), true, p);
        // A column that `include` makes may be described and tested, but has its type already.
        let columns: Vec<Column> =
            declared.into_iter().filter(|c| !metadata.contains(&c.name.as_str()) || c.data_type.is_some()).collect();
        for column in &columns {
            if metadata.iter().any(|m| m.eq_ignore_ascii_case(&column.name)) {
                let message =
                    format!("column `{}` is declared and also made by `include` or `rescued_data`", column.name);
                p.error(
                    "duplicate-column",
                    column.span.clone(),
                    message,
                    "rename one of them, or leave `data_type` out",
                );
            } else if column.data_type.is_none() && !is_delta {
                let message =
                    format!("column `{}` of source table `{}.{name}` has no `data_type`", column.name, self.source);
                p.error(
                    "missing-data-type",
                    column.span.clone(),
                    message,
                    "add data_type: STRING (or BIGINT, DECIMAL(18,2), STRUCT<a: INT>, …)",
                );
            }
        }
        if format == Format::Raw
            && !is_delta
            && let Some(column) = columns.iter().find(|c| c.data_type.is_some())
        {
            let message = format!("`format: raw` decodes nothing, so `{}` cannot be a column", column.name);
            p.error(
                "raw-columns",
                column.span.clone(),
                message,
                "read the payload with include: {value: raw_data}, or choose another format",
            );
        }
        let package = self.prefix.first().cloned().unwrap_or_default();
        let table = SourceTable {
            source: self.source.to_string(),
            unique_id: format!("source.{package}.{}.{name}", self.source),
            package,
            fqn,
            description: node.get("description").and_then(|n| n.text("description", p)),
            on_error: config
                .get("on_error")
                .and_then(|n| n.choice("on_error", ON_ERROR, p))
                .unwrap_or(OnError::DeadLetter),
            primary_key: self.primary_key(&config, &columns, format, p),
            event_time: config.get("event_time").and_then(|n| n.text("event_time", p)),
            freshness: {
                let own = [Some(self.declared), self.base, Some(node), node.get("config")];
                let levels = [package_folders.as_ref()].into_iter().chain(own).chain([root_folders.as_ref()]);
                super::freshness::read(&levels.flatten().collect::<Vec<_>>(), p)
            },
            watermark: config.get("watermark").and_then(|n| self.watermark(n, &columns, &metadata, p)),
            connector,
            format,
            include,
            rescued_data,
            columns,
            span: node.get("name").unwrap_or(node).span(),
            name,
        };
        let enabled = config.get("enabled").and_then(|n| n.boolean("enabled", p)).unwrap_or(true);
        let folders = [package_folders, root_folders];
        Some(DeclaredTable { table, node: node.clone(), source: self.entry.clone(), folders, enabled })
    }

    fn format(&self, node: &Node, p: &mut Problems) -> Option<Format> {
        match node.as_str() {
            Some(later @ ("avro" | "debezium-avro" | "protobuf")) => {
                let message = format!("`format` cannot be `{later}` in this version of smelt");
                p.error("unknown-value", node.span(), message, "it can be: csv, debezium-json, json, parquet, raw");
                None
            }
            _ => node.choice("format", FORMATS, p),
        }
    }

    fn include(&self, config: &Config<'_>, p: &mut Problems) -> Vec<(Include, String)> {
        let Some(node) = config.get("include") else { return Vec::new() };
        let mut include: Vec<(Include, String)> = Vec::new();
        let mut add = |key: &str, column: String, key_span, p: &mut Problems| match INCLUDES
            .iter()
            .find(|(name, _)| *name == key)
        {
            None => {
                let hint = suggest(key, INCLUDES.iter().map(|(name, _)| *name), "it can be");
                p.error("unknown-include", key_span, format!("`include` has no metadata `{key}`"), hint);
            }
            Some(_) if include.iter().any(|(_, name)| name.eq_ignore_ascii_case(&column)) => {
                p.error(
                    "duplicate-column",
                    key_span,
                    format!("`include` makes two columns `{column}`"),
                    "rename one of them",
                );
            }
            Some((_, what)) => include.push((*what, column)),
        };
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    if let Some(column) = entry.value.text(&entry.key, p) {
                        add(&entry.key, column, node.span_of(entry.key_mark), p);
                    }
                }
            }
            Value::Seq(items) => {
                for item in items {
                    if let Some(key) = item.text("include", p) {
                        add(&key, key.clone(), item.span(), p);
                    }
                }
            }
            _ => p.error(
                "wrong-type",
                node.span(),
                format!("`include` must be a mapping, found {}", node.kind()),
                "write include: {value: raw_data, offset: _offset}",
            ),
        }
        include
    }

    fn primary_key(&self, config: &Config<'_>, columns: &[Column], format: Format, p: &mut Problems) -> Vec<String> {
        let Some(node) = config.get("primary_key") else { return Vec::new() };
        if format != Format::DebeziumJson {
            p.error(
                "primary-key",
                node.span(),
                "`primary_key` needs a changelog",
                "use format: debezium-json, or deduplicate in a model with row_number() = 1",
            );
        }
        let keys = node.texts("primary_key", p).unwrap_or_default();
        let mut found = Vec::new();
        for key in keys {
            match columns
                .iter()
                .find(|c| c.name == key)
                .or_else(|| columns.iter().find(|c| c.name.eq_ignore_ascii_case(&key)))
            {
                Some(column) => found.push(column.name.clone()),
                None => {
                    let hint = suggest(&key, columns.iter().map(|c| c.name.as_str()), "columns");
                    p.error(
                        "unknown-column",
                        node.span(),
                        format!("`primary_key` names no declared column: `{key}`"),
                        hint,
                    );
                }
            }
        }
        found
    }

    fn watermark(&self, node: &Node, columns: &[Column], metadata: &[&str], p: &mut Problems) -> Option<Watermark> {
        if !node.check_keys("`watermark`", &["column", "delay", "idle_timeout"], p) {
            return None;
        }
        let Some(column) = node.get("column") else {
            p.error(
                "missing-column",
                node.span(),
                "`watermark` has no `column`",
                "write watermark: {column: ts, delay: 10 minutes}",
            );
            return None;
        };
        let name = column.text("column", p)?;
        let known: Vec<&str> = columns.iter().map(|c| c.name.as_str()).chain(metadata.iter().copied()).collect();
        let found = known.iter().find(|k| **k == name).or_else(|| known.iter().find(|k| k.eq_ignore_ascii_case(&name)));
        let Some(found) = found else {
            let hint = suggest(&name, known.iter().copied(), "columns");
            p.error("unknown-column", column.span(), format!("`watermark` names no declared column: `{name}`"), hint);
            return None;
        };
        let duration = |key: &str, default: u64, p: &mut Problems| match node.get(key) {
            Some(node) => node.duration(key, p),
            None => Some(Duration::from_secs(default)),
        };
        Some(Watermark {
            column: found.to_string(),
            delay: duration("delay", 0, p)?,
            idle_timeout: duration("idle_timeout", 30, p)?,
        })
    }
}

const ON_ERROR: &[(&str, OnError)] =
    &[("dead_letter", OnError::DeadLetter), ("keep", OnError::Keep), ("fail", OnError::Fail)];

/// The columns of a source table or model; a column without a name is recorded and left out. With `typed` their types must be
/// types of ours; what a model says of its columns is a description, maybe in a warehouse's words.
pub(super) fn columns(node: Option<&Node>, typed: bool, p: &mut Problems) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for item in node.map_or(&[][..], |n| n.items("columns", p)) {
        if !item.check_keys("a column", COLUMN_KEYS, p) {
            continue;
        }
        let Some(name) = named(item, "a column", p) else { continue };
        let span = item.get("name").unwrap_or(item).span();
        if columns.iter().any(|c| c.name == name) {
            p.error("duplicate-column", span, format!("column `{name}` is declared twice"), "remove one of them");
            continue;
        }
        let text = |key: &str, p: &mut Problems| item.get(key).and_then(|n| n.text(key, p));
        let data_type = text("data_type", p);
        if let (true, Some(sql_type), Some(node)) = (typed, &data_type, item.get("data_type")) {
            super::check_type(sql_type, node, p);
        }
        columns.push(Column { data_type, format: text("format", p), description: text("description", p), name, span });
    }
    columns
}

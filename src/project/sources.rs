//! `sources:` in properties files: what a table of the outside looks like and where it is read.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime};

use super::problems::{Problems, suggest};
use super::targets::located;
use super::yaml::{Entry, Node, Value};
use super::{
    Column, Connection, Connector, FilesConfig, Format, Include, KafkaConfig, OnDataLoss, OnError, SourceTable, Start,
    Target, Topics, Watermark,
};

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
const CONFIG_KEYS: &[&str] = &[
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
    "on_data_loss",
    "properties",
    "enabled",
    "tags",
    "meta",
    "freshness",
    "loaded_at_field",
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
    pub enabled: bool,
}

/// Reads one entry of `sources:`.
pub(super) fn read(node: &Node, target: &Target, dir: &Path, p: &mut Problems) -> Vec<DeclaredTable> {
    if !node.check_keys("a source", SOURCE_KEYS, p) {
        return Vec::new();
    }
    hint_misplaced(node, SOURCE_KEYS, p);
    let Some(source) = named(node, "source", p) else { return Vec::new() };
    let schema = node.get("schema").and_then(|n| n.text("schema", p)).unwrap_or_else(|| source.clone());
    let Some(tables) = node.get("tables") else {
        p.error("missing-tables", node.span(), format!("source `{source}` has no `tables`"), "add tables: [{name: …}]");
        return Vec::new();
    };
    let reader = Reader { source: &source, schema: &schema, base: node.get("config"), target, dir };
    tables.items("tables", p).iter().filter_map(|table| reader.table(table, p)).collect()
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
            p.error("missing-name", node.span(), format!("a {what} without `name`"), "add name: …");
            None
        }
    }
}

struct Reader<'a> {
    source: &'a str,
    schema: &'a str,
    base: Option<&'a Node>,
    target: &'a Target,
    dir: &'a Path,
}

/// `config:` of a source with its table's on top.
struct Config<'a> {
    own: Option<&'a Node>,
    base: Option<&'a Node>,
}

impl<'a> Config<'a> {
    fn get(&self, key: &str) -> Option<&'a Node> {
        let found = |node: Option<&'a Node>| node.and_then(|n| n.get(key)).filter(|n| !matches!(n.value, Value::Null));
        found(self.own).or_else(|| found(self.base))
    }

    /// Entries of a mapping that the table's extends.
    fn entries(&self, key: &str) -> Vec<&'a Entry> {
        let of = |node: Option<&'a Node>| node.and_then(|n| n.get(key)).map_or(&[][..], Node::entries);
        let own: Vec<&Entry> = of(self.own).iter().collect();
        let mut all: Vec<&Entry> = of(self.base).iter().filter(|b| own.iter().all(|o| o.key != b.key)).collect();
        all.extend(own);
        all
    }
}

impl Reader<'_> {
    fn table(&self, node: &Node, p: &mut Problems) -> Option<DeclaredTable> {
        if !node.check_keys("a source table", TABLE_KEYS, p) {
            return None;
        }
        hint_misplaced(node, TABLE_KEYS, p);
        let name = named(node, "source table", p)?;
        for config in [self.base, node.get("config")].into_iter().flatten() {
            super::config::read(config, CONFIG_KEYS, p);
        }
        let config = Config { own: node.get("config"), base: self.base };
        let format = config.get("format").and_then(|n| self.format(n, p)).unwrap_or(Format::Json);
        let identifier = node.get("identifier").and_then(|n| n.text("identifier", p)).unwrap_or_else(|| name.clone());
        let connector = self.connector(&name, identifier, &config, node, format, p)?;
        let include = self.include(&config, p);
        let rescued_data = config.get("rescued_data").and_then(|n| n.text("rescued_data", p));
        let is_delta = matches!(connector, Connector::Delta { .. });
        let metadata: Vec<&str> = include.iter().map(|(_, n)| n.as_str()).chain(rescued_data.as_deref()).collect();
        let declared = columns(node.get("columns"), p);
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
        let table = SourceTable {
            source: self.source.to_string(),
            description: node.get("description").and_then(|n| n.text("description", p)),
            on_error: config
                .get("on_error")
                .and_then(|n| n.choice("on_error", ON_ERROR, p))
                .unwrap_or(OnError::DeadLetter),
            primary_key: self.primary_key(&config, &columns, format, p),
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
        Some(DeclaredTable { table, node: node.clone(), enabled })
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

    fn connector(
        &self,
        name: &str,
        identifier: String,
        config: &Config<'_>,
        table: &Node,
        format: Format,
        p: &mut Problems,
    ) -> Option<Connector> {
        let delta = |path| Connector::Delta { schema: self.schema.to_string(), identifier, path };
        let Some(node) = config.get("connector") else {
            for key in ["topic", "topics", "topic_pattern", "connection", "format"] {
                if let Some(stray) = config.get(key) {
                    let message = format!("source table `{}.{name}` has `{key}` but no `connector`", self.source);
                    p.error("missing-connector", stray.span(), message, "add connector: kafka (or files, datagen)");
                    return None;
                }
            }
            let path = config.get("path").and_then(|n| n.text("path", p)).map(|path| located(&path, self.dir));
            return Some(delta(path));
        };
        match node.text("connector", p)?.to_lowercase().as_str() {
            "kafka" => self.kafka(name, config, table, format, p),
            "files" => self.files(name, config, table, p),
            "datagen" => {
                let options = config.entries("options").into_iter().map(|e| (e.key.clone(), e.value.json())).collect();
                Some(Connector::Datagen { options })
            }
            "delta" => {
                Some(delta(config.get("path").and_then(|n| n.text("path", p)).map(|path| located(&path, self.dir))))
            }
            "postgres" => {
                p.error(
                    "unknown-connector",
                    node.span(),
                    "connector `postgres` is not in this version of smelt",
                    "it can be: datagen, delta, files, kafka",
                );
                None
            }
            other => {
                let hint = suggest(other, ["kafka", "files", "datagen", "delta"], "it can be");
                p.error("unknown-connector", node.span(), format!("unknown connector `{other}`"), hint);
                None
            }
        }
    }

    fn kafka(
        &self,
        name: &str,
        config: &Config<'_>,
        table: &Node,
        format: Format,
        p: &mut Problems,
    ) -> Option<Connector> {
        let at = table.get("name").unwrap_or(table).span();
        if format == Format::Parquet {
            let span = config.get("format").map_or_else(|| at.clone(), Node::span);
            p.error(
                "unknown-value",
                span,
                "a Kafka record cannot be a Parquet file",
                "it can be: csv, debezium-json, json, raw",
            );
        }
        let mut properties = match config.get("connection") {
            Some(node) => self.connection(node, "kafka", p).map(|c| c.properties.clone()).unwrap_or_default(),
            None => BTreeMap::new(),
        };
        properties.extend(
            config.entries("properties").into_iter().filter_map(|e| Some((e.key.clone(), e.value.text(&e.key, p)?))),
        );
        if config.get("connection").is_none() && !properties.contains_key("bootstrap.servers") {
            let message = format!("source table `{}.{name}` has no `connection`", self.source);
            let names = self.target.connections.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let hint = match names.is_empty() {
                true => format!(
                    "declare one: targets: {{{}: {{connections: {{…: {{type: kafka, bootstrap.servers: …}}}}}}}}",
                    self.target.name
                ),
                false => format!("connections of target `{}`: {names}", self.target.name),
            };
            p.error("missing-connection", at.clone(), message, hint);
        }
        let given: Vec<(&str, &Node)> =
            ["topic", "topics", "topic_pattern"].iter().filter_map(|k| Some((*k, config.get(k)?))).collect();
        let topics = match given.as_slice() {
            [] => {
                let message = format!("source table `{}.{name}` has no `topic`", self.source);
                p.error(
                    "missing-topic",
                    at,
                    message,
                    format!("add config: {{topic: {name}}} (or topics: […], or topic_pattern: …)"),
                );
                return None;
            }
            [("topic_pattern", node)] => {
                let pattern = node.text("topic_pattern", p)?;
                if let Err(e) = regex::Regex::new(&pattern) {
                    let reason = e.to_string().lines().last().unwrap_or("").trim_start_matches("error: ").to_string();
                    p.error(
                        "bad-pattern",
                        node.span(),
                        format!("`topic_pattern` is no regular expression: {reason}"),
                        "",
                    );
                }
                Topics::Pattern(pattern)
            }
            [(key, node)] => {
                let names = node.texts(key, p)?;
                if names.is_empty() {
                    p.error("missing-topic", node.span(), format!("`{key}` names no topic"), "");
                }
                Topics::Named(names)
            }
            // A table says one of them, its source another: the table's counts.
            many => match many
                .iter()
                .filter(|(k, _)| config.own.is_some_and(|o| o.get(k).is_some()))
                .collect::<Vec<_>>()
                .as_slice()
            {
                [(key, node)] if *key != "topic_pattern" => Topics::Named(node.texts(key, p)?),
                [(_, node)] => Topics::Pattern(node.text("topic_pattern", p)?),
                _ => {
                    let (second, node) = many[1];
                    p.error(
                        "two-topics",
                        node.span(),
                        format!("`{}` and `{second}` exclude each other", many[0].0),
                        "keep one of them",
                    );
                    return None;
                }
            },
        };
        Some(Connector::Kafka(KafkaConfig {
            properties,
            topics,
            start: config.get("start").and_then(|n| start(n, p)).unwrap_or(Start::Earliest),
            on_data_loss: config
                .get("on_data_loss")
                .and_then(|n| n.choice("on_data_loss", ON_DATA_LOSS, p))
                .unwrap_or(OnDataLoss::Fail),
        }))
    }

    fn connection(&self, node: &Node, kind: &str, p: &mut Problems) -> Option<&Connection> {
        let name = node.text("connection", p)?;
        let Some(connection) = self.target.connections.get(&name) else {
            let known = self.target.connections.keys().map(String::as_str);
            let hint = suggest(&name, known, &format!("connections of target `{}`", self.target.name));
            p.error("unknown-connection", node.span(), format!("no connection `{name}`"), hint);
            return None;
        };
        if connection.kind != kind {
            let message = format!("connection `{name}` has type `{}`, not `{kind}`", connection.kind);
            p.error("unknown-connection", node.span(), message, "");
            return None;
        }
        Some(connection)
    }

    fn files(&self, name: &str, config: &Config<'_>, table: &Node, p: &mut Problems) -> Option<Connector> {
        let Some(path) = config.get("path") else {
            let at = table.get("name").unwrap_or(table).span();
            let message = format!("source table `{}.{name}` has no `path`", self.source);
            p.error("missing-path", at, message, format!("add config: {{path: \"data/{name}/*.json\"}}"));
            return None;
        };
        let options = config.entries("options").into_iter().map(|e| (e.key.clone(), e.value.json())).collect();
        Some(Connector::Files(FilesConfig { path: located(&path.text("path", p)?, self.dir), options }))
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
const ON_DATA_LOSS: &[(&str, OnDataLoss)] = &[("fail", OnDataLoss::Fail), ("skip", OnDataLoss::Skip)];

/// The columns of a source table or model; a column without a name is recorded and left out.
pub(super) fn columns(node: Option<&Node>, p: &mut Problems) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for item in node.map_or(&[][..], |n| n.items("columns", p)) {
        if !item.check_keys("a column", COLUMN_KEYS, p) {
            continue;
        }
        let Some(name) = named(item, "column", p) else { continue };
        let span = item.get("name").unwrap_or(item).span();
        if columns.iter().any(|c| c.name == name) {
            p.error("duplicate-column", span, format!("column `{name}` is declared twice"), "remove one of them");
            continue;
        }
        let text = |key: &str, p: &mut Problems| item.get(key).and_then(|n| n.text(key, p));
        let data_type = text("data_type", p);
        if let (Some(sql_type), Some(node)) = (&data_type, item.get("data_type")) {
            super::check_type(sql_type, node, p);
        }
        columns.push(Column { data_type, format: text("format", p), description: text("description", p), name, span });
    }
    columns
}

/// `earliest`, `latest`, a timestamp, or `{partition: offset}`.
fn start(node: &Node, p: &mut Problems) -> Option<Start> {
    const HINT: &str = "it can be: earliest, latest, a timestamp (2026-01-31T00:00:00Z), or {partition: offset}";
    if let Value::Map(entries) = &node.value {
        let mut offsets = BTreeMap::new();
        for entry in entries {
            match (entry.key.parse::<i32>(), &entry.value.value) {
                (Ok(partition), Value::Int(offset)) if partition >= 0 && *offset >= 0 => {
                    offsets.insert(partition, *offset);
                }
                _ => p.error(
                    "bad-start",
                    node.span_of(entry.key_mark),
                    "`start` must map partitions to offsets",
                    "write start: {0: 1500, 1: 1720}",
                ),
            }
        }
        return Some(Start::Offsets(offsets));
    }
    let text = node.text("start", p)?;
    let start = match text.trim() {
        "earliest" => Some(Start::Earliest),
        "latest" => Some(Start::Latest),
        text => timestamp_micros(text).map(Start::Timestamp),
    };
    if start.is_none() {
        p.error("bad-start", node.span(), format!("`start` cannot be `{text}`"), HINT);
    }
    start
}

/// ISO 8601; without an offset it is UTC.
fn timestamp_micros(text: &str) -> Option<i64> {
    if let Ok(t) =
        DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%:z"))
    {
        return Some(t.timestamp_micros());
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
        if let Ok(t) = NaiveDateTime::parse_from_str(text, format) {
            return Some(t.and_utc().timestamp_micros());
        }
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros())
}

//! Connectors of source tables: which system, where in it, from where on.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, NaiveDateTime};

use super::problems::{Problems, suggest};
use super::sources::{Config, Reader};
use super::targets::located;
use super::yaml::{Node, Value};
use super::{Connection, Connector, FilesConfig, Format, KafkaConfig, OnDataLoss, Start, Topics};

const ON_DATA_LOSS: &[(&str, OnDataLoss)] = &[("fail", OnDataLoss::Fail), ("skip", OnDataLoss::Skip)];

impl Reader<'_> {
    pub(super) fn connector(
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

//! A small project without files: its sources, and models from SQL text.

use arrow::datatypes::SchemaRef;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Span};
use crate::plan::{Compilation, CompiledModel, compile};
use crate::project::*;
use crate::types::Catalog;

pub struct NoTables;

impl Catalog for NoTables {
    fn table_schema(&self, _: &str, _: &str) -> Option<SchemaRef> {
        None
    }
}

pub fn span() -> Span {
    Span { file: "models/test.yml".into(), line: 1, column: 1, width: 1, text: "".into() }
}

fn column(name: &str, data_type: &str) -> Column {
    Column { name: name.into(), data_type: Some(data_type.into()), format: None, description: None, span: span() }
}

fn source(source: &str, name: &str, connector: Connector, columns: &[(&str, &str)]) -> SourceTable {
    SourceTable {
        source: source.into(),
        name: name.into(),
        unique_id: format!("source.test.{source}.{name}"),
        package: "test".into(),
        fqn: vec!["test".into(), source.into(), name.into()],
        description: None,
        connector,
        format: Format::Json,
        columns: columns.iter().map(|(n, t)| column(n, t)).collect(),
        include: vec![],
        rescued_data: None,
        on_error: OnError::DeadLetter,
        primary_key: vec![],
        watermark: None,
        freshness: None,
        event_time: None,
        span: span(),
    }
}

fn files() -> Connector {
    Connector::Files(FilesConfig { path: "/data".into(), options: BTreeMap::new() })
}

fn kafka() -> Connector {
    Connector::Kafka(KafkaConfig {
        properties: BTreeMap::new(),
        topics: Topics::Named(vec!["calls".into()]),
        start: Start::Earliest,
        on_data_loss: OnDataLoss::Fail,
    })
}

/// Sources: `telco.calls` (kafka), `ref.events`, `ref.users`, `ref.sites`, `ref.devices` (files, append-only), `cdc.users` (changelog),
/// `cdc.accounts` (keyed changelog).
pub fn sources() -> Vec<Arc<SourceTable>> {
    let calls = [
        ("sid", "STRING"),
        ("callEventStartTime", "TIMESTAMP"),
        ("from", "STRUCT<number: STRING, Imei: STRING>"),
        ("duration", "INT"),
        ("timestamp", "TIMESTAMP"),
        ("offset", "BIGINT"),
        ("partition", "INT"),
        ("key", "STRING"),
    ];
    let events = [
        ("id", "BIGINT"),
        ("user_id", "BIGINT"),
        ("site_id", "BIGINT"),
        ("device_id", "BIGINT"),
        ("ts", "TIMESTAMP"),
        ("seconds", "BIGINT"),
        ("price", "DOUBLE"),
        ("amount", "DECIMAL(10,2)"),
        ("tags", "ARRAY<STRING>"),
        ("x", "STRUCT<from: STRUCT<number: STRING>, ok: BOOLEAN>"),
    ];
    let users = [("user_id", "BIGINT"), ("city", "STRING"), ("City_Id", "BIGINT"), ("since", "DATE")];
    let mut changes = source("cdc", "users", files(), &users);
    changes.format = Format::DebeziumJson;
    let mut accounts = source("cdc", "accounts", files(), &users);
    accounts.format = Format::DebeziumJson;
    accounts.primary_key = vec!["user_id".into()];
    [
        source("telco", "calls", kafka(), &calls),
        source("ref", "events", files(), &events),
        source("ref", "users", files(), &users),
        source("ref", "sites", files(), &[("site_id", "BIGINT"), ("city_id", "BIGINT"), ("name", "STRING")]),
        source("ref", "devices", files(), &[("device_id", "BIGINT"), ("brand", "STRING")]),
        changes,
        accounts,
    ]
    .into_iter()
    .map(Arc::new)
    .collect()
}

/// A model in schema `m`. Its dependencies are the names its SQL mentions, in double quotes.
pub fn model(name: &str, materialized: Materialization, sql: &str, before: &[Arc<Model>]) -> Model {
    let mut depends_on = Vec::new();
    for m in before {
        if sql.contains(&format!("\"m\".\"{}\"", m.alias)) {
            depends_on.push(Dependency::Model(m.name.clone()));
        }
    }
    for s in sources() {
        if sql.contains(&format!("\"{}\".\"{}\"", s.source, s.name)) {
            depends_on.push(Dependency::Source(s.source.clone(), s.name.clone()));
        }
    }
    Model {
        name: name.into(),
        unique_id: format!("model.test.{name}"),
        package: "test".into(),
        fqn: vec!["test".into(), name.into()],
        schema: "m".into(),
        alias: name.into(),
        deferred: None,
        path: PathBuf::from(format!("queries/{name}.sql")),
        materialized,
        sql: sql.into(),
        source_map: SourceMap::verbatim(format!("queries/{name}.sql").into(), sql),
        asks: Default::default(),
        rerun: None,
        seed: None,
        depends_on,
        config: ModelConfig { enabled: true, ..ModelConfig::default() },
        expectations: vec![],
        columns: vec![],
        tags: vec![],
        description: None,
    }
}

pub fn project(models: Vec<Arc<Model>>) -> Project {
    Project {
        name: "test".into(),
        dir: "/project".into(),
        dialect: Dialect::DataFusion,
        target: Target {
            name: "dev".into(),
            lake: "/lake".into(),
            database: "lake".into(),
            commit_interval: Duration::from_secs(1),
            epoch_max_rows: 1000,
            epoch_max_files: 10,
            heartbeat: Duration::from_secs(600),
            deleted_file_retention: Duration::from_secs(3600),
            log_retention: Duration::from_secs(86400),
            runs_retention: Duration::from_secs(86400),
            fsync: false,
            memory_limit: None,
            threads: 1,
            connections: BTreeMap::new(),
            state_snapshots: StateSnapshots::default(),
            on_foreign_change: OnForeignChange::Park,
        },
        sources: sources(),
        models,
        tests: vec![],
        operations: None,
        asks_selection: false,
        flags: Default::default(),
        selectors: Vec::new(),
        unit_tests: vec![],
        inventory: Default::default(),
        warnings: vec![],
        said: vec![],
    }
}

pub fn compile_all(models: Vec<Arc<Model>>) -> Result<Compilation, Vec<Error>> {
    compile(&project(models), &NoTables, &crate::plan::stopped())
}

/// One materialized view over the sources.
pub fn compile_view(sql: &str) -> Result<Arc<CompiledModel>, Vec<Error>> {
    let model = model("v", Materialization::MaterializedView, sql, &[]);
    compile_all(vec![Arc::new(model)]).map(|c| Arc::clone(&c.models[0]))
}

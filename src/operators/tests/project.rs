//! Projects made in memory for the oracles.

use arrow::datatypes::SchemaRef;
use std::collections::BTreeMap;
use std::time::Duration;

use super::tables::Table;
use crate::error::Span;
use crate::project::*;
use crate::types::Catalog;

/// No table but the project's own.
pub struct NoTables;

impl Catalog for NoTables {
    fn table_schema(&self, _: &str, _: &str) -> Option<SchemaRef> {
        None
    }
}

pub fn span() -> Span {
    Span { file: "m.yml".into(), line: 1, column: 1, width: 1, text: "".into() }
}

/// Files at `path` with the columns of `table`.
pub fn source(schema: &str, table: &Table, path: &str, format: Format, primary_key: &[&str]) -> SourceTable {
    let column = |(name, kind): &(&str, super::tables::Kind)| Column {
        name: (*name).into(),
        data_type: Some(kind.sql().into()),
        format: None,
        description: None,
        span: span(),
    };
    SourceTable {
        source: schema.into(),
        name: table.name.into(),
        unique_id: format!("source.test.{schema}.{}", table.name),
        package: "test".into(),
        fqn: vec!["test".into(), schema.into(), table.name.into()],
        description: None,
        connector: Connector::Files(FilesConfig { path: path.into(), options: BTreeMap::new() }),
        format,
        columns: table.columns.iter().map(column).collect(),
        include: vec![],
        rescued_data: None,
        on_error: OnError::DeadLetter,
        primary_key: primary_key.iter().map(|k| k.to_string()).collect(),
        watermark: None,
        freshness: None,
        event_time: None,
        span: span(),
    }
}

/// Model `name` at `schema.name`.
pub fn model(schema: &str, name: &str, sql: &str, materialized: Materialization, depends_on: Vec<Dependency>) -> Model {
    let path = format!("queries/{name}.sql");
    Model {
        name: name.into(),
        unique_id: format!("model.test.{name}"),
        package: "test".into(),
        fqn: vec!["test".into(), name.into()],
        schema: schema.into(),
        deferred: None,
        alias: name.into(),
        source_map: SourceMap::verbatim(path.clone().into(), sql),
        asks: Default::default(),
        rerun: None,
        seed: None,
        path: path.into(),
        materialized,
        sql: sql.into(),
        depends_on,
        config: ModelConfig { enabled: true, ..ModelConfig::default() },
        expectations: vec![],
        columns: vec![],
        tags: vec![],
        description: None,
    }
}

/// A project whose lake keeps nothing longer than it must.
pub fn project(lake: &str, sources: Vec<SourceTable>, models: Vec<Model>) -> Project {
    Project {
        name: "test".into(),
        dir: "/project".into(),
        dialect: Dialect::DataFusion,
        target: Target {
            name: "dev".into(),
            lake: lake.into(),
            database: "lake".into(),
            commit_interval: Duration::from_secs(3600),
            epoch_max_rows: 1_000_000,
            epoch_max_files: 1000,
            heartbeat: Duration::from_secs(600),
            deleted_file_retention: Duration::ZERO,
            log_retention: Duration::ZERO,
            runs_retention: Duration::ZERO,
            fsync: false,
            memory_limit: None,
            threads: 1,
            connections: BTreeMap::new(),
            // Whatever there is, so that the oracles see it; history is kept as far as it goes back.
            state_snapshots: StateSnapshots { enabled: true, interval: Duration::from_secs(86_400), min_rows: 0 },
            on_foreign_change: OnForeignChange::Park,
        },
        sources: sources.into_iter().map(std::sync::Arc::new).collect(),
        models: models.into_iter().map(std::sync::Arc::new).collect(),
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

//! `catalog.json` (v1): the columns and sizes of the tables as they stand in the lake.

use serde_json::{Map, Value as Json, json};

use super::{Invocation, rfc3339};
use crate::env::Env;

/// A table or view as it was found.
#[derive(Debug, Clone)]
pub struct CatalogTable {
    /// `model.telecom.fact_events`, or of a source.
    pub unique_id: String,
    pub schema: String,
    pub name: String,
    /// `table` or `view`.
    pub kind: &'static str,
    pub comment: Option<String>,
    pub columns: Vec<CatalogColumn>,
    /// None: it has no files of its own.
    pub size: Option<CatalogSize>,
}

#[derive(Debug, Clone)]
pub struct CatalogColumn {
    pub name: String,
    /// SQL type.
    pub data_type: String,
    pub comment: Option<String>,
}

/// What a Delta table is made of.
#[derive(Debug, Clone, Copy)]
pub struct CatalogSize {
    pub rows: u64,
    pub bytes: u64,
    pub files: usize,
    pub version: i64,
    /// Instant of that version, µs since 1970.
    pub last_commit: Option<i64>,
}

/// The artifact; tables of sources (by their id) and of models stand apart. `errors`: tables that could not be read.
pub fn catalog(tables: &[CatalogTable], errors: &[String], invocation: &Invocation, env: &Env) -> Json {
    let (mut nodes, mut sources) = (Map::new(), Map::new());
    let mut sorted: Vec<&CatalogTable> = tables.iter().collect();
    sorted.sort_by(|a, b| a.unique_id.cmp(&b.unique_id));
    for table in sorted {
        let place = if table.unique_id.starts_with("source.") { &mut sources } else { &mut nodes };
        place.insert(table.unique_id.clone(), entry(table));
    }
    json!({
        "metadata": invocation.metadata("catalog/v1", env),
        "nodes": nodes,
        "sources": sources,
        "errors": (!errors.is_empty()).then_some(errors),
    })
}

fn entry(table: &CatalogTable) -> Json {
    let column = |(i, c): (usize, &CatalogColumn)| {
        (c.name.clone(), json!({"type": c.data_type, "index": i + 1, "name": c.name, "comment": c.comment}))
    };
    let columns: Map<String, Json> = table.columns.iter().enumerate().map(column).collect();
    json!({
        "metadata": {
            "type": table.kind,
            "schema": table.schema,
            "name": table.name,
            "database": null,
            "comment": table.comment,
            "owner": null,
        },
        "columns": columns,
        "stats": stats(table.size),
        "unique_id": table.unique_id,
    })
}

fn stats(size: Option<CatalogSize>) -> Json {
    let mut stats = Map::new();
    let mut add = |id: &str, label: &str, value: Json, description: &str| {
        let stat = json!({"id": id, "label": label, "value": value, "include": true, "description": description});
        stats.insert(id.to_string(), stat);
    };
    if let Some(size) = size {
        add("num_rows", "Rows", (size.rows as f64).into(), "Rows in the table");
        add("num_bytes", "Bytes", (size.bytes as f64).into(), "Size of the data files that the newest version reads");
        add("num_files", "Files", (size.files as f64).into(), "Data files that the newest version reads");
        add("version", "Version", (size.version as f64).into(), "Version of the Delta table");
        if let Some(at) = size.last_commit {
            add("last_commit", "Last commit", rfc3339(at).into(), "When that version was committed, UTC");
        }
    }
    let has = !stats.is_empty();
    stats.insert(
        "has_stats".to_string(),
        json!({"id": "has_stats", "label": "Has Stats?", "value": has, "include": false,
               "description": "Indicates whether there are statistics for this table"}),
    );
    Json::Object(stats)
}

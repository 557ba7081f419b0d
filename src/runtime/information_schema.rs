//! `information_schema.tables`, `.columns` and `.schemata`: what queries and templates may read, as relations of their own.
//!
//! They list what a query can name: tables of models that are there, views, tables of rejected rows, sources. A table that no model
//! makes any more is not in them. They are made when a query names them, and always say what is there now.

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use datafusion::catalog::{MemTable, TableProvider};
use std::collections::BTreeSet;
use std::sync::Arc;

use super::query::{Reader, mentions};
use crate::error::Result;
use crate::project::Connector;
use crate::types::sql_type_name;

/// Name of the schema; no model's.
pub(super) const SCHEMA: &str = "information_schema";

/// A relation a query may name.
struct Entry {
    schema: String,
    name: String,
    kind: &'static str,
    comment: Option<String>,
    columns: Vec<ColumnEntry>,
}

/// Name, SQL type, description.
type ColumnEntry = (String, String, Option<String>);

impl Reader {
    /// Those of its relations that `sql`, in lower case, names.
    pub(super) async fn information_schema(&self, sql: &str) -> Result<Vec<(String, String, Arc<dyn TableProvider>)>> {
        if !mentions(sql, SCHEMA) {
            return Ok(Vec::new());
        }
        let entries = self.entries(mentions(sql, "columns")).await?;
        let database = self.project.target.database.as_str();
        let relations = [
            ("tables", tables(&entries, database)?),
            ("columns", columns(&entries, database)?),
            ("schemata", schemata(&entries, database)?),
        ];
        let named = relations.into_iter().filter(|(name, _)| mentions(sql, name));
        let provider = |batch: RecordBatch| -> Result<Arc<dyn TableProvider>> {
            Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))
        };
        named.map(|(name, batch)| Ok((SCHEMA.to_string(), name.to_string(), provider(batch)?))).collect()
    }

    /// Everything a query can name, in the order of schemas and names; with columns only if they are asked for, because some are read from
    /// a log.
    async fn entries(&self, with_columns: bool) -> Result<Vec<Entry>> {
        let there: BTreeSet<(String, String)> = self.lake.tables().await?.into_iter().collect();
        let mut entries = Vec::new();
        for compiled in &self.compilation.models {
            let model = &compiled.model;
            let described = |column: &str| {
                let declared = model.columns.iter().find(|c| c.name.eq_ignore_ascii_case(column));
                declared.and_then(|c| c.description.clone())
            };
            let has_table = model.materialized.has_table();
            let is_there = !has_table || there.contains(&(model.schema.clone(), model.alias.clone()));
            if model.deferred.is_none() && is_there {
                entries.push(Entry {
                    schema: model.schema.clone(),
                    name: model.alias.clone(),
                    kind: if has_table { "BASE TABLE" } else { "VIEW" },
                    comment: model.description.clone(),
                    columns: column_entries(&compiled.schema, described),
                });
            }
            for name in model.side_tables() {
                if there.contains(&(model.schema.clone(), name.clone())) {
                    let columns = self.stored(&model.schema, &name, with_columns).await?;
                    let schema = model.schema.clone();
                    entries.push(Entry { schema, name, kind: "BASE TABLE", comment: None, columns });
                }
            }
        }
        for source in &self.project.sources {
            if let Connector::Delta { schema, identifier, path: None } = &source.connector
                && !there.contains(&(schema.clone(), identifier.clone()))
            {
                continue;
            }
            let described = |column: &str| {
                let declared = source.columns.iter().find(|c| c.name.eq_ignore_ascii_case(column));
                declared.and_then(|c| c.description.clone())
            };
            let columns = match with_columns {
                true => column_entries(&self.source(source).await?.schema(), described),
                false => Vec::new(),
            };
            entries.push(Entry {
                schema: source.source.clone(),
                name: source.name.clone(),
                kind: "EXTERNAL TABLE",
                comment: source.description.clone(),
                columns,
            });
        }
        entries.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        Ok(entries)
    }

    async fn stored(&self, schema: &str, name: &str, with_columns: bool) -> Result<Vec<ColumnEntry>> {
        if !with_columns {
            return Ok(Vec::new());
        }
        let table = self.lake.table(schema, name).await?;
        Ok(table.map(|t| column_entries(&t.schema(), |_| None)).unwrap_or_default())
    }
}

fn column_entries(schema: &Schema, described: impl Fn(&str) -> Option<String>) -> Vec<ColumnEntry> {
    let entry = |field: &Arc<Field>| (field.name().clone(), sql_type_name(field.data_type()), described(field.name()));
    schema.fields().iter().map(entry).collect()
}

fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

/// Text columns, and `ordinal_position`.
fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let field = |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    Ok(RecordBatch::try_new(schema, columns.into_iter().map(|(_, array)| array).collect())?)
}

fn tables(entries: &[Entry], database: &str) -> Result<RecordBatch> {
    batch(vec![
        ("table_catalog", texts(entries.iter().map(|_| Some(database)))),
        ("table_schema", texts(entries.iter().map(|e| Some(e.schema.as_str())))),
        ("table_name", texts(entries.iter().map(|e| Some(e.name.as_str())))),
        ("table_type", texts(entries.iter().map(|e| Some(e.kind)))),
        ("comment", texts(entries.iter().map(|e| e.comment.as_deref()))),
    ])
}

fn columns(entries: &[Entry], database: &str) -> Result<RecordBatch> {
    let rows = || entries.iter().flat_map(|e| e.columns.iter().enumerate().map(move |(i, column)| (e, i, column)));
    let positions: ArrayRef = Arc::new(rows().map(|(_, i, _)| Some(i as i64 + 1)).collect::<Int64Array>());
    batch(vec![
        ("table_catalog", texts(rows().map(|_| Some(database)))),
        ("table_schema", texts(rows().map(|(e, ..)| Some(e.schema.as_str())))),
        ("table_name", texts(rows().map(|(e, ..)| Some(e.name.as_str())))),
        ("column_name", texts(rows().map(|(.., c)| Some(c.0.as_str())))),
        ("ordinal_position", positions),
        ("is_nullable", texts(rows().map(|_| Some("YES")))),
        ("data_type", texts(rows().map(|(.., c)| Some(c.1.as_str())))),
        ("comment", texts(rows().map(|(.., c)| c.2.as_deref()))),
    ])
}

fn schemata(entries: &[Entry], database: &str) -> Result<RecordBatch> {
    let names: BTreeSet<&str> = entries.iter().map(|e| e.schema.as_str()).collect();
    batch(vec![
        ("catalog_name", texts(names.iter().map(|_| Some(database)))),
        ("schema_name", texts(names.iter().map(|name| Some(*name)))),
    ])
}

//! What the tables of a project hold now, for `catalog.json`: read from the lake, never from the project.

use std::collections::HashMap;

use super::pipeline::lake_options;
use crate::env::Env;
use crate::error::Result;
use crate::lake::{Lake, Table};
use crate::plan::Compilation;
use crate::project::artifacts::{CatalogColumn, CatalogSize, CatalogTable};
use crate::project::{Connector, Project};
use crate::types::sql_type_name;

/// Every table and view of the project that is there, and what could not be read. Views need `compilation` to know their columns;
/// a table that was never made is left out.
pub async fn catalog_tables(
    env: &Env,
    project: &Project,
    compilation: Option<&Compilation>,
) -> Result<(Vec<CatalogTable>, Vec<String>)> {
    let lake = Lake::open(env, &project.target.lake, lake_options(project))?;
    let (mut tables, mut errors) = (Vec::new(), Vec::new());
    let compiled: HashMap<&str, _> =
        compilation.iter().flat_map(|c| &c.models).map(|m| (m.model.name.as_str(), m)).collect();
    for model in &project.models {
        let said = |column: &str| {
            let declared = model.columns.iter().find(|c| c.name.eq_ignore_ascii_case(column));
            declared.and_then(|c| c.description.clone())
        };
        let found = |kind, columns, size| CatalogTable {
            unique_id: model.unique_id.clone(),
            schema: model.schema.clone(),
            name: model.alias.clone(),
            kind,
            comment: model.description.clone(),
            columns,
            size,
        };
        if model.materialized.has_table() {
            match lake.table(&model.schema, &model.alias).await {
                Ok(Some(table)) => {
                    tables.push(found("table", columns(&table.schema(), said), Some(size(&table).await)))
                }
                Ok(None) => {}
                Err(error) => errors.push(format!("{}: {}", model.unique_id, error.message())),
            }
        } else if let (Some(compiled), "view") = (compiled.get(model.name.as_str()), model.materialized.name()) {
            tables.push(found("view", columns(&compiled.schema, said), None));
        }
    }
    for source in &project.sources {
        let Connector::Delta { schema, identifier, .. } = &source.connector else { continue };
        let said = |column: &str| {
            let declared = source.columns.iter().find(|c| c.name.eq_ignore_ascii_case(column));
            declared.and_then(|c| c.description.clone())
        };
        match lake.table(schema, identifier).await {
            Ok(Some(table)) => tables.push(CatalogTable {
                unique_id: source.unique_id.clone(),
                schema: schema.clone(),
                name: identifier.clone(),
                kind: "table",
                comment: source.description.clone(),
                columns: columns(&table.schema(), said),
                size: Some(size(&table).await),
            }),
            Ok(None) => {}
            Err(error) => errors.push(format!("{}: {}", source.unique_id, error.message())),
        }
    }
    Ok((tables, errors))
}

fn columns(schema: &arrow::datatypes::Schema, said: impl Fn(&str) -> Option<String>) -> Vec<CatalogColumn> {
    let column = |field: &arrow::datatypes::FieldRef| CatalogColumn {
        name: field.name().clone(),
        data_type: sql_type_name(field.data_type()),
        comment: said(field.name()),
    };
    schema.fields().iter().map(column).collect()
}

async fn size(table: &Table) -> CatalogSize {
    let snapshot = table.committed_snapshot();
    CatalogSize {
        rows: snapshot.row_count(),
        bytes: snapshot.bytes(),
        files: snapshot.file_count(),
        version: table.version(),
        last_commit: table.committed_at().await,
    }
}

//! What the planner needs to know of a source table.

use arrow::datatypes::SchemaRef;

use super::compile::{Known, nullable};
use super::keys;
use super::relation::Relation;
use crate::error::{Error, Result};
use crate::project::{Connector, SourceTable};
use crate::source::{change_kind, relation_schema, replayable};
use crate::types::{Catalog, ChangeKind, RejectKind, reject_schema};

/// A source table as a relation.
pub(super) struct SourceRelation {
    pub relation: Relation,
    pub schema: SchemaRef,
    pub known: Known,
}

/// The relation of `table`. The columns of a Delta table are the table's own, unless they are declared.
pub(super) fn relation(table: &SourceTable, catalog: &dyn Catalog) -> Result<SourceRelation> {
    if let Connector::Delta { schema, identifier, path } = &table.connector {
        let relation = match path {
            None => Relation::Table { lake: None, schema: schema.clone(), name: identifier.clone() },
            Some(_) => Relation::Source(table.source.clone(), table.name.clone()),
        };
        let columns = match catalog.table_schema(schema, identifier) {
            Some(columns) => columns,
            None if !table.columns.is_empty() => relation_schema(table)?,
            // A side table appears with its first row; what it will look like is known.
            None if is_side_table(identifier) => reject_schema(),
            None => {
                return Err(Error::user(
                    "unknown-table",
                    format!("there is no Delta table `{schema}`.`{identifier}` in the lake"),
                )
                .with_span(table.span.clone())
                .with_hint("create it first, declare its `columns`, or give the source a `connector`"));
            }
        };
        let event_time = table.event_time.clone();
        let known = Known {
            append_only: false,
            changes: ChangeKind::Signed,
            replayable: true,
            unique: vec![],
            view: None,
            event_time,
            has_watermark: false,
            watermark_column: None,
        };
        return Ok(SourceRelation { relation, schema: nullable(&columns), known });
    }
    let changes = change_kind(table);
    let schema = relation_schema(table)?;
    let known = Known {
        append_only: changes == ChangeKind::Append,
        unique: keys::declared(&changes, &schema),
        replayable: replayable(table),
        changes,
        view: None,
        event_time: table.event_time.clone(),
        has_watermark: table.watermark.is_some(),
        watermark_column: table.watermark.as_ref().map(|w| w.column.clone()),
    };
    Ok(SourceRelation {
        relation: Relation::Source(table.source.clone(), table.name.clone()),
        schema: nullable(schema.as_ref()),
        known,
    })
}

/// Whether the name is one of `model__dead_letter`, `model__quarantine`, `model__late`.
fn is_side_table(identifier: &str) -> bool {
    [RejectKind::DeadLetter, RejectKind::Quarantine, RejectKind::Late]
        .iter()
        .any(|kind| identifier.strip_suffix(kind.name()).is_some_and(|model| model.ends_with("__")))
}

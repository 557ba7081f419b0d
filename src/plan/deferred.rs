//! Models that are not built here: their readers read the table of another run ([`crate::project::Deferred`]) as a Delta table
//! that somebody else maintains.

use arrow::datatypes::SchemaRef;
use std::sync::Arc;

use super::compile::{Compiler, Known, nullable};
use super::relation::{Named, Relation, RelationSource};
use crate::error::{Error, Result};
use crate::project::{Deferred, Dependency, Model};
use crate::types::ChangeKind;

/// The table that stands in for a model.
#[derive(Debug, Clone)]
pub struct DeferredModel {
    /// Name of the model.
    pub model: String,
    pub table: Deferred,
    pub columns: SchemaRef,
    /// No row of it is ever retracted.
    pub append_only: bool,
}

impl DeferredModel {
    /// How the inputs of its readers name it.
    pub fn relation(&self) -> Relation {
        let Deferred { schema, alias, lake, .. } = &self.table;
        Relation::Table { lake: lake.clone(), schema: schema.clone(), name: alias.clone() }
    }
}

impl Compiler<'_> {
    /// The table in place of `model`; readers that are compiled from here on read it.
    pub(super) fn defer(&mut self, model: &Model, table: &Deferred) -> Result<DeferredModel> {
        let (schema, name) = (&table.schema, &table.alias);
        let found = self.catalog.table_in(table.lake.as_deref(), schema, name).ok_or_else(|| {
            let lake = table.lake.as_ref().map(|lake| format!(" of {lake}")).unwrap_or_default();
            Error::user(
                "no-table",
                format!("`{}` is deferred to `{schema}`.`{name}`{lake}, which is not there", model.name),
            )
            .with_hint("build it here too, or take the manifest of a run whose tables are still there")
        })?;
        let taken = self.relations.iter().find(|(_, named)| named.schema == *schema && named.name == *name);
        if let Some((other, _)) = taken {
            let what = match other {
                Dependency::Model(name) => format!("model `{name}`"),
                Dependency::Source(source, table) => format!("source table `{source}.{table}`"),
            };
            let message =
                format!("`{}` is deferred to `{schema}`.`{name}`, which is the name of {what} here", model.name);
            return Err(Error::user("duplicate-table", message).with_hint("build it here instead of deferring to it"));
        }
        let append_only = table.append_only && found.retracts_nothing;
        let deferred = DeferredModel {
            model: model.name.clone(),
            table: table.clone(),
            columns: nullable(&found.schema),
            append_only,
        };
        let known = Known {
            append_only,
            changes: if append_only { ChangeKind::Append } else { ChangeKind::Signed },
            replayable: true,
            unique: vec![],
            view: None,
            event_time: model.config.event_time.clone(),
            has_watermark: false,
            watermark_column: None,
        };
        let relation = deferred.relation();
        self.known.insert(relation.clone(), known);
        let source = RelationSource { relation, streamed: false, schema: Arc::clone(&deferred.columns), view: None };
        let named = Named { schema: schema.clone(), name: name.clone(), source: Arc::new(source) };
        self.relations.push((Dependency::Model(model.name.clone()), named));
        Ok(deferred)
    }
}

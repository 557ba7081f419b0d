//! A model compiled alone, for its unit tests: what it reads are tables of known columns, whatever stands behind them.

use arrow::datatypes::SchemaRef;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::compile::{CompiledModel, Compiler, Known, nullable};
use super::relation::{Named, Relation, RelationSource};
use super::session::{Planner, PlannerOptions};
use super::{keys, sources};
use crate::error::{Error, Result};
use crate::project::{Dependency, Dialect, Model, SourceTable};
use crate::types::{Catalog, ChangeKind};

/// A table that the model reads.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub dependency: Dependency,
    /// Its name in the model's SQL.
    pub schema: String,
    pub name: String,
    pub columns: SchemaRef,
    /// No row of it is ever retracted.
    pub append_only: bool,
    /// Columns of which it holds one row per value; empty: none that is known.
    pub key: Vec<String>,
}

impl Leaf {
    /// How inputs of the compiled model name it.
    pub fn relation(&self) -> Relation {
        match &self.dependency {
            Dependency::Model(name) => Relation::Model(name.clone()),
            Dependency::Source(source, table) => Relation::Source(source.clone(), table.clone()),
        }
    }

    /// Whether its rows say what became of a key, not which row goes.
    pub fn is_keyed_changelog(&self) -> bool {
        matches!(self.dependency, Dependency::Source(..)) && !self.key.is_empty()
    }
}

/// Columns of a source table as models see them, whether rows are only ever added to it, and the key of a keyed changelog.
pub fn source_columns(table: &SourceTable, catalog: &dyn Catalog) -> Result<(SchemaRef, bool, Vec<String>)> {
    let found = sources::relation(table, catalog)?;
    let key = match found.known.changes {
        ChangeKind::Keyed(key) => key,
        _ => Vec::new(),
    };
    Ok((found.schema, found.known.append_only, key))
}

/// Compiles `model` over `leaves`, which are all it reads.
pub fn compile_alone(dialect: Dialect, model: &Arc<Model>, leaves: &[Leaf]) -> Result<CompiledModel, Vec<Error>> {
    let planner = Planner::new(PlannerOptions::new(dialect)).map_err(|e| vec![e])?;
    let mut compiler = Compiler {
        planner,
        catalog: &NoTables,
        relations: Vec::new(),
        known: HashMap::new(),
        broken: HashSet::new(),
        // A model whose windows close is tested as a view.
        streams_anywhere: true,
    };
    for leaf in leaves {
        let relation = leaf.relation();
        let changes = match (leaf.append_only, leaf.is_keyed_changelog()) {
            (_, true) => ChangeKind::Keyed(leaf.key.clone()),
            (true, _) => ChangeKind::Append,
            _ => ChangeKind::Signed,
        };
        let known = Known {
            append_only: leaf.append_only,
            unique: keys::declared(&changes, &leaf.columns),
            changes,
            replayable: true,
            view: None,
            event_time: None,
            has_watermark: false,
            watermark_column: None,
        };
        compiler.known.insert(relation.clone(), known);
        let source = RelationSource { relation, streamed: false, schema: nullable(&leaf.columns), view: None };
        let named = Named { schema: leaf.schema.clone(), name: leaf.name.clone(), source: Arc::new(source) };
        compiler.relations.push((leaf.dependency.clone(), named));
    }
    compiler.model(model)
}

/// The lake of a unit test.
struct NoTables;

impl Catalog for NoTables {
    fn table_schema(&self, _: &str, _: &str) -> Option<SchemaRef> {
        None
    }
}

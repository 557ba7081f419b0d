//! A model compiled alone, for its unit tests: what it reads are tables of known columns, whatever stands behind them.

use arrow::datatypes::SchemaRef;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::compile::{CompiledModel, Compiler, Known, nullable};
use super::relation::{Named, Relation, RelationSource};
use super::session::{Planner, PlannerOptions};
use super::sources;
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
}

impl Leaf {
    /// How inputs of the compiled model name it.
    pub fn relation(&self) -> Relation {
        match &self.dependency {
            Dependency::Model(name) => Relation::Model(name.clone()),
            Dependency::Source(source, table) => Relation::Source(source.clone(), table.clone()),
        }
    }
}

/// Columns of a source table as models see them, and whether rows are only ever added to it.
pub fn source_columns(table: &SourceTable, catalog: &dyn Catalog) -> Result<(SchemaRef, bool)> {
    let found = sources::relation(table, catalog)?;
    Ok((found.schema, found.known.append_only))
}

/// Compiles `model` over `leaves`, which are all it reads.
pub fn compile_alone(dialect: Dialect, model: &Arc<Model>, leaves: &[Leaf]) -> Result<CompiledModel, Vec<Error>> {
    let planner = Planner::new(PlannerOptions::new(dialect)).map_err(|e| vec![e])?;
    let mut compiler =
        Compiler { planner, catalog: &NoTables, relations: Vec::new(), known: HashMap::new(), broken: HashSet::new() };
    for leaf in leaves {
        let relation = leaf.relation();
        let changes = if leaf.append_only { ChangeKind::Append } else { ChangeKind::Signed };
        let known = Known { append_only: leaf.append_only, changes, replayable: true, view: None, event_time: None };
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

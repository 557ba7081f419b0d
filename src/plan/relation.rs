//! Relations a query may name, and how names match them.

use arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown, TableSource};
use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::fault::Fault;
use crate::error::did_you_mean;

/// What a model reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Relation {
    /// A model of the project, by name.
    Model(String),
    /// A source table, by (source, table).
    Source(String, String),
    /// A Delta table that somebody else maintains.
    Table {
        /// Root of the lake that holds it; None: the project's own.
        lake: Option<String>,
        schema: String,
        name: String,
    },
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Relation::Model(name) => f.write_str(name),
            Relation::Source(source, table) => write!(f, "{source}.{table}"),
            Relation::Table { schema, name, .. } => write!(f, "{schema}.{name}"),
        }
    }
}

/// One input of a compiled model: a slot of its plans.
#[derive(Debug, Clone)]
pub struct Input {
    pub relation: Relation,
    pub schema: SchemaRef,
    /// No row of it is ever retracted.
    pub append_only: bool,
    /// Columns of which no two rows are equal, as far as is known.
    pub unique: Vec<Vec<usize>>,
}

/// Catalog part that marks a relation read as a stream, so that a streaming table may also join the same relation as a
/// dimension: the two get slots of their own.
pub(crate) const STREAM: &str = "STREAM";

/// A relation as the SQL planner sees it: a schema and, for views, a plan to put in its place.
#[derive(Debug, Clone)]
pub(crate) struct RelationSource {
    pub relation: Relation,
    pub streamed: bool,
    pub schema: SchemaRef,
    pub view: Option<Arc<LogicalPlan>>,
}

impl TableSource for RelationSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Filters are offered to the scan and applied above it all the same: providers prune files and row groups by them.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        self.view.as_ref().map(|v| Cow::Borrowed(v.as_ref()))
    }
}

/// The [`RelationSource`] behind a table source of a plan we made.
pub(crate) fn relation_of(source: &Arc<dyn TableSource>) -> Option<&RelationSource> {
    let any: &dyn Any = source.as_ref();
    any.downcast_ref::<RelationSource>()
}

/// A relation under the name SQL knows it by.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub schema: String,
    pub name: String,
    pub source: Arc<RelationSource>,
}

/// The relations a query may name. Later entries never hide earlier ones: names are unique ignoring case.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    pub relations: Vec<Named>,
    /// Known to the project, but not to this query: `ref` or `source` is missing.
    pub undeclared: Vec<(String, String)>,
}

impl Scope {
    /// The relation `reference` names: exact spelling first, then ignoring case.
    pub fn find(&self, reference: &TableReference) -> Result<Arc<RelationSource>, Fault> {
        let (streamed, schema, name) = match reference {
            TableReference::Bare { table } => (false, None, table.as_ref()),
            TableReference::Partial { schema, table } => (false, Some(schema.as_ref()), table.as_ref()),
            TableReference::Full { catalog, schema, table } => {
                (catalog.as_ref() == STREAM, Some(schema.as_ref()), table.as_ref())
            }
        };
        // A stream mark in front of an unqualified name makes a name of two parts.
        let (streamed, schema) = match schema {
            Some(STREAM) if matches!(reference, TableReference::Partial { .. }) => (true, None),
            other => (streamed, other),
        };
        let find = |same: fn(&str, &str) -> bool| {
            self.relations
                .iter()
                .filter(|r| same(&r.name, name) && schema.is_none_or(|s| same(&r.schema, s)))
                .collect::<Vec<_>>()
        };
        let mut found = find(|a, b| a == b);
        if found.is_empty() {
            found = find(|a, b| a.eq_ignore_ascii_case(b));
        }
        match found.as_slice() {
            [one] if streamed == one.source.streamed => Ok(Arc::clone(&one.source)),
            [one] => Ok(Arc::new(RelationSource { streamed, ..one.source.as_ref().clone() })),
            [] => Err(self.unknown(schema, name)),
            several => {
                let names = several.iter().map(|r| format!("`{}`.`{}`", r.schema, r.name)).collect::<Vec<_>>();
                Err(Fault::new("ambiguous-relation", format!("`{name}` may be {}", names.join(" or ")))
                    .hint("write the schema, too"))
            }
        }
    }

    fn unknown(&self, schema: Option<&str>, name: &str) -> Fault {
        let shown = schema.map_or(format!("`{name}`"), |s| format!("`{s}`.`{name}`"));
        let fault = Fault::new("unknown-relation", format!("no relation {shown}"));
        if let Some((schema, known)) = self
            .undeclared
            .iter()
            .find(|(s, n)| n.eq_ignore_ascii_case(name) && schema.is_none_or(|q| q.eq_ignore_ascii_case(s)))
        {
            return fault.hint(format!("write {{{{ ref('{known}') }}}} or {{{{ source('{schema}', '{known}') }}}}, so that smelt knows the order"));
        }
        let known =
            self.relations.iter().map(|r| r.name.as_str()).chain(self.undeclared.iter().map(|(_, n)| n.as_str()));
        match did_you_mean(name, known) {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None => fault.hint(
                "relations are named with {{ ref('model') }} or {{ source('source', 'table') }}, or by a WITH clause",
            ),
        }
    }
}

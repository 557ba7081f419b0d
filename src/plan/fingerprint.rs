//! What a model means, as one number: equal for equal meaning however it is laid out, different when its rows could differ.
//!
//! It is stored with the table; a change makes a view backfill. So it must survive upgrades of DataFusion: it hashes the
//! canonical *unoptimised* SQL (no comments, no layout, relations by name), never a plan.

use arrow::datatypes::Schema;
use datafusion::common::TableReference;
use datafusion::sql::sqlparser::ast::{Ident, ObjectName, ObjectNamePart, Query, visit_relations_mut};
use std::fmt::Write;
use std::ops::ControlFlow;
use xxhash_rust::xxh3::xxh3_128;

use super::relation::Scope;
use crate::project::{Dialect, Expectation};
use crate::types::sql_type_name;

/// Bumped by hand when the same SQL gives other rows than before.
const SEMANTICS: u32 = 1;

/// The parts of a fingerprint.
pub(crate) struct Meaning<'a> {
    pub dialect: Dialect,
    /// As resolved.
    pub query: &'a Query,
    pub scope: &'a Scope,
    /// (relation, its columns or, for an inlined view, its fingerprint), in slot order.
    pub inputs: Vec<(String, String)>,
    pub expectations: &'a [Expectation],
}

impl Meaning<'_> {
    /// 32 hex digits.
    pub fn fingerprint(&self) -> String {
        let mut query = self.query.clone();
        let _: ControlFlow<()> = visit_relations_mut(&mut query, |name: &mut ObjectName| {
            if let Some(reference) = reference(name)
                && let Ok(source) = self.scope.find(&reference)
            {
                let streamed = if source.streamed { "STREAM " } else { "" };
                let relation = format!("{streamed}{}", source.relation);
                *name = ObjectName(vec![ObjectNamePart::Identifier(Ident::with_quote('"', relation))]);
            }
            ControlFlow::Continue(())
        });
        let mut text = format!("smelt {SEMANTICS}\n{:?}\n{query}\n", self.dialect);
        for (relation, meaning) in &self.inputs {
            let _ = writeln!(text, "{relation}: {meaning}");
        }
        for e in self.expectations {
            let _ = writeln!(text, "expect {} {:?}", e.expect, e.on_violation);
        }
        format!("{:032x}", xxh3_128(text.as_bytes()))
    }
}

/// One fingerprint of the two queries of an incremental model.
pub(crate) fn of_both(first: &str, again: &str) -> String {
    format!("{:032x}", xxh3_128(format!("{first}\n{again}").as_bytes()))
}

/// The name as the SQL planner would ask for it.
fn reference(name: &ObjectName) -> Option<TableReference> {
    let words: Vec<&str> = name.0.iter().map(|p| p.as_ident().map(|i| i.value.as_str())).collect::<Option<_>>()?;
    match words.as_slice() {
        [table] => Some(TableReference::bare(*table)),
        [schema, table] => Some(TableReference::partial(*schema, *table)),
        [catalog, schema, table] => Some(TableReference::full(*catalog, *schema, *table)),
        _ => None,
    }
}

/// Columns as text: `sid STRING, seconds BIGINT`.
pub(crate) fn columns(schema: &Schema) -> String {
    let columns = schema.fields().iter().map(|f| format!("{} {}", f.name(), sql_type_name(f.data_type())));
    columns.collect::<Vec<_>>().join(", ")
}

//! AST → logical plan, with names that match ignoring case.
//!
//! DataFusion resolves names exactly once identifiers are not folded. Its planner is also the only thing that knows
//! every scope rule of SQL, so we let it be the judge: plan; where it finds no column of the written spelling, look among
//! the columns it says are visible there for one that matches ignoring case; give that word the column's spelling; plan again.
//! Each round corrects at least one word, so this ends. A query in its schemas' own spelling is planned once.
//!
//! Output keeps what was written: `select CALLID` of column `callId` is named `CALLID`, and `select x.from.number` is
//! named `number`.

use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, Statement, TableFactor, Visit,
    VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span as SqlSpan;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::diagnose;
use super::fault::{Fault, Place};
use super::fields::{FieldPlanner, Seen};
use super::parse::{At, Sql, at};
use super::relation::{STREAM, Scope};
use super::session::{Context, Planner};
use super::{spelling, time_windows, unnest_names, using};

/// A query as DataFusion's SQL planner made it, not yet analysed.
#[derive(Debug)]
pub(crate) struct Planned {
    pub query: Query,
    pub plan: LogicalPlan,
    pub truncating_division: bool,
    /// The first `/` of the query, for that.
    pub division: Option<Place>,
    /// Whether a relation is marked STREAM.
    pub marked: bool,
}

impl Planner {
    /// Plans `text` over the relations of `scope`.
    pub(crate) fn plan_sql(&self, text: &str, scope: &Scope) -> Result<Planned, Vec<Fault>> {
        let dialect = self.sql_dialect();
        let mut sql = Sql::tokenize(text, dialect.as_ref()).map_err(|f| vec![f])?;
        let mut nested = BTreeSet::new();
        loop {
            let mut query = sql.parse(dialect.as_ref()).map_err(|f| vec![f])?;
            time_windows::expand(&mut query).map_err(|f| vec![f])?;
            let mut names = Names { sql: &sql, nested: &nested };
            let _ = VisitMut::visit(&mut query, &mut names);
            spelling::translate(&mut query, self.dialect);
            let (result, seen) = self.attempt_merged(&query, scope);
            match result {
                Ok(plan) => {
                    // Struct accesses are known once they are planned; name their outputs and plan again.
                    if seen.nested.iter().any(|n| !nested.contains(n)) {
                        nested.extend(seen.nested);
                        continue;
                    }
                    return Ok(Planned {
                        query,
                        plan,
                        division: seen.truncating_division.then(|| sql.first_division()).flatten(),
                        truncating_division: seen.truncating_division,
                        marked: !sql.streamed.is_empty(),
                    });
                }
                Err(error) => {
                    if seen.fault.is_some() || !respell(&mut sql, &query, scope, &error)? {
                        return Err(diagnose::faults(&error, seen, &sql, self));
                    }
                }
            }
        }
    }

    /// The plan of `query`, columns of USING merged.
    fn attempt_merged(&self, query: &Query, scope: &Scope) -> (Result<LogicalPlan, DataFusionError>, Seen) {
        match self.attempt(query, scope) {
            (Ok(plan), seen) => match using::merge(query, &plan) {
                Ok(None) => (Ok(plan), seen),
                Ok(Some(merged)) => self.attempt(&merged, scope),
                Err(fault) => (Err(fault.into()), seen),
            },
            (Err(error), seen) => {
                let others = [using::merge_written(query), unnest_names::set_apart(query)];
                let attempts = others.iter().flatten().map(|other| self.attempt(other, scope));
                let planned = attempts.into_iter().find(|(plan, _)| plan.is_ok());
                planned.unwrap_or((Err(error), seen))
            }
        }
    }

    fn attempt(&self, query: &Query, scope: &Scope) -> (Result<LogicalPlan, DataFusionError>, Seen) {
        let fields = Arc::new(FieldPlanner::new(self.dialect));
        let context = Context::new(self, scope, Arc::clone(&fields));
        let options = ParserOptions::from(&self.state.config_options().sql_parser);
        let planner = SqlToRel::new_with_options(&context, options);
        let result = planner.sql_statement_to_plan(Statement::Query(Box::new(query.clone())));
        let seen = fields.take_seen();
        (result, seen)
    }
}

/// Corrects the spelling of what `error` says is unknown. `Ok(false)`: nothing to correct; the error stands.
fn respell(sql: &mut Sql, query: &Query, scope: &Scope, error: &DataFusionError) -> Result<bool, Vec<Fault>> {
    let mut changed = false;
    for missing in missing_names(error) {
        match missing {
            Missing::Column { field, valid } => {
                changed |= respell_column(sql, &field, &valid)? || respell_outer(sql, query, scope, &field);
            }
            Missing::Relation(name) => {
                // A common table expression in another case.
                if let Some(spelling) = only(&Defined::by(query).tables, &name) {
                    for place in sql.words(&name) {
                        changed |= sql.respell(place, &spelling);
                    }
                }
            }
        }
    }
    Ok(changed)
}

/// The one spelling among `known` that matches `name` ignoring case; `None` when it is there exactly, or several are.
fn only(known: &BTreeSet<String>, name: &str) -> Option<String> {
    let found: Vec<&String> = known.iter().filter(|k| k.eq_ignore_ascii_case(name)).collect();
    match found.as_slice() {
        [one] if *one != name => Some((*one).clone()),
        _ => None,
    }
}

/// A column of an outer query: DataFusion names only the inner one's columns as visible. So the relation must be an alias of
/// the query, and the column one of any relation it reads.
fn respell_outer(sql: &mut Sql, query: &Query, scope: &Scope, field: &Column) -> bool {
    let defined = Defined::by(query);
    let mut columns = defined.columns;
    for named in &scope.relations {
        columns.extend(named.source.schema.fields().iter().map(|f| f.name().clone()));
    }
    let mut changed = false;
    let starts = match field.spans.first() {
        Some(span) => vec![(span.start.line, span.start.column)],
        None => sql.words(field.relation.as_ref().map_or(field.name.as_str(), |r| r.table())),
    };
    for start in starts {
        let name = sql.name_at(start);
        let (relation, column) = match name.as_slice() {
            [column] => (None, column),
            [relation, column, ..] => (Some(relation), column),
            [] => continue,
        };
        if let Some((place, written)) = relation
            && let Some(spelling) = only(&defined.tables, written)
        {
            changed |= sql.respell(*place, &spelling);
        }
        if let Some(spelling) = only(&columns, &column.1).filter(|_| !sql.is_quoted(column.0)) {
            changed |= sql.respell(column.0, &spelling);
        }
    }
    changed
}

/// Names that a query itself defines.
#[derive(Default)]
struct Defined {
    /// Common table expressions and aliases of relations.
    tables: BTreeSet<String>,
    /// Aliases of expressions.
    columns: BTreeSet<String>,
}

impl Defined {
    fn by(query: &Query) -> Self {
        let mut defined = Defined::default();
        let _ = Visit::visit(query, &mut defined);
        defined
    }
}

impl Visitor for Defined {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|w| &w.cte_tables) {
            self.tables.insert(cte.alias.name.value.clone());
            self.columns.extend(cte.alias.columns.iter().map(|c| c.name.value.clone()));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<()> {
        let alias = match table {
            TableFactor::Table { alias, .. }
            | TableFactor::Derived { alias, .. }
            | TableFactor::UNNEST { alias, .. } => alias.as_ref(),
            _ => None,
        };
        if let Some(alias) = alias {
            self.tables.insert(alias.name.value.clone());
            self.columns.extend(alias.columns.iter().map(|c| c.name.value.clone()));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        for item in &select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                self.columns.insert(alias.value.clone());
            }
        }
        ControlFlow::Continue(())
    }
}

enum Missing {
    Column { field: Column, valid: Vec<Column> },
    Relation(String),
}

fn missing_names(error: &DataFusionError) -> Vec<Missing> {
    match error {
        DataFusionError::Collection(all) => all.iter().flat_map(missing_names).collect(),
        DataFusionError::Context(_, inner) => missing_names(inner),
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let mut missing = missing_names(inner);
            for m in &mut missing {
                if let (Missing::Column { field, .. }, Some(span)) = (m, diagnostic.span)
                    && field.spans.first().is_none()
                {
                    field.spans.add_span(span);
                }
            }
            missing
        }
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                vec![Missing::Column { field: field.as_ref().clone(), valid: valid_fields.clone() }]
            }
            _ => vec![],
        },
        DataFusionError::External(inner) => match inner.downcast_ref::<Fault>() {
            Some(fault) if fault.code == "unknown-relation" => {
                let name = fault.message.trim_start_matches("no relation ").trim_matches('`');
                vec![Missing::Relation(name.to_string())]
            }
            _ => vec![],
        },
        _ => vec![],
    }
}

/// One way to read a dotted name: leading words as the relation, one word as the column, the rest as fields.
fn readings(name: &[(At, String)]) -> Vec<(usize, usize)> {
    // (words of the relation, index of the column), in DataFusion's order: longest qualifier first.
    (0..name.len().min(4)).rev().map(|qualifier| (qualifier, qualifier)).collect()
}

fn respell_column(sql: &mut Sql, field: &Column, valid: &[Column]) -> Result<bool, Vec<Fault>> {
    let starts: Vec<At> = match field.spans.first() {
        Some(span) => vec![(span.start.line, span.start.column)],
        // DataFusion lost the place: every word of that spelling, at the start of its dotted name.
        None => {
            let first = field.relation.as_ref().map_or(field.name.as_str(), |r| r.table());
            sql.words(first)
        }
    };
    let mut changed = false;
    for start in starts {
        let name = sql.name_at(start);
        for (qualifier, column) in readings(&name) {
            let matches =
                |c: &&Column| c.name.eq_ignore_ascii_case(&name[column].1) && qualifier_matches(c, &name[..qualifier]);
            let mut found: Vec<&Column> = valid.iter().filter(matches).collect();
            found.sort_by(|a, b| (&a.name, &a.relation).cmp(&(&b.name, &b.relation)));
            found.dedup_by(|a, b| a.name == b.name && a.relation == b.relation);
            if found.is_empty() || sql.is_quoted(name[column].0) {
                continue;
            }
            let spellings: BTreeSet<&str> = found.iter().map(|c| c.name.as_str()).collect();
            if spellings.len() > 1 {
                let names = spellings.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(" or ");
                let width = name[column].1.chars().count() as u64;
                let (line, col) = name[column].0;
                return Err(vec![
                    Fault::new("ambiguous-column", format!("`{}` may be {names}", name[column].1))
                        .at(Some(Place { line, column: col, width }))
                        .hint("write the spelling you mean in double quotes"),
                ]);
            }
            changed |= sql.respell(name[column].0, &found[0].name);
            if let (Some((place, _)), Some(relation)) = (qualifier.checked_sub(1).map(|q| &name[q]), &found[0].relation)
            {
                changed |= sql.respell(*place, relation.table());
            }
            if let (Some((place, _)), Some(schema)) =
                (qualifier.checked_sub(2).map(|q| &name[q]), found[0].relation.as_ref().and_then(|r| r.schema()))
            {
                changed |= sql.respell(*place, schema);
            }
            break;
        }
    }
    Ok(changed)
}

fn qualifier_matches(column: &Column, written: &[(At, String)]) -> bool {
    let Some(relation) = &column.relation else { return written.is_empty() };
    let same = |part: Option<&str>, word: Option<&(At, String)>| match (part, word) {
        (_, None) => true,
        (Some(part), Some((_, word))) => part.eq_ignore_ascii_case(word),
        (None, Some(_)) => false,
    };
    let mut words = written.iter().rev();
    same(Some(relation.table()), words.next())
        && same(relation.schema(), words.next())
        && same(relation.catalog(), words.next())
}

/// Marks streamed relations, and names outputs as they were written.
struct Names<'a> {
    sql: &'a Sql,
    nested: &'a BTreeSet<Vec<String>>,
}

impl Names<'_> {
    /// The name an unaliased select item should have, when it is not the one DataFusion would give it.
    fn output_name(&self, expr: &SqlExpr) -> Option<String> {
        let words = match expr {
            SqlExpr::Identifier(word) => std::slice::from_ref(word),
            SqlExpr::CompoundIdentifier(words) => words.as_slice(),
            _ => return None,
        };
        let last = words.last()?;
        let values: Vec<&str> = words.iter().map(|w| w.value.as_str()).collect();
        let is_field = self.nested.iter().any(|n| values.len() >= n.len() && values[values.len() - n.len()..] == n[..]);
        match self.sql.respelled.get(&at(last.span.start)) {
            Some(written) => Some(written.clone()),
            None if is_field => Some(last.value.clone()),
            None => None,
        }
    }
}

impl VisitorMut for Names<'_> {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        let first = relation.0.first().and_then(|p| p.as_ident()).map(|i| at(i.span.start));
        if first.is_some_and(|first| self.sql.streamed.contains(&first)) {
            let mark = Ident::with_quote_and_span('"', SqlSpan::empty(), STREAM);
            relation.0.insert(0, ObjectNamePart::Identifier(mark));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expr) = item else { continue };
            if let Some(name) = self.output_name(expr) {
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', name) };
            }
        }
        ControlFlow::Continue(())
    }
}

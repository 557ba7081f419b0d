//! DataFusion's errors → faults with a place and a hint.

use datafusion::common::{Column, DataFusionError, SchemaError, Span};
use datafusion::sql::sqlparser::ast::{Ident, ObjectName, TableFactor, Visit, Visitor};
use datafusion::sql::sqlparser::keywords::Keyword;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::advice;
use super::fault::{Fault, Place};
use super::fields::Seen;
use super::parse::Sql;
use super::session::Planner;
use crate::error::did_you_mean;

/// Everything `error` says, as faults. Never empty.
pub(crate) fn faults(error: &DataFusionError, seen: Seen, sql: &Sql, planner: &Planner) -> Vec<Fault> {
    // What our own hooks said is nearer to the cause than what DataFusion made of it.
    if let Some((fault, words)) = seen.fault {
        return vec![fault.at(sql.place_of_path(&words))];
    }
    let mut diagnosis = Diagnosis { sql, planner, found: Vec::new() };
    diagnosis.visit(error, None);
    diagnosis.found
}

/// The same for an error of a later stage, which kept only the text.
pub(crate) fn of_text(error: &DataFusionError, text: &str, planner: &Planner) -> Vec<Fault> {
    match Sql::tokenize(text, planner.sql_dialect().as_ref()) {
        Ok(sql) => faults(error, Seen::default(), &sql, planner),
        Err(fault) => vec![fault],
    }
}

struct Diagnosis<'a> {
    sql: &'a Sql,
    planner: &'a Planner,
    found: Vec<Fault>,
}

impl Diagnosis<'_> {
    fn visit(&mut self, error: &DataFusionError, place: Option<Place>) {
        let fault = match error {
            DataFusionError::Collection(all) => {
                all.iter().for_each(|e| self.visit(e, place));
                return;
            }
            DataFusionError::Context(_, inner) => return self.visit(inner, place),
            DataFusionError::Shared(inner) => return self.visit(inner, place),
            DataFusionError::Diagnostic(d, inner) => {
                let place = d.span.and_then(|s| self.place(s)).or(place);
                return self.visit(inner, place);
            }
            DataFusionError::SchemaError(schema, _) => self.schema(schema),
            DataFusionError::External(inner) => match inner.downcast_ref::<Fault>() {
                Some(fault) => fault.clone(),
                None => Fault::new("sql", inner.to_string()),
            },
            DataFusionError::Plan(m) => self.text(m),
            DataFusionError::NotImplemented(m) => {
                advice::planning(m, self.sql).unwrap_or_else(|| Fault::new("unsupported-sql", first_line(m)))
            }
            DataFusionError::Internal(m) | DataFusionError::Execution(m) => self.text(m),
            other => Fault::new("sql", first_line(&other.strip_backtrace())),
        };
        self.found.push(fault.at(place));
    }

    fn place(&self, span: Span) -> Option<Place> {
        let width =
            if span.start.line == span.end.line { span.end.column.saturating_sub(span.start.column).max(1) } else { 1 };
        (span.start.line > 0).then_some(Place { line: span.start.line, column: span.start.column, width })
    }

    fn schema(&self, error: &SchemaError) -> Fault {
        match error {
            SchemaError::FieldNotFound { field, valid_fields } => self.unknown_column(field, valid_fields),
            SchemaError::AmbiguousReference { field } => {
                let place = field.spans.first().and_then(|s| self.place(s));
                Fault::new("ambiguous-column", format!("`{}` is a column of several relations here", field.name))
                    .at(place)
                    .hint(format!("write which one: `relation.{}`", field.name))
            }
            SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
                Fault::new("duplicate-column", format!("there are two columns `{name}` here"))
                    .hint("give one of them another name with AS")
            }
        }
    }

    fn unknown_column(&self, field: &Column, valid: &[Column]) -> Fault {
        let relations = self.relations();
        let real = |name: &str| relations.get(name).cloned().unwrap_or_else(|| name.to_string());
        let among: Vec<&Column> = match &field.relation {
            Some(relation) => {
                valid.iter().filter(|c| c.relation.as_ref().is_some_and(|r| r.resolved_eq(relation))).collect()
            }
            None => valid.iter().collect(),
        };
        let place = field.spans.first().and_then(|s| self.place(s)).or_else(|| {
            let word = *self.sql.words(&field.name).first()?;
            self.sql.place_of(word)
        });
        if let (Some(relation), true) = (&field.relation, among.is_empty()) {
            // The qualifier itself is unknown, or it is a column without such a field.
            let tables: BTreeSet<&str> = valid.iter().filter_map(|c| c.relation.as_ref()).map(|r| r.table()).collect();
            let place = self.sql.place_of_path(&[relation.table().to_string()]).or(place);
            let message = format!("no relation `{relation}` to take `{}` from", field.name);
            let fault = Fault::new("unknown-column", message).at(place);
            let columns = valid.iter().map(|c| c.name.as_str());
            return match did_you_mean(relation.table(), tables.iter().copied().chain(columns)) {
                Some(near) => fault.hint(format!("did you mean `{near}.{}`?", field.name)),
                None => fault.hint(format!("here are {}", list(tables.iter().copied()))),
            };
        }
        let owners: BTreeSet<String> =
            among.iter().filter_map(|c| c.relation.as_ref()).map(|r| real(r.table())).collect();
        let message = match owners.len() {
            0 => format!("no column `{}`", field.name),
            _ => format!("no column `{}` in {}", field.name, list(owners.iter().map(String::as_str))),
        };
        let mut hints = Vec::new();
        if let Some(near) = did_you_mean(&field.name, among.iter().map(|c| c.name.as_str())) {
            hints.push(format!("did you mean `{near}`?"));
        }
        let shown: Vec<String> = owners
            .iter()
            .filter(|o| relations.values().any(|r| r == *o))
            .map(|o| format!("smelt show --columns {o}"))
            .collect();
        match shown.as_slice() {
            [one] => hints.push(format!("(columns: {one})")),
            _ if hints.is_empty() && !among.is_empty() => {
                hints.push(format!("here are {}", list(among.iter().take(20).map(|c| c.name.as_str()))));
            }
            _ => {}
        }
        let quoted = place.is_some_and(|p| self.sql.is_quoted((p.line, p.column)));
        if valid.is_empty() && self.sql.count(Keyword::FROM) == 0 {
            hints = vec!["the query has no FROM".to_string()];
        } else if quoted && field.relation.is_none() && !hints.iter().any(|h| h.starts_with("did you mean")) {
            hints.insert(0, format!("text stands in single quotes: '{}'", field.name));
        }
        let fault = Fault::new("unknown-column", message).at(place);
        if hints.is_empty() { fault } else { fault.hint(hints.join("   ")) }
    }

    fn text(&self, message: &str) -> Fault {
        if let Some(fault) = advice::planning(message, self.sql) {
            return fault;
        }
        if let Some(name) = between(message, "Invalid function '", "'") {
            let state = &self.planner.state;
            let known = state
                .scalar_functions()
                .keys()
                .chain(state.aggregate_functions().keys())
                .chain(state.window_functions().keys())
                .map(String::as_str);
            let mut known: Vec<&str> = known.collect();
            known.sort_unstable();
            let fault =
                Fault::new("unknown-function", format!("no function `{name}`")).at(self.sql.place_of_call(name));
            return match did_you_mean(name, known) {
                Some(near) => fault.hint(format!("did you mean `{near}`?")),
                None => fault,
            };
        }
        if message.contains("must appear in the GROUP BY clause")
            && let Some(column) = between(message, "column \"", "\"")
        {
            let column = column.rsplit('.').next().unwrap_or(column);
            return Fault::new("not-grouped", format!("`{column}` is neither grouped by nor aggregated"))
                .hint(format!("add it to GROUP BY, or aggregate it: `max({column})`"));
        }
        if message.contains("require unique expression names") {
            return Fault::new("duplicate-column", "two expressions here have the same name")
                .hint("give one of them another name with AS");
        }
        let call = between(message, "Function '", "'")
            .or_else(|| between(message, "function '", "'"))
            .or_else(|| between(message, "call to '", "'"));
        let about_types = ["coerce", "type", "Type", "incompatible", "argument"].iter().any(|w| message.contains(w));
        let code = if about_types { "type" } else { "sql" };
        Fault::new(code, first_line(message)).at(call.and_then(|name| self.sql.place_of_call(name)))
    }

    /// What an alias or bare table name of the query stands for.
    fn relations(&self) -> BTreeMap<String, String> {
        let mut tables = Tables::default();
        if let Ok(query) = self.sql.parse(self.planner.sql_dialect().as_ref()) {
            let _ = Visit::visit(&query, &mut tables);
        }
        tables.0
    }
}

#[derive(Default)]
struct Tables(BTreeMap<String, String>);

impl Visitor for Tables {
    type Break = ();

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name: ObjectName(parts), alias, .. } = table
            && let Some(Ident { value, .. }) = parts.last().and_then(|p| p.as_ident())
        {
            // One word is a common table expression.
            if parts.len() > 1 {
                let known_as = alias.as_ref().map_or(value, |a| &a.name.value);
                self.0.insert(known_as.clone(), value.clone());
            }
        }
        ControlFlow::Continue(())
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let len = text[start..].find(after)?;
    Some(&text[start..start + len])
}

fn first_line(text: &str) -> String {
    let text = text.trim_start_matches("Error during planning: ").trim_start_matches("Execution error: ");
    text.lines().next().unwrap_or(text).trim_end_matches('.').to_string()
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

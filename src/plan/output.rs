//! A model's output columns: named, unique ignoring case, storable; and the projection that casts them.

use arrow::datatypes::SchemaRef;
use datafusion::common::{Column, DataFusionError};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, cast};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Query, Select, SelectItem, SetExpr, Spanned};
use std::collections::HashMap;
use std::sync::Arc;

use super::fault::{Fault, Place};
use super::parse::place;
use super::stored::stored_schema;

/// Characters that Delta column names may not have.
const FORBIDDEN: &[char] = &[' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// The select list that names the output: the leftmost of a set operation. `None` for VALUES.
fn select_list(body: &SetExpr) -> Option<&Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => select_list(&query.body),
        SetExpr::SetOperation { left, .. } => select_list(left),
        _ => None,
    }
}

/// Every expression of the output has a name a person chose.
pub(crate) fn check_names(query: &Query, plan: &LogicalPlan) -> Vec<Fault> {
    let mut faults = Vec::new();
    let items = select_list(&query.body).map_or(&[][..], |s| &s.projection);
    for item in items {
        if let SelectItem::UnnamedExpr(expr) = item
            && !matches!(expr, SqlExpr::Identifier(_) | SqlExpr::CompoundIdentifier(_))
        {
            let text = expr.to_string();
            faults.push(
                Fault::new("unnamed-column", format!("`{text}` has no name"))
                    .at(place(expr.span()))
                    .hint(format!("name it: `{text} as {}`", suggestion(expr))),
            );
        }
    }
    if !faults.is_empty() {
        return faults;
    }
    let mut seen: HashMap<String, &str> = HashMap::new();
    for field in plan.schema().fields() {
        let name = field.name().as_str();
        if let Some(bad) = name.chars().find(|c| FORBIDDEN.contains(c)) {
            faults.push(
                Fault::new("column-name", format!("column `{name}` cannot be stored: Delta names have no {bad:?}"))
                    .hint(format!("name it: `as {}`", name.replace(FORBIDDEN, "_")))
                    .at(place_of_output(items, name, false)),
            );
        }
        if let Some(other) = seen.insert(name.to_lowercase(), name) {
            let differ = if other == name { String::new() } else { " (names match ignoring case)".to_string() };
            faults.push(
                Fault::new("duplicate-column", format!("two output columns are named `{name}`{differ}"))
                    .hint(format!("give one another name: `as {name}_2`"))
                    .at(place_of_output(items, name, true)),
            );
        }
    }
    faults
}

/// Names that no person wrote in SQL: storable, and unique ignoring case.
pub(crate) fn check_columns<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), Fault> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for name in names {
        if let Some(bad) = name.chars().find(|c| FORBIDDEN.contains(c)) {
            let message = format!("column `{name}` cannot be stored: Delta names have no {bad:?}");
            return Err(Fault::new("column-name", message).hint(format!("call it {}", name.replace(FORBIDDEN, "_"))));
        }
        if let Some(other) = seen.insert(name.to_lowercase(), name) {
            let message = format!("columns `{other}` and `{name}` have one name, ignoring case");
            return Err(Fault::new("duplicate-column", message).hint("give one another name"));
        }
    }
    Ok(())
}

/// Where the select list makes the column `name`; `last`: the last time it does.
fn place_of_output(items: &[SelectItem], name: &str, last: bool) -> Option<Place> {
    let mut found = items.iter().filter_map(|item| match item {
        SelectItem::UnnamedExpr(SqlExpr::Identifier(word)) if word.value.eq_ignore_ascii_case(name) => place(word.span),
        SelectItem::UnnamedExpr(SqlExpr::CompoundIdentifier(words)) => {
            let word = words.last()?;
            if word.value.eq_ignore_ascii_case(name) { place(item.span()) } else { None }
        }
        SelectItem::ExprWithAlias { alias, expr } if alias.value.eq_ignore_ascii_case(name) => {
            place(alias.span).or_else(|| place(expr.span()))
        }
        _ => None,
    });
    if last { found.next_back() } else { found.next() }
}

fn suggestion(expr: &SqlExpr) -> String {
    match expr {
        SqlExpr::Function(function) => function.name.to_string().to_lowercase(),
        SqlExpr::Cast { expr, .. } | SqlExpr::Nested(expr) => suggestion(expr),
        SqlExpr::Identifier(word) => word.value.clone(),
        SqlExpr::CompoundIdentifier(words) => words.last().map_or("value".to_string(), |w| w.value.clone()),
        _ => "value".to_string(),
    }
}

/// `plan` with its output cast to stored types, and that schema.
pub(crate) fn store(plan: LogicalPlan, query: &Query) -> Result<(LogicalPlan, SchemaRef), OutputError> {
    let fields = plan.schema().fields();
    let schema = stored_schema(fields.iter().map(|f| (f.name().as_str(), f.data_type()))).map_err(|(name, why)| {
        let items = select_list(&query.body).map_or(&[][..], |s| &s.projection);
        OutputError::Fault(
            Fault::new("unstorable-type", format!("column `{name}` is {}, which a table cannot hold", why.what))
                .hint(why.remedy)
                .at(place_of_output(items, &name, false)),
        )
    })?;
    let exprs: Vec<Expr> = plan
        .schema()
        .iter()
        .zip(schema.fields())
        .map(|((qualifier, field), stored)| {
            let column = Expr::Column(Column::from((qualifier, field)));
            if field.data_type() == stored.data_type() {
                column.alias(field.name())
            } else {
                cast(column, stored.data_type().clone()).alias(field.name())
            }
        })
        .collect();
    let plan = Projection::try_new(exprs, Arc::new(plan)).map_err(OutputError::Plan)?;
    Ok((LogicalPlan::Projection(plan), schema))
}

/// Why an output could not be made.
#[derive(Debug)]
pub(crate) enum OutputError {
    Fault(Fault),
    Plan(DataFusionError),
}

//! `select id as k, k as id, unnest(tags) as tag from t`: an output column may have the name of a column that it is not.
//!
//! DataFusion projects what stands beside UNNEST twice, the first time under its output name and with the input's columns beside it, and finds
//! the two ambiguous. Where it does, the select list is computed under names of its own, and gets its names above: `select __item_0 as k, … from
//! (select id as __item_0, … from t)`.

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, GroupByExpr, Ident, ObjectNamePart, Query, Select, SelectItem, SetExpr, TableFactor, VisitMut,
    VisitorMut, visit_expressions,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use std::ops::ControlFlow;

/// `query` with the names of such select lists set apart, if it has any.
pub(super) fn set_apart(query: &Query) -> Option<Query> {
    let mut apart = query.clone();
    let mut names = SetApart { changed: false };
    let _ = VisitMut::visit(&mut apart, &mut names);
    names.changed.then_some(apart)
}

struct SetApart {
    changed: bool,
}

impl VisitorMut for SetApart {
    type Break = ();

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if unnests(select)
            && let Some(named) = named(select)
        {
            *select = named;
            self.changed = true;
        }
        ControlFlow::Continue(())
    }
}

/// Whether its select list has UNNEST, and nothing else of it may mean a name of that list.
fn unnests(select: &Select) -> bool {
    let is_unnest = |expr: &Expr| match expr {
        Expr::Function(function) => match function.name.0.as_slice() {
            [ObjectNamePart::Identifier(name)] => name.value.eq_ignore_ascii_case("unnest"),
            _ => false,
        },
        _ => false,
    };
    let found = visit_expressions(&select.projection, |expr| match is_unnest(expr) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    let groups = !matches!(&select.group_by, GroupByExpr::Expressions(exprs, modifiers) if exprs.is_empty() && modifiers.is_empty());
    let means_names = groups || select.having.is_some() || select.qualify.is_some() || !select.sort_by.is_empty();
    found.is_break() && !means_names && !matches!(select.distinct, Some(Distinct::On(_)))
}

/// `select` below another that gives its columns their names. None where they do not all have one that is written.
fn named(select: &Select) -> Option<Select> {
    let (mut inner, mut projection) = (select.clone(), Vec::with_capacity(select.projection.len()));
    for (number, item) in inner.projection.iter_mut().enumerate() {
        let (expr, name) = match item {
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), alias.clone()),
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => (Expr::Identifier(name.clone()), name.clone()),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(path)) => {
                (Expr::CompoundIdentifier(path.clone()), path.last()?.clone())
            }
            _ => return None,
        };
        let item_name = Ident::new(format!("__item_{number}"));
        *item = SelectItem::ExprWithAlias { expr, alias: item_name.clone() };
        projection.push(SelectItem::ExprWithAlias { expr: Expr::Identifier(item_name), alias: name });
    }
    let text = "select 1 from (select 1) as __items";
    let query = Parser::new(&GenericDialect {}).try_with_sql(text).and_then(|mut parser| parser.parse_query()).ok()?;
    let SetExpr::Select(mut outer) = *query.body else { return None };
    outer.projection = projection;
    match outer.from.first_mut().map(|from| &mut from.relation) {
        Some(TableFactor::Derived { subquery, .. }) => *subquery.body = SetExpr::Select(Box::new(inner)),
        _ => return None,
    }
    Some(*outer)
}

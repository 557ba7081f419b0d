//! What an outer join names in USING is one column: of LEFT JOIN the left side's, of RIGHT JOIN the right side's, of FULL JOIN whichever is there.
//!
//! DataFusion's SQL planner takes the left side's for the bare name, and for `*` that of the relation whose name sorts first: NULL for the rows
//! of the other side alone. Its plan tells, though, which columns USING and NATURAL mean. So a query that joins so is planned once to learn
//! them, and once more with ON, the bare name written as what it means, and `*` as the columns of each relation.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, JoinConstraint as PlannedConstraint, TableReference};
use datafusion::logical_expr::{Expr as PlannedExpr, LogicalPlan};
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, ExcludeSelectItem, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart,
    OrderByExpr, OrderByKind, Query, ReplaceSelectElement, ReplaceSelectItem, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, TableWithJoins, Visit, VisitMut, Visitor,
    VisitorMut, WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::tokenizer::Location;
use std::ops::ControlFlow;

use super::fault::{Fault, Place};
use super::json_access::call;
use super::parse::at;

/// `query` with the columns of outer joins' USING written out, if it has any. `plan` is that of `query`.
pub(super) fn merge(query: &Query, plan: &LogicalPlan) -> Result<Option<Query>, Fault> {
    written_out(query, is_outer, || pairs(plan))
}

/// The same for all joins, for a `query` that cannot be planned: DataFusion finds a bare name ambiguous that three relations have. None: what USING means cannot
/// be told from the text alone.
pub(super) fn merge_written(query: &Query) -> Option<Query> {
    written_out(query, is_any, || Ok(vec![])).ok().flatten()
}

fn written_out(
    query: &Query,
    concerns: fn(&Select) -> bool,
    pairs: impl FnOnce() -> Result<Vec<(Column, Column)>, Fault>,
) -> Result<Option<Query>, Fault> {
    if Visit::visit(query, &mut Asks(concerns)).is_continue() {
        return Ok(None);
    }
    let mut merged = query.clone();
    let mut merge = Merge { concerns, pairs: pairs()? };
    match VisitMut::visit(&mut merged, &mut merge) {
        ControlFlow::Break(fault) => Err(fault),
        ControlFlow::Continue(()) => Ok(Some(merged)),
    }
}

/// Left and right columns of all joins with USING.
fn pairs(plan: &LogicalPlan) -> Result<Vec<(Column, Column)>, Fault> {
    let mut pairs = Vec::new();
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Join(join) = node
            && join.join_constraint == PlannedConstraint::Using
        {
            let columns = |(left, right): &(PlannedExpr, PlannedExpr)| match (left, right) {
                (PlannedExpr::Column(left), PlannedExpr::Column(right)) => Some((left.clone(), right.clone())),
                _ => None,
            };
            pairs.extend(join.on.iter().filter_map(columns));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(|error| Fault::new("internal", error.to_string()))?;
    Ok(pairs)
}

/// Stops at a select that is to be written out.
struct Asks(fn(&Select) -> bool);

impl Visitor for Asks {
    type Break = ();

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if (self.0)(select) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// The kinds of a select's joins with USING or NATURAL.
fn kinds(select: &Select) -> impl Iterator<Item = Kind> + '_ {
    select.from.iter().flat_map(|from| &from.joins).filter_map(|join| match kind(&join.join_operator) {
        Some((JoinConstraint::Using(_) | JoinConstraint::Natural, kind)) => Some(kind),
        _ => None,
    })
}

fn is_outer(select: &Select) -> bool {
    kinds(select).any(|kind| kind != Kind::Inner)
}

fn is_any(select: &Select) -> bool {
    kinds(select).next().is_some()
}

/// Whether each column that its joins make one is the left side's, as DataFusion has it, and none is shown by `*`.
fn keeps_left(select: &Select) -> bool {
    kinds(select).all(|kind| matches!(kind, Kind::Inner | Kind::Left))
        && !select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_)))
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Inner,
    Left,
    Right,
    Full,
}

/// Of joins that show both sides.
fn kind(operator: &JoinOperator) -> Option<(&JoinConstraint, Kind)> {
    Some(match operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) | JoinOperator::CrossJoin(constraint) => {
            (constraint, Kind::Inner)
        }
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (constraint, Kind::Left),
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => (constraint, Kind::Right),
        JoinOperator::FullOuter(constraint) => (constraint, Kind::Full),
        _ => return None,
    })
}

fn with_condition(operator: &JoinOperator, condition: Expr) -> JoinOperator {
    let on = JoinConstraint::On(condition);
    match kind(operator) {
        Some((_, Kind::Left)) => JoinOperator::Left(on),
        Some((_, Kind::Right)) => JoinOperator::Right(on),
        Some((_, Kind::Full)) => JoinOperator::FullOuter(on),
        _ => JoinOperator::Inner(on),
    }
}

/// A relation of FROM, as columns are qualified by it.
struct Relation {
    name: Vec<Ident>,
    /// Columns that `*` does not show of it.
    hidden: Vec<String>,
}

impl Relation {
    fn of(factor: &TableFactor) -> Option<Relation> {
        let alias: &Option<TableAlias> = match factor {
            TableFactor::Table { alias, .. }
            | TableFactor::Derived { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::TableFunction { alias, .. }
            | TableFactor::UNNEST { alias, .. } => alias,
            _ => return None,
        };
        let name = match (alias, factor) {
            (Some(alias), _) => vec![alias.name.clone()],
            (None, TableFactor::Table { name, .. }) => name.0.iter().filter_map(|p| p.as_ident()).cloned().collect(),
            _ => return None,
        };
        Some(Relation { name, hidden: vec![] })
    }

    fn is(&self, reference: Option<&TableReference>) -> bool {
        let Some(reference) = reference else { return false };
        let mut words = self.name.iter().rev().map(|word| word.value.as_str());
        words.next() == Some(reference.table())
            && match (words.next(), reference.schema()) {
                (Some(word), Some(schema)) => word == schema,
                _ => true,
            }
    }

    fn column(&self, name: &str) -> Expr {
        let mut words = self.name.clone();
        words.push(Ident::with_quote('"', name));
        Expr::CompoundIdentifier(words)
    }
}

/// A column that joins have made one.
struct Merged {
    name: String,
    expr: Expr,
    /// The relation in whose place `*` shows it.
    home: usize,
}

struct Merge {
    /// Which selects are written out.
    concerns: fn(&Select) -> bool,
    /// What the plan says of left and right columns; nothing without a plan.
    pairs: Vec<(Column, Column)>,
}

impl VisitorMut for Merge {
    type Break = Fault;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Fault> {
        let order = query.order_by.as_mut().and_then(|order| match &mut order.kind {
            OrderByKind::Expressions(keys) => Some(keys),
            OrderByKind::All(_) => None,
        });
        match self.body(&mut query.body, order) {
            Ok(()) => ControlFlow::Continue(()),
            Err(fault) => ControlFlow::Break(fault),
        }
    }
}

impl Merge {
    /// The selects of a query; those of queries inside are visited on their own.
    fn body(&self, body: &mut SetExpr, order: Option<&mut Vec<OrderByExpr>>) -> Result<(), Fault> {
        match body {
            SetExpr::Select(select) if (self.concerns)(select) => {
                let written = select.clone();
                match self.select(select, order) {
                    Err(_) if self.is_planned() && keeps_left(&written) => *select = written,
                    other => return other,
                }
                Ok(())
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left, None)?;
                self.body(right, None)
            }
            _ => Ok(()),
        }
    }

    /// Whether there is a plan of the query as it is written.
    fn is_planned(&self) -> bool {
        !self.pairs.is_empty()
    }

    fn select(&self, select: &mut Select, order: Option<&mut Vec<OrderByExpr>>) -> Result<(), Fault> {
        let (mut relations, mut merged) = (Vec::new(), Vec::new());
        for from in &mut select.from {
            self.from(from, &mut relations, &mut merged)?;
        }
        let shown: Vec<String> = select.projection.iter().filter_map(shown).collect();
        let mut projection = Vec::with_capacity(select.projection.len());
        for item in std::mem::take(&mut select.projection) {
            match item {
                SelectItem::Wildcard(options) => {
                    if options
                        != (WildcardAdditionalOptions {
                            wildcard_token: options.wildcard_token.clone(),
                            ..Default::default()
                        })
                    {
                        let token = options.wildcard_token.0.span.start;
                        return Err(unclear("`*` with options beside an outer join with USING", Some(token))
                            .hint("name the columns"));
                    }
                    projection
                        .extend(relations.iter().enumerate().map(|(i, relation)| columns_of(i, relation, &merged)));
                }
                SelectItem::UnnamedExpr(Expr::Identifier(name)) if merged.iter().any(|m| m.name == name.value) => {
                    let alias = Ident::with_quote('"', &name.value);
                    projection.push(SelectItem::ExprWithAlias { expr: Expr::Identifier(name), alias });
                }
                other => projection.push(other),
            }
        }
        select.projection = projection;
        let mut spell = Spell { merged: &merged, depth: 0 };
        let _ = VisitMut::visit(&mut select.projection, &mut spell);
        let _ = VisitMut::visit(&mut select.distinct, &mut spell);
        let _ = VisitMut::visit(&mut select.selection, &mut spell);
        let _ = VisitMut::visit(&mut select.group_by, &mut spell);
        let _ = VisitMut::visit(&mut select.having, &mut spell);
        let _ = VisitMut::visit(&mut select.named_window, &mut spell);
        let _ = VisitMut::visit(&mut select.qualify, &mut spell);
        // What is selected is found by its name.
        let is_shown = |key: &OrderByExpr| matches!(&key.expr, Expr::Identifier(name) if shown.contains(&name.value));
        for key in order.into_iter().flatten().filter(|key| !is_shown(key)) {
            let _ = VisitMut::visit(&mut key.expr, &mut spell);
        }
        Ok(())
    }

    /// One item of FROM: its relations, what they have merged, and ON in the place of USING.
    fn from(
        &self,
        from: &mut TableWithJoins,
        relations: &mut Vec<Relation>,
        merged: &mut Vec<Merged>,
    ) -> Result<(), Fault> {
        let (first, known) = (relations.len(), merged.len());
        relations.push(relation(&from.relation)?);
        for join in &mut from.joins {
            let right = relation(&join.relation)?;
            let Some((constraint, kind)) = kind(&join.join_operator) else {
                let start = right.name.first().map(|word| word.span.start);
                return Err(unclear("a join of another kind beside an outer join with USING", start)
                    .hint("write the condition of the outer join with ON"));
            };
            let keys: Vec<String> = match constraint {
                JoinConstraint::Using(names) => {
                    names.iter().filter_map(|name| Some(name.0.first()?.as_ident()?.value.clone())).collect()
                }
                JoinConstraint::Natural if self.pairs.is_empty() => {
                    return Err(unclear("what NATURAL means", None));
                }
                JoinConstraint::Natural => self.keys_of(&right, &relations[first..]),
                JoinConstraint::On(_) | JoinConstraint::None => {
                    let _ = VisitMut::visit(&mut join.join_operator, &mut Spell { merged: &merged[known..], depth: 0 });
                    relations.push(right);
                    continue;
                }
            };
            let at_right = relations.len();
            relations.push(right);
            let mut conditions: Vec<Expr> = Vec::with_capacity(keys.len());
            for key in keys {
                let of_right = relations[at_right].column(&key);
                let earlier = merged[known..].iter().position(|m| m.name == key).map(|at| known + at);
                let (of_left, home) = match earlier {
                    Some(at) => (merged[at].expr.clone(), merged[at].home),
                    None => {
                        let Some(home) = self.left_of(&key, at_right, first, relations)? else { continue };
                        (relations[home].column(&key), home)
                    }
                };
                conditions.push(Expr::BinaryOp {
                    left: Box::new(of_left.clone()),
                    op: BinaryOperator::Eq,
                    right: Box::new(of_right.clone()),
                });
                let expr = match kind {
                    Kind::Inner | Kind::Left => of_left,
                    Kind::Right => of_right,
                    Kind::Full => call("coalesce", vec![of_left, of_right]),
                };
                relations[at_right].hidden.push(key.clone());
                match earlier {
                    Some(at) => merged[at].expr = expr,
                    None => merged.push(Merged { name: key, expr, home }),
                }
            }
            let and =
                |left, right| Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(right) };
            if let Some(condition) = conditions.into_iter().reduce(and) {
                *join = Join { join_operator: with_condition(&join.join_operator, condition), ..join.clone() };
            }
        }
        Ok(())
    }

    /// The columns that NATURAL means.
    fn keys_of(&self, right: &Relation, left: &[Relation]) -> Vec<String> {
        let mut keys = Vec::new();
        for (of_left, of_right) in &self.pairs {
            if right.is(of_right.relation.as_ref())
                && left.iter().any(|relation| relation.is(of_left.relation.as_ref()))
                && !keys.contains(&of_right.name)
            {
                keys.push(of_right.name.clone());
            }
        }
        keys
    }

    /// Which of the relations from `first` on has the left column of a join by `key`.
    fn left_of(
        &self,
        key: &str,
        at_right: usize,
        first: usize,
        relations: &[Relation],
    ) -> Result<Option<usize>, Fault> {
        if at_right == first + 1 {
            return Ok(Some(first));
        }
        let right = &relations[at_right];
        let mut homes: Vec<usize> = Vec::new();
        for (of_left, of_right) in &self.pairs {
            if of_right.name == key && right.is(of_right.relation.as_ref()) {
                let is_left = |at: &usize| relations[*at].is(of_left.relation.as_ref());
                homes.extend((first..at_right).find(is_left));
            }
        }
        homes.sort_unstable();
        homes.dedup();
        match homes.as_slice() {
            [one] => Ok(Some(*one)),
            // A query that nobody reads is not in the plan.
            [] if !self.pairs.is_empty() => Ok(None),
            _ => {
                let start = right.name.first().map(|word| word.span.start);
                let message = format!("whose `{key}` the outer join's USING means");
                Err(unclear(&message, start)
                    .hint("give the relations of the query's parts names of their own, or write ON"))
            }
        }
    }
}

fn unclear(what: &str, start: Option<Location>) -> Fault {
    let place = start.map(at).filter(|(line, _)| *line > 0).map(|(line, column)| Place { line, column, width: 1 });
    Fault::new("using", format!("{what} cannot be told")).at(place)
}

fn relation(factor: &TableFactor) -> Result<Relation, Fault> {
    Relation::of(factor).ok_or_else(|| {
        Fault::new("using", "an outer join with USING needs relations with names beside it")
            .hint("name what stands in parentheses, or write the condition with ON")
    })
}

/// The name of a selected column.
fn shown(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.value.clone()),
        _ => None,
    }
}

/// `relation.*` as `*` shows it.
fn columns_of(number: usize, relation: &Relation, merged: &[Merged]) -> SelectItem {
    let replaced: Vec<Box<ReplaceSelectElement>> = merged
        .iter()
        .filter(|m| m.home == number && m.expr != relation.column(&m.name))
        .map(|m| {
            let column_name = Ident::with_quote('"', &m.name);
            Box::new(ReplaceSelectElement { expr: m.expr.clone(), column_name, as_keyword: true })
        })
        .collect();
    let part = |name: &String| ObjectName(vec![ObjectNamePart::Identifier(Ident::with_quote('"', name))]);
    let hidden: Vec<ObjectName> = relation.hidden.iter().map(part).collect();
    let name = ObjectName(relation.name.iter().cloned().map(ObjectNamePart::Identifier).collect());
    SelectItem::QualifiedWildcard(
        SelectItemQualifiedWildcardKind::ObjectName(name),
        WildcardAdditionalOptions {
            wildcard_token: AttachedToken::empty(),
            opt_exclude: (!hidden.is_empty()).then_some(ExcludeSelectItem::Multiple(hidden)),
            opt_replace: (!replaced.is_empty()).then_some(ReplaceSelectItem { items: replaced }),
            ..Default::default()
        },
    )
}

/// Writes bare names as what they mean, but for those of queries inside, which have relations of their own.
struct Spell<'a> {
    merged: &'a [Merged],
    depth: usize,
}

impl VisitorMut for Spell<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Identifier(name) = expr
            && let Some(merged) = self.merged.iter().find(|m| m.name == name.value)
        {
            *expr = merged.expr.clone();
        }
        ControlFlow::Continue(())
    }
}

//! Subqueries elsewhere than in SELECT and WHERE, asked where DataFusion makes joins of them.
//!
//! DataFusion 55.2 turns subqueries into joins in projections and filters only.
//!
//! | written | planned as |
//! |---|---|
//! | in an argument, a FILTER or an order of an aggregate or a window function, in GROUP BY, PARTITION BY, ORDER BY | a column of a projection below |
//! | `a join b on c and q` | a filter by `q` above the join by `c` |
//! | `a left join b on c and q`, q about b alone | a filter of b |
//! | the same, q about a alone, or part of a condition on both | a column of its side |
//! | the same, q about both | the rows of the inner join, and those of a side that are not among them ([`super::partners`]) |
//!
//! What stands above finds the columns it knows, under the names they had.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, plan_err};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Aggregate, Expr, Filter, Join, JoinType, LogicalPlan, Projection, Sort, Window};
use std::sync::Arc;

use super::correlated::asks;
use super::dependent::{Scope, subquery_of};
use super::lower::{columns_of, substitute, unaliased};
use super::map_values::Taken;
use super::partners::{self, called};

/// `plan` with subqueries in projections and filters alone.
pub(crate) fn below(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.iter().chain(&aggregate.aggr_expr).any(asks) => {
            below_aggregate(aggregate).map(Transformed::yes)
        }
        LogicalPlan::Window(window) if window.window_expr.iter().any(asks) => {
            below_window(window).map(Transformed::yes)
        }
        LogicalPlan::Sort(sort) if sort.expr.iter().any(|key| asks(&key.expr)) => {
            below_sort(sort).map(Transformed::yes)
        }
        LogicalPlan::Join(join) if join.filter.as_ref().is_some_and(asks) => around_join(join),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

/// Expressions that are computed below, under names of their own.
#[derive(Default)]
struct Asked(Vec<Expr>);

impl Asked {
    /// The column that `expr` becomes, if it asks.
    fn lifted(&mut self, expr: Expr) -> Expr {
        if asks(&expr) { self.named(expr, "") } else { expr }
    }

    fn named(&mut self, expr: Expr, side: &str) -> Expr {
        let name = format!("__asked{side}_{}", self.0.len() + 1);
        self.0.push(expr.alias(&name));
        Expr::Column(Column::new_unqualified(name))
    }

    fn lift<'e>(&mut self, exprs: impl Iterator<Item = &'e mut Expr>) {
        for expr in exprs.filter(|e| asks(e)) {
            *expr = self.lifted(expr.clone());
        }
    }

    fn in_call(&mut self, expr: Expr) -> Result<Expr, DataFusionError> {
        let rewritten = expr.transform_up(|e| match e {
            Expr::AggregateFunction(mut call) => {
                let params = &mut call.params;
                let operands = params.args.iter_mut().chain(params.filter.as_deref_mut());
                self.lift(operands.chain(params.order_by.iter_mut().map(|key| &mut key.expr)));
                Ok(Transformed::yes(Expr::AggregateFunction(call)))
            }
            Expr::WindowFunction(mut call) => {
                let params = &mut call.params;
                let operands =
                    params.args.iter_mut().chain(params.filter.as_deref_mut()).chain(&mut params.partition_by);
                self.lift(operands.chain(params.order_by.iter_mut().map(|key| &mut key.expr)));
                Ok(Transformed::yes(Expr::WindowFunction(call)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(rewritten.data)
    }

    /// How many columns of `schema` are asked about.
    fn asked_about(&self, schema: &DFSchema) -> Result<usize, DataFusionError> {
        let mut found = Vec::new();
        for expr in &self.0 {
            found.extend(asked_about(expr, schema)?);
        }
        found.sort();
        found.dedup();
        Ok(found.len())
    }

    /// The rows of `input` with these columns behind its own.
    fn beside(self, input: &Arc<LogicalPlan>) -> Result<Arc<LogicalPlan>, DataFusionError> {
        if self.0.is_empty() {
            return Ok(Arc::clone(input));
        }
        let columns = columns_of(input.schema()).into_iter().chain(self.0);
        Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::clone(input))?)))
    }
}

fn below_aggregate(aggregate: Aggregate) -> Result<LogicalPlan, DataFusionError> {
    let mut asked = Asked::default();
    let calls = aggregate.aggr_expr.into_iter().map(|e| asked.in_call(e)).collect::<Result<Vec<_>, _>>()?;
    let groups = aggregate.group_expr.into_iter().map(|e| asked.lifted(e)).collect();
    let input = asked.beside(&aggregate.input)?;
    let plan = LogicalPlan::Aggregate(Aggregate::try_new(input, groups, calls)?);
    called(&aggregate.schema, plan, 0..)
}

fn below_window(window: Window) -> Result<LogicalPlan, DataFusionError> {
    let mut asked = Asked::default();
    let calls = window.window_expr.into_iter().map(|e| asked.in_call(e)).collect::<Result<Vec<_>, _>>()?;
    let own = window.input.schema().fields().len();
    let input = asked.beside(&window.input)?;
    let behind = input.schema().fields().len();
    let plan = LogicalPlan::Window(Window::try_new(calls, input)?);
    called(&window.schema, plan, (0..own).chain(behind..))
}

fn below_sort(mut sort: Sort) -> Result<LogicalPlan, DataFusionError> {
    let mut asked = Asked::default();
    for key in &mut sort.expr {
        key.expr = asked.lifted(key.expr.clone());
    }
    let schema = Arc::clone(sort.input.schema());
    sort.input = match sort.input.as_ref() {
        // What is asked may be about columns that the SELECT list leaves out.
        LogicalPlan::Projection(projection)
            if asked.asked_about(projection.input.schema())? > asked.asked_about(&schema)? =>
        {
            let selected: Vec<Expr> = projection.expr.iter().map(unaliased).collect();
            let mut exprs = projection.expr.clone();
            for expr in asked.0 {
                exprs.push(substitute(expr, &projection.schema, &selected)?);
            }
            Arc::new(LogicalPlan::Projection(Projection::try_new(exprs, Arc::clone(&projection.input))?))
        }
        _ => asked.beside(&sort.input)?,
    };
    called(&schema, LogicalPlan::Sort(sort), 0..)
}

/// The columns of `schema` that an expression refers to, its subqueries included.
fn referred(expr: &Expr, schema: &DFSchema) -> Result<Vec<Column>, DataFusionError> {
    let mut found = asked_about(expr, schema)?;
    found.extend(expr.column_refs().into_iter().filter(|column| schema.has_column(column)).cloned());
    found.sort();
    found.dedup();
    Ok(found)
}

/// The columns of `schema` that its subqueries refer to.
fn asked_about(expr: &Expr, schema: &DFSchema) -> Result<Vec<Column>, DataFusionError> {
    let (scope, mut found) = (Scope::new(schema), Vec::new());
    expr.apply(|e| {
        if let Some(subquery) = subquery_of(e) {
            found.extend(scope.columns(&subquery.subquery)?);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// The sides of a join.
const LEFT: usize = 0;
const RIGHT: usize = 1;

/// The parts of a join's condition, by where they stand.
#[derive(Default)]
struct Parts {
    /// In the join: they ask nothing.
    plain: Vec<Expr>,
    /// Above the join.
    asking: Vec<Expr>,
    /// Below it, of the rows of a side.
    filters: [Vec<Expr>; 2],
    columns: [Asked; 2],
}

impl Parts {
    fn of(join: &Join) -> Result<Self, DataFusionError> {
        let schemas = [join.left.schema(), join.right.schema()];
        let is_inner = join.join_type == JoinType::Inner;
        // Rows of this side are only partners of others: one that cannot be is none.
        let partners = match join.join_type {
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => Some(RIGHT),
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti => Some(LEFT),
            _ => None,
        };
        let mut parts = Parts::default();
        for part in join.filter.iter().flat_map(split_conjunction).cloned() {
            // Of rows that must have it, it is a semi or an anti join.
            let is_membership = |e: &Expr| matches!(e, Expr::Exists(_) | Expr::InSubquery(_));
            if is_inner && (is_membership(&part) || matches!(&part, Expr::Not(e) if is_membership(e))) {
                parts.asking.push(part);
                continue;
            }
            if let Some(side) = partners
                && asks(&part)
                && referred(&part, schemas[1 - side])?.is_empty()
            {
                parts.filters[side].push(part);
                continue;
            }
            let part = part.transform_down(|e| {
                if subquery_of(&e).is_none() {
                    return Ok(Transformed::no(e));
                }
                let e = match (referred(&e, schemas[LEFT])?.is_empty(), referred(&e, schemas[RIGHT])?.is_empty()) {
                    // What is the same for all rows stands where rows must have a partner.
                    (true, true) if is_inner => return Ok(Transformed::new(e, false, TreeNodeRecursion::Jump)),
                    (_, true) => parts.columns[LEFT].named(e, "_left"),
                    (true, _) => parts.columns[RIGHT].named(e, "_right"),
                    _ => return Ok(Transformed::new(e, false, TreeNodeRecursion::Jump)),
                };
                Ok(Transformed::new(e, true, TreeNodeRecursion::Jump))
            })?;
            if asks(&part.data) { parts.asking.push(part.data) } else { parts.plain.push(part.data) }
        }
        Ok(parts)
    }

    /// The rows of the sides, with what is asked of each.
    fn sides(&mut self, join: &Join) -> Result<[Arc<LogicalPlan>; 2], DataFusionError> {
        let mut sides = [Arc::clone(&join.left), Arc::clone(&join.right)];
        for (side, rows) in sides.iter_mut().enumerate() {
            if let Some(condition) = conjunction(std::mem::take(&mut self.filters[side])) {
                *rows = Arc::new(LogicalPlan::Filter(Filter::try_new(condition, Arc::clone(rows))?));
            }
            *rows = std::mem::take(&mut self.columns[side]).beside(rows)?;
            if join.join_type == JoinType::Inner || self.asking.is_empty() {
                continue;
            }
            // What decides who has a partner must be comparable.
            let schema = Arc::clone(rows.schema());
            let mut taken = Taken::new(&schema, ["__of_map_left", "__of_map_right"][side]);
            for part in self.plain.iter_mut().chain(&mut self.asking) {
                *part = taken.over(part.clone())?;
            }
            *rows = taken.beside(rows)?;
        }
        Ok(sides)
    }
}

fn around_join(join: Join) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let mut parts = Parts::of(&join)?;
    let [left, right] = parts.sides(&join)?;
    let with = |join_type: JoinType| {
        let filter = conjunction(parts.plain.clone());
        let (left, right) = (Arc::clone(&left), Arc::clone(&right));
        let (on, null_equality) = (join.on.clone(), join.null_equality);
        Join::try_new(left, right, on, filter, join_type, join.join_constraint, null_equality, join.null_aware)
    };
    let plan = match conjunction(parts.asking.clone()) {
        None => LogicalPlan::Join(with(join.join_type)?),
        Some(condition) => {
            let pairs = LogicalPlan::Join(with(JoinType::Inner)?);
            let pairs = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(pairs))?);
            let equal = join.on.iter().flat_map(|(left, right)| [left, right]);
            let all: Vec<&Expr> = parts.plain.iter().chain(&parts.asking).chain(equal).collect();
            let keys = |side: &LogicalPlan| -> Result<Vec<Column>, DataFusionError> {
                let found = all.iter().map(|part| referred(part, side.schema())).collect::<Result<Vec<_>, _>>()?;
                let mut keys = found.concat();
                keys.sort();
                keys.dedup();
                Ok(keys)
            };
            let keys = (keys(&left)?, keys(&right)?);
            let Some(plan) = partners::join(join.join_type, &left, &right, pairs, keys)? else {
                return plan_err!(
                    "a subquery in the condition of a {} JOIN refers to a MAP as a whole or to random values: select what it needs \
                     of them in a subquery or CTE first",
                    join.join_type
                );
            };
            plan
        }
    };
    let (own_left, own_right) = (join.left.schema().fields().len(), join.right.schema().fields().len());
    let all_left = left.schema().fields().len();
    let places: Vec<usize> = match join.join_type {
        JoinType::LeftSemi | JoinType::LeftAnti => (0..own_left).collect(),
        JoinType::RightSemi | JoinType::RightAnti => (0..own_right).collect(),
        _ => (0..own_left).chain(all_left..all_left + own_right).collect(),
    };
    called(&join.schema, plan, places).map(Transformed::yes)
}

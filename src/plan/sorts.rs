//! Sorts that DataFusion 55.2 does not lose, for stock execution.
//!
//! It takes a sort out whose keys are projected away below the LIMIT that observes it, as if nobody did; the optimizer moves projections
//! there. An ordered aggregate promises as many keys as it is given, and fails when some turn out to be equal or constant. And it loses an ORDER BY of an expression over one of two equal columns, as in windows ([`super::window_keys`]).

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Aggregate, Expr, Limit, LogicalPlan, Projection, Sort, SubqueryAlias};
use std::sync::Arc;

use super::window_keys::{columns_of, key_name, name_of};

/// `plan` with every LIMIT directly above its sort, and what picked and named columns in between above both.
pub(super) fn limits_above_sorts(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Limit(Limit { skip, fetch, input }) if has_sort_below(&input) => {
            limit_sort(Arc::unwrap_or_clone(input), skip, fetch).map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

fn has_sort_below(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(projection) => has_sort_below(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => has_sort_below(&alias.input),
        _ => false,
    }
}

fn limit_sort(
    plan: LogicalPlan,
    skip: Option<Box<Expr>>,
    fetch: Option<Box<Expr>>,
) -> Result<LogicalPlan, DataFusionError> {
    Ok(match plan {
        LogicalPlan::Projection(Projection { expr, input, schema, .. }) => {
            let input = Arc::new(limit_sort(Arc::unwrap_or_clone(input), skip, fetch)?);
            LogicalPlan::Projection(Projection::try_new_with_schema(expr, input, schema)?)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let input = limit_sort(Arc::unwrap_or_clone(alias.input), skip, fetch)?;
            LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias)?)
        }
        LogicalPlan::Sort(sort) => {
            let columns = columns_of(sort.input.schema());
            let limited = |sort| LogicalPlan::Limit(Limit { skip, fetch, input: Arc::new(LogicalPlan::Sort(sort)) });
            match named(sort)? {
                (sort, true) => LogicalPlan::Projection(Projection::try_new(columns, Arc::new(limited(sort)))?),
                (sort, false) => limited(sort),
            }
        }
        other => LogicalPlan::Limit(Limit { skip, fetch, input: Arc::new(other) }),
    })
}

/// `sort` with columns for its keys, and whether any had to be made.
fn named(mut sort: Sort) -> Result<(Sort, bool), DataFusionError> {
    let mut keys: Vec<Expr> = Vec::new();
    for key in sort.expr.iter_mut().map(|sort| &mut sort.expr).filter(|key| !matches!(key, Expr::Column(_))) {
        *key = Expr::Column(Column::new_unqualified(name_of(&mut keys, key)));
    }
    if keys.is_empty() {
        return Ok((sort, false));
    }
    let mut below = columns_of(sort.input.schema());
    below.extend(keys.into_iter().enumerate().map(|(i, key)| key.alias(key_name(i))));
    sort.input = Arc::new(LogicalPlan::Projection(Projection::try_new(below, sort.input)?));
    Ok((sort, true))
}

/// `plan` with keys of ordered aggregates that are neither constant nor there before.
pub(super) fn order_by_distinct_keys(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) => distinct_keys(aggregate),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

fn distinct_keys(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let names = NamePreserver::new_for_projection();
    let mut changed = false;
    let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
    for expr in &aggregate.aggr_expr {
        let name = names.save(expr);
        let expr = expr.clone().transform_down(|e| match e {
            // Keys of WITHIN GROUP are arguments.
            Expr::AggregateFunction(mut function) if !function.func.supports_within_group_clause() => {
                let before = function.params.order_by.len();
                let mut known: Vec<Expr> = Vec::with_capacity(before);
                function.params.order_by.retain(|key| {
                    let is_new = !matches!(key.expr, Expr::Literal(..)) && !known.contains(&key.expr);
                    known.push(key.expr.clone());
                    is_new
                });
                let fewer = function.params.order_by.len() < before;
                Ok(Transformed::new_transformed(Expr::AggregateFunction(function), fewer))
            }
            other => Ok(Transformed::no(other)),
        })?;
        changed |= expr.transformed;
        calls.push(name.restore(expr.data));
    }
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let aggregate = Aggregate::try_new(aggregate.input, aggregate.group_expr, calls)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}

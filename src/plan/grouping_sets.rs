//! Expressions in GROUPING SETS, ROLLUP and CUBE are computed below the aggregation.
//!
//! The analyzer rewrites functions (checked arithmetic is one) and keeps the names of what it changed by aliases. A grouping set cannot
//! stand under an alias: it is then no grouping set any more. Over plain columns nothing is rewritten.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError};
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan, Projection};
use std::sync::Arc;

/// `plan` with grouping sets over columns only.
pub(crate) fn over_columns(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    Ok(plan.transform_up_with_subqueries(one)?.data)
}

fn one(node: LogicalPlan) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let LogicalPlan::Aggregate(aggregate) = node else { return Ok(Transformed::no(node)) };
    let computed: Vec<Expr> = match aggregate.group_expr.as_slice() {
        [Expr::GroupingSet(sets)] => {
            sets.distinct_expr().into_iter().filter(|e| !matches!(e, Expr::Column(_))).cloned().collect()
        }
        _ => vec![],
    };
    if computed.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    // Under the name that the aggregation gives the expression. It may read like a column's (names leave casts out); the input's columns
    // stand first and are found first.
    let column = |expr: &Expr| match computed.contains(expr) {
        true => Expr::Column(Column::new_unqualified(expr.schema_name().to_string())),
        false => expr.clone(),
    };
    let columns = |exprs: &[Expr]| exprs.iter().map(column).collect::<Vec<_>>();
    let sets = match &aggregate.group_expr[0] {
        Expr::GroupingSet(GroupingSet::Rollup(exprs)) => GroupingSet::Rollup(columns(exprs)),
        Expr::GroupingSet(GroupingSet::Cube(exprs)) => GroupingSet::Cube(columns(exprs)),
        Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => {
            GroupingSet::GroupingSets(sets.iter().map(|set| columns(set)).collect())
        }
        _ => return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
    };
    let below = aggregate.input.schema().iter().map(|(q, f)| Expr::Column(Column::from((q, f))));
    let below = below.chain(computed.iter().map(|e| e.clone().alias(e.schema_name().to_string())));
    let input = Projection::try_new(below.collect(), Arc::clone(&aggregate.input))?;
    let grouping = |expr: Expr| {
        expr.transform_up(|e| match e {
            Expr::AggregateFunction(mut call) if call.func.name() == "grouping" => {
                call.params.args = columns(&call.params.args);
                Ok(Transformed::yes(Expr::AggregateFunction(call)))
            }
            other => Ok(Transformed::no(other)),
        })
    };
    let calls =
        aggregate.aggr_expr.into_iter().map(|e| Ok(grouping(e)?.data)).collect::<Result<_, DataFusionError>>()?;
    let input = Arc::new(LogicalPlan::Projection(input));
    let aggregate = Aggregate::try_new(input, vec![Expr::GroupingSet(sets)], calls)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}

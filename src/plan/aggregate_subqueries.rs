//! Subqueries in the arguments, FILTERs and orders of aggregates, and in GROUP BY, are computed below the aggregation.
//!
//! DataFusion 55.2 turns subqueries into joins in projections and filters only. So `sum(case when exists (q) then x end)` becomes a
//! projection that asks, and a sum over its column; above it the result has the name it had.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection};
use std::sync::Arc;

/// `plan` with aggregates that ask nothing.
pub(crate) fn below(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    Ok(plan.transform_up_with_subqueries(one)?.data)
}

fn asks(expr: &Expr) -> bool {
    let subquery = |e: &Expr| {
        matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_))
    };
    expr.exists(|e| Ok(subquery(e))).unwrap_or(false)
}

/// Expressions that are computed below, under names of their own.
#[derive(Default)]
struct Asked(Vec<Expr>);

impl Asked {
    /// The column that `expr` becomes, if it asks.
    fn lifted(&mut self, expr: Expr) -> Expr {
        if !asks(&expr) {
            return expr;
        }
        let name = format!("__asked_{}", self.0.len() + 1);
        self.0.push(expr.alias(&name));
        Expr::Column(Column::new_unqualified(name))
    }

    fn in_call(&mut self, expr: Expr) -> Result<Expr, DataFusionError> {
        let rewritten = expr.transform_up(|e| match e {
            Expr::AggregateFunction(mut call) => {
                call.params.args = call.params.args.into_iter().map(|arg| self.lifted(arg)).collect();
                call.params.filter = call.params.filter.map(|filter| Box::new(self.lifted(*filter)));
                for key in &mut call.params.order_by {
                    key.expr = self.lifted(key.expr.clone());
                }
                Ok(Transformed::yes(Expr::AggregateFunction(call)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(rewritten.data)
    }
}

fn one(node: LogicalPlan) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let LogicalPlan::Aggregate(aggregate) = node else { return Ok(Transformed::no(node)) };
    if !aggregate.group_expr.iter().chain(&aggregate.aggr_expr).any(asks) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let mut asked = Asked::default();
    let calls = aggregate.aggr_expr.iter().map(|e| asked.in_call(e.clone())).collect::<Result<Vec<_>, _>>()?;
    let groups = aggregate.group_expr.iter().map(|e| asked.lifted(e.clone())).collect();
    let below = aggregate.input.schema().iter().map(|(q, f)| Expr::Column(Column::from((q, f)))).chain(asked.0);
    let input = LogicalPlan::Projection(Projection::try_new(below.collect(), Arc::clone(&aggregate.input))?);
    let schema = Arc::clone(&aggregate.schema);
    let aggregate = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), groups, calls)?);
    let named = schema.iter().zip(aggregate.schema().iter()).map(|((to, named), (q, f))| {
        let column = Expr::Column(Column::from((q, f)));
        if q == to && f.name() == named.name() { column } else { column.alias_qualified(to.cloned(), named.name()) }
    });
    let named = named.collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(named, Arc::new(aggregate))?)))
}

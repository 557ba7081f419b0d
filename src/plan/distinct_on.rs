//! `DISTINCT ON (k) … ORDER BY k, o` as the row whose `row_number()` per key is 1.
//!
//! DataFusion 55.2 makes an aggregation of it, `first_value` of every column, and panics where a column is selected twice.

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DataFusionError};
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Distinct, DistinctOn, Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, Projection, WindowFunctionDefinition,
    lit,
};
use std::sync::Arc;

/// `plan` as the SQL planner made it, without DISTINCT ON.
pub(super) fn first_rows(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Distinct(Distinct::On(on)) => first_of_each(on).map(Transformed::yes),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

fn first_of_each(on: DistinctOn) -> Result<LogicalPlan, DataFusionError> {
    let mut order = on.sort_expr.unwrap_or_default();
    order.retain(|key| !on.on_expr.contains(&key.expr));
    let number = Expr::from(WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), vec![]));
    let number = number.partition_by(on.on_expr);
    let number = if order.is_empty() { number } else { number.order_by(order) }.build()?;
    let is_first = Expr::Column(Column::new_unqualified(number.schema_name().to_string())).eq(lit(1u64));
    let first = LogicalPlanBuilder::from(on.input).window(vec![number])?.filter(is_first)?.build()?;
    let columns = on.select_expr.into_iter().zip(on.schema.iter()).map(|(expr, (qualifier, field))| match expr {
        Expr::Column(_) => expr,
        expr => expr.unalias().alias_qualified(qualifier.cloned(), field.name()),
    });
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::new(first))?))
}

//! `INTERSECT ALL` and `EXCEPT ALL` count duplicates, as the standard says: `min(m, n)` and `max(m − n, 0)` copies of a row.
//!
//! DataFusion plans them as semi and anti joins, which keep all copies or none. Numbering the copies of each row on both sides
//! (`row_number()` over a partition by all columns) and joining on the number, too, gives the counts.

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DataFusionError, JoinType, NullEquality};
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, Join, LogicalPlan, LogicalPlanBuilder, WindowFunctionDefinition,
};
use std::sync::Arc;

/// `plan` as the SQL planner made it, with set operations that count.
pub(crate) fn count_duplicates(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let counted = plan.transform_up_with_subqueries(|node| match node {
        // Before optimisation only set operations join like this; without ALL their left side is DISTINCT, and then copies
        // need no counting.
        LogicalPlan::Join(join)
            if matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
                && join.null_equality == NullEquality::NullEqualsNull
                && !matches!(join.left.as_ref(), LogicalPlan::Distinct(_)) =>
        {
            counted(join).map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(counted.data)
}

fn counted(join: Join) -> Result<LogicalPlan, DataFusionError> {
    let columns = columns(&join.left);
    let (left, left_copy) = numbered(join.left, "__copy_left")?;
    let (right, right_copy) = numbered(join.right, "__copy_right")?;
    let mut on = join.on;
    on.push((left_copy, right_copy));
    let join = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        join.filter,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    LogicalPlanBuilder::from(LogicalPlan::Join(join)).project(columns)?.build()
}

fn columns(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema().iter().map(|(q, f)| Expr::Column(Column::from((q, f)))).collect()
}

/// `plan` with the number of each row among its equals, as column `name`.
fn numbered(plan: Arc<LogicalPlan>, name: &str) -> Result<(LogicalPlan, Expr), DataFusionError> {
    let mut exprs = columns(&plan);
    let number = Expr::from(WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), vec![]))
        .partition_by(exprs.clone())
        .build()?;
    exprs.push(Expr::Column(Column::new_unqualified(number.schema_name().to_string())).alias(name));
    let plan = LogicalPlanBuilder::from(plan).window(vec![number])?.project(exprs)?.build()?;
    Ok((plan, Expr::Column(Column::new_unqualified(name))))
}

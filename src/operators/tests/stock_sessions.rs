//! Sessions by the window functions of stock DataFusion alone, for the oracle to compare with: a row that does not come before the end of the
//! row before it is the first of a session, sessions are numbered by a running sum of these, and the bounds are those of the number.

use datafusion::common::Column;
use datafusion::common::tree_node::Transformed;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::functions_window::expr_fn::lag;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    AggregateUDF, Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, Projection, Window, WindowFrame,
    WindowFunctionDefinition, col, lit, when,
};
use std::sync::Arc;

use crate::functions::{SESSION_WINDOW_END, SESSION_WINDOW_START};

/// `plan` with them in the place of the session functions; how many places there were.
pub fn in_stock_functions(plan: LogicalPlan) -> (LogicalPlan, usize) {
    let mut replaced = 0;
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Window(window) if window.window_expr.iter().all(|e| bound(e).is_some()) => {
            replaced += 1;
            Ok(Transformed::yes(in_windows(&window)))
        }
        LogicalPlan::Window(window) => {
            assert!(!window.window_expr.iter().any(|e| bound(e).is_some()), "sessions beside other windows");
            Ok(Transformed::no(LogicalPlan::Window(window)))
        }
        other => Ok(Transformed::no(other)),
    });
    (plan.unwrap().data, replaced)
}

fn bound(expr: &Expr) -> Option<WindowFunction> {
    match expr.clone().unalias() {
        Expr::WindowFunction(f) if [SESSION_WINDOW_START, SESSION_WINDOW_END].contains(&f.fun.name()) => Some(*f),
        _ => None,
    }
}

fn over(function: Arc<AggregateUDF>, argument: Expr, partition: &[Expr], order: Option<&Expr>) -> Expr {
    let call = WindowFunction::new(WindowFunctionDefinition::AggregateUDF(function), vec![argument]);
    let call = Expr::from(call).partition_by(partition.to_vec());
    match order {
        // With its peers.
        Some(order) => call.order_by(vec![order.clone().sort(true, false)]).window_frame(WindowFrame::new(Some(false))),
        None => call.window_frame(WindowFrame::new(None)),
    }
    .build()
    .unwrap()
}

fn in_windows(window: &Window) -> LogicalPlan {
    let first = bound(&window.window_expr[0]).unwrap();
    let (keys, time, end) = (first.params.partition_by.clone(), &first.params.args[0], &first.params.args[1]);
    let columns = |plan: &LogicalPlan| -> Vec<Expr> {
        plan.schema().iter().map(|(q, f)| Expr::Column(Column::from((q, f)))).collect()
    };
    let before = lag(end.clone(), Some(1), None).partition_by(keys.clone());
    let before = before.order_by(vec![time.clone().sort(true, false)]).build().unwrap().alias("__before");
    let plan = LogicalPlanBuilder::from(window.input.as_ref().clone()).window([before]).unwrap();
    let is_first = when(time.clone().lt(col("__before")), lit(0i64)).otherwise(lit(1i64)).unwrap().alias("__first");
    let list = columns(&window.input).into_iter().chain([is_first]);
    let plan = plan.project(list.collect::<Vec<_>>()).unwrap();
    let number = over(sum_udaf(), col("__first"), &keys, Some(time)).alias("__session");
    let plan = plan.window([number]).unwrap();
    let within: Vec<Expr> = keys.iter().cloned().chain([col("__session")]).collect();
    let starts = over(min_udaf(), time.clone(), &within, None).alias("__start");
    let plan = plan.window([starts, over(max_udaf(), end.clone(), &within, None).alias("__end_of")]).unwrap();
    let plan = plan.build().unwrap();
    let bounds = window.window_expr.iter().map(|e| match bound(e).unwrap().fun.name() {
        SESSION_WINDOW_START => col("__start"),
        _ => col("__end_of"),
    });
    let list = columns(&window.input).into_iter().chain(bounds).zip(window.schema.iter());
    let list = list.map(|(e, (qualifier, field))| e.alias_qualified(qualifier.cloned(), field.name()));
    LogicalPlan::Projection(Projection::try_new(list.collect(), Arc::new(plan)).unwrap())
}

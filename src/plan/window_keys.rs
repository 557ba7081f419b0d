//! PARTITION BY and ORDER BY expressions of windows as columns, for stock execution.
//!
//! DataFusion 55.2 sorts a window's input, then asks which partition keys are ordered, making each constant in turn. An expression over one
//! of two equal columns (`b as x, b as y … partition by not y`) is not found again after that, and execution fails with "Expects PARTITION
//! BY expression to be ordered". An ORDER BY with a CASE is lost in the same way ("does not satisfy order requirements"). Columns are
//! always found, so keys that are none get one below the window.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DataFusionError};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, Window};
use std::sync::Arc;

/// `plan` with columns for the keys of windows; its output is the same.
pub(super) fn name_window_keys(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Window(window) => name_keys(window),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

pub(super) fn columns_of(schema: &DFSchema) -> Vec<Expr> {
    schema.iter().map(|(qualifier, field)| Expr::Column(Column::from((qualifier, field)))).collect()
}

fn name_keys(window: Window) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let width = window.input.schema().fields().len();
    let mut keys: Vec<Expr> = Vec::new();
    let mut calls = Vec::with_capacity(window.window_expr.len());
    for (expr, (qualifier, field)) in window.window_expr.iter().zip(window.schema.iter().skip(width)) {
        let named = expr.clone().transform_down(|e| match e {
            Expr::WindowFunction(mut function) => {
                let params = &mut function.params;
                for key in params.partition_by.iter_mut().chain(params.order_by.iter_mut().map(|s| &mut s.expr)) {
                    if !matches!(key, Expr::Column(_)) {
                        *key = Expr::Column(Column::new_unqualified(name_of(&mut keys, key)));
                    }
                }
                Ok(Transformed::yes(Expr::WindowFunction(function)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        calls.push(named.data.unalias().alias_qualified(qualifier.cloned(), field.name()));
    }
    if keys.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let mut below = columns_of(window.input.schema());
    below.extend(keys.into_iter().enumerate().map(|(i, key)| key.alias(key_name(i))));
    let input = LogicalPlan::Projection(Projection::try_new(below, window.input)?);
    let inner = LogicalPlan::Window(Window::try_new(calls, Arc::new(input))?);
    let columns = columns_of(&window.schema);
    let outer = Projection::try_new_with_schema(columns, Arc::new(inner), window.schema)?;
    Ok(Transformed::yes(LogicalPlan::Projection(outer)))
}

/// The column of `key`, a new one or the one an equal key has.
pub(super) fn name_of(keys: &mut Vec<Expr>, key: &Expr) -> String {
    let at = keys.iter().position(|k| k == key).unwrap_or_else(|| {
        keys.push(key.clone());
        keys.len() - 1
    });
    key_name(at)
}

pub(super) fn key_name(at: usize) -> String {
    format!("__window_key_{at}")
}

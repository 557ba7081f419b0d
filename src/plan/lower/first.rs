//! `row_number() over (partition by … order by …) = 1`: the first row of each partition.

use datafusion::common::{Column, DataFusionError, ScalarValue};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Filter, LogicalPlan, Operator, Window, lit};
use std::sync::Arc;

use super::{Fallback, Lowering, columns_of, filter_of, no_subquery, project, substitute, unaliased};
use crate::plan::incremental::Node;

/// The window below a filter, and the filter's input columns over it: the optimizer leaves projections and aliases between.
pub(super) fn window_below(plan: &LogicalPlan) -> Result<Option<(&Window, Vec<Expr>)>, DataFusionError> {
    let mut columns = columns_of(plan.schema());
    let mut at = plan;
    loop {
        let (schema, exprs, input) = match at {
            LogicalPlan::Window(window) => return Ok(Some((window, columns))),
            LogicalPlan::Projection(p) => (&p.schema, p.expr.iter().map(unaliased).collect(), &p.input),
            LogicalPlan::SubqueryAlias(a) => (&a.schema, columns_of(a.input.schema()), &a.input),
            _ => return Ok(None),
        };
        columns = columns.into_iter().map(|e| substitute(e, schema, &exprs)).collect::<Result<_, _>>()?;
        at = input;
    }
}

fn row_number(window: &Window) -> Option<WindowFunction> {
    let [one] = window.window_expr.as_slice() else { return None };
    match unaliased(one) {
        Expr::WindowFunction(function) if function.fun.name() == "row_number" => Some(*function),
        _ => None,
    }
}

impl Lowering<'_> {
    /// `filter` over `window`, if it selects first rows; `columns` are the filter's columns, over the window's.
    pub(super) fn first(&self, filter: &Filter, window: &Window, columns: Vec<Expr>) -> Result<Option<Node>, Fallback> {
        let Some(function) = row_number(window) else { return Ok(None) };
        let rank = window.schema.fields().len() - 1;
        let schema = filter.input.schema();
        let predicate = substitute(filter.predicate.clone(), schema, &columns)?;
        let mut first = false;
        let mut rest = Vec::new();
        for part in split_conjunction(&predicate) {
            if selects_first(part, |c| window.schema.maybe_index_of_column(c) == Some(rank)) {
                first = true;
            } else {
                rest.push(part.clone());
            }
        }
        if !first {
            return Ok(None);
        }
        no_subquery(&rest)?;
        no_subquery(&columns)?;
        let input = self.plan(&window.input)?;
        let mut exprs = columns_of(input.schema());
        let first = Node::First {
            input: Box::new(input),
            partition: function.params.partition_by,
            order: function.params.order_by,
            bucket: None,
        };
        exprs.push(lit(1u64));
        let mut node = project(first, exprs, Arc::clone(&window.schema))?;
        if let Some(predicate) = conjunction(rest) {
            node = filter_of(node, predicate);
        }
        Ok(Some(project(node, columns, Arc::clone(schema))?))
    }
}

/// `rank = 1`, `rank <= 1`, `rank < 2`, either way round.
fn selects_first(predicate: &Expr, is_rank: impl Fn(&Column) -> bool) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = predicate else { return false };
    let (op, bound) = match (stripped(left), stripped(right)) {
        (Expr::Column(c), Expr::Literal(v, _)) if is_rank(c) => (*op, v),
        (Expr::Literal(v, _), Expr::Column(c)) if is_rank(c) => match op.swap() {
            Some(op) => (op, v),
            None => return false,
        },
        _ => return false,
    };
    let is = |n: i64| bound.cast_to(&arrow::datatypes::DataType::Int64).is_ok_and(|v| v == ScalarValue::Int64(Some(n)));
    match op {
        Operator::Eq | Operator::LtEq => is(1),
        Operator::Lt => is(2),
        _ => false,
    }
}

/// A widening cast does not change which rank is meant.
pub(super) fn stripped(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) if cast.field.data_type().is_integer() => stripped(&cast.expr),
        other => other,
    }
}

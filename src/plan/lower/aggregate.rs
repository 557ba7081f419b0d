//! GROUP BY and DISTINCT.

use arrow::datatypes::DataType;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate as LogicalAggregate, Expr, ExprSchemable};
use std::sync::Arc;

use super::{Fallback, Lowering, no_subquery, unaliased};
use crate::plan::incremental::{Aggregate, AggregateClass, Node};

impl Lowering<'_> {
    pub(super) fn aggregate(&self, aggregate: &LogicalAggregate) -> Result<Node, Fallback> {
        if aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
            return Err(Fallback::new("GROUPING SETS", "its groupings are computed together by a bulk plan"));
        }
        no_subquery(&aggregate.group_expr)?;
        no_subquery(&aggregate.aggr_expr)?;
        let input = self.plan(&aggregate.input)?;
        let aggregates = aggregate
            .aggr_expr
            .iter()
            .map(|expr| match unaliased(expr) {
                Expr::AggregateFunction(call) => Ok(Aggregate {
                    class: class(&call, input.schema()),
                    args: call.params.args.clone(),
                    filter: call.params.filter.as_deref().cloned(),
                    call: Expr::AggregateFunction(call),
                }),
                other => Err(Fallback::new("an aggregate", format!("`{other}` is none that we know"))),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Node::Aggregate {
            group: aggregate.group_expr.iter().map(unaliased).collect(),
            aggregates,
            schema: Arc::clone(&aggregate.schema),
            input: Box::new(input),
        })
    }
}

/// How a call is maintained.
fn class(call: &AggregateFunction, schema: &datafusion::common::DFSchema) -> AggregateClass {
    if call.params.distinct || call.params.args.len() > 1 {
        return AggregateClass::Recompute;
    }
    let argument = call.params.args.first().and_then(|e| e.get_type(schema).ok());
    let number = argument.as_ref().is_some_and(DataType::is_numeric);
    match call.func.name() {
        "count" => AggregateClass::Count,
        "sum" if number => AggregateClass::Sum,
        "avg" if number => AggregateClass::Avg,
        "min" => AggregateClass::Min,
        "max" => AggregateClass::Max,
        "bool_and" => AggregateClass::BoolAnd,
        "bool_or" => AggregateClass::BoolOr,
        _ => AggregateClass::Recompute,
    }
}

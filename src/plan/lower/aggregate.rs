//! GROUP BY and DISTINCT.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate as LogicalAggregate, Expr, ExprSchemable, GroupingSet as LogicalSets};
use std::collections::HashMap;
use std::sync::Arc;

use super::{Fallback, Lowering, no_subquery, unaliased};
use crate::functions;
use crate::plan::incremental::{Aggregate, AggregateClass, GroupingSet, Node, Place, Quantile};

impl Lowering<'_> {
    pub(super) fn aggregate(&self, aggregate: &LogicalAggregate) -> Result<Node, Fallback> {
        let (group, sets) = match aggregate.group_expr.as_slice() {
            [Expr::GroupingSet(sets)] => {
                let group: Vec<Expr> = sets.distinct_expr().into_iter().cloned().collect();
                let sets = grouping_sets(sets, &group, aggregate)?;
                (group, sets)
            }
            group => (group.to_vec(), vec![]),
        };
        no_subquery(&aggregate.group_expr)?;
        no_subquery(&aggregate.aggr_expr)?;
        let input = self.plan(&aggregate.input)?;
        let append_only = input.is_append_only();
        let results = aggregate.schema.fields().iter().skip(aggregate.group_expr_len()?);
        let aggregates = aggregate
            .aggr_expr
            .iter()
            .zip(results)
            .map(|(expr, result)| match unaliased(expr) {
                Expr::AggregateFunction(call) => {
                    let (class, distinct) = class(&call, input.schema(), result.data_type());
                    Ok(Aggregate {
                        class,
                        distinct,
                        append_only,
                        args: call.params.args.clone(),
                        filter: call.params.filter.as_deref().cloned(),
                        call: Expr::AggregateFunction(call),
                    })
                }
                other => Err(Fallback::new("an aggregate", format!("`{other}` is none that we know"))),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Node::Aggregate {
            group: group.iter().map(unaliased).collect(),
            sets,
            aggregates,
            bucket: None,
            schema: Arc::clone(&aggregate.schema),
            input: Box::new(input),
        })
    }
}

/// The sets of a ROLLUP, a CUBE or GROUPING SETS over `group`, numbered as DataFusion numbers them.
fn grouping_sets(
    sets: &LogicalSets,
    group: &[Expr],
    aggregate: &LogicalAggregate,
) -> Result<Vec<GroupingSet>, Fallback> {
    let width = group.len();
    let too_many = || Fallback::new("GROUPING SETS", "there are too many to be numbered");
    let patterns: Vec<Vec<bool>> = match sets {
        LogicalSets::Rollup(exprs) if exprs.len() == width => {
            (0..=width).map(|kept| (0..width).map(|i| i >= kept).collect()).collect()
        }
        LogicalSets::Cube(exprs) if exprs.len() == width && width < 16 => {
            (0..1u64 << width).map(|mask| (0..width).map(|i| mask >> (width - 1 - i) & 1 == 1).collect()).collect()
        }
        LogicalSets::GroupingSets(sets) => {
            sets.iter().map(|set| group.iter().map(|expr| !set.contains(expr)).collect()).collect()
        }
        _ => return Err(too_many()),
    };
    let bits = aggregate.schema.fields().get(width).and_then(|f| f.data_type().primitive_width()).unwrap_or(0) * 8;
    let mut seen: HashMap<Vec<bool>, u64> = HashMap::new();
    let numbered = |rolled_up: Vec<bool>| {
        let before = seen.entry(rolled_up.clone()).or_default();
        let mask = rolled_up.iter().fold(0u64, |mask, rolled_up| mask << 1 | u64::from(*rolled_up));
        let used = width + (u64::BITS - before.leading_zeros()) as usize;
        if used > bits {
            return Err(too_many());
        }
        let number = before.checked_shl(width as u32).unwrap_or(0) | mask;
        *before += 1;
        Ok(GroupingSet { rolled_up, number })
    };
    patterns.into_iter().map(numbered).collect()
}

/// How a call is maintained, and whether over distinct values.
fn class(call: &AggregateFunction, input: &DFSchema, result: &DataType) -> (AggregateClass, bool) {
    let args = &call.params.args;
    let distinct = call.params.distinct;
    let types: Vec<DataType> = args.iter().filter_map(|e| e.get_type(input).ok()).collect();
    let number = types.first().is_some_and(DataType::is_numeric);
    if types.len() != args.len() {
        return (AggregateClass::Recompute, false);
    }
    match (call.func.name(), args.len()) {
        ("count", 0 | 1) => (AggregateClass::Count, distinct),
        ("count" | "regr_count", _) if !distinct => (AggregateClass::Count, false),
        ("sum", 1) if number && functions::is_exact(&call.func) => (AggregateClass::Sum, distinct),
        ("avg", 1) if number && functions::is_exact(&call.func) => (AggregateClass::Avg, distinct),
        // A second time changes nothing.
        ("min", 1) => (AggregateClass::Min, false),
        ("max", 1) => (AggregateClass::Max, false),
        ("bool_and", 1) => (AggregateClass::BoolAnd, false),
        ("bool_or", 1) => (AggregateClass::BoolOr, false),
        ("bit_and", 1) if types[0].is_integer() => (AggregateClass::BitAnd, false),
        ("bit_or", 1) if types[0].is_integer() => (AggregateClass::BitOr, false),
        ("first_value" | "last_value" | "nth_value", _) if !distinct => match place(call) {
            Some(place) => (AggregateClass::Place(place), false),
            None => (AggregateClass::Recompute, false),
        },
        ("median" | "percentile_cont", _) if number => match quantile(call, &types[0]) {
            Some(quantile) => (AggregateClass::Quantile(quantile), distinct),
            None => (AggregateClass::Recompute, false),
        },
        _ => match functions::kind(&call.func, &types, result, distinct) {
            Some(_) => (AggregateClass::Total, distinct),
            None => (AggregateClass::Recompute, false),
        },
    }
}

/// The place that a call asks for.
fn place(call: &AggregateFunction) -> Option<Place> {
    let args = &call.params.args;
    match (call.func.name(), args.get(1)) {
        ("first_value", None) => Some(Place::First),
        ("last_value", None) => Some(Place::Last),
        ("nth_value", Some(Expr::Literal(ScalarValue::Int64(Some(n)), _)))
            if *n != 0 && *n != i64::MIN && call.params.null_treatment.is_none() =>
        {
            Some(Place::Nth(*n))
        }
        _ => None,
    }
}

/// The quantile that a call asks for.
fn quantile(call: &AggregateFunction, argument: &DataType) -> Option<Quantile> {
    let args = &call.params.args;
    match (call.func.name(), args.get(1)) {
        ("median", None) => Some(Quantile::Median),
        ("percentile_cont", Some(Expr::Literal(ScalarValue::Float64(Some(share)), _)))
            if (0.0..=1.0).contains(share) && argument == &DataType::Float64 =>
        {
            let descending = call.params.order_by.first().is_some_and(|key| !key.asc);
            Some(Quantile::Percentile(if descending { 1.0 - share } else { *share }))
        }
        _ => None,
    }
}

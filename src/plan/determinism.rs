//! The first rule of the engine: a view's rows are a function of its inputs' multisets, never of the order rows arrive in.
//!
//! Before optimisation every order-sensitive operator is given a total order: behind what the model wrote stand all columns of
//! the operator's input that the model needs, in schema order, ascending, NULLS LAST. Two rows that still tie are equal
//! in everything the model can see, so it does not matter which comes first. "Needs" is what column pruning keeps, so a
//! `select *` deep in a query does not force wide rows into state.
//!
//! An ORDER BY that nothing observes (no LIMIT above it) is taken out: a table has no order.

use arrow::datatypes::Field;
use arrow::row::{RowConverter, SortField};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError};
use datafusion::logical_expr::expr::{AggregateFunction, Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Aggregate, Expr, Limit, LogicalPlan, Projection, Sort, SubqueryAlias, Window, WindowFrameBound, WindowFrameUnits,
    WindowFunctionDefinition, lit,
};
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use std::collections::HashSet;
use std::sync::Arc;

use super::fault::Fault;
use super::order_key::order_key;
use super::session::Planner;
use crate::functions::{SESSION_WINDOW_END, SESSION_WINDOW_START};

/// Aggregates whose result depends on the order of their rows.
const ORDERED_AGGREGATES: [&str; 5] = ["array_agg", "string_agg", "first_value", "last_value", "nth_value"];

/// Window functions that ties cannot influence.
const TIE_PROOF: [&str; 4] = ["rank", "dense_rank", "percent_rank", "cume_dist"];

/// `plan` (analysed) with a total order wherever one is observed.
pub(crate) fn rewrite(planner: &Planner, plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    complete(planner, drop_unobserved_sorts(plan, false)?)
}

/// The same for a query, whose own ORDER BY is observed.
pub(crate) fn complete(planner: &Planner, plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    if !plan_is_sensitive(&plan)? {
        return Ok(plan);
    }
    // Pruning does not see which columns of its left side a lateral join refers to: it comes after the last of them is an ordinary join.
    let lateral = Optimizer::with_rules(vec![Arc::new(DecorrelateLateralJoin::new())]);
    let mut plan = plan;
    loop {
        let before = plan.clone();
        plan = planner.optimize_with(&lateral, plan, |_, _| {})?;
        if plan == before {
            break;
        }
    }
    let pruning = Optimizer::with_rules(vec![Arc::new(OptimizeProjections::new())]);
    let plan = planner.optimize_with(&pruning, plan, |_, _| {})?;
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Window(window) => order_window(window),
        LogicalPlan::Aggregate(aggregate) => order_aggregate(planner, aggregate),
        LogicalPlan::Limit(limit) => order_limit(limit).map(Transformed::yes),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

/// Whether any operator is order-sensitive at all: most models are not, and keep the plan they have.
fn plan_is_sensitive(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    let mut sensitive = false;
    plan.apply_with_subqueries(|node| {
        sensitive |= match node {
            LogicalPlan::Window(w) => w.window_expr.iter().any(|e| window_of(e).is_some_and(is_order_sensitive)),
            LogicalPlan::Aggregate(a) => a.aggr_expr.iter().any(|e| {
                e.exists(|e| Ok(matches!(e, Expr::AggregateFunction(f) if is_ordered_aggregate(f) || f.func.name() == "any_value")))
                    .unwrap_or(true)
            }),
            LogicalPlan::Limit(_) => true,
            _ => false,
        };
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    Ok(sensitive)
}

/// Takes out sorts whose order nothing above observes. `observed`: a LIMIT stands above, with only row-preserving nodes between.
fn drop_unobserved_sorts(plan: LogicalPlan, observed: bool) -> Result<LogicalPlan, DataFusionError> {
    let plan = match plan {
        LogicalPlan::Sort(sort) if !observed && sort.fetch.is_none() => {
            return drop_unobserved_sorts(Arc::unwrap_or_clone(sort.input), false);
        }
        other => other,
    };
    let below = match &plan {
        LogicalPlan::Limit(_) => true,
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => observed,
        _ => false,
    };
    let plan = plan.map_children(|child| drop_unobserved_sorts(child, below).map(Transformed::yes))?.data;
    Ok(plan.map_subqueries(|sub| drop_unobserved_sorts(sub, false).map(Transformed::yes))?.data)
}

/// All columns of `plan`'s output as sort keys, but for `constant` ones (the same throughout what is ordered) and those
/// that cannot be compared.
fn ties(plan: &LogicalPlan, present: &[SortExpr], constant: &[Expr]) -> Vec<SortExpr> {
    let known: HashSet<&Expr> = present.iter().map(|s| &s.expr).chain(constant).collect();
    plan.schema()
        .iter()
        .filter(|(_, field)| comparable(field))
        .map(|(qualifier, field)| (Expr::Column(Column::from((qualifier, field))), field.data_type().is_nested()))
        .filter(|(column, _)| !known.contains(column))
        .map(|(column, is_nested)| if is_nested { order_key(column) } else { column }.sort(true, false))
        .collect()
}

fn comparable(field: &Field) -> bool {
    RowConverter::supports_fields(&[SortField::new(field.data_type().clone())])
}

fn window_of(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::Alias(alias) => window_of(&alias.expr),
        Expr::WindowFunction(window) => Some(window),
        _ => None,
    }
}

/// Whether ties in the window's order can change its result.
fn is_order_sensitive(window: &WindowFunction) -> bool {
    match &window.fun {
        // Of a session, peers have one time and one end.
        WindowFunctionDefinition::WindowUDF(f) if [SESSION_WINDOW_START, SESSION_WINDOW_END].contains(&f.name()) => {
            window.params.order_by.first().map(|key| &key.expr) != window.params.args.first()
        }
        WindowFunctionDefinition::WindowUDF(f) => !TIE_PROOF.contains(&f.name()),
        WindowFunctionDefinition::AggregateUDF(f) => {
            let frame = &window.params.window_frame;
            let whole = unbounded(&frame.start_bound) && unbounded(&frame.end_bound);
            ORDERED_AGGREGATES.contains(&f.name()) || (frame.units == WindowFrameUnits::Rows && !whole)
        }
    }
}

fn unbounded(bound: &WindowFrameBound) -> bool {
    bound.is_unbounded()
}

/// What a window function partitions and orders by.
type Keys = (Vec<Expr>, Vec<SortExpr>);

fn order_window(window: Window) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    if !window.window_expr.iter().any(|e| window_of(e).is_some_and(is_order_sensitive)) {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let schema = Arc::clone(&window.schema);
    let input = Arc::clone(&window.input);
    let names = NamePreserver::new_for_projection();
    // Expressions of one node share one order: those that need ties go to nodes of their own.
    let mut nodes: Vec<(Option<Keys>, Vec<Expr>)> = Vec::new();
    for expr in window.window_expr {
        let name = names.save(&expr);
        let expr = expr.transform_down(|e| match e {
            Expr::WindowFunction(mut function) if is_order_sensitive(&function) => {
                let frame = &function.params.window_frame;
                let offset = |b: &WindowFrameBound| !b.is_unbounded() && !matches!(b, WindowFrameBound::CurrentRow);
                if frame.units == WindowFrameUnits::Range && (offset(&frame.start_bound) || offset(&frame.end_bound)) {
                    return Err(Fault::new(
                        "undetermined-order",
                        format!(
                            "`{}` over a RANGE of distances depends on the order of equal rows",
                            function.fun.name()
                        ),
                    )
                    .hint("use a ROWS frame, or min/max instead")
                    .into());
                }
                let add = ties(&input, &function.params.order_by, &function.params.partition_by);
                function.params.order_by.extend(add);
                Ok(Transformed::yes(Expr::WindowFunction(function)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        let keys = window_of(&expr.data).filter(|_| expr.transformed);
        let keys = keys.map(|f| (f.params.partition_by.clone(), f.params.order_by.clone()));
        let expr = name.restore(expr.data);
        match nodes.iter_mut().find(|(of, _)| *of == keys) {
            Some((_, exprs)) => exprs.push(expr),
            None => nodes.push((keys, vec![expr])),
        }
    }
    let only = nodes.len() == 1;
    let mut plan = input;
    for (_, exprs) in nodes {
        plan = Arc::new(LogicalPlan::Window(Window::try_new(exprs, plan)?));
    }
    if only {
        return Ok(Transformed::yes(Arc::unwrap_or_clone(plan)));
    }
    let columns = schema.iter().map(|(q, f)| Expr::Column(Column::from((q, f)))).collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, plan)?)))
}

fn is_ordered_aggregate(function: &AggregateFunction) -> bool {
    ORDERED_AGGREGATES.contains(&function.func.name())
}

fn order_aggregate(planner: &Planner, aggregate: Aggregate) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let names = NamePreserver::new_for_projection();
    let mut changed = false;
    let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
    for expr in aggregate.aggr_expr {
        let name = names.save(&expr);
        let expr = expr.transform_down(|e| match e {
            Expr::AggregateFunction(mut function) if is_ordered_aggregate(&function) => {
                // Constants order nothing, nor does a key the second time; stock accumulators would miss a column of their state.
                let mut known = HashSet::new();
                let input = aggregate.input.schema();
                function.params.order_by.retain(|key| {
                    let simple = planner.simplify(key.expr.clone(), Arc::clone(input));
                    let simple = simple.unwrap_or_else(|_| key.expr.clone());
                    !matches!(simple, Expr::Literal(..)) && known.insert(simple)
                });
                if function.params.distinct {
                    // DISTINCT leaves nothing but the argument to order by.
                    if function.params.order_by.is_empty() {
                        function.params.order_by = vec![function.params.args[0].clone().sort(true, false)];
                    }
                } else {
                    let add = ties(&aggregate.input, &function.params.order_by, &aggregate.group_expr);
                    function.params.order_by.extend(add);
                }
                Ok(Transformed::yes(Expr::AggregateFunction(function)))
            }
            // An order that changes nothing would only be one more order for a bulk plan to reconcile.
            Expr::AggregateFunction(mut function)
                if !function.params.order_by.is_empty() && !function.func.supports_within_group_clause() =>
            {
                function.params.order_by.clear();
                if function.func.name() == "any_value" {
                    function.func = crate::functions::smallest();
                }
                Ok(Transformed::yes(Expr::AggregateFunction(function)))
            }
            // Any value will do, as long as it is always the same one.
            Expr::AggregateFunction(mut function) if function.func.name() == "any_value" => {
                function.func = crate::functions::smallest();
                Ok(Transformed::yes(Expr::AggregateFunction(function)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        changed |= expr.transformed;
        calls.push(name.restore(expr.data));
    }
    let aggregate = Aggregate::try_new(aggregate.input, aggregate.group_expr, calls)?;
    let plan = LogicalPlan::Aggregate(aggregate);
    Ok(if changed { Transformed::yes(plan) } else { Transformed::no(plan) })
}

/// More rows than there can be, and still far from overflow when an OFFSET is added.
pub(crate) const MOST: i64 = i64::MAX / 2;

/// Completes the sort below a LIMIT, or makes one. DataFusion 55.2 moves the sorts of others below an OFFSET that stands alone, but
/// never below a LIMIT.
fn order_limit(mut limit: Limit) -> Result<LogicalPlan, DataFusionError> {
    limit.fetch.get_or_insert_with(|| Box::new(lit(MOST)));
    let (input, found) = order_below_limit(Arc::unwrap_or_clone(limit.input))?;
    limit.input = Arc::new(if found { input } else { sorted(input)? });
    Ok(LogicalPlan::Limit(limit))
}

/// Completes the sort that stands below a LIMIT, if one does.
fn order_below_limit(plan: LogicalPlan) -> Result<(LogicalPlan, bool), DataFusionError> {
    Ok(match plan {
        LogicalPlan::Sort(mut sort) => {
            let add = ties(&sort.input, &sort.expr, &[]);
            sort.expr.extend(add);
            (LogicalPlan::Sort(sort), true)
        }
        LogicalPlan::Projection(projection) => {
            let (input, found) = order_below_limit(Arc::unwrap_or_clone(projection.input))?;
            let plan = Projection::try_new_with_schema(projection.expr, Arc::new(input), projection.schema)?;
            (LogicalPlan::Projection(plan), found)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let (input, found) = order_below_limit(Arc::unwrap_or_clone(alias.input))?;
            (LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias)?), found)
        }
        other => (other, false),
    })
}

/// Orders a LIMIT that has no ORDER BY: by everything.
fn sorted(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let expr = ties(&plan, &[], &[]);
    Ok(if expr.is_empty() { plan } else { LogicalPlan::Sort(Sort { expr, input: Arc::new(plan), fetch: None }) })
}

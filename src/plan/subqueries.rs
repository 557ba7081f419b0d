//! Subqueries that DataFusion 55.2 cannot turn into joins, or not with SQL's meaning of NULL, said in a way that it can.
//!
//! | written | planned as |
//! |---|---|
//! | `exists (q)` outside of WHERE | `(select count(*) from q) > 0` |
//! | `x in (q)` outside of WHERE, or below CASE, NOT and the like | TRUE where a row of q is x; else NULL where one is NULL, or x is and there is any; else FALSE |
//! | `x not in (q)` below OR, of a correlated q, or of a constant x | no row of q is x, none is NULL, and x is not NULL unless there is none |
//! | `(… where expression = outer)` | `(… where key = outer)`, the expression as a column below |
//! | `(q … order by o limit n)`, correlated by equality | rows of q whose `row_number()` per correlation key is at most n |
//! | `(q)` as a scalar, correlated | its one value; several rows are an error ([`super::single_row`]) |

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef, DataFusionError, ScalarValue, Spans};
use datafusion::functions_aggregate::count::count_all;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::{Exists, InSubquery, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, disjunction, split_conjunction};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprFunctionExt, FetchType, Filter, Limit, LogicalPlan, LogicalPlanBuilder, Operator, Projection,
    SkipType, SortExpr, Subquery, SubqueryAlias, WindowFunctionDefinition, lit, not, when,
};
use std::sync::Arc;

use super::lower::{columns_of, substitute, unaliased};
use super::single_row::only_value;

/// The column that numbers rows for a LIMIT below a correlation.
const NUMBER: &str = "__number_in_key";

/// What a column of counts is called below another count.
const MEMBER: &str = "__member";

/// `plan` as the SQL planner made it, with subqueries that can be decorrelated.
pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Limit(limit) => limit_per_key(limit),
        LogicalPlan::Filter(filter) => in_filter(filter)?.transform_data(|plan| match plan {
            LogicalPlan::Filter(filter) => key_columns(filter),
            other => Ok(Transformed::no(other)),
        }),
        LogicalPlan::Projection(projection) => in_projection(projection),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

fn in_projection(projection: Projection) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let schema = Arc::clone(projection.input.schema());
    let names = NamePreserver::new_for_projection();
    let mut changed = false;
    let mut exprs = Vec::with_capacity(projection.expr.len());
    for expr in &projection.expr {
        let name = names.save(expr);
        let expr = expr.clone().transform_up(|e| {
            let memberless = match e {
                Expr::InSubquery(member) => Transformed::yes(three_valued(member, &schema)?),
                other => Transformed::no(other),
            };
            // What became of IN has EXISTS in it.
            memberless.transform_data(|e| e.transform_up(scalar))
        })?;
        changed |= expr.transformed;
        exprs.push(name.restore(expr.data));
    }
    Ok(match changed {
        true => Transformed::yes(LogicalPlan::Projection(Projection::try_new(exprs, projection.input)?)),
        false => Transformed::no(LogicalPlan::Projection(projection)),
    })
}

/// What a SELECT list may hold: EXISTS as a count, and a correlated subquery that gives one row.
fn scalar(expr: Expr) -> Result<Transformed<Expr>, DataFusionError> {
    Ok(match expr {
        Expr::Exists(Exists { subquery, negated }) => {
            let rows = LogicalPlanBuilder::from(subquery.subquery).aggregate(Vec::<Expr>::new(), vec![count_all()])?;
            let count = Expr::ScalarSubquery(Subquery { subquery: Arc::new(rows.build()?), ..subquery });
            Transformed::yes(if negated { count.eq(lit(0i64)) } else { count.gt(lit(0i64)) })
        }
        Expr::ScalarSubquery(subquery) => one_row(subquery)?,
        other => Transformed::no(other),
    })
}

/// A correlated scalar subquery, made to give one row. The others are looked at when it is known how many rows they may have.
fn one_row(subquery: Subquery) -> Result<Transformed<Expr>, DataFusionError> {
    let is_single = subquery.subquery.max_rows().is_some_and(|rows| rows <= 1) || aggregates(&subquery.subquery);
    if subquery.outer_ref_columns.is_empty() || is_single || subquery.subquery.schema().fields().len() != 1 {
        return Ok(Transformed::no(Expr::ScalarSubquery(subquery)));
    }
    Ok(Transformed::new(only_value(subquery)?, true, TreeNodeRecursion::Jump))
}

/// Whether a plan is an aggregation over everything, below what only picks columns.
fn aggregates(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => aggregates(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => aggregates(&alias.input),
        LogicalPlan::Filter(filter) => aggregates(&filter.input),
        LogicalPlan::Aggregate(_) => true,
        _ => false,
    }
}

fn in_filter(filter: Filter) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let schema = Arc::clone(filter.input.schema());
    let predicate = filter.predicate.clone().transform_up(|e| match e {
        Expr::ScalarSubquery(subquery) => one_row(subquery),
        other => Ok(Transformed::no(other)),
    })?;
    let mut changed = predicate.transformed;
    let mut parts = Vec::new();
    for part in split_conjunction(&predicate.data) {
        let part = match part {
            // Joins of their own kinds.
            Expr::InSubquery(member)
                if !member.negated
                    || (member.subquery.outer_ref_columns.is_empty() && member.expr.any_column_refs()) =>
            {
                Transformed::no(part.clone())
            }
            Expr::Exists(_) => Transformed::no(part.clone()),
            part => condition(part.clone(), &schema)?,
        };
        changed |= part.transformed;
        parts.push(part.data);
    }
    let predicate = conjunction(parts).filter(|_| changed);
    Ok(match predicate {
        Some(predicate) => Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)),
        None => Transformed::no(LogicalPlan::Filter(filter)),
    })
}

/// A condition of which only TRUE counts: below AND and OR, NULL may be FALSE.
fn condition(expr: Expr, schema: &DFSchemaRef) -> Result<Transformed<Expr>, DataFusionError> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let (left, right) = (condition(*left, schema)?, condition(*right, schema)?);
            let changed = left.transformed || right.transformed;
            let expr = BinaryExpr::new(Box::new(left.data), op, Box::new(right.data));
            Ok(Transformed::new_transformed(Expr::BinaryExpr(expr), changed))
        }
        Expr::Not(inner) => match *inner {
            Expr::InSubquery(member) => {
                let negated = !member.negated;
                condition(Expr::InSubquery(InSubquery { negated, ..member }), schema)
            }
            inner => Ok(nested(Expr::Not(Box::new(inner)), schema)?),
        },
        // A mark join has two values, which is enough.
        Expr::InSubquery(InSubquery { expr, subquery, negated: false }) => {
            Ok(Transformed::no(Expr::InSubquery(InSubquery { expr, subquery, negated: false })))
        }
        Expr::InSubquery(member) => {
            let x = (*member.expr).clone();
            let found = not_exists_where(&member, |y| Ok(y.eq(outer(&x, schema)?)))?;
            let unknown = not_exists_where(&member, |y| Ok(y.is_null()))?;
            let none = Expr::Exists(Exists { subquery: member.subquery.clone(), negated: true });
            Ok(Transformed::yes(found.and(unknown).and(x.is_not_null().or(none))))
        }
        other => nested(other, schema),
    }
}

/// Memberships anywhere in an expression, with all three values.
fn nested(expr: Expr, schema: &DFSchemaRef) -> Result<Transformed<Expr>, DataFusionError> {
    expr.transform_up(|e| match e {
        Expr::InSubquery(member) => Ok(Transformed::yes(three_valued(member, schema)?)),
        other => Ok(Transformed::no(other)),
    })
}

fn three_valued(member: InSubquery, schema: &DFSchemaRef) -> Result<Expr, DataFusionError> {
    let x = (*member.expr).clone();
    let found = not(not_exists_where(&member, |y| Ok(y.eq(outer(&x, schema)?)))?);
    let unknown = not(not_exists_where(&member, |y| Ok(y.is_null()))?);
    let any = exists_in(&member.subquery, (*member.subquery.subquery).clone(), vec![]);
    let unknown = disjunction([unknown, x.is_null().and(any)]).unwrap_or_else(|| lit(false));
    let (yes, no) = (lit(!member.negated), lit(member.negated));
    when(found, yes).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(no)
}

/// `not exists (select … from q where condition(y))`, of the column `y` of q.
fn not_exists_where(
    member: &InSubquery,
    condition: impl Fn(Expr) -> Result<Expr, DataFusionError>,
) -> Result<Expr, DataFusionError> {
    let mut plan = Arc::clone(&member.subquery.subquery);
    let (qualifier, field) = plan.schema().qualified_field(0);
    let mut column = Expr::Column(Column::from((qualifier, field)));
    if field.name().starts_with("count(") {
        // Rows will be counted above it.
        plan = Arc::new(LogicalPlan::Projection(Projection::try_new(vec![column.alias(MEMBER)], plan)?));
        column = Expr::Column(Column::new_unqualified(MEMBER));
    }
    let predicate = condition(column)?;
    let outer: Vec<Expr> = outer_references(&predicate)?;
    let filtered = LogicalPlan::Filter(Filter::try_new(predicate, plan)?);
    Ok(not(exists_in(&member.subquery, filtered, outer)))
}

fn exists_in(of: &Subquery, plan: LogicalPlan, outer: Vec<Expr>) -> Expr {
    let mut outer_ref_columns = of.outer_ref_columns.clone();
    outer_ref_columns.extend(outer.into_iter().filter(|e| !of.outer_ref_columns.contains(e)));
    let subquery = Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: Spans::new() };
    Expr::Exists(Exists { subquery, negated: false })
}

/// `expr` over the rows of `schema`, as seen from within a subquery.
pub(super) fn outer(expr: &Expr, schema: &DFSchemaRef) -> Result<Expr, DataFusionError> {
    let expr = expr.clone().transform_up(|e| match e {
        Expr::Column(column) => {
            let field = Arc::clone(schema.qualified_field_from_column(&column)?.1);
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(expr.data)
}

fn outer_references(expr: &Expr) -> Result<Vec<Expr>, DataFusionError> {
    let mut found = Vec::new();
    expr.apply(|e| {
        if matches!(e, Expr::OuterReferenceColumn(..)) && !found.contains(e) {
            found.push(e.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Expressions that are compared with outer rows, as columns: a join by them groups by columns only.
fn key_columns(filter: Filter) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let columns: Vec<Expr> = columns_of(filter.input.schema());
    let mut below = columns.clone();
    let mut parts = Vec::new();
    for part in split_conjunction(&filter.predicate) {
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = part else {
            parts.push(part.clone());
            continue;
        };
        let (inner, outer) = match (left.contains_outer(), right.contains_outer()) {
            (false, true) => (left, right),
            (true, false) => (right, left),
            _ => (left, left),
        };
        let is_key = outer.contains_outer() && !matches!(**inner, Expr::Column(_)) && !inner.column_refs().is_empty();
        if !is_key {
            parts.push(part.clone());
            continue;
        }
        let name = format!("__key_{}", below.len());
        below.push((**inner).clone().alias(&name));
        parts.push(Expr::Column(Column::new_unqualified(name)).eq((**outer).clone()));
    }
    let predicate = conjunction(parts).filter(|_| below.len() > columns.len());
    let Some(predicate) = predicate else { return Ok(Transformed::no(LogicalPlan::Filter(filter))) };
    let input = LogicalPlan::Projection(Projection::try_new(below, filter.input)?);
    let filtered = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?);
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(filtered))?)))
}

/// What stands between a LIMIT and the condition that refers to outer rows.
enum Between {
    Projection(Projection),
    Alias(SubqueryAlias),
}

/// A LIMIT over rows that are correlated by equality, as a condition on their number per key: that can be joined.
fn limit_per_key(limit: Limit) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let (SkipType::Literal(skip), FetchType::Literal(Some(fetch))) = (limit.get_skip_type()?, limit.get_fetch_type()?)
    else {
        return Ok(Transformed::no(LogicalPlan::Limit(limit)));
    };
    let mut between = Vec::new();
    let mut order: Option<Vec<SortExpr>> = None;
    let mut at = &limit.input;
    let filter = loop {
        at = match at.as_ref() {
            LogicalPlan::Projection(projection) => {
                if let Some(order) = &mut order {
                    let exprs: Vec<Expr> = projection.expr.iter().map(unaliased).collect();
                    for key in order {
                        key.expr = substitute(key.expr.clone(), &projection.schema, &exprs)?;
                    }
                }
                between.push(Between::Projection(projection.clone()));
                &projection.input
            }
            LogicalPlan::SubqueryAlias(alias) if order.is_none() => {
                between.push(Between::Alias(alias.clone()));
                &alias.input
            }
            LogicalPlan::Sort(sort) if order.is_none() && sort.fetch.is_none() => {
                order = Some(sort.expr.clone());
                &sort.input
            }
            LogicalPlan::Filter(filter) => break filter,
            _ => return Ok(Transformed::no(LogicalPlan::Limit(limit))),
        };
    };
    let (mut keys, mut correlated, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for part in split_conjunction(&filter.predicate) {
        if !part.contains_outer() {
            rest.push(part.clone());
            continue;
        }
        match part {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (left.contains_outer(), right) {
                (false, _) => keys.push((**left).clone()),
                (true, right) if !right.contains_outer() => keys.push((**right).clone()),
                _ => return Ok(Transformed::no(LogicalPlan::Limit(limit))),
            },
            _ => return Ok(Transformed::no(LogicalPlan::Limit(limit))),
        }
        correlated.push(part.clone());
    }
    if keys.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Limit(limit)));
    }
    let columns: Vec<Expr> = filter.input.schema().iter().map(|(q, f)| Expr::Column(Column::from((q, f)))).collect();
    let number = Expr::from(WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), vec![]))
        .partition_by(keys);
    let number = match order.filter(|order| !order.is_empty()) {
        Some(order) => number.order_by(order).build()?,
        None => number.build()?,
    };
    let named = Expr::Column(Column::new_unqualified(number.schema_name().to_string())).alias(NUMBER);
    let mut plan = LogicalPlanBuilder::from(Arc::clone(&filter.input));
    if let Some(rest) = conjunction(rest) {
        plan = plan.filter(rest)?;
    }
    let number_column = || Expr::Column(Column::new_unqualified(NUMBER));
    correlated.push(number_column().gt(lit(skip as u64)));
    correlated.push(number_column().lt_eq(lit(skip.saturating_add(fetch) as u64)));
    let plan = plan.window(vec![number])?.project(columns.iter().cloned().chain([named]))?.build()?;
    let condition = conjunction(correlated).unwrap_or_else(|| lit(true));
    let filtered = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?);
    let mut plan = LogicalPlan::Projection(Projection::try_new(columns, Arc::new(filtered))?);
    for step in between.into_iter().rev() {
        plan = match step {
            Between::Projection(p) => LogicalPlan::Projection(Projection::try_new(p.expr, Arc::new(plan))?),
            Between::Alias(alias) => LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(plan), alias.alias)?),
        };
    }
    Ok(Transformed::yes(plan))
}

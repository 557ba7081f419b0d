//! Subqueries over a list of the row they stand beside: `exists (select 1 from unnest(o.tags) as u(tag) where u.tag = 'x')`.
//!
//! DataFusion makes joins of subqueries that are correlated by equality, and cannot run one that unfolds an outer column. What such a subquery
//! gives depends on the columns that it refers to and on nothing else, so it is read as one over their distinct values in the outer query's input, each beside
//! the elements of its list, and correlated by these values (the "magic set" of Seshadri et al., 1996):
//!
//! ```sql
//! exists (select 1 from (select distinct tags as k from orders) as d, unnest(d.k) as u(tag) where u.tag = 'x' and d.k = o.tags)
//! ```
//!
//! NULL is a value here: a column that may be NULL stands as whether it is, and what it is otherwise.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError, ExprSchema, ScalarValue, plan_err};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, LogicalPlanBuilder, Projection, Subquery, lit};
use std::sync::Arc;

use super::lateral::{Chain, is_volatile, referred, unnests};
use super::lower::columns_of;
use super::map_values::Taken;

/// Replaces every such subquery of a SELECT list, a WHERE or a HAVING.
pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Filter(filter) if asks([&filter.predicate])? => {
            let (exprs, input) = beside(vec![filter.predicate.clone()], &filter.input)?;
            let Some(predicate) = conjunction(exprs.data).filter(|_| exprs.transformed) else {
                return Ok(Transformed::no(LogicalPlan::Filter(filter)));
            };
            let filtered = LogicalPlan::Filter(Filter::try_new(predicate, Arc::clone(&input))?);
            if Arc::ptr_eq(&input, &filter.input) {
                return Ok(Transformed::yes(filtered));
            }
            let columns = columns_of(filter.input.schema());
            Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(filtered))?)))
        }
        LogicalPlan::Projection(projection) if asks(&projection.expr)? => {
            let names = NamePreserver::new_for_projection();
            let named: Vec<_> = projection.expr.iter().map(|expr| names.save(expr)).collect();
            let (exprs, input) = beside(projection.expr.clone(), &projection.input)?;
            if !exprs.transformed {
                return Ok(Transformed::no(LogicalPlan::Projection(projection)));
            }
            let exprs = exprs.data.into_iter().zip(named).map(|(expr, name)| name.restore(expr)).collect();
            Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(exprs, input)?)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

/// Whether there is a subquery that refers to something beside it.
fn asks<'a>(exprs: impl IntoIterator<Item = &'a Expr>) -> Result<bool, DataFusionError> {
    let refers = |subquery: &Subquery| !subquery.outer_ref_columns.is_empty();
    for expr in exprs {
        let asks = expr.exists(|e| {
            Ok(match e {
                Expr::Exists(Exists { subquery, .. })
                | Expr::InSubquery(InSubquery { subquery, .. })
                | Expr::SetComparison(SetComparison { subquery, .. })
                | Expr::ScalarSubquery(subquery) => refers(subquery),
                _ => false,
            })
        })?;
        if asks {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Expressions over the rows of `input`, and those rows, with what is taken out of MAPs beside them.
fn beside(
    exprs: Vec<Expr>,
    input: &Arc<LogicalPlan>,
) -> Result<(Transformed<Vec<Expr>>, Arc<LogicalPlan>), DataFusionError> {
    let mut taken = Taken::new(input.schema());
    let mut without_maps = |subquery: Subquery| {
        if subquery.outer_ref_columns.is_empty() || !unnests(&subquery.subquery) {
            return Ok(Transformed::no(subquery));
        }
        let plan = taken.within(subquery.subquery.as_ref().clone())?;
        let outer_ref_columns = plan.all_out_ref_exprs();
        Ok(Transformed::yes(Subquery { subquery: Arc::new(plan), outer_ref_columns, ..subquery }))
    };
    let taking = exprs.iter().map(|expr| Ok(each_subquery(expr.clone(), &mut without_maps)?.data));
    let taking = taking.collect::<Result<Vec<_>, DataFusionError>>()?;
    let (exprs, input) = match taken.is_empty() {
        true => (exprs, Arc::clone(input)),
        false => (taking, taken.beside(input)?),
    };
    let mut changed = false;
    let exprs = exprs.into_iter().map(|expr| {
        let expr = each_subquery(expr, &mut |subquery| over_values(subquery, &input))?;
        changed |= expr.transformed;
        Ok(expr.data)
    });
    let exprs = exprs.collect::<Result<Vec<_>, DataFusionError>>()?;
    Ok((Transformed::new_transformed(exprs, changed), input))
}

/// `expr` with other subqueries.
fn each_subquery(
    expr: Expr,
    rewrite: &mut dyn FnMut(Subquery) -> Result<Transformed<Subquery>, DataFusionError>,
) -> Result<Transformed<Expr>, DataFusionError> {
    expr.transform_up(|e| {
        Ok(match e {
            Expr::Exists(Exists { subquery, negated }) => {
                rewrite(subquery)?.update_data(|subquery| Expr::Exists(Exists { subquery, negated }))
            }
            Expr::ScalarSubquery(subquery) => rewrite(subquery)?.update_data(Expr::ScalarSubquery),
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                rewrite(subquery)?.update_data(|subquery| Expr::InSubquery(InSubquery { expr, subquery, negated }))
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => rewrite(subquery)?
                .update_data(|subquery| Expr::SetComparison(SetComparison { expr, subquery, op, quantifier })),
            other => Transformed::no(other),
        })
    })
}

/// The same over the values of the columns of `input` that its lists are made of.
fn over_values(subquery: Subquery, input: &Arc<LogicalPlan>) -> Result<Transformed<Subquery>, DataFusionError> {
    if subquery.outer_ref_columns.is_empty() {
        return Ok(Transformed::no(subquery));
    }
    let plan = subquery.subquery.as_ref().clone().transform_down(|node| {
        Ok(match if unnests(&node) { correlated(&node, input)? } else { None } {
            Some(plan) => Transformed::new(plan, true, TreeNodeRecursion::Jump),
            None => Transformed::no(node),
        })
    })?;
    if !plan.transformed {
        return Ok(Transformed::no(subquery));
    }
    // What stands above refers to columns by name, and their nullability may have changed.
    let plan = plan.data.transform_up(|node| Ok(Transformed::yes(node.recompute_schema()?)))?.data;
    let outer_ref_columns = plan.all_out_ref_exprs();
    Ok(Transformed::yes(Subquery { subquery: Arc::new(plan), outer_ref_columns, ..subquery }))
}

/// `chain`, which unfolds lists of one outer row, over all values there are of the columns it refers to; None if it is something else.
fn correlated(chain: &LogicalPlan, input: &Arc<LogicalPlan>) -> Result<Option<LogicalPlan>, DataFusionError> {
    let keys = referred(input.schema(), chain, None)?;
    if keys.is_empty() {
        return Ok(None);
    }
    for key in &keys {
        if matches!(input.schema().data_type(key)?, DataType::Map(..)) {
            return plan_err!(
                "a subquery over a list of the row beside it refers to the MAP {key} as a whole: take out of it what is needed, \
                 like map_keys({key}), before the subquery"
            );
        }
    }
    // They are computed twice, and must be the same.
    if is_volatile(input)? {
        return plan_err!(
            "a subquery over a list of the row beside it stands beside random values: make a table of the rows that have them, \
             and query that"
        );
    }
    let values = LogicalPlanBuilder::from(Arc::clone(input))
        .project(keys.iter().map(|key| Expr::Column(key.clone())))?
        .distinct()?
        .build()?;
    let Some(rows) = (Chain { left: &Arc::new(values), outer: false }).over(chain)? else { return Ok(None) };
    // Under plain names meanwhile: a column that is called as the expression it was would be taken for that.
    let (mut columns, mut own) = (Vec::new(), Vec::new());
    for (i, (qualifier, field)) in rows.schema().iter().skip(keys.len()).enumerate() {
        let name = format!("__element_{i}");
        columns.push(Expr::Column(Column::from((qualifier, field))).alias(&name));
        own.push(Expr::Column(Column::from_name(name)).alias_qualified(qualifier.cloned(), field.name()));
    }
    let mut conditions = Vec::new();
    for (i, key) in keys.iter().enumerate() {
        let field = input.schema().field_from_column(key)?;
        let (inner, outer) = (Expr::Column(key.clone()), Expr::OuterReferenceColumn(Arc::clone(field), key.clone()));
        let mut equal = |of: &dyn Fn(Expr) -> Expr, name: String| {
            columns.push(of(inner.clone()).alias(&name));
            conditions.push(Expr::Column(Column::from_name(name)).eq(of(outer.clone())));
        };
        if field.is_nullable() {
            let Ok(default) = ScalarValue::new_default(field.data_type()) else { return Ok(None) };
            equal(&|e| coalesce(vec![e, lit(default.clone())]), format!("__value_{i}"));
            equal(&Expr::is_null, format!("__value_{i}_is_null"));
        } else {
            equal(&|e| e, format!("__value_{i}"));
        }
    }
    // Of several filters, decorrelation would hand on the columns of the last.
    let same = conjunction(conditions).unwrap_or_else(|| lit(true));
    Ok(Some(LogicalPlanBuilder::from(rows).project(columns)?.filter(same)?.project(own)?.build()?))
}

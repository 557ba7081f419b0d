//! `FROM t, unnest(t.xs)`: a list of the rows to its left, unfolded beside them.
//!
//! DataFusion plans it as a join whose right side refers to columns of its left, and has no way to run that. What stands right is a chain of
//! projections, filters and unnests over one empty row; over the left rows themselves it gives exactly the join: every step hands
//! the left columns on. LEFT JOIN keeps a row whose list has no element, once, with NULL.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DataFusionError, NullHandling, ScalarValue};
use datafusion::logical_expr::{Expr, Filter, Join, JoinType, LogicalPlan, Projection, Unnest};
use std::sync::Arc;

/// Replaces every such join.
pub(super) fn unnest(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let mut found = false;
    let plan = plan.transform_up_with_subqueries(|node| {
        let rewritten = match &node {
            LogicalPlan::Join(join) => rewrite(join)?,
            _ => None,
        };
        found |= rewritten.is_some();
        match rewritten {
            Some(plan) => Ok(Transformed::yes(plan)),
            // What was nullable below may not be any more, and the other way round.
            None if found => Ok(Transformed::yes(node.recompute_schema()?)),
            None => Ok(Transformed::no(node)),
        }
    })?;
    Ok(plan.data)
}

fn rewrite(join: &Join) -> Result<Option<LogicalPlan>, DataFusionError> {
    if !join.on.is_empty() || !begins_lateral(&join.right) {
        return Ok(None);
    }
    applied(&join.left, &join.right, join.join_type, join.filter.as_ref())
}

/// Every row of `left` with what `right` makes of it.
fn applied(
    left: &Arc<LogicalPlan>,
    right: &LogicalPlan,
    join_type: JoinType,
    filter: Option<&Expr>,
) -> Result<Option<LogicalPlan>, DataFusionError> {
    let filter = filter.filter(|f| !matches!(f, Expr::Literal(ScalarValue::Boolean(Some(true)), _)));
    let outer = match (join_type, filter) {
        (JoinType::Inner, _) => false,
        // A condition would decide which rows keep nothing.
        (JoinType::Left, None) => true,
        _ => return Ok(None),
    };
    let plan = match right {
        // `from t, unnest(t.xs) as u(x) join a on …`: the join binds more tightly than the comma, and means the same behind it.
        LogicalPlan::Join(inner) => {
            if outer || !matches!(inner.join_type, JoinType::Inner | JoinType::Left) {
                return Ok(None);
            }
            let Some(plan) = applied(left, &inner.left, JoinType::Inner, None)? else { return Ok(None) };
            if begins_lateral(&inner.right) {
                if !inner.on.is_empty() {
                    return Ok(None);
                }
                applied(&Arc::new(plan), &inner.right, inner.join_type, inner.filter.as_ref())?
            } else {
                let join = LogicalPlan::Join(inner.clone());
                Some(join.with_new_exprs(join.expressions(), vec![plan, inner.right.as_ref().clone()])?)
            }
        }
        chain => Chain { left, outer }.over(chain)?,
    };
    Ok(match (plan, filter) {
        (Some(plan), Some(condition)) => Some(LogicalPlan::Filter(Filter::try_new(condition.clone(), Arc::new(plan))?)),
        (plan, _) => plan,
    })
}

/// Whether what stands first in `plan` is lateral.
fn begins_lateral(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Join(join) => begins_lateral(&join.left),
        other => is_lateral(other),
    }
}

/// Whether `plan` is a subquery that refers to columns beside it.
fn is_lateral(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => is_lateral(&alias.input),
        LogicalPlan::Subquery(subquery) => !subquery.outer_ref_columns.is_empty(),
        _ => false,
    }
}

struct Chain<'a> {
    left: &'a Arc<LogicalPlan>,
    outer: bool,
}

impl Chain<'_> {
    /// `plan` over the left rows: their columns, then its own. None when it is no chain of rows.
    fn over(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>, DataFusionError> {
        Ok(Some(match plan {
            LogicalPlan::Subquery(subquery) => return self.over(&subquery.subquery),
            LogicalPlan::EmptyRelation(empty) if empty.produce_one_row && empty.schema.fields().is_empty() => {
                self.left.as_ref().clone()
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let Some(input) = self.over(&alias.input)? else { return Ok(None) };
                let own = alias.input.schema().iter().zip(alias.schema.iter()).map(|((q, f), (to, named))| {
                    Expr::Column(Column::from((q, f))).alias_qualified(to.cloned(), named.name())
                });
                project(self.left.schema(), own.collect(), input)?
            }
            LogicalPlan::Projection(projection) => {
                let Some(input) = self.over(&projection.input)? else { return Ok(None) };
                // Above the list, what an absent element became would be computed from NULL.
                let computes = |e: &Expr| !matches!(e.clone().unalias(), Expr::Column(_));
                if self.outer && unnests(&projection.input) && projection.expr.iter().any(computes) {
                    return Ok(None);
                }
                let mut own = Vec::new();
                for (expr, (qualifier, field)) in projection.expr.iter().zip(projection.schema.iter()) {
                    let Some(expr) = self.here(expr)? else { return Ok(None) };
                    own.push(match &expr {
                        Expr::Column(c) if c.relation.as_ref() == qualifier && c.name == *field.name() => expr,
                        _ => expr.unalias().alias_qualified(qualifier.cloned(), field.name()),
                    });
                }
                project(self.left.schema(), own, input)?
            }
            LogicalPlan::Filter(filter) if !self.outer => {
                let Some(input) = self.over(&filter.input)? else { return Ok(None) };
                let Some(predicate) = self.here(&filter.predicate)? else { return Ok(None) };
                LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?)
            }
            LogicalPlan::Unnest(unnest) => {
                let Some(input) = self.over(&unnest.input)? else { return Ok(None) };
                let mut options = unnest.options.clone();
                if self.outer {
                    // An empty list among the elements of another is no row that must stay.
                    if unnests(&unnest.input) || unnest.list_type_columns.iter().any(|(_, list)| list.depth > 1) {
                        return Ok(None);
                    }
                    options.null_handling = NullHandling::PreserveAndExpandEmpty;
                }
                LogicalPlan::Unnest(Unnest::try_new(Arc::new(input), unnest.exec_columns.clone(), options)?)
            }
            _ => return Ok(None),
        }))
    }

    /// `expr` with the left columns it refers to as columns; None where it refers further out.
    fn here(&self, expr: &Expr) -> Result<Option<Expr>, DataFusionError> {
        let mut further = false;
        let expr = expr.clone().transform_up(|e| match e {
            Expr::OuterReferenceColumn(_, column) => {
                further |= !self.left.schema().has_column(&column);
                Ok(Transformed::yes(Expr::Column(column)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        let has_subquery = expr.data.exists(|e| {
            Ok(matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
        })?;
        Ok((!further && !has_subquery).then_some(expr.data))
    }
}

fn unnests(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Unnest(_)) || plan.inputs().into_iter().any(unnests)
}

/// The left columns, then `own`, of `input`.
fn project(left: &DFSchema, own: Vec<Expr>, input: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let columns = left.iter().map(|(q, f)| Expr::Column(Column::from((q, f)))).chain(own);
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::new(input))?))
}

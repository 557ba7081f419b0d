//! `FROM t, unnest(t.xs)`: a list of the rows to its left, unfolded beside them.
//!
//! DataFusion plans it as a join whose right side refers to columns of its left, and has no way to run that. What stands right is a chain of
//! projections, filters and unnests over one empty row; over the left rows themselves it gives exactly the join: every step hands
//! the left columns on. LEFT JOIN keeps a row whose list has no element, once, with NULL. Where a condition decides which rows have
//! anything, or values are computed above the list, those that have nothing are found by an anti join: the rows of the inner join, and the left rows that are
//! not among them.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, NullHandling, ScalarValue};
use datafusion::logical_expr::{Expr, Filter, Join, JoinType, LogicalPlan, Projection, Unnest, build_join_schema};
use std::sync::Arc;

use super::correlated;
use super::dependent::Scope;
use super::map_values::Taken;
use super::partners::{self, called};

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
    match applied(&join.left, &join.right, join.join_type, join.filter.as_ref())? {
        None => correlated::lateral(join),
        plan => Ok(plan),
    }
}

/// Every row of `left` with what `right` makes of it.
fn applied(
    left: &Arc<LogicalPlan>,
    right: &LogicalPlan,
    join_type: JoinType,
    filter: Option<&Expr>,
) -> Result<Option<LogicalPlan>, DataFusionError> {
    let filter = filter.filter(|f| !matches!(f, Expr::Literal(ScalarValue::Boolean(Some(true)), _)));
    let plan = match (join_type, filter) {
        (JoinType::Inner, _) => chained(left, right, false, filter)?,
        (JoinType::Left, None) => chained(left, right, true, None)?,
        (JoinType::Left, _) => None,
        _ => return Ok(None),
    };
    match plan {
        None if join_type == JoinType::Left => with_absent(left, right, filter),
        plan => Ok(plan),
    }
}

/// The same without an anti join; None where it takes one.
fn chained(
    left: &Arc<LogicalPlan>,
    right: &LogicalPlan,
    outer: bool,
    filter: Option<&Expr>,
) -> Result<Option<LogicalPlan>, DataFusionError> {
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

/// The rows of the inner join, and those of `left` that are not among them, with NULLs.
fn with_absent(
    left: &Arc<LogicalPlan>,
    right: &LogicalPlan,
    filter: Option<&Expr>,
) -> Result<Option<LogicalPlan>, DataFusionError> {
    let schema = build_join_schema(left.schema(), right.schema(), &JoinType::Left)?;
    let mut taken = Taken::new(left.schema(), "__of_map");
    let right = Arc::new(taken.within(right.clone())?);
    let filter = filter.map(|filter| taken.over(filter.clone())).transpose()?;
    let own = left.schema().fields().len();
    let left = taken.beside(left)?;
    let Some(inner) = chained(&left, &right, false, filter.as_ref())? else { return Ok(None) };
    let mut keys = Scope::new(left.schema()).columns(&right)?;
    let of_filter = filter.iter().flat_map(Expr::column_refs).filter(|column| left.schema().has_column(column));
    keys.extend(of_filter.cloned());
    keys.sort();
    keys.dedup();
    let Some(plan) = partners::join(JoinType::Left, &left, &right, inner, (keys, vec![]))? else { return Ok(None) };
    let behind = left.schema().fields().len();
    called(&schema, plan, (0..own).chain(behind..)).map(Some)
}

pub(super) fn is_volatile(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
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

/// What unfolds lists of the left rows, and of one row nothing else.
pub(super) struct Chain<'a> {
    pub left: &'a Arc<LogicalPlan>,
    /// Whether a row stays whose list has no element.
    pub outer: bool,
}

impl Chain<'_> {
    /// `plan` over the left rows: their columns, then its own. None when it is no chain of rows.
    pub fn over(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>, DataFusionError> {
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

pub(super) fn unnests(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Unnest(_)) || plan.inputs().into_iter().any(unnests)
}

/// The left columns, then `own`, of `input`.
fn project(left: &DFSchema, own: Vec<Expr>, input: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let columns = left.iter().map(|(q, f)| Expr::Column(Column::from((q, f)))).chain(own);
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::new(input))?))
}

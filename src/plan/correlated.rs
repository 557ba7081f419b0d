//! Correlated subqueries that DataFusion cannot make joins of, in SELECT and WHERE.
//!
//! DataFusion 55.2 pulls conditions out of a subquery and makes them those of a join. That works for conditions on the row just beside it, and where only
//! projections stand above them; equality goes through an aggregation too. What else refers to the row is read for all values that the row's columns have in
//! the outer query's input ([`super::dependent`]), and correlated by them:
//!
//! ```sql
//! (select count(*) from b where b.id < a.id)
//! (select count(*) from (select d.id as k from (select distinct id from a) as d join b on b.id < d.id) where k = a.id)
//! ```
//!
//! NULL is a value here: a column that may be NULL stands as whether it is, and what it is otherwise.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError, ExprSchema, plan_err};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, FetchType, Filter, Join, JoinType, Limit, LogicalPlan, LogicalPlanBuilder, Operator,
    Projection, SkipType, Subquery, SubqueryAlias, lit,
};
use std::sync::Arc;

use super::dependent::{Dependent, Scope, subquery_of, with_plan, with_subquery};
use super::lateral::is_volatile;
use super::lower::columns_of;
use super::map_values::Taken;
use super::partners::called;

/// Replaces every such subquery of a SELECT list, a WHERE or a HAVING: those of the outermost query first, since what refers to it from further within refers to
/// the values in between then.
pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let plan = plan.transform_down_with_subqueries(|node| match node {
        LogicalPlan::Filter(filter) if asks(&filter.predicate) => in_filter(filter),
        LogicalPlan::Projection(projection) if projection.expr.iter().any(asks) => in_projection(projection),
        other => Ok(Transformed::no(other)),
    })?;
    if !plan.transformed {
        return Ok(plan.data);
    }
    // What stands above refers to columns by name, and their nullability may have changed.
    let plan = plan.data.transform_up_with_subqueries(|node| Ok(Transformed::yes(node.recompute_schema()?)))?;
    Ok(plan.data)
}

fn in_filter(filter: Filter) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let parts = split_conjunction(&filter.predicate).into_iter().cloned().collect();
    let (exprs, input) = beside(parts, &filter.input, false)?;
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

fn in_projection(projection: Projection) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let names = NamePreserver::new_for_projection();
    let named: Vec<_> = projection.expr.iter().map(|expr| names.save(expr)).collect();
    let (exprs, input) = beside(projection.expr.clone(), &projection.input, true)?;
    if !exprs.transformed {
        return Ok(Transformed::no(LogicalPlan::Projection(projection)));
    }
    let exprs = exprs.data.into_iter().zip(named).map(|(expr, name)| name.restore(expr)).collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(exprs, input)?)))
}

/// Whether there is a subquery in it.
pub(super) fn asks(expr: &Expr) -> bool {
    expr.exists(|e| Ok(subquery_of(e).is_some())).unwrap_or(false)
}

/// Expressions over the rows of `input`, and those rows, with what is taken out of MAPs beside them.
fn beside(
    exprs: Vec<Expr>,
    input: &Arc<LogicalPlan>,
    selected: bool,
) -> Result<(Transformed<Vec<Expr>>, Arc<LogicalPlan>), DataFusionError> {
    let mut taken = Taken::new(input.schema(), "__of_map");
    let mut taking = Vec::new();
    for expr in &exprs {
        let expr = expr.clone().transform_up(|e| {
            let Some(correlation) = Correlation::of(&e, input, selected) else { return Ok(Transformed::no(e)) };
            with_subquery(e, &mut |subquery| match correlation.needs_values(&subquery)? {
                true => {
                    let plan = taken.within(subquery.subquery.as_ref().clone())?;
                    Ok(Transformed::yes(with_plan(subquery, plan)))
                }
                false => Ok(Transformed::no(subquery)),
            })
        })?;
        taking.push(expr.data);
    }
    let (exprs, input) = match taken.is_empty() {
        true => (exprs, Arc::clone(input)),
        false => (taking, taken.beside(input)?),
    };
    let mut changed = false;
    let exprs = exprs.into_iter().map(|expr| {
        let expr = expr.transform_up(|e| {
            let Some(correlation) = Correlation::of(&e, &input, selected) else { return Ok(Transformed::no(e)) };
            with_subquery(e, &mut |subquery| correlation.over_values(subquery))
        })?;
        changed |= expr.transformed;
        Ok(expr.data)
    });
    let exprs = exprs.collect::<Result<Vec<_>, DataFusionError>>()?;
    Ok((Transformed::new_transformed(exprs, changed), input))
}

/// A subquery and the rows it stands beside.
struct Correlation<'a> {
    input: &'a Arc<LogicalPlan>,
    scope: Scope<'a>,
    /// Whether any condition can be one of the join that it becomes.
    any_condition: bool,
    /// Whether DataFusion knows what an aggregate of no rows is there.
    empty_groups: bool,
    /// Whether it does not matter how many rows there are, if there is one: DataFusion takes a LIMIT out.
    unlimited: bool,
}

/// What stands between a node of a subquery and what its rows are asked for.
#[derive(Clone, Copy)]
struct Above {
    /// An aggregation, of whatever kind, or a choice of rows.
    choice: bool,
    /// An aggregation in the subquery itself.
    aggregate: bool,
}

impl<'a> Correlation<'a> {
    /// Of an expression that is a subquery.
    fn of(expr: &Expr, input: &'a Arc<LogicalPlan>, selected: bool) -> Option<Self> {
        let is_join = match expr {
            Expr::Exists(_) | Expr::InSubquery(_) => !selected,
            Expr::ScalarSubquery(_) | Expr::SetComparison(_) => false,
            _ => return None,
        };
        let empty_groups = matches!(expr, Expr::ScalarSubquery(_));
        let scope = Scope::new(input.schema());
        let unlimited = is_join && matches!(expr, Expr::Exists(_));
        Some(Correlation { input, scope, any_condition: is_join, empty_groups, unlimited })
    }

    /// Of what stands beside the rows of `input` in FROM.
    fn lateral(input: &'a Arc<LogicalPlan>) -> Self {
        let scope = Scope::new(input.schema());
        Correlation { input, scope, any_condition: true, empty_groups: true, unlimited: false }
    }

    fn top(&self) -> Above {
        Above { choice: !self.any_condition, aggregate: false }
    }

    fn needs_values(&self, subquery: &Subquery) -> Result<bool, DataFusionError> {
        self.has_hard(&subquery.subquery, self.top())
    }

    /// Whether there is a node in `plan` that [`Correlation::is_hard`].
    fn has_hard(&self, plan: &LogicalPlan, above: Above) -> Result<bool, DataFusionError> {
        if !self.scope.is_referred_to_by(plan)? {
            return Ok(false);
        }
        if self.is_hard(plan, above)? {
            return Ok(true);
        }
        let below = below(plan, above);
        plan.inputs().into_iter().try_fold(false, |found, input| Ok(found || self.has_hard(input, below)?))
    }

    /// The same over the values of the columns of the outer rows that it needs.
    fn over_values(&self, subquery: Subquery) -> Result<Transformed<Subquery>, DataFusionError> {
        let plan = self.rewritten(subquery.subquery.as_ref().clone(), self.top())?;
        Ok(match plan.transformed {
            // What stands above refers to columns by name, and their nullability may have changed.
            true => {
                let plan = plan.data.transform_up(|node| Ok(Transformed::yes(node.recompute_schema()?)))?;
                Transformed::yes(with_plan(subquery, plan.data))
            }
            false => Transformed::no(subquery),
        })
    }

    fn rewritten(&self, plan: LogicalPlan, above: Above) -> Result<Transformed<LogicalPlan>, DataFusionError> {
        if !self.scope.is_referred_to_by(&plan)? {
            return Ok(Transformed::no(plan));
        }
        if self.is_hard(&plan, above)? {
            return self.correlated(&plan).map(Transformed::yes);
        }
        let below = below(&plan, above);
        plan.map_children(|input| self.rewritten(input, below))
    }

    /// Whether DataFusion does not get the references of `node` and of what is below it out of there.
    fn is_hard(&self, node: &LogicalPlan, above: Above) -> Result<bool, DataFusionError> {
        // From a subquery within the subquery.
        let (mut from_within, mut own) = (false, false);
        node.apply_expressions(|expr| {
            self.scope.in_expr(node, expr, &mut |_, further| match further {
                true => from_within = true,
                false => own = true,
            })?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        if from_within {
            return Ok(true);
        }
        Ok(match node {
            LogicalPlan::Filter(filter) => {
                let parts = split_conjunction(&filter.predicate);
                // The condition of a join asks nothing.
                let asking = parts.iter().any(|part| part.contains_outer() && asks(part));
                asking || above.choice && !parts.into_iter().all(is_simple) || self.holds(&filter.input)?
            }
            LogicalPlan::Projection(projection) => own || self.holds(&projection.input)?,
            // Of no rows it has a row.
            LogicalPlan::Aggregate(aggregate) => {
                let has_sets = matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]);
                own || has_sets || aggregate.group_expr.is_empty() && (!self.empty_groups || above.aggregate)
            }
            LogicalPlan::Sort(_) => own,
            LogicalPlan::Limit(limit) => {
                // And an OFFSET with it.
                let leaves_one = self.unlimited && matches!(limit.get_skip_type()?, SkipType::Literal(0));
                !leaves_one && !self.is_simple_limit(limit)?
            }
            LogicalPlan::Distinct(Distinct::All(_)) | LogicalPlan::Subquery(_) => false,
            _ => true,
        })
    }

    /// Whether DataFusion pulls no condition out of what stands here below projections and filters, or hands on no column that one needs.
    fn holds(&self, plan: &LogicalPlan) -> Result<bool, DataFusionError> {
        match plan {
            LogicalPlan::Filter(filter) => self.holds(&filter.input),
            LogicalPlan::Projection(projection) => self.holds(&projection.input),
            LogicalPlan::Subquery(subquery) => self.holds(&subquery.subquery),
            LogicalPlan::Aggregate(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::Distinct(_) => {
                Ok(false)
            }
            other => self.scope.is_referred_to_by(other),
        }
    }

    /// Whether [`super::subqueries`] makes a condition on the number of a row of it.
    fn is_simple_limit(&self, limit: &Limit) -> Result<bool, DataFusionError> {
        let (skip, fetch) = (limit.get_skip_type()?, limit.get_fetch_type()?);
        if !matches!((skip, fetch), (SkipType::Literal(_), FetchType::Literal(Some(_)))) {
            return Ok(false);
        }
        let mut at = &limit.input;
        loop {
            at = match at.as_ref() {
                LogicalPlan::Projection(projection) if !projection.expr.iter().any(Expr::contains_outer) => {
                    &projection.input
                }
                LogicalPlan::SubqueryAlias(alias) => &alias.input,
                LogicalPlan::Sort(sort) if !sort.expr.iter().any(|key| key.expr.contains_outer()) => &sort.input,
                LogicalPlan::Filter(filter) => {
                    let simple = split_conjunction(&filter.predicate).into_iter().all(is_simple);
                    return Ok(simple && !self.scope.is_referred_to_by(&filter.input)?);
                }
                _ => return Ok(false),
            };
        }
    }

    /// All values there are of the columns that `plan` refers to, and these columns.
    fn values(&self, plan: &LogicalPlan) -> Result<(Dependent<'a>, Vec<Column>), DataFusionError> {
        let keys = self.scope.columns(plan)?;
        for key in &keys {
            if matches!(self.input.schema().data_type(key)?, DataType::Map(..)) {
                return plan_err!(
                    "a correlated subquery refers to the MAP {key} as a whole: take out of it what is needed, like map_keys({key}), \
                     before the subquery"
                );
            }
        }
        // They are computed twice, and must be the same.
        if is_volatile(self.input)? {
            return plan_err!(
                "a correlated subquery stands beside random values: make a table of the rows that have them, and query that"
            );
        }
        Ok((Dependent::new(self.input, keys.clone())?, keys))
    }

    /// `plan` over all values there are of the columns it refers to, correlated by these.
    fn correlated(&self, plan: &LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
        let schema = self.input.schema();
        let (dependent, keys) = self.values(plan)?;
        let outer = keys.iter().map(|key| {
            let field = schema.field_from_column(key)?;
            Ok(Expr::OuterReferenceColumn(Arc::clone(field), key.clone()))
        });
        let outer = outer.collect::<Result<Vec<_>, DataFusionError>>()?;
        let rows = dependent.over(plan)?;
        // Under plain names meanwhile: a column that is called as the expression it was would be taken for that.
        let (mut columns, mut own) = (Vec::new(), Vec::new());
        for (i, (qualifier, field)) in rows.schema().iter().skip(outer.len()).enumerate() {
            let name = format!("__element_{i}");
            columns.push(Expr::Column(Column::from((qualifier, field))).alias(&name));
            own.push(Expr::Column(Column::from_name(name)).alias_qualified(qualifier.cloned(), field.name()));
        }
        let mut conditions = Vec::new();
        for (i, (inner, outer)) in dependent.equal(&dependent.columns(), &outer)?.into_iter().enumerate() {
            let name = format!("__value_{i}");
            columns.push(inner.alias(&name));
            conditions.push(Expr::Column(Column::from_name(name)).eq(outer));
        }
        // Of several filters, decorrelation would hand on the columns of the last.
        let same = conjunction(conditions).unwrap_or_else(|| lit(true));
        LogicalPlanBuilder::from(rows).project(columns)?.filter(same)?.project(own)?.build()
    }
}

/// A join whose right side refers to the rows of its left one, if DataFusion makes none of it: with what the right side gives for all of their values.
pub(super) fn lateral(join: &Join) -> Result<Option<LogicalPlan>, DataFusionError> {
    let found = Correlation::lateral(&join.left);
    let is_inner = match join.join_type {
        JoinType::Inner => true,
        JoinType::Left => false,
        _ => return Ok(None),
    };
    let mut beside = &join.right;
    while let LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. })
    | LogicalPlan::Subquery(Subquery { subquery: input, .. }) = beside.as_ref()
    {
        beside = input;
    }
    if !found.scope.is_referred_to_by(beside)? || is_inner && !found.has_hard(beside, found.top())? {
        return Ok(None);
    }
    let mut taken = Taken::new(join.left.schema(), "__of_map");
    let right = taken.within(join.right.as_ref().clone())?;
    let left = taken.beside(&join.left)?;
    let (dependent, keys) = Correlation::lateral(&left).values(&right)?;
    let keys: Vec<Expr> = keys.into_iter().map(Expr::Column).collect();
    let plan = LogicalPlanBuilder::from(Arc::clone(&left)).join_with_expr_keys(
        dependent.over(&right)?,
        join.join_type,
        dependent.equal(&keys, &dependent.columns())?.into_iter().unzip(),
        join.filter.clone(),
    )?;
    let behind = left.schema().fields().len() + keys.len();
    called(&join.schema, plan.build()?, (0..join.left.schema().fields().len()).chain(behind..)).map(Some)
}

fn below(node: &LogicalPlan, above: Above) -> Above {
    let aggregate = above.aggregate || matches!(node, LogicalPlan::Aggregate(_));
    let choice = above.choice || aggregate || matches!(node, LogicalPlan::Distinct(_) | LogicalPlan::Limit(_));
    Above { choice, aggregate }
}

/// Equality of something of each side, or nothing that is correlated.
fn is_simple(condition: &Expr) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else {
        return !condition.contains_outer();
    };
    // Of a value alone, as in `4 = outer.id`, DataFusion makes no column to join by.
    let sides = |outer: &Expr, inner: &Expr| outer.column_refs().is_empty() && !inner.column_refs().is_empty();
    match (left.contains_outer(), right.contains_outer()) {
        (true, false) => sides(left, right),
        (false, true) => sides(right, left),
        (left, _) => !left,
    }
}

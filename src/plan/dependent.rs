//! Dependent joins: a plan that refers to columns of a row beside it, for all values that these columns have, at once.
//!
//! What such a plan gives depends on these columns and on nothing else of that row. So each step of it is made to hand on the values: what refers to none
//! stands beside all of them, aggregates and windows are by them too, and a LIMIT counts the rows of each (Neumann and Kemper, "Unnesting
//! arbitrary queries", 2015, and the "magic set" of Seshadri et al., 1996).
//!
//! ```sql
//! select count(*) from b where b.id < a.id          -- of each row of a
//! select d.id, count(*) from (select distinct id from a) as d join b on b.id < d.id group by d.id
//! ```

use arrow::datatypes::{Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, DataFusionError, ScalarValue, plan_err};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprFunctionExt, FetchType, Filter, GroupingSet, Join, JoinType, Limit, LogicalPlan,
    LogicalPlanBuilder, Projection, SkipType, SortExpr, Subquery, Unnest, Window, WindowFunctionDefinition, lit, when,
};
use std::sync::Arc;

use super::lower::columns_of;

/// The query in an expression that is one.
pub(super) fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery)
        | Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::Exists(Exists { subquery, .. })
        | Expr::SetComparison(SetComparison { subquery, .. }) => Some(subquery),
        _ => None,
    }
}

/// `expr` with another query, if it is one.
pub(super) fn with_subquery(
    expr: Expr,
    rewrite: &mut dyn FnMut(Subquery) -> Result<Transformed<Subquery>, DataFusionError>,
) -> Result<Transformed<Expr>, DataFusionError> {
    Ok(match expr {
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
}

/// The same with another plan.
pub(super) fn with_plan(subquery: Subquery, plan: LogicalPlan) -> Subquery {
    let outer_ref_columns = plan.all_out_ref_exprs();
    Subquery { subquery: Arc::new(plan), outer_ref_columns, ..subquery }
}

/// What an aggregate is over no rows.
fn of_no_rows(call: &Expr, field: &FieldRef) -> Result<ScalarValue, DataFusionError> {
    let Expr::AggregateFunction(function) = call.clone().unalias() else {
        return plan_err!("{call} is no aggregate");
    };
    // In the total everything is rolled up.
    if function.func.name() == "grouping" {
        return Ok(ScalarValue::Int32(Some((1 << function.params.args.len()) - 1)));
    }
    function.func.default_value(field.data_type())
}

/// Rows whose columns a plan beside them refers to, and which names stand for others meanwhile: those of the queries in between.
#[derive(Clone)]
pub(super) struct Scope<'a> {
    outer: &'a DFSchema,
    between: Vec<DFSchemaRef>,
}

impl<'a> Scope<'a> {
    pub fn new(outer: &'a DFSchema) -> Self {
        Scope { outer, between: Vec::new() }
    }

    fn has(&self, column: &Column) -> bool {
        self.outer.has_column(column) && !self.between.iter().any(|schema| schema.has_column(column))
    }

    /// Of subqueries in the expressions of `node`.
    fn within(&self, node: &LogicalPlan) -> Self {
        let mut scope = self.clone();
        scope.between.extend(node.inputs().into_iter().map(|input| Arc::clone(input.schema())));
        scope
    }

    /// Of the inputs of `node`: what is lateral sees what is left of it.
    fn below(&self, node: &LogicalPlan) -> Self {
        let mut scope = self.clone();
        if let LogicalPlan::Join(join) = node {
            scope.between.push(Arc::clone(join.left.schema()));
        }
        scope
    }

    /// Looks at every reference in an expression of `node`: the column, and whether a subquery in between makes it.
    pub fn in_expr(
        &self,
        node: &LogicalPlan,
        expr: &Expr,
        see: &mut dyn FnMut(&Column, bool),
    ) -> Result<(), DataFusionError> {
        expr.apply(|e| {
            match e {
                Expr::OuterReferenceColumn(_, column) if self.has(column) => see(column, !self.between.is_empty()),
                e => {
                    if let Some(subquery) = subquery_of(e) {
                        self.within(node).in_plan(&subquery.subquery, &mut |column, _| see(column, true))?;
                    }
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(())
    }

    /// The same for all of a plan.
    pub fn in_plan(&self, plan: &LogicalPlan, see: &mut dyn FnMut(&Column, bool)) -> Result<(), DataFusionError> {
        plan.apply_expressions(|expr| {
            self.in_expr(plan, expr, see)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        let below = self.below(plan);
        plan.inputs().into_iter().try_for_each(|input| below.in_plan(input, see))
    }

    /// Whether `plan` refers to such a row.
    pub fn is_referred_to_by(&self, plan: &LogicalPlan) -> Result<bool, DataFusionError> {
        let mut found = false;
        self.in_plan(plan, &mut |_, _| found = true)?;
        Ok(found)
    }

    /// The columns that `plan` refers to.
    pub fn columns(&self, plan: &LogicalPlan) -> Result<Vec<Column>, DataFusionError> {
        let mut found: Vec<Column> = Vec::new();
        self.in_plan(plan, &mut |column, _| found.push(column.clone()))?;
        found.sort();
        found.dedup();
        Ok(found)
    }
}

/// The column that numbers the rows of a value for a LIMIT.
const NUMBER: &str = "__number_of_outer";
/// Whether there is a row at all.
const PRESENT: &str = "__present";

/// All values of the columns that a plan refers to.
pub(super) struct Dependent<'a> {
    scope: Scope<'a>,
    keys: Vec<Column>,
    values: LogicalPlan,
}

/// What values are called, in rows of one plan and of another that is joined to it.
fn value(i: usize) -> String {
    format!("__outer_{i}")
}

fn other_value(i: usize) -> String {
    format!("__outer_of_other_{i}")
}

impl<'a> Dependent<'a> {
    /// Of the rows of `input`.
    pub fn new(input: &'a Arc<LogicalPlan>, keys: Vec<Column>) -> Result<Self, DataFusionError> {
        let columns = keys.iter().enumerate().map(|(i, key)| Expr::Column(key.clone()).alias(value(i)));
        let values = LogicalPlanBuilder::from(Arc::clone(input)).project(columns)?.distinct()?.build()?;
        Ok(Dependent { scope: Scope::new(input.schema()), keys, values })
    }

    /// The columns of the values, as they stand before those of a plan.
    pub fn columns(&self) -> Vec<Expr> {
        (0..self.keys.len()).map(|i| Expr::Column(Column::new_unqualified(value(i)))).collect()
    }

    /// Pairs of expressions that are equal where values are, NULLs included.
    pub fn equal(&self, left: &[Expr], right: &[Expr]) -> Result<Vec<(Expr, Expr)>, DataFusionError> {
        let mut pairs = Vec::new();
        for ((left, right), field) in left.iter().zip(right).zip(self.values.schema().fields()) {
            if !field.is_nullable() {
                pairs.push((left.clone(), right.clone()));
                continue;
            }
            let default = lit(ScalarValue::new_default(field.data_type())?);
            pairs.push((coalesce(vec![left.clone(), default.clone()]), coalesce(vec![right.clone(), default])));
            pairs.push((left.clone().is_null(), right.clone().is_null()));
        }
        Ok(pairs)
    }

    /// The rows of `plan` for each of the values: their columns, then its own.
    pub fn over(&self, plan: &LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
        if let LogicalPlan::EmptyRelation(empty) = plan
            && empty.produce_one_row
            && empty.schema.fields().is_empty()
        {
            return Ok(self.values.clone());
        }
        if !self.scope.is_referred_to_by(plan)? {
            return LogicalPlanBuilder::from(self.values.clone()).cross_join(plan.clone())?.build();
        }
        match plan {
            LogicalPlan::Subquery(subquery) => self.over(&subquery.subquery),
            LogicalPlan::SubqueryAlias(alias) => {
                let names = alias.input.schema().iter().zip(alias.schema.iter()).map(|((q, f), (to, named))| {
                    Expr::Column(Column::from((q, f))).alias_qualified(to.cloned(), named.name())
                });
                self.project(names.collect(), self.over(&alias.input)?)
            }
            LogicalPlan::Projection(projection) => {
                let own = self.projected(projection)?;
                self.project(own, self.over(&projection.input)?)
            }
            LogicalPlan::Filter(filter) => {
                let predicate = self.here(plan, &filter.predicate)?;
                Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(self.over(&filter.input)?))?))
            }
            LogicalPlan::Unnest(unnest) => {
                let input = Arc::new(self.over(&unnest.input)?);
                let (columns, options) = (unnest.exec_columns.clone(), unnest.options.clone());
                Ok(LogicalPlan::Unnest(Unnest::try_new(input, columns, options)?))
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                LogicalPlanBuilder::from(self.over(input)?).distinct()?.build()
            }
            // Without a LIMIT it says nothing.
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.over(&sort.input),
            LogicalPlan::Limit(limit) => self.limited(limit),
            LogicalPlan::Aggregate(aggregate) => self.aggregated(plan, aggregate),
            LogicalPlan::Window(window) => self.windowed(plan, window),
            LogicalPlan::Union(union) => {
                let mut all: Option<LogicalPlanBuilder> = None;
                for input in &union.inputs {
                    let input = self.over(input)?;
                    all = Some(match all {
                        Some(all) => all.union(input)?,
                        None => LogicalPlanBuilder::from(input),
                    });
                }
                let all = all.unwrap_or_else(|| LogicalPlanBuilder::empty(false)).build()?;
                let own = self.named(&union.schema, &all);
                self.project(own, all)
            }
            LogicalPlan::Join(join) => self.joined(plan, join),
            other => {
                let what = other.display().to_string();
                let what = what.split([':', ' ']).next().unwrap_or_default();
                plan_err!("a correlated subquery refers to the row beside it from within {what}: join it instead")
            }
        }
    }

    /// `expr` of `node` with the values it refers to as columns.
    fn here(&self, node: &LogicalPlan, expr: &Expr) -> Result<Expr, DataFusionError> {
        let within = self.scope.within(node);
        let expr = expr.clone().transform_up(|e| match e {
            Expr::OuterReferenceColumn(_, column) if self.scope.has(&column) => {
                Ok(Transformed::yes(Expr::Column(Column::new_unqualified(value(self.place(&column)?)))))
            }
            e => with_subquery(e, &mut |subquery| Ok(Transformed::yes(self.renamed_in(subquery, &within)?))),
        })?;
        Ok(expr.data)
    }

    fn place(&self, column: &Column) -> Result<usize, DataFusionError> {
        match self.keys.iter().position(|key| key == column) {
            Some(place) => Ok(place),
            None => plan_err!("{column} is no value of the row beside it"),
        }
    }

    /// A subquery between which and the row there is another query: it refers to that one's columns, the values among them.
    fn renamed_in(&self, subquery: Subquery, scope: &Scope<'_>) -> Result<Subquery, DataFusionError> {
        let plan = self.renamed(subquery.subquery.as_ref().clone(), scope)?;
        Ok(with_plan(subquery, plan))
    }

    fn renamed(&self, plan: LogicalPlan, scope: &Scope<'_>) -> Result<LogicalPlan, DataFusionError> {
        let (below, within) = (scope.below(&plan), scope.within(&plan));
        let plan = plan.map_children(|input| Ok(Transformed::yes(self.renamed(input, &below)?)))?.data;
        let names = NamePreserver::new(&plan);
        let plan = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|e| match e {
                Expr::OuterReferenceColumn(field, column) if scope.has(&column) => {
                    let name = value(self.place(&column)?);
                    let field = Arc::new(Field::clone(&field).with_name(&name));
                    Ok(Transformed::yes(Expr::OuterReferenceColumn(field, Column::new_unqualified(name))))
                }
                e => with_subquery(e, &mut |subquery| Ok(Transformed::yes(self.renamed_in(subquery, &within)?))),
            })?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })?;
        plan.data.recompute_schema()
    }

    /// The values, then `own`, of `input`.
    fn project(&self, own: Vec<Expr>, input: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
        let columns = self.columns().into_iter().chain(own).collect();
        Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(input))?))
    }

    /// The columns of `schema`, which stand in `plan` behind the values.
    fn named(&self, schema: &DFSchema, plan: &LogicalPlan) -> Vec<Expr> {
        let behind = columns_of(plan.schema()).into_iter().skip(self.keys.len());
        let names = behind.zip(schema.iter());
        names.map(|(column, (to, named))| column.alias_qualified(to.cloned(), named.name())).collect()
    }

    fn projected(&self, projection: &Projection) -> Result<Vec<Expr>, DataFusionError> {
        let node = LogicalPlan::Projection(projection.clone());
        let own = projection.expr.iter().zip(projection.schema.iter()).map(|(expr, (qualifier, field))| {
            let expr = self.here(&node, expr)?;
            Ok(match &expr {
                Expr::Column(c) if c.relation.as_ref() == qualifier && c.name == *field.name() => expr,
                _ => expr.unalias().alias_qualified(qualifier.cloned(), field.name()),
            })
        });
        own.collect()
    }

    fn aggregated(&self, node: &LogicalPlan, aggregate: &Aggregate) -> Result<LogicalPlan, DataFusionError> {
        let mut groups = self.columns();
        // Without GROUP BY, and for an empty grouping set, there is a row of no rows, too.
        let mut totals = usize::from(aggregate.group_expr.is_empty());
        for group in &aggregate.group_expr {
            groups.push(match group {
                // What stands before grouping sets is in each of them.
                Expr::GroupingSet(sets) => {
                    let (sets, empty) = self.sets(node, sets)?;
                    totals += empty;
                    Expr::GroupingSet(sets)
                }
                group => self.here(node, group)?,
            });
        }
        if totals > 1 {
            return plan_err!("a correlated subquery has the empty grouping set several times: write it once");
        }
        let calls = aggregate.aggr_expr.iter().map(|call| self.here(node, call)).collect::<Result<Vec<_>, _>>()?;
        let input = Arc::new(self.over(&aggregate.input)?);
        let plan = LogicalPlan::Aggregate(Aggregate::try_new(input, groups, calls.clone())?);
        // Which set a row is of nobody asks for by name.
        let shown = |(_, (_, field)): &(Expr, (_, &FieldRef))| field.name() != Aggregate::INTERNAL_GROUPING_ID;
        let own = columns_of(plan.schema()).into_iter().skip(self.keys.len());
        let own: Vec<_> = own.zip(aggregate.schema.iter()).filter(shown).collect();
        if totals == 0 {
            let named = own.into_iter().map(|(column, (to, named))| column.alias_qualified(to.cloned(), named.name()));
            return self.project(named.collect(), plan);
        }
        let keys = self.columns().into_iter().enumerate().map(|(i, key)| key.alias(other_value(i)));
        let values = own.iter().enumerate().map(|(i, (column, _))| column.clone().alias(own_name(i)));
        let present = keys.chain(values).chain([lit(true).alias(PRESENT)]).collect::<Vec<_>>();
        let present = LogicalPlanBuilder::from(plan.clone()).project(present)?.build()?;
        let others: Vec<Expr> =
            (0..self.keys.len()).map(|i| Expr::Column(Column::new_unqualified(other_value(i)))).collect();
        let all = LogicalPlanBuilder::from(self.values.clone())
            .join_with_expr_keys(
                present,
                JoinType::Left,
                self.equal(&self.columns(), &others)?.into_iter().unzip(),
                None,
            )?
            .build()?;
        let grouped = own.len() - calls.len();
        let mut shown = Vec::with_capacity(own.len());
        for (i, (_, (qualifier, field))) in own.iter().enumerate() {
            let column = Expr::Column(Column::new_unqualified(own_name(i)));
            let of_nothing = match i.checked_sub(grouped) {
                Some(call) => of_no_rows(&calls[call], field)?,
                None => ScalarValue::Null,
            };
            let column = match of_nothing.is_null() {
                true => column,
                false => {
                    when(Expr::Column(Column::new_unqualified(PRESENT)).is_null(), lit(of_nothing)).otherwise(column)?
                }
            };
            shown.push(column.alias_qualified(qualifier.cloned(), field.name()));
        }
        self.project(shown, all)
    }

    /// Grouping sets of `node`, and how many of them are empty.
    fn sets(&self, node: &LogicalPlan, sets: &GroupingSet) -> Result<(GroupingSet, usize), DataFusionError> {
        let here = |set: &Vec<Expr>| set.iter().map(|expr| self.here(node, expr)).collect::<Result<Vec<_>, _>>();
        Ok(match sets {
            GroupingSet::Rollup(exprs) => (GroupingSet::Rollup(here(exprs)?), 1),
            GroupingSet::Cube(exprs) => (GroupingSet::Cube(here(exprs)?), 1),
            GroupingSet::GroupingSets(sets) => {
                let empty = sets.iter().filter(|set| set.is_empty()).count();
                (GroupingSet::GroupingSets(sets.iter().map(here).collect::<Result<_, _>>()?), empty)
            }
        })
    }

    fn windowed(&self, node: &LogicalPlan, window: &Window) -> Result<LogicalPlan, DataFusionError> {
        let calls = window.window_expr.iter().map(|call| {
            let call = self.here(node, call)?.transform_up(|e| match e {
                Expr::WindowFunction(mut call) => {
                    call.params.partition_by.extend(self.columns());
                    Ok(Transformed::yes(Expr::WindowFunction(call)))
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(call.data)
        });
        let calls = calls.collect::<Result<Vec<_>, DataFusionError>>()?;
        let plan = LogicalPlan::Window(Window::try_new(calls, Arc::new(self.over(&window.input)?))?);
        let own = self.named(&window.schema, &plan);
        self.project(own, plan)
    }

    fn limited(&self, limit: &Limit) -> Result<LogicalPlan, DataFusionError> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return plan_err!("LIMIT and OFFSET of a correlated subquery are numbers");
        };
        let number = || Expr::Column(Column::new_unqualified(NUMBER));
        let last = fetch.map(|fetch| number().lt_eq(lit(skip.saturating_add(fetch) as u64)));
        let condition =
            conjunction([number().gt(lit(skip as u64))].into_iter().chain(last)).unwrap_or_else(|| lit(true));
        let numbered = Filter::try_new(condition, Arc::new(self.numbered(&limit.input)?))?;
        self.project(columns_of(limit.input.schema()), LogicalPlan::Filter(numbered))
    }

    /// The same as [`Dependent::over`], and behind it the number of each row among those of its value.
    fn numbered(&self, plan: &LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
        let number = || Expr::Column(Column::new_unqualified(NUMBER));
        match plan {
            LogicalPlan::Projection(projection) => {
                let own = self.projected(projection)?.into_iter().chain([number()]).collect();
                self.project(own, self.numbered(&projection.input)?)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let names = alias.input.schema().iter().zip(alias.schema.iter()).map(|((q, f), (to, named))| {
                    Expr::Column(Column::from((q, f))).alias_qualified(to.cloned(), named.name())
                });
                self.project(names.chain([number()]).collect(), self.numbered(&alias.input)?)
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
                let keys =
                    sort.expr.iter().map(|key| Ok(SortExpr { expr: self.here(plan, &key.expr)?, ..key.clone() }));
                self.with_number(self.over(&sort.input)?, keys.collect::<Result<_, DataFusionError>>()?)
            }
            other => self.with_number(self.over(other)?, vec![]),
        }
    }

    fn with_number(&self, plan: LogicalPlan, order: Vec<SortExpr>) -> Result<LogicalPlan, DataFusionError> {
        let number = Expr::from(WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), vec![]));
        let number = number.partition_by(self.columns());
        let number = if order.is_empty() { number.build()? } else { number.order_by(order).build()? };
        let named = Expr::Column(Column::new_unqualified(number.schema_name().to_string())).alias(NUMBER);
        let columns = columns_of(plan.schema()).into_iter().chain([named]);
        LogicalPlanBuilder::from(plan).window(vec![number])?.project(columns)?.build()
    }

    fn joined(&self, node: &LogicalPlan, join: &Join) -> Result<LogicalPlan, DataFusionError> {
        use JoinType::{Full, Inner, Left, LeftAnti, LeftMark, LeftSemi};
        let (of_left, of_right) =
            (self.scope.is_referred_to_by(&join.left)?, self.scope.is_referred_to_by(&join.right)?);
        let mut here = Vec::new();
        for part in join.filter.iter() {
            here.push(self.here(node, part)?);
        }
        // Where rows of the right side stay without partners, it is the one that has the values.
        let kept_right =
            matches!(join.join_type, JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark);
        let only_one = join.join_type == Inner && of_right;
        let on_left = of_left || join.join_type == Full || !kept_right && !only_one;
        let on_right = of_right || join.join_type == Full || kept_right;
        let left = if on_left { self.over(&join.left)? } else { join.left.as_ref().clone() };
        let mut right = if on_right { self.over(&join.right)? } else { join.right.as_ref().clone() };
        let others: Vec<Expr> =
            (0..self.keys.len()).map(|i| Expr::Column(Column::new_unqualified(other_value(i)))).collect();
        if on_left && on_right {
            let renamed = self.columns().into_iter().enumerate().map(|(i, column)| column.alias(other_value(i)));
            let own = columns_of(right.schema()).into_iter().skip(self.keys.len());
            right = LogicalPlanBuilder::from(right.clone()).project(renamed.chain(own))?.build()?;
            here.extend(self.equal(&self.columns(), &others)?.into_iter().map(|(left, right)| left.eq(right)));
        }
        let plan = LogicalPlan::Join(Join::try_new(
            Arc::new(left),
            Arc::new(right),
            join.on.clone(),
            conjunction(here),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?);
        let values = match join.join_type {
            Full => {
                // A row without a partner on the left has the values of the right.
                let pairs = self.columns().into_iter().zip(others).enumerate();
                pairs
                    .map(|(i, (left, right))| Ok(coalesce(vec![left, right]).alias(value(i))))
                    .collect::<Result<Vec<_>, DataFusionError>>()?
            }
            Inner | Left | LeftSemi | LeftAnti | LeftMark => self.columns(),
            _ if on_left => others.into_iter().enumerate().map(|(i, column)| column.alias(value(i))).collect(),
            _ => self.columns(),
        };
        let columns = values.into_iter().chain(columns_of(&join.schema)).collect();
        Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?))
    }
}

/// What an aggregate is called meanwhile.
fn own_name(i: usize) -> String {
    format!("__aggregate_{i}")
}

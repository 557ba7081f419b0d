//! What is taken out of MAP columns of a row, as columns of that row: MAPs cannot be compared, so no join says which rows have equal ones, but what a query
//! takes out of them (a value, the list of keys) mostly can.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, ExprSchema};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, ExprSchemable, Filter, LogicalPlan, Projection, lit};
use std::sync::Arc;

use super::dependent::{subquery_of, with_plan, with_subquery};
use super::lower::columns_of;

/// Expressions over MAP columns of some rows, and the columns that they become.
pub(super) struct Taken<'a> {
    schema: &'a DFSchema,
    /// What they are called, with a number behind it.
    name: &'static str,
    exprs: Vec<Expr>,
}

impl<'a> Taken<'a> {
    /// Nothing yet, of rows of `schema`.
    pub fn new(schema: &'a DFSchema, name: &'static str) -> Self {
        Taken { schema, name, exprs: Vec::new() }
    }

    /// `plan`, which refers to such a row as an outer one.
    pub fn within(&mut self, plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            let node = node.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(self.replaced(expr, true)?.update_data(|expr| name.restore(expr)))
            })?;
            // What was nullable below may not be any more.
            node.transform_data(|node| Ok(Transformed::yes(node.recompute_schema()?)))
        })?;
        Ok(plan.data)
    }

    /// `condition` over such rows and others, and its subqueries.
    pub fn over(&mut self, condition: Expr) -> Result<Expr, DataFusionError> {
        let asked = condition.transform_up(|e| {
            with_subquery(e, &mut |subquery| {
                let plan = self.within(subquery.subquery.as_ref().clone())?;
                Ok(Transformed::yes(with_plan(subquery, plan)))
            })
        })?;
        Ok(self.replaced(asked.data, false)?.data)
    }

    /// The rows of `input`, which have the schema, with the columns behind their own.
    pub fn beside(self, input: &Arc<LogicalPlan>) -> Result<Arc<LogicalPlan>, DataFusionError> {
        if self.exprs.is_empty() {
            return Ok(Arc::clone(input));
        }
        let columns = columns_of(self.schema).into_iter().chain(self.exprs).collect();
        let taken = LogicalPlan::Projection(Projection::try_new(columns, Arc::clone(input))?);
        // DataFusion merges projections, and loses columns that only subqueries of the upper one refer to.
        Ok(Arc::new(LogicalPlan::Filter(Filter::try_new(lit(true), Arc::new(taken))?)))
    }

    /// Whether nothing was taken.
    pub fn is_empty(&self) -> bool {
        self.exprs.is_empty()
    }

    fn replaced(&mut self, expr: Expr, outer: bool) -> Result<Transformed<Expr>, DataFusionError> {
        expr.transform_down(|e| {
            // Its name is the query's.
            let here = if matches!(e, Expr::Alias(_)) { None } else { self.as_column(&e, outer)? };
            Ok(match here {
                Some(column) => Transformed::new(column, true, TreeNodeRecursion::Jump),
                None => Transformed::no(e),
            })
        })
    }

    /// The column for `expr`, if it is over columns of the row alone, a MAP among them, and is none itself.
    fn as_column(&mut self, expr: &Expr, outer: bool) -> Result<Option<Expr>, DataFusionError> {
        let (mut of_map, mut others) = (false, expr.is_volatile());
        let here = expr.clone().transform_up(|e| {
            let column = match (e, outer) {
                (Expr::OuterReferenceColumn(_, column), true) | (Expr::Column(column), false) => column,
                (e, _) => {
                    others |=
                        matches!(e, Expr::Column(_) | Expr::OuterReferenceColumn(..)) || subquery_of(&e).is_some();
                    return Ok(Transformed::no(e));
                }
            };
            match self.schema.has_column(&column).then(|| self.schema.data_type(&column)).transpose()? {
                Some(data_type) => of_map |= matches!(data_type, DataType::Map(..)),
                None => others = true,
            }
            Ok(Transformed::yes(Expr::Column(column)))
        })?;
        if others || !of_map || matches!(here.data.get_type(self.schema)?, DataType::Map(..)) {
            return Ok(None);
        }
        let known = self.exprs.iter().position(|e| matches!(e, Expr::Alias(alias) if *alias.expr == here.data));
        let at = known.unwrap_or(self.exprs.len());
        let name = format!("{}_{at}", self.name);
        let (_, field) = here.data.to_field(self.schema)?;
        if known.is_none() {
            self.exprs.push(here.data.alias(&name));
        }
        let column = Column::new_unqualified(&name);
        Ok(Some(match outer {
            true => Expr::OuterReferenceColumn(Arc::new(field.as_ref().clone().with_name(name)), column),
            false => Expr::Column(column),
        }))
    }
}

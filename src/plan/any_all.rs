//! `x > any (q)` and `x > all (q)` as EXISTS, of the rows of q that say so:
//!
//! | | planned as |
//! |---|---|
//! | `x > any (q)` where only TRUE counts | `exists (q where x > y)` |
//! | `x > all (q)` there | `not exists (q where (x > y) is not true)` |
//! | `x > any (q)` elsewhere | TRUE where a row of q says so, else NULL where one is unknown, else FALSE |
//! | `x > all (q)` elsewhere | FALSE where a row of q denies it, else NULL where one is unknown, else TRUE |
//!
//! DataFusion 55.2 does so in its optimizer, with all three values, when SELECT lists and conditions of joins have no room for EXISTS any more.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, DataFusionError, ScalarValue};
use datafusion::logical_expr::expr::{Exists, SetComparison, SetQuantifier};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{BinaryExpr, Expr, Filter, LogicalPlan, Operator, lit, when};
use std::sync::Arc;

use super::dependent::with_plan;
use super::subqueries::outer;

/// `plan` as the SQL planner made it, without ANY and ALL.
pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let plan = plan.transform_up_with_subqueries(|node| {
        let mut found = false;
        node.apply_expressions(|expr| {
            found |= expr.exists(is_one)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !found {
            return Ok(Transformed::no(node));
        }
        let mut schema = DFSchema::empty();
        node.inputs().iter().for_each(|input| schema.merge(input.schema()));
        let schema = Arc::new(schema);
        if let LogicalPlan::Filter(filter) = node {
            let predicate = condition(filter.predicate, &schema)?;
            return Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)));
        }
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            if !expr.exists(is_one)? {
                return Ok(Transformed::no(expr));
            }
            let name = names.save(&expr);
            Ok(Transformed::yes(name.restore(three_valued(expr, &schema)?)))
        })
    })?;
    Ok(plan.data)
}

fn is_one(expr: &Expr) -> Result<bool, DataFusionError> {
    Ok(matches!(expr, Expr::SetComparison(_)))
}

/// A condition of which only TRUE counts.
fn condition(expr: Expr, schema: &DFSchemaRef) -> Result<Expr, DataFusionError> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let (left, right) = (condition(*left, schema)?, condition(*right, schema)?);
            Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
        }
        Expr::SetComparison(comparison) => match comparison.quantifier {
            SetQuantifier::Any => Expr::Exists(where_it(&comparison, schema, |says| says)?),
            SetQuantifier::All => {
                Expr::Exists(Exists { negated: true, ..where_it(&comparison, schema, Expr::is_not_true)? })
            }
        },
        other => three_valued(other, schema)?,
    })
}

fn three_valued(expr: Expr, schema: &DFSchemaRef) -> Result<Expr, DataFusionError> {
    let expr = expr.transform_up(|e| {
        let Expr::SetComparison(comparison) = e else { return Ok(Transformed::no(e)) };
        let unknown = Expr::Exists(where_it(&comparison, schema, Expr::is_null)?);
        let (decides, decided) = match comparison.quantifier {
            SetQuantifier::Any => (where_it(&comparison, schema, |says| says)?, true),
            SetQuantifier::All => (where_it(&comparison, schema, Expr::is_false)?, false),
        };
        let null = lit(ScalarValue::Boolean(None));
        Ok(Transformed::yes(when(Expr::Exists(decides), lit(decided)).when(unknown, null).otherwise(lit(!decided))?))
    })?;
    Ok(expr.data)
}

/// `exists (select … from q where condition(x > y))`, of the column `y` of q.
fn where_it(
    comparison: &SetComparison,
    schema: &DFSchemaRef,
    condition: impl Fn(Expr) -> Expr,
) -> Result<Exists, DataFusionError> {
    let SetComparison { expr, subquery, op, .. } = comparison;
    let (qualifier, field) = subquery.subquery.schema().qualified_field(0);
    let column = Expr::Column(Column::from((qualifier, field)));
    let x = outer(expr, schema)?;
    let says = Expr::BinaryExpr(BinaryExpr::new(Box::new(x), *op, Box::new(column)));
    let plan = LogicalPlan::Filter(Filter::try_new(condition(says), Arc::clone(&subquery.subquery))?);
    Ok(Exists { subquery: with_plan(subquery.clone(), plan), negated: false })
}

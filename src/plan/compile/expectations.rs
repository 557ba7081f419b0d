//! Expectations: conditions on single rows of a model's table.

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use std::sync::Arc;

use super::{CompiledExpectation, Compiler};
use crate::error::Error;
use crate::plan::diagnose;
use crate::plan::fault::{Fault, Origin};
use crate::plan::relation::{Named, Relation, RelationSource, Scope};
use crate::project::Model;

impl Compiler<'_> {
    /// The model's expectations over its stored columns.
    pub(super) fn expectations(
        &self,
        model: &Model,
        schema: &SchemaRef,
    ) -> Result<Vec<CompiledExpectation>, Vec<Error>> {
        let relation = RelationSource {
            relation: Relation::Model(model.name.clone()),
            streamed: false,
            schema: Arc::clone(schema),
            view: None,
        };
        let named = Named { schema: model.schema.clone(), name: model.alias.clone(), source: Arc::new(relation) };
        let scope = Scope { relations: vec![named], undeclared: vec![] };
        let mut compiled = Vec::new();
        let mut errors = Vec::new();
        for expectation in &model.expectations {
            let origin = Origin::Value(&expectation.span);
            match self.predicate(model, &expectation.expect, &scope) {
                Ok(predicate) => compiled.push(CompiledExpectation {
                    name: expectation.name.clone(),
                    predicate,
                    on_violation: expectation.on_violation,
                }),
                Err(faults) => errors.extend(
                    faults.into_iter().map(|f| origin.error(f).context(format!("expectation `{}`", expectation.name))),
                ),
            }
        }
        if errors.is_empty() { Ok(compiled) } else { Err(errors) }
    }

    fn predicate(&self, model: &Model, text: &str, scope: &Scope) -> Result<Expr, Vec<Fault>> {
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let sql = format!("select ({text}\n) as ok from {}.{}", quote(&model.schema), quote(&model.alias));
        let planned = self.planner.plan_sql(&sql, scope)?;
        let plan = self.planner.analyze(planned.plan).map_err(|e| diagnose::of_text(&e, &sql, &self.planner))?;
        let LogicalPlan::Projection(projection) = &plan else {
            return Err(vec![Fault::new("expectation", "it is no condition on one row")]);
        };
        let (LogicalPlan::TableScan(_), [expr]) = (projection.input.as_ref(), projection.expr.as_slice()) else {
            return Err(vec![
                Fault::new("expectation", "an expectation looks at one row")
                    .hint("write a condition on a whole table as a data test"),
            ]);
        };
        let expr = expr.clone().unalias();
        let is_boolean = expr.get_type(projection.input.schema()).is_ok_and(|t| t == DataType::Boolean);
        if !is_boolean {
            return Err(vec![Fault::new("type", format!("`{text}` is no condition: it must be true or false"))]);
        }
        let sql_fault = |e: datafusion::error::DataFusionError| vec![Fault::new("sql", e.strip_backtrace())];
        let expr = self.planner.simplify(expr, Arc::clone(projection.input.schema())).map_err(sql_fault)?;
        let unqualified = expr.transform_up(|e| {
            Ok(match e {
                Expr::Column(c) => Transformed::yes(Expr::Column(Column::new_unqualified(c.name))),
                other => Transformed::no(other),
            })
        });
        unqualified.map(|t| t.data).map_err(sql_fault)
    }
}

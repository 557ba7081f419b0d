//! Bulk execution: a compiled plan over the tables of one moment.

use arrow::datatypes::{Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::sqlparser::ast::visit_relations;
use datafusion::sql::sqlparser::parser::Parser;
use futures::TryStreamExt;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::compile::CompiledModel;
use super::fault::Origin;
use super::lower::Slots;
use super::relation::{Named, Relation, RelationSource, Scope, relation_of};
use super::rerun::Matching;
use super::session::Planner;
use super::sorts::{limits_above_sorts, order_by_distinct_keys};
use super::stored::{stored_type, to_stored};
use super::window_keys::name_window_keys;
use super::{determinism, diagnose, single_row, temporal};
use crate::error::{Error, Result};
use crate::project::SourceMap;

/// A relation a query may read: schema, name, and its rows.
pub type Table = (String, String, Arc<dyn TableProvider>);

impl Planner {
    /// The model's bulk plan over `providers`, one for each of its inputs, in their order. A provider's schema is its input's.
    pub fn bind(&self, model: &CompiledModel, providers: &[Arc<dyn TableProvider>]) -> Result<LogicalPlan> {
        bind_slots(model.bulk.clone(), &model.slots, providers)
    }

    /// The same as it is when the clock stands at `now`, µs.
    pub fn bind_at(
        &self,
        model: &CompiledModel,
        providers: &[Arc<dyn TableProvider>],
        now: i64,
    ) -> Result<LogicalPlan> {
        Ok(temporal::at(self.bind(model, providers)?, now)?)
    }

    /// The plan of an incremental model's run that finds its table, over the same providers.
    pub fn bind_rerun(&self, model: &CompiledModel, providers: &[Arc<dyn TableProvider>]) -> Result<LogicalPlan> {
        let rerun = model.rerun.as_ref().ok_or_else(|| Error::internal("no incremental model"))?;
        bind_slots(rerun.query.clone(), &model.slots, providers)
    }

    /// The rows of `table` that `rows`, numbered, concern.
    pub fn bind_matching(
        &self,
        matching: &Matching,
        table: Arc<dyn TableProvider>,
        rows: Arc<dyn TableProvider>,
    ) -> Result<LogicalPlan> {
        bind_slots(matching.plan.clone(), &matching.slots, &[table, rows])
    }

    /// Executes a bound plan. The rows are in stored types.
    pub async fn execute(&self, plan: &LogicalPlan) -> Result<SendableRecordBatchStream> {
        let physical = self.physical(plan).await?;
        // What a query shows need not be storable: an interval stays one.
        let columns = plan.schema().fields().iter().map(|f| {
            let stored = stored_type(f.data_type()).unwrap_or_else(|_| f.data_type().clone());
            Field::new(f.name(), stored, true)
        });
        let schema = Arc::new(Schema::new(columns.collect::<Vec<_>>()));
        let stream = execute_stream(physical, self.state.task_ctx())?;
        let to = Arc::clone(&schema);
        let stored = stream.and_then(move |batch| {
            let stored = to_stored(&batch, &to).map_err(|e| datafusion::error::DataFusionError::External(Box::new(e)));
            futures::future::ready(stored)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stored)))
    }

    /// A physical plan for an optimised logical one. Planned anew for each execution: re-executing a plan would see the
    /// build sides of the first time.
    async fn physical(&self, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = limits_above_sorts(order_by_distinct_keys(name_window_keys(plan.clone())?)?)?;
        Ok(self.state.query_planner().create_physical_plan(&plan, &self.state).await?)
    }

    /// Plans a query over `tables`, ready to execute: for `smelt query` and data tests. ORDER BY is kept; columns without a
    /// name, and two with the same, are allowed. `source_map` says where the SQL was written.
    pub fn plan_query(&self, sql: &str, source_map: &SourceMap, tables: &[Table]) -> Result<LogicalPlan, Vec<Error>> {
        let mut scope = Scope::default();
        let mut slots = Slots::default();
        let mut providers = Vec::new();
        for (schema, name, provider) in tables {
            let relation = Relation::Table { lake: None, schema: schema.clone(), name: name.clone() };
            let source =
                RelationSource { relation: relation.clone(), streamed: false, schema: provider.schema(), view: None };
            scope.relations.push(Named { schema: schema.clone(), name: name.clone(), source: Arc::new(source) });
            slots.inputs.push(super::Input { relation, schema: provider.schema(), append_only: false, unique: vec![] });
            slots.streamed.push(false);
            providers.push(Arc::clone(provider));
        }
        let origin = Origin::Compiled { sql, source_map };
        let planned = self.plan_sql(sql, &scope).map_err(|f| origin.errors(f))?;
        let plan = (|| {
            let plan = self.analyze(planned.plan)?;
            let plan = determinism::complete(self, plan)?;
            let plan = single_row::guard(plan)?;
            self.optimize(plan, |_, _| {})
        })();
        let plan = plan.map_err(|e| origin.errors(diagnose::of_text(&e, sql, self)))?;
        bind_slots(plan, &slots, &providers).map_err(|e| vec![e])
    }
}

impl Planner {
    /// The relations a query names, as text: `schema.name`, separated by blanks; None when it does not parse.
    pub fn relations_in(&self, sql: &str) -> Option<String> {
        let statements = Parser::parse_sql(&*self.sql_dialect(), sql).ok()?;
        let mut names = Vec::new();
        let _ = visit_relations(&statements, |name| {
            let parts: Vec<&str> =
                name.0.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.as_str()).collect();
            names.push(parts.join("."));
            ControlFlow::<()>::Continue(())
        });
        Some(names.join(" "))
    }
}

fn bind_slots(plan: LogicalPlan, slots: &Slots, providers: &[Arc<dyn TableProvider>]) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        let Some(slot) = relation_of(&scan.source).and_then(|source| slots.find(source)) else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let provider = providers.get(slot).ok_or_else(|| {
            datafusion::error::DataFusionError::Internal(format!("no table for `{}`", scan.table_name))
        })?;
        let source = provider_as_source(Arc::clone(provider));
        Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
    })?;
    Ok(plan.data)
}

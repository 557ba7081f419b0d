//! Reading: ad-hoc queries and data tests over committed tables, with views put in.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::datasource::ViewTable;
use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::admin::never_run;
use super::pipeline::{lake_options, planner};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::lake::Lake;
use crate::plan::{Compilation, CompiledModel, Planner, Relation};
use crate::project::{Project, SourceMap, StoreFailures};
use crate::types::RejectKind;

/// Reads the tables of a project as they are committed; never writes.
pub struct Reader {
    project: Arc<Project>,
    compilation: Arc<Compilation>,
    pub(super) planner: Planner,
    pub(super) lake: Lake,
}

type Provider = Arc<dyn TableProvider>;

impl Reader {
    /// A reader of the project's lake.
    pub async fn open(env: &Env, project: Arc<Project>, compilation: Arc<Compilation>) -> Result<Self> {
        let lake = Lake::open(env, &project.target.lake, lake_options(&project))?;
        Ok(Reader { planner: planner(env, &project)?, project, compilation, lake })
    }

    /// Rows of a query; it may name models, side tables and views, with or without their schema.
    pub async fn query(&self, sql: &str) -> Result<Vec<RecordBatch>, Vec<Error>> {
        self.run(sql, &SourceMap::verbatim(PathBuf::from("query"), sql)).await
    }

    async fn run(&self, sql: &str, map: &SourceMap) -> Result<Vec<RecordBatch>, Vec<Error>> {
        let plan = self.plan(sql, map).await?;
        self.collect(&plan).await
    }

    /// The plan of a query over what it names.
    pub(super) async fn plan(&self, sql: &str, map: &SourceMap) -> Result<LogicalPlan, Vec<Error>> {
        let tables = self.tables_in(sql).await?;
        self.planner.plan_query(sql, map, &tables)
    }

    pub(super) async fn collect(&self, plan: &LogicalPlan) -> Result<Vec<RecordBatch>, Vec<Error>> {
        let rows = self.planner.execute(plan).await.map_err(|e| vec![e])?;
        rows.try_collect().await.map_err(|e| vec![e.into()])
    }

    /// The tables and views whose names occur in `sql`: opening a table costs a log replay.
    async fn tables_in(&self, sql: &str) -> Result<Vec<(String, String, Provider)>, Vec<Error>> {
        let mut tables = self.tables_of_project(sql).await.map_err(|e| vec![e])?;
        tables.extend(self.failures_in(sql).await?);
        Ok(tables)
    }

    /// Tables and views of failing rows.
    async fn failures_in(&self, sql: &str) -> Result<Vec<(String, String, Provider)>, Vec<Error>> {
        let sql = sql.to_lowercase();
        let mut tables = Vec::new();
        for test in &self.project.tests {
            let (schema, name) = &test.config.audit;
            // A test does not read its own failures.
            if !sql.contains(&name.to_lowercase()) || test.sql.to_lowercase() == sql {
                continue;
            }
            if test.config.store == Some(StoreFailures::View) {
                let plan = Box::pin(self.plan(&test.sql, &test.source_map)).await?;
                tables.push((schema.clone(), name.clone(), Arc::new(ViewTable::new(plan, None)) as Provider));
            } else if let Some(table) = self.lake.table(schema, name).await.map_err(|e| vec![e])? {
                tables.push((schema.clone(), name.clone(), table.committed_snapshot().provider()));
            }
        }
        Ok(tables)
    }

    async fn tables_of_project(&self, sql: &str) -> Result<Vec<(String, String, Provider)>> {
        let sql = sql.to_lowercase();
        let mut tables = Vec::new();
        for compiled in &self.compilation.models {
            let model = &compiled.model;
            let alias = model.alias.to_lowercase();
            if !sql.contains(&alias) {
                continue;
            }
            tables.push((model.schema.clone(), model.alias.clone(), self.provider(compiled).await?));
            for kind in [RejectKind::DeadLetter, RejectKind::Quarantine, RejectKind::Late] {
                let name = kind.table(&model.alias);
                if sql.contains(&name.to_lowercase())
                    && let Some(table) = self.lake.table(&model.schema, &name).await?
                {
                    tables.push((model.schema.clone(), name, table.committed_snapshot().provider()));
                }
            }
        }
        for (schema, name) in [("_smelt", "epochs")] {
            if sql.contains(name)
                && let Some(table) = self.lake.table(schema, name).await?
            {
                tables.push((schema.to_string(), name.to_string(), table.committed_snapshot().provider()));
            }
        }
        Ok(tables)
    }

    /// A model's table, or for a view the query over the tables it reads.
    async fn provider(&self, compiled: &CompiledModel) -> Result<Provider> {
        let model = &compiled.model;
        if model.materialized.has_table() {
            return match self.lake.table(&model.schema, &model.alias).await? {
                Some(table) => Ok(table.committed_snapshot().provider()),
                None => Err(never_run(&model.name)),
            };
        }
        let mut providers = Vec::with_capacity(compiled.inputs.len());
        for input in &compiled.inputs {
            providers.push(self.input(&input.relation, &input.schema).await?);
        }
        let plan = self.planner.bind(compiled, &providers)?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }

    async fn input(&self, relation: &Relation, schema: &SchemaRef) -> Result<Provider> {
        match relation {
            Relation::Model(name) => match self.compilation.models.iter().find(|m| m.model.name == *name) {
                Some(compiled) => Box::pin(self.provider(compiled)).await,
                None => Err(never_run(name)),
            },
            // A table that is not there yet is empty.
            Relation::Table { schema: folder, name } => match self.lake.table(folder, name).await? {
                Some(table) => Ok(table.committed_snapshot().provider()),
                None => Ok(Arc::new(MemTable::try_new(Arc::clone(schema), vec![vec![]])?)),
            },
            Relation::Source(source, table) => Err(Error::user(
                "source-query",
                format!("a view over source {source}.{table} cannot be queried: it is no table"),
            )
            .with_hint("make it a streaming_table")),
        }
    }
}

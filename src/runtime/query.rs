//! Reading: ad-hoc queries and data tests over committed tables, with views put in.

use arrow::array::RecordBatch;
use std::sync::Arc;

use super::admin::never_run;
use super::pipeline::lake_options;
use crate::env::Env;
use crate::error::Result;
use crate::lake::Lake;
use crate::plan::{Compilation, Input, Planner, Relation};
use crate::project::{DataTest, Project};

/// Reads the tables of a project as they are committed; never writes.
pub struct Reader {
    project: Arc<Project>,
    compilation: Arc<Compilation>,
    planner: Planner,
    lake: Lake,
}

impl Reader {
    /// A reader of the project's lake.
    pub async fn open(env: &Env, project: Arc<Project>, compilation: Arc<Compilation>) -> Result<Self> {
        let lake = Lake::open(env, &project.target.lake, lake_options(&project)).await?;
        let planner = compilation.planner();
        Ok(Reader { project, compilation, planner, lake })
    }

    /// Rows of a query; it may name models, side tables and views, with or without their schema.
    pub async fn query(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let query = self.compilation.plan_query(&self.project, sql)?;
        let mut providers = Vec::with_capacity(query.inputs.len());
        for input in &query.inputs {
            providers.push(self.provider(input).await?);
        }
        self.planner.run_query(&query, &providers).await
    }

    async fn provider(&self, input: &Input) -> Result<Arc<dyn datafusion::catalog::TableProvider>> {
        let (schema, name) = match &input.relation {
            Relation::Model(name) => {
                let model = self.compilation.models.iter().find(|m| m.model.name == *name);
                match model {
                    Some(compiled) => (compiled.model.schema.clone(), compiled.model.alias.clone()),
                    None => return Err(never_run(name)),
                }
            }
            Relation::Table { schema, name } => (schema.clone(), name.clone()),
            Relation::Source(source, table) => {
                return Err(crate::error::Error::user(
                    "source-query",
                    format!("source {source}.{table} is not a table: query the streaming table that reads it"),
                ));
            }
        };
        match self.lake.table(&schema, &name).await? {
            Some(table) => Ok(table.committed_snapshot().provider()),
            None => Err(never_run(&format!("{schema}.{name}"))),
        }
    }

    /// Number of rows a data test returns: its failures.
    pub async fn failures(&self, test: &DataTest) -> Result<usize> {
        Ok(self.query(&test.sql).await?.iter().map(RecordBatch::num_rows).sum())
    }

    /// The first failing rows of a data test, as JSON text.
    pub async fn first_failures(&self, test: &DataTest, count: usize) -> Result<Vec<String>> {
        let batches = self.query(&test.sql).await?;
        let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
        for batch in &batches {
            writer.write(batch)?;
        }
        writer.finish()?;
        let text = String::from_utf8_lossy(&writer.into_inner()).into_owned();
        Ok(text.lines().take(count).map(str::to_string).collect())
    }
}

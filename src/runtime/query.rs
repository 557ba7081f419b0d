//! Reading: ad-hoc queries and data tests over committed tables, with views put in, and over sources ([`super::replay`]).

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::datasource::ViewTable;
use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::admin::never_run;
use super::foreign::{same_columns, with_columns};
use super::pipeline::{lake_options, planner};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::lake::{EpochRow, Lake, OWN, When};
use crate::plan::{Compilation, CompiledModel, Planner, Relation};
use crate::project::{Project, SourceMap, StoreFailures};

/// Which state of the lake is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum At {
    /// Every table at its newest version.
    #[default]
    Now,
    /// All tables at one instant: see [`When`].
    Instant(When),
    /// The one table of the query at this version.
    Version(i64),
}

/// The same, looked up.
pub(super) enum Cut {
    Now,
    Epoch(Box<EpochRow>),
    Version(i64),
}

/// Reads the tables of a project as they are committed, now or once; never writes.
pub struct Reader {
    pub(super) env: Env,
    pub(super) project: Arc<Project>,
    pub(super) compilation: Arc<Compilation>,
    pub(super) planner: Planner,
    pub(super) lake: Lake,
    pub(super) cut: Cut,
}

type Provider = Arc<dyn TableProvider>;

impl Reader {
    /// A reader of the project's lake.
    pub async fn open(env: &Env, project: Arc<Project>, compilation: Arc<Compilation>) -> Result<Self> {
        Self::open_at(env, project, compilation, At::Now).await
    }

    /// A reader of the project's lake as it was.
    pub async fn open_at(env: &Env, project: Arc<Project>, compilation: Arc<Compilation>, at: At) -> Result<Self> {
        let lake = Lake::open(env, &project.target.lake, lake_options(&project))?;
        let cut = match at {
            At::Now => Cut::Now,
            At::Instant(when) => Cut::Epoch(Box::new(lake.epoch_at(when).await?)),
            At::Version(version) => Cut::Version(version),
        };
        Ok(Reader { env: env.clone(), planner: planner(env, &project)?, project, compilation, lake, cut })
    }

    /// Rows of a query; it may name models, side tables and views, with or without their schema.
    pub async fn query(&self, sql: &str) -> Result<Vec<RecordBatch>, Vec<Error>> {
        let done = self.run(sql, &SourceMap::verbatim(PathBuf::from("query"), sql)).await;
        done.map_err(|errors| errors.into_iter().map(|e| self.name_relations(e)).collect())
    }

    /// Outside models relations are named as they are: what a model would write does not help.
    fn name_relations(&self, error: Error) -> Error {
        if error.code() != "unknown-relation" {
            return error;
        }
        let name = error.message().split('`').rev().nth(1).unwrap_or_default().to_string();
        let known = self.compilation.models.iter().map(|m| m.model.alias.as_str());
        match crate::error::did_you_mean(&name, known) {
            Some(near) => error.with_hint(format!("did you mean `{near}`?")),
            None => error.with_hint("`smelt ls` lists the models; `_smelt.epochs` is there too"),
        }
    }

    /// Rows of what a template asks; `this` is the table (schema, name) of the model that asks, made or not by this project as it is
    /// compiled.
    pub(super) async fn rows(&self, sql: &str, this: Option<(&str, &str)>) -> Result<Vec<RecordBatch>, Vec<Error>> {
        // A word of a text is no table.
        let named = self.planner.relations_in(sql).unwrap_or_else(|| sql.to_string());
        let mut tables = self.tables_in(&named).await?;
        if let Some((schema, name)) = this
            && mentions(&named.to_lowercase(), &name.to_lowercase())
            && !tables.iter().any(|(s, n, _)| s == schema && n == name)
        {
            let table = self.table(schema, name).await.map_err(|e| vec![e])?;
            let table = table.ok_or_else(|| vec![never_run(name)])?;
            tables.push((schema.to_string(), name.to_string(), table));
        }
        let plan = self.planner.plan_query(sql, &SourceMap::verbatim(PathBuf::from("query"), sql), &tables)?;
        let columns = Arc::clone(plan.schema().inner());
        let named = |errors: Vec<Error>| errors.into_iter().map(|e| self.name_relations(e)).collect::<Vec<_>>();
        let mut batches = self.collect(&plan).await.map_err(named)?;
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(columns));
        }
        Ok(batches)
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

    /// A table of another lake, as it is now.
    async fn elsewhere(&self, lake: Option<&str>, folder: &str, name: &str, schema: &SchemaRef) -> Result<Provider> {
        let lake = super::admin::open_at(&self.env, &self.project, lake)?;
        match lake.table(folder, name).await? {
            Some(table) => with_columns(name, table.committed_snapshot().provider(), schema),
            None => Ok(Arc::new(MemTable::try_new(Arc::clone(schema), vec![vec![]])?)),
        }
    }

    async fn tables_of_project(&self, sql: &str) -> Result<Vec<(String, String, Provider)>> {
        let sql = sql.to_lowercase();
        let mut tables = Vec::new();
        for deferred in &self.compilation.deferred {
            let table = &deferred.table;
            if mentions_table(&sql, &table.schema, &table.alias) {
                let provider = self.input(&deferred.relation(), &deferred.columns).await?;
                tables.push((table.schema.clone(), table.alias.clone(), provider));
            }
        }
        for compiled in &self.compilation.models {
            let model = &compiled.model;
            if mentions_table(&sql, &model.schema, &model.alias) && model.deferred.is_none() {
                tables.push((model.schema.clone(), model.alias.clone(), self.provider(compiled).await?));
            }
            for name in model.side_tables() {
                if mentions_table(&sql, &model.schema, &name)
                    && let Some(table) = self.table(&model.schema, &name).await?
                {
                    tables.push((model.schema.clone(), name, table));
                }
            }
        }
        for (schema, name) in [(OWN, "epochs")] {
            if mentions(&sql, name)
                && let Some(table) = self.lake.table(schema, name).await?
            {
                tables.push((schema.to_string(), name.to_string(), table.committed_snapshot().provider()));
            }
        }
        if mentions_of(&sql, OWN, "runs")
            && let Some(table) = self.lake.runs().await?
        {
            tables.push((OWN.to_string(), "runs".to_string(), table.committed_snapshot().provider()));
        }
        for source in &self.project.sources {
            let (schema, name) = (&source.source, &source.name);
            let taken =
                |(s, n, _): &(String, String, Provider)| s.eq_ignore_ascii_case(schema) && n.eq_ignore_ascii_case(name);
            if mentions_of(&sql, schema, name) && !tables.iter().any(taken) {
                tables.push((schema.clone(), name.clone(), self.source(source).await?));
            }
        }
        if let (Cut::Version(version), false) = (&self.cut, tables.len() == 1) {
            let names: Vec<String> = tables.iter().map(|(schema, name, _)| format!("{schema}.{name}")).collect();
            let message = match names.is_empty() {
                true => format!("version {version} of what? The query names no table"),
                false => format!("version {version} of what? The query names {}", names.join(", ")),
            };
            return Err(Error::user("ambiguous-version", message)
                .with_hint("versions count per table: name one table, or use --epoch or --timestamp for several"));
        }
        tables.extend(self.information_schema(&sql).await?);
        Ok(tables)
    }

    /// A table as it is read; `None` when there is none.
    pub(super) async fn table(&self, schema: &str, name: &str) -> Result<Option<Provider>> {
        let version = match &self.cut {
            Cut::Now => return Ok(self.lake.table(schema, name).await?.map(|t| t.committed_snapshot().provider())),
            Cut::Version(version) => *version,
            Cut::Epoch(row) => match row.versions.get(&format!("{schema}.{name}")) {
                Some(version) => *version,
                // A side table appears with its first row.
                None if self.is_side(schema, name) => return Ok(None),
                None => {
                    let message = format!("`{schema}.{name}` was not there in epoch {}", row.epoch);
                    return Err(Error::user("no-table-then", message)
                        .with_hint("choose a later epoch: select epoch, committed_at, versions from _smelt.epochs"));
                }
            },
        };
        Ok(self.lake.snapshot_at(schema, name, version).await?.map(|snapshot| snapshot.provider()))
    }

    /// Whether an epoch is read that does not know the table.
    fn is_unknown_then(&self, schema: &str, name: &str) -> bool {
        matches!(&self.cut, Cut::Epoch(row) if !row.versions.contains_key(&format!("{schema}.{name}")))
    }

    fn is_side(&self, schema: &str, name: &str) -> bool {
        self.compilation.models.iter().all(|m| m.model.schema != schema || m.model.alias != name)
    }

    /// A model's table, or for a view the query over the tables it reads.
    async fn provider(&self, compiled: &CompiledModel) -> Result<Provider> {
        let model = &compiled.model;
        if model.materialized.has_table() {
            return self.table(&model.schema, &model.alias).await?.ok_or_else(|| never_run(&model.name));
        }
        if let Cut::Version(_) = self.cut {
            let message = format!("{} is a {}: it has no versions of its own", model.name, model.materialized.name());
            return Err(Error::user("no-versions", message).with_hint("use --epoch or --timestamp"));
        }
        let mut providers = Vec::with_capacity(compiled.inputs.len());
        for input in &compiled.inputs {
            providers.push(self.input(&input.relation, &input.schema).await?);
        }
        let then = compiled.inputs.iter().zip(&providers).find(|(input, p)| !same_columns(&p.schema(), &input.schema));
        if let (Cut::Epoch(row), Some((input, _))) = (&self.cut, then) {
            let (view, epoch) = (&model.name, row.epoch);
            let message =
                format!("the view {view} cannot be read in epoch {epoch}: {} had other columns then", input.relation);
            return Err(Error::user("other-columns", message).with_hint("query the table itself"));
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
            Relation::Table { lake, schema: folder, name } if lake.is_some() || self.is_unknown_then(folder, name) => {
                if let (Some(_), Cut::Now) = (lake, &self.cut) {
                    return self.elsewhere(lake.as_deref(), folder, name, schema).await;
                }
                let message =
                    format!("epochs do not say which version of `{folder}.{name}` they read: smelt does not write it");
                Err(Error::user("no-table-then", message).with_hint("query a model's table instead of a view over it"))
            }
            // A table that is not there yet is empty.
            Relation::Table { schema: folder, name, .. } => match self.table(folder, name).await? {
                // An older cut with other columns is told apart by the caller.
                Some(table) if matches!(self.cut, Cut::Now) => with_columns(name, table, schema),
                Some(table) => Ok(table),
                None => Ok(Arc::new(MemTable::try_new(Arc::clone(schema), vec![vec![]])?)),
            },
            Relation::Source(source, table) => {
                let found = self.project.sources.iter().find(|s| s.source == *source && s.name == *table);
                self.source(found.ok_or_else(|| Error::internal(format!("no source {source}.{table}")))?).await
            }
        }
    }
}

/// Whether `name` stands in `sql`, as a word if it is one. Both in lower case.
pub(super) fn mentions(sql: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if !name.chars().all(|c| is_word(c) || c == '.') {
        return sql.contains(name);
    }
    sql.match_indices(name).any(|(at, _)| {
        let (before, after) = (&sql[..at], &sql[at + name.len()..]);
        !before.ends_with(is_word) && !after.starts_with(is_word)
    })
}

/// Whether `sql`, which is in lower case, names the table, with its schema or without: `crm.users` is not `shop.users`.
pub(super) fn mentions_table(sql: &str, schema: &str, name: &str) -> bool {
    let name = name.to_lowercase();
    if !sql.contains(&name) {
        return false;
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let plain = sql.replace(['"', '`'], "");
    if !name.chars().all(|c| is_word(c) || c == '.') {
        return plain.contains(&name.replace(['"', '`'], ""));
    }
    let qualified = format!("{}.", schema.to_lowercase().replace(['"', '`'], ""));
    plain.match_indices(&name).any(|(at, _)| {
        let (before, after) = (&plain[..at], &plain[at + name.len()..]);
        let is_whole = !before.ends_with(is_word) && !after.starts_with(is_word);
        is_whole && (!before.ends_with('.') || before.ends_with(&qualified))
    })
}

/// Whether `schema.name` stands in `sql`, which is in lower case, quoted or not.
fn mentions_of(sql: &str, schema: &str, name: &str) -> bool {
    let (schema, name) = (schema.to_lowercase(), name.to_lowercase());
    sql.contains(&name) && mentions(&sql.replace(['"', '`'], ""), &format!("{schema}.{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_with_its_own_schema_or_with_none() {
        let named = |sql: &str| mentions_table(sql, "crm", "Users");
        assert!(named("select * from users"));
        assert!(named("select * from \"crm\".\"users\""));
        assert!(named("select * from lake.crm.users"));
        assert!(named("select users.id from x.y as users"));
        assert!(!named("select * from shop.users"));
        assert!(!named("select * from users_old"));
        assert!(!named("select a.users from t as a"));
    }
}

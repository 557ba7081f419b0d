//! Looking at a lake and keeping house in it, outside the epoch loop.

use arrow::datatypes::SchemaRef;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::full_name;
use super::pipeline::{FINGERPRINT, lake_options};
use super::positions::run_app;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::lake::Lake;
use crate::plan::{Compilation, CompiledModel};
use crate::project::answers::NO_TABLE;
use crate::project::{Connector, Deferred, Materialization, Model, Project, SourceTable};
use crate::source::OpenContext;
use crate::types::{Catalog, Positions, StandIn};

/// Schemas of the Delta tables that sources name, and of snapshots and incremental models, which keep columns they have; read from the
/// lake before compiling.
#[derive(Debug, Default)]
pub struct LakeCatalog {
    tables: BTreeMap<(String, String), SchemaRef>,
    /// By lake, schema and name.
    stand_ins: BTreeMap<(Option<String>, String, String), StandIn>,
}

impl Catalog for LakeCatalog {
    fn table_schema(&self, schema: &str, name: &str) -> Option<SchemaRef> {
        self.tables.get(&(schema.to_string(), name.to_string())).cloned()
    }

    fn table_in(&self, lake: Option<&str>, schema: &str, name: &str) -> Option<StandIn> {
        self.stand_ins.get(&(lake.map(str::to_string), schema.to_string(), name.to_string())).cloned()
    }
}

/// Looks up the tables that sources without a connector name, and those of snapshots and incremental models. The latter are left out
/// when they never ran or when `is_refreshed` says that the next run makes them anew.
pub async fn lake_catalog(env: &Env, project: &Project, is_refreshed: impl Fn(&Model) -> bool) -> Result<LakeCatalog> {
    let mut catalog = LakeCatalog::default();
    for table in project.models.iter().filter_map(|m| m.deferred.as_ref()) {
        let Deferred { schema, alias, lake, .. } = table;
        if let Some(found) = open_at(env, project, lake.as_deref())?.table(schema, alias).await? {
            let stand_in = StandIn { schema: found.schema(), retracts_nothing: !found.has_deletion_vectors() };
            catalog.stand_ins.insert((lake.clone(), schema.clone(), alias.clone()), stand_in);
        }
    }
    let snapshots = project.models.iter().filter(|m| m.config.snapshot.is_some());
    let snapshots = snapshots.map(|m| (m.schema.clone(), m.alias.clone()));
    let foreign: Vec<_> = project
        .sources
        .iter()
        .filter_map(|s| match &s.connector {
            Connector::Delta { schema, identifier, .. } => Some((schema.clone(), identifier.clone())),
            _ => None,
        })
        .chain(snapshots)
        .collect();
    let incremental = || project.models.iter().filter(|m| m.config.incremental.is_some() && !is_refreshed(m));
    if foreign.is_empty() && incremental().next().is_none() {
        return Ok(catalog);
    }
    let lake = open(env, project)?;
    for (schema, name) in foreign {
        if let Some(table) = lake.table(&schema, &name).await? {
            catalog.tables.insert((schema, name), table.schema());
        }
    }
    for model in incremental() {
        if let Some(table) = lake.table(&model.schema, &model.alias).await?
            && table.txn(&run_app(table.name())).is_some()
        {
            catalog.tables.insert((model.schema.clone(), model.alias.clone()), table.schema());
        }
    }
    Ok(catalog)
}

/// Planned instants (µs) of the last runs of models that are made at times, by model.
pub async fn last_runs(env: &Env, project: &Project) -> Result<BTreeMap<String, i64>> {
    let lake = open(env, project)?;
    let mut last = BTreeMap::new();
    for model in project.models.iter().filter(|m| m.materialized.is_scheduled()) {
        if let Some(table) = lake.table(&model.schema, &model.alias).await?
            && let Some(planned) = table.txn(&run_app(table.name()))
        {
            last.insert(model.name.clone(), planned);
        }
    }
    Ok(last)
}

/// Unique ids of the models whose table is in the lake.
pub async fn built_tables(env: &Env, project: &Project) -> Result<BTreeSet<String>> {
    let lake = open(env, project)?;
    let mut built = BTreeSet::new();
    for model in project.models.iter().filter(|m| m.materialized.has_table()) {
        if lake.table(&model.schema, &model.alias).await?.is_some() {
            built.insert(model.unique_id.clone());
        }
    }
    Ok(built)
}

/// The lake at `url`, for reading; None: the project's own.
pub(super) fn open_at(env: &Env, project: &Project, url: Option<&str>) -> Result<Lake> {
    Lake::open(env, url.unwrap_or(&project.target.lake), lake_options(project))
}

pub(super) fn open(env: &Env, project: &Project) -> Result<Lake> {
    Lake::open(env, &project.target.lake, lake_options(project))
}

/// What the next run does to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeState {
    Unchanged,
    New,
    Changed,
    Evolved,
    NeedsFullRefresh,
    Orphaned,
}

impl ChangeState {
    /// As `smelt plan` prints it.
    pub fn name(self) -> &'static str {
        match self {
            ChangeState::Unchanged => "unchanged",
            ChangeState::New => "new",
            ChangeState::Changed => "changed",
            ChangeState::Evolved => "schema evolved",
            ChangeState::NeedsFullRefresh => "needs full refresh",
            ChangeState::Orphaned => "orphaned",
        }
    }

    /// Whether the next run changes the table because of an edit.
    pub fn is_change(self) -> bool {
        !matches!(self, ChangeState::Unchanged | ChangeState::Orphaned)
    }
}

/// One line of `smelt plan`.
#[derive(Debug, Clone)]
pub struct PlannedChange {
    /// None for an orphan.
    pub model: Option<String>,
    pub table: String,
    pub state: ChangeState,
    pub detail: String,
}

/// Compares compiled models with the tables in the lake.
pub async fn plan_changes(env: &Env, project: &Project, compilation: &Compilation) -> Result<Vec<PlannedChange>> {
    let lake = open(env, project)?;
    let mut changes = Vec::new();
    for compiled in compilation.models.iter().filter(|m| has_table(m)) {
        let model = &compiled.model;
        let (state, detail) = match lake.table(&model.schema, &model.alias).await? {
            None => (ChangeState::New, "computed from all of its input".to_string()),
            Some(table) => {
                let same_sql = table.properties().get(FINGERPRINT) == Some(&compiled.fingerprint);
                let same_schema = *table.schema() == *compiled.schema;
                let streams = matches!(model.materialized, Materialization::StreamingTable | Materialization::Snapshot);
                let grows = compiled.schema.fields().len() >= table.schema().fields().len()
                    && table
                        .schema()
                        .fields()
                        .iter()
                        .zip(compiled.schema.fields())
                        .all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
                match (same_schema, same_sql, streams) {
                    (true, true, _) => (ChangeState::Unchanged, format!("{} rows", table.row_count())),
                    (true, false, true) => (ChangeState::Changed, "new rows follow the new SQL".to_string()),
                    (true, false, false) => {
                        (ChangeState::Changed, format!("{} rows are recomputed and compared", table.row_count()))
                    }
                    (false, _, true) if grows => (ChangeState::Evolved, "columns are added at the end".to_string()),
                    (false, _, true) => (
                        ChangeState::NeedsFullRefresh,
                        format!("{} rows have columns that cannot be evolved", table.row_count()),
                    ),
                    (false, _, false) => {
                        (ChangeState::Evolved, format!("{} rows are recomputed and replaced", table.row_count()))
                    }
                }
            }
        };
        changes.push(PlannedChange { model: Some(model.name.clone()), table: full_name(model), state, detail });
    }
    for (schema, name) in orphans(env, project).await? {
        changes.push(PlannedChange {
            model: None,
            table: format!("{schema}.{name}"),
            state: ChangeState::Orphaned,
            detail: "no model makes it any more; `smelt prune` drops it".to_string(),
        });
    }
    Ok(changes)
}

pub(super) fn has_table(compiled: &CompiledModel) -> bool {
    compiled.model.materialized.has_table()
}

/// Tables in the schemas of this target's models that neither a model nor a source nor a data test makes or names. Tables in other
/// schemas may be another project's or another target's.
pub async fn orphans(env: &Env, project: &Project) -> Result<Vec<(String, String)>> {
    let lake = open(env, project)?;
    let mut known: BTreeSet<(String, String)> = BTreeSet::new();
    for model in project.models.iter().filter(|m| m.materialized.has_table()) {
        known.insert((model.schema.clone(), model.alias.clone()));
        known.extend(model.side_tables().map(|name| (model.schema.clone(), name)));
    }
    for source in &project.sources {
        if let Connector::Delta { schema, identifier, .. } = &source.connector {
            known.insert((schema.clone(), identifier.clone()));
        }
    }
    known.extend(project.tests.iter().map(|test| test.config.audit.clone()));
    let schemas: BTreeSet<&str> = project.models.iter().map(|model| model.schema.as_str()).collect();
    let all = lake.tables().await?;
    Ok(all.into_iter().filter(|t| schemas.contains(t.0.as_str()) && !known.contains(t)).collect())
}

/// Tries to read the lake; what it found, for a person.
pub async fn probe_lake(env: &Env, project: &Project) -> Result<String> {
    let lake = open(env, project)?;
    let tables = lake.tables().await?.into_iter().filter(|t| t.0 != "_smelt").count();
    Ok(match lake.newest_instance().await? {
        Some(newest) => format!("{tables} tables; last written by instance {} on {}", newest.number, newest.host),
        None => format!("{tables} tables; never written"),
    })
}

/// Connects to a source that keeps no ledger; returns how many partitions it has.
pub async fn probe_source(env: &Env, project: &Project, table: &Arc<SourceTable>) -> Result<usize> {
    let context = OpenContext {
        env: env.clone(),
        ledger: None,
        project: project.name.clone(),
        target: project.target.name.clone(),
    };
    let mut source = crate::source::open(table, &context)?;
    Ok(source.open(&Positions::new(), true).await?.len())
}

/// An error for a table that a command needs and that is not there yet.
pub(super) fn never_run(model: &str) -> Error {
    Error::user(NO_TABLE, format!("{model} has no table yet")).with_hint("`smelt run` makes it")
}

/// How a model is maintained, for a person.
pub fn explain(env: &Env, project: &Project, model: &CompiledModel) -> Result<String> {
    let measured = super::measure::kept_of(project, &model.model.name);
    Ok(super::pipeline::planner(env, project)?.explain_in_full(model, measured.as_ref()))
}

//! The pipeline: every model of the project with its table, state and positions, opened from the lake.
//!
//! Opening reads the lake once (the only log replays there are), claims the tables for this instance by writing its number
//! into each, and leaves every circuit cold. The first epoch, without any source input, is recovery: see `epoch`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::backfill::Backfill;
use super::cell::Cell;
use super::compute::How;
use super::feed::Feed;
use super::jobs::Job;
use super::positions::{CLOCK, INSTANCE, merged, run_app, table_app};
use super::snapshot::{FailedRun, Following};
use super::states::{Kept, Since, Writing};
use super::watermark::Seen;
use super::{Options, full_name};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::lake::{CommitRequest, Epochs, FollowedTable, Lake, LakeOptions, Table, TableDocs, TableSpec};
use crate::operators::{Circuit, Expectations, Keyed};
use crate::plan::{Clock, Compilation, CompiledModel, Planner, PlannerOptions, Relation};
use crate::project::{Connector, Format, Materialization, OnError, OnForeignChange, OnViolation, Project, SourceTable};
use crate::types::{Positions, RejectKind, SignedBatch, reject_schema};

/// Table property: fingerprint of the SQL whose result the table holds.
pub(super) const FINGERPRINT: &str = "smelt.fingerprint";
/// Table property prefix: identity of a source (cluster and topic ids) the table has read.
pub(super) const IDENTITY: &str = "smelt.source.";

/// Where a model's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upstream {
    /// Another model, by index.
    Node(usize),
    /// A source, by index.
    Source(usize),
    /// A Delta table somebody else maintains, by index.
    Foreign(usize),
    /// The model's own table, in runs of an incremental model.
    This,
}

/// One model at work.
pub(super) struct Node {
    pub compiled: Arc<CompiledModel>,
    pub upstreams: Vec<Upstream>,
    /// Selected in this run; the others are only read.
    pub active: bool,
    /// None for views and ephemerals, which live in their readers.
    pub main: Option<Cell>,
    pub quarantine: Option<Cell>,
    /// Of a streaming table whose windows are written when they close.
    pub late: Option<Cell>,
    /// Latest event times of its rows and of what it reads, by `txn` name.
    pub seen: BTreeMap<String, Seen>,
    pub dead_letter: Option<Cell>,
    /// None: cold.
    pub circuit: Option<Circuit>,
    /// Whether the last epoch that changed its inputs rewrote them ([`super::bulk`]).
    pub rewritten: bool,
    /// How the last epoch that changed it computed it.
    pub last: How,
    /// State of a streaming table over a keyed changelog.
    pub keyed: Option<Keyed>,
    /// State of a continuous snapshot, beside its query's circuit.
    pub followed: Option<Following>,
    /// Its newest snapshot of state in the lake.
    pub kept: Option<Kept>,
    /// What came since that.
    pub since: Since,
    /// Its computation beside the live table.
    pub backfill: Option<Backfill>,
    /// That is to begin after this epoch.
    pub backfill_wanted: bool,
    /// It came to nothing: the epoch computes the model.
    pub backfill_failed: bool,
    /// Its query remembers nothing, but the logs do not say any more what its inputs have changed by.
    pub lost_history: bool,
    /// It sits this epoch out: its state, or that of a model it reads, is still being loaded or computed.
    pub waits: bool,
    /// It has no part in the stage at hand ([`super::stages`]).
    pub rests: bool,
    pub expectations: Expectations,
    /// Must be recomputed and compared with its table: never computed, edited, diverged, full refresh, recovery.
    pub refresh: Option<Refresh>,
    /// The schema changed: the refresh replaces the table.
    pub replace: bool,
    /// Stopped by an error, or by one upstream of it; retried at restart or edit.
    pub parked: Option<Error>,
    pub streams: bool,
    /// Of a model that is made at times.
    pub job: Option<Job>,
}

/// Why a model is recomputed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refresh {
    New,
    Edited,
    Asked,
    Behind,
    /// An input was replaced as a whole: the difference is not known.
    Replaced,
    Diverged,
}

impl Refresh {
    pub(super) fn name(self) -> &'static str {
        match self {
            Refresh::New => "new",
            Refresh::Edited => "edited",
            Refresh::Asked => "full refresh",
            Refresh::Behind | Refresh::Replaced => "behind",
            Refresh::Diverged => "diverged",
        }
    }
}

impl Node {
    pub(super) fn name(&self) -> &str {
        &self.compiled.model.name
    }

    /// Whether its table is there after this run, unless it stops.
    pub(super) fn is_made(&self) -> bool {
        self.active && self.compiled.model.materialized.has_table()
    }

    /// Whether its rows come and go with the clock.
    pub(super) fn is_timed(&self) -> bool {
        self.compiled.incremental.as_ref().is_ok_and(crate::plan::incremental::Node::is_timed)
    }

    /// Whether it has a table this run writes.
    pub(super) fn runs(&self) -> bool {
        self.active && !self.rests && self.main.is_some() && self.parked.is_none()
    }

    pub(super) fn cells(&mut self) -> impl Iterator<Item = (Option<RejectKind>, &mut Cell)> {
        // Side tables stand before their main table: that is the commit order.
        self.dead_letter
            .as_mut()
            .map(|c| (Some(RejectKind::DeadLetter), c))
            .into_iter()
            .chain(self.quarantine.as_mut().map(|c| (Some(RejectKind::Quarantine), c)))
            .chain(self.late.as_mut().map(|c| (Some(RejectKind::Late), c)))
            .chain(self.main.as_mut().map(|c| (None, c)))
    }
}

/// One source the selected models read.
pub(super) struct SourceState {
    pub table: Arc<SourceTable>,
    /// `source.table`: as it stands in position names.
    pub name: String,
    pub feed: Option<Feed>,
    /// How far epochs have taken it, by partition: what the feed hands over next begins there.
    pub taken: Positions,
}

/// Everything at work.
pub struct Pipeline {
    pub(super) env: Env,
    pub(super) project: Arc<Project>,
    pub(super) options: Options,
    pub(super) lake: Lake,
    pub(super) planner: Planner,
    pub(super) nodes: Vec<Node>,
    pub(super) sources: Vec<SourceState>,
    /// Delta tables that somebody else maintains.
    pub(super) foreign: Vec<FollowedTable>,
    /// What has changed in them that no epoch has taken yet; empty before the first look.
    pub(super) foreign_changes: Vec<Vec<SignedBatch>>,
    pub(super) epochs: Epochs,
    pub(super) epoch: i64,
    /// What `now()` was in the last epoch, of whichever process: µs.
    pub(super) clock: i64,
    /// Every source has been read to its end, and nothing comes any more; whether all windows close then.
    pub(super) ended: Option<bool>,
    pub(super) instance: i64,
    pub(super) partial: bool,
    /// Stages are still to come, or models of this run were stopped before their own.
    pub(super) unfinished: bool,
    /// Tables that somebody else maintains are read as they were when the pipeline was opened.
    pub(super) keeps_foreign: bool,
    /// Models whose table was found to differ from their state: recomputed after the restart.
    pub(super) diverged: BTreeSet<String>,
    pub(super) failed_runs: Vec<FailedRun>,
    /// Models whose runs have hooks ([`super::held`]).
    pub(super) hooked: BTreeSet<String>,
    /// Whether models may sit out epochs while their state is loaded: nobody waits for the end of this pipeline.
    pub(super) may_wait: bool,
    /// The snapshot of state that is being written.
    pub(super) writing: Option<Writing>,
    /// What whoever watches should hear.
    pub(super) notes: Vec<String>,
}

/// So much of the memory one table's locator may take, or none: it is looked up at every commit, and the rest must not starve. Tests have it
/// go to disk with its first rows.
const LOCATOR_SHARE: usize = if cfg!(test) { 1 << 12 } else { 4 };

/// Lake options of a project's target.
pub(super) fn lake_options(project: &Project) -> LakeOptions {
    LakeOptions {
        fsync: project.target.fsync,
        deleted_file_retention: project.target.deleted_file_retention,
        log_retention: project.target.log_retention,
        locator_memory: project.target.memory_limit.map_or(usize::MAX, |limit| limit / LOCATOR_SHARE),
        ..LakeOptions::default()
    }
}

/// The clock of `env`, as plans read it.
pub fn clock(env: &Env) -> Clock {
    let env = env.clone();
    Arc::new(move || env.now_micros())
}

/// The planner that executes: parallel, within the target's memory, with the real clock.
pub(super) fn planner(env: &Env, project: &Project) -> Result<Planner> {
    Planner::new(PlannerOptions {
        target_partitions: project.target.threads,
        memory_limit: project.target.memory_limit,
        clock: clock(env),
        ..PlannerOptions::new(project.dialect)
    })
}

impl Pipeline {
    /// Opens the lake for writing as instance `instance`. Tables that are missing are created; their contents come with the
    /// recovery epoch. In a run of stages all models rest until their stage begins, and tables are created then.
    pub(super) async fn open(
        env: &Env,
        project: Arc<Project>,
        compilation: &Compilation,
        options: Options,
        lake: Lake,
        instance: i64,
        diverged: &BTreeSet<String>,
    ) -> Result<Self> {
        let divided = options.divided;
        let epochs = Epochs::open(&lake).await?;
        let (epoch, row_positions) =
            epochs.last().map_or((0, BTreeMap::new()), |row| (row.epoch, row.positions.clone()));
        let mut pipeline = Pipeline {
            env: env.clone(),
            planner: planner(env, &project)?,
            nodes: Vec::new(),
            sources: Vec::new(),
            foreign: Vec::new(),
            foreign_changes: Vec::new(),
            epochs,
            epoch,
            clock: 0,
            ended: None,
            instance,
            partial: options.selected.is_some(),
            unfinished: false,
            keeps_foreign: divided,
            diverged: BTreeSet::new(),
            failed_runs: Vec::new(),
            hooked: BTreeSet::new(),
            may_wait: false,
            writing: None,
            notes: Vec::new(),
            project,
            options,
            lake,
        };
        let mut by_name: HashMap<String, usize> = HashMap::new();
        for compiled in &compilation.models {
            let node = pipeline.open_node(compiled, &by_name, &row_positions, diverged, divided).await?;
            by_name.insert(compiled.model.name.clone(), pipeline.nodes.len());
            pipeline.nodes.push(node);
        }
        let clocks = pipeline.nodes.iter().filter_map(|n| n.main.as_ref()?.consumed.get(CLOCK));
        pipeline.clock = clocks.copied().max().unwrap_or(0);
        pipeline.fence().await?;
        pipeline.find_what_is_behind().await?;
        pipeline.find_states().await?;
        Ok(pipeline)
    }

    /// The table of a model whose stage begins.
    pub(super) async fn open_late(&mut self, index: usize) -> Result<()> {
        let compiled = Arc::clone(&self.nodes[index].compiled);
        let by_name = self.nodes.iter().enumerate().map(|(i, node)| (node.name().to_string(), i)).collect();
        let row_positions = self.epochs.last().map_or_else(BTreeMap::new, |row| row.positions.clone());
        self.nodes[index] = self.open_node(&compiled, &by_name, &row_positions, &BTreeSet::new(), false).await?;
        Ok(())
    }

    async fn open_node(
        &mut self,
        compiled: &Arc<CompiledModel>,
        by_name: &HashMap<String, usize>,
        row_positions: &BTreeMap<String, i64>,
        diverged: &BTreeSet<String>,
        rests: bool,
    ) -> Result<Node> {
        let model = &compiled.model;
        let active = self.options.selected.as_ref().is_none_or(|names| names.contains(&model.name));
        let has_table = model.materialized.has_table();
        let mut upstreams = Vec::new();
        for input in &compiled.inputs {
            upstreams.push(match &input.relation {
                Relation::Model(name) if *name == model.name => Upstream::This,
                Relation::Model(name) => Upstream::Node(
                    *by_name.get(name).ok_or_else(|| Error::internal(format!("{name} stands after its reader")))?,
                ),
                Relation::Source(source, table) => Upstream::Source(self.source_index(source, table)?),
                Relation::Table { lake, schema, name } => self.foreign_index(lake.as_deref(), schema, name).await?,
            });
        }
        let expectations = Expectations::new(&compiled.expectations, &compiled.schema, self.planner.session_state())?;
        let mut node = Node {
            upstreams,
            active,
            main: None,
            quarantine: None,
            late: None,
            seen: BTreeMap::new(),
            dead_letter: None,
            circuit: None,
            rewritten: false,
            last: How::Idle,
            keyed: None,
            followed: None,
            kept: None,
            backfill: None,
            backfill_wanted: false,
            backfill_failed: false,
            lost_history: false,
            waits: false,
            rests,
            since: Since { written: self.env.now_micros(), rows: 0 },
            expectations,
            refresh: None,
            replace: false,
            parked: None,
            streams: model.materialized == Materialization::StreamingTable,
            job: None,
            compiled: Arc::clone(compiled),
        };
        if !has_table {
            return Ok(node);
        }
        let table = match self.lake.table(&model.schema, &model.alias).await? {
            Some(table) => Some(table),
            None if active && !rests => {
                node.refresh = Some(Refresh::New);
                Some(self.create_main(&node).await?)
            }
            None => None,
        };
        let Some(table) = table else { return Ok(node) };
        let fingerprint = table.properties().get(FINGERPRINT).cloned();
        match fingerprint {
            None => node.refresh = Some(Refresh::New),
            Some(old) if old != compiled.fingerprint => node.refresh = Some(Refresh::Edited),
            Some(_) => {}
        }
        let mut table = table;
        table.set_docs(docs(model));
        let consumed = merged(table.txns(), table.id(), row_positions);
        let last = consumed.get(&run_app(table.name())).copied();
        if active && *table.schema() != *compiled.schema {
            let rebuilt = self.is_refreshed(&node);
            let added_to = compiled.rerun.is_some() && last.is_some() && is_extended(&table.schema(), &compiled.schema);
            if added_to {
                table.evolve(&compiled.schema, BTreeMap::new())?;
            } else if (node.streams && !rebuilt) || model.materialized == Materialization::Snapshot {
                self.check_schema_change(&node, &table)?;
                table.evolve(&compiled.schema, BTreeMap::new())?;
            } else {
                node.replace = true;
            }
            node.refresh.get_or_insert(Refresh::Edited);
        }
        if active && self.was_changed_by_others(&node, &table).await {
            node.refresh.get_or_insert(Refresh::Diverged);
        }
        if diverged.contains(&model.name) {
            node.refresh = Some(Refresh::Diverged);
        }
        if active && self.is_refreshed(&node) {
            node.refresh = Some(Refresh::Asked);
        }
        if model.materialized.is_scheduled() {
            let asked = self.options.unfinished.contains(&model.name)
                || (compiled.rerun.is_some() && model.config.full_refresh == Some(true));
            let full = asked || node.refresh == Some(Refresh::Asked);
            let edited = node.refresh.take().is_some();
            let mut job = Job::new(model.config.schedule.clone(), last, edited);
            job.full = full;
            node.job = Some(job);
        }
        node.seen = super::watermark::known(&consumed, table.name(), self.env.now_micros());
        node.main = Some(Cell::new(table, consumed, self.env.now_micros()));
        if active {
            self.open_side_tables(&mut node, row_positions).await?;
        }
        Ok(node)
    }

    /// Whether a view is to be repaired because another program changed its rows while nobody ran.
    async fn was_changed_by_others(&self, node: &Node, table: &Table) -> bool {
        let model = &node.compiled.model;
        if node.streams || model.materialized.is_scheduled() || !self.repairs(model) {
            return false;
        }
        let versions = self.epochs.last().map(|row| &row.versions);
        match versions.and_then(|v| v.get(&format!("{}.{}", model.schema, table.name()))) {
            // A log that does not say any more is no proof.
            Some(known) if *known < table.version() => !table.only_ours_since(*known).await.unwrap_or(false),
            _ => false,
        }
    }

    /// Whether the model goes on when another program has changed its table.
    pub(super) fn repairs(&self, model: &crate::project::Model) -> bool {
        model.config.on_foreign_change.unwrap_or(self.project.target.on_foreign_change) == OnForeignChange::Repair
    }

    async fn create_main(&self, node: &Node) -> Result<Table> {
        let model = &node.compiled.model;
        let maintained = !node.compiled.append_only;
        let spec = TableSpec {
            schema: Arc::clone(&node.compiled.schema),
            partition_by: model.config.partition_by.clone(),
            properties: model.config.table_properties.clone(),
            deletion_vectors: model.config.deletion_vectors.unwrap_or(maintained),
            docs: docs(model),
        };
        self.lake.create_table(&model.schema, &model.alias, spec).await
    }

    /// Streaming tables keep their rows: only columns added at the end can be evolved.
    fn check_schema_change(&self, node: &Node, table: &Table) -> Result<()> {
        let (old, new) = (table.schema(), &node.compiled.schema);
        if is_extended(&old, new) {
            return Ok(());
        }
        Err(Error::user(
            "schema-change",
            format!(
                "{} {} holds {} rows with other columns than {} now selects; only columns added at the end can be evolved",
                node.compiled.model.materialized.name(),
                full_name(&node.compiled.model),
                table.row_count(),
                node.compiled.model.path.display()
            ),
        )
        .with_hint("keep the old columns in place, or run with --full-refresh to read its input again from the start"))
    }

    /// Whether `--full-refresh` is still to be done for it.
    fn is_refreshed(&self, node: &Node) -> bool {
        self.options.full_refresh && !self.options.begun.contains(node.name()) && self.may_refresh(node)
    }

    /// `--full-refresh` leaves out what cannot be had again, unless the model says `full_refresh: true`.
    pub(super) fn may_refresh(&self, node: &Node) -> bool {
        match node.compiled.model.config.full_refresh {
            Some(choice) => choice,
            None if node.compiled.snapshot.is_some() => false,
            None => !(node.streams && node.upstreams.iter().any(|u| self.is_kafka(*u))),
        }
    }

    fn is_kafka(&self, upstream: Upstream) -> bool {
        matches!(upstream, Upstream::Source(s) if matches!(self.sources[s].table.connector, Connector::Kafka(_)))
    }

    fn source_index(&mut self, source: &str, table: &str) -> Result<usize> {
        let name = format!("{source}.{table}");
        if let Some(index) = self.sources.iter().position(|s| s.name == name) {
            return Ok(index);
        }
        let table = self
            .project
            .sources
            .iter()
            .find(|s| s.source == source && s.name == table)
            .ok_or_else(|| Error::internal(format!("source {name} is not in the project")))?;
        self.sources.push(SourceState { table: Arc::clone(table), name, feed: None, taken: Positions::new() });
        Ok(self.sources.len() - 1)
    }

    async fn foreign_index(&mut self, lake: Option<&str>, schema: &str, name: &str) -> Result<Upstream> {
        let url = lake.unwrap_or(self.lake.url());
        let is = |f: &FollowedTable| f.lake.url() == url && f.schema == schema && f.name == name;
        let known = self.foreign.iter().position(is);
        if let Some(index) = known {
            return Ok(Upstream::Foreign(index));
        }
        let lake = match lake {
            Some(_) => super::admin::open_at(&self.env, &self.project, lake)?,
            None => self.lake.clone(),
        };
        self.foreign.push(lake.follow(schema, name).await?);
        Ok(Upstream::Foreign(self.foreign.len() - 1))
    }

    async fn open_side_tables(&self, node: &mut Node, row_positions: &BTreeMap<String, i64>) -> Result<()> {
        let quarantines = node.compiled.expectations.iter().any(|e| e.on_violation == OnViolation::Quarantine);
        let dead_letters = node.upstreams.iter().any(|u| match u {
            Upstream::Source(s) => {
                let table = &self.sources[*s].table;
                table.on_error == OnError::DeadLetter && table.format != Format::Raw
            }
            _ => false,
        });
        let model = Arc::clone(&node.compiled.model);
        if quarantines {
            node.quarantine = Some(self.open_side(&model, RejectKind::Quarantine, !node.streams, row_positions).await?);
        }
        if model.config.emit_on_close {
            node.late = Some(self.open_side(&model, RejectKind::Late, false, row_positions).await?);
        }
        if dead_letters {
            node.dead_letter = Some(self.open_side(&model, RejectKind::DeadLetter, false, row_positions).await?);
        }
        Ok(())
    }

    async fn open_side(
        &self,
        model: &crate::project::Model,
        kind: RejectKind,
        maintained: bool,
        row_positions: &BTreeMap<String, i64>,
    ) -> Result<Cell> {
        let name = kind.table(&model.alias);
        let table = match self.lake.table(&model.schema, &name).await? {
            Some(table) => table,
            None => {
                let spec = TableSpec {
                    schema: reject_schema(),
                    partition_by: Vec::new(),
                    properties: BTreeMap::new(),
                    deletion_vectors: maintained,
                    docs: TableDocs {
                        description: Some(format!("Rows rejected by {} ({})", model.name, kind.name())),
                        comments: None,
                    },
                };
                self.lake.create_table(&model.schema, &name, spec).await?
            }
        };
        let consumed = merged(table.txns(), table.id(), row_positions);
        Ok(Cell::new(table, consumed, self.env.now_micros()))
    }

    /// Writes this instance's number into every table it owns: an older instance's next put loses.
    pub(super) async fn fence(&mut self) -> Result<()> {
        let (instance, now) = (self.instance, self.env.now_micros());
        for index in 0..self.nodes.len() {
            if !self.nodes[index].active {
                continue;
            }
            let mut moved = None;
            for (kind, cell) in self.nodes[index].cells() {
                let table = cell.table()?;
                if table.txn(INSTANCE) == Some(instance) {
                    continue;
                }
                let (before, retention) = (table.version(), table.changed_retention());
                cell.properties.extend(retention);
                let after = cell.commit(vec![(INSTANCE.to_string(), instance)], serde_json::Map::new(), now).await?;
                if kind.is_none() {
                    moved = Some((before, after));
                }
            }
            if let Some((before, after)) = moved {
                self.moved_without_change(index, before, after)?;
            }
        }
        if let Some(table) = self.epochs.table()
            && table.txn(INSTANCE) != Some(instance)
        {
            let txns = vec![(INSTANCE.to_string(), instance)];
            let properties = table.changed_retention();
            table.commit(CommitRequest { txns, properties, ..CommitRequest::default() }).await?;
        }
        Ok(())
    }

    /// Table `index` went from version `before` to `after` without a change of data (fencing, compaction): readers that were
    /// up to date still are.
    pub(super) fn moved_without_change(&mut self, index: usize, before: i64, after: i64) -> Result<()> {
        let Some(cell) = &self.nodes[index].main else { return Ok(()) };
        let id = cell.table()?.id().to_string();
        for node in &mut self.nodes {
            if !node.upstreams.contains(&Upstream::Node(index)) {
                continue;
            }
            for (_, cell) in node.cells() {
                let app = table_app(&cell_name(cell)?, &id);
                if cell.consumed.get(&app) == Some(&before) {
                    cell.consumed.insert(app, after);
                    cell.unsaved = true;
                }
            }
        }
        Ok(())
    }

    /// Compares every table's positions with its upstreams' versions. A view that is behind is recomputed in the recovery
    /// epoch; a streaming table catches up there.
    pub(super) async fn find_what_is_behind(&mut self) -> Result<()> {
        for index in 0..self.nodes.len() {
            if !self.nodes[index].runs() {
                continue;
            }
            // What expired meanwhile is found by looking at all rows.
            if self.nodes[index].is_timed() {
                self.nodes[index].refresh.get_or_insert(Refresh::Behind);
            }
            for slot in 0..self.nodes[index].upstreams.len() {
                let table = match self.nodes[index].upstreams[slot] {
                    Upstream::Node(up) => match &self.nodes[up].main {
                        Some(cell) => cell.table()?,
                        None => return Err(upstream_missing(&self.nodes[index], &self.nodes[up])),
                    },
                    Upstream::Foreign(foreign) => match self.foreign[foreign].table() {
                        Some(table) => table,
                        None => continue,
                    },
                    Upstream::Source(_) | Upstream::This => continue,
                };
                let (id, version) = (table.id().to_string(), table.version());
                let Some(main) = &self.nodes[index].main else { continue };
                let app = table_app(&cell_name(main)?, &id);
                let up_to_date = match main.consumed.get(&app) {
                    Some(consumed) if *consumed == version => true,
                    // Commits without data (an instance's number, a compaction) are nothing to catch up with.
                    Some(consumed) if *consumed < version => {
                        matches!(table.changes(*consumed, version).await, Ok(changes) if changes.is_empty())
                    }
                    _ => false,
                };
                let node = &mut self.nodes[index];
                if up_to_date {
                    if let Some(main) = &mut node.main {
                        main.unsaved |= main.consumed.insert(app, version) != Some(version);
                    }
                } else if !node.streams && node.job.is_none() {
                    node.refresh.get_or_insert(Refresh::Behind);
                }
            }
        }
        Ok(())
    }
}

fn upstream_missing(reader: &Node, upstream: &Node) -> Error {
    let reader = reader.name();
    Error::user("upstream-missing", format!("{reader} reads {}, which has no table yet", upstream.name()))
        .with_hint(format!("run it too: --select +{reader}; or read the table of another run: --defer --state DIR"))
}

/// Whether `new` has the columns of `old` in their places, and perhaps more after them.
fn is_extended(old: &arrow::datatypes::SchemaRef, new: &arrow::datatypes::SchemaRef) -> bool {
    new.fields().len() >= old.fields().len()
        && old.fields().iter().zip(new.fields()).all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type())
}

/// The name a table has in position names: its own, without schema.
pub(super) fn cell_name(cell: &Cell) -> Result<String> {
    Ok(cell.table()?.name().to_string())
}

/// What `persist_docs` puts into the log of the model's table.
fn docs(model: &crate::project::Model) -> TableDocs {
    let persisted = model.config.persist_docs;
    let comments = || {
        let described = model.columns.iter().filter_map(|c| Some((c.name.clone(), c.description.clone()?)));
        described.collect()
    };
    TableDocs {
        description: persisted.relation.then(|| model.description.clone().unwrap_or_default()),
        comments: persisted.columns.then(comments),
    }
}

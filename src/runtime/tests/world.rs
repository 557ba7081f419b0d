//! A scenario at work: an in-memory store, and one pipeline after another on it.

use futures::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::files::{Feed, files};
use super::reference::{Held, Memory, Reference, Said, filtered, rejected};
use super::scenario::{Damage, ModelKind, Round, Scenario, Upkeep, Written, feed};
use crate::env::{CRASH_ENV, Env, FaultPlan, FaultyStore};
use crate::error::Error;
use crate::lake::Lake;
use crate::operators::tests::changes::Change;
use crate::operators::tests::contents::STOCK_LIMITS;
use crate::operators::tests::project::{NoTables, model, project, source, span};
use crate::operators::tests::tables::{TABLES, Table};
use crate::plan::{Compilation, Planner, PlannerOptions, compile};
use crate::project::*;
use crate::runtime::compute::EpochRuns;
use crate::runtime::feed::FeedEvent;
use crate::runtime::pipeline::{Pipeline, lake_options};
use crate::runtime::stages::{Course, Gate, Verdict};
use crate::runtime::{EpochReport, Options, Runner, instance, upkeep};
use crate::types::{Positions, RejectKind, SignedBatch, SourceBatch};
use object_store::{ObjectStore, ObjectStoreExt};

/// How a scenario ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Passed,
    /// Stock DataFusion cannot execute one of its queries.
    Skipped,
}

pub struct World {
    scenario: Scenario,
    store: FaultyStore,
    now: i64,
    starts: u64,
    written: BTreeMap<String, Written>,
    project: Arc<Project>,
    compilation: Arc<Compilation>,
    reference: Reference,
    said: Said,
    memories: BTreeMap<String, Memory>,
    /// Events of an epoch that crashed, and the lake as the crash left it.
    crashed: Option<(Vec<Change>, Held)>,
    /// Epochs that a crash came before.
    waiting: Vec<Vec<Change>>,
    next_file: usize,
    /// Stored state as it was before this round and before the one before.
    states: [Vec<(object_store::path::Path, bytes::Bytes)>; 2],
    /// Models that sat the last epoch out.
    late: BTreeSet<String>,
    /// Models that were computed beside their tables so far.
    pub backfilled: usize,
    /// Models that went on with stored state so far.
    pub restored: usize,
    /// How often circuits have forgotten groups so far, and how many forgotten buckets were read again.
    pub forgotten: (u64, u64),
    /// How models were computed in the last epoch of `slow_edit` in which they were, and from how many rows.
    pub how: BTreeMap<String, (crate::runtime::How, usize)>,
    /// Models that the last driver stopped, with the codes of their errors.
    pub summary_parked: BTreeMap<String, &'static str>,
}

/// Lets every model pass.
struct Open;

#[async_trait::async_trait(?Send)]
impl Gate for Open {
    async fn pass(&self, _: usize, _: &[(String, Error)]) -> crate::error::Result<Verdict> {
        Ok(Verdict::default())
    }
}

type Outcome<T> = Result<T, String>;

fn text(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

impl World {
    pub fn new(scenario: Scenario) -> Outcome<Self> {
        let store = FaultyStore::new(FaultPlan::default());
        let (project, compilation) = compiled(&scenario, &BTreeMap::new(), false)?;
        let reference = reference(&scenario, &BTreeMap::new())?;
        Ok(World {
            store,
            // The in-memory store stamps objects with the real time: simulated time starts there.
            now: Env::real().now_micros(),
            starts: 0,
            written: BTreeMap::new(),
            project: Arc::new(project),
            compilation: Arc::new(compilation),
            reference,
            said: Said::new(scenario.keyed),
            memories: BTreeMap::new(),
            crashed: None,
            waiting: Vec::new(),
            next_file: 0,
            states: Default::default(),
            late: BTreeSet::new(),
            backfilled: 0,
            restored: 0,
            forgotten: (0, 0),
            how: BTreeMap::new(),
            summary_parked: BTreeMap::new(),
            scenario,
        })
    }

    pub async fn run(&mut self) -> Outcome<Ended> {
        for (number, round) in self.scenario.rounds.clone().into_iter().enumerate() {
            let ended = self.round(&round).await.map_err(|e| format!("round {number}: {e}"))?;
            if ended == Ended::Skipped {
                return Ok(ended);
            }
        }
        Ok(Ended::Passed)
    }

    /// A process of its own; time has passed since the last one.
    fn env(&mut self, crash: Option<&str>) -> Env {
        self.starts += 1;
        self.now += 3 * 3600 * 1_000_000;
        let vars = crash.map(|point| (CRASH_ENV.to_string(), point.to_string()));
        let seed = self.scenario.seed.wrapping_mul(1000) + self.starts;
        Env::simulated(seed, self.now, vars.into_iter().collect(), self.store.clone())
    }

    fn edit(&mut self, models: &[Written]) -> Outcome<()> {
        self.written.extend(models.iter().map(|m| (m.name.clone(), m.clone())));
        let (project, compilation) = compiled(&self.scenario, &self.written, false)?;
        (self.project, self.compilation) = (Arc::new(project), Arc::new(compilation));
        self.reference = reference(&self.scenario, &self.written)?;
        Ok(())
    }

    async fn round(&mut self, round: &Round) -> Outcome<Ended> {
        if !round.models.is_empty() {
            self.edit(&round.models)?;
        }
        for upkeep in &round.upkeep {
            let env = self.env(None);
            match upkeep {
                Upkeep::Optimize => {
                    upkeep::optimize(&env, &self.project, &self.compilation, None, false, &|_| {})
                        .await
                        .map_err(text)?;
                }
                Upkeep::Vacuum => {
                    upkeep::vacuum(&env, &self.project, &self.compilation, None, false, &|_| {}).await.map_err(text)?;
                }
            }
        }
        self.damage(round.damage).await;
        self.late.clear();
        match round.driver {
            // Events that a crash caught may have met other dimensions than this round's.
            Some(files) if self.crashed.is_none() => self.drive(round, files).await,
            _ => self.step(round).await,
        }
    }

    /// As the next start of `smelt up`, without any input: another program deletes a row of `model`, and smelt goes on. Whether that was
    /// noticed; the table holds its query again then.
    pub async fn overtaken(&mut self, model: &str) -> bool {
        let env = self.env(None);
        let mut pipeline = self.open(&env).await.unwrap();
        pipeline.run_epoch(HashMap::new(), EpochRuns::None, true).await.unwrap();
        assert!(!pipeline.look_for_others().await);
        let lake = Lake::open(&self.env(None), &self.project.target.lake, lake_options(&self.project)).unwrap();
        let compiled = self.compilation.models.iter().find(|m| m.model.name == model).unwrap();
        delete_one(&lake, &compiled.model.schema, &compiled.model.alias).await;
        if !pipeline.look_for_others().await {
            return false;
        }
        let repaired = pipeline.run_epoch(HashMap::new(), EpochRuns::None, false).await.unwrap_err();
        assert_eq!(repaired.kind(), crate::error::ErrorKind::Diverged, "{repaired:?}");
        let diverged = std::mem::take(&mut pipeline.diverged);
        drop(pipeline);
        let env = self.env(None);
        let lake = Lake::open(&env, &self.project.target.lake, lake_options(&self.project)).unwrap();
        let instance = instance::claim(&env, &lake, false).await.unwrap().number;
        let (project, options) = (Arc::clone(&self.project), Options::default());
        let opened = Pipeline::open(&env, project, &self.compilation, options, lake, instance, &diverged).await;
        opened.unwrap().run_epoch(HashMap::new(), EpochRuns::None, true).await.unwrap();
        self.check(&[]).await.unwrap();
        true
    }

    /// As the next start of `smelt up`, with state that takes its time to load: epochs of `changes` while it is loaded, then all is
    /// awaited. Rows of `bronze` and of the models above it after each epoch.
    pub async fn slow_start(&mut self, bronze: &str, above: &[&str], changes: Vec<Vec<Change>>) -> Vec<Vec<u64>> {
        let env = self.env(None);
        let mut pipeline = self.open(&env).await.unwrap();
        pipeline.may_wait = true;
        let (gate, opened) = tokio::sync::watch::channel(false);
        for node in &mut pipeline.nodes {
            let Some(loading) = node.kept.as_mut().and_then(|kept| kept.loading.take()) else { continue };
            let mut opened = opened.clone();
            let slow = tokio::spawn(async move {
                opened.wait_for(|opened| *opened).await.unwrap();
                loading.await.unwrap()
            });
            node.kept.as_mut().unwrap().loading = Some(slow);
        }
        let versions = |pipeline: &Pipeline| -> Vec<u64> {
            let rows = |name: &&str| {
                let node = pipeline.nodes.iter().find(|n| n.name() == *name).unwrap();
                node.main.as_ref().unwrap().table().unwrap().row_count()
            };
            std::iter::once(&bronze).chain(above).map(rows).collect()
        };
        let mut seen = Vec::new();
        pipeline.run_epoch(HashMap::new(), EpochRuns::None, true).await.unwrap();
        for changes in &changes {
            self.write(changes).await;
            let read = read_all(&mut pipeline).await.unwrap();
            pipeline.run_epoch(read, EpochRuns::None, false).await.unwrap();
            assert!(!pipeline.has_woken());
            seen.push(versions(&pipeline));
        }
        gate.send(true).unwrap();
        tasks_of(&pipeline).await;
        assert!(pipeline.has_woken());
        let report = pipeline.run_epoch(HashMap::new(), EpochRuns::None, false).await.unwrap();
        self.restored += restored(&report);
        seen.push(versions(&pipeline));
        let all: Vec<Change> = changes.into_iter().flatten().collect();
        self.check(&all).await.unwrap();
        seen
    }

    /// As the next start of `smelt up` with edited models that take their time to be computed: epochs of `changes` meanwhile, then all
    /// is awaited. Rows and version of the tables of `watched` after each epoch.
    pub async fn slow_edit(
        &mut self,
        models: &[Written],
        watched: &[&str],
        changes: Vec<Vec<Change>>,
    ) -> Vec<Vec<(u64, i64)>> {
        self.slow(models, &[], watched, changes).await
    }

    /// The same, with models that lose their state between two epochs.
    pub async fn slow(
        &mut self,
        models: &[Written],
        lost: &[(&str, [Vec<Change>; 2])],
        watched: &[&str],
        changes: Vec<Vec<Change>>,
    ) -> Vec<Vec<(u64, i64)>> {
        self.edit(models).unwrap();
        let env = self.env(None);
        let mut pipeline = self.open(&env).await.unwrap();
        pipeline.may_wait = true;
        let seen = |pipeline: &Pipeline| -> Vec<(u64, i64)> {
            let table = |name: &&str| {
                let node = pipeline.nodes.iter().find(|n| n.name() == *name).unwrap();
                let table = node.main.as_ref().unwrap().table().unwrap();
                (table.row_count(), table.version())
            };
            watched.iter().map(table).collect()
        };
        pipeline.run_epoch(HashMap::new(), EpochRuns::None, true).await.unwrap();
        for (name, changes) in lost {
            // Everything has its state by then.
            tasks_of(&pipeline).await;
            for change in changes {
                self.write(change).await;
                let read = read_on(&mut pipeline).await.unwrap();
                pipeline.run_epoch(read, EpochRuns::None, false).await.unwrap();
                if pipeline.nodes.iter().all(|node| !node.waits) {
                    pipeline.nodes.iter_mut().filter(|node| node.name() == *name).for_each(|node| node.circuit = None);
                }
            }
        }
        pipeline.start_backfill().await.unwrap();
        let (gate, opened) = tokio::sync::watch::channel(false);
        for node in &mut pipeline.nodes {
            if let Some(backfill) = &mut node.backfill {
                backfill.delay(opened.clone());
            }
        }
        let mut all = vec![seen(&pipeline)];
        for changes in &changes {
            self.write(changes).await;
            let read = read_on(&mut pipeline).await.unwrap();
            pipeline.run_epoch(read, EpochRuns::None, false).await.unwrap();
            pipeline.start_backfill().await.unwrap();
            assert!(!pipeline.has_woken());
            all.push(seen(&pipeline));
        }
        gate.send(true).unwrap();
        while pipeline.nodes.iter().any(|node| node.waits) {
            tasks_of(&pipeline).await;
            assert!(pipeline.has_woken());
            let report = pipeline.run_epoch(HashMap::new(), EpochRuns::None, false).await.unwrap();
            let parked: Vec<_> = pipeline.nodes.iter().filter_map(|node| node.parked.as_ref()).collect();
            assert!(parked.is_empty(), "{parked:?}");
            for model in report.models.iter().filter(|m| m.how != crate::runtime::How::Idle) {
                self.how.insert(model.model.clone(), (model.how, model.rows_in));
            }
            pipeline.start_backfill().await.unwrap();
            all.push(seen(&pipeline));
        }
        let events: Vec<Change> = lost.iter().flat_map(|(_, changes)| changes.concat()).collect();
        self.check(&[events, changes.concat()].concat()).await.unwrap();
        all
    }

    /// What is stored of state, and what becomes of it.
    async fn damage(&mut self, damage: Option<Damage>) {
        let folder = object_store::path::Path::from("lake/_smelt/state");
        let found: Vec<_> = self.store.list(Some(&folder)).try_collect().await.unwrap();
        let mut present = Vec::new();
        for object in found {
            let bytes = self.store.get(&object.location).await.unwrap().bytes().await.unwrap();
            present.push((object.location, bytes));
        }
        let older = std::mem::replace(&mut self.states, [Vec::new(), present.clone()]);
        let [_, before] = older;
        self.states[0].clone_from(&before);
        let put = async |path: &object_store::path::Path, bytes: bytes::Bytes| {
            self.store.put(path, bytes.into()).await.unwrap();
        };
        match damage {
            None => {}
            Some(Damage::Flip(at)) => {
                for (path, bytes) in present {
                    let mut bytes = bytes.to_vec();
                    let at = at as usize % (bytes.len() * 8);
                    bytes[at / 8] ^= 1 << (at % 8);
                    put(&path, bytes.into()).await;
                }
            }
            Some(Damage::Cut(at)) => {
                for (path, bytes) in present {
                    put(&path, bytes.slice(..at as usize % bytes.len())).await;
                }
            }
            Some(Damage::Delete | Damage::Older) => {
                for (path, _) in present {
                    self.store.delete(&path).await.unwrap();
                }
                if damage == Some(Damage::Older) {
                    for (path, bytes) in before {
                        put(&path, bytes).await;
                    }
                }
            }
        }
    }

    /// Every other run goes stage by stage, cut anywhere in the graph's order.
    fn stages(&self) -> Option<Vec<BTreeSet<String>>> {
        let seed = self.scenario.seed.wrapping_add(self.starts);
        let is_last = |i: usize| seed.wrapping_mul(2654435761).rotate_left(i as u32 % 64).is_multiple_of(3);
        let mut stages = vec![BTreeSet::new()];
        for (i, model) in self.project.models.iter().enumerate() {
            stages.last_mut()?.insert(model.name.clone());
            if is_last(i) {
                stages.push(BTreeSet::new());
            }
        }
        seed.is_multiple_of(2).then_some(stages)
    }

    /// One `smelt run` over all files of the round.
    async fn drive(&mut self, round: &Round, files: usize) -> Outcome<Ended> {
        let changes: Vec<Change> =
            std::mem::take(&mut self.waiting).into_iter().chain(round.epochs.clone()).flatten().collect();
        self.write(&changes).await;
        let mut project = (*self.project).clone();
        project.target.epoch_max_files = files;
        let runner = Runner {
            env: self.env(None),
            project: Arc::new(project),
            compilation: Arc::clone(&self.compilation),
            options: Options::default(),
            watcher: self.watcher(round),
        };
        round.faults.iter().for_each(|fault| self.store.fail_next_put("_delta_log", *fault));
        let summary = match self.stages() {
            None => runner.run().await,
            Some(stages) => runner.run_in_stages(&stages, &Open).await,
        };
        let summary = summary.map_err(text)?;
        self.store.land_late().await;
        self.summary_parked = summary.parked.iter().map(|(name, error)| (name.clone(), error.code())).collect();
        if round.foreign.is_some() && !self.scenario.repair {
            return Ok(Ended::Passed);
        }
        if let Some(ended) = parked(summary.parked.iter().map(|(_, e)| e))? {
            return Ok(ended);
        }
        if round.foreign.as_ref().is_some_and(|(model, _)| TABLES.iter().any(|t| t.name == model)) {
            // A streaming table keeps what it was given: its readers equal their query over that.
            let (held, rejects) = self.held().await;
            self.reference.check(&held, &rejects, None, &self.late).await?;
            return Ok(Ended::Passed);
        }
        self.check(&changes).await?;
        Ok(Ended::Passed)
    }

    /// Who changes a table behind smelt's back.
    fn watcher(&mut self, round: &Round) -> crate::runtime::Watcher {
        let Some((name, after)) = round.foreign.clone() else { return Arc::new(|_| ()) };
        let model = &self.compilation.models.iter().find(|m| m.model.name == name).unwrap().model;
        let (schema, alias) = (model.schema.clone(), model.alias.clone());
        let (env, url, options) = (self.env(None), self.project.target.lake.clone(), lake_options(&self.project));
        let epochs = std::sync::atomic::AtomicUsize::new(0);
        Arc::new(move |event| {
            let counted = matches!(event, crate::runtime::Event::Epoch { .. });
            if !counted || epochs.fetch_add(1, std::sync::atomic::Ordering::Relaxed) != after {
                return;
            }
            let change = async {
                // Without an instance number: as any writer of Delta.
                let lake = Lake::open(&env, &url, options.clone()).unwrap();
                delete_one(&lake, &schema, &alias).await;
            };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(change));
        })
    }

    /// Recovery, then every epoch by itself.
    async fn step(&mut self, round: &Round) -> Outcome<Ended> {
        self.waiting.extend(round.epochs.iter().cloned());
        let env = self.env(round.crash.as_deref());
        let mut pipeline = match self.open(&env).await {
            Ok(pipeline) => pipeline,
            Err(_) if round.crash.is_some() => return self.crash(&[]).await,
            Err(e) => return Err(text(e)),
        };
        pipeline.may_wait = round.live;
        let recovered = pipeline.run_epoch(HashMap::new(), EpochRuns::None, true).await;
        self.note(&mut pipeline, &recovered).await?;
        if let Some(ended) = self.ended(&pipeline, recovered, round, &[]).await? {
            return Ok(ended);
        }
        if self.crashed.is_none() {
            self.check(&[]).await?;
        } else {
            // Views equal their query over whatever their inputs hold, also where a crash left these half-way.
            let (held, rejects) = self.held().await;
            self.reference.check(&held, &rejects, None, &self.late).await?;
        }
        if self.crashed.is_some() {
            // What the crash left unread.
            self.waiting.insert(0, Vec::new());
        }
        let mut done = 0;
        loop {
            if round.keep == Some(done) {
                pipeline.keep_all_states().await.map_err(text)?;
            }
            done += 1;
            if self.waiting.is_empty() {
                break;
            }
            let changes = self.waiting.remove(0);
            self.write(&changes).await;
            let read = if round.live { read_on(&mut pipeline).await } else { read_all(&mut pipeline).await };
            let report = match read {
                Ok(read) => pipeline.run_epoch(read, EpochRuns::None, false).await,
                Err(e) => Err(e),
            };
            self.note(&mut pipeline, &report).await?;
            if let Some(ended) = self.ended(&pipeline, report, round, &changes).await? {
                return Ok(ended);
            }
            self.check(&changes).await?;
            // Sometimes a task has ended by the next epoch, sometimes not.
            if self.scenario.seed.is_multiple_of(2) {
                tasks_of(&pipeline).await;
            }
        }
        while !self.late.is_empty() {
            tasks_of(&pipeline).await;
            let report = pipeline.run_epoch(HashMap::new(), EpochRuns::None, false).await;
            self.note(&mut pipeline, &report).await?;
            if let Some(ended) = self.ended(&pipeline, report, round, &[]).await? {
                return Ok(ended);
            }
            self.check(&[]).await?;
        }
        for circuit in pipeline.nodes.iter_mut().filter_map(|node| node.circuit.as_mut()) {
            let (forgot, remembered) = circuit.forgotten();
            self.forgotten = (self.forgotten.0 + forgot, self.forgotten.1 + remembered);
        }
        let drained = pipeline.drain_maintenance(Duration::from_secs(60)).await;
        drained.or_else(|e| if round.crash.is_some() { Ok(()) } else { Err(text(e)) })?;
        Ok(Ended::Passed)
    }

    /// After an epoch: who sat it out, and what begins now.
    async fn note(&mut self, pipeline: &mut Pipeline, report: &crate::error::Result<EpochReport>) -> Outcome<()> {
        self.late.clear();
        let Ok(report) = report else { return Ok(()) };
        self.restored += restored(report);
        self.late = pipeline.nodes.iter().filter(|node| node.waits).map(|node| node.name().to_string()).collect();
        let running = |pipeline: &Pipeline| pipeline.nodes.iter().filter(|node| node.backfill.is_some()).count();
        let before = running(pipeline);
        pipeline.start_backfill().await.map_err(text)?;
        self.backfilled += running(pipeline) - before;
        Ok(())
    }

    /// Whether the round ends with this epoch: crashed as it should, or at a query that stock cannot execute.
    async fn ended(
        &mut self,
        pipeline: &Pipeline,
        report: crate::error::Result<EpochReport>,
        round: &Round,
        changes: &[Change],
    ) -> Outcome<Option<Ended>> {
        let parked = parked(pipeline.nodes.iter().filter_map(|n| n.parked.as_ref()));
        match (report, parked, &round.crash) {
            (_, Ok(Some(skipped)), _) => Ok(Some(skipped)),
            (Ok(_), Ok(None), _) => Ok(None),
            (_, _, Some(_)) => self.crash(changes).await.map(Some),
            (Err(e), _, None) => Err(text(e)),
            (_, Err(e), None) => Err(e),
        }
    }

    /// The process is gone; what it left is remembered.
    async fn crash(&mut self, changes: &[Change]) -> Outcome<Ended> {
        let (held, _) = self.held().await;
        self.crashed = Some((changes.to_vec(), held));
        Ok(Ended::Passed)
    }

    async fn open(&self, env: &Env) -> crate::error::Result<Pipeline> {
        let lake = Lake::open(env, &self.project.target.lake, lake_options(&self.project))?;
        let instance = instance::claim(env, &lake, false).await?.number;
        let (project, none) = (Arc::clone(&self.project), BTreeSet::new());
        Pipeline::open(env, project, &self.compilation, Options::default(), lake, instance, &none).await
    }

    /// Puts the changes' files where the sources look for them.
    async fn write(&mut self, changes: &[Change]) {
        self.said.hear(changes);
        for table in &TABLES {
            for text in files(table.name, feed(table.name, self.scenario.keyed), changes) {
                self.next_file += 1;
                let path = format!("in/{}/{:06}.json", table.name, self.next_file);
                self.store.put(&path.into(), text.into()).await.unwrap();
            }
        }
    }

    /// Everything is consumed: every table holds what it must.
    async fn check(&mut self, changes: &[Change]) -> Outcome<()> {
        let (held, rejects) = self.held().await;
        self.reference.check(&held, &rejects, Some(&self.said), &self.late).await?;
        let crashed = self.crashed.take();
        let mut events: Vec<Change> = crashed.iter().flat_map(|(changes, _)| changes.clone()).collect();
        events.extend(changes.iter().cloned());
        let mut dimensions = vec![&held];
        dimensions.extend(crashed.iter().map(|(_, held)| held));
        for name in self.reference.streams() {
            let memory = self.memories.entry(name.clone()).or_default();
            memory.check(&self.reference, &name, &events, &dimensions, &held).await?;
        }
        Ok(())
    }

    /// What the lake holds: every model's rows, and how many stand in quarantine and dead letters.
    async fn held(&mut self) -> (Held, BTreeMap<String, u64>) {
        let env = self.env(None);
        let lake = Lake::open(&env, &self.project.target.lake, lake_options(&self.project)).unwrap();
        let (mut held, mut rejects) = (Held::new(), BTreeMap::new());
        for compiled in &self.compilation.models {
            let model = &compiled.model;
            // A crash may have come before the table.
            let Some(table) = lake.table(&model.schema, &model.alias).await.unwrap() else { continue };
            let rows: Vec<_> = table.committed_snapshot().rows().try_collect().await.unwrap();
            assert_eq!(rows.iter().map(|b| b.num_rows() as u64).sum::<u64>(), table.row_count(), "{}", model.name);
            held.insert(model.name.clone(), rows);
            for (kind, key) in [(RejectKind::Quarantine, ""), (RejectKind::DeadLetter, " dead")] {
                if let Some(side) = lake.table(&model.schema, &kind.table(&model.alias)).await.unwrap() {
                    rejects.insert(format!("{}{key}", model.name), side.row_count());
                }
            }
        }
        (held, rejects)
    }
}

/// Deletes a row of a table, as any writer of Delta.
async fn delete_one(lake: &Lake, schema: &str, alias: &str) {
    let mut table = lake.table(schema, alias).await.unwrap().unwrap();
    let rows: Vec<_> = table.committed_snapshot().rows().try_collect().await.unwrap();
    let one = rows.iter().find(|b| b.num_rows() > 0).unwrap().slice(0, 1);
    table.stage(&[SignedBatch::retracts(one)]).await.unwrap();
    table.commit(Default::default()).await.unwrap();
}

/// Waits for state that is being loaded and for models that are computed beside their tables.
async fn tasks_of(pipeline: &Pipeline) {
    let loads = |index: usize| {
        let loading = pipeline.nodes[index].kept.as_ref().and_then(|kept| kept.loading.as_ref());
        loading.is_some_and(|task| !task.is_finished())
    };
    let computes = |index: usize| pipeline.nodes[index].backfill.is_some() && !pipeline.is_backfill_done(index);
    while (0..pipeline.nodes.len()).any(|index| loads(index) || computes(index)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Models that an epoch went on with from stored state.
fn restored(report: &EpochReport) -> usize {
    report.models.iter().filter(|m| m.how == crate::runtime::How::Restored).count()
}

/// Errors of models that stopped: none, or only those of stock DataFusion.
fn parked<'a>(errors: impl Iterator<Item = &'a crate::error::Error>) -> Outcome<Option<Ended>> {
    let mut skipped = None;
    for error in errors {
        if STOCK_LIMITS.iter().any(|limit| error.message().contains(limit)) {
            skipped = Some(Ended::Skipped);
        } else if error.code() != "upstream-parked" {
            return Err(text(error));
        }
    }
    Ok(skipped)
}

/// Everything the sources have for the pipeline, source by source.
pub async fn read_all(pipeline: &mut Pipeline) -> crate::error::Result<HashMap<usize, Vec<SourceBatch>>> {
    read(pipeline, false).await
}

/// The same as feeds hand it over that go on: each begins where it was, also where a model that sits epochs out is further back.
async fn read_on(pipeline: &mut Pipeline) -> crate::error::Result<HashMap<usize, Vec<SourceBatch>>> {
    read(pipeline, true).await
}

/// What of a batch lies behind `taken`.
fn behind(taken: &Positions, batch: SourceBatch) -> Option<SourceBatch> {
    let at = taken.get(&batch.partition).copied().unwrap_or(0);
    let from = batch.offsets.values().partition_point(|o| *o < at);
    let rejects = batch.rejects.map(|(rows, offsets)| {
        let from = offsets.values().partition_point(|o| *o < at);
        (rows.slice(from, rows.num_rows() - from), offsets.slice(from, offsets.len() - from))
    });
    (batch.next > at).then(|| SourceBatch {
        rows: crate::runtime::compute::slice(&batch.rows, from, batch.offsets.len() - from),
        offsets: batch.offsets.slice(from, batch.offsets.len() - from),
        rejects: rejects.filter(|(rows, _)| rows.num_rows() > 0),
        ..batch
    })
}

async fn read(pipeline: &mut Pipeline, on: bool) -> crate::error::Result<HashMap<usize, Vec<SourceBatch>>> {
    let taken: Vec<Positions> = pipeline.sources.iter().map(|source| source.taken.clone()).collect();
    pipeline.start_sources(true, &mut Course::undivided()).await?;
    let mut read = HashMap::new();
    for (index, source) in pipeline.sources.iter_mut().enumerate() {
        let Some(feed) = &mut source.feed else { continue };
        while let Some(event) = feed.receiver.recv().await {
            match event {
                FeedEvent::Batches(batches) => read.entry(index).or_insert_with(Vec::new).extend(batches),
                FeedEvent::End => break,
                FeedEvent::Failed(error) => return Err(error),
            }
        }
        if let (true, taken) = (on, &taken[index])
            && !taken.is_empty()
        {
            let batches = read.remove(&index).unwrap_or_default();
            read.insert(index, batches.into_iter().filter_map(|batch| behind(taken, batch)).collect());
            source.taken.clone_from(taken);
        }
    }
    Ok(read)
}

fn bronze(scenario: &Scenario) -> (Vec<SourceTable>, Vec<Model>) {
    let source = |table: &Table| {
        let path = format!("memory://in/{}/*.json", table.name);
        match feed(table.name, scenario.keyed) {
            Feed::Appended => source("raw", table, &path, Format::Json, &[]),
            Feed::Signed => source("raw", table, &path, Format::DebeziumJson, &[]),
            Feed::Keyed => source("raw", table, &path, Format::DebeziumJson, &[table.columns[0].0]),
        }
    };
    let model = |table: &Table| {
        let columns = table.columns.iter().map(|c| c.0).collect::<Vec<_>>().join(", ");
        let filter = if table.name == "a" && scenario.seed.is_multiple_of(2) { " where av is not null" } else { "" };
        let sql = format!("select {columns} from stream \"raw\".\"{}\"{filter}", table.name);
        let input = Dependency::Source("raw".into(), table.name.into());
        let mut model = model("src", table.name, &sql, Materialization::StreamingTable, vec![input]);
        if let (Some(minutes), true) = (scenario.watermark, table.columns.iter().any(|c| c.0 == "ts")) {
            let (delay, idle_timeout) = (Duration::from_secs(minutes * 60), Duration::from_secs(30));
            model.config.watermark = Some(Watermark { column: "ts".into(), delay, idle_timeout });
        }
        model
    };
    (TABLES.iter().map(source).collect(), TABLES.iter().map(model).collect())
}

/// The scenario's project; as reference with expectations in its SQL.
fn compiled(
    scenario: &Scenario,
    written: &BTreeMap<String, Written>,
    as_reference: bool,
) -> Outcome<(Project, Compilation)> {
    let (sources, mut models) = bronze(scenario);
    let reads = |sql: &str| {
        let tables = TABLES.iter().map(|t| (t.name.to_string(), format!("\"src\".\"{}\"", t.name)));
        let views = written.keys().map(|n| (n.clone(), format!("\"m\".\"{n}\"")));
        let read = tables.chain(views).filter(|(_, text)| sql.contains(text.as_str()));
        let sources = TABLES.iter().filter(|t| sql.contains(&format!("\"raw\".\"{}\"", t.name)));
        let sources = sources.map(|t| Dependency::Source("raw".into(), t.name.into()));
        read.map(|(name, _)| Dependency::Model(name)).chain(sources).collect::<Vec<_>>()
    };
    for written in written.values() {
        let materialized = match written.kind {
            ModelKind::View => Materialization::MaterializedView,
            _ => Materialization::StreamingTable,
        };
        let (kept, taken_out) = filtered(written);
        let sql = if as_reference { &kept } else { &written.sql };
        let mut view = model("m", &written.name, sql, materialized, reads(sql));
        if let (Some(_), true) = (scenario.watermark, written.name.starts_with("w_")) {
            let (delay, idle_timeout) = (Duration::ZERO, Duration::from_secs(30));
            view.config.watermark = Some(Watermark { column: "h".into(), delay, idle_timeout });
        }
        if let (Some((expect, quarantine)), false) = (&written.expectation, as_reference) {
            let on_violation = if *quarantine { OnViolation::Quarantine } else { OnViolation::Drop };
            view.expectations.push(Expectation {
                name: "holds".into(),
                expect: expect.clone(),
                on_violation,
                span: span(),
            });
        }
        models.push(view);
        if let (Some(sql), true) = (taken_out, as_reference && written.expectation.as_ref().is_some_and(|e| e.1)) {
            models.push(model("m", &rejected(&written.name), &sql, materialized, reads(&sql)));
        }
    }
    models.iter_mut().for_each(|m| m.config.deletion_vectors = scenario.deletion_vectors);
    let mut project = project("memory://lake", sources, in_order(models));
    // Where locators are on disk, and operators in as many shards as may go there.
    if scenario.seed.is_multiple_of(3) && !as_reference {
        project.target.memory_limit = Some(1 << 20);
    }
    if scenario.repair {
        project.target.on_foreign_change = OnForeignChange::Repair;
    }
    let states = &mut project.target.state_snapshots;
    states.enabled = scenario.states.is_some();
    states.interval = Duration::from_secs(scenario.states.unwrap_or_default());
    states.min_rows = 0;
    let compilation = compile(&project, &NoTables, &crate::plan::stopped()).map_err(text)?;
    Ok((project, compilation))
}

/// Each model behind those it reads.
fn in_order(mut models: Vec<Model>) -> Vec<Model> {
    let mut ordered: Vec<Model> = Vec::new();
    while !models.is_empty() {
        let ready = |m: &Model| {
            m.depends_on.iter().all(|d| match d {
                Dependency::Model(name) => ordered.iter().any(|o| o.name == *name),
                Dependency::Source(..) => true,
            })
        };
        let at = models.iter().position(ready).unwrap();
        ordered.push(models.remove(at));
    }
    ordered
}

fn reference(scenario: &Scenario, written: &BTreeMap<String, Written>) -> Outcome<Reference> {
    let (_, compilation) = compiled(scenario, written, true)?;
    let planner = Planner::new(PlannerOptions::new(Dialect::DataFusion)).map_err(text)?;
    Ok(Reference::new(planner, compilation, written.clone()))
}

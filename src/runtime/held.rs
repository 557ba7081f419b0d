//! Runs of `smelt up` with hooks around them.
//!
//! 1. A run that comes due in an epoch is held back when its model has hooks, or reads, at any distance, one whose run is held.
//! 2. After that epoch the held runs are made one by one, in topological order: hooks before it, an epoch with this run, hooks behind it.
//! 3. Hooks that write to a table of the pipeline make it be opened anew; what its jobs know outlives that, so nothing is run twice.
//!
//! A hook before a run that fails is a failed run: it is tried again as its schedule says. One that fails behind it is told, and the run stays.

use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::compute::EpochRuns;
use super::driver::{End, Runner, Summary};
use super::jobs::Job;
use super::pipeline::{Pipeline, Upstream};
use super::report::Event;
use super::stages::{Course, Verdict};
use crate::error::{Error, Result};
use crate::project::HookPoint;

/// Who runs the hooks of one model.
#[async_trait(?Send)]
pub trait RunHooks {
    /// The models whose runs have hooks.
    fn models(&self) -> BTreeSet<String>;

    /// Runs those of `model` at `point`; it is refused when one fails.
    async fn run(&self, model: &str, point: HookPoint) -> Result<Verdict>;
}

/// For a project without hooks, or one that is run without them.
pub struct NoHooks;

#[async_trait(?Send)]
impl RunHooks for NoHooks {
    fn models(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }

    async fn run(&self, _: &str, _: HookPoint) -> Result<Verdict> {
        Ok(Verdict::default())
    }
}

/// What of the runs outlives a pipeline that is opened anew.
#[derive(Default)]
pub(super) struct Held<'a> {
    pub hooks: Option<&'a dyn RunHooks>,
    /// Models whose run is next, and whose hooks before it have been run.
    prepared: BTreeSet<String>,
    jobs: BTreeMap<String, Job>,
}

impl<'a> Held<'a> {
    pub fn by(hooks: &'a dyn RunHooks) -> Self {
        Held { hooks: Some(hooks), ..Held::default() }
    }

    /// Keeps what the jobs of a pipeline know that is left.
    pub fn leave(&mut self, pipeline: &mut Pipeline) {
        let jobs = pipeline.nodes.iter_mut().filter_map(|n| Some((n.name().to_string(), n.job.take()?)));
        self.jobs = jobs.collect();
    }

    /// Tells it to those of the next one, and which runs are held.
    pub fn enter(&mut self, pipeline: &mut Pipeline) {
        for node in &mut pipeline.nodes {
            if let (Some(earlier), Some(job)) = (self.jobs.remove(node.compiled.model.name.as_str()), &mut node.job) {
                job.resume(&earlier);
            }
        }
        pipeline.hooked = self.hooks.map(RunHooks::models).unwrap_or_default();
    }
}

impl Pipeline {
    /// Whether the run of model `index`, which is due, is not for this epoch.
    pub(super) fn must_hold(&self, index: usize, runs: &EpochRuns) -> bool {
        match runs {
            EpochRuns::Held(made) if *made == index => false,
            EpochRuns::Due | EpochRuns::Held(_) => self.is_hooked(index) || self.reads_held(index),
            EpochRuns::None | EpochRuns::First | EpochRuns::These(..) => false,
        }
    }

    fn is_hooked(&self, index: usize) -> bool {
        self.hooked.contains(self.nodes[index].name())
    }

    fn reads_held(&self, index: usize) -> bool {
        self.nodes[index].upstreams.iter().any(|upstream| match upstream {
            Upstream::Node(up) => {
                self.nodes[*up].job.as_ref().is_some_and(|job| job.held.is_some()) || self.reads_held(*up)
            }
            Upstream::Source(_) | Upstream::Foreign(_) | Upstream::This => false,
        })
    }

    fn held_run(&self) -> Option<usize> {
        self.nodes.iter().position(|n| n.runs() && n.job.as_ref().is_some_and(|job| job.held.is_some()))
    }

    /// Models with hooks whose tables get other columns: these runs cannot wait for their turn.
    fn hooked_replacements(&self) -> Vec<usize> {
        let is_replaced = |i: &usize| self.nodes[*i].runs() && self.nodes[*i].replace && self.is_hooked(*i);
        (0..self.nodes.len()).filter(is_replaced).collect()
    }
}

impl Runner {
    /// The first epoch after opening, with hooks around the tables that it makes anew.
    pub(super) async fn recover(
        &self,
        pipeline: &mut Pipeline,
        summary: &mut Summary,
        course: &mut Course<'_>,
    ) -> Result<Option<End>> {
        let replaced = pipeline.hooked_replacements();
        for index in &replaced {
            let model = pipeline.nodes[*index].name().to_string();
            if course.held.prepared.contains(&model) {
                continue;
            }
            let verdict = self.hook(pipeline, course, &model, HookPoint::Pre).await?;
            match verdict.refused.into_iter().next() {
                Some((_, error)) => pipeline.park(*index, error).await,
                None if verdict.disturbed => {
                    course.held.prepared.insert(model);
                    return Ok(Some(End::Disturbed));
                }
                None => {}
            }
        }
        let recovered = pipeline.run_epoch(HashMap::new(), EpochRuns::None, true).await;
        if let Err(error) = self.tell(pipeline, recovered, summary) {
            return Ok(Some(End::Restart(error)));
        }
        let mut disturbed = false;
        for index in replaced {
            let model = pipeline.nodes[index].name().to_string();
            course.held.prepared.remove(&model);
            if pipeline.nodes[index].parked.is_none() {
                disturbed |= self.after_run(pipeline, course, &model).await?;
            }
        }
        Ok(disturbed.then_some(End::Disturbed))
    }

    /// Makes the runs that were held in the last epoch; something else than None when the pipeline must be opened anew.
    pub(super) async fn held_runs(
        &self,
        pipeline: &mut Pipeline,
        summary: &mut Summary,
        course: &mut Course<'_>,
    ) -> Result<Option<End>> {
        let mut made = BTreeSet::new();
        // One that is due again already waits for the next epoch.
        while let Some(index) = pipeline.held_run().filter(|index| made.insert(*index)) {
            let model = pipeline.nodes[index].name().to_string();
            if pipeline.is_hooked(index) && !course.held.prepared.remove(&model) {
                let verdict = self.hook(pipeline, course, &model, HookPoint::Pre).await?;
                if let Some((_, error)) = verdict.refused.into_iter().next() {
                    pipeline.fail_run(index, error).await?;
                    self.tell_failed(pipeline);
                    if verdict.disturbed {
                        return Ok(Some(End::Disturbed));
                    }
                    continue;
                }
                if verdict.disturbed {
                    course.held.prepared.insert(model);
                    return Ok(Some(End::Disturbed));
                }
            }
            let report = pipeline.run_epoch(HashMap::new(), EpochRuns::Held(index), false).await;
            let is_made = report.as_ref().is_ok_and(|r| r.models.get(index).is_some_and(|m| m.run.is_some()));
            if let Err(error) = self.tell(pipeline, report, summary) {
                return Ok(Some(End::Restart(error)));
            }
            if is_made && pipeline.is_hooked(index) && self.after_run(pipeline, course, &model).await? {
                return Ok(Some(End::Disturbed));
            }
        }
        Ok(None)
    }

    /// Hooks behind a run; whether they disturbed.
    async fn after_run(&self, pipeline: &mut Pipeline, course: &Course<'_>, model: &str) -> Result<bool> {
        let verdict = self.hook(pipeline, course, model, HookPoint::Post).await?;
        for (model, error) in &verdict.refused {
            let planned = self.env.now_micros();
            (self.watcher)(&Event::RunFailed { model, planned, error, retry: None });
        }
        Ok(verdict.disturbed)
    }

    async fn hook(
        &self,
        pipeline: &mut Pipeline,
        course: &Course<'_>,
        model: &str,
        point: HookPoint,
    ) -> Result<Verdict> {
        let Some(hooks) = course.held.hooks else {
            return Err(Error::internal(format!("{model} is held for hooks that nobody runs")));
        };
        pipeline.drain_maintenance(super::stages::QUIET).await?;
        hooks.run(model, point).await
    }
}

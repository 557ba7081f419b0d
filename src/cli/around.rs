//! Hooks of models at their place: a model that has some is made in a stage of its own, its `pre-hook` stands before that stage, its
//! `post-hook` right behind it, as in dbt. Models without hooks are made together, as far as what they read allows.
//!
//! No epoch is open while a hook runs. One that has written to a table which the pipeline holds disturbs it: it is opened anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use super::hooks;
use super::session::Session;
use super::stages::Make;
use crate::error::{Error, Result};
use crate::plan::Compilation;
use crate::project::{HookPoint, Materialization, Model, Project, Stages, When};
use crate::runtime::{self, Gate, RunHooks, Runner, Runs, SKIPPED, Summary, Verdict};

/// What the hooks of some models came to.
#[derive(Debug, Default)]
pub(super) struct Ran {
    /// Models whose hooks failed.
    pub failed: Vec<(String, Error)>,
    /// Tables that a pipeline may hold have got commits.
    pub disturbed: bool,
}

/// The hooks of the models that a run makes.
pub(super) struct Around<'a> {
    session: &'a Session,
    project: &'a Arc<Project>,
    compilation: &'a Arc<Compilation>,
    take_over: bool,
    /// Models that stay as they are in this run.
    unmade: BTreeSet<String>,
}

impl<'a> Around<'a> {
    pub(super) async fn new(session: &'a Session, runner: &'a Runner) -> Result<Self> {
        let (project, options) = (&runner.project, &runner.options);
        let is_kept = |m: &&Arc<Model>| m.materialized == Materialization::Snapshot && m.has_hooks();
        let mut unmade = BTreeSet::new();
        // `run` takes a snapshot only the first time.
        if options.runs == Runs::Tables && project.models.iter().any(|m| is_kept(&m)) {
            let taken = runtime::last_runs(&session.env, project).await?;
            let kept = project.models.iter().filter(is_kept).filter(|m| taken.contains_key(&m.name));
            unmade.extend(kept.map(|m| m.name.clone()));
        }
        let compilation = &runner.compilation;
        Ok(Around { session, project, compilation, take_over: options.take_over, unmade })
    }

    /// Those of `models` that have hooks at `point` and are made.
    fn with_hooks<'m>(&'m self, models: &'m BTreeSet<String>, point: HookPoint) -> impl Iterator<Item = &'m String> {
        let has = move |m: &&Arc<Model>| models.contains(&m.name) && m.is_made() && !m.hooks(point).is_empty();
        let is_made = |name: &&String| !self.unmade.contains(*name);
        self.project.models.iter().filter(has).map(|m| &m.name).filter(is_made)
    }

    /// Whether any of `models` has hooks.
    fn is_needed(&self, models: &BTreeSet<String>) -> bool {
        [HookPoint::Pre, HookPoint::Post].into_iter().any(|point| self.with_hooks(models, point).next().is_some())
    }

    /// Whether hooks stand between the stage that has ended and the next one.
    pub(super) fn stands_before(&self, stage: usize, stages: &Stages) -> bool {
        let ended = stage.checked_sub(1).and_then(|s| stages.models.get(s));
        ended.is_some_and(|models| self.with_hooks(models, HookPoint::Post).next().is_some())
            || stages.models.get(stage).is_some_and(|models| self.with_hooks(models, HookPoint::Pre).next().is_some())
    }

    /// Runs the hooks at `point` of those of `models` that `goes_on`.
    pub(super) async fn run(
        &self,
        models: Option<&BTreeSet<String>>,
        point: HookPoint,
        goes_on: impl Fn(&str) -> bool,
    ) -> Result<Ran> {
        let Some(models) = models else { return Ok(Ran::default()) };
        let taken: BTreeSet<String> = self.with_hooks(models, point).filter(|name| goes_on(name)).cloned().collect();
        hooks::of_models(self.session, self.project, self.compilation, &taken, point, self.take_over).await
    }
}

/// The hooks of what `up` makes at times.
pub(super) struct AroundRuns<'a> {
    pub session: &'a Session,
    pub project: &'a Arc<Project>,
    pub compilation: &'a Arc<Compilation>,
    pub take_over: bool,
}

#[async_trait(?Send)]
impl RunHooks for AroundRuns<'_> {
    fn models(&self) -> BTreeSet<String> {
        let models = self.project.models.iter().filter(|m| m.has_hooks() && is_made_at_times(m));
        models.map(|m| m.name.clone()).collect()
    }

    async fn run(&self, model: &str, point: HookPoint) -> Result<Verdict> {
        let one = BTreeSet::from([model.to_string()]);
        let Ran { failed, disturbed } =
            hooks::of_models(self.session, self.project, self.compilation, &one, point, self.take_over).await?;
        Ok(Verdict { refused: failed, disturbed })
    }
}

/// Whether `up` makes it in runs; the others are kept up to date. A seed is there before what reads it.
pub(super) fn is_made_at_times(model: &Model) -> bool {
    let is_continuous = model.config.schedule.as_ref().is_some_and(|s| s.when == When::Continuous);
    model.materialized.is_scheduled() && model.materialized != Materialization::Seed && !is_continuous
}

/// How `run`, `seed` and `snapshot` make models.
pub(super) struct Plainly<'a> {
    pub session: &'a Session,
}

#[async_trait(?Send)]
impl Make for Plainly<'_> {
    async fn make(&self, runner: Runner, models: &BTreeSet<String>) -> Result<Summary> {
        let around = Around::new(self.session, &runner).await?;
        if !around.is_needed(models) {
            return runner.run().await;
        }
        let stages = Stages::new(&runner.project, Some(models), &[]).around_hooks(&runner.project);
        let between = Between { around: &around, stages: &stages, fail_fast: runner.options.fail_fast };
        runner.run_in_stages(&stages.models, &between).await
    }
}

/// What stands between two stages of a run: hooks, and nothing else.
struct Between<'a> {
    around: &'a Around<'a>,
    stages: &'a Stages,
    fail_fast: bool,
}

impl Between<'_> {
    fn refuse(&self, failed: Vec<(String, Error)>, verdict: &mut Verdict) {
        for (name, error) in failed {
            let waits = Error::user("upstream-parked", format!("waits for {name}, which is stopped"));
            let is_made = |name: &&String| self.stages.models.iter().any(|models| models.contains(*name));
            let behind = self.stages.behind_model(&name).filter(is_made);
            let behind: Vec<_> = behind.map(|name| (name.clone(), waits.clone())).collect();
            verdict.refused.push((name, error));
            verdict.refused.extend(behind);
        }
    }
}

#[async_trait(?Send)]
impl Gate for Between<'_> {
    fn writes(&self, stage: usize) -> bool {
        self.around.stands_before(stage, self.stages)
    }

    async fn pass(&self, stage: usize, stopped: &[(String, Error)]) -> Result<Verdict> {
        let models = &self.stages.models;
        let is_stopped =
            |name: &str, verdict: &Verdict| stopped.iter().chain(&verdict.refused).any(|(known, _)| known == name);
        let mut verdict = Verdict::default();
        let ended = stage.checked_sub(1).and_then(|s| models.get(s));
        let after = self.around.run(ended, HookPoint::Post, |name| !is_stopped(name, &verdict)).await?;
        verdict.disturbed |= after.disturbed;
        self.refuse(after.failed, &mut verdict);
        // What stopped within a stage, by its readers, views included.
        for (name, error) in stopped.iter().filter(|(_, error)| error.code() != SKIPPED) {
            if error.code() != "upstream-parked" {
                self.refuse(vec![(name.clone(), error.clone())], &mut verdict);
            }
        }
        if self.fail_fast && !(stopped.is_empty() && verdict.refused.is_empty()) {
            let rest = models.iter().skip(stage).flatten();
            let error = Error::user(SKIPPED, "something failed before, and --fail-fast is set");
            verdict.refused.extend(rest.map(|name| (name.clone(), error.clone())));
        }
        let before = self.around.run(models.get(stage), HookPoint::Pre, |name| !is_stopped(name, &verdict)).await?;
        verdict.disturbed |= before.disturbed;
        self.refuse(before.failed, &mut verdict);
        Ok(verdict)
    }
}

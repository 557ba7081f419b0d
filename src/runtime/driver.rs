//! `smelt run` and `smelt up`: open, recover, then epochs until the input ends or somebody says stop.
//!
//! Whatever goes wrong below the level of a model (a lost put, an upload that timed out, a table that is not what the
//! engine believes) has one cure: drop everything and open the pipeline again from the lake. Only fencing, project and
//! lake errors end the process.

use futures::FutureExt;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

use super::compute::EpochRuns;
use super::feed::FeedEvent;
use super::held::RunHooks;
use super::instance;
use super::jobs::Runs;
use super::pipeline::{Pipeline, Upstream, lake_options};
use super::report::{EpochReport, Event, Watcher};
use super::snapshot::FailedRun;
use super::stages::{Course, Gate, Next, QUIET, SKIPPED};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Lake;
use crate::plan::Compilation;
use crate::project::Project;
use crate::types::SourceBatch;

/// How `run` and `up` work.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Names of the models to run; None: all.
    pub selected: Option<BTreeSet<String>>,
    /// Recompute views and read streams again from the start where that can be had.
    pub full_refresh: bool,
    /// Become the writer although another process of this host is.
    pub take_over: bool,
    /// Sources (`source.table`) whose positions are forgotten.
    pub reset_sources: Vec<String>,
    /// Which models that are made at times are made.
    pub runs: Runs,
    /// A bounded run ends after the epoch in which a model has stopped.
    pub fail_fast: bool,
    /// Batches of strategy `microbatch`: from the first instant (µs) to before the second; where none is said, those that are due.
    pub event_time: (Option<i64>, Option<i64>),
    /// Incremental models whose full refresh was asked for and is not committed yet.
    pub unfinished: BTreeSet<String>,
    /// Models are made in stages ([`super::stages`]).
    pub divided: bool,
    /// Models whose full refresh, or new start in a source, has begun: it is not begun again when the pipeline is opened anew.
    pub begun: BTreeSet<String>,
    /// Windows that are open when the input ends are closed.
    pub closes_all: bool,
    /// When the lake was asked for what models' templates wanted to know, µs.
    pub asked_at: i64,
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct Summary {
    pub epochs: u64,
    pub rows_read: u64,
    pub elapsed: Duration,
    /// Models that stopped, with their errors.
    pub parked: Vec<(String, Error)>,
    /// State of each model at the end.
    pub last: Option<EpochReport>,
    /// `up` ended because a run is due whose SQL depends on what the lake holds now: compile again.
    pub ask_again: bool,
}

/// Longest pause between attempts after transient errors.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// Attempts of a bounded run before it gives up on a transient error.
const ATTEMPTS: u32 = 5;

/// Between two times `up` says what its circuits did and hold.
const MEASURES: Duration = Duration::from_secs(10);

/// For taking over what sources have read already, at least.
const AT_HAND: Duration = Duration::from_millis(2);

/// A project being run.
pub struct Runner {
    pub env: Env,
    pub project: Arc<Project>,
    pub compilation: Arc<Compilation>,
    pub options: Options,
    pub watcher: Watcher,
}

pub(super) enum End {
    /// The input ended, or somebody said stop.
    Done,
    /// Open again.
    Restart(Error),
    /// The same, and nothing is wrong: hooks wrote to its tables.
    Disturbed,
}

impl Runner {
    /// Catches up with everything available now, commits, returns.
    pub async fn run(&self) -> Result<Summary> {
        let (_keep, stop) = watch::channel(false);
        self.work(true, stop, None, Course::undivided()).await
    }

    /// The same stage by stage; a model that is in none is not made. `gate` decides before each stage, and is told when the last has ended.
    pub async fn run_in_stages(&self, stages: &[BTreeSet<String>], gate: &dyn Gate) -> Result<Summary> {
        let (_keep, stop) = watch::channel(false);
        self.work(true, stop, None, Course::new(stages, gate)).await
    }

    /// Runs until `stop` becomes true. `edited` becomes true when the project's files have changed: the call returns then.
    /// `hooks` stand around the runs of models that are made at times.
    pub async fn up(
        &self,
        stop: watch::Receiver<bool>,
        edited: watch::Receiver<bool>,
        hooks: &dyn RunHooks,
    ) -> Result<Summary> {
        self.work(false, stop, Some(edited), Course::with_hooks(hooks)).await
    }

    async fn work(
        &self,
        bounded: bool,
        mut stop: watch::Receiver<bool>,
        mut edited: Option<watch::Receiver<bool>>,
        mut course: Course<'_>,
    ) -> Result<Summary> {
        let started = Instant::now();
        let lake = Lake::open(&self.env, &self.project.target.lake, lake_options(&self.project))?;
        lake.check_writable().await?;
        let mut instance = instance::claim(&self.env, &lake, self.options.take_over).await?;
        let cleaned = lake.clone();
        // Beside the work: it walks the whole lake, and nothing depends on it.
        tokio::spawn(async move {
            if let Err(error) = cleaned.remove_leftovers().await {
                tracing::debug!(%error, "leftovers stay");
            }
        });
        let mut summary = Summary::default();
        let mut diverged = BTreeSet::new();
        let mut options = Options { divided: course.is_divided(), ..self.options.clone() };
        let mut failures = 0;
        loop {
            let opened = Pipeline::open(
                &self.env,
                Arc::clone(&self.project),
                &self.compilation,
                options.clone(),
                lake.clone(),
                instance.number,
                &diverged,
            )
            .await;
            let committed_before = summary.epochs;
            let end = match opened {
                Ok(mut pipeline) => {
                    course.held.enter(&mut pipeline);
                    let end =
                        self.stages(&mut pipeline, bounded, &mut stop, &mut edited, &mut summary, &mut course).await;
                    diverged = std::mem::take(&mut pipeline.diverged);
                    let refreshing = pipeline.nodes.iter().filter(|n| n.job.as_ref().is_some_and(|job| job.full));
                    options.unfinished = refreshing.map(|n| n.name().to_string()).collect();
                    if matches!(end, Ok(End::Disturbed)) {
                        course.held.leave(&mut pipeline);
                    }
                    summary.parked =
                        pipeline.nodes.iter().filter_map(|n| Some((n.name().to_string(), n.parked.clone()?))).collect();
                    end
                }
                Err(error) => Err(error),
            };
            // Refreshing and resetting happen once, not at every restart.
            match (course.is_divided(), &end) {
                (true, Ok(End::Disturbed)) => {}
                (true, _) => options.begun.extend(course.begun().cloned()),
                (false, _) => {
                    options.full_refresh = false;
                    options.reset_sources.clear();
                }
            }
            if matches!(end, Ok(End::Disturbed)) {
                // Who wrote took a number of its own.
                instance = instance::claim(&self.env, &lake, false).await?;
                continue;
            }
            if summary.epochs > committed_before {
                failures = 0;
            }
            match end {
                Ok(End::Done | End::Disturbed) => break,
                Ok(End::Restart(error)) | Err(error) if self.may_retry(&error, bounded, failures) => {
                    let wait = (Duration::from_millis(200) * 2u32.saturating_pow(failures)).min(LONGEST_BACKOFF);
                    failures += 1;
                    (self.watcher)(&Event::Restarting { error: &error, wait });
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        _ = stop.wait_for(|stop| *stop) => break,
                    }
                }
                Ok(End::Restart(error)) | Err(error) => return Err(error),
            }
        }
        // What the gate refused when the last stage had ended.
        for (model, error) in course.stopped {
            if !summary.parked.iter().any(|(known, _)| *known == model) {
                (self.watcher)(&Event::Parked { model: &model, error: &error });
                summary.parked.push((model, error));
            }
        }
        summary.elapsed = started.elapsed();
        Ok(summary)
    }

    fn may_retry(&self, error: &Error, bounded: bool, failures: u32) -> bool {
        let transient = error.is_retryable() || error.kind() == ErrorKind::Diverged;
        transient && (!bounded || failures < ATTEMPTS)
    }

    /// One stage after the other, from the one that was reached.
    async fn stages(
        &self,
        pipeline: &mut Pipeline,
        bounded: bool,
        stop: &mut watch::Receiver<bool>,
        edited: &mut Option<watch::Receiver<bool>>,
        summary: &mut Summary,
        course: &mut Course<'_>,
    ) -> Result<End> {
        (self.watcher)(&Event::Opened {
            tables: pipeline.nodes.iter().filter(|n| n.main.is_some() || n.is_made()).count(),
            sources: pipeline.sources.len(),
            instance: pipeline.instance,
        });
        pipeline.may_wait = !bounded;
        loop {
            if course.writes() {
                pipeline.drain_maintenance(QUIET).await?;
            }
            match course.enter().await? {
                Next::Stage => {}
                Next::Reopened => return Ok(End::Disturbed),
                Next::End => break,
            }
            pipeline.enter(course).await?;
            match self.epochs(pipeline, bounded, stop, edited, summary, course).await? {
                End::Done => {
                    if course.is_divided() {
                        pipeline.keep_all_states().await?;
                    }
                    course.leave(&summary.parked);
                }
                other => return Ok(other),
            }
        }
        pipeline.drain_maintenance(Duration::from_secs(60)).await?;
        pipeline.keep_all_states().await?;
        Ok(End::Done)
    }

    async fn epochs(
        &self,
        pipeline: &mut Pipeline,
        bounded: bool,
        stop: &mut watch::Receiver<bool>,
        edited: &mut Option<watch::Receiver<bool>>,
        summary: &mut Summary,
        course: &mut Course<'_>,
    ) -> Result<End> {
        if let Some(end) = self.recover(pipeline, summary, course).await? {
            return Ok(end);
        }
        for warning in pipeline.start_sources(bounded, course).await? {
            (self.watcher)(&Event::Note(&warning));
        }
        // What an earlier stage has read to its end.
        let mut ended: BTreeSet<usize> =
            (0..pipeline.sources.len()).filter(|source| !pipeline.is_read(*source)).collect();
        let mut measured: Option<Instant> = None;
        // When the next epoch begins, if there is input by then.
        let mut due = tokio::time::Instant::now() + self.project.target.commit_interval;
        loop {
            if self.fails_fast(bounded, summary) {
                self.leave_undone(pipeline, &ended, summary);
                break;
            }
            if *stop.borrow() || edited.as_ref().is_some_and(|e| *e.borrow()) {
                break;
            }
            pipeline.start_backfill().await?;
            let collected = self.collect(pipeline, bounded, &mut ended, stop, edited, due).await?;
            due = tokio::time::Instant::now() + self.project.target.commit_interval;
            let all_ended =
                bounded && pipeline.sources.iter().enumerate().all(|(i, s)| s.feed.is_none() || ended.contains(&i));
            let (runs, due) = match self.options.runs {
                Runs::Scheduled => (EpochRuns::Due, pipeline.is_run_due()),
                Runs::All { planned: Some(_) } => (EpochRuns::None, false),
                Runs::Tables | Runs::All { planned: None } => (EpochRuns::First, false),
            };
            if due && pipeline.must_ask_again() {
                // Input that was read and not committed is read again.
                summary.ask_again = true;
                break;
            }
            // Whoever only catches up finds out at the next start.
            let overtaken = !bounded && pipeline.look_for_others().await;
            let timed = pipeline.is_time_due()?;
            let mut begins = !collected.is_empty() || due || timed || overtaken || pipeline.has_woken();
            if !begins {
                begins = match pipeline.foreign_has_moved().await {
                    Ok(moved) => moved,
                    Err(error) => return Ok(End::Restart(error)),
                };
            }
            if begins {
                let report = pipeline.run_epoch(collected, runs, false).await;
                if let Err(error) = self.tell(pipeline, report, summary) {
                    return Ok(End::Restart(error));
                }
                if let Some(end) = self.held_runs(pipeline, summary, course).await? {
                    return Ok(end);
                }
                pipeline.maintain().await?;
                pipeline.keep_states().await?;
                if measured.is_none_or(|at| at.elapsed() >= MEASURES) {
                    self.tell_measured(pipeline);
                    measured = Some(Instant::now());
                }
            }
            if all_ended && pipeline.closes_windows() && !self.fails_fast(bounded, summary) {
                // Nothing holds the watermark back any more.
                pipeline.ended = Some(self.options.closes_all);
                let report = pipeline.run_epoch(HashMap::new(), EpochRuns::None, false).await;
                if let Err(error) = self.tell(pipeline, report, summary) {
                    return Ok(End::Restart(error));
                }
            }
            if all_ended && !self.fails_fast(bounded, summary) {
                self.final_runs(pipeline, summary).await?;
                break;
            }
        }
        self.tell_measured(pipeline);
        Ok(End::Done)
    }

    fn tell_measured(&self, pipeline: &Pipeline) {
        let measured = pipeline.measured();
        if !measured.is_empty() {
            (self.watcher)(&Event::Measured(&measured));
        }
    }

    fn fails_fast(&self, bounded: bool, summary: &Summary) -> bool {
        bounded && self.options.fail_fast && !summary.parked.is_empty()
    }

    /// What a run that ends before its time has not made: whose sources have not `ended`, what was to be made after all others, and what
    /// reads any of it.
    fn leave_undone(&self, pipeline: &mut Pipeline, ended: &BTreeSet<usize>, summary: &mut Summary) {
        let runs = match pipeline.final_runs(self.options.runs) {
            EpochRuns::These(models, _) => models,
            _ => Vec::new(),
        };
        let mut undone = vec![false; pipeline.nodes.len()];
        for index in 0..undone.len() {
            let node = &pipeline.nodes[index];
            undone[index] = runs.contains(&index)
                || node.upstreams.iter().any(|upstream| match upstream {
                    Upstream::Node(up) => undone[*up],
                    Upstream::Source(source) => pipeline.sources[*source].feed.is_some() && !ended.contains(source),
                    Upstream::Foreign(_) | Upstream::This => false,
                });
        }
        let failed: Vec<String> = summary.parked.iter().map(|(name, _)| name.clone()).take(1).collect();
        let why = format!("{} failed before it was finished, and --fail-fast is set", failed.join(""));
        for index in (0..undone.len()).filter(|index| undone[*index]) {
            let node = &mut pipeline.nodes[index];
            if node.runs() {
                let error = Error::user(SKIPPED, why.clone());
                (self.watcher)(&Event::Parked { model: node.name(), error: &error });
                summary.parked.push((node.name().to_string(), error.clone()));
                // Its table and state are those of the last epoch.
                node.parked = Some(error);
            }
        }
    }

    /// What a bounded command makes once: after everything else has arrived.
    async fn final_runs(&self, pipeline: &mut Pipeline, summary: &mut Summary) -> Result<()> {
        let runs = pipeline.final_runs(self.options.runs);
        if !matches!(&runs, EpochRuns::These(models, _) if models.is_empty()) {
            let report = pipeline.run_epoch(HashMap::new(), runs, false).await;
            self.tell(pipeline, report, summary)?;
        }
        Ok(())
    }

    pub(super) fn tell_failed(&self, pipeline: &mut Pipeline) {
        for FailedRun { model, planned, error, retry } in std::mem::take(&mut pipeline.failed_runs) {
            (self.watcher)(&Event::RunFailed { model: &model, planned, error: &error, retry });
        }
    }

    pub(super) fn tell(
        &self,
        pipeline: &mut Pipeline,
        report: Result<EpochReport>,
        summary: &mut Summary,
    ) -> Result<()> {
        for note in std::mem::take(&mut pipeline.notes) {
            (self.watcher)(&Event::Note(&note));
        }
        let report = report?;
        self.tell_failed(pipeline);
        for node in &pipeline.nodes {
            let known = summary.parked.iter().any(|(name, _)| name == node.name());
            if let (Some(error), false) = (&node.parked, known) {
                (self.watcher)(&Event::Parked { model: node.name(), error });
                summary.parked.push((node.name().to_string(), error.clone()));
            }
        }
        let lag = pipeline
            .sources
            .iter()
            .filter_map(|s| s.feed.as_ref())
            .map(|f| f.status.lock().lag.values().sum::<i64>())
            .sum();
        (self.watcher)(&Event::Epoch { report: &report, lag });
        summary.epochs += u64::from(report.changed);
        summary.rows_read += report.rows_read as u64;
        summary.last = Some(report);
        Ok(())
    }

    /// The input of one epoch, at most the target's rows and files: whatever arrives until it is `due`, which is one commit interval after the last one
    /// began. Where that took longer, what has come meanwhile; if nothing has, or in a bounded run, what arrives within another interval.
    async fn collect(
        &self,
        pipeline: &mut Pipeline,
        bounded: bool,
        ended: &mut BTreeSet<usize>,
        stop: &mut watch::Receiver<bool>,
        edited: &mut Option<watch::Receiver<bool>>,
        due: tokio::time::Instant,
    ) -> Result<HashMap<usize, Vec<SourceBatch>>> {
        let target = &self.project.target;
        let mut collected: HashMap<usize, Vec<SourceBatch>> = HashMap::new();
        let mut rows = 0;
        let mut batches = 0;
        let now = tokio::time::Instant::now();
        let has_come = pipeline.sources.iter().any(|s| s.feed.as_ref().is_some_and(|feed| !feed.receiver.is_empty()));
        let deadline = match bounded || (due <= now && !has_come) {
            true => now + target.commit_interval,
            false => due.max(now + AT_HAND),
        };
        loop {
            let mut waiting: Vec<_> = pipeline
                .sources
                .iter_mut()
                .enumerate()
                .filter(|(index, _)| !ended.contains(index))
                .filter_map(|(index, source)| {
                    let feed = source.feed.as_mut()?;
                    let name = source.name.clone();
                    Some(feed.receiver.recv().map(move |event| (index, name, event)).boxed())
                })
                .collect();
            if waiting.is_empty() && bounded {
                return Ok(collected);
            }
            let next = async {
                if waiting.is_empty() {
                    std::future::pending().await
                } else {
                    futures::future::select_all(&mut waiting).await.0
                }
            };
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(collected),
                () = was_edited(edited) => return Ok(collected),
                () = tokio::time::sleep_until(deadline) => return Ok(collected),
                (index, name, event) = next => match event {
                    Some(FeedEvent::Batches(found)) => {
                        rows += found.iter().map(|b| b.rows.num_rows()).sum::<usize>();
                        batches += found.len();
                        collected.entry(index).or_default().extend(found);
                    }
                    Some(FeedEvent::End) => {
                        ended.insert(index);
                    }
                    Some(FeedEvent::Failed(error)) => return Err(error.context(format!("source {name}"))),
                    None => return Err(Error::internal(format!("the reader of source {name} ended unexpectedly"))),
                },
            }
            if rows >= target.epoch_max_rows || batches >= target.epoch_max_files {
                return Ok(collected);
            }
        }
    }
}

async fn was_edited(edited: &mut Option<watch::Receiver<bool>>) {
    match edited {
        Some(edited) => {
            if edited.wait_for(|e| *e).await.is_err() {
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}

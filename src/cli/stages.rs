//! Runs in stages: a model whose template asks the lake is compiled when the tables it asks about have been made, as dbt compiles a
//! model when its turn has come.
//!
//! The first stage runs what asks nothing. Then the project is loaded again, with answers from the tables of earlier stages, and what
//! can be compiled by now runs next. A project without such templates has one stage.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;

use super::args::Writing;
use super::defer::Work;
use super::hooks;
use super::run::noting_figures;
use super::session::Session;
use crate::error::{Error, Result};
use crate::plan::Compilation;
use crate::project::answers::is_failure;
use crate::project::{Dependency, Project};
use crate::runtime::{Event, Fresh, Options, Runner, Summary, Watcher};

type Compiled = (Arc<Project>, Arc<Compilation>);

/// How the models of one stage are made.
#[async_trait(?Send)]
pub(super) trait Make {
    /// Makes `models`, which `runner` runs.
    async fn make(&self, runner: Runner, models: &BTreeSet<String>) -> Result<Summary>;
}

/// Runs what `options` selects of `first`, stage by stage; returns the project as it was compiled last, and how all of it ended.
pub(super) async fn run(
    session: &Session,
    writing: &Writing,
    work: Work<'_>,
    first: Compiled,
    mut options: Options,
    watcher: Watcher,
    make: &dyn Make,
) -> (Arc<Project>, Result<Summary>) {
    let (mut project, mut compilation) = first;
    let all = || project.models.iter().map(|m| m.name.clone()).collect();
    let wanted: BTreeSet<String> = options.selected.clone().unwrap_or_else(all);
    let mut done: BTreeSet<String> = BTreeSet::new();
    let mut total = Summary::default();
    let take_over = options.take_over;
    if let Err(errors) = hooks::start(session, &project, &compilation, &writing.selection, take_over).await {
        errors.iter().for_each(|e| session.print_error(e));
        if !session.goes_on_after_start() {
            let skipped = || Error::user("upstream-parked", "not made: on-run-start failed");
            total.parked.extend(wanted.into_iter().map(|name| (name, skipped())));
            return (project, Ok(total));
        }
        session.failed.store(true, Ordering::Relaxed);
    }
    loop {
        stop_readers(&project, &wanted, &mut total, &watcher);
        let compiled: BTreeSet<String> = compilation.models.iter().map(|m| m.model.name.clone()).collect();
        let stopped: BTreeSet<String> = total.parked.iter().map(|(name, _)| name.clone()).collect();
        let left: BTreeSet<String> =
            wanted.iter().filter(|n| !done.contains(*n) && !stopped.contains(*n)).cloned().collect();
        let turn: BTreeSet<String> = left.intersection(&compiled).cloned().collect();
        let is_whole = done.is_empty() && stopped.is_empty() && turn.len() == left.len();
        if !turn.is_empty() || is_whole {
            let selected = if is_whole { options.selected.clone() } else { Some(turn.clone()) };
            let runner = Runner {
                env: session.env.clone(),
                project: Arc::clone(&project),
                compilation: Arc::clone(&compilation),
                options: Options { selected, ..options.clone() },
                watcher: noting_figures(session, &project, Arc::clone(&watcher)),
            };
            match make.make(runner, &turn).await {
                Ok(summary) => add(&mut total, summary),
                Err(error) => return (project, Err(error)),
            }
            options.reset_sources.clear();
            done.extend(turn.iter().cloned());
        }
        let left: BTreeSet<String> = left.difference(&turn).cloned().collect();
        let failed = options.fail_fast && !total.parked.is_empty();
        if left.is_empty() || failed {
            return (project, Ok(total));
        }
        let next = match next_stage(session, writing, work, &compiled, &left).await {
            Ok(next) => next,
            Err(errors) => {
                errors.iter().for_each(|e| session.print_error(e));
                stop(&left, errors.into_iter().next(), &mut total, &watcher);
                return (project, Ok(total));
            }
        };
        let (next, goes_on) = next;
        if !goes_on {
            for name in &left {
                let waits = next.0.models.iter().find(|m| m.name == *name).and_then(|m| m.asks.waits.clone());
                let hint = format!("make what it asks about too: --select +{name}");
                let waits = waits.map(|e| if is_failure(&e) { e } else { e.with_hint(hint) });
                stop(&BTreeSet::from([name.clone()]), waits, &mut total, &watcher);
            }
            return (project, Ok(total));
        }
        (project, compilation) = next;
        if let Err(errors) = session.artifacts.loaded(&session.env, &project) {
            return (project, Err(errors));
        }
    }
}

/// The project with what can be compiled now that `made` is there, and whether that is anything that is left.
async fn next_stage(
    session: &Session,
    writing: &Writing,
    work: Work<'_>,
    made: &BTreeSet<String>,
    left: &BTreeSet<String>,
) -> Result<(Compiled, bool), Vec<Error>> {
    let goes_on = |next: &Compiled| next.1.models.iter().any(|m| left.contains(&m.model.name));
    let next = session.settle(writing, work, &Fresh::Only(made.clone())).await?;
    if goes_on(&next) {
        return Ok((next, true));
    }
    // What it asks about is made by nothing that is left: what is there will do.
    let next = session.settle(writing, work, &Fresh::All).await?;
    let goes_on = goes_on(&next);
    Ok((next, goes_on))
}

fn add(total: &mut Summary, more: Summary) {
    total.epochs += more.epochs;
    total.rows_read += more.rows_read;
    total.elapsed += more.elapsed;
    total.parked.extend(more.parked);
    total.last = more.last.or(total.last.take());
}

/// Stops models that cannot be made; without an error of their own they wait for one that was.
fn stop(models: &BTreeSet<String>, error: Option<Error>, total: &mut Summary, watcher: &Watcher) {
    let default = || Error::user("upstream-parked", "waits for a model that is not made");
    for name in models {
        let error = error.clone().unwrap_or_else(default);
        watcher(&Event::Parked { model: name, error: &error });
        total.parked.push((name.clone(), error));
    }
}

/// Stops what reads a model that has stopped in an earlier stage.
fn stop_readers(project: &Project, wanted: &BTreeSet<String>, total: &mut Summary, watcher: &Watcher) {
    let mut stopped: BTreeSet<String> = total.parked.iter().map(|(name, _)| name.clone()).collect();
    if stopped.is_empty() {
        return;
    }
    // In topological order.
    for model in &project.models {
        let upstream = model.depends_on.iter().find_map(|d| match d {
            Dependency::Model(name) if stopped.contains(name) => Some(name.clone()),
            _ => None,
        });
        let Some(upstream) = upstream else { continue };
        if stopped.insert(model.name.clone()) && wanted.contains(&model.name) {
            let error = Error::user("upstream-parked", format!("waits for {upstream}, which is stopped"));
            stop(&BTreeSet::from([model.name.clone()]), Some(error), total, watcher);
        }
    }
}

//! Hooks and operations at work: `on-run-start`, `on-run-end`, `pre-hook`, `post-hook`, `smelt run-operation`.
//!
//! Each is rendered when its turn has come, and what it prints is run as SQL ([`Operator`]). No epoch is open meanwhile. A command's
//! [`start`] stands before its first stage, [`end`] behind its results; a model's own hooks stand around the stage that makes it
//! ([`super::around`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::{Map, Value as Json, json};

use super::Exit;
use super::args::{Selection, Writing};
use super::around::Ran;
use super::defer::Work;
use super::session::Session;
use crate::error::{Error, Result};
use crate::plan::Compilation;
use crate::project::artifacts::{self, RunResult, RunStatus};
use crate::project::{Answers, Circumstances, Hook, HookPoint, Model, Operations, Project, Said};
use crate::runtime::{Fresh, Operator};

/// Runs what stands at `on-run-start`; the first error ends it.
pub(super) async fn start(
    session: &Session,
    project: &Arc<Project>,
    compilation: &Arc<Compilation>,
    selection: &Selection,
    take_over: bool,
) -> Result<(), Vec<Error>> {
    session.hooks_started.store(true, Ordering::Relaxed);
    let selected = session.resources(project, Some(compilation), selection).await?;
    *session.selected.lock() = selected.clone();
    let circumstances = Circumstances { selected, ..Circumstances::default() };
    let done = of_run(session, project, compilation, HookPoint::RunStart, circumstances, take_over).await;
    done.map_err(|e| vec![e])
}

/// Runs what stands at `on-run-end` of a command that has ended so, when it got as far as its beginning. `makes`: the command made tables.
pub(super) async fn end(
    session: &Session,
    writing: &Writing,
    makes: bool,
    outcome: Result<Exit, Vec<Error>>,
) -> Result<Exit, Vec<Error>> {
    let known = session.artifacts.project().filter(|_| session.hooks_started.load(Ordering::Relaxed));
    if known.and_then(|p| p.operations.clone()).is_none_or(|o| o.hooks(HookPoint::RunEnd).next().is_none()) {
        return outcome;
    }
    let work = Work { selection: &writing.selection, deferring: &writing.deferring, makes: &|_| makes };
    let ended = match session.settle(writing, work, &Fresh::All).await {
        Ok((project, compilation)) => {
            let results = session.artifacts.results();
            let made =
                |m: &&Arc<Model>| results.iter().any(|r| r.unique_id == m.unique_id && r.status == RunStatus::Success);
            let schemas: BTreeSet<String> = project.models.iter().filter(made).map(|m| m.schema.clone()).collect();
            // As in dbt: of hooks only those that failed.
            let is_shown = |r: &RunResult| !r.unique_id.starts_with("operation.") || r.status == RunStatus::Error;
            let shown: Vec<RunResult> = results.into_iter().filter(is_shown).collect();
            let circumstances = Circumstances {
                selected: session.selected.lock().clone(),
                schemas: schemas.into_iter().collect(),
                results: with_nodes(session, &project, &shown),
            };
            let point = HookPoint::RunEnd;
            of_run(session, &project, &compilation, point, circumstances, writing.take_over).await.map_err(|e| vec![e])
        }
        Err(errors) => Err(errors),
    };
    match (ended, outcome) {
        (Ok(()), outcome) => outcome,
        (Err(errors), Ok(_)) => {
            errors.iter().for_each(|e| session.print_error(e));
            Ok(Exit::Failed)
        }
        (Err(more), Err(errors)) => Err(errors.into_iter().chain(more).collect()),
    }
}

/// Results as templates see them: each with its node of the manifest.
fn with_nodes(session: &Session, project: &Project, results: &[RunResult]) -> Vec<Json> {
    let manifest = artifacts::manifest(project, &session.artifacts.invocation, &session.env);
    let with_node = |result: &RunResult| {
        let id = &result.unique_id;
        let node = ["nodes", "unit_tests"].into_iter().find_map(|kind| manifest[kind].get(id)).cloned();
        let operation = || json!({"unique_id": id, "name": id.rsplit('.').next(), "resource_type": "operation"});
        let mut value = serde_json::to_value(result).unwrap_or_default();
        value["node"] = node.unwrap_or_else(operation);
        value
    };
    results.iter().map(with_node).collect()
}

async fn of_run(
    session: &Session,
    project: &Arc<Project>,
    compilation: &Arc<Compilation>,
    point: HookPoint,
    circumstances: Circumstances,
    take_over: bool,
) -> Result<()> {
    let Some(operations) = &project.operations else { return Ok(()) };
    let hooks: Vec<Hook> = operations.hooks(point).cloned().collect();
    if hooks.is_empty() {
        return Ok(());
    }
    let operator = Operator::open(&session.env, project, compilation, take_over).await?;
    let mut ended = Ok(());
    for hook in hooks {
        let (id, name, started) = (hook.unique_id(), hook.name(), (session.env.now_micros(), Instant::now()));
        if ended.is_err() {
            let skipped = RunResult::new(id, RunStatus::Skipped).message(format!("{name} skipped"));
            session.artifacts.record(skipped.failures(1));
            continue;
        }
        let done = perform(session, operations, &operator, hook, None, circumstances.clone()).await;
        let result = match &done {
            Ok(message) => RunResult::new(id, RunStatus::Success)
                .message(format!("{name} passed"))
                .failures(0)
                .response("_message", message.as_str()),
            Err(error) => RunResult::new(id, RunStatus::Error)
                .message(format!("{name} failed, error:\n {}", error.render()))
                .failures(1),
        };
        session.artifacts.record(result.timed(started.0, started.1.elapsed()));
        ended = done.map(|_| ());
    }
    ended
}

/// Runs the hooks of those of `models` that are compiled.
pub(super) async fn of_models(
    session: &Session,
    project: &Arc<Project>,
    compilation: &Arc<Compilation>,
    models: &BTreeSet<String>,
    point: HookPoint,
    take_over: bool,
) -> Result<Ran> {
    let mut ran = Ran::default();
    let Some(operations) = &project.operations else { return Ok(ran) };
    let taken = project.models.iter().filter(|m| models.contains(&m.name)).map(|m| (m, m.hooks(point)));
    let taken: Vec<_> = taken.filter(|(_, hooks)| !hooks.is_empty()).collect();
    if taken.is_empty() {
        return Ok(ran);
    }
    let operator = Operator::open(&session.env, project, compilation, take_over).await?;
    for (model, hooks) in taken {
        for hook in hooks {
            let circumstances = Circumstances { selected: session.selected.lock().clone(), ..Circumstances::default() };
            let done = perform(session, operations, &operator, hook, Some(model), circumstances).await;
            if let Err(error) = done {
                ran.failed.push((model.name.clone(), error));
                break;
            }
        }
    }
    ran.disturbed = operator.take_disturbed();
    Ok(ran)
}

/// Renders and runs one hook; what it did, in a few words.
async fn perform(
    session: &Session,
    operations: &Arc<Operations>,
    operator: &Arc<Operator>,
    hook: Hook,
    model: Option<&Arc<Model>>,
    circumstances: Circumstances,
) -> Result<String> {
    let name = hook.name();
    let started = Instant::now();
    let (operations, running, model) = (Arc::clone(operations), Arc::clone(operator), model.cloned());
    let done = tokio::task::spawn_blocking(move || {
        let said =
            operations.render(&hook, model.as_deref(), &circumstances, Arc::clone(&running) as Arc<dyn Answers>)?;
        let this = model.as_ref().map(|m| (m.schema.as_str(), m.alias.as_str()));
        let answer = running.query(&said.sql, this)?;
        Ok((said, answer.message))
    });
    let done = done.await.map_err(|e| Error::internal(format!("a hook ended: {e}")))?;
    warn(session, operator, &name);
    let (said, message) = done.map_err(|e: Error| e.context(format!("hook {name}")))?;
    tell(session, said);
    let message = if message.is_empty() { "nothing to do".to_string() } else { message };
    session.say(&format!(
        "{} hook {name}: {message} in {:.2} s",
        super::print::clock(),
        started.elapsed().as_secs_f64()
    ));
    Ok(message)
}

/// What was skipped.
fn warn(session: &Session, operator: &Operator, by: &str) {
    for warning in operator.take_warnings() {
        session.warn(&warning.context(by));
    }
}

/// What a template printed.
fn tell(session: &Session, said: Said) {
    said.warnings.into_iter().for_each(|text| session.warn(&Error::user("raised", text)));
    said.lines.iter().for_each(|line| session.say(line));
}

/// `smelt run-operation`: calls a macro for what it runs. Exit code 1 when that fails, 2 when it cannot be called.
pub(super) async fn run_operation(session: &Session, name: &str, args: Option<&str>) -> Result<Exit, Vec<Error>> {
    let arguments = arguments(args).map_err(|e| vec![e])?;
    let (project, compilation) = session.compile().await?;
    let Some(operations) = project.operations.clone() else { return Ok(Exit::Success) };
    let id = operations.macro_id(name).map_err(|e| vec![e])?;
    let operator = Operator::open(&session.env, &project, &compilation, false).await.map_err(|e| vec![e])?;
    let (running, called) = (Arc::clone(&operator), name.to_string());
    let started = (session.env.now_micros(), Instant::now());
    let done =
        tokio::task::spawn_blocking(move || operations.call(&called, &arguments, running as Arc<dyn Answers>)).await;
    let done = done.map_err(|e| vec![Error::internal(format!("the operation ended: {e}"))])?;
    warn(session, &operator, name);
    let (exit, result) = match done {
        Ok(said) => {
            tell(session, said);
            (Exit::Success, RunResult::new(id, RunStatus::Success).failures(0))
        }
        // It was never called.
        Err(error) if error.code() == "bad-args" && error.span().is_none() => return Err(vec![error]),
        Err(error) => {
            session.print_error(&error);
            (Exit::Failed, RunResult::new(id, RunStatus::Error).failures(1).message(error.render()))
        }
    };
    session.artifacts.record(result.timed(started.0, started.1.elapsed()));
    Ok(exit)
}

/// `--args '{days: 3}'`
fn arguments(text: Option<&str>) -> Result<Map<String, Json>> {
    let Some(text) = text else { return Ok(Map::new()) };
    let bad = |what: String| {
        Error::user("bad-args", format!("--args is not a YAML mapping{what}"))
            .with_hint("write --args '{days: 3, dry_run: true}'")
    };
    match serde_yaml::from_str::<Json>(text) {
        Ok(Json::Object(arguments)) => Ok(arguments),
        Ok(Json::Null) => Ok(Map::new()),
        Ok(_) => Err(bad(String::new())),
        Err(e) => Err(bad(format!(": {e}"))),
    }
}

//! Which command leaves which artifact in `target/`, as dbt's commands do.
//!
//! A command that loads the project hands it to [`Artifacts::loaded`], which writes the manifest; what it did to each node it
//! [`Artifacts::record`]s, and [`Artifacts::finish`] writes the run's results when the command has ended, however it ended.

use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::args::{Cli, Command, Docs, SourceCommand};
use crate::env::Env;
use crate::error::Result;
use crate::project::Project;
use crate::project::artifacts::{self, Invocation, RunResult};

/// Commands whose results become rows of `_smelt/runs`.
const NOTED: [&str; 5] = ["run", "build", "snapshot", "seed", "test"];

/// The artifacts of one command.
pub(super) struct Artifacts {
    pub invocation: Invocation,
    which: &'static str,
    manifest: bool,
    run_results: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    project: Option<Arc<Project>>,
    results: Vec<RunResult>,
}

impl Artifacts {
    /// Those of a command line, which begins now.
    pub(super) fn of(env: &Env, cli: &Cli) -> Self {
        let command = &cli.command;
        let (which, manifest, run_results) = written_by(command);
        // Every flag that was given, so that `retry` can repeat the command.
        let mut args = cli.given.clone();
        // These dbt's tools look for whether given or not.
        if command.chooses() {
            for (key, value) in [("select", json!([])), ("exclude", json!([])), ("full_refresh", json!(false))] {
                args.entry(key.to_string()).or_insert(value);
            }
        }
        args.insert("which".to_string(), which.into());
        Artifacts { invocation: Invocation::new(env, args), which, manifest, run_results, state: Mutex::default() }
    }

    /// The project, when it has been read.
    pub(super) fn project(&self) -> Option<Arc<Project>> {
        self.state.lock().project.clone()
    }

    /// What was recorded so far.
    pub(super) fn results(&self) -> Vec<RunResult> {
        self.state.lock().results.clone()
    }

    /// dbt's name of the command.
    pub(super) fn which(&self) -> &'static str {
        self.which
    }

    /// None: for work that is no command of a user's on this project.
    pub(super) fn none(env: &Env) -> Self {
        let invocation = Invocation::new(env, BTreeMap::new());
        Artifacts { invocation, which: "run", manifest: false, run_results: false, state: Mutex::default() }
    }

    /// The project was read: its manifest is written, where the command does that.
    pub(super) fn loaded(&self, env: &Env, project: &Arc<Project>) -> Result<()> {
        self.state.lock().project = Some(Arc::clone(project));
        if self.manifest {
            artifacts::write(project, "manifest.json", artifacts::manifest(project, &self.invocation, env), env)?;
        }
        Ok(())
    }

    /// What happened to a node; a later result of the same node replaces an earlier one.
    pub(super) fn record(&self, result: RunResult) {
        let results = &mut self.state.lock().results;
        match results.iter_mut().find(|r| r.unique_id == result.unique_id) {
            Some(earlier) => *earlier = result,
            None => results.push(result),
        }
    }

    /// What `_smelt/runs` is to know: the project, dbt's name of the command, and what it did to each node; `None` when it makes and tests
    /// nothing.
    pub fn past(&self) -> Option<(Arc<Project>, String, Vec<RunResult>)> {
        let state = self.state.lock();
        let which = self.invocation.args.get("which").and_then(Json::as_str).filter(|w| NOTED.contains(w))?;
        // Unit tests open no lake.
        let is_noted = state.results.iter().any(|r| !r.unique_id.starts_with("unit_test."));
        let project = state.project.clone().filter(|_| is_noted)?;
        Some((project, which.to_string(), state.results.clone()))
    }

    /// Writes the results, where the command does that and got as far as reading the project.
    pub(super) fn finish(&self, env: &Env) -> Result<()> {
        let state = self.state.lock();
        let Some(project) = state.project.as_ref().filter(|_| self.run_results) else { return Ok(()) };
        if self.which == "up" && state.results.is_empty() {
            // What only maintains tables has run nothing: the results of the command before stay.
            return Ok(());
        }
        let elapsed = env.now_micros().saturating_sub(self.invocation.started_at);
        let elapsed = Duration::from_micros(u64::try_from(elapsed).unwrap_or(0));
        let json = artifacts::run_results(project, &state.results, &self.invocation, elapsed, env);
        artifacts::write(project, "run_results.json", json, env)?;
        Ok(())
    }
}

/// dbt's name of a command, and whether it writes a manifest and results.
fn written_by(command: &Command) -> (&'static str, bool, bool) {
    match command {
        Command::Compile { .. } => ("compile", true, true),
        Command::Ls { .. } => ("list", true, false),
        Command::Run { .. } => ("run", true, true),
        Command::Build { .. } => ("build", true, true),
        Command::Snapshot { .. } => ("snapshot", true, true),
        Command::Seed { .. } => ("seed", true, true),
        Command::Test { .. } => ("test", true, true),
        Command::Up { .. } => ("up", true, true),
        Command::RunOperation { .. } => ("run-operation", true, true),
        Command::Docs { command: Docs::Generate(_) } => ("generate", true, true),
        Command::Source { command: SourceCommand::Freshness { .. } } => ("freshness", true, false),
        Command::Show { .. } => ("show", false, false),
        Command::Plan { .. } => ("plan", false, false),
        _ => ("other", false, false),
    }
}

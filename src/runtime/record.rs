//! What a bounded run did to each model, for `run_results.json`: epochs added up.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::driver::Summary;
use super::report::{Event, Watcher};
use super::stages::SKIPPED;
use crate::env::Env;
use crate::error::Error;
use crate::project::artifacts::{RunResult, RunStatus};
use crate::project::{Dependency, Model, Project};

/// Listens to a run beside whoever else does.
pub struct Recorder {
    env: Env,
    tallies: Mutex<BTreeMap<String, Tally>>,
}

/// One model's share of a run.
#[derive(Default)]
struct Tally {
    /// µs since 1970.
    started_at: Option<i64>,
    busy: Duration,
    inserted: u64,
    deleted: u64,
    dead_letters: u64,
    quarantined: u64,
    late: u64,
    violations: BTreeMap<String, usize>,
    /// The last commit.
    version: Option<i64>,
    epoch: Option<i64>,
    /// Planned instant of its last run, µs.
    planned: Option<i64>,
    rows: u64,
    error: Option<Error>,
}

impl Recorder {
    pub fn new(env: &Env) -> Arc<Self> {
        Arc::new(Recorder { env: env.clone(), tallies: Mutex::default() })
    }

    /// A watcher that records and then tells `also`.
    pub fn watcher(self: &Arc<Self>, also: Watcher) -> Watcher {
        let this = Arc::clone(self);
        Arc::new(move |event| {
            this.note(event);
            also(event);
        })
    }

    fn note(&self, event: &Event<'_>) {
        let mut tallies = self.tallies.lock();
        match event {
            Event::Epoch { report, .. } => {
                let took = i64::try_from((report.compute + report.upload + report.commit).as_micros()).unwrap_or(0);
                for model in &report.models {
                    let tally = tallies.entry(model.model.clone()).or_default();
                    if model.busy > Duration::ZERO || model.committed {
                        tally.started_at.get_or_insert_with(|| self.env.now_micros().saturating_sub(took));
                    }
                    tally.busy += model.busy;
                    tally.inserted += model.inserted;
                    tally.deleted += model.deleted;
                    tally.dead_letters += model.dead_letters;
                    tally.quarantined += model.quarantined;
                    tally.late += model.late;
                    for (name, rows) in &model.violations {
                        *tally.violations.entry(name.clone()).or_default() += rows;
                    }
                    if model.version >= 0 {
                        tally.version = Some(model.version);
                        tally.rows = model.table_rows;
                    }
                    if model.committed {
                        tally.epoch = Some(report.epoch);
                        tally.planned = model.run.or(tally.planned);
                        // A run that failed and then was made is made.
                        tally.error = None;
                    }
                }
            }
            Event::Parked { model, error } | Event::RunFailed { model, error, .. } => {
                tallies.entry((*model).to_string()).or_default().error = Some((*error).clone());
            }
            Event::Opened { .. } | Event::Note(_) | Event::Measured(_) | Event::Restarting { .. } => {}
        }
    }

    /// The results of `models` whose runs have just ended; what they did next is counted anew.
    pub fn take(&self, project: &Project, models: &BTreeSet<String>) -> Vec<RunResult> {
        let results = self.results(project, Some(models), Ok(&Summary::default()));
        self.tallies.lock().retain(|name, _| !models.contains(name));
        results
    }

    /// One result per model that the run was to make, in the graph's order. `outcome`: how the run as a whole ended.
    pub fn results(
        &self,
        project: &Project,
        selected: Option<&BTreeSet<String>>,
        outcome: Result<&Summary, &Error>,
    ) -> Vec<RunResult> {
        let tallies = self.tallies.lock();
        let taken = project.models.iter().filter(|m| selected.is_none_or(|s| s.contains(&m.name)));
        let made = taken.filter(|m| m.is_made());
        let mut results: Vec<RunResult> = Vec::new();
        // Models stand in topological order: what a view reads has its result already.
        let mut stopped: BTreeSet<&str> = BTreeSet::new();
        for model in made {
            let waits_for = model.depends_on.iter().find_map(|d| match d {
                Dependency::Model(name) if stopped.contains(name.as_str()) => Some(name),
                _ => None,
            });
            let result = match waits_for {
                Some(upstream) if !model.materialized.has_table() => {
                    RunResult::new(&model.unique_id, RunStatus::Skipped)
                        .message(format!("waits for {upstream}, which is stopped"))
                }
                _ => self.result(model, tallies.get(&model.name), outcome),
            };
            if result.status != RunStatus::Success {
                stopped.insert(&model.name);
            }
            results.push(result);
        }
        results
    }

    fn result(&self, model: &Model, tally: Option<&Tally>, outcome: Result<&Summary, &Error>) -> RunResult {
        let none = Tally::default();
        let tally = tally.unwrap_or(&none);
        let parked = outcome.ok().and_then(|s| s.parked.iter().find(|(name, _)| *name == model.name));
        let (status, message) = match (parked.map(|(_, e)| e).or(tally.error.as_ref()), outcome) {
            (Some(error), _) if [SKIPPED, "upstream-parked"].contains(&error.code()) => {
                (RunStatus::Skipped, error.message().to_string())
            }
            (Some(error), _) => (RunStatus::Error, error.render()),
            (None, Err(error)) if tally.epoch.is_none() => {
                (RunStatus::Skipped, format!("the run ended before it: {}", error.message()))
            }
            (None, _) => (RunStatus::Success, done(model, tally)),
        };
        let started_at = tally.started_at.unwrap_or_else(|| self.env.now_micros());
        let mut result = RunResult::new(&model.unique_id, status).timed(started_at, tally.busy).message(message);
        if model.materialized.has_table() {
            result = result
                .response("rows_affected", tally.inserted + tally.deleted)
                .response("rows_inserted", tally.inserted)
                .response("rows_deleted", tally.deleted)
                .response("rows", tally.rows);
        }
        for (key, value) in [("version", tally.version), ("epoch", tally.epoch), ("planned_at", tally.planned)] {
            if let Some(value) = value {
                result = result.response(key, value);
            }
        }
        let aside = [("dead_letters", tally.dead_letters), ("quarantined", tally.quarantined), ("late", tally.late)];
        for (key, rows) in aside {
            if rows > 0 {
                result = result.response(key, rows);
            }
        }
        if !tally.violations.is_empty() {
            result = result.response("violations", serde_json::json!(tally.violations));
        }
        result
    }
}

fn done(model: &Model, tally: &Tally) -> String {
    match (model.materialized.has_table(), tally.epoch) {
        (false, _) => "inlined into its readers".to_string(),
        (true, Some(_)) => format!("{} rows (+{} −{})", tally.rows, tally.inserted, tally.deleted),
        (true, None) => format!("{} rows, unchanged", tally.rows),
    }
}

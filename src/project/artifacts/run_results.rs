//! `run_results.json` (v6): what a command did to each node.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::{Invocation, manifest, rfc3339};
use crate::env::Env;
use crate::project::Project;

/// How a node ended. Models, seeds, snapshots and operations succeed; tests pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    Success,
    /// It could not run to its end.
    Error,
    /// Something it needs has failed.
    Skipped,
    Pass,
    /// A test found rows.
    Fail,
    /// A test found rows, and only warns.
    Warn,
}

impl RunStatus {
    /// As artifacts and `result:` selectors write it.
    pub fn name(self) -> &'static str {
        match self {
            RunStatus::Success => "success",
            RunStatus::Error => "error",
            RunStatus::Skipped => "skipped",
            RunStatus::Pass => "pass",
            RunStatus::Fail => "fail",
            RunStatus::Warn => "warn",
        }
    }
}

/// A part of a node's work: `compile` or `execute`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timing {
    pub name: &'static str,
    pub started_at: String,
    pub completed_at: String,
}

/// What happened to one node. Compiled code and relation are added from the project when it is written.
#[derive(Debug, Clone, Serialize)]
pub struct RunResult {
    pub status: RunStatus,
    pub timing: Vec<Timing>,
    pub thread_id: String,
    /// Seconds.
    pub execution_time: f64,
    /// Facts of the engine: `rows_affected`, `version` of the Delta commit, `epoch`, …
    pub adapter_response: BTreeMap<String, Json>,
    pub message: Option<String>,
    /// Rows a test has found.
    pub failures: Option<u64>,
    /// `model.telecom.fact_events`
    pub unique_id: String,
}

impl RunResult {
    /// A node that has ended so, without times.
    pub fn new(unique_id: impl Into<String>, status: RunStatus) -> Self {
        RunResult {
            status,
            timing: Vec::new(),
            thread_id: "main".to_string(),
            execution_time: 0.0,
            adapter_response: BTreeMap::new(),
            message: None,
            failures: None,
            unique_id: unique_id.into(),
        }
    }

    /// With the instant (µs since 1970) its work began, and how long that was.
    pub fn timed(mut self, started_at: i64, took: Duration) -> Self {
        let ended = started_at.saturating_add(i64::try_from(took.as_micros()).unwrap_or(i64::MAX));
        self.timing = vec![Timing { name: "execute", started_at: rfc3339(started_at), completed_at: rfc3339(ended) }];
        self.execution_time = took.as_secs_f64();
        self
    }

    /// With a line for people.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// With the number of rows a test has found.
    pub fn failures(mut self, rows: u64) -> Self {
        self.failures = Some(rows);
        self
    }

    /// With a fact of the engine.
    pub fn response(mut self, key: &str, value: impl Into<Json>) -> Self {
        self.adapter_response.insert(key.to_string(), value.into());
        self
    }
}

/// The artifact of an invocation that took so long. Results keep their order.
pub fn run_results(
    project: &Project,
    results: &[RunResult],
    invocation: &Invocation,
    elapsed: Duration,
    env: &Env,
) -> Json {
    let compiled = manifest::compiled(project);
    let results: Vec<Json> = results
        .iter()
        .map(|result| {
            let mut json = serde_json::to_value(result).unwrap_or_default();
            let node = compiled.get(result.unique_id.as_str());
            json["compiled"] = node.is_some().into();
            json["compiled_code"] = node.map(|n| n.0).into();
            json["relation_name"] = node.and_then(|n| n.1.clone()).into();
            json
        })
        .collect();
    json!({
        "metadata": invocation.metadata("run-results/v6", env),
        "results": results,
        "elapsed_time": elapsed.as_secs_f64(),
        "args": invocation.args,
    })
}

//! Past runs, as `_smelt/runs` has them: bounded commands write theirs when they end, `smelt up` as they happen.
//!
//! What is written says what was done; nothing is ever decided by it. So a row that cannot be written costs a warning.

use arrow::array::RecordBatch;
use datafusion::common::Column;
use datafusion::prelude::{Expr, SessionContext, col, lit};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::pipeline::lake_options;
use super::report::{Event, ModelReport, Watcher};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::lake::{Lake, RunRow};
use crate::project::Project;
use crate::project::artifacts::{Invocation, RunResult};
use crate::types::parse_instant;

/// `up` gathers rows for so long before it writes them.
const GATHER: Duration = Duration::from_secs(2);

/// Writes what a command did to each node.
pub async fn record_runs(
    env: &Env,
    project: &Project,
    invocation: &Invocation,
    command: &str,
    results: &[RunResult],
) -> Result<()> {
    let lake = Lake::open(env, &project.target.lake, lake_options(project))?;
    let now = env.now_micros();
    let rows: Vec<RunRow> = results.iter().map(|r| row(env, project, invocation, command, r, now)).collect();
    lake.append_runs(&rows, now, project.target.runs_retention).await
}

fn row(env: &Env, project: &Project, invocation: &Invocation, command: &str, result: &RunResult, now: i64) -> RunRow {
    let timing = result.timing.iter().find(|t| t.name == "execute");
    let at = |text: Option<&String>| text.and_then(|t| parse_instant(t)).unwrap_or(now);
    let number = |key: &str| result.adapter_response.get(key).and_then(serde_json::Value::as_i64);
    let (resource_type, _) = result.unique_id.split_once('.').unwrap_or_default();
    RunRow {
        invocation_id: invocation.id.clone(),
        command: command.to_string(),
        target: project.target.name.clone(),
        name: name_of(project, &result.unique_id),
        resource_type: resource_type.to_string(),
        unique_id: result.unique_id.clone(),
        status: result.status.name().to_string(),
        started_at: at(timing.map(|t| &t.started_at)),
        ended_at: at(timing.map(|t| &t.completed_at)),
        seconds: result.execution_time,
        rows: number("rows"),
        rows_inserted: number("rows_inserted"),
        rows_deleted: number("rows_deleted"),
        failures: result.failures.and_then(|n| i64::try_from(n).ok()),
        planned_at: number("planned_at"),
        version: number("version"),
        epoch: number("epoch"),
        message: result.message.as_ref().map(|text| env.redact(text)),
    }
}

fn name_of(project: &Project, unique_id: &str) -> String {
    let model = project.models.iter().find(|m| m.unique_id == unique_id).map(|m| &m.name);
    let test = || project.tests.iter().find(|t| t.unique_id == unique_id).map(|t| &t.name);
    let unit = || project.unit_tests.iter().find(|t| t.unique_id == unique_id).map(|t| &t.name);
    model.or_else(test).or_else(unit).cloned().unwrap_or_default()
}

/// Newest first: the runs of `name` (None: of everything), only those that did not end well if `failed`; `limit` at most. None: there is
/// no such table yet.
pub async fn past_runs(
    env: &Env,
    project: &Project,
    name: Option<&str>,
    failed: bool,
    limit: usize,
) -> Result<Option<Vec<RecordBatch>>> {
    let lake = Lake::open(env, &project.target.lake, lake_options(project))?;
    let Some(table) = lake.runs().await? else { return Ok(None) };
    let column = |name: &str| -> Expr { col(Column::new_unqualified(name)) };
    let mut frame = SessionContext::new().read_table(table.committed_snapshot().provider())?;
    if let Some(name) = name {
        frame = frame.filter(column("name").eq(lit(name)).or(column("unique_id").eq(lit(name))))?;
    }
    if failed {
        let bad = ["error", "fail", "skipped"].map(lit).to_vec();
        frame = frame.filter(column("status").in_list(bad, false))?;
    }
    let newest = ["ended_at", "started_at"].map(|name| column(name).sort(false, false));
    let rows = frame.sort(newest.to_vec())?.limit(0, Some(limit))?.collect().await?;
    Ok(Some(rows))
}

/// The past runs of a process that goes on: each run that a schedule asked for, and each model that stopped.
pub struct RunLog {
    rows: mpsc::UnboundedSender<RunRow>,
    written: JoinHandle<()>,
    env: Env,
    project: Arc<Project>,
    invocation: String,
}

impl RunLog {
    /// Starts writing.
    pub fn start(env: &Env, project: &Arc<Project>, invocation: &Invocation) -> Result<Self> {
        let lake = Lake::open(env, &project.target.lake, lake_options(project))?;
        let (rows, mut arrived) = mpsc::unbounded_channel::<RunRow>();
        let (clock, kept) = (env.clone(), project.target.runs_retention);
        let written = tokio::spawn(async move {
            while let Some(first) = arrived.recv().await {
                let mut rows = vec![first];
                let deadline = tokio::time::sleep(GATHER);
                tokio::pin!(deadline);
                loop {
                    tokio::select! {
                        row = arrived.recv() => match row {
                            Some(row) => rows.push(row),
                            None => break,
                        },
                        () = &mut deadline => break,
                    }
                }
                if let Err(error) = lake.append_runs(&rows, clock.now_micros(), kept).await {
                    tracing::warn!("past runs are not written: {}", error.message());
                }
            }
        });
        let (env, project, invocation) = (env.clone(), Arc::clone(project), invocation.id.clone());
        Ok(RunLog { rows, written, env, project, invocation })
    }

    /// A watcher that notes runs and then tells `also`.
    pub fn watcher(&self, also: Watcher) -> Watcher {
        let (rows, env) = (self.rows.clone(), self.env.clone());
        let (project, invocation) = (Arc::clone(&self.project), self.invocation.clone());
        Arc::new(move |event| {
            let now = env.now_micros();
            let row = |model: &str, status: &str| RunRow {
                invocation_id: invocation.clone(),
                command: "up".to_string(),
                target: project.target.name.clone(),
                started_at: now,
                ended_at: now,
                status: status.to_string(),
                ..of_model(&project, model)
            };
            let failed = |error: &Error| Some(env.redact(&error.render()));
            // The receiver may have ended with the runtime: nobody is left to tell.
            match event {
                Event::Epoch { report, .. } => {
                    for model in report.models.iter().filter(|m| m.run.is_some() && m.committed) {
                        let _ = rows
                            .send(RunRow { epoch: Some(report.epoch), ..made(row(&model.model, "success"), model) });
                    }
                }
                Event::RunFailed { model, planned, error, .. } => {
                    let planned_at = Some(*planned);
                    let _ = rows.send(RunRow { planned_at, message: failed(error), ..row(model, "error") });
                }
                Event::Parked { model, error } => {
                    let status = if error.code() == "upstream-parked" { "skipped" } else { "error" };
                    let _ = rows.send(RunRow { message: failed(error), ..row(model, status) });
                }
                Event::Opened { .. } | Event::Note(_) | Event::Measured(_) | Event::Restarting { .. } => {}
            }
            also(event);
        })
    }

    /// Writes what is left. The watchers must be gone.
    pub async fn finish(self) {
        drop(self.rows);
        let _ = tokio::time::timeout(Duration::from_secs(10), self.written).await;
    }
}

fn of_model(project: &Project, name: &str) -> RunRow {
    let unique_id = project.models.iter().find(|m| m.name == name).map(|m| m.unique_id.clone()).unwrap_or_default();
    let resource_type = unique_id.split('.').next().unwrap_or_default().to_string();
    RunRow { name: name.to_string(), resource_type, unique_id, ..RunRow::default() }
}

fn made(row: RunRow, report: &ModelReport) -> RunRow {
    let count = |n: u64| i64::try_from(n).ok();
    let took = i64::try_from(report.busy.as_micros()).unwrap_or(0);
    RunRow {
        started_at: row.ended_at.saturating_sub(took),
        seconds: report.busy.as_secs_f64(),
        rows: count(report.table_rows),
        rows_inserted: count(report.inserted),
        rows_deleted: count(report.deleted),
        planned_at: report.run,
        version: Some(report.version),
        ..row
    }
}

//! Runs of models that are made at times: a `table` is recomputed and compared, a `snapshot` gets its next versions.

use arrow::array::RecordBatch;
use datafusion::common::{Column, ScalarValue};
use datafusion::prelude::{SessionContext, col, lit};
use futures::TryStreamExt;
use std::sync::Arc;

use super::compute::{EpochRuns, EpochState, How, Outcome, parks};
use super::jobs::{Job, Runs};
use super::pipeline::Pipeline;
use crate::error::{Error, Result};
use crate::operators::{Circuit, Followed, History, Mode};
use crate::plan::stored::to_stored;
use crate::plan::{CompiledModel, CompiledSnapshot};
use crate::project::{Materialization, When};
use crate::state::StateMemory;
use crate::types::SignedBatch;

/// A run that failed, until whoever watches is told.
pub(super) struct FailedRun {
    pub model: String,
    pub planned: i64,
    pub error: Error,
    pub retry: Option<std::time::Duration>,
}

impl Pipeline {
    /// Makes model `index` if it is due.
    pub(super) async fn compute_run(&mut self, index: usize, epoch: &mut EpochState) -> Result<Outcome> {
        let now = self.env.now_micros();
        let kind = self.nodes[index].compiled.model.materialized;
        if kind == Materialization::Incremental && self.nodes[index].replace {
            return self.sync_columns(index).await;
        }
        let planned = match &epoch.runs {
            // What reads a seed must not meet it empty.
            EpochRuns::None | EpochRuns::First | EpochRuns::Due | EpochRuns::Held(_)
                if kind == Materialization::Seed =>
            {
                let job = self.nodes[index].job.as_ref();
                job.filter(|job| (job.last.is_none() && job.is_untried()) || job.edited).map(|_| now)
            }
            EpochRuns::None => None,
            EpochRuns::These(models, planned) => models.contains(&index).then_some(*planned),
            EpochRuns::Held(made) if *made == index => self.nodes[index].job.as_mut().and_then(|job| job.held.take()),
            runs => {
                let changed = self.changes_of_inputs(index, epoch)?.iter().flatten().any(|b| !b.is_empty());
                let job = self.nodes[index].job.as_ref();
                match runs {
                    // An incremental model runs once in a command: rows it adds twice are there twice.
                    EpochRuns::First if kind == Materialization::Incremental => None,
                    EpochRuns::First => job.filter(|job| job.last.is_none() && changed).map(|_| now),
                    _ => job.and_then(|job| job.due(now, changed)),
                }
            }
        };
        // A table of other columns than its readers expect cannot wait.
        let planned = planned.or_else(|| self.nodes[index].replace.then_some(now));
        let Some(planned) = planned else {
            // A change that no run takes: the next one reads everything again.
            if self.nodes[index].followed.is_some() && self.has_changes(index, epoch)? {
                self.forget(index);
            }
            return Ok(Outcome::default());
        };
        let is_held = self.must_hold(index, &epoch.runs);
        if let Some(job) = &mut self.nodes[index].job {
            job.trying = Some(planned);
            job.held = is_held.then_some(planned);
        }
        if is_held {
            self.forget(index);
            return Ok(Outcome::default());
        }
        let mut outcome = match kind {
            Materialization::Incremental => self.run_incremental(index, epoch, planned).await?,
            Materialization::Snapshot => self.take_snapshot(index, epoch, planned).await?,
            _ => self.refresh(index, epoch, How::Run).await?,
        };
        outcome.run = Some(planned);
        Ok(outcome)
    }

    async fn take_snapshot(&mut self, index: usize, epoch: &mut EpochState, planned: i64) -> Result<Outcome> {
        let compiled = Arc::clone(&self.nodes[index].compiled);
        let snapshot = compiled.snapshot.as_ref().ok_or_else(|| Error::internal("a snapshot without its columns"))?;
        let is_continuous = compiled.model.config.schedule.as_ref().is_some_and(|s| s.when == When::Continuous);
        // Only where it is going to be asked again and again is the state worth having.
        if is_continuous && matches!(epoch.runs, EpochRuns::Due) && compiled.incremental.is_ok() {
            let taken = self.follow(index, epoch, planned).await;
            if !matches!(taken, Ok(Some(_))) {
                self.forget(index);
            }
            if let Some(outcome) = taken? {
                return Ok(outcome);
            }
        }
        let mut providers = Vec::with_capacity(compiled.inputs.len());
        for slot in 0..compiled.inputs.len() {
            providers.push(self.full_provider(index, slot, epoch).await?);
        }
        let plan = self.planner.bind(&compiled, &providers)?;
        let rows: Vec<RecordBatch> = self.planner.execute(&plan).await?.try_collect().await?;
        let rows: Vec<RecordBatch> = rows.iter().map(|rows| to_stored(rows, &snapshot.query)).collect::<Result<_>>()?;
        let history = history_of(&compiled, snapshot, is_continuous);
        let versions = self.versions(index, &history).await?;
        let delta = tokio::task::block_in_place(|| history.change(&versions, &rows, planned))?;
        let rows_in = rows.iter().map(RecordBatch::num_rows).sum();
        Ok(Outcome { how: How::Run, rows_in, delta, ..Outcome::default() })
    }

    /// The versions that a change of the query's rows can meet.
    async fn versions(&mut self, index: usize, history: &History<'_>) -> Result<Vec<RecordBatch>> {
        let main = self.nodes[index].main.as_mut().ok_or_else(|| Error::internal("a snapshot without a table"))?;
        let provider = main.ready().await?.snapshot().provider();
        let context = SessionContext::new_with_state(self.planner.session_state().clone());
        let mut versions = context.read_table(provider)?;
        if !history.needs_past() {
            let snapshot = history.snapshot;
            let end = || col(Column::new_unqualified(&snapshot.names.valid_to));
            let open = ScalarValue::TimestampMicrosecond(snapshot.valid_to_current, Some("UTC".into()));
            versions = versions.filter(end().is_null().or(end().eq(lit(open))))?;
        }
        let versions = versions.collect().await?;
        versions.iter().map(|rows| to_stored(rows, &history.table)).collect()
    }

    /// A run of a continuous snapshot: its query is kept up to date as a view is, and versions begin and end for the keys whose rows have
    /// changed. The first run, and the first after anything went wrong, takes in all rows and versions. None where rows of such types
    /// cannot be kept.
    async fn follow(&mut self, index: usize, epoch: &mut EpochState, planned: i64) -> Result<Option<Outcome>> {
        let compiled = Arc::clone(&self.nodes[index].compiled);
        let snapshot = compiled.snapshot.as_ref().ok_or_else(|| Error::internal("a snapshot without its columns"))?;
        let history = history_of(&compiled, snapshot, true);
        let is_new = self.nodes[index].followed.is_none() || self.nodes[index].circuit.is_none();
        let inputs = match is_new {
            false => self.changes_of_inputs(index, epoch)?,
            true => {
                let Some(rows) = Followed::new(&history)? else { return Ok(None) };
                let plan = compiled.incremental.as_ref().map_err(|f| Error::internal(f.reason.to_string()))?;
                let name = &compiled.model.name;
                self.nodes[index].circuit = Some(Circuit::new(name, plan, Mode::View, self.planner.session_state())?);
                let memory = StateMemory::new(name, "versions", self.planner.session_state());
                self.nodes[index].followed = Some(Following { rows, memory });
                let mut inputs = Vec::with_capacity(compiled.inputs.len());
                for slot in 0..compiled.inputs.len() {
                    inputs.push(self.full_input(index, slot, epoch).await?);
                }
                inputs
            }
        };
        let versions = if is_new { self.versions(index, &history).await? } else { Vec::new() };
        let node = &mut self.nodes[index];
        let (Some(circuit), Some(following)) = (&mut node.circuit, &mut node.followed) else {
            return Err(Error::internal("a snapshot without its state"));
        };
        let rows_in = inputs.iter().flatten().map(SignedBatch::num_rows).sum();
        let delta = tokio::task::block_in_place(|| {
            let stored = |batch: SignedBatch| Ok(batch.with_rows(to_stored(&batch.rows, &snapshot.query)?));
            let change = circuit.step(&inputs)?.into_iter().map(stored).collect::<Result<Vec<_>>>()?;
            let delta = match is_new {
                true => following.rows.begin(&history, &versions, &change, planned)?,
                false => following.rows.change(&history, &change, planned)?,
            };
            following.memory.resize(following.rows.bytes())?;
            Ok::<_, Error>(delta)
        })?;
        Ok(Some(Outcome { how: How::Run, rows_in, delta, ..Outcome::default() }))
    }

    /// The next run of a continuous snapshot reads everything again.
    fn forget(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        (node.circuit, node.followed) = (None, None);
    }

    /// A run failed: it is tried again later, and its table stays as it is. Errors that are not the model's own come back.
    pub(super) async fn fail_run(&mut self, index: usize, error: Error) -> Result<()> {
        if !parks(&error) {
            return Err(error.context(self.nodes[index].name()));
        }
        let now = self.env.now_micros();
        self.forget(index);
        let node = &mut self.nodes[index];
        for (_, cell) in node.cells() {
            cell.discard().await;
        }
        let model = node.name().to_string();
        let job = node.job.get_or_insert_default();
        let planned = job.trying.take().unwrap_or(now);
        job.held = None;
        let retry = job.failed(planned, now);
        self.failed_runs.push(FailedRun { model, planned, error, retry });
        Ok(())
    }

    /// Whether an epoch is worth running for what is due now although no input arrived.
    pub(super) fn is_run_due(&self) -> bool {
        let now = self.env.now_micros();
        self.nodes.iter().any(|n| n.runs() && n.job.as_ref().is_some_and(|job| job.due(now, false).is_some()))
    }

    /// Whether a run is due of a model whose template asked the lake before the run's time.
    pub(super) fn must_ask_again(&self) -> bool {
        let now = self.env.now_micros();
        let late = |job: &Job| match (job.due(now, false), job.last) {
            // Its SQL is new, and it runs at once.
            (Some(_), Some(_)) if job.edited && job.is_untried() => false,
            (Some(planned), Some(_)) => planned > self.options.asked_at && job.schedule.is_some(),
            (Some(_), None) => !job.is_untried(),
            (None, _) => false,
        };
        self.nodes.iter().any(|n| n.runs() && n.compiled.model.asks.rows && n.job.as_ref().is_some_and(late))
    }

    /// The runs a bounded command makes once its input has ended.
    pub(super) fn final_runs(&self, runs: Runs) -> EpochRuns {
        let now = self.env.now_micros();
        let (all, planned) = match runs {
            Runs::Scheduled => return EpochRuns::Due,
            Runs::All { planned } => (true, planned.unwrap_or(now)),
            Runs::Tables => (false, now),
        };
        let made = |index: &usize| {
            let node = &self.nodes[*index];
            let Some(job) = node.job.as_ref().filter(|_| node.runs()) else { return false };
            let first = job.last.is_none() || job.new;
            // A retry of a run that was committed repeats nothing.
            let again = job.last.is_none_or(|last| last < planned);
            if node.compiled.snapshot.is_some() { again && (all || first) } else { again || job.edited }
        };
        EpochRuns::These((0..self.nodes.len()).filter(made).collect(), planned)
    }
}

/// What a continuous snapshot keeps beside its query's circuit.
pub(super) struct Following {
    rows: Followed,
    memory: StateMemory,
}

fn history_of<'a>(compiled: &'a CompiledModel, snapshot: &'a CompiledSnapshot, several: bool) -> History<'a> {
    History { name: &compiled.model.name, snapshot, table: Arc::clone(&compiled.schema), several }
}

/// Whether a run found any row.
pub(super) fn found_rows(delta: &[SignedBatch], rows_before: u64) -> bool {
    rows_before > 0 || delta.iter().any(|b| !b.is_empty())
}

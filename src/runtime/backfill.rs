//! A view that must be computed anew (edited, added, its state lost) is computed beside its live table, while the other models go on.
//!
//! 1. After an epoch, when every table stands at its committed version *v*, a task gets snapshots of the model's inputs, readers of its
//!    sources from their start to where the epochs have taken them, and a second handle of its table. It steps a new circuit with all
//!    rows of the inputs, compares the result with the table and stages the difference: files and deletion vectors are uploaded, nothing
//!    is committed.
//! 2. Meanwhile the model sits epochs out, with what reads it. Readers of the lake see the table as it was.
//! 3. When the task has ended, the model takes part in an epoch again: it adopts what was staged, steps the circuit with what its inputs
//!    have changed by since *v* (logs say, or the sources once more) and with the epoch's own changes. One commit swaps all of that in,
//!    with the positions in its sources.
//!
//! The result is the one of a recomputation within the epoch: a circuit's state and the sum of its outputs depend on the sum of its
//! inputs only. Whatever goes wrong (a file was vacuumed, a table moved) costs the task's work: the model is then recomputed within
//! the epoch, as small models always are. One task runs at a time, in topological order: a reader's begins when its inputs are there.

use datafusion::catalog::TableProvider;
use datafusion::execution::SessionState;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinHandle;

use super::compute::{EpochState, How, Outcome, apply_expectations, apply_expectations_to, stream_of};
use super::inputs::read_back;
use super::pipeline::{Pipeline, Refresh, Upstream};
use super::starts::ledger;
use crate::error::{Error, Result};
use crate::lake::{Lake, Staged};
use crate::operators::{Circuit, Expectations, Mode, consolidate};
use crate::plan::CompiledModel;
use crate::types::{Positions, SignedBatch, Source};

/// A line of a file, for a guess at how many there are.
const BYTES_OF_A_ROW: u64 = 100;

/// A computation beside the live table. It ends with its owner.
pub(super) struct Backfill {
    task: JoinHandle<Result<Filled>>,
    inputs: Vec<ReadAt>,
}

/// Where an input was read.
enum ReadAt {
    /// Table id and version.
    Table(String, i64),
    /// A source, from its start to here.
    Source(Positions),
}

/// What the task reads.
enum Reading {
    Table(Arc<dyn TableProvider>),
    Source(Box<dyn Source>, Positions),
}

#[cfg(test)]
impl Backfill {
    /// Its result comes when the gate is open, at the earliest.
    pub(super) fn delay(&mut self, mut gate: tokio::sync::watch::Receiver<bool>) {
        let task = std::mem::replace(&mut self.task, tokio::spawn(async { Err(Error::internal("delayed")) }));
        self.task = tokio::spawn(async move {
            let _ = gate.wait_for(|open| *open).await;
            task.await.map_err(|e| Error::internal(e.to_string()))?
        });
    }
}

impl Drop for Backfill {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the task has made.
struct Filled {
    circuit: Circuit,
    staged: Staged,
    /// What was staged, after expectations; its delta is empty where the table is replaced.
    outcome: Outcome,
    /// Everything that belongs into quarantine.
    quarantine: Vec<SignedBatch>,
}

/// What the task works with.
struct Task {
    lake: Lake,
    session: SessionState,
    compiled: Arc<CompiledModel>,
    inputs: Vec<Reading>,
    version: i64,
    replace: bool,
}

impl Pipeline {
    /// Whether the model is being computed beside its table, or is going to be after this epoch.
    pub(super) async fn is_backfilled(&mut self, index: usize, epoch: &EpochState) -> Result<bool> {
        if let Some(backfill) = &self.nodes[index].backfill {
            return Ok(!backfill.task.is_finished());
        }
        let node = &self.nodes[index];
        let stored = node.kept.as_ref().is_some_and(|kept| kept.loading.is_some());
        let cold = node.circuit.is_none() && !stored && (!self.needs_no_state(index) || node.lost_history);
        let asked = node.refresh.is_some() || self.has_changes(index, epoch)?;
        // Rows that come and go with the clock are those of one instant.
        let possible = node.compiled.incremental.is_ok() && !node.streams && node.job.is_none() && !node.is_timed();
        // What a backfill could not do, the epoch does.
        let wanted = cold && asked && possible && !node.backfill_failed && self.is_large(index, epoch).await?;
        self.nodes[index].backfill_wanted = wanted;
        Ok(wanted)
    }

    /// Whether to read all inputs takes so long that others should not wait for it.
    pub(super) async fn is_large(&self, index: usize, epoch: &EpochState) -> Result<bool> {
        let mut rows = 0;
        for upstream in &self.nodes[index].upstreams {
            rows += match upstream {
                Upstream::Node(up) => epoch.rows_before[*up],
                Upstream::Source(source) => self.rows_before(*source, &self.reached(index, *source)?).await?,
                Upstream::Foreign(_) | Upstream::This => 0,
            };
        }
        Ok(rows >= self.worthwhile())
    }

    /// About how many rows a source has before `until`.
    async fn rows_before(&self, source: usize, until: &Positions) -> Result<u64> {
        let Some(ledger) = ledger(&self.lake, &self.sources[source].table) else {
            return Ok(until.values().map(|next| u64::try_from(*next).unwrap_or(0)).sum());
        };
        let end = until.values().copied().max().unwrap_or(0);
        if end == 0 {
            return Ok(0);
        }
        let files = ledger.entries().await?;
        let bytes: i64 = files.iter().filter(|file| file.seq < end).map(|file| file.size).sum();
        Ok(u64::try_from(bytes).unwrap_or(0).div_ceil(BYTES_OF_A_ROW))
    }

    /// Whether a model that keeps no state, which turned out to need its whole inputs in this epoch, had better be computed after it.
    pub(super) async fn must_be_read_anew(&mut self, index: usize, epoch: &EpochState) -> Result<bool> {
        let node = &self.nodes[index];
        let asked = node.refresh.is_some() && self.may_wait && !node.backfill_failed;
        if node.circuit.is_some() || !asked || !self.needs_no_state(index) || !self.is_large(index, epoch).await? {
            return Ok(false);
        }
        let node = &mut self.nodes[index];
        (node.lost_history, node.backfill_wanted) = (true, true);
        Ok(true)
    }

    /// Rows from which on others should not wait for a model.
    fn worthwhile(&self) -> u64 {
        self.project.target.state_snapshots.min_rows.max(1)
    }

    /// Committed rows of the models it reads.
    pub(super) fn input_rows(&self, index: usize) -> u64 {
        let rows = |upstream: &Upstream| match upstream {
            Upstream::Node(up) => Some(self.nodes[*up].main.as_ref()?.table().ok()?.row_count()),
            _ => None,
        };
        self.nodes[index].upstreams.iter().filter_map(rows).sum()
    }

    /// Whether a model that sat out to be computed can go on.
    pub(super) fn is_backfill_done(&self, index: usize) -> bool {
        self.nodes[index].backfill.as_ref().is_some_and(|backfill| backfill.task.is_finished())
    }

    /// Between two epochs: starts the next computation that is wanted, unless one runs.
    pub(super) async fn start_backfill(&mut self) -> Result<()> {
        // One that has ended may wait for an input that has yet to be computed itself.
        if self.nodes.iter().any(|node| node.backfill.as_ref().is_some_and(|b| !b.task.is_finished())) {
            return Ok(());
        }
        let ready = |node: &super::pipeline::Node| {
            let behind = |up: &Upstream| matches!(up, Upstream::Node(up) if self.nodes[*up].waits);
            node.backfill_wanted && node.backfill.is_none() && node.runs() && !node.upstreams.iter().any(behind)
        };
        let Some(index) = (0..self.nodes.len()).find(|i| ready(&self.nodes[*i])) else { return Ok(()) };
        let (mut read_at, mut inputs) = (Vec::new(), Vec::new());
        for upstream in self.nodes[index].upstreams.clone() {
            match upstream {
                Upstream::Node(up) => {
                    let cell = self.nodes[up].main.as_ref();
                    let table = cell.ok_or_else(|| Error::internal("an upstream without a table"))?.table()?;
                    read_at.push(ReadAt::Table(table.id().to_string(), table.version()));
                    inputs.push(Reading::Table(table.committed_snapshot().provider()));
                }
                Upstream::Source(source) => {
                    let until = self.reached(index, source)?;
                    inputs.push(Reading::Source(self.open_again(source)?, until.clone()));
                    read_at.push(ReadAt::Source(until));
                }
                Upstream::Foreign(_) | Upstream::This => {
                    return Err(Error::internal("a backfill reads what cannot be read again"));
                }
            }
        }
        let node = &mut self.nodes[index];
        let Some(cell) = &mut node.main else { return Ok(()) };
        let table = cell.ready().await?;
        // A table that compaction is about to change would not be the one that was compared.
        if table.is_maintaining() {
            return if table.maintenance_ended() { self.maintain().await } else { Ok(()) };
        }
        let task = Task {
            lake: self.lake.clone(),
            session: self.planner.session_state().clone(),
            compiled: Arc::clone(&node.compiled),
            inputs,
            version: table.version(),
            replace: node.replace,
        };
        self.notes.push(format!("{} is computed anew beside its table; the others go on", node.name()));
        node.backfill_wanted = false;
        node.backfill = Some(Backfill { task: tokio::spawn(task.run()), inputs: read_at });
        Ok(())
    }

    /// Swaps in what was computed beside the table, with what has come since. None when it must be recomputed after all.
    pub(super) async fn swap_in(&mut self, index: usize, epoch: &EpochState) -> Result<Option<Outcome>> {
        let Some(mut backfill) = self.nodes[index].backfill.take() else { return Ok(None) };
        let filled = match (&mut backfill.task).await {
            Ok(filled) => filled,
            Err(error) => Err(Error::internal(format!("a backfill ended unexpectedly: {error}"))),
        };
        let swapped = match filled {
            Ok(filled) => self.try_swap_in(index, filled, &backfill.inputs, epoch).await,
            Err(error) => Err(error),
        };
        match swapped {
            Ok(outcome) => Ok(Some(outcome)),
            Err(error) => {
                tracing::info!(model = self.nodes[index].name(), "computed within the epoch after all: {error}");
                let node = &mut self.nodes[index];
                node.circuit = None;
                node.backfill_failed = true;
                if let Some(cell) = &mut node.main {
                    cell.discard().await;
                }
                node.refresh.get_or_insert(Refresh::Behind);
                Ok(None)
            }
        }
    }

    async fn try_swap_in(
        &mut self,
        index: usize,
        filled: Filled,
        inputs: &[ReadAt],
        epoch: &EpochState,
    ) -> Result<Outcome> {
        let mut changes = self.changes_of_inputs(index, epoch)?;
        for (slot, read_at) in inputs.iter().enumerate() {
            match (self.nodes[index].upstreams[slot], read_at) {
                (Upstream::Node(up), ReadAt::Table(id, from)) => {
                    let now = epoch.versions_before[up];
                    let table = self.upstream(up).await?;
                    if table.id() != id || *from > now {
                        return Err(Error::environment("backfill-outdated", "an input is another table").permanent());
                    }
                    let missed = table.changes(*from, now).await?;
                    changes[slot].splice(0..0, missed);
                }
                (Upstream::Source(source), ReadAt::Source(from)) => {
                    let mut until = self.reached(index, source)?;
                    let mut rows = read_back(self.open_again(source)?, from, &until).await?;
                    // What the task read may be ahead of what this epoch begins with.
                    for (partition, next) in from {
                        let known = until.entry(partition.clone()).or_insert(*next);
                        *known = (*known).max(*next);
                    }
                    rows.extend(self.rows_since(source, &until, epoch));
                    changes[slot] = rows;
                    self.note_reached(index, source, &until)?;
                }
                _ => return Err(Error::internal("a backfill whose inputs are others by now")),
            }
        }
        let Filled { mut circuit, staged, mut outcome, quarantine } = filled;
        let since = tokio::task::block_in_place(|| circuit.step(&changes))?;
        let threads = self.project.target.threads;
        let node = &mut self.nodes[index];
        let cell = node.main.as_mut().ok_or_else(|| Error::internal("a view without a table"))?;
        let summary = cell.ready().await?.adopt(staged, threads)?;
        cell.staged.inserted += summary.inserted;
        cell.staged.deleted += summary.deleted;
        if let Some(side) = &mut node.quarantine {
            outcome.quarantine = side.ready().await?.diff(stream_of(quarantine)?).await?;
        }
        let mut latest = Outcome::default();
        apply_expectations(node, since, &mut latest)?;
        outcome.how = How::Refresh(node.refresh.map_or("cold", Refresh::name));
        outcome.rows_in += changes.iter().flatten().map(SignedBatch::num_rows).sum::<usize>();
        outcome.staged = outcome.delta.len();
        outcome.delta.append(&mut latest.delta);
        outcome.quarantine.append(&mut latest.quarantine);
        outcome.count(latest.violations);
        node.circuit = Some(circuit);
        if std::mem::take(&mut node.replace) {
            if let Some(cell) = &mut node.main {
                cell.must_commit = true;
            }
            self.refresh_readers(index);
        }
        Ok(outcome)
    }
}

impl Task {
    async fn run(self) -> Result<Filled> {
        let started = Instant::now();
        let name = self.compiled.model.name.clone();
        let mut inputs = Vec::with_capacity(self.inputs.len());
        let context = datafusion::prelude::SessionContext::new_with_state(self.session.clone());
        for input in self.inputs {
            inputs.push(match input {
                Reading::Table(provider) => {
                    let rows = context.read_table(provider)?.collect().await?;
                    rows.into_iter().map(SignedBatch::inserts).collect()
                }
                Reading::Source(reader, until) => read_back(reader, &Positions::new(), &until).await?,
            });
        }
        let rows_in = inputs.iter().flatten().map(SignedBatch::num_rows).sum();
        let read = started.elapsed();
        let (compiled, session) = (Arc::clone(&self.compiled), self.session.clone());
        let computed = tokio::task::spawn_blocking(move || {
            let plan = compiled.incremental.as_ref().map_err(|f| Error::internal(f.reason.to_string()))?;
            let mut circuit = Circuit::new(&compiled.model.name, plan, Mode::View, &session)?;
            let wanted = circuit.step(&inputs)?;
            drop(inputs);
            let wanted = match wanted.first().map(SignedBatch::schema) {
                Some(schema) if wanted.iter().any(SignedBatch::has_retractions) => consolidate(&schema, wanted)?,
                _ => wanted,
            };
            let expectations = Expectations::new(&compiled.expectations, &compiled.schema, &session)?;
            let mut full = Outcome { rows_in, ..Outcome::default() };
            apply_expectations_to(&compiled, &expectations, wanted, &mut full)?;
            Ok::<_, Error>((circuit, full))
        });
        let (circuit, mut outcome) =
            computed.await.map_err(|e| Error::internal(format!("computing {name}: {e}")))??;
        let computed = started.elapsed();
        let model = &self.compiled.model;
        let table = self.lake.table(&model.schema, &model.alias).await?;
        let mut table = table.filter(|table| table.version() == self.version).ok_or_else(|| {
            Error::environment("backfill-outdated", format!("the table of {name} has changed")).permanent()
        })?;
        let quarantine = std::mem::take(&mut outcome.quarantine);
        let wanted = std::mem::take(&mut outcome.delta);
        let summary = if self.replace {
            let rows = stream_of(wanted)?;
            let summary = table.replace(Arc::clone(&self.compiled.schema), Default::default(), rows).await?;
            table.locate_rows().await?;
            summary
        } else if table.row_count() == 0 {
            outcome.delta = wanted;
            table.stage(&outcome.delta).await?
        } else {
            outcome.delta = table.diff(stream_of(wanted)?).await?;
            table.stage(&outcome.delta).await?
        };
        table.prepare().await?;
        tracing::debug!(model = name, rows_in, ?read, ?computed, all = ?started.elapsed(), ?summary, "backfilled");
        Ok(Filled { circuit, staged: table.into_staged(summary), outcome, quarantine })
    }
}

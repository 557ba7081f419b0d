//! One epoch: compute every model in topological order, upload beside it, then commit in topological order.
//!
//! The order that makes it exactly once:
//! 1. each model's change is computed from its inputs' changes; its files upload while the next model computes;
//! 2. when every upload has ended, log entries are put in topological order ([`super::commit`]), side tables before their main
//!    table, each with the positions it reaches, so that no table ever refers to an upstream version that does not exist;
//! 3. one row in `_smelt/epochs` names every table's version and every position: the epoch is a consistent cut.
//!
//! A process killed anywhere leaves some tables ahead of others; the next start's recovery epoch (the same code without
//! source input) brings all of them to one cut.

use futures::future::{join_all, try_join_all};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cell::Cell;
use super::compute::{EpochRuns, EpochState, How, Outcome, parks};
use super::pipeline::{FINGERPRINT, Node, Pipeline, Upstream, cell_name};
use super::positions::{CLOCK, run_app, source_app};
use super::report::{EpochReport, ModelReport};
use super::snapshot::found_rows;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{FollowedTable, Table};
use crate::project::Materialization;
use crate::state::is_over;
use crate::types::{Positions, RejectKind, SignedBatch, SourceBatch};

impl Pipeline {
    /// Runs one epoch over `sources` (by source index). An error here ends the pipeline: it restarts from the lake.
    pub(super) async fn run_epoch(
        &mut self,
        sources: HashMap<usize, Vec<SourceBatch>>,
        runs: EpochRuns,
        recovery: bool,
    ) -> Result<EpochReport> {
        let started = Instant::now();
        let rows_read = sources.values().flatten().map(|b| b.rows.num_rows()).sum();
        let mut state = self.begin(sources, runs).await?;
        let mut reports: Vec<ModelReport> = Vec::with_capacity(self.nodes.len());
        for index in 0..self.nodes.len() {
            let begun = Instant::now();
            let mut report = ModelReport::new(&self.nodes[index].compiled.model);
            if self.nodes[index].runs() {
                self.nodes[index].waits = self.must_wait(index, &state).await?;
                if self.nodes[index].waits {
                    self.sit_out(index, &state).await?;
                } else if let Some(upstream) = self.parked_upstream(index) {
                    let error = Error::user("upstream-parked", format!("waits for {upstream}, which is stopped"));
                    self.park(index, error).await;
                } else {
                    match self.compute(index, &mut state).await {
                        // Only now it is known that it has to.
                        Ok(_) if self.nodes[index].waits => self.sit_out(index, &state).await?,
                        Ok(outcome) => {
                            report.note(&outcome);
                            if outcome.how != How::Idle {
                                self.nodes[index].last = outcome.how;
                            }
                            self.nodes[index].since.rows += outcome.rows_in as u64;
                            self.stage(index, outcome, &mut state).await?;
                        }
                        Err(error) if is_run(self.nodes[index].job.is_some(), &state.runs) => {
                            self.fail_run(index, error).await?;
                        }
                        Err(error) => self.fail(index, error).await?,
                    }
                }
            }
            self.release(index, &mut state);
            report.busy = begun.elapsed();
            reports.push(report);
        }
        let computed = started.elapsed();
        self.finish_uploads().await?;
        self.env.crash_point("after-uploads")?;
        let uploaded = started.elapsed();
        let changed = self.commit_all(&mut reports).await?;
        let committed = started.elapsed();
        self.settle_memory().await?;
        let report = EpochReport {
            epoch: self.epoch,
            recovery,
            changed,
            rows_read,
            models: reports,
            compute: computed,
            upload: uploaded - computed,
            commit: committed - uploaded,
        };
        self.tell_sources(&state)?;
        for (source, batches) in &state.sources {
            for batch in batches {
                let taken = self.sources[*source].taken.entry(batch.partition.clone()).or_insert(batch.next);
                *taken = (*taken).max(batch.next);
            }
        }
        Ok(report)
    }

    /// Lets go of the rows that no model behind `index` reads.
    fn release(&self, index: usize, state: &mut EpochState) {
        let later = &self.nodes[index + 1..];
        let is_read = |upstream: &Upstream| later.iter().any(|node| node.upstreams.contains(upstream));
        for upstream in self.nodes[index].upstreams.iter().chain([&Upstream::Node(index)]) {
            match upstream {
                _ if is_read(upstream) => {}
                Upstream::Node(up) => state.deltas[*up] = Vec::new(),
                Upstream::Source(source) => {
                    for batch in state.sources.get_mut(source).into_iter().flatten() {
                        batch.rows = SignedBatch::empty(batch.rows.rows.schema());
                    }
                }
                Upstream::Foreign(_) | Upstream::This => {}
            }
        }
    }

    async fn begin(&mut self, sources: HashMap<usize, Vec<SourceBatch>>, runs: EpochRuns) -> Result<EpochState> {
        let mut rows_before = Vec::with_capacity(self.nodes.len());
        let mut versions_before = Vec::with_capacity(self.nodes.len());
        let mut ids_before = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let table = node.main.as_ref().map(Cell::table).transpose()?;
            rows_before.push(table.map_or(0, Table::row_count));
            versions_before.push(table.map_or(-1, Table::version));
            ids_before.push(table.map_or_else(String::new, |table| table.id().to_string()));
        }
        let foreign = self.take_foreign_changes().await?;
        let deltas = vec![Vec::new(); self.nodes.len()];
        self.clock = self.clock.max(self.env.now_micros());
        Ok(EpochState { sources, deltas, rows_before, versions_before, ids_before, clock: self.clock, foreign, runs })
    }

    /// Whether a foreign table has a new version since it was last looked at, or was not looked at before. What has changed is for the
    /// next epoch.
    pub(super) async fn foreign_has_moved(&mut self) -> Result<bool> {
        if self.keeps_foreign || self.foreign.is_empty() {
            return Ok(false);
        }
        let versions = |tables: &[FollowedTable]| -> Vec<Option<i64>> {
            tables.iter().map(|followed| followed.table().map(Table::version)).collect()
        };
        let (first, before) = (self.foreign_changes.is_empty(), versions(&self.foreign));
        self.look_at_foreign().await?;
        Ok(first || before != versions(&self.foreign))
    }

    async fn look_at_foreign(&mut self) -> Result<()> {
        let changes = try_join_all(self.foreign.iter_mut().map(FollowedTable::advance)).await?;
        self.foreign_changes.resize(self.foreign.len(), Vec::new());
        self.foreign_changes.iter_mut().zip(changes).for_each(|(known, new)| known.extend(new));
        Ok(())
    }

    /// Changes of foreign tables since the last epoch.
    async fn take_foreign_changes(&mut self) -> Result<Vec<Vec<SignedBatch>>> {
        let none = vec![Vec::new(); self.foreign.len()];
        if self.keeps_foreign {
            return Ok(none);
        }
        self.look_at_foreign().await?;
        Ok(std::mem::replace(&mut self.foreign_changes, none))
    }

    /// Starts the uploads of what a model made of the epoch, and hands its change to its readers.
    async fn stage(&mut self, index: usize, outcome: Outcome, state: &mut EpochState) -> Result<()> {
        let refreshed = matches!(outcome.how, How::Refresh(_) | How::Run);
        let Outcome { mut delta, quarantine, run, staged, late, closed, .. } = outcome;
        self.note_positions(index, state, |_| true)?;
        self.stage_dead_letters(index, state).await?;
        let node = &mut self.nodes[index];
        state.deltas[index] = delta.clone();
        if let Some(cell) = &mut node.quarantine {
            cell.stage(quarantine).await?;
        }
        if let Some(cell) = &mut node.late {
            cell.stage(late).await?;
        }
        self.note_watermarks(index, state, closed)?;
        let node = &mut self.nodes[index];
        let fingerprint = node.compiled.fingerprint.clone();
        let edited = node.refresh.take().is_some() || refreshed;
        let is_timed = node.is_timed() && delta.iter().any(|batch| !batch.is_empty());
        if let Some(cell) = &mut node.main {
            if is_timed {
                cell.pending.insert(CLOCK.to_string(), state.clock);
            }
            let known = match cell.ready().await {
                Ok(table) => table.properties().get(FINGERPRINT).cloned(),
                Err(error) => return self.fail(index, error).await,
            };
            if edited && known.as_ref() != Some(&fingerprint) {
                cell.properties.insert(FINGERPRINT.to_string(), fingerprint);
            }
            if let (Some(planned), Some(job)) = (run, &mut node.job) {
                // Without a schedule nobody asks when it ran last, only whether it ever did.
                let materialized = node.compiled.model.materialized;
                let counted = matches!(materialized, Materialization::Snapshot | Materialization::Incremental);
                let matters = job.last.is_none() || job.schedule.is_some() || counted;
                // A seed without rows is loaded all the same.
                let found = found_rows(&delta, state.rows_before[index]) || materialized == Materialization::Seed;
                job.done(planned, found);
                if matters && job.last == Some(planned) {
                    // In the commit of its rows, and in one of its own when there are none.
                    let app = run_app(&cell_name(cell)?);
                    cell.pending.insert(app, planned);
                    cell.must_commit = true;
                }
            }
            cell.stage(delta.split_off(staged)).await?;
        }
        Ok(())
    }

    /// Bad records wait for nothing, not even for a model that sits the epoch out.
    pub(super) async fn stage_dead_letters(&mut self, index: usize, state: &EpochState) -> Result<()> {
        let letters = self.dead_letters(index, state)?;
        if let Some(cell) = &mut self.nodes[index].dead_letter {
            cell.stage(letters).await?;
        }
        Ok(())
    }

    /// The positions that those of a model's tables which `moves` reach with this epoch, as far as they are known before the upstreams
    /// commit.
    pub(super) fn note_positions(
        &mut self,
        index: usize,
        state: &EpochState,
        moves: impl Fn(Option<RejectKind>) -> bool,
    ) -> Result<()> {
        let mut moved: Vec<(String, Positions)> = Vec::new();
        for upstream in &self.nodes[index].upstreams {
            let Upstream::Source(source) = upstream else { continue };
            let Some(batches) = state.sources.get(source) else { continue };
            let mut next = Positions::new();
            for batch in batches {
                next.insert(batch.partition.clone(), batch.next);
            }
            moved.push((self.sources[*source].name.clone(), next));
        }
        for (_, cell) in self.nodes[index].cells().filter(|(kind, _)| moves(*kind)) {
            let table = cell_name(cell)?;
            for (source, positions) in &moved {
                for (partition, next) in positions {
                    let app = source_app(&table, source, partition);
                    // A reader that is ahead of the others stays where it is.
                    let next = cell.consumed.get(&app).map_or(*next, |known| (*known).max(*next));
                    let pending = cell.pending.entry(app).or_insert(next);
                    *pending = (*pending).max(next);
                }
            }
        }
        Ok(())
    }

    pub(super) fn parked_upstream(&self, index: usize) -> Option<String> {
        self.nodes[index].upstreams.iter().find_map(|upstream| match upstream {
            Upstream::Node(up) if self.nodes[*up].parked.is_some() => Some(self.nodes[*up].name().to_string()),
            _ => None,
        })
    }

    /// An error of one model parks it, unless it concerns the whole pipeline.
    async fn fail(&mut self, index: usize, error: Error) -> Result<()> {
        if !parks(&error) {
            return Err(error.context(self.nodes[index].name()));
        }
        self.park(index, error).await;
        Ok(())
    }

    /// Stops a model: its table stays at its last version, its state is dropped.
    pub(super) async fn park(&mut self, index: usize, error: Error) {
        let node = &mut self.nodes[index];
        tracing::error!(model = node.name(), "{}", self.env.redact(&error.render()));
        node.circuit = None;
        node.keyed = None;
        node.followed = None;
        node.backfill = None;
        node.backfill_wanted = false;
        node.parked = Some(error);
        for (_, cell) in node.cells() {
            cell.discard().await;
        }
    }

    /// Waits for every upload. One that failed for good (a full disk) parks its model and what reads it.
    async fn finish_uploads(&mut self) -> Result<()> {
        let uploads = self.nodes.iter_mut().enumerate().filter(|(_, node)| node.runs());
        let uploads = uploads.map(|(index, node)| async move { (index, prepare(node).await) });
        let failed: Vec<(usize, Error)> =
            join_all(uploads).await.into_iter().filter_map(|(index, done)| Some((index, done.err()?))).collect();
        for (index, error) in failed {
            if error.kind() == ErrorKind::Diverged {
                self.diverged.insert(self.nodes[index].name().to_string());
            }
            self.fail(index, error).await?;
        }
        self.park_readers().await;
        Ok(())
    }

    /// Counts what locators take now, and has state go to disk where they took more memory than there was.
    async fn settle_memory(&mut self) -> Result<()> {
        let mut failed = Vec::new();
        let session = self.planner.session_state();
        for (index, node) in self.nodes.iter_mut().enumerate().filter(|(_, node)| node.runs()) {
            let model = node.name().to_string();
            for (_, cell) in node.cells() {
                if let Err(error) = cell.reserve_locators(&model, session).await {
                    failed.push((index, error));
                }
            }
        }
        let pool = Arc::clone(&session.runtime_env().memory_pool);
        for (index, error) in failed {
            self.fail(index, error).await?;
        }
        for index in 0..self.nodes.len() {
            if is_over(&*pool)
                && let Some(circuit) = &mut self.nodes[index].circuit
                && let Err(error) = tokio::task::block_in_place(|| circuit.relieve())
            {
                self.fail(index, error).await?;
            }
        }
        self.park_readers().await;
        Ok(())
    }

    /// Parks what reads a parked model.
    pub(super) async fn park_readers(&mut self) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].runs()
                && let Some(upstream) = self.parked_upstream(index)
            {
                let error = Error::user("upstream-parked", format!("waits for {upstream}, which is stopped"));
                self.park(index, error).await;
            }
        }
    }

    /// Consumer groups are told what is in the lake.
    fn tell_sources(&mut self, state: &EpochState) -> Result<()> {
        for (index, batches) in &state.sources {
            let mut next = Positions::new();
            for batch in batches {
                next.insert(batch.partition.clone(), batch.next);
            }
            if let Some(feed) = &self.sources[*index].feed {
                feed.committed(next);
            }
        }
        Ok(())
    }

    /// Background maintenance of all tables: results of finished jobs are applied, due jobs are started.
    pub(super) async fn maintain(&mut self) -> Result<()> {
        for index in 0..self.nodes.len() {
            if !self.nodes[index].active {
                continue;
            }
            let mut moved = None;
            self.retain(index)?;
            let is_compared = self.nodes[index].backfill.is_some() || self.nodes[index].backfill_wanted;
            for (kind, cell) in self.nodes[index].cells() {
                let table = cell.ready().await?;
                let before = table.version();
                if let Err(error) = table.finish_maintenance().await {
                    // Maintenance that failed changed no row; it is tried again later.
                    tracing::warn!(table = table.name(), "maintenance: {error}");
                    table.reload().await?;
                }
                // What is compared with a backfill must not move.
                if !is_compared {
                    table.start_maintenance();
                }
                if kind.is_none() && table.version() != before {
                    moved = Some((before, table.version()));
                }
            }
            if let Some((before, after)) = moved {
                self.moved_without_change(index, before, after)?;
            }
        }
        if let Some(table) = self.epochs.table() {
            table.finish_maintenance().await?;
            table.start_maintenance();
        }
        Ok(())
    }

    /// Waits for background maintenance at the end of a run.
    pub(super) async fn drain_maintenance(&mut self, patience: Duration) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < patience {
            let mut busy = false;
            for node in &mut self.nodes {
                for (_, cell) in node.cells() {
                    let table = cell.ready().await?;
                    busy |= table.is_maintaining() && !table.maintenance_ended();
                }
            }
            if !busy {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.maintain().await
    }
}

/// Whether an error is that of one run, which is tried again, and not the model's.
fn is_run(is_job: bool, runs: &EpochRuns) -> bool {
    is_job && matches!(runs, EpochRuns::Due | EpochRuns::Held(_))
}

/// Waits for the uploads of a model's tables. Deletion vectors are uploaded here too, so that nothing but log entries is left to
/// put.
async fn prepare(node: &mut Node) -> Result<()> {
    for (_, cell) in node.cells() {
        cell.ready().await?.prepare().await?;
    }
    Ok(())
}

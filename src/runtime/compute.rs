//! What one model does in one epoch: from its inputs' changes to its table's change.
//!
//! A view steps its circuit with the changes; cold, edited, behind or not incremental, it is recomputed over the full
//! staged contents of its inputs and compared with its own table, which gives the same change. A streaming table steps
//! with the new rows of its stream only.

use arrow::array::{RecordBatch, UInt64Array};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::bulk::{Path, choose};
use super::foreign::rows_with_columns;
use super::pipeline::{Node, Pipeline, Refresh, Upstream, cell_name};
use super::positions::source_app;
use crate::error::{Error, ErrorKind, Result};
use crate::operators::{Circuit, Expectations, Mode, consolidate};
use crate::plan::CompiledModel;
use crate::plan::stored::to_stored;
use crate::types::{SignedBatch, SourceBatch};

/// What the epoch knows so far.
pub(super) struct EpochState {
    /// Rows read from sources, by source.
    pub sources: HashMap<usize, Vec<SourceBatch>>,
    /// Changes of the tables computed so far, by node.
    pub deltas: Vec<Vec<SignedBatch>>,
    /// Rows of each table before the epoch.
    pub rows_before: Vec<u64>,
    /// Version of each table before the epoch, and its id.
    pub versions_before: Vec<i64>,
    pub ids_before: Vec<String>,
    /// What `now()` is in it, µs.
    pub clock: i64,
    /// Changes of foreign tables, by index.
    pub foreign: Vec<Vec<SignedBatch>>,
    /// Which models are made in this epoch that are made at times.
    pub runs: EpochRuns,
}

/// Which models that are made at times an epoch makes.
#[derive(Debug, Clone, Default)]
pub(super) enum EpochRuns {
    /// None: the others go first.
    #[default]
    None,
    /// Those that never ran and whose input has rows now: others need not wait for the end, nor change everything then.
    First,
    /// Those that are due.
    Due,
    /// The same, and that of this model, which was held ([`super::held`]).
    Held(usize),
    /// These, for this planned instant (µs), due or not.
    These(Vec<usize>, i64),
}

/// How a model was computed, for reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum How {
    /// Nothing to do.
    #[default]
    Idle,
    /// The circuit was stepped with the changes.
    Incremental,
    /// The same, with state that had been stored.
    Restored,
    /// Recomputed and compared, with the reason.
    Refresh(&'static str),
    /// Made by a run of its own.
    Run,
    /// Recomputed by a stock plan because epoch after epoch rewrites the inputs.
    Bulk,
}

/// What one model made of an epoch.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub how: How,
    pub rows_in: usize,
    pub delta: Vec<SignedBatch>,
    pub quarantine: Vec<SignedBatch>,
    /// Rows of windows that were closed.
    pub late: Vec<SignedBatch>,
    /// Up to where windows are closed now, µs.
    pub closed: Option<i64>,
    /// (expectation, violating rows).
    pub violations: Vec<(String, usize)>,
    /// Planned instant of the run that made it, µs.
    pub run: Option<i64>,
    /// How many batches of the delta are staged already.
    pub staged: usize,
}

impl Outcome {
    /// Adds violating rows, by expectation.
    pub(super) fn count(&mut self, violations: impl IntoIterator<Item = (String, usize)>) {
        for (expectation, count) in violations {
            match self.violations.iter_mut().find(|(known, _)| *known == expectation) {
                Some((_, total)) => *total += count,
                None => self.violations.push((expectation, count)),
            }
        }
    }
}

impl Pipeline {
    /// Computes model `index`. Its table is not touched yet, but its circuit has stepped.
    pub(super) async fn compute(&mut self, index: usize, epoch: &mut EpochState) -> Result<Outcome> {
        let node = &self.nodes[index];
        if node.compiled.model.config.emit_on_close {
            return self.compute_on_close(index, epoch).await;
        }
        if node.streams {
            return self.compute_stream(index, epoch).await;
        }
        if node.job.is_some() {
            return self.compute_run(index, epoch).await;
        }
        if let Some(outcome) = self.swap_in(index, epoch).await? {
            self.forget_buckets(index)?;
            self.nodes[index].refresh = None;
            return Ok(outcome);
        }
        let mut lag = None;
        if self.has_stored_state(index) && (self.nodes[index].refresh.is_some() || self.has_changes(index, epoch)?) {
            lag = self.warm_view(index, epoch).await?;
            if lag.is_some() {
                self.nodes[index].refresh = None;
            }
        }
        let restored = lag.is_some();
        if lag.is_none() {
            lag = self.follow_inputs(index, epoch).await?;
            if lag.is_none() && self.must_be_read_anew(index, epoch).await? {
                self.nodes[index].waits = true;
                return Ok(Outcome::default());
            }
        }
        if let Some(reason) = self.nodes[index].refresh {
            return self.refresh(index, epoch, How::Refresh(reason.name())).await;
        }
        let mut inputs = self.changes_of_inputs(index, epoch)?;
        let lag = lag.unwrap_or_default();
        for (input, lag) in inputs.iter_mut().zip(&lag) {
            input.splice(0..0, lag.iter().cloned());
        }
        let rows_in: usize = inputs.iter().flatten().map(SignedBatch::num_rows).sum();
        let clock = epoch.clock;
        let is_due = match &self.nodes[index].circuit {
            Some(circuit) => circuit.next_change()?.is_some_and(|next| next <= clock),
            None => false,
        };
        if rows_in == 0 && !is_due {
            return Ok(Outcome::default());
        }
        let sizes = self.sizes(index, &inputs, epoch);
        let node = &mut self.nodes[index];
        let again = std::mem::replace(&mut node.rewritten, sizes.is_rewrite());
        // An append-only model's change is exactly its new rows: recomputing the old ones could only cost.
        let path = if node.compiled.append_only { Path::Step } else { choose(sizes, again) };
        match (&node.compiled.incremental, path) {
            (Err(_), _) => return self.refresh(index, epoch, How::Refresh("not incremental")).await,
            (Ok(_), Path::Rebuild) => return self.refresh(index, epoch, How::Refresh("rewritten")).await,
            (Ok(_), Path::Stock) => {
                // What stock DataFusion cannot plan a circuit can; what is wrong with the data it finds again.
                return match self.refresh(index, epoch, How::Bulk).await {
                    Err(error) if error.kind() != ErrorKind::Diverged => {
                        tracing::debug!(%error, "the bulk plan failed: a new circuit takes its place");
                        self.refresh(index, epoch, How::Refresh("rewritten")).await
                    }
                    done => done,
                };
            }
            (Ok(_), Path::Step) => {}
        }
        // A step that fails half-way leaves no state to trust.
        let Some(mut circuit) = node.circuit.take() else {
            return self.refresh(index, epoch, How::Refresh("cold")).await;
        };
        circuit.set_clock(clock);
        let stepped = match self.remember_buckets(index, &mut circuit, &inputs, &[&lag]).await {
            Ok(()) => tokio::task::block_in_place(|| circuit.step(&inputs)),
            Err(error) => Err(error),
        };
        let node = &mut self.nodes[index];
        let out = match stepped {
            Ok(out) => out,
            Err(error) => {
                // Nor do snapshots of what led there.
                if error.kind() == ErrorKind::Diverged {
                    let name = node.name().to_string();
                    self.diverged.insert(name);
                }
                return Err(error);
            }
        };
        node.circuit = Some(circuit);
        let how = if restored { How::Restored } else { How::Incremental };
        let mut outcome = Outcome { how, rows_in, ..Outcome::default() };
        apply_expectations(node, out, &mut outcome)?;
        self.forget_buckets(index)?;
        Ok(outcome)
    }

    /// Whether an input of the model changes in this epoch.
    pub(super) fn has_changes(&self, index: usize, epoch: &EpochState) -> Result<bool> {
        Ok(self.changes_of_inputs(index, epoch)?.iter().flatten().any(|batch| !batch.is_empty()))
    }

    /// The changes of this epoch, by input slot.
    pub(super) fn changes_of_inputs(&self, index: usize, epoch: &EpochState) -> Result<Vec<Vec<SignedBatch>>> {
        let node = &self.nodes[index];
        let mut inputs = Vec::with_capacity(node.upstreams.len());
        for (slot, upstream) in node.upstreams.iter().enumerate() {
            inputs.push(match upstream {
                Upstream::Node(up) => epoch.deltas[*up].clone(),
                Upstream::Foreign(foreign) => {
                    let schema = &node.compiled.inputs[slot].schema;
                    rows_with_columns(&self.foreign[*foreign].name, &epoch.foreign[*foreign], schema)?
                }
                // What a crash has put into quarantine already is an input all the same: a circuit that is warm has no such rows, and a
                // recomputation compares the quarantine, too.
                Upstream::Source(source) => {
                    let (early, rest) = self.source_rows(index, *source, epoch)?;
                    early.into_iter().chain(rest).collect()
                }
                // Its own table: no run follows from what the run before made.
                Upstream::This => Vec::new(),
            });
        }
        Ok(inputs)
    }

    /// New rows of a source for a model: those below the quarantine's position (its rows are already there), then the rest.
    pub(super) fn source_rows(
        &self,
        index: usize,
        source: usize,
        epoch: &EpochState,
    ) -> Result<(Vec<SignedBatch>, Vec<SignedBatch>)> {
        let node = &self.nodes[index];
        let (mut early, mut rest) = (Vec::new(), Vec::new());
        let Some(batches) = epoch.sources.get(&source) else { return Ok((early, rest)) };
        let name = &self.sources[source].name;
        for batch in batches {
            let position = |cell: &Option<super::cell::Cell>| -> Result<i64> {
                let Some(cell) = cell else { return Ok(0) };
                Ok(cell.consumed.get(&source_app(&cell_name(cell)?, name, &batch.partition)).copied().unwrap_or(0))
            };
            let main = position(&node.main)?;
            let quarantine = position(&node.quarantine)?.max(main);
            let offsets = batch.offsets.values();
            let from = offsets.partition_point(|o| *o < main);
            let split = offsets.partition_point(|o| *o < quarantine);
            if split > from {
                early.push(slice(&batch.rows, from, split - from));
            }
            if offsets.len() > split {
                rest.push(slice(&batch.rows, split, offsets.len() - split));
            }
        }
        Ok((early, rest))
    }

    /// Dead letters of a model's sources that its side table does not hold yet.
    pub(super) fn dead_letters(&self, index: usize, epoch: &EpochState) -> Result<Vec<SignedBatch>> {
        let node = &self.nodes[index];
        let Some(cell) = &node.dead_letter else { return Ok(Vec::new()) };
        let table = cell_name(cell)?;
        let mut out = Vec::new();
        for upstream in &node.upstreams {
            let Upstream::Source(source) = upstream else { continue };
            for batch in epoch.sources.get(source).into_iter().flatten() {
                let Some((rows, offsets)) = &batch.rejects else { continue };
                let app = source_app(&table, &self.sources[*source].name, &batch.partition);
                let position = cell.consumed.get(&app).copied().unwrap_or(0);
                let from = offsets.values().partition_point(|o| *o < position);
                if from < rows.num_rows() {
                    let rows = rows.slice(from, rows.num_rows() - from);
                    out.push(SignedBatch::inserts(with_model(&rows, node.name())?));
                }
            }
        }
        Ok(out)
    }

    /// Recomputes a view over the full contents of its inputs and compares with its own table.
    pub(super) async fn refresh(&mut self, index: usize, epoch: &mut EpochState, how: How) -> Result<Outcome> {
        let compiled = Arc::clone(&self.nodes[index].compiled);
        let mut outcome = Outcome { how, ..Outcome::default() };
        self.nodes[index].circuit = None;
        let rebuild = !matches!(how, How::Bulk | How::Run);
        let wanted = match &compiled.incremental {
            Ok(plan) if rebuild => {
                let mut circuit = Circuit::new(&compiled.model.name, plan, Mode::View, self.planner.session_state())?;
                circuit.set_clock(epoch.clock);
                let mut inputs = Vec::with_capacity(compiled.inputs.len());
                for slot in 0..compiled.inputs.len() {
                    inputs.push(self.full_input(index, slot, epoch).await?);
                }
                outcome.rows_in = inputs.iter().flatten().map(SignedBatch::num_rows).sum();
                let out = tokio::task::block_in_place(|| circuit.step(&inputs))?;
                self.nodes[index].circuit = Some(circuit);
                self.forget_buckets(index)?;
                out
            }
            _ => {
                let mut providers = Vec::with_capacity(compiled.inputs.len());
                for slot in 0..compiled.inputs.len() {
                    providers.push(self.full_provider(index, slot, epoch).await?);
                }
                let plan = self.planner.bind_at(&compiled, &providers, epoch.clock)?;
                let rows = self.planner.execute(&plan).await?;
                let batches: Vec<RecordBatch> = rows.try_collect().await?;
                batches.into_iter().map(SignedBatch::inserts).collect()
            }
        };
        self.compare(index, wanted, outcome).await
    }

    /// Makes the table of `index` hold exactly `wanted`, minus what expectations take out.
    pub(super) async fn hold(&mut self, index: usize, wanted: Vec<SignedBatch>, how: How) -> Result<Outcome> {
        let rows_in = wanted.iter().map(SignedBatch::num_rows).sum();
        self.compare(index, wanted, Outcome { how, rows_in, ..Outcome::default() }).await
    }

    /// A model was replaced as a whole: what reads it does not know the difference.
    pub(super) fn refresh_readers(&mut self, index: usize) {
        for reader in self.readers_of(index) {
            let refresh = &mut self.nodes[reader].refresh;
            if matches!(refresh, None | Some(Refresh::Behind)) {
                *refresh = Some(Refresh::Replaced);
            }
        }
    }

    async fn compare(&mut self, index: usize, wanted: Vec<SignedBatch>, mut outcome: Outcome) -> Result<Outcome> {
        let mut full = Outcome::default();
        let node = &mut self.nodes[index];
        let schema = Arc::clone(&node.compiled.schema);
        let wanted = match wanted.first().map(SignedBatch::schema) {
            // A union may emit a row and its retraction side by side.
            Some(of_rows) if wanted.iter().any(SignedBatch::has_retractions) => consolidate(&of_rows, wanted)?,
            _ => wanted,
        };
        apply_expectations(node, wanted, &mut full)?;
        outcome.violations = full.violations;
        let replace = std::mem::take(&mut node.replace);
        let mut is_first = replace;
        let main = node.main.as_mut().ok_or_else(|| Error::internal("a view without a table"))?;
        let table = main.ready().await?;
        if replace {
            // Old rows cannot be compared with the new schema: readers recompute.
            table.replace(schema, BTreeMap::new(), stream_of(full.delta)?).await?;
            main.must_commit = true;
            self.refresh_readers(index);
        } else if table.row_count() == 0 {
            is_first = true;
            outcome.delta = full.delta;
        } else {
            outcome.delta = table.diff(stream_of(full.delta)?).await?;
        }
        let node = &mut self.nodes[index];
        if let Some(quarantine) = &mut node.quarantine {
            let table = quarantine.ready().await?;
            outcome.quarantine =
                if table.row_count() == 0 { full.quarantine } else { table.diff(stream_of(full.quarantine)?).await? };
        }
        if !is_first {
            let counts = std::mem::take(&mut outcome.violations);
            outcome.violations = node.expectations.newly_counted(counts, &outcome.delta, &outcome.quarantine)?;
        }
        Ok(outcome)
    }
}

/// Routes rows that violate expectations; `fail` fails the model.
pub(super) fn apply_expectations(node: &mut Node, rows: Vec<SignedBatch>, outcome: &mut Outcome) -> Result<()> {
    apply_expectations_to(&node.compiled, &node.expectations, rows, outcome)
}

/// The same for a model that no pipeline holds.
pub(super) fn apply_expectations_to(
    compiled: &CompiledModel,
    expectations: &Expectations,
    rows: Vec<SignedBatch>,
    outcome: &mut Outcome,
) -> Result<()> {
    let schema = &compiled.schema;
    let rows: Vec<SignedBatch> =
        rows.into_iter().map(|b| Ok(b.with_rows(to_stored(&b.rows, schema)?))).collect::<Result<_>>()?;
    if compiled.expectations.is_empty() {
        outcome.delta.extend(rows);
        return Ok(());
    }
    let name = &compiled.model.name;
    for applied in expectations.apply(name, rows)? {
        if let Some(failed) = applied.failed {
            return Err(Error::user(
                "expectation-failed",
                format!("expectation `{}` of {name} failed on row {}", failed.expectation, failed.row),
            )
            .with_hint("correct the input or the expectation; the model and what reads it are retried at the next start or edit"));
        }
        outcome.delta.push(applied.kept);
        if !applied.quarantined.is_empty() {
            outcome.quarantine.push(applied.quarantined);
        }
        outcome.count(applied.counts.into_iter().map(|(expectation, count)| (expectation, count as usize)));
    }
    Ok(())
}

/// Rows as a multiset without weights: each row as often as it weighs. Equal rows of opposite weight must be consolidated.
pub(super) fn expanded(batches: Vec<SignedBatch>) -> Result<Vec<RecordBatch>> {
    let mut out = Vec::with_capacity(batches.len());
    for batch in batches {
        match &batch.weights {
            None => out.push(batch.rows),
            Some(weights) => {
                let mut indices = Vec::with_capacity(batch.num_rows());
                for (row, weight) in weights.values().iter().enumerate() {
                    if *weight < 0 {
                        return Err(Error::diverged("a full result holds a retraction"));
                    }
                    indices.extend(std::iter::repeat_n(row as u64, *weight as usize));
                }
                out.push(arrow::compute::take_record_batch(&batch.rows, &UInt64Array::from(indices))?);
            }
        }
    }
    Ok(out)
}

/// A full result as the stream of rows its table is compared with.
pub(super) fn stream_of(batches: Vec<SignedBatch>) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    Ok(futures::stream::iter(expanded(batches)?.into_iter().map(Ok)).boxed())
}

pub(super) fn slice(batch: &SignedBatch, from: usize, len: usize) -> SignedBatch {
    SignedBatch { rows: batch.rows.slice(from, len), weights: batch.weights.as_ref().map(|w| w.slice(from, len)) }
}

/// Dead letters with the reader's name in their first column.
fn with_model(rows: &RecordBatch, model: &str) -> Result<RecordBatch> {
    let mut columns = rows.columns().to_vec();
    columns[0] = Arc::new(arrow::array::StringArray::from_iter_values(std::iter::repeat_n(model, rows.num_rows())));
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}

/// Whether an error stops the model only (and what reads it), or the whole pipeline.
pub(super) fn parks(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::User | ErrorKind::Internal => true,
        ErrorKind::Environment => !error.is_retryable(),
        ErrorKind::Fenced | ErrorKind::Diverged => false,
    }
}

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

use super::pipeline::{Node, Pipeline, Refresh, Upstream, cell_name};
use super::positions::{source_app, table_app};
use crate::error::{Error, ErrorKind, Result};
use crate::operators::{Circuit, Keyed, Mode, consolidate};
use crate::plan::incremental::Node as Plan;
use crate::plan::stored::to_stored;
use crate::project::Materialization;
use crate::types::{ChangeKind, Poll, PollLimit, SignedBatch, SourceBatch};

/// Below this many rows an epoch is never worth a recomputation: its fixed costs dominate.
const BULK_MIN_ROWS: usize = 10_000;
/// An epoch with more rows than this share of the state runs in bulk.
const BULK_SHARE: f64 = 0.2;

/// What the epoch knows so far.
pub(super) struct EpochState {
    /// Rows read from sources, by source.
    pub sources: HashMap<usize, Vec<SourceBatch>>,
    /// Changes of the tables computed so far, by node.
    pub deltas: Vec<Vec<SignedBatch>>,
    /// Rows of each table before the epoch.
    pub rows_before: Vec<u64>,
    /// Version of each table before the epoch.
    pub versions_before: Vec<i64>,
    /// Changes of foreign tables, by index.
    pub foreign: Vec<Vec<SignedBatch>>,
}

/// How a model was computed, for reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum How {
    /// Nothing to do.
    #[default]
    Idle,
    /// The circuit was stepped with the changes.
    Incremental,
    /// Recomputed and compared, with the reason.
    Refresh(&'static str),
    /// Recomputed by a stock plan because the epoch was large against the state.
    Bulk,
}

/// What one model made of an epoch.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub how: How,
    pub rows_in: usize,
    pub delta: Vec<SignedBatch>,
    pub quarantine: Vec<SignedBatch>,
    pub dead_letters: Vec<SignedBatch>,
    /// (expectation, violating rows).
    pub violations: Vec<(String, usize)>,
}

impl Pipeline {
    /// Computes model `index`. Its table is not touched yet, but its circuit has stepped.
    pub(super) async fn compute(&mut self, index: usize, epoch: &mut EpochState) -> Result<Outcome> {
        let node = &self.nodes[index];
        if node.streams {
            return self.compute_stream(index, epoch).await;
        }
        let materialized = node.compiled.model.materialized;
        if let Some(reason) = node.refresh {
            return self.refresh(index, epoch, How::Refresh(reason.name())).await;
        }
        if materialized == Materialization::Table {
            return Ok(Outcome::default());
        }
        let inputs = self.changes_of_inputs(index, epoch)?;
        let rows_in: usize = inputs.iter().flatten().map(SignedBatch::num_rows).sum();
        if rows_in == 0 {
            return Ok(Outcome::default());
        }
        let node = &mut self.nodes[index];
        let Some(circuit) = &mut node.circuit else {
            let reason = if node.compiled.incremental.is_ok() { "cold" } else { "not incremental" };
            return self.refresh(index, epoch, How::Refresh(reason)).await;
        };
        let state = circuit.state_rows();
        let retracts = inputs.iter().flatten().any(SignedBatch::has_retractions);
        // An append-only model's change is exactly its new rows: recomputing the old ones could only cost.
        let bulk = rows_in >= BULK_MIN_ROWS
            && rows_in as f64 > state as f64 * BULK_SHARE
            && state > 0
            && (retracts || !node.compiled.append_only);
        if bulk {
            return self.refresh(index, epoch, How::Bulk).await;
        }
        let stepped = tokio::task::block_in_place(|| circuit.step(&inputs));
        let out = match stepped {
            Ok(out) => out,
            Err(error) => {
                // A step that failed half-way leaves no state to trust.
                node.circuit = None;
                return Err(error);
            }
        };
        let mut outcome = Outcome { how: How::Incremental, rows_in, ..Outcome::default() };
        apply_expectations(node, out, &mut outcome)?;
        Ok(outcome)
    }

    /// The changes of this epoch, by input slot.
    fn changes_of_inputs(&self, index: usize, epoch: &EpochState) -> Result<Vec<Vec<SignedBatch>>> {
        let node = &self.nodes[index];
        let mut inputs = Vec::with_capacity(node.upstreams.len());
        for upstream in &node.upstreams {
            inputs.push(match upstream {
                Upstream::Node(up) => epoch.deltas[*up].clone(),
                Upstream::Foreign(foreign) => epoch.foreign[*foreign].clone(),
                Upstream::Source(source) => {
                    let (_, rows) = self.source_rows(index, *source, epoch)?;
                    rows
                }
            });
        }
        Ok(inputs)
    }

    /// New rows of a source for a model: those below the quarantine's position (its rows are already there), then the rest.
    fn source_rows(
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
    fn dead_letters(&self, index: usize, epoch: &EpochState) -> Result<Vec<SignedBatch>> {
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

    async fn compute_stream(&mut self, index: usize, epoch: &mut EpochState) -> Result<Outcome> {
        let node = &self.nodes[index];
        let stream = node.compiled.stream.ok_or_else(|| Error::internal("a streaming table without a stream"))?;
        if node.refresh == Some(Refresh::Asked) || (node.replace && node.refresh.is_some()) {
            self.restart_stream(index).await?;
        }
        let mut outcome = Outcome { dead_letters: self.dead_letters(index, epoch)?, ..Outcome::default() };
        let (early, rest) = match self.nodes[index].upstreams[stream] {
            Upstream::Source(source) => self.source_rows(index, source, epoch)?,
            Upstream::Node(up) => self.stream_changes(index, up, epoch).await?,
            Upstream::Foreign(foreign) => (Vec::new(), epoch.foreign[foreign].clone()),
        };
        let mut dimensions = self.changes_of_inputs(index, epoch)?;
        dimensions[stream].clear();
        outcome.rows_in = early.iter().chain(&rest).map(SignedBatch::num_rows).sum();
        let dimensions_moved = dimensions.iter().flatten().any(|b| !b.is_empty());
        if outcome.rows_in == 0 && (!dimensions_moved || self.nodes[index].circuit.is_none()) {
            return Ok(outcome);
        }
        outcome.how = How::Incremental;
        if self.nodes[index].circuit.is_none() {
            // Full dimensions, this epoch's changes of them included, are loaded with the circuit.
            self.warm_stream(index, stream, epoch).await?;
            dimensions.iter_mut().for_each(Vec::clear);
        }
        for (rows, with_quarantine) in [(early, false), (rest, true)] {
            if rows.is_empty() && !with_quarantine {
                continue;
            }
            let rows = self.without_change_commits(index, stream, rows)?;
            let mut inputs = std::mem::replace(&mut dimensions, vec![Vec::new(); self.nodes[index].upstreams.len()]);
            inputs[stream] = rows;
            let mut part = match self.key_columns(index, stream)? {
                Some((from, _)) => self.step_keyed(index, stream, &from, inputs)?,
                None => {
                    let node = &mut self.nodes[index];
                    let out = step_stream(node, &inputs)?;
                    let mut part = Outcome::default();
                    apply_expectations(node, out, &mut part)?;
                    part
                }
            };
            outcome.delta.append(&mut part.delta);
            if with_quarantine {
                outcome.quarantine.append(&mut part.quarantine);
            }
            outcome.violations.append(&mut part.violations);
        }
        Ok(outcome)
    }

    /// `skip_change_commits: true` leaves out a change that retracts; otherwise it is an error for an append-only stream.
    fn without_change_commits(&self, index: usize, stream: usize, rows: Vec<SignedBatch>) -> Result<Vec<SignedBatch>> {
        let node = &self.nodes[index];
        if !rows.iter().any(SignedBatch::has_retractions) || self.is_changelog(index, stream) {
            return Ok(rows);
        }
        if node.compiled.model.config.skip_change_commits {
            return Ok(Vec::new());
        }
        Err(Error::user(
            "stream-retracts",
            format!("{} reads a stream whose rows were changed or deleted", node.name()),
        )
        .with_hint("make it a materialized_view, or set `skip_change_commits: true` to leave such changes out"))
    }

    pub(super) fn is_changelog(&self, index: usize, slot: usize) -> bool {
        match self.nodes[index].upstreams[slot] {
            Upstream::Source(source) => {
                crate::source::change_kind(&self.sources[source].table) != ChangeKind::Append
            }
            _ => false,
        }
    }

    /// Changes of an upstream table since this model's position, then those of this epoch.
    async fn stream_changes(
        &mut self,
        index: usize,
        up: usize,
        epoch: &EpochState,
    ) -> Result<(Vec<SignedBatch>, Vec<SignedBatch>)> {
        let version = epoch.versions_before[up];
        let upstream = self.nodes[up].main.as_mut().ok_or_else(|| Error::internal("an upstream without a table"))?;
        let id = upstream.ready().await?.id().to_string();
        let node = &self.nodes[index];
        let position = |cell: &Option<super::cell::Cell>| -> Result<Option<i64>> {
            let Some(cell) = cell else { return Ok(None) };
            Ok(cell.consumed.get(&table_app(&cell_name(cell)?, &id)).copied())
        };
        let main = position(&node.main)?;
        let quarantine = position(&node.quarantine)?.max(main);
        let name = node.name().to_string();
        let upstream = self.nodes[up].main.as_mut().ok_or_else(|| Error::internal("an upstream without a table"))?;
        let table = upstream.ready().await?;
        let gap = |error: Error| {
            error.context(format!("{name} cannot catch up with {} from version {}", table.name(), main.unwrap_or(0)))
        };
        let (mut early, mut rest) = (Vec::new(), Vec::new());
        match main {
            Some(main) if main > version => {
                return Err(Error::user(
                    "upstream-went-back",
                    format!("{name} has consumed version {main} of {}, which is now at {version}", table.name()),
                )
                .with_hint("the table was restored or replaced: run with --full-refresh to read it from the start"));
            }
            Some(main) if main < version => {
                let split = quarantine.unwrap_or(main).min(version);
                if split > main {
                    early = table.changes(main, split).await.map_err(&gap)?;
                }
                if version > split {
                    rest = table.changes(split, version).await.map_err(&gap)?;
                }
            }
            Some(_) => {}
            None if epoch.rows_before[up] > 0 => {
                let snapshot = table.committed_snapshot();
                rest = self.scan(snapshot.provider()).await?.into_iter().map(SignedBatch::inserts).collect();
            }
            None => {}
        }
        rest.extend(epoch.deltas[up].iter().cloned());
        Ok((early, rest))
    }

    /// Loads the state of a streaming table's circuit: the dimensions as they are, and what its deduplication has seen.
    async fn warm_stream(&mut self, index: usize, stream: usize, epoch: &EpochState) -> Result<()> {
        let compiled = Arc::clone(&self.nodes[index].compiled);
        let plan = compiled.incremental.as_ref().map_err(|f| Error::internal(format!("{}: {}", f.operator, f.reason)))?;
        let mode = Mode::Stream { slot: stream };
        let mut circuit = Circuit::new(plan, mode, self.planner.session_state())?;
        let mut inputs = vec![Vec::new(); self.nodes[index].upstreams.len()];
        for (slot, input) in inputs.iter_mut().enumerate() {
            if slot != stream {
                *input = self.full_input(index, slot, epoch).await?;
            }
        }
        if remembers(plan, stream) {
            inputs[stream] = self.consumed_stream(index, stream).await?;
        }
        tokio::task::block_in_place(|| circuit.step(&inputs))?;
        self.nodes[index].circuit = Some(circuit);
        if self.is_changelog(index, stream) {
            self.load_keyed(index, stream).await?;
        }
        Ok(())
    }

    /// The rows of its stream a table has already consumed.
    async fn consumed_stream(&mut self, index: usize, stream: usize) -> Result<Vec<SignedBatch>> {
        let Upstream::Node(up) = self.nodes[index].upstreams[stream] else {
            return Err(Error::internal("a deduplicating streaming table reads a source directly"));
        };
        let upstream = self.nodes[up].main.as_mut().ok_or_else(|| Error::internal("an upstream without a table"))?;
        let table = upstream.ready().await?;
        let id = table.id().to_string();
        let Some(cell) = &self.nodes[index].main else { return Ok(Vec::new()) };
        let Some(consumed) = cell.consumed.get(&table_app(&cell_name(cell)?, &id)).copied() else {
            return Ok(Vec::new());
        };
        let upstream = self.nodes[up].main.as_mut().ok_or_else(|| Error::internal("an upstream without a table"))?;
        let table = upstream.ready().await?;
        // What came since is taken from what is there now: compaction may have moved the rows, not changed them.
        let since = table.changes(consumed, table.version()).await?;
        let (snapshot, schema) = (table.committed_snapshot(), table.schema());
        let mut rows: Vec<SignedBatch> =
            self.scan(snapshot.provider()).await?.into_iter().map(SignedBatch::inserts).collect();
        for change in since {
            let weights = change.weights_array().values().iter().map(|w| -w).collect::<Vec<_>>();
            rows.push(SignedBatch::new(change.rows, weights.into())?);
        }
        consolidate(&schema, rows)
    }

    /// A full refresh of a streaming table: it forgets its rows and positions and reads its stream again.
    async fn restart_stream(&mut self, index: usize) -> Result<()> {
        let node = &mut self.nodes[index];
        let schema = Arc::clone(&node.compiled.schema);
        for (kind, cell) in node.cells() {
            cell.consumed.retain(|app, _| !app.starts_with("smelt/") || app == super::positions::INSTANCE);
            let table = cell.ready().await?;
            let schema = if kind.is_none() { Arc::clone(&schema) } else { table.schema() };
            table.replace(schema, BTreeMap::new(), futures::stream::empty::<Result<RecordBatch>>().boxed()).await?;
            cell.must_commit = true;
        }
        node.circuit = None;
        node.keyed = None;
        Ok(())
    }

    /// Recomputes a view over the full contents of its inputs and compares with its own table.
    async fn refresh(&mut self, index: usize, epoch: &mut EpochState, how: How) -> Result<Outcome> {
        let compiled = Arc::clone(&self.nodes[index].compiled);
        let mut outcome = Outcome { how, ..Outcome::default() };
        let materialized = compiled.model.materialized;
        self.nodes[index].circuit = None;
        let rebuild = how != How::Bulk && materialized != Materialization::Table;
        let wanted = match &compiled.incremental {
            Ok(plan) if rebuild => {
                let mut circuit = Circuit::new(plan, Mode::View, self.planner.session_state())?;
                let mut inputs = Vec::with_capacity(compiled.inputs.len());
                for slot in 0..compiled.inputs.len() {
                    inputs.push(self.full_input(index, slot, epoch).await?);
                }
                outcome.rows_in = inputs.iter().flatten().map(SignedBatch::num_rows).sum();
                let out = tokio::task::block_in_place(|| circuit.step(&inputs))?;
                self.nodes[index].circuit = Some(circuit);
                out
            }
            _ => {
                let mut providers = Vec::with_capacity(compiled.inputs.len());
                for slot in 0..compiled.inputs.len() {
                    providers.push(self.full_provider(index, slot, epoch).await?);
                }
                let plan = self.planner.bind(&compiled, &providers)?;
                let rows = self.planner.execute(&plan).await?;
                let batches: Vec<RecordBatch> = rows.try_collect().await?;
                batches.into_iter().map(SignedBatch::inserts).collect()
            }
        };
        let mut full = Outcome::default();
        let node = &mut self.nodes[index];
        let wanted = match wanted.first().map(SignedBatch::schema) {
            // A union may emit a row and its retraction side by side.
            Some(schema) if wanted.iter().any(SignedBatch::has_retractions) => consolidate(&schema, wanted)?,
            _ => wanted,
        };
        apply_expectations(node, wanted, &mut full)?;
        outcome.violations = full.violations;
        let replace = std::mem::take(&mut node.replace);
        let schema = Arc::clone(&compiled.schema);
        let main = node.main.as_mut().ok_or_else(|| Error::internal("a view without a table"))?;
        let table = main.ready().await?;
        if replace {
            // Old rows cannot be compared with the new schema: readers recompute.
            table.replace(schema, BTreeMap::new(), stream_of(full.delta)?).await?;
            main.must_commit = true;
            for reader in self.readers_of(index) {
                self.nodes[reader].refresh.get_or_insert(Refresh::Behind);
            }
        } else if table.row_count() == 0 {
            outcome.delta = full.delta;
        } else {
            outcome.delta = table.diff(stream_of(full.delta)?).await?;
        }
        let node = &mut self.nodes[index];
        if let Some(quarantine) = &mut node.quarantine {
            let table = quarantine.ready().await?;
            outcome.quarantine = if table.row_count() == 0 {
                full.quarantine
            } else {
                table.diff(stream_of(full.quarantine)?).await?
            };
        }
        Ok(outcome)
    }

    fn readers_of(&self, index: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].upstreams.contains(&Upstream::Node(index))).collect()
    }

    /// Full content of an input, this epoch's change included.
    async fn full_input(&mut self, index: usize, slot: usize, epoch: &EpochState) -> Result<Vec<SignedBatch>> {
        match self.nodes[index].upstreams[slot] {
            // The change is all there is: no need to read back what was just written.
            Upstream::Node(up) if epoch.rows_before[up] == 0 && !self.was_replaced(up) => Ok(epoch.deltas[up].clone()),
            Upstream::Node(_) | Upstream::Foreign(_) => {
                let provider = self.full_provider(index, slot, epoch).await?;
                Ok(self.scan(provider).await?.into_iter().map(SignedBatch::inserts).collect())
            }
            Upstream::Source(source) => {
                let mut rows = self.replay(index, source).await?;
                rows.extend(self.source_rows(index, source, epoch)?.1);
                Ok(rows)
            }
        }
    }

    fn was_replaced(&self, up: usize) -> bool {
        self.nodes[up].main.as_ref().is_some_and(|cell| cell.must_commit)
    }

    async fn full_provider(
        &mut self,
        index: usize,
        slot: usize,
        epoch: &EpochState,
    ) -> Result<Arc<dyn datafusion::catalog::TableProvider>> {
        match self.nodes[index].upstreams[slot] {
            Upstream::Node(up) => {
                let cell = self.nodes[up].main.as_mut().ok_or_else(|| Error::internal("an upstream without a table"))?;
                Ok(cell.ready().await?.snapshot().provider())
            }
            Upstream::Foreign(foreign) => match &self.foreign[foreign].table {
                Some(table) => Ok(table.committed_snapshot().provider()),
                None => {
                    let schema = Arc::clone(&self.nodes[index].compiled.inputs[slot].schema);
                    Ok(Arc::new(datafusion::catalog::MemTable::try_new(schema, vec![vec![]])?))
                }
            },
            Upstream::Source(_) => {
                let rows = Box::pin(self.full_input(index, slot, epoch)).await?;
                let schema = Arc::clone(&self.nodes[index].compiled.inputs[slot].schema);
                Ok(Arc::new(datafusion::catalog::MemTable::try_new(schema, vec![expanded(rows)?])?))
            }
        }
    }

    /// Reads a replayable source again, up to the position of `index`.
    async fn replay(&mut self, index: usize, source: usize) -> Result<Vec<SignedBatch>> {
        let Some(cell) = &self.nodes[index].main else { return Ok(Vec::new()) };
        let until = super::positions::source_positions(&cell.consumed, &cell_name(cell)?, &self.sources[source].name);
        if until.is_empty() {
            return Ok(Vec::new());
        }
        let mut reader = self.open_source(source).await?;
        reader.open(&Default::default(), true).await?;
        let limit = PollLimit { max_rows: 131_072, max_files: 1024, wait: std::time::Duration::from_millis(200) };
        let mut rows = Vec::new();
        loop {
            match reader.poll(limit).await? {
                Poll::Batches(batches) => {
                    for batch in batches {
                        let until = until.get(&batch.partition).copied().unwrap_or(0);
                        let count = batch.offsets.values().partition_point(|o| *o < until);
                        if count > 0 {
                            rows.push(slice(&batch.rows, 0, count));
                        }
                    }
                }
                Poll::Idle => {}
                Poll::End => return Ok(rows),
            }
        }
    }

    /// All rows of a table.
    pub(super) async fn scan(&self, provider: Arc<dyn datafusion::catalog::TableProvider>) -> Result<Vec<RecordBatch>> {
        let context = datafusion::prelude::SessionContext::new_with_state(self.planner.session_state().clone());
        Ok(context.read_table(provider)?.collect().await?)
    }

    /// Loads the state of a keyed streaming table from the table itself.
    async fn load_keyed(&mut self, index: usize, stream: usize) -> Result<()> {
        let Some((_, key)) = self.key_columns(index, stream)? else { return Ok(()) };
        let schema = Arc::clone(&self.nodes[index].compiled.schema);
        let main = self.nodes[index].main.as_mut().ok_or_else(|| Error::internal("a streaming table without a table"))?;
        let snapshot = main.ready().await?.snapshot();
        let rows = self.scan(snapshot.provider()).await?;
        let mut keyed = Keyed::new(schema, key)?;
        keyed.load(&rows)?;
        self.nodes[index].keyed = Some(keyed);
        Ok(())
    }

    /// For a keyed changelog: where the key's columns stand in the source and in the table.
    fn key_columns(&self, index: usize, stream: usize) -> Result<Option<(Vec<usize>, Vec<usize>)>> {
        let Upstream::Source(source) = self.nodes[index].upstreams[stream] else { return Ok(None) };
        let table = &self.sources[source].table;
        let ChangeKind::Keyed(names) = crate::source::change_kind(table) else { return Ok(None) };
        let compiled = &self.nodes[index].compiled;
        let find = |schema: &arrow::datatypes::SchemaRef, name: &str| {
            schema.fields().iter().position(|f| f.name().eq_ignore_ascii_case(name))
        };
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for name in &names {
            let missing = || {
                Error::user(
                    "key-not-selected",
                    format!("{} reads a keyed changelog but does not select its key `{name}`", compiled.model.name),
                )
                .with_hint("select every column of the source's `primary_key` under its own name")
            };
            from.push(find(&compiled.inputs[stream].schema, name).ok_or_else(missing)?);
            to.push(find(&compiled.schema, name).ok_or_else(missing)?);
        }
        Ok(Some((from, to)))
    }

    /// One step of a streaming table over a keyed changelog: the last record of each key decides.
    fn step_keyed(
        &mut self,
        index: usize,
        stream: usize,
        from: &[usize],
        mut inputs: Vec<Vec<SignedBatch>>,
    ) -> Result<Outcome> {
        let schema = Arc::clone(&self.nodes[index].compiled.inputs[stream].schema);
        let latest = Keyed::last_per_key(&inputs[stream], &schema, from)?;
        inputs[stream] = vec![latest.upserts];
        let node = &mut self.nodes[index];
        let out = step_stream(node, &inputs)?;
        let mut part = Outcome::default();
        apply_expectations(node, out, &mut part)?;
        let rows = expanded(std::mem::take(&mut part.delta))?;
        let keyed = node.keyed.as_mut().ok_or_else(|| Error::internal("a keyed table whose state is not loaded"))?;
        part.delta = keyed.apply(&latest.keys, &rows)?;
        Ok(part)
    }
}

fn step_stream(node: &mut Node, inputs: &[Vec<SignedBatch>]) -> Result<Vec<SignedBatch>> {
    let Some(circuit) = &mut node.circuit else { return Err(Error::internal("a cold circuit cannot step")) };
    match tokio::task::block_in_place(|| circuit.step(inputs)) {
        Ok(out) => Ok(out),
        Err(error) => {
            node.circuit = None;
            Err(error)
        }
    }
}

/// Routes rows that violate expectations; `fail` fails the model.
fn apply_expectations(node: &mut Node, rows: Vec<SignedBatch>, outcome: &mut Outcome) -> Result<()> {
    let schema = &node.compiled.schema;
    let rows: Vec<SignedBatch> =
        rows.into_iter().map(|b| Ok(b.with_rows(to_stored(&b.rows, schema)?))).collect::<Result<_>>()?;
    if node.compiled.expectations.is_empty() {
        outcome.delta.extend(rows);
        return Ok(());
    }
    let name = node.name().to_string();
    for batch in rows {
        let applied = node.expectations.apply(&name, batch)?;
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
        for (expectation, count) in applied.counts {
            match outcome.violations.iter_mut().find(|(known, _)| *known == expectation) {
                Some((_, total)) => *total += count as usize,
                None => outcome.violations.push((expectation, count as usize)),
            }
        }
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

/// Whether a streaming circuit holds state about its stream, which must be loaded after a restart: a deduplication does.
fn remembers(plan: &Plan, stream: usize) -> bool {
    fn reads(plan: &Plan, slot: usize) -> bool {
        match plan {
            Plan::Input { slot: own, .. } => *own == slot,
            Plan::Constant { .. } => false,
            Plan::Project { input, .. }
            | Plan::Filter { input, .. }
            | Plan::Aggregate { input, .. }
            | Plan::First { input, .. } => reads(input, slot),
            Plan::Union { inputs, .. } => inputs.iter().any(|i| reads(i, slot)),
            Plan::Join { base, arms, .. } => reads(base, slot) || arms.iter().any(|a| reads(&a.input, slot)),
        }
    }
    match plan {
        Plan::First { input, .. } => reads(input, stream),
        Plan::Input { .. } | Plan::Constant { .. } => false,
        Plan::Project { input, .. } | Plan::Filter { input, .. } | Plan::Aggregate { input, .. } => {
            remembers(input, stream)
        }
        Plan::Union { inputs, .. } => inputs.iter().any(|i| remembers(i, stream)),
        // Dimensions are loaded from their tables; only the base is the stream.
        Plan::Join { base, .. } => remembers(base, stream),
    }
}

/// A full result as the stream of rows its table is compared with.
fn stream_of(batches: Vec<SignedBatch>) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    Ok(futures::stream::iter(expanded(batches)?.into_iter().map(Ok)).boxed())
}

fn slice(batch: &SignedBatch, from: usize, len: usize) -> SignedBatch {
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

//! Streaming tables: each new row of the stream once, against dimensions as they are in that epoch.
//!
//! Over an append-only stream the circuit turns new rows into rows of the table; over a changelog the table is maintained:
//! signed rows as they come, keyed ones through [`Keyed`]. A table that is behind (a crash between two commits of an epoch)
//! catches up from its upstream's log.

use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::compute::{EpochState, How, Outcome, apply_expectations, expanded};
use super::foreign::{rows_with_columns, with_columns};
use super::pipeline::{Node, Pipeline, Refresh, Upstream, cell_name};
use super::positions::table_app;
use crate::error::{Error, Result};
use crate::operators::{Circuit, Keyed, Mode, consolidate};
use crate::plan::incremental::Node as Plan;
use crate::types::{ChangeKind, SignedBatch};

impl Pipeline {
    pub(super) async fn compute_stream(&mut self, index: usize, epoch: &mut EpochState) -> Result<Outcome> {
        let node = &self.nodes[index];
        let stream = node.compiled.stream.ok_or_else(|| Error::internal("a streaming table without a stream"))?;
        if node.refresh == Some(Refresh::Asked) || (node.replace && node.refresh.is_some()) {
            self.restart_stream(index).await?;
        }
        let mut outcome = Outcome::default();
        let (early, rest) = match self.nodes[index].upstreams[stream] {
            Upstream::Source(source) => self.source_rows(index, source, epoch)?,
            Upstream::Node(up) => self.stream_changes(index, up, epoch).await?,
            Upstream::Foreign(foreign) => self.foreign_changes(index, foreign).await?,
            Upstream::This => return Err(Error::internal("a streaming table reads itself")),
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
            if self.has_stored_state(index) && self.warm_stream_again(index, stream, epoch).await? {
                outcome.how = How::Restored;
            } else {
                self.warm_stream(index, stream, epoch).await?;
            }
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
    pub(super) fn without_change_commits(
        &self,
        index: usize,
        stream: usize,
        rows: Vec<SignedBatch>,
    ) -> Result<Vec<SignedBatch>> {
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
            Upstream::Source(source) => crate::source::change_kind(&self.sources[source].table) != ChangeKind::Append,
            _ => false,
        }
    }

    /// Changes of an upstream table since this model's position, then those of this epoch.
    pub(super) async fn stream_changes(
        &mut self,
        index: usize,
        up: usize,
        epoch: &EpochState,
    ) -> Result<(Vec<SignedBatch>, Vec<SignedBatch>)> {
        let (version, id) = (epoch.versions_before[up], &epoch.ids_before[up]);
        let node = &self.nodes[index];
        let position = |cell: &Option<super::cell::Cell>| -> Result<Option<i64>> {
            let Some(cell) = cell else { return Ok(None) };
            Ok(cell.consumed.get(&table_app(&cell_name(cell)?, id)).copied())
        };
        let main = position(&node.main)?;
        // It has the one or the other side table.
        let quarantine = position(&node.quarantine)?.max(position(&node.late)?).max(main);
        if main == Some(version) || (main.is_none() && epoch.rows_before[up] == 0) {
            // It has all that the table holds: the upload of what the table gets in this epoch goes on beside it.
            return Ok((Vec::new(), epoch.deltas[up].clone()));
        }
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
            None => {
                let snapshot = table.committed_snapshot();
                rest = self.scan(snapshot.provider()).await?.into_iter().map(SignedBatch::inserts).collect();
            }
        }
        rest.extend(epoch.deltas[up].iter().cloned());
        Ok((early, rest))
    }

    /// New rows of a table that somebody else maintains: those since this model's position in it. The first time all of them.
    async fn foreign_changes(&mut self, index: usize, foreign: usize) -> Result<(Vec<SignedBatch>, Vec<SignedBatch>)> {
        let node = &self.nodes[index];
        let Some(table) = self.foreign[foreign].table() else { return Ok((Vec::new(), Vec::new())) };
        let position = |cell: &Option<super::cell::Cell>| -> Result<Option<i64>> {
            let Some(cell) = cell else { return Ok(None) };
            Ok(cell.consumed.get(&table_app(&cell_name(cell)?, table.id())).copied())
        };
        let (main, version) = (position(&node.main)?, table.version());
        let slot = node.compiled.stream.ok_or_else(|| Error::internal("a streaming table without a stream"))?;
        let schema = Arc::clone(&node.compiled.inputs[slot].schema);
        let Some(main) = main else {
            let rows = self.scan(with_columns(table.name(), table.committed_snapshot().provider(), &schema)?).await?;
            return Ok((Vec::new(), rows.into_iter().map(SignedBatch::inserts).collect()));
        };
        let split = position(&node.quarantine)?.unwrap_or(main).clamp(main, version.max(main));
        let gap = |error: Error| {
            error.context(format!("{} cannot catch up with {} from version {main}", node.name(), table.name()))
        };
        let early = table.changes(main, split).await.map_err(&gap)?;
        let rest = table.changes(split, version).await.map_err(&gap)?;
        let conform = |rows: Vec<SignedBatch>| rows_with_columns(table.name(), &rows, &schema);
        Ok((conform(early)?, conform(rest)?))
    }

    /// Loads the state of a streaming table's circuit: the dimensions as they are, and what its deduplication has seen.
    async fn warm_stream(&mut self, index: usize, stream: usize, epoch: &EpochState) -> Result<()> {
        let compiled = Arc::clone(&self.nodes[index].compiled);
        let plan =
            compiled.incremental.as_ref().map_err(|f| Error::internal(format!("{}: {}", f.operator, f.reason)))?;
        let mode = Mode::Stream { slot: stream };
        let mut circuit = Circuit::new(&compiled.model.name, plan, mode, self.planner.session_state())?;
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
    pub(super) async fn consumed_stream(&mut self, index: usize, stream: usize) -> Result<Vec<SignedBatch>> {
        let upstream = self.nodes[index].upstreams[stream];
        if let Upstream::Node(up) = upstream {
            // An upload may hold it.
            let cell = self.nodes[up].main.as_mut().ok_or_else(|| Error::internal("an upstream without a table"))?;
            cell.ready().await?;
        }
        let table = match upstream {
            Upstream::Node(up) => match &self.nodes[up].main {
                Some(cell) => cell.table()?,
                None => return Err(Error::internal("an upstream without a table")),
            },
            Upstream::Foreign(foreign) => match self.foreign[foreign].table() {
                Some(table) => table,
                None => return Ok(Vec::new()),
            },
            Upstream::Source(_) | Upstream::This => {
                return Err(Error::internal("a deduplicating streaming table reads a source directly"));
            }
        };
        let Some(cell) = &self.nodes[index].main else { return Ok(Vec::new()) };
        let Some(consumed) = cell.consumed.get(&table_app(&cell_name(cell)?, table.id())).copied() else {
            return Ok(Vec::new());
        };
        // What came since is taken from what is there now: compaction may have moved the rows, not changed them.
        let since = table.changes(consumed, table.version()).await?;
        let (snapshot, schema) = (table.committed_snapshot(), table.schema());
        let mut rows: Vec<SignedBatch> =
            self.scan(snapshot.provider()).await?.into_iter().map(SignedBatch::inserts).collect();
        for change in since {
            let weights = change.weights_array().values().iter().map(|w| -w).collect::<Vec<_>>();
            rows.push(SignedBatch::new(change.rows, weights.into())?);
        }
        let read = Arc::clone(&self.nodes[index].compiled.inputs[stream].schema);
        rows_with_columns(snapshot.name(), &consolidate(&schema, rows)?, &read)
    }

    /// A full refresh of a streaming table: it forgets its rows and positions and reads its stream again.
    pub(super) async fn restart_stream(&mut self, index: usize) -> Result<()> {
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

    /// Loads the state of a keyed streaming table from the table itself.
    async fn load_keyed(&mut self, index: usize, stream: usize) -> Result<()> {
        let Some((_, key)) = self.key_columns(index, stream)? else { return Ok(()) };
        let schema = Arc::clone(&self.nodes[index].compiled.schema);
        let main =
            self.nodes[index].main.as_mut().ok_or_else(|| Error::internal("a streaming table without a table"))?;
        let snapshot = main.ready().await?.snapshot();
        let rows = self.scan(snapshot.provider()).await?;
        let mut keyed = Keyed::new(schema, key)?;
        keyed.load(&rows)?;
        self.nodes[index].keyed = Some(keyed);
        Ok(())
    }

    /// For a keyed changelog: where the key's columns stand in the source and in the table.
    pub(super) fn key_columns(&self, index: usize, stream: usize) -> Result<Option<(Vec<usize>, Vec<usize>)>> {
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

pub(super) fn step_stream(node: &mut Node, inputs: &[Vec<SignedBatch>]) -> Result<Vec<SignedBatch>> {
    let Some(circuit) = &mut node.circuit else { return Err(Error::internal("a cold circuit cannot step")) };
    match tokio::task::block_in_place(|| circuit.step(inputs)) {
        Ok(out) => Ok(out),
        Err(error) => {
            node.circuit = None;
            Err(error)
        }
    }
}

/// Whether a streaming circuit holds state about its stream, which must be loaded after a restart: a deduplication does.
pub(super) fn remembers(plan: &Plan, stream: usize) -> bool {
    fn reads(plan: &Plan, slot: usize) -> bool {
        matches!(plan, Plan::Input { slot: own, .. } if *own == slot)
            || plan.below().into_iter().any(|p| reads(p, slot))
    }
    match plan {
        Plan::First { input, .. } => reads(input, stream),
        // Dimensions are loaded from their tables; only the base is the stream.
        Plan::Join { base, .. } => remembers(base, stream),
        other => other.below().into_iter().any(|p| remembers(p, stream)),
    }
}

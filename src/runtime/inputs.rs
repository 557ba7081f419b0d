//! Full contents of a model's inputs, for recomputation.
//!
//! What an epoch hands over of a source begins where earlier epochs have taken it ([`super::pipeline::SourceState::taken`]). A model that sat epochs
//! out stands before that: its source is read again up to there, and its tables' positions follow with the commit of what came of it.

use arrow::array::RecordBatch;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::compute::{EpochState, expanded, slice};
use super::foreign::with_columns;
use super::pipeline::{Pipeline, Upstream, cell_name};
use super::positions::{source_app, source_positions};
use crate::error::{Error, Result};
use crate::types::{Poll, PollLimit, Positions, RejectKind, SignedBatch, Source, SourcePartition};

impl Pipeline {
    pub(super) fn readers_of(&self, index: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].upstreams.contains(&Upstream::Node(index))).collect()
    }

    /// Full content of an input, this epoch's change included.
    pub(super) async fn full_input(
        &mut self,
        index: usize,
        slot: usize,
        epoch: &EpochState,
    ) -> Result<Vec<SignedBatch>> {
        match self.nodes[index].upstreams[slot] {
            // The change is all there is: no need to read back what was just written.
            Upstream::Node(up) if epoch.rows_before[up] == 0 && !self.was_replaced(up) => Ok(epoch.deltas[up].clone()),
            Upstream::Node(_) | Upstream::Foreign(_) | Upstream::This => {
                let provider = self.full_provider(index, slot, epoch).await?;
                Ok(self.scan(provider).await?.into_iter().map(SignedBatch::inserts).collect())
            }
            Upstream::Source(source) => {
                let until = self.reached(index, source)?;
                let reader = self.open_again(source)?;
                let mut rows = read_back(reader, &Positions::new(), &until).await?;
                rows.extend(self.rows_since(source, &until, epoch));
                self.note_reached(index, source, &until)?;
                Ok(rows)
            }
        }
    }

    fn was_replaced(&self, up: usize) -> bool {
        self.nodes[up].main.as_ref().is_some_and(|cell| cell.must_commit)
    }

    pub(super) async fn full_provider(
        &mut self,
        index: usize,
        slot: usize,
        epoch: &EpochState,
    ) -> Result<Arc<dyn datafusion::catalog::TableProvider>> {
        match self.nodes[index].upstreams[slot] {
            Upstream::Node(up) => {
                let cell =
                    self.nodes[up].main.as_mut().ok_or_else(|| Error::internal("an upstream without a table"))?;
                Ok(cell.ready().await?.snapshot().provider())
            }
            Upstream::This => {
                let cell = self.nodes[index].main.as_mut();
                let cell = cell.ok_or_else(|| Error::internal("a model that reads itself has no table"))?;
                Ok(cell.ready().await?.snapshot().provider())
            }
            Upstream::Foreign(foreign) => {
                let schema = &self.nodes[index].compiled.inputs[slot].schema;
                match self.foreign[foreign].table() {
                    Some(table) => with_columns(table.name(), table.committed_snapshot().provider(), schema),
                    None => Ok(Arc::new(datafusion::catalog::MemTable::try_new(Arc::clone(schema), vec![vec![]])?)),
                }
            }
            Upstream::Source(_) => {
                let rows = Box::pin(self.full_input(index, slot, epoch)).await?;
                let schema = Arc::clone(&self.nodes[index].compiled.inputs[slot].schema);
                Ok(Arc::new(datafusion::catalog::MemTable::try_new(schema, vec![expanded(rows)?])?))
            }
        }
    }

    /// The positions of model `index` in a source.
    pub(super) fn positions_in(&self, index: usize, source: usize) -> Result<Positions> {
        let Some(cell) = &self.nodes[index].main else { return Ok(Positions::new()) };
        Ok(source_positions(&cell.consumed, &cell_name(cell)?, &self.sources[source].name))
    }

    /// What of a source is no input of this epoch any more: what model `index` has consumed, and what earlier epochs took while it sat out.
    pub(super) fn reached(&self, index: usize, source: usize) -> Result<Positions> {
        let mut reached = self.positions_in(index, source)?;
        for (partition, next) in &self.sources[source].taken {
            let known = reached.entry(partition.clone()).or_insert(*next);
            *known = (*known).max(*next);
        }
        Ok(reached)
    }

    /// The tables of model `index` hold, with this epoch's commit, the source up to `reached`. Dead letters have positions of their own.
    pub(super) fn note_reached(&mut self, index: usize, source: usize, reached: &Positions) -> Result<()> {
        let name = &self.sources[source].name;
        for (kind, cell) in self.nodes[index].cells() {
            if kind == Some(RejectKind::DeadLetter) {
                continue;
            }
            let table = cell_name(cell)?;
            for (partition, next) in reached {
                let pending = cell.pending.entry(source_app(&table, name, partition)).or_insert(*next);
                *pending = (*pending).max(*next);
            }
        }
        Ok(())
    }

    /// Rows of a source in this epoch, from `from` on (a partition it does not name: all).
    pub(super) fn rows_since(&self, source: usize, from: &Positions, epoch: &EpochState) -> Vec<SignedBatch> {
        let batches = epoch.sources.get(&source).into_iter().flatten();
        let since = batches.filter_map(|batch| {
            let from = from.get(&batch.partition).copied().unwrap_or(0);
            let start = batch.offsets.values().partition_point(|o| *o < from);
            (start < batch.offsets.len()).then(|| slice(&batch.rows, start, batch.offsets.len() - start))
        });
        since.collect()
    }

    /// All rows of a table.
    pub(super) async fn scan(&self, provider: Arc<dyn datafusion::catalog::TableProvider>) -> Result<Vec<RecordBatch>> {
        let context = datafusion::prelude::SessionContext::new_with_state(self.planner.session_state().clone());
        Ok(context.read_table(provider)?.collect().await?)
    }
}

/// Reads a replayable source again, from `from` (a partition it does not name: from its start) to before `until`.
pub(super) async fn read_back(
    mut reader: Box<dyn Source>,
    from: &Positions,
    until: &Positions,
) -> Result<Vec<SignedBatch>> {
    let mut rows = Vec::new();
    let start = |partition: &SourcePartition| from.get(partition).copied().unwrap_or(0);
    let mut left: BTreeSet<SourcePartition> =
        until.iter().filter(|(partition, next)| start(partition) < **next).map(|(p, _)| p.clone()).collect();
    if left.is_empty() {
        return Ok(rows);
    }
    reader.read_until(until);
    reader.open(from, true).await?;
    let limit = PollLimit { max_rows: 131_072, max_files: 64, wait: std::time::Duration::from_millis(200) };
    while !left.is_empty() {
        match reader.poll(limit).await? {
            Poll::Batches(batches) => {
                for batch in batches {
                    let Some(until) = until.get(&batch.partition) else { continue };
                    let offsets = batch.offsets.values();
                    let first = offsets.partition_point(|o| *o < start(&batch.partition));
                    let end = offsets.partition_point(|o| o < until);
                    if end > first {
                        rows.push(slice(&batch.rows, first, end - first));
                    }
                    if batch.next >= *until {
                        left.remove(&batch.partition);
                    }
                }
            }
            Poll::Idle => {}
            Poll::End => break,
        }
    }
    Ok(rows)
}

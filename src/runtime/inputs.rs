//! Full contents of a model's inputs, for recomputation.

use arrow::array::RecordBatch;
use std::sync::Arc;

use super::compute::{EpochState, expanded, slice};
use super::foreign::with_columns;
use super::pipeline::{Pipeline, Upstream, cell_name};
use super::positions::source_positions;
use crate::error::{Error, Result};
use crate::types::{Poll, PollLimit, Positions, SignedBatch};

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
                let mut rows = self.replay(index, source, &Positions::new()).await?;
                rows.extend(self.source_rows(index, source, epoch)?.1);
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
                match &self.foreign[foreign].table {
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

    /// Reads a replayable source again, from `from` (a partition it does not name: from its start) up to the position of `index`.
    pub(super) async fn replay(&mut self, index: usize, source: usize, from: &Positions) -> Result<Vec<SignedBatch>> {
        let Some(cell) = &self.nodes[index].main else { return Ok(Vec::new()) };
        let until = source_positions(&cell.consumed, &cell_name(cell)?, &self.sources[source].name);
        if until.is_empty() {
            return Ok(Vec::new());
        }
        let mut reader = self.open_source(source).await?;
        reader.read_until(&until);
        reader.open(from, true).await?;
        let limit = PollLimit { max_rows: 131_072, max_files: 1024, wait: std::time::Duration::from_millis(200) };
        let mut rows = Vec::new();
        loop {
            match reader.poll(limit).await? {
                Poll::Batches(batches) => {
                    for batch in batches {
                        let until = until.get(&batch.partition).copied().unwrap_or(0);
                        let start = from.get(&batch.partition).copied().unwrap_or(0);
                        let start = batch.offsets.values().partition_point(|o| *o < start);
                        let end = batch.offsets.values().partition_point(|o| *o < until);
                        if end > start {
                            rows.push(slice(&batch.rows, start, end - start));
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
}

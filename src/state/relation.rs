//! The rows of an operator's input, by id.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use std::sync::Arc;

use super::{Applied, PooledRows, RowLog, RowStore, SharedLog, StateReader, StateWriter};
use crate::error::Result;
use crate::types::{SelectedBatch, SignedBatch, Weight};

/// Rows of which some may go, found by their value; or rows of which none ever goes.
pub enum Relation {
    /// Any change.
    Set(RowStore),
    /// The same, of rows that others may hold, too.
    Pooled(PooledRows),
    /// Insertions.
    Log(RowLog),
    /// The same, of rows that others may have, too.
    SharedLog(SharedLog),
}

/// The same call of either.
macro_rules! either {
    ($relation:expr, $rows:ident => $call:expr) => {
        match $relation {
            Relation::Set($rows) => $call,
            Relation::Pooled($rows) => $call,
            Relation::Log($rows) => $call,
            Relation::SharedLog($rows) => $call,
        }
    };
}

impl Relation {
    /// No rows, of these columns.
    pub fn new(schema: &SchemaRef, append_only: bool) -> Result<Self> {
        Ok(if append_only { Relation::Log(RowLog::new(schema)) } else { Relation::Set(RowStore::new(schema)?) })
    }

    /// Rows of these columns that come, and go by their ids.
    pub fn unindexed(schema: &SchemaRef) -> Self {
        Relation::Set(RowStore::unindexed(schema))
    }

    /// Takes a row of [`Relation::unindexed`] away.
    pub fn remove(&mut self, id: u32) {
        if let Relation::Set(rows) = self {
            rows.remove(id);
        }
    }

    /// Applies the change of one epoch. Insertions go first, whatever the order of rows: only what is missing at the end of the
    /// epoch is missing.
    pub fn apply(&mut self, batches: &[SelectedBatch]) -> Result<Applied> {
        let materialized = || batches.iter().map(SelectedBatch::materialize).collect::<Result<Vec<SignedBatch>>>();
        match self {
            Relation::Set(rows) => rows.apply(&materialized()?),
            Relation::Pooled(rows) => rows.apply(&materialized()?),
            Relation::Log(rows) => rows.apply(batches),
            Relation::SharedLog(rows) => rows.apply(batches),
        }
    }

    /// The batches as they are applied best: rows that are not kept where they are, are copied once.
    pub fn prepared(&self, batches: Vec<SelectedBatch>) -> Result<Vec<SelectedBatch>> {
        match self {
            Relation::Log(_) | Relation::SharedLog(_) => Ok(batches),
            Relation::Set(_) | Relation::Pooled(_) => batches.iter().map(|b| Ok(b.materialize()?.into())).collect(),
        }
    }

    /// Whether no row ever goes.
    pub fn is_append_only(&self) -> bool {
        matches!(self, Relation::Log(_) | Relation::SharedLog(_))
    }

    /// Weight of a row.
    #[inline]
    pub fn weight(&self, id: u32) -> Weight {
        either!(self, rows => rows.weight(id))
    }

    /// These columns of the rows `ids`; [`super::NONE`] gives NULLs.
    pub fn columns(&self, ids: &[u32], columns: &[usize]) -> Result<Vec<ArrayRef>> {
        either!(self, rows => rows.columns(ids, columns))
    }

    /// Ids of its rows.
    pub fn ids(&self) -> Vec<u32> {
        let bound = either!(self, rows => rows.bound());
        (0..bound as u32).filter(|id| self.weight(*id) != 0).collect()
    }

    /// The rows `ids` as they came, with the columns that are not shown.
    pub fn rows(&self, ids: &[u32]) -> Result<SignedBatch> {
        let columns = either!(self, rows => rows.all_columns(ids))?;
        let fields: Vec<Field> = columns.iter().map(|c| Field::new("", c.data_type().clone(), true)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(ids.len()));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
        SignedBatch::new(rows, ids.iter().map(|id| self.weight(*id)).collect::<Vec<_>>().into())
    }

    /// The net of a change as it is seen in the columns that are shown.
    pub fn seen(&self, net: Vec<(u32, Weight)>) -> Result<Vec<(u32, Weight)>> {
        match self {
            Relation::Pooled(pooled) => pooled.seen(net),
            Relation::Set(_) | Relation::Log(_) | Relation::SharedLog(_) => Ok(net),
        }
    }

    /// Whether rows that go or come back can differ in columns that it does not show.
    pub fn hides(&self) -> bool {
        matches!(self, Relation::Pooled(pooled) if pooled.hides())
    }

    /// Where the columns that it shows are in rows that come to it.
    pub fn places(&self, columns: &[usize]) -> Vec<usize> {
        match self {
            Relation::Pooled(pooled) => pooled.places(columns),
            Relation::SharedLog(log) => log.places(columns),
            Relation::Set(_) | Relation::Log(_) => columns.to_vec(),
        }
    }

    /// Frees the rows that died in this epoch.
    pub fn sweep(&mut self) -> Result<()> {
        match self {
            Relation::Set(rows) => rows.sweep(),
            Relation::Pooled(rows) => rows.sweep(),
            Relation::Log(_) | Relation::SharedLog(_) => Ok(()),
        }
    }

    /// Writes rows, weights and ids; between two epochs only.
    pub fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        either!(self, rows => rows.save(out))
    }

    /// Becomes what [`Relation::save`] wrote of one of the same columns, append-only or not. By the id that a row was stored with, the one
    /// it has now ([`super::NONE`]: there was none); nothing where all are the same.
    pub fn restore(&mut self, from: &mut StateReader) -> Result<Option<Vec<u32>>> {
        match self {
            Relation::Set(rows) => rows.restore(from).map(|()| None),
            Relation::Pooled(rows) => rows.restore(from),
            Relation::Log(rows) => rows.restore(from).map(|()| None),
            Relation::SharedLog(rows) => rows.restore(from).map(|()| None),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        either!(self, rows => rows.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        either!(self, rows => rows.heap_size())
    }
}

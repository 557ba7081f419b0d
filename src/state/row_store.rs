//! Rows kept as Arrow columns, addressed by id, each distinct row once with its weight.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, SchemaRef};
use hashbrown::HashTable;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

use super::RowCodec;
use crate::error::{Error, Result};
use crate::types::{SignedBatch, Weight};

/// Address of a stored row.
pub type RowId = u32;

/// Rows with weights. Ids stay valid until [`RowStore::sweep`] frees rows whose weight is 0.
#[derive(Debug)]
pub struct RowStore {
    schema: SchemaRef,
    codec: RowCodec,
    /// Chunks of rows as they came; a chunk leaves when none of its rows lives.
    chunks: Vec<Option<Chunk>>,
    free_chunks: Vec<u32>,
    /// Per id: chunk, row in it, identity, weight.
    rows: Vec<Stored>,
    free: Vec<RowId>,
    /// Ids by identity.
    index: HashTable<RowId>,
    /// Rows that reached weight 0 since the last sweep.
    dead: Vec<RowId>,
    live: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Chunk {
    columns: Vec<ArrayRef>,
    live: u32,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Stored {
    chunk: u32,
    row: u32,
    identity: u128,
    weight: Weight,
}

impl RowStore {
    /// An empty store of rows of `schema`.
    pub fn new(schema: SchemaRef) -> Result<Self> {
        let types: Vec<DataType> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
        Ok(RowStore {
            codec: RowCodec::new(&types)?,
            schema,
            chunks: Vec::new(),
            free_chunks: Vec::new(),
            rows: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            dead: Vec::new(),
            live: 0,
            bytes: 0,
        })
    }

    /// Applies a change; returns the id of each of its rows, and whether the row is new to the store. A retraction of a row that is not there is divergence.
    pub fn apply(&mut self, change: &SignedBatch) -> Result<Vec<(RowId, bool)>> {
        let count = change.num_rows();
        if count == 0 {
            return Ok(Vec::new());
        }
        let identities = self.identities(change)?;
        let chunk = self.free_chunks.pop().unwrap_or_else(|| {
            self.chunks.push(None);
            (self.chunks.len() - 1) as u32
        });
        let mut ids = Vec::with_capacity(count);
        let mut added = 0u32;
        for (row, identity) in identities.into_iter().enumerate() {
            let weight = change.weight(row);
            let rows = &self.rows;
            let found = self.index.find(identity as u64, |id| rows[*id as usize].identity == identity).copied();
            let is_new = found.is_none();
            let id = match found {
                Some(id) => id,
                None => {
                    let stored = Stored { chunk, row: row as u32, identity, weight: 0 };
                    let id = match self.free.pop() {
                        Some(id) => {
                            self.rows[id as usize] = stored;
                            id
                        }
                        None => {
                            self.rows.push(stored);
                            (self.rows.len() - 1) as RowId
                        }
                    };
                    let rows = &self.rows;
                    self.index.insert_unique(identity as u64, id, |id| rows[*id as usize].identity as u64);
                    added += 1;
                    id
                }
            };
            let stored = &mut self.rows[id as usize];
            let before = stored.weight;
            stored.weight += weight;
            match (before == 0, stored.weight == 0) {
                (true, false) => self.live += 1,
                (false, true) => {
                    self.live -= 1;
                    self.dead.push(id);
                }
                (true, true) => self.dead.push(id),
                (false, false) => {}
            }
            ids.push((id, is_new));
        }
        if added == 0 {
            self.free_chunks.push(chunk);
        } else {
            let columns = change.rows.columns().to_vec();
            let bytes = columns.iter().map(|c| c.get_array_memory_size()).sum();
            self.bytes += bytes;
            self.chunks[chunk as usize] = Some(Chunk { columns, live: added, bytes });
        }
        if ids.iter().any(|(id, _)| self.rows[*id as usize].weight < 0) {
            return Err(Error::diverged("a retracted row is not in the state of its operator"));
        }
        Ok(ids)
    }

    fn identities(&self, change: &SignedBatch) -> Result<Vec<u128>> {
        if self.codec.columns() == 0 {
            return Ok(vec![0; change.num_rows()]);
        }
        let rows = self.codec.encode(change.rows.columns())?;
        Ok(rows.iter().map(|row| xxh3_128(row.data())).collect())
    }

    /// Weight of a row.
    pub fn weight(&self, id: RowId) -> Weight {
        self.rows[id as usize].weight
    }

    /// Ids whose rows are gone since the last sweep. The caller unlinks them from its indexes before it sweeps.
    pub fn dead(&self) -> Vec<RowId> {
        let mut dead: Vec<RowId> = self.dead.iter().copied().filter(|id| self.weight(*id) == 0).collect();
        dead.sort_unstable();
        dead.dedup();
        dead
    }

    /// Ids of all rows.
    pub fn all(&self) -> Vec<RowId> {
        self.index.iter().copied().collect()
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.free_chunks.clear();
        self.rows.clear();
        self.free.clear();
        self.index.clear();
        self.dead.clear();
        self.live = 0;
        self.bytes = 0;
    }

    /// Frees rows of weight 0 and the chunks that hold none.
    pub fn sweep(&mut self) {
        for id in self.dead() {
            let stored = self.rows[id as usize];
            let rows = &self.rows;
            if let Ok(entry) = self.index.find_entry(stored.identity as u64, |other| {
                *other == id && rows[*other as usize].identity == stored.identity
            }) {
                entry.remove();
                self.free.push(id);
                if let Some(chunk) = &mut self.chunks[stored.chunk as usize] {
                    chunk.live -= 1;
                    if chunk.live == 0 {
                        self.bytes -= chunk.bytes;
                        self.chunks[stored.chunk as usize] = None;
                        self.free_chunks.push(stored.chunk);
                    }
                }
            }
        }
        self.dead.clear();
        if self.live == 0 && self.index.is_empty() {
            self.rows = Vec::new();
            self.free = Vec::new();
            self.chunks = Vec::new();
            self.free_chunks = Vec::new();
        }
    }

    /// The columns `wanted` of the given rows; `None` gives NULLs.
    pub fn gather(&self, ids: &[Option<RowId>], wanted: &[usize]) -> Result<Vec<ArrayRef>> {
        if ids.iter().all(Option::is_none) {
            let fields = self.schema.fields();
            return Ok(wanted.iter().map(|c| new_null_array(fields[*c].data_type(), ids.len())).collect());
        }
        // Only chunks in use become sources of the interleave; source 0 is one NULL.
        let mut slots: Vec<u32> = vec![u32::MAX; self.chunks.len()];
        let mut used: Vec<u32> = Vec::new();
        let mut indices = Vec::with_capacity(ids.len());
        for id in ids {
            match id {
                None => indices.push((0, 0)),
                Some(id) => {
                    let stored = self.rows[*id as usize];
                    let slot = &mut slots[stored.chunk as usize];
                    if *slot == u32::MAX {
                        used.push(stored.chunk);
                        *slot = used.len() as u32;
                    }
                    indices.push((*slot as usize, stored.row as usize));
                }
            }
        }
        let mut out = Vec::with_capacity(wanted.len());
        for column in wanted {
            let null = new_null_array(self.schema.field(*column).data_type(), 1);
            let mut sources: Vec<&dyn arrow::array::Array> = vec![null.as_ref()];
            for chunk in &used {
                let chunk = self.chunks[*chunk as usize]
                    .as_ref()
                    .ok_or_else(|| Error::internal("a stored row points into a freed chunk"))?;
                sources.push(chunk.columns[*column].as_ref());
            }
            out.push(interleave(&sources, &indices)?);
        }
        Ok(out)
    }

    /// All columns of the given rows as a batch.
    pub fn rows(&self, ids: &[RowId]) -> Result<RecordBatch> {
        let ids: Vec<Option<RowId>> = ids.iter().copied().map(Some).collect();
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let columns = self.gather(&ids, &all)?;
        let options = RecordBatchOptions::new().with_row_count(Some(ids.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    /// Distinct rows stored.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Bytes held, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes + self.rows.capacity() * std::mem::size_of::<Stored>() + self.index.capacity() * 5
    }
}

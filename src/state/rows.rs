//! Rows of a Z-set, stored by column and addressed by id.

mod keyed;
mod pooled;
mod texts;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array, new_null_array};
use arrow::compute::{concat, interleave, take};
use arrow::datatypes::{DataType, SchemaRef};
use std::collections::HashMap;
use std::hint::black_box;

use super::index::Index;
use super::page::Page;
use super::sections::damaged;
use super::{AHEAD, NONE, Narrow, Paged, RowCodec, StateReader, StateWriter, canonical};
use crate::error::{Error, Result};
use crate::types::{SignedBatch, Weight};

pub use keyed::{Keyed, Keying, PooledKeys};
pub(super) use pooled::failed;
pub use pooled::{PoolName, PooledRows, RowPools};

/// Chunks are merged up to this many rows. One of more than half of them is not merged again, and its texts are packed.
const CHUNK: usize = 1 << 16;

/// Distinct rows with weights. Small epochs append small chunks, which are merged as they come (the last two whenever they are
/// of similar size), so that a row is copied a logarithmic number of times and reads touch few chunks.
pub struct RowStore {
    types: Vec<DataType>,
    /// None in a store that does not look rows up: every row added gets an id of its own.
    codec: Option<RowCodec>,
    chunks: Vec<Chunk>,
    /// Bytes of all chunks.
    chunk_bytes: usize,
    /// Identity → id.
    index: Index<u32>,
    identities: Paged<u128>,
    weights: Narrow,
    /// Chunk and row of each id.
    locations: Paged<(u32, u32)>,
    free: Vec<u32>,
    /// Rows whose weight fell to 0 in this epoch. They stay readable until [`RowStore::sweep`].
    dead: Vec<u32>,
    live: usize,
}

struct Chunk {
    columns: Vec<ArrayRef>,
    /// Id of each row; [`NONE`] where the row is gone.
    ids: Page<u32>,
    live: usize,
    /// Bytes of the columns.
    column_bytes: usize,
    /// Texts that repeat stand in its columns once: [`texts`].
    is_packed: bool,
}

/// What [`RowStore::apply`] did.
#[derive(Debug, Default)]
pub struct Applied {
    /// Id of every input row, batches one after the other.
    pub ids: Vec<u32>,
    /// Net change of weight by id; none is 0. In an append-only change an id can occur more than once.
    pub net: Vec<(u32, Weight)>,
    /// Rows that were there before and are no more.
    pub removed: Vec<u32>,
}

impl Applied {
    /// Nothing yet, of the rows of `batches`.
    fn of(batches: &[SignedBatch]) -> Self {
        Applied { ids: vec![NONE; batches.iter().map(SignedBatch::num_rows).sum()], ..Applied::default() }
    }

    /// Ids and weights of the rows that are inserted, as long as the others have no ids.
    fn insertions(&self, batches: &[SignedBatch]) -> impl Iterator<Item = (u32, Weight)> {
        let weights = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|i| batch.weight(i)));
        self.ids.iter().copied().zip(weights).filter(|(id, _)| *id != NONE)
    }
}

/// A row that is retracted.
struct Retraction {
    /// Its place among all rows of the epoch.
    row: usize,
    identity: u128,
    id: Option<u32>,
    weight: Weight,
}

/// Applies retractions to `weights`, in which the insertions of `batches` are already. Rows that are no more are added to `dead`.
fn settle(
    weights: &mut Narrow,
    dead: &mut Vec<u32>,
    applied: &mut Applied,
    batches: &[SignedBatch],
    retractions: Vec<Retraction>,
) -> Result<()> {
    let mut net: HashMap<u32, Weight> = HashMap::new();
    for (id, weight) in applied.insertions(batches) {
        *net.entry(id).or_default() += weight;
    }
    for Retraction { row, id, weight, .. } in retractions {
        let id = id.filter(|id| (*id as usize) < weights.len());
        let id = id.ok_or_else(|| Error::diverged("a row is retracted that is not there"))?;
        weights.add(id as usize, weight);
        applied.ids[row] = id;
        *net.entry(id).or_default() += weight;
    }
    for (id, change) in net {
        let weight = weights.get(id as usize);
        if weight < 0 {
            return Err(Error::diverged("a row is retracted more often than it was inserted"));
        }
        if weight == 0 {
            dead.push(id);
            if change != 0 {
                applied.removed.push(id);
            }
        }
        if change != 0 {
            applied.net.push((id, change));
        }
    }
    // Hash order must not reach the output.
    applied.net.sort_unstable();
    applied.removed.sort_unstable();
    Ok(())
}

impl RowStore {
    /// A store that finds rows by their value.
    pub fn new(schema: &SchemaRef) -> Result<Self> {
        let types: Vec<DataType> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
        let codec = RowCodec::new(types.iter().cloned())?;
        Ok(RowStore { codec: Some(codec), ..Self::unindexed(schema) })
    }

    /// A store that does not look rows up: each one applied has an id of its own, and goes by that. Ids of an empty one are 0, 1, 2 …
    pub fn unindexed(schema: &SchemaRef) -> Self {
        RowStore {
            types: schema.fields().iter().map(|f| f.data_type().clone()).collect(),
            codec: None,
            chunks: Vec::new(),
            chunk_bytes: 0,
            index: Index::default(),
            identities: Paged::default(),
            weights: Narrow::default(),
            locations: Paged::default(),
            free: Vec::new(),
            dead: Vec::new(),
            live: 0,
        }
    }

    /// Applies the change of one epoch. Insertions go first, whatever the order of rows: only what is missing at the end of the
    /// epoch is missing.
    pub fn apply(&mut self, batches: &[SignedBatch]) -> Result<Applied> {
        let mut applied = Applied::of(batches);
        let mut retractions: Vec<Retraction> = Vec::new();
        let mut start = 0;
        for batch in batches {
            let ids = &mut applied.ids[start..];
            self.insert(batch, ids, start, &mut retractions, |weights, id, weight| {
                weights.add(id as usize, weight);
            })?;
            start += batch.num_rows();
        }
        if retractions.is_empty() {
            applied.net = applied.insertions(batches).collect();
            return Ok(applied);
        }
        self.find_all(&mut retractions);
        settle(&mut self.weights, &mut self.dead, &mut applied, batches, retractions)?;
        Ok(applied)
    }

    /// Gives every inserted row of `batch` an id, a new one where it is not there yet. `weigh` adds to the weight of each.
    fn insert(
        &mut self,
        batch: &SignedBatch,
        ids: &mut [u32],
        start: usize,
        retractions: &mut Vec<Retraction>,
        mut weigh: impl FnMut(&mut Narrow, u32, Weight),
    ) -> Result<()> {
        let rows = batch.num_rows();
        let identities = match &self.codec {
            Some(codec) => codec.identities(batch.rows.columns(), rows)?,
            None => vec![],
        };
        let mut fresh: Vec<u32> = Vec::new();
        let mut fresh_ids: Vec<u32> = Vec::new();
        for i in 0..rows {
            if i % AHEAD == 0 {
                self.look_ahead(identities.get(i..).unwrap_or_default());
            }
            let weight = batch.weight(i);
            let Some(identity) = identities.get(i).copied() else {
                ids[i] = self.next()?;
                self.allocate(0);
                weigh(&mut self.weights, ids[i], weight);
                fresh.push(i as u32);
                fresh_ids.push(ids[i]);
                continue;
            };
            if weight < 0 {
                retractions.push(Retraction { row: start + i, identity, id: None, weight });
                continue;
            }
            let (id, is_new) = self.place(identity)?;
            if is_new {
                fresh.push(i as u32);
                fresh_ids.push(id);
            }
            weigh(&mut self.weights, id, weight);
            ids[i] = id;
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let whole = fresh.len() == rows;
        let picked = UInt32Array::from(fresh);
        let pick = |c: &ArrayRef| -> Result<ArrayRef> {
            let c = canonical(c)?;
            Ok(if whole { c } else { take(&c, &picked, None)? })
        };
        let columns = batch.rows.columns().iter().map(pick).collect::<Result<Vec<_>>>()?;
        self.append(columns, fresh_ids)
    }

    /// Columns of rows that have ids already.
    fn append(&mut self, columns: Vec<ArrayRef>, ids: Vec<u32>) -> Result<()> {
        let at = self.chunks.len() as u32;
        for (row, id) in ids.iter().enumerate() {
            self.locations[*id as usize] = (at, row as u32);
        }
        self.push(Chunk::new(columns, ids));
        self.merge_tail()
    }

    /// The id of a row, and whether it is new: then it has no columns yet.
    #[inline]
    fn place(&mut self, identity: u128) -> Result<(u32, bool)> {
        let (identities, next) = (&self.identities, self.next()?);
        let is = |id: u32| identities[id as usize] == identity;
        // A slot is asked for its tag when it has an identity, the new one's included.
        let (id, is_new) = self.index.find_or_insert(identity as u32, next, is, |id| identities[*id as usize] as u32);
        if is_new {
            self.allocate(identity);
        }
        Ok((id, is_new))
    }

    /// The id of the next new row.
    fn next(&self) -> Result<u32> {
        // Two values of u32 mark absence.
        let next = self.free.last().copied().or_else(|| u32::try_from(self.weights.len()).ok());
        let next = next.filter(|id| *id < NONE - 1);
        next.ok_or_else(|| Error::environment("state-full", "too many rows in one state").permanent())
    }

    /// Gives the next id to a row, of no weight yet.
    fn allocate(&mut self, identity: u128) {
        self.live += 1;
        let is_indexed = self.codec.is_some();
        if let Some(id) = self.free.pop() {
            if is_indexed {
                self.identities[id as usize] = identity;
            }
            self.weights.set(id as usize, 0);
            return;
        }
        if is_indexed {
            self.identities.push(identity);
        }
        self.weights.push(0);
        self.locations.push((NONE, 0));
    }

    /// Takes away a row of a store that does not look rows up, whatever its weight.
    pub fn remove(&mut self, id: u32) {
        self.weights.set(id as usize, 0);
        self.dead.push(id);
    }

    /// Whether there is a row with this id.
    pub fn contains(&self, id: u32) -> bool {
        (id as usize) < self.weights.len() && self.weights.get(id as usize) != 0
    }

    /// Reads what looking up the first [`AHEAD`] of these rows will read.
    fn look_ahead(&self, identities: &[u128]) {
        if !self.index.is_large() {
            return;
        }
        let mut candidates = [NONE; AHEAD];
        for (identity, candidate) in identities.iter().zip(&mut candidates) {
            *candidate = self.index.first_candidate(*identity as u32).unwrap_or(NONE);
        }
        let known = candidates.iter().filter(|id| **id != NONE).map(|id| *id as usize);
        black_box(known.fold(0, |read, id| read ^ self.identities[id] as i64 ^ self.weights.get(id)));
    }

    fn find_all(&mut self, retractions: &mut [Retraction]) {
        let identities: Vec<u128> = retractions.iter().map(|retraction| retraction.identity).collect();
        for (at, retraction) in retractions.iter_mut().enumerate() {
            if at % AHEAD == 0 {
                self.look_ahead(&identities[at..]);
            }
            retraction.id = self.find(retraction.identity);
        }
    }

    fn find(&mut self, identity: u128) -> Option<u32> {
        let identities = &self.identities;
        let is = |id: u32| identities[id as usize] == identity;
        self.index.find(identity as u32, is, |id| identities[*id as usize] as u32)
    }

    /// Weight of a row.
    #[inline]
    pub fn weight(&self, id: u32) -> Weight {
        self.weights.get(id as usize)
    }

    /// Column `column` of the rows `ids`; [`NONE`] gives NULL.
    pub fn column(&self, ids: &[u32], column: usize) -> Result<ArrayRef> {
        Ok(self.columns(ids, &[column])?.swap_remove(0))
    }

    /// These columns of the rows `ids`; [`NONE`] gives NULLs.
    pub fn columns(&self, ids: &[u32], columns: &[usize]) -> Result<Vec<ArrayRef>> {
        let optional = ids.contains(&NONE);
        if !optional && self.chunks.len() == 1 {
            let rows = ids.iter().map(|id| self.locations[*id as usize].1);
            let chunk = &self.chunks[0];
            if ids.len() == chunk.ids.len() && rows.clone().enumerate().all(|(i, r)| i as u32 == r) {
                return columns.iter().map(|c| texts::plain(&chunk.columns[*c])).collect();
            }
            let rows = UInt32Array::from_iter_values(rows);
            return columns.iter().map(|c| texts::plain(&take(&chunk.columns[*c], &rows, None)?)).collect();
        }
        let null = (self.chunks.len(), 0);
        let indices: Vec<(usize, usize)> = ids
            .iter()
            .map(|id| match *id {
                NONE => null,
                id => {
                    let (chunk, row) = self.locations[id as usize];
                    (chunk as usize, row as usize)
                }
            })
            .collect();
        let gather = |c: &usize| -> Result<ArrayRef> {
            let chunks = || self.chunks.iter().map(|chunk| &chunk.columns[*c]);
            if chunks().any(|column| column.as_any_dictionary_opt().is_some())
                && let Some(texts) = texts::gathered(chunks(), &indices)
            {
                return Ok(texts);
            }
            let nulls = new_null_array(&self.types[*c], 1);
            let mut arrays: Vec<&dyn Array> = chunks().map(AsRef::as_ref).collect();
            arrays.push(nulls.as_ref());
            Ok(interleave(&arrays, &indices)?)
        };
        columns.iter().map(gather).collect()
    }

    /// All columns of the rows `ids`.
    pub fn all_columns(&self, ids: &[u32]) -> Result<Vec<ArrayRef>> {
        self.columns(ids, &(0..self.types.len()).collect::<Vec<_>>())
    }

    /// Above the ids of all rows.
    pub fn bound(&self) -> usize {
        self.weights.len()
    }

    /// Frees the rows that died in this epoch, and the space of chunks that are mostly dead.
    pub fn sweep(&mut self) -> Result<()> {
        if self.dead.is_empty() {
            return Ok(());
        }
        for (at, id) in self.dead.iter().copied().enumerate() {
            if at % AHEAD == 0 {
                let lot = self.dead[at..].iter().take(AHEAD).map(|id| self.locations[*id as usize]);
                black_box(lot.fold(0, |read, (chunk, row)| read ^ self.chunks[chunk as usize].ids[row as usize]));
            }
            if let Some(identity) = self.identities.get(id as usize) {
                self.index.remove(identity as u32, id);
            }
            let (chunk, row) = self.locations[id as usize];
            let chunk = &mut self.chunks[chunk as usize];
            chunk.ids.own()[row as usize] = NONE;
            chunk.live -= 1;
            self.live -= 1;
            self.free.push(id);
        }
        self.dead = Vec::new();
        let mut at = 0;
        while at < self.chunks.len() {
            let chunk = &self.chunks[at];
            if chunk.live == 0 {
                self.chunk_bytes -= chunk.bytes();
                self.chunks.swap_remove(at);
                if at < self.chunks.len() {
                    self.relocate(at);
                }
                continue;
            }
            if chunk.live * 2 < chunk.ids.len() {
                let smaller = compacted(chunk)?;
                self.chunk_bytes = self.chunk_bytes + smaller.bytes() - chunk.bytes();
                self.chunks[at] = smaller;
                self.relocate(at);
            }
            at += 1;
        }
        if self.live == 0 {
            // Nothing refers to ids any more.
            *self = RowStore { types: std::mem::take(&mut self.types), codec: self.codec.take(), ..Self::nothing() };
        }
        Ok(())
    }

    fn nothing() -> Self {
        Self::unindexed(&std::sync::Arc::new(arrow::datatypes::Schema::empty()))
    }

    fn push(&mut self, chunk: Chunk) {
        self.chunk_bytes += chunk.bytes();
        self.chunks.push(chunk);
    }

    fn merge_tail(&mut self) -> Result<()> {
        while let [.., a, b] = self.chunks.as_slice() {
            if a.is_packed || b.is_packed || a.ids.len() > 2 * b.ids.len() || a.ids.len() + b.ids.len() > CHUNK {
                break;
            }
            self.chunk_bytes -= a.bytes() + b.bytes();
            let (a, b) = (compacted(a)?, compacted(b)?);
            let columns = a
                .columns
                .iter()
                .zip(&b.columns)
                .map(|(a, b)| Ok(concat(&[a.as_ref(), b.as_ref()])?))
                .collect::<Result<Vec<_>>>()?;
            let mut ids = a.ids.to_vec();
            ids.extend_from_slice(&b.ids);
            self.chunks.truncate(self.chunks.len() - 2);
            self.push(Chunk::new(columns, ids));
            self.relocate(self.chunks.len() - 1);
        }
        if let Some(last) = self.chunks.last_mut()
            && !last.is_packed
            && last.ids.len() > CHUNK / 2
        {
            let before = last.bytes();
            last.pack()?;
            self.chunk_bytes = self.chunk_bytes + last.bytes() - before;
        }
        Ok(())
    }

    /// Tells the rows of a chunk where they are now.
    fn relocate(&mut self, chunk: usize) {
        for (row, id) in self.chunks[chunk].ids.iter().enumerate() {
            if *id != NONE {
                self.locations[*id as usize] = (chunk as u32, row as u32);
            }
        }
    }

    /// Writes rows, weights and ids; between two epochs only.
    pub fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        if !self.dead.is_empty() {
            return Err(Error::internal("state is saved in the middle of an epoch"));
        }
        out.words("rows.chunks", [self.chunks.len() as u64]);
        out.words("rows.free", self.free.iter().copied());
        out.paged("rows.identities", &mut self.identities);
        self.weights.save("rows.weights", out);
        for chunk in &mut self.chunks {
            let ids = chunk.ids.share();
            out.shared("rows.ids", move |put: &mut dyn FnMut(&[u32])| put(&ids));
            out.columns("rows.columns", &chunk.columns, chunk.ids.len())?;
        }
        Ok(())
    }

    /// Becomes what [`RowStore::save`] wrote of a store of the same columns: the same ids for the same rows.
    pub fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        let chunks = *from.exactly::<u64>("rows.chunks", 1)?.first().unwrap_or(&0);
        self.free = from.words("rows.free")?;
        self.identities = from.words("rows.identities")?.into();
        self.weights = Narrow::load("rows.weights", from)?;
        let bound = self.weights.len();
        if self.identities.len() != if self.codec.is_some() { bound } else { 0 } {
            return Err(damaged("identities and weights do not belong together"));
        }
        self.locations = Paged::default();
        self.locations.resize(bound, (NONE, 0));
        let live = bound.checked_sub(self.free.len()).ok_or_else(|| damaged("more free rows than rows"))?;
        (self.chunks, self.chunk_bytes, self.dead, self.live) = (Vec::new(), 0, Vec::new(), 0);
        for at in 0..chunks {
            let ids = from.words::<u32>("rows.ids")?;
            let (columns, rows) = from.columns("rows.columns", &self.types)?;
            if rows != ids.len() {
                return Err(damaged("a chunk has more rows than ids"));
            }
            let mut alive = 0;
            for (row, id) in ids.iter().enumerate().filter(|(_, id)| **id != NONE) {
                match self.locations.get_mut(*id as usize) {
                    Some(place) if place.0 == NONE => *place = (at as u32, row as u32),
                    _ => return Err(damaged("a row has two places")),
                }
                alive += 1;
            }
            // The columns share one allocation: each by its part of it.
            let column_bytes = columns.iter().map(|c| c.to_data().get_slice_memory_size()).sum::<Result<usize, _>>()?;
            self.live += alive;
            let is_packed = columns.iter().any(|column| column.as_any_dictionary_opt().is_some());
            self.push(Chunk { columns, ids: ids.into(), live: alive, column_bytes, is_packed });
        }
        if self.live != live {
            return Err(damaged("rows are missing"));
        }
        let tags: Vec<u32> = self.identities.iter().map(|identity| identity as u32).collect();
        if self.codec.is_some() {
            let absent: Vec<bool> = self.locations.iter().map(|(chunk, _)| chunk == NONE).collect();
            self.index = Index::load(&tags, &absent, |id| tags[*id as usize]);
        }
        Ok(())
    }

    /// Number of distinct rows.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    #[cfg(test)]
    pub(super) fn chunks_for_test(&self) -> usize {
        self.chunks.len()
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        self.chunk_bytes
            + self.index.heap_size()
            + self.weights.heap_size()
            + self.locations.heap_size()
            + self.identities.heap_size()
            + self.free.capacity() * 4
    }
}

impl Chunk {
    /// Rows that are all there.
    fn new(columns: Vec<ArrayRef>, ids: Vec<u32>) -> Self {
        let column_bytes = columns.iter().map(|a| a.get_array_memory_size()).sum();
        Chunk { live: ids.len(), columns, ids: ids.into(), column_bytes, is_packed: false }
    }

    /// It stays as it is from now on, but for rows that go.
    fn pack(&mut self) -> Result<()> {
        self.columns = self.columns.iter().map(|column| tight(texts::packed(column)?)).collect::<Result<Vec<_>>>()?;
        self.column_bytes = self.columns.iter().map(|a| a.get_array_memory_size()).sum();
        self.is_packed = true;
        Ok(())
    }

    fn bytes(&self) -> usize {
        // Of the ids by their number, not by what the vector reserves: that may change without notice.
        self.ids.len() * 4 + self.column_bytes
    }
}

/// The column in memory of its own, unless that is about what it takes already: it may be a part of much more.
fn tight(column: ArrayRef) -> Result<ArrayRef> {
    let needed = column.to_data().get_slice_memory_size()?;
    if column.get_array_memory_size() <= needed + needed / 4 {
        return Ok(column);
    }
    Ok(take(&column, &UInt32Array::from_iter_values(0..column.len() as u32), None)?)
}

/// The chunk without the rows that are gone.
fn compacted(chunk: &Chunk) -> Result<Chunk> {
    if chunk.live == chunk.ids.len() {
        return Ok(Chunk { columns: chunk.columns.clone(), ids: chunk.ids.clone(), ..*chunk });
    }
    let rows: Vec<u32> = (0..chunk.ids.len() as u32).filter(|r| chunk.ids[*r as usize] != NONE).collect();
    let ids: Vec<u32> = rows.iter().map(|r| chunk.ids[*r as usize]).collect();
    let rows = UInt32Array::from(rows);
    let columns = chunk.columns.iter().map(|c| Ok(take(c, &rows, None)?)).collect::<Result<Vec<_>>>()?;
    Ok(Chunk { is_packed: chunk.is_packed, ..Chunk::new(columns, ids) })
}

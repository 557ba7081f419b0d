//! Rows that several operators keep, stored once.
//!
//! A pool holds distinct rows, each as long as anybody holds it: what a [`RowStore`] counts as weight is the number of holders there. A
//! [`PooledRows`] is one holder. Which rows are its own, and with which weights, is known to it alone, so holders need not be at one
//! version of a table: one may be an epoch ahead, stand still, be filled anew or come back from disk. A row's id is the same for all of them.
//!
//! A pool is found by its name ([`RowPools`]) and goes with its last holder. Nothing depends on who shares what: rows are found by their value.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::{Applied, Chunk, Retraction, RowStore, settle};
use crate::error::{Error, Result};
use crate::state::shared_keys::KeyIndexes;
use crate::state::{AHEAD, Links, NONE, Narrow, RowCodec, StateReader, StateWriter, in_pieces};
use crate::types::{SignedBatch, Weight};

/// Which rows are one pool: those of equal name, of one part of the keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolName {
    /// What says where the rows come from, and how they are dealt out.
    pub rows: Arc<str>,
    /// Which part of them, of how many.
    pub part: (usize, usize),
}

type Pools = HashMap<(PoolName, Vec<DataType>), Weak<Mutex<Pool>>>;

/// The pools of one pipeline.
#[derive(Default)]
pub struct RowPools(Mutex<Pools>);

impl RowPools {
    /// A holder, of no rows yet, in the pool of this name and these columns, of which it asks for those in `shown` only.
    pub fn hold(&self, name: PoolName, schema: &SchemaRef, shown: Vec<usize>) -> Result<PooledRows> {
        let types = schema.fields().iter().map(|f| f.data_type().clone()).collect();
        let mut pools = self.0.lock().map_err(|_| failed())?;
        pools.retain(|_, pool| pool.strong_count() > 0);
        // One in which a change failed half-way is left to its holders.
        let sound = |pool: &Arc<Mutex<Pool>>| pool.lock().is_ok_and(|pool| !pool.broken);
        let key = (name, types);
        let pool = match pools.get(&key).and_then(Weak::upgrade).filter(sound) {
            Some(pool) => pool,
            None => {
                let pool = Arc::new(Mutex::new(Pool::new(RowStore::new(schema)?)));
                pools.insert(key, Arc::downgrade(&pool));
                pool
            }
        };
        pool.lock().map_err(|_| failed())?.holders += 1;
        let types =
            |shown: &Vec<usize>| shown.iter().map(|at| schema.field(*at).data_type().clone()).collect::<Vec<_>>();
        let hides = !shown.iter().copied().eq(0..schema.fields().len());
        let differ = if hides { Some(RowCodec::new(types(&shown))?) } else { None };
        Ok(PooledRows { pool, shown, differ, weights: Narrow::default(), dead: Vec::new(), live: 0 })
    }
}

pub(in crate::state) fn failed() -> Error {
    Error::diverged("a change failed in the middle of rows that several models share")
}

pub(super) struct Pool {
    /// Weights are numbers of holders.
    rows: RowStore,
    /// By their places.
    pub indexes: KeyIndexes<Links>,
    holders: usize,
    /// Set while rows change: an error leaves it set.
    broken: bool,
}

impl Pool {
    fn new(rows: RowStore) -> Self {
        Pool { rows, indexes: KeyIndexes::default(), holders: 0, broken: false }
    }

    /// One holder less of each of these rows; those without any are gone.
    fn let_go(&mut self, ids: Vec<u32>) -> Result<()> {
        let rows = &mut self.rows;
        for (at, id) in ids.iter().copied().enumerate() {
            if at % AHEAD == 0 {
                let lot = &ids[at..ids.len().min(at + AHEAD)];
                self.indexes.iter_mut().for_each(|index| index.rows.look_ahead_of(lot));
            }
            rows.weights.add(id as usize, -1);
            if rows.weights.get(id as usize) == 0 {
                rows.dead.push(id);
                self.indexes.iter_mut().for_each(|index| index.forget(id));
            }
        }
        rows.sweep()
    }
}

/// A pool in which rows are being changed.
struct Changing<'a>(MutexGuard<'a, Pool>);

impl<'a> Changing<'a> {
    fn new(pool: &'a Mutex<Pool>) -> Result<Self> {
        let mut pool = pool.lock().map_err(|_| failed())?;
        if pool.broken {
            return Err(failed());
        }
        pool.broken = true;
        Ok(Changing(pool))
    }

    fn rows(&mut self) -> &mut RowStore {
        &mut self.0.rows
    }

    /// Nothing failed.
    fn done(mut self) {
        self.0.broken = false;
    }
}

/// The rows of one holder. Ids are the pool's: those of rows that others hold are missing among its own.
pub struct PooledRows {
    pool: Arc<Mutex<Pool>>,
    shown: Vec<usize>,
    /// Tells apart what is shown of rows, where that is not all of them.
    differ: Option<RowCodec>,
    /// By id; 0 where a row is another's.
    weights: Narrow,
    /// Rows whose weight fell to 0 in this epoch. They are held until [`PooledRows::sweep`].
    dead: Vec<u32>,
    live: usize,
}

impl PooledRows {
    /// Its pool, for what else knows of it.
    pub(super) fn shared(&self) -> Arc<Mutex<Pool>> {
        Arc::clone(&self.pool)
    }

    pub(super) fn pool(&self) -> Result<MutexGuard<'_, Pool>> {
        let pool = self.pool.lock().map_err(|_| failed())?;
        if pool.broken { Err(failed()) } else { Ok(pool) }
    }

    /// As [`RowStore::apply`].
    pub fn apply(&mut self, batches: &[SignedBatch]) -> Result<Applied> {
        let PooledRows { pool, weights, dead, live, .. } = self;
        let mut pool = Changing::new(pool)?;
        let mut applied = Applied::of(batches);
        let mut retractions: Vec<Retraction> = Vec::new();
        let mut start = 0;
        for batch in batches {
            let hold = |holders: &mut Narrow, id: u32, weight: Weight| {
                let at = id as usize;
                if at >= weights.len() {
                    weights.resize(holders.len());
                }
                if weights.get(at) == 0 {
                    holders.add(at, 1);
                    *live += 1;
                }
                weights.add(at, weight);
            };
            pool.rows().insert(batch, &mut applied.ids[start..], start, &mut retractions, hold)?;
            start += batch.num_rows();
        }
        pool.rows().find_all(&mut retractions);
        pool.done();
        if retractions.is_empty() {
            applied.net = applied.insertions(batches).collect();
            return Ok(applied);
        }
        let before = dead.len();
        settle(weights, dead, &mut applied, batches, retractions)?;
        *live -= dead.len() - before;
        Ok(applied)
    }

    /// Weight of a row; 0 of another's.
    #[inline]
    pub fn weight(&self, id: u32) -> Weight {
        if (id as usize) < self.weights.len() { self.weights.get(id as usize) } else { 0 }
    }

    /// As [`RowStore::columns`], of the columns that are shown.
    pub fn columns(&self, ids: &[u32], columns: &[usize]) -> Result<Vec<ArrayRef>> {
        self.pool()?.rows.columns(ids, &self.places(columns))
    }

    /// As [`RowStore::all_columns`], of those that are not shown, too.
    pub fn all_columns(&self, ids: &[u32]) -> Result<Vec<ArrayRef>> {
        self.pool()?.rows.all_columns(ids)
    }

    /// Above the ids of its rows.
    pub fn bound(&self) -> usize {
        self.weights.len()
    }

    /// `net`, in which rows cancel out that differ only in what is not shown: a change there is none to this holder.
    pub fn seen(&self, net: Vec<(u32, Weight)>) -> Result<Vec<(u32, Weight)>> {
        let Some(codec) = self.differ.as_ref().filter(|_| net.iter().any(|(_, weight)| *weight < 0)) else {
            return Ok(net);
        };
        let ids: Vec<u32> = net.iter().map(|(id, _)| *id).collect();
        let columns = self.columns(&ids, &(0..self.shown.len()).collect::<Vec<_>>())?;
        let encoded = codec.encode(&columns, ids.len())?;
        let mut totals: HashMap<u128, Weight> = HashMap::new();
        for (at, (_, weight)) in net.iter().enumerate() {
            *totals.entry(encoded.identity(at)).or_default() += weight;
        }
        let mut seen = Vec::with_capacity(net.len());
        for (at, (id, weight)) in net.into_iter().enumerate() {
            // What is left of the total is taken from the rows of its sign, the first ones first.
            let Some(left) = totals.get_mut(&encoded.identity(at)) else { continue };
            let part = if weight > 0 { weight.min(*left).max(0) } else { weight.max(*left).min(0) };
            if part != 0 {
                *left -= part;
                seen.push((id, part));
            }
        }
        Ok(seen)
    }

    /// Whether rows have columns that are not shown.
    pub fn hides(&self) -> bool {
        self.differ.is_some()
    }

    /// Where the columns that are shown are in rows of the pool.
    pub fn places(&self, columns: &[usize]) -> Vec<usize> {
        columns.iter().map(|column| self.shown[*column]).collect()
    }

    /// Lets go of the rows that died in this epoch.
    pub fn sweep(&mut self) -> Result<()> {
        if self.dead.is_empty() {
            return Ok(());
        }
        let mut pool = Changing::new(&self.pool)?;
        pool.0.let_go(std::mem::take(&mut self.dead))?;
        pool.done();
        if self.live == 0 {
            self.weights = Narrow::default();
        }
        Ok(())
    }

    /// Writes what [`RowStore::save`] would of these rows alone, under the ids they have here.
    pub fn save(&self, out: &mut StateWriter) -> Result<()> {
        if !self.dead.is_empty() {
            return Err(Error::internal("state is saved in the middle of an epoch"));
        }
        let mut pool = self.pool()?;
        let weights = Arc::new(self.weights.clone());
        let own = |weights: &Narrow, id: u32| (id as usize) < weights.len() && weights.get(id as usize) != 0;
        let has_own = |chunk: &&mut Chunk| chunk.ids.iter().any(|id| own(&weights, *id));
        let identities = pool.rows.identities.share();
        let chunks: Vec<_> = pool.rows.chunks.iter_mut().filter(has_own).collect();
        out.words("rows.chunks", [chunks.len() as u64]);
        out.words("rows.free", (0..weights.len() as u32).filter(|id| !own(&weights, *id)));
        let of = Arc::clone(&weights);
        out.shared("rows.identities", move |put: &mut dyn FnMut(&[u128])| {
            let identity = |(id, identity)| if own(&of, id) { identity } else { 0 };
            in_pieces((0..).zip(identities.iter()).take(of.len()).map(identity), put);
        });
        weights.save("rows.weights", out);
        for chunk in chunks {
            let (ids, of) = (chunk.ids.share(), Arc::clone(&weights));
            out.shared("rows.ids", move |put: &mut dyn FnMut(&[u32])| {
                in_pieces(ids.iter().map(|id| if own(&of, *id) { *id } else { NONE }), put);
            });
            out.columns("rows.columns", &chunk.columns, chunk.ids.len())?;
        }
        Ok(())
    }

    /// Becomes what [`RowStore::save`] or [`PooledRows::save`] wrote of the same columns. Rows that others hold have ids already: by the id that
    /// a row was stored with, the one it has now ([`NONE`]: there was none); nothing where all are the same.
    pub fn restore(&mut self, from: &mut StateReader) -> Result<Option<Vec<u32>>> {
        let mut stored = self.pool()?.rows.empty()?;
        stored.restore(from)?;
        let mut pool = Changing::new(&self.pool)?;
        let rows = pool.rows();
        self.live = stored.live;
        if rows.is_empty() {
            let held: Vec<i64> = stored.weights.iter().map(|weight| i64::from(weight != 0)).collect();
            self.weights = std::mem::replace(&mut stored.weights, Narrow::up_to(1, held.into_iter()));
            *rows = stored;
            pool.done();
            return Ok(None);
        }
        let mut now = vec![NONE; stored.weights.len()];
        let (mut missing, mut added) = (Vec::new(), Vec::new());
        for (id, now) in now.iter_mut().enumerate().filter(|(id, _)| stored.weights.get(*id) != 0) {
            let identity = stored.identities[id];
            let (found, is_new) = rows.place(identity)?;
            if is_new {
                missing.push(id as u32);
                added.push(found);
            }
            *now = found;
            rows.weights.add(found as usize, 1);
            if found as usize >= self.weights.len() {
                self.weights.resize(rows.weights.len());
            }
            self.weights.set(found as usize, stored.weights.get(id));
        }
        if !missing.is_empty() {
            let all: Vec<usize> = (0..stored.types.len()).collect();
            rows.append(stored.columns(&missing, &all)?, added)?;
        }
        pool.done();
        Ok(Some(now))
    }

    /// Number of its distinct rows.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Bytes on the heap: its own, and its part of what all holders have together.
    pub fn heap_size(&self) -> usize {
        let pooled = self.pool.lock().map_or(0, |pool| pool.rows.heap_size() / pool.holders.max(1));
        self.weights.heap_size() + self.dead.capacity() * 4 + pooled
    }
}

impl Drop for PooledRows {
    fn drop(&mut self) {
        // In one that is broken nobody reads any more.
        let Ok(mut pool) = Changing::new(&self.pool) else { return };
        pool.0.holders -= 1;
        if pool.0.holders == 0 && pool.0.indexes.is_empty() {
            // Nobody is left to tell its rows from those of others.
            if let Ok(empty) = pool.0.rows.empty() {
                pool.0.rows = empty;
                pool.done();
            }
            return;
        }
        // After a retraction that failed, what is uncertain stays.
        let own = (0..self.weights.len() as u32).filter(|id| self.weights.get(*id as usize) > 0);
        let held = own.chain(std::mem::take(&mut self.dead)).collect();
        if pool.0.let_go(held).is_ok() {
            pool.done();
        }
    }
}

impl RowStore {
    /// One of the same columns, with no rows.
    fn empty(&self) -> Result<Self> {
        let codec = self.codec.as_ref().map(|_| RowCodec::new(self.types.iter().cloned())).transpose()?;
        Ok(RowStore { types: self.types.clone(), codec, ..Self::nothing() })
    }
}

//! Pooled rows by a key: one index of them for all holders that look for rows by it.
//!
//! A row is linked when the first of these holders has it, and until it leaves the pool; which of the linked rows are a holder's own is
//! known to that holder alone, as it is with the rows themselves.

use std::sync::{Arc, Mutex, MutexGuard};

use super::pooled::{Pool, PooledRows, failed};
use crate::error::Result;
use crate::state::shared_keys::{Bits, KeyIndex};
use crate::state::{Linked, Links, NONE, StateWriter};

impl KeyIndex<Links> {
    /// The row leaves the pool.
    pub fn forget(&mut self, row: u32) {
        if self.rows.contains(row) {
            let key = self.rows.keys()[row as usize];
            self.rows.unlink(row);
            self.tidy(key);
        }
    }
}

/// One holder's view of an index.
pub struct PooledKeys {
    pool: Arc<Mutex<Pool>>,
    /// The index's place in the pool.
    at: usize,
    /// Which of the linked rows are its own.
    own: Bits,
    /// Which keys it said it needs.
    needs: Bits,
}

/// The index, to look into; nobody else uses the pool meanwhile: its rows must not be asked for.
pub struct Keyed<'a> {
    pool: MutexGuard<'a, Pool>,
    at: usize,
    own: &'a Bits,
}

/// The same, to give ids to keys. What is given stays given: from then on a row or a need keeps its key, whatever other holders do.
pub struct Keying<'a> {
    pool: MutexGuard<'a, Pool>,
    at: usize,
    needs: &'a mut Bits,
}

impl PooledKeys {
    /// Of the pool that holds `rows`; `name` is equal for equal keys.
    pub fn new(rows: &PooledRows, name: &str) -> Result<Self> {
        let mut pool = rows.pool()?;
        let at = pool.indexes.hold(name, || Links::new(false));
        drop(pool);
        Ok(PooledKeys { pool: rows.shared(), at, own: Bits::default(), needs: Bits::default() })
    }

    /// To look into it.
    pub fn lock(&self) -> Result<Keyed<'_>> {
        Ok(Keyed { pool: self.pool.lock().map_err(|_| failed())?, at: self.at, own: &self.own })
    }

    /// To give ids to keys.
    pub fn lock_mut(&mut self) -> Result<Keying<'_>> {
        Ok(Keying { pool: self.pool.lock().map_err(|_| failed())?, at: self.at, needs: &mut self.needs })
    }

    /// Whether a row was linked.
    #[inline]
    pub fn contains(&self, row: u32) -> bool {
        self.own.has(row)
    }

    /// A row that got its key from [`Keying::key_of_row`] is one of its own.
    pub fn link(&mut self, row: u32) {
        self.own.set(row, true);
    }

    /// A row of its own is no more.
    pub fn unlink(&mut self, row: u32) {
        self.own.set(row, false);
    }

    /// Needs `key` no more, if it did.
    pub fn release(&mut self, key: u32) -> Result<()> {
        if self.needs.has(key) {
            let mut pool = self.pool.lock().map_err(|_| failed())?;
            pool.indexes.get_mut(self.at)?.release(key, &mut self.needs);
        }
        Ok(())
    }

    /// Writes keys and rows of its own as a [`GroupIndex`](crate::state::GroupIndex) and [`Links`] would be; what stands between them is written by `between`.
    pub fn save(&self, out: &mut StateWriter, between: impl FnOnce(&mut StateWriter)) -> Result<()> {
        let mut pool = self.pool.lock().map_err(|_| failed())?;
        let index = pool.indexes.get_mut(self.at)?;
        let mut keys = Bits::default();
        let mut rows = Links::new(false);
        for row in self.own.iter() {
            let key = index.rows.keys()[row as usize];
            rows.link(row, key);
            if key != NONE {
                keys.set(key, true);
            }
        }
        index.keys.save_some(out, |key| keys.has(key) || self.needs.has(key));
        between(out);
        rows.save(out);
        Ok(())
    }

    /// Bytes on the heap: its own, and its part of the index.
    pub fn heap_size(&self) -> usize {
        let part = |keyed: Keyed<'_>| keyed.pool.indexes.get(self.at).map_or(0, KeyIndex::heap_size_of_one);
        self.own.heap_size() + self.needs.heap_size() + self.lock().map_or(0, part)
    }
}

impl Keyed<'_> {
    /// The rows that are its own, by key.
    pub fn linked(&self) -> Result<Linked<'_>> {
        Ok(self.pool.indexes.get(self.at)?.rows.linked(Some(self.own)))
    }
}

impl Keying<'_> {
    /// As [`GroupIndex::look_ahead`](crate::state::GroupIndex::look_ahead), for keys that are asked for next.
    pub fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Result<()> {
        self.pool.indexes.get(self.at)?.look_ahead(keys);
        Ok(())
    }

    /// The id of a row's key, under which it is linked from now on: that of `key`, which is asked for if it is not linked yet. None
    /// matches nothing. The row is one that the holder has.
    pub fn key_of_row<'k>(&mut self, row: u32, key: impl FnOnce() -> Option<&'k [u8]>) -> Result<u32> {
        let index = self.pool.indexes.get_mut(self.at)?;
        if index.rows.contains(row) {
            return Ok(index.rows.keys()[row as usize]);
        }
        let key = key().map_or(Ok(NONE), |key| index.keys.intern_one(key))?;
        index.rows.link(row, key);
        Ok(key)
    }

    /// The id of a key that the other side has, which is kept until it is [released](PooledKeys::release).
    pub fn need(&mut self, key: &[u8]) -> Result<u32> {
        self.pool.indexes.get_mut(self.at)?.need(key, self.needs)
    }

    /// The id of a key; [`NONE`] if it is not known. It is that key's for as long as a row of the holder's own has it.
    pub fn find(&mut self, key: &[u8]) -> Result<u32> {
        Ok(self.pool.indexes.get_mut(self.at)?.keys.find_one(key))
    }
}

impl Drop for PooledKeys {
    fn drop(&mut self) {
        if let Ok(mut pool) = self.pool.lock() {
            pool.indexes.leave(self.at, &self.needs);
        }
    }
}

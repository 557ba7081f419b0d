//! Pooled rows by a key: one index of them for all holders that look for rows by it.
//!
//! A row is linked when the first of these holders has it, and until it leaves the pool; which of the linked rows are a holder's own is
//! known to that holder alone, as it is with the rows themselves. A key lives as long as a row of the pool has it, or a holder says that it needs it: the other
//! side of a join names keys by the same ids.

use std::sync::{Arc, Mutex, MutexGuard};

use super::pooled::{Pool, PooledRows, failed};
use crate::error::{Error, Result};
use crate::state::{GroupIndex, Linked, Links, NONE, Narrow, StateWriter};

/// Pooled rows by one key.
pub(super) struct KeyIndex {
    /// Equal for equal keys.
    name: String,
    keys: GroupIndex,
    rows: Links,
    /// By key: how many holders need it.
    needed: Narrow,
    /// How many holders look for rows by it.
    users: usize,
}

impl KeyIndex {
    /// The row leaves the pool.
    pub fn forget(&mut self, row: u32) {
        if self.rows.contains(row) {
            let key = self.rows.keys()[row as usize];
            self.rows.unlink(row);
            self.tidy(key);
        }
    }

    /// Forgets a key that nothing has any more.
    fn tidy(&mut self, key: u32) {
        let is_needed = (key as usize) < self.needed.len() && self.needed.get(key as usize) > 0;
        if key != NONE && !is_needed && self.rows.head(key) == NONE {
            self.keys.remove(key);
        }
    }

    fn heap_size(&self) -> usize {
        self.keys.heap_size() + self.rows.heap_size() + self.needed.heap_size()
    }
}

/// A set of ids.
#[derive(Default)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// Whether the id is in it.
    #[inline]
    pub fn has(&self, id: u32) -> bool {
        self.0.get(id as usize / 64).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    pub(in crate::state) fn set(&mut self, id: u32, is: bool) {
        let (word, bit) = (id as usize / 64, 1 << (id % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        if is { self.0[word] |= bit } else { self.0[word] &= !bit }
    }

    pub(in crate::state) fn iter(&self) -> impl Iterator<Item = u32> {
        (0..self.0.len() as u32 * 64).filter(|id| self.has(*id))
    }

    pub(in crate::state) fn heap_size(&self) -> usize {
        self.0.capacity() * 8
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
        let known = pool.indexes.iter().position(|index| index.as_ref().is_some_and(|index| index.name == name));
        let at = known.or_else(|| pool.indexes.iter().position(Option::is_none)).unwrap_or_else(|| {
            pool.indexes.push(None);
            pool.indexes.len() - 1
        });
        let new = || KeyIndex {
            name: name.to_string(),
            keys: GroupIndex::new(),
            rows: Links::new(false),
            needed: Narrow::default(),
            users: 0,
        };
        pool.indexes[at].get_or_insert_with(new).users += 1;
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
            let index = index_mut(&mut pool, self.at)?;
            index.needed.add(key as usize, -1);
            index.tidy(key);
            self.needs.set(key, false);
        }
        Ok(())
    }

    /// Writes keys and rows of its own as a [`GroupIndex`] and [`Links`] would be; what stands between them is written by `between`.
    pub fn save(&self, out: &mut StateWriter, between: impl FnOnce(&mut StateWriter)) -> Result<()> {
        let keyed = self.lock()?;
        let index = keyed.index()?;
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
        let index = self.lock().map_or(0, |keyed| keyed.index().map_or(0, |i| i.heap_size() / i.users.max(1)));
        self.own.heap_size() + self.needs.heap_size() + index
    }
}

fn gone() -> Error {
    Error::internal("an index is gone that is in use")
}

fn index_mut(pool: &mut Pool, at: usize) -> Result<&mut KeyIndex> {
    pool.indexes[at].as_mut().ok_or_else(gone)
}

impl<'a> Keyed<'a> {
    fn index(&self) -> Result<&KeyIndex> {
        self.pool.indexes[self.at].as_ref().ok_or_else(gone)
    }

    /// The rows that are its own, by key.
    pub fn linked(&self) -> Result<Linked<'_>> {
        Ok(self.index()?.rows.linked(Some(self.own)))
    }
}

impl Keying<'_> {
    /// The id of a row's key, under which it is linked from now on: that of `key`, which is asked for if it is not linked yet. None
    /// matches nothing. The row is one that the holder has.
    pub fn key_of_row<'k>(&mut self, row: u32, key: impl FnOnce() -> Option<&'k [u8]>) -> Result<u32> {
        let index = index_mut(&mut self.pool, self.at)?;
        if index.rows.contains(row) {
            return Ok(index.rows.keys()[row as usize]);
        }
        let key = key().map_or(Ok(NONE), |key| index.keys.intern_one(key))?;
        index.rows.link(row, key);
        Ok(key)
    }

    /// The id of a key that the other side has, which is kept until it is [released](PooledKeys::release).
    pub fn need(&mut self, key: &[u8]) -> Result<u32> {
        let index = index_mut(&mut self.pool, self.at)?;
        let key = index.keys.intern_one(key)?;
        if !self.needs.has(key) {
            if key as usize >= index.needed.len() {
                index.needed.resize(index.keys.bound());
            }
            index.needed.add(key as usize, 1);
            self.needs.set(key, true);
        }
        Ok(key)
    }

    /// The id of a key; [`NONE`] if it is not known. It is that key's for as long as a row of the holder's own has it.
    pub fn find(&mut self, key: &[u8]) -> Result<u32> {
        Ok(index_mut(&mut self.pool, self.at)?.keys.find_one(key))
    }
}

impl Drop for PooledKeys {
    fn drop(&mut self) {
        let Ok(mut pool) = self.pool.lock() else { return };
        let place = &mut pool.indexes[self.at];
        if let Some(index) = place {
            index.users -= 1;
            if index.users == 0 {
                *place = None;
                return;
            }
            for key in self.needs.iter() {
                index.needed.add(key as usize, -1);
                index.tidy(key);
            }
        }
    }
}

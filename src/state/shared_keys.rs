//! Indexes of rows by keys, each used by several holders.
//!
//! A key lives as long as a row has it, or a holder says that it needs it: the other side of a join names keys by the same ids. Holders
//! come and go in threads of their own; whatever holds the indexes is locked around each of these calls.

use super::{GroupIndex, Links, NONE, Narrow};
use crate::error::{Error, Result};

/// A set of ids.
#[derive(Default)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// Whether the id is in it.
    #[inline]
    pub fn has(&self, id: u32) -> bool {
        self.0.get(id as usize / 64).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    pub(super) fn set(&mut self, id: u32, is: bool) {
        let (word, bit) = (id as usize / 64, 1 << (id % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        if is { self.0[word] |= bit } else { self.0[word] &= !bit }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        (0..self.0.len() as u32 * 64).filter(|id| self.has(*id))
    }

    pub(super) fn heap_size(&self) -> usize {
        self.0.capacity() * 8
    }
}

/// Rows by the ids of their keys.
pub(super) trait ByKey {
    /// A row that has the key; [`NONE`] if none has.
    fn head(&self, key: u32) -> u32;
    /// Reads what putting rows under these keys will read.
    fn look_ahead(&self, keys: &[u32]);
    fn heap_size(&self) -> usize;
}

impl ByKey for Links {
    fn head(&self, key: u32) -> u32 {
        Links::head(self, key)
    }

    fn look_ahead(&self, keys: &[u32]) {
        Links::look_ahead(self, keys);
    }

    fn heap_size(&self) -> usize {
        Links::heap_size(self)
    }
}

/// Rows by one key.
pub(super) struct KeyIndex<R> {
    /// Equal for equal keys.
    name: String,
    pub keys: GroupIndex,
    pub rows: R,
    /// By key: how many holders need it.
    needed: Narrow,
    /// How many holders look for rows by it.
    users: usize,
}

impl<R: ByKey> KeyIndex<R> {
    /// Forgets a key that nothing has any more.
    pub fn tidy(&mut self, key: u32) {
        let is_needed = (key as usize) < self.needed.len() && self.needed.get(key as usize) > 0;
        if key != NONE && !is_needed && self.rows.head(key) == NONE {
            self.keys.remove(key);
        }
    }

    /// Reads what looking up the first [`AHEAD`](crate::state::AHEAD) of these keys will read, and putting rows under them.
    pub fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        self.rows.look_ahead(&self.keys.look_ahead(keys));
    }

    /// The id of a key, which the holder of `needs` needs from now on.
    pub fn need(&mut self, key: &[u8], needs: &mut Bits) -> Result<u32> {
        let key = self.keys.intern_one(key)?;
        self.need_id(key, needs);
        Ok(key)
    }

    /// The same of a key that has an id.
    pub fn need_id(&mut self, key: u32, needs: &mut Bits) {
        if !needs.has(key) {
            if key as usize >= self.needed.len() {
                self.needed.resize(self.keys.bound());
            }
            self.needed.add(key as usize, 1);
            needs.set(key, true);
        }
    }

    /// The holder of `needs`, which has it, needs a key no more.
    pub fn release(&mut self, key: u32, needs: &mut Bits) {
        self.needed.add(key as usize, -1);
        self.tidy(key);
        needs.set(key, false);
    }

    /// Bytes on the heap that are one holder's part.
    pub fn heap_size_of_one(&self) -> usize {
        (self.keys.heap_size() + self.rows.heap_size() + self.needed.heap_size()) / self.users.max(1)
    }
}

/// All indexes of the same rows, by their places, which holders know.
pub(super) struct KeyIndexes<R>(Vec<Option<KeyIndex<R>>>);

impl<R> Default for KeyIndexes<R> {
    fn default() -> Self {
        KeyIndexes(Vec::new())
    }
}

impl<R: ByKey> KeyIndexes<R> {
    /// The place of the index of this name, which one more uses; if there is none yet, it begins with `rows`.
    pub fn hold(&mut self, name: &str, rows: impl FnOnce() -> R) -> usize {
        let known = self.0.iter().position(|index| index.as_ref().is_some_and(|index| index.name == name));
        let at = known.or_else(|| self.0.iter().position(Option::is_none)).unwrap_or_else(|| {
            self.0.push(None);
            self.0.len() - 1
        });
        let new = || KeyIndex {
            name: name.to_string(),
            keys: GroupIndex::new(),
            rows: rows(),
            needed: Narrow::default(),
            users: 0,
        };
        self.0[at].get_or_insert_with(new).users += 1;
        at
    }

    /// One uses it no more, that needed these keys; without any it is gone.
    pub fn leave(&mut self, at: usize, needs: &Bits) {
        let place = &mut self.0[at];
        if let Some(index) = place {
            index.users -= 1;
            if index.users == 0 {
                *place = None;
                return;
            }
            for key in needs.iter() {
                index.needed.add(key as usize, -1);
                index.tidy(key);
            }
        }
    }

    pub fn get(&self, at: usize) -> Result<&KeyIndex<R>> {
        self.0[at].as_ref().ok_or_else(gone)
    }

    pub fn get_mut(&mut self, at: usize) -> Result<&mut KeyIndex<R>> {
        self.0[at].as_mut().ok_or_else(gone)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut KeyIndex<R>> {
        self.0.iter_mut().flatten()
    }

    /// Whether nobody looks for rows by a key.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

fn gone() -> Error {
    Error::internal("an index is gone that is in use")
}

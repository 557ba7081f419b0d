//! Keys ↔ dense ids.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64;

use super::sections::damaged;
use super::{Encoded, NONE, StateReader, StateWriter};
use crate::error::{Error, Result};

/// Gives every distinct key a small integer. Ids of removed keys are reused, so vectors indexed by id stay dense.
#[derive(Default)]
pub struct GroupIndex {
    table: HashTable<(u64, u32)>,
    /// Key bytes by id; empty where the id is free.
    keys: Vec<Box<[u8]>>,
    free: Vec<u32>,
    key_bytes: usize,
}

impl GroupIndex {
    /// No keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ids of all keys, new ones for those not seen yet.
    pub fn intern(&mut self, keys: &Encoded) -> Result<Vec<u32>> {
        (0..keys.len()).map(|i| self.intern_one(keys.row(i))).collect()
    }

    /// Id of one key, a new one if it is not known.
    pub fn intern_one(&mut self, key: &[u8]) -> Result<u32> {
        let hash = xxh3_64(key);
        let known = &self.keys;
        let same = |(h, id): &(u64, u32)| *h == hash && *known[*id as usize] == *key;
        match self.table.entry(hash, same, |(h, _)| *h) {
            Entry::Occupied(entry) => Ok(entry.get().1),
            Entry::Vacant(entry) => {
                let id = match self.free.pop() {
                    Some(id) => id,
                    None => {
                        let id = u32::try_from(self.keys.len()).ok().filter(|id| *id != NONE);
                        let id = id.ok_or_else(|| Error::environment("state-full", "too many keys").permanent())?;
                        self.keys.push(Box::default());
                        id
                    }
                };
                self.keys[id as usize] = key.into();
                self.key_bytes += key.len();
                entry.insert((hash, id));
                Ok(id)
            }
        }
    }

    /// Id of one key; [`NONE`] if it is not known.
    pub fn find_one(&self, key: &[u8]) -> u32 {
        let hash = xxh3_64(key);
        self.table.find(hash, |(h, id)| *h == hash && *self.keys[*id as usize] == *key).map_or(NONE, |(_, id)| *id)
    }

    /// Bytes of the key with this id.
    pub fn key(&self, id: u32) -> &[u8] {
        &self.keys[id as usize]
    }

    /// Forgets the key with this id; the id will be given to another one.
    pub fn remove(&mut self, id: u32) {
        let key = std::mem::take(&mut self.keys[id as usize]);
        let hash = xxh3_64(&key);
        if let Ok(entry) = self.table.find_entry(hash, |(_, other)| *other == id) {
            entry.remove();
            self.key_bytes -= key.len();
            self.free.push(id);
        }
    }

    /// Writes keys and ids.
    pub fn save(&self, out: &mut StateWriter) {
        out.strings("keys", self.keys.iter().map(|key| &**key));
        out.words("keys.free", self.free.iter().copied());
    }

    /// What [`GroupIndex::save`] wrote: the same ids for the same keys, and the same ones next.
    pub fn restore(from: &mut StateReader) -> Result<Self> {
        let keys = from.strings("keys")?;
        let free = from.words::<u32>("keys.free")?;
        let mut is_free = vec![false; keys.len()];
        for id in &free {
            match is_free.get_mut(*id as usize) {
                Some(place) if !*place => *place = true,
                _ => return Err(damaged("a free key is unknown")),
            }
        }
        let mut index = GroupIndex {
            table: HashTable::with_capacity(keys.len() - free.len()),
            keys: Vec::with_capacity(keys.len()),
            free,
            key_bytes: 0,
        };
        for (id, key) in keys.iter().enumerate() {
            index.keys.push(key.into());
            if !is_free[id] {
                let hash = xxh3_64(key);
                index.key_bytes += key.len();
                index.table.insert_unique(hash, (hash, id as u32), |(h, _)| *h);
            }
        }
        Ok(index)
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// All ids are below this.
    pub fn bound(&self) -> usize {
        self.keys.len()
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        self.table.allocation_size() + self.keys.capacity() * 16 + self.free.capacity() * 4 + self.key_bytes
    }
}

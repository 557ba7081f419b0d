//! Keys ↔ dense ids.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64;

use super::arena::Arena;
use super::fill::fill;
use super::sections::damaged;
use super::{Encoded, NONE, StateReader, StateWriter};
use crate::error::{Error, Result};

/// Gives every distinct key a small integer. Ids of removed keys are reused, so vectors indexed by id stay dense.
#[derive(Default)]
pub struct GroupIndex {
    /// Half of the key's hash, and its id: eight bytes an entry, and the table can grow without looking at keys.
    table: HashTable<(u32, u32)>,
    keys: Arena,
    /// Ids to be given again, with the room their keys had.
    free: Vec<(u32, u32)>,
}

/// What the table knows of a key's hash.
fn half(key: &[u8]) -> u32 {
    (xxh3_64(key) >> 32) as u32
}

/// The table takes its bucket from the low bits and its tag from the high ones: both from the same 32.
fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(0x9E37_79B9_7F4A_7C15)
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
        let half = half(key);
        let same = |(h, id): &(u32, u32)| *h == half && self.keys.get(*id) == key;
        match self.table.entry(spread(half), same, |(h, _)| spread(*h)) {
            Entry::Occupied(entry) => Ok(entry.get().1),
            Entry::Vacant(entry) => {
                let id = match self.free.pop() {
                    Some((id, room)) => {
                        self.keys.replace(id, room, key);
                        id
                    }
                    None => {
                        let id = u32::try_from(self.keys.bound()).ok().filter(|id| *id != NONE);
                        let id = id.ok_or_else(|| Error::environment("state-full", "too many keys").permanent())?;
                        self.keys.push(key);
                        id
                    }
                };
                entry.insert((half, id));
                Ok(id)
            }
        }
    }

    /// Id of one key; [`NONE`] if it is not known.
    pub fn find_one(&self, key: &[u8]) -> u32 {
        let half = half(key);
        let found = self.table.find(spread(half), |(h, id)| *h == half && self.keys.get(*id) == key);
        found.map_or(NONE, |(_, id)| *id)
    }

    /// Bytes of the key with this id.
    pub fn key(&self, id: u32) -> &[u8] {
        self.keys.get(id)
    }

    /// Forgets the key with this id; the id will be given to another one.
    pub fn remove(&mut self, id: u32) {
        let half = half(self.keys.get(id));
        if let Ok(entry) = self.table.find_entry(spread(half), |(_, other)| *other == id) {
            entry.remove();
            let room = self.keys.free(id);
            self.free.push((id, room));
            if self.keys.tidy() {
                self.free.iter_mut().for_each(|(_, room)| *room = 0);
            }
        }
    }

    /// Writes keys and ids.
    pub fn save(&self, out: &mut StateWriter) {
        out.strings("keys", self.keys.iter());
        out.words("keys.free", self.free.iter().map(|(id, _)| *id));
    }

    /// What [`GroupIndex::save`] wrote: the same ids for the same keys, and the same ones next.
    pub fn restore(from: &mut StateReader) -> Result<Self> {
        let keys = Arena::from(from.strings("keys")?);
        let free = from.words::<u32>("keys.free")?;
        let mut is_free = vec![false; keys.bound()];
        for id in &free {
            match is_free.get_mut(*id as usize) {
                Some(place) if !*place => *place = true,
                _ => return Err(damaged("a free key is unknown")),
            }
        }
        let halves = keys.iter().zip(is_free).enumerate().filter(|(_, (_, free))| !free);
        let entries: Vec<(u32, u32)> = halves.map(|(id, (key, _))| (half(key), id as u32)).collect();
        let mut table = HashTable::new();
        fill(&mut table, &entries, |(h, _)| spread(*h), |entry| *entry, |(h, _)| spread(*h));
        Ok(GroupIndex { table, keys, free: free.into_iter().map(|id| (id, 0)).collect() })
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
        self.keys.bound()
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        self.table.allocation_size() + self.keys.heap_size() + self.free.capacity() * 8
    }
}

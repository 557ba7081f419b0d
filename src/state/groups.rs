//! Keys ↔ dense ids.

use xxhash_rust::xxh3::xxh3_64;

use super::arena::Arena;
use super::index::Index;
use super::sections::damaged;
use super::{Encoded, NONE, StateReader, StateWriter};
use crate::error::{Error, Result};

/// Keys that are looked up together: what they read fits the first cache.
pub const AHEAD: usize = 64;

/// Gives every distinct key a small integer. Ids of removed keys are reused, so vectors indexed by id stay dense.
#[derive(Default)]
pub struct GroupIndex {
    /// With half of the key's hash: eight bytes an entry.
    index: Index<(u32, u32)>,
    keys: Arena,
    /// Ids to be given again, with the room their keys had.
    free: Vec<(u32, u32)>,
}

/// What the table knows of a key's hash.
#[inline]
fn half(key: &[u8]) -> u32 {
    (xxh3_64(key) >> 32) as u32
}

#[inline]
fn half_of(slot: &(u32, u32)) -> u32 {
    slot.0
}

impl GroupIndex {
    /// No keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ids of all keys, new ones for those not seen yet.
    pub fn intern(&mut self, keys: &Encoded) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(keys.len());
        for first in (0..keys.len()).step_by(AHEAD) {
            let lot = first..keys.len().min(first + AHEAD);
            self.look_ahead(lot.clone().map(|i| keys.row(i)));
            for i in lot {
                ids.push(self.intern_one(keys.row(i))?);
            }
        }
        Ok(ids)
    }

    /// Reads what looking up the first [`AHEAD`] of these keys will read, so that memory is waited for once, not key by key. Gives the ids
    /// that they will have, as far as hashes tell, and [`NONE`]s.
    #[inline]
    pub fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> [u32; AHEAD] {
        let mut candidates = [NONE; AHEAD];
        if !self.index.is_large() {
            return candidates;
        }
        // Hashes first: less stands between one search and the next.
        let (mut halves, mut count) = ([0; AHEAD], 0);
        for (key, place) in keys.zip(&mut halves) {
            *place = half(key);
            count += 1;
        }
        for (half, candidate) in halves[..count].iter().zip(&mut candidates) {
            *candidate = self.index.first_candidate(*half).unwrap_or(NONE);
        }
        let known = candidates.iter().filter(|id| **id != NONE);
        std::hint::black_box(known.fold(0, |read, id| read ^ self.keys.get(*id).first().copied().unwrap_or(0)));
        candidates
    }

    /// Id of one key, a new one if it is not known.
    pub fn intern_one(&mut self, key: &[u8]) -> Result<u32> {
        if self.keys.bound() >= NONE as usize && self.free.is_empty() {
            return Err(Error::environment("state-full", "too many keys").permanent());
        }
        let next = self.free.last().map_or(self.keys.bound() as u32, |(id, _)| *id);
        let keys = &self.keys;
        let (id, is_new) = self.index.find_or_insert(half(key), next, |id| keys.get(id) == key, half_of);
        if is_new {
            match self.free.pop() {
                Some((id, room)) => self.keys.replace(id, room, key),
                None => self.keys.push(key),
            }
        }
        Ok(id)
    }

    /// Id of one key; [`NONE`] if it is not known.
    pub fn find_one(&mut self, key: &[u8]) -> u32 {
        let keys = &self.keys;
        self.index.find(half(key), |id| keys.get(id) == key, half_of).unwrap_or(NONE)
    }

    /// Bytes of the key with this id.
    pub fn key(&self, id: u32) -> &[u8] {
        self.keys.get(id)
    }

    /// Forgets the key with this id; the id will be given to another one.
    pub fn remove(&mut self, id: u32) {
        if self.index.remove(half(self.keys.get(id)), id) {
            let room = self.keys.free(id);
            self.free.push((id, room));
            if self.keys.tidy() {
                self.free.iter_mut().for_each(|(_, room)| *room = 0);
            }
        }
    }

    /// Ids of all keys, ascending.
    pub fn ids(&self) -> Vec<u32> {
        let mut is_free = vec![false; self.bound()];
        self.free.iter().for_each(|(id, _)| is_free[*id as usize] = true);
        (0..self.bound() as u32).filter(|id| !is_free[*id as usize]).collect()
    }

    /// The keys of `ids`, which become 0, 1, 2 ….
    pub fn picked(&self, ids: &[u32]) -> Result<Self> {
        let mut picked = GroupIndex::new();
        ids.iter().try_for_each(|id| picked.intern_one(self.key(*id)).map(|_| ()))?;
        Ok(picked)
    }

    /// Writes those of the keys that are `own`, under their ids, as if there were no others.
    pub fn save_some(&mut self, out: &mut StateWriter, own: impl Fn(u32) -> bool) {
        out.arena("keys", &mut self.keys);
        out.words("keys.free", (0..self.bound() as u32).filter(|id| !own(*id)));
    }

    /// Writes keys and ids.
    pub fn save(&mut self, out: &mut StateWriter) {
        out.arena("keys", &mut self.keys);
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
        let halves = keys.map(from.threads(), half)?;
        let index = Index::load(&halves, &is_free, half_of);
        Ok(GroupIndex { index, keys, free: free.into_iter().map(|id| (id, 0)).collect() })
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All ids are below this.
    pub fn bound(&self) -> usize {
        self.keys.bound()
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        self.index.heap_size() + self.keys.heap_size() + self.free.capacity() * 8
    }
}

//! Hash tables of ids that grow in parts, and can be used before they are filled.
//!
//! A table of ten million entries that doubles asks for as much memory again as it has, and the epoch in which it does waits for all of them to be
//! moved. So a large one is a thousand small ones, which double one by one, each into what others have left.
//!
//! Stored state brings back ten million entries at once, and the first epoch after a start asks for a thousand of them. Putting all
//! of them into a hash table first would be most of that epoch. So they are only dealt out to the parts they belong to,
//! and a part is searched from front to back until it was searched as often as filling it would have cost: then it is filled.
//! Whatever is asked for, that costs about twice what the cheaper way would have.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;

/// Entries below which there is one table, unless it was loaded: that it doubles takes milliseconds, and parts have the caches hold where they are.
/// Tests have several for a few.
const SMALL: usize = if cfg!(test) { 1 << 6 } else { 1 << 19 };
/// Entries below which a table that is loaded is filled at once.
const FILLED: usize = if cfg!(test) { 1 << 6 } else { 1 << 16 };
/// Entries from which on most are not in the caches.
const FAR: usize = if cfg!(test) { 1 << 6 } else { 1 << 20 };
/// Tables of a large index.
const PARTS: usize = if cfg!(test) { 1 << 3 } else { 1 << 10 };
/// Searches of a part that cost what filling it does.
const SEARCHES: u32 = 16;

/// What a table keeps of an entry: at least the id.
pub(super) trait Slot: Copy {
    fn new(tag: u32, id: u32) -> Self;
    fn id(self) -> u32;
    /// Whether it could be an entry with this tag.
    fn may_have(self, tag: u32) -> bool;
}

impl Slot for u32 {
    fn new(_tag: u32, id: u32) -> Self {
        id
    }

    fn id(self) -> u32 {
        self
    }

    fn may_have(self, _tag: u32) -> bool {
        true
    }
}

/// With the tag, the table grows without looking at what the ids stand for.
impl Slot for (u32, u32) {
    fn new(tag: u32, id: u32) -> Self {
        (tag, id)
    }

    fn id(self) -> u32 {
        self.1
    }

    fn may_have(self, tag: u32) -> bool {
        self.0 == tag
    }
}

/// Ids by tag, which is 32 bits of a hash. Equal tags are told apart by the caller's `is`, which says whether an id is the one looked for;
/// `tag_of` is the tag of a slot.
pub(super) struct Index<S> {
    /// One, or [`PARTS`] of them.
    tables: Vec<HashTable<S>>,
    cold: Option<Box<Cold>>,
    /// Entries of all tables, and bytes.
    filled: usize,
    bytes: usize,
}

/// Entries that the tables do not hold yet.
struct Cold {
    /// Tags and ids, part by part.
    entries: Vec<(u32, u32)>,
    parts: Vec<Part>,
    left: usize,
}

#[derive(Clone, Copy, Default)]
struct Part {
    start: usize,
    len: usize,
    searches: u32,
}

/// A table takes its bucket from the low bits and its own tag from the high ones: both from the same 32.
#[inline]
fn hash(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The table of a hash, of so many (a power of two): by bits that tables do not use.
#[inline]
fn part(hash: u64, parts: usize) -> usize {
    (hash >> 40) as usize & (parts - 1)
}

impl<S: Slot> Default for Index<S> {
    fn default() -> Self {
        Index { tables: vec![HashTable::new()], cold: None, filled: 0, bytes: 0 }
    }
}

impl<S: Slot> Index<S> {
    /// Of ids 0, 1, 2 … with these tags, without those that are `absent`.
    pub fn load(tags: &[u32], absent: &[bool], tag_of: impl Fn(&S) -> u32) -> Self {
        let count = tags.len() - absent.iter().filter(|absent| **absent).count();
        let mut index = Index::default();
        if count < FILLED {
            index.tables[0].reserve(count, |slot| hash(tag_of(slot)));
            index.bytes = index.tables[0].allocation_size();
            for (tag, id) in tags.iter().zip(0u32..).filter(|(_, id)| !absent[*id as usize]) {
                index.insert(*tag, id, &tag_of);
            }
        } else {
            index.tables = std::iter::repeat_with(HashTable::new).take(PARTS).collect();
            index.cold = Some(Box::new(Cold::new(tags, absent, count)));
        }
        index
    }

    /// Whether it is more than the caches hold: then it is worth looking ahead. Elsewhere that would be searching twice.
    #[inline]
    pub fn is_large(&self) -> bool {
        self.filled >= FAR
    }

    #[inline]
    fn table(&self, hash: u64) -> &HashTable<S> {
        &self.tables[part(hash, self.tables.len())]
    }

    /// Reads what a search for `tag` will read, and gives the id that it will compare first. Searches wait for what they find, one after the other; of
    /// these, many wait at once.
    #[inline]
    pub fn first_candidate(&self, tag: u32) -> Option<u32> {
        let hash = hash(tag);
        self.table(hash).find(hash, |slot| slot.may_have(tag)).map(|slot| slot.id())
    }

    /// The id.
    #[inline]
    pub fn find(&mut self, tag: u32, is: impl Fn(u32) -> bool, tag_of: impl Fn(&S) -> u32) -> Option<u32> {
        let hash = hash(tag);
        if let Some(slot) = self.table(hash).find(hash, |slot| is(slot.id())) {
            return Some(slot.id());
        }
        self.find_cold(tag, is, tag_of)
    }

    #[cold]
    fn find_cold(&mut self, tag: u32, is: impl Fn(u32) -> bool, tag_of: impl Fn(&S) -> u32) -> Option<u32> {
        let cold = self.cold.as_mut()?;
        let at = part(hash(tag), PARTS);
        let searched = &mut cold.parts[at];
        if searched.len == 0 {
            return None;
        }
        if searched.searches < SEARCHES {
            searched.searches += 1;
            return cold.entries(at).iter().find(|(t, id)| *t == tag && is(*id)).map(|(_, id)| *id);
        }
        let table = &mut self.tables[at];
        let before = table.allocation_size();
        table.reserve(searched.len, |slot| hash(tag_of(slot)));
        for (tag, id) in cold.entries(at) {
            table.insert_unique(hash(*tag), S::new(*tag, *id), |slot| hash(tag_of(slot)));
        }
        self.bytes = self.bytes + table.allocation_size() - before;
        let filled = std::mem::take(&mut cold.parts[at].len);
        self.filled += filled;
        cold.left -= filled;
        if cold.left == 0 {
            self.cold = None;
        }
        let hash = hash(tag);
        self.table(hash).find(hash, |slot| is(slot.id())).map(|slot| slot.id())
    }

    /// The id, and whether it is new: then it is `new`.
    #[inline]
    pub fn find_or_insert(
        &mut self,
        tag: u32,
        new: u32,
        is: impl Fn(u32) -> bool,
        tag_of: impl Fn(&S) -> u32,
    ) -> (u32, bool) {
        if self.cold.is_some()
            && let Some(id) = self.find(tag, &is, &tag_of)
        {
            return (id, false);
        }
        let key = hash(tag);
        let at = part(key, self.tables.len());
        let table = &mut self.tables[at];
        if table.len() == table.capacity() {
            if let Some(slot) = table.find(key, |slot| is(slot.id())) {
                return (slot.id(), false);
            }
            self.insert(tag, new, &tag_of);
            return (new, true);
        }
        match table.entry(key, |slot| is(slot.id()), |slot| hash(tag_of(slot))) {
            Place::Occupied(place) => (place.get().id(), false),
            Place::Vacant(place) => {
                place.insert(S::new(tag, new));
                self.filled += 1;
                (new, true)
            }
        }
    }

    /// Adds an entry that is not there, and makes room for it.
    #[cold]
    fn insert(&mut self, tag: u32, id: u32, tag_of: &impl Fn(&S) -> u32) {
        if self.tables.len() == 1 && self.filled >= SMALL {
            self.split(tag_of);
        }
        let key = hash(tag);
        let at = part(key, self.tables.len());
        let table = &mut self.tables[at];
        let before = table.allocation_size();
        table.insert_unique(key, S::new(tag, id), |slot| hash(tag_of(slot)));
        self.bytes = self.bytes + table.allocation_size() - before;
        self.filled += 1;
    }

    /// From one table to many.
    fn split(&mut self, tag_of: &impl Fn(&S) -> u32) {
        let of = |slot: &S| hash(tag_of(slot));
        let room = self.filled / PARTS * 5 / 4;
        let one = |_| HashTable::with_capacity(room);
        let whole = std::mem::replace(&mut self.tables, (0..PARTS).map(one).collect());
        for slot in whole.into_iter().flatten() {
            let hash = of(&slot);
            self.tables[part(hash, PARTS)].insert_unique(hash, slot, of);
        }
        self.bytes = self.tables.iter().map(HashTable::allocation_size).sum();
    }

    /// Forgets an id; whether it was there.
    pub fn remove(&mut self, tag: u32, id: u32) -> bool {
        let key = hash(tag);
        let at = part(key, self.tables.len());
        if let Ok(place) = self.tables[at].find_entry(key, |slot| slot.id() == id) {
            place.remove();
            self.filled -= 1;
            return true;
        }
        self.cold.as_mut().is_some_and(|cold| cold.remove(tag, id))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.filled + self.cold.as_ref().map_or(0, |cold| cold.left)
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        let tables = if self.tables.len() > 1 { self.tables.len() * size_of::<HashTable<S>>() } else { 0 };
        self.bytes + tables + self.cold.as_ref().map_or(0, |cold| cold.entries.capacity() * 8)
    }
}

impl Cold {
    fn new(tags: &[u32], absent: &[bool], count: usize) -> Self {
        let mut cold = Cold { left: count, entries: vec![(0, 0); count], parts: vec![Part::default(); PARTS] };
        // Plain loops: this is a good part of a start.
        for (tag, absent) in tags.iter().zip(absent) {
            cold.parts[part(hash(*tag), PARTS)].len += usize::from(!absent);
        }
        let mut start = 0;
        for part in &mut cold.parts {
            part.start = start;
            start += part.len;
        }
        let mut next: Vec<usize> = cold.parts.iter().map(|part| part.start).collect();
        for id in 0..tags.len() {
            if !absent[id] {
                let place = &mut next[part(hash(tags[id]), PARTS)];
                cold.entries[*place] = (tags[id], id as u32);
                *place += 1;
            }
        }
        cold
    }

    fn entries(&self, part: usize) -> &[(u32, u32)] {
        let Part { start, len, .. } = self.parts[part];
        &self.entries[start..start + len]
    }

    fn remove(&mut self, tag: u32, id: u32) -> bool {
        let at = part(hash(tag), PARTS);
        let Some(found) = self.entries(at).iter().position(|entry| *entry == (tag, id)) else { return false };
        let part = &mut self.parts[at];
        part.len -= 1;
        self.left -= 1;
        self.entries.swap(part.start + found, part.start + part.len);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeMap;

    /// Equal tags are frequent, and ids are no function of them.
    fn tag(id: u32) -> u32 {
        (id % 150_000).wrapping_mul(2_654_435_761)
    }

    fn one_that_was_loaded_is_one_that_was_filled<S: Slot>(count: u32, asked: usize) {
        let of = |slot: &S| tag(slot.id());
        let mut rng = ChaCha8Rng::seed_from_u64(u64::from(count));
        let tags: Vec<u32> = (0..count).map(tag).collect();
        let absent: Vec<bool> = (0..count).map(|id| id % 5 == 0).collect();
        let mut index: Index<S> = Index::load(&tags, &absent, of);
        let mut there: BTreeMap<u32, bool> = (0..count).map(|id| (id, id % 5 > 0)).collect();
        for _ in 0..asked {
            let id = rng.random_range(0..count + 1_000);
            let known = there.get(&id).copied().unwrap_or(false);
            match rng.random_range(0..3) {
                0 => assert_eq!(index.find(tag(id), |other| other == id, of), known.then_some(id)),
                1 => {
                    let found = index.find_or_insert(tag(id), id, |other| other == id, of);
                    assert_eq!(found, (id, !known));
                    there.insert(id, true);
                }
                _ => {
                    assert_eq!(index.remove(tag(id), id), known);
                    there.insert(id, false);
                }
            }
        }
        assert_eq!(index.len(), there.values().filter(|known| **known).count());
        for (id, known) in &there {
            assert_eq!(index.find(tag(*id), |other| other == *id, of), known.then_some(*id));
        }
        // Everything was asked for often enough.
        assert!(asked < 100_000 || index.cold.is_none());
    }

    #[test]
    fn entries_are_found_added_and_removed_whether_they_are_in_the_table_yet_or_not() {
        for asked in [100, 5_000, 200_000] {
            one_that_was_loaded_is_one_that_was_filled::<(u32, u32)>(200_000, asked);
            one_that_was_loaded_is_one_that_was_filled::<u32>(200_000, asked);
            one_that_was_loaded_is_one_that_was_filled::<u32>(1_000, asked);
        }
    }
}

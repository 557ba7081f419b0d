//! Hash tables of ids that can be used before they are filled.
//!
//! Stored state brings back ten million entries at once, and the first epoch after a start asks for a thousand of them. Putting all
//! of them into a hash table first would be most of that epoch. So they are only dealt out to the parts of the table they belong to,
//! and a part is searched from front to back until it was searched as often as filling it would have cost: then it is filled, which
//! goes from front to back of the table's memory. Whatever is asked for, that costs about twice what the cheaper way would have.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;

/// Entries below which a table is filled at once: it fits the caches.
const SMALL: usize = 1 << 16;
/// Parts of a table that are filled one by one.
const PARTS: usize = 1 << 10;
/// Searches of a part that cost what filling it does.
const SEARCHES: u32 = 16;

/// What a table keeps of an entry: at least the id.
pub(super) trait Slot: Copy {
    fn new(tag: u32, id: u32) -> Self;
    fn id(self) -> u32;
}

impl Slot for u32 {
    fn new(_tag: u32, id: u32) -> Self {
        id
    }

    fn id(self) -> u32 {
        self
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
}

/// Ids by tag, which is 32 bits of a hash. Equal tags are told apart by the caller's `is`, which says whether an id is the one looked for;
/// `tag_of` is the tag of a slot.
pub(super) struct Index<S> {
    table: HashTable<S>,
    cold: Option<Box<Cold>>,
}

/// Entries that the table does not hold yet.
struct Cold {
    /// Tags and ids, part by part.
    entries: Vec<(u32, u32)>,
    parts: Vec<Part>,
    left: usize,
    /// A hash's part is in the bits of its bucket.
    mask: u64,
    shift: u32,
}

#[derive(Clone, Copy, Default)]
struct Part {
    start: usize,
    len: usize,
    searches: u32,
}

/// The table takes its bucket from the low bits and its own tag from the high ones: both from the same 32.
#[inline]
fn hash(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl<S: Slot> Default for Index<S> {
    fn default() -> Self {
        Index { table: HashTable::new(), cold: None }
    }
}

impl<S: Slot> Index<S> {
    /// Of ids 0, 1, 2 … with these tags, without those that are `absent`.
    pub fn load(tags: &[u32], absent: &[bool], tag_of: impl Fn(&S) -> u32) -> Self {
        let count = tags.len() - absent.iter().filter(|absent| **absent).count();
        let mut index = Index::default();
        if count < SMALL {
            index.table.reserve(count, |slot| hash(tag_of(slot)));
            for (tag, id) in tags.iter().zip(0u32..).filter(|(_, id)| !absent[*id as usize]) {
                index.table.insert_unique(hash(*tag), S::new(*tag, id), |slot| hash(tag_of(slot)));
            }
        } else {
            index.cold = Some(Box::new(Cold::new(tags, absent, count)));
        }
        index
    }

    /// The id.
    #[inline]
    pub fn find(&mut self, tag: u32, is: impl Fn(u32) -> bool, tag_of: impl Fn(&S) -> u32) -> Option<u32> {
        if let Some(slot) = self.table.find(hash(tag), |slot| is(slot.id())) {
            return Some(slot.id());
        }
        self.find_cold(tag, is, tag_of)
    }

    #[cold]
    fn find_cold(&mut self, tag: u32, is: impl Fn(u32) -> bool, tag_of: impl Fn(&S) -> u32) -> Option<u32> {
        let cold = self.cold.as_mut()?;
        let at = cold.part(tag);
        let part = &mut cold.parts[at];
        if part.len == 0 {
            return None;
        }
        if part.searches < SEARCHES {
            part.searches += 1;
            return cold.entries(at).iter().find(|(t, id)| *t == tag && is(*id)).map(|(_, id)| *id);
        }
        // Room for all of them, at the first of them: a part is filled into its own piece of the table.
        self.table.reserve(cold.left, |slot| hash(tag_of(slot)));
        for (tag, id) in cold.entries(at) {
            self.table.insert_unique(hash(*tag), S::new(*tag, *id), |slot| hash(tag_of(slot)));
        }
        cold.left -= std::mem::take(&mut cold.parts[at].len);
        if cold.left == 0 {
            self.cold = None;
        }
        self.table.find(hash(tag), |slot| is(slot.id())).map(|slot| slot.id())
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
        match self.table.entry(hash(tag), |slot| is(slot.id()), |slot| hash(tag_of(slot))) {
            Place::Occupied(place) => (place.get().id(), false),
            Place::Vacant(place) => {
                place.insert(S::new(tag, new));
                (new, true)
            }
        }
    }

    /// Forgets an id; whether it was there.
    pub fn remove(&mut self, tag: u32, id: u32) -> bool {
        if let Ok(place) = self.table.find_entry(hash(tag), |slot| slot.id() == id) {
            place.remove();
            return true;
        }
        self.cold.as_mut().is_some_and(|cold| cold.remove(tag, id))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.table.len() + self.cold.as_ref().map_or(0, |cold| cold.left)
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        self.table.allocation_size() + self.cold.as_ref().map_or(0, |cold| cold.entries.capacity() * 8)
    }
}

impl Cold {
    fn new(tags: &[u32], absent: &[bool], count: usize) -> Self {
        let buckets = (count as u64 * 8 / 7).next_power_of_two();
        let shift = (buckets / PARTS as u64).max(1).trailing_zeros();
        let mut cold = Cold {
            left: count,
            entries: vec![(0, 0); count],
            parts: vec![Part::default(); PARTS],
            mask: buckets - 1,
            shift,
        };
        // Plain loops: this is a good part of a start.
        for (tag, absent) in tags.iter().zip(absent) {
            let part = cold.part(*tag);
            cold.parts[part].len += usize::from(!absent);
        }
        let mut start = 0;
        for part in &mut cold.parts {
            part.start = start;
            start += part.len;
        }
        let mut next: Vec<usize> = cold.parts.iter().map(|part| part.start).collect();
        for id in 0..tags.len() {
            if !absent[id] {
                let place = &mut next[cold.part(tags[id])];
                cold.entries[*place] = (tags[id], id as u32);
                *place += 1;
            }
        }
        cold
    }

    #[inline]
    fn part(&self, tag: u32) -> usize {
        ((hash(tag) & self.mask) >> self.shift) as usize
    }

    fn entries(&self, part: usize) -> &[(u32, u32)] {
        let Part { start, len, .. } = self.parts[part];
        &self.entries[start..start + len]
    }

    fn remove(&mut self, tag: u32, id: u32) -> bool {
        let at = self.part(tag);
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

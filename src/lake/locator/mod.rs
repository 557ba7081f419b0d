//! Where each live row of a table is: row hash → (file, row).
//!
//! A retraction looks its row up here and becomes one bit of that file's deletion vector. Locators are built by a scan when a
//! table first needs them and maintained afterwards; append-only tables never have one.
//!
//! - The hash tables are sharded unevenly, so that they double at different times: memory stays near the average
//!   load (24 bytes of payload, about 41 allocated per row) instead of doubling at once.
//! - Equal rows beyond the first stand in a side map, so that a heavy duplicate does not lengthen every probe.
//! - When compaction moves a file's rows, their locators stay as they are: the old file gets a [`Redirect`], by which a row's
//!   new place is computed. That costs per file, not per row, and can be applied between two commits.
//! - What stored state brings back need not stand in the hash tables yet ([`load`]).
//! - What memory has no room for is on local disk ([`away`]).

mod away;
mod load;

use hashbrown::{HashMap, HashTable};
use roaring::RoaringBitmap;
use std::sync::{Arc, LazyLock};

use self::away::Away;
use self::load::Cold;
use super::files::Ordinal;
use crate::error::{Error, Result};

const SHARDS: usize = 64;

/// A place as it was recorded: file number and row in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(u64);

impl Place {
    pub fn new(file: Ordinal, row: u32) -> Self {
        Place(u64::from(file) << 32 | u64::from(row))
    }

    pub fn file(self) -> Ordinal {
        (self.0 >> 32) as u32
    }

    pub fn row(self) -> u32 {
        self.0 as u32
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The hash in halves: a u128 would be padded to 32 bytes.
    high: u64,
    low: u64,
    place: Place,
}

impl Entry {
    fn hash(&self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }

    fn is(&self, hash: u128) -> bool {
        self.low == hash as u64 && self.high == (hash >> 64) as u64
    }
}

/// Rows of an old file went, in order and without those `skipped`, to `target` from row `base` on.
#[derive(Debug, Clone)]
pub struct Redirect {
    pub target: Ordinal,
    pub base: u32,
    pub skipped: Arc<RoaringBitmap>,
}

/// What is known of a file number.
#[derive(Debug, Default)]
struct Known {
    /// Entries that name it, plus redirects that lead to it.
    users: u64,
    redirect: Option<Redirect>,
}

/// Row hash → place, for all live rows of a table, staged ones included.
#[derive(Debug)]
pub struct Locator {
    shards: Vec<HashTable<Entry>>,
    more: HashMap<u128, Vec<Place>>,
    files: HashMap<Ordinal, Known>,
    /// Cold ones and those on disk included.
    rows: u64,
    cold: Option<Box<Cold>>,
    away: Away,
}

/// Upper bounds (exclusive) of the shards' ranges of the hash's top 32 bits: each shard is 2^(1/64) times as wide as the one
/// before, so over one doubling of the table they grow one after the other.
static BOUNDS: LazyLock<[u32; SHARDS]> = LazyLock::new(|| {
    let widths: Vec<f64> = (0..SHARDS).map(|i| 2f64.powf(i as f64 / SHARDS as f64)).collect();
    let total: f64 = widths.iter().sum();
    let mut bounds = [u32::MAX; SHARDS];
    let mut sum = 0.0;
    for i in 0..SHARDS - 1 {
        sum += widths[i];
        bounds[i] = (sum / total * f64::from(u32::MAX)) as u32;
    }
    bounds
});

fn shard(hash: u128) -> usize {
    let top = (hash >> 96) as u32;
    BOUNDS.partition_point(|bound| *bound <= top).min(SHARDS - 1)
}

/// Whether there was no row with this hash yet.
fn insert(table: &mut HashTable<Entry>, hash: u128, place: Place) -> bool {
    if table.find(hash as u64, |e| e.is(hash)).is_some() {
        return false;
    }
    let entry = Entry { high: (hash >> 64) as u64, low: hash as u64, place };
    table.insert_unique(hash as u64, entry, |e| e.low);
    true
}

impl Default for Locator {
    fn default() -> Self {
        Locator {
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            more: HashMap::new(),
            files: HashMap::new(),
            rows: 0,
            cold: None,
            away: Away::default(),
        }
    }
}

impl Locator {
    /// Rows it knows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows recorded in a file.
    pub fn rows_of(&self, file: Ordinal) -> u64 {
        self.files.get(&file).map_or(0, |known| known.users)
    }

    /// Whether rows are recorded where they were before they moved.
    pub fn has_redirects(&self) -> bool {
        self.files.values().any(|known| known.redirect.is_some())
    }

    /// Bytes allocated in memory, roughly.
    pub fn bytes(&self) -> usize {
        let tables: usize = self.shards.iter().map(HashTable::allocation_size).sum();
        let (cold, cold_bytes) = self.cold.as_ref().map_or((0, 0), |cold| (cold.len(), cold.bytes()));
        // Every row beyond a table's entries has a word in `more`.
        let first: usize = self.shards.iter().map(HashTable::len).sum();
        let others = (self.rows as usize).saturating_sub(first + cold + self.away.len());
        tables + cold_bytes + self.away.bytes() + self.more.allocation_size() + others * 8
    }

    /// A row is at `place`.
    pub fn insert(&mut self, hash: u128, place: Place) {
        self.files.entry(place.file()).or_default().users += 1;
        self.restore(hash, place);
    }

    /// Undoes [`Locator::remove`].
    pub fn restore(&mut self, hash: u128, place: Place) {
        self.rows += 1;
        if !insert(&mut self.shards[shard(hash)], hash, place) {
            self.more.entry(hash).or_default().push(place);
        }
    }

    /// Some row with this hash is gone; where it was recorded to be. Until the removal is final ([`Locator::release`]) what
    /// is known of its file stays, so that it can be undone.
    pub fn remove(&mut self, hash: u128) -> Option<Place> {
        let place = match self.more.get_mut(&hash).and_then(Vec::pop) {
            Some(place) => {
                if self.more.get(&hash).is_some_and(Vec::is_empty) {
                    self.more.remove(&hash);
                }
                place
            }
            None => match self.shards[shard(hash)].find_entry(hash as u64, |e| e.is(hash)) {
                Ok(entry) => entry.remove().0.place,
                Err(_) => self.cold.as_mut()?.take(hash)?,
            },
        };
        self.rows -= 1;
        Some(place)
    }

    /// Undoes [`Locator::insert`].
    pub fn remove_at(&mut self, hash: u128, place: Place) {
        let mut found = None;
        if let Some(places) = self.more.get_mut(&hash) {
            // Undone from the newest on: it is nearly always the last.
            if let Some(i) = places.iter().rposition(|p| *p == place) {
                places.swap_remove(i);
                found = Some(());
            } else if let Some(last) = places.pop() {
                // It is the one in the table: the last of the others takes its place there.
                if let Some(entry) = self.shards[shard(hash)].find_mut(hash as u64, |e| e.is(hash)) {
                    entry.place = last;
                    found = Some(());
                }
            }
            if places.is_empty() {
                self.more.remove(&hash);
            }
        } else if let Ok(entry) = self.shards[shard(hash)].find_entry(hash as u64, |e| e.is(hash)) {
            entry.remove();
            found = Some(());
        }
        if found.is_some() {
            self.rows -= 1;
            self.release(place.file());
        }
    }

    /// A row recorded in `file` is gone for good; a number without users needs no redirect any more, and so on along
    /// the chain.
    pub fn release(&mut self, mut file: Ordinal) {
        while let Some(known) = self.files.get_mut(&file) {
            known.users = known.users.saturating_sub(1);
            if known.users > 0 {
                return;
            }
            match self.files.remove(&file).and_then(|k| k.redirect) {
                Some(redirect) => file = redirect.target,
                None => return,
            }
        }
    }

    /// The rows of `file` have moved. Without rows recorded there nothing has to be remembered.
    pub fn redirect(&mut self, file: Ordinal, redirect: Redirect) {
        let target = redirect.target;
        match self.files.get_mut(&file) {
            Some(known) if known.users > 0 => known.redirect = Some(redirect),
            _ => return,
        }
        self.files.entry(target).or_default().users += 1;
    }

    /// Undoes [`Locator::redirect`].
    pub fn undo_redirect(&mut self, file: Ordinal) {
        if let Some(redirect) = self.files.get_mut(&file).and_then(|k| k.redirect.take()) {
            self.release(redirect.target);
        }
    }

    /// Where a recorded place is now.
    pub fn resolve(&self, place: Place) -> Result<Place> {
        let mut place = place;
        while let Some(redirect) = self.files.get(&place.file()).and_then(|k| k.redirect.as_ref()) {
            if redirect.skipped.contains(place.row()) {
                return Err(Error::diverged("a row that compaction left out is still located"));
            }
            let row = redirect.base + place.row() - redirect.skipped.rank(place.row()) as u32;
            place = Place::new(redirect.target, row);
        }
        Ok(place)
    }

    /// All rows, in the hash tables.
    pub fn whole(&mut self) -> Result<Whole<'_>> {
        self.fill()?;
        Ok(Whole(self))
    }

    /// All rows: hash and recorded place, those of a shard together.
    pub fn entries(&self) -> Result<impl Iterator<Item = (u128, Place)> + '_> {
        let mut away = self.away.rows()?.into_iter().peekable();
        let firsts = (0..SHARDS).flat_map(move |number| {
            let away: Vec<_> = std::iter::from_fn(|| away.next_if(|(hash, _)| shard(*hash) == number)).collect();
            self.firsts_of(number).chain(away)
        });
        Ok(firsts.chain(self.others()))
    }

    /// Those of a shard in its hash table, and cold ones.
    fn firsts_of(&self, shard: usize) -> impl Iterator<Item = (u128, Place)> + '_ {
        let cold = self.cold.iter().flat_map(move |cold| cold.of(shard));
        self.shards[shard].iter().map(|e| (e.hash(), e.place)).chain(cold)
    }

    /// Equal rows beyond the first.
    fn others(&self) -> impl Iterator<Item = (u128, Place)> + '_ {
        self.more.iter().flat_map(|(hash, places)| places.iter().map(|place| (*hash, *place)))
    }

    /// Puts all rows on local disk. What was not final until now cannot be undone any more.
    pub fn put_away(&mut self) -> Result<()> {
        let mut others: Vec<(u128, Place)> = self.others().collect();
        others.sort_unstable_by_key(|(hash, _)| *hash);
        // Shards follow each other as their hashes do.
        let mut others = others.into_iter().peekable();
        let mut away = std::mem::take(&mut self.away);
        let rows = (0..SHARDS).flat_map(|number| {
            let mut rows: Vec<_> = self.firsts_of(number).collect();
            rows.extend(std::iter::from_fn(|| others.next_if(|(hash, _)| shard(*hash) == number)));
            rows.sort_unstable_by_key(|(hash, _)| *hash);
            rows
        });
        let added = away.add(rows);
        self.away = away;
        added?;
        self.shards = (0..SHARDS).map(|_| HashTable::new()).collect();
        (self.more, self.cold) = (HashMap::new(), None);
        Ok(())
    }
}

/// A locator none of whose rows is cold.
pub struct Whole<'a>(&'a Locator);

impl Whole<'_> {
    /// The recorded place of the first of equal rows.
    pub fn first(&self, hash: u128) -> Option<Place> {
        self.0.shards[shard(hash)].find(hash as u64, |e| e.is(hash)).map(|e| e.place)
    }

    /// The recorded places of the others.
    pub fn others(&self, hash: u128) -> &[Place] {
        self.0.more.get(&hash).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(i: u64) -> u128 {
        xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes())
    }

    #[test]
    fn at_most_48_bytes_are_allocated_per_row_at_any_size() {
        let mut locator = Locator::default();
        for i in 0..400_000u64 {
            locator.insert(hash(i), Place::new(0, i as u32));
            if i > 50_000 && i % 10_000 == 0 {
                let per_row = locator.bytes() as f64 / i as f64;
                assert!(per_row <= 48.0, "{per_row} bytes per row at {i}");
            }
        }
        for i in 0..400_000u64 {
            assert_eq!(locator.remove(hash(i)), Some(Place::new(0, i as u32)));
        }
        assert_eq!((locator.rows(), locator.remove(hash(1))), (0, None));
    }

    #[test]
    fn duplicates_come_out_as_often_as_they_went_in() {
        let mut locator = Locator::default();
        for row in 0..3 {
            locator.insert(7, Place::new(1, row));
        }
        // Undo of the entry in the main table keeps the others.
        locator.remove_at(7, Place::new(1, 0));
        let mut rows: Vec<u32> = std::iter::from_fn(|| locator.remove(7)).map(Place::row).collect();
        rows.sort_unstable();
        assert_eq!(rows, [1, 2]);
    }

    #[test]
    fn redirects_chain_and_vanish_with_their_last_row() {
        let mut locator = Locator::default();
        locator.insert(1, Place::new(0, 5));
        locator.insert(2, Place::new(0, 9));
        let skipped = Arc::new([0u32, 7].into_iter().collect());
        locator.redirect(0, Redirect { target: 1, base: 100, skipped });
        locator.redirect(1, Redirect { target: 2, base: 0, skipped: Arc::new((0..50u32).collect()) });
        let mut place = |hash| {
            let recorded = locator.remove(hash).unwrap();
            locator.release(recorded.file());
            (recorded, locator.files.len())
        };
        let (five, files) = place(1);
        assert_eq!(files, 3);
        // 5 → 100 + 5 − 1 (row 0 skipped) = 104 → 104 − 50.
        let mut again = Locator::default();
        again.insert(1, five);
        again.redirect(0, Redirect { target: 1, base: 100, skipped: Arc::new([0u32, 7].into_iter().collect()) });
        again.redirect(1, Redirect { target: 2, base: 0, skipped: Arc::new((0..50u32).collect()) });
        assert_eq!(again.resolve(five).unwrap(), Place::new(2, 54));
        place(2);
        assert!(locator.files.is_empty());
    }
}

//! A locator of many rows at once, which finds some of them before all are in its hash tables.
//!
//! What stored state brings back is cold: entries shard by shard, as [`Locator::entries`] gave them. The first commit after a start
//! retracts a thousand of ten million rows; for these the cold entries are searched once ([`Locator::warm`]), from front to back, and
//! every commit puts one shard into its hash table besides. Whoever needs all rows fills all shards, each thread its own.

use hashbrown::{HashSet, HashTable};
use std::ops::Range;

use super::away::Away;
use super::{BOUNDS, Entry, Locator, Place, SHARDS, insert, shard};
use crate::error::Result;
use crate::lake::files::Ordinal;
use crate::state::{dealt_out, in_threads};

/// So many times fewer rows than there are cold ones are searched for; for more the tables are filled.
const SEARCH: usize = 64;

/// Entries that no hash table holds yet.
#[derive(Debug, Default)]
pub(super) struct Cold {
    hashes: Vec<u128>,
    places: Vec<Place>,
    /// Those of each shard. What is taken out of one leaves its end.
    runs: Vec<Range<usize>>,
    left: usize,
}

impl Cold {
    pub fn len(&self) -> usize {
        self.left
    }

    /// Those of a shard.
    pub fn of(&self, shard: usize) -> impl Iterator<Item = (u128, Place)> + '_ {
        let run = self.runs.get(shard).cloned().unwrap_or_default();
        run.map(|i| (self.hashes[i], self.places[i]))
    }

    /// Some row with this hash.
    pub fn take(&mut self, hash: u128) -> Option<Place> {
        let run = self.runs.get(shard(hash)).cloned()?;
        let at = run.start + self.hashes[run].iter().position(|other| *other == hash)?;
        Some(self.take_at(shard(hash), at))
    }

    fn take_at(&mut self, shard: usize, at: usize) -> Place {
        let run = &mut self.runs[shard];
        run.end -= 1;
        self.left -= 1;
        self.hashes.swap(at, run.end);
        self.places.swap(at, run.end);
        self.places[run.end]
    }

    /// All rows with one of these hashes.
    fn take_all(&mut self, wanted: &[u128]) -> Vec<(u128, Place)> {
        let mut bits = vec![0u64; 1 << 10];
        let bit = |hash: u128| ((hash as usize >> 6) & 0x3ff, 1u64 << (hash as u64 & 63));
        wanted.iter().map(|hash| bit(*hash)).for_each(|(word, bit)| bits[word] |= bit);
        let wanted: HashSet<u128> = wanted.iter().copied().collect();
        let mut found = Vec::new();
        for shard in 0..self.runs.len() {
            // From the end on: what takes the place of a taken one was looked at.
            for at in self.runs[shard].clone().rev() {
                let hash = self.hashes[at];
                let (word, bit) = bit(hash);
                if bits[word] & bit != 0 && wanted.contains(&hash) {
                    found.push((hash, self.take_at(shard, at)));
                }
            }
        }
        found
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.hashes.capacity() * 16 + self.places.capacity() * 8
    }
}

impl Locator {
    /// Of the rows with these hashes; those without a place are left out. All of it is cold, but other rows of equal hashes.
    pub fn load(hashes: Vec<u128>, threads: usize, place: impl Fn(usize) -> Option<Place> + Sync) -> Result<Self> {
        let (mut runs, rest) = runs(&hashes);
        let (mut hashes, mut locator) = (hashes, Locator::default());
        for i in rest..hashes.len() {
            if let Some(place) = place(i) {
                locator.insert(hashes[i], place);
            }
        }
        hashes.truncate(rest);
        let mut places = vec![Place::new(0, 0); rest];
        let (mut left_hashes, mut left_places) = (hashes.as_mut_slice(), places.as_mut_slice());
        let mut work = Vec::with_capacity(SHARDS);
        for run in &mut runs {
            let (these_hashes, other_hashes) = left_hashes.split_at_mut(run.len());
            let (these_places, other_places) = left_places.split_at_mut(run.len());
            (left_hashes, left_places) = (other_hashes, other_places);
            work.push((run, these_hashes, these_places));
        }
        let keep = |lot: Vec<(&mut Range<usize>, &mut [u128], &mut [Place])>| {
            lot.into_iter().map(|(run, hashes, places)| keep_placed(run, hashes, places, &place)).collect::<Vec<_>>()
        };
        let users = in_threads(dealt_out(work, threads), keep)?;
        for (file, rows) in users.iter().flatten().flat_map(|users| users.iter().enumerate()).filter(|(_, n)| **n > 0) {
            locator.files.entry(file as Ordinal).or_default().users += rows;
            locator.rows += rows;
        }
        let left = runs.iter().map(Range::len).sum();
        locator.cold = (left > 0).then(|| Box::new(Cold { hashes, places, runs, left }));
        Ok(locator)
    }

    /// Brings rows with these hashes to where they are found at once. What is removed must be warm.
    pub fn warm(&mut self, hashes: &[u128]) -> Result<()> {
        self.warm_cold(hashes)?;
        if self.away.len() == 0 {
            return Ok(());
        }
        let mut wanted = hashes.to_vec();
        wanted.sort_unstable();
        let missing =
            wanted.chunk_by(|a, b| a == b).flat_map(|equal| &equal[self.warm_rows(equal[0]).min(equal.len())..]);
        let missing: Vec<u128> = missing.copied().collect();
        let mut found = Vec::new();
        let taken = self.away.take(&missing, &mut found);
        self.place(found);
        taken
    }

    /// Rows with this hash that are neither cold nor on disk.
    fn warm_rows(&self, hash: u128) -> usize {
        let first = self.shards[shard(hash)].find(hash as u64, |e| e.is(hash)).is_some();
        usize::from(first) + self.more.get(&hash).map_or(0, Vec::len)
    }

    /// Puts rows that were known into the hash tables.
    fn place(&mut self, rows: impl IntoIterator<Item = (u128, Place)>) {
        for (hash, place) in rows {
            if !insert(&mut self.shards[shard(hash)], hash, place) {
                self.more.entry(hash).or_default().push(place);
            }
        }
    }

    fn warm_cold(&mut self, hashes: &[u128]) -> Result<()> {
        let Some(cold) = &mut self.cold else { return Ok(()) };
        if hashes.len() > cold.len() / SEARCH {
            return self.fill_cold();
        }
        let found = cold.take_all(hashes);
        if let Some(next) = cold.runs.iter().position(|run| !run.is_empty()) {
            let run = std::mem::take(&mut cold.runs[next]);
            cold.left -= run.len();
            let more = fill(&mut self.shards[next], &cold.hashes[run.clone()], &cold.places[run]);
            more.into_iter().for_each(|(hash, place)| self.more.entry(hash).or_default().push(place));
        }
        if cold.left == 0 {
            self.cold = None;
        }
        self.place(found);
        Ok(())
    }

    /// Puts all rows into the hash tables.
    pub fn fill(&mut self) -> Result<()> {
        self.fill_cold()?;
        let rows = self.away.rows()?;
        self.away = Away::default();
        self.place(rows);
        Ok(())
    }

    fn fill_cold(&mut self) -> Result<()> {
        let Some(cold) = self.cold.take() else { return Ok(()) };
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let lots = dealt_out(self.shards.iter_mut().zip(&cold.runs), threads);
        let fill_lot = |lot: Vec<(&mut HashTable<Entry>, &Range<usize>)>| {
            let fill =
                |(table, run): (_, &Range<usize>)| fill(table, &cold.hashes[run.clone()], &cold.places[run.clone()]);
            lot.into_iter().flat_map(fill).collect::<Vec<_>>()
        };
        for (hash, place) in in_threads(lots, fill_lot)?.into_iter().flatten() {
            self.more.entry(hash).or_default().push(place);
        }
        Ok(())
    }
}

/// What of a shard's stored rows has a place, and how many rows each file has: numbers of files are small.
fn keep_placed(
    run: &mut Range<usize>,
    hashes: &mut [u128],
    places: &mut [Place],
    place: impl Fn(usize) -> Option<Place>,
) -> Vec<u64> {
    let mut users = Vec::new();
    let start = run.start;
    let mut kept = 0;
    for (i, at) in run.clone().enumerate() {
        let Some(place) = place(at) else { continue };
        (hashes[kept], places[kept]) = (hashes[i], place);
        kept += 1;
        let file = place.file() as usize;
        if users.len() <= file {
            users.resize(file + 1, 0);
        }
        users[file] += 1;
    }
    *run = start..start + kept;
    users
}

/// The rows whose hashes are there already.
fn fill(table: &mut HashTable<Entry>, hashes: &[u128], places: &[Place]) -> Vec<(u128, Place)> {
    table.reserve(hashes.len(), |e| e.low);
    let rows = hashes.iter().copied().zip(places.iter().copied());
    rows.filter(|(hash, place)| !insert(table, *hash, *place)).collect()
}

/// Where each shard's rows stand, and where that order ends: behind it are other rows of equal hashes.
fn runs(hashes: &[u128]) -> (Vec<Range<usize>>, usize) {
    let mut runs = vec![0..0; SHARDS];
    let (mut at, mut next) = (0, 0);
    while let Some(hash) = hashes.get(at) {
        let shard = shard(*hash);
        if shard < next {
            break;
        }
        next = shard + 1;
        let (begin, end) = (if shard == 0 { 0 } else { BOUNDS[shard - 1] }, BOUNDS[shard]);
        // The last shard has no end.
        let inside = |top: u32| top >= begin && (top < end || next == SHARDS);
        let length = hashes[at..].iter().take_while(|hash| inside((**hash >> 96) as u32)).count();
        runs[shard] = at..at + length;
        at += length;
    }
    (runs, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> (Locator, Vec<u128>, Vec<Place>) {
        let mut before = Locator::default();
        for i in 0..20_000u64 {
            let hash = xxhash_rust::xxh3::xxh3_128(&(i % 15_000).to_le_bytes());
            before.insert(hash, Place::new((i % 7) as u32, i as u32));
        }
        let (hashes, places) = before.entries().unwrap().unzip();
        (before, hashes, places)
    }

    fn sorted(locator: &Locator, without: Ordinal) -> Vec<(u128, Place)> {
        let mut rows: Vec<_> = locator.entries().unwrap().filter(|(_, p)| p.file() != without).collect();
        rows.sort_unstable_by_key(|(hash, place)| (*hash, place.file(), place.row()));
        rows
    }

    #[test]
    fn what_comes_back_is_what_was_there_without_what_has_no_place() {
        for threads in [1, 2, 3, 100] {
            for (warm, fill) in [(0, false), (100, false), (100, true), (0, true), (20_000, false)] {
                let (before, hashes, places) = before();
                // File 3 is gone.
                let place = |i: usize| Some(places[i]).filter(|p| p.file() != 3);
                let mut after = Locator::load(hashes.clone(), threads, place).unwrap();
                assert_eq!(after.rows(), before.entries().unwrap().filter(|(_, p)| p.file() != 3).count() as u64);
                let wanted: Vec<u128> = hashes.iter().step_by(20_000 / warm.max(1)).copied().collect();
                if warm > 0 {
                    after.warm(&wanted).unwrap();
                }
                if fill {
                    after.fill().unwrap();
                }
                assert_eq!(after.cold.is_none(), fill || warm == 20_000);
                assert_eq!(sorted(&after, Ordinal::MAX), sorted(&before, 3));
                let placed = before.entries().unwrap().filter(|(_, p)| p.file() != 3);
                let mut removed: Vec<_> = placed.map(|(hash, _)| (hash, after.remove(hash).unwrap())).collect();
                removed.iter().for_each(|(_, place)| after.release(place.file()));
                removed.sort_unstable_by_key(|(hash, place)| (*hash, place.file(), place.row()));
                assert_eq!(removed, sorted(&before, 3));
                assert_eq!((after.rows(), after.files.len(), after.more.len()), (0, 0, 0));
            }
        }
    }

    #[test]
    fn every_warming_fills_a_shard_and_what_is_added_meanwhile_is_there() {
        let (mut before, hashes, places) = before();
        let mut after = Locator::load(hashes.clone(), 2, |i| Some(places[i])).unwrap();
        for round in 0.. {
            // Known and new hashes, some of them twice.
            let hash = hashes[round * 37 % hashes.len()] ^ (round as u128 % 3);
            let place = Place::new(9, round as u32);
            after.warm(&[hash]).unwrap();
            let rows = |locator: &Locator| locator.entries().unwrap().filter(|(other, _)| *other == hash).count();
            assert_eq!(rows(&before), rows(&after));
            if round % 2 == 0 {
                before.insert(hash, place);
                after.insert(hash, place);
            }
            if round % 5 == 0 {
                assert_eq!(before.remove(hash).is_some(), after.remove(hash).is_some());
            }
            assert_eq!(before.rows(), after.rows());
            if after.cold.is_none() {
                assert!(round >= SHARDS / 2, "{round}");
                break;
            }
        }
        let hashes =
            |locator: &Locator| sorted(locator, Ordinal::MAX).into_iter().map(|(hash, _)| hash).collect::<Vec<_>>();
        assert_eq!(hashes(&before), hashes(&after));
    }

    #[test]
    fn what_is_on_disk_is_there_as_the_rest_is() {
        let (mut locator, hashes, places) = before();
        let all = sorted(&locator, u32::MAX);
        let (rows, bytes) = (locator.rows(), locator.bytes());
        locator.put_away().unwrap();
        assert!(locator.bytes() < bytes / 20, "{} of {bytes}", locator.bytes());
        assert_eq!((locator.rows(), sorted(&locator, u32::MAX)), (rows, all.clone()));
        // Some are found, undone, gone for good, and come.
        let wanted: Vec<u128> = hashes.iter().copied().step_by(7).collect();
        locator.warm(&wanted).unwrap();
        let taken: Vec<_> = wanted.iter().map(|hash| (*hash, locator.remove(*hash).unwrap())).collect();
        assert_eq!(locator.rows(), rows - taken.len() as u64);
        taken.iter().rev().for_each(|(hash, place)| locator.restore(*hash, *place));
        assert_eq!(sorted(&locator, u32::MAX), all);
        locator.insert(hashes[0], Place::new(77, 1));
        locator.put_away().unwrap();
        let stored: (Vec<_>, Vec<_>) = locator.entries().unwrap().unzip();
        assert_eq!(stored.0.len(), places.len() + 1);
        let loaded = Locator::load(stored.0, 2, |i| Some(stored.1[i])).unwrap();
        assert!(loaded.warm_rows(hashes[1]) == 0, "it is cold");
        assert_eq!(sorted(&loaded, u32::MAX), sorted(&locator, u32::MAX));
        locator.fill().unwrap();
        assert_eq!(sorted(&loaded, u32::MAX), sorted(&locator, u32::MAX));
        locator.warm(&[1 << 127]).unwrap();
        assert!(locator.remove(1 << 127).is_none(), "a row that is not there");
    }

    #[test]
    fn nothing_gives_an_empty_one() {
        assert_eq!(Locator::load(Vec::new(), 2, |_| None).unwrap().rows(), 0);
    }
}

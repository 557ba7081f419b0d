//! A locator of many rows at once: what stored state brings back.
//!
//! Rows come as [`Locator::entries`] gave them, shard by shard and each shard in the order of its buckets. So every thread fills
//! shards of its own, from front to back, at the speed of memory.

use hashbrown::{HashMap, HashTable};
use std::ops::Range;

use super::{BOUNDS, Entry, Locator, Place, SHARDS, insert, shard};
use crate::error::{Error, Result};
use crate::lake::files::Ordinal;

/// What filling some shards found besides their entries.
#[derive(Default)]
struct Found {
    /// Rows by file: numbers of files are small.
    files: Vec<u64>,
    /// Other rows of hashes that are there already.
    more: HashMap<u128, Vec<Place>>,
}

impl Locator {
    /// Of the rows with these hashes; those without a place are left out.
    pub fn load(hashes: &[u128], threads: usize, place: impl Fn(usize) -> Option<Place> + Sync) -> Result<Self> {
        let (runs, rest) = runs(hashes);
        let mut locator = Locator::default();
        // Shards grow in width: dealt out in turn, the lots are about equal.
        let mut lots: Vec<Vec<(&mut HashTable<Entry>, Range<usize>)>> = Vec::new();
        lots.resize_with(threads.clamp(1, SHARDS), Vec::new);
        let count = lots.len();
        locator.shards.iter_mut().zip(runs).enumerate().for_each(|(i, work)| lots[i % count].push(work));
        let place = &place;
        let found = std::thread::scope(|scope| {
            let running: Vec<_> = lots.into_iter().map(|lot| scope.spawn(move || fill(lot, hashes, place))).collect();
            running.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
        });
        for found in found {
            let found = found.map_err(|_| Error::internal("loading located rows panicked"))?;
            for (file, rows) in found.files.into_iter().enumerate().filter(|(_, rows)| *rows > 0) {
                locator.files.entry(file as Ordinal).or_default().users += rows;
                locator.rows += rows;
            }
            locator.more.extend(found.more);
        }
        for i in rest..hashes.len() {
            if let Some(place) = place(i) {
                locator.insert(hashes[i], place);
            }
        }
        Ok(locator)
    }
}

fn fill(
    lot: Vec<(&mut HashTable<Entry>, Range<usize>)>,
    hashes: &[u128],
    place: &impl Fn(usize) -> Option<Place>,
) -> Found {
    let mut found = Found::default();
    for (table, run) in lot {
        table.reserve(run.len(), |e| e.low);
        for (hash, place) in run.filter_map(|i| Some((hashes[i], place(i)?))) {
            if !insert(table, hash, place) {
                found.more.entry(hash).or_default().push(place);
            }
            let file = place.file() as usize;
            if found.files.len() <= file {
                found.files.resize(file + 1, 0);
            }
            found.files[file] += 1;
        }
    }
    found
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

    #[test]
    fn what_comes_back_is_what_was_there_without_what_has_no_place() {
        for threads in [1, 2, 3, 100] {
            let mut before = Locator::default();
            for i in 0..20_000u64 {
                let hash = xxhash_rust::xxh3::xxh3_128(&(i % 15_000).to_le_bytes());
                before.insert(hash, Place::new((i % 7) as u32, i as u32));
            }
            let (hashes, places): (Vec<u128>, Vec<Place>) = before.entries().unzip();
            // File 3 is gone.
            let after = Locator::load(&hashes, threads, |i| Some(places[i]).filter(|p| p.file() != 3)).unwrap();
            let sorted = |locator: &Locator, without: Ordinal| {
                let mut rows: Vec<_> = locator.entries().filter(|(_, p)| p.file() != without).collect();
                rows.sort_unstable_by_key(|(hash, place)| (*hash, place.file(), place.row()));
                rows
            };
            assert_eq!(sorted(&after, Ordinal::MAX), sorted(&before, 3));
            assert_eq!(after.rows(), before.entries().filter(|(_, p)| p.file() != 3).count() as u64);
            let mut after = after;
            for (hash, place) in before.entries().filter(|(_, p)| p.file() != 3) {
                assert!(after.first(hash).is_some());
                after.remove_at(hash, place);
            }
            assert_eq!((after.rows(), after.files.len(), after.more.len()), (0, 0, 0));
        }
    }

    #[test]
    fn nothing_gives_an_empty_one() {
        assert_eq!(Locator::load(&[], 2, |_| None).unwrap().rows(), 0);
    }
}

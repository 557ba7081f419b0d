//! Rows of a locator that are on local disk, while memory has no room for them.
//!
//! What the hash tables hold is put away as a sorted run: 24 bytes per row, in blocks of which memory knows the first hash. A commit's retracted
//! rows are looked up by one block each and are in the hash tables from then on ([`Locator::warm`](super::Locator::warm)), so that a run only ever
//! loses rows; a bit says which. As in a log-structured merge tree (O'Neil et al., 1996), runs of about one size become one, so that a row is
//! written again as often as the locator doubles.

use roaring::RoaringBitmap;
use std::fs::File;
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _};

use super::Place;
use crate::error::{Error, Result};

/// Bytes of a row: its hash and its place.
const ROW: usize = 24;
/// Rows that are read for one that is wanted.
const BLOCK: usize = 128;
/// Blocks that are read at once where all are.
const BLOCKS: usize = 64;

/// The runs, the oldest and longest first.
#[derive(Debug, Default)]
pub(super) struct Away(Vec<Run>);

#[derive(Debug)]
struct Run {
    /// It has no name, and goes with this.
    file: File,
    rows: usize,
    /// The first hash of every block.
    firsts: Vec<u128>,
    /// Rows that are not there any more.
    gone: RoaringBitmap,
}

impl Away {
    /// Rows that are there.
    pub fn len(&self) -> usize {
        self.0.iter().map(Run::left).sum()
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(Run::bytes).sum()
    }

    /// Puts more rows away, which come in ascending order of their hashes. After an error none of them is.
    pub fn add(&mut self, rows: impl Iterator<Item = (u128, Place)>) -> Result<()> {
        let run = written(rows.map(Ok))?;
        self.0.retain(|run| run.left() > 0);
        self.0.push(run);
        while let [.., before, last] = self.0.as_mut_slice()
            && last.left() * 2 >= before.left()
        {
            // Two that cannot become one now, as the disk is full, stay two.
            let Ok(merged) = before.merged(last) else { break };
            self.0.truncate(self.0.len() - 2);
            self.0.push(merged);
        }
        Ok(())
    }

    /// Takes out a row for each of `wanted`, as far as there are such; these ascend. After an error too, those in `found` are not here any more.
    pub fn take(&mut self, wanted: &[u128], found: &mut Vec<(u128, Place)>) -> Result<()> {
        let mut missing = wanted.to_vec();
        // What was put away last is retracted the most.
        for run in self.0.iter_mut().rev() {
            if missing.is_empty() {
                break;
            }
            missing = run.take(&missing, found)?;
        }
        Ok(())
    }

    /// All rows, in ascending order of their hashes.
    pub fn rows(&self) -> Result<Vec<(u128, Place)>> {
        let mut rows = Vec::with_capacity(self.len());
        for run in &self.0 {
            for row in run.scan()? {
                rows.push(row?);
            }
        }
        if self.0.len() > 1 {
            rows.sort_unstable_by_key(|(hash, _)| *hash);
        }
        Ok(rows)
    }
}

impl Run {
    fn left(&self) -> usize {
        self.rows - self.gone.len() as usize
    }

    fn bytes(&self) -> usize {
        self.firsts.capacity() * size_of::<u128>() + self.gone.serialized_size()
    }

    /// The rows of so many blocks from `block` on.
    fn read(&self, block: usize, blocks: usize, rows: &mut Vec<(u128, Place)>) -> Result<()> {
        let from = block * BLOCK;
        let count = self.rows.saturating_sub(from).min(blocks * BLOCK);
        let mut bytes = vec![0; count * ROW];
        let mut file = &self.file;
        let read = file.seek(SeekFrom::Start((from * ROW) as u64)).and_then(|_| file.read_exact(&mut bytes));
        read.map_err(|e| failed("read", &e))?;
        rows.clear();
        rows.extend(bytes.as_chunks::<ROW>().0.iter().map(decoded));
        Ok(())
    }

    /// Takes out a row for each of `wanted` where there is one, and says for which there is none.
    fn take(&mut self, wanted: &[u128], found: &mut Vec<(u128, Place)>) -> Result<Vec<u128>> {
        let mut missing = Vec::new();
        let (mut block, mut rows) = (usize::MAX, Vec::new());
        // Where the last one was looked for, and up to where.
        let mut last = None;
        for hash in wanted {
            let (mut next, mut from) = match last {
                Some((same, next, from)) if same == hash => (next, Some(from)),
                // Rows of one hash may begin at the end of the block before the one that begins with it.
                _ => (self.firsts.partition_point(|first| first < hash).saturating_sub(1), None),
            };
            let taken = loop {
                if self.firsts.get(next).is_none_or(|first| first > hash) {
                    break None;
                }
                if block != next {
                    self.read(next, 1, &mut rows)?;
                    block = next;
                }
                let begin = from.take().unwrap_or_else(|| rows.partition_point(|(other, _)| other < hash));
                let end = begin + rows[begin..].iter().take_while(|(other, _)| other == hash).count();
                let there = (begin..end).find(|at| !self.gone.contains((next * BLOCK + at) as u32));
                last = Some((hash, next, there.map_or(end, |at| at + 1)));
                if let Some(at) = there {
                    self.gone.insert((next * BLOCK + at) as u32);
                    break Some(rows[at]);
                }
                if end < rows.len() {
                    break None;
                }
                next += 1;
            };
            match taken {
                Some(row) => found.push(row),
                None => missing.push(*hash),
            }
        }
        Ok(missing)
    }

    /// The rows of both.
    fn merged(&self, other: &Run) -> Result<Run> {
        written(Merged::new(self.scan()?, other.scan()?)?)
    }

    /// The rows that are there, from the first to the last.
    fn scan(&self) -> Result<Scan<'_>> {
        let mut scan = Scan { run: self, block: 0, rows: Vec::new(), at: 0 };
        self.read(0, BLOCKS, &mut scan.rows)?;
        Ok(scan)
    }
}

/// A run being read.
struct Scan<'a> {
    run: &'a Run,
    /// The first of those that `rows` are of.
    block: usize,
    rows: Vec<(u128, Place)>,
    at: usize,
}

impl Iterator for Scan<'_> {
    type Item = Result<(u128, Place)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.at == self.rows.len() {
                self.block += BLOCKS;
                self.at = 0;
                if let Err(error) = self.run.read(self.block, BLOCKS, &mut self.rows) {
                    self.rows.clear();
                    return Some(Err(error));
                }
            }
            let row = *self.rows.get(self.at)?;
            let number = self.block * BLOCK + self.at;
            self.at += 1;
            if !self.run.gone.contains(number as u32) {
                return Some(Ok(row));
            }
        }
    }
}

/// Two runs as one.
struct Merged<'a> {
    scans: [Scan<'a>; 2],
    next: [Option<(u128, Place)>; 2],
}

impl<'a> Merged<'a> {
    fn new(mut one: Scan<'a>, mut other: Scan<'a>) -> Result<Self> {
        let next = [one.next().transpose()?, other.next().transpose()?];
        Ok(Merged { scans: [one, other], next })
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<(u128, Place)>;

    fn next(&mut self) -> Option<Self::Item> {
        let which = match self.next {
            [Some((one, _)), Some((other, _))] => usize::from(other < one),
            [Some(_), None] => 0,
            [None, Some(_)] => 1,
            [None, None] => return None,
        };
        let row = self.next[which].take()?;
        match self.scans[which].next().transpose() {
            Ok(next) => self.next[which] = next,
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(row))
    }
}

/// A run of `rows`.
fn written(rows: impl Iterator<Item = Result<(u128, Place)>>) -> Result<Run> {
    let file = tempfile::tempfile().map_err(|e| failed("written", &e))?;
    let mut out = BufWriter::with_capacity(BLOCKS * BLOCK * ROW, file);
    let (mut count, mut firsts) = (0usize, Vec::new());
    for row in rows {
        let row = row?;
        if count.is_multiple_of(BLOCK) {
            firsts.push(row.0);
        }
        count += 1;
        out.write_all(&encoded(row)).map_err(|e| failed("written", &e))?;
    }
    if u32::try_from(count).is_err() {
        return Err(Error::internal("more than 2^32 rows of one table are located on disk"));
    }
    let file = out.into_inner().map_err(|e| failed("written", e.error()))?;
    Ok(Run { file, rows: count, firsts, gone: RoaringBitmap::new() })
}

fn encoded((hash, place): (u128, Place)) -> [u8; ROW] {
    let mut bytes = [0; ROW];
    let (high, low) = bytes.split_at_mut(16);
    high.copy_from_slice(&hash.to_le_bytes());
    low.copy_from_slice(&place.0.to_le_bytes());
    bytes
}

fn decoded(bytes: &[u8; ROW]) -> (u128, Place) {
    let (mut hash, mut place) = ([0; 16], [0; 8]);
    hash.copy_from_slice(&bytes[..16]);
    place.copy_from_slice(&bytes[16..]);
    (u128::from_le_bytes(hash), Place(u64::from_le_bytes(place)))
}

fn failed(what: &str, error: &std::io::Error) -> Error {
    Error::environment("spill", format!("where a table's rows are could not be {what} on local disk: {error}"))
        .with_hint("free space in the directory for temporary files (TMPDIR), or raise the target's memory_limit")
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn runs_give_each_row_once_however_many_are_equal() {
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let mut away = Away::default();
        // What is there, by hash.
        let mut there: BTreeMap<u128, Vec<Place>> = BTreeMap::new();
        for round in 0..60u32 {
            let mut rows: Vec<(u128, Place)> = (0..random.random_range(0..2_000))
                .map(|row| {
                    // One hash has rows for several blocks.
                    let hash = if random.random_bool(0.2) {
                        1 << 100
                    } else {
                        u128::from(random.random_range(0..9_000u32)) << 90
                    };
                    (hash, Place::new(round, row))
                })
                .collect();
            rows.iter().for_each(|(hash, place)| there.entry(*hash).or_default().push(*place));
            rows.sort_unstable_by_key(|(hash, _)| *hash);
            away.add(rows.into_iter()).unwrap();

            let mut wanted: Vec<u128> = (0..random.random_range(0..3_000u32))
                .map(|_| u128::from(random.random_range(0..9_000u32)) << 90)
                .collect();
            wanted.extend(vec![1 << 100; random.random_range(0..900)]);
            wanted.sort_unstable();
            let mut found = Vec::new();
            away.take(&wanted, &mut found).unwrap();
            let expected: usize = wanted
                .chunk_by(|a, b| a == b)
                .map(|equal| equal.len().min(there.get(&equal[0]).map_or(0, Vec::len)))
                .sum();
            assert_eq!(found.len(), expected, "round {round}");
            for (hash, place) in found {
                let places = there.get_mut(&hash).unwrap();
                let at = places.iter().position(|other| *other == place).expect("a row that is there, and once");
                places.swap_remove(at);
            }
            assert_eq!(away.len(), there.values().map(Vec::len).sum::<usize>());
            assert!(away.0.len() <= 16, "{} runs", away.0.len());
        }
        let rows = away.rows().unwrap();
        assert!(rows.is_sorted_by_key(|(hash, _)| *hash));
        let mut all: BTreeMap<u128, Vec<Place>> = BTreeMap::new();
        rows.into_iter().for_each(|(hash, place)| all.entry(hash).or_default().push(place));
        there.retain(|_, places| !places.is_empty());
        for places in all.values_mut().chain(there.values_mut()) {
            places.sort_unstable_by_key(|place| (place.file(), place.row()));
        }
        assert_eq!(all, there);
        assert!(away.bytes() < away.len(), "less than a byte a row stays in memory");
    }
}

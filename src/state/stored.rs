//! The stored form of one model's state: a header that says what it is the state of, then its sections.
//!
//! ```text
//! "smeltSTA"                     8 bytes
//! format                         u32: another number is rejected, whatever follows
//! length of the header           u32
//! header                         JSON: [`Header`], and where the blocks of every section are
//! checksum of all that           u64, xxh3
//! blocks                         one after the other
//! ```
//!
//! A section is cut into blocks of at most 4 MiB, each compressed with zstd unless that gains nothing (hashes) or is not asked for ([`Packing`]), each with
//! the xxh3 of its stored bytes. So whoever has the header can fetch [`Part`]s of the rest in any order, check and unpack blocks side by side, and one
//! flipped bit anywhere is noticed before anything is used. All numbers are little-endian. The rows inside are Arrow's row encoding and
//! Arrow IPC: the header names Arrow's version, and state of another one is not used.
//!
//! Format 1 kept numbers in full width and other sections for sums.

use arrow::buffer::Buffer;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::oneshot::{self, Receiver, Sender};
use xxhash_rust::xxh3::xxh3_64;

use super::parallel::in_threads;
use super::sections::{Section, ToStore};
use crate::error::{Error, Result};

/// Number of this format. What it means never changes; another layout gets another number.
pub const FORMAT: u32 = 3;

const MAGIC: &[u8; 8] = b"smeltSTA";
const BLOCK: usize = 4 << 20;
/// Of zstd, below its first: writing must keep up with a disk and leaves the cores to the pipeline.
const LEVEL: i32 = -3;
/// Magic, format, length of the header.
const PREFIX: usize = 16;
/// Stored bytes of a part, about.
const PART: u64 = 8 << 20;
/// Bytes of a unit of room.
const ROOM: u64 = 1 << 10;

/// How far one input was consumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputPosition {
    /// Id of the input's table.
    pub table: String,
    pub version: i64,
    /// Checksum of that version's log entry: a history that was rewritten has another one.
    pub entry: u64,
}

/// What a snapshot is the state of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub model: String,
    /// Of the model's SQL.
    pub fingerprint: String,
    /// Of the plan that keeps the state, node by node.
    pub plan: String,
    /// Version of Arrow, whose encodings the sections hold.
    pub arrow: String,
    /// The model's table and its version with this state.
    pub table: Option<InputPosition>,
    /// Positions of the inputs, in their order; None for those that are sources.
    pub inputs: Vec<Option<InputPosition>>,
    /// Positions in the inputs that are sources, by `txn` name.
    pub sources: BTreeMap<String, i64>,
    /// Rows of the table whose places are among it.
    pub located: u64,
    pub epoch: i64,
    /// Number of the smelt that wrote it.
    pub instance: i64,
    /// µs since 1970.
    pub written_at: i64,
}

/// One piece of a section.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Block {
    /// Bytes of the section, and as they are stored.
    raw: usize,
    stored: usize,
    check: u64,
}

/// A section as the header describes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredSection {
    name: String,
    /// Bytes of a number; 0: it holds none.
    width: usize,
    blocks: Vec<Block>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Contents {
    header: Header,
    sections: Vec<StoredSection>,
}

fn bad(what: impl Into<String>) -> Error {
    Error::environment("state-snapshot", what.into()).permanent()
}

/// What is done to blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// They are compressed where that gains something: they stay, or go over a network.
    Compressed,
    /// They are as they are: they stay on this machine, and are read back soon.
    Plain,
}

/// The stored bytes, in pieces, made by so many threads.
pub fn encode(header: &Header, sections: Vec<Section>, packing: Packing, threads: usize) -> Result<Vec<Bytes>> {
    let (mut directory, mut body) = (Vec::with_capacity(sections.len()), Vec::new());
    for (section, blocks) in packed(sections, packing, threads)? {
        directory.push(section);
        body.extend(blocks);
    }
    let contents = Contents { header: header.clone(), sections: directory };
    let json = serde_json::to_vec(&contents).map_err(|e| Error::internal(e.to_string()))?;
    let length = u32::try_from(json.len()).map_err(|_| bad("the state has too many parts"))?;
    let mut head = Vec::with_capacity(PREFIX + json.len() + 8);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&FORMAT.to_le_bytes());
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(&json);
    head.extend_from_slice(&xxh3_64(&head).to_le_bytes());
    let mut pieces = vec![Bytes::from(head)];
    pieces.append(&mut body);
    Ok(pieces)
}

/// The blocks of each section, in order, and what the directory says of them. Threads take one section after the other.
fn packed(sections: Vec<Section>, packing: Packing, threads: usize) -> Result<Vec<(StoredSection, Vec<Bytes>)>> {
    let threads = threads.clamp(1, sections.len().max(1));
    let left = Mutex::new(sections.into_iter().enumerate());
    let work = |()| -> Result<Vec<_>> {
        let mut packer = Packer::new(packing)?;
        let mut done = Vec::new();
        loop {
            let Some((place, section)) = left.lock().next() else { return Ok(done) };
            done.push((place, packer.pack(section)?));
        }
    };
    let mut all = Vec::new();
    for done in in_threads(vec![(); threads], work)? {
        all.extend(done?);
    }
    all.sort_by_key(|(place, _)| *place);
    Ok(all.into_iter().map(|(_, packed)| packed).collect())
}

/// Makes blocks of sections.
struct Packer {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    scratch: Vec<u8>,
}

impl Packer {
    fn new(packing: Packing) -> Result<Self> {
        let zstd = match packing {
            Packing::Compressed => Some(zstd::bulk::Compressor::new(LEVEL).map_err(|e| bad(e.to_string()))?),
            Packing::Plain => None,
        };
        Ok(Packer { zstd, scratch: Vec::new() })
    }

    fn pack(&mut self, section: Section) -> Result<(StoredSection, Vec<Bytes>)> {
        let name = section.name.clone();
        let failed = |e: std::io::Error| bad(format!("`{name}`: {e}"));
        let (width, content) = section.into_stored()?;
        let (mut blocks, mut body) = (Vec::new(), Vec::new());
        let mut add = |raw: usize, stored: Bytes| {
            blocks.push(Block { raw, stored: stored.len(), check: xxh3_64(&stored) });
            body.push(stored);
        };
        match content {
            ToStore::Whole(bytes) => {
                let bytes = Bytes::from_owner(Owned(bytes));
                for start in (0..bytes.len()).step_by(BLOCK) {
                    let raw = bytes.slice(start..bytes.len().min(start + BLOCK));
                    add(raw.len(), self.compressed(&raw).map_err(failed)?.unwrap_or(raw));
                }
            }
            // Block by block: all of it is in memory once already.
            ToStore::Shared(shared) => {
                let (mut block, mut result) = (Vec::new(), Ok(()));
                let mut cut = |block: &mut Vec<u8>| match self.compressed(block) {
                    Ok(Some(stored)) => {
                        add(block.len(), stored);
                        block.clear();
                    }
                    Ok(None) => add(block.len(), std::mem::take(block).into()),
                    Err(error) => {
                        result = Err(failed(error));
                        block.clear();
                    }
                };
                shared.read(width, &mut |mut piece| {
                    while !piece.is_empty() {
                        let (part, rest) = piece.split_at(piece.len().min(BLOCK.saturating_sub(block.len())));
                        block.extend_from_slice(part);
                        piece = rest;
                        if block.len() == BLOCK {
                            cut(&mut block);
                        }
                    }
                });
                if !block.is_empty() {
                    cut(&mut block);
                }
                result?;
            }
        }
        Ok((StoredSection { name, width, blocks }, body))
    }

    /// A block that gains less than a sixteenth is kept as it is.
    fn compressed(&mut self, raw: &[u8]) -> std::io::Result<Option<Bytes>> {
        let Packer { zstd: Some(zstd), scratch } = self else { return Ok(None) };
        scratch.clear();
        scratch.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        zstd.compress_to_buffer(raw, scratch)?;
        Ok((scratch.len() < raw.len() - raw.len() / 16).then(|| Bytes::copy_from_slice(scratch)))
    }
}

/// Bytes that blocks share.
struct Owned(Buffer);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// What the beginning of a stored state says of all of it.
#[derive(Debug, Clone)]
pub struct Directory {
    pub header: Header,
    sections: Vec<StoredSection>,
    /// Where the blocks begin.
    body: u64,
}

/// Blocks that stand one after the other, and that somebody waits for.
#[derive(Debug)]
pub struct Part {
    /// Where they are in the stored bytes.
    pub range: Range<u64>,
    /// Their lengths, and where they go.
    blocks: Vec<(usize, Sender<Arrived>)>,
}

impl Directory {
    /// Of the first bytes of a stored state.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let number = |at: usize| bytes.get(at..at + 4).and_then(|b| Some(u32::from_le_bytes(b.try_into().ok()?)));
        if bytes.get(..8) != Some(MAGIC) {
            return Err(bad("it is no snapshot of state"));
        }
        match number(8) {
            Some(FORMAT) => {}
            Some(other) => return Err(bad(format!("it has format {other}; this version reads format {FORMAT}"))),
            None => return Err(bad("it is cut off")),
        }
        let end = PREFIX + number(12).ok_or_else(|| bad("it is cut off"))? as usize;
        let (head, check) = bytes.get(..end).zip(bytes.get(end..end + 8)).ok_or_else(|| bad("it is cut off"))?;
        if xxh3_64(head).to_le_bytes() != check {
            return Err(bad("the checksum of its header does not fit"));
        }
        let contents: Contents =
            serde_json::from_slice(&head[PREFIX..]).map_err(|e| bad(format!("its header: {e}")))?;
        Ok(Directory { header: contents.header, sections: contents.sections, body: end as u64 + 8 })
    }

    /// The sections, whose blocks come when their parts are [`Part::deliver`]ed: parts of a size that is worth a request, those of the
    /// sections from `second` on apart. `size` is that of the whole.
    pub fn sections(&self, size: u64, second: &str) -> Result<(Vec<Section>, [Vec<Part>; 2])> {
        let (mut sections, mut parts) = (Vec::with_capacity(self.sections.len()), [Vec::new(), Vec::new()]);
        let (mut at, mut list) = (self.body, 0);
        for section in &self.sections {
            list |= usize::from(section.name == second);
            let mut blocks = Vec::with_capacity(section.blocks.len());
            for block in &section.blocks {
                if block.raw > BLOCK || block.stored > block.raw {
                    return Err(bad(format!("`{}` has a block of an impossible size", section.name)));
                }
                let (sender, receiver) = oneshot::channel();
                blocks.push(Packed { stored: receiver, raw: block.raw, check: block.check });
                let end = at + block.stored as u64;
                match parts[list].last_mut().filter(|part: &&mut Part| end - part.range.start <= PART) {
                    Some(part) => {
                        part.range.end = end;
                        part.blocks.push((block.stored, sender));
                    }
                    None => parts[list].push(Part { range: at..end, blocks: vec![(block.stored, sender)] }),
                }
                at = end;
            }
            sections.push(Section::stored(section.name.clone(), section.width, blocks));
        }
        match at.cmp(&size) {
            std::cmp::Ordering::Equal => Ok((sections, parts)),
            std::cmp::Ordering::Less => Err(bad("it is longer than it says")),
            std::cmp::Ordering::Greater => Err(bad("it is cut off")),
        }
    }
}

impl Part {
    /// Bytes it has, in units of `room`.
    pub fn room(&self) -> u32 {
        u32::try_from((self.range.end - self.range.start).div_ceil(ROOM)).unwrap_or(u32::MAX)
    }

    /// Hands out its blocks, of the bytes at its range; each keeps its share of `room` until it is unpacked. False when nobody waits for
    /// any of them any more.
    pub fn deliver(self, bytes: &Result<Bytes>, mut room: Option<OwnedSemaphorePermit>) -> bool {
        let (mut at, mut wanted) = (0, false);
        for (stored, to) in self.blocks {
            let end = at + stored;
            let block = match bytes {
                Ok(bytes) if end <= bytes.len() => Ok(bytes.slice(at..end)),
                Ok(_) => Err(bad("it is cut off")),
                Err(error) => Err(error.clone()),
            };
            at = end;
            let room = room.as_mut().and_then(|room| room.split((stored as u64 / ROOM) as usize));
            wanted |= to.send((block, room)).is_ok();
        }
        wanted
    }
}

/// What comes for a block, and the room it takes.
type Arrived = (Result<Bytes>, Option<OwnedSemaphorePermit>);

/// A block as it is stored, once it has come.
#[derive(Debug)]
pub struct Packed {
    stored: Receiver<Arrived>,
    raw: usize,
    check: u64,
}

impl Packed {
    /// Bytes it has unpacked.
    pub fn raw(&self) -> usize {
        self.raw
    }

    /// Waits for it, checks and unpacks it, and hands it to `put`. `scratch` holds what was compressed.
    pub fn unpack(mut self, section: &str, scratch: &mut Vec<u8>, put: impl FnOnce(&[u8])) -> Result<()> {
        // What is there already may be asked for by a thread that must not wait.
        let arrived = match self.stored.try_recv() {
            Err(TryRecvError::Empty) => self.stored.blocking_recv().ok(),
            arrived => arrived.ok(),
        };
        let (stored, _room) = arrived.ok_or_else(|| bad("it was not read to its end"))?;
        let stored = stored?;
        if xxh3_64(&stored) != self.check {
            return Err(bad(format!("the checksum of `{section}` does not fit")));
        }
        if stored.len() == self.raw {
            put(&stored);
            return Ok(());
        }
        if scratch.len() < self.raw {
            scratch.resize(self.raw, 0);
        }
        let unpacked = zstd::bulk::decompress_to_buffer(&stored, &mut scratch[..self.raw]);
        if unpacked.map_err(|e| bad(format!("`{section}`: {e}")))? != self.raw {
            return Err(bad(format!("`{section}` is shorter than it says")));
        }
        put(&scratch[..self.raw]);
        Ok(())
    }
}

/// All of a stored state. Its sections are checked when they are read.
pub fn decode(bytes: &Bytes) -> Result<(Header, Vec<Section>)> {
    let directory = Directory::read(bytes)?;
    let (sections, parts) = directory.sections(bytes.len() as u64, "")?;
    for part in parts.into_iter().flatten() {
        let range = part.range.start as usize..part.range.end as usize;
        part.deliver(&Ok(bytes.slice(range)), None);
    }
    Ok((directory.header, sections))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{GroupIndex, Paged, StateReader, StateWriter};
    use arrow::array::{ArrayRef, StringArray};
    use arrow::datatypes::DataType;
    use std::sync::Arc;

    fn stored(rows: u64) -> Bytes {
        packed(rows, Packing::Compressed)
    }

    fn packed(rows: u64, packing: Packing) -> Bytes {
        let mut state = StateWriter::new();
        state.words("numbers", 0..rows);
        // What no compression makes smaller.
        state.words("hashes", (0..rows).map(|i| xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes())));
        let texts: ArrayRef = Arc::new((0..rows).map(|i| (i % 3 > 0).then(|| i.to_string())).collect::<StringArray>());
        state.columns("texts", &[texts], rows as usize).unwrap();
        let header = Header { model: "gold".into(), epoch: 7, inputs: vec![None], ..Header::default() };
        encode(&header, state.finish(), packing, 2).unwrap().concat().into()
    }

    #[test]
    fn what_is_stored_comes_back() {
        for (rows, packing) in [0, 1, 600_000].into_iter().flat_map(|n| [(n, Packing::Compressed), (n, Packing::Plain)])
        {
            let (header, sections) = decode(&packed(rows, packing)).unwrap();
            assert_eq!((header.model.as_str(), header.epoch), ("gold", 7));
            let mut reader = StateReader::new(sections, 3);
            assert!(reader.words::<u64>("numbers").unwrap().into_iter().eq(0..rows));
            assert_eq!(reader.exactly::<u128>("hashes", rows as usize).unwrap().len() as u64, rows);
            let (columns, count) = reader.columns("texts", &[DataType::Utf8]).unwrap();
            assert_eq!((columns[0].len() as u64, count as u64), (rows, rows));
            reader.finish().unwrap();
        }
        assert!(packed(600_000, Packing::Plain).len() > stored(600_000).len());
    }

    #[test]
    fn what_is_shared_is_stored_as_it_was_and_as_a_copy_would_be() {
        // More than a block of hashes.
        for (rows, packing) in [0, 3, 300_000].into_iter().flat_map(|n| [(n, Packing::Compressed), (n, Packing::Plain)])
        {
            let hash = |i: u64| xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes());
            let key = |i: u64| (i * i).to_string().into_bytes();
            let mut hashes: Paged<u128> = (0..rows).map(hash).collect();
            let mut numbers: Paged<u32> = (0..rows as u32).map(|i| i % 1_000).collect();
            let mut keys = GroupIndex::new();
            (0..rows).for_each(|i| assert_eq!(u64::from(keys.intern_one(&key(i)).unwrap()), i));
            let mut shared = StateWriter::new();
            shared.paged("hashes", &mut hashes);
            shared.paged("numbers", &mut numbers);
            keys.save(&mut shared);
            for at in 0..rows as usize {
                (hashes[at], numbers[at]) = (7, u32::MAX);
                keys.remove(at as u32);
            }
            (0..rows).for_each(|i| assert!(keys.intern_one(&key(i + rows)).unwrap() < rows as u32));
            let mut copied = StateWriter::new();
            copied.words("hashes", (0..rows).map(hash));
            copied.words("numbers", (0..rows as u32).map(|i| i % 1_000));
            let all: Vec<Vec<u8>> = (0..rows).map(key).collect();
            copied.strings("keys", all.iter().map(Vec::as_slice));
            copied.words::<u32>("keys.free", []);
            let stored = |state: StateWriter| encode(&Header::default(), state.finish(), packing, 2).unwrap().concat();
            let (shared, copied) = (stored(shared), stored(copied));
            assert!(shared == copied, "{rows} {packing:?}: {} and {} bytes", shared.len(), copied.len());
        }
    }

    #[test]
    fn sections_are_asked_for_in_order_and_by_name() {
        let read = |ask: fn(&mut StateReader) -> Result<()>| {
            let (_, sections) = decode(&stored(10)).unwrap();
            ask(&mut StateReader::new(sections, 1)).unwrap_err()
        };
        assert!(read(|r| r.words::<u128>("hashes").map(|_| ())).message().contains("`numbers` stands where `hashes`"));
        assert!(read(|r| r.exactly::<u64>("numbers", 9).map(|_| ())).message().contains("another length"));
        assert!(
            read(|r| r.words::<u64>("numbers").and_then(|_| std::mem::take(r).finish())).message().contains("hashes")
        );
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_noticed() {
        let whole = stored(50);
        let read = |bytes: Vec<u8>| {
            let mut reader = StateReader::new(decode(&bytes.into())?.1, 2);
            reader.words::<u64>("numbers")?;
            reader.words::<u128>("hashes")?;
            reader.columns("texts", &[DataType::Utf8])?;
            reader.finish()
        };
        read(whole.to_vec()).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 1 << (at % 8);
            assert!(read(bytes).is_err(), "byte {at} of {}", whole.len());
            assert!(read(whole[..at].to_vec()).is_err(), "cut at {at}");
        }
        let mut longer = whole.to_vec();
        longer.push(0);
        assert!(read(longer).is_err());
    }

    #[test]
    fn another_format_is_rejected_by_its_number() {
        let mut bytes = stored(3).to_vec();
        bytes[8..12].copy_from_slice(&9u32.to_le_bytes());
        let error = Directory::read(&bytes).unwrap_err();
        assert_eq!(error.message(), "it has format 9; this version reads format 3");
        assert_eq!(decode(&bytes.into()).unwrap_err().message(), error.message());
        assert_eq!(Directory::read(b"something else entirely").unwrap_err().message(), "it is no snapshot of state");
    }
}

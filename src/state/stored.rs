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
//! A section is cut into blocks of at most 4 MiB, each compressed with zstd unless that gains nothing (hashes), each with the xxh3 of its
//! stored bytes. So whoever has the header can fetch, check and unpack [`Part`]s of the rest in any order and side by side, and one
//! flipped bit anywhere is noticed before anything is used. All numbers are little-endian. The rows inside are Arrow's row encoding and
//! Arrow IPC: the header names Arrow's version, and state of another one is not used.
//!
//! Format 1 kept numbers in full width and other sections for sums.

use arrow::buffer::Buffer;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

use super::sections::Section;
use crate::error::{Error, Result};

/// Number of this format. What it means never changes; another layout gets another number.
pub const FORMAT: u32 = 2;

const MAGIC: &[u8; 8] = b"smeltSTA";
const BLOCK: usize = 4 << 20;
/// Of zstd: writing must keep up with a disk, reading is as fast at any level.
const LEVEL: i32 = 1;
/// Magic, format, length of the header.
const PREFIX: usize = 16;
/// Stored bytes of a part, about.
const PART: u64 = 8 << 20;

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

/// The stored bytes, in pieces.
pub fn encode(header: &Header, sections: Vec<Section>) -> Result<Vec<Bytes>> {
    let mut directory = Vec::with_capacity(sections.len());
    let mut body: Vec<Bytes> = Vec::new();
    for section in sections {
        let name = section.name.clone();
        let (width, bytes) = section.into_stored()?;
        let mut blocks = Vec::new();
        for raw in bytes.chunks(BLOCK) {
            let packed = zstd::bulk::compress(raw, LEVEL).map_err(|e| bad(format!("`{name}`: {e}")))?;
            // A block that gains less than a sixteenth is kept as it is.
            let stored = if packed.len() < raw.len() - raw.len() / 16 {
                Bytes::from(packed)
            } else {
                Bytes::copy_from_slice(raw)
            };
            blocks.push(Block { raw: raw.len(), stored: stored.len(), check: xxh3_64(&stored) });
            body.push(stored);
        }
        directory.push(StoredSection { name, width, blocks });
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

/// What the beginning of a stored state says of all of it.
#[derive(Debug, Clone)]
pub struct Directory {
    pub header: Header,
    sections: Vec<StoredSection>,
    /// Where the blocks begin.
    body: u64,
}

/// Blocks that stand one after the other.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where they are in the stored bytes.
    pub range: Range<u64>,
    /// With the names of their sections.
    blocks: Vec<(String, Block)>,
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

    /// All blocks, in parts of a size that is worth a request; `size` is that of the whole.
    pub fn parts(&self, size: u64) -> Result<Vec<Part>> {
        let mut parts: Vec<Part> = Vec::new();
        let mut at = self.body;
        for section in &self.sections {
            for block in &section.blocks {
                if block.raw > BLOCK || block.stored > block.raw {
                    return Err(bad(format!("`{}` has a block of an impossible size", section.name)));
                }
                let end = at + block.stored as u64;
                match parts.last_mut().filter(|part| end - part.range.start <= PART) {
                    Some(part) => {
                        part.range.end = end;
                        part.blocks.push((section.name.clone(), block.clone()));
                    }
                    None => {
                        let blocks = vec![(section.name.clone(), block.clone())];
                        parts.push(Part { range: at..end, blocks });
                    }
                }
                at = end;
            }
        }
        match at.cmp(&size) {
            std::cmp::Ordering::Equal => Ok(parts),
            std::cmp::Ordering::Less => Err(bad("it is longer than it says")),
            std::cmp::Ordering::Greater => Err(bad("it is cut off")),
        }
    }

    /// The sections, of the unpacked blocks of all parts in their order.
    pub fn sections(&self, unpacked: impl IntoIterator<Item = Vec<Buffer>>) -> Result<Vec<Section>> {
        let mut blocks = unpacked.into_iter().flatten();
        let section = |section: &StoredSection| {
            let pieces: Vec<Buffer> = blocks.by_ref().take(section.blocks.len()).collect();
            let whole = pieces.len() == section.blocks.len();
            whole.then(|| Section::stored(section.name.clone(), section.width, pieces))
        };
        let sections: Option<Vec<Section>> = self.sections.iter().map(section).collect();
        sections.ok_or_else(|| Error::internal("a part of the stored state was not unpacked"))
    }
}

impl Part {
    /// The contents of its blocks, of the bytes at its range.
    pub fn unpack(&self, bytes: &[u8]) -> Result<Vec<Buffer>> {
        let mut rest = bytes;
        let mut unpacked = Vec::with_capacity(self.blocks.len());
        for (name, block) in &self.blocks {
            let (stored, tail) = rest.split_at_checked(block.stored).ok_or_else(|| bad("it is cut off"))?;
            rest = tail;
            if xxh3_64(stored) != block.check {
                return Err(bad(format!("the checksum of `{name}` does not fit")));
            }
            unpacked.push(if stored.len() == block.raw {
                Buffer::from(stored)
            } else {
                let raw = zstd::bulk::decompress(stored, block.raw).map_err(|e| bad(format!("`{name}`: {e}")))?;
                if raw.len() != block.raw {
                    return Err(bad(format!("`{name}` is shorter than it says")));
                }
                Buffer::from_vec(raw)
            });
        }
        Ok(unpacked)
    }
}

/// All of a stored state.
pub fn decode(bytes: &[u8]) -> Result<(Header, Vec<Section>)> {
    let directory = Directory::read(bytes)?;
    let parts = directory.parts(bytes.len() as u64)?;
    let unpacked = parts.iter().map(|part| part.unpack(&bytes[part.range.start as usize..part.range.end as usize]));
    let sections = directory.sections(unpacked.collect::<Result<Vec<_>>>()?)?;
    Ok((directory.header, sections))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{StateReader, StateWriter};
    use arrow::array::{ArrayRef, StringArray};
    use arrow::datatypes::DataType;
    use std::sync::Arc;

    fn stored(rows: u64) -> Bytes {
        let mut state = StateWriter::new();
        state.words("numbers", 0..rows);
        // What no compression makes smaller.
        state.words("hashes", (0..rows).map(|i| xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes())));
        let texts: ArrayRef = Arc::new((0..rows).map(|i| (i % 3 > 0).then(|| i.to_string())).collect::<StringArray>());
        state.columns("texts", &[texts], rows as usize).unwrap();
        let header = Header { model: "gold".into(), epoch: 7, inputs: vec![None], ..Header::default() };
        encode(&header, state.finish()).unwrap().concat().into()
    }

    #[test]
    fn what_is_stored_comes_back() {
        for rows in [0, 1, 600_000] {
            let (header, sections) = decode(&stored(rows)).unwrap();
            assert_eq!((header.model.as_str(), header.epoch), ("gold", 7));
            let mut reader = StateReader::new(sections);
            assert!(reader.words::<u64>("numbers").unwrap().into_iter().eq(0..rows));
            assert_eq!(reader.exactly::<u128>("hashes", rows as usize).unwrap().len() as u64, rows);
            let (columns, count) = reader.columns("texts", &[DataType::Utf8]).unwrap();
            assert_eq!((columns[0].len() as u64, count as u64), (rows, rows));
            reader.finish().unwrap();
        }
    }

    #[test]
    fn sections_are_asked_for_in_order_and_by_name() {
        let (_, sections) = decode(&stored(10)).unwrap();
        let read = |ask: fn(&mut StateReader) -> Result<()>| ask(&mut StateReader::new(sections.clone())).unwrap_err();
        assert!(read(|r| r.words::<u128>("hashes").map(|_| ())).message().contains("`numbers` stands where `hashes`"));
        assert!(read(|r| r.exactly::<u64>("numbers", 9).map(|_| ())).message().contains("another length"));
        assert!(
            read(|r| r.words::<u64>("numbers").and_then(|_| std::mem::take(r).finish())).message().contains("hashes")
        );
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_noticed() {
        let whole = stored(50);
        for at in 0..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 1 << (at % 8);
            assert!(decode(&bytes).is_err(), "byte {at} of {}", whole.len());
            assert!(decode(&whole[..at]).is_err(), "cut at {at}");
        }
        let mut longer = whole.to_vec();
        longer.push(0);
        assert!(decode(&longer).is_err());
    }

    #[test]
    fn another_format_is_rejected_by_its_number() {
        let mut bytes = stored(3).to_vec();
        bytes[8..12].copy_from_slice(&9u32.to_le_bytes());
        let error = Directory::read(&bytes).unwrap_err();
        assert_eq!(error.message(), "it has format 9; this version reads format 2");
        assert_eq!(decode(&bytes).unwrap_err().message(), error.message());
        assert_eq!(Directory::read(b"something else entirely").unwrap_err().message(), "it is no snapshot of state");
    }
}

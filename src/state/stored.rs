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
//! stored bytes. So blocks are checked and unpacked on several threads, and one flipped bit anywhere is noticed before anything is
//! used. All numbers are little-endian. The rows inside are Arrow's row encoding and Arrow IPC: the header names Arrow's version, and
//! state of another one is not used.

use arrow::buffer::{Buffer, MutableBuffer};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

use super::sections::Section;
use crate::error::{Error, Result};

/// Number of this format. What it means never changes; another layout gets another number.
pub const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"smeltSTA";
const BLOCK: usize = 4 << 20;
/// Of zstd: writing must keep up with a disk, reading is as fast at any level.
const LEVEL: i32 = 1;
/// Magic, format, length of the header.
const PREFIX: usize = 16;

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

#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    header: Header,
    sections: Vec<(String, Vec<Block>)>,
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
        let bytes = section.into_bytes()?;
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
        directory.push((name, blocks));
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

/// The header of stored bytes; they may end behind it.
pub fn header(bytes: &[u8]) -> Result<Header> {
    Ok(contents(bytes)?.0.header)
}

/// What is stored. Blocks are checked and unpacked by `threads` threads.
pub fn decode(bytes: &Bytes, threads: usize) -> Result<(Header, Vec<Section>)> {
    let (contents, body) = contents(bytes)?;
    let mut at = body;
    // Of every section its place to be unpacked to, and its blocks.
    let mut targets = Vec::with_capacity(contents.sections.len());
    for (name, blocks) in contents.sections {
        let mut found = Vec::with_capacity(blocks.len());
        let mut length = 0usize;
        for block in blocks {
            if block.raw > BLOCK || block.stored > block.raw {
                return Err(bad(format!("`{name}` has a block of an impossible size")));
            }
            let stored = at.checked_add(block.stored).and_then(|end| bytes.get(at..end));
            found.push((stored.ok_or_else(|| bad("it is cut off"))?, block.raw, block.check));
            at += block.stored;
            length += block.raw;
        }
        targets.push((name, MutableBuffer::from_len_zeroed(length), found));
    }
    if at != bytes.len() {
        return Err(bad("it is longer than it says"));
    }
    let mut work = Vec::new();
    for (name, buffer, blocks) in &mut targets {
        let mut rest = buffer.as_slice_mut();
        for (stored, raw, check) in blocks.iter() {
            let (target, tail) = std::mem::take(&mut rest).split_at_mut(*raw);
            rest = tail;
            work.push((name.as_str(), *stored, *check, target));
        }
    }
    let share = work.len().div_ceil(threads.max(1)).max(1);
    let results = std::thread::scope(|scope| {
        let mut running = Vec::new();
        while !work.is_empty() {
            let part = work.split_off(work.len().saturating_sub(share));
            running.push(scope.spawn(move || part.into_iter().try_for_each(|(name, s, c, t)| unpack(name, s, c, t))));
        }
        running.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    for result in results {
        result.map_err(|_| Error::internal("unpacking stored state panicked"))??;
    }
    let sections = targets.into_iter().map(|(name, buffer, _)| Section::new(name, Buffer::from(buffer))).collect();
    Ok((contents.header, sections))
}

fn unpack(name: &str, stored: &[u8], check: u64, target: &mut [u8]) -> Result<()> {
    if xxh3_64(stored) != check {
        return Err(bad(format!("the checksum of `{name}` does not fit")));
    }
    if stored.len() == target.len() {
        target.copy_from_slice(stored);
        return Ok(());
    }
    let unpacked = zstd::bulk::decompress_to_buffer(stored, target).map_err(|e| bad(format!("`{name}`: {e}")))?;
    if unpacked == target.len() { Ok(()) } else { Err(bad(format!("`{name}` is shorter than it says"))) }
}

/// Header and directory, and where the blocks begin.
fn contents(bytes: &[u8]) -> Result<(Contents, usize)> {
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
    let contents = serde_json::from_slice(&head[PREFIX..]).map_err(|e| bad(format!("its header: {e}")))?;
    Ok((contents, end + 8))
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
            let (header, sections) = decode(&stored(rows), 3).unwrap();
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
        let (_, sections) = decode(&stored(10), 1).unwrap();
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
            assert!(decode(&bytes.into(), 1).is_err(), "byte {at} of {}", whole.len());
            assert!(decode(&whole.slice(..at), 1).is_err(), "cut at {at}");
        }
        let mut longer = whole.to_vec();
        longer.push(0);
        assert!(decode(&longer.into(), 1).is_err());
    }

    #[test]
    fn another_format_is_rejected_by_its_number() {
        let mut bytes = stored(3).to_vec();
        bytes[8..12].copy_from_slice(&9u32.to_le_bytes());
        let error = header(&bytes).unwrap_err();
        assert_eq!(error.message(), "it has format 9; this version reads format 1");
        assert_eq!(decode(&bytes.into(), 1).unwrap_err().message(), error.message());
        assert_eq!(header(b"something else entirely").unwrap_err().message(), "it is no snapshot of state");
    }
}

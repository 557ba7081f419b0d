//! Byte strings by id, one behind the other in one allocation.

use arrow::buffer::Buffer;

use super::page::Page;
use super::parallel::{dealt_out, in_threads};
use super::{Narrow, Strings};
use crate::error::Result;

/// Below this many bytes nothing is worth moving.
const WORTH: usize = 1 << 16;
/// Strings that one thread takes at once.
const LOT: usize = 1 << 16;

/// Bits of an address that say where in its chunk a string begins.
const BITS: u32 = if cfg!(test) { 8 } else { 20 };
/// Bytes of a chunk, unless one string is longer.
const CHUNK: usize = 1 << BITS;

/// Strings by id. One that is shorter than the one it replaces takes its place, so keys of fixed width never leave a gap; other gaps
/// are closed when they are half of everything.
///
/// As long as all strings are equally long, as keys of numbers are, nothing is written down of where they stand. Bytes stand in chunks
/// that are filled once, so nothing moves when strings are added.
#[derive(Default)]
pub(super) struct Arena {
    chunks: Vec<Page<u8>>,
    count: usize,
    /// The length of every string, while there is one.
    width: Option<Width>,
    /// Of strings of one length those that were freed and not replaced, the last one last.
    freed: Vec<u32>,
    /// Addresses: chunk and place in it. Empty while there is a `width`.
    starts: Narrow,
    lengths: Narrow,
    /// Bytes of all strings and gaps.
    size: usize,
    /// Bytes that belong to no string.
    gaps: usize,
}

/// Of strings that are equally long, a chunk holds a power of two.
#[derive(Clone, Copy)]
struct Width {
    bytes: usize,
    /// Bits of an id that say which of a chunk's strings it is.
    bits: u32,
}

impl Width {
    fn of(bytes: usize) -> Self {
        Width { bytes, bits: (CHUNK / bytes.max(1)).max(1).ilog2().min(BITS) }
    }

    /// Chunk and place of a string.
    #[inline]
    fn place(self, id: usize) -> (usize, usize) {
        (id >> self.bits, (id & ((1 << self.bits) - 1)) * self.bytes)
    }
}

/// Chunk and place of an address.
#[inline]
fn place(address: i64) -> (usize, usize) {
    (address as usize >> BITS, address as usize & (CHUNK - 1))
}

fn address(chunk: usize, at: usize) -> i64 {
    ((chunk << BITS) | at) as i64
}

impl Arena {
    /// All ids are below this.
    pub fn bound(&self) -> usize {
        self.count
    }

    #[inline]
    pub fn get(&self, id: u32) -> &[u8] {
        if let Some(width) = self.width {
            let (chunk, at) = width.place(id as usize);
            return &self.chunks[chunk][at..][..width.bytes];
        }
        let (chunk, at) = place(self.starts.get(id as usize));
        &self.chunks[chunk][at..][..self.lengths.get(id as usize) as usize]
    }

    /// The next id.
    pub fn push(&mut self, string: &[u8]) {
        if self.count == 0 {
            self.width = Some(Width::of(string.len()));
        } else if self.width.is_some_and(|width| width.bytes != string.len()) {
            self.tell_apart();
        }
        match self.width {
            Some(width) => {
                let (chunk, at) = width.place(self.count);
                if chunk == self.chunks.len() {
                    // The first one grows: most indexes are small.
                    let room = if chunk == 0 { 0 } else { string.len() << width.bits };
                    self.chunks.push(Vec::with_capacity(room).into());
                }
                debug_assert_eq!(self.chunks[chunk].len(), at);
                self.chunks[chunk].own().extend_from_slice(string);
                self.size += string.len();
            }
            None => {
                let start = self.append(string);
                self.starts.push(start);
                self.lengths.push(string.len() as i64);
            }
        }
        self.count += 1;
    }

    /// Its address.
    fn append(&mut self, string: &[u8]) -> i64 {
        self.size += string.len();
        if let Some(last) = self.chunks.last_mut()
            && last.len() < CHUNK
            && (last.len() + string.len() <= CHUNK || last.is_empty())
        {
            let at = last.len();
            last.own().extend_from_slice(string);
            return address(self.chunks.len() - 1, at);
        }
        let mut chunk = Vec::with_capacity(if self.chunks.is_empty() { 0 } else { CHUNK.max(string.len()) });
        chunk.extend_from_slice(string);
        self.chunks.push(chunk.into());
        address(self.chunks.len() - 1, 0)
    }

    /// Writes down where the strings stand, since they are not equally long any more.
    #[cold]
    fn tell_apart(&mut self) {
        let Some(width) = self.width.take() else { return };
        let start = |id: usize| {
            let (chunk, at) = width.place(id);
            address(chunk, at)
        };
        self.starts = Narrow::up_to(start(self.count), (0..self.count).map(start));
        self.lengths = Narrow::up_to(width.bytes as i64, (0..self.count).map(|_| width.bytes as i64));
        for id in std::mem::take(&mut self.freed) {
            self.lengths.set(id as usize, 0);
        }
    }

    /// Whoever had the id was [`Arena::free`]d; `room` is how long it was.
    pub fn replace(&mut self, id: u32, room: u32, string: &[u8]) {
        let at = id as usize;
        if let Some(width) = self.width {
            if width.bytes == string.len() {
                let (chunk, at) = width.place(at);
                self.chunks[chunk].own()[at..][..string.len()].copy_from_slice(string);
                // Of stored strings it is not known which are free.
                if self.freed.last() == Some(&id) {
                    self.freed.pop();
                    self.gaps -= width.bytes;
                }
                return;
            }
            self.tell_apart();
        }
        if string.len() <= room as usize {
            let (chunk, start) = place(self.starts.get(at));
            self.chunks[chunk].own()[start..start + string.len()].copy_from_slice(string);
            self.gaps = self.gaps.saturating_sub(string.len());
        } else {
            let start = self.append(string);
            self.starts.set(at, start);
        }
        self.lengths.set(at, string.len() as i64);
    }

    /// Forgets a string; how long it was.
    pub fn free(&mut self, id: u32) -> u32 {
        if let Some(width) = self.width {
            self.freed.push(id);
            self.gaps += width.bytes;
            return width.bytes as u32;
        }
        let length = self.lengths.get(id as usize);
        self.lengths.set(id as usize, 0);
        self.gaps += length as usize;
        length as u32
    }

    /// Closes the gaps when they are most of it. What freed strings left cannot be reused afterwards.
    pub fn tidy(&mut self) -> bool {
        // Equally long ones take each other's places.
        if self.width.is_some() || self.gaps < WORTH || self.gaps * 2 < self.size {
            return false;
        }
        let mut tidy = Arena::default();
        for id in 0..self.bound() {
            let start = tidy.append(self.get(id as u32));
            self.starts.set(id, start);
        }
        (self.chunks, self.size, self.gaps) = (tidy.chunks, tidy.size, 0);
        true
    }

    /// Something of every string, in the order of their ids, made by so many threads.
    pub fn map<T: Copy + Default + Send>(&self, threads: usize, of: impl Fn(&[u8]) -> T + Sync) -> Result<Vec<T>> {
        let mut made = vec![T::default(); self.bound()];
        let lots: Vec<(u32, &mut [T])> = (0..).step_by(LOT).zip(made.chunks_mut(LOT)).collect();
        in_threads(dealt_out(lots, threads), |lots: Vec<(u32, &mut [T])>| {
            for (first, places) in lots {
                (first..).zip(places).for_each(|(id, place)| *place = of(self.get(id)));
            }
        })?;
        Ok(made)
    }

    /// The same strings for somebody who reads them. Their bytes are not copied until they change here; what tells where they stand is.
    pub fn share(&mut self) -> Self {
        Arena {
            chunks: self.chunks.iter_mut().map(Page::share).collect(),
            count: self.count,
            width: self.width,
            starts: self.starts.clone(),
            lengths: self.lengths.clone(),
            ..Arena::default()
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.bound() as u32).map(|id| self.get(id))
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.capacity() + size_of::<Page<u8>>()).sum();
        chunks + self.freed.capacity() * 4 + self.starts.heap_size() + self.lengths.heap_size()
    }
}

/// In the order of their ids.
impl From<Strings> for Arena {
    fn from(strings: Strings) -> Self {
        let (lengths, bytes): (Vec<u32>, Buffer) = strings.into_parts();
        let count = lengths.len();
        let size = bytes.len();
        if let Some(width) = lengths.first().filter(|width| lengths.iter().all(|length| length == *width)) {
            let width = Width::of(*width as usize);
            let chunks = bytes.chunks((width.bytes << width.bits).max(1)).map(|chunk| chunk.to_vec().into()).collect();
            // Strings of no bytes stand in chunks, too.
            let chunks =
                if width.bytes == 0 { vec![Page::from(vec![]); ((count - 1) >> width.bits) + 1] } else { chunks };
            return Arena { chunks, size, count, width: Some(width), ..Arena::default() };
        }
        let mut arena = Arena { count, ..Arena::default() };
        let mut rest = bytes.as_slice();
        let mut start = |length: &u32| {
            let (string, tail) = rest.split_at(*length as usize);
            rest = tail;
            arena.append(string)
        };
        let starts: Vec<i64> = lengths.iter().map(&mut start).collect();
        arena.starts = Narrow::up_to(starts.iter().copied().max().unwrap_or(0), starts.into_iter());
        let longest = lengths.iter().copied().max().unwrap_or(0);
        arena.lengths = Narrow::up_to(longest.into(), lengths.iter().map(|length| i64::from(*length)));
        arena
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Of lengths below `longest`, or all of that length.
    fn strings_are_what_they_were(longest: usize, equal: bool) {
        let mut rng = ChaCha8Rng::seed_from_u64(longest as u64);
        let (mut arena, mut plain): (Arena, Vec<Vec<u8>>) = Default::default();
        let mut free: Vec<(u32, u32)> = vec![];
        for step in 0..2_000 {
            // Late, one is of another length than all the others.
            let length = if equal && step != 1_900 { longest } else { rng.random_range(0..=longest) };
            let string: Vec<u8> = (0..length).map(|_| rng.random()).collect();
            match rng.random_range(0..4) {
                0 if !plain.is_empty() => {
                    let id = rng.random_range(0..plain.len()) as u32;
                    if free.iter().all(|(other, _)| *other != id) {
                        free.push((id, arena.free(id)));
                    }
                    if arena.tidy() {
                        free.iter_mut().for_each(|(_, room)| *room = 0);
                    }
                }
                1 if !free.is_empty() => {
                    let (id, room) = free.pop().unwrap();
                    arena.replace(id, room, &string);
                    plain[id as usize] = string;
                }
                _ => {
                    arena.push(&string);
                    plain.push(string);
                }
            }
            let there = (0..plain.len() as u32).filter(|id| step % 50 == 0 && free.iter().all(|(f, _)| f != id));
            there.for_each(|id| assert_eq!(arena.get(id), plain[id as usize]));
        }
    }

    #[test]
    fn strings_of_all_lengths_keep_their_bytes() {
        for longest in [0, 1, 7, 18, CHUNK - 1, CHUNK, CHUNK * 3] {
            strings_are_what_they_were(longest, false);
            strings_are_what_they_were(longest, true);
        }
    }
}

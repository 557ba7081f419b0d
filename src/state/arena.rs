//! Byte strings by id, one behind the other in one allocation.

use arrow::buffer::Buffer;

use super::Strings;

/// Below this many bytes nothing is worth moving.
const WORTH: usize = 1 << 16;

/// Strings by id. One that is shorter than the one it replaces takes its place, so keys of fixed width never leave a gap; other gaps
/// are closed when they are half of everything.
#[derive(Default)]
pub(super) struct Arena {
    bytes: Vec<u8>,
    starts: Vec<u64>,
    lengths: Vec<u32>,
    /// Bytes that belong to no string.
    gaps: usize,
}

impl Arena {
    /// All ids are below this.
    pub fn bound(&self) -> usize {
        self.starts.len()
    }

    pub fn get(&self, id: u32) -> &[u8] {
        let start = self.starts[id as usize] as usize;
        &self.bytes[start..start + self.lengths[id as usize] as usize]
    }

    /// The next id.
    pub fn push(&mut self, string: &[u8]) {
        self.starts.push(self.bytes.len() as u64);
        self.lengths.push(length(string));
        self.bytes.extend_from_slice(string);
    }

    /// Whoever had the id was [`Arena::free`]d; `room` is how long it was.
    pub fn replace(&mut self, id: u32, room: u32, string: &[u8]) {
        let at = id as usize;
        if length(string) <= room {
            let start = self.starts[at] as usize;
            self.bytes[start..start + string.len()].copy_from_slice(string);
            self.gaps -= string.len();
        } else {
            self.starts[at] = self.bytes.len() as u64;
            self.bytes.extend_from_slice(string);
        }
        self.lengths[at] = length(string);
    }

    /// Forgets a string; how long it was.
    pub fn free(&mut self, id: u32) -> u32 {
        let length = std::mem::take(&mut self.lengths[id as usize]);
        self.gaps += length as usize;
        length
    }

    /// Closes the gaps when they are most of it. What freed strings left cannot be reused afterwards.
    pub fn tidy(&mut self) -> bool {
        if self.gaps < WORTH || self.gaps * 2 < self.bytes.len() {
            return false;
        }
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.gaps);
        for (start, length) in self.starts.iter_mut().zip(&self.lengths) {
            let from = *start as usize;
            *start = bytes.len() as u64;
            bytes.extend_from_slice(&self.bytes[from..from + *length as usize]);
        }
        (self.bytes, self.gaps) = (bytes, 0);
        true
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.bound() as u32).map(|id| self.get(id))
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        self.bytes.capacity() + self.starts.capacity() * 8 + self.lengths.capacity() * 4
    }
}

/// In the order of their ids.
impl From<Strings> for Arena {
    fn from(strings: Strings) -> Self {
        let (lengths, bytes): (Vec<u32>, Buffer) = strings.into_parts();
        let mut end = 0;
        let start = |length: &u32| {
            let start = end;
            end += u64::from(*length);
            start
        };
        let starts = lengths.iter().map(start).collect();
        let bytes = bytes.into_vec().unwrap_or_else(|shared| shared.to_vec());
        Arena { bytes, starts, lengths, gaps: 0 }
    }
}

/// A row's encoding is limited by Arrow's offsets, far below 4 GiB.
fn length(string: &[u8]) -> u32 {
    u32::try_from(string.len()).unwrap_or(u32::MAX)
}

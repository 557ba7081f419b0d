//! Byte strings by id, one behind the other in one allocation.

use arrow::buffer::Buffer;

use super::parallel::{dealt_out, in_threads};
use super::{Narrow, Strings};
use crate::error::Result;

/// Below this many bytes nothing is worth moving.
const WORTH: usize = 1 << 16;
/// Strings that one thread takes at once.
const LOT: usize = 1 << 16;

/// Strings by id. One that is shorter than the one it replaces takes its place, so keys of fixed width never leave a gap; other gaps
/// are closed when they are half of everything.
///
/// As long as all strings are equally long, as keys of numbers are, nothing is written down of where they stand.
#[derive(Default)]
pub(super) struct Arena {
    bytes: Vec<u8>,
    count: usize,
    /// The length of every string, while there is one.
    width: Option<usize>,
    /// Of strings of one length those that were freed and not replaced, the last one last.
    freed: Vec<u32>,
    /// Empty while there is a `width`.
    starts: Narrow,
    lengths: Narrow,
    /// Bytes that belong to no string.
    gaps: usize,
}

impl Arena {
    /// All ids are below this.
    pub fn bound(&self) -> usize {
        self.count
    }

    #[inline]
    pub fn get(&self, id: u32) -> &[u8] {
        if let Some(width) = self.width {
            return &self.bytes[id as usize * width..][..width];
        }
        let start = self.starts.get(id as usize) as usize;
        &self.bytes[start..start + self.lengths.get(id as usize) as usize]
    }

    /// The next id.
    pub fn push(&mut self, string: &[u8]) {
        if self.count == 0 {
            self.width = Some(string.len());
        } else if self.width.is_some_and(|width| width != string.len()) {
            self.tell_apart();
        }
        if self.width.is_none() {
            self.starts.push(self.bytes.len() as i64);
            self.lengths.push(string.len() as i64);
        }
        self.bytes.extend_from_slice(string);
        self.count += 1;
    }

    /// Writes down where the strings stand, since they are not equally long any more.
    #[cold]
    fn tell_apart(&mut self) {
        let Some(width) = self.width.take() else { return };
        let (count, width) = (self.count as i64, width as i64);
        self.starts = Narrow::up_to(self.bytes.len() as i64, (0..self.count).map(|id| id as i64 * width));
        self.lengths = Narrow::up_to(width, (0..self.count).map(|_| width));
        debug_assert_eq!(count * width, self.bytes.len() as i64);
        for id in std::mem::take(&mut self.freed) {
            self.lengths.set(id as usize, 0);
        }
    }

    /// Whoever had the id was [`Arena::free`]d; `room` is how long it was.
    pub fn replace(&mut self, id: u32, room: u32, string: &[u8]) {
        let at = id as usize;
        if let Some(width) = self.width {
            if width == string.len() {
                self.bytes[at * width..][..width].copy_from_slice(string);
                // Of stored strings it is not known which are free.
                if self.freed.last() == Some(&id) {
                    self.freed.pop();
                    self.gaps -= width;
                }
                return;
            }
            self.tell_apart();
        }
        if string.len() <= room as usize {
            let start = self.starts.get(at) as usize;
            self.bytes[start..start + string.len()].copy_from_slice(string);
            self.gaps = self.gaps.saturating_sub(string.len());
        } else {
            self.starts.set(at, self.bytes.len() as i64);
            self.bytes.extend_from_slice(string);
        }
        self.lengths.set(at, string.len() as i64);
    }

    /// Forgets a string; how long it was.
    pub fn free(&mut self, id: u32) -> u32 {
        if let Some(width) = self.width {
            self.freed.push(id);
            self.gaps += width;
            return width as u32;
        }
        let length = self.lengths.get(id as usize);
        self.lengths.set(id as usize, 0);
        self.gaps += length as usize;
        length as u32
    }

    /// Closes the gaps when they are most of it. What freed strings left cannot be reused afterwards.
    pub fn tidy(&mut self) -> bool {
        // Equally long ones take each other's places.
        if self.width.is_some() || self.gaps < WORTH || self.gaps * 2 < self.bytes.len() {
            return false;
        }
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.gaps);
        for id in 0..self.bound() {
            let start = bytes.len() as i64;
            bytes.extend_from_slice(self.get(id as u32));
            self.starts.set(id, start);
        }
        (self.bytes, self.gaps) = (bytes, 0);
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

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.bound() as u32).map(|id| self.get(id))
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        self.bytes.capacity() + self.freed.capacity() * 4 + self.starts.heap_size() + self.lengths.heap_size()
    }
}

/// In the order of their ids.
impl From<Strings> for Arena {
    fn from(strings: Strings) -> Self {
        let (lengths, bytes): (Vec<u32>, Buffer) = strings.into_parts();
        let count = lengths.len();
        if let Some(width) = lengths.first().filter(|width| lengths.iter().all(|length| length == *width)) {
            let bytes = bytes.into_vec().unwrap_or_else(|shared| shared.to_vec());
            return Arena { bytes, count, width: Some(*width as usize), ..Arena::default() };
        }
        let mut end = 0;
        let start = |length: &u32| {
            let start = end;
            end += i64::from(*length);
            start
        };
        let starts = Narrow::up_to(bytes.len() as i64, lengths.iter().map(start));
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let lengths = Narrow::up_to(longest.into(), lengths.iter().map(|length| i64::from(*length)));
        let bytes = bytes.into_vec().unwrap_or_else(|shared| shared.to_vec());
        Arena { bytes, count, starts, lengths, ..Arena::default() }
    }
}

//! The rows of each key, as chains through two vectors: no allocation per key or row.

use std::hint::black_box;

use super::sections::damaged;
use super::{AHEAD, Bits, NONE, Paged, StateReader, StateWriter};
use crate::error::{Error, Result};

/// A row that is not in any chain, as opposed to one whose key is [`NONE`].
const UNLINKED: u32 = u32::MAX - 1;

fn unknown() -> Error {
    damaged("a chain has a row or a key that is not there")
}

/// Key id → row ids, doubly linked where rows leave, so that one does in constant time.
pub struct Links {
    /// First row by key.
    heads: Paged<u32>,
    /// By row.
    next: Paged<u32>,
    /// None where no row leaves.
    previous: Option<Paged<u32>>,
    keys: Paged<u32>,
}

impl Links {
    /// No chains. Of an `append_only` one no row is ever unlinked.
    pub fn new(append_only: bool) -> Self {
        let paged = Paged::default;
        Links { heads: paged(), next: paged(), previous: (!append_only).then(paged), keys: paged() }
    }

    /// Reads what putting rows under these keys will read; [`NONE`]s are none.
    pub fn look_ahead(&self, keys: &[u32]) {
        let heads = keys.iter().map(|key| self.head(*key)).filter(|head| *head != NONE);
        let next = |row: u32| self.previous.as_ref().map_or(0, |previous| previous[row as usize]);
        black_box(heads.fold(0, |read, head| read ^ next(head)));
    }

    /// Reads what taking these rows out will read.
    pub fn look_ahead_of(&self, rows: &[u32]) {
        let Some(previous) = &self.previous else { return };
        let mut beside = [NONE; 2 * AHEAD];
        let mut heads = 0;
        for (row, beside) in rows.iter().map(|row| *row as usize).zip(beside.chunks_mut(2)) {
            if row < self.keys.len() {
                beside.copy_from_slice(&[previous[row], self.next[row]]);
                heads ^= self.heads.get(self.keys[row] as usize).unwrap_or(0);
            }
        }
        let known = beside.iter().filter(|row| **row != NONE).map(|row| *row as usize);
        black_box(known.fold(heads, |read, row| read ^ previous[row] ^ self.next[row]));
    }

    /// Puts `row` into the chain of `key`. With key [`NONE`] it is remembered without being in any chain.
    pub fn link(&mut self, row: u32, key: u32) {
        let at = row as usize;
        if at >= self.keys.len() {
            self.next.resize(at + 1, NONE);
            self.keys.resize(at + 1, UNLINKED);
            if let Some(previous) = &mut self.previous {
                previous.resize(at + 1, NONE);
            }
        }
        self.keys[at] = key;
        self.next[at] = NONE;
        if let Some(previous) = &mut self.previous {
            previous[at] = NONE;
        }
        if key == NONE {
            return;
        }
        if key as usize >= self.heads.len() {
            self.heads.resize(key as usize + 1, NONE);
        }
        let head = std::mem::replace(&mut self.heads[key as usize], row);
        self.next[at] = head;
        if let Some(previous) = self.previous.as_mut().filter(|_| head != NONE) {
            previous[head as usize] = row;
        }
    }

    /// Takes `row` out of its chain.
    pub fn unlink(&mut self, row: u32) {
        let at = row as usize;
        let (key, next) = (self.keys[at], self.next[at]);
        self.keys[at] = UNLINKED;
        let Some(links) = self.previous.as_mut().filter(|_| key != NONE && key != UNLINKED) else { return };
        let previous = links[at];
        match previous {
            NONE => self.heads[key as usize] = next,
            previous => self.next[previous as usize] = next,
        }
        if next != NONE {
            links[next as usize] = previous;
        }
    }

    /// Whether no row is ever unlinked.
    pub fn is_append_only(&self) -> bool {
        self.previous.is_none()
    }

    /// Whether `row` was linked.
    pub fn contains(&self, row: u32) -> bool {
        self.keys.get(row as usize).is_some_and(|k| k != UNLINKED)
    }

    /// Keys by row; meaningful for linked rows only.
    pub fn keys(&self) -> &Paged<u32> {
        &self.keys
    }

    /// The first row of `key`, or [`NONE`].
    pub fn head(&self, key: u32) -> u32 {
        self.heads.get(key as usize).unwrap_or(NONE)
    }

    /// The rows of `key`.
    pub fn rows(&self, key: u32) -> impl Iterator<Item = u32> + '_ {
        let some = |row: u32| (row != NONE).then_some(row);
        std::iter::successors(some(self.head(key)), move |row| some(self.next[*row as usize]))
    }

    /// These rows, or those of them that are its `own`.
    pub fn linked<'a>(&'a self, own: Option<&'a Bits>) -> Linked<'a> {
        Linked { heads: &self.heads, next: &self.next, keys: &self.keys, own, bound: NONE }
    }

    /// Writes all chains.
    pub fn save(&mut self, out: &mut StateWriter) {
        let mut none = Paged::default();
        for words in [&mut self.heads, &mut self.next, self.previous.as_mut().unwrap_or(&mut none), &mut self.keys] {
            out.paged("links", words);
        }
    }

    /// What [`Links::save`] wrote of one that is as `append_only`.
    pub fn restore(from: &mut StateReader, append_only: bool) -> Result<Self> {
        let heads = from.words::<u32>("links")?;
        let next = from.words::<u32>("links")?;
        let previous: Vec<u32> = from.exactly("links", if append_only { 0 } else { next.len() })?;
        let known = |row: &u32| *row == NONE || (*row as usize) < next.len();
        // Without an end at the first that is not, several are looked at at once.
        let all_known = |rows: &[u32]| rows.iter().fold(true, |all, row| all & known(row));
        if ![&heads, &next, &previous].into_iter().all(|rows| all_known(rows)) {
            return Err(damaged("a chain leads nowhere"));
        }
        Ok(Links {
            previous: (!append_only).then_some(previous.into()),
            keys: from.exactly("links", next.len())?.into(),
            heads: heads.into(),
            next: next.into(),
        })
    }

    /// The same chains where rows and keys have other ids: `rows` and `keys` are by the ids they had.
    pub fn renumbered(self, rows: Option<&[u32]>, keys: Option<&[u32]>) -> Result<Self> {
        if rows.is_none() && keys.is_none() {
            return Ok(self);
        }
        let now = |ids: Option<&[u32]>, id: u32| match ids {
            Some(ids) if id != NONE => ids.get(id as usize).copied().filter(|id| *id != NONE).ok_or_else(unknown),
            _ => Ok(id),
        };
        let mut links = Links::new(self.is_append_only());
        // From the last row of each chain to its first: the first one linked is the last one.
        for key in 0..self.heads.len() as u32 {
            let chain: Vec<u32> = self.rows(key).collect();
            for row in chain.into_iter().rev() {
                links.link(now(rows, row)?, now(keys, key)?);
            }
        }
        for (row, _) in self.keys.iter().enumerate().filter(|(_, key)| *key == NONE) {
            links.link(now(rows, row as u32)?, NONE);
        }
        Ok(links)
    }

    /// Every row that is linked, and its key.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.keys.iter().zip(0u32..).filter(|(key, _)| *key != UNLINKED).map(|(key, row)| (row, key))
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, Paged::heap_size);
        self.heads.heap_size() + self.next.heap_size() + previous + self.keys.heap_size()
    }
}

/// Rows by key, of which some may be another's.
#[derive(Clone, Copy)]
pub struct Linked<'a> {
    heads: &'a Paged<u32>,
    next: &'a Paged<u32>,
    keys: &'a Paged<u32>,
    own: Option<&'a Bits>,
    /// The first row in a chain that is not below it is its end.
    bound: u32,
}

impl<'a> Linked<'a> {
    /// Rows below `bound`, of chains in which rows ascend: first rows by key, next rows and keys by row.
    pub(super) fn first(bound: u32, heads: &'a Paged<u32>, next: &'a Paged<u32>, keys: &'a Paged<u32>) -> Self {
        Linked { heads, next, keys, own: None, bound }
    }

    /// The rows of `key`.
    #[inline]
    pub fn of(self, key: u32) -> impl Iterator<Item = u32> + 'a {
        let some = move |row: u32| (row < self.bound).then_some(row);
        let first = self.heads.get(key as usize).and_then(some);
        let rows = std::iter::successors(first, move |row| some(self.next[*row as usize]));
        rows.filter(move |row| self.own.is_none_or(|own| own.has(*row)))
    }

    /// Whether `key` has a row.
    #[inline]
    pub fn has(self, key: u32) -> bool {
        match self.own {
            None => self.heads.get(key as usize).is_some_and(|row| row < self.bound),
            Some(_) => self.of(key).next().is_some(),
        }
    }

    /// The key of a row that is linked.
    #[inline]
    pub fn key(self, row: u32) -> u32 {
        self.keys[row as usize]
    }

    /// Every row, and its key.
    pub fn iter(self) -> impl Iterator<Item = (u32, u32)> + 'a {
        let linked = self.keys.iter().zip(0..self.bound).filter(|(key, _)| *key != UNLINKED);
        linked.map(|(key, row)| (row, key)).filter(move |(row, _)| self.own.is_none_or(|own| own.has(*row)))
    }
}

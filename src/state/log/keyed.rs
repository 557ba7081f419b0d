//! Rows of a shared log by a key: one index of them for all holders that look for rows by it.
//!
//! Rows are linked in their order by the holder that comes first; another one with the same row finds it linked. Rows of a key stand oldest first, so that a
//! holder meets its own before those it does not have.

use std::hint::black_box;
use std::sync::MutexGuard;

use super::shared::{Log, Seat, SharedLog};
use crate::error::{Error, Result};
use crate::state::sections::damaged;
use crate::state::shared_keys::{Bits, ByKey, KeyIndex};
use crate::state::{GroupIndex, Linked, Links, NONE, Paged, StateWriter};

impl KeyIndex<Chains> {
    /// Rows from `rows` on leave the log.
    pub fn truncate(&mut self, rows: usize) {
        let mut gone = self.rows.truncate(rows);
        gone.sort_unstable();
        gone.dedup();
        gone.into_iter().for_each(|key| self.tidy(key));
    }

    /// The key of the next row, which is linked.
    fn link(&mut self, row: u32, key: Option<&[u8]>) -> Result<u32> {
        if row as usize != self.rows.keys.len() {
            return Err(Error::internal("rows of a log are linked out of order"));
        }
        let key = key.map_or(Ok(NONE), |key| self.keys.intern_one(key))?;
        self.rows.push(key);
        Ok(key)
    }
}

/// Key → rows 0, 1, 2 …, oldest first.
#[derive(Default)]
pub(super) struct Chains {
    /// First and last row by key.
    heads: Paged<u32>,
    tails: Paged<u32>,
    /// By row.
    next: Paged<u32>,
    keys: Paged<u32>,
}

impl Chains {
    /// The next row; with key [`NONE`] it is in no chain.
    fn push(&mut self, key: u32) {
        let row = self.keys.len() as u32;
        self.keys.push(key);
        self.next.push(NONE);
        if key == NONE {
            return;
        }
        if key as usize >= self.heads.len() {
            self.heads.resize(key as usize + 1, NONE);
            self.tails.resize(key as usize + 1, NONE);
        }
        match std::mem::replace(&mut self.tails[key as usize], row) {
            NONE => self.heads[key as usize] = row,
            before => self.next[before as usize] = row,
        }
    }

    /// Forgets all rows but the first so many; the keys that those had.
    fn truncate(&mut self, rows: usize) -> Vec<u32> {
        if rows >= self.keys.len() {
            return vec![];
        }
        let keys = std::mem::take(self).keys;
        keys.iter().take(rows).for_each(|key| self.push(key));
        keys.iter_from(rows).collect()
    }
}

impl ByKey for Chains {
    fn head(&self, key: u32) -> u32 {
        self.heads.get(key as usize).unwrap_or(NONE)
    }

    fn look_ahead(&self, keys: &[u32]) {
        let tails = keys.iter().filter_map(|key| self.tails.get(*key as usize)).filter(|row| *row != NONE);
        black_box(tails.fold(0, |read, row| read ^ self.next[row as usize]));
    }

    fn heap_size(&self) -> usize {
        self.heads.heap_size() + self.tails.heap_size() + self.next.heap_size() + self.keys.heap_size()
    }
}

/// One holder's view of an index.
pub struct LogKeys {
    seat: Seat,
    name: String,
    /// The index's place in the log.
    at: usize,
    /// How many rows are its own.
    linked: usize,
    /// Which keys it said it needs.
    needs: Bits,
}

/// The index, to look into; nobody else uses the log meanwhile: its rows must not be asked for.
pub struct LogKeyed<'a> {
    log: MutexGuard<'a, Log>,
    at: usize,
    linked: usize,
}

/// The same, to give ids to keys. What is given stays given: from then on a row or a need keeps its key, whatever other holders do.
pub struct LogKeying<'a> {
    log: MutexGuard<'a, Log>,
    at: usize,
    seat: usize,
    needs: &'a mut Bits,
}

impl LogKeys {
    /// Of the log that `rows` stand in; `name` is equal for equal keys.
    pub fn new(rows: &SharedLog, name: &str) -> Result<Self> {
        let seat = Seat::beside(&rows.seat)?;
        let mut log = seat.lock()?;
        let at = log.indexes.hold(name, Chains::default);
        drop(log);
        Ok(LogKeys { seat, name: name.to_string(), at, linked: 0, needs: Bits::default() })
    }

    /// Goes where `rows` have gone. Keys that it needs can have other ids there: by the id that each had, the one it has now.
    pub fn follow(&mut self, rows: &SharedLog) -> Result<Option<Vec<u32>>> {
        if self.seat.is_beside(&rows.seat) {
            return Ok(None);
        }
        let mut next = LogKeys::new(rows, &self.name)?;
        // Of two logs only one is locked at a time.
        let log = self.seat.lock()?;
        let index = log.indexes.get(self.at)?;
        let keys: Vec<u32> = index.rows.keys.iter().take(self.linked).collect();
        let mut bytes: Vec<Option<Box<[u8]>>> = vec![None; index.keys.bound()];
        for key in keys.iter().copied().filter(|key| *key != NONE).chain(self.needs.iter()) {
            bytes[key as usize].get_or_insert_with(|| index.keys.key(key).into());
        }
        drop(log);
        let mut keying = next.lock_mut()?;
        for (row, key) in keys.iter().enumerate() {
            let key = bytes.get(*key as usize).and_then(Option::as_deref);
            keying.key_of_row(row as u32, || key)?;
        }
        let mut now = vec![NONE; bytes.len()];
        for key in self.needs.iter() {
            if let Some(bytes) = &bytes[key as usize] {
                now[key as usize] = keying.need(bytes)?;
            }
        }
        drop(keying);
        next.linked = self.linked;
        *self = next;
        Ok(Some(now))
    }

    /// To look into it.
    pub fn lock(&self) -> Result<LogKeyed<'_>> {
        Ok(LogKeyed { log: self.seat.lock()?, at: self.at, linked: self.linked })
    }

    /// To give ids to keys.
    pub fn lock_mut(&mut self) -> Result<LogKeying<'_>> {
        Ok(LogKeying { log: self.seat.lock()?, at: self.at, seat: self.seat.at(), needs: &mut self.needs })
    }

    /// Whether a row was linked.
    #[inline]
    pub fn contains(&self, row: u32) -> bool {
        (row as usize) < self.linked
    }

    /// Whether somebody has linked a row already.
    pub fn knows(&self, row: u32) -> Result<bool> {
        Ok((row as usize) < self.seat.lock()?.indexes.get(self.at)?.rows.keys.len())
    }

    /// A row that got its key from [`LogKeying::key_of_row`] is one of its own, as those before it are.
    pub fn link(&mut self, row: u32) {
        self.linked = self.linked.max(row as usize + 1);
    }

    /// Needs `key` no more, if it did.
    pub fn release(&mut self, key: u32) -> Result<()> {
        if self.needs.has(key) {
            let mut log = self.seat.lock()?;
            log.indexes.get_mut(self.at)?.release(key, &mut self.needs);
        }
        Ok(())
    }

    /// Writes keys and rows of its own as a [`GroupIndex`] and [`Links`] would be; what stands between them is written by `between`.
    pub fn save(&self, out: &mut StateWriter, between: impl FnOnce(&mut StateWriter)) -> Result<()> {
        let mut log = self.seat.lock()?;
        let index = log.indexes.get_mut(self.at)?;
        let mut keys = Bits::default();
        let mut rows = Links::new(true);
        for (row, key) in index.rows.keys.iter().take(self.linked).enumerate() {
            rows.link(row as u32, key);
            if key != NONE {
                keys.set(key, true);
            }
        }
        index.keys.save_some(out, |key| keys.has(key) || self.needs.has(key));
        between(out);
        rows.save(out);
        Ok(())
    }

    /// Has the `rows` that were stored, by the keys that `stored` names, and needs those of `base`: by the id that a key of the base was stored
    /// with, the one it has now; nothing where all are the same.
    pub fn restore(&mut self, stored: GroupIndex, rows: &Links, base: &Links) -> Result<Option<Vec<u32>>> {
        let keys = rows.keys();
        let is_known = |key: u32| key == NONE || (key as usize) < stored.bound();
        let of_base = || base.iter().map(|(_, key)| key).filter(|key| *key != NONE);
        if !keys.iter().all(is_known) || !of_base().all(is_known) {
            return Err(damaged("a row has a key that is not there"));
        }
        let mut log = self.seat.lock()?;
        if keys.len() > log.rows.len() {
            return Err(damaged("more rows have a key than there are"));
        }
        let index = log.indexes.get_mut(self.at)?;
        let mut now = None;
        if index.keys.is_empty() && index.rows.keys.is_empty() {
            // As they stand.
            index.keys = stored;
            keys.iter().for_each(|key| index.rows.push(key));
            of_base().for_each(|key| index.need_id(key, &mut self.needs));
        } else {
            let bytes = |key: u32| (key != NONE).then(|| stored.key(key));
            for (row, key) in keys.iter().enumerate().skip(index.rows.keys.len()) {
                index.link(row as u32, bytes(key))?;
            }
            let ids = now.insert(vec![NONE; stored.bound()]);
            for key in of_base() {
                let id = &mut ids[key as usize];
                if *id == NONE {
                    *id = index.need(stored.key(key), &mut self.needs)?;
                }
            }
        }
        log.looks(self.seat.at(), keys.len());
        self.linked = keys.len();
        Ok(now)
    }

    /// Bytes on the heap: its own, and its part of the index.
    pub fn heap_size(&self) -> usize {
        let part = |log: MutexGuard<'_, Log>| log.indexes.get(self.at).map_or(0, KeyIndex::heap_size_of_one);
        self.needs.heap_size() + self.seat.lock().map_or(0, part)
    }
}

impl LogKeyed<'_> {
    /// The rows that are its own, by key.
    pub fn linked(&self) -> Result<Linked<'_>> {
        let Chains { heads, next, keys, .. } = &self.log.indexes.get(self.at)?.rows;
        Ok(Linked::first(self.linked as u32, heads, next, keys))
    }
}

impl LogKeying<'_> {
    /// As [`GroupIndex::look_ahead`], for keys that are asked for next.
    pub fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Result<()> {
        self.log.indexes.get(self.at)?.look_ahead(keys);
        Ok(())
    }

    /// The id of a row's key, under which it is linked from now on: that of `key`, which is asked for if it is not linked yet. None
    /// matches nothing. The row is one that the holder has.
    pub fn key_of_row<'k>(&mut self, row: u32, key: impl FnOnce() -> Option<&'k [u8]>) -> Result<u32> {
        self.log.looks(self.seat, row as usize + 1);
        let index = self.log.indexes.get_mut(self.at)?;
        match index.rows.keys.get(row as usize) {
            Some(key) => Ok(key),
            None => index.link(row, key()),
        }
    }

    /// The id of a key that the other side has, which is kept until it is [released](LogKeys::release).
    pub fn need(&mut self, key: &[u8]) -> Result<u32> {
        self.log.indexes.get_mut(self.at)?.need(key, self.needs)
    }

    /// The id of a key; [`NONE`] if it is not known. It is that key's for as long as a row of the holder's own has it.
    pub fn find(&mut self, key: &[u8]) -> Result<u32> {
        Ok(self.log.indexes.get_mut(self.at)?.keys.find_one(key))
    }
}

impl Drop for LogKeys {
    fn drop(&mut self) {
        // A broken one is looked into by nobody.
        if let Ok(mut log) = self.seat.lock() {
            log.indexes.leave(self.at, &self.needs);
        }
    }
}

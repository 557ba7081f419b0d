//! Rows of a shared log by a key: one index of them for all holders that look for rows by it.
//!
//! Rows are linked in their order by the holder that comes first; another one with the same row finds it linked. Rows of a key stand oldest first, so that a
//! holder meets its own before those it does not have. A key lives as long as a row has it, or a holder says that it needs it: the other side of a join
//! names keys by the same ids.

use std::sync::MutexGuard;

use super::shared::{Log, Seat, SharedLog};
use crate::error::{Error, Result};
use crate::state::sections::damaged;
use crate::state::{Bits, GroupIndex, Linked, Links, NONE, Narrow, StateWriter};

/// Rows by one key.
pub(super) struct KeyIndex {
    /// Equal for equal keys.
    name: String,
    keys: GroupIndex,
    chains: Chains,
    /// By key: how many holders need it.
    needed: Narrow,
    /// How many holders look for rows by it.
    users: usize,
}

impl KeyIndex {
    fn new(name: &str) -> Self {
        let (keys, chains, needed) = (GroupIndex::new(), Chains::default(), Narrow::default());
        KeyIndex { name: name.to_string(), keys, chains, needed, users: 0 }
    }

    /// Rows from `rows` on leave the log.
    pub fn truncate(&mut self, rows: usize) {
        let mut gone = self.chains.truncate(rows);
        gone.sort_unstable();
        gone.dedup();
        gone.into_iter().filter(|key| *key != NONE).for_each(|key| self.tidy(key));
    }

    /// Forgets a key that nothing has any more.
    fn tidy(&mut self, key: u32) {
        let is_needed = (key as usize) < self.needed.len() && self.needed.get(key as usize) > 0;
        if !is_needed && self.chains.head(key) == NONE {
            self.keys.remove(key);
        }
    }

    /// The key of the next row, which is linked.
    fn link(&mut self, row: u32, key: Option<&[u8]>) -> Result<u32> {
        if row as usize != self.chains.keys.len() {
            return Err(Error::internal("rows of a log are linked out of order"));
        }
        let key = key.map_or(Ok(NONE), |key| self.keys.intern_one(key))?;
        self.chains.push(key);
        Ok(key)
    }

    /// One more needs a key.
    fn need(&mut self, key: u32, needs: &mut Bits) {
        if !needs.has(key) {
            if key as usize >= self.needed.len() {
                self.needed.resize(self.keys.bound());
            }
            self.needed.add(key as usize, 1);
            needs.set(key, true);
        }
    }

    fn heap_size(&self) -> usize {
        self.keys.heap_size() + self.chains.heap_size() + self.needed.heap_size()
    }
}

/// Key → rows 0, 1, 2 …, oldest first.
#[derive(Default)]
struct Chains {
    /// First and last row by key.
    heads: Vec<u32>,
    tails: Vec<u32>,
    /// By row.
    next: Vec<u32>,
    keys: Vec<u32>,
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

    fn head(&self, key: u32) -> u32 {
        self.heads.get(key as usize).copied().unwrap_or(NONE)
    }

    /// Forgets all rows but the first so many; the keys that those had.
    fn truncate(&mut self, rows: usize) -> Vec<u32> {
        if rows >= self.keys.len() {
            return vec![];
        }
        let gone = self.keys.split_off(rows);
        let keys = std::mem::take(self).keys;
        keys.into_iter().for_each(|key| self.push(key));
        gone
    }

    fn heap_size(&self) -> usize {
        (self.heads.capacity() + self.tails.capacity() + self.next.capacity() + self.keys.capacity()) * 4
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
        let known = log.indexes.iter().position(|index| index.as_ref().is_some_and(|index| index.name == name));
        let at = known.or_else(|| log.indexes.iter().position(Option::is_none)).unwrap_or_else(|| {
            log.indexes.push(None);
            log.indexes.len() - 1
        });
        log.indexes[at].get_or_insert_with(|| KeyIndex::new(name)).users += 1;
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
        let index = index(&log, self.at)?;
        let keys: Vec<u32> = index.chains.keys[..self.linked].to_vec();
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
        Ok((row as usize) < index(&*self.seat.lock()?, self.at)?.chains.keys.len())
    }

    /// A row that got its key from [`LogKeying::key_of_row`] is one of its own, as those before it are.
    pub fn link(&mut self, row: u32) {
        self.linked = self.linked.max(row as usize + 1);
    }

    /// Needs `key` no more, if it did.
    pub fn release(&mut self, key: u32) -> Result<()> {
        if self.needs.has(key) {
            let mut log = self.seat.lock()?;
            let index = index_mut(&mut log, self.at)?;
            index.needed.add(key as usize, -1);
            index.tidy(key);
            self.needs.set(key, false);
        }
        Ok(())
    }

    /// Writes keys and rows of its own as a [`GroupIndex`] and [`Links`] would be; what stands between them is written by `between`.
    pub fn save(&self, out: &mut StateWriter, between: impl FnOnce(&mut StateWriter)) -> Result<()> {
        let log = self.seat.lock()?;
        let index = index(&log, self.at)?;
        let mut keys = Bits::default();
        let mut rows = Links::new(true);
        for (row, key) in index.chains.keys[..self.linked].iter().enumerate() {
            rows.link(row as u32, *key);
            if *key != NONE {
                keys.set(*key, true);
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
        let is_known = |key: &u32| *key == NONE || (*key as usize) < stored.bound();
        let of_base = || base.iter().map(|(_, key)| key).filter(|key| *key != NONE);
        if !keys.iter().all(is_known) || !of_base().all(|key| is_known(&key)) {
            return Err(damaged("a row has a key that is not there"));
        }
        let mut log = self.seat.lock()?;
        if keys.len() > log.rows.len() {
            return Err(damaged("more rows have a key than there are"));
        }
        let index = index_mut(&mut log, self.at)?;
        let mut now = None;
        if index.keys.is_empty() && index.chains.keys.is_empty() {
            // As they stand.
            index.keys = stored;
            keys.iter().for_each(|key| index.chains.push(*key));
            of_base().for_each(|key| index.need(key, &mut self.needs));
        } else {
            let bytes = |key: u32| (key != NONE).then(|| stored.key(key));
            for (row, key) in keys.iter().enumerate().skip(index.chains.keys.len()) {
                index.link(row as u32, bytes(*key))?;
            }
            let ids = now.insert(vec![NONE; stored.bound()]);
            for key in of_base() {
                let id = &mut ids[key as usize];
                if *id == NONE {
                    *id = index.keys.intern_one(stored.key(key))?;
                    index.need(*id, &mut self.needs);
                }
            }
        }
        log.looks(self.seat.at(), keys.len());
        self.linked = keys.len();
        Ok(now)
    }

    /// Bytes on the heap: its own, and its part of the index.
    pub fn heap_size(&self) -> usize {
        let part = |log: MutexGuard<'_, Log>| index(&log, self.at).map_or(0, |i| i.heap_size() / i.users.max(1));
        self.needs.heap_size() + self.seat.lock().map_or(0, part)
    }
}

fn gone() -> Error {
    Error::internal("an index is gone that is in use")
}

fn index(log: &Log, at: usize) -> Result<&KeyIndex> {
    log.indexes[at].as_ref().ok_or_else(gone)
}

fn index_mut(log: &mut Log, at: usize) -> Result<&mut KeyIndex> {
    log.indexes[at].as_mut().ok_or_else(gone)
}

impl LogKeyed<'_> {
    /// The rows that are its own, by key.
    pub fn linked(&self) -> Result<Linked<'_>> {
        let Chains { heads, next, keys, .. } = &index(&self.log, self.at)?.chains;
        Ok(Linked::first(self.linked as u32, heads, next, keys))
    }
}

impl LogKeying<'_> {
    /// The id of a row's key, under which it is linked from now on: that of `key`, which is asked for if it is not linked yet. None
    /// matches nothing. The row is one that the holder has.
    pub fn key_of_row<'k>(&mut self, row: u32, key: impl FnOnce() -> Option<&'k [u8]>) -> Result<u32> {
        self.log.looks(self.seat, row as usize + 1);
        let index = index_mut(&mut self.log, self.at)?;
        match index.chains.keys.get(row as usize) {
            Some(key) => Ok(*key),
            None => index.link(row, key()),
        }
    }

    /// The id of a key that the other side has, which is kept until it is [released](LogKeys::release).
    pub fn need(&mut self, key: &[u8]) -> Result<u32> {
        let index = index_mut(&mut self.log, self.at)?;
        let key = index.keys.intern_one(key)?;
        index.need(key, self.needs);
        Ok(key)
    }

    /// The id of a key; [`NONE`] if it is not known. It is that key's for as long as a row of the holder's own has it.
    pub fn find(&mut self, key: &[u8]) -> Result<u32> {
        Ok(index_mut(&mut self.log, self.at)?.keys.find_one(key))
    }
}

impl Drop for LogKeys {
    fn drop(&mut self) {
        // A broken one is looked into by nobody.
        let Ok(mut log) = self.seat.lock() else { return };
        let place = &mut log.indexes[self.at];
        if let Some(index) = place {
            index.users -= 1;
            if index.users == 0 {
                *place = None;
                return;
            }
            for key in self.needs.iter() {
                index.needed.add(key as usize, -1);
                index.tidy(key);
            }
        }
    }
}

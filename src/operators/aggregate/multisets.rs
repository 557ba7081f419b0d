//! A multiset of encoded values for each group.

use super::calls::{left_over, picked};
use crate::error::{Error, Result};
use crate::state::{Multiset, Presence, StateReader, StateWriter};
use crate::types::Weight;

/// By group, with how much is in all of them.
#[derive(Default)]
pub(super) struct Multisets {
    values: Vec<Multiset>,
    rows: usize,
    bytes: usize,
}

impl Multisets {
    pub fn grow(&mut self, bound: usize) {
        self.values.resize_with(bound, Multiset::default);
    }

    pub fn get(&self, group: u32) -> &Multiset {
        &self.values[group as usize]
    }

    /// Adds `weight` to the weight of `value`, which stays at 0 or above; whether the value has come, gone, or stays.
    pub fn add(&mut self, group: usize, value: &[u8], weight: Weight) -> Result<Presence> {
        let values = &mut self.values[group];
        self.bytes -= values.heap_size();
        let presence = values.add(value, weight);
        self.bytes += values.heap_size();
        match presence {
            Presence::Appeared if weight > 0 => self.rows += 1,
            Presence::Vanished => self.rows -= 1,
            Presence::Stays(left) if left > 0 => {}
            _ => return Err(Error::diverged("aggregate: a value is retracted that is not there")),
        }
        Ok(presence)
    }

    pub fn clear(&mut self, group: u32) -> Result<()> {
        let values = std::mem::take(&mut self.values[group as usize]);
        if values.is_empty() { Ok(()) } else { Err(left_over()) }
    }

    /// Becomes the values of `groups` alone.
    pub fn keep(&mut self, groups: &[u32]) {
        *self = Self::of(picked(&mut self.values, groups));
    }

    fn of(values: Vec<Multiset>) -> Self {
        let rows = values.iter().map(Multiset::len).sum();
        let bytes = values.iter().map(Multiset::heap_size).sum();
        Multisets { values, rows, bytes }
    }

    /// Distinct values of all groups.
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn heap_size(&self) -> usize {
        self.values.capacity() * size_of::<Multiset>() + self.bytes
    }

    pub fn save(&self, name: &str, out: &mut StateWriter) {
        out.multisets(name, &self.values);
    }

    pub fn restore(name: &str, from: &mut StateReader, bound: usize) -> Result<Self> {
        Ok(Self::of(from.multisets(name, bound)?))
    }
}

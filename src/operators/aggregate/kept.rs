//! What is kept of ordered values of which the first or the last is asked for.

use super::calls::{left_over, picked};
use super::multisets::Multisets;
use crate::error::{Error, Result};
use crate::state::{StateReader, StateWriter};
use crate::types::Weight;

pub(super) enum Kept {
    /// All of them: when one goes, another takes its place.
    All(Multisets),
    /// The first of each group, or the last: none ever goes.
    Best(Best),
}

/// One encoded value by group. An empty one stands for none: nothing is encoded as no bytes.
pub(super) struct Best {
    last: bool,
    values: Vec<Box<[u8]>>,
    bytes: usize,
}

impl Kept {
    /// All values.
    pub fn all() -> Self {
        Kept::All(Multisets::default())
    }

    /// The first of append-only values, or the last.
    pub fn best(last: bool) -> Self {
        Kept::Best(Best { last, values: Vec::new(), bytes: 0 })
    }

    pub fn grow(&mut self, bound: usize) {
        match self {
            Kept::All(values) => values.grow(bound),
            Kept::Best(best) => best.values.resize_with(bound, Box::default),
        }
    }

    #[inline]
    pub fn add(&mut self, group: usize, value: &[u8], weight: Weight) -> Result<()> {
        match self {
            Kept::All(values) => values.add(group, value, weight).map(|_| ()),
            Kept::Best(_) if weight < 0 => Err(Error::diverged("aggregate: append-only input retracts a value")),
            Kept::Best(best) => {
                let kept = &mut best.values[group];
                if kept.is_empty() || (if best.last { value > &**kept } else { value < &**kept }) {
                    best.bytes = best.bytes + value.len() - kept.len();
                    *kept = value.into();
                }
                Ok(())
            }
        }
    }

    /// The first value of a group.
    pub fn first(&self, group: u32) -> Option<&[u8]> {
        match self {
            Kept::All(values) => values.get(group).first(),
            Kept::Best(best) => best.get(group),
        }
    }

    /// The last value of a group.
    pub fn last(&self, group: u32) -> Option<&[u8]> {
        match self {
            Kept::All(values) => values.get(group).last(),
            Kept::Best(best) => best.get(group),
        }
    }

    pub fn clear(&mut self, group: u32) -> Result<()> {
        match self {
            Kept::All(values) => values.clear(group),
            Kept::Best(best) => match best.get(group) {
                Some(_) => Err(left_over()),
                None => Ok(()),
            },
        }
    }

    /// Becomes the values of `groups` alone.
    pub fn keep(&mut self, groups: &[u32]) {
        match self {
            Kept::All(values) => values.keep(groups),
            Kept::Best(best) => {
                best.values = picked(&mut best.values, groups);
                best.bytes = best.values.iter().map(|value| value.len()).sum();
            }
        }
    }

    /// Values beyond one per group.
    pub fn rows(&self) -> usize {
        match self {
            Kept::All(values) => values.rows(),
            Kept::Best(_) => 0,
        }
    }

    pub fn heap_size(&self) -> usize {
        match self {
            Kept::All(values) => values.heap_size(),
            Kept::Best(best) => best.values.capacity() * size_of::<Box<[u8]>>() + best.bytes,
        }
    }

    pub fn save(&self, name: &str, out: &mut StateWriter) {
        match self {
            Kept::All(values) => values.save(name, out),
            Kept::Best(best) => out.strings(name, best.values.iter().map(|value| &**value)),
        }
    }

    pub fn restore(&mut self, name: &str, from: &mut StateReader, bound: usize) -> Result<()> {
        match self {
            Kept::All(values) => *values = Multisets::restore(name, from, bound)?,
            Kept::Best(best) => {
                let stored = from.strings(name)?;
                if stored.len() != bound {
                    return Err(Error::internal("stored values are not those of the groups"));
                }
                best.values = stored.iter().map(Box::from).collect();
                best.bytes = best.values.iter().map(|value| value.len()).sum();
            }
        }
        Ok(())
    }
}

impl Best {
    fn get(&self, group: u32) -> Option<&[u8]> {
        Some(&*self.values[group as usize]).filter(|value| !value.is_empty())
    }
}

//! Ordered multisets of encoded values.
//!
//! Most groups and partitions have a few values. They stand one behind the other in one allocation: what is looked at together lies
//! together, and what state takes and costs to store is little more than its values. Many values are a tree.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::packed::Packed;

/// Up to this many distinct values, and bytes of them, stand behind each other.
const SMALL: usize = 16;
const SMALL_BYTES: usize = 4096;

/// Value → weight, in the order of the values' bytes. Weights are never 0.
pub struct Multiset(Values);

enum Values {
    Small(Packed),
    Large(Box<Tree>),
}

#[derive(Default)]
struct Tree {
    values: BTreeMap<Box<[u8]>, i64>,
    /// Bytes of all values, as [`Multiset::value_size`] counts them.
    bytes: usize,
}

/// What an addition did to the set of distinct values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The value is new.
    Appeared,
    /// Its weight is 0 now, and it is gone.
    Vanished,
    /// It was and is there, with this weight.
    Stays(i64),
}

impl Default for Multiset {
    fn default() -> Self {
        Multiset(Values::Small(Packed::default()))
    }
}

impl Multiset {
    /// Adds `weight` to the weight of `value`.
    pub fn add(&mut self, value: &[u8], weight: i64) -> Presence {
        let presence = match &mut self.0 {
            Values::Small(values) => values.add(value, weight),
            Values::Large(tree) => tree.add(value, weight),
        };
        match (&mut self.0, presence) {
            (Values::Small(values), Presence::Appeared) if !is_small(values.len(), values.bytes()) => {
                self.0 = Values::Large(Box::new(values.iter().collect()));
            }
            (Values::Large(tree), Presence::Vanished) if is_small(tree.values.len() * 2, tree.bytes * 2) => {
                self.0 = Values::Small(Packed::of(tree.values.iter().map(|(value, weight)| (&**value, *weight))));
            }
            _ => {}
        }
        presence
    }

    /// The smallest value.
    pub fn first(&self) -> Option<&[u8]> {
        match &self.0 {
            Values::Small(values) => values.iter().next().map(|(value, _)| value),
            Values::Large(tree) => tree.values.first_key_value().map(|(value, _)| &**value),
        }
    }

    /// The largest value.
    pub fn last(&self) -> Option<&[u8]> {
        match &self.0 {
            Values::Small(values) => values.iter().last().map(|(value, _)| value),
            Values::Large(tree) => tree.values.last_key_value().map(|(value, _)| &**value),
        }
    }

    /// The value at `rank`, counted from 0, each value as often as its weight says. Walks there.
    pub fn nth(&self, rank: i64) -> Option<&[u8]> {
        at(self.iter(), rank)
    }

    /// The same from the end.
    pub fn nth_back(&self, rank: i64) -> Option<&[u8]> {
        match &self.0 {
            Values::Small(values) => at(values.below(None), rank),
            Values::Large(tree) => at(tree.values.iter().rev().map(|(value, weight)| (&**value, *weight)), rank),
        }
    }

    /// The smallest value that is not below `value`, and its weight.
    pub fn at_or_after(&self, value: &[u8]) -> Option<(&[u8], i64)> {
        self.at_least(value).next()
    }

    /// The smallest value above `value`, and its weight.
    pub fn after(&self, value: &[u8]) -> Option<(&[u8], i64)> {
        self.at_least(value).find(|(other, _)| *other != value)
    }

    /// The largest value below `value`, and its weight.
    pub fn before(&self, value: &[u8]) -> Option<(&[u8], i64)> {
        match &self.0 {
            Values::Small(values) => values.iter().take_while(|(other, _)| *other < value).last(),
            Values::Large(tree) => tree.below(value).next(),
        }
    }

    /// Values and weights, ascending.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (&[u8], i64)> + '_> {
        match &self.0 {
            Values::Small(values) => Box::new(values.iter()),
            Values::Large(tree) => Box::new(tree.values.iter().map(|(value, weight)| (&**value, *weight))),
        }
    }

    /// Those from `bound` on, ascending.
    pub fn at_least(&self, bound: &[u8]) -> Box<dyn Iterator<Item = (&[u8], i64)> + '_> {
        match &self.0 {
            Values::Small(values) => Box::new(values.at_least(bound)),
            Values::Large(tree) => {
                let range = tree.values.range::<[u8], _>((Bound::Included(bound), Bound::Unbounded));
                Box::new(range.map(|(value, weight)| (&**value, *weight)))
            }
        }
    }

    /// Those below `bound`, descending.
    pub fn below(&self, bound: &[u8]) -> Box<dyn Iterator<Item = (&[u8], i64)> + '_> {
        match &self.0 {
            Values::Small(values) => Box::new(values.below(Some(bound))),
            Values::Large(tree) => Box::new(tree.below(bound)),
        }
    }

    /// Number of distinct values.
    pub fn len(&self) -> usize {
        match &self.0 {
            Values::Small(values) => values.len(),
            Values::Large(tree) => tree.values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes on the heap, about.
    pub fn heap_size(&self) -> usize {
        match &self.0 {
            Values::Small(values) => values.heap_size(),
            Values::Large(tree) => size_of::<Tree>() + tree.bytes,
        }
    }

    /// Bytes that a value of `length` bytes takes in an allocation of its own, about.
    pub fn value_size(length: usize) -> usize {
        length + size_of::<(Box<[u8]>, i64)>() + 8
    }
}

fn is_small(values: usize, bytes: usize) -> bool {
    values <= SMALL && bytes <= SMALL_BYTES
}

/// The value at `rank` of `values`.
fn at<'a>(mut values: impl Iterator<Item = (&'a [u8], i64)>, rank: i64) -> Option<&'a [u8]> {
    let mut left = rank;
    let found = values.find(|(_, weight)| {
        left -= weight;
        left < 0
    });
    found.map(|(value, _)| value)
}

impl Tree {
    fn add(&mut self, value: &[u8], weight: i64) -> Presence {
        let Some(old) = self.values.get_mut(value) else {
            if weight == 0 {
                return Presence::Stays(0);
            }
            self.values.insert(value.into(), weight);
            self.bytes += Multiset::value_size(value.len());
            return Presence::Appeared;
        };
        *old += weight;
        match *old {
            0 => {
                self.values.remove(value);
                self.bytes -= Multiset::value_size(value.len());
                Presence::Vanished
            }
            left => Presence::Stays(left),
        }
    }

    fn below<'a>(&'a self, bound: &[u8]) -> impl Iterator<Item = (&'a [u8], i64)> + use<'a> {
        let range = self.values.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(bound)));
        range.rev().map(|(value, weight)| (&**value, *weight))
    }
}

impl<'a> FromIterator<(&'a [u8], i64)> for Tree {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], i64)>>(values: I) -> Self {
        let values: BTreeMap<Box<[u8]>, i64> =
            values.into_iter().map(|(value, weight)| (value.into(), weight)).collect();
        let bytes = values.keys().map(|value| Multiset::value_size(value.len())).sum();
        Tree { values, bytes }
    }
}

/// From distinct values in ascending order, none of weight 0.
impl<'a> FromIterator<(&'a [u8], i64)> for Multiset {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], i64)>>(values: I) -> Self {
        let values: Vec<(&[u8], i64)> = values.into_iter().collect();
        let bytes = values.iter().map(|(value, _)| value.len()).sum();
        match is_small(values.len(), bytes) {
            true => Multiset(Values::Small(Packed::of(values.into_iter()))),
            false => Multiset(Values::Large(Box::new(values.into_iter().collect()))),
        }
    }
}

//! Ordered multisets of encoded values.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Below this many distinct values a sorted vector is smaller and faster than a tree.
const SMALL: usize = 16;

/// Value → weight, in the order of the values' bytes. Weights are never 0.
pub struct Multiset(Values);

enum Values {
    Small(Vec<(Box<[u8]>, i64)>),
    Large(BTreeMap<Box<[u8]>, i64>),
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
        Multiset(Values::Small(Vec::new()))
    }
}

impl Multiset {
    /// Adds `weight` to the weight of `value`.
    pub fn add(&mut self, value: &[u8], weight: i64) -> Presence {
        match &mut self.0 {
            Values::Small(values) => match values.binary_search_by(|(v, _)| (**v).cmp(value)) {
                Ok(at) => {
                    values[at].1 += weight;
                    match values[at].1 {
                        0 => {
                            values.remove(at);
                            Presence::Vanished
                        }
                        left => Presence::Stays(left),
                    }
                }
                Err(at) if values.len() < SMALL => {
                    // Most sets hold one value: no room for more until there are.
                    values.reserve_exact(usize::from(values.is_empty()));
                    values.insert(at, (value.into(), weight));
                    Presence::Appeared
                }
                Err(_) => {
                    let mut tree: BTreeMap<_, _> = std::mem::take(values).into_iter().collect();
                    tree.insert(value.into(), weight);
                    self.0 = Values::Large(tree);
                    Presence::Appeared
                }
            },
            Values::Large(tree) => match tree.get_mut(value) {
                Some(old) => {
                    *old += weight;
                    match *old {
                        0 => {
                            tree.remove(value);
                            if tree.len() <= SMALL / 2 {
                                self.0 = Values::Small(std::mem::take(tree).into_iter().collect());
                            }
                            Presence::Vanished
                        }
                        left => Presence::Stays(left),
                    }
                }
                None => {
                    tree.insert(value.into(), weight);
                    Presence::Appeared
                }
            },
        }
    }

    /// Bytes of all values, as [`Multiset::value_size`] counts them.
    pub fn bytes(&self) -> usize {
        self.iter().map(|(value, _)| Self::value_size(value.len())).sum()
    }

    /// The smallest value.
    pub fn first(&self) -> Option<&[u8]> {
        match &self.0 {
            Values::Small(values) => values.first().map(|(v, _)| &**v),
            Values::Large(tree) => tree.first_key_value().map(|(v, _)| &**v),
        }
    }

    /// The largest value.
    pub fn last(&self) -> Option<&[u8]> {
        match &self.0 {
            Values::Small(values) => values.last().map(|(v, _)| &**v),
            Values::Large(tree) => tree.last_key_value().map(|(v, _)| &**v),
        }
    }

    /// The value at `rank`, counted from 0, each value as often as its weight says. Walks there.
    pub fn nth(&self, rank: i64) -> Option<&[u8]> {
        let mut left = rank;
        self.iter()
            .find(|(_, weight)| {
                left -= weight;
                left < 0
            })
            .map(|(value, _)| value)
    }

    /// The same from the end.
    pub fn nth_back(&self, rank: i64) -> Option<&[u8]> {
        let mut left = rank;
        let mut here = |weight: &i64| {
            left -= weight;
            left < 0
        };
        match &self.0 {
            Values::Small(values) => values.iter().rev().find(|(_, w)| here(w)).map(|(v, _)| &**v),
            Values::Large(tree) => tree.iter().rev().find(|(_, w)| here(w)).map(|(v, _)| &**v),
        }
    }

    /// The smallest value that is not below `value`, and its weight.
    pub fn at_or_after(&self, value: &[u8]) -> Option<(&[u8], i64)> {
        self.from(Bound::Included(value))
    }

    /// The smallest value above `value`, and its weight.
    pub fn after(&self, value: &[u8]) -> Option<(&[u8], i64)> {
        self.from(Bound::Excluded(value))
    }

    fn from(&self, bound: Bound<&[u8]>) -> Option<(&[u8], i64)> {
        match &self.0 {
            Values::Small(values) => {
                let at = values.partition_point(|(v, _)| match bound {
                    Bound::Included(value) => &**v < value,
                    Bound::Excluded(value) => &**v <= value,
                    Bound::Unbounded => false,
                });
                values.get(at).map(|(v, w)| (&**v, *w))
            }
            Values::Large(tree) => tree.range::<[u8], _>((bound, Bound::Unbounded)).next().map(|(v, w)| (&**v, *w)),
        }
    }

    /// The largest value below `value`, and its weight.
    pub fn before(&self, value: &[u8]) -> Option<(&[u8], i64)> {
        match &self.0 {
            Values::Small(values) => {
                let at = values.partition_point(|(v, _)| &**v < value);
                at.checked_sub(1).map(|at| (&*values[at].0, values[at].1))
            }
            Values::Large(tree) => {
                let below = (Bound::Unbounded, Bound::Excluded(value));
                tree.range::<[u8], _>(below).next_back().map(|(v, w)| (&**v, *w))
            }
        }
    }

    /// Values and weights, ascending.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (&[u8], i64)> + '_> {
        match &self.0 {
            Values::Small(values) => Box::new(values.iter().map(|(v, w)| (&**v, *w))),
            Values::Large(tree) => Box::new(tree.iter().map(|(v, w)| (&**v, *w))),
        }
    }

    /// Those from `bound` on, ascending.
    pub fn at_least(&self, bound: &[u8]) -> Box<dyn Iterator<Item = (&[u8], i64)> + '_> {
        match &self.0 {
            Values::Small(values) => {
                let at = values.partition_point(|(value, _)| **value < *bound);
                Box::new(values[at..].iter().map(|(v, w)| (&**v, *w)))
            }
            Values::Large(tree) => {
                let range = (Bound::Included(bound), Bound::Unbounded);
                Box::new(tree.range::<[u8], _>(range).map(|(v, w)| (&**v, *w)))
            }
        }
    }

    /// Those below `bound`, descending.
    pub fn below(&self, bound: &[u8]) -> Box<dyn Iterator<Item = (&[u8], i64)> + '_> {
        match &self.0 {
            Values::Small(values) => {
                let at = values.partition_point(|(value, _)| **value < *bound);
                Box::new(values[..at].iter().rev().map(|(v, w)| (&**v, *w)))
            }
            Values::Large(tree) => {
                let range = (Bound::Unbounded, Bound::Excluded(bound));
                Box::new(tree.range::<[u8], _>(range).rev().map(|(v, w)| (&**v, *w)))
            }
        }
    }

    /// Number of distinct values.
    pub fn len(&self) -> usize {
        match &self.0 {
            Values::Small(values) => values.len(),
            Values::Large(tree) => tree.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that a value of `length` bytes takes, about.
    pub fn value_size(length: usize) -> usize {
        length + size_of::<(Box<[u8]>, i64)>() + 8
    }
}

/// From distinct values in ascending order, none of weight 0.
impl<'a> FromIterator<(&'a [u8], i64)> for Multiset {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], i64)>>(values: I) -> Self {
        let values: Vec<(Box<[u8]>, i64)> = values.into_iter().map(|(value, weight)| (value.into(), weight)).collect();
        if values.len() <= SMALL {
            Multiset(Values::Small(values))
        } else {
            Multiset(Values::Large(values.into_iter().collect()))
        }
    }
}

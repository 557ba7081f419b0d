//! Exact integer sums by dense id.

use arrow::datatypes::i256;
use std::collections::HashMap;

use super::sections::damaged;
use super::{Narrow, StateReader, StateWriter};
use crate::error::Result;

/// Stands where the sum does not fit.
const LARGE: i64 = i64::MIN;

/// Sums of up to 256 bits. Nearly all of them fit 64 or less, and those that do take no more; the others stand in a map.
#[derive(Default)]
pub struct Totals {
    small: Narrow,
    large: HashMap<u32, i256>,
}

impl Totals {
    /// Makes room for ids below `bound`, whose sums are 0.
    pub fn grow(&mut self, bound: usize) {
        self.small.resize(bound);
    }

    /// The sum of `id`.
    #[inline]
    pub fn get(&self, id: u32) -> i256 {
        match self.small.get(id as usize) {
            LARGE => self.large.get(&id).copied().unwrap_or(i256::ZERO),
            small => i256::from_i128(i128::from(small)),
        }
    }

    /// Adds `value` `weight` times. None when a number leaves 256 bits, with nothing changed.
    #[must_use]
    #[inline]
    pub fn add(&mut self, id: usize, value: i128, weight: i64) -> Option<()> {
        let small = self.small.get(id);
        if small != LARGE
            && let Some(term) = i64::try_from(value).ok().and_then(|value| value.checked_mul(weight))
            && let Some(sum) = small.checked_add(term).filter(|sum| *sum != LARGE)
        {
            self.small.set(id, sum);
            return Some(());
        }
        self.add_wide(id, i256::from_i128(value), weight)
    }

    /// The same for values of any width.
    #[must_use]
    pub fn add_wide(&mut self, id: usize, value: i256, weight: i64) -> Option<()> {
        let term = value.checked_mul(i256::from_i128(i128::from(weight)))?;
        let sum = self.get(id as u32).checked_add(term)?;
        let small = sum.to_i128().and_then(|sum| i64::try_from(sum).ok()).filter(|sum| *sum != LARGE);
        self.small.set(id, small.unwrap_or(LARGE));
        match small {
            Some(_) => drop(self.large.remove(&(id as u32))),
            None => drop(self.large.insert(id as u32, sum)),
        }
        Some(())
    }

    /// Whether the sum of `id` is 0.
    pub fn is_zero(&self, id: u32) -> bool {
        self.small.get(id as usize) == 0
    }

    /// The sums of `ids`, in that order.
    pub fn picked(&self, ids: &[u32]) -> Self {
        let large = ids.iter().zip(0..).filter_map(|(old, new)| Some((new, *self.large.get(old)?)));
        Totals { small: self.small.picked(ids), large: large.collect() }
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        self.small.heap_size() + self.large.capacity() * (size_of::<(u32, i256)>() + 1)
    }

    /// Writes all sums.
    pub fn save(&self, out: &mut StateWriter) {
        let mut large: Vec<(&u32, &i256)> = self.large.iter().collect();
        large.sort_unstable_by_key(|(id, _)| **id);
        self.small.save("sums", out);
        out.words("sums.large", large.iter().map(|(id, _)| **id));
        out.words("sums.low", large.iter().map(|(_, sum)| sum.to_parts().0));
        out.words("sums.high", large.iter().map(|(_, sum)| sum.to_parts().1));
    }

    /// What [`Totals::save`] wrote, of ids below `bound`.
    pub fn restore(from: &mut StateReader, bound: usize) -> Result<Self> {
        let small = Narrow::restore("sums", bound, from)?;
        let ids = from.words::<u32>("sums.large")?;
        let low = from.exactly::<u128>("sums.low", ids.len())?;
        let high = from.exactly::<i128>("sums.high", ids.len())?;
        let sums = low.into_iter().zip(high).map(|(low, high)| i256::from_parts(low, high));
        let large: HashMap<u32, i256> = ids.into_iter().zip(sums).collect();
        let named = |id: &u32| (*id as usize) < bound && small.get(*id as usize) == LARGE;
        if large.keys().all(named) && large.len() == small.iter().filter(|sum| *sum == LARGE).count() {
            Ok(Totals { small, large })
        } else {
            Err(damaged("large sums are missing"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn sums_are_those_of_256_bits_small_or_large_and_come_back() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut totals = Totals::default();
        totals.grow(4);
        let mut sums = [i256::ZERO; 4];
        let special = [0, 1, -1, i128::from(i64::MAX), i128::from(i64::MIN), i128::MAX, i128::MIN, 12_345];
        let mut given: Vec<(usize, i128, i64)> = Vec::new();
        for step in 0..4_000 {
            // What was given is taken away again, sooner or later.
            let (id, value, weight) = match rng.random_bool(0.45) && !given.is_empty() {
                true => {
                    let (id, value, weight) = given.swap_remove(rng.random_range(0..given.len()));
                    (id, value, -weight)
                }
                false => {
                    let value = special[rng.random_range(0..special.len())];
                    let new = (rng.random_range(0..4), value, rng.random_range(1..=3));
                    given.push(new);
                    new
                }
            };
            totals.add(id, value, weight).unwrap();
            sums[id] += i256::from_i128(value) * i256::from_i128(i128::from(weight));
            if step % 100 == 0 {
                let mut state = StateWriter::new();
                totals.save(&mut state);
                totals = Totals::restore(&mut StateReader::new(state.finish(), 2), 4).unwrap();
            }
            for id in 0..4 {
                assert_eq!(totals.get(id), sums[id as usize]);
                assert_eq!(totals.is_zero(id), sums[id as usize] == i256::ZERO);
            }
        }
        for (id, value, weight) in given {
            totals.add(id, value, -weight).unwrap();
        }
        assert!((0..4).all(|id| totals.is_zero(id)) && totals.large.is_empty());
        // 2^255 is no number of 256 bits, and nothing has changed.
        assert!(totals.add_wide(0, i256::MAX, 1).is_some() && totals.add(0, 1, 1).is_none());
        assert_eq!(totals.get(0), i256::MAX);
    }
}

//! Integers by dense id, all as wide as the widest one needs.
//!
//! Counts and sums of most groups are small: in a byte or four instead of eight, ten million of them cost a fraction of the memory,
//! and less of it has to be touched when state comes back. They stand in one piece, not in pages: there are several for each group, and every row reads and
//! writes them all.

use super::sections::{damaged, with_headroom};
use super::{StateReader, StateWriter};
use crate::error::Result;

/// A vector of integers of 1, 2, 4 or 8 bytes each.
#[derive(Clone)]
pub struct Narrow(Words);

#[derive(Clone)]
enum Words {
    One(Vec<i8>),
    Two(Vec<i16>),
    Four(Vec<i32>),
    Eight(Vec<i64>),
}

use Words::{Eight, Four, One, Two};

impl Default for Narrow {
    fn default() -> Self {
        Narrow(One(Vec::new()))
    }
}

/// The same expression over whichever vector there is.
macro_rules! each {
    ($words:expr, $vector:ident => $do:expr) => {
        match $words {
            One($vector) => $do,
            Two($vector) => $do,
            Four($vector) => $do,
            Eight($vector) => $do,
        }
    };
}

impl Narrow {
    /// Of integers none of which is negative or above `most`.
    pub fn up_to(most: i64, values: impl ExactSizeIterator<Item = i64>) -> Self {
        debug_assert!(most >= 0);
        Narrow(match most {
            ..0x80 => One(wider(values, |n| n as i8)),
            0x80..0x8000 => Two(wider(values, |n| n as i16)),
            0x8000..0x8000_0000 => Four(wider(values, |n| n as i32)),
            _ => Eight(wider(values, |n| n)),
        })
    }

    /// Number of integers.
    #[inline]
    pub fn len(&self) -> usize {
        each!(&self.0, v => v.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes it so long; new ones are 0.
    pub fn resize(&mut self, length: usize) {
        each!(&mut self.0, v => v.resize(length, 0));
    }

    /// The integer of an id that is there.
    #[inline]
    pub fn get(&self, id: usize) -> i64 {
        match &self.0 {
            One(v) => v[id].into(),
            Two(v) => v[id].into(),
            Four(v) => v[id].into(),
            Eight(v) => v[id],
        }
    }

    /// Replaces it.
    #[inline]
    pub fn set(&mut self, id: usize, value: i64) {
        let fits = match &mut self.0 {
            One(v) => i8::try_from(value).map(|value| v[id] = value).is_ok(),
            Two(v) => i16::try_from(value).map(|value| v[id] = value).is_ok(),
            Four(v) => i32::try_from(value).map(|value| v[id] = value).is_ok(),
            Eight(v) => {
                v[id] = value;
                true
            }
        };
        if !fits {
            self.widen(value);
            self.set(id, value);
        }
    }

    /// Adds to it; what it is then.
    #[inline]
    pub fn add(&mut self, id: usize, value: i64) -> i64 {
        /// Whether it is still as narrow.
        fn put<T: TryFrom<i64>>(place: &mut T, value: i64) -> bool {
            T::try_from(value).map(|value| *place = value).is_ok()
        }
        let (sum, fits) = each!(&mut self.0, v => {
            let place = &mut v[id];
            #[allow(clippy::useless_conversion, reason = "of i64 it is")]
            let sum = i64::from(*place) + value;
            (sum, put(place, sum))
        });
        if !fits {
            self.widen(sum);
            self.set(id, sum);
        }
        sum
    }

    /// Appends one.
    pub fn push(&mut self, value: i64) {
        let length = self.len();
        self.resize(length + 1);
        self.set(length, value);
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = i64> + '_ {
        (0..self.len()).map(|id| self.get(id))
    }

    #[cold]
    fn widen(&mut self, value: i64) {
        let all = self.iter();
        // Twice as wide at least, so that it happens three times at most.
        self.0 = if i16::try_from(value).is_ok() && matches!(self.0, One(_)) {
            Two(wider(all, |n| n as i16))
        } else if i32::try_from(value).is_ok() && matches!(self.0, One(_) | Two(_)) {
            Four(wider(all, |n| n as i32))
        } else {
            Eight(wider(all, |n| n))
        };
    }

    /// Those of `ids`, in that order.
    pub fn picked(&self, ids: &[u32]) -> Self {
        fn of<T: Copy>(all: &[T], ids: &[u32]) -> Vec<T> {
            ids.iter().map(|id| all[*id as usize]).collect()
        }
        Narrow(match &self.0 {
            One(v) => One(of(v, ids)),
            Two(v) => Two(of(v, ids)),
            Four(v) => Four(of(v, ids)),
            Eight(v) => Eight(of(v, ids)),
        })
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        each!(&self.0, v => size_of_val(v.as_slice()) / v.len().max(1) * v.capacity())
    }

    /// Writes all of them as one section.
    pub fn save(&self, name: &str, out: &mut StateWriter) {
        each!(&self.0, v => out.slices(name, [v.as_slice()]));
    }

    /// What [`Narrow::save`] wrote.
    pub fn load(name: &str, from: &mut StateReader) -> Result<Self> {
        Ok(Narrow(match from.width() {
            1 => One(from.words(name)?),
            2 => Two(from.words(name)?),
            4 => Four(from.words(name)?),
            _ => Eight(from.words(name)?),
        }))
    }

    /// The same: exactly so many.
    pub fn restore(name: &str, count: usize, from: &mut StateReader) -> Result<Self> {
        let all = Self::load(name, from)?;
        if all.len() == count { Ok(all) } else { Err(damaged(&format!("`{name}` has another length"))) }
    }
}

/// The values are known to fit.
fn wider<T>(all: impl Iterator<Item = i64>, as_wide: impl Fn(i64) -> T) -> Vec<T> {
    let mut wide = Vec::with_capacity(with_headroom(all.size_hint().0));
    wide.extend(all.map(as_wide));
    wide
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn every_integer_is_kept_whatever_the_others_are() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for limit in [100, 30_000, i64::from(i32::MAX) - 5, i64::MAX / 4] {
            let (mut narrow, mut plain) = (Narrow::default(), Vec::new());
            for _ in 0..500 {
                let value = rng.random_range(-limit..=limit);
                narrow.push(value);
                plain.push(value);
                let (id, change) = (rng.random_range(0..plain.len()), rng.random_range(-limit / 8..=limit / 8));
                narrow.add(id, change);
                plain[id] += change;
            }
            narrow.set(7, i64::MIN);
            plain[7] = i64::MIN;
            assert!(narrow.iter().eq(plain.iter().copied()));
            let mut state = StateWriter::new();
            narrow.save("n", &mut state);
            let restored = Narrow::restore("n", 500, &mut StateReader::new(state.finish(), 1)).unwrap();
            assert!(restored.iter().eq(plain) && restored.len() == 500);
        }
    }

    #[test]
    fn small_ones_take_a_byte() {
        let wide = Narrow::up_to(i64::MAX, (0..1_000i32).map(i64::from)).heap_size();
        let narrow = Narrow::up_to(99, (0..1_000i32).map(|i| i64::from(i % 100)));
        assert!(narrow.heap_size() + 1_000 * 7 <= wide, "{} of {wide}", narrow.heap_size());
        let narrow = Narrow::up_to(39_960, (0..1_000i32).map(|i| i64::from(i * 40)));
        assert!(narrow.iter().eq((0..1_000).map(|i| i * 40)));
        assert!(narrow.heap_size() + 1_000 * 4 <= wide, "{} of {wide}", narrow.heap_size());
    }
}

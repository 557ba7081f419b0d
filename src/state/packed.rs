//! A few values with their weights, one behind the other in one allocation.
//!
//! ```text
//! number of values             a byte
//! of each value, ascending:
//!   its length                 7 bits a byte, the lowest first; the eighth says that another follows
//!   its weight                 the same, sign in the lowest bit
//!   its bytes
//! ```

use super::Presence;

/// Values in ascending order, at most 255. Nothing is allocated for none.
#[derive(Default)]
pub(super) struct Packed(Vec<u8>);

/// One value where it stands.
struct Entry<'a> {
    value: &'a [u8],
    weight: i64,
    /// Where it begins, and its value does.
    start: usize,
    value_start: usize,
}

impl Packed {
    /// Of values in ascending order.
    pub fn of<'a>(values: impl Iterator<Item = (&'a [u8], i64)> + Clone) -> Self {
        let size: usize = values.clone().map(|(value, weight)| size(value, weight)).sum();
        if size == 0 {
            return Packed::default();
        }
        let mut bytes = Vec::with_capacity(1 + size);
        bytes.push(0);
        for (value, weight) in values {
            bytes[0] += 1;
            put(&mut bytes, value.len() as u64);
            put(&mut bytes, folded(weight));
            bytes.extend_from_slice(value);
        }
        Packed(bytes)
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut at = usize::from(!self.0.is_empty());
        std::iter::from_fn(move || {
            if at == self.0.len() {
                return None;
            }
            let start = at;
            let length = take(&self.0, &mut at) as usize;
            let weight = take(&self.0, &mut at);
            let value_start = at;
            at += length;
            // Weights are signed.
            let weight = (weight >> 1) as i64 ^ -((weight & 1) as i64);
            Some(Entry { value: &self.0[value_start..at], weight, start, value_start })
        })
    }

    /// Values and weights, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], i64)> {
        self.entries().map(|entry| (entry.value, entry.weight))
    }

    /// Those from `bound` on, ascending.
    pub fn at_least<'a>(&'a self, bound: &[u8]) -> impl Iterator<Item = (&'a [u8], i64)> + use<'a> {
        let before = self.iter().take_while(|(value, _)| *value < bound).count();
        self.iter().skip(before)
    }

    /// Those below `bound`, or all, descending.
    pub fn below<'a>(&'a self, bound: Option<&[u8]>) -> impl Iterator<Item = (&'a [u8], i64)> + use<'a> {
        let below = |(value, _): &(&[u8], i64)| bound.is_none_or(|bound| *value < bound);
        self.iter().take_while(below).collect::<Vec<_>>().into_iter().rev()
    }

    /// Adds `weight` to the weight of `value`.
    pub fn add(&mut self, value: &[u8], weight: i64) -> Presence {
        if weight == 0 {
            let entry = self.entries().find(|entry| entry.value == value);
            return Presence::Stays(entry.map_or(0, |entry| entry.weight));
        }
        let found = self.entries().find(|entry| entry.value >= value);
        let (start, behind, sum, presence) = match found {
            Some(entry) if entry.value == value => {
                let sum = entry.weight + weight;
                let presence = if sum == 0 { Presence::Vanished } else { Presence::Stays(sum) };
                (entry.start, entry.value_start + value.len(), sum, presence)
            }
            Some(entry) => (entry.start, entry.start, weight, Presence::Appeared),
            None => (self.0.len().max(1), self.0.len().max(1), weight, Presence::Appeared),
        };
        let new = if sum == 0 { 0 } else { size(value, sum) };
        self.make_place(start, behind, new);
        if sum != 0 {
            let mut at = start;
            set(&mut self.0, &mut at, value.len() as u64);
            set(&mut self.0, &mut at, folded(sum));
            self.0[at..at + value.len()].copy_from_slice(value);
        }
        match presence {
            Presence::Appeared => self.0[0] += 1,
            Presence::Vanished => {
                self.0[0] -= 1;
                if self.0[0] == 0 {
                    self.0 = Vec::new();
                } else if self.0.capacity() > 2 * self.0.len() {
                    self.0.shrink_to_fit();
                }
            }
            Presence::Stays(_) => {}
        }
        presence
    }

    /// Makes the bytes from `start` to `behind` `new` ones.
    fn make_place(&mut self, start: usize, behind: usize, new: usize) {
        let (bytes, old) = (&mut self.0, behind - start);
        if bytes.is_empty() {
            // No room for more until there is more: many sets have one value.
            bytes.reserve_exact(1 + new);
            bytes.push(0);
        }
        let length = bytes.len();
        if new > old {
            // What allocators round up to, about.
            let more = new - old;
            if bytes.capacity() < length + more {
                bytes.reserve_exact(more.max(length / 8));
            }
            bytes.resize(length + more, 0);
            bytes.copy_within(behind..length, start + new);
        } else if new < old {
            bytes.copy_within(behind.., start + new);
            bytes.truncate(length - (old - new));
        }
    }

    pub fn len(&self) -> usize {
        self.0.first().copied().unwrap_or(0).into()
    }

    /// Bytes of all values and weights.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        self.0.capacity()
    }
}

/// A weight without its sign in the way.
fn folded(weight: i64) -> u64 {
    ((weight << 1) ^ (weight >> 63)) as u64
}

/// Bytes that a number takes.
fn width(number: u64) -> usize {
    ((64 - (number | 1).leading_zeros()) as usize).div_ceil(7)
}

fn size(value: &[u8], weight: i64) -> usize {
    width(value.len() as u64) + width(folded(weight)) + value.len()
}

fn put(bytes: &mut Vec<u8>, number: u64) {
    let mut at = bytes.len();
    bytes.resize(at + width(number), 0);
    set(bytes, &mut at, number);
}

#[inline]
fn set(bytes: &mut [u8], at: &mut usize, mut number: u64) {
    while number >= 0x80 {
        bytes[*at] = number as u8 | 0x80;
        number >>= 7;
        *at += 1;
    }
    bytes[*at] = number as u8;
    *at += 1;
}

#[inline]
fn take(bytes: &[u8], at: &mut usize) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeMap;

    #[test]
    fn values_of_any_length_and_weight_stand_in_order() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let (mut packed, mut model) = (Packed::default(), BTreeMap::<Vec<u8>, i64>::new());
        for _ in 0..5_000 {
            let length = [0, 1, 9, 127, 128, 300][rng.random_range(0..6)];
            let value = vec![rng.random_range(0..3u8); length];
            let weight = match model.get(&value) {
                Some(weight) if rng.random_bool(0.5) => -weight,
                _ => [1, -1, 63, 64, -65, 1 << 40, i64::MIN / 4][rng.random_range(0..7)],
            };
            let sum = model.entry(value.clone()).or_default();
            let was = std::mem::replace(sum, *sum + weight);
            let expected = match (was, *sum) {
                (0, _) => Presence::Appeared,
                (_, 0) => Presence::Vanished,
                (_, sum) => Presence::Stays(sum),
            };
            model.retain(|_, weight| *weight != 0);
            assert_eq!(packed.add(&value, weight), expected);
            let all: Vec<(&[u8], i64)> = model.iter().map(|(value, weight)| (&value[..], *weight)).collect();
            assert!(packed.iter().eq(all.iter().copied()));
            assert_eq!((packed.len(), packed.bytes() == 0), (all.len(), all.is_empty()));
            assert_eq!(Packed::of(all.iter().copied()).0, packed.0);
            let at = all.partition_point(|(other, _)| *other < &value[..]);
            assert!(packed.at_least(&value).eq(all[at..].iter().copied()));
            assert!(packed.below(Some(&value)).eq(all[..at].iter().rev().copied()));
            assert!(packed.below(None).eq(all.iter().rev().copied()));
        }
    }
}

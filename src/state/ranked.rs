//! Where a rank stands in an ordered multiset.

use super::Multiset;

/// Remembers the value at the rank that was asked for last, and how many stand before it. A change moves that by as much as it changes, so
/// the next value asked for near it is found in a step or two, however many values there are.
#[derive(Default)]
pub struct Rank {
    at: Option<(Box<[u8]>, i64)>,
    /// Whether a value counts once, whatever its weight.
    distinct: bool,
}

impl Rank {
    /// Nothing asked for yet. With `distinct` every value counts once.
    pub fn new(distinct: bool) -> Self {
        Rank { at: None, distinct }
    }

    /// `value` counts by `weight` more, or less; with `distinct`, it has come or gone.
    pub fn shift(&mut self, value: &[u8], weight: i64) {
        if let Some((at, before)) = &mut self.at
            && value < &**at
        {
            *before += weight;
        }
    }

    /// The value at `rank`, counted from 0, of `values`, after all their changes were [`Rank::shift`]ed.
    pub fn find<'a>(&mut self, values: &'a Multiset, rank: i64) -> Option<&'a [u8]> {
        let counted = |weight: i64| if self.distinct { 1 } else { weight };
        let (mut value, mut weight, mut before) = match &self.at {
            Some((at, before)) => match values.at_or_after(at) {
                Some((value, weight)) => (value, counted(weight), *before),
                None => {
                    let (value, weight) = values.before(at)?;
                    (value, counted(weight), *before - counted(weight))
                }
            },
            None => {
                let (value, weight) = values.at_or_after(&[])?;
                (value, counted(weight), 0)
            }
        };
        while rank < before {
            let (previous, its) = values.before(value)?;
            (value, weight) = (previous, counted(its));
            before -= weight;
        }
        while rank >= before + weight {
            before += weight;
            let (next, its) = values.after(value)?;
            (value, weight) = (next, counted(its));
        }
        match &mut self.at {
            Some((at, known)) if **at == *value => *known = before,
            place => *place = Some((value.into(), before)),
        }
        Some(value)
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        self.at.as_ref().map_or(0, |(at, _)| at.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn ranks_are_those_of_the_sorted_values() {
        for seed in 0..40 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let distinct = seed % 2 == 0;
            let (mut values, mut rank) = (Multiset::default(), Rank::new(distinct));
            let mut plain: Vec<u8> = Vec::new();
            for _ in 0..400 {
                // Of few values, and of many.
                let value = rng.random_range(0..if seed % 3 == 0 { 10 } else { 200 });
                let there = plain.iter().filter(|v| **v == value).count() as i64;
                let gone = rng.random_bool(0.45) && there > 0;
                let weight = if gone { -rng.random_range(1..=there) } else { rng.random_range(1..3) };
                values.add(&[value], weight);
                if gone {
                    for _ in weight..0 {
                        plain.remove(plain.iter().position(|v| *v == value).unwrap());
                    }
                } else {
                    plain.extend(std::iter::repeat_n(value, weight as usize));
                }
                match (distinct, there == 0, there + weight == 0) {
                    (false, ..) => rank.shift(&[value], weight),
                    (true, true, false) => rank.shift(&[value], 1),
                    (true, false, true) => rank.shift(&[value], -1),
                    _ => {}
                }
                plain.sort_unstable();
                let mut sorted = plain.clone();
                if distinct {
                    sorted.dedup();
                }
                if rng.random_bool(0.6) {
                    let at = rng.random_range(0..sorted.len() + 1);
                    assert_eq!(
                        rank.find(&values, at as i64).map(|v| v[0]),
                        sorted.get(at).copied(),
                        "{sorted:?} at {at}"
                    );
                }
            }
        }
    }
}

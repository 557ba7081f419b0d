//! Exact shares. A share is a quota, never a draw: of 5000 events with 10 % in another spelling exactly 500 are,
//! whatever the seed. [`apportion`] decides how many, [`Urn`] decides which, in constant memory.

use rand::Rng;

/// Splits `total` in proportion to `weights` by the largest-remainder method; ties go to the first.
pub fn apportion(total: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights.iter().map(|w| u128::from(*w)).sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    let exact = |w: &u64| u128::from(total) * u128::from(*w);
    let mut parts: Vec<u64> = weights.iter().map(|w| (exact(w) / sum) as u64).collect();
    let missing = total - parts.iter().sum::<u64>();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|i| std::cmp::Reverse(exact(&weights[*i]) % sum));
    for i in by_remainder.into_iter().take(missing as usize) {
        parts[i] += 1;
    }
    parts
}

/// Balls of several kinds, drawn one by one without putting back: the order is random, the counts are exact.
#[derive(Debug, Clone)]
pub struct Urn {
    left: Vec<u64>,
    total: u64,
}

impl Urn {
    /// An urn with `counts[k]` balls of kind `k`.
    pub fn new(counts: Vec<u64>) -> Self {
        let total = counts.iter().sum();
        Urn { left: counts, total }
    }

    /// An urn of `total` balls whose kinds have the proportions of `weights`.
    pub fn of_shares(total: u64, weights: &[u64]) -> Self {
        Self::new(apportion(total, weights))
    }

    /// The kind of the next ball; kind 0 once the urn is empty.
    pub fn draw(&mut self, rng: &mut impl Rng) -> usize {
        if self.total == 0 {
            return 0;
        }
        let mut ball = rng.random_range(0..self.total);
        for (kind, left) in self.left.iter_mut().enumerate() {
            if ball < *left {
                *left -= 1;
                self.total -= 1;
                return kind;
            }
            ball -= *left;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn parts_add_up_and_ties_go_to_the_first() {
        assert_eq!(apportion(30, &[65, 35]), [20, 10]);
        assert_eq!(apportion(5000, &[65, 35]), [3250, 1750]);
        assert_eq!(apportion(50, &[65, 35]), [33, 17]);
        assert_eq!(apportion(250, &[1, 1, 1]), [84, 83, 83]);
        assert_eq!(apportion(0, &[1, 2]), [0, 0]);
        assert_eq!(apportion(7, &[0, 0]), [0, 0]);
    }

    #[test]
    fn an_urn_gives_exactly_what_is_in_it() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut urn = Urn::new(vec![700, 0, 250, 50]);
        let mut seen = [0; 4];
        for _ in 0..1000 {
            seen[urn.draw(&mut rng)] += 1;
        }
        assert_eq!(seen, [700, 0, 250, 50]);
        assert_eq!(urn.draw(&mut rng), 0, "an empty urn gives kind 0");
    }
}

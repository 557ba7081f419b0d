//! Exact sums of floats: add and subtract in any order, round once.
//!
//! A superaccumulator (Kulisch; "xsum", R. Neal, "Fast exact summation using small and large superaccumulators", 2015):
//! the sum is a fixed-point number with 32-bit digits from 2^-1074 upwards, kept in `i64`s so that carries are rare, and only the window
//! of digits that is in use is stored. Retracting what was added gives exactly the former sum.

/// Weight of the lowest bit of digit 0.
const LOWEST_EXPONENT: i32 = -1074;
const DIGIT_BITS: u32 = 32;
/// Additions after which carries are propagated: each adds less than 2^32 × weight chunk to a digit.
const CARRY_EVERY: u32 = 1 << 28;

/// The exact sum of weighted floats. NaN and infinities are counted apart.
#[derive(Debug, Clone, Default)]
pub struct ExactSum {
    /// Index of `digits[0]`.
    base: usize,
    digits: Vec<i64>,
    pending: u32,
    nan: i64,
    positive_infinity: i64,
    negative_infinity: i64,
}

impl ExactSum {
    /// Zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `x` `weight` times; a negative weight takes it away.
    pub fn add(&mut self, x: f64, weight: i64) {
        if x.is_nan() {
            self.nan += weight;
            return;
        }
        if x.is_infinite() {
            if x > 0.0 {
                self.positive_infinity += weight;
            } else {
                self.negative_infinity += weight;
            }
            return;
        }
        if x == 0.0 || weight == 0 {
            return;
        }
        let bits = x.to_bits();
        let biased = ((bits >> 52) & 0x7ff) as i32;
        let fraction = bits & ((1 << 52) - 1);
        // Value = mantissa × 2^(LOWEST_EXPONENT + shift).
        let (mantissa, shift) = if biased == 0 { (fraction, 0) } else { (fraction | (1 << 52), biased - 1) };
        let negative = (bits >> 63) == 1;
        let mut scaled = i128::from(mantissa) * i128::from(weight);
        if negative {
            scaled = -scaled;
        }
        self.add_scaled(scaled, shift as u32);
    }

    fn add_scaled(&mut self, scaled: i128, shift: u32) {
        let (digit, bit) = ((shift / DIGIT_BITS) as usize, shift % DIGIT_BITS);
        let negative = scaled < 0;
        // Up to 117 bits of product and 31 of shift: split the magnitude before shifting.
        let mut magnitude = scaled.unsigned_abs();
        let mut index = digit;
        // The lowest partial digit.
        let low = (magnitude << bit) & u128::from(u32::MAX);
        self.add_digit(index, low as i64, negative);
        magnitude >>= DIGIT_BITS - bit;
        while magnitude != 0 {
            index += 1;
            self.add_digit(index, (magnitude & u128::from(u32::MAX)) as i64, negative);
            magnitude >>= DIGIT_BITS;
        }
        self.pending += 1;
        if self.pending >= CARRY_EVERY {
            self.carry();
        }
    }

    fn add_digit(&mut self, index: usize, value: i64, negative: bool) {
        if value == 0 {
            return;
        }
        if self.digits.is_empty() {
            self.base = index;
        }
        if index < self.base {
            let grow = self.base - index;
            self.digits.splice(0..0, std::iter::repeat_n(0, grow));
            self.base = index;
        }
        let at = index - self.base;
        if at >= self.digits.len() {
            self.digits.resize(at + 1, 0);
        }
        self.digits[at] += if negative { -value } else { value };
    }

    /// Brings every digit but the last into 0..2^32 and drops zeros at the ends.
    fn carry(&mut self) {
        self.pending = 0;
        let mut carry = 0i64;
        for digit in &mut self.digits {
            let value = *digit + carry;
            *digit = value & i64::from(u32::MAX);
            carry = value >> DIGIT_BITS;
        }
        while carry != 0 && carry != -1 {
            self.digits.push(carry & i64::from(u32::MAX));
            carry >>= DIGIT_BITS;
        }
        if carry == -1 {
            // A negative sum: the last digit carries the sign.
            match self.digits.last_mut() {
                Some(last) => *last -= 1 << DIGIT_BITS,
                None => self.digits.push(-1),
            }
        }
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        let zeros = self.digits.iter().take_while(|d| **d == 0).count();
        self.digits.drain(..zeros);
        self.base += zeros;
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &ExactSum) {
        let mut other = other.clone();
        other.carry();
        self.carry();
        self.nan += other.nan;
        self.positive_infinity += other.positive_infinity;
        self.negative_infinity += other.negative_infinity;
        for (at, digit) in other.digits.iter().enumerate() {
            self.add_digit(other.base + at, digit.abs(), *digit < 0);
        }
        self.pending += 2;
    }

    /// The sum, rounded to nearest, ties to even. NaN, or infinities of both signs, give NaN.
    pub fn value(&self) -> f64 {
        if self.nan != 0 || (self.positive_infinity != 0 && self.negative_infinity != 0) {
            return f64::NAN;
        }
        if self.positive_infinity != 0 {
            return f64::INFINITY;
        }
        if self.negative_infinity != 0 {
            return f64::NEG_INFINITY;
        }
        let mut sum = self.clone();
        sum.carry();
        let negative = sum.digits.last().is_some_and(|d| *d < 0);
        if negative {
            sum.digits.iter_mut().for_each(|d| *d = -*d);
            sum.carry();
        }
        let magnitude = sum.round();
        if negative { -magnitude } else { magnitude }
    }

    /// Rounds a non-negative, carried sum.
    fn round(&self) -> f64 {
        let Some(top) = self.digits.last().filter(|d| **d > 0) else { return 0.0 };
        let top_bit =
            (self.base + self.digits.len() - 1) as i64 * i64::from(DIGIT_BITS) + i64::from(63 - top.leading_zeros());
        // Bits [low, top_bit] are kept: 53 of them, or down to the lowest bit of subnormals.
        let low = (top_bit - 52).max(0);
        let bit = |position: i64| -> u64 {
            let index = position / i64::from(DIGIT_BITS);
            let Ok(at) = usize::try_from(index - self.base as i64) else { return 0 };
            self.digits.get(at).map_or(0, |d| (*d as u64 >> (position % i64::from(DIGIT_BITS))) & 1)
        };
        let mut mantissa = 0u64;
        for position in (low..=top_bit).rev() {
            mantissa = (mantissa << 1) | bit(position);
        }
        if low > 0 && bit(low - 1) == 1 {
            let below = (self.base as i64 * i64::from(DIGIT_BITS)..low - 1).any(|p| bit(p) == 1);
            if below || mantissa & 1 == 1 {
                mantissa += 1;
            }
        }
        let exponent = i64::from(LOWEST_EXPONENT) + low;
        // Two exact steps: 2^exponent may itself be subnormal or overflow.
        let half = exponent / 2;
        mantissa as f64 * power_of_two(half) * power_of_two(exponent - half)
    }

    /// The sum divided by `count`, each rounded once.
    pub fn avg(&self, count: i64) -> f64 {
        self.value() / count as f64
    }

    /// Bytes allocated.
    pub fn size(&self) -> usize {
        std::mem::size_of::<Self>() + self.digits.capacity() * 8
    }
}

fn power_of_two(exponent: i64) -> f64 {
    // |exponent| ≤ 1074 / 2 + 1024: always a normal number.
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    #[test]
    fn sums_that_floats_lose() {
        let mut sum = ExactSum::new();
        for x in [1e16, 1.0, -1e16] {
            sum.add(x, 1);
        }
        assert_eq!(sum.value(), 1.0);
        sum.add(1.0, -1);
        assert_eq!(sum.value(), 0.0);
    }

    #[test]
    fn small_sums_equal_integers() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        let mut sum = ExactSum::new();
        let mut expected: i128 = 0;
        let mut added = Vec::new();
        for _ in 0..20_000 {
            let x: i64 = rng.random_range(-(1 << 50)..(1 << 50));
            let weight = rng.random_range(-3..=3);
            sum.add(x as f64 / 1024.0, weight);
            expected += i128::from(x) * i128::from(weight);
            added.push((x, weight));
            assert_eq!(sum.value(), expected as f64 / 1024.0, "{expected}");
        }
        for (x, weight) in added {
            sum.add(x as f64 / 1024.0, -weight);
        }
        assert_eq!(sum.value(), 0.0);
    }

    #[test]
    fn extremes_round_trip_alone() {
        for x in [f64::MAX, f64::MIN_POSITIVE, 5e-324, -5e-324, 1.5e-310, -1.0, 0.1, -f64::MAX, 3.3e300] {
            let mut sum = ExactSum::new();
            sum.add(x, 1);
            assert_eq!(sum.value(), x);
            sum.add(x, 4);
            sum.add(x, -4);
            assert_eq!(sum.value(), x);
        }
    }

    #[test]
    fn overflow_is_infinite_and_specials_are_counted() {
        let mut sum = ExactSum::new();
        sum.add(f64::MAX, 2);
        assert_eq!(sum.value(), f64::INFINITY);
        sum.add(f64::MAX, -1);
        assert_eq!(sum.value(), f64::MAX);
        sum.add(f64::NAN, 1);
        assert!(sum.value().is_nan());
        sum.add(f64::NAN, -1);
        sum.add(f64::NEG_INFINITY, 1);
        assert_eq!(sum.value(), f64::NEG_INFINITY);
    }

    #[test]
    fn merging_is_adding() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(8);
        for _ in 0..200 {
            let (mut a, mut b, mut both) = (ExactSum::new(), ExactSum::new(), ExactSum::new());
            for _ in 0..50 {
                let x = f64::from_bits(rng.random::<u64>());
                let x = if x.is_finite() { x } else { 1.0 };
                if rng.random() { a.add(x, 1) } else { b.add(x, 1) }
                both.add(x, 1);
            }
            a.merge(&b);
            assert_eq!(a.value().to_bits(), both.value().to_bits());
        }
    }

    #[test]
    fn two_terms_round_like_the_hardware() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(9);
        for _ in 0..100_000 {
            let (x, y) = (f64::from_bits(rng.random::<u64>()), f64::from_bits(rng.random::<u64>()));
            if !x.is_finite() || !y.is_finite() {
                continue;
            }
            let mut sum = ExactSum::new();
            sum.add(x, 1);
            sum.add(y, 1);
            assert_eq!(sum.value(), x + y, "{x:e} + {y:e}");
        }
    }
}

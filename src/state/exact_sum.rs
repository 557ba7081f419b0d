//! A sum of doubles without any rounding until it is read.
//!
//! Doubles are integers in units of 2⁻¹⁰⁷⁴, the smallest of them; the sum is one big signed integer, of which only the limbs
//! between the smallest and the largest addend are kept (three or four for data of similar size). So adding is associative and
//! commutative, and subtracting what was added leaves exactly nothing: the value depends on the multiset of addends alone,
//! which is what lets a running sum equal a recomputed one bit for bit.
//!
//! NaN and the infinities are counted beside it, so that they can be taken away again.

/// Exact sum of doubles with integer weights; its value is rounded once, to nearest, ties to even.
#[derive(Debug, Clone, Default)]
pub struct ExactSum {
    /// Little-endian, base 2³², each with its own sign and with room for carries: the sum is Σ limbs[i] · 2^(32·(first + i)) units.
    limbs: Vec<i64>,
    first: usize,
    /// Additions since carries were last resolved; each adds less than 2³³ to a limb.
    pending: u32,
    nan: i64,
    infinite: i64,
    negative_infinite: i64,
}

/// A unit is 2^-UNIT, the smallest double.
const UNIT: usize = 1074;

/// Additions after which carries must be resolved: limbs stay below 2²⁹ · 2³³ = 2⁶².
const MAX_PENDING: u32 = 1 << 29;

impl ExactSum {
    /// The empty sum.
    pub const EMPTY: ExactSum =
        ExactSum { limbs: Vec::new(), first: 0, pending: 0, nan: 0, infinite: 0, negative_infinite: 0 };

    /// The empty sum.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `value` `weight` times; a negative weight takes it away.
    pub fn add(&mut self, value: f64, weight: i64) {
        let bits = value.to_bits();
        let exponent = (bits >> 52) as usize & 0x7ff;
        if exponent == 0x7ff {
            let count = match (value.is_nan(), value > 0.0) {
                (true, _) => &mut self.nan,
                (false, true) => &mut self.infinite,
                (false, false) => &mut self.negative_infinite,
            };
            *count += weight;
            return;
        }
        let (mantissa, shift) = parts(value);
        self.add_units(mantissa, shift, value.is_sign_negative() != (weight < 0), weight.unsigned_abs());
    }

    /// Adds `a · b` `weight` times, unrounded. What lies below the smallest double is cut off, product by product, so the value
    /// still depends on the multiset of products alone.
    pub fn add_product(&mut self, a: f64, b: f64, weight: i64) {
        if !a.is_finite() || !b.is_finite() {
            return self.add(a * b, weight);
        }
        let ((left, left_shift), (right, right_shift)) = (parts(a), parts(b));
        let mut product = u128::from(left) * u128::from(right);
        let mut shift = left_shift + right_shift;
        if shift < UNIT {
            product = product.checked_shr((UNIT - shift) as u32).unwrap_or(0);
            shift = UNIT;
        }
        let negative = (a.is_sign_negative() != b.is_sign_negative()) != (weight < 0);
        let low = (product & ((1 << 53) - 1)) as u64;
        self.add_units(low, shift - UNIT, negative, weight.unsigned_abs());
        self.add_units((product >> 53) as u64, shift - UNIT + 53, negative, weight.unsigned_abs());
    }

    /// Adds ± mantissa · weight · 2^shift units.
    fn add_units(&mut self, mantissa: u64, shift: usize, negative: bool, weight: u64) {
        if mantissa == 0 || weight == 0 {
            return;
        }
        // 53 + 64 bits at most.
        let mut product = u128::from(mantissa) * u128::from(weight);
        let (mut limb, bit) = (shift / 32, shift % 32);
        self.cover(limb, limb + (160 - product.leading_zeros() as usize) / 32 + 1);
        self.count_addition();
        while product != 0 {
            // 32 + 31 bits.
            let part = (product as u32 as u64) << bit;
            let (low, high) = ((part & 0xffff_ffff) as i64, (part >> 32) as i64);
            let at = limb - self.first;
            self.limbs[at] += if negative { -low } else { low };
            self.limbs[at + 1] += if negative { -high } else { high };
            product >>= 32;
            limb += 1;
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &ExactSum) {
        self.nan += other.nan;
        self.infinite += other.infinite;
        self.negative_infinite += other.negative_infinite;
        if other.limbs.is_empty() {
            return;
        }
        let mut other = std::borrow::Cow::Borrowed(other);
        if self.pending.saturating_add(other.pending) >= MAX_PENDING - 1 {
            self.resolve();
            other.to_mut().resolve();
        }
        if other.limbs.is_empty() {
            return;
        }
        self.cover(other.first, other.first + other.limbs.len());
        for (i, limb) in other.limbs.iter().enumerate() {
            self.limbs[other.first - self.first + i] += limb;
        }
        self.pending = self.pending.saturating_add(other.pending);
    }

    /// The sum, rounded to the nearest double. −0.0 is never returned.
    pub fn value(&self) -> f64 {
        if self.nan != 0 || (self.infinite != 0 && self.negative_infinite != 0) {
            return f64::NAN;
        }
        if self.infinite != 0 {
            return f64::INFINITY;
        }
        if self.negative_infinite != 0 {
            return f64::NEG_INFINITY;
        }
        let (negative, digits) = self.magnitude();
        let magnitude = round(&digits, self.first);
        if negative && magnitude != 0.0 { -magnitude } else { magnitude }
    }

    /// Whether nothing is left: every addend was taken away again.
    pub fn is_zero(&self) -> bool {
        self.nan == 0
            && self.infinite == 0
            && self.negative_infinite == 0
            && self.magnitude().1.iter().all(|digit| *digit == 0)
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        self.limbs.capacity() * size_of::<i64>()
    }

    /// Appends a canonical form: equal sums give equal bytes.
    pub fn write_bytes(&self, out: &mut Vec<u8>) {
        let (negative, digits) = self.magnitude();
        let zeros = digits.iter().take_while(|d| **d == 0).count();
        let end = digits.iter().rposition(|d| *d != 0).map_or(zeros, |i| i + 1);
        let digits = &digits[zeros.min(end)..end];
        for count in [self.nan, self.infinite, self.negative_infinite] {
            out.extend(count.to_le_bytes());
        }
        out.push(u8::from(negative && !digits.is_empty()));
        let first = if digits.is_empty() { 0 } else { self.first + zeros };
        out.extend((first as u16).to_le_bytes());
        digits.iter().for_each(|digit| out.extend(digit.to_le_bytes()));
    }

    /// The inverse of [`ExactSum::write_bytes`]; None when `bytes` are not one sum.
    pub fn from_bytes(bytes: &[u8]) -> Option<ExactSum> {
        let (counts, rest) = bytes.split_at_checked(24)?;
        let (head, digits) = rest.split_at_checked(3)?;
        let mut counts = counts.chunks_exact(8).map(|c| c.try_into().map(i64::from_le_bytes));
        let mut next = || counts.next()?.ok();
        let (nan, infinite, negative_infinite) = (next()?, next()?, next()?);
        let sign = match head[0] {
            0 => 1,
            1 => -1,
            _ => return None,
        };
        let first = usize::from(u16::from_le_bytes([head[1], head[2]]));
        if digits.len() % 4 != 0 {
            return None;
        }
        let limbs: Vec<i64> =
            digits.chunks_exact(4).map(|d| sign * i64::from(u32::from_le_bytes([d[0], d[1], d[2], d[3]]))).collect();
        Some(ExactSum { limbs, first, pending: 1, nan, infinite, negative_infinite })
    }

    /// Makes room for limbs `from..to`.
    fn cover(&mut self, from: usize, to: usize) {
        if self.limbs.is_empty() {
            self.first = from;
        }
        if from < self.first {
            let missing = self.first - from;
            self.limbs.splice(0..0, std::iter::repeat_n(0, missing));
            self.first = from;
        }
        if to > self.first + self.limbs.len() {
            self.limbs.resize(to - self.first, 0);
        }
    }

    fn count_addition(&mut self) {
        self.pending += 1;
        if self.pending >= MAX_PENDING {
            let (first, end) = (self.first, self.first + self.limbs.len());
            self.resolve();
            self.cover(first, end);
        }
    }

    /// Moves carries up, and drops limbs at both ends that hold nothing.
    fn resolve(&mut self) {
        let (negative, digits) = self.magnitude();
        let sign = if negative { -1 } else { 1 };
        let zeros = digits.iter().take_while(|d| **d == 0).count();
        let end = digits.iter().rposition(|d| *d != 0).map_or(zeros, |i| i + 1);
        self.limbs = digits[zeros.min(end)..end].iter().map(|digit| sign * i64::from(*digit)).collect();
        self.first += zeros;
        self.pending = 1;
    }

    /// Sign, and base-2³² digits from limb `first` up.
    fn magnitude(&self) -> (bool, Vec<u32>) {
        let mut digits = Vec::with_capacity(self.limbs.len() + 2);
        let mut carry = 0i128;
        for limb in &self.limbs {
            let value = i128::from(*limb) + carry;
            digits.push(value as u32);
            carry = value >> 32;
        }
        while carry != 0 && carry != -1 {
            digits.push(carry as u32);
            carry >>= 32;
        }
        let negative = carry == -1;
        if negative {
            // Two's complement.
            let mut one = true;
            for digit in &mut digits {
                let (flipped, overflow) = (!*digit).overflowing_add(u32::from(one));
                (*digit, one) = (flipped, overflow);
            }
            // −2^(32·n) has only zero digits below.
            if one {
                digits.push(1);
            }
        }
        (negative, digits)
    }
}

/// Mantissa and the power of two of its units.
fn parts(value: f64) -> (u64, usize) {
    let bits = value.to_bits();
    let exponent = (bits >> 52) as usize & 0x7ff;
    let fraction = bits & ((1 << 52) - 1);
    (if exponent == 0 { fraction } else { fraction | 1 << 52 }, exponent.max(1) - 1)
}

/// The double nearest to Σ digits[i] · 2^(32·(first + i)) units of 2⁻¹⁰⁷⁴.
fn round(digits: &[u32], first: usize) -> f64 {
    let Some(top) = digits.iter().rposition(|d| *d != 0) else { return 0.0 };
    let digit = |back: usize| top.checked_sub(back).map_or(0, |i| u128::from(digits[i]));
    // The top 96 bits hold 53 of mantissa and at least 12 to round by; what is below only says whether it is a tie.
    let head = digit(0) << 64 | digit(1) << 32 | digit(2);
    let below = digits[..top.saturating_sub(2)].iter().any(|d| *d != 0);
    let length = 128 - head.leading_zeros() as usize;
    // Position of the highest bit, in units.
    let highest = 32 * (first + top) + length - 65;
    if highest <= 52 {
        // Doubles this small are their own count of units. At most the two lowest digits are set.
        let units = head >> 64 << (32 * (first + top)) | if top + first > 0 { digit(1) } else { 0 };
        return f64::from_bits(units as u64);
    }
    let cut = length - 53;
    let mantissa = (head >> cut) as u64;
    let rest = head & ((1 << cut) - 1);
    let half = 1u128 << (cut - 1);
    let up = rest > half || (rest == half && (below || mantissa & 1 == 1));
    let exponent = (highest - 51) as u64;
    if exponent >= 0x7ff {
        return f64::INFINITY;
    }
    // A mantissa that rounds up to 2⁵³ carries into the exponent, and the largest one into infinity.
    f64::from_bits(((exponent - 1) << 52) + mantissa + u64::from(up))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn sum(values: &[f64]) -> ExactSum {
        let mut sum = ExactSum::new();
        values.iter().for_each(|v| sum.add(*v, 1));
        sum
    }

    /// Any finite double, all exponents alike.
    fn any_double(rng: &mut ChaCha8Rng) -> f64 {
        loop {
            let value = f64::from_bits(rng.random());
            if value.is_finite() {
                return value;
            }
        }
    }

    #[test]
    fn one_addend_is_itself() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let special =
            [0.0, 1.0, -1.5, f64::MIN_POSITIVE, 5e-324, f64::MAX, f64::MIN, f64::MIN_POSITIVE - 5e-324, 1e-300];
        for value in special.into_iter().chain(std::iter::repeat_with(|| any_double(&mut rng)).take(100_000)) {
            assert_eq!(sum(&[value]).value().to_bits(), value.to_bits(), "{value:e}");
        }
        assert_eq!(sum(&[-0.0]).value().to_bits(), 0);
    }

    #[test]
    fn two_addends_are_the_machines_sum() {
        // IEEE addition is the exact sum rounded once, so the processor is the oracle.
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..200_000 {
            let a = any_double(&mut rng);
            // Near exponents, where rounding and cancellation happen.
            let b = if rng.random() { any_double(&mut rng) } else { a * rng.random_range(-4.0..4.0) };
            if b.is_finite() {
                assert_eq!(sum(&[a, b]).value() + 0.0, a + b, "{a:e} + {b:e}");
            }
        }
    }

    #[test]
    fn order_splits_and_retractions_do_not_matter() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for round in 0..300 {
            let mut values: Vec<f64> = (0..rng.random_range(1..60)).map(|_| any_double(&mut rng)).collect();
            let whole = sum(&values);
            let extra: Vec<f64> = (0..20).map(|_| any_double(&mut rng)).collect();
            values.shuffle(&mut rng);
            let (left, right) = values.split_at(values.len() / 2);
            let mut other = sum(left);
            extra.iter().for_each(|v| other.add(*v, 3));
            other.merge(&sum(right));
            extra.iter().for_each(|v| other.add(*v, -1));
            extra.iter().for_each(|v| other.add(*v, -2));
            assert_eq!(other.value().to_bits(), whole.value().to_bits(), "round {round}");
            let (mut a, mut b) = (Vec::new(), Vec::new());
            other.write_bytes(&mut a);
            whole.write_bytes(&mut b);
            assert_eq!(a, b, "round {round}");
            let back = ExactSum::from_bytes(&a).unwrap();
            assert_eq!(back.value().to_bits(), whole.value().to_bits(), "round {round}");
            other.merge(&whole);
            values.iter().for_each(|v| other.add(*v, -2));
            assert!(other.is_zero(), "round {round}");
            assert_eq!(other.value().to_bits(), 0);
        }
    }

    #[test]
    fn what_naive_summation_loses_is_there() {
        assert_eq!(sum(&[1e16, 1.0, -1e16]).value(), 1.0);
        assert_eq!(sum(&[0.1; 10]).value(), 1.0);
        assert_eq!(sum(&[1e308, 1e308, -1e308, -1e308, 5e-324]).value(), 5e-324);
        assert_eq!(sum(&[f64::MAX, f64::MAX]).value(), f64::INFINITY);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]).value(), f64::MAX);
        // A tie that only a far smaller addend breaks.
        assert_eq!(sum(&[1.0, 2f64.powi(-53)]).value(), 1.0);
        assert_eq!(sum(&[1.0, 2f64.powi(-53), 5e-324]).value(), 1.0 + f64::EPSILON);
        assert_eq!(sum(&[-1.0, -2f64.powi(-53), -5e-324]).value(), -1.0 - f64::EPSILON);
    }

    #[test]
    fn weights_multiply() {
        let mut total = ExactSum::new();
        total.add(0.1, 1_000_000_007);
        total.add(0.1, -1_000_000_000);
        assert_eq!(total.value(), sum(&[0.1; 7]).value());
        total.add(f64::MAX, i64::MAX);
        total.add(f64::MAX, i64::MIN);
        total.add(f64::MAX, 1);
        total.add(0.1, -7);
        assert!(total.is_zero());
    }

    #[test]
    fn products_are_not_rounded() {
        let mut total = ExactSum::new();
        let a = 1.0 + f64::EPSILON;
        total.add_product(a, a, 1);
        total.add(1.0, -1);
        total.add(f64::EPSILON, -2);
        assert_eq!(total.value(), f64::EPSILON * f64::EPSILON);
        total.add_product(1e300, -1e300, 3);
        assert_eq!(total.value(), f64::NEG_INFINITY, "larger than any double");
        total.add_product(1e300, 1e300, 3);
        total.add_product(a, -a, 1);
        total.add(1.0, 1);
        total.add_product(f64::EPSILON, 2.0, 1);
        assert!(total.is_zero());
        total.add_product(5e-324, 0.5, 1);
        assert!(total.is_zero(), "below the smallest double");
        total.add_product(5e-324, 3.0, 1);
        assert_eq!(total.value(), 1.5e-323);
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for _ in 0..50_000 {
            // The processor rounds the exact product once, too.
            let (a, b) = (any_double(&mut rng), any_double(&mut rng));
            let mut one = ExactSum::new();
            one.add_product(a, b, 1);
            if (a * b).abs() > 1e-290 {
                assert_eq!(one.value(), a * b, "{a:e} * {b:e}");
            }
        }
    }

    #[test]
    fn nan_and_infinities_can_be_taken_away() {
        let mut total = sum(&[1.5, f64::NAN, f64::INFINITY]);
        assert!(total.value().is_nan());
        total.add(f64::NAN, -1);
        assert_eq!(total.value(), f64::INFINITY);
        total.add(f64::NEG_INFINITY, 1);
        assert!(total.value().is_nan());
        total.add(f64::INFINITY, -1);
        assert_eq!(total.value(), f64::NEG_INFINITY);
        total.add(f64::NEG_INFINITY, -1);
        assert_eq!(total.value(), 1.5);
    }

    #[test]
    fn carries_are_resolved_in_time() {
        let mut total = ExactSum::new();
        for value in [f64::MAX, 1.0, -1.0, 0.75] {
            total.add(value, 1);
            total.pending = MAX_PENDING - 1;
        }
        total.add(-f64::MAX, 1);
        assert_eq!(total.value(), 0.75);
        let mut other = sum(&[0.25]);
        other.pending = MAX_PENDING - 2;
        total.pending = MAX_PENDING - 2;
        total.merge(&other);
        assert_eq!(total.value(), 1.0);
    }
}

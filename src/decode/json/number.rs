//! Numbers, exactly: integers and decimals never go through a float.
//!
//! A number is scanned once into up to 19 digits and a power of ten; what does not fit there is read again from its text.

use arrow::datatypes::DECIMAL128_MAX_PRECISION;

/// A scanned number: `±mantissa · 10^exponent`, when `exact`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number {
    pub negative: bool,
    mantissa: u64,
    exponent: i32,
    /// Whether `mantissa` and `exponent` hold the whole number.
    exact: bool,
}

/// Why a number does not fit a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Too large.
    Range,
    /// It has digits after the point that the type cannot keep.
    Fraction,
}

/// Exponents are cut off here: nothing that is not zero fits any type beyond it.
const MAX_EXPONENT: i32 = 1_000_000;

const POWERS: [u64; 20] = {
    let mut powers = [1u64; 20];
    let mut i = 1;
    while i < 20 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Powers of ten that a double holds exactly.
const FLOAT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// 10^n.
pub(crate) fn power(n: u32) -> i128 {
    10i128.pow(n.min(DECIMAL128_MAX_PRECISION as u32))
}

/// Scans the number at `at`; returns it and its end, or where the grammar broke and how.
///
/// `LENIENT` is for text that becomes a number (CSV cells, strings): a plus sign, leading zeros, `.5` and `5.` are read too.
#[inline(always)]
pub(crate) fn parse<const LENIENT: bool>(
    bytes: &[u8],
    mut at: usize,
) -> Result<(Number, usize), (usize, &'static str)> {
    let negative = bytes.get(at) == Some(&b'-');
    if negative || (LENIENT && bytes.get(at) == Some(&b'+')) {
        at += 1;
    }
    let mut mantissa = 0u64;
    let whole_at = at;
    while let Some(digit) = digit(bytes, at) {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(digit);
        at += 1;
    }
    let mut digits = at - whole_at;
    if !LENIENT {
        if digits == 0 {
            return Err((at, "expected a digit"));
        }
        if digits > 1 && bytes[whole_at] == b'0' {
            return Err((whole_at, "a number has no leading zeros"));
        }
    }
    let mut exponent = 0i32;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        let fraction_at = at;
        while let Some(digit) = digit(bytes, at) {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(digit);
            at += 1;
        }
        if !LENIENT && at == fraction_at {
            return Err((at, "expected a digit after the point"));
        }
        digits += at - fraction_at;
        exponent = -((at - fraction_at).min(MAX_EXPONENT as usize) as i32);
    }
    if LENIENT && digits == 0 {
        return Err((at, "expected a digit"));
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1;
        let down = bytes.get(at) == Some(&b'-');
        if down || bytes.get(at) == Some(&b'+') {
            at += 1;
        }
        let digits_at = at;
        let mut power = 0i32;
        while let Some(digit) = digit(bytes, at) {
            power = (power * 10 + digit as i32).min(MAX_EXPONENT);
            at += 1;
        }
        if at == digits_at {
            return Err((at, "expected a digit in the exponent"));
        }
        exponent += if down { -power } else { power };
    }
    Ok((Number { negative, mantissa, exponent, exact: digits <= 19 }, at))
}

#[inline(always)]
fn digit(bytes: &[u8], at: usize) -> Option<u64> {
    let digit = bytes.get(at)?.wrapping_sub(b'0');
    (digit < 10).then_some(digit as u64)
}

impl Number {
    /// The number as an integer; `text` is what it was scanned from.
    #[inline]
    pub fn integer<T: TryFrom<i64>>(&self, text: &[u8]) -> Result<T, Unfit> {
        let value = if self.exact && self.exponent == 0 && self.mantissa <= i64::MAX as u64 {
            let value = self.mantissa as i64;
            if self.negative { -value } else { value }
        } else {
            i64::try_from(self.scaled(text, 0)?).map_err(|_| Unfit::Range)?
        };
        T::try_from(value).map_err(|_| Unfit::Range)
    }

    /// The number as the unscaled value of a DECIMAL(precision, scale).
    #[inline]
    pub fn decimal(&self, text: &[u8], precision: u8, scale: i8) -> Result<i128, Unfit> {
        let value = self.scaled(text, scale as i32)?;
        if value.unsigned_abs() >= power(precision as u32).unsigned_abs() {
            return Err(Unfit::Range);
        }
        Ok(value)
    }

    /// The number times `10^scale`, if that is an integer of at most 38 digits.
    #[inline]
    fn scaled(&self, text: &[u8], scale: i32) -> Result<i128, Unfit> {
        let shift = self.exponent.saturating_add(scale);
        if !self.exact || !(-19..=18).contains(&shift) {
            return scaled_text(text, scale);
        }
        let value = if shift >= 0 {
            // At most 20 digits times 18 digits: below 2^127.
            self.mantissa as i128 * POWERS[shift as usize] as i128
        } else {
            let divisor = POWERS[-shift as usize];
            if !self.mantissa.is_multiple_of(divisor) {
                return Err(Unfit::Fraction);
            }
            (self.mantissa / divisor) as i128
        };
        Ok(if self.negative { -value } else { value })
    }

    /// The nearest double.
    #[inline]
    pub fn double(&self, text: &[u8]) -> Result<f64, Unfit> {
        // One correctly rounded operation on two exact doubles is the nearest double (Clinger's fast path).
        if self.exact && self.mantissa <= 1 << 53 && (-22..=22).contains(&self.exponent) {
            let value = self.mantissa as f64;
            let value = if self.exponent < 0 {
                value / FLOAT_POWERS[-self.exponent as usize]
            } else {
                value * FLOAT_POWERS[self.exponent as usize]
            };
            return Ok(if self.negative { -value } else { value });
        }
        let value = lexical_core::parse::<f64>(text).unwrap_or(f64::INFINITY);
        if value.is_infinite() { Err(Unfit::Range) } else { Ok(value) }
    }

    /// The nearest single, from the decimal digits and not by way of the nearest double.
    #[inline]
    pub fn single(&self, text: &[u8]) -> Result<f32, Unfit> {
        if self.exact && self.mantissa <= 1 << 24 && (-10..=10).contains(&self.exponent) {
            let value = self.mantissa as f32;
            let value = if self.exponent < 0 {
                value / FLOAT_POWERS[-self.exponent as usize] as f32
            } else {
                value * FLOAT_POWERS[self.exponent as usize] as f32
            };
            return Ok(if self.negative { -value } else { value });
        }
        let value = lexical_core::parse::<f32>(text).unwrap_or(f32::INFINITY);
        if value.is_infinite() { Err(Unfit::Range) } else { Ok(value) }
    }
}

/// [`Number::scaled`] for any length of text.
#[cold]
fn scaled_text(text: &[u8], scale: i32) -> Result<i128, Unfit> {
    let (mantissa, exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(e) => (&text[..e], exponent_of(&text[e + 1..])),
        None => (text, 0),
    };
    let point = mantissa.iter().position(|b| *b == b'.');
    let fraction = point.map_or(0, |p| mantissa.len() - p - 1);
    let digits: Vec<u8> = mantissa.iter().filter(|b| b.is_ascii_digit()).map(|b| b - b'0').collect();
    let Some(first) = digits.iter().position(|d| *d != 0) else { return Ok(0) };
    let last = digits.iter().rposition(|d| *d != 0).unwrap_or(first);
    // The value is 0.d₁d₂… shifted: digits[first..=last] · 10^shift.
    let shift = exponent - fraction as i64 + scale as i64 + (digits.len() - 1 - last) as i64;
    if shift < 0 {
        return Err(Unfit::Fraction);
    }
    let count = (last - first + 1) as i64;
    if count + shift > DECIMAL128_MAX_PRECISION as i64 {
        return Err(Unfit::Range);
    }
    let value = digits[first..=last].iter().fold(0i128, |n, d| n * 10 + *d as i128) * power(shift as u32);
    Ok(if text.first() == Some(&b'-') { -value } else { value })
}

fn exponent_of(text: &[u8]) -> i64 {
    let down = text.first() == Some(&b'-');
    let magnitude =
        text.iter().filter(|b| b.is_ascii_digit()).fold(0i64, |n, d| (n * 10 + (d - b'0') as i64).min(i32::MAX as i64));
    if down { -magnitude } else { magnitude }
}

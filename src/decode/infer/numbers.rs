//! What the numbers of a field have in common: how many digits before and after the point, and whether a type holds them exactly.

use arrow::datatypes::DataType;

use crate::decode::json::number;

/// Beyond so many digits after the point a number is no amount but a measurement.
const MAX_SCALE: usize = 4;

/// Numbers of one field.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers {
    pub count: u64,
    /// Digits before the point, leading zeros not counted.
    whole: usize,
    /// Digits after the point, as written.
    scale: usize,
    /// With a point or an exponent.
    fractions: u64,
    exponents: u64,
    /// Whole numbers that a BIGINT does not hold.
    large: u64,
    /// Beyond the largest DOUBLE.
    infinite: u64,
    /// All are whole and look like milliseconds (13 digits) or microseconds (16) since 1970, in this century.
    epoch: Option<usize>,
}

impl Numbers {
    pub fn add(&mut self, text: &str) {
        let unsigned = text.trim_start_matches(['-', '+']);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, _)) => (mantissa, true),
            None => (unsigned, false),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = whole.trim_start_matches('0').len();
        let epoch = (fraction.is_empty()
            && !exponent
            && !text.starts_with('-')
            && matches!(digits, 13 | 16)
            && matches!(whole.as_bytes(), [b'1', b'0'..=b'9', ..]))
        .then_some(digits);
        self.epoch = if self.count == 0 || self.epoch == epoch { epoch } else { None };
        self.count += 1;
        self.whole = self.whole.max(digits);
        self.scale = self.scale.max(fraction.len());
        self.fractions += u64::from(!fraction.is_empty());
        self.exponents += u64::from(exponent);
        self.large += u64::from(text.parse::<i64>().is_err());
        self.infinite += u64::from(!text.parse::<f64>().is_ok_and(f64::is_finite));
    }

    pub fn merge(&mut self, other: &Numbers) {
        if other.count == 0 {
            return;
        }
        self.epoch = if self.count == 0 || self.epoch == other.epoch { other.epoch } else { None };
        self.whole = self.whole.max(other.whole);
        self.scale = self.scale.max(other.scale);
        for (own, more) in [
            (&mut self.count, other.count),
            (&mut self.fractions, other.fractions),
            (&mut self.exponents, other.exponents),
            (&mut self.large, other.large),
            (&mut self.infinite, other.infinite),
        ] {
            *own += more;
        }
    }

    /// The narrowest type that takes all of them; `None` if none does.
    pub fn data_type(&self) -> Option<DataType> {
        if self.infinite > 0 {
            return None;
        }
        let decimal = |precision: usize, scale: usize| {
            let precision = if precision <= 18 { 18 } else { 38 };
            DataType::Decimal128(precision, scale as i8)
        };
        Some(if self.exponents > 0 {
            DataType::Float64
        } else if self.fractions == 0 {
            match (self.large, self.whole) {
                (0, _) => DataType::Int64,
                (_, ..=38) => DataType::Decimal128(38, 0),
                _ => DataType::Float64,
            }
        } else if self.scale <= MAX_SCALE && self.whole + self.scale.max(2) <= 38 {
            decimal(self.whole + self.scale.max(2), self.scale.max(2))
        } else {
            DataType::Float64
        })
    }

    /// What a reader of the type should know.
    pub fn notes(&self, data_type: &DataType) -> Option<String> {
        match (data_type, self.epoch) {
            (DataType::Int64, Some(13)) => {
                Some("milliseconds since 1970? to_timestamp_millis() reads them".to_string())
            }
            (DataType::Int64, Some(_)) => Some("microseconds since 1970? to_timestamp_micros() reads them".to_string()),
            (DataType::Decimal128(_, scale), _) if *scale > 0 => Some(format!(
                "at most {} digits after the point in the samples; DOUBLE if there can be more",
                self.scale
            )),
            _ => None,
        }
    }
}

/// Whether digits are a name rather than a number: a leading zero or plus is part of it (a telephone number, a code).
pub(super) fn is_code(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    text.starts_with('+') || (unsigned.starts_with('0') && unsigned.len() > 1 && !unsigned.starts_with("0."))
}

/// Whether the decoder reads `text` as a number.
pub(super) fn is_number(text: &str) -> bool {
    number::parse::<true>(text.as_bytes(), 0).is_ok_and(|(_, end)| end == text.len())
}

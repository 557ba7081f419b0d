//! Running totals of one group: integers in 192 bits, doubles exactly.

use super::moments::Statistic;
use crate::error::Error;
use crate::state::ExactSum;
use crate::types::sql_type_name;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal32Type, Decimal64Type, Decimal128Type, Float64Type, Int64Type,
    UInt64Type,
};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::error::DataFusionError;
use std::fmt::Debug;

/// What a finished group says.
#[derive(Debug, Clone, PartialEq)]
pub enum Finish {
    /// The total, as this type.
    Sum(DataType),
    /// The same; NULL where it does not fit.
    TrySum(DataType),
    /// The total, rounded to a double, divided by the number of rows.
    Avg,
    /// What the moments say.
    Statistic(Statistic),
}

/// A total to which rows can be added, and from which they can be taken away.
pub trait Total: Debug + Default + Clone + Send + Sync + 'static {
    /// A row's value.
    type Value: Copy + Send + Sync + Eq + std::hash::Hash + Debug + 'static;

    fn add(&mut self, value: Self::Value, weight: i64);
    fn merge(&mut self, other: &Self);
    /// The result over `rows` rows, of which there is at least one.
    fn finish(&self, rows: i64, finish: &Finish) -> Result<ScalarValue>;
    /// Whether everything that was added was taken away again.
    fn is_zero(&self) -> bool;
    fn write_bytes(&self, out: &mut Vec<u8>);
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
    fn heap_size(&self) -> usize;

    /// Calls `each` with every row whose arguments are all there.
    fn for_each(arguments: &[ArrayRef], each: impl FnMut(usize, Self::Value)) -> Result<()>;
    fn value_bytes(value: Self::Value) -> [u8; 16];
    fn value_from_bytes(bytes: [u8; 16]) -> Self::Value;
}

/// Integers and unscaled decimals: `low + carry · 2¹²⁸`.
#[derive(Debug, Default, Clone)]
pub struct IntegerTotal {
    low: i128,
    carry: i64,
}

impl IntegerTotal {
    fn add_wide(&mut self, value: i128) {
        let (low, overflow) = self.low.overflowing_add(value);
        self.low = low;
        if overflow {
            self.carry += if value < 0 { -1 } else { 1 };
        }
    }
}

impl Total for IntegerTotal {
    type Value = i128;

    fn add(&mut self, value: i128, weight: i64) {
        match weight {
            1 => self.add_wide(value),
            -1 => match value.checked_neg() {
                Some(negated) => self.add_wide(negated),
                None => {
                    self.add_wide(i128::MAX);
                    self.add_wide(1);
                }
            },
            _ => match value.checked_mul(i128::from(weight)) {
                Some(product) => self.add_wide(product),
                // Rare enough to be added bit by bit of the weight.
                None => {
                    let sign = weight.signum();
                    let mut power = IntegerTotal::default();
                    power.add(value, sign);
                    let mut left = weight.unsigned_abs();
                    while left != 0 {
                        if left & 1 == 1 {
                            self.merge(&power);
                        }
                        let double = power.clone();
                        power.merge(&double);
                        left >>= 1;
                    }
                }
            },
        }
    }

    fn merge(&mut self, other: &Self) {
        self.add_wide(other.low);
        self.carry += other.carry;
    }

    fn finish(&self, _: i64, finish: &Finish) -> Result<ScalarValue> {
        let (Finish::Sum(data_type) | Finish::TrySum(data_type)) = finish else {
            return internal_err!("averages of integers are averages of doubles");
        };
        let fits = |limit: u8| {
            self.carry == 0 && self.low.unsigned_abs() < 10u128.pow(u32::from(limit.min(DECIMAL128_MAX_PRECISION)))
        };
        let value = match data_type {
            DataType::Int64 if self.carry == 0 => i64::try_from(self.low).ok().map(|v| ScalarValue::Int64(Some(v))),
            DataType::UInt64 if self.carry == 0 => u64::try_from(self.low).ok().map(|v| ScalarValue::UInt64(Some(v))),
            DataType::Int64 | DataType::UInt64 => None,
            // Precisions keep these inside their integers.
            DataType::Decimal32(p, s) => fits(*p).then_some(ScalarValue::Decimal32(Some(self.low as i32), *p, *s)),
            DataType::Decimal64(p, s) => fits(*p).then_some(ScalarValue::Decimal64(Some(self.low as i64), *p, *s)),
            DataType::Decimal128(p, s) => fits(*p).then_some(ScalarValue::Decimal128(Some(self.low), *p, *s)),
            other => return internal_err!("{other} is not summed as an integer"),
        };
        if let (None, Finish::TrySum(_)) = (&value, finish) {
            return ScalarValue::try_from(data_type);
        }
        value.ok_or_else(|| {
            let name = sql_type_name(data_type);
            let remedy = match data_type {
                DataType::Int64 | DataType::UInt64 => "sum a wider type: sum(cast(… as decimal(38, 0)))",
                _ => "sum fewer digits behind the point, or doubles",
            };
            let error = Error::user("overflow", format!("the sum does not fit its type, {name}")).with_hint(remedy);
            DataFusionError::External(Box::new(error))
        })
    }

    fn is_zero(&self) -> bool {
        self.low == 0 && self.carry == 0
    }

    fn write_bytes(&self, out: &mut Vec<u8>) {
        out.extend(self.low.to_le_bytes());
        out.extend(self.carry.to_le_bytes());
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (low, carry) = bytes.split_at_checked(16)?;
        Some(IntegerTotal {
            low: i128::from_le_bytes(low.try_into().ok()?),
            carry: i64::from_le_bytes(carry.try_into().ok()?),
        })
    }

    fn heap_size(&self) -> usize {
        0
    }

    fn for_each(arguments: &[ArrayRef], mut each: impl FnMut(usize, i128)) -> Result<()> {
        let [array] = arguments else { return internal_err!("a sum has one argument") };
        macro_rules! rows {
            ($type:ty) => {{
                let array = array.as_primitive::<$type>();
                if array.null_count() == 0 {
                    array.values().iter().enumerate().for_each(|(row, value)| each(row, i128::from(*value)));
                } else {
                    array.iter().enumerate().for_each(|(row, value)| {
                        if let Some(value) = value {
                            each(row, i128::from(value));
                        }
                    });
                }
            }};
        }
        match array.data_type() {
            DataType::Int64 => rows!(Int64Type),
            DataType::UInt64 => rows!(UInt64Type),
            DataType::Decimal32(..) => rows!(Decimal32Type),
            DataType::Decimal64(..) => rows!(Decimal64Type),
            DataType::Decimal128(..) => rows!(Decimal128Type),
            other => return internal_err!("{other} is not summed as an integer"),
        }
        Ok(())
    }

    fn value_bytes(value: i128) -> [u8; 16] {
        value.to_le_bytes()
    }

    fn value_from_bytes(bytes: [u8; 16]) -> i128 {
        i128::from_le_bytes(bytes)
    }
}

/// Doubles by their bits, so that they can be told apart: one zero, one NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Double(u64);

impl Double {
    pub fn new(value: f64) -> Double {
        Double(if value.is_nan() { f64::NAN.to_bits() } else { (value + 0.0).to_bits() })
    }

    pub fn value(self) -> f64 {
        f64::from_bits(self.0)
    }

    pub fn bits(self) -> u64 {
        self.0
    }
}

pub fn doubles(array: &ArrayRef) -> Result<&Float64Array> {
    match array.as_primitive_opt::<Float64Type>() {
        Some(doubles) => Ok(doubles),
        None => internal_err!("{} is not summed as a double", array.data_type()),
    }
}

impl Total for ExactSum {
    type Value = Double;

    fn add(&mut self, value: Double, weight: i64) {
        ExactSum::add(self, value.value(), weight);
    }

    fn merge(&mut self, other: &Self) {
        ExactSum::merge(self, other);
    }

    fn finish(&self, rows: i64, finish: &Finish) -> Result<ScalarValue> {
        let sum = self.value();
        Ok(ScalarValue::Float64(Some(match finish {
            Finish::Sum(_) | Finish::TrySum(_) => sum,
            Finish::Avg => sum / rows as f64,
            Finish::Statistic(_) => return internal_err!("a sum has no moments"),
        })))
    }

    fn is_zero(&self) -> bool {
        ExactSum::is_zero(self)
    }

    fn write_bytes(&self, out: &mut Vec<u8>) {
        ExactSum::write_bytes(self, out);
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        ExactSum::from_bytes(bytes)
    }

    fn heap_size(&self) -> usize {
        ExactSum::heap_size(self)
    }

    fn for_each(arguments: &[ArrayRef], mut each: impl FnMut(usize, Double)) -> Result<()> {
        let [array] = arguments else { return internal_err!("a sum has one argument") };
        for (row, value) in doubles(array)?.iter().enumerate() {
            if let Some(value) = value {
                each(row, Double::new(value));
            }
        }
        Ok(())
    }

    fn value_bytes(value: Double) -> [u8; 16] {
        u128::from(value.0).to_le_bytes()
    }

    fn value_from_bytes(bytes: [u8; 16]) -> Double {
        Double(u128::from_le_bytes(bytes) as u64)
    }
}

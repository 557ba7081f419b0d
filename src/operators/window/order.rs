//! The values by which the rows of a window are ordered.

use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::row::SortField;
use datafusion::common::ScalarValue;

use crate::error::Result;
use crate::plan::reach::Distance;
use crate::state::{Encoded, RowCodec};

pub struct Order {
    codec: RowCodec,
    types: Vec<DataType>,
    /// Of the first column.
    descending: bool,
}

/// A side of a row, as its order has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Before,
    Behind,
}

impl Order {
    pub fn new(types: Vec<DataType>, options: &[SortOptions]) -> Result<Self> {
        let fields = types.iter().zip(options).map(|(t, o)| SortField::new_with_options(t.clone(), *o)).collect();
        let descending = options.first().is_some_and(|o| o.descending);
        Ok(Order { codec: RowCodec::ordered(fields)?, types, descending })
    }

    pub fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Encoded> {
        self.codec.encode(columns, rows)
    }

    /// The bytes of the value that stands `distance` away from that of `peers`. None: there is none, or it cannot be told.
    pub fn moved(&self, peers: &[u8], distance: Distance, side: Side) -> Option<Vec<u8>> {
        let [data_type] = self.types.as_slice() else { return None };
        let column = self.codec.decode([peers]).ok()?.pop()?;
        let value = raw(&ScalarValue::try_from_array(&column, 0).ok()?)?;
        let units = units(distance, data_type)?;
        let up = (side == Side::Behind) != self.descending;
        let moved = if up { value.checked_add(units)? } else { value.checked_sub(units)? };
        let moved = value_of(moved, data_type)?.to_array().ok()?;
        Some(self.codec.encode(&[moved], 1).ok()?.row(0).to_vec())
    }
}

/// A distance in the units of a type, rounded up.
fn units(distance: Distance, data_type: &DataType) -> Option<i128> {
    const DAY: i128 = 86_400_000_000_000;
    match (distance, data_type) {
        (Distance::Number { units, scale }, DataType::Decimal128(_, of_type)) => {
            let digits = u32::try_from(of_type.checked_sub(scale)?).ok()?;
            units.checked_mul(10i128.checked_pow(digits)?)
        }
        (Distance::Number { units, scale: 0 }, other) if other.is_integer() => Some(units),
        (Distance::Time { nanos }, DataType::Date32) => Some(nanos / DAY + 1),
        (Distance::Time { nanos }, DataType::Timestamp(unit, _)) => {
            let unit = match unit {
                TimeUnit::Second => 1_000_000_000,
                TimeUnit::Millisecond => 1_000_000,
                TimeUnit::Microsecond => 1_000,
                TimeUnit::Nanosecond => 1,
            };
            Some(nanos / unit + 1)
        }
        _ => None,
    }
}

/// The number that a value is, in its type's units.
fn raw(value: &ScalarValue) -> Option<i128> {
    Some(match value {
        ScalarValue::Int8(v) => (*v)?.into(),
        ScalarValue::Int16(v) => (*v)?.into(),
        ScalarValue::Int32(v) | ScalarValue::Date32(v) => (*v)?.into(),
        ScalarValue::UInt8(v) => (*v)?.into(),
        ScalarValue::UInt16(v) => (*v)?.into(),
        ScalarValue::UInt32(v) => (*v)?.into(),
        ScalarValue::UInt64(v) => (*v)?.into(),
        ScalarValue::Int64(v)
        | ScalarValue::TimestampSecond(v, _)
        | ScalarValue::TimestampMillisecond(v, _)
        | ScalarValue::TimestampMicrosecond(v, _)
        | ScalarValue::TimestampNanosecond(v, _) => (*v)?.into(),
        ScalarValue::Decimal128(v, ..) => (*v)?,
        _ => return None,
    })
}

/// [`raw`]'s opposite.
fn value_of(raw: i128, data_type: &DataType) -> Option<ScalarValue> {
    let long = || i64::try_from(raw).ok();
    Some(match data_type {
        DataType::Int8 => ScalarValue::Int8(Some(raw.try_into().ok()?)),
        DataType::Int16 => ScalarValue::Int16(Some(raw.try_into().ok()?)),
        DataType::Int32 => ScalarValue::Int32(Some(raw.try_into().ok()?)),
        DataType::Int64 => ScalarValue::Int64(Some(long()?)),
        DataType::UInt8 => ScalarValue::UInt8(Some(raw.try_into().ok()?)),
        DataType::UInt16 => ScalarValue::UInt16(Some(raw.try_into().ok()?)),
        DataType::UInt32 => ScalarValue::UInt32(Some(raw.try_into().ok()?)),
        DataType::UInt64 => ScalarValue::UInt64(Some(raw.try_into().ok()?)),
        DataType::Date32 => ScalarValue::Date32(Some(raw.try_into().ok()?)),
        DataType::Timestamp(TimeUnit::Second, zone) => ScalarValue::TimestampSecond(Some(long()?), zone.clone()),
        DataType::Timestamp(TimeUnit::Millisecond, zone) => {
            ScalarValue::TimestampMillisecond(Some(long()?), zone.clone())
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            ScalarValue::TimestampMicrosecond(Some(long()?), zone.clone())
        }
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            ScalarValue::TimestampNanosecond(Some(long()?), zone.clone())
        }
        DataType::Decimal128(precision, scale) => ScalarValue::Decimal128(Some(raw), *precision, *scale),
        _ => return None,
    })
}

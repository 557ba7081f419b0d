//! `bit_xor`: stock DataFusion 55.2 takes DISTINCT for nothing when it groups, and declares a state without DISTINCT's NULLs.

use super::total::{Finish, Total};
use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::common::{Result, ScalarValue, internal_err};

/// The bits that an odd number of values have.
#[derive(Debug, Default, Clone)]
pub struct Parity(i64);

impl Total for Parity {
    type Value = i64;

    fn add(&mut self, value: i64, weight: i64) {
        if weight & 1 != 0 {
            self.0 ^= value;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.0 ^= other.0;
    }

    fn finish(&self, _: i64, finish: &Finish) -> Result<ScalarValue> {
        let Finish::Sum(data_type) = finish else { return internal_err!("bit_xor has no moments") };
        bits_as(self.0, data_type)
    }

    fn is_zero(&self) -> bool {
        self.0 == 0
    }

    fn write_bytes(&self, out: &mut Vec<u8>) {
        out.extend(self.0.to_le_bytes());
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Parity(i64::from_le_bytes(bytes)))
    }

    fn heap_size(&self) -> usize {
        0
    }

    fn for_each(arguments: &[ArrayRef], each: impl FnMut(usize, i64)) -> Result<()> {
        let [array] = arguments else { return internal_err!("bit_xor has one argument") };
        for_each_integer(array, each)
    }

    fn value_bytes(value: i64) -> [u8; 16] {
        i128::from(value).to_le_bytes()
    }

    fn value_from_bytes(bytes: [u8; 16]) -> i64 {
        i128::from_le_bytes(bytes) as i64
    }
}

/// Calls `each` with the bits of every integer that is there, signed ones extended.
pub fn for_each_integer(array: &ArrayRef, mut each: impl FnMut(usize, i64)) -> Result<()> {
    macro_rules! rows {
        ($type:ty) => {
            for (row, value) in array.as_primitive::<$type>().iter().enumerate() {
                if let Some(value) = value {
                    each(row, value as i64);
                }
            }
        };
    }
    match array.data_type() {
        DataType::Int8 => rows!(Int8Type),
        DataType::Int16 => rows!(Int16Type),
        DataType::Int32 => rows!(Int32Type),
        DataType::Int64 => rows!(Int64Type),
        DataType::UInt8 => rows!(UInt8Type),
        DataType::UInt16 => rows!(UInt16Type),
        DataType::UInt32 => rows!(UInt32Type),
        DataType::UInt64 => rows!(UInt64Type),
        other => return internal_err!("{other} has no bits"),
    }
    Ok(())
}

/// The lowest bits as an integer of this type.
pub fn bits_as(bits: i64, data_type: &DataType) -> Result<ScalarValue> {
    Ok(match data_type {
        DataType::Int8 => ScalarValue::Int8(Some(bits as i8)),
        DataType::Int16 => ScalarValue::Int16(Some(bits as i16)),
        DataType::Int32 => ScalarValue::Int32(Some(bits as i32)),
        DataType::Int64 => ScalarValue::Int64(Some(bits)),
        DataType::UInt8 => ScalarValue::UInt8(Some(bits as u8)),
        DataType::UInt16 => ScalarValue::UInt16(Some(bits as u16)),
        DataType::UInt32 => ScalarValue::UInt32(Some(bits as u32)),
        DataType::UInt64 => ScalarValue::UInt64(Some(bits as u64)),
        other => return internal_err!("{other} has no bits"),
    })
}

//! One representation per float: −0.0 becomes 0.0, every NaN the same NaN.

use arrow::array::{Array, ArrayRef, Float16Array, Float32Array, Float64Array, ListArray, MapArray, StructArray};
use arrow::datatypes::DataType;
use std::sync::Arc;

use crate::error::Result;

macro_rules! canonical_floats {
    ($array:expr, $type:ty, $float:ty, $nan:expr) => {{
        let Some(floats) = $array.as_any().downcast_ref::<$type>() else { return Ok(Arc::clone($array)) };
        let odd =
            |v: $float| v.is_nan() && v.to_bits() != $nan.to_bits() || (v == 0.0 as $float && v.is_sign_negative());
        if !floats.values().iter().any(|v| odd(*v)) {
            return Ok(Arc::clone($array));
        }
        // x + 0.0 turns −0.0 into 0.0 and leaves every other number alone.
        let fixed: $type = floats.unary(|v| if v.is_nan() { $nan } else { v + 0.0 });
        Ok(Arc::new(fixed))
    }};
}

/// −0.0 → 0.0 and one NaN, at any depth.
pub fn canonical(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Float64 => canonical_floats!(array, Float64Array, f64, f64::NAN),
        DataType::Float32 => canonical_floats!(array, Float32Array, f32, f32::NAN),
        DataType::Float16 if array.as_any().is::<Float16Array>() => {
            let wide = arrow::compute::cast(array, &DataType::Float32)?;
            Ok(arrow::compute::cast(&canonical(&wide)?, &DataType::Float16)?)
        }
        DataType::Struct(fields) => match array.as_any().downcast_ref::<StructArray>() {
            Some(parts) => {
                let columns = parts.columns().iter().map(canonical).collect::<Result<Vec<_>>>()?;
                Ok(Arc::new(StructArray::try_new_with_length(
                    fields.clone(),
                    columns,
                    parts.nulls().cloned(),
                    parts.len(),
                )?))
            }
            None => Ok(Arc::clone(array)),
        },
        DataType::List(field) => match array.as_any().downcast_ref::<ListArray>() {
            Some(list) => {
                let values = canonical(list.values())?;
                Ok(Arc::new(ListArray::try_new(
                    Arc::clone(field),
                    list.offsets().clone(),
                    values,
                    list.nulls().cloned(),
                )?))
            }
            None => Ok(Arc::clone(array)),
        },
        DataType::Map(field, sorted) => match array.as_any().downcast_ref::<MapArray>() {
            Some(map) => {
                let entries: ArrayRef = Arc::new(map.entries().clone());
                let entries = canonical(&entries)?;
                match entries.as_any().downcast_ref::<StructArray>() {
                    Some(entries) => Ok(Arc::new(MapArray::try_new(
                        Arc::clone(field),
                        map.offsets().clone(),
                        entries.clone(),
                        map.nulls().cloned(),
                        *sorted,
                    )?)),
                    None => Ok(Arc::clone(array)),
                }
            }
            None => Ok(Arc::clone(array)),
        },
        _ => Ok(Arc::clone(array)),
    }
}

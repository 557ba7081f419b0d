//! Columns to comparable bytes and back.

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, ListArray, MapArray, StructArray};
use arrow::datatypes::{DataType, Field, Fields, Float32Type, Float64Type};
use arrow::row::{RowConverter, Rows, SortField};
use arrow::compute::SortOptions;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Encodes columns of fixed types as rows of bytes: equal bytes exactly when equal values, byte order = sort order.
#[derive(Debug)]
pub struct RowCodec {
    converter: RowConverter,
    types: Vec<DataType>,
}

impl RowCodec {
    /// A codec for columns of these types, ascending, NULLs last.
    pub fn new(types: &[DataType]) -> Result<Self> {
        Self::with_options(types, &vec![SortOptions { descending: false, nulls_first: false }; types.len()])
    }

    /// A codec whose byte order follows `options`, column by column.
    pub fn with_options(types: &[DataType], options: &[SortOptions]) -> Result<Self> {
        let fields = types
            .iter()
            .zip(options)
            .map(|(t, o)| SortField::new_with_options(without_maps(t), *o))
            .collect();
        Ok(RowCodec { converter: RowConverter::new(fields)?, types: types.to_vec() })
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.types.len()
    }

    /// Types of the columns.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Encodes all rows. Floats are normalised first.
    pub fn encode(&self, columns: &[ArrayRef]) -> Result<Rows> {
        let columns: Vec<ArrayRef> =
            columns.iter().map(|c| unmapped(&normalise_floats(c))).collect::<Result<_>>()?;
        Ok(self.converter.convert_columns(&columns)?)
    }

    /// Decodes rows of bytes that [`RowCodec::encode`] made.
    pub fn decode<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        let arrays = self.converter.convert_rows(rows.into_iter().map(|r| parser.parse(r)))?;
        arrays.into_iter().zip(&self.types).map(|(array, data_type)| mapped(array, data_type)).collect()
    }
}

/// arrow-row has no maps: they are encoded as the list of structs they are.
fn without_maps(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Map(entries, _) => DataType::List(Arc::new(field_without_maps(entries))),
        DataType::List(field) => DataType::List(Arc::new(field_without_maps(field))),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|f| Arc::new(field_without_maps(f))).collect::<Fields>())
        }
        other => other.clone(),
    }
}

fn field_without_maps(field: &Field) -> Field {
    field.clone().with_data_type(without_maps(field.data_type()))
}

fn has_map(data_type: &DataType) -> bool {
    match data_type {
        DataType::Map(_, _) => true,
        DataType::List(field) => has_map(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| has_map(f.data_type())),
        _ => false,
    }
}

fn unmapped(array: &ArrayRef) -> Result<ArrayRef> {
    if !has_map(array.data_type()) {
        return Ok(Arc::clone(array));
    }
    let DataType::Map(_, _) = array.data_type() else {
        return Err(Error::user("map-key", "a MAP inside a STRUCT or ARRAY cannot be compared")
            .with_hint("select the members of the STRUCT instead"));
    };
    let map = array.as_map();
    let entries = map.entries().clone();
    let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    Ok(Arc::new(ListArray::try_new(field, map.offsets().clone(), Arc::new(entries), map.nulls().cloned())?))
}

fn mapped(array: ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    match data_type {
        DataType::Map(field, sorted) => {
            let list = array.as_list::<i32>();
            let entries = list.values().as_struct();
            let entries = match field.data_type() {
                DataType::Struct(fields) => StructArray::try_new(
                    fields.clone(),
                    entries.columns().to_vec(),
                    entries.nulls().cloned(),
                )?,
                _ => entries.clone(),
            };
            let nulls = list.nulls().cloned();
            Ok(Arc::new(MapArray::try_new(Arc::clone(field), list.offsets().clone(), entries, nulls, *sorted)?))
        }
        _ if array.data_type() == data_type => Ok(array),
        _ => Ok(arrow::compute::cast(&array, data_type)?),
    }
}

/// −0.0 becomes 0.0 and every NaN the same NaN, inside structs and lists too. Other arrays are returned as they are.
pub fn normalise_floats(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float64 => {
            let floats = array.as_primitive::<Float64Type>();
            if floats.values().iter().all(|v| v.to_bits() != (-0.0f64).to_bits() && !odd_nan(*v)) {
                return Arc::clone(array);
            }
            let normal: Float64Array = floats.unary(|v| if v.is_nan() { f64::NAN } else { v + 0.0 });
            Arc::new(normal)
        }
        DataType::Float32 => {
            let floats = array.as_primitive::<Float32Type>();
            let normal: Float32Array = floats.unary(|v| if v.is_nan() { f32::NAN } else { v + 0.0 });
            Arc::new(normal)
        }
        DataType::Struct(fields) => {
            let parts = array.as_struct();
            let columns: Vec<ArrayRef> = parts.columns().iter().map(normalise_floats).collect();
            match StructArray::try_new(fields.clone(), columns, parts.nulls().cloned()) {
                Ok(normal) => Arc::new(normal),
                Err(_) => Arc::clone(array),
            }
        }
        DataType::List(field) => {
            let list = array.as_list::<i32>();
            let values = normalise_floats(list.values());
            match ListArray::try_new(Arc::clone(field), list.offsets().clone(), values, list.nulls().cloned()) {
                Ok(normal) => Arc::new(normal),
                Err(_) => Arc::clone(array),
            }
        }
        _ => Arc::clone(array),
    }
}

fn odd_nan(v: f64) -> bool {
    v.is_nan() && v.to_bits() != f64::NAN.to_bits()
}

//! Stored types: what a model's rows look like in its table and to its readers.
//!
//! Every model's output passes through here once, before hashing, writing and handing on, so that equal rows have equal bytes:
//! one timestamp unit, no views or dictionaries, no −0.0, one NaN.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use arrow::util::display::FormatOptions;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::state::canonical;

/// Why a type cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unstorable {
    /// The type, as a person knows it.
    pub what: String,
    pub remedy: String,
}

fn unstorable(what: impl Into<String>, remedy: &str) -> Unstorable {
    Unstorable { what: what.into(), remedy: remedy.to_string() }
}

/// The type a column of `data_type` is stored as.
pub fn stored_type(data_type: &DataType) -> Result<DataType, Unstorable> {
    Ok(match data_type {
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Boolean | DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => data_type.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 | DataType::Float32 => DataType::Float32,
        DataType::Float64 => DataType::Float64,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) if *s >= 0 => {
            DataType::Decimal128(*p, *s)
        }
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) => {
            return Err(unstorable("a decimal with a negative scale", "cast it: cast(… as decimal(38, 0))"));
        }
        DataType::Decimal256(_, s) => {
            return Err(unstorable(
                "a decimal of more than 38 digits",
                &format!("cast it: cast(… as decimal(38, {}))", (*s).clamp(0, 38)),
            ));
        }
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        // Only TIMESTAMP_NTZ has this unit without a zone; functions that return other units mean instants.
        DataType::Timestamp(TimeUnit::Microsecond, None) => data_type.clone(),
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Dictionary(_, value) => stored_type(value)?,
        DataType::RunEndEncoded(_, value) => stored_type(value.data_type())?,
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) => {
            DataType::List(element("element", f)?)
        }
        DataType::ListView(f) | DataType::LargeListView(f) => DataType::List(element("element", f)?),
        DataType::Struct(fields) => DataType::Struct(stored_fields(fields)?),
        DataType::Map(entries, _) => {
            let DataType::Struct(kv) = entries.data_type() else {
                return Err(unstorable("a map without keys and values", "select its parts"));
            };
            let [key, value] = kv.as_ref() else {
                return Err(unstorable("a map without keys and values", "select its parts"));
            };
            let key = Field::new("key", stored_type(key.data_type())?, false);
            let value = Field::new("value", stored_type(value.data_type())?, true);
            let entries = Field::new("key_value", DataType::Struct(vec![key, value].into()), false);
            DataType::Map(Arc::new(entries), false)
        }
        DataType::Interval(_) | DataType::Duration(_) => {
            return Err(unstorable("an interval", "store a number: date_part('epoch', …), or both ends of it"));
        }
        DataType::Time32(_) | DataType::Time64(_) => {
            return Err(unstorable(
                "a time of day",
                "store text: to_char(…, '%H:%M:%S'), or seconds: date_part('epoch', …)",
            ));
        }
        DataType::Union(..) => return Err(unstorable("a union", "cast it to one type")),
    })
}

fn element(name: &str, field: &FieldRef) -> Result<FieldRef, Unstorable> {
    Ok(Arc::new(Field::new(name, stored_type(field.data_type())?, true)))
}

fn stored_fields(fields: &Fields) -> Result<Fields, Unstorable> {
    fields
        .iter()
        .map(|f| Ok(Arc::new(Field::new(f.name(), stored_type(f.data_type())?, true))))
        .collect::<Result<Vec<_>, _>>()
        .map(Fields::from)
}

/// `batch` in the stored types of `schema` (from [`stored_type`], column by column): cast, −0.0 as 0.0, one NaN, also inside
/// nested values. Casts that lose a value are errors.
pub fn to_stored(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.num_columns() != schema.fields().len() {
        return Err(Error::internal(format!(
            "{} columns where the model has {}",
            batch.num_columns(),
            schema.fields().len()
        )));
    }
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            to_stored_array(column, field.data_type()).map_err(|e| e.context(format!("column `{}`", field.name())))
        })
        .collect::<Result<Vec<_>>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

fn to_stored_array(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let array = if array.data_type() == to {
        Arc::clone(array)
    } else {
        let options = CastOptions { safe: false, format_options: FormatOptions::default() };
        cast_with_options(array, to, &options)?
    };
    Ok(if has_float(array.data_type()) { canonical(&array)? } else { array })
}

/// Whether a float occurs in the type.
fn has_float(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => true,
        DataType::List(f) | DataType::Map(f, _) => has_float(f.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| has_float(f.data_type())),
        _ => false,
    }
}

/// The stored schema of columns with these names and types. Names must be usable in Delta and unique ignoring case; the caller
/// checks that, because only it can point into the SQL.
pub(crate) fn stored_schema<'a>(
    columns: impl Iterator<Item = (&'a str, &'a DataType)>,
) -> Result<SchemaRef, (String, Unstorable)> {
    let fields = columns
        .map(|(name, data_type)| match stored_type(data_type) {
            Ok(data_type) => Ok(Field::new(name, data_type, true)),
            Err(why) => Err((name.to_string(), why)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

//! Arrow schemas ↔ Delta schema JSON, and arrays into a table's exact types.
//!
//! A table's schema is always what its Delta schema says, read back: list items are called `element`, map entries
//! `key_value(key, value)` (Parquet's names: DuckDB looks for them), timestamps are µs. So a table that was just created and
//! one that was loaded agree, and rows hash equally in both.

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float32Type, Float64Type, Schema, SchemaRef, TimeUnit};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::error::{Error, Result};

/// The Delta schema JSON of `schema`.
pub fn to_delta(schema: &Schema) -> Result<String> {
    for (i, field) in schema.fields().iter().enumerate() {
        let lower = field.name().to_lowercase();
        if schema.fields()[..i].iter().any(|other| other.name().to_lowercase() == lower) {
            return Err(Error::user("duplicate-column", format!("two columns are called `{}`", field.name()))
                .with_hint("Delta compares column names without case: give one of them an alias"));
        }
        if field.name().is_empty() || field.name().contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '=']) {
            return Err(Error::user(
                "bad-column-name",
                format!("`{}` cannot be the name of a Delta column", field.name()),
            )
            .with_hint("give it an alias without spaces and none of , ; { } ( ) ="));
        }
    }
    Ok(struct_json(schema.fields())?.to_string())
}

fn struct_json(fields: &Fields) -> Result<Value> {
    let fields = fields
        .iter()
        .map(|f| {
            Ok(json!({
                "name": f.name(),
                "type": type_json(f.data_type()).map_err(|e| e.context(format!("column `{}`", f.name())))?,
                "nullable": f.is_nullable(),
                "metadata": {},
            }))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(json!({ "type": "struct", "fields": fields }))
}

fn type_json(data_type: &DataType) -> Result<Value> {
    let name = match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => "string",
        DataType::Int64 | DataType::UInt32 => "long",
        DataType::Int32 | DataType::UInt16 => "integer",
        DataType::Int16 | DataType::UInt8 => "short",
        DataType::Int8 => "byte",
        DataType::Float32 => "float",
        DataType::Float64 => "double",
        DataType::Boolean => "boolean",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "binary",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Timestamp(_, Some(_)) => "timestamp",
        DataType::Timestamp(_, None) => "timestamp_ntz",
        DataType::UInt64 => "decimal(20,0)",
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) if *s >= 0 => {
            return Ok(Value::String(format!("decimal({p},{s})")));
        }
        DataType::Dictionary(_, values) => return type_json(values),
        DataType::List(f) | DataType::LargeList(f) | DataType::ListView(f) | DataType::FixedSizeList(f, _) => {
            return Ok(json!({
                "type": "array",
                "elementType": type_json(f.data_type())?,
                "containsNull": f.is_nullable(),
            }));
        }
        DataType::Map(entries, _) => {
            let DataType::Struct(pair) = entries.data_type() else {
                return Err(Error::internal("a map's entries are a struct"));
            };
            return Ok(json!({
                "type": "map",
                "keyType": type_json(pair[0].data_type())?,
                "valueType": type_json(pair[1].data_type())?,
                "valueContainsNull": pair[1].is_nullable(),
            }));
        }
        DataType::Struct(fields) => return struct_json(fields),
        other => {
            return Err(Error::user("unsupported-type", format!("Delta has no type for {other}"))
                .with_hint("cast it to a string, a number or a timestamp"));
        }
    };
    Ok(Value::String(name.to_string()))
}

/// The Arrow schema of a Delta schema JSON.
pub fn from_delta(text: &str) -> Result<SchemaRef> {
    let bad = |why: &str| Error::environment("bad-log", format!("schema of the table: {why}")).permanent();
    let value: Value = serde_json::from_str(text).map_err(|e| bad(&e.to_string()))?;
    Ok(Arc::new(Schema::new(struct_fields(&value).ok_or_else(|| bad(text))?)))
}

fn struct_fields(value: &Value) -> Option<Fields> {
    value.get("fields")?.as_array()?.iter().map(field_of).collect()
}

fn field_of(value: &Value) -> Option<Field> {
    let nullable = value.get("nullable").and_then(Value::as_bool).unwrap_or(true);
    Some(Field::new(value.get("name")?.as_str()?, type_of(value.get("type")?)?, nullable))
}

fn type_of(value: &Value) -> Option<DataType> {
    if let Some(name) = value.as_str() {
        return Some(match name {
            "string" => DataType::Utf8,
            "long" => DataType::Int64,
            "integer" => DataType::Int32,
            "short" => DataType::Int16,
            "byte" => DataType::Int8,
            "float" => DataType::Float32,
            "double" => DataType::Float64,
            "boolean" => DataType::Boolean,
            "binary" => DataType::Binary,
            "date" => DataType::Date32,
            "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            "timestamp_ntz" => DataType::Timestamp(TimeUnit::Microsecond, None),
            "decimal" => DataType::Decimal128(10, 0),
            other => {
                let (p, s) = other.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
                DataType::Decimal128(p.trim().parse().ok()?, s.trim().parse().ok()?)
            }
        });
    }
    match value.get("type")?.as_str()? {
        "struct" => Some(DataType::Struct(struct_fields(value)?)),
        "array" => {
            let nullable = value.get("containsNull").and_then(Value::as_bool).unwrap_or(true);
            Some(DataType::List(Arc::new(Field::new("element", type_of(value.get("elementType")?)?, nullable))))
        }
        "map" => {
            let nullable = value.get("valueContainsNull").and_then(Value::as_bool).unwrap_or(true);
            let entries = Fields::from(vec![
                Field::new("key", type_of(value.get("keyType")?)?, false),
                Field::new("value", type_of(value.get("valueType")?)?, nullable),
            ]);
            Some(DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entries), false)), false))
        }
        _ => None,
    }
}

/// Whether any column, at any depth, is a timestamp without zone, which needs a table feature.
pub fn has_timestamp_ntz(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(_, None) => true,
        DataType::List(f) | DataType::Map(f, _) => has_timestamp_ntz(f.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| has_timestamp_ntz(f.data_type())),
        _ => false,
    }
}

/// `array` as exactly `target`: equal types but for names inside them are relabelled, others cast; floats become
/// canonical (no −0.0, one NaN), so that rows equal in SQL are equal bit for bit.
pub fn conform(array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    let nested = match (array.data_type(), target) {
        (DataType::List(_), DataType::List(item)) => {
            let list = array.as_list::<i32>();
            let values = conform(list.values(), item.data_type())?;
            Arc::new(ListArray::try_new(Arc::clone(item), list.offsets().clone(), values, list.nulls().cloned())?)
                as ArrayRef
        }
        (DataType::Map(_, _), DataType::Map(entries, sorted)) => {
            let map = array.as_map();
            let pairs: ArrayRef = Arc::new(map.entries().clone());
            let pairs = conform(&pairs, entries.data_type())?;
            Arc::new(MapArray::try_new(
                Arc::clone(entries),
                map.offsets().clone(),
                pairs.as_struct().clone(),
                map.nulls().cloned(),
                *sorted,
            )?)
        }
        (DataType::Struct(from), DataType::Struct(to)) => conform_struct(array.as_struct(), from, to)?,
        (DataType::Float32, DataType::Float32) => {
            let floats = array.as_primitive::<Float32Type>();
            if floats.values().iter().all(|v| !(v.is_nan() || *v == 0.0)) {
                return Ok(Arc::clone(array));
            }
            Arc::new(floats.unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v + 0.0 }))
        }
        (DataType::Float64, DataType::Float64) => {
            let floats = array.as_primitive::<Float64Type>();
            if floats.values().iter().all(|v| !(v.is_nan() || *v == 0.0)) {
                return Ok(Arc::clone(array));
            }
            Arc::new(floats.unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v + 0.0 }))
        }
        (from, to) if from == to => return Ok(Arc::clone(array)),
        _ => {
            let done = cast(array, target)?;
            // Failed casts must not turn into NULLs behind anybody's back.
            if done.logical_null_count() != array.logical_null_count() {
                return Err(Error::user("cast", format!("a value of {} does not fit {target}", array.data_type())));
            }
            return if matches!(target, DataType::Float32 | DataType::Float64) {
                conform(&done, target)
            } else {
                Ok(done)
            };
        }
    };
    Ok(nested)
}

fn conform_struct(array: &StructArray, from: &Fields, to: &Fields) -> Result<ArrayRef> {
    // By name when the names agree, else by position: map entries are called differently by every library.
    let by_name = to.iter().any(|t| from.iter().any(|f| f.name() == t.name()));
    let columns = to
        .iter()
        .enumerate()
        .map(|(i, field)| {
            let column = if by_name { array.column_by_name(field.name()) } else { array.columns().get(i) };
            match column {
                Some(column) => conform(column, field.data_type()),
                None => Ok(arrow::array::new_null_array(field.data_type(), array.len())),
            }
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(StructArray::try_new_with_length(to.clone(), columns, array.nulls().cloned(), array.len())?))
}

/// `batch` in exactly `schema`, by column name; columns it lacks are NULL.
pub fn conform_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let from = batch.schema();
    let columns = schema
        .fields()
        .iter()
        .map(|field| match from.index_of(field.name()) {
            Ok(i) => {
                conform(batch.column(i), field.data_type()).map_err(|e| e.context(format!("column `{}`", field.name())))
            }
            Err(_) => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
        })
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// Fails when `batch` has columns the table lacks, or lacks columns the table has.
pub fn check_columns(batch: &RecordBatch, schema: &SchemaRef, table: &str) -> Result<()> {
    let given = batch.schema();
    let unknown: Vec<&str> = names(&given).filter(|n| schema.index_of(n).is_err()).collect();
    let missing: Vec<&str> = names(schema).filter(|n| given.index_of(n).is_err()).collect();
    if unknown.is_empty() && missing.is_empty() {
        return Ok(());
    }
    Err(Error::internal(format!(
        "rows for `{table}` do not fit it: unknown columns [{}], missing columns [{}]",
        unknown.join(", "),
        missing.join(", ")
    )))
}

fn names(schema: &Schema) -> impl Iterator<Item = &str> {
    schema.fields().iter().map(|f: &FieldRef| f.name().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int32Array};

    #[test]
    fn types_round_trip_through_delta_json() {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int64, false),
            Field::new("b", DataType::Decimal128(20, 2), true),
            Field::new("c", utc, true),
            Field::new("d", DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))), true),
            Field::new("e", DataType::Struct(vec![Field::new("x", DataType::Date32, true)].into()), true),
        ]);
        assert_eq!(*from_delta(&to_delta(&schema).unwrap()).unwrap(), schema);
    }

    #[test]
    fn names_delta_cannot_have_are_refused() {
        let twice = Schema::new(vec![Field::new("a", DataType::Int8, true), Field::new("A", DataType::Int8, true)]);
        assert_eq!(to_delta(&twice).unwrap_err().code(), "duplicate-column");
        let space = Schema::new(vec![Field::new("a b", DataType::Int8, true)]);
        assert_eq!(to_delta(&space).unwrap_err().code(), "bad-column-name");
    }

    #[test]
    fn floats_become_canonical_and_failed_casts_are_errors() {
        let odd = f64::from_bits(f64::NAN.to_bits() | 1);
        let array: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, odd]));
        let done = conform(&array, &DataType::Float64).unwrap();
        let bits: Vec<u64> = done.as_primitive::<Float64Type>().values().iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits, [0.0f64.to_bits(), f64::NAN.to_bits()]);
        let large: ArrayRef = Arc::new(Int32Array::from(vec![1000]));
        assert_eq!(conform(&large, &DataType::Int8).unwrap_err().code(), "cast");
    }
}

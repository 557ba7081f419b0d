//! Partition values: as text in the log, as directories in paths, as constant columns in rows.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array, new_null_array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use indexmap::IndexMap;
use std::sync::Arc;

use super::actions::PartitionValues;
use crate::error::{Error, Result};

/// Whether a column of this type may partition a table.
pub fn check_type(column: &str, data_type: &DataType) -> Result<()> {
    match data_type {
        DataType::Utf8
        | DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Date32
        | DataType::Decimal128(_, _)
        | DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(()),
        other => {
            Err(Error::user("bad-partition", format!("`{column}` is {other}: a table is not partitioned by that"))
                .with_hint("partition by a date, a string or an integer"))
        }
    }
}

/// The text of each value of a partition column, as Delta writes it.
fn texts(column: &ArrayRef) -> Result<StringArray> {
    let text = match column.data_type() {
        // Delta wants `2026-01-01 00:00:00.000000`, without zone.
        DataType::Timestamp(_, _) => {
            let naive = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
            let text = cast(&naive, &DataType::Utf8)?;
            let spaced: StringArray = text.as_string::<i32>().iter().map(|v| v.map(|v| v.replace('T', " "))).collect();
            return Ok(spaced);
        }
        _ => cast(column, &DataType::Utf8)?,
    };
    Ok(text.as_string::<i32>().clone())
}

/// Empty strings in partition columns become NULL: in a Delta log the two cannot be told apart, and a row must be in the
/// table what it was when it was staged.
pub fn canonical(batch: RecordBatch, columns: &[String]) -> Result<RecordBatch> {
    let schema = batch.schema();
    let mut arrays = batch.columns().to_vec();
    for name in columns {
        let i = schema.index_of(name)?;
        if let Some(texts) = arrays[i].as_string_opt::<i32>()
            && texts.iter().any(|t| t == Some(""))
        {
            let texts: StringArray = texts.iter().map(|t| t.filter(|t| !t.is_empty())).collect();
            arrays[i] = Arc::new(texts);
        }
    }
    Ok(RecordBatch::try_new(schema, arrays)?)
}

/// Splits `batch` by its partition columns, in order of first appearance. The values, and the row numbers of each part.
pub fn split(batch: &RecordBatch, columns: &[String]) -> Result<Vec<(PartitionValues, UInt64Array)>> {
    let mut arrays = Vec::with_capacity(columns.len());
    for name in columns {
        let column = batch.column_by_name(name);
        arrays.push(Arc::clone(column.ok_or_else(|| Error::internal(format!("no partition column `{name}`")))?));
    }
    let fields = arrays.iter().map(|a| SortField::new(a.data_type().clone())).collect();
    let rows = RowConverter::new(fields)?.convert_columns(&arrays)?;
    let mut groups: IndexMap<&[u8], Vec<u64>> = IndexMap::new();
    let rows: Vec<_> = rows.iter().collect();
    for (i, row) in rows.iter().enumerate() {
        groups.entry(row.data()).or_default().push(i as u64);
    }
    let texts = arrays.iter().map(texts).collect::<Result<Vec<_>>>()?;
    Ok(groups
        .into_values()
        .map(|rows| {
            let first = rows[0] as usize;
            let values = columns
                .iter()
                .zip(&texts)
                .map(|(name, text)| {
                    let value = text.is_valid(first).then(|| text.value(first).to_string());
                    (name.clone(), value)
                })
                .collect();
            (values, UInt64Array::from(rows))
        })
        .collect())
}

/// The rows at `rows` without their partition columns.
pub fn body(batch: &RecordBatch, rows: Option<&UInt64Array>, file_schema: &SchemaRef) -> Result<RecordBatch> {
    let indices =
        file_schema.fields().iter().map(|f| batch.schema().index_of(f.name())).collect::<Result<Vec<_>, _>>()?;
    let projected = batch.project(&indices)?;
    Ok(match rows {
        Some(rows) => take_record_batch(&projected, rows)?,
        None => projected,
    })
}

/// The schema of data files: the table's without partition columns.
pub fn file_schema(schema: &SchemaRef, columns: &[String]) -> SchemaRef {
    if columns.is_empty() {
        return Arc::clone(schema);
    }
    let fields: Vec<_> = schema.fields().iter().filter(|f| !columns.contains(f.name())).cloned().collect();
    Arc::new(Schema::new(fields))
}

/// `day=2026-01-01/`: for people; the log alone says what the values are, so odd characters are simply replaced.
pub fn directory(values: &PartitionValues, columns: &[String]) -> String {
    let safe = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).take(100).collect()
    };
    let mut out = String::new();
    for column in columns {
        let value = values.get(column).and_then(|v| v.as_deref());
        out.push_str(&format!("{}={}/", safe(column), value.map_or("__HIVE_DEFAULT_PARTITION__".to_string(), safe)));
    }
    out
}

/// The value of a partition column as a scalar of its type.
pub fn scalar(values: &PartitionValues, column: &str, data_type: &DataType) -> Result<ScalarValue> {
    match values.get(column).and_then(|v| v.as_deref()).filter(|v| !v.is_empty()) {
        None => Ok(ScalarValue::try_from(data_type)?),
        Some(text) => Ok(ScalarValue::try_from_string(text.to_string(), data_type)?),
    }
}

/// Between which instants (µs) a TIMESTAMP or DATE of a partition is: it is one.
pub fn instant(values: &PartitionValues, column: &str, schema: &Schema) -> Option<(i64, i64)> {
    values.get(column)?;
    let value = scalar(values, column, schema.field_with_name(column).ok()?.data_type()).ok()?;
    match value.cast_to(&DataType::Timestamp(TimeUnit::Microsecond, None)).ok()? {
        ScalarValue::TimestampMicrosecond(at, _) => at.map(|at| (at, at)),
        _ => None,
    }
}

/// `rows` copies of the value.
pub fn constant(values: &PartitionValues, column: &str, data_type: &DataType, rows: usize) -> Result<ArrayRef> {
    match scalar(values, column, data_type)? {
        null if null.is_null() => Ok(new_null_array(data_type, rows)),
        value => Ok(value.to_array_of_size(rows)?),
    }
}

//! Values as JSON text: `to_json`, `parse_json`, `object_construct`.
//!
//! | written | gives |
//! |---|---|
//! | `to_json(x)`, `json_from_scalar(x)` | a STRUCT, LIST, MAP or plain value as JSON; NULL of NULL. Fields that are NULL are left out, as Spark does |
//! | `parse_json(t)` | the text, compact; an error if it is no JSON. `try_parse_json`: NULL |
//! | `object_construct(k, v, …)` | an object; members whose key or value is NULL are left out. `object_construct_keep_null`: values are `null` |
//!
//! There is no type for JSON: these texts are what JSON is. So a text inside a value is a JSON string, unless it stands in a STRUCT with the
//! one field [`RAW`], which `plan` makes around calls that give JSON.

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, TimeUnit, TimestampMicrosecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, NaiveDate, SecondsFormat};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

use super::json_path::compact;

/// The field of a STRUCT that stands for the JSON text in it.
pub const RAW: &str = "__json";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Make {
    Value,
    Parsed { strict: bool },
    Object { nulls: bool },
}

/// The functions.
pub(super) fn functions() -> impl Iterator<Item = ScalarUDF> {
    [
        ("to_json", Make::Value),
        ("parse_json", Make::Parsed { strict: true }),
        ("try_parse_json", Make::Parsed { strict: false }),
        ("object_construct", Make::Object { nulls: false }),
        ("object_construct_keep_null", Make::Object { nulls: true }),
    ]
    .into_iter()
    .map(|(name, make)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        // The names that `datafusion-functions-json` has for it.
        let aliases: &[&str] = if make == Make::Value { &["json_from_scalar", "scalar_to_json"] } else { &[] };
        ScalarUDF::from(ToJson { name, aliases: aliases.iter().map(|a| a.to_string()).collect(), make, signature })
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToJson {
    name: &'static str,
    aliases: Vec<String>,
    make: Make,
    signature: Signature,
}

impl ScalarUDFImpl for ToJson {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.make, types) {
            (Make::Value, [value]) => Ok(vec![value.clone()]),
            (Make::Value, _) => plan_err!("to_json takes one value"),
            (Make::Parsed { .. }, [text]) if text.is_string() || text.is_null() => Ok(vec![DataType::Utf8]),
            (Make::Parsed { .. }, _) => plan_err!("{} takes a text", self.name),
            (Make::Object { .. }, types) if types.len() % 2 == 0 => {
                let each = |(i, t): (usize, &DataType)| match (i % 2, t) {
                    (1, t) => Ok(t.clone()),
                    (_, t) if t.is_string() || t.is_null() => Ok(DataType::Utf8),
                    (_, t) => plan_err!("the keys of {} are texts, not {t}", self.name),
                };
                types.iter().enumerate().map(each).collect()
            }
            _ => plan_err!("{} takes keys and values: {}('a', 1, 'b', 2)", self.name, self.name),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let columns = args.args.iter().map(|a| a.to_array(rows)).collect::<Result<Vec<ArrayRef>>>()?;
        let mut texts = StringBuilder::with_capacity(rows, rows * 16);
        for row in 0..rows {
            texts.append_option(self.text(&columns, row)?);
        }
        let texts = texts.finish();
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&texts, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(texts)))
    }
}

impl ToJson {
    fn text(&self, columns: &[ArrayRef], row: usize) -> Result<Option<String>> {
        let mut out = String::new();
        match (self.make, columns) {
            (Make::Value, [value]) => {
                if is_absent(value, row) {
                    return Ok(None);
                }
                write(&mut out, value, row)?;
            }
            (Make::Parsed { strict }, [text]) => {
                let text = cast(text, &DataType::Utf8)?;
                let text = text.as_string::<i32>();
                // Snowflake: of an empty text, nothing.
                if text.is_null(row) || text.value(row).trim().is_empty() {
                    return Ok(None);
                }
                return match compact(text.value(row)) {
                    None if strict => exec_err!("this text is no JSON: {}", text.value(row)),
                    parsed => Ok(parsed),
                };
            }
            (Make::Object { nulls }, members) => {
                out.push('{');
                for member in members.chunks_exact(2) {
                    let (key, value) = (cast(&member[0], &DataType::Utf8)?, &member[1]);
                    if key.is_null(row) || (is_absent(value, row) && !nulls) {
                        continue;
                    }
                    name(&mut out, key.as_string::<i32>().value(row));
                    write(&mut out, value, row)?;
                }
                out.push('}');
            }
            _ => return plan_err!("{} takes one value", self.name),
        }
        Ok(Some(out))
    }
}

/// Whether a value is NULL: a raw text, too.
fn is_absent(values: &ArrayRef, row: usize) -> bool {
    values.is_null(row) || values.data_type().is_null() || raw(values).is_some_and(|text| text.is_null(row))
}

/// The JSON texts that a column stands for.
fn raw(values: &ArrayRef) -> Option<&ArrayRef> {
    match values.data_type() {
        DataType::Struct(fields) if fields.len() == 1 && fields[0].name() == RAW => Some(values.as_struct().column(0)),
        _ => None,
    }
}

/// A member's key behind what stands before it.
fn name(out: &mut String, key: &str) {
    if !out.ends_with(['{', '[']) {
        out.push(',');
    }
    quoted(out, key);
    out.push(':');
}

fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn float(out: &mut String, value: f64) {
    match value {
        v if v.is_nan() => out.push_str("\"NaN\""),
        v if v.is_infinite() => out.push_str(if v > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" }),
        v => out.push_str(&format!("{v:?}")),
    }
}

fn list(out: &mut String, items: &ArrayRef) -> Result<()> {
    out.push('[');
    for i in 0..items.len() {
        if i > 0 {
            out.push(',');
        }
        write(out, items, i)?;
    }
    out.push(']');
    Ok(())
}

/// Appends one value.
fn write(out: &mut String, values: &ArrayRef, row: usize) -> Result<()> {
    if is_absent(values, row) {
        out.push_str("null");
        return Ok(());
    }
    if let Some(text) = raw(values) {
        out.push_str(cast(text, &DataType::Utf8)?.as_string::<i32>().value(row));
        return Ok(());
    }
    match values.data_type() {
        DataType::Boolean => out.push_str(if values.as_boolean().value(row) { "true" } else { "false" }),
        DataType::Float32 => float(out, f64::from(values.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => float(out, values.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => out.push_str(&values.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Date32 => {
            let days = values.as_primitive::<Date32Type>().value(row);
            let date = NaiveDate::from_epoch_days(days).map(|d| d.to_string()).unwrap_or_default();
            quoted(out, &date);
        }
        DataType::Timestamp(_, zone) => {
            let micros = cast(values, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
            let micros = micros.as_primitive::<TimestampMicrosecondType>().value(row);
            let digits = if micros % 1000 == 0 { SecondsFormat::Millis } else { SecondsFormat::Micros };
            let instant = DateTime::from_timestamp_micros(micros);
            quoted(out, &instant.map(|t| t.to_rfc3339_opts(digits, true)).unwrap_or_default());
        }
        DataType::List(_) => list(out, &values.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => list(out, &values.as_list::<i64>().value(row))?,
        DataType::FixedSizeList(..) => list(out, &values.as_fixed_size_list().value(row))?,
        DataType::Struct(fields) => {
            out.push('{');
            for (field, column) in fields.iter().zip(values.as_struct().columns()) {
                if !is_absent(column, row) {
                    name(out, field.name());
                    write(out, column, row)?;
                }
            }
            out.push('}');
        }
        DataType::Map(..) => {
            let entries = values.as_map().value(row);
            let keys = cast(entries.column(0), &DataType::Utf8)?;
            out.push('{');
            for i in 0..entries.len() {
                name(out, keys.as_string::<i32>().value(i));
                write(out, entries.column(1), i)?;
            }
            out.push('}');
        }
        other if other.is_integer() => {
            out.push_str(&ArrayFormatter::try_new(values, &FormatOptions::default())?.value(row).to_string())
        }
        other if other.is_string() => quoted(out, cast(values, &DataType::Utf8)?.as_string::<i32>().value(row)),
        _ => quoted(out, &ArrayFormatter::try_new(values, &FormatOptions::default())?.value(row).to_string()),
    }
    Ok(())
}

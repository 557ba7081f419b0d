//! Rows as SQL of DuckDB, rows as JSON, and whether two sets of them are the same.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, UInt64Type,
};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

use super::Known;
use crate::operators::tests::changes::table as table_of;
use crate::operators::tests::contents::{Contents, Multiset};
use crate::operators::tests::tables::{Kind, Row, Value};

/// The statements that make the table `name` of schema `src` with these rows.
pub fn table(name: &str, rows: &[Row]) -> Vec<String> {
    let columns = table_of(name).columns;
    let types: Vec<String> = columns.iter().map(|(column, kind)| format!("\"{column}\" {}", type_of(*kind))).collect();
    let mut statements = vec![format!("create table src.{name} ({})", types.join(", "))];
    if !rows.is_empty() {
        let row = |row: &Row| {
            let values: Vec<String> = columns.iter().zip(row).map(|((_, kind), value)| literal(*kind, value)).collect();
            format!("({})", values.join(", "))
        };
        statements
            .push(format!("insert into src.{name} values {}", rows.iter().map(row).collect::<Vec<_>>().join(", ")));
    }
    statements
}

fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "BIGINT",
        Kind::Text => "VARCHAR",
        Kind::Float => "DOUBLE",
        Kind::Decimal => "DECIMAL(10,2)",
        Kind::Bool => "BOOLEAN",
        Kind::Time => "TIMESTAMP",
        Kind::Day => "DATE",
        Kind::Struct => "STRUCT(x BIGINT, y VARCHAR)",
        Kind::List => "BIGINT[]",
        Kind::Map => "MAP(VARCHAR, BIGINT)",
    }
}

fn literal(kind: Kind, value: &Value) -> String {
    let int = |i: &Option<i64>| i.map_or("NULL".to_string(), |i| i.to_string());
    match (kind, value) {
        (_, Value::Null) => "NULL".into(),
        (Kind::Time, Value::Int(micros)) => format!("make_timestamp({micros})"),
        (Kind::Day, Value::Int(days)) => format!("date '1970-01-01' + {days}"),
        (Kind::Decimal, Value::Int(cents)) => format!("{cents}::DECIMAL(10,2) / 100"),
        (_, Value::Int(i)) => i.to_string(),
        (_, Value::Text(text)) => quoted(text),
        (_, Value::Float(f)) => format!("'{f}'::DOUBLE"),
        (_, Value::Bool(b)) => b.to_string(),
        (_, Value::Struct(x, y)) => {
            let y = y.as_deref().map_or("NULL".to_string(), quoted);
            format!("{{'x': {}, 'y': {y}}}", int(x))
        }
        (_, Value::List(items)) => {
            format!("[{}]::BIGINT[]", items.iter().map(int).collect::<Vec<_>>().join(", "))
        }
        (_, Value::Map(entries)) => {
            let keys: Vec<String> = entries.iter().map(|(k, _)| quoted(k)).collect();
            let values: Vec<String> = entries.iter().map(|(_, v)| int(v)).collect();
            format!("map([{}]::VARCHAR[], [{}]::BIGINT[])", keys.join(", "), values.join(", "))
        }
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Every row of `set` as an array, as tests/python/duckdb_rows.py writes them.
pub fn rows(contents: &Contents, set: &Multiset) -> Vec<Json> {
    let (batch, weights) = contents.decoded(set.iter());
    let row = |i: usize| Json::Array(batch.columns().iter().map(|column| cell(column, i)).collect());
    let times = |(i, weight): (usize, i64)| {
        std::iter::repeat_n(row(i), usize::try_from(weight).expect("no row weighs less than nothing"))
    };
    weights.into_iter().enumerate().flat_map(times).collect()
}

/// The same of batches.
pub fn batches(batches: &[RecordBatch]) -> Vec<Json> {
    let row = |batch: &RecordBatch, i: usize| batch.columns().iter().map(|column| cell(column, i)).collect::<Json>();
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |i| row(batch, i))).collect()
}

fn cell(column: &ArrayRef, i: usize) -> Json {
    if column.is_null(i) {
        return Json::Null;
    }
    let list = |items: ArrayRef| (0..items.len()).map(|i| cell(&items, i)).collect::<Vec<Json>>();
    match column.data_type() {
        DataType::Boolean => json!(column.as_boolean().value(i)),
        DataType::Int8 => json!(column.as_primitive::<Int8Type>().value(i)),
        DataType::Int16 => json!(column.as_primitive::<Int16Type>().value(i)),
        DataType::Int32 => json!(column.as_primitive::<Int32Type>().value(i)),
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(i)),
        DataType::UInt64 => json!(column.as_primitive::<UInt64Type>().value(i)),
        DataType::Float64 => match column.as_primitive::<Float64Type>().value(i) {
            f if f.is_nan() => json!("NaN"),
            f if f.is_infinite() => json!(if f > 0.0 { "Infinity" } else { "-Infinity" }),
            f => json!(f),
        },
        DataType::Decimal128(_, scale) => {
            json!(column.as_primitive::<Decimal128Type>().value(i) as f64 / 10f64.powi(i32::from(*scale)))
        }
        DataType::Utf8 => json!(column.as_string::<i32>().value(i)),
        DataType::Utf8View => json!(column.as_string_view().value(i)),
        DataType::Date32 => json!(format!("date {}", column.as_primitive::<Date32Type>().value(i))),
        DataType::Timestamp(..) => {
            json!(format!("time {}", column.as_primitive::<TimestampMicrosecondType>().value(i)))
        }
        DataType::List(_) => Json::Array(list(column.as_list::<i32>().value(i))),
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns();
            fields.iter().zip(columns).map(|(field, column)| (field.name().clone(), cell(column, i))).collect()
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(i);
            let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1));
            (0..entries.len()).map(|i| (keys.value(i).to_string(), cell(values, i))).collect()
        }
        other => panic!("{other}"),
    }
}

/// Whether two values are the same, numbers but for 1e-9 of their size.
fn same(a: &Json, b: &Json, known: Known) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= (1e-9 * a.abs().max(b.abs()).max(1.0)).max(known.rounding)
        }
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, known)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b, known)))
        }
        (a, b) => a == b,
    }
}

/// What a row is called where numbers do not count.
fn outline(row: &Json) -> String {
    match row {
        Json::Number(_) => "0".into(),
        Json::Array(items) => items.iter().map(outline).collect::<Vec<_>>().join("|"),
        Json::Object(members) => {
            members.iter().map(|(k, v)| format!("{k}={}", outline(v))).collect::<Vec<_>>().join("|")
        }
        other => other.to_string(),
    }
}

/// The rows that only one of the two has; None if there are none.
pub fn difference(maintained: &[Json], other: &[Json]) -> Option<String> {
    difference_but(maintained, other, Known::default())
}

/// The same, but for known differences.
pub fn difference_but(maintained: &[Json], other: &[Json], known: Known) -> Option<String> {
    let plain = |row: &Json| match row {
        Json::Array(items) if known.nan => {
            items.iter().map(|item| if item == "NaN" { Json::Null } else { item.clone() }).collect()
        }
        row => row.clone(),
    };
    let (maintained, other): (Vec<Json>, Vec<Json>) =
        (maintained.iter().map(plain).collect(), other.iter().map(plain).collect());
    let mut left: BTreeMap<String, Vec<&Json>> = BTreeMap::new();
    for row in &other {
        left.entry(outline(row)).or_default().push(row);
    }
    let mut missing = Vec::new();
    for row in &maintained {
        let alike = left.entry(outline(row)).or_default();
        match alike.iter().position(|other| same(row, other, known)) {
            Some(at) => {
                alike.swap_remove(at);
            }
            None => missing.push(row.to_string()),
        }
    }
    let extra: Vec<String> = left.values().flatten().map(|row| row.to_string()).collect();
    let shown = |rows: &[String]| rows.iter().take(12).map(|row| format!("    {row}\n")).collect::<String>();
    let same = missing.is_empty() && extra.is_empty();
    (!same).then(|| {
        format!(
            "only maintained ({} of {}):\n{}only in DuckDB ({} of {}):\n{}",
            missing.len(),
            maintained.len(),
            shown(&missing),
            extra.len(),
            other.len(),
            shown(&extra)
        )
    })
}

#[test]
fn rows_are_the_same_in_any_order_and_within_a_billionth() {
    let rows = |text: &str| -> Vec<Json> { serde_json::from_str::<Json>(text).unwrap().as_array().unwrap().clone() };
    let left = rows(r#"[[1, "a", 0.1], [1, "a", 0.1], [null, "b", "NaN"], [{"x": 1}, [1, null], 1e12]]"#);
    let right = rows(
        r#"[[{"x": 1.0}, [1, null], 1000000000000.5], [1, "a", 0.1], [null, "b", "NaN"], [1, "a", 0.10000000000001]]"#,
    );
    assert_eq!(difference(&left, &right), None);
    for wrong in [
        r#"[[1, "a", 0.1], [null, "b", "NaN"], [{"x": 1}, [1, null], 1e12]]"#,
        r#"[[1, "a", 0.1], [1, "a", 0.10001], [null, "b", "NaN"], [{"x": 1}, [1, null], 1e12]]"#,
        r#"[[1, "a", 0.1], [1, "a", 0.1], [0, "b", "NaN"], [{"x": 1}, [1, null], 1e12]]"#,
        r#"[[1, "a", 0.1], [1, "a", 0.1], [null, "b", "NaN"], [{"x": 1}, [1, 0], 1e12]]"#,
    ] {
        assert!(difference(&left, &rows(wrong)).is_some(), "{wrong}");
        assert!(difference(&rows(wrong), &left).is_some(), "{wrong}");
    }
}

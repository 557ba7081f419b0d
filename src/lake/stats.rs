//! File statistics in the log: only those every reader uses rightly.
//!
//! Integers, dates, timestamps and short strings get bounds; decimals up to 15 digits too (a double holds them exactly).
//! Floats never (NaN stands outside any bound), longer decimals never (readers take JSON numbers through a double), binary and
//! booleans never. Timestamps are floored and ceiled to milliseconds, which is all the log can hold. Null counts always.

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::{cast, max, min};
use arrow::datatypes::{DataType, Decimal128Type, DecimalType, Int64Type, Schema, TimestampMicrosecondType};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat};
use serde_json::{Map, Value, json};
use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::error::Result;

/// Longer strings get no bound: a truncated one would be worth little and cost log bytes in every Remove and Add.
const MAX_STRING: usize = 64;
/// Bounds for the first columns only, as Delta's `dataSkippingNumIndexedCols` has it.
const MAX_COLUMNS: usize = 32;

/// Collects the statistics of one data file.
#[derive(Debug)]
pub struct Collector {
    rows: u64,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    name: String,
    nulls: Nulls,
    bounds: Bounds,
}

#[derive(Debug)]
enum Nulls {
    Leaf(u64),
    Struct(Vec<(String, Nulls)>),
}

#[derive(Debug)]
enum Bounds {
    None,
    Integer(Option<(i64, i64)>),
    Date(Option<(i64, i64)>),
    Timestamp {
        zone: bool,
        range: Option<(i64, i64)>,
    },
    Decimal {
        scale: i8,
        range: Option<(i128, i128)>,
    },
    /// `None` at either side: no value yet (outer) or one that is too long (inner).
    Text(Option<(Option<String>, Option<String>)>),
}

impl Collector {
    /// For files of `schema`.
    pub fn new(schema: &Schema) -> Self {
        let columns = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(i, field)| Column {
                name: field.name().clone(),
                nulls: Nulls::of(field.data_type()),
                bounds: if i < MAX_COLUMNS { Bounds::of(field.data_type()) } else { Bounds::None },
            })
            .collect();
        Collector { rows: 0, columns }
    }

    /// Takes so many rows in, whose columns follow.
    pub fn add_rows(&mut self, rows: usize) {
        self.rows += rows as u64;
    }

    /// Takes values of a column in, by its place in the schema.
    pub fn add_column(&mut self, at: usize, values: &ArrayRef) -> Result<()> {
        let Some(column) = self.columns.get_mut(at) else { return Ok(()) };
        column.nulls.add(values, None);
        column.bounds.add(values)
    }

    /// The statistics as the log holds them.
    pub fn to_json(&self) -> String {
        let (mut mins, mut maxs, mut nulls) = (Map::new(), Map::new(), Map::new());
        for column in &self.columns {
            nulls.insert(column.name.clone(), column.nulls.to_json());
            let (min, max) = column.bounds.to_json();
            if let Some(min) = min {
                mins.insert(column.name.clone(), min);
            }
            if let Some(max) = max {
                maxs.insert(column.name.clone(), max);
            }
        }
        json!({"numRecords": self.rows, "minValues": mins, "maxValues": maxs, "nullCount": nulls, "tightBounds": true})
            .to_string()
    }
}

/// `numRecords` of statistics in the log.
pub fn num_records(stats: &str) -> Option<u64> {
    serde_json::from_str::<Value>(stats).ok()?.get("numRecords")?.as_u64()
}

/// Between which instants (µs) all values of a TIMESTAMP or DATE column are; None where the statistics do not say.
pub fn instants(stats: &str, column: &str) -> Option<(i64, i64)> {
    let stats: Value = serde_json::from_str(stats).ok()?;
    let bound = |of: &str| {
        let text = stats.get(of)?.get(column)?.as_str()?;
        let day = || Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_time(NaiveTime::MIN).and_utc());
        let local = || Some(NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()?.and_utc());
        let instant = || Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc());
        Some(day().or_else(local).or_else(instant)?.timestamp_micros())
    };
    // Some writers cut the largest to whole milliseconds.
    Some((bound("minValues")?, bound("maxValues")?.saturating_add(999)))
}

/// The same statistics for a file some of whose rows are deleted: its bounds still hold but may be wide.
pub fn wide(stats: &str) -> String {
    match serde_json::from_str::<Map<String, Value>>(stats) {
        Ok(mut members) => {
            members.insert("tightBounds".to_string(), Value::Bool(false));
            Value::Object(members).to_string()
        }
        Err(_) => stats.to_string(),
    }
}

/// The statistics of a file with all rows of files with these, all of them made by a [`Collector`]; None where they are not.
pub fn joined(all: &[&str]) -> Option<String> {
    let all: Vec<Map<String, Value>> = all.iter().map(|s| serde_json::from_str(s).ok()).collect::<Option<_>>()?;
    let rows = all.iter().map(|stats| stats.get("numRecords")?.as_u64()).sum::<Option<u64>>()?;
    let tight = all.iter().all(|stats| stats.get("tightBounds") == Some(&Value::Bool(true)));
    let counts: Vec<&Value> = all.iter().map(|stats| stats.get("nullCount")).collect::<Option<_>>()?;
    let bounds = |of: &str, wins: Ordering| -> Option<Map<String, Value>> {
        let mut joined: BTreeMap<&String, Option<&Value>> = BTreeMap::new();
        let columns = all.iter().filter_map(|stats| stats.get(of)?.as_object()).flat_map(Map::keys);
        columns.for_each(|column| {
            joined.insert(column, None);
        });
        joined.retain(|column, bound| {
            for stats in &all {
                let count = |of: Option<&Value>| of?.get(column.as_str())?.as_u64();
                match stats.get(of).and_then(|bounds| bounds.get(column.as_str())) {
                    Some(new) if bound.is_none_or(|known| order(new, known) == Some(wins)) => *bound = Some(new),
                    Some(_) => {}
                    // A file whose rows are all NULL there has none, and needs none; one of long texts has none for the whole.
                    None if count(stats.get("nullCount")) == stats.get("numRecords").and_then(Value::as_u64) => {}
                    None => return false,
                }
            }
            true
        });
        Some(joined.into_iter().filter_map(|(column, bound)| Some((column.clone(), bound?.clone()))).collect())
    };
    let mins = bounds("minValues", Ordering::Less)?;
    let maxs = bounds("maxValues", Ordering::Greater)?;
    let nulls = total(&counts)?;
    Some(
        json!({"numRecords": rows, "minValues": mins, "maxValues": maxs, "nullCount": nulls, "tightBounds": tight})
            .to_string(),
    )
}

/// Bounds of one column, as they are ordered in it: whole numbers, texts (dates and instants among them), decimals.
fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
    }
}

/// Counts of NULLs, added up member by member.
fn total(counts: &[&Value]) -> Option<Value> {
    let first = counts.first()?;
    let Some(members) = first.as_object() else {
        return Some(json!(counts.iter().map(|count| count.as_u64()).sum::<Option<u64>>()?));
    };
    let member = |name: &String| {
        let counts: Vec<&Value> = counts.iter().map(|count| count.get(name)).collect::<Option<_>>()?;
        Some((name.clone(), total(&counts)?))
    };
    Some(Value::Object(members.keys().map(member).collect::<Option<_>>()?))
}

impl Nulls {
    fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Struct(fields) => {
                Nulls::Struct(fields.iter().map(|f| (f.name().clone(), Nulls::of(f.data_type()))).collect())
            }
            _ => Nulls::Leaf(0),
        }
    }

    fn add(&mut self, array: &ArrayRef, above: Option<&arrow::buffer::NullBuffer>) {
        let nulls = arrow::buffer::NullBuffer::union(above, array.logical_nulls().as_ref());
        match self {
            Nulls::Leaf(count) => *count += nulls.as_ref().map_or(0, |n| n.null_count()) as u64,
            Nulls::Struct(members) => {
                for ((_, member), column) in members.iter_mut().zip(array.as_struct().columns()) {
                    member.add(column, nulls.as_ref());
                }
            }
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Nulls::Leaf(count) => json!(count),
            Nulls::Struct(members) => {
                Value::Object(members.iter().map(|(name, member)| (name.clone(), member.to_json())).collect())
            }
        }
    }
}

fn widen<T: PartialOrd + Copy>(range: &mut Option<(T, T)>, low: Option<T>, high: Option<T>) {
    if let (Some(low), Some(high)) = (low, high) {
        *range = Some(match *range {
            None => (low, high),
            Some((l, h)) => (if low < l { low } else { l }, if high > h { high } else { h }),
        });
    }
}

impl Bounds {
    fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Bounds::Integer(None),
            DataType::Date32 => Bounds::Date(None),
            DataType::Timestamp(_, zone) => Bounds::Timestamp { zone: zone.is_some(), range: None },
            DataType::Decimal128(precision, scale) if *precision <= 15 => {
                Bounds::Decimal { scale: *scale, range: None }
            }
            DataType::Utf8 => Bounds::Text(None),
            _ => Bounds::None,
        }
    }

    fn add(&mut self, array: &ArrayRef) -> Result<()> {
        match self {
            Bounds::None => {}
            Bounds::Integer(range) | Bounds::Date(range) => {
                let days;
                let array = if matches!(array.data_type(), DataType::Date32) {
                    days = cast(array, &DataType::Int32)?;
                    &days
                } else {
                    array
                };
                let wide = cast(array, &DataType::Int64)?;
                let values = wide.as_primitive::<Int64Type>();
                widen(range, min(values), max(values));
            }
            Bounds::Timestamp { range, .. } => {
                let values = array.as_primitive::<TimestampMicrosecondType>();
                widen(range, min(values), max(values));
            }
            Bounds::Decimal { range, .. } => {
                let values = array.as_primitive::<Decimal128Type>();
                widen(range, min(values), max(values));
            }
            // Neither side will have a bound again.
            Bounds::Text(Some((None, None))) => {}
            Bounds::Text(range) => {
                if let Some((low, high)) = extremes(array.as_string()) {
                    let short = |text: &str| (text.len() <= MAX_STRING).then(|| text.to_string());
                    *range = Some(match range.take() {
                        None => (short(low), short(high)),
                        // Once a side has no bound it stays without.
                        Some((l, h)) => (
                            l.and_then(|l| if low < l.as_str() { short(low) } else { Some(l) }),
                            h.and_then(|h| if high > h.as_str() { short(high) } else { Some(h) }),
                        ),
                    });
                }
            }
        }
        Ok(())
    }

    fn to_json(&self) -> (Option<Value>, Option<Value>) {
        match self {
            Bounds::Integer(Some((low, high))) => (Some(json!(low)), Some(json!(high))),
            Bounds::Date(Some((low, high))) => (date(*low), date(*high)),
            Bounds::Timestamp { zone, range: Some((low, high)) } => {
                let ceiled = high.checked_add(999).unwrap_or(*high).div_euclid(1000);
                (timestamp(low.div_euclid(1000), *zone), timestamp(ceiled, *zone))
            }
            Bounds::Decimal { scale, range: Some((low, high)) } => (decimal(*low, *scale), decimal(*high, *scale)),
            Bounds::Text(Some((low, high))) => (low.clone().map(Value::String), high.clone().map(Value::String)),
            _ => (None, None),
        }
    }
}

/// The least and the greatest of the texts. Most values are between those found so far, which their first 16 bytes tell.
fn extremes(values: &StringArray) -> Option<(&str, &str)> {
    let (offsets, bytes) = (values.value_offsets(), values.value_data());
    let length = |i: usize| (offsets[i + 1] - offsets[i]) as usize;
    // By prefix and place. Of two short ones with the same prefix, only zeros at the end can tell one from the other.
    let is_less = |(a_prefix, a): (u128, usize), (b_prefix, b): (u128, usize)| {
        let may_differ = length(a) > PREFIX || length(a) != length(b);
        a_prefix < b_prefix || (a_prefix == b_prefix && may_differ && values.value(a) < values.value(b))
    };
    let mut found: Option<[(u128, usize); 2]> = None;
    for i in (0..values.len()).filter(|i| values.is_valid(*i)) {
        let new = (prefix(bytes, offsets[i] as usize, length(i)), i);
        match &mut found {
            None => found = Some([new, new]),
            Some([low, _]) if is_less(new, *low) => *low = new,
            Some([_, high]) if is_less(*high, new) => *high = new,
            Some(_) => {}
        }
    }
    found.map(|[(_, low), (_, high)]| (values.value(low), values.value(high)))
}

/// As many bytes as most texts have that are names, codes and numbers: equal ones are not compared any further then.
const PREFIX: usize = size_of::<u128>();

/// The first bytes of the text that stands there, zeros where there are fewer, as a number in the order of texts.
#[inline]
fn prefix(bytes: &[u8], start: usize, length: usize) -> u128 {
    match bytes.get(start..).and_then(|rest| rest.first_chunk::<PREFIX>()) {
        Some(word) if length >= PREFIX => u128::from_be_bytes(*word),
        Some(word) if length > 0 => u128::from_be_bytes(*word) & (u128::MAX << (8 * (PREFIX - length))),
        // The last ones of the array.
        _ => (0..length).fold(0, |prefix, i| prefix | u128::from(bytes[start + i]) << (8 * (PREFIX - 1 - i))),
    }
}

/// Years outside 0..=9999 have no ISO text that every reader understands.
fn sane(at: &DateTime<chrono::Utc>) -> bool {
    use chrono::Datelike;
    (0..=9999).contains(&at.year())
}

fn date(days: i64) -> Option<Value> {
    let at = DateTime::from_timestamp(days.checked_mul(86_400)?, 0).filter(sane)?;
    Some(Value::String(at.format("%Y-%m-%d").to_string()))
}

fn timestamp(millis: i64, zone: bool) -> Option<Value> {
    let at = DateTime::from_timestamp_millis(millis).filter(sane)?;
    let mut text = at.to_rfc3339_opts(SecondsFormat::Millis, true);
    if !zone {
        text.pop();
    }
    Some(Value::String(text))
}

fn decimal(unscaled: i128, scale: i8) -> Option<Value> {
    if scale == 0 {
        return Some(json!(i64::try_from(unscaled).ok()?));
    }
    // At most 15 digits: the double nearest to the text prints as the text.
    let text = Decimal128Type::format_decimal(unscaled, 15, scale);
    serde_json::Number::from_f64(text.parse().ok()?).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        Date32Array, Decimal128Array, Float64Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    };
    use std::sync::Arc;

    fn stats(columns: Vec<(&str, ArrayRef)>) -> Value {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut collector = Collector::new(&batch.schema());
        collector.add_rows(batch.num_rows());
        (0..batch.num_columns()).for_each(|at| collector.add_column(at, batch.column(at)).unwrap());
        serde_json::from_str(&collector.to_json()).unwrap()
    }

    #[test]
    fn bounds_only_where_every_reader_uses_them_rightly() {
        let long = "x".repeat(65);
        let found = stats(vec![
            ("i", Arc::new(Int32Array::from(vec![Some(3), None, Some(-1)]))),
            ("f", Arc::new(Float64Array::from(vec![1.0, f64::NAN, 2.0]))),
            ("d", Arc::new(Date32Array::from(vec![0, 1, -1]))),
            ("t", Arc::new(TimestampMicrosecondArray::from(vec![1, -1, 1001]).with_timezone("UTC"))),
            ("n", Arc::new(TimestampMicrosecondArray::from(vec![0, 0, 0]))),
            ("s", Arc::new(StringArray::from(vec!["b", "a", &long]))),
            ("p", Arc::new(Decimal128Array::from(vec![-150, 5, 12345]).with_precision_and_scale(15, 2).unwrap())),
            ("q", Arc::new(Decimal128Array::from(vec![1, 2, 3]).with_precision_and_scale(16, 2).unwrap())),
        ]);
        assert_eq!(found["numRecords"], 3);
        assert_eq!(
            found["minValues"],
            json!({"i": -1, "d": "1969-12-31", "t": "1969-12-31T23:59:59.999Z", "n": "1970-01-01T00:00:00.000",
                   "s": "a", "p": -1.5})
        );
        assert_eq!(
            found["maxValues"],
            json!({"i": 3, "d": "1970-01-02", "t": "1970-01-01T00:00:00.002Z", "n": "1970-01-01T00:00:00.000",
                   "p": 123.45})
        );
        assert_eq!(found["nullCount"], json!({"i": 1, "f": 0, "d": 0, "t": 0, "n": 0, "s": 0, "p": 0, "q": 0}));
        let span = |column: &str| instants(&found.to_string(), column);
        let day = 86_400_000_000;
        assert_eq!(span("d"), Some((-day, day + 999)));
        assert_eq!((span("t"), span("n")), (Some((-1000, 2999)), Some((0, 999))));
        assert_eq!((span("s"), span("i"), span("f")), (None, None, None));
    }

    /// Of parts of the same rows.
    #[test]
    fn joined_statistics_are_those_of_all_rows() {
        let texts = [Some("b"), None, Some("a"), Some("x"), None, Some("zz"), Some("c"), None];
        let columns = |from: usize, to: usize| -> Vec<(&str, ArrayRef)> {
            let rows = from as i64..to as i64;
            let at = TimestampMicrosecondArray::from_iter_values(rows.clone().map(|i| (i - 4) * 1_500_700));
            let amount = Decimal128Array::from_iter_values(rows.clone().map(|i| i128::from(i * 37 % 11) - 5));
            let inner: ArrayRef =
                Arc::new(rows.clone().map(|i| (i % 3 != 0).then_some(i as i32)).collect::<Int32Array>());
            let fields = vec![arrow::datatypes::Field::new("x", DataType::Int32, true)].into();
            vec![
                (
                    "i",
                    Arc::new(
                        rows.clone().map(|i| (i > 2).then_some(1 << (i * 8))).collect::<arrow::array::Int64Array>(),
                    ),
                ),
                ("s", Arc::new(texts[from..to].iter().copied().collect::<StringArray>())),
                ("t", Arc::new(at.with_timezone("UTC"))),
                ("p", Arc::new(amount.with_precision_and_scale(15, 2).unwrap())),
                ("f", Arc::new(Float64Array::from_iter_values(rows.map(|i| i as f64)))),
                ("g", Arc::new(arrow::array::StructArray::new(fields, vec![inner], None))),
            ]
        };
        for cuts in [vec![0, 8], vec![0, 3, 8], vec![0, 1, 2, 3, 4, 5, 6, 7, 8], vec![0, 4, 5, 8]] {
            let parts: Vec<String> = cuts.windows(2).map(|cut| stats(columns(cut[0], cut[1])).to_string()).collect();
            let found = joined(&parts.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&found).unwrap(), stats(columns(0, 8)), "{cuts:?}");
        }
        // What is too long for a bound could be the least or the greatest.
        let texts = ["x".repeat(65), "a".to_string()].map(|s| stats(vec![("s", Arc::new(StringArray::from(vec![s])))]));
        let found: Value =
            serde_json::from_str(&joined(&texts.map(|s| s.to_string()).each_ref().map(String::as_str)).unwrap())
                .unwrap();
        assert_eq!(
            (&found["minValues"], &found["maxValues"], &found["numRecords"]),
            (&json!({}), &json!({}), &json!(2))
        );
        assert_eq!(joined(&["{}"]), None);
        assert!(joined(&[&wide(&stats(columns(0, 1)).to_string())]).unwrap().contains(r#""tightBounds":false"#));
    }

    #[test]
    fn extremes_of_texts() {
        let texts = [
            "b",
            "ab",
            "abcdefghijklmnop",
            "abcdefghijklmnopa",
            "abcdefghijklmnopb",
            "",
            "a\0",
            "a",
            "z\u{e9}",
            "zz",
            "bcdefghijklmnopqr",
        ];
        for skip in 0..texts.len() {
            let values: StringArray = texts.iter().skip(skip).map(|t| Some(*t)).chain([None]).collect();
            let (low, high) = (texts[skip..].iter().min(), texts[skip..].iter().max());
            assert_eq!(extremes(&values), low.copied().zip(high.copied()), "{skip}");
        }
        assert_eq!(extremes(&StringArray::new_null(2)), None);
    }

    #[test]
    fn null_counts_of_structs_include_null_parents() {
        let inner: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]));
        let fields = vec![arrow::datatypes::Field::new("x", DataType::Int32, true)].into();
        let nulls = arrow::buffer::NullBuffer::from(vec![true, true, false]);
        let array = arrow::array::StructArray::new(fields, vec![inner], Some(nulls));
        let found = stats(vec![("a", Arc::new(array))]);
        assert_eq!(found["nullCount"], json!({"a": {"x": 2}}));
    }
}

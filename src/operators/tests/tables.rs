//! Random tables: schemas with every kind of column, rows with NULLs, NaN, zeros and nested values, and their Arrow form.

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListArray, MapArray, RecordBatch,
    StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, SchemaRef};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::types::SignedBatch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Int,
    Text,
    /// With NaN and infinities.
    Float,
    Decimal,
    Bool,
    Time,
    Day,
    /// `x` BIGINT, `y` STRING.
    Struct,
    /// Of BIGINT.
    List,
    /// STRING to BIGINT.
    Map,
}

impl Kind {
    pub fn is_nested(self) -> bool {
        matches!(self, Kind::Struct | Kind::List | Kind::Map)
    }

    pub fn sql(self) -> &'static str {
        match self {
            Kind::Int => "BIGINT",
            Kind::Text => "STRING",
            Kind::Float => "DOUBLE",
            Kind::Decimal => "DECIMAL(10,2)",
            Kind::Bool => "BOOLEAN",
            Kind::Time => "TIMESTAMP",
            Kind::Day => "DATE",
            Kind::Struct => "STRUCT<x: BIGINT, y: STRING>",
            Kind::List => "ARRAY<BIGINT>",
            Kind::Map => "MAP<STRING, BIGINT>",
        }
    }
}

/// Decimals are hundredths, times µs, days days since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Value {
    Null,
    Int(i64),
    Text(String),
    #[serde(with = "float")]
    Float(f64),
    Bool(bool),
    Struct(Option<i64>, Option<String>),
    List(Vec<Option<i64>>),
    Map(Vec<(String, Option<i64>)>),
}

/// Floats as text: JSON has no NaN.
mod float {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

pub type Row = Vec<Value>;

pub struct Table {
    pub name: &'static str,
    pub columns: &'static [(&'static str, Kind)],
    /// Keys are drawn below this: how many rows share one.
    pub keys: i64,
}

use Kind::*;

/// A fact table, three dimensions, one of them with several rows per key, and events.
pub const TABLES: [Table; 5] = [
    Table {
        name: "t",
        columns: &[
            ("id", Int),
            ("k1", Int),
            ("k2", Int),
            ("s", Text),
            ("f", Float),
            ("d", Decimal),
            ("b", Bool),
            ("ts", Time),
            ("day", Day),
            ("st", Struct),
            ("li", List),
        ],
        keys: 8,
    },
    Table { name: "a", columns: &[("k1", Int), ("an", Text), ("av", Int)], keys: 8 },
    Table {
        name: "bb",
        columns: &[("k2", Int), ("bn", Text), ("bd", Decimal), ("since", Time), ("tags", List)],
        keys: 12,
    },
    Table { name: "c", columns: &[("s", Text), ("cv", Int), ("cf", Float), ("m", Map)], keys: 4 },
    Table {
        name: "e",
        columns: &[("id", Int), ("k1", Int), ("s", Text), ("f", Float), ("ts", Time), ("st", Struct), ("m", Map)],
        keys: 10,
    },
];

pub fn value(kind: Kind, keys: i64, rng: &mut ChaCha8Rng) -> Value {
    if rng.random_bool(0.12) {
        return Value::Null;
    }
    match kind {
        Int => Value::Int(rng.random_range(0..keys)),
        Text => Value::Text(text(rng)),
        // Eighths: their sums are exact in any order, so stock float sums can be compared bit for bit.
        Float => Value::Float(match rng.random_range(0..20) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 | 3 => 0.0,
            _ => f64::from(rng.random_range(-40..40)) / 8.0,
        }),
        Decimal => Value::Int(rng.random_range(-500..500)),
        Bool => Value::Bool(rng.random()),
        Time => Value::Int(1_700_000_000_000_000 + rng.random_range(0..10) * 3_600_000_000),
        Day => Value::Int(19_000 + rng.random_range(0..5)),
        Struct => Value::Struct(small(rng), rng.random_bool(0.8).then(|| text(rng))),
        List => Value::List((0..rng.random_range(0..3)).map(|_| small(rng)).collect()),
        Map => Value::Map(["a", "b"][..rng.random_range(0..3)].iter().map(|k| (k.to_string(), small(rng))).collect()),
    }
}

fn text(rng: &mut ChaCha8Rng) -> String {
    ["", "a", "b", "ab", "zażółć", "x y"][rng.random_range(0..6)].to_string()
}

fn small(rng: &mut ChaCha8Rng) -> Option<i64> {
    rng.random_bool(0.8).then(|| rng.random_range(0..3))
}

pub fn row(table: &Table, rng: &mut ChaCha8Rng) -> Row {
    table.columns.iter().map(|(_, kind)| value(*kind, table.keys, rng)).collect()
}

/// `rows` in the relation's stored schema.
pub fn batch(table: &Table, schema: &SchemaRef, rows: &[&Row]) -> RecordBatch {
    let columns = table.columns.iter().enumerate().map(|(c, (_, kind))| {
        let values: Vec<&Value> = rows.iter().map(|r| &r[c]).collect();
        array(*kind, schema.field(c).data_type(), &values)
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect()).unwrap()
}

fn int(value: &&Value) -> Option<i64> {
    if let Value::Int(i) = value { Some(*i) } else { None }
}

fn array(kind: Kind, stored: &DataType, values: &[&Value]) -> ArrayRef {
    let ints = values.iter().map(int);
    match kind {
        Int => Arc::new(ints.collect::<Int64Array>()),
        Text => {
            let texts = values.iter().map(|v| if let Value::Text(t) = v { Some(t.as_str()) } else { None });
            Arc::new(texts.collect::<StringArray>())
        }
        Float => {
            let floats = values.iter().map(|v| if let Value::Float(f) = v { Some(*f) } else { None });
            Arc::new(floats.collect::<Float64Array>())
        }
        Decimal => {
            let array = ints.map(|v| v.map(i128::from)).collect::<Decimal128Array>();
            Arc::new(array.with_precision_and_scale(10, 2).unwrap())
        }
        Bool => {
            let bools = values.iter().map(|v| if let Value::Bool(b) = v { Some(*b) } else { None });
            Arc::new(bools.collect::<BooleanArray>())
        }
        Time => Arc::new(ints.collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Day => Arc::new(ints.map(|v| v.map(|i| i as i32)).collect::<Date32Array>()),
        Struct | List | Map => nested(stored, values),
    }
}

fn nested(stored: &DataType, values: &[&Value]) -> ArrayRef {
    let nulls = Some(NullBuffer::from_iter(values.iter().map(|v| !matches!(v, Value::Null))));
    match stored {
        DataType::Struct(fields) => {
            let x = values.iter().map(|v| if let Value::Struct(x, _) = v { *x } else { None });
            let y = values.iter().map(|v| if let Value::Struct(_, y) = v { y.as_deref() } else { None });
            let columns: Vec<ArrayRef> =
                vec![Arc::new(x.collect::<Int64Array>()), Arc::new(y.collect::<StringArray>())];
            Arc::new(StructArray::new(fields.clone(), columns, nulls))
        }
        DataType::List(element) => {
            let items = |v: &&Value| if let Value::List(items) = v { items.clone() } else { vec![] };
            let offsets = OffsetBuffer::from_lengths(values.iter().map(|v| items(v).len()));
            let all: Int64Array = values.iter().flat_map(items).collect();
            Arc::new(ListArray::new(Arc::clone(element), offsets, Arc::new(all), nulls))
        }
        DataType::Map(entry, ordered) => {
            let pairs = |v: &&Value| if let Value::Map(pairs) = v { pairs.clone() } else { vec![] };
            let offsets = OffsetBuffer::from_lengths(values.iter().map(|v| pairs(v).len()));
            let all: Vec<(String, Option<i64>)> = values.iter().flat_map(pairs).collect();
            let keys = StringArray::from_iter_values(all.iter().map(|(k, _)| k));
            let items: Int64Array = all.iter().map(|(_, v)| *v).collect();
            let DataType::Struct(fields) = entry.data_type() else { panic!("{entry}") };
            let entries = StructArray::new(fields.clone(), vec![Arc::new(keys), Arc::new(items)], None);
            Arc::new(MapArray::new(Arc::clone(entry), offsets, entries, nulls, *ordered))
        }
        other => panic!("{other}"),
    }
}

pub fn signed_batch(table: &Table, schema: &SchemaRef, rows: &[(Row, i64)]) -> SignedBatch {
    let plain: Vec<&Row> = rows.iter().map(|(r, _)| r).collect();
    let weights = Int64Array::from_iter_values(rows.iter().map(|(_, w)| *w));
    SignedBatch::new(batch(table, schema, &plain), weights).unwrap()
}

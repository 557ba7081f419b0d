//! Random tables: schemas with every key type, rows with NULLs, NaN, zeros and duplicates, and random signed changes of them.

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::SchemaRef;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
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
}

impl Kind {
    pub fn sql(self) -> &'static str {
        match self {
            Kind::Int => "BIGINT",
            Kind::Text => "STRING",
            Kind::Float => "DOUBLE",
            Kind::Decimal => "DECIMAL(10,2)",
            Kind::Bool => "BOOLEAN",
            Kind::Time => "TIMESTAMP",
            Kind::Day => "DATE",
        }
    }
}

#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Int(i64),
    Text(String),
    Float(f64),
    Bool(bool),
}

pub type Row = Vec<Value>;

pub struct Table {
    pub name: &'static str,
    pub columns: &'static [(&'static str, Kind)],
    /// Keys are drawn below this: how many rows share one.
    pub keys: i64,
}

use Kind::*;

/// A fact table and three dimensions, one of them with several rows per key.
pub const TABLES: [Table; 4] = [
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
        ],
        keys: 8,
    },
    Table { name: "a", columns: &[("k1", Int), ("an", Text), ("av", Int)], keys: 8 },
    Table { name: "bb", columns: &[("k2", Int), ("bn", Text), ("bd", Decimal), ("since", Time)], keys: 12 },
    Table { name: "c", columns: &[("s", Text), ("cv", Int), ("cf", Float)], keys: 4 },
];

fn value(kind: Kind, keys: i64, rng: &mut ChaCha8Rng) -> Value {
    if rng.random_bool(0.12) {
        return Value::Null;
    }
    match kind {
        Int => Value::Int(rng.random_range(0..keys)),
        Text => Value::Text(["", "a", "b", "ab", "zażółć", "x y"][rng.random_range(0..6)].to_string()),
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
    }
}

pub fn row(table: &Table, rng: &mut ChaCha8Rng) -> Row {
    table.columns.iter().map(|(_, kind)| value(*kind, table.keys, rng)).collect()
}

/// `rows` in the relation's stored schema.
pub fn batch(table: &Table, schema: &SchemaRef, rows: &[&Row]) -> RecordBatch {
    let int = |v: &Value| if let Value::Int(i) = v { Some(*i) } else { None };
    let columns = table.columns.iter().enumerate().map(|(c, (_, kind))| -> ArrayRef {
        let values = rows.iter().map(|r| &r[c]);
        match kind {
            Int => Arc::new(values.map(int).collect::<Int64Array>()),
            Text => Arc::new(
                values.map(|v| if let Value::Text(t) = v { Some(t.as_str()) } else { None }).collect::<StringArray>(),
            ),
            Float => Arc::new(
                values.map(|v| if let Value::Float(f) = v { Some(*f) } else { None }).collect::<Float64Array>(),
            ),
            Decimal => {
                let array = values.map(|v| int(v).map(i128::from)).collect::<Decimal128Array>();
                Arc::new(array.with_precision_and_scale(10, 2).unwrap())
            }
            Bool => {
                Arc::new(values.map(|v| if let Value::Bool(b) = v { Some(*b) } else { None }).collect::<BooleanArray>())
            }
            Time => Arc::new(values.map(int).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
            Day => Arc::new(values.map(|v| int(v).map(|i| i as i32)).collect::<Date32Array>()),
        }
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect()).unwrap()
}

/// A random change of `rows`, which it applies: inserts, deletes, updates, duplicates, rows that come and go; in random order,
/// over several batches.
pub fn change(table: &Table, schema: &SchemaRef, rows: &mut Vec<Row>, rng: &mut ChaCha8Rng) -> Vec<SignedBatch> {
    let mut signed: Vec<(Row, i64)> = Vec::new();
    match rng.random_range(0..20) {
        0..4 => {}
        4 => signed.extend(rows.drain(..).map(|r| (r, -1))),
        kind => {
            let append_only = kind < 8;
            for _ in 0..rng.random_range(0..12) {
                match rng.random_range(0..10) {
                    0..5 => {
                        let new = row(table, rng);
                        rows.push(new.clone());
                        signed.push((new, 1));
                    }
                    5 if !rows.is_empty() => {
                        let again = rows[rng.random_range(0..rows.len())].clone();
                        let times = rng.random_range(1..3);
                        (0..times).for_each(|_| rows.push(again.clone()));
                        signed.push((again, times));
                    }
                    6 if !append_only => {
                        let passing = row(table, rng);
                        signed.push((passing.clone(), 1));
                        signed.push((passing, -1));
                    }
                    7..9 if !append_only && !rows.is_empty() => {
                        let gone = rows.swap_remove(rng.random_range(0..rows.len()));
                        signed.push((gone, -1));
                    }
                    9 if !append_only && !rows.is_empty() => {
                        let at = rng.random_range(0..rows.len());
                        signed.push((rows[at].clone(), -1));
                        let column = rng.random_range(0..table.columns.len());
                        rows[at][column] = value(table.columns[column].1, table.keys, rng);
                        signed.push((rows[at].clone(), 1));
                    }
                    _ => {}
                }
            }
        }
    }
    signed.shuffle(rng);
    let mut batches = Vec::new();
    let mut rest = signed.as_slice();
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(rng.random_range(1..=rest.len()));
        batches.push(signed_batch(table, schema, head));
        rest = tail;
    }
    if rng.random_bool(0.1) {
        batches.push(SignedBatch::empty(Arc::clone(schema)));
    }
    batches
}

pub fn signed_batch(table: &Table, schema: &SchemaRef, rows: &[(Row, i64)]) -> SignedBatch {
    let plain: Vec<&Row> = rows.iter().map(|(r, _)| r).collect();
    let weights = Int64Array::from_iter_values(rows.iter().map(|(_, w)| *w));
    SignedBatch::new(batch(table, schema, &plain), weights).unwrap()
}

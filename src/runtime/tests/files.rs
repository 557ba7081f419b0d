//! Changes as the files of their sources.

use serde_json::{Value as Json, json};

use crate::operators::tests::changes::{Change, table};
use crate::operators::tests::tables::{Kind, Row, Value};

/// How a source tells its changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// Plain JSON rows, only ever added.
    Appended,
    /// Debezium events without a key: rows with weights.
    Signed,
    /// Debezium events by key: the first column.
    Keyed,
}

/// The changes of table `name`, one text per file.
pub fn files(name: &str, feed: Feed, changes: &[Change]) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    let mut rest: Vec<&Change> = changes.iter().filter(|c| c.table == name).collect();
    while !rest.is_empty() {
        if rest[0].cut || files.is_empty() {
            files.push(String::new());
        }
        let taken = match (feed, &rest[..]) {
            (Feed::Signed, [old, new, ..]) if old.weight == -1 && new.weight == 1 && !new.cut => 2,
            _ => 1,
        };
        let (now, later) = rest.split_at(taken);
        files.last_mut().unwrap().push_str(&lines(name, feed, now));
        rest = later.to_vec();
    }
    files
}

fn lines(name: &str, feed: Feed, changes: &[&Change]) -> String {
    let change = changes[0];
    let row = || json_row(name, &change.row);
    let record = match (feed, change.weight, changes.get(1)) {
        (_, 0, _) => return "{\"op\": \"c\", \"after\": {\"id\": \n".to_string(),
        (Feed::Appended, ..) => row(),
        (_, _, Some(new)) => json!({"op": "u", "before": row(), "after": json_row(name, &new.row), "ts_ms": 1}),
        (Feed::Keyed, 1.., _) => json!({"op": "u", "before": null, "after": row(), "ts_ms": 1}),
        (_, 1.., _) => json!({"op": "c", "before": null, "after": row(), "ts_ms": 1}),
        _ => json!({"op": "d", "before": row(), "after": null, "ts_ms": 1}),
    };
    format!("{record}\n").repeat(usize::try_from(change.weight.abs()).unwrap())
}

fn json_row(name: &str, row: &Row) -> Json {
    let columns = table(name).columns.iter().zip(row);
    Json::Object(columns.map(|((column, kind), value)| (column.to_string(), json_value(*kind, value))).collect())
}

fn json_value(kind: Kind, value: &Value) -> Json {
    match (kind, value) {
        (_, Value::Null) => Json::Null,
        (Kind::Decimal, Value::Int(i)) => {
            json!(format!("{}{}.{:02}", if *i < 0 { "-" } else { "" }, i.abs() / 100, i.abs() % 100))
        }
        (Kind::Time, Value::Int(i)) => json!(chrono::DateTime::from_timestamp_micros(*i).unwrap().to_rfc3339()),
        (Kind::Day, Value::Int(i)) => {
            json!(chrono::DateTime::from_timestamp(i * 86_400, 0).unwrap().date_naive().to_string())
        }
        (_, Value::Int(i)) => json!(i),
        (_, Value::Text(text)) => json!(text),
        (_, Value::Float(f)) if f.is_nan() => json!("NaN"),
        (_, Value::Float(f)) if f.is_infinite() => json!("Infinity"),
        (_, Value::Float(f)) => json!(f),
        (_, Value::Bool(b)) => json!(b),
        (_, Value::Struct(x, y)) => json!({"x": x, "y": y}),
        (_, Value::List(items)) => json!(items),
        (_, Value::Map(pairs)) => Json::Object(pairs.iter().map(|(k, v)| (k.clone(), json!(v))).collect()),
    }
}

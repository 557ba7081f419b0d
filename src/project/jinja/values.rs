//! Between JSON and minijinja's values.

use minijinja::Value;
use minijinja::value::ValueKind;
use serde_json::Value as Json;

use super::containers::{Dict, List};

/// A minijinja value as JSON; what JSON cannot say becomes text.
pub(in crate::project) fn to_json(value: &Value) -> Json {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => Json::Null,
        ValueKind::Bool => Json::Bool(value.is_true()),
        ValueKind::Number => match value.as_i64() {
            Some(i) if value.is_integer() => Json::from(i),
            _ => f64::try_from(value.clone()).map_or_else(|_| Json::String(value.to_string()), Json::from),
        },
        ValueKind::Seq | ValueKind::Iterable => match value.try_iter() {
            Ok(items) => Json::Array(items.map(|i| to_json(&i)).collect()),
            Err(_) => Json::String(value.to_string()),
        },
        ValueKind::Map => match value.try_iter() {
            Ok(keys) => {
                let entry = |k: Value| Some((k.to_string(), to_json(&value.get_item(&k).ok()?)));
                Json::Object(keys.filter_map(entry).collect())
            }
            Err(_) => Json::String(value.to_string()),
        },
        _ => Json::String(value.to_string()),
    }
}

/// JSON as a minijinja value; objects keep their order.
pub(in crate::project) fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Value::from(i),
            (None, Some(u)) => Value::from(u),
            (None, None) => Value::from(n.as_f64().unwrap_or_default()),
        },
        Json::String(s) => Value::from(s.as_str()),
        Json::Array(items) => List::value(items.iter().map(from_json).collect()),
        Json::Object(members) => Dict::value(members.iter().map(|(k, v)| (Value::from(k.as_str()), from_json(v)))),
    }
}

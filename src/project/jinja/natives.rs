//! dbt's functions and filters that need nothing but their arguments.

use md5::{Digest, Md5};
use minijinja::value::{Kwargs, Rest, Tuple, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, Value};
use serde_json::Value as Json;

use super::containers::{Dict, List};
use super::values::{from_json, to_json};
use crate::project::reader::parse_bool;

pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_function("fromjson", parse_json);
    environment.add_filter("fromjson", parse_json);
    environment.add_function("tojson", write_json);
    // minijinja's own escapes for HTML.
    environment.add_filter("tojson", write_json);
    environment.add_function("fromyaml", parse_yaml);
    environment.add_filter("fromyaml", parse_yaml);
    environment.add_function("toyaml", write_yaml);
    environment.add_filter("toyaml", write_yaml);
    environment.add_function("local_md5", |text: &str| hex(&Md5::digest(text.as_bytes())));
    environment.add_function("zip", |lists: Rest<ValueOrKwargs>| zip(&lists.into_values(), false));
    environment.add_function("zip_strict", |lists: Rest<ValueOrKwargs>| zip(&lists.into_values(), true));
    environment.add_function("set", |items: Value, default: Option<Value>| match items.try_iter() {
        Ok(items) => Ok(List::unique(items.collect())),
        Err(_) => Ok::<_, Error>(default.unwrap_or_else(|| Value::from(()))),
    });
    environment.add_function("set_strict", |items: Value| Ok::<_, Error>(List::unique(items.try_iter()?.collect())));
    environment.add_function("diff_of_two_dicts", diff_of_two_dicts);
    environment.add_function("debug", || "");
    environment.add_filter("as_bool", as_bool);
    environment.add_filter("as_number", as_number);
    environment.add_filter("as_text", |value: Value| value.to_string());
    environment.add_filter("as_native", |value: Value| match value.as_str().map(str::trim) {
        None => value,
        Some("True" | "true") => Value::from(true),
        Some("False" | "false") => Value::from(false),
        Some("None" | "none") => Value::from(()),
        Some(text) if text.starts_with(['[', '{']) => {
            serde_json::from_str::<Json>(text).map_or_else(|_| value.clone(), |json| from_json(&json))
        }
        Some(_) => as_number(value.clone()).unwrap_or(value),
    });
    environment.set_unknown_method_callback(method);
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn parse_json(text: Value, default: Option<Value>) -> Result<Value, Error> {
    let text = text.as_str().ok_or_else(|| invalid("fromjson reads text"))?;
    match (serde_json::from_str::<Json>(text), default) {
        (Ok(json), _) => Ok(from_json(&json)),
        (Err(_), Some(default)) => Ok(default),
        // The text is not quoted: it may be a secret.
        (Err(e), None) => Err(invalid(format!("fromjson: not valid JSON at line {} column {}", e.line(), e.column()))),
    }
}

/// JSON spaced as Python's `json.dumps` does, which dbt's own macros compare with.
fn write_json(value: Value, rest: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let sorted = rest.into_values().iter().any(|v| {
        v.is_kwargs() && Kwargs::try_from(v.clone()).is_ok_and(|k| k.get::<bool>("sort_keys").unwrap_or(false))
    });
    let mut out = String::new();
    spaced(&to_json(&value), sorted, &mut out);
    Ok(out)
}

fn spaced(json: &Json, sorted: bool, out: &mut String) {
    match json {
        Json::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                spaced(item, sorted, out);
            }
            out.push(']');
        }
        Json::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            if sorted {
                members.sort_by_key(|(key, _)| key.as_str());
            }
            out.push('{');
            for (i, (key, value)) in members.into_iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                out.push_str(&Json::from(key.as_str()).to_string());
                out.push_str(": ");
                spaced(value, sorted, out);
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

fn parse_yaml(text: Value, default: Option<Value>) -> Result<Value, Error> {
    let text = text.as_str().ok_or_else(|| invalid("fromyaml reads text"))?;
    match (serde_yaml::from_str::<Json>(text), default) {
        (Ok(json), _) => Ok(from_json(&json)),
        (Err(_), Some(default)) => Ok(default),
        (Err(_), None) => Err(invalid("fromyaml: not valid YAML")),
    }
}

fn write_yaml(value: Value, _: Rest<ValueOrKwargs>) -> Result<String, Error> {
    serde_yaml::to_string(&to_json(&value)).map_err(|e| invalid(format!("toyaml: {e}")))
}

fn zip(lists: &[Value], strict: bool) -> Result<Value, Error> {
    let (default, lists): (Option<Value>, &[Value]) = match lists.split_last() {
        Some((last, lists)) if last.is_kwargs() => (Kwargs::try_from(last.clone())?.get("default").ok(), lists),
        _ => (None, lists),
    };
    let columns: Result<Vec<Vec<Value>>, Error> = lists.iter().map(|l| Ok(l.try_iter()?.collect())).collect();
    let columns = match columns {
        Ok(columns) => columns,
        Err(e) if strict => return Err(e),
        Err(_) => return Ok(default.unwrap_or_else(|| Value::from(()))),
    };
    let rows = columns.iter().map(Vec::len).min().unwrap_or(0);
    let row = |i: usize| Value::from(Tuple::from(columns.iter().map(|c| c[i].clone()).collect::<Vec<_>>()));
    Ok(List::value((0..rows).map(row).collect()))
}

/// Values of the second dict that the first lacks, key by key, names compared without case: dbt's way to find grants.
fn diff_of_two_dicts(first: Value, second: Value) -> Result<Value, Error> {
    let lower = |v: &Value| v.to_string().to_lowercase();
    let mut different = Vec::new();
    for key in first.try_iter()? {
        let values: Vec<Value> = first.get_item(&key)?.try_iter()?.collect();
        let other = second.try_iter()?.find(|k| lower(k) == lower(&key));
        let known: Vec<String> = match other {
            Some(other) => second.get_item(&other)?.try_iter()?.map(|v| lower(&v)).collect(),
            None => Vec::new(),
        };
        let missing: Vec<Value> = values.into_iter().filter(|v| !known.contains(&lower(v))).collect();
        if !missing.is_empty() {
            different.push((key, List::value(missing)));
        }
    }
    Ok(Dict::value(different))
}

fn as_bool(value: Value) -> Result<Value, Error> {
    match parse_bool(&value.to_string()) {
        Some(b) => Ok(Value::from(b)),
        None => Err(invalid(format!("`{value}` is no boolean"))),
    }
}

fn as_number(value: Value) -> Result<Value, Error> {
    let text = value.to_string();
    let text = text.trim();
    match text.parse::<i64>() {
        Ok(i) => Ok(Value::from(i)),
        Err(_) => text.parse::<f64>().map(Value::from).map_err(|_| invalid(format!("`{value}` is no number"))),
    }
}

/// Methods of texts and lists that Python has.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    // As dbt parses: what `run_query(…)` gives then is nothing, and so is all that is asked of it.
    if state.undefined_behavior() == UndefinedBehavior::Chainable && (value.is_undefined() || value.is_none()) {
        return Ok(Value::UNDEFINED);
    }
    let text = value.as_str();
    let argument = |i: usize| args.get(i).and_then(Value::as_str);
    let width = || args.first().and_then(Value::as_usize).unwrap_or(0);
    let padding = |text: &str| {
        let fill = argument(1).unwrap_or(" ");
        fill.repeat(width().saturating_sub(text.chars().count()))
    };
    match (text, name) {
        (Some(t), "zfill") => {
            let (sign, digits) = t.strip_prefix('-').map_or(("", t), |d| ("-", d));
            let zeros = "0".repeat(width().saturating_sub(t.chars().count()));
            Ok(Value::from(format!("{sign}{zeros}{digits}")))
        }
        (Some(t), "ljust") => Ok(Value::from(format!("{t}{}", padding(t)))),
        (Some(t), "rjust") => Ok(Value::from(format!("{}{t}", padding(t)))),
        (Some(t), "removeprefix") => Ok(Value::from(argument(0).and_then(|p| t.strip_prefix(p)).unwrap_or(t))),
        (Some(t), "removesuffix") => Ok(Value::from(argument(0).and_then(|p| t.strip_suffix(p)).unwrap_or(t))),
        (Some(t), "casefold") => Ok(Value::from(t.to_lowercase())),
        (Some(t), "swapcase") => {
            let swap =
                |c: char| if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() };
            Ok(Value::from(t.chars().map(swap).collect::<String>()))
        }
        (Some(t), "partition" | "rpartition") => {
            let separator = argument(0).ok_or_else(|| invalid("partition needs a separator"))?;
            let parts = if name == "partition" { t.split_once(separator) } else { t.rsplit_once(separator) };
            let parts = match parts {
                Some((a, b)) => [a, separator, b],
                None if name == "partition" => [t, "", ""],
                None => ["", "", t],
            };
            Ok(Value::from(Tuple::from(parts.map(Value::from).to_vec())))
        }
        (Some(t), "rsplit") => {
            let (Some(separator), limit) = (argument(0), args.get(1).and_then(Value::as_usize)) else {
                return Ok(List::value(t.split_whitespace().map(Value::from).collect()));
            };
            let mut parts: Vec<Value> = match limit {
                Some(limit) => t.rsplitn(limit + 1, separator).map(Value::from).collect(),
                None => t.rsplit(separator).map(Value::from).collect(),
            };
            parts.reverse();
            Ok(List::value(parts))
        }
        (Some(t), "index") => {
            let found = argument(0).and_then(|part| t.find(part)).map(|at| t[..at].chars().count());
            found.map(Value::from).ok_or_else(|| invalid("index: the text does not contain it"))
        }
        (None, "copy") => super::containers::own(value.clone()),
        (None, "index") if value.kind() == ValueKind::Seq => {
            let at = value.try_iter()?.position(|v| Some(&v) == args.first());
            at.map(Value::from).ok_or_else(|| invalid("index: the value is not in the list"))
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

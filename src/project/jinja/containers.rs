//! Lists and dicts that change in place, as Python's do: `{% do columns.append('x') %}`, `{% do options.update({…}) %}`.
//!
//! minijinja's own are values and never change. [`super::template`] writes `__list(…)` around list literals, `__dict(…)`
//! around dict literals and `__own(…)` around what `{% set %}` assigns: two names of one container see each other's changes,
//! and a sequence that minijinja made (by `+`, a filter, a split) becomes a list of its own when it gets a name.

use std::cmp::Ordering;
use std::fmt::{self, Write};
use std::sync::Arc;

use indexmap::IndexMap;
use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use parking_lot::Mutex;

/// What [`super::template`] calls around literals and assigned values.
pub(super) const LIST: &str = "__list";
pub(super) const DICT: &str = "__dict";
pub(super) const OWN: &str = "__own";

pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_function(LIST, |items: Value| List::of(&items));
    environment.add_function(DICT, |entries: Value| Dict::of(&entries));
    environment.add_function(OWN, |value: Value| own(value));
}

/// The value, or a container with the same contents that can change.
pub(super) fn own(value: Value) -> Result<Value, Error> {
    let Some(object) = value.as_object() else { return Ok(value) };
    match object.repr() {
        // Parts of a result keep what they can do.
        ObjectRepr::Seq if super::table::is_part(&value) => Ok(value),
        ObjectRepr::Seq if !value.is_tuple() && value.downcast_object_ref::<List>().is_none() => List::of(&value),
        // Objects with members of their own (namespaces, relations) stay what they are.
        ObjectRepr::Map if value.downcast_object_ref::<IndexMap<Value, Value>>().is_some() => Dict::of(&value),
        _ => Ok(value),
    }
}

fn unknown() -> Error {
    Error::from(ErrorKind::UnknownMethod)
}

fn wrong(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

fn argument(args: &[Value], index: usize, method: &str) -> Result<Value, Error> {
    args.get(index).cloned().ok_or_else(|| Error::new(ErrorKind::MissingArgument, format!("{method} needs a value")))
}

/// `[…]`, or a set: a list without doubles that keeps the order of first appearance and equals another in any order.
#[derive(Debug, Default)]
pub(super) struct List {
    items: Mutex<Vec<Value>>,
    is_set: bool,
}

impl List {
    pub fn value(items: Vec<Value>) -> Value {
        Value::from_object(List { items: Mutex::new(items), is_set: false })
    }

    /// Each value once, in order of first appearance.
    pub fn unique(items: Vec<Value>) -> Value {
        let mut unique: Vec<Value> = Vec::new();
        for item in items {
            if !unique.contains(&item) {
                unique.push(item);
            }
        }
        Value::from_object(List { items: Mutex::new(unique), is_set: true })
    }

    fn sorted(&self) -> Vec<Value> {
        let mut items = self.items.lock().clone();
        items.sort();
        items
    }

    fn of(items: &Value) -> Result<Value, Error> {
        Ok(List::value(items.try_iter()?.collect()))
    }

    fn index(&self, at: &Value) -> Result<usize, Error> {
        let len = self.items.lock().len() as i64;
        let index = at.as_i64().ok_or_else(|| wrong("a list is indexed by a number"))?;
        let index = if index < 0 { index + len } else { index };
        usize::try_from(index).map_err(|_| wrong("list index out of range"))
    }
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.lock().get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.lock().clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.lock().len())
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        let other = other.downcast_ref::<List>()?;
        (self.is_set && other.is_set).then(|| self.sorted().cmp(&other.sorted()))
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        let none = Value::from(());
        match method {
            "append" => self.items.lock().push(argument(args, 0, method)?),
            "extend" => {
                let more: Vec<Value> = argument(args, 0, method)?.try_iter()?.collect();
                self.items.lock().extend(more);
            }
            "insert" => {
                let at = self.index(&argument(args, 0, method)?)?;
                let value = argument(args, 1, method)?;
                let mut items = self.items.lock();
                let at = at.min(items.len());
                items.insert(at, value);
            }
            "pop" => {
                let at = self.index(args.first().unwrap_or(&Value::from(-1)))?;
                let mut items = self.items.lock();
                return if at < items.len() { Ok(items.remove(at)) } else { Err(wrong("pop index out of range")) };
            }
            "remove" => {
                let value = argument(args, 0, method)?;
                let mut items = self.items.lock();
                let at = items.iter().position(|v| *v == value);
                items.remove(at.ok_or_else(|| wrong("list.remove: the value is not in the list"))?);
            }
            // Of a set, which is a list without doubles.
            "add" => {
                let value = argument(args, 0, method)?;
                let mut items = self.items.lock();
                if !items.contains(&value) {
                    items.push(value);
                }
            }
            "union" | "intersection" | "difference" => {
                let other: Vec<Value> = argument(args, 0, method)?.try_iter()?.collect();
                let mut items = self.items.lock().clone();
                match method {
                    "union" => items.extend(other),
                    kept => items.retain(|v| other.contains(v) == (kept == "intersection")),
                }
                return Ok(List::unique(items));
            }
            "clear" => self.items.lock().clear(),
            "reverse" => self.items.lock().reverse(),
            "sort" => self.items.lock().sort(),
            "copy" if self.is_set => return Ok(List::unique(self.items.lock().clone())),
            "copy" => return Ok(List::value(self.items.lock().clone())),
            "index" => {
                let value = argument(args, 0, method)?;
                let at = self.items.lock().iter().position(|v| *v == value);
                return at.map(Value::from).ok_or_else(|| wrong("list.index: the value is not in the list"));
            }
            _ => return Err(unknown()),
        }
        Ok(none)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items = self.items.lock().clone();
        f.write_char('[')?;
        for (i, item) in items.iter().enumerate() {
            f.write_str(if i > 0 { ", " } else { "" })?;
            represent(item, f)?;
        }
        f.write_char(']')
    }
}

/// `{…}`
#[derive(Debug, Default)]
pub(super) struct Dict(Mutex<IndexMap<Value, Value>>);

impl Dict {
    pub fn value(entries: impl IntoIterator<Item = (Value, Value)>) -> Value {
        Value::from_object(Dict(Mutex::new(entries.into_iter().collect())))
    }

    fn of(entries: &Value) -> Result<Value, Error> {
        Ok(Dict::value(pairs(entries)?))
    }
}

/// Keys and values of a map, or of a sequence of pairs.
fn pairs(entries: &Value) -> Result<Vec<(Value, Value)>, Error> {
    let keys = entries.try_iter()?;
    if entries.kind() == ValueKind::Map {
        return keys.map(|key| Ok((key.clone(), entries.get_item(&key)?))).collect();
    }
    keys.map(|pair| Ok((pair.get_item_by_index(0)?, pair.get_item_by_index(1)?))).collect()
}

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.lock().get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.lock().keys().cloned().collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.lock().len())
    }

    fn call_method(self: &Arc<Self>, state: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match method {
            "update" => {
                let mut more = Vec::new();
                for entries in args {
                    more.extend(pairs(entries)?);
                }
                self.0.lock().extend(more);
            }
            "setdefault" => {
                let default = args.get(1).cloned().unwrap_or_else(|| Value::from(()));
                return Ok(self.0.lock().entry(argument(args, 0, method)?).or_insert(default).clone());
            }
            "pop" => {
                let key = argument(args, 0, method)?;
                let gone = self.0.lock().shift_remove(&key);
                return gone
                    .or_else(|| args.get(1).cloned())
                    .ok_or_else(|| wrong(format!("the dict has no key {key}")));
            }
            "clear" => self.0.lock().clear(),
            "copy" => return Ok(Dict::value(self.0.lock().clone())),
            _ => {
                // A macro or function kept in a dict can be called; lists of keys and the like are everybody's.
                let member = self.0.lock().get(&Value::from(method)).cloned();
                return match member {
                    Some(member) if !matches!(method, "keys" | "values" | "items" | "get") => member.call(state, args),
                    _ => Err(unknown()),
                };
            }
        }
        Ok(Value::from(()))
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.0.lock().clone();
        f.write_char('{')?;
        for (i, (key, value)) in entries.iter().enumerate() {
            f.write_str(if i > 0 { ", " } else { "" })?;
            represent(key, f)?;
            f.write_str(": ")?;
            represent(value, f)?;
        }
        f.write_char('}')
    }
}

/// A value as it stands in a printed list: Python's `repr`.
fn represent(value: &Value, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value.kind() {
        ValueKind::Bool => f.write_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::None | ValueKind::Undefined => f.write_str("None"),
        ValueKind::String => {
            let text = value.to_string();
            let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
            f.write_char(quote)?;
            for c in text.chars() {
                match c {
                    '\n' => f.write_str("\\n")?,
                    '\t' => f.write_str("\\t")?,
                    '\\' => f.write_str("\\\\")?,
                    c if c == quote => write!(f, "\\{c}")?,
                    c => f.write_char(c)?,
                }
            }
            f.write_char(quote)
        }
        _ => write!(f, "{value}"),
    }
}

//! Macros that give a set value in one render: `overrides: {macros: …}` of a unit test.
//!
//! A name is set anew before the template's own text; `package.name` wraps the package, so that its other macros stay.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr};
use minijinja::{Environment, Error, State, Value};

use super::scope::Scope;
use super::values::from_json;

/// Gives the value of an overridden name.
const OVERRIDE: &str = "__override";

/// What stands before a template so that it sees the overrides of `scope`.
pub(super) fn prelude(scope: &Scope) -> String {
    let mut prelude = String::new();
    for name in scope.overrides().keys() {
        let top = name.split('.').next().unwrap_or(name);
        let set = format!("{{% set {top} = {OVERRIDE}({top:?}, {top}) %}}");
        if !prelude.contains(&set) {
            prelude.push_str(&set);
        }
    }
    prelude
}

/// The function that [`prelude`] calls.
pub(super) fn add(environment: &mut Environment<'static>, scope: &Arc<Scope>) {
    let overrides = scope.overrides();
    if overrides.is_empty() {
        return;
    }
    environment.add_function(OVERRIDE, move |name: &str, before: Value| match overrides.get(name) {
        Some(value) => Value::from_object(Constant(from_json(value))),
        None => {
            let inside = overrides.iter().filter_map(|(full, value)| {
                let (package, own) = full.split_once('.')?;
                (package == name).then(|| (own.to_string(), from_json(value)))
            });
            Value::from_object(Package { before, overrides: inside.collect() })
        }
    });
}

/// A macro that always gives one value.
#[derive(Debug)]
struct Constant(Value);

impl Object for Constant {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, _: &[Value]) -> Result<Value, Error> {
        Ok(self.0.clone())
    }
}

/// A package some of whose macros are overridden.
#[derive(Debug)]
struct Package {
    before: Value,
    overrides: BTreeMap<String, Value>,
}

impl Object for Package {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str().and_then(|name| self.overrides.get(name)) {
            Some(value) => Some(Value::from_object(Constant(value.clone()))),
            None => self.before.get_item(key).ok().filter(|v| !v.is_undefined()),
        }
    }

    fn call_method(self: &Arc<Self>, state: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match self.overrides.get(method) {
            Some(value) => Ok(value.clone()),
            None => self.before.call_method(state, method, args),
        }
    }
}

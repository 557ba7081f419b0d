//! Macros that give a set value in one render: `overrides: {macros: …}` of a unit test.
//!
//! A name is set anew before the template's own text; `package.name` wraps the package, so that its other macros stay. Macros that call an
//! overridden one find it so too: a macro asks [`of`] before it runs, and a built-in function is replaced for the whole render.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr};
use minijinja::{Environment, Error, State, Value};

use serde_json::Value as Json;

use super::namespaces::Namespaces;
use super::scope::Scope;
use super::values::from_json;

/// Gives the value of an overridden name.
const OVERRIDE: &str = "__override";

/// The overrides of a render, as macros find them.
const TABLE: &str = "__overrides";

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
    environment.add_global(TABLE, Value::from_object(Table(overrides.clone())));
    for (name, value) in overrides.iter().filter(|(name, _)| !name.contains('.')) {
        environment.add_global(name.clone(), Value::from_object(Constant(from_json(value))));
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

/// The value that the macro `name` of the package whose macros stand in `template` is to give in this render, if it is overridden.
pub(super) fn of(state: &State<'_, '_>, template: &str, name: &str) -> Option<Value> {
    let table = state.lookup(TABLE)?;
    let Table(overrides) = table.downcast_object_ref::<Table>()?;
    let is_own = |full: &str| {
        full.split_once('.').is_some_and(|(package, own)| own == name && Namespaces::template(package) == template)
    };
    let value = overrides.get(name).or_else(|| overrides.iter().find(|(full, _)| is_own(full)).map(|(_, value)| value));
    value.map(from_json)
}

#[derive(Debug)]
struct Table(BTreeMap<String, Json>);

impl Object for Table {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
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

//! Macros of several packages: who sees whose, and `adapter.dispatch`.
//!
//! Each package's macros are one template. Before a template of package P is rendered, every package's macros are imported
//! into the render and kept there under the package's name ([`Namespaces::prelude`]); P's own are then names of the
//! template. A name that P lacks is looked for in the root project, and `other.name` finds any package's, so that macros
//! call each other across packages, in circles too. `adapter.dispatch(name, namespace)` walks the packages in the search order of the
//! root project and, in each, the prefixes of the adapter: `snowflake__name`, then `default__name`.
//!
//! Invariant: a macro is only called in the render that imported it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::MACROS;
use crate::error::Error as Failure;
use crate::project::problems::suggest;

/// What keeps an imported package's macros for the render.
const KEEP: &str = "__keep_macros";
/// `adapter.dispatch`, for the object that is `adapter`.
pub(super) const DISPATCH: &str = "__dispatch";

/// The root project's `dispatch:` and the adapter it runs on.
#[derive(Debug, Clone, Default)]
pub(in crate::project) struct Dispatch {
    /// Packages to look into, in order, by the namespace that is asked for.
    pub orders: BTreeMap<String, Vec<String>>,
    /// `snowflake`, and the adapters it descends from; `default` follows by itself.
    pub adapters: Vec<String>,
}

/// The name under which a template hands out a macro: Jinja keeps names that begin with `_` to itself, dbt does not.
pub(super) fn exported(name: &str) -> Cow<'_, str> {
    match name.starts_with('_') {
        true => Cow::Owned(format!("smelt_private{name}")),
        false => Cow::Borrowed(name),
    }
}

/// Which package has which macros; the root project is the first.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    pub packages: Vec<(String, Vec<String>)>,
    pub dispatch: Dispatch,
}

impl Namespaces {
    /// Name of the template that holds a package's macros.
    pub fn template(package: &str) -> String {
        format!("{MACROS}:{package}")
    }

    pub fn macros_of(&self, package: &str) -> &[String] {
        self.packages.iter().find(|(name, _)| name == package).map_or(&[], |(_, macros)| macros)
    }

    fn has(&self, package: &str, name: &str) -> bool {
        self.macros_of(package).iter().any(|m| m == name)
    }

    fn root(&self) -> &str {
        self.packages.first().map_or("", |(name, _)| name)
    }

    /// What stands before a template of `package`.
    pub fn prelude(&self, package: &str) -> String {
        let mut prelude = String::new();
        for (name, macros) in self.packages.iter().filter(|(_, macros)| !macros.is_empty()) {
            let template = Self::template(name);
            prelude.push_str(&format!("{{% import {template:?} as {KEEP}_ %}}{{% do {KEEP}({name:?}, {KEEP}_) %}}"));
            if name == package {
                let import = |name: &String| match exported(name) {
                    Cow::Borrowed(name) => name.to_string(),
                    Cow::Owned(exported) => format!("{exported} as {name}"),
                };
                let imports: Vec<String> = macros.iter().map(import).collect();
                prelude.push_str(&format!("{{% from {template:?} import {} %}}", imports.join(", ")));
            }
        }
        prelude
    }

    /// The names by which templates of `package` reach everybody's macros.
    pub fn add(self: &Arc<Self>, environment: &mut Environment<'static>, package: &str) {
        environment.add_function(KEEP, |state: &mut State<'_, '_>, package: &str, macros: Value| {
            state.set_temp(&Self::template(package), macros);
        });
        for (name, _) in &self.packages {
            environment.add_global(name.clone(), Value::from_object(Package(Arc::clone(self), name.clone())));
        }
        let root = self.root().to_string();
        if root != package {
            for name in self.macros_of(&root) {
                let found = Found { package: root.clone(), name: name.clone() };
                environment.add_global(name.clone(), Value::from_object(found));
            }
        }
        let dispatcher = Dispatcher { namespaces: Arc::clone(self), package: package.to_string() };
        environment.add_global(DISPATCH, Value::from_object(dispatcher));
    }
}

/// A macro of a package, looked up in the render that calls it.
#[derive(Debug)]
struct Found {
    package: String,
    name: String,
}

impl Found {
    fn call(&self, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let macros = state.get_temp(&Namespaces::template(&self.package)).unwrap_or_default();
        macros.get_attr(&exported(&self.name))?.call(state, args)
    }
}

impl Object for Found {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        Found::call(self, state, args)
    }
}

/// `dbt_utils` in `dbt_utils.star(…)`.
struct Package(Arc<Namespaces>, String);

impl fmt::Debug for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<package {}>", self.1)
    }
}

impl Object for Package {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let Package(namespaces, package) = &**self;
        let name = key.as_str().filter(|name| namespaces.has(package, name))?;
        Some(Value::from_object(Found { package: package.clone(), name: name.to_string() }))
    }

    fn call_method(self: &Arc<Self>, state: &mut State<'_, '_>, name: &str, args: &[Value]) -> Result<Value, Error> {
        let Package(namespaces, package) = &**self;
        if namespaces.has(package, name) {
            return Found { package: package.clone(), name: name.to_string() }.call(state, args);
        }
        let known = namespaces.macros_of(package).iter().map(String::as_str);
        Err(fail(
            Failure::user("unknown-macro", format!("package `{package}` has no macro `{name}`"))
                .with_hint(suggest(name, known, "macros")),
        ))
    }
}

/// `adapter.dispatch` for templates of one package.
struct Dispatcher {
    namespaces: Arc<Namespaces>,
    package: String,
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<function dispatch>")
    }
}

impl Object for Dispatcher {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let (named, positional) = match args.split_last() {
            Some((last, rest)) if last.is_kwargs() => (Some(last), rest),
            _ => (None, args),
        };
        let argument = |index: usize, name: &str| {
            let value = positional.get(index).cloned().or_else(|| named?.get_attr(name).ok());
            value.filter(|v| !v.is_undefined() && !v.is_none())
        };
        let name = argument(0, "macro_name");
        let Some(name) = name.as_ref().and_then(Value::as_str).filter(|n| !n.contains('.')) else {
            return Err(fail(
                Failure::user("bad-call", "`adapter.dispatch` is called with the wrong arguments")
                    .with_hint("write adapter.dispatch('macro', 'package')"),
            ));
        };
        let namespace = argument(1, "macro_namespace").map(|n| n.to_string());
        self.find(state, name, namespace.as_deref())
    }
}

impl Dispatcher {
    fn find(&self, state: &State<'_, '_>, name: &str, namespace: Option<&str>) -> Result<Value, Error> {
        let namespaces = &self.namespaces;
        let adapters = namespaces.dispatch.adapters.iter().map(String::as_str).chain(["default"]);
        let candidates: Vec<String> = adapters.map(|adapter| format!("{adapter}__{name}")).collect();
        let order = self.order(namespace);
        for package in &order {
            for candidate in &candidates {
                if namespaces.has(package, candidate) {
                    let found = Found { package: package.clone(), name: candidate.clone() };
                    return Ok(Value::from_object(found));
                }
            }
        }
        // What dbt brings along is not written in Jinja here.
        let built_in = state.lookup("dbt").and_then(|dbt| dbt.get_attr(name).ok()).filter(|v| !v.is_undefined());
        if let (Some(built_in), None | Some("dbt")) = (built_in, namespace) {
            return Ok(built_in);
        }
        let searched: Vec<String> =
            order.iter().flat_map(|package| candidates.iter().map(move |c| format!("{package}.{c}"))).collect();
        let of = namespace.map(|n| format!(" of `{n}`")).unwrap_or_default();
        Err(fail(
            Failure::user("unknown-macro", format!("no macro `{name}`{of} for this dialect"))
                .with_hint(format!("define one of {}", searched.join(", "))),
        ))
    }

    /// The packages to look into.
    fn order(&self, namespace: Option<&str>) -> Vec<String> {
        let root = self.namespaces.root().to_string();
        let mut order = match namespace {
            None => vec![self.package.clone(), root],
            Some(namespace) => match self.namespaces.dispatch.orders.get(namespace) {
                Some(order) => order.clone(),
                None => vec![root, namespace.to_string()],
            },
        };
        order.dedup();
        order
    }
}

/// One of our errors as minijinja carries it.
fn fail(failure: Failure) -> Error {
    Error::new(ErrorKind::InvalidOperation, failure.message().to_string()).with_source(failure)
}

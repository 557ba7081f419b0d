//! The functions and values templates see, beside minijinja's own.

use std::fmt;
use std::sync::Arc;

use chrono::DateTime;
use minijinja::value::{Kwargs, Object, ObjectRepr, Rest, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, Value};
use serde_json::Value as Json;

use super::clock::{Moment, Taint};
use super::objects::{Relation, RunDependent, This};
use super::scope::{ConfigCall, RefCall, Scope, SourceCall};
use super::template::Site;
use super::values::{from_json, to_json};
use crate::error::Error as Failure;

/// Names that only models see: no macro may take them.
pub(super) const MODEL_NAMES: [&str; 6] = ["ref", "source", "config", "this", "is_incremental", "execute"];

/// Environment variables whose values must never reach a log or artifact.
pub(super) const SECRET_PREFIXES: [&str; 2] = ["SMELT_SECRET_", "DBT_ENV_SECRET_"];

/// What needs no scope: filters and pure functions.
pub(super) fn add_shared(environment: &mut Environment<'static>) {
    super::containers::add(environment);
    super::macros::add(environment);
    super::natives::add(environment);
    super::clock::add(environment);
    strict_filters(environment);
    // In dbt a relation is one.
    environment.add_test("mapping", |value: &Value| {
        value.kind() == minijinja::value::ValueKind::Map || super::objects::relation_of(value).is_some()
    });
}

/// minijinja's filters take an undefined value for an empty one, even when undefined is strict: a misspelled column list
/// would vanish from the query without a word.
fn strict_filters(environment: &mut Environment<'static>) {
    use minijinja::filters as f;
    let mut strict = |name: &'static str, filter: Value| {
        environment.add_filter(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            if args.first().is_some_and(Value::is_undefined) {
                return match state.undefined_behavior() {
                    UndefinedBehavior::Strict => Err(Error::from(ErrorKind::UndefinedError)),
                    _ => Ok(Value::UNDEFINED),
                };
            }
            filter.call(state, &args)
        });
    };
    strict("lower", Value::from_function(f::lower));
    strict("upper", Value::from_function(f::upper));
    strict("title", Value::from_function(f::title));
    strict("capitalize", Value::from_function(f::capitalize));
    strict("replace", Value::from_function(f::replace));
    strict("length", Value::from_function(f::length));
    strict("count", Value::from_function(f::length));
    strict("dictsort", Value::from_function(f::dictsort));
    strict("items", Value::from_function(f::items));
    strict("reverse", Value::from_function(f::reverse));
    strict("trim", Value::from_function(f::trim));
    strict("join", Value::from_function(f::join));
    strict("split", Value::from_function(f::split));
    strict("lines", Value::from_function(f::lines));
    strict("round", Value::from_function(f::round));
    strict("abs", Value::from_function(f::abs));
    strict("int", Value::from_function(f::int));
    strict("float", Value::from_function(f::float));
    strict("first", Value::from_function(f::first));
    strict("last", Value::from_function(f::last));
    strict("min", Value::from_function(f::min));
    strict("max", Value::from_function(f::max));
    strict("sort", Value::from_function(f::sort));
    strict("list", Value::from_function(f::list));
    strict("string", Value::from_function(f::string));
    strict("batch", Value::from_function(f::batch));
    strict("slice", Value::from_function(f::slice));
    strict("sum", Value::from_function(f::sum));
    strict("indent", Value::from_function(f::indent));
    strict("select", Value::from_function(f::select));
    strict("reject", Value::from_function(f::reject));
    strict("map", Value::from_function(f::map));
    strict("unique", Value::from_function(f::unique));
}

/// Values that depend on the project and target: YAML and models see them.
pub(super) fn add_values(environment: &mut Environment<'static>, scope: &Arc<Scope>) {
    environment.add_global("var", Value::from_object(Var(Arc::clone(scope))));
    add(environment, "env_var", scope, env_var);
    let globals = &scope.globals;
    environment.add_global("target", from_json(&Json::Object(globals.target.clone().into_iter().collect())));
    environment.add_global("project_name", globals.project_name.as_str());
    environment.add_global("smelt_version", env!("CARGO_PKG_VERSION"));
    environment.add_global("exceptions", Value::from_object(Exceptions(Arc::clone(scope))));
}

/// What models, tests and their macros see besides.
pub(super) fn add_model(environment: &mut Environment<'static>, scope: &Arc<Scope>) {
    add(environment, "ref", scope, |scope, args| {
        let names: Vec<String> = args.texts("ref", "ref('model') or ref('project', 'model')")?;
        let (package, name) = match names.as_slice() {
            [name] => (None, name.clone()),
            [package, name] => (Some(package.clone()), name.clone()),
            _ => return Err(args.usage("ref", "ref('model') or ref('project', 'model')")),
        };
        Ok(Value::from_object(scope.note_ref(RefCall { package, name }, args.site)))
    });
    add(environment, "source", scope, |scope, args| {
        let names = args.texts("source", "source('source', 'table')")?;
        let [source, table] = names.as_slice() else { return Err(args.usage("source", "source('source', 'table')")) };
        let call = SourceCall { source: source.clone(), table: table.clone() };
        Ok(Value::from_object(scope.note_source(call, args.site)))
    });
    environment.add_global("config", Value::from_object(Config(Arc::clone(scope))));
    let this = scope.this.clone().unwrap_or_else(|| Relation::placeholder("this"));
    environment.add_global("this", Value::from_object(This { relation: this, scope: Arc::clone(scope) }));
    let is_incremental = scope.is_incremental;
    environment.add_function("is_incremental", move || is_incremental);
    let full_refresh = scope.globals.full_refresh;
    environment.add_function("should_full_refresh", move || full_refresh);
    let store = scope.config.get("store_failures").and_then(Json::as_bool).unwrap_or(false);
    environment.add_function("should_store_failures", move || store);
    environment.add_global("execute", scope.executes());
    environment.add_global("flags", from_json(&serde_json::json!({ "FULL_REFRESH": full_refresh })));
    let started = DateTime::from_timestamp_micros(scope.globals.started_at).unwrap_or_default();
    let taint = Taint { name: "run_started_at", scope: Arc::clone(scope) };
    environment.add_global("run_started_at", Moment::instant(started, taint));
    let invocation =
        RunDependent { name: "invocation_id", value: scope.globals.invocation_id.clone(), scope: Arc::clone(scope) };
    environment.add_global("invocation_id", Value::from_object(invocation));
    environment.add_global("modules", super::modules::modules(started, scope));
    super::dbt::add(environment, scope);
    super::lake::add(environment, scope);
}

/// `var('name', default)` and `var.has_var('name')`.
struct Var(Arc<Scope>);

impl fmt::Debug for Var {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<function var>")
    }
}

impl Object for Var {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        var(&self.0, &Args::new(args)?)
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match (method, args.first().and_then(Value::as_str)) {
            ("has_var", Some(name)) => Ok(Value::from(self.0.globals.vars.contains_key(name))),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

fn var(scope: &Scope, args: &Args) -> Result<Value, Error> {
    let usage = "var('name') or var('name', default)";
    let (name, default) = match args.positional.as_slice() {
        [name] => (name, args.keyword("default")),
        [name, default] => (name, Some(default.clone())),
        _ => return Err(args.usage("var", usage)),
    };
    let name = name.as_str().ok_or_else(|| args.usage("var", usage))?;
    if let Some(value) = scope.globals.vars.get(name) {
        return Ok(from_json(value));
    }
    default.ok_or_else(|| {
        let known = scope.globals.vars.keys().map(String::as_str);
        let hint = match crate::error::did_you_mean(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("set it under `vars:` or with --vars, or give a default: var('{name}', …)"),
        };
        fail(Failure::user("unknown-var", format!("no variable `{name}`")).with_hint(hint))
    })
}

fn env_var(scope: &Scope, args: &Args) -> Result<Value, Error> {
    let usage = "env_var('NAME') or env_var('NAME', 'default')";
    let (name, default) = match args.positional.as_slice() {
        [name] => (name, args.keyword("default")),
        [name, default] => (name, Some(default.clone())),
        _ => return Err(args.usage("env_var", usage)),
    };
    let name = name.as_str().ok_or_else(|| args.usage("env_var", usage))?;
    if let Some(value) = scope.globals.env_overrides.get(name) {
        return Ok(Value::from(value.as_str()));
    }
    if let Some(value) = scope.globals.env.var(name) {
        if SECRET_PREFIXES.iter().any(|p| name.starts_with(p)) {
            scope.globals.env.remember_secret(&value);
            scope.note_secret(name, args.site);
        }
        return Ok(Value::from(value));
    }
    default.ok_or_else(|| {
        let hint = format!("set it: export {name}=…, or give a default: env_var('{name}', '…')");
        fail(Failure::user("missing-env-var", format!("environment variable `{name}` is not set")).with_hint(hint))
    })
}

/// One of our errors as minijinja carries it; [`super::failure`] takes it out again.
fn fail(failure: Failure) -> Error {
    Error::new(ErrorKind::InvalidOperation, failure.message().to_string()).with_source(failure)
}

/// Arguments of a call: the hidden position first, if the call was found in a file's text.
struct Args {
    site: Option<Site>,
    positional: Vec<Value>,
    keywords: Vec<(String, Value)>,
}

impl Args {
    fn new(args: &[Value]) -> Result<Self, Error> {
        let (keywords, args) = match args.split_last() {
            Some((last, rest)) if last.is_kwargs() => {
                let kwargs = Kwargs::try_from(last.clone())?;
                let named = kwargs.args().map(|k| Ok((k.to_string(), kwargs.get(k)?)));
                (named.collect::<Result<Vec<_>, Error>>()?, rest)
            }
            _ => (Vec::new(), args),
        };
        let (site, positional) = match args.split_first() {
            Some((first, rest)) if first.is_integer() => (first.as_i64().map(Site::unpack), rest),
            _ => (None, args),
        };
        Ok(Args { site, positional: positional.to_vec(), keywords })
    }

    fn keyword(&self, name: &str) -> Option<Value> {
        self.keywords.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone())
    }

    fn texts(&self, name: &str, usage: &str) -> Result<Vec<String>, Error> {
        if !self.keywords.is_empty() {
            return Err(self.usage(name, usage));
        }
        let text = |v: &Value| v.as_str().map(str::to_string).ok_or_else(|| self.usage(name, usage));
        self.positional.iter().map(text).collect()
    }

    fn usage(&self, name: &str, usage: &str) -> Error {
        fail(
            Failure::user("bad-call", format!("`{name}` is called with the wrong arguments"))
                .with_hint(format!("write {usage}")),
        )
    }
}

fn add<F>(environment: &mut Environment<'static>, name: &'static str, scope: &Arc<Scope>, call: F)
where
    F: Fn(&Scope, &Args) -> Result<Value, Error> + Send + Sync + 'static,
{
    environment.add_global(name, Value::from_object(Function { name, scope: Arc::clone(scope), call }));
}

struct Function<F> {
    name: &'static str,
    scope: Arc<Scope>,
    call: F,
}

impl<F> fmt::Debug for Function<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<function {}>", self.name)
    }
}

impl<F> Object for Function<F>
where
    F: Fn(&Scope, &Args) -> Result<Value, Error> + Send + Sync + 'static,
{
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        (self.call)(&self.scope, &Args::new(args)?)
    }
}

/// `config(…)`, `config.get('key', default)`, `config.require('key')`.
struct Config(Arc<Scope>);

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<function config>")
    }
}

impl Object for Config {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let args = Args::new(args)?;
        let mut values: Vec<(String, Json)> = Vec::new();
        for positional in &args.positional {
            match to_json(positional) {
                Json::Object(members) => values.extend(members),
                _ => return Err(args.usage("config", "config(key = value, …)")),
            }
        }
        values.extend(args.keywords.iter().map(|(k, v)| (k.clone(), to_json(v))));
        self.0.note_config(ConfigCall { values, site: args.site });
        Ok(Value::from(""))
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        let args = Args::new(args)?;
        let key = args
            .positional
            .first()
            .and_then(Value::as_str)
            .ok_or_else(|| args.usage("config.get", "config.get('key', default)"))?;
        let default = args.positional.get(1).cloned().or_else(|| args.keyword("default"));
        match (method, self.0.config.get(key)) {
            ("get" | "require", Some(value)) => Ok(from_json(value)),
            ("get", None) => Ok(default.unwrap_or_else(|| Value::from(()))),
            // Not known yet while the project is being read.
            ("require", None) if self.0.resolve.is_none() => Ok(Value::from("")),
            ("require", None) => Err(fail(Failure::user("missing-config", format!("the model has no config `{key}`")))),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// `exceptions.raise_compiler_error('…')` and `exceptions.warn('…')`.
struct Exceptions(Arc<Scope>);

impl fmt::Debug for Exceptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<exceptions>")
    }
}

impl Object for Exceptions {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        let message = args.first().map(ToString::to_string).unwrap_or_default();
        match method {
            "missing_config" | "missing_materialization" | "missing_relation" | "invalid_type_error" => {
                Err(fail(Failure::user("raised", args.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))))
            }
            _ if method.starts_with("raise_") => Err(fail(Failure::user("raised", message))),
            "warn" => {
                self.0.note_warning(message);
                Ok(Value::from(""))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

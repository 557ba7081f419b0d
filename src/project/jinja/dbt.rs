//! The rest of what dbt puts before a template: `adapter`, `api`, `graph`, `model`, `flags`, `builtins`, `log`, …
//!
//! Nothing here changes anything outside the render. What a template asks of its project is answered from the project;
//! what it asks of the lake (columns, tables that are there) goes the way of [`super::lake`].

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Rest, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde_json::{Value as Json, json};

use super::columns::{Column, Maker};
use super::containers::{Dict, List};
use super::lake::carried;
use super::namespaces::DISPATCH;
use super::objects::{Relation, relation_of};
use super::scope::Scope;
use super::values::from_json;
use crate::error::Error as Failure;
use crate::project::answers::{Cell, waits};

/// The dbt whose context this is.
const DBT_VERSION: &str = "1.10.0";

/// Names of `builtins`: what a project's own macros may replace and still call.
const BUILTINS: [&str; 3] = ["ref", "source", "config"];

pub(super) fn add(environment: &mut Environment<'static>, scope: &Arc<Scope>) {
    super::cross_database::add(environment);
    let quote = scope.quote();
    let named = |name: &'static str, value: Value| (Value::from(name), value);
    environment.add_global("adapter", Value::from_object(Adapter(Arc::clone(scope))));
    let api = [
        named("Relation", Value::from_object(Maker { relation: true, quote })),
        named("Column", Value::from_object(Maker { relation: false, quote })),
    ];
    environment.add_global("api", Value::from_pairs(api));
    environment.add_global("graph", Value::from_object(Graph(Arc::clone(scope))));
    environment.add_global("model", from_json(&scope.model()));
    environment.add_global("flags", flags(scope));
    environment.add_global("dbt_version", DBT_VERSION);
    environment.add_global("thread_id", "main");
    environment.add_global("dbt_metadata_envs", Dict::value([]));
    let selected = scope.globals.selected.iter().map(|id| Value::from(id.as_str())).collect();
    environment.add_global("selected_resources", List::value(selected));
    environment.add_global("database", from_json(scope.globals.target.get("database").unwrap_or(&Json::Null)));
    let schema =
        scope.this.as_ref().map_or_else(|| scope.globals.target.get("schema").cloned(), |t| Some(json!(t.schema)));
    environment.add_global("schema", from_json(&schema.unwrap_or(Json::Null)));
    let builtins: Vec<_> = environment
        .globals()
        .filter(|(name, _)| {
            BUILTINS.contains(name) || matches!(*name, "var" | "env_var" | "return" | "tojson" | "fromjson")
        })
        .map(|(name, value)| (Value::from(name), value))
        .collect();
    environment.add_global("builtins", Value::from_pairs(builtins));
    let asking = Arc::clone(scope);
    environment.add_function("load_relation", move |relation: Value| match relation_of(&relation) {
        Some(found) => asking.existing(found),
        None => Ok(Value::from(())),
    });
    let said = Arc::clone(scope);
    environment.add_function("log", move |message: Value, rest: Rest<ValueOrKwargs>| {
        let shown = rest.into_values().iter().any(|v| match v.is_kwargs() {
            true => Kwargs::try_from(v.clone()).is_ok_and(|k| k.get::<bool>("info").unwrap_or(false)),
            false => v.is_true(),
        });
        match shown {
            true => said.note_said(message.to_string()),
            false => tracing::debug!(target: "smelt::jinja", "{message}"),
        }
        ""
    });
    let said = Arc::clone(scope);
    environment.add_function("print", move |message: Value| {
        said.note_said(message.to_string());
        ""
    });
}

/// `flags`, in the spelling of dbt's.
fn flags(scope: &Scope) -> Value {
    from_json(&json!({
        "FULL_REFRESH": scope.globals.full_refresh,
        "WHICH": scope.globals.which,
        "STORE_FAILURES": false,
        "FAIL_FAST": false,
        "WARN_ERROR": false,
        "QUIET": false,
        "EMPTY": false,
        "USE_COLORS": false,
        "DEBUG": false,
        "VERSION_CHECK": true,
        "INDIRECT_SELECTION": "eager",
        "INTROSPECT": true,
    }))
}

/// `graph.nodes`, `graph.sources`, …: read when asked for, because most templates do not ask.
struct Graph(Arc<Scope>);

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<graph>")
    }
}

impl Graph {
    fn members(&self) -> Arc<Json> {
        self.0.resolve.as_ref().map_or_else(|| Arc::new(crate::project::facts::empty()), |r| r.graph())
    }
}

impl Object for Graph {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.members().get(key.as_str()?).map(from_json)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.members().as_object() {
            Some(members) => Enumerator::Values(members.keys().map(|k| Value::from(k.as_str())).collect()),
            None => Enumerator::Empty,
        }
    }
}

/// `adapter`
struct Adapter(Arc<Scope>);

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<adapter>")
    }
}

impl Scope {
    /// The columns of a relation: name and SQL type. None are known while the project is being read.
    fn columns(&self, relation: &Relation) -> Result<Vec<(String, String)>, Error> {
        let Some(resolve) = self.resolve.as_ref().filter(|_| self.executes()) else { return Ok(Vec::new()) };
        let (schema, name) = (&relation.schema, &relation.identifier);
        if let Some(columns) = resolve.source_columns(schema, name) {
            return Ok(columns);
        }
        match &self.globals.answers {
            Some(answers) => answers.columns(schema, name, self.own_table()).map_err(carried),
            None => Err(carried(waits(format!("for the columns of {relation}")))),
        }
    }

    /// What there is in a schema; nothing is known while the project is being read.
    fn relations_of(&self, schema: &str) -> Result<Value, Error> {
        if !self.executes() {
            return Ok(List::value(Vec::new()));
        }
        let schema = schema.replace('\'', "''");
        let rows = self
            .ask(&format!(
                "select table_schema, table_name from information_schema.tables where lower(table_schema) = lower('{schema}')"
            ))
            .map_err(carried)?
            .rows;
        let relation = |row: Vec<Cell>| match row.as_slice() {
            [Cell::Text(schema), Cell::Text(name)] => {
                let (schema, identifier) = (schema.clone(), name.clone());
                Some(Value::from_object(Relation { schema, identifier, quote: self.quote(), dependency: None }))
            }
            _ => None,
        };
        Ok(List::value(rows.into_iter().filter_map(relation).collect()))
    }

    /// The relation if it is there: what the project makes is, by the time it is read; the model's own table and those that the
    /// project does not know are looked for in the lake.
    fn existing(&self, relation: Relation) -> Result<Value, Error> {
        if !self.executes() {
            return Ok(Value::from(()));
        }
        let is_own = self.own_table().is_some_and(|(schema, name)| {
            schema.eq_ignore_ascii_case(&relation.schema) && name.eq_ignore_ascii_case(&relation.identifier)
        });
        let there = match (is_own, &self.globals.answers) {
            (false, _) if self.exists(&relation.schema, &relation.identifier) => true,
            (_, Some(answers)) => {
                self.note_asked_rows();
                answers.exists(&relation.schema, &relation.identifier).map_err(carried)?
            }
            (_, None) => {
                self.note_asked_rows();
                return Err(carried(waits(format!("whether {relation} is there"))));
            }
        };
        Ok(if there { Value::from_object(relation) } else { Value::from(()) })
    }
}

impl Object for Adapter {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call_method(self: &Arc<Self>, state: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        if let ("dispatch", Some(dispatch)) = (method, state.lookup(DISPATCH)) {
            return dispatch.call(state, args);
        }
        let scope = &self.0;
        let (args, kwargs) = match args.split_last() {
            Some((last, rest)) if last.is_kwargs() => (rest, Some(Kwargs::try_from(last.clone())?)),
            _ => (args, None),
        };
        let find = |name: &str, position: usize| {
            let named = kwargs.as_ref().and_then(|k| k.get::<Value>(name).ok());
            named.or_else(|| args.get(position).cloned()).filter(|v| !v.is_none() && !v.is_undefined())
        };
        let text = |name: &str, position: usize| find(name, position).map(|v| v.to_string()).unwrap_or_default();
        let relation = || {
            let value = find("relation", 0).unwrap_or_default();
            relation_of(&value).ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidOperation,
                    format!("adapter.{method} takes a relation: ref('…') or source('…', '…')"),
                )
            })
        };
        let quote = scope.quote();
        match method {
            "quote" => Ok(Value::from(Relation::placeholder("").with_quote(quote).quoted(&text("identifier", 0)))),
            "quote_as_configured" => Ok(Value::from(text("identifier", 0))),
            "type" => Ok(Value::from("smelt")),
            "get_columns_in_relation" => {
                let column = |(name, data_type): (String, String)| Column::value(&name, &data_type, quote);
                Ok(List::value(scope.columns(&relation()?)?.into_iter().map(column).collect()))
            }
            "get_missing_columns" => {
                let other = find("to_relation", 1).and_then(|v| relation_of(&v));
                let known = other.map(|r| scope.columns(&r)).transpose()?.unwrap_or_default();
                let missing = |(name, _): &(String, String)| known.iter().all(|(k, _)| !k.eq_ignore_ascii_case(name));
                let columns = scope.columns(&relation()?)?.into_iter().filter(missing);
                Ok(List::value(columns.map(|(name, data_type)| Column::value(&name, &data_type, quote)).collect()))
            }
            "get_relation" | "load_relation" => {
                let (schema, identifier) = (text("schema", 1), text("identifier", 2));
                scope.existing(Relation { schema, identifier, quote, dependency: None })
            }
            "list_relations" => scope.relations_of(&text("schema", 1)),
            "list_relations_without_caching" => {
                let given = find("schema_relation", 0).unwrap_or_default();
                let schema = relation_of(&given).map_or_else(|| given.to_string(), |relation| relation.schema);
                scope.relations_of(&schema)
            }
            "check_schema_exists" => Ok(Value::from(true)),
            // The lake makes folders as it needs them, and tables belong to their models.
            "create_schema" | "cache_added" | "cache_dropped" | "cache_renamed" | "commit" | "clear_transaction" => {
                Ok(Value::from(""))
            }
            "drop_schema"
            | "drop_relation"
            | "truncate_relation"
            | "rename_relation"
            | "expand_target_column_types"
            | "execute"
            | "add_query"
            | "alter_column_type" => Err(forbidden(method)),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// What would change the lake behind the engine's back.
fn forbidden(method: &str) -> Error {
    let message = format!("adapter.{method} would change a table that smelt keeps");
    let failure = Failure::user("adapter-method", message.clone())
        .with_hint("tables are made and kept by their models; smelt prune drops those without one");
    Error::new(ErrorKind::InvalidOperation, message).with_source(failure)
}

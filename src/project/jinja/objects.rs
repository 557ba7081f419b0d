//! The objects templates handle: relations, `this`, and texts that differ from run to run.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Kwargs, Object, ObjectRepr};
use minijinja::{Error, ErrorKind, State, Value};

use super::scope::Scope;
use crate::project::Dependency;

/// A table or view a model reads, as `ref` and `source` return it. Prints `"schema"."name"`.
#[derive(Debug, Clone)]
pub(in crate::project) struct Relation {
    pub schema: String,
    pub identifier: String,
    /// `"`, or a backtick in dialects where `"` makes a string.
    pub quote: char,
    /// What it is in the graph; `None` for a placeholder.
    pub dependency: Option<Dependency>,
}

impl Relation {
    pub fn placeholder(name: &str) -> Self {
        Relation { schema: "placeholder".to_string(), identifier: name.to_string(), quote: '"', dependency: None }
    }

    pub fn with_quote(self, quote: char) -> Self {
        Relation { quote, ..self }
    }

    /// A name in the quotes of the dialect.
    pub fn quoted(&self, name: &str) -> String {
        let quote = self.quote;
        format!("{quote}{}{quote}", name.replace(quote, &format!("{quote}{quote}")))
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown::default().write(self, f)
    }
}

impl Object for Relation {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        attribute(self, key)
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        relation_method(self, Shown::default(), method, args)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Which parts of a relation's name are printed, and whether in quotes. There is one database, and it has no name.
#[derive(Debug, Clone, Copy)]
struct Shown {
    schema: bool,
    identifier: bool,
    quote_schema: bool,
    quote_identifier: bool,
}

impl Default for Shown {
    fn default() -> Self {
        Shown { schema: true, identifier: true, quote_schema: true, quote_identifier: true }
    }
}

impl Shown {
    fn write(self, relation: &Relation, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |name: &str, quote: bool| if quote { relation.quoted(name) } else { name.to_string() };
        let schema = self.schema.then(|| part(&relation.schema, self.quote_schema));
        let identifier = self.identifier.then(|| part(&relation.identifier, self.quote_identifier));
        f.write_str(&[schema, identifier].into_iter().flatten().collect::<Vec<_>>().join("."))
    }
}

/// A relation of which only parts are printed: `ref('users').include(schema=false)`.
#[derive(Debug)]
struct Part {
    relation: Relation,
    shown: Shown,
}

impl Object for Part {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        attribute(&self.relation, key)
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        relation_method(&self.relation, self.shown, method, args)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown.write(&self.relation, f)
    }
}

fn attribute(relation: &Relation, key: &Value) -> Option<Value> {
    match key.as_str()? {
        "database" => Some(Value::from(())),
        "schema" => Some(Value::from(relation.schema.as_str())),
        "name" | "identifier" | "table" | "alias" => Some(Value::from(relation.identifier.as_str())),
        "type" => Some(Value::from("table")),
        "is_view" | "is_cte" => Some(Value::from(false)),
        "is_table" => Some(Value::from(true)),
        // By this packages tell a relation from a text.
        "metadata" => Some(Value::from_pairs([("type", "SmeltRelation")])),
        _ => None,
    }
}

fn relation_method(relation: &Relation, shown: Shown, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (args, kwargs) = match args.split_last() {
        Some((last, rest)) if last.is_kwargs() => (rest, Some(Kwargs::try_from(last.clone())?)),
        _ => (args, None),
    };
    let named = |name: &str| kwargs.as_ref().and_then(|k| k.get::<Value>(name).ok());
    let part = |shown| Ok(Value::from_object(Part { relation: relation.clone(), shown }));
    // As in dbt: positional arguments are database, schema, identifier.
    let flag = |name: &str, position: usize, default: bool| {
        named(name).or_else(|| args.get(position).cloned()).map_or(default, |v| v.is_true())
    };
    let text = |name: &str, position: usize, default: &str| {
        let given = named(name).or_else(|| args.get(position).cloned()).filter(|v| !v.is_none() && !v.is_undefined());
        given.map_or_else(|| default.to_string(), |v| v.to_string())
    };
    match method {
        "get" => {
            let found = args.first().and_then(|key| attribute(relation, key));
            Ok(found.or_else(|| args.get(1).cloned()).unwrap_or_else(|| Value::from(())))
        }
        "include" => part(Shown {
            schema: flag("schema", 1, shown.schema),
            identifier: flag("identifier", 2, shown.identifier),
            ..shown
        }),
        "without_identifier" => part(Shown { identifier: false, ..shown }),
        "quote" => part(Shown {
            quote_schema: flag("schema", 1, shown.quote_schema),
            quote_identifier: flag("identifier", 2, shown.quote_identifier),
            ..shown
        }),
        "render" => Ok(Value::from(Value::from_object(Part { relation: relation.clone(), shown }).to_string())),
        "quoted" => Ok(Value::from(relation.quoted(&text("identifier", 0, &relation.identifier)))),
        "replace_path" | "incorporate" => {
            let path = named("path").filter(|_| method == "incorporate");
            let within = |name: &str| {
                path.as_ref().and_then(|p| p.get_attr(name).ok()).filter(|v| !v.is_undefined() && !v.is_none())
            };
            let find = |name: &str, position: usize, default: &str| {
                within(name).map_or_else(|| text(name, position, default), |v| v.to_string())
            };
            Ok(Value::from_object(Relation {
                schema: find("schema", 1, &relation.schema),
                identifier: find("identifier", 2, &relation.identifier),
                quote: relation.quote,
                dependency: None,
            }))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// `load_relation(x)`, `api.Relation.create(…)`: the relation of a value that is one.
pub(super) fn relation_of(value: &Value) -> Option<Relation> {
    let this = || value.downcast_object_ref::<This>().map(|t| &t.relation);
    let part = || value.downcast_object_ref::<Part>().map(|p| &p.relation);
    value.downcast_object_ref::<Relation>().or_else(this).or_else(part).cloned()
}

/// `{{ this }}`: printing it is noted, asking for its name or schema is harmless.
pub(super) struct This {
    pub relation: Relation,
    pub scope: Arc<Scope>,
}

impl fmt::Debug for This {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.relation)
    }
}

impl Object for This {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        attribute(&self.relation, key)
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        self.scope.note_this();
        relation_method(&self.relation, Shown::default(), method, args)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scope.note_this();
        write!(f, "{}", self.relation)
    }
}

/// A text that differs from run to run: `invocation_id`. Using it is noted.
pub(super) struct RunDependent {
    pub name: &'static str,
    pub value: String,
    pub scope: Arc<Scope>,
}

impl fmt::Debug for RunDependent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.name)
    }
}

impl Object for RunDependent {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call_method(self: &Arc<Self>, state: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        self.scope.note_run_dependent(self.name);
        Value::from(self.value.as_str()).call_method(state, method, args)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scope.note_run_dependent(self.name);
        f.write_str(&self.value)
    }
}

//! The objects templates handle: relations, `this`, and the clock.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use minijinja::value::{Enumerator, Object, ObjectRepr};
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
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |name: &str| {
            let quote = self.quote;
            format!("{quote}{}{quote}", name.replace(quote, &format!("{quote}{quote}")))
        };
        write!(f, "{}.{}", quoted(&self.schema), quoted(&self.identifier))
    }
}

impl Object for Relation {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        attribute(self, key)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn attribute(relation: &Relation, key: &Value) -> Option<Value> {
    match key.as_str()? {
        "schema" => Some(Value::from(relation.schema.as_str())),
        "name" | "identifier" | "table" | "alias" => Some(Value::from(relation.identifier.as_str())),
        "is_view" | "is_cte" => Some(Value::from(false)),
        "is_table" => Some(Value::from(true)),
        _ => None,
    }
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

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scope.note_this();
        write!(f, "{}", self.relation)
    }
}

/// A value that differs from run to run; using it in any way is noted.
pub(super) struct RunDependent {
    pub name: &'static str,
    pub value: RunValue,
    pub scope: Arc<Scope>,
}

#[derive(Clone)]
pub(super) enum RunValue {
    /// Plain text: `invocation_id`.
    Text(String),
    /// An instant: `run_started_at`.
    Instant(DateTime<Utc>),
    Date(NaiveDate),
    /// `modules.datetime` and the classes in it.
    Module(&'static str, DateTime<Utc>),
}

impl RunDependent {
    fn with(&self, value: RunValue) -> Value {
        Value::from_object(RunDependent { name: self.name, value, scope: Arc::clone(&self.scope) })
    }
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

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        use chrono::{Datelike, Timelike};
        self.scope.note_run_dependent(self.name);
        let key = key.as_str()?;
        match &self.value {
            RunValue::Module("datetime", now) if matches!(key, "datetime" | "date") => {
                let class = if key == "date" { "date" } else { "datetime.datetime" };
                Some(self.with(RunValue::Module(class, *now)))
            }
            RunValue::Instant(t) => match key {
                "year" => Some(Value::from(t.year())),
                "month" => Some(Value::from(t.month())),
                "day" => Some(Value::from(t.day())),
                "hour" => Some(Value::from(t.hour())),
                "minute" => Some(Value::from(t.minute())),
                "second" => Some(Value::from(t.second())),
                _ => None,
            },
            RunValue::Date(d) => match key {
                "year" => Some(Value::from(d.year())),
                "month" => Some(Value::from(d.month())),
                "day" => Some(Value::from(d.day())),
                _ => None,
            },
            _ => None,
        }
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        self.scope.note_run_dependent(self.name);
        let format = |formatted: chrono::format::DelayedFormat<chrono::format::StrftimeItems<'_>>| {
            use fmt::Write;
            let mut text = String::new();
            match write!(text, "{formatted}") {
                Ok(()) => Ok(Value::from(text)),
                Err(_) => Err(Error::new(ErrorKind::InvalidOperation, "bad strftime pattern")),
            }
        };
        let pattern = args.first().and_then(Value::as_str).unwrap_or("%Y-%m-%d %H:%M:%S");
        match (&self.value, method) {
            (RunValue::Instant(t), "strftime") => format(t.format(pattern)),
            (RunValue::Date(d), "strftime") => format(d.format(pattern)),
            (RunValue::Instant(t), "isoformat") => Ok(Value::from(t.format("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string())),
            (RunValue::Date(d), "isoformat") => Ok(Value::from(d.to_string())),
            (RunValue::Instant(t), "timestamp") => Ok(Value::from(t.timestamp_micros() as f64 / 1e6)),
            (RunValue::Instant(t), "date") => Ok(self.with(RunValue::Date(t.date_naive()))),
            (RunValue::Instant(t), "replace" | "astimezone") => Ok(self.with(RunValue::Instant(*t))),
            (RunValue::Module("datetime.datetime", now), "now" | "utcnow" | "today") => {
                Ok(self.with(RunValue::Instant(*now)))
            }
            (RunValue::Module("date", now), "today") => Ok(self.with(RunValue::Date(now.date_naive()))),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scope.note_run_dependent(self.name);
        match &self.value {
            RunValue::Text(text) => f.write_str(text),
            RunValue::Instant(t) => write!(f, "{}", t.format("%Y-%m-%d %H:%M:%S%.6f%:z")),
            RunValue::Date(d) => write!(f, "{d}"),
            RunValue::Module(name, _) => write!(f, "<module '{name}'>"),
        }
    }
}

//! Templates ask the lake: `run_query`, `{% call statement(…) %}`, `load_result`.
//!
//! While the project is being read, `execute` is false and nothing is asked, as in dbt: `run_query` gives none. Afterwards the
//! question goes to the [`Answers`](crate::project::answers::Answers) the project is loaded with; without any the render stops with an
//! error of code [`WAITS`](crate::project::answers::WAITS), which the loader takes for what it is.

use std::sync::Arc;

use minijinja::value::{Kwargs, Rest, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::containers::Dict;
use super::scope::Scope;
use super::table::Table;
use crate::error::Error as Failure;
use crate::project::answers::{Answer, waits};

pub(super) fn add(environment: &mut Environment<'static>, scope: &Arc<Scope>) {
    let asking = Arc::clone(scope);
    environment.add_function("run_query", move |sql: Value| match asking.executes() {
        true => {
            asking.ask(&sql.to_string()).map(|answer| Value::from_object(Table::new(&answer, &asking))).map_err(carried)
        }
        false => Ok(Value::from(())),
    });
    let asking = Arc::clone(scope);
    environment.add_function("statement", move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
        statement(&asking, state, &args.into_values())
    });
    let asking = Arc::clone(scope);
    environment.add_function("load_result", move |name: &str| match asking.result(name) {
        Some((answer, fetched)) => {
            let table = Table::new(if fetched { &answer } else { NOTHING }, &asking);
            let response = Dict::value([
                (Value::from("_message"), Value::from(answer.message.as_str())),
                (Value::from("code"), Value::from(answer.message.split(' ').next().unwrap_or(""))),
                (Value::from("rows_affected"), Value::from(answer.rows.len())),
            ]);
            let data = table.data();
            let members = [("response", response), ("data", data), ("table", Value::from_object(table))];
            Dict::value(members.map(|(name, value)| (Value::from(name), value)))
        }
        None => Value::from(()),
    });
}

const NOTHING: &Answer = &Answer { columns: Vec::new(), rows: Vec::new(), message: String::new() };

/// `{% call statement('name', fetch_result=true) %} … {% endcall %}`
fn statement(scope: &Arc<Scope>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    if !scope.executes() {
        return Ok(Value::from(""));
    }
    let (positional, named) = match args.split_last() {
        Some((last, rest)) if last.is_kwargs() => (rest, Some(Kwargs::try_from(last.clone())?)),
        _ => (args, None),
    };
    let find = |name: &str, at: usize| {
        let named = named.as_ref().and_then(|k| k.get::<Value>(name).ok());
        positional.get(at).cloned().or(named).filter(|v| !v.is_none() && !v.is_undefined())
    };
    let caller = named.as_ref().and_then(|k| k.get::<Value>("caller").ok());
    let caller = caller.ok_or_else(|| {
        let failure = Failure::user("bad-call", "`statement` has no SQL");
        carried(failure.with_hint("write {% call statement('name', fetch_result=true) %} select … {% endcall %}"))
    })?;
    let sql = caller.call(state, &[])?.to_string();
    let answer = scope.ask(&sql).map_err(carried)?;
    let fetched = find("fetch_result", 1).is_some_and(|v| v.is_true());
    if let Some(name) = find("name", 0) {
        scope.keep_result(name.to_string(), answer, fetched);
    }
    Ok(Value::from(""))
}

/// One of our errors as minijinja carries it.
pub(super) fn carried(failure: Failure) -> Error {
    Error::new(ErrorKind::InvalidOperation, failure.message().to_string()).with_source(failure)
}

impl Scope {
    /// Asks for the rows of a query.
    pub(super) fn ask(&self, sql: &str) -> crate::error::Result<Answer> {
        self.note_asked_rows();
        match &self.globals.answers {
            Some(answers) => answers.query(sql, self.own_table()),
            None => Err(waits("and this command does not read it")),
        }
    }

    /// Schema and name of the table of the model that is rendered.
    pub(super) fn own_table(&self) -> Option<(&str, &str)> {
        self.this.as_ref().map(|this| (this.schema.as_str(), this.identifier.as_str()))
    }
}

//! `dbt.dateadd(…)` and its sisters: dbt's macros that hide what databases spell differently. Here they give the SQL of our
//! engine, which is the same in every dialect. They stand under `dbt` and, as in dbt, under their own names; a project's
//! macro of the same name comes first.
//!
//! A template of the table holds its parameters in braces; [`fill`] puts the arguments in, by position or by name.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::namespaces::DISPATCH;

/// A macro: name, parameters, SQL.
struct Macro {
    name: &'static str,
    parameters: &'static [&'static str],
    sql: &'static str,
}

const fn sql(name: &'static str, parameters: &'static [&'static str], sql: &'static str) -> Macro {
    Macro { name, parameters, sql }
}

const MACROS: &[Macro] = &[
    sql("date_trunc", &["datepart", "date"], "date_trunc('{datepart}', {date})"),
    sql(
        "dateadd",
        &["datepart", "interval", "from_date_or_timestamp"],
        "dateadd('{datepart}', {interval}, {from_date_or_timestamp})",
    ),
    sql("datediff", &["first_date", "second_date", "datepart"], "datediff('{datepart}', {first_date}, {second_date})"),
    sql("last_day", &["date", "datepart"], "last_day({date}, '{datepart}')"),
    sql("date", &["year", "month", "day"], "make_date({year}, {month}, {day})"),
    sql("hash", &["field"], "md5(cast({field} as varchar))"),
    sql("length", &["expression"], "character_length({expression})"),
    sql("position", &["substring_text", "string_text"], "cast(strpos({string_text}, {substring_text}) as bigint)"),
    sql("replace", &["field", "old_chars", "new_chars"], "replace({field}, {old_chars}, {new_chars})"),
    sql("right", &["string_text", "length_expression"], "right({string_text}, {length_expression})"),
    sql("safe_cast", &["field", "type"], "try_cast({field} as {type})"),
    sql("cast", &["field", "type"], "cast({field} as {type})"),
    sql(
        "split_part",
        &["string_text", "delimiter_text", "part_number"],
        "split_part({string_text}, {delimiter_text}, {part_number})",
    ),
    sql("string_literal", &["value"], "'{value}'"),
    sql("type_string", &[], "varchar"),
    sql("type_timestamp", &[], "timestamp"),
    sql("type_float", &[], "double"),
    sql("type_numeric", &[], "decimal(28, 6)"),
    sql("type_bigint", &[], "bigint"),
    sql("type_int", &[], "int"),
    sql("type_boolean", &[], "boolean"),
    // Any value will do, so it is one that does not change with the order of rows.
    sql("any_value", &["expression"], "min({expression})"),
    sql("bool_or", &["expression"], "bool_or({expression})"),
    sql("array_append", &["array", "new_element"], "array_append({array}, {new_element})"),
    sql("array_concat", &["array_1", "array_2"], "array_concat({array_1}, {array_2})"),
    sql("cast_bool_to_text", &["field"], "cast({field} as varchar)"),
    sql("except", &[], "except"),
    sql("intersect", &[], "intersect"),
    sql("current_timestamp", &[], "now()"),
    sql("current_timestamp_backcompat", &[], "now()"),
    sql("current_timestamp_in_utc_backcompat", &[], "now()"),
    sql("generate_series", &["upper_bound"], "select value as generated_number from generate_series(1, {upper_bound})"),
    sql(
        "date_spine",
        &["datepart", "start_date", "end_date"],
        "select unnest(range(cast({start_date} as timestamp), cast({end_date} as timestamp), interval '1' {datepart})) as date_{datepart}",
    ),
];

/// Macros whose text depends on more than putting arguments in.
const WRITTEN: [&str; 5] = ["concat", "listagg", "array_construct", "escape_single_quotes", "get_powers_of_two"];

pub(super) fn add(environment: &mut Environment<'static>) {
    for name in names() {
        environment.add_global(name, Value::from_object(CrossDatabase(name)));
    }
    environment.add_global("dbt", Value::from_object(Dbt));
}

/// The names of all these macros.
fn names() -> impl Iterator<Item = &'static str> {
    MACROS.iter().map(|m| m.name).chain(WRITTEN)
}

/// `dbt`
#[derive(Debug)]
struct Dbt;

impl Object for Dbt {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = names().find(|name| Some(*name) == key.as_str())?;
        Some(Value::from_object(CrossDatabase(name)))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(names().map(Value::from).collect())
    }

    fn call_method(self: &Arc<Self>, state: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        if let Some(name) = names().find(|name| *name == method) {
            return Value::from_object(CrossDatabase(name)).call(state, args);
        }
        // What dbt has as a macro is here a function of its own: dbt.run_query, dbt.statement, dbt.is_incremental, …
        match state.lookup(method) {
            Some(function) => function.call(state, args),
            None => Err(Error::new(ErrorKind::UnknownFunction, format!("dbt.{method} is unknown"))),
        }
    }
}

/// One macro, by its name.
#[derive(Debug)]
struct CrossDatabase(&'static str);

impl Object for CrossDatabase {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        // As in dbt each of them is dispatched: a project's `default__dateadd` comes first.
        if let Some(dispatch) = state.lookup(DISPATCH) {
            let found = dispatch.call(state, &[Value::from(self.0), Value::from("dbt")])?;
            if found.downcast_object_ref::<CrossDatabase>().is_none() {
                return found.call(state, args);
            }
        }
        let arguments = Arguments::new(self.0, args)?;
        match MACROS.iter().find(|m| m.name == self.0) {
            Some(found) => fill(found, &arguments).map(Value::from),
            None => written(&arguments),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<macro dbt.{}>", self.0)
    }
}

struct Arguments {
    of: &'static str,
    positional: Vec<Value>,
    named: Option<Kwargs>,
}

impl Arguments {
    fn new(of: &'static str, args: &[Value]) -> Result<Self, Error> {
        let (positional, named) = match args.split_last() {
            Some((last, rest)) if last.is_kwargs() => (rest, Some(Kwargs::try_from(last.clone())?)),
            _ => (args, None),
        };
        Ok(Arguments { of, positional: positional.to_vec(), named })
    }

    fn get(&self, position: usize, name: &str) -> Option<Value> {
        let named = self.named.as_ref().and_then(|k| k.get::<Value>(name).ok());
        self.positional.get(position).cloned().or(named).filter(|v| !v.is_none() && !v.is_undefined())
    }

    /// What is given for a parameter; `none` is something, too.
    fn need(&self, position: usize, name: &str) -> Result<Value, Error> {
        let named = self.named.as_ref().and_then(|k| k.get::<Value>(name).ok());
        let given = self.positional.get(position).cloned().or(named).filter(|v| !v.is_undefined());
        given.ok_or_else(|| Error::new(ErrorKind::MissingArgument, format!("dbt.{} needs `{name}`", self.of)))
    }

    fn check(&self, parameters: &[&str]) -> Result<(), Error> {
        if self.positional.len() > parameters.len() {
            return Err(Error::new(ErrorKind::TooManyArguments, format!("dbt.{}", self.of)));
        }
        match self.named.iter().flat_map(|k| k.args()).find(|name| !parameters.contains(name)) {
            Some(name) => {
                Err(Error::new(ErrorKind::TooManyArguments, format!("dbt.{} has no parameter `{name}`", self.of)))
            }
            None => Ok(()),
        }
    }
}

fn fill(found: &Macro, arguments: &Arguments) -> Result<String, Error> {
    arguments.check(found.parameters)?;
    let mut text = found.sql.to_string();
    for (position, name) in found.parameters.iter().enumerate() {
        let value = arguments.need(position, name)?;
        // As Python prints it: dbt's parse passes through here with what is not known yet.
        let value = if value.is_none() { "None".to_string() } else { value.to_string() };
        text = text.replace(&format!("{{{name}}}"), &value);
    }
    Ok(text)
}

fn written(arguments: &Arguments) -> Result<Value, Error> {
    let list = |value: &Value| -> Result<Vec<String>, Error> { Ok(value.try_iter()?.map(|v| v.to_string()).collect()) };
    Ok(Value::from(match arguments.of {
        "concat" => list(&arguments.need(0, "fields")?)?.join(" || "),
        "array_construct" => {
            let inputs = arguments.get(0, "inputs").map_or(Ok(Vec::new()), |inputs| list(&inputs))?;
            format!("make_array({})", inputs.join(", "))
        }
        "escape_single_quotes" => arguments.need(0, "expression")?.to_string().replace('\'', "''"),
        "listagg" => {
            arguments.check(&["measure", "delimiter_text", "order_by_clause", "limit_num"])?;
            let measure = arguments.need(0, "measure")?;
            let delimiter = arguments.get(1, "delimiter_text").map_or_else(|| "','".to_string(), |v| v.to_string());
            let order = arguments.get(2, "order_by_clause").map(|v| format!(" {v}")).unwrap_or_default();
            match arguments.get(3, "limit_num") {
                Some(limit) => {
                    format!("array_to_string(array_slice(array_agg({measure}{order}), 1, {limit}), {delimiter})")
                }
                None => format!("string_agg({measure}, {delimiter}{order})"),
            }
        }
        // get_powers_of_two
        _ => {
            let bound = arguments.need(0, "upper_bound")?.as_i64().filter(|n| *n > 0);
            let bound = bound.ok_or_else(|| {
                Error::new(ErrorKind::InvalidOperation, "get_powers_of_two: the upper bound must be positive")
            })?;
            return Ok(Value::from(i64::from(64 - (bound - 1).leading_zeros()).max(1)));
        }
    }))
}

//! Macros as dbt has them, around minijinja's: `return` of any value, `varargs`, `kwargs`, and arguments left out.
//!
//! Behind every `{% endmacro %}` [`super::template`] writes `{% set name = __macro(name) %}`: the name then stands for a
//! [`Macro`], which calls minijinja's own. `return(value)` travels as an error up to the innermost [`Macro`], which gives the
//! value to its caller; minijinja restores its state when a macro fails, so nothing of the macro's output is left behind.
//!
//! A macro whose text uses `varargs` or `kwargs` gets them as two more parameters with defaults, written into its signature.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{Kwargs, Object, ObjectRepr, Rest};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::containers::Dict;
use super::overrides;

/// What [`super::template`] calls behind a macro.
pub(super) const WRAP: &str = "__macro";

/// Stands for a name that was not set.
pub(super) const ABSENT: &str = "__absent";

/// The value of `return(…)` on its way to the macro's caller.
#[derive(Debug)]
struct Returned(Value);

impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`return` stands outside a macro")
    }
}

impl std::error::Error for Returned {}

/// `return` and the wrapping of macros.
pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_function("return", |values: Rest<Value>| -> Result<Value, Error> {
        let value = values.first().cloned().unwrap_or_else(|| Value::from(()));
        let returned = Returned(value);
        Err(Error::new(ErrorKind::InvalidOperation, returned.to_string()).with_source(returned))
    });
    let absent = absent();
    environment.add_global(ABSENT, absent.clone());
    environment.add_function(WRAP, move |state: &State<'_, '_>, inner: Value| {
        Macro::around(state.name(), inner, absent.clone())
    });
}

/// An undefined value that prints as nothing and is false without an error: what dbt gives for an argument left out.
fn absent() -> Value {
    let nothing = Environment::new();
    let value = nothing.compile_expression("1 if false").and_then(|e| e.eval(Value::from(())));
    value.unwrap_or(Value::UNDEFINED)
}

struct Macro {
    inner: Value,
    /// Name of the template it stands in: its package's.
    template: String,
    name: String,
    /// Parameters but `varargs` and `kwargs`.
    parameters: Vec<String>,
    varargs: bool,
    kwargs: bool,
    absent: Value,
}

impl Macro {
    fn around(template: &str, inner: Value, absent: Value) -> Result<Value, Error> {
        let mut parameters: Vec<String> =
            inner.get_attr("arguments")?.try_iter()?.map(|name| name.to_string()).collect();
        let mut takes = |name: &str| match parameters.iter().position(|p| p == name) {
            Some(i) => {
                parameters.remove(i);
                true
            }
            None => false,
        };
        let (varargs, kwargs) = (takes("varargs"), takes("kwargs"));
        let name = inner.get_attr("name")?.to_string();
        Ok(Value::from_object(Macro {
            inner,
            template: template.to_string(),
            name,
            parameters,
            varargs,
            kwargs,
            absent,
        }))
    }

    /// The arguments as minijinja's macro takes them: each parameter by position, the rest collected.
    fn arguments(&self, args: &[Value]) -> Result<Vec<Value>, Error> {
        let (named, positional) = match args.split_last() {
            Some((last, rest)) if last.is_kwargs() => (Some(Kwargs::try_from(last.clone())?), rest),
            _ => (None, args),
        };
        if positional.len() > self.parameters.len() && !self.varargs {
            return Err(Error::from(ErrorKind::TooManyArguments));
        }
        let by_position = positional.len().min(self.parameters.len());
        let mut values: Vec<Value> = positional[..by_position].to_vec();
        values.resize(self.parameters.len(), self.absent.clone());
        let mut others: Vec<(Value, Value)> = Vec::new();
        let mut hidden: Vec<(&str, Value)> = Vec::new();
        for key in named.iter().flat_map(|k| k.args()) {
            let value: Value = named.as_ref().map_or(Ok(Value::UNDEFINED), |k| k.peek(key))?;
            match self.parameters.iter().position(|p| p == key) {
                Some(i) if i < by_position => {
                    let detail = format!("duplicate argument `{key}`");
                    return Err(Error::new(ErrorKind::TooManyArguments, detail));
                }
                Some(i) => values[i] = value,
                None if key == "caller" => hidden.push(("caller", value)),
                None if self.kwargs => others.push((Value::from(key), value)),
                None => {
                    let detail = format!("unknown keyword argument `{key}`");
                    return Err(Error::new(ErrorKind::TooManyArguments, detail));
                }
            }
        }
        if self.varargs {
            hidden.push(("varargs", Value::from(positional[by_position..].to_vec())));
        }
        if self.kwargs {
            hidden.push(("kwargs", Dict::value(others)));
        }
        if !hidden.is_empty() {
            values.push(Value::from(Kwargs::from_iter(hidden)));
        }
        Ok(values)
    }
}

impl fmt::Debug for Macro {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<macro {}>", self.name)
    }
}

impl Object for Macro {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "name" => Some(Value::from(self.name.as_str())),
            _ => None,
        }
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        if let Some(value) = overrides::of(state, &self.template, &self.name) {
            return Ok(value);
        }
        let args = self.arguments(args)?;
        self.inner.call(state, &args).or_else(|error| returned(&error).ok_or(error))
    }
}

/// The value that `return` sent, if that is what `error` is.
fn returned(error: &Error) -> Option<Value> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(Returned(value)) = cause.downcast_ref::<Returned>() {
            return Some(value.clone());
        }
        source = cause.source();
    }
    None
}

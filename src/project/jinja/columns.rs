//! `api.Column` and `api.Relation`: what `adapter.get_columns_in_relation` returns, and how templates make their own.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Kwargs, Object, ObjectRepr};
use minijinja::{Error, ErrorKind, State, Value};

use super::objects::Relation;

/// A column of a relation: name and SQL type.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub name: String,
    pub data_type: String,
    pub quote: char,
}

impl Column {
    pub fn value(name: &str, data_type: &str, quote: char) -> Value {
        Value::from_object(Column { name: name.to_string(), data_type: data_type.to_string(), quote })
    }

    /// The type's name without its arguments, in lower case.
    fn family(&self) -> String {
        self.data_type.split('(').next().unwrap_or("").trim().to_lowercase()
    }

    /// `decimal(10, 2)`: 10 and 2.
    fn argument(&self, index: usize) -> Value {
        let inside =
            self.data_type.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(inside, _)| inside);
        let number = inside.and_then(|i| i.split(',').nth(index)).and_then(|n| n.trim().parse::<i64>().ok());
        number.map_or_else(|| Value::from(()), Value::from)
    }

    fn is(&self, families: &[&str]) -> bool {
        families.contains(&self.family().as_str())
    }

    fn is_string(&self) -> bool {
        self.is(&["string", "text", "varchar", "char", "character varying", "character", "utf8", "nvarchar"])
    }

    fn is_integer(&self) -> bool {
        self.is(&[
            "tinyint", "smallint", "int", "integer", "bigint", "int2", "int4", "int8", "int16", "int32", "int64",
            "byte", "short", "long",
        ])
    }

    fn is_numeric(&self) -> bool {
        self.is(&["decimal", "numeric", "number"])
    }

    fn is_float(&self) -> bool {
        self.is(&["float", "double", "real", "double precision", "float4", "float8", "float32", "float64"])
    }
}

impl Object for Column {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let quote = self.quote;
        match key.as_str()? {
            "name" | "column" => Some(Value::from(self.name.as_str())),
            "quoted" => {
                Some(Value::from(format!("{quote}{}{quote}", self.name.replace(quote, &format!("{quote}{quote}")))))
            }
            "dtype" => Some(Value::from(self.data_type.split('(').next().unwrap_or("").trim())),
            "data_type" => Some(Value::from(self.data_type.as_str())),
            "char_size" if self.is_string() => Some(self.argument(0)),
            "numeric_precision" if !self.is_string() => Some(self.argument(0)),
            "numeric_scale" if !self.is_string() => Some(self.argument(1)),
            "char_size" | "numeric_precision" | "numeric_scale" => Some(Value::from(())),
            _ => None,
        }
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match method {
            "is_string" => Ok(Value::from(self.is_string())),
            "is_integer" => Ok(Value::from(self.is_integer())),
            "is_numeric" => Ok(Value::from(self.is_numeric())),
            "is_float" => Ok(Value::from(self.is_float())),
            "is_number" => Ok(Value::from(self.is_integer() || self.is_numeric() || self.is_float())),
            "string_size" => Ok(self.argument(0)),
            "literal" => {
                Ok(Value::from(format!("cast({} as {})", args.first().unwrap_or(&Value::from("null")), self.data_type)))
            }
            "can_expand_to" => Ok(Value::from(false)),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Column {} ({})>", self.name, self.data_type)
    }
}

/// `api.Relation` or `api.Column`.
#[derive(Debug)]
pub(super) struct Maker {
    pub relation: bool,
    pub quote: char,
}

impl Maker {
    fn make(&self, args: &[Value]) -> Result<Value, Error> {
        let (args, kwargs) = match args.split_last() {
            Some((last, rest)) if last.is_kwargs() => (rest, Some(Kwargs::try_from(last.clone())?)),
            _ => (args, None),
        };
        let find = |names: &[&str], position: usize| {
            let named = names.iter().find_map(|n| kwargs.as_ref()?.get::<Value>(n).ok());
            named.or_else(|| args.get(position).cloned()).filter(|v| !v.is_none() && !v.is_undefined())
        };
        if self.relation {
            let schema = find(&["schema"], 1).map(|v| v.to_string()).unwrap_or_default();
            let identifier = find(&["identifier"], 2).map(|v| v.to_string()).unwrap_or_default();
            return Ok(Value::from_object(Relation { schema, identifier, quote: self.quote, dependency: None }));
        }
        let name =
            find(&["column", "name", "label_or_name"], 0).ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
        let data_type = find(&["dtype"], 1).map(|v| v.to_string()).unwrap_or_default();
        let size = find(&["char_size"], 2).or_else(|| find(&["numeric_precision"], 3));
        let scale = find(&["numeric_scale"], 4);
        let data_type = match (size, scale) {
            (Some(size), Some(scale)) => format!("{data_type}({size}, {scale})"),
            (Some(size), None) => format!("{data_type}({size})"),
            _ => data_type,
        };
        Ok(Column::value(&name.to_string(), &data_type, self.quote))
    }
}

impl Object for Maker {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (self.relation, key.as_str()?) {
            (true, "Table" | "View" | "CTE" | "External" | "MaterializedView") => {
                Some(Value::from(key.to_string().to_lowercase()))
            }
            _ => None,
        }
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        self.make(args)
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match (self.relation, method) {
            (_, "create") => self.make(args),
            (false, "string_type") => Ok(Value::from("varchar")),
            (false, "numeric_type") => {
                let argument = |i: usize| args.get(i).map(ToString::to_string).unwrap_or_default();
                Ok(Value::from(format!("{}({}, {})", argument(0), argument(1), argument(2))))
            }
            (false, "translate_type") => Ok(args.first().cloned().unwrap_or_default()),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

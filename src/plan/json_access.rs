//! Paths into JSON texts, `v:a.b[0]` (Snowflake, Databricks): read as `get_json_object(v, '$.a.b[0]')`. And DuckDB's `x -> 'a'`, which sqlparser
//! takes for a lambda.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    JsonPath, JsonPathElem, ObjectName, ObjectNamePart, OneOrManyWithParens, UnaryOperator, Value,
};

use crate::functions::RAW_JSON;
use crate::project::Dialect;

/// What `expr` stands for, if it is a look into a JSON text.
pub(crate) fn read(expr: &Expr, dialect: Dialect) -> Option<Expr> {
    match expr {
        Expr::JsonAccess { value, path } if !matches!(dialect, Dialect::Postgres) => {
            let path = Expr::value(Value::SingleQuotedString(path_text(path)?));
            Some(call("get_json_object", vec![value.as_ref().clone(), path]))
        }
        Expr::Lambda(lambda) if dialect == Dialect::DuckDb => {
            let OneOrManyWithParens::One(name) = &lambda.params else { return None };
            if name.data_type.is_some() || !is_key(&lambda.body) {
                return None;
            }
            let left = Box::new(Expr::Identifier(name.name.clone()));
            Some(Expr::BinaryOp { left, op: BinaryOperator::Arrow, right: lambda.body.clone() })
        }
        _ => None,
    }
}

/// The path as `get_json_object` has it; None where a step is no constant.
fn path_text(path: &JsonPath) -> Option<String> {
    let mut text = "$".to_string();
    for step in &path.path {
        match step {
            JsonPathElem::Dot { key, .. } => member(&mut text, key)?,
            JsonPathElem::Bracket { key } | JsonPathElem::ColonBracket { key } => match key {
                Expr::Value(value) => match &value.value {
                    Value::SingleQuotedString(key) => member(&mut text, key)?,
                    Value::Number(index, _) => text.push_str(&format!("[{index}]")),
                    _ => return None,
                },
                Expr::Wildcard(_) => text.push_str("[*]"),
                _ => return None,
            },
        }
    }
    Some(text)
}

fn member(text: &mut String, key: &str) -> Option<()> {
    // What a path cannot spell is left to fail where it stands.
    if key.is_empty() || key.contains(['\'', '?']) {
        return None;
    }
    text.push_str(&format!("['{key}']"));
    Some(())
}

/// A text or a number: no lambda computes only that.
fn is_key(body: &Expr) -> bool {
    match body {
        Expr::Value(value) => matches!(value.value, Value::SingleQuotedString(_) | Value::Number(..)),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => is_key(expr),
        _ => false,
    }
}

/// Calls that give JSON texts.
const JSON_CALLS: [&str; 5] =
    ["parse_json", "try_parse_json", "object_construct", "object_construct_keep_null", "to_json"];

/// `argument`, marked as JSON if it is a call that gives some: inside other JSON it is no string.
pub(crate) fn raw(argument: Expr) -> Expr {
    let gives_json = match &argument {
        Expr::Function(function) => JSON_CALLS.iter().any(|name| function.name.to_string().eq_ignore_ascii_case(name)),
        _ => false,
    };
    if !gives_json {
        return argument;
    }
    call("named_struct", vec![Expr::value(Value::SingleQuotedString(RAW_JSON.into())), argument])
}

/// A plain call.
pub(crate) fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect();
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

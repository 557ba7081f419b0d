//! What a contract promises of a model's columns, against what its query makes.

use arrow::datatypes::SchemaRef;

use super::stored::stored_type;
use crate::error::Error;
use crate::project::Model;
use crate::types::{parse_sql_type, sql_type_name};

/// Every column of the query stands in the contract with its type, and the other way round, in any order.
pub(super) fn check(model: &Model, schema: &SchemaRef, at: impl Fn(String, String) -> Error) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut say = |text: String, hint: &str| {
        errors.push(at(format!("the contract of `{}`: {text}", model.name), hint.to_string()));
    };
    for column in &model.columns {
        let Some(written) = &column.data_type else {
            say(format!("`{}` has no data_type", column.name), "every column of a contract has one");
            continue;
        };
        let Some(field) = schema.fields().iter().find(|f| f.name().eq_ignore_ascii_case(&column.name)) else {
            say(format!("the query does not select `{}`", column.name), "select it, or take it out of the contract");
            continue;
        };
        let promised = parse_sql_type(written).ok().and_then(|t| stored_type(&t).ok());
        if promised.as_ref() != Some(field.data_type()) {
            let is = sql_type_name(field.data_type());
            let hint = "cast it in the query, or change the contract";
            say(format!("`{}` is {is}, the contract says {written}", column.name), hint);
        }
    }
    for field in schema.fields() {
        if !model.columns.iter().any(|c| c.name.eq_ignore_ascii_case(field.name())) {
            let text = format!("`{}` ({}) is not in it", field.name(), sql_type_name(field.data_type()));
            say(text, "add it to the columns, with its data_type");
        }
    }
    errors
}

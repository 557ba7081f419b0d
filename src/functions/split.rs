//! `split(text, pattern[, limit])`: the parts of a text between matches of a regular expression, as Spark and Java have it.
//!
//! Empty parts stay, at the end too. A positive limit gives so many parts at most, the last with all that is left. An empty match at the beginning
//! makes no part, so an empty pattern gives the characters.

use arrow::array::{Array, AsArray, ListBuilder, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_datafusion_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use regex::Regex;
use std::sync::Arc;

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Split {
    signature: Signature,
}

impl Split {
    pub fn new() -> Self {
        Split { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Split {
    fn name(&self) -> &str {
        "regexp_split"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let is_text = |t: &DataType| t.is_string() || t.is_null();
        match types {
            [text, pattern] if is_text(text) && is_text(pattern) => Ok(vec![DataType::Utf8, DataType::Utf8]),
            [text, pattern, limit] if is_text(text) && is_text(pattern) && (limit.is_integer() || limit.is_null()) => {
                Ok(vec![DataType::Utf8, DataType::Utf8, DataType::Int64])
            }
            _ => plan_err!("split takes a text, a regular expression and perhaps a limit: split('a1b', '[0-9]')"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let columns = args.args.iter().map(|a| a.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let [texts, patterns, limit @ ..] = columns.as_slice() else { return plan_err!("split takes two texts") };
        let (texts, patterns) = (cast(texts, &DataType::Utf8)?, cast(patterns, &DataType::Utf8)?);
        let (texts, patterns) = (texts.as_string::<i32>(), patterns.as_string::<i32>());
        let mut lists = ListBuilder::new(StringBuilder::new());
        let mut splitter = Splitter::default();
        for row in 0..rows {
            let limit = limit.first().map(|limit| (limit.is_valid(row), limit.as_primitive::<Int64Type>().value(row)));
            if texts.is_null(row) || patterns.is_null(row) || limit.is_some_and(|(there, _)| !there) {
                lists.append_null();
                continue;
            }
            let most = limit.and_then(|(_, limit)| usize::try_from(limit).ok()).filter(|most| *most > 0);
            let parts = splitter.split(texts.value(row), patterns.value(row), most)?;
            lists.append_value(parts.into_iter().map(Some));
        }
        let lists = lists.finish();
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&lists, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(lists)))
    }
}

/// Splits texts by a pattern that seldom changes.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    last: Option<(String, Regex)>,
}

impl Splitter {
    /// The parts of `text` between matches of `pattern`; `most`: so many at most, the last with all that is left.
    pub fn split<'a>(&mut self, text: &'a str, pattern: &str, most: Option<usize>) -> Result<Vec<&'a str>> {
        if self.last.as_ref().is_none_or(|(of, _)| of != pattern) {
            self.last = Some((pattern.to_string(), compile(pattern)?));
        }
        Ok(self.last.as_ref().map_or_else(Vec::new, |(_, regex)| parts(text, regex, most)))
    }
}

fn compile(pattern: &str) -> Result<Regex, DataFusionError> {
    Regex::new(pattern).map_err(|e| exec_datafusion_err!("`{pattern}` is no regular expression: {e}"))
}

fn parts<'a>(text: &'a str, regex: &Regex, most: Option<usize>) -> Vec<&'a str> {
    let (mut parts, mut from) = (Vec::new(), 0);
    for found in regex.find_iter(text) {
        if most.is_some_and(|most| parts.len() + 1 >= most) {
            break;
        }
        // Java: an empty match at the beginning makes no part; at the end it leaves an empty one.
        if found.end() == 0 {
            continue;
        }
        parts.push(&text[from..found.start()]);
        from = found.end();
    }
    parts.push(&text[from..]);
    parts
}

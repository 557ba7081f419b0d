//! JSON in text columns: `json_get…`, and Postgres' operators over them. Names and arguments are those of `datafusion-functions-json`.
//!
//! A path is a list of arguments: texts are keys, integers are places in arrays (from 0; −1 is the last). There is no type for JSON: a
//! part that is an object or an array is JSON text. What is not there, or of another kind than the function gives, is NULL, and so is
//! everything in a text that is no JSON. Where a key stands twice the last one counts, as in JSON sources.
//!
//! They are not the crate's, which stops reading where it has found something: it gives the first of two values of a key, and a value out of a text
//! that is cut off or goes on behind its end, so a column of a JSON source and `json_get` of the same record would differ. It also gives
//! `json_contains` of NULL as false, lengths as unsigned integers, whole numbers by way of doubles, and takes one column at most in a path.
//! `tests/json.rs` shows each of these, and that both agree on everything else.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use std::borrow::Cow;
use std::sync::Arc;

use super::json_path::{NoJson, elements, members};
use crate::decode::json::scan::{Scan, unescape};

/// What a function gives of the part that its path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Give {
    /// A string without its quotes, anything else as JSON text; NULL for null.
    Text,
    /// JSON text.
    Json,
    Str,
    Int,
    Float,
    Bool,
    /// The elements of an array, as JSON texts.
    Array,
    /// Whether it is there.
    Contains,
    /// How many elements or members it has.
    Length,
    /// The keys of an object, in their order.
    Keys,
}

/// (names, what it gives).
const FUNCTIONS: [(&[&str], Give); 10] = [
    (&["json_as_text", "json_get"], Give::Text),
    (&["json_get_json"], Give::Json),
    (&["json_get_str"], Give::Str),
    (&["json_get_int"], Give::Int),
    (&["json_get_float"], Give::Float),
    (&["json_get_bool"], Give::Bool),
    (&["json_get_array"], Give::Array),
    (&["json_contains"], Give::Contains),
    (&["json_length", "json_len"], Give::Length),
    (&["json_object_keys", "json_keys"], Give::Keys),
];

/// The functions.
pub(super) fn functions() -> impl Iterator<Item = ScalarUDF> {
    FUNCTIONS.iter().map(|(_, give)| function(*give))
}

fn function(give: Give) -> ScalarUDF {
    ScalarUDF::from(JsonFunction {
        give,
        signature: Signature::user_defined(Volatility::Immutable),
        aliases: give.aliases(),
    })
}

impl Give {
    fn names(self) -> &'static [&'static str] {
        FUNCTIONS.iter().find(|(_, give)| *give == self).map_or(&[], |(names, _)| names)
    }

    fn aliases(self) -> Vec<String> {
        self.names().iter().skip(1).map(|name| name.to_string()).collect()
    }

    fn data_type(self) -> DataType {
        match self {
            Give::Text | Give::Json | Give::Str => DataType::Utf8,
            Give::Int | Give::Length => DataType::Int64,
            Give::Float => DataType::Float64,
            Give::Bool | Give::Contains => DataType::Boolean,
            Give::Array | Give::Keys => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonFunction {
    give: Give,
    signature: Signature,
    aliases: Vec<String>,
}

impl ScalarUDFImpl for JsonFunction {
    fn name(&self) -> &str {
        self.give.names().first().copied().unwrap_or_default()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let Some((text, path)) = types.split_first() else {
            return plan_err!("{} takes a JSON text and a path: {}(x, 'key', 0)", self.name(), self.name());
        };
        if !(text.is_string() || text.is_null()) {
            return plan_err!("{} reads JSON from a text, not from {text}", self.name());
        }
        let step = |step: &DataType| match step {
            t if t.is_string() || t.is_null() => Ok(DataType::Utf8),
            t if t.is_integer() => Ok(DataType::Int64),
            other => plan_err!("a path of {} has keys (texts) and places (integers), no {other}", self.name()),
        };
        std::iter::once(Ok(DataType::Utf8)).chain(path.iter().map(step)).collect()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.give.data_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let Some((text, path)) = args.args.split_first() else { return plan_err!("{} takes a JSON text", self.name()) };
        let texts = cast(&text.to_array(rows)?, &DataType::Utf8)?;
        let path = path.iter().map(|step| StepColumn::new(step, rows)).collect::<Result<Vec<_>>>()?;
        let texts = texts.as_string::<i32>();
        let parts = (0..rows).map(|row| {
            if texts.is_null(row) {
                return None;
            }
            let steps = path.iter().map(|step| step.at(row)).collect::<Option<Vec<Step<'_>>>>()?;
            Some(find(texts.value(row), &steps))
        });
        let values = self.give.collect(parts, rows);
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?));
        }
        Ok(ColumnarValue::Array(values))
    }
}

/// One step of a path.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Place(i64),
}

/// One argument of a path: a column, or a constant as a column of one row.
struct StepColumn {
    values: ArrayRef,
    constant: bool,
}

impl StepColumn {
    fn new(step: &ColumnarValue, rows: usize) -> Result<Self> {
        Ok(match step {
            ColumnarValue::Scalar(scalar) => StepColumn { values: scalar.to_array_of_size(1)?, constant: true },
            ColumnarValue::Array(_) => StepColumn { values: step.to_array(rows)?, constant: false },
        })
    }

    fn at(&self, row: usize) -> Option<Step<'_>> {
        let row = if self.constant { 0 } else { row };
        if self.values.is_null(row) {
            return None;
        }
        match self.values.data_type() {
            DataType::Utf8 => Some(Step::Key(self.values.as_string::<i32>().value(row))),
            DataType::Int64 => Some(Step::Place(self.values.as_primitive::<Int64Type>().value(row))),
            _ => None,
        }
    }
}

/// The JSON text that `path` names in `text`.
fn find<'a>(text: &'a str, path: &[Step<'_>]) -> Option<&'a str> {
    let mut scan = Scan::default();
    scan.start(text.as_bytes());
    scan.space();
    let found = part(&mut scan, path).ok()?;
    scan.end().ok()?;
    let (from, to) = found?;
    text.get(from..to)
}

/// Reads the value at the cursor; where in the text the part named by `path` stands.
fn part(scan: &mut Scan<'_>, path: &[Step<'_>]) -> Result<Option<(usize, usize)>, NoJson> {
    let mut found = None;
    match (scan.peek(), path) {
        (_, []) => {
            let from = scan.at;
            scan.skip()?;
            found = Some((from, scan.at));
        }
        (b'{', [Step::Key(name), rest @ ..]) => members(scan, |scan, key| {
            if key.is(name)? {
                found = part(scan, rest)?;
            } else {
                scan.skip()?;
            }
            Ok(())
        })?,
        (b'[', [Step::Place(place), rest @ ..]) if *place >= 0 => elements(scan, |scan, index| {
            if i64::try_from(index) == Ok(*place) {
                found = part(scan, rest)?;
            } else {
                scan.skip()?;
            }
            Ok(())
        })?,
        (b'[', [Step::Place(place), rest @ ..]) => {
            let (mut starts, depth) = (Vec::new(), scan.depth);
            elements(scan, |scan, _| {
                starts.push(scan.at);
                Ok(scan.skip()?)
            })?;
            let index = place.checked_neg().and_then(|back| starts.len().checked_sub(usize::try_from(back).ok()?));
            if let Some(start) = index.and_then(|i| starts.get(i)) {
                // Back to the element, and after it to where the array has ended.
                let end = scan.at;
                scan.at = *start;
                found = part(scan, rest)?;
                (scan.at, scan.depth) = (end, depth);
            }
        }
        _ => scan.skip()?,
    }
    Ok(found)
}

/// A JSON string's text; None for other values.
fn string(json: &str) -> Option<Cow<'_, str>> {
    let mut scan = Scan::default();
    scan.start(json.as_bytes());
    if scan.peek() != b'"' {
        return None;
    }
    let text = scan.string().ok()?;
    if !text.escaped {
        return std::str::from_utf8(text.raw).ok().map(Cow::Borrowed);
    }
    let mut plain = Vec::with_capacity(text.raw.len());
    unescape(text, |piece| plain.extend_from_slice(piece)).ok()?;
    String::from_utf8(plain).ok().map(Cow::Owned)
}

fn number(json: &str) -> Option<&str> {
    json.starts_with(|c: char| c == '-' || c.is_ascii_digit()).then_some(json)
}

/// The value of a number or a string that reads as one.
fn read<T: std::str::FromStr>(json: &str) -> Option<T> {
    match string(json) {
        Some(text) => text.parse().ok(),
        None => json.parse().ok(),
    }
}

/// A whole number, however it is written: `7`, `7.0`, `70e-1`, `"7"`.
fn integer(json: &str) -> Option<i64> {
    let Some(number) = number(json) else { return read(json) };
    if let Ok(value) = number.parse() {
        return Some(value);
    }
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    if significant.trim_start_matches('-').is_empty() {
        return Some(0);
    }
    // Digits behind the last significant one: zeros to be written, or a fraction that there must not be.
    let places = exponent.parse::<i64>().ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let zeros = usize::try_from(places.checked_add(i64::try_from(digits.len() - significant.len()).ok()?)?).ok()?;
    (zeros < 19).then(|| format!("{significant}{}", "0".repeat(zeros)).parse().ok())?
}

/// The spans of what stands directly in an array, or the keys of an object.
fn inside(json: &str) -> Option<Vec<String>> {
    let mut scan = Scan::default();
    scan.start(json.as_bytes());
    let mut found = Vec::new();
    match scan.peek() {
        b'[' => elements(&mut scan, |scan, _| {
            let from = scan.at;
            scan.skip()?;
            found.push(json.get(from..scan.at).unwrap_or_default().to_string());
            Ok(())
        }),
        b'{' => members(&mut scan, |scan, key| {
            found.push(key.text()?);
            Ok(scan.skip()?)
        }),
        _ => return None,
    }
    .ok()?;
    Some(found)
}

/// What stands directly in a JSON array or object, in its order: the key of a member, and the value as it is written. None for everything else.
pub(super) fn contents(json: &str) -> Option<Vec<(Option<String>, &str)>> {
    let mut scan = Scan::default();
    scan.start(json.as_bytes());
    scan.space();
    let mut found = Vec::new();
    match scan.peek() {
        b'[' => elements(&mut scan, |scan, _| {
            let from = scan.at;
            scan.skip()?;
            found.push((None, json.get(from..scan.at).unwrap_or_default()));
            Ok(())
        }),
        b'{' => members(&mut scan, |scan, key| {
            let from = scan.at;
            scan.skip()?;
            found.push((Some(key.text()?), json.get(from..scan.at).unwrap_or_default()));
            Ok(())
        }),
        _ => return None,
    }
    .ok()?;
    scan.end().ok()?;
    Some(found)
}

/// A JSON value as a text: a string without its quotes, `null` as None, anything else as it is written.
pub(super) fn plain(json: &str) -> Option<Cow<'_, str>> {
    (json != "null").then(|| string(json).unwrap_or(Cow::Borrowed(json)))
}

impl Give {
    /// One value for each row: None where the text or a step is NULL, Some(None) where the path names nothing.
    fn collect<'a>(self, parts: impl Iterator<Item = Option<Option<&'a str>>>, rows: usize) -> ArrayRef {
        let found = |part: Option<Option<&'a str>>| part.flatten();
        match self {
            Give::Text | Give::Json | Give::Str => {
                let mut texts = StringBuilder::with_capacity(rows, rows * 8);
                for part in parts.map(found) {
                    match (self, part) {
                        (Give::Json, part) => texts.append_option(part),
                        (Give::Str, part) => texts.append_option(part.and_then(string)),
                        (_, part) => {
                            texts.append_option(part.and_then(plain));
                        }
                    }
                }
                Arc::new(texts.finish())
            }
            Give::Int | Give::Length => {
                let mut numbers = Int64Builder::with_capacity(rows);
                for part in parts.map(found) {
                    numbers.append_option(part.and_then(|part| match self {
                        Give::Length => inside(part).and_then(|all| i64::try_from(all.len()).ok()),
                        _ => integer(part),
                    }));
                }
                Arc::new(numbers.finish())
            }
            Give::Float => {
                let mut numbers = Float64Builder::with_capacity(rows);
                for part in parts.map(found) {
                    numbers.append_option(part.and_then(read::<f64>));
                }
                Arc::new(numbers.finish())
            }
            Give::Bool | Give::Contains => {
                let mut values = BooleanBuilder::with_capacity(rows);
                for part in parts {
                    values.append_option(match (self, part) {
                        (Give::Contains, part) => part.map(|p| p.is_some()),
                        (_, part) => part.flatten().and_then(read),
                    });
                }
                Arc::new(values.finish())
            }
            Give::Array | Give::Keys => {
                let opening = if self == Give::Array { '[' } else { '{' };
                let mut lists = ListBuilder::new(StringBuilder::new());
                for part in parts.map(found) {
                    match part.filter(|p| p.starts_with(opening)).and_then(inside) {
                        Some(all) => {
                            all.iter().for_each(|text| lists.values().append_value(text));
                            lists.append(true);
                        }
                        None => lists.append(false),
                    }
                }
                Arc::new(lists.finish())
            }
        }
    }
}

/// Plans the operators `->` (JSON text), `->>` (text) and `?` (whether a key is there) over texts.
#[derive(Debug)]
pub(super) struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let give = match raw.op {
            BinaryOperator::Arrow => Give::Json,
            BinaryOperator::LongArrow => Give::Text,
            BinaryOperator::Question => Give::Contains,
            _ => return Ok(PlannerResult::Original(raw)),
        };
        if !raw.left.get_type(schema).is_ok_and(|t| t.is_string() || t.is_null()) {
            return Ok(PlannerResult::Original(raw));
        }
        // One look into the text for a whole path: `x -> 'a' -> 'b'`.
        let mut arguments = match raw.left {
            Expr::ScalarFunction(call) if call.func.name() == "json_get_json" => call.args,
            left => vec![left],
        };
        arguments.push(raw.right);
        let call = ScalarFunction::new_udf(Arc::new(function(give)), arguments);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

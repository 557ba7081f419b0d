//! `get_json_object(text, path)`: the part of a JSON text that a path names, as Spark and Hive have it.
//!
//! A path is `$` followed by `.name`, `['name']`, `[0]`, `.*` and `[*]`. What it names comes out as text: a string without its
//! quotes, anything else as compact JSON. Texts that are no JSON, paths that are no paths, and paths that name nothing
//! give NULL; so does a member whose value is `null`.
//!
//! The rules for `[*]` are those of Spark's `GetJsonObject` (Apache Spark, `JsonExpressionEvalUtils`): one match stands alone,
//! several stand in an array; a string below a `[*]` keeps its quotes; `[*][*]` flattens. Numbers keep the digits they are
//! written with, where Spark goes through a double (`1.10` stays `1.10`).

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

use crate::decode::json::scan::{Scan, Text, unescape};

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct GetJsonObject {
    signature: Signature,
}

impl GetJsonObject {
    pub fn new() -> Self {
        GetJsonObject { signature: Signature::string(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for GetJsonObject {
    fn name(&self) -> &str {
        "get_json_object"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [texts, paths] = args.args.as_slice() else { return plan_err!("get_json_object takes a text and a path") };
        let constant = [texts, paths].iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let text = |value: &ColumnarValue| -> Result<ArrayRef> { Ok(cast(&value.to_array(rows)?, &DataType::Utf8)?) };
        let (texts, paths) = (text(texts)?, text(paths)?);
        let (texts, paths) = (texts.as_string::<i32>(), paths.as_string::<i32>());
        let mut found = StringBuilder::with_capacity(rows, rows * 8);
        let mut steps: (&str, Option<Vec<Step>>) = ("", None);
        for row in 0..rows {
            if texts.is_null(row) || paths.is_null(row) {
                found.append_null();
                continue;
            }
            if steps.0 != paths.value(row) {
                steps = (paths.value(row), parse(paths.value(row)));
            }
            found.append_option(steps.1.as_deref().and_then(|path| find(texts.value(row), path)));
        }
        let found = found.finish();
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(found)))
    }
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Member(String),
    AnyMember,
    Element(usize),
    AnyElement,
}

/// The steps of `$.a['b'][0][*]`; None when it is no path.
fn parse(path: &str) -> Option<Vec<Step>> {
    let mut rest = path.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let name = after.get(..end).filter(|name| !name.is_empty())?;
            steps.push(if name == "*" { Step::AnyMember } else { Step::Member(name.to_string()) });
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix("['") {
            let (name, after) = after.split_once("']")?;
            if name.is_empty() || name.contains(['\'', '?']) {
                return None;
            }
            steps.push(if name == "*" { Step::AnyMember } else { Step::Member(name.to_string()) });
            rest = after;
        } else {
            let (index, after) = rest.strip_prefix('[')?.split_once(']')?;
            steps.push(match index {
                "*" => Step::AnyElement,
                digits if digits.bytes().all(|b| b.is_ascii_digit()) => Step::Element(digits.parse().ok()?),
                _ => return None,
            });
            rest = after;
        }
    }
    Some(steps)
}

fn find(text: &str, path: &[Step]) -> Option<String> {
    let mut scan = Scan::default();
    scan.start(text.as_bytes());
    scan.space();
    let mut out = Writer::default();
    match evaluate(&mut scan, &mut out, Style::Raw, path) {
        Ok(true) => String::from_utf8(out.text).ok(),
        _ => None,
    }
}

/// `text` without white space between its tokens; None if it is no JSON.
pub(super) fn compact(text: &str) -> Option<String> {
    let mut scan = Scan::default();
    scan.start(text.as_bytes());
    scan.space();
    let mut out = Vec::with_capacity(text.len());
    copy(&mut scan, &mut out).ok()?;
    scan.end().ok()?;
    String::from_utf8(out).ok()
}

/// How what is found is written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Style {
    /// A string without its quotes.
    Raw,
    /// As JSON.
    Quoted,
    /// As JSON, the elements of arrays instead of the arrays.
    Flatten,
}

/// JSON text under construction.
#[derive(Default)]
struct Writer {
    text: Vec<u8>,
    /// Whether the innermost open array has an element; empty outside arrays.
    open: Vec<bool>,
}

impl Writer {
    /// Begins a value.
    fn value(&mut self) {
        if let Some(filled) = self.open.last_mut()
            && std::mem::replace(filled, true)
        {
            self.text.push(b',');
        }
    }

    fn start_array(&mut self) {
        self.value();
        self.text.push(b'[');
        self.open.push(false);
    }

    fn end_array(&mut self) {
        self.open.pop();
        self.text.push(b']');
    }
}

/// Why a text has no answer: it is no JSON.
#[derive(Debug)]
pub(super) struct NoJson;

impl<T> From<Box<T>> for NoJson {
    fn from(_: Box<T>) -> Self {
        NoJson
    }
}

/// Reads the value at the cursor and writes what `path` names in it. Whether anything was written.
fn evaluate(scan: &mut Scan<'_>, out: &mut Writer, style: Style, path: &[Step]) -> Result<bool, NoJson> {
    let mut found = false;
    match (scan.peek(), path) {
        (b'"', []) if style == Style::Raw => {
            let text = scan.string()?;
            unescape(text, |piece| out.text.extend_from_slice(piece))?;
            found = true;
        }
        (b'[', []) if style == Style::Flatten => elements(scan, |scan, _| {
            found |= evaluate(scan, out, style, path)?;
            Ok(())
        })?,
        (_, []) => {
            out.value();
            copy(scan, &mut out.text)?;
            found = true;
        }
        // The first member that gives something.
        (b'{', [Step::Member(name), rest @ ..]) => members(scan, |scan, key| {
            if !found && scan.peek() != b'n' && key.is(name)? {
                found = evaluate(scan, out, style, rest)?;
                return Ok(());
            }
            Ok(scan.skip()?)
        })?,
        (b'{', [Step::AnyMember, rest @ ..]) => members(scan, |scan, _| {
            if !found {
                found = evaluate(scan, out, style, rest)?;
                return Ok(());
            }
            Ok(scan.skip()?)
        })?,
        (b'[', [Step::AnyElement, Step::AnyElement, rest @ ..]) => {
            out.start_array();
            elements(scan, |scan, _| {
                found |= evaluate(scan, out, Style::Flatten, rest)?;
                Ok(())
            })?;
            out.end_array();
        }
        (b'[', [Step::AnyElement, rest @ ..]) if style != Style::Quoted => {
            let below = if style == Style::Raw { Style::Quoted } else { Style::Flatten };
            let mut several = Writer { text: Vec::new(), open: vec![false] };
            let mut matches = 0;
            elements(scan, |scan, _| {
                matches += usize::from(evaluate(scan, &mut several, below, rest)?);
                Ok(())
            })?;
            if matches > 0 {
                out.value();
            }
            match matches {
                0 | 1 => out.text.extend_from_slice(&several.text),
                _ => out.text.extend([b"[", several.text.as_slice(), b"]"].concat()),
            }
            found = matches > 0;
        }
        (b'[', [Step::AnyElement, rest @ ..]) => {
            out.start_array();
            elements(scan, |scan, _| {
                found |= evaluate(scan, out, Style::Quoted, rest)?;
                Ok(())
            })?;
            out.end_array();
        }
        (b'[', [Step::Element(wanted), rest @ ..]) => {
            let style = if rest.first() == Some(&Step::AnyElement) { Style::Quoted } else { style };
            elements(scan, |scan, index| {
                if index == *wanted {
                    found = evaluate(scan, out, style, rest)?;
                    return Ok(());
                }
                Ok(scan.skip()?)
            })?;
        }
        _ => scan.skip()?,
    }
    Ok(found)
}

/// Reads an array, each element by `read`, which is told its place.
pub(super) fn elements<'a>(
    scan: &mut Scan<'a>,
    mut read: impl FnMut(&mut Scan<'a>, usize) -> Result<(), NoJson>,
) -> Result<(), NoJson> {
    scan.enter()?;
    let mut index = 0;
    while scan.peek() != b']' {
        if index > 0 {
            scan.expect(b',', "`,`")?;
        }
        read(scan, index)?;
        scan.space();
        index += 1;
    }
    scan.leave();
    Ok(())
}

/// Reads an object, each value by `read`, which is told its key.
pub(super) fn members<'a>(
    scan: &mut Scan<'a>,
    mut read: impl FnMut(&mut Scan<'a>, Key<'a>) -> Result<(), NoJson>,
) -> Result<(), NoJson> {
    scan.enter()?;
    let mut first = true;
    while scan.peek() != b'}' {
        if !std::mem::take(&mut first) {
            scan.expect(b',', "`,`")?;
        }
        if scan.peek() != b'"' {
            return Err(NoJson);
        }
        let key = scan.string()?;
        scan.expect(b':', "`:`")?;
        read(scan, Key(key))?;
        scan.space();
    }
    scan.leave();
    Ok(())
}

/// The key of a member.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<'a>(Text<'a>);

impl Key<'_> {
    /// Whether it spells `name`.
    pub fn is(self, name: &str) -> Result<bool, NoJson> {
        if !self.0.escaped {
            return Ok(self.0.raw == name.as_bytes());
        }
        Ok(self.text()? == name)
    }

    pub fn text(self) -> Result<String, NoJson> {
        let mut spelled = Vec::with_capacity(self.0.raw.len());
        unescape(self.0, |piece| spelled.extend_from_slice(piece))?;
        String::from_utf8(spelled).map_err(|_| NoJson)
    }
}

/// Copies the value at the cursor without white space, its strings escaped only where they must be.
fn copy(scan: &mut Scan<'_>, out: &mut Vec<u8>) -> Result<(), NoJson> {
    let start = scan.at;
    scan.skip()?;
    let bytes = scan.bytes.get(start..scan.at).unwrap_or_default();
    let mut inside = Scan::default();
    inside.start(bytes);
    while inside.at < bytes.len() {
        match inside.peek() {
            b'"' => quote(inside.string()?, out)?,
            b' ' | b'\n' | b'\t' | b'\r' => inside.at += 1,
            byte => {
                out.push(byte);
                inside.at += 1;
            }
        }
    }
    Ok(())
}

fn quote(text: Text<'_>, out: &mut Vec<u8>) -> Result<(), NoJson> {
    out.push(b'"');
    if text.escaped {
        let mut plain = Vec::with_capacity(text.raw.len());
        unescape(text, |piece| plain.extend_from_slice(piece))?;
        for byte in plain {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                8 => out.extend_from_slice(b"\\b"),
                12 => out.extend_from_slice(b"\\f"),
                0..0x20 => out.extend_from_slice(format!("\\u{byte:04X}").as_bytes()),
                _ => out.push(byte),
            }
        }
    } else {
        out.extend_from_slice(text.raw);
    }
    out.push(b'"');
    Ok(())
}

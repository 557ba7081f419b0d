//! `modules.re`: Python's regular expressions over Rust's.
//!
//! Rust's `regex` has no look-around and no back-references; a pattern with them is an error that says so.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Kwargs, Object, ObjectRepr, Tuple};
use minijinja::{Error, ErrorKind, State, Value};
use regex::{Regex, RegexBuilder};

use super::containers::{Dict, List};

const IGNORECASE: i64 = 2;
const MULTILINE: i64 = 8;
const DOTALL: i64 = 16;
const VERBOSE: i64 = 64;

/// `modules.re`
#[derive(Debug)]
pub(super) struct Re;

#[derive(Debug)]
struct Pattern(Regex);

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

fn compile(pattern: &Value, flags: i64) -> Result<Regex, Error> {
    if let Some(Pattern(regex)) = pattern.downcast_object_ref::<Pattern>() {
        return Ok(regex.clone());
    }
    let text = pattern.as_str().ok_or_else(|| invalid("re: the pattern is no text"))?;
    RegexBuilder::new(text)
        .case_insensitive(flags & IGNORECASE != 0)
        .multi_line(flags & MULTILINE != 0)
        .dot_matches_new_line(flags & DOTALL != 0)
        .ignore_whitespace(flags & VERBOSE != 0)
        .build()
        .map_err(|e| invalid(format!("re: {e}; look-around and back-references are not supported")))
}

impl Object for Re {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "IGNORECASE" | "I" => Some(Value::from(IGNORECASE)),
            "MULTILINE" | "M" => Some(Value::from(MULTILINE)),
            "DOTALL" | "S" => Some(Value::from(DOTALL)),
            "VERBOSE" | "X" => Some(Value::from(VERBOSE)),
            _ => None,
        }
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        if method == "escape" {
            let text = args.first().and_then(Value::as_str).ok_or_else(|| invalid("re.escape takes text"))?;
            return Ok(Value::from(regex::escape(text)));
        }
        let (args, kwargs) = named(args)?;
        let pattern = args.first().ok_or_else(|| invalid(format!("re.{method} needs a pattern")))?;
        let by_position = match method {
            "compile" => 1,
            "sub" | "subn" | "split" => 4,
            _ => 2,
        };
        let flags = args.get(by_position).and_then(Value::as_i64).or_else(|| kwargs.get("flags").ok()).unwrap_or(0);
        let regex = compile(pattern, flags)?;
        if method == "compile" {
            return Ok(Value::from_object(Pattern(regex)));
        }
        apply(&regex, method, &args[1..], &kwargs)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<module 're'>")
    }
}

impl Object for Pattern {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str()? == "pattern").then(|| Value::from(self.0.as_str()))
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        let (args, kwargs) = named(args)?;
        apply(&self.0, method, &args, &kwargs)
    }
}

fn named(args: &[Value]) -> Result<(Vec<Value>, Kwargs), Error> {
    match args.split_last() {
        Some((last, rest)) if last.is_kwargs() => Ok((rest.to_vec(), Kwargs::try_from(last.clone())?)),
        _ => Ok((args.to_vec(), Kwargs::from_iter(Vec::<(String, Value)>::new()))),
    }
}

fn apply(regex: &Regex, method: &str, args: &[Value], kwargs: &Kwargs) -> Result<Value, Error> {
    let text = |i: usize| {
        let text = args.get(i).and_then(Value::as_str);
        text.ok_or_else(|| invalid(format!("re.{method}: argument {} is no text", i + 1)))
    };
    let anchored = |open: &str, close: &str| {
        Regex::new(&format!("{open}{}{close}", regex.as_str())).map_err(|e| invalid(format!("re: {e}")))
    };
    match method {
        "search" => Ok(found(regex, text(0)?)),
        "match" => Ok(found(&anchored("^(?:", ")")?, text(0)?)),
        "fullmatch" => Ok(found(&anchored("^(?:", ")$")?, text(0)?)),
        "findall" => {
            let group = |captures: regex::Captures<'_>| {
                let get = |i: usize| Value::from(captures.get(i).map_or("", |m| m.as_str()));
                match captures.len() {
                    1 => get(0),
                    2 => get(1),
                    n => Value::from(Tuple::from((1..n).map(get).collect::<Vec<_>>())),
                }
            };
            Ok(List::value(regex.captures_iter(text(0)?).map(group).collect()))
        }
        "finditer" => {
            let text = text(0)?;
            Ok(List::value(regex.captures_iter(text).map(|c| matched(regex, &c)).collect()))
        }
        "split" => Ok(List::value(regex.split(text(0)?).map(Value::from).collect())),
        "sub" => {
            let count = args.get(2).and_then(Value::as_usize).or_else(|| kwargs.get("count").ok()).unwrap_or(0);
            let replacement = template(text(0)?)?;
            Ok(Value::from(regex.replacen(text(1)?, count, replacement.as_str()).into_owned()))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// Python's `\1` and `\g<name>` as `${1}` and `${name}`.
fn template(text: &str) -> Result<String, Error> {
    let groups = Regex::new(r"\\(?:(\d)|g<(\w+)>)").map_err(|e| invalid(e.to_string()))?;
    Ok(groups.replace_all(&text.replace('$', "$$"), "$${$1$2}").into_owned())
}

fn found(regex: &Regex, text: &str) -> Value {
    regex.captures(text).map_or_else(|| Value::from(()), |captures| matched(regex, &captures))
}

/// What `re.match` returns.
#[derive(Debug)]
struct Match {
    groups: Vec<Option<String>>,
    names: Vec<Option<String>>,
    span: (usize, usize),
}

fn matched(regex: &Regex, captures: &regex::Captures<'_>) -> Value {
    Value::from_object(Match {
        groups: captures.iter().map(|m| m.map(|m| m.as_str().to_string())).collect(),
        names: regex.capture_names().map(|n| n.map(str::to_string)).collect(),
        span: captures.get(0).map_or((0, 0), |m| (m.start(), m.end())),
    })
}

impl Match {
    fn group(&self, index: usize) -> Value {
        self.groups.get(index).cloned().flatten().map_or_else(|| Value::from(()), Value::from)
    }
}

impl Object for Match {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match method {
            "group" => match args.first() {
                None => Ok(self.group(0)),
                Some(name) => {
                    let named = || self.names.iter().position(|n| n.as_deref() == name.as_str() && n.is_some());
                    let index = name.as_usize().or_else(named).filter(|i| *i < self.groups.len());
                    index.map(|i| self.group(i)).ok_or_else(|| invalid(format!("re: no such group: {name}")))
                }
            },
            "groups" => {
                let groups: Vec<Value> = (1..self.groups.len()).map(|i| self.group(i)).collect();
                Ok(Value::from(Tuple::from(groups)))
            }
            "groupdict" => {
                let entry = |(i, name): (usize, &Option<String>)| Some((Value::from(name.clone()?), self.group(i)));
                Ok(Dict::value(self.names.iter().enumerate().filter_map(entry)))
            }
            "start" => Ok(Value::from(self.span.0)),
            "end" => Ok(Value::from(self.span.1)),
            "span" => Ok(Value::from(Tuple::from([Value::from(self.span.0), Value::from(self.span.1)]))),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

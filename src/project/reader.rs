//! Typed reading of YAML nodes: every reader either returns a value or records what was expected, where, and why.

use std::collections::BTreeMap;
use std::time::Duration;

use super::problems::{Problems, suggest};
use super::yaml::{Node, Value};

/// Keys whose content is free.
pub(super) const FREE: &[&str] = &["meta"];

impl Node {
    /// This as a mapping whose keys are all in `known`; `what` names it in messages (`a source`).
    /// Unknown keys are recorded as errors and the rest is still usable.
    pub fn check_keys(&self, what: &str, known: &[&str], p: &mut Problems) -> bool {
        let Value::Map(entries) = &self.value else {
            let hint = match &self.value {
                Value::Str(text) if text.contains(':') => "write a space after the colon: `key: value`",
                _ => "",
            };
            self.wrong(format!("{what} must be a mapping, found {}", self.kind()), hint, p);
            return false;
        };
        for entry in entries {
            if !known.contains(&entry.key.as_str()) && !FREE.contains(&entry.key.as_str()) {
                p.error(
                    "unknown-key",
                    self.span_of(entry.key_mark),
                    format!("unknown key `{}` in {what}", entry.key),
                    suggest(&entry.key, known.iter().copied(), "known keys"),
                );
            }
        }
        true
    }

    /// Text; numbers and booleans count as what they look like.
    pub fn text(&self, what: &str, p: &mut Problems) -> Option<String> {
        let text = scalar_text(&self.value);
        if text.is_none() {
            self.wrong(format!("`{what}` must be text, found {}", self.kind()), "", p);
        }
        text
    }

    /// A boolean; `yes`, `no`, `on`, `off` and quoted booleans (from Jinja) count.
    pub fn boolean(&self, what: &str, p: &mut Problems) -> Option<bool> {
        let value = match &self.value {
            Value::Bool(b) => Some(*b),
            Value::Str(s) => parse_bool(s),
            _ => None,
        };
        if value.is_none() {
            let message = format!("`{what}` must be true or false, found {}", self.shown());
            self.wrong(message, "", p);
        }
        value
    }

    /// A whole number, at least `least`.
    pub fn count(&self, what: &str, least: usize, p: &mut Problems) -> Option<usize> {
        let value = match &self.value {
            Value::Int(i) => usize::try_from(*i).ok(),
            Value::Str(s) => s.trim().replace('_', "").parse().ok(),
            _ => None,
        };
        let value = value.filter(|n| *n >= least);
        if value.is_none() {
            let message = format!("`{what}` must be a whole number of at least {least}, found {}", self.shown());
            self.wrong(message, "", p);
        }
        value
    }

    /// A duration: `100ms`, `1s`, `10 minutes`.
    pub fn duration(&self, what: &str, p: &mut Problems) -> Option<Duration> {
        let value = self.as_str().and_then(parse_duration);
        if value.is_none() {
            let message = format!("`{what}` must be a duration, found {}", self.shown());
            self.wrong_as(
                "bad-duration",
                message,
                "write a number and a unit: 100ms, 10s, 5 minutes, 1 hour, 7 days",
                p,
            );
        }
        value
    }

    /// A number of bytes: `512MB`, `4GiB`, or plain bytes.
    pub fn bytes(&self, what: &str, p: &mut Problems) -> Option<usize> {
        let value = match &self.value {
            Value::Int(i) => usize::try_from(*i).ok(),
            Value::Str(s) => parse_bytes(s),
            _ => None,
        };
        if value.is_none() {
            let message = format!("`{what}` must be an amount of memory, found {}", self.shown());
            self.wrong(message, "write a number and a unit: 512MB, 4GB", p);
        }
        value
    }

    /// A list of texts; one text counts as a list of one.
    pub fn texts(&self, what: &str, p: &mut Problems) -> Option<Vec<String>> {
        match &self.value {
            Value::Seq(items) => items.iter().map(|i| i.text(what, p)).collect(),
            Value::Map(_) => {
                self.wrong(format!("`{what}` must be a list of names, found a mapping"), "", p);
                None
            }
            Value::Null => Some(Vec::new()),
            _ => self.text(what, p).map(|t| vec![t]),
        }
    }

    /// The items of a list.
    pub fn items(&self, what: &str, p: &mut Problems) -> &[Node] {
        match &self.value {
            Value::Seq(items) => items,
            Value::Null => &[],
            _ => {
                let hint = match self.value {
                    Value::Map(_) => "start each item with `- `",
                    _ => "",
                };
                self.wrong(format!("`{what}` must be a list, found {}", self.kind()), hint, p);
                &[]
            }
        }
    }

    /// A mapping from names to texts: properties that go somewhere verbatim.
    pub fn properties(&self, what: &str, p: &mut Problems) -> BTreeMap<String, String> {
        let Value::Map(entries) = &self.value else {
            if !matches!(self.value, Value::Null) {
                self.wrong(format!("`{what}` must be a mapping, found {}", self.kind()), "", p);
            }
            return BTreeMap::new();
        };
        entries.iter().filter_map(|e| Some((e.key.clone(), e.value.text(&e.key, p)?))).collect()
    }

    /// One of a fixed set of words.
    pub fn choice<T: Copy>(&self, what: &str, choices: &[(&str, T)], p: &mut Problems) -> Option<T> {
        let text = self.text(what, p)?;
        let found = choices.iter().find(|(name, _)| *name == text.trim().to_lowercase()).map(|(_, value)| *value);
        if found.is_none() {
            let hint = suggest(&text, choices.iter().map(|(name, _)| *name), "it can be");
            p.error("unknown-value", self.span(), format!("`{what}` cannot be `{text}`"), hint);
        }
        found
    }

    fn wrong(&self, message: String, hint: &str, p: &mut Problems) {
        self.wrong_as("wrong-type", message, hint, p);
    }

    /// Says that the value is wrong, unless that is known already.
    fn wrong_as(&self, code: &'static str, message: String, hint: &str, p: &mut Problems) {
        if !matches!(self.value, Value::Failed) {
            p.error(code, self.span(), message, hint);
        }
    }

    /// The value as a message shows it.
    pub fn shown(&self) -> String {
        match scalar_text(&self.value) {
            Some(text) => format!("`{text}`"),
            None => self.kind().to_string(),
        }
    }
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::Str(s) => Some(s.clone()),
        Value::Int(i) => Some(i.to_string()),
        Value::Float(f) => Some(f.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Null | Value::Failed | Value::Seq(_) | Value::Map(_) => None,
    }
}

pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().to_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// `100ms`, `1s`, `10 minutes`, `interval 7 days` (as Delta properties say it), and sums: `1h 30m`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let lower = text.trim().to_lowercase();
    let mut rest = lower.strip_prefix("interval ").unwrap_or(&lower).trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|i| *i > 0)?;
        let (number, tail) = rest.split_at(digits);
        let tail = tail.trim_start();
        let letters = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "us" | "µs" | "microsecond" | "microseconds" => 1e-6,
            "ms" | "millisecond" | "milliseconds" | "millis" => 1e-3,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hour" | "hours" | "hr" | "hrs" => 3600.0,
            "d" | "day" | "days" => 86400.0,
            "w" | "week" | "weeks" => 604_800.0,
            _ => return None,
        };
        let amount: f64 = number.parse().ok()?;
        // Through whole microseconds: 0.1 s is exactly 100 ms.
        let micros = (amount * seconds * 1e6).round();
        if !(0.0..1e18).contains(&micros) {
            return None;
        }
        total = total.checked_add(Duration::from_micros(micros as u64))?;
        rest = tail.trim_start();
    }
    Some(total)
}

fn parse_bytes(text: &str) -> Option<usize> {
    let text = text.trim().to_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    (0.0..1e18).contains(&bytes).then_some(bytes as usize)
}

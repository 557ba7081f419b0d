//! The same rules once more, slowly and by other means: serde_json decides what is JSON, a tree is built, strings are expanded,
//! chrono reads times.

use arrow::array::{Array, AsArray};
use arrow::datatypes::*;
use chrono::{NaiveDate, NaiveTime};
use regex::Regex;
use std::sync::LazyLock;

/// JSON with its numbers as text and its duplicate keys.
#[derive(Debug, Clone)]
pub enum Dom {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Array(Vec<Dom>),
    Object(Vec<(String, Dom)>),
}

/// A value of a column, comparable.
#[derive(Debug, Clone, PartialEq)]
pub enum Val {
    Null,
    Bool(bool),
    Int(i128),
    /// Bits of a double or single.
    Float(u64),
    Text(String),
    Bytes(Vec<u8>),
    Row(Vec<Val>),
    List(Vec<Val>),
    Map(Vec<(Val, Val)>),
}

/// The record's tree, if it is JSON.
pub fn parse(bytes: &[u8]) -> Option<Dom> {
    let judged = serde_json::from_slice::<serde_json::Value>(bytes);
    let dom = std::str::from_utf8(bytes).ok().and_then(|text| {
        let chars: Vec<char> = text.chars().collect();
        let mut parser = Parser { chars, at: 0 };
        let dom = parser.value()?;
        parser.space();
        (parser.at == parser.chars.len()).then_some(dom)
    });
    match judged {
        Ok(_) => assert!(dom.is_some(), "serde_json reads {}", String::from_utf8_lossy(bytes)),
        // Grammar is one thing, a double's range another.
        Err(e) if e.to_string().contains("number out of range") => {}
        Err(e) => assert!(dom.is_none(), "serde_json refuses {}: {e}", String::from_utf8_lossy(bytes)),
    }
    dom
}

struct Parser {
    chars: Vec<char>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, c: char) -> Option<()> {
        self.space();
        (self.peek() == Some(c)).then(|| self.at += 1)
    }

    fn value(&mut self) -> Option<Dom> {
        self.space();
        match self.peek()? {
            '{' => {
                self.at += 1;
                let mut members = Vec::new();
                if self.eat('}').is_some() {
                    return Some(Dom::Object(members));
                }
                loop {
                    self.space();
                    let key = self.string()?;
                    self.eat(':')?;
                    members.push((key, self.value()?));
                    if self.eat('}').is_some() {
                        return Some(Dom::Object(members));
                    }
                    self.eat(',')?;
                }
            }
            '[' => {
                self.at += 1;
                let mut items = Vec::new();
                if self.eat(']').is_some() {
                    return Some(Dom::Array(items));
                }
                loop {
                    items.push(self.value()?);
                    if self.eat(']').is_some() {
                        return Some(Dom::Array(items));
                    }
                    self.eat(',')?;
                }
            }
            '"' => self.string().map(Dom::Text),
            _ => {
                let start = self.at;
                while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) {
                    self.at += 1;
                }
                let word: String = self.chars[start..self.at].iter().collect();
                static NUMBER: LazyLock<Regex> =
                    LazyLock::new(|| Regex::new(r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$").unwrap());
                match word.as_str() {
                    "null" => Some(Dom::Null),
                    "true" => Some(Dom::Bool(true)),
                    "false" => Some(Dom::Bool(false)),
                    _ => NUMBER.is_match(&word).then_some(Dom::Number(word)),
                }
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        let start = self.at;
        self.eat('"')?;
        while self.peek()? != '"' {
            self.at += if self.peek()? == '\\' { 2 } else { 1 };
        }
        self.at += 1;
        let text: String = self.chars.get(start..self.at)?.iter().collect();
        serde_json::from_str(&text).ok()
    }
}

/// The rules with or without rescue. `rescued` is set when something was.
pub struct Rules {
    pub rescue: bool,
    pub rescued: bool,
}

impl Rules {
    /// The row of an object; `Err` when the record is bad.
    pub fn row(&mut self, fields: &Fields, members: &[(String, Dom)]) -> Result<Vec<Val>, ()> {
        let mut row = vec![Val::Null; fields.len()];
        let target = |key: &str| {
            fields
                .iter()
                .position(|f| f.name() == key)
                .or_else(|| fields.iter().position(|f| f.name().to_lowercase() == key.to_lowercase()))
        };
        for (i, field) in fields.iter().enumerate() {
            let mine: Vec<&(String, Dom)> = members.iter().filter(|(key, _)| target(key) == Some(i)).collect();
            let exact = mine.iter().rfind(|(key, _)| key == field.name());
            let Some((key, value)) = exact.or(mine.last()) else { continue };
            // Spellings that lost against the exact one after it stood there count as unknown.
            if exact.is_some() {
                let first = members.iter().position(|(k, _)| k == field.name()).unwrap();
                self.rescued |= members[first..].iter().any(|(k, _)| target(k) == Some(i) && k != key);
            }
            match self.value(field.data_type(), value) {
                Ok(value) => row[i] = value,
                Err(()) if self.rescue => self.rescued = true,
                Err(()) => return Err(()),
            }
        }
        self.rescued |= members.iter().any(|(key, _)| target(key).is_none());
        Ok(row)
    }

    fn value(&mut self, data_type: &DataType, dom: &Dom) -> Result<Val, ()> {
        Ok(match (data_type, dom) {
            (_, Dom::Null) => Val::Null,
            (DataType::Boolean, Dom::Bool(b)) => Val::Bool(*b),
            (DataType::Boolean, _) => return Err(()),
            (DataType::Utf8, Dom::Text(text)) => Val::Text(text.clone()),
            (DataType::Struct(fields), Dom::Object(members)) => Val::Row(self.row(fields, members)?),
            (DataType::List(item), Dom::Array(items)) => {
                Val::List(items.iter().map(|v| self.value(item.data_type(), v)).collect::<Result<_, _>>()?)
            }
            (DataType::Map(entries, _), Dom::Object(members)) => {
                let DataType::Struct(pair) = entries.data_type() else { panic!() };
                let mut keys = Vec::new();
                for (key, _) in members {
                    keys.push(scalar(pair[0].data_type(), key)?);
                }
                let mut map = Vec::new();
                for (i, key) in keys.iter().enumerate() {
                    // −0.0 and 0.0 are one key.
                    let same = |other: &Val| match (key, other) {
                        (Val::Float(a), Val::Float(b)) => f64::from_bits(*a) == f64::from_bits(*b) || a == b,
                        _ => key == other,
                    };
                    if !keys[i + 1..].iter().any(same) {
                        map.push((key.clone(), self.value(pair[1].data_type(), &members[i].1)?));
                    }
                }
                Val::Map(map)
            }
            (DataType::Struct(_) | DataType::List(_) | DataType::Map(..), _) => return Err(()),
            (_, Dom::Text(text)) => scalar(data_type, text)?,
            (DataType::Utf8 | DataType::Binary | DataType::Date32 | DataType::Timestamp(..), _) => return Err(()),
            (_, Dom::Number(text)) => scalar(data_type, text)?,
            _ => return Err(()),
        })
    }
}

/// Text as a plain value; numbers are text here.
pub fn scalar(data_type: &DataType, text: &str) -> Result<Val, ()> {
    static NUMBER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$").unwrap());
    let whole = |min: i64, max: i64| match expand(text, 0) {
        Some(n) if (min as i128..=max as i128).contains(&n) => Ok(Val::Int(n)),
        _ => Err(()),
    };
    if data_type.is_numeric() && !NUMBER.is_match(text) {
        let special = match text {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            _ => return Err(()),
        };
        return match data_type {
            DataType::Float32 => Ok(Val::Float((special as f32).to_bits() as u64)),
            DataType::Float64 => Ok(Val::Float(special.to_bits())),
            _ => Err(()),
        };
    }
    match data_type {
        DataType::Utf8 => Ok(Val::Text(text.into())),
        // Only as the key of a MAP.
        DataType::Boolean => match text.to_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "1" => Ok(Val::Bool(true)),
            "false" | "f" | "no" | "n" | "0" => Ok(Val::Bool(false)),
            _ => Err(()),
        },
        DataType::Int8 => whole(i8::MIN as i64, i8::MAX as i64),
        DataType::Int16 => whole(i16::MIN as i64, i16::MAX as i64),
        DataType::Int32 => whole(i32::MIN as i64, i32::MAX as i64),
        DataType::Int64 => whole(i64::MIN, i64::MAX),
        DataType::Float32 => match text.parse::<f32>() {
            Ok(value) if value.is_finite() => Ok(Val::Float(value.to_bits() as u64)),
            _ => Err(()),
        },
        DataType::Float64 => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Val::Float(value.to_bits())),
            _ => Err(()),
        },
        DataType::Decimal128(precision, scale) => match expand(text, *scale as usize) {
            Some(n) if n.unsigned_abs().to_string().len() <= *precision as usize || n == 0 => Ok(Val::Int(n)),
            _ => Err(()),
        },
        DataType::Date32 => {
            let date = date(text).ok_or(())?;
            Ok(Val::Int((date - NaiveDate::default()).num_days() as i128))
        }
        DataType::Timestamp(_, zone) => timestamp(text, zone.is_some()).map(Val::Int).ok_or(()),
        DataType::Binary => unbase64(text).map(Val::Bytes).ok_or(()),
        _ => Err(()),
    }
}

/// `text · 10^scale` as an integer, by moving the point in the text.
fn expand(text: &str, scale: usize) -> Option<i128> {
    let negative = text.starts_with('-');
    let text = text.trim_start_matches(['+', '-']).to_lowercase();
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.trim_start_matches('0').is_empty() {
        return Some(0);
    }
    let exponent: i64 = exponent.parse().ok().filter(|e: &i64| e.abs() < 2000)?;
    let point = whole.len() as i64 + exponent + scale as i64;
    let (left, right) = if point <= 0 {
        (String::new(), format!("{}{digits}", "0".repeat(-point as usize)))
    } else if point as usize >= digits.len() {
        (format!("{digits}{}", "0".repeat(point as usize - digits.len())), String::new())
    } else {
        (digits[..point as usize].to_string(), digits[point as usize..].to_string())
    };
    if right.contains(|c| c != '0') {
        return None;
    }
    let left = left.trim_start_matches('0');
    if left.len() > 38 {
        return None;
    }
    let value: i128 = if left.is_empty() { 0 } else { left.parse().ok()? };
    Some(if negative { -value } else { value })
}

fn date(text: &str) -> Option<NaiveDate> {
    static DATE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^([0-9]{4})-([0-9]{2})-([0-9]{2})$").unwrap());
    let parts = DATE.captures(text)?;
    NaiveDate::from_ymd_opt(parts[1].parse().ok()?, parts[2].parse().ok()?, parts[3].parse().ok()?)
}

fn timestamp(text: &str, zoned: bool) -> Option<i128> {
    static TIME: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"^(.{10})(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?([Zz]|([+-])([0-9]{2})(?::?([0-9]{2}))?)?)?$",
        )
        .unwrap()
    });
    let parts = TIME.captures(text)?;
    let part = |i: usize| parts.get(i).map_or(Some(0), |m| m.as_str().parse::<u32>().ok());
    let date = date(&parts[1])?;
    let nanos: u32 = parts.get(5).map_or(0, |m| format!("{:0<9}", m.as_str()).parse().unwrap());
    let time = NaiveTime::from_hms_nano_opt(part(2)?, part(3)?, part(4)?, nanos)?;
    let micros = date.and_time(time).and_utc().timestamp_micros() as i128;
    if parts.get(6).is_some() && !zoned {
        return None;
    }
    let (hours, minutes) = (part(8)?, part(9)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset = (hours * 60 + minutes) as i128 * 60_000_000;
    Some(if parts.get(7).is_some_and(|m| m.as_str() == "-") { micros + offset } else { micros - offset })
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if padding > 2 || (padding > 0 && !text.len().is_multiple_of(4)) || digits.len() % 4 == 1 {
        return None;
    }
    let mut bits = String::new();
    for c in digits.chars() {
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let c = match c {
            '-' => '+',
            '_' => '/',
            c => c,
        };
        bits.push_str(&format!("{:06b}", alphabet.find(c)?));
    }
    let bytes = bits.len() / 8;
    if bits[bytes * 8..].contains('1') {
        return None;
    }
    Some((0..bytes).map(|i| u8::from_str_radix(&bits[i * 8..i * 8 + 8], 2).unwrap()).collect())
}

/// Row `row` of an array.
pub fn value_at(array: &dyn Array, row: usize) -> Val {
    if array.is_null(row) {
        return Val::Null;
    }
    match array.data_type() {
        DataType::Boolean => Val::Bool(array.as_boolean().value(row)),
        DataType::Int8 => Val::Int(array.as_primitive::<Int8Type>().value(row) as i128),
        DataType::Int16 => Val::Int(array.as_primitive::<Int16Type>().value(row) as i128),
        DataType::Int32 => Val::Int(array.as_primitive::<Int32Type>().value(row) as i128),
        DataType::Int64 => Val::Int(array.as_primitive::<Int64Type>().value(row) as i128),
        DataType::Date32 => Val::Int(array.as_primitive::<Date32Type>().value(row) as i128),
        DataType::Timestamp(..) => Val::Int(array.as_primitive::<TimestampMicrosecondType>().value(row) as i128),
        DataType::Decimal128(..) => Val::Int(array.as_primitive::<Decimal128Type>().value(row)),
        DataType::Float32 => Val::Float(array.as_primitive::<Float32Type>().value(row).to_bits() as u64),
        DataType::Float64 => Val::Float(array.as_primitive::<Float64Type>().value(row).to_bits()),
        DataType::Utf8 => Val::Text(array.as_string::<i32>().value(row).into()),
        DataType::Binary => Val::Bytes(array.as_binary::<i32>().value(row).into()),
        DataType::Struct(_) => Val::Row(array.as_struct().columns().iter().map(|c| value_at(c, row)).collect()),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            Val::List((0..items.len()).map(|i| value_at(&items, i)).collect())
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            Val::Map(
                (0..entries.len()).map(|i| (value_at(entries.column(0), i), value_at(entries.column(1), i))).collect(),
            )
        }
        other => panic!("no column has {other}"),
    }
}

//! Reading one value into its column: the rules of which JSON values a SQL type takes. `null` is NULL for all of them.
//!
//! | type | takes |
//! |---|---|
//! | STRING | strings only |
//! | BOOLEAN | `true`, `false` |
//! | TINYINT … BIGINT | numbers without a fraction (1, 1.0, 1e2) in range; text that is such a number, leading zeros or a plus too |
//! | FLOAT, DOUBLE | numbers (the nearest float; beyond the largest is bad), text that is one, `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | DECIMAL(p,s) | numbers and text, exactly: other digits than 0 after the s-th, or more than p digits, are bad |
//! | DATE | text: `2026-01-07`, or the declared format |
//! | TIMESTAMP | text: ISO 8601, with or without a zone (then UTC) and seconds, µs cut off; or the declared format |
//! | TIMESTAMP_NTZ | the same without a zone |
//! | BINARY | base64 text |
//! | STRUCT, MAP | objects; of duplicate keys the last counts |
//! | ARRAY | arrays |

use hashbrown::HashSet;

use super::column::{Column, List, Map, Values};
use super::fault::{Fault, Step, shorten};
use super::number::{self, Number, Unfit};
use super::scan::{Scan, Text, unescape};
use super::{base64, time};

/// Maps with more entries look for duplicate keys by hashing.
const PAIRWISE: usize = 16;

impl Column {
    /// Reads the value at the cursor as one more row. After an error the row is half read: truncate.
    #[inline]
    pub fn read(&mut self, s: &mut Scan<'_>) -> Step {
        match (&mut *self, s.peek()) {
            (Column::String(bytes), b'"') => {
                let text = s.string()?;
                if text.escaped {
                    unescape(text, |piece| bytes.data.extend_from_slice(piece))?;
                    bytes.seal();
                } else {
                    bytes.push(text.raw);
                }
                Ok(())
            }
            (_, b'n') => {
                s.literal("null")?;
                self.push_null();
                Ok(())
            }
            (Column::Struct(object), b'{') => object.read(s),
            (Column::List(list), b'[') => read_list(list, s),
            (Column::Map(map), b'{') => read_map(map, s),
            (Column::String(_) | Column::Binary(_), b'-' | b'0'..=b'9') => Err(self.mismatch(s, "a number")),
            (Column::Boolean(values), b't') => {
                s.literal("true")?;
                values.push(true);
                Ok(())
            }
            (Column::Boolean(values), b'f') => {
                s.literal("false")?;
                values.push(false);
                Ok(())
            }
            (_, b'-' | b'0'..=b'9') => {
                let at = s.at;
                let number = s.number()?;
                self.push_number(number, &s.bytes[at..s.at]).map_err(|message| Fault::convert(at, message))
            }
            (Column::Boolean(_) | Column::Struct(_) | Column::List(_) | Column::Map(_), b'"') => {
                Err(self.mismatch(s, "text"))
            }
            (_, b'"') => {
                let at = s.at;
                let text = s.string()?;
                self.push_string(text, s, at)
            }
            (_, b't' | b'f') => Err(self.mismatch(s, "a boolean")),
            (_, b'{') => Err(self.mismatch(s, "an object")),
            (_, b'[') => Err(self.mismatch(s, "an array")),
            _ => Err(s.unexpected("a value")),
        }
    }

    #[cold]
    fn mismatch(&self, s: &Scan<'_>, found: &str) -> Box<Fault> {
        Fault::convert(s.at, format!("{found} is no {}", self.type_name()))
    }

    /// `text` without escapes into a column that is no STRING.
    #[inline]
    fn push_string(&mut self, text: Text<'_>, s: &mut Scan<'_>, at: usize) -> Step {
        if !text.escaped {
            return self.push_text(text.raw).map_err(|message| Fault::convert(at, message));
        }
        let mut scratch = std::mem::take(&mut s.scratch);
        scratch.clear();
        unescape(text, |piece| scratch.extend_from_slice(piece))?;
        let pushed = self.push_text(&scratch).map_err(|message| Fault::convert(at, message));
        s.scratch = scratch;
        pushed
    }

    /// Appends what `text` means as a value of the column's type: the content of a JSON string, or a CSV cell. Nothing is
    /// appended on error, which comes as the reason. STRUCT, ARRAY and MAP have no text form of their own.
    #[inline]
    pub fn push_text(&mut self, text: &[u8]) -> Result<(), String> {
        match self {
            Column::String(bytes) => bytes.push(text),
            Column::Timestamp { values, zone, format } => {
                match time::parse_timestamp(text, zone.is_some(), format.as_ref()) {
                    Some(micros) => values.push(micros),
                    None => return Err(self.no_time(text)),
                }
            }
            Column::Date { values, format } => match time::parse_date(text, format.as_ref()) {
                Some(days) => values.push(days),
                None => return Err(self.no_time(text)),
            },
            Column::Binary(bytes) => {
                if !base64::decode(text, &mut bytes.data) {
                    return Err(format!("`{}` is no base64", shorten(text)));
                }
                bytes.seal();
            }
            Column::Boolean(values) => match parse_boolean(text) {
                Some(value) => values.push(value),
                None => return Err(self.unfit(text, None)),
            },
            Column::Struct(_) | Column::List(_) | Column::Map(_) => {
                return Err(format!("text is no {}", self.type_name()));
            }
            Column::Float32(values) if special(text).is_some() => values.push(special(text).unwrap_or_default() as f32),
            Column::Float64(values) if special(text).is_some() => values.push(special(text).unwrap_or_default()),
            _ => match number::parse::<true>(text, 0) {
                Ok((number, end)) if end == text.len() => return self.push_number(number, text),
                _ => return Err(self.unfit(text, None)),
            },
        }
        Ok(())
    }

    /// Appends `number`, which stands as `text`. Nothing is appended on error.
    #[inline]
    fn push_number(&mut self, number: Number, text: &[u8]) -> Result<(), String> {
        let pushed = match self {
            Column::Int64(values) => push(values, number.integer(text)),
            Column::Int32(values) => push(values, number.integer(text)),
            Column::Float64(values) => push(values, number.double(text)),
            Column::Decimal { values, precision, scale } => push(values, number.decimal(text, *precision, *scale)),
            Column::Float32(values) => push(values, number.single(text)),
            Column::Int16(values) => push(values, number.integer(text)),
            Column::Int8(values) => push(values, number.integer(text)),
            _ => return Err(format!("a number is no {}", self.type_name())),
        };
        pushed.map_err(|why| self.unfit(text, Some(why)))
    }

    #[cold]
    fn unfit(&self, text: &[u8], why: Option<Unfit>) -> String {
        let name = self.type_name();
        let text = shorten(text);
        match (why, self) {
            (None, _) => format!("`{text}` is no {name}"),
            (Some(Unfit::Range), _) => format!("{text} does not fit {name}"),
            (Some(Unfit::Fraction), Column::Decimal { scale, .. }) => {
                format!("{text} has more than the {scale} fractional digits of {name}")
            }
            (Some(Unfit::Fraction), _) => format!("{text} is no {name}: it has a fraction"),
        }
    }

    #[cold]
    fn no_time(&self, text: &[u8]) -> String {
        let (Column::Date { format, .. } | Column::Timestamp { format, .. }) = self else {
            return String::new();
        };
        match format {
            Some(format) => {
                format!("`{}` is no {} (`{}`, or ISO 8601)", shorten(text), self.type_name(), format.text())
            }
            None => format!("`{}` is no {} (ISO 8601)", shorten(text), self.type_name()),
        }
    }

    fn type_name(&self) -> String {
        match self {
            Column::Boolean(_) => "BOOLEAN".into(),
            Column::Int8(_) => "TINYINT".into(),
            Column::Int16(_) => "SMALLINT".into(),
            Column::Int32(_) => "INT".into(),
            Column::Int64(_) => "BIGINT".into(),
            Column::Float32(_) => "FLOAT".into(),
            Column::Float64(_) => "DOUBLE".into(),
            Column::Decimal { precision, scale, .. } => format!("DECIMAL({precision},{scale})"),
            Column::Date { .. } => "DATE".into(),
            Column::Timestamp { zone: Some(_), .. } => "TIMESTAMP".into(),
            Column::Timestamp { zone: None, .. } => "TIMESTAMP_NTZ".into(),
            Column::String(_) => "STRING".into(),
            Column::Binary(_) => "BINARY".into(),
            Column::Struct(_) => "STRUCT".into(),
            Column::List(_) => "ARRAY".into(),
            Column::Map(_) => "MAP".into(),
        }
    }

    /// The value of row `row` as something to compare keys of a MAP by.
    fn key(&self, row: usize) -> Key<'_> {
        match self {
            Column::String(bytes) | Column::Binary(bytes) => Key::Bytes(bytes.value(row)),
            Column::Boolean(v) => Key::Number(v.values[row] as i128),
            Column::Int8(v) => Key::Number(v.values[row] as i128),
            Column::Int16(v) => Key::Number(v.values[row] as i128),
            Column::Int32(v) | Column::Date { values: v, .. } => Key::Number(v.values[row] as i128),
            Column::Int64(v) | Column::Timestamp { values: v, .. } => Key::Number(v.values[row] as i128),
            Column::Decimal { values, .. } => Key::Number(values.values[row]),
            // −0.0 is 0.0 as a key.
            Column::Float32(v) => Key::Number((v.values[row] + 0.0).to_bits() as i128),
            Column::Float64(v) => Key::Number((v.values[row] + 0.0).to_bits() as i128),
            // No key type: see `parse_sql_type`.
            Column::Struct(_) | Column::List(_) | Column::Map(_) => Key::Number(row as i128),
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Bytes(&'a [u8]),
    Number(i128),
}

#[inline(always)]
fn push<T: Copy + Default>(values: &mut Values<T>, value: Result<T, Unfit>) -> Result<(), Unfit> {
    values.push(value?);
    Ok(())
}

/// `"NaN"`, `"Infinity"`, `"-Infinity"`.
fn special(text: &[u8]) -> Option<f64> {
    match text {
        b"NaN" => Some(f64::NAN),
        b"Infinity" => Some(f64::INFINITY),
        b"-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// As PostgreSQL reads one; for CSV, where JSON's literals do not exist.
fn parse_boolean(text: &[u8]) -> Option<bool> {
    let is = |word: &str| text.eq_ignore_ascii_case(word.as_bytes());
    if is("true") || is("t") || is("yes") || is("y") || is("1") {
        return Some(true);
    }
    (is("false") || is("f") || is("no") || is("n") || is("0")).then_some(false)
}

fn read_list(list: &mut List, s: &mut Scan<'_>) -> Step {
    s.enter()?;
    if s.peek() != b']' {
        loop {
            list.items.read(s)?;
            s.space();
            match s.peek() {
                b',' => {
                    s.at += 1;
                    s.space();
                }
                b']' => break,
                _ => return Err(s.unexpected("`,` or `]`")),
            }
        }
    }
    s.leave();
    list.offsets.push(list.items.len() as i32);
    Ok(())
}

fn read_map(map: &mut Map, s: &mut Scan<'_>) -> Step {
    let (at, depth, rescued) = (s.at, s.depth, s.rescued.len());
    let start = map.keys.len();
    match read_entries(map, s) {
        Err(fault) if fault.syntax => return Err(fault),
        Ok(()) if !has_duplicates(&map.keys, start) => {}
        // With a duplicate key the last value counts, also when an earlier one does not fit: start again and be careful.
        _ => {
            (s.at, s.depth) = (at, depth);
            s.rescued.truncate(rescued);
            map.keys.truncate(start);
            map.values.truncate(start);
            read_last_entries(map, s)?;
        }
    }
    map.offsets.push(map.keys.len() as i32);
    Ok(())
}

fn read_entries(map: &mut Map, s: &mut Scan<'_>) -> Step {
    s.enter()?;
    if s.peek() != b'}' {
        loop {
            read_key(&mut map.keys, s)?;
            s.expect(b':', "`:`")?;
            map.values.read(s)?;
            s.space();
            match s.peek() {
                b',' => {
                    s.at += 1;
                    s.space();
                }
                b'}' => break,
                _ => return Err(s.unexpected("`,` or `}`")),
            }
        }
    }
    s.leave();
    Ok(())
}

fn read_key(keys: &mut Column, s: &mut Scan<'_>) -> Step {
    if s.peek() != b'"' {
        return Err(s.unexpected("a key in double quotes"));
    }
    let at = s.at;
    let text = s.string()?;
    keys.push_string(text, s, at)
}

/// [`read_entries`] with the last value of each key only.
#[cold]
fn read_last_entries(map: &mut Map, s: &mut Scan<'_>) -> Step {
    let start = map.keys.len();
    let mut entries = Vec::new();
    s.enter()?;
    loop {
        let key_at = s.at;
        read_key(&mut map.keys, s)?;
        s.expect(b':', "`:`")?;
        entries.push((key_at, s.at));
        s.skip()?;
        s.space();
        match s.peek() {
            b',' => {
                s.at += 1;
                s.space();
            }
            b'}' => break,
            _ => return Err(s.unexpected("`,` or `}`")),
        }
    }
    let mut seen = HashSet::new();
    let mut last: Vec<usize> = (0..entries.len()).rev().filter(|i| seen.insert(map.keys.key(start + i))).collect();
    last.reverse();
    drop(seen);
    let end = s.at;
    map.keys.truncate(start);
    for i in last {
        let (key_at, value_at) = entries[i];
        s.at = key_at;
        read_key(&mut map.keys, s)?;
        s.at = value_at;
        map.values.read(s)?;
    }
    s.at = end;
    s.leave();
    Ok(())
}

fn has_duplicates(keys: &Column, start: usize) -> bool {
    let count = keys.len() - start;
    if count <= PAIRWISE {
        return (1..count).any(|i| (0..i).any(|j| keys.key(start + i) == keys.key(start + j)));
    }
    let mut seen = HashSet::with_capacity(count);
    !(start..keys.len()).all(|row| seen.insert(keys.key(row)))
}

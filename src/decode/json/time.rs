//! Dates and instants in text: ISO 8601, or a declared strftime format.
//!
//! Instants are µs; further digits of a fraction are cut off. Text without a zone means UTC.

use chrono::format::{Fixed, Item, Numeric, Pad, Parsed, StrftimeItems};

use crate::error::{Error, Result};

const DAY: i64 = 86_400_000_000;

/// A declared format, compiled once.
#[derive(Debug, Clone)]
pub(crate) struct Format {
    items: Vec<Item<'static>>,
    /// The same when it consists of fixed-width numbers only: an order of magnitude faster. What it does not read, `items` decides.
    fast: Option<Vec<Part>>,
    text: String,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Literal(u8),
    /// (which field of `Clock`, digits)
    Digits(usize, usize),
    /// Up to nine digits after the point, the point included; may be absent.
    Fraction,
}

/// Year, month, day, hour, minute, second, and the µs within it.
#[derive(Debug)]
struct Clock {
    fields: [u32; 6],
    micros: u32,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { fields: [1970, 1, 1, 0, 0, 0], micros: 0 }
    }
}

impl Clock {
    fn days(&self) -> Option<i32> {
        let [year, month, day, ..] = self.fields;
        if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
            return None;
        }
        // Days from civil (Hinnant): the year begins in March, so that the leap day is its last.
        let year = year as i32 - i32::from(month <= 2);
        let era = year.div_euclid(400);
        let of_era = year.rem_euclid(400);
        let of_year = (153 * ((month as i32 + 9) % 12) + 2) / 5 + day as i32 - 1;
        Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
    }

    fn micros(&self) -> Option<i64> {
        let [.., hour, minute, second] = self.fields;
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let seconds = (hour * 60 + minute) * 60 + second;
        Some(self.days()? as i64 * DAY + seconds as i64 * 1_000_000 + self.micros as i64)
    }
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `width` digits at `at`.
#[inline]
fn digits(text: &[u8], at: usize, width: usize) -> Option<u32> {
    text.get(at..at + width)?.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + (b - b'0') as u32))
}

/// The fraction whose point stands at `at`: µs and the fraction's end.
fn fraction(text: &[u8], at: usize) -> Option<(u32, usize)> {
    let mut micros = 0;
    let mut end = at + 1;
    while let Some(byte) = text.get(end).filter(|b| b.is_ascii_digit()) {
        let place = end - at - 1;
        if place < 6 {
            micros += (byte - b'0') as u32 * 10u32.pow(5 - place as u32);
        }
        end += 1;
    }
    (1..=9).contains(&(end - at - 1)).then_some((micros, end))
}

fn iso_date(text: &[u8]) -> Option<Clock> {
    if text.len() < 10 || text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let fields = [digits(text, 0, 4)?, digits(text, 5, 2)?, digits(text, 8, 2)?, 0, 0, 0];
    Some(Clock { fields, micros: 0 })
}

/// `2026-01-07` as days since 1970.
pub(crate) fn parse_date(text: &[u8], format: Option<&Format>) -> Option<i32> {
    if let Some(format) = format
        && let Some((micros, _)) = format.parse(text)
    {
        // A format with a time of day loses nothing only at midnight.
        return (micros % DAY == 0).then(|| i32::try_from(micros / DAY).ok()).flatten();
    }
    if text.len() == 10 { iso_date(text)?.days() } else { None }
}

/// `2026-01-07T14:05:12.123456789+02:00` as µs since 1970, UTC. The `T` may be a space; seconds, fraction, zone, and the whole
/// time of day may be absent. `zoned` is false for TIMESTAMP_NTZ, which takes no zone.
pub(crate) fn parse_timestamp(text: &[u8], zoned: bool, format: Option<&Format>) -> Option<i64> {
    if let Some(format) = format
        && let Some((micros, has_zone)) = format.parse(text)
    {
        return (zoned || !has_zone).then_some(micros);
    }
    let mut clock = iso_date(text)?;
    if text.len() == 10 {
        return clock.micros();
    }
    if !matches!(text[10], b'T' | b't' | b' ') || text.get(13) != Some(&b':') {
        return None;
    }
    clock.fields[3] = digits(text, 11, 2)?;
    clock.fields[4] = digits(text, 14, 2)?;
    let mut at = 16;
    if text.get(at) == Some(&b':') {
        clock.fields[5] = digits(text, 17, 2)?;
        at = 19;
        if text.get(at) == Some(&b'.') {
            (clock.micros, at) = fraction(text, at)?;
        }
    }
    let micros = clock.micros()?;
    if at == text.len() {
        return Some(micros);
    }
    if !zoned {
        return None;
    }
    micros.checked_sub(offset(&text[at..])? * 1_000_000)
}

/// Seconds east of UTC: `Z`, `+02`, `+0200`, `+02:00`.
fn offset(zone: &[u8]) -> Option<i64> {
    let sign = match zone {
        [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let hours = digits(zone, 1, 2)?;
    let minutes = match zone.len() {
        3 => 0,
        5 => digits(zone, 3, 2)?,
        6 if zone[3] == b':' => digits(zone, 4, 2)?,
        _ => return None,
    };
    (hours <= 23 && minutes <= 59).then(|| sign * (hours as i64 * 3600 + minutes as i64 * 60))
}

impl Format {
    /// Compiles `format`, a chrono strftime pattern; `column` names it in the error.
    pub fn new(format: &str, column: &str) -> Result<Self> {
        let items = StrftimeItems::new(format).parse_to_owned().map_err(|_| {
            Error::user("timestamp-format", format!("column `{column}`: `{format}` is no strftime format"))
                .with_hint("for example %d-%m-%Y %H:%M:%S")
        })?;
        Ok(Format { fast: compile(&items), items, text: format.to_string() })
    }

    /// As it was declared.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// µs since 1970 UTC, and whether the text named a zone.
    fn parse(&self, text: &[u8]) -> Option<(i64, bool)> {
        if let Some(parts) = &self.fast
            && let Some(micros) = parse_parts(parts, text)
        {
            return Some((micros, false));
        }
        let text = std::str::from_utf8(text).ok()?;
        let mut parsed = Parsed::new();
        chrono::format::parse(&mut parsed, text, self.items.iter()).ok()?;
        if parsed.offset().is_some() || parsed.timestamp().is_some() {
            let offset = parsed.offset().unwrap_or(0);
            let local = parsed.to_naive_datetime_with_offset(offset).ok()?;
            return Some((local.and_utc().timestamp_micros().checked_sub(offset as i64 * 1_000_000)?, true));
        }
        let date = parsed.to_naive_date().ok()?;
        let has_time = parsed.hour_mod_12().is_some() || parsed.minute().is_some() || parsed.second().is_some();
        let time = if !has_time {
            chrono::NaiveTime::MIN
        } else {
            if parsed.minute().is_none() {
                parsed.set_minute(0).ok()?;
            }
            parsed.to_naive_time().ok()?
        };
        Some((date.and_time(time).and_utc().timestamp_micros(), false))
    }
}

fn compile(items: &[Item<'static>]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut seen = [false; 6];
    for item in items {
        match item {
            Item::Literal(text) | Item::Space(text) => parts.extend(text.bytes().map(Part::Literal)),
            Item::OwnedLiteral(text) | Item::OwnedSpace(text) => parts.extend(text.bytes().map(Part::Literal)),
            Item::Numeric(numeric, Pad::Zero) => {
                let (field, width) = match numeric {
                    Numeric::Year => (0, 4),
                    Numeric::Month => (1, 2),
                    Numeric::Day => (2, 2),
                    Numeric::Hour => (3, 2),
                    Numeric::Minute => (4, 2),
                    Numeric::Second => (5, 2),
                    _ => return None,
                };
                if std::mem::replace(&mut seen[field], true) {
                    return None;
                }
                parts.push(Part::Digits(field, width));
            }
            Item::Fixed(Fixed::Nanosecond) => parts.push(Part::Fraction),
            _ => return None,
        }
    }
    // Without a whole date, or with seconds but no hour, chrono decides.
    let [year, month, day, hour, minute, second] = seen;
    (year && month && day && (hour == minute) && (minute || !second)).then_some(parts)
}

fn parse_parts(parts: &[Part], text: &[u8]) -> Option<i64> {
    let mut clock = Clock::default();
    let mut at = 0;
    for part in parts {
        match *part {
            Part::Literal(byte) => {
                if text.get(at) != Some(&byte) {
                    return None;
                }
                at += 1;
            }
            Part::Digits(field, width) => {
                clock.fields[field] = digits(text, at, width)?;
                at += width;
            }
            Part::Fraction => {
                if text.get(at) == Some(&b'.') {
                    (clock.micros, at) = fraction(text, at)?;
                }
            }
        }
    }
    if at == text.len() { clock.micros() } else { None }
}

//! Text → date, time and offset, by a compiled pattern.

use super::{DAYS, Field, Format, Item, Length, MONTHS, Pad, Part};
use crate::error::{Error, Result};
use arrow::array::timezone::Tz;
use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone};
use std::str::FromStr;

/// Why a text does not match. Allocates nothing: `try_` functions throw it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// At this byte the text is not what the pattern wants.
    Expected { at: usize, what: &'static str },
    /// The pattern ends here, the text does not.
    Trailing { at: usize },
    /// It fits the pattern, but there is no such date or time.
    Impossible { what: &'static str },
}

/// What a text said. What it left out is None.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    year: Option<i32>,
    quarter: Option<u32>,
    month: Option<u32>,
    day: Option<u32>,
    day_of_year: Option<u32>,
    /// Monday is 0.
    weekday: Option<u32>,
    hour24: Option<u32>,
    hour12: Option<u32>,
    afternoon: Option<bool>,
    minute: Option<u32>,
    second: Option<u32>,
    second_of_day: Option<u32>,
    nanosecond: u32,
    offset_seconds: Option<i32>,
    offset_negative: bool,
    zone: Option<Tz>,
    epoch_seconds: Option<i64>,
    julian: Option<i32>,
}

impl Format {
    /// Whether this pattern can be read as well as written.
    pub fn check_parses(&self) -> Result<()> {
        fn unreadable(items: &[Item]) -> bool {
            items.iter().any(|item| match item {
                Item::Text(_) => false,
                Item::Optional(items) => unreadable(items),
                Item::Field(Field::Number { part, .. }) => matches!(
                    part,
                    Part::IsoYear | Part::Century | Part::IsoWeek | Part::Week | Part::SundayWeek | Part::MondayWeek
                ),
                Item::Field(_) => false,
            })
        }
        if unreadable(&self.items) {
            let message =
                format!("the pattern '{}' has weeks or centuries, which can be written but not read", self.pattern);
            return Err(
                Error::user("format-pattern", message).with_hint("read year, month and day, or the day of the year")
            );
        }
        Ok(())
    }

    /// Matches all of `text`.
    pub fn parse(&self, text: &str) -> std::result::Result<Parts, Mismatch> {
        let mut parts = Parts::default();
        let end = run(&self.items, text.as_bytes(), 0, &mut parts)?;
        if end < text.len() { Err(Mismatch::Trailing { at: end }) } else { Ok(parts) }
    }

    /// The error a person reads when `text` does not match; `remedy` is the function that gives NULL instead.
    pub fn explain(&self, text: &str, mismatch: Mismatch, remedy: &str) -> Error {
        let reason = match mismatch {
            Mismatch::Expected { at, what } if at >= text.len() => format!("the text ends where {what} should stand"),
            Mismatch::Expected { at, what } => format!("expected {what} at '{}'", tail(text, at)),
            Mismatch::Trailing { at } => format!("'{}' is left over", tail(text, at)),
            Mismatch::Impossible { what } => format!("there is no such {what}"),
        };
        Error::user("cast", format!("'{text}' does not match the pattern '{}': {reason}", self.pattern))
            .with_hint(format!("{remedy} gives NULL instead"))
    }
}

fn tail(text: &str, at: usize) -> &str {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    &text[at..]
}

type Position = std::result::Result<usize, Mismatch>;

fn run(items: &[Item], text: &[u8], mut at: usize, parts: &mut Parts) -> Position {
    for item in items {
        at = match item {
            Item::Text(expected) => match text[at..].starts_with(expected.as_bytes()) {
                true => at + expected.len(),
                false => return Err(Mismatch::Expected { at, what: "the pattern's own text" }),
            },
            Item::Optional(items) => {
                let mut with = parts.clone();
                match run(items, text, at, &mut with) {
                    Ok(end) => {
                        *parts = with;
                        end
                    }
                    Err(_) => at,
                }
            }
            Item::Field(field) => parse_field(*field, text, at, parts)?,
        };
    }
    Ok(at)
}

fn parse_field(field: Field, text: &[u8], at: usize, parts: &mut Parts) -> Position {
    match field {
        Field::Number { part, min, max, pad } => {
            let start = match pad {
                Pad::Space(width) => {
                    at + text[at..].iter().take(usize::from(width) - 1).take_while(|b| **b == b' ').count()
                }
                _ => at,
            };
            let negative = part == Part::EpochSeconds && text.get(start) == Some(&b'-');
            let start = start + usize::from(negative);
            let (value, end) =
                digits(text, start, min, max).ok_or(Mismatch::Expected { at: start, what: part.name() })?;
            parts.set(part, if negative { -value } else { value }, at)?;
            Ok(end)
        }
        Field::Year2 { pivot } => {
            let (value, end) = digits(text, at, 2, 2).ok_or(Mismatch::Expected { at, what: "a year of two digits" })?;
            let century = if value < i64::from(pivot) { 2000 } else { 1900 };
            parts.year = Some(century + value as i32);
            Ok(end)
        }
        Field::MonthName { length, .. } => {
            let (index, end) =
                name(text, at, &MONTHS, length).ok_or(Mismatch::Expected { at, what: "a month's name" })?;
            parts.month = Some(index + 1);
            Ok(end)
        }
        Field::DayName { length, .. } => {
            let (index, end) =
                name(text, at, &DAYS, length).ok_or(Mismatch::Expected { at, what: "a weekday's name" })?;
            parts.weekday = Some(index);
            Ok(end)
        }
        Field::Meridiem { dots, .. } => {
            let names: [&[u8]; 2] = if dots { [b"a.m.", b"p.m."] } else { [b"am", b"pm"] };
            let found = names.iter().position(|n| starts_with_ignore_case(&text[at..], n));
            let index = found.ok_or(Mismatch::Expected { at, what: if dots { "A.M. or P.M." } else { "AM or PM" } })?;
            parts.afternoon = Some(index == 1);
            Ok(at + names[index].len())
        }
        Field::Fraction { min, max, point } => {
            let start = match (point, text.get(at)) {
                (true, Some(b'.')) => at + 1,
                (true, _) => return Ok(at),
                (false, _) => at,
            };
            // `.` alone is no fraction.
            let min = if point { min.max(1) } else { min };
            if max == 0 {
                return Ok(start);
            }
            let expected = Mismatch::Expected { at: start, what: "a fraction of a second" };
            let (value, end) = match digits(text, start, min, max) {
                Some(found) => found,
                None if min == 0 => (0, start),
                None => return Err(expected),
            };
            parts.nanosecond = value as u32 * 10u32.pow(9 - (end - start) as u32);
            Ok(end)
        }
        Field::Offset { colon, minutes, z } => {
            if z && text.get(at).is_some_and(|b| b.eq_ignore_ascii_case(&b'z')) {
                parts.offset_seconds = Some(0);
                return Ok(at + 1);
            }
            let at = offset_hours(text, at, parts)?;
            let expected = |at| Mismatch::Expected { at, what: "minutes of the zone's offset" };
            let there = match (colon, text.get(at)) {
                (true, Some(b':')) => true,
                (true, _) => false,
                (false, next) => next.is_some_and(u8::is_ascii_digit),
            };
            match (there, minutes) {
                (true, _) => offset_minutes(text, at + usize::from(colon), parts),
                (false, false) => Ok(at),
                (false, true) => Err(expected(at)),
            }
        }
        Field::OffsetHours => offset_hours(text, at, parts),
        Field::OffsetMinutes => offset_minutes(text, at, parts),
        Field::Zone => {
            let length = text[at..]
                .iter()
                .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'+' | b'-' | b':'))
                .count();
            let expected = Mismatch::Expected { at, what: "a time zone" };
            let name = std::str::from_utf8(&text[at..at + length]).map_err(|_| expected)?;
            let name = if name.eq_ignore_ascii_case("z") { "UTC" } else { name };
            parts.zone = Some(Tz::from_str(name).map_err(|_| expected)?);
            Ok(at + length)
        }
    }
}

/// A number of `min` to `max` digits at `at`, as many as there are, and where it ends.
fn digits(text: &[u8], at: usize, min: u8, max: u8) -> Option<(i64, usize)> {
    let found = text.get(at..)?.iter().take(usize::from(max)).take_while(|b| b.is_ascii_digit());
    let (value, count) = found.fold((0i64, 0), |(value, count), b| (value * 10 + i64::from(b - b'0'), count + 1));
    (count >= usize::from(min) && count > 0).then_some((value, at + count))
}

/// Which of `names` stands at `at`, in any case, and where it ends.
fn name(text: &[u8], at: usize, names: &[&str], length: Length) -> Option<(u32, usize)> {
    let width = |name: &str| if length == Length::Short { 3 } else { name.len() };
    let index = names.iter().position(|n| starts_with_ignore_case(&text[at..], &n.as_bytes()[..width(n)]))?;
    Some((index as u32, at + width(names[index])))
}

fn starts_with_ignore_case(text: &[u8], head: &[u8]) -> bool {
    text.get(..head.len()).is_some_and(|t| t.eq_ignore_ascii_case(head))
}

fn offset_hours(text: &[u8], at: usize, parts: &mut Parts) -> Position {
    let expected = Mismatch::Expected { at, what: "a zone's offset (+hh:mm)" };
    parts.offset_negative = match text.get(at) {
        Some(b'+') => false,
        Some(b'-') => true,
        _ => return Err(expected),
    };
    let (hours, end) = digits(text, at + 1, 2, 2).filter(|(h, _)| *h <= 18).ok_or(expected)?;
    let seconds = hours as i32 * 3600;
    parts.offset_seconds = Some(if parts.offset_negative { -seconds } else { seconds });
    Ok(end)
}

fn offset_minutes(text: &[u8], at: usize, parts: &mut Parts) -> Position {
    let expected = Mismatch::Expected { at, what: "minutes of the zone's offset" };
    let (minutes, end) = digits(text, at, 2, 2).filter(|(m, _)| *m < 60).ok_or(expected)?;
    let seconds = minutes as i32 * 60;
    let signed = if parts.offset_negative { -seconds } else { seconds };
    parts.offset_seconds = Some(parts.offset_seconds.unwrap_or(0) + signed);
    Ok(end)
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Year | Part::IsoYear => "a year",
            Part::Century => "a century",
            Part::Quarter => "a quarter",
            Part::Month => "a month",
            Part::IsoWeek | Part::Week | Part::SundayWeek | Part::MondayWeek => "a week",
            Part::Day => "a day",
            Part::DayOfYear => "a day of the year",
            Part::IsoWeekday | Part::Weekday0 | Part::Weekday1 => "a weekday",
            Part::Hour24 | Part::Hour12 => "an hour",
            Part::Minute => "a minute",
            Part::Second => "a second",
            Part::SecondOfDay => "a second of the day",
            Part::EpochSeconds => "seconds since 1970",
            Part::Julian => "a Julian day",
        }
    }
}

impl Parts {
    fn set(&mut self, part: Part, value: i64, at: usize) -> std::result::Result<(), Mismatch> {
        let small = value as u32;
        let within = |ok: bool| if ok { Ok(()) } else { Err(Mismatch::Expected { at, what: part.name() }) };
        match part {
            Part::Year => self.year = Some(value as i32),
            Part::Quarter => {
                within((1..=4).contains(&small))?;
                self.quarter = Some(small);
            }
            Part::Month => {
                within((1..=12).contains(&small))?;
                self.month = Some(small);
            }
            Part::Day => {
                within((1..=31).contains(&small))?;
                self.day = Some(small);
            }
            Part::DayOfYear => {
                within((1..=366).contains(&small))?;
                self.day_of_year = Some(small);
            }
            Part::IsoWeekday | Part::Weekday0 | Part::Weekday1 => {
                // Sunday is 7, 0 and 1.
                let (low, monday) = match part {
                    Part::IsoWeekday => (1, 1),
                    Part::Weekday0 => (0, 1),
                    _ => (1, 2),
                };
                within((low..low + 7).contains(&small))?;
                self.weekday = Some((small + 7 - monday) % 7);
            }
            Part::Hour24 => {
                within(small < 24)?;
                self.hour24 = Some(small);
            }
            Part::Hour12 => {
                within((1..=12).contains(&small))?;
                self.hour12 = Some(small);
            }
            Part::Minute => {
                within(small < 60)?;
                self.minute = Some(small);
            }
            Part::Second => {
                within(small < 60)?;
                self.second = Some(small);
            }
            Part::SecondOfDay => {
                within(small < 86_400)?;
                self.second_of_day = Some(small);
            }
            Part::EpochSeconds => self.epoch_seconds = Some(value),
            Part::Julian => self.julian = Some(value as i32),
            // Refused by `check_parses`.
            Part::IsoYear | Part::Century | Part::IsoWeek | Part::Week | Part::SundayWeek | Part::MondayWeek => {
                within(false)?
            }
        }
        Ok(())
    }

    /// The date, as the text's own zone has it.
    pub fn date(&self) -> std::result::Result<NaiveDate, Mismatch> {
        let no_date = Mismatch::Impossible { what: "date" };
        let date = if let Some(seconds) = self.epoch_seconds {
            chrono::DateTime::from_timestamp(seconds, 0).ok_or(no_date)?.date_naive()
        } else if let Some(julian) = self.julian {
            NaiveDate::from_num_days_from_ce_opt(julian - 1_721_425).ok_or(no_date)?
        } else {
            let year = self.year.unwrap_or(1970);
            match self.day_of_year {
                Some(ordinal) => NaiveDate::from_yo_opt(year, ordinal),
                // Quarter 2 alone is its first day.
                None => {
                    let month = self.month.or(self.quarter.map(|q| q * 3 - 2)).unwrap_or(1);
                    NaiveDate::from_ymd_opt(year, month, self.day.unwrap_or(1))
                }
            }
            .ok_or(no_date)?
        };
        let agrees = self.month.is_none_or(|m| m == date.month())
            && self.day.is_none_or(|d| d == date.day())
            && self.quarter.is_none_or(|q| q == date.month0() / 3 + 1);
        if !agrees {
            return Err(no_date);
        }
        match self.weekday {
            // A weekday alone says nothing about the date.
            Some(weekday) if self.day.is_some() || self.day_of_year.is_some() || self.julian.is_some() => {
                let matches = weekday == date.weekday().num_days_from_monday();
                if matches { Ok(date) } else { Err(Mismatch::Impossible { what: "date: it is another weekday" }) }
            }
            _ => Ok(date),
        }
    }

    fn time(&self) -> std::result::Result<NaiveTime, Mismatch> {
        let no_time = Mismatch::Impossible { what: "time" };
        if let Some(second) = self.second_of_day {
            return NaiveTime::from_num_seconds_from_midnight_opt(second, self.nanosecond).ok_or(no_time);
        }
        let hour = match (self.hour24, self.hour12, self.afternoon) {
            (Some(hour), None, Some(afternoon)) if afternoon != (hour >= 12) => return Err(no_time),
            (Some(hour), None, _) => hour,
            (None, Some(hour), afternoon) => hour % 12 + if afternoon == Some(true) { 12 } else { 0 },
            (None, None, Some(true)) => 12,
            (None, None, _) => 0,
            (Some(hour), Some(half), _) if hour % 12 == half % 12 => hour,
            (Some(_), Some(_), _) => return Err(no_time),
        };
        NaiveTime::from_hms_nano_opt(hour, self.minute.unwrap_or(0), self.second.unwrap_or(0), self.nanosecond)
            .ok_or(no_time)
    }

    /// The instant: µs since 1970 UTC. A text without zone is UTC.
    pub fn timestamp_micros(&self) -> std::result::Result<i64, Mismatch> {
        if let Some(seconds) = self.epoch_seconds {
            let micros = seconds.checked_mul(1_000_000).and_then(|m| m.checked_add(i64::from(self.nanosecond / 1000)));
            return micros.ok_or(Mismatch::Impossible { what: "time" });
        }
        let local: NaiveDateTime = self.date()?.and_time(self.time()?);
        let offset = match (self.offset_seconds, &self.zone) {
            (Some(offset), _) => offset,
            // Of two instants with the same local time, the earlier one; a local time that clocks skip does not exist.
            (None, Some(zone)) => zone
                .offset_from_local_datetime(&local)
                .earliest()
                .ok_or(Mismatch::Impossible { what: "time in that zone" })?
                .fix()
                .local_minus_utc(),
            (None, None) => 0,
        };
        Ok(local.and_utc().timestamp_micros() - i64::from(offset) * 1_000_000)
    }

    /// Days since 1970.
    pub fn days(&self) -> std::result::Result<i32, Mismatch> {
        // The time is parsed and dropped, but it must be one.
        self.time()?;
        // chrono's default date is 1970-01-01.
        Ok((self.date()? - NaiveDate::default()).num_days() as i32)
    }
}

//! Date and time patterns: one compiled form for three pattern languages.
//!
//! A pattern is text in one of the languages ([`sql`]: `DD-MM-YYYY HH24:MI:SS`, [`java`]: `dd-MM-yyyy HH:mm:ss`,
//! [`strftime`]: `%d-%m-%Y %H:%M:%S`); the project's dialect says which ([`Style`]). [`Format::compile`] turns it into a list
//! of [`Item`]s, once per literal pattern; [`parse`] runs the list over a text, [`render`] over an instant.
//!
//! Parsing is exact: all of the text is matched and nothing is left over; a date that does not exist (31 April), an hour 24 or
//! a weekday that contradicts the date is no match. What a pattern does not mention is 1970-01-01 00:00:00 UTC.

mod java;
mod parse;
mod render;
mod sql;
mod strftime;

pub use parse::Mismatch;
pub use render::Moment;

use crate::error::{Error, Result};
use crate::project::Dialect;

/// Which language a pattern is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Style {
    /// `%d-%m-%Y`; `%f` is written with so many digits.
    Strftime { fraction: u8 },
    /// `DD-MM-YYYY`; names are written `Mar`, whatever the case of the pattern.
    Snowflake,
    /// `DD-MM-YYYY`; names follow the pattern's case and full names are padded to nine characters.
    Postgres,
    /// `dd-MM-yyyy`.
    Java,
}

impl Style {
    /// The language of `pattern` in a project of this dialect.
    pub fn of(dialect: Dialect, pattern: &str) -> Style {
        match dialect {
            // Its own language is strftime; people write the other one, so a pattern without `%` is taken for that.
            Dialect::DataFusion if pattern.contains('%') => Style::Strftime { fraction: 9 },
            Dialect::DataFusion | Dialect::Snowflake => Style::Snowflake,
            Dialect::DuckDb => Style::Strftime { fraction: 6 },
            Dialect::Postgres => Style::Postgres,
            Dialect::Spark | Dialect::Databricks => Style::Java,
        }
    }
}

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq)]
pub struct Format {
    items: Vec<Item>,
    pattern: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Item {
    /// Stands in the text as it is.
    Text(String),
    Field(Field),
    /// Parsed as a whole or not at all; always written.
    Optional(Vec<Item>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Field {
    /// A number of `min` to `max` digits when parsed, written with `pad`.
    Number {
        part: Part,
        min: u8,
        max: u8,
        pad: Pad,
    },
    /// The last two digits of the year; below `pivot` they mean 20xx.
    Year2 {
        pivot: u8,
    },
    MonthName {
        length: Length,
        case: Case,
        padded: bool,
    },
    DayName {
        length: Length,
        case: Case,
        padded: bool,
    },
    /// AM and PM, or A.M. and P.M.
    Meridiem {
        case: Case,
        dots: bool,
    },
    /// Digits behind the decimal point: `min` to `max` when parsed, `max` when written. `point`: with the point before them,
    /// and, when parsed, both may be absent.
    Fraction {
        min: u8,
        max: u8,
        point: bool,
    },
    /// +hhmm or +hh:mm. `z`: `Z` stands for zero. `minutes`: false when only written if they are not zero.
    Offset {
        colon: bool,
        minutes: bool,
        z: bool,
    },
    /// Sign and hours of the offset; its minutes stand elsewhere.
    OffsetHours,
    OffsetMinutes,
    /// A zone's name: `UTC`, `Europe/Paris`.
    Zone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Year,
    IsoYear,
    Century,
    Quarter,
    Month,
    /// ISO 8601 week.
    IsoWeek,
    /// Week of the year: the first starts on 1 January.
    Week,
    /// Week of the year that starts on Sunday; days before the first Sunday are in week 0.
    SundayWeek,
    /// The same with Monday.
    MondayWeek,
    Day,
    DayOfYear,
    /// Monday is 1.
    IsoWeekday,
    /// Sunday is 0.
    Weekday0,
    /// Sunday is 1.
    Weekday1,
    Hour24,
    Hour12,
    Minute,
    Second,
    SecondOfDay,
    EpochSeconds,
    Julian,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pad {
    None,
    Zero(u8),
    Space(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Short,
    Long,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Title,
    Upper,
    Lower,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// Monday first, as in ISO 8601.
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl Format {
    /// Compiles `pattern`; a letter or directive that the language lacks is the user's error.
    pub fn compile(pattern: &str, style: Style) -> Result<Format> {
        let items = match style {
            Style::Strftime { fraction } => strftime::items(pattern, fraction),
            Style::Snowflake => sql::items(pattern, false),
            Style::Postgres => sql::items(pattern, true),
            Style::Java => java::items(pattern),
        };
        let items = items.map_err(|Refused { what, hint }| {
            Error::user("format-pattern", format!("the pattern '{pattern}' {what}")).with_hint(hint)
        })?;
        Ok(Format { items, pattern: pattern.to_string() })
    }

    /// As it was written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Seconds, counted from 1970, within which every instant has the same text; None where a second is too long.
    pub fn period(&self) -> Option<i64> {
        period(&self.items)
    }
}

const DAY: i64 = 86_400;

fn period(items: &[Item]) -> Option<i64> {
    // A day is a whole number of each of them, an hour of those below, and so on.
    items.iter().try_fold(DAY, |shortest, item| {
        let period = match item {
            Item::Text(_) => DAY,
            Item::Optional(items) => period(items)?,
            Item::Field(Field::Fraction { .. }) => return None,
            Item::Field(Field::Meridiem { .. }) => 3_600,
            Item::Field(Field::Number { part, .. }) => match part {
                Part::Hour24 | Part::Hour12 => 3_600,
                Part::Minute => 60,
                Part::Second | Part::SecondOfDay | Part::EpochSeconds => 1,
                Part::Year
                | Part::IsoYear
                | Part::Century
                | Part::Quarter
                | Part::Month
                | Part::IsoWeek
                | Part::Week => DAY,
                Part::SundayWeek | Part::MondayWeek | Part::Day | Part::DayOfYear => DAY,
                Part::IsoWeekday | Part::Weekday0 | Part::Weekday1 | Part::Julian => DAY,
            },
            Item::Field(Field::Year2 { .. } | Field::MonthName { .. } | Field::DayName { .. }) => DAY,
            // Of UTC.
            Item::Field(Field::Offset { .. } | Field::OffsetHours | Field::OffsetMinutes | Field::Zone) => DAY,
        };
        Some(shortest.min(period))
    })
}

/// Why a pattern is none: continues "the pattern '…'".
struct Refused {
    what: String,
    hint: &'static str,
}

impl Part {
    /// A field of this part, as wide as `width` digits at the most, zeros in front when written.
    fn padded(self, width: u8) -> Field {
        Field::Number { part: self, min: 1, max: width, pad: Pad::Zero(width) }
    }

    /// The same, but exactly so many digits when parsed.
    fn exact(self, width: u8) -> Field {
        Field::Number { part: self, min: width, max: width, pad: Pad::Zero(width) }
    }
}

/// Adds text, joining it to text before it.
fn push_text(items: &mut Vec<Item>, c: char) {
    if let Some(Item::Text(text)) = items.last_mut() {
        text.push(c);
    } else {
        items.push(Item::Text(c.to_string()));
    }
}

/// `YYYYMMDD`: where a number follows a number, only full widths say where the first one ends.
fn exact_where_adjacent(items: &mut [Item]) {
    for i in 1..items.len() {
        let (before, after) = items.split_at_mut(i);
        let starts_with_digit = match &after[0] {
            Item::Field(Field::Number { .. } | Field::Year2 { .. } | Field::Fraction { point: false, .. }) => true,
            Item::Text(text) => text.starts_with(|c: char| c.is_ascii_digit()),
            _ => false,
        };
        if let (true, Some(Item::Field(Field::Number { min, max, .. }))) = (starts_with_digit, before.last_mut()) {
            *min = *max;
        }
    }
}

#[cfg(test)]
mod tests;

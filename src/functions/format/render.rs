//! Date and time → text, by a compiled pattern.

use super::{Case, DAYS, Field, Format, Item, Length, MONTHS, Pad, Part};
use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
use std::fmt::Write;

/// An instant in UTC, ready to be written.
#[derive(Debug, Clone, Copy)]
pub struct Moment(NaiveDateTime);

impl Moment {
    /// `nanos` past `seconds` since 1970; None outside the calendar.
    pub fn new(seconds: i64, nanos: u32) -> Option<Moment> {
        DateTime::from_timestamp(seconds, nanos).map(|t| Moment(t.naive_utc()))
    }
}

impl Format {
    /// Appends `moment` to `out`.
    pub fn render(&self, moment: Moment, out: &mut String) {
        write_items(&self.items, moment.0, out);
    }
}

fn write_items(items: &[Item], at: NaiveDateTime, out: &mut String) {
    for item in items {
        match item {
            Item::Text(text) => out.push_str(text),
            Item::Optional(items) => write_items(items, at, out),
            Item::Field(field) => write_field(*field, at, out),
        }
    }
}

fn write_field(field: Field, at: NaiveDateTime, out: &mut String) {
    match field {
        Field::Number { part, pad, .. } => write_number(value(part, at), pad, out),
        Field::Year2 { .. } => write_number(i64::from(at.year().rem_euclid(100)), Pad::Zero(2), out),
        Field::MonthName { length, case, padded } => {
            write_name(MONTHS[at.month0() as usize], length, case, padded, out)
        }
        Field::DayName { length, case, padded } => {
            write_name(DAYS[at.weekday().num_days_from_monday() as usize], length, case, padded, out);
        }
        Field::Meridiem { case, dots } => {
            let afternoon = at.hour() >= 12;
            out.push_str(match (case, dots, afternoon) {
                (Case::Lower, false, false) => "am",
                (Case::Lower, false, true) => "pm",
                (Case::Lower, true, false) => "a.m.",
                (Case::Lower, true, true) => "p.m.",
                (_, false, false) => "AM",
                (_, false, true) => "PM",
                (_, true, false) => "A.M.",
                (_, true, true) => "P.M.",
            });
        }
        Field::Fraction { max, point, .. } => {
            if max == 0 {
                return;
            }
            if point {
                out.push('.');
            }
            let digits = i64::from(at.nanosecond() % 1_000_000_000) / 10i64.pow(9 - u32::from(max));
            write_number(digits, Pad::Zero(max), out);
        }
        // The instant is UTC.
        Field::Offset { z: true, .. } => out.push('Z'),
        Field::Offset { minutes: false, .. } | Field::OffsetHours => out.push_str("+00"),
        Field::Offset { colon, .. } => out.push_str(if colon { "+00:00" } else { "+0000" }),
        Field::OffsetMinutes => out.push_str("00"),
        Field::Zone => out.push_str("UTC"),
    }
}

fn value(part: Part, at: NaiveDateTime) -> i64 {
    let unsigned = match part {
        Part::Year => return i64::from(at.year()),
        Part::IsoYear => return i64::from(at.iso_week().year()),
        Part::Century => return i64::from((at.year() + 99).div_euclid(100)),
        Part::EpochSeconds => return at.and_utc().timestamp(),
        Part::Julian => return i64::from(at.num_days_from_ce()) + 1_721_425,
        Part::Quarter => at.month0() / 3 + 1,
        Part::Month => at.month(),
        Part::IsoWeek => at.iso_week().week(),
        Part::Week => at.ordinal0() / 7 + 1,
        Part::SundayWeek => (at.ordinal0() + 7 - at.weekday().num_days_from_sunday()) / 7,
        Part::MondayWeek => (at.ordinal0() + 7 - at.weekday().num_days_from_monday()) / 7,
        Part::Day => at.day(),
        Part::DayOfYear => at.ordinal(),
        Part::IsoWeekday => at.weekday().number_from_monday(),
        Part::Weekday0 => at.weekday().num_days_from_sunday(),
        Part::Weekday1 => at.weekday().number_from_sunday(),
        Part::Hour24 => at.hour(),
        Part::Hour12 => (at.hour() + 11) % 12 + 1,
        Part::Minute => at.minute(),
        Part::Second => at.second(),
        Part::SecondOfDay => at.num_seconds_from_midnight(),
    };
    i64::from(unsigned)
}

fn write_number(value: i64, pad: Pad, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = match pad {
        Pad::None => write!(out, "{value}"),
        Pad::Zero(width) => write!(out, "{value:0width$}", width = usize::from(width)),
        Pad::Space(width) => write!(out, "{value:width$}", width = usize::from(width)),
    };
}

fn write_name(name: &str, length: Length, case: Case, padded: bool, out: &mut String) {
    let name = if length == Length::Short { &name[..3] } else { name };
    match case {
        Case::Title => out.push_str(name),
        Case::Upper => out.extend(name.chars().map(|c| c.to_ascii_uppercase())),
        Case::Lower => out.extend(name.chars().map(|c| c.to_ascii_lowercase())),
    }
    if padded {
        // The longest month and weekday, September and Wednesday, have nine letters.
        out.extend(std::iter::repeat_n(' ', 9 - name.len()));
    }
}

//! The pattern language of Snowflake, Postgres and Oracle: `DD-MM-YYYY HH24:MI:SS.FF3 TZH:TZM`.
//!
//! Keywords match in any case; `"…"` quotes; everything else stands for itself. A number may be written without its leading
//! zero, unless another number follows at once.

use super::{Case, Field, Item, Length, Pad, Part, Refused, exact_where_adjacent, push_text};

/// Keywords of both, longest first where one is the beginning of another.
const KEYWORDS: &[&str] = &[
    "TZH:TZM", "TZHTZM", "YYYY", "UUUU", "MMMM", "MONTH", "HH24", "HH12", "A.M.", "P.M.", "SSSSS", "SSSS", "IYYY",
    "TZH", "TZM", "DDD", "DAY", "MON", "FF0", "FF1", "FF2", "FF3", "FF4", "FF5", "FF6", "FF7", "FF8", "FF9", "YY",
    "MM", "DD", "DY", "HH", "MI", "SS", "MS", "US", "FF", "AM", "PM", "TZ", "OF", "IW", "WW", "ID", "CC",
];
/// Postgres only: elsewhere a single letter stands for itself.
const LETTERS: &[&str] = &["D", "Q", "J"];

pub(super) fn items(pattern: &str, postgres: bool) -> Result<Vec<Item>, Refused> {
    let mut items = Vec::new();
    let mut rest = pattern;
    // Postgres: FM before a field leaves out its padding.
    let mut fill = true;
    let mut bare_hours = Vec::new();
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let end = rest[1..].find('"').ok_or_else(|| Refused {
                what: "has a quote without its end".into(),
                hint: "close the text with another \"",
            })?;
            rest[1..=end].chars().for_each(|c| push_text(&mut items, c));
            rest = &rest[end + 2..];
            continue;
        }
        if postgres && starts(rest, "FM") {
            fill = false;
            rest = &rest[2..];
            continue;
        }
        let letters = if postgres { LETTERS } else { &[] };
        let Some(keyword) = KEYWORDS.iter().chain(letters).find(|k| starts(rest, k)) else {
            push_text(&mut items, c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        let (written, behind) = rest.split_at(keyword.len());
        let mut field = field(keyword, written, postgres);
        if !fill {
            strip_padding(&mut field);
        }
        fill = true;
        if *keyword == "HH" {
            bare_hours.push(items.len());
        }
        items.push(Item::Field(field));
        rest = behind;
    }
    clock(&mut items, &bare_hours);
    exact_where_adjacent(&mut items);
    Ok(items)
}

fn starts(text: &str, keyword: &str) -> bool {
    text.get(..keyword.len()).is_some_and(|head| head.eq_ignore_ascii_case(keyword))
}

fn field(keyword: &str, written: &str, postgres: bool) -> Field {
    let case = match (postgres, written.chars().nth(1)) {
        (false, _) => Case::Title,
        (true, _) if written.starts_with(|c: char| c.is_lowercase()) => Case::Lower,
        (true, Some(second)) if second.is_lowercase() => Case::Title,
        (true, _) => Case::Upper,
    };
    let meridiem = if postgres && case == Case::Lower { Case::Lower } else { Case::Upper };
    match keyword {
        "YYYY" | "UUUU" => Part::Year.exact(4),
        "YY" => Field::Year2 { pivot: 70 },
        "IYYY" => Part::IsoYear.exact(4),
        "CC" => Part::Century.padded(2),
        "Q" => Part::Quarter.padded(1),
        "MM" => Part::Month.padded(2),
        "MON" => Field::MonthName { length: Length::Short, case, padded: false },
        "MMMM" | "MONTH" => Field::MonthName { length: Length::Long, case, padded: postgres },
        "DD" => Part::Day.padded(2),
        "DDD" => Part::DayOfYear.padded(3),
        "DY" => Field::DayName { length: Length::Short, case, padded: false },
        "DAY" => Field::DayName { length: Length::Long, case, padded: postgres },
        "D" => Part::Weekday1.padded(1),
        "ID" => Part::IsoWeekday.padded(1),
        "IW" => Part::IsoWeek.padded(2),
        "WW" => Part::Week.padded(2),
        "J" => Field::Number { part: Part::Julian, min: 1, max: 7, pad: Pad::None },
        "HH24" => Part::Hour24.padded(2),
        "HH12" => Part::Hour12.padded(2),
        // Decided by `clock`, once the rest is known.
        "HH" => if postgres { Part::Hour12 } else { Part::Hour24 }.padded(2),
        "MI" => Part::Minute.padded(2),
        "SS" => Part::Second.padded(2),
        "SSSS" | "SSSSS" => Field::Number { part: Part::SecondOfDay, min: 1, max: 5, pad: Pad::None },
        "MS" => Field::Fraction { min: 1, max: 3, point: false },
        "US" => Field::Fraction { min: 1, max: 6, point: false },
        "FF" => Field::Fraction { min: 0, max: 9, point: false },
        "AM" | "PM" => Field::Meridiem { case: meridiem, dots: false },
        "A.M." | "P.M." => Field::Meridiem { case: meridiem, dots: true },
        "TZH:TZM" => Field::Offset { colon: true, minutes: true, z: false },
        "TZHTZM" => Field::Offset { colon: false, minutes: true, z: false },
        "TZH" => Field::OffsetHours,
        "TZM" => Field::OffsetMinutes,
        "OF" => Field::Offset { colon: true, minutes: false, z: false },
        "TZ" => Field::Zone,
        // FF0 … FF9: the fraction may be shorter in the text, as both engines accept it.
        digits => {
            let max = digits.bytes().last().map_or(0, |b| b - b'0');
            Field::Fraction { min: max.min(1), max, point: false }
        }
    }
}

/// `HH` beside AM or PM is the 12-hour clock.
fn clock(items: &mut [Item], bare_hours: &[usize]) {
    if items.iter().any(|i| matches!(i, Item::Field(Field::Meridiem { .. }))) {
        for at in bare_hours {
            items[*at] = Item::Field(Part::Hour12.padded(2));
        }
    }
}

fn strip_padding(field: &mut Field) {
    match field {
        Field::Number { pad, .. } => *pad = Pad::None,
        Field::MonthName { padded, .. } | Field::DayName { padded, .. } => *padded = false,
        _ => {}
    }
}

//! The pattern language of C, Python, chrono and DuckDB: `%d-%m-%Y %H:%M:%S`.
//!
//! A number may be written without its leading zero, unless another number follows at once; `%-d` writes none. `%.f`, `%3f` and
//! `%.6f` are chrono's.

use super::{Case, Field, Item, Length, Pad, Part, Refused, exact_where_adjacent, push_text};

pub(super) fn items(pattern: &str, fraction: u8) -> Result<Vec<Item>, Refused> {
    let mut items = Vec::new();
    expand(pattern, fraction, &mut items)?;
    exact_where_adjacent(&mut items);
    Ok(items)
}

fn expand(pattern: &str, fraction: u8, items: &mut Vec<Item>) -> Result<(), Refused> {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            push_text(items, c);
            continue;
        }
        let mut pad = None;
        let mut point = false;
        let mut colons = 0;
        let mut digits = None;
        let letter = loop {
            match chars.next() {
                Some('-') => pad = Some(Pad::None),
                Some('_') => pad = Some(Pad::Space(2)),
                Some('0') => pad = Some(Pad::Zero(2)),
                Some('.') => point = true,
                Some(':') => colons += 1,
                Some(d @ ('3' | '6' | '9')) => digits = Some(d as u8 - b'0'),
                Some(letter) => break letter,
                None => return Err(unknown("%")),
            }
        };
        let whole = match letter {
            'F' => Some("%Y-%m-%d"),
            'T' | 'X' => Some("%H:%M:%S"),
            'D' | 'x' => Some("%m/%d/%y"),
            'R' => Some("%H:%M"),
            'r' => Some("%I:%M:%S %p"),
            'c' => Some("%a %b %e %H:%M:%S %Y"),
            'v' => Some("%e-%b-%Y"),
            '+' => Some("%Y-%m-%dT%H:%M:%S%.f%:z"),
            _ => None,
        };
        if let Some(whole) = whole {
            expand(whole, fraction, items)?;
            continue;
        }
        let month = |length| Field::MonthName { length, case: Case::Title, padded: false };
        let day = |length| Field::DayName { length, case: Case::Title, padded: false };
        let mut field = match letter {
            '%' | 'n' | 't' => {
                push_text(
                    items,
                    if letter == 'n' {
                        '\n'
                    } else if letter == 't' {
                        '\t'
                    } else {
                        '%'
                    },
                );
                continue;
            }
            'Y' => Part::Year.exact(4),
            'G' => Part::IsoYear.exact(4),
            'C' => Part::Century.padded(2),
            'y' => Field::Year2 { pivot: 69 },
            'q' => Part::Quarter.padded(1),
            'm' => Part::Month.padded(2),
            'b' | 'h' => month(Length::Short),
            'B' => month(Length::Long),
            'd' => Part::Day.padded(2),
            'e' => spaced(Part::Day),
            'j' => Part::DayOfYear.padded(3),
            'a' => day(Length::Short),
            'A' => day(Length::Long),
            'u' => Part::IsoWeekday.padded(1),
            'w' => Part::Weekday0.padded(1),
            'U' => Part::SundayWeek.padded(2),
            'W' => Part::MondayWeek.padded(2),
            'V' => Part::IsoWeek.padded(2),
            'H' => Part::Hour24.padded(2),
            'k' => spaced(Part::Hour24),
            'I' => Part::Hour12.padded(2),
            'l' => spaced(Part::Hour12),
            'M' => Part::Minute.padded(2),
            'S' => Part::Second.padded(2),
            'f' => match digits {
                Some(max) => Field::Fraction { min: if point { 0 } else { max }, max, point },
                None if point => Field::Fraction { min: 0, max: fraction, point },
                None => Field::Fraction { min: 1, max: fraction, point },
            },
            'p' => Field::Meridiem { case: Case::Upper, dots: false },
            'P' => Field::Meridiem { case: Case::Lower, dots: false },
            'z' => Field::Offset { colon: colons > 0, minutes: true, z: false },
            'Z' => Field::Zone,
            's' => Field::Number { part: Part::EpochSeconds, min: 1, max: 18, pad: Pad::None },
            other => return Err(unknown(&format!("%{other}"))),
        };
        if let (Some(wanted), Field::Number { pad, .. }) = (pad, &mut field) {
            *pad = match (wanted, *pad) {
                (Pad::Zero(_), Pad::Zero(width) | Pad::Space(width)) => Pad::Zero(width),
                (Pad::Space(_), Pad::Zero(width) | Pad::Space(width)) => Pad::Space(width),
                _ => Pad::None,
            };
        }
        items.push(Item::Field(field));
    }
    Ok(())
}

fn spaced(part: Part) -> Field {
    Field::Number { part, min: 1, max: 2, pad: Pad::Space(2) }
}

fn unknown(directive: &str) -> Refused {
    Refused {
        what: format!("has '{directive}', which strftime does not know"),
        hint: "directives: %Y %m %d %H %M %S %f %I %p %b %B %a %A %j %y %z; % itself is %%",
    }
}

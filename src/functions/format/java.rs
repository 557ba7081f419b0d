//! The pattern language of Spark and Databricks: Java's `DateTimeFormatter` letters, `dd-MM-yyyy HH:mm:ss.SSSXXX`.
//!
//! The number of equal letters decides: `d` is one or two digits, `dd` exactly two; `MMM` a short name, `MMMM` the full one; `S`
//! repeated is a fraction of at most so many digits when parsed and exactly so many when written. `'…'` quotes, `''` is a
//! quote, `[…]` is optional when parsed. Letters that Spark refuses (week-based fields) are refused.

use super::{Case, Field, Item, Length, Pad, Part, Refused, push_text};

pub(super) fn items(pattern: &str) -> Result<Vec<Item>, Refused> {
    // Sections that are open, the outermost first.
    let mut open: Vec<Vec<Item>> = vec![Vec::new()];
    let chars: Vec<char> = pattern.chars().collect();
    let mut i = 0;
    while i < chars.len() {
        let c = chars[i];
        let Some(items) = open.last_mut() else { return Err(unbalanced()) };
        match c {
            '\'' => {
                i = quoted(&chars, i, items)?;
                continue;
            }
            '[' => open.push(Vec::new()),
            ']' => {
                let section = open.pop().unwrap_or_default();
                open.last_mut().ok_or_else(unbalanced)?.push(Item::Optional(section));
            }
            c if c.is_ascii_alphabetic() => {
                let count = chars[i..].iter().take_while(|x| **x == c).count();
                items.push(Item::Field(field(c, count)?));
                i += count;
                continue;
            }
            '{' | '}' | '#' => {
                return Err(Refused { what: format!("has a bare '{c}', which Java reserves"), hint: "quote it: '{'" });
            }
            c => push_text(items, c),
        }
        i += 1;
    }
    match (open.pop(), open.is_empty()) {
        (Some(items), true) => Ok(items),
        _ => Err(unbalanced()),
    }
}

fn unbalanced() -> Refused {
    Refused { what: "has [ and ] that do not match".into(), hint: "[…] encloses what may be absent" }
}

/// Adds the quoted text that starts at `start` and says where it ends.
fn quoted(chars: &[char], start: usize, items: &mut Vec<Item>) -> Result<usize, Refused> {
    if chars.get(start + 1) == Some(&'\'') {
        push_text(items, '\'');
        return Ok(start + 2);
    }
    let mut i = start + 1;
    loop {
        match (chars.get(i), chars.get(i + 1)) {
            (Some('\''), Some('\'')) => {
                push_text(items, '\'');
                i += 2;
            }
            (Some('\''), _) => return Ok(i + 1),
            (Some(c), _) => {
                push_text(items, *c);
                i += 1;
            }
            (None, _) => {
                return Err(Refused {
                    what: "has a quote without its end".into(),
                    hint: "close the text with another '",
                });
            }
        }
    }
}

fn field(letter: char, count: usize) -> Result<Field, Refused> {
    // One letter: as many digits as there are, two at the most. Two: exactly two.
    let number = |part: Part, widest: u8| match count {
        1 => Some(Field::Number { part, min: 1, max: widest, pad: Pad::None }),
        n if n <= usize::from(widest) => Some(part.exact(n as u8)),
        _ => None,
    };
    let month = |length| Some(Field::MonthName { length, case: Case::Title, padded: false });
    let day = |length| Some(Field::DayName { length, case: Case::Title, padded: false });
    let field = match (letter, count) {
        ('y' | 'u', 2) => Some(Field::Year2 { pivot: 100 }),
        ('y' | 'u', 1) => Some(Field::Number { part: Part::Year, min: 1, max: 4, pad: Pad::None }),
        ('y' | 'u', 4) => Some(Part::Year.exact(4)),
        ('M' | 'L', 3) => month(Length::Short),
        ('M' | 'L', 4) => month(Length::Long),
        ('M' | 'L', 1 | 2) => number(Part::Month, 2),
        ('d', _) => number(Part::Day, 2),
        ('D', _) => number(Part::DayOfYear, 3),
        ('Q' | 'q', 1 | 2) => number(Part::Quarter, 2),
        ('E', 1..=3) => day(Length::Short),
        ('E', 4) => day(Length::Long),
        ('a', 1) => Some(Field::Meridiem { case: Case::Upper, dots: false }),
        ('H', _) => number(Part::Hour24, 2),
        ('h', _) => number(Part::Hour12, 2),
        ('m', _) => number(Part::Minute, 2),
        ('s', _) => number(Part::Second, 2),
        ('S', 1..=9) => Some(Field::Fraction { min: 1, max: count as u8, point: false }),
        ('X', 1) => Some(Field::Offset { colon: false, minutes: false, z: true }),
        ('X', 2) => Some(Field::Offset { colon: false, minutes: true, z: true }),
        ('X', 3) => Some(Field::Offset { colon: true, minutes: true, z: true }),
        ('x', 1) => Some(Field::Offset { colon: false, minutes: false, z: false }),
        ('x', 2) | ('Z', 1..=3) => Some(Field::Offset { colon: false, minutes: true, z: false }),
        ('x', 3) => Some(Field::Offset { colon: true, minutes: true, z: false }),
        ('Z', 5) => Some(Field::Offset { colon: true, minutes: true, z: true }),
        ('V', 2) | ('z', 1..=3) => Some(Field::Zone),
        _ => None,
    };
    field.ok_or_else(|| Refused {
        what: format!("has '{}', which Spark's patterns do not know", String::from(letter).repeat(count)),
        hint: match letter {
            'Y' | 'w' | 'W' | 'e' | 'c' => "Spark refuses week-based letters; the calendar year is yyyy",
            'D' => "the day of the month is dd",
            _ => "letters: y M d H h m s S a E D Q X x Z V z; other text stands between quotes: 'T'",
        },
    })
}

//! What the texts of a field have in common: dates, instants, decimals with a fixed number of digits.

use super::numbers::{Numbers, is_code, is_number};
use crate::decode::json::time::{Format, parse_date, parse_timestamp};

/// Formats that are tried besides ISO 8601, in chrono's words. What two of them read differently is no format at all.
const FORMATS: [&str; 14] = [
    "%d-%m-%Y %H:%M:%S",
    "%m-%d-%Y %H:%M:%S",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S",
    "%d.%m.%Y %H:%M:%S",
    "%Y/%m/%d %H:%M:%S",
    "%Y%m%d%H%M%S",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d.%m.%Y",
    "%Y/%m/%d",
    "%d-%b-%Y",
];

/// Whether a format has a time of day.
fn is_instant(format: &str) -> bool {
    format.contains("%H")
}

/// What texts are, all of them.
#[derive(Debug, Clone)]
pub(super) struct Texts {
    pub count: u64,
    pub dates: bool,
    pub instants: bool,
    /// An instant without a zone was among them.
    pub zoneless: bool,
    /// Indices into [`FORMATS`] that read all of them.
    formats: Vec<usize>,
    /// Digits after the point, when all are numbers with equally many, at least two.
    pub scale: Option<usize>,
    pub longest: usize,
    /// Those that are numbers, and not codes made of digits.
    pub numbers: Numbers,
}

impl Texts {
    pub fn new() -> Self {
        Texts {
            count: 0,
            dates: true,
            instants: true,
            zoneless: false,
            formats: (0..FORMATS.len()).collect(),
            scale: None,
            longest: 0,
            numbers: Numbers::default(),
        }
    }

    pub fn add(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let scale = scale(text);
        self.scale = if self.count == 0 || self.scale == scale { scale } else { None };
        self.longest = self.longest.max(text.len());
        self.count += 1;
        if is_number(text) && !is_code(text) {
            self.numbers.add(text);
        }
        let date = self.dates && parse_date(bytes, None).is_some();
        self.dates &= date;
        self.instants &= parse_timestamp(bytes, true, None).is_some();
        if self.instants && !date && parse_timestamp(bytes, false, None).is_some() {
            self.zoneless = true;
        }
        self.formats.retain(|i| match Format::new(FORMATS[*i], "") {
            Ok(format) if is_instant(FORMATS[*i]) => parse_timestamp(bytes, true, Some(&format)).is_some(),
            Ok(format) => parse_date(bytes, Some(&format)).is_some(),
            Err(_) => false,
        });
    }

    pub fn merge(&mut self, other: &Texts) {
        if self.count == 0 {
            *self = other.clone();
        } else if other.count > 0 {
            self.scale = self.scale.filter(|scale| other.scale == Some(*scale));
            self.longest = self.longest.max(other.longest);
            self.count += other.count;
            self.numbers.merge(&other.numbers);
            self.dates &= other.dates;
            self.instants &= other.instants;
            self.zoneless |= other.zoneless;
            self.formats.retain(|i| other.formats.contains(i));
        }
    }

    /// The one format that reads all texts, and whether it has a time of day; `Err`: several do.
    pub fn format(&self) -> Result<Option<(&'static str, bool)>, [&'static str; 2]> {
        match self.formats.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some((FORMATS[*one], is_instant(FORMATS[*one])))),
            [first, second, ..] => Err([FORMATS[*first], FORMATS[*second]]),
        }
    }
}

/// Digits after the point of `-12.50`; `None` for everything else, and for numbers that are names (`007.10`, a version).
fn scale(text: &str) -> Option<usize> {
    let (whole, fraction) = text.strip_prefix('-').unwrap_or(text).split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let plain = digits(whole) && digits(fraction) && (whole == "0" || !whole.starts_with('0')) && whole.len() <= 18;
    (plain && (2..=10).contains(&fraction.len())).then_some(fraction.len())
}

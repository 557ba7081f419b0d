//! One call or message, and the bytes of its record.

use chrono::{DateTime, Datelike, Timelike};
use rand::Rng;
use std::borrow::Cow;
use std::fmt::Write;

use super::names::PLAIN_TEXTS;

/// The two topics of events. The reference data are files, never topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    Calls,
    Messages,
}

impl Topic {
    /// Both, in the order in which ties and remainders are resolved.
    pub const ALL: [Topic; 2] = [Topic::Calls, Topic::Messages];

    /// Name of the Kafka topic, and of the folder of its files.
    pub fn name(self) -> &'static str {
        match self {
            Topic::Calls => "call_event",
            Topic::Messages => "sms_event",
        }
    }

    /// Name of the entity in models: `bronze_call_events`.
    pub fn entity(self) -> &'static str {
        match self {
            Topic::Calls => "call_events",
            Topic::Messages => "sms_events",
        }
    }
}

/// Sender or receiver.
#[derive(Debug, Clone)]
pub struct Party<'a> {
    /// As the record spells it.
    pub number: Cow<'a, str>,
    pub e164: Cow<'a, str>,
    /// Index of the user; `None` for a stranger.
    pub user: Option<usize>,
    pub cell_site: Cow<'a, str>,
    /// Index of the site; `None` when no reference data has it.
    pub site: Option<usize>,
    pub imei: Cow<'a, str>,
    /// Index of the device's type allocation code; `None` when no reference data has it.
    pub device: Option<usize>,
    pub customer_id: u64,
    pub plan_type: &'static str,
}

/// What only calls or only messages have.
#[derive(Debug, Clone)]
pub enum Content<'a> {
    Call { seconds: u32, call_type: &'static str },
    Message { body: &'static str, registration_text: &'a str, registration_date: &'a str },
}

/// A valid event.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    pub sid: String,
    /// Seconds since 1970-01-01 UTC: when it happened, and when its record is sent.
    pub instant: i64,
    pub from: Party<'a>,
    pub to: Party<'a>,
    pub status: &'static str,
    /// Hundredths of EGP.
    pub cents: u64,
    pub content: Content<'a>,
}

impl Event<'_> {
    /// The value of its record.
    pub fn json(&self) -> String {
        self.json_with(&clock_text(self.instant), None)
    }

    /// The same with a date that no calendar has; the `n`-th such record.
    pub fn json_impossible(&self, n: u64) -> String {
        const DATES: [&str; 6] = ["31-02", "30-02", "31-04", "31-06", "31-09", "31-11"];
        let date = DATES[(n % DATES.len() as u64) as usize];
        let good = clock_text(self.instant);
        self.json_with(&format!("{date}{}", &good[5..]), None)
    }

    /// `number` replaces the topic's number field: the duration of a call, the customer of a message.
    fn json_with(&self, timestamp: &str, number: Option<&str>) -> String {
        let mut out = String::with_capacity(560);
        let kind = match self.content {
            Content::Call { .. } => "call",
            Content::Message { .. } => "sms",
        };
        let _ = write!(out, r#"{{"event_type":"{kind}","sid":"{}","from":"#, self.sid);
        self.from.write(&mut out);
        out.push_str(r#","to":"#);
        self.to.write(&mut out);
        let status = self.status;
        match &self.content {
            Content::Call { seconds, call_type } => {
                let seconds = number.map_or(Cow::Owned(seconds.to_string()), Cow::Borrowed);
                let _ = write!(
                    out,
                    r#","call_duration_seconds":{seconds},"status":"{status}","timestamp":"{timestamp}","call_type":"{call_type}""#
                );
            }
            Content::Message { body, registration_text, .. } => {
                let body = serde_json::Value::from(*body);
                let customer = number.map_or(Cow::Owned(self.from.customer_id.to_string()), Cow::Borrowed);
                let _ = write!(
                    out,
                    r#","body":{body},"status":"{status}","timestamp":"{timestamp}","customer_id":{customer},"registration_date":"{registration_text}""#
                );
            }
        }
        let _ = write!(out, r#","billing_info":{{"amount":{},"currency":"EGP"}}}}"#, decimal(self.cents));
        out
    }
}

impl Party<'_> {
    fn write(&self, out: &mut String) {
        let _ = write!(
            out,
            r#"{{"number":"{}","cell_site":"{}","imei":"{}","customer_id":{},"plan_type":"{}"}}"#,
            self.number, self.cell_site, self.imei, self.customer_id, self.plan_type
        );
    }
}

/// How a record is malformed. None of them parses to an object of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Malformed {
    Truncated,
    PlainText,
    Empty,
    Array,
    WrongType,
    InvalidUtf8,
}

impl Malformed {
    /// In the order in which they rotate.
    pub const ALL: [Malformed; 6] = [
        Malformed::Truncated,
        Malformed::PlainText,
        Malformed::Empty,
        Malformed::Array,
        Malformed::WrongType,
        Malformed::InvalidUtf8,
    ];

    /// Its name in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Malformed::Truncated => "truncated",
            Malformed::PlainText => "plain_text",
            Malformed::Empty => "empty",
            Malformed::Array => "array",
            Malformed::WrongType => "wrong_type",
            Malformed::InvalidUtf8 => "invalid_utf8",
        }
    }

    /// What a broken producer makes of `event`. Never holds a line break, so that it is one line of a file too.
    pub fn spoil(self, event: &Event<'_>, rng: &mut impl Rng) -> Vec<u8> {
        let good = event.json();
        match self {
            Malformed::Truncated => {
                let mut end = rng.random_range(1..good.len());
                while !good.is_char_boundary(end) {
                    end -= 1;
                }
                good.as_bytes()[..end].to_vec()
            }
            Malformed::PlainText => PLAIN_TEXTS[rng.random_range(0..PLAIN_TEXTS.len())].as_bytes().to_vec(),
            Malformed::Empty => Vec::new(),
            Malformed::Array => format!("[{good}]").into_bytes(),
            Malformed::WrongType => event.json_with(&clock_text(event.instant), Some(r#""abc""#)).into_bytes(),
            Malformed::InvalidUtf8 => {
                // Latin-1 where UTF-8 belongs: a lone 0xE9 inside the text of the status.
                let at = good.find(r#""status":""#).map_or(1, |i| i + r#""status":""#.len());
                let mut bytes = good.into_bytes();
                bytes.insert(at, 0xE9);
                bytes
            }
        }
    }
}

/// `07-01-2026 14:05:12`, as records write time.
fn clock_text(second: i64) -> String {
    let at = DateTime::from_timestamp(second, 0).unwrap_or_default();
    format!("{:02}-{:02}-{:04} {:02}:{:02}:{:02}", at.day(), at.month(), at.year(), at.hour(), at.minute(), at.second())
}

/// `2026-01-07 14:05:12`, as tables show time.
pub fn timestamp_text(second: i64) -> String {
    let at = DateTime::from_timestamp(second, 0).unwrap_or_default();
    format!("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", at.year(), at.month(), at.day(), at.hour(), at.minute(), at.second())
}

/// Hundredths as decimal text: `2.01`.
pub fn decimal(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// The ways to write a valid number; `national` is 11 digits.
pub fn spell(national: &str, n: u64) -> String {
    let tail = &national[1..];
    match n % 8 {
        0 => format!("+20{tail}"),
        1 => format!("0020{tail}"),
        2 => format!("20{tail}"),
        3 => format!("+20 {} {} {}", &tail[..3], &tail[3..6], &tail[6..]),
        4 => format!("{}-{}-{}", &national[..3], &national[3..7], &national[7..]),
        5 => format!("({}) {} {}", &national[..3], &national[3..7], &national[7..]),
        6 => format!("{}.{}.{}", &national[..3], &national[3..7], &national[7..]),
        _ => format!("sip:+20{tail}@ims.example.com"),
    }
}

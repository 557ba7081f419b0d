//! What traffic to make. Seed and options decide every byte; [`Options::rate`] only how fast somebody sends them.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::error::{Error, Result, did_you_mean};

/// Options of the telecom generator. [`Options::default`] is the profile `ref`: the figures in docs/telecom.md.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    pub seed: u64,
    /// First instant of the virtual clock, seconds since 1970-01-01 UTC. Hours and weekdays count from it in UTC.
    pub start: i64,
    /// How many days the events spread over.
    pub days: u32,
    /// Valid, distinct events over both topics: 65 % calls, 35 % messages. Duplicates and bad records come on top.
    pub events: u64,
    /// Users in the reference data.
    pub users: u32,
    /// Repeated records, as a share of `events`.
    pub duplicates: f64,
    /// Records that do not parse, as a share of `events`.
    pub malformed: f64,
    /// Records that parse, with a date no calendar has, as a share of `events`.
    pub impossible_dates: f64,
    /// Events whose sender or receiver is spelled otherwise (`+20 106 933 4417`), as a share of `events`.
    pub spellings: f64,
    /// Events whose sender's phone is in no reference data, as a share of `events`.
    pub unknown_phones: f64,
    /// Events whose sender's cell site is in no reference data, as a share of `events`.
    pub unknown_sites: f64,
    /// Events whose sender's device has a type allocation code that is in no reference data, as a share of `events`.
    pub unknown_devices: f64,
    /// Virtual seconds per slice: each topic, partition and slice is one file.
    pub slice_seconds: u32,
    /// Only this slice (from 1); `None`: all.
    pub slice: Option<u32>,
    /// Records per second of real time for whoever sends them; `None`: as fast as possible. Changes no byte.
    pub rate: Option<f64>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            seed: 1,
            start: 1_767_571_200, // 2026-01-05, a Monday
            days: 7,
            events: 5000,
            users: 500,
            duplicates: 0.02,
            malformed: 0.006,
            impossible_dates: 0.006,
            spellings: 0.1,
            unknown_phones: 0.01,
            unknown_sites: 0.005,
            unknown_devices: 0.005,
            slice_seconds: 86_400,
            slice: None,
            rate: None,
        }
    }
}

const NAMES: [&str; 15] = [
    "seed",
    "start",
    "days",
    "events",
    "users",
    "duplicates",
    "malformed",
    "impossible_dates",
    "spellings",
    "unknown_phones",
    "unknown_sites",
    "unknown_devices",
    "slice_seconds",
    "slice",
    "rate",
];

impl Options {
    /// The named profile. There is one so far: `ref`.
    pub fn profile(name: &str) -> Result<Self> {
        match name {
            "ref" => Ok(Options::default()),
            other => Err(Error::user("unknown-profile", format!("no generator profile `{other}`"))
                .with_hint("there is one profile: ref")),
        }
    }

    /// Options from a source's `config:`. `profile` and `start` may be text (`2026-01-05`).
    pub fn from_map(options: &BTreeMap<String, Value>) -> Result<Self> {
        let bad = |name: &str, e: String| Error::user("bad-option", format!("datagen option `{name}`: {e}"));
        let mut all = serde_json::Map::new();
        let mut base = Options::default();
        for (name, value) in options {
            match (name.as_str(), value) {
                ("profile", Value::String(profile)) => base = Options::profile(profile)?,
                ("start", Value::String(text)) => {
                    all.insert(name.clone(), parse_start(text)?.into());
                }
                (known, _) if NAMES.contains(&known) => {
                    all.insert(name.clone(), value.clone());
                }
                (unknown, _) => {
                    let error = bad(unknown, "there is no such option".into());
                    return Err(match did_you_mean(unknown, NAMES) {
                        Some(known) => error.with_hint(format!("did you mean `{known}`?")),
                        None => error.with_hint(format!("options: profile, {}", NAMES.join(", "))),
                    });
                }
            }
        }
        let mut merged = serde_json::to_value(base).map_err(|e| Error::internal(e.to_string()))?;
        for (name, value) in all {
            merged[&name] = value;
            Options::deserialize(&merged).map_err(|e| bad(&name, e.to_string()))?;
        }
        let options = Options::deserialize(&merged).map_err(|e| Error::internal(e.to_string()))?;
        options.check()?;
        Ok(options)
    }

    /// Whether the options make sense together.
    pub fn check(&self) -> Result<()> {
        let bad = |message: String| Err(Error::user("bad-option", message));
        if self.days == 0 || self.days > 36_500 {
            return bad(format!("days must be 1 to 36500, not {}", self.days));
        }
        // A sender needs somebody else to call, and the affine numbering below has 400 M phones.
        if self.users < 20 || self.users > 1_000_000 {
            return bad(format!("users must be 20 to 1000000, not {}", self.users));
        }
        if self.events > 500_000_000 {
            return bad(format!("events must be at most 500000000, not {}", self.events));
        }
        if self.slice_seconds == 0 {
            return bad("slice_seconds must be at least 1".into());
        }
        if DateTime::from_timestamp(self.end(), 0).is_none() || self.start < 0 {
            return bad(format!("start is out of range: {}", self.start));
        }
        let marked = self.spellings + self.unknown_phones + self.unknown_sites + self.unknown_devices;
        let shares = [
            self.duplicates,
            self.malformed,
            self.impossible_dates,
            self.spellings,
            self.unknown_phones,
            self.unknown_sites,
            self.unknown_devices,
            marked,
        ];
        if shares.iter().any(|s| !(0.0..=1.0).contains(s)) {
            return bad("shares must lie between 0 and 1; spellings and unknown ones together too".into());
        }
        if self.rate.is_some_and(|r| !r.is_finite() || r <= 0.0) {
            return bad("rate must be above 0".into());
        }
        match self.slice {
            Some(n) if n == 0 || u64::from(n) > self.slices() => {
                bad(format!("there is no slice {n}: the options make slices 1 to {}", self.slices()))
            }
            _ => Ok(()),
        }
    }

    /// The instant after the last, seconds since 1970-01-01 UTC.
    pub fn end(&self) -> i64 {
        self.start.saturating_add(i64::from(self.days) * 86_400)
    }

    /// How many slices the traffic has.
    pub fn slices(&self) -> u64 {
        (u64::from(self.days) * 86_400).div_ceil(u64::from(self.slice_seconds.max(1)))
    }

    /// The slice (from 1) an instant lies in.
    pub fn slice_of(&self, second: i64) -> u32 {
        ((second - self.start) / i64::from(self.slice_seconds.max(1))) as u32 + 1
    }

    /// `share` of the events, to the nearest whole one.
    pub(super) fn quota(&self, share: f64) -> u64 {
        // In millionths, so that a share written in decimal is that decimal and nothing beside it.
        let millionths = (share * 1e6).round() as u128;
        ((u128::from(self.events) * millionths + 500_000) / 1_000_000) as u64
    }
}

/// `2026-01-05`, `2026-01-05 06:00:00` or `2026-01-05T06:00:00Z`, as seconds since 1970-01-01 UTC.
pub fn parse_start(text: &str) -> Result<i64> {
    let plain = text.trim().trim_end_matches('Z').replace('T', " ");
    NaiveDateTime::parse_from_str(&plain, "%Y-%m-%d %H:%M:%S")
        .or_else(|_| NaiveDate::parse_from_str(&plain, "%Y-%m-%d").map(|d| d.and_time(NaiveTime::MIN)))
        .map(|t| t.and_utc().timestamp())
        .map_err(|_| {
            Error::user("bad-option", format!("start `{text}` is no date"))
                .with_hint("write 2026-01-05 or 2026-01-05T06:00:00Z")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn options_come_from_yaml_values() {
        let map = BTreeMap::from([
            ("profile".to_string(), json!("ref")),
            ("seed".to_string(), json!(9)),
            ("start".to_string(), json!("2026-02-01")),
            ("duplicates".to_string(), json!(0)),
        ]);
        let options = Options::from_map(&map).unwrap();
        assert_eq!((options.seed, options.duplicates, options.events), (9, 0.0, 5000));
        assert_eq!(options.start, 1_769_904_000);
    }

    #[test]
    fn wrong_options_say_what_is_wrong() {
        let error =
            |name: &str, value: Value| Options::from_map(&BTreeMap::from([(name.to_string(), value)])).unwrap_err();
        assert_eq!(error("evnets", json!(1)).hint(), Some("did you mean `events`?"));
        assert!(error("days", json!("x")).message().contains("`days`"));
        assert!(error("days", json!(0)).message().contains("1 to 36500"));
        assert!(error("slice", json!(8)).message().contains("slices 1 to 7"));
        assert!(error("malformed", json!(1.5)).message().contains("between 0 and 1"));
        assert!(error("start", json!("soon")).message().contains("no date"));
    }
}

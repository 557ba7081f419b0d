//! When a table that is not kept up to date by itself is made again: `table`, `incremental`, `snapshot`.
//!
//! A schedule is a sequence of *planned instants*. A run is done for the latest one that has passed, whenever it really
//! starts: missed ones are caught up once, a retry is for the same instant, and what a run writes (a snapshot's versions) carries the
//! planned instant, so that running it again repeats nothing.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value as Json;

use super::config::Setting;
use super::problems::{Problems, suggest};
use super::reader::parse_duration;

/// When, and what happens when it fails.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    pub when: When,
    /// How often a failed run is tried again before its next planned instant.
    pub retries: u32,
    /// Pause before the first retry; each later one is twice as long.
    pub retry_delay: Duration,
}

/// A sequence of instants, or every change.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// A cron expression of five fields (or six, seconds first), in a time zone.
    Cron { cron: Box<Cron>, zone: Tz },
    /// Multiples of an interval since 1970-01-01 UTC.
    Every(Duration),
    /// Whenever something it reads has changed.
    Continuous,
}

const KEYS: &[&str] = &["cron", "every", "after", "time_zone", "retries", "retry_delay"];
const RETRIES: u32 = 3;
const RETRY_DELAY: Duration = Duration::from_secs(60);
const RECENT: Duration = Duration::from_secs(2 * 86_400);

impl Schedule {
    /// The first planned instant after `micros`; `None`: there is none, or it follows changes.
    pub fn next_after(&self, micros: i64) -> Option<i64> {
        match &self.when {
            When::Cron { cron, zone } => {
                let after = DateTime::<Utc>::from_timestamp_micros(micros)?.with_timezone(zone);
                cron.find_next_occurrence(&after, false).ok().map(|t| t.timestamp_micros())
            }
            When::Every(interval) => {
                let interval = i64::try_from(interval.as_micros()).ok()?;
                Some((micros.div_euclid(interval) + 1) * interval)
            }
            When::Continuous => None,
        }
    }

    /// The latest planned instant in (`last`, `now`]: what is due, however many were missed.
    pub fn due(&self, last: i64, now: i64) -> Option<i64> {
        if let When::Every(interval) = &self.when {
            let interval = i64::try_from(interval.as_micros()).ok()?;
            return Some(now.div_euclid(interval) * interval).filter(|planned| *planned > last);
        }
        // After a long pause the latest instant is near its end: most expressions have one within the last days.
        let recent = now - RECENT.as_micros() as i64;
        let latest = |from: i64| {
            let (mut due, mut at) = (None, from);
            while let Some(next) = self.next_after(at).filter(|next| *next <= now) {
                due = Some(next);
                at = next;
            }
            due
        };
        if recent > last { latest(recent).or_else(|| latest(last)) } else { latest(last) }
    }

    /// Pause before retry number `failures` (1 is the first); `None`: no more before the next planned instant.
    pub fn retry_after(&self, failures: u32) -> Option<Duration> {
        (failures <= self.retries).then(|| self.retry_delay * 2u32.saturating_pow(failures.saturating_sub(1).min(16)))
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::Cron { cron, zone: Tz::UTC } => write!(f, "{}", cron.pattern),
            When::Cron { cron, zone } => write!(f, "{} {zone}", cron.pattern),
            When::Every(interval) => {
                let seconds = interval.as_secs();
                let unit = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")]
                    .into_iter()
                    .find(|(size, _)| seconds.is_multiple_of(*size) && seconds > 0);
                match unit {
                    Some((size, name)) if seconds == size => write!(f, "every {name}"),
                    Some((size, name)) => write!(f, "every {} {name}s", seconds / size),
                    None => write!(f, "every {} ms", interval.as_millis()),
                }
            }
            When::Continuous => write!(f, "continuous"),
        }
    }
}

/// Reads `schedule:`. A text is a cron expression, `every 5 minutes` or `continuous`; a mapping has `cron` and `time_zone`, `every`, or
/// `after: upstream`, and `retries`, `retry_delay`.
pub(super) fn read(setting: &Setting, p: &mut Problems) -> Option<Schedule> {
    let schedule = |when| Schedule { when, retries: RETRIES, retry_delay: RETRY_DELAY };
    let members = match &setting.value {
        Json::Null => return None,
        Json::String(text) => return when(text, setting, p).map(schedule),
        Json::Object(members) => members,
        _ => {
            wrong(setting, format!("`schedule` cannot be {}", setting.shown()), p);
            return None;
        }
    };
    if let Some(key) = members.keys().find(|k| !KEYS.contains(&k.as_str())) {
        let hint = suggest(key, KEYS.iter().copied(), "it can have");
        p.error("unknown-key", setting.span.clone(), format!("unknown key `{key}` in schedule"), hint);
        return None;
    }
    let text = |key: &str, p: &mut Problems| -> Option<String> {
        let value = members.get(key)?;
        if value.as_str().is_none() {
            wrong(setting, format!("`{key}` of a schedule must be text, found {value}"), p);
        }
        value.as_str().map(str::to_string)
    };
    let found = ["cron", "every", "after"].map(|key| members.contains_key(key));
    let when = match found {
        [true, false, false] => cron(&text("cron", p)?, text("time_zone", p).as_deref(), setting, p),
        [false, true, false] => every(&text("every", p)?, setting, p),
        [false, false, true] => match text("after", p)?.as_str() {
            "upstream" => Some(When::Continuous),
            other => {
                wrong(setting, format!("`after` of a schedule is `upstream`, found `{other}`"), p);
                None
            }
        },
        _ => {
            wrong(setting, "a schedule has one of `cron`, `every`, `after`", p);
            None
        }
    };
    let mut schedule = schedule(when?);
    if let Some(retries) = members.get("retries") {
        match retries.as_u64().and_then(|n| u32::try_from(n).ok()) {
            Some(retries) => schedule.retries = retries,
            None => wrong(setting, format!("`retries` of a schedule must be a whole number, found {retries}"), p),
        }
    }
    if let Some(delay) = text("retry_delay", p) {
        match parse_duration(&delay) {
            Some(delay) => schedule.retry_delay = delay,
            None => wrong(setting, format!("`retry_delay` of a schedule must be a duration, found `{delay}`"), p),
        }
    }
    Some(schedule)
}

fn when(text: &str, setting: &Setting, p: &mut Problems) -> Option<When> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("continuous") {
        return Some(When::Continuous);
    }
    match text.strip_prefix("every ") {
        Some(interval) => every(interval, setting, p),
        None => cron(text, None, setting, p),
    }
}

fn every(text: &str, setting: &Setting, p: &mut Problems) -> Option<When> {
    let text = text.trim();
    // `every minute` means one.
    let interval = parse_duration(text).or_else(|| parse_duration(&format!("1 {text}")));
    let interval = interval.filter(|i| *i >= Duration::from_secs(1));
    if interval.is_none() {
        wrong(setting, format!("`every {text}` is no interval of a second or more"), p);
    }
    interval.map(When::Every)
}

fn cron(text: &str, zone: Option<&str>, setting: &Setting, p: &mut Problems) -> Option<When> {
    let zone = match zone.map(Tz::from_str) {
        None => Tz::UTC,
        Some(Ok(zone)) => zone,
        Some(Err(_)) => {
            let name = zone.unwrap_or_default();
            let hint = suggest(name, chrono_tz::TZ_VARIANTS.iter().map(|z| z.name()), "for example");
            p.error("unknown-time-zone", setting.span.clone(), format!("unknown time zone `{name}`"), hint);
            return None;
        }
    };
    match Cron::from_str(text) {
        Ok(cron) => Some(When::Cron { cron: Box::new(cron), zone }),
        Err(error) => {
            wrong(setting, format!("`{text}` is no cron expression: {error}"), p);
            None
        }
    }
}

fn wrong(setting: &Setting, message: impl Into<String>, p: &mut Problems) {
    p.error(
        "bad-schedule",
        setting.span.clone(),
        message,
        "write a cron expression (`0 2 * * *`), `every 5 minutes`, `continuous`, or {cron: `0 2 * * *`, time_zone: Africa/Cairo}",
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Span;
    use serde_json::json;

    fn parse(value: Json) -> Result<Schedule, String> {
        let span = Span { file: "x.yml".into(), line: 1, column: 1, width: 1, text: "".into() };
        let mut p = Problems::default();
        let schedule = read(&Setting::new(value, span), &mut p);
        match p.errors.first() {
            Some(error) => Err(error.message().to_string()),
            None => Ok(schedule.unwrap()),
        }
    }

    fn at(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    fn shown(micros: Option<i64>) -> String {
        micros.map_or("never".to_string(), |m| DateTime::from_timestamp_micros(m).unwrap().format("%FT%TZ").to_string())
    }

    #[test]
    fn spellings() {
        for (value, text) in [
            (json!("0 2 * * *"), "0 2 * * *"),
            (json!({"cron": "0 2 * * *", "time_zone": "Africa/Cairo"}), "0 2 * * * Africa/Cairo"),
            (json!("every 5 minutes"), "every 5 minutes"),
            (json!("every minute"), "every minute"),
            (json!({"every": "2 hours"}), "every 2 hours"),
            (json!("continuous"), "continuous"),
            (json!({"after": "upstream"}), "continuous"),
        ] {
            assert_eq!(parse(value).unwrap().when.to_string(), text);
        }
        let retried = parse(json!({"every": "1 day", "retries": 2, "retry_delay": "10 seconds"})).unwrap();
        let pauses: Vec<_> = (1..4).map(|n| retried.retry_after(n).map(|d| d.as_secs())).collect();
        assert_eq!(pauses, [Some(10), Some(20), None]);
    }

    #[test]
    fn mistakes() {
        for (value, text) in [
            (json!("0 25 * * *"), "is no cron expression"),
            (json!("sometimes"), "is no cron expression"),
            (json!({"cron": "0 2 * * *", "time_zone": "Africa/Kairo"}), "unknown time zone `Africa/Kairo`"),
            (json!({"cron": "0 2 * * *", "every": "1 day"}), "a schedule has one of"),
            (json!({"evry": "1 day"}), "unknown key `evry`"),
            (json!("every 5 parsecs"), "is no interval"),
            (json!("every 10 ms"), "is no interval"),
            (json!({"every": "1 day", "retries": "many"}), "`retries` of a schedule must be a whole number"),
            (json!({"every": "1 day", "retry_delay": "soon"}), "must be a duration, found `soon`"),
            (json!(7), "cannot be `7`"),
        ] {
            let message = parse(value.clone()).unwrap_err();
            assert!(message.contains(text), "{value}: {message}");
        }
    }

    #[test]
    fn what_was_missed_is_due_once() {
        let daily = parse(json!("0 2 * * *")).unwrap();
        let last = at("2026-01-05T02:00:00Z");
        assert_eq!(daily.due(last, at("2026-01-06T01:59:59Z")), None);
        assert_eq!(shown(daily.due(last, at("2026-01-06T02:00:00Z"))), "2026-01-06T02:00:00Z");
        assert_eq!(shown(daily.due(last, at("2026-01-09T12:00:00Z"))), "2026-01-09T02:00:00Z");
        let often = parse(json!("every 5 minutes")).unwrap();
        assert_eq!(shown(often.due(last, at("2026-01-05T02:13:00Z"))), "2026-01-05T02:10:00Z");
        assert_eq!(shown(often.next_after(at("2026-01-05T02:10:00Z"))), "2026-01-05T02:15:00Z");
        assert_eq!(often.due(at("2026-01-05T02:10:00Z"), at("2026-01-05T02:14:59Z")), None);
    }

    /// Berlin, 2026: 02:00 → 03:00 on 29 March, 03:00 → 02:00 on 25 October.
    #[test]
    fn across_daylight_saving_a_daily_run_stays_daily() {
        let nightly = parse(json!({"cron": "30 2 * * *", "time_zone": "Europe/Berlin"})).unwrap();
        let mut planned = Vec::new();
        let mut time = at("2026-03-27T12:00:00Z");
        for _ in 0..4 {
            time = nightly.next_after(time).unwrap();
            planned.push(shown(Some(time)));
        }
        // On the 29th there is no 02:30: the run is not lost.
        assert_eq!(planned[0], "2026-03-28T01:30:00Z");
        assert!(planned[1].starts_with("2026-03-29T01:"), "{planned:?}");
        assert_eq!(planned[2..], ["2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"]);
        // On 25 October 02:30 comes twice, and the run once.
        let mut planned = Vec::new();
        let mut time = at("2026-10-24T12:00:00Z");
        for _ in 0..2 {
            time = nightly.next_after(time).unwrap();
            planned.push(shown(Some(time)));
        }
        assert_eq!(planned, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    }
}

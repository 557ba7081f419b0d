//! Instants as people write them.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};

/// µs since 1970 of a date or time: RFC 3339, or without a zone (`2026-01-05 06:00`, `2026-01-05`), then in UTC.
pub fn parse_instant(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(date.and_time(NaiveTime::MIN).and_utc().timestamp_micros());
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_micros());
    }
    ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|pattern| NaiveDateTime::parse_from_str(text, pattern).ok())
        .map(|time| time.and_utc().timestamp_micros())
}

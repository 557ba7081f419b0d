//! `watermark: {column: ts, delay: 10 minutes, idle_timeout: 30s}` of a model.

use serde_json::Value as Json;
use std::time::Duration;

use super::Watermark;
use super::config::RawConfig;
use super::problems::Problems;
use super::reader::parse_duration;

/// The watermark of a model's rows. Whether it has the column is seen when its SQL is planned.
pub(super) fn of_model(raw: &RawConfig, p: &mut Problems) -> Option<Watermark> {
    let setting = raw.get("watermark").filter(|s| !s.value.is_null())?;
    let hint = "write watermark: {column: ts, delay: 10 minutes}";
    let Json::Object(members) = &setting.value else {
        let message = format!("`watermark` must be a mapping, found {}", setting.shown());
        p.error("wrong-type", setting.span.clone(), message, hint);
        return None;
    };
    let mut watermark =
        Watermark { column: String::new(), delay: Duration::ZERO, idle_timeout: Duration::from_secs(30) };
    for (key, value) in members {
        let text = value.as_str().unwrap_or_default();
        match (key.as_str(), parse_duration(text)) {
            ("column", _) => watermark.column = text.to_string(),
            ("delay", Some(delay)) => watermark.delay = delay,
            ("idle_timeout", Some(timeout)) => watermark.idle_timeout = timeout,
            ("delay" | "idle_timeout", None) => {
                let message = format!("`{key}` of `watermark` must be a duration, found {value}");
                p.error("bad-duration", setting.span.clone(), message, "write a number and a unit: 10s, 5 minutes");
                return None;
            }
            _ => {
                let message = format!("unknown key `{key}` in `watermark`");
                p.error("unknown-key", setting.span.clone(), message, "known keys: column, delay, idle_timeout");
                return None;
            }
        }
    }
    if watermark.column.is_empty() {
        p.error("missing-column", setting.span.clone(), "`watermark` has no `column`", hint);
        return None;
    }
    Some(watermark)
}

//! `sources.json` (v3): how fresh each source table is.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::{Invocation, rfc3339};
use crate::env::Env;
use crate::project::{Age, FreshnessCheck};

/// What the newest record's age means; a source without any is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum FreshnessStatus {
    #[serde(rename = "pass")]
    Pass,
    #[serde(rename = "warn")]
    Warn,
    #[serde(rename = "error")]
    Error,
}

/// What was found out about one source table.
#[derive(Debug, Clone)]
pub struct SourceFreshness {
    /// `source.telecom.telco.call_event`
    pub unique_id: String,
    pub outcome: Result<Measured, String>,
}

/// The age of a source's newest record.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Instant of the newest record, µs since 1970.
    pub max_loaded_at: i64,
    /// When that was looked up, µs since 1970.
    pub snapshotted_at: i64,
    pub status: FreshnessStatus,
    pub criteria: FreshnessCheck,
    pub took: Duration,
}

/// The artifact of an invocation that took so long.
pub fn sources(results: &[SourceFreshness], invocation: &Invocation, elapsed: Duration, env: &Env) -> Json {
    let results: Vec<Json> = results.iter().map(row).collect();
    json!({
        "metadata": invocation.metadata("sources/v3", env),
        "results": results,
        "elapsed_time": elapsed.as_secs_f64(),
    })
}

fn row(source: &SourceFreshness) -> Json {
    let measured = match &source.outcome {
        Ok(measured) => measured,
        Err(error) => return json!({"unique_id": source.unique_id, "error": error, "status": "runtime error"}),
    };
    let age = |age: Option<Age>| age.map(|a| json!({"count": a.count, "period": a.unit.name()}));
    let took = i64::try_from(measured.took.as_micros()).unwrap_or(i64::MAX);
    let seconds = measured.snapshotted_at.saturating_sub(measured.max_loaded_at);
    json!({
        "unique_id": source.unique_id,
        "max_loaded_at": rfc3339(measured.max_loaded_at),
        "snapshotted_at": rfc3339(measured.snapshotted_at),
        "max_loaded_at_time_ago_in_s": seconds as f64 / 1e6,
        "status": measured.status,
        "criteria": {
            "warn_after": age(measured.criteria.warn_after),
            "error_after": age(measured.criteria.error_after),
            "filter": measured.criteria.filter,
        },
        "adapter_response": {},
        "timing": [{
            "name": "execute",
            "started_at": rfc3339(measured.snapshotted_at),
            "completed_at": rfc3339(measured.snapshotted_at.saturating_add(took)),
        }],
        "thread_id": "main",
        "execution_time": measured.took.as_secs_f64(),
    })
}

//! `smelt source freshness`: how old each source's newest row is, in dbt's lines and its `sources.json`.

use serde_json::{Value as Json, json};
use std::path::Path;
use std::sync::Arc;

use super::args::Selection;
use super::session::Session;
use super::{Exit, print};
use crate::error::{Error, Result};
use crate::project::{Age, FreshnessCheck, SourceTable};
use crate::runtime::{self, Freshness, FreshnessStatus, Reader};

/// At least so many dots lead from a name to its result.
const DOTS: usize = 60;

pub(super) async fn freshness(
    session: &Session,
    selection: &Selection,
    output: Option<&Path>,
) -> Result<Exit, Vec<Error>> {
    let started_at = session.env.now_micros();
    let (project, compilation) = session.compile().await?;
    let selected = session.choose(&project, Some(&compilation), selection).await?;
    let is_selected = |table: &SourceTable| selected.as_ref().is_none_or(|s| s.contains(&table.unique_id));
    let checks: Vec<(&Arc<SourceTable>, &FreshnessCheck)> = project
        .sources
        .iter()
        .filter(|table| is_selected(table))
        .filter_map(|table| Some((table, table.freshness.as_ref()?)))
        .collect();
    let reader = Reader::open(&session.env, project.clone(), compilation).await.map_err(|e| vec![e])?;
    let mut results = Vec::new();
    let mut counts = [0usize; 3];
    for (n, (table, check)) in checks.iter().enumerate() {
        let found = runtime::freshness(&session.env, &project, &reader, table, check).await;
        let verdict = match &found {
            Ok(Freshness { status: FreshnessStatus::Pass, .. }) => "PASS",
            Ok(Freshness { status: FreshnessStatus::Warn, .. }) => "WARN",
            Ok(Freshness { newest: Some(_), .. }) => "ERROR STALE",
            Ok(_) => "ERROR EMPTY",
            Err(_) => "ERROR",
        };
        counts[match verdict {
            "PASS" => 0,
            "WARN" => 1,
            _ => 2,
        }] += 1;
        let label = format!("{verdict} freshness of {}.{} ", table.source, table.name);
        let timing = found.as_ref().map_or(String::new(), |f| format!(" in {:.2}s", f.took.as_secs_f64()));
        let age = match &found {
            Ok(Freshness { newest: Some(newest), looked_at, .. }) => {
                format!(", {} old", age_of((looked_at - newest).max(0) / 1_000_000))
            }
            _ => String::new(),
        };
        let line = format!("{:>3} of {} {label:.<DOTS$} [{verdict}{timing}{age}]", n + 1, checks.len());
        if !session.quiet || verdict != "PASS" {
            print::line(&line);
        }
        if let Err(errors) = &found {
            errors.iter().for_each(|e| session.print_error(e));
        }
        results.push(result(table, check, &found));
    }
    print::line(&format!("Done. PASS={} WARN={} ERROR={} TOTAL={}", counts[0], counts[1], counts[2], checks.len()));
    let elapsed = (session.env.now_micros() - started_at) as f64 / 1e6;
    let artifact = json!({
        "metadata": {
            "dbt_schema_version": "https://schemas.getdbt.com/dbt/sources/v3.json",
            "dbt_version": "1.10.0",
            "generated_at": rfc3339(session.env.now_micros()),
            "invocation_id": session.env.new_uuid().to_string(),
            "env": {},
        },
        "results": results,
        "elapsed_time": elapsed,
    });
    let path = output.map_or_else(|| session.dir.join("target/sources.json"), |p| session.dir.join(p));
    let failed = |e: std::io::Error| {
        vec![Error::environment("unwritable-target", format!("cannot write {}: {e}", path.display())).permanent()]
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(&path, session.env.redact(&artifact.to_string())).map_err(failed)?;
    let is_bad = counts[2] > 0 || (session.warn_error && counts[1] > 0);
    Ok(if is_bad { Exit::Failed } else { Exit::Success })
}

fn result(table: &SourceTable, check: &FreshnessCheck, found: &Result<Freshness, Vec<Error>>) -> Json {
    let failed = |error: String| json!({"unique_id": table.unique_id, "error": error, "status": "runtime error"});
    let (found, newest) = match found {
        Ok(found) => match found.newest {
            Some(newest) => (found, newest),
            None => return failed("the source has no rows".to_string()),
        },
        Err(errors) => return failed(errors.iter().map(Error::message).collect::<Vec<_>>().join("; ")),
    };
    let age = |age: Option<Age>| age.map(|a| json!({"count": a.count, "period": a.unit.name()}));
    json!({
        "unique_id": table.unique_id,
        "max_loaded_at": rfc3339(newest),
        "snapshotted_at": rfc3339(found.looked_at),
        "max_loaded_at_time_ago_in_s": (found.looked_at - newest) as f64 / 1e6,
        "status": match found.status {
            FreshnessStatus::Pass => "pass",
            FreshnessStatus::Warn => "warn",
            FreshnessStatus::Error => "error",
        },
        "criteria": {
            "warn_after": age(check.warn_after),
            "error_after": age(check.error_after),
            "filter": check.filter,
        },
        "adapter_response": {},
        "timing": [],
        "thread_id": "main",
        "execution_time": found.took.as_secs_f64(),
    })
}

fn rfc3339(micros: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

/// `3 h 20 min`
fn age_of(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

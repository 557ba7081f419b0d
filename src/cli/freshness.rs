//! `smelt source freshness`: how old each source's newest row is, in dbt's lines and its `sources.json`.

use serde_json::Value as Json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::args::Selection;
use super::session::Session;
use super::{Exit, hooks, print};
use crate::error::{Error, Result};
use crate::project::artifacts::{self, FreshnessStatus, Measured, SourceFreshness};
use crate::project::{FreshnessCheck, SourceTable};
use crate::runtime::{self, Freshness, Reader};

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
    if session.has_freshness_hooks()
        && let Err(errors) = hooks::start(session, &project, &compilation, selection, false).await
    {
        errors.iter().for_each(|e| session.print_error(e));
        return Ok(Exit::Failed);
    }
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
    let elapsed = session.env.now_micros().saturating_sub(started_at);
    let elapsed = Duration::from_micros(u64::try_from(elapsed).unwrap_or(0));
    let artifact = artifacts::sources(&results, &session.artifacts.invocation, elapsed, &session.env);
    match output {
        None => artifacts::write(&project, "sources.json", artifact, &session.env).map(|_| ()),
        Some(path) => write_to(&session.dir.join(path), artifact, session),
    }
    .map_err(|e| vec![e])?;
    let is_bad = counts[2] > 0 || (session.is_error("freshness") && counts[1] > 0);
    Ok(if is_bad { Exit::Failed } else { Exit::Success })
}

fn result(table: &SourceTable, check: &FreshnessCheck, found: &Result<Freshness, Vec<Error>>) -> SourceFreshness {
    let outcome = match found {
        Ok(Freshness { newest: Some(newest), looked_at, status, took }) => Ok(Measured {
            max_loaded_at: *newest,
            snapshotted_at: *looked_at,
            status: *status,
            criteria: check.clone(),
            took: *took,
        }),
        Ok(_) => Err("the source has no rows".to_string()),
        Err(errors) => Err(errors.iter().map(Error::message).collect::<Vec<_>>().join("; ")),
    };
    SourceFreshness { unique_id: table.unique_id.clone(), outcome }
}

/// Writes the artifact to another place than dbt's.
fn write_to(path: &Path, mut artifact: Json, session: &Session) -> Result<()> {
    artifacts::redact(&mut artifact, &session.env);
    let write = || {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(path, artifact.to_string())
    };
    write().map_err(|e: std::io::Error| {
        Error::environment("unwritable-target", format!("cannot write {}: {e}", path.display())).permanent()
    })
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

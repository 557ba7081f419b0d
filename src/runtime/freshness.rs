//! How old a source's newest row is.
//!
//! A stream is asked without being read: the newest record's timestamp at the broker, the youngest file. A Delta table is asked by
//! its `loaded_at_query` or `loaded_at_field`; without either the time of its last commit counts.

use arrow::array::{Array, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pipeline::lake_options;
use super::query::Reader;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::lake::Lake;
use crate::project::artifacts::FreshnessStatus;
use crate::project::{Connector, FreshnessCheck, Project, SourceMap, SourceTable};
use crate::source::OpenContext;

/// A source table's freshness, measured.
#[derive(Debug, Clone)]
pub struct Freshness {
    /// µs since 1970; None: it has nothing.
    pub newest: Option<i64>,
    /// When that was looked up, µs.
    pub looked_at: i64,
    pub status: FreshnessStatus,
    pub took: Duration,
}

/// Measures `table` against `check`.
pub async fn freshness(
    env: &Env,
    project: &Project,
    reader: &Reader,
    table: &Arc<SourceTable>,
    check: &FreshnessCheck,
) -> Result<Freshness, Vec<Error>> {
    let started = Instant::now();
    let looked_at = env.now_micros();
    let newest = match &table.connector {
        Connector::Delta { schema, identifier, path } => {
            let query = match (&check.loaded_at_query, &check.loaded_at_field) {
                (Some(query), _) => Some(query.clone()),
                (None, Some(field)) => {
                    let filter = check.filter.as_ref().map(|f| format!(" where {f}")).unwrap_or_default();
                    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
                    Some(format!("select max({field}) from {}.{}{filter}", quote(schema), quote(identifier)))
                }
                (None, None) => None,
            };
            match query {
                Some(query) => instant_of(reader, &query, check).await?,
                None => {
                    let url = match path {
                        Some(path) => path.clone(),
                        None => {
                            let lake = Lake::open(env, &project.target.lake, lake_options(project));
                            lake.map_err(|e| vec![e])?.table_url(schema, identifier)
                        }
                    };
                    last_commit(env, &url).await.map_err(|e| vec![e])?
                }
            }
        }
        _ => {
            let context = OpenContext {
                env: env.clone(),
                ledger: None,
                project: project.name.clone(),
                target: project.target.name.clone(),
            };
            crate::source::newest(table, &context).await.map_err(|e| vec![e])?
        }
    };
    let status = judge(newest, looked_at, check);
    Ok(Freshness { newest, looked_at, status, took: started.elapsed() })
}

fn judge(newest: Option<i64>, now: i64, check: &FreshnessCheck) -> FreshnessStatus {
    let Some(newest) = newest else { return FreshnessStatus::Error };
    let age = Duration::from_micros(u64::try_from(now.saturating_sub(newest)).unwrap_or(0));
    if check.error_after.is_some_and(|after| age > after.duration()) {
        FreshnessStatus::Error
    } else if check.warn_after.is_some_and(|after| age > after.duration()) {
        FreshnessStatus::Warn
    } else {
        FreshnessStatus::Pass
    }
}

/// The one instant that `query` gives.
async fn instant_of(reader: &Reader, query: &str, check: &FreshnessCheck) -> Result<Option<i64>, Vec<Error>> {
    let map = SourceMap::verbatim(PathBuf::from("freshness"), query);
    let at_check = |e: Error| {
        let error = Error::user(e.code(), format!("freshness: {}", e.message())).with_span(check.span.clone());
        match e.hint() {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    };
    let plan = reader.plan(query, &map).await;
    let plan = plan.map_err(|errors| errors.into_iter().map(at_check).collect::<Vec<_>>())?;
    let rows = reader.collect(&plan).await?;
    let Some(value) = rows.iter().find(|b| b.num_rows() > 0 && b.num_columns() > 0).map(|b| b.column(0)) else {
        return Ok(None);
    };
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let value = cast_with_options(value, &instant, &options).map_err(|_| {
        let message = format!("freshness: `{query}` gives {}, which is no time", value.data_type());
        vec![Error::user("no-instant", message).with_span(check.span.clone()).with_hint("cast it to TIMESTAMP")]
    })?;
    Ok(value.is_valid(0).then(|| value.as_primitive::<TimestampMicrosecondType>().value(0)))
}

/// When the newest entry of a Delta log was put.
async fn last_commit(env: &Env, url: &str) -> Result<Option<i64>> {
    use futures::TryStreamExt;
    use object_store::ObjectStore;
    let (store, root) = env.object_store(url)?;
    let log = root.join("_delta_log");
    let mut newest = None;
    let mut entries = store.list(Some(&log));
    while let Some(entry) = entries.try_next().await? {
        let is_commit = entry.location.filename().is_some_and(|f| f.len() == 25 && f.ends_with(".json"));
        if is_commit {
            newest = newest.max(Some((entry.location.to_string(), entry.last_modified.timestamp_micros())));
        }
    }
    Ok(newest.map(|(_, time)| time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Span;
    use crate::project::{Age, AgeUnit};

    #[test]
    fn the_older_limit_wins() {
        let span = Span { file: "m.yml".into(), line: 1, column: 1, width: 1, text: "".into() };
        let age = |count, unit| Some(Age { count, unit });
        let check = FreshnessCheck {
            warn_after: age(1, AgeUnit::Hour),
            error_after: age(1, AgeUnit::Day),
            filter: None,
            loaded_at_field: None,
            loaded_at_query: None,
            span,
        };
        let hours = |n: i64| judge(Some(0), n * 3_600_000_000, &check);
        assert_eq!(hours(1), FreshnessStatus::Pass);
        assert_eq!(hours(2), FreshnessStatus::Warn);
        assert_eq!(hours(25), FreshnessStatus::Error);
        assert_eq!(judge(None, 0, &check), FreshnessStatus::Error, "nothing is not fresh");
        assert_eq!(judge(Some(10), 0, &check), FreshnessStatus::Pass, "clocks differ");
    }
}

//! Configuration of incremental models: how the rows of a run come into the table, as dbt's `incremental` declares it.

use chrono::{Datelike, Months, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use serde_json::Value as Json;

use super::config::{RawConfig, Setting};
use super::problems::{Problems, suggest};
use crate::error::Span;
use crate::types::parse_instant;

/// How an incremental model's runs change its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncrementalConfig {
    /// Columns that say which row it is; empty: rows are only added (or replaced by partition or batch).
    pub unique_key: Vec<String>,
    pub strategy: IncrementalStrategy,
    pub on_schema_change: OnSchemaChange,
    /// Which columns of a row that is there already a `merge` changes.
    pub updates: MergeColumns,
    /// More conditions a row of the table meets to be changed: SQL over `DBT_INTERNAL_DEST` and, with `merge`, `DBT_INTERNAL_SOURCE`.
    pub predicates: Vec<String>,
    /// Where its configuration begins, for problems.
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IncrementalStrategy {
    /// Rows are added.
    Append,
    /// Rows whose key is there are updated, the others added.
    Merge,
    /// Rows whose key is there are replaced, the others added.
    DeleteInsert,
    /// Partitions that have new rows are replaced; without `partition_by` the whole table.
    InsertOverwrite,
    /// The query runs once per batch of event time; each batch's rows are replaced.
    Microbatch(Microbatch),
}

/// Batches of event time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Microbatch {
    /// The model's column that says which batch a row belongs to.
    pub event_time: String,
    /// Where the first run begins, µs UTC.
    pub begin: i64,
    pub size: BatchSize,
    /// Batches before the newest one that are made again.
    pub lookback: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchSize {
    Hour,
    Day,
    Month,
    Year,
}

/// What becomes of the table when the query's columns are not the table's any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnSchemaChange {
    /// New columns are left out; a missing one is an error.
    #[default]
    Ignore,
    /// Any difference is an error.
    Fail,
    /// New columns are added; missing ones stay, NULL in new rows.
    AppendNewColumns,
    /// New columns are added, missing ones dropped, types changed.
    SyncAllColumns,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeColumns {
    All,
    Only(Vec<String>),
    Except(Vec<String>),
}

const STRATEGIES: [&str; 6] = ["append", "merge", "delete+insert", "delete_insert", "insert_overwrite", "microbatch"];
const SCHEMA_CHANGES: &[(&str, OnSchemaChange)] = &[
    ("ignore", OnSchemaChange::Ignore),
    ("fail", OnSchemaChange::Fail),
    ("append_new_columns", OnSchemaChange::AppendNewColumns),
    ("sync_all_columns", OnSchemaChange::SyncAllColumns),
];
const SIZES: &[(&str, BatchSize)] =
    &[("hour", BatchSize::Hour), ("day", BatchSize::Day), ("month", BatchSize::Month), ("year", BatchSize::Year)];

/// Reads what `raw` says of an incremental model; `at` is where it stands when nothing better is known.
pub(super) fn read(raw: &RawConfig, at: &Span, p: &mut Problems) -> Option<IncrementalConfig> {
    let before = p.errors.len();
    let unique_key = raw.get("unique_key").map_or_else(Vec::new, |s| s.texts("unique_key", p));
    let strategy = strategy(raw, &unique_key, at, p);
    let on_schema_change = match raw.get("on_schema_change").filter(|s| !s.value.is_null()) {
        Some(setting) => choice("on_schema_change", setting, SCHEMA_CHANGES, p).unwrap_or_default(),
        None => OnSchemaChange::default(),
    };
    let columns = |key: &str, p: &mut Problems| raw.get(key).filter(|s| !s.value.is_null()).map(|s| s.texts(key, p));
    let updates = match (columns("merge_update_columns", p), columns("merge_exclude_columns", p)) {
        (Some(_), Some(_)) => {
            let span = raw["merge_exclude_columns"].span.clone();
            let message = "`merge_update_columns` and `merge_exclude_columns` say the same thing twice";
            p.error("conflicting-config", span, message, "keep one of them");
            MergeColumns::All
        }
        (Some(only), None) => MergeColumns::Only(only),
        (None, Some(except)) => MergeColumns::Except(except),
        (None, None) => MergeColumns::All,
    };
    let predicates = columns("incremental_predicates", p).or_else(|| columns("predicates", p)).unwrap_or_default();
    let config =
        IncrementalConfig { unique_key, strategy: strategy?, on_schema_change, updates, predicates, span: at.clone() };
    let key = config.unique_key.is_empty();
    if config.strategy != IncrementalStrategy::Merge || key {
        for key in ["merge_update_columns", "merge_exclude_columns"] {
            if let Some(setting) = raw.get(key).filter(|s| !s.value.is_null()) {
                let message = format!("`{key}` has no effect without a merge on a `unique_key`");
                p.warn(
                    "ignored-config",
                    setting.span.clone(),
                    message,
                    "set unique_key, and incremental_strategy: merge",
                );
            }
        }
    }
    (p.errors.len() == before).then_some(config)
}

fn strategy(raw: &RawConfig, key: &[String], at: &Span, p: &mut Problems) -> Option<IncrementalStrategy> {
    let Some(setting) = raw.get("incremental_strategy").filter(|s| !s.value.is_null()) else {
        return Some(if key.is_empty() { IncrementalStrategy::Append } else { IncrementalStrategy::Merge });
    };
    let text = setting.text("incremental_strategy", p)?;
    Some(match text.as_str() {
        "append" => IncrementalStrategy::Append,
        // Without a key there is nothing to match, and dbt adds the rows.
        "merge" | "delete+insert" | "delete_insert" if key.is_empty() => IncrementalStrategy::Append,
        "merge" => IncrementalStrategy::Merge,
        "delete+insert" | "delete_insert" => IncrementalStrategy::DeleteInsert,
        "insert_overwrite" => IncrementalStrategy::InsertOverwrite,
        "microbatch" => IncrementalStrategy::Microbatch(microbatch(raw, at, p)?),
        other => {
            let hint = suggest(other, STRATEGIES, "it can be");
            p.error("unknown-value", setting.span.clone(), format!("unknown incremental strategy `{other}`"), hint);
            return None;
        }
    })
}

fn microbatch(raw: &RawConfig, at: &Span, p: &mut Problems) -> Option<Microbatch> {
    let mut needed = |key: &str, example: &str| {
        let found = raw.get(key).filter(|s| !s.value.is_null());
        if found.is_none() {
            let message = format!("strategy `microbatch` needs `{key}`");
            p.error("missing-config", at.clone(), message, format!("write {key}: {example}"));
        }
        found
    };
    let (event_time, begin) = (needed("event_time", "occurred_at"), needed("begin", "'2026-01-01'"));
    let size = needed("batch_size", "day");
    let (event_time, begin, size) = (event_time?, begin?, size?);
    let event_time = event_time.text("event_time", p);
    let size = choice("batch_size", size, SIZES, p);
    let text = begin.text("begin", p)?;
    let Some(instant) = parse_instant(&text) else {
        let message = format!("`begin` must be a date or a time in UTC, found `{text}`");
        p.error("wrong-type", begin.span.clone(), message, "write begin: '2026-01-01' or begin: '2026-01-01T06:00:00'");
        return None;
    };
    let lookback = match raw.get("lookback").map(|s| (s, s.value.as_u64())) {
        None => 1,
        Some((_, Some(batches))) if u32::try_from(batches).is_ok() => batches as u32,
        Some((setting, _)) => {
            let message = format!("`lookback` must be a number of batches, found {}", setting.shown());
            p.error("wrong-type", setting.span.clone(), message, "write lookback: 1");
            return None;
        }
    };
    Some(Microbatch { event_time: event_time?, begin: instant, size: size?, lookback })
}

fn choice<T: Copy>(key: &str, setting: &Setting, all: &[(&str, T)], p: &mut Problems) -> Option<T> {
    let text = setting.text(key, p)?;
    let found = all.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
    if found.is_none() {
        let hint = suggest(&text, all.iter().map(|(name, _)| *name), "it can be");
        p.error("unknown-value", setting.span.clone(), format!("`{key}` cannot be `{text}`"), hint);
    }
    found.map(|(_, value)| *value)
}

impl BatchSize {
    /// Start of the batch that holds `at` (µs).
    pub fn floor(self, at: i64) -> i64 {
        let Some(time) = Utc.timestamp_micros(at).single() else { return at };
        let date = time.date_naive();
        let date = match self {
            BatchSize::Hour => return at - at.rem_euclid(3_600_000_000),
            BatchSize::Day => Some(date),
            BatchSize::Month => date.with_day(1),
            BatchSize::Year => NaiveDate::from_ymd_opt(date.year(), 1, 1),
        };
        date.map_or(at, |date| date.and_time(NaiveTime::MIN).and_utc().timestamp_micros())
    }

    /// Start of the batch `count` after (negative: before) the one that starts at `start` (µs).
    pub fn offset(self, start: i64, count: i32) -> i64 {
        let Some(time) = Utc.timestamp_micros(start).single() else { return start };
        let months = |n: u32| match count < 0 {
            true => time.checked_sub_months(Months::new(n * count.unsigned_abs())),
            false => time.checked_add_months(Months::new(n * count.unsigned_abs())),
        };
        let moved = match self {
            BatchSize::Hour => time.checked_add_signed(TimeDelta::hours(count.into())),
            BatchSize::Day => time.checked_add_signed(TimeDelta::days(count.into())),
            BatchSize::Month => months(1),
            BatchSize::Year => months(12),
        };
        moved.map_or(start, |time| time.timestamp_micros())
    }
}

impl Microbatch {
    /// The batches (start, end; µs) of a run at `planned` whose last one was at `last`: the batch of the moment and those before
    /// it back to the last run's, and `lookback` more; in the first run all since `begin`.
    pub fn batches(&self, last: Option<i64>, planned: i64) -> Vec<(i64, i64)> {
        let begin = self.size.floor(self.begin);
        let lookback = i32::try_from(self.lookback).unwrap_or(i32::MAX);
        let start = match last {
            // A moment that went back must not leave batches out.
            Some(last) => self.size.offset(self.size.floor(last.min(planned)), -lookback).max(begin),
            None => begin,
        };
        self.between(start, planned.saturating_add(1))
    }

    /// The batches that hold a moment from `start` to before `end_of_all` (µs).
    pub fn between(&self, start: i64, end_of_all: i64) -> Vec<(i64, i64)> {
        let mut start = self.size.floor(start);
        let mut batches = Vec::new();
        while start < end_of_all {
            let end = self.size.offset(start, 1);
            batches.push((start, end));
            if end <= start {
                break;
            }
            start = end;
        }
        batches
    }
}

/// What `event_time` names.
pub(super) fn event_time(raw: &RawConfig, p: &mut Problems) -> Option<String> {
    match raw.get("event_time") {
        Some(Setting { value: Json::Null, .. }) | None => None,
        Some(setting) => setting.text("event_time", p),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> i64 {
        parse_instant(text).unwrap()
    }

    #[test]
    fn batches_go_from_the_last_run_to_this_one_and_back_by_the_lookback() {
        let daily = Microbatch { event_time: "ts".into(), begin: day("2026-01-01"), size: BatchSize::Day, lookback: 1 };
        let first = daily.batches(None, day("2026-01-03T05:00:00"));
        let starts = |batches: &[(i64, i64)]| batches.iter().map(|b| b.0).collect::<Vec<_>>();
        assert_eq!(starts(&first), [day("2026-01-01"), day("2026-01-02"), day("2026-01-03")]);
        assert_eq!(first[2].1, day("2026-01-04"));
        let next = daily.batches(Some(day("2026-01-03T05:00:00")), day("2026-01-03T09:00:00"));
        assert_eq!(starts(&next), [day("2026-01-02"), day("2026-01-03")]);
        let missed = daily.batches(Some(day("2026-01-03T05:00:00")), day("2026-01-06T00:00:00"));
        assert_eq!(missed.len(), 5, "from the second to the sixth");
        assert!(daily.batches(None, day("2025-12-31")).is_empty());
        let never_before_begin = daily.batches(Some(day("2026-01-01T01:00:00")), day("2026-01-01T02:00:00"));
        assert_eq!(starts(&never_before_begin), [day("2026-01-01")]);
    }

    #[test]
    fn months_and_years_are_the_calendars() {
        let monthly =
            Microbatch { event_time: "ts".into(), begin: day("2026-01-15"), size: BatchSize::Month, lookback: 0 };
        let batches = monthly.batches(None, day("2026-03-31T23:59:59"));
        assert_eq!(batches[1], (day("2026-02-01"), day("2026-03-01")));
        assert_eq!(batches.len(), 3);
        assert_eq!(BatchSize::Year.floor(day("2026-07-03")), day("2026-01-01"));
        assert_eq!(BatchSize::Year.offset(day("2026-01-01"), -1), day("2025-01-01"));
        assert_eq!(BatchSize::Hour.floor(day("2026-07-03T04:59:59")), day("2026-07-03T04:00:00"));
    }
}

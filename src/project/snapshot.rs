//! Configuration of snapshots: the history of a query's rows, as dbt's `snapshots:` declare it.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::config::{RawConfig, Setting};
use super::problems::{Problems, suggest};
use crate::error::Span;

/// How a snapshot finds out what has changed, and how it writes that down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// Columns that say which row it is.
    pub unique_key: Vec<String>,
    pub strategy: SnapshotStrategy,
    pub hard_deletes: HardDeletes,
    pub columns: SnapshotColumns,
    /// SQL expression that stands in `valid_to` of current rows, instead of NULL.
    pub valid_to_current: Option<String>,
    /// Where its configuration begins, for problems.
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotStrategy {
    /// A row has changed when one of these columns has; empty: any column.
    Check(Vec<String>),
    /// A row has changed when this column is later.
    Timestamp(String),
}

/// What becomes of rows that the query no longer returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HardDeletes {
    /// Their last version stays current.
    #[default]
    Ignore,
    /// Their last version ends.
    Invalidate,
    /// Their last version ends, and one that says `is_deleted` begins.
    NewRecord,
}

/// Names of the columns a snapshot adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotColumns {
    pub scd_id: String,
    pub updated_at: String,
    pub valid_from: String,
    pub valid_to: String,
    /// Only with [`HardDeletes::NewRecord`].
    pub is_deleted: String,
}

impl Default for SnapshotColumns {
    fn default() -> Self {
        SnapshotColumns {
            scd_id: "dbt_scd_id".into(),
            updated_at: "dbt_updated_at".into(),
            valid_from: "dbt_valid_from".into(),
            valid_to: "dbt_valid_to".into(),
            is_deleted: "dbt_is_deleted".into(),
        }
    }
}

const STRATEGIES: [&str; 2] = ["check", "timestamp"];
const DELETES: &[(&str, HardDeletes)] =
    &[("ignore", HardDeletes::Ignore), ("invalidate", HardDeletes::Invalidate), ("new_record", HardDeletes::NewRecord)];

/// Reads what `raw` says of a snapshot; `at` is where it stands when nothing better is known.
pub(super) fn read(raw: &RawConfig, at: &Span, p: &mut Problems) -> Option<SnapshotConfig> {
    let before = p.errors.len();
    let unique_key = raw.get("unique_key").map_or_else(Vec::new, |s| s.texts("unique_key", p));
    if unique_key.is_empty() && p.errors.len() == before {
        p.error(
            "missing-unique-key",
            at.clone(),
            "a snapshot needs a `unique_key`",
            "name the column that says which row it is: unique_key: user_id",
        );
    }
    let strategy = strategy(raw, at, p);
    let config = SnapshotConfig {
        unique_key,
        hard_deletes: hard_deletes(raw, p),
        columns: columns(raw.get("snapshot_meta_column_names"), p),
        valid_to_current: raw
            .get("dbt_valid_to_current")
            .filter(|s| !s.value.is_null())
            .and_then(|s| s.text("dbt_valid_to_current", p)),
        span: at.clone(),
        strategy: strategy?,
    };
    (p.errors.len() == before).then_some(config)
}

fn strategy(raw: &RawConfig, at: &Span, p: &mut Problems) -> Option<SnapshotStrategy> {
    let Some(setting) = raw.get("strategy") else {
        p.error(
            "missing-strategy",
            at.clone(),
            "a snapshot needs a `strategy`",
            "write strategy: check with check_cols, or strategy: timestamp with updated_at",
        );
        return None;
    };
    let text = setting.text("strategy", p)?;
    match text.as_str() {
        "timestamp" => match raw.get("updated_at") {
            Some(column) => column.text("updated_at", p).map(SnapshotStrategy::Timestamp),
            None => {
                p.error(
                    "missing-updated-at",
                    setting.span.clone(),
                    "strategy `timestamp` needs `updated_at`",
                    "name the column that grows with every change: updated_at: modified_at",
                );
                None
            }
        },
        "check" => match raw.get("check_cols") {
            Some(Setting { value: Json::String(all), .. }) if all.eq_ignore_ascii_case("all") => {
                Some(SnapshotStrategy::Check(Vec::new()))
            }
            Some(columns) => {
                let names = columns.texts("check_cols", p);
                if names.is_empty() {
                    p.error(
                        "missing-check-cols",
                        columns.span.clone(),
                        "`check_cols` names no column",
                        "list the columns to compare, or write check_cols: all",
                    );
                }
                (!names.is_empty()).then_some(SnapshotStrategy::Check(names))
            }
            None => {
                p.error(
                    "missing-check-cols",
                    setting.span.clone(),
                    "strategy `check` needs `check_cols`",
                    "list the columns to compare, or write check_cols: all",
                );
                None
            }
        },
        other => {
            let hint = suggest(other, STRATEGIES, "it can be");
            p.error("unknown-value", setting.span.clone(), format!("unknown snapshot strategy `{other}`"), hint);
            None
        }
    }
}

fn hard_deletes(raw: &RawConfig, p: &mut Problems) -> HardDeletes {
    if let Some(setting) = raw.get("hard_deletes")
        && let Some(text) = setting.text("hard_deletes", p)
    {
        if let Some((_, found)) = DELETES.iter().find(|(name, _)| *name == text) {
            return *found;
        }
        let hint = suggest(&text, DELETES.iter().map(|(name, _)| *name), "it can be");
        p.error("unknown-value", setting.span.clone(), format!("`hard_deletes` cannot be `{text}`"), hint);
    }
    // Its name before dbt 1.9.
    match raw.get("invalidate_hard_deletes").and_then(|s| s.boolean("invalidate_hard_deletes", p)) {
        Some(true) => HardDeletes::Invalidate,
        _ => HardDeletes::Ignore,
    }
}

fn columns(setting: Option<&Setting>, p: &mut Problems) -> SnapshotColumns {
    let mut columns = SnapshotColumns::default();
    let Some(setting) = setting.filter(|s| !s.value.is_null()) else { return columns };
    let names: BTreeMap<String, String> = setting.object("snapshot_meta_column_names", p);
    for (key, name) in names {
        let slot = match key.as_str() {
            "dbt_scd_id" => &mut columns.scd_id,
            "dbt_updated_at" => &mut columns.updated_at,
            "dbt_valid_from" => &mut columns.valid_from,
            "dbt_valid_to" => &mut columns.valid_to,
            "dbt_is_deleted" => &mut columns.is_deleted,
            other => {
                let known = ["dbt_scd_id", "dbt_updated_at", "dbt_valid_from", "dbt_valid_to", "dbt_is_deleted"];
                let hint = suggest(other, known, "it can have");
                p.error(
                    "unknown-key",
                    setting.span.clone(),
                    format!("unknown key `{other}` in snapshot_meta_column_names"),
                    hint,
                );
                continue;
            }
        };
        *slot = name;
    }
    columns
}

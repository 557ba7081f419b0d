//! `freshness:` of source tables: how old the newest row may be, and what says how old it is.
//!
//! Keys stand on a source or on its table, directly or below `config:`; what the table says wins key by key, and
//! `freshness: null` there means none.

use std::time::Duration;

use super::problems::Problems;
use super::yaml::{Node, Value};
use crate::error::Span;

const KEYS: &[&str] = &["warn_after", "error_after", "filter"];
const UNITS: &[(&str, AgeUnit)] = &[("minute", AgeUnit::Minute), ("hour", AgeUnit::Hour), ("day", AgeUnit::Day)];

/// When a source table is too old.
#[derive(Debug, Clone)]
pub struct FreshnessCheck {
    pub warn_after: Option<Age>,
    pub error_after: Option<Age>,
    /// SQL condition on the rows that count; of a Delta table with `loaded_at_field`.
    pub filter: Option<String>,
    /// SQL expression over a Delta table's columns: when the row was loaded.
    pub loaded_at_field: Option<String>,
    /// A query that gives that instant, instead.
    pub loaded_at_query: Option<String>,
    pub span: Span,
}

/// `{count: 12, period: hour}`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age {
    pub count: u32,
    pub unit: AgeUnit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgeUnit {
    Minute,
    Hour,
    Day,
}

impl Age {
    pub fn duration(self) -> Duration {
        let seconds = match self.unit {
            AgeUnit::Minute => 60,
            AgeUnit::Hour => 3600,
            AgeUnit::Day => 86400,
        };
        Duration::from_secs(u64::from(self.count) * seconds)
    }
}

impl AgeUnit {
    /// As it is written in `period:`.
    pub fn name(self) -> &'static str {
        UNITS.iter().find(|(_, unit)| *unit == self).map_or("", |(name, _)| name)
    }
}

/// The freshness of a source table; `levels` are the source, its `config:`, the table and its `config:`, those that are there.
pub(super) fn read(levels: &[&Node], p: &mut Problems) -> Option<FreshnessCheck> {
    let mut warn_after = None;
    let mut error_after = None;
    let mut filter = None;
    let mut span = None;
    for node in levels.iter().filter_map(|level| level.get("freshness")) {
        if matches!(node.value, Value::Null) {
            (warn_after, error_after, filter, span) = (None, None, None, None);
            continue;
        }
        if !node.check_keys("freshness", KEYS, p) {
            return None;
        }
        if let Some(after) = node.get("warn_after") {
            warn_after = age("warn_after", after, p);
        }
        if let Some(after) = node.get("error_after") {
            error_after = age("error_after", after, p);
        }
        if let Some(condition) = node.get("filter").filter(|n| !matches!(n.value, Value::Null)) {
            filter = condition.text("filter", p);
        }
        span = Some(node.span());
    }
    let text = |key: &str, p: &mut Problems| {
        let node = levels.iter().rev().find_map(|level| level.get(key))?;
        if matches!(node.value, Value::Null) { None } else { node.text(key, p) }
    };
    let loaded_at_field = text("loaded_at_field", p);
    let loaded_at_query = text("loaded_at_query", p);
    if let (Some(_), Some(_), Some(node)) =
        (&loaded_at_field, &loaded_at_query, levels.iter().rev().find_map(|level| level.get("loaded_at_query")))
    {
        p.error(
            "two-instants",
            node.span(),
            "`loaded_at_query` stands beside `loaded_at_field`",
            "keep one of them: both say when a row was loaded",
        );
    }
    if warn_after.is_none() && error_after.is_none() {
        return None;
    }
    Some(FreshnessCheck { warn_after, error_after, filter, loaded_at_field, loaded_at_query, span: span? })
}

fn age(key: &str, node: &Node, p: &mut Problems) -> Option<Age> {
    if matches!(node.value, Value::Null) {
        return None;
    }
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("`{key}` must be a mapping, found {}", node.kind());
        p.error("wrong-type", node.span(), message, format!("write {key}: {{count: 12, period: hour}}"));
        return None;
    }
    if !node.check_keys(key, &["count", "period"], p) || node.entries().is_empty() {
        return None;
    }
    let (Some(count), Some(period)) = (node.get("count"), node.get("period")) else {
        let missing = if node.get("count").is_none() { "count" } else { "period" };
        let message = format!("`{key}` has no `{missing}`");
        p.error("missing-argument", node.span(), message, format!("write {key}: {{count: 12, period: hour}}"));
        return None;
    };
    let count = count.count("count", 0, p)?;
    let unit = period.choice("period", UNITS, p)?;
    Some(Age { count: u32::try_from(count).unwrap_or(u32::MAX), unit })
}

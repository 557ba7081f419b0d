//! A data test's configuration: how many failing rows are too many, and where they are kept. Keys and defaults are dbt's.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::super::Severity;
use super::super::config::{RawConfig, Setting, written};
use super::super::problems::Problems;

/// Keys of a test's configuration; written in `config:` or beside the arguments.
pub(in crate::project) const CONFIG_KEYS: &[&str] = &[
    "severity",
    "where",
    "tags",
    "enabled",
    "limit",
    "store_failures",
    "store_failures_as",
    "warn_if",
    "error_if",
    "fail_calc",
    "meta",
    "schema",
    "database",
    "alias",
    "group",
];

/// Schema of the tables that keep failing rows, unless a test says otherwise.
const AUDIT_SCHEMA: &str = "dbt_test__audit";

/// Longer names of unit tests are cut for files.
const LONGEST_NAME: usize = 63;

/// How a data test is judged, and what becomes of its failing rows.
#[derive(Debug, Clone, PartialEq)]
pub struct TestConfig {
    /// SQL over the failing rows that gives the number of failures; `count(*)`.
    pub fail_calc: String,
    /// What follows the number in the condition for a warning; `!= 0`.
    pub warn_if: String,
    /// What follows the number in the condition for an error; `!= 0`.
    pub error_if: String,
    /// No more failing rows than these are looked for.
    pub limit: Option<u64>,
    /// `None`: as the command line says.
    pub store: Option<StoreFailures>,
    /// Table of the failing rows, as (schema, name).
    pub audit: (String, String),
    /// What its files are called, without ending.
    pub file: String,
    /// Everything that is said, for the manifest.
    pub all: BTreeMap<String, Json>,
    /// The same as it is written: Jinja as text.
    pub written: BTreeMap<String, Json>,
}

/// What becomes of failing rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFailures {
    /// A Delta table, replaced at every run of the test.
    Table,
    /// A name for the test's query, for `smelt query`.
    View,
    /// Nothing.
    Ephemeral,
}

/// A test's settings before its SQL is made.
pub(super) struct Settings {
    pub severity: Severity,
    pub enabled: bool,
    pub tags: Vec<String>,
    pub filter: Option<Setting>,
    pub config: TestConfig,
}

impl Settings {
    /// Checks and types `raw`, the configuration of a test whose name is `name`, or short for it.
    pub fn of(name: &str, raw: &RawConfig, p: &mut Problems) -> Self {
        let severities = [("error", Severity::Error), ("warn", Severity::Warn)];
        let stores =
            [("table", StoreFailures::Table), ("view", StoreFailures::View), ("ephemeral", StoreFailures::Ephemeral)];
        let given = |key: &str| raw.get(key).filter(|s| !s.value.is_null());
        let text = |key: &str, p: &mut Problems| given(key).and_then(|s| s.text(key, p));
        let stored = given("store_failures").and_then(|s| s.boolean("store_failures", p));
        let stored = stored.map(|kept| if kept { StoreFailures::Table } else { StoreFailures::Ephemeral });
        let config = TestConfig {
            fail_calc: text("fail_calc", p).unwrap_or_else(|| "count(*)".to_string()),
            warn_if: given("warn_if").and_then(|s| condition("warn_if", s, p)).unwrap_or_else(not_zero),
            error_if: given("error_if").and_then(|s| condition("error_if", s, p)).unwrap_or_else(not_zero),
            limit: given("limit").and_then(|s| rows("limit", s, p)),
            store: given("store_failures_as").and_then(|s| choice("store_failures_as", s, &stores, p)).or(stored),
            audit: (
                text("schema", p).unwrap_or_else(|| AUDIT_SCHEMA.to_string()),
                text("alias", p).unwrap_or_else(|| file_name(name)),
            ),
            file: file_name(name),
            all: raw.iter().map(|(k, s)| (k.clone(), s.value.clone())).collect(),
            written: written(raw),
        };
        Settings {
            severity: given("severity").and_then(|s| choice("severity", s, &severities, p)).unwrap_or(Severity::Error),
            enabled: given("enabled").and_then(|s| s.boolean("enabled", p)).unwrap_or(true),
            tags: given("tags").map_or_else(Vec::new, |s| s.texts("tags", p)),
            filter: given("where").cloned(),
            config,
        }
    }
}

fn not_zero() -> String {
    "!= 0".to_string()
}

/// `error`, `Error`, `ERROR`: dbt does not mind.
fn choice<T: Copy>(key: &str, setting: &Setting, choices: &[(&str, T)], p: &mut Problems) -> Option<T> {
    let written = setting.value.as_str().map(str::to_lowercase);
    let found = choices.iter().find(|(name, _)| written.as_deref() == Some(name)).map(|(_, value)| *value);
    if found.is_none() {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let message = format!("`{key}` cannot be {}", setting.shown());
        p.error("unknown-value", setting.span.clone(), message, format!("it can be: {}", names.join(", ")));
    }
    found
}

/// What may stand behind a number to make a condition: `> 10`, `!= 0`, `between 5 and 10`.
fn condition(key: &str, setting: &Setting, p: &mut Problems) -> Option<String> {
    let text = setting.value.as_str().map(str::trim).unwrap_or_default();
    let lower = text.to_lowercase();
    let begins_with_word = |word: &str| lower.strip_prefix(word).is_some_and(|r| r.starts_with([' ', '(', '\n']));
    let fits = text.starts_with(['<', '>', '=']) || text.starts_with("!=");
    if fits || ["between", "not", "in", "is"].into_iter().any(begins_with_word) {
        return Some(text.to_string());
    }
    let hint = match setting.value.as_i64().or_else(|| text.parse().ok()) {
        Some(number) => format!("write {key}: \"> {number}\""),
        None => format!("the number of failures stands before it: write {key}: \"> 10\""),
    };
    let message = format!("`{key}` must be the rest of a condition, found {}", setting.shown());
    p.error("bad-condition", setting.span.clone(), message, hint);
    None
}

fn rows(key: &str, setting: &Setting, p: &mut Problems) -> Option<u64> {
    let number = setting.value.as_u64().or_else(|| setting.value.as_str().and_then(|s| s.trim().parse().ok()));
    if number.is_none() {
        let message = format!("`{key}` must be a number of rows, found {}", setting.shown());
        p.error("wrong-type", setting.span.clone(), message, format!("write {key}: 100"));
    }
    number
}

/// A name as a table or file has it.
fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '_' }).collect()
}

/// A unit test's name as a file has it: the first 30 characters and a digest where it is long.
pub(in crate::project) fn short_name(test: &str) -> String {
    use md5::{Digest, Md5};
    let safe = file_name(test);
    if safe.len() <= LONGEST_NAME {
        return safe;
    }
    let digest: String = Md5::digest(test.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    format!("{}_{digest}", safe.chars().take(30).collect::<String>())
}

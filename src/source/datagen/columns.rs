//! Rows by column rules: enough to try a model before its real source is there.
//!
//! ```yaml
//! config: {connector: datagen, options: {rate: 100, rows: 10000, fields: {status: {values: [new, paid]}, amount: {min: 0, max: 99.5}}}}
//! ```
//!
//! A field without a rule follows its type: integers and text count up, floats and decimals are random from 0 to 100, booleans
//! alternate at random, dates and timestamps go on by 1/`rate` seconds from `start`. Row n is a function of seed and n alone.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use super::stream::{RawRecord, RecordStream};
use super::telecom::parse_start;
use crate::error::{Error, Result, did_you_mean};
use crate::project::SourceTable;

const OPTIONS: [&str; 6] = ["generator", "rate", "rows", "seed", "start", "fields"];
const RULES: [&str; 5] = ["values", "min", "max", "first", "step"];

/// What one column's values are.
#[derive(Debug, Clone)]
enum Rule {
    /// `first + n * step`.
    Count {
        first: i64,
        step: i64,
    },
    /// `name-n`.
    Text,
    Boolean,
    Integer {
        min: i64,
        max: i64,
    },
    /// Multiples of 1/10^scale.
    Decimal {
        min: f64,
        max: f64,
        scale: usize,
    },
    Timestamp,
    Date,
    OneOf(Vec<Value>),
}

/// Rows by column rules, as JSON objects.
#[derive(Debug)]
pub(super) struct ColumnStream {
    rules: Vec<(String, Rule)>,
    rows: Option<u64>,
    seed: u64,
    /// µs since 1970-01-01 UTC of row 0, and between rows.
    start: i64,
    step: i64,
    n: u64,
}

impl ColumnStream {
    /// The stream for `table` with its `options`.
    pub fn new(table: &SourceTable, options: &BTreeMap<String, Value>) -> Result<Self> {
        let named =
            |e: Error| e.context(format!("source {}.{}", table.source, table.name)).with_span(table.span.clone());
        Self::read(table, options).map_err(named)
    }

    fn read(table: &SourceTable, options: &BTreeMap<String, Value>) -> Result<Self> {
        for name in options.keys() {
            known(name, &OPTIONS, "datagen option")?;
        }
        let whole = |name: &str| match options.get(name) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(n) => Ok(Some(n)),
                None => Err(bad(format!("`{name}` must be a whole number from 0, not {value}"))),
            },
        };
        let fields = match options.get("fields") {
            None => Map::new(),
            Some(Value::Object(fields)) => fields.clone(),
            Some(other) => return Err(bad(format!("`fields` must map columns to rules, not {other}"))),
        };
        for name in fields.keys() {
            known(name, &table.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), "column")?;
        }
        let rules = table
            .columns
            .iter()
            .map(|column| {
                let sql_type = column.data_type.as_deref().unwrap_or("STRING");
                Ok((column.name.clone(), rule(&column.name, sql_type, fields.get(&column.name))?))
            })
            .collect::<Result<Vec<_>>>()?;
        let start = match options.get("start").and_then(Value::as_str) {
            Some(text) => parse_start(text)?,
            None => 1_767_571_200, // 2026-01-05
        };
        let rate = super::stream::rate(options)?.unwrap_or(1000.0);
        Ok(ColumnStream {
            rules,
            rows: whole("rows")?,
            seed: whole("seed")?.unwrap_or(1),
            start: start * 1_000_000,
            step: (1e6 / rate).max(1.0) as i64,
            n: 0,
        })
    }
}

impl RecordStream for ColumnStream {
    fn next(&mut self) -> Option<RawRecord> {
        if self.rows.is_some_and(|rows| self.n >= rows) {
            return None;
        }
        let n = self.n;
        self.n += 1;
        // A stream of its own per row: skipping to row n costs nothing, and no column depends on another's rule.
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(n);
        let at = self.start + n as i64 * self.step;
        let mut row = Map::with_capacity(self.rules.len());
        for (name, rule) in &self.rules {
            row.insert(name.clone(), value(name, rule, n, at, &mut rng));
        }
        Some(RawRecord {
            partition: 0,
            key: None,
            value: Value::Object(row).to_string().into_bytes(),
            timestamp_micros: at,
        })
    }

    fn is_endless(&self) -> bool {
        self.rows.is_none()
    }
}

fn value(name: &str, rule: &Rule, n: u64, at: i64, rng: &mut ChaCha8Rng) -> Value {
    let instant = || chrono::DateTime::from_timestamp_micros(at).unwrap_or_default();
    match rule {
        Rule::Count { first, step } => json!(first.wrapping_add((n as i64).wrapping_mul(*step))),
        Rule::Text => json!(format!("{name}-{n}")),
        Rule::Boolean => json!(rng.random_bool(0.5)),
        Rule::Integer { min, max } => json!(rng.random_range(*min..=*max)),
        Rule::Decimal { min, max, scale } => {
            let unit = 10f64.powi(*scale as i32);
            let steps = rng.random_range(0..=((max - min) * unit) as u64);
            // As text: exact for decimals, and a float reads the same digits.
            json!(format!("{:.*}", *scale, min + steps as f64 / unit))
        }
        Rule::Timestamp => json!(instant().format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()),
        Rule::Date => json!(instant().format("%Y-%m-%d").to_string()),
        Rule::OneOf(values) => values[rng.random_range(0..values.len())].clone(),
    }
}

fn rule(column: &str, sql_type: &str, given: Option<&Value>) -> Result<Rule> {
    let none = Map::new();
    let given = match given {
        None => &none,
        Some(Value::Object(rule)) => rule,
        Some(other) => return Err(bad(format!("the rule of `{column}` must be a mapping, not {other}"))),
    };
    for name in given.keys() {
        known(name, &RULES, "rule")?;
    }
    if let Some(values) = given.get("values") {
        return match values.as_array() {
            Some(values) if !values.is_empty() => Ok(Rule::OneOf(values.clone())),
            _ => Err(bad(format!("`values` of `{column}` must be a list with at least one value"))),
        };
    }
    let number = |name: &str, default: f64| match given.get(name) {
        None => Ok(default),
        Some(value) => {
            value.as_f64().ok_or_else(|| bad(format!("`{name}` of `{column}` must be a number, not {value}")))
        }
    };
    let (min, max) = (number("min", 0.0)?, number("max", 100.0)?);
    if max < min {
        return Err(bad(format!("`max` of `{column}` is below its `min`")));
    }
    let upper = sql_type.trim().to_uppercase();
    let base = upper.split(['(', '<']).next().unwrap_or_default().trim();
    let ranged = given.contains_key("min") || given.contains_key("max");
    match base {
        "TINYINT" | "SMALLINT" | "INT" | "INTEGER" | "BIGINT" | "LONG" if ranged => {
            Ok(Rule::Integer { min: min as i64, max: max as i64 })
        }
        "TINYINT" | "SMALLINT" | "INT" | "INTEGER" | "BIGINT" | "LONG" => {
            Ok(Rule::Count { first: number("first", 1.0)? as i64, step: number("step", 1.0)? as i64 })
        }
        "FLOAT" | "REAL" | "DOUBLE" => Ok(Rule::Decimal { min, max, scale: 3 }),
        "DECIMAL" | "NUMERIC" => {
            let scale = upper.trim_end_matches(')').split(',').nth(1).and_then(|s| s.trim().parse().ok());
            Ok(Rule::Decimal { min, max, scale: scale.unwrap_or(0) })
        }
        "BOOLEAN" => Ok(Rule::Boolean),
        "STRING" | "TEXT" | "VARCHAR" => Ok(Rule::Text),
        "DATE" => Ok(Rule::Date),
        "TIMESTAMP" | "TIMESTAMP_NTZ" => Ok(Rule::Timestamp),
        _ => Err(bad(format!("column `{column}` of type {sql_type} needs a rule"))
            .with_hint(format!("write fields: {{{column}: {{values: [...]}}}}"))),
    }
}

fn known(name: &str, known: &[&str], what: &str) -> Result<()> {
    if known.contains(&name) {
        return Ok(());
    }
    let error = bad(format!("there is no {what} `{name}`"));
    Err(match did_you_mean(name, known.iter().copied()) {
        Some(meant) => error.with_hint(format!("did you mean `{meant}`?")),
        None => error.with_hint(format!("it can be: {}", known.join(", "))),
    })
}

fn bad(message: String) -> Error {
    Error::user("bad-option", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row_of(sql_type: &str, rule: Option<Value>, n: u64) -> Value {
        let rule = super::rule("c", sql_type, rule.as_ref()).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        rng.set_stream(n);
        value("c", &rule, n, 1_767_571_200_000_000, &mut rng)
    }

    #[test]
    fn a_column_follows_its_type_or_its_rule() {
        assert_eq!(row_of("BIGINT", None, 4), json!(5));
        assert_eq!(row_of("INT", Some(json!({"first": 100, "step": 10})), 4), json!(140));
        assert_eq!(row_of("STRING", None, 4), json!("c-4"));
        assert_eq!(row_of("DATE", None, 4), json!("2026-01-05"));
        assert_eq!(row_of("TIMESTAMP", None, 4), json!("2026-01-05T00:00:00.000000Z"));
        assert_eq!(row_of("STRING", Some(json!({"values": ["only"]})), 4), json!("only"));
        for n in 0..100 {
            let text = row_of("DECIMAL(10, 2)", Some(json!({"min": 1, "max": 2})), n);
            let number: f64 = text.as_str().unwrap().parse().unwrap();
            assert!((1.0..=2.0).contains(&number) && text.as_str().unwrap().len() == 4, "{text}");
            assert!((-3..=3).contains(&row_of("INT", Some(json!({"min": -3, "max": 3})), n).as_i64().unwrap()));
        }
    }

    #[test]
    fn wrong_rules_say_what_is_wrong() {
        let error = |sql_type: &str, rule: Value| super::rule("c", sql_type, Some(&rule)).unwrap_err();
        assert_eq!(error("INT", json!({"mni": 1})).hint(), Some("did you mean `min`?"));
        assert!(error("INT", json!({"min": 2, "max": 1})).message().contains("below"));
        assert!(error("STRING", json!({"values": []})).message().contains("at least one"));
        assert!(error("ARRAY<INT>", json!({})).message().contains("needs a rule"));
    }
}

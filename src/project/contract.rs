//! Contracts: the columns, types and constraints a model promises. Columns and types are checked when the model is compiled
//! ([`crate::plan`]); constraints become expectations that fail the model, so that no violating row is ever committed.

use super::config::RawConfig;
use super::problems::{Problems, suggest};
use super::yaml::{Node, Value};
use super::{Dialect, Expectation, Materialization, OnViolation};

const TYPES: [&str; 6] = ["not_null", "check", "primary_key", "unique", "foreign_key", "custom"];

/// `contract: {enforced: true}`
pub(super) fn is_enforced(raw: &RawConfig) -> bool {
    raw.get("contract").and_then(|s| s.value.get("enforced")).is_some_and(|v| v.as_bool() == Some(true))
}

/// The constraints of a model's entry, and of its columns, that rows are checked against. A model without a table has none, as in dbt.
pub(super) fn constraints(
    entry: &Node,
    materialized: Materialization,
    dialect: Dialect,
    p: &mut Problems,
) -> Vec<(Expectation, Node)> {
    let mut all = Vec::new();
    if !materialized.has_table() {
        let columns = entry.get("columns").map_or(&[][..], |n| n.items("columns", p));
        let lists = std::iter::once(entry).chain(columns).filter_map(|of| of.get("constraints"));
        let mut constraints: Vec<&Node> = Vec::new();
        for list in lists {
            constraints.extend(list.items("constraints", p));
        }
        if let Some(first) = constraints.into_iter().find(|c| is_warned_of(c, "warn_unsupported")) {
            let kind = materialized.name();
            let message = format!("constraints are not supported for `{kind}` materializations and are ignored");
            let hint = "materialize the model as a table, or test it with data tests; `warn_unsupported: false` on the constraint hides this";
            p.warn("unsupported", first.span(), message, hint);
        }
        return all;
    }
    for constraint in entry.get("constraints").map_or(&[][..], |n| n.items("constraints", p)) {
        let columns = constraint.get("columns").and_then(|n| n.texts("columns", p)).unwrap_or_default();
        all.extend(read(constraint, &columns, dialect, p));
    }
    for column in entry.get("columns").map_or(&[][..], |n| n.items("columns", p)) {
        let Some(name) = column.get("name").and_then(Node::as_str) else { continue };
        for constraint in column.get("constraints").map_or(&[][..], |n| n.items("constraints", p)) {
            all.extend(read(constraint, &[name.to_string()], dialect, p));
        }
    }
    all
}

/// Whether a constraint leaves dbt's warning of this name on.
fn is_warned_of(constraint: &Node, name: &str) -> bool {
    !constraint.get(name).is_some_and(|n| matches!(n.value, Value::Bool(false)))
}

fn read(node: &Node, columns: &[String], dialect: Dialect, p: &mut Problems) -> Vec<(Expectation, Node)> {
    let Some(kind) = node.get("type").and_then(|n| n.text("type", p)) else {
        let hint = "write constraints: [{type: not_null}]";
        p.error("missing-type", node.span(), "a constraint has no `type`", hint);
        return Vec::new();
    };
    let expectation = |name: String, expect: String| {
        let expectation = Expectation { name, expect, on_violation: OnViolation::Fail, span: node.span() };
        (expectation, node.clone())
    };
    let not_null = || {
        let quote = match dialect {
            Dialect::Spark | Dialect::Databricks => '`',
            _ => '"',
        };
        let expect = |c: &String| expectation(format!("not_null {c}"), format!("{quote}{c}{quote} is not null"));
        columns.iter().map(expect).collect()
    };
    match kind.as_str() {
        "not_null" => not_null(),
        "check" => match node.get("expression").and_then(|n| n.text("expression", p)) {
            Some(text) => {
                let name = node.get("name").and_then(|n| n.text("name", p)).unwrap_or_else(|| format!("check {text}"));
                // A CHECK is met by NULL, as the standard has it.
                vec![expectation(name, format!("({text}\n) is not false"))]
            }
            None => {
                let hint = "write {type: check, expression: amount >= 0}";
                p.error("missing-expression", node.span(), "a check constraint has no `expression`", hint);
                Vec::new()
            }
        },
        "primary_key" | "unique" | "foreign_key" | "custom" => {
            let is_key = kind == "primary_key";
            if is_warned_of(node, "warn_unenforced") {
                let but = if is_key { "; only that its columns are not NULL is" } else { "" };
                let message = format!(
                    "a `{kind}` constraint is informational, as on Databricks and Snowflake: it is not enforced{but}"
                );
                let test = match kind.as_str() {
                    "foreign_key" => "add the data test `relationships`",
                    "custom" => "add a data test",
                    _ => "add the data test `unique`",
                };
                let hint = format!("{test}; `warn_unenforced: false` on the constraint hides this");
                p.warn("unenforced", node.span(), message, hint);
            }
            if is_key { not_null() } else { Vec::new() }
        }
        other => {
            let hint = suggest(other, TYPES, "it can be");
            p.error("unknown-value", node.span(), format!("unknown constraint type `{other}`"), hint);
            Vec::new()
        }
    }
}

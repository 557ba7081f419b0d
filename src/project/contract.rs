//! Contracts: the columns, types and constraints a model promises. Columns and types are checked when the model is compiled
//! ([`crate::plan`]); constraints become expectations that fail the model, so that no violating row is ever committed.

use super::config::RawConfig;
use super::problems::{Problems, suggest};
use super::yaml::Node;
use super::{Dialect, Expectation, OnViolation};

const TYPES: [&str; 6] = ["not_null", "check", "primary_key", "unique", "foreign_key", "custom"];

/// `contract: {enforced: true}`
pub(super) fn is_enforced(raw: &RawConfig) -> bool {
    raw.get("contract").and_then(|s| s.value.get("enforced")).is_some_and(|v| v.as_bool() == Some(true))
}

/// The constraints of a model's entry, and of its columns, that rows are checked against.
pub(super) fn constraints(entry: &Node, dialect: Dialect, p: &mut Problems) -> Vec<(Expectation, Node)> {
    let mut all = Vec::new();
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
        "primary_key" => {
            let message = "that a primary key is unique is not enforced at every commit, only that it is not NULL";
            p.warn("unenforced", node.span(), message, "add the data test `unique`");
            not_null()
        }
        "unique" | "foreign_key" | "custom" => {
            let message = format!("a `{kind}` constraint is not enforced");
            p.warn("unenforced", node.span(), message, "add a data test: unique, relationships");
            Vec::new()
        }
        other => {
            let hint = suggest(other, TYPES, "it can be");
            p.error("unknown-value", node.span(), format!("unknown constraint type `{other}`"), hint);
            Vec::new()
        }
    }
}

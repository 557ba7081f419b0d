//! Definitions of macros, as text: for the manifest, which wants to know what each says and which others it calls.

use std::sync::{Arc, LazyLock};

use regex::Regex;

use super::inventory::{Declared, MacroDefinition};
use super::problems::{Problems, suggest};
use super::yaml::{Node, Text};

static TAGS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"\{%[-+]?\s*(?:(macro|test)\s+([A-Za-z_][A-Za-z0-9_]*)\s*\(([^%]*?)\)|(endmacro|endtest))\s*[-+]?%\}")
        .ok()
});

const KEYS: &[&str] = &["name", "description", "docs", "config", "arguments"];
const ARGUMENT_KEYS: &[&str] = &["name", "type", "description"];

/// The macros defined in the files of a package, in their order.
pub(super) fn definitions(package: &str, files: &[Arc<Text>]) -> Vec<MacroDefinition> {
    let mut found = Vec::new();
    let Some(tags) = TAGS.as_ref() else { return found };
    for text in files {
        let mut open: Option<(String, Vec<String>, usize)> = None;
        for tag in tags.captures_iter(&text.content) {
            let range = tag.get(0).map_or(0..0, |m| m.range());
            match (tag.get(1), tag.get(2)) {
                (Some(kind), Some(name)) => {
                    let prefix = if kind.as_str() == "test" { "test_" } else { "" };
                    let signature = tag.get(3).map_or("", |m| m.as_str());
                    open = Some((format!("{prefix}{}", name.as_str()), arguments(signature), range.start));
                }
                _ => {
                    if let Some((name, arguments, start)) = open.take() {
                        let sql = text.content[start..range.end].to_string();
                        let (package, path) = (package.to_string(), text.file.clone());
                        found.push(MacroDefinition { name, package, path, sql, arguments, declared: None });
                    }
                }
            }
        }
    }
    found
}

/// The names in `a, b='x, y', c=[1, 2]`.
fn arguments(signature: &str) -> Vec<String> {
    let (mut depth, mut quote, mut names, mut name) = (0usize, None, Vec::new(), String::new());
    let mut named = false;
    for c in signature.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                names.push(std::mem::take(&mut name));
                named = false;
            }
            (None, '=') if depth == 0 => named = true,
            (None, c) if depth == 0 && !named && !c.is_whitespace() => name.push(c),
            _ => {}
        }
    }
    names.push(name);
    names.retain(|n| !n.is_empty());
    names
}

/// Adds what a properties file says of a macro; one that is not there is noted.
pub(super) fn describe(macros: &mut [MacroDefinition], node: &Node, p: &mut Problems) {
    if !node.check_keys("a macro", KEYS, p) {
        return;
    }
    let Some(name) = super::sources::named(node, "a macro", p) else { return };
    for argument in node.get("arguments").map_or(&[][..], |n| n.items("arguments", p)) {
        argument.check_keys("an argument", ARGUMENT_KEYS, p);
        super::sources::named(argument, "an argument", p);
    }
    let declared = Declared { path: node.text.file.clone(), entry: node.json() };
    match macros.iter_mut().find(|m| m.name == name) {
        Some(found) => found.declared = Some(declared),
        None => {
            let hint = suggest(&name, macros.iter().map(|m| m.name.as_str()), "macros");
            let span = node.get("name").unwrap_or(node).span();
            p.warn("unused-properties", span, format!("there is no macro `{name}` to describe"), hint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_reaches_from_its_tag_to_its_end_and_names_its_arguments() {
        let text = Text::new(
            "macros/m.sql",
            "-- money\n{% macro cents(column, scale=2, unit=f('a,b')) -%}\n  {{ column }}\n{%- endmacro %}\n{% test even(model) %}x{% endtest %}",
        );
        let found = definitions("shop", &[text]);
        let shown: Vec<(&str, Vec<&str>, &str)> = found
            .iter()
            .map(|m| (m.name.as_str(), m.arguments.iter().map(String::as_str).collect(), m.sql.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                (
                    "cents",
                    vec!["column", "scale", "unit"],
                    "{% macro cents(column, scale=2, unit=f('a,b')) -%}\n  {{ column }}\n{%- endmacro %}"
                ),
                ("test_even", vec!["model"], "{% test even(model) %}x{% endtest %}"),
            ]
        );
    }
}

//! Definitions of `selectors.yml` as dbt's manifest lists them: texts are taken apart, names of other selectors replaced.

use regex::Regex;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// An entry of `selectors:`, with those `above` it by name.
pub(super) fn entry(mut written: Json, above: &BTreeMap<String, Json>) -> Json {
    if let Some(definition) = written.get("definition") {
        let definition = self::definition(definition, above);
        written["definition"] = definition;
    }
    written
}

fn definition(written: &Json, above: &BTreeMap<String, Json>) -> Json {
    match written {
        Json::String(text) => criterion(text),
        Json::Object(members) => {
            for set in ["union", "intersection"] {
                if let Some(parts) = members.get(set).and_then(Json::as_array) {
                    return json!({set: parts.iter().map(|part| definition(part, above)).collect::<Vec<_>>()});
                }
            }
            mapping(members, above)
        }
        other => other.clone(),
    }
}

fn mapping(members: &Map<String, Json>, above: &BTreeMap<String, Json>) -> Json {
    let first = members.iter().next();
    let parts = |value: &Json| match value {
        Json::Array(parts) => parts.iter().map(|part| definition(part, above)).collect(),
        other => other.clone(),
    };
    match (first, members.get("method").and_then(Json::as_str), members.get("value").and_then(Json::as_str)) {
        (Some((_, value)), _, _) if members.len() == 1 => match members.get("exclude") {
            Some(excluded) => json!({"exclude": parts(excluded)}),
            None => json!({"method": members.keys().next(), "value": parts(value)}),
        },
        (_, Some("selector"), Some(name)) => {
            above.get(name).map_or(Json::Null, |selector| selector["definition"].clone())
        }
        _ => Json::Object(members.clone()),
    }
}

/// `+tag:nightly+2`
fn criterion(text: &str) -> Json {
    static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(
            r"^(?P<childrens_parents>@)?(?P<parents>(?P<parents_depth>\d*)\+)?(?:(?P<method>[\w.]+):)?(?P<value>.*?)(?P<children>\+(?P<children_depth>\d*))?$",
        )
        .ok()
    });
    let Some(found) = PATTERN.as_ref().and_then(|pattern| pattern.captures(text)) else {
        return json!({"error": "Invalid selector spec"});
    };
    let value = found.name("value").map_or("", |m| m.as_str());
    let is_file = [".sql", ".py", ".csv"].iter().any(|end| value.to_lowercase().ends_with(end));
    let method = match found.name("method") {
        Some(method) => method.as_str(),
        None if value.contains('/') => "path",
        None if is_file => "file",
        None => "fqn",
    };
    let mut written = Map::new();
    for flag in ["childrens_parents", "parents", "children"] {
        if found.name(flag).is_some_and(|m| !m.as_str().is_empty()) {
            written.insert(flag.to_string(), true.into());
        }
    }
    for depth in ["parents_depth", "children_depth"] {
        if let Some(steps) = found.name(depth).filter(|m| !m.as_str().is_empty()) {
            written.insert(depth.to_string(), steps.as_str().into());
        }
    }
    written.insert("method".to_string(), method.into());
    if !value.is_empty() {
        written.insert("value".to_string(), value.into());
    }
    Json::Object(written)
}

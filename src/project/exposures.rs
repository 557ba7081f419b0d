//! `exposures:` and `groups:` of properties files: who uses models, and who owns them.

use serde_json::{Value as Json, json};

use super::Dependency;
use super::inventory::{Exposure, Group};
use super::jinja::Resolve;
use super::problems::Problems;
use super::sources::named;
use super::yaml::{Node, Value};

const EXPOSURE_KEYS: &[&str] =
    &["name", "label", "type", "maturity", "url", "description", "owner", "depends_on", "tags", "config", "enabled"];
const GROUP_KEYS: &[&str] = &["name", "owner", "description", "config"];

const KINDS: &[(&str, &str)] = &[
    ("dashboard", "dashboard"),
    ("notebook", "notebook"),
    ("analysis", "analysis"),
    ("ml", "ml"),
    ("application", "application"),
];
const MATURITIES: &[(&str, &str)] = &[("high", "high"), ("medium", "medium"), ("low", "low")];

/// Reads an entry of `exposures:` of a file in `folders` (`[package, folder, …]`); what it depends on is resolved by `names`. None:
/// disabled, or too broken to keep.
pub(super) fn exposure(node: &Node, folders: &[String], names: &dyn Resolve, p: &mut Problems) -> Option<Exposure> {
    if !node.check_keys("an exposure", EXPOSURE_KEYS, p) {
        return None;
    }
    let name = named(node, "an exposure", p)?;
    let at = node.get("name").unwrap_or(node);
    if !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        let message = format!("`{name}` is no name for an exposure");
        p.error("bad-name", at.span(), message, "use letters, digits and _; `label` may be any text");
    }
    let kind = match node.get("type") {
        Some(kind) => kind.choice("type", KINDS, p),
        None => {
            let hint = "it can be: dashboard, notebook, analysis, ml, application";
            p.error("missing-type", at.span(), format!("exposure `{name}` has no `type`"), hint);
            None
        }
    };
    let owner = owner(node, &format!("exposure `{name}`"), at, p);
    let from = folders.first().map_or("", String::as_str);
    let depends_on = dependencies(node.get("depends_on"), names, from, p);
    let config = node.get("config");
    let texts = |key: &str, p: &mut Problems| {
        let found = config.and_then(|c| c.get(key)).or_else(|| node.get(key));
        found.and_then(|n| n.texts(key, p)).unwrap_or_default()
    };
    let tags = texts("tags", p);
    let enabled = config.and_then(|c| c.get("enabled")).or_else(|| node.get("enabled"));
    let enabled = enabled.and_then(|n| n.boolean("enabled", p)).unwrap_or(true);
    let text = |key: &str, p: &mut Problems| node.get(key).and_then(|n| n.text(key, p));
    let meta = config.and_then(|c| c.get("meta")).or_else(|| node.get("meta")).map_or(json!({}), Node::json);
    let exposure = Exposure {
        unique_id: format!("exposure.{}.{name}", folders.first().map_or("", String::as_str)),
        package: folders.first().cloned().unwrap_or_default(),
        fqn: [folders, std::slice::from_ref(&name)].concat(),
        path: node.text.file.clone(),
        kind: kind?,
        label: text("label", p),
        maturity: node.get("maturity").and_then(|n| n.choice("maturity", MATURITIES, p)),
        url: text("url", p),
        description: text("description", p).unwrap_or_default(),
        owner: owner?,
        depends_on,
        config: config.map_or(json!({}), Node::json),
        tags,
        meta,
        name,
    };
    enabled.then_some(exposure)
}

/// Reads an entry of `groups:`.
pub(super) fn group(node: &Node, p: &mut Problems) -> Option<Group> {
    if !node.check_keys("a group", GROUP_KEYS, p) {
        return None;
    }
    let name = named(node, "a group", p)?;
    let at = node.get("name").unwrap_or(node);
    Some(Group {
        path: node.text.file.clone(),
        description: node.get("description").and_then(|n| n.text("description", p)),
        owner: owner(node, &format!("group `{name}`"), at, p)?,
        config: node.get("config").map_or(json!({}), Node::json),
        name,
    })
}

fn owner(node: &Node, what: &str, at: &Node, p: &mut Problems) -> Option<Json> {
    let known = node.get("owner").filter(|n| n.get("name").is_some() || n.get("email").is_some());
    if known.is_none() {
        let span = node.get("owner").unwrap_or(at).span();
        p.error("missing-owner", span, format!("{what} has no owner"), "write owner: {name: …, email: …}");
    }
    known.map(Node::json)
}

/// `[ref('fact_events'), source('telco', 'calls')]`
fn dependencies(node: Option<&Node>, names: &dyn Resolve, from: &str, p: &mut Problems) -> Vec<Dependency> {
    let mut found = Vec::new();
    for item in node.map_or(&[][..], |n| n.items("depends_on", p)) {
        let Some(text) = item.text("depends_on", p) else { continue };
        let call = text.trim().trim_start_matches("{{").trim_end_matches("}}").trim();
        let relation = match arguments(call) {
            Some(("ref", names_in)) if names_in.len() == 1 => names.model(None, &names_in[0], from),
            Some(("ref", names_in)) if names_in.len() == 2 => names.model(Some(&names_in[0]), &names_in[1], from),
            Some(("source", names_in)) if names_in.len() == 2 => names.source(&names_in[0], &names_in[1], from),
            _ => {
                let message = format!("`depends_on` names no relation: `{text}`");
                p.error("bad-relation", item.span(), message, "write ref('model') or source('source', 'table')");
                continue;
            }
        };
        match relation {
            Ok(relation) => found.extend(relation.dependency.filter(|d| !found.contains(d))),
            Err(error) => p.errors.push(error.with_span(item.span())),
        }
    }
    found
}

/// `ref('a')` as ("ref", ["a"]).
fn arguments(call: &str) -> Option<(&str, Vec<String>)> {
    let (function, rest) = call.split_once('(')?;
    let inside = rest.trim_end().strip_suffix(')')?;
    let literal = |text: &str| {
        let text = text.trim();
        let inner = text.strip_prefix('\'').and_then(|t| t.strip_suffix('\''));
        inner.or_else(|| text.strip_prefix('"').and_then(|t| t.strip_suffix('"'))).map(str::to_string)
    };
    Some((function.trim(), inside.split(',').map(literal).collect::<Option<_>>()?))
}

/// The `group` a model names must be one of `groups`.
pub(super) fn check_group(entry: &Node, groups: &[Group], p: &mut Problems) {
    let named = entry.get("config").and_then(|c| c.get("group")).or_else(|| entry.get("group"));
    let Some((node, name)) = named.and_then(|n| Some((n, n.as_str()?))) else { return };
    if matches!(node.value, Value::Str(_)) && groups.iter().all(|g| g.name != name) {
        let hint = super::problems::suggest(name, groups.iter().map(|g| g.name.as_str()), "groups");
        p.error("unknown-group", node.span(), format!("no group `{name}`"), hint);
    }
}

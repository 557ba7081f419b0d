//! The selection methods: which nodes a criterion names by itself, before graph operators and tests.

use glob::{MatchOptions, Pattern};
use serde_json::Value as Json;
use std::path::{Component, Path, PathBuf};

use super::Request;
use super::node::{Graph, Node, ResourceType, TestKind};
use super::pattern::{Wildcard, has_wildcards};
use super::spec::{Criterion, Method};
use super::state::{self, LakeState};
use crate::error::{Error, Result};
use crate::project::Project;
use crate::project::problems::suggest;

/// Decides node by node.
type Matches<'a> = Box<dyn Fn(&Node) -> bool + 'a>;

/// The nodes of `graph` that `criterion` names, by index.
pub(super) fn search(
    criterion: &Criterion,
    graph: &Graph,
    project: &Project,
    request: &Request<'_>,
) -> Result<Vec<usize>> {
    if matches!(criterion.method, Method::State | Method::Result | Method::SourceStatus) {
        return compared(criterion, graph, request);
    }
    let find = |ignores_case: bool| -> Result<Vec<usize>> {
        let matches = matcher(criterion, project, ignores_case)?;
        Ok((0..graph.nodes.len()).filter(|i| matches(&graph.nodes[*i])).collect())
    };
    let found = find(false)?;
    // Names that are not quoted match ignoring case where nothing matches exactly, as in SQL.
    let by_name = matches!(criterion.method, Method::Fqn | Method::Name | Method::Source | Method::Exposure);
    if found.is_empty() && by_name { find(true) } else { Ok(found) }
}

/// The nodes that another run's artifacts, or the lake, tell apart.
fn compared(criterion: &Criterion, graph: &Graph, request: &Request<'_>) -> Result<Vec<usize>> {
    let value = criterion.value.as_str();
    let (name, known): (&str, &[&str]) = match criterion.method {
        Method::State => ("state", &state::CHECKS),
        Method::Result => ("result", &state::STATUSES),
        _ => ("source_status", &["fresher"]),
    };
    if !known.contains(&value) {
        return Err(state::unknown(name, value, known));
    }
    let missing = || {
        Error::user("no-state", format!("`{name}:{value}` needs another run to compare with"))
            .with_hint("name the folder of its artifacts with --state")
    };
    let mut found = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        let matches = match (criterion.method, request.state, request.lake) {
            (Method::State, Some(state), _) => state.is(value, &node.unique_id)?,
            (Method::State, None, Some(lake)) => {
                let state = lake.get(&node.unique_id);
                match value {
                    "new" => state == Some(&LakeState::New),
                    "old" => state.is_some_and(|s| *s != LakeState::New),
                    "modified" => state.is_some_and(|s| *s != LakeState::Unmodified),
                    "unmodified" => state == Some(&LakeState::Unmodified),
                    // A fingerprint does not say what has changed.
                    _ => return Err(missing()),
                }
            }
            (Method::Result, Some(state), _) => state.status(&node.unique_id)? == Some(value),
            (Method::SourceStatus, Some(state), _) => state.is_fresher(&node.unique_id)?,
            _ => return Err(missing()),
        };
        if matches {
            found.push(i);
        }
    }
    Ok(found)
}

fn matcher<'a>(criterion: &'a Criterion, project: &'a Project, ignores_case: bool) -> Result<Matches<'a>> {
    let value = criterion.value.as_str();
    let wildcard = Wildcard::new(value, ignores_case);
    Ok(match criterion.method {
        Method::Fqn => {
            let fqn = Fqn::new(value, ignores_case);
            Box::new(move |node| has_own_name(node) && (fqn.matches(&node.fqn) || fqn.matches(&node.fqn[1..])))
        }
        Method::Name => Box::new(move |node| has_own_name(node) && wildcard.matches(&node.name)),
        Method::Tag => Box::new(move |node| node.tags.iter().any(|t| wildcard.matches(t))),
        Method::Group => Box::new(move |node| text(node, "group").is_some_and(|g| wildcard.matches(g))),
        Method::Access => Box::new(move |node| {
            node.resource_type == ResourceType::Model && text(node, "access").is_some_and(|a| wildcard.matches(a))
        }),
        Method::Source => source(value, ignores_case)?,
        Method::Exposure => named(ResourceType::Exposure, value, ignores_case)?,
        Method::UnitTest => named(ResourceType::UnitTest, value, ignores_case)?,
        Method::Path => path(value, project)?,
        Method::File => Box::new(move |node| {
            let part = |part: Option<&std::ffi::OsStr>| part.is_some_and(|p| wildcard.matches(&p.to_string_lossy()));
            part(node.path.file_name()) || part(node.path.file_stem())
        }),
        Method::Package => {
            let package = if value == "this" { Wildcard::new(&project.name, false) } else { wildcard };
            Box::new(move |node| package.matches(&node.package))
        }
        Method::Config => {
            let severity = criterion.arguments == ["severity"];
            let expected = Wildcard::new(value, severity);
            Box::new(move |node| {
                // dbt looks at no exposure here.
                node.resource_type != ResourceType::Exposure
                    && config(node, &criterion.arguments).is_some_and(|v| is_value(v, &expected, value))
            })
        }
        Method::TestName => {
            Box::new(move |node| matches!(&node.test, Some(TestKind::Generic(name)) if wildcard.matches(name)))
        }
        Method::TestType => test_type(value)?,
        Method::ResourceType => resource_type(value)?,
        Method::Version => version(value)?,
        // Found elsewhere, or nowhere.
        Method::State | Method::Result | Method::SourceStatus | Method::Selector | Method::Absent => {
            Box::new(|_| false)
        }
    })
}

/// A source table is named with its source only, by `source:`.
fn has_own_name(node: &Node) -> bool {
    node.resource_type != ResourceType::Source
}

fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.config.get(key).and_then(Json::as_str)
}

/// A name, or the folders above it from the top, with dots: `calls`, `bronze`, `telecom.bronze.calls`, `*.silver.*`.
struct Fqn<'a> {
    value: &'a str,
    parts: Vec<&'a str>,
    ignores_case: bool,
}

impl<'a> Fqn<'a> {
    fn new(value: &'a str, ignores_case: bool) -> Self {
        Fqn { value, parts: value.split('.').collect(), ignores_case }
    }

    fn matches(&self, fqn: &[String]) -> bool {
        let same = |a: &str, b: &str| if self.ignores_case { a.to_lowercase() == b.to_lowercase() } else { a == b };
        if fqn.last().is_some_and(|name| same(name, self.value)) {
            return true;
        }
        // A dot in a name separates as any other does.
        let flat: Vec<&str> = fqn.iter().flat_map(|part| part.split('.')).collect();
        if flat.len() < self.parts.len() {
            return false;
        }
        for (i, part) in self.parts.iter().enumerate() {
            if has_wildcards(part) {
                // From the first wildcard on, dots are characters like any other.
                let rest = Wildcard::new(&self.parts[i..].join("."), self.ignores_case);
                return rest.matches(&flat[i..].join("."));
            }
            if !same(flat[i], part) {
                return false;
            }
        }
        true
    }
}

fn source<'a>(value: &str, ignores_case: bool) -> Result<Matches<'a>> {
    let glob = |text: &str| Wildcard::new(text, ignores_case);
    let (package, source, table) = match value.split('.').collect::<Vec<_>>().as_slice() {
        [source] => (glob("*"), glob(source), glob("*")),
        [source, table] => (glob("*"), glob(source), glob(table)),
        [package, source, table] => (glob(package), glob(source), glob(table)),
        _ => {
            return Err(Error::user("bad-selection", format!("`source:{value}` has too many dots"))
                .with_hint("write source:telco, source:telco.calls or source:package.telco.calls"));
        }
    };
    Ok(Box::new(move |node| {
        node.source_name.as_ref().is_some_and(|name| source.matches(name))
            && package.matches(&node.package)
            && table.matches(&node.name)
    }))
}

/// `name` or `package.name` of a resource type that has no folders.
fn named<'a>(resource_type: ResourceType, value: &str, ignores_case: bool) -> Result<Matches<'a>> {
    let glob = |text: &str| Wildcard::new(text, ignores_case);
    let (package, name) = match value.split('.').collect::<Vec<_>>().as_slice() {
        [name] => (glob("*"), glob(name)),
        [package, name] => (glob(package), glob(name)),
        _ => {
            let kind = resource_type.name();
            return Err(Error::user("bad-selection", format!("`{kind}:{value}` has too many dots"))
                .with_hint(format!("write {kind}:name or {kind}:package.name")));
        }
    };
    Ok(Box::new(move |node| {
        node.resource_type == resource_type && package.matches(&node.package) && name.matches(&node.name)
    }))
}

/// The node's file, any folder above it, or the file that describes it; `*` stays within a folder, `**` does not.
fn path<'a>(value: &str, project: &Project) -> Result<Matches<'a>> {
    const OPTIONS: MatchOptions =
        MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };
    let given = Path::new(value);
    let inside = given.strip_prefix(&project.dir).unwrap_or(given);
    let plain: PathBuf = inside.components().filter(|c| !matches!(c, Component::CurDir)).collect();
    let pattern = Pattern::new(&plain.to_string_lossy())
        .map_err(|e| Error::user("bad-selection", format!("bad pattern `{value}`: {}", e.msg)))?;
    let all = plain.as_os_str().is_empty();
    let is = move |path: &Path| pattern.matches_path_with(path, OPTIONS);
    Ok(Box::new(move |node| {
        all || node.path.ancestors().filter(|a| !a.as_os_str().is_empty()).any(&is)
            || node.described_in.as_deref().is_some_and(&is)
    }))
}

fn config<'a>(node: &'a Node, keys: &[String]) -> Option<&'a Json> {
    let (first, rest) = keys.split_first()?;
    rest.iter().try_fold(node.config.get(first)?, |value, key| value.get(key))
}

fn is_value(value: &Json, expected: &Wildcard, text: &str) -> bool {
    match value {
        Json::String(s) => expected.matches(s),
        Json::Bool(b) => text.eq_ignore_ascii_case(if *b { "true" } else { "false" }),
        Json::Array(items) => items.iter().any(|item| is_value(item, expected, text)),
        Json::Object(members) => members.contains_key(text),
        Json::Null => false,
        Json::Number(n) => expected.matches(&n.to_string()),
    }
}

fn test_type<'a>(value: &str) -> Result<Matches<'a>> {
    let generic = |node: &Node| matches!(node.test, Some(TestKind::Generic(_)));
    let singular = |node: &Node| matches!(node.test, Some(TestKind::Singular));
    Ok(match value {
        "generic" | "schema" => Box::new(generic),
        "singular" => Box::new(singular),
        "data" => Box::new(move |node| generic(node) || singular(node)),
        "unit" => Box::new(|node| node.resource_type == ResourceType::UnitTest),
        other => return Err(unknown("test type", other, &["generic", "singular", "data", "unit"])),
    })
}

fn resource_type<'a>(value: &str) -> Result<Matches<'a>> {
    /// Types that dbt has, and a project of ours cannot hold.
    const ABSENT: [&str; 5] = ["analysis", "metric", "semantic_model", "saved_query", "function"];
    let found = ResourceType::ALL.into_iter().find(|t| t.name() == value);
    match found {
        Some(wanted) => Ok(Box::new(move |node| node.resource_type == wanted)),
        None if ABSENT.contains(&value) => Ok(Box::new(|_| false)),
        None => Err(unknown("resource type", value, &ResourceType::ALL.map(ResourceType::name))),
    }
}

fn version<'a>(value: &str) -> Result<Matches<'a>> {
    // Models have no versions here: they are what dbt selects with `none`.
    match value {
        "none" => Ok(Box::new(|node| node.resource_type == ResourceType::Model)),
        "latest" | "prerelease" | "old" => Ok(Box::new(|_| false)),
        other => Err(unknown("version", other, &["latest", "prerelease", "old", "none"])),
    }
}

fn unknown(what: &str, value: &str, known: &[&str]) -> Error {
    Error::user("bad-selection", format!("unknown {what} `{value}` in a selection")).with_hint(suggest(
        value,
        known.iter().copied(),
        &format!("{what}s"),
    ))
}

/// What a word that matched nothing may have meant.
pub(super) fn nearest(criterion: &Criterion, graph: &Graph) -> Option<String> {
    let value = criterion.value.as_str();
    let of = |what: &str, names: Vec<&str>| Some(suggest(value, names, what));
    let tested = |n: &&Node| has_own_name(n) && !n.resource_type.is_test();
    match criterion.method {
        Method::Fqn if has_wildcards(value) => {
            let name = Wildcard::new(value, true);
            let any = graph.nodes.iter().filter(tested).any(|n| name.matches(&n.name));
            any.then(|| format!("a pattern stands for the folders too: write *{value} or name:{value}"))
        }
        Method::Fqn | Method::Name | Method::File if !has_wildcards(value) => {
            of("models", graph.nodes.iter().filter(tested).map(|n| n.name.as_str()).collect())
        }
        Method::Source if !has_wildcards(value) => {
            of("sources", graph.nodes.iter().filter_map(|n| n.source_name.as_deref()).collect())
        }
        Method::Exposure if !has_wildcards(value) => {
            let exposures = graph.nodes.iter().filter(|n| n.resource_type == ResourceType::Exposure);
            of("exposures", exposures.map(|n| n.name.as_str()).collect())
        }
        Method::Tag if !has_wildcards(value) => {
            of("tags", graph.nodes.iter().flat_map(|n| n.tags.iter().map(String::as_str)).collect())
        }
        Method::Path => Some("paths are relative to the project: path:queries/gold".to_string()),
        _ => None,
    }
}

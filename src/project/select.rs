//! Selection of models and tests, in dbt's syntax.
//!
//! A selection is a union of words; a word is an intersection of terms joined by commas; a term is `method:value` with graph
//! operators around it: `2+tag:nightly+1`, `@bronze_calls`. Tests are children of what they read: they are selected
//! with any of it, or by their own name.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use glob::{MatchOptions, Pattern};
use serde_json::Value as Json;

use super::problems::suggest;
use super::{DataTest, Dependency, Model, Project, SourceTable};
use crate::error::{Error, Result};

const METHODS: [&str; 11] =
    ["fqn", "name", "path", "file", "tag", "source", "config", "resource_type", "test_name", "test_type", "package"];

/// Names of the models and data tests that `select` chooses (all, when it is empty) and `exclude` does not.
/// A word that names a model or folder which does not exist is an error; one that describes (`tag:`, `config.…:`, wildcards)
/// may match nothing.
pub fn select(project: &Project, select: &[String], exclude: &[String]) -> Result<BTreeSet<String>> {
    let graph = Graph::new(project);
    let all: BTreeSet<usize> = (0..graph.vertices.len()).collect();
    let chosen = if select.iter().all(|s| s.trim().is_empty()) { all } else { graph.union(select, true)? };
    let excluded = graph.union(exclude, false)?;
    let with_tests = graph.with_tests(&chosen);
    Ok(with_tests.difference(&excluded).filter_map(|i| graph.vertices[*i].selectable_name()).collect())
}

/// A model, a source table or a test, with what it reads.
struct Graph<'a> {
    project: &'a Project,
    vertices: Vec<Vertex<'a>>,
    parents: Vec<Vec<usize>>,
    children: Vec<Vec<usize>>,
}

enum Vertex<'a> {
    Model(&'a Model),
    Source(&'a SourceTable),
    Test(&'a DataTest),
}

impl Vertex<'_> {
    fn selectable_name(&self) -> Option<String> {
        match self {
            Vertex::Model(m) => Some(m.name.clone()),
            Vertex::Test(t) => Some(t.name.clone()),
            Vertex::Source(_) => None,
        }
    }

    fn name(&self) -> &str {
        match self {
            Vertex::Model(m) => &m.name,
            Vertex::Source(s) => &s.name,
            Vertex::Test(t) => &t.name,
        }
    }

    fn path(&self) -> &Path {
        match self {
            Vertex::Model(m) => &m.path,
            Vertex::Source(s) => &s.span.file,
            Vertex::Test(t) => &t.path,
        }
    }

    fn tags(&self) -> &[String] {
        match self {
            Vertex::Model(m) => &m.tags,
            Vertex::Test(t) => &t.tags,
            Vertex::Source(_) => &[],
        }
    }
}

/// How far along the graph a term reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    None,
    Steps(usize),
    All,
}

struct Term<'t> {
    method: &'t str,
    /// After the dot in `config.materialized`.
    key: Option<&'t str>,
    value: &'t str,
    parents: Reach,
    children: Reach,
    /// `@`: the descendants, and everything those need.
    whole: bool,
}

impl<'a> Graph<'a> {
    fn new(project: &'a Project) -> Self {
        let mut vertices: Vec<Vertex<'a>> = project.models.iter().map(|m| Vertex::Model(m)).collect();
        vertices.extend(project.sources.iter().map(|s| Vertex::Source(s)));
        vertices.extend(project.tests.iter().map(Vertex::Test));
        let mut index: BTreeMap<Dependency, usize> = BTreeMap::new();
        for (i, vertex) in vertices.iter().enumerate() {
            match vertex {
                Vertex::Model(m) => index.insert(Dependency::Model(m.name.clone()), i),
                Vertex::Source(s) => index.insert(Dependency::Source(s.source.clone(), s.name.clone()), i),
                Vertex::Test(_) => None,
            };
        }
        let mut parents = vec![Vec::new(); vertices.len()];
        let mut children = vec![Vec::new(); vertices.len()];
        for (i, vertex) in vertices.iter().enumerate() {
            let reads: &[Dependency] = match vertex {
                Vertex::Model(m) => &m.depends_on,
                Vertex::Test(t) => &t.depends_on,
                Vertex::Source(_) => &[],
            };
            for parent in reads.iter().filter_map(|d| index.get(d)) {
                parents[i].push(*parent);
                children[*parent].push(i);
            }
        }
        Graph { project, vertices, parents, children }
    }

    fn union(&self, arguments: &[String], must_exist: bool) -> Result<BTreeSet<usize>> {
        let mut union = BTreeSet::new();
        for word in arguments.iter().flat_map(|a| a.split_whitespace()) {
            let mut intersection: Option<BTreeSet<usize>> = None;
            for term in word.split(',') {
                let found = self.term(&parse(term)?, must_exist)?;
                intersection = Some(match intersection {
                    Some(before) => before.intersection(&found).copied().collect(),
                    None => found,
                });
            }
            union.extend(intersection.unwrap_or_default());
        }
        Ok(union)
    }

    fn term(&self, term: &Term<'_>, must_exist: bool) -> Result<BTreeSet<usize>> {
        let matcher = Matcher::new(term, self.project)?;
        let direct: BTreeSet<usize> =
            (0..self.vertices.len()).filter(|i| matcher.matches(&self.vertices[*i])).collect();
        if direct.is_empty() && must_exist {
            self.check_exists(term)?;
        }
        let mut found = direct.clone();
        found.extend(self.reach(&direct, &self.parents, term.parents));
        found.extend(self.reach(&direct, &self.children, term.children));
        if term.whole {
            let below = self.reach(&direct, &self.children, Reach::All);
            found.extend(self.reach(&below, &self.parents, Reach::All));
            found.extend(below);
        }
        Ok(found)
    }

    fn check_exists(&self, term: &Term<'_>) -> Result<()> {
        if term.value.contains(['*', '?', '[']) {
            return Ok(());
        }
        let (what, names): (&str, Vec<&str>) = match term.method {
            "fqn" | "name" | "file" => ("models", self.project.models.iter().map(|m| m.name.as_str()).collect()),
            "source" => ("sources", self.project.sources.iter().map(|s| s.source.as_str()).collect()),
            "path" => {
                return Err(Error::user("empty-selection", format!("no model is at `{}`", term.value))
                    .with_hint("paths are relative to the project: path:queries/gold"));
            }
            _ => return Ok(()),
        };
        let names: BTreeSet<&str> = names.into_iter().collect();
        Err(Error::user("empty-selection", format!("nothing is called `{}`", term.value))
            .with_hint(suggest(term.value, names, what)))
    }

    /// Everything within `reach` of `from`, without `from` itself unless it is reached.
    fn reach(&self, from: &BTreeSet<usize>, edges: &[Vec<usize>], reach: Reach) -> BTreeSet<usize> {
        let limit = match reach {
            Reach::None => return BTreeSet::new(),
            Reach::Steps(n) => n,
            Reach::All => usize::MAX,
        };
        let mut found = from.clone();
        let mut queue: VecDeque<(usize, usize)> = from.iter().map(|i| (*i, 0)).collect();
        while let Some((at, steps)) = queue.pop_front() {
            if steps == limit {
                continue;
            }
            for next in &edges[at] {
                if found.insert(*next) {
                    queue.push_back((*next, steps + 1));
                }
            }
        }
        found
    }

    fn with_tests(&self, chosen: &BTreeSet<usize>) -> BTreeSet<usize> {
        let is_test = |i: &usize| matches!(self.vertices[*i], Vertex::Test(_));
        let tests = chosen.iter().flat_map(|i| &self.children[*i]).copied().filter(is_test);
        chosen.iter().copied().chain(tests).collect()
    }
}

/// `@`, `2+`, `method:value`, `+1`.
fn parse(term: &str) -> Result<Term<'_>> {
    let bad = |message: String| {
        Error::user("bad-selection", message)
            .with_hint("write name, +name, name+2, tag:x, path:queries/gold, source:x+, config.materialized:view")
    };
    let (whole, rest) = match term.strip_prefix('@') {
        Some(rest) => (true, rest),
        None => (false, term),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let steps = |text: &str| match text {
        "" => Ok(Reach::All),
        n => n.parse().map(Reach::Steps).map_err(|_| bad(format!("bad selection `{term}`"))),
    };
    let (parents, rest) = match rest.split_once('+') {
        Some((number, rest)) if digits(number) => (steps(number)?, rest),
        _ => (Reach::None, rest),
    };
    let (rest, children) = match rest.rsplit_once('+') {
        Some((rest, number)) if digits(number) => (rest, steps(number)?),
        _ => (rest, Reach::None),
    };
    let (method, value) = match rest.split_once(':') {
        Some((method, value)) => (method, value),
        // As in dbt: a path looks like one.
        None if rest.contains('/') || rest.ends_with(".sql") => {
            (if rest.contains('/') { "path" } else { "file" }, rest)
        }
        None => ("fqn", rest),
    };
    if value.is_empty() {
        return Err(bad(format!("nothing is named in the selection `{term}`")));
    }
    let (method, key) = match method.split_once('.') {
        Some((method, key)) => (method, Some(key)),
        None => (method, None),
    };
    if !METHODS.contains(&method) {
        let hint = match method {
            "state" | "result" | "source_status" | "exposure" | "metric" | "selector" => {
                "this version of smelt does not have it".to_string()
            }
            _ => suggest(method, METHODS, "methods"),
        };
        return Err(Error::user("bad-selection", format!("unknown selection method `{method}`")).with_hint(hint));
    }
    if (method == "config") != key.is_some() {
        return Err(bad(format!("bad selection `{term}`")));
    }
    Ok(Term { method, key, value, parents, children, whole })
}

struct Matcher<'t> {
    term: &'t Term<'t>,
    pattern: Pattern,
    project: &'t Project,
}

const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: false, require_literal_separator: false, require_literal_leading_dot: false };

impl<'t> Matcher<'t> {
    fn new(term: &'t Term<'t>, project: &'t Project) -> Result<Self> {
        let value = match term.method {
            "path" => term.value.trim_start_matches("./").trim_end_matches('/'),
            _ => term.value,
        };
        let pattern = Pattern::new(value)
            .map_err(|e| Error::user("bad-selection", format!("bad pattern `{}`: {}", term.value, e.msg)))?;
        Ok(Matcher { term, pattern, project })
    }

    fn is(&self, text: &str) -> bool {
        self.pattern.matches_with(text, OPTIONS)
    }

    fn matches(&self, vertex: &Vertex<'_>) -> bool {
        match self.term.method {
            "fqn" => !matches!(vertex, Vertex::Source(_)) && self.fqn(vertex),
            "name" => !matches!(vertex, Vertex::Source(_)) && self.is(vertex.name()),
            // A model, or any folder above it.
            "path" => vertex.path().ancestors().any(|a| self.is(&a.to_string_lossy())),
            "file" => {
                let file = vertex.path().file_name().map(|f| f.to_string_lossy()).unwrap_or_default();
                self.is(&file) || self.is(file.split('.').next().unwrap_or(""))
            }
            "tag" => vertex.tags().iter().any(|t| self.is(t)),
            "source" => match vertex {
                Vertex::Source(s) => match self.term.value.split_once('.') {
                    Some(_) => self.is(&format!("{}.{}", s.source, s.name)),
                    None => self.is(&s.source),
                },
                _ => false,
            },
            "config" => match vertex {
                Vertex::Model(m) => self.config(m),
                _ => false,
            },
            "resource_type" => match vertex {
                Vertex::Model(_) => self.is("model"),
                Vertex::Source(_) => self.is("source"),
                Vertex::Test(_) => self.is("test"),
            },
            "test_type" => match vertex {
                Vertex::Test(t) => {
                    let singular = t.path.extension().is_some_and(|e| e == "sql");
                    self.is("data") || self.is(if singular { "singular" } else { "generic" })
                }
                _ => false,
            },
            "test_name" => {
                matches!(vertex, Vertex::Test(t) if self.is(&t.name) || t.name.starts_with(&format!("{}_", self.term.value)))
            }
            "package" => self.is(&self.project.name) || self.term.value == "this",
            _ => false,
        }
    }

    /// The name, or the folders above it from the top, with dots: `bronze`, `bronze.telco`, `telecom.bronze.calls`.
    fn fqn(&self, vertex: &Vertex<'_>) -> bool {
        if self.is(vertex.name()) {
            return true;
        }
        let Vertex::Model(model) = vertex else { return false };
        let folders =
            model.path.parent().map(|p| p.components().skip(1).map(|c| c.as_os_str().to_string_lossy().into_owned()));
        let mut fqn = vec![self.project.name.clone()];
        fqn.extend(folders.into_iter().flatten());
        fqn.push(model.name.clone());
        let parts: Vec<Pattern> = self.term.value.split('.').filter_map(|part| Pattern::new(part).ok()).collect();
        let starts = |fqn: &[String]| {
            parts.len() <= fqn.len() && parts.iter().zip(fqn).all(|(part, name)| part.matches_with(name, OPTIONS))
        };
        starts(&fqn) || starts(&fqn[1..])
    }

    fn config(&self, model: &Model) -> bool {
        let key = self.term.key.unwrap_or("");
        match key {
            "materialized" => self.is(model.materialized.name()),
            "schema" => self.is(&model.schema),
            "alias" => self.is(&model.alias),
            "tags" => model.tags.iter().any(|t| self.is(t)),
            _ => {
                let mut parts = key.split('.');
                let first = parts.next().and_then(|k| model.config.all.get(k));
                parts.fold(first, |value, part| value.and_then(|v| v.get(part))).is_some_and(|v| self.value_matches(v))
            }
        }
    }

    fn value_matches(&self, value: &Json) -> bool {
        match value {
            Json::String(s) => self.is(s),
            Json::Array(items) => items.iter().any(|i| self.value_matches(i)),
            Json::Object(members) => members.contains_key(self.term.value),
            other => self.is(&other.to_string()),
        }
    }
}

//! Unit tests: a model's query over rows written in YAML, and the rows it must give. The format is dbt's, and goes on where
//! dbt's ends: `then:` lists further changes of the inputs, each with what the table must hold after it.
//!
//! 1. [`Maker`] renders the model once more, with the test's overrides of macros, variables and environment.
//! 2. [`rows`] reads what is given and expected: mappings, CSV or SQL, in the YAML or in a fixture file.
//!
//! What comes out knows no types yet: those of the inputs are known when the project is compiled.

mod rows;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value as Json;

use super::config;
use super::data_tests::short_name;
use super::graph::Names;
use super::jinja::{Engine, Globals, Relation, Rendered, Resolve, Scope, Template};
use super::problems::{Problems, suggest};
use super::sources::named;
use super::yaml::{Node, Text, Value};
use super::{Dependency, Materialization, SourceMap};
use crate::error::Span;
use crate::types::parse_instant;

const KEYS: &[&str] =
    &["name", "model", "description", "now", "given", "expect", "then", "overrides", "config", "tags", "versions"];
const CONFIG_KEYS: &[&str] = &["enabled", "tags", "meta"];
const STEP_KEYS: &[&str] = &["description", "now", "given", "expect"];
const GIVEN_KEYS: &[&str] = &["input", "rows", "format", "fixture", "key"];
const EXPECT_KEYS: &[&str] = &["rows", "format", "fixture"];

/// A unit test of a model.
#[derive(Debug, Clone)]
pub struct UnitTest {
    pub name: String,
    /// dbt's: `unit_test.<package>.<model>.<name>`.
    pub unique_id: String,
    pub package: String,
    /// `[package, folder, …, model, name]`.
    pub fqn: Vec<String>,
    /// Name of the model it tests.
    pub model: String,
    pub description: Option<String>,
    pub tags: Vec<String>,
    /// The properties file, relative to the project.
    pub path: PathBuf,
    pub span: Span,
    /// The model's SQL under the test's overrides.
    pub sql: String,
    pub source_map: SourceMap,
    /// What that SQL reads.
    pub depends_on: Vec<Dependency>,
    /// Whether it reads the model's own table.
    pub reads_this: bool,
    /// Never empty: the first is `given` and `expect`, the others are those of `then`.
    pub steps: Vec<UnitStep>,
    /// `config:` as written, for the manifest.
    pub config: BTreeMap<String, Json>,
    /// `overrides:` as written, for the manifest.
    pub overrides: Option<Json>,
}

/// A change of the inputs, and what the table must hold after it.
#[derive(Debug, Clone)]
pub struct UnitStep {
    /// Where the clock stands from this step on, µs; None: where it stood.
    pub now: Option<i64>,
    pub given: Vec<UnitInput>,
    /// Where the expected rows begin.
    pub span: Span,
    pub expect: UnitRows,
}

/// How one input changes.
#[derive(Debug, Clone)]
pub struct UnitInput {
    pub relation: UnitRelation,
    /// Columns by which `_op: update` finds its row.
    pub key: Vec<String>,
    pub rows: UnitRows,
    pub span: Span,
}

/// What an input is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitRelation {
    Read(Dependency),
    /// The model's own table.
    This,
}

/// Rows as they are written.
#[derive(Debug, Clone)]
pub enum UnitRows {
    Values(Vec<UnitRow>),
    /// A query that reads nothing.
    Query {
        sql: String,
        source_map: SourceMap,
    },
}

/// A row: what it does, and its values by column. Columns that are not named are NULL.
#[derive(Debug, Clone)]
pub struct UnitRow {
    pub op: UnitOp,
    pub cells: Vec<UnitCell>,
    pub span: Span,
}

#[derive(Debug, Clone)]
pub struct UnitCell {
    pub column: String,
    /// Text stands for any scalar.
    pub value: Json,
    pub span: Span,
}

/// What a given row does to its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitOp {
    /// Comes so many times; negative: exactly this row goes so many times.
    Weight(i64),
    /// All rows that have these values go.
    Delete,
    /// The row with this key takes these values.
    Update,
    /// This is now the row with its key.
    Upsert,
}

/// A unit test as a properties file declares it.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    pub node: Node,
    pub package: String,
}

/// The model a unit test is about.
pub(super) struct Subject<'a> {
    /// What the project knows it by.
    pub key: &'a str,
    pub name: &'a str,
    pub template: &'a Template,
    pub materialized: Materialization,
    pub config: BTreeMap<String, Json>,
}

/// Makes unit tests for one project.
pub(super) struct Maker<'a> {
    pub engine: &'a Engine,
    pub globals: &'a Arc<Globals>,
    pub names: &'a Arc<Names>,
    /// Files below `fixtures` of the test paths.
    pub fixtures: &'a [Arc<Text>],
}

impl Maker<'_> {
    /// The unit test of `declared`; `None` with the reasons recorded, or where it is disabled.
    pub fn make(&self, declared: &Declared, subjects: &[Subject<'_>], p: &mut Problems) -> Option<UnitTest> {
        let node = &declared.node;
        if !node.check_keys("a unit test", KEYS, p) {
            return None;
        }
        let name = named(node, "a unit test", p)?;
        let mut config = node.get("config").map(|n| config::read(n, CONFIG_KEYS, p)).unwrap_or_default();
        if let Some(tags) = node.get("tags") {
            let setting = config::Setting::of(tags);
            config::merge(&mut config, &[("tags".to_string(), setting)].into());
        }
        let enabled = config.get("enabled").and_then(|s| s.boolean("enabled", p)).unwrap_or(true);
        let subject = self.subject(node, &name, subjects, p)?;
        if !enabled {
            return None;
        }
        let (rendered, scope) = self.render(node, subject, p)?;
        let steps = self.steps(node, subject, &name, &scope, p)?;
        let path = node.text.file.clone();
        Some(UnitTest {
            unique_id: format!("unit_test.{}.{}.{name}", declared.package, subject.name),
            package: declared.package.clone(),
            fqn: Vec::new(),
            model: subject.key.to_string(),
            description: node.get("description").and_then(|n| n.text("description", p)),
            tags: config.get("tags").map_or_else(Vec::new, |s| s.texts("tags", p)),
            path,
            span: node.get("name").unwrap_or(node).span(),
            sql: rendered.sql,
            source_map: rendered.source_map,
            depends_on: scope.mentions().into_iter().map(|(dependency, _)| dependency).collect(),
            reads_this: scope.used_this(),
            steps,
            overrides: node.get("overrides").map(Node::json),
            config: config.into_iter().map(|(k, s)| (k, s.value)).collect(),
            name,
        })
    }

    fn subject<'s>(
        &self,
        node: &Node,
        name: &str,
        subjects: &'s [Subject<'s>],
        p: &mut Problems,
    ) -> Option<&'s Subject<'s>> {
        let Some(model) = node.get("model") else {
            let message = format!("unit test `{name}` names no model");
            p.error("missing-model", node.span(), message, "add model: silver_calls");
            return None;
        };
        let written = model.text("model", p)?;
        let found = subjects.iter().find(|s| s.name.eq_ignore_ascii_case(&written));
        let Some(found) = found else {
            let hint = suggest(&written, subjects.iter().map(|s| s.name), "models");
            p.error("unknown-model", model.span(), format!("unit test `{name}`: no model `{written}`"), hint);
            return None;
        };
        if found.materialized == Materialization::Snapshot {
            let message = format!("unit test `{name}` is on a snapshot, which keeps whatever its query returns");
            p.error("unit-test-on-snapshot", model.span(), message, "test the model that the snapshot reads");
            return None;
        }
        Some(found)
    }

    /// The model's SQL under the overrides of the test.
    fn render(&self, node: &Node, subject: &Subject<'_>, p: &mut Problems) -> Option<(Rendered, Arc<Scope>)> {
        let mut globals = Globals::clone(self.globals);
        let mut macros: BTreeMap<String, Json> = BTreeMap::new();
        if let Some(overrides) = node.get("overrides") {
            if !overrides.check_keys("overrides", &["macros", "vars", "env_vars"], p) {
                return None;
            }
            let entries = |key: &str| {
                let entries = overrides.get(key).map_or(&[][..], Node::entries);
                entries.iter().map(|e| (e.key.clone(), e.value.json()))
            };
            globals.vars.extend(entries("vars"));
            let text = |v: Json| v.as_str().map_or_else(|| v.to_string(), str::to_string);
            globals.env_overrides.extend(entries("env_vars").map(|(name, value)| (name, text(value))));
            macros.extend(entries("macros"));
        }
        let this = self.names.own_relation(subject.key)?;
        let resolve: Arc<dyn Resolve> = Arc::clone(self.names) as Arc<dyn Resolve>;
        let scope = Scope::compiling(&Arc::new(globals), resolve, Some(this), subject.config.clone(), false);
        scope.override_macros(macros);
        let rendered = p.ok(self.engine.render(subject.template, &scope));
        let first = subject.template.text.span(0, 1);
        for (error, site) in scope.take_unresolved() {
            let span = site.map_or_else(|| first.clone(), |s| self.engine.site_span(subject.template, s));
            p.errors.push(error.with_span(span));
        }
        Some((rendered?, scope))
    }

    fn steps(
        &self,
        node: &Node,
        subject: &Subject<'_>,
        name: &str,
        scope: &Arc<Scope>,
        p: &mut Problems,
    ) -> Option<Vec<UnitStep>> {
        let mut steps = vec![self.step(node, subject, name, scope, true, p)?];
        for step in node.get("then").map_or(&[][..], |n| n.items("then", p)) {
            if !step.check_keys("a step of `then`", STEP_KEYS, p) {
                return None;
            }
            let next = self.step(step, subject, name, scope, false, p)?;
            if let Some(now) = next.now
                && steps.iter().filter_map(|earlier| earlier.now).next_back().is_some_and(|before| now < before)
            {
                let message = format!("unit test `{name}`: `now` is earlier than in the step before");
                p.error("bad-now", step.get("now").unwrap_or(step).span(), message, "a clock does not go back");
                return None;
            }
            steps.push(next);
        }
        Some(steps)
    }

    fn step(
        &self,
        node: &Node,
        subject: &Subject<'_>,
        name: &str,
        scope: &Arc<Scope>,
        first: bool,
        p: &mut Problems,
    ) -> Option<UnitStep> {
        let mut given: Vec<UnitInput> = Vec::new();
        for item in node.get("given").map_or(&[][..], |n| n.items("given", p)) {
            let input = self.input(item, subject, first, p)?;
            if given.iter().any(|g| g.relation == input.relation) {
                let message = format!("unit test `{name}`: this input is given twice");
                p.error("duplicate-input", input.span, message, "put the rows together");
                return None;
            }
            given.push(input);
        }
        let Some(expect) = node.get("expect") else {
            let message = format!("unit test `{name}` expects nothing");
            p.error("missing-expect", node.span(), message, "add expect: {rows: [{id: 1}]}, or rows: [] for none");
            return None;
        };
        if !expect.check_keys("expect", EXPECT_KEYS, p) {
            return None;
        }
        if first {
            self.check_given(node, name, &given, scope, p);
        }
        let rows = rows::read(expect, self.fixtures, rows::Use::Expected, p)?;
        let now = match node.get("now") {
            None => None,
            Some(written) => {
                let text = written.text("now", p)?;
                let instant = parse_instant(&text);
                if instant.is_none() {
                    let message = format!("unit test `{name}`: `{text}` is no date or time");
                    p.error("bad-now", written.span(), message, "write now: 2026-01-05 06:00:00");
                    return None;
                }
                instant
            }
        };
        Some(UnitStep { now, given, span: expect.get("rows").unwrap_or(expect).span(), expect: rows })
    }

    fn input(&self, item: &Node, subject: &Subject<'_>, first: bool, p: &mut Problems) -> Option<UnitInput> {
        if !item.check_keys("an input", GIVEN_KEYS, p) {
            return None;
        }
        let Some(input) = item.get("input") else {
            let hint = "add input: ref('x'), source('s', 't') or this";
            p.error("missing-input", item.span(), "these rows belong to no input", hint);
            return None;
        };
        let written = input.text("input", p)?;
        let call = written.trim().trim_start_matches("{{").trim_end_matches("}}").trim();
        let relation = match call {
            "this" => UnitRelation::This,
            _ if call.starts_with("ref") || call.starts_with("source") => {
                let resolve: Arc<dyn Resolve> = Arc::clone(self.names) as Arc<dyn Resolve>;
                let scope = Scope::compiling(self.globals, resolve, None, BTreeMap::new(), false);
                let value = p.ok(self.engine.evaluate(call, input, &scope))?;
                if let Some((error, _)) = scope.take_unresolved().into_iter().next() {
                    p.errors.push(error.with_span(input.span()));
                    return None;
                }
                let found = value.downcast_object_ref::<Relation>().and_then(|r| r.dependency.clone());
                match found {
                    Some(Dependency::Model(name)) if name == subject.key => UnitRelation::This,
                    Some(dependency) => UnitRelation::Read(dependency),
                    None => return None,
                }
            }
            other => {
                let message = format!("`input` must be ref('…'), source('…', '…') or this, found `{other}`");
                p.error("bad-input", input.span(), message, format!("write input: ref('{other}')"));
                return None;
            }
        };
        let key = item.get("key").and_then(|n| n.texts("key", p)).unwrap_or_default();
        let use_ = if first { rows::Use::First } else { rows::Use::Change { keyed: !key.is_empty() } };
        let rows = rows::read(item, self.fixtures, use_, p)?;
        Some(UnitInput { relation, key, rows, span: input.span() })
    }

    /// Every input must be given, as dbt has it: rows that are forgotten make a test that means something else.
    fn check_given(&self, node: &Node, name: &str, given: &[UnitInput], scope: &Scope, p: &mut Problems) {
        let span = node.get("given").unwrap_or(node).span();
        for (dependency, _) in scope.mentions() {
            if given.iter().all(|g| g.relation != UnitRelation::Read(dependency.clone())) {
                let call = match &dependency {
                    Dependency::Model(model) => format!("ref('{model}')"),
                    Dependency::Source(source, table) => format!("source('{source}', '{table}')"),
                };
                let message = format!("unit test `{name}` gives no rows of {call}, which the model reads");
                p.error("missing-input", span.clone(), message, format!("add - input: {call} with rows: []"));
            }
        }
        if scope.used_this() && given.iter().all(|g| g.relation != UnitRelation::This) {
            let message = format!("unit test `{name}` gives no rows of `this`, which the model reads");
            p.error("missing-input", span, message, "add - input: this with rows: []");
        }
    }
}

/// Reads the `unit_tests:` of a properties file.
pub(super) fn declared(root: &Node, package: &str, p: &mut Problems) -> Vec<Declared> {
    let items = root.get("unit_tests").map_or(&[][..], |n| n.items("unit_tests", p));
    let mappings = items.iter().filter(|n| matches!(n.value, Value::Map(_)));
    mappings.map(|node| Declared { node: node.clone(), package: package.to_string() }).collect()
}

/// Where the SQL of a unit test stands below `target/compiled`.
pub fn unit_test_path(test: &UnitTest) -> PathBuf {
    test.path.join(&test.model).join(format!("{}.sql", short_name(&test.name)))
}

//! Data tests: each becomes a query whose rows are the failures.
//!
//! Generic tests stand on models, sources and their columns in properties files; four are built in, and a macro
//! `test_NAME` (or dbt's `{% test NAME(model, column_name) %}`) makes another, or takes a built-in one's place. Singular
//! tests are files. Names are dbt's.
//!
//! [`settings`] reads how a test is judged, [`sql`] makes its query.

mod settings;
mod sql;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;

use super::answers::WAITS;
use super::config::{self, RawConfig, Setting};
use super::graph::Names;
use super::jinja::{Engine, Globals, Relation, Rendered, Resolve, Scope, map_to_node};
use super::problems::Problems;
use super::sources::DeclaredTable;
use super::test_names::{GenericTest, Target};
use super::yaml::{Node, Value};
use super::{DataTest, Dependency, TestMetadata};
use crate::error::{Error, Span};
use settings::Settings;
pub(in crate::project) use settings::{CONFIG_KEYS, short_name};
pub use settings::{StoreFailures, TestConfig};
use sql::{Body, column_sql};

const BUILT_IN: [&str; 4] = ["not_null", "unique", "accepted_values", "relationships"];

/// Makes tests for one project.
pub(super) struct Maker<'a> {
    pub engine: &'a Engine,
    pub globals: &'a Arc<Globals>,
    pub names: &'a Arc<Names>,
    /// The project or package the tests belong to.
    pub package: &'a str,
    /// `data_tests:` of the project file.
    pub defaults: RawConfig,
    /// `data_tests:` of the root project, for a package's tests.
    pub overrides: RawConfig,
    /// The package's folder below the project's.
    pub folder: &'a Path,
}

/// What a test is about.
struct Subject<'a> {
    target: Target<'a>,
    relation: Relation,
    model: Option<String>,
}

/// A test as written.
struct Written<'a> {
    test: String,
    name: Option<String>,
    arguments: Vec<(String, &'a Node)>,
    config: RawConfig,
    node: &'a Node,
}

impl Maker<'_> {
    /// The tests in the properties of the model `name`, which the project knows by `key`.
    pub fn of_model(&self, key: &str, name: &str, node: &Node, p: &mut Problems) -> Vec<DataTest> {
        let Some(relation) = self.names.read_relation(key) else { return Vec::new() };
        let subject = Subject { target: Target::Node(name), relation, model: Some(key.to_string()) };
        self.of_subject(&subject, node, p)
    }

    /// The tests in a source table's declaration.
    pub fn of_source(&self, source: &DeclaredTable, p: &mut Problems) -> Vec<DataTest> {
        let table = &source.table;
        let relation = self.names.source_relation(&table.source, &table.name);
        let subject = Subject { target: Target::Source(table.source_name(), &table.name), relation, model: None };
        self.of_subject(&subject, &source.node, p)
    }

    fn of_subject(&self, subject: &Subject<'_>, node: &Node, p: &mut Problems) -> Vec<DataTest> {
        let mut tests = Vec::new();
        for list in ["data_tests", "tests"] {
            for item in node.get(list).map_or(&[][..], |n| n.items(list, p)) {
                tests.extend(self.one(subject, None, item, p));
            }
        }
        for column in node.get("columns").map_or(&[][..], |n| match &n.value {
            Value::Seq(items) => items,
            _ => &[],
        }) {
            let Some(name) = column.get("name").and_then(Node::as_str) else { continue };
            let quote = column.get("quote").is_some_and(|q| matches!(q.value, Value::Bool(true)));
            for list in ["data_tests", "tests"] {
                for item in column.get(list).map_or(&[][..], |n| n.items(list, p)) {
                    tests.extend(self.one(subject, Some((name, quote)), item, p));
                }
            }
        }
        tests
    }

    fn one(
        &self,
        subject: &Subject<'_>,
        column: Option<(&str, bool)>,
        item: &Node,
        p: &mut Problems,
    ) -> Option<DataTest> {
        let written = written(item, p)?;
        let generic = generic_test(subject, &written, column);
        let name = written.name.clone().unwrap_or_else(|| generic.name());
        let mut raw = self.defaults.clone();
        config::merge(&mut raw, &written.config);
        config::merge(&mut raw, &self.overrides);
        let short = written.name.clone().unwrap_or_else(|| generic.short_name());
        let mut settings = Settings::of(&short, &raw, p);
        if !settings.enabled {
            return None;
        }
        let column_sql = self.column(subject, &written, column, p)?;
        let resolve: Arc<dyn Resolve> = Arc::clone(self.names) as Arc<dyn Resolve>;
        let scope = Scope::compiling(self.globals, resolve, None, std::collections::BTreeMap::new(), false);
        let render = |filter: Option<&Setting>, p: &mut Problems| {
            let from = self.tested(subject, filter, item, &scope, p)?;
            let (written, column, filtered) = (&written, column_sql.clone(), filter.is_some());
            Body { maker: self, written, scope: &scope, from, filtered, column, subject }.sql(p)
        };
        let mut sql = render(settings.filter.as_ref(), p);
        // What the test's own block configures stands below what its use says.
        let own = scope.configs();
        if !own.is_empty() {
            let mut raw = self.defaults.clone();
            for (key, value) in own.into_iter().flat_map(|call| call.values) {
                raw.insert(key, Setting::new(value, item.span()));
            }
            config::merge(&mut raw, &written.config);
            config::merge(&mut raw, &self.overrides);
            let before = settings.filter.take().map(|s| s.value);
            settings = Settings::of(&short, &raw, p);
            if settings.filter.as_ref().map(|s| &s.value) != before.as_ref() {
                sql = render(settings.filter.as_ref(), p);
            }
        }
        for (error, _) in scope.take_unresolved() {
            p.errors.push(error.with_span(written.argument("to").unwrap_or(written.node).span()));
        }
        let (sql, waits) = match sql {
            Some(sql) => (sql, None),
            // Not an error: it is rendered again once the lake can be asked. What fails when it is rendered for good fails alone.
            None => {
                let answers = self.globals.answers.is_some();
                let is_answered = answers && scope.asked_rows();
                let fails_alone = |e: &mut Error| match (e.code(), answers) {
                    (WAITS, _) => true,
                    // It may ask for columns first, once they are known.
                    ("raised", false) => true,
                    ("raised" | "jinja", true) => is_answered || self.globals.which != "compile",
                    _ => is_answered,
                };
                (String::new(), Some(p.errors.pop_if(fails_alone)?))
            }
        };
        let mut depends_on: Vec<Dependency> = subject.relation.dependency.iter().cloned().collect();
        for (dependency, _) in scope.mentions() {
            if !depends_on.contains(&dependency) {
                depends_on.push(dependency);
            }
        }
        let arguments = written.arguments.iter().map(|(name, node)| (name.clone(), node.json()));
        settings.enabled.then(|| DataTest {
            unique_id: generic.unique_id(self.package, &name),
            package: self.package.to_string(),
            fqn: self.fqn(&item.text.file, &name),
            name,
            model: subject.model.clone(),
            waits,
            source_map: map_to_node(&sql, written.node),
            sql,
            depends_on,
            severity: settings.severity,
            path: item.text.file.clone(),
            tags: settings.tags,
            config: settings.config,
            test_name: Some(generic.test.to_string()),
            generic: Some(TestMetadata {
                namespace: generic.namespace.map(str::to_string),
                column: column.map(|(name, _)| name.to_string()),
                arguments: arguments.collect(),
            }),
        })
    }

    /// What follows FROM: the table, or those of its rows that `filter` takes.
    fn tested(
        &self,
        subject: &Subject<'_>,
        filter: Option<&Setting>,
        item: &Node,
        scope: &Arc<Scope>,
        p: &mut Problems,
    ) -> Option<String> {
        let Some(setting) = filter else { return Some(subject.relation.to_string()) };
        let text = setting.text("where", p)?;
        let condition = p.ok(self.engine.render_text(&text, item, scope))?;
        Some(format!("(select * from {} where {condition}) as tested", subject.relation))
    }

    /// `[package, folder, …, name]`: dbt takes the folders of the file that declares the test, without the first.
    fn fqn(&self, file: &Path, name: &str) -> Vec<String> {
        let file = file.strip_prefix(self.folder).unwrap_or(file);
        let folders = file.parent().into_iter().flat_map(Path::components).skip(1);
        let folders = folders.map(|c| c.as_os_str().to_string_lossy().into_owned());
        [self.package.to_string()].into_iter().chain(folders).chain([name.to_string()]).collect()
    }

    /// The column a test is about, as SQL; empty for a test of the whole table.
    fn column(
        &self,
        subject: &Subject<'_>,
        written: &Written<'_>,
        column: Option<(&str, bool)>,
        p: &mut Problems,
    ) -> Option<String> {
        if let Some((name, quote)) = column {
            return Some(column_sql(name, quote, subject.relation.quote));
        }
        match written.argument("column_name") {
            // An expression of several columns is allowed here: `column_name: "user_id || event_date"`.
            Some(node) => node.text("column_name", p),
            None if BUILT_IN.contains(&written.test.as_str()) && self.macro_of(&written.test).is_none() => {
                let message = format!("`{}` stands on a whole table and names no column", written.test);
                p.error(
                    "missing-argument",
                    written.node.span(),
                    message,
                    "put it on a column, or add arguments: {column_name: …}",
                );
                None
            }
            None => Some(String::new()),
        }
    }
}

impl Written<'_> {
    fn argument(&self, name: &str) -> Option<&Node> {
        self.arguments.iter().find(|(n, _)| n == name).map(|(_, node)| *node)
    }
}

/// `not_null`, `accepted_values: {values: […]}`, or `{name: …, test_name: …, arguments: …}`.
fn written<'a>(item: &'a Node, p: &mut Problems) -> Option<Written<'a>> {
    let mut written =
        Written { test: String::new(), name: None, arguments: Vec::new(), config: RawConfig::new(), node: item };
    let body = match &item.value {
        Value::Str(name) => {
            written.test = name.clone();
            return Some(written);
        }
        Value::Map(_) if item.get("test_name").is_some() => {
            written.test = item.get("test_name")?.text("test_name", p)?;
            item
        }
        Value::Map(entries) => match entries.as_slice() {
            [entry] => {
                written.test = entry.key.clone();
                &entry.value
            }
            [first, second, ..] => {
                let span = item.span_of(second.key_mark);
                p.error(
                    "bad-test",
                    span,
                    format!("`{}` stands beside the data test `{}`", second.key, first.key),
                    "indent it below the test's name",
                );
                return None;
            }
            [] => return None,
        },
        _ => {
            p.error(
                "wrong-type",
                item.span(),
                format!("a data test must be a name or a mapping, found {}", item.kind()),
                "",
            );
            return None;
        }
    };
    if !matches!(body.value, Value::Map(_) | Value::Null) {
        p.error(
            "wrong-type",
            body.span(),
            format!("`{}` must be a mapping of arguments, found {}", written.test, body.kind()),
            "",
        );
        return None;
    }
    for entry in body.entries() {
        match entry.key.as_str() {
            "name" => written.name = entry.value.text("name", p),
            "test_name" | "description" => {}
            "arguments" => written.arguments.extend(entry.value.entries().iter().map(|e| (e.key.clone(), &e.value))),
            "config" => config::merge(&mut written.config, &config::read(&entry.value, CONFIG_KEYS, p)),
            key if CONFIG_KEYS.contains(&key) => {
                written.config.insert(key.to_string(), Setting::of(&entry.value));
            }
            key => written.arguments.push((key.to_string(), &entry.value)),
        }
    }
    Some(written)
}

/// What dbt names the test by.
fn generic_test<'a>(
    subject: &'a Subject<'a>,
    written: &'a Written<'_>,
    column: Option<(&str, bool)>,
) -> GenericTest<'a> {
    let (namespace, test) = match written.test.split_once('.') {
        Some((namespace, test)) => (Some(namespace), test),
        None => (None, written.test.as_str()),
    };
    let mut arguments: Vec<(String, Json)> =
        written.arguments.iter().map(|(name, node)| (name.clone(), node.json())).collect();
    if let Some((column, quote)) = column {
        let mark = subject.relation.quote;
        let column = if quote { format!("{mark}{column}{mark}") } else { column.to_string() };
        arguments.push(("column_name".to_string(), Json::from(column)));
    }
    GenericTest { namespace, test, target: subject.target, arguments }
}

/// The test of a file in the test path; `fqn` ends in its name.
pub(super) fn singular(
    fqn: Vec<String>,
    rendered: Rendered,
    reads: Vec<(Dependency, Span)>,
    config: &RawConfig,
    path: &Path,
    p: &mut Problems,
) -> Option<DataTest> {
    let name = fqn.last().cloned().unwrap_or_default();
    let package = fqn.first().cloned().unwrap_or_default();
    let settings = Settings::of(&name, config, p);
    if let Some(setting) = &settings.filter {
        p.warn(
            "ignored-config",
            setting.span.clone(),
            "`where` has no effect on a test that is a file",
            "write the condition into its SQL",
        );
    }
    let models: Vec<&String> = reads
        .iter()
        .filter_map(|(d, _)| match d {
            Dependency::Model(name) => Some(name),
            Dependency::Source(..) => None,
        })
        .collect();
    let model = match models.as_slice() {
        [one] => Some(one.to_string()),
        _ => None,
    };
    settings.enabled.then(|| DataTest {
        unique_id: format!("test.{package}.{name}"),
        name,
        package,
        fqn,
        model,
        waits: None,
        sql: rendered.sql,
        source_map: rendered.source_map,
        depends_on: reads.into_iter().map(|(d, _)| d).collect(),
        severity: settings.severity,
        path: path.to_path_buf(),
        tags: settings.tags,
        config: settings.config,
        test_name: None,
        generic: None,
    })
}

//! Data tests: each becomes a query whose rows are the failures.
//!
//! Generic tests stand on models, sources and their columns in properties files; four are built in, and a macro
//! `test_NAME` (or dbt's `{% test NAME(model, column_name) %}`) makes another. Singular tests are files. Names are dbt's.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;

use super::config::{self, RawConfig, Setting};
use super::graph::Names;
use super::jinja::{Engine, Globals, Relation, Rendered, Resolve, Scope, map_to_node};
use super::problems::{Problems, suggest};
use super::sources::DeclaredTable;
use super::test_names::{GenericTest, Target};
use super::yaml::{Node, Value};
use super::{Connector, DataTest, Dependency, Severity};
use crate::error::Span;

const BUILT_IN: [&str; 4] = ["not_null", "unique", "accepted_values", "relationships"];

/// Keys of a test's body that are not arguments.
const CONFIG_KEYS: &[&str] = &[
    "severity",
    "where",
    "tags",
    "enabled",
    "limit",
    "store_failures",
    "store_failures_as",
    "warn_if",
    "error_if",
    "fail_calc",
    "meta",
    "schema",
    "database",
    "alias",
    "group",
];

/// Makes tests for one project.
pub(super) struct Maker<'a> {
    pub engine: &'a Engine,
    pub globals: &'a Arc<Globals>,
    pub names: &'a Arc<Names>,
    /// The project or package the tests belong to.
    pub package: &'a str,
    /// `data_tests:` of the project file.
    pub defaults: RawConfig,
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
    /// The tests in a model's properties.
    pub fn of_model(&self, model: &str, node: &Node, p: &mut Problems) -> Vec<DataTest> {
        let Ok(relation) = self.names.model(None, model) else { return Vec::new() };
        let subject = Subject { target: Target::Node(model), relation, model: Some(model.to_string()) };
        self.of_subject(&subject, node, p)
    }

    /// The tests in a source table's declaration.
    pub fn of_source(&self, source: &DeclaredTable, p: &mut Problems) -> Vec<DataTest> {
        let table = &source.table;
        let Ok(relation) = self.names.source(&table.source, &table.name) else { return Vec::new() };
        let subject = Subject { target: Target::Source(&table.source, &table.name), relation, model: None };
        let tests = self.of_subject(&subject, &source.node, p);
        if !tests.is_empty() && !matches!(table.connector, Connector::Delta { .. }) {
            let message = format!("data tests read tables, and source table `{}.{}` is none", table.source, table.name);
            p.error("untestable-source", table.span.clone(), message, "put the tests on the model that reads it");
            return Vec::new();
        }
        tests
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
        let mut config = self.defaults.clone();
        config::merge(&mut config, &written.config);
        let settings = Settings::of(&config, p);
        if !settings.enabled {
            return None;
        }
        let resolve: Arc<dyn Resolve> = Arc::clone(self.names) as Arc<dyn Resolve>;
        let scope = Scope::compiling(self.globals, resolve, None, std::collections::BTreeMap::new(), false);
        let filtered = match &settings.filter {
            Some(setting) => {
                let text = setting.text("where", p)?;
                let condition = p.ok(self.engine.render_text(&text, item, &scope))?;
                format!("(select * from {} where {condition}) as tested", subject.relation)
            }
            None => subject.relation.to_string(),
        };
        let body = Body {
            maker: self,
            written: &written,
            scope: &scope,
            from: filtered,
            column: self.column(subject, &written, column, p)?,
            subject,
        };
        let sql = body.sql(p);
        for (error, _) in scope.take_unresolved() {
            p.errors.push(error.with_span(written.argument("to").unwrap_or(written.node).span()));
        }
        let sql = sql?;
        let mut depends_on: Vec<Dependency> = subject.relation.dependency.iter().cloned().collect();
        for (dependency, _) in scope.mentions() {
            if !depends_on.contains(&dependency) {
                depends_on.push(dependency);
            }
        }
        let generic = generic_test(subject, &written, column);
        let name = written.name.clone().unwrap_or_else(|| generic.name());
        Some(DataTest {
            unique_id: generic.unique_id(self.package, &name),
            package: self.package.to_string(),
            fqn: self.fqn(&item.text.file, &name),
            name,
            model: subject.model.clone(),
            source_map: map_to_node(&sql, written.node),
            sql,
            depends_on,
            severity: settings.severity,
            path: item.text.file.clone(),
            tags: settings.tags,
            test_name: Some(generic.test.to_string()),
        })
    }

    /// `[package, folder, …, name]`: dbt takes the folders of the file that declares the test, without the first.
    fn fqn(&self, file: &Path, name: &str) -> Vec<String> {
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
            None if BUILT_IN.contains(&written.test.as_str()) => {
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
                written.config.insert(key.to_string(), Setting { value: entry.value.json(), span: entry.value.span() });
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

/// A test's own configuration.
struct Settings<'a> {
    severity: Severity,
    enabled: bool,
    tags: Vec<String>,
    filter: Option<&'a Setting>,
}

impl<'a> Settings<'a> {
    fn of(config: &'a RawConfig, p: &mut Problems) -> Self {
        let severity = match config.get("severity").map(|s| (s.value.as_str().map(str::to_lowercase), s)) {
            None => Severity::Error,
            Some((Some(text), _)) if text == "warn" => Severity::Warn,
            Some((Some(text), _)) if text == "error" => Severity::Error,
            Some((_, setting)) => {
                p.error(
                    "unknown-value",
                    setting.span.clone(),
                    format!("`severity` cannot be {}", setting.shown()),
                    "it can be: error, warn",
                );
                Severity::Error
            }
        };
        for key in ["warn_if", "error_if", "fail_calc", "limit", "store_failures", "store_failures_as"] {
            if let Some(setting) = config.get(key) {
                p.warn(
                    "ignored-config",
                    setting.span.clone(),
                    format!("`{key}` has no effect in this version of smelt"),
                    "",
                );
            }
        }
        Settings {
            severity,
            enabled: config.get("enabled").and_then(|s| s.boolean("enabled", p)).unwrap_or(true),
            tags: config.get("tags").map_or_else(Vec::new, |s| s.texts("tags", p)),
            filter: config.get("where").filter(|s| !s.value.is_null()),
        }
    }
}

/// A test about to become SQL.
struct Body<'a> {
    maker: &'a Maker<'a>,
    written: &'a Written<'a>,
    scope: &'a Arc<Scope>,
    subject: &'a Subject<'a>,
    /// What follows FROM.
    from: String,
    column: String,
}

impl Body<'_> {
    fn sql(&self, p: &mut Problems) -> Option<String> {
        let Body { from, column, .. } = self;
        match self.written.test.as_str() {
            "not_null" => {
                self.only(&[], p);
                Some(format!("select *\nfrom {from}\nwhere {column} is null"))
            }
            "unique" => {
                self.only(&[], p);
                Some(format!(
                    "select {column} as unique_field, count(*) as n_records\nfrom {from}\nwhere {column} is not null\ngroup by {column}\nhaving count(*) > 1"
                ))
            }
            "accepted_values" => {
                self.only(&["values", "quote"], p);
                let values = self.values(p)?;
                Some(format!(
                    "select {column} as value_field, count(*) as n_records\nfrom {from}\nwhere {column} not in ({})\ngroup by {column}",
                    values.join(", ")
                ))
            }
            "relationships" => {
                self.only(&["to", "field"], p);
                let field = self.required("field", p)?.text("field", p)?;
                let field = column_sql(&field, false, self.subject.relation.quote);
                let parent = self.parent(p)?;
                Some(format!(
                    "select child.from_field\nfrom (select {column} as from_field from {from} where {column} is not null) as child\n\
                     left join (select distinct {field} as to_field from {parent}) as parent on child.from_field = parent.to_field\n\
                     where parent.to_field is null"
                ))
            }
            other => self.by_macro(other, p),
        }
    }

    fn only(&self, known: &[&str], p: &mut Problems) {
        for (name, node) in &self.written.arguments {
            if name != "column_name" && !known.contains(&name.as_str()) {
                let test = &self.written.test;
                p.error(
                    "unknown-key",
                    node.span(),
                    format!("data test `{test}` has no argument `{name}`"),
                    suggest(name, known.iter().copied(), "arguments"),
                );
            }
        }
    }

    fn required(&self, name: &str, p: &mut Problems) -> Option<&Node> {
        let found = self.written.argument(name);
        if found.is_none() {
            let message = format!("data test `{}` has no `{name}`", self.written.test);
            let example = match name {
                "values" => "values: [a, b]",
                "to" => "to: ref('dim_user')",
                _ => "field: id",
            };
            p.error("missing-argument", self.written.node.span(), message, format!("add arguments: {{{example}}}"));
        }
        found
    }

    fn values(&self, p: &mut Problems) -> Option<Vec<String>> {
        let node = self.required("values", p)?;
        let quote = self.written.argument("quote").and_then(|n| n.boolean("quote", p));
        let items = node.items("values", p);
        if items.is_empty() {
            p.error("missing-argument", node.span(), "`values` is empty: every row would fail", "write values: [a, b]");
            return None;
        }
        let literal = |item: &Node, p: &mut Problems| {
            let is_text = item.as_str().is_some();
            let text = item.text("values", p)?;
            let text = p.ok(self.maker.engine.render_text(&text, item, self.scope))?;
            Some(if quote.unwrap_or(is_text) { format!("'{}'", text.replace('\'', "''")) } else { text })
        };
        items.iter().map(|item| literal(item, p)).collect()
    }

    /// The relation that `to` names.
    fn parent(&self, p: &mut Problems) -> Option<Relation> {
        let node = self.required("to", p)?;
        let text = node.text("to", p)?;
        let expression = text.trim().trim_start_matches("{{").trim_end_matches("}}").trim();
        let is_call = expression.starts_with("ref") || expression.starts_with("source");
        let value = match is_call {
            true => p.ok(self.maker.engine.evaluate(expression, node, self.scope))?,
            false => minijinja::Value::UNDEFINED,
        };
        let relation = value.downcast_object_ref::<Relation>().cloned();
        if relation.is_none() {
            p.error(
                "bad-relation",
                node.span(),
                format!("`to` names no relation: `{text}`"),
                format!("write to: ref('{expression}')"),
            );
        }
        relation
    }

    /// A test that a macro of the project writes.
    fn by_macro(&self, test: &str, p: &mut Problems) -> Option<String> {
        let engine = self.maker.engine;
        let (package, test) = match test.split_once('.') {
            Some((package, test)) if engine.has_package(package) => (Some(package), test),
            // The package's macros may have been copied into the project.
            Some((_, test)) => (None, test),
            None => (None, test),
        };
        let name = format!("test_{test}");
        let places = match package {
            Some(package) => vec![package],
            None => vec![self.maker.package, self.maker.globals.project_name.as_str()],
        };
        let macros = || places.iter().flat_map(|place| engine.macros_of(place)).map(String::as_str);
        if !macros().any(|m| m == name) {
            let macros = macros().filter_map(|m| m.strip_prefix("test_"));
            let known = BUILT_IN.iter().copied().chain(macros);
            let hint = suggest(test, known, "data tests").replace("data tests: ", "there are: ");
            p.error(
                "unknown-test",
                self.written.node.span(),
                format!("no data test `{test}`"),
                format!("{hint} A macro `{name}(model, column_name)` would make it one"),
            );
            return None;
        }
        let mut arguments = vec![format!("model={}", Json::from(self.from.as_str()))];
        if !self.column.is_empty() {
            arguments.push(format!("column_name={}", Json::from(self.column.as_str())));
        }
        for (name, node) in self.written.arguments.iter().filter(|(n, _)| n != "column_name") {
            let literal = match node.as_str().map(str::trim) {
                Some(text) if text.starts_with("ref(") || text.starts_with("source(") => text.to_string(),
                Some(text) => Json::from(p.ok(self.maker.engine.render_text(text, node, self.scope))?).to_string(),
                None => jinja_literal(&node.json()),
            };
            arguments.push(format!("{name}={literal}"));
        }
        let name = package.map_or_else(|| name.clone(), |package| format!("{package}.{name}"));
        p.ok(engine.render_text(&format!("{{{{ {name}({}) }}}}", arguments.join(", ")), self.written.node, self.scope))
    }
}

/// JSON as a Jinja expression.
fn jinja_literal(json: &Json) -> String {
    match json {
        Json::Null => "none".to_string(),
        Json::Array(items) => format!("[{}]", items.iter().map(jinja_literal).collect::<Vec<_>>().join(", ")),
        Json::Object(members) => {
            let member = |(k, v): (&String, &Json)| format!("{}: {}", Json::from(k.as_str()), jinja_literal(v));
            format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A column's name as SQL: as written where that is a plain name or a path into a struct, else quoted.
fn column_sql(name: &str, quote: bool, mark: char) -> String {
    /// Words that cannot stand for a column without quotes.
    const RESERVED: [&str; 40] = [
        "all", "and", "as", "asc", "between", "by", "case", "cast", "cross", "desc", "distinct", "else", "end",
        "exists", "false", "from", "full", "group", "having", "in", "inner", "interval", "is", "join", "left", "like",
        "limit", "not", "null", "on", "or", "order", "right", "select", "table", "then", "true", "union", "when",
        "where",
    ];
    let plain = |part: &str| {
        part.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !RESERVED.contains(&part.to_lowercase().as_str())
    };
    if !quote && name.split('.').all(plain) {
        return name.to_string();
    }
    format!("{mark}{}{mark}", name.replace(mark, &format!("{mark}{mark}")))
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
    let settings = Settings::of(config, p);
    if let Some(setting) = settings.filter {
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
    let name = fqn.last().cloned().unwrap_or_default();
    let package = fqn.first().cloned().unwrap_or_default();
    settings.enabled.then(|| DataTest {
        unique_id: format!("test.{package}.{name}"),
        name,
        package,
        fqn,
        model,
        sql: rendered.sql,
        source_map: rendered.source_map,
        depends_on: reads.into_iter().map(|(d, _)| d).collect(),
        severity: settings.severity,
        path: path.to_path_buf(),
        tags: settings.tags,
        test_name: None,
    })
}

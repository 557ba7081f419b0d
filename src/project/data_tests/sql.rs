//! The queries of generic tests: the built-in ones, and those that macros of the project write.

use std::sync::Arc;

use super::super::jinja::{Relation, Scope};
use super::super::problems::{Problems, suggest};
use super::super::yaml::Node;
use super::{BUILT_IN, Maker, Subject, Written};

/// A test about to become SQL.
pub(super) struct Body<'a> {
    pub maker: &'a Maker<'a>,
    pub written: &'a Written<'a>,
    pub scope: &'a Arc<Scope>,
    pub subject: &'a Subject<'a>,
    /// What follows FROM.
    pub from: String,
    /// Whether that is a subquery.
    pub filtered: bool,
    pub column: String,
}

impl Body<'_> {
    pub fn sql(&self, p: &mut Problems) -> Option<String> {
        let Body { from, column, .. } = self;
        if let Some(name) = self.maker.macro_of(&self.written.test) {
            return self.by_macro(&name, p);
        }
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
            other => {
                self.unknown(other, p);
                None
            }
        }
    }

    fn unknown(&self, test: &str, p: &mut Problems) {
        let (places, test) = self.maker.places_of(test);
        let macros = places.iter().flat_map(|place| self.maker.engine.macros_of(place));
        let known = BUILT_IN.iter().copied().chain(macros.filter_map(|m| m.strip_prefix("test_")));
        let hint = suggest(test, known, "data tests").replace("data tests: ", "there are: ");
        p.error(
            "unknown-test",
            self.written.node.span(),
            format!("no data test `{test}`"),
            format!("{hint} A macro `test_{test}(model, column_name)` would make it one"),
        );
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

    /// A test that the macro `name` writes.
    fn by_macro(&self, name: &str, p: &mut Problems) -> Option<String> {
        // A condition makes the tested rows a subquery, which is a text, as in dbt.
        let model = match self.filtered {
            true => minijinja::Value::from(self.from.as_str()),
            false => minijinja::Value::from_object(self.subject.relation.clone()),
        };
        let mut arguments = vec![("model".to_string(), model)];
        if !self.column.is_empty() {
            arguments.push(("column_name".to_string(), minijinja::Value::from(self.column.as_str())));
        }
        let engine = self.maker.engine;
        for (name, node) in self.written.arguments.iter().filter(|(n, _)| n != "column_name") {
            arguments.push((name.clone(), p.ok(engine.native(node, self.scope))?));
        }
        p.ok(engine.call_named(name, arguments, self.written.node, self.scope))
    }
}

impl Maker<'_> {
    /// The packages whose macros can be the data test `test`, and its name without a package.
    fn places_of<'t>(&'t self, test: &'t str) -> (Vec<&'t str>, &'t str) {
        let own = || vec![self.package, self.globals.project_name.as_str()];
        match test.split_once('.') {
            Some((package, test)) if self.engine.has_package(package) => (vec![package], test),
            // The package's macros may have been copied into the project.
            Some((_, test)) => (own(), test),
            None => (own(), test),
        }
    }

    /// The name under which templates call the macro that writes the data test `test`; a macro replaces a built-in test.
    pub(super) fn macro_of(&self, test: &str) -> Option<String> {
        let (places, bare) = self.places_of(test);
        let name = format!("test_{bare}");
        let found = places.iter().any(|place| self.engine.macros_of(place).contains(&name));
        let is_qualified = test.split_once('.').is_some_and(|(package, _)| self.engine.has_package(package));
        found.then(|| if is_qualified { format!("{}.{name}", places[0]) } else { name })
    }
}

/// A column's name as SQL: as written where that is a plain name or a path into a struct, else quoted.
pub(super) fn column_sql(name: &str, quote: bool, mark: char) -> String {
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

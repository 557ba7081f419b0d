//! `selectors.yml`: selections with names, as dbt's YAML selectors define them.
//!
//! A definition is a text as on the command line, `method: value`, `{method: …, value: …}` with graph operators as keys, or a
//! `union:` or `intersection:` of definitions; `exclude:` takes away. `{method: selector, value: name}` is a definition above.

use serde_json::Value as Json;
use std::path::Path;
use std::sync::Arc;

use super::spec::{self, Criterion, Indirect, Method, Operation, Reach, Spec};
use super::written;
use crate::error::Error;
use crate::project::jinja::{Engine, Scope};
use crate::project::problems::{Problems, suggest};
use crate::project::yaml::{self, Entry, Node, Text, Value};

/// Where selectors stand, in the project's folder.
const FILE: &str = "selectors.yml";

/// Keys of a definition beside `method` and `value`.
const KEYS: [&str; 9] = [
    "method",
    "value",
    "parents",
    "children",
    "parents_depth",
    "children_depth",
    "childrens_parents",
    "indirect_selection",
    "exclude",
];

/// A selection with a name.
#[derive(Debug, Clone)]
pub struct Selector {
    pub name: String,
    pub description: String,
    /// Taken when a command line selects nothing itself.
    pub default: bool,
    pub(super) spec: Spec,
    /// As dbt's manifest lists it.
    pub(in crate::project) written: Json,
}

/// The selectors of the project in `dir`; none without the file.
pub(in crate::project) fn read(dir: &Path, engine: &Engine, scope: &Arc<Scope>, p: &mut Problems) -> Vec<Selector> {
    let content = match std::fs::read_to_string(dir.join(FILE)) {
        Ok(content) => content,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(e) => {
            p.errors.push(Error::environment("unreadable-file", format!("cannot read {FILE}: {e}")).permanent());
            return Vec::new();
        }
    };
    let Some(root) = p.ok(yaml::parse(&Text::new(FILE, content))) else { return Vec::new() };
    if matches!(root.value, Value::Null) || !root.check_keys(FILE, &["version", "selectors", "anchors"], p) {
        return Vec::new();
    }
    let root = engine.render_yaml(&root, &["description"], scope, p);
    let items = root.get("selectors").map_or(&[][..], |n| n.items("selectors", p));
    let mut reader = Reader { known: Vec::new(), names: names(items) };
    for item in items {
        reader.selector(item, p);
    }
    reader.known
}

fn names(items: &[Node]) -> Vec<String> {
    items.iter().filter_map(|i| i.get("name")?.as_str().map(str::to_string)).collect()
}

struct Reader {
    /// Those above the one that is read.
    known: Vec<Selector>,
    /// All of the file.
    names: Vec<String>,
}

impl Reader {
    fn selector(&mut self, node: &Node, p: &mut Problems) {
        if !node.check_keys("a selector", &["name", "description", "default", "definition"], p) {
            return;
        }
        let Some(name) = crate::project::sources::named(node, "a selector", p) else { return };
        let span = node.get("name").unwrap_or(node).span();
        if self.known.iter().any(|s| s.name == name) {
            p.error("duplicate-selector", span, format!("two selectors are named `{name}`"), "rename one of them");
            return;
        }
        let default = node.get("default").and_then(|n| n.boolean("default", p)).unwrap_or(false);
        if let (true, Some(first)) = (default, self.known.iter().find(|s| s.default)) {
            let message = format!("two selectors are the default: `{}` and `{name}`", first.name);
            p.error(
                "duplicate-default",
                node.get("default").unwrap_or(node).span(),
                message,
                "keep one `default: true`",
            );
        }
        let Some(definition) = node.get("definition") else {
            p.error(
                "missing-definition",
                span,
                format!("selector `{name}` has no `definition`"),
                "add definition: tag:nightly",
            );
            return;
        };
        if definition.get("union").or_else(|| definition.get("intersection")).is_some() {
            self.only_key(definition, p);
        }
        let description = node.get("description").and_then(|n| n.text("description", p)).unwrap_or_default();
        if let Some(spec) = self.definition(definition, p) {
            let above = self.known.iter().map(|s| (s.name.clone(), s.written.clone())).collect();
            let written = written::entry(node.json(), &above);
            self.known.push(Selector { name, description, default, spec, written });
        }
    }

    /// At the top a union or intersection stands alone.
    fn only_key(&self, definition: &Node, p: &mut Problems) {
        let set = |e: &&Entry| matches!(e.key.as_str(), "union" | "intersection");
        let mut others = definition.entries().iter().filter(|e| !set(e));
        let second = definition.entries().iter().filter(set).nth(1);
        if let Some(entry) = others.next().or(second) {
            let message = format!("`{}` stands beside a union or intersection", entry.key);
            let hint = "a definition has one `union` or `intersection`: put this into its list, as `- exclude: […]` for example";
            p.error("bad-selector", definition.span_of(entry.key_mark), message, hint);
        }
    }

    fn definition(&self, node: &Node, p: &mut Problems) -> Option<Spec> {
        match &node.value {
            Value::Str(text) => {
                let criterion = spec::criterion(text.trim()).map_err(|e| e.with_span(node.span()));
                let criterion = p.ok(criterion)?;
                match criterion.method {
                    Method::Selector => self.inherited(&criterion.value, node, p),
                    _ => Some(Spec::Criterion(criterion)),
                }
            }
            Value::Map(_) if node.get("union").is_some() => self.set(Operation::Union, node.get("union")?, p),
            Value::Map(_) if node.get("intersection").is_some() => {
                self.set(Operation::Intersection, node.get("intersection")?, p)
            }
            Value::Map(entries) => self.criterion(node, entries, p),
            Value::Failed => None,
            _ => {
                let message = format!("a definition must be text or a mapping, found {}", node.kind());
                p.error(
                    "bad-selector",
                    node.span(),
                    message,
                    "write tag:nightly, {method: tag, value: nightly} or union: […]",
                );
                None
            }
        }
    }

    /// The parts of a union or intersection; one of them may be `exclude:`.
    fn set(&self, operation: Operation, list: &Node, p: &mut Problems) -> Option<Spec> {
        let what = if operation == Operation::Union { "union" } else { "intersection" };
        let mut parts = Vec::new();
        let mut excluded: Option<(Spec, &Node)> = None;
        for item in list.items(what, p) {
            match item.entries() {
                [entry] if entry.key == "exclude" => {
                    if excluded.is_some() {
                        let message = format!("a second `exclude` in one {what}");
                        p.error("bad-selector", item.span_of(entry.key_mark), message, "put both lists into one");
                    } else {
                        excluded = Some((self.exclusion(&entry.value, p)?, item));
                    }
                }
                _ => parts.push(self.definition(item, p)?),
            }
        }
        let set = Spec::set(operation, parts);
        Some(match excluded {
            Some((excluded, _)) => Spec::set(Operation::Difference, vec![set, excluded]),
            None => set,
        })
    }

    fn exclusion(&self, list: &Node, p: &mut Problems) -> Option<Spec> {
        let parts: Option<Vec<Spec>> = list.items("exclude", p).iter().map(|item| self.definition(item, p)).collect();
        Some(Spec::set(Operation::Union, parts?))
    }

    fn criterion(&self, node: &Node, entries: &[Entry], p: &mut Problems) -> Option<Spec> {
        let (name, value) = match (entries, node.get("method"), node.get("value")) {
            ([entry], None, None) => {
                let method = spec::method(&entry.key).map_err(|e| e.with_span(node.span_of(entry.key_mark)));
                (p.ok(method)?, &entry.value)
            }
            (_, Some(method), Some(value)) => {
                node.check_keys("a definition", &KEYS, p);
                let name = method.text("method", p)?;
                (p.ok(spec::method(&name).map_err(|e| e.with_span(method.span())))?, value)
            }
            _ => {
                let keys: Vec<&str> = entries.iter().map(|e| e.key.as_str()).collect();
                let message = format!("a definition needs `method` and `value`, found: {}", keys.join(", "));
                p.error("bad-selector", node.span(), message, "write {method: tag, value: nightly}");
                return None;
            }
        };
        let (method, arguments) = name;
        let text = value.text("value", p)?;
        if method == Method::Selector {
            let inherited = self.inherited(&text, value, p)?;
            return self.without(inherited, node, p);
        }
        let flag = |key: &str, p: &mut Problems| node.get(key).and_then(|n| n.boolean(key, p)).unwrap_or(false);
        let reach = |key: &str, depth: &str, p: &mut Problems| {
            let steps = node.get(depth).and_then(|n| n.count(depth, 0, p));
            flag(key, p).then_some(Reach(steps))
        };
        let indirect = node.get("indirect_selection").and_then(|n| n.choice("indirect_selection", &Indirect::NAMES, p));
        let criterion = Criterion {
            method,
            arguments,
            value: text.clone(),
            childrens_parents: flag("childrens_parents", p),
            parents: reach("parents", "parents_depth", p),
            children: reach("children", "children_depth", p),
            indirect,
        };
        p.ok(spec::check_operators(&criterion, &text).map_err(|e| e.with_span(node.span())))?;
        self.without(Spec::Criterion(criterion), node, p)
    }

    /// `spec` without what the definition's own `exclude` names.
    fn without(&self, spec: Spec, node: &Node, p: &mut Problems) -> Option<Spec> {
        Some(match node.get("exclude") {
            Some(list) => Spec::set(Operation::Difference, vec![spec, self.exclusion(list, p)?]),
            None => spec,
        })
    }

    fn inherited(&self, name: &str, at: &Node, p: &mut Problems) -> Option<Spec> {
        if let Some(selector) = self.known.iter().find(|s| s.name == name) {
            return Some(selector.spec.clone());
        }
        let hint = match self.names.iter().any(|n| n == name) {
            true => format!("`{name}` stands further down, or is wrong itself: a selector names those above it"),
            false => suggest(name, self.names.iter().map(String::as_str), "selectors"),
        };
        p.error("unknown-selector", at.span(), format!("no selector `{name}` above"), hint);
        None
    }
}

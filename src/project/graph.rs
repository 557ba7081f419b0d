//! The graph of models: what a name means, and in which order models stand.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value as Json;

use super::jinja::{Relation, Resolve};
use super::names::{Same, found, search_order};
use super::problems::{Problems, suggest};
use super::{Deferred, Dependency};
use crate::error::{Error, Span};

/// A model under the names it is known by.
#[derive(Debug, Clone)]
pub(super) struct NamedModel {
    /// The one name that no other model has: [`super::names`].
    pub key: String,
    /// As its file says, unique in its package.
    pub name: String,
    pub package: String,
    pub unique_id: String,
    pub schema: String,
    pub alias: String,
    pub enabled: bool,
    /// Start of its file.
    pub span: Span,
}

#[derive(Debug, Clone)]
pub(super) struct NamedSource {
    pub unique_id: String,
    pub package: String,
    /// The name under which no other package has it: [`super::names`].
    pub key: String,
    pub source: String,
    pub table: String,
    pub enabled: bool,
    pub span: Span,
    /// Name and SQL type of its columns, where the declaration names all of them.
    pub columns: Option<Vec<(String, String)>>,
}

/// Every name of the project, with its relation.
#[derive(Debug)]
pub(super) struct Names {
    /// The project itself, then its packages.
    packages: Vec<String>,
    quote: char,
    models: Vec<NamedModel>,
    sources: Vec<NamedSource>,
    /// By lower-case key; the first one keeps it.
    by_key: HashMap<String, usize>,
    /// What `graph` shows.
    facts: Mutex<Arc<Json>>,
    /// Tables that stand in for models, by unique id.
    deferred: BTreeMap<String, Deferred>,
}

/// Tables that smelt keeps beside a model's own.
const SIDE_TABLES: [&str; 3] = ["__dead_letter", "__quarantine", "__late"];

impl Names {
    /// The names, checked: every model name, every table and every source table stands for one thing only.
    pub fn new(
        packages: Vec<String>,
        quote: char,
        models: Vec<NamedModel>,
        sources: Vec<NamedSource>,
        p: &mut Problems,
    ) -> Self {
        let mut names = Names {
            packages,
            quote,
            models,
            sources,
            by_key: HashMap::new(),
            facts: Mutex::default(),
            deferred: BTreeMap::new(),
        };
        let mut tables: HashMap<(String, String), usize> = HashMap::new();
        for (index, model) in names.models.iter().enumerate() {
            match names.by_key.get(&model.key.to_lowercase()) {
                Some(first) => {
                    let first = &names.models[*first];
                    let message = format!("two models are named `{}`", model.name);
                    let hint = format!(
                        "the other is {}: rename one file; `alias` keeps its table's name",
                        first.span.file.display()
                    );
                    p.error("duplicate-model", model.span.clone(), message, hint);
                    continue;
                }
                None => names.by_key.insert(model.key.to_lowercase(), index),
            };
            if !model.enabled {
                continue;
            }
            if model.schema.eq_ignore_ascii_case("_smelt") {
                p.error(
                    "reserved-name",
                    model.span.clone(),
                    format!("model `{}` is in schema `_smelt`, which smelt keeps for itself", model.name),
                    "choose another schema",
                );
            }
            let key = (model.schema.to_lowercase(), model.alias.to_lowercase());
            match tables.get(&key) {
                Some(first) => {
                    let first = &names.models[*first];
                    let (schema, alias) = (&model.schema, &model.alias);
                    let (message, hint) = match first.package == model.package {
                        true => (
                            format!(
                                "models `{}` and `{}` both make the table `{schema}.{alias}`",
                                first.name, model.name
                            ),
                            "give one of them another `schema` or `alias`".to_string(),
                        ),
                        false => (
                            format!(
                                "two resources have the database representation `{schema}.{alias}`: {} and {}",
                                first.unique_id, model.unique_id
                            ),
                            format!(
                                "give one of them another `schema` or `alias`; the other is {}",
                                first.span.file.display()
                            ),
                        ),
                    };
                    p.error("duplicate-table", model.span.clone(), message, hint);
                }
                None => {
                    tables.insert(key, index);
                }
            }
        }
        for model in names.models.iter().filter(|m| m.enabled) {
            let alias = model.alias.to_lowercase();
            let owner = SIDE_TABLES
                .iter()
                .find_map(|suffix| alias.strip_suffix(suffix))
                .and_then(|base| tables.get(&(model.schema.to_lowercase(), base.to_string())));
            if let Some(owner) = owner {
                let message = format!(
                    "the table `{}.{}` belongs to model `{}`",
                    model.schema, model.alias, names.models[*owner].name
                );
                p.error("duplicate-table", model.span.clone(), message, "give the model another `alias`");
            }
        }
        let mut seen: BTreeMap<(String, String), &NamedSource> = BTreeMap::new();
        for source in &names.sources {
            let key = (source.key.to_lowercase(), source.table.to_lowercase());
            if let Some(first) = seen.get(&key) {
                let message = format!("source table `{}.{}` is declared twice", source.source, source.table);
                p.error(
                    "duplicate-source",
                    source.span.clone(),
                    message,
                    format!("it is also at {}:{}", first.span.file.display(), first.span.line),
                );
            } else if let Some(model) = tables.get(&key).map(|i| &names.models[*i]) {
                let message = format!(
                    "source table `{}.{}` and model `{}` have the same relation name",
                    source.source, source.table, model.name
                );
                p.error(
                    "duplicate-table",
                    source.span.clone(),
                    message,
                    "rename the source, or give the model another `schema` or `alias`",
                );
            }
            seen.insert(key, source);
        }
        names
    }

    fn model_by_key(&self, key: &str) -> Option<&NamedModel> {
        self.by_key.get(&key.to_lowercase()).map(|i| &self.models[*i])
    }

    /// The model that `ref` means in `package`, or in those packages where it looks when it is called in `from`.
    fn find_model(&self, package: Option<&str>, name: &str, from: &str) -> Option<&NamedModel> {
        let order = search_order(&self.packages, package, from);
        found(&self.models, &order, |m| &m.package, |m| m.enabled, |m, same| same(&m.name, name))
    }

    fn find_source(&self, source: &str, table: &str, from: &str) -> Option<&NamedSource> {
        let order = search_order(&self.packages, None, from);
        let is_named = |s: &NamedSource, same: Same| same(&s.source, source) && same(&s.table, table);
        found(&self.sources, &order, |s| &s.package, |s| s.enabled, is_named)
    }

    /// dbt's id of what something reads.
    pub fn unique_id(&self, dependency: &Dependency) -> Option<String> {
        match dependency {
            Dependency::Model(key) => self.model_by_key(key).map(|m| m.unique_id.clone()),
            Dependency::Source(key, table) => {
                self.sources.iter().find(|s| s.key == *key && s.table == *table).map(|s| s.unique_id.clone())
            }
        }
    }

    /// Why `ref('package', 'name')` names nothing.
    fn unknown_in(&self, package: &str, name: &str) -> Error {
        if !self.packages.iter().any(|p| p.eq_ignore_ascii_case(package)) {
            let error = Error::user("unknown-project", format!("no project or package `{package}`"));
            return match self.packages.as_slice() {
                [project] => error.with_hint(format!("this is `{project}`: write ref('{name}')")),
                all => error.with_hint(suggest(package, all.iter().map(String::as_str), "there are")),
            };
        }
        let error = Error::user("unknown-ref", format!("no model `{name}` in `{package}`"));
        match self.find_model(None, name, package) {
            Some(model) => error.with_hint(format!("did you mean ref('{}', '{}')?", model.package, model.name)),
            None => error.with_hint(suggest(
                name,
                self.models
                    .iter()
                    .filter(|m| m.enabled && m.package.eq_ignore_ascii_case(package))
                    .map(|m| m.name.as_str()),
                "models",
            )),
        }
    }

    /// What the readers of a model read; None of one that is disabled.
    pub fn read_relation(&self, key: &str) -> Option<Relation> {
        let model = self.model_by_key(key).filter(|m| m.enabled)?;
        Some(match self.deferred.get(&model.unique_id) {
            Some(table) => self.relation(model, &table.schema, &table.alias),
            None => self.relation(model, &model.schema, &model.alias),
        })
    }

    /// A source table by its key.
    pub fn source_relation(&self, key: &str, table: &str) -> Relation {
        Relation {
            schema: key.to_string(),
            identifier: table.to_string(),
            quote: self.quote,
            dependency: Some(Dependency::Source(key.to_string(), table.to_string())),
        }
    }

    /// The table a model is built into, for `this`.
    pub fn own_relation(&self, key: &str) -> Option<Relation> {
        let model = self.model_by_key(key).filter(|m| m.enabled)?;
        Some(self.relation(model, &model.schema, &model.alias))
    }

    /// The table that its readers read instead.
    pub fn deferred(&self, unique_id: &str) -> Option<Deferred> {
        self.deferred.get(unique_id).cloned()
    }

    fn relation(&self, model: &NamedModel, schema: &str, identifier: &str) -> Relation {
        Relation {
            schema: schema.to_string(),
            identifier: identifier.to_string(),
            quote: self.quote,
            dependency: Some(Dependency::Model(model.key.clone())),
        }
    }
}

impl Names {
    /// From here on `ref` names these tables.
    pub fn defer(&mut self, deferred: BTreeMap<String, Deferred>) {
        self.deferred = deferred;
    }

    pub fn show(&self, facts: Json) {
        *self.facts.lock() = Arc::new(facts);
    }
}

impl Resolve for Names {
    fn quote(&self) -> char {
        self.quote
    }

    fn graph(&self) -> Arc<Json> {
        Arc::clone(&self.facts.lock())
    }

    fn source_columns(&self, schema: &str, name: &str) -> Option<Vec<(String, String)>> {
        let is_it = |s: &&NamedSource| s.key.eq_ignore_ascii_case(schema) && s.table.eq_ignore_ascii_case(name);
        self.sources.iter().find(is_it)?.columns.clone()
    }

    fn model(&self, package: Option<&str>, name: &str, from: &str) -> Result<Relation, Error> {
        match (self.find_model(package, name, from), package) {
            (Some(model), _) if model.enabled => {
                self.read_relation(&model.key).ok_or_else(|| Error::internal(format!("model {name} has no table")))
            }
            (Some(model), _) => {
                let error = Error::user("disabled-ref", format!("model `{}` is disabled", model.name));
                Err(error.with_hint("it has `enabled: false`: enable it, or read something else"))
            }
            (None, Some(package)) => Err(self.unknown_in(package, name)),
            (None, None) => {
                let error = Error::user("unknown-ref", format!("no model `{name}`"));
                Err(match self.sources.iter().find(|s| s.table.eq_ignore_ascii_case(name)) {
                    Some(s) => error.with_hint(format!("did you mean source('{}', '{}')?", s.source, s.table)),
                    None => error.with_hint(suggest(
                        name,
                        self.models.iter().filter(|m| m.enabled).map(|m| m.name.as_str()),
                        "models",
                    )),
                })
            }
        }
    }

    fn source(&self, source: &str, table: &str, from: &str) -> Result<Relation, Error> {
        match self.find_source(source, table, from) {
            Some(found) if found.enabled => Ok(self.source_relation(&found.key, &found.table)),
            Some(_) => Err(Error::user("disabled-ref", format!("source table `{source}.{table}` is disabled"))
                .with_hint("it has `enabled: false`")),
            None => {
                let tables: BTreeSet<&str> = self
                    .sources
                    .iter()
                    .filter(|s| s.source.eq_ignore_ascii_case(source))
                    .map(|s| s.table.as_str())
                    .collect();
                let (message, hint) = if tables.is_empty() {
                    let sources: BTreeSet<&str> = self.sources.iter().map(|s| s.source.as_str()).collect();
                    (format!("no source `{source}`"), suggest(source, sources, "sources"))
                } else {
                    (format!("source `{source}` has no table `{table}`"), suggest(table, tables, "tables"))
                };
                Err(Error::user("unknown-source", message).with_hint(hint))
            }
        }
    }
}

/// A model and what it reads, as the order sees it.
pub(super) struct Vertex<'a> {
    pub name: &'a str,
    /// Models it reads, each with the place of the call.
    pub reads: Vec<(&'a str, Span)>,
}

/// Indices of `vertices` such that a model stands after everything it reads; among models that could stand next, the
/// first by name does. Circles are recorded, one error each, and their models left out.
pub(super) fn order(vertices: &[Vertex<'_>], p: &mut Problems) -> Vec<usize> {
    let index: HashMap<&str, usize> = vertices.iter().enumerate().map(|(i, v)| (v.name, i)).collect();
    let mut waiting: Vec<usize> = vec![0; vertices.len()];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); vertices.len()];
    for (reader, vertex) in vertices.iter().enumerate() {
        for read in vertex.reads.iter().filter_map(|(name, _)| index.get(name)) {
            readers[*read].push(reader);
            waiting[reader] += 1;
        }
    }
    let mut ready: BTreeSet<(&str, usize)> =
        (0..vertices.len()).filter(|i| waiting[*i] == 0).map(|i| (vertices[i].name, i)).collect();
    let mut order = Vec::with_capacity(vertices.len());
    while let Some((_, next)) = ready.pop_first() {
        order.push(next);
        for reader in &readers[next] {
            waiting[*reader] -= 1;
            if waiting[*reader] == 0 {
                ready.insert((vertices[*reader].name, *reader));
            }
        }
    }
    report_cycles(vertices, &index, &waiting, p);
    order
}

/// Every model that still waits reads one that waits: walking along such reads ends in a circle.
fn report_cycles(vertices: &[Vertex<'_>], index: &HashMap<&str, usize>, waiting: &[usize], p: &mut Problems) {
    let mut by_name: Vec<usize> = (0..vertices.len()).filter(|i| waiting[*i] > 0).collect();
    by_name.sort_by_key(|i| vertices[*i].name);
    let mut visited: BTreeSet<usize> = BTreeSet::new();
    for start in by_name {
        let mut path: Vec<(usize, &Span)> = Vec::new();
        let mut at = start;
        while visited.insert(at) {
            let next = vertices[at]
                .reads
                .iter()
                .filter_map(|(name, span)| Some((*index.get(name)?, span)))
                .find(|(i, _)| waiting[*i] > 0);
            let Some((next, span)) = next else { break };
            path.push((at, span));
            at = next;
        }
        let Some(first) = path.iter().position(|(i, _)| *i == at) else { continue };
        let mut circle = path[first..].to_vec();
        // The same circle is always told from its first model by name.
        let lead = circle.iter().enumerate().min_by_key(|(_, (i, _))| vertices[*i].name).map_or(0, |(n, _)| n);
        circle.rotate_left(lead);
        let mut names: Vec<&str> = circle.iter().map(|(i, _)| vertices[*i].name).collect();
        names.push(names[0]);
        let files: Vec<String> =
            circle.iter().map(|(_, span)| format!("{}:{}", span.file.display(), span.line)).collect();
        p.error(
            "cycle",
            circle[0].1.clone(),
            format!("models read each other in a circle: {}", names.join(" → ")),
            format!("remove one of these reads: {}", files.join(", ")),
        );
    }
}

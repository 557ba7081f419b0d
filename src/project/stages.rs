//! The order of `build`: models in stages, and between them the tests that decide what is made next.
//!
//! A model is made in the stage after the last data test that stands before it. Which tests do is dbt's rule: those of which it reads, at
//! any distance, everything that they read. So without tests there is one stage, and a test costs one only where something is
//! made from what it tests.
//!
//! Pure: a function of the graph and of what is selected.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::select::{Graph, ResourceType};
use super::{Connector, DataTest, Dependency, Model, Project, SourceTable};

/// What a build does, in order.
#[derive(Debug, Default)]
pub struct Stages {
    /// Names of the selected models of each stage.
    pub models: Vec<BTreeSet<String>>,
    /// Stage by stage, the data tests that run before it, by unique id; the last ones follow the last stage.
    pub tests: Vec<Vec<String>>,
    /// Names of the models, selected or not, that stand behind each data test, by its unique id.
    behind_test: HashMap<String, BTreeSet<String>>,
    /// The same for each model.
    behind_model: HashMap<String, BTreeSet<String>>,
}

impl Stages {
    /// The stages of the selected models (None: all), with these tests between them.
    pub fn new(project: &Project, selected: Option<&BTreeSet<String>>, tests: &[&DataTest]) -> Self {
        let graph = Graph::new(project);
        let index: HashMap<&str, usize> =
            graph.nodes.iter().enumerate().map(|(i, node)| (node.unique_id.as_str(), i)).collect();
        let parents_of_test = |test: &DataTest| -> BTreeSet<usize> {
            let parents = index.get(test.unique_id.as_str()).map_or(&[][..], |i| graph.parents(*i));
            parents.iter().copied().collect()
        };
        let read_by: Vec<(&DataTest, BTreeSet<usize>)> = tests.iter().map(|t| (*t, parents_of_test(t))).collect();

        let mut made = Stages::default();
        // The stage of each model, by its place in the graph; of one that is not made, the stage of what it hangs on.
        let mut stage_of: BTreeMap<usize, isize> = BTreeMap::new();
        let of_test = |parents: &BTreeSet<usize>, stage_of: &BTreeMap<usize, isize>| {
            parents.iter().filter_map(|p| stage_of.get(p)).copied().max().unwrap_or(-1)
        };
        let makers = makers(project);
        for model in in_order(project, &makers) {
            let Some(at) = index.get(model.unique_id.as_str()).copied() else { continue };
            let above = graph.ancestors(&BTreeSet::from([at]), None);
            for ancestor in above.iter().map(|i| &graph.nodes[*i]) {
                if !matches!(ancestor.resource_type, ResourceType::Source | ResourceType::Exposure) {
                    made.behind_model.entry(ancestor.name.clone()).or_default().insert(model.name.clone());
                }
            }
            let is_made = selected.is_none_or(|names| names.contains(&model.name));
            let mut stage = if is_made { 0 } else { -1 };
            stage = graph.parents(at).iter().filter_map(|p| stage_of.get(p)).copied().fold(stage, isize::max);
            for (test, parents) in &read_by {
                if !parents.is_empty() && parents.is_subset(&above) {
                    made.behind_test.entry(test.unique_id.clone()).or_default().insert(model.name.clone());
                    if is_made {
                        stage = stage.max(of_test(parents, &stage_of) + 1);
                    }
                }
            }
            stage_of.insert(at, stage);
            let own = makers.iter().filter(|(_, maker)| maker.name == model.name);
            stage_of.extend(own.filter_map(|(source, _)| Some((*index.get(source)?, stage))));
            if let (true, Ok(stage)) = (is_made, usize::try_from(stage)) {
                if made.models.len() <= stage {
                    made.models.resize_with(stage + 1, BTreeSet::new);
                }
                made.models[stage].insert(model.name.clone());
            }
        }
        made.tests.resize_with(made.models.len() + 1, Vec::new);
        for (test, parents) in &read_by {
            let before = usize::try_from(of_test(parents, &stage_of) + 1).unwrap_or(0);
            made.tests[before].push(test.unique_id.clone());
        }
        made
    }

    /// The same, each model that has hooks alone in a stage of its own, so that they can stand right before and behind it.
    pub fn around_hooks(self, project: &Project) -> Self {
        let hooked: BTreeSet<&str> = project.models.iter().filter(|m| m.has_hooks()).map(|m| m.name.as_str()).collect();
        if !self.models.iter().flatten().any(|name| hooked.contains(name.as_str())) {
            return self;
        }
        let makers = makers(project);
        let order = in_order(project, &makers);
        let (mut models, mut tests) = (Vec::new(), Vec::new());
        let mut before = self.tests.into_iter();
        for stage in self.models {
            let parts = apart(&order, &makers, project, &stage, &hooked);
            tests.extend(before.next());
            tests.resize_with(tests.len() + parts.len() - 1, Vec::new);
            models.extend(parts);
        }
        tests.extend(before);
        Stages { models, tests, ..self }
    }

    /// The models that are not made when this data test fails.
    pub fn behind_test(&self, unique_id: &str) -> impl Iterator<Item = &String> {
        self.behind_test.get(unique_id).into_iter().flatten()
    }

    /// The models that are not made when this one is not.
    pub fn behind_model(&self, name: &str) -> impl Iterator<Item = &String> {
        self.behind_model.get(name).into_iter().flatten()
    }
}

/// Sources that are tables of models (a quarantine, say), by unique id, with the models that make them.
fn makers(project: &Project) -> HashMap<&str, &Arc<Model>> {
    let mut tables: HashMap<(&str, String), &Arc<Model>> = HashMap::new();
    for model in project.models.iter().filter(|m| m.materialized.has_table()) {
        tables.insert((&model.schema, model.alias.clone()), model);
        tables.extend(model.side_tables().map(|name| ((model.schema.as_str(), name), model)));
    }
    let maker = |source: &'_ SourceTable| match &source.connector {
        Connector::Delta { schema, identifier, path: None } => {
            tables.get(&(schema.as_str(), identifier.clone())).copied()
        }
        _ => None,
    };
    project.sources.iter().filter_map(|source| Some((source.unique_id.as_str(), maker(source)?))).collect()
}

/// One stage in parts, at least one: those of `models` that are not `hooked` together as far as what they read allows, the others each alone.
fn apart(
    order: &[&Arc<Model>],
    makers: &HashMap<&str, &Arc<Model>>,
    project: &Project,
    models: &BTreeSet<String>,
    hooked: &BTreeSet<&str>,
) -> Vec<BTreeSet<String>> {
    // What of the stage each model reads, through what is not of it too.
    let mut reads: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for model in order {
        let mut above = BTreeSet::new();
        for parent in parents(project, makers, model) {
            match models.get(parent) {
                Some(parent) => {
                    above.insert(parent.as_str());
                }
                None => above.extend(reads.get(parent).into_iter().flatten()),
            }
        }
        above.remove(model.name.as_str());
        reads.insert(&model.name, above);
    }
    let mut left: Vec<&str> = order.iter().map(|m| m.name.as_str()).filter(|name| models.contains(*name)).collect();
    let mut parts: Vec<BTreeSet<String>> = Vec::new();
    while !left.is_empty() {
        let is_ready = |name: &str, left: &[&str]| reads[name].iter().all(|parent| !left.contains(parent));
        // First what is alone anyway: so the others stand in few stages.
        if let Some(at) = left.iter().position(|name| hooked.contains(name) && is_ready(name, &left)) {
            parts.push(BTreeSet::from([left.remove(at).to_string()]));
            continue;
        }
        let mut part = BTreeSet::new();
        // In topological order: what reads one of these stands after it.
        let mut waiting: Vec<&str> = Vec::new();
        for name in std::mem::take(&mut left) {
            match !hooked.contains(name) && is_ready(name, &waiting) {
                true => {
                    part.insert(name.to_string());
                }
                false => waiting.push(name),
            }
        }
        if part.is_empty() {
            // A circle through sources: together, as without hooks.
            part.extend(waiting.drain(..).map(str::to_string));
        }
        left = waiting;
        parts.push(part);
    }
    if parts.is_empty() {
        parts.push(BTreeSet::new());
    }
    parts
}

/// Names of the models whose tables this one reads, by `ref` or as a source.
fn parents<'a>(
    project: &'a Project,
    makers: &'a HashMap<&str, &'a Arc<Model>>,
    model: &'a Model,
) -> impl Iterator<Item = &'a str> {
    model.depends_on.iter().filter_map(move |dependency| match dependency {
        Dependency::Model(name) => Some(name.as_str()),
        Dependency::Source(source, table) => {
            let found = project.sources.iter().find(|s| s.source == *source && s.name == *table)?;
            makers.get(found.unique_id.as_str()).map(|maker| maker.name.as_str())
        }
    })
}

/// The models, those that make a table before those that read it as a source. A circle of these stays as it is.
fn in_order<'a>(project: &'a Project, makers: &HashMap<&str, &'a Arc<Model>>) -> Vec<&'a Arc<Model>> {
    let mut left: Vec<&Arc<Model>> = project.models.iter().collect();
    let known: BTreeSet<&str> = left.iter().map(|m| m.name.as_str()).collect();
    let mut ordered = Vec::with_capacity(left.len());
    let mut placed: BTreeSet<&str> = BTreeSet::new();
    while !left.is_empty() {
        let before = ordered.len();
        left.retain(|model| {
            let mut reads = parents(project, makers, model).filter_map(|name| known.get(name).copied());
            let ready = reads.all(|name| name == model.name || placed.contains(name));
            if ready {
                placed.insert(&model.name);
                ordered.push(*model);
            }
            !ready
        });
        if ordered.len() == before {
            ordered.append(&mut left);
        }
    }
    ordered
}

//! The order of `build`: models in stages, and between them the tests that decide what is made next.
//!
//! A model is made in the stage after the last data test that stands before it. Which tests do is dbt's rule: those of which it reads, at
//! any distance, everything that they read. So without tests there is one stage, and a test costs one only where something is
//! made from what it tests.
//!
//! Pure: a function of the graph and of what is selected.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::select::{Graph, ResourceType};
use super::{DataTest, Project};

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
        for model in &project.models {
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

    /// The models that are not made when this data test fails.
    pub fn behind_test(&self, unique_id: &str) -> impl Iterator<Item = &String> {
        self.behind_test.get(unique_id).into_iter().flatten()
    }

    /// The models that are not made when this one is not.
    pub fn behind_model(&self, name: &str) -> impl Iterator<Item = &String> {
        self.behind_model.get(name).into_iter().flatten()
    }
}

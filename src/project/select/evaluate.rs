//! A selection evaluated on a graph: what is selected, and tests that would be if all they read were.
//!
//! The rules are dbt's. A criterion gives the nodes it names with their relatives (*direct*), and the tests that hang on
//! them: direct as well, or set aside (*indirect*) until a union brings what else they read.

use std::collections::BTreeSet;

use super::node::{Graph, ResourceType};
use super::spec::{Criterion, Indirect, Method, Operation, Set, Spec};
use super::{Request, methods};
use crate::error::{Error, Result};
use crate::project::Project;
use crate::project::problems::suggest;

type Indices = BTreeSet<usize>;

pub(super) struct Evaluation<'a> {
    pub graph: &'a Graph,
    pub project: &'a Project,
    pub request: &'a Request<'a>,
    pub warnings: Vec<Error>,
    /// What a criterion of the word that is being evaluated may have meant.
    pub hint: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Found {
    pub direct: Indices,
    pub indirect: Indices,
}

impl Evaluation<'_> {
    pub fn run(&mut self, spec: &Spec) -> Result<Found> {
        match spec {
            Spec::Criterion(criterion) => self.criterion(criterion),
            Spec::Set(set) => self.set(set),
        }
    }

    fn set(&mut self, set: &Set) -> Result<Found> {
        if set.expected.is_some() {
            self.hint = None;
        }
        let mut direct_sets = Vec::new();
        let mut all_sets = Vec::new();
        for part in &set.parts {
            let found = self.run(part)?;
            all_sets.push(found.direct.union(&found.indirect).copied().collect());
            direct_sets.push(found.direct);
        }
        let direct = combined(set.operation, direct_sets);
        let indirect = combined(set.operation, all_sets);
        let direct = if set.completes { self.complete(direct, &indirect) } else { direct };
        if let Some(word) = &set.expected
            && direct.is_empty()
        {
            let warning =
                Error::user("empty-selection", format!("the selection `{word}` does not match any enabled node"));
            self.warnings.push(match self.hint.take() {
                Some(hint) => warning.with_hint(hint),
                None => warning,
            });
        }
        Ok(Found { direct, indirect })
    }

    fn criterion(&mut self, criterion: &Criterion) -> Result<Found> {
        if criterion.method == Method::Selector {
            return self.named_definition(&criterion.value);
        }
        let named: Indices = methods::search(criterion, self.graph, self.project, self.request)?.into_iter().collect();
        if named.is_empty() && self.hint.is_none() {
            self.hint = methods::nearest(criterion, self.graph);
        }
        let mut selected = named.clone();
        if criterion.childrens_parents {
            let mut below = self.graph.descendants(&named, None);
            below.extend(&named);
            selected.extend(self.graph.ancestors(&below, None));
            selected.extend(below);
        }
        if let Some(reach) = criterion.parents {
            selected.extend(self.graph.ancestors(&named, reach.0));
        }
        if let Some(reach) = criterion.children {
            selected.extend(self.graph.descendants(&named, reach.0));
        }
        Ok(self.with_tests(selected, criterion.indirect.unwrap_or(self.request.indirect)))
    }

    fn named_definition(&mut self, name: &str) -> Result<Found> {
        let selectors = &self.project.selectors;
        match selectors.iter().find(|s| s.name == name) {
            Some(selector) => self.run(&selector.spec),
            None => Err(unknown_selector(name, selectors.iter().map(|s| s.name.as_str()))),
        }
    }

    /// Tests that read what is selected, as `indirect` wants it.
    fn with_tests(&self, selected: Indices, indirect: Indirect) -> Found {
        if indirect == Indirect::Empty {
            return Found { direct: selected, indirect: Indices::new() };
        }
        let available = match indirect {
            // A source has its rows without being built.
            Indirect::Buildable => {
                let sources =
                    (0..self.graph.nodes.len()).filter(|i| self.graph.nodes[*i].resource_type == ResourceType::Source);
                let mut available = self.graph.ancestors(&selected, None);
                available.extend(&selected);
                available.extend(sources);
                available
            }
            _ => selected.clone(),
        };
        let mut found = Found { direct: selected.clone(), indirect: Indices::new() };
        let readers: Indices = selected.iter().flat_map(|i| self.graph.children(*i)).copied().collect();
        for test in readers.into_iter().filter(|i| self.graph.nodes[*i].resource_type.is_test()) {
            let taken = indirect == Indirect::Eager || self.reads_only(test, &available);
            if taken {
                found.direct.insert(test)
            } else {
                found.indirect.insert(test)
            };
        }
        found
    }

    /// Tests that were set aside and now find everything they read.
    fn complete(&self, direct: Indices, set_aside: &Indices) -> Indices {
        let available = match self.request.indirect {
            Indirect::Cautious => direct.clone(),
            Indirect::Buildable => {
                let mut available = self.graph.ancestors(&direct, None);
                available.extend(&direct);
                available
            }
            Indirect::Eager | Indirect::Empty => return direct,
        };
        let tests = set_aside.iter().filter(|i| self.graph.nodes[**i].resource_type.is_test());
        let complete: Indices = tests.copied().filter(|i| self.reads_only(*i, &available)).collect();
        direct.union(&complete).copied().collect()
    }

    fn reads_only(&self, test: usize, available: &Indices) -> bool {
        self.graph.parents(test).iter().all(|p| available.contains(p))
    }
}

fn combined(operation: Operation, sets: Vec<Indices>) -> Indices {
    let combine = |a: Indices, b: Indices| -> Indices {
        match operation {
            Operation::Union => a.union(&b).copied().collect(),
            Operation::Intersection => a.intersection(&b).copied().collect(),
            Operation::Difference => a.difference(&b).copied().collect(),
        }
    };
    sets.into_iter().reduce(combine).unwrap_or_default()
}

/// `--selector` or `selector:` with a name that `selectors.yml` has not.
pub(super) fn unknown_selector<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
    Error::user("unknown-selector", format!("no selector `{name}` in selectors.yml")).with_hint(suggest(
        name,
        known,
        "selectors",
    ))
}

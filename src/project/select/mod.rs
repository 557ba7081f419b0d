//! Selection of nodes, in dbt's syntax and with dbt's results.
//!
//! 1. Every resource of the project becomes a [`Node`] of one [`Graph`] ([`node`]).
//! 2. A command line's words ([`spec`]) or a definition of `selectors.yml` ([`definitions`]) become a tree of criteria.
//! 3. The tree is evaluated ([`evaluate`]): a criterion names nodes by its method ([`methods`], [`pattern`]), reaches along the
//!    graph, and brings tests along; unions, intersections and differences combine what came out.
//! 4. Resource types that were not asked for are left out.
//!
//! Nothing here reads files but [`definitions`], at load, and [`artifact`].

mod artifact;
mod definitions;
mod evaluate;
mod methods;
mod node;
mod pattern;
mod spec;
mod state;
mod written;

use std::collections::{BTreeMap, BTreeSet};

pub use artifact::artifact;
pub use definitions::Selector;
pub(super) use definitions::read as read_selectors;
pub use node::{Graph, Node, ResourceType, TestKind};
pub use spec::Indirect;
pub use state::{LakeState, State};

use super::Project;
use crate::error::{Error, Result};
use evaluate::Evaluation;

/// What is to be selected.
#[derive(Debug, Clone, Default)]
pub struct Request<'a> {
    /// Words of `--select`; empty: everything, or the project's default selector.
    pub select: &'a [String],
    pub exclude: &'a [String],
    /// A definition of `selectors.yml`; `select` and `exclude` then say nothing.
    pub selector: Option<&'a str>,
    pub indirect: Indirect,
    /// None: all.
    pub resource_types: Option<&'a [ResourceType]>,
    pub exclude_resource_types: &'a [ResourceType],
    /// The artifacts to compare with.
    pub state: Option<&'a State>,
    /// How tables stand to their models' SQL, by unique id; compared with where there is no [`Request::state`].
    pub lake: Option<&'a BTreeMap<String, LakeState>>,
}

/// What is selected.
#[derive(Debug, Default)]
pub struct Selected {
    /// By unique id.
    pub nodes: Vec<Node>,
    /// Words that match nothing.
    pub warnings: Vec<Error>,
}

impl Selected {
    /// The nodes with these unique ids, as far as the project still has them.
    pub fn of(project: &Project, ids: &BTreeSet<String>) -> Self {
        let nodes = Graph::new(project).nodes.into_iter().filter(|n| ids.contains(&n.unique_id));
        Selected { nodes: nodes.collect(), warnings: Vec::new() }
    }

    /// Whether the node with this unique id is selected.
    pub fn contains(&self, unique_id: &str) -> bool {
        self.nodes.binary_search_by(|n| n.unique_id.as_str().cmp(unique_id)).is_ok()
    }

    /// Names of the selected nodes that make tables: models, snapshots, seeds.
    pub fn models(&self) -> BTreeSet<String> {
        let makes =
            |n: &&Node| matches!(n.resource_type, ResourceType::Model | ResourceType::Snapshot | ResourceType::Seed);
        self.nodes.iter().filter(makes).map(|n| n.key.clone()).collect()
    }
}

/// The nodes of `project` that `request` asks for. Words that match nothing are warnings; words that mean nothing are errors.
pub fn select(project: &Project, request: &Request<'_>) -> Result<Selected> {
    let graph = Graph::new(project);
    let spec = specification(project, request)?;
    let mut evaluation = Evaluation { graph: &graph, project, request, warnings: Vec::new(), hint: None };
    let found = evaluation.run(&spec)?.direct;
    let warnings = evaluation.warnings;
    let wanted = |node: &Node| {
        request.resource_types.is_none_or(|types| types.contains(&node.resource_type))
            && !request.exclude_resource_types.contains(&node.resource_type)
    };
    let nodes = graph.nodes.into_iter().enumerate().filter(|(i, n)| found.contains(i) && wanted(n)).map(|(_, n)| n);
    Ok(Selected { nodes: nodes.collect(), warnings })
}

/// Whether the request compares with a state of which it holds nothing, so that the lake is to be looked at.
pub fn compares_with_lake(project: &Project, request: &Request<'_>) -> Result<bool> {
    Ok(request.state.is_none() && specification(project, request)?.asks(project, spec::Method::State))
}

fn specification(project: &Project, request: &Request<'_>) -> Result<spec::Spec> {
    let default = project.selectors.iter().find(|s| s.default);
    Ok(match (request.selector, default) {
        (Some(name), _) => match project.selectors.iter().find(|s| s.name == name) {
            Some(selector) => selector.spec.clone(),
            None => {
                return Err(evaluate::unknown_selector(name, project.selectors.iter().map(|s| s.name.as_str())));
            }
        },
        (None, Some(selector)) if request.select.is_empty() && request.exclude.is_empty() => selector.spec.clone(),
        _ => spec::command_line(request.select, request.exclude)?,
    })
}

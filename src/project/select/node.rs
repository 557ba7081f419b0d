//! What selection sees of a project: nodes of every resource type in one graph.
//!
//! A resource type joins by becoming [`Node`]s in [`Graph::new`]; nothing else in this folder asks what kind of thing a node
//! was made from.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;

use serde_json::Value as Json;

use crate::project::{
    DataTest, DeclaredSource, Dependency, Exposure, Materialization, Model, Project, SourceTable, UnitTest,
};

/// What a node is, by dbt's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    Model,
    Snapshot,
    Seed,
    Test,
    UnitTest,
    Source,
    Exposure,
}

impl ResourceType {
    pub const ALL: [ResourceType; 7] = [
        ResourceType::Model,
        ResourceType::Snapshot,
        ResourceType::Seed,
        ResourceType::Test,
        ResourceType::UnitTest,
        ResourceType::Source,
        ResourceType::Exposure,
    ];

    pub fn name(self) -> &'static str {
        match self {
            ResourceType::Model => "model",
            ResourceType::Snapshot => "snapshot",
            ResourceType::Seed => "seed",
            ResourceType::Test => "test",
            ResourceType::UnitTest => "unit_test",
            ResourceType::Source => "source",
            ResourceType::Exposure => "exposure",
        }
    }

    /// Tests come along with what they test.
    pub fn is_test(self) -> bool {
        matches!(self, ResourceType::Test | ResourceType::UnitTest)
    }
}

/// The test a node of type [`ResourceType::Test`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestKind {
    /// Name of the generic test: `not_null`.
    Generic(String),
    Singular,
}

/// Something that can be selected.
#[derive(Debug, Clone)]
pub struct Node {
    pub unique_id: String,
    pub resource_type: ResourceType,
    pub name: String,
    /// Name of the `sources:` entry of a source table.
    pub source_name: Option<String>,
    /// Of a model: its name in the project, where no other has it ([`Model::name`]).
    pub key: String,
    pub package: String,
    /// `[package, folder, …, name]`.
    pub fqn: Vec<String>,
    /// File it stands in, relative to the project.
    pub path: PathBuf,
    /// Properties file that describes it, where that is another.
    pub described_in: Option<PathBuf>,
    pub tags: Vec<String>,
    /// As written at any level, and what selection can ask for where nothing is written.
    pub config: BTreeMap<String, Json>,
    /// Unique ids of what it reads.
    pub depends_on: Vec<String>,
    /// Of a data test.
    pub test: Option<TestKind>,
    pub schema: Option<String>,
    pub alias: Option<String>,
}

impl Node {
    /// How `--select` names exactly this: `telecom.bronze.calls`, `source:telecom.telco.calls`.
    pub fn selector(&self) -> String {
        match self.resource_type {
            ResourceType::Source => {
                let source = self.source_name.as_deref().unwrap_or_default();
                format!("source:{}.{source}.{}", self.package, self.name)
            }
            ResourceType::Exposure => format!("exposure:{}.{}", self.package, self.name),
            ResourceType::UnitTest => format!("unit_test:{}.{}", self.package, self.name),
            _ => self.fqn.join("."),
        }
    }

    /// The name alone; a source table's has its source in front.
    pub fn search_name(&self) -> String {
        match &self.source_name {
            Some(source) => format!("{source}.{}", self.name),
            None => self.name.clone(),
        }
    }

    /// The node as `smelt ls --output json` shows it, with dbt's keys.
    pub fn json(&self) -> serde_json::Map<String, Json> {
        let mut json = serde_json::Map::new();
        let mut add = |key: &str, value: Json| json.insert(key.to_string(), value);
        add("unique_id", self.unique_id.clone().into());
        add("name", self.name.clone().into());
        add("resource_type", self.resource_type.name().into());
        add("package_name", self.package.clone().into());
        add("original_file_path", self.path.to_string_lossy().into_owned().into());
        if let Some(source) = &self.source_name {
            add("source_name", source.clone().into());
        }
        if let Some(schema) = &self.schema {
            add("schema", schema.clone().into());
        }
        if let Some(alias) = &self.alias {
            add("alias", alias.clone().into());
        }
        add("tags", self.tags.clone().into());
        add("fqn", self.fqn.clone().into());
        add("config", Json::Object(self.config.clone().into_iter().collect()));
        if self.resource_type != ResourceType::Source {
            add("depends_on", serde_json::json!({"nodes": self.depends_on, "macros": []}));
        }
        json
    }
}

/// Nodes by unique id, and who reads whom.
#[derive(Debug)]
pub struct Graph {
    pub nodes: Vec<Node>,
    parents: Vec<Vec<usize>>,
    children: Vec<Vec<usize>>,
}

impl Graph {
    /// Every node of a project.
    pub fn new(project: &Project) -> Self {
        let ids = Ids::new(project);
        let mut nodes: Vec<Node> = Vec::new();
        nodes.extend(project.models.iter().map(|m| model(m, project, &ids)));
        nodes.extend(project.sources.iter().map(|s| source(s, project)));
        nodes.extend(project.inventory.exposures.iter().map(|e| exposure(e, &ids)));
        nodes.extend(project.tests.iter().map(|t| data_test(t, &ids)));
        nodes.extend(project.unit_tests.iter().map(|t| unit_test(t, &ids)));
        Self::of(nodes)
    }

    /// The graph of these nodes; reads of what is not among them are no edges.
    pub fn of(mut nodes: Vec<Node>) -> Self {
        nodes.sort_by(|a, b| a.unique_id.cmp(&b.unique_id));
        let index: HashMap<&str, usize> = nodes.iter().enumerate().map(|(i, n)| (n.unique_id.as_str(), i)).collect();
        let mut parents = vec![Vec::new(); nodes.len()];
        let mut children = vec![Vec::new(); nodes.len()];
        for (i, node) in nodes.iter().enumerate() {
            let read: BTreeSet<usize> = node.depends_on.iter().filter_map(|d| index.get(d.as_str()).copied()).collect();
            for parent in read {
                parents[i].push(parent);
                children[parent].push(i);
            }
        }
        Graph { nodes, parents, children }
    }

    /// Everything that `from` reads within `depth` steps (None: at any distance), without `from` unless it is reached.
    pub(in crate::project) fn ancestors(&self, from: &BTreeSet<usize>, depth: Option<usize>) -> BTreeSet<usize> {
        reach(from, &self.parents, depth)
    }

    /// Everything that reads `from` within `depth` steps.
    pub(super) fn descendants(&self, from: &BTreeSet<usize>, depth: Option<usize>) -> BTreeSet<usize> {
        reach(from, &self.children, depth)
    }

    pub(in crate::project) fn parents(&self, of: usize) -> &[usize] {
        &self.parents[of]
    }

    pub(super) fn children(&self, of: usize) -> &[usize] {
        &self.children[of]
    }
}

fn reach(from: &BTreeSet<usize>, edges: &[Vec<usize>], depth: Option<usize>) -> BTreeSet<usize> {
    let limit = depth.unwrap_or(usize::MAX);
    let mut seen = from.clone();
    let mut found = BTreeSet::new();
    let mut queue: VecDeque<(usize, usize)> = from.iter().map(|i| (*i, 0)).collect();
    while let Some((at, steps)) = queue.pop_front() {
        if steps == limit {
            continue;
        }
        for next in &edges[at] {
            found.insert(*next);
            if seen.insert(*next) {
                queue.push_back((*next, steps + 1));
            }
        }
    }
    found
}

/// Unique ids of what models and tests read.
struct Ids(HashMap<Dependency, String>);

impl Ids {
    fn new(project: &Project) -> Self {
        let models = project.models.iter().map(|m| (Dependency::Model(m.name.clone()), m.unique_id.clone()));
        let sources =
            project.sources.iter().map(|s| (Dependency::Source(s.source.clone(), s.name.clone()), s.unique_id.clone()));
        Ids(models.chain(sources).collect())
    }

    fn of(&self, dependencies: &[Dependency]) -> Vec<String> {
        dependencies.iter().filter_map(|d| self.0.get(d).cloned()).collect()
    }
}

fn model(model: &Model, project: &Project, ids: &Ids) -> Node {
    let mut config = model.config.all.clone();
    let mut default = |key: &str, value: Json| {
        config.entry(key.to_string()).or_insert(value);
    };
    default("enabled", true.into());
    default("schema", model.schema.clone().into());
    default("alias", model.alias.clone().into());
    default("access", "protected".into());
    config.insert("materialized".to_string(), model.materialized.name().into());
    config.insert("tags".to_string(), model.tags.clone().into());
    Node {
        unique_id: model.unique_id.clone(),
        resource_type: match model.materialized {
            Materialization::Snapshot => ResourceType::Snapshot,
            Materialization::Seed => ResourceType::Seed,
            _ => ResourceType::Model,
        },
        name: model.own_name().to_string(),
        key: model.name.clone(),
        source_name: None,
        package: model.package.clone(),
        fqn: model.fqn.clone(),
        path: model.path.clone(),
        described_in: project.inventory.models.get(&model.name.to_lowercase()).map(|d| d.path.clone()),
        tags: model.tags.clone(),
        config,
        depends_on: ids.of(&model.depends_on),
        test: None,
        schema: Some(model.schema.clone()),
        alias: Some(model.alias.clone()),
    }
}

fn source(source: &SourceTable, project: &Project) -> Node {
    let declared = project.inventory.sources.get(&(source.source.clone(), source.name.clone()));
    let tags = declared.map(DeclaredSource::tags).unwrap_or_default();
    let mut config: BTreeMap<String, Json> = declared.map(DeclaredSource::config).into_iter().flatten().collect();
    config.insert("enabled".to_string(), true.into());
    config.insert("tags".to_string(), tags.clone().into());
    Node {
        unique_id: source.unique_id.clone(),
        resource_type: ResourceType::Source,
        name: source.name.clone(),
        key: source.name.clone(),
        source_name: Some(source.source_name().to_string()),
        package: source.package.clone(),
        fqn: source.fqn.clone(),
        path: source.span.file.clone(),
        described_in: None,
        tags,
        config,
        depends_on: Vec::new(),
        test: None,
        schema: None,
        alias: None,
    }
}

fn exposure(exposure: &Exposure, ids: &Ids) -> Node {
    let mut config: BTreeMap<String, Json> = exposure.config.as_object().cloned().into_iter().flatten().collect();
    config.insert("enabled".to_string(), true.into());
    config.insert("tags".to_string(), exposure.tags.clone().into());
    config.insert("meta".to_string(), exposure.meta.clone());
    Node {
        unique_id: exposure.unique_id.clone(),
        resource_type: ResourceType::Exposure,
        name: exposure.name.clone(),
        key: exposure.name.clone(),
        source_name: None,
        package: exposure.package.clone(),
        fqn: exposure.fqn.clone(),
        path: exposure.path.clone(),
        described_in: None,
        tags: exposure.tags.clone(),
        config,
        depends_on: ids.of(&exposure.depends_on),
        test: None,
        schema: None,
        alias: None,
    }
}

fn data_test(test: &DataTest, ids: &Ids) -> Node {
    let severity = match test.severity {
        crate::project::Severity::Warn => "WARN",
        crate::project::Severity::Error => "ERROR",
    };
    let config = BTreeMap::from([
        ("enabled".to_string(), true.into()),
        ("materialized".to_string(), "test".into()),
        ("severity".to_string(), severity.into()),
        ("tags".to_string(), test.tags.clone().into()),
    ]);
    Node {
        unique_id: test.unique_id.clone(),
        resource_type: ResourceType::Test,
        name: test.name.clone(),
        key: test.name.clone(),
        source_name: None,
        package: test.package.clone(),
        fqn: test.fqn.clone(),
        path: test.path.clone(),
        described_in: None,
        tags: test.tags.clone(),
        config,
        depends_on: ids.of(&test.depends_on),
        test: Some(match &test.test_name {
            Some(name) => TestKind::Generic(name.clone()),
            None => TestKind::Singular,
        }),
        schema: None,
        alias: None,
    }
}

/// dbt's unit tests hang on the model they test alone.
fn unit_test(test: &UnitTest, ids: &Ids) -> Node {
    let mut config = test.config.clone();
    config.insert("enabled".to_string(), true.into());
    config.insert("tags".to_string(), test.tags.clone().into());
    Node {
        unique_id: test.unique_id.clone(),
        resource_type: ResourceType::UnitTest,
        name: test.name.clone(),
        key: test.name.clone(),
        source_name: None,
        package: test.package.clone(),
        fqn: test.fqn.clone(),
        path: test.path.clone(),
        described_in: None,
        tags: test.tags.clone(),
        config,
        depends_on: ids.of(&[Dependency::Model(test.model.clone())]),
        test: None,
        schema: None,
        alias: None,
    }
}

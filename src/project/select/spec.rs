//! What a selection asks for, as a tree: criteria, and unions, intersections and differences of them.
//!
//! Words of the command line become trees here; definitions of `selectors.yml` do in [`super::definitions`].

use regex::Regex;
use std::sync::LazyLock;

use crate::error::{Error, Result};
use crate::project::Project;
use crate::project::problems::suggest;

/// How tests come along with what they test, by dbt's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Indirect {
    /// A test that reads anything selected.
    #[default]
    Eager,
    /// A test that reads only what is selected.
    Cautious,
    /// A test that reads only what is selected or what that reads.
    Buildable,
    /// No test but those that are named.
    Empty,
}

impl Indirect {
    pub(in crate::project) const NAMES: [(&'static str, Indirect); 4] = [
        ("eager", Indirect::Eager),
        ("cautious", Indirect::Cautious),
        ("buildable", Indirect::Buildable),
        ("empty", Indirect::Empty),
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Fqn,
    /// The name alone, whatever folder it stands in: ours.
    Name,
    Tag,
    Group,
    Access,
    Source,
    Exposure,
    UnitTest,
    Path,
    File,
    Package,
    Config,
    TestName,
    TestType,
    ResourceType,
    State,
    Result,
    SourceStatus,
    Version,
    /// A definition of `selectors.yml`.
    Selector,
    /// A resource type of dbt that smelt has not: matches nothing.
    Absent,
}

const METHODS: [(&str, Method); 24] = [
    ("fqn", Method::Fqn),
    ("name", Method::Name),
    ("tag", Method::Tag),
    ("group", Method::Group),
    ("access", Method::Access),
    ("source", Method::Source),
    ("exposure", Method::Exposure),
    ("unit_test", Method::UnitTest),
    ("path", Method::Path),
    ("file", Method::File),
    ("package", Method::Package),
    ("config", Method::Config),
    ("test_name", Method::TestName),
    ("test_type", Method::TestType),
    ("resource_type", Method::ResourceType),
    ("state", Method::State),
    ("result", Method::Result),
    ("source_status", Method::SourceStatus),
    ("version", Method::Version),
    ("selector", Method::Selector),
    ("metric", Method::Absent),
    ("semantic_model", Method::Absent),
    ("saved_query", Method::Absent),
    ("function", Method::Absent),
];

/// How far along the graph a criterion reaches: None of steps is any distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach(pub Option<usize>);

/// `2+config.meta.owner:bi+`.
#[derive(Debug, Clone)]
pub(super) struct Criterion {
    pub method: Method,
    /// `[meta, owner]`.
    pub arguments: Vec<String>,
    pub value: String,
    /// `@`: the descendants, and everything those need.
    pub childrens_parents: bool,
    pub parents: Option<Reach>,
    pub children: Option<Reach>,
    /// None: as the command line says.
    pub indirect: Option<Indirect>,
}

#[derive(Debug, Clone)]
pub(super) enum Spec {
    Criterion(Criterion),
    Set(Set),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Union,
    Intersection,
    /// The first without the others.
    Difference,
}

#[derive(Debug, Clone)]
pub(super) struct Set {
    pub operation: Operation,
    pub parts: Vec<Spec>,
    /// Tests that were set aside are looked at again when the parts have come together: dbt does so for words of the
    /// command line only.
    pub completes: bool,
    /// The word as written, where it is worth a warning that it matches nothing.
    pub expected: Option<String>,
}

impl Spec {
    /// Whether a criterion of it has this method.
    pub fn asks(&self, project: &Project, method: Method) -> bool {
        match self {
            Spec::Criterion(c) if c.method == Method::Selector => {
                project.selectors.iter().any(|s| s.name == c.value && s.spec.asks(project, method))
            }
            Spec::Criterion(c) => c.method == method,
            Spec::Set(set) => set.parts.iter().any(|part| part.asks(project, method)),
        }
    }

    pub fn set(operation: Operation, parts: Vec<Spec>) -> Spec {
        Spec::Set(Set { operation, parts, completes: false, expected: None })
    }
}

/// What `--select` and `--exclude` ask for; an empty `select` is everything.
pub(super) fn command_line(select: &[String], exclude: &[String]) -> Result<Spec> {
    let included = match select.iter().all(|s| s.trim().is_empty()) {
        true => {
            let all = Criterion::plain(Method::Fqn, "*");
            let source = Criterion { method: Method::Source, ..all.clone() };
            let exposure = Criterion { method: Method::Exposure, ..all.clone() };
            let unit_test = Criterion { method: Method::UnitTest, ..all.clone() };
            Spec::set(Operation::Union, [all, source, exposure, unit_test].map(Spec::Criterion).to_vec())
        }
        false => union(select)?,
    };
    Ok(Spec::set(Operation::Difference, vec![included, union(exclude)?]))
}

fn union(arguments: &[String]) -> Result<Spec> {
    let mut words = Vec::new();
    for word in arguments.iter().flat_map(|a| a.split_whitespace()) {
        let criteria: Result<Vec<Spec>> = word.split(',').map(|term| Ok(Spec::Criterion(criterion(term)?))).collect();
        words.push(Spec::Set(Set {
            operation: Operation::Intersection,
            parts: criteria?,
            completes: true,
            expected: Some(word.to_string()),
        }));
    }
    Ok(Spec::Set(Set { operation: Operation::Union, parts: words, completes: true, expected: None }))
}

impl Criterion {
    pub fn plain(method: Method, value: &str) -> Self {
        Criterion {
            method,
            arguments: Vec::new(),
            value: value.to_string(),
            childrens_parents: false,
            parents: None,
            children: None,
            indirect: None,
        }
    }
}

/// `config.materialized` as a method with its arguments.
pub(super) fn method(text: &str) -> Result<(Method, Vec<String>)> {
    let mut parts = text.split('.').map(str::to_string);
    let name = parts.next().unwrap_or_default();
    let Some((_, method)) = METHODS.iter().find(|(known, _)| *known == name) else {
        return Err(Error::user("bad-selection", format!("unknown selection method `{name}`")).with_hint(suggest(
            &name,
            METHODS.map(|(name, _)| name),
            "methods",
        )));
    };
    let arguments: Vec<String> = parts.collect();
    if *method == Method::Config && arguments.iter().all(String::is_empty) {
        return Err(Error::user("bad-selection", format!("`{text}` names no configuration"))
            .with_hint("write config.materialized:view or config.meta.owner:bi"));
    }
    Ok((*method, arguments))
}

/// The method of a value that has none in front: what looks like a path is one.
pub(super) fn default_method(value: &str) -> Method {
    let lower = value.to_lowercase();
    match () {
        () if value.contains('/') => Method::Path,
        () if [".sql", ".py", ".csv"].iter().any(|end| lower.ends_with(end)) => Method::File,
        () => Method::Fqn,
    }
}

/// One criterion as it is written on a command line: `@name`, `2+method:value`, `value+1`.
pub(super) fn criterion(text: &str) -> Result<Criterion> {
    static SYNTAX: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(
            r"\A(?P<whole>@)?(?:(?P<parents>\d*)\+)?(?:(?P<method>[\w.]+):)?(?P<value>.*?)(?:\+(?P<children>\d*))?\z",
        )
        .ok()
    });
    let bad = |message: String| {
        Error::user("bad-selection", message)
            .with_hint("write name, +name, name+2, tag:x, path:queries/gold, source:x+, config.materialized:view")
    };
    let Some(found) = SYNTAX.as_ref().and_then(|s| s.captures(text)) else {
        return Err(bad(format!("bad selection `{text}`")));
    };
    let reach = |group: &str| match found.name(group).map(|m| m.as_str()) {
        None => Ok(None),
        Some("") => Ok(Some(Reach(None))),
        Some(n) => match n.parse() {
            Ok(n) => Ok(Some(Reach(Some(n)))),
            Err(_) => Err(bad(format!("bad number of steps in the selection `{text}`"))),
        },
    };
    let value = found.name("value").map_or("", |m| m.as_str());
    if value.is_empty() {
        return Err(bad(format!("nothing is named in the selection `{text}`")));
    }
    let (method, arguments) = match found.name("method") {
        Some(name) => method(name.as_str())?,
        None => (default_method(value), Vec::new()),
    };
    let criterion = Criterion {
        method,
        arguments,
        value: value.to_string(),
        childrens_parents: found.name("whole").is_some(),
        parents: reach("parents")?,
        children: reach("children")?,
        indirect: None,
    };
    check_operators(&criterion, text)?;
    Ok(criterion)
}

/// `@x` has everything `x+` has.
pub(super) fn check_operators(criterion: &Criterion, text: &str) -> Result<()> {
    if criterion.childrens_parents && criterion.children.is_some() {
        return Err(Error::user("bad-selection", format!("`@` before and `+` after do not go together in `{text}`"))
            .with_hint("`@x` is `x+` and everything those need: leave one of them out"));
    }
    Ok(())
}

//! From a folder to a [`Project`]: the project and its packages, each read by a [`Loader`], in one graph.
//!
//! 1. The project file and the packages' (settings), then everybody's macros.
//! 2. Each package's files with their merged configuration ([`super::load`]).
//! 3. All names, checked against each other; then every file is compiled and every data test made.
//! 4. The graph is ordered, circles are found.
//!
//! A step that finds problems records them and goes on with what it has; nothing is returned unless all steps found none.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value as Json;

use super::answers::Answers;
use super::facts;
use super::graph::{self, NamedSource, Names, Vertex};
use super::jinja::{Engine, MacroPackage, Scope};
use super::load::{Draft, Loader, Reads};
use super::names;
use super::operations::Operations;
use super::plain;
use super::problems::Problems;
use super::properties::Properties;
use super::select;
use super::settings::{self, Settings};
use super::texts::{files, without_materializations};
use super::yaml::Text;
use super::{Deferred, Dependency, Dialect, Inventory, Model, Project};
use crate::env::Env;
use crate::error::{Error, Span};

/// What a command line says about a project.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The folder with `smelt.yml` or `dbt_project.yml`.
    pub dir: PathBuf,
    /// Instead of the project's own choice.
    pub target: Option<String>,
    /// On top of the project's `vars`.
    pub vars: BTreeMap<String, Json>,
    pub full_refresh: bool,
    /// Instead of the target's `lake`.
    pub lake: Option<String>,
    /// `invocation_id` in templates; None: a new one.
    pub invocation_id: Option<String>,
    /// Instead of the `profile` of dbt_project.yml.
    pub profile: Option<String>,
    /// The folder with profiles.yml, instead of the usual ones.
    pub profiles_dir: Option<PathBuf>,
    /// Tables that stand in for models, by the models' unique ids.
    pub deferred: BTreeMap<String, Deferred>,
    /// Where templates' questions to the lake go.
    pub answers: Option<Arc<dyn Answers>>,
    /// dbt's name of the command: `flags.WHICH`; empty: `run`.
    pub which: String,
    /// Unique ids of the nodes that are selected: `selected_resources`.
    pub selected: Vec<String>,
}

/// Loads the project in `options.dir`. All errors are returned, in the order of files and lines.
pub fn load(options: &LoadOptions, env: &Env) -> Result<Project, Vec<Error>> {
    let mut p = Problems::default();
    match load_into(options, env, &mut p)? {
        project if p.errors.is_empty() => Ok(Project { warnings: sorted(p.warnings), ..project }),
        _ => Err(sorted(p.errors)),
    }
}

/// What is right in a project that has mistakes: without the models and sources whose files have any, and without what cannot be made out
/// because of them. For errors that only planning finds; None where the project file itself is wrong.
pub fn load_sound_part(options: &LoadOptions, env: &Env) -> Option<Project> {
    let mut p = Problems::default();
    let mut project = load_into(options, env, &mut p).ok()?;
    let wrong: BTreeSet<PathBuf> = p.errors.iter().filter_map(|e| Some(e.span()?.file.clone())).collect();
    let is_project_file = |file: &PathBuf| settings::is_project_file(file);
    if wrong.iter().any(is_project_file) || p.errors.iter().any(|e| e.span().is_none()) {
        return None;
    }
    let described = &project.inventory.models;
    let is_sound = |model: &Arc<Model>| {
        let properties = described.get(&model.name.to_lowercase());
        !wrong.contains(&model.path)
            && !properties.is_some_and(|d| wrong.contains(&d.path))
            && !p.flawed.contains(&model.name)
    };
    project.models.retain(is_sound);
    project.sources.retain(|source| !wrong.contains(&source.span.file));
    Some(project)
}

/// The project as far as it can be read; its errors are in `p`.
fn load_into(options: &LoadOptions, env: &Env, p: &mut Problems) -> Result<Project, Vec<Error>> {
    let dir = std::path::absolute(&options.dir).map_err(|e| vec![Error::from(e)])?;
    // `absolute` keeps a trailing `.`.
    let dir: PathBuf = dir.components().collect();
    let options = LoadOptions { dir, ..options.clone() };
    let settings = match settings::read(&options, env, p) {
        Ok(settings) => settings,
        Err(error) => {
            p.errors.push(error);
            return Err(sorted(std::mem::take(&mut p.errors)));
        }
    };
    Ok(load_all(&options, settings, env, p))
}

/// By file and line; problems without a place first. The same problem, found by two steps, is said once.
pub fn sorted(mut errors: Vec<Error>) -> Vec<Error> {
    let place = |e: &Error| e.span().map(|s| (s.file.clone(), s.line, s.column));
    errors.sort_by_key(place);
    errors.dedup_by(|a, b| a.message() == b.message() && a.span() == b.span());
    errors
}

/// Loads every package, the project itself first, into one graph.
fn load_all(options: &LoadOptions, settings: Vec<Settings>, env: &Env, p: &mut Problems) -> Project {
    let macros = settings.iter().map(|s| MacroPackage { name: s.name.clone(), files: macro_files(&options.dir, s, p) });
    let macros: Vec<MacroPackage> = macros.collect();
    let definitions: Vec<_> = macros.iter().map(|m| super::macros::definitions(&m.name, &m.files)).collect();
    let macro_texts: Vec<Arc<Text>> = macros.iter().flat_map(|m| m.files.iter().cloned()).collect();
    let in_macros = |word: &str| macro_texts.iter().any(|text| text.content.contains(word));
    let dispatch = settings.first().map(|s| s.dispatch.clone()).unwrap_or_default();
    let engine = Arc::new(Engine::new(macros, dispatch, env, p));
    let mut definitions = definitions.into_iter();
    let loader = |settings: Settings| {
        let macros = definitions.next().unwrap_or_default();
        let globals = Arc::clone(&settings.globals);
        Loader { dir: &options.dir, settings, engine: &engine, globals, said: Mutex::default(), macros }
    };
    let loaders: Vec<Loader<'_>> = settings.into_iter().map(loader).collect();
    let mut parts: Vec<(Properties, Vec<Draft>)> = Vec::new();
    for loader in &loaders {
        let mut properties = loader.properties(p);
        let drafts = loader.drafts(&mut properties, p);
        parts.push((properties, drafts));
    }
    give_keys(&loaders, &mut parts);
    let everything: Vec<&Draft> = parts.iter().flat_map(|(_, drafts)| drafts).collect();
    for (loader, (properties, drafts)) in loaders.iter().zip(&parts) {
        loader.note_unused(drafts, &everything, properties, p);
    }
    let mut names = all_names(&loaders, &parts, p);
    names.defer(options.deferred.clone());
    let mut graph = facts::empty();
    for (loader, (properties, drafts)) in loaders.iter().zip(&parts) {
        loader.facts(&mut graph, drafts, properties, &names);
    }
    names.show(graph.clone());
    let names = Arc::new(names);

    let mut inventory = Inventory::default();
    let mut unit_tests: Vec<super::UnitTest> = Vec::new();
    let told: Vec<usize> = loaders.iter().map(|l| l.said.lock().len()).collect();
    let mut tests = all_tests(&loaders, &parts, &names, p);
    for (loader, (properties, drafts)) in loaders.iter().zip(&mut parts) {
        unit_tests.extend(loader.unit_tests(drafts, properties, &names, p));
        inventory.extend(loader.inventory(drafts, properties, &names, p));
    }
    let root = loaders.first().map_or("", |l| l.settings.name.as_str());
    plain::facts(&mut graph, &tests, &unit_tests, &inventory, &names, root);
    names.show(graph);
    if in_macros("graph") || in_tests(&tests, "graph") {
        // They look at the tests that there are.
        for (loader, told) in loaders.iter().zip(told) {
            loader.said.lock().truncate(told);
        }
        tests = all_tests(&loaders, &parts, &names, p);
    }
    let asks_selection = in_macros(SELECTED) || in_tests(&tests, SELECTED) || in_drafts(&parts, SELECTED);
    let mut models: Vec<(Model, Reads)> = Vec::new();
    for (loader, (_, drafts)) in loaders.iter().zip(&parts) {
        for draft in drafts.iter().filter(|d| d.readable && d.configured.config.enabled) {
            models.extend(loader.compile(draft, &names, p));
        }
    }
    check_test_names(&mut tests, p);

    check_asking_views(&models, p);
    let vertices: Vec<Vertex<'_>> =
        models.iter().map(|(model, reads)| Vertex { name: &model.name, reads: model_reads(reads) }).collect();
    let order = graph::order(&vertices, p);
    let mut slots: Vec<Option<Model>> = models.into_iter().map(|(model, _)| Some(model)).collect();
    let models = order.into_iter().filter_map(|i| slots[i].take()).map(Arc::new).collect();
    let declared = parts.into_iter().flat_map(|(properties, _)| properties.sources);
    let mut sources: Vec<_> = declared.filter(|s| s.enabled).map(|s| Arc::new(s.table)).collect();
    sources.sort_by(|a, b| (&a.source, &a.name).cmp(&(&b.source, &b.name)));
    let globals: Vec<_> = loaders.iter().map(|l| Arc::clone(&l.globals)).collect();
    let written: Vec<_> = loaders.iter().map(|l| (l.settings.name.clone(), l.settings.hooks.clone())).collect();
    let operations = globals.split_first().map(|(own, packages)| {
        let (engine, names) = (Arc::clone(&engine), Arc::clone(&names));
        Arc::new(Operations::new(engine, names, own, packages.to_vec(), &written))
    });
    let said = loaders.iter().flat_map(|l| std::mem::take(&mut *l.said.lock())).collect();
    let root = loaders.into_iter().next().map(|l| l.settings);
    let selectors = match &root {
        Some(root) => select::read_selectors(&options.dir, &engine, &Scope::reading(&root.globals), p),
        None => Vec::new(),
    };
    Project {
        name: root.as_ref().map(|s| s.name.clone()).unwrap_or_default(),
        dir: options.dir.clone(),
        dialect: root.as_ref().map(|s| s.dialect).unwrap_or_default(),
        flags: root.as_ref().map(|s| s.flags.clone()).unwrap_or_default(),
        target: root.map_or_else(|| super::targets::nowhere(""), |s| s.target),
        sources,
        models,
        tests,
        selectors,
        unit_tests,
        inventory,
        operations,
        asks_selection,
        warnings: Vec::new(),
        said,
    }
}

/// Tells models and sources of one name apart that stand in several packages.
fn give_keys(loaders: &[Loader<'_>], parts: &mut [(Properties, Vec<Draft>)]) {
    let package = |i: usize| loaders[i].settings.name.as_str();
    let all = || parts.iter().enumerate();
    let models: Vec<(&str, &str, bool)> = all()
        .flat_map(|(i, (_, drafts))| {
            drafts.iter().map(move |d| (package(i), d.name.as_str(), d.configured.config.enabled))
        })
        .collect();
    let tables: Vec<(usize, String, bool)> = all()
        .flat_map(|(i, (properties, _))| {
            properties.sources.iter().map(move |s| (i, format!("{}.{}", s.table.source, s.table.name), s.enabled))
        })
        .collect();
    let sources: Vec<(&str, &str, bool)> =
        tables.iter().map(|(i, name, enabled)| (package(*i), name.as_str(), *enabled)).collect();
    let keys = names::keys(&models);
    let qualified: Vec<bool> =
        names::keys(&sources).iter().zip(&tables).map(|(key, (_, name, _))| key != name).collect();
    for (draft, key) in parts.iter_mut().flat_map(|(_, drafts)| drafts).zip(keys) {
        draft.key = key;
    }
    let declared = parts.iter_mut().flat_map(|(properties, _)| &mut properties.sources);
    for (source, _) in declared.zip(qualified).filter(|(_, qualified)| *qualified) {
        source.table.source = format!("{}.{}", source.table.package, source.table.source);
    }
}

/// What a template asks for that depends on the command line.
const SELECTED: &str = "selected_resources";

fn all_tests(
    loaders: &[Loader<'_>],
    parts: &[(Properties, Vec<Draft>)],
    names: &Arc<Names>,
    p: &mut Problems,
) -> Vec<super::DataTest> {
    let of = |(loader, (properties, drafts)): (&Loader<'_>, &(Properties, Vec<Draft>))| {
        loader.tests(drafts, properties, names, p)
    };
    loaders.iter().zip(parts).flat_map(of).collect()
}

fn in_tests(tests: &[super::DataTest], word: &str) -> bool {
    tests.iter().any(|test| test.source_map.text().contains(word))
}

fn in_drafts(parts: &[(Properties, Vec<Draft>)], word: &str) -> bool {
    parts.iter().flat_map(|(_, drafts)| drafts).any(|draft| draft.template.text.content.contains(word))
}

fn macro_files(dir: &Path, settings: &Settings, p: &mut Problems) -> Vec<Arc<Text>> {
    let mut macros = files(dir, &settings.macro_paths, "sql", p);
    // dbt's place for macros that are tests.
    let generic: Vec<String> = settings.test_paths.iter().map(|t| format!("{t}/generic")).collect();
    macros.extend(files(dir, &generic, "sql", p));
    macros.into_iter().map(|(text, _)| without_materializations(&text, p)).collect()
}

/// Every name of every package, checked against each other.
fn all_names(loaders: &[Loader<'_>], parts: &[(Properties, Vec<Draft>)], p: &mut Problems) -> Names {
    let mut models = Vec::new();
    let mut sources = Vec::new();
    for (loader, (properties, drafts)) in loaders.iter().zip(parts) {
        for draft in drafts {
            models.push(loader.named(draft, p));
        }
        sources.extend(properties.sources.iter().map(|s| NamedSource {
            unique_id: s.table.unique_id.clone(),
            package: loader.settings.name.clone(),
            key: s.table.source.clone(),
            source: s.table.source_name().to_string(),
            table: s.table.name.clone(),
            enabled: s.enabled,
            span: s.table.span.clone(),
            columns: all_columns(&s.table),
        }));
    }
    let quote = match loaders.first().map(|l| l.settings.dialect) {
        // There `"` makes a string.
        Some(Dialect::Spark | Dialect::Databricks) => '`',
        _ => '"',
    };
    let packages = loaders.iter().map(|l| l.settings.name.clone()).collect();
    Names::new(packages, quote, models, sources, p)
}

/// Its columns, unless metadata or a Delta log add to those that are declared.
fn all_columns(table: &super::SourceTable) -> Option<Vec<(String, String)>> {
    let declares_all = table.include.is_empty() && table.rescued_data.is_none() && !table.columns.is_empty();
    let is_delta = matches!(table.connector, super::Connector::Delta { .. });
    let columns = table.columns.iter().map(|c| Some((c.name.clone(), c.data_type.clone()?)));
    (declares_all && !is_delta).then(|| columns.collect())?
}

fn check_test_names(tests: &mut [super::DataTest], p: &mut Problems) {
    tests.sort_by(|a, b| (&a.name, &a.package).cmp(&(&b.name, &b.package)));
    // One declaration makes a test twice where two models have one name, which is said already.
    let is_same = |a: &super::DataTest, b: &super::DataTest| {
        a.name == b.name && a.package == b.package && a.source_map.start() != b.source_map.start()
    };
    for pair in tests.windows(2).filter(|w| is_same(&w[0], &w[1])) {
        p.error(
            "duplicate-test",
            pair[1].source_map.start(),
            format!("two data tests are named `{}`", pair[1].name),
            "give one of them a `name`",
        );
    }
}

/// A maintained table inlines the views it reads: what their templates ask the lake would not be kept up to date in it.
fn check_asking_views(models: &[(Model, Reads)], p: &mut Problems) {
    let find = |name: &str| models.iter().find(|(model, _)| model.name == name);
    for (model, reads) in models {
        let maintained = model.materialized.has_table() && !model.materialized.is_scheduled();
        for (dependency, span) in reads.iter().filter(|_| maintained) {
            let (mut open, mut seen) = (vec![dependency], BTreeSet::new());
            while let Some(dependency) = open.pop() {
                let Dependency::Model(name) = dependency else { continue };
                let Some((view, below)) = find(name).filter(|(m, _)| !m.materialized.has_table()) else { continue };
                if !seen.insert(&view.name) {
                    continue;
                }
                if view.asks.rows {
                    let (kind, name) = (model.materialized.name(), &view.name);
                    let message = format!(
                        "a {kind} is kept up to date, and `{name}`, which stands in it, asks the lake when it is compiled"
                    );
                    p.error("lake-dependent", span.clone(), message, format!("materialize `{name}` as `table`"));
                }
                open.extend(below.iter().map(|(dependency, _)| dependency));
            }
        }
    }
}

fn model_reads(reads: &[(Dependency, Span)]) -> Vec<(&str, Span)> {
    reads
        .iter()
        .filter_map(|(dependency, span)| match dependency {
            Dependency::Model(name) => Some((name.as_str(), span.clone())),
            Dependency::Source(..) => None,
        })
        .collect()
}

//! One package, the project itself or an installed one: its files, configured and compiled.
//!
//! Every model's file is rendered once to read its `config()`; `ref` and `source` give placeholders. With every configuration
//! of every package known ([`super::assemble`]), it is rendered again: this is the compiled SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value as Json;

use super::answers::{Asks, WAITS};
use super::call_sites;
use super::config::{self, Configured, RawConfig, Setting};
use super::contract;
use super::data_tests;
use super::facts;
use super::graph::{NamedModel, Names};
use super::jinja::{Asked, ConfigCall, Engine, Globals, Relation, Rendered, Resolve, Scope, Site, Template};
use super::naming;
use super::problems::Problems;
use super::properties::{ModelProperties, Owner, Properties};
use super::schedule::When;
use super::settings::{Defaults, Settings};
use super::texts::{files, plain, relation_query, snapshot_blocks, stem};
use super::unit_tests;
use super::yaml::Text;
use super::{Dependency, Expectation, MacroDefinition, Materialization, Model, Query, SeedFile, seed};
use crate::error::{Error, Span};

/// Loads one package: the project itself, or one that it has installed.
pub(super) struct Loader<'a> {
    pub dir: &'a Path,
    pub settings: Settings,
    pub engine: &'a Engine,
    pub globals: Arc<Globals>,
    pub said: Mutex<Vec<String>>,
    pub macros: Vec<MacroDefinition>,
}

/// What a file reads, each with the place of the first call that says so.
pub(super) type Reads = Vec<(Dependency, Span)>;

/// What a file or block makes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Snapshot,
    Seed,
}

/// A file, rendered.
pub(super) struct Attempt {
    pub rendered: Rendered,
    pub reads: Reads,
    pub scope: Arc<Scope>,
    /// Why its SQL is not known yet.
    pub waits: Option<Error>,
}

/// A model's file with its configuration.
pub(super) struct Draft {
    pub template: Template,
    /// The one name that no other model of the project has: [`super::names`].
    pub key: String,
    pub name: String,
    /// `[project, folder, …, name]`.
    pub fqn: Vec<String>,
    pub kind: Kind,
    properties: Option<ModelProperties>,
    raw: RawConfig,
    pub configured: Configured,
    /// Of a seed.
    seed: Option<Arc<SeedFile>>,
    /// Its Jinja works; if not, that has been recorded.
    pub readable: bool,
    /// What it asks for, before names are known.
    pub asked: Vec<Asked>,
}

impl Loader<'_> {
    pub fn properties(&self, p: &mut Problems) -> Properties {
        let s = &self.settings;
        let paths =
            [&s.model_paths, &s.property_paths, &s.test_paths, &s.snapshot_paths, &s.seed_paths, &s.macro_paths];
        let paths: Vec<String> = paths.into_iter().flatten().cloned().collect();
        let mut properties = Properties { docs: self.docs(&paths, p), ..Properties::default() };
        let scope = Scope::reading(&self.globals);
        let mut seen: Vec<PathBuf> = Vec::new();
        for extension in ["yml", "yaml"] {
            for (text, _) in files(self.dir, &paths, extension, p) {
                let is_project_file = ["smelt.yml", "smelt.yaml", "dbt_project.yml", "selectors.yml"]
                    .iter()
                    .any(|f| text.file == Path::new(f));
                if !is_project_file && !seen.contains(&text.file) {
                    seen.push(text.file.clone());
                    let prefix = [std::slice::from_ref(&self.settings.name), &self.folders(&text.file)].concat();
                    let owner = Owner {
                        prefix: &prefix,
                        target: &self.settings.target,
                        dir: self.dir,
                        defaults: [&self.settings.defaults.sources, &self.settings.overrides.sources],
                    };
                    properties.read(&text, &owner, self.engine, &scope, p);
                }
            }
        }
        properties
    }

    /// Step 2: the models' and snapshots' files with their merged configuration.
    pub fn drafts(&self, properties: &mut Properties, p: &mut Problems) -> Vec<Draft> {
        let mut drafts: Vec<Draft> = Vec::new();
        let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
        let paths = [&self.settings.model_paths[..], &self.settings.snapshot_paths].concat();
        for (text, folders) in files(self.dir, &paths, "sql", p) {
            let in_tests = self
                .settings
                .test_paths
                .iter()
                .chain(&self.settings.macro_paths)
                .any(|t| text.file.starts_with(plain(t)));
            if in_tests || !seen.insert(text.file.clone()) {
                continue;
            }
            let Some(blocks) = p.ok(snapshot_blocks(&text)) else { continue };
            for (name, block) in &blocks {
                let folders = [&folders[..], &[stem(&text.file)]].concat();
                drafts.extend(self.draft(block, name.clone(), &folders, Kind::Snapshot, properties, p));
            }
            if blocks.is_empty() {
                drafts.extend(self.draft(&text, stem(&text.file), &folders, Kind::Model, properties, p));
            }
        }
        for (text, folders) in files(self.dir, &self.settings.seed_paths, "csv", p) {
            drafts.extend(self.seed(&text, &folders, properties, p));
        }
        self.refuse_python(p);
        let declared = properties.snapshots.iter().filter_map(|s| Some((s.name.clone(), s.relation.clone()?)));
        for (name, relation) in declared.collect::<Vec<_>>() {
            if let Some(text) = relation_query(&relation, p) {
                let folders = self.folders(&text.file);
                drafts.extend(self.draft(&text, name, &folders, Kind::Snapshot, properties, p));
            }
        }
        drafts
    }

    fn refuse_python(&self, p: &mut Problems) {
        for (text, _) in files(self.dir, &self.settings.model_paths, "py", p) {
            let message = format!("model `{}` is written in Python, which smelt does not run", stem(&text.file));
            p.error("python-model", text.span(0, 1), message, "write it in SQL, or read its table as a source");
        }
    }

    /// The folders between the path of the project that holds a file, and the file.
    pub(super) fn folders(&self, file: &Path) -> Vec<String> {
        let s = &self.settings;
        let paths = s.model_paths.iter().chain(&s.property_paths).chain(&s.snapshot_paths).chain(&s.test_paths);
        let paths = paths.chain(&s.seed_paths).chain(&s.macro_paths);
        let inside =
            paths.filter_map(|path| file.strip_prefix(plain(path)).ok()).min_by_key(|f| f.components().count());
        let parent = inside.and_then(Path::parent).into_iter().flat_map(Path::components);
        parent.map(|c| c.as_os_str().to_string_lossy().into_owned()).collect()
    }

    /// `[project, folder, …, name]`.
    fn fqn(&self, folders: &[String], name: &str) -> Vec<String> {
        [std::slice::from_ref(&self.settings.name), folders, &[name.to_string()]].concat()
    }

    /// dbt's name for the kind of a node, and its unique id.
    pub(super) fn identity(&self, kind: Kind, name: &str) -> (&'static str, String) {
        let resource_type = match kind {
            Kind::Model => "model",
            Kind::Snapshot => "snapshot",
            Kind::Seed => "seed",
        };
        (resource_type, format!("{resource_type}.{}.{name}", self.settings.name))
    }

    /// The project as `graph` and `model` show it.
    pub fn facts(&self, graph: &mut Json, drafts: &[Draft], properties: &Properties, names: &Names) {
        let declared = |columns: &[super::Column]| {
            facts::columns(columns.iter().map(|c| (&*c.name, c.data_type.as_deref(), c.description.as_deref())))
        };
        for draft in drafts.iter().filter(|d| d.configured.config.enabled) {
            let Some(this) = names.own_relation(&draft.key) else { continue };
            let (resource_type, unique_id) = self.identity(draft.kind, &draft.name);
            let text = &draft.template.text;
            let mut node =
                facts::draft(&draft.name, &unique_id, resource_type, &self.settings.name, &draft.fqn, &text.file);
            let found = draft.asked.iter().filter_map(|asked| {
                let relation = match asked {
                    Asked::Model(call) => names.model(call.package.as_deref(), &call.name, &self.settings.name),
                    Asked::Source(call) => names.source(&call.source, &call.table, &self.settings.name),
                };
                names.unique_id(&relation.ok()?.dependency?)
            });
            let reads: BTreeSet<String> = found.collect();
            let mut config: serde_json::Map<String, Json> =
                draft.raw.iter().map(|(k, s)| (k.clone(), s.value.clone())).collect();
            config.insert("materialized".to_string(), draft.configured.materialized.name().into());
            facts::complete(
                &mut node,
                serde_json::json!({
                    "schema": this.schema, "alias": this.identifier, "relation_name": this.to_string(),
                    "tags": draft.configured.tags, "meta": config.get("meta"), "config": config,
                    "depends_on": {"macros": [], "nodes": reads}, "raw_code": &*text.content,
                    "columns": declared(draft.properties.as_ref().map_or(&[], |m| &m.columns)),
                    "description": draft.properties.as_ref().and_then(|m| m.description.clone()).unwrap_or_default(),
                }),
            );
            graph["nodes"][unique_id] = node;
        }
        for source in properties.sources.iter().filter(|s| s.enabled) {
            let table = &source.table;
            let unique_id = &table.unique_id;
            graph["sources"][unique_id] = serde_json::json!({
                "unique_id": unique_id, "resource_type": "source", "name": table.name, "source_name": table.source_name(),
                "package_name": self.settings.name, "schema": table.source, "identifier": table.name, "database": null,
                "description": table.description.clone().unwrap_or_default(), "columns": declared(&table.columns),
                "path": table.span.file, "original_file_path": table.span.file, "tags": [], "meta": {}, "config": {"enabled": true},
            });
        }
    }

    fn draft(
        &self,
        text: &Arc<Text>,
        name: String,
        folders: &[String],
        kind: Kind,
        properties: &Properties,
        p: &mut Problems,
    ) -> Option<Draft> {
        let template = p.ok(Template::checked(Arc::clone(text), 0))?;
        let fqn = self.fqn(folders, &name);
        let scope = Scope::reading(&self.globals);
        let (resource_type, unique_id) = self.identity(kind, &name);
        scope.describe(facts::draft(&name, &unique_id, resource_type, &self.settings.name, &fqn, &text.file));
        // Names are not known yet, so every error here is one of the text itself.
        let readable = p.ok(self.engine.render(&template, &scope)).is_some();
        let Defaults { models, snapshots, seeds, .. } = &self.settings.defaults;
        let root = &self.settings.overrides;
        let (described, levels, overrides, default) = match kind {
            Kind::Model => (&properties.models, models, &root.models, self.settings.materialized),
            Kind::Snapshot => (&properties.snapshots, snapshots, &root.snapshots, Materialization::Snapshot),
            Kind::Seed => (&properties.seeds, seeds, &root.seeds, Materialization::Seed),
        };
        let own = described.iter().find(|m| m.name.eq_ignore_ascii_case(&name)).cloned();
        let mut raw = config::defaults(levels, &fqn);
        if let Some(own) = &own {
            config::merge(&mut raw, &own.config);
        }
        for call in scope.configs() {
            config::merge(&mut raw, &self.called_config(&template, &call, p));
        }
        // What the root project says of a package's models wins over the package.
        config::merge(&mut raw, &config::defaults(overrides, &fqn));
        let start = text.content.len() - text.content.trim_start().len();
        let at = own.as_ref().map_or_else(|| text.span(start, 1), |own| own.span.clone());
        let configured = config::model_config(&raw, default, &at, p);
        // Also a model that cannot be read keeps its name: its readers have nothing to complain about.
        Some(Draft {
            template,
            key: name.clone(),
            name,
            fqn,
            kind,
            properties: own,
            raw,
            configured,
            seed: None,
            readable,
            asked: scope.take_asked(),
        })
    }

    /// A CSV file: it has a configuration, and rows instead of SQL.
    fn seed(&self, text: &Arc<Text>, folders: &[String], properties: &Properties, p: &mut Problems) -> Option<Draft> {
        let empty = Text::new(text.file.clone(), "");
        let mut draft = self.draft(&empty, stem(&text.file), folders, Kind::Seed, properties, p)?;
        draft.configured.materialized = Materialization::Seed;
        if draft.configured.config.enabled {
            draft.seed = seed::read(text, &draft.raw, p).map(Arc::new);
            draft.readable &= draft.seed.is_some();
        }
        Some(draft)
    }

    /// The values of a `config()` call, each with its place in the file.
    pub(super) fn called_config(&self, template: &Template, call: &ConfigCall, p: &mut Problems) -> RawConfig {
        let mut config = RawConfig::new();
        for (key, value) in &call.values {
            let span = match call.site {
                Some(site) => call_sites::argument_span(self.engine.template_of(template, site.file), site, key),
                None => template.text.span(0, 1),
            };
            config::warn_unknown_in_file(key, span.clone(), p);
            config.insert(key.clone(), Setting::new(value.clone(), span));
        }
        if let Some(Json::Object(members)) =
            call.values.iter().find(|(k, _)| k == "meta").and_then(|(_, v)| v.get("smelt"))
        {
            for (key, value) in members {
                let span = config["meta"].span.clone();
                config.entry(key.clone()).or_insert(Setting::new(value.clone(), span));
            }
        }
        config
    }

    /// The name and the table of a draft.
    pub fn named(&self, draft: &Draft, p: &mut Problems) -> NamedModel {
        let named = naming::Named {
            name: &draft.name,
            unique_id: &self.identity(draft.kind, &draft.name).1,
            fqn: &draft.fqn,
            text: &draft.template.text,
            raw: &draft.raw,
            configured: &draft.configured,
        };
        let (schema, alias) = naming::table_of(&named, &self.settings, self.engine, p);
        NamedModel {
            key: draft.key.clone(),
            name: draft.name.clone(),
            package: self.settings.name.clone(),
            unique_id: self.identity(draft.kind, &draft.name).1,
            schema,
            alias,
            enabled: draft.configured.config.enabled,
            span: draft.template.text.span(0, 1),
        }
    }

    /// Step 3: the compiled model, and what it reads with the places of the calls.
    pub fn compile(&self, draft: &Draft, names: &Arc<Names>, p: &mut Problems) -> Option<(Model, Reads)> {
        let this = names.own_relation(&draft.key)?;
        let before = p.errors.len();
        let config: BTreeMap<String, Json> = draft.raw.iter().map(|(k, s)| (k.clone(), s.value.clone())).collect();
        let first = self.render(&draft.template, names, Some(this.clone()), config.clone(), false, p)?;
        let Attempt { rendered, mut reads, scope, waits } = first;
        self.check_run_dependence(draft, &scope, p);
        let mut asks = Asks { rows: scope.asked_rows(), waits };
        let rerun = match draft.configured.materialized {
            Materialization::Incremental => {
                let again = self.render(&draft.template, names, Some(this.clone()), config, true, p)?;
                let new = again.reads.into_iter().filter(|(d, _)| reads.iter().all(|(known, _)| known != d));
                reads.extend(new.collect::<Vec<_>>());
                asks.rows |= again.scope.asked_rows();
                // Nothing is said of a table that is not there: it is asked about again before it is brought up to date.
                let query = if again.waits.is_some() && self.is_missing(&this) { &rendered } else { &again.rendered };
                let query = Query { sql: query.sql.clone(), source_map: query.source_map.clone() };
                if !self.is_missing(&this) {
                    asks.waits = asks.waits.or(again.waits);
                }
                Some(query)
            }
            _ => None,
        };
        let properties = draft.properties.as_ref();
        let materialized = draft.configured.materialized;
        let expectations = self.expectations(draft, &scope, p);
        let model = Model {
            name: draft.key.clone(),
            package: self.settings.name.clone(),
            fqn: draft.fqn.clone(),
            unique_id: self.identity(draft.kind, &draft.name).1,
            schema: this.schema,
            alias: this.identifier,
            deferred: names.deferred(&self.identity(draft.kind, &draft.name).1),
            path: draft.template.text.file.clone(),
            materialized,
            sql: rendered.sql,
            source_map: rendered.source_map,
            rerun,
            asks,
            seed: draft.seed.clone(),
            depends_on: reads.iter().map(|(d, _)| d.clone()).collect(),
            config: draft.configured.config.clone(),
            expectations,
            columns: properties.map(|m| m.columns.clone()).unwrap_or_default(),
            tags: draft.configured.tags.clone(),
            description: properties.and_then(|m| m.description.clone()),
        };
        if model.sql.trim().is_empty() && model.seed.is_none() && model.asks.waits.is_none() {
            p.error(
                "empty-model",
                draft.template.text.span(0, 1),
                format!("model `{}` has no SQL", model.name),
                "write a SELECT, or delete the file",
            );
        }
        if p.errors.len() > before {
            p.flawed.insert(model.name.clone());
        }
        Some((model, reads))
    }

    /// Whether a table is known not to be there.
    fn is_missing(&self, table: &Relation) -> bool {
        let there = self.globals.answers.as_ref().map(|a| a.exists(&table.schema, &table.identifier));
        matches!(there, Some(Ok(false)))
    }

    /// Renders a file for good; unresolved names are recorded at their calls. A template that waits for the lake is rendered as
    /// dbt parses: what it reads is known then, its SQL is not.
    pub(super) fn render(
        &self,
        template: &Template,
        names: &Arc<Names>,
        this: Option<Relation>,
        config: BTreeMap<String, Json>,
        is_incremental: bool,
        p: &mut Problems,
    ) -> Option<Attempt> {
        let resolve: Arc<dyn Resolve> = Arc::clone(names) as Arc<dyn Resolve>;
        let id = |node: &Json| node["relation_name"].as_str() == this.as_ref().map(ToString::to_string).as_deref();
        let model = names.graph()["nodes"].as_object().and_then(|nodes| nodes.values().find(|n| id(n)).cloned());
        let mut scope = Scope::compiling(&self.globals, resolve, this, config, is_incremental);
        scope.describe(model.unwrap_or_default());
        let (rendered, mut waits) = match self.engine.render(template, &scope) {
            // What an answer leads to is the model's own failure, not the project's.
            Err(error) if error.code() == WAITS || self.is_answered(&scope) => {
                scope = scope.parsing();
                (p.ok(self.engine.render(template, &scope)), Some(error))
            }
            rendered => (p.ok(rendered), None),
        };
        let place =
            |site: Option<Site>| site.map_or_else(|| template.text.span(0, 1), |s| self.engine.site_span(template, s));
        for (error, site) in scope.take_unresolved() {
            let mut error = error.with_span(place(site));
            if site.is_some_and(|s| s.file != 0) {
                let hint = error.hint().unwrap_or("").to_string();
                error = error.with_hint(format!("{hint} (rendering {})", template.text.file.display()));
            }
            match self.is_answered(&scope) {
                true => waits = waits.or(Some(error)),
                false => p.errors.push(error),
            }
        }
        self.said.lock().extend(scope.take_said());
        for message in scope.take_warnings() {
            p.warn("raised", template.text.span(0, 1), message, "");
        }
        let reads = scope.mentions().into_iter().map(|(d, site)| (d, place(site))).collect();
        Some(Attempt { rendered: rendered?, reads, scope, waits })
    }

    /// Whether the template has been told what tables hold.
    fn is_answered(&self, scope: &Scope) -> bool {
        self.globals.answers.is_some() && scope.asked_rows()
    }

    /// A maintained table's SQL must say the same at every run, and cannot read the table it makes.
    fn check_run_dependence(&self, draft: &Draft, scope: &Scope, p: &mut Problems) {
        let template = &draft.template;
        let at = |name: &str| {
            template
                .find_name(name)
                .map_or_else(|| template.text.span(0, 1), |offset| template.text.span(offset, name.len()))
        };
        if draft.configured.materialized == Materialization::Incremental && scope.used_this() {
            let message = "{{ this }} is not there in the first run";
            p.error("self-reference", at("this"), message, "read it inside {% if is_incremental() %} … {% endif %}");
        }
        let continuous = draft.configured.config.schedule.as_ref().is_some_and(|s| s.when == When::Continuous);
        let kind = draft.configured.materialized.name();
        let maintained = draft.configured.materialized.has_table() && !draft.configured.materialized.is_scheduled();
        if (maintained || continuous) && scope.asked_rows() {
            let asks = ["run_query", "statement", "get_relation", "load_relation"];
            let place = asks.into_iter().find(|name| template.find_name(name).is_some()).unwrap_or("");
            let message = format!("a {kind} is kept up to date, and what its template asks the lake is not");
            let hint = "join the table it asks about, or materialize the model as `table`, `incremental` or `view`";
            p.error("lake-dependent", at(place), message, hint);
        }
        if draft.configured.materialized.is_scheduled() {
            return;
        }
        if scope.used_this() {
            let hint = match draft.configured.materialized {
                Materialization::StreamingTable => {
                    "each row is processed once anyway: leave the filter on {{ this }} out"
                }
                _ => "it is kept up to date incrementally without it: leave the filter on {{ this }} out",
            };
            p.error("self-reference", at("this"), format!("a {kind} cannot read itself"), hint);
        }
        if let Some(name) = scope.run_dependent() {
            let first = name.split('.').next().unwrap_or(name);
            let message = format!("`{name}` differs from run to run, so a {kind} cannot use it");
            p.error(
                "run-dependent",
                at(first),
                message,
                "use now() in SQL, pass a value with var(), or materialize the model as `table`",
            );
        }
    }

    fn expectations(&self, draft: &Draft, scope: &Arc<Scope>, p: &mut Problems) -> Vec<Expectation> {
        let Some(properties) = &draft.properties else { return Vec::new() };
        let materialized = draft.configured.materialized;
        if let (Materialization::Snapshot, Some((first, node))) = (materialized, properties.expectations.first()) {
            let message =
                format!("expectation `{}` is on a snapshot, which keeps whatever its query returns", first.name);
            p.error("expectation-on-snapshot", node.span(), message, "put it on the model the snapshot reads");
        }
        if let (false, Some((first, node))) = (materialized.has_table(), properties.expectations.first()) {
            let message = format!("expectation `{}` is on a model that has no table", first.name);
            p.error(
                "expectation-on-view",
                node.span(),
                message,
                "put it on a streaming_table, materialized_view or table",
            );
        }
        let mut render = |(expectation, node): &(Expectation, super::yaml::Node)| {
            let expect = p.ok(self.engine.render_text(&expectation.expect, node, scope))?;
            Some(Expectation { expect, ..expectation.clone() })
        };
        let mut all: Vec<Expectation> = properties.expectations.iter().filter_map(&mut render).collect();
        if draft.configured.config.contract {
            let promised = contract::constraints(&properties.node, materialized, self.settings.dialect, p);
            all.extend(promised.into_iter().map(|(expectation, _)| expectation));
        }
        all
    }

    /// Step 4: generic tests from properties, and singular tests from files.
    pub fn tests(
        &self,
        drafts: &[Draft],
        properties: &Properties,
        names: &Arc<Names>,
        p: &mut Problems,
    ) -> Vec<super::DataTest> {
        let maker = data_tests::Maker {
            engine: self.engine,
            globals: &self.globals,
            names,
            package: &self.settings.name,
            folder: &self.settings.folder,
            defaults: config::defaults(&self.settings.defaults.tests, std::slice::from_ref(&self.settings.name)),
            overrides: config::defaults(&self.settings.overrides.tests, std::slice::from_ref(&self.settings.name)),
        };
        let mut tests = Vec::new();
        for draft in drafts.iter().filter(|d| d.configured.config.enabled) {
            if let Some(own) = &draft.properties {
                tests.extend(maker.of_model(&draft.key, &draft.name, &own.node, p));
            }
        }
        for source in properties.sources.iter().filter(|s| s.enabled) {
            tests.extend(maker.of_source(source, p));
        }
        for (text, folders) in files(self.dir, &self.settings.test_paths, "sql", p) {
            let below =
                |folder: &str| self.settings.test_paths.iter().any(|t| text.file.starts_with(plain(t).join(folder)));
            if below("generic") || below("fixtures") {
                continue;
            }
            let Some(template) = p.ok(Template::checked(Arc::clone(&text), 0)) else { continue };
            let name = stem(&text.file);
            let Some(attempt) = self.render(&template, names, None, BTreeMap::new(), false, p) else { continue };
            let Attempt { rendered, reads, scope, waits } = attempt;
            let mut raw = maker.defaults.clone();
            for (_, config) in properties.tests.iter().filter(|(n, _)| *n == name) {
                config::merge(&mut raw, config);
            }
            for call in scope.configs() {
                config::merge(&mut raw, &self.called_config(&template, &call, p));
            }
            config::merge(&mut raw, &maker.overrides);
            let test = data_tests::singular(self.fqn(&folders, &name), rendered, reads, &raw, &text.file, p);
            tests.extend(test.map(|test| super::DataTest { waits, ..test }));
        }
        for test in &mut tests {
            test.config.audit.0 = naming::audit_schema(test, &self.settings, self.engine, p);
        }
        tests
    }
}

impl Loader<'_> {
    pub fn unit_tests(
        &self,
        drafts: &[Draft],
        properties: &Properties,
        names: &Arc<Names>,
        p: &mut Problems,
    ) -> Vec<super::UnitTest> {
        if properties.unit_tests.is_empty() {
            return Vec::new();
        }
        let folders: Vec<String> = self.settings.test_paths.iter().map(|t| format!("{t}/fixtures")).collect();
        let fixtures = ["csv", "sql"].iter().flat_map(|kind| files(self.dir, &folders, kind, p)).map(|(text, _)| text);
        let fixtures: Vec<Arc<Text>> = fixtures.collect();
        let maker = unit_tests::Maker { engine: self.engine, globals: &self.globals, names, fixtures: &fixtures };
        let subjects: Vec<unit_tests::Subject<'_>> = drafts
            .iter()
            .filter(|d| d.readable && d.configured.config.enabled)
            .map(|draft| unit_tests::Subject {
                key: &draft.key,
                name: &draft.name,
                template: &draft.template,
                materialized: draft.configured.materialized,
                config: draft.raw.iter().map(|(k, s)| (k.clone(), s.value.clone())).collect(),
            })
            .collect();
        let made = properties.unit_tests.iter().filter_map(|declared| maker.make(declared, &subjects, p));
        // It stands where its file does, whatever folder its model is in.
        let fqn = |test: &super::UnitTest| {
            let model = drafts.iter().find(|d| d.key == test.model).map_or(&test.model, |d| &d.name);
            let folders = [self.folders(&test.path), vec![model.clone()]].concat();
            self.fqn(&folders, &test.name)
        };
        let mut tests: Vec<super::UnitTest> = made.map(|test| super::UnitTest { fqn: fqn(&test), ..test }).collect();
        tests.sort_by(|a, b| (&a.name, &a.model).cmp(&(&b.name, &b.model)));
        for pair in tests.windows(2).filter(|w| w[0].name == w[1].name && w[0].model == w[1].model) {
            let message = format!("two unit tests of `{}` are named `{}`", pair[1].model, pair[1].name);
            p.error("duplicate-test", pair[1].span.clone(), message, "give one of them another name");
        }
        tests
    }
}

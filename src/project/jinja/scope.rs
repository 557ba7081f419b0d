//! The circumstances of one render, and the record of what the template asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value as Json;

use super::objects::Relation;
use super::template::Site;
use crate::env::Env;
use crate::error::Error;
use crate::project::Dependency;
use crate::project::answers::{Answer, Answers};

/// What all templates of a project see.
#[derive(Clone)]
pub(in crate::project) struct Globals {
    /// The root project.
    pub project_name: String,
    /// The project or package the templates belong to: its macros and variables come first.
    pub package: String,
    pub vars: BTreeMap<String, Json>,
    /// `target.*`: name, schema, type, lake, threads.
    pub target: BTreeMap<String, Json>,
    pub full_refresh: bool,
    /// µs since 1970: `run_started_at`.
    pub started_at: i64,
    pub invocation_id: String,
    pub env: Env,
    /// Where templates' questions to the lake go; without, a template that asks waits.
    pub answers: Option<Arc<dyn Answers>>,
    /// dbt's name of the command: `flags.WHICH`.
    pub which: String,
    /// Unique ids of what the command line selects: `selected_resources`.
    pub selected: Vec<String>,
    /// What `env_var` answers instead.
    pub env_overrides: BTreeMap<String, String>,
}

impl fmt::Debug for Globals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Variables and environment may hold secrets.
        f.debug_struct("Globals").field("project_name", &self.project_name).finish_non_exhaustive()
    }
}

/// How `ref` and `source` find their relations once every model's configuration is known.
pub(in crate::project) trait Resolve: fmt::Debug + Send + Sync {
    /// What `ref` means in a template of package `from`.
    fn model(&self, package: Option<&str>, name: &str, from: &str) -> Result<Relation, Error>;
    /// What `source` means there.
    fn source(&self, source: &str, table: &str, from: &str) -> Result<Relation, Error>;

    /// What quotes a name in the project's dialect.
    fn quote(&self) -> char {
        '"'
    }

    /// The columns of a source table whose declaration names all of them.
    fn source_columns(&self, _schema: &str, _name: &str) -> Option<Vec<(String, String)>> {
        None
    }

    /// The project as `graph` shows it.
    fn graph(&self) -> Arc<Json> {
        Arc::new(crate::project::facts::empty())
    }
}

/// One render.
#[derive(Debug)]
pub(in crate::project) struct Scope {
    pub globals: Arc<Globals>,
    /// `None` while the project is being read: relations are placeholders and `execute` is false.
    pub resolve: Option<Arc<dyn Resolve>>,
    /// `{{ this }}`.
    pub this: Option<Relation>,
    /// What `config.get` answers.
    pub config: BTreeMap<String, Json>,
    /// What `is_incremental()` answers.
    pub is_incremental: bool,
    /// `execute` is false although names are known: of a template that waits for the lake.
    parsing: bool,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    overrides: BTreeMap<String, Json>,
    mentions: Vec<(Dependency, Option<Site>)>,
    configs: Vec<ConfigCall>,
    used_this: bool,
    run_dependent: Option<&'static str>,
    secrets: Vec<(String, Option<Site>)>,
    secrets_read: usize,
    unresolved: Vec<(Error, Option<Site>)>,
    warnings: Vec<String>,
    said: Vec<String>,
    model: Json,
    asked: Vec<Asked>,
    asked_rows: bool,
    results: BTreeMap<String, (Answer, bool)>,
}

/// What a template asks for before names are known.
#[derive(Debug, Clone)]
pub(in crate::project) enum Asked {
    Model(RefCall),
    Source(SourceCall),
}

/// `ref('package', 'name')`
#[derive(Debug, Clone)]
pub(in crate::project) struct RefCall {
    pub package: Option<String>,
    pub name: String,
}

/// `source('source', 'table')`
#[derive(Debug, Clone)]
pub(in crate::project) struct SourceCall {
    pub source: String,
    pub table: String,
}

/// `config(key = value, …)`
#[derive(Debug, Clone)]
pub(in crate::project) struct ConfigCall {
    pub values: Vec<(String, Json)>,
    pub site: Option<Site>,
}

impl Scope {
    /// A scope that only sees the globals: YAML values, and models while the project is being read.
    pub fn reading(globals: &Arc<Globals>) -> Arc<Self> {
        Self::with(globals, None, None, BTreeMap::new(), false)
    }

    /// A scope for rendering SQL.
    pub fn compiling(
        globals: &Arc<Globals>,
        resolve: Arc<dyn Resolve>,
        this: Option<Relation>,
        config: BTreeMap<String, Json>,
        is_incremental: bool,
    ) -> Arc<Self> {
        Self::with(globals, Some(resolve), this, config, is_incremental)
    }

    fn with(
        globals: &Arc<Globals>,
        resolve: Option<Arc<dyn Resolve>>,
        this: Option<Relation>,
        config: BTreeMap<String, Json>,
        is_incremental: bool,
    ) -> Arc<Self> {
        let record = Mutex::new(Record::default());
        let globals = Arc::clone(globals);
        Arc::new(Scope { globals, resolve, this, config, is_incremental, parsing: false, record })
    }

    /// The scope of a template that waits for the lake: as dbt parses, `execute` and `is_incremental()` being false, but with the
    /// names known. What was read so far stays read.
    pub fn parsing(&self) -> Arc<Self> {
        let known = self.record.lock();
        let record = Record {
            overrides: known.overrides.clone(),
            mentions: known.mentions.clone(),
            model: known.model.clone(),
            asked_rows: known.asked_rows,
            ..Record::default()
        };
        Arc::new(Scope {
            globals: Arc::clone(&self.globals),
            resolve: self.resolve.clone(),
            this: self.this.clone(),
            config: self.config.clone(),
            is_incremental: false,
            parsing: true,
            record: Mutex::new(record),
        })
    }

    /// `execute`
    pub(super) fn executes(&self) -> bool {
        self.resolve.is_some() && !self.parsing
    }

    pub(super) fn note_asked_rows(&self) {
        self.record.lock().asked_rows = true;
    }

    /// Whether the template has asked what tables hold.
    pub fn asked_rows(&self) -> bool {
        self.record.lock().asked_rows
    }

    /// What a statement gave, and whether the template wants its rows.
    pub(super) fn keep_result(&self, name: String, answer: Answer, fetched: bool) {
        self.record.lock().results.insert(name, (answer, fetched));
    }

    pub(super) fn result(&self, name: &str) -> Option<(Answer, bool)> {
        self.record.lock().results.get(name).cloned()
    }

    /// Calls of these macros give these values in this render.
    pub fn override_macros(&self, overrides: BTreeMap<String, Json>) {
        self.record.lock().overrides = overrides;
    }

    pub(super) fn overrides(&self) -> BTreeMap<String, Json> {
        self.record.lock().overrides.clone()
    }

    pub(super) fn note_ref(&self, call: RefCall, site: Option<Site>) -> Relation {
        let found = match &self.resolve {
            Some(resolve) => resolve.model(call.package.as_deref(), &call.name, &self.globals.package),
            None => {
                self.record.lock().asked.push(Asked::Model(call.clone()));
                Ok(Relation::placeholder(&call.name))
            }
        };
        let placeholder = Relation::placeholder(&call.name);
        self.found_or(found, placeholder, site)
    }

    pub(super) fn note_source(&self, call: SourceCall, site: Option<Site>) -> Relation {
        let found = match &self.resolve {
            Some(resolve) => resolve.source(&call.source, &call.table, &self.globals.package),
            None => {
                self.record.lock().asked.push(Asked::Source(call.clone()));
                Ok(Relation::placeholder(&call.table))
            }
        };
        let placeholder = Relation::placeholder(&call.table);
        self.found_or(found, placeholder, site)
    }

    /// An unknown name does not stop the render: the next one wants to be reported too.
    fn found_or(&self, found: Result<Relation, Error>, placeholder: Relation, site: Option<Site>) -> Relation {
        let mut record = self.record.lock();
        match found {
            Ok(relation) => {
                if let Some(dependency) = &relation.dependency
                    && record.mentions.iter().all(|(d, _)| d != dependency)
                {
                    record.mentions.push((dependency.clone(), site));
                }
                relation
            }
            Err(e) => {
                record.unresolved.push((e, site));
                placeholder
            }
        }
    }

    pub(super) fn note_config(&self, call: ConfigCall) {
        self.record.lock().configs.push(call);
    }

    pub(super) fn note_this(&self) {
        self.record.lock().used_this = true;
    }

    pub(super) fn note_run_dependent(&self, what: &'static str) {
        self.record.lock().run_dependent.get_or_insert(what);
    }

    pub(super) fn note_secret(&self, name: &str, site: Option<Site>) {
        let mut record = self.record.lock();
        record.secrets.push((name.to_string(), site));
        record.secrets_read += 1;
    }

    pub(super) fn note_warning(&self, message: String) {
        self.record.lock().warnings.push(message);
    }

    /// Says which node is rendered: `model`.
    pub fn describe(&self, model: Json) {
        self.record.lock().model = model;
    }

    pub(super) fn model(&self) -> Json {
        match self.record.lock().model.clone() {
            Json::Null => Json::Object(serde_json::Map::new()),
            model => model,
        }
    }

    pub(super) fn quote(&self) -> char {
        self.resolve.as_ref().map_or('"', |r| r.quote())
    }

    /// Whether the project has a table or source of this name.
    pub(super) fn exists(&self, schema: &str, identifier: &str) -> bool {
        let Some(resolve) = &self.resolve else { return false };
        let graph = resolve.graph();
        let is = |node: &Json, key: &str, name: &str| node[key].as_str().is_some_and(|v| v.eq_ignore_ascii_case(name));
        ["nodes", "sources"]
            .into_iter()
            .filter_map(|kind| graph[kind].as_object())
            .flat_map(|m| m.values())
            .any(|n| is(n, "schema", schema) && (is(n, "alias", identifier) || is(n, "identifier", identifier)))
    }

    pub(super) fn note_said(&self, message: String) {
        self.record.lock().said.push(message);
    }

    pub(super) fn secrets_read(&self) -> usize {
        self.record.lock().secrets_read
    }

    pub(super) fn take_secrets(&self) -> Vec<(String, Option<Site>)> {
        std::mem::take(&mut self.record.lock().secrets)
    }

    /// What was asked for and found, each once, in order of first mention.
    pub fn mentions(&self) -> Vec<(Dependency, Option<Site>)> {
        self.record.lock().mentions.clone()
    }

    pub fn configs(&self) -> Vec<ConfigCall> {
        self.record.lock().configs.clone()
    }

    pub fn used_this(&self) -> bool {
        self.record.lock().used_this
    }

    /// The run-dependent value that was used first.
    pub fn run_dependent(&self) -> Option<&'static str> {
        self.record.lock().run_dependent
    }

    /// Names that did not resolve.
    pub fn take_unresolved(&self) -> Vec<(Error, Option<Site>)> {
        std::mem::take(&mut self.record.lock().unresolved)
    }

    /// What `print` and `log(…, info=true)` said.
    pub fn take_said(&self) -> Vec<String> {
        std::mem::take(&mut self.record.lock().said)
    }

    /// What was asked for before names were known.
    pub fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.record.lock().asked)
    }

    /// What `exceptions.warn` said.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.record.lock().warnings)
    }
}

//! What templates do while a command runs: hooks and operations.
//!
//! Everything else in a project is rendered when it is loaded. A hook is rendered when its turn has come, with answers from the lake as
//! it is then, and what it prints is run as SQL; an operation is a macro that is called for what it runs. So a loaded project keeps its
//! templates, here and nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::Model;
use super::answers::Answers;
use super::graph::Names;
use super::jinja::{Engine, Globals, Resolve, Scope, Template};
use super::yaml::Text;
use crate::error::{Error, Result};

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    RunStart,
    RunEnd,
    /// Before a model is made.
    Pre,
    /// After that.
    Post,
}

impl HookPoint {
    /// The key it is written under.
    pub fn name(self) -> &'static str {
        match self {
            HookPoint::RunStart => "on-run-start",
            HookPoint::RunEnd => "on-run-end",
            HookPoint::Pre => "pre-hook",
            HookPoint::Post => "post-hook",
        }
    }
}

/// SQL with Jinja that runs at a point.
#[derive(Debug, Clone)]
pub struct Hook {
    pub point: HookPoint,
    /// The project or package whose macros it sees.
    pub package: String,
    /// Its place among those of its point and owner, from 0.
    pub index: usize,
    /// Of a model, its name.
    pub model: Option<String>,
    sql: String,
}

impl Hook {
    /// `shop.on-run-start.0`, `orders.pre-hook.0`: for people.
    pub fn name(&self) -> String {
        let owner = self.model.as_deref().unwrap_or(&self.package);
        format!("{owner}.{}.{}", self.point.name(), self.index)
    }

    /// dbt's name of a hook that belongs to no model.
    pub(super) fn node_name(&self) -> String {
        format!("{}-{}-{}", self.package, self.point.name(), self.index)
    }

    /// dbt's id of a hook that belongs to no model.
    pub fn unique_id(&self) -> String {
        format!("operation.{}.{}", self.package, self.node_name())
    }

    /// As it is written.
    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    pub(super) fn of(point: HookPoint, package: &str, model: Option<&str>, written: Option<&Json>) -> Vec<Hook> {
        let items = match written {
            Some(Json::Array(items)) => items.clone(),
            Some(Json::Null) | None => Vec::new(),
            Some(one) => vec![one.clone()],
        };
        let sql = |item: &Json| match item {
            Json::Object(members) => members.get("sql").and_then(Json::as_str).unwrap_or_default().to_string(),
            other => other.as_str().unwrap_or_default().to_string(),
        };
        let hook = |(index, item): (usize, &Json)| Hook {
            point,
            package: package.to_string(),
            index,
            model: model.map(str::to_string),
            sql: sql(item),
        };
        items.iter().enumerate().map(hook).collect()
    }
}

impl Model {
    /// Whether SQL runs around it.
    pub fn has_hooks(&self) -> bool {
        self.is_made() && [HookPoint::Pre, HookPoint::Post].into_iter().any(|point| !self.hooks(point).is_empty())
    }

    /// Its hooks at `point`, in the order in which they run.
    pub fn hooks(&self, point: HookPoint) -> Vec<Hook> {
        Hook::of(point, &self.package, Some(&self.name), self.config.all.get(point.name()))
    }
}

/// What a hook or operation sees beyond what every template does.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// Entries of run_results.json: `results`, each with its `node`.
    pub results: Vec<Json>,
    /// Schemas of the models that the command made: `schemas`, `database_schemas`.
    pub schemas: Vec<String>,
    /// Unique ids of what is selected: `selected_resources`.
    pub selected: Vec<String>,
}

/// A template that has been rendered.
#[derive(Debug, Default)]
pub struct Said {
    pub sql: String,
    /// `print(…)`, `log(…, info=true)`
    pub lines: Vec<String>,
    /// `exceptions.warn(…)`
    pub warnings: Vec<String>,
}

/// The templates of a loaded project.
#[derive(Clone)]
pub struct Operations {
    engine: Arc<Engine>,
    names: Arc<Names>,
    /// Of the project itself.
    globals: Arc<Globals>,
    packages: Vec<Arc<Globals>>,
    hooks: Vec<Hook>,
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").field("hooks", &self.hooks).finish_non_exhaustive()
    }
}

impl Operations {
    /// `written`: of each package what its project file says at `on-run-start` and `on-run-end`.
    pub(super) fn new(
        engine: Arc<Engine>,
        names: Arc<Names>,
        globals: &Arc<Globals>,
        packages: Vec<Arc<Globals>>,
        written: &[(String, [Option<Json>; 2])],
    ) -> Self {
        let mut hooks = Vec::new();
        // What packages prepare is there for the project's own.
        for (package, [start, end]) in written.iter().skip(1).chain(written.first()) {
            hooks.extend(Hook::of(HookPoint::RunStart, package, None, start.as_ref()));
            hooks.extend(Hook::of(HookPoint::RunEnd, package, None, end.as_ref()));
        }
        Operations { engine, names, globals: Arc::clone(globals), packages, hooks }
    }

    /// The hooks at `on-run-start` or `on-run-end`.
    pub fn hooks(&self, point: HookPoint) -> impl Iterator<Item = &Hook> {
        self.hooks.iter().filter(move |h| h.point == point)
    }

    /// Renders a hook; `run_query` and its like go to `answers`, which may block.
    pub fn render(
        &self,
        hook: &Hook,
        model: Option<&Model>,
        circumstances: &Circumstances,
        answers: Arc<dyn Answers>,
    ) -> Result<Said> {
        let scope = self.scope(&hook.package, model, circumstances, answers);
        let name = format!("{} {}", hook.point.name(), hook.name());
        let template = Template::checked(Text::new(name, hook.sql.clone()), 0)?;
        self.say(&template, &scope, circumstances, &[])
    }

    /// dbt's id of the macro that [`Operations::call`] finds.
    pub fn macro_id(&self, name: &str) -> Result<String> {
        let (package, own) = self.find(name)?;
        Ok(format!("macro.{package}.{own}"))
    }

    /// Calls a macro, `name` or `package.name`, with named arguments; what it prints is nobody's.
    pub fn call(&self, name: &str, arguments: &Map<String, Json>, answers: Arc<dyn Answers>) -> Result<Said> {
        let (package, own) = self.find(name)?;
        let is_name = |key: &str| !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_');
        if let Some(key) = arguments.keys().find(|key| !is_name(key)) {
            return Err(Error::user("bad-args", format!("--args: `{key}` is no name of an argument")));
        }
        let circumstances = Circumstances::default();
        let scope = self.scope(&package, None, &circumstances, answers);
        let passed: Vec<String> = arguments.keys().map(|key| format!("{key}=argument_{key}")).collect();
        let text = Text::new(format!("run-operation {name}"), format!("{{{{ {own}({}) }}}}", passed.join(", ")));
        let values: Vec<(String, Json)> =
            arguments.iter().map(|(key, value)| (format!("argument_{key}"), value.clone())).collect();
        self.say(&Template::checked(text, 0)?, &scope, &circumstances, &values)
    }

    /// The package that has the macro, and its name there.
    fn find(&self, name: &str) -> Result<(String, String)> {
        let own = std::iter::once(&self.globals);
        let packages: Vec<&str> = own.chain(&self.packages).map(|g| g.package.as_str()).collect();
        let (wanted, own) = match name.split_once('.') {
            Some((package, own)) => (Some(package), own),
            None => (None, name),
        };
        let searched = packages.iter().filter(|p| wanted.is_none_or(|w| w == **p));
        let has = |package: &&&str| self.engine.macros_of(package).iter().any(|m| m == own);
        if let Some(package) = searched.clone().find(has) {
            return Ok((package.to_string(), own.to_string()));
        }
        let known: Vec<String> = packages
            .iter()
            .flat_map(|package| {
                let prefix = if *package == packages[0] { String::new() } else { format!("{package}.") };
                self.engine.macros_of(package).iter().map(move |m| format!("{prefix}{m}"))
            })
            .filter(|m| !m.starts_with("test_"))
            .collect();
        let hint = super::problems::suggest(name, known.iter().map(String::as_str), "macros");
        Err(Error::user("unknown-macro", format!("no macro `{name}`")).with_hint(hint))
    }

    fn scope(
        &self,
        package: &str,
        model: Option<&Model>,
        circumstances: &Circumstances,
        answers: Arc<dyn Answers>,
    ) -> Arc<Scope> {
        let globals = self.packages.iter().find(|g| g.package == package).unwrap_or(&self.globals);
        let selected = circumstances.selected.clone();
        let globals = Arc::new(Globals { answers: Some(answers), selected, ..(**globals).clone() });
        let this = model.and_then(|m| self.names.own_relation(&m.name));
        let config = model.map(|m| m.config.all.clone()).unwrap_or_default();
        let resolve: Arc<dyn Resolve> = Arc::clone(&self.names) as Arc<dyn Resolve>;
        let scope = Scope::compiling(&globals, resolve, this, config, false);
        if let Some(model) = model {
            scope.describe(self.names.graph()["nodes"][&model.unique_id].clone());
        }
        scope
    }

    fn say(
        &self,
        template: &Template,
        scope: &Arc<Scope>,
        circumstances: &Circumstances,
        more: &[(String, Json)],
    ) -> Result<Said> {
        let schemas = &circumstances.schemas;
        let mut values: BTreeMap<String, Json> = more.iter().cloned().collect();
        values.insert("results".to_string(), circumstances.results.clone().into());
        values.insert("schemas".to_string(), schemas.clone().into());
        let pairs = schemas.iter().map(|schema| Json::Array(vec![Json::Null, schema.clone().into()]));
        values.insert("database_schemas".to_string(), pairs.collect());
        let rendered = self.engine.render_with(template, scope, &values);
        if let Some((error, _)) = scope.take_unresolved().into_iter().next() {
            return Err(error);
        }
        let (lines, warnings) = (scope.take_said(), scope.take_warnings());
        Ok(Said { sql: rendered?.sql, lines, warnings })
    }
}

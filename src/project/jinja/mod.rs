//! Jinja: the language of templates, over minijinja with strict undefined; a template that is only read for what it configures is
//! rendered with a lenient one, as dbt parses.
//!
//! 1. [`template`] cuts a file into runs and tags and rewrites it, so that output can be traced to the file.
//! 2. [`Engine`] holds what every template shares: filters, functions, and each package's macros as one template that
//!    models import, so that macros see each other whatever file they are in ([`namespaces`]).
//! 3. A render happens in a [`Scope`]: which model, what `ref` resolves to, and a record of what the template asked for.
//! 4. [`failure`] turns minijinja's errors into ours: file, line, column, and what to do.
//!
//! Nothing here knows YAML settings or the graph: names are resolved through [`Resolve`].

mod arguments;
mod clock;
mod columns;
mod containers;
mod cross_database;
mod dbt;
mod failure;
mod functions;
mod lake;
mod macros;
mod modules;
mod namespaces;
mod natives;
mod objects;
mod overrides;
mod regular;
mod scope;
mod table;
mod template;
mod tokens;
mod values;

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::{Environment, UndefinedBehavior, Value};

use super::problems::Problems;
use super::source_map::{Piece, SourceMap};
use super::yaml::{self, Entry, Node, Text};
use crate::env::Env;
use crate::error::{Error, Result};

pub(super) use namespaces::Dispatch;
use namespaces::Namespaces;
pub(super) use objects::Relation;
pub(super) use scope::{Asked, ConfigCall, Globals, Resolve, Scope};
pub(super) use template::{Site, Template};
use values::to_json;

/// Front of the names of the templates that hold macros.
const MACROS: &str = "macros";

/// What every template shares.
pub(super) struct Engine {
    base: Environment<'static>,
    namespaces: Arc<Namespaces>,
    /// Macro files in the order of their numbers.
    macros: Vec<MacroFile>,
    env: Env,
}

/// A file of macros, and its place in its package's template of macros.
struct MacroFile {
    package: String,
    template: Template,
    start: usize,
}

/// The macros of the root project or of a package.
pub(super) struct MacroPackage {
    pub name: String,
    pub files: Vec<Arc<Text>>,
}

/// A rendered model.
#[derive(Debug)]
pub(super) struct Rendered {
    pub sql: String,
    pub source_map: SourceMap,
}

impl Engine {
    /// An engine with the macros of `packages`, the root project first. A file that does not parse is left out and recorded.
    pub fn new(packages: Vec<MacroPackage>, dispatch: Dispatch, env: &Env, p: &mut Problems) -> Self {
        let mut base = Environment::new();
        base.set_undefined_behavior(UndefinedBehavior::Strict);
        base.set_debug(true);
        base.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        let mut syntax = minijinja::syntax::SyntaxConfig::builder();
        syntax.keep_trailing_newline(true);
        if let Ok(syntax) = syntax.build() {
            base.set_syntax(syntax);
        }
        functions::add_shared(&mut base);
        let namespaces = Namespaces { packages: Vec::new(), dispatch };
        let mut engine = Engine { base, namespaces: Arc::default(), macros: Vec::new(), env: env.clone() };
        let packages = packages.into_iter().map(|package| engine.add_macros(package, p)).collect();
        engine.namespaces = Arc::new(Namespaces { packages, ..namespaces });
        engine
    }

    /// Adds a package's macros; returns its name and theirs.
    fn add_macros(&mut self, package: MacroPackage, p: &mut Problems) -> (String, Vec<String>) {
        let mut all = String::new();
        let mut names: Vec<(String, Arc<Text>)> = Vec::new();
        for text in package.files {
            let number = self.macros.len() as u32 + 1;
            let template = match Template::checked(Arc::clone(&text), number) {
                Ok(template) => template,
                Err(e) => {
                    p.errors.push(e);
                    continue;
                }
            };
            if let Err(e) = self.base.template_from_named_str(&text.file.to_string_lossy(), &template.jinja) {
                p.errors.push(self.failure(&e, &template, None));
                continue;
            }
            for (name, offset) in &template.macros {
                if let Some((_, first)) = names.iter().find(|(n, _)| n == name) {
                    let message = format!("macro `{name}` is defined twice");
                    let hint = format!("it is also in {}: rename one of them", first.file.display());
                    p.error("duplicate-macro", text.span(*offset, name.len()), message, hint);
                } else if self.base.globals().any(|(global, _)| global == name)
                    || functions::MODEL_NAMES.contains(&name.as_str())
                {
                    let message = format!("macro `{name}` would replace a built-in function");
                    p.error("reserved-name", text.span(*offset, name.len()), message, "give it another name");
                } else {
                    names.push((name.clone(), Arc::clone(&text)));
                }
            }
            let start = all.len();
            all.push_str(&template.jinja);
            self.macros.push(MacroFile { package: package.name.clone(), template, start });
        }
        let template = Namespaces::template(&package.name);
        if !names.is_empty()
            && let Err(e) = self.base.add_template_owned(template, all)
        {
            p.errors.push(Error::internal(format!("macros parse one by one but not together: {e}")));
            names.clear();
        }
        (package.name, names.into_iter().map(|(name, _)| name).collect())
    }

    /// Names of the macros of a package.
    pub fn macros_of(&self, package: &str) -> &[String] {
        self.namespaces.macros_of(package)
    }

    /// Whether there is a package, the root project included, of this name.
    pub fn has_package(&self, package: &str) -> bool {
        self.namespaces.packages.iter().any(|(name, _)| name == package)
    }

    /// What stands before a template that is rendered in `scope`.
    fn prelude(&self, scope: &Scope) -> String {
        let mut prelude = self.namespaces.prelude(&scope.globals.package);
        prelude.push_str(&overrides::prelude(scope));
        prelude
    }

    /// Renders a template in `scope`. What the template asked for is in the scope's record, also after an error.
    pub fn render(&self, template: &Template, scope: &Arc<Scope>) -> Result<Rendered> {
        self.render_with(template, scope, &BTreeMap::new())
    }

    /// The same, with more names that the template sees.
    pub fn render_with(
        &self,
        template: &Template,
        scope: &Arc<Scope>,
        values: &BTreeMap<String, serde_json::Value>,
    ) -> Result<Rendered> {
        let mut environment = self.model_environment(scope);
        if !scope.executes() {
            // As dbt parses: what needs an answer, or the graph, leads to nothing now. It is an error when it does for good.
            environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        }
        for (name, value) in values {
            environment.add_global(name.clone(), values::from_json(value));
        }
        let name = template.text.file.to_string_lossy();
        let source = format!("{}{}", self.prelude(scope), template.jinja);
        let output = environment
            .template_from_named_str(&name, &source)
            .and_then(|t| t.render(Value::from(())))
            .map_err(|e| self.failure(&e, template, Some(&environment)))?;
        let unmarked = template.unmark(&output);
        self.keep_secrets(template, scope, &unmarked)?;
        let map = SourceMap::new(template.text.file.clone(), Arc::clone(template.text.shown()), unmarked.pieces);
        Ok(Rendered { sql: unmarked.sql, source_map: map })
    }

    /// Renders a short text or expression of a YAML value, as a model of `scope` would: `ref` and macros included.
    pub fn render_text(&self, text: &str, at: &Node, scope: &Arc<Scope>) -> Result<String> {
        if !text.contains("{{") && !text.contains("{%") {
            return Ok(text.to_string());
        }
        let environment = self.model_environment(scope);
        environment
            .render_str(&format!("{}{text}", self.prelude(scope)), Value::from(()))
            .map_err(|e| self.yaml_failure(&e, at, &environment))
    }

    /// What the macro `name` prints for `args`, as templates of the scope's package call it.
    pub fn call(&self, name: &str, args: &[serde_json::Value], scope: &Arc<Scope>) -> Result<String> {
        let names: Vec<String> = (0..args.len()).map(|i| format!("argument_{i}")).collect();
        let template = Template::new(Text::new(name, format!("{{{{ {name}({}) }}}}", names.join(", "))), 0);
        let environment = self.model_environment(scope);
        let source = format!("{}{}", self.prelude(scope), template.jinja);
        let values = names.into_iter().zip(args).map(|(name, value)| (name, values::from_json(value)));
        let output = environment
            .template_from_named_str(name, &source)
            .and_then(|t| t.render(Value::from_pairs(values)))
            .map_err(|e| self.failure(&e, &template, Some(&environment)))?;
        Ok(template.unmark(&output).sql)
    }

    /// Evaluates an expression that stands in YAML without braces: `ref('users')`.
    pub fn evaluate(&self, expression: &str, at: &Node, scope: &Arc<Scope>) -> Result<Value> {
        let environment = self.model_environment(scope);
        environment
            .compile_expression(expression)
            .and_then(|e| e.eval(Value::from(())))
            .map_err(|e| self.yaml_failure(&e, at, &environment))
    }

    fn model_environment(&self, scope: &Arc<Scope>) -> Environment<'static> {
        let mut environment = self.base.clone();
        functions::add_values(&mut environment, scope);
        functions::add_model(&mut environment, scope);
        self.namespaces.add(&mut environment, &scope.globals.package);
        overrides::add(&mut environment, scope);
        environment
    }

    /// The node with the Jinja in its texts rendered; keys in `skip` keep theirs. A text that is one single expression keeps
    /// the type of its value: `"{{ env_var('THREADS') | int }}"` is a number.
    pub fn render_yaml(&self, node: &Node, skip: &[&str], scope: &Arc<Scope>, p: &mut Problems) -> Node {
        let mut environment = self.base.clone();
        functions::add_values(&mut environment, scope);
        self.render_node(node, skip, &environment, scope, p)
    }

    fn render_node(
        &self,
        node: &Node,
        skip: &[&str],
        environment: &Environment<'_>,
        scope: &Scope,
        p: &mut Problems,
    ) -> Node {
        let mut written = node.written.clone();
        let value = match &node.value {
            yaml::Value::Str(text) if text.contains("{{") || text.contains("{%") => {
                written = Some(text.as_str().into());
                let before = scope.secrets_read();
                let rendered = render_value(text, environment).map_err(|e| self.yaml_failure(&e, node, environment));
                let Some(value) = p.ok(rendered) else {
                    return Node { value: yaml::Value::Failed, ..node.clone() };
                };
                if scope.secrets_read() > before
                    && let Some(value) = value.as_str()
                {
                    self.env.remember_secret(value);
                    self.remember_parts(text, environment);
                }
                from_jinja(&value)
            }
            yaml::Value::Seq(items) => {
                yaml::Value::Seq(items.iter().map(|i| self.render_node(i, skip, environment, scope, p)).collect())
            }
            yaml::Value::Map(entries) => {
                let render = |e: &Entry, p: &mut Problems| match skip.contains(&e.key.as_str()) {
                    true => e.clone(),
                    false => Entry { value: self.render_node(&e.value, skip, environment, scope, p), ..e.clone() },
                };
                yaml::Value::Map(entries.iter().map(|e| render(e, p)).collect())
            }
            other => other.clone(),
        };
        Node { value, written, ..node.clone() }
    }

    /// A secret may stand in SQL only where everything it becomes is known, so that it can be kept out of logs and
    /// artifacts: printed by the `{{ … }}` that reads it.
    fn keep_secrets(&self, template: &Template, scope: &Scope, unmarked: &template::Unmarked) -> Result<()> {
        for (name, site) in scope.take_secrets() {
            let Some(site) = site else { continue };
            let file = self.template_of(template, site.file);
            let Some(tag) = file.tag_at(site.offset) else { continue };
            let inside = file.text.content[tag.start + 2..tag.end - 2].trim_matches(['-', '+', ' ', '\n', '\t']);
            let bare = tag.expression
                && inside.starts_with("env_var")
                && !inside.contains(['|', '~', '['])
                && inside.ends_with(')');
            if bare && inside.matches('(').count() == 1 {
                continue;
            }
            if !tag.expression || site.file != template.file {
                return Err(Error::user(
                    "secret-in-jinja",
                    format!("the secret `{name}` is computed with, where its traces cannot be kept out of logs"),
                )
                .with_span(file.text.span(site.offset, "env_var".len()))
                .with_hint(format!("print it where it is needed: {{{{ env_var('{name}') }}}}")));
            }
            for output in unmarked.printed_by(tag) {
                self.env.remember_secret(output);
            }
        }
        Ok(())
    }

    /// The template of file number `file`: a macro file, or the one being rendered.
    pub fn template_of<'a>(&'a self, rendering: &'a Template, file: u32) -> &'a Template {
        let index = (file as usize).checked_sub(1);
        index.and_then(|i| self.macros.get(i)).map_or(rendering, |file| &file.template)
    }

    /// The place of a call in a template rendered as `rendering`.
    pub fn site_span(&self, rendering: &Template, site: Site) -> crate::error::Span {
        let text = &self.template_of(rendering, site.file).text;
        let call = &text.content[site.offset.min(text.content.len())..];
        let end = call.find(')').map_or(1, |i| i + 1).min(call.find(['\n', '}']).unwrap_or(usize::MAX));
        text.span(site.offset, end)
    }
}

impl Engine {
    /// A secret inside a longer value: `password="{{ env_var('SMELT_SECRET_X') | upper }}";` must not show up alone either.
    fn remember_parts(&self, text: &str, environment: &Environment<'_>) {
        let template = Template::new(Text::new("", text), 0);
        // Rendered once already: what fails is an error by now.
        let Ok(output) = environment.render_str(&template.jinja, Value::from(())) else { return };
        let unmarked = template.unmark(&output);
        for tag in &template.tags {
            let inside = &text[tag.start..tag.end];
            if functions::SECRET_PREFIXES.iter().any(|p| inside.contains(p)) {
                unmarked.printed_by(tag).for_each(|part| self.env.remember_secret(part));
            }
        }
    }
}

/// Renders a text; one single `{{ expression }}` gives its value, of any type.
fn render_value(text: &str, environment: &Environment<'_>) -> Result<Value, minijinja::Error> {
    let trimmed = text.trim();
    if let Some(expression) = trimmed.strip_prefix("{{").and_then(|t| t.strip_suffix("}}"))
        && !expression.contains("{{")
        && !expression.contains("{%")
    {
        let expression = expression.trim_matches('-').trim();
        let value = environment.compile_expression(expression)?.eval(Value::from(()))?;
        if value.is_undefined() {
            let detail = format!("`{expression}` is undefined");
            return Err(minijinja::Error::new(minijinja::ErrorKind::UndefinedError, detail));
        }
        return Ok(value);
    }
    environment.render_str(text, Value::from(())).map(Value::from)
}

fn from_jinja(value: &Value) -> yaml::Value {
    match to_json(value) {
        serde_json::Value::Bool(b) => yaml::Value::Bool(b),
        serde_json::Value::Number(n) => match n.as_i64() {
            Some(i) => yaml::Value::Int(i),
            None => yaml::Value::Float(n.as_f64().unwrap_or_default()),
        },
        serde_json::Value::Null => yaml::Value::Null,
        serde_json::Value::String(s) => yaml::Value::Str(s),
        // A list or object has no positions of its own; as text it can still be parsed where JSON is expected.
        other => yaml::Value::Str(other.to_string()),
    }
}

impl Template {
    /// A template of a file that has no characters reserved for marks.
    pub fn checked(text: Arc<Text>, file: u32) -> Result<Self> {
        let template = Template::new(text, file);
        match template.has_marks_of_its_own() {
            Some(offset) => {
                Err(Error::user("bad-character", "the file contains a Unicode noncharacter (U+FDD0 or U+FDD1)")
                    .with_span(template.text.span(offset, 3))
                    .with_hint("remove it"))
            }
            None => Ok(template),
        }
    }
}

/// Maps all of `sql` to one place: what a YAML node has generated.
pub(super) fn map_to_node(sql: &str, node: &Node) -> SourceMap {
    let content = &node.text.content;
    let line_start: usize = content.split_inclusive('\n').take(node.mark.line.saturating_sub(1)).map(str::len).sum();
    let line = content.get(line_start..).unwrap_or("");
    let column: usize = line.chars().take(node.mark.column.saturating_sub(1)).map(char::len_utf8).sum();
    let piece = Piece { compiled: 0, file: line_start + column, len: sql.len(), produced_by: Some(node.mark.width) };
    SourceMap::new(node.text.file.clone(), Arc::clone(content), vec![piece])
}

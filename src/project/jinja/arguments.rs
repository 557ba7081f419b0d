//! Generic tests are macros that get values: relations, columns, what stands in YAML.

use std::sync::Arc;

use minijinja::Value;
use parking_lot::Mutex;

use super::containers::{Dict, List};
use super::{Engine, Scope, values};
use crate::error::Result;
use crate::project::yaml::{self, Entry, Node};

impl Engine {
    /// What the macro `name` prints for these arguments of a generic test, which stands at `at`.
    pub fn call_named(
        &self,
        name: &str,
        arguments: Vec<(String, Value)>,
        at: &Node,
        scope: &Arc<Scope>,
    ) -> Result<String> {
        let environment = self.model_environment(scope);
        // Names of arguments are the test's: they must not hide what the macro's file sees.
        let passed: Vec<String> =
            arguments.iter().enumerate().map(|(i, (name, _))| format!("{name}=argument_{i}")).collect();
        let values = arguments.into_iter().enumerate().map(|(i, (_, value))| (format!("argument_{i}"), value));
        let source = format!("{}{{{{ {name}({}) }}}}", self.prelude(scope), passed.join(", "));
        environment.render_str(&source, Value::from_pairs(values)).map_err(|e| self.yaml_failure(&e, at, &environment))
    }

    /// A value of YAML as dbt hands it to a generic test: a text that is one expression is what that gives (`{{ ref('a') }}` a
    /// relation), and so is a bare call of `ref`, `source`, `var`, `env_var` or `doc`; other texts are rendered.
    pub fn native(&self, node: &Node, scope: &Arc<Scope>) -> Result<Value> {
        match &node.value {
            yaml::Value::Str(text) => self.native_text(text, node, scope),
            yaml::Value::Seq(items) => {
                let items: Result<Vec<Value>> = items.iter().map(|item| self.native(item, scope)).collect();
                Ok(List::value(items?))
            }
            yaml::Value::Map(entries) => {
                let entry = |e: &Entry| Ok((Value::from(e.key.as_str()), self.native(&e.value, scope)?));
                Ok(Dict::value(entries.iter().map(entry).collect::<Result<Vec<_>>>()?))
            }
            _ => Ok(values::from_json(&node.json())),
        }
    }

    fn native_text(&self, text: &str, at: &Node, scope: &Arc<Scope>) -> Result<Value> {
        const CALLS: [&str; 5] = ["ref", "source", "var", "env_var", "doc"];
        let trimmed = text.trim();
        let call = trimmed.split_once('(').map(|(name, _)| name.trim_end());
        let bare = call.is_some_and(|name| CALLS.contains(&name)) && trimmed.ends_with(')');
        let braced = trimmed.strip_prefix("{{").and_then(|t| t.strip_suffix("}}"));
        let expression = braced.filter(|e| !e.contains("{{") && !e.contains("{%")).map(|e| e.trim_matches('-').trim());
        let Some(expression) = expression.or(bare.then_some(trimmed)) else {
            return self.render_text(text, at, scope).map(Value::from);
        };
        // Macros of the package are names of a template, not of an expression: what one gives is handed out of it.
        let mut environment = self.model_environment(scope);
        let kept = Arc::new(Mutex::new(Value::UNDEFINED));
        let keep = Arc::clone(&kept);
        environment.add_function("__keep", move |value: Value| {
            *keep.lock() = value;
            ""
        });
        environment
            .render_str(&format!("{}{{{{ __keep({expression}) }}}}", self.prelude(scope)), Value::from(()))
            .map_err(|e| self.yaml_failure(&e, at, &environment))?;
        let value = kept.lock().clone();
        Ok(value)
    }
}

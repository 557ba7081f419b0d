//! What dbt calls a generic data test: its name and its unique id.
//!
//! Both are made of the test's arguments as Python prints them (dbt-core, `parser/generic_test_builders.py` and
//! `parser/schema_generic_tests.py`), so that selections, stored states and manifests written for dbt name the same tests here.

use md5::{Digest, Md5};
use serde_json::Value as Json;

/// Characters of a name that tables and files are called by, and how many are kept of the beginning of a longer one.
const LONGEST: usize = 63;
const KEPT: usize = 30;

/// Digits of the digest in a unique id.
const DIGITS: usize = 10;

/// A generic test as it is declared.
pub(super) struct GenericTest<'a> {
    /// `dbt_utils` of `dbt_utils.expression_is_true`.
    pub namespace: Option<&'a str>,
    pub test: &'a str,
    pub target: Target<'a>,
    /// Arguments as written, `column_name` among them, `model` not.
    pub arguments: Vec<(String, Json)>,
}

/// What is tested.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    Node(&'a str),
    Source(&'a str, &'a str),
}

impl GenericTest<'_> {
    /// The name of a test that is not given one: test, table, then every argument in the order of their names.
    pub fn name(&self) -> String {
        let mut arguments: Vec<&(String, Json)> = self.arguments.iter().collect();
        arguments.sort_by(|a, b| a.0.cmp(&b.0));
        let values = arguments.iter().flat_map(|(_, value)| match value {
            Json::Array(items) => items.iter().map(printed).collect(),
            Json::Object(members) => members.values().map(printed).collect(),
            one => vec![printed(one)],
        });
        let values: Vec<String> = values.map(|text| clean(&text)).collect();
        format!("{}_{}", self.identifier(), values.join("__"))
    }

    /// Test and table.
    fn identifier(&self) -> String {
        let namespace = self.namespace.map(|n| format!("{n}_")).unwrap_or_default();
        match self.target {
            Target::Node(name) => format!("{namespace}{}_{name}", self.test),
            Target::Source(source, table) => format!("{namespace}source_{}_{source}_{table}", self.test),
        }
    }

    /// That name for tables and files: where it is long, the beginning of test and table, and a digest.
    pub fn short_name(&self) -> String {
        let name = self.name();
        if name.chars().count() <= LONGEST {
            return name;
        }
        let begin: String = self.identifier().chars().take(KEPT).collect();
        let digest: String = Md5::digest(name.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
        format!("{begin}_{digest}")
    }

    /// `test.<package>.<name>.<digest>`: two tests of one name differ in their arguments.
    pub fn unique_id(&self, package: &str, name: &str) -> String {
        let target = match self.target {
            Target::Node(name) => format!("ref('{name}')"),
            Target::Source(source, table) => format!("source('{source}', '{table}')"),
        };
        let mut arguments = self.arguments.clone();
        arguments.push(("model".to_string(), Json::from(format!("{{{{ get_where_subquery({target}) }}}}"))));
        arguments.sort_by(|a, b| a.0.cmp(&b.0));
        let arguments: Vec<String> =
            arguments.iter().map(|(key, value)| format!("{}: {}", quoted(key), hashable(value))).collect();
        let metadata = format!(
            "{{'kwargs': {{{}}}, 'name': {}, 'namespace': {}}}",
            arguments.join(", "),
            quoted(self.test),
            quoted(self.namespace.unwrap_or("None"))
        );
        let digest: String =
            Md5::digest(format!("{name}{metadata}").as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
        format!("test.{package}.{name}.{}", &digest[digest.len() - DIGITS..])
    }
}

/// Every run of characters that cannot stand in a name becomes one `_`.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_run = false;
    for c in text.chars() {
        let fits = c.is_ascii_alphanumeric() || c == '_';
        match (fits, in_run) {
            (true, _) => out.push(c),
            (false, false) => out.push('_'),
            (false, true) => {}
        }
        in_run = !fits;
    }
    out
}

/// `str(value)` of Python.
fn printed(value: &Json) -> String {
    match value {
        Json::String(s) => s.clone(),
        other => shown(other, &|v| match v {
            Json::String(s) => quoted(s),
            other => printed(other),
        }),
    }
}

/// `repr` of dbt's hashable form, in which everything but lists and mappings is a text.
fn hashable(value: &Json) -> String {
    match value {
        Json::Array(_) => shown(value, &hashable),
        Json::Object(members) => {
            let mut sorted: Vec<(&String, &Json)> = members.iter().collect();
            sorted.sort_by_key(|(key, _)| key.as_str());
            let members: Vec<String> =
                sorted.iter().map(|(key, value)| format!("{}: {}", quoted(key), hashable(value))).collect();
            format!("{{{}}}", members.join(", "))
        }
        scalar => quoted(&printed(scalar)),
    }
}

/// A value other than text as Python prints it; what it contains is printed by `inner`.
fn shown(value: &Json, inner: &dyn Fn(&Json) -> String) -> String {
    match value {
        Json::Null => "None".to_string(),
        Json::Bool(true) => "True".to_string(),
        Json::Bool(false) => "False".to_string(),
        Json::Number(n) => n.to_string(),
        Json::String(s) => s.clone(),
        Json::Array(items) => format!("[{}]", items.iter().map(inner).collect::<Vec<_>>().join(", ")),
        Json::Object(members) => {
            let members: Vec<String> = members.iter().map(|(k, v)| format!("{}: {}", quoted(k), inner(v))).collect();
            format!("{{{}}}", members.join(", "))
        }
    }
}

/// `repr(text)` of Python: in single quotes, unless only those stand in it.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn not_null(target: Target<'static>, arguments: Json) -> GenericTest<'static> {
        let arguments = arguments.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        GenericTest { namespace: None, test: "not_null", target, arguments }
    }

    /// The names and ids on the right were written by dbt-core 1.10.
    #[test]
    fn names_and_ids_are_dbts() {
        let test = not_null(Target::Node("customers"), json!({"column_name": "customer_id"}));
        assert_eq!(test.name(), "not_null_customers_customer_id");
        assert_eq!(
            test.unique_id("jaffle_shop", &test.name()),
            "test.jaffle_shop.not_null_customers_customer_id.5c9bf9911d"
        );
        let test = not_null(Target::Node("orders"), json!({"column_name": "order_id"}));
        assert_eq!(test.unique_id("jaffle_shop", &test.name()), "test.jaffle_shop.not_null_orders_order_id.cf6c17daed");
    }

    #[test]
    fn arguments_become_parts_of_the_name() {
        let accepted = GenericTest {
            test: "accepted_values",
            arguments: vec![
                ("values".into(), json!(["placed", "return_pending", 3, true])),
                ("column_name".into(), json!("status")),
            ],
            ..not_null(Target::Source("raw", "orders"), json!({}))
        };
        assert_eq!(accepted.name(), "source_accepted_values_raw_orders_status__placed__return_pending__3__True");
        let whole = GenericTest { namespace: Some("shop"), ..not_null(Target::Node("orders"), json!({})) };
        assert_eq!(whole.name(), "shop_not_null_orders_", "a test of a whole table ends like this in dbt, too");
    }

    #[test]
    fn texts_are_quoted_as_python_does() {
        assert_eq!(quoted("a"), "'a'");
        assert_eq!(quoted("ref('a')"), "\"ref('a')\"");
        assert_eq!(quoted("'\"\\\n"), "'\\'\"\\\\\\n'");
        assert_eq!(hashable(&json!({"b": [1, true, null], "a": 0.5})), "{'a': '0.5', 'b': ['1', 'True', 'None']}");
    }
}

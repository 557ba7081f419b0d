//! Descriptions in a table's log: of the table, and as comments of its columns.
//!
//! A table is told what it should say ([`Table::set_docs`]); its next commit, whatever else it holds, writes what differs. Comments stand in
//! the schema's JSON only, never in [`Table::schema`]: a column that is described otherwise is the same column.

use serde_json::Value;
use std::collections::BTreeMap;

use super::actions::Metadata;
use super::table::Table;

/// What a table says about itself. What is None is left as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableDocs {
    /// Its description; empty: none.
    pub description: Option<String>,
    /// Comments by column; a column that is not in it has none.
    pub comments: Option<BTreeMap<String, String>>,
}

impl TableDocs {
    /// Writes what differs into `metadata`.
    pub(super) fn apply(&self, metadata: &mut Metadata) {
        if let Some(description) = &self.description {
            metadata.description = Some(description.clone()).filter(|d| !d.is_empty());
        }
        if let Some(comments) = &self.comments
            && let Some(schema) = commented(&metadata.schema_string, comments)
        {
            metadata.schema_string = schema;
        }
    }
}

/// The schema with these comments; None if it has them.
fn commented(schema: &str, comments: &BTreeMap<String, String>) -> Option<String> {
    let mut schema: Value = serde_json::from_str(schema).ok()?;
    let mut changed = false;
    for field in schema.get_mut("fields")?.as_array_mut()? {
        let name = field.get("name")?.as_str()?.to_string();
        let exact = comments.get(&name);
        let comment = exact.or_else(|| comments.iter().find(|(n, _)| n.eq_ignore_ascii_case(&name)).map(|(_, c)| c));
        let metadata = field.get_mut("metadata")?.as_object_mut()?;
        match comment.filter(|c| !c.is_empty()) {
            Some(comment) if metadata.get("comment").and_then(Value::as_str) != Some(comment) => {
                metadata.insert("comment".to_string(), comment.as_str().into());
                changed = true;
            }
            None => changed |= metadata.remove("comment").is_some(),
            Some(_) => {}
        }
    }
    changed.then(|| schema.to_string())
}

impl Table {
    /// From its next commit on the table says this about itself.
    pub fn set_docs(&mut self, docs: TableDocs) {
        let mut metadata = self.state.metadata.clone();
        docs.apply(&mut metadata);
        self.docs_differ = metadata != self.state.metadata;
        self.docs = Some(docs);
    }

    /// Its committed description.
    pub fn description(&self) -> Option<&str> {
        self.state.metadata.description.as_deref()
    }

    /// Committed comments by column.
    pub fn comments(&self) -> BTreeMap<String, String> {
        let schema: Value = serde_json::from_str(&self.state.metadata.schema_string).unwrap_or_default();
        let fields = schema.get("fields").and_then(Value::as_array).into_iter().flatten();
        let comment = |field: &Value| {
            let comment = field.get("metadata")?.get("comment")?.as_str()?;
            Some((field.get("name")?.as_str()?.to_string(), comment.to_string()))
        };
        fields.filter_map(comment).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_come_change_and_go() {
        let schema = r#"{"fields":[{"metadata":{},"name":"id","nullable":true,"type":"long"}],"type":"struct"}"#;
        let says = |text: &str| BTreeMap::from([("ID".to_string(), text.to_string())]);
        let first = commented(schema, &says("a key")).unwrap();
        assert!(first.contains(r#""comment":"a key""#), "{first}");
        assert_eq!(commented(&first, &says("a key")), None);
        let second = commented(&first, &says("the key")).unwrap();
        assert!(second.contains(r#""comment":"the key""#), "{second}");
        assert_eq!(commented(&second, &BTreeMap::new()).unwrap(), schema);
        assert_eq!(commented(schema, &BTreeMap::new()), None);
    }
}

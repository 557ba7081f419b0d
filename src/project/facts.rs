//! The project as templates see it: `graph` and `model`, in the shape of dbt's manifest.

use std::path::Path;

use serde_json::{Map, Value as Json, json};

/// A graph with nothing in it: while the project is still being read.
pub(super) fn empty() -> Json {
    json!({
        "nodes": {}, "sources": {}, "exposures": {}, "metrics": {}, "groups": {}, "semantic_models": {},
        "saved_queries": {}, "unit_tests": {},
    })
}

/// Columns by name, as a node has them.
pub(super) fn columns<'a>(columns: impl Iterator<Item = (&'a str, Option<&'a str>, Option<&'a str>)>) -> Json {
    let column = |(name, data_type, description): (&str, Option<&str>, Option<&str>)| {
        let column = json!({
            "name": name, "data_type": data_type, "description": description.unwrap_or(""), "meta": {}, "tags": [],
            "constraints": [],
        });
        (name.to_string(), column)
    };
    Json::Object(columns.map(column).collect::<Map<_, _>>())
}

/// What is known of a node before its configuration is.
pub(super) fn draft(
    name: &str,
    unique_id: &str,
    resource_type: &str,
    package: &str,
    fqn: &[String],
    file: &Path,
) -> Json {
    json!({
        "name": name, "unique_id": unique_id, "resource_type": resource_type, "package_name": package, "fqn": fqn,
        "path": file, "original_file_path": file, "database": null, "schema": "", "alias": name, "language": "sql",
        "tags": [], "meta": {}, "config": {}, "columns": {}, "description": "", "refs": [], "sources": [],
        "depends_on": {"macros": [], "nodes": []},
    })
}

/// Puts `more` into a node.
pub(super) fn complete(node: &mut Json, more: Json) {
    if let (Some(node), Json::Object(more)) = (node.as_object_mut(), more) {
        node.extend(more);
    }
}

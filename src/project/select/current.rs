//! What a manifest of this project would say of its nodes, as far as states are compared by it.

use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

use crate::project::{Connector, Materialization, Model, Project};

/// Entries by unique id; a key that is not there is not compared.
pub(super) fn entries(project: &Project) -> BTreeMap<String, Json> {
    let mut entries: BTreeMap<String, Json> = BTreeMap::new();
    entries.extend(project.models.iter().map(|m| (m.unique_id.clone(), model(m))));
    for source in &project.sources {
        let (schema, identifier) = match &source.connector {
            Connector::Delta { schema, identifier, .. } => (schema, identifier),
            _ => (&source.source, &source.name),
        };
        let entry = json!({"resource_type": "source", "fqn": source.fqn, "schema": schema, "identifier": identifier});
        entries.insert(source.unique_id.clone(), entry);
    }
    for test in &project.tests {
        let mut entry = json!({"resource_type": "test", "fqn": test.fqn});
        match &test.test_name {
            Some(name) => entry["test_metadata"] = json!({"name": name}),
            None => entry["raw_code"] = test.source_map.text().into(),
        }
        entries.insert(test.unique_id.clone(), entry);
    }
    for test in &project.unit_tests {
        entries.insert(test.unique_id.clone(), json!({"resource_type": "unit_test"}));
    }
    entries
}

fn model(model: &Model) -> Json {
    let columns: serde_json::Map<String, Json> = model
        .columns
        .iter()
        .map(|c| (c.name.clone(), json!({"name": c.name, "data_type": c.data_type, "description": c.description})))
        .collect();
    let enforced = model.config.all.get("contract").and_then(|c| c.get("enforced")) == Some(&Json::Bool(true));
    json!({
        "resource_type": match model.materialized {
            Materialization::Snapshot => "snapshot",
            Materialization::Seed => "seed",
            _ => "model",
        },
        "fqn": model.fqn,
        "raw_code": model.source_map.text(),
        "checksum": {"checksum": model.seed.as_ref().map(|s| s.checksum.clone())},
        "config": model.config.all,
        "unrendered_config": model.config.all,
        "description": model.description,
        "columns": columns,
        "contract": {"enforced": enforced},
        "access": model.config.all.get("access"),
    })
}

//! `config` of manifest nodes: every key that dbt always writes, with its default, and what the project says on top.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::nodes::{list, object};
use crate::project::{DataTest, Model};

/// The configuration of a node that says nothing of its own.
pub(super) fn defaults(resource: &str) -> Map<String, Json> {
    let mut config = object(Some(&json!({
        "enabled": true,
        "alias": null,
        "schema": null,
        "database": null,
        "tags": [],
        "meta": {},
        "group": null,
        "materialized": null,
        "incremental_strategy": null,
        "batch_size": null,
        "lookback": 1,
        "begin": null,
        "persist_docs": {},
        "post-hook": [],
        "pre-hook": [],
        "quoting": {},
        "column_types": {},
        "full_refresh": null,
        "unique_key": null,
        "on_schema_change": "ignore",
        "on_configuration_change": "apply",
        "grants": {},
        "packages": [],
        "docs": {"show": true, "node_color": null},
        "contract": {"enforced": false, "alias_types": true},
        "event_time": null,
        "concurrent_batches": null,
    })));
    let own = match resource {
        "model" => json!({"access": "protected", "freshness": null}),
        "snapshot" => json!({
            "strategy": null, "target_schema": null, "target_database": null, "updated_at": null, "check_cols": null,
            "snapshot_meta_column_names": {"dbt_valid_to": null, "dbt_valid_from": null, "dbt_scd_id": null,
                                           "dbt_updated_at": null, "dbt_is_deleted": null},
            "dbt_valid_to_current": null,
        }),
        "seed" => json!({"delimiter": ",", "quote_columns": null}),
        _ => json!({}),
    };
    config.extend(object(Some(&own)));
    config
}

/// The configuration of a model, snapshot or seed; `entry` is what its properties file says beside `config:`.
pub(super) fn model(model: &Model, entry: &Json, resource: &str) -> Map<String, Json> {
    let mut config = defaults(resource);
    for key in ["docs", "group", "access", "freshness"] {
        if let Some(value) = entry.get(key).filter(|v| !v.is_null() && config.contains_key(key)) {
            config.insert(key.to_string(), value.clone());
        }
    }
    overlay(&mut config, &model.config.all);
    config.insert("enabled".to_string(), true.into());
    config.insert("materialized".to_string(), model.materialized.name().into());
    config.insert("tags".to_string(), model.tags.clone().into());
    config
}

/// The configuration of a data test.
pub(super) fn test(test: &DataTest, alias: &str) -> Map<String, Json> {
    let mut config = object(Some(&json!({
        "enabled": true,
        "alias": (alias != test.name).then_some(alias),
        "schema": test.config.audit.0,
        "database": null,
        "tags": [],
        "meta": {},
        "group": null,
        "materialized": "test",
        "severity": "ERROR",
        "store_failures": null,
        "store_failures_as": null,
        "where": null,
        "limit": null,
        "fail_calc": "count(*)",
        "warn_if": "!= 0",
        "error_if": "!= 0",
    })));
    overlay(&mut config, &test.config.all);
    config.insert("tags".to_string(), test.tags.clone().into());
    config
}

/// Puts what is written over the defaults, in the shapes the schema wants.
pub(super) fn overlay(config: &mut Map<String, Json>, written: &BTreeMap<String, Json>) {
    for (key, value) in written {
        let (key, value) = match key.as_str() {
            "pre_hook" | "pre-hook" => ("pre-hook", hooks(value)),
            "post_hook" | "post-hook" => ("post-hook", hooks(value)),
            "meta" => ("meta", object(Some(value)).into()),
            "tags" => ("tags", list(Some(value)).into()),
            // Shapes with defaults of their own: what is not said keeps them.
            "docs" | "contract" | "snapshot_meta_column_names" => {
                let mut whole = object(config.get(key));
                whole.extend(object(Some(value)));
                (key.as_str(), whole.into())
            }
            other => (other, value.clone()),
        };
        config.insert(key.to_string(), value);
    }
}

/// Hooks as dbt lists them: `{sql, transaction, index}`.
fn hooks(written: &Json) -> Json {
    let one = |hook: &Json| match hook {
        Json::Object(members) => json!({
            "sql": members.get("sql").and_then(Json::as_str).unwrap_or_default(),
            "transaction": members.get("transaction").and_then(Json::as_bool).unwrap_or(true),
            "index": null,
        }),
        other => json!({"sql": other.as_str().unwrap_or_default(), "transaction": true, "index": null}),
    };
    list(Some(written)).iter().map(one).collect()
}

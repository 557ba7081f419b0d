//! Nodes of the manifest that make no table: hooks of a project, and analyses.

use serde_json::{Value as Json, json};

use super::manifest::slashes;
use super::node_config;
use super::nodes::{self, Writer, checksum};
use crate::project::PlainNode;

impl Writer<'_> {
    pub(super) fn plain(&self, plain: &PlainNode) -> Json {
        let (refs, sources) = nodes::mentions(self.project, &plain.depends_on);
        let mut config = node_config::defaults(plain.resource_type);
        node_config::overlay(&mut config, &plain.config);
        if config.get("materialized").is_none_or(Json::is_null) {
            config.insert("materialized".to_string(), "view".into());
        }
        let mut node = json!({
            "database": null,
            "schema": plain.schema,
            "name": plain.name,
            "resource_type": plain.resource_type,
            "package_name": plain.package,
            "path": slashes(&plain.path),
            "original_file_path": nodes::own_path(self.project, &plain.package, &plain.file),
            "unique_id": plain.unique_id,
            "fqn": plain.fqn,
            "alias": plain.name,
            "checksum": checksum(&plain.raw),
            "tags": plain.tags,
            "description": "",
            "columns": {},
            "meta": nodes::object(config.get("meta")),
            "group": config.get("group"),
            "docs": nodes::docs(config.get("docs")),
            "patch_path": null,
            "build_path": null,
            "unrendered_config": plain.config,
            "config": config,
            "created_at": self.created_at,
            "relation_name": null,
            "raw_code": plain.raw,
            "language": "sql",
            "refs": refs,
            "sources": sources,
            "metrics": [],
            "depends_on": {
                "macros": self.called_macros(&plain.raw, None), "nodes": self.node_ids(&plain.depends_on),
            },
            "compiled_path": null,
            "contract": {"enforced": false, "alias_types": true, "checksum": null},
        });
        if let Some(index) = plain.index {
            node["index"] = index.into();
        }
        if let Some(sql) = &plain.sql {
            node["compiled"] = true.into();
            node["compiled_code"] = sql.as_str().into();
        }
        node
    }
}

//! Deferral: which tables of another run stand in for models that are not built here.
//!
//! The manifest of that run says of every node where its table is; where its lake is stands in the manifest's metadata
//! ([`LAKE`]). [`Elsewhere::read`] takes both out of it. Which models are deferred is the caller's choice (`cli::defer` follows
//! dbt); a project that is loaded with [`LoadOptions::deferred`](super::LoadOptions::deferred) then renders `ref` of such a
//! model as the other table, and `plan` reads it as a Delta table that somebody else maintains.
//!
//! Invariant: `{{ this }}` and the table a model is built into are never deferred.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;

use super::select::artifact;
use crate::error::{Error, Result};

/// The key of `metadata.env` under which `manifest.json` has the lake of its run: a URL or an absolute path.
pub(super) const LAKE: &str = "smelt_lake";

/// A table that stands in for a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferred {
    pub schema: String,
    pub alias: String,
    /// Root of the lake that holds it; None: this target's own.
    pub lake: Option<String>,
    /// What writes it never takes a row back, as far as its manifest says.
    pub append_only: bool,
    /// The model is looked at itself too, not only read: it is compiled, and its readers read the table.
    pub compiled: bool,
}

/// The tables of another run, by the unique ids of their models.
#[derive(Debug, Default)]
pub struct Elsewhere(BTreeMap<String, Deferred>);

impl Elsewhere {
    /// Those of `manifest.json` in `dir`, for a project whose own lake is `lake`.
    pub fn read(dir: &Path, lake: &str) -> Result<Self> {
        let Some(manifest) = artifact(dir, "manifest.json")? else {
            let message = format!("--defer: {} has no manifest.json", dir.display());
            return Err(Error::user("no-state", message)
                .with_hint("name the folder that holds manifest.json of another run: its `target`, or a copy of it"));
        };
        let theirs = manifest["metadata"]["env"][LAKE].as_str();
        if theirs.is_some_and(|lake| lake.contains("***")) {
            let message = format!("--defer: the lake in {} is hidden, because it holds a secret", dir.display());
            return Err(Error::user("no-state", message)
                .with_hint("keep secrets out of `lake:`: put them into the environment of the object store"));
        }
        let theirs = theirs.filter(|theirs| theirs.trim_end_matches('/') != lake.trim_end_matches('/'));
        let nodes = manifest["nodes"].as_object().into_iter().flatten();
        Ok(Elsewhere(nodes.filter_map(|(id, node)| Some((id.clone(), table(node, theirs)?))).collect()))
    }

    /// The table of the node with this unique id.
    pub fn table(&self, unique_id: &str) -> Option<&Deferred> {
        self.0.get(unique_id)
    }
}

/// Where a node's rows are; None when it has no table.
fn table(node: &Json, lake: Option<&str>) -> Option<Deferred> {
    if !matches!(node["resource_type"].as_str()?, "model" | "snapshot" | "seed") {
        return None;
    }
    let config = &node["config"];
    let materialized = config["materialized"].as_str()?;
    if matches!(materialized, "view" | "ephemeral") {
        return None;
    }
    Some(Deferred {
        schema: node["schema"].as_str()?.to_string(),
        alias: node["alias"].as_str().or_else(|| node["name"].as_str())?.to_string(),
        lake: lake.map(str::to_string),
        append_only: materialized == "streaming_table" && config["deletion_vectors"].is_null(),
        compiled: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(metadata: &str, node: &str) -> Result<Option<Deferred>> {
        let dir = tempfile::tempdir().unwrap();
        let manifest = format!("{{\"metadata\": {metadata}, \"nodes\": {{\"model.shop.orders\": {node}}}}}");
        std::fs::write(dir.path().join("manifest.json"), manifest).unwrap();
        Ok(Elsewhere::read(dir.path(), "s3://dev/lake")?.table("model.shop.orders").cloned())
    }

    const TABLE: &str = r#"{"resource_type": "model", "name": "orders", "schema": "gold", "alias": "sales",
        "config": {"materialized": "materialized_view"}}"#;

    #[test]
    fn a_manifest_says_where_the_tables_of_its_run_are() {
        let found = read(r#"{"env": {"smelt_lake": "s3://prod/lake/"}}"#, TABLE).unwrap().unwrap();
        assert_eq!((found.schema.as_str(), found.alias.as_str()), ("gold", "sales"));
        assert_eq!(found.lake.as_deref(), Some("s3://prod/lake/"));
        assert!(!found.append_only);
        for own in [r#"{"env": {"smelt_lake": "s3://dev/lake/"}}"#, r#"{"env": {}}"#, "{}"] {
            assert_eq!(read(own, TABLE).unwrap().unwrap().lake, None, "{own}: this lake's own table");
        }
        let stream = TABLE.replace("materialized_view", "streaming_table");
        assert!(read("{}", &stream).unwrap().unwrap().append_only);
        assert_eq!(read("{}", &TABLE.replace("materialized_view", "view")).unwrap(), None, "a view has no table");
        let hidden = read(r#"{"env": {"smelt_lake": "s3://***/lake"}}"#, TABLE).unwrap_err();
        assert!(hidden.render().contains("because it holds a secret"), "{}", hidden.render());
    }

    #[test]
    fn a_folder_without_a_manifest_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = Elsewhere::read(dir.path(), "/lake").unwrap_err().render();
        assert!(error.contains("has no manifest.json"), "{error}");
    }
}

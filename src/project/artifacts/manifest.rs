//! `manifest.json` (v12): what the project is, node by node, and how the nodes hang together.
//!
//! [`nodes`](super::nodes) writes models, snapshots, seeds and tests; here stand everything else and the maps of the graph.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use regex::Regex;
use serde_json::{Value as Json, json};

use super::nodes::{self, Writer};
use super::{Invocation, rfc3339};
use crate::env::Env;
use crate::project::{
    Connector, Declared, DeclaredSource, Dependency, Dialect, MacroDefinition, Project, SourceTable, UnitOp,
    UnitRelation, UnitRow, UnitRows, UnitStep,
};

/// The artifact.
pub fn manifest(project: &Project, invocation: &Invocation, env: &Env) -> Json {
    let writer = Writer::new(project, invocation);
    let mut metadata = invocation.metadata("manifest/v12", env);
    metadata["project_name"] = project.name.as_str().into();
    metadata["project_id"] = project_id(&project.name).into();
    metadata["adapter_type"] = adapter(project.dialect).into();
    metadata["send_anonymous_usage_stats"] = false.into();
    metadata["run_started_at"] = rfc3339(invocation.started_at).into();
    // Who defers to this run reads the tables there.
    metadata["env"][crate::project::defer::LAKE] = project.target.lake.as_str().into();
    metadata["quoting"] = json!({"database": false, "schema": true, "identifier": true, "column": null});

    let nodes = writer.nodes();
    let sources: BTreeMap<String, Json> =
        project.sources.iter().map(|s| (s.unique_id.clone(), source(&writer, s))).collect();
    let exposures = exposures(&writer);
    let (parents, children) = graph(&nodes, sources.keys(), &exposures);
    json!({
        "metadata": metadata,
        "nodes": nodes,
        "sources": sources,
        "macros": macros(&writer),
        "docs": docs(project),
        "exposures": exposures,
        "metrics": {},
        "groups": groups(project),
        "selectors": project.selectors.iter().map(|s| (s.name.clone(), s.written.clone())).collect::<BTreeMap<_, _>>(),
        "disabled": writer.disabled(),
        "parent_map": parents,
        "child_map": children,
        "group_map": group_map(project, &nodes),
        "saved_queries": {},
        "semantic_models": {},
        "unit_tests": unit_tests(&writer),
    })
}

/// Compiled code and relation name of every node that has them, by unique id.
pub(super) fn compiled(project: &Project) -> HashMap<String, (&str, Option<String>)> {
    let models = project.models.iter().map(|m| {
        let relation = m.materialized.name() != "ephemeral";
        (m.unique_id.clone(), (m.sql.as_str(), relation.then(|| relation_name(project, &m.schema, &m.alias))))
    });
    let tests = project.tests.iter().map(|t| (t.unique_id.clone(), (t.sql.as_str(), None)));
    models.chain(tests).collect()
}

/// A relation as compiled SQL names it: `"gold"."fact_events"`.
pub(super) fn relation_name(project: &Project, schema: &str, name: &str) -> String {
    let quote = match project.dialect {
        Dialect::Spark | Dialect::Databricks => '`',
        _ => '"',
    };
    let quoted = |name: &str| format!("{quote}{}{quote}", name.replace(quote, &format!("{quote}{quote}")));
    format!("{}.{}", quoted(schema), quoted(name))
}

/// The same for everybody who has the project: the digest of its name, as dbt makes it.
fn project_id(name: &str) -> String {
    use md5::{Digest, Md5};
    Md5::digest(name.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

/// The adapter whose SQL the models are written in; `smelt` for our own.
fn adapter(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::DataFusion => "smelt",
        Dialect::Postgres => "postgres",
        Dialect::DuckDb => "duckdb",
        Dialect::Spark => "spark",
        Dialect::Databricks => "databricks",
        Dialect::Snowflake => "snowflake",
    }
}

fn source(writer: &Writer<'_>, table: &SourceTable) -> Json {
    let project = writer.project;
    let none = DeclaredSource::default();
    let key = (table.source.clone(), table.name.clone());
    let declared = project.inventory.sources.get(&key).unwrap_or(&none);
    let path = slashes(&table.span.file);
    let own = |key: &str| declared.table.get(key).filter(|v| !v.is_null());
    let own_config = |key: &str| declared.table.get("config").and_then(|c| c.get(key)).filter(|v| !v.is_null());
    let above = |key: &str| {
        let config = declared.source.get("config").and_then(|c| c.get(key));
        config.or_else(|| declared.source.get(key)).filter(|v| !v.is_null())
    };
    let [below, over] = &declared.folders;
    let folder = |says: &'static str, key: &str| {
        let level = if says == "over" { over } else { below };
        level.get(key).filter(|v| !v.is_null())
    };
    let setting = |key: &str| {
        let own = || own_config(key).or_else(|| own(key)).or_else(|| above(key));
        folder("over", key).or_else(own).or_else(|| folder("below", key)).cloned()
    };
    let (schema, identifier, loader, location) = place(table);
    let tags = declared.tags();
    let source_meta = nodes::object(above("meta"));
    let mut meta = nodes::object(below.get("meta"));
    meta.extend(source_meta.clone());
    meta.extend(nodes::object(own("meta")));
    meta.extend(nodes::object(own_config("meta")));
    meta.extend(nodes::object(over.get("meta")));
    let mut config = declared.config();
    let freshness = freshness(setting("freshness"), above("freshness").or(below.get("freshness")).cloned());
    config.insert("enabled".to_string(), true.into());
    config.insert("meta".to_string(), meta.clone().into());
    config.insert("tags".to_string(), tags.clone().into());
    config.insert("freshness".to_string(), freshness.clone());
    if let Some(field) = setting("loaded_at_field") {
        config.insert("loaded_at_field".to_string(), field);
    }
    json!({
        "database": null,
        "schema": schema,
        "name": table.name,
        "resource_type": "source",
        "package_name": table.package,
        "path": path,
        "original_file_path": path,
        "unique_id": table.unique_id,
        "fqn": table.fqn,
        "source_name": table.source_name(),
        "source_description": declared.source.get("description").and_then(Json::as_str).unwrap_or_default(),
        "loader": setting("loader").and_then(|l| Some(l.as_str()?.to_string())).unwrap_or_else(|| loader.to_string()),
        "identifier": identifier,
        "quoting": {"database": null, "schema": null, "identifier": null, "column": null},
        "loaded_at_field": setting("loaded_at_field"),
        "freshness": freshness,
        "external": location.map(|location| json!({"location": location, "file_format": format!("{:?}", table.format).to_lowercase()})),
        "description": table.description.clone().unwrap_or_default(),
        "columns": nodes::columns(declared.table.get("columns")),
        "meta": meta,
        "source_meta": source_meta,
        "tags": tags,
        "config": config,
        "patch_path": null,
        "unrendered_config": declared.written,
        "relation_name": relation_name(project, &table.source, &table.name),
        "created_at": writer.created_at,
    })
}

/// (schema, identifier, loader, location) of what a source table reads.
fn place(table: &SourceTable) -> (String, String, &'static str, Option<String>) {
    let here = |loader, location| (table.source.clone(), table.name.clone(), loader, location);
    match &table.connector {
        Connector::Delta { schema, identifier, path } => (schema.clone(), identifier.clone(), "delta", path.clone()),
        Connector::Kafka(kafka) => here(
            "kafka",
            Some(match &kafka.topics {
                crate::project::Topics::Named(topics) => topics.join(","),
                crate::project::Topics::Pattern(pattern) => pattern.clone(),
            }),
        ),
        Connector::Files(files) => here("files", Some(files.path.clone())),
        Connector::Datagen { .. } => here("datagen", None),
    }
}

/// A table's freshness on top of its source's: keys that are not said are inherited, `null` says none.
fn freshness(own: Option<Json>, above: Option<Json>) -> Json {
    let mut merged = nodes::object(above.as_ref());
    merged.extend(nodes::object(own.as_ref()));
    let period = |key: &str| {
        let found = merged.get(key);
        json!({"count": found.and_then(|p| p.get("count")), "period": found.and_then(|p| p.get("period"))})
    };
    match merged.is_empty() {
        true => Json::Null,
        false => json!({
            "warn_after": period("warn_after"),
            "error_after": period("error_after"),
            "filter": merged.get("filter"),
        }),
    }
}

fn macros(writer: &Writer<'_>) -> BTreeMap<String, Json> {
    let project = writer.project;
    let one = |definition: &MacroDefinition| {
        let none = Declared::default();
        let declared = definition.declared.as_ref().unwrap_or(&none);
        let meta =
            nodes::object(declared.entry.get("config").and_then(|c| c.get("meta")).or(declared.entry.get("meta")));
        let described: Vec<Json> = nodes::list(declared.entry.get("arguments"));
        let arguments: Vec<Json> = match described.is_empty() {
            true => definition.arguments.iter().map(|a| json!({"name": a, "type": null, "description": ""})).collect(),
            false => described
                .iter()
                .map(|a| json!({"name": a["name"], "type": a["type"], "description": a["description"].as_str().unwrap_or_default()}))
                .collect(),
        };
        let path = nodes::own_path(project, &definition.package, &definition.path);
        let id = macro_id(definition);
        let node = json!({
            "name": definition.name,
            "resource_type": "macro",
            "package_name": definition.package,
            "path": path,
            "original_file_path": path,
            "unique_id": id,
            "macro_sql": definition.sql,
            "depends_on": {"macros": writer.called_macros(&definition.sql, Some(&definition.name))},
            "description": declared.entry.get("description").and_then(Json::as_str).unwrap_or_default(),
            "meta": meta,
            "docs": nodes::docs(declared.entry.get("docs")),
            "patch_path": definition.declared.as_ref().map(|d| nodes::patch_path(project, &definition.package, &d.path)),
            "arguments": arguments,
            "created_at": writer.created_at,
            "supported_languages": null,
        });
        (id, node)
    };
    project.inventory.macros.iter().map(one).collect()
}

/// `macro.telecom.cents`
pub(super) fn macro_id(definition: &MacroDefinition) -> String {
    format!("macro.{}.{}", definition.package, definition.name)
}

fn docs(project: &Project) -> BTreeMap<String, Json> {
    let one = |block: &crate::project::DocsBlock| {
        let path = slashes(&block.path);
        let id = format!("doc.{}.{}", project.name, block.name);
        let node = json!({
            "name": block.name,
            "resource_type": "doc",
            "package_name": project.name,
            "path": path,
            "original_file_path": path,
            "unique_id": id,
            "block_contents": block.text,
        });
        (id, node)
    };
    project.inventory.docs.iter().map(one).collect()
}

fn exposures(writer: &Writer<'_>) -> BTreeMap<String, Json> {
    let project = writer.project;
    let one = |exposure: &crate::project::Exposure| {
        let path = slashes(&exposure.path);
        let (refs, sources) = nodes::mentions(writer.project, &exposure.depends_on);
        let mut config = nodes::object(Some(&exposure.config));
        config.insert("enabled".to_string(), true.into());
        config.insert("tags".to_string(), exposure.tags.clone().into());
        config.insert("meta".to_string(), exposure.meta.clone());
        let node = json!({
            "name": exposure.name,
            "resource_type": "exposure",
            "package_name": exposure.package,
            "path": path,
            "original_file_path": path,
            "unique_id": exposure.unique_id,
            "fqn": exposure.fqn,
            "type": exposure.kind,
            "owner": exposure.owner,
            "description": exposure.description,
            "label": exposure.label,
            "maturity": exposure.maturity,
            "meta": exposure.meta,
            "tags": exposure.tags,
            "config": config,
            "unrendered_config": exposure.config,
            "url": exposure.url,
            "depends_on": {"macros": [], "nodes": writer.node_ids(&exposure.depends_on)},
            "refs": refs,
            "sources": sources,
            "metrics": [],
            "created_at": writer.created_at,
        });
        (exposure.unique_id.clone(), node)
    };
    project.inventory.exposures.iter().map(one).collect()
}

fn unit_tests(writer: &Writer<'_>) -> BTreeMap<String, Json> {
    let one = |test: &crate::project::UnitTest| {
        let path = slashes(&test.path);
        let mut meta = nodes::object(test.config.get("meta"));
        // dbt has no place for the steps after the first.
        if let [first, later @ ..] = test.steps.as_slice()
            && (!later.is_empty() || first.now.is_some())
        {
            let mut smelt = nodes::object(meta.get("smelt"));
            if let Some(now) = first.now {
                smelt.insert("now".to_string(), instant(now));
            }
            if !later.is_empty() {
                smelt.insert("then".to_string(), later.iter().map(later_step).collect());
            }
            meta.insert("smelt".to_string(), smelt.into());
        }
        let first = test.steps.first();
        let node = json!({
            "model": test.model,
            "given": first.map(given).unwrap_or_default(),
            "expect": first.map(|s| rows(&s.expect)),
            "overrides": test.overrides,
            "name": test.name,
            "resource_type": "unit_test",
            "package_name": test.package,
            "path": path,
            "original_file_path": path,
            "unique_id": test.unique_id,
            "fqn": test.fqn,
            "description": test.description.clone().unwrap_or_default(),
            "depends_on": {"macros": [], "nodes": writer.node_ids(&[Dependency::Model(test.model.clone())])},
            "config": {"tags": test.tags, "meta": meta, "enabled": true},
            "created_at": writer.created_at,
        });
        (test.unique_id.clone(), node)
    };
    writer.project.unit_tests.iter().map(one).collect()
}

fn instant(micros: i64) -> Json {
    chrono::DateTime::from_timestamp_micros(micros).map(|t| t.to_rfc3339()).into()
}

/// A step behind the first.
fn later_step(step: &UnitStep) -> Json {
    let mut written = json!({"given": given(step), "expect": rows(&step.expect)});
    if let Some(now) = step.now {
        written["now"] = instant(now);
    }
    written
}

/// What a step of a unit test gives to each input.
fn given(step: &UnitStep) -> Vec<Json> {
    let one = |input: &crate::project::UnitInput| {
        let mut given = rows(&input.rows);
        given["input"] = match &input.relation {
            UnitRelation::Read(Dependency::Model(name)) => format!("ref('{name}')"),
            UnitRelation::Read(Dependency::Source(source, table)) => format!("source('{source}', '{table}')"),
            UnitRelation::This => "this".to_string(),
        }
        .into();
        given
    };
    step.given.iter().map(one).collect()
}

/// Rows of a unit test as dbt has them: mappings, whatever they are written as, or a query.
fn rows(rows: &UnitRows) -> Json {
    match rows {
        UnitRows::Query { sql, .. } => json!({"rows": sql, "format": "sql"}),
        UnitRows::Values(rows) => {
            let one = |row: &UnitRow| {
                let mut members: serde_json::Map<String, Json> =
                    row.cells.iter().map(|c| (c.column.clone(), c.value.clone())).collect();
                match row.op {
                    UnitOp::Weight(1) => {}
                    UnitOp::Weight(count) => drop(members.insert("_weight".to_string(), count.into())),
                    UnitOp::Delete => drop(members.insert("_op".to_string(), "delete".into())),
                    UnitOp::Update => drop(members.insert("_op".to_string(), "update".into())),
                    UnitOp::Upsert => drop(members.insert("_op".to_string(), "upsert".into())),
                }
                Json::Object(members)
            };
            json!({"rows": rows.iter().map(one).collect::<Vec<_>>(), "format": "dict"})
        }
    }
}

fn groups(project: &Project) -> BTreeMap<String, Json> {
    let one = |group: &crate::project::Group| {
        let path = slashes(&group.path);
        let id = format!("group.{}.{}", project.name, group.name);
        let node = json!({
            "name": group.name,
            "resource_type": "group",
            "package_name": project.name,
            "path": path,
            "original_file_path": path,
            "unique_id": id,
            "owner": group.owner,
            "description": group.description,
            "config": {"meta": nodes::object(group.config.get("meta"))},
        });
        (id, node)
    };
    project.inventory.groups.iter().map(one).collect()
}

/// Members of each group.
fn group_map(project: &Project, nodes: &BTreeMap<String, Json>) -> BTreeMap<String, Vec<String>> {
    let members = |group: &str| {
        nodes.iter().filter(|(_, n)| n["group"].as_str() == Some(group)).map(|(id, _)| id.clone()).collect()
    };
    project.inventory.groups.iter().map(|g| (g.name.clone(), members(&g.name))).collect()
}

type Edges = BTreeMap<String, BTreeSet<String>>;

/// What each node reads and what reads it.
fn graph<'a>(
    nodes: &'a BTreeMap<String, Json>,
    sources: impl Iterator<Item = &'a String>,
    exposures: &'a BTreeMap<String, Json>,
) -> (Edges, Edges) {
    let mut parents: Edges = sources.map(|id| (id.clone(), BTreeSet::new())).collect();
    for (id, node) in nodes.iter().chain(exposures) {
        let read = node["depends_on"]["nodes"].as_array().into_iter().flatten();
        parents.insert(id.clone(), read.filter_map(|n| Some(n.as_str()?.to_string())).collect());
    }
    let mut children: Edges = parents.keys().map(|id| (id.clone(), BTreeSet::new())).collect();
    for (id, read) in &parents {
        for parent in read {
            children.entry(parent.clone()).or_default().insert(id.clone());
        }
    }
    (parents, children)
}

/// A path as artifacts write it on every system.
pub(super) fn slashes(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "/")
}

/// Finds calls of the project's macros in Jinja.
pub(super) fn call_finder(project: &Project) -> Option<Regex> {
    let names: Vec<String> = project.inventory.macros.iter().map(|m| regex::escape(&m.name)).collect();
    (!names.is_empty()).then(|| Regex::new(&format!(r"\b({})\s*\(", names.join("|"))).ok())?
}

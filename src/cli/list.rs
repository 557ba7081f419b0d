//! `smelt ls`: what a project has.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::args::{ListOutput, Selection};
use super::session::Session;
use super::{Exit, print};
use crate::error::Error;
use crate::project::{Graph, Model, Node, Project};
use crate::runtime;

/// Prints the selected nodes, one a line, by unique id.
pub(super) async fn ls(
    session: &Session,
    selection: &Selection,
    output: ListOutput,
    keys: &[String],
) -> Result<Exit, Vec<Error>> {
    let project = Arc::new(session.load()?);
    session.artifacts.loaded(&session.env, &project).map_err(|e| vec![e])?;
    let nodes = match session.choose(&project, None, selection).await? {
        Some(selected) => selected.nodes,
        None => Graph::new(&project).nodes,
    };
    if nodes.is_empty() {
        session.warn(&Error::user("empty-selection", "no nodes are selected"));
    }
    let last_runs = match output {
        ListOutput::Json => runtime::last_runs(&session.env, &project).await.map_err(|e| vec![e])?,
        _ => BTreeMap::new(),
    };
    for node in &nodes {
        let model = project.models.iter().find(|m| m.unique_id == node.unique_id);
        match output {
            ListOutput::Table | ListOutput::Selector => print::line(&node.selector()),
            ListOutput::Name => print::line(&node.search_name()),
            ListOutput::Path => print::line(&node.path.to_string_lossy()),
            ListOutput::Csv => {
                if let Some(model) = model {
                    let materialized = model.materialized.name();
                    print::line(&format!("{},{},{materialized}", model.name, runtime::full_name(model)));
                }
            }
            ListOutput::Json => {
                let json = json(session, &project, node, model.map(AsRef::as_ref), &last_runs, keys);
                print::line(&session.env.redact(&json.to_string()));
            }
        }
    }
    Ok(Exit::Success)
}

/// dbt's keys, those that say when it runs, or the ones asked for.
fn json(
    session: &Session,
    _project: &Project,
    node: &Node,
    model: Option<&Model>,
    last_runs: &BTreeMap<String, i64>,
    keys: &[String],
) -> serde_json::Value {
    let mut json = node.json();
    if let Some(model) = model {
        json.insert("materialized".to_string(), model.materialized.name().into());
        if let Some(schedule) = &model.config.schedule {
            let last = last_runs.get(&model.name).copied();
            let next = schedule.next_after(session.env.now_micros());
            json.insert("schedule".to_string(), schedule.when.to_string().into());
            json.insert("last_run".to_string(), last.map(rfc3339).into());
            json.insert("next_run".to_string(), next.map(rfc3339).into());
        }
    }
    // As dbt takes them: several arguments, or one with spaces.
    let keys: Vec<&str> = keys.iter().flat_map(|k| k.split([' ', ','])).filter(|k| !k.is_empty()).collect();
    if !keys.is_empty() {
        json.retain(|key, _| keys.contains(&key.as_str()));
    }
    serde_json::Value::Object(json)
}

fn rfc3339(micros: i64) -> String {
    chrono::DateTime::from_timestamp_micros(micros)
        .unwrap_or_default()
        .to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

//! `compile`, `ls`, `plan`, `explain`, `debug`: commands that look and do not write tables.

use std::collections::BTreeMap;

use super::args::{Output, Selection};
use super::session::Session;
use super::{Exit, print};
use crate::error::{Error, Result};
use crate::project::{self, Connector, Dependency, Project};
use crate::runtime;

pub(super) async fn compile(session: &Session, selection: &Selection) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = session.compile().await?;
    let selected = session.selected(&project, selection)?;
    let folder = project::write_compiled(&project, &session.env).map_err(|e| vec![e])?;
    let taken = compilation.models.iter().filter(|m| selected.as_ref().is_none_or(|s| s.contains(&m.model.name)));
    let incremental = taken.clone().filter(|m| m.incremental.is_ok()).count();
    session.say(&format!(
        "{} models compile ({incremental} incremental), {} sources, {} tests; SQL is in {}",
        taken.count(),
        project.sources.len(),
        project.tests.len(),
        folder.display()
    ));
    Ok(Exit::Success)
}

pub(super) async fn ls(session: &Session, selection: &Selection, output: Output) -> Result<Exit, Vec<Error>> {
    let project = session.load()?;
    let selected = session.selected(&project, selection)?;
    let last_runs = match output {
        Output::Json => runtime::last_runs(&session.env, &project).await.map_err(|e| vec![e])?,
        _ => BTreeMap::new(),
    };
    for model in project.models.iter().filter(|m| selected.as_ref().is_none_or(|s| s.contains(&m.name))) {
        match output {
            Output::Table => print::line(&format!("{}.{}", project.name, fqn(&project, model))),
            Output::Csv => {
                print::line(&format!("{},{},{}", model.name, runtime::full_name(model), model.materialized.name()))
            }
            Output::Json => {
                let depends_on: Vec<String> = model
                    .depends_on
                    .iter()
                    .map(|d| match d {
                        Dependency::Model(name) => name.clone(),
                        Dependency::Source(source, table) => format!("source:{source}.{table}"),
                    })
                    .collect();
                let mut value = serde_json::json!({
                    "name": model.name,
                    "unique_id": model.unique_id,
                    "resource_type": if model.config.snapshot.is_some() { "snapshot" } else { "model" },
                    "schema": model.schema,
                    "alias": model.alias,
                    "original_file_path": model.path,
                    "materialized": model.materialized.name(),
                    "tags": model.tags,
                    "depends_on": depends_on,
                });
                if let Some(schedule) = &model.config.schedule {
                    let last = last_runs.get(&model.name).copied();
                    let next = schedule.next_after(session.env.now_micros());
                    value["schedule"] = schedule.when.to_string().into();
                    value["last_run"] = last.map(rfc3339).into();
                    value["next_run"] = next.map(rfc3339).into();
                }
                print::line(&session.env.redact(&value.to_string()));
            }
        }
    }
    Ok(Exit::Success)
}

fn rfc3339(micros: i64) -> String {
    chrono::DateTime::from_timestamp_micros(micros)
        .unwrap_or_default()
        .to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

/// The folder path and name of a model, with dots, as dbt lists it.
fn fqn(_project: &Project, model: &project::Model) -> String {
    let mut parts: Vec<String> = model
        .path
        .parent()
        .into_iter()
        .flat_map(|p| p.components().skip(1))
        .map(|c| c.as_os_str().to_string_lossy().into_owned())
        .collect();
    parts.push(model.name.clone());
    parts.join(".")
}

pub(super) async fn plan(session: &Session, selection: &Selection) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = session.compile().await?;
    let selected = session.selected(&project, selection)?;
    let changes = runtime::plan_changes(&session.env, &project, &compilation).await.map_err(|e| vec![e])?;
    let mut pending = 0;
    for change in &changes {
        if change.model.as_ref().is_some_and(|m| selected.as_ref().is_some_and(|s| !s.contains(m))) {
            continue;
        }
        if change.state.is_change() {
            pending += 1;
        }
        let line = format!("{:<16} {:<40} {}", change.state.name(), change.table, change.detail);
        print::line(&session.env.redact(&line));
    }
    print::line(&format!("{pending} of {} tables change with the next run", changes.len()));
    Ok(Exit::Success)
}

pub(super) async fn explain(session: &Session, name: &str) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = session.compile().await?;
    let model = compilation
        .models
        .iter()
        .find(|m| m.model.name.eq_ignore_ascii_case(name))
        .ok_or_else(|| vec![unknown_model(name, compilation.models.iter().map(|m| m.model.name.as_str()))])?;
    let text = runtime::explain(&session.env, &project, model).map_err(|e| vec![e])?;
    print::line(&session.env.redact(text.trim_end()));
    Ok(Exit::Success)
}

pub(super) fn unknown_model<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
    let error = Error::user("unknown-model", format!("no model `{name}` in this project"));
    match crate::error::did_you_mean(name, known) {
        Some(near) => error.with_hint(format!("did you mean `{near}`?")),
        None => error.with_hint("`smelt ls` lists them"),
    }
}

pub(super) async fn debug(session: &Session) -> Result<Exit, Vec<Error>> {
    print::line(&format!("smelt {}", env!("CARGO_PKG_VERSION")));
    print::line(&format!("project folder  {}", session.dir.display()));
    let project = session.load()?;
    let say = |text: String| print::line(&session.env.redact(&text));
    say(format!(
        "project         {} ({} models, {} sources)",
        project.name,
        project.models.len(),
        project.sources.len()
    ));
    say(format!("target          {}", project.target.name));
    say(format!("lake            {}", project.target.lake));
    let mut failed = false;
    match runtime::probe_lake(&session.env, &project).await {
        Ok(text) => say(format!("                {text}")),
        Err(error) => {
            failed = true;
            session.print_error(&error);
        }
    }
    for (name, connection) in &project.target.connections {
        say(format!("connection      {name} ({})", connection.kind));
    }
    for source in project.sources.iter().filter(|s| matches!(s.connector, Connector::Kafka(_))) {
        let name = format!("{}.{}", source.source, source.name);
        match runtime::probe_source(&session.env, &project, source).await {
            Ok(partitions) => say(format!("source          {name}: {partitions} partitions")),
            Err(error) => {
                failed = true;
                session.print_error(&error);
            }
        }
    }
    Ok(if failed { Exit::Failed } else { Exit::Success })
}

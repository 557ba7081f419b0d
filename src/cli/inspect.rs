//! `compile`, `ls`, `plan`, `explain`: commands that look and do not write tables.

use super::args::{Deferring, Selection};
use super::session::Session;
use super::{Exit, print};
use crate::error::{Error, Result};
use crate::project;
use crate::project::answers::is_failure;
use crate::project::artifacts::{RunResult, RunStatus};
use crate::runtime;

pub(super) async fn compile(
    session: &Session,
    selection: &Selection,
    deferring: &Deferring,
) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = match session.compile_reading(selection, deferring).await {
        Ok(compiled) => compiled,
        Err(errors) => {
            session.write_sound_part();
            return Err(session.with_errors_of_sql(errors).await);
        }
    };
    let selected = session.selected(&project, Some(&compilation), selection).await?;
    let folder = project::write_compiled(&project, &session.env).map_err(|e| vec![e])?;
    let taken = compilation.models.iter().filter(|m| selected.as_ref().is_none_or(|s| s.contains(&m.model.name)));
    for model in taken.clone() {
        session.artifacts.record(RunResult::new(&model.model.unique_id, RunStatus::Success).message("compiled"));
    }
    let is_taken = |name: &String| selected.as_ref().is_none_or(|s| s.contains(name));
    for model in project.models.iter().filter(|m| is_taken(&m.name)) {
        if let Some(error) = model.asks.waits.as_ref().filter(|e| is_failure(e)) {
            session.artifacts.record(RunResult::new(&model.unique_id, RunStatus::Error).message(error.render()));
        }
    }
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

pub(super) async fn plan(session: &Session, selection: &Selection) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = session.compile().await?;
    let selected = session.selected(&project, Some(&compilation), selection).await?;
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

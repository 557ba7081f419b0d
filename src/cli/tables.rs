//! `show`, `query`: reading the tables and views of a project.

use super::args::{Output, Past};
use super::inspect::unknown_model;
use super::session::Session;
use super::{Exit, print};
use crate::error::{Error, Result};
use crate::lake::When;
use crate::project::{Project, SourceTable};
use crate::runtime::{At, Reader};

/// What the flags ask for.
fn at(past: &Past) -> At {
    match (past.epoch, past.timestamp, past.version) {
        (Some(epoch), _, _) => At::Instant(When::Epoch(epoch)),
        (_, Some(micros), _) => At::Instant(When::Time(micros)),
        (_, _, Some(version)) => At::Version(version),
        _ => At::Now,
    }
}

pub(super) async fn query(session: &Session, sql: &str, past: &Past, output: Output) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = session.compile().await?;
    let reader = Reader::open_at(&session.env, project, compilation, at(past)).await.map_err(|e| vec![e])?;
    let batches = reader.query(sql).await?;
    print::batches(&batches, output).map_err(|e| vec![e])?;
    Ok(Exit::Success)
}

pub(super) async fn show(
    session: &Session,
    name: &str,
    limit: usize,
    columns: bool,
    past: &Past,
    output: Output,
) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = session.compile().await?;
    // Errors in models over sources point here too.
    if columns && let Some(source) = source_named(&project, name) {
        let schema = crate::source::relation_schema(source).map_err(|e| vec![e])?;
        for field in schema.fields() {
            let described = source.columns.iter().find(|c| c.name.eq_ignore_ascii_case(field.name()));
            print_column(field, described.and_then(|c| c.description.as_deref()));
        }
        return Ok(Exit::Success);
    }
    let model = compilation
        .models
        .iter()
        .find(|m| m.model.name.eq_ignore_ascii_case(name))
        .ok_or_else(|| vec![unknown_model(name, compilation.models.iter().map(|m| m.model.name.as_str()))])?;
    if columns {
        for field in model.schema.fields() {
            let described = model.model.columns.iter().find(|c| c.name.eq_ignore_ascii_case(field.name()));
            print_column(field, described.and_then(|c| c.description.as_deref()));
        }
        return Ok(Exit::Success);
    }
    let sql = format!("select * from \"{}\".\"{}\" limit {limit}", model.model.schema, model.model.alias);
    let reader = Reader::open_at(&session.env, project, compilation, at(past)).await.map_err(|e| vec![e])?;
    let batches = reader.query(&sql).await?;
    print::batches(&batches, output).map_err(|e| vec![e])?;
    Ok(Exit::Success)
}

/// The source table called `table` or `source.table`, unless a model has that name.
fn source_named<'a>(project: &'a Project, name: &str) -> Option<&'a SourceTable> {
    if project.models.iter().any(|m| m.name.eq_ignore_ascii_case(name)) {
        return None;
    }
    let is = |s: &&std::sync::Arc<SourceTable>| {
        s.name.eq_ignore_ascii_case(name) || format!("{}.{}", s.source, s.name).eq_ignore_ascii_case(name)
    };
    project.sources.iter().find(is).map(AsRef::as_ref)
}

fn print_column(field: &arrow::datatypes::Field, description: Option<&str>) {
    let kind = crate::types::sql_type_name(field.data_type());
    print::line(format!("{:<32} {:<24} {}", field.name(), kind, description.unwrap_or("")).trim_end());
}

//! `show`, `query`: reading the tables and views of a project.

use super::args::Output;
use super::inspect::unknown_model;
use super::session::Session;
use super::{Exit, print};
use crate::error::{Error, Result};
use crate::runtime::Reader;

pub(super) async fn query(session: &Session, sql: &str, output: Output) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = session.compile().await?;
    let reader = Reader::open(&session.env, project, compilation).await.map_err(|e| vec![e])?;
    let batches = reader.query(sql).await?;
    print::batches(&batches, output).map_err(|e| vec![e])?;
    Ok(Exit::Success)
}

pub(super) async fn show(
    session: &Session,
    name: &str,
    limit: usize,
    columns: bool,
    output: Output,
) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = session.compile().await?;
    let model = compilation
        .models
        .iter()
        .find(|m| m.model.name.eq_ignore_ascii_case(name))
        .ok_or_else(|| vec![unknown_model(name, compilation.models.iter().map(|m| m.model.name.as_str()))])?;
    if columns {
        for field in model.schema.fields() {
            let described = model.model.columns.iter().find(|c| c.name.eq_ignore_ascii_case(field.name()));
            let description = described.and_then(|c| c.description.as_deref()).unwrap_or("");
            let kind = crate::types::sql_type_name(field.data_type());
            print::line(format!("{:<32} {:<24} {description}", field.name(), kind).trim_end());
        }
        return Ok(Exit::Success);
    }
    let sql = format!("select * from \"{}\".\"{}\" limit {limit}", model.model.schema, model.model.alias);
    let reader = Reader::open(&session.env, project, compilation).await.map_err(|e| vec![e])?;
    let batches = reader.query(&sql).await?;
    print::batches(&batches, output).map_err(|e| vec![e])?;
    Ok(Exit::Success)
}

//! Housekeeping by command: compaction, vacuum, dropping tables. Each reports table by table, and each can say what it would do
//! without doing it.
//!
//! A dry run claims nothing and writes nothing: it may look at a lake that another smelt is writing.

use std::collections::BTreeSet;

use super::admin::{has_table, open};
use super::{instance, retention};
use crate::env::Env;
use crate::error::Result;
use crate::lake::{Optimized, Vacuumed};
use crate::plan::Compilation;
use crate::project::Project;

/// How far a command is.
#[derive(Debug)]
pub enum Upkeep<'a> {
    /// Table `number` (from 1) of `of` begins.
    Begins {
        table: &'a str,
        number: usize,
        of: usize,
    },
    Optimized {
        table: &'a str,
        done: Optimized,
    },
    Vacuumed {
        table: &'a str,
        done: Vacuumed,
    },
    /// Half-written files of dead processes, outside tables.
    Leftovers(u64),
    Dropped {
        table: &'a str,
        files: u64,
        bytes: u64,
    },
}

/// Hears what is done.
pub type Listener<'a> = &'a (dyn Fn(Upkeep<'_>) + Sync);

/// Tables of the selected models (schema, name, and the model whose main table it is), side tables included.
fn selected_tables<'a>(
    compilation: &'a Compilation,
    selected: Option<&BTreeSet<String>>,
) -> Vec<(String, String, Option<&'a str>)> {
    let mut tables = Vec::new();
    for compiled in compilation.models.iter().filter(|m| has_table(m)) {
        let model = &compiled.model;
        if selected.is_some_and(|s| !s.contains(&model.name)) {
            continue;
        }
        tables.push((model.schema.clone(), model.alias.clone(), Some(model.name.as_str())));
        tables.extend(model.side_tables().map(|name| (model.schema.clone(), name, None)));
    }
    tables
}

/// Compacts the tables of the selected models now.
pub async fn optimize(
    env: &Env,
    project: &Project,
    compilation: &Compilation,
    selected: Option<&BTreeSet<String>>,
    dry_run: bool,
    listen: Listener<'_>,
) -> Result<()> {
    let lake = open(env, project)?;
    if !dry_run {
        instance::claim(env, &lake, false).await?;
    }
    let tables = selected_tables(compilation, selected);
    for (i, (schema, name, _)) in tables.iter().enumerate() {
        let title = format!("{schema}.{name}");
        let Some(mut table) = lake.table(schema, name).await? else { continue };
        listen(Upkeep::Begins { table: &title, number: i + 1, of: tables.len() });
        let done = if dry_run { table.optimizable() } else { table.optimize().await? };
        listen(Upkeep::Optimized { table: &title, done });
    }
    Ok(())
}

/// Deletes files that no retained version needs.
pub async fn vacuum(
    env: &Env,
    project: &Project,
    compilation: &Compilation,
    selected: Option<&BTreeSet<String>>,
    dry_run: bool,
    listen: Listener<'_>,
) -> Result<()> {
    let lake = open(env, project)?;
    let leftovers = match dry_run {
        true => lake.leftovers().await?,
        false => {
            instance::claim(env, &lake, false).await?;
            lake.remove_leftovers().await?
        }
    };
    let tables = selected_tables(compilation, selected);
    for (i, (schema, name, model)) in tables.iter().enumerate() {
        let title = format!("{schema}.{name}");
        let Some(mut table) = lake.table(schema, name).await? else { continue };
        if let Some(model) = model {
            retention::retain(&lake, project, env.now_micros(), compilation, model, &mut table).await?;
        }
        listen(Upkeep::Begins { table: &title, number: i + 1, of: tables.len() });
        let done = if dry_run { table.vacuumable().await? } else { table.vacuum(true).await? };
        listen(Upkeep::Vacuumed { table: &title, done });
    }
    listen(Upkeep::Leftovers(leftovers));
    Ok(())
}

/// Files and bytes of tables, all their versions and logs: what dropping them frees.
pub async fn table_sizes(env: &Env, project: &Project, tables: &[(String, String)]) -> Result<Vec<(u64, u64)>> {
    let lake = open(env, project)?;
    let mut sizes = Vec::with_capacity(tables.len());
    for (schema, name) in tables {
        sizes.push(lake.table_size(schema, name).await?);
    }
    Ok(sizes)
}

/// Drops tables with their files. Claims the lake first, so that no other smelt writes meanwhile.
pub async fn drop_tables(
    env: &Env,
    project: &Project,
    tables: &[(String, String)],
    listen: Listener<'_>,
) -> Result<()> {
    let lake = open(env, project)?;
    instance::claim(env, &lake, false).await?;
    for (i, (schema, name)) in tables.iter().enumerate() {
        let title = format!("{schema}.{name}");
        listen(Upkeep::Begins { table: &title, number: i + 1, of: tables.len() });
        let (files, bytes) = lake.table_size(schema, name).await?;
        lake.drop_table(schema, name).await?;
        listen(Upkeep::Dropped { table: &title, files, bytes });
    }
    Ok(())
}

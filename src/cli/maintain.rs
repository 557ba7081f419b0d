//! `optimize`, `vacuum`, `prune`, `clean`: housekeeping by hand. `smelt up` does the first two by itself.

use std::io::{BufRead, IsTerminal};

use super::args::Selection;
use super::session::Session;
use super::{Exit, print};
use crate::error::{Error, Result};
use crate::runtime;

pub(super) async fn optimize(session: &Session, selection: &Selection) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = session.compile().await?;
    let selected = session.selected(&project, Some(&compilation), selection).await?;
    let done = runtime::optimize(&session.env, &project, &compilation, selected.as_ref()).await.map_err(|e| vec![e])?;
    for (table, before, after) in done {
        session.say(&format!("{table}: {before} files → {after}"));
    }
    Ok(Exit::Success)
}

pub(super) async fn vacuum(session: &Session, selection: &Selection, dry_run: bool) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = session.compile().await?;
    let selected = session.selected(&project, Some(&compilation), selection).await?;
    let done =
        runtime::vacuum(&session.env, &project, &compilation, selected.as_ref(), dry_run).await.map_err(|e| vec![e])?;
    for (table, files) in done {
        let verb = if dry_run { "would delete" } else { "deleted" };
        session.say(&format!("{table}: {verb} {files} files"));
    }
    Ok(Exit::Success)
}

pub(super) async fn prune(session: &Session, dry_run: bool, yes: bool) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = session.compile().await?;
    let orphans = runtime::orphans(&session.env, &project, &compilation).await.map_err(|e| vec![e])?;
    if orphans.is_empty() {
        session.say("nothing to prune: every table has its model");
        return Ok(Exit::Success);
    }
    for (schema, name) in &orphans {
        print::line(&format!("{} {schema}.{name}", if dry_run { "would drop" } else { "drop" }));
    }
    if dry_run {
        return Ok(Exit::Success);
    }
    if !yes && !confirmed(&format!("Drop these {} tables and their files? [y/N] ", orphans.len())) {
        print::line("nothing dropped");
        return Ok(Exit::Success);
    }
    runtime::drop_tables(&session.env, &project, &orphans).await.map_err(|e| vec![e])?;
    session.say(&format!("dropped {} tables", orphans.len()));
    Ok(Exit::Success)
}

/// Asks on a terminal; elsewhere the answer is no.
fn confirmed(question: &str) -> bool {
    if !std::io::stdin().is_terminal() {
        print::error("not a terminal: pass --yes to drop without asking");
        return false;
    }
    print::line(question);
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

pub(super) fn clean(session: &Session) -> Result<Exit, Vec<Error>> {
    // Only what a compile or run writes: never tables.
    let target = session.dir.join("target");
    for name in ["compiled", "run"] {
        let path = target.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path)
                .map_err(|e| vec![Error::environment("clean", format!("{}: {e}", path.display()))])?;
            session.say(&format!("deleted {}", path.display()));
        }
    }
    Ok(Exit::Success)
}

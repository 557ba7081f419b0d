//! `optimize`, `vacuum`, `prune`, `clean`: housekeeping by hand. `smelt up` does the first two by itself.
//!
//! Results are a line per table as soon as it is done; on a terminal a line below them says what is under way. With `--dry-run` the
//! same lines say what would be done.

use parking_lot::Mutex;
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use super::args::{Report, Selection};
use super::print::Status;
use super::session::Session;
use super::{Exit, print};
use crate::error::{Error, Result};
use crate::runtime::{self, Upkeep};

/// Prints what is done, table by table.
struct Printer<'a> {
    session: &'a Session,
    status: Status,
    report: Report,
    dry_run: bool,
    /// Files and bytes that are freed, over all tables.
    freed: Mutex<(u64, u64)>,
}

impl<'a> Printer<'a> {
    fn new(session: &'a Session, report: Report, dry_run: bool) -> Self {
        Printer { session, status: Status::new(session.quiet), report, dry_run, freed: Mutex::default() }
    }

    fn line(&self, text: &str, value: Value) {
        self.status.clear();
        match self.report {
            Report::Text => self.session.say(text),
            Report::Json => print::line(&self.session.env.redact(&value.to_string())),
        }
    }

    /// `delete` → `would delete`, or `deleted`.
    fn verb(&self, would: &str, did: &str) -> String {
        if self.dry_run { format!("would {would}") } else { did.to_string() }
    }

    fn hear(&self, step: Upkeep<'_>) {
        let dry_run = self.dry_run;
        match step {
            Upkeep::Begins { table, number, of } => self.status.show(&format!("{number} of {of}: {table}")),
            Upkeep::Optimized { table, done } => {
                let text = match done.files_rewritten {
                    0 => format!("{table}: nothing to merge in {}", count(done.files_before as u64, "file")),
                    n => format!(
                        "{table}: {} {n} of {}, {} after that",
                        self.verb("merge", "merged"),
                        count(done.files_before as u64, "file"),
                        done.files_after
                    ),
                };
                let (before, rewritten, after) = (done.files_before, done.files_rewritten, done.files_after);
                self.line(
                    &text,
                    json!({"command": "optimize", "table": table, "dry_run": dry_run, "files_before": before,
                    "files_rewritten": rewritten, "files_after": after}),
                );
            }
            Upkeep::Vacuumed { table, done } => {
                let text = format!(
                    "{table}: {} {}, {}",
                    self.verb("delete", "deleted"),
                    count(done.files, "file"),
                    size(done.bytes)
                );
                self.free(done.files, done.bytes);
                self.line(&text, json!({"command": "vacuum", "table": table, "dry_run": dry_run, "files": done.files, "bytes": done.bytes}));
            }
            Upkeep::Leftovers(0) => {}
            Upkeep::Leftovers(files) => {
                let text = format!(
                    "{} {} that dead processes left half-written",
                    self.verb("delete", "deleted"),
                    count(files, "file")
                );
                self.line(
                    &text,
                    json!({"command": "vacuum", "table": null, "dry_run": dry_run, "files": files, "bytes": null}),
                );
            }
            Upkeep::Dropped { table, files, bytes } => {
                self.free(files, bytes);
                self.dropped(table, files, bytes);
            }
        }
    }

    fn free(&self, files: u64, bytes: u64) {
        let mut freed = self.freed.lock();
        freed.0 += files;
        freed.1 += bytes;
    }

    fn dropped(&self, table: &str, files: u64, bytes: u64) {
        let text = format!("{} {table}: {}, {}", self.verb("drop", "dropped"), count(files, "file"), size(bytes));
        self.line(
            &text,
            json!({"command": "prune", "table": table, "dry_run": self.dry_run, "files": files, "bytes": bytes}),
        );
    }

    /// The sum, for people.
    fn total(&self) {
        self.status.clear();
        let (files, bytes) = *self.freed.lock();
        if self.report == Report::Text {
            self.session.say(&format!("{} {}, {}", self.verb("free", "freed"), count(files, "file"), size(bytes)));
        }
    }
}

pub(super) async fn optimize(
    session: &Session,
    selection: &Selection,
    dry_run: bool,
    report: Report,
) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = session.compile().await?;
    let selected = session.selected(&project, Some(&compilation), selection).await?;
    let printer = Printer::new(session, report, dry_run);
    let listen = |step: Upkeep<'_>| printer.hear(step);
    let done = runtime::optimize(&session.env, &project, &compilation, selected.as_ref(), dry_run, &listen).await;
    printer.status.clear();
    done.map_err(|e| vec![e])?;
    Ok(Exit::Success)
}

pub(super) async fn vacuum(
    session: &Session,
    selection: &Selection,
    dry_run: bool,
    report: Report,
) -> Result<Exit, Vec<Error>> {
    let (project, compilation) = session.compile().await?;
    let selected = session.selected(&project, Some(&compilation), selection).await?;
    let printer = Printer::new(session, report, dry_run);
    let listen = |step: Upkeep<'_>| printer.hear(step);
    let done = runtime::vacuum(&session.env, &project, &compilation, selected.as_ref(), dry_run, &listen).await;
    printer.status.clear();
    done.map_err(|e| vec![e])?;
    printer.total();
    Ok(Exit::Success)
}

pub(super) async fn prune(session: &Session, dry_run: bool, yes: bool, report: Report) -> Result<Exit, Vec<Error>> {
    let (project, _) = session.compile().await?;
    let one = |e: Error| vec![e];
    let orphans = runtime::orphans(&session.env, &project).await.map_err(one)?;
    if orphans.is_empty() {
        session.say("nothing to prune: every table has its model");
        return Ok(Exit::Success);
    }
    if dry_run || !yes {
        let sizes = runtime::table_sizes(&session.env, &project, &orphans).await.map_err(one)?;
        let printer = Printer::new(session, report, true);
        for ((schema, name), (files, bytes)) in orphans.iter().zip(sizes) {
            printer.dropped(&format!("{schema}.{name}"), files, bytes);
        }
    }
    if dry_run {
        return Ok(Exit::Success);
    }
    if !yes && !confirmed(&format!("Drop {}, with all its versions? [y/N] ", count(orphans.len() as u64, "table"))) {
        print::line("nothing dropped");
        return Ok(Exit::Success);
    }
    let printer = Printer::new(session, report, false);
    let done = runtime::drop_tables(&session.env, &project, &orphans, &|step| printer.hear(step)).await;
    printer.status.clear();
    done.map_err(one)?;
    printer.total();
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

/// What compiles and runs leave below `target`, where the project does not say `clean-targets`: there may be more in it (Cargo's
/// builds, in a project beside Rust code).
const OWN: [&str; 7] = [
    "target/compiled",
    "target/run",
    "target/manifest.json",
    "target/run_results.json",
    "target/catalog.json",
    "target/sources.json",
    "target/index.html",
];

pub(super) fn clean(session: &Session, dry_run: bool, report: Report) -> Result<Exit, Vec<Error>> {
    let targets = match crate::project::clean_targets(&session.dir).map_err(|e| vec![e])? {
        Some(targets) => targets,
        None => OWN.iter().map(PathBuf::from).collect(),
    };
    let printer = Printer::new(session, report, dry_run);
    let mut found = false;
    for target in targets {
        let path = session.dir.join(&target);
        if !path.exists() {
            continue;
        }
        found = true;
        let failed = |e: std::io::Error| vec![Error::environment("clean", format!("{}: {e}", path.display()))];
        let (files, bytes) = weigh(&path).map_err(failed)?;
        if let Some(table) = table_in(&path) {
            let message = format!("clean-targets: {} holds the table {}", target.display(), table.display());
            return Err(vec![
                Error::user("clean-table", message)
                    .with_hint("take it out of clean-targets; `smelt prune` drops tables that no model makes"),
            ]);
        }
        if !dry_run {
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.map_err(failed)?;
        }
        let text = format!(
            "{} {}: {}, {}",
            printer.verb("delete", "deleted"),
            target.display(),
            count(files, "file"),
            size(bytes)
        );
        let value = json!({"command": "clean", "path": target, "dry_run": dry_run, "files": files, "bytes": bytes});
        printer.line(&text, value);
    }
    if !found {
        session.say("nothing to clean");
    }
    Ok(Exit::Success)
}

/// Files and bytes below `path`.
fn weigh(path: &Path) -> std::io::Result<(u64, u64)> {
    let meta = path.symlink_metadata()?;
    if !meta.is_dir() {
        return Ok((1, meta.len()));
    }
    let mut sum = (0, 0);
    for entry in std::fs::read_dir(path)? {
        let (files, bytes) = weigh(&entry?.path())?;
        sum = (sum.0 + files, sum.1 + bytes);
    }
    Ok(sum)
}

/// A Delta table at or below `path`: never cleaned, whatever the project says.
fn table_in(path: &Path) -> Option<PathBuf> {
    if path.symlink_metadata().is_ok_and(|m| !m.is_dir()) {
        return None;
    }
    if path.join("_delta_log").is_dir() {
        return Some(path.to_path_buf());
    }
    std::fs::read_dir(path).ok()?.flatten().find_map(|entry| table_in(&entry.path()))
}

fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

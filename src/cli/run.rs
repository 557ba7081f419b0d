//! `smelt run`, `snapshot`, `seed` and `up`: wiring of signals and edits, and what a person sees meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::args::Writing;
use super::around::{AroundRuns, Plainly, is_made_at_times};
use super::defer::Work;
use super::session::Session;
use super::{Exit, hooks, print, stages};
use crate::error::{Error, Result};
use crate::lake::OWN;
use crate::plan::Compilation;
use crate::project::answers::is_failure;
use crate::project::{HookPoint, Materialization, Model, Project};
use crate::runtime::{
    Event, Fresh, How, Options, Recorder, RetryRequests, RunLog, Runner, Runs, SKIPPED, Summary, Watcher,
};

/// How often `up` looks for edited files.
const EDIT_POLL: Duration = Duration::from_millis(1000);

pub(super) async fn run(session: &Session, writing: &Writing) -> Result<Exit, Vec<Error>> {
    once(session, writing, Runs::Tables, |_| true).await
}

/// Snapshots only; what they read stays as it is.
pub(super) async fn snapshot(session: &Session, writing: &Writing, planned: Option<i64>) -> Result<Exit, Vec<Error>> {
    once(session, writing, Runs::All { planned }, |model| model.materialized == Materialization::Snapshot).await
}

/// Seeds only.
pub(super) async fn seed(session: &Session, writing: &Writing) -> Result<Exit, Vec<Error>> {
    let runs = Runs::All { planned: None };
    once(session, writing, runs, |model| model.materialized == Materialization::Seed).await
}

/// A bounded run of those models that `takes`.
async fn once(
    session: &Session,
    writing: &Writing,
    runs: Runs,
    takes: impl Fn(&Model) -> bool + Sync,
) -> Result<Exit, Vec<Error>> {
    let work = Work { selection: &writing.selection, deferring: &writing.deferring, makes: &takes };
    let (project, compilation) = session.settle(writing, work, &Fresh::Only(BTreeSet::new())).await?;
    session.announce(&project, &compilation)?;
    let mut options = options(session, &project, &compilation, writing).await?;
    options.runs = runs;
    if project.models.iter().any(|m| !takes(m)) {
        let names: BTreeSet<String> = project.models.iter().filter(|m| takes(m)).map(|m| m.name.clone()).collect();
        options.selected = Some(match options.selected {
            Some(selected) => selected.intersection(&names).cloned().collect(),
            None => names,
        });
    }
    if options.selected.as_ref().is_some_and(BTreeSet::is_empty) {
        session.say("Nothing to do: no model is selected. `smelt ls` with the same selection shows what is");
        return Ok(Exit::Success);
    }
    let printer = Arc::new(Printer::new(session));
    let recorder = Recorder::new(&session.env);
    let selected = options.selected.clone();
    let watcher = recorder.watcher(printer.watcher());
    let (project, outcome) =
        stages::run(session, writing, work, (project, compilation), options, watcher, &Plainly { session }).await;
    for result in recorder.results(&project, selected.as_ref(), outcome.as_ref()) {
        session.artifacts.record(result);
    }
    let summary = outcome.map_err(|e| vec![e])?;
    printer.finish(&summary);
    Ok(if summary.parked.is_empty() { Exit::Success } else { Exit::Failed })
}

pub(super) async fn up(session: &Session, writing: &Writing) -> Result<Exit, Vec<Error>> {
    let stop = stop_signal();
    let mut first = true;
    loop {
        let stamp = files_stamp(&session.dir);
        let asked_at = session.env.now_micros();
        let (project, compilation) = match session.compile_with(writing, &|_| true).await {
            Ok(compiled) => compiled,
            // A project that does not compile at the start is a usage error; after an edit it is a matter of waiting.
            Err(errors) if first => return Err(errors),
            Err(errors) => {
                for error in &errors {
                    session.print_error(error);
                }
                session.say("waiting for the next edit");
                if wait_for_edit(&session.dir, &stamp, stop.clone()).await {
                    continue;
                }
                return Ok(Exit::Success);
            }
        };
        // What a template asks about may never have been made.
        let waits = |m: &Arc<Model>| m.asks.waits.as_ref().is_some_and(|e| !is_failure(e));
        let compiled = match project.models.iter().any(waits) {
            false => (project, compilation),
            true => {
                let work = Work { selection: &writing.selection, deferring: &writing.deferring, makes: &|_| true };
                let options = options(session, &project, &compilation, writing).await?;
                let watcher = Arc::new(Printer::new(session)).watcher();
                let ended =
                    stages::run(session, writing, work, (project, compilation), options, watcher, &Plainly { session })
                        .await;
                ended.1.map_err(|e| vec![e])?;
                session.settle(writing, work, &Fresh::All).await?
            }
        };
        let (project, compilation) = compiled;
        if first && !hooks_of_start(session, &project, &compilation, writing).await? {
            return Ok(Exit::Failed);
        }
        let mut options = options(session, &project, &compilation, writing).await?;
        options.asked_at = asked_at;
        let (selected, hooked) = (options.selected.clone(), Arc::clone(&compilation));
        options.runs = Runs::Scheduled;
        if !first {
            // The claim of the lake goes on: what this process holds it need not take over.
            options.take_over = true;
            options.full_refresh = false;
            options.reset_sources.clear();
        }
        let printer = Arc::new(Printer::new(session));
        let stopped = Arc::new(AtomicBool::new(false));
        let log = RunLog::start(&session.env, &project, &session.artifacts.invocation).map_err(|e| vec![e])?;
        let runner = Runner {
            env: session.env.clone(),
            project: project.clone(),
            compilation,
            options,
            watcher: noting_figures(
                session,
                &project,
                log.watcher(noting_results(session, &project, noting_stops(printer.watcher(), &stopped))),
            ),
        };
        let (edited_tx, edited) = watch::channel(false);
        let requests = RetryRequests::open(&session.env, &project).await.map_err(|e| vec![e])?;
        let asked = Arc::new(AtomicBool::new(false));
        let watching = tokio::spawn({
            let (dir, stop, asked) = (session.dir.clone(), stop.clone(), Arc::clone(&asked));
            async move {
                let again = tokio::select! {
                    edited = wait_for_edit(&dir, &stamp, stop) => edited,
                    () = wait_for_request(requests, &stopped) => {
                        asked.store(true, Ordering::Relaxed);
                        true
                    }
                };
                if again {
                    let _ = edited_tx.send(true);
                }
                // The sender must outlive the run: a closed channel is not an edit.
                std::future::pending::<()>().await;
            }
        });
        let take_over = writing.take_over;
        let around = AroundRuns { session, project: &project, compilation: &hooked, take_over };
        let summary = runner.up(stop.clone(), edited.clone(), &around).await.map_err(|e| vec![e])?;
        let was_edited = *edited.borrow();
        watching.abort();
        drop(runner);
        log.finish().await;
        if summary.ask_again && !*stop.borrow() {
            first = false;
            continue;
        }
        if *stop.borrow() || !was_edited {
            printer.finish(&summary);
            let stopped = |name: &String| summary.parked.iter().any(|(parked, _)| parked == name);
            let mut made = maintained(&project, selected.as_ref());
            made.retain(|name| !stopped(name));
            let failed = hooks::of_models(session, &project, &hooked, &made, HookPoint::Post, take_over).await;
            let failed = failed.map_err(|e| vec![e])?;
            failed.failed.iter().for_each(|(_, error)| session.print_error(error));
            return Ok(if failed.failed.is_empty() { Exit::Success } else { Exit::Failed });
        }
        session.say(match asked.load(Ordering::Relaxed) {
            true => "asked to try stopped models again: opening from the lake",
            false => "project files have changed: compiling again",
        });
        first = false;
    }
}

/// The selected models that are kept up to date.
fn maintained(project: &Project, selected: Option<&BTreeSet<String>>) -> BTreeSet<String> {
    let all = project.models.iter().filter(|m| m.is_made() && !is_made_at_times(m)).map(|m| m.name.clone());
    all.filter(|name| selected.is_none_or(|s| s.contains(name))).collect()
}

/// What stands at `on-run-start`, and before models, when `up` begins; false when it failed.
async fn hooks_of_start(
    session: &Session,
    project: &Arc<Project>,
    compilation: &Arc<Compilation>,
    writing: &Writing,
) -> Result<bool, Vec<Error>> {
    if session.hooks_started.load(Ordering::Relaxed) {
        // The tables that templates ask about were made first, with their hooks.
        return Ok(true);
    }
    let selected = session.selected(project, Some(compilation), &writing.selection).await?;
    if let Err(errors) = hooks::start(session, project, compilation, &writing.selection, writing.take_over).await {
        errors.iter().for_each(|e| session.print_error(e));
        return Ok(false);
    }
    let (point, take_over) = (HookPoint::Pre, writing.take_over);
    let models = maintained(project, selected.as_ref());
    let failed = hooks::of_models(session, project, compilation, &models, point, take_over).await;
    let failed = failed.map_err(|e| vec![e])?;
    failed.failed.iter().for_each(|(_, error)| session.print_error(error));
    Ok(failed.failed.is_empty())
}

/// The watcher, which also keeps the figures that `explain` shows.
pub(super) fn noting_figures(session: &Session, project: &Arc<Project>, also: Watcher) -> Watcher {
    let (env, project) = (session.env.clone(), Arc::clone(project));
    Arc::new(move |event| {
        also(event);
        if let Event::Measured(measured) = event
            && let Err(error) = crate::runtime::keep_measured(&env, &project, measured)
        {
            tracing::warn!("figures are not kept: {}", error.message());
        }
    })
}

/// The watcher, which also writes results after each run that a schedule asked for, and when a model stops.
fn noting_results(session: &Session, project: &Arc<Project>, also: Watcher) -> Watcher {
    let (artifacts, env, project) = (Arc::clone(&session.artifacts), session.env.clone(), Arc::clone(project));
    let recorder = Recorder::new(&env);
    let noting = Arc::clone(&recorder).watcher(also);
    Arc::new(move |event| {
        noting(event);
        let ended: BTreeSet<String> = match event {
            Event::Epoch { report, .. } => {
                let ran = report.models.iter().filter(|m| m.run.is_some() && m.committed);
                ran.map(|m| m.model.clone()).collect()
            }
            Event::RunFailed { model, .. } | Event::Parked { model, .. } => BTreeSet::from([model.to_string()]),
            _ => return,
        };
        if ended.is_empty() {
            return;
        }
        recorder.take(&project, &ended).into_iter().for_each(|result| artifacts.record(result));
        if let Err(error) = artifacts.finish(&env) {
            tracing::warn!("results are not written: {}", error.message());
        }
    })
}

/// The watcher, which also notes that a model has stopped.
fn noting_stops(watcher: Watcher, stopped: &Arc<AtomicBool>) -> Watcher {
    let stopped = Arc::clone(stopped);
    Arc::new(move |event| {
        if matches!(event, Event::Parked { .. }) {
            stopped.store(true, Ordering::Relaxed);
        }
        watcher(event);
    })
}

/// Returns when `smelt retry` asks; looks into the lake only while there is something to try again.
async fn wait_for_request(mut requests: RetryRequests, stopped: &AtomicBool) {
    loop {
        tokio::time::sleep(EDIT_POLL).await;
        // A lake that cannot be read now is asked again in a moment; the run itself says what is wrong with it.
        if stopped.load(Ordering::Relaxed) && requests.arrived().await.unwrap_or(false) {
            return;
        }
    }
}

pub(super) async fn options(
    session: &Session,
    project: &Project,
    compilation: &Compilation,
    writing: &Writing,
) -> Result<Options, Vec<Error>> {
    let sources: Vec<String> = project.sources.iter().map(|s| format!("{}.{}", s.source, s.name)).collect();
    for reset in &writing.reset_source {
        if !sources.contains(reset) {
            let mut error = Error::user("unknown-source", format!("--reset-source {reset}: no such source"));
            if let Some(near) = crate::error::did_you_mean(reset, sources.iter().map(String::as_str)) {
                error = error.with_hint(format!("did you mean `{near}`?"));
            }
            return Err(vec![error]);
        }
    }
    Ok(Options {
        selected: session.selected(project, Some(compilation), &writing.selection).await?,
        full_refresh: writing.full_refresh,
        take_over: writing.take_over,
        reset_sources: writing.reset_source.clone(),
        fail_fast: session.fail_fast(),
        closes_all: writing.last,
        event_time: (writing.event_time_start, writing.event_time_end),
        ..Options::default()
    })
}

/// Becomes true at SIGINT or SIGTERM; a second signal ends the process at once.
pub(super) fn stop_signal() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
            return;
        };
        for code in [None, Some(130)] {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
            match code {
                None => {
                    let _ = sender.send(true);
                }
                Some(code) => std::process::exit(code),
            }
        }
    });
    receiver
}

/// Modification times and sizes of the project's files.
type Stamp = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

fn files_stamp(dir: &Path) -> Stamp {
    let mut stamp = Stamp::new();
    let mut todo = vec![(dir.to_path_buf(), 0)];
    while let Some((dir, depth)) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        let entries: Vec<_> = entries.flatten().collect();
        // A lake below the project, whatever its name: thousands of files, none of which is the project's.
        let is_lakes = |name: &OsStr| name == OWN || name == "_delta_log";
        if depth > 0 && entries.iter().any(|entry| is_lakes(&entry.file_name())) {
            continue;
        }
        for entry in entries {
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                // Tables and build output are not the project.
                if !name.starts_with('.') && !matches!(&*name, "target" | "lake" | "data" | "src" | OWN) && depth < 6 {
                    todo.push((path, depth + 1));
                }
            } else if [".sql", ".yml", ".yaml", ".csv"].iter().any(|end| name.ends_with(end)) {
                stamp.insert(path, (meta.modified().ok(), meta.len()));
            }
        }
    }
    stamp
}

/// Returns true when a project file has changed, false when told to stop.
async fn wait_for_edit(dir: &Path, stamp: &Stamp, mut stop: watch::Receiver<bool>) -> bool {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EDIT_POLL) => {
                if files_stamp(dir) != *stamp {
                    return true;
                }
            }
            _ = stop.wait_for(|s| *s) => return false,
        }
    }
}

/// What a person sees of a run: a line per table whose rows changed, totals at the end.
pub(super) struct Printer {
    quiet: bool,
    redact: crate::env::Env,
    state: Mutex<Totals>,
}

#[derive(Default)]
struct Totals {
    models: BTreeMap<String, Total>,
    last_line: Option<Instant>,
    started: Option<Instant>,
    rows_read: usize,
    epochs: usize,
}

#[derive(Default, Clone)]
struct Total {
    order: usize,
    materialized: &'static str,
    inserted: u64,
    deleted: u64,
    dead_letters: u64,
    quarantined: u64,
    late: u64,
    violations: BTreeMap<String, usize>,
    version: i64,
    rows: u64,
    busy: Duration,
}

/// At most one progress line in so long a time.
const LINE_EVERY: Duration = Duration::from_secs(2);

impl Printer {
    pub(super) fn new(session: &Session) -> Self {
        Printer { quiet: session.quiet, redact: session.env.clone(), state: Mutex::default() }
    }

    pub(super) fn watcher(self: &Arc<Self>) -> Watcher {
        let this = Arc::clone(self);
        Arc::new(move |event| this.event(event))
    }

    fn line(&self, text: &str) {
        if !self.quiet {
            print::line(&self.redact.redact(text));
        }
    }

    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Opened { tables, sources, instance } => {
                self.state.lock().started.get_or_insert_with(Instant::now);
                self.line(&format!("{} open: {tables} tables, {sources} sources, instance {instance}", print::clock()));
            }
            Event::Note(text) => self.line(text),
            Event::Measured(_) => {}
            Event::RunFailed { model, planned, error, retry } => {
                let next = match retry {
                    Some(pause) => format!("tried again in {} s", pause.as_secs()),
                    None => "tried again at its next time".to_string(),
                };
                print::error(&self.redact.redact(&format!(
                    "{} {model} failed for {}: {}\n  {next}",
                    print::clock(),
                    print::instant(*planned),
                    error.render()
                )));
            }
            // Its line says so.
            Event::Parked { error, .. } if error.code() == SKIPPED => {}
            Event::Parked { model, error } => {
                print::error(&self.redact.redact(&format!("{} {model} stopped: {}", print::clock(), error.render())));
            }
            Event::Restarting { error, wait } => print::error(&self.redact.redact(&format!(
                "{} {}\n  opening again from the lake in {:.1} s",
                print::clock(),
                error.render(),
                wait.as_secs_f32()
            ))),
            Event::Epoch { report, lag } => {
                let mut runs = Vec::new();
                let mut state = self.state.lock();
                state.epochs += usize::from(report.changed);
                state.rows_read += report.rows_read;
                for (order, model) in report.models.iter().enumerate() {
                    if model.version < 0 {
                        continue;
                    }
                    let total = state.models.entry(model.table.clone()).or_default();
                    total.order = order;
                    total.materialized = model.materialized.name();
                    total.inserted += model.inserted;
                    total.deleted += model.deleted;
                    total.dead_letters += model.dead_letters;
                    total.quarantined += model.quarantined;
                    total.late += model.late;
                    total.version = model.version;
                    total.rows = model.table_rows;
                    total.busy += model.busy;
                    for (name, count) in &model.violations {
                        *total.violations.entry(name.clone()).or_default() += count;
                    }
                    if let (Some(planned), true) = (model.run, model.committed) {
                        runs.push(format!(
                            "{} {} for {}: +{} −{}, {} rows",
                            print::clock(),
                            model.table,
                            print::instant(planned),
                            model.inserted,
                            model.deleted,
                            model.table_rows
                        ));
                    }
                    if let (How::Refresh(reason), true) = (model.how, model.committed && !report.recovery) {
                        tracing::debug!(model = model.model, reason, "recomputed");
                    }
                }
                runs.iter().for_each(|line| self.line(line));
                let due = state.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY);
                if report.changed && due {
                    state.last_line = Some(Instant::now());
                    let elapsed = state.started.map_or(0.0, |s| s.elapsed().as_secs_f64()).max(0.001);
                    let rate = state.rows_read as f64 / elapsed;
                    let line = format!(
                        "{} epoch {} committed: {} rows read ({:.0}/s), lag {lag}; compute {:.0} ms, upload {:.0} ms, commit {:.0} ms",
                        print::clock(),
                        report.epoch,
                        state.rows_read,
                        rate,
                        report.compute.as_secs_f64() * 1e3,
                        report.upload.as_secs_f64() * 1e3,
                        report.commit.as_secs_f64() * 1e3,
                    );
                    drop(state);
                    self.line(&line);
                }
            }
        }
    }

    /// dbt-like closing lines: one per table, then the verdict.
    pub(super) fn finish(&self, summary: &Summary) {
        let state = self.state.lock();
        let mut models: Vec<_> = state.models.iter().collect();
        models.sort_by_key(|(_, total)| total.order);
        let count = models.len();
        let width = models.iter().map(|(name, t)| name.len() + t.materialized.len()).max().unwrap_or(0) + 4;
        for (n, (name, total)) in models.iter().enumerate() {
            let stopped = summary.parked.iter().any(|(model, _)| name.ends_with(&format!(".{model}")));
            let label = format!("{} {name} ", total.materialized);
            let status = if stopped { "ERROR" } else { "OK   " };
            self.line(&format!("{:>3} of {count} {status} {label:.<width$} {}", n + 1, total.described()));
        }
        drop(state);
        self.verdict(summary);
    }

    /// What was done to a model's table; None if it has none.
    pub(super) fn described(&self, model: &Model) -> Option<String> {
        let state = self.state.lock();
        state.models.get(&format!("{}.{}", model.schema, model.alias)).map(Total::described)
    }

    /// The last line.
    pub(super) fn verdict(&self, summary: &Summary) {
        let state = self.state.lock();
        let skipped = summary.parked.iter().filter(|(_, e)| e.code() == SKIPPED).count();
        let failed = summary.parked.len() - skipped;
        let verdict = if summary.parked.is_empty() { "Completed successfully" } else { "Completed with errors" };
        self.line(&format!(
            "{verdict}: {} epochs, {} rows read in {:.2} s. {} OK, {failed} ERROR{}",
            state.epochs,
            summary.rows_read,
            summary.elapsed.as_secs_f64(),
            state.models.len().saturating_sub(summary.parked.len()),
            if skipped > 0 { format!(", {skipped} SKIP") } else { String::new() },
        ));
    }
}

impl Total {
    fn described(&self) -> String {
        let mut text = format!(
            "{} rows (+{} −{}) v{} in {:.2} s",
            self.rows,
            self.inserted,
            self.deleted,
            self.version,
            self.busy.as_secs_f64(),
        );
        if self.dead_letters > 0 {
            text.push_str(&format!(", {} dead letters", self.dead_letters));
        }
        if self.quarantined > 0 {
            text.push_str(&format!(", {} quarantined", self.quarantined));
        }
        if self.late > 0 {
            text.push_str(&format!(", {} late", self.late));
        }
        for (expectation, rows) in &self.violations {
            text.push_str(&format!(", {rows} violated {expectation}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_lake_are_not_the_projects() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        let found = || -> Vec<PathBuf> {
            files_stamp(dir.path()).into_keys().map(|path| path.strip_prefix(dir.path()).unwrap().into()).collect()
        };
        for path in ["smelt.yml", "queries/gold/fact.sql", "lakehouse/_smelt/state.yml", "lakehouse/gold/notes.sql"] {
            write(path);
        }
        write("tables/fact/_delta_log/00000000000000000000.json");
        write("tables/fact/copied.csv");
        let project = ["queries/gold/fact.sql", "smelt.yml"].map(PathBuf::from);
        assert_eq!(found(), project);
        // A lake may be the project's own folder.
        write("_smelt/state.yml");
        assert_eq!(found(), project);
    }
}

//! `smelt build`: models, snapshots and seeds with their tests between them, in dbt's order.
//!
//! [`Stages`] says what is made when; the runner makes it stage by stage and asks a [`Turn`] in between, which runs the data tests of what
//! was made and the unit tests of what comes next, and refuses what stands behind one that failed. A project whose templates ask the lake has
//! several turns ([`super::stages`]): what is refused in one stays so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;

use super::Exit;
use super::args::{Testing, Writing};
use super::around::{Around, Ran};
use super::defer::Work;
use super::run::{Printer, options};
use super::session::Session;
use super::stages::{self, Make};
use super::test::{Report, chosen, chosen_units};
use crate::error::{Error, Result};
use crate::plan::Compilation;
use crate::project::artifacts::RunStatus;
use crate::project::{self, DataTest, Dependency, HookPoint, Project, Selected, Stages, UnitTest};
use crate::runtime::{
    self, Fresh, Gate, LakeCatalog, Reader, Recorder, Runner, Runs, Summary, TestOptions, TestResult, TestStatus,
    Verdict,
};

pub(super) async fn build(
    session: &Session,
    writing: &Writing,
    testing: &Testing,
    planned: Option<i64>,
) -> Result<Exit, Vec<Error>> {
    let work = Work { selection: &writing.selection, deferring: &writing.deferring, makes: &|_| true };
    let (project, compilation) = session.settle(writing, work, &Fresh::Only(BTreeSet::new())).await?;
    session.announce(&project, &compilation)?;
    let selected = session.choose(&project, Some(&compilation), &writing.selection).await?;
    let mut options = options(session, &project, &compilation, writing).await?;
    options.runs = Runs::All { planned };
    let all = || project.models.iter().map(|m| m.name.clone()).collect();
    let wanted: BTreeSet<String> = options.selected.clone().unwrap_or_else(all);
    let tests = chosen(&project, selected.as_ref()).len() + chosen_units(&project, selected.as_ref()).len();
    if wanted.is_empty() && tests == 0 {
        session.say("Nothing to do: nothing is selected. `smelt ls` with the same selection shows what is");
        return Ok(Exit::Success);
    }
    let made = project.models.iter().filter(|m| wanted.contains(&m.name) && m.is_made()).count();
    let (printer, recorder) = (Arc::new(Printer::new(session)), Recorder::new(&session.env));
    let watcher = recorder.watcher(printer.watcher());
    let report = Report::new(session, made + tests);
    let build = Build {
        session,
        writing,
        options: TestOptions { store_failures: testing.store_failures, warn_error: session.is_error("test") },
        printer,
        recorder,
        selected,
        wanted,
        state: tokio::sync::Mutex::new(State {
            report,
            ran: BTreeSet::new(),
            told: BTreeSet::new(),
            refused: BTreeMap::new(),
        }),
    };
    if build.wanted.is_empty() {
        build
            .turn(&project, &compilation, &BTreeSet::new(), None)
            .await
            .map_err(|e| vec![e])?
            .pass(0, &[])
            .await
            .map_err(|e| vec![e])?;
        return Ok(build.state.into_inner().report.finish());
    }
    let compiled = (Arc::clone(&project), compilation);
    let (project, outcome) = stages::run(session, writing, work, compiled, options, watcher, &build).await;
    let summary = match outcome {
        Ok(summary) => summary,
        Err(error) => {
            for result in build.recorder.results(&project, Some(&build.wanted), Err(&error)) {
                session.artifacts.record(result);
            }
            return Err(vec![error]);
        }
    };
    build.finish(writing, &project, &summary).await?;
    build.printer.verdict(&summary);
    Ok(build.state.into_inner().report.finish())
}

/// A build at work.
struct Build<'a> {
    session: &'a Session,
    writing: &'a Writing,
    options: TestOptions,
    printer: Arc<Printer>,
    recorder: Arc<Recorder>,
    /// None: everything.
    selected: Option<Selected>,
    /// Names of the selected models.
    wanted: BTreeSet<String>,
    state: tokio::sync::Mutex<State<'a>>,
}

struct State<'a> {
    report: Report<'a>,
    /// Unique ids of the tests that had their turn.
    ran: BTreeSet<String>,
    /// Models that had theirs.
    told: BTreeSet<String>,
    /// Models that are not made any more, with the reason.
    refused: BTreeMap<String, Error>,
}

impl State<'_> {
    fn refuse<'m>(&mut self, models: impl Iterator<Item = &'m String>, why: &str) {
        for model in models {
            self.refused.entry(model.clone()).or_insert_with(|| Error::user(runtime::SKIPPED, why));
        }
    }
}

/// The models that are compiled by now, with the tests between them.
struct Turn<'a, 's> {
    build: &'a Build<'s>,
    project: &'a Project,
    compilation: &'a Compilation,
    reader: Reader,
    catalog: LakeCatalog,
    tests: Vec<&'a DataTest>,
    units: Vec<&'a UnitTest>,
    stages: Stages,
    /// None: nothing is made.
    around: Option<&'a Around<'a>>,
}

const FAIL_FAST: &str = "something failed before, and --fail-fast is set";

#[async_trait(?Send)]
impl Make for Build<'_> {
    async fn make(&self, runner: Runner, models: &BTreeSet<String>) -> Result<Summary> {
        let around = Around::new(self.session, &runner).await?;
        let turn = self.turn(&runner.project, &runner.compilation, models, Some(&around)).await?;
        runner.run_in_stages(&turn.stages.models, &turn).await
    }
}

impl<'s> Build<'s> {
    async fn turn<'a>(
        &'a self,
        project: &'a Arc<Project>,
        compilation: &'a Arc<Compilation>,
        models: &BTreeSet<String>,
        around: Option<&'a Around<'a>>,
    ) -> Result<Turn<'a, 's>> {
        let state = self.state.lock().await;
        let env = &self.session.env;
        // What is neither made in this turn nor was before comes later, if it is made at all.
        let is_late =
            |name: &String| self.wanted.contains(name) && !models.contains(name) && !state.told.contains(name);
        let mut tests = chosen(project, self.selected.as_ref());
        tests.retain(|test| {
            let late = |d: &Dependency| matches!(d, Dependency::Model(name) if is_late(name));
            !state.ran.contains(&test.unique_id) && !test.depends_on.iter().any(late)
        });
        let mut units = chosen_units(project, self.selected.as_ref());
        units.retain(|unit| !state.ran.contains(&unit.unique_id) && !is_late(&unit.model));
        let settled: Vec<&DataTest> = tests.iter().copied().filter(|test| test.waits.is_none()).collect();
        project::write_compiled_tests(project, &settled, env)?;
        project::write_compiled_unit_tests(project, &units, env)?;
        Ok(Turn {
            build: self,
            project,
            compilation,
            reader: Reader::open(env, Arc::clone(project), Arc::clone(compilation)).await?,
            catalog: runtime::lake_catalog(env, project, |_| false).await?,
            stages: Stages::new(project, Some(models), &tests).around_hooks(project),
            around,
            tests,
            units,
        })
    }
}

#[async_trait(?Send)]
impl Gate for Turn<'_, '_> {
    fn writes(&self, stage: usize) -> bool {
        self.around.is_some_and(|around| around.stands_before(stage, &self.stages))
    }

    async fn pass(&self, stage: usize, stopped: &[(String, Error)]) -> Result<Verdict> {
        let fail_fast = self.build.session.fail_fast();
        let mut state = self.build.state.lock().await;
        let ended = stage.checked_sub(1).and_then(|s| self.stages.models.get(s));
        let is_made = |name: &str| !stopped.iter().any(|(known, _)| known == name);
        let after = self.hooks(ended, HookPoint::Post, is_made).await?;
        let mut stopped = stopped.to_vec();
        stopped.extend(after.failed.iter().cloned());
        let mut verdict = Verdict { refused: after.failed, disturbed: after.disturbed };
        if let Some(ended) = ended {
            self.build.tell(self.project, ended, &stopped, &mut state);
        }
        for (name, _) in &stopped {
            state.refuse(self.stages.behind_model(name), &format!("it reads {name}, which was not made"));
        }
        let is_stopped = |name: &str| stopped.iter().any(|(known, _)| known == name);
        let mut asking = None;
        for id in &self.stages.tests[stage] {
            let Some(test) = self.tests.iter().find(|t| t.unique_id == *id) else { continue };
            let unmade = test.depends_on.iter().find_map(|d| match d {
                Dependency::Model(name) => Some(name).filter(|n| is_stopped(n) || state.refused.contains_key(*n)),
                Dependency::Source(..) => None,
            });
            let result = match unmade {
                Some(model) => TestResult::skipped(format!("{model} was not made")),
                None if fail_fast && state.report.is_failed() => TestResult::skipped(FAIL_FAST),
                None if test.waits.is_some() => self.build.ask(test, &mut asking).await,
                None => self.reader.test(test, self.build.options).await,
            };
            if matches!(result.status, TestStatus::Fail | TestStatus::Error) {
                state.refuse(self.stages.behind_test(id), &format!("data test {} failed", test.name));
            }
            state.report.add(test, result);
            state.ran.insert(id.clone());
        }
        let next = self.stages.models.get(stage);
        for unit in &self.units {
            let is_made = self.stages.models.iter().any(|models| models.contains(&unit.model));
            // That of a model which is not made waits for nothing.
            if !(next.is_some_and(|models| models.contains(&unit.model)) || (stage == 0 && !is_made)) {
                continue;
            }
            let result = match state.refused.contains_key(&unit.model) {
                true => TestResult::skipped(format!("{} is not made", unit.model)),
                false if fail_fast && state.report.is_failed() => TestResult::skipped(FAIL_FAST),
                false => runtime::unit_test(self.project, self.compilation, &self.catalog, unit).await,
            };
            if matches!(result.status, TestStatus::Fail | TestStatus::Error) {
                let behind = std::iter::once(&unit.model).chain(self.stages.behind_model(&unit.model));
                state.refuse(behind, &format!("unit test {} failed", unit.name));
            }
            state.report.add_unit(unit, result);
            state.ran.insert(unit.unique_id.clone());
        }
        if fail_fast && (state.report.is_failed() || !stopped.is_empty()) {
            let rest: BTreeSet<String> = self.build.wanted.difference(&state.told).cloned().collect();
            state.refuse(rest.iter(), FAIL_FAST);
        }
        let goes_on = |name: &str| !is_stopped(name) && !state.refused.contains_key(name);
        let before = self.hooks(next, HookPoint::Pre, goes_on).await?;
        for (name, _) in &before.failed {
            state.refuse(self.stages.behind_model(name), &format!("it reads {name}, which was not made"));
        }
        verdict.refused.extend(before.failed);
        verdict.disturbed |= before.disturbed;
        let waits = |name: &&String| self.stages.models.iter().skip(stage).any(|models| models.contains(*name));
        let refused = state.refused.iter().filter(|(name, _)| waits(name));
        verdict.refused.extend(refused.map(|(name, error)| (name.clone(), error.clone())));
        Ok(verdict)
    }
}

impl Turn<'_, '_> {
    async fn hooks(
        &self,
        models: Option<&BTreeSet<String>>,
        point: HookPoint,
        goes_on: impl Fn(&str) -> bool,
    ) -> Result<Ran> {
        match self.around {
            Some(around) => around.run(models, point, goes_on).await,
            None => Ok(Ran::default()),
        }
    }
}

impl Build<'_> {
    /// Prints and records what became of a stage's models.
    fn tell(&self, project: &Project, models: &BTreeSet<String>, stopped: &[(String, Error)], state: &mut State<'_>) {
        state.told.extend(models.iter().cloned());
        let report = &mut state.report;
        let so_far = Summary { parked: stopped.to_vec(), ..Summary::default() };
        for result in self.recorder.results(project, Some(models), Ok(&so_far)) {
            let Some(model) = project.models.iter().find(|m| m.unique_id == result.unique_id) else { continue };
            let table = format!("{} {}.{}", model.materialized.name(), model.schema, model.alias);
            let message = result.message.as_deref().unwrap_or_default();
            match result.status {
                RunStatus::Success => {
                    let described = self.printer.described(model).unwrap_or_else(|| message.to_string());
                    report.put(TestStatus::Pass, format!("OK {table} "), &format!("[{described}]"));
                }
                RunStatus::Skipped => {
                    report.put(TestStatus::Skipped, format!("SKIP {table} "), &format!("[SKIP: {message}]"))
                }
                _ => {
                    let tail = format!("[ERROR in {:.2}s]", result.execution_time);
                    report.put(TestStatus::Error, format!("ERROR {table} "), &tail);
                }
            }
            self.session.artifacts.record(result);
        }
    }

    /// Runs a data test whose template asks the lake, with the answers of now; `asking` keeps the project as it is with these.
    async fn ask(&self, test: &DataTest, asking: &mut Option<(Arc<Project>, Reader)>) -> TestResult {
        let failed = |errors: Vec<Error>| TestResult::failed(errors);
        let (project, reader) = match asking {
            Some(known) => known,
            None => match self.asked().await {
                Ok(asked) => asking.insert(asked),
                Err(errors) => return failed(errors),
            },
        };
        let Some(test) = project.tests.iter().find(|known| known.unique_id == test.unique_id) else {
            return failed(vec![Error::internal(format!("data test {} is not there any more", test.name))]);
        };
        match project::write_compiled_tests(project, &[test], &self.session.env) {
            Ok(()) => reader.test(test, self.options).await,
            Err(error) => failed(vec![error]),
        }
    }

    async fn asked(&self) -> Result<(Arc<Project>, Reader), Vec<Error>> {
        let (selection, deferring) = (&self.writing.selection, &self.writing.deferring);
        let work = Work { selection, deferring, makes: &|_| false };
        let (project, compilation) = self.session.settle(&Writing::default(), work, &Fresh::All).await?;
        let reader = Reader::open(&self.session.env, Arc::clone(&project), compilation).await;
        Ok((project, reader.map_err(|e| vec![e])?))
    }

    /// The same for models that were never compiled; then the tests that are left: what they test is not made, or was never compiled.
    async fn finish(&self, writing: &Writing, project: &Project, summary: &Summary) -> Result<(), Vec<Error>> {
        let mut state = self.state.lock().await;
        let rest: BTreeSet<String> = self.wanted.difference(&state.told).cloned().collect();
        let mut stopped = summary.parked.clone();
        stopped.extend(state.refused.iter().map(|(name, error)| (name.clone(), error.clone())));
        self.tell(project, &rest, &stopped, &mut state);
        let is_left = |test: &&DataTest| !state.ran.contains(&test.unique_id);
        if chosen(project, self.selected.as_ref()).iter().any(is_left) {
            let (project, compilation) = self.session.compile_reading(&writing.selection, &writing.deferring).await?;
            let tests: Vec<&DataTest> = chosen(&project, self.selected.as_ref()).into_iter().filter(is_left).collect();
            project::write_compiled_tests(&project, &tests, &self.session.env).map_err(|e| vec![e])?;
            let reader =
                Reader::open(&self.session.env, Arc::clone(&project), compilation).await.map_err(|e| vec![e])?;
            for test in tests {
                let unmade = test.depends_on.iter().find_map(|d| match d {
                    Dependency::Model(name) => stopped.iter().find(|(known, _)| known == name),
                    Dependency::Source(..) => None,
                });
                let result = match unmade {
                    Some((model, _)) => TestResult::skipped(format!("{model} was not made")),
                    None if self.session.fail_fast() && state.report.is_failed() => TestResult::skipped(FAIL_FAST),
                    None => reader.test(test, self.options).await,
                };
                state.report.add(test, result);
            }
        }
        for unit in chosen_units(project, self.selected.as_ref()) {
            if state.ran.insert(unit.unique_id.clone()) {
                state.report.add_unit(unit, TestResult::skipped(format!("{} is not made", unit.model)));
            }
        }
        Ok(())
    }
}

//! `smelt test`: unit tests, then data tests, a line each, what failed at the end, and dbt's summary.

use super::args::{Testing, Writing};
use super::session::Session;
use super::{Exit, hooks, print};
use crate::error::{Error, Result};
use crate::plan::Compilation;
use crate::project::artifacts::{RunResult, RunStatus};
use crate::project::{self, DataTest, Project, Selected, UnitTest};
use crate::runtime::{self, Reader, TestOptions, TestResult, TestStatus};

/// At least so many dots lead from a name to its result.
const DOTS: usize = 60;

pub(super) async fn test(session: &Session, reading: &Writing, testing: &Testing) -> Result<Exit, Vec<Error>> {
    let selection = &reading.selection;
    let (project, compilation) = session.compile_reading(selection, &reading.deferring).await?;
    let selected = session.choose(&project, Some(&compilation), selection).await?;
    let tests = chosen(&project, selected.as_ref());
    let units = chosen_units(&project, selected.as_ref());
    project::write_compiled_tests(&project, &tests, &session.env).map_err(|e| vec![e])?;
    if let Err(errors) = hooks::start(session, &project, &compilation, selection, false).await {
        errors.iter().for_each(|e| session.print_error(e));
        let mut report = Report::new(session, units.len() + tests.len());
        let skipped = || TestResult::skipped("on-run-start failed");
        units.iter().for_each(|unit| report.add_unit(unit, skipped()));
        tests.iter().for_each(|test| report.add(test, skipped()));
        report.finish();
        return Ok(Exit::Failed);
    }
    let reader = Reader::open(&session.env, project.clone(), compilation.clone()).await.map_err(|e| vec![e])?;
    let options = TestOptions { store_failures: testing.store_failures, warn_error: session.is_error("test") };
    let mut report = Report::new(session, units.len() + tests.len());
    run_units(session, &project, &compilation, &units, &mut report).await?;
    for test in tests {
        let result = match session.fail_fast() && report.is_failed() {
            true => TestResult::skipped("an earlier test failed, and --fail-fast is set"),
            false => reader.test(test, options).await,
        };
        report.add(test, result);
    }
    Ok(report.finish())
}

/// The selected tests, in the order of their names.
pub(super) fn chosen<'a>(project: &'a Project, selected: Option<&Selected>) -> Vec<&'a DataTest> {
    project.tests.iter().filter(|test| selected.is_none_or(|s| s.contains(&test.unique_id))).collect()
}

/// The selected unit tests, in the order of their names.
pub(super) fn chosen_units<'a>(project: &'a Project, selected: Option<&Selected>) -> Vec<&'a UnitTest> {
    let is_chosen = |test: &&UnitTest| selected.is_none_or(|s| s.contains(&test.unique_id));
    project.unit_tests.iter().filter(is_chosen).collect()
}

/// Runs unit tests.
async fn run_units(
    session: &Session,
    project: &Project,
    compilation: &Compilation,
    units: &[&UnitTest],
    report: &mut Report<'_>,
) -> Result<(), Vec<Error>> {
    if units.is_empty() {
        return Ok(());
    }
    project::write_compiled_unit_tests(project, units, &session.env).map_err(|e| vec![e])?;
    let catalog = runtime::lake_catalog(&session.env, project, |_| false).await.map_err(|e| vec![e])?;
    for unit in units {
        let result = match session.fail_fast() && report.is_failed() {
            true => TestResult::skipped("an earlier test failed, and --fail-fast is set"),
            false => runtime::unit_test(project, compilation, &catalog, unit).await,
        };
        report.add_unit(unit, result);
    }
    Ok(())
}

/// What a person sees of tests, and what they come to.
pub(super) struct Report<'a> {
    session: &'a Session,
    total: usize,
    done: usize,
    counts: [usize; 5],
    /// What is said of each test that did not pass, at the end.
    details: Vec<String>,
}

impl<'a> Report<'a> {
    pub fn new(session: &'a Session, total: usize) -> Self {
        Report { session, total, done: 0, counts: [0; 5], details: Vec::new() }
    }

    fn count(&self, status: TestStatus) -> usize {
        self.counts[status as usize]
    }

    pub fn is_failed(&self) -> bool {
        self.count(TestStatus::Fail) + self.count(TestStatus::Error) > 0
    }

    /// Prints the line of a data test.
    pub fn add(&mut self, test: &DataTest, result: TestResult) {
        self.line(&test.name, &result);
        self.record(&test.unique_id, &result);
        let what = match result.status {
            TestStatus::Fail => "Failure",
            TestStatus::Warn => "Warning",
            TestStatus::Error => "Error",
            TestStatus::Pass | TestStatus::Skipped => return,
        };
        result.errors.iter().for_each(|e| self.session.print_error(e));
        let compiled = project::test_path(test);
        let mut lines = vec![
            format!("{what} in test {} ({})", test.name, test.path.display()),
            format!("  {}", result.message),
            format!("  compiled SQL: target/compiled/{}", compiled.display()),
        ];
        if let Some((schema, name)) = &result.stored {
            lines.push(format!("  all failures: smelt query 'select * from \"{schema}\".\"{name}\"'"));
        }
        lines.extend(result.examples.iter().map(|row| format!("    {row}")));
        self.details.push(lines.join("\n"));
    }

    /// Prints the line of a unit test.
    pub fn add_unit(&mut self, test: &UnitTest, result: TestResult) {
        self.line(&format!("{}::{}", test.model, test.name), &result);
        self.record(&test.unique_id, &result);
        result.errors.iter().for_each(|e| self.session.print_error(e));
        let what = match result.status {
            TestStatus::Fail => "Failure",
            TestStatus::Error => "Error",
            _ => return,
        };
        let compiled = project::unit_test_path(test);
        self.details.push(format!(
            "{what} in unit test {} of {} ({}:{})\n  {}\n\n  compiled SQL: target/compiled/{}",
            test.name,
            test.model,
            test.path.display(),
            test.span.line,
            result.message,
            compiled.display()
        ));
    }

    /// For `run_results.json`; the test has ended just now.
    fn record(&self, unique_id: &str, result: &TestResult) {
        let status = match result.status {
            TestStatus::Pass => RunStatus::Pass,
            TestStatus::Warn => RunStatus::Warn,
            TestStatus::Fail => RunStatus::Fail,
            TestStatus::Error => RunStatus::Error,
            TestStatus::Skipped => RunStatus::Skipped,
        };
        let took = i64::try_from(result.elapsed.as_micros()).unwrap_or(0);
        let started_at = self.session.env.now_micros().saturating_sub(took);
        let mut record = RunResult::new(unique_id, status).timed(started_at, result.elapsed);
        let texts = result.errors.iter().map(Error::render).chain([result.message.clone()]);
        record.message = Some(texts.filter(|t| !t.is_empty()).collect::<Vec<_>>().join("\n")).filter(|t| !t.is_empty());
        if !matches!(result.status, TestStatus::Error | TestStatus::Skipped) {
            record.failures = u64::try_from(result.failures).ok();
        }
        self.session.artifacts.record(record);
    }

    fn line(&mut self, name: &str, result: &TestResult) {
        let (first, verdict) = match result.status {
            TestStatus::Pass => ("PASS".to_string(), "PASS".to_string()),
            TestStatus::Warn => (format!("WARN {}", result.failures), format!("WARN {}", result.failures)),
            TestStatus::Fail => (format!("FAIL {}", result.failures), format!("FAIL {}", result.failures)),
            TestStatus::Error => ("ERROR".to_string(), "ERROR".to_string()),
            TestStatus::Skipped => ("SKIP".to_string(), "SKIP".to_string()),
        };
        let seconds = result.elapsed.as_secs_f64();
        let timed = match result.status {
            TestStatus::Skipped => format!("[{verdict}: {}]", result.message),
            _ => format!("[{verdict} in {seconds:.2}s]"),
        };
        self.put(result.status, format!("{first} {name} "), &timed);
    }

    /// Prints the next line and counts what it says.
    pub fn put(&mut self, status: TestStatus, label: String, verdict: &str) {
        self.done += 1;
        self.counts[status as usize] += 1;
        let line = format!("{:>3} of {} {label:.<DOTS$} {verdict}", self.done, self.total);
        if !self.session.quiet || !matches!(status, TestStatus::Pass | TestStatus::Skipped) {
            print::line(&self.session.env.redact(&line));
        }
    }

    /// Says what failed, and the sums; the summary is printed also where nothing else is.
    pub fn finish(self) -> Exit {
        for detail in &self.details {
            print::line(&self.session.env.redact(&format!("\n{detail}")));
        }
        let errors = self.count(TestStatus::Fail) + self.count(TestStatus::Error);
        if !self.details.is_empty() {
            print::line("");
        }
        print::line(&format!(
            "Done. PASS={} WARN={} ERROR={errors} SKIP={} TOTAL={}",
            self.count(TestStatus::Pass),
            self.count(TestStatus::Warn),
            self.count(TestStatus::Skipped),
            self.total,
        ));
        if errors == 0 { Exit::Success } else { Exit::Failed }
    }
}

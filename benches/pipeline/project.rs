//! The sample project on a broker, run in this process.

use parking_lot::Mutex;
use smelt::env::Env;
use smelt::plan::Compilation;
use smelt::project::{LoadOptions, Project};
use smelt::runtime::{EpochReport, Event, Options, Runner, Watcher};
use smelt::types::{Poll, PollLimit, Positions};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Failure;
use super::measure::Percentiles;

/// A copy of the sample project that reads from `servers`.
pub struct Sample {
    dir: tempfile::TempDir,
}

/// How a run goes.
#[derive(Default, Clone)]
pub struct How {
    /// None: as the project has it.
    pub epoch_rows: Option<usize>,
    /// Prints a line for each epoch.
    pub verbose: bool,
    /// Files are not synced.
    pub no_fsync: bool,
}

/// What a run reported.
#[derive(Default)]
pub struct Ran {
    pub epochs: u64,
    pub operators: Duration,
    pub upload: Duration,
    pub commit: Duration,
    /// Per model: time in its operators and rows it took in.
    models: BTreeMap<String, (Duration, u64)>,
}

impl Ran {
    pub fn print_models(&self) {
        for (model, (busy, rows)) in &self.models {
            println!("    {model:<28} {:>7.2} s in operators for {rows} rows", busy.as_secs_f64());
        }
    }
}

impl Sample {
    pub fn new(servers: &str) -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut todo: Vec<PathBuf> = ["smelt.yml", "models", "queries", "macros"].iter().map(PathBuf::from).collect();
        while let Some(path) = todo.pop() {
            let (from, to) = (root.join(&path), dir.path().join(&path));
            if from.is_dir() {
                std::fs::create_dir_all(&to)?;
                for entry in std::fs::read_dir(&from)? {
                    todo.push(path.join(entry?.file_name()));
                }
            } else {
                let text = std::fs::read_to_string(&from)?;
                std::fs::write(to, text.replace("{{ env_var('KAFKA', 'localhost:9092') }}", servers))?;
            }
        }
        Ok(Sample { dir })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn lake(&self, name: &str) -> PathBuf {
        self.path().join(format!("lake-{name}"))
    }

    /// The same without its models' expectations.
    pub fn without_expectations(servers: &str) -> Result<Self, Failure> {
        let sample = Self::new(servers)?;
        let path = sample.path().join("models/silver.yml");
        let text = std::fs::read_to_string(&path)?;
        let mut kept = String::new();
        let mut within = false;
        for line in text.lines() {
            within = line == "    expectations:" || (within && line.starts_with("      "));
            if !within {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        std::fs::write(&path, kept)?;
        Ok(sample)
    }

    /// The same, bad records not kept as rows but set aside as dead letters.
    pub fn with_dead_letters(servers: &str) -> Result<Self, Failure> {
        let sample = Self::new(servers)?;
        let path = sample.path().join("models/sources.yml");
        let text = std::fs::read_to_string(&path)?;
        std::fs::write(path, text.replace("on_error: keep ", "on_error: dead_letter "))?;
        Ok(sample)
    }

    /// Reads the reference data of another one.
    pub fn share_data(&self, other: &Sample) -> Result<(), Failure> {
        Ok(std::os::unix::fs::symlink(other.path().join("data"), self.path().join("data"))?)
    }

    /// Compiled against an empty lake of that name.
    pub fn compile(&self, env: &Env, lake: &str) -> Result<(Project, Compilation), Failure> {
        let options = LoadOptions {
            dir: self.path().to_path_buf(),
            lake: Some(self.lake(lake).display().to_string()),
            ..LoadOptions::default()
        };
        let project = smelt::project::load(&options, env).map_err(first)?;
        let compilation = smelt::plan::compile(&project, &NoTables, &smelt::plan::stopped()).map_err(first)?;
        Ok((project, compilation))
    }

    /// Fetches and decodes both topics.
    pub async fn decode(&self) -> Result<u64, Failure> {
        let env = Env::real();
        let (project, _) = self.compile(&env, "none")?;
        let context = smelt::source::OpenContext { env, ledger: None, project: "bench".into(), target: "dev".into() };
        let limit = PollLimit { max_rows: 131_072, max_files: 1, wait: Duration::from_millis(200) };
        let mut rows = 0;
        for name in ["call_event", "sms_event"] {
            let table = project.sources.iter().find(|s| s.name == name).ok_or("the sample has lost a source")?;
            let mut source = smelt::source::open(table, &context)?;
            source.open(&Positions::new(), true).await?;
            loop {
                match source.poll(limit).await? {
                    Poll::Batches(batches) => rows += batches.iter().map(|b| b.rows.num_rows() as u64).sum::<u64>(),
                    Poll::Idle => {}
                    Poll::End => break,
                }
            }
        }
        Ok(rows)
    }

    /// `smelt run` of all or some models into a new lake.
    pub async fn run(&self, lake: &str, selected: Option<&[&str]>, how: &How) -> Result<Ran, Failure> {
        let env = Env::real();
        let (mut project, compilation) = self.compile(&env, lake)?;
        project.target.epoch_max_rows = how.epoch_rows.unwrap_or(project.target.epoch_max_rows);
        project.target.fsync &= !how.no_fsync;
        let ran = Arc::new(Mutex::new(Ran::default()));
        let runner = Runner {
            env,
            project: Arc::new(project),
            compilation: Arc::new(compilation),
            options: Options {
                selected: selected.map(|names| names.iter().map(|n| (*n).to_string()).collect()),
                ..Options::default()
            },
            watcher: watcher(&ran, how.verbose),
        };
        let summary = runner.run().await?;
        if let Some((model, error)) = summary.parked.first() {
            return Err(format!("{model} stopped: {error}").into());
        }
        let mut ran = std::mem::take(&mut *ran.lock());
        ran.epochs = summary.epochs;
        Ok(ran)
    }

    /// The binary as a user starts it.
    pub fn start_up(&self) -> Result<(), Failure> {
        for (what, lake, args) in [
            ("smelt compile", "none", vec!["compile", "--quiet"]),
            // The lake's last writer is this process.
            ("smelt run on the full lake, nothing new", "gold", vec!["run", "--quiet", "--take-over"]),
        ] {
            let mut times = Vec::new();
            for _ in 0..3 {
                let started = Instant::now();
                let status = Command::new(env!("CARGO_BIN_EXE_smelt"))
                    .args(&args)
                    .arg("--lake")
                    .arg(self.lake(lake))
                    .current_dir(self.path())
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .status()?;
                if !status.success() {
                    return Err(format!("{what} failed").into());
                }
                times.push(started.elapsed().as_secs_f64());
            }
            println!("{what}: {}", Percentiles::of(times));
        }
        Ok(())
    }
}

/// Sums up what the epochs report.
fn watcher(ran: &Arc<Mutex<Ran>>, verbose: bool) -> Watcher {
    let ran = Arc::clone(ran);
    Arc::new(move |event: &Event<'_>| match event {
        Event::Epoch { report, .. } => {
            if verbose {
                print_epoch(report);
            }
            let mut ran = ran.lock();
            ran.upload += report.upload;
            ran.commit += report.commit;
            for model in &report.models {
                ran.operators += model.busy;
                let entry = ran.models.entry(model.model.clone()).or_default();
                entry.0 += model.busy;
                entry.1 += model.rows_in as u64;
            }
        }
        Event::Restarting { error, .. } => println!("restarted: {error}"),
        _ => {}
    })
}

fn print_epoch(report: &EpochReport) {
    let parts = [report.compute, report.upload, report.commit].map(|part| part.as_millis().to_string()).join(" + ");
    println!("  epoch {}: {} rows read; {parts} ms (operators, uploads, commits)", report.epoch, report.rows_read);
    for model in report.models.iter().filter(|m| m.busy >= Duration::from_millis(50)) {
        let (busy, name) = (model.busy.as_millis(), &model.model);
        println!(
            "    {busy:>6} ms {name} {} in, {} inserted, {} deleted",
            model.rows_in, model.inserted, model.deleted
        );
    }
}

fn first(errors: Vec<smelt::error::Error>) -> Failure {
    errors.into_iter().next().map_or_else(|| "failed without an error".into(), |e| e.render().into())
}

/// The sample reads nothing that somebody else maintains.
struct NoTables;

impl smelt::types::Catalog for NoTables {
    fn table_schema(&self, _: &str, _: &str) -> Option<arrow::datatypes::SchemaRef> {
        None
    }
}

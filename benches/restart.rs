//! How long after its start `smelt up` commits again, with ten million rows of state stored and with none.
//!
//! Files → bronze → one gold aggregate with a group for every record. A first `run` takes everything in and stores the state; then
//! every round adds a file of 1,000 records, half of them of known groups, starts the binary and watches both tables' logs.
//!
//! `cargo bench --bench restart [-- GROUPS]`
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

const FILE: u64 = 500_000;
const NEW: u64 = 1_000;
const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(300);

const PROJECT: &str = "\
name: restart
models:
  restart:
    bronze: {+schema: bronze, +materialized: streaming_table}
    gold: {+schema: gold}
target: dev
targets:
  dev: {lake: ./lake, commit_interval: 100ms}
";

const SOURCES: &str = r#"
version: 2
sources:
  - name: net
    config: {connector: files, format: json}
    tables:
      - name: sessions
        config: {path: "data/*.json"}
        columns:
          - {name: subscriber, data_type: STRING}
          - {name: bytes, data_type: BIGINT}
          - {name: charge, data_type: "DECIMAL(12,4)"}
"#;

const BRONZE: &str = "select subscriber, bytes, charge from {{ source('net', 'sessions') }}";
const GOLD: &str = "select subscriber, count(*) as sessions, sum(bytes) as bytes, sum(charge) as charge\n\
from {{ ref('bronze_sessions') }} group by subscriber";

fn main() -> Result<(), Failure> {
    let groups = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(10_000_000);
    let bench = Bench::new(groups)?;
    let started = Instant::now();
    bench.run()?;
    let seconds = started.elapsed().as_secs_f64();
    println!("first run: {groups} groups in {seconds:.1} s, {:.0} rows/s", groups as f64 / seconds);
    println!("stored state: {} MB", bytes(&bench.path("lake/_smelt/state"))? >> 20);

    let mut known = groups;
    // The first change of a loaded table finds out where its rows are, and stores that too.
    bench.add(&mut known)?;
    bench.run()?;
    println!("stored state with places of rows: {} MB", bytes(&bench.path("lake/_smelt/state"))? >> 20);
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push(bench.round(&mut known)?);
    }
    report("with stored state", &mut times);

    std::fs::remove_dir_all(bench.path("lake/_smelt/state"))?;
    let [bronze, gold, cpu] = bench.round(&mut known)?;
    println!(
        "without: bronze {bronze:.2} s, gold {gold:.2} s, CPU {cpu:.2} s, {:.0} rows/s rebuilt and compared",
        groups as f64 / gold
    );
    let started = Instant::now();
    bench.add(&mut known)?;
    bench.run()?;
    println!("`smelt run` with {NEW} new records: {:.2} s", started.elapsed().as_secs_f64());
    bench.check(known)?;
    // With SMELT_LOG=debug: what loading the state consisted of.
    let log = std::fs::read_to_string(bench.path("log"))?;
    log.lines().filter(|line| line.contains("state is loaded")).for_each(|line| println!("{line}"));
    Ok(())
}

/// Seconds from the start of a process to bronze's and to gold's commit, and the CPU seconds it had used by then.
type Start = [f64; 3];

fn report(what: &str, times: &mut [Start]) {
    let mut line = String::new();
    for (i, name) in ["bronze after", "gold after", "CPU"].into_iter().enumerate() {
        times.sort_by(|a, b| a[i].total_cmp(&b[i]));
        let (median, worst) = (times.get(times.len() / 2).map_or(0.0, |t| t[i]), times.last().map_or(0.0, |t| t[i]));
        let _ = write!(line, "{name} {median:.2} s (median; worst {worst:.2} s)  ");
    }
    println!("{what}, {} starts: {line}", times.len());
}

/// User and system seconds of a process.
fn cpu(process: u32) -> Result<f64, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).ok_or("unexpected /proc/…/stat");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(groups: u64) -> Result<Self, Failure> {
        let bench = Bench { dir: tempfile::tempdir()? };
        let files = [
            ("smelt.yml", PROJECT),
            ("models/sources.yml", SOURCES),
            ("queries/bronze/bronze_sessions.sql", BRONZE),
            ("queries/gold/by_subscriber.sql", GOLD),
        ];
        for (path, text) in files {
            let path = bench.path(path);
            path.parent().map(std::fs::create_dir_all).transpose()?;
            std::fs::write(path, text)?;
        }
        std::fs::create_dir_all(bench.path("data"))?;
        for (number, first) in (0..groups).step_by(FILE as usize).enumerate() {
            bench.file(&format!("{number:05}"), first..groups.min(first + FILE))?;
        }
        Ok(bench)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn file(&self, name: &str, groups: std::ops::Range<u64>) -> Result<(), Failure> {
        let hidden = self.path(&format!("data/.{name}"));
        let mut out = BufWriter::new(std::fs::File::create(&hidden)?);
        for group in groups {
            // Groups do not come in any order.
            let id = group.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
            let (bytes, charge) = (id % 1_000_003, id % 9_973);
            writeln!(out, r#"{{"subscriber":"imsi-{id:014}","bytes":{bytes},"charge":{charge}.25}}"#)?;
        }
        out.into_inner()?.sync_all()?;
        Ok(std::fs::rename(hidden, self.path(&format!("data/{name}.json")))?)
    }

    /// A file with as many records of known groups as of new ones.
    fn add(&self, known: &mut u64) -> Result<(), Failure> {
        self.file(&format!("new-{known:012}"), *known - NEW / 2..*known + NEW / 2)?;
        *known += NEW / 2;
        Ok(())
    }

    fn smelt(&self, command: &str) -> Result<Child, Failure> {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log"))?;
        let mut smelt = Command::new(env!("CARGO_BIN_EXE_smelt"));
        smelt.arg(command).current_dir(self.dir.path()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(smelt.spawn()?)
    }

    fn run(&self) -> Result<(), Failure> {
        let ended = self.smelt("run")?.wait()?;
        if ended.success() { Ok(()) } else { Err(std::fs::read_to_string(self.path("log"))?.into()) }
    }

    /// Adds records, starts `smelt up`: what it took to bronze's and gold's next commit.
    fn round(&self, known: &mut u64) -> Result<Start, Failure> {
        let logs =
            [self.path("lake/bronze/bronze_sessions/_delta_log"), self.path("lake/gold/by_subscriber/_delta_log")];
        let mut next = [version(&logs[0])? + 1, version(&logs[1])? + 1];
        self.add(known)?;
        let started = Instant::now();
        let mut up = self.smelt("up")?;
        let mut seconds = [None; 2];
        while seconds.contains(&None) {
            for i in 0..2 {
                let entry = std::fs::read_to_string(logs[i].join(format!("{:020}.json", next[i])));
                if let (None, Ok(entry)) = (seconds[i], entry) {
                    // The first commit of a process only says whose the table is now.
                    seconds[i] = entry.contains("\"add\":").then(|| started.elapsed().as_secs_f64());
                    next[i] += 1;
                }
            }
            if up.try_wait()?.is_some() || started.elapsed() > PATIENCE {
                let _ = up.kill();
                return Err(std::fs::read_to_string(self.path("log"))?.into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let cpu = cpu(up.id())?;
        Command::new("kill").args(["-TERM", &up.id().to_string()]).status()?;
        up.wait()?;
        Ok([seconds[0].unwrap_or_default(), seconds[1].unwrap_or_default(), cpu])
    }

    /// What gold holds is what was written.
    fn check(&self, known: u64) -> Result<(), Failure> {
        let mut query = Command::new(env!("CARGO_BIN_EXE_smelt"));
        query.args(["query", "select count(*), sum(sessions) from gold.by_subscriber", "--output", "csv"]);
        let out = query.current_dir(self.dir.path()).output()?;
        println!("groups, records: {}", String::from_utf8_lossy(&out.stdout).lines().last().unwrap_or_default());
        println!("expected: {known}");
        Ok(())
    }
}

/// The newest version in a log.
fn version(log: &Path) -> Result<u64, Failure> {
    let mut newest = 0;
    for entry in std::fs::read_dir(log)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(version) = name.strip_suffix(".json").and_then(|v| v.parse().ok()) {
            newest = newest.max(version);
        }
    }
    Ok(newest)
}

/// Bytes below a folder.
fn bytes(dir: &Path) -> Result<u64, Failure> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() { bytes(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(sum)
}

//! 20,000 commits of 100 signed rows on one maintained table, with maintenance running and retentions of 10 s: commit times of
//! the first and the last thousand, files and checkpoint at the end, and the machine's own fsync beside them.
//!
//! `cargo bench --bench commits [-- COMMITS]`
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use futures::TryStreamExt;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smelt::env::Env;
use smelt::lake::{CommitRequest, Lake, LakeOptions, Table, TableSpec};
use smelt::types::SignedBatch;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows a commit adds, and rows it replaces: 60 + 20 × (−1, +1) = 100 signed rows.
const NEW: usize = 60;
const REPLACED: usize = 20;
const WINDOW: usize = 1000;
const RETENTION: Duration = Duration::from_secs(10);

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let commits = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(20_000);
    let dir = tempfile::tempdir()?;
    println!("fsync of 4 KiB before: {}", fsync(dir.path())?);
    let mut bench = Bench::new(dir.path()).await?;
    let mut times = Vec::with_capacity(commits);
    let mut maintenance = Vec::new();
    let started = Instant::now();
    for n in 1..=commits {
        times.push(bench.commit().await?);
        maintenance.extend(bench.maintain().await?);
        if n % 2000 == 0 {
            let window = &times[n.saturating_sub(WINDOW)..];
            println!(
                "{n:>6} commits, {:>4.0} s: commit {}; {}",
                started.elapsed().as_secs_f64(),
                Times::of(window),
                bench.files()
            );
        }
    }
    // What is under way ends, as in a process that goes on.
    tokio::time::sleep(RETENTION).await;
    for _ in 0..200 {
        maintenance.extend(bench.maintain().await?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let window = WINDOW.min(commits / 2);
    let (first, last) = (Times::of(&times[..window]), Times::of(&times[commits - window..]));
    println!("fsync of 4 KiB after:  {}", fsync(dir.path())?);
    println!("first {window} commits: {first}\nlast {window} commits:  {last}");
    println!("ratios: p50 {:.2}, p99 {:.2}", last.p50 / first.p50, last.p99 / first.p99);
    println!("applying maintenance between commits, {} times: {}", maintenance.len(), Times::of(&maintenance));
    bench.report(dir.path()).await
}

/// Milliseconds.
struct Times {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Times {
    fn of(times: &[Duration]) -> Self {
        let mut sorted = times.to_vec();
        sorted.sort();
        let at = |share: f64| {
            let index = (sorted.len() as f64 * share) as usize;
            sorted.get(index.min(sorted.len().saturating_sub(1))).map_or(0.0, |t| t.as_secs_f64() * 1e3)
        };
        Times { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms", self.p50, self.p99, self.max)
    }
}

/// What a durable write costs on this machine, whoever asks.
fn fsync(dir: &Path) -> Result<Times, Failure> {
    let mut times = Vec::new();
    let path = dir.join("fsync-probe");
    for _ in 0..500 {
        let mut file = std::fs::File::create(&path)?;
        file.write_all(&[7; 4096])?;
        let started = Instant::now();
        file.sync_all()?;
        times.push(started.elapsed());
    }
    std::fs::remove_file(path)?;
    Ok(Times::of(&times))
}

struct Bench {
    table: Table,
    schema: SchemaRef,
    /// How often each row was replaced: its contents follow from number and revision.
    revisions: Vec<i64>,
    rng: ChaCha8Rng,
    epoch: i64,
}

impl Bench {
    async fn new(dir: &Path) -> Result<Self, Failure> {
        let options =
            LakeOptions { deleted_file_retention: RETENTION, log_retention: RETENTION, ..LakeOptions::default() };
        let lake = Lake::open(&Env::real(), &dir.display().to_string(), options)?;
        let fields = [
            ("id", DataType::Int64),
            ("name", DataType::Utf8),
            ("amount", DataType::Decimal128(10, 2)),
            ("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        ];
        let schema: SchemaRef =
            Arc::new(Schema::new(fields.into_iter().map(|(n, t)| Field::new(n, t, true)).collect::<Vec<_>>()));
        let table = lake.create_table("gold", "maintained", TableSpec::new(Arc::clone(&schema), true)).await?;
        Ok(Bench { table, schema, revisions: Vec::new(), rng: ChaCha8Rng::seed_from_u64(7), epoch: 0 })
    }

    /// Rows by (number, revision).
    fn rows(&self, rows: &[(i64, i64)]) -> Result<RecordBatch, Failure> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|(id, _)| *id).collect::<Int64Array>()),
            Arc::new(
                rows.iter().map(|(id, r)| Some(format!("subscriber {id} in revision {r}"))).collect::<StringArray>(),
            ),
            Arc::new(
                rows.iter()
                    .map(|(id, r)| Some(i128::from(id * 31 + r)))
                    .collect::<Decimal128Array>()
                    .with_precision_and_scale(10, 2)?,
            ),
            Arc::new(
                rows.iter()
                    .map(|(id, r)| Some(id * 1_000_003 + r))
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            ),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// One commit; returns the time from the rows to the log entry.
    async fn commit(&mut self) -> Result<Duration, Failure> {
        let mut old = Vec::new();
        let mut new = Vec::new();
        let known = self.revisions.len();
        if known > 10 * REPLACED {
            let replaced: std::collections::BTreeSet<usize> =
                (0..REPLACED).map(|_| self.rng.random_range(0..known)).collect();
            for id in replaced {
                old.push((id as i64, self.revisions[id]));
                self.revisions[id] += 1;
                new.push((id as i64, self.revisions[id]));
            }
        }
        new.extend((known..known + NEW).map(|id| (id as i64, 0)));
        self.revisions.resize(known + NEW, 0);
        let change = [SignedBatch::retracts(self.rows(&old)?), SignedBatch::inserts(self.rows(&new)?)];
        self.epoch += 1;
        let request = CommitRequest {
            txns: vec![
                ("smelt/epoch".to_string(), self.epoch),
                ("smelt/gold.maintained/calls/0".to_string(), self.epoch * 100),
            ],
            ..CommitRequest::default()
        };
        let started = Instant::now();
        self.table.stage(&change).await?;
        self.table.prepare().await?;
        self.table.commit(request).await?;
        Ok(started.elapsed())
    }

    /// Applies a background job that has ended; returns how long that held up the next commit.
    async fn maintain(&mut self) -> Result<Option<Duration>, Failure> {
        let started = Instant::now();
        let applied = self.table.finish_maintenance().await?;
        let took = started.elapsed();
        self.table.start_maintenance();
        Ok(applied.then_some(took))
    }

    fn files(&self) -> String {
        let half = LakeOptions::default().target_file_size / 2;
        let snapshot = self.table.committed_snapshot();
        let small = snapshot.file_sizes().filter(|size| *size < half).count();
        format!(
            "{} rows in {} files, {small} of them under half the target size",
            snapshot.row_count(),
            snapshot.file_count()
        )
    }

    async fn report(&self, dir: &Path) -> Result<(), Failure> {
        println!("{}", self.files());
        let root = dir.join("gold/maintained");
        let (mut checkpoints, mut entries, mut parquet, mut vectors) = (Vec::new(), 0, 0, 0);
        for entry in std::fs::read_dir(root.join("_delta_log"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".checkpoint.parquet") {
                checkpoints.push((name, entry.metadata()?.len()));
            } else {
                entries += 1;
            }
        }
        for entry in std::fs::read_dir(&root)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            parquet += usize::from(name.ends_with(".parquet"));
            vectors += usize::from(name.ends_with(".bin"));
        }
        checkpoints.sort();
        let newest = checkpoints.last().map_or(0, |(_, size)| *size);
        println!(
            "on disk: {parquet} data files, {vectors} vector files, {entries} log entries, {} checkpoints, the newest of {newest} bytes",
            checkpoints.len()
        );
        // The table is what was committed: every row in its last revision, once.
        let batches: Vec<RecordBatch> = self.table.committed_snapshot().rows().try_collect().await?;
        let mut left: std::collections::HashSet<(i64, i64)> =
            self.revisions.iter().enumerate().map(|(id, r)| (id as i64, id as i64 * 1_000_003 + r)).collect();
        for batch in &batches {
            let ids = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(batch.column(0));
            let at = arrow::array::AsArray::as_primitive::<arrow::datatypes::TimestampMicrosecondType>(batch.column(3));
            for (id, at) in ids.values().iter().zip(at.values()) {
                if !left.remove(&(*id, *at)) {
                    return Err(format!("row {id} is wrong or doubled").into());
                }
            }
        }
        if !left.is_empty() {
            return Err(format!("{} rows are missing", left.len()).into());
        }
        println!("content: exact");
        Ok(())
    }
}

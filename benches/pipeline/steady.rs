//! Hours in minutes: a steady rate of events through all layers, and each minute what waits, grows or does not.
//!
//! The k-th record that is sent is visible when the bronze tables have k rows and the epoch that brought them is committed: every record becomes
//! one, bad ones too. Within an epoch partitions may be ahead of each other, which is within what an epoch takes.

use parking_lot::Mutex;
use smelt::env::Env;
use smelt::runtime::{Event, NoHooks, Options, Runner};
use smelt::source::datagen::telecom::{self, Options as Traffic, Telecom};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

use super::latency::{BRONZE, rename_topics};
use super::measure::{Percentiles, cpu, resident};
use super::project::Sample;
use super::{Failure, traffic};

/// One of so many records is timed.
const EVERY: u64 = 500;
/// What old versions are kept for: short, so that a run sees them go.
const RETENTION: Duration = Duration::from_secs(300);

/// What was sent and is not visible yet, and how long the rest waited.
#[derive(Default)]
struct Waiting {
    sent: VecDeque<(u64, Instant)>,
    waits: Vec<f64>,
    landed: u64,
}

/// `rate` events a second for so many minutes, one line for each.
pub async fn measure(servers: &str, rate: u64, minutes: u64, commit_interval: Duration) -> Result<(), Failure> {
    let suffix = "_steady";
    let sample = Sample::new(servers)?;
    rename_topics(&sample, suffix)?;
    let telecom = Telecom::new(Traffic { events: rate * 60 * minutes, ..Traffic::default() })?;
    telecom::write_reference(&telecom, &sample.path().join("data"))?;
    traffic::topics(servers, suffix).await?;

    let env = Env::real();
    let (mut project, compilation) = sample.compile(&env, "steady")?;
    project.target.commit_interval = commit_interval;
    (project.target.deleted_file_retention, project.target.log_retention) = (RETENTION, RETENTION);
    let (stop, stopped) = watch::channel(false);
    let (_edit, edited) = watch::channel(false);
    let waiting = Arc::new(Mutex::new(Waiting::default()));
    let runner = Runner {
        env,
        project: Arc::new(project),
        compilation: Arc::new(compilation),
        options: Options::default(),
        watcher: Arc::new({
            let (waiting, rows) = (Arc::clone(&waiting), Mutex::new(BTreeMap::new()));
            move |event: &Event<'_>| match event {
                Event::Epoch { report, .. } => {
                    let mut rows = rows.lock();
                    let bronze = report.models.iter().filter(|m| BRONZE.iter().any(|(_, model)| m.model == *model));
                    rows.extend(bronze.map(|m| (m.model.clone(), m.table_rows)));
                    waiting.lock().land(rows.values().sum());
                }
                Event::Parked { model, error } => println!("{model} stopped: {error}"),
                _ => {}
            }
        }),
    };
    println!("{rate} events/s, commit_interval {commit_interval:?}, retention {RETENTION:?}: per minute");
    let lake = sample.lake("steady");
    let sending = tokio::spawn({
        let (servers, waiting) = (servers.to_string(), Arc::clone(&waiting));
        async move {
            let note = |n: u64, _: &telecom::GeneratedRecord| {
                if n.is_multiple_of(EVERY) {
                    waiting.lock().sent.push_back((n, Instant::now()));
                }
            };
            traffic::send(telecom, &servers, suffix, rate as f64, note).await
        }
    });
    let telling = tokio::spawn(async move {
        let mut used = cpu().unwrap_or(0.0);
        for minute in 1..=minutes {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let (waits, landed) = {
                let mut waiting = waiting.lock();
                (std::mem::take(&mut waiting.waits), waiting.landed)
            };
            let now = cpu().unwrap_or(0.0);
            let found = Found::below(&lake).unwrap_or_default();
            println!(
                "{minute:>4}: {landed} records landed, {}; {:.0} % of a core; {} MB resident, {} descriptors; {} data files, \
                 {} other files; logs {} files, {:.1} MB; lake {} MB",
                Percentiles::of(waits),
                (now - used) / 0.6,
                resident().unwrap_or(0) >> 20,
                std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
                found.data,
                found.others,
                found.logs,
                found.log_bytes as f64 / 1e6,
                found.bytes >> 20
            );
            used = now;
        }
        let _ = stop.send(true);
    });
    runner.up(stopped, edited, &NoHooks).await?;
    telling.await?;
    sending.await??;
    Ok(())
}

impl Waiting {
    fn land(&mut self, rows: u64) {
        self.landed = rows;
        let now = Instant::now();
        while let Some((_, at)) = self.sent.front().copied().filter(|(n, _)| *n < rows) {
            self.sent.pop_front();
            self.waits.push(now.duration_since(at).as_secs_f64());
        }
    }
}

/// Files of a lake.
#[derive(Default)]
struct Found {
    data: u64,
    others: u64,
    logs: u64,
    log_bytes: u64,
    bytes: u64,
}

impl Found {
    fn below(lake: &Path) -> Result<Self, Failure> {
        let mut found = Found::default();
        let mut todo = vec![lake.to_path_buf()];
        while let Some(dir) = todo.pop() {
            // What goes meanwhile is not there.
            let Ok(entries) = std::fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
                if metadata.is_dir() {
                    todo.push(path);
                    continue;
                }
                found.bytes += metadata.len();
                if dir.ends_with("_delta_log") {
                    found.logs += 1;
                    found.log_bytes += metadata.len();
                } else if path.extension().is_some_and(|x| x == "parquet") {
                    found.data += 1;
                } else {
                    found.others += 1;
                }
            }
        }
        Ok(found)
    }
}

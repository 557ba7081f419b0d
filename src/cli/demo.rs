//! `smelt demo`: the sample project live, in one process and a temporary folder: embedded broker, generator, pipeline.

use parking_lot::Mutex;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

use super::generate::pace;
use super::run::stop_signal;
use super::session::Session;
use super::{Exit, print, sample};
use crate::error::{Error, Result};
use crate::kafka::{EmbeddedBroker, Producer, Record};
use crate::runtime::{EpochReport, Event, NoHooks, Options, Reader, Runner, Runs};
use crate::source::datagen::telecom::{self, Telecom};

/// The embedded broker forgets what is more than about 5 MB behind: the generator waits when it is this far ahead of the
/// committed rows.
const AHEAD_RECORDS: u64 = 2_000_000 / 470;
/// When the star is shown for the first time.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// What the demo shows.
#[derive(Default)]
struct Live {
    report: Mutex<Option<(EpochReport, i64)>>,
    /// Records sent, and rows committed to bronze.
    sent: AtomicU64,
    landed: AtomicU64,
}

pub(super) async fn demo(session: &Session, seconds: Option<u64>, rate: u64) -> Result<Exit, Vec<Error>> {
    let started = Instant::now();
    let folder = TemporaryFolder::new(session).map_err(|e| vec![e])?;
    let topics: Vec<(&str, i32)> =
        telecom::Topic::ALL.iter().map(|topic| (topic.name(), telecom::PARTITIONS)).collect();
    let broker = EmbeddedBroker::start(&topics).map_err(|e| vec![e])?;
    write_project(&folder.0, broker.bootstrap_servers()).map_err(|e| vec![e])?;
    print::line(&format!("Project and lake: {}", folder.0.display()));
    print::line(&format!("Embedded broker:  {} (topics call_event, sms_event)", broker.bootstrap_servers()));

    let demo = session.at(&folder.0);
    let telecom =
        Telecom::new(telecom::Options { events: 20_000_000, ..telecom::Options::default() }).map_err(|e| vec![e])?;
    telecom::write_reference(&telecom, &folder.0.join("data")).map_err(|e| vec![e])?;
    let (project, compilation) = demo.compile().await?;

    let live = Arc::new(Live::default());
    let stop = stop_after(seconds);
    let generator =
        tokio::spawn(generate(telecom, broker.bootstrap_servers().to_string(), rate, Arc::clone(&live), stop.clone()));
    let watcher = {
        let live = Arc::clone(&live);
        let env = session.env.clone();
        Arc::new(move |event: &Event<'_>| match event {
            Event::Epoch { report, lag } => {
                let landed: u64 =
                    report.models.iter().filter(|m| is_bronze_event(&m.model)).map(|m| m.table_rows).sum();
                live.landed.store(landed, Ordering::Relaxed);
                *live.report.lock() = Some(((*report).clone(), *lag));
            }
            Event::Parked { model, error } => {
                print::error(&env.redact(&format!("{model} stopped: {}", error.render())))
            }
            Event::Restarting { error, .. } | Event::RunFailed { error, .. } => {
                print::error(&env.redact(&error.render()));
            }
            Event::Opened { .. } | Event::Note(_) | Event::Measured(_) => {}
        })
    };
    let runner = Runner {
        env: session.env.clone(),
        project: Arc::clone(&project),
        compilation: Arc::clone(&compilation),
        options: Options { runs: Runs::Scheduled, ..Options::default() },
        watcher,
    };
    let (_keep, never_edited) = watch::channel(false);
    let screen = tokio::spawn(show(Arc::clone(&live), stop.clone(), started, {
        let env = session.env.clone();
        let lake = project.target.lake.clone();
        move || {
            let (env, project, compilation, lake) = (env.clone(), project.clone(), compilation.clone(), lake.clone());
            async move {
                match Reader::open(&env, project, compilation).await {
                    Ok(reader) => star(&reader, &lake).await,
                    Err(error) => print::error(&error.render()),
                }
            }
        }
    }));
    let summary = runner.up(stop.clone(), never_edited, &NoHooks).await;
    screen.abort();
    generator.abort();
    let summary = summary.map_err(|e| vec![e])?;
    print::line(&format!(
        "Stopped after {:.0} s: {} records sent, {} committed in {} epochs. The temporary lake is deleted.",
        started.elapsed().as_secs_f64(),
        live.sent.load(Ordering::Relaxed),
        live.landed.load(Ordering::Relaxed),
        summary.epochs
    ));
    Ok(if summary.parked.is_empty() { Exit::Success } else { Exit::Failed })
}

fn is_bronze_event(model: &str) -> bool {
    matches!(model, "bronze_call_events" | "bronze_sms_events")
}

/// A folder of the demo's own, deleted at the end.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn new(session: &Session) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("smelt-demo-{}", session.env.new_uuid().simple()));
        std::fs::create_dir_all(&path)?;
        Ok(TemporaryFolder(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // A leftover in the temporary folder is the system's to clean.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn write_project(folder: &Path, bootstrap_servers: &str) -> Result<()> {
    for (path, text) in sample::FILES {
        let target = folder.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        // The embedded broker knows no topic ids: asking for them should not hold up the start for long.
        let connection = format!("{bootstrap_servers}\"\n        socket.connection.setup.timeout.ms: \"1000");
        std::fs::write(&target, text.replace("{{ env_var('KAFKA', 'localhost:9092') }}", &connection))?;
    }
    Ok(())
}

/// Becomes true at a signal, or after so many seconds.
fn stop_after(seconds: Option<u64>) -> watch::Receiver<bool> {
    let mut signal = stop_signal();
    let Some(seconds) = seconds else { return signal };
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
            _ = signal.wait_for(|stop| *stop) => {}
        }
        let _ = sender.send(true);
        std::future::pending::<()>().await;
    });
    receiver
}

/// Sends events at `rate`, and holds when it is too far ahead of what is committed.
async fn generate(telecom: Telecom, servers: String, rate: u64, live: Arc<Live>, stop: watch::Receiver<bool>) {
    let mut producer = match Producer::new(&servers) {
        Ok(producer) => producer,
        Err(error) => return print::error(&error.render()),
    };
    let started = Instant::now();
    for (n, record) in telecom.enumerate() {
        let sent = n as u64;
        while sent > live.landed.load(Ordering::Relaxed) + AHEAD_RECORDS && !*stop.borrow() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if *stop.borrow() {
            return;
        }
        pace(started, sent, rate.max(1)).await;
        let record = Record {
            topic: record.topic,
            partition: record.partition,
            key: Some(&record.key),
            value: Some(&record.value),
            timestamp_millis: Some(record.timestamp_micros / 1000),
        };
        if let Err(error) = producer.send(record).await {
            return print::error(&error.render());
        }
        live.sent.store(sent + 1, Ordering::Relaxed);
    }
}

/// Counts, rates and lag per table, again and again; the star once there is something to see.
async fn show<F: Future<Output = ()>>(
    live: Arc<Live>,
    stop: watch::Receiver<bool>,
    started: Instant,
    star: impl Fn() -> F,
) {
    let terminal = std::io::stdout().is_terminal();
    let every = if terminal { Duration::from_secs(1) } else { Duration::from_secs(5) };
    let mut before: Vec<u64> = Vec::new();
    let mut drawn = 0;
    let mut last = Instant::now();
    let mut star_shown = false;
    while !*stop.borrow() {
        tokio::time::sleep(every).await;
        let Some((report, _)) = live.report.lock().clone() else { continue };
        let elapsed = last.elapsed().as_secs_f64();
        last = Instant::now();
        let rows: Vec<u64> = report.models.iter().map(|m| m.table_rows).collect();
        let mut lines = vec![format!(
            "{}  epoch {}  {} records sent, {} behind; compute {:.0} ms, upload {:.0} ms, commit {:.0} ms",
            print::clock(),
            report.epoch,
            live.sent.load(Ordering::Relaxed),
            live.sent.load(Ordering::Relaxed).saturating_sub(live.landed.load(Ordering::Relaxed)),
            report.compute.as_secs_f64() * 1e3,
            report.upload.as_secs_f64() * 1e3,
            report.commit.as_secs_f64() * 1e3,
        )];
        for (at, model) in report.models.iter().enumerate().filter(|(_, m)| m.version >= 0) {
            let gained = rows[at].saturating_sub(before.get(at).copied().unwrap_or(rows[at]));
            lines.push(format!(
                "  {:<32} {:>10} rows {:>8.0}/s  v{}",
                model.table,
                rows[at],
                gained as f64 / elapsed.max(0.001),
                model.version
            ));
        }
        before = rows;
        if terminal && drawn > 0 {
            print::line(&format!("\x1b[{}A\x1b[0J{}", drawn + 1, lines.join("\n")));
        } else {
            print::line(&lines.join("\n"));
        }
        drawn = lines.len();
        let facts = report.models.iter().any(|m| m.model == "fact_events" && m.table_rows > 0);
        if !star_shown && facts && started.elapsed() > FIRST_LOOK {
            star_shown = true;
            drawn = 0;
            star().await;
        }
    }
}

/// The newest facts with their dimensions, and how to read the same tables from elsewhere.
async fn star(reader: &Reader, lake: &str) {
    let sql = "select f.event_timestamp, f.event_type, s.first_name as sender, s.city, c.site_name, \
               d.manufacturer, f.amount from fact_events f join dim_user s on s.user_id = f.sender_id \
               join dim_cell_site c on c.site_id = f.sender_site_id \
               join dim_device_tac d on d.tac_id = f.sender_device_id order by f.event_timestamp desc limit 8";
    print::line("\nThe newest facts, joined to their dimensions:");
    match reader.query(sql).await {
        Ok(batches) => {
            if let Err(error) = print::batches(&batches, super::args::Output::Table) {
                print::error(&error.render());
            }
        }
        Err(errors) => errors.iter().for_each(|e| print::error(&e.render())),
    }
    print::line(&format!(
        "\nThe same table from Python (pip install deltalake):\n\
         \x20 from deltalake import DeltaTable, QueryBuilder\n\
         \x20 facts = DeltaTable(\"{lake}/gold/fact_events\")\n\
         \x20 print(QueryBuilder().register(\"facts\", facts).execute(\"select count(*) from facts\").read_all())\n\
         and from DuckDB (INSTALL delta; LOAD delta;):\n\
         \x20 select event_type, count(*), sum(amount) from delta_scan('{lake}/gold/fact_events') group by all;\n\
         Ctrl-C ends the demo.\n"
    ));
}

//! From produce to the log entry of the gold commit, record by record, at a steady rate.
//!
//! The k-th record of a partition has offset k. A bronze commit says in its `txn` actions up to which offset it goes and in
//! which epoch; the fact table's commit of that epoch is a file, and its modification time the end of the wait.

use parking_lot::Mutex;
use serde_json::Value;
use smelt::env::Env;
use smelt::runtime::{Event, NoHooks, Options, Runner};
use smelt::source::datagen::telecom::{self, Options as Traffic, Telecom};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

use super::measure::Percentiles;
use super::project::Sample;
use super::{Failure, traffic};

const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
const SECONDS: u64 = 20;
/// The first ones wait for connections and first commits.
const WARM_UP: Duration = Duration::from_secs(4);
/// For the last ones to land.
const PATIENCE: Duration = Duration::from_secs(120);
/// Topics and the models that take them in.
pub const BRONZE: [(&str, &str); 2] = [("call_event", "bronze_call_events"), ("sms_event", "bronze_sms_events")];

type Partition = (&'static str, i32);
/// When a commit became visible, and its `txn` actions.
type Commit = (SystemTime, BTreeMap<String, i64>);

pub async fn measure(servers: &str, rate: u64) -> Result<(), Failure> {
    // A broker serves the backlog under the usual names: this traffic has topics of its own.
    let suffix = format!("_{rate}");
    let sample = Sample::new(servers)?;
    rename_topics(&sample, &suffix)?;
    let telecom = Telecom::new(Traffic { events: rate * SECONDS, ..Traffic::default() })?;
    telecom::write_reference(&telecom, &sample.path().join("data"))?;
    // Made before: making it would take CPU from what is measured.
    let records: Vec<telecom::GeneratedRecord> = telecom.collect();
    traffic::topics(servers, &suffix).await?;

    let env = Env::real();
    let (mut project, compilation) = sample.compile(&env, "live")?;
    project.target.commit_interval = COMMIT_INTERVAL;
    let (stop, stopped) = watch::channel(false);
    let landed = Arc::new(AtomicU64::new(0));
    let epochs: Arc<Mutex<Vec<[Duration; 3]>>> = Arc::default();
    let (_edit, edited) = watch::channel(false);
    let runner = Runner {
        env,
        project: Arc::new(project),
        compilation: Arc::new(compilation),
        options: Options::default(),
        watcher: Arc::new({
            let (landed, epochs) = (Arc::clone(&landed), Arc::clone(&epochs));
            move |event: &Event<'_>| match event {
                Event::Epoch { report, .. } => {
                    if report.rows_read > 0 {
                        epochs.lock().push([report.compute, report.upload, report.commit]);
                    }
                    let bronze = report.models.iter().filter(|m| BRONZE.iter().any(|(_, model)| m.model == *model));
                    landed.store(bronze.map(|m| m.table_rows).sum(), Ordering::Relaxed);
                }
                Event::Parked { model, error } => println!("{model} stopped: {error}"),
                _ => {}
            }
        }),
    };
    let sending = tokio::spawn({
        let (servers, suffix) = (servers.to_string(), suffix.clone());
        async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let mut sent: BTreeMap<Partition, Vec<SystemTime>> = BTreeMap::new();
            let sending = traffic::send(records, &servers, &suffix, rate as f64, |_, record| {
                sent.entry((record.topic, record.partition)).or_default().push(SystemTime::now());
            });
            let sending = sending.await.map_err(|e| e.to_string());
            let count: usize = sent.values().map(Vec::len).sum();
            let patience = tokio::time::Instant::now() + PATIENCE;
            while landed.load(Ordering::Relaxed) < count as u64 && tokio::time::Instant::now() < patience {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let _ = stop.send(true);
            sending.map(|()| sent)
        }
    });
    runner.up(stopped, edited, &NoHooks).await?;
    let sent = sending.await??;

    let waits = waits(&sample.lake("live"), &sent, &suffix)?;
    println!("produce to gold at {rate} events/s, commit_interval {COMMIT_INTERVAL:?}: {}", Percentiles::of(waits));
    let epochs = epochs.lock();
    println!("  {} epochs with input:", epochs.len());
    for (part, name) in ["operators", "uploads", "commits"].into_iter().enumerate() {
        println!("    {name}: {}", Percentiles::of(epochs.iter().map(|parts| parts[part].as_secs_f64()).collect()));
    }
    Ok(())
}

pub fn rename_topics(sample: &Sample, suffix: &str) -> Result<(), Failure> {
    let path = sample.path().join("models/sources.yml");
    let mut text = std::fs::read_to_string(&path)?;
    for topic in telecom::Topic::ALL {
        text = text.replace(&format!("topic: {}\n", topic.name()), &format!("topic: {}{suffix}\n", topic.name()));
    }
    Ok(std::fs::write(path, text)?)
}

/// Seconds each record waited for its epoch's commit of the fact table.
fn waits(lake: &Path, sent: &BTreeMap<Partition, Vec<SystemTime>>, suffix: &str) -> Result<Vec<f64>, Failure> {
    let gold: BTreeMap<i64, SystemTime> = commits(&lake.join("gold/fact_events"))?
        .into_iter()
        .filter_map(|(at, txns)| Some((*txns.get("smelt/epoch")?, at)))
        .collect();
    let begin = sent.values().filter_map(|times| times.first()).min().ok_or("nothing was sent")?;
    let mut waits = Vec::new();
    for ((topic, partition), times) in sent {
        let (_, bronze) = BRONZE.iter().find(|(t, _)| t == topic).ok_or("a topic that nothing takes in")?;
        let app = format!("smelt/bronze.{bronze}/telco.{topic}/{topic}{suffix}/{partition}");
        let mut next = 0;
        for (_, txns) in commits(&lake.join("bronze").join(bronze))? {
            let (Some(end), Some(epoch)) = (txns.get(&app), txns.get("smelt/epoch")) else { continue };
            // Only repeats or bad records: the fact did not change.
            let Some((_, visible)) = gold.range(epoch..).next() else { break };
            for at in &times[next..(*end as usize).min(times.len())] {
                if at.duration_since(*begin)? >= WARM_UP {
                    waits.push(visible.duration_since(*at)?.as_secs_f64());
                }
            }
            next = (*end as usize).min(times.len());
        }
        if next < times.len() {
            return Err(format!("{} records of {topic}/{partition} never arrived", times.len() - next).into());
        }
    }
    Ok(waits)
}

/// All commits of a table, in order.
fn commits(table: &Path) -> Result<Vec<Commit>, Failure> {
    let mut entries: Vec<_> = std::fs::read_dir(table.join("_delta_log"))?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut found = Vec::new();
    for entry in entries.iter().filter(|e| e.path().extension().is_some_and(|x| x == "json")) {
        let mut txns = BTreeMap::new();
        for line in std::fs::read_to_string(entry.path())?.lines() {
            let action: Value = serde_json::from_str(line)?;
            if let (Some(app), Some(version)) = (action["txn"]["appId"].as_str(), action["txn"]["version"].as_i64()) {
                txns.insert(app.to_string(), version);
            }
        }
        found.push((entry.metadata()?.modified()?, txns));
    }
    Ok(found)
}

//! `smelt generate`: the telecom sample's traffic, to files or to a broker, with the generator's own record of it.

use clap::Args;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::session::Session;
use super::{Exit, print};
use crate::error::{Error, Result};
use crate::kafka::{Admin, Producer, Record, TopicSpec};
use crate::source::datagen::telecom::{self, Manifest, Options, Telecom};

/// Options of the traffic generator.
#[derive(Debug, Args)]
pub(super) struct Generate {
    /// Write one NDJSON file per topic, partition and slice into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "bootstrap_servers")]
    pub to_dir: Option<PathBuf>,
    /// Produce to this broker
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "to_dir")]
    pub bootstrap_servers: Option<String>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Base events (calls and messages together); the reference profile has 5000
    #[arg(long, default_value_t = 5000)]
    pub events: u64,
    /// Named set of options the others change
    #[arg(long, default_value = "ref", value_name = "NAME")]
    pub profile: String,
    /// First instant of the virtual clock: 2026-01-05 or 2026-01-05T06:00:00Z
    #[arg(long, value_name = "INSTANT")]
    pub start: Option<String>,
    /// Days the events spread over
    #[arg(long)]
    pub days: Option<u32>,
    /// Users in the reference data
    #[arg(long)]
    pub users: Option<u32>,
    /// Repeated records, as a share of the events: 0.02
    #[arg(long, value_name = "SHARE")]
    pub duplicates: Option<f64>,
    /// Records that do not parse, as a share of the events
    #[arg(long, value_name = "SHARE")]
    pub malformed: Option<f64>,
    /// Records that parse, with a date no calendar has, as a share of the events
    #[arg(long, value_name = "SHARE")]
    pub impossible_dates: Option<f64>,
    /// Slices the traffic is cut into (one file each, or one transaction each)
    #[arg(long, default_value_t = 1)]
    pub slices: u32,
    /// Only this slice, from 1
    #[arg(long, value_name = "N")]
    pub slice: Option<u32>,
    /// Events per second when producing; 0: as fast as possible
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Produce in transactions
    #[arg(long)]
    pub transactional: bool,
    /// With a broker: write the reference data (users, cell sites, devices) into this folder
    #[arg(long, value_name = "DIR")]
    pub reference_dir: Option<PathBuf>,
    /// Where the manifest goes: the generator's own record of what it made
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
}

pub(super) async fn generate(session: &Session, args: &Generate) -> Result<Exit, Vec<Error>> {
    let options = options(args).map_err(|e| vec![e])?;
    let manifest = match (&args.to_dir, &args.bootstrap_servers) {
        (Some(dir), _) => {
            let dir = session.dir.join(dir);
            let manifest = telecom::to_dir(options, &dir).map_err(|e| vec![e])?;
            session.say(&format!("wrote {}", dir.display()));
            manifest
        }
        (None, Some(servers)) => produce(session, args, options, servers).await.map_err(|e| vec![e])?,
        (None, None) => return Err(vec![Error::user("usage", "either --to-dir or --bootstrap-servers is needed")]),
    };
    if let Some(path) = &args.manifest {
        write_manifest(&manifest, &session.dir.join(path)).map_err(|e| vec![e])?;
    }
    for (topic, counts) in &manifest.topics {
        session.say(&format!(
            "{topic}: {} records ({} events, {} duplicates, {} malformed, {} with impossible dates)",
            counts.records, counts.base, counts.duplicates, counts.malformed, counts.impossible_dates
        ));
    }
    Ok(Exit::Success)
}

fn options(args: &Generate) -> Result<Options> {
    let base = Options::profile(&args.profile)?;
    let days = args.days.unwrap_or(base.days);
    let seconds = u64::from(days) * 86_400;
    let options = Options {
        seed: args.seed,
        start: args.start.as_deref().map(telecom::parse_start).transpose()?.unwrap_or(base.start),
        days,
        events: args.events,
        users: args.users.unwrap_or(base.users),
        duplicates: args.duplicates.unwrap_or(base.duplicates),
        malformed: args.malformed.unwrap_or(base.malformed),
        impossible_dates: args.impossible_dates.unwrap_or(base.impossible_dates),
        slice: args.slice,
        slice_seconds: u32::try_from(seconds.div_ceil(u64::from(args.slices.max(1)))).unwrap_or(u32::MAX),
        rate: (args.rate > 0).then_some(args.rate as f64),
        ..base
    };
    options.check()?;
    Ok(options)
}

/// Sends everything in order; with `--transactional` one transaction per slice, so that a reader sees whole slices.
async fn produce(session: &Session, args: &Generate, options: Options, servers: &str) -> Result<Manifest> {
    let mut telecom = Telecom::new(options)?;
    if let Some(dir) = &args.reference_dir {
        telecom::write_reference(&telecom, &session.dir.join(dir))?;
    }
    let admin = Admin::new(servers)?;
    for topic in telecom::Topic::ALL {
        admin.ensure_topic(&TopicSpec::event_time(topic.name(), telecom::PARTITIONS)).await?;
    }
    let mut producer =
        if args.transactional { Producer::transactional(servers, "smelt-generate")? } else { Producer::new(servers)? };
    let started = Instant::now();
    let (mut sent, mut slice) = (0u64, 0);
    for record in &mut telecom {
        if args.transactional && record.slice != slice {
            if slice != 0 {
                producer.commit_transaction().await?;
            }
            producer.begin_transaction()?;
            slice = record.slice;
        }
        producer
            .send(Record {
                topic: record.topic,
                partition: record.partition,
                key: Some(&record.key),
                value: Some(&record.value),
                timestamp_millis: Some(record.timestamp_micros / 1000),
            })
            .await?;
        sent += 1;
        if args.rate > 0 {
            pace(started, sent, args.rate).await;
        }
        if sent % 1_000_000 == 0 {
            session.say(&format!("{} {sent} records sent", print::clock()));
        }
    }
    if args.transactional && slice != 0 {
        producer.commit_transaction().await?;
    }
    producer.flush().await?;
    Ok(telecom.manifest())
}

/// Waits until `sent` records are due at `rate` per second.
pub(super) async fn pace(started: Instant, sent: u64, rate: u64) {
    let due = Duration::from_secs_f64(sent as f64 / rate as f64);
    // Short waits are left out: timers are no finer than a millisecond, and the average is what counts.
    if let Some(wait) = due.checked_sub(started.elapsed())
        && wait > Duration::from_millis(2)
    {
        tokio::time::sleep(wait).await;
    }
}

fn write_manifest(manifest: &Manifest, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(manifest).map_err(|e| Error::internal(e.to_string()))?;
    std::fs::write(path, text).map_err(|e| Error::environment("write", format!("{}: {e}", path.display())).permanent())
}

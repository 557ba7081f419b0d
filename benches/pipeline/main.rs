//! The sample project on a real Kafka broker: a backlog into bronze and through gold (rows/s, CPU per row, where it goes),
//! the time from produce to the gold commit, and start-up.
//!
//! `cargo bench --bench pipeline [-- EVENTS]`; default 3,000,000 events, about 0.5 KB each. The broker runs beside smelt on
//! the same cores; its CPU is not counted, its presence is.
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, dead_code)]

#[path = "../../tests/it/broker.rs"]
mod broker;
mod latency;
mod measure;
mod project;
mod traffic;

use broker::Broker;
use measure::{Cost, Stage};
use project::Sample;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let events: u64 = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(3_000_000);
    // The broker's process ends with the thread that started it: this one.
    let mut broker = Broker::start();
    let servers = broker.addresses().plain;
    let outcome = tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&servers, events));
    broker.stop();
    outcome
}

async fn run(servers: &str, events: u64) -> Result<(), Failure> {
    println!("fsync of 4 KiB: {}", measure::fsync()?);
    let sample = Sample::new(servers)?;
    let records = traffic::backlog(servers, sample.path(), events).await?;
    println!("{} records, {} bytes each on average", records.count, records.bytes / records.count.max(1));
    let count = records.count;

    let fetch = Stage::measure(|| traffic::fetch(servers)).await?;
    println!("fetch alone            {}", fetch.per(count));
    let decode = Stage::measure(|| sample.decode()).await?;
    println!("fetch and decode       {}", decode.per(count));
    let bronze = Stage::measure(|| sample.run("bronze", Some(&["bronze_call_events", "bronze_sms_events"]))).await?;
    println!("into bronze            {}", bronze.per(count));
    split(&bronze, &fetch, &decode, count);
    let gold = Stage::measure(|| sample.run("gold", None)).await?;
    println!("through gold           {}", gold.per(count));
    split(&gold, &fetch, &decode, count);
    gold.value.print_models();

    sample.start_up()?;
    for rate in [1_000, 10_000] {
        latency::measure(servers, rate).await?;
    }
    Ok(())
}

/// Where a run's CPU went. Fetch and decode are measured alone, operators and log puts by the run's own reports; Parquet
/// (encoding, compression, uploads) is what is left.
fn split(run: &Stage<project::Ran>, fetch: &Stage<u64>, decode: &Stage<u64>, records: u64) {
    let per = |cost: f64| cost * 1e6 / records as f64;
    let decoding = (decode.cpu - fetch.cpu).max(0.0);
    let (operators, commit) = (run.value.operators.as_secs_f64(), run.value.commit.as_secs_f64());
    let rest = (run.cpu - fetch.cpu - decoding - operators).max(0.0);
    println!(
        "  µs of CPU per record: fetch {:.2}, decode {:.2}, operators {:.2}, Parquet and the rest {:.2}; {} epochs, waiting \
         for uploads {:.1} s, for log puts {:.1} s",
        per(fetch.cpu),
        per(decoding),
        per(operators),
        per(rest),
        run.value.epochs,
        run.value.upload.as_secs_f64(),
        commit
    );
}

impl<T> Stage<T> {
    fn per(&self, records: u64) -> Cost {
        Cost { seconds: self.seconds, cpu: self.cpu, peak: self.peak, records }
    }
}

//! The sample project on a real Kafka broker: a backlog into bronze and through gold (rows/s, CPU per row, where it goes),
//! the time from produce to the gold commit, and start-up.
//!
//! `cargo bench --bench pipeline [-- EVENTS] [--stages fetch,decode,bronze,gold,start,latency,many] [--rates 1000,10000] [--epoch-rows N] [--cores N]
//! [--verbose] [--save]`;
//! default 3,000,000 events, about 0.5 KB each, and all these stages. The broker runs beside smelt on the same cores; its CPU is not counted,
//! its presence is. With `--cores N` smelt has the first N cores, the broker all.
//!
//! Two stages run only when they are named: `costs` (gold again, without expectations, with dead letters instead of `on_error: keep`, without fsync) and `steady`
//! (`--rates` events a second for `--minutes N`, each minute a line).
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, dead_code)]

#[path = "../../tests/it/broker.rs"]
mod broker;
mod latency;
mod many;
mod measure;
mod project;
mod ratios;
mod steady;
mod traffic;

use broker::Broker;
use measure::{Cost, Stage};
use project::{How, Sample};
use ratios::Ratios;

/// That of the binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse()?;
    // The broker's process ends with the thread that started it: this one.
    let mut broker = Broker::start();
    let servers = broker.addresses().plain;
    if let Some(cores) = arguments.cores {
        measure::pin_to(cores)?;
    }
    let outcome = tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&servers, &arguments));
    broker.stop();
    outcome
}

/// What to measure.
struct Arguments {
    events: u64,
    /// None: all.
    stages: Option<Vec<String>>,
    rates: Vec<u64>,
    minutes: u64,
    /// None: all.
    cores: Option<usize>,
    how: How,
    /// Stores the ratios instead of comparing them.
    save: bool,
}

impl Arguments {
    fn parse() -> Result<Self, Failure> {
        let rates = vec![1_000, 10_000, 100_000];
        let mut arguments = Arguments {
            events: 3_000_000,
            stages: None,
            rates,
            minutes: 30,
            cores: None,
            how: How::default(),
            save: false,
        };
        let mut given = std::env::args().skip(1);
        while let Some(argument) = given.next() {
            let mut value = || given.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--stages" => arguments.stages = Some(value()?.split(',').map(str::to_string).collect()),
                "--rates" => arguments.rates = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "--epoch-rows" => arguments.how.epoch_rows = Some(value()?.parse()?),
                "--minutes" => arguments.minutes = value()?.parse()?,
                "--cores" => arguments.cores = Some(value()?.parse()?),
                "--save" => arguments.save = true,
                "--verbose" => arguments.how.verbose = true,
                // What `cargo bench` adds.
                "--bench" => {}
                number => arguments.events = number.parse().map_err(|_| format!("`{number}` is not known here"))?,
            }
        }
        Ok(arguments)
    }

    fn wants(&self, stage: &str) -> bool {
        self.stages.as_ref().is_none_or(|stages| stages.iter().any(|s| s == stage))
    }

    /// Whether a stage was asked for by its name.
    fn names(&self, stage: &str) -> bool {
        self.stages.is_some() && self.wants(stage)
    }
}

async fn run(servers: &str, arguments: &Arguments) -> Result<(), Failure> {
    println!("fsync of 4 KiB: {}", measure::fsync()?);
    let sample = Sample::new(servers)?;
    if ["fetch", "decode", "bronze", "gold", "costs", "start"].iter().any(|stage| arguments.wants(stage)) {
        backlog(servers, &sample, arguments).await?;
    }
    if arguments.wants("latency") {
        for rate in &arguments.rates {
            latency::measure(servers, *rate).await?;
        }
    }
    if arguments.wants("many") {
        many::measure(servers).await?;
    }
    if arguments.names("steady") {
        let interval = std::time::Duration::from_secs(1);
        steady::measure(servers, arguments.rates[0], arguments.minutes, interval).await?;
    }
    Ok(())
}

async fn backlog(servers: &str, sample: &Sample, arguments: &Arguments) -> Result<(), Failure> {
    let mut ratios = Ratios::default();
    let reference = ratios::reference(sample)?;
    println!("reference: {:.2} µs per record (arrow-json, parquet-rs)", reference * 1e6);
    let records = traffic::backlog(servers, sample.path(), arguments.events).await?;
    println!("{} records, {} bytes each on average", records.count, records.bytes / records.count.max(1));
    let count = records.count;
    let reference = reference * count as f64;
    let mut fetched = 0.0;
    if arguments.wants("fetch") {
        let fetch = Stage::measure(|| traffic::fetch(servers)).await?;
        println!("fetch alone            {}", fetch.per(count));
        fetched = fetch.cpu;
        ratios.note("fetch", fetch.cpu, reference);
    }
    let mut decoded = fetched;
    if arguments.wants("decode") {
        let decode = Stage::measure(|| sample.decode()).await?;
        println!("fetch and decode       {}", decode.per(count));
        decoded = decode.cpu;
        ratios.note("fetch and decode", decode.cpu, reference);
    }
    if arguments.wants("bronze") {
        let models = ["bronze_call_events", "bronze_sms_events"];
        let bronze = Stage::measure(|| sample.run("bronze", Some(&models), &arguments.how)).await?;
        println!("into bronze            {}", bronze.per(count));
        split(&bronze, fetched, decoded, count);
        ratios.note("into bronze", bronze.cpu, reference);
    }
    if arguments.wants("gold") {
        let gold = Stage::measure(|| sample.run("gold", None, &arguments.how)).await?;
        println!("through gold           {}", gold.per(count));
        split(&gold, fetched, decoded, count);
        gold.value.print_models();
        ratios.note("through gold", gold.cpu, reference);
    }
    if arguments.names("costs") {
        costs(servers, sample, arguments, count).await?;
    }
    if arguments.wants("start") {
        sample.start_up()?;
    }
    ratios.compare(arguments.save)
}

/// What parts of the pipeline cost that a user could do without: it with them, without one of them each, and with them again.
async fn costs(servers: &str, sample: &Sample, arguments: &Arguments, records: u64) -> Result<(), Failure> {
    let (plain, without) = (Sample::without_expectations(servers)?, Sample::with_dead_letters(servers)?);
    for other in [&plain, &without] {
        other.share_data(sample)?;
    }
    let unsynced = How { no_fsync: true, ..arguments.how.clone() };
    let runs = [
        ("as it is", sample, &arguments.how),
        ("without expectations", &plain, &arguments.how),
        ("dead letters, not rows", &without, &arguments.how),
        ("without fsync", sample, &unsynced),
        ("as it is, again", sample, &arguments.how),
    ];
    for (at, (what, project, how)) in runs.into_iter().enumerate() {
        let lake = format!("costs-{at}");
        let run = Stage::measure(|| project.run(&lake, None, how)).await?;
        println!("{what:<22} {}", run.per(records));
        std::fs::remove_dir_all(project.lake(&lake))?;
    }
    Ok(())
}

/// Where a run's CPU went. Fetching (`fetched`), and that and decoding (`decoded`), were measured alone, operators and log puts
/// by the run's own reports; Parquet (encoding, compression, uploads) is what is left.
fn split(run: &Stage<project::Ran>, fetched: f64, decoded: f64, records: u64) {
    let per = |cost: f64| cost * 1e6 / records as f64;
    let decoding = (decoded - fetched).max(0.0);
    let (operators, commit) = (run.value.operators.as_secs_f64(), run.value.commit.as_secs_f64());
    let rest = (run.cpu - fetched - decoding - operators).max(0.0);
    println!(
        "  µs of CPU per record: fetch {:.2}, decode {:.2}, operators {:.2}, Parquet and the rest {:.2}; {} epochs, waiting \
         for uploads {:.1} s, for log puts {:.1} s",
        per(fetched),
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

//! Nexmark: the queries of `queries.sql` as circuits, fed with Arrow batches that are there before the clock starts; results stay in memory.
//!
//! For every query and epoch size: CPU-seconds per million events, events per second, rows and bytes of state; beside them one batch
//! execution of the same plan by DataFusion over the same batches in this process, and what DBSP (hand-written, steps of 40,000 events), Flink
//! SQL 2.2 and DataFusion 55 took for 10,000,000 events on such a 2-core machine before (`figures.rs`). Every result is compared with the batch's.
//!
//! The input can also be files that are written before the clock starts: `text`, lines of JSON read by smelt's own decoder, or
//! `parquet`. What reading them costs stands apart, in the column `read`; results are compared with those of the Arrow batches.
//!
//! ```text
//! cargo bench --bench nexmark [-- --events 1000000 --epochs 1000,40000,1000000 --queries q4,q5 --cores 1 --seed 1
//!     --input arrow,text,parquet --batch-memory 8 --json FILE]
//! ```
//!
//! `--batch-memory`: GiB that the batch execution may use, sorts spill beyond. One that needs more is left out, and the table says so: then
//! epochs and formats are compared with each other.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

mod figures;
mod files;
mod input;
mod measure;
mod report;

use arrow::array::RecordBatch;
use arrow::row::{RowConverter, SortField};
use futures::TryStreamExt;
use smelt::operators::{Circuit, Mode};
use smelt::plan::stored::to_stored;
use smelt::plan::{CompiledModel, Planner, PlannerOptions};
use smelt::project::Dialect;
use smelt::types::SignedBatch;
use std::sync::Arc;

use input::Input;
use measure::Cost;

/// That of the `smelt` binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn std::error::Error>;

/// What is run.
struct Options {
    events: u64,
    epochs: Vec<u64>,
    /// Empty: all.
    queries: Vec<String>,
    cores: usize,
    seed: u64,
    formats: Vec<Format>,
    /// GiB.
    batch_memory: usize,
    json: Option<String>,
}

/// How the events come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Arrow,
    Text,
    Parquet,
}

impl Format {
    const ALL: [(&str, Format); 3] = [("arrow", Format::Arrow), ("text", Format::Text), ("parquet", Format::Parquet)];

    fn named(name: &str) -> Result<Format, Failure> {
        let found = Format::ALL.iter().find(|(known, _)| *known == name).map(|(_, format)| *format);
        found.ok_or_else(|| format!("no input {name}: it can be arrow, text, parquet").into())
    }

    fn name(self) -> &'static str {
        Format::ALL.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Options {
            events: 1_000_000,
            epochs: vec![1_000, 40_000, 1_000_000],
            queries: Vec::new(),
            cores: 1,
            seed: 1,
            formats: vec![Format::Arrow],
            batch_memory: 8,
            json: None,
        };
        while let Some(word) = words.next() {
            // What cargo adds.
            if word == "--bench" {
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            match word.as_str() {
                "--events" => options.events = value.parse()?,
                "--epochs" => options.epochs = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "--queries" => options.queries = value.split(',').map(String::from).collect(),
                "--cores" => options.cores = value.parse()?,
                "--seed" => options.seed = value.parse()?,
                "--input" => options.formats = value.split(',').map(Format::named).collect::<Result<_, _>>()?,
                "--batch-memory" => options.batch_memory = value.parse()?,
                "--json" => options.json = Some(value),
                other => return Err(format!("no option {other}").into()),
            }
        }
        Ok(options)
    }
}

/// One query's circuit at one epoch size.
struct Stepped {
    format: Format,
    epoch: u64,
    cost: Cost,
    /// Of making Arrow batches of the input.
    read: Cost,
    state_rows: usize,
    state_bytes: usize,
    /// (node, seconds): where the time went, the longest first.
    nodes: Vec<(String, f64)>,
}

struct Outcome {
    query: String,
    /// Why it has no circuit.
    recomputed: Option<String>,
    /// None: there was not enough memory for it.
    batch: Option<Batch>,
    stepped: Vec<Stepped>,
}

/// One execution over everything.
struct Batch {
    cost: Cost,
    rows: usize,
    fingerprint: u128,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse(std::env::args().skip(1))?;
    let queries = input::queries(include_str!("queries.sql"));
    let chosen = |name: &str| options.queries.is_empty() || options.queries.iter().any(|q| q == name);
    let input = Input::generate(options.seed, options.events, &options.formats)?;
    let models = input::compile(&queries)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(options.cores).enable_all().build()?;
    println!(
        "{} events, {} core(s), CPU-seconds per million events; beside them DBSP, Flink and DataFusion as measured before, {} events",
        options.events,
        options.cores,
        figures::EVENTS
    );
    let mut header = format!("{:<5}{:>9}{:>10}{:>9}", "query", "input", "rows", "batch");
    options.epochs.iter().for_each(|epoch| header += &format!("{:>10}", format!("@{epoch}")));
    println!("{header}{:>9}{:>9}{:>9}{:>9}", "read", "DBSP", "Flink", "DF");
    let mut outcomes = Vec::new();
    for (name, model) in models.iter().filter(|(name, _)| chosen(name)) {
        let outcome = run(name, model, &input, &options, &runtime)?;
        options.formats.iter().for_each(|format| println!("{}", report::line(&outcome, *format, &options)));
        outcomes.push(outcome);
    }
    for outcome in &outcomes {
        match (&outcome.recomputed, outcome.stepped.last()) {
            (Some(why), _) => println!("{} is recomputed: {why}", outcome.query),
            (None, Some(last)) => {
                let nodes: Vec<String> = last.nodes.iter().take(4).map(|(n, s)| format!("{n} {s:.2} s")).collect();
                let per_row = last.state_bytes as f64 / last.state_rows.max(1) as f64;
                println!(
                    "{} @{}: {:.0} events/s; state {} rows, {:.0} bytes each; {}",
                    outcome.query,
                    last.epoch,
                    report::rate(&last.cost, &options),
                    last.state_rows,
                    per_row,
                    nodes.join(", ")
                );
            }
            _ => {}
        }
    }
    report::means(&outcomes, &options);
    report::goals(&outcomes, &options);
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&report::json(&outcomes, &options))?)?;
    }
    Ok(())
}

/// The whole query by DataFusion. None: there is not enough memory.
fn batch(
    model: &CompiledModel,
    input: &Input,
    options: &Options,
    runtime: &tokio::runtime::Runtime,
) -> Result<Option<Batch>, Failure> {
    let planner = Planner::new(PlannerOptions {
        target_partitions: options.cores,
        memory_limit: Some(options.batch_memory << 30),
        ..PlannerOptions::new(Dialect::DataFusion)
    })?;
    let providers = input.providers(model, options.cores)?;
    let mut cost = Cost::default();
    let collected = cost.add(|| {
        runtime.block_on(async {
            let plan = planner.bind(model, &providers)?;
            Ok::<Vec<RecordBatch>, Failure>(planner.execute(&plan).await?.try_collect().await?)
        })
    });
    let collected = match collected {
        Err(error) if format!("{error:?}").contains("Resources exhausted") => return Ok(None),
        collected => collected?,
    };
    let add = |sum: u128, rows| Ok::<u128, Failure>(sum.wrapping_add(fingerprint(model, rows, |_| 1)?));
    let fingerprint = collected.iter().try_fold(0, add)?;
    Ok(Some(Batch { cost, rows: collected.iter().map(RecordBatch::num_rows).sum(), fingerprint }))
}

fn run(
    name: &str,
    model: &Arc<CompiledModel>,
    input: &Input,
    options: &Options,
    runtime: &tokio::runtime::Runtime,
) -> Result<Outcome, Failure> {
    let planner =
        Planner::new(PlannerOptions { target_partitions: options.cores, ..PlannerOptions::new(Dialect::DataFusion) })?;
    let batch = batch(model, input, options, runtime)?;
    let mut expected = batch.as_ref().map(|batch| batch.fingerprint);
    let recomputed = model.incremental.as_ref().err().map(ToString::to_string);
    let mut outcome = Outcome { query: name.to_string(), recomputed, batch, stepped: Vec::new() };
    let Ok(tree) = &model.incremental else { return Ok(outcome) };
    for (format, epoch) in options.formats.iter().flat_map(|format| options.epochs.iter().map(|e| (*format, *e))) {
        let mut circuit = Circuit::new(name, tree, Mode::View, planner.session_state())?;
        let (mut cost, mut read, mut found) = (Cost::default(), Cost::default(), 0u128);
        for block in 0..input.blocks() {
            let epochs = read.add(|| input.epochs(model, format, epoch, block))?;
            let output = cost.add(|| {
                let mut output: Vec<SignedBatch> = Vec::new();
                for inputs in &epochs {
                    output.extend(circuit.step(inputs)?);
                }
                Ok(output)
            })?;
            for batch in &output {
                found = found.wrapping_add(fingerprint(model, &batch.rows, |i| batch.weight(i))?);
            }
        }
        if *expected.get_or_insert(found) != found {
            return Err(
                format!("{name} in epochs of {epoch} events of {} is not what it should be", format.name()).into()
            );
        }
        let mut nodes: Vec<(String, f64)> =
            circuit.metrics().iter().map(|m| (m.name.to_string(), m.elapsed.as_secs_f64())).collect();
        nodes.sort_by(|a, b| b.1.total_cmp(&a.1));
        let (state_rows, state_bytes) = (circuit.state_rows(), circuit.state_bytes());
        outcome.stepped.push(Stepped { format, epoch, cost, read, state_rows, state_bytes, nodes });
    }
    Ok(outcome)
}

/// The weighted sum of the rows' hashes: equal for equal multisets, and else but for chance not.
fn fingerprint(model: &CompiledModel, rows: &RecordBatch, weight: impl Fn(usize) -> i64) -> Result<u128, Failure> {
    let rows = to_stored(rows, &model.schema)?;
    let fields = rows.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    let encoded = RowConverter::new(fields)?.convert_columns(rows.columns())?;
    let one = |i: usize| xxhash_rust::xxh3::xxh3_128(encoded.row(i).as_ref()).wrapping_mul(weight(i) as u128);
    Ok((0..rows.num_rows()).map(one).fold(0, u128::wrapping_add))
}

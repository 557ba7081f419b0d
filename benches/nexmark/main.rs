//! Nexmark: the queries of `queries.sql` as circuits, fed with Arrow batches that are there before the clock starts; results stay in memory.
//!
//! For every query and epoch size: CPU-seconds per million events, events per second, rows and bytes of state; beside them one batch
//! execution of the same plan by DataFusion over the same batches in this process, and what DBSP (hand-written, steps of 40,000 events), Flink
//! SQL 2.2 and DataFusion 55 took for 10,000,000 events on such a 2-core machine before (`figures.rs`). Every result is compared with the batch's.
//!
//! `cargo bench --bench nexmark [-- --events 1000000 --epochs 1000,40000,1000000 --queries q4,q5 --cores 1 --seed 1 --json FILE]`
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

mod figures;
mod input;
mod measure;

use arrow::array::RecordBatch;
use arrow::row::{RowConverter, SortField};
use futures::TryStreamExt;
use smelt::operators::{Circuit, Mode};
use smelt::plan::stored::to_stored;
use smelt::plan::{CompiledModel, Planner, PlannerOptions};
use smelt::project::Dialect;
use smelt::types::SignedBatch;
use std::sync::Arc;

use figures::Figures;
use input::Input;
use measure::{Cost, measure};

type Failure = Box<dyn std::error::Error>;

/// What is run.
struct Options {
    events: u64,
    epochs: Vec<u64>,
    /// Empty: all.
    queries: Vec<String>,
    cores: usize,
    seed: u64,
    json: Option<String>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Options {
            events: 1_000_000,
            epochs: vec![1_000, 40_000, 1_000_000],
            queries: Vec::new(),
            cores: 1,
            seed: 1,
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
                "--json" => options.json = Some(value),
                other => return Err(format!("no option {other}").into()),
            }
        }
        Ok(options)
    }
}

/// One query's circuit at one epoch size.
struct Stepped {
    epoch: u64,
    cost: Cost,
    state_rows: usize,
    state_bytes: usize,
    /// (node, seconds): where the time went, the longest first.
    nodes: Vec<(String, f64)>,
}

struct Outcome {
    query: String,
    /// Why it has no circuit.
    recomputed: Option<String>,
    batch: Cost,
    rows: usize,
    stepped: Vec<Stepped>,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse(std::env::args().skip(1))?;
    let queries = input::queries(include_str!("queries.sql"));
    let chosen = |name: &str| options.queries.is_empty() || options.queries.iter().any(|q| q == name);
    let input = Input::generate(options.seed, options.events)?;
    let models = input::compile(&queries)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(options.cores).enable_all().build()?;
    println!(
        "{} events, {} core(s), CPU-seconds per million events; beside them DBSP, Flink and DataFusion as measured before, {} events",
        options.events,
        options.cores,
        figures::EVENTS
    );
    let mut header = format!("{:<5}{:>9}{:>9}{:>12}", "query", "rows", "batch", "");
    options.epochs.iter().for_each(|epoch| header += &format!("{:>10}", format!("@{epoch}")));
    println!("{header}{:>9}{:>9}{:>9}", "DBSP", "Flink", "DF");
    let mut outcomes = Vec::new();
    for (name, model) in models.iter().filter(|(name, _)| chosen(name)) {
        let outcome = run(name, model, &input, &options, &runtime)?;
        println!("{}", line(&outcome, &options));
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
                    last.cost.rate(options.events),
                    last.state_rows,
                    per_row,
                    nodes.join(", ")
                );
            }
            _ => {}
        }
    }
    summary(&outcomes, &options);
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&json(&outcomes, &options))?)?;
    }
    Ok(())
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
    let providers = input.providers(model, options.cores)?;
    let (batch, collected) = measure(|| {
        runtime.block_on(async {
            let plan = planner.bind(model, &providers)?;
            Ok::<Vec<RecordBatch>, Failure>(planner.execute(&plan).await?.try_collect().await?)
        })
    })?;
    let expected = collected
        .iter()
        .try_fold(0u128, |sum, rows| Ok::<u128, Failure>(sum.wrapping_add(fingerprint(model, rows, |_| 1)?)))?;
    let mut outcome = Outcome {
        query: name.to_string(),
        recomputed: model.incremental.as_ref().err().map(ToString::to_string),
        batch,
        rows: collected.iter().map(RecordBatch::num_rows).sum(),
        stepped: Vec::new(),
    };
    drop(collected);
    let Ok(tree) = &model.incremental else { return Ok(outcome) };
    for epoch in &options.epochs {
        let epochs = input.epochs(model, *epoch);
        let mut circuit = Circuit::new(name, tree, Mode::View, planner.session_state())?;
        let (cost, output) = measure(|| {
            let mut output: Vec<SignedBatch> = Vec::new();
            for inputs in &epochs {
                output.extend(circuit.step(inputs)?);
            }
            Ok::<_, Failure>(output)
        })?;
        let mut found = 0u128;
        for batch in &output {
            found = found.wrapping_add(fingerprint(model, &batch.rows, |i| batch.weight(i))?);
        }
        if found != expected {
            return Err(format!("{name} in epochs of {epoch} events is not what one batch gives").into());
        }
        let mut nodes: Vec<(String, f64)> =
            circuit.metrics().iter().map(|m| (m.name.to_string(), m.elapsed.as_secs_f64())).collect();
        nodes.sort_by(|a, b| b.1.total_cmp(&a.1));
        outcome.stepped.push(Stepped {
            epoch: *epoch,
            cost,
            state_rows: circuit.state_rows(),
            state_bytes: circuit.state_bytes(),
            nodes,
        });
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

fn per_million(cost: &Cost, options: &Options) -> f64 {
    cost.cpu * 1e6 / options.events as f64
}

fn line(outcome: &Outcome, options: &Options) -> String {
    let what = if outcome.recomputed.is_some() { "recomputed" } else { "maintained" };
    let batch = per_million(&outcome.batch, options);
    let mut line = format!("{:<5}{:>9}{:>9.3}{:>12}", outcome.query, outcome.rows, batch, what);
    for epoch in &options.epochs {
        let found = outcome.stepped.iter().find(|s| s.epoch == *epoch);
        line += &found.map_or_else(|| format!("{:>10}", "-"), |s| format!("{:>10.3}", per_million(&s.cost, options)));
    }
    let figures = Figures::of(&outcome.query);
    for figure in [figures.dbsp, figures.flink, figures.datafusion] {
        line += &figure.map_or_else(|| format!("{:>9}", "-"), |f| format!("{f:>9.2}"));
    }
    line
}

/// Geometric means against the stored figures, over the queries that have both and ran long enough to be measured.
fn summary(outcomes: &[Outcome], options: &Options) {
    for epoch in &options.epochs {
        let mean = |figure: fn(&Figures) -> Option<f64>| {
            let ratios: Vec<f64> = outcomes
                .iter()
                .filter_map(|o| {
                    let stepped = o.stepped.iter().find(|s| s.epoch == *epoch)?;
                    // Less than ten of the clock's steps says nothing.
                    let cpu = Some(per_million(&stepped.cost, options)).filter(|_| stepped.cost.cpu >= 0.1)?;
                    Some((cpu / figure(&Figures::of(&o.query)).filter(|f| *f > 0.0)?).ln())
                })
                .collect();
            match ratios.len() {
                0 => "-".to_string(),
                n => format!("{:.2} ({n} queries)", (ratios.iter().sum::<f64>() / n as f64).exp()),
            }
        };
        println!("@{epoch}: CPU against DBSP {}, against Flink {}", mean(|f| f.dbsp), mean(|f| f.flink));
    }
}

fn json(outcomes: &[Outcome], options: &Options) -> serde_json::Value {
    let cost = |cost: &Cost| {
        serde_json::json!({
            "cpu_seconds_per_million_events": per_million(cost, options),
            "seconds": cost.seconds,
            "events_per_second": cost.rate(options.events),
        })
    };
    let stepped = |s: &Stepped| {
        serde_json::json!({
            "epoch": s.epoch, "cost": cost(&s.cost), "state_rows": s.state_rows, "state_bytes": s.state_bytes,
            "nodes": s.nodes.iter().map(|(name, seconds)| serde_json::json!({"name": name, "seconds": seconds})).collect::<Vec<_>>(),
        })
    };
    let outcome = |o: &Outcome| {
        let figures = Figures::of(&o.query);
        serde_json::json!({
            "query": o.query, "rows": o.rows, "recomputed": o.recomputed, "batch": cost(&o.batch),
            "stepped": o.stepped.iter().map(stepped).collect::<Vec<_>>(),
            "before": {"dbsp": figures.dbsp, "flink": figures.flink, "datafusion": figures.datafusion},
        })
    };
    serde_json::json!({
        "events": options.events, "cores": options.cores, "seed": options.seed,
        "queries": outcomes.iter().map(outcome).collect::<Vec<_>>(),
    })
}

//! What a change of 1,000 rows costs over tables of 10,000 to 10,000,000 rows, and what the state of these rows takes.
//!
//! Four models over changelogs: a fact with its dimensions, a grouped aggregate, users with seven aggregates (customer 360), and the last three
//! rows of each user. Each circuit is filled, then stepped with changes of 1,000 signed rows (400 inserted, 200 deleted, 200 updated) that are spread over
//! the whole table. Beside the median time stand the bytes of state, and the Arrow bytes of the columns that the model needs.
//!
//! ```text
//! cargo bench --bench updates [-- --rows 10000,100000,1000000,10000000 --models fact,totals --changes 20 --commits yes]
//! cargo bench --bench updates -- --spill 40000,400000 [--rows 4000000 --models totals,joined --share 4]
//! ```
//!
//! `--commits yes`: the changes are committed to a Delta table besides, and that is reported apart. `--spill` measures something
//! else, in epochs of so many rows: what a limit of memory costs (`spill.rs`).
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

mod commits;
#[path = "../nexmark/measure.rs"]
mod measure;
mod models;
mod spill;
mod tables;

use smelt::operators::{Circuit, Mode};
use smelt::plan::incremental::Node;
use smelt::plan::{CompiledModel, Planner, PlannerOptions, Relation};
use smelt::project::Dialect;
use smelt::types::SignedBatch;
use std::sync::Arc;
use std::time::Instant;

use commits::Committed;
use tables::Table;

/// That of the `smelt` binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn std::error::Error>;

/// Signed rows of one change.
const CHANGE: u64 = 1_000;

struct Options {
    rows: Vec<u64>,
    /// Empty: all.
    models: Vec<String>,
    changes: u64,
    commits: bool,
    /// Rows of the epochs of a load that is spilled.
    spill: Vec<u64>,
    /// Part of the state that there is room for.
    spill_share: usize,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Options {
            rows: vec![10_000, 100_000, 1_000_000, 10_000_000],
            models: vec![],
            changes: 20,
            commits: false,
            spill: vec![],
            spill_share: 4,
        };
        while let Some(word) = words.next() {
            // What cargo adds.
            if word == "--bench" {
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            match word.as_str() {
                "--rows" => options.rows = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "--models" => options.models = value.split(',').map(String::from).collect(),
                "--changes" => options.changes = value.parse()?,
                "--commits" => options.commits = value == "yes",
                "--spill" => options.spill = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "--share" => options.spill_share = value.parse()?,
                other => return Err(format!("no option {other}").into()),
            }
        }
        Ok(options)
    }
}

fn main() -> Result<(), Failure> {
    let options = Options::parse(std::env::args().skip(1))?;
    let models = models::compile(0)?;
    if !options.spill.is_empty() {
        return spilled(&models, &options);
    }
    overhead()?;
    println!("{CHANGE} signed rows a change, {} changes; times are medians and the slowest", options.changes);
    println!(
        "{:<14}{:>10}{:>11}{:>11}{:>11}{:>11}{:>13}{:>13}{:>8}",
        "model", "rows", "fill s", "change ms", "slowest", "rows out", "state MB", "columns MB", "B/row"
    );
    for (name, model) in models.iter().filter(|(name, _)| options.models.is_empty() || options.models.contains(name)) {
        for rows in &options.rows {
            run(name, model, *rows, &options)?;
        }
    }
    Ok(())
}

/// Those that are asked for of the models whose rows have one key.
fn spilled(models: &Models, options: &Options) -> Result<(), Failure> {
    spill::header();
    for (name, model) in models {
        let asked = if options.models.is_empty() {
            name == "totals" || name == "joined"
        } else {
            options.models.contains(name)
        };
        for (rows, epoch) in options.rows.iter().flat_map(|rows| options.spill.iter().map(|e| (*rows, *e))) {
            if asked {
                spill::run(name, model, rows, epoch, options)?;
            }
        }
    }
    Ok(())
}

/// The tables a model reads, and how many of them are events.
fn model_tables(model: &CompiledModel) -> Result<(Vec<Table>, u64), Failure> {
    let tables = model.inputs.iter().map(|input| match &input.relation {
        Relation::Source(_, table) => Table::named(table).ok_or_else(|| format!("no table {table}").into()),
        other => Err(format!("{other} is no source").into()),
    });
    let tables = tables.collect::<Result<Vec<Table>, Failure>>()?;
    let facts = tables.iter().filter(|t| !t.is_dimension()).count() as u64;
    Ok((tables, facts))
}

/// What a model costs before a row is there: planning it, and an epoch without input.
fn overhead() -> Result<(), Failure> {
    const MODELS: usize = 50;
    let start = Instant::now();
    let models = models::compile(MODELS)?;
    let planned = start.elapsed().as_secs_f64() * 1e3 / models.len() as f64;
    let planner = Planner::new(PlannerOptions { target_partitions: 1, ..PlannerOptions::new(Dialect::DataFusion) })?;
    let mut circuits = Vec::new();
    let start = Instant::now();
    for (name, model) in &models {
        let tree = model.incremental.as_ref().map_err(|e| e.to_string())?;
        let mut circuit = Circuit::new(name, tree, Mode::View, planner.session_state())?;
        let inputs = vec![vec![]; model.inputs.len()];
        circuit.step(&inputs)?;
        circuits.push((circuit, inputs));
    }
    let made = start.elapsed().as_secs_f64() * 1e3 / models.len() as f64;
    let mut epochs: Vec<f64> = Vec::new();
    for _ in 0..100 {
        let start = Instant::now();
        for (circuit, inputs) in &mut circuits {
            circuit.step(inputs)?;
        }
        epochs.push(start.elapsed().as_secs_f64() * 1e3);
    }
    epochs.sort_by(f64::total_cmp);
    println!(
        "{} models: {planned:.2} ms each to load and plan, {made:.2} ms for a circuit; an empty epoch of all {:.3} ms",
        models.len(),
        epochs[epochs.len() / 2]
    );
    Ok(())
}

fn run(name: &str, model: &CompiledModel, rows: u64, options: &Options) -> Result<(), Failure> {
    let planner = Planner::new(PlannerOptions { target_partitions: 1, ..PlannerOptions::new(Dialect::DataFusion) })?;
    let tree = model.incremental.as_ref().map_err(|e| e.to_string())?;
    let mut circuit = Circuit::new(name, tree, Mode::View, planner.session_state())?;
    let (tables, facts) = model_tables(model)?;
    let base = tables.iter().map(|t| t.base(t.size(rows, facts))).collect::<Result<Vec<_>, _>>()?;
    let needed = needed(tree, &base, &mut Vec::new());
    let start = Instant::now();
    let output = circuit.step(&base)?;
    let filled = start.elapsed().as_secs_f64();
    drop(base);
    let mut committed = match options.commits {
        true => Some(Committed::new(name, model, &output)?),
        false => None,
    };
    drop(output);
    let (mut times, mut out) = (Vec::new(), 0);
    for number in 0..options.changes {
        let change = |t: &Table| -> Result<Vec<SignedBatch>, Failure> {
            if t.is_dimension() {
                Ok(vec![])
            } else {
                t.change(t.size(rows, facts), CHANGE / facts, number, options.changes)
            }
        };
        let inputs = tables.iter().map(change).collect::<Result<Vec<_>, _>>()?;
        let start = Instant::now();
        let output = circuit.step(&inputs)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        out += output.iter().map(SignedBatch::num_rows).sum::<usize>();
        if let Some(committed) = &mut committed {
            committed.change(model, &output)?;
        }
    }
    times.sort_by(f64::total_cmp);
    let megabytes = |bytes: usize| bytes as f64 / 1e6;
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    println!(
        "{name:<14}{rows:>10}{:>11.2}{median:>11.2}{:>11.2}{:>11}{:>13.1}{:>13.1}{:>8.0}",
        filled,
        times.last().copied().unwrap_or_default(),
        out as u64 / options.changes.max(1),
        megabytes(circuit.state_bytes()),
        megabytes(needed),
        circuit.state_bytes() as f64 / rows as f64,
    );
    if let Some(committed) = &committed {
        committed.report();
    }
    if std::env::var_os("SMELT_BENCH_NODES").is_some() {
        for m in circuit.metrics().iter().filter(|m| m.state_rows > 0) {
            let per_row = m.state_bytes as f64 / m.state_rows as f64;
            println!(
                "    {}: {} rows, {per_row:.0} bytes each, {:.3} s",
                m.name,
                m.state_rows,
                m.elapsed.as_secs_f64()
            );
        }
    }
    Ok(())
}

/// Arrow bytes of the columns that the plan reads; of what is shared, once. `shared`: what was met.
fn needed(tree: &Node, inputs: &[Vec<SignedBatch>], shared: &mut Vec<usize>) -> usize {
    match tree {
        Node::Input { slot, columns, .. } => {
            let bytes = |batch: &SignedBatch| -> usize {
                let column = |c: &usize| batch.rows.column(*c).to_data().get_slice_memory_size().unwrap_or(0);
                columns.iter().map(column).sum()
            };
            inputs[*slot].iter().map(bytes).sum()
        }
        Node::Shared { id, .. } if shared.contains(id) => 0,
        other => {
            if let Node::Shared { id, .. } = other {
                shared.push(*id);
            }
            other.below().into_iter().map(|node| needed(node, inputs, shared)).sum()
        }
    }
}

/// Models by name.
type Models = Vec<(String, Arc<CompiledModel>)>;

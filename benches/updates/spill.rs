//! What state takes, and what it costs when memory has room for a quarter of it: the rest is on local disk.
//!
//! A join by one key and an aggregate over changelogs are loaded in epochs of so many rows and then changed, once without a limit and once
//! with `memory_limit` at a quarter of what their state took. Both give the same rows, or this fails. A load of small epochs is the worst
//! there is: each of them touches every shard.

use arrow::row::{RowConverter, SortField};
use smelt::operators::{Circuit, Mode};
use smelt::plan::{CompiledModel, Planner, PlannerOptions};
use smelt::project::Dialect;
use smelt::types::SignedBatch;

use super::measure::Cost;
use super::tables::Table;
use super::{Failure, Options, model_tables, needed};

/// Bytes that an index may take of a row.
const ENTRY: usize = 24;
/// Changes after the load, of a hundredth of the rows each.
const CHANGES: u64 = 5;

/// What a circuit did.
struct Done {
    load: Cost,
    changes: Cost,
    state_rows: usize,
    /// The most that was in memory after an epoch.
    bytes: usize,
    /// Of everything it gave out.
    fingerprint: u128,
}

pub fn header() {
    println!(
        "{:<10}{:>10}{:>10}{:>10}{:>9}{:>9}{:>10}{:>10}{:>9}{:>10}{:>10}{:>9}",
        "model",
        "rows",
        "epoch",
        "state MB",
        "allowed",
        "limit",
        "load CPU",
        "spilled",
        "ratio",
        "change",
        "spilled",
        "ratio"
    );
}

/// `indexes`: how many the rows of its state are in.
pub fn run(name: &str, model: &CompiledModel, rows: u64, epoch: u64, options: &Options) -> Result<(), Failure> {
    let indexes = match name {
        "totals" => 1,
        "fact" => 4,
        _ => 2,
    };
    let (free, columns) = step(name, model, rows, epoch, None)?;
    let allowed = columns * 2 + free.state_rows * ENTRY * indexes;
    let limit = free.bytes / options.spill_share;
    let (bounded, _) = step(name, model, rows, epoch, Some(limit))?;
    // What is copied to every shard counts as often.
    if bounded.fingerprint != free.fingerprint || bounded.state_rows < free.state_rows {
        return Err(format!("{name} gives other rows when its state is spilled").into());
    }
    let megabytes = |bytes: usize| bytes as f64 / 1e6;
    let ratio = |free: &Cost, bounded: &Cost| free.cpu / bounded.cpu.max(1e-9);
    println!(
        "{name:<10}{rows:>10}{epoch:>10}{:>10.1}{:>9.1}{:>9.1}{:>10.2}{:>10.2}{:>9.2}{:>10.2}{:>10.2}{:>9.2}",
        megabytes(free.bytes),
        megabytes(allowed),
        megabytes(limit),
        free.load.cpu,
        bounded.load.cpu,
        ratio(&free.load, &bounded.load),
        free.changes.cpu,
        bounded.changes.cpu,
        ratio(&free.changes, &bounded.changes),
    );
    println!(
        "{:<10}{:.0} bytes of state per row, {:.0} of columns, {} rows in {indexes} index(es); seconds {:.2} and {:.2}, then {:.2} and {:.2}; at most {:.1} MB in memory",
        "",
        free.bytes as f64 / rows as f64,
        columns as f64 / rows as f64,
        free.state_rows,
        free.load.seconds,
        bounded.load.seconds,
        free.changes.seconds,
        bounded.changes.seconds,
        megabytes(bounded.bytes),
    );
    Ok(())
}

/// Loads and changes a circuit; with it, the Arrow bytes of the columns it needs.
fn step(
    name: &str,
    model: &CompiledModel,
    rows: u64,
    epoch: u64,
    memory_limit: Option<usize>,
) -> Result<(Done, usize), Failure> {
    let planner = Planner::new(PlannerOptions {
        target_partitions: 1,
        memory_limit,
        ..PlannerOptions::new(Dialect::DataFusion)
    })?;
    let tree = model.incremental.as_ref().map_err(|e| e.to_string())?;
    let mut circuit = Circuit::new(name, tree, Mode::View, planner.session_state())?;
    let (tables, facts) = model_tables(model)?;
    let mut done = Done { load: Cost::default(), changes: Cost::default(), state_rows: 0, bytes: 0, fingerprint: 0 };
    let mut columns = 0;
    for from in (0..rows).step_by(epoch as usize) {
        let of = |t: &Table| match t.is_dimension() {
            true if from > 0 => Ok(vec![]),
            true => t.base(t.size(rows, facts)),
            false => t.part(t.size(rows, facts), from / facts..(from + epoch).min(rows) / facts),
        };
        let inputs = tables.iter().map(of).collect::<Result<Vec<_>, _>>()?;
        columns += needed(tree, &inputs, &mut Vec::new());
        let output = done.load.add(|| Ok(circuit.step(&inputs)?))?;
        done.bytes = done.bytes.max(circuit.state_bytes());
        done.take(&output)?;
    }
    done.state_rows = circuit.state_rows();
    for number in 0..CHANGES {
        let change = |t: &Table| match t.is_dimension() {
            true => Ok(vec![]),
            false => t.change(t.size(rows, facts), rows / 100 / facts, number, CHANGES),
        };
        let inputs = tables.iter().map(change).collect::<Result<Vec<_>, _>>()?;
        let output = done.changes.add(|| Ok(circuit.step(&inputs)?))?;
        done.take(&output)?;
    }
    Ok((done, columns))
}

impl Done {
    /// Adds the weighted sum of the rows' hashes.
    fn take(&mut self, output: &[SignedBatch]) -> Result<(), Failure> {
        for batch in output {
            let fields = batch.rows.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
            let encoded = RowConverter::new(fields)?.convert_columns(batch.rows.columns())?;
            let hash = |i: usize| xxhash_rust::xxh3::xxh3_128(encoded.row(i).as_ref());
            for i in 0..batch.num_rows() {
                self.fingerprint = self.fingerprint.wrapping_add(hash(i).wrapping_mul(batch.weight(i) as u128));
            }
        }
        Ok(())
    }
}

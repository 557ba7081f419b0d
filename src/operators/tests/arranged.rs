//! Joins of several models that keep the same rows keep them once, and go their ways: one steps in every epoch, another later with the changes of several, is
//! made anew, or comes back from stored bytes.

#![allow(clippy::disallowed_methods)]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::cases::Case;
use super::changes::{Rows, batches};
use super::contents::Multiset;
use super::oracle::{Oracle, compiled_together, negated, seeds};
use super::queries::Generator;
use super::tables::{Row, TABLES, Value, signed_batch};
use crate::operators::{Circuit, Mode};
use crate::plan::incremental::Node;
use crate::plan::{CompiledModel, Planner, PlannerOptions};
use crate::project::Dialect;
use crate::types::SignedBatch;

/// What joins below `node` keep with others.
#[derive(Debug, PartialEq)]
struct Place {
    name: String,
    /// Whether that is more than they need.
    is_wider: bool,
    /// Whether its rows stay.
    only_grows: bool,
}

fn arrangements(node: &Node, found: &mut Vec<Place>) {
    if let Node::Arranged { input, shown, arrangement, .. } = node {
        let is_wider = shown.len() < input.schema().fields().len();
        found.push(Place { name: arrangement.name.to_string(), is_wider, only_grows: input.is_append_only() });
    }
    node.below().into_iter().for_each(|below| arrangements(below, found));
}

/// One model of several.
struct Reader {
    oracle: Oracle,
    circuit: Circuit,
    /// Changes it has not seen.
    behind: Vec<Vec<SignedBatch>>,
    total: Multiset,
}

impl Reader {
    fn catch_up(&mut self) -> Result<(), String> {
        let behind = std::mem::replace(&mut self.behind, vec![vec![]; self.oracle.tables.len()]);
        let output = self.circuit.step(&behind).map_err(|e| format!("{e:?}"))?;
        self.oracle.contents.add_signed(&mut self.total, &output);
        Ok(())
    }
}

/// What models of a case keep together.
#[derive(Debug, Default, Clone, Copy)]
struct Found {
    places: usize,
    /// Those that do not need all columns of what they keep.
    wider: usize,
    /// Those whose rows stay.
    logs: usize,
    /// Those of these that do not need all columns.
    wider_logs: usize,
}

/// Two models of one query, one of another, and one that needs whole rows, over the same changes.
async fn run(seed: u64, case: Case) -> Result<Found, String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x0a44_a46e);
    let other = Generator::new(&mut rng).query(1).sql;
    // One that needs all columns of a table that the others may need some of.
    let read: Vec<&str> =
        TABLES.iter().map(|t| t.name).filter(|name| case.sql.contains(&format!("\"src\".\"{name}\""))).collect();
    let table = read[rng.random_range(0..read.len())];
    let by = match table {
        "bb" => "k2",
        "c" => "s",
        _ => "k1",
    };
    let whole = format!(
        "select x.*, t.id as other from \"src\".\"{table}\" as x left join \"src\".\"t\" as t on t.{by} = x.{by}"
    );
    let models = compiled_together(&[&case.sql, &case.sql, &other, &whole], &case.append_only);
    let mut found = Vec::new();
    models.iter().filter_map(|m| m.incremental.as_ref().ok()).for_each(|plan| arrangements(plan, &mut found));
    let count = |is: fn(&Place) -> bool| found.iter().filter(|place| is(place)).count();
    let found = Found {
        places: found.len(),
        wider: count(|place| place.is_wider),
        logs: count(|place| place.only_grows),
        wider_logs: count(|place| place.only_grows && place.is_wider),
    };
    if found.places == 0 {
        return Ok(found);
    }
    let (threads, limit) = (rng.random_range(1..4), [None, None, Some(1 << 30)][rng.random_range(0..3)]);
    let options =
        PlannerOptions { target_partitions: threads, memory_limit: limit, ..PlannerOptions::new(Dialect::DataFusion) };
    let planner = Arc::new(Planner::new(options).unwrap());
    let maintained = models.into_iter().filter(|m| m.incremental.is_ok());
    let mut readers: Vec<Reader> = maintained
        .map(|model| {
            let oracle = Oracle::executed_by(model, Arc::clone(&planner));
            let behind = vec![vec![]; oracle.tables.len()];
            Reader { circuit: oracle.circuit(Mode::View), oracle, behind, total: Multiset::new() }
        })
        .collect();
    let mut rows: BTreeMap<&str, Rows> = TABLES.iter().map(|t| (t.name, Rows::default())).collect();
    for (number, epoch) in case.epochs.iter().enumerate() {
        for change in &epoch.changes {
            rows.get_mut(change.table.as_str()).unwrap().apply(&change.row, change.weight);
        }
        let present = |oracle: &Oracle| -> Vec<Vec<Row>> {
            oracle.tables.iter().map(|t| rows[t.name].all().into_iter().cloned().collect()).collect()
        };
        for (at, reader) in readers.iter_mut().enumerate() {
            let failed = |e: String| format!("epoch {number}, reader {at}: {e}");
            for (slot, table) in reader.oracle.tables.iter().enumerate() {
                let schema = &reader.oracle.model.inputs[slot].schema;
                reader.behind[slot].extend(batches(table, schema, &epoch.changes));
            }
            match rng.random_range(0..10) {
                0 => continue,
                1 => {
                    reader.circuit = reader.oracle.circuit(Mode::View);
                    reader.total.clear();
                    reader.behind = reader.oracle.all(&present(&reader.oracle), 1);
                }
                2 | 3 => reader.circuit = reader.oracle.restored(&mut reader.circuit, Mode::View),
                _ => {}
            }
            reader.catch_up().map_err(failed)?;
            if let Some(expected) = reader.oracle.expected(&present(&reader.oracle)).await
                && reader.total != expected
            {
                return Err(failed(reader.oracle.contents.difference(&reader.total, &expected)));
            }
        }
    }
    let retracts = case.append_only.is_empty();
    for reader in readers.iter_mut().filter(|_| retracts) {
        let all: Vec<Vec<Row>> =
            reader.oracle.tables.iter().map(|t| rows[t.name].all().into_iter().cloned().collect()).collect();
        for (behind, all) in reader.behind.iter_mut().zip(reader.oracle.all(&all, -1)) {
            behind.extend(all);
        }
        reader.catch_up()?;
        let mut fresh = reader.oracle.circuit(Mode::View);
        fresh.step(&vec![vec![]; reader.oracle.tables.len()]).unwrap();
        if reader.circuit.state_rows() != fresh.state_rows() {
            return Err(format!("state is left: {:#?}", reader.circuit.metrics()));
        }
    }
    Ok(found)
}

#[test]
fn joins_that_keep_rows_together_are_right_wherever_each_of_them_stands() {
    let [shared, wider, ..] = all(seeds("0..120"), Case::random);
    assert!(shared > 0 && wider > 0);
}

#[test]
fn joins_that_keep_rows_together_that_stay_are_right_wherever_each_of_them_stands() {
    let [_, _, logs, wider] = all(seeds("0..80"), Case::growing);
    assert!(logs > 0 && wider > 0);
}

/// Of how many queries joins keep rows together, with columns that they do not need; the same of rows that stay.
fn all(seeds: std::ops::Range<u64>, case: fn(u64) -> Case) -> [usize; 4] {
    let (mut failed, mut counts) = (Vec::new(), [0; 4]);
    for seed in seeds {
        let one = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(seed, case(seed)));
        match one {
            Ok(Found { places, wider, logs, wider_logs }) => {
                counts.iter_mut().zip([places, wider, logs, wider_logs]).for_each(|(n, of)| *n += usize::from(of > 0));
            }
            Err(why) => failed.push((seed, why)),
        }
    }
    let [shared, wider, logs, wider_logs] = counts;
    println!(
        "{shared} of the queries keep rows together, {wider} with columns they do not need; {logs} and {wider_logs} rows that stay"
    );
    assert!(failed.is_empty(), "{failed:#?}");
    counts
}

const ORDERS: &str = "select t.id, t.s, a.an from \"src\".\"t\" as t join \"src\".\"a\" as a on t.k1 = a.k1";
const TOTALS: &str =
    "select a.an, count(*) as n from \"src\".\"a\" as a left join \"src\".\"bb\" as bb on a.k1 = bb.k2 group by a.an";

/// A change of all inputs of `oracle`: rows with these ids, texts long enough to count.
fn long_rows(oracle: &Oracle, ids: std::ops::Range<i64>, weight: i64) -> Vec<Vec<SignedBatch>> {
    let of = |slot: usize| {
        let table = oracle.tables[slot];
        let row = |id: i64| -> Row {
            let value = |(_, kind): &(&str, super::tables::Kind)| match kind {
                super::tables::Kind::Int => Value::Int(id),
                super::tables::Kind::Text => Value::Text(format!("{id:0>200}")),
                _ => Value::Null,
            };
            table.columns.iter().map(value).collect()
        };
        let rows: Vec<(Row, i64)> = ids.clone().map(|id| (row(id), weight)).collect();
        vec![signed_batch(table, &oracle.model.inputs[slot].schema, &rows)]
    };
    (0..oracle.tables.len()).map(of).collect()
}

#[test]
fn models_that_keep_rows_together_may_step_at_once() {
    step_at_once(&[], Some(6));
}

#[test]
fn models_that_keep_rows_together_that_stay_may_step_at_once() {
    step_at_once(&["t", "a", "bb"], None);
}

/// Rows of `append_only` tables stay; of the others all go from time to time, for the first time after epoch `gone`.
fn step_at_once(append_only: &[&str], gone: Option<i64>) {
    let append_only: Vec<String> = append_only.iter().map(|name| name.to_string()).collect();
    let models = compiled_together(&[ORDERS, TOTALS, ORDERS, TOTALS], &append_only);
    let options = PlannerOptions { target_partitions: 2, ..PlannerOptions::new(Dialect::DataFusion) };
    let planner = Arc::new(Planner::new(options).unwrap());
    let rows = std::thread::scope(|scope| {
        let steps = |model: &Arc<CompiledModel>| {
            let oracle = Oracle::executed_by(Arc::clone(model), Arc::clone(&planner));
            move || {
                let mut circuit = oracle.circuit(Mode::View);
                let mut total = Multiset::new();
                let mut present: Vec<Vec<SignedBatch>> = vec![vec![]; oracle.tables.len()];
                for epoch in 0..40 {
                    let mut change = long_rows(&oracle, epoch * 5..epoch * 5 + 30, 1);
                    if Some(epoch % 7) == gone {
                        // All of it goes, by turns with what the others still have.
                        change = present.iter().map(|all| negated(all.clone())).collect();
                        present.iter_mut().for_each(Vec::clear);
                    } else {
                        present.iter_mut().zip(&change).for_each(|(all, new)| all.extend(new.iter().cloned()));
                    }
                    oracle.contents.add_signed(&mut total, &circuit.step(&change).unwrap());
                    if epoch % 11 == 3 {
                        circuit = oracle.restored(&mut circuit, Mode::View);
                    }
                }
                (circuit.state_rows(), total)
            }
        };
        let running: Vec<_> = models.iter().map(|model| scope.spawn(steps(model))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(rows[0].0 > 0 && !rows[0].1.is_empty());
    assert!(rows[0] == rows[2] && rows[1] == rows[3]);
}

#[test]
fn a_dimension_of_several_models_is_kept_once() {
    let models = compiled_together(&[ORDERS, TOTALS, ORDERS], &[]);
    let names = |model: usize| {
        let mut found = Vec::new();
        arrangements(models[model].incremental.as_ref().unwrap(), &mut found);
        found
    };
    // Both inputs of the first and the third; nothing else reads `bb`, and the columns of `a` are those that all three need.
    assert_eq!((names(0).len(), names(2)), (2, names(0)));
    let planner = Arc::new(Planner::new(PlannerOptions::new(Dialect::DataFusion)).unwrap());
    let oracles: Vec<Oracle> =
        models.iter().map(|model| Oracle::executed_by(Arc::clone(model), Arc::clone(&planner))).collect();
    let circuit = |at: usize| {
        let mut circuit = oracles[at].circuit(Mode::View);
        circuit.step(&long_rows(&oracles[at], 0..2_000, 1)).unwrap();
        circuit
    };
    let bytes = |circuits: &[&Circuit]| circuits.iter().map(|c| c.state_bytes()).sum::<usize>();
    let first = circuit(0);
    let alone = first.state_bytes();
    let third = circuit(2);
    let both = bytes(&[&first, &third]);
    assert!(both < alone * 5 / 4, "{both} bytes of two, {alone} of one");
    // A second one's key indexes are its own; its rows are not.
    drop(first);
    assert!(third.state_bytes() <= alone && third.state_bytes() > alone * 9 / 10);
}

#[test]
fn rows_that_stay_are_kept_once_as_long_as_they_come_in_one_order() {
    let append_only: Vec<String> = ["t", "a", "bb"].map(String::from).to_vec();
    let models = compiled_together(&[ORDERS, TOTALS, ORDERS, ORDERS], &append_only);
    let names = |model: usize| {
        let mut found = Vec::new();
        arrangements(models[model].incremental.as_ref().unwrap(), &mut found);
        found
    };
    assert!(names(0).len() == 2 && names(0) == names(2) && names(0).iter().all(|place| place.only_grows));
    let planner = Arc::new(Planner::new(PlannerOptions::new(Dialect::DataFusion)).unwrap());
    let oracles: Vec<Oracle> =
        models.iter().map(|model| Oracle::executed_by(Arc::clone(model), Arc::clone(&planner))).collect();
    let bytes = |circuits: &[&Circuit]| circuits.iter().map(|c| c.state_bytes()).sum::<usize>();
    let circuit = |at: usize, epochs: &[std::ops::Range<i64>]| {
        let (mut circuit, mut total) = (oracles[at].circuit(Mode::View), Multiset::new());
        for epoch in epochs {
            let output = circuit.step(&long_rows(&oracles[at], epoch.clone(), 1)).unwrap();
            oracles[at].contents.add_signed(&mut total, &output);
        }
        (circuit, total)
    };
    let (mut first, total) = circuit(0, &[0..1_000, 1_000..2_000]);
    let alone = first.state_bytes();
    // In other epochs, but one order; and from stored bytes.
    let (third, same) = circuit(2, &[0..500, 500..2_000]);
    let back = oracles[3].restored(&mut first, Mode::View);
    let all = bytes(&[&first, &third, &back]);
    assert!(all < alone * 3 / 2 && same == total, "{all} bytes of three, {alone} of one");
    // In another order: a state of its own.
    let (turned, same) = circuit(3, &[1_000..2_000, 0..1_000]);
    assert!(turned.state_bytes() > alone * 9 / 10 && same == total);
    // One that goes on in its own way parts from the others, which stay as they are.
    let mut back = back;
    let (mut after, mut expected) = (Multiset::new(), Multiset::new());
    let step = |circuit: &mut Circuit, at: usize, ids: std::ops::Range<i64>, total: &mut Multiset| {
        let output = circuit.step(&long_rows(&oracles[at], ids, 1)).unwrap();
        oracles[at].contents.add_signed(total, &output);
    };
    let mut first = first;
    step(&mut first, 0, 2_000..2_100, &mut expected);
    step(&mut back, 3, 2_050..2_100, &mut after);
    step(&mut back, 3, 2_000..2_050, &mut after);
    assert!(after == expected && !after.is_empty());
    drop((first, third));
    assert!(back.state_bytes() > alone * 9 / 10);
}

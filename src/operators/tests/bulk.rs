//! What an epoch costs: stepped, with a new circuit over everything, or recomputed by the stock plan and compared.
//!
//! `cargo test bulk::costs -- --ignored --nocapture`. The ratios are the constants of `runtime::bulk`.

#![allow(clippy::disallowed_methods)]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Instant;

use super::contents::Multiset;
use super::oracle::Oracle;
use super::tables::{Row, Value, row, signed_batch};
use crate::operators::{Mode, consolidate};
use crate::types::SignedBatch;

const ROWS: usize = 100_000;

const QUERIES: [(&str, &str); 4] = [
    ("aggregate", "select k1, count(*) as n, sum(d) as d, max(id) as id from \"src\".\"t\" group by k1"),
    (
        "star join",
        "select t.id, t.f, a.an, b.bn from \"src\".\"t\" as t left join \"src\".\"a\" as a on t.k1 = a.k1 left join \"src\".\"bb\" as b on t.k2 = b.k2",
    ),
    ("distinct", "select distinct k1, id from \"src\".\"t\""),
    (
        "row_number",
        "select id, k1 from (select id, k1, row_number() over (partition by k1 order by ts desc) as n from \"src\".\"t\") as x where n = 1",
    ),
];

/// Facts with ids of their own and `keys` keys; one row per key in the dimensions.
fn rows(oracle: &Oracle, from: usize, count: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<Row>> {
    let keys = ROWS as i64 / 10;
    let table = |t: &&super::tables::Table| -> Vec<Row> {
        let fact = t.name == "t";
        let count = if fact {
            count
        } else if from == 0 {
            keys as usize
        } else {
            0
        };
        (0..count)
            .map(|i| {
                let mut new = row(t, rng);
                let mut key = |i: usize| Value::Int(if fact { rng.random_range(0..keys) } else { i as i64 });
                (new[0], new[1]) =
                    if fact { (Value::Int((from + i) as i64), key(i)) } else { (key(i), new[1].clone()) };
                if fact {
                    new[2] = key(i);
                }
                new
            })
            .collect()
    };
    oracle.tables.iter().map(table).collect()
}

fn signed(oracle: &Oracle, rows: &[Vec<Row>], weight: i64) -> Vec<Vec<SignedBatch>> {
    let one = |(i, rows): (usize, &Vec<Row>)| {
        let weighted: Vec<(Row, i64)> = rows.iter().map(|r| (r.clone(), weight)).collect();
        vec![signed_batch(oracle.tables[i], &oracle.model.inputs[i].schema, &weighted)]
    };
    rows.iter().enumerate().map(one).collect()
}

#[test]
#[ignore = "a measurement"]
fn costs() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    println!(
        "ns per row: step of the change, new circuit over all rows, stock plan over all rows, comparison per result row"
    );
    for (name, sql) in QUERIES {
        for share in [5, 20, 50, 100, 200] {
            for retracts in [false, true] {
                let oracle = Oracle::new(sql);
                let rng = &mut ChaCha8Rng::seed_from_u64(share as u64);
                let base = rows(&oracle, 0, ROWS, rng);
                let mut circuit = oracle.circuit(Mode::View);
                let old = circuit.step(&signed(&oracle, &base, 1)).unwrap();
                // Half of the change takes rows away, or none.
                let added = ROWS * share / if retracts { 200 } else { 100 };
                let mut change = signed(&oracle, &rows(&oracle, ROWS, added, rng), 1);
                if retracts {
                    let gone: Vec<Vec<Row>> = base
                        .iter()
                        .zip(&oracle.tables)
                        .map(|(r, t)| r.iter().take(if t.name == "t" { added } else { 0 }).cloned().collect())
                        .collect();
                    signed(&oracle, &gone, -1).into_iter().zip(&mut change).for_each(|(g, c)| c.extend(g));
                }
                let rows_in: usize = change.iter().flatten().map(SignedBatch::num_rows).sum();
                let start = Instant::now();
                let delta = circuit.step(&change).unwrap();
                let step = start.elapsed();

                let mut all = signed(&oracle, &base, 1);
                all.iter_mut().zip(change).zip(&oracle.model.inputs).for_each(|((a, c), input)| {
                    a.extend(c);
                    *a = consolidate(&input.schema, std::mem::take(a)).unwrap();
                });
                let full: usize = all.iter().flatten().map(SignedBatch::num_rows).sum();
                let start = Instant::now();
                let rebuilt = oracle.circuit(Mode::View).step(&all).unwrap();
                let rebuild = start.elapsed();
                let plan = oracle.bound(&all);
                let start = Instant::now();
                let new = runtime.block_on(oracle.collect(&plan));
                let stock = start.elapsed();
                let results = new.iter().chain(old.iter().map(|b| &b.rows)).map(|b| b.num_rows()).sum::<usize>();
                let compared: Vec<SignedBatch> =
                    new.iter().cloned().map(SignedBatch::inserts).chain(old.iter().map(negated)).collect();
                let stored: Vec<SignedBatch> = compared.into_iter().map(|b| oracle.stored(b)).collect();
                let start = Instant::now();
                let difference = consolidate(&oracle.model.schema, stored).unwrap();
                let compare = start.elapsed();

                let sum = |parts: &[&[SignedBatch]]| {
                    let mut total = Multiset::new();
                    parts.iter().for_each(|p| oracle.contents.add_signed(&mut total, p));
                    total
                };
                assert!(sum(&[&delta]) == sum(&[&difference]), "{name} {share} %: the two paths differ");
                assert!(sum(&[&old, &delta]) == sum(&[&rebuilt]), "{name} {share} %: a new circuit differs");
                let per = |time: std::time::Duration, rows: usize| time.as_nanos() as usize / rows.max(1);
                println!(
                    "{name:>10} {share:>3} % {} step {:>6} ({:>4} ms)  new {:>6} ({:>4} ms)  stock {:>5} ({:>4} ms)  compare {:>5} ({:>4} ms)",
                    if retracts { "±" } else { "+" },
                    per(step, rows_in),
                    step.as_millis(),
                    per(rebuild, full),
                    rebuild.as_millis(),
                    per(stock, full),
                    stock.as_millis(),
                    per(compare, results),
                    compare.as_millis(),
                );
            }
        }
    }
}

fn negated(batch: &SignedBatch) -> SignedBatch {
    let weights = (0..batch.num_rows()).map(|i| -batch.weight(i)).collect::<Vec<i64>>();
    SignedBatch::new(batch.rows.clone(), weights.into()).unwrap()
}

//! What a change of ten rows costs in groups of all sizes.
//!
//! `cargo test aggregates::costs -- --ignored --nocapture`.

#![allow(clippy::disallowed_methods)]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Instant;

use crate::operators::Mode;
use crate::operators::tests::oracle::Oracle;
use crate::operators::tests::tables::{Row, Value, row, signed_batch};

const CALLS: [&str; 12] = [
    "sum(f)",
    "stddev(f)",
    "corr(f, id)",
    "bit_or(id)",
    "bit_xor(distinct id)",
    "count(distinct id)",
    "sum(distinct f)",
    "max(id)",
    "median(id)",
    "first_value(s order by id)",
    "approx_distinct(id)",
    "array_agg(id)",
];

const SIZES: [usize; 3] = [1_000, 10_000, 50_000];

#[test]
#[ignore = "a measurement"]
fn of_ten_rows() {
    println!("µs per epoch of ten rows, by rows of the group: {SIZES:?}");
    for call in CALLS {
        let oracle = Oracle::new(&format!("select {call} as c from \"src\".\"t\" as t"));
        let (table, schema) = (oracle.tables[0], &oracle.model.inputs[0].schema);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut some = |count: usize| -> Vec<Row> {
            let one = |_| {
                let mut row = row(table, &mut rng);
                (row[0], row[4]) =
                    (Value::Int(rng.random_range(0..1 << 40)), Value::Float(rng.random_range(-1e6..1e6)));
                row
            };
            (0..count).map(one).collect()
        };
        let mut circuit = oracle.circuit(Mode::View);
        let mut line = String::new();
        let mut held = 0;
        for size in SIZES {
            let signed = |rows: &[Row], weight: i64| {
                let rows: Vec<(Row, i64)> = rows.iter().map(|row| (row.clone(), weight)).collect();
                vec![vec![signed_batch(table, schema, &rows)]]
            };
            circuit.step(&signed(&some(size - held), 1)).unwrap();
            held = size;
            let change = some(10);
            let mut times: Vec<u128> = Vec::new();
            for weight in [1, -1, 1, -1, 1, -1, 1, -1] {
                let change = signed(&change, weight);
                let start = Instant::now();
                circuit.step(&change).unwrap();
                times.push(start.elapsed().as_micros());
            }
            times.sort_unstable();
            line.push_str(&format!("{:>9}", times[times.len() / 2]));
        }
        println!("{call:<28}{line}   {} bytes/row", circuit.state_bytes() / held);
    }
}

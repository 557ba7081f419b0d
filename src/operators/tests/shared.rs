//! What a query reads in several places is computed, and remembered, once.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::contents::Multiset;
use super::oracle::Oracle;
use super::tables::{Row, row, signed_batch};
use crate::operators::{Circuit, Mode};
use crate::types::SignedBatch;

/// Hot items: counts, and those that are the most of their group.
const HOT: &str = "with counts as (select k1, k2, count(*) as n from \"src\".\"t\" as t group by k1, k2) \
     select c.k1, c.k2, c.n from counts as c join (select k1, max(n) as n from counts group by k1) as m \
     on c.k1 = m.k1 and c.n >= m.n";

fn inputs(oracle: &Oracle, seed: u64, weight: i64) -> Vec<Vec<SignedBatch>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let one = |i: usize| {
        let table = oracle.tables[i];
        let rows: Vec<(Row, i64)> = (0..80).map(|_| (row(table, &mut rng), weight)).collect();
        vec![signed_batch(table, &oracle.model.inputs[i].schema, &rows)]
    };
    (0..oracle.tables.len()).map(one).collect()
}

fn names(circuit: &Circuit) -> Vec<String> {
    circuit.metrics().iter().map(|m| format!("{}{}", "  ".repeat(m.depth), m.name)).collect()
}

#[test]
fn a_named_query_that_is_read_twice_has_one_node() {
    let oracle = Oracle::new(HOT);
    let mut circuit = oracle.circuit(Mode::View);
    circuit.step(&inputs(&oracle, 1, 1)).unwrap();
    let names = names(&circuit);
    let count = |name: &str| names.iter().filter(|n| n.trim() == name).count();
    assert_eq!((count("shared"), count("input"), count("aggregate")), (2, 1, 2), "{names:#?}");
    // Figures count it once: its groups are rows of state once.
    let metrics = circuit.metrics();
    let read: u64 = metrics.iter().filter(|m| m.name == "input").map(|m| m.rows_out).sum();
    assert_eq!(read, 80);
    assert_eq!(circuit.state_rows(), metrics.iter().map(|m| m.state_rows).sum::<usize>());
    assert_eq!(circuit.state_bytes(), metrics.iter().map(|m| m.state_bytes).sum::<usize>());
}

#[test]
fn what_is_below_the_shared_may_be_shared_too() {
    let oracle = Oracle::new(
        "with a as (select k1, count(*) as n from \"src\".\"t\" as t group by k1), \
         b as (select x.k1, y.n from a as x join a as y on x.n = y.k1) \
         select * from b union all select n, k1 from b union all select k1, n from a",
    );
    let mut circuit = oracle.circuit(Mode::View);
    assert_eq!(names(&circuit).iter().filter(|n| n.trim() == "aggregate").count(), 1);
    assert_eq!(names(&circuit).iter().filter(|n| n.trim() == "join").count(), 1);
    let mut total = Multiset::new();
    for (seed, weight) in [(1, 1), (2, 1), (1, -1)] {
        oracle.contents.add_signed(&mut total, &circuit.step(&inputs(&oracle, seed, weight)).unwrap());
        circuit = oracle.restored(&mut circuit, Mode::View);
    }
    let mut fresh = oracle.circuit(Mode::View);
    let mut expected = Multiset::new();
    oracle.contents.add_signed(&mut expected, &fresh.step(&inputs(&oracle, 2, 1)).unwrap());
    assert!(!expected.is_empty());
    assert_eq!(total, expected);
    assert_eq!(circuit.state_rows(), fresh.state_rows());
    oracle.contents.add_signed(&mut total, &circuit.step(&inputs(&oracle, 2, -1)).unwrap());
    assert!(total.is_empty());
    assert_eq!((circuit.state_rows(), circuit.metrics().len()), (0, fresh.metrics().len()));
}

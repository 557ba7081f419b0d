//! Aggregates over input that is never retracted keep less, and say the same.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::error::ErrorKind;
use crate::operators::tests::contents::Multiset;
use crate::operators::tests::oracle::Oracle;
use crate::operators::tests::tables::{Row, row, signed_batch};
use crate::operators::{Circuit, Mode};
use crate::plan::incremental::Node;
use crate::state::{StateReader, StateWriter};
use crate::types::SignedBatch;

const SQL: &str = "select k1, min(id) as a, max(f) as b, max(s) as c, min(st) as d, first_value(s order by ts desc, id) as e, \
     last_value(f order by ts, id) ignore nulls as g, last_value(li order by ts desc) as h, count(distinct s) as i, median(id) as j, \
     nth_value(s, 2 order by ts) as k, min(d) filter (where b) as l from \"src\".\"t\" as t group by rollup (k1)";

/// The same plan over input that is known to be append-only.
fn append_only(node: &mut Node) {
    match node {
        Node::Aggregate { aggregates, .. } => aggregates.iter_mut().for_each(|a| a.append_only = true),
        Node::Project { input, .. } => append_only(input),
        other => panic!("{other:?}"),
    }
}

fn change(oracle: &Oracle, rng: &mut ChaCha8Rng, count: usize, weight: i64) -> Vec<Vec<SignedBatch>> {
    let rows: Vec<(Row, i64)> = (0..count).map(|_| (row(oracle.tables[0], rng), weight)).collect();
    vec![vec![signed_batch(oracle.tables[0], &oracle.model.inputs[0].schema, &rows)]]
}

#[test]
fn one_value_per_group_is_enough() {
    let oracle = Oracle::new(SQL);
    let mut plan = oracle.model.incremental.clone().unwrap();
    append_only(&mut plan);
    let circuit = || Circuit::new("v", &plan, Mode::View, oracle.planner.session_state()).unwrap();
    let (mut running, mut ordinary) = (circuit(), oracle.circuit(Mode::View));
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for epoch in 0..12 {
        let change = change(&oracle, &mut rng, 3 * epoch, 1);
        let (mut one, mut other) = (Multiset::new(), Multiset::new());
        oracle.contents.add_signed(&mut one, &running.step(&change).unwrap());
        oracle.contents.add_signed(&mut other, &ordinary.step(&change).unwrap());
        assert_eq!(one, other, "epoch {epoch}: {}", oracle.contents.difference(&one, &other));
        if epoch % 3 == 2 {
            let mut state = StateWriter::new();
            running.save(&mut state).unwrap();
            running = circuit();
            running.restore(&mut StateReader::new(state.finish(), 1)).unwrap();
        }
    }
    assert!(running.state_rows() < ordinary.state_rows() / 2, "{} {}", running.state_rows(), ordinary.state_rows());
    // What was thought impossible is noticed: the model is computed anew.
    let error = running.step(&change(&oracle, &mut ChaCha8Rng::seed_from_u64(5), 1, -1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Diverged);
}

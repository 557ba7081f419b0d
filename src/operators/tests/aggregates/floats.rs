//! Sums of doubles after millions of retractions, against rational numbers.

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, new_null_array};
use arrow::datatypes::{Float64Type, i256};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

use crate::operators::tests::oracle::Oracle;
use crate::operators::{Circuit, Mode};
use crate::types::SignedBatch;

/// Values are integers in units of this: 2⁻²⁰.
const UNIT: f64 = 1.0 / (1 << 20) as f64;

/// An integer of up to 53 bits, of any length: as a double, anything between 2⁻²⁰ and 2³³.
fn any(rng: &mut ChaCha8Rng) -> i64 {
    let value = (rng.random::<u64>() >> 11) >> rng.random_range(0..53);
    if rng.random() { value as i64 } else { -(value as i64) }
}

/// A double that is a whole number of units.
fn units(value: f64, unit: f64) -> i256 {
    let bits = value.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i64 - 1075 - (unit.to_bits() >> 52) as i64 + 1023;
    let mantissa = i256::from_i128(i128::from(bits & ((1 << 52) - 1) | 1 << 52));
    let magnitude = match (value == 0.0, exponent < 0) {
        (true, _) => i256::ZERO,
        (_, true) => mantissa >> u8::try_from(-exponent).unwrap(),
        (_, false) => mantissa << u8::try_from(exponent).unwrap(),
    };
    if value < 0.0 { -magnitude } else { magnitude }
}

fn abs(value: i256) -> i256 {
    if value < i256::ZERO { -value } else { value }
}

fn wide(value: i64) -> i256 {
    i256::from_i128(i128::from(value))
}

fn step(oracle: &Oracle, circuit: &mut Circuit, values: &[i64], weights: Vec<i64>) -> Vec<SignedBatch> {
    let schema = &oracle.model.inputs[0].schema;
    let column = |field: &Arc<arrow::datatypes::Field>| -> ArrayRef {
        match field.name().as_str() {
            "f" => Arc::new(Float64Array::from_iter_values(values.iter().map(|v| *v as f64 * UNIT))),
            _ => new_null_array(field.data_type(), values.len()),
        }
    };
    let rows = RecordBatch::try_new(Arc::clone(schema), schema.fields().iter().map(column).collect()).unwrap();
    circuit.step(&[vec![SignedBatch::new(rows, Int64Array::from(weights)).unwrap()]]).unwrap()
}

#[test]
fn sums_averages_and_variances_are_exact_after_two_million_retractions() {
    let sql = "select sum(f) as s, avg(f) as a, var_pop(f) as v, sum(distinct f) as d, median(f) as m from \"src\".\"t\" as t";
    let oracle = Oracle::new(sql);
    let mut circuit = oracle.circuit(Mode::View);
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut present: Vec<i64> = Vec::new();
    let mut output = Vec::new();
    // Larger at times than what stays, by seven orders of magnitude.
    for _ in 0..40 {
        let (mut values, mut weights) = (Vec::with_capacity(100_000), Vec::with_capacity(100_000));
        for _ in 0..51_000 {
            let value = any(&mut rng);
            present.push(value);
            values.push(value);
            weights.push(1);
        }
        for _ in 0..50_000 {
            values.push(present.swap_remove(rng.random_range(0..present.len())));
            weights.push(-1);
        }
        output = step(&oracle, &mut circuit, &values, weights);
    }
    let last = output.iter().rev().find(|batch| batch.weight(0) == 1).unwrap();
    let got: Vec<f64> = (0..5).map(|c| last.rows.column(c).as_primitive::<Float64Type>().value(0)).collect();

    let count = present.len() as i64;
    let exact = present.iter().fold(i256::ZERO, |sum, v| sum + wide(*v));
    let absolute = present.iter().fold(i256::ZERO, |sum, v| sum + wide(v.abs()));
    let bound = i256::from_i128(1_000_000_000_000);
    // |got − exact| ≤ 1e-12 · Σ|x|
    assert!(abs(units(got[0], UNIT) - exact) * bound <= absolute, "sum {}", got[0]);
    // In finer units, since it is a quotient; both sides times the count.
    let fine = UNIT / (1u64 << 40) as f64;
    let scale = wide(1 << 40);
    let average = abs(units(got[1], fine) * wide(count) - exact * scale);
    assert!(average * bound <= absolute * scale, "avg {}", got[1]);
    // n² · var = n · Σx² − (Σx)², in squares of units: relative to Σx², since nothing is lost to cancellation.
    let squares = present.iter().fold(i256::ZERO, |sum, v| sum + wide(*v) * wide(*v));
    let exact_spread = squares * wide(count) - exact * exact;
    let spread = units(got[2], UNIT * UNIT) * wide(count) * wide(count);
    assert!(abs(spread - exact_spread) / wide(count) * bound <= exact_spread / wide(count), "var {}", got[2]);
    let mut distinct = present.clone();
    distinct.sort_unstable();
    let middle =
        |values: &[i64]| (values[(values.len() - 1) / 2] as f64 * UNIT + values[values.len() / 2] as f64 * UNIT) / 2.0;
    assert_eq!(got[4], middle(&distinct));
    distinct.dedup();
    let exact = distinct.iter().fold(i256::ZERO, |sum, v| sum + wide(*v));
    assert!(abs(units(got[3], UNIT) - exact) * bound <= absolute, "sum(distinct) {}", got[3]);

    // And nothing is left of them.
    let weights = vec![-1; present.len()];
    step(&oracle, &mut circuit, &present, weights);
    assert_eq!(circuit.state_rows(), 0, "{:?}", circuit.metrics());
    assert!(circuit.state_bytes() < 10_000, "{:?}", circuit.metrics());
}

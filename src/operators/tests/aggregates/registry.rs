//! Every aggregate function a session knows: maintained as stock execution has it, and forgotten when its rows are gone.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

use crate::operators::Mode;
use crate::operators::tests::cases::Case;
use crate::operators::tests::oracle::{Oracle, failing};
use crate::operators::tests::tables::{Row, Value, row, signed_batch};
use crate::plan::{Planner, PlannerOptions};
use crate::project::Dialect;

/// Calls of each function. `{d}` stands for DISTINCT or nothing, `{o}` for ORDER BY or nothing.
const CALLS: &[(&str, &[&str])] = &[
    ("any_value", &["any_value(s{o})"]),
    ("approx_distinct", &["approx_distinct(s)", "approx_distinct(id + k1)"]),
    ("approx_median", &["approx_median(id)", "approx_median(f)"]),
    (
        "approx_percentile_cont",
        &[
            "approx_percentile_cont(0.3) within group (order by id)",
            "approx_percentile_cont(0.3, 50) within group (order by id desc)",
        ],
    ),
    (
        "approx_percentile_cont_with_weight",
        &["approx_percentile_cont_with_weight(k1 + 1, 0.4) within group (order by id)"],
    ),
    (
        "array_agg",
        &[
            "array_agg(s{o})",
            "array_agg(distinct s)",
            "array_agg(distinct s order by s desc)",
            "array_agg(st)",
            "array_agg(id) filter (where id > 90)",
        ],
    ),
    ("avg", &["avg({d}id)", "avg({d}f)", "cast(avg({d}d) as decimal(12,4))"]),
    ("bit_and", &["bit_and({d}id)", "bit_and(-id)", "bit_and(cast(k1 as smallint))"]),
    ("bit_or", &["bit_or({d}id)", "bit_or(-id)", "bit_or(cast(k1 as smallint))"]),
    ("bit_xor", &["bit_xor({d}id)", "bit_xor({d}-id)", "bit_xor(cast(k1 as smallint))"]),
    ("bool_and", &["bool_and({d}b)", "bool_and(id > 1)"]),
    ("bool_or", &["bool_or({d}b)", "bool_or(id > 6)"]),
    ("corr", &["corr(f, id)", "corr(id, k1)"]),
    (
        "count",
        &[
            "count(*)",
            "count(1)",
            "count({d}s)",
            "count({d}f)",
            "count({d}d)",
            "count({d}st)",
            "count({d}li)",
            "count(id, f)",
            "count(distinct id + k1)",
        ],
    ),
    ("covar_pop", &["covar_pop(f, id)", "covar_pop(id, k1)"]),
    ("covar_samp", &["covar_samp(f, id)", "covar_samp(id, k1)"]),
    (
        "first_value",
        &[
            "first_value(s{o})",
            "first_value(f{o}) ignore nulls",
            "first_value(st{o})",
            "first_value(id order by s, id)",
        ],
    ),
    ("grouping", &["grouping(k1)", "grouping(b)", "grouping(k1, b)"]),
    (
        "last_value",
        &["last_value(s{o})", "last_value(f{o}) ignore nulls", "last_value(li{o})", "last_value(id order by s, id)"],
    ),
    ("max", &["max({d}id)", "max(s)", "max(f)", "max(d)", "max(ts)", "max(day)", "max(b)", "max(id + k1)"]),
    (
        "median",
        &[
            "median({d}id)",
            "median({d}f)",
            "median({d}case when b then f else -f end)",
            "cast(median({d}d) as decimal(12,4))",
        ],
    ),
    ("min", &["min({d}id)", "min(s)", "min(f)", "min(d)", "min(ts)", "min(day)", "min(b)", "min(id + k1)"]),
    ("nth_value", &["nth_value(s, 2{o})", "nth_value(id, -1{o})", "nth_value(f, 3{o})"]),
    (
        "percentile_cont",
        &[
            "percentile_cont(0.3) within group (order by f)",
            "percentile_cont(0.3) within group (order by id desc)",
            "percentile_cont(0) within group (order by f)",
            "percentile_cont(1) within group (order by id)",
            "percentile_cont(distinct id, 0.7)",
        ],
    ),
    ("regr_avgx", &["regr_avgx(f, id)"]),
    ("regr_avgy", &["regr_avgy(f, id)"]),
    ("regr_count", &["regr_count(f, id)"]),
    ("regr_intercept", &["regr_intercept(f, id)"]),
    ("regr_r2", &["regr_r2(f, id)"]),
    ("regr_slope", &["regr_slope(f, id)"]),
    ("regr_sxx", &["regr_sxx(f, id)"]),
    ("regr_sxy", &["regr_sxy(f, id)"]),
    ("regr_syy", &["regr_syy(f, id)"]),
    ("stddev", &["stddev({d}f)", "stddev({d}id)"]),
    ("stddev_pop", &["stddev_pop({d}f)", "stddev_pop({d}id)"]),
    (
        "string_agg",
        &["string_agg(s, ','{o})", "string_agg(distinct s, ',')", "string_agg(distinct s, ',' order by s desc)"],
    ),
    ("sum", &["sum({d}id)", "sum({d}f)", "cast(sum({d}d) as decimal(12,2))", "sum({d}id + k1)"]),
    (
        "try_sum",
        &[
            "try_sum({d}id)",
            "try_sum({d}f)",
            "cast(try_sum({d}d) as decimal(12,2))",
            "try_sum(9223372036854770000 - id)",
        ],
    ),
    ("var_pop", &["var_pop({d}f)", "var_pop({d}id)"]),
    ("var", &["var({d}f)", "var({d}id)"]),
];

/// All calls of a function, expanded.
fn calls(of: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for call in of {
        for order in ["", " order by ts desc nulls last, id"] {
            for distinct in ["", "distinct "] {
                let call = call.replace("{d}", distinct).replace("{o}", order);
                if !all.contains(&call) {
                    all.push(call);
                }
            }
        }
    }
    all
}

fn list(calls: &[String], filter: &str) -> String {
    // A call that has a filter keeps it.
    let call =
        |(i, call): (usize, &String)| match call.contains("filter") || !call.ends_with(')') || call.starts_with("cast")
        {
            true => format!("{call} as c{i}"),
            false => format!("{call}{filter} as c{i}"),
        };
    calls.iter().enumerate().map(call).collect::<Vec<_>>().join(", ")
}

/// The functions that a session has, by their first names.
fn registered() -> BTreeSet<String> {
    let planner = Planner::new(PlannerOptions::new(Dialect::DataFusion)).unwrap();
    planner.session_state().aggregate_functions().values().map(|f| f.name().to_string()).collect()
}

#[test]
fn every_function_is_tried() {
    let tried: BTreeSet<String> = CALLS.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(tried, registered(), "a function is new, or gone: say in CALLS how it is called");
}

#[test]
fn every_function_is_maintained_as_stock_execution_has_it() {
    let mut failed = Vec::new();
    for (seed, (name, of)) in (1_000..).step_by(10).zip(CALLS) {
        let calls = calls(of);
        let (plain, filtered) = (list(&calls, ""), list(&calls, " filter (where id > 2 or b)"));
        let mut queries =
            vec![format!("select k1, b, {plain} from \"src\".\"t\" as t group by cube (k1, b) having count(*) <> 2")];
        if *name != "grouping" {
            queries.push(format!("select k1, {filtered} from \"src\".\"t\" as t group by k1"));
            queries.push(format!("select {plain} from \"src\".\"t\" as t"));
        }
        let count = queries.len();
        let cases = queries.into_iter().zip(seed..).map(|(sql, seed)| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            Case::of(seed, sql, &mut rng)
        });
        let (wrong, maintained) = failing(cases);
        if !wrong.is_empty() || maintained != count {
            failed.push(format!("{name}: {wrong:?}, {maintained} of {count} maintained"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn nothing_is_left_of_rows_that_are_retracted() {
    for (name, of) in CALLS.iter().filter(|(name, _)| *name != "grouping") {
        let oracle = Oracle::new(&format!("select k1, {} from \"src\".\"t\" as t group by k1", list(&calls(of), "")));
        let table = oracle.tables[0];
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        // All values are distinct, or the like.
        let rows: Vec<Row> = (0..2_000)
            .map(|i| {
                let mut row = row(table, &mut rng);
                (row[0], row[4], row[5]) = (Value::Int(i), Value::Float(i as f64 / 7.0), Value::Int(i));
                row
            })
            .collect();
        let step = |circuit: &mut crate::operators::Circuit, weight: i64| {
            let signed: Vec<(Row, i64)> = rows.iter().map(|row| (row.clone(), weight)).collect();
            circuit.step(&[vec![signed_batch(table, &oracle.model.inputs[0].schema, &signed)]]).unwrap();
        };
        let mut circuit = oracle.circuit(Mode::View);
        step(&mut circuit, 1);
        let (rows_held, bytes_held) = (circuit.state_rows(), circuit.state_bytes());
        assert!(rows_held >= 9, "{name}: {rows_held} rows");
        step(&mut circuit, -1);
        assert_eq!(circuit.state_rows(), 0, "{name}: {:?}", circuit.metrics());
        // Room for nine groups, and what they were.
        let left = circuit.state_bytes();
        assert!(left < 16_000, "{name}: {left} of {bytes_held} bytes are left");
    }
}

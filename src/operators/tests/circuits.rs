//! What circuits promise beyond their results.

use super::contents::Multiset;
use super::oracle::Oracle;
use super::tables::{Row, TABLES, Value, signed_batch};
use crate::error::ErrorKind;
use crate::operators::{Circuit, Mode};
use crate::types::SignedBatch;

/// A row of the table `name` with these integers first, NULL elsewhere.
pub(super) fn ints(name: &str, values: &[i64]) -> Row {
    let width = TABLES.iter().find(|t| t.name == name).unwrap().columns.len();
    let mut row: Row = values.iter().map(|v| Value::Int(*v)).collect();
    row.resize(width, Value::Null);
    row
}

/// One epoch: signed rows by table.
pub(super) fn epoch(oracle: &Oracle, rows: &[(&str, Row, i64)]) -> Vec<Vec<SignedBatch>> {
    let input = |i: usize| {
        let table = oracle.tables[i];
        let signed: Vec<(Row, i64)> =
            rows.iter().filter(|(name, ..)| *name == table.name).map(|(_, row, w)| (row.clone(), *w)).collect();
        if signed.is_empty() { vec![] } else { vec![signed_batch(table, &oracle.model.inputs[i].schema, &signed)] }
    };
    (0..oracle.tables.len()).map(input).collect()
}

fn slot(oracle: &Oracle, name: &str) -> usize {
    oracle.tables.iter().position(|t| t.name == name).unwrap()
}

/// The change as sorted lines of `weight: values`.
fn step(circuit: &mut Circuit, oracle: &Oracle, rows: &[(&str, Row, i64)]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in circuit.step(&epoch(oracle, rows)).unwrap() {
        for i in 0..batch.num_rows() {
            let value = |c: &arrow::array::ArrayRef| {
                if c.is_null(i) {
                    return "NULL".to_string();
                }
                arrow::util::display::array_value_to_string(c, i).unwrap()
            };
            let values: Vec<String> = batch.rows.columns().iter().map(value).collect();
            lines.push(format!("{:+}: {}", batch.weight(i), values.join(" ")));
        }
    }
    lines.sort();
    lines
}

#[test]
fn a_star_keeps_each_row_once() {
    let oracle = Oracle::new(
        "select f.id, d1.av as v1, d2.an as v2, d3.bn as v3, d4.cv as v4, d5.av as v5, d6.an as v6 from \"src\".\"t\" as f \
         left join \"src\".\"a\" as d1 on f.k1 = d1.k1 left join \"src\".\"a\" as d2 on f.k2 = d2.k1 \
         left join \"src\".\"bb\" as d3 on f.k2 = d3.k2 left join \"src\".\"c\" as d4 on f.s = d4.s \
         left join \"src\".\"a\" as d5 on f.k1 = d5.k1 and d5.av > 3 left join \"src\".\"a\" as d6 on f.id = d6.k1",
    );
    let mut circuit = oracle.circuit(Mode::View);
    let facts: Vec<(&str, Row, i64)> = (0..1000).map(|i| ("t", ints("t", &[i, i % 5, i % 3]), 1)).collect();
    assert_eq!(step(&mut circuit, &oracle, &facts).len(), 1000);
    assert_eq!(circuit.state_rows(), 1000);
    let joins = circuit.metrics().iter().filter(|m| m.name == "join").count();
    assert_eq!(joins, 1, "a star is one node");
    // Of a late dimension row no more is kept than the row, by each arm that takes it.
    let late = step(&mut circuit, &oracle, &[("a", ints("a", &[1]), 1)]);
    assert_eq!(circuit.state_rows(), 1000 + 3);
    // NULL values: nothing to be seen from outside changes.
    assert!(late.is_empty(), "{late:?}");
}

#[test]
fn a_stream_meets_dimensions_as_they_are() {
    let oracle = Oracle::new(
        "select f.id, d.av from \"src\".\"t\" as f left join \"src\".\"a\" as d on f.k1 = d.k1 where f.id > 0",
    );
    let dimension = |v: i64| {
        let mut row = ints("a", &[1]);
        row[2] = Value::Int(v);
        row
    };
    let mut circuit = oracle.circuit(Mode::Stream { slot: slot(&oracle, "t") });
    assert_eq!(step(&mut circuit, &oracle, &[("t", ints("t", &[1, 1]), 1)]), ["+1: 1 NULL"]);
    // In one epoch the dimension comes first.
    let both = [("t", ints("t", &[2, 1]), 1), ("a", dimension(10), 1)];
    assert_eq!(step(&mut circuit, &oracle, &both), ["+1: 2 10"]);
    let replaced = [("a", dimension(10), -1), ("a", dimension(20), 1)];
    assert!(step(&mut circuit, &oracle, &replaced).is_empty());
    let twice = [("t", ints("t", &[3, 1]), 1), ("t", ints("t", &[3, 1]), 1), ("t", ints("t", &[0, 1]), 1)];
    assert_eq!(step(&mut circuit, &oracle, &twice), ["+1: 3 20", "+1: 3 20"]);
    assert_eq!(circuit.state_rows(), 1, "a stream is not kept");
}

#[test]
fn a_stream_asks_dimensions_for_what_they_have() {
    let of_stream = |condition: &str, epochs: &[&[(&str, Row, i64)]]| -> Vec<Vec<String>> {
        let oracle = Oracle::new(&format!("select f.id from \"src\".\"t\" as f where f.id > 0 and {condition}"));
        let mut circuit = oracle.circuit(Mode::Stream { slot: slot(&oracle, "t") });
        epochs.iter().map(|rows| step(&mut circuit, &oracle, rows)).collect()
    };
    let null = || {
        let mut row = ints("t", &[2]);
        row[1] = Value::Null;
        row
    };
    // A known key, an unknown one, and none.
    let asked = || [("t", ints("t", &[1, 1]), 1), ("t", ints("t", &[3, 3]), 1), ("t", null(), 1)];
    let epochs = |dimension: Row| -> [Vec<(&'static str, Row, i64)>; 3] {
        [asked().to_vec(), vec![("a", ints("a", &[1]), 1), ("a", dimension, 1)], asked().to_vec()]
    };
    let of = |condition: &str, dimension: Row| {
        let epochs = epochs(dimension);
        let [before, alone, after] =
            <[Vec<String>; 3]>::try_from(of_stream(condition, &epochs.each_ref().map(Vec::as_slice))).unwrap();
        assert!(alone.is_empty(), "a dimension's change is no row of the stream");
        (before, after)
    };
    let lines = |ids: &[i64]| -> Vec<String> { ids.iter().map(|id| format!("+1: {id}")).collect() };
    let other = || ints("a", &[7]);
    let exists = "exists (select 1 from \"src\".\"a\" as d where d.k1 = f.k1)";
    assert_eq!(of(exists, other()), (lines(&[]), lines(&[1])));
    assert_eq!(of(&format!("not {exists}"), other()), (lines(&[1, 2, 3]), lines(&[2, 3])));
    assert_eq!(of(&format!("(f.id = 3 or {exists})"), other()), (lines(&[3]), lines(&[1, 3])));
    let further = "not exists (select 1 from \"src\".\"a\" as d where d.k1 = f.k1 and d.k1 + f.id < 3)";
    assert_eq!(of(further, other()), (lines(&[1, 2, 3]), lines(&[2, 3])));
    let not_in = "f.k1 not in (select d.k1 from \"src\".\"a\" as d)";
    assert_eq!(of(not_in, other()), (lines(&[1, 2, 3]), lines(&[3])));
    // Whether an unknown value is among them is unknown.
    assert_eq!(of(not_in, ints("a", &[])), (lines(&[1, 2, 3]), lines(&[])));
}

#[test]
fn the_first_row_of_a_stream_stays() {
    let oracle = Oracle::new(
        "select id, k1 from (select *, row_number() over (partition by k1 order by id) as n from \"src\".\"t\" as f) as x where n = 1",
    );
    let mut circuit = oracle.circuit(Mode::Stream { slot: 0 });
    let rows = [("t", ints("t", &[7, 1]), 1), ("t", ints("t", &[5, 1]), 1), ("t", ints("t", &[9, 2]), 1)];
    assert_eq!(step(&mut circuit, &oracle, &rows), ["+1: 5 1", "+1: 9 2"]);
    let later = [("t", ints("t", &[1, 1]), 1), ("t", ints("t", &[1, 3]), 1)];
    assert_eq!(step(&mut circuit, &oracle, &later), ["+1: 1 3"]);
    assert_eq!(circuit.state_rows(), 3);
    // The same query as a view corrects itself.
    let mut view = oracle.circuit(Mode::View);
    step(&mut view, &oracle, &rows);
    assert_eq!(step(&mut view, &oracle, &later), ["+1: 1 1", "+1: 1 3", "-1: 5 1"]);
}

#[test]
fn a_sum_that_does_not_fit_is_an_error_and_the_circuit_is_done() {
    let oracle = Oracle::new("select sum(id) as s from \"src\".\"t\" as f");
    let mut circuit = oracle.circuit(Mode::View);
    let big = |w| ("t", ints("t", &[i64::MAX]), w);
    assert_eq!(step(&mut circuit, &oracle, &[big(1)]), [format!("+1: {}", i64::MAX)]);
    let error = circuit.step(&epoch(&oracle, &[big(1)])).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::User, "overflow"));
    assert_eq!(circuit.step(&epoch(&oracle, &[])).unwrap_err().kind(), ErrorKind::Diverged);
    // Sums that only pass through a large value fit.
    let mut circuit = oracle.circuit(Mode::View);
    assert_eq!(step(&mut circuit, &oracle, &[big(2), big(-1), big(1), big(-1)]), [format!("+1: {}", i64::MAX)]);
}

#[test]
fn a_retraction_of_nothing_is_noticed_by_every_operator() {
    for sql in [
        "select f.id, d.av from \"src\".\"t\" as f left join \"src\".\"a\" as d on f.k1 = d.k1",
        "select f.id, d.av from \"src\".\"a\" as d join \"src\".\"t\" as f on f.k1 = d.k1",
        "select f.id, d.av from \"src\".\"a\" as d full join \"src\".\"t\" as f on f.k1 = d.k1",
        "select f.id from \"src\".\"t\" as f where f.k1 in (select d.k1 from \"src\".\"a\" as d)",
        "select d.k1 from \"src\".\"a\" as d where d.k1 not in (select f.k1 from \"src\".\"t\" as f)",
        "select id, count(*) as n from \"src\".\"t\" as f group by id",
        "select min(id) as n from \"src\".\"t\" as f",
        "select string_agg(cast(id as varchar), ',') as n from \"src\".\"t\" as f",
        "select distinct id from \"src\".\"t\" as f",
        "select id from (select id, row_number() over (partition by k1 order by id) as n from \"src\".\"t\" as f) as x where n = 1",
    ] {
        let oracle = Oracle::new(sql);
        let mut circuit = oracle.circuit(Mode::View);
        step(&mut circuit, &oracle, &[("t", ints("t", &[1, 1]), 1)]);
        let missing = circuit.step(&epoch(&oracle, &[("t", ints("t", &[2, 2]), -1)]));
        assert_eq!(missing.map(|_| ()).map_err(|e| e.kind()), Err(ErrorKind::Diverged), "{sql}");
    }
}

#[test]
fn an_unchanged_group_says_nothing() {
    let oracle = Oracle::new("select k1, max(id) as m from \"src\".\"t\" as f group by k1");
    let mut circuit = oracle.circuit(Mode::View);
    let row = |id, k| ints("t", &[id, k]);
    step(&mut circuit, &oracle, &[("t", row(9, 1), 1), ("t", row(3, 2), 1)]);
    assert!(step(&mut circuit, &oracle, &[("t", row(5, 1), 1)]).is_empty());
    assert_eq!(
        step(&mut circuit, &oracle, &[("t", row(9, 1), -1), ("t", row(3, 2), -1)]),
        ["+1: 1 5", "-1: 1 9", "-1: 2 3"]
    );
}

#[test]
fn float_sums_do_not_drift() {
    let oracle = Oracle::new("select sum(f) as s, avg(f) as a from \"src\".\"t\" as x");
    let row = |f: f64| {
        let mut row = ints("t", &[]);
        row[4] = Value::Float(f);
        row
    };
    let mut circuit = oracle.circuit(Mode::View);
    let mut total = Multiset::new();
    let mut rows = vec![];
    for f in [1e16, 1.0, 0.1, -3.7, 1e-300] {
        rows.push(("t", row(f), 1));
    }
    oracle.contents.add_signed(&mut total, &circuit.step(&epoch(&oracle, &rows)).unwrap());
    oracle.contents.add_signed(
        &mut total,
        &circuit.step(&epoch(&oracle, &[("t", row(1e16), -1), ("t", row(f64::NAN), 1)])).unwrap(),
    );
    oracle.contents.add_signed(&mut total, &circuit.step(&epoch(&oracle, &[("t", row(f64::NAN), -1)])).unwrap());
    let left = vec![vec![row(1.0), row(0.1), row(-3.7), row(1e-300)]];
    let expected = tokio::runtime::Runtime::new().unwrap().block_on(oracle.expected(&left)).unwrap();
    assert!(total == expected, "{}", oracle.contents.difference(&total, &expected));
}

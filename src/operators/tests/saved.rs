//! Stored state: a circuit that got it back goes on as the one that wrote it.
//!
//! The oracle does this between random epochs of random views; here are streams, keyed tables, memory, and bytes that an earlier
//! version wrote.

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use std::path::PathBuf;
use std::sync::Arc;

use super::contents::Multiset;
use super::oracle::Oracle;
use super::tables::{Row, TABLES, Value, row, signed_batch};
use crate::operators::{Circuit, Keyed, Mode};
use crate::plan::shape;
use crate::state::{Directory, FORMAT, Header, Packing, StateReader, StateWriter, decode, encode};
use crate::types::SignedBatch;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A query with every kind of stateful node and every class of aggregate.
const EVERYTHING: &str = "select x.s, count(*) as n, count(distinct x.id) as d, sum(x.id) as i, sum(x.f) as f, avg(x.f) as af, sum(x.d) as de, \
     avg(x.d) as ad, min(x.s) as lo, max(x.ts) as hi, bool_and(x.id > 3) as ba, bool_or(x.id > 3) as bo, max(y.av) as av, max(z.bn) as zb \
     from (select *, row_number() over (partition by k1, k2 order by id desc) as r from \"src\".\"t\" as t) as x \
     left join \"src\".\"a\" as y on x.k1 = y.k1 and y.av > x.id join (select distinct k2, bn from \"src\".\"bb\") as z on x.k2 = z.k2 \
     where r = 1 group by x.s";

/// Windows of every reach, over one another.
const WINDOWS: &str = "select *, sum(n) over (partition by k2 order by id rows between 1 preceding and 1 following) as around, rank() over (order by f) as place \
     from (select id, k1, k2, f, row_number() over (partition by k1 order by ts) as n, lag(s) over (partition by k1 order by id) as before from \"src\".\"t\" as t) as x \
     where n <= 3";

/// Sessions of rows, and groups of them.
const SESSIONS: &str = "select id, window_start, window_end from session(\"src\".\"t\", ts, interval '2 hours', k1) union all \
     select count(*) as id, window_start, window_end from session(\"src\".\"t\", ts, interval '1 hour', k2, b) group by k2, b, window_start, window_end";

/// Rows of every input, made up from `seed`.
fn inputs(oracle: &Oracle, seed: u64, weight: i64) -> Vec<Vec<SignedBatch>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let one = |i: usize| {
        let table = oracle.tables[i];
        let rows: Vec<(Row, i64)> = (0..60).map(|_| (row(table, &mut rng), weight)).collect();
        vec![signed_batch(table, &oracle.model.inputs[i].schema, &rows)]
    };
    (0..oracle.tables.len()).map(one).collect()
}

fn stepped(oracle: &Oracle, circuit: &mut Circuit, inputs: &[Vec<SignedBatch>]) -> Multiset {
    let mut total = Multiset::new();
    oracle.contents.add_signed(&mut total, &circuit.step(inputs).unwrap());
    total
}

#[test]
fn a_query_with_every_stateful_node_goes_on() {
    goes_on(EVERYTHING, &["aggregate", "first row", "join"]);
    goes_on(WINDOWS, &["window"]);
    goes_on(SESSIONS, &["session", "aggregate"]);
}

/// A circuit of `sql`, which has nodes of these names.
fn goes_on(sql: &str, nodes: &[&str]) {
    let oracle = Oracle::new(sql);
    let mut circuit = oracle.circuit(Mode::View);
    for name in nodes {
        assert!(circuit.metrics().iter().any(|m| m.name == *name), "{name}: {:?}", circuit.metrics());
    }
    for epoch in 0..4 {
        stepped(&oracle, &mut circuit, &inputs(&oracle, epoch, 1));
    }
    let mut restored = oracle.restored(&mut circuit, Mode::View);
    assert_eq!(restored.state_rows(), circuit.state_rows());
    // What is retracted was inserted before the state was stored.
    for (seed, weight) in [(9, 1), (0, -1), (9, -1), (2, -1)] {
        let change = inputs(&oracle, seed, weight);
        let output = stepped(&oracle, &mut restored, &change);
        assert!(!output.is_empty());
        assert_eq!(output, stepped(&oracle, &mut circuit, &change));
    }
    for seed in [1, 3] {
        stepped(&oracle, &mut restored, &inputs(&oracle, seed, -1));
    }
    assert_eq!(restored.state_rows(), 0, "nothing leaks: {:#?}", restored.metrics());
}

#[test]
fn state_of_the_accounted_size_comes_back() {
    let oracle = Oracle::new(EVERYTHING);
    let mut circuit = oracle.circuit(Mode::View);
    for epoch in 0..20 {
        stepped(&oracle, &mut circuit, &inputs(&oracle, epoch, 1));
    }
    let restored = oracle.restored(&mut circuit, Mode::View);
    let (was, is) = (circuit.state_bytes() as f64, restored.state_bytes() as f64);
    assert!(is < was * 1.3 && is > was * 0.5, "{was} bytes became {is}");
    // What cannot be dealt out cannot be spilled.
    let sql = "select count(distinct id) as n, sum(f) as f from \"src\".\"t\"";
    let (large, small) = (Oracle::new(sql), Oracle::within(sql, Some(200)));
    let mut circuit = large.circuit(Mode::View);
    for epoch in 0..20 {
        stepped(&large, &mut circuit, &inputs(&large, epoch, 1));
    }
    let mut state = StateWriter::new();
    circuit.save(&mut state).unwrap();
    let error = small.circuit(Mode::View).restore(&mut StateReader::new(state.finish(), 2)).unwrap_err();
    assert_eq!(error.code(), "memory-limit");
}

#[test]
fn a_stream_remembers_its_dimensions_and_what_it_has_seen() {
    let oracle = Oracle::new(
        "select x.id, x.k1, d.av from (select *, row_number() over (partition by k1 order by id) as n from \"src\".\"t\" as f) as x \
         left join \"src\".\"a\" as d on x.k1 = d.k1 where x.n = 1",
    );
    let stream = oracle.tables.iter().position(|t| t.name == "t").unwrap();
    let mode = Mode::Stream { slot: stream };
    let mut circuit = oracle.circuit(mode);
    stepped(&oracle, &mut circuit, &inputs(&oracle, 1, 1));
    let mut restored = oracle.restored(&mut circuit, mode);
    let change = inputs(&oracle, 2, 1);
    assert_eq!(stepped(&oracle, &mut restored, &change), stepped(&oracle, &mut circuit, &change));
    let width = TABLES.iter().find(|t| t.name == "t").unwrap().columns.len();
    let mut new: Row = vec![Value::Null; width];
    (new[0], new[1]) = (Value::Int(1), Value::Int(4_000));
    let mut once = vec![vec![]; oracle.tables.len()];
    once[stream] = vec![signed_batch(oracle.tables[stream], &oracle.model.inputs[stream].schema, &[(new, 1)])];
    assert_eq!(stepped(&oracle, &mut restored, &once).len(), 1);
    assert_eq!(stepped(&oracle, &mut oracle.restored(&mut restored, mode), &once).len(), 0, "its key was seen");
}

#[test]
fn a_keyed_table_knows_its_rows_again() {
    let schema =
        Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("city", DataType::Utf8, true)]));
    let rows = |ids: &[i64], cities: &[&str]| {
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(Int64Array::from(ids.to_vec())), Arc::new(StringArray::from(cities.to_vec()))];
        RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
    };
    let mut keyed = Keyed::new(Arc::clone(&schema), vec![0]).unwrap();
    keyed.load(&[rows(&[1, 2, 3], &["Oslo", "Turin", "Graz"])]).unwrap();
    keyed.apply(&rows(&[2], &[""]).project(&[0]).unwrap(), &[]).unwrap();
    let mut state = StateWriter::new();
    keyed.save(&mut state);
    let mut restored = Keyed::new(Arc::clone(&schema), vec![0]).unwrap();
    restored.restore(&mut StateReader::new(state.finish(), 2)).unwrap();
    assert_eq!((restored.state_rows(), restored.state_bytes() > 0), (2, true));
    let (touched, new) = (rows(&[1, 2, 3], &["", "", ""]).project(&[0]).unwrap(), rows(&[1, 2], &["Bergen", "Turin"]));
    let shown = |keyed: &mut Keyed| format!("{:?}", keyed.apply(&touched, std::slice::from_ref(&new)).unwrap());
    assert_eq!(shown(&mut restored), shown(&mut keyed));
}

fn fixture(format: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/operators/tests/saved/format-{format}.state"))
}

/// Each file was written by the version that introduced its format. Whoever changes the format gives it a new number and leaves the
/// files alone; then this test must show that the old number is named and rejected, or read.
#[test]
#[allow(clippy::disallowed_methods)]
fn bytes_of_every_format_are_read_or_rejected_by_name() {
    let oracle = Oracle::new(EVERYTHING);
    let mut circuit = oracle.circuit(Mode::View);
    for epoch in 0..2 {
        stepped(&oracle, &mut circuit, &inputs(&oracle, epoch, 1));
    }
    let plan = shape(oracle.model.incremental.as_ref().unwrap());
    if std::env::var("SMELT_UPDATE_GOLDEN").is_ok() && !fixture(FORMAT).exists() {
        let mut state = StateWriter::new();
        circuit.save(&mut state).unwrap();
        let arrow = arrow::ARROW_VERSION.to_string();
        let header = Header { model: "v".into(), plan: plan.clone(), arrow, ..Header::default() };
        std::fs::create_dir_all(fixture(FORMAT).parent().unwrap()).unwrap();
        std::fs::write(fixture(FORMAT), encode(&header, state.finish(), Packing::Compressed, 1).unwrap().concat())
            .unwrap();
    }
    for format in 1..FORMAT {
        let stored = std::fs::read(fixture(format)).unwrap();
        assert_eq!(stored[8..12], format.to_le_bytes(), "the fixture is of format {format}");
        let error = Directory::read(&stored).unwrap_err();
        assert_eq!(error.message(), format!("it has format {format}; this version reads format {FORMAT}"));
    }
    let stored = std::fs::read(fixture(FORMAT)).unwrap();
    let found = Directory::read(&stored).unwrap().header;
    assert_eq!(found.model, "v");
    if (found.arrow.as_str(), &found.plan) != (arrow::ARROW_VERSION, &plan) {
        // The header says so: such state is rebuilt, whatever is inside.
        return;
    }
    let (_, sections) = decode(&stored.into()).unwrap();
    let mut reader = StateReader::new(sections, 2);
    let mut restored = oracle.circuit(Mode::View);
    restored.restore(&mut reader).unwrap();
    reader.finish().unwrap();
    for (seed, weight) in [(7, 1), (0, -1)] {
        let change = inputs(&oracle, seed, weight);
        assert_eq!(stepped(&oracle, &mut restored, &change), stepped(&oracle, &mut circuit, &change));
    }
}

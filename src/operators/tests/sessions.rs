//! Sessions: what a change touches, by hand; and sessions that are written once, when the watermark has passed them.

use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimestampMicrosecondType};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::oracle::Oracle;
use super::stock_sessions::in_stock_functions;
use super::tables::{Row, TABLES, Value, signed_batch};
use crate::operators::{Circuit, Known, Mode, texts};
use crate::plan::tests::project::{compile_all, model};
use crate::plan::{CompiledModel, Planner, PlannerOptions};
use crate::project::{Dialect, Materialization, Watermark};
use crate::types::SignedBatch;

const MINUTE: i64 = 60_000_000;

/// A row of `t`: id, k1, and minutes.
fn event(id: i64, key: Option<i64>, at: Option<i64>) -> Row {
    let table = TABLES.iter().find(|t| t.name == "t").unwrap();
    let mut row: Row = vec![Value::Null; table.columns.len()];
    row[0] = Value::Int(id);
    row[1] = key.map_or(Value::Null, Value::Int);
    row[7] = at.map_or(Value::Null, |at| Value::Int(at * MINUTE));
    row
}

/// The change as sorted lines of `weight: values`, times in minutes.
fn step(circuit: &mut Circuit, oracle: &Oracle, rows: &[(Row, i64)]) -> Vec<String> {
    let input = vec![vec![signed_batch(oracle.tables[0], &oracle.model.inputs[0].schema, rows)]];
    let mut lines = Vec::new();
    for batch in circuit.step(&input).unwrap() {
        for i in 0..batch.num_rows() {
            let value = |c: &ArrayRef| match c.data_type() {
                _ if c.is_null(i) => "NULL".to_string(),
                DataType::Timestamp(..) => (c.as_primitive::<TimestampMicrosecondType>().value(i) / MINUTE).to_string(),
                _ => c.as_primitive::<Int64Type>().value(i).to_string(),
            };
            let values: Vec<String> = batch.rows.columns().iter().map(value).collect();
            lines.push(format!("{:+}: {}", batch.weight(i), values.join(" ")));
        }
    }
    lines.sort();
    lines
}

const ROWS: &str = "select id, window_start, window_end from session(\"src\".\"t\", ts, interval '10 minutes', k1)";
const GROUPS: &str = "select k1, window_start, window_end, count(*) as n, sum(id) as s \
     from session(\"src\".\"t\", ts, interval '10 minutes', k1) group by k1, window_start, window_end";

#[test]
fn rows_join_sessions_and_part_them() {
    let oracle = Oracle::new(ROWS);
    let mut circuit = oracle.circuit(Mode::View);
    let at = |id: i64, minute: i64| event(id, Some(1), Some(minute));
    let mut next = |rows: &[(Row, i64)]| step(&mut circuit, &oracle, rows);
    // A row at the very end of a session begins another.
    assert_eq!(next(&[(at(1, 0), 1), (at(2, 10), 1)]), ["+1: 1 0 10", "+1: 2 10 20"]);
    // Another key, no key, and no time: nobody's neighbours.
    let others = [(event(3, Some(2), Some(5)), 1), (event(4, None, Some(5)), 1), (event(5, Some(1), None), 1)];
    assert_eq!(next(&others), ["+1: 3 5 15", "+1: 4 5 15"]);
    assert_eq!(next(&[(event(6, None, Some(14)), 1)]), ["+1: 4 5 24", "+1: 6 5 24", "-1: 4 5 15"]);
    // One between joins both, and parts them when it goes.
    assert_eq!(next(&[(at(7, 5), 1)]), ["+1: 1 0 20", "+1: 2 0 20", "+1: 7 0 20", "-1: 1 0 10", "-1: 2 10 20"]);
    assert_eq!(next(&[(at(7, 5), -1)]), ["+1: 1 0 10", "+1: 2 10 20", "-1: 1 0 20", "-1: 2 0 20", "-1: 7 0 20"]);
    // One inside changes nobody else; the same row twice counts twice; one that moves within the session moves alone.
    assert_eq!(next(&[(at(8, 15), 2)]), ["+1: 2 10 25", "+2: 8 10 25", "-1: 2 10 20"]);
    assert_eq!(next(&[(at(9, 12), 1)]), ["+1: 9 10 25"]);
    assert_eq!(next(&[(at(9, 12), -1), (at(9, 13), 1)]), Vec::<String>::new());
    assert_eq!(next(&[(at(8, 15), -1)]), ["-1: 8 10 25"]);
    // The last one goes, and the first one.
    assert_eq!(next(&[(at(8, 15), -1)]), ["+1: 2 10 23", "+1: 9 10 23", "-1: 2 10 25", "-1: 8 10 25", "-1: 9 10 25"]);
    assert_eq!(next(&[(at(2, 10), -1)]), ["+1: 9 13 23", "-1: 2 10 23", "-1: 9 10 23"]);
    // What comes and goes within an epoch is nothing, and neither is what joins sessions meanwhile.
    assert_eq!(next(&[(at(7, 5), 1), (at(7, 5), -1)]), Vec::<String>::new());
    let all = [(at(1, 0), -1), (at(9, 13), -1), (event(3, Some(2), Some(5)), -1), (event(4, None, Some(5)), -1)];
    assert_eq!(next(&all), ["+1: 6 14 24", "-1: 1 0 10", "-1: 3 5 15", "-1: 4 5 24", "-1: 6 5 24", "-1: 9 13 23"]);
    let last = [(event(6, None, Some(14)), -1), (event(5, Some(1), None), -1)];
    assert_eq!(next(&last), ["-1: 6 14 24"]);
    assert_eq!(circuit.state_rows(), 0, "{:#?}", circuit.metrics());
}

#[test]
fn a_longer_session_costs_its_groups_a_row_or_two() {
    let oracle = Oracle::new(GROUPS);
    let mut circuit = oracle.circuit(Mode::View);
    let many: Vec<(Row, i64)> = (0..1000).map(|i| (event(i, Some(1), Some(i)), 1)).collect();
    assert_eq!(step(&mut circuit, &oracle, &many), [format!("+1: 1 0 1009 1000 {}", 999 * 500)]);
    let given = |circuit: &Circuit| circuit.metrics().iter().find(|m| m.name == "session").unwrap().rows_out;
    let before = given(&circuit);
    let longer = step(&mut circuit, &oracle, &[(event(1000, Some(1), Some(1008)), 1)]);
    assert_eq!(longer, [format!("+1: 1 0 1018 1001 {}", 1000 * 1001 / 2), format!("-1: 1 0 1009 1000 {}", 999 * 500)]);
    // The new row, and the one that said the end until now.
    assert_eq!(given(&circuit) - before, 3);
    // Twenty that follow one another, one of them in the middle.
    let before = given(&circuit);
    let rows: Vec<(Row, i64)> = (0..20).map(|i| (event(2000 + i, Some(1), Some(500 + 30 * i)), 1)).collect();
    step(&mut circuit, &oracle, &rows);
    assert!(given(&circuit) - before <= 22);
    // They part when one goes that holds them together: only the rows behind it, whose session begins anew.
    let before = given(&circuit);
    let parted = step(&mut circuit, &oracle, &[(event(1000, Some(1), Some(1008)), -1)]);
    assert_eq!(parted.len(), 3, "{parted:?}");
    assert!(given(&circuit) - before <= 5);
}

#[test]
fn sessions_are_one_node_and_stock_window_functions_say_the_same() {
    for (sql, groups) in [(ROWS, false), (GROUPS, true)] {
        let oracle = Oracle::new(sql);
        let mut circuit = oracle.circuit(Mode::View);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let rows: Vec<Row> = (0..500)
            .map(|id| {
                let key = rng.random_bool(0.9).then(|| rng.random_range(0..5));
                event(id, key, rng.random_bool(0.9).then(|| rng.random_range(0..1000)))
            })
            .collect();
        step(&mut circuit, &oracle, &rows.iter().map(|row| (row.clone(), 1)).collect::<Vec<_>>());
        let names: Vec<&str> = circuit.metrics().iter().map(|m| m.name).collect();
        assert!(names.contains(&"session") && !names.contains(&"window"), "{names:?}");
        // The plan of a bulk epoch, and the oracle's.
        let all = oracle.all(std::slice::from_ref(&rows), 1);
        let plan = oracle.bound(&all);
        let (stock, replaced) = in_stock_functions(plan.clone());
        assert_eq!(replaced, 1);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let of = |plan| oracle.contents.of(&runtime.block_on(oracle.collect(plan)));
        let (bulk, stock) = (of(&plan), of(&stock));
        assert!(bulk == stock, "{}", oracle.contents.difference(&bulk, &stock));
        assert!(stock.len() > if groups { 50 } else { 400 });
    }
}

/// A row of a stream: its number, key, and time in minutes.
#[derive(Debug, Clone, Copy)]
struct Came {
    id: i32,
    key: i32,
    at: Option<i64>,
}

/// Minutes.
const GAP: i64 = 10;

fn compiled(sql: &str) -> Arc<CompiledModel> {
    let bronze_sql = r#"select sid, timestamp, duration from STREAM "telco"."calls""#;
    let mut bronze = model("l", Materialization::StreamingTable, bronze_sql, &[]);
    let (delay, idle_timeout) = (Duration::ZERO, Duration::ZERO);
    bronze.config.watermark = Some(Watermark { column: "timestamp".into(), delay, idle_timeout });
    let mut models = vec![Arc::new(bronze)];
    let mut closing = model("closing", Materialization::StreamingTable, sql, &models);
    closing.config.emit_on_close = true;
    models.push(Arc::new(closing));
    let compilation = compile_all(models).unwrap_or_else(|errors| panic!("{sql}: {errors:?}"));
    compilation.models.iter().find(|m| m.model.name == "closing").unwrap().clone()
}

fn batch(schema: &SchemaRef, rows: &[Came]) -> Vec<SignedBatch> {
    let times = TimestampMicrosecondArray::from_iter(rows.iter().map(|r| r.at.map(|t| t * MINUTE)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.key.to_string()))),
        Arc::new(times.with_timezone("UTC")),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.id))),
    ];
    let batch = RecordBatch::try_new(Arc::clone(schema), columns).unwrap();
    if rows.is_empty() { vec![] } else { vec![SignedBatch::inserts(batch)] }
}

/// What is written: lines, each with how often.
type Written = BTreeMap<String, i64>;

fn write(written: &mut Written, change: &[SignedBatch]) {
    for batch in change {
        for i in 0..batch.num_rows() {
            assert!(batch.weight(i) > 0, "what was written is taken back");
            let value = |c: &ArrayRef| match c.data_type() {
                DataType::Timestamp(..) => (c.as_primitive::<TimestampMicrosecondType>().value(i) / MINUTE).to_string(),
                _ => arrow::util::display::array_value_to_string(c, i).unwrap(),
            };
            let line = batch.rows.columns().iter().map(value).collect::<Vec<_>>().join(" ");
            *written.entry(line).or_default() += batch.weight(i);
        }
    }
}

/// Sessions by hand: key, start and end, and the numbers of their rows.
fn sessions(rows: &[Came]) -> Vec<(i32, i64, i64, Vec<i32>)> {
    let mut timed: Vec<(i32, i64, i32)> = rows.iter().filter_map(|r| Some((r.key, r.at?, r.id))).collect();
    timed.sort_unstable();
    let mut sessions: Vec<(i32, i64, i64, Vec<i32>)> = Vec::new();
    for (key, at, id) in timed {
        match sessions.last_mut().filter(|(of, _, end, _)| *of == key && at < *end) {
            Some((_, _, end, ids)) => {
                *end = at + GAP;
                ids.push(id);
            }
            None => sessions.push((key, at, at + GAP, vec![id])),
        }
    }
    sessions
}

fn run(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let session = r#"session(STREAM "m"."l", timestamp, interval '10 minutes', sid)"#;
    let grouped = seed.is_multiple_of(2);
    let sql = match grouped {
        true => format!(
            "select sid, window_start, window_end, count(*) as n, sum(duration) as s from {session} group by sid, window_start, window_end"
        ),
        false => format!("select sid, window_start, window_end, duration from {session}"),
    };
    let model = compiled(&sql);
    let plan = model.incremental.as_ref().unwrap();
    let planner = Planner::new(PlannerOptions::new(Dialect::DataFusion)).unwrap();
    let schema = &model.inputs[0].schema;
    let fresh = |clock: i64| {
        let mode = Mode::Stream { slot: model.stream.unwrap() };
        let mut circuit = Circuit::new("closing", plan, mode, planner.session_state()).unwrap();
        circuit.set_clock(clock);
        circuit
    };
    let (mut clock, mut written) = (i64::MIN, Written::new());
    let mut circuit = fresh(clock);
    // What came, and of that what was late.
    let (mut came, mut late): (Vec<Came>, Vec<Came>) = Default::default();
    for epoch in 0..40 {
        if rng.random_bool(0.2) {
            circuit = fresh(clock);
            let mut known = Known::new();
            for rows in batch(schema, &late) {
                texts(&rows).unwrap().into_iter().for_each(|text| *known.entry(text).or_default() += 1);
            }
            circuit.recall(0, &known);
            circuit.step(&[batch(schema, &came)]).unwrap();
            circuit.take_late();
        }
        let mut rows = Vec::new();
        for _ in 0..rng.random_range(0..6) {
            let (id, key) = (came.len() as i32 + rows.len() as i32, rng.random_range(0..3));
            let at = rng.random_bool(0.95).then(|| epoch * 5 + rng.random_range(-20..10));
            // Twice now and then, the second time late perhaps.
            let again = came.last().copied().filter(|_| rng.random_bool(0.1));
            rows.push(again.unwrap_or(Came { id, key, at }));
        }
        let is_late = |row: &&Came| row.at.is_some_and(|at| at * MINUTE < clock);
        let behind: Vec<Came> = rows.iter().filter(is_late).copied().collect();
        write(&mut written, &circuit.step(&[batch(schema, &rows)]).unwrap());
        let told: usize = circuit.take_late().iter().map(|(_, rows)| rows.num_rows()).sum();
        assert_eq!(told, behind.len(), "seed {seed}: late rows of epoch {epoch}\n{sql}");
        late.extend(behind);
        came.extend(rows);
        clock = match rng.random_range(0..4) {
            0 => clock,
            _ => clock.max((epoch * 5 + rng.random_range(-20..0)) * MINUTE),
        };
        circuit.set_clock(clock);
        write(&mut written, &circuit.step(&[vec![]]).unwrap());
        let on_time = on_time(&came, &late);
        let all = sessions(&on_time);
        let closed = all.iter().filter(|(_, _, end, _)| end * MINUTE <= clock);
        assert_eq!(written, expected(closed, grouped), "seed {seed}, epoch {epoch}: {sql}");
        // Nobody is remembered whose session is closed.
        let open: Vec<_> = all.iter().filter(|(_, _, end, _)| end * MINUTE > clock).collect();
        let rows: usize = open.iter().map(|(.., ids)| ids.len()).sum();
        let held = circuit.metrics().iter().find(|m| m.name == "session").unwrap().state_rows;
        assert_eq!(held, rows, "seed {seed}, epoch {epoch}: {sql}");
        let last = open.iter().map(|(_, _, end, _)| end * MINUTE).max();
        assert_eq!(circuit.last_change().unwrap(), last, "seed {seed}, epoch {epoch}: {sql}");
    }
    // The end of input is the end of time.
    let last = circuit.last_change().unwrap();
    circuit.set_clock(last.unwrap_or(clock));
    write(&mut written, &circuit.step(&[vec![]]).unwrap());
    assert_eq!(written, expected(sessions(&on_time(&came, &late)).iter(), grouped), "seed {seed}: {sql}");
    assert_eq!(circuit.state_rows(), 0, "seed {seed}: {sql}");
}

fn on_time(came: &[Came], late: &[Came]) -> Vec<Came> {
    let mut rows = came.to_vec();
    for row in late {
        let at = rows.iter().position(|r| (r.id, r.key, r.at) == (row.id, row.key, row.at)).unwrap();
        rows.remove(at);
    }
    rows
}

fn expected<'a>(sessions: impl Iterator<Item = &'a (i32, i64, i64, Vec<i32>)>, grouped: bool) -> Written {
    let mut written = Written::new();
    for (key, start, end, ids) in sessions {
        let lines = match grouped {
            true => vec![format!("{key} {start} {end} {} {}", ids.len(), ids.iter().sum::<i32>())],
            false => ids.iter().map(|id| format!("{key} {start} {end} {id}")).collect(),
        };
        lines.into_iter().for_each(|line| *written.entry(line).or_default() += 1);
    }
    written
}

#[test]
fn a_session_is_written_once_when_the_watermark_has_passed_its_end() {
    super::oracle::seeds("0..60").for_each(run);
}

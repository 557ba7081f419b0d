//! What a circuit has forgotten behind a watermark does not show: random queries over groups of time buckets, random epochs whose rows come and go on
//! both sides of a mark that moves, and after every epoch the sum of all output is what stock DataFusion computes. What a late row needs is read from the
//! rows that the test holds, as the runtime reads it from the lake.

#![allow(clippy::disallowed_methods)]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::cases::Case;
use super::changes::{Rows, batches};
use super::contents::Multiset;
use super::oracle::{Oracle, behind_watermarks, seeds};
use super::queries::Generator;
use super::shrink::shrink;
use super::tables::{Row, TABLES, Value, batch, signed_batch};
use crate::operators::{Circuit, Mode, Needed};
use crate::plan::incremental::Node;
use crate::types::SignedBatch;

/// µs.
const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
const START: i64 = 1_700_000_000_000_000;

/// A query over time buckets; its epochs' clock is the watermark, in µs after the first time there is.
fn case(seed: u64) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x0f06_0e70);
    let sql = Generator::new(&mut rng).bucketed().sql;
    with_watermark(seed, sql, rng)
}

/// The same over sessions.
fn case_of_sessions(seed: u64) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x0f06_5e55);
    let sql = Generator::new(&mut rng).bucketed_sessions(watermark_of(seed) == "day").sql;
    with_watermark(seed, sql, rng)
}

fn with_watermark(seed: u64, sql: String, mut rng: ChaCha8Rng) -> Case {
    let mut case = Case::of(seed, sql, &mut rng);
    let mut clock = 0;
    for epoch in &mut case.epochs {
        clock += rng.random_range(0..HOUR);
        // One that went back changes nothing.
        epoch.clock = if rng.random_bool(0.1) { clock / 2 } else { clock };
    }
    case
}

fn watermark_of(seed: u64) -> &'static str {
    if seed.is_multiple_of(6) { "day" } else { "ts" }
}

/// What forgetting came to.
#[derive(Debug, Default, Clone, Copy)]
struct Done {
    /// Queries that forget anything, by their plans.
    marked: usize,
    /// Epochs after which there was less state than before.
    forgot: usize,
    /// Buckets' worth of rows that were read again.
    remembered: usize,
}

fn forgets(node: &Node) -> bool {
    let has_bucket = match node {
        Node::Aggregate { bucket, .. }
        | Node::First { bucket, .. }
        | Node::Window { bucket, .. }
        | Node::Session { bucket, .. } => bucket.is_some(),
        _ => false,
    };
    has_bucket || node.below().into_iter().any(forgets)
}

/// Reads again what a step needs of `rows`, which all inputs have had so far. How often.
fn remember(
    oracle: &Oracle,
    circuit: &mut Circuit,
    inputs: &[Vec<SignedBatch>],
    rows: &[Vec<Row>],
) -> Result<usize, String> {
    let mut count = 0;
    loop {
        let all = circuit.needed(inputs).map_err(|e| format!("{e:?}"))?;
        if all.is_empty() {
            return Ok(count);
        }
        remember_all(oracle, circuit, &all, rows)?;
        count += all.len();
    }
}

fn remember_all(oracle: &Oracle, circuit: &mut Circuit, all: &[Needed], rows: &[Vec<Row>]) -> Result<(), String> {
    for needed in all {
        let (table, schema) = (oracle.tables[needed.slot], &oracle.model.inputs[needed.slot].schema);
        let scale = if table.columns[needed.time].1 == super::tables::Kind::Day { DAY } else { 1 };
        let wanted = |row: &&Row| match &row[needed.time] {
            Value::Int(time) => needed.spans.iter().any(|(from, until)| (*from..*until).contains(&(time * scale))),
            _ => false,
        };
        let wanted: Vec<&Row> = rows[needed.slot].iter().filter(wanted).collect();
        for part in wanted.chunks((wanted.len() / 2).max(3)) {
            let rows = batch(table, schema, part).project(&needed.columns).unwrap();
            circuit.remember(needed, vec![SignedBatch::inserts(rows)]).map_err(|e| format!("{e:?}"))?;
        }
        circuit.remembered(needed).map_err(|e| format!("{e:?}"))?;
    }
    Ok(())
}

/// Forgets what lies behind the watermark. Whether anything did.
fn forget(oracle: &Oracle, circuit: &mut Circuit, watermark: &str, clock: i64) -> Result<bool, String> {
    let before = circuit.state_rows();
    let of = |slot: usize| {
        let by_day = oracle.tables[slot].name == "t" && watermark == "day";
        Some(if by_day { 19_000 * DAY + clock * 9 } else { START + clock })
    };
    circuit.forget(of).map_err(|e| format!("{e:?}"))?;
    Ok(circuit.state_rows() < before)
}

async fn run(case: &Case) -> Result<Done, String> {
    let watermark = watermark_of(case.seed);
    let oracle = Oracle::of(behind_watermarks(&case.sql, &case.append_only, watermark), None);
    let Ok(plan) = &oracle.model.incremental else { return Ok(Done::default()) };
    let mut done = Done { marked: usize::from(forgets(plan)), ..Done::default() };
    let mut circuit = oracle.circuit(Mode::View);
    let mut original: Option<Circuit> = None;
    let mut rows: BTreeMap<&str, Rows> = TABLES.iter().map(|t| (t.name, Rows::default())).collect();
    let mut total = Multiset::new();
    let present = |rows: &BTreeMap<&str, Rows>| -> Vec<Vec<Row>> {
        oracle.tables.iter().map(|t| rows[t.name].all().into_iter().cloned().collect()).collect()
    };
    let check = async |total: &Multiset, rows: &[Vec<Row>], what: String| match oracle.expected(rows).await {
        Some(expected) if *total != expected => {
            Err(format!("{what}\n{}", oracle.contents.difference(total, &expected)))
        }
        _ => Ok(()),
    };
    for (number, epoch) in case.epochs.iter().enumerate() {
        let failed = |e: crate::error::Error| format!("epoch {number}: {e:?}");
        let inputs: Vec<Vec<SignedBatch>> = (0..oracle.tables.len())
            .map(|i| batches(oracle.tables[i], &oracle.model.inputs[i].schema, &epoch.changes))
            .collect();
        let before = present(&rows);
        done.remembered += remember(&oracle, &mut circuit, &inputs, &before)?;
        let output = circuit.step(&inputs).map_err(failed)?;
        if let Some(mut original) = original.take() {
            remember(&oracle, &mut original, &inputs, &before)?;
            let other = original.step(&inputs).map_err(failed)?;
            let (mut of_one, mut of_other) = (Multiset::new(), Multiset::new());
            oracle.contents.add_signed(&mut of_one, &output);
            oracle.contents.add_signed(&mut of_other, &other);
            if of_one != of_other || circuit.state_rows() != original.state_rows() {
                return Err(format!("epoch {number}: restored state went another way"));
            }
        }
        for change in &epoch.changes {
            rows.get_mut(change.table.as_str()).unwrap().apply(&change.row, change.weight);
        }
        oracle.contents.add_signed(&mut total, &output);
        check(&total, &present(&rows), format!("epoch {number}")).await?;
        done.forgot += usize::from(forget(&oracle, &mut circuit, watermark, epoch.clock)?);
        if epoch.saved {
            let restored = oracle.restored(&mut circuit, Mode::View);
            original = Some(std::mem::replace(&mut circuit, restored));
        }
        if epoch.restart {
            original = None;
            circuit = oracle.circuit(Mode::View);
            total.clear();
            let output = circuit.step(&oracle.all(&present(&rows), 1)).map_err(failed)?;
            oracle.contents.add_signed(&mut total, &output);
        }
    }
    if oracle.model.inputs.iter().any(|input| input.append_only) {
        return Ok(done);
    }
    let all = oracle.all(&present(&rows), -1);
    remember(&oracle, &mut circuit, &all, &present(&rows))?;
    let output = circuit.step(&all).map_err(|e| format!("retracting all: {e:?}"))?;
    oracle.contents.add_signed(&mut total, &output);
    check(&total, &vec![vec![]; oracle.tables.len()], "all retracted".into()).await?;
    let mut fresh = oracle.circuit(Mode::View);
    fresh.step(&vec![vec![]; oracle.tables.len()]).map_err(|e| format!("no input: {e:?}"))?;
    if circuit.state_rows() != fresh.state_rows() {
        return Err(format!("state is left: {:#?}", circuit.metrics()));
    }
    Ok(done)
}

fn outcome(case: &Case) -> Result<Done, String> {
    let one = || tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(case));
    catch_unwind(AssertUnwindSafe(one)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default())
    })
}

/// Runs the cases; what forgetting came to in all of them.
fn run_all(seeds: std::ops::Range<u64>, case: impl Fn(u64) -> Case + Sync) -> Done {
    let every_other = |first: u64| {
        let (mut all, mut failed) = (Done::default(), Vec::new());
        for case in (seeds.start + first..seeds.end).step_by(2).map(&case) {
            match outcome(&case) {
                Ok(done) => {
                    all.marked += done.marked;
                    all.forgot += done.forgot;
                    all.remembered += done.remembered;
                }
                Err(_) => {
                    let case = shrink(case, 600, |c| outcome(c).is_err());
                    println!("seed {} fails: {}\nThe script:\n{case}", case.seed, outcome(&case).unwrap_err());
                    failed.push(case.seed);
                }
            }
        }
        (all, failed)
    };
    let ((one, mut failed), (other, more)) = std::thread::scope(|scope| {
        let other = scope.spawn(|| every_other(1));
        (every_other(0), other.join().unwrap())
    });
    failed.extend(more);
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
    Done {
        marked: one.marked + other.marked,
        forgot: one.forgot + other.forgot,
        remembered: one.remembered + other.remembered,
    }
}

#[test]
fn what_is_forgotten_does_not_show() {
    if let Ok(script) = std::env::var("SMELT_ORACLE_SCRIPT") {
        let case = Case::parse(&std::fs::read_to_string(script).unwrap());
        return outcome(&case).map(|_| ()).unwrap_or_else(|failure| panic!("{failure}"));
    }
    let seeds = seeds("0..200");
    let count = (seeds.end - seeds.start) as usize;
    let done = run_all(seeds, case);
    println!("{count} queries: {done:?}");
    assert!(done.marked * 10 >= count * 7, "only {} of {count} queries forget anything", done.marked);
    assert!(done.forgot >= count && done.remembered >= count, "{done:?}");
}

#[test]
fn what_is_forgotten_of_sessions_does_not_show() {
    let seeds = seeds("0..200");
    let count = (seeds.end - seeds.start) as usize;
    let done = run_all(seeds, case_of_sessions);
    println!("{count} queries: {done:?}");
    assert!(done.marked * 10 >= count * 7, "only {} of {count} queries forget anything", done.marked);
    assert!(done.forgot >= count && done.remembered >= count, "{done:?}");
}

#[test]
fn spilled_groups_are_forgotten_too() {
    let sql = "select date_trunc('hour', ts) as h, k1, count(distinct id) as n, max(s) as m from \"src\".\"t\" as t group by 1, 2";
    let limit = 512 << 10;
    let model = behind_watermarks(sql, &[], "ts");
    let (free, bounded) = (Oracle::of(model.clone(), None), Oracle::of(model, Some(limit)));
    let (mut expected, mut circuit) = (free.circuit(Mode::View), bounded.circuit(Mode::View));
    let row = |id: i64, hour: i64| {
        let mut row = vec![Value::Null; free.tables[0].columns.len()];
        (row[0], row[1], row[7]) = (Value::Int(id), Value::Int(id % 3_000), Value::Int(START + hour * HOUR));
        row
    };
    let signed = |rows: &[(Row, i64)]| vec![vec![signed_batch(free.tables[0], &free.model.inputs[0].schema, rows)]];
    let (mut all, mut spilled, mut read): (Vec<Row>, bool, usize) = (Vec::new(), false, 0);
    for hour in 0..8 {
        // An hour's rows, one of each hour before, and the first of one of them goes.
        let mut change: Vec<(Row, i64)> = (0..4_000).map(|i| (row(hour * 4_000 + i, hour), 1)).collect();
        change.extend((0..hour).map(|before| (row(100_000 + hour, before), 1)));
        if hour > 3 {
            change.push((row((hour - 3) * 4_000, hour - 3), -1));
        }
        let inputs = signed(&change);
        let mut found = Multiset::new();
        let again = remember(&bounded, &mut circuit, &inputs, &[all.clone()]).unwrap();
        read += again;
        free.contents.add_signed(&mut found, &circuit.step(&inputs).unwrap());
        let mut wanted = Multiset::new();
        free.contents.add_signed(&mut wanted, &expected.step(&inputs).unwrap());
        assert!(found == wanted, "at {hour}\n{}", free.contents.difference(&found, &wanted));
        spilled |= circuit.state_bytes() < expected.state_bytes() / 2;
        change.iter().for_each(|(row, weight)| match weight {
            1 => all.push(row.clone()),
            _ => all.retain(|one| format!("{one:?}") != format!("{row:?}")),
        });
        circuit.forget(|_| Some(START + hour * HOUR)).unwrap();
        assert!(circuit.state_rows() < 20_000, "{} at {hour}", circuit.state_rows());
    }
    assert!(spilled && read >= 3 && expected.state_rows() > 50_000, "{spilled} {read} {}", expected.state_rows());
}

/// Rows of table `t` in an hour: one for each of some keys.
fn hour(oracle: &Oracle, number: i64) -> (Vec<Vec<SignedBatch>>, Vec<Row>) {
    let rows: Vec<Row> = (0..20)
        .map(|key| {
            let mut row = vec![Value::Null; oracle.tables[0].columns.len()];
            (row[0], row[1]) = (Value::Int(number * 100 + key), Value::Int(key));
            row[7] = Value::Int(START + number * HOUR + key * 60_000_000);
            row
        })
        .collect();
    let signed: Vec<(Row, i64)> = rows.iter().map(|row| (row.clone(), 1)).collect();
    (vec![vec![signed_batch(oracle.tables[0], &oracle.model.inputs[0].schema, &signed)]], rows)
}

#[test]
fn state_stays_as_it_is_while_the_table_grows() {
    let sql = "select date_trunc('hour', ts) as h, k1, count(distinct id) as n, max(s) as m from \"src\".\"t\" as t group by 1, 2";
    let oracle = Oracle::of(behind_watermarks(sql, &[], "ts"), None);
    let (mut circuit, mut all) = (oracle.circuit(Mode::View), Vec::new());
    let mut figures = Vec::new();
    for number in 0..240 {
        let (inputs, rows) = hour(&oracle, number);
        assert_eq!(remember(&oracle, &mut circuit, &inputs, &[all.clone()]).unwrap(), 0, "no row is late");
        circuit.step(&inputs).unwrap();
        all.extend(rows);
        circuit.forget(|_| Some(START + number * HOUR)).unwrap();
        if number % 24 == 23 {
            figures.push((circuit.state_rows(), circuit.state_bytes()));
        }
    }
    let (most_rows, most_bytes) =
        (figures.iter().map(|f| f.0).max().unwrap(), figures.iter().map(|f| f.1).max().unwrap());
    // Of each row a group, a distinct value, and an hour's worth more before it is worth forgetting.
    assert!(most_rows <= 20 * 2 * 4, "{figures:?}");
    assert!(most_bytes <= 32 << 10, "{figures:?}");
    // A row of the first hour comes, and goes.
    let (mut late, _) = hour(&oracle, 0);
    let before = circuit.state_rows();
    late[0][0] = SignedBatch::retracts(late[0][0].rows.slice(3, 1));
    let careless = oracle.restored(&mut circuit, Mode::View).step(&late).unwrap_err();
    assert_eq!(careless.kind(), crate::error::ErrorKind::Diverged, "nothing is left of the hour");
    assert_eq!(remember(&oracle, &mut circuit, &late, &[all.clone()]).unwrap(), 1);
    assert_eq!(circuit.state_rows() - before, 40, "the hour's groups are read again, and no others");
    let gone = circuit.step(&late).unwrap();
    assert_eq!(gone.iter().map(SignedBatch::num_rows).sum::<usize>(), 1, "its group goes");
    assert_eq!(remember(&oracle, &mut circuit, &late, &[all]).unwrap(), 0, "the hour is known");
    circuit.forget(|_| Some(START + 500 * HOUR)).unwrap();
    assert_eq!(circuit.state_rows(), 0);
}

#[test]
fn sessions_that_have_ended_are_gone_and_come_back_alone() {
    let groups = "select k1, window_start, window_end, count(distinct id) as n, max(s) as m from session(\"src\".\"t\", ts, interval '10 minutes', k1) group by 1, 2, 3";
    let fewer =
        "select window_start, count(*) as n from session(\"src\".\"t\", ts, interval '10 minutes', k1) group by 1";
    let rows =
        "select id, window_start, window_end from session(\"src\".\"t\", ts, interval '10 minutes', k1)".to_string();
    let running = "select id, sum(id) over (partition by k1, window_start order by id) as c from session(\"src\".\"t\", ts, interval '10 minutes', k1)";
    // One call, two readers that say when a session begins.
    let both = format!("with n as ({rows}) select x.id, y.window_end from n as x join n as y on x.id = y.id");
    // The query, rows of state of an hour, and of a session: its row; its group, distinct value and end; its row in the window.
    let cases = [(groups, 20 * 4, 4), (&rows, 20, 1), (running, 20 * 2, 2)];
    for (sql, per_hour, per_session) in cases {
        let oracle = Oracle::of(behind_watermarks(sql, &[], "ts"), None);
        let (mut circuit, mut all, mut most) = (oracle.circuit(Mode::View), Vec::new(), 0);
        for number in 0..120 {
            let (inputs, rows) = hour(&oracle, number);
            assert_eq!(remember(&oracle, &mut circuit, &inputs, &[all.clone()]).unwrap(), 0, "no row is late: {sql}");
            circuit.step(&inputs).unwrap();
            all.extend(rows);
            circuit.forget(|_| Some(START + number * HOUR)).unwrap();
            most = most.max(circuit.state_rows());
        }
        assert!(most <= per_hour * 5, "{most} rows of state: {sql}");
        // So many more that it is worth it.
        for number in 120..130 {
            circuit.step(&hour(&oracle, number).0).unwrap();
        }
        circuit.forget(|_| Some(START + 500 * HOUR)).unwrap();
        assert_eq!(circuit.state_rows(), 0, "{sql}");
        // The row of one key in the first hour goes. Nothing else comes back.
        let gone = vec![vec![signed_batch(oracle.tables[0], &oracle.model.inputs[0].schema, &[(all[3].clone(), -1)])]];
        assert!(oracle.restored(&mut circuit, Mode::View).step(&gone).is_err(), "nothing is left of it: {sql}");
        assert!(remember(&oracle, &mut circuit, &gone, &[all.clone()]).unwrap() > 0, "{sql}");
        assert_eq!(circuit.state_rows(), per_session, "{sql}: {:#?}", circuit.metrics());
        assert!(!circuit.step(&gone).unwrap().is_empty(), "{sql}");
        assert_eq!(circuit.state_rows(), 0, "{sql}");
    }
    // What stands above and does not say of which session it is stays.
    for (sql, kept) in [(fewer, 0), (&both, 20 * 20)] {
        let oracle = Oracle::of(behind_watermarks(sql, &[], "ts"), None);
        let mut circuit = oracle.circuit(Mode::View);
        for number in 0..20 {
            circuit.step(&hour(&oracle, number).0).unwrap();
        }
        let before = circuit.state_rows();
        circuit.forget(|_| Some(START + 500 * HOUR)).unwrap();
        let sessions = circuit.metrics().iter().filter(|m| m.name == "session").map(|m| m.state_rows).sum::<usize>();
        assert_eq!(sessions, 0, "{sql}");
        assert!(circuit.state_rows() >= kept && circuit.state_rows() < before, "{sql}");
    }
}

#[test]
fn a_row_joins_long_sessions_that_were_forgotten() {
    let sql = "select window_start, window_end, count(*) as n, min(id) as lo from session(\"src\".\"t\", ts, interval '10 minutes') group by 1, 2";
    let oracle = Oracle::of(behind_watermarks(sql, &[], "ts"), None);
    let row = |id: i64, minute: i64| {
        let mut row = vec![Value::Null; oracle.tables[0].columns.len()];
        (row[0], row[7]) = (Value::Int(id), Value::Int(START + minute * 60_000_000));
        row
    };
    let signed = |row: &Row, weight| {
        vec![vec![signed_batch(oracle.tables[0], &oracle.model.inputs[0].schema, &[(row.clone(), weight)])]]
    };
    // Of 200 rows each: until minute 199, and from 215 on. Others before and behind.
    let minutes = (0..200).chain(215..415).chain([-30, 430]);
    let all: Vec<Row> = minutes.map(|minute| row(minute, minute)).collect();
    let first: Vec<(Row, i64)> = all.iter().map(|row| (row.clone(), 1)).collect();
    let forgotten = || {
        let mut circuit = oracle.circuit(Mode::View);
        circuit.step(&[vec![signed_batch(oracle.tables[0], &oracle.model.inputs[0].schema, &first)]]).unwrap();
        circuit.forget(|_| Some(START + 24 * HOUR)).unwrap();
        assert_eq!(circuit.state_rows(), 0);
        circuit
    };
    let mut circuit = forgotten();
    let between = row(1_000, 207);
    let rounds = remember(&oracle, &mut circuit, &signed(&between, 1), std::slice::from_ref(&all)).unwrap();
    assert!((2..12).contains(&rounds), "{rounds} rounds");
    let rows = |circuit: &Circuit| circuit.metrics().iter().find(|m| m.name == "session").unwrap().state_rows;
    assert_eq!(rows(&circuit), 400, "the two sessions, and neither of the others");
    let joined = circuit.step(&signed(&between, 1)).unwrap();
    assert_eq!(joined.iter().map(SignedBatch::num_rows).sum::<usize>(), 3, "two sessions become one");
    assert_eq!(
        remember(&oracle, &mut circuit, &signed(&between, -1), std::slice::from_ref(&all)).unwrap(),
        0,
        "it is whole"
    );
    let parted = circuit.step(&signed(&between, -1)).unwrap();
    assert_eq!(parted.iter().map(SignedBatch::num_rows).sum::<usize>(), 3);
    // Alone between two that are a gap away.
    let mut circuit = forgotten();
    let alone = row(1_001, 425);
    remember(&oracle, &mut circuit, &signed(&alone, 1), &[all]).unwrap();
    assert_eq!(rows(&circuit), 1, "the row of minute 430");
}

#[test]
fn partitions_of_buckets_are_forgotten_too() {
    let top = |rank: &str, most: i64| {
        format!(
            "select id, k1, c from (select id, k1, {rank}() over (partition by date_trunc('hour', ts), k1 % 2 order by id desc) as c from \"src\".\"t\" as t) as x where c <= {most}"
        )
    };
    let running =
        "select id, sum(id) over (partition by date_trunc('hour', ts) order by id) as c from \"src\".\"t\" as t";
    // The query, whether its rows only come, and rows of state of an hour.
    let cases = [
        (top("row_number", 1), true, 2),
        (top("row_number", 3), true, 6),
        (top("row_number", 1), false, 20),
        (top("rank", 3), false, 20),
        (running.to_string(), false, 20),
    ];
    for (sql, append_only, per_hour) in cases {
        let only_come: &[String] = if append_only { &["t".to_string()] } else { &[] };
        let oracle = Oracle::of(behind_watermarks(&sql, only_come, "ts"), None);
        let (mut circuit, mut whole) = (oracle.circuit(Mode::View), oracle.circuit(Mode::View));
        let (mut all, mut most) = (Vec::new(), 0);
        for number in 0..120 {
            let (inputs, rows) = hour(&oracle, number);
            assert_eq!(remember(&oracle, &mut circuit, &inputs, &[all.clone()]).unwrap(), 0, "no row is late: {sql}");
            circuit.step(&inputs).unwrap();
            whole.step(&inputs).unwrap();
            all.extend(rows);
            circuit.forget(|_| Some(START + number * HOUR)).unwrap();
            most = most.max(circuit.state_rows());
        }
        assert!(most <= per_hour * 5, "{most} rows of state: {sql}");
        assert_eq!(whole.state_rows(), per_hour * 120, "{sql}");
        // A row of the first hour comes, before all others.
        let mut row = all[3].clone();
        (row[0], row[1]) = (Value::Int(77), Value::Int(1));
        let late = vec![vec![signed_batch(oracle.tables[0], &oracle.model.inputs[0].schema, &[(row, 1)])]];
        let before = circuit.state_rows();
        assert_eq!(remember(&oracle, &mut circuit, &late, &[all.clone()]).unwrap(), 1, "{sql}");
        assert_eq!(circuit.state_rows() - before, per_hour, "the hour's rows are read again, and no others: {sql}");
        let restored = oracle.restored(&mut circuit, Mode::View).step(&late).unwrap();
        let (mut found, mut again, mut expected) = (Multiset::new(), Multiset::new(), Multiset::new());
        oracle.contents.add_signed(&mut found, &circuit.step(&late).unwrap());
        oracle.contents.add_signed(&mut again, &restored);
        oracle.contents.add_signed(&mut expected, &whole.step(&late).unwrap());
        assert!(!expected.is_empty() && found == expected && again == expected, "{sql}");
        circuit.forget(|_| Some(START + 500 * HOUR)).unwrap();
        assert_eq!(circuit.state_rows(), 0, "{sql}");
    }
}

//! Streams that are joined by time: whatever the order in which rows arrive, however far the watermark has come with each, and wherever a circuit
//! is lost and filled again, the table is in the end the join of the rows that were not late, and no row is remembered longer than it
//! can be needed.

use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int32Type, SchemaRef};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::operators::{Circuit, Known, Mode, texts};
use crate::plan::tests::project::{compile_all, model};
use crate::plan::{CompiledModel, Planner, PlannerOptions};
use crate::project::{Dialect, Materialization, Watermark};
use crate::types::SignedBatch;

pub(super) const MINUTE: i64 = 60_000_000;

/// A row of either stream: its number, key, and time in minutes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub id: i32,
    pub key: Option<i32>,
    pub at: Option<i64>,
}

/// A join by hand: (number on the left, number on the right), as often as the table holds it.
type Table = BTreeMap<(Option<i32>, Option<i32>), i64>;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Inner,
    Left,
    Right,
    Full,
    Exists,
    NotExists,
}

pub(super) const KINDS: [Kind; 6] = [Kind::Inner, Kind::Left, Kind::Right, Kind::Full, Kind::Exists, Kind::NotExists];

/// `r.timestamp` in [`l.timestamp` − back, `l.timestamp` + ahead], minutes.
fn sql(kind: Kind, back: i64, ahead: i64) -> String {
    let (l, r) = (r#"STREAM "m"."l""#, r#"STREAM "m"."r""#);
    let near = format!(
        "l.sid = r.sid and r.timestamp between l.timestamp - interval '{back} minutes' and l.timestamp + interval '{ahead} minutes'"
    );
    let join = match kind {
        Kind::Inner => "join",
        Kind::Left => "left join",
        Kind::Right => "right join",
        Kind::Full => "full join",
        Kind::Exists | Kind::NotExists => {
            let not = if kind == Kind::NotExists { "not " } else { "" };
            return format!(
                "select l.duration as l from {l} as l where {not}exists (select 1 from {r} as r where {near})"
            );
        }
    };
    format!("select l.duration as l, r.duration as r from {l} as l {join} {r} as r on {near}")
}

pub(super) fn compiled(sql: &str) -> Arc<CompiledModel> {
    compiles(sql).unwrap_or_else(|errors| panic!("{sql}: {errors:?}"))
}

/// What is wrong with a query.
pub(super) fn fails(sql: &str) -> Option<String> {
    compiles(sql).err().map(|errors| format!("{errors:?}"))
}

fn compiles(sql: &str) -> Result<Arc<CompiledModel>, Vec<crate::error::Error>> {
    let bronze = |name: &str| {
        let sql = r#"select sid, timestamp, duration from STREAM "telco"."calls""#;
        let mut bronze = model(name, Materialization::StreamingTable, sql, &[]);
        let (delay, idle_timeout) = (Duration::ZERO, Duration::ZERO);
        bronze.config.watermark = Some(Watermark { column: "timestamp".into(), delay, idle_timeout });
        Arc::new(bronze)
    };
    let mut models = vec![bronze("l"), bronze("r")];
    let mut joined = model("joined", Materialization::StreamingTable, sql, &models);
    joined.config.emit_on_close = true;
    models.push(Arc::new(joined));
    let compilation = compile_all(models)?;
    Ok(compilation.models.iter().find(|m| m.model.name == "joined").unwrap().clone())
}

/// Some rows of one stream, after those that `came`, with ids from `id` on: one comes twice now and then, the second time late perhaps.
pub(super) fn arriving(epoch: i64, id: &mut i32, came: &[Row], rng: &mut ChaCha8Rng) -> Vec<Row> {
    let mut rows = Vec::new();
    for _ in 0..rng.random_range(0..6) {
        *id += 1;
        let key = rng.random_bool(0.9).then(|| rng.random_range(0..2));
        let at = rng.random_bool(0.95).then(|| epoch * 5 + rng.random_range(-20..10));
        rows.push(match came.last().filter(|_| rng.random_bool(0.1)) {
            Some(row) => *row,
            None => Row { id: *id, key, at },
        });
    }
    rows
}

pub(super) fn batch(schema: &SchemaRef, rows: &[Row]) -> Vec<SignedBatch> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.key.map(|k| k.to_string())))),
        Arc::new(
            TimestampMicrosecondArray::from_iter(rows.iter().map(|r| r.at.map(|t| t * MINUTE))).with_timezone("UTC"),
        ),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.id))),
    ];
    let batch = RecordBatch::try_new(Arc::clone(schema), columns).unwrap();
    if rows.is_empty() { vec![] } else { vec![SignedBatch::inserts(batch)] }
}

fn add(table: &mut Table, change: &[SignedBatch]) {
    for batch in change {
        let column = |i: usize| batch.rows.columns().get(i).map(|c| c.as_primitive::<Int32Type>().clone());
        for row in 0..batch.num_rows() {
            let value = |i: usize| column(i).and_then(|c| c.iter().nth(row).flatten());
            assert!(batch.weight(row) >= 0, "a row that was written is taken back");
            *table.entry((value(0), value(1))).or_default() += batch.weight(row);
        }
    }
    table.retain(|_, count| *count != 0);
}

fn expected(kind: Kind, back: i64, ahead: i64, left: &[Row], right: &[Row]) -> Table {
    let matches = |l: &Row, r: &Row| match (l.key.zip(r.key), l.at.zip(r.at)) {
        (Some((a, b)), Some((x, y))) => a == b && x - back <= y && y <= x + ahead,
        _ => false,
    };
    let mut table = Table::new();
    let mut write = |l: Option<i32>, r: Option<i32>| *table.entry((l, r)).or_default() += 1;
    for l in left.iter().filter(|l| l.at.is_some()) {
        let found: Vec<&Row> = right.iter().filter(|r| matches(l, r)).collect();
        match kind {
            Kind::Exists if !found.is_empty() => write(Some(l.id), None),
            Kind::Exists => {}
            Kind::NotExists if found.is_empty() => write(Some(l.id), None),
            Kind::NotExists => {}
            _ => found.iter().for_each(|r| write(Some(l.id), Some(r.id))),
        }
        if found.is_empty() && matches!(kind, Kind::Left | Kind::Full) {
            write(Some(l.id), None);
        }
    }
    if matches!(kind, Kind::Right | Kind::Full) {
        for r in right.iter().filter(|r| r.at.is_some() && !left.iter().any(|l| matches(l, r))) {
            write(None, Some(r.id));
        }
    }
    table
}

fn run(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let kind = KINDS[rng.random_range(0..KINDS.len())];
    let back = rng.random_range(-5..20);
    let ahead = rng.random_range(-back..20);
    let sql = sql(kind, back, ahead);
    let model = compiled(&sql);
    let plan = model.incremental.as_ref().unwrap();
    let planner = Planner::new(PlannerOptions::new(Dialect::DataFusion)).unwrap();
    let slot = |name: &str| model.inputs.iter().position(|i| i.relation.to_string() == name).unwrap();
    let slots = [slot("l"), slot("r")];
    let fresh = |clock: i64| {
        let mode = Mode::Stream { slot: model.stream.unwrap() };
        let mut circuit = Circuit::new("joined", plan, mode, planner.session_state()).unwrap();
        circuit.set_clock(clock);
        circuit
    };
    let mut circuit = fresh(i64::MIN);
    let mut clock = i64::MIN;
    // What came, and of that what was late.
    let (mut came, mut late): ([Vec<Row>; 2], [Vec<Row>; 2]) = Default::default();
    let mut table = Table::new();
    let mut id = 0;
    for epoch in 0..30 {
        if rng.random_bool(0.2) {
            circuit = fresh(clock);
            let mut inputs = vec![vec![]; model.inputs.len()];
            for (side, slot) in slots.into_iter().enumerate() {
                let mut known = Known::new();
                for rows in batch(&model.inputs[slot].schema, &late[side]) {
                    texts(&rows).unwrap().into_iter().for_each(|text| *known.entry(text).or_default() += 1);
                }
                circuit.recall(slot, &known);
                inputs[slot] = batch(&model.inputs[slot].schema, &came[side]);
            }
            circuit.step(&inputs).unwrap();
            circuit.take_late();
        }
        let mut inputs = vec![vec![]; model.inputs.len()];
        let mut behind = 0;
        for (side, slot) in slots.into_iter().enumerate() {
            let rows = arriving(epoch, &mut id, &came[side], &mut rng);
            let is_late = |row: &Row| row.at.is_some_and(|at| at * MINUTE < clock);
            behind += rows.iter().filter(|r| is_late(r)).count();
            late[side].extend(rows.iter().filter(|r| is_late(r)));
            inputs[slot] = batch(&model.inputs[slot].schema, &rows);
            came[side].extend(rows);
        }
        add(&mut table, &circuit.step(&inputs).unwrap());
        let told: usize = circuit.take_late().iter().map(|(_, rows)| rows.num_rows()).sum();
        assert_eq!(told, behind, "seed {seed}: late rows of epoch {epoch}\n{sql}");
        clock = match rng.random_range(0..6) {
            0 => clock,
            1 => clock.max((epoch + 20) * 5 * MINUTE * i64::from(epoch == 29)),
            _ => clock.max((epoch * 5 + rng.random_range(-20..0)) * MINUTE),
        };
        circuit.set_clock(clock);
        add(&mut table, &circuit.step(&vec![vec![]; model.inputs.len()]).unwrap());
        // Nobody is remembered who cannot be needed: twice, by what waits and by the join, and once more by what is not settled.
        let needed = |row: &&Row| row.at.is_some_and(|at| (at + back.max(0) + ahead.max(0)) * MINUTE >= clock);
        let most = came.iter().flatten().filter(needed).count();
        let held = circuit.metrics().iter().map(|m| m.state_rows).max().unwrap_or(0);
        assert!(held <= 4 * most, "seed {seed}: {held} remembered of {most} in epoch {epoch}\n{sql}");
    }
    circuit.set_clock(i64::MAX / 2);
    add(&mut table, &circuit.step(&vec![vec![]; model.inputs.len()]).unwrap());
    let on_time = |side: usize| {
        let mut rows = came[side].clone();
        for row in &late[side] {
            let at = rows.iter().position(|r| (r.id, r.at) == (row.id, row.at)).unwrap();
            rows.remove(at);
        }
        rows
    };
    assert_eq!(table, expected(kind, back, ahead, &on_time(0), &on_time(1)), "seed {seed}: {sql}");
    assert_eq!(circuit.state_rows(), 0, "seed {seed}: {sql}");
}

#[test]
fn streams_joined_by_time_are_the_join_of_the_rows_that_were_not_late() {
    super::oracle::seeds("0..60").for_each(run);
}

//! Streams that are joined by time, with dimensions, and windows of what they give: row by row what a join by hand says, with the dimensions as they
//! are when it is written, wherever a circuit is lost and filled again.

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::streams::{KINDS, Kind, MINUTE, Row, arriving, batch, compiled, fails};
use crate::operators::{Circuit, Known, Mode, texts};
use crate::plan::{CompiledModel, Planner, PlannerOptions};
use crate::project::Dialect;
use crate::types::SignedBatch;

/// Rows as text, and how many there are of each.
type Table = BTreeMap<String, i64>;

/// Where the dimension stands in FROM.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Nowhere,
    /// Beside the left stream, before the right one.
    Before,
    /// In front of it.
    InFront,
    /// Behind both, by the left one or by the right one.
    BehindLeft,
    BehindRight,
    /// In a subquery with the right one.
    Inside,
}

const PLACES: [Place; 6] =
    [Place::Nowhere, Place::Before, Place::InFront, Place::BehindLeft, Place::BehindRight, Place::Inside];

#[derive(Debug, Clone, Copy)]
struct Shape {
    kind: Kind,
    back: i64,
    ahead: i64,
    place: Place,
    /// Whether rows that have no dimension stay.
    keeps: bool,
    /// Of the right stream's time, and which; minutes.
    windows: Option<(bool, Windows)>,
}

#[derive(Debug, Clone, Copy)]
enum Windows {
    Of(i64),
    /// Each so much later than the one before, and so long.
    Hop(i64, i64),
    /// By the stream's key, and what ends one.
    Session(i64),
}

impl Windows {
    fn random(rng: &mut ChaCha8Rng) -> Windows {
        let size = [1, 7, 30][rng.random_range(0..3)];
        match rng.random_range(0..6) {
            0 => Windows::Hop(5, 15),
            // Between these there are gaps.
            1 => Windows::Hop(7, 4),
            2 | 3 => Windows::Session([2, 5, 12][rng.random_range(0..3)]),
            _ => Windows::Of(size),
        }
    }
}

impl Shape {
    fn random(rng: &mut ChaCha8Rng) -> Shape {
        let back = rng.random_range(-5..20);
        let windows = rng.random_bool(0.7).then(|| (rng.random_bool(0.4), Windows::random(rng)));
        // What is looked up below a session is looked up again when a circuit is lost.
        let is_session = matches!(windows, Some((_, Windows::Session(_))));
        Shape {
            kind: KINDS[rng.random_range(0..KINDS.len())],
            back,
            ahead: rng.random_range(-back..20),
            place: PLACES[if is_session { 0 } else { rng.random_range(0..PLACES.len()) }],
            keeps: rng.random_bool(0.6),
            windows,
        }
    }

    fn asks(&self) -> bool {
        matches!(self.kind, Kind::Exists | Kind::NotExists)
    }

    /// Whether the shape is SQL at all.
    fn is_sql(&self) -> bool {
        let right = matches!(self.place, Place::BehindRight) || self.windows.is_some_and(|(right, _)| right);
        !(self.asks() && right || self.place == Place::InFront && self.keeps)
    }

    /// Whether a dimension decides which rows there are of the side that is asked whether it has a match.
    fn is_impossible(&self) -> bool {
        let of_left =
            matches!(self.place, Place::Before | Place::InFront) && matches!(self.kind, Kind::Right | Kind::Full);
        let of_right = self.place == Place::Inside && !matches!(self.kind, Kind::Inner | Kind::Right);
        !self.keeps && (of_left || of_right)
    }

    /// Whether the dimension is the right stream's.
    fn looks_right(&self) -> bool {
        matches!(self.place, Place::BehindRight | Place::Inside)
    }

    fn sql(&self) -> String {
        let Shape { back, ahead, .. } = self;
        let near = format!(
            "l.sid = r.sid and r.timestamp between l.timestamp - interval '{back} minutes' and l.timestamp + interval '{ahead} minutes'"
        );
        let join = if self.keeps { "left join" } else { "join" };
        let dimension = |of: &str| format!(r#"{join} "cdc"."users" as d on d.user_id = {of}.duration % 4"#);
        let left = match self.place {
            Place::Before => format!(r#"STREAM "m"."l" as l {}"#, dimension("l")),
            Place::InFront => {
                r#""cdc"."users" as d join STREAM "m"."l" as l on d.user_id = l.duration % 4"#.to_string()
            }
            _ => r#"STREAM "m"."l" as l"#.to_string(),
        };
        let right = match self.place {
            Place::Inside => {
                format!(r#"(select r.*, d.city from STREAM "m"."r" as r {}) as r"#, dimension("r"))
            }
            _ => r#"STREAM "m"."r" as r"#.to_string(),
        };
        let name = match self.place {
            Place::Nowhere => "'' ",
            Place::Inside if self.asks() => "''",
            Place::Inside => "r.city",
            _ => "d.city",
        };
        let behind = match self.place {
            Place::BehindLeft => dimension("l"),
            Place::BehindRight => dimension("r"),
            _ => String::new(),
        };
        let join = match self.kind {
            Kind::Inner => "join",
            Kind::Left => "left join",
            Kind::Right => "right join",
            Kind::Full => "full join",
            Kind::Exists | Kind::NotExists => "",
        };
        let from = match self.kind {
            Kind::Exists | Kind::NotExists => {
                let not = if self.kind == Kind::NotExists { "not " } else { "" };
                format!("{left} {behind} where {not}exists (select 1 from {right} where {near})")
            }
            _ => format!("{left} {join} {right} on {near} {behind}"),
        };
        let other = if self.asks() { "cast(null as int)" } else { "r.duration" };
        match self.windows {
            None => format!("select l.duration as l, {other} as r, {name} as n from {from}"),
            Some((right, windows)) => {
                let of = if right { "r" } else { "l" };
                let rows =
                    format!("(select {of}.timestamp as at, {of}.sid as k, {name} as n, {other} as s from {from})");
                let size = match windows {
                    Windows::Of(size) => size,
                    Windows::Hop(slide, size) => {
                        return format!(
                            "select window_start, window_end, n, count(*) as c, sum(s) as s from hop({rows}, at, interval '{slide} minutes', interval '{size} minutes') group by 1, 2, 3"
                        );
                    }
                    Windows::Session(gap) => {
                        return format!(
                            "select window_start, window_end, k, count(*) as c, sum(s) as s from session({rows}, at, interval '{gap} minutes', k) group by 1, 2, 3"
                        );
                    }
                };
                format!(
                    "select date_bin(interval '{size} minutes', {of}.timestamp) as w, {name} as n, count(*) as c, sum({other}) as s from {from} group by 1, 2"
                )
            }
        }
    }

    /// What has no match says so when the watermark is more than this past its time.
    fn settles(&self, is_right: bool) -> i64 {
        if is_right { self.back.max(0) } else { self.ahead.max(0) }
    }
}

type Pair = (Option<Row>, Option<Row>);

/// The matches of rows, and rows that have something to say by themselves: matches at once, the others when they settle.
fn joined(shape: &Shape, left: &[Row], right: &[Row]) -> (Vec<Pair>, Vec<Pair>) {
    let matches = |l: &Row, r: &Row| match (l.key.zip(r.key), l.at.zip(r.at)) {
        (Some((a, b)), Some((x, y))) => a == b && x - shape.back <= y && y <= x + shape.ahead,
        _ => false,
    };
    let (mut at_once, mut settled) = (vec![], vec![]);
    for l in left.iter().filter(|l| l.at.is_some()) {
        let found: Vec<&Row> = right.iter().filter(|r| matches(l, r)).collect();
        match shape.kind {
            Kind::Exists | Kind::NotExists => {
                if found.is_empty() == (shape.kind == Kind::NotExists) {
                    settled.push((Some(*l), None));
                }
                continue;
            }
            _ => at_once.extend(found.iter().map(|r| (Some(*l), Some(**r)))),
        }
        if found.is_empty() && matches!(shape.kind, Kind::Left | Kind::Full) {
            settled.push((Some(*l), None));
        }
    }
    if matches!(shape.kind, Kind::Right | Kind::Full) {
        let alone = |r: &&Row| r.at.is_some() && !left.iter().any(|l| matches(l, r));
        settled.extend(right.iter().filter(alone).map(|r| (None, Some(*r))));
    }
    (at_once, settled)
}

/// What the dimension makes of a row: its names.
fn looked_up(shape: &Shape, sites: &[(i64, String)], (l, r): Pair) -> Vec<Option<String>> {
    if shape.place == Place::Nowhere || (shape.place == Place::Inside && shape.asks()) {
        return vec![Some(String::new())];
    }
    let row = if shape.looks_right() { r } else { l };
    let names = sites.iter().filter(|(key, _)| row.is_some_and(|row| i64::from(row.id % 4) == *key));
    let names: Vec<_> = names.map(|(_, name)| Some(name.clone())).collect();
    // A row that is not there has no dimension either, inside the side that is missing.
    let is_missing = row.is_none() && matches!(shape.place, Place::Before | Place::InFront | Place::Inside);
    if names.is_empty() && (shape.keeps || is_missing) { vec![None] } else { names }
}

fn show<T: ToString>(value: Option<T>) -> String {
    value.map_or("-".to_string(), |v| v.to_string())
}

/// Rows that a step should write.
fn written(shape: &Shape, sites: &[(i64, String)], pairs: &[Pair]) -> Table {
    let mut table = Table::new();
    for pair in pairs {
        for name in looked_up(shape, sites, *pair) {
            let (l, r) = *pair;
            let row = format!("{}|{}|{}", show(l.map(|l| l.id)), show(r.map(|r| r.id)), show(name));
            *table.entry(row).or_default() += 1;
        }
    }
    table
}

/// Start, end, and what it is grouped by beside.
type Window = (i64, i64, Option<String>);

/// Every pair in every window that it lies in, with start and end.
fn in_windows(shape: &Shape, pairs: &[Pair]) -> Vec<((i64, i64), Pair)> {
    let Some((is_right, windows)) = shape.windows else { return vec![] };
    let of = |pair: &Pair| if is_right { pair.1 } else { pair.0 };
    let timed = pairs.iter().filter_map(|pair| Some((of(pair)?.key, of(pair)?.at?, *pair)));
    match windows {
        Windows::Of(size) => {
            let one =
                |(_, at, pair): (_, i64, _)| ((at.div_euclid(size) * size, at.div_euclid(size) * size + size), pair);
            timed.map(one).collect()
        }
        Windows::Hop(slide, size) => {
            let all = |(_, at, pair): (_, i64, Pair)| {
                let starts = (at - size + 1..=at).filter(move |start| start.rem_euclid(slide) == 0);
                starts.map(move |start| ((start, start + size), pair))
            };
            timed.flat_map(all).collect()
        }
        Windows::Session(gap) => {
            let mut timed: Vec<(Option<i32>, i64, Pair)> = timed.collect();
            timed.sort_by_key(|(key, at, _)| (*key, *at));
            let follows = |a: &(Option<i32>, i64, Pair), b: &(Option<i32>, i64, Pair)| a.0 == b.0 && b.1 < a.1 + gap;
            let session = |rows: &[(Option<i32>, i64, Pair)]| -> Vec<((i64, i64), Pair)> {
                let bounds = (rows[0].1, rows[rows.len() - 1].1 + gap);
                rows.iter().map(|(.., pair)| (bounds, *pair)).collect()
            };
            timed.chunk_by(follows).flat_map(session).collect()
        }
    }
}

/// The windows whose end, and what may come for them, lies in `due`.
fn closed(shape: &Shape, sites: &[(i64, String)], pairs: &[Pair], due: impl Fn(i64) -> bool) -> Table {
    let Some((is_right, windows)) = shape.windows else { return Table::new() };
    let mut groups: BTreeMap<Window, (i64, Option<i64>)> = BTreeMap::new();
    for ((start, end), pair) in in_windows(shape, pairs) {
        if !due((end + shape.settles(is_right)) * MINUTE) {
            continue;
        }
        let names = match windows {
            Windows::Session(_) => {
                let row = if is_right { pair.1 } else { pair.0 };
                vec![row.and_then(|row| row.key).map(|key| key.to_string())]
            }
            _ => looked_up(shape, sites, pair),
        };
        for name in names {
            let (count, sum) = groups.entry((start, end, name)).or_default();
            *count += 1;
            if let Some(r) = pair.1 {
                *sum = Some(sum.unwrap_or(0) + i64::from(r.id));
            }
        }
    }
    let row = |((start, end, name), (count, sum)): (Window, (i64, Option<i64>))| {
        let window = if matches!(windows, Windows::Of(_)) { start.to_string() } else { format!("{start}|{end}") };
        (format!("{window}|{}|{count}|{}", show(name), show(sum)), 1)
    };
    groups.into_iter().map(row).collect()
}

fn texts_of(change: &[SignedBatch]) -> Table {
    let mut table = Table::new();
    for batch in change {
        for row in 0..batch.num_rows() {
            let value = |column: &ArrayRef| {
                if column.is_null(row) {
                    return "-".to_string();
                }
                match column.data_type() {
                    DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
                    DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
                    DataType::Timestamp(..) => {
                        (column.as_primitive::<TimestampMicrosecondType>().value(row) / MINUTE).to_string()
                    }
                    _ => arrow::util::display::array_value_to_string(column, row).unwrap(),
                }
            };
            assert!(batch.weight(row) > 0, "a row that was written is taken back");
            let values: Vec<String> = batch.rows.columns().iter().map(value).collect();
            *table.entry(values.join("|")).or_default() += batch.weight(row);
        }
    }
    table
}

/// Pairs that `now` has and `before` has not.
fn new_ones(now: Vec<Pair>, before: &[Pair]) -> Vec<Pair> {
    let id = |pair: &Pair| (pair.0.map(|l| (l.id, l.at)), pair.1.map(|r| (r.id, r.at)));
    let mut counts: BTreeMap<_, i64> = BTreeMap::new();
    before.iter().for_each(|pair| *counts.entry(id(pair)).or_default() += 1);
    let is_new = |pair: &Pair| {
        let count = counts.entry(id(pair)).or_default();
        *count -= 1;
        *count < 0
    };
    let mut now = now;
    let mut is_new = is_new;
    now.retain(|pair| is_new(pair));
    now
}

fn sites_batch(model: &CompiledModel, slot: usize, changes: &[((i64, String), i64)]) -> Vec<SignedBatch> {
    if changes.is_empty() {
        return vec![];
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(changes.iter().map(|((key, _), _)| *key))),
        Arc::new(StringArray::from_iter_values(changes.iter().map(|((_, name), _)| name))),
        Arc::new(Int64Array::from(vec![None; changes.len()])),
        Arc::new(Date32Array::from(vec![None; changes.len()])),
    ];
    let rows = RecordBatch::try_new(Arc::clone(&model.inputs[slot].schema), columns).unwrap();
    let weights: Vec<i64> = changes.iter().map(|(_, weight)| *weight).collect();
    vec![SignedBatch::new(rows, weights.into()).unwrap()]
}

fn run(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut shape = Shape::random(&mut rng);
    while !shape.is_sql() {
        shape = Shape::random(&mut rng);
    }
    let sql = shape.sql();
    if shape.is_impossible() {
        let said = fails(&sql);
        // What a filter above says anyway makes another join of it.
        if let Some(said) = said {
            assert!(said.contains("decides which rows") && said.contains("LEFT JOIN"), "seed {seed}: {sql}: {said}");
            return;
        }
    }
    let model = compiled(&sql);
    let plan = model.incremental.as_ref().unwrap();
    let planner = Planner::new(PlannerOptions::new(Dialect::DataFusion)).unwrap();
    let slot = |name: &str| model.inputs.iter().position(|i| i.relation.to_string() == name);
    let (slots, of_sites) = ([slot("l").unwrap(), slot("r").unwrap()], slot("cdc.users"));
    let nothing = || vec![vec![]; model.inputs.len()];
    let back = plan.looks_back();
    assert_eq!(back.is_some(), shape.windows.is_some(), "seed {seed}: {sql}");
    let fresh = |clock: i64| {
        let mode = Mode::Stream { slot: model.stream.unwrap() };
        let mut circuit = Circuit::new("joined", plan, mode, planner.session_state()).unwrap();
        circuit.set_clock_of_gates(clock);
        circuit.set_clock(clock.saturating_sub(back.unwrap_or(0)));
        circuit
    };
    let advance = |circuit: &mut Circuit, clock: i64| {
        circuit.set_clock_of_joins(clock);
        let mut out = circuit.step(&nothing()).unwrap();
        circuit.set_clock(clock);
        out.extend(circuit.step(&nothing()).unwrap());
        texts_of(&out)
    };
    let mut circuit = fresh(i64::MIN);
    let mut clock = i64::MIN;
    let [mut came, mut late, mut on_time]: [[Vec<Row>; 2]; 3] = Default::default();
    let mut sites: Vec<(i64, String)> = vec![];
    let mut id = 0;
    for epoch in 0..25 {
        let said = format!("seed {seed}, epoch {epoch}: {sql}");
        if rng.random_bool(0.2) {
            circuit = fresh(clock);
            let mut inputs = nothing();
            for (side, slot) in slots.into_iter().enumerate() {
                let mut known = Known::new();
                for rows in batch(&model.inputs[slot].schema, &late[side]) {
                    texts(&rows).unwrap().into_iter().for_each(|text| *known.entry(text).or_default() += 1);
                }
                circuit.recall(slot, &known);
                inputs[slot] = batch(&model.inputs[slot].schema, &came[side]);
            }
            if let Some(slot) = of_sites {
                let rows: Vec<_> = sites.iter().map(|site| (site.clone(), 1)).collect();
                inputs[slot] = sites_batch(&model, slot, &rows);
            }
            circuit.step(&inputs).unwrap();
            circuit.take_late();
            advance(&mut circuit, clock);
        }
        let mut inputs = nothing();
        if let Some(slot) = of_sites {
            let mut changes = vec![];
            for _ in 0..rng.random_range(0..3) {
                match sites.is_empty() || rng.random_bool(0.6) {
                    true => {
                        sites.push((rng.random_range(0..4), format!("s{}", rng.random_range(0..6))));
                        changes.push((sites[sites.len() - 1].clone(), 1));
                    }
                    false => changes.push((sites.swap_remove(rng.random_range(0..sites.len())), -1)),
                }
            }
            inputs[slot] = sites_batch(&model, slot, &changes);
        }
        let (before, _) = joined(&shape, &on_time[0], &on_time[1]);
        for (side, slot) in slots.into_iter().enumerate() {
            let rows = arriving(epoch, &mut id, &came[side], &mut rng);
            let is_late = |row: &Row| row.at.is_some_and(|at| at * MINUTE < clock);
            late[side].extend(rows.iter().filter(|r| is_late(r)));
            on_time[side].extend(rows.iter().filter(|r| !is_late(r)));
            inputs[slot] = batch(&model.inputs[slot].schema, &rows);
            came[side].extend(rows);
        }
        let (now, settled) = joined(&shape, &on_time[0], &on_time[1]);
        let out = texts_of(&circuit.step(&inputs).unwrap());
        match shape.windows {
            Some(_) => assert!(out.is_empty(), "{said}: {out:?}"),
            None => assert_eq!(out, written(&shape, &sites, &new_ones(now.clone(), &before)), "{said}"),
        }
        circuit.take_late();
        let old = clock;
        clock = match rng.random_range(0..6) {
            0 => clock,
            _ if epoch == 24 => 1_000 * MINUTE,
            1 => clock.max((epoch * 5 + 15) * MINUTE),
            _ => clock.max((epoch * 5 + rng.random_range(-20..0)) * MINUTE),
        };
        let out = advance(&mut circuit, clock);
        let everything: Vec<Pair> = now.into_iter().chain(settled.iter().copied()).collect();
        let due = |(l, r): &Pair| {
            let (row, stays) = if l.is_some() { (l, shape.settles(false)) } else { (r, shape.settles(true)) };
            let over = row.and_then(|row| row.at).map(|at| (at + stays) * MINUTE);
            over.is_some_and(|over| over < clock && over >= old)
        };
        let expected = match shape.windows {
            Some(_) => closed(&shape, &sites, &everything, |end| end <= clock && end > old),
            None => written(&shape, &sites, &settled.into_iter().filter(due).collect::<Vec<_>>()),
        };
        assert_eq!(out, expected, "{said}: {old} to {clock}");
        // Nobody is remembered who cannot be needed: rows of the streams, what they give in open windows, and dimensions.
        let reach = shape.back.max(0) + shape.ahead.max(0);
        let needed = |row: &&Row| row.at.is_some_and(|at| (at + reach) * MINUTE >= clock);
        let behind = shape.windows.map_or(0, |(is_right, _)| shape.settles(is_right));
        let windows = in_windows(&shape, &everything);
        let open = windows.iter().filter(|((_, end), _)| (end + behind) * MINUTE >= clock).count();
        let most = 4 * came.iter().flatten().filter(needed).count() + open * (2 + sites.len()) + 2 * sites.len();
        let held = circuit.metrics().iter().map(|m| m.state_rows).max().unwrap_or(0);
        assert!(held <= most, "{said}: {held} remembered of {most}");
    }
    let clock = i64::MAX / 2;
    advance(&mut circuit, clock);
    if let Some(slot) = of_sites {
        let mut inputs = nothing();
        let changes: Vec<_> = sites.iter().map(|site| (site.clone(), -1)).collect();
        inputs[slot] = sites_batch(&model, slot, &changes);
        circuit.step(&inputs).unwrap();
    }
    assert_eq!(circuit.state_rows(), 0, "seed {seed}: {sql}");
}

#[test]
fn joined_streams_are_enriched_and_their_windows_written_once() {
    super::oracle::seeds("0..80").for_each(run);
}

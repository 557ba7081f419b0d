//! State never leaks: of rows that came and went nothing is left, in any operator.
//!
//! Every query of [`QUERIES`] takes random epochs (rows come, go, change, come twice) and then sees all of them retracted. After that each
//! node holds the rows that the same node of a new circuit holds, which is none but for the one row of a global aggregate. Room in its tables it may
//! keep, but no more of it after other rows with other keys. The list is complete: every kind of node, arm, aggregate, rank and frame stands in it, or the last test fails.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

use super::contents::Multiset;
use super::oracle::Oracle;
use super::tables::{Kind, Row, Value, row, signed_batch, value};
use crate::operators::{Circuit, Mode};
use crate::plan::incremental::{AggregateClass, ArmKind, Extent, Node, Place, Quantile, Rank};
use crate::types::SignedBatch;

/// What is tried, and a query of it. `{t}`, `{a}`, `{bb}`, `{c}` and `{e}` stand for the tables.
const QUERIES: &[(&str, &str)] = &[
    ("linear", "select id + 1 as n from {t} where b union all select av from {a}"),
    ("constant rows", "select t.id, v.n from {t} join (values (1, 'one'), (2, 'two')) as v (k, n) on t.k1 = v.k"),
    ("unnest", "select id, unnest(li) as x from {t}"),
    ("unnest where a condition holds", "select id, x from {t} left join unnest(t.li) as u(x) on u.x > t.k1"),
    ("groups over unnest", "select x, count(*) as n from {t}, unnest(t.li) as u(x) group by x"),
    ("sums", "select k1, count(*) as n, count(s) as s, sum(id) as i, sum(f) as f, avg(d) as d from {t} group by k1"),
    (
        "a query read twice",
        "with c as (select k1, count(*) as n from {t} group by k1) select x.k1, x.n, y.n as m from c as x join c as y on x.n = y.n",
    ),
    ("global sums", "select count(*) as n, sum(id) as i, avg(f) as f from {t}"),
    (
        "totals",
        "select k1, var_pop(f) as v, stddev(id) as sd, corr(f, id) as c, regr_slope(f, id) as r, bit_xor(id) as x \
         from {t} group by k1",
    ),
    ("extremes", "select k1, min(s) as lo, max(ts) as hi from {t} group by k1"),
    ("truths", "select k1, bool_and(b) as a, bool_or(b) as o from {t} group by k1"),
    ("bits", "select k1, bit_and(id) as a, bit_or(id) as o from {t} group by k1"),
    (
        "places",
        "select k1, first_value(s order by ts, id) as f, last_value(s order by ts, id) as l, \
         nth_value(s, 2 order by ts, id) as n from {t} group by k1",
    ),
    (
        "quantiles",
        "select k1, median(f) as m, percentile_cont(0.3) within group (order by f) as p from {t} group by k1",
    ),
    (
        "recomputed",
        "select k1, array_agg(id order by ts) as a, string_agg(s, ',' order by id) as s, approx_distinct(id) as n \
         from {t} group by k1",
    ),
    (
        "distinct values",
        "select k1, count(distinct s) as n, sum(distinct id) as i, avg(distinct f) as a, median(distinct id) as m, \
         array_agg(distinct id order by id) as l from {t} group by k1",
    ),
    ("grouping sets", "select k1, k2, sum(id) as s, min(s) as lo from {t} group by rollup (k1, k2)"),
    ("distinct", "select distinct k1, s from {t}"),
    ("distinct over unnest", "select distinct x from {t}, unnest(t.li) as u(x)"),
    (
        "first row",
        "select id, k1 from (select *, row_number() over (partition by k1 order by ts) as n from {t}) where n = 1",
    ),
    ("distinct on", "select distinct on (k1) k1, id from {t} order by k1, ts desc"),
    ("first row over unnest", "select distinct on (x) x, id from {t}, unnest(t.li) as u(x) order by x, ts desc"),
    ("inner", "select t.id, a.av from {t} join {a} on t.k1 = a.k1"),
    ("left", "select t.id, a.av from {t} left join {a} on t.k1 = a.k1"),
    ("right", "select t.id, a.av from {t} right join {a} on t.k1 = a.k1"),
    ("full", "select t.id, a.av from {t} full join {a} on t.k1 = a.k1"),
    ("equal nulls", "select t.id, a.av from {t} left join {a} on t.k1 is not distinct from a.k1"),
    ("residual", "select t.id, bb.bn from {t} left join {bb} on t.k2 = bb.k2 and t.ts < bb.since"),
    ("range", "select t.id, a.av from {t} left join {a} on t.k1 between a.k1 - 1 and a.k1 + 1"),
    ("cross", "select t.id, c.cv from {t} cross join {c}"),
    ("self", "select x.id, y.id as other from {t} as x join {t} as y on x.k1 = y.id"),
    (
        "star",
        "select t.id, a.av, bb.bn, c.cv from {t} left join {a} on t.k1 = a.k1 join {bb} on t.k2 = bb.k2 left join {c} on t.s = c.s",
    ),
    ("semi", "select id from {t} where k1 in (select k1 from {a})"),
    ("anti", "select id from {t} where not exists (select 1 from {a} where a.k1 = t.k1)"),
    ("not in", "select id from {t} where k1 not in (select k1 from {a})"),
    ("mark", "select id from {t} where b or exists (select 1 from {a} where a.k1 = t.k1)"),
    ("not in, below or", "select id from {t} where b or k1 not in (select k1 from {a})"),
    ("any", "select id from {t} where id > any (select av from {a})"),
    ("scalar", "select id, (select max(av) from {a} where a.k1 = t.k1) as m from {t}"),
    ("scalar of all rows", "select id from {t} where id > (select avg(av) from {a})"),
    (
        "scalar below a limit",
        "select id, (select an from {a} where a.k1 = t.k1 order by av desc limit 1) as m from {t}",
    ),
    ("lateral", "select t.id, x.an from {t}, lateral (select an from {a} where a.k1 = t.k1 order by av limit 2) as x"),
    ("union", "select k1 from {t} union select k1 from {a}"),
    ("intersect", "select k1 from {t} intersect select k1 from {a}"),
    ("intersect all", "select k1 from {t} intersect all select k1 from {a}"),
    ("except", "select k1 from {t} except select k1 from {a}"),
    ("except all", "select k1 from {t} except all select k1 from {a}"),
    (
        "named twice",
        "with n as (select k1, count(*) as n from {t} group by k1) select x.k1, y.n from n as x join n as y on x.k1 = y.n",
    ),
    ("limit", "select id, ts from {t} order by ts desc limit 5 offset 2"),
    ("top by row number", "select id from {t} qualify row_number() over (partition by k1 order by ts) <= 2"),
    ("top by rank", "select id from {t} qualify rank() over (partition by k1 order by ts) <= 2"),
    ("top by dense rank", "select id from {t} qualify dense_rank() over (partition by k1 order by ts) <= 2"),
    (
        "neighbours",
        "select id, lag(s) over (partition by k1 order by ts, id) as b, lead(s, 2) over (partition by k1 order by ts, id) as a from {t}",
    ),
    ("rows before", "select id, lag(s) over (partition by k1 order by ts, id) as b from {t}"),
    ("rows behind", "select id, lead(s) over (partition by k1 order by ts, id) as a from {t}"),
    (
        "ranks",
        "select id, rank() over (partition by k1 order by ts) as r, dense_rank() over (partition by k1 order by ts) as d from {t}",
    ),
    ("running totals", "select id, sum(id) over (partition by k1 order by ts) as s from {t}"),
    (
        "the rest",
        "select id, sum(id) over (partition by k1 order by ts range between current row and unbounded following) as s from {t}",
    ),
    (
        "whole partitions",
        "select id, max(s) over (partition by k1) as m, last_value(id) over (partition by k1 order by ts rows between unbounded preceding and unbounded following) as l from {t}",
    ),
    (
        "rows frames",
        "select id, sum(id) over (partition by k1 order by ts rows between 2 preceding and 1 following) as s from {t}",
    ),
    (
        "peers",
        "select id, count(*) over (partition by k1 order by ts range between current row and current row) as n from {t}",
    ),
    (
        "groups frames",
        "select id, sum(id) over (partition by k1 order by ts groups between 1 preceding and 1 following) as s from {t}",
    ),
    (
        "range frames",
        "select id, sum(id) over (partition by k1 order by id range between 2 preceding and 2 following) as s from {t}",
    ),
    (
        "windows over groups",
        "select k1, n, rank() over (order by n desc) as r from (select k1, count(*) as n from {t} group by k1)",
    ),
    (
        "sessions",
        "select k1, window_start, count(*) as n from session({t0}, ts, interval '1 hour', k1) group by k1, window_start",
    ),
    ("rows of sessions", "select id, window_start, window_end from session({t0}, ts, interval '2 hours', k1, b)"),
    (
        "groups of sessions",
        "select k1, window_start, window_end, sum(id) as s from session({t0}, ts, interval '2 hours', k1) group by k1, window_start, window_end",
    ),
    (
        "hops",
        "select window_start, count(*) as n from hop({t0}, ts, interval '1 hour', interval '3 hours') group by window_start",
    ),
    (
        "temporal filter",
        "select id, ts from {t} where ts > now() - interval '3 hours' and ts <= now() + interval '1 hour'",
    ),
    ("groups of what is recent", "select k1, count(*) as n from {t} where ts > now() - interval '3 hours' group by k1"),
];

fn sql(query: &str) -> String {
    let mut sql = query.replace("{t0}", "\"src\".\"t\"");
    for name in ["t", "a", "bb", "c", "e"] {
        // With an alias of its own, or one that is given.
        sql = sql.replace(&format!("{{{name}}} as"), &format!("\"src\".\"{name}\" as"));
        sql = sql.replace(&format!("{{{name}}}"), &format!("\"src\".\"{name}\" as {name}"));
    }
    sql
}

/// Rows of a table with keys of few and of many others, and their weights.
fn some_rows(oracle: &Oracle, slot: usize, count: usize, rng: &mut ChaCha8Rng) -> Vec<Row> {
    let table = oracle.tables[slot];
    let one = |rng: &mut ChaCha8Rng| {
        let mut row = row(table, rng);
        if rng.random_bool(0.5) {
            for (at, (_, kind)) in table.columns.iter().enumerate() {
                match kind {
                    Kind::Int => row[at] = Value::Int(rng.random_range(0..10_000)),
                    Kind::Text => row[at] = Value::Text(format!("text {}", rng.random_range(0..10_000))),
                    _ => {}
                }
            }
        }
        row
    };
    (0..count).map(|_| one(rng)).collect()
}

/// A circuit over rows that come and go.
struct Trial {
    oracle: Oracle,
    circuit: Circuit,
    /// The sum of its output.
    total: Multiset,
    present: Vec<Vec<Row>>,
}

impl Trial {
    fn new(query: &str) -> Self {
        let mut oracle = Oracle::new(&sql(query));
        oracle.clock = 1_700_000_000_000_000 + 4 * 3_600_000_000;
        let circuit = oracle.circuit(Mode::View);
        let present = vec![vec![]; oracle.tables.len()];
        Trial { oracle, circuit, total: Multiset::new(), present }
    }

    fn step(&mut self, changes: &[Vec<(Row, i64)>]) {
        let inputs: Vec<Vec<SignedBatch>> = (changes.iter().enumerate())
            .map(|(i, rows)| vec![signed_batch(self.oracle.tables[i], &self.oracle.model.inputs[i].schema, rows)])
            .collect();
        self.circuit.set_clock(self.oracle.clock);
        let output = self.circuit.step(&inputs).unwrap();
        self.oracle.contents.add_signed(&mut self.total, &output);
    }

    /// Rows come (one in ten of them twice), a third of those that are there goes, a tenth changes in one column.
    fn epoch(&mut self, rng: &mut ChaCha8Rng) {
        let mut changes = Vec::new();
        for slot in 0..self.oracle.tables.len() {
            let mut change: Vec<(Row, i64)> = Vec::new();
            let present = &mut self.present[slot];
            present.shuffle(rng);
            let gone = present.split_off(present.len() - present.len() / 3);
            change.extend(gone.into_iter().map(|row| (row, -1)));
            let columns = self.oracle.tables[slot].columns;
            for row in present.iter_mut().take(columns.len().max(5)) {
                change.push((row.clone(), -1));
                let at = rng.random_range(0..columns.len());
                row[at] = value(columns[at].1, self.oracle.tables[slot].keys, rng);
                change.push((row.clone(), 1));
            }
            for row in some_rows(&self.oracle, slot, 60, rng) {
                let times = if rng.random_bool(0.1) { 2 } else { 1 };
                present.extend(std::iter::repeat_n(row.clone(), times));
                change.push((row, times as i64));
            }
            change.shuffle(rng);
            changes.push(change);
        }
        self.step(&changes);
    }

    /// All rows go, over several epochs.
    fn retract_all(&mut self, rng: &mut ChaCha8Rng) {
        while self.present.iter().any(|rows| !rows.is_empty()) {
            let changes: Vec<Vec<(Row, i64)>> = (self.present.iter_mut())
                .map(|rows| {
                    let most = *[20, 100, 1000].choose(rng).unwrap();
                    rows.split_off(rows.len().saturating_sub(most)).into_iter().map(|row| (row, -1)).collect()
                })
                .collect();
            self.step(&changes);
        }
    }
}

/// Bytes a node may keep above what it had after other rows of the same number: its tables grow by doubling.
const ROOM: usize = 4 << 10;

#[test]
fn nothing_is_left_of_rows_that_are_gone() {
    let mut leaks = Vec::new();
    for (seed, (what, query)) in QUERIES.iter().enumerate() {
        let mut rng = ChaCha8Rng::seed_from_u64(seed as u64);
        let mut trial = Trial::new(query);
        let mut new = Trial::new(query);
        new.step(&vec![vec![]; new.oracle.tables.len()]);
        let stateless = trial.oracle.model.incremental.as_ref().unwrap().is_stateless();
        let mut after_first: Vec<usize> = Vec::new();
        // Other rows and other keys each time: what an operator keeps for them would add up.
        for round in 0..4 {
            for _ in 0..5 {
                trial.epoch(&mut rng);
            }
            let held = trial.circuit.metrics();
            let rows: usize = held.iter().map(|m| m.state_rows).sum();
            let one_group = *what == "global sums";
            assert!(stateless || one_group || rows >= 4, "{what}: a test of nothing: {held:#?}");
            trial.retract_all(&mut rng);
            assert_eq!(trial.total, new.total, "{what}: what is given out without rows");
            let left = trial.circuit.metrics();
            if round == 0 {
                after_first = left.iter().map(|m| m.state_bytes).collect();
            }
            for (at, (left, new)) in left.iter().zip(new.circuit.metrics()).enumerate() {
                let most = (after_first[at] * 2).max(new.state_bytes) + ROOM;
                if left.state_rows != new.state_rows || left.state_bytes > most {
                    leaks.push(format!(
                        "{what}, round {round}: {} keeps {} rows and {} bytes of {} and {}; a new one has {} and {}, the first round left {} bytes",
                        left.name,
                        left.state_rows,
                        left.state_bytes,
                        held[at].state_rows,
                        held[at].state_bytes,
                        new.state_rows,
                        new.state_bytes,
                        after_first[at]
                    ));
                }
            }
        }
    }
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[test]
fn what_the_clock_has_passed_is_forgotten() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut trial = Trial::new("select k1, count(*) as n from {t} where ts > now() - interval '3 hours' group by k1");
    trial.epoch(&mut rng);
    assert!(trial.circuit.state_rows() > 20);
    trial.oracle.clock += 400 * 24 * 3_600_000_000;
    trial.step(&[vec![]]);
    assert_eq!(trial.circuit.state_rows(), 0, "{:#?}", trial.circuit.metrics());
    // The rows are deleted after that: nobody remembers them, and nobody minds.
    trial.retract_all(&mut rng);
    assert_eq!((trial.circuit.state_rows(), trial.total), (0, Multiset::new()));
}

#[test]
fn a_stream_forgets_the_dimensions_that_are_gone() {
    let oracle =
        Oracle::new(&sql("select t.id, a.av, bb.bn from {t} left join {a} on t.k1 = a.k1 join {bb} on t.k2 = bb.k2"));
    let stream = oracle.tables.iter().position(|t| t.name == "t").unwrap();
    let mut circuit = oracle.circuit(Mode::Stream { slot: stream });
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let rows: Vec<Vec<Row>> = (0..oracle.tables.len()).map(|slot| some_rows(&oracle, slot, 300, &mut rng)).collect();
    let change = |weight: i64| -> Vec<Vec<SignedBatch>> {
        let one = |slot: usize| {
            let weight = if slot == stream { 1 } else { weight };
            let rows: Vec<(Row, i64)> = rows[slot].iter().map(|row| (row.clone(), weight)).collect();
            vec![signed_batch(oracle.tables[slot], &oracle.model.inputs[slot].schema, &rows)]
        };
        (0..oracle.tables.len()).map(one).collect()
    };
    circuit.step(&change(1)).unwrap();
    assert!(circuit.state_rows() > 300);
    circuit.step(&change(-1)).unwrap();
    assert_eq!(circuit.state_rows(), 0, "{:#?}", circuit.metrics());
}

/// The name of each variant, and the list of the names: a new variant does not compile without a name here, and its name fails
/// [`every_operator_is_tried`] without a query.
macro_rules! names {
    ($name:ident, $all:ident, $type:ty: $($variant:pat => $text:literal,)*) => {
        fn $name(value: &$type) -> &'static str {
            match value { $($variant => $text,)* }
        }
        const $all: &[&str] = &[$($text,)*];
    };
}

names! { node_name, NODES, Node:
    Node::Input { .. } => "node input",
    Node::Constant { .. } => "node constant",
    Node::Project { .. } => "node project",
    Node::Filter { .. } => "node filter",
    Node::Union { .. } => "node union",
    Node::Unnest { .. } => "node unnest",
    Node::Join { .. } => "node join",
    Node::Aggregate { .. } => "node aggregate",
    Node::First { .. } => "node first",
    Node::Window { .. } => "node window",
    Node::Session { .. } => "node session",
    Node::Temporal { .. } => "node temporal",
    Node::Shared { .. } => "node shared",
    Node::Arranged { .. } => "node arranged",
}

names! { class_name, CLASSES, AggregateClass:
    AggregateClass::Count => "count",
    AggregateClass::Sum => "sum",
    AggregateClass::Avg => "avg",
    AggregateClass::Total => "total",
    AggregateClass::Min => "min",
    AggregateClass::Max => "max",
    AggregateClass::BoolAnd => "bool_and",
    AggregateClass::BoolOr => "bool_or",
    AggregateClass::BitAnd => "bit_and",
    AggregateClass::BitOr => "bit_or",
    AggregateClass::Place(Place::First) => "first",
    AggregateClass::Place(Place::Last) => "last",
    AggregateClass::Place(Place::Nth(_)) => "nth",
    AggregateClass::Quantile(Quantile::Median) => "median",
    AggregateClass::Quantile(Quantile::Percentile(_)) => "percentile",
    AggregateClass::Recompute => "recompute",
}

names! { arm_name, ARMS, ArmKind:
    ArmKind::Inner => "inner",
    ArmKind::Left => "left",
    ArmKind::Semi => "semi",
    ArmKind::Anti => "anti",
    ArmKind::NotIn => "not in",
    ArmKind::Mark => "mark",
}

names! { rank_name, RANKS, Rank:
    Rank::RowNumber => "top row number",
    Rank::Rank => "top rank",
    Rank::DenseRank => "top dense rank",
}

const EXTENTS: &[&str] = &["nothing", "rows", "peers", "groups", "distance", "all"];

fn extent_name(extent: Extent) -> &'static str {
    match extent {
        all if all.is_all() => "all",
        Extent { distance: Some(_), .. } => "distance",
        Extent { groups: 1.., .. } => "groups",
        Extent { peers: true, .. } => "peers",
        Extent { rows: 0, .. } => "nothing",
        _ => "rows",
    }
}

/// What `node` and those below it are made of.
fn parts(node: &Node, found: &mut BTreeSet<String>) {
    found.insert(node_name(node).into());
    match node {
        Node::Join { arms, .. } => found.extend(arms.iter().map(|arm| arm_name(&arm.kind).to_string())),
        Node::Aggregate { aggregates, sets, .. } => {
            for aggregate in aggregates {
                found.insert(class_name(&aggregate.class).into());
                if aggregate.distinct {
                    found.insert("distinct values".into());
                }
            }
            if !sets.is_empty() {
                found.insert("grouping sets".into());
            }
        }
        Node::Window { reach, visible, .. } => {
            found.insert(format!("before {}", extent_name(reach.before)));
            found.insert(format!("after {}", extent_name(reach.after)));
            if let Some(visible) = visible {
                found.insert(rank_name(&visible.rank).into());
            }
        }
        _ => {}
    }
    node.below().into_iter().for_each(|below| parts(below, found));
}

#[test]
fn every_operator_is_tried() {
    let (mut found, mut operators) = (BTreeSet::new(), BTreeSet::new());
    for (what, query) in QUERIES {
        let trial = Trial::new(query);
        let plan = trial.oracle.model.incremental.as_ref().unwrap_or_else(|why| panic!("{what}: {why}"));
        parts(plan, &mut found);
        operators.extend(trial.circuit.metrics().iter().map(|m| m.name));
    }
    let extents = ["before", "after"].iter().flat_map(|side| EXTENTS.iter().map(move |e| format!("{side} {e}")));
    let named = [NODES, CLASSES, ARMS, RANKS].into_iter().flatten().map(|name| name.to_string());
    let wanted: BTreeSet<String> =
        named.chain(extents).chain(["distinct values", "grouping sets"].map(str::to_string)).collect();
    let missing: Vec<&String> = wanted.difference(&found).collect();
    assert!(missing.is_empty(), "QUERIES has none with: {missing:?}");
    // The operators of circuits, by the names they give themselves.
    let names =
        include_str!("../circuit.rs").split_once("fn name(&self)").unwrap().1.split_once("\n    }\n").unwrap().0;
    let names: BTreeSet<&str> = names.split('"').skip(1).step_by(2).collect();
    assert!(names.len() >= 11, "{names:?}");
    // Of these nothing is ever retracted: the first of rows that stay, and the stream in front of a watermark (`tests::streams` sees it empty).
    operators.extend(["first rows", "gate"]);
    assert_eq!(operators, names, "an operator is new, or gone: QUERIES needs a query of it");
}

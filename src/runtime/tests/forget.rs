//! Views that forget groups behind a watermark, and read them again from the lake: at which version, after which start, and how much.

use super::oracle::lived;
use super::scenario::{Damage, ModelKind, Round, Scenario, Upkeep, Written};
use super::world::{Ended, World};
use crate::operators::tests::changes::{Change, table};
use crate::operators::tests::tables::Value;

const HOUR: i64 = 3_600_000_000;
const START: i64 = 1_699_999_200_000_000;

/// A row of table `t` of some hour, minute 30.
fn row(id: i64, hour: i64) -> Change {
    let mut row = vec![Value::Null; table("t").columns.len()];
    (row[0], row[1], row[7]) = (Value::Int(id), Value::Int(id % 3), Value::Int(START + hour * HOUR + HOUR / 2));
    Change { table: "t".into(), weight: 1, cut: false, row }
}

fn gone(change: Change) -> Change {
    Change { weight: -1, ..change }
}

fn view(name: &str, sql: &str) -> Written {
    Written { name: name.into(), sql: sql.into(), kind: ModelKind::View, expectation: None }
}

fn models() -> Vec<Written> {
    let t = "\"src\".\"t\"";
    vec![
        view(
            "hourly",
            &format!(
                "select date_trunc('hour', ts) as h, k1, count(*) as n, min(id) as lo, count(distinct id) as d from {t} as t group by 1, 2"
            ),
        ),
        view(
            "hops",
            &format!(
                "select window_start, window_end, sum(id) as s from hop({t}, ts, interval '1 hour', interval '3 hours') group by 1, 2"
            ),
        ),
        view(
            "last",
            &format!(
                "select h, k1, id from (select date_trunc('hour', ts) as h, k1, id, row_number() over (partition by date_trunc('hour', ts), k1 order by id desc) as r from {t} as t) as x where r = 1"
            ),
        ),
        view(
            "running",
            &format!("select id, sum(id) over (partition by date_trunc('hour', ts) order by id) as s from {t} as t"),
        ),
        view(
            "visits",
            &format!(
                "select k1, window_start, window_end, count(*) as n, min(id) as lo from session({t}, ts, interval '90 minutes', k1) group by 1, 2, 3"
            ),
        ),
        view("visited", &format!("select id, window_start, window_end from session({t}, ts, interval '1 hour')")),
        view("above", "select n, count(*) as groups from \"m\".\"hourly\" as x group by n"),
        // A view with a watermark of its own, whose rows change.
        view("w_hours", &format!("select date_trunc('hour', ts) as h, count(*) as n from {t} as t group by 1")),
        view(
            "pairs",
            "select date_bin(interval '2 hours', h) as p, sum(n) as n, max(n) as m from \"m\".\"w_hours\" as w group by 1",
        ),
    ]
}

/// Three rows in each of four hours, epoch by epoch.
fn hours() -> Vec<Vec<Change>> {
    (0..4).map(|hour| (0..3).map(|i| row(hour * 10 + i, hour)).collect()).collect()
}

fn scenario(rounds: Vec<Round>) -> Scenario {
    Scenario { seed: 1, states: Some(1 << 30), watermark: Some(0), rounds, ..Scenario::default() }
}

/// How often groups were forgotten, how many buckets were read again, and how many models went on with stored state; all tables were right after
/// every epoch.
fn outcome(rounds: Vec<Round>) -> (u64, u64, usize) {
    let (ended, world) = lived(&scenario(rounds)).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(ended, Ended::Passed);
    (world.forgotten.0, world.forgotten.1, world.restored)
}

fn first(epochs: Vec<Vec<Change>>, keep: Option<usize>) -> Round {
    Round { models: models(), epochs, keep, ..Round::default() }
}

#[test]
fn late_rows_and_late_retractions_find_their_groups() {
    let mut epochs = hours();
    epochs.push(vec![row(100, 0), gone(row(1, 0)), gone(row(0, 0)), gone(row(2, 0))]);
    epochs.push(vec![row(101, 0), row(102, 5), gone(row(10, 1))]);
    epochs.push(vec![gone(row(101, 0)), gone(row(100, 0))]);
    let (forgot, remembered, _) = outcome(vec![first(epochs, None)]);
    assert!(forgot >= 4 && remembered >= 4, "{forgot} {remembered}");
}

#[test]
fn rows_of_a_whole_past_come_at_once() {
    let mut epochs = hours();
    epochs.push((0..60).map(|i| row(1000 + i, i - 40)).collect());
    epochs.push((0..60).map(|i| gone(row(1000 + i, i - 40))).collect());
    let (_, remembered, _) = outcome(vec![first(epochs, None)]);
    assert!(remembered >= 60, "{remembered}");
}

#[test]
fn state_that_has_forgotten_is_stored_and_goes_on_from_there() {
    // The snapshot stands after `keep` epochs; the ones behind it touch what it has forgotten, and so does the next start.
    for keep in 2..=6 {
        let mut epochs = hours();
        epochs.push(vec![row(100, 0), gone(row(0, 0))]);
        epochs.push(vec![row(101, 1), row(102, 6)]);
        let again = || Round {
            epochs: vec![vec![row(110, 0), gone(row(100, 0))], vec![row(111, 2), gone(row(11, 1))]],
            ..Round::default()
        };
        let late = Round { epochs: vec![vec![gone(row(110, 0)), row(120, 1)]], ..Round::default() };
        let (_, remembered, restored) = outcome(vec![first(epochs, Some(keep)), again(), late]);
        assert!(restored >= 8, "{restored}, stored after {keep}");
        assert!(remembered > 0, "stored after {keep}");
    }
}

#[test]
fn without_its_state_a_view_is_rebuilt_and_forgets_again() {
    let mut epochs = hours();
    epochs.push(vec![row(100, 0)]);
    let next = |damage, upkeep: Vec<Upkeep>| Round {
        epochs: vec![vec![row(110, 0), gone(row(100, 0)), row(102, 9)], vec![row(111, 1)]],
        damage,
        upkeep,
        ..Round::default()
    };
    for damage in [Damage::Delete, Damage::Flip(1_000)] {
        let rounds = vec![
            first(epochs.clone(), Some(4)),
            next(Some(damage), vec![]),
            Round {
                upkeep: vec![Upkeep::Optimize, Upkeep::Vacuum],
                epochs: vec![vec![row(130, 0), gone(row(12, 1))]],
                ..Round::default()
            },
        ];
        outcome(rounds);
    }
}

#[test]
fn a_crash_anywhere_leaves_views_that_are_right() {
    for nth in 1..14 {
        for point in ["after-log-put", "before-log-put"] {
            let mut epochs = hours();
            epochs.push(vec![row(100, 0), gone(row(0, 0))]);
            let crash = Round {
                epochs: vec![vec![row(110, 0), gone(row(100, 0))], vec![row(111, 1), row(112, 7)]],
                crash: Some(format!("{point}:{nth}")),
                ..Round::default()
            };
            let after = Round { epochs: vec![vec![row(120, 0), gone(row(10, 1))]], ..Round::default() };
            outcome(vec![first(epochs, Some(4)), crash, after]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_while_state_was_loaded_is_not_counted_twice() {
    let mut world = World::new(scenario(vec![first(hours(), Some(3))])).unwrap();
    assert_eq!(world.run().await.unwrap(), Ended::Passed);
    // The views sit these epochs out: in the end the table holds rows that the circuits have not seen, in buckets they have forgotten.
    let late = vec![vec![row(200, 0), gone(row(1, 0))], vec![row(201, 0), row(202, 1)], vec![gone(row(200, 0))]];
    let seen = world.slow_start("t", &["hourly"], late).await;
    assert_eq!(seen.first().unwrap()[1], seen[2][1], "the view waits");
    assert_eq!(world.restored, 9);
}

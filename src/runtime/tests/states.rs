//! Stored state through restarts: when it is used, and that whatever is wrong with it costs a rebuild and nothing else.

use super::oracle::counted;
use super::scenario::{Damage, ModelKind, Round, Scenario, Upkeep, Written};
use super::world::{Ended, World};
use crate::operators::tests::changes::{Change, table};
use crate::operators::tests::tables::Value;

/// A row of table `name` with these integers first, NULL elsewhere.
fn ints(name: &str, values: &[i64]) -> Change {
    let mut row: Vec<Value> = values.iter().map(|v| Value::Int(*v)).collect();
    row.resize(table(name).columns.len(), Value::Null);
    Change { table: name.into(), weight: 1, cut: false, row }
}

fn written(name: &str, sql: &str, kind: ModelKind) -> Written {
    Written { name: name.into(), sql: sql.into(), kind, expectation: None }
}

const TOTAL: &str = "select k1, count(*) as n, max(id) as newest from \"src\".\"t\" as t group by k1";
const JOINED: &str = "select t.id, a.av from \"src\".\"t\" as t left join \"src\".\"a\" as a on t.k1 = a.k1";
const ABOVE: &str = "select n, count(*) as groups from \"m\".\"v1\" as v1 group by n";

fn models() -> Vec<Written> {
    vec![
        written("v1", TOTAL, ModelKind::View),
        written("v2", JOINED, ModelKind::View),
        written("v3", ABOVE, ModelKind::View),
    ]
}

fn insert(id: i64) -> Vec<Change> {
    vec![ints("t", &[id, id % 3]), ints("a", &[id % 5])]
}

fn scenario(rounds: Vec<Round>) -> Scenario {
    Scenario { seed: 1, states: Some(1 << 30), rounds, ..Scenario::default() }
}

/// How many models went on with stored state; all tables were right after every epoch.
fn restored(scenario: Scenario) -> usize {
    let (ended, [restored, _]) = counted(&scenario).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(ended, Ended::Passed);
    restored
}

/// State stored after `keep` of three epochs, then `next`.
fn then(keep: usize, next: Round) -> Scenario {
    let first =
        Round { models: models(), epochs: vec![insert(1), insert(2), insert(3)], keep: Some(keep), ..Round::default() };
    scenario(vec![first, next])
}

fn news() -> Round {
    Round { epochs: vec![insert(4), insert(5)], ..Round::default() }
}

#[test]
fn every_view_goes_on_with_its_state() {
    assert_eq!(restored(then(3, news())), 3, "stored at the end");
    assert_eq!(restored(then(1, news())), 3, "and two epochs earlier");
    assert_eq!(restored(Scenario { states: None, ..then(3, news()) }), 0, "not when it is switched off");
}

#[test]
fn state_is_good_for_several_restarts() {
    let rounds = || vec![news(), Round { upkeep: vec![Upkeep::Optimize, Upkeep::Vacuum], ..news() }, news()];
    let mut all = then(2, news());
    all.rounds.extend(rounds());
    assert_eq!(restored(all), 12, "the log since the snapshot is kept, through compaction and vacuum");
}

#[test]
fn without_the_history_since_the_snapshot_the_views_are_rebuilt() {
    let upkeep = || Round { upkeep: vec![Upkeep::Optimize, Upkeep::Vacuum], ..news() };
    // The snapshot is too old to claim history: the first vacuum takes it.
    let lost = Scenario { states: Some(0), ..then(1, upkeep()) };
    assert_eq!(restored(lost), 0);
    let kept = Scenario { states: Some(0), ..then(3, news()) };
    assert_eq!(restored(kept), 3, "nothing was lost that this one needs");
}

#[test]
fn damaged_cut_missing_and_older_state() {
    for at in [3, 70, 1_000, 9_999, 54_321] {
        for damage in [Damage::Flip(at), Damage::Cut(at), Damage::Delete] {
            assert_eq!(restored(then(3, Round { damage: Some(damage), ..news() })), 0, "{damage:?}");
        }
    }
    let mut older = then(1, Round { keep: Some(2), ..news() });
    older.rounds.push(Round { damage: Some(Damage::Older), ..news() });
    assert_eq!(restored(older), 6, "an older snapshot serves as well");
}

#[test]
fn an_edited_view_is_rebuilt_and_its_readers_follow() {
    let edited = written("v1", &format!("{TOTAL} having count(*) > 1"), ModelKind::View);
    assert_eq!(restored(then(3, Round { models: vec![edited], ..news() })), 2, "the others have theirs");
    // Other columns: what reads it is rebuilt, too.
    let wider = "select k1, count(*) as n, max(id) as newest, min(id) as oldest from \"src\".\"t\" as t group by k1";
    let wider = written("v1", wider, ModelKind::View);
    assert_eq!(restored(then(3, Round { models: vec![wider], ..news() })), 1);
}

#[test]
fn a_crash_anywhere_leaves_a_snapshot_that_fits_or_none() {
    for nth in 1..16 {
        for point in ["after-log-put", "before-log-put"] {
            let crash = Round { crash: Some(format!("{point}:{nth}")), ..news() };
            let mut all = then(2, crash);
            all.rounds.push(news());
            restored(all);
        }
    }
    for point in ["before-state-put", "before-state-put:2", "after-state-put", "after-state-put:3"] {
        let crash = Round { crash: Some(point.into()), keep: Some(1), ..news() };
        let mut all = then(2, crash);
        all.rounds.push(news());
        assert!(restored(all) >= 5, "{point}: what could not be written costs nothing else");
    }
}

#[test]
fn streaming_tables_get_their_dimensions_and_keys_back() {
    let enriched = "select e.id, a.an from stream \"src\".\"e\" as e left join \"src\".\"a\" as a on e.k1 = a.k1";
    let first = "select s, id, k1, ts from (select e.*, row_number() over (partition by e.s order by id) as n \
                 from stream \"src\".\"e\" as e) as x where n = 1";
    let models = vec![
        written("enriched", enriched, ModelKind::Enriched),
        written("first", first, ModelKind::First),
        written("v1", TOTAL, ModelKind::View),
    ];
    let events = |id| vec![ints("e", &[id, id]), ints("a", &[id]), ints("t", &[id])];
    for keyed in [false, true] {
        for keep in [1, 2] {
            let rounds = vec![
                Round {
                    models: models.clone(),
                    epochs: vec![events(1), events(2)],
                    keep: Some(keep),
                    ..Round::default()
                },
                Round { epochs: vec![events(3)], ..Round::default() },
                Round { epochs: vec![events(2), events(4)], ..Round::default() },
            ];
            let all = Scenario { keyed, ..scenario(rounds) };
            assert!(restored(all) >= 6, "keyed {keyed}, stored after {keep}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bronze_commits_while_the_state_of_views_is_loaded() {
    let first =
        Round { models: models(), epochs: vec![insert(1), insert(2), insert(3)], keep: Some(2), ..Round::default() };
    let mut world = World::new(scenario(vec![first])).unwrap();
    assert_eq!(world.run().await.unwrap(), Ended::Passed);
    let seen = world.slow_start("t", &["v1", "v2", "v3"], vec![insert(4), insert(5), insert(6)]).await;
    // The views stay where they were, then have everything at once.
    assert_eq!(seen, [vec![4, 3, 3, 1], vec![5, 3, 3, 1], vec![6, 3, 3, 1], vec![6, 3, 8, 1]]);
    assert_eq!(world.restored, 3);
}

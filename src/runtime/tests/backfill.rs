//! Views that must be computed anew are computed beside their tables; the oracle's `live` rounds do it at random.

use super::scenario::{ModelKind, Round, Scenario, Written};
use super::world::{Ended, World};
use crate::operators::tests::changes::{Change, table};
use crate::operators::tests::tables::Value;

fn view(name: &str, sql: &str) -> Written {
    Written { name: name.into(), sql: sql.into(), kind: ModelKind::View, expectation: None }
}

/// A row of table `t` with this id and key.
fn insert(id: i64) -> Vec<Change> {
    let mut row = vec![Value::Int(id), Value::Int(id % 3)];
    row.resize(table("t").columns.len(), Value::Null);
    vec![Change { table: "t".into(), weight: 1, cut: true, row }]
}

async fn world() -> World {
    let models = vec![
        view("v1", "select k1, count(*) as n from \"src\".\"t\" as t group by k1"),
        view("v2", "select n, count(*) as keys from \"m\".\"v1\" as v1 group by n"),
        view("w", "select id from \"src\".\"t\" as t"),
    ];
    let first = Round { models, epochs: (0..6).map(insert).collect(), keep: Some(6), ..Round::default() };
    let scenario = Scenario { seed: 1, states: Some(1 << 30), rounds: vec![first], ..Scenario::default() };
    let mut world = World::new(scenario).unwrap();
    assert_eq!(world.run().await.unwrap(), Ended::Passed);
    world
}

/// The columns of what `slow_edit` saw: rows and versions of one table.
fn of(seen: &[Vec<(u64, i64)>], table: usize) -> (Vec<u64>, Vec<i64>) {
    seen.iter().map(|epoch| epoch[table]).unzip()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_view_is_swapped_in_by_one_commit_while_others_go_on() {
    let mut world = world().await;
    let edited = [view("v1", "select k1, count(*) as n from \"src\".\"t\" as t where id > 2 group by k1")];
    let seen = world.slow_edit(&edited, &["t", "w", "v1", "v2"], vec![insert(6), insert(9)]).await;
    assert_eq!(of(&seen, 0).0[..3], [6, 7, 8]);
    assert_eq!(of(&seen, 1).0[..3], [6, 7, 8], "what does not read it has every epoch");
    let (_, versions) = of(&seen, 2);
    let before = versions[0];
    assert_eq!(versions[..3], [before; 3], "the table stays as it was");
    assert_eq!(versions.last(), Some(&(before + 1)), "one commit swaps in all of it");
    let (_, versions) = of(&seen, 3);
    assert_eq!(versions[..3], [versions[0]; 3], "its reader waits with it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_columns_come_with_one_commit_too() {
    let mut world = world().await;
    let edited = [
        view("v1", "select k1, count(*) as n, max(id) as newest from \"src\".\"t\" as t group by k1"),
        view("x", "select k1, newest from \"m\".\"v1\" as v1 where n > 1"),
    ];
    let seen = world.slow_edit(&edited, &["t", "v1", "x"], vec![insert(6), insert(9)]).await;
    assert_eq!(of(&seen, 0).0[..3], [6, 7, 8]);
    let (rows, versions) = of(&seen, 1);
    let before = versions[0];
    assert_eq!((versions[..3].to_vec(), versions.last()), (vec![before; 3], Some(&(before + 1))));
    assert_eq!(rows.last(), Some(&3));
    assert_eq!(of(&seen, 2).0.last(), Some(&3), "a new view above it follows");
}

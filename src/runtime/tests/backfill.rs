//! Views that must be computed anew are computed beside their tables; the oracle's `live` rounds do it at random.

use super::scenario::{ModelKind, Round, Scenario, Written};
use super::world::{Ended, World};
use crate::operators::tests::changes::{Change, table};
use crate::operators::tests::tables::Value;
use crate::runtime::How;

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
    assert_eq!(world.how["v2"].0, How::Restored, "and goes on with the difference");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_with_its_state_gets_the_difference_only() {
    let mut world = world().await;
    let lost = [("v1", [insert(6), insert(7)])];
    let seen = world.slow(&[], &lost, &["t", "v1", "v2"], vec![insert(9)]).await;
    assert_eq!(of(&seen, 0).0[..2], [8, 9]);
    let (_, versions) = of(&seen, 1);
    assert_eq!(versions[..2], [versions[0]; 2], "it is computed beside its table");
    assert_eq!(world.how["v1"].0, How::Refresh("behind"));
    // Of three groups two have changed: one row goes and one comes for each.
    assert_eq!(world.how["v2"], (How::Incremental, 4));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_over_a_source_reads_it_again_beside_its_table() {
    let models = vec![
        view("s", "select k1, count(*) as n from \"raw\".\"t\" as t group by k1"),
        view("above", "select n, count(*) as keys from \"m\".\"s\" as s group by n"),
        view("rows", "select id, k1 from \"raw\".\"t\" as t where id >= 0"),
    ];
    let first = Round { models, epochs: (0..6).map(insert).collect(), keep: Some(6), ..Round::default() };
    let scenario = Scenario { seed: 1, states: Some(1 << 30), rounds: vec![first], ..Scenario::default() };
    let mut world = World::new(scenario).unwrap();
    assert_eq!(world.run().await.unwrap(), Ended::Passed);
    let edited = [
        view("s", "select k1, count(*) as n from \"raw\".\"t\" as t where id > 2 group by k1"),
        view("rows", "select id, k1 from \"raw\".\"t\" as t where id > 3"),
    ];
    let bad = Change { table: "t".into(), weight: 0, cut: true, row: vec![] };
    let meanwhile = vec![insert(6), vec![bad], insert(9)];
    let seen = world.slow_edit(&edited, &["t", "s", "above", "rows"], meanwhile).await;
    assert_eq!(of(&seen, 0).0[..4], [6, 7, 7, 8], "others have every epoch of the source");
    for table in [1, 2, 3] {
        let (_, versions) = of(&seen, table);
        assert_eq!(versions[..4], [versions[0]; 4], "the table stays as it was");
    }
    for table in [1, 3] {
        let (_, versions) = of(&seen, table);
        assert_eq!(versions.last(), Some(&(versions[0] + 1)), "one commit swaps in all of it");
    }
    assert_eq!(of(&seen, 3).0.last(), Some(&4), "4, 5, 6 and 9");
}

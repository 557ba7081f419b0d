//! Another program changes a table while smelt runs: the model stops, or is repaired and goes on.

use std::collections::BTreeMap;

use super::scenario::{ModelKind, Round, Scenario, Written};
use super::world::{Ended, World};
use crate::operators::tests::changes::{Change, table};
use crate::operators::tests::tables::Value;

/// A row of table `t` with these integers first, NULL elsewhere.
fn row(values: &[i64]) -> Vec<Change> {
    let mut row: Vec<Value> = values.iter().map(|v| Value::Int(*v)).collect();
    row.resize(table("t").columns.len(), Value::Null);
    vec![Change { table: "t".into(), weight: 1, cut: true, row }]
}

fn models() -> Vec<Written> {
    let written = |name: &str, sql: &str| Written {
        name: name.into(),
        sql: sql.into(),
        kind: ModelKind::View,
        expectation: None,
    };
    vec![
        written("v1", "select k1, count(*) as n from \"src\".\"t\" as t group by k1"),
        written("v2", "select n, count(*) as groups from \"m\".\"v1\" as v1 group by n"),
    ]
}

/// A view, one above it; a row of `model` is deleted after the second of four epochs, all in one process. Models that stopped.
async fn deleted_from(model: &str, repair: bool, states: Option<u64>) -> BTreeMap<String, &'static str> {
    let models = models();
    let epochs = |ids: std::ops::Range<i64>| ids.map(|id| row(&[id, id % 3])).collect::<Vec<_>>();
    let rounds = vec![
        Round { models, epochs: epochs(0..6), driver: Some(2), ..Round::default() },
        Round { epochs: epochs(6..14), driver: Some(1), foreign: Some((model.into(), 2)), ..Round::default() },
    ];
    let mut world = World::new(Scenario { seed: 1, repair, states, rounds, ..Scenario::default() }).unwrap();
    assert_eq!(world.run().await.unwrap(), Ended::Passed);
    world.summary_parked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_the_model_and_its_readers_stop() {
    let parked = deleted_from("v1", false, None).await;
    assert_eq!(parked, BTreeMap::from([("v1".into(), "foreign-change"), ("v2".into(), "upstream-parked")]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repaired_view_holds_its_query_again_and_so_do_its_readers() {
    for states in [None, Some(1 << 30)] {
        assert_eq!(deleted_from("v1", true, states).await, BTreeMap::new());
        assert_eq!(deleted_from("v2", true, states).await, BTreeMap::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_from_a_streaming_table_leaves_its_readers() {
    for states in [None, Some(1 << 30)] {
        assert_eq!(deleted_from("t", true, states).await, BTreeMap::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_nothing_changes_is_looked_at_too() {
    for (repair, model) in [(true, "v1"), (true, "v2"), (false, "v1")] {
        let epochs = (0..6).map(|id| row(&[id, id % 3])).collect();
        let rounds = vec![Round { models: models(), epochs, driver: Some(2), ..Round::default() }];
        let mut world = World::new(Scenario { seed: 1, repair, rounds, ..Scenario::default() }).unwrap();
        assert_eq!(world.run().await.unwrap(), Ended::Passed);
        assert_eq!(world.overtaken(model).await, repair, "{model}");
    }
}

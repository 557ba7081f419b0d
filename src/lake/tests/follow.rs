//! A table that somebody else commits to, as a reader follows it.

use super::*;
use crate::error::ErrorKind;

fn changed(changes: &[SignedBatch]) -> Vec<(i64, i64)> {
    let mut all = Vec::new();
    for batch in changes {
        let keys = batch.rows.column_by_name("id").unwrap().as_primitive::<Int64Type>();
        all.extend(keys.values().iter().enumerate().map(|(row, key)| (*key, batch.weight(row))));
    }
    all.sort_unstable();
    all
}

async fn committed(table: &mut Table, changes: &[(i64, i64)]) {
    table.stage(&[signed(changes)]).await.unwrap();
    table.commit(instance(1)).await.unwrap();
}

#[tokio::test]
async fn a_look_costs_the_same_however_long_the_log_is() {
    let world = World::new(1);
    let mut table = world.lake().create_table("s", "t", spec(true)).await.unwrap();
    for key in 0..50 {
        committed(&mut table, &[(key, 1)]).await;
    }
    let mut followed = world.lake().follow("s", "t").await.unwrap();
    world.store.reset_counts();
    assert!(followed.advance().await.unwrap().is_empty());
    let idle = world.store.counts();
    assert_eq!((idle.gets, idle.lists), (2, 0), "the last entry, and none behind it");
    committed(&mut table, &[(50, 1)]).await;
    committed(&mut table, &[(51, 1)]).await;
    world.store.reset_counts();
    assert_eq!(changed(&followed.advance().await.unwrap()), [(50, 1), (51, 1)]);
    let news = world.store.counts();
    assert_eq!(news.lists, 0);
    assert!(news.gets < 12, "two entries and two files: {}", news.gets);
    assert_eq!(content(followed.table().unwrap()).await, content(&table).await);
}

#[tokio::test]
async fn a_table_that_appears_is_a_change_by_all_its_rows() {
    let world = World::new(2);
    let mut followed = world.lake().follow("s", "t").await.unwrap();
    assert!(followed.advance().await.unwrap().is_empty());
    let mut table = world.lake().create_table("s", "t", spec(true)).await.unwrap();
    committed(&mut table, &[(1, 1), (2, 2), (3, 1)]).await;
    committed(&mut table, &[(3, -1)]).await;
    assert_eq!(changed(&followed.advance().await.unwrap()), [(1, 1), (2, 1), (2, 1)]);
    assert!(followed.advance().await.unwrap().is_empty());
    committed(&mut table, &[(2, -1)]).await;
    assert_eq!(changed(&followed.advance().await.unwrap()), [(2, -1)]);
}

#[tokio::test]
async fn a_new_table_of_the_same_name_is_not_taken_for_the_old_one() {
    // With fewer versions than the old one had, with as many, with more.
    for (seed, commits) in [(3, 1), (4, 3), (5, 7)] {
        let world = World::new(seed);
        let lake = world.lake();
        let mut table = lake.create_table("s", "t", spec(true)).await.unwrap();
        for key in 0..3 {
            committed(&mut table, &[(key, 1)]).await;
        }
        let mut followed = lake.follow("s", "t").await.unwrap();
        lake.drop_table("s", "t").await.unwrap();
        assert!(followed.advance().await.unwrap().is_empty(), "what is gone stays as it was");
        assert_eq!(followed.table().unwrap().version(), 3);
        let mut table = lake.create_table("s", "t", spec(true)).await.unwrap();
        for key in 0..commits {
            committed(&mut table, &[(100 + key, 1)]).await;
        }
        assert_eq!(followed.advance().await.unwrap_err().kind(), ErrorKind::Diverged, "{commits} commits");
    }
}

#[tokio::test]
async fn a_log_that_was_cleaned_up_is_read_anew() {
    let world = World::new(6);
    let mut table = world.lake().create_table("s", "t", spec(true)).await.unwrap();
    committed(&mut table, &[(1, 1)]).await;
    let mut followed = world.lake().follow("s", "t").await.unwrap();
    let remove = async |version: i64| {
        let entry = format!("lake/s/t/{}", super::store::TableStore::log_path(version));
        object_store::ObjectStoreExt::delete(&world.store, &object_store::path::Path::from(entry)).await.unwrap();
    };
    // Nothing was committed meanwhile.
    table.checkpoint().await.unwrap();
    remove(0).await;
    remove(1).await;
    assert!(followed.advance().await.unwrap().is_empty());
    committed(&mut table, &[(2, 1)]).await;
    assert_eq!(changed(&followed.advance().await.unwrap()), [(2, 1)]);
    // What was is no longer to be found out.
    committed(&mut table, &[(3, 1)]).await;
    table.checkpoint().await.unwrap();
    remove(2).await;
    remove(3).await;
    assert_eq!(followed.advance().await.unwrap_err().code(), "history-gone");
}

//! The commit protocol: one put, lost races, fencing, unconfirmed puts.

use super::*;
use crate::env::Fault;
use crate::error::ErrorKind;
use object_store::ObjectStoreExt;
use object_store::path::Path;

async fn table_with(world: &World, keys: &[i64]) -> Table {
    let mut table = world.lake().create_table("s", "t", spec(true)).await.unwrap();
    table.stage(&[SignedBatch::inserts(rows(keys))]).await.unwrap();
    table.commit(instance(1)).await.unwrap();
    table
}

async fn put_entry(world: &World, version: i64, lines: &[serde_json::Value]) {
    let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
    let path = Path::from(format!("lake/s/t/_delta_log/{version:020}.json"));
    world.store.put(&path, text.into()).await.unwrap();
}

#[tokio::test]
async fn a_commit_is_its_data_and_one_log_put() {
    let world = World::new(1);
    let mut table = table_with(&world, &[1, 2, 3]).await;
    // The first retraction reads the table to learn where its rows are; later ones do not.
    table.stage(&[signed(&[(1, -1)])]).await.unwrap();
    table.commit(instance(1)).await.unwrap();
    world.store.reset_counts();
    for i in 0..10 {
        table.stage(&[signed(&[(2, -1), (100 + i, 1), (2, 1), (i + 1, if i < 2 { 0 } else { 1 })])]).await.unwrap();
        table.commit(instance(1)).await.unwrap();
    }
    let appends = world.store.counts();
    assert_eq!((appends.puts, appends.gets, appends.lists, appends.deletes), (20, 0, 0, 0));
    world.store.reset_counts();
    table.stage(&[signed(&[(2, -1), (200, 1)])]).await.unwrap();
    table.commit(instance(1)).await.unwrap();
    let update = world.store.counts();
    assert_eq!((update.puts, update.gets, update.lists), (3, 0, 0), "data, vector, log");
}

#[tokio::test]
async fn a_put_that_lands_although_it_failed_is_ours() {
    for fault in [Fault::Timeout, Fault::Late(0), Fault::Late(1), Fault::Late(2), Fault::Error] {
        let world = World::new(2);
        let mut table = table_with(&world, &[1]).await;
        world.store.fail_next_put("_delta_log", fault);
        table.stage(&[signed(&[(2, 1)])]).await.unwrap();
        assert_eq!(table.commit(instance(1)).await.unwrap(), 2, "{fault:?}");
        world.store.land_late().await;
        table.stage(&[signed(&[(3, 1)])]).await.unwrap();
        assert_eq!(table.commit(instance(1)).await.unwrap(), 3);
        let found = content(&world.lake().table("s", "t").await.unwrap().unwrap()).await;
        assert_eq!(found, Model::from([(1, 1), (2, 1), (3, 1)]), "{fault:?}");
    }
}

#[tokio::test]
async fn an_unresolved_put_is_only_ever_repeated() {
    let world = World::new(3);
    let mut table = table_with(&world, &[1]).await;
    table.stage(&[signed(&[(2, 1)])]).await.unwrap();
    world.store.fail_next_put("_delta_log", Fault::Late(100));
    world.store.fail_next_put("_delta_log", Fault::Error);
    let error = table.commit(instance(1)).await.unwrap_err();
    assert!(error.is_retryable());
    assert!(table.stage(&[signed(&[(3, 1)])]).await.is_err(), "nothing else is staged meanwhile");
    // It lands while nobody looks; trying again finds it.
    world.store.land_late().await;
    assert_eq!(table.commit(instance(1)).await.unwrap(), 2);
    assert_eq!(content(&table).await, Model::from([(1, 1), (2, 1)]));
}

#[tokio::test]
async fn a_discarded_unresolved_put_that_lands_is_noticed() {
    let world = World::new(4);
    let mut table = table_with(&world, &[1]).await;
    table.stage(&[signed(&[(2, 1)])]).await.unwrap();
    world.store.fail_next_put("_delta_log", Fault::Late(100));
    world.store.fail_next_put("_delta_log", Fault::Error);
    table.commit(instance(1)).await.unwrap_err();
    table.discard();
    assert_eq!(table.stage(&[signed(&[(3, 1)])]).await.unwrap_err().kind(), ErrorKind::Diverged);
    table.reload().await.unwrap();
    table.stage(&[signed(&[(3, 1)])]).await.unwrap();
    world.store.land_late().await;
    let error = table.commit(instance(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Diverged, "{error:?}");
    table.discard();
    table.reload().await.unwrap();
    assert_eq!(content(&table).await, Model::from([(1, 1), (2, 1)]));
}

#[tokio::test]
async fn the_lower_instance_is_fenced() {
    let world = World::new(5);
    let mut old = table_with(&world, &[1]).await;
    let mut new = world.lake().table("s", "t").await.unwrap().unwrap();
    new.stage(&[signed(&[(2, 1)])]).await.unwrap();
    new.commit(instance(2)).await.unwrap();
    old.stage(&[signed(&[(2, 1)])]).await.unwrap();
    let error = old.commit(instance(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Fenced, "fenced"));
    // The other way round: the higher one finds that its picture is stale.
    let mut stale = world.lake().table("s", "t").await.unwrap().unwrap();
    new.stage(&[signed(&[(3, 1)])]).await.unwrap();
    new.commit(instance(2)).await.unwrap();
    stale.stage(&[signed(&[(4, 1)])]).await.unwrap();
    assert_eq!(stale.commit(instance(3)).await.unwrap_err().kind(), ErrorKind::Diverged);
}

#[tokio::test]
async fn a_foreign_change_is_not_overwritten() {
    let world = World::new(6);
    let mut table = table_with(&world, &[1]).await;
    let file = table.state.files.values().next().unwrap().file.log_path.clone();
    let remove = serde_json::json!({"remove": {"path": file, "dataChange": true, "deletionTimestamp": 1}});
    put_entry(&world, 2, &[serde_json::json!({"commitInfo": {"operation": "DELETE"}}), remove]).await;
    table.stage(&[signed(&[(1, -1)])]).await.unwrap();
    let error = table.commit(instance(1)).await.unwrap_err();
    assert_eq!(error.code(), "foreign-change");
    table.reload().await.unwrap();
    assert_eq!(content(&table).await, Model::new());
}

/// Somebody else's OPTIMIZE: all files merged into one, as a commit without data change.
async fn foreign_optimize(world: &World) {
    let mut other = world.lake().table("s", "t").await.unwrap().unwrap();
    let version = other.version() + 1;
    other.optimize().await.unwrap();
    assert_eq!(other.version(), version, "there was something to merge");
    let path = Path::from(format!("lake/s/t/_delta_log/{version:020}.json"));
    let text = world.store.get(&path).await.unwrap().bytes().await.unwrap();
    let lines: Vec<serde_json::Value> = text
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .filter(|l: &serde_json::Value| l.get("txn").is_none() && l.get("commitInfo").is_none())
        .collect();
    put_entry(world, version, &lines).await;
}

#[tokio::test]
async fn staged_deletions_follow_rows_that_somebody_moved() {
    let world = World::new(7);
    let mut table = table_with(&world, &[1, 2, 3]).await;
    for keys in [[4, 5, 5], [6, 7, 8]] {
        table.stage(&[SignedBatch::inserts(rows(&keys))]).await.unwrap();
        table.commit(instance(1)).await.unwrap();
    }
    table.stage(&[signed(&[(2, -1)])]).await.unwrap();
    table.commit(instance(1)).await.unwrap();
    foreign_optimize(&world).await;
    table.stage(&[signed(&[(1, -1), (5, -1), (8, -1), (9, 1)])]).await.unwrap();
    assert_eq!(table.commit(instance(1)).await.unwrap(), 6);
    let expected = Model::from([(3, 1), (4, 1), (5, 1), (6, 1), (7, 1), (9, 1)]);
    assert_eq!(content(&table).await, expected);
    assert_eq!(content(&world.lake().table("s", "t").await.unwrap().unwrap()).await, expected);
    // And the table goes on with right locators.
    table.stage(&[signed(&[(3, -1), (9, -1), (5, -1)])]).await.unwrap();
    table.commit(instance(1)).await.unwrap();
    let expected = Model::from([(4, 1), (6, 1), (7, 1)]);
    assert_eq!(content(&world.lake().table("s", "t").await.unwrap().unwrap()).await, expected);
}

#[tokio::test]
async fn a_miss_diverges_and_leaves_no_trace() {
    let world = World::new(8);
    let mut table = table_with(&world, &[1, 2, 2]).await;
    table.stage(&[signed(&[(1, -1)])]).await.unwrap();
    let error = table.stage(&[signed(&[(2, -1), (9, -1), (4, 1)])]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Diverged);
    assert_eq!(content(&table).await, Model::from([(2, 2)]));
    table.stage(&[signed(&[(2, -2)])]).await.unwrap();
    table.commit(instance(1)).await.unwrap();
    assert_eq!(content(&table).await, Model::new());
}

#[tokio::test]
async fn positions_properties_and_schema_survive_reload() {
    let world = World::new(9);
    let mut table = table_with(&world, &[1]).await;
    table
        .commit(CommitRequest {
            txns: vec![("smelt/m/topic/0".into(), 17), (INSTANCE.into(), 1)],
            properties: BTreeMap::from([("smelt.fingerprint".into(), "abc".into())]),
            ..CommitRequest::default()
        })
        .await
        .unwrap();
    let mut wider: Vec<Field> = row_schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    wider.push(Field::new("extra", arrow::datatypes::DataType::Utf8, true));
    let wider = Arc::new(Schema::new(wider));
    table.evolve(&wider, BTreeMap::new()).unwrap();
    table.commit(instance(1)).await.unwrap();
    for found in [&table, &world.lake().table("s", "t").await.unwrap().unwrap()] {
        assert_eq!(found.txn("smelt/m/topic/0"), Some(17));
        assert_eq!(found.properties()["smelt.fingerprint"], "abc");
        assert_eq!(found.schema().fields().len(), wider.fields().len());
        let batches: Vec<RecordBatch> = found.snapshot().rows().try_collect().await.unwrap();
        assert_eq!(batches[0].column_by_name("extra").unwrap().null_count(), 1);
    }
    let narrow = Arc::new(row_schema().project(&[0]).unwrap());
    assert_eq!(table.evolve(&narrow, BTreeMap::new()).unwrap_err().code(), "schema-change");
    table.replace(narrow, BTreeMap::new(), stream(vec![rows(&[5, 6]).project(&[0]).unwrap()])).await.unwrap();
    table.commit(instance(1)).await.unwrap();
    let found = world.lake().table("s", "t").await.unwrap().unwrap();
    assert_eq!((found.row_count(), found.schema().fields().len()), (2, 1));
}

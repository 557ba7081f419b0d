//! Instances, epochs, the ledger, listing and dropping tables.

use super::*;
use crate::env::Fault;
use crate::types::FileEntry;

#[tokio::test]
async fn each_start_takes_the_next_number() {
    let world = World::new(1);
    let lake = world.lake();
    assert_eq!(lake.newest_instance().await.unwrap(), None);
    assert_eq!(lake.claim_instance("h", 1, 0).await.unwrap().number, 1);
    world.store.fail_next_put("instances", Fault::Timeout);
    let second = lake.claim_instance("h", 2, 0).await.unwrap();
    assert_eq!(second.number, 2, "a claim that landed although it failed is ours");
    world.store.fail_next_put("instances", Fault::Error);
    assert_eq!(lake.claim_instance("g", 3, 0).await.unwrap().number, 3);
    assert_eq!(lake.newest_instance().await.unwrap().unwrap().host, "g");
    assert_eq!(lake.instance(), Some(3));
}

#[tokio::test]
async fn the_last_epoch_is_found_again() {
    let world = World::new(2);
    let lake = world.lake();
    let mut epochs = Epochs::open(&lake).await.unwrap();
    assert_eq!(epochs.last(), None);
    let row = |epoch: i64| EpochRow {
        epoch,
        instance: 1,
        committed_at: epoch * 1_000_000,
        partial: epoch % 2 == 0,
        versions: BTreeMap::from([("gold.x".to_string(), epoch), ("silver.y".to_string(), 7)]),
        positions: (0..epoch).map(|i| (format!("smelt/m/{i}"), i)).collect(),
    };
    for epoch in 1..=40 {
        epochs.append(row(epoch)).await.unwrap();
    }
    assert_eq!(Epochs::open(&lake).await.unwrap().last(), Some(&row(40)));
    epochs.table().unwrap().optimize().await.unwrap();
    let mut again = Epochs::open(&lake).await.unwrap();
    assert_eq!(again.last(), Some(&row(40)));
    again.append(row(41)).await.unwrap();
    assert_eq!(Epochs::open(&lake).await.unwrap().last(), Some(&row(41)));
}

#[tokio::test]
async fn a_ledger_keeps_its_entries_in_order() {
    let world = World::new(3);
    let entry = |seq: i64| FileEntry {
        seq,
        path: format!("in/{seq}.json"),
        size: seq * 10,
        etag: (seq % 2 == 0).then(|| format!("e{seq}")),
    };
    let ledger = world.lake().ledger("src", "calls");
    assert_eq!(ledger.entries().await.unwrap(), []);
    ledger.append(&[entry(0), entry(1)]).await.unwrap();
    ledger.append(&[entry(2)]).await.unwrap();
    let again = world.lake().ledger("src", "calls");
    assert_eq!(again.entries().await.unwrap(), [entry(0), entry(1), entry(2)]);
}

#[tokio::test]
async fn tables_are_listed_and_dropped() {
    for local in [false, true] {
        let world = World::new(4);
        let dir = tempfile::tempdir().unwrap();
        let url = if local { dir.path().join("lake").to_str().unwrap().to_string() } else { "memory://lake".into() };
        let lake = Lake::open(&world.env, &url, LakeOptions::default()).unwrap();
        assert!(lake.tables().await.unwrap().is_empty());
        lake.check_writable().await.unwrap();
        for (schema, name) in [("a", "x"), ("a", "y"), ("b", "z")] {
            let mut table = lake.create_table(schema, name, spec(false)).await.unwrap();
            table.stage(&[signed(&[(1, 1)])]).await.unwrap();
            table.commit(instance(1)).await.unwrap();
        }
        lake.claim_instance("h", 1, 0).await.unwrap();
        assert_eq!(lake.create_table("a", "x", spec(true)).await.unwrap_err().code(), "table-exists");
        let named = |list: Vec<(String, String)>| {
            let mut names: Vec<String> = list.into_iter().map(|(s, n)| format!("{s}.{n}")).collect();
            names.sort();
            names
        };
        assert_eq!(named(lake.tables().await.unwrap()), ["a.x", "a.y", "b.z"]);
        lake.drop_table("a", "x").await.unwrap();
        assert_eq!(named(lake.tables().await.unwrap()), ["a.y", "b.z"]);
        assert!(lake.table("a", "x").await.unwrap().is_none());
        lake.create_table("a", "x", spec(true)).await.unwrap();
    }
}

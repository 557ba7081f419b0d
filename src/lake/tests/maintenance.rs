//! Compaction, checkpoints, clean-up: contents stay, files and log shrink.

use super::*;

async fn names(world: &World, part: &str) -> Vec<String> {
    use object_store::ObjectStore;
    let all: Vec<_> = world.store.list(None).try_collect().await.unwrap();
    all.iter().map(|o| o.location.to_string()).filter(|n| n.contains(part)).collect()
}

#[tokio::test]
async fn many_commits_keep_few_files_a_short_log_and_a_small_checkpoint() {
    let world = World::new(1);
    let retention = std::time::Duration::from_secs(10);
    let options = LakeOptions { deleted_file_retention: retention, log_retention: retention, ..LakeOptions::default() };
    let lake = Lake::open(&world.env, "memory://lake", options).unwrap();
    let mut table = lake.create_table("s", "t", spec(true)).await.unwrap();
    let mut model = Model::new();
    let mut most = 0;
    for i in 0..1200i64 {
        let mut changes = vec![(i, 1), (i + 100_000, 2)];
        if i >= 30 {
            changes.extend([(i - 30, -1), (i - 30 + 100_000, -1)]);
        }
        for (key, weight) in &changes {
            *model.entry(*key).or_default() += weight;
        }
        table.stage(&[signed(&changes)]).await.unwrap();
        table.commit(instance(1)).await.unwrap();
        table.start_maintenance();
        tokio::task::yield_now().await;
        table.finish_maintenance().await.unwrap();
        world.env.advance(1_000_000);
        most = most.max(table.state.files.len());
    }
    model.retain(|_, n| *n != 0);
    while table.is_maintaining() {
        tokio::task::yield_now().await;
        table.finish_maintenance().await.unwrap();
    }
    assert!(most <= 200, "{most} files");
    assert_eq!(content(&table).await, model);
    let other = lake.table("s", "t").await.unwrap().unwrap();
    assert_eq!(content(&other).await, model);
    assert!(other.state.tombstones.len() < 600, "{} tombstones", other.state.tombstones.len());
    // The in-memory store's objects are young by its own clock and old by ours: what is left is bounded either way.
    let log = names(&world, "_delta_log").await.len();
    assert!(log < 400, "{log} files in the log");
}

#[tokio::test]
async fn rows_deleted_during_a_compaction_stay_deleted() {
    // Encoded anew, then joined as they are.
    for (seed, deletion_vectors) in [(2, true), (2, false), (5, true), (5, false)] {
        let world = World::new(seed);
        let mut table = world.lake().create_table("s", "t", spec(deletion_vectors)).await.unwrap();
        for i in 0..20 {
            table.stage(&[signed(&[(2 * i, 1), (2 * i + 1, 1)])]).await.unwrap();
            table.commit(instance(1)).await.unwrap();
        }
        assert!(table.start_maintenance());
        table.stage(&[signed(&[(0, -1), (1, -1), (7, -1), (39, -1), (50, 1)])]).await.unwrap();
        while !table.maintenance_ended() {
            tokio::task::yield_now().await;
        }
        assert!(!table.finish_maintenance().await.unwrap(), "waits while changes are staged");
        table.commit(instance(1)).await.unwrap();
        let before = table.state.files.len();
        assert!(table.finish_maintenance().await.unwrap());
        assert_eq!(table.state.files.len() < before, deletion_vectors, "without vectors the merge is abandoned");
        let mut expected: Model = (0..40).map(|k| (k, 1)).collect();
        [0, 1, 7, 39].iter().for_each(|k| {
            expected.remove(k);
        });
        expected.insert(50, 1);
        assert_eq!(content(&table).await, expected);
        // Rows are found where they went.
        table.stage(&[signed(&[(2, -1), (38, -1)])]).await.unwrap();
        table.commit(instance(1)).await.unwrap();
        expected.remove(&2);
        expected.remove(&38);
        assert_eq!(content(&world.lake().table("s", "t").await.unwrap().unwrap()).await, expected);
    }
}

#[tokio::test]
async fn files_that_are_large_enough_are_joined_as_they_are() {
    let world = World::new(7);
    let mut table = world.lake().create_table("s", "t", spec(true)).await.unwrap();
    for i in 0..5 {
        table.stage(&[signed(&(0..40).map(|k| (100 * i + k, 1)).collect::<Vec<_>>())]).await.unwrap();
        table.commit(instance(1)).await.unwrap();
    }
    // Some rows of two files are gone before.
    let gone: Vec<i64> = vec![0, 1, 39, 139];
    table.stage(&[signed(&gone.iter().map(|k| (*k, -1)).collect::<Vec<_>>())]).await.unwrap();
    table.commit(instance(1)).await.unwrap();
    let bytes: u64 = table.state.files.values().map(|f| f.file.size).sum();
    table.optimize().await.unwrap();
    let joined: Vec<_> = table.state.files.values().cloned().collect();
    let [joined] = joined.as_slice() else { panic!("{} files", joined.len()) };
    assert_eq!((joined.file.rows, joined.live_rows()), (200, 196), "rows that are gone are in it, with their vector");
    assert!(joined.file.size < bytes);
    let stats: serde_json::Value = serde_json::from_str(joined.file.stats.as_deref().unwrap()).unwrap();
    assert_eq!((&stats["minValues"]["id"], &stats["maxValues"]["id"]), (&0.into(), &439.into()));
    let file = table.store.get_at(&joined.file.location).await.unwrap();
    let footer = parquet::file::metadata::ParquetMetaDataReader::new().parse_and_finish(&file).unwrap();
    assert_eq!(footer.num_row_groups(), 5);
    // Rows are found where they are now.
    table.stage(&[signed(&[(2, -1), (438, -1), (7, 1)])]).await.unwrap();
    table.commit(instance(1)).await.unwrap();
    let mut expected: Model = (0..5).flat_map(|i| (0..40).map(move |k| (100 * i + k, 1))).collect();
    expected.retain(|k, _| !gone.contains(k) && ![2, 438].contains(k));
    *expected.entry(7).or_default() += 1;
    assert_eq!(content(&world.lake().table("s", "t").await.unwrap().unwrap()).await, expected);
    // With most of its rows gone it is encoded anew.
    let most: Vec<(i64, i64)> = (0..5).flat_map(|i| (8..38).map(move |k| (100 * i + k, -1))).collect();
    table.stage(&[signed(&most)]).await.unwrap();
    table.commit(instance(1)).await.unwrap();
    expected.retain(|k, _| !most.contains(&(*k, -1)));
    table.optimize().await.unwrap();
    assert!(table.state.files.values().all(|f| f.vector.is_none()), "{:?}", table.state.files);
    assert_eq!(content(&table).await, expected);
}

#[tokio::test]
async fn vacuum_deletes_what_nothing_refers_to() {
    let world = World::new(3);
    let mut table = world.lake().create_table("s", "t", spec(true)).await.unwrap();
    for i in 0..4 {
        table.stage(&[signed(&[(i, 1), (i + 10, 1)])]).await.unwrap();
        table.commit(instance(1)).await.unwrap();
    }
    table.stage(&[signed(&[(0, -1)])]).await.unwrap();
    table.commit(instance(1)).await.unwrap();
    // A crashed process left this behind.
    let mut crashed = world.lake().table("s", "t").await.unwrap().unwrap();
    crashed.stage(&[signed(&[(99, 1)])]).await.unwrap();
    drop(crashed);
    table.optimize().await.unwrap();
    table.vacuum(true).await.unwrap();
    assert_eq!(names(&world, ".parquet").await.iter().filter(|n| n.contains("part-")).count(), 6, "young files stay");
    world.env.advance(2 * 3600 * 1_000_000);
    let would = table.vacuumable().await.unwrap();
    let did = table.vacuum(true).await.unwrap();
    assert_eq!(did.files, 6, "four merged files, a vector, the crashed process's file");
    assert!(did == would && did.bytes > 0, "{would:?} {did:?}");
    assert_eq!(names(&world, "part-").await.len(), 1);
    assert_eq!(names(&world, "deletion_vector").await.len(), 0);
    assert_eq!(table.state.tombstones.len(), 0);
    assert_eq!(content(&world.lake().table("s", "t").await.unwrap().unwrap()).await.len(), 7);
}

#[tokio::test]
async fn followed_history_is_kept() {
    let world = World::new(4);
    let mut table = world.lake().create_table("s", "t", spec(true)).await.unwrap();
    for i in 0..4 {
        table.stage(&[signed(&[(i, 1), (i - 1, if i > 0 { -1 } else { 1 })])]).await.unwrap();
        table.commit(instance(1)).await.unwrap();
    }
    table.retain_from(Some(2));
    world.env.advance(48 * 3600 * 1_000_000);
    table.vacuum(true).await.unwrap();
    let changes = table.changes(2, 4).await.unwrap();
    assert_eq!(changes.iter().map(SignedBatch::num_rows).sum::<usize>(), 2);
    table.retain_from(None);
    world.env.advance(48 * 3600 * 1_000_000);
    table.vacuum(true).await.unwrap();
    assert_eq!(table.changes(2, 4).await.unwrap_err().code(), "history-gone");
}

#[tokio::test]
async fn small_files_have_snappy_until_they_are_encoded_anew() {
    let world = World::new(44);
    let mut table = world.lake().create_table("s", "t", spec(true)).await.unwrap();
    let codecs = |table: &Table| {
        let count = |codec: &str| table.state.files.values().filter(|f| f.file.log_path.contains(codec)).count();
        (count(".snappy.parquet"), count(".zstd.parquet"))
    };
    for commit in 0..17 {
        let keys: Vec<i64> = (commit * 1000..(commit + 1) * 1000).collect();
        table.stage(&[SignedBatch::inserts(rows(&keys))]).await.unwrap();
        table.commit(instance(1)).await.unwrap();
    }
    assert_eq!(codecs(&table), (17, 0));
    let before = content(&table).await;
    table.optimize().await.unwrap();
    assert_eq!(codecs(&table), (0, 1));
    let keys: Vec<i64> = (20_000..40_000).collect();
    table.stage(&[SignedBatch::inserts(rows(&keys))]).await.unwrap();
    table.commit(instance(1)).await.unwrap();
    assert_eq!(codecs(&table), (0, 2));
    let mut after = before;
    after.extend(keys.iter().map(|key| (*key, 1)));
    assert_eq!(content(&table).await, after);
}

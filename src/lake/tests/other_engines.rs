//! Another implementation of the protocol reads our logs and checkpoints. (Rows are compared by Python deltalake and DuckDB in
//! the integration tests; `SMELT_TEST_LAKE=/dir` keeps these tables for a look.)

use super::*;

#[tokio::test]
async fn delta_rs_reads_log_and_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real();
    let root = env.var("SMELT_TEST_LAKE").unwrap_or_else(|| dir.path().to_str().unwrap().to_string());
    let options = LakeOptions { log_retention: std::time::Duration::ZERO, ..LakeOptions::default() };
    let lake = Lake::open(&env, &root, options).unwrap();
    for (name, vectors, partition) in [
        ("plain", true, None),
        ("rewritten", false, None),
        ("by_day", true, Some("day")),
        ("by_name", true, Some("name")),
    ] {
        let mut spec = spec(vectors);
        spec.partition_by = partition.map(str::to_string).into_iter().collect();
        let mut table = lake.create_table("s", name, spec).await.unwrap();
        for start in [0, 20, 40] {
            table.stage(&[SignedBatch::inserts(rows(&(start..start + 20).collect::<Vec<_>>()))]).await.unwrap();
            table.commit(instance(7)).await.unwrap();
        }
        for again in [false, true] {
            table.stage(&[signed(&[(if again { 3 } else { 23 }, -1), (30, -1), (30, 1), (100, 1)])]).await.unwrap();
            table.commit(instance(8)).await.unwrap();
            same_in_delta_rs(&root, name, &table).await;
            table.checkpoint().await.unwrap();
            same_in_delta_rs(&root, name, &table).await;
        }
        let first = std::path::Path::new(&root).join(format!("s/{name}/_delta_log/{:020}.json", 0));
        assert!(!first.exists(), "only a checkpoint is left of the beginning");
        assert_eq!(content(&table).await.values().sum::<i64>(), 60);
    }
}

async fn same_in_delta_rs(root: &str, name: &str, table: &Table) {
    let url = url::Url::from_directory_path(std::path::Path::new(root).join("s").join(name)).unwrap();
    let theirs = deltalake::open_table(url).await.unwrap();
    assert_eq!(theirs.version(), Some(table.version() as u64));
    assert_eq!(theirs.get_file_uris().unwrap().count(), table.snapshot().file_count());
    let log = theirs.log_store();
    let instance = theirs.snapshot().unwrap().transaction_version(&*log, INSTANCE).await.unwrap();
    assert_eq!(instance, Some(8));
}

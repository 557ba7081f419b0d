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
            same_in_delta_rs(&root, name, &table);
            table.checkpoint().await.unwrap();
            same_in_delta_rs(&root, name, &table);
        }
        let first = std::path::Path::new(&root).join(format!("s/{name}/_delta_log/{:020}.json", 0));
        assert!(!first.exists(), "only a checkpoint is left of the beginning");
        assert_eq!(content(&table).await.values().sum::<i64>(), 60);
    }
}

/// Python's deltalake, as the integration tests have it (`scripts/setup.sh test`).
fn same_in_delta_rs(root: &str, name: &str, table: &Table) {
    let env = Env::real();
    let cache =
        env.var("SMELT_TEST_CACHE").unwrap_or_else(|| format!("{}/.cache/smelt-test", env.var("HOME").unwrap()));
    let script = "import sys; from deltalake import DeltaTable; t = DeltaTable(sys.argv[1]); \
                  print(t.version(), len(t.file_uris()), t.transaction_version(sys.argv[2]))";
    let path = format!("{root}/s/{name}");
    let output = std::process::Command::new(format!("{cache}/venv/bin/python"))
        .args(["-c", script, &path, INSTANCE])
        .output()
        .expect("Python with deltalake is there: scripts/setup.sh test makes it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = format!("{} {} 8\n", table.version(), table.snapshot().file_count());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

//! A crash at every named point leaves the table before or after the commit, never between.

use super::*;

const POINTS: [&str; 4] = ["after-upload", "before-log-put", "after-log-put", "after-log-put:2"];

async fn life(lake: &Lake) -> Result<()> {
    let mut table = match lake.table("s", "t").await? {
        Some(table) => table,
        None => lake.create_table("s", "t", spec(true)).await?,
    };
    // Each step is decided by the table alone, as recovery does.
    while table.row_count() < 40 {
        let next = table.txn("next").unwrap_or(0);
        let mut changes = vec![(next, 1), (next + 1, 1)];
        if next > 0 {
            changes.push((next - 1, -1));
            changes.push((next - 1, 1));
            changes.push((next - 2, -1));
            changes.push((next + 1000, 1));
        }
        table.stage(&[signed(&changes)]).await?;
        let txns = vec![("next".to_string(), next + 2), (INSTANCE.to_string(), 1)];
        table.commit(CommitRequest { txns, ..CommitRequest::default() }).await?;
        if next % 8 == 6 {
            table.optimize().await?;
            table.checkpoint().await?;
        }
    }
    Ok(())
}

async fn end(world: &World) -> (Model, i64) {
    let table = world.lake().table("s", "t").await.unwrap().unwrap();
    (content(&table).await, table.txn("next").unwrap())
}

#[tokio::test]
async fn every_crash_point() {
    let calm = World::new(1);
    life(&calm.lake()).await.unwrap();
    let expected = end(&calm).await;
    let more = [
        "table-created-before-log",
        "compaction-after-write",
        "compaction-after-put",
        "checkpoint-before",
        "checkpoint-after",
    ];
    for point in POINTS.iter().chain(&more) {
        let world = World::new(2);
        let crashed = life(&world.lake_of(&world.crashing_at(3, point))).await;
        let error = crashed.expect_err(point);
        assert!(error.message().contains("simulated crash"), "{point}: {error}");
        life(&world.lake()).await.unwrap();
        assert_eq!(end(&world).await, expected, "{point}");
    }
}

//! Queries through DataFusion see exactly what is staged, whatever they project, filter or parallelise.

use super::*;
use datafusion::prelude::{SessionConfig, SessionContext};

async fn query(table: &Table, sql: &str) -> Vec<RecordBatch> {
    let context = SessionContext::new_with_config(
        SessionConfig::new().with_target_partitions(3).with_repartition_file_min_size(0),
    );
    context.register_table("t", table.snapshot().provider()).unwrap();
    let frame = context.sql(sql).await.unwrap();
    let plan = frame.schema().as_arrow().clone();
    let batches = frame.collect().await.unwrap();
    for batch in &batches {
        for (a, b) in batch.schema().fields().iter().zip(plan.fields()) {
            assert_eq!(a.data_type(), b.data_type());
        }
    }
    batches
}

async fn table(partition: Option<&str>) -> (World, Table) {
    let world = World::new(1);
    let mut spec = spec(true);
    spec.partition_by = partition.map(str::to_string).into_iter().collect();
    let mut table = world.lake().create_table("s", "t", spec).await.unwrap();
    for start in [0, 50, 100] {
        table.stage(&[SignedBatch::inserts(rows(&(start..start + 50).collect::<Vec<_>>()))]).await.unwrap();
        table.commit(instance(1)).await.unwrap();
    }
    table.stage(&[signed(&(0..150).step_by(7).map(|k| (k, -1)).collect::<Vec<_>>())]).await.unwrap();
    table.commit(instance(1)).await.unwrap();
    table.stage(&[signed(&[(1, -1), (60, -1), (500, 2)])]).await.unwrap();
    (world, table)
}

#[tokio::test]
async fn all_rows_in_the_tables_own_types() {
    for partition in [None, Some("name"), Some("day"), Some("at")] {
        let (_world, table) = table(partition).await;
        let found = query(&table, "select * from t").await;
        assert_eq!(found[0].schema().fields(), table.schema().fields());
        assert_eq!(model_of(&found), content(&table).await, "{partition:?}");
        let counted = query(&table, "select count(*) as n from t").await;
        assert_eq!(counted[0].column(0).as_primitive::<Int64Type>().value(0) as u64, table.row_count());
    }
}

#[tokio::test]
async fn a_filter_returns_what_an_unfiltered_read_does() {
    for partition in [None, Some("name"), Some("day")] {
        let (_world, table) = table(partition).await;
        for predicate in [
            "id > 70",
            "id = 500",
            "ratio > 5",
            "ratio = 'NaN'",
            "ratio is null",
            "ratio = 0",
            "name = 'name3'",
            "name is null",
            "name > 'name4'",
            "day = date '1970-01-03'",
            "day is null",
            "at >= timestamp '1970-01-01T00:00:00.100Z'",
            "amount > 900719925474099.30",
            "amount = (select max(amount) from t)",
            "inner['x'] > 20",
            "tags is null",
        ] {
            let kept = query(&table, &format!("select * from t where {predicate}")).await;
            // In the select list a predicate prunes nothing.
            let all = query(&table, &format!("select *, coalesce({predicate}, false) as keep from t")).await;
            let mut expected = Model::new();
            for batch in &all {
                let keep = batch.column_by_name("keep").unwrap().as_boolean();
                let ids = batch.column(0).as_primitive::<Int64Type>();
                for i in (0..batch.num_rows()).filter(|i| keep.value(*i)) {
                    *expected.entry(ids.value(i)).or_default() += 1;
                }
            }
            assert_eq!(model_of(&kept), expected, "{predicate}, partitioned by {partition:?}");
        }
    }
}

#[tokio::test]
async fn projections_reorder_and_repeat() {
    let (_world, table) = table(Some("day")).await;
    let found = query(&table, "select day, id, day as again, name from t where id < 20 order by id").await;
    let batch = arrow::compute::concat_batches(&found[0].schema(), &found).unwrap();
    let ids = batch.column(1).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(ids, [2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 19]);
    assert_eq!(batch.column(0), batch.column(2));
}

#[tokio::test]
async fn a_wide_epoch_goes_to_several_files() {
    let world = World::new(2);
    let options = LakeOptions { target_file_size: 20_000, ..LakeOptions::default() };
    let lake = Lake::open(&world.env, "memory://lake", options).unwrap();
    let mut table = lake.create_table("s", "t", spec(true)).await.unwrap();
    let batches: Vec<SignedBatch> =
        (0..20).map(|i| SignedBatch::inserts(rows(&(i * 500..i * 500 + 500).collect::<Vec<_>>()))).collect();
    table.stage(&batches).await.unwrap();
    table.commit(instance(1)).await.unwrap();
    assert!(table.snapshot().file_count() > 2, "{} files", table.snapshot().file_count());
    assert_eq!(content(&table).await.len(), 10_000);
}

#[tokio::test]
async fn files_that_lie_elsewhere_in_time_are_left_out() {
    for partition in [None, Some("day"), Some("at")] {
        let (_world, mut table) = table(partition).await;
        table.commit(instance(1)).await.unwrap();
        let snapshot = table.committed_snapshot();
        let day = 86_400_000_000;
        for (column, spans, few) in [
            ("at", vec![(0, 20_000)], true),
            ("at", vec![(49_549, 49_550), (100_599, 100_601)], true),
            ("at", vec![(-501, -500), (i64::MIN, -600)], true),
            ("at", vec![(i64::MIN, i64::MAX)], false),
            ("day", vec![(day, 2 * day)], true),
            ("day", vec![(4 * day, i64::MAX), (-3 * day, 0)], true),
            ("name", vec![(0, 1)], false),
        ] {
            let within = snapshot.within(column, &spans);
            assert_eq!(within.file_count() < snapshot.file_count(), few, "{column} {spans:?} {partition:?}");
            let rows = async |of: &std::sync::Arc<TableSnapshot>| -> Vec<RecordBatch> {
                of.rows().try_collect().await.unwrap()
            };
            let wanted = |batches: &[RecordBatch]| {
                let mut found = Model::new();
                for batch in batches.iter().filter(|_| column != "name") {
                    let times = arrow::compute::cast(
                        batch.column_by_name(column).unwrap(),
                        &arrow::datatypes::DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None),
                    );
                    let times = times.unwrap();
                    let times = times.as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
                    let keys = batch.column(0).as_primitive::<Int64Type>();
                    for (time, key) in times.iter().zip(keys) {
                        if time.is_some_and(|time| spans.iter().any(|(from, until)| (*from..*until).contains(&time))) {
                            *found.entry(key.unwrap()).or_default() += 1;
                        }
                    }
                }
                found
            };
            assert_eq!(
                wanted(&rows(&within).await),
                wanted(&rows(&snapshot).await),
                "{column} {spans:?} {partition:?}"
            );
        }
    }
}

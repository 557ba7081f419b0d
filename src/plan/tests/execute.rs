//! The bulk path: bound to tables and executed.

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use futures::TryStreamExt;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::project::compile_view;
use crate::error::Error;
use crate::plan::{CompiledModel, Planner, PlannerOptions};
use crate::project::{Dialect, SourceMap};

fn planner() -> Planner {
    let mut options = PlannerOptions::new(Dialect::DataFusion);
    options.clock = Arc::new(|| 86_400_000_000);
    Planner::new(options).unwrap()
}

/// One input's rows; columns the test does not name are NULL.
fn table(model: &CompiledModel, slot: usize, columns: &[(&str, ArrayRef)]) -> Arc<dyn TableProvider> {
    let schema = &model.inputs[slot].schema;
    let rows = columns.first().map_or(0, |c| c.1.len());
    let arrays = schema.fields().iter().map(|f| match columns.iter().find(|c| c.0 == f.name()) {
        Some((_, array)) => Arc::clone(array),
        None => arrow::array::new_null_array(f.data_type(), rows),
    });
    let batch = RecordBatch::try_new(Arc::clone(schema), arrays.collect()).unwrap();
    Arc::new(MemTable::try_new(Arc::clone(schema), vec![vec![batch]]).unwrap())
}

async fn rows(planner: &Planner, model: &CompiledModel, tables: &[Arc<dyn TableProvider>]) -> Result<String, Error> {
    let plan = planner.bind(model, tables)?;
    let stream = planner.execute(&plan).await?;
    assert_eq!(stream.schema(), model.schema);
    let batches: Vec<RecordBatch> = stream.try_collect().await?;
    for batch in &batches {
        assert_eq!(batch.schema(), model.schema);
    }
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let mut lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('+')).skip(1).collect();
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

fn ints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

#[tokio::test]
async fn ties_do_not_depend_on_the_order_of_rows() {
    let sql = r#"select user_id, city, n from (
        select *, row_number() over (partition by user_id order by since) as n from "ref"."users") where n = 1"#;
    let model = compile_view(sql).unwrap();
    let there = [("user_id", ints(&[1, 1, 2])), ("city", texts(&["b", "a", "c"]))];
    let back = [("user_id", ints(&[2, 1, 1])), ("city", texts(&["c", "a", "b"]))];
    let first = rows(&planner(), &model, &[table(&model, 0, &there)]).await.unwrap();
    let second = rows(&planner(), &model, &[table(&model, 0, &back)]).await.unwrap();
    assert_eq!(first, "| 1       | a    | 1 |\n| 2       | c    | 1 |");
    assert_eq!(first, second);
}

#[tokio::test]
async fn limits_and_lists_do_not_depend_on_the_order_of_rows() {
    let limit = compile_view(r#"select user_id, city from "ref"."users" limit 2"#).unwrap();
    let list =
        compile_view(r#"select array_agg(city) as cities, any_value(city) as city, count(*) as n from "ref"."users""#)
            .unwrap();
    let there = [("user_id", ints(&[1, 3, 2])), ("city", texts(&["b", "a", "c"]))];
    let back = [("user_id", ints(&[2, 3, 1])), ("city", texts(&["c", "a", "b"]))];
    for rows_in in [there, back] {
        let found = rows(&planner(), &limit, &[table(&limit, 0, &rows_in)]).await.unwrap();
        assert_eq!(found, "| 1       | b    |\n| 2       | c    |");
        let found = rows(&planner(), &list, &[table(&list, 0, &rows_in)]).await.unwrap();
        assert_eq!(found, "| [a, b, c] | a    | 3 |");
    }
}

/// Over several partitions DataFusion forgets the order that only a LIMIT observes, once its key is not selected.
#[tokio::test]
async fn a_limit_by_a_key_that_is_not_selected_gives_the_first_rows() {
    let mut options = PlannerOptions::new(Dialect::DataFusion);
    options.target_partitions = 3;
    let planner = Planner::new(options).unwrap();
    let inner = r#"select city from "ref"."users" order by user_id desc"#;
    for (bounds, expected) in
        [("limit 2", "| f    |\n| z    |"), ("limit 2 offset 1", "| a    |\n| f    |"), ("offset 4", "| b    |")]
    {
        for sql in [
            format!("{inner} {bounds}"),
            format!("select city from ({inner} {bounds}) as x"),
            format!("select city from ({inner} {bounds}) as x group by city"),
            format!(
                "select city from (select city, row_number() over (partition by city order by city) as n from ({inner} {bounds}) as x) as y where n = 1"
            ),
        ] {
            let model = compile_view(&sql).unwrap();
            let schema = &model.inputs[0].schema;
            let part = |ids: &[i64], cities: &[&str]| {
                let columns = [("user_id", ints(ids)), ("city", texts(cities))];
                let arrays = schema.fields().iter().map(|f| match columns.iter().find(|c| c.0 == f.name()) {
                    Some((_, array)) => Arc::clone(array),
                    None => arrow::array::new_null_array(f.data_type(), ids.len()),
                });
                vec![RecordBatch::try_new(Arc::clone(schema), arrays.collect()).unwrap()]
            };
            let parts = vec![part(&[1, 5, 2], &["b", "z", "c"]), part(&[3, 4], &["a", "f"])];
            let table = Arc::new(MemTable::try_new(Arc::clone(schema), parts).unwrap());
            assert_eq!(rows(&planner, &model, &[table]).await.unwrap(), expected, "{sql}");
        }
    }
}

#[tokio::test]
async fn a_scalar_subquery_of_several_rows_is_an_error() {
    let sql = r#"select id, (select user_id from "ref"."users" where city = 'a') as u from "ref"."events""#;
    let model = compile_view(sql).unwrap();
    let slot = |name: &str| model.inputs.iter().position(|i| i.relation.to_string() == name).unwrap();
    let run = |cities: &'static [&'static str]| {
        let users: Vec<i64> = (7..).take(cities.len()).collect();
        let mut tables = vec![None, None];
        tables[slot("ref.users")] =
            Some(table(&model, slot("ref.users"), &[("user_id", ints(&users)), ("city", texts(cities))]));
        tables[slot("ref.events")] = Some(table(&model, slot("ref.events"), &[("id", ints(&[1, 2]))]));
        let model = Arc::clone(&model);
        async move { rows(&planner(), &model, &tables.into_iter().flatten().collect::<Vec<_>>()).await }
    };
    assert_eq!(run(&["a", "b"]).await.unwrap(), "| 1  | 7 |\n| 2  | 7 |");
    assert_eq!(run(&["b"]).await.unwrap(), "| 1  |   |\n| 2  |   |");
    let error = run(&["a", "a"]).await.unwrap_err();
    assert_eq!(error.message(), "a scalar subquery gave more than one row");
}

#[tokio::test]
async fn floats_are_stored_one_way() {
    let model = compile_view(r#"select price, [price] as prices from "ref"."events""#).unwrap();
    let price: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, f64::from_bits(0xfff8_0000_0000_0001), 1.5]));
    let plan = planner().bind(&model, &[table(&model, 0, &[("price", price)])]).unwrap();
    let batches: Vec<RecordBatch> = planner().execute(&plan).await.unwrap().try_collect().await.unwrap();
    let column = batches[0].column(0).as_any().downcast_ref::<Float64Array>().unwrap();
    let bits: Vec<u64> = column.values().iter().map(|v| v.to_bits()).collect();
    assert_eq!(bits, [0, f64::NAN.to_bits(), 1.5f64.to_bits()]);
    let lists = batches[0].column(1).as_any().downcast_ref::<arrow::array::ListArray>().unwrap();
    let inner = lists.values().as_any().downcast_ref::<Float64Array>().unwrap();
    assert_eq!(inner.value(0).to_bits(), 0);
    assert_eq!(inner.value(1).to_bits(), f64::NAN.to_bits());
}

#[tokio::test]
async fn queries_keep_their_order_and_may_ask_the_clock() {
    let model = compile_view(r#"select user_id, city from "ref"."users""#).unwrap();
    let users = table(&model, 0, &[("user_id", ints(&[1, 3, 2])), ("city", texts(&["b", "a", "c"]))]);
    let sql = "select USER_ID, now() as at, interval '1 day' from gold.Users order by user_id desc limit 2";
    let map = SourceMap::verbatim("query".into(), sql);
    let planner = planner();
    let plan = planner.plan_query(sql, &map, &[("gold".into(), "users".into(), users)]).unwrap();
    let batches: Vec<RecordBatch> = planner.execute(&plan).await.unwrap().try_collect().await.unwrap();
    let ids = batches[0].column(0).as_any().downcast_ref::<Int64Array>().unwrap();
    assert_eq!(batches[0].schema().field(0).name(), "USER_ID");
    assert_eq!(ids.values(), &[3, 2]);
    let at = batches[0].column(1).as_any().downcast_ref::<TimestampMicrosecondArray>().unwrap();
    assert_eq!(at.value(0), 86_400_000_000);
    let map = SourceMap::verbatim("query".into(), "select x from gold.users");
    let errors = planner.plan_query("select x from gold.users", &map, &[]).unwrap_err();
    assert_eq!(errors[0].code(), "unknown-relation");
}

#[tokio::test]
async fn set_operations_with_all_count_duplicates() {
    let left = "select user_id, city from \"ref\".\"users\" where city_id = 1";
    let right = "select user_id, city from \"ref\".\"users\" where city_id = 2";
    let model = |operation: &str| compile_view(&format!("{left} {operation} {right}")).unwrap();
    // 7 three times on the left, twice on the right; 8 once on the left; 9 twice on the left, once on the right, city NULL.
    let city: ArrayRef =
        Arc::new(StringArray::from(vec![Some("a"); 6].into_iter().chain([None; 3]).collect::<Vec<_>>()));
    let columns = [
        ("user_id", ints(&[7, 7, 7, 7, 7, 8, 9, 9, 9])),
        ("City_Id", ints(&[1, 1, 1, 2, 2, 1, 1, 1, 2])),
        ("city", city),
    ];
    for (operation, expected) in [
        ("except all", vec![7, 8, 9]),
        ("intersect all", vec![7, 7, 9]),
        ("except", vec![8]),
        ("intersect", vec![7, 9]),
    ] {
        let model = model(operation);
        let found = rows(&planner(), &model, &[table(&model, 0, &columns)]).await.unwrap();
        let found: Vec<i64> = found.lines().map(|l| l.split('|').nth(1).unwrap().trim().parse().unwrap()).collect();
        assert_eq!(found, expected, "{operation}");
    }
}

#[test]
fn a_generated_series_is_compiled_by_a_task_that_has_used_up_its_budget() {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(std::future::poll_fn(|context| {
            while let Poll::Ready(step) = tokio::task::coop::poll_proceed(context) {
                step.made_progress();
            }
            let model = compile_view("select value from generate_series(1, 3)");
            sender.send(model.map(|m| m.incremental.is_ok())).unwrap();
            Poll::Ready(())
        }));
    });
    let incremental = receiver.recv_timeout(Duration::from_secs(60)).expect("compiling ends");
    assert!(incremental.unwrap());
}

/// A partition without rows has the total of nothing; there is one total all the same, whatever the optimizer knows of its keys.
#[tokio::test]
async fn a_rollup_has_one_total_over_any_number_of_partitions() {
    let mut options = PlannerOptions::new(Dialect::DataFusion);
    options.target_partitions = 3;
    let planner = Planner::new(options).unwrap();
    for key in ["date '2024-03-01'", "s.site_id - s.site_id", "1"] {
        let sql = format!(
            r#"select b, count(*) as n from (select u.city as b, l.x from "ref"."users" as u cross join lateral (
               select {key} as x from "ref"."sites" as s where s.site_id = u.user_id) as l) as r group by rollup (x, b)"#
        );
        let model = compile_view(&sql).unwrap();
        let there = [("user_id", ints(&[1, 1, 1])), ("site_id", ints(&[1, 2, 3])), ("city", texts(&["b", "b", "c"]))];
        let tables: Vec<_> = (0..model.inputs.len()).map(|slot| table(&model, slot, &there)).collect();
        let found = rows(&planner, &model, &tables).await.unwrap();
        assert_eq!(found, "|   | 3 |\n|   | 3 |\n| b | 2 |\n| c | 1 |", "{key}");
    }
}

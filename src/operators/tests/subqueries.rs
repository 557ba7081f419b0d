//! What subqueries mean, above all where NULL comes in: by hand, from the SQL standard.

use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use futures::TryStreamExt;
use std::sync::Arc;

use crate::error::Error;
use crate::operators::{Circuit, Mode};
use crate::plan::tests::project::compile_view;
use crate::plan::{CompiledModel, Planner, PlannerOptions};
use crate::project::Dialect;
use crate::types::SignedBatch;

/// user_id and city of users; `since` is the row's number.
type Users = [(Option<i64>, &'static str)];

/// Events 1, 2 and 3 of users 1, 9 and nobody.
const EVENTS: [(i64, Option<i64>); 3] = [(1, Some(1)), (2, Some(9)), (3, None)];

fn input(model: &CompiledModel, slot: usize, users: &Users) -> RecordBatch {
    let schema = &model.inputs[slot].schema;
    let columns: Vec<(&str, ArrayRef)> = match model.inputs[slot].relation.to_string().as_str() {
        "ref.events" => vec![
            ("id", Arc::new(Int64Array::from_iter_values(EVENTS.iter().map(|e| e.0)))),
            ("user_id", Arc::new(Int64Array::from_iter(EVENTS.iter().map(|e| e.1)))),
        ],
        _ => vec![
            ("user_id", Arc::new(Int64Array::from_iter(users.iter().map(|u| u.0)))),
            ("city", Arc::new(StringArray::from_iter_values(users.iter().map(|u| u.1)))),
            ("since", Arc::new(Date32Array::from_iter_values(0..users.len() as i32))),
        ],
    };
    let rows = columns[0].1.len();
    let arrays = schema.fields().iter().map(|f| match columns.iter().find(|c| c.0 == f.name()) {
        Some((_, array)) => Arc::clone(array),
        None => arrow::array::new_null_array(f.data_type(), rows),
    });
    RecordBatch::try_new(Arc::clone(schema), arrays.collect()).unwrap()
}

fn shown(batches: &[RecordBatch]) -> String {
    let text = pretty_format_batches(batches).unwrap().to_string();
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(1)
        .map(|line| {
            let values = line.trim_matches('|').split('|').map(str::trim).map(|v| if v.is_empty() { "-" } else { v });
            values.collect::<Vec<_>>().join(" ")
        })
        .collect();
    lines.sort_unstable();
    lines.join(", ")
}

/// The rows of `sql`, by the bulk plan and by a circuit.
async fn both(sql: &str, users: &Users) -> Result<String, Error> {
    let model = compile_view(sql).unwrap();
    let planner = Planner::new(PlannerOptions::new(Dialect::DataFusion)).unwrap();
    let inputs: Vec<RecordBatch> = (0..model.inputs.len()).map(|slot| input(&model, slot, users)).collect();
    let provider = |rows: &RecordBatch| {
        Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).unwrap()) as Arc<dyn TableProvider>
    };
    let plan = planner.bind(&model, &inputs.iter().map(provider).collect::<Vec<_>>())?;
    let bulk: Result<Vec<RecordBatch>, Error> = match planner.execute(&plan).await {
        Ok(stream) => stream.try_collect().await.map_err(Error::from),
        Err(error) => Err(error),
    };
    let incremental = model.incremental.as_ref().unwrap_or_else(|fallback| panic!("{sql}: {fallback}"));
    let mut circuit = Circuit::new("v", incremental, Mode::View, planner.session_state()).unwrap();
    let changes: Vec<Vec<SignedBatch>> = inputs.into_iter().map(|rows| vec![SignedBatch::inserts(rows)]).collect();
    let stepped = circuit.step(&changes);
    let (bulk, stepped) = (bulk?, stepped?);
    let rows: Vec<RecordBatch> = stepped.into_iter().map(|batch| batch.rows).collect();
    let bulk = shown(&bulk);
    assert_eq!(bulk, if rows.is_empty() { String::new() } else { shown(&rows) }, "{sql}");
    Ok(bulk)
}

const SOME: &Users = &[(Some(1), "a"), (Some(2), "b")];
const WITH_NULL: &Users = &[(Some(1), "a"), (None, "b")];
const NONE: &Users = &[];

#[tokio::test]
async fn membership_has_three_values() {
    let q = r#"(select user_id from "ref"."users")"#;
    let of_events = r#"from "ref"."events" as e"#;
    for (sql, expected) in [
        (
            format!("select id, user_id in {q} as x {of_events}"),
            ["1 true, 2 false, 3 -", "1 true, 2 -, 3 -", "1 false, 2 false, 3 false"],
        ),
        (
            format!("select id, user_id not in {q} as x {of_events}"),
            ["1 false, 2 true, 3 -", "1 false, 2 -, 3 -", "1 true, 2 true, 3 true"],
        ),
        (
            format!("select id, not (user_id in {q}) is null as x {of_events}"),
            ["1 true, 2 true, 3 false", "1 true, 2 false, 3 false", "1 true, 2 true, 3 true"],
        ),
        (format!("select id {of_events} where user_id not in {q}"), ["2", "", "1, 2, 3"]),
        (format!("select id {of_events} where user_id not in {q} or id = 100"), ["2", "", "1, 2, 3"]),
        (format!("select id {of_events} where not (user_id in {q}) or id = 3"), ["2, 3", "3", "1, 2, 3"]),
        (format!("select id {of_events} where user_id in {q} or id = 3"), ["1, 3", "1, 3", "3"]),
        (format!("select id {of_events} where (user_id in {q}) is null"), ["3", "2, 3", ""]),
        (
            format!(
                "select id, case when exists (select 1 from \"ref\".\"users\" as u where u.user_id = e.user_id) then 'yes' else 'no' end as x {of_events}"
            ),
            ["1 yes, 2 no, 3 no", "1 yes, 2 no, 3 no", "1 no, 2 no, 3 no"],
        ),
        (
            format!(
                "select id, not exists (select 1 from \"ref\".\"users\" as u where u.user_id = e.user_id) as x {of_events}"
            ),
            ["1 false, 2 true, 3 true", "1 false, 2 true, 3 true", "1 true, 2 true, 3 true"],
        ),
    ] {
        for (users, expected) in [SOME, WITH_NULL, NONE].into_iter().zip(expected) {
            assert_eq!(both(&sql, users).await.unwrap(), expected, "{sql} over {users:?}");
        }
    }
}

#[tokio::test]
async fn a_correlated_not_in_looks_at_its_own_rows() {
    let sql = r#"select id from "ref"."events" as e where user_id not in (select u.user_id from "ref"."users" as u where u.city <> cast(e.id as varchar))"#;
    // Of event 1 NULL is left, of event 2 user 1, of event 3 both.
    assert_eq!(both(sql, &[(Some(1), "1"), (None, "2")]).await.unwrap(), "2");
    assert_eq!(both(sql, &[(Some(1), "1"), (Some(4), "3")]).await.unwrap(), "1, 2");
    assert_eq!(both(sql, &[(Some(1), "3"), (Some(9), "3")]).await.unwrap(), "3", "to event 3 nothing is left");
}

#[tokio::test]
async fn a_correlated_scalar_subquery_gives_one_row() {
    let sql = r#"select id, (select u.city from "ref"."users" as u where u.user_id = e.user_id) as city from "ref"."events" as e"#;
    assert_eq!(both(sql, SOME).await.unwrap(), "1 a, 2 -, 3 -");
    assert_eq!(both(sql, &[(Some(7), "a"), (Some(7), "b")]).await.unwrap(), "1 -, 2 -, 3 -", "nobody asks for user 7");
    let error = both(sql, &[(Some(1), "a"), (Some(1), "b")]).await.unwrap_err();
    assert_eq!(error.message(), "a scalar subquery gave more than one row");
}

#[tokio::test]
async fn a_limit_in_a_correlated_subquery_counts_its_own_rows() {
    let users: &Users = &[(Some(1), "a"), (Some(9), "b"), (Some(1), "c"), (Some(1), "d")];
    let newest = r#"select id, (select u.city from "ref"."users" as u where u.user_id = e.user_id order by u.since desc limit 1) as city from "ref"."events" as e"#;
    assert_eq!(both(newest, users).await.unwrap(), "1 d, 2 b, 3 -");
    let second = r#"select id, (select upper(u.city) from "ref"."users" as u where u.user_id = e.user_id and u.city <> 'd' order by u.since desc limit 1 offset 1) as city from "ref"."events" as e"#;
    assert_eq!(both(second, users).await.unwrap(), "1 A, 2 -, 3 -");
    let lateral = r#"select e.id, x.city from "ref"."events" as e cross join lateral (select u.city from "ref"."users" as u where u.user_id = e.user_id order by u.since limit 2) as x"#;
    assert_eq!(both(lateral, users).await.unwrap(), "1 a, 1 c, 2 b");
}

#[tokio::test]
async fn a_total_of_no_rows_is_a_row() {
    let of = |sets: &str| {
        format!(
            r#"select id, (select max(n + 10 * g) from (select count(*) as n, grouping(u.city) as g from "ref"."users" as u
               where u.user_id <= e.user_id group by {sets}) as d) as x from "ref"."events" as e"#
        )
    };
    for sets in [
        "rollup (u.city)",
        "cube (u.city)",
        "grouping sets ((u.city), ())",
        "rollup (u.city), grouping sets ((u.city), ())",
    ] {
        assert_eq!(both(&of(sets), SOME).await.unwrap(), "1 11, 2 12, 3 10", "{sets}");
        assert_eq!(both(&of(sets), NONE).await.unwrap(), "1 10, 2 10, 3 10", "{sets}");
    }
    let sets = "grouping sets ((u.city), (u.user_id))";
    assert_eq!(both(&of(sets), SOME).await.unwrap(), "1 11, 2 11, 3 -");
}

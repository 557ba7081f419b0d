//! Where stock DataFusion is wrong: a circuit gives what DuckDB gives, and stock DataFusion something else, or nothing.
//!
//! Every case is in docs/datafusion.md. When an upgrade of DataFusion makes one of them right, its test fails: take it out of both then, and
//! look whether what `plan` does about it is still needed.

use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use serde_json::{Value as Json, json};
use std::sync::Arc;

use super::{Question, ask, python, values};
use crate::operators::Mode;
use crate::operators::tests::contents::Multiset;
use crate::operators::tests::oracle::{Oracle, compiled};
use crate::operators::tests::tables::{Row, TABLES, Value, batch};

/// Rows of table `name` with these values first, NULL elsewhere.
fn rows_of(name: &str, rows: &[&[Value]]) -> Vec<Row> {
    let width = TABLES.iter().find(|t| t.name == name).unwrap().columns.len();
    let row = |values: &&[Value]| {
        let mut row = values.to_vec();
        row.resize(width, Value::Null);
        row
    };
    rows.iter().map(row).collect()
}

/// What DataFusion says without anything of smelt: no rules, functions or plans of its own.
fn stock(sql: &str, tables: &[(&'static str, Vec<Row>)]) -> Result<Vec<Json>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3));
        session.sql("create schema src").await.unwrap().collect().await.unwrap();
        for (name, rows) in tables {
            let table = TABLES.iter().find(|t| t.name == *name).unwrap();
            let whole = compiled(&format!("select * from \"src\".\"{name}\" as x"), &[]);
            let schema = &whole.inputs[0].schema;
            // A partition for every row.
            let parts = rows.iter().map(|row| vec![batch(table, schema, &[row])]).collect();
            let provider = MemTable::try_new(Arc::clone(schema), parts).unwrap();
            session.register_table(format!("src.{name}").as_str(), Arc::new(provider)).unwrap();
        }
        let frame = session.sql(sql).await.map_err(|e| e.to_string())?;
        let batches = frame.collect().await.map_err(|e| e.to_string())?;
        Ok(values::batches(&batches))
    })
}

/// What a circuit says.
fn maintained(sql: &str, tables: &[(&'static str, Vec<Row>)]) -> Vec<Json> {
    let oracle = Oracle::new(sql);
    let mut circuit = oracle.circuit(Mode::View);
    let rows: Vec<Vec<Row>> = oracle
        .tables
        .iter()
        .map(|table| {
            tables.iter().find(|(name, _)| *name == table.name).map(|(_, rows)| rows.clone()).unwrap_or_default()
        })
        .collect();
    let mut total = Multiset::new();
    oracle.contents.add_signed(&mut total, &circuit.step(&oracle.all(&rows, 1)).unwrap());
    values::rows(&oracle.contents, &total)
}

/// smelt's and DuckDB's rows are `expected`; stock DataFusion says `wrong`: rows, or the beginning of an error.
fn differs(sql: &str, tables: Vec<(&'static str, Vec<Row>)>, expected: Json, wrong: Result<Json, &str>) {
    let expected = expected.as_array().unwrap().clone();
    let none = values::difference(&maintained(sql, &tables), &expected);
    assert_eq!(none, None, "smelt (maintained), and what is expected: {sql}");
    match (stock(sql, &tables), wrong) {
        (Ok(rows), Ok(wrong)) => {
            let wrong = wrong.as_array().unwrap().clone();
            assert_eq!(values::difference(&rows, &wrong), None, "stock DataFusion has changed: {sql}");
            assert!(values::difference(&wrong, &expected).is_some(), "that is no difference: {sql}");
        }
        (Err(error), Err(wrong)) => {
            assert!(error.contains(wrong), "stock DataFusion fails in another way: {error}\n{sql}")
        }
        (found, _) => panic!("stock DataFusion has changed: {found:?}\n{sql}"),
    }
    let Some(python) = python() else { return };
    let answer = ask(&python, &[Question { sql: sql.into(), tables }]).remove(0).unwrap();
    assert_eq!(values::difference(&answer, &expected), None, "DuckDB (maintained), and what is expected: {sql}");
}

use Value::{Int, Null};

#[test]
fn not_in_below_or_has_three_values() {
    // 2 is not surely absent from (1, NULL): the condition is unknown, and the row goes.
    let tables = vec![
        ("t", rows_of("t", &[&[Int(10), Int(1)], &[Int(20), Int(2)], &[Int(30), Null]])),
        ("a", rows_of("a", &[&[Int(1)], &[Null]])),
    ];
    differs(
        r#"select t.id from "src"."t" as t where t.k1 not in (select a.k1 from "src"."a" as a) or t.id = 10"#,
        tables,
        json!([[10]]),
        Ok(json!([[10], [20], [30]])),
    );
}

#[test]
fn membership_as_a_value_is_null_where_it_is_unknown() {
    let tables = vec![
        ("t", rows_of("t", &[&[Int(10), Int(1)], &[Int(20), Int(2)], &[Int(30), Null]])),
        ("a", rows_of("a", &[&[Int(1)], &[Null]])),
    ];
    differs(
        r#"select t.id, t.k1 in (select a.k1 from "src"."a" as a) as known from "src"."t" as t"#,
        tables,
        json!([[10, true], [20, null], [30, null]]),
        Err("Physical plan does not support logical expression InSubquery"),
    );
}

const ONE: &str = r#"(select a.k1 from "src"."a" as a) as a"#;
const OTHER: &str = r#"(select t.id, t.k1 from "src"."t" as t) as z"#;

fn some_of_each() -> Vec<(&'static str, Vec<Row>)> {
    vec![("t", rows_of("t", &[&[Int(10), Int(1)], &[Int(20), Int(2)]])), ("a", rows_of("a", &[&[Int(1)], &[Int(5)]]))]
}

#[test]
fn a_full_join_shows_the_key_of_either_side() {
    differs(
        &format!("select k1, id from {ONE} full join {OTHER} using (k1)"),
        some_of_each(),
        json!([[1, 10], [5, null], [2, 20]]),
        Ok(json!([[1, 10], [5, null], [null, 20]])),
    );
}

#[test]
fn all_columns_of_a_left_join_are_those_of_its_left_side_first() {
    differs(
        &format!("select * from {OTHER} left join {ONE} using (k1)"),
        some_of_each(),
        json!([[10, 1], [20, 2]]),
        Ok(json!([[10, 1], [20, null]])),
    );
}

#[test]
fn three_relations_joined_by_one_name_have_one_column_of_it() {
    differs(
        &format!("select k1, z.id from {ONE} join {OTHER} using (k1) join (select 1 as k1) as o using (k1)"),
        some_of_each(),
        json!([[1, 10]]),
        Err("Ambiguous reference to unqualified field k1"),
    );
}

#[test]
fn an_aggregate_of_no_rows_is_a_member() {
    // Of t 20 there is no row in a: its count is 0.
    differs(
        r#"select t.id from "src"."t" as t where 0 in (select count(*) from "src"."a" as a where a.k1 = t.k1)"#,
        some_of_each(),
        json!([[20]]),
        Ok(json!([])),
    );
}

#[test]
fn a_window_of_a_subquery_is_over_the_rows_that_belong_to_the_outer_one() {
    differs(
        r#"select t.id from "src"."t" as t where 2 in (select row_number() over (order by a.k1) from "src"."a" as a where a.k1 > t.k1)"#,
        some_of_each(),
        json!([]),
        Ok(json!([[10], [20]])),
    );
}

#[test]
fn a_subquery_refers_to_rows_from_further_within() {
    differs(
        r#"select t.id from "src"."t" as t where exists (select 1 from "src"."a" as a where exists (select 1 from "src"."a" as b where b.k1 = t.k1 and b.k1 = a.k1))"#,
        some_of_each(),
        json!([[10]]),
        Err("No field named t.k1"),
    );
}

#[test]
fn a_subquery_that_leaves_its_first_row_out_exists_where_there_is_another() {
    differs(
        r#"select t.id from "src"."t" as t where exists (select 1 from "src"."a" as a where a.k1 >= t.k1 offset 1)"#,
        some_of_each(),
        json!([[10]]),
        Ok(json!([[10], [20]])),
    );
}

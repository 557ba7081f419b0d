//! Files → bronze → views, end to end: first run, new files, edits, deletes, both ways a view can be maintained.

use crate::support::Sandbox;

const PROJECT: &str = "\
name: shop
models:
  shop:
    bronze: {+schema: bronze, +materialized: streaming_table}
    gold: {+schema: gold}
target: dev
targets:
  dev: {lake: ./lake, epoch: {max_files: 1}}
";

const SOURCES: &str = r#"
version: 2
sources:
  - name: shop
    config: {connector: files, format: json}
    tables:
      - name: orders
        config: {path: "data/orders-*.json"}
        columns:
          - {name: id, data_type: BIGINT}
          - {name: customer, data_type: STRING}
          - {name: amount, data_type: "DECIMAL(10,2)"}
      - name: customers
        config: {path: "data/customers-*.json", format: debezium-json, primary_key: [name]}
        columns:
          - {name: name, data_type: STRING}
          - {name: city, data_type: STRING}
"#;

/// A star in small: orders, customers that change, a join, an aggregate, a deduplication, a window that is recomputed.
pub fn shop() -> Sandbox {
    Sandbox::with(&[
        ("smelt.yml", PROJECT),
        ("models/sources.yml", SOURCES),
        ("queries/bronze/bronze_orders.sql", "select id, customer, amount from {{ source('shop', 'orders') }}"),
        ("queries/bronze/bronze_customers.sql", "select name, city from {{ source('shop', 'customers') }}"),
        (
            "queries/gold/orders_once.sql",
            "select id, customer, amount from (\n  select *, row_number() over (partition by id order by customer, amount) as rn\n  from {{ ref('bronze_orders') }}\n) where rn = 1",
        ),
        (
            "queries/gold/orders_by_city.sql",
            "select o.id, o.amount, c.city from {{ ref('orders_once') }} o\nleft join {{ ref('bronze_customers') }} c on c.name = o.customer",
        ),
        (
            "queries/gold/city_totals.sql",
            "select city, count(*) as orders, sum(amount) as amount, max(amount) as largest\nfrom {{ ref('orders_by_city') }} group by city",
        ),
        ("queries/gold/total.sql", "select count(*) as orders, sum(amount) as amount from {{ ref('orders_once') }}"),
        (
            "queries/gold/ranked.sql",
            "select id, rank() over (order by amount desc) as place from {{ ref('orders_once') }}",
        ),
    ])
}

pub fn order(id: u32, customer: &str, amount: &str) -> String {
    format!("{{\"id\": {id}, \"customer\": \"{customer}\", \"amount\": {amount}}}\n")
}

pub fn customer(op: char, name: &str, city: &str) -> String {
    let row = format!("{{\"name\": \"{name}\", \"city\": \"{city}\"}}");
    match op {
        'd' => format!("{{\"op\": \"d\", \"before\": {row}, \"after\": null, \"ts_ms\": 1}}\n"),
        _ => format!("{{\"op\": \"{op}\", \"before\": null, \"after\": {row}, \"ts_ms\": 1}}\n"),
    }
}

#[test]
fn every_model_has_its_table_after_a_run_without_input() {
    let shop = shop();
    shop.smelt(&["run"]).ok();
    assert_eq!(shop.rows("select * from gold.total"), [r#"{"orders":0,"amount":null}"#]);
    for table in ["bronze.bronze_orders", "bronze.bronze_customers", "gold.city_totals", "gold.ranked"] {
        assert_eq!(shop.count(table), 0, "{table}");
    }
}

#[test]
fn tables_follow_new_files_updates_and_deletes() {
    let shop = shop();
    shop.write("data/orders-1.json", order(1, "ada", "10.00") + &order(2, "bob", "5.50") + &order(1, "ada", "10.00"));
    shop.write("data/customers-1.json", customer('c', "ada", "Rome") + &customer('c', "bob", "Oslo"));
    shop.smelt(&["run"]).ok();
    assert_eq!(shop.count("bronze.bronze_orders"), 3);
    assert_eq!(
        shop.rows("select * from city_totals"),
        [
            r#"{"city":"Oslo","orders":1,"amount":5.50,"largest":5.50}"#,
            r#"{"city":"Rome","orders":1,"amount":10.00,"largest":10.00}"#,
        ]
    );

    shop.write("data/customers-2.json", customer('u', "ada", "Oslo"));
    shop.write("data/customers-3.json", customer('d', "bob", "Oslo"));
    shop.write("data/orders-2.json", order(3, "eve", "1.25"));
    shop.smelt(&["run"]).ok();
    assert_eq!(
        shop.rows("select * from city_totals"),
        [
            r#"{"city":"Oslo","orders":1,"amount":10.00,"largest":10.00}"#,
            r#"{"city":null,"orders":2,"amount":6.75,"largest":5.50}"#,
        ]
    );
    assert_eq!(
        shop.rows("select * from ranked"),
        [r#"{"id":1,"place":1}"#, r#"{"id":2,"place":2}"#, r#"{"id":3,"place":3}"#]
    );
    assert_eq!(shop.rows("select * from total"), [r#"{"orders":3,"amount":16.75}"#]);
}

#[test]
fn a_run_without_news_changes_no_data() {
    let shop = shop();
    shop.write("data/orders-1.json", order(1, "ada", "10.00"));
    shop.smelt(&["run"]).ok();
    let before = shop.rows("select * from city_totals");
    let ended = shop.smelt(&["run"]).ok();
    assert!(ended.stdout.contains("(+0 −0)"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("(+1"), "{}", ended.stdout);
    assert_eq!(shop.rows("select * from city_totals"), before);
}

#[test]
fn an_edited_view_is_recomputed_and_its_readers_follow() {
    let shop = shop();
    shop.write("data/orders-1.json", order(1, "ada", "10.00") + &order(2, "bob", "5.50"));
    shop.smelt(&["run"]).ok();
    shop.write(
        "queries/gold/orders_once.sql",
        "select id, customer, amount * 2 as amount from {{ ref('bronze_orders') }} where id < 2",
    );
    shop.smelt(&["run"]).ok();
    assert_eq!(
        shop.rows("select orders, cast(amount as double) as amount from total"),
        [r#"{"orders":1,"amount":20.0}"#]
    );
    shop.write("queries/gold/total.sql", "select sum(amount) as amount, 'all' as scope from {{ ref('orders_once') }}");
    let plan = shop.smelt(&["plan"]).ok();
    assert!(plan.stdout.contains("schema evolved"), "{}", plan.stdout);
    shop.smelt(&["run"]).ok();
    assert_eq!(
        shop.rows("select cast(amount as double) as amount, scope from total"),
        [r#"{"amount":20.0,"scope":"all"}"#]
    );
}

#[test]
fn a_new_model_backfills_and_a_removed_one_keeps_its_table_until_prune() {
    let shop = shop();
    shop.write("data/orders-1.json", order(1, "ada", "10.00"));
    shop.smelt(&["run"]).ok();
    shop.write("queries/gold/late.sql", "select id from {{ ref('bronze_orders') }}");
    shop.smelt(&["run"]).ok();
    assert_eq!(shop.count("gold.late"), 1);
    shop.remove("queries/gold/late.sql");
    assert!(shop.smelt(&["plan"]).ok().stdout.contains("orphaned"));
    shop.smelt(&["run"]).ok();
    assert!(shop.table("gold", "late").exists());
    shop.smelt(&["prune", "--yes"]).ok();
    assert!(!shop.smelt(&["plan"]).ok().stdout.contains("orphaned"));
}

#[test]
fn selection_runs_part_of_the_graph_and_the_rest_catches_up_later() {
    let shop = shop();
    shop.write("data/orders-1.json", order(1, "ada", "10.00"));
    shop.smelt(&["run"]).ok();
    shop.write("data/orders-2.json", order(2, "bob", "1.00"));
    shop.smelt(&["run", "--select", "bronze_orders", "orders_once"]).ok();
    assert_eq!(shop.count("gold.orders_once"), 2);
    assert_eq!(shop.rows("select orders from total"), [r#"{"orders":1}"#]);
    shop.smelt(&["run"]).ok();
    assert_eq!(shop.rows("select orders from total"), [r#"{"orders":2}"#]);
}

#[test]
fn full_refresh_gives_the_same_tables() {
    let shop = shop();
    shop.write("data/orders-1.json", order(1, "ada", "10.00") + &order(2, "bob", "5.50"));
    shop.write("data/customers-1.json", customer('c', "ada", "Rome"));
    shop.smelt(&["run"]).ok();
    let before = shop.rows("select * from orders_by_city");
    shop.smelt(&["run", "--full-refresh"]).ok();
    assert_eq!(shop.rows("select * from orders_by_city"), before);
    assert_eq!(shop.count("bronze.bronze_orders"), 2);
}

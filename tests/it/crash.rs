//! Exactly once: the binary aborts at each named crash point once, is started again, and every table must hold what
//! one undisturbed run makes.

use crate::files::{customer, order, shop};
use crate::support::Sandbox;

/// Every crash point on the way of an epoch, with how often it is reached before the abort.
const POINTS: [&str; 15] = [
    "table-created-before-log",
    "table-created-before-log:4",
    "after-upload",
    "after-upload:5",
    "after-uploads",
    "after-uploads:2",
    "before-log-put",
    "before-log-put:3",
    "after-log-put",
    "after-log-put:2",
    "after-log-put:4",
    "after-log-put:9",
    "before-epochs-row",
    "after-epochs-row",
    "after-epochs-row:2",
];

fn feed(sandbox: &Sandbox) {
    for file in 0..4u32 {
        let orders: String = (0..20).map(|n| order(file * 15 + n, ["ada", "bob", "eve"][n as usize % 3], "2.50")).collect();
        sandbox.write(&format!("data/orders-{file}.json"), orders);
        let op = if file == 0 { 'c' } else { 'u' };
        let change = customer(op, "ada", ["Rome", "Oslo", "Bonn", "Lyon"][file as usize]) + &customer('c', "bob", "Kyiv");
        sandbox.write(&format!("data/customers-{file}.json"), change);
    }
}

const TABLES: [&str; 7] = [
    "bronze.bronze_orders",
    "bronze.bronze_customers",
    "gold.orders_once",
    "gold.orders_by_city",
    "gold.city_totals",
    "gold.total",
    "gold.ranked",
];

fn contents(sandbox: &Sandbox) -> Vec<Vec<String>> {
    TABLES.iter().map(|t| sandbox.rows(&format!("select * from {t}"))).collect()
}

#[test]
fn an_abort_at_any_crash_point_loses_and_doubles_nothing() {
    let calm = shop();
    feed(&calm);
    calm.smelt(&["run"]).ok();
    let expected = contents(&calm);
    assert_eq!(expected[0].len(), 80);
    for point in POINTS {
        let shop = shop();
        feed(&shop);
        let ended = shop.smelt_with(&["run"], &[("SMELT_CRASH_AT", point)]);
        assert_eq!(ended.code, None, "{point} was not reached:\n{}{}", ended.stdout, ended.stderr);
        shop.smelt(&["run"]).ok();
        for (table, (got, want)) in TABLES.iter().zip(contents(&shop).iter().zip(&expected)) {
            assert_eq!(got, want, "{table} after a crash at {point}");
        }
    }
}

#[test]
fn two_crashes_in_a_row_are_no_worse() {
    let calm = shop();
    feed(&calm);
    calm.smelt(&["run"]).ok();
    let expected = contents(&calm);
    let shop = shop();
    feed(&shop);
    for point in ["after-log-put:3", "after-log-put:20", "before-log-put:11", "before-epochs-row", "after-uploads"] {
        shop.smelt_with(&["run"], &[("SMELT_CRASH_AT", point)]);
    }
    shop.smelt(&["run"]).ok();
    assert_eq!(contents(&shop), expected);
}

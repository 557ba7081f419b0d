//! Exactly once: the binary aborts at each named crash point once, is started again, and every table must hold what
//! one undisturbed run makes.

use crate::files::{customer, order, shop};
use crate::support::{Sandbox, eventually};
use std::time::Duration;

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
        let orders: String =
            (0..20).map(|n| order(file * 15 + n, ["ada", "bob", "eve"][n as usize % 3], "2.50")).collect();
        sandbox.write(&format!("data/orders-{file}.json"), orders);
        let op = if file == 0 { 'c' } else { 'u' };
        let change =
            customer(op, "ada", ["Rome", "Oslo", "Bonn", "Lyon"][file as usize]) + &customer('c', "bob", "Kyiv");
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

#[test]
fn two_smelts_on_one_lake_never_write_both() {
    let shop = shop();
    feed(&shop);
    let mut first = shop.spawn(&["up"], &[]);
    eventually("the first smelt has committed everything", Duration::from_secs(60), || {
        first.log().contains("committed") && shop.count("gold.orders_once") == 65
    });
    assert!(first.is_running(), "{}", first.log());
    // A second writer on this host names the first and leaves it alone.
    let second = shop.smelt(&["run"]);
    assert_eq!(second.code, Some(2), "{}{}", second.stdout, second.stderr);
    assert!(second.stderr.contains("already-running"), "{}", second.stderr);
    // Reading goes on beside it.
    assert_eq!(shop.count("bronze.bronze_orders"), 80);
    // One that takes over fences the first, which stops with a clear error at its next commit.
    shop.smelt(&["run", "--take-over"]).ok();
    shop.write("data/orders-9.json", order(900, "eve", "1.00"));
    let code = first.wait(Duration::from_secs(60));
    assert_eq!(code, Some(2), "{}", first.log());
    assert!(first.log().contains("fenced"), "{}", first.log());
    shop.smelt(&["run"]).ok();
    assert_eq!(shop.count("bronze.bronze_orders"), 81);
}

#[test]
fn sigkill_at_random_moments_loses_and_doubles_nothing() {
    let shop = shop();
    let mut expected = Vec::new();
    for round in 0..6u32 {
        let mut running = shop.spawn(&["up"], &[]);
        for file in 0..6u32 {
            let id = round * 100 + file * 10;
            let orders: String = (id..id + 10).map(|n| order(n, "ada", "2.50")).collect();
            shop.write(&format!("data/orders-{id:05}.json"), orders);
            expected.extend(id..id + 10);
            std::thread::sleep(Duration::from_millis(u64::from(40 + 37 * ((round * 7 + file * 5) % 11))));
        }
        running.kill();
    }
    let mut last = shop.spawn(&["up"], &[]);
    let count = expected.len() as i64;
    eventually("everything has arrived", Duration::from_secs(60), || shop.count("gold.orders_once") == count);
    assert_eq!(last.stop(), Some(0), "{}", last.log());
    let ids: Vec<i64> = shop
        .rows("select id from bronze.bronze_orders")
        .iter()
        .map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap()["id"].as_i64().unwrap())
        .collect();
    assert_eq!(ids.len() as i64, count, "lost or doubled in bronze");
    assert_eq!(shop.rows("select orders from total"), [format!("{{\"orders\":{count}}}")]);
}

/// Commands that keep house, and the points of compaction and checkpoints they reach.
const UPKEEP: [(&str, &str); 6] = [
    ("optimize", "compaction-after-write"),
    ("optimize", "compaction-after-write:3"),
    ("optimize", "compaction-after-put"),
    ("optimize", "compaction-after-put:3"),
    ("vacuum", "checkpoint-before"),
    ("vacuum", "checkpoint-after:2"),
];

#[test]
fn an_abort_while_keeping_house_changes_no_row() {
    let more = |shop: &Sandbox| {
        shop.write("data/orders-8.json", order(900, "bob", "1.25"));
        shop.write("data/customers-8.json", customer('u', "bob", "Riga"));
        shop.smelt(&["run"]).ok();
    };
    let calm = shop();
    feed(&calm);
    calm.smelt(&["run"]).ok();
    let expected = contents(&calm);
    more(&calm);
    let later = contents(&calm);
    assert_ne!(expected, later);
    for (command, point) in UPKEEP {
        let shop = shop();
        feed(&shop);
        shop.smelt(&["run"]).ok();
        let ended = shop.smelt_with(&[command], &[("SMELT_CRASH_AT", point)]);
        assert_eq!(ended.code, None, "{command}: {point} was not reached:\n{}{}", ended.stdout, ended.stderr);
        assert_eq!(contents(&shop), expected, "right after {command} crashed at {point}");
        more(&shop);
        assert_eq!(contents(&shop), later, "after {command} crashed at {point}");
        shop.smelt(&[command]).ok();
        assert_eq!(contents(&shop), later, "after {command} went through");
    }
}

#[test]
fn an_abort_in_background_upkeep_loses_and_doubles_nothing() {
    // One file is one epoch is one commit: enough of them for compaction and for a checkpoint.
    let fill = |shop: &Sandbox| {
        for file in 0..130u32 {
            shop.write(&format!("data/orders-{file:03}.json"), order(file, "ada", "1.00") + &order(7, "bob", "2.00"));
        }
    };
    let calm = shop();
    fill(&calm);
    calm.smelt(&["run"]).ok();
    let expected = contents(&calm);
    assert_eq!(expected[0].len(), 260);
    for point in ["compaction-after-write", "compaction-after-put:2", "checkpoint-before", "checkpoint-after"] {
        let shop = shop();
        fill(&shop);
        let ended = shop.smelt_with(&["run"], &[("SMELT_CRASH_AT", point)]);
        assert_eq!(ended.code, None, "{point} was not reached:\n{}{}", ended.stdout, ended.stderr);
        shop.smelt(&["run"]).ok();
        assert_eq!(contents(&shop), expected, "after a crash at {point}");
    }
}

/// The long run of `make crash`.
#[test]
#[ignore = "takes an hour: `make crash` runs it"]
fn long() {
    crate::sample::kill_while_events_flow(2_000_000, 30, 4_000);
}

//! `query` and `show` of the past: all tables at an epoch or at a time, one table at a version, and what has been vacuumed.

use crate::files::{order, shop};
use crate::support::Sandbox;

/// Three runs with one order each.
fn three_runs() -> Sandbox {
    let shop = shop();
    for n in 1..=3 {
        shop.write(&format!("data/orders-{n}.json"), order(n, "ada", "1.00"));
        shop.smelt(&["run"]).ok();
    }
    shop
}

fn total(shop: &Sandbox, at: &[&str]) -> i64 {
    let args = [&["query", "select count(*) as n from bronze_orders", "--output", "json"], at].concat();
    let ended = shop.smelt(&args).ok();
    serde_json::from_str::<serde_json::Value>(ended.stdout.trim()).unwrap()["n"].as_i64().unwrap()
}

#[test]
fn an_epoch_shows_all_tables_at_one_instant() {
    let shop = three_runs();
    // Before the first order every table was there, and empty.
    let sql = "select (select count(*) from bronze_orders) as bronze, (select count(*) from orders_once) as silver, \
               (select orders from total) as gold";
    let epochs = epochs_with_orders(&shop);
    for (n, (epoch, time)) in epochs.iter().enumerate() {
        let expected = format!("{{\"bronze\":{0},\"silver\":{0},\"gold\":{0}}}", n + 1);
        for at in [["--epoch", epoch.as_str()], ["--timestamp", time.as_str()]] {
            let ended = shop.smelt(&[&["query", sql, "--output", "json"], &at[..]].concat()).ok();
            assert_eq!(ended.stdout.trim(), expected, "{at:?}");
        }
    }
    let shown = shop.smelt(&["show", "total", "--epoch", &epochs[1].0, "--output", "json"]).ok();
    assert_eq!(shown.stdout.trim(), r#"{"orders":2,"amount":2.00}"#);
    // Reading back needs no writer and changes nothing.
    assert_eq!(shop.rows("select orders from total"), [r#"{"orders":3}"#]);
}

/// Epochs after which there were orders; the first run may have one before.
fn epochs_with_orders(shop: &Sandbox) -> Vec<(String, String)> {
    let all =
        shop.smelt(&["query", "select epoch, committed_at from _smelt.epochs order by epoch", "--output", "json"]).ok();
    let mut found: Vec<(String, String)> = Vec::new();
    for line in all.stdout.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let (epoch, time) = (row["epoch"].to_string(), row["committed_at"].as_str().unwrap().to_string());
        let n = total(shop, &["--epoch", &epoch]) as usize;
        if n > found.len() {
            assert_eq!(n, found.len() + 1);
            found.push((epoch, time));
        } else if let Some(last) = found.last_mut() {
            *last = (epoch, time);
        }
    }
    assert_eq!(found.len(), 3);
    found
}

#[test]
fn a_version_is_of_one_table() {
    let shop = three_runs();
    let log = shop.table("bronze", "bronze_orders").join("_delta_log");
    let newest = std::fs::read_dir(log)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "json"))
        .count()
        - 1;
    let mut counts: Vec<i64> = (0..=newest).map(|v| total(&shop, &["--version", &v.to_string()])).collect();
    assert_eq!(counts[0], 0, "version 0 is the empty table");
    counts.dedup();
    assert_eq!(counts, [0, 1, 2, 3]);
    shop.smelt(&["query", "select * from bronze_orders", "--version", "99"])
        .fails(2, "`bronze.bronze_orders` has no version 99");
    let two = shop
        .smelt(&["query", "select * from total, bronze_orders", "--version", "1"])
        .fails(2, "error[ambiguous-version]");
    assert!(two.stderr.contains("use --epoch or --timestamp for several"), "{}", two.stderr);
    shop.smelt(&["query", "select 1", "--version", "1"]).fails(2, "The query names no table");
}

#[test]
fn what_cannot_be_read_is_named() {
    let shop = three_runs();
    let far = shop.smelt(&["query", "select * from total", "--epoch", "99"]).fails(2, "there is no epoch 99 yet");
    assert!(far.stderr.contains("there are epochs 1 ("), "{}", far.stderr);
    shop.smelt(&["query", "select * from total", "--epoch", "0"]).fails(2, "there is no epoch 0");
    shop.smelt(&["query", "select * from total", "--timestamp", "2020-01-01"])
        .fails(2, "there was no epoch before 2020-01-01");
    shop.smelt(&["query", "select * from total", "--timestamp", "yesterday"]).fails(2, "write 2026-01-05T14:00:00Z");
    shop.smelt(&["query", "select * from total", "--epoch", "1", "--version", "1"]).fails(2, "cannot be used with");
    // A model made later.
    shop.write("queries/gold/later.sql", "select count(*) as n from {{ ref('bronze_orders') }}");
    shop.smelt(&["run"]).ok();
    shop.smelt(&["query", "select * from later", "--epoch", "1"]).fails(2, "`gold.later` was not there in epoch 1");
    let empty = crate::files::shop();
    empty.smelt(&["query", "select * from total", "--epoch", "1"]).fails(2, "has no epochs yet");
}

#[test]
fn vacuumed_versions_say_so_and_later_ones_are_read() {
    let shop = shop();
    let project = std::fs::read_to_string(shop.path().join("smelt.yml")).unwrap();
    shop.write("smelt.yml", project.replace("{max_files: 1}}", "{max_files: 1}, deleted_file_retention: 1s}"));
    for n in 1..=3 {
        shop.write(&format!("data/orders-{n}.json"), order(n, "ada", "1.00"));
        shop.smelt(&["run"]).ok();
    }
    let epochs = epochs_with_orders(&shop);
    // One row, replaced in each run: its files are gone when the retention is over.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    shop.smelt(&["vacuum"]).ok();
    let gone =
        shop.smelt(&["query", "select * from total", "--epoch", &epochs[0].0]).fails(2, "error[version-vacuumed]");
    assert!(
        gone.stderr.contains("of `gold.total` cannot be read") && gone.stderr.contains("deleted_file_retention"),
        "{}",
        gone.stderr
    );
    assert_eq!(total(&shop, &["--epoch", &epochs[0].0]), 1, "bronze has replaced no file");
    let now = shop.smelt(&["query", "select orders from total", "--epoch", &epochs[2].0, "--output", "json"]).ok();
    assert_eq!(now.stdout.trim(), r#"{"orders":3}"#);
}

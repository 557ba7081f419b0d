//! Housekeeping of a lake: retention that follows the configuration, what dead processes left, folders as sources.

use serde_json::Value;
use std::time::{Duration, UNIX_EPOCH};

use crate::files::{order, shop};
use crate::support::Sandbox;

/// `metaData` actions of a table's log, in order.
fn metadata(sandbox: &Sandbox, schema: &str, name: &str) -> Vec<Value> {
    let log = sandbox.table(schema, name).join("_delta_log");
    let mut entries: Vec<_> = std::fs::read_dir(log).unwrap().map(|e| e.unwrap().path()).collect();
    entries.retain(|p| p.extension().is_some_and(|e| e == "json"));
    entries.sort();
    entries
        .iter()
        .flat_map(|p| std::fs::read_to_string(p).unwrap().lines().map(str::to_string).collect::<Vec<_>>())
        .filter_map(|line| serde_json::from_str::<Value>(&line).unwrap().get("metaData").cloned())
        .collect()
}

#[test]
fn changed_retention_reaches_existing_tables_with_one_commit() {
    let shop = shop();
    shop.write("data/orders-1.json", order(1, "ada", "10.00"));
    shop.smelt(&["run"]).ok();
    let rows = shop.rows("select * from city_totals");
    let tables = [("bronze", "bronze_orders"), ("gold", "city_totals"), ("_smelt", "epochs")];
    let before = tables.map(|(schema, name)| metadata(&shop, schema, name).len());
    let project = std::fs::read_to_string(shop.path().join("smelt.yml")).unwrap();
    let project = project.replace("{max_files: 1}}", "{max_files: 1}, deleted_file_retention: 2h, log_retention: 3d}");
    shop.write("smelt.yml", &project);
    for _ in 0..2 {
        shop.smelt(&["run"]).ok();
        for ((schema, name), before) in tables.iter().zip(before) {
            let metadata = metadata(&shop, schema, name);
            assert_eq!(metadata.len(), before + 1, "{schema}.{name}");
            let last = &metadata[before]["configuration"];
            assert_eq!(last["delta.deletedFileRetentionDuration"], "interval 7200 seconds", "{schema}.{name}");
            assert_eq!(last["delta.logRetentionDuration"], "interval 259200 seconds", "{schema}.{name}");
            let first = &metadata[before - 1];
            assert_eq!(metadata[before]["schemaString"], first["schemaString"]);
            assert_eq!(metadata[before]["id"], first["id"]);
        }
    }
    assert_eq!(shop.rows("select * from city_totals"), rows);
    shop.write("data/orders-2.json", order(2, "bob", "1.00"));
    shop.smelt(&["run"]).ok();
    assert_eq!(shop.rows("select orders from total"), [r#"{"orders":2}"#]);
}

#[test]
fn what_dead_processes_left_half_written_goes() {
    let shop = shop();
    shop.write("data/orders-1.json", order(1, "ada", "10.00"));
    shop.smelt(&["run"]).ok();
    let log = shop.table("gold", "total").join("_delta_log");
    let leave = |name: String, old: bool| {
        let file = std::fs::File::create(log.join(&name)).unwrap();
        if old {
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
        }
        log.join(name)
    };
    let dead = leave(format!("00000000000000000009.json#{}000001", u32::MAX), true);
    let fresh = leave(format!("00000000000000000009.json#{}000002", u32::MAX), false);
    let alive = leave(format!("00000000000000000009.json#{}000003", std::process::id()), true);
    shop.smelt(&["vacuum", "--dry-run"]).ok();
    assert!(dead.exists(), "a dry run deletes nothing");
    shop.smelt(&["vacuum"]).ok();
    assert_eq!((dead.exists(), fresh.exists(), alive.exists()), (false, true, true));
    assert_eq!(shop.count("gold.total"), 1);
}

fn with_path(path: &str) -> Sandbox {
    let shop = shop();
    let sources = std::fs::read_to_string(shop.path().join("models/sources.yml")).unwrap();
    assert!(sources.contains("data/orders-*.json"));
    shop.write("models/sources.yml", sources.replace("data/orders-*.json", path));
    shop
}

#[test]
fn a_path_that_names_a_folder_reads_its_files() {
    for path in ["data/orders", "data/orders/"] {
        let shop = with_path(path);
        shop.write("data/orders/a.json", order(1, "ada", "1.00"));
        shop.write("data/orders/b.ndjson", order(2, "ada", "1.00"));
        for left_out in ["_SUCCESS", ".hidden.json", "_temporary/c.json", "below/d.json"] {
            shop.write(&format!("data/orders/{left_out}"), order(9, "eve", "9.00"));
        }
        shop.write("data/orders-elsewhere.json", order(9, "eve", "9.00"));
        shop.smelt(&["run"]).ok();
        assert_eq!(shop.rows("select id from bronze_orders"), [r#"{"id":1}"#, r#"{"id":2}"#], "{path}");
        shop.write("data/orders/c.json", order(3, "ada", "1.00"));
        shop.smelt(&["run"]).ok();
        assert_eq!(shop.count("bronze.bronze_orders"), 3);
    }
}

#[test]
fn a_path_that_names_one_file_reads_it() {
    let shop = with_path("data/orders.json");
    shop.write("data/orders.json", order(1, "ada", "1.00"));
    for _ in 0..2 {
        shop.smelt(&["run"]).ok();
        assert_eq!(shop.rows("select id from bronze_orders"), [r#"{"id":1}"#]);
    }
}

#[test]
fn a_path_that_names_nothing_is_an_empty_table_with_a_warning() {
    let shop = with_path("data/ordres");
    let ended = shop.smelt(&["run"]).ok();
    assert!(ended.stdout.contains("warning: source shop.orders: "), "{}", ended.stdout);
    assert!(ended.stdout.contains("data/ordres names no file"), "{}", ended.stdout);
    assert_eq!(shop.count("bronze.bronze_orders"), 0);
    shop.write("data/ordres/1.json", order(1, "ada", "1.00"));
    let ended = shop.smelt(&["run"]).ok();
    assert!(!ended.stdout.contains("warning: source shop.orders"), "{}", ended.stdout);
    assert_eq!(shop.count("bronze.bronze_orders"), 1);
}

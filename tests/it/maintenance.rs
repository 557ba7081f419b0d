//! `optimize`, `vacuum`, `prune`, `clean`: what a dry run says is what the command then does.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::files::{order, shop};
use crate::support::Sandbox;

/// Every file of the lake.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.extend([path]) }
    }
    found
}

fn data_files(shop: &Sandbox) -> BTreeSet<PathBuf> {
    let all = files(&shop.path().join("lake"));
    all.into_iter().filter(|p| !p.to_string_lossy().contains("/_")).collect()
}

/// The JSON lines of a command, `dry_run` taken out after it was checked.
fn reports(shop: &Sandbox, args: &[&str], dry_run: bool) -> Vec<Value> {
    let args = [args, &["--output", "json"], if dry_run { &["--dry-run"] } else { &[] }].concat();
    let ended = shop.smelt(&args).ok();
    let mut lines: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        assert_eq!(line.as_object_mut().unwrap().remove("dry_run"), Some(Value::Bool(dry_run)));
    }
    lines
}

fn sum(reports: &[Value], key: &str) -> i64 {
    reports.iter().map(|r| r[key].as_i64().unwrap_or(0)).sum()
}

/// Five runs with an order each, and a retention of a second.
fn five_runs() -> Sandbox {
    let shop = shop();
    let project = std::fs::read_to_string(shop.path().join("smelt.yml")).unwrap();
    shop.write("smelt.yml", project.replace("{max_files: 1}}", "{max_files: 1}, deleted_file_retention: 1s}"));
    for n in 1..=5 {
        shop.write(&format!("data/orders-{n}.json"), order(n, "ada", "1.00"));
        shop.smelt(&["run"]).ok();
    }
    shop
}

#[test]
fn optimize_and_vacuum_do_what_their_dry_runs_say() {
    let shop = five_runs();
    let rows = shop.rows("select * from orders_by_city");
    let before = files(&shop.path().join("lake"));
    let would = reports(&shop, &["optimize"], true);
    assert_eq!(files(&shop.path().join("lake")), before, "a dry run writes nothing");
    assert!(sum(&would, "files_rewritten") >= 5, "{would:?}");
    assert_eq!(reports(&shop, &["optimize"], false), would);
    assert_eq!(sum(&reports(&shop, &["optimize"], true), "files_rewritten"), 0, "nothing is left to merge");

    // What was replaced is too young; then it is old enough.
    assert_eq!(shop.rows("select * from orders_by_city"), rows);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let before = data_files(&shop);
    let would = reports(&shop, &["vacuum"], true);
    assert_eq!(data_files(&shop), before);
    assert!(sum(&would, "files") >= 5, "{would:?}");
    let size = |files: &BTreeSet<PathBuf>| -> u64 { files.iter().map(|f| f.metadata().unwrap().len()).sum() };
    let bytes = size(&before);
    assert_eq!(reports(&shop, &["vacuum"], false), would);
    let after = data_files(&shop);
    assert_eq!(sum(&would, "files") as usize, before.len() - after.len());
    assert_eq!(sum(&would, "bytes") as u64, bytes - size(&after));
    assert_eq!(sum(&reports(&shop, &["vacuum"], true), "files"), 0, "nothing is left to delete");
    assert_eq!(shop.rows("select * from orders_by_city"), rows);
}

#[test]
fn a_dry_run_looks_at_a_lake_that_another_smelt_writes() {
    let shop = five_runs();
    let mut up = shop.spawn(&["up"], &[]);
    crate::support::eventually("up has opened the lake", std::time::Duration::from_secs(60), || {
        up.log().contains("open:")
    });
    shop.smelt(&["optimize", "--dry-run"]).ok();
    shop.smelt(&["vacuum", "--dry-run"]).ok();
    shop.smelt(&["optimize"]).fails(2, "--take-over");
    assert_eq!(up.stop(), Some(0));
}

#[test]
fn prune_drops_what_its_dry_run_names() {
    let shop = five_runs();
    shop.smelt(&["prune", "--dry-run"]).ok();
    shop.remove("queries/gold/ranked.sql");
    let would = reports(&shop, &["prune"], true);
    assert_eq!(would.len(), 1);
    assert_eq!(would[0]["table"], "gold.ranked");
    assert_eq!(would[0]["files"].as_u64().unwrap() as usize, files(&shop.table("gold", "ranked")).len());
    let asked = shop.smelt(&["prune"]).ok();
    assert!(asked.stderr.contains("pass --yes to drop without asking"), "{}", asked.stderr);
    assert!(
        asked.stdout.contains("would drop gold.ranked: ") && asked.stdout.contains("nothing dropped"),
        "{}",
        asked.stdout
    );
    assert_eq!(reports(&shop, &["prune", "--yes"], false), would);
    assert!(files(&shop.table("gold", "ranked")).is_empty());
    assert!(shop.smelt(&["prune", "--yes"]).ok().stdout.contains("nothing to prune"));
}

#[test]
fn prune_leaves_alone_what_may_be_another_targets() {
    let shop = five_runs();
    let project = std::fs::read_to_string(shop.path().join("smelt.yml")).unwrap();
    let elsewhere = project.replace("gold: {+schema: gold", "gold: {+schema: mine");
    assert_ne!(project, elsewhere);
    shop.write("smelt.yml", elsewhere);
    assert!(shop.smelt(&["prune", "--yes"]).ok().stdout.contains("nothing to prune"));
    assert!(!files(&shop.table("gold", "ranked")).is_empty());
}

#[test]
fn clean_deletes_what_its_dry_run_names_and_never_a_table() {
    let shop = five_runs();
    shop.smelt(&["compile"]).ok();
    shop.write("target/debug/somebody-elses", "x");
    let would = reports(&shop, &["clean"], true);
    assert!(would.iter().any(|r| r["path"] == "target/compiled"), "{would:?}");
    assert!(shop.path().join("target/compiled").exists());
    assert_eq!(reports(&shop, &["clean"], false), would);
    assert!(!shop.path().join("target/compiled").exists());
    assert!(shop.path().join("target/debug/somebody-elses").exists());
    assert!(shop.smelt(&["clean"]).ok().stdout.contains("nothing to clean"));
    let project = std::fs::read_to_string(shop.path().join("smelt.yml")).unwrap();
    shop.write("smelt.yml", format!("{project}clean-targets: [target]\n"));
    shop.smelt(&["clean"]).ok();
    assert!(!shop.path().join("target").exists());
    shop.write("smelt.yml", format!("{project}clean-targets: [lake]\n"));
    shop.smelt(&["clean"]).fails(2, "clean-targets: lake holds the table");
    shop.write("smelt.yml", format!("{project}clean-targets: [..]\n"));
    shop.smelt(&["clean"]).fails(2, "`..` is not a folder inside the project");
    assert_eq!(shop.rows("select orders from total"), [r#"{"orders":5}"#]);
}

#[test]
fn piped_output_is_plain_lines() {
    let shop = five_runs();
    let ended = shop.smelt(&["optimize", "--select", "total"]).ok();
    assert!(!ended.stderr.contains('\x1b') && !ended.stdout.contains('\x1b'), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.starts_with("gold.total: "), "{}", ended.stdout);
}

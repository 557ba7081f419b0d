//! Stored state through the binary: it is written at the end of a run, taken back by the next one, and whatever is wrong with it is named and
//! costs a rebuild.

use crate::files::{customer, order, shop};
use crate::support::Sandbox;
use std::path::PathBuf;

/// The shop, whose few rows are worth storing here.
fn storing() -> Sandbox {
    let shop = shop();
    let project = std::fs::read_to_string(shop.path().join("smelt.yml")).unwrap();
    let with = project.replace("lake: ./lake,", "lake: ./lake, state_snapshots: {min_rows: 0, interval: 1 hour},");
    assert_ne!(with, project);
    shop.write("smelt.yml", with);
    shop
}

fn feed(shop: &Sandbox, number: u32) {
    let names = ["ada", "bob", "eve"];
    let orders: String = (0..20).map(|n| order(number * 15 + n, names[n as usize % 3], "2.50")).collect();
    shop.write(&format!("data/orders-{number}.json"), orders);
    let city = ["Rome", "Oslo", "Bonn", "Lyon"][number as usize % 4];
    shop.write(&format!("data/customers-{number}.json"), customer('u', "ada", city));
}

const TABLES: [&str; 5] =
    ["bronze.bronze_customers", "gold.orders_once", "gold.orders_by_city", "gold.city_totals", "gold.ranked"];

fn contents(shop: &Sandbox) -> Vec<Vec<String>> {
    TABLES.iter().map(|t| shop.rows(&format!("select * from {t}"))).collect()
}

/// What the tables hold after so many feeds and one run.
fn expected(feeds: u32) -> Vec<Vec<String>> {
    let calm = shop();
    (0..feeds).for_each(|n| feed(&calm, n));
    calm.smelt(&["run"]).ok();
    contents(&calm)
}

/// Stored objects, by table.
fn stored(shop: &Sandbox) -> Vec<PathBuf> {
    let Ok(tables) = std::fs::read_dir(shop.path().join("lake/_smelt/state")) else { return vec![] };
    let files = tables.flat_map(|table| std::fs::read_dir(table.unwrap().path()).unwrap());
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// One file a run.
fn run(shop: &Sandbox) -> String {
    let ended = shop.smelt(&["run"]).ok();
    ended.stdout + &ended.stderr
}

#[test]
fn runs_go_on_with_stored_state() {
    let shop = storing();
    for number in 0..4 {
        feed(&shop, number);
        let said = run(&shop);
        assert!(!said.contains("state"), "nothing to say when all is well: {said}");
        let files = stored(&shop);
        assert!(files.len() >= 4, "each maintained table has its state: {files:?}");
        let tables: std::collections::BTreeSet<_> = files.iter().map(|f| f.parent().unwrap()).collect();
        assert_eq!(tables.len(), files.len(), "older ones are deleted: {files:?}");
    }
    assert_eq!(contents(&shop), expected(4));
    shop.smelt(&["optimize"]).ok();
    shop.smelt(&["vacuum"]).ok();
    feed(&shop, 4);
    let said = run(&shop);
    assert!(!said.contains("is rebuilt"), "compaction and vacuum leave it what it needs: {said}");
    assert_eq!(contents(&shop), expected(5));
}

#[test]
fn damaged_state_is_named_and_rebuilt() {
    let shop = storing();
    feed(&shop, 0);
    run(&shop);
    // One has a flipped bit at its end, one is cut, one is of a later format, one is gone.
    let files = stored(&shop);
    let rewrite = |at: usize, change: fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(&files[at]).unwrap();
        change(&mut bytes);
        std::fs::write(&files[at], bytes).unwrap();
    };
    rewrite(0, |bytes| *bytes.last_mut().unwrap() ^= 8);
    rewrite(1, |bytes| bytes.truncate(bytes.len() / 2));
    rewrite(2, |bytes| bytes[8] = 77);
    std::fs::remove_file(&files[3]).unwrap();
    feed(&shop, 1);
    let said = run(&shop);
    let table = |at: usize| files[at].parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    for (at, why) in [(1, "cut off"), (2, "it has format 77; this version reads format 3")] {
        let line = said.lines().find(|l| l.contains(&format!("the stored state of {} is rebuilt", table(at))));
        assert!(line.is_some_and(|l| l.contains(why)), "{}: {said}", table(at));
    }
    assert!(said.contains("the checksum of"), "{said}");
    assert_eq!(contents(&shop), expected(2));
}

#[test]
fn a_switch_turns_it_off_and_an_edit_makes_it_useless() {
    let shop = storing();
    feed(&shop, 0);
    run(&shop);
    let edited = "select city, count(*) as orders, sum(amount) as amount, max(amount) as largest from {{ ref('orders_by_city') }} where city is not null group by city";
    shop.write("queries/gold/city_totals.sql", edited);
    feed(&shop, 1);
    let said = run(&shop);
    assert!(said.contains("the stored state of gold.city_totals is not used: it belongs to other SQL"), "{said}");
    assert_eq!(
        shop.rows("select sum(orders) as n from city_totals"),
        shop.rows("select count(*) as n from orders_by_city where city is not null")
    );
    let project = std::fs::read_to_string(shop.path().join("smelt.yml")).unwrap();
    shop.write("smelt.yml", project.replace("{min_rows: 0,", "{enabled: false,"));
    run(&shop);
    assert_eq!(stored(&shop), Vec::<PathBuf>::new(), "what nobody reads is not kept");
    shop.write("smelt.yml", project.replace("min_rows: 0", "min_row: 0"));
    shop.smelt(&["run"]).fails(2, "min_row");
}

#[test]
fn a_process_killed_while_it_writes_state_loses_nothing() {
    for point in ["before-state-put", "before-state-put:3", "after-state-put", "after-state-put:4"] {
        let shop = storing();
        feed(&shop, 0);
        let ended = shop.smelt_with(&["run"], &[("SMELT_CRASH_AT", point)]);
        assert_eq!(ended.code, None, "{point} was not reached: {}", ended.stdout);
        feed(&shop, 1);
        let ended = shop.smelt_with(&["run"], &[("SMELT_CRASH_AT", point)]);
        assert_eq!(ended.code, None, "{point} was not reached again: {}", ended.stdout);
        feed(&shop, 2);
        run(&shop);
        assert_eq!(contents(&shop), expected(3), "{point}");
    }
}

//! Everything a user can get wrong gives a clear error, a kept or a dead-lettered row; the lake stays valid.

use crate::files::{order, shop};

#[test]
fn malformed_records_become_dead_letters_once_and_the_good_ones_land() {
    let shop = shop();
    let bad = [
        "{\"id\": 7, \"customer\": \"x\"",
        "plain text",
        "[1, 2]",
        "{\"id\": \"abc\", \"customer\": \"x\", \"amount\": 1}",
        "{\"id\": 1.5, \"customer\": \"x\", \"amount\": 1}",
        "{\"id\": 1,, \"customer\": \"x\"}",
    ];
    let mut text = order(1, "ada", "10.00");
    for line in bad {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&order(2, "bob", "1.00"));
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(b"{\"id\": 3, \"customer\": \"\xff\", \"amount\": 1}\n");
    shop.write("data/orders-1.json", bytes);
    for _ in 0..2 {
        shop.smelt(&["run"]).ok();
        assert_eq!(shop.count("bronze.bronze_orders"), 2);
        assert_eq!(shop.count("bronze.bronze_orders__dead_letter"), 7);
    }
    assert_eq!(
        shop.value("select count(raw_bytes) as n from bronze.bronze_orders__dead_letter").as_i64(),
        Some(1),
        "only the record that is not UTF-8 is kept as bytes"
    );
}

#[test]
fn an_overflow_parks_its_model_and_the_others_go_on() {
    let shop = shop();
    shop.write(
        "queries/gold/too_big.sql",
        "select cast(id as bigint) * 9223372036854775807 as big from {{ ref('bronze_orders') }}",
    );
    shop.write("queries/gold/after_it.sql", "select count(*) as n from {{ ref('too_big') }}");
    shop.write("data/orders-1.json", order(2, "ada", "10.00"));
    let ended = shop.smelt(&["run"]);
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("too_big"), "{}", ended.stderr);
    assert_eq!(shop.count("gold.total"), 1);
    assert_eq!(shop.rows("select orders from total"), [r#"{"orders":1}"#]);
    shop.write("queries/gold/too_big.sql", "select id as big from {{ ref('bronze_orders') }}");
    shop.smelt(&["run"]).ok();
    assert_eq!(shop.rows("select n from after_it"), [r#"{"n":1}"#]);
}

#[test]
fn errors_in_sql_point_into_the_file() {
    let shop = shop();
    shop.write("queries/gold/broken.sql", "select\n  sum(amountt) as amount\nfrom {{ ref('bronze_orders') }}");
    let ended = shop.smelt(&["compile"]).fails(2, "queries/gold/broken.sql:2:7");
    assert!(ended.stderr.contains("did you mean `amount`?"), "{}", ended.stderr);
    assert!(ended.stderr.contains("unknown-column"), "{}", ended.stderr);
    shop.write("queries/gold/broken.sql", "select frobnicate(id) as x from {{ ref('bronze_orders') }}");
    shop.smelt(&["compile"]).fails(2, "frobnicate");
    shop.write("queries/gold/broken.sql", "select id from {{ ref('bronze_order') }}");
    shop.smelt(&["compile"]).fails(2, "did you mean `bronze_orders`?");
    shop.write("queries/gold/broken.sql", "select id from {{ ref('bronze_orders') }");
    shop.smelt(&["compile"]).fails(2, "queries/gold/broken.sql:1");
    shop.write("queries/gold/broken.sql", "selec id from {{ ref('bronze_orders') }}");
    shop.smelt(&["compile"]).fails(2, "queries/gold/broken.sql:1:1");
}

#[test]
fn broken_yaml_and_jinja_are_shown_where_they_are() {
    let shop = shop();
    shop.write("models/more.yml", "version: 2\nmodels:\n  - name: total\n   columns: [\n");
    let ended = shop.smelt(&["run"]).fails(2, "models/more.yml:4");
    assert!(ended.stderr.contains("error["), "{}", ended.stderr);
    shop.remove("models/more.yml");
    shop.write("queries/gold/broken.sql", "select id\nfrom {% if %} {{ ref('bronze_orders') }}");
    shop.smelt(&["run"]).fails(2, "queries/gold/broken.sql:2");
    shop.write("queries/gold/broken.sql", "select id\nfrom {{ reff('bronze_orders') }}");
    let ended = shop.smelt(&["run"]).fails(2, "queries/gold/broken.sql:2");
    assert!(ended.stderr.contains("reff"), "{}", ended.stderr);
    assert!(!shop.path().join("lake").exists(), "nothing is written before everything compiles");
    shop.remove("queries/gold/broken.sql");
    shop.write("data/orders-1.json", order(1, "ada", "10.00"));
    shop.smelt(&["run"]).ok();
    assert_eq!(shop.rows("select orders from total"), [r#"{"orders":1}"#]);
}

#[test]
fn a_failed_cast_parks_its_model_and_the_others_go_on() {
    let shop = shop();
    shop.write("queries/gold/numbers.sql", "select id, cast(customer as int) as n from {{ ref('bronze_orders') }}");
    shop.write("data/orders-1.json", order(1, "17", "10.00"));
    shop.smelt(&["run"]).ok();
    assert_eq!(shop.rows("select n from numbers"), [r#"{"n":17}"#]);
    shop.write("data/orders-2.json", order(2, "ada", "1.00"));
    let ended = shop.smelt(&["run"]).fails(1, "numbers stopped: ");
    assert!(ended.stderr.contains("ada"), "{}", ended.stderr);
    assert_eq!(shop.rows("select orders from total"), [r#"{"orders":2}"#], "others go on");
    assert_eq!(shop.rows("select n from numbers"), [r#"{"n":17}"#], "it keeps its last version");
    shop.write("queries/gold/numbers.sql", "select id, try_cast(customer as int) as n from {{ ref('bronze_orders') }}");
    shop.smelt(&["run"]).ok();
    assert_eq!(shop.rows("select n from numbers"), [r#"{"n":17}"#, r#"{"n":null}"#]);
}

#[test]
fn cycles_are_named() {
    let shop = shop();
    shop.write("queries/gold/a.sql", "select 1 as x from {{ ref('b') }}");
    shop.write("queries/gold/b.sql", "select 1 as x from {{ ref('a') }}");
    shop.smelt(&["compile"]).fails(2, "cycle");
}

#[test]
fn a_lake_that_cannot_be_written_is_an_error_not_a_hang() {
    let shop = shop();
    shop.write("lake", "this is a file, not a folder");
    let ended = shop.smelt(&["run"]);
    assert_eq!(ended.code, Some(2), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("lake"), "{}", ended.stderr);
}

//! `smelt explain`: how a model is maintained, and what was measured when it was.

use crate::files::{order, shop};
use crate::support::{Sandbox, eventually};
use std::time::Duration;

/// Two readers of one named query, over a table that only grows.
const BIGGEST: &str =
    "with totals as (select customer, count(*) as orders from {{ ref('bronze_orders') }} group by customer)
select t.customer, t.orders from totals t join (select max(orders) as most from totals) m on t.orders = m.most";

fn explain(sandbox: &Sandbox, model: &str) -> String {
    sandbox.smelt(&["explain", model]).ok().stdout
}

/// The line of a node, and the lines below it that say more of it.
fn said(text: &str, node: &str) -> Vec<String> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| !line.contains(node));
    let first = lines.next().unwrap_or_else(|| panic!("`{node}` is not in\n{text}"));
    let more = lines.take_while(|line| line.starts_with('·'));
    std::iter::once(first).chain(more).map(str::to_string).collect()
}

#[test]
fn explain_says_what_bounds_state_before_anything_ran() {
    let shop = shop();
    shop.write("queries/gold/biggest.sql", BIGGEST);
    let text = explain(&shop, "biggest");
    assert!(text.contains("measured: not yet"), "{text}");
    assert!(
        text.contains("path: an epoch steps the circuit; one that changes more rows than its inputs hold"),
        "{text}"
    );
    let counts = said(&text, "aggregate count(Int64(1))");
    assert_eq!(counts.len(), 2, "{text}");
    assert!(counts[1].contains("output may retract; key"), "{text}");
    assert!(counts[1].contains("the keys its input holds, and that only grows"), "{text}");
    assert!(said(&text, "shared 1: computed once for 2 readers").len() == 1, "{text}");
    assert!(text.contains("shared 1: as above"), "{text}");
}

#[test]
fn explain_shows_what_the_last_run_measured() {
    let shop = shop();
    shop.write("queries/gold/biggest.sql", BIGGEST);
    shop.write("data/orders-1.json", order(1, "ada", "10.00") + &order(2, "bob", "1.00") + &order(3, "ada", "2.00"));
    shop.smelt(&["run"]).ok();
    assert_eq!(shop.rows("select * from biggest"), [r#"{"customer":"ada","orders":2}"#]);
    let text = explain(&shop, "biggest");
    assert!(text.contains("measured: until epoch "), "{text}");
    assert!(text.contains("10,000 rows or more as things are"), "{text}");
    let counts = said(&text, "aggregate count(Int64(1))");
    assert!(counts[2].starts_with("· 3 rows in, 2 out; state 2 rows, "), "{text}");
    assert!(said(&text, "read bronze_orders")[1].starts_with("· 3 rows; "), "{text}");
    // A model that a run leaves alone keeps its figures; one whose query is another has none.
    shop.smelt(&["run", "--select", "total"]).ok();
    assert_eq!(said(&explain(&shop, "biggest"), "aggregate count(Int64(1))"), counts);
    shop.write("queries/gold/biggest.sql", BIGGEST.replace("max(orders)", "min(orders)"));
    assert!(explain(&shop, "biggest").contains("measured: not since the query was changed"));
}

#[test]
fn explain_shows_what_a_running_process_measures() {
    let shop = shop();
    shop.write("queries/gold/biggest.sql", BIGGEST);
    shop.write("data/orders-1.json", order(1, "ada", "10.00"));
    let mut up = shop.spawn(&["up", "--no-http"], &[]);
    eventually("figures are there", Duration::from_secs(120), || {
        explain(&shop, "biggest").contains("· 1 row in, 1 out; state 1 row, ")
    });
    assert!(up.is_running());
    up.stop();
}

#[test]
fn explain_says_why_a_model_is_recomputed_and_strict_refuses_it() {
    let shop = shop();
    let sql = "with recursive n as (select 1 as i union all select i + 1 as i from n where i < 3) select i from n";
    shop.write("queries/gold/numbers.sql", sql);
    let text = explain(&shop, "numbers");
    assert!(text.contains("full refresh: WITH RECURSIVE: a change can reach any row of the result"), "{text}");
    shop.write("queries/gold/numbers.sql", format!("{{{{ config(incremental='strict') }}}}\n{sql}"));
    let refused =
        shop.smelt(&["compile"]).fails(2, "error[not-incremental]: `incremental: strict`, but WITH RECURSIVE");
    assert!(refused.stderr.contains("queries/gold/numbers.sql"), "{}", refused.stderr);
    assert!(refused.stderr.contains("write it another way"), "{}", refused.stderr);
}

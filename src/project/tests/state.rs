//! `state:`, `result:` and `source_status:` against the artifacts of another run: a manifest that dbt wrote of the same files.

use std::path::Path;

use super::Folder;
use super::selection::shop_files;
use crate::env::Env;
use crate::project::{Request, State, select};

/// The dbt project with some of its files changed, and dbt's manifest of before.
fn shop(changes: &[(&str, &str, &str)]) -> Folder {
    let mut files: Vec<(String, String)> = shop_files().iter().map(|(p, c)| (p.to_string(), c.to_string())).collect();
    for (path, from, to) in changes {
        match files.iter_mut().find(|(p, _)| p == path) {
            Some((_, content)) => {
                assert!(content.contains(from), "{path} has no {from}");
                *content = content.replace(from, to);
            }
            None => files.push((path.to_string(), to.to_string())),
        }
    }
    let mut files: Vec<(&str, &str)> = files.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
    files.push(("before/manifest.json", include_str!("dbt_manifest.json")));
    Folder::new(&files)
}

/// Names of the nodes alone, without the tests they bring.
#[track_caller]
fn check(folder: &Folder, word: &str, expected: &str) {
    let project = folder.load();
    let state = State::read(Path::new("before"), &project, &Env::real()).unwrap();
    let words = [word.to_string()];
    let request = Request {
        select: &words,
        indirect: crate::project::Indirect::Empty,
        state: Some(&state),
        ..Request::default()
    };
    let selected = select(&project, &request).unwrap_or_else(|e| panic!("{word}: {}", e.render()));
    let names: Vec<String> = selected.nodes.iter().map(|n| n.search_name()).collect();
    assert_eq!(names.join(" "), expected, "{word}");
}

#[test]
fn nothing_has_changed_since_dbt_wrote_its_manifest() {
    let folder = shop(&[]);
    for check_name in [
        "new",
        "modified",
        "modified.body",
        "modified.configs",
        "modified.relation",
        "modified.contract",
        "modified.macros",
    ] {
        check(&folder, &format!("state:{check_name}"), "");
    }
    check(&folder, "state:old,resource_type:source", "crm.leads raw.customers raw.orders");
    check(&folder, "state:unmodified,tag:nightly", "lead_app orders stg_orders");
}

#[test]
fn each_kind_of_change_is_told_from_the_others() {
    let body = ("models/marts/calendar.sql", "1 as id", "2 as id");
    let config = ("models/marts/orders.sql", "'owner': 'bi'", "'owner': 'sales'");
    let relation = ("models/staging/stg_leads.sql", "select id", "{{ config(alias='leads_of_crm') }} select id");
    let new = ("models/marts/brand_new.sql", "", "select 1 as x");
    check(&shop(&[body]), "state:modified", "calendar");
    check(&shop(&[body]), "state:modified.body", "calendar");
    check(&shop(&[body]), "state:modified.configs", "");
    check(&shop(&[config]), "state:modified.configs", "orders");
    check(&shop(&[relation]), "state:modified.relation", "stg_leads");
    check(&shop(&[relation]), "state:modified.configs", "");
    check(&shop(&[new]), "state:new", "brand_new");
    check(&shop(&[new]), "state:modified", "brand_new");
    check(&shop(&[new, body]), "state:modified+", "brand_new calendar");
    // A tag changes nothing that is built.
    let tag = (
        "models/marts/marts.yml",
        "config: {group: sales, access: public}",
        "config: {group: sales, access: public, tags: [x]}",
    );
    check(&shop(&[tag]), "state:modified", "");
    // What is said of a table is compared where it is written to it.
    let described = ("models/marts/marts.yml", "- name: orders", "- name: orders\n    description: Sold");
    check(&shop(&[described]), "state:modified", "");
    let contract = (
        "models/marts/marts.yml",
        "config: {group: sales, access: public}",
        "config: {group: sales, access: public, contract: {enforced: true}}",
    );
    check(&shop(&[contract]), "state:modified.contract", "orders");
    // Of macros also those that are called by others count.
    let called = ("macros/money.sql", "}}, 2)", "}}, 3)");
    check(&shop(&[called]), "state:modified.macros", "prices");
    check(&shop(&[called]), "state:modified", "prices");
    let other = ("macros/money.sql", "untouched() %}1", "untouched() %}2");
    check(&shop(&[other]), "state:modified.macros", "prices");
    let unused = ("macros/other.sql", "", "{% macro other() %}1{% endmacro %}");
    check(&shop(&[unused]), "state:modified.macros", "");
    let owner = ("models/marts/exposures.yml", "{name: bi}", "{name: sales}");
    check(&shop(&[owner]), "state:modified", "sales_board");
    let reads = ("models/marts/exposures.yml", "[\"ref('overview')\", ", "[");
    check(&shop(&[reads]), "state:modified", "sales_board");
    let rows = (
        "models/marts/unit_tests.yml",
        "given: [{input: ref('orders'), rows: [{id: 1,",
        "given: [{input: ref('orders'), rows: [{id: 2,",
    );
    check(&shop(&[rows]), "state:modified", "keeps_every_order");
    let severity = ("models/staging/staging.yml", "severity: warn", "severity: error");
    check(&shop(&[severity]), "state:modified", "not_null_stg_orders_id");
    check(&shop(&[severity]), "state:modified.configs", "not_null_stg_orders_id");
    let read = (
        "models/sources.yml",
        "- name: crm\n",
        "- name: crm\n    config: {connector: files, path: data, format: json}\n",
    );
    check(&shop(&[read]), "state:modified", "crm.leads");
    // A test that asks for something else is another test.
    let test = ("models/staging/staging.yml", "data_tests: [unique]", "data_tests: [not_null]");
    check(&shop(&[test]), "state:new", "not_null_stg_customers_id");
    let moved = ("models/sources.yml", "- name: crm", "- name: crm\n    schema: elsewhere");
    check(&shop(&[moved]), "state:modified", "crm.leads");
}

#[test]
fn results_and_freshness_are_read_from_their_artifacts() {
    let result = |id: &str, key: &str, value: &str| format!("{{\"unique_id\": \"{id}\", \"{key}\": \"{value}\"}}");
    let all = |items: &[String]| format!("{{\"results\": [{}]}}", items.join(", "));
    let results = all(&[
        result("model.shop.orders", "status", "error"),
        result("model.shop.revenue", "status", "skipped"),
        result("test.shop.assert_positive", "status", "fail"),
    ]);
    let then = all(&[
        result("source.shop.raw.orders", "max_loaded_at", "2026-01-05T00:00:00Z"),
        result("source.shop.raw.customers", "max_loaded_at", "2026-01-05T00:00:00Z"),
    ]);
    let now = all(&[
        result("source.shop.raw.orders", "max_loaded_at", "2026-01-05T00:00:00.5Z"),
        result("source.shop.raw.customers", "max_loaded_at", "2026-01-05T00:00:00+00:00"),
        result("source.shop.crm.leads", "max_loaded_at", "2026-01-01T00:00:00Z"),
    ]);
    let folder = shop(&[
        ("before/run_results.json", "", &results),
        ("before/sources.json", "", &then),
        ("target/sources.json", "", &now),
    ]);
    check(&folder, "result:error", "orders");
    check(&folder, "result:fail", "assert_positive");
    check(&folder, "1+result:skipped", "orders revenue");
    check(&folder, "source_status:fresher", "crm.leads raw.orders");
}

#[test]
fn what_is_missing_is_named() {
    let folder = shop(&[]);
    let project = folder.load();
    let error = |word: &str, dir: &str| {
        let state = match State::read(Path::new(dir), &project, &Env::real()) {
            Ok(state) => state,
            Err(e) => return e.render(),
        };
        let words = [word.to_string()];
        match select(&project, &Request { select: &words, state: Some(&state), ..Request::default() }) {
            Ok(_) => panic!("{word} selects"),
            Err(e) => e.render(),
        }
    };
    assert!(error("result:error", "before").contains("`result:` needs run_results.json"));
    assert!(error("source_status:fresher", "before").contains("`source_status:` needs sources.json"));
    assert!(error("state:new", "models").contains("`state:` needs manifest.json"));
    assert!(error("state:new", "nowhere").contains("there is no such folder"));
    assert!(error("state:modifed", "before").contains("did you mean `modified`?"));
    assert!(error("result:eror", "before").contains("did you mean `error`?"));
    let words = ["state:modified.body".to_string()];
    let bare = select(&project, &Request { select: &words, ..Request::default() }).unwrap_err().render();
    assert!(bare.contains("with --state"), "{bare}");
}

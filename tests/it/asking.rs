//! Templates ask the lake: `run_query`, `statement`, columns of relations; and when a model that asks is compiled.

use std::time::Duration;

use super::support::{Sandbox, eventually};

const SMELT: &str = "name: shop\ntargets: {dev: {lake: ./lake, commit_interval: 50ms}}\n";

const SOURCES: &str = "\
version: 2
sources:
  - name: shop
    config: {connector: files, format: json, path: data/payments}
    tables:
      - name: payments
        columns: [{name: id, data_type: BIGINT}, {name: method, data_type: STRING}, {name: amount, data_type: BIGINT}]
";

const PIVOT: &str = "\
{{ config(materialized='table') }}
{%- set methods = run_query('select distinct method from ' ~ ref('payments') ~ ' order by method') -%}
select
{% if execute %}
{%- for method in methods.columns[0].values() %}
  sum(case when method = '{{ method }}' then amount else 0 end) as {{ method }}_amount,
{%- endfor %}
{% endif %}
  count(*) as payments
from {{ ref('payments') }}
";

fn shop(files: &[(&str, &str)]) -> Sandbox {
    let sandbox = Sandbox::with(&[
        ("smelt.yml", SMELT),
        ("models/shop.yml", SOURCES),
        (
            "queries/payments.sql",
            "{{ config(materialized='streaming_table') }}select id, method, amount from {{ source('shop', 'payments') }}",
        ),
        (
            "data/payments/1.json",
            "{\"id\": 1, \"method\": \"card\", \"amount\": 10}\n{\"id\": 2, \"method\": \"cash\", \"amount\": 5}\n",
        ),
    ]);
    files.iter().for_each(|(path, text)| sandbox.write(path, text));
    sandbox
}

#[test]
fn a_model_that_asks_is_compiled_when_what_it_asks_about_is_made_in_the_same_run() {
    let sandbox =
        shop(&[("queries/pivot.sql", PIVOT), ("queries/readers.sql", "select card_amount from {{ ref('pivot') }}")]);
    sandbox.smelt(&["run"]).ok();
    assert_eq!(sandbox.rows("select * from pivot"), [r#"{"card_amount":10,"cash_amount":5,"payments":2}"#]);
    assert_eq!(sandbox.rows("select * from readers"), [r#"{"card_amount":10}"#]);

    // The next run asks what the table holds then, not what it held before.
    sandbox.write("data/payments/2.json", "{\"id\": 3, \"method\": \"bond\", \"amount\": 7}\n");
    let ended = sandbox.smelt(&["run"]).ok();
    assert!(ended.stdout.contains("Completed successfully"), "{}", ended.stdout);
    assert_eq!(
        sandbox.rows("select * from pivot"),
        [r#"{"bond_amount":7,"card_amount":10,"cash_amount":5,"payments":3}"#]
    );
}

#[test]
fn before_the_first_run_the_project_compiles_and_says_what_waits() {
    let sandbox = shop(&[("queries/pivot.sql", PIVOT)]);
    let ended = sandbox.smelt(&["compile"]).ok();
    assert!(ended.stderr.contains("waits-for-lake"), "{}", ended.stderr);
    assert!(ended.stderr.contains("queries/pivot.sql:2"), "{}", ended.stderr);
    assert!(ended.stdout.starts_with("1 models compile"), "{}", ended.stdout);
    sandbox.smelt(&["ls"]).ok();
    sandbox.smelt(&["run"]).ok();
    let ended = sandbox.smelt(&["compile"]).ok();
    assert!(ended.stdout.starts_with("2 models compile"), "{}", ended.stdout);
    let sql = std::fs::read_to_string(sandbox.path().join("target/compiled/queries/pivot.sql")).unwrap();
    assert!(sql.contains("as card_amount"), "{sql}");
}

#[test]
fn a_model_whose_question_cannot_be_answered_fails_alone() {
    let sandbox = shop(&[("queries/pivot.sql", PIVOT)]);
    sandbox.smelt(&["run", "--select", "pivot"]).fails(1, "payments has no table yet");
    sandbox.smelt(&["run"]).ok();
    let broken = PIVOT.replace("distinct method", "distinct methodd");
    sandbox.write("queries/pivot.sql", broken);
    sandbox.write("data/payments/2.json", "{\"id\": 3, \"method\": \"cash\", \"amount\": 7}\n");
    let ended = sandbox.smelt(&["run"]).fails(1, "methodd");
    assert!(ended.stderr.contains("queries/pivot.sql:2"), "{}", ended.stderr);
    // What asks nothing went on.
    sandbox.write("queries/pivot.sql", PIVOT);
    assert_eq!(sandbox.count("payments"), 3);
}

#[test]
fn a_maintained_table_may_not_depend_on_answers() {
    let sandbox = shop(&[
        (
            "queries/kept.sql",
            "{% set n = run_query('select count(*) from ' ~ ref('payments')) %}select {% if execute %}{{ n.rows[0][0] }}{% else %}0{% endif %} as n",
        ),
        ("queries/asking.sql", &PIVOT.replace("'table'", "'view'")),
        ("queries/inlined.sql", "select payments from {{ ref('asking') }}"),
    ]);
    let ended = sandbox.smelt(&["compile"]).fails(2, "error[lake-dependent]: a materialized_view is kept up to date");
    assert!(ended.stderr.contains("queries/kept.sql:1:12"), "{}", ended.stderr);
    assert!(ended.stderr.contains("`asking`, which stands in it, asks the lake"), "{}", ended.stderr);
    assert!(ended.stderr.contains("queries/inlined.sql:1"), "{}", ended.stderr);
}

#[test]
fn columns_are_those_of_the_query_in_maintained_tables_too() {
    let sandbox = shop(&[
        (
            "queries/wide.sql",
            "select {% for c in adapter.get_columns_in_relation(ref('payments')) %}{{ c.name }} as {{ c.name }}_{{ c.dtype | lower }}{{ ', ' if not loop.last }}{% endfor %} from {{ ref('payments') }}",
        ),
        (
            "queries/wider.sql",
            "select {{ adapter.get_columns_in_relation(ref('wide')) | map(attribute='name') | join(', ') }}, 1 as one from {{ ref('wide') }}",
        ),
    ]);
    sandbox.smelt(&["run"]).ok();
    assert_eq!(
        sandbox.rows("select * from wider where id_bigint = 1"),
        [r#"{"id_bigint":1,"method_string":"card","amount_bigint":10,"one":1}"#]
    );
}

#[test]
fn statement_keeps_its_result_under_a_name() {
    let sandbox = shop(&[(
        "queries/sums.sql",
        "{{ config(materialized='table') }}{% call statement('sums', fetch_result=True) %}select method, sum(amount) as amount from {{ ref('payments') }} group by method order by method{% endcall %}\
         {% if execute %}{% set found = load_result('sums') %}{% for method, amount in found.data %}select '{{ method }}' as m, {{ amount }} as a, '{{ found.table.column_names | join('+') }}' as c {{ 'union all ' if not loop.last }}{% endfor %}{% else %}select 1 as x{% endif %}",
    )]);
    sandbox.smelt(&["run"]).ok();
    assert_eq!(
        sandbox.rows("select * from sums"),
        [r#"{"m":"card","a":10,"c":"method+amount"}"#, r#"{"m":"cash","a":5,"c":"method+amount"}"#]
    );
}

#[test]
fn an_incremental_model_asks_its_own_table() {
    let sandbox = shop(&[(
        "queries/log.sql",
        "{{ config(materialized='incremental') }}
         {% if is_incremental() %}{% set newest = run_query('select max(id) as id from ' ~ this).columns[0].values()[0] %}{% endif %}
         select id, amount from {{ ref('payments') }} {% if is_incremental() %} where id > {{ newest }} {% endif %}",
    )]);
    sandbox.smelt(&["run"]).ok();
    assert_eq!(sandbox.count("log"), 2);
    sandbox.write(
        "data/payments/2.json",
        "{\"id\": 3, \"method\": \"cash\", \"amount\": 7}\n{\"id\": 1, \"method\": \"cash\", \"amount\": 70}\n",
    );
    sandbox.smelt(&["run"]).ok();
    assert_eq!(
        sandbox.rows("select id, amount from log"),
        [r#"{"id":1,"amount":10}"#, r#"{"id":2,"amount":5}"#, r#"{"id":3,"amount":7}"#]
    );
    sandbox.smelt(&["run"]).ok();
    assert_eq!(sandbox.count("log"), 3);
}

#[test]
fn up_asks_again_before_each_run() {
    let sandbox = shop(&[(
        "queries/log.sql",
        "{{ config(materialized='incremental', schedule='every 1 second') }}
         {% if is_incremental() %}{% set newest = run_query('select max(id) as id from ' ~ this).columns[0].values()[0] %}{% endif %}
         select id, amount from {{ ref('payments') }} {% if is_incremental() %} where id > {{ newest }} {% endif %}",
    )]);
    let mut up = sandbox.spawn(&["up", "--no-http"], &[]);
    eventually(&up.log(), Duration::from_secs(60), || sandbox.table("default", "log").join("_delta_log").exists());
    for (n, id) in [(2, 3), (3, 4)] {
        sandbox.write(
            &format!("data/payments/{n}.json"),
            format!("{{\"id\": {id}, \"method\": \"cash\", \"amount\": 7}}\n"),
        );
        eventually("its row", Duration::from_secs(20), || {
            sandbox
                .smelt(&["query", "select id from log", "--output", "csv"])
                .stdout
                .lines()
                .any(|l| l == id.to_string())
        });
    }
    assert_eq!(up.stop(), Some(0), "{}", up.log());
    assert_eq!(sandbox.rows("select count(*) as n, count(distinct id) as d from log"), [r#"{"n":4,"d":4}"#]);
}

#[test]
fn a_template_that_fails_stops_its_model_and_its_readers_only() {
    let asks = |question: &str, rest: &str| {
        format!(
            "{{{{ config(materialized='table') }}}}{{% set found = run_query({question}) %}}select {{% if execute %}}{{{{ found.columns[0].values() | join(', ') }}}}{{% endif %}} as x{rest}"
        )
    };
    let payments = "'select count(*) from ' ~ ref('payments')";
    let sandbox = shop(&[
        ("queries/pivot.sql", PIVOT),
        // Its question is wrong; its SQL is, once it has its answer; its macro gives up on the answer.
        ("queries/bad_question.sql", &asks("'select nothing from ' ~ ref('payments')", "")),
        ("queries/bad_sql.sql", &asks(payments, ", no_such_column")),
        (
            "queries/gives_up.sql",
            &asks(payments, "{% if execute %}{{ exceptions.raise_compiler_error('too few') }}{% endif %}"),
        ),
        ("queries/reader.sql", "select * from {{ ref('bad_question') }}"),
        ("queries/later.sql", &asks("'select count(*) from ' ~ ref('pivot')", "")),
        (
            "queries/tests/broken.sql",
            "{% if execute %}{% set n = run_query('select nothing from ' ~ ref('payments')) %}{% endif %}select 1 as a",
        ),
        ("queries/tests/fine.sql", "select 1 as a where false"),
    ]);
    let ended = sandbox.smelt(&["run"]).fails(1, "no column `nothing`");
    assert!(ended.stderr.contains("no_such_column") && ended.stderr.contains("too few"), "{}", ended.stderr);
    assert_eq!(sandbox.count("payments"), 2);
    assert_eq!(sandbox.rows("select x from later"), [r#"{"x":1}"#]);
    let statuses = || {
        let text = std::fs::read_to_string(sandbox.path().join("target/run_results.json")).unwrap();
        let results: serde_json::Value = serde_json::from_str(&text).unwrap();
        let one = |r: &serde_json::Value| {
            format!("{} {}", r["unique_id"].as_str().unwrap().split('.').nth(2).unwrap(), r["status"].as_str().unwrap())
        };
        let mut all: Vec<String> = results["results"].as_array().unwrap().iter().map(one).collect();
        all.sort();
        all
    };
    let expected = [
        "bad_question error",
        "bad_sql error",
        "gives_up error",
        "later success",
        "payments success",
        "pivot success",
        "reader skipped",
    ];
    assert_eq!(statuses(), expected);
    // `compile` writes what can be compiled, and says what cannot.
    let ended = sandbox.smelt(&["compile"]).fails(1, "no column `nothing`");
    assert!(ended.stderr.contains("no_such_column"), "{}", ended.stderr);
    let compiled = |name: &str| sandbox.path().join(format!("target/compiled/queries/{name}.sql"));
    assert!(std::fs::read_to_string(compiled("pivot")).unwrap().contains("cash_amount"));
    assert!(!compiled("bad_question").exists());
    // A test too fails alone.
    let ended = sandbox.smelt(&["test"]).fails(1, "");
    assert!(ended.stdout.contains("ERROR broken") && ended.stdout.contains("PASS fine"), "{}", ended.stdout);
}

#[test]
fn what_would_need_an_answer_passes_while_the_project_is_read() {
    let sandbox = shop(&[
        (
            "macros/m.sql",
            "{% macro first_of(q) %}{% set r = run_query(q) %}{{ return(r.columns[0].values()) }}{% endmacro %}",
        ),
        (
            "queries/lenient.sql",
            "{{ config(materialized='table') }}{% set found = run_query('select id from ' ~ ref('payments') ~ ' order by id') %}\
             select 0 as zero{% for id in found.columns[0].values() %}, {{ id }} as id_{{ id }}{% endfor %}\
             {% for row in found.rows %}, {{ row[0] + 1 }} as next_{{ row.id }}{% endfor %}\
             {% for id in first_of('select max(id) as id from ' ~ ref('payments')) %}, {{ id }} as highest{% endfor %}\
             {% for name in graph.nodes['model.shop.payments'].config['materialized'].split('_') %}, '{{ name }}' as as_{{ name }}{% endfor %}\
             , {{ found.rows | length }} as many",
        ),
    ]);
    sandbox.smelt(&["run"]).ok();
    assert_eq!(
        sandbox.rows("select * from lenient"),
        [
            r#"{"zero":0,"id_1":1,"id_2":2,"next_1":2,"next_2":3,"highest":2,"as_streaming":"streaming","as_table":"table","many":2}"#
        ]
    );
    // What is not defined when it is executed is an error still, with its place.
    for (wrong, message) in [
        ("{{ nothing_of_that_name }}", "`nothing_of_that_name` is not defined"),
        ("{% for x in d['x'] %}{{ x }}{% endfor %}", "`d` is not defined"),
        ("{% set d = {} %}{% for x in d['x'] %}{{ x }}{% endfor %}", "undefined-variable"),
        ("{{ none.attribute }}", "undefined-variable"),
        ("{{ nothing | length }}", "`nothing` is not defined"),
    ] {
        sandbox.write("queries/wrong.sql", format!("select 1 as a {wrong}"));
        let ended = sandbox.smelt(&["compile"]).fails(2, message);
        assert!(ended.stderr.contains("queries/wrong.sql:1"), "{}", ended.stderr);
    }
}

//! Unit tests of models through the binary: rows written in YAML, no lake, no source; changes step by step.

use crate::support::Sandbox;

const SETTINGS: &str = "name: shop\ntarget: dev\ntargets:\n  dev: {lake: ./lake, commit_interval: 100ms, connections: {k: {type: kafka, bootstrap.servers: \"localhost:1\"}}}\nvars: {currency: EUR}\n";
const SOURCES: &str = "version: 2\nsources:\n  - name: raw\n    config: {connector: kafka, connection: k, format: json}\n    tables:\n      - name: orders\n        \
     config: {topic: orders}\n        columns: [{name: id, data_type: BIGINT}, {name: customer, data_type: BIGINT}, {name: amount, data_type: 'DECIMAL(10, 2)'},\n          \
     {name: day, data_type: DATE}, {name: tags, data_type: ARRAY<STRING>}]\n";

/// Orders from a broker that is not there, customers, and what is made of them; `tests` is a properties file.
fn shop(tests: &str) -> Sandbox {
    Sandbox::with(&[
        ("smelt.yml", SETTINGS),
        ("models/sources.yml", SOURCES),
        (
            "queries/bronze_orders.sql",
            "{{ config(materialized='streaming_table') }}\nselect id, customer, amount, day, cardinality(tags) as tags from {{ source('raw', 'orders') }} where id is not null",
        ),
        (
            "queries/customers.sql",
            "{{ config(materialized='table') }}\nselect 1 as customer, 'a' as name from {{ ref('bronze_orders') }} where amount > 0",
        ),
        (
            "queries/totals.sql",
            "select c.name, sum(o.amount) as total, count(*) as n\nfrom {{ ref('latest') }} as o left join {{ ref('customers') }} as c on o.customer = c.customer\ngroup by c.name",
        ),
        (
            "queries/latest.sql",
            "select * from {{ ref('bronze_orders') }} qualify row_number() over (partition by id order by day desc) = 1",
        ),
        (
            "queries/named.sql",
            "{{ config(materialized='view') }}\nselect name, '{{ var('currency') }}' as currency, '{{ env_var('REGION', 'none') }}' as region, {{ tax() }} as tax from {{ ref('customers') }}",
        ),
        ("macros/tax.sql", "{% macro tax() %}0.2{% endmacro %}"),
        ("models/tests.yml", tests),
    ])
}

const GOOD: &str = r#"version: 2
unit_tests:
  - name: totals_follow_every_change
    model: totals
    given:
      - input: ref('customers')
        rows:
          - {customer: 1, name: ann}
      - input: ref('latest')
        rows:
          - {id: 1, customer: 1, amount: 5, day: 2026-01-05}
          - {id: 2, customer: 1, amount: "7.50"}
          - {id: 3, customer: 9, amount: 1}
    expect:
      rows:
        - {name: ann, total: 12.5, n: 2}
        - {name: null, total: 1, n: 1}
    then:
      - given:
          - input: ref('latest')
            key: id
            rows:
              - {_op: update, id: 2, amount: 10}
              - {_op: delete, customer: 9}
        expect:
          rows: [{name: ann, total: 15, n: 2}]
      - given:
          - input: ref('customers')
            rows: [{_op: delete, customer: 1}, {customer: 1, name: anna}, {customer: 2, name: bob}]
        expect:
          rows: [{name: anna, total: 15, n: 2}]
      - given:
          - input: ref('latest')
            rows: [{_weight: -1, id: 1, customer: 1, amount: 5, day: 2026-01-05}, {_weight: 2, id: 7, customer: 2, amount: 1}]
        expect:
          format: csv
          rows: |
            name,n
            anna,1
            bob,2
      - given: [{input: ref('latest'), rows: [{_op: delete, customer: 1}, {_op: delete, customer: 2}]}]
        expect: {rows: []}
  - name: bronze_counts_tags
    model: bronze_orders
    given:
      - input: source('raw', 'orders')
        rows:
          - {id: 1, tags: [a, b]}
          - {id: null, tags: [a]}
    expect:
      rows: [{id: 1, tags: 2, amount: null}]
    then:
      - given: [{input: "source('raw', 'orders')", rows: [{id: 1, tags: []}]}]
        expect: {rows: [{id: 1, tags: 2}, {id: 1, tags: 0}]}
  - name: newest_wins
    model: latest
    given:
      - input: ref('bronze_orders')
        format: csv
        fixture: two_orders
    expect:
      format: sql
      rows: select 1 as id, date '2026-01-06' as day
  - name: overrides
    model: named
    overrides: {vars: {currency: USD}, env_vars: {REGION: eu}, macros: {tax: 0.5}}
    given: [{input: ref('customers'), format: sql, rows: "select 1 as customer, 'x' as name"}]
    expect: {rows: [{name: x, currency: USD, region: eu, tax: 0.5}]}
  - name: not_wanted
    model: latest
    config: {enabled: false}
    given: [{input: ref('bronze_orders')}]
    expect: {rows: [{id: 4}]}
"#;

#[test]
fn every_materialization_is_tested_without_lake_or_broker() {
    let sandbox = shop(GOOD);
    sandbox.write("queries/tests/fixtures/two_orders.csv", "id,day,customer\n1,2026-01-05,\n1,2026-01-06,3\n");
    let ended = sandbox.smelt(&["test"]).ok();
    for name in ["totals::totals_follow_every_change", "bronze_orders::bronze_counts_tags", "latest::newest_wins"] {
        assert!(ended.stdout.contains(&format!("PASS {name} ")), "{}", ended.stdout);
    }
    assert!(ended.stdout.contains("Done. PASS=4 WARN=0 ERROR=0 SKIP=0 TOTAL=4"), "{}", ended.stdout);
    assert!(!sandbox.path().join("lake").exists(), "a unit test writes nothing");
    let one = sandbox.smelt(&["test", "--select", "totals"]).ok();
    assert!(one.stdout.contains("TOTAL=1"), "{}", one.stdout);
    let compiled = sandbox.path().join("target/compiled/models/tests.yml/named/overrides.sql");
    assert!(std::fs::read_to_string(compiled).unwrap().contains("'USD' as currency"));
}

#[test]
fn a_difference_is_shown_row_by_row() {
    let sandbox = shop(
        r#"version: 2
unit_tests:
  - name: sums
    model: totals
    given:
      - {input: ref('customers'), rows: [{customer: 1, name: ann}, {customer: 2, name: bob}]}
      - {input: ref('latest'), rows: [{customer: 1, amount: 5}, {customer: 2, amount: 1}]}
    expect:
      rows: [{name: ann, total: 5}, {name: bob, total: 1}]
    then:
      - given: [{input: ref('latest'), rows: [{customer: 1, amount: 2}]}]
        expect:
          rows:
            - {name: ann, total: 8}
            - {name: bob, total: 1}
"#,
    );
    let ended = sandbox.smelt(&["test"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let expected = "Failure in unit test sums of totals (models/tests.yml:3)\n  \
        step 2: actual differs from expected (models/tests.yml:14):\n\n    \
          | name | total |\n  + | ann  | 7.00  |\n  - | ann  | 8.00  |\n    | bob  | 1.00  |\n    (- expected, + actual)\n";
    assert!(ended.stdout.contains(expected), "{}", ended.stdout);
    assert!(ended.stdout.contains("FAIL 1 totals::sums "), "{}", ended.stdout);
    assert!(ended.stdout.contains("Done. PASS=0 WARN=0 ERROR=1 SKIP=0 TOTAL=1"), "{}", ended.stdout);
}

#[test]
fn values_that_do_not_fit_are_errors_at_their_place() {
    let wrong = |rows: &str, then: &str| {
        let test = format!(
            "version: 2\nunit_tests:\n  - name: wrong\n    model: latest\n    given:\n      - input: ref('bronze_orders')\n        rows: [{rows}]\n    expect: {{rows: []}}\n{then}"
        );
        shop(&test).smelt(&["test"])
    };
    let ended =
        wrong("{id: one}", "").fails(1, "error[bad-value]: `id` of `bronze_orders` is BIGINT, and \"one\" is none");
    assert!(ended.stderr.contains("models/tests.yml:7:21"), "{}", ended.stderr);
    let ended = wrong("{idd: 1}", "").fails(1, "`bronze_orders` has no column `idd`");
    assert!(ended.stderr.contains("did you mean `id`?"), "{}", ended.stderr);
    assert!(ended.stdout.contains("ERROR latest::wrong"), "{}", ended.stdout);
    // A streaming table's rows stay, so no test may take one out.
    let then = "    then:\n      - {given: [{input: ref('bronze_orders'), rows: [{_op: delete, id: 1}]}], expect: {rows: []}}\n";
    let test = format!(
        "version: 2\nunit_tests:\n  - name: wrong\n    model: latest\n    given: [{{input: ref('bronze_orders'), rows: [{{id: 1}}]}}]\n    expect: {{rows: [{{id: 1}}]}}\n{then}"
    );
    shop(&test).smelt(&["test"]).fails(1, "rows are only ever added to `bronze_orders`");
    // A change of a row that is not there.
    let then = "    then:\n      - {given: [{input: ref('customers'), rows: [{_op: delete, name: bob}]}], expect: {rows: []}}\n";
    let test = format!(
        "version: 2\nunit_tests:\n  - name: wrong\n    model: named\n    given: [{{input: ref('customers')}}]\n    expect: {{rows: []}}\n{then}"
    );
    shop(&test).smelt(&["test"]).fails(1, "`customers`: no row has these values");
}

#[test]
fn overrides_reach_the_macros_that_macros_call() {
    let sandbox = Sandbox::with(&[
        ("dbt_project.yml", "name: app\nprofile: app\n"),
        ("profiles.yml", "app: {outputs: {dev: {type: snowflake, schema: s}}}\n"),
        ("smelt.yml", "lake: ./lake\n"),
        ("packages.yml", "packages:\n  - local: tools\n"),
        ("tools/dbt_project.yml", "name: tools\nprofile: app\n"),
        (
            "tools/macros/rates.sql",
            "{% macro rate() %}3{% endmacro %}\n{% macro times(c) %}{{ c }} * {{ tools.rate() }}{% endmacro %}\n",
        ),
        (
            "macros/money.sql",
            "{% macro tax() %}7{% endmacro %}\n{% macro plus(c) %}{{ tools.times(c) }} + {{ tax() }}{% endmacro %}\n\
             {% macro newer() %}{% if is_incremental() %}where id > (select max(id) from {{ this }}){% endif %}{% endmacro %}\n",
        ),
        ("seeds/x.csv", "id,net\n1,10\n2,20\n"),
        (
            "models/m.sql",
            "{{ config(materialized='incremental', unique_key='id') }}\nselect id, {{ plus('net') }} as gross from {{ ref('x') }}\n{{ newer() }}",
        ),
        (
            "models/m.yml",
            "version: 2
unit_tests:
  - name: as_they_are
    model: m
    overrides: {macros: {is_incremental: false}}
    given: [{input: ref('x'), rows: [{id: 1, net: 10}, {id: 2, net: 20}]}]
    expect: {rows: [{id: 1, gross: 37}, {id: 2, gross: 67}]}
  - name: overridden
    model: m
    overrides: {macros: {tax: 1, tools.rate: 2, is_incremental: true}}
    given:
      - {input: ref('x'), rows: [{id: 1, net: 10}, {id: 2, net: 20}]}
      - {input: this, rows: [{id: 1, gross: 0}]}
    expect: {rows: [{id: 2, gross: 41}]}
",
        ),
    ]);
    sandbox.smelt(&["deps"]).ok();
    let ended = sandbox.smelt(&["test"]);
    assert!(ended.stdout.contains("Done. PASS=2 WARN=0 ERROR=0 SKIP=0 TOTAL=2"), "{}\n{}", ended.stdout, ended.stderr);
}

const CHANGELOG: &str = "version: 2
sources:
  - name: crm
    config: {connector: kafka, connection: k, format: debezium-json}
    tables:
      - name: users
        config: {topic: users, primary_key: [id]}
        columns: [{name: id, data_type: BIGINT}, {name: city, data_type: STRING}, {name: active, data_type: BOOLEAN}]
unit_tests:
  - name: the_last_record_of_a_key_decides
    model: users
    given:
      - input: source('crm', 'users')
        rows:
          - {id: 1, city: cairo, active: true}
          - {id: 2, city: giza, active: true}
          - {id: 1, city: luxor, active: true}
          - {_op: d, id: 9}
    expect: {rows: [{id: 1, city: LUXOR}, {id: 2, city: GIZA}]}
    then:
      - given:
          - input: source('crm', 'users')
            rows: [{_op: delete, id: 2}, {_op: u, id: 3, city: edfu, active: true}, {id: 1, city: luxor, active: false}]
        expect: {rows: [{id: 3, city: EDFU}]}
      - given:
          - input: source('crm', 'users')
            rows: [{_op: d, id: 3}, {id: 3, city: qena, active: true}, {id: 2, city: giza, active: true}]
        expect: {rows: [{id: 3, city: QENA}, {id: 2, city: GIZA}]}
  - name: readers_see_rows_replaced
    model: cities
    given:
      - input: ref('users')
        rows: [{id: 1, city: CAIRO}, {id: 2, city: CAIRO}, {id: 2, city: GIZA}]
    expect: {rows: [{city: CAIRO, n: 1}, {city: GIZA, n: 1}]}
    then:
      - given: [{input: ref('users'), rows: [{id: 1, city: GIZA}]}]
        expect: {rows: [{city: GIZA, n: 2}]}
      - given: [{input: ref('users'), rows: [{_op: delete, id: 2}]}]
        expect: {rows: [{city: GIZA, n: 1}]}
";

/// Users as a changelog by key has them, and what counts them.
fn crm(tests: &str) -> Sandbox {
    Sandbox::with(&[
        ("smelt.yml", SETTINGS),
        ("models/crm.yml", tests),
        (
            "queries/users.sql",
            "{{ config(materialized='streaming_table') }}\nselect id, upper(city) as city from STREAM {{ source('crm', 'users') }} where active",
        ),
        ("queries/cities.sql", "select city, count(*) as n from {{ ref('users') }} group by city"),
    ])
}

#[test]
fn rows_of_keyed_changelogs_are_upserts_and_deletes() {
    let ended = crm(CHANGELOG).smelt(&["test"]).ok();
    assert!(ended.stdout.contains("Done. PASS=2"), "{}", ended.stdout);

    // A test that expects the old row of a key beside the new one fails, by the circuit and by the plan.
    let wrong = CHANGELOG.replace("[{id: 3, city: QENA}, {id: 2", "[{id: 3, city: EDFU}, {id: 3, city: QENA}, {id: 2");
    let failed = crm(&wrong).smelt(&["test"]).fails(1, "");
    assert!(failed.stdout.contains("step 3: actual differs from expected"), "{}", failed.stdout);
    assert!(!failed.stdout.contains("bug in smelt"), "{}", failed.stdout);

    let keyless = CHANGELOG.replace("{_op: d, id: 9}", "{_op: d, city: x}");
    crm(&keyless).smelt(&["test"]).fails(1, "`id` says which row of `crm.users` it is, and is not given");
    let weighed = CHANGELOG.replace("{_op: d, id: 9}", "{_weight: 2, id: 9}");
    crm(&weighed).smelt(&["test"]).fails(1, "`crm.users` has one row per key: `_weight` has no meaning there");
    let missing = CHANGELOG.replace("rows: [{_op: delete, id: 2}]}]", "rows: [{_op: delete, id: 7}]}]");
    crm(&missing).smelt(&["test"]).fails(1, "no row has this key");
}

#[test]
fn a_first_step_has_nothing_to_change_without_a_key() {
    let test = |first: &str, then: &str| {
        let steps = format!(
            "    given: [{{input: ref('cities'), rows: [{first}]}}]\n    expect: {{rows: []}}\n    then:\n      - given: [{{input: ref('cities'), rows: [{then}]}}]\n        expect: {{rows: []}}\n"
        );
        let (sources, _) = CHANGELOG.split_once("unit_tests:").unwrap();
        let sandbox = crm(&format!("{sources}unit_tests:\n  - name: few\n    model: big\n{steps}"));
        sandbox.write("queries/big.sql", "select city, n from {{ ref('cities') }} where n > 10");
        sandbox.smelt(&["test"])
    };
    test("{city: edfu, n: 1}", "{_op: delete, city: edfu}").ok();
    test("{_op: delete, city: edfu}", "{city: edfu, n: 1}")
        .fails(1, "an input that has no rows yet has none to change");
    test("{city: edfu, n: 1}", "{_op: u, city: edfu, n: 2}").fails(1, "`cities` has no key that is known");
}

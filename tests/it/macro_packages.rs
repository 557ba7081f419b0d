//! A package of macros and generic tests, in the manner of those that dbt's users share: what its macros get and may ask.

use super::support::Sandbox;

const PROJECT: &str = "name: shop\nversion: '1.0'\nprofile: shop\nflags: {send_anonymous_usage_stats: false}\n\
                       seeds: {shop: {spans: {+column_types: {valid_to: date, valid_from: date}}}}\n";
const PROFILES: &str = "shop: {target: dev, outputs: {dev: {type: duckdb, path: warehouse.duckdb, schema: main}}}\n";

const TESTS: &str = "\
{% macro need_relation(value) %}
  {%- if not (value is mapping and value.get('metadata', {}).get('type', '').endswith('Relation')) -%}
    {%- do exceptions.raise_compiler_error('expected a relation, got ' ~ value) -%}
  {%- endif -%}
{% endmacro %}

{% macro names_of(relation) %}
  {%- do kit.need_relation(relation) -%}
  {{ return(set(adapter.get_columns_in_relation(relation) | map(attribute='quoted') | map('lower'))) }}
{% endmacro %}

{% test same_rows(model, other) %}
  {{ return(adapter.dispatch('test_same_rows', 'kit')(model, other)) }}
{% endtest %}

{% macro default__test_same_rows(model, other) %}
  {{ config(fail_calc = 'coalesce(sum(differs), 0)') }}
  {%- if not execute -%}{{ return('') }}{%- endif -%}
  {%- if kit.names_of(model) != kit.names_of(other) -%}
    {%- do exceptions.raise_compiler_error(model.identifier ~ ' and ' ~ other.identifier ~ ' differ in columns') -%}
  {%- endif -%}
  {%- set names = adapter.get_columns_in_relation(model) | map(attribute='quoted') | join(', ') -%}
  select 1 as differs from ((select {{ names }} from {{ model }} {{ dbt.except() }} select {{ names }} from {{ other }})
    union all (select {{ names }} from {{ other }} {{ dbt.except() }} select {{ names }} from {{ model }}))
{% endmacro %}

{% test covered_by(model, relations, column_name, at_most=none) %}
  select {{ column_name }} from {{ model.include(database=false) }} where {{ column_name }} not in (
  {% for relation in relations %}select {{ column_name }} from {{ relation }}{{ ' union all ' if not loop.last }}{% endfor %})
  {% if at_most is number %}union all select {{ column_name }} from {{ model }} where {{ column_name }} > {{ at_most }}{% endif %}
{% endtest %}

{% test in_sequence(model, lower, upper) %}
  select * from (select {{ lower }} as l, {{ upper }} as u, lead({{ lower }}) over (order by {{ lower }}) as n from {{ model }})
  where not (coalesce(l < u, false) and coalesce(u = n, n is null))
{% endtest %}
";

const TABLES: &str = "\
{% macro tables_like(pattern, exclude='', database=target.database) %}
  {%- call statement('tables', fetch_result=true) %}
    select distinct table_schema, table_name, lower(table_type) as table_type from {{ database }}.information_schema.tables
    where table_name ilike '{{ pattern }}' and table_name not ilike '{{ exclude }}' order by table_name
  {%- endcall -%}
  {%- set found = load_result('tables') -%}
  {%- set relations = [] -%}
  {%- if found and found['table'] -%}
    {%- for row in found['table'] -%}
      {%- do relations.append(api.Relation.create(database=database, schema=row.table_schema, identifier=row.table_name, type=row.table_type)) -%}
    {%- endfor -%}
  {%- endif -%}
  {{ return(relations) }}
{% endmacro %}

{% macro one_value(query, default=none) %}
  {%- if not execute -%}{{ return(default) }}{%- endif -%}
  {{ return(run_query(query).columns[0].values()[0]) }}
{% endmacro %}
";

fn shop(files: &[(&str, &str)]) -> Sandbox {
    let sandbox = Sandbox::with(&[
        ("dbt_project.yml", PROJECT),
        ("profiles.yml", PROFILES),
        ("smelt.yml", "lake: ./lake\n"),
        ("dbt_packages/kit/dbt_project.yml", "name: kit\nversion: '1.0'\n"),
        ("dbt_packages/kit/macros/tests.sql", TESTS),
        ("dbt_packages/kit/macros/tables.sql", TABLES),
        ("packages.yml", "packages: [{local: dbt_packages/kit}]\n"),
        ("seeds/events_1.csv", "id,name\n1,a\n2,b\n"),
        ("seeds/events_2.csv", "name,id\nc,3\n"),
        ("seeds/all_events.csv", "id,name\n1,a\n2,b\n3,c\n"),
        ("seeds/spans.csv", "valid_from,valid_to\n2024-01-01,2024-02-01\n2024-02-01,\n"),
    ]);
    files.iter().for_each(|(path, text)| sandbox.write(path, text));
    sandbox
}

#[test]
fn generic_tests_get_relations_and_typed_values() {
    let sandbox = shop(&[
        (
            "models/events.sql",
            "{{ config(materialized='table') }}select name, id from {{ ref('events_1') }} union all select name, id from {{ ref('events_2') }}",
        ),
        (
            "models/events.yml",
            "\
version: 2
models:
  - name: events
    data_tests:
      - kit.same_rows: {other: ref('all_events')}
      - kit.same_rows: {name: differs, other: \"{{ ref('events_1') }}\"}
    columns:
      - name: id
        data_tests:
          - kit.covered_by: {relations: [ref('events_1'), ref('events_2')], at_most: \"{{ var('most', 3) }}\"}
          - kit.covered_by: {name: too_large, relations: [ref('all_events')], at_most: \"{{ 1 + 1 }}\"}
          - kit.covered_by: {name: not_covered, relations: [ref('events_1')]}
seeds:
  - name: spans
    data_tests:
      - kit.in_sequence: {lower: valid_from, upper: \"coalesce(valid_to, '2099-01-01')\"}
",
        ),
    ]);
    let ended = sandbox.smelt(&["build"]).fails(1, "");
    let line = |name: &str| {
        ended.stdout.lines().find(|l| l.contains(name)).unwrap_or_else(|| panic!("{}", ended.stdout)).to_string()
    };
    assert!(line("same_rows_events").contains(" PASS "), "{}", ended.stdout);
    assert!(line(" differs ").contains("FAIL 1"), "{}", ended.stdout);
    assert!(line("covered_by_events").contains(" PASS "), "{}", ended.stdout);
    assert!(line(" too_large ").contains("FAIL 1"), "{}", ended.stdout);
    assert!(line(" not_covered ").contains("FAIL 1"), "{}", ended.stdout);
    assert!(line("in_sequence_spans").contains(" PASS "), "{}", ended.stdout);
}

#[test]
fn a_test_whose_template_fails_fails_alone() {
    let sandbox = shop(&[
        ("models/events.sql", "{{ config(materialized='table') }}select id from {{ ref('events_1') }}"),
        (
            "models/events.yml",
            "\
version: 2
models:
  - name: events
    columns: [{name: id, data_tests: [unique]}]
    data_tests:
      - kit.same_rows: {other: ref('all_events')}
      - kit.same_rows: {name: filtered, other: ref('events_1'), config: {where: id > 1}}
",
        ),
    ]);
    let ended = sandbox.smelt(&["build"]).fails(1, "events and all_events differ in columns");
    assert!(ended.stderr.contains("expected a relation, got (select * from"), "{}", ended.stderr);
    assert!(ended.stderr.contains("models/events.yml:6"), "{}", ended.stderr);
    assert!(ended.stdout.contains("PASS=6 WARN=0 ERROR=2 SKIP=0"), "{}", ended.stdout);
}

#[test]
fn templates_and_queries_find_tables_in_the_information_schema() {
    let sandbox = shop(&[
        (
            "models/unioned.sql",
            "\
{{ config(materialized='table') }}
-- depends_on: {{ ref('events_1') }}, {{ ref('events_2') }}
{% for relation in kit.tables_like('events%', exclude='%_x') %}
select id, '{{ relation.identifier }}' as origin from {{ relation }} {{ 'union all' if not loop.last }}
{% endfor %}
{% if not execute %}select 1 as id, '' as origin{% endif %}",
        ),
        (
            "models/counted.sql",
            "{{ config(materialized='table') }}\n-- {{ ref('all_events') }}\n\
             select {{ adapter.list_relations_without_caching(api.Relation.create(schema=target.schema)) | map(attribute='name') | select('equalto', 'all_events') | list | length }} as n,\n\
             cast({{ dbt.string_literal(kit.one_value('select max(name) from ' ~ ref('all_events'))) }} as varchar) as last",
        ),
        ("models/seen.sql", "select id from {{ ref('unioned') }}"),
    ]);
    sandbox.smelt(&["build"]).ok();
    assert_eq!(
        sandbox.rows("select * from unioned"),
        [r#"{"id":1,"origin":"events_1"}"#, r#"{"id":2,"origin":"events_1"}"#, r#"{"id":3,"origin":"events_2"}"#]
    );
    assert_eq!(sandbox.rows("select * from counted"), [r#"{"n":1,"last":"c"}"#]);
    assert_eq!(
        sandbox.rows("select table_schema, table_type from warehouse.information_schema.tables where table_name in ('seen', 'unioned')"),
        [r#"{"table_schema":"main","table_type":"BASE TABLE"}"#, r#"{"table_schema":"main","table_type":"VIEW"}"#]
    );
    assert_eq!(
        sandbox.rows(
            "select column_name, ordinal_position, data_type from INFORMATION_SCHEMA.COLUMNS where table_name = 'spans'"
        ),
        [
            r#"{"column_name":"valid_from","ordinal_position":1,"data_type":"DATE"}"#,
            r#"{"column_name":"valid_to","ordinal_position":2,"data_type":"DATE"}"#,
        ]
    );
    assert_eq!(
        sandbox.rows("select * from information_schema.schemata"),
        [r#"{"catalog_name":"warehouse","schema_name":"main"}"#]
    );
}

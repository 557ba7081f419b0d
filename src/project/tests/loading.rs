//! What a good project becomes.

use std::time::Duration;

use super::{Folder, data_test, model, reads};
use crate::project::{
    Connector, Format, Include, LoadOptions, Materialization, OnDataLoss, OnError, OnViolation, Severity, Start,
    Topics, load, write_compiled,
};

const SOURCES: &str = "\
version: 2
sources:
  - name: telco
    config: {connector: kafka, connection: telco, format: json, start: earliest, properties: {fetch.min.bytes: 1}}
    tables:
      - name: calls
        config:
          topic: call_event
          on_error: keep
          include: {value: raw_data, error: _error, offset: _offset, parsed: parsed_data}
          watermark: {column: TS, delay: 10 minutes}
          on_data_loss: skip
          properties: {fetch.min.bytes: 2000000}
        columns:
          - {name: sid, data_type: STRING}
          - {name: ts, data_type: TIMESTAMP, format: '%Y-%m-%d', description: when}
          - {name: _error, description: why it is bad}
  - name: landing
    config: {connector: files, format: csv, options: {header: true}}
    tables:
      - {name: users, config: {path: 'data/users/*.csv', options: {delimiter: ';'}}, columns: [{name: id, data_type: BIGINT}]}
      - {name: cells, config: {path: 's3://bucket/cells/', start: {0: 15}}, columns: [{name: id, data_type: BIGINT}]}
  - name: other
    schema: shared
    tables: [{name: rates, identifier: rates_v2}]
";

#[test]
fn a_plain_project_loads() {
    let folder = Folder::new(&[
        ("models/telco.yml", SOURCES),
        (
            "queries/bronze/bronze_calls.sql",
            "{{ config(materialized='streaming_table', schema='bronze') }}\nselect * from STREAM {{ source('telco', 'calls') }}\n",
        ),
        ("queries/gold/calls_per_day.sql", "select sid, count(*) as n\nfrom {{ ref('Bronze_Calls') }} group by sid"),
    ]);
    let project = folder.load();
    assert_eq!(project.name, "telecom");
    assert_eq!(project.target.name, "dev");
    assert_eq!(project.target.lake, folder.path().join("lake").to_string_lossy());
    let bronze = model(&project, "bronze_calls");
    assert_eq!(bronze.sql, "\nselect * from STREAM \"telco\".\"calls\"\n");
    assert_eq!(bronze.materialized, Materialization::StreamingTable);
    assert_eq!((bronze.schema.as_str(), bronze.alias.as_str()), ("bronze", "bronze_calls"));
    assert_eq!(bronze.unique_id, "model.telecom.bronze_calls");
    assert_eq!(bronze.fqn, ["telecom", "bronze", "bronze_calls"]);
    let calls = project.sources.iter().find(|s| s.name == "calls").unwrap();
    assert_eq!((calls.unique_id.as_str(), calls.package.as_str()), ("source.telecom.telco.calls", "telecom"));
    assert_eq!(calls.fqn, ["telecom", "telco", "calls"]);
    assert_eq!(reads(bronze), ["telco.calls"]);
    let gold = model(&project, "calls_per_day");
    assert_eq!(gold.sql, "select sid, count(*) as n\nfrom \"bronze\".\"bronze_calls\" group by sid");
    assert_eq!(gold.materialized, Materialization::MaterializedView);
    assert_eq!(gold.schema, "default");
    assert_eq!(reads(gold), ["bronze_calls"]);
}

#[test]
fn sources_inherit_and_are_typed() {
    let folder = Folder::new(&[("models/telco.yml", SOURCES), ("queries/a.sql", "select 1 as x")]);
    let project = folder.load();
    let table = |name: &str| project.sources.iter().find(|s| s.name == name).unwrap();

    let calls = table("calls");
    let Connector::Kafka(kafka) = &calls.connector else { panic!("{:?}", calls.connector) };
    assert_eq!(kafka.topics, Topics::Named(vec!["call_event".to_string()]));
    assert_eq!((&kafka.start, kafka.on_data_loss), (&Start::Earliest, OnDataLoss::Skip));
    assert_eq!(kafka.properties["bootstrap.servers"], "localhost:9092");
    assert_eq!(kafka.properties["fetch.min.bytes"], "2000000", "the table's property wins");
    assert_eq!(calls.on_error, OnError::Keep);
    let include: Vec<(Include, &str)> = calls.include.iter().map(|(i, n)| (*i, n.as_str())).collect();
    assert_eq!(
        include,
        [
            (Include::Value, "raw_data"),
            (Include::Error, "_error"),
            (Include::Offset, "_offset"),
            (Include::Parsed, "parsed_data")
        ]
    );
    let watermark = calls.watermark.as_ref().unwrap();
    assert_eq!(
        (watermark.column.as_str(), watermark.delay, watermark.idle_timeout),
        ("ts", Duration::from_secs(600), Duration::from_secs(30))
    );
    let columns: Vec<&str> = calls.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(columns, ["sid", "ts"], "`_error` is described, but `include` makes it");
    assert_eq!(calls.columns[1].format.as_deref(), Some("%Y-%m-%d"));

    let Connector::Files(users) = &table("users").connector else { panic!() };
    assert_eq!(users.path, folder.path().join("data/users/*.csv").to_string_lossy());
    assert_eq!(users.options["header"], true);
    assert_eq!(users.options["delimiter"], ";");
    assert_eq!(table("users").format, Format::Csv);
    let Connector::Files(cells) = &table("cells").connector else { panic!() };
    assert_eq!(cells.path, "s3://bucket/cells/");
    let Connector::Delta { schema, identifier, path: None } = &table("rates").connector else { panic!() };
    assert_eq!((schema.as_str(), identifier.as_str()), ("shared", "rates_v2"));
}

#[test]
fn the_target_is_read_whole() {
    let smelt = "\
name: telecom
target: prod
targets:
  dev: {lake: ./dev, connections: {telco: {type: kafka, bootstrap.servers: \"{{ env_var('NOT_SET_HERE') }}\"}}}
  prod:
    lake: \"s3://{{ env_var('BUCKET', 'telco') }}/lake\"
    schema: main
    commit_interval: 100ms
    epoch: {max_rows: 5000, max_files: 7}
    heartbeat: 1h 30m
    deleted_file_retention: interval 7 days
    log_retention: 30 days
    runs_retention: 90 days
    fsync: no
    memory_limit: 4GB
    threads: \"{{ env_var('CORES') | int }}\"
";
    let folder = Folder::new(&[
        ("smelt.yml", smelt),
        ("queries/a.sql", "select '{{ target.name }}/{{ target.schema }}/{{ target.threads }}' as x"),
    ]);
    let project = folder.with_vars(&[("CORES", "3")]).load();
    let target = &project.target;
    assert_eq!(target.lake, "s3://telco/lake");
    assert_eq!(target.commit_interval, Duration::from_millis(100));
    assert_eq!((target.epoch_max_rows, target.epoch_max_files), (5000, 7));
    assert_eq!(target.heartbeat, Duration::from_secs(5400));
    assert_eq!(target.deleted_file_retention, Duration::from_secs(7 * 86_400));
    assert_eq!(target.log_retention, Duration::from_secs(30 * 86_400));
    assert_eq!(target.runs_retention, Duration::from_secs(90 * 86_400));
    assert!(!target.fsync);
    assert_eq!(target.memory_limit, Some(4 << 30));
    assert_eq!(target.threads, 3);
    assert_eq!(model(&project, "a").sql, "select 'prod/main/3' as x");
    assert_eq!(model(&project, "a").schema, "main");
}

#[test]
fn jinja_does_what_dbt_users_expect() {
    let macros = "\
{% macro cents(column, scale=2) %}round({{ column }} / 100.0, {{ scale }}){% endmacro %}
{% macro list(columns) -%}
  {%- for c in columns %}{{ quoted(c) }}{{ ', ' if not loop.last }}{% endfor -%}
{%- endmacro %}";
    let more = "{% macro quoted(name) %}\"{{ name }}\"{% endmacro %}\n{% macro wrap() %}({{ caller() }}){% endmacro %}";
    let query = "\
{{ config(materialized='view') }}
{%- set columns = {'b': 'INT', 'a': 'TEXT'} %}
{%- do log('hello') %}
select {{ list(columns.keys()) }}, {{ cents('amount') }}, {{ cents('fee', scale=3) }}
{%- for name, type in columns.items() %}, cast({{ name.upper() }} as {{ type }}){% endfor %}
{%- if is_incremental() %} where x > (select max(x) from {{ this }}){% endif %}
{# a comment with {{ nonsense }} #}
{%- if execute and var('limit', 10) > 5 %} limit {{ var('limit') }}{% endif %}
{% raw %}-- {{ not jinja }}{% endraw %}
{% call wrap() %}1{% endcall %} {{ {'a': [1, '<x>']} | tojson }} {{ fromjson('{\"k\": [7]}').k[0] }} {{ this.name }}@{{ this.schema }}
{%- set x %} captured {% endset %} [{{ x | trim }}] {{ x == ' captured ' }}";
    let smelt = format!("{}vars: {{limit: 3, telecom: {{limit: 100}}}}\n", super::SMELT);
    let folder = Folder::new(&[
        ("smelt.yml", &smelt),
        ("macros/a.sql", macros),
        ("macros/z.sql", more),
        ("queries/q.sql", query),
    ]);
    let project = folder.load();
    assert_eq!(
        model(&project, "q").sql,
        "\nselect \"b\", \"a\", round(amount / 100.0, 2), round(fee / 100.0, 3), cast(B as INT), cast(A as TEXT)\n limit 100\n\
         -- {{ not jinja }}\n(1) {\"a\": [1, \"<x>\"]} 7 q@default [captured] True"
    );
}

#[test]
fn positions_lead_back_through_loops_conditions_and_macros() {
    let query = "\
{{ config(materialized='view') -}}
select
{%- for c in ['x', 'y'] %}
  sum({{ c }}) as total_{{ loop.index }},
{%- endfor %}
  {{ money('é', 'b') }} as m, bad_column
from {{ ref('base') }}";
    let folder = Folder::new(&[
        ("queries/base.sql", "select 1 as x"),
        ("queries/q.sql", query),
        ("macros/m.sql", "{% macro money(a, b) %}{{ a }} +\n  {{ b }}{% endmacro %}"),
    ]);
    let project = folder.load();
    let q = model(&project, "q");
    assert_eq!(
        q.sql,
        "select\n  sum(x) as total_1,\n  sum(y) as total_2,\n  é +\n  b as m, bad_column\nfrom \"default\".\"base\""
    );
    let at = |needle: &str| {
        let span = q.source_map.span(q.sql.find(needle).unwrap(), needle.len());
        (span.line, span.column, span.width)
    };
    assert_eq!(at("select"), (2, 1, 6));
    // Both turns of the loop lead to the one line that wrote them.
    assert_eq!(at("sum(y"), (4, 3, 5));
    assert_eq!(at("total_2"), (4, 19, 7));
    assert_eq!(at("y)"), (4, 7, 7), "what an expression prints leads to the expression");
    assert_eq!(at("é +"), (6, 3, 21), "what a macro prints leads to its call");
    assert_eq!(at("bad_column"), (6, 31, 10));
    assert_eq!(at("\"default\""), (7, 6, 17));
    // The planner speaks of lines and columns, in characters.
    let span = q.source_map.span_at_line(&q.sql, 5, 11, 10);
    assert_eq!(
        (span.line, span.column, span.width, &*span.text),
        (6, 31, 10, "  {{ money('é', 'b') }} as m, bad_column")
    );
    assert_eq!(span.file.to_string_lossy(), "queries/q.sql");
}

#[test]
fn the_order_is_topological_and_always_the_same() {
    let files = [
        ("queries/z_first.sql", "select 1 as x"),
        ("queries/b.sql", "select * from {{ ref('z_first') }}"),
        ("queries/a.sql", "select * from {{ ref('z_first') }} union all select * from {{ ref('c') }}"),
        ("queries/c.sql", "select * from {{ ref('telecom', 'z_first') }}"),
        ("queries/lonely.sql", "select 2 as x"),
    ];
    let names = |files: &[(&str, &str)]| -> Vec<String> {
        Folder::new(files).load().models.iter().map(|m| m.name.clone()).collect()
    };
    let forward = names(&files);
    assert_eq!(forward, ["lonely", "z_first", "b", "c", "a"]);
    let mut backward = files;
    backward.reverse();
    assert_eq!(names(&backward), forward);
    assert_eq!(reads(model(&Folder::new(&files).load(), "a")), ["z_first", "c"], "in the order of mention");
}

#[test]
fn data_tests_become_queries() {
    let properties = "\
version: 2
models:
  - name: users
    config: {alias: dim_user}
    data_tests:
      - unique: {arguments: {column_name: \"id || '-' || day\"}, config: {severity: warn}}
      - at_least: {n: 3}
    expectations:
      - {name: valid, expect: \"age >= {{ var('least', 0) }}\", on_violation: quarantine}
    columns:
      - name: id
        data_tests:
          - not_null: {config: {where: \"day > '2026-01-01'\", tags: [nightly]}}
          - unique
      - name: from
        tests: [not_null]
      - name: kind
        data_tests:
          - accepted_values: {arguments: {values: [a, it's]}}
          - accepted_values: {name: small, values: [1, 2], quote: false}
      - name: city
        data_tests:
          - relationships: {arguments: {to: ref('cities'), field: name}, severity: WARN}
  - name: cities
";
    let folder = Folder::new(&[
        ("models/m.yml", properties),
        ("queries/users.sql", "select 1 as id"),
        ("queries/cities.sql", "select 1 as name"),
        (
            "queries/tests/no_future.sql",
            "{{ config(severity='warn', tags=['slow']) }}select * from {{ ref('users') }} where age > 200",
        ),
        (
            "macros/t.sql",
            "{% test at_least(model, n) %}select count(*) from {{ model }} having count(*) < {{ n }}{% endtest %}",
        ),
    ]);
    let project = folder.load();
    let sql = |name: &str| data_test(&project, name).sql.as_str();
    assert_eq!(
        sql("not_null_users_id"),
        "select *\nfrom (select * from \"default\".\"dim_user\" where day > '2026-01-01') as tested\nwhere id is null"
    );
    assert_eq!(data_test(&project, "not_null_users_id").tags, ["nightly"]);
    assert_eq!(
        sql("unique_users_id"),
        "select id as unique_field, count(*) as n_records\nfrom \"default\".\"dim_user\"\nwhere id is not null\ngroup by id\nhaving count(*) > 1"
    );
    assert_eq!(sql("not_null_users_from"), "select *\nfrom \"default\".\"dim_user\"\nwhere \"from\" is null");
    assert!(sql("accepted_values_users_kind__a__it_s").contains("where kind not in ('a', 'it''s')"));
    assert!(sql("small").contains("where kind not in (1, 2)"));
    let relationships = data_test(&project, "relationships_users_city__name__ref_cities_");
    assert_eq!(
        relationships.sql,
        "select child.from_field\nfrom (select city as from_field from \"default\".\"dim_user\" where city is not null) as child\n\
         left join (select distinct name as to_field from \"default\".\"cities\") as parent on child.from_field = parent.to_field\n\
         where parent.to_field is null"
    );
    assert_eq!(relationships.severity, Severity::Warn);
    assert_eq!(relationships.model.as_deref(), Some("users"));
    assert_eq!(relationships.depends_on.len(), 2);
    let on_table = data_test(&project, "unique_users_id_day");
    assert!(on_table.sql.contains("group by id || '-' || day"));
    assert_eq!(on_table.severity, Severity::Warn);
    assert_eq!(sql("at_least_users_3"), "select count(*) from \"default\".\"dim_user\" having count(*) < 3");
    let singular = data_test(&project, "no_future");
    assert_eq!(singular.sql, "select * from \"default\".\"dim_user\" where age > 200");
    assert_eq!((singular.severity, singular.model.as_deref()), (Severity::Warn, Some("users")));
    // An error in a generic test's SQL stands where the test is declared.
    let span = data_test(&project, "unique_users_id").source_map.span(3, 1);
    assert_eq!((span.line, &*span.text), (14, "          - unique"));

    let users = model(&project, "users");
    assert_eq!(users.expectations[0].expect, "age >= 0");
    assert_eq!(users.expectations[0].on_violation, OnViolation::Quarantine);

    let written = write_compiled(&project, &folder.env).unwrap();
    let text = |path: &str| std::fs::read_to_string(written.join(path)).unwrap();
    assert_eq!(text("queries/users.sql"), "select 1 as id");
    assert_eq!(text("queries/tests/no_future.sql"), singular.sql);
    assert_eq!(text("models/m.yml/unique_users_id.sql"), on_table_name(&project));
}

fn on_table_name(project: &crate::project::Project) -> &str {
    &data_test(project, "unique_users_id").sql
}

#[test]
fn secrets_are_used_and_never_shown() {
    let smelt = "\
name: telecom
targets:
  dev:
    lake: ./lake
    connections:
      telco:
        type: kafka
        bootstrap.servers: localhost:9092
        sasl.username: \"{{ fromjson(env_var('SMELT_SECRET_TELCO')).api_key }}\"
        sasl.password: \"{{ env_var('SMELT_SECRET_PASSWORD') | upper }}\"
        sasl.jaas.config: 'login password=\"{{ env_var(\"SMELT_SECRET_PASSWORD\") | reverse }}\";'
";
    let folder = Folder::new(&[
        ("smelt.yml", smelt),
        ("queries/a.sql", "select md5(id || '{{ env_var('SMELT_SECRET_SALT') | lower }}') as h, '{{ salt() }}' as s"),
        ("macros/s.sql", "{% macro salt() %}{{ env_var('SMELT_SECRET_SALT') }}{% endmacro %}"),
    ])
    .with_vars(&[
        ("SMELT_SECRET_TELCO", r#"{"api_key": "KEY-4711", "api_secret": "hunter22"}"#),
        ("SMELT_SECRET_PASSWORD", "correct horse"),
        ("SMELT_SECRET_SALT", "NaCl-NaCl"),
    ]);
    let project = folder.load();
    let properties = &project.target.connections["telco"].properties;
    assert_eq!(properties["sasl.username"], "KEY-4711");
    assert_eq!(properties["sasl.password"], "CORRECT HORSE");
    assert_eq!(model(&project, "a").sql, "select md5(id || 'nacl-nacl') as h, 'NaCl-NaCl' as s");
    let values: Vec<&str> = properties.values().map(String::as_str).collect();
    let shown = folder.env.redact(&format!(
        "{} {:?} {}",
        values.join(" "),
        properties["sasl.jaas.config"],
        model(&project, "a").sql
    ));
    for secret in ["KEY-4711", "CORRECT", "correct", "esroh", "nacl", "NaCl"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    let written = write_compiled(&project, &folder.env).unwrap();
    let artifact = std::fs::read_to_string(written.join("queries/a.sql")).unwrap();
    assert_eq!(artifact, "select md5(id || '****') as h, '****' as s");
}

#[test]
fn spark_quotes_with_backticks() {
    let smelt = format!("{}dialect: databricks\n", super::SMELT);
    let folder = Folder::new(&[
        ("smelt.yml", &smelt),
        ("queries/a.sql", "select 1 as x"),
        ("queries/b.sql", "select * from {{ ref('a') }}"),
    ]);
    assert_eq!(model(&folder.load(), "b").sql, "select * from `default`.`a`");
}

#[test]
fn run_dependent_values_work_in_tables() {
    let query = "{{ config(materialized='table') }}select '{{ run_started_at.strftime('%Y-%m-%d') }}' as d, '{{ modules.datetime.date.today() }}' as t";
    let project = Folder::new(&[("queries/a.sql", query)]).load();
    assert_eq!(model(&project, "a").sql, "select '2026-01-31' as d, '2026-01-31' as t");
}

#[test]
fn the_sample_project_loads_on_every_target() {
    let load_sample = |target: &str, vars: &[(&str, &str)]| {
        let options = LoadOptions {
            dir: env!("CARGO_MANIFEST_DIR").into(),
            target: Some(target.to_string()),
            ..LoadOptions::default()
        };
        match load(&options, &super::env(vars)) {
            Ok(project) => project,
            Err(errors) => panic!("{}", errors.iter().map(|e| e.render()).collect::<Vec<_>>().join("\n\n")),
        }
    };
    let dev = load_sample("dev", &[]);
    let warnings: Vec<String> = dev.warnings.iter().map(|w| w.render_warning()).collect();
    assert_eq!(warnings, [""; 0]);
    assert!(dev.tests.len() > 40, "{} tests", dev.tests.len());
    let fact = model(&dev, "fact_events");
    assert_eq!((fact.schema.as_str(), fact.materialized), ("gold", Materialization::MaterializedView));
    let files = load_sample("files", &[("SMELT_DATA", "/data")]);
    let calls = files.sources.iter().find(|s| s.name == "call_event").unwrap();
    let Connector::Files(config) = &calls.connector else { panic!("{:?}", calls.connector) };
    assert_eq!(config.path, "/data/call_event/*.ndjson");
    let secret = r#"{"api_key": "KEY-4711", "api_secret": "hunter22"}"#;
    load_sample("prod", &[("LAKE", "s3://telco/lake"), ("KAFKA", "broker:9092"), ("SMELT_SECRET_TELCO", secret)]);
}

#[test]
fn dispatch_finds_the_macro_of_the_dialect() {
    let macros = "\
{% macro stamp(x) %}{{ adapter.dispatch('stamp')(x) }}{% endmacro %}
{% macro default__stamp(x) %}cast({{ x }} as timestamp){% endmacro %}
{% macro quoted(x) %}{{ telecom.default__quoted(x) }}{% endmacro %}
{% macro default__quoted(x) %}'{{ x }}'{% endmacro %}
";
    let folder = Folder::new(&[
        ("macros/m.sql", macros),
        ("queries/a.sql", "select {{ stamp(quoted('2026-01-01')) }} as t, {{ telecom.quoted(1) }} as q"),
    ]);
    assert_eq!(model(&folder.load(), "a").sql, "select cast('2026-01-01' as timestamp) as t, '1' as q");
}

#[test]
fn dispatch_says_what_it_looked_for() {
    let folder = Folder::new(&[
        ("macros/m.sql", "{% macro stamp(x) %}{{ adapter.dispatch('stamp')(x) }}{% endmacro %}"),
        ("queries/a.sql", "select {{ stamp('x') }} as t, {{ telecom.nothing() }}"),
    ]);
    let errors = folder.errors();
    assert!(errors.contains("no macro `stamp` for this dialect"), "{errors}");
    assert!(errors.contains("telecom.default__stamp"), "{errors}");
}

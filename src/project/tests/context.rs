//! docs/jinja.md, row by row: the page is the list of what templates see, and every example gives what it says.

use std::sync::Arc;

use super::{Folder, model};
use crate::error::Result;
use crate::project::{Answer, Answers, Cell, LoadOptions, load};

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/jinja.md")).unwrap()
}

const SMELT: &str = "name: shop\nvars: {limit: 7}\ntargets: {dev: {lake: ./lake}}\n";

const SOURCES: &str = "\
version: 2
sources:
  - name: shop
    config: {connector: datagen}
    tables:
      - name: clicks
        columns: [{name: id, data_type: BIGINT}, {name: at, data_type: TIMESTAMP}]
models:
  - name: orders
    columns: [{name: id, data_type: BIGINT}]
";

/// (what, example, result) of every row of the page's tables.
fn rows() -> Vec<(String, String, String)> {
    let code = |cell: &str| {
        let cell = cell.trim().replace("\\|", "|");
        cell.strip_prefix('`').and_then(|c| c.strip_suffix('`')).unwrap_or(&cell).to_string()
    };
    let cells = |line: &str| {
        // A bar of a filter is escaped.
        let line = line.replace("\\|", "\u{1}");
        line.split('|').map(|c| c.replace('\u{1}', "\\|")).collect::<Vec<_>>()
    };
    let is_row = |line: &&str| line.starts_with("| ") && (line.contains("{{") || line.contains("{%"));
    let page = page();
    // Those are run: tests/it/jinja.rs.
    let (before, rest) = page.split_once("\n## Cross-database macros").unwrap();
    let (_, after) = rest.split_once("\n## ").unwrap();
    [before, after]
        .iter()
        .flat_map(|part| part.lines())
        .filter(is_row)
        .map(|line| {
            let cells = cells(line);
            assert_eq!(cells.len(), 5, "{line}");
            (cells[1].trim().to_string(), code(&cells[2]), code(&cells[3]))
        })
        .collect()
}

fn macros() -> String {
    page().split("```jinja\n").nth(1).unwrap().split("```").next().unwrap().to_string()
}

/// A lake with the rows that the page speaks of.
#[derive(Debug)]
struct Lake;

impl Answers for Lake {
    fn query(&self, sql: &str, _: Option<(&str, &str)>) -> Result<Answer> {
        assert!(sql.contains("\"default\".\"orders\""), "{sql}");
        let row = |id: i64, city: &str| vec![Cell::Int(id), Cell::Text(city.to_string())];
        let columns = [("id", "BIGINT"), ("city", "STRING")].map(|(n, t)| (n.to_string(), t.to_string())).to_vec();
        let message = "SELECT".to_string();
        Ok(Answer { columns, rows: vec![row(1, "Cairo"), row(2, "Giza"), row(3, "Cairo")], message })
    }

    fn columns(&self, schema: &str, name: &str, _: Option<(&str, &str)>) -> Result<Vec<(String, String)>> {
        assert_eq!((schema, name), ("default", "orders"));
        Ok(vec![("id".to_string(), "BIGINT".to_string())])
    }

    fn exists(&self, _: &str, _: &str) -> Result<bool> {
        Ok(false)
    }
}

#[test]
fn every_example_of_the_page_gives_what_it_says() {
    let rows = rows();
    assert!(rows.len() > 75, "{} rows", rows.len());
    let macros = macros();
    let mut wrong = Vec::new();
    let mut said = Vec::new();
    let mut warnings = String::new();
    for (what, template, expected) in &rows {
        let reads = "{{ ref('orders') }} {{ source('shop', 'clicks') }}";
        // What uses an answer stands where there is one.
        let asks = template.contains("run_query") || template.contains("load_result");
        let template = if asks { &format!("{{% if execute %}}{template}{{% endif %}}") } else { template };
        let example = format!("{{{{ config(materialized='table') }}}}select 1 as x -- {reads}\n@@{template}\n");
        let folder = Folder::new(&[
            ("smelt.yml", SMELT),
            ("models/shop.yml", SOURCES),
            ("macros/examples.sql", &macros),
            ("queries/orders.sql", "select 1 as id"),
            ("queries/example.sql", &example),
        ]);
        let folder = Folder { options: LoadOptions { answers: Some(Arc::new(Lake)), ..folder.options }, ..folder };
        let gives = match load(&folder.options, &folder.env) {
            Ok(project) => {
                said.extend(project.said.clone());
                warnings.extend(project.warnings.iter().map(|w| w.render_warning()));
                model(&project, "example").sql.split("@@").nth(1).unwrap().trim_end().to_string()
            }
            Err(errors) => errors.iter().map(|e| e.render()).collect::<Vec<_>>().join("\n"),
        };
        if gives != *expected {
            wrong.push(format!("{what}\n  {template}\n  says  {expected}\n  gives {gives}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(said, ["| id | city  |\n| -- | ----- |\n| 1  | Cairo |\n...", "to the terminal"]);
    assert!(warnings.contains("look at this"), "{warnings}");
}

/// What differs from run to run, in a maintained table, and what only looks like it.
#[test]
fn maintained_tables_refuse_what_differs_from_run_to_run() {
    let errors = |template: &str| {
        let sql = format!("select 1 as x -- {template}");
        Folder::new(&[("queries/a.sql", &sql)]).errors()
    };
    for template in [
        "{{ run_started_at }}",
        "{{ run_started_at.strftime('%Y') }}",
        "{{ run_started_at - modules.datetime.timedelta(days=1) }}",
        "{{ run_started_at.year }}",
        "{{ invocation_id }}",
        "{{ invocation_id[:8] if false else invocation_id.upper() }}",
        "{{ modules.datetime.datetime.now() }}",
        "{{ modules.datetime.date.today().year }}",
        "{{ modules.datetime.datetime.now(modules.pytz.utc).isoformat() }}",
    ] {
        assert!(errors(template).contains("error[run-dependent]"), "{template}: {}", errors(template));
    }
    for template in [
        "{{ modules.datetime.datetime(2024, 1, 1) }}",
        "{{ modules.datetime.datetime.strptime('2024', '%Y').year }}",
        "{% set now = modules.datetime.datetime.now %}",
        "{{ modules.pytz.utc }}",
    ] {
        let said = errors(template);
        assert!(!said.contains("run-dependent"), "{template}: {said}");
    }
}

#[test]
fn every_way_to_raise_stops_with_the_place_of_the_call() {
    for method in [
        "raise_compiler_error",
        "raise_not_implemented",
        "raise_dependency_error",
        "raise_database_error",
        "raise_contract_error",
        "missing_config",
        "missing_materialization",
        "missing_relation",
        "invalid_type_error",
    ] {
        let sql = format!("select 1 as x\n{{{{ exceptions.{method}('no', 'such thing') }}}}");
        let said = Folder::new(&[("queries/a.sql", &sql)]).errors();
        assert!(said.starts_with("error[raised]: no"), "{said}");
        assert!(said.contains("queries/a.sql:2:"), "{said}");
    }
    let typo = Folder::new(&[("queries/a.sql", "{{ exceptions.rais('no') }}select 1 as x")]).errors();
    assert!(typo.contains("no method named rais"), "{typo}");
}

#[test]
fn mistakes_in_macros_are_named() {
    let macros = "{% macro one(a) %}{{ return(a) }}{% endmacro %}";
    let errors = |sql: &str| Folder::new(&[("macros/m.sql", macros), ("queries/a.sql", sql)]).errors();
    assert!(errors("select {{ one(1, 2) }} as x").contains("error[bad-call]: too many arguments"));
    assert!(errors("select {{ one(1, a=2) }} as x").contains("duplicate argument `a`"));
    assert!(errors("select {{ one(b=2) }} as x").contains("unknown keyword argument `b`"));
    assert!(errors("select 1 as x {{ return(1) }}").contains("`return` stands outside a macro"));
    assert!(errors("select {{ adapter.drop_relation(ref('a')) }} as x").contains("error[adapter-method]"));
    assert!(errors("select {{ modules.re.compile('(?=x)') }} as x").contains("look-around"));
}

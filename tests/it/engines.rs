//! Python `deltalake` and DuckDB read the tables that the binary wrote, and find the rows that `smelt query` finds.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::python::{self, Engine, query};
use crate::sample::sample;
use crate::support::Sandbox;

/// Tables below `folder`: what has a log.
fn tables(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.join("_delta_log").is_dir() {
            found.push(path);
        } else if path.is_dir() {
            found.extend(tables(&path));
        }
    }
    found.sort();
    found
}

/// One form for what engines print differently: numbers by value, instants without zone and trailing zeros.
fn normal(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::from(format!("{:?}", number.as_f64().unwrap())),
        Value::String(text) => {
            let instant = text.len() > 18 && text.as_bytes()[10] == b'T' && text.as_bytes()[4] == b'-';
            if instant {
                let plain = text.trim_end_matches('Z');
                return Value::from(match plain.split_once('.') {
                    Some((whole, fraction)) => format!("{whole}.{:0<6}", fraction),
                    None => format!("{plain}.000000"),
                });
            }
            match text.parse::<f64>() {
                Ok(number) => Value::from(format!("{number:?}")),
                Err(_) => Value::from(text),
            }
        }
        // A MAP is an array of pairs to one engine and an object to others.
        Value::Array(items) if !items.is_empty() && items.iter().all(is_pair) => {
            let pairs = items.into_iter().map(|pair| (pair[0].as_str().unwrap().to_string(), normal(pair[1].clone())));
            pairs.collect::<BTreeMap<String, Value>>().into_iter().collect()
        }
        Value::Array(items) => items.into_iter().map(normal).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(k, v)| (k, normal(v))).collect::<BTreeMap<_, _>>().into_iter().collect()
        }
        other => other,
    }
}

fn is_pair(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.len() == 2 && items[0].is_string())
}

/// All rows of a table as both engines find them, which must be the same.
fn read_all(path: &Path) -> Vec<String> {
    let [a, b] = Engine::ALL.map(|engine| sorted(query(engine, &[("t", path)], &["SELECT * FROM t"]).remove(0)));
    assert_eq!(a, b, "deltalake (left) and DuckDB (right) disagree about {}", path.display());
    a
}

fn sorted(rows: impl IntoIterator<Item = Value>) -> Vec<String> {
    let mut rows: Vec<String> = rows.into_iter().map(|row| normal(row).to_string()).collect();
    rows.sort();
    rows
}

/// Rows as `smelt query` shows them.
fn smelt_rows(sandbox: &Sandbox, target: &str, table: &str) -> Vec<Value> {
    query_rows(sandbox, target, &format!("select * from {table}"))
}

fn query_rows(sandbox: &Sandbox, target: &str, sql: &str) -> Vec<Value> {
    let ended = sandbox.smelt(&["query", sql, "--output", "json", "--target", target]).ok();
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn both_read_every_table_of_the_sample_as_smelt_does() {
    if !python::available() {
        return;
    }
    let sandbox = sample();
    sandbox.smelt(&["generate", "--to-dir", "data", "--events", "600", "--slices", "3"]).ok();
    sandbox.smelt(&["run", "--target", "files", "--epoch-files", "2"]).ok();
    let project = sandbox.smelt(&["debug", "--target", "files"]).ok().stdout;
    let lake = project.lines().find_map(|l| l.strip_prefix("lake")).unwrap().trim().to_string();
    let (mut compared, mut rows, mut own) = (Vec::new(), 0, 0);
    for path in tables(Path::new(&lake)) {
        let theirs = read_all(&path);
        let parts: Vec<_> = path.iter().rev().take(2).map(|p| p.to_str().unwrap()).collect();
        let (schema, name) = (parts[1], parts[0]);
        // The ledgers of files are not for queries: the other engines agree about them, and they are not empty.
        if schema == "_smelt" && name != "epochs" {
            assert!(!theirs.is_empty(), "{name}");
            own += 1;
            continue;
        }
        let table = format!("{schema}.{name}");
        let ours = smelt_rows(&sandbox, "files", &table);
        assert_eq!(theirs, sorted(ours.clone()), "{table}");
        rows += ours.len();
        compared.push(name.to_string());
    }
    assert!(compared.len() >= 15 && rows > 3_000 && own > 0, "{rows} rows of {compared:?}, {own} ledgers");
    for kind in ["quarantine", "epochs"] {
        assert!(compared.iter().any(|name| name.contains(kind)), "no {kind} table among {compared:?}");
    }
}

const TYPES: &str = r#"
version: 2
sources:
  - name: shop
    config: {connector: files, format: debezium-json, primary_key: [id]}
    tables:
      - name: kinds
        config: {path: "data/kinds-*.json"}
        columns:
          - {name: id, data_type: BIGINT}
          - {name: tiny, data_type: TINYINT}
          - {name: small, data_type: SMALLINT}
          - {name: number, data_type: INT}
          - {name: single, data_type: FLOAT}
          - {name: double_, data_type: DOUBLE}
          - {name: money, data_type: "DECIMAL(10,2)"}
          - {name: huge, data_type: "DECIMAL(38,6)"}
          - {name: flag, data_type: BOOLEAN}
          - {name: text, data_type: STRING}
          - {name: bytes, data_type: BINARY}
          - {name: day, data_type: DATE}
          - {name: instant, data_type: TIMESTAMP}
          - {name: local, data_type: TIMESTAMP_NTZ}
"#;

/// Row `n`: NULLs, extremes, long and non-ASCII texts among plain values.
fn kind(n: i64, op: char) -> String {
    let text = match n % 7 {
        0 => "null".to_string(),
        1 => "\"Zürich 🙂\"".to_string(),
        2 => format!("\"{}{n}\"", "long ".repeat(60)),
        3 => "\"\"".to_string(),
        _ => format!("\"text {n}\""),
    };
    let number = |wrapped: i64| if n % 11 == 5 { "null".to_string() } else { wrapped.to_string() };
    let double = match n % 9 {
        0 => "null".to_string(),
        1 => "-0.0".to_string(),
        2 => "1e308".to_string(),
        _ => format!("{}.25", n - 20),
    };
    let day = 1 + n % 28;
    let row = format!(
        "{{\"id\": {n}, \"tiny\": {}, \"small\": {}, \"number\": {}, \"single\": {}, \"double_\": {double}, \
         \"money\": {}, \"huge\": {}, \"flag\": {}, \"text\": {text}, \"bytes\": {}, \"day\": \"2024-02-{day:02}\", \
         \"instant\": \"2024-02-{day:02}T12:00:00.00000{}Z\", \"local\": \"1969-12-{day:02}T23:59:59.99999{}\"}}",
        number(n % 128 - 64),
        number(n * 300 - 32_000),
        number(n * 10_000_019 - 2_000_000_000),
        number(n - 30),
        number(n * 100 - 3_000),
        if n % 11 == 5 { "null".to_string() } else { format!("-1234567890123456789012345678{}.5", n % 90 + 10) },
        ["true", "false", "null"][(n % 3) as usize],
        ["null", "\"\"", "\"AP8=\"", "\"c21lbHQ=\""][(n % 4) as usize],
        n % 10,
        n % 10,
    );
    match op {
        'd' => format!("{{\"op\": \"d\", \"before\": {row}, \"after\": null, \"ts_ms\": 1}}\n"),
        _ => format!("{{\"op\": \"{op}\", \"before\": null, \"after\": {row}, \"ts_ms\": 1}}\n"),
    }
}

fn kinds() -> Sandbox {
    let sandbox = Sandbox::with(&[
        (
            "smelt.yml",
            "name: shop\ntarget: dev\ntargets:\n  dev: {lake: ./lake, schema: main, epoch: {max_files: 1}}\n",
        ),
        ("models/sources.yml", TYPES),
        (
            "queries/kinds.sql",
            "{{ config(materialized='streaming_table') }}\nselect * from {{ source('shop', 'kinds') }}",
        ),
        (
            "queries/shapes.sql",
            "select id, bytes, double_ / 0.0 as ratio, named_struct('n', number, 't', text) as pair, \
             make_array(small, tiny) as list from {{ ref('kinds') }}",
        ),
    ]);
    for file in 0..12 {
        let made: String = (file * 6..(file + 1) * 6).map(|n| kind(n, 'c')).collect();
        sandbox.write(&format!("data/kinds-{file:02}.json"), made);
    }
    // Retractions from many files: deletion vectors.
    sandbox.write("data/kinds-90.json", (0..72).step_by(5).map(|n| kind(n, 'd')).collect::<String>());
    sandbox
}

/// What a filter on `column` with `value` (SQL text) is called, one per operator.
fn filters(column: &str, low: &str, high: &str) -> Vec<String> {
    vec![
        format!("{column} = {low}"),
        format!("{column} < {high}"),
        format!("{column} > {low}"),
        format!("{column} BETWEEN {low} AND {high}"),
        format!("{column} IN ({low}, {high})"),
        format!("{column} IS NULL"),
        format!("{column} IS NOT NULL"),
    ]
}

/// Filters that skip files and row groups by statistics find what counting them over materialised rows finds.
fn assert_filters(path: &Path, bounds: &[Bounds], at_least: usize) {
    for engine in Engine::ALL {
        let literal = |text: &str| match text.strip_prefix("X'") {
            Some(hex) if engine == Engine::DuckDb => format!("from_hex('{hex})"),
            _ => text.to_string(),
        };
        let of = |(column, low, high): &Bounds| filters(column, &literal(low), &literal(high));
        let conditions: Vec<String> = bounds.iter().flat_map(of).collect();
        // The predicate as a value is evaluated on every row: nothing can be skipped by it.
        let mut queries: Vec<String> =
            conditions.iter().map(|c| format!("SELECT sum(CASE WHEN {c} THEN 1 ELSE 0 END) AS n FROM t")).collect();
        queries.extend(conditions.iter().map(|c| format!("SELECT id FROM t WHERE {c}")));
        let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
        let answers = query(engine, &[("t", path)], &queries);
        let (counts, rows) = answers.split_at(conditions.len());
        let mut found = 0;
        for ((condition, count), rows) in conditions.iter().zip(counts).zip(rows) {
            assert_eq!(
                Some(rows.len() as i64),
                count[0]["n"].as_i64(),
                "{engine:?}: {condition} on {}",
                path.display()
            );
            found += rows.len();
        }
        assert!(found > at_least, "{engine:?}: the filters find hardly anything: {found}");
    }
}

/// A column (or a part of one) with two values of it, as SQL.
type Bounds = (&'static str, &'static str, &'static str);

const KINDS: [Bounds; 14] = [
    ("id", "7", "40"),
    ("tiny", "-57", "-20"),
    ("small", "-29900", "-20000"),
    ("number", "-1929999867", "-1599999240"),
    ("single", "-23", "10"),
    ("double_", "0.0", "1e308"),
    ("money", "-2300.00", "1000.00"),
    (
        "huge",
        "CAST('-123456789012345678901234567890.5' AS DECIMAL(38,6))",
        "CAST('-123456789012345678901234567817.5' AS DECIMAL(38,6))",
    ),
    ("text", "'Zürich 🙂'", "'text 6'"),
    ("day", "DATE '2024-02-08'", "DATE '2024-02-20'"),
    ("instant", "TIMESTAMP '2024-02-08 12:00:00.000007'", "TIMESTAMP '2024-02-20 12:00:00.000001'"),
    ("local", "TIMESTAMP '1969-12-08 23:59:59.999997'", "TIMESTAMP '1969-12-20 23:59:59.999991'"),
    ("flag", "false", "true"),
    ("bytes", "X'00ff'", "X'736d656c74'"),
];

/// Not a number and the infinities, and what lies inside a STRUCT and an ARRAY.
const SHAPES: [Bounds; 4] = [
    ("ratio", "CAST('-Infinity' AS DOUBLE)", "CAST('NaN' AS DOUBLE)"),
    ("pair['n']", "-1929999867", "-1599999240"),
    ("pair['t']", "'Zürich 🙂'", "'text 6'"),
    ("list[1]", "-29900", "-20000"),
];

#[test]
fn filters_on_every_type_skip_no_row_with_vectors_and_after_compaction() {
    if !python::available() {
        return;
    }
    let sandbox = kinds();
    sandbox.smelt(&["run"]).ok();
    let (kinds, shapes) = (sandbox.table("main", "kinds"), sandbox.table("main", "shapes"));
    for round in ["many files", "compacted"] {
        // JSON has no NaN and no infinity: as text they can be compared.
        let shape = "select id, bytes, cast(ratio as string) as ratio, pair, list from shapes";
        for (name, sql, path) in [("kinds", "select * from kinds", &kinds), ("shapes", shape, &shapes)] {
            let ours = query_rows(&sandbox, "dev", sql);
            assert_eq!(ours.len(), 72 - 15, "{name}, {round}");
            assert_eq!(read_all(path), sorted(ours), "{name}, {round}");
        }
        assert_filters(&kinds, &KINDS, 600);
        assert_filters(&shapes, &SHAPES, 150);
        sandbox.smelt(&["optimize"]).ok();
    }
}

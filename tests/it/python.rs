//! Other engines: Python `deltalake` and DuckDB read a Delta table, and must find the same rows.
//!
//! The Python environment is made by `scripts/setup.sh test`; without it [`available`] is false and the caller leaves with a note,
//! unless `SMELT_REQUIRE_SERVICES=1`, where that is a failure.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    DeltaRs,
    DuckDb,
}

impl Engine {
    pub const ALL: [Engine; 2] = [Engine::DeltaRs, Engine::DuckDb];

    fn name(self) -> &'static str {
        match self {
            Engine::DeltaRs => "deltalake",
            Engine::DuckDb => "duckdb",
        }
    }
}

/// Whether the environment is there. Says so when it is not, and fails when services are required.
pub fn available() -> bool {
    let there = python().exists();
    if !there {
        assert!(
            std::env::var_os("SMELT_REQUIRE_SERVICES").is_none_or(|v| v != "1"),
            "SMELT_REQUIRE_SERVICES=1, but {} is missing: run scripts/setup.sh test",
            python().display()
        );
        eprintln!("skipped: no {} (scripts/setup.sh test makes it)", python().display());
    }
    there
}

pub fn python() -> PathBuf {
    let cache = std::env::var_os("SMELT_TEST_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache").join("smelt-test")
    });
    cache.join("venv/bin/python")
}

/// The rows of each query over the named tables, in canonical form and order (tests/python/read_table.py).
pub fn query(engine: Engine, tables: &[(&str, &Path)], queries: &[&str]) -> Vec<Vec<Value>> {
    query_with(engine, tables, queries, &[])
}

/// The same with environment variables: tables may be URLs of a store that they configure.
pub fn query_with(
    engine: Engine,
    tables: &[(&str, &Path)],
    queries: &[&str],
    vars: &[(&str, &str)],
) -> Vec<Vec<Value>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/read_table.py");
    let mut command = Command::new(python());
    command.arg(script).arg(engine.name()).envs(vars.iter().copied());
    for (name, path) in tables {
        command.arg("--table").arg(format!("{name}={}", path.display()));
    }
    let output = command.arg("--").args(queries).output().expect("Python starts");
    assert!(
        output.status.success(),
        "{} could not read {tables:?}:\n{}",
        engine.name(),
        String::from_utf8_lossy(&output.stderr)
    );
    let rows: Vec<Vec<Value>> = String::from_utf8(output.stdout)
        .expect("UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(rows.len(), queries.len(), "one answer per query");
    rows
}

/// The rows of `sql` over the table at `path`, which it calls `t`: what both engines find, which must be the same.
pub fn read_both(path: &Path, sql: &str) -> Vec<Value> {
    let [from_delta_rs, from_duckdb] = Engine::ALL.map(|engine| query(engine, &[("t", path)], &[sql]).remove(0));
    assert_eq!(
        from_delta_rs,
        from_duckdb,
        "deltalake (left) and DuckDB (right) disagree about {}: {sql}",
        path.display()
    );
    from_duckdb
}

/// All rows of the table at `path`.
pub fn read_all(path: &Path) -> Vec<Value> {
    read_both(path, "SELECT * FROM t")
}

/// Number of rows of the table at `path`.
pub fn count(path: &Path) -> i64 {
    read_both(path, "SELECT count(*) AS n FROM t")[0]["n"].as_i64().expect("a count")
}

/// The helpers themselves, on a table that delta-rs wrote in Python: no smelt involved.
#[test]
fn both_engines_say_the_same_of_every_type() {
    if !available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t");
    let write = r#"
import sys
import arro3.core
from deltalake import QueryBuilder, write_deltalake
rows = QueryBuilder().execute("""SELECT * FROM (VALUES
  (1, 'a', CAST(1.5 AS DOUBLE), CAST(12.5 AS DECIMAL(20, 2)), DATE '2024-02-29', TIMESTAMP '2024-02-29T12:00:00.000001Z', true),
  (2, NULL, CAST('NaN' AS DOUBLE), CAST(-0.01 AS DECIMAL(20, 2)), DATE '1969-12-31', NULL, NULL))
  AS v(id, text, double, decimal, date, instant, flag)""")
write_deltalake(sys.argv[1], arro3.core.Table.from_batches(list(rows)))
"#;
    let status = Command::new(python()).arg("-c").arg(write).arg(&path).status().unwrap();
    assert!(status.success());
    assert_eq!(count(&path), 2);
    let mut rows = read_both(&path, "SELECT id, text, double, decimal, date, flag FROM t");
    rows.sort_by_key(|row| row["id"].as_i64());
    assert_eq!(
        rows,
        [
            serde_json::json!({"id": 1, "text": "a", "double": 1.5, "decimal": "12.50", "date": "2024-02-29", "flag": true}),
            serde_json::json!({"id": 2, "text": null, "double": "NaN", "decimal": "-0.01", "date": "1969-12-31", "flag": null}),
        ]
    );
    assert_eq!(read_all(&path).len(), 2);
}

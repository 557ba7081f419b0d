//! The second oracle: DuckDB.
//!
//! Stock DataFusion, the first oracle, shares its parser, planner and optimizer with what it judges. Here the text of a random query goes
//! to DuckDB, over the rows that all epochs leave, and its answer is compared with the sum of what the circuit gave out. Numbers may differ by 1e-9 of
//! their size, rows come in any order.
//!
//! Orders of the queries are total ([`super::queries`] makes them so), as engines break ties in their own ways; queries over nested columns have none.
//! [`translate`] writes in DuckDB's words what has another name there; what DuckDB cannot execute is counted, and the test fails when too much is.

mod differs;
mod translate;
mod values;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value as Json, json};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cases::Case;
use super::changes::Rows;
use super::contents::Multiset;
use super::oracle::{Oracle, seeds};
use super::queries::{Generator, Readable};
use super::tables::{Row, TABLES, Value};
use crate::operators::Mode;

/// Python with DuckDB; None where `scripts/setup.sh test` has not made it, unless services are required.
#[allow(clippy::disallowed_methods)]
fn python() -> Option<PathBuf> {
    let cache = std::env::var_os("SMELT_TEST_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/smelt-test"));
    let python = cache.join("venv/bin/python");
    if !python.exists() {
        let required = std::env::var_os("SMELT_REQUIRE_SERVICES").is_some_and(|v| v == "1");
        assert!(!required, "SMELT_REQUIRE_SERVICES=1, but {} is missing: run scripts/setup.sh test", python.display());
        println!("skipped: no {} (scripts/setup.sh test makes it)", python.display());
        return None;
    }
    Some(python)
}

/// A query with what stands in its tables.
struct Question {
    sql: String,
    tables: Vec<(&'static str, Vec<Row>)>,
}

/// What DuckDB says to each: rows, or why it cannot.
fn ask(python: &Path, questions: &[Question]) -> Vec<Result<Vec<Json>, String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/duckdb_rows.py");
    let lines: Vec<String> = questions
        .iter()
        .map(|question| {
            let setup: Vec<String> =
                question.tables.iter().flat_map(|(name, rows)| values::table(name, rows)).collect();
            let setup: Vec<String> = std::iter::once("create schema src".to_string()).chain(setup).collect();
            json!({"setup": setup, "sql": translate::translated(&question.sql)}).to_string()
        })
        .collect();
    let mut child =
        Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python starts");
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        for line in lines {
            writeln!(input, "{line}").unwrap();
        }
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Vec<_> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let mut answer: Json = serde_json::from_str(line).unwrap();
            match answer.get("error") {
                Some(error) => Err(error.as_str().unwrap().to_string()),
                None => Ok(answer["rows"].as_array_mut().unwrap().drain(..).collect()),
            }
        })
        .collect();
    assert_eq!(answers.len(), questions.len());
    answers
}

/// Differences that are known, of queries that have what makes them.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// NaN is NULL: the correlation and the regression of one value only.
    nan: bool,
    /// Averages of decimals are doubles in DuckDB, and rounded another way: numbers may differ by so much.
    rounding: f64,
}

impl Known {
    fn of(sql: &str) -> Self {
        let rounded = ["cast(avg(", "cast(median("].iter().any(|call| sql.contains(call));
        Known { nan: sql.contains("corr(") || sql.contains("regr_"), rounding: if rounded { 0.0101 } else { 0.0 } }
    }
}

/// Whether what a query gives depends on an order that is not total over nested columns.
fn is_ordered(sql: &str) -> bool {
    [" over (", "order by", "limit ", "offset ", "distinct on"].iter().any(|word| sql.contains(word))
}

/// Correlated subqueries over plain columns, in total orders.
fn correlated(seed: u64) -> (Case, Option<String>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xc0);
    let mut readable = Readable::tables();
    readable.iter_mut().for_each(|table| table.columns.retain(|(_, kind)| !kind.is_nested()));
    let (query, same) = Generator::in_total_order(readable, &mut rng).correlated();
    let mut case = Case::of(seed, query.sql, &mut rng);
    case.epochs.truncate(8);
    (case, same)
}

/// Even seeds: plain columns, total orders. Odd ones: all columns, no order.
fn case(seed: u64) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xdb);
    let depth = (seed / 2 % 3) as usize;
    let nested = seed % 2 == 1;
    let mut readable = Readable::tables();
    if !nested {
        readable.iter_mut().for_each(|table| table.columns.retain(|(_, kind)| !kind.is_nested()));
    }
    let sql = loop {
        let sql = Generator::in_total_order(readable.clone(), &mut rng).query(depth).sql;
        if !(nested && is_ordered(&sql)) {
            break sql;
        }
    };
    let mut case = Case::of(seed, sql, &mut rng);
    case.epochs.truncate(8);
    // DuckDB's statistics of what is no number are errors.
    if seed % 4 < 2 {
        for change in case.epochs.iter_mut().flat_map(|e| &mut e.changes) {
            for value in &mut change.row {
                if matches!(value, Value::Float(f) if !f.is_finite()) {
                    *value = Value::Null;
                }
            }
        }
    }
    case
}

/// The rows that a circuit has given out after all epochs of a case, and the question for DuckDB; None if the query is not maintained.
fn maintained(case: &Case) -> Option<(Vec<Json>, Question)> {
    let oracle = Oracle::new(&case.sql);
    oracle.model.incremental.as_ref().ok()?;
    let mut circuit = oracle.circuit(Mode::View);
    let mut tables: Vec<(&'static str, Rows)> = TABLES.iter().map(|t| (t.name, Rows::default())).collect();
    let mut total = Multiset::new();
    for epoch in &case.epochs {
        let inputs: Vec<_> = (0..oracle.tables.len())
            .map(|i| super::changes::batches(oracle.tables[i], &oracle.model.inputs[i].schema, &epoch.changes))
            .collect();
        for change in &epoch.changes {
            let (_, rows) = tables.iter_mut().find(|(name, _)| *name == change.table).unwrap();
            rows.apply(&change.row, change.weight);
        }
        oracle.contents.add_signed(&mut total, &circuit.step(&inputs).unwrap());
    }
    let rows = values::rows(&oracle.contents, &total);
    let tables = tables.into_iter().map(|(name, rows)| (name, rows.all().into_iter().cloned().collect())).collect();
    Some((rows, Question { sql: case.sql.clone(), tables }))
}

/// Rows that a circuit maintains, and the question that has them as its answer.
type Maintained = (Vec<Json>, Question);

#[test]
fn duckdb_finds_the_rows_that_circuits_maintain() {
    compared(seeds("0..400"), |seed| (case(seed), None));
}

#[test]
fn duckdb_finds_the_rows_of_correlated_subqueries() {
    compared(seeds("0..300"), correlated);
}

/// The case of each seed, and its query in DuckDB's words if they are others.
fn compared(seeds: Range<u64>, case: fn(u64) -> (Case, Option<String>)) {
    let Some(python) = python() else { return };
    let count = seeds.end - seeds.start;
    let half = |first: u64| -> Vec<(u64, Option<Maintained>)> {
        let asked = |seed| {
            let (case, same) = case(seed);
            maintained(&case).map(|(rows, question)| (rows, Question { sql: same.unwrap_or(question.sql), ..question }))
        };
        (seeds.start + first..seeds.end).step_by(2).map(|seed| (seed, asked(seed))).collect()
    };
    let mut found = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        let mut found = half(0);
        found.extend(other.join().unwrap());
        found
    });
    found.sort_by_key(|(seed, _)| *seed);
    let (mut own, mut questions) = (Vec::new(), Vec::new());
    for (seed, found) in found {
        if let Some((rows, question)) = found {
            own.push((seed, rows));
            questions.push(question);
        }
    }
    let (mut equal, mut not_empty, mut refused, mut different) = (0, 0, Vec::new(), Vec::new());
    for (((seed, rows), question), answer) in own.iter().zip(&questions).zip(ask(&python, &questions)) {
        match answer {
            Err(error) => {
                refused.push(format!("{seed}: {}\n    {}", error.lines().next().unwrap_or_default(), question.sql))
            }
            Ok(answer) => match values::difference_but(rows, &answer, Known::of(&question.sql)) {
                None => {
                    equal += 1;
                    not_empty += u64::from(!rows.is_empty());
                }
                Some(difference) => {
                    let sql = translate::translated(&question.sql);
                    different.push(seed);
                    println!("seed {seed}:\n{}\n{sql}\n{difference}\n", question.sql);
                }
            },
        }
    }
    println!("DuckDB refused:\n{}", refused.join("\n"));
    println!(
        "{equal} of {count} queries are equal, {not_empty} have rows; {} refused, {different:?} differ",
        refused.len()
    );
    assert!(different.is_empty(), "DuckDB has other rows for these seeds: {different:?}");
    assert!(equal * 10 >= count * 9, "only {equal} of {count} queries were compared");
    assert!(not_empty * 10 >= count * 7, "only {not_empty} of {count} queries have rows");
}

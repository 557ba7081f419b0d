//! Nexmark's and TPC-H's queries as circuits: random epochs of inserts (TPC-H: updates and deletes too), and after every one of
//! them the sum of all output is what stock DataFusion computes from the input so far.
//!
//! `nexmark.txt` and `tpch.txt` say of each query whether it is maintained, and why not; `SMELT_UPDATE_GOLDEN=1` rewrites them.
//! `SMELT_BENCHMARK_SEEDS=a..b` runs other seeds, `SMELT_BENCHMARK_QUERY=q5` one query.

#![allow(clippy::disallowed_methods)]

use arrow::array::{Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::contents::{Contents, Multiset, stock};
use super::project::{NoTables, model, project, source};
use super::tables::TABLES;
use crate::operators::{Circuit, Mode};
use crate::plan::{CompiledModel, Planner, PlannerOptions, Relation, compile};
use crate::project::*;
use crate::source::datagen::{nexmark, tpch};
use crate::types::SignedBatch;

/// (name, SQL) of every query of a file: `-- q1: what it is` begins each.
fn queries(text: &str) -> Vec<(String, String)> {
    let mut queries: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("-- q") {
            Some(heading) => queries.push((format!("q{}", heading.split(':').next().unwrap()), String::new())),
            None => {
                if let Some((_, sql)) = queries.last_mut() {
                    sql.push_str(line);
                    sql.push('\n');
                }
            }
        }
    }
    queries
}

type Columns = &'static [(&'static str, &'static str)];

/// A view of `sql` over these tables of the source `src`.
fn compiled(sql: &str, tables: &[(&str, Columns)], format: Format) -> Arc<CompiledModel> {
    let table = |(name, columns): &(&str, Columns)| {
        let like = source("src", &TABLES[0], "/data", format, &[]);
        let column = |(name, sql): &(&str, &str)| Column {
            name: (*name).into(),
            data_type: Some((*sql).into()),
            ..like.columns[0].clone()
        };
        SourceTable {
            name: (*name).into(),
            unique_id: format!("source.test.src.{name}"),
            columns: columns.iter().map(column).collect(),
            ..like.clone()
        }
    };
    let sources = tables.iter().map(table).collect();
    let inputs = tables.iter().map(|(name, _)| Dependency::Source("src".into(), (*name).into())).collect();
    let view = model("m", "v", sql, Materialization::MaterializedView, inputs);
    match compile(&project("/lake", sources, vec![view]), &NoTables, &crate::plan::stopped()) {
        Ok(compilation) => Arc::clone(&compilation.models[0]),
        Err(errors) => panic!("{sql}\n{errors:#?}"),
    }
}

/// What one input has been given.
struct Feed {
    /// Every row it may be given; updates turn row i of one into row i of the other.
    versions: Vec<RecordBatch>,
    /// Rows of the first version that have been given so far.
    given: usize,
    /// (version, row) of what is there.
    present: Vec<(usize, usize)>,
}

impl Feed {
    /// The rows `picked`, by (version, row).
    fn rows(&self, picked: &[(usize, usize)]) -> RecordBatch {
        let parts = self.versions.iter().enumerate().map(|(version, rows)| {
            let of = picked.iter().filter(|(v, _)| *v == version).map(|(_, row)| *row as u32);
            take_record_batch(rows, &UInt32Array::from_iter_values(of)).unwrap()
        });
        concat_batches(&self.versions[0].schema(), &parts.collect::<Vec<_>>()).unwrap()
    }

    fn signed(&self, inserted: &[(usize, usize)], deleted: &[(usize, usize)]) -> Vec<SignedBatch> {
        let weights = |n: usize, weight: i64| Int64Array::from(vec![weight; n]);
        let batch =
            |picked: &[(usize, usize)], weight| SignedBatch::new(self.rows(picked), weights(picked.len(), weight));
        // A retraction first: a row may go and come back in one epoch.
        [batch(deleted, -1).unwrap(), batch(inserted, 1).unwrap()].into_iter().filter(|b| !b.is_empty()).collect()
    }

    /// The next `new` rows, and some changes to those that are there.
    fn step(&mut self, new: usize, changes: usize, rng: &mut ChaCha8Rng) -> Vec<SignedBatch> {
        let (mut inserted, mut deleted) = (Vec::new(), Vec::new());
        for _ in 0..changes.min(self.present.len()) {
            let (version, row) = self.present.swap_remove(rng.random_range(0..self.present.len()));
            deleted.push((version, row));
            let other = 1 - version;
            if rng.random_bool(0.6) && row < self.versions[other].num_rows() {
                inserted.push((other, row));
            }
        }
        let end = (self.given + new).min(self.versions[0].num_rows());
        inserted.extend((self.given..end).map(|row| (0, row)));
        self.given = end;
        self.present.extend_from_slice(&inserted);
        self.signed(&inserted, &deleted)
    }
}

/// One query under random epochs.
struct Run {
    name: String,
    model: Arc<CompiledModel>,
    /// By table.
    feeds: BTreeMap<String, Feed>,
    planner: Planner,
    contents: Contents,
}

/// What became of it.
struct Outcome {
    /// Its line of the golden table.
    line: String,
    rows: usize,
}

impl Run {
    fn new(name: &str, model: Arc<CompiledModel>, feeds: BTreeMap<String, Feed>) -> Self {
        let options = PlannerOptions { target_partitions: 2, ..PlannerOptions::new(Dialect::DataFusion) };
        let contents = Contents::new(&model.schema);
        Run { name: name.into(), model, feeds, planner: Planner::new(options).unwrap(), contents }
    }

    fn circuit(&self) -> Option<Circuit> {
        let tree = self.model.incremental.as_ref().ok()?;
        Some(Circuit::new(&self.name, tree, Mode::View, self.planner.session_state()).unwrap())
    }

    fn inputs(&self) -> Vec<&str> {
        let name = |relation: &Relation| match relation {
            Relation::Source(_, name) => self.feeds.get_key_value(name).unwrap().0.as_str(),
            other => panic!("{other}"),
        };
        self.model.inputs.iter().map(|input| name(&input.relation)).collect()
    }

    async fn expected(&self) -> Multiset {
        let provider = |name: &&str| {
            let feed = &self.feeds[*name];
            let table = MemTable::try_new(feed.versions[0].schema(), vec![vec![feed.rows(&feed.present)]]);
            Arc::new(table.unwrap()) as Arc<dyn TableProvider>
        };
        let providers: Vec<_> = self.inputs().iter().map(provider).collect();
        self.contents.of(&stock(&self.planner, &self.model, &providers, 0).await.unwrap())
    }

    /// Steps through `epochs`, each of which says what a table is given: (new rows, changes).
    async fn run(
        mut self,
        epochs: usize,
        retracts: bool,
        rng: &mut ChaCha8Rng,
        mut epoch: impl FnMut(&str, usize, &mut ChaCha8Rng) -> (usize, usize),
    ) -> Outcome {
        let mut circuit = self.circuit();
        let mut total = Multiset::new();
        for number in 0..epochs {
            let mut changes: BTreeMap<String, Vec<SignedBatch>> = BTreeMap::new();
            for (name, feed) in &mut self.feeds {
                let (new, changed) = epoch(name, number, rng);
                changes.insert(name.clone(), feed.step(new, changed, rng));
            }
            let Some(circuit) = &mut circuit else { continue };
            let inputs: Vec<_> = self.inputs().iter().map(|name| changes[*name].clone()).collect();
            let output = circuit.step(&inputs).unwrap_or_else(|e| panic!("{} epoch {number}: {e:?}", self.name));
            self.contents.add_signed(&mut total, &output);
            let expected = self.expected().await;
            let same = total == expected;
            assert!(same, "{} epoch {number}\n{}", self.name, self.contents.difference(&total, &expected));
        }
        let rows = self.expected().await.len();
        if let Some(circuit) = &mut circuit
            && retracts
        {
            let all = |name: &&str| self.feeds[*name].signed(&[], &self.feeds[*name].present);
            let output = circuit.step(&self.inputs().iter().map(all).collect::<Vec<_>>()).unwrap();
            self.contents.add_signed(&mut total, &output);
            let mut fresh = self.circuit().unwrap();
            let mut nothing = Multiset::new();
            self.contents.add_signed(&mut nothing, &fresh.step(&vec![vec![]; self.inputs().len()]).unwrap());
            assert!(
                total == nothing,
                "{}: all is retracted\n{}",
                self.name,
                self.contents.difference(&total, &nothing)
            );
            assert_eq!(
                circuit.state_rows(),
                fresh.state_rows(),
                "{}: state is left: {:#?}",
                self.name,
                circuit.metrics()
            );
        }
        let line = match &self.model.incremental {
            Ok(_) => format!("{}: maintained", self.name),
            Err(fallback) => format!("{}: recomputed: {fallback}", self.name),
        };
        Outcome { line, rows }
    }
}

/// Runs every query of `text`; `run` makes and steps one. The outcomes must be those of the golden table.
fn check(text: &str, golden: &str, ordinary: &str, run: impl AsyncFn(&str, &str, u64) -> Outcome) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let only = std::env::var("SMELT_BENCHMARK_QUERY").ok();
    let seeds = std::env::var("SMELT_BENCHMARK_SEEDS").unwrap_or_else(|_| ordinary.into());
    let (from, to) = seeds.split_once("..").unwrap();
    let mut table = String::new();
    let mut empty = Vec::new();
    for (name, sql) in queries(text) {
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let (mut line, mut rows) = (String::new(), 0);
        for seed in from.parse().unwrap()..to.parse().unwrap() {
            let outcome = runtime.block_on(run(&name, &sql, seed));
            rows += outcome.rows;
            line = outcome.line;
        }
        if rows == 0 {
            empty.push(name);
        }
        println!("{line}");
        table += &(line + "\n");
    }
    assert!(empty.is_empty(), "no rows: {empty:?}");
    if only.is_some() {
        return;
    }
    let path = format!("{}/src/operators/tests/{golden}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var("SMELT_UPDATE_GOLDEN").is_ok() {
        std::fs::write(&path, &table).unwrap();
    }
    let was = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(table, was, "SMELT_UPDATE_GOLDEN=1 accepts what is in {golden}");
}

const EVENTS: u64 = 3_000;

#[test]
fn nexmark_equals_batch_after_every_epoch() {
    let side: Columns = &[("key", "BIGINT"), ("value", "STRING")];
    let mut tables: Vec<(&str, Columns)> = nexmark::Stream::ALL.iter().map(|s| (s.name(), s.columns())).collect();
    tables.push(("side_input", side));
    let text = include_str!("../../../benches/nexmark/queries.sql");
    check(text, "nexmark.txt", "0..1", async |name, sql, seed| {
        // Some windows of ten seconds.
        let generator = nexmark::Nexmark { seed, rate: 75 };
        let mut feeds: BTreeMap<String, Feed> = nexmark::Stream::ALL
            .iter()
            .map(|s| (s.name().to_string(), generator.batch(*s, 0..EVENTS).unwrap()))
            .chain([("side_input".to_string(), nexmark::side_input().unwrap())])
            .map(|(name, rows)| (name, Feed { versions: vec![rows], given: 0, present: vec![] }))
            .collect();
        let model = compiled(sql, &tables, Format::Json);
        let read: Vec<&Relation> = model.inputs.iter().map(|i| &i.relation).collect();
        feeds.retain(|name, _| read.iter().any(|r| matches!(r, Relation::Source(_, n) if n == name)));
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let sizes: BTreeMap<String, usize> =
            feeds.iter().map(|(name, feed)| (name.clone(), feed.versions[0].num_rows())).collect();
        // The streams move on at their own paces, so joins see either side first. The last epoch has what is left.
        Run::new(name, Arc::clone(&model), feeds)
            .run(8, false, rng, |name, number, rng| match number {
                3 => (0, 0),
                7 => (sizes[name], 0),
                _ if name == "side_input" => (if number == 1 { sizes[name] } else { 0 }, 0),
                _ => (rng.random_range(0..sizes[name] / 4), 0),
            })
            .await
    });
}

#[test]
fn tpch_equals_batch_after_every_epoch() {
    let tables: Vec<(&str, Columns)> = tpch::Table::ALL.iter().map(|t| (t.name(), t.columns())).collect();
    check(include_str!("tpch.sql"), "tpch.txt", "0..1", async |name, sql, seed| {
        let model = compiled(sql, &tables, Format::DebeziumJson);
        let reads = |table: &tpch::Table| {
            model.inputs.iter().any(|i| matches!(&i.relation, Relation::Source(_, n) if n == table.name()))
        };
        let feed = |table: &tpch::Table| {
            let version = |seed| tpch::Tpch { seed, orders: 600 }.table(*table).unwrap();
            (
                table.name().to_string(),
                Feed { versions: vec![version(seed), version(seed + 1000)], given: 0, present: vec![] },
            )
        };
        let feeds: BTreeMap<String, Feed> = tpch::Table::ALL.iter().filter(|t| reads(t)).map(feed).collect();
        let sizes: BTreeMap<String, usize> =
            feeds.iter().map(|(name, feed)| (name.clone(), feed.versions[0].num_rows())).collect();
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        Run::new(name, Arc::clone(&model), feeds)
            .run(7, true, rng, |name, number, rng| {
                let size = sizes[name];
                match (number, name) {
                    (0, "region" | "nation") => (size, 0),
                    (0, _) => (size * 2 / 3, 0),
                    // One table alone, then all of them, then nothing.
                    (1, "lineitem") => (size / 10, size / 50),
                    (1, _) => (0, 0),
                    (4, _) => (0, 0),
                    // Not so many that the queries run out of rows.
                    (_, "region" | "nation") => (0, usize::from(rng.random_bool(0.2))),
                    (6, _) => (size, 2),
                    _ => (rng.random_range(0..=size / 10), rng.random_range(0..=size / 40 + 1)),
                }
            })
            .await
    });
}

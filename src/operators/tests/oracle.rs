//! The oracle: random queries over random tables under random signed changes. After every epoch the sum of all output is the
//! multiset that stock DataFusion computes from the accumulated input by the same rewritten plan.
//!
//! `SMELT_ORACLE_SEEDS=a..b` runs other seeds. A failing case is made smaller and printed as a script;
//! `SMELT_ORACLE_SCRIPT=file` replays one.

#![allow(clippy::disallowed_methods)]

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::cases::Case;
use super::changes::{Rows, batches, table};
use super::contents::{Contents, Multiset, stock};
use super::project::{NoTables, model, project, source};
use super::shrink::shrink;
use super::tables::{Row, TABLES, Table, batch, signed_batch};
use crate::operators::{Circuit, Mode};
use crate::plan::stored::to_stored;
use crate::plan::{CompiledModel, Input, Planner, PlannerOptions, Relation, compile};
use crate::project::*;
use crate::state::{Header, Packing, StateReader, StateWriter, decode, encode};
use crate::types::SignedBatch;

/// A view of `sql` over the tables as signed changelogs, but for those that are `append_only`.
pub fn compiled(sql: &str, append_only: &[String]) -> Arc<CompiledModel> {
    compiled_together(&[sql], append_only).remove(0)
}

/// One view of each of `queries`, of one project.
pub fn compiled_together(queries: &[&str], append_only: &[String]) -> Vec<Arc<CompiledModel>> {
    let grows = |table: &Table| append_only.iter().any(|name| name == table.name);
    let format = |table: &Table| if grows(table) { Format::Json } else { Format::DebeziumJson };
    let sources = TABLES.iter().map(|t| source("src", t, "/data", format(t), &[])).collect();
    let inputs = || TABLES.iter().map(|t| Dependency::Source("src".into(), t.name.into())).collect();
    let view = |(number, sql): (usize, &&str)| {
        let name = if number == 0 { "v".to_string() } else { format!("v{number}") };
        model("m", &name, sql, Materialization::MaterializedView, inputs())
    };
    let views = queries.iter().enumerate().map(view).collect();
    match compile(&project("/lake", sources, views), &NoTables, &crate::plan::stopped()) {
        Ok(compilation) => compilation.models,
        Err(errors) => panic!("{queries:?}\n{errors:#?}"),
    }
}

/// A view of `sql` over tables that are streaming tables, with a watermark where they have a time: `watermark` names the column of table `t`.
pub fn behind_watermarks(sql: &str, append_only: &[String], watermark: &str) -> Arc<CompiledModel> {
    let grows = |table: &Table| append_only.iter().any(|name| name == table.name);
    let format = |table: &Table| if grows(table) { Format::Json } else { Format::DebeziumJson };
    let sources = TABLES.iter().map(|t| source("raw", t, "/data", format(t), &[])).collect();
    let mut models: Vec<Model> = Vec::new();
    for table in &TABLES {
        let columns = table.columns.iter().map(|c| c.0).collect::<Vec<_>>().join(", ");
        let bronze = format!("select {columns} from stream \"raw\".\"{}\"", table.name);
        let input = Dependency::Source("raw".into(), table.name.into());
        let mut bronze = model("src", table.name, &bronze, Materialization::StreamingTable, vec![input]);
        let column = if table.name == "t" { watermark } else { "ts" };
        if table.columns.iter().any(|(name, _)| *name == column) {
            let (delay, idle_timeout) = (Duration::ZERO, Duration::ZERO);
            bronze.config.watermark = Some(Watermark { column: column.into(), delay, idle_timeout });
        }
        models.push(bronze);
    }
    let inputs = TABLES.iter().map(|t| Dependency::Model(t.name.into())).collect();
    models.push(model("m", "v", sql, Materialization::MaterializedView, inputs));
    match compile(&project("/lake", sources, models), &NoTables, &crate::plan::stopped()) {
        Ok(compilation) => compilation.models.iter().find(|m| m.model.name == "v").unwrap().clone(),
        Err(errors) => panic!("{sql}\n{errors:#?}"),
    }
}

pub struct Oracle {
    pub model: Arc<CompiledModel>,
    pub planner: Arc<Planner>,
    pub contents: Contents,
    /// Per input of the model, its table.
    pub tables: Vec<&'static Table>,
    /// Where the clock stands, µs.
    pub clock: i64,
}

impl Oracle {
    pub fn new(sql: &str) -> Self {
        Self::over(sql, &[], None)
    }

    /// With this much memory for state and bulk plans.
    pub fn within(sql: &str, memory_limit: Option<usize>) -> Self {
        Self::over(sql, &[], memory_limit)
    }

    /// With these tables append-only.
    pub fn over(sql: &str, append_only: &[String], memory_limit: Option<usize>) -> Self {
        Self::of(compiled(sql, append_only), memory_limit)
    }

    /// Of a view over [`TABLES`].
    pub fn of(model: Arc<CompiledModel>, memory_limit: Option<usize>) -> Self {
        let planner = Planner::new(PlannerOptions {
            // Aggregation in one phase or in two, with merged states.
            target_partitions: if model.model.sql.len().is_multiple_of(2) { 1 } else { 3 },
            memory_limit,
            ..PlannerOptions::new(Dialect::DataFusion)
        });
        Self::executed_by(model, Arc::new(planner.unwrap()))
    }

    /// The same, in one pipeline with others of this planner.
    pub fn executed_by(model: Arc<CompiledModel>, planner: Arc<Planner>) -> Self {
        let tables = model.inputs.iter().map(|i| match &i.relation {
            Relation::Source(_, name) | Relation::Model(name) => table(name),
            other => panic!("{other}"),
        });
        Oracle { planner, contents: Contents::new(&model.schema), tables: tables.collect(), clock: 0, model }
    }

    pub fn circuit(&self, mode: Mode) -> Circuit {
        Circuit::new("v", self.model.incremental.as_ref().unwrap(), mode, self.planner.session_state()).unwrap()
    }

    /// A circuit with the state of `circuit`, by way of its stored bytes.
    pub fn restored(&self, circuit: &mut Circuit, mode: Mode) -> Circuit {
        let mut state = StateWriter::new();
        circuit.save(&mut state).unwrap();
        let stored = encode(&Header::default(), state.finish(), Packing::Compressed, 2).unwrap().concat();
        let (_, sections) = decode(&stored.into()).unwrap();
        let mut reader = StateReader::new(sections, 2);
        let mut restored = self.circuit(mode);
        restored.restore(&mut reader).unwrap();
        reader.finish().unwrap();
        restored
    }

    /// The view, computed from nothing; None where stock DataFusion cannot.
    pub async fn expected(&self, rows: &[Vec<Row>]) -> Option<Multiset> {
        let providers: Vec<Arc<dyn TableProvider>> = (0..self.tables.len())
            .map(|i| {
                let schema = &self.model.inputs[i].schema;
                let part = |from: usize| {
                    let rows: Vec<&Row> = rows[i].iter().skip(from).step_by(2).collect();
                    vec![batch(self.tables[i], schema, &rows)]
                };
                let table = MemTable::try_new(Arc::clone(schema), vec![part(0), part(1)]);
                Arc::new(table.unwrap()) as Arc<dyn TableProvider>
            })
            .collect();
        Some(self.contents.of(&stock(&self.planner, &self.model, &providers, self.clock).await?))
    }

    /// The bulk plan over these rows, which weigh 1 or more.
    pub fn bound(&self, inputs: &[Vec<SignedBatch>]) -> LogicalPlan {
        let provider = |(batches, input): (&Vec<SignedBatch>, &Input)| {
            let rows = batches.iter().flat_map(|b| {
                assert!(!b.has_retractions());
                let times = (0..b.num_rows()).flat_map(|i| std::iter::repeat_n(i as u32, b.weight(i) as usize));
                let picked = UInt32Array::from_iter_values(times);
                [take_record_batch(&b.rows, &picked).unwrap()]
            });
            let table = MemTable::try_new(Arc::clone(&input.schema), vec![rows.collect()]);
            Arc::new(table.unwrap()) as Arc<dyn TableProvider>
        };
        let providers: Vec<_> = inputs.iter().zip(&self.model.inputs).map(provider).collect();
        self.planner.bind(&self.model, &providers).unwrap()
    }

    /// Executes it.
    pub async fn collect(&self, plan: &LogicalPlan) -> Vec<RecordBatch> {
        self.planner.execute(plan).await.unwrap().try_collect().await.unwrap()
    }

    /// Rows as the model's table has them.
    pub fn stored(&self, batch: SignedBatch) -> SignedBatch {
        let rows = to_stored(&batch.rows, &self.model.schema).unwrap();
        batch.with_rows(rows)
    }

    /// Everything, as insertions.
    pub fn all(&self, rows: &[Vec<Row>], sign: i64) -> Vec<Vec<SignedBatch>> {
        let all = |i: usize| {
            let rows: Vec<(Row, i64)> = rows[i].iter().map(|r| (r.clone(), sign)).collect();
            vec![signed_batch(self.tables[i], &self.model.inputs[i].schema, &rows)]
        };
        (0..self.tables.len()).map(all).collect()
    }
}

/// How what is maintained is compared with what is expected.
type Equal = fn(&Multiset, &Multiset) -> bool;

/// Runs a case; whether its query was maintained.
async fn run(case: &Case, equal: Equal) -> Result<bool, String> {
    let mut oracle = Oracle::over(&case.sql, &case.append_only, None);
    if let Err(fallback) = &oracle.model.incremental {
        println!("seed {}: {fallback}: {}", case.seed, case.sql);
        return Ok(false);
    }
    let mut circuit = oracle.circuit(Mode::View);
    // The circuit whose state was stored, for one epoch more.
    let mut original: Option<Circuit> = None;
    let mut rows: BTreeMap<&str, Rows> = TABLES.iter().map(|t| (t.name, Rows::default())).collect();
    let mut total = Multiset::new();
    let check =
        async |oracle: &Oracle, total: &Multiset, rows: &[Vec<Row>], what: String| match oracle.expected(rows).await {
            Some(expected) if !equal(total, &expected) => {
                Err(format!("{what}\n{}", oracle.contents.difference(total, &expected)))
            }
            _ => Ok(()),
        };
    let present = |oracle: &Oracle, rows: &BTreeMap<&str, Rows>| -> Vec<Vec<Row>> {
        oracle.tables.iter().map(|t| rows[t.name].all().into_iter().cloned().collect()).collect()
    };
    for (number, epoch) in case.epochs.iter().enumerate() {
        oracle.clock = oracle.clock.max(epoch.clock);
        circuit.set_clock(oracle.clock);
        let inputs: Vec<Vec<SignedBatch>> = (0..oracle.tables.len())
            .map(|i| batches(oracle.tables[i], &oracle.model.inputs[i].schema, &epoch.changes))
            .collect();
        for change in &epoch.changes {
            rows.get_mut(change.table.as_str()).unwrap().apply(&change.row, change.weight);
        }
        let output = circuit.step(&inputs).map_err(|e| format!("epoch {number}: {e:?}"))?;
        if let Some(mut original) = original.take() {
            original.set_clock(oracle.clock);
            let mut difference = Multiset::new();
            oracle.contents.add_signed(&mut difference, &output);
            let output = original.step(&inputs).map_err(|e| format!("epoch {number}, not restored: {e:?}"))?;
            oracle.contents.add_signed(&mut difference, &negated(output));
            let same = difference.is_empty() && circuit.state_rows() == original.state_rows();
            if !same {
                return Err(format!("epoch {number}: restored state went another way: {difference:?}"));
            }
        }
        oracle.contents.add_signed(&mut total, &output);
        check(&oracle, &total, &present(&oracle, &rows), format!("epoch {number}")).await?;
        if epoch.saved {
            let restored = oracle.restored(&mut circuit, Mode::View);
            if restored.state_rows() != circuit.state_rows() {
                return Err(format!("{} of {} rows were restored", restored.state_rows(), circuit.state_rows()));
            }
            original = Some(std::mem::replace(&mut circuit, restored));
        }
        if epoch.restart {
            original = None;
            circuit = oracle.circuit(Mode::View);
            circuit.set_clock(oracle.clock);
            total.clear();
            let output =
                circuit.step(&oracle.all(&present(&oracle, &rows), 1)).map_err(|e| format!("restart: {e:?}"))?;
            oracle.contents.add_signed(&mut total, &output);
            check(&oracle, &total, &present(&oracle, &rows), format!("restart after epoch {number}")).await?;
        }
    }
    if oracle.model.inputs.iter().any(|input| input.append_only) {
        return Ok(true);
    }
    let output =
        circuit.step(&oracle.all(&present(&oracle, &rows), -1)).map_err(|e| format!("retracting all: {e:?}"))?;
    oracle.contents.add_signed(&mut total, &output);
    check(&oracle, &total, &vec![vec![]; oracle.tables.len()], "all retracted".into()).await?;
    // Not nothing: a global aggregate of no rows has a row, and what stands above may remember it.
    let mut fresh = oracle.circuit(Mode::View);
    fresh.step(&vec![vec![]; oracle.tables.len()]).map_err(|e| format!("no input: {e:?}"))?;
    if circuit.state_rows() != fresh.state_rows() {
        return Err(format!("state is left: {:#?}", circuit.metrics()));
    }
    Ok(true)
}

pub fn negated(batches: Vec<SignedBatch>) -> Vec<SignedBatch> {
    let negate = |batch: SignedBatch| {
        let weights: Vec<i64> = (0..batch.num_rows()).map(|i| -batch.weight(i)).collect();
        SignedBatch::new(batch.rows, weights.into()).unwrap()
    };
    batches.into_iter().map(negate).collect()
}

/// Runs cases, shrinks and prints those that fail; their seeds, and how many queries were maintained.
pub fn failing(cases: impl Iterator<Item = Case>) -> (Vec<u64>, usize) {
    let (mut failed, mut maintained) = (Vec::new(), 0);
    for case in cases {
        let seed = case.seed;
        match outcome(&case, Multiset::eq) {
            Ok(incremental) => maintained += usize::from(incremental),
            Err(_) => {
                let (case, failure) = smallest(case, Multiset::eq);
                println!("seed {seed} fails: {failure}\nThe script:\n{case}");
                failed.push(seed);
            }
        }
    }
    (failed, maintained)
}

/// [`run`] with panics as failures.
fn outcome(case: &Case, equal: Equal) -> Result<bool, String> {
    let one = || tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(case, equal));
    catch_unwind(AssertUnwindSafe(one)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default())
    })
}

/// The smallest case that fails as this one does, and how.
fn smallest(case: Case, equal: Equal) -> (Case, String) {
    let case = shrink(case, 600, |c| outcome(c, equal).is_err());
    let failure = outcome(&case, equal).unwrap_err();
    (case, failure)
}

/// The seeds to run.
pub fn seeds(ordinary: &str) -> std::ops::Range<u64> {
    let seeds = std::env::var("SMELT_ORACLE_SEEDS").unwrap_or_else(|_| ordinary.into());
    let (from, to) = seeds.split_once("..").unwrap();
    from.parse().unwrap()..to.parse().unwrap()
}

/// Runs the cases of these seeds, two at a time; how many were maintained.
fn run_all(seeds: std::ops::Range<u64>, case: fn(u64) -> Case) -> u64 {
    let count = seeds.end - seeds.start;
    let every_other = |first: u64| failing((seeds.start + first..seeds.end).step_by(2).map(case));
    let (mut failed, maintained) = std::thread::scope(|scope| {
        let other = scope.spawn(|| every_other(1));
        let (mut failed, maintained) = every_other(0);
        let (more, also) = other.join().unwrap();
        failed.extend(more);
        (failed, maintained + also)
    });
    failed.sort_unstable();
    println!("{maintained} of {count} queries were maintained");
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
    maintained as u64
}

#[test]
fn views_equal_their_query_after_every_epoch() {
    if let Ok(script) = std::env::var("SMELT_ORACLE_SCRIPT") {
        let case = Case::parse(&std::fs::read_to_string(script).unwrap());
        return outcome(&case, Multiset::eq).map(|_| ()).unwrap_or_else(|failure| panic!("{failure}"));
    }
    let seeds = seeds("0..2000");
    let count = seeds.end - seeds.start;
    let maintained = run_all(seeds, Case::random);
    assert!(maintained * 10 >= count * 7, "only {maintained} of {count} queries were maintained");
}

#[test]
fn rows_come_and_go_with_the_clock() {
    let seeds = seeds("0..60");
    let count = seeds.end - seeds.start;
    assert_eq!(run_all(seeds, Case::over_time), count, "all are maintained");
}

#[test]
fn what_is_read_twice_is_computed_once_and_equal() {
    let seeds = seeds("0..200");
    let count = seeds.end - seeds.start;
    let maintained = run_all(seeds, Case::shared);
    assert!(maintained * 10 >= count * 7, "only {maintained} of {count} queries were maintained");
}

#[test]
fn chains_of_joins_are_right_in_whatever_order() {
    let seeds = seeds("0..120");
    let count = seeds.end - seeds.start;
    assert_eq!(run_all(seeds, Case::chain), count, "all are maintained");
}

#[test]
fn subqueries_over_lists_of_a_row_are_maintained() {
    let seeds = seeds("0..120");
    let count = seeds.end - seeds.start;
    assert_eq!(run_all(seeds, Case::over_lists), count, "all are maintained");
}

#[test]
fn correlated_subqueries_are_maintained() {
    let seeds = seeds("0..100");
    let count = seeds.end - seeds.start;
    assert_eq!(run_all(seeds, Case::correlated), count, "all are maintained");
}

#[test]
fn sessions_are_those_of_stock_window_functions() {
    let seeds = seeds("0..200");
    let count = seeds.end - seeds.start;
    let maintained = run_all(seeds, Case::sessions);
    assert!(maintained * 10 >= count * 9, "only {maintained} of {count} queries were maintained");
}

#[test]
fn window_functions_go_on_from_where_they_stood() {
    let seeds = seeds("0..200");
    let count = seeds.end - seeds.start;
    let maintained = run_all(seeds, Case::running);
    assert!(maintained * 10 >= count * 9, "only {maintained} of {count} queries were maintained");
}

#[test]
fn a_failing_case_is_made_small_and_its_script_replays_it() {
    // Wrong on purpose: three rows are said to be a difference.
    let wrong: Equal = |maintained, _| maintained.values().sum::<i64>() < 3;
    let mut case = Case::random(3);
    while case.epochs.iter().flat_map(|e| &e.changes).filter(|c| c.table == "t").count() < 20 {
        case = Case::random(case.seed + 1);
    }
    case.sql = "select id from \"src\".\"t\" as t".into();
    outcome(&case, Multiset::eq).unwrap();
    let (small, failure) = smallest(case, wrong);
    let changes: Vec<_> = small.epochs.iter().flat_map(|e| &e.changes).collect();
    assert_eq!(small.epochs.len(), 1, "{small}");
    assert_eq!(changes.iter().map(|c| c.weight).sum::<i64>(), 3, "{small}");
    assert!(changes.iter().all(|c| c.weight > 0 && c.table == "t"), "{small}");
    let replayed = Case::parse(&small.to_string());
    assert_eq!(replayed.to_string(), small.to_string());
    assert_eq!(outcome(&replayed, wrong).unwrap_err(), failure);
    outcome(&replayed, Multiset::eq).unwrap();
}

#[test]
fn what_expressions_make_of_floats_is_one_zero_and_one_nan() {
    let queries = [
        r#"select -f as x, count(*) as n from "src"."t" as t group by -f"#,
        r#"select distinct f * -1 as x from "src"."t" as t"#,
        r#"select count(distinct -f) as n, median(-f) as m, array_agg(distinct -f) as l from "src"."t" as t"#,
        r#"select a.id as x, b.id as y from "src"."t" as a join "src"."t" as b on a.f = -b.f"#,
        r#"select id from "src"."t" as t where -f = 0 or ceil(f) = 0 or f * 0 = f * 0"#,
        r#"select id, rank() over (order by -f) as r, first_value(id) over (order by f * -1) as i from "src"."t" as t"#,
        r#"select f - f as x, min(-f) as lo, max(round(-f)) as hi from "src"."t" as t group by f - f"#,
    ];
    for sql in queries {
        let case = |seed: u64| Case::of(seed, sql.into(), &mut ChaCha8Rng::seed_from_u64(seed));
        let (failed, maintained) = failing((0..8).map(case));
        assert_eq!((failed, maintained), (vec![], 8), "{sql}");
    }
}

#[test]
fn columns_of_one_name_are_told_apart_when_filters_move() {
    let sql = r#"select r3.d as x, r2.li as y, r1.d as z from "src"."t" as r1
        left join "src"."t" as r2 on r1.d = cast(r2.d + r2.d as decimal(10,2)) and date_trunc('day', r1.ts) = r2.ts
        right join "src"."t" as r3 on r1.b = r3.b and r1.id <= r3.id + 1
        right join "src"."a" as r4 on r1.id = nullif(r4.k1, 2) and r1.id <= r4.av + 1
        where r3.id in (1, 2, 5) and (r1.li[1] < 2 or r3.li[1] < 2)"#;
    let case = |seed: u64| Case::of(seed, sql.into(), &mut ChaCha8Rng::seed_from_u64(seed));
    assert_eq!(failing((0..40).map(case)), (vec![], 40));
}

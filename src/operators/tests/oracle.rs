//! The oracle: random queries over random tables under random signed changes. After every epoch the sum of all output is the
//! multiset that stock DataFusion computes from the accumulated input by the same rewritten plan.
//!
//! `SMELT_ORACLE_SEEDS=a..b` runs other seeds. A failure names its seed and its SQL.

#![allow(clippy::disallowed_methods)]

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::queries::Generator;
use super::tables::{Row, TABLES, Table, batch, change, signed_batch};
use crate::operators::{Circuit, Mode};
use crate::plan::stored::to_stored;
use crate::plan::{CompiledModel, Input, Planner, PlannerOptions, Relation, compile};
use crate::project::*;
use crate::state::RowCodec;
use crate::types::{Catalog, SignedBatch};

struct NoTables;

impl Catalog for NoTables {
    fn table_schema(&self, _: &str, _: &str) -> Option<SchemaRef> {
        None
    }
}

/// A view of `sql` over the tables as signed changelogs.
pub fn compiled(sql: &str) -> Arc<CompiledModel> {
    let span = || crate::error::Span { file: "m.yml".into(), line: 1, column: 1, width: 1, text: String::new() };
    let source = |t: &Table| SourceTable {
        source: "src".into(),
        name: t.name.into(),
        description: None,
        connector: Connector::Files(FilesConfig { path: "/data".into(), options: BTreeMap::new() }),
        format: Format::DebeziumJson,
        columns: t
            .columns
            .iter()
            .map(|(name, kind)| Column {
                name: (*name).into(),
                data_type: Some(kind.sql().into()),
                format: None,
                description: None,
                span: span(),
            })
            .collect(),
        include: vec![],
        rescued_data: None,
        on_error: OnError::DeadLetter,
        primary_key: vec![],
        watermark: None,
        span: span(),
    };
    let model = Model {
        name: "v".into(),
        unique_id: "model.test.v".into(),
        schema: "m".into(),
        alias: "v".into(),
        path: "queries/v.sql".into(),
        materialized: Materialization::MaterializedView,
        sql: sql.into(),
        source_map: SourceMap::verbatim("queries/v.sql".into(), sql),
        depends_on: TABLES.iter().map(|t| Dependency::Source("src".into(), t.name.into())).collect(),
        config: ModelConfig { enabled: true, ..ModelConfig::default() },
        expectations: vec![],
        columns: vec![],
        tags: vec![],
        description: None,
    };
    let project = Project {
        name: "test".into(),
        dir: "/project".into(),
        dialect: Dialect::DataFusion,
        target: Target {
            name: "dev".into(),
            lake: "/lake".into(),
            commit_interval: Duration::from_secs(1),
            epoch_max_rows: 1000,
            epoch_max_files: 10,
            heartbeat: Duration::from_secs(600),
            deleted_file_retention: Duration::from_secs(3600),
            log_retention: Duration::from_secs(86400),
            fsync: false,
            memory_limit: None,
            threads: 1,
            connections: BTreeMap::new(),
        },
        sources: TABLES.iter().map(|t| Arc::new(source(t))).collect(),
        models: vec![Arc::new(model)],
        tests: vec![],
        warnings: vec![],
    };
    match compile(&project, &NoTables) {
        Ok(compilation) => Arc::clone(&compilation.models[0]),
        Err(errors) => panic!("{sql}\n{errors:#?}"),
    }
}

/// Row bytes → weight.
pub type Multiset = BTreeMap<Vec<u8>, i64>;

pub struct Oracle {
    pub model: Arc<CompiledModel>,
    pub planner: Planner,
    codec: RowCodec,
    /// Per input of the model, its table.
    pub tables: Vec<&'static Table>,
}

impl Oracle {
    pub fn new(sql: &str) -> Self {
        Self::within(sql, None)
    }

    /// With this much memory for state and bulk plans.
    pub fn within(sql: &str, memory_limit: Option<usize>) -> Self {
        let model = compiled(sql);
        let tables = model.inputs.iter().map(|i| match &i.relation {
            Relation::Source(_, name) => TABLES.iter().find(|t| t.name == name).unwrap(),
            other => panic!("{other}"),
        });
        Oracle {
            planner: Planner::new(PlannerOptions {
                // Aggregation in one phase or in two, with merged states.
                target_partitions: if sql.len().is_multiple_of(2) { 1 } else { 3 },
                memory_limit,
                ..PlannerOptions::new(Dialect::DataFusion)
            })
            .unwrap(),
            codec: RowCodec::new(model.schema.fields().iter().map(|f| f.data_type().clone())).unwrap(),
            tables: tables.collect(),
            model,
        }
    }

    pub fn circuit(&self, mode: Mode) -> Circuit {
        Circuit::new("v", self.model.incremental.as_ref().unwrap(), mode, self.planner.session_state()).unwrap()
    }

    pub fn add(&self, total: &mut Multiset, rows: &RecordBatch, weight: impl Fn(usize) -> i64) {
        let rows = to_stored(rows, &self.model.schema).unwrap();
        let encoded = self.codec.encode(rows.columns(), rows.num_rows()).unwrap();
        for i in 0..rows.num_rows() {
            let entry = total.entry(encoded.row(i).to_vec()).or_default();
            *entry += weight(i);
        }
        total.retain(|_, w| *w != 0);
    }

    pub fn add_signed(&self, total: &mut Multiset, change: &[SignedBatch]) {
        change.iter().for_each(|b| self.add(total, &b.rows, |i| b.weight(i)));
    }

    /// The view, computed from nothing.
    pub async fn expected(&self, rows: &[Vec<Row>]) -> Multiset {
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
        let plan = self.planner.bind(&self.model, &providers).unwrap();
        let collected = match self.planner.execute(&plan).await {
            Ok(stream) => stream.try_collect::<Vec<RecordBatch>>().await.map_err(crate::error::Error::from),
            Err(error) => Err(error),
        };
        let batches = match collected {
            Ok(batches) => batches,
            Err(error) => panic!("{error:?}\n{}", self.model.model.sql),
        };
        let mut total = Multiset::new();
        batches.iter().for_each(|b| self.add(&mut total, b, |_| 1));
        total
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

    /// Both multisets, readable.
    pub fn difference(&self, got: &Multiset, expected: &Multiset) -> String {
        let shown = |set: &Multiset, other: &Multiset| {
            let only: Vec<(&Vec<u8>, &i64)> = set.iter().filter(|(r, w)| other.get(*r) != Some(*w)).collect();
            let columns = self.codec.decode(only.iter().map(|(r, _)| r.as_slice())).unwrap();
            let rows = RecordBatch::try_new(Arc::clone(&self.model.schema), columns).unwrap();
            let weights: Vec<i64> = only.iter().map(|(_, w)| **w).collect();
            format!("weights {weights:?}\n{}", arrow::util::pretty::pretty_format_batches(&[rows]).unwrap())
        };
        format!("maintained {}\nexpected {}", shown(got, expected), shown(expected, got))
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

/// One seed; whether the query was maintained.
async fn run(seed: u64) -> bool {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let depth = rng.random_range(0..3);
    let sql = Generator::new(&mut rng).query(depth).sql;
    let oracle = Oracle::new(&sql);
    if let Err(fallback) = &oracle.model.incremental {
        if std::env::var("SMELT_ORACLE_SEEDS").is_ok() {
            println!("seed {seed}: {fallback}: {sql}");
        }
        return false;
    }
    let mut circuit = oracle.circuit(Mode::View);
    let mut rows: Vec<Vec<Row>> = vec![vec![]; oracle.tables.len()];
    let mut total = Multiset::new();
    let check = async |total: &Multiset, rows: &[Vec<Row>], what: String| {
        let expected = oracle.expected(rows).await;
        assert!(*total == expected, "seed {seed}, {what}\n{sql}\n{}", oracle.difference(total, &expected));
    };
    for epoch in 0..rng.random_range(3..12) {
        let inputs: Vec<Vec<SignedBatch>> = (0..rows.len())
            .map(|i| change(oracle.tables[i], &oracle.model.inputs[i].schema, &mut rows[i], &mut rng))
            .collect();
        let output = circuit.step(&inputs).unwrap_or_else(|e| panic!("seed {seed}, epoch {epoch}\n{sql}\n{e:?}"));
        oracle.add_signed(&mut total, &output);
        check(&total, &rows, format!("epoch {epoch}")).await;
        if rng.random_bool(0.15) {
            circuit = oracle.circuit(Mode::View);
            total.clear();
            let output = circuit.step(&oracle.all(&rows, 1)).unwrap();
            oracle.add_signed(&mut total, &output);
            check(&total, &rows, format!("restart after epoch {epoch}")).await;
        }
    }
    let output = circuit.step(&oracle.all(&rows, -1)).unwrap();
    rows.iter_mut().for_each(Vec::clear);
    oracle.add_signed(&mut total, &output);
    check(&total, &rows, "all retracted".into()).await;
    // Not nothing: a global aggregate of no rows has a row, and what stands above may remember it.
    let mut fresh = oracle.circuit(Mode::View);
    fresh.step(&vec![vec![]; rows.len()]).unwrap();
    assert_eq!(circuit.state_rows(), fresh.state_rows(), "seed {seed}: state is left\n{sql}\n{:#?}", circuit.metrics());
    true
}

#[test]
fn views_equal_their_query_after_every_epoch() {
    let seeds = std::env::var("SMELT_ORACLE_SEEDS").unwrap_or_else(|_| "0..120".into());
    let (from, to) = seeds.split_once("..").unwrap();
    let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
    let mut maintained = 0;
    let mut failed = Vec::new();
    for seed in from..to {
        let one = || tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(seed));
        match std::panic::catch_unwind(one) {
            Ok(incremental) => maintained += u64::from(incremental),
            Err(_) => failed.push(seed),
        }
    }
    println!("{maintained} of {} queries were maintained", to - from);
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
    assert!(maintained * 10 >= (to - from) * 7, "only {maintained} of {} queries were maintained", to - from);
}

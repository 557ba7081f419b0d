//! Incremental models against their definition: random loads, every strategy, runs killed anywhere and repeated for the same instant.
//!
//! The reference is the definition itself, as loops over rows: what dbt's MERGE, DELETE and INSERT statements do to a table.
//! `SMELT_INCREMENTAL_SEEDS=a..b` runs other seeds.

#![allow(clippy::disallowed_methods)]

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::env::{CRASH_ENV, Env, FaultPlan, FaultyStore};
use crate::lake::Lake;
use crate::operators::tests::project::{NoTables, model, project, span};
use crate::plan::compile;
use crate::project::*;
use crate::runtime::pipeline::lake_options;
use crate::runtime::{Options, Runner, Runs};

/// `id, part, n, load`; a part may be missing.
type Row = (i64, Option<String>, i64, i64);

const LOADED: &str = "select id, part, n, load from \"m\".\"bronze\"";
const POINTS: [&str; 6] =
    ["after-upload", "after-uploads", "before-log-put", "after-log-put", "before-epochs-row", "after-epochs-row"];

fn strategies() -> Vec<(&'static str, IncrementalConfig)> {
    let config = |key: &[&str], strategy: IncrementalStrategy, updates: MergeColumns| IncrementalConfig {
        unique_key: key.iter().map(ToString::to_string).collect(),
        strategy,
        on_schema_change: OnSchemaChange::Fail,
        updates,
        predicates: Vec::new(),
        span: span(),
    };
    let all = || MergeColumns::All;
    vec![
        ("append", config(&[], IncrementalStrategy::Append, all())),
        ("merge", config(&["id"], IncrementalStrategy::Merge, all())),
        ("merge n", config(&["id"], IncrementalStrategy::Merge, MergeColumns::Only(vec!["n".into()]))),
        ("merge two", config(&["id", "part"], IncrementalStrategy::Merge, MergeColumns::Except(vec!["load".into()]))),
        ("delete", config(&["id"], IncrementalStrategy::DeleteInsert, all())),
        ("overwrite", config(&[], IncrementalStrategy::InsertOverwrite, all())),
    ]
}

/// What a run with `rows` makes of `table`; the first one is an INSERT.
fn reference(strategy: &str, table: &[Row], rows: &[Row], first: bool) -> Vec<Row> {
    let mut held = table.to_vec();
    let same = |a: &Row, b: &Row| match strategy {
        "merge two" => a.0 == b.0 && a.1.is_some() && a.1 == b.1,
        "overwrite" => a.1 == b.1,
        _ => a.0 == b.0,
    };
    if first || strategy == "append" {
        held.extend_from_slice(rows);
        return held;
    }
    if matches!(strategy, "delete" | "overwrite") {
        held.retain(|row| !rows.iter().any(|new| same(row, new)));
        held.extend_from_slice(rows);
        return held;
    }
    for new in rows {
        let mut found = false;
        for row in held.iter_mut().take(table.len()).filter(|row| same(row, new)) {
            found = true;
            match strategy {
                "merge" => *row = new.clone(),
                "merge n" => row.2 = new.2,
                _ => row.2 = new.2,
            }
        }
        if !found {
            held.push(new.clone());
        }
    }
    held
}

struct Shop {
    store: FaultyStore,
    rng: ChaCha8Rng,
    now: i64,
    starts: u64,
}

impl Shop {
    fn compiled(&self, config: &IncrementalConfig, partitioned: bool) -> (Arc<Project>, Arc<crate::plan::Compilation>) {
        let column = |name: &str, data_type: &str| Column {
            name: name.into(),
            data_type: Some(data_type.into()),
            format: None,
            description: None,
            span: span(),
        };
        let columns =
            vec![column("id", "BIGINT"), column("part", "STRING"), column("n", "BIGINT"), column("load", "BIGINT")];
        let source = SourceTable {
            connector: Connector::Files(FilesConfig { path: "memory://in/*.json".into(), options: BTreeMap::new() }),
            columns,
            ..crate::operators::tests::project::source(
                "raw",
                &crate::operators::tests::tables::TABLES[0],
                "memory://in",
                Format::Json,
                &[],
            )
        };
        let name = source.name.clone();
        let bronze = model(
            "m",
            "bronze",
            &format!("select * from \"raw\".\"{name}\""),
            Materialization::StreamingTable,
            vec![Dependency::Source("raw".into(), name)],
        );
        let of = |name: &str| vec![Dependency::Model(name.into())];
        let mut loaded = model("m", "loaded", LOADED, Materialization::Incremental, of("bronze"));
        let again = format!("{LOADED} where load > (select coalesce(max(load), -1) from \"m\".\"newest\")");
        loaded.depends_on.push(Dependency::Model("newest".into()));
        loaded.rerun =
            Some(Query { source_map: SourceMap::verbatim("queries/loaded.sql".into(), again.as_str()), sql: again });
        loaded.config.incremental = Some(config.clone());
        if partitioned {
            loaded.config.partition_by = vec!["part".into()];
        }
        // The load before this one: what the run before has seen.
        let newest = model(
            "m",
            "newest",
            "select max(load) - 1 as load from \"m\".\"bronze\"",
            Materialization::MaterializedView,
            of("bronze"),
        );
        let reader = model(
            "m",
            "reader",
            "select part, count(*) as c, sum(n) as n from \"m\".\"loaded\" group by part",
            Materialization::MaterializedView,
            of("loaded"),
        );
        let project = project("memory://lake", vec![source], vec![bronze, newest, loaded, reader]);
        let compilation = compile(&project, &NoTables, &crate::plan::stopped())
            .map_err(|e| e.iter().map(|e| e.render()).collect::<String>())
            .unwrap();
        (Arc::new(project), Arc::new(compilation))
    }

    /// Rows of load `number`; their ids (with their parts, for a key of two) are different, unless `twice` allows the same.
    fn rows(&mut self, number: i64, twice: bool) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        let mut ids = BTreeSet::new();
        for _ in 0..self.rng.random_range(0..12) {
            let id = self.rng.random_range(0..15);
            let part = match self.rng.random_range(0..5) {
                0 => None,
                part => Some(format!("p{part}")),
            };
            if ids.insert(id) || twice {
                rows.push((id, part, self.rng.random_range(0..100), number));
            }
        }
        rows
    }

    async fn write(&self, number: i64, rows: &[Row]) {
        let lines = rows.iter().map(|(id, part, n, load)| {
            let part = part.as_ref().map_or("null".to_string(), |p| format!("\"{p}\""));
            format!("{{\"id\": {id}, \"part\": {part}, \"n\": {n}, \"load\": {load}}}\n")
        });
        self.store.put(&format!("in/{number:04}.json").into(), lines.collect::<String>().into()).await.unwrap();
    }

    async fn held(&self, project: &Project, table: &str) -> Vec<String> {
        let env = Env::simulated(99, self.now, BTreeMap::new(), self.store.clone());
        let lake = Lake::open(&env, "memory://lake", lake_options(project)).unwrap();
        let table = lake.table("m", table).await.unwrap().unwrap();
        let batches: Vec<_> = table.committed_snapshot().rows().try_collect().await.unwrap();
        let mut rows = Vec::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let cells = batch.columns().iter().map(|column| match column.is_null(row) {
                    true => "-".to_string(),
                    false => arrow::util::display::array_value_to_string(column, row).unwrap(),
                });
                rows.push(cells.collect::<Vec<_>>().join(" "));
            }
        }
        rows.sort();
        rows
    }
}

fn shown(rows: &[Row]) -> Vec<String> {
    let part = |part: &Option<String>| part.clone().unwrap_or("-".into());
    let mut rows: Vec<String> = rows.iter().map(|(id, p, n, load)| format!("{id} {} {n} {load}", part(p))).collect();
    rows.sort();
    rows
}

fn summed(rows: &[Row]) -> Vec<String> {
    let mut parts: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for (_, part, n, _) in rows {
        let sum = parts.entry(part.clone().unwrap_or("-".into())).or_default();
        *sum = (sum.0 + 1, sum.1 + n);
    }
    let mut rows: Vec<String> = parts.into_iter().map(|(part, (c, n))| format!("{part} {c} {n}")).collect();
    rows.sort();
    rows
}

async fn history(seed: u64, name: &str, config: &IncrementalConfig) {
    let partitioned = name == "overwrite" || seed.is_multiple_of(3);
    let rng = ChaCha8Rng::seed_from_u64(seed);
    let now = Env::real().now_micros();
    let mut shop = Shop { store: FaultyStore::new(FaultPlan::default()), rng, now, starts: 0 };
    let (project, compilation) = shop.compiled(config, partitioned);
    let mut table: Vec<Row> = Vec::new();
    let mut all: Vec<Row> = Vec::new();
    let mut ran = false;
    for round in 0..8 {
        let rows = shop.rows(round, matches!(name, "append" | "delete" | "overwrite"));
        shop.write(round, &rows).await;
        all.extend(rows.clone());
        // An empty load leaves `newest` where it is: the load before it comes once more, as the query says.
        let newest = all.iter().map(|r| r.3).max().map_or(-1, |load| load - 1);
        let full = ran && shop.rng.random_range(0..6) == 0;
        let found: Vec<Row> = match ran && !full {
            true => all.iter().filter(|r| r.3 > newest).cloned().collect(),
            false => all.clone(),
        };
        let before = if full { &[][..] } else { &table[..] };
        let expected = reference(name, before, &found, !ran || full);
        ran |= !found.is_empty();
        shop.now += 3_600_000_000;
        let planned = shop.now;
        loop {
            shop.starts += 1;
            let crash = (shop.rng.random_range(0..3) > 0)
                .then(|| format!("{}:{}", POINTS[shop.rng.random_range(0..6)], shop.rng.random_range(1..8)));
            let vars = crash.map(|point| (CRASH_ENV.to_string(), point)).into_iter().collect();
            let runner = Runner {
                env: Env::simulated(seed * 1000 + shop.starts, shop.now, vars, shop.store.clone()),
                project: Arc::clone(&project),
                compilation: Arc::clone(&compilation),
                options: Options {
                    runs: Runs::All { planned: Some(planned) },
                    full_refresh: full,
                    ..Options::default()
                },
                watcher: Arc::new(|_| ()),
            };
            let ended = runner.run().await;
            shop.now += 60_000_000;
            match ended {
                Ok(summary) if summary.parked.is_empty() => break,
                // A simulated crash may also be caught by the model it hits.
                _ => continue,
            }
        }
        table = expected;
        let at = format!("{name}, seed {seed}, round {round}");
        assert_eq!(shop.held(&project, "loaded").await, shown(&table), "{at}");
        assert_eq!(shop.held(&project, "reader").await, summed(&table), "{at}: what reads it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_strategy_is_its_definition_whatever_is_killed() {
    let range = std::env::var("SMELT_INCREMENTAL_SEEDS").unwrap_or_else(|_| "0..6".into());
    let (from, to) = range.split_once("..").expect("SMELT_INCREMENTAL_SEEDS=a..b");
    let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
    for seed in from..to {
        for (name, config) in strategies() {
            history(seed, name, &config).await;
        }
    }
}

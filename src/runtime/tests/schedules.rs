//! Snapshots and tables at their times, with a clock that the test holds: missed, failing, retried, never overlapping, and
//! killed on the way.

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::world::read_all;
use crate::env::{CRASH_ENV, Env, FaultPlan, FaultyStore};
use crate::lake::Lake;
use crate::operators::tests::project::{NoTables, model, project, span};
use crate::plan::{Compilation, compile};
use crate::project::*;
use crate::runtime::compute::EpochRuns;
use crate::runtime::pipeline::{Pipeline, lake_options};
use crate::runtime::{EpochReport, Options, Runs, instance};

const MINUTE: i64 = 60_000_000;

fn every(minutes: u64) -> Schedule {
    Schedule { when: When::Every(Duration::from_secs(60 * minutes)), retries: 2, retry_delay: Duration::from_secs(60) }
}

/// Users as loads of `id, city, ratio`; their newest load; its snapshot; the current versions; a table made every ten minutes.
fn compiled(schedule: Schedule) -> (Arc<Project>, Compilation) {
    let column = |name: &str, data_type: &str| Column {
        name: name.into(),
        data_type: Some(data_type.into()),
        format: None,
        description: None,
        span: span(),
    };
    let source = SourceTable {
        source: "raw".into(),
        name: "users".into(),
        unique_id: "source.test.raw.users".into(),
        package: "test".into(),
        fqn: vec!["test".into(), "raw".into(), "users".into()],
        description: None,
        connector: Connector::Files(FilesConfig { path: "memory://in/*.json".into(), options: BTreeMap::new() }),
        format: Format::Json,
        columns: vec![column("id", "BIGINT"), column("city", "STRING"), column("ratio", "BIGINT")],
        include: vec![(Include::Partition, "load".into())],
        rescued_data: None,
        on_error: OnError::DeadLetter,
        primary_key: vec![],
        watermark: None,
        freshness: None,
        event_time: None,
        span: span(),
    };
    let of = |name: &str| Dependency::Model(name.into());
    let bronze = model(
        "m",
        "bronze",
        "select * from \"raw\".\"users\"",
        Materialization::StreamingTable,
        vec![Dependency::Source("raw".into(), "users".into())],
    );
    let users = model(
        "m",
        "users",
        "select id, city, ratio from \"m\".\"bronze\" where true qualify row_number() over (partition by id order by load desc) = 1",
        Materialization::MaterializedView,
        vec![of("bronze")],
    );
    // A ratio of zero makes the query fail.
    let mut snapshot = model(
        "m",
        "history",
        "select id, city, 100 / ratio as share from \"m\".\"users\"",
        Materialization::Snapshot,
        vec![of("users")],
    );
    snapshot.config.schedule = Some(schedule);
    snapshot.config.snapshot = Some(SnapshotConfig {
        unique_key: vec!["id".into()],
        strategy: SnapshotStrategy::Check(vec!["city".into()]),
        hard_deletes: HardDeletes::Ignore,
        columns: SnapshotColumns::default(),
        valid_to_current: None,
        span: span(),
    });
    let dim = model(
        "m",
        "dim",
        "select id, city from \"m\".\"history\" where dbt_valid_to is null",
        Materialization::MaterializedView,
        vec![of("history")],
    );
    let mut total =
        model("m", "total", "select count(*) as n from \"m\".\"users\"", Materialization::Table, vec![of("users")]);
    total.config.schedule = Some(every(10));
    let project = project("memory://lake", vec![source], vec![bronze, users, snapshot, dim, total]);
    let compilation = compile(&project, &NoTables, &crate::plan::stopped())
        .map_err(|e| e.iter().map(|e| e.render()).collect::<String>())
        .unwrap();
    (Arc::new(project), compilation)
}

struct Clock {
    store: FaultyStore,
    project: Arc<Project>,
    compilation: Compilation,
    now: i64,
    starts: u64,
    loads: u64,
}

impl Clock {
    fn new(schedule: Schedule) -> Self {
        let (project, compilation) = compiled(schedule);
        Clock {
            store: FaultyStore::new(FaultPlan::default()),
            project,
            compilation,
            // A full hour.
            now: 1_768_183_200_000_000,
            starts: 0,
            loads: 0,
        }
    }

    /// A load of `id city ratio`, separated by commas.
    async fn load(&mut self, rows: &str) {
        self.loads += 1;
        let lines = rows.split(',').map(|row| {
            let mut parts = row.split_whitespace();
            let mut next = || parts.next().unwrap();
            format!("{{\"id\": {}, \"city\": \"{}\", \"ratio\": {}}}\n", next(), next(), next())
        });
        let path = format!("in/{:04}.json", self.loads);
        self.store.put(&path.into(), lines.collect::<String>().into()).await.unwrap();
    }

    /// A process that starts `minutes` later, and has recovered.
    async fn start(&mut self, minutes: i64, crash: Option<&str>) -> (Env, Pipeline) {
        self.now += minutes * MINUTE;
        self.starts += 1;
        let vars = crash.map(|point| (CRASH_ENV.to_string(), point.to_string())).into_iter().collect();
        let env = Env::simulated(self.starts, self.now, vars, self.store.clone());
        let lake = Lake::open(&env, &self.project.target.lake, lake_options(&self.project)).unwrap();
        let instance = instance::claim(&env, &lake, true).await.unwrap().number;
        let options = Options { runs: Runs::Scheduled, ..Options::default() };
        let (project, none) = (Arc::clone(&self.project), BTreeSet::new());
        let mut pipeline =
            Pipeline::open(&env, project, &self.compilation, options, lake, instance, &none).await.unwrap();
        pipeline.run_epoch(HashMap::new(), EpochRuns::None, true).await.unwrap();
        (env, pipeline)
    }

    /// One turn of the loop, `minutes` later.
    async fn turn(&mut self, env: &Env, pipeline: &mut Pipeline, minutes: i64) -> crate::error::Result<EpochReport> {
        env.advance(minutes * MINUTE);
        self.now += minutes * MINUTE;
        let read = read_all(pipeline).await?;
        pipeline.run_epoch(read, EpochRuns::Due, false).await
    }

    /// `id city from..to` of every version, in minutes since the clock's beginning; then what the dimension and the table hold.
    async fn held(&self) -> String {
        let env = Env::simulated(99, self.now, BTreeMap::new(), self.store.clone());
        let lake = Lake::open(&env, &self.project.target.lake, lake_options(&self.project)).unwrap();
        let mut lines = Vec::new();
        for name in ["history", "dim", "total"] {
            let table = lake.table("m", name).await.unwrap().unwrap();
            let rows: Vec<_> = table.committed_snapshot().rows().try_collect().await.unwrap();
            let mut of_table = Vec::new();
            for batch in rows {
                let text = |column: &str, row: usize| {
                    let column = batch.column_by_name(column).unwrap();
                    arrow::util::display::array_value_to_string(column, row).unwrap()
                };
                for row in 0..batch.num_rows() {
                    of_table.push(match name {
                        "history" => {
                            let minute = |column: &str| text(column, row).get(11..16).unwrap_or("").to_string();
                            format!(
                                "{} {} {}..{}",
                                text("id", row),
                                text("city", row),
                                minute("dbt_valid_from"),
                                minute("dbt_valid_to")
                            )
                        }
                        "dim" => format!("dim {} {}", text("id", row), text("city", row)),
                        _ => format!("total {}", text("n", row)),
                    });
                }
            }
            of_table.sort();
            lines.extend(of_table);
        }
        lines.join(", ")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_run_comes_with_the_first_rows_and_missed_ones_are_caught_up_once() {
    let mut clock = Clock::new(every(5));
    let (env, mut pipeline) = clock.start(2, None).await;
    clock.turn(&env, &mut pipeline, 0).await.unwrap();
    assert_eq!(clock.held().await, "total 0", "02:02: nothing is there");
    clock.load("1 Cairo 1,2 Giza 1").await;
    clock.turn(&env, &mut pipeline, 1).await.unwrap();
    let first = "1 Cairo 02:03.., 2 Giza 02:03.., dim 1 Cairo, dim 2 Giza, total 0";
    assert_eq!(clock.held().await, first);
    clock.load("1 Luxor 1,2 Giza 1,3 Aswan 1").await;
    clock.turn(&env, &mut pipeline, 1).await.unwrap();
    assert_eq!(clock.held().await, first, "02:04: not yet");
    clock.turn(&env, &mut pipeline, 1).await.unwrap();
    let second = "1 Cairo 02:03..02:05, 1 Luxor 02:05.., 2 Giza 02:03.., 3 Aswan 02:05.., dim 1 Luxor, dim 2 Giza, dim 3 Aswan, total 0";
    assert_eq!(clock.held().await, second);
    // Down for a while, and nobody asked at 02:10, 02:15 and 02:20: one run, for the last of them.
    drop(pipeline);
    clock.load("2 Edfu 1").await;
    let (env, mut pipeline) = clock.start(18, None).await;
    assert_eq!(clock.held().await, second, "recovery takes no snapshot");
    let report = clock.turn(&env, &mut pipeline, 0).await.unwrap();
    let runs: Vec<_> = report.models.iter().filter(|m| m.run.is_some()).map(|m| m.model.as_str()).collect();
    assert_eq!(runs, ["history", "total"]);
    let third = "1 Cairo 02:03..02:05, 1 Luxor 02:05.., 2 Edfu 02:20.., 2 Giza 02:03..02:20, 3 Aswan 02:05.., dim 1 Luxor, dim 2 Edfu, dim 3 Aswan, total 3";
    assert_eq!(clock.held().await, third);
    let report = clock.turn(&env, &mut pipeline, 1).await.unwrap();
    assert!(report.models.iter().all(|m| m.run.is_none()), "02:24: none is due");
    assert!(!pipeline.is_run_due());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_run_is_retried_for_its_instant_and_stops_nobody() {
    let mut clock = Clock::new(every(5));
    let (env, mut pipeline) = clock.start(1, None).await;
    clock.load("1 Cairo 1").await;
    clock.turn(&env, &mut pipeline, 0).await.unwrap();
    // Division by zero, at 02:05.
    clock.load("1 Luxor 0").await;
    clock.turn(&env, &mut pipeline, 4).await.unwrap();
    let [failed] = pipeline.failed_runs.as_slice() else { panic!("one run failed") };
    assert_eq!((failed.model.as_str(), failed.retry), ("history", Some(Duration::from_secs(60))));
    assert!(failed.error.render().to_lowercase().contains("zero"), "{}", failed.error.render());
    assert!(pipeline.nodes.iter().all(|n| n.parked.is_none()), "the others go on");
    assert_eq!(clock.held().await, "1 Cairo 02:01.., dim 1 Cairo, total 1");
    // First retry at 02:06 fails, the second at 02:08 finds other rows: its versions are those of 02:05.
    clock.turn(&env, &mut pipeline, 1).await.unwrap();
    assert_eq!(pipeline.failed_runs.len(), 2);
    clock.load("1 Luxor 2").await;
    clock.turn(&env, &mut pipeline, 1).await.unwrap();
    assert_eq!(clock.held().await, "1 Cairo 02:01.., dim 1 Cairo, total 1", "02:07: it waits for its retry");
    clock.turn(&env, &mut pipeline, 1).await.unwrap();
    assert_eq!(pipeline.failed_runs.len(), 2);
    assert_eq!(clock.held().await, "1 Cairo 02:01..02:05, 1 Luxor 02:05.., dim 1 Luxor, total 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_anywhere_is_done_once() {
    for point in
        ["after-upload", "after-uploads", "before-log-put", "after-log-put", "before-epochs-row", "after-epochs-row"]
    {
        for nth in 1..8 {
            let mut clock = Clock::new(every(5));
            let (env, mut pipeline) = clock.start(1, None).await;
            clock.load("1 Cairo 1,2 Giza 1").await;
            clock.turn(&env, &mut pipeline, 0).await.unwrap();
            drop(pipeline);
            clock.load("1 Luxor 1").await;
            // The recovery and its commits come first; then at 02:06 the run for 02:05.
            let crash = format!("{point}:{nth}");
            clock.now += 5 * MINUTE;
            let crashed = {
                let vars = BTreeMap::from([(CRASH_ENV.to_string(), crash.clone())]);
                let env = Env::simulated(50, clock.now, vars, clock.store.clone());
                run_until_crash(&clock, &env).await
            };
            let (env, mut pipeline) = clock.start(1, None).await;
            clock.turn(&env, &mut pipeline, 0).await.unwrap();
            assert_eq!(
                clock.held().await,
                "1 Cairo 02:01..02:05, 1 Luxor 02:05.., 2 Giza 02:01.., dim 1 Luxor, dim 2 Giza, total 2",
                "{crash}, crashed: {crashed}"
            );
        }
    }
}

async fn run_until_crash(clock: &Clock, env: &Env) -> bool {
    let run = async {
        let lake = Lake::open(env, &clock.project.target.lake, lake_options(&clock.project))?;
        let instance = instance::claim(env, &lake, true).await?.number;
        let options = Options { runs: Runs::Scheduled, ..Options::default() };
        let (project, none) = (Arc::clone(&clock.project), BTreeSet::new());
        let mut pipeline = Pipeline::open(env, project, &clock.compilation, options, lake, instance, &none).await?;
        pipeline.run_epoch(HashMap::new(), EpochRuns::None, true).await?;
        let read = read_all(&mut pipeline).await?;
        pipeline.run_epoch(read, EpochRuns::Due, false).await
    };
    run.await.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn continuous_follows_every_change() {
    let when = When::Continuous;
    let mut clock = Clock::new(Schedule { when, retries: 0, retry_delay: Duration::from_secs(1) });
    let (env, mut pipeline) = clock.start(1, None).await;
    clock.load("1 Cairo 1").await;
    clock.turn(&env, &mut pipeline, 0).await.unwrap();
    clock.load("1 Luxor 1").await;
    clock.turn(&env, &mut pipeline, 1).await.unwrap();
    clock.turn(&env, &mut pipeline, 1).await.unwrap();
    clock.load("1 Edfu 1").await;
    clock.turn(&env, &mut pipeline, 1).await.unwrap();
    let versions = "1 Cairo 02:01..02:02, 1 Edfu 02:04.., 1 Luxor 02:02..02:04, dim 1 Edfu, total 1";
    assert_eq!(clock.held().await, versions);
}

/// A process that is killed at `crash`: a turn for what is there, then one for each load.
async fn follow(clock: &mut Clock, crash: Option<&str>, loads: &mut Vec<&str>) -> crate::error::Result<()> {
    clock.now += MINUTE;
    clock.starts += 1;
    let vars = crash.map(|point| (CRASH_ENV.to_string(), point.to_string())).into_iter().collect();
    let env = Env::simulated(clock.starts, clock.now, vars, clock.store.clone());
    let lake = Lake::open(&env, &clock.project.target.lake, lake_options(&clock.project))?;
    let instance = instance::claim(&env, &lake, true).await?.number;
    let options = Options { runs: Runs::Scheduled, ..Options::default() };
    let (project, none) = (Arc::clone(&clock.project), BTreeSet::new());
    let mut pipeline = Pipeline::open(&env, project, &clock.compilation, options, lake, instance, &none).await?;
    pipeline.run_epoch(HashMap::new(), EpochRuns::None, true).await?;
    // An upload that is killed stops its model or fails its run: nothing goes on after that.
    let killed = |pipeline: &Pipeline| {
        let parked = pipeline.nodes.iter().find_map(|node| node.parked.clone());
        parked.or_else(|| pipeline.failed_runs.first().map(|failed| failed.error.clone())).map_or(Ok(()), Err)
    };
    clock.turn(&env, &mut pipeline, 1).await?;
    killed(&pipeline)?;
    while let Some(load) = loads.pop() {
        clock.load(load).await;
        let report = clock.turn(&env, &mut pipeline, 1).await?;
        killed(&pipeline)?;
        let history = report.models.iter().find(|m| m.model == "history").unwrap();
        assert_eq!(history.rows_in, 2, "one row goes and one comes, of three");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_continuous_snapshot_takes_the_changes_only_and_kills_lose_none() {
    let mut crashed = 0;
    for point in ["after-upload", "after-uploads", "before-log-put", "after-log-put", "before-epochs-row"] {
        for nth in [1, 2, 3, 4, 6, 8, 11, 14] {
            let schedule = Schedule { when: When::Continuous, retries: 0, retry_delay: Duration::from_secs(1) };
            let mut clock = Clock::new(schedule);
            clock.load("1 Cairo 1,2 Giza 1,3 Aswan 1").await;
            let mut loads = vec!["2 Qena 1", "1 Luxor 1", "2 Edfu 1"];
            let ended = follow(&mut clock, Some(&format!("{point}:{nth}")), &mut loads).await;
            crashed += usize::from(ended.is_err());
            follow(&mut clock, None, &mut loads).await.unwrap();
            let held = clock.held().await;
            let versions = held.split(", ").filter(|line| line.contains("..")).map(|line| {
                let (row, times) = line.rsplit_once(' ').unwrap();
                format!("{row}{}", if times.ends_with("..") { "" } else { " ended" })
            });
            assert_eq!(
                versions.collect::<Vec<_>>().join(", "),
                "1 Cairo ended, 1 Luxor, 2 Edfu ended, 2 Giza ended, 2 Qena, 3 Aswan",
                "{point}:{nth}: {held}"
            );
        }
    }
    assert!(crashed > 30, "{crashed}");
}

//! The oracle through the whole engine: random projects over changing files, with restarts, crashes, edits, compaction and
//! vacuum in between. After every epoch each table, read back from the lake, holds what stock DataFusion makes of its inputs.
//!
//! `SMELT_ORACLE_SEEDS=a..b` runs other seeds. A failing scenario is made smaller and printed as a script;
//! `SMELT_ORACLE_SCRIPT=file` replays one.

#![allow(clippy::disallowed_methods)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::scenario::Scenario;
use super::world::{Ended, World};
use crate::operators::tests::cases::Case;
use crate::operators::tests::shrink::shrink;
use crate::operators::tests::tables::Value;

/// Runs a scenario; a panic is a failure.
pub fn outcome(scenario: &Scenario) -> Result<Ended, String> {
    counted(scenario).map(|(ended, _)| ended)
}

/// The same, with how many models went on with stored state and how many were computed beside their tables.
pub fn counted(scenario: &Scenario) -> Result<(Ended, [usize; 2]), String> {
    lived(scenario).map(|(ended, world)| (ended, [world.restored, world.backfilled]))
}

/// The same, with the whole world.
pub fn lived(scenario: &Scenario) -> Result<(Ended, World), String> {
    let one = || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(scenario.clone())?;
            let ended = world.run().await?;
            Ok((ended, world))
        })
    };
    catch_unwind(AssertUnwindSafe(one)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default())
    })
}

#[test]
fn tables_equal_their_queries_through_restarts_crashes_and_lost_history() {
    if let Ok(script) = std::env::var("SMELT_ORACLE_SCRIPT") {
        let scenario = Scenario::parse(&std::fs::read_to_string(script).unwrap());
        return outcome(&scenario).map(|_| ()).unwrap_or_else(|failure| panic!("{failure}"));
    }
    let seeds = crate::operators::tests::oracle::seeds("48..72");
    let count = seeds.end - seeds.start;
    let (mut skipped, mut restored, mut backfilled, mut failed) = (0, 0, 0, Vec::new());
    for seed in seeds {
        match counted(&Scenario::random(seed)) {
            Ok((ended, [with_state, beside])) => {
                skipped += u64::from(ended == Ended::Skipped);
                restored += with_state as u64;
                backfilled += beside as u64;
            }
            Err(failure) => {
                println!("seed {seed} fails: {failure}");
                let small = shrink(Scenario::random(seed), 200, |s| outcome(s).is_err());
                println!("made small, it fails: {}\nThe script:\n{small}", outcome(&small).unwrap_err());
                failed.push(seed);
            }
        }
    }
    println!(
        "{restored} times a model went on with stored state, {backfilled} times one was computed beside its table"
    );
    assert!(backfilled * 4 >= count, "{backfilled} models were computed beside their tables in {count} scenarios");
    assert!(restored * 2 >= count, "stored state was used {restored} times in {count} scenarios");
    println!("{} of {count} scenarios ran to their end", count - skipped - failed.len() as u64);
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
    assert!(skipped * 4 <= count, "{skipped} of {count} hold a query that stock DataFusion cannot execute");
}

#[test]
fn what_views_forget_behind_a_watermark_does_not_show_in_their_tables() {
    if std::env::var("SMELT_ORACLE_SCRIPT").is_ok() {
        return;
    }
    let seeds = crate::operators::tests::oracle::seeds("0..20");
    let count = seeds.end - seeds.start;
    let (mut skipped, mut forgotten, mut remembered, mut failed) = (0, 0, 0, Vec::new());
    for seed in seeds {
        match lived(&Scenario::of_buckets(seed)) {
            Ok((ended, world)) => {
                skipped += u64::from(ended == Ended::Skipped);
                forgotten += world.forgotten.0;
                remembered += world.forgotten.1;
            }
            Err(failure) => {
                println!("seed {seed} fails: {failure}");
                let small = shrink(Scenario::of_buckets(seed), 200, |s| outcome(s).is_err());
                println!("made small, it fails: {}\nThe script:\n{small}", outcome(&small).unwrap_err());
                failed.push(seed);
            }
        }
    }
    println!("groups were forgotten {forgotten} times, {remembered} buckets were read again, in {count} scenarios");
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
    assert!(skipped * 4 <= count, "{skipped} of {count} hold a query that stock DataFusion cannot execute");
    // Of circuits that lived to the end of their round; how many buckets they need again depends on when tasks end.
    assert!(forgotten >= count && remembered * 4 >= count, "{forgotten} {remembered}");
}

/// How many queries of the engine's oracle are views of one project.
const TOGETHER: usize = 10;

#[test]
fn every_twentieth_query_of_the_engine_s_oracle_goes_through_lake_and_restart() {
    if std::env::var("SMELT_ORACLE_SCRIPT").is_ok() {
        return;
    }
    let seeds = crate::operators::tests::oracle::seeds("0..2000");
    let queries: Vec<(u64, String)> = seeds.step_by(20).map(|seed| (seed, Case::random(seed).sql)).collect();
    let different: std::collections::BTreeSet<&String> = queries.iter().map(|(_, sql)| sql).collect();
    assert!(
        different.len() * 100 >= queries.len() * 98,
        "only {} of {} queries differ",
        different.len(),
        queries.len()
    );
    let scenarios: Vec<Scenario> = queries
        .chunks(TOGETHER)
        .map(|some| {
            let queries: Vec<String> = some.iter().map(|(_, sql)| sql.clone()).collect();
            Scenario::of_queries(some[0].0, &queries)
        })
        .collect();
    let every_other = |first: usize| {
        let (mut restored, mut failed) = (0, Vec::new());
        for scenario in scenarios.iter().skip(first).step_by(2) {
            match counted(scenario) {
                Ok((Ended::Passed, [with_state, _])) => restored += with_state,
                Ok((Ended::Skipped, _)) => failed.push((scenario.seed, "stock DataFusion cannot".to_string())),
                Err(failure) => {
                    println!("seeds from {} fail: {failure}", scenario.seed);
                    let small = shrink(scenario.clone(), 200, |s| outcome(s).is_err());
                    println!("made small:\n{small}");
                    failed.push((scenario.seed, outcome(&small).unwrap_err()));
                }
            }
        }
        (restored, failed)
    };
    let (restored, failed) = std::thread::scope(|scope| {
        let other = scope.spawn(|| every_other(1));
        let (mut restored, mut failed) = every_other(0);
        let (more, also) = other.join().unwrap();
        restored += more;
        failed.extend(also);
        (restored, failed)
    });
    println!("{} queries, {restored} times one went on with stored state", queries.len());
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(restored * 2 >= queries.len(), "stored state was used {restored} times by {} queries", queries.len());
}

#[test]
fn a_failing_scenario_is_made_small_and_its_script_replays_it() {
    // Wrong on purpose: an event with id 1 is said to be a failure.
    let wrong = |s: &Scenario| {
        let mut changes = s.rounds.iter().flat_map(|r| &r.epochs).flatten();
        outcome(s).is_ok() && changes.any(|c| c.table == "e" && matches!(c.row.first(), Some(Value::Int(1))))
    };
    let scenario = (0..).map(Scenario::random).find(wrong).unwrap();
    let small = shrink(scenario, 200, wrong);
    let changes: Vec<_> = small.rounds.iter().flat_map(|r| &r.epochs).flatten().collect();
    assert_eq!((small.rounds.len(), changes.len()), (1, 1), "{small}");
    assert!(small.rounds[0].models.is_empty(), "{small}");
    let replayed = Scenario::parse(&small.to_string());
    assert_eq!(replayed.to_string(), small.to_string());
    assert!(wrong(&replayed));
}

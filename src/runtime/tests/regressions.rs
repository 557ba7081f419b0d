//! What the oracle has found, as scenarios of their own.

use super::oracle::outcome;
use super::scenario::{ModelKind, Round, Scenario, Upkeep, Written};
use super::world::Ended;
use crate::env::Fault;
use crate::operators::tests::changes::{Change, table};
use crate::operators::tests::tables::Value;

/// A row of table `name` with these integers first, NULL elsewhere.
fn ints(name: &str, values: &[i64], weight: i64) -> Change {
    let mut row: Vec<Value> = values.iter().map(|v| Value::Int(*v)).collect();
    row.resize(table(name).columns.len(), Value::Null);
    Change { table: name.into(), weight, cut: false, row }
}

fn written(name: &str, sql: &str, kind: ModelKind) -> Written {
    Written { name: name.into(), sql: sql.into(), kind, expectation: None }
}

fn passes(rounds: Vec<Round>) {
    assert_eq!(outcome(&Scenario { seed: 1, rounds, ..Scenario::default() }), Ok(Ended::Passed));
}

#[test]
fn an_upload_that_failed_is_not_committed_when_a_reader_asks_for_the_table_first() {
    // Recomputed in every epoch, so it reads the staged table and is the first to hear of the failure.
    let ranked = written("v1", "select id, rank() over (order by id) as r from \"src\".\"t\" as t", ModelKind::View);
    let insert = |id| ints("t", &[id], 1);
    let replaced = vec![ints("t", &[1], -1), insert(2)];
    // The first upload is the recovery's epochs row, the second the table's.
    for nth in 1..4 {
        passes(vec![
            Round { models: vec![ranked.clone()], epochs: vec![vec![insert(1)]], ..Round::default() },
            Round { epochs: vec![replaced.clone()], crash: Some(format!("after-upload:{nth}")), ..Round::default() },
            Round { epochs: vec![vec![insert(3)]], ..Round::default() },
        ]);
    }
}

#[test]
fn a_streaming_table_without_news_follows_its_upstream_through_restarts_and_vacuum() {
    let sql = "select e.id, a.an from stream \"src\".\"e\" as e left join \"src\".\"a\" as a on e.k1 = a.k1";
    let stream = written("enriched", sql, ModelKind::Enriched);
    let restart = || Round { upkeep: vec![Upkeep::Optimize, Upkeep::Vacuum], ..Round::default() };
    let events = |id| vec![ints("e", &[id, id], 1), ints("a", &[id], 1)];
    passes(vec![
        Round { models: vec![stream], epochs: vec![events(1), events(2)], ..Round::default() },
        restart(),
        restart(),
        restart(),
        Round { epochs: vec![events(3)], ..restart() },
    ]);
}

#[test]
fn a_streaming_table_that_a_crash_left_behind_catches_up_although_all_was_vacuumed() {
    let sql = "select e.id, a.an from stream \"src\".\"e\" as e left join \"src\".\"a\" as a on e.k1 = a.k1";
    let stream = written("enriched", sql, ModelKind::Enriched);
    let events = |id| vec![ints("e", &[id, id], 1), ints("a", &[id], 1)];
    let upkeep = vec![Upkeep::Optimize, Upkeep::Vacuum];
    for nth in [6, 7, 8, 9, 10, 11] {
        passes(vec![
            Round { models: vec![stream.clone()], epochs: vec![events(1), events(2)], ..Round::default() },
            Round { epochs: vec![events(3)], crash: Some(format!("after-log-put:{nth}")), ..Round::default() },
            Round { epochs: vec![events(4)], upkeep: upkeep.clone(), ..Round::default() },
        ]);
    }
}

#[test]
fn a_log_entry_that_lands_late_is_not_taken_for_another_smelt() {
    let total = written("v1", "select k1, count(*) as n from \"src\".\"t\" as t group by k1", ModelKind::View);
    let insert = |id| vec![ints("t", &[id, id % 2], 1)];
    // Landed though the caller saw an error; a few requests later; and so late that the run has restarted meanwhile.
    let sure = |fault| vec![fault; 3];
    let lost =
        || vec![Fault::Late(40), Fault::Error, Fault::Error, Fault::Error, Fault::Error, Fault::Error, Fault::Error];
    for faults in [sure(Fault::Timeout), sure(Fault::Late(0)), sure(Fault::Late(2)), lost()] {
        let driven = |epochs, faults| Round { epochs, driver: Some(1), faults, ..Round::default() };
        passes(vec![
            Round { models: vec![total.clone()], ..driven(vec![insert(1), insert(2)], vec![]) },
            driven(vec![insert(3), insert(4)], faults),
            driven(vec![insert(5)], vec![]),
        ]);
    }
}

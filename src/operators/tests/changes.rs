//! Random signed changes of tables, as data: they can be written down, replayed and made smaller.

use arrow::datatypes::SchemaRef;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::shrink::without_runs;
use super::tables::{Row, TABLES, Table, row, signed_batch, value};
use crate::types::SignedBatch;

/// A row of table `table` that comes (or goes) `weight` times; weight 0 is a record that cannot be read, for sources.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    pub table: String,
    pub weight: i64,
    /// A new batch (or file) begins here.
    pub cut: bool,
    pub row: Row,
}

pub fn table(name: &str) -> &'static Table {
    TABLES.iter().find(|t| t.name == name).unwrap()
}

/// Present rows of a table, each with how often it is there.
#[derive(Debug, Clone, Default)]
pub struct Rows(BTreeMap<String, (Row, i64)>);

impl Rows {
    pub fn apply(&mut self, row: &Row, weight: i64) {
        // Rows are equal when they read the same: NaN is NaN.
        let key = format!("{row:?}");
        self.0.entry(key.clone()).or_insert_with(|| (row.clone(), 0)).1 += weight;
        if self.0[&key].1 == 0 {
            self.0.remove(&key);
        }
    }

    /// Every row, as often as it is there.
    pub fn all(&self) -> Vec<&Row> {
        self.0.values().flat_map(|(row, count)| std::iter::repeat_n(row, usize::try_from(*count).unwrap())).collect()
    }

    fn any(&self, rng: &mut ChaCha8Rng) -> Option<Row> {
        let at = rng.random_range(0..self.0.len().max(1));
        self.0.values().nth(at).map(|(row, _)| row.clone())
    }
}

/// A random change of `table`, whose rows before it are `rows`: inserts, deletes, updates, duplicates, rows that come and go;
/// in random order, over several batches.
pub fn change(table: &Table, rows: Rows, rng: &mut ChaCha8Rng) -> Vec<Change> {
    let kind = rng.random_range(0..20);
    let mut signed = steps(table, rows, kind, rng);
    signed.shuffle(rng);
    cut(table, signed, rng)
}

/// The same in an order in which no row goes before it has come; with `append_only` none goes at all.
pub fn ordered_change(table: &Table, rows: Rows, append_only: bool, rng: &mut ChaCha8Rng) -> Vec<Change> {
    let kind = if append_only { rng.random_range(3..8) } else { rng.random_range(0..20) };
    let kind = if append_only && kind == 4 { 5 } else { kind };
    let signed = steps(table, rows, kind, rng);
    cut(table, signed, rng)
}

fn steps(table: &Table, mut rows: Rows, kind: u32, rng: &mut ChaCha8Rng) -> Vec<(Row, i64)> {
    let mut signed: Vec<(Row, i64)> = Vec::new();
    match kind {
        0..4 => {}
        4 => signed.extend(rows.0.into_values().map(|(row, count)| (row, -count))),
        kind => {
            for _ in 0..rng.random_range(0..12) {
                let before = signed.len();
                step(table, &rows, kind < 8, &mut signed, rng);
                signed[before..].iter().for_each(|(row, weight)| rows.apply(row, *weight));
            }
        }
    }
    signed
}

fn cut(table: &Table, signed: Vec<(Row, i64)>, rng: &mut ChaCha8Rng) -> Vec<Change> {
    let name = table.name.to_string();
    signed
        .into_iter()
        .map(|(row, weight)| Change { table: name.clone(), weight, cut: rng.random_bool(0.2), row })
        .collect()
}

fn step(table: &Table, rows: &Rows, append_only: bool, signed: &mut Vec<(Row, i64)>, rng: &mut ChaCha8Rng) {
    let present = rows.any(rng);
    match (rng.random_range(0..10), present) {
        (0..5, _) => signed.push((row(table, rng), 1)),
        (5, Some(again)) => signed.push((again, rng.random_range(1..3))),
        (6, _) if !append_only => {
            let passing = row(table, rng);
            signed.push((passing.clone(), 1));
            signed.push((passing, -1));
        }
        (7..9, Some(gone)) if !append_only => signed.push((gone, -1)),
        (9, Some(old)) if !append_only => {
            let column = rng.random_range(0..table.columns.len());
            let mut new = old.clone();
            new[column] = value(table.columns[column].1, table.keys, rng);
            signed.push((old, -1));
            signed.push((new, 1));
        }
        _ => {}
    }
}

/// The changes of `table` among `changes`, in batches.
pub fn batches(table: &Table, schema: &SchemaRef, changes: &[Change]) -> Vec<SignedBatch> {
    let mut batches: Vec<Vec<(Row, i64)>> = Vec::new();
    for change in changes.iter().filter(|c| c.table == table.name) {
        if change.cut || batches.is_empty() {
            batches.push(Vec::new());
        }
        batches.last_mut().unwrap().push((change.row.clone(), change.weight));
    }
    batches.iter().map(|rows| signed_batch(table, schema, rows)).collect()
}

/// Drops retractions of rows that are not there at the end of their epoch.
pub fn make_valid<'a>(epochs: impl IntoIterator<Item = &'a mut Vec<Change>>) {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    let key = |c: &Change| format!("{} {:?}", c.table, c.row);
    for epoch in epochs {
        for change in epoch.iter() {
            *counts.entry(key(change)).or_default() += change.weight;
        }
        epoch.retain(|change| {
            let count = counts.entry(key(change)).or_default();
            let keep = change.weight > 0 || *count >= 0;
            *count -= if keep { 0 } else { change.weight };
            keep
        });
    }
}

/// One epoch's changes, made smaller: whole tables first, then runs of rows.
pub fn smaller(changes: &[Change]) -> Vec<Vec<Change>> {
    let without = |table: &Table| changes.iter().filter(|c| c.table != table.name).cloned().collect::<Vec<_>>();
    let tables = TABLES.iter().map(without).filter(|rest| rest.len() < changes.len());
    tables.chain(without_runs(changes)).collect()
}

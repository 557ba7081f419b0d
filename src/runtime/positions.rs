//! Names of the `txn` actions in which a table stores how far it has consumed each input.
//!
//! - `smelt/<table>/<source>.<source table>/<topic>/<partition>` → next offset of that partition
//! - `smelt/<table>/<upstream table id>` → Delta version of the upstream table
//! - `smelt/run/<table>` → planned instant of its last run, µs
//! - `smelt/clock` → clock of the last commit of a table whose rows come and go with it, µs
//! - `smelt/watermark/<table>/<source>.<source table>/<topic>/<partition>` → latest event time of that partition, µs; of a model's own rows
//!   `smelt/watermark/<table>`
//! - `smelt/closed/<table>` → up to where its windows are closed and written, µs
//! - `smelt/instance` → number of the smelt instance that owns the table
//! - `smelt/epoch` → epoch of the commit
//!
//! The same names, prefixed with the id of the table they belong to, are the keys of an epochs row's positions: a table
//! that was dropped and made anew has another id, so a stale row never moves it forward.

use std::collections::BTreeMap;

use crate::types::{Positions, SourcePartition};

/// Number of the instance that wrote a commit.
pub(super) const INSTANCE: &str = "smelt/instance";
/// Clock that the rows of a table are right for, µs. It never runs backwards.
pub(super) const CLOCK: &str = "smelt/clock";
/// Epoch of a commit.
pub(super) const EPOCH: &str = "smelt/epoch";

/// `txn` of one source partition.
pub(super) fn source_app(table: &str, source: &str, partition: &SourcePartition) -> String {
    format!("smelt/{table}/{source}/{}/{}", partition.topic, partition.partition)
}

/// `txn` of an upstream table.
pub(super) fn table_app(table: &str, upstream_id: &str) -> String {
    format!("smelt/{table}/{upstream_id}")
}

/// `txn` of the last run of a table that is made at times.
pub(super) fn run_app(table: &str) -> String {
    format!("smelt/run/{table}")
}

/// `txn` of the latest event time in a table's own rows.
pub(super) fn watermark_app(table: &str) -> String {
    format!("smelt/watermark/{table}")
}

/// The same of one partition of a source that it reads.
pub(super) fn partition_watermark_app(table: &str, source: &str, partition: &SourcePartition) -> String {
    format!("smelt/watermark/{table}/{source}/{}/{}", partition.topic, partition.partition)
}

/// `txn` of the watermark up to which the windows of a table are written.
pub(super) fn closed_app(table: &str) -> String {
    format!("smelt/closed/{table}")
}

/// All partitions of `source` that `table` has a position for.
pub(super) fn source_positions(txns: &BTreeMap<String, i64>, table: &str, source: &str) -> Positions {
    let prefix = format!("smelt/{table}/{source}/");
    txns.range(prefix.clone()..)
        .take_while(|(app, _)| app.starts_with(&prefix))
        .filter_map(|(app, next)| {
            let (topic, partition) = app[prefix.len()..].rsplit_once('/')?;
            let partition = partition.parse().ok()?;
            Some((SourcePartition { topic: topic.into(), partition }, *next))
        })
        .collect()
}

/// How far any table has consumed `source`, by the positions of an epochs row.
pub(super) fn positions_in_row(row: &BTreeMap<String, i64>, source: &str) -> Positions {
    let mark = format!("/{source}/");
    let mut furthest = Positions::new();
    for (key, next) in row {
        let Some((table, partition)) = key.split_once(":smelt/").and_then(|(_, app)| app.split_once(&mark)) else {
            continue;
        };
        let Some((topic, number)) = partition.rsplit_once('/').filter(|_| !table.contains('/')) else { continue };
        let Ok(number) = number.parse() else { continue };
        let known = furthest.entry(SourcePartition { topic: topic.into(), partition: number }).or_insert(*next);
        *known = (*known).max(*next);
    }
    furthest
}

/// The `txn`s of a table merged with what the last epochs row knows of it: the later position wins.
pub(super) fn merged(
    own: &BTreeMap<String, i64>,
    table_id: &str,
    epochs_row: &BTreeMap<String, i64>,
) -> BTreeMap<String, i64> {
    let mut all = own.clone();
    let prefix = epoch_key(table_id, "");
    for (key, value) in epochs_row.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix)) {
        let position = all.entry(key[prefix.len()..].to_string()).or_insert(*value);
        *position = (*position).max(*value);
    }
    all
}

/// Key of position `app` of the table with `table_id` in an epochs row.
pub(super) fn epoch_key(table_id: &str, app: &str) -> String {
    format!("{table_id}:{app}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_of_a_source_round_trip_through_txn_names() {
        let partition = SourcePartition { topic: "a/b".into(), partition: 3 };
        let txns = BTreeMap::from([
            (source_app("bronze", "telco.calls", &partition), 7),
            (source_app("bronze", "telco.calls2", &partition), 9),
            (table_app("bronze", "id"), 1),
        ]);
        assert_eq!(source_positions(&txns, "bronze", "telco.calls"), Positions::from([(partition, 7)]));
    }

    #[test]
    fn an_epochs_row_says_how_far_any_table_has_read_a_source() {
        let partition = |number| SourcePartition { topic: "a/b".into(), partition: number };
        let row = BTreeMap::from([
            (epoch_key("id1", &source_app("bronze", "telco.calls", &partition(0))), 7),
            (epoch_key("id2", &source_app("other", "telco.calls", &partition(0))), 9),
            (epoch_key("id2", &source_app("other", "telco.calls", &partition(1))), 2),
            (epoch_key("id2", &source_app("other", "telco.calls2", &partition(1))), 5),
            (epoch_key("id2", &table_app("other", "id1")), 11),
        ]);
        let read = positions_in_row(&row, "telco.calls");
        assert_eq!(read, Positions::from([(partition(0), 9), (partition(1), 2)]));
    }

    #[test]
    fn the_later_of_txn_and_epochs_row_is_the_position() {
        let own = BTreeMap::from([("smelt/t/x".to_string(), 5)]);
        let row = BTreeMap::from([
            (epoch_key("id", "smelt/t/x"), 4),
            (epoch_key("id", "smelt/t/y"), 2),
            (epoch_key("other", "smelt/t/x"), 99),
        ]);
        let merged = merged(&own, "id", &row);
        assert_eq!(merged, BTreeMap::from([("smelt/t/x".to_string(), 5), ("smelt/t/y".to_string(), 2)]));
    }
}

//! A snapshot that follows every change: what its query returns and which versions are open, by key.
//!
//! A version begins or ends for a key whose rows have changed, and what becomes of one key depends on no other. So the history of a
//! change is the history of its keys: their rows and versions are kept here, [`History`] makes of them what it makes of all.
//!
//! Invariants: the rows are the sum of the query's changes; the versions are those of the table that [`History::change`] asks for. After
//! an error it is no longer usable.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::History;
use crate::error::{Error, Result};
use crate::types::SignedBatch;

/// The rows and versions of one snapshot.
pub struct Followed {
    keys: RowConverter,
    rows: RowConverter,
    versions: RowConverter,
    by_key: HashMap<OwnedRow, Held>,
    bytes: usize,
}

/// What there is of one key.
#[derive(Default)]
struct Held {
    /// Rows of the query, and how often each is there.
    rows: Vec<(OwnedRow, i64)>,
    /// Rows of the table: the current version,
    current: Vec<OwnedRow>,
    /// and the last one that has ended (µs), where that matters.
    past: Option<(i64, OwnedRow)>,
}

impl Followed {
    /// Nothing yet; None where a column is of a type whose rows cannot be kept so.
    pub fn new(history: &History<'_>) -> Result<Option<Self>> {
        let query = &history.snapshot.query;
        let key = query.project(&history.snapshot.key)?;
        let fields = |schema: &arrow::datatypes::Schema| -> Vec<SortField> {
            schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect()
        };
        let all = [fields(&key), fields(query), fields(&history.table)];
        if all.iter().any(|fields| !RowConverter::supports_fields(fields)) {
            return Ok(None);
        }
        let [keys, rows, versions] = all.map(RowConverter::new);
        Ok(Some(Followed { keys: keys?, rows: rows?, versions: versions?, by_key: HashMap::new(), bytes: 0 }))
    }

    /// Bytes of what is held, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in the table's versions, all current ones and with [`History::needs_past`] the others too, and what the query returns: what the
    /// table gains and loses at `instant` (µs).
    pub fn begin(
        &mut self,
        history: &History<'_>,
        versions: &[RecordBatch],
        rows: &[SignedBatch],
        instant: i64,
    ) -> Result<Vec<SignedBatch>> {
        let versions: Vec<SignedBatch> = versions.iter().cloned().map(SignedBatch::inserts).collect();
        self.note(history, &versions)?;
        self.add(history, rows)?;
        let all = self.by_key.keys().cloned().collect();
        self.versions_of(history, all, instant)
    }

    /// What the table gains and loses when the query's result changes by `delta` at `instant` (µs).
    pub fn change(&mut self, history: &History<'_>, delta: &[SignedBatch], instant: i64) -> Result<Vec<SignedBatch>> {
        let touched = self.add(history, delta)?;
        self.versions_of(history, touched, instant)
    }

    /// Adds rows of the query; returns their keys.
    fn add(&mut self, history: &History<'_>, delta: &[SignedBatch]) -> Result<HashSet<OwnedRow>> {
        let mut touched = HashSet::new();
        for batch in delta {
            let keys = self.keys_of(history, &batch.rows)?;
            let rows = self.rows.convert_columns(batch.rows.columns())?;
            for row in 0..batch.num_rows() {
                let key = keys.row(row).owned();
                let held = self.by_key.entry(key.clone()).or_default();
                self.bytes = add(&mut held.rows, rows.row(row).owned(), batch.weight(row), self.bytes);
                touched.insert(key);
            }
        }
        Ok(touched)
    }

    fn versions_of(
        &mut self,
        history: &History<'_>,
        keys: HashSet<OwnedRow>,
        instant: i64,
    ) -> Result<Vec<SignedBatch>> {
        let mut keys: Vec<OwnedRow> = keys.into_iter().collect();
        // The order of rows in a table is nobody's business, but the same change should write the same file.
        keys.sort();
        let (mut rows, mut versions) = (Vec::new(), Vec::new());
        for held in keys.iter().filter_map(|key| self.by_key.get(key)) {
            for (row, weight) in &held.rows {
                let count = usize::try_from(*weight).map_err(|_| negative(history.name))?;
                rows.extend(std::iter::repeat_n(row.row(), count));
            }
            let past = held.past.as_ref().map(|(_, version)| version);
            versions.extend(held.current.iter().chain(past).map(OwnedRow::row));
        }
        let rows = batch_of(&self.rows, &history.snapshot.query, rows)?;
        let versions = batch_of(&self.versions, &history.table, versions)?;
        let change = history.change(&[versions], &[rows], instant)?;
        self.note(history, &change)?;
        for key in &keys {
            let is_gone = |held: &Held| held.rows.is_empty() && held.current.is_empty() && held.past.is_none();
            if self.by_key.get(key).is_some_and(is_gone) {
                self.by_key.remove(key);
            }
        }
        Ok(change)
    }

    /// The table has changed by `change`.
    fn note(&mut self, history: &History<'_>, change: &[SignedBatch]) -> Result<()> {
        for batch in change {
            let keys = self.keys_of(history, &history.query_columns(&batch.rows)?)?;
            let (is_current, ends) = (history.is_current(&batch.rows)?, history.ends(&batch.rows)?);
            let encoded = self.versions.convert_columns(batch.rows.columns())?;
            for row in 0..batch.num_rows() {
                let version = encoded.row(row).owned();
                let held = self.by_key.entry(keys.row(row).owned()).or_default();
                if batch.weight(row) < 0 {
                    let at = held.current.iter().position(|known| *known == version);
                    let unknown = || Error::diverged(format!("{}: a version ends that is not there", history.name));
                    self.bytes = self.bytes.saturating_sub(size(&held.current.swap_remove(at.ok_or_else(unknown)?)));
                } else if is_current.value(row) {
                    self.bytes += size(&version);
                    held.current.push(version);
                } else if history.needs_past() && held.past.as_ref().is_none_or(|(end, _)| *end <= ends.value(row)) {
                    self.bytes += size(&version);
                    let before = held.past.replace((ends.value(row), version));
                    self.bytes = self.bytes.saturating_sub(before.map_or(0, |(_, version)| size(&version)));
                }
            }
        }
        Ok(())
    }

    fn keys_of(&self, history: &History<'_>, rows: &RecordBatch) -> Result<Rows> {
        Ok(self.keys.convert_columns(rows.project(&history.snapshot.key)?.columns())?)
    }
}

/// Adds a row so many times; returns the bytes that are held then.
fn add(rows: &mut Vec<(OwnedRow, i64)>, row: OwnedRow, weight: i64, bytes: usize) -> usize {
    match rows.iter().position(|(known, _)| *known == row) {
        Some(at) => {
            rows[at].1 += weight;
            if rows[at].1 != 0 {
                return bytes;
            }
            bytes.saturating_sub(size(&rows.swap_remove(at).0))
        }
        None => {
            let more = size(&row);
            rows.push((row, weight));
            bytes + more
        }
    }
}

/// Bytes of a row and of its place.
fn size(row: &OwnedRow) -> usize {
    row.as_ref().len() + 2 * size_of::<OwnedRow>()
}

fn negative(name: &str) -> Error {
    Error::diverged(format!("the query of {name} has lost a row that was not there"))
}

fn batch_of<'a>(
    converter: &RowConverter,
    schema: &SchemaRef,
    rows: impl IntoIterator<Item = arrow::row::Row<'a>>,
) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new(Arc::clone(schema), converter.convert_rows(rows)?)?)
}

//! What changed between two versions, from the log alone: for streaming tables that catch up, and for foreign tables.
//!
//! Per path the first data-changing action tells what was live before (a Remove: with its vector; an Add: nothing), the last one
//! what is live after. Commits that only moved rows are skipped: what they removed and added holds the same rows.

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::actions::{Add, Commit, Remove};
use super::files::{LiveFile, percent_decode};
use super::hash::RowHasher;
use super::net::net;
use super::reader;
use super::stats;
use super::store::TableStore;
use super::table::Table;
use crate::error::{Error, Result};
use crate::types::SignedBatch;

/// Rows that are netted as one: beyond that the two signs are returned as they are.
const NET_ROWS: usize = 4_000_000;

/// A path before and after: `None` is "not in the table".
#[derive(Debug, Default)]
struct Path {
    before: Option<Option<Add>>,
    after: Option<Add>,
}

/// The paths that commits changed.
#[derive(Debug, Default)]
pub(super) struct ChangedPaths(BTreeMap<String, Path>);

impl ChangedPaths {
    /// The next commit.
    pub fn note(&mut self, commit: &Commit) {
        for remove in commit.0.iter().filter_map(|l| l.remove.as_ref()).filter(|r| r.data_change) {
            let path = self.0.entry(remove.path.clone()).or_default();
            path.before.get_or_insert_with(|| Some(as_add(remove)));
            path.after = None;
        }
        for add in commit.0.iter().filter_map(|l| l.add.as_ref()).filter(|a| a.data_change) {
            self.note_add(add.clone());
        }
    }

    /// A file that was added.
    pub fn note_add(&mut self, add: Add) {
        let path = self.0.entry(add.path.clone()).or_default();
        path.before.get_or_insert(None);
        path.after = Some(add);
    }
}

fn as_add(remove: &Remove) -> Add {
    Add {
        path: remove.path.clone(),
        partition_values: remove.partition_values.clone().unwrap_or_default(),
        size: remove.size.unwrap_or(0),
        modification_time: 0,
        data_change: true,
        stats: None,
        deletion_vector: remove.deletion_vector.clone(),
    }
}

impl Table {
    /// The Z-set difference between two committed versions, `from` exclusive, `to` inclusive, in the table's schema as it is now.
    /// Fails with `history-gone` when log entries or files it needs were cleaned up.
    pub async fn changes(&self, from: i64, to: i64) -> Result<Vec<SignedBatch>> {
        if to <= from {
            return Ok(Vec::new());
        }
        let mut paths = ChangedPaths::default();
        for version in from + 1..=to {
            let entry = TableStore::log_path(version);
            let bytes = self.store.try_get(&entry).await?;
            let bytes = bytes.ok_or_else(|| self.gone(from, to, &format!("entry {version} is gone")))?;
            paths.note(&Commit::parse(&bytes, &entry)?);
        }
        self.changes_of(paths, from, to).await
    }

    /// The same, of the paths that the commits between the two versions changed.
    pub(super) async fn changes_of(&self, paths: ChangedPaths, from: i64, to: i64) -> Result<Vec<SignedBatch>> {
        let mut delta = Vec::new();
        for path in paths.0.into_values() {
            let before = path.before.flatten();
            let changed = self.path_changes(before.as_ref(), path.after.as_ref()).await;
            delta.extend(changed.map_err(|e| {
                if e.message().contains("not found") { self.gone(from, to, "a data file was vacuumed") } else { e }
            })?);
        }
        self.netted(delta)
    }

    /// All committed rows.
    pub(super) async fn all_rows(&self) -> Result<Vec<SignedBatch>> {
        let mut paths = ChangedPaths::default();
        self.state.files.values().for_each(|file| paths.note_add(file.to_add(true)));
        self.changes_of(paths, -1, self.version()).await
    }

    fn gone(&self, from: i64, to: i64, what: &str) -> Error {
        Error::environment(
            "history-gone",
            format!("the changes of `{}` from version {from} to {to} cannot be read: {what}", self.name),
        )
        .permanent()
        .with_hint("the table's history was cleaned up: a full refresh of the reader starts from its present rows")
    }

    async fn path_changes(&self, before: Option<&Add>, after: Option<&Add>) -> Result<Vec<SignedBatch>> {
        let Some(known) = after.or(before) else { return Ok(Vec::new()) };
        let size = self.size_of(known).await?;
        let rows = match known.stats.as_deref().and_then(stats::num_records) {
            Some(rows) => rows,
            None => reader::row_count(&self.store, &percent_decode(&known.path)?, size).await?,
        };
        let known = LiveFile::from_add(&Add { stats: None, size, ..known.clone() }, &self.store, Some(rows))?;
        let live = async |add: Option<&Add>| -> Result<RoaringBitmap> {
            let mut live = RoaringBitmap::new();
            if let Some(add) = add {
                live.insert_range(0..u32::try_from(rows).unwrap_or(u32::MAX));
                let file = LiveFile::from_add(&Add { stats: None, ..add.clone() }, &self.store, Some(rows))?;
                if let Some(deleted) = file.deleted().rows(&self.store).await? {
                    live -= &*deleted;
                }
            }
            Ok(live)
        };
        let (was, is) = (live(before).await?, live(after).await?);
        let mut delta = Vec::new();
        for (rows_of, sign) in [(&was - &is, -1), (&is - &was, 1)] {
            if rows_of.is_empty() {
                continue;
            }
            let selection = reader::only(&rows_of, rows);
            let mut stream = reader::open(&self.layout(), &known.file, Some(selection)).await?;
            while let Some(batch) = stream.try_next().await? {
                if batch.num_rows() > 0 {
                    delta.push(if sign > 0 { SignedBatch::inserts(batch) } else { SignedBatch::retracts(batch) });
                }
            }
        }
        Ok(delta)
    }

    /// A Remove need not say how large its file was.
    async fn size_of(&self, add: &Add) -> Result<i64> {
        if add.size > 0 {
            return Ok(add.size);
        }
        use object_store::ObjectStoreExt;
        let path = self.store.path(&percent_decode(&add.path)?)?;
        Ok(self.store.store.head(&path).await?.size as i64)
    }

    /// Rows that a rewrite removed and added again cancel.
    fn netted(&self, delta: Vec<SignedBatch>) -> Result<Vec<SignedBatch>> {
        let rows: usize = delta.iter().map(SignedBatch::num_rows).sum();
        let both = delta.iter().any(SignedBatch::has_retractions) && delta.iter().any(|b| b.weights.is_none());
        if !both || rows > NET_ROWS {
            return Ok(delta);
        }
        let schema = Arc::clone(&self.layout().schema);
        let net = net(&delta, &schema, &RowHasher::new(&schema)?)?;
        let signed =
            |rows: RecordBatch, make: fn(RecordBatch) -> SignedBatch| (rows.num_rows() > 0).then(|| make(rows));
        Ok([signed(net.retracts, SignedBatch::retracts), signed(net.inserts, SignedBatch::inserts)]
            .into_iter()
            .flatten()
            .collect())
    }
}

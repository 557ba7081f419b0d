//! Staging: signed rows become new files and deleted bits, all of it in [`super::pending::Pending`] until the commit.
//!
//! 1. Rows are brought to the table's exact types, and rows that cancel are netted away.
//! 2. Retractions are located; a miss means the table is not what the engine believes: `Diverged`.
//! 3. Insertions are written and uploaded. Without deletion vectors touched files are rewritten.
//! 4. Only then, with nothing left that can fail, memory changes. A failed `stage` leaves no trace.

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use futures::{Stream, StreamExt, TryStreamExt};
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::files::{Deleted, Ordinal};
use super::hash::RowHasher;
use super::locator::{Locator, Place, Redirect};
use super::net::{Net, net};
use super::pending::{NewMetadata, Undo};
use super::reader;
use super::snapshot::{SnapshotFile, live_rows};
use super::table::Table;
use super::writer::{Writer, Written};
use super::{partition, schema};
use crate::error::{Error, Result};
use crate::types::SignedBatch;

/// Files hashed at once when a locator is built.
const BUILDERS: usize = 4;

/// What a call of [`Table::stage`] came to, after netting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageSummary {
    pub inserted: u64,
    pub deleted: u64,
}

/// Rows to be gone from each file: all of them, earlier ones included.
type Deletes = BTreeMap<Ordinal, Arc<RoaringBitmap>>;

/// A file without its deleted rows, or nothing when none is left.
struct Rewrite {
    file: Ordinal,
    deleted: Arc<RoaringBitmap>,
    written: Option<Written>,
}

impl Table {
    /// Stages signed rows: nets them, uploads what is inserted, locates what is retracted. Several calls add up. On an error
    /// nothing of the call is staged.
    pub async fn stage(&mut self, batches: &[SignedBatch]) -> Result<StageSummary> {
        self.check_writable()?;
        self.check_resolved()?;
        let mut conformed = Vec::with_capacity(batches.len());
        for batch in batches.iter().filter(|b| !b.is_empty()) {
            conformed.push(batch.with_rows(self.conform(&batch.rows)?));
        }
        if conformed.is_empty() {
            return Ok(StageSummary::default());
        }
        if self.locator.is_none() && !conformed.iter().any(SignedBatch::has_retractions) {
            return self.stage_inserts(&conformed).await;
        }
        let net = net(&conformed, &self.schema(), &self.hasher)?;
        if !net.retract_hashes.is_empty() {
            self.ensure_locator().await?;
        }
        let mut removed = Vec::with_capacity(net.retract_hashes.len());
        let outcome = self.stage_net(&net, &mut removed).await;
        if outcome.is_err()
            && let Some(locator) = &mut self.locator
        {
            for (hash, place) in removed.into_iter().rev() {
                locator.restore(hash, place);
            }
        }
        outcome
    }

    fn check_resolved(&self) -> Result<()> {
        match self.unresolved {
            None => Ok(()),
            Some(_) => Err(Error::internal(format!("`{}` has a commit under way: commit again or discard", self.name))),
        }
    }

    /// The append-only path: no hashes, no netting.
    async fn stage_inserts(&mut self, batches: &[SignedBatch]) -> Result<StageSummary> {
        let mut writer = Writer::new(self.target())?;
        let mut inserted = 0;
        for batch in batches {
            let rows = repeated(batch)?;
            inserted += rows.num_rows() as u64;
            writer.write(&rows, None).await?;
        }
        let written = writer.finish().await?;
        self.add_written(written);
        self.env.crash_point("after-upload")?;
        Ok(StageSummary { inserted, deleted: 0 })
    }

    async fn stage_net(&mut self, net: &Net, removed: &mut Vec<(u128, Place)>) -> Result<StageSummary> {
        let rows = self.locate(net, removed)?;
        let deletes = self.delete_rows(rows).await?;
        let mut written = Vec::new();
        if net.inserts.num_rows() > 0 {
            let mut writer = Writer::new(self.target())?;
            let hashes = self.locator.is_some().then_some(net.insert_hashes.as_slice());
            writer.write(&net.inserts, hashes).await?;
            written = writer.finish().await?;
        }
        let mut rewrites = Vec::new();
        if !self.has_deletion_vectors() {
            for (file, deleted) in &deletes {
                rewrites.push(self.rewrite(*file, deleted).await?);
            }
        }
        self.env.crash_point("after-upload")?;

        // From here on nothing fails.
        self.pending.undo.extend(removed.drain(..).map(|(hash, place)| Undo::Removed(hash, place)));
        if self.has_deletion_vectors() {
            self.pending.deletes.extend(deletes);
        } else {
            for rewrite in rewrites {
                self.apply_rewrite(rewrite);
            }
        }
        self.add_written(written);
        Ok(StageSummary { inserted: net.insert_hashes.len() as u64, deleted: net.retract_hashes.len() as u64 })
    }

    /// Takes every retracted row out of the locator and says where it is now.
    fn locate(&mut self, net: &Net, removed: &mut Vec<(u128, Place)>) -> Result<BTreeMap<Ordinal, Vec<u32>>> {
        let mut rows: BTreeMap<Ordinal, Vec<u32>> = BTreeMap::new();
        let Some(locator) = &mut self.locator else { return Ok(rows) };
        locator.warm(&net.retract_hashes)?;
        for (i, hash) in net.retract_hashes.iter().enumerate() {
            let Some(place) = locator.remove(*hash) else {
                let row = arrow::util::pretty::pretty_format_batches(&[net.retracts.slice(i, 1)])?;
                return Err(Error::diverged(format!("`{}` does not hold a row that is retracted:\n{row}", self.name)));
            };
            removed.push((*hash, place));
            let place = locator.resolve(place)?;
            rows.entry(place.file()).or_default().push(place.row());
        }
        Ok(rows)
    }

    /// The deleted rows of each touched file, once `rows` are gone too.
    pub(super) async fn delete_rows(&self, rows: BTreeMap<Ordinal, Vec<u32>>) -> Result<Deletes> {
        let mut deletes = Deletes::new();
        for (file, mut rows) in rows {
            let known = match (self.pending.deletes.get(&file), self.state.files.get(&file)) {
                (Some(deleted), _) => Some(Arc::clone(deleted)),
                (None, Some(live)) => live.deleted().rows(&self.store).await?,
                (None, None) => None,
            };
            let mut deleted = known.map_or_else(RoaringBitmap::new, Arc::unwrap_or_clone);
            let before = deleted.len();
            rows.sort_unstable();
            let expected = before + rows.len() as u64;
            deleted.extend(rows);
            if deleted.len() != expected {
                return Err(Error::diverged(format!("`{}`: a row was to be deleted twice", self.name)));
            }
            deletes.insert(file, Arc::new(deleted));
        }
        Ok(deletes)
    }

    /// Files of a writer become staged files.
    fn add_written(&mut self, written: Vec<Written>) {
        for written in written {
            let ordinal = self.state.allocate();
            self.pending.added.insert(ordinal, written.file);
            if let (Some(locator), Some(hashes)) = (&mut self.locator, written.hashes) {
                for (row, hash) in hashes.iter().enumerate() {
                    locator.insert(*hash, Place::new(ordinal, row as u32));
                }
                self.pending.undo.push(Undo::Inserted(ordinal, hashes));
            }
        }
    }

    /// Writes what is left of a file, in order.
    async fn rewrite(&self, file: Ordinal, deleted: &Arc<RoaringBitmap>) -> Result<Rewrite> {
        let found = self.pending.added.get(&file).or_else(|| self.state.files.get(&file).map(|f| &f.file));
        let data = found.ok_or_else(|| Error::diverged(format!("`{}`: a located file is gone", self.name)))?;
        let rewrite = Rewrite { file, deleted: Arc::clone(deleted), written: None };
        if deleted.len() == data.rows {
            return Ok(rewrite);
        }
        let whole =
            SnapshotFile { ordinal: file, file: Arc::clone(data), deleted: Deleted::Staged(Arc::clone(deleted)) };
        let written = rewrite_files(self, std::slice::from_ref(&whole)).await?;
        Ok(Rewrite { written, ..rewrite })
    }

    fn apply_rewrite(&mut self, rewrite: Rewrite) {
        if let Some(file) = self.pending.added.remove(&rewrite.file) {
            self.pending.orphans.push(file.log_path.clone());
        } else {
            self.pending.removed.insert(rewrite.file);
        }
        let Some(written) = rewrite.written else { return };
        let target = self.state.allocate();
        self.pending.added.insert(target, written.file);
        if let Some(locator) = &mut self.locator {
            locator.redirect(rewrite.file, Redirect { target, base: 0, skipped: rewrite.deleted });
            self.pending.undo.push(Undo::Redirected(rewrite.file));
        }
    }

    /// Builds the locator from all rows, staged ones included, unless it is there.
    pub(super) async fn ensure_locator(&mut self) -> Result<()> {
        if self.locator.is_some() {
            return Ok(());
        }
        // What it learns of staged files cannot be taken back row by row.
        self.pending.forget_locator |= self.has_staged();
        let layout = self.layout();
        let files = self.staged_files();
        let (mut locator, files) =
            self.offered_locator(&files).await?.unwrap_or_else(|| (Locator::default(), files.clone()));
        let mut hashed = futures::stream::iter(files)
            .map(|file| {
                let (layout, hasher) = (layout.clone(), Arc::clone(&self.hasher));
                // Its own task: hashing a file is seconds of work for one core.
                let task = tokio::spawn(async move { hash_file(&layout, &hasher, file).await });
                async move { task.await.map_err(|e| Error::internal(format!("hashing rows: {e}")))? }
            })
            .buffered(BUILDERS);
        while let Some((file, hashes)) = hashed.try_next().await? {
            for (row, hash) in hashes {
                locator.insert(hash, Place::new(file, row));
            }
            if locator.bytes() > self.options.locator_memory {
                locator.put_away()?;
            }
        }
        drop(hashed);
        self.locator = Some(locator);
        Ok(())
    }

    /// Stages a whole new content under a new schema: everything there is now leaves, `rows` come. Earlier staged changes are
    /// discarded. `properties` are added to the table's.
    pub async fn replace<S, E>(
        &mut self,
        schema: SchemaRef,
        properties: BTreeMap<String, String>,
        mut rows: S,
    ) -> Result<StageSummary>
    where
        S: Stream<Item = Result<RecordBatch, E>> + Send + Unpin,
        Error: From<E>,
    {
        self.discard();
        self.check_writable()?;
        self.stage_schema(&schema, properties)?;
        let mut writer = Writer::new(self.target())?;
        let mut inserted = 0;
        loop {
            let batch = match rows.try_next().await {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(e) => {
                    self.discard();
                    return Err(e.into());
                }
            };
            inserted += batch.num_rows() as u64;
            let outcome = match self.conform(&batch) {
                Ok(batch) => writer.write(&batch, None).await,
                Err(e) => Err(e),
            };
            if let Err(e) = outcome {
                self.discard();
                return Err(e);
            }
        }
        let deleted = self.state.rows;
        match writer.finish().await {
            Ok(written) => {
                self.pending.replaced = true;
                self.add_written(written);
                self.env.crash_point("after-upload")?;
                Ok(StageSummary { inserted, deleted })
            }
            Err(e) => {
                self.discard();
                Err(e)
            }
        }
    }

    /// Stages a new schema that only adds columns at the end, and properties. Existing rows read NULL there.
    pub fn evolve(&mut self, schema: &SchemaRef, properties: BTreeMap<String, String>) -> Result<()> {
        self.check_writable()?;
        if self.has_staged() {
            return Err(Error::internal(format!("`{}`: columns change before rows are staged", self.name)));
        }
        let old = self.schema();
        let kept = schema.fields().len() >= old.fields().len()
            && old.fields().iter().zip(schema.fields()).all(|(a, b)| a.name() == b.name());
        if !kept {
            return Err(Error::user("schema-change", format!("`{}` can only gain columns at its end", self.name))
                .with_hint("a full refresh rebuilds it with other columns"));
        }
        self.stage_schema(schema, properties)?;
        let new = self.schema();
        if let Some((a, _)) = old.fields().iter().zip(new.fields()).find(|(a, b)| a.data_type() != b.data_type()) {
            let message = format!("`{}`: the type of column `{}` cannot change", self.name, a.name());
            self.discard();
            return Err(Error::user("schema-change", message).with_hint("a full refresh rebuilds it"));
        }
        Ok(())
    }

    fn stage_schema(&mut self, schema: &SchemaRef, properties: BTreeMap<String, String>) -> Result<()> {
        let mut metadata = self.state.metadata.clone();
        metadata.schema_string = schema::to_delta(schema)?;
        metadata.configuration.extend(properties);
        let schema = schema::from_delta(&metadata.schema_string)?;
        if let Some(column) = metadata.partition_columns.iter().find(|c| schema.index_of(c).is_err()) {
            return Err(Error::user("bad-partition", format!("`{}` has no column `{column}` any more", self.name))
                .with_hint("it is partitioned by that column: drop the table, or keep the column"));
        }
        let ntz = schema.fields().iter().any(|f| schema::has_timestamp_ntz(f.data_type()));
        let can_ntz = self.state.protocol.writer_features.iter().flatten().any(|f| f == "timestampNtz");
        let file_schema = partition::file_schema(&schema, &metadata.partition_columns);
        self.hasher = Arc::new(RowHasher::new(&schema)?);
        self.offered = None;
        self.pending.saved_locator = Some(self.locator.take());
        self.pending.upgrade_ntz = ntz && !can_ntz;
        self.pending.metadata = Some(NewMetadata { metadata, schema, file_schema });
        Ok(())
    }
}

/// The rows, each as often as its weight says (weights are positive here).
fn repeated(batch: &SignedBatch) -> Result<RecordBatch> {
    let Some(weights) = &batch.weights else { return Ok(batch.rows.clone()) };
    let indices: UInt64Array = weights
        .values()
        .iter()
        .enumerate()
        .flat_map(|(i, w)| std::iter::repeat_n(i as u64, w.max(&0).unsigned_abs() as usize))
        .collect::<Vec<_>>()
        .into();
    Ok(take_record_batch(&batch.rows, &indices)?)
}

async fn hash_file(
    layout: &reader::Layout,
    hasher: &RowHasher,
    file: SnapshotFile,
) -> Result<(Ordinal, Vec<(u32, u128)>)> {
    let deleted = file.deleted.rows(&layout.store).await?;
    let mut stream = live_rows(layout, &file).await?;
    let rows = u32::try_from(file.file.rows)
        .map_err(|_| Error::internal(format!("{} has more than 2^32 rows", file.file.location)))?;
    let mut left = (0..rows).filter(|row| !deleted.as_ref().is_some_and(|d| d.contains(*row)));
    let mut hashes = Vec::with_capacity(rows as usize);
    while let Some(batch) = stream.try_next().await? {
        for hash in hasher.hash(&batch)? {
            let row =
                left.next().ok_or_else(|| Error::diverged(format!("{} has too many rows", file.file.location)))?;
            hashes.push((row, hash));
        }
    }
    if left.next().is_some() {
        return Err(Error::diverged(format!("{} has too few rows", file.file.location)));
    }
    Ok((file.ordinal, hashes))
}

/// Writes what is left of `files`, all of one partition, into one new file.
pub(super) async fn rewrite_files(table: &Table, files: &[SnapshotFile]) -> Result<Option<Written>> {
    merge(&table.layout(), table.target(), files).await
}

/// The same, without the table: for background work.
pub(super) async fn merge(
    layout: &reader::Layout,
    target: super::writer::Target,
    files: &[SnapshotFile],
) -> Result<Option<Written>> {
    let mut target = target;
    let mut options = (*target.options).clone();
    // One file, whatever its size: rows keep their order, so that a row's new place can be computed.
    options.target_file_size = u64::MAX;
    target.options = Arc::new(options);
    let mut writer = Writer::new(target)?;
    for file in files {
        let mut rows = live_rows(layout, file).await?;
        while let Some(batch) = rows.try_next().await? {
            writer.write(&batch, None).await?;
        }
    }
    Ok(writer.finish().await?.pop())
}

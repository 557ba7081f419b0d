//! A table as its one committer holds it: committed state, staged changes, locators.

use arrow::datatypes::SchemaRef;
use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::ObjectStoreExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Semaphore;

use super::commit::Prepared;
use super::docs::TableDocs;
use super::files::{Deleted, LiveFile};
use super::hash::RowHasher;
use super::locator::{Locator, Place};
use super::log;
use super::maintain::Maintenance;
use super::options::LakeOptions;
use super::pending::{Pending, Undo};
use super::reader::Layout;
use super::snapshot::{SnapshotFile, TableSnapshot};
use super::state::State;
use super::states::Offered;
use super::store::TableStore;
use super::writer::Target;
use super::{partition, protocol, schema};
use crate::env::Env;
use crate::error::{Error, Result};

/// The application id under which every commit carries the number of the smelt that made it.
pub const INSTANCE: &str = "smelt/instance";

/// One Delta table. Writing methods take `&mut self`: a table has one committer.
pub struct Table {
    pub(super) env: Env,
    pub(super) options: Arc<LakeOptions>,
    pub(super) name: String,
    pub(super) store: TableStore,
    pub(super) url: ObjectStoreUrl,
    pub(super) state: State,
    pub(super) pending: Pending,
    pub(super) locator: Option<Locator>,
    /// Where rows were, by a snapshot of state: used when the locator is built.
    pub(super) offered: Option<Offered>,
    pub(super) hasher: Arc<RowHasher>,
    /// A commit whose put was tried and not yet confirmed.
    pub(super) unresolved: Option<Prepared>,
    /// The state in memory may not be the table's any more.
    pub(super) lost: bool,
    pub(super) maintenance: Maintenance,
    /// The turn that a compaction waits for.
    pub(super) compactions: Arc<Semaphore>,
    /// What it should say about itself.
    pub(super) docs: Option<TableDocs>,
    /// What it says may be something else.
    pub(super) docs_differ: bool,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({} v{})", self.name, self.state.version)
    }
}

impl Table {
    pub(super) fn new(
        env: Env,
        options: Arc<LakeOptions>,
        name: String,
        store: TableStore,
        url: ObjectStoreUrl,
        state: State,
        compactions: Arc<Semaphore>,
    ) -> Result<Self> {
        let hasher = Arc::new(RowHasher::new(&state.schema)?);
        Ok(Table {
            env,
            options,
            name,
            store,
            url,
            state,
            pending: Pending::default(),
            locator: None,
            offered: None,
            hasher,
            unresolved: None,
            lost: false,
            maintenance: Maintenance::default(),
            compactions,
            docs: None,
            docs_differ: false,
        })
    }

    /// `schema.name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last version known to be committed.
    pub fn version(&self) -> i64 {
        self.state.version
    }

    /// When that version was put, µs since 1970, by the object store's clock; None when its log entry is no longer there.
    pub async fn committed_at(&self) -> Option<i64> {
        let path = self.store.path(&TableStore::log_path(self.state.version)).ok()?;
        let entry = self.store.store.head(&path).await.ok()?;
        Some(entry.last_modified.timestamp_micros())
    }

    /// The table's id, which a recreated table does not share.
    pub fn id(&self) -> &str {
        &self.state.metadata.id
    }

    /// Columns, staged changes of them included.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(self.pending.metadata.as_ref().map_or(&self.state.schema, |m| &m.schema))
    }

    /// Committed properties.
    pub fn properties(&self) -> &BTreeMap<String, String> {
        &self.state.metadata.configuration
    }

    /// The retention properties whose committed value is not what this lake is configured with.
    pub fn changed_retention(&self) -> BTreeMap<String, String> {
        let wanted = self.options.retention_properties().into_iter();
        wanted
            .filter(|(key, value)| self.properties().get(*key) != Some(value))
            .map(|(key, value)| (key.to_string(), value))
            .collect()
    }

    /// Committed partition columns.
    pub fn partition_columns(&self) -> &[String] {
        &self.state.metadata.partition_columns
    }

    /// The version an application has reached, as committed.
    pub fn txn(&self, app: &str) -> Option<i64> {
        self.state.txns.get(app).copied()
    }

    /// All of them.
    pub fn txns(&self) -> &BTreeMap<String, i64> {
        &self.state.txns
    }

    /// Rows, staged changes included.
    pub fn row_count(&self) -> u64 {
        if self.pending.is_empty() { self.state.rows } else { self.staged_files().iter().map(rows_left).sum() }
    }

    /// Whether the next commit would change rows or columns.
    pub fn has_staged(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Rows that have a locator, and its bytes.
    pub fn locator_size(&self) -> (u64, usize) {
        self.locator.as_ref().map_or((0, 0), |l| (l.rows(), l.bytes()))
    }

    /// Puts the locator on local disk, if it takes more memory than it may, or `in_any_case`. While something is staged, which may be undone,
    /// it stays.
    pub fn put_locator_away(&mut self, in_any_case: bool) -> Result<()> {
        let staged = self.has_staged();
        match &mut self.locator {
            Some(locator) if !staged && (in_any_case || locator.bytes() > self.options.locator_memory) => {
                locator.put_away()
            }
            _ => Ok(()),
        }
    }

    /// Whether retractions become deletion vectors; otherwise files are rewritten.
    pub fn has_deletion_vectors(&self) -> bool {
        let writes = self.state.protocol.writer_features.iter().flatten().any(|f| f == "deletionVectors");
        writes && self.properties().get(protocol::ENABLE_VECTORS).is_some_and(|v| v == "true")
    }

    /// Content with everything staged.
    pub fn snapshot(&self) -> Arc<TableSnapshot> {
        self.snapshot_of(self.layout(), self.staged_files())
    }

    /// Content as committed.
    pub fn committed_snapshot(&self) -> Arc<TableSnapshot> {
        let layout = Layout {
            store: self.store.clone(),
            schema: Arc::clone(&self.state.schema),
            partition_columns: self.state.metadata.partition_columns.clone(),
        };
        let files = self.state.files.iter().map(|(o, f)| snapshot_file(*o, f)).collect();
        self.snapshot_of(layout, files)
    }

    fn snapshot_of(&self, layout: Layout, files: Vec<SnapshotFile>) -> Arc<TableSnapshot> {
        Arc::new(TableSnapshot {
            name: self.name.clone(),
            version: self.state.version,
            layout,
            url: self.url.clone(),
            files,
        })
    }

    /// Forgets everything staged. What was uploaded for it is deleted by a later maintenance.
    pub fn discard(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if self.unresolved.take().is_some() {
            // Its put may still land: the state in memory is not to be trusted until the log was read again.
            self.lost = true;
            return;
        }
        self.take_back(pending.undo);
        if let Some(saved) = pending.saved_locator {
            self.locator = saved;
        }
        if pending.forget_locator {
            self.locator = None;
        }
        if pending.metadata.is_some()
            && let Ok(hasher) = RowHasher::new(&self.state.schema)
        {
            self.hasher = Arc::new(hasher);
        }
        self.maintenance.orphans.extend(pending.orphans);
        self.maintenance.orphans.extend(pending.added.values().map(|f| f.log_path.clone()));
        self.maintenance.orphans.extend(pending.vectors.values().filter_map(|(_, v)| v.descriptor.file()));
    }

    pub(super) fn take_back(&mut self, undo: Vec<Undo>) {
        let Some(locator) = &mut self.locator else { return };
        for step in undo.into_iter().rev() {
            match step {
                Undo::Inserted(file, hashes) => {
                    for (row, hash) in hashes.into_iter().enumerate().rev() {
                        locator.remove_at(hash, Place::new(file, row as u32));
                    }
                }
                Undo::Removed(hash, place) => locator.restore(hash, place),
                Undo::Redirected(file) => locator.undo_redirect(file),
            }
        }
    }

    /// Reads the log again and forgets everything else: after an error that says the state is lost.
    pub async fn reload(&mut self) -> Result<()> {
        let state = log::load(&self.store, &self.name)
            .await?
            .ok_or_else(|| Error::environment("no-table", format!("the table `{}` is gone", self.name)).permanent())?;
        self.hasher = Arc::new(RowHasher::new(&state.schema)?);
        self.state = state;
        self.pending = Pending::default();
        self.locator = None;
        self.offered = None;
        self.unresolved = None;
        self.lost = false;
        self.maintenance = Maintenance::default();
        self.docs_differ = self.docs.is_some();
        Ok(())
    }

    pub(super) fn check_usable(&self) -> Result<()> {
        if self.lost {
            return Err(Error::diverged(format!("a commit of `{}` was never confirmed", self.name))
                .with_hint("the table must be reloaded"));
        }
        Ok(())
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        self.check_usable()?;
        protocol::check_writable(&self.state.protocol, &self.state.metadata, &self.name)
    }

    /// How staged content is read.
    pub(super) fn layout(&self) -> Layout {
        let metadata = self.pending.metadata.as_ref().map_or(&self.state.metadata, |m| &m.metadata);
        Layout {
            store: self.store.clone(),
            schema: self.schema(),
            partition_columns: metadata.partition_columns.clone(),
        }
    }

    /// Where new files go.
    pub(super) fn target(&self) -> Target {
        let staged = self.pending.metadata.as_ref();
        Target {
            env: self.env.clone(),
            store: self.store.clone(),
            options: Arc::clone(&self.options),
            file_schema: Arc::clone(staged.map_or(&self.state.file_schema, |m| &m.file_schema)),
            partition_columns: staged.map_or(&self.state.metadata, |m| &m.metadata).partition_columns.clone(),
        }
    }

    /// Files with what is left of them, staged changes included. Files without rows are left out.
    pub(super) fn staged_files(&self) -> Vec<SnapshotFile> {
        let pending = &self.pending;
        let overlay = |mut file: SnapshotFile| {
            if let Some(deleted) = pending.deletes.get(&file.ordinal) {
                file.deleted = Deleted::Staged(Arc::clone(deleted));
            }
            file
        };
        let committed = self
            .state
            .files
            .iter()
            .filter(|(o, _)| !pending.replaced && !pending.removed.contains(o))
            .map(|(o, f)| snapshot_file(*o, f));
        let added = pending.added.iter().map(|(o, f)| SnapshotFile {
            ordinal: *o,
            file: Arc::clone(f),
            deleted: Deleted::None,
        });
        committed.chain(added).map(overlay).filter(|f| rows_left(f) > 0).collect()
    }

    /// `rows` as this table stores them.
    pub(super) fn conform(&self, rows: &arrow::array::RecordBatch) -> Result<arrow::array::RecordBatch> {
        let layout = self.layout();
        schema::check_columns(rows, &layout.schema, &self.name)?;
        let rows =
            schema::conform_batch(rows, &layout.schema).map_err(|e| e.context(format!("writing `{}`", self.name)))?;
        partition::canonical(rows, &layout.partition_columns)
    }
}

fn snapshot_file(ordinal: super::files::Ordinal, file: &LiveFile) -> SnapshotFile {
    SnapshotFile { ordinal, file: Arc::clone(&file.file), deleted: file.deleted() }
}

fn rows_left(file: &SnapshotFile) -> u64 {
    file.file.rows.saturating_sub(file.deleted.cardinality())
}

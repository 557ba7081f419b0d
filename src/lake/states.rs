//! Snapshots of state in the lake, `_smelt/state/<model's table>/…`, and what a table adds to its model's: where its rows are.
//!
//! They are a cache: whoever finds one damaged or missing goes on without it. A locator that comes back is made of the entries whose file
//! is still there and whose row is not deleted by now; files are immutable, so such an entry says of its file what it always
//! said, whatever was committed in between. Files that are new are hashed, and when a file's entries are not exactly its live rows
//! (rows came back), nothing of it is believed and the locator is built from the files.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::{ObjectStoreExt, PutPayload};
use roaring::RoaringBitmap;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

use super::actions::Commit;
use super::catalog::{Lake, OWN};
use super::files::Ordinal;
use super::locator::{Locator, Place};
use super::snapshot::SnapshotFile;
use super::store::TableStore;
use super::table::{INSTANCE, Table};
use crate::error::{Error, Result};
use crate::state::{StateReader, StateWriter};

/// Bytes of an object from which on it is put in parts.
const LARGE: usize = 1 << 30;
/// Bytes of a part, about.
const PART: usize = 64 << 20;

/// The first section of where a table's rows are.
pub const LOCATOR: &str = "locator.columns";

/// A stored snapshot of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredState {
    /// `<schema>.<table>`.
    pub table: String,
    /// Its file; of two the greater name is the newer one.
    pub name: String,
    pub bytes: u64,
}

impl Lake {
    fn states(&self) -> Result<TableStore> {
        self.store_at(&format!("{OWN}/state"))
    }

    /// Every stored snapshot, the newest of each table first.
    pub async fn list_states(&self) -> Result<Vec<StoredState>> {
        let mut found = Vec::new();
        for object in self.states()?.list("", None).await? {
            let parts: Vec<String> = object.location.parts().map(|p| p.as_ref().to_string()).collect();
            if let [.., table, name] = parts.as_slice()
                && name.ends_with(".state")
            {
                found.push(StoredState { table: table.clone(), name: name.clone(), bytes: object.size });
            }
        }
        found.sort_by(|a, b| (&a.table, &b.name).cmp(&(&b.table, &a.name)));
        Ok(found)
    }

    /// Some of its bytes, as far as there are so many.
    pub async fn read_state_range(&self, state: &StoredState, range: Range<u64>) -> Result<Bytes> {
        let store = self.states()?;
        let path = store.path(&format!("{}/{}", state.table, state.name))?;
        Ok(store.store.get_range(&path, range.start..range.end.min(state.bytes)).await?)
    }

    /// Puts one. A name that exists is replaced.
    pub async fn put_state(&self, table: &str, name: &str, pieces: Vec<Bytes>) -> Result<()> {
        let store = self.states()?;
        let path = store.path(&format!("{table}/{name}"))?;
        if pieces.iter().map(Bytes::len).sum::<usize>() < LARGE {
            store.store.put(&path, PutPayload::from_iter(pieces)).await?;
            return Ok(());
        }
        let mut upload = store.store.put_multipart(&path).await?;
        let (mut part, mut length) = (Vec::new(), 0);
        let sent = async {
            for piece in pieces {
                length += piece.len();
                part.push(piece);
                if length >= PART {
                    upload.put_part(PutPayload::from_iter(std::mem::take(&mut part))).await?;
                    length = 0;
                }
            }
            if !part.is_empty() {
                upload.put_part(PutPayload::from_iter(part)).await?;
            }
            upload.complete().await
        };
        let sent = sent.await;
        if let Err(error) = sent {
            // What was sent is rubbish; the store's own clean-up has it otherwise.
            let _ = upload.abort().await;
            return Err(error.into());
        }
        Ok(())
    }

    /// Deletes some; those that are gone are fine.
    pub async fn delete_states(&self, states: &[StoredState]) -> Result<()> {
        let store = self.states()?;
        let paths = states.iter().map(|s| store.path(&format!("{}/{}", s.table, s.name))).collect::<Result<_>>()?;
        store.delete(paths).await
    }
}

impl Table {
    /// Checksum of the log entry of `version`; None when it is gone. The future may outlive the table.
    pub fn entry_check(&self, version: i64) -> BoxFuture<'static, Result<Option<u64>>> {
        let store = self.store.clone();
        async move { Ok(store.try_get(&TableStore::log_path(version)).await?.map(|bytes| xxh3_64(&bytes))) }.boxed()
    }

    /// Whether every change of rows after version `after` was committed by smelt. An entry that is gone is an error.
    pub async fn only_ours_since(&self, after: i64) -> Result<bool> {
        for version in after + 1..=self.version() {
            let path = TableStore::log_path(version);
            let bytes = self.store.try_get(&path).await?.ok_or_else(|| {
                Error::environment("history-gone", format!("{path} of `{}` is gone", self.name())).permanent()
            })?;
            let commit = Commit::parse(&bytes, &path)?;
            if commit.changes_data() && commit.txn(INSTANCE).is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether another writer has put a log entry behind the last one that is known here.
    pub async fn has_successor(&self) -> Result<bool> {
        Ok(self.store.try_get(&TableStore::log_path(self.version() + 1)).await?.is_some())
    }

    /// Writes where the committed rows are, if that is known and nothing is staged.
    pub fn save_locator(&self, out: &mut StateWriter) -> Result<()> {
        let locator = self.locator.as_ref().filter(|_| !self.has_staged() && self.unresolved.is_none() && !self.lost);
        let mut paths: Vec<&[u8]> = Vec::new();
        let (mut hashes, mut of, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(locator) = locator {
            let count = locator.rows() as usize;
            (hashes, of, rows) = (Vec::with_capacity(count), Vec::with_capacity(count), Vec::with_capacity(count));
            // The numbers of files that rows are in. Asked for once a row: there may be tens of millions.
            let mut files: hashbrown::HashMap<Ordinal, u32> = hashbrown::HashMap::new();
            for (hash, recorded) in locator.entries()? {
                let place = locator.resolve(recorded)?;
                let number = match files.get(&place.file()) {
                    Some(number) => *number,
                    None => {
                        let Some(file) = self.state.files.get(&place.file()) else {
                            return Err(Error::diverged(format!("`{}`: a located file is gone", self.name)));
                        };
                        files.insert(place.file(), paths.len() as u32);
                        paths.push(file.file.log_path.as_bytes());
                        paths.len() as u32 - 1
                    }
                };
                hashes.push(hash);
                of.push(number);
                rows.push(place.row());
            }
        }
        out.bytes(LOCATOR, self.columns_text().into_bytes());
        out.strings("locator.paths", paths);
        out.shared("locator.hashes", move |put: &mut dyn FnMut(&[u128])| put(&hashes));
        out.shared("locator.files", move |put: &mut dyn FnMut(&[u32])| put(&of));
        out.shared("locator.rows", move |put: &mut dyn FnMut(&[u32])| put(&rows));
        Ok(())
    }

    /// The files that a stored locator is read against.
    pub fn locator_basis(&self) -> LocatorBasis {
        LocatorBasis { store: self.store.clone(), columns: self.columns_text(), files: self.staged_files() }
    }

    /// Remembers where the rows were, for when a locator is needed.
    pub fn offer_locator(&mut self, offered: Offered) {
        if self.locator.is_none() && offered.columns == self.columns_text() {
            self.offered = Some(offered);
        }
    }

    /// What a row's hash depends on.
    fn columns_text(&self) -> String {
        format!("{:?}", self.state.schema.fields())
    }

    /// The locator of `files` by what was offered; also the files it knows nothing of. None when it does not fit.
    pub(super) async fn offered_locator(
        &mut self,
        files: &[SnapshotFile],
    ) -> Result<Option<(Locator, Vec<SnapshotFile>)>> {
        let Some(mut offered) = self.offered.take() else { return Ok(None) };
        let mut missing = Vec::new();
        // Rows of files that have changed since they were read must be looked at one by one.
        let mut known: HashMap<Ordinal, Option<Arc<RoaringBitmap>>> = HashMap::new();
        let mut changed = false;
        for file in files {
            let Some(was) = offered.files.remove(&file.file.log_path) else {
                missing.push(file.clone());
                continue;
            };
            if was.ordinal != file.ordinal || was.rows != file.file.rows {
                return Ok(None);
            }
            let deleted = file.deleted.rows(&self.store).await?;
            changed |= deleted != was.deleted;
            known.insert(file.ordinal, deleted);
        }
        let mut locator = offered.locator;
        if changed || offered.files.values().any(|gone| locator.rows_of(gone.ordinal) > 0) {
            let is_live = |place: &Place| match known.get(&place.file()) {
                None => false,
                Some(deleted) => deleted.as_ref().is_none_or(|d| !d.contains(place.row())),
            };
            let mut left = Locator::default();
            locator.entries()?.filter(|(_, p)| is_live(p)).for_each(|(hash, place)| left.insert(hash, place));
            locator = left;
        }
        // Entries are different places, all of them live: as many as there are live rows is all of them.
        let fits = files.iter().filter(|f| known.contains_key(&f.ordinal)).all(|f| {
            let rows = locator.rows_of(f.ordinal);
            rows == 0 || rows == f.file.rows - f.deleted.cardinality()
        });
        if !fits {
            return Ok(None);
        }
        missing.extend(
            files.iter().filter(|f| known.contains_key(&f.ordinal) && locator.rows_of(f.ordinal) == 0).cloned(),
        );
        Ok(Some((locator, missing)))
    }
}

/// A table's files when its stored locator begins to be read.
pub struct LocatorBasis {
    store: TableStore,
    columns: String,
    files: Vec<SnapshotFile>,
}

impl LocatorBasis {
    /// Reads which of their rows are gone.
    pub async fn ready(self) -> Result<ReadyBasis> {
        let mut files = HashMap::new();
        for file in self.files {
            let deleted = file.deleted.rows(&self.store).await?;
            files
                .insert(file.file.log_path.clone(), KnownFile { ordinal: file.ordinal, rows: file.file.rows, deleted });
        }
        Ok(ReadyBasis { columns: self.columns, files })
    }
}

/// A file as it was when its rows were read.
struct KnownFile {
    ordinal: Ordinal,
    /// Deleted ones included.
    rows: u64,
    deleted: Option<Arc<RoaringBitmap>>,
}

/// What stored rows are looked up in.
pub struct ReadyBasis {
    columns: String,
    /// By their paths in the log.
    files: HashMap<String, KnownFile>,
}

impl ReadyBasis {
    /// The table's part of stored state, by `threads` threads; None when it has none or belongs to other columns.
    pub fn read(self, mut from: StateReader, threads: usize) -> Result<Option<Offered>> {
        let columns = from.bytes(LOCATOR)?;
        let paths = from.strings("locator.paths")?;
        let hashes = from.words::<u128>("locator.hashes")?;
        let numbers = from.exactly::<u32>("locator.files", hashes.len())?;
        let rows = from.exactly::<u32>("locator.rows", hashes.len())?;
        from.finish()?;
        if columns.as_slice() != self.columns.as_bytes() || hashes.is_empty() {
            return Ok(None);
        }
        let files: Vec<Option<&KnownFile>> =
            paths.iter().map(|path| self.files.get(String::from_utf8_lossy(path).as_ref())).collect();
        let place = |i: usize| {
            let (file, row) = ((*files.get(numbers[i] as usize)?)?, rows[i]);
            let is_live = u64::from(row) < file.rows && file.deleted.as_ref().is_none_or(|d| !d.contains(row));
            is_live.then(|| Place::new(file.ordinal, row))
        };
        let locator = Locator::load(hashes, threads, place)?;
        Ok(Some(Offered { columns: self.columns, locator, files: self.files }))
    }
}

/// Where rows were when state was stored, as far as they were still there when it was read.
pub struct Offered {
    columns: String,
    locator: Locator,
    files: HashMap<String, KnownFile>,
}

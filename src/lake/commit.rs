//! The commit: one log entry, put exactly at the next version, create-if-absent. No listing and no read unless something
//! went wrong.
//!
//! ```text
//! put v+1 ── ok ──────────────────────────────────────────► ours
//!    │ exists ──► read v+1 ── our payload's uuid ─────────► ours (our own put had landed)
//!    │                     └─ somebody else's ────────────► lost race, see below
//!    └ error ───► read v+1 ── not there ── the same bytes again: it may still land
//! ```
//!
//! After a lost race: a higher instance number ends this process (`Fenced`); an entry of our own number or a lower
//! one means our state is stale (`Diverged`: reload, recover); a foreign commit that only moved rows is applied, staged
//! deletions are located again, and version v+2 is tried; one that changed data is `foreign-change`. Never are the
//! same actions put at another version without that: a stale Remove would resurrect rows.

use bytes::Bytes;
use roaring::RoaringBitmap;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::actions::{Commit, INFO_MEMBER, Line, Metadata, PAYLOAD_MEMBER, Protocol, Remove, Txn};
use super::encode::engine;
use super::files::{LiveFile, Ordinal};
use super::pending::{Pending, Undo};
use super::reader;
use super::state::Tombstone;
use super::store::{Created, TableStore};
use super::table::{INSTANCE, Table};
use super::vector::{self, Vector};
use crate::error::{Error, ErrorKind, Result};
use futures::TryStreamExt;

/// First wait after an unconfirmed put; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// What a commit says besides its rows.
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    /// Positions, the epoch, and [`INSTANCE`].
    pub txns: Vec<(String, i64)>,
    /// Table properties to set.
    pub properties: BTreeMap<String, String>,
    /// For people: epoch, rows in and out.
    pub info: Map<String, Value>,
}

/// A log entry that was built, and what it does to the state.
#[derive(Debug)]
pub(super) struct Prepared {
    version: i64,
    payload: String,
    bytes: Bytes,
    effect: Effect,
}

/// Changes of the state, in the order in which they are applied.
#[derive(Debug, Default)]
pub(super) struct Effect {
    pub removes: Vec<(Ordinal, Remove)>,
    pub vectors: Vec<(Ordinal, Arc<Vector>, Remove)>,
    pub adds: Vec<(Ordinal, LiveFile)>,
    pub protocol: Option<Protocol>,
    pub metadata: Option<Metadata>,
    pub txns: Vec<Txn>,
}

impl Effect {
    /// The actions, Removes before Adds.
    pub fn lines(&self, table: &Table, data_change: bool) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        lines.extend(self.protocol.clone().map(Line::from));
        lines.extend(self.metadata.clone().map(Line::from));
        lines.extend(self.txns.iter().cloned().map(Line::from));
        lines.extend(self.removes.iter().map(|(_, r)| Line::from(r.clone())));
        lines.extend(self.vectors.iter().map(|(_, _, r)| Line::from(r.clone())));
        for (ordinal, vector, _) in &self.vectors {
            if let Some(file) = table.state.files.get(ordinal) {
                let file = LiveFile { file: Arc::clone(&file.file), vector: Some(Arc::clone(vector)) };
                lines.push(Line::from(file.to_add(data_change)));
            }
        }
        lines.extend(self.adds.iter().map(|(_, f)| Line::from(f.to_add(data_change))));
        lines
    }
}

enum Outcome {
    Landed,
    /// The entries from v+1 on are somebody else's.
    Lost(Vec<(i64, Commit)>),
}

impl Table {
    /// Uploads what the next commit still lacks: its deletion vectors, packed into one file. `commit` does it too; calling it
    /// before lets the uploads of several tables run side by side.
    pub async fn prepare(&mut self) -> Result<()> {
        let mut todo: Vec<(Ordinal, Arc<RoaringBitmap>)> = Vec::new();
        for (file, deleted) in &self.pending.deletes {
            let done = self.pending.vectors.get(file).is_some_and(|(bitmap, _)| Arc::ptr_eq(bitmap, deleted));
            let found = self.pending.added.get(file).or_else(|| self.state.files.get(file).map(|f| &f.file));
            let whole = found.is_some_and(|f| f.rows == deleted.len());
            if !done && !whole && !deleted.is_empty() {
                todo.push((*file, Arc::clone(deleted)));
            }
        }
        if todo.is_empty() {
            return Ok(());
        }
        let bitmaps: Vec<Arc<RoaringBitmap>> = todo.iter().map(|(_, d)| Arc::clone(d)).collect();
        let (name, bytes, descriptors) = vector::pack(&bitmaps, self.env.new_uuid())?;
        self.store.put(&name, bytes).await?;
        for ((file, deleted), descriptor) in todo.into_iter().zip(descriptors) {
            let vector = Arc::new(Vector::known(descriptor, Arc::clone(&deleted)));
            self.pending.vectors.insert(file, (deleted, vector));
        }
        Ok(())
    }

    /// Commits everything staged, and `request`, as the next version; also when nothing is staged. After a retryable error
    /// call it again: the same bytes are tried until their fate is known. Or [`Table::discard`], after which the table
    /// must be reloaded.
    pub async fn commit(&mut self, request: CommitRequest) -> Result<i64> {
        self.check_writable()?;
        loop {
            let prepared = match self.unresolved.take() {
                Some(prepared) => prepared,
                None => {
                    self.prepare().await?;
                    let effect = self.staged_effect(&request);
                    self.entry(effect, "STREAMING UPDATE", request.info.clone(), true)?
                }
            };
            self.env.crash_point("before-log-put")?;
            let (version, payload, bytes) = (prepared.version, prepared.payload.clone(), prepared.bytes.clone());
            // Kept while its fate is unknown, also if this future is dropped.
            self.unresolved = Some(prepared);
            let outcome = self.put_entry(version, &payload, &bytes).await?;
            match outcome {
                Outcome::Landed => {
                    self.env.crash_point("after-log-put")?;
                    if let Some(prepared) = self.unresolved.take() {
                        self.land(prepared)?;
                        self.docs_differ = false;
                    }
                    return Ok(version);
                }
                Outcome::Lost(commits) => {
                    // The version is taken for good: these bytes can never land.
                    self.unresolved = None;
                    self.rebase(&request, commits).await?;
                }
            }
        }
    }

    /// One commit of background work: moves rows, changes none. Returns whether it landed; a lost race leaves nothing.
    pub(super) async fn commit_moves(&mut self, effect: Effect, info: Map<String, Value>) -> Result<bool> {
        let prepared = self.entry(effect, "OPTIMIZE", info, false)?;
        let (version, payload, bytes) = (prepared.version, prepared.payload.clone(), prepared.bytes.clone());
        match self.put_entry(version, &payload, &bytes).await {
            Ok(Outcome::Landed) => {
                self.env.crash_point("compaction-after-put")?;
                self.apply_effect(prepared.effect, version)?;
                Ok(true)
            }
            Ok(Outcome::Lost(_)) => Ok(false),
            Err(e) => {
                // It may land later, and then the next commit finds an entry of our own number that it does not know.
                self.lost = true;
                Err(e)
            }
        }
    }

    fn staged_effect(&self, request: &CommitRequest) -> Effect {
        let now = self.env.now_millis();
        let pending = &self.pending;
        let mut effect = Effect::default();
        if pending.replaced {
            effect.removes.extend(self.state.files.iter().map(|(o, f)| (*o, f.to_remove(now, true))));
        } else {
            let removed =
                pending.removed.iter().filter_map(|o| Some((*o, self.state.files.get(o)?.to_remove(now, true))));
            effect.removes.extend(removed);
            for (ordinal, deleted) in &pending.deletes {
                let Some(file) = self.state.files.get(ordinal) else { continue };
                let old = file.to_remove(now, true);
                match pending.vectors.get(ordinal) {
                    Some((bitmap, vector)) if Arc::ptr_eq(bitmap, deleted) => {
                        effect.vectors.push((*ordinal, Arc::clone(vector), old));
                    }
                    // No vector was made: no row is left.
                    _ => effect.removes.push((*ordinal, old)),
                }
            }
        }
        for (ordinal, file) in &pending.added {
            let vector = match pending.deletes.get(ordinal) {
                // Staged and gone again within one commit: it was never there.
                Some(deleted) if deleted.len() == file.rows => continue,
                Some(_) => pending.vectors.get(ordinal).map(|(_, v)| Arc::clone(v)),
                None => None,
            };
            effect.adds.push((*ordinal, LiveFile { file: Arc::clone(file), vector }));
        }
        let mut metadata = pending.metadata.as_ref().map_or(&self.state.metadata, |m| &m.metadata).clone();
        metadata.configuration.extend(request.properties.clone());
        if let Some(docs) = self.docs.as_ref().filter(|_| self.docs_differ || pending.metadata.is_some()) {
            docs.apply(&mut metadata);
        }
        if metadata != self.state.metadata {
            effect.metadata = Some(metadata);
        }
        if pending.upgrade_ntz {
            effect.protocol = Some(with_ntz(&self.state.protocol));
        }
        let last_updated = Some(now);
        effect.txns.extend(request.txns.iter().map(|(app, version)| Txn {
            app_id: app.clone(),
            version: *version,
            last_updated,
        }));
        effect
    }

    /// The log entry of `effect` at the next version.
    fn entry(&self, effect: Effect, operation: &str, info: Map<String, Value>, data_change: bool) -> Result<Prepared> {
        let version = self.state.version + 1;
        let payload = self.env.new_uuid().to_string();
        let appends = effect.removes.is_empty() && effect.vectors.is_empty() && data_change;
        let mut lines = vec![commit_info(self.env.now_millis(), operation, &payload, info, appends)];
        lines.extend(effect.lines(self, data_change));
        if !data_change {
            // Also a commit of background work says who made it.
            let number = self.txn(INSTANCE);
            let last_updated = Some(self.env.now_millis());
            lines.extend(number.map(|version| Line::from(Txn { app_id: INSTANCE.into(), version, last_updated })));
            for line in &mut lines {
                if let Some(remove) = &mut line.remove {
                    remove.data_change = false;
                }
            }
        }
        let bytes = Commit(lines).to_bytes()?.into();
        Ok(Prepared { version, payload, bytes, effect })
    }

    async fn put_entry(&self, version: i64, payload: &str, bytes: &Bytes) -> Result<Outcome> {
        let path = TableStore::log_path(version);
        let mut wait = FIRST_WAIT;
        let mut attempt = 0;
        loop {
            let cause = match self.store.create(&path, bytes.clone()).await? {
                Created::Yes => return Ok(Outcome::Landed),
                Created::Exists => None,
                Created::Unknown(e) => Some(e),
            };
            match (self.store.try_get(&path).await, cause) {
                (Ok(Some(found)), _) => {
                    let commit = Commit::parse(&found, &path)?;
                    if commit.payload() == Some(payload) {
                        return Ok(Outcome::Landed);
                    }
                    return Ok(Outcome::Lost(self.entries_from(version, commit).await?));
                }
                (Ok(None), Some(cause)) | (Err(cause), _) => {
                    if attempt >= self.options.put_retries {
                        return Err(cause.context(format!("committing version {version} of `{}`", self.name)));
                    }
                }
                // It exists, yet cannot be seen: a store that is not yet consistent.
                (Ok(None), None) if attempt < self.options.put_retries => {}
                (Ok(None), None) => {
                    return Err(Error::environment(
                        "object-store",
                        format!("version {version} of `{}` exists but cannot be read", self.name),
                    ));
                }
            }
            attempt += 1;
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }

    /// `first` at `version`, and every entry after it.
    pub(super) async fn entries_from(&self, version: i64, first: Commit) -> Result<Vec<(i64, Commit)>> {
        let mut commits = vec![(version, first)];
        loop {
            let next = version + commits.len() as i64;
            let path = TableStore::log_path(next);
            match self.store.try_get(&path).await? {
                Some(bytes) => commits.push((next, Commit::parse(&bytes, &path)?)),
                None => return Ok(commits),
            }
        }
    }

    /// Others committed first. Decides whether we may go on, and brings state and staged changes onto their version.
    async fn rebase(&mut self, request: &CommitRequest, commits: Vec<(i64, Commit)>) -> Result<()> {
        let given = request.txns.iter().find(|(app, _)| app == INSTANCE).map(|(_, n)| *n);
        let ours = given.or_else(|| self.txn(INSTANCE)).unwrap_or(0);
        for (version, commit) in &commits {
            let theirs = commit.txn(INSTANCE);
            if let Some(theirs) = theirs
                && theirs > ours
            {
                return Err(Error::new(
                    ErrorKind::Fenced,
                    "fenced",
                    format!("instance {theirs} of smelt has taken over `{}` at version {version}", self.name),
                )
                .with_hint("this process is stopping; the newer one goes on"));
            }
            if theirs.is_some() {
                self.lost = true;
                return Err(Error::diverged(format!(
                    "version {version} of `{}` was committed by instance {} of smelt without this process knowing",
                    self.name,
                    theirs.unwrap_or(0)
                )));
            }
            if commit.changes_data() {
                self.lost = true;
                return Err(Error::new(
                    ErrorKind::Environment,
                    "foreign-change",
                    format!(
                        "version {version} of `{}` was committed by another program and changes its data",
                        self.name
                    ),
                )
                .with_hint(
                    "smelt owns the tables of its models: restart to recompute the table, and write elsewhere",
                ));
            }
        }
        let touched: BTreeMap<Ordinal, LiveFile> = self
            .pending
            .deletes
            .keys()
            .chain(&self.pending.removed)
            .filter_map(|o| Some((*o, self.state.files.get(o)?.clone())))
            .collect();
        let mut gone = Vec::new();
        for (version, commit) in &commits {
            let store = self.store.clone();
            gone.extend(self.state.apply(*version, commit, &store).await?);
        }
        if !gone.is_empty() {
            self.relocate(&gone, touched).await?;
        }
        Ok(())
    }

    /// Files that left were rewritten by somebody else: what was to be deleted from them is located anew.
    async fn relocate(&mut self, gone: &[Ordinal], touched: BTreeMap<Ordinal, LiveFile>) -> Result<()> {
        // Places in files that left mean nothing any more.
        self.locator = None;
        self.pending.undo.clear();
        self.pending.forget_locator = true;
        if gone.iter().any(|o| self.pending.removed.contains(o)) {
            self.lost = true;
            return Err(Error::diverged(format!("a file of `{}` was rewritten twice at the same time", self.name)));
        }
        let mut lost = Vec::new();
        for ordinal in gone {
            let (Some(deleted), Some(file)) = (self.pending.deletes.remove(ordinal), touched.get(ordinal)) else {
                continue;
            };
            let before = file.deleted().rows(&self.store).await?;
            let new = before.map_or_else(|| (*deleted).clone(), |before| &*deleted - &*before);
            let selection = reader::only(&new, file.file.rows);
            let mut rows = reader::open(&self.layout(), &file.file, Some(selection)).await?;
            while let Some(batch) = rows.try_next().await? {
                lost.extend(self.hasher.hash(&batch)?);
            }
        }
        if lost.is_empty() {
            return Ok(());
        }
        self.ensure_locator().await?;
        if let Some(locator) = &mut self.locator {
            locator.warm(&lost)?;
        }
        let mut rows: BTreeMap<Ordinal, Vec<u32>> = BTreeMap::new();
        for hash in lost {
            let Some(place) = self.locator.as_mut().and_then(|l| l.remove(hash)) else {
                self.lost = true;
                return Err(Error::diverged(format!(
                    "a row of `{}` is gone after another program's commit",
                    self.name
                )));
            };
            rows.entry(place.file()).or_default().push(place.row());
            self.pending.undo.push(Undo::Removed(hash, place));
        }
        let deletes = self.delete_rows(rows).await?;
        self.pending.deletes.extend(deletes);
        Ok(())
    }

    /// The staged changes are committed: they become the state.
    fn land(&mut self, prepared: Prepared) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.apply_effect(prepared.effect, prepared.version)?;
        let Pending { added, undo, orphans, deletes, .. } = pending;
        for step in undo {
            if let (Undo::Removed(_, place), Some(locator)) = (step, &mut self.locator) {
                locator.release(place.file());
            }
        }
        self.maintenance.orphans.extend(orphans);
        // Files that were staged and emptied within this commit are in no log entry.
        for (ordinal, file) in added {
            if deletes.get(&ordinal).is_some_and(|d| d.len() == file.rows) {
                self.maintenance.orphans.push(file.log_path.clone());
            }
        }
        Ok(())
    }

    pub(super) fn apply_effect(&mut self, effect: Effect, version: i64) -> Result<()> {
        let state = &mut self.state;
        for (ordinal, remove) in effect.removes {
            state.remove(ordinal, Tombstone { remove, version });
        }
        for (ordinal, vector, remove) in effect.vectors {
            state.set_vector(ordinal, Some(vector), Tombstone { remove, version });
        }
        for (ordinal, file) in effect.adds {
            state.insert(ordinal, file);
        }
        for txn in &effect.txns {
            state.set_txn(txn);
        }
        if let Some(protocol) = effect.protocol {
            state.protocol = protocol;
        }
        if let Some(metadata) = effect.metadata {
            state.set_metadata(metadata)?;
        }
        state.version = version;
        Ok(())
    }
}

fn with_ntz(protocol: &Protocol) -> Protocol {
    let with = |features: &Option<Vec<String>>| {
        let mut features = features.clone().unwrap_or_default();
        features.push("timestampNtz".to_string());
        Some(features)
    };
    let legacy = protocol.min_writer_version < 7;
    let mut writer_features = with(&protocol.writer_features);
    if legacy {
        // What writer version 2 implied has to be named from version 7 on.
        writer_features.iter_mut().for_each(|f| f.extend(["appendOnly".to_string(), "invariants".to_string()]));
    }
    Protocol {
        min_reader_version: 3,
        min_writer_version: 7,
        reader_features: with(&protocol.reader_features),
        writer_features,
    }
}

/// The first line of an entry.
pub(super) fn commit_info(
    now_millis: i64,
    operation: &str,
    payload: &str,
    mut info: Map<String, Value>,
    blind_append: bool,
) -> Line {
    info.insert(PAYLOAD_MEMBER.to_string(), Value::String(payload.to_string()));
    let members = json!({
        "timestamp": now_millis,
        "operation": operation,
        "operationParameters": {},
        "isBlindAppend": blind_append,
        "engineInfo": engine(),
        INFO_MEMBER: info,
    });
    let Value::Object(members) = members else { return Line::default() };
    Line { commit_info: Some(members), ..Line::default() }
}

//! A table that somebody else commits to, followed from version to version.
//!
//! Its log is read once. From then on a look costs two requests, however long the log is: what is behind the last entry that is known, and is
//! that one still the object it was? New entries are applied to the state in memory. A last entry that is gone, or is another one, means that
//! the log was cleaned up or that a new table has taken the name: then the log is read again, and the table's id tells which.

use object_store::{ObjectMeta, ObjectStoreExt};
use std::sync::Arc;

use super::actions::Commit;
use super::catalog::Lake;
use super::changes::ChangedPaths;
use super::hash::RowHasher;
use super::protocol;
use super::store::TableStore;
use super::table::Table;
use crate::error::{Error, Result};
use crate::types::SignedBatch;

/// A table by its name, which need not be there yet. After an error it is not to be used any more: open it again.
#[derive(Debug)]
pub struct FollowedTable {
    /// The lake it is in.
    pub lake: Lake,
    pub schema: String,
    pub name: String,
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    table: Table,
    /// The log entry of its version, unless only a checkpoint is left.
    entry: Option<ObjectMeta>,
}

impl Lake {
    /// Starts at the newest version of a table.
    pub async fn follow(&self, schema: &str, name: &str) -> Result<FollowedTable> {
        let mut followed =
            FollowedTable { lake: self.clone(), schema: schema.to_string(), name: name.to_string(), known: None };
        followed.known = followed.load().await?;
        Ok(followed)
    }
}

impl FollowedTable {
    /// As of the last look; None as long as there is none.
    pub fn table(&self) -> Option<&Table> {
        self.known.as_ref().map(|known| &known.table)
    }

    /// Goes to the newest version. What has changed since the last look: all rows of a table that was not there. Errors: `diverged` when
    /// another table has taken the name, `history-gone` when the log no longer says what changed.
    pub async fn advance(&mut self) -> Result<Vec<SignedBatch>> {
        let Some(known) = &mut self.known else {
            self.known = self.load().await?;
            return match self.table() {
                Some(table) => table.all_rows().await,
                None => Ok(Vec::new()),
            };
        };
        let at = known.table.version();
        let next = TableStore::log_path(at + 1);
        let (entry, first) = tokio::try_join!(entry_of(&known.table), known.table.store.try_get(&next))?;
        if entry != known.entry {
            return self.read_again(at).await;
        }
        let Some(first) = first else { return Ok(Vec::new()) };
        let commits = known.table.entries_from(at + 1, Commit::parse(&first, &next)?).await?;
        let mut paths = ChangedPaths::default();
        for (version, commit) in &commits {
            known.table.take_on(*version, commit).await?;
            paths.note(commit);
        }
        known.entry = entry_of(&known.table).await?;
        known.table.changes_of(paths, at, known.table.version()).await
    }

    async fn load(&self) -> Result<Option<Known>> {
        let Some(mut table) = self.lake.table(&self.schema, &self.name).await? else { return Ok(None) };
        table.state.tombstones.clear();
        let entry = entry_of(&table).await?;
        Ok(Some(Known { table, entry }))
    }

    async fn read_again(&mut self, at: i64) -> Result<Vec<SignedBatch>> {
        let found = self.load().await?;
        let (Some(before), Some(now)) = (self.table(), &found) else { return Ok(Vec::new()) };
        if now.table.id() != before.id() || now.table.version() < at {
            return Err(Error::diverged(format!("another table has taken the place of `{}`", before.name()))
                .with_hint("what reads it is compared with the new table's rows"));
        }
        let changes = now.table.changes(at, now.table.version()).await?;
        self.known = found;
        Ok(changes)
    }
}

impl Table {
    /// Applies the commit of `version`, made by somebody else. What it removed is theirs to clean up: no tombstones are kept.
    async fn take_on(&mut self, version: i64, commit: &Commit) -> Result<()> {
        self.state.apply(version, commit, &self.store).await?;
        self.state.tombstones.clear();
        if commit.0.iter().any(|line| line.protocol.is_some() || line.meta_data.is_some()) {
            protocol::check_readable(&self.state.protocol, &self.state.metadata, &self.name)?;
            self.hasher = Arc::new(RowHasher::new(&self.state.schema)?);
        }
        Ok(())
    }
}

/// What tells the last log entry of a table from one that took its place.
async fn entry_of(table: &Table) -> Result<Option<ObjectMeta>> {
    match table.store.store.head(&table.store.path(&TableStore::log_path(table.version()))?).await {
        Ok(entry) => Ok(Some(entry)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

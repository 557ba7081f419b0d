//! A table of the pipeline with the positions it holds, and uploads that run beside the epoch.

use datafusion::execution::SessionState;
use std::collections::BTreeMap;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::lake::{CommitRequest, StageSummary, Table};
use crate::state::StateMemory;
use crate::types::SignedBatch;

/// A table and how far it has consumed its inputs.
pub(super) struct Cell {
    slot: Slot,
    /// Committed positions by `txn` name, own and from the epochs table.
    pub consumed: BTreeMap<String, i64>,
    /// Positions this epoch reaches; they become `consumed` once the epoch is committed.
    pub pending: BTreeMap<String, i64>,
    /// Properties the next commit sets.
    pub properties: BTreeMap<String, String>,
    /// `consumed` names a version that the lake does not know as consumed yet: the upstream moved without a change.
    pub unsaved: bool,
    /// Why an upload failed. What it staged is incomplete until it is discarded, whoever asks first.
    failed: Option<Error>,
    /// A commit is due even without rows.
    pub must_commit: bool,
    /// Somebody else has written to the table: a commit is due, to learn what.
    pub is_overtaken: bool,
    /// What was staged in this epoch.
    pub staged: StageSummary,
    /// µs of the last commit, for the heartbeat.
    pub last_commit: i64,
    /// The memory its locators take, once it has any.
    locators: Option<StateMemory>,
}

enum Slot {
    Here(Box<Table>),
    /// An upload holds it.
    Away(JoinHandle<(Box<Table>, Result<StageSummary>)>),
    /// An upload panicked or was lost with its task: the pipeline restarts from the lake.
    Lost,
}

impl Cell {
    pub(super) fn new(table: Table, consumed: BTreeMap<String, i64>, now: i64) -> Self {
        Cell {
            slot: Slot::Here(Box::new(table)),
            consumed,
            pending: BTreeMap::new(),
            unsaved: false,
            failed: None,
            properties: BTreeMap::new(),
            must_commit: false,
            is_overtaken: false,
            staged: StageSummary::default(),
            last_commit: now,
            locators: None,
        }
    }

    /// Counts the table's locators, after a commit, against the memory of `model`. They go to disk where there is too little.
    pub(super) async fn reserve_locators(&mut self, model: &str, session: &SessionState) -> Result<()> {
        self.ready().await?.put_locator_away(false)?;
        let bytes = self.table()?.locator_size().1;
        if bytes == 0 && self.locators.is_none() {
            return Ok(());
        }
        let mut memory = self.locators.take().unwrap_or_else(|| StateMemory::new(model, "locators", session));
        if memory.resize(bytes).is_err() {
            self.ready().await?.put_locator_away(true)?;
            memory.resize(self.table()?.locator_size().1)?;
        }
        self.locators = Some(memory);
        Ok(())
    }

    /// The table, once its uploads have ended. An upload's error comes out here, every time until [`Cell::discard`]: a reader
    /// may be the first to ask, and the table must not commit what is left.
    pub(super) async fn ready(&mut self) -> Result<&mut Table> {
        if let Slot::Away(_) = self.slot
            && let Slot::Away(handle) = std::mem::replace(&mut self.slot, Slot::Lost)
        {
            let (table, result) =
                handle.await.map_err(|e| Error::internal(format!("an upload ended unexpectedly: {e}")))?;
            self.slot = Slot::Here(table);
            match result {
                Ok(summary) => {
                    self.staged.inserted += summary.inserted;
                    self.staged.deleted += summary.deleted;
                }
                Err(error) => self.failed = Some(error),
            }
        }
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        match &mut self.slot {
            Slot::Here(table) => Ok(table),
            _ => Err(lost()),
        }
    }

    /// The table while no upload runs.
    pub(super) fn table(&self) -> Result<&Table> {
        match &self.slot {
            Slot::Here(table) => Ok(table),
            _ => Err(lost()),
        }
    }

    /// The same, to change what no commit writes.
    pub(super) fn table_mut(&mut self) -> Result<&mut Table> {
        match &mut self.slot {
            Slot::Here(table) => Ok(table),
            _ => Err(lost()),
        }
    }

    /// Starts uploading a change; [`Cell::ready`] waits for it.
    pub(super) async fn stage(&mut self, delta: Vec<SignedBatch>) -> Result<()> {
        if delta.iter().all(SignedBatch::is_empty) {
            return Ok(());
        }
        self.ready().await?;
        if let Slot::Here(mut table) = std::mem::replace(&mut self.slot, Slot::Lost) {
            self.slot = Slot::Away(tokio::spawn(async move {
                let result = table.stage(&delta).await;
                (table, result)
            }));
        }
        Ok(())
    }

    /// Forgets what this epoch staged.
    pub(super) async fn discard(&mut self) {
        self.pending.clear();
        self.staged = StageSummary::default();
        // The error of a failed upload is why we are here.
        let _ = self.ready().await;
        self.failed = None;
        if let Slot::Here(table) = &mut self.slot {
            table.discard();
        }
    }

    /// Whether the epoch has something to commit here.
    pub(super) fn is_due(&self, now: i64, heartbeat: i64) -> bool {
        let staged = self.table().is_ok_and(Table::has_staged);
        staged
            || self.must_commit
            || self.is_overtaken
            || !self.properties.is_empty()
            || (self.has_moved() && now - self.last_commit > heartbeat)
    }

    /// Whether a position is not in the lake yet.
    pub(super) fn has_moved(&self) -> bool {
        self.unsaved || self.pending.iter().any(|(app, position)| self.consumed.get(app) != Some(position))
    }

    /// Commits what is staged, with the positions that moved and the given `txn`s.
    pub(super) async fn commit(
        &mut self,
        extra: Vec<(String, i64)>,
        info: serde_json::Map<String, serde_json::Value>,
        now: i64,
    ) -> Result<i64> {
        let mut txns: Vec<(String, i64)> = self
            .pending
            .iter()
            .filter(|(app, position)| self.consumed.get(*app) != Some(*position))
            .map(|(app, position)| (app.clone(), *position))
            .collect();
        txns.extend(extra);
        let properties = std::mem::take(&mut self.properties);
        self.must_commit = false;
        self.is_overtaken = false;
        let table = self.ready().await?;
        let version = table.commit(CommitRequest { txns, properties, info }).await?;
        self.last_commit = now;
        Ok(version)
    }

    /// The epoch is over: what was pending is the position.
    pub(super) fn settle(&mut self) -> StageSummary {
        self.consumed.append(&mut self.pending);
        self.unsaved = false;
        std::mem::take(&mut self.staged)
    }
}

fn lost() -> Error {
    Error::internal("a table was lost with its upload").with_hint("the pipeline restarts from the lake")
}

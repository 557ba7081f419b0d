//! What an epoch did, for people and metrics.

use std::time::Duration;

use super::compute::{How, Outcome};
use crate::error::Error;
use crate::plan::Measured;
use crate::project::{Materialization, Model};

/// What one epoch did.
#[derive(Debug, Clone)]
pub struct EpochReport {
    /// Number of the last committed epoch.
    pub epoch: i64,
    /// The first epoch after a start: tables caught up with their upstreams.
    pub recovery: bool,
    /// Whether any table got a commit.
    pub changed: bool,
    /// Rows read from sources.
    pub rows_read: usize,
    /// One per model, in topological order.
    pub models: Vec<ModelReport>,
    /// Time in operators, uploads of earlier models overlapping.
    pub compute: Duration,
    /// Time waiting for uploads after that.
    pub upload: Duration,
    /// Time putting log entries.
    pub commit: Duration,
}

/// What one epoch did to one model.
#[derive(Debug, Clone)]
pub struct ModelReport {
    /// `schema.alias`.
    pub table: String,
    pub model: String,
    pub materialized: Materialization,
    pub how: How,
    /// Planned instant of its run in this epoch, µs.
    pub run: Option<i64>,
    pub rows_in: usize,
    /// Rows added to and removed from the table.
    pub inserted: u64,
    pub deleted: u64,
    pub dead_letters: u64,
    pub quarantined: u64,
    /// Rows of windows that had closed.
    pub late: u64,
    /// (expectation, rows that violated it).
    pub violations: Vec<(String, usize)>,
    pub version: i64,
    /// Rows in the table now.
    pub table_rows: u64,
    pub committed: bool,
    pub busy: Duration,
}

impl ModelReport {
    pub(super) fn new(model: &Model) -> Self {
        ModelReport {
            table: super::full_name(model),
            model: model.name.clone(),
            materialized: model.materialized,
            how: How::Idle,
            run: None,
            rows_in: 0,
            inserted: 0,
            deleted: 0,
            dead_letters: 0,
            quarantined: 0,
            late: 0,
            violations: Vec::new(),
            version: -1,
            table_rows: 0,
            committed: false,
            busy: Duration::ZERO,
        }
    }

    pub(super) fn note(&mut self, outcome: &Outcome) {
        self.how = outcome.how;
        self.run = outcome.run;
        self.rows_in = outcome.rows_in;
        self.violations.clone_from(&outcome.violations);
    }
}

/// What a run tells whoever watches it.
#[derive(Debug)]
pub enum Event<'a> {
    /// The pipeline is open; so many tables and sources.
    Opened { tables: usize, sources: usize, instance: i64 },
    /// An epoch is committed. `lag`: rows behind the end, over all partitions of all sources, as far as known.
    Epoch { report: &'a EpochReport, lag: i64 },
    /// A model was stopped by an error.
    Parked { model: &'a str, error: &'a Error },
    /// A run of a model that is made at times failed; it is tried again after `retry`, or at its next planned instant.
    RunFailed { model: &'a str, planned: i64, error: &'a Error, retry: Option<Duration> },
    /// Figures of the circuits, by model: from time to time, and at the end.
    Measured(&'a [(String, Measured)]),
    /// Something worth saying.
    Note(&'a str),
    /// The pipeline is restarted from the lake after an error.
    Restarting { error: &'a Error, wait: Duration },
}

/// Who watches a run.
pub type Watcher = std::sync::Arc<dyn Fn(&Event<'_>) + Send + Sync>;

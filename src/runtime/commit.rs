//! The commit round of an epoch: log entries in topological order, then one row in `_smelt/epochs`.
//!
//! Models that do not depend on each other commit beside each other: what a put waits for is the disk. A table's entry is
//! put only when those of all its upstreams have landed, so it never refers to an upstream version that does not exist.

use futures::future::join_all;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use super::pipeline::{Node, Pipeline, Upstream, cell_name};
use super::positions::{EPOCH, INSTANCE, epoch_key, table_app};
use super::report::ModelReport;
use crate::error::{Error, Result};
use crate::lake::EpochRow;
use crate::types::RejectKind;

/// What all commits of a round share.
struct Round {
    epoch: i64,
    /// `txn`s beside a table's own positions.
    extra: Vec<(String, i64)>,
    /// µs.
    now: i64,
    heartbeat: i64,
}

/// What became of one model's tables.
#[derive(Default)]
struct Committed {
    /// A position moved, with a commit or without.
    moved: bool,
    any: bool,
    main: bool,
    /// Somebody else changed a table's rows.
    foreign: Option<Error>,
}

impl Pipeline {
    /// Puts the log entries in topological order, then the epochs row. Returns whether anything was committed.
    pub(super) async fn commit_all(&mut self, reports: &mut [ModelReport]) -> Result<bool> {
        let now = self.env.now_micros();
        let epoch = self.epoch + 1;
        let round = Round {
            epoch,
            extra: vec![(INSTANCE.to_string(), self.instance), (EPOCH.to_string(), epoch)],
            now,
            heartbeat: i64::try_from(self.project.target.heartbeat.as_micros()).unwrap_or(i64::MAX),
        };
        let mut committed = false;
        let mut moved = false;
        let levels = self.levels();
        for level in 0..=levels.iter().copied().max().unwrap_or(0) {
            for index in 0..self.nodes.len() {
                if levels[index] == level && self.nodes[index].runs() {
                    self.note_versions(index)?;
                }
            }
            let models = self.nodes.iter_mut().enumerate().filter(|(i, node)| levels[*i] == level && node.runs());
            let puts = models.map(|(index, node)| {
                let (round, rows_in) = (&round, reports[index].rows_in);
                async move { (index, node.commit(round, rows_in).await) }
            });
            // All of them end, also when one fails: a put that nobody waits for would stay in doubt.
            for (index, outcome) in join_all(puts).await {
                let outcome = outcome?;
                committed |= outcome.any;
                moved |= outcome.moved;
                reports[index].committed |= outcome.main;
                if let Some(error) = outcome.foreign {
                    if self.repairs(&self.nodes[index].compiled.model) {
                        return Err(self.repairing(index, &error));
                    }
                    // The model and what reads it stop, the others commit.
                    self.park(index, error).await;
                    if let Some(cell) = &mut self.nodes[index].main {
                        cell.ready().await?.reload().await?;
                    }
                    self.park_readers().await;
                }
            }
        }
        if committed || moved {
            self.env.crash_point("before-epochs-row")?;
            self.epoch = epoch;
            let row = self.epochs_row(now)?;
            self.epochs.append(row).await?;
            self.env.crash_point("after-epochs-row")?;
        }
        self.settle(reports)?;
        Ok(committed)
    }

    /// The pipeline starts again from the lake, as after a crash: a view is recomputed and compared with the rows it has now. A
    /// streaming table keeps the rows it was given. What reads either is behind and follows, before anything new is consumed.
    fn repairing(&mut self, index: usize, error: &Error) -> Error {
        let name = self.nodes[index].name().to_string();
        tracing::warn!(model = name, "{} It is repaired.", error.message());
        let repaired = Error::diverged(format!("{}: it is repaired", error.message()));
        if !self.nodes[index].streams && self.nodes[index].job.is_none() {
            self.diverged.insert(name);
        }
        repaired
    }

    /// Of each model, how many models deep its inputs are.
    fn levels(&self) -> Vec<usize> {
        let mut levels: Vec<usize> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let above = node.upstreams.iter().filter_map(|upstream| match upstream {
                Upstream::Node(up) => Some(levels[*up] + 1),
                _ => None,
            });
            let level = above.max().unwrap_or(0);
            levels.push(level);
        }
        levels
    }

    /// The epoch is over: what was pending is the position, what was staged is in the table.
    fn settle(&mut self, reports: &mut [ModelReport]) -> Result<()> {
        for (node, report) in self.nodes.iter_mut().zip(reports) {
            if node.runs()
                && let Some(cell) = &node.main
            {
                report.version = cell.table()?.version();
                report.table_rows = cell.table()?.row_count();
            }
            if let (Some(_), Some(job)) = (report.run, &mut node.job) {
                job.full = false;
            }
            for (kind, cell) in node.cells() {
                let staged = cell.settle();
                match kind {
                    None => {
                        report.inserted = staged.inserted;
                        report.deleted = staged.deleted;
                    }
                    Some(RejectKind::DeadLetter) => report.dead_letters = staged.inserted,
                    Some(RejectKind::Late) => report.late = staged.inserted,
                    Some(RejectKind::Quarantine) => report.quarantined = staged.inserted,
                }
            }
        }
        Ok(())
    }

    /// are known by now.
    fn note_versions(&mut self, index: usize) -> Result<()> {
        if self.nodes[index].waits {
            return Ok(());
        }
        // A run of its own has consumed what was there when it ran.
        let ran = self.nodes[index].main.as_ref().is_some_and(|cell| cell.must_commit);
        if self.nodes[index].job.is_some() && !ran {
            return Ok(());
        }
        let mut versions = Vec::new();
        for upstream in &self.nodes[index].upstreams {
            match upstream {
                Upstream::Node(up) => {
                    if let Some(cell) = &self.nodes[*up].main {
                        versions.push((cell.table()?.id().to_string(), cell.table()?.version()));
                    }
                }
                Upstream::Foreign(foreign) => {
                    if let Some(table) = self.foreign[*foreign].table() {
                        versions.push((table.id().to_string(), table.version()));
                    }
                }
                _ => {}
            }
        }
        for (_, cell) in self.nodes[index].cells() {
            let table = cell_name(cell)?;
            for (id, version) in &versions {
                cell.pending.insert(table_app(&table, id), *version);
            }
        }
        Ok(())
    }

    /// Every table's version and every position, changed or not.
    fn epochs_row(&mut self, now: i64) -> Result<EpochRow> {
        let mut versions = BTreeMap::new();
        let mut positions = BTreeMap::new();
        for node in &mut self.nodes {
            for (_, cell) in node.cells() {
                let table = cell.table()?;
                let id = table.id().to_string();
                versions.insert(table.name().to_string(), table.version());
                for (app, position) in cell.consumed.iter().chain(&cell.pending) {
                    if app != INSTANCE && app != EPOCH {
                        positions.insert(epoch_key(&id, app), *position);
                    }
                }
            }
        }
        Ok(EpochRow {
            epoch: self.epoch,
            instance: self.instance,
            committed_at: now,
            partial: self.partial || self.unfinished || self.nodes.iter().any(|node| node.waits),
            versions,
            positions,
        })
    }
}

impl Node {
    /// Commits the model's tables that are due, side tables before their main table.
    async fn commit(&mut self, round: &Round, rows_in: usize) -> Result<Committed> {
        let mut info = Map::new();
        info.insert("smelt.epoch".into(), round.epoch.into());
        info.insert("smelt.rowsIn".into(), Value::from(rows_in));
        info.insert("smelt.version".into(), env!("CARGO_PKG_VERSION").into());
        let mut outcome = Committed::default();
        for (kind, cell) in self.cells() {
            outcome.moved |= cell.has_moved();
            if !cell.is_due(round.now, round.heartbeat) {
                continue;
            }
            match cell.commit(round.extra.clone(), info.clone(), round.now).await {
                Ok(_) => {
                    outcome.any = true;
                    outcome.main |= kind.is_none();
                }
                Err(error) if error.code() == "foreign-change" => {
                    outcome.foreign = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(outcome)
    }
}

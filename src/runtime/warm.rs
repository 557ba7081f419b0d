//! State that comes back, and why it may be used.
//!
//! A snapshot is the state *S(v)* of a model's circuit over its inputs at versions *v*, captured after the commit that made the table
//! equal to the query at *v*. At a later start the table stands at positions *p* (its own `txn`s), the inputs at *n*.
//!
//! 1. The table still holds the query at *p*: every commit that changed its rows since the snapshot's was smelt's, and smelt commits a
//!    view's rows only together with the positions they are the rows of.
//! 2. The inputs went from *v* over *p* to *n*: *v ≤ p ≤ n* per input, same table id, and the log entry of *v* is the one the
//!    snapshot saw, so the history was not rewritten. The log gives the exact difference of rows between two versions.
//! 3. A circuit's state and the sum of its outputs depend on the sum of its inputs only. So one step with the changes *v → p*, its
//!    output discarded, makes *S(p)*; the table has that output already. The next step, with *p → n* and the epoch's own changes,
//!    gives exactly what the table lacks.
//!
//! Whatever of this cannot be shown (an entry or a file is gone, a foreign commit, side tables at another position) makes the snapshot
//! useless: the model is rebuilt from its inputs' contents and compared with its table, as without it. A streaming table's circuit holds
//! its dimensions, which are brought to *n* at once, and the keys it has seen, which are brought to *p*.
//!
//! Loading goes on in the background. Where nobody waits for the end (`smelt up`), a model whose state is not there yet sits epochs out,
//! with what reads it: others commit, its table and positions stay, and the epochs rows are marked `partial`. Then *n* is further from
//! *p*, which 3. does not mind.

use std::collections::BTreeMap;

use super::cell::Cell;
use super::compute::EpochState;
use super::inputs::read_back;
use super::pipeline::{Pipeline, Refresh, Upstream, cell_name};
use super::positions::{source_app, source_positions, table_app};
use super::states::Loaded;
use super::stream::remembers;
use crate::error::{Error, Result};
use crate::operators::{Circuit, Mode};
use crate::types::{Positions, RejectKind, SignedBatch};

fn useless(reason: impl Into<String>) -> Error {
    Error::environment("state-snapshot", reason.into()).permanent()
}

impl Pipeline {
    /// Whether stored state could serve instead of a rebuild, in this epoch or a later one.
    pub(super) fn has_stored_state(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        node.circuit.is_none()
            && matches!(node.refresh, None | Some(Refresh::Behind))
            && node.kept.as_ref().is_some_and(|kept| kept.loading.is_some())
    }

    /// Whether the model sits this epoch out, so that others need not wait for its state. It can, when what it misses can be had again:
    /// from the logs of tables, and for a view from its sources. What reads it sits out too: it would see one input without the other.
    pub(super) async fn must_wait(&mut self, index: usize, epoch: &EpochState) -> Result<bool> {
        let node = &self.nodes[index];
        let is_view = !node.streams && node.job.is_none();
        let again = |upstream: &Upstream| match upstream {
            Upstream::Node(_) => true,
            Upstream::Source(_) => is_view,
            Upstream::Foreign(_) | Upstream::This => false,
        };
        if !self.may_wait || !node.upstreams.iter().all(again) {
            return Ok(false);
        }
        let reads = |upstream: &Upstream| matches!(upstream, Upstream::Node(up) if self.nodes[*up].waits);
        if (self.has_stored_state(index) && self.is_loading(index)) || node.upstreams.iter().any(reads) {
            return Ok(true);
        }
        self.is_backfilled(index, epoch).await
    }

    fn is_loading(&self, index: usize) -> bool {
        let loading = self.nodes[index].kept.as_ref().and_then(|kept| kept.loading.as_ref());
        loading.is_some_and(|task| !task.is_finished())
    }

    /// The model's positions stay where they are; it catches up when it is its turn again.
    pub(super) async fn sit_out(&mut self, index: usize, epoch: &EpochState) -> Result<()> {
        let node = &mut self.nodes[index];
        if !node.streams && node.job.is_none() {
            node.refresh.get_or_insert(Refresh::Behind);
        }
        self.note_positions(index, epoch, |kind| kind == Some(RejectKind::DeadLetter))?;
        self.stage_dead_letters(index, epoch).await
    }

    /// Whether a model that sat out can go on: time for an epoch, with input or without.
    pub(super) fn has_woken(&self) -> bool {
        let loaded = |i: usize| self.nodes[i].kept.as_ref().is_some_and(|k| k.loading.is_some()) && !self.is_loading(i);
        // One that waits for its inputs as well wakes with them.
        let held_up = |i: usize| {
            self.nodes[i].upstreams.iter().any(|up| matches!(up, Upstream::Node(up) if self.nodes[*up].waits))
        };
        let woken = |i: usize| self.nodes[i].waits && !held_up(i) && (loaded(i) || self.is_backfill_done(i));
        (0..self.nodes.len()).any(woken)
    }

    /// Brings a view's circuit back. What its inputs changed by since the table's position, by input; None when the view must be rebuilt.
    pub(super) async fn warm_view(
        &mut self,
        index: usize,
        epoch: &EpochState,
    ) -> Result<Option<Vec<Vec<SignedBatch>>>> {
        let Some(loaded) = self.loaded(index).await else { return Ok(None) };
        let warmed = self.try_warm_view(index, loaded, epoch).await;
        Ok(self.or_rebuild(index, warmed))
    }

    /// Whether the model can go on without any state: its query remembers nothing, and its table says how far it is.
    pub(super) fn needs_no_state(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        let reads_models = node.upstreams.iter().all(|up| matches!(up, Upstream::Node(_) | Upstream::Source(_)));
        let stateless = node.compiled.incremental.as_ref().is_ok_and(|plan| plan.is_stateless());
        stateless && reads_models && matches!(node.refresh, None | Some(Refresh::Behind)) && !node.streams
    }

    /// A circuit for such a model, or that of one which sat epochs out and stands where its table stands, and what its inputs have changed
    /// by since: of one that was swapped in, the difference. None when their logs do not say.
    pub(super) async fn follow_inputs(
        &mut self,
        index: usize,
        epoch: &EpochState,
    ) -> Result<Option<Vec<Vec<SignedBatch>>>> {
        let node = &self.nodes[index];
        let has_circuit = node.circuit.is_some();
        let can = if has_circuit { node.refresh == Some(Refresh::Behind) } else { self.needs_no_state(index) };
        if !can || !self.stands_together(index)? {
            return Ok(None);
        }
        let mut lag = Vec::new();
        for upstream in self.nodes[index].upstreams.clone() {
            let up = match upstream {
                Upstream::Node(up) => up,
                Upstream::Source(source) => {
                    lag.push(self.missed_of(index, source).await?);
                    continue;
                }
                Upstream::Foreign(_) | Upstream::This => return Ok(None),
            };
            // It may be uploading what it has changed in this epoch.
            let Ok(table) = self.upstream(up).await else { return Ok(None) };
            let id = table.id().to_string();
            let Some(main) = &self.nodes[index].main else { return Ok(None) };
            let at = main.consumed.get(&table_app(&cell_name(main)?, &id)).copied();
            let now = epoch.versions_before[up];
            let Some(at) = at.filter(|at| *at <= now) else { return Ok(None) };
            let table = self.upstream(up).await?;
            match table.changes(at, now).await {
                Ok(changes) => lag.push(changes),
                Err(error) => {
                    tracing::debug!(%error, "recomputed: the log does not say what a table changed by");
                    return Ok(None);
                }
            }
        }
        let node = &mut self.nodes[index];
        let Ok(plan) = &node.compiled.incremental else { return Ok(None) };
        let (name, session) = (&node.compiled.model.name, self.planner.session_state());
        if !has_circuit {
            node.circuit = Some(Circuit::new(name, plan, Mode::View, session)?);
        }
        node.refresh = None;
        Ok(Some(lag))
    }

    /// Whether the model's side table stands where its table stands.
    fn stands_together(&self, index: usize) -> Result<bool> {
        let node = &self.nodes[index];
        let (Some(main), false) = (&node.main, node.streams) else { return Ok(true) };
        let Some(side) = &node.quarantine else { return Ok(true) };
        let own = |cell: &Cell| Ok::<_, Error>(own_positions(&cell.consumed, &cell_name(cell)?));
        Ok(own(main)? == own(side)?)
    }

    /// The same for a streaming table. Its dimensions are up to date afterwards, this epoch's changes included.
    pub(super) async fn warm_stream_again(&mut self, index: usize, stream: usize, epoch: &EpochState) -> Result<bool> {
        let Some(loaded) = self.loaded(index).await else { return Ok(false) };
        let warmed = self.try_warm_stream(index, stream, loaded, epoch).await;
        Ok(self.or_rebuild(index, warmed).is_some())
    }

    /// What was loaded since the start.
    async fn loaded(&mut self, index: usize) -> Option<Loaded> {
        let loading = self.nodes[index].kept.as_mut()?.loading.take()?;
        let loaded = match loading.await {
            Ok(loaded) => loaded,
            Err(error) => Err(Error::internal(format!("loading state: {error}"))),
        };
        self.or_rebuild(index, loaded)
    }

    /// State that does not serve is named and forgotten.
    fn or_rebuild<T>(&mut self, index: usize, result: Result<T>) -> Option<T> {
        match result {
            Ok(done) => Some(done),
            Err(error) => {
                let node = &mut self.nodes[index];
                node.circuit = None;
                node.keyed = None;
                node.kept = None;
                let note = format!("the stored state of {} is rebuilt: {}", node.name(), error.message());
                tracing::info!("{note}");
                self.notes.push(note);
                None
            }
        }
    }

    async fn try_warm_view(
        &mut self,
        index: usize,
        mut loaded: Loaded,
        epoch: &EpochState,
    ) -> Result<Vec<Vec<SignedBatch>>> {
        self.check_table(index).await?;
        let slots = self.nodes[index].upstreams.len();
        let (mut missed, mut lag) = (Vec::with_capacity(slots), Vec::with_capacity(slots));
        for slot in 0..slots {
            match self.nodes[index].upstreams[slot] {
                Upstream::Node(up) => {
                    let (from, at) = self.positions_since(index, slot, up).await?;
                    let now = epoch.versions_before[up];
                    if at > now {
                        return Err(useless("an input was set back"));
                    }
                    let table = self.upstream(up).await?;
                    missed.push(table.changes(from, at).await?);
                    lag.push(table.changes(at, now).await?);
                }
                Upstream::Source(source) => {
                    missed.push(self.replayed_since(index, source).await?);
                    lag.push(self.missed_of(index, source).await?);
                }
                Upstream::Foreign(_) | Upstream::This => return Err(useless("an input belongs to somebody else")),
            }
        }
        self.remember_buckets(index, &mut loaded.circuit, &missed, &[&missed, &lag]).await?;
        self.catch_up(index, &mut loaded, &missed)?;
        self.take_back(index, loaded)?;
        Ok(lag)
    }

    async fn try_warm_stream(
        &mut self,
        index: usize,
        stream: usize,
        mut loaded: Loaded,
        epoch: &EpochState,
    ) -> Result<()> {
        self.check_table(index).await?;
        let slots = self.nodes[index].upstreams.len();
        let remembers = self.nodes[index].compiled.incremental.as_ref().is_ok_and(|plan| remembers(plan, stream));
        let mut missed = vec![Vec::new(); slots];
        for (slot, missed) in missed.iter_mut().enumerate() {
            match self.nodes[index].upstreams[slot] {
                Upstream::Node(up) if slot == stream => {
                    if remembers {
                        let (from, at) = self.positions_since(index, slot, up).await?;
                        *missed = self.upstream(up).await?.changes(from, at).await?;
                    }
                }
                Upstream::Node(up) => {
                    let (from, _) = self.positions_since(index, slot, up).await?;
                    *missed = self.upstream(up).await?.changes(from, epoch.versions_before[up]).await?;
                    missed.extend(epoch.deltas[up].iter().cloned());
                }
                Upstream::Source(_) if slot == stream && !remembers => {}
                _ => return Err(useless("an input belongs to somebody else")),
            }
        }
        self.catch_up(index, &mut loaded, &missed)?;
        if let (Some(keyed), Some(position)) = (&mut loaded.keyed, self.kept_header(index)?.table.clone())
            && let Some(main) = &self.nodes[index].main
        {
            let table = main.table()?;
            keyed.follow(&table.changes(position.version, table.version()).await?)?;
        }
        self.take_back(index, loaded)
    }

    /// One step whose output the table has already.
    fn catch_up(&mut self, index: usize, loaded: &mut Loaded, missed: &[Vec<SignedBatch>]) -> Result<()> {
        let rows: usize = missed.iter().flatten().map(SignedBatch::num_rows).sum();
        if rows > 0 {
            tokio::task::block_in_place(|| loaded.circuit.step(missed))?;
            self.nodes[index].since.rows += rows as u64;
        }
        Ok(())
    }

    fn take_back(&mut self, index: usize, loaded: Loaded) -> Result<()> {
        let node = &mut self.nodes[index];
        if let (Some(main), Some(locator)) = (&mut node.main, loaded.locator) {
            main.table_mut()?.offer_locator(locator);
        }
        node.circuit = Some(loaded.circuit);
        node.keyed = loaded.keyed;
        Ok(())
    }

    fn kept_header(&self, index: usize) -> Result<&crate::state::Header> {
        let kept = self.nodes[index].kept.as_ref();
        kept.map(|kept| &kept.header).ok_or_else(|| Error::internal("state without a header"))
    }

    pub(super) async fn upstream(&mut self, up: usize) -> Result<&mut crate::lake::Table> {
        if self.nodes[up].main.as_ref().is_some_and(|cell| cell.must_commit) {
            return Err(useless("an input is replaced as a whole"));
        }
        let cell = self.nodes[up].main.as_mut().ok_or_else(|| Error::internal("an upstream without a table"))?;
        cell.ready().await
    }

    /// The model's table is what smelt made of it since the snapshot, and its side tables stand where it stands.
    async fn check_table(&mut self, index: usize) -> Result<()> {
        let position = self.kept_header(index)?.table.clone().ok_or_else(|| useless("it names no table"))?;
        let node = &mut self.nodes[index];
        let cell = node.main.as_mut().ok_or_else(|| Error::internal("a model without a table"))?;
        let table = cell.ready().await?;
        if table.entry_check(position.version).await? != Some(position.entry) {
            return Err(useless("the history of its table is gone, or another one"));
        }
        if !table.only_ours_since(position.version).await? {
            return Err(useless("another program has changed the rows of its table"));
        }
        if self.stands_together(index)? { Ok(()) } else { Err(useless("its quarantine stands at another position")) }
    }

    /// The input's version of the snapshot, and the one the model's table stands at.
    async fn positions_since(&mut self, index: usize, slot: usize, up: usize) -> Result<(i64, i64)> {
        let position = self.kept_header(index)?.inputs.get(slot).cloned().flatten();
        let position = position.ok_or_else(|| useless("it does not name an input"))?;
        let main = self.nodes[index].main.as_ref().ok_or_else(|| Error::internal("a model without a table"))?;
        let at = main.consumed.get(&table_app(&cell_name(main)?, &position.table)).copied();
        let at = at.filter(|at| *at >= position.version).ok_or_else(|| useless("its table was set back"))?;
        let table = self.upstream(up).await?;
        if table.entry_check(position.version).await? != Some(position.entry) {
            return Err(useless(format!("the history of {} is gone, or another one", table.name())));
        }
        Ok((position.version, at))
    }

    /// Rows of a source between the snapshot's position and the table's.
    async fn replayed_since(&mut self, index: usize, source: usize) -> Result<Vec<SignedBatch>> {
        let header = self.kept_header(index)?;
        let main = self.nodes[index].main.as_ref().ok_or_else(|| Error::internal("a model without a table"))?;
        let (table, name) = (cell_name(main)?, self.sources[source].name.clone());
        let mut from = Positions::new();
        let until = source_positions(&main.consumed, &table, &name);
        for (partition, at) in &until {
            let was = header.sources.get(&source_app(&table, &name, partition)).copied().unwrap_or(0);
            if was > *at {
                return Err(useless("a source was set back"));
            }
            from.insert(partition.clone(), was);
        }
        read_back(self.open_again(source)?, &from, &until).await
    }

    /// Rows of a source between the table's position and this epoch's: those of epochs that the model sat out.
    async fn missed_of(&mut self, index: usize, source: usize) -> Result<Vec<SignedBatch>> {
        let (from, until) = (self.positions_in(index, source)?, self.reached(index, source)?);
        let rows = read_back(self.open_again(source)?, &from, &until).await?;
        self.note_reached(index, source, &until)?;
        Ok(rows)
    }
}

/// Positions of one table without its name.
fn own_positions(consumed: &BTreeMap<String, i64>, table: &str) -> BTreeMap<String, i64> {
    let prefix = format!("smelt/{table}/");
    consumed.iter().filter_map(|(app, at)| Some((app.strip_prefix(&prefix)?.to_string(), *at))).collect()
}

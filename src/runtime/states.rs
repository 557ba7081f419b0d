//! Snapshots of state: written beside the epochs and at the end, found again at the next start. [`super::warm`] says when one may be used.
//!
//! Between two epochs a model's circuit and locators are captured (most of it shared with the circuit that goes on, the rest copied) together with the positions its
//! table stands at; encoding and uploading happen in a task. So what a snapshot names is committed before it is written, and the
//! commit path never waits for it. One model is captured at a time, at most every `interval`, or earlier when as many rows have come
//! as the state holds. When the new object is there, the older ones of that table are deleted.

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::full_name;
use super::pipeline::{Node, Pipeline, Refresh, Upstream, cell_name};
use super::positions::{source_app, source_positions, table_app};
use crate::error::{Error, Result};
use crate::lake::{LOCATOR, Lake, Offered, StoredState, Table};
use crate::operators::{Circuit, Keyed, Mode};
use crate::plan::{CompiledModel, shape};
use crate::project::StateSnapshots;
use crate::state::{Directory, Header, InputPosition, Packing, Part, Section, StateReader, StateWriter, encode};

/// Bytes read to see a header; a longer one costs a second read.
const HEAD: u64 = 256 << 10;

/// Rows of state that take a noticeable time to write.
const LARGE: u64 = 1_000_000;

/// A snapshot in the lake, of this model as it is compiled now.
pub(super) struct Kept {
    pub header: Header,
    /// Its content, on the way since the pipeline was opened; None once it was taken, or when this process wrote it.
    pub loading: Option<JoinHandle<Result<Loaded>>>,
}

/// State that came back.
pub(super) struct Loaded {
    pub circuit: Circuit,
    pub keyed: Option<Keyed>,
    /// Where the table's rows were.
    pub locator: Option<Offered>,
}

/// When a model's state was last written, and what has come since.
#[derive(Debug, Default)]
pub(super) struct Since {
    /// µs.
    pub written: i64,
    pub rows: u64,
}

/// A log entry that a header names: of which input (None: of the model's own table), and its checksum.
type Entry = (Option<usize>, BoxFuture<'static, Result<Option<u64>>>);

/// A snapshot being written: of which model, and what became of it.
pub(super) type Writing = (usize, JoinHandle<Result<Header>>);

/// What state of `compiled` must say of itself to be worth a look; what does not fit, if something does not.
pub(super) fn mismatch(header: &Header, compiled: &CompiledModel) -> Option<&'static str> {
    let Ok(plan) = &compiled.incremental else { return Some("the model is not maintained incrementally") };
    if header.fingerprint != compiled.fingerprint {
        return Some("it belongs to other SQL");
    }
    if header.arrow != arrow::ARROW_VERSION {
        return Some("another version of smelt wrote it");
    }
    (header.plan != shape(plan)).then_some("this version of smelt keeps other state")
}

/// What all stored states say of themselves, newest of each table first; what is wrong with the others.
pub(super) async fn directories(lake: &Lake) -> Result<Vec<(StoredState, Result<Directory>)>> {
    let mut found = Vec::new();
    for stored in lake.list_states().await? {
        let read = match lake.read_state_range(&stored, 0..HEAD).await {
            Ok(head) => match Directory::read(&head) {
                Err(_) if stored.bytes > HEAD => match lake.read_state_range(&stored, 0..stored.bytes).await {
                    Ok(whole) => Directory::read(&whole),
                    Err(error) => Err(error),
                },
                read => read,
            },
            Err(error) => Err(error),
        };
        found.push((stored, read));
    }
    Ok(found)
}

/// Whether history is still kept for a snapshot written then (µs): one that nobody renews must not hold up clean-up for ever.
pub(super) fn is_recent(
    header: &Header,
    now: i64,
    config: &StateSnapshots,
    log_retention: std::time::Duration,
) -> bool {
    let age = i64::try_from((log_retention + config.interval).as_micros()).unwrap_or(i64::MAX);
    config.enabled && now.saturating_sub(header.written_at) <= age
}

impl Pipeline {
    /// Looks for stored state and starts loading what fits. State that serves nobody is deleted.
    pub(super) async fn find_states(&mut self) -> Result<()> {
        let found = match directories(&self.lake).await {
            Ok(found) => found,
            Err(error) => {
                // A cache that cannot be listed is none.
                self.notes.push(format!("stored state cannot be read: {}", error.message()));
                return Ok(());
            }
        };
        let mut useless = Vec::new();
        let mut seen = BTreeSet::new();
        for (stored, read) in found {
            let newest = seen.insert(stored.table.clone());
            let index = self.nodes.iter().position(|n| full_name(&n.compiled.model) == stored.table);
            match (index, newest && self.project.target.state_snapshots.enabled) {
                // A model of another selection or project may own it.
                (Some(index), _) if !self.nodes[index].active => {}
                (None, true) if self.partial => {}
                (Some(index), true) => match read.map(|read| (self.unusable(index, &read.header), read)) {
                    Ok((None, directory)) => {
                        let header = directory.header.clone();
                        let loading = Some(self.load_state(index, stored, directory)?);
                        self.nodes[index].kept = Some(Kept { header, loading });
                    }
                    Ok((Some(reason), _)) => {
                        self.notes.push(format!("the stored state of {} is not used: {reason}", stored.table));
                        useless.push(stored);
                    }
                    Err(error) => {
                        self.notes.push(format!(
                            "the stored state of {} is rebuilt: {}",
                            stored.table,
                            error.message()
                        ));
                        useless.push(stored);
                    }
                },
                _ => useless.push(stored),
            }
        }
        if let Err(error) = self.lake.delete_states(&useless).await {
            tracing::debug!(%error, "useless state stays");
        }
        Ok(())
    }

    /// Why state with this header cannot be used, by what is known without reading anything.
    fn unusable(&self, index: usize, header: &Header) -> Option<&'static str> {
        let node = &self.nodes[index];
        if let Some(reason) = mismatch(header, &node.compiled) {
            return Some(reason);
        }
        if !matches!(node.refresh, None | Some(Refresh::Behind)) {
            return Some("the table is computed anew");
        }
        let Some(Ok(table)) = node.main.as_ref().map(|cell| cell.table()) else { return Some("there is no table") };
        let fits = |position: &InputPosition, table: &Table| {
            position.table == table.id() && position.version <= table.version()
        };
        if !header.table.as_ref().is_some_and(|position| fits(position, table)) {
            return Some("its table is another one, or was set back");
        }
        let input = |(upstream, position): (&Upstream, &Option<InputPosition>)| match (upstream, position) {
            (Upstream::Node(up), Some(position)) => {
                self.nodes[*up].main.as_ref().and_then(|c| c.table().ok()).is_some_and(|table| fits(position, table))
            }
            (Upstream::Source(_), None) => true,
            _ => false,
        };
        let fit = header.inputs.len() == node.upstreams.len() && node.upstreams.iter().zip(&header.inputs).all(input);
        (!fit).then_some("an input is another table, or was set back")
    }

    /// Reads, checks and unpacks stored state in the background.
    fn load_state(
        &self,
        index: usize,
        stored: StoredState,
        directory: Directory,
    ) -> Result<JoinHandle<Result<Loaded>>> {
        let compiled = Arc::clone(&self.nodes[index].compiled);
        let mode = self.mode(index);
        let key = match compiled.stream {
            Some(stream) => self.key_columns(index, stream)?.map(|(_, key)| key),
            None => None,
        };
        let basis = self.nodes[index].main.as_ref().map(|cell| cell.table().map(Table::locator_basis)).transpose()?;
        let (lake, session) = (self.lake.clone(), self.planner.session_state().clone());
        let threads = self.project.target.threads;
        Ok(tokio::spawn(async move {
            let started = Instant::now();
            let basis = match basis {
                Some(basis) => Some(basis.ready().await?),
                None => None,
            };
            let mut reader = StateReader::new(sections(&lake, &stored, &directory, threads)?, threads);
            let bytes = stored.bytes;
            let unpack = move || {
                let rows = reader.split_off(LOCATOR);
                // The table's rows by half of the threads, while this one makes the operators' state.
                let rows = std::thread::spawn(move || match basis {
                    Some(basis) => basis.read(rows, threads.div_ceil(2)),
                    None => rows.finish().map(|()| None),
                });
                let plan = compiled.incremental.as_ref().map_err(|f| Error::internal(f.reason.to_string()))?;
                let mut circuit = Circuit::new(&compiled.model.name, plan, mode, &session)?;
                circuit.restore(&mut reader)?;
                let keyed = match key {
                    Some(key) => {
                        let mut keyed = Keyed::new(Arc::clone(&compiled.schema), key)?;
                        keyed.restore(&mut reader)?;
                        Some(keyed)
                    }
                    None => None,
                };
                reader.finish()?;
                let made = started.elapsed();
                let locator = rows.join().map_err(|_| Error::internal("loading located rows panicked"))??;
                let all = started.elapsed();
                tracing::debug!(model = compiled.model.name, bytes, ?made, ?all, "state is loaded");
                Ok(Loaded { circuit, keyed, locator })
            };
            let unpacked = tokio::task::spawn_blocking(unpack).await;
            unpacked.map_err(|e| Error::internal(format!("loading state: {e}")))?
        }))
    }

    pub(super) fn mode(&self, index: usize) -> Mode {
        match (self.nodes[index].streams, self.nodes[index].compiled.stream) {
            (true, Some(slot)) => Mode::Stream { slot },
            _ => Mode::View,
        }
    }

    /// After an epoch: takes note of a snapshot that is written, and starts the next one that is due.
    pub(super) async fn keep_states(&mut self) -> Result<()> {
        if !self.project.target.state_snapshots.enabled {
            return Ok(());
        }
        if self.writing.as_ref().is_some_and(|(_, task)| task.is_finished()) {
            self.finish_writing().await;
        }
        if self.writing.is_some() {
            return Ok(());
        }
        let now = self.env.now_micros();
        let interval = self.project.target.state_snapshots.interval;
        let interval = i64::try_from(interval.as_micros()).unwrap_or(i64::MAX);
        let due = |node: &Node| {
            let age = now.saturating_sub(node.since.written);
            let rows = node.circuit.as_ref().map_or(0, Circuit::state_rows) as u64;
            age >= interval || (age >= interval / 10 && node.since.rows > rows.max(1_000_000))
        };
        let next = (0..self.nodes.len()).filter(|i| self.is_worth_keeping(*i) && due(&self.nodes[*i]));
        if let Some(index) = next.min_by_key(|i| self.nodes[*i].since.written) {
            self.start_writing(index, 1)?;
        }
        Ok(())
    }

    /// At the end: writes every state that has changed enough since it was last written for the next start to be quicker.
    pub(super) async fn keep_all_states(&mut self) -> Result<()> {
        if !self.project.target.state_snapshots.enabled {
            return Ok(());
        }
        self.finish_writing().await;
        let threads = self.planner.session_state().config().target_partitions();
        for index in 0..self.nodes.len() {
            if self.is_worth_keeping(index) && !self.is_near(index) {
                // One is captured while the one before is packed and written.
                let before = self.writing.take();
                self.start_writing(index, threads)?;
                let this = std::mem::replace(&mut self.writing, before);
                self.finish_writing().await;
                self.writing = this;
            }
        }
        self.finish_writing().await;
        Ok(())
    }

    /// Whether to have the model's state again is quicker than to make it again, and the stored one is not the same already.
    fn is_worth_keeping(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        let Some(circuit) = node
            .circuit
            .as_ref()
            .filter(|_| node.runs() && node.job.is_none() && !node.is_timed() && node.late.is_none())
        else {
            return false;
        };
        if node.since.rows == 0 && node.kept.as_ref().is_some_and(|kept| self.is_fresh(kept)) {
            return false;
        }
        let inputs = self.input_rows(index);
        let state = circuit.state_rows() as u64;
        // A circuit without state has nothing to tell, but its table's locators do.
        let locators = node.main.as_ref().and_then(|c| c.table().ok()).map_or(0, |t| t.locator_size().0);
        let (held, min) = (state.max(locators), self.project.target.state_snapshots.min_rows);
        held > 0 && held.max(inputs) >= min
    }

    /// One that little is added to is renewed before the log forgets what leads from it to the present.
    fn is_fresh(&self, kept: &Kept) -> bool {
        let half_life = i64::try_from(self.project.target.log_retention.as_micros() / 2).unwrap_or(i64::MAX);
        self.env.now_micros().saturating_sub(kept.header.written_at) < half_life
    }

    /// Whether the stored state of a large model is so near to the present one that the next start follows the logs quicker than this
    /// process writes all of it again. Writing a row costs a fraction of what following one does.
    fn is_near(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        let held = node.circuit.as_ref().map_or(0, Circuit::state_rows) as u64;
        let located = node.main.as_ref().and_then(|cell| cell.table().ok()).map_or(0, |table| table.locator_size().0);
        // Places that are not among it cost the next start a scan of the table.
        let serves = |kept: &Kept| self.is_fresh(kept) && (kept.header.located > 0 || located == 0);
        held >= LARGE && node.since.rows < held / 16 && node.kept.as_ref().is_some_and(serves)
    }

    /// Captures the model's state as it is between two epochs, and starts a task that writes it, packed by so many threads.
    fn start_writing(&mut self, index: usize, threads: usize) -> Result<()> {
        let Some((mut header, entries)) = self.state_header(index)? else { return Ok(()) };
        let node = &mut self.nodes[index];
        let (Some(circuit), Some(main)) = (&mut node.circuit, &node.main) else { return Ok(()) };
        let started = Instant::now();
        let mut state = StateWriter::new();
        circuit.save(&mut state)?;
        if let Some(keyed) = &mut node.keyed {
            keyed.save(&mut state);
        }
        main.table()?.save_locator(&mut state)?;
        tracing::debug!(model = node.compiled.model.name, elapsed = ?started.elapsed(), "state is captured");
        let (sections, lake, env) = (state.finish(), self.lake.clone(), self.env.clone());
        let table = full_name(&node.compiled.model);
        let task = tokio::spawn(async move {
            for (slot, check) in entries {
                let position = match slot {
                    Some(slot) => header.inputs.get_mut(slot).and_then(Option::as_mut),
                    None => header.table.as_mut(),
                };
                let gone = || Error::environment("history-gone", "a log entry is gone already").permanent();
                if let (Some(position), Some(entry)) = (position, check.await?.ok_or_else(gone)?.into()) {
                    position.entry = entry;
                }
            }
            let (header, pieces) = encoded(header, sections, threads).await?;
            let name = format!("{:020}-{:010}.state", header.epoch, header.instance);
            env.crash_point("before-state-put")?;
            lake.put_state(&table, &name, pieces).await?;
            env.crash_point("after-state-put")?;
            let others = lake.list_states().await?.into_iter();
            let old: Vec<_> = others.filter(|s| s.table == table && s.name < name).collect();
            lake.delete_states(&old).await?;
            Ok(header)
        });
        let node = &mut self.nodes[index];
        node.since = Since { written: self.env.now_micros(), rows: 0 };
        self.writing = Some((index, task));
        Ok(())
    }

    /// Waits for the snapshot that is being written.
    async fn finish_writing(&mut self) {
        let Some((index, task)) = self.writing.take() else { return };
        let written = match task.await {
            Ok(written) => written,
            Err(error) => Err(Error::internal(error.to_string())),
        };
        match written {
            Ok(header) => self.nodes[index].kept = Some(Kept { header, loading: None }),
            // The tables are what counts: the next start rebuilds what this would have saved it.
            Err(error) => {
                tracing::warn!(model = self.nodes[index].name(), "state is not stored: {error}");
                self.nodes[index].since.rows += 1;
            }
        }
    }

    /// What the model's state is the state of, and where the log entries are that it names, by input; None when that cannot be said.
    fn state_header(&self, index: usize) -> Result<Option<(Header, Vec<Entry>)>> {
        let node = &self.nodes[index];
        let (Some(main), Ok(plan)) = (&node.main, &node.compiled.incremental) else { return Ok(None) };
        let (table, name) = (main.table()?, cell_name(main)?);
        let position =
            |table: &Table| InputPosition { table: table.id().to_string(), version: table.version(), entry: 0 };
        let mut header = Header {
            model: node.name().to_string(),
            fingerprint: node.compiled.fingerprint.clone(),
            plan: shape(plan),
            arrow: arrow::ARROW_VERSION.to_string(),
            table: Some(position(table)),
            located: table.locator_size().0,
            epoch: self.epoch,
            instance: self.instance,
            written_at: self.env.now_micros(),
            ..Header::default()
        };
        let mut entries = vec![(None, table.entry_check(table.version()))];
        for (slot, upstream) in node.upstreams.iter().enumerate() {
            match upstream {
                Upstream::Node(up) => {
                    let Some(input) = &self.nodes[*up].main else { return Ok(None) };
                    let input = input.table()?;
                    if main.consumed.get(&table_app(&name, input.id())) != Some(&input.version()) {
                        return Ok(None);
                    }
                    header.inputs.push(Some(position(input)));
                    entries.push((Some(slot), input.entry_check(input.version())));
                }
                Upstream::Source(source) if !node.streams || node.compiled.stream == Some(slot) => {
                    let source = &self.sources[*source].name;
                    for (partition, next) in source_positions(&main.consumed, &name, source) {
                        header.sources.insert(source_app(&name, source, &partition), next);
                    }
                    header.inputs.push(None);
                }
                // How far a table of somebody else was consumed is written nowhere.
                _ => return Ok(None),
            }
        }
        Ok(Some((header, entries)))
    }
}

/// The sections of a stored state. What is in them is fetched in the background, in their order and in two lines beside each other:
/// the places of the table's rows are read at the same time as the operators' state. No more is fetched ahead than some threads have
/// to unpack.
fn sections(lake: &Lake, stored: &StoredState, directory: &Directory, threads: usize) -> Result<Vec<Section>> {
    let (sections, lines) = directory.sections(stored.bytes, LOCATOR)?;
    for parts in lines {
        let (lake, stored, ahead) = (lake.clone(), stored.clone(), threads.max(1) + 1);
        let room = Arc::new(Semaphore::new(ahead * parts.iter().map(Part::room).max().unwrap_or(0) as usize));
        tokio::spawn(async move {
            let fetch = |part: Part| {
                let (lake, stored, room) = (&lake, &stored, Arc::clone(&room));
                async move {
                    let room = room.acquire_many_owned(part.room()).await.ok();
                    let bytes = lake.read_state_range(stored, part.range.clone()).await;
                    (part, bytes, room)
                }
            };
            let mut fetched = futures::stream::iter(parts).map(fetch).buffered(ahead);
            while let Some((part, bytes, room)) = fetched.next().await {
                if !part.deliver(&bytes, room) {
                    break;
                }
            }
        });
    }
    Ok(sections)
}

async fn encoded(header: Header, sections: Vec<Section>, threads: usize) -> Result<(Header, Vec<Bytes>)> {
    let work = move || encode(&header, sections, Packing::Compressed, threads).map(|pieces| (header, pieces));
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(format!("encoding state: {e}")))?
}

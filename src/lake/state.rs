//! What a table is at one version: the log, replayed.
//!
//! The committer keeps one [`State`] per table in memory and changes it by what each commit changed; nothing is copied per
//! commit. Files have small numbers ([`Ordinal`]) by which locators refer to them.

use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::actions::{Add, Commit, Descriptor, Line, Metadata, Protocol, Remove, Txn};
use super::files::{LiveFile, Ordinal};
use super::partition;
use super::schema;
use super::store::TableStore;
use crate::error::{Error, Result};

/// A file that left the table and may still be in the store.
#[derive(Debug, Clone)]
pub struct Tombstone {
    pub remove: Remove,
    /// The version that removed it (at the latest, when read from a checkpoint).
    pub version: i64,
}

impl Tombstone {
    /// ms since 1970.
    pub fn removed_at(&self) -> i64 {
        self.remove.deletion_timestamp.unwrap_or(0)
    }
}

/// A table at one version.
#[derive(Debug)]
pub struct State {
    pub version: i64,
    pub protocol: Protocol,
    pub metadata: Metadata,
    /// Columns as readers see them.
    pub schema: SchemaRef,
    /// Columns in data files: without partition columns.
    pub file_schema: SchemaRef,
    pub txns: BTreeMap<String, i64>,
    pub txn_times: HashMap<String, i64>,
    pub files: BTreeMap<Ordinal, LiveFile>,
    pub by_path: HashMap<String, Ordinal>,
    /// Oldest first.
    pub tombstones: VecDeque<Arc<Tombstone>>,
    pub next_ordinal: Ordinal,
    /// Rows of the table.
    pub rows: u64,
    pub last_checkpoint: Option<i64>,
}

impl State {
    /// An empty table.
    pub fn new(version: i64, protocol: Protocol, metadata: Metadata) -> Result<Self> {
        let schema = schema::from_delta(&metadata.schema_string)?;
        let file_schema = partition::file_schema(&schema, &metadata.partition_columns);
        Ok(State {
            version,
            protocol,
            metadata,
            schema,
            file_schema,
            txns: BTreeMap::new(),
            txn_times: HashMap::new(),
            files: BTreeMap::new(),
            by_path: HashMap::new(),
            tombstones: VecDeque::new(),
            next_ordinal: 0,
            rows: 0,
            last_checkpoint: None,
        })
    }

    /// Replaces identity, schema and properties.
    pub fn set_metadata(&mut self, metadata: Metadata) -> Result<()> {
        self.schema = schema::from_delta(&metadata.schema_string)?;
        self.file_schema = partition::file_schema(&self.schema, &metadata.partition_columns);
        self.metadata = metadata;
        Ok(())
    }

    /// A number no file has had.
    pub fn allocate(&mut self) -> Ordinal {
        self.next_ordinal += 1;
        self.next_ordinal - 1
    }

    /// A file joins under its number.
    pub fn insert(&mut self, ordinal: Ordinal, file: LiveFile) {
        self.rows += file.live_rows();
        self.by_path.insert(file.file.log_path.clone(), ordinal);
        self.files.insert(ordinal, file);
    }

    /// A file leaves; its tombstone is recorded.
    pub fn remove(&mut self, ordinal: Ordinal, tombstone: Tombstone) {
        if let Some(file) = self.files.remove(&ordinal) {
            self.rows -= file.live_rows();
            self.by_path.remove(&file.file.log_path);
        }
        self.tombstones.push_back(Arc::new(tombstone));
    }

    /// A file stays but loses more rows; its former self gets a tombstone.
    pub fn set_vector(&mut self, ordinal: Ordinal, vector: Option<Arc<super::vector::Vector>>, tombstone: Tombstone) {
        if let Some(file) = self.files.get_mut(&ordinal) {
            self.rows -= file.live_rows();
            file.vector = vector;
            self.rows += file.live_rows();
        }
        self.tombstones.push_back(Arc::new(tombstone));
    }

    pub fn set_txn(&mut self, txn: &Txn) {
        self.txns.insert(txn.app_id.clone(), txn.version);
        match txn.last_updated {
            Some(at) => self.txn_times.insert(txn.app_id.clone(), at),
            None => self.txn_times.remove(&txn.app_id),
        };
    }

    /// Applies the commit of `version`, made by somebody else. Returns the numbers of files that left.
    pub async fn apply(&mut self, version: i64, commit: &Commit, store: &TableStore) -> Result<Vec<Ordinal>> {
        let mut gone = Vec::new();
        // Removes before Adds whatever their order: a new vector is a Remove and an Add of one path.
        for remove in commit.0.iter().filter_map(|l| l.remove.as_ref()) {
            if let Some(&ordinal) = self.by_path.get(&remove.path) {
                self.remove(ordinal, Tombstone { remove: remove.clone(), version });
                gone.push(ordinal);
            }
        }
        for line in &commit.0 {
            if let Some(protocol) = &line.protocol {
                self.protocol = protocol.clone();
            }
            if let Some(metadata) = &line.meta_data {
                self.set_metadata(metadata.clone())?;
            }
            if let Some(txn) = &line.txn {
                self.set_txn(txn);
            }
            if let Some(add) = &line.add {
                let file = live_file(add, store).await?;
                if let Some(&ordinal) = self.by_path.get(&add.path) {
                    // Added anew without a Remove (statistics recomputed, say): the same rows under the same number.
                    self.rows -= self.files.get(&ordinal).map_or(0, LiveFile::live_rows);
                    self.insert(ordinal, file);
                } else {
                    let ordinal = self.allocate();
                    self.insert(ordinal, file);
                }
            }
        }
        self.version = version;
        Ok(gone)
    }

    /// All of it as actions, for a checkpoint.
    pub fn to_lines(&self, keep_tombstone: impl Fn(&Tombstone) -> bool) -> Vec<Line> {
        let mut lines = vec![Line::from(self.protocol.clone()), Line::from(self.metadata.clone())];
        lines.extend(self.txns.iter().map(|(app_id, version)| {
            let last_updated = self.txn_times.get(app_id).copied();
            Line::from(Txn { app_id: app_id.clone(), version: *version, last_updated })
        }));
        lines.extend(self.files.values().map(|f| Line::from(f.to_add(false))));
        let tombstones = self.tombstones.iter().filter(|t| keep_tombstone(t));
        lines.extend(tombstones.map(|t| Line::from(Remove { data_change: false, ..t.remove.clone() })));
        lines
    }

    /// A copy for background work: shares the files themselves.
    pub fn share(&self) -> State {
        State {
            version: self.version,
            protocol: self.protocol.clone(),
            metadata: self.metadata.clone(),
            schema: Arc::clone(&self.schema),
            file_schema: Arc::clone(&self.file_schema),
            txns: self.txns.clone(),
            txn_times: self.txn_times.clone(),
            files: self.files.clone(),
            by_path: HashMap::new(),
            tombstones: self.tombstones.clone(),
            next_ordinal: self.next_ordinal,
            rows: self.rows,
            last_checkpoint: self.last_checkpoint,
        }
    }
}

async fn live_file(add: &Add, store: &TableStore) -> Result<LiveFile> {
    let known = add.stats.as_deref().and_then(super::stats::num_records);
    let rows = match known {
        Some(_) => None,
        // Only other writers leave the count out; the file's footer has it.
        None => Some(super::reader::row_count(store, &super::files::percent_decode(&add.path)?, add.size).await?),
    };
    LiveFile::from_add(add, store, rows)
}

/// A log being replayed.
#[derive(Debug, Default)]
pub struct Replay {
    protocol: Option<Protocol>,
    metadata: Option<Metadata>,
    txns: BTreeMap<String, Txn>,
    adds: BTreeMap<String, Add>,
    removes: BTreeMap<(String, Option<String>), Tombstone>,
}

fn vector_id(descriptor: &Option<Descriptor>) -> Option<String> {
    descriptor.as_ref().map(Descriptor::unique_id)
}

impl Replay {
    /// The next commit, or the lines of a checkpoint.
    pub fn apply(&mut self, version: i64, commit: Commit) {
        let mut adds = Vec::new();
        for line in commit.0 {
            if let Some(remove) = line.remove {
                let id = vector_id(&remove.deletion_vector);
                if self.adds.get(&remove.path).is_some_and(|add| vector_id(&add.deletion_vector) == id) {
                    self.adds.remove(&remove.path);
                }
                self.removes.insert((remove.path.clone(), id), Tombstone { remove, version });
            }
            if let Some(add) = line.add {
                adds.push(add);
            }
            if let Some(txn) = line.txn {
                self.txns.insert(txn.app_id.clone(), txn);
            }
            self.protocol = line.protocol.or(self.protocol.take());
            self.metadata = line.meta_data.or(self.metadata.take());
        }
        for add in adds {
            self.removes.remove(&(add.path.clone(), vector_id(&add.deletion_vector)));
            self.adds.insert(add.path.clone(), add);
        }
    }

    /// The table at `version`, the last one applied.
    pub async fn finish(self, version: i64, store: &TableStore, table: &str) -> Result<State> {
        let (Some(protocol), Some(metadata)) = (self.protocol, self.metadata) else {
            return Err(Error::environment("bad-log", format!("the log of `{table}` has no metaData or protocol"))
                .permanent()
                .with_hint("its beginning may have been deleted"));
        };
        super::protocol::check_readable(&protocol, &metadata, table)?;
        let mut state = State::new(version, protocol, metadata)?;
        for txn in self.txns.values() {
            state.set_txn(txn);
        }
        for add in self.adds.values() {
            let file = live_file(add, store).await?;
            let ordinal = state.allocate();
            state.insert(ordinal, file);
        }
        let mut tombstones: Vec<Arc<Tombstone>> = self.removes.into_values().map(Arc::new).collect();
        tombstones.sort_by_key(|t| t.removed_at());
        state.tombstones = tombstones.into();
        Ok(state)
    }
}

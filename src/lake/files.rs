//! Data files of a table, and which of their rows are gone.

use object_store::path::Path;
use roaring::RoaringBitmap;
use std::sync::{Arc, OnceLock};

use super::actions::{Add, PartitionValues, Remove};
use super::stats;
use super::store::TableStore;
use super::vector::Vector;
use crate::error::{Error, Result};

/// Number of a data file in the memory of one [`super::Table`]: never reused, not stored.
pub type Ordinal = u32;

/// One immutable Parquet file.
#[derive(Debug, PartialEq)]
pub struct DataFile {
    /// As in the log, percent-encoded.
    pub log_path: String,
    /// Where it is in the store.
    pub location: Path,
    pub partition_values: PartitionValues,
    pub size: u64,
    /// Rows in the file, deleted ones included.
    pub rows: u64,
    /// Statistics as in the log, with tight bounds.
    pub stats: Option<Arc<str>>,
    /// ms since 1970.
    pub modified: i64,
    /// The same statistics with bounds that need not be tight, made once.
    pub wide_stats: OnceLock<String>,
}

/// A file of the table at one version.
#[derive(Debug, Clone)]
pub struct LiveFile {
    pub file: Arc<DataFile>,
    pub vector: Option<Arc<Vector>>,
}

/// Which rows of a file are gone, in a snapshot.
#[derive(Debug, Clone)]
pub enum Deleted {
    None,
    /// As committed.
    Stored(Arc<Vector>),
    /// Staged: all deleted rows, the committed ones included.
    Staged(Arc<RoaringBitmap>),
}

impl Deleted {
    /// The deleted rows.
    pub async fn rows(&self, store: &TableStore) -> Result<Option<Arc<RoaringBitmap>>> {
        Ok(match self {
            Deleted::None => None,
            Deleted::Stored(vector) => Some(Arc::clone(vector.rows(store).await?)),
            Deleted::Staged(rows) => Some(Arc::clone(rows)),
        })
    }

    /// How many rows are gone.
    pub fn cardinality(&self) -> u64 {
        match self {
            Deleted::None => 0,
            Deleted::Stored(vector) => vector.cardinality(),
            Deleted::Staged(rows) => rows.len(),
        }
    }
}

impl LiveFile {
    /// The file an `add` describes. `rows` serves when its statistics do not say.
    pub fn from_add(add: &Add, store: &TableStore, rows: Option<u64>) -> Result<Self> {
        let decoded = percent_decode(&add.path)?;
        if decoded.contains("://") || decoded.starts_with('/') {
            return Err(Error::user("unsupported-table", format!("`{decoded}`: the table refers to files elsewhere"))
                .with_hint("a shallow clone must be copied before smelt can read it"));
        }
        let known = add.stats.as_deref().and_then(stats::num_records).or(rows);
        let rows = known.ok_or_else(|| Error::internal(format!("rows of {decoded} are unknown")))?;
        Ok(LiveFile {
            file: Arc::new(DataFile {
                log_path: add.path.clone(),
                location: store.path(&decoded)?,
                partition_values: add.partition_values.clone(),
                size: add.size.max(0) as u64,
                rows,
                stats: add.stats.as_deref().map(Arc::from),
                modified: add.modification_time,
                wide_stats: OnceLock::new(),
            }),
            vector: add.deletion_vector.clone().map(|d| Arc::new(Vector::stored(d))),
        })
    }

    pub fn deleted(&self) -> Deleted {
        match &self.vector {
            None => Deleted::None,
            Some(vector) => Deleted::Stored(Arc::clone(vector)),
        }
    }

    /// Rows that are left.
    pub fn live_rows(&self) -> u64 {
        self.file.rows.saturating_sub(self.vector.as_ref().map_or(0, |v| v.cardinality()))
    }

    pub fn to_add(&self, data_change: bool) -> Add {
        let stats = self.file.stats.as_deref();
        Add {
            path: self.file.log_path.clone(),
            partition_values: self.file.partition_values.clone(),
            size: self.file.size as i64,
            modification_time: self.file.modified,
            data_change,
            stats: stats.map(|s| match self.vector {
                Some(_) => self.file.wide_stats.get_or_init(|| stats::wide(s)).clone(),
                None => s.to_string(),
            }),
            deletion_vector: self.vector.as_ref().map(|v| v.descriptor.clone()),
        }
    }

    pub fn to_remove(&self, now_millis: i64, data_change: bool) -> Remove {
        Remove {
            path: self.file.log_path.clone(),
            deletion_timestamp: Some(now_millis),
            data_change,
            extended_file_metadata: Some(true),
            partition_values: Some(self.file.partition_values.clone()),
            size: Some(self.file.size as i64),
            deletion_vector: self.vector.as_ref().map(|v| v.descriptor.clone()),
        }
    }
}

/// `%20` → space, as paths in a log are URLs.
pub fn percent_decode(path: &str) -> Result<String> {
    if !path.contains('%') {
        return Ok(path.to_string());
    }
    let mut out = Vec::with_capacity(path.len());
    let bytes = path.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let hex = (bytes[i] == b'%').then(|| bytes.get(i + 1..i + 3)).flatten();
        match hex.and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8(out).map_err(|_| Error::environment("bad-log", format!("path {path} is not UTF-8")).permanent())
}

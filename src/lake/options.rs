//! How a lake is written.

use std::time::Duration;

/// Compression of data files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// Level 1: about half of snappy's bytes.
    #[default]
    Zstd,
    /// Cheaper to write.
    Snappy,
}

/// How a lake is written; the same for all its tables.
#[derive(Debug, Clone)]
pub struct LakeOptions {
    /// Local files are synced before they count as written.
    pub fsync: bool,
    /// How long files that left a table stay for readers of older versions.
    pub deleted_file_retention: Duration,
    /// How long log entries stay.
    pub log_retention: Duration,
    /// Bytes a data file should have.
    pub target_file_size: u64,
    /// Compression of data files; those that compaction encodes anew have snappy until then.
    pub codec: Codec,
    /// Commits between two checkpoints.
    pub checkpoint_interval: i64,
    /// How often an unconfirmed log put is tried again before the commit fails.
    pub put_retries: u32,
    /// Bytes of memory that one table's locator may take; beyond them it goes to local disk.
    pub locator_memory: usize,
}

impl Default for LakeOptions {
    fn default() -> Self {
        LakeOptions {
            fsync: true,
            // At one commit a second Delta's defaults (7 and 30 days) would pile up millions of tombstones.
            deleted_file_retention: Duration::from_secs(3600),
            log_retention: Duration::from_secs(86_400),
            target_file_size: 128 << 20,
            codec: Codec::Zstd,
            checkpoint_interval: 100,
            put_retries: 5,
            locator_memory: usize::MAX,
        }
    }
}

impl LakeOptions {
    /// The table properties that tell other writers what this one keeps.
    pub(super) fn retention_properties(&self) -> [(&'static str, String); 2] {
        [
            ("delta.deletedFileRetentionDuration", interval(self.deleted_file_retention)),
            ("delta.logRetentionDuration", interval(self.log_retention)),
        ]
    }
}

/// `interval 3600 seconds`, as Delta's retention properties want it.
fn interval(duration: Duration) -> String {
    format!("interval {} seconds", duration.as_secs())
}

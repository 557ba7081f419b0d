//! The three traits through which modules meet that may not import each other.

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use std::time::Duration;

use super::{Positions, SignedBatch, SourcePartition};
use crate::error::Result;

/// What the weights of a source's rows mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// Rows are only ever added; weights are absent.
    Append,
    /// Weights are Z-set weights: −1 retracts an equal row.
    Signed,
    /// +1: the row with this key is now this row; −1: the row with this key is gone (its other columns may be NULL).
    /// The names are columns of the source.
    Keyed(Vec<String>),
}

/// Rows a source read from one partition: all of them decoded, in offset order.
#[derive(Debug, Clone)]
pub struct SourceBatch {
    /// Where they come from.
    pub partition: SourcePartition,
    /// The position after this batch: what a table that has consumed it stores. It can lie beyond the last row's
    /// offset (transaction markers, bad records).
    pub next: i64,
    /// Rows in the source's schema: declared columns, then rescued and included ones.
    pub rows: SignedBatch,
    /// Offset of each row, ascending: a table drops the rows below its own position.
    pub offsets: Int64Array,
    /// Dead letters in [`super::reject_schema`] with `model` NULL (the reader's name goes there), and their offsets.
    pub rejects: Option<(RecordBatch, Int64Array)>,
}

/// How much one poll may return.
#[derive(Debug, Clone, Copy)]
pub struct PollLimit {
    /// Rows at most, roughly: a source may finish the chunk it is in.
    pub max_rows: usize,
    /// Files at most, for files sources.
    pub max_files: usize,
    /// How long to wait for the first row.
    pub wait: Duration,
}

/// What a poll found.
#[derive(Debug)]
pub enum Poll {
    /// Rows; there may be more at once.
    Batches(Vec<SourceBatch>),
    /// Nothing arrived within the wait, but more may come.
    Idle,
    /// Everything that was available when the source was opened has been returned. Only with `bounded`.
    End,
}

/// A replayable input outside the lake. The engine owns its position: nothing is acknowledged to it.
#[async_trait]
pub trait Source: Send {
    /// Columns of [`SourceBatch::rows`].
    fn schema(&self) -> SchemaRef;

    /// What the weights mean.
    fn change_kind(&self) -> ChangeKind;

    /// Starts reading at `from` (for partitions it does not name: at the source's configured start). With `bounded`
    /// the source reports [`Poll::End`] once it has returned all that was available at this call. Returns the start position
    /// of every partition known now, so that a `latest` start can be committed before the first read.
    async fn open(&mut self, from: &Positions, bounded: bool) -> Result<Positions>;

    /// The next rows. Cancel-safe: dropping the future loses nothing.
    async fn poll(&mut self, limit: PollLimit) -> Result<Poll>;

    /// Once it is open with `bounded`: the position after everything that was available then, per partition. `None`: it never ends by
    /// itself, and what a bounded read returns of it is a choice.
    fn ends(&self) -> Option<Positions>;

    /// Before it is opened with `bounded`: a source that never ends by itself returns everything before these positions, and perhaps
    /// more. The others end where they end.
    fn read_until(&mut self, _until: &Positions) {}

    /// For lag tools only: `positions` are committed in the lake.
    async fn committed(&mut self, positions: &Positions) -> Result<()>;

    /// Rows behind the end per partition, where the source knows it.
    async fn lag(&mut self) -> Result<Positions>;

    /// What the source remembers about its identity (cluster id, topic ids): stored with the positions, and compared
    /// at the next start. Empty when it has none.
    fn identity(&self) -> Vec<(String, String)>;

    /// Something its user should know, once it is open.
    fn warning(&self) -> Option<String> {
        None
    }
}

/// A file a files source has discovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Position of the file in its source: 0, 1, 2 ….
    pub seq: i64,
    /// Object-store location as the source names it.
    pub path: String,
    /// Bytes.
    pub size: i64,
    /// Entity tag, when the store has one.
    pub etag: Option<String>,
}

/// The durable list of files a source has discovered, so that a file keeps its sequence number for ever.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// All entries, by ascending `seq`.
    async fn entries(&self) -> Result<Vec<FileEntry>>;

    /// Appends entries in one commit. Their `seq` continue the ledger's.
    async fn append(&self, entries: &[FileEntry]) -> Result<()>;
}

/// A Delta table that stands in for a model.
#[derive(Debug, Clone)]
pub struct StandIn {
    pub schema: SchemaRef,
    /// It has no deletion vectors: whether its writer rewrites files instead is not known here.
    pub retracts_nothing: bool,
}

/// The schemas of relations a project names but does not declare.
pub trait Catalog {
    /// Columns of the Delta table `schema.name`, when it exists.
    fn table_schema(&self, schema: &str, name: &str) -> Option<SchemaRef>;

    /// The table `schema.name` of the lake at `lake` (None: the project's own) that stands in for a model, when it exists.
    fn table_in(&self, _lake: Option<&str>, _schema: &str, _name: &str) -> Option<StandIn> {
        None
    }
}

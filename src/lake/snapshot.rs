//! A table's content at one moment, staged changes included: what queries and recomputations read.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;

use super::files::{DataFile, Deleted, Ordinal};
use super::partition;
use super::reader::{self, Layout};
use super::scan::Provider;
use super::stats;
use crate::error::Result;

/// A file and what is left of it.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    pub ordinal: Ordinal,
    pub file: Arc<DataFile>,
    pub deleted: Deleted,
}

/// Immutable; files it names stay readable until vacuumed.
#[derive(Debug)]
pub struct TableSnapshot {
    pub(super) name: String,
    pub(super) version: i64,
    pub(super) layout: Layout,
    pub(super) url: ObjectStoreUrl,
    pub(super) files: Vec<SnapshotFile>,
}

impl TableSnapshot {
    /// The committed version it stands on.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// `schema.name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.layout.schema)
    }

    /// Rows, exactly.
    pub fn row_count(&self) -> u64 {
        self.files.iter().map(|f| f.file.rows - f.deleted.cardinality()).sum()
    }

    /// Bytes of its data files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.file.size).sum()
    }

    /// Bytes of each data file.
    pub fn file_sizes(&self) -> impl Iterator<Item = u64> {
        self.files.iter().map(|f| f.file.size)
    }

    /// Number of its data files.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// The same without files that surely have no row whose TIMESTAMP or DATE in `column` lies in one of `spans` (µs, ends excluded).
    pub fn within(&self, column: &str, spans: &[(i64, i64)]) -> Arc<Self> {
        let may = |file: &&SnapshotFile| {
            let of_all = || partition::instant(&file.file.partition_values, column, &self.layout.schema);
            let known = file.file.stats.as_deref().and_then(|stats| stats::instants(stats, column));
            known
                .or_else(of_all)
                .is_none_or(|(least, most)| spans.iter().any(|(from, until)| *from <= most && least < *until))
        };
        Arc::new(TableSnapshot {
            name: self.name.clone(),
            version: self.version,
            layout: self.layout.clone(),
            url: self.url.clone(),
            files: self.files.iter().filter(may).cloned().collect(),
        })
    }

    /// The snapshot as a DataFusion table.
    pub fn provider(self: &Arc<Self>) -> Arc<dyn TableProvider> {
        Arc::new(Provider::new(Arc::clone(self)))
    }

    /// All rows, file by file.
    pub fn rows(self: &Arc<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let this = Arc::clone(self);
        futures::stream::iter(0..this.files.len())
            .then(move |i| {
                let this = Arc::clone(&this);
                async move { live_rows(&this.layout, &this.files[i]).await }
            })
            .try_flatten()
            .boxed()
    }
}

/// The rows of one file that are left.
pub async fn live_rows(layout: &Layout, file: &SnapshotFile) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let deleted = file.deleted.rows(&layout.store).await?;
    let selection = deleted.filter(|d| !d.is_empty()).map(|d| reader::all_but(&d, file.file.rows));
    reader::open(layout, &file.file, selection).await
}

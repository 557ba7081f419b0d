//! Writing data files: Parquet with our own log statistics, one file per partition value, several beyond the target size.
//!
//! Rows are gathered until they make a row group ([`super::encode`]). Files are encoded in memory and put whole, under names
//! nobody else uses; until a log entry names them they do not exist for any reader.

use arrow::array::{Array as _, RecordBatch};
use arrow::datatypes::SchemaRef;
use indexmap::IndexMap;
use object_store::PutPayload;
use std::sync::{Arc, OnceLock};

use super::actions::PartitionValues;
use super::encode::{Encoded, Encoder};
use super::files::DataFile;
use super::options::{Codec, LakeOptions};
use super::partition;
use super::splice;
use super::store::TableStore;
use crate::env::Env;
use crate::error::{Error, Result};

/// What a writer needs to know of its table.
#[derive(Clone)]
pub struct Target {
    pub env: Env,
    pub store: TableStore,
    pub options: Arc<LakeOptions>,
    pub file_schema: SchemaRef,
    pub partition_columns: Vec<String>,
}

/// A file that was written and is not yet in any log entry.
#[derive(Debug)]
pub struct Written {
    pub file: Arc<DataFile>,
    /// Hash of each row, in order, when they were given.
    pub hashes: Option<Vec<u128>>,
}

/// Rows of a row group at most, and the bytes of rows that wait for theirs, those of all open files together.
const GROUP_ROWS: usize = 1 << 17;
const WAITING: usize = 128 << 20;

/// A file that rows are written to.
struct Open {
    /// From its first row group on.
    encoder: Option<Encoder>,
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    waiting_bytes: usize,
    rows: u64,
    hashes: Option<Vec<u128>>,
}

/// Takes batches of the table's schema, makes files.
pub struct Writer {
    target: Target,
    open: IndexMap<PartitionValues, Open>,
    /// Bytes of the rows that wait in all of them.
    waiting: usize,
    done: Vec<Written>,
}

impl Writer {
    pub fn new(target: Target) -> Result<Self> {
        Ok(Writer { target, open: IndexMap::new(), waiting: 0, done: Vec::new() })
    }

    /// Takes rows; `hashes` has one per row, or is `None` for all batches.
    pub async fn write(&mut self, batch: &RecordBatch, hashes: Option<&[u128]>) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if self.target.partition_columns.is_empty() {
            let body = partition::body(batch, None, &self.target.file_schema)?;
            return self.append(PartitionValues::new(), body, hashes.map(<[u128]>::to_vec)).await;
        }
        for (values, rows) in partition::split(batch, &self.target.partition_columns)? {
            let body = partition::body(batch, Some(&rows), &self.target.file_schema)?;
            let hashes = hashes.map(|h| rows.values().iter().map(|i| h[*i as usize]).collect());
            self.append(values, body, hashes).await?;
        }
        Ok(())
    }

    async fn append(&mut self, values: PartitionValues, rows: RecordBatch, hashes: Option<Vec<u128>>) -> Result<()> {
        if !self.open.contains_key(&values) {
            let hashes = hashes.is_some().then(Vec::new);
            let open = Open { encoder: None, waiting: Vec::new(), waiting_rows: 0, waiting_bytes: 0, rows: 0, hashes };
            self.open.insert(values.clone(), open);
        }
        let Some(open) = self.open.get_mut(&values) else { return Ok(()) };
        let bytes = memory(&rows)?;
        open.rows += rows.num_rows() as u64;
        open.waiting_rows += rows.num_rows();
        open.waiting_bytes += bytes;
        open.waiting.push(rows);
        if let (Some(all), Some(new)) = (&mut open.hashes, hashes) {
            all.extend(new);
        }
        self.waiting += bytes;
        let target_size = self.target.options.target_file_size;
        if open.waiting_rows >= GROUP_ROWS || open.waiting_bytes as u64 >= target_size {
            self.waiting -= open.waiting_bytes;
            open.encode(&self.target, self.target.options.codec)?;
        }
        // Never exact, since rows do not take as much in a file as in memory: the target is a size to aim at.
        if open.encoder.as_ref().is_some_and(|encoder| encoder.size() >= target_size)
            && let Some(open) = self.open.shift_remove(&values)
        {
            self.waiting -= open.waiting_bytes;
            let written = close(&self.target, values, open).await?;
            self.done.push(written);
        }
        while self.waiting > WAITING
            && let Some(open) = self.open.values_mut().max_by_key(|open| open.waiting_bytes)
        {
            self.waiting -= open.waiting_bytes;
            open.encode(&self.target, self.target.options.codec)?;
        }
        Ok(())
    }

    /// Puts what is still open. The files in the order in which they were begun.
    pub async fn finish(mut self) -> Result<Vec<Written>> {
        let target = &self.target;
        let open = std::mem::take(&mut self.open);
        let written =
            futures::future::try_join_all(open.into_iter().map(|(values, open)| close(target, values, open))).await?;
        self.done.extend(written);
        Ok(self.done)
    }
}

impl Open {
    /// Makes what waits a row group; with the first one the codec of the file is settled.
    fn encode(&mut self, target: &Target, codec: Codec) -> Result<()> {
        (self.waiting_rows, self.waiting_bytes) = (0, 0);
        let rows = std::mem::take(&mut self.waiting);
        let Some(first) = rows.first() else { return Ok(()) };
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            None => self.encoder.insert(Encoder::new(&target.file_schema, first, codec)?),
        };
        encoder.row_group(&rows)
    }

    /// Makes all of it a file. One so small that compaction will encode it anew is not worth the zstd contexts of its columns, which
    /// cost more there than all the rest.
    fn finish(mut self, target: &Target) -> Result<Encoded> {
        let size = target.options.target_file_size;
        let codec = match splice::is_large(self.waiting_bytes as u64, self.rows, size) {
            true => target.options.codec,
            false => Codec::Snappy,
        };
        self.encode(target, codec)?;
        let encoder = self.encoder.ok_or_else(|| Error::internal("a file without rows"))?;
        encoder.finish()
    }
}

/// Bytes that rows take, without those of the rows around them that share their buffers.
fn memory(rows: &RecordBatch) -> Result<usize> {
    let bytes = rows.columns().iter().map(|column| column.to_data().get_slice_memory_size());
    Ok(bytes.sum::<Result<usize, _>>()?)
}

async fn close(target: &Target, values: PartitionValues, mut open: Open) -> Result<Written> {
    let (rows, hashes) = (open.rows, open.hashes.take());
    let Encoded { bytes, codec, stats } = open.finish(target)?;
    let file = put(target, values, bytes, codec, rows, stats).await?;
    Ok(Written { file, hashes })
}

/// Puts a new file of `rows` rows.
pub(super) async fn put(
    target: &Target,
    values: PartitionValues,
    bytes: PutPayload,
    codec: Codec,
    rows: u64,
    stats: String,
) -> Result<Arc<DataFile>> {
    let directory = partition::directory(&values, &target.partition_columns);
    let suffix = match codec {
        Codec::Snappy => "snappy",
        Codec::Zstd => "zstd",
    };
    let path = format!("{directory}part-00000-{}.{suffix}.parquet", target.env.new_uuid());
    let size = bytes.content_length() as u64;
    target.store.put(&path, bytes).await?;
    Ok(Arc::new(DataFile {
        location: target.store.path(&path)?,
        // Directories are made of characters that need no encoding, except the `=`, which needs none either.
        log_path: path,
        partition_values: values,
        size,
        rows,
        stats: Some(Arc::from(stats)),
        modified: target.env.now_millis(),
        wide_stats: OnceLock::new(),
    }))
}

//! Writing data files: Parquet with our own log statistics, one file per partition value, several beyond the target size.
//!
//! Files are encoded in memory and put whole, under names nobody else uses; until a log entry names them they do not
//! exist for any reader.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use indexmap::IndexMap;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, Type as PhysicalType, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use super::actions::PartitionValues;
use super::files::DataFile;
use super::options::{Codec, LakeOptions};
use super::partition;
use super::stats::Collector;
use super::store::TableStore;
use crate::env::Env;
use crate::error::Result;

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

struct Open {
    parquet: ArrowWriter<Vec<u8>>,
    stats: Collector,
    rows: u64,
    hashes: Option<Vec<u128>>,
}

/// Takes batches of the table's schema, makes files.
pub struct Writer {
    target: Target,
    open: IndexMap<PartitionValues, Open>,
    done: Vec<Written>,
}

/// How a file of `schema` whose rows begin with `first` is written.
fn properties(schema: &Schema, first: &RecordBatch, codec: Codec) -> Result<WriterProperties> {
    let (compression, _) = codec_of(codec)?;
    let mut builder = WriterProperties::builder()
        .set_compression(compression)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(engine());
    let mut leaves = Vec::new();
    first.columns().iter().for_each(|column| leaves_of(column, &mut leaves));
    let schema = ArrowSchemaConverter::new().convert(schema)?;
    for (leaf, values) in schema.columns().iter().zip(leaves) {
        match leaf.physical_type() {
            // Numbers of a stream rarely repeat within a file; many texts (countries, statuses, types) do.
            PhysicalType::BYTE_ARRAY => {
                builder = builder.set_column_dictionary_enabled(leaf.path().clone(), repeats(&values));
                // The log has bounds of short texts; of long ones nobody needs any.
                builder = builder.set_column_statistics_enabled(leaf.path().clone(), EnabledStatistics::None);
            }
            // Parquet bounds leave NaN out, so a reader that trusts them would lose NaN rows.
            PhysicalType::FLOAT | PhysicalType::DOUBLE => {
                builder = builder.set_column_statistics_enabled(leaf.path().clone(), EnabledStatistics::None);
            }
            _ => {}
        }
    }
    Ok(builder.build())
}

/// The arrays below a column that Parquet has columns for, in its order.
fn leaves_of(array: &ArrayRef, leaves: &mut Vec<ArrayRef>) {
    match array.data_type() {
        DataType::Struct(_) => array.as_struct().columns().iter().for_each(|member| leaves_of(member, leaves)),
        DataType::List(_) => leaves_of(array.as_list::<i32>().values(), leaves),
        DataType::Map(..) => {
            let map = array.as_map();
            leaves_of(map.keys(), leaves);
            leaves_of(map.values(), leaves);
        }
        _ => leaves.push(Arc::clone(array)),
    }
}

/// Rows that tell whether a column's values repeat.
const SAMPLE: usize = 1024;

/// Whether a dictionary of the texts is worth making: half of the first ones are repeated.
fn repeats(values: &ArrayRef) -> bool {
    let Some(texts) = values.as_string_opt::<i32>() else { return true };
    let first: Vec<&str> = texts.iter().take(SAMPLE).flatten().collect();
    let distinct: HashSet<&str> = first.iter().copied().collect();
    first.len() < SAMPLE / 8 || distinct.len() * 2 <= first.len()
}

/// What we call ourselves in files and log entries.
pub fn engine() -> String {
    format!("smelt/{}", env!("CARGO_PKG_VERSION"))
}

fn codec_of(codec: Codec) -> Result<(Compression, &'static str)> {
    Ok(match codec {
        Codec::Snappy => (Compression::SNAPPY, "snappy"),
        Codec::Zstd => (Compression::ZSTD(ZstdLevel::try_new(1)?), "zstd"),
    })
}

impl Writer {
    pub fn new(target: Target) -> Result<Self> {
        Ok(Writer { target, open: IndexMap::new(), done: Vec::new() })
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
            let properties = properties(&self.target.file_schema, &rows, self.target.options.codec)?;
            let parquet = ArrowWriter::try_new(Vec::new(), Arc::clone(&self.target.file_schema), Some(properties))?;
            let stats = Collector::new(&self.target.file_schema);
            let hashes = hashes.is_some().then(Vec::new);
            self.open.insert(values.clone(), Open { parquet, stats, rows: 0, hashes });
        }
        let Some(open) = self.open.get_mut(&values) else { return Ok(()) };
        open.parquet.write(&rows)?;
        open.stats.add(&rows)?;
        open.rows += rows.num_rows() as u64;
        if let (Some(all), Some(new)) = (&mut open.hashes, hashes) {
            all.extend(new);
        }
        // What is buffered compresses a little further: the target is a size to aim at.
        let size = (open.parquet.bytes_written() + open.parquet.in_progress_size()) as u64;
        if size >= self.target.options.target_file_size
            && let Some(open) = self.open.shift_remove(&values)
        {
            let written = close(&self.target, values, open).await?;
            self.done.push(written);
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

async fn close(target: &Target, values: PartitionValues, open: Open) -> Result<Written> {
    let bytes = open.parquet.into_inner()?;
    let file = put(target, values, bytes, open.rows, open.stats.to_json()).await?;
    Ok(Written { file, hashes: open.hashes })
}

/// Puts a new file of `rows` rows.
pub(super) async fn put(
    target: &Target,
    values: PartitionValues,
    bytes: Vec<u8>,
    rows: u64,
    stats: String,
) -> Result<Arc<DataFile>> {
    let directory = partition::directory(&values, &target.partition_columns);
    let (_, suffix) = codec_of(target.options.codec)?;
    let path = format!("{directory}part-00000-{}.{suffix}.parquet", target.env.new_uuid());
    let size = bytes.len() as u64;
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

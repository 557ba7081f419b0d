//! Joining data files without decoding them: their column chunks are copied as they are, row group by row group, under one footer.
//!
//! A file's rows keep their place within it, deleted ones included, so that a file that lost a few rows keeps its vector. That costs
//! a copy of the bytes instead of decoding and encoding them, and leaves row groups as small as the files were: those of
//! a megabyte or some ten thousand rows are joined so, smaller ones are worth encoding anew.

use bytes::Bytes;
use parquet::arrow::{ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::SchemaDescriptor;
use std::sync::Arc;

use super::encode::engine;
use super::files::DataFile;
use super::snapshot::SnapshotFile;
use super::stats;
use super::writer::{self, Target, Written};
use crate::error::Result;

/// Of the size that a file should have, the least part that is worth a row group of its own: 1 MiB of 128.
const PART: u64 = 128;
/// So many rows are, too, however well they compress.
const ROWS: u64 = 1 << 14;

/// Whether a file of so many bytes and rows is joined as it is; a smaller one is encoded anew.
pub fn is_large(bytes: u64, rows: u64, target_file_size: u64) -> bool {
    bytes >= target_file_size / PART || rows >= ROWS
}

/// Whether these files may be joined as they are, as far as the log tells.
pub fn may_be_spliced(files: &[SnapshotFile], target_file_size: u64) -> bool {
    let is_large = |f: &SnapshotFile| is_large(f.file.size, f.file.rows, target_file_size);
    let is_whole = |f: &SnapshotFile| f.deleted.cardinality() * 4 < f.file.rows;
    files.len() > 1 && files.iter().all(|f| is_large(f) && is_whole(f))
}

/// One file with all rows of `files`, deleted ones included, one file after the other; None where they are not all as this smelt
/// would write them today.
pub async fn splice(target: &Target, files: &[SnapshotFile]) -> Result<Option<Written>> {
    let files: Vec<&DataFile> = files.iter().map(|f| f.file.as_ref()).collect();
    let known: Option<Vec<&str>> = files.iter().map(|f| f.stats.as_deref()).collect();
    let Some(stats) = known.and_then(|stats| stats::joined(&stats)) else { return Ok(None) };
    let Some(values) = files.first().map(|f| f.partition_values.clone()) else { return Ok(None) };

    let schema = ArrowSchemaConverter::new().convert(&target.file_schema)?;
    let mut properties = WriterProperties::builder().set_created_by(engine()).build();
    add_encoded_arrow_schema_to_metadata(&target.file_schema, &mut properties);
    let bytes = files.iter().map(|f| f.size as usize).sum();
    let out = Vec::with_capacity(bytes);
    let mut out = SerializedFileWriter::new(out, schema.root_schema_ptr(), Arc::new(properties))?;
    for file in &files {
        let bytes = target.store.get_at(&file.location).await?;
        let footer = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
        let footer = footer.parse_and_finish(&bytes)?;
        if !is_ours(&footer, &schema) || footer.file_metadata().num_rows() as u64 != file.rows {
            return Ok(None);
        }
        append(&mut out, &bytes, &footer)?;
    }
    let rows = files.iter().map(|f| f.rows).sum();
    let file = writer::put(target, values, out.into_inner()?.into(), target.options.codec, rows, stats).await?;
    Ok(Some(Written { file, hashes: None }))
}

/// Whether a file is as [`writer::Writer`] writes those of this schema: then its statistics in the log are, too.
fn is_ours(footer: &ParquetMetaData, schema: &SchemaDescriptor) -> bool {
    let footer = footer.file_metadata();
    footer.created_by().is_some_and(|by| by.starts_with("smelt/"))
        && footer.schema_descr().root_schema() == schema.root_schema()
}

/// All row groups of a file, as they are.
fn append(out: &mut SerializedFileWriter<Vec<u8>>, bytes: &Bytes, footer: &ParquetMetaData) -> Result<()> {
    for (group, columns) in footer.row_groups().iter().enumerate() {
        let mut row_group = out.next_row_group()?;
        for (at, column) in columns.columns().iter().enumerate() {
            let column_index = footer.column_index().and_then(|index| index.get(group)?.get(at)).cloned();
            let offset_index = footer.offset_index().and_then(|index| index.get(group)?.get(at)).cloned();
            let closed = ColumnCloseResult {
                bytes_written: column.compressed_size() as u64,
                rows_written: columns.num_rows() as u64,
                metadata: column.clone(),
                bloom_filter: None,
                column_index,
                offset_index,
            };
            row_group.append_column(bytes, closed)?;
        }
        row_group.close()?;
    }
    Ok(())
}

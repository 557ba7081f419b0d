//! Reading data files: whole or by row selection, as rows of the table's schema.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use roaring::RoaringBitmap;
use std::ops::Range;
use std::sync::Arc;

use super::files::DataFile;
use super::partition;
use super::schema::conform;
use super::store::TableStore;
use crate::error::{Error, Result};

const BATCH_ROWS: usize = 8192;

/// Files up to this size are fetched whole: one request instead of three.
const WHOLE: u64 = 1 << 20;

/// A Parquet file in an object store.
struct ObjectReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    /// The file, once fetched whole.
    bytes: Option<Bytes>,
}

impl ObjectReader {
    fn new(store: &TableStore, path: Path, size: u64) -> Self {
        ObjectReader { store: Arc::clone(&store.store), path, size, bytes: None }
    }

    async fn whole(&mut self) -> parquet::errors::Result<Option<&Bytes>> {
        if self.bytes.is_none() && self.size <= WHOLE {
            self.bytes = Some(self.store.get(&self.path).await?.bytes().await?);
        }
        Ok(self.bytes.as_ref())
    }
}

fn slice(bytes: &Bytes, range: &Range<u64>) -> parquet::errors::Result<Bytes> {
    let range = range.start as usize..range.end as usize;
    if range.end > bytes.len() {
        return Err(parquet::errors::ParquetError::EOF(format!("{} bytes, {range:?} wanted", bytes.len())));
    }
    Ok(bytes.slice(range))
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        Box::pin(async move {
            if let Some(bytes) = self.whole().await? {
                return slice(bytes, &range);
            }
            Ok(self.store.get_range(&self.path, range).await?)
        })
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        Box::pin(async move {
            if let Some(bytes) = self.whole().await? {
                return ranges.iter().map(|range| slice(bytes, range)).collect();
            }
            Ok(self.store.get_ranges(&self.path, &ranges).await?)
        })
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        Box::pin(async move {
            let size = self.size;
            // With the offset index a row selection skips pages instead of decoding them.
            let reader = ParquetMetaDataReader::new().with_offset_index_policy(PageIndexPolicy::Optional);
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        })
    }
}

/// What every reader of a table's files needs to know of it.
#[derive(Debug, Clone)]
pub struct Layout {
    pub store: TableStore,
    pub schema: SchemaRef,
    pub partition_columns: Vec<String>,
}

/// The rows that are left, as a selection of all `rows` of a file.
pub fn all_but(deleted: &RoaringBitmap, rows: u64) -> RowSelection {
    select(deleted, rows, false)
}

/// The rows in `wanted` only.
pub fn only(wanted: &RoaringBitmap, rows: u64) -> RowSelection {
    select(wanted, rows, true)
}

fn select(marked: &RoaringBitmap, rows: u64, keep: bool) -> RowSelection {
    let selector = |len: u64, selected: bool| match selected {
        true => RowSelector::select(len as usize),
        false => RowSelector::skip(len as usize),
    };
    let mut selectors = Vec::new();
    let (mut at, mut run_start, mut run_end) = (0u64, 0u64, 0u64);
    for row in marked.iter().map(u64::from).take_while(|r| *r < rows) {
        if row != run_end || run_start == run_end {
            if run_end > run_start {
                selectors.push(selector(run_end - run_start, keep));
                at = run_end;
            }
            if row > at {
                selectors.push(selector(row - at, !keep));
            }
            run_start = row;
        }
        run_end = row + 1;
    }
    if run_end > run_start {
        selectors.push(selector(run_end - run_start, keep));
        at = run_end;
    }
    if rows > at {
        selectors.push(selector(rows - at, !keep));
    }
    RowSelection::from(selectors)
}

/// Rows of `file`, in their order, in the table's schema.
pub async fn open(
    layout: &Layout,
    file: &Arc<DataFile>,
    selection: Option<RowSelection>,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let object = ObjectReader::new(&layout.store, file.location.clone(), file.size);
    let lost = |e: parquet::errors::ParquetError| Error::from(e).context(format!("reading {}", file.location));
    let mut builder = ParquetRecordBatchStreamBuilder::new(object).await.map_err(lost)?;
    let roots: Vec<usize> = builder
        .schema()
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, f)| layout.schema.index_of(f.name()).is_ok() && !layout.partition_columns.contains(f.name()))
        .map(|(i, _)| i)
        .collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
    if let Some(selection) = selection {
        builder = builder.with_row_selection(selection);
    }
    let layout = layout.clone();
    let file = Arc::clone(file);
    let stream = builder.build().map_err(lost)?;
    Ok(stream
        .map_err(Error::from)
        .map(move |batch| {
            complete(&batch?, &layout, &file).map_err(|e| e.context(format!("reading {}", file.location)))
        })
        .boxed())
}

/// `batch` with partition columns filled in and columns the file lacks as NULL.
fn complete(batch: &RecordBatch, layout: &Layout, file: &DataFile) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let columns = layout
        .schema
        .fields()
        .iter()
        .map(|field| {
            if layout.partition_columns.contains(field.name()) {
                return partition::constant(&file.partition_values, field.name(), field.data_type(), rows);
            }
            match batch.column_by_name(field.name()) {
                Some(column) => conform(column, field.data_type()),
                None => Ok(arrow::array::new_null_array(field.data_type(), rows)),
            }
        })
        .collect::<Result<Vec<_>>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(&layout.schema), columns, &options)?)
}

/// Number of rows of a file whose log entry does not say.
pub async fn row_count(store: &TableStore, path: &str, size: i64) -> Result<u64> {
    let object = ObjectReader::new(store, store.path(path)?, size.max(0) as u64);
    let builder = ParquetRecordBatchStreamBuilder::new(object).await?;
    Ok(builder.metadata().file_metadata().num_rows().max(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_are_the_marked_rows_and_their_complement() {
        let marked: RoaringBitmap = [0u32, 1, 4, 9].into_iter().collect();
        let chosen = |s: RowSelection| {
            let mut rows = Vec::new();
            let mut at = 0;
            for part in s.iter() {
                if !part.skip {
                    rows.extend(at..at + part.row_count);
                }
                at += part.row_count;
            }
            (rows, at)
        };
        assert_eq!(chosen(only(&marked, 10)), (vec![0, 1, 4, 9], 10));
        assert_eq!(chosen(all_but(&marked, 10)), (vec![2, 3, 5, 6, 7, 8], 10));
        assert_eq!(chosen(all_but(&marked, 12)), (vec![2, 3, 5, 6, 7, 8, 10, 11], 12));
        assert_eq!(chosen(only(&RoaringBitmap::new(), 3)), (vec![], 3));
        assert_eq!(chosen(all_but(&(0..3u32).collect(), 3)), (vec![], 3));
    }
}

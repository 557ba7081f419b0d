//! Rows as a Parquet file with the statistics of its log entry, one row group after the other and, within it, one column after
//! the other.
//!
//! A column is looked at, encoded and compressed while it is in the caches, with one set of buffers and one compressor at a time
//! instead of one for each column of each open file: for 25 columns that is 2 MB of memory instead of 40.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::partition;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use bytes::Bytes;
use hashbrown::HashSet;
use object_store::PutPayload;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, Encoding, Type as PhysicalType, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use std::io::Write;

use super::options::Codec;
use super::stats::Collector;
use crate::error::{Error, Result};

/// Size of a page before compression. Its buffers, of which Parquet has several that grow, stay in the caches; those of a megabyte
/// were as many pages of memory to clear.
const PAGE: usize = 128 << 10;

/// A file in the making.
pub struct Encoder {
    schema: SchemaRef,
    file: SerializedFileWriter<Pieces>,
    columns: ArrowRowGroupWriterFactory,
    stats: Collector,
    codec: Codec,
}

/// A file that is ready to be put.
pub struct Encoded {
    pub bytes: PutPayload,
    pub codec: Codec,
    /// As the log holds them.
    pub stats: String,
}

impl Encoder {
    /// For a file of `schema`; its first rows, which `row_group` takes too, tell how its columns are encoded best.
    pub fn new(schema: &SchemaRef, first: &RecordBatch, codec: Codec) -> Result<Self> {
        let properties = properties(schema, first, codec)?;
        let (file, columns) = ArrowWriter::try_new(Pieces::default(), SchemaRef::clone(schema), Some(properties))?
            .into_serialized_writer()?;
        Ok(Encoder { schema: SchemaRef::clone(schema), file, columns, stats: Collector::new(schema), codec })
    }

    /// Appends `rows` as one row group.
    pub fn row_group(&mut self, rows: &[RecordBatch]) -> Result<()> {
        let number = self.file.flushed_row_groups().len();
        let mut writers = self.columns.create_column_writers(number)?.into_iter();
        let mut group = self.file.next_row_group()?;
        self.stats.add_rows(rows.iter().map(RecordBatch::num_rows).sum());
        for (at, field) in self.schema.fields().iter().enumerate() {
            let mut leaves = Vec::with_capacity(rows.len());
            for batch in rows {
                self.stats.add_column(at, batch.column(at))?;
                leaves.push(compute_leaves(field, batch.column(at))?.into_iter());
            }
            // A nested column has several leaves, each of which Parquet has a column for.
            for _ in 0..leaves.first().map_or(0, ExactSizeIterator::len) {
                let more = || Error::internal("a row group has more columns than its file");
                let mut writer = writers.next().ok_or_else(more)?;
                for leaf in leaves.iter_mut().filter_map(Iterator::next) {
                    writer.write(&leaf)?;
                }
                writer.close()?.append_to_row_group(&mut group)?;
            }
        }
        if writers.next().is_some() {
            return Err(Error::internal("a row group lacks columns"));
        }
        group.close()?;
        Ok(())
    }

    /// Size so far.
    pub fn size(&self) -> u64 {
        self.file.bytes_written() as u64
    }

    /// The whole file.
    pub fn finish(self) -> Result<Encoded> {
        Ok(Encoded { bytes: self.file.into_inner()?.into(), codec: self.codec, stats: self.stats.to_json() })
    }
}

/// A file in memory, in pieces: unlike a vector it is never moved when it grows.
#[derive(Default)]
struct Pieces {
    full: Vec<Bytes>,
    last: Vec<u8>,
}

/// Size of a piece, but for one that was written at once and is larger.
const PIECE: usize = 1 << 20;

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.last.len() + bytes.len() > PIECE && !self.last.is_empty() {
            let full = std::mem::replace(&mut self.last, Vec::with_capacity(PIECE));
            self.full.push(full.into());
        }
        self.last.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl From<Pieces> for PutPayload {
    fn from(pieces: Pieces) -> Self {
        pieces.full.into_iter().chain([pieces.last.into()]).collect()
    }
}

/// How a file of `schema` whose rows begin with `first` is written.
fn properties(schema: &Schema, first: &RecordBatch, codec: Codec) -> Result<WriterProperties> {
    let mut builder = WriterProperties::builder()
        .set_compression(compression(codec)?)
        .set_dictionary_enabled(false)
        .set_data_page_size_limit(PAGE)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(engine());
    let mut leaves = Vec::new();
    first.columns().iter().for_each(|column| leaves_of(column, &mut leaves));
    let schema = ArrowSchemaConverter::new().convert(schema)?;
    for (leaf, values) in schema.columns().iter().zip(leaves) {
        match leaf.physical_type() {
            // Numbers of a stream rarely repeat within a file, but are near each other; many texts (countries, statuses, types) do. Spark has
            // both encodings in all its readers from 3.4 on (SPARK-36879, SPARK-40128), as it has deletion vectors.
            PhysicalType::INT32 | PhysicalType::INT64 if varies(&values)? => {
                builder = builder.set_column_encoding(leaf.path().clone(), Encoding::DELTA_BINARY_PACKED);
            }
            PhysicalType::BYTE_ARRAY => {
                builder = builder.set_column_dictionary_enabled(leaf.path().clone(), repeats(&values));
                // Lengths between texts are in the way of the compressor.
                builder = builder.set_column_encoding(leaf.path().clone(), Encoding::DELTA_LENGTH_BYTE_ARRAY);
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
        _ => leaves.push(ArrayRef::clone(array)),
    }
}

/// Rows that tell whether a column's values repeat, or vary.
const SAMPLE: usize = 1024;

/// Whether a dictionary of the texts is worth making: half of the first ones are repeated.
fn repeats(values: &ArrayRef) -> bool {
    let Some(texts) = values.as_string_opt::<i32>() else { return true };
    let first: Vec<&str> = texts.iter().take(SAMPLE).flatten().collect();
    let distinct: HashSet<&str> = first.iter().copied().collect();
    first.len() < SAMPLE / 8 || distinct.len() * 2 <= first.len()
}

/// Whether not all of the first values are the same: runs of one number are compressed quicker as they are.
fn varies(values: &ArrayRef) -> Result<bool> {
    let first = values.slice(0, values.len().min(SAMPLE));
    Ok(partition(&[first])?.len() > 1)
}

/// What we call ourselves in files and log entries.
pub fn engine() -> String {
    format!("smelt/{}", env!("CARGO_PKG_VERSION"))
}

fn compression(codec: Codec) -> Result<Compression> {
    Ok(match codec {
        Codec::Snappy => Compression::SNAPPY,
        Codec::Zstd => Compression::ZSTD(ZstdLevel::try_new(1)?),
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, ListArray, MapBuilder, StringArray, StringBuilder, StructArray};
    use arrow::datatypes::{Field, Int64Type};
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use std::sync::Arc;

    use super::*;

    fn nested(rows: std::ops::Range<i64>) -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter(rows.clone().map(|n| (n % 7 != 0).then_some(n))));
        let texts: ArrayRef = Arc::new(StringArray::from_iter(rows.clone().map(|n| Some(format!("text {}", n % 5)))));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
            rows.clone().map(|n| (n % 3 != 0).then(|| (0..n % 4).map(Some).collect::<Vec<_>>())),
        ));
        let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for n in rows {
            for i in 0..n % 3 {
                map.keys().append_value(format!("key {i}"));
                map.values().append_value(format!("value {n}"));
            }
            map.append(n % 5 != 0).unwrap();
        }
        let field = |name: &str, array: &ArrayRef| Arc::new(Field::new(name, array.data_type().clone(), true));
        let member: ArrayRef = Arc::new(StructArray::from(vec![
            (field("id", &ids), ArrayRef::clone(&ids)),
            (field("list", &lists), ArrayRef::clone(&lists)),
            (field("text", &texts), texts),
        ]));
        RecordBatch::try_from_iter_with_nullable([
            ("id", ids, true),
            ("member", member, true),
            ("list", lists, true),
            ("map", Arc::new(map.finish()) as ArrayRef, true),
        ])
        .unwrap()
    }

    #[test]
    fn numbers_and_texts_are_encoded_by_what_they_are() {
        let numbers = |of: fn(i64) -> i64| Arc::new(Int64Array::from_iter_values((0..4096).map(of))) as ArrayRef;
        let texts = |of: fn(i64) -> String| Arc::new(StringArray::from_iter_values((0..4096).map(of))) as ArrayRef;
        let rows = RecordBatch::try_from_iter([
            ("offset", numbers(|n| n)),
            ("partition", numbers(|_| 3)),
            ("id", texts(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64)))),
            ("status", texts(|n| format!("status {}", n % 5))),
        ])
        .unwrap();
        let mut encoder = Encoder::new(&rows.schema(), &rows, Codec::Zstd).unwrap();
        encoder.row_group(std::slice::from_ref(&rows)).unwrap();
        let bytes = Bytes::from(encoder.finish().unwrap().bytes);
        let read = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        let metadata = Arc::clone(read.metadata());
        let has = |column: usize, encoding| metadata.row_group(0).column(column).encodings().any(|e| e == encoding);
        assert!(has(0, Encoding::DELTA_BINARY_PACKED) && has(1, Encoding::PLAIN), "{metadata:?}");
        assert!(has(2, Encoding::DELTA_LENGTH_BYTE_ARRAY) && has(3, Encoding::RLE_DICTIONARY), "{metadata:?}");
        assert_eq!(read.with_batch_size(4096).build().unwrap().next().unwrap().unwrap(), rows);
    }

    #[test]
    fn nested_columns_of_several_batches_and_row_groups_come_back() {
        let all = nested(0..1000);
        let mut encoder = Encoder::new(&all.schema(), &all.slice(0, 10), Codec::Zstd).unwrap();
        encoder.row_group(&[all.slice(0, 10), all.slice(10, 0), all.slice(10, 490)]).unwrap();
        encoder.row_group(&[all.slice(500, 500)]).unwrap();
        let Encoded { bytes, stats, .. } = encoder.finish().unwrap();

        let read = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
        assert_eq!(read.metadata().row_groups().iter().map(|g| g.num_rows()).collect::<Vec<_>>(), [500, 500]);
        let read: Vec<RecordBatch> = read.build().unwrap().map(Result::unwrap).collect();
        assert_eq!(arrow::compute::concat_batches(&all.schema(), &read).unwrap(), all);

        let mut expected = Collector::new(&all.schema());
        expected.add_rows(all.num_rows());
        (0..all.num_columns()).for_each(|at| expected.add_column(at, all.column(at)).unwrap());
        assert_eq!(stats, expected.to_json());
    }
}

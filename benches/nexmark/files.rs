//! The events as files: lines of JSON, as a generator that is a program of its own sends them, or Parquet. One for every stream and block.

use arrow::array::{Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use smelt::decode::{DecodeFormat, DecodeOptions, Decoder, decoder};
use smelt::source::datagen::nexmark::Stream;
use smelt::types::{PayloadsBuilder, RawChunk};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::path::PathBuf;

use super::{Failure, Format};

/// Rows of a batch that is read from Parquet; those of a block are one batch afterwards.
const READ: usize = 1 << 16;

pub struct Files {
    dir: tempfile::TempDir,
    pub format: Format,
}

impl Files {
    pub fn new(format: Format) -> Result<Self, Failure> {
        Ok(Files { dir: tempfile::tempdir()?, format })
    }

    fn path(&self, stream: Stream, block: usize) -> PathBuf {
        self.dir.path().join(format!("{}-{block:05}", stream.name()))
    }

    pub fn write(&self, stream: Stream, block: usize, rows: &RecordBatch) -> Result<(), Failure> {
        let file = File::create(self.path(stream, block))?;
        if self.format == Format::Parquet {
            let mut writer = ArrowWriter::try_new(file, rows.schema(), None)?;
            writer.write(rows)?;
            writer.close()?;
            return Ok(());
        }
        let mut out = BufWriter::new(file);
        let mut writer = arrow::json::LineDelimitedWriter::new(&mut out);
        // It builds its text of a batch in memory.
        for from in (0..rows.num_rows()).step_by(READ) {
            writer.write(&rows.slice(from, READ.min(rows.num_rows() - from)))?;
        }
        writer.finish()?;
        Ok(out.flush()?)
    }

    /// The rows of a block, in batches of these `parts` of it.
    pub fn read(&self, stream: Stream, block: usize, parts: &[Range<usize>]) -> Result<Vec<RecordBatch>, Failure> {
        let path = self.path(stream, block);
        if self.format == Format::Parquet {
            let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?.with_batch_size(READ).build()?;
            let all = concat_batches(&stream.schema(), &reader.collect::<Result<Vec<_>, _>>()?)?;
            return Ok(parts.iter().map(|part| all.slice(part.start, part.len())).collect());
        }
        let text = std::fs::read(path)?;
        let mut rest = text.as_slice();
        let mut decoder = decoder(DecodeFormat::Json, &DecodeOptions::new(stream.schema()))?;
        parts.iter().map(|part| decoded(&mut *decoder, stream, part.len(), &mut rest)).collect()
    }
}

/// The next `count` lines of `rest`, as a source hands them to its decoder.
fn decoded(decoder: &mut dyn Decoder, stream: Stream, count: usize, rest: &mut &[u8]) -> Result<RecordBatch, Failure> {
    let mut values = PayloadsBuilder::default();
    for _ in 0..count {
        let end = memchr::memchr(b'\n', rest).ok_or("a line is missing")?;
        values.push(Some(&rest[..end]));
        *rest = &rest[end + 1..];
    }
    let chunk = RawChunk {
        topic: stream.name().into(),
        partition: 0,
        file: None,
        values: values.finish(),
        keys: None,
        offsets: Int64Array::from_iter_values(0..count as i64),
        timestamps: TimestampMicrosecondArray::from(vec![None; count]),
        headers: None,
    };
    let decoded = decoder.decode(&chunk)?;
    if let Some(error) = decoded.errors.first() {
        return Err(format!("a {} cannot be decoded: {error:?}", stream.name()).into());
    }
    debug_assert_eq!(decoded.rows.num_rows(), chunk.values.len());
    Ok(decoded.rows)
}

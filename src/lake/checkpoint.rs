//! Checkpoints: the state of a table as one Parquet file, so that a reader need not replay the log from its beginning.
//!
//! Both directions go through JSON lines: a checkpoint's rows are the log's actions, and arrow's JSON reader and writer know how
//! to make Parquet rows of them and back. Runs on blocking threads, never on the commit's path.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::json::{LineDelimitedWriter, ReaderBuilder};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use std::sync::{Arc, LazyLock};

use super::actions::{Commit, Line};
use super::store::TableStore;
use crate::error::{Error, Result};

const LAST: &str = "_delta_log/_last_checkpoint";

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn long(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

fn int(name: &str) -> Field {
    Field::new(name, DataType::Int32, true)
}

fn flag(name: &str) -> Field {
    Field::new(name, DataType::Boolean, true)
}

fn texts(name: &str) -> Field {
    Field::new(name, DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))), true)
}

fn map(name: &str) -> Field {
    let pair = Fields::from(vec![Field::new("key", DataType::Utf8, false), text("value")]);
    let entries = Field::new("key_value", DataType::Struct(pair), false);
    Field::new(name, DataType::Map(Arc::new(entries), false), true)
}

fn structure(name: &str, fields: Vec<Field>) -> Field {
    Field::new(name, DataType::Struct(fields.into()), true)
}

fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let vector = || {
            structure(
                "deletionVector",
                vec![
                    text("storageType"),
                    text("pathOrInlineDv"),
                    int("offset"),
                    int("sizeInBytes"),
                    long("cardinality"),
                ],
            )
        };
        Arc::new(Schema::new(vec![
            structure("txn", vec![text("appId"), long("version"), long("lastUpdated")]),
            structure(
                "add",
                vec![
                    text("path"),
                    map("partitionValues"),
                    long("size"),
                    long("modificationTime"),
                    flag("dataChange"),
                    text("stats"),
                    vector(),
                ],
            ),
            structure(
                "remove",
                vec![
                    text("path"),
                    long("deletionTimestamp"),
                    flag("dataChange"),
                    flag("extendedFileMetadata"),
                    map("partitionValues"),
                    long("size"),
                    vector(),
                ],
            ),
            structure(
                "metaData",
                vec![
                    text("id"),
                    text("name"),
                    text("description"),
                    structure("format", vec![text("provider"), map("options")]),
                    text("schemaString"),
                    texts("partitionColumns"),
                    map("configuration"),
                    long("createdTime"),
                ],
            ),
            structure(
                "protocol",
                vec![
                    int("minReaderVersion"),
                    int("minWriterVersion"),
                    texts("readerFeatures"),
                    texts("writerFeatures"),
                ],
            ),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// The bytes of a checkpoint of `lines`.
pub fn encode(lines: &[Line]) -> Result<Vec<u8>> {
    let schema = schema();
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
    let mut decoder = ReaderBuilder::new(schema).build_decoder()?;
    // In steps: a decoder takes as many rows at once as its batch holds.
    for chunk in lines.chunks(1024) {
        decoder.serialize(chunk)?;
        if let Some(batch) = decoder.flush()? {
            writer.write(&batch)?;
        }
    }
    Ok(writer.into_inner()?)
}

fn decode(bytes: Bytes, what: &str) -> Result<Vec<Line>> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    // Parsed statistics and partition values double what other columns say.
    let known = ["txn", "add", "remove", "metaData", "protocol", "sidecar"];
    let roots: Vec<usize> = builder
        .schema()
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, f)| known.contains(&f.name().as_str()))
        .map(|(i, _)| i)
        .collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let mut lines = Vec::new();
    for batch in builder.with_projection(mask).build()? {
        let batch: RecordBatch = batch?;
        let mut json = LineDelimitedWriter::new(Vec::new());
        json.write(&batch)?;
        json.finish()?;
        lines.extend(Commit::parse(&json.into_inner(), what)?.0);
    }
    Ok(lines)
}

/// The actions of a checkpoint file.
pub async fn read(store: &TableStore, path: &str) -> Result<Vec<Line>> {
    let bytes = store.get(path).await?;
    if path.ends_with(".json") {
        return Ok(Commit::parse(&bytes, path)?.0);
    }
    let what = path.to_string();
    tokio::task::spawn_blocking(move || decode(bytes, &what))
        .await
        .map_err(|e| Error::internal(format!("reading a checkpoint: {e}")))?
}

/// Writes the checkpoint of `version` and points `_last_checkpoint` at it. Writing it twice does no harm.
pub async fn write(store: &TableStore, version: i64, lines: Vec<Line>) -> Result<()> {
    let (bytes, actions) = tokio::task::spawn_blocking(move || encode(&lines).map(|bytes| (bytes, lines.len())))
        .await
        .map_err(|e| Error::internal(format!("writing a checkpoint: {e}")))??;
    let size = bytes.len();
    store.put(&format!("_delta_log/{version:020}.checkpoint.parquet"), bytes).await?;
    let last = serde_json::json!({"version": version, "size": actions, "sizeInBytes": size});
    store.put(LAST, last.to_string().into_bytes()).await
}

/// The version that `_last_checkpoint` names.
pub async fn last(store: &TableStore) -> Result<Option<i64>> {
    let Some(bytes) = store.try_get(LAST).await? else { return Ok(None) };
    // It is only a hint: when it cannot be read, the listing tells the same.
    Ok(serde_json::from_slice::<serde_json::Value>(&bytes).ok().and_then(|v| v.get("version")?.as_i64()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::actions::{Add, Descriptor, Metadata, Protocol, Remove, Txn};
    use std::collections::BTreeMap;

    #[test]
    fn every_action_survives() {
        let vector = Descriptor {
            storage_type: "u".into(),
            path_or_inline_dv: "ab^-aqEH.-t@S}K{vb[*k^".into(),
            offset: Some(1),
            size_in_bytes: 40,
            cardinality: 6,
        };
        let lines = vec![
            Line::from(Protocol {
                min_reader_version: 3,
                min_writer_version: 7,
                reader_features: Some(vec!["deletionVectors".into()]),
                writer_features: Some(vec!["deletionVectors".into()]),
            }),
            Line::from(Metadata {
                id: "x".into(),
                name: None,
                description: Some("d".into()),
                format: crate::lake::actions::Format { provider: "parquet".into(), options: BTreeMap::new() },
                schema_string: r#"{"type":"struct","fields":[]}"#.into(),
                partition_columns: vec!["day".into()],
                configuration: BTreeMap::from([("a".into(), "b".into())]),
                created_time: Some(1),
            }),
            Line::from(Txn { app_id: "smelt/x".into(), version: i64::MAX, last_updated: Some(5) }),
            Line::from(Add {
                path: "day=1/a.parquet".into(),
                partition_values: BTreeMap::from([("day".into(), Some("1".into())), ("n".into(), None)]),
                size: 10,
                modification_time: 11,
                data_change: false,
                stats: Some(r#"{"numRecords":7}"#.into()),
                deletion_vector: Some(vector.clone()),
            }),
            Line::from(Remove {
                path: "b.parquet".into(),
                deletion_timestamp: Some(3),
                data_change: false,
                extended_file_metadata: Some(true),
                partition_values: Some(BTreeMap::new()),
                size: Some(4),
                deletion_vector: None,
            }),
        ];
        let read = decode(encode(&lines).unwrap().into(), "checkpoint").unwrap();
        assert_eq!(read.len(), lines.len());
        for (read, line) in read.iter().zip(&lines) {
            // A NULL partition value may be left out: both mean NULL.
            let mut line = line.clone();
            if let Some(add) = &mut line.add
                && read.add.as_ref().is_some_and(|a| !a.partition_values.contains_key("n"))
            {
                add.partition_values.remove("n");
            }
            assert_eq!(*read, line);
        }
    }
}

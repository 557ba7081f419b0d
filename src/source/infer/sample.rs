//! The first records of a topic or of files.

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use std::time::Duration;

use super::Request;
use crate::decode::CsvOptions;
use crate::decode::csv::{parse_header, split_records};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::kafka::{Consumer, ConsumerConfig, Delivery, OnLoss, StartAt, TopicChoice};
use crate::project::Format;
use crate::source::files::{Place, lines};
use crate::types::{Payload, Positions};

/// Of a file that is no Parquet so much is looked at.
const HEAD: u64 = 8 << 20;
/// A topic that gives nothing for so long is taken as it is.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where samples come from, as the project will name it.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    Kafka { connection: Option<String>, bootstrap_servers: String, topic: String },
    Files { path: String },
}

/// A record: its key, and its payload (`None`: a tombstone).
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// What was read.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// JSON, or something that turns out to be none.
    Records(Vec<Record>),
    Csv {
        records: Vec<Record>,
        options: CsvOptions,
    },
    Parquet(SchemaRef),
}

#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub origin: Origin,
    pub content: Content,
}

pub(super) async fn read(request: &Request, env: &Env) -> Result<Sample> {
    match request.location.strip_prefix("kafka:") {
        Some(rest) => kafka(rest.trim_start_matches("//"), request).await,
        None => files(request, env).await,
    }
}

/// `place` is `host:port/topic`; with a connection also `/topic` or `topic`.
async fn kafka(place: &str, request: &Request) -> Result<Sample> {
    let (servers, topic) = match (place.split_once('/'), &request.connection) {
        (Some((servers, topic)), _) => (servers, topic),
        (None, Some(_)) => ("", place),
        (None, None) => (place, ""),
    };
    let wrong = |message: &str| {
        Error::user("bad-location", format!("`{}`: {message}", request.location))
            .with_hint("write kafka://HOST:PORT/TOPIC, or kafka:///TOPIC with --connection NAME")
    };
    if topic.is_empty() {
        return Err(wrong("no topic"));
    }
    let mut properties = request.connection.as_ref().map(|(_, p)| p.clone()).unwrap_or_default();
    if !servers.is_empty() {
        properties.insert("bootstrap.servers".to_string(), servers.to_string());
    }
    let Some(bootstrap_servers) = properties.get("bootstrap.servers").cloned() else {
        return Err(wrong("no broker"));
    };
    let mut consumer = Consumer::new(ConsumerConfig {
        name: topic.to_string(),
        properties,
        group: "smelt-infer".to_string(),
        topics: TopicChoice::Named(vec![topic.to_string()]),
        start: StartAt::Earliest,
        on_data_loss: OnLoss::Skip,
        headers: false,
    })?;
    consumer.open(&Positions::new(), true).await?;
    let mut records = Vec::new();
    while records.len() < request.records && !consumer.is_done() {
        let Ok(delivery) = tokio::time::timeout(PATIENCE, consumer.next()).await else { break };
        match delivery? {
            Delivery::Chunk { chunk, .. } => {
                for i in 0..chunk.len().min(request.records - records.len()) {
                    let key = chunk.keys.as_ref().filter(|k| k.is_valid(i)).map(|k| k.value(i).to_vec());
                    let value = match chunk.values.get(i) {
                        Payload::Tombstone => None,
                        payload => Some(payload.bytes().to_vec()),
                    };
                    records.push(Record { key, value });
                }
            }
            Delivery::End { .. } | Delivery::Gap(_) => {}
        }
    }
    if records.is_empty() {
        return Err(Error::user("no-samples", format!("topic `{topic}` at {bootstrap_servers} has no records"))
            .with_hint("try again when there are some"));
    }
    let connection = request.connection.as_ref().map(|(name, _)| name.clone());
    let content = match request.format {
        Some(Format::Csv) => Content::Csv { records, options: CsvOptions { header: None, ..CsvOptions::default() } },
        _ => Content::Records(records),
    };
    Ok(Sample { origin: Origin::Kafka { connection, bootstrap_servers, topic: topic.to_string() }, content })
}

async fn files(request: &Request, env: &Env) -> Result<Sample> {
    let path = &request.location;
    let located = match path.contains("://") {
        true => path.clone(),
        false => std::path::absolute(request.dir.join(path))?.to_string_lossy().into_owned(),
    };
    let (store, place) = Place::of(env, &located)?;
    let mut found = place.files(&store).await?;
    found.retain(|file| file.size > 0);
    found.sort_by(|a, b| a.location.as_ref().cmp(b.location.as_ref()));
    let Some(first) = found.first() else {
        let error = Error::user("no-samples", format!("{located} names no file with anything in it"));
        return Err(error.with_hint("name a file, a folder or a glob (data/*.json), or kafka://HOST:PORT/TOPIC"));
    };
    let head = |size: u64, format: Format| match format {
        Format::Parquet => size,
        _ => size.min(HEAD),
    };
    let start = store.get_range(&first.location, 0..first.size.min(4096)).await?;
    let format = match request.format {
        Some(format) => format,
        None => format_of(first.location.filename().unwrap_or(""), &start)?,
    };
    let origin = Origin::Files { path: path.clone() };
    if format == Format::Parquet {
        let bytes = store.get_range(&first.location, 0..first.size).await?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)
            .map_err(|e| Error::user("bad-parquet", format!("{}: {e}", first.location)))?;
        return Ok(Sample { origin, content: Content::Parquet(builder.schema().clone()) });
    }
    let mut records: Vec<Record> = Vec::new();
    let mut options: Option<CsvOptions> = None;
    for file in &found {
        if records.len() >= request.records {
            break;
        }
        let end = head(file.size, format);
        let bytes = store.get_range(&file.location, 0..end).await?;
        // The last record of a part is cut off somewhere.
        let bytes = match memchr::memrchr(b'\n', &bytes) {
            Some(at) if end < file.size => bytes.slice(..at),
            _ => bytes,
        };
        let left = request.records - records.len();
        if format != Format::Csv {
            let values = lines(&bytes);
            let values = values.iter().take(left).flatten();
            records.extend(values.map(|value| Record { key: None, value: Some(value.to_vec()) }));
            continue;
        }
        let options = options.get_or_insert_with(|| csv_options(&bytes));
        let mut rows = split_records(&bytes, options).into_iter();
        if options.header.is_some() {
            rows.next();
        }
        records.extend(rows.take(left).map(|row| Record { key: None, value: Some(bytes[row].to_vec()) }));
    }
    let content = match options {
        Some(options) => Content::Csv { records, options },
        None => Content::Records(records),
    };
    Ok(Sample { origin, content })
}

/// What a file is, by its name, else by how it begins.
fn format_of(name: &str, start: &[u8]) -> Result<Format> {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_lowercase();
    Ok(match extension.as_str() {
        "json" | "ndjson" | "jsonl" => Format::Json,
        "csv" | "tsv" => Format::Csv,
        "parquet" => Format::Parquet,
        "gz" | "zst" | "bz2" | "zip" | "xz" | "lz4" => {
            return Err(Error::user("compressed", format!("{name} is compressed, and files are read as they are"))
                .with_hint("unpack it (Parquet files may be compressed inside)"));
        }
        _ if start.starts_with(b"PAR1") => Format::Parquet,
        _ if start.trim_ascii_start().starts_with(b"{") => Format::Json,
        _ => Format::Csv,
    })
}

/// How a CSV file is written: the delimiter that its first line has most of, and a header if that line looks like one.
fn csv_options(bytes: &[u8]) -> CsvOptions {
    let plain = CsvOptions::default();
    let first = split_records(bytes, &plain).into_iter().next().map_or(&b""[..], |row| &bytes[row]);
    let mut counts: BTreeMap<u8, usize> = BTreeMap::new();
    first.iter().filter(|b| b",;\t|".contains(b)).for_each(|b| *counts.entry(*b).or_default() += 1);
    let delimiter =
        b",;\t|".iter().copied().max_by_key(|d| counts.get(d).copied().unwrap_or(0) * 2 + usize::from(*d == b','));
    let options = CsvOptions { delimiter: delimiter.unwrap_or(b','), ..plain };
    let header = parse_header(first, &options).ok().filter(|names| {
        // A column without a name is an index that somebody's tool has written.
        names.iter().any(|name| !name.is_empty()) && names.iter().all(|name| name.parse::<f64>().is_err())
    });
    CsvOptions { header, ..options }
}

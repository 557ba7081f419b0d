//! Files: each consumed whole, once, in name order.
//!
//! Discovery lists the folder before the glob's first wildcard and appends what is new to the ledger, in name order, before
//! anything is read: a file keeps its sequence number for ever, and the position is the next number to read. A path
//! without wildcard names one file, or a folder, of which all files are read that do not begin with `.` or `_`.

use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryBuilder, Int64Array, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::OpenContext;
use super::assemble::Assembler;
use super::schema::change_kind;
use crate::decode::csv::{parse_header, split_records};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::project::{FilesConfig, Format, SourceTable};
use crate::types::{
    ChangeKind, FileEntry, Ledger, Poll, PollLimit, Positions, RawChunk, Source, SourceBatch, SourcePartition,
};

/// How often an unbounded source looks for new files.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A files source.
pub(super) struct Files {
    table: Arc<SourceTable>,
    config: FilesConfig,
    env: Env,
    ledger: Arc<dyn Ledger>,
    store: Arc<dyn ObjectStore>,
    place: Place,
    assembler: Assembler,
    /// Files in the ledger from the position on, not yet read.
    todo: VecDeque<FileEntry>,
    /// Sequence number after the last ledger entry.
    next_seq: i64,
    known: BTreeMap<String, i64>,
    /// Files read and not yet returned: a poll that is dropped while it reads the next one loses none.
    ready: Vec<SourceBatch>,
    bounded: bool,
}

/// Where files are looked for.
pub(super) enum Place {
    /// Folder that is listed with everything below it, and what paths must match.
    Glob { prefix: Path, pattern: glob::Pattern },
    /// A file, or a folder whose own files are meant.
    Plain(Path),
}

/// When the youngest file was changed, µs since 1970.
pub(super) async fn newest(table: &SourceTable, config: &FilesConfig, env: &Env) -> Result<Option<i64>> {
    let (store, place) = Place::of_table(env, table, config)?;
    let files = place.files(&store).await?;
    Ok(files.iter().map(|file| file.last_modified.timestamp_micros()).max())
}

impl Place {
    /// The same for a source table; a bad path is shown where it is declared.
    fn of_table(env: &Env, table: &SourceTable, config: &FilesConfig) -> Result<(Arc<dyn ObjectStore>, Place)> {
        Place::of(env, &config.path).map_err(|e| match e.code() {
            "bad-path" => e.with_span(table.span.clone()),
            _ => e,
        })
    }

    /// What `path` names: a file, a folder or a glob, absolute or a URL; and the store it is in.
    pub(super) fn of(env: &Env, path: &str) -> Result<(Arc<dyn ObjectStore>, Place)> {
        let Some(wildcard) = path.find(['*', '?', '[']) else {
            let (store, path) = env.object_store(path)?;
            return Ok((store, Place::Plain(path)));
        };
        let folder = path[..wildcard].rfind('/').map_or("", |i| &path[..i]);
        let folder = if folder.is_empty() { "/" } else { folder };
        let (store, prefix) = env.object_store(folder)?;
        let relative = path[folder.len().min(path.len())..].trim_start_matches('/');
        let full = if prefix.as_ref().is_empty() { relative.to_string() } else { format!("{prefix}/{relative}") };
        let pattern = glob::Pattern::new(&full).map_err(|e| Error::user("bad-path", format!("`{path}`: {e}")))?;
        Ok((store, Place::Glob { prefix, pattern }))
    }

    /// The files it names now.
    pub(super) async fn files(&self, store: &dyn ObjectStore) -> Result<Vec<ObjectMeta>> {
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        let mut found = match self {
            Place::Glob { prefix, .. } => {
                let prefix = (!prefix.as_ref().is_empty()).then_some(prefix);
                if_there(store.list(prefix).try_collect::<Vec<_>>().await)?
            }
            Place::Plain(path) => match store.head(path).await {
                Ok(file) => return Ok(vec![file]),
                Err(object_store::Error::NotFound { .. }) => {
                    if_there(store.list_with_delimiter(Some(path)).await.map(|listed| listed.objects))?
                }
                Err(e) => return Err(e.into()),
            },
        };
        found.retain(|object| {
            let name = object.location.filename().unwrap_or("");
            let named = match self {
                Place::Glob { pattern, .. } => pattern.matches_with(object.location.as_ref(), options),
                // What begins with an underscore is a writer's own (`_SUCCESS`, `_temporary`).
                Place::Plain(_) => !name.starts_with('_'),
            };
            named && !name.starts_with('.') && !name.ends_with(".tmp")
        });
        Ok(found)
    }
}

impl Files {
    pub(super) fn new(table: Arc<SourceTable>, config: FilesConfig, context: &OpenContext) -> Result<Self> {
        let ledger = context.ledger.clone().ok_or_else(|| Error::internal("a files source needs a ledger"))?;
        let (store, place) = Place::of_table(&context.env, &table, &config)?;
        Ok(Files {
            assembler: Assembler::new(Arc::clone(&table))?,
            env: context.env.clone(),
            ledger,
            store,
            place,
            todo: VecDeque::new(),
            next_seq: 0,
            known: BTreeMap::new(),
            ready: Vec::new(),
            bounded: false,
            config,
            table,
        })
    }

    fn partition(&self) -> SourcePartition {
        SourcePartition { topic: self.table.name.as_str().into(), partition: 0 }
    }

    /// Appends files that are not in the ledger yet, in name order.
    async fn discover(&mut self) -> Result<()> {
        let mut found = self.place.files(&self.store).await?;
        found.retain(|object| !self.known.contains_key(object.location.as_ref()));
        if found.is_empty() {
            return Ok(());
        }
        found.sort_by(|a, b| a.location.as_ref().cmp(b.location.as_ref()));
        let entries: Vec<FileEntry> = found
            .into_iter()
            .zip(self.next_seq..)
            .map(|(object, seq)| FileEntry {
                seq,
                path: object.location.to_string(),
                size: object.size as i64,
                etag: object.e_tag,
            })
            .collect();
        self.ledger.append(&entries).await?;
        for entry in entries {
            self.next_seq = entry.seq + 1;
            self.known.insert(entry.path.clone(), entry.seq);
            self.todo.push_back(entry);
        }
        Ok(())
    }

    async fn read(&mut self, entry: &FileEntry) -> Result<SourceBatch> {
        let missing = |e: object_store::Error| match e {
            object_store::Error::NotFound { .. } => Error::user(
                "file-gone",
                format!("file {} of source {}.{} is gone", entry.path, self.table.source, self.table.name),
            )
            .with_hint("put it back: tables must be rebuilt from it"),
            other => other.into(),
        };
        let path = Path::parse(&entry.path).map_err(|e| Error::user("bad-path", e.to_string()))?;
        let bytes = self.store.get(&path).await.map_err(missing)?.bytes().await.map_err(missing)?;
        if i32::try_from(bytes.len()).is_err() {
            let gigabytes = bytes.len() >> 30;
            return Err(Error::user("file-too-large", format!("file {} has {gigabytes} GiB", entry.path))
                .with_hint("a file is consumed whole and can have 2 GiB at most: split it"));
        }
        let mut offsets = Vec::new();
        let now = self.env.now_micros();
        let assembled = match self.table.format {
            Format::Parquet => {
                let columns = self.parquet(entry, bytes)?;
                let count = columns.first().map_or(0, |c| c.len());
                let chunk = chunk_of(&self.table.name, entry, BinaryArray::new_null(count));
                self.assembler.columns(&chunk, &columns, now)?
            }
            Format::Csv => {
                let values = self.csv_records(&bytes)?;
                self.assembler.assemble(&chunk_of(&self.table.name, entry, values), now)?
            }
            _ => self.assembler.assemble(&chunk_of(&self.table.name, entry, lines(&bytes)), now)?,
        };
        // A row's position is its file: all of a file, or none of it.
        offsets.resize(assembled.records.len(), entry.seq);
        let rejects = assembled.rejects.map(|(rows, records)| (rows, Int64Array::from(vec![entry.seq; records.len()])));
        Ok(SourceBatch {
            partition: self.partition(),
            next: entry.seq + 1,
            rows: assembled.rows,
            offsets: Int64Array::from(offsets),
            rejects,
        })
    }

    /// The records of a CSV file; the header line, if the file has one, is taken out.
    fn csv_records(&mut self, bytes: &[u8]) -> Result<BinaryArray> {
        let header = self.config.options.get("header").and_then(serde_json::Value::as_bool).unwrap_or(true);
        let mut records = split_records(bytes, self.assembler.csv());
        if header && !records.is_empty() {
            let first = records.remove(0);
            let names = parse_header(&bytes[first], self.assembler.csv())?;
            self.assembler.set_csv_header(names)?;
        }
        Ok(BinaryArray::from_iter_values(records.into_iter().map(|r| &bytes[r])))
    }

    /// The declared columns of a Parquet file: found by name, exactly, then ignoring case; missing ones are NULL.
    fn parquet(&self, entry: &FileEntry, bytes: bytes::Bytes) -> Result<Vec<ArrayRef>> {
        let bad = |e: String| {
            Error::user("bad-parquet", format!("{}: {e}", entry.path))
                .with_hint("remove the file, or declare the columns in the types it holds")
        };
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| bad(e.to_string()))?;
        let schema = Arc::clone(builder.schema());
        let batches: Vec<_> = builder
            .build()
            .map_err(|e| bad(e.to_string()))?
            .collect::<Result<_, _>>()
            .map_err(|e| bad(e.to_string()))?;
        let all = arrow::compute::concat_batches(&schema, &batches)?;
        self.assembler
            .declared()
            .iter()
            .map(|field| {
                let name = field.name();
                let found = schema
                    .fields()
                    .iter()
                    .position(|f| f.name() == name)
                    .or_else(|| schema.fields().iter().position(|f| f.name().eq_ignore_ascii_case(name)));
                match found {
                    None => Ok(new_null_array(field.data_type(), all.num_rows())),
                    Some(at) => {
                        let options = CastOptions { safe: false, ..CastOptions::default() };
                        cast_with_options(all.column(at), field.data_type(), &options)
                            .map_err(|e| bad(format!("column `{name}`: {e}")))
                    }
                }
            })
            .collect()
    }
}

/// A folder that is not there yet has no files.
fn if_there(listed: object_store::Result<Vec<ObjectMeta>>) -> Result<Vec<ObjectMeta>> {
    match listed {
        Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
        listed => Ok(listed?),
    }
}

/// The lines of a file, blank ones left out.
pub(super) fn lines(bytes: &[u8]) -> BinaryArray {
    let mut values = BinaryBuilder::with_capacity(bytes.len() / 200 + 1, bytes.len());
    let mut start = 0;
    while start < bytes.len() {
        let end = memchr::memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |i| start + i);
        let line = bytes[start..end].strip_suffix(b"\r").unwrap_or(&bytes[start..end]);
        if !line.iter().all(u8::is_ascii_whitespace) {
            values.append_value(line);
        }
        start = end + 1;
    }
    values.finish()
}

/// The records of a file, with their numbers in it.
fn chunk_of(table: &str, entry: &FileEntry, values: BinaryArray) -> RawChunk {
    let count = values.len();
    RawChunk {
        topic: table.into(),
        partition: entry.seq as i32,
        file: Some(entry.path.as_str().into()),
        keys: None,
        offsets: Int64Array::from_iter_values(0..count as i64),
        timestamps: TimestampMicrosecondArray::from(vec![None; count]),
        headers: None,
        values: values.into(),
    }
}

#[async_trait]
impl Source for Files {
    fn schema(&self) -> SchemaRef {
        self.assembler.schema()
    }

    fn change_kind(&self) -> ChangeKind {
        change_kind(&self.table)
    }

    async fn open(&mut self, from: &Positions, bounded: bool) -> Result<Positions> {
        self.bounded = bounded;
        self.ready.clear();
        let entries = self.ledger.entries().await?;
        let start = from.get(&self.partition()).copied().unwrap_or(0);
        self.next_seq = entries.last().map_or(0, |e| e.seq + 1);
        self.known = entries.iter().map(|e| (e.path.clone(), e.seq)).collect();
        self.todo = entries.into_iter().filter(|e| e.seq >= start).collect();
        self.discover().await?;
        Ok(Positions::from([(self.partition(), start)]))
    }

    async fn poll(&mut self, limit: PollLimit) -> Result<Poll> {
        if self.todo.is_empty() && self.ready.is_empty() {
            if self.bounded {
                return Ok(Poll::End);
            }
            tokio::time::sleep(LOOK_EVERY.min(limit.wait.max(Duration::from_millis(50)))).await;
            self.discover().await?;
        }
        let mut rows: usize = self.ready.iter().map(|b| b.rows.num_rows()).sum();
        while self.ready.len() < limit.max_files.max(1) && rows < limit.max_rows {
            let Some(entry) = self.todo.front().cloned() else { break };
            let batch = self.read(&entry).await?;
            self.todo.pop_front();
            rows += batch.rows.num_rows();
            self.ready.push(batch);
        }
        let batches = std::mem::take(&mut self.ready);
        Ok(if batches.is_empty() { Poll::Idle } else { Poll::Batches(batches) })
    }

    fn ends(&self) -> Option<Positions> {
        Some(Positions::from([(self.partition(), self.next_seq)]))
    }

    async fn committed(&mut self, _positions: &Positions) -> Result<()> {
        Ok(())
    }

    async fn lag(&mut self) -> Result<Positions> {
        Ok(Positions::from([(self.partition(), self.todo.len() as i64)]))
    }

    fn identity(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn warning(&self) -> Option<String> {
        self.known.is_empty().then(|| format!("{} names no file: the source is empty", self.config.path))
    }
}

//! Sources as tables: what a query or data test reads of a source that is no table of the lake.
//!
//! 1. The source is opened where it begins, and says where it ends now; a query about an older epoch ends where that epoch's tables had
//!    read it. Every scan of the query ends there, however often it reads the source and whatever arrives meanwhile.
//! 2. A scan opens the source, decodes record after record as the pipeline does, and hands the rows on as they come. Bad records have no
//!    row, as everywhere: their dead letters are the business of the model that reads the source.
//! 3. A changelog is added up first: its rows are those that are there at its end.
//!
//! Invariants: nothing is written, no offset is committed, and the files' ledger is read only.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::compute::{expanded, slice};
use super::query::{Cut, Reader};
use super::starts::ledger;
use crate::error::{Error, Result};
use crate::lake::{Epochs, Lake};
use crate::operators::{Keyed, consolidate};
use crate::project::{Connector, KafkaConfig, SourceTable, Start};
use crate::source::{OpenContext, change_kind, relation_schema};
use crate::types::{ChangeKind, FileEntry, Ledger, Poll, PollLimit, Positions, SignedBatch, Source};

/// One poll of a replay.
const LIMIT: PollLimit = PollLimit { max_rows: 131_072, max_files: 64, wait: Duration::from_millis(200) };

impl Reader {
    /// The rows of a source, in its declared and included columns.
    pub(super) async fn source(&self, table: &Arc<SourceTable>) -> Result<Arc<dyn TableProvider>> {
        let name = format!("{}.{}", table.source, table.name);
        if let Connector::Delta { schema, identifier, path: None } = &table.connector {
            return match self.table(schema, identifier).await? {
                Some(found) => Ok(found),
                // A table that is not there yet is empty.
                None => Ok(Arc::new(MemTable::try_new(relation_schema(table)?, vec![vec![]])?)),
            };
        }
        let until = match &self.cut {
            Cut::Now => None,
            Cut::Epoch(row) => {
                let read = super::positions::positions_in_row(&row.positions, &name);
                if read.is_empty() {
                    let message =
                        format!("no table had read source {name} in epoch {}: how far is not known", row.epoch);
                    return Err(Error::user("no-table-then", message)
                        .with_hint("leave out --epoch and --timestamp to read all there is now"));
                }
                Some(read)
            }
            Cut::Version(_) => {
                return Err(Error::user("no-versions", format!("source {name} has no versions: it is no table"))
                    .with_hint("use --epoch or --timestamp"));
            }
        };
        let context = |error: Error| error.context(format!("source {name}"));
        let replay = self.replay(table, until).await.map_err(context)?;
        Ok(Arc::new(StreamingTable::try_new(Arc::clone(&replay.schema), vec![Arc::new(replay)])?))
    }

    async fn replay(&self, table: &Arc<SourceTable>, until: Option<Positions>) -> Result<Replay> {
        let context = OpenContext {
            env: self.env.clone(),
            ledger: known_files(&self.lake, table),
            project: self.project.name.clone(),
            target: self.project.target.name.clone(),
        };
        let mut replay = Replay {
            schema: relation_schema(table)?,
            table: from_the_beginning(table),
            context,
            until: Positions::new(),
            opened: Mutex::new(None),
        };
        let mut source = replay.open().await?;
        replay.until = match (until, source.ends()) {
            (Some(until), _) => until,
            (None, Some(ends)) => ends,
            // What never ends is as long as the lake knows it to be.
            (None, None) => {
                let epochs = Epochs::open(&self.lake).await?;
                let name = format!("{}.{}", table.source, table.name);
                epochs.last().map(|row| super::positions::positions_in_row(&row.positions, &name)).unwrap_or_default()
            }
        };
        if source.ends().is_none() && !replay.until.is_empty() {
            source = replay.open().await?;
        }
        *replay.opened.lock() = Some(source);
        Ok(replay)
    }
}

/// A source whose configured start is its newest record is read from its oldest: else nothing would be there.
fn from_the_beginning(table: &Arc<SourceTable>) -> Arc<SourceTable> {
    match &table.connector {
        Connector::Kafka(kafka) if kafka.start == Start::Latest => {
            let connector = Connector::Kafka(KafkaConfig { start: Start::Earliest, ..kafka.clone() });
            Arc::new(SourceTable { connector, ..table.as_ref().clone() })
        }
        _ => Arc::clone(table),
    }
}

/// A source to be read from its beginning to a known end, any number of times.
struct Replay {
    table: Arc<SourceTable>,
    schema: SchemaRef,
    context: OpenContext,
    /// Position after the last record of each partition; empty: as far as the source itself goes.
    until: Positions,
    /// Open already, for the first scan.
    opened: Mutex<Option<Box<dyn Source>>>,
}

impl Replay {
    async fn open(&self) -> Result<Box<dyn Source>> {
        let mut source = crate::source::open(&self.table, &self.context)?;
        if !self.until.is_empty() {
            source.read_until(&self.until);
        }
        source.open(&Positions::new(), true).await?;
        Ok(source)
    }

    /// What one scan reads.
    fn scan(&self) -> Self {
        Replay {
            table: Arc::clone(&self.table),
            schema: Arc::clone(&self.schema),
            context: self.context.clone(),
            until: self.until.clone(),
            opened: Mutex::new(self.opened.lock().take()),
        }
    }

    async fn rows(self) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let taken = self.opened.lock().take();
        let source = match taken {
            Some(source) => source,
            None => self.open().await?,
        };
        let reading = Reading { source, until: self.until.clone() };
        let changes = stream::try_unfold(reading, |mut reading| async move {
            Ok::<_, Error>(reading.next().await?.map(|rows| (rows, reading)))
        });
        let rows = match change_kind(&self.table) {
            ChangeKind::Append => changes
                .map_ok(|batches: Vec<SignedBatch>| stream::iter(batches.into_iter().map(|b| Ok(b.rows))))
                .try_flatten()
                .boxed(),
            kind => {
                let all: Vec<SignedBatch> = changes.try_concat().await?;
                let schema = Arc::clone(&self.schema);
                stream::iter(added_up(&schema, &kind, all)?.into_iter().map(Ok)).boxed()
            }
        };
        let schema = Arc::clone(&self.schema);
        let typed = move |rows: RecordBatch| Ok(RecordBatch::try_new(Arc::clone(&schema), rows.columns().to_vec())?);
        Ok(rows.and_then(move |rows| futures::future::ready(typed(rows))).boxed())
    }
}

/// A source that is being read.
struct Reading {
    source: Box<dyn Source>,
    until: Positions,
}

impl Reading {
    /// The next rows, in the order of their offsets; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<SignedBatch>>> {
        loop {
            match self.source.poll(LIMIT).await? {
                Poll::Batches(batches) => {
                    let rows = batches.iter().map(|batch| {
                        let end = match self.until.get(&batch.partition) {
                            Some(end) => batch.offsets.values().partition_point(|o| o < end),
                            None if self.until.is_empty() => batch.offsets.len(),
                            None => 0,
                        };
                        slice(&batch.rows, 0, end)
                    });
                    return Ok(Some(rows.collect()));
                }
                Poll::Idle => {}
                Poll::End => return Ok(None),
            }
        }
    }
}

/// The rows a changelog leaves.
fn added_up(schema: &SchemaRef, kind: &ChangeKind, changes: Vec<SignedBatch>) -> Result<Vec<RecordBatch>> {
    let ChangeKind::Keyed(key) = kind else { return expanded(consolidate(schema, changes)?) };
    let columns: Vec<usize> = key
        .iter()
        .map(|name| {
            let found = schema.fields().iter().position(|f| f.name().eq_ignore_ascii_case(name));
            found.ok_or_else(|| Error::internal(format!("the key `{name}` is no column of its source")))
        })
        .collect::<Result<_>>()?;
    Ok(vec![Keyed::last_per_key(&changes, schema, &columns)?.upserts.rows])
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replay({}.{})", self.table.source, self.table.name)
    }
}

impl PartitionStream for Replay {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (scan, schema) = (self.scan(), Arc::clone(&self.schema));
        let name = format!("source {}.{}", self.table.source, self.table.name);
        let rows = stream::once(scan.rows()).try_flatten();
        let rows = rows.map_err(move |e: Error| DataFusionError::External(Box::new(e.context(name.as_str()))));
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

/// The files of a source, to be read and not written.
pub(super) fn known_files(lake: &Lake, table: &SourceTable) -> Option<Arc<dyn Ledger>> {
    let numbers = ledger(lake, table);
    numbers.map(|lake| Arc::new(Numbers { lake, seen: Default::default() }) as Arc<dyn Ledger>)
}

/// The ledger as a reader has it: files that it discovers itself are numbered after those of the lake, and the numbers forgotten.
struct Numbers {
    lake: Arc<dyn Ledger>,
    /// All of them, once it was asked.
    seen: tokio::sync::Mutex<Option<Vec<FileEntry>>>,
}

#[async_trait]
impl Ledger for Numbers {
    async fn entries(&self) -> Result<Vec<FileEntry>> {
        let mut seen = self.seen.lock().await;
        if let Some(seen) = seen.as_ref() {
            return Ok(seen.clone());
        }
        let entries = self.lake.entries().await?;
        *seen = Some(entries.clone());
        Ok(entries)
    }

    async fn append(&self, entries: &[FileEntry]) -> Result<()> {
        self.seen.lock().await.get_or_insert_default().extend_from_slice(entries);
        Ok(())
    }
}

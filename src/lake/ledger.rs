//! The ledger of a files source: a Delta table `_smelt/files_<schema>_<name>` with one row per discovered file.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use futures::TryStreamExt;
use std::sync::Arc;
use tokio::sync::Mutex;

use super::catalog::{Lake, OWN, TableSpec};
use super::commit::CommitRequest;
use super::table::{INSTANCE, Table};
use crate::error::{Error, Result};
use crate::types::{FileEntry, Ledger, SignedBatch};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("seq", DataType::Int64, true),
        Field::new("path", DataType::Utf8, true),
        Field::new("size", DataType::Int64, true),
        Field::new("etag", DataType::Utf8, true),
    ]))
}

struct TableLedger {
    lake: Lake,
    name: String,
    table: Mutex<Option<Table>>,
}

impl Lake {
    /// The ledger of the files source `schema.name`. Nothing is read or created before it is used.
    pub fn ledger(&self, schema: &str, name: &str) -> Arc<dyn Ledger> {
        Arc::new(TableLedger { lake: self.clone(), name: format!("files_{schema}_{name}"), table: Mutex::new(None) })
    }
}

impl TableLedger {
    async fn load(&self, table: &mut Option<Table>) -> Result<()> {
        if table.is_none() {
            *table = self.lake.table(OWN, &self.name).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Ledger for TableLedger {
    async fn entries(&self) -> Result<Vec<FileEntry>> {
        let mut guard = self.table.lock().await;
        self.load(&mut guard).await?;
        let Some(table) = guard.as_ref() else { return Ok(Vec::new()) };
        let mut rows = table.committed_snapshot().rows();
        let mut found = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            let (seq, size) =
                (batch.column(0).as_primitive::<Int64Type>(), batch.column(2).as_primitive::<Int64Type>());
            let (path, etag) = (batch.column(1).as_string::<i32>(), batch.column(3).as_string::<i32>());
            found.extend((0..batch.num_rows()).map(|i| FileEntry {
                seq: seq.value(i),
                path: path.value(i).to_string(),
                size: size.value(i),
                etag: etag.is_valid(i).then(|| etag.value(i).to_string()),
            }));
        }
        found.sort_by_key(|f| f.seq);
        Ok(found)
    }

    async fn append(&self, entries: &[FileEntry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut guard = self.table.lock().await;
        self.load(&mut guard).await?;
        if guard.is_none() {
            let mut spec = TableSpec::new(schema(), false);
            spec.docs.description =
                Some("Files a source has discovered, in the order in which they are consumed".to_string());
            *guard = Some(self.lake.create_table(OWN, &self.name, spec).await?);
        }
        let Some(table) = guard.as_mut() else { return Err(Error::internal("no ledger table")) };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(entries.iter().map(|e| Some(e.seq)).collect::<Int64Array>()),
            Arc::new(entries.iter().map(|e| Some(e.path.as_str())).collect::<StringArray>()),
            Arc::new(entries.iter().map(|e| Some(e.size)).collect::<Int64Array>()),
            Arc::new(entries.iter().map(|e| e.etag.as_deref()).collect::<StringArray>()),
        ];
        let outcome = async {
            table.stage(&[SignedBatch::inserts(RecordBatch::try_new(schema(), columns)?)]).await?;
            let txns = self.lake.instance().map(|n| (INSTANCE.to_string(), n)).into_iter().collect();
            let properties = table.changed_retention();
            table.commit(CommitRequest { txns, properties, ..CommitRequest::default() }).await
        }
        .await;
        if outcome.is_err() {
            // Whether the entries are there is unknown: the log tells, next time.
            *guard = None;
        }
        outcome.map(|_| ())
    }
}

//! `_smelt/epochs`: one row per epoch, a consistent cut of the lake: every table's version and every position.

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int64Array, Int64Builder, MapBuilder, MapFieldNames, RecordBatch, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use futures::TryStreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::catalog::{Lake, OWN, TableSpec};
use super::commit::CommitRequest;
use super::snapshot::live_rows;
use super::table::{INSTANCE, Table};
use crate::error::{Error, Result};
use crate::types::SignedBatch;

/// The table, in smelt's own schema.
pub(super) const NAME: &str = "epochs";
const EPOCH: &str = "smelt/epoch";

/// One epoch, committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochRow {
    pub epoch: i64,
    pub instance: i64,
    /// µs since 1970.
    pub committed_at: i64,
    /// A run of part of the DAG: the other tables' versions are older than their inputs.
    pub partial: bool,
    /// Table → version.
    pub versions: BTreeMap<String, i64>,
    /// Position (a `txn` application id) → value, also of tables that did not commit.
    pub positions: BTreeMap<String, i64>,
}

/// The epochs of a lake.
#[derive(Debug)]
pub struct Epochs {
    lake: Lake,
    table: Option<Table>,
    last: Option<EpochRow>,
}

fn map_type() -> DataType {
    let pair =
        Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Int64, true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair), false)), false)
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("epoch", DataType::Int64, true),
        Field::new("instance", DataType::Int64, true),
        Field::new("committed_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("partial", DataType::Boolean, true),
        Field::new("versions", map_type(), true),
        Field::new("positions", map_type(), true),
    ]))
}

fn map(entries: &BTreeMap<String, i64>) -> Result<ArrayRef> {
    let names = MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), Int64Builder::new());
    for (key, value) in entries {
        builder.keys().append_value(key);
        builder.values().append_value(*value);
    }
    builder.append(true)?;
    Ok(Arc::new(builder.finish()))
}

fn entries(column: &ArrayRef, row: usize) -> BTreeMap<String, i64> {
    let pairs = column.as_map().value(row);
    let (keys, values) = (pairs.column(0).as_string::<i32>(), pairs.column(1).as_primitive::<Int64Type>());
    keys.iter().zip(values).filter_map(|(k, v)| Some((k?.to_string(), v?))).collect()
}

impl EpochRow {
    fn to_batch(&self) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![self.epoch])),
            Arc::new(Int64Array::from(vec![self.instance])),
            Arc::new(TimestampMicrosecondArray::from(vec![self.committed_at]).with_timezone("UTC")),
            Arc::new(BooleanArray::from(vec![self.partial])),
            map(&self.versions)?,
            map(&self.positions)?,
        ];
        Ok(RecordBatch::try_new(schema(), columns)?)
    }

    pub(super) fn from_batch(batch: &RecordBatch, row: usize) -> Self {
        EpochRow {
            epoch: batch.column(0).as_primitive::<Int64Type>().value(row),
            instance: batch.column(1).as_primitive::<Int64Type>().value(row),
            committed_at: batch.column(2).as_primitive::<TimestampMicrosecondType>().value(row),
            partial: batch.column(3).as_boolean().value(row),
            versions: entries(batch.column(4), row),
            positions: entries(batch.column(5), row),
        }
    }
}

impl Epochs {
    /// Opens the epochs of `lake` and reads the last one. Creates nothing.
    pub async fn open(lake: &Lake) -> Result<Epochs> {
        let table = lake.table(OWN, NAME).await?;
        let last = match &table {
            Some(table) => newest(table).await?,
            None => None,
        };
        Ok(Epochs { lake: lake.clone(), table, last })
    }

    /// The last epoch that was committed.
    pub fn last(&self) -> Option<&EpochRow> {
        self.last.as_ref()
    }

    /// Appends a row in one commit; the table is created with its first row. After an error nothing is known to be
    /// appended: open the epochs again.
    pub async fn append(&mut self, row: EpochRow) -> Result<()> {
        if self.table.is_none() {
            let mut spec = TableSpec::new(schema(), false);
            spec.docs.description = Some("One row per epoch: every table's version and every position".to_string());
            self.table = Some(self.lake.create_table(OWN, NAME, spec).await?);
        }
        let Some(table) = &mut self.table else { return Err(Error::internal("no epochs table")) };
        // A commit under way has this row already.
        if !table.has_staged() {
            table.stage(&[SignedBatch::inserts(row.to_batch()?)]).await?;
        }
        let txns = vec![(INSTANCE.to_string(), row.instance), (EPOCH.to_string(), row.epoch)];
        table.commit(CommitRequest { txns, ..CommitRequest::default() }).await?;
        self.last = Some(row);
        Ok(())
    }

    /// The table, for maintenance and queries.
    pub fn table(&mut self) -> Option<&mut Table> {
        self.table.as_mut()
    }
}

/// The row with the highest epoch: in the file whose statistics say so.
async fn newest(table: &Table) -> Result<Option<EpochRow>> {
    let snapshot = table.committed_snapshot();
    let bound = |stats: &Option<Arc<str>>| -> Option<i64> {
        let stats: serde_json::Value = serde_json::from_str(stats.as_deref()?).ok()?;
        stats.get("maxValues")?.get("epoch")?.as_i64()
    };
    let Some(file) = snapshot.files.iter().max_by_key(|f| bound(&f.file.stats).unwrap_or(i64::MAX)) else {
        return Ok(None);
    };
    let mut rows = live_rows(&snapshot.layout, file).await?;
    let mut last: Option<EpochRow> = None;
    while let Some(batch) = rows.try_next().await? {
        for i in 0..batch.num_rows() {
            let epoch = batch.column(0).as_primitive::<Int64Type>().value(i);
            if last.as_ref().is_none_or(|l| l.epoch <= epoch) {
                last = Some(EpochRow::from_batch(&batch, i));
            }
        }
    }
    Ok(last)
}

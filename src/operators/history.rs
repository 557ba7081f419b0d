//! Snapshots: from a query's rows and the last versions of a table to the versions that begin and end now.
//!
//! The result is a signed change of the table. A version that ends is retracted as it was and inserted with its end; nothing else of it
//! changes. The instant is the planned one of the run, so a run that is repeated finds its own versions and changes nothing.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::{cast, concat_batches, filter_record_batch, is_null, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use md5::{Digest, Md5};
use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::plan::CompiledSnapshot;
use crate::project::HardDeletes;
use crate::types::SignedBatch;

/// Makes the versions of one snapshot.
pub struct History<'a> {
    pub name: &'a str,
    pub snapshot: &'a CompiledSnapshot,
    /// Columns of the table.
    pub table: SchemaRef,
    /// Several rows of one key are versions one after the other (strategy `timestamp` only).
    pub several: bool,
}

/// The rows that a key has in the query, and its current version.
#[derive(Default)]
struct Entry {
    current: Option<usize>,
    /// End of the last version, when none is current.
    ended: Option<i64>,
    rows: Vec<usize>,
}

/// Versions that begin: which row, from which side, and when.
#[derive(Default)]
struct Begun {
    rows: Vec<u64>,
    /// `valid_from`, `updated_at`.
    from: Vec<i64>,
    /// `valid_to`, when it has already ended.
    to: Vec<Option<i64>>,
}

impl History<'_> {
    /// What changes when the query's rows are `rows` at `instant` (µs). `versions` holds every current version of the table, and with
    /// [`History::needs_past`] all others too.
    pub fn change(&self, versions: &[RecordBatch], rows: &[RecordBatch], instant: i64) -> Result<Vec<SignedBatch>> {
        let rows = concat_batches(&self.snapshot.query, rows)?;
        let versions = concat_batches(&self.table, versions)?;
        let is_current = self.is_current(&versions)?;
        let current = filter_record_batch(&versions, &is_current)?;
        let known = self.query_columns(&current)?;
        let keys = self.encoder(&self.snapshot.key)?;
        let (old_keys, new_keys) = (keys(&known)?, keys(&rows)?);
        let mut entries: HashMap<OwnedRow, Entry> = HashMap::with_capacity(rows.num_rows());
        for row in 0..current.num_rows() {
            let entry = entries.entry(old_keys.row(row).owned()).or_default();
            if entry.current.replace(row).is_some() {
                return Err(Error::user(
                    "snapshot-history",
                    format!("{} holds two current versions of {}", self.name, self.shown_key(&known, row)),
                )
                .with_hint("somebody else wrote to the table: end one of them"));
            }
        }
        if self.needs_past() {
            let past = filter_record_batch(&versions, &arrow::compute::not(&is_current)?)?;
            let past_keys = keys(&self.query_columns(&past)?)?;
            let ends = instants(&past, &self.snapshot.names.valid_to)?;
            for row in 0..past.num_rows() {
                let entry = entries.entry(past_keys.row(row).owned()).or_default();
                entry.ended = entry.ended.max(Some(ends.value(row)));
            }
        }
        for row in 0..rows.num_rows() {
            self.check_key(&rows, row)?;
            entries.entry(new_keys.row(row).owned()).or_default().rows.push(row);
        }
        let mut order: Vec<&Entry> = entries.values().collect();
        order.sort_by_key(|e| (e.current.is_none(), e.current, e.rows.first().copied()));
        self.versions(&current, &known, &rows, &order, instant)
    }

    /// A row that was deleted and comes back with its old time must not begin in its own past.
    pub fn needs_past(&self) -> bool {
        self.snapshot.updated_at.is_some() && self.snapshot.hard_deletes == HardDeletes::Invalidate
    }

    /// When each version has ended; what stands there of a current one means nothing.
    pub(super) fn ends<'a>(&self, versions: &'a RecordBatch) -> Result<&'a TimestampMicrosecondArray> {
        instants(versions, &self.snapshot.names.valid_to)
    }

    fn versions(
        &self,
        current: &RecordBatch,
        known: &RecordBatch,
        rows: &RecordBatch,
        entries: &[&Entry],
        instant: i64,
    ) -> Result<Vec<SignedBatch>> {
        let checked = self.checked(known, rows)?;
        let updated = self.updated_at(rows)?;
        let all: Vec<usize> = (0..self.snapshot.query.fields().len()).collect();
        // Rows of one instant: which of them is the version must not depend on how they were found.
        let whole = if self.several { self.encoder(&all).and_then(|encode| encode(rows)).ok() } else { None };
        let since = instants(current, &self.snapshot.names.updated_at)?;
        let is_deleted = self.deleted(current)?;
        let (mut begun, mut gone) = (Begun::default(), Begun::default());
        let (mut ended, mut ends) = (Vec::new(), Vec::new());
        for entry in entries {
            match (entry.current, entry.rows.as_slice()) {
                (None, []) => {}
                (Some(old), []) => {
                    let already = is_deleted.as_ref().is_some_and(|d| d.value(old));
                    if self.snapshot.hard_deletes == HardDeletes::Ignore || already {
                        continue;
                    }
                    ended.push(old as u64);
                    ends.push(instant);
                    if self.snapshot.hard_deletes == HardDeletes::NewRecord {
                        gone.push(old, instant);
                    }
                }
                (old, found) => {
                    let mut found = found.to_vec();
                    if let Some(updated) = &updated {
                        found.sort_by_key(|row| (updated.value(*row), whole.as_ref().map(|rows| rows.row(*row)), *row));
                    }
                    if found.len() > 1 && !(self.several && updated.is_some()) {
                        return Err(self.twice(rows, found[0]));
                    }
                    let mut back = None;
                    if let (None, Some(end), Some(updated)) = (old, entry.ended, &updated) {
                        let newest = found[found.len() - 1];
                        found.retain(|row| updated.value(*row) >= end);
                        if found.is_empty() {
                            found.push(newest);
                            back = Some(instant);
                        }
                    }
                    let mut last = old.map(|old| (since.value(old), Some(old)));
                    for row in found {
                        let from = back.or(updated.as_ref().map(|u| u.value(row))).unwrap_or(instant);
                        let returned = old.is_some_and(|old| is_deleted.as_ref().is_some_and(|d| d.value(old)));
                        let changed = match (&checked, last) {
                            (_, None) => true,
                            (Some((was, is)), Some((_, Some(old)))) => returned || was.row(old) != is.row(row),
                            (_, Some((since, _))) => from > since || (returned && last.is_some_and(|l| l.1.is_some())),
                        };
                        if !changed {
                            continue;
                        }
                        // One that was deleted in between comes back now, whenever it was last touched.
                        let from =
                            if returned && last.is_some_and(|(since, _)| since >= from) { instant } else { from };
                        match last {
                            Some((_, Some(old))) => {
                                ended.push(old as u64);
                                ends.push(from);
                            }
                            Some((_, None)) => begun.end_last(from),
                            None => {}
                        }
                        begun.push(row, from);
                        last = Some((from, None));
                    }
                }
            }
        }
        let mut change = Vec::new();
        if !ended.is_empty() {
            let was = take_record_batch(current, &UInt64Array::from(ended))?;
            let is = self.with_end(&was, ends)?;
            change.push(SignedBatch::retracts(was));
            change.push(SignedBatch::inserts(is));
        }
        for (side, begun, deleted) in [(rows, begun, false), (known, gone, true)] {
            if !begun.rows.is_empty() {
                change.push(SignedBatch::inserts(self.begin(side, begun, deleted)?));
            }
        }
        Ok(change)
    }

    pub(super) fn is_current(&self, versions: &RecordBatch) -> Result<BooleanArray> {
        let ends = instants(versions, &self.snapshot.names.valid_to)?;
        Ok(match self.snapshot.valid_to_current {
            None => is_null(ends)?,
            Some(open) => ends.iter().map(|end| Some(end.is_none_or(|end| end == open))).collect(),
        })
    }

    /// The query's columns of rows of the table.
    pub(super) fn query_columns(&self, versions: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.snapshot.query.fields().iter().map(|f| column(versions, f.name()).cloned());
        Ok(RecordBatch::try_new(Arc::clone(&self.snapshot.query), columns.collect::<Result<_>>()?)?)
    }

    /// Encodes these columns of the query so that rows are equal where the columns are, NULLs included.
    fn encoder(&self, columns: &[usize]) -> Result<impl Fn(&RecordBatch) -> Result<Rows>> {
        let types = columns.iter().map(|c| SortField::new(self.snapshot.query.field(*c).data_type().clone()));
        let converter = RowConverter::new(types.collect())?;
        Ok(move |rows: &RecordBatch| Ok(converter.convert_columns(rows.project(columns)?.columns())?))
    }

    /// Old and new rows by the columns that strategy `check` compares.
    fn checked(&self, known: &RecordBatch, rows: &RecordBatch) -> Result<Option<(Rows, Rows)>> {
        let Some(check) = &self.snapshot.check else { return Ok(None) };
        let encode = self.encoder(check)?;
        Ok(Some((encode(known)?, encode(rows)?)))
    }

    /// When each row was updated, by strategy `timestamp`.
    fn updated_at(&self, rows: &RecordBatch) -> Result<Option<TimestampMicrosecondArray>> {
        let Some(index) = self.snapshot.updated_at else { return Ok(None) };
        let array = cast(rows.column(index), &instant_type())?;
        let array = array.as_primitive::<TimestampMicrosecondType>().clone();
        if let Some(row) = (0..array.len()).find(|row| array.is_null(*row)) {
            let column = self.snapshot.query.field(index).name();
            let message = format!("snapshot {}: `{column}` is NULL for {}", self.name, self.shown_key(rows, row));
            return Err(Error::user("snapshot-null", message)
                .with_hint("leave such rows out in the snapshot's query, or give them a time with coalesce"));
        }
        Ok(Some(array))
    }

    fn deleted(&self, current: &RecordBatch) -> Result<Option<BooleanArray>> {
        if self.snapshot.hard_deletes != HardDeletes::NewRecord {
            return Ok(None);
        }
        let texts = column(current, &self.snapshot.names.is_deleted)?.as_string::<i32>();
        Ok(Some(texts.iter().map(|t| Some(t == Some("True"))).collect()))
    }

    /// Current versions with their ends.
    fn with_end(&self, was: &RecordBatch, ends: Vec<i64>) -> Result<RecordBatch> {
        let mut columns = was.columns().to_vec();
        columns[self.table.index_of(&self.snapshot.names.valid_to)?] =
            Arc::new(TimestampMicrosecondArray::from(ends).with_timezone("UTC"));
        Ok(RecordBatch::try_new(Arc::clone(&self.table), columns)?)
    }

    /// Rows as versions that begin.
    fn begin(&self, rows: &RecordBatch, begun: Begun, deleted: bool) -> Result<RecordBatch> {
        let rows = take_record_batch(rows, &UInt64Array::from(begun.rows))?;
        let names = &self.snapshot.names;
        let from: ArrayRef = Arc::new(TimestampMicrosecondArray::from(begun.from).with_timezone("UTC"));
        let open = self.snapshot.valid_to_current;
        let to: TimestampMicrosecondArray = begun.to.into_iter().map(|end| end.or(open)).collect();
        let ids = self.ids(&rows, &from)?;
        let columns = self.table.fields().iter().map(|field| -> Result<ArrayRef> {
            let name = field.name();
            if let Ok(index) = rows.schema().index_of(name) {
                return Ok(Arc::clone(rows.column(index)));
            }
            Ok(if *name == names.scd_id {
                Arc::new(ids.clone())
            } else if *name == names.updated_at || *name == names.valid_from {
                Arc::clone(&from)
            } else if *name == names.valid_to {
                Arc::new(to.clone().with_timezone("UTC"))
            } else if *name == names.is_deleted {
                let text = if deleted { "True" } else { "False" };
                Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, rows.num_rows())))
            } else {
                // A column that the query no longer has.
                arrow::array::new_null_array(field.data_type(), rows.num_rows())
            })
        });
        Ok(RecordBatch::try_new(Arc::clone(&self.table), columns.collect::<Result<_>>()?)?)
    }

    /// MD5 of key and time, joined as dbt joins them: one per version, the same in every run.
    fn ids(&self, rows: &RecordBatch, from: &ArrayRef) -> Result<StringArray> {
        let mut texts = Vec::new();
        for index in &self.snapshot.key {
            texts.push(cast(rows.column(*index), &DataType::Utf8)?);
        }
        let from = from.as_primitive::<TimestampMicrosecondType>();
        let ids = (0..rows.num_rows()).map(|row| {
            let mut hash = Md5::new();
            for text in &texts {
                let text = text.as_string::<i32>();
                hash.update(if text.is_null(row) { "" } else { text.value(row) });
                hash.update("|");
            }
            let at = chrono::DateTime::from_timestamp_micros(from.value(row)).unwrap_or_default();
            hash.update(at.format("%Y-%m-%d %H:%M:%S%.6f").to_string());
            hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        });
        Ok(StringArray::from_iter_values(ids))
    }

    fn check_key(&self, rows: &RecordBatch, row: usize) -> Result<()> {
        match self.snapshot.key.iter().find(|c| rows.column(**c).is_null(row)) {
            None => Ok(()),
            Some(column) => Err(Error::user(
                "snapshot-null",
                format!(
                    "snapshot {}: `{}` is NULL, and it says which row it is",
                    self.name,
                    rows.schema().field(*column).name()
                ),
            )
            .with_hint("leave such rows out in the snapshot's query: where … is not null")),
        }
    }

    fn twice(&self, rows: &RecordBatch, row: usize) -> Error {
        let message =
            format!("snapshot {}: its query returns several rows with {}", self.name, self.shown_key(rows, row));
        Error::user("snapshot-duplicate", message)
            .with_hint("`unique_key` must name one row: add a column to it, or keep the newest row with qualify row_number() over (…) = 1")
    }

    fn shown_key(&self, rows: &RecordBatch, row: usize) -> String {
        let shown = self.snapshot.key.iter().map(|c| {
            let text = arrow::util::display::array_value_to_string(rows.column(*c), row).unwrap_or_default();
            format!("{} = {text}", rows.schema().field(*c).name())
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

impl Begun {
    fn push(&mut self, row: usize, from: i64) {
        self.rows.push(row as u64);
        self.from.push(from);
        self.to.push(None);
    }

    fn end_last(&mut self, at: i64) {
        if let Some(end) = self.to.last_mut() {
            *end = Some(at);
        }
    }
}

fn instant_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::internal(format!("the snapshot's table has no column {name}")))
}

fn instants<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a TimestampMicrosecondArray> {
    column(batch, name)?
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| Error::internal(format!("{name} is no timestamp")))
}

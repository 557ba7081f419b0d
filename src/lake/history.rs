//! Reading back: a table at an older version, and the epoch that was the newest at some time.
//!
//! An epochs row names every table's version, so tables read at the versions of one row show one instant of the whole lake. How
//! far back is a matter of retention: log entries go after `log_retention`, files that were replaced after
//! `deleted_file_retention`. What can no longer be read is an error before a row is returned, never a part of the rows.

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::catalog::{Lake, OWN};
use super::epochs::{EpochRow, NAME};
use super::files::Deleted;
use super::log;
use super::reader::Layout;
use super::snapshot::{SnapshotFile, TableSnapshot, live_rows};
use super::table::Table;
use crate::error::{Error, Result};

/// Files looked for at once.
const REQUESTS: usize = 32;

/// An instant of the lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Epoch(i64),
    /// µs since 1970 UTC: the newest epoch committed up to then.
    Time(i64),
}

impl Lake {
    /// The table as it was at `version`; `None` when there is no table.
    pub async fn snapshot_at(&self, schema: &str, name: &str, version: i64) -> Result<Option<Arc<TableSnapshot>>> {
        let Some(newest) = self.table(schema, name).await? else { return Ok(None) };
        if newest.version() == version {
            return Ok(Some(newest.committed_snapshot()));
        }
        let title = newest.name().to_string();
        let path = format!("{schema}/{name}");
        let Some(state) = log::load_at(&self.store_at(&path)?, &title, version).await? else { return Ok(None) };
        let snapshot = self.table_of(&path, title, state)?.committed_snapshot();
        self.check_files(&newest, &snapshot).await?;
        Ok(Some(snapshot))
    }

    /// Whether every file of an older snapshot is still there; those the table has today need not be looked for.
    async fn check_files(&self, newest: &Table, snapshot: &TableSnapshot) -> Result<()> {
        let today = newest.committed_snapshot();
        let live: BTreeSet<_> = today.files.iter().map(|f| &f.file.location).collect();
        let mut gone = 0;
        for files in snapshot.files.chunks(REQUESTS) {
            let looks = files.iter().map(|file| is_gone(&snapshot.layout, file, live.contains(&file.file.location)));
            gone += futures::future::try_join_all(looks).await?.into_iter().filter(|gone| *gone).count();
        }
        if gone == 0 {
            return Ok(());
        }
        let (name, version) = (snapshot.name(), snapshot.version());
        let message = format!(
            "version {version} of `{name}` cannot be read: {gone} of its {} files were vacuumed",
            snapshot.files.len()
        );
        Err(Error::user("version-vacuumed", message).with_hint(format!(
            "replaced files are kept for `deleted_file_retention` of the target; its newest version is {}",
            newest.version()
        )))
    }

    /// The epoch that was the newest at `when`. An epoch without a row changed nothing: the one before it is meant.
    pub async fn epoch_at(&self, when: When) -> Result<EpochRow> {
        let none = || {
            Error::user("unknown-epoch", format!("the lake {} has no epochs yet", self.url()))
                .with_hint("`smelt run` makes the first")
        };
        let table = self.table(OWN, NAME).await?.ok_or_else(none)?;
        let snapshot = table.committed_snapshot();
        // Two columns first: a row's maps name every table and position.
        let fields = ["epoch", "committed_at"].map(|name| snapshot.layout.schema.index_of(name));
        let indices = fields.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
        let narrow = Layout { schema: Arc::new(snapshot.layout.schema.project(&indices)?), ..snapshot.layout.clone() };
        // (epoch, time) of the oldest and the newest row.
        let mut first: Option<(i64, i64)> = None;
        let mut last: Option<(i64, i64)> = None;
        let mut found: Option<(i64, &SnapshotFile)> = None;
        for file in &snapshot.files {
            let mut rows = live_rows(&narrow, file).await?;
            while let Some(batch) = rows.try_next().await? {
                let epochs = batch.column(0).as_primitive::<Int64Type>().values();
                let times = batch.column(1).as_primitive::<TimestampMicrosecondType>().values();
                for (epoch, time) in epochs.iter().copied().zip(times.iter().copied()) {
                    first = Some(first.map_or((epoch, time), |f| f.min((epoch, time))));
                    last = Some(last.map_or((epoch, time), |l| l.max((epoch, time))));
                    let reached = match when {
                        When::Epoch(asked) => epoch <= asked,
                        When::Time(asked) => time <= asked,
                    };
                    if reached && found.is_none_or(|(best, _)| best <= epoch) {
                        found = Some((epoch, file));
                    }
                }
            }
        }
        let (Some(first), Some(last)) = (first, last) else { return Err(none()) };
        let known = format!("there are epochs {} ({}) to {} ({})", first.0, time(first.1), last.0, time(last.1));
        let unknown = |message: String| Error::user("unknown-epoch", message).with_hint(known.clone());
        if let When::Epoch(asked) = when
            && asked > last.0
        {
            return Err(unknown(format!("there is no epoch {asked} yet")));
        }
        let Some((epoch, file)) = found else {
            return Err(unknown(match when {
                When::Epoch(asked) => format!("there is no epoch {asked}"),
                When::Time(asked) => format!("there was no epoch before {}", time(asked)),
            }));
        };
        let mut rows = live_rows(&snapshot.layout, file).await?;
        let mut row = None;
        while let Some(batch) = rows.try_next().await? {
            for i in 0..batch.num_rows() {
                if batch.column(0).as_primitive::<Int64Type>().value(i) == epoch {
                    row = Some(EpochRow::from_batch(&batch, i));
                }
            }
        }
        row.ok_or_else(|| Error::internal(format!("epoch {epoch} is gone while it is read")))
    }
}

/// Whether a file of an old version, or its deletion vector, was deleted. With `live` the file is known to be there.
async fn is_gone(layout: &Layout, file: &SnapshotFile, live: bool) -> Result<bool> {
    let store = &layout.store;
    if !live && is_missing(store.store.head(&file.file.location).await)? {
        return Ok(true);
    }
    // Vectors are small, and a query needs them anyway.
    let Err(error) = file.deleted.rows(store).await else { return Ok(false) };
    if let Deleted::Stored(vector) = &file.deleted
        && let Some(path) = vector.descriptor.file()
        && is_missing(store.store.head(&store.path(&path)?).await)?
    {
        return Ok(true);
    }
    Err(error)
}

fn is_missing<T>(found: object_store::Result<T>) -> Result<bool> {
    match found {
        Ok(_) => Ok(false),
        Err(object_store::Error::NotFound { .. }) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

fn time(micros: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

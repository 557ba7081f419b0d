//! Changes staged through another handle of the same table: a backfill works beside the live table, which takes them over in the end.
//!
//! Both handles stand at one version. Files are known to both by their paths; numbers are each handle's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::files::Ordinal;
use super::hash::RowHasher;
use super::locator::{Locator, Place};
use super::pending::Pending;
use super::stage::StageSummary;
use super::table::Table;
use crate::error::{Error, Result};

/// What a handle has staged.
pub struct Staged {
    version: i64,
    /// Committed files by number.
    files: BTreeMap<Ordinal, String>,
    pending: Pending,
    locator: Option<Locator>,
    hasher: Arc<RowHasher>,
    summary: StageSummary,
}

impl Table {
    /// Finds out where all rows are, staged ones included, before anybody asks.
    pub async fn locate_rows(&mut self) -> Result<()> {
        self.ensure_locator().await
    }

    /// Gives away what is staged, which came to `summary`.
    pub fn into_staged(mut self, summary: StageSummary) -> Staged {
        Staged {
            version: self.state.version,
            files: self.state.files.iter().map(|(o, f)| (*o, f.file.log_path.clone())).collect(),
            pending: std::mem::take(&mut self.pending),
            locator: self.locator.take(),
            hasher: Arc::clone(&self.hasher),
            summary,
        }
    }

    /// Takes over what another handle has staged over this very version; `threads` threads renumber the places of rows. On an error
    /// nothing is taken, and the files written for it stay for VACUUM.
    pub fn adopt(&mut self, staged: Staged, threads: usize) -> Result<StageSummary> {
        self.check_writable()?;
        if self.has_staged() || self.unresolved.is_some() || self.state.version != staged.version {
            let message = format!("`{}` has changed since a backfill began", self.name);
            return Err(Error::environment("backfill-outdated", message).permanent());
        }
        let Staged { files, pending, locator, hasher, summary, .. } = staged;
        let here: BTreeMap<&str, Ordinal> =
            self.state.files.iter().map(|(o, f)| (f.file.log_path.as_str(), *o)).collect();
        let mut numbers: BTreeMap<Ordinal, Ordinal> =
            files.iter().filter_map(|(there, path)| Some((*there, *here.get(path.as_str())?))).collect();
        if numbers.len() != files.len() {
            return Err(Error::diverged(format!("`{}`: two handles see other files at one version", self.name)));
        }
        for there in pending.added.keys() {
            numbers.insert(*there, self.state.allocate());
        }
        let number = |there: &Ordinal| {
            let unknown = || Error::internal("a staged change names an unknown file");
            numbers.get(there).copied().ok_or_else(unknown)
        };
        let added = pending.added.iter().map(|(o, file)| Ok((number(o)?, Arc::clone(file)))).collect::<Result<_>>()?;
        let deletes =
            pending.deletes.iter().map(|(o, rows)| Ok((number(o)?, Arc::clone(rows)))).collect::<Result<_>>()?;
        let vectors = pending.vectors.iter().map(|(o, v)| Ok((number(o)?, v.clone()))).collect::<Result<_>>()?;
        let removed = pending.removed.iter().map(number).collect::<Result<_>>()?;
        let locator = locator.map(|locator| renumbered(locator, &numbers, threads)).transpose()?;
        // A discard brings back what is known now.
        let saved_locator = Some(std::mem::replace(&mut self.locator, locator));
        self.offered = None;
        self.hasher = hasher;
        self.pending = Pending { added, deletes, vectors, removed, saved_locator, undo: Vec::new(), ..pending };
        Ok(summary)
    }
}

/// Places as they are now, with other numbers of files.
fn renumbered(locator: Locator, numbers: &BTreeMap<Ordinal, Ordinal>, threads: usize) -> Result<Locator> {
    if !locator.has_redirects() && numbers.iter().all(|(there, here)| there == here) {
        return Ok(locator);
    }
    let mut hashes = Vec::with_capacity(locator.rows() as usize);
    let mut places = Vec::with_capacity(locator.rows() as usize);
    for (hash, place) in locator.entries()? {
        let place = locator.resolve(place)?;
        let file = numbers.get(&place.file()).ok_or_else(|| Error::internal("a located file is unknown"))?;
        hashes.push(hash);
        places.push(Place::new(*file, place.row()));
    }
    drop(locator);
    Locator::load(hashes, threads, |i| Some(places[i]))
}

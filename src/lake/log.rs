//! Loading a table: `_last_checkpoint`, the checkpoint it names, the commits after it.
//!
//! This lists and reads the log; the commit path never does.

use futures::{StreamExt, TryStreamExt};
use std::collections::BTreeMap;

use super::actions::{Commit, Line};
use super::checkpoint;
use super::state::{Replay, State};
use super::store::TableStore;
use crate::error::{Error, Result};

/// Commits fetched at once.
const FETCHES: usize = 16;

/// What a file of `_delta_log` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFile {
    Commit,
    /// A whole checkpoint, classic or V2.
    Checkpoint,
    /// Part `.0` of `.1` of a checkpoint.
    CheckpointPart(u32, u32),
}

/// Version and kind of a file of the log, by its name.
pub fn parse_name(name: &str) -> Option<(i64, LogFile)> {
    let (digits, rest) = name.split_once('.')?;
    if digits.len() != 20 {
        return None;
    }
    let version = digits.parse().ok()?;
    let parts: Vec<&str> = rest.split('.').collect();
    let kind = match parts.as_slice() {
        ["json"] => LogFile::Commit,
        ["checkpoint", "parquet"] => LogFile::Checkpoint,
        ["checkpoint", _uuid, "parquet" | "json"] => LogFile::Checkpoint,
        ["checkpoint", part, parts, "parquet"] => LogFile::CheckpointPart(part.parse().ok()?, parts.parse().ok()?),
        _ => return None,
    };
    Some((version, kind))
}

/// The files of the log, by version.
#[derive(Debug, Default)]
pub struct Listing {
    pub commits: BTreeMap<i64, String>,
    /// Complete checkpoints and the files they consist of.
    pub checkpoints: BTreeMap<i64, Vec<String>>,
}

impl Listing {
    /// The newest version, if there is a table.
    fn newest(&self) -> Option<i64> {
        self.commits.keys().next_back().copied().max(self.checkpoints.keys().next_back().copied())
    }

    /// Lists `_delta_log`, from the checkpoint that `_last_checkpoint` names unless `all`.
    pub async fn read(store: &TableStore, all: bool) -> Result<Self> {
        let hint = if all { None } else { checkpoint::last(store).await? };
        let after = hint.map(|v| format!("_delta_log/{v:020}"));
        let mut listing = Listing::default();
        let mut parts: BTreeMap<(i64, u32), BTreeMap<u32, String>> = BTreeMap::new();
        for object in store.list("_delta_log", after.as_deref()).await? {
            let Some(name) = object.location.filename() else { continue };
            let path = format!("_delta_log/{name}");
            match parse_name(name) {
                Some((version, LogFile::Commit)) => {
                    listing.commits.insert(version, path);
                }
                Some((version, LogFile::Checkpoint)) => {
                    listing.checkpoints.insert(version, vec![path]);
                }
                Some((version, LogFile::CheckpointPart(part, of))) => {
                    parts.entry((version, of)).or_default().insert(part, path);
                }
                None => {}
            }
        }
        for ((version, of), files) in parts {
            if files.len() == of as usize {
                listing.checkpoints.entry(version).or_insert_with(|| files.into_values().collect());
            }
        }
        // The checkpoint that was named is gone: the hint is not to be trusted.
        if hint.is_some_and(|v| !listing.checkpoints.contains_key(&v)) {
            return Box::pin(Listing::read(store, true)).await;
        }
        Ok(listing)
    }
}

/// Reads and parses the commits of `versions`, in order.
pub async fn read_commits(store: &TableStore, versions: impl Iterator<Item = i64>) -> Result<Vec<(i64, Commit)>> {
    futures::stream::iter(versions)
        .map(|version| async move {
            let path = TableStore::log_path(version);
            let bytes = store.get(&path).await?;
            Ok::<_, Error>((version, Commit::parse(&bytes, &path)?))
        })
        .buffered(FETCHES)
        .try_collect()
        .await
}

/// The table at its newest version, or `None` when there is none.
pub async fn load(store: &TableStore, table: &str) -> Result<Option<State>> {
    let listing = Listing::read(store, false).await?;
    let Some(newest) = listing.newest() else { return Ok(None) };
    replay(store, table, &listing, newest).await.map(Some)
}

/// The table as it was at `version`, or `None` when there is no table. Lists the whole log.
pub async fn load_at(store: &TableStore, table: &str, version: i64) -> Result<Option<State>> {
    let listing = Listing::read(store, true).await?;
    let Some(newest) = listing.newest() else { return Ok(None) };
    if !(0..=newest).contains(&version) {
        return Err(Error::user("unknown-version", format!("`{table}` has no version {version}"))
            .with_hint(format!("its newest version is {newest}")));
    }
    // A version can be had from the checkpoint before it, or from the very first entry.
    let has_start = listing.checkpoints.keys().any(|v| *v <= version) || listing.commits.contains_key(&0);
    if !has_start {
        let error = Error::user("version-gone", format!("version {version} of `{table}` is no longer in its log"));
        return Err(match listing.checkpoints.keys().next() {
            Some(oldest) => error.with_hint(format!(
                "versions {oldest} to {newest} are; `log_retention` of the target says how long entries are kept"
            )),
            None => error,
        });
    }
    replay(store, table, &listing, version).await.map(Some)
}

/// The state at `version`: the newest checkpoint up to it, and the commits after that.
async fn replay(store: &TableStore, table: &str, listing: &Listing, version: i64) -> Result<State> {
    let checkpoint = listing.checkpoints.range(..=version).next_back();
    let mut replay = Replay::default();
    let mut first = 0;
    if let Some((at, files)) = checkpoint {
        for file in files {
            let lines = checkpoint::read(store, file).await?;
            let sidecars: Vec<String> =
                lines.iter().filter_map(|l: &Line| l.sidecar.as_ref()).map(|s| s.path.clone()).collect();
            replay.apply(*at, Commit(lines));
            for sidecar in sidecars {
                let lines = checkpoint::read(store, &format!("_delta_log/_sidecars/{sidecar}")).await?;
                replay.apply(*at, Commit(lines));
            }
        }
        first = at + 1;
    }
    if let Some(gap) = (first..=version).find(|v| !listing.commits.contains_key(v)) {
        return Err(Error::environment("bad-log", format!("the log of `{table}` lacks version {gap}"))
            .permanent()
            .with_hint("entries were deleted by hand, or the table is being dropped"));
    }
    for (at, commit) in read_commits(store, first..=version).await? {
        replay.apply(at, commit);
    }
    let mut state = replay.finish(version, store, table).await?;
    state.last_checkpoint = checkpoint.map(|(at, _)| *at);
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_log_files() {
        let name = |rest: &str| parse_name(&format!("{:020}.{rest}", 7));
        assert_eq!(name("json"), Some((7, LogFile::Commit)));
        assert_eq!(name("checkpoint.parquet"), Some((7, LogFile::Checkpoint)));
        assert_eq!(name("checkpoint.0000000001.0000000003.parquet"), Some((7, LogFile::CheckpointPart(1, 3))));
        assert_eq!(name("json.tmp"), None);
        assert_eq!(parse_name("_last_checkpoint"), None);
    }
}

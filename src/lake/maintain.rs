//! Maintenance: checkpoints, log clean-up, vacuum, compaction. Work happens in a background task on a fixed copy of the
//! state's references; results are applied between commits. Nothing here runs on the commit's path.
//!
//! - **Housekeeping**, every `checkpoint_interval` commits: delete files whose tombstones have expired, write a checkpoint
//!   without those tombstones, delete log entries that are past their retention and before an older checkpoint.
//! - **Compaction**: see [`super::compact`].

use object_store::ObjectMeta;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

use super::actions::Descriptor;
use super::compact::{self, Compacted};
use super::log::Listing;
use super::state::{State, Tombstone};
use super::store::TableStore;
use super::table::Table;
use super::{checkpoint, options::LakeOptions};
use crate::env::Env;
use crate::error::{Error, Result};

/// Commits between two looks for something to do.
const CHECK_INTERVAL: i64 = 16;
/// Hundreds of commits a second need not be hundreds of tombstones written several times a second: housekeeping pauses so long (ms),
/// unless [`HURRY`] times its interval has passed.
const PAUSE: i64 = 1000;
const HURRY: i64 = 10;

/// What is under way for one table.
#[derive(Debug, Default)]
pub struct Maintenance {
    job: Option<JoinHandle<Result<Done>>>,
    /// Files in no log entry, to be deleted by the next housekeeping.
    pub orphans: Vec<String>,
    /// Versions from this one on must stay readable as changes.
    retain_from: Option<i64>,
    checked: i64,
    cleaned_at: i64,
    /// When the last housekeeping began, ms.
    kept_at: i64,
    /// A housekeeping that failed is not tried again before this version.
    retry_at: i64,
}

#[derive(Debug)]
enum Done {
    Housekeeping { checkpoint: i64, expired: usize, cleaned: bool },
    Compaction(Vec<Compacted>),
}

/// What a vacuum deletes: data files and deletion vectors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vacuumed {
    pub files: u64,
    pub bytes: u64,
}

/// What a compaction does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Optimized {
    pub files_before: usize,
    /// Of these, how many are replaced.
    pub files_rewritten: usize,
    pub files_after: usize,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Table {
    /// Changes after `version` must stay readable ([`Table::changes`]); `None`: nobody follows this table's log.
    pub fn retain_from(&mut self, version: Option<i64>) {
        self.maintenance.retain_from = version;
    }

    /// Whether a background job is under way.
    pub fn is_maintaining(&self) -> bool {
        self.maintenance.job.is_some()
    }

    /// Starts a background job if one is due and none is under way. Cheap: call it after every commit.
    pub fn start_maintenance(&mut self) -> bool {
        let version = self.state.version;
        if self.maintenance.job.is_some() || self.lost || self.unresolved.is_some() {
            return false;
        }
        let interval = self.options.checkpoint_interval;
        let since = version - self.state.last_checkpoint.unwrap_or(0);
        let rested = since >= HURRY * interval || self.env.now_millis() - self.maintenance.kept_at >= PAUSE;
        if since >= interval && rested && version >= self.maintenance.retry_at {
            self.start_housekeeping(false);
            return true;
        }
        if version - self.maintenance.checked < CHECK_INTERVAL {
            return false;
        }
        self.maintenance.checked = version;
        self.start_compaction(compact::FAN_IN)
    }

    fn start_housekeeping(&mut self, force_cleanup: bool) {
        let now = self.env.now_millis();
        let every = millis(self.options.log_retention) / 10;
        let clean = force_cleanup || now - self.maintenance.cleaned_at >= every;
        self.maintenance.retry_at = self.state.version + CHECK_INTERVAL;
        self.maintenance.kept_at = now;
        let housekeeping = Housekeeping { clean, ..self.housekeeping() };
        self.maintenance.orphans.clear();
        self.maintenance.job = Some(tokio::spawn(housekeeping.run()));
    }

    /// What housekeeping starts from, without log clean-up.
    fn housekeeping(&self) -> Housekeeping {
        Housekeeping {
            env: self.env.clone(),
            store: self.store.clone(),
            options: Arc::clone(&self.options),
            state: self.state.share(),
            orphans: self.maintenance.orphans.clone(),
            retain_from: self.maintenance.retain_from,
            clean: false,
        }
    }

    fn start_compaction(&mut self, fan_in: usize) -> bool {
        // Only what is committed: staged files are not anybody's yet.
        let snapshot = self.committed_snapshot();
        let groups = compact::plan(&snapshot.files, self.options.target_file_size, fan_in);
        if groups.is_empty() {
            return false;
        }
        let mut target = self.target();
        target.file_schema = Arc::clone(&self.state.file_schema);
        target.partition_columns.clone_from(&self.state.metadata.partition_columns);
        let layout = snapshot.layout.clone();
        let turns = Arc::clone(&self.compactions);
        let job = async move {
            // Nobody closes it.
            let _turn = turns.acquire().await.ok();
            Ok(Done::Compaction(compact::run(&layout, &target, groups).await?))
        };
        self.maintenance.job = Some(tokio::spawn(job));
        true
    }

    /// Applies the result of a background job that has ended; call it between two commits, with nothing staged (otherwise a
    /// compaction's result waits). Returns whether a job was brought to its end.
    pub async fn finish_maintenance(&mut self) -> Result<bool> {
        let ready = self.maintenance.job.as_ref().is_some_and(JoinHandle::is_finished);
        if !ready || self.has_staged() || self.unresolved.is_some() || self.lost {
            return Ok(false);
        }
        let Some(job) = self.maintenance.job.take() else { return Ok(false) };
        let done = job.await.map_err(|e| Error::internal(format!("maintenance of `{}`: {e}", self.name)))?;
        match done.map_err(|e| e.context(format!("maintenance of `{}`", self.name)))? {
            Done::Housekeeping { checkpoint, expired, cleaned } => {
                self.state.last_checkpoint = Some(checkpoint);
                self.state.tombstones.drain(..expired);
                if cleaned {
                    self.maintenance.cleaned_at = self.env.now_millis();
                }
            }
            Done::Compaction(compacted) => self.apply_compaction(compacted).await?,
        }
        Ok(true)
    }

    async fn finish_job(&mut self) -> Result<()> {
        while self.maintenance.job.is_some() {
            if !self.finish_maintenance().await? {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(())
    }

    /// Whether a background job has ended and waits to be applied.
    pub fn maintenance_ended(&self) -> bool {
        self.maintenance.job.as_ref().is_some_and(JoinHandle::is_finished)
    }

    fn check_idle(&self) -> Result<()> {
        self.check_writable()?;
        if self.has_staged() || self.unresolved.is_some() {
            return Err(Error::internal(format!("`{}` has staged changes", self.name)));
        }
        Ok(())
    }

    /// Compacts until nothing is left to compact: every file below half the target that has a companion, every file with
    /// many deleted rows. For commands; a running pipeline uses [`Table::start_maintenance`].
    pub async fn optimize(&mut self) -> Result<Optimized> {
        self.check_idle()?;
        self.finish_job().await?;
        let before: HashSet<_> = self.state.files.values().map(|f| f.file.location.clone()).collect();
        while self.start_compaction(2) {
            let version = self.state.version;
            self.finish_job().await?;
            if self.state.version == version {
                break;
            }
        }
        let kept = self.state.files.values().filter(|f| before.contains(&f.file.location)).count();
        Ok(Optimized {
            files_before: before.len(),
            files_rewritten: before.len() - kept,
            files_after: self.state.files.len(),
        })
    }

    /// What [`Table::optimize`] would do. Merged files are taken to be as large as their parts.
    pub fn optimizable(&self) -> Optimized {
        compact::forecast(&self.committed_snapshot().files, self.options.target_file_size)
    }

    /// Writes a checkpoint now, with vacuum of expired tombstones and log clean-up.
    pub async fn checkpoint(&mut self) -> Result<()> {
        self.check_idle()?;
        self.finish_job().await?;
        self.start_housekeeping(true);
        self.finish_job().await
    }

    /// Deletes files that no retained version needs, and says which. Without `full` only those the log knows to have left; with it
    /// the table is listed, and leftovers of crashes go too.
    pub async fn vacuum(&mut self, full: bool) -> Result<Vacuumed> {
        self.check_idle()?;
        self.finish_job().await?;
        if !full {
            self.checkpoint().await?;
            return Ok(Vacuumed::default());
        }
        let doomed = self.doomed().await?;
        self.checkpoint().await?;
        self.store.delete(doomed.iter().map(|o| o.location.clone()).collect()).await?;
        Ok(vacuumed(&doomed))
    }

    /// What [`Table::vacuum`] would delete, by listing.
    pub async fn vacuumable(&self) -> Result<Vacuumed> {
        Ok(vacuumed(&self.doomed().await?))
    }

    /// Files whose tombstones have expired, and files older than the retention that nothing refers to.
    async fn doomed(&self) -> Result<Vec<ObjectMeta>> {
        let cutoff = self.env.now_millis() - millis(self.options.deleted_file_retention);
        let housekeeping = self.housekeeping();
        let expired = housekeeping.expired(cutoff);
        let forgotten: BTreeSet<String> = housekeeping.doomed(expired).into_iter().collect();
        let used = protected(&self.state, self.state.tombstones.iter().skip(expired));
        let root = self.store.path("x")?.as_ref().len() - 1;
        let mut listed = self.store.list("", None).await?;
        listed.retain(|object| {
            let relative = &object.location.as_ref()[root..];
            // Directories that begin with an underscore are not the table's data.
            let data = !relative.starts_with('_') && !relative.starts_with('.');
            let old = object.last_modified.timestamp_millis() < cutoff;
            data && !used.contains(relative) && (old || forgotten.contains(relative))
        });
        Ok(listed)
    }
}

fn vacuumed(files: &[ObjectMeta]) -> Vacuumed {
    Vacuumed { files: files.len() as u64, bytes: files.iter().map(|o| o.size).sum() }
}

/// Paths of data files and vectors that live files and `tombstones` refer to.
fn protected<'a>(state: &State, tombstones: impl Iterator<Item = &'a Arc<Tombstone>>) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for file in state.files.values() {
        used.insert(decoded(&file.file.log_path).into_owned());
        used.extend(file.vector.as_ref().and_then(|v| v.descriptor.file()));
    }
    for tombstone in tombstones {
        used.insert(decoded(&tombstone.remove.path).into_owned());
        used.extend(tombstone.remove.deletion_vector.as_ref().and_then(|d| d.file()));
    }
    used
}

fn decoded(path: &str) -> Cow<'_, str> {
    match path.contains('%') {
        true => super::files::percent_decode(path).map_or(Cow::Borrowed(path), Cow::Owned),
        false => Cow::Borrowed(path),
    }
}

struct Housekeeping {
    env: Env,
    store: TableStore,
    options: Arc<LakeOptions>,
    state: State,
    orphans: Vec<String>,
    retain_from: Option<i64>,
    clean: bool,
}

impl Housekeeping {
    async fn run(self) -> Result<Done> {
        let now = self.env.now_millis();
        let cutoff = now - millis(self.options.deleted_file_retention);
        let expired = self.expired(cutoff);
        let doomed = self.doomed(expired).iter().map(|p| self.store.path(p)).collect::<Result<Vec<_>>>()?;
        // Files before the checkpoint that forgets them: after a crash in between they are deleted again.
        self.store.delete(doomed).await?;

        self.env.crash_point("checkpoint-before")?;
        let version = self.state.version;
        let kept: HashSet<usize> =
            self.state.tombstones.iter().skip(expired).map(|t| Arc::as_ptr(t) as usize).collect();
        let lines = self.state.to_lines(|t| kept.contains(&(std::ptr::from_ref(t) as usize)));
        checkpoint::write(&self.store, version, lines).await?;
        self.env.crash_point("checkpoint-after")?;
        if self.clean {
            clean_log(&self.store, now - millis(self.options.log_retention), self.retain_from).await?;
        }
        Ok(Done::Housekeeping { checkpoint: version, expired, cleaned: self.clean })
    }

    /// How many tombstones have expired. They are in order of time: those that go are the first ones.
    fn expired(&self, cutoff: i64) -> usize {
        let goes =
            |t: &&Arc<Tombstone>| t.removed_at() < cutoff && self.retain_from.is_none_or(|keep| t.version <= keep);
        self.state.tombstones.iter().take_while(goes).count()
    }

    /// Files that only the first `expired` tombstones, or nothing, refer to.
    fn doomed(&self, expired: usize) -> Vec<String> {
        let mut paths: HashSet<Cow<'_, str>> = self.orphans.iter().map(|p| Cow::Borrowed(p.as_str())).collect();
        // By what the log says of them: there are many, and their names take work.
        let mut vectors: HashMap<&str, &Descriptor> = HashMap::new();
        for tombstone in self.state.tombstones.iter().take(expired) {
            paths.insert(decoded(&tombstone.remove.path));
            let vector = tombstone.remove.deletion_vector.as_ref();
            vectors.extend(vector.map(|d| (d.path_or_inline_dv.as_str(), d)));
        }
        let mut keep = |path: &str, vector: Option<&Descriptor>| {
            paths.remove(&*decoded(path));
            let Some(vector) = vector else { return };
            vectors.remove(vector.path_or_inline_dv.as_str());
            if !self.orphans.is_empty()
                && let Some(file) = vector.file()
            {
                paths.remove(file.as_str());
            }
        };
        for file in self.state.files.values() {
            keep(&file.file.log_path, file.vector.as_ref().map(|v| &v.descriptor));
        }
        for tombstone in self.state.tombstones.iter().skip(expired) {
            keep(&tombstone.remove.path, tombstone.remove.deletion_vector.as_ref());
        }
        paths.into_iter().map(Cow::into_owned).chain(vectors.into_values().filter_map(Descriptor::file)).collect()
    }
}

/// Deletes entries before the newest checkpoint that is older than `cutoff`: every version from it on stays readable.
async fn clean_log(store: &TableStore, cutoff: i64, retain_from: Option<i64>) -> Result<()> {
    let objects = store.list("_delta_log", None).await?;
    let listing = Listing::read(store, true).await?;
    let mut first = None;
    let mut doomed = Vec::new();
    let named: Vec<_> = objects
        .into_iter()
        .filter_map(|o| {
            let (version, _) = super::log::parse_name(o.location.filename()?)?;
            Some((version, o))
        })
        .collect();
    for (version, object) in &named {
        let expired = object.last_modified.timestamp_millis() < cutoff;
        if expired && listing.checkpoints.contains_key(version) && retain_from.is_none_or(|keep| *version <= keep) {
            first = first.max(Some(*version));
        }
    }
    let Some(first) = first else { return Ok(()) };
    doomed.extend(named.into_iter().filter(|(version, _)| *version < first).map(|(_, o)| o.location));
    store.delete(doomed).await
}

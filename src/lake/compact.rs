//! Compaction: many small files become few large ones, files with many deleted rows lose them.
//!
//! Files are merged by size class, sixteen of one class into one of a higher class, so that every row is rewritten a
//! logarithmic number of times and few small files stay. Files that are large enough are joined without being decoded ([`splice`]). The merge runs beside the committer from a fixed snapshot; rows keep their
//! order, so a row's new place can be computed ([`Redirect`]), and rows deleted meanwhile become the new file's vector.

use object_store::path::Path;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::actions::PartitionValues;
use super::commit::Effect;
use super::files::{DataFile, Deleted, LiveFile, Ordinal};
use super::locator::Redirect;
use super::maintain::Optimized;
use super::reader::Layout;
use super::snapshot::SnapshotFile;
use super::splice;
use super::stage::merge;
use super::table::Table;
use super::vector::{self, Vector};
use super::writer::Target;
use crate::error::{Error, Result};

/// Files of one size class that make a merge worth while.
pub const FAN_IN: usize = 16;
/// Files merged at once, at most.
const MAX_FILES: usize = 256;
/// Size classes: each an eighth of the next.
const CLASSES: u32 = 7;

/// One group, merged.
#[derive(Debug)]
pub struct Compacted {
    inputs: Vec<Input>,
    /// `None` when no row was left.
    output: Option<Arc<DataFile>>,
}

#[derive(Debug)]
struct Input {
    ordinal: Ordinal,
    location: Path,
    rows: u64,
    /// Rows that were gone in the snapshot and were not copied: none where files are joined as they are.
    skipped: Arc<RoaringBitmap>,
    /// Row of the output that its first copied row became.
    base: u32,
}

/// Which files to merge: groups of one partition each.
pub fn plan(files: &[SnapshotFile], target: u64, fan_in: usize) -> Vec<Vec<SnapshotFile>> {
    let mut partitions: BTreeMap<&PartitionValues, BTreeMap<u32, Vec<&SnapshotFile>>> = BTreeMap::new();
    let mut groups = Vec::new();
    for file in files {
        let (rows, gone) = (file.file.rows.max(1), file.deleted.cardinality());
        let dirty = gone * 4 >= rows;
        // What the file would have without its deleted rows.
        let size = file.file.size * (rows - gone.min(rows)) / rows;
        if size >= target / 2 || (dirty && file.file.size >= target / 16) {
            if dirty {
                groups.push(vec![file.clone()]);
            }
            continue;
        }
        // A command merges all small files alike.
        let class = if fan_in <= 2 { 0 } else { (target / 2 / size.max(1)).max(1).ilog(8).min(CLASSES) };
        partitions.entry(&file.file.partition_values).or_default().entry(class).or_default().push(file);
    }
    for classes in partitions.into_values() {
        for class in classes.into_values() {
            let alone = fan_in <= 2 && class.iter().all(|f| f.deleted.cardinality() * 4 >= f.file.rows);
            if class.len() < fan_in && !alone {
                continue;
            }
            let (mut group, mut bytes) = (Vec::new(), 0);
            for file in class {
                bytes += file.file.size;
                group.push(file.clone());
                if bytes >= target || group.len() >= MAX_FILES {
                    groups.push(std::mem::take(&mut group));
                    bytes = 0;
                }
            }
            if group.len() > 1 || (alone && !group.is_empty()) {
                groups.push(group);
            }
        }
    }
    // A bounded job: the rest is found by the next one.
    let mut bytes = 0;
    groups.retain(|group| {
        let fits = bytes < 2 * target;
        bytes += group.iter().map(|f| f.file.size).sum::<u64>();
        fits
    });
    groups
}

/// What merging until nothing is left to merge does, if a merged file is as large as what its parts have left.
pub fn forecast(files: &[SnapshotFile], target: u64) -> Optimized {
    let mut now = files.to_vec();
    let (mut rewritten, mut next) = (0, Ordinal::MAX);
    let first = |ordinal: Ordinal| files.iter().any(|f| f.ordinal == ordinal);
    loop {
        let groups = plan(&now, target, 2);
        if groups.is_empty() {
            return Optimized { files_before: files.len(), files_rewritten: rewritten, files_after: now.len() };
        }
        for group in groups {
            rewritten += group.iter().filter(|f| first(f.ordinal)).count();
            now.retain(|f| group.iter().all(|g| g.ordinal != f.ordinal));
            let left = |f: &SnapshotFile| f.file.rows - f.deleted.cardinality().min(f.file.rows);
            let rows: u64 = group.iter().map(left).sum();
            let Some(one) = group.first().filter(|_| rows > 0) else { continue };
            let size = group.iter().map(|f| f.file.size * left(f) / f.file.rows.max(1)).sum();
            let file = DataFile {
                log_path: String::new(),
                location: Path::default(),
                partition_values: one.file.partition_values.clone(),
                size,
                rows,
                stats: None,
                modified: 0,
                wide_stats: Default::default(),
            };
            now.push(SnapshotFile { ordinal: next, file: Arc::new(file), deleted: Deleted::None });
            next -= 1;
        }
    }
}

/// Merges each group into one file.
pub async fn run(layout: &Layout, target: &Target, groups: Vec<Vec<SnapshotFile>>) -> Result<Vec<Compacted>> {
    let mut done = Vec::with_capacity(groups.len());
    for group in groups {
        let mut spliced = None;
        if splice::may_be_spliced(&group, target.options.target_file_size) {
            spliced = splice::splice(target, &group).await?;
        }
        let mut inputs = Vec::with_capacity(group.len());
        let mut base = 0u64;
        for file in &group {
            let skipped = match spliced {
                Some(_) => Arc::default(),
                None => file.deleted.rows(&layout.store).await?.unwrap_or_default(),
            };
            let left = file.file.rows - skipped.len();
            inputs.push(Input {
                ordinal: file.ordinal,
                location: file.file.location.clone(),
                rows: file.file.rows,
                skipped,
                base: u32::try_from(base).map_err(|_| Error::internal("a compacted file of more than 2^32 rows"))?,
            });
            base += left;
        }
        let output = match spliced {
            Some(written) => Some(written.file),
            None => merge(layout, target.clone(), &group).await?.map(|w| w.file),
        };
        if output.as_ref().map_or(0, |f| f.rows) != base {
            return Err(Error::diverged("compaction did not find the rows it expected"));
        }
        done.push(Compacted { inputs, output });
    }
    Ok(done)
}

impl Compacted {
    fn deleted_since(&self, input: &Input, now: &RoaringBitmap) -> impl Iterator<Item = u32> {
        let (base, skipped) = (input.base, Arc::clone(&input.skipped));
        let new = now - &*input.skipped;
        new.into_iter().map(move |row| base + row - skipped.rank(row) as u32)
    }
}

impl Table {
    /// Puts the merged files in place of the merged ones, with what was deleted meanwhile, as one commit without data change.
    pub(super) async fn apply_compaction(&mut self, compacted: Vec<Compacted>) -> Result<()> {
        self.env.crash_point("compaction-after-write")?;
        let now = self.env.now_millis();
        let mut effect = Effect::default();
        let mut redirects = Vec::new();
        let mut outputs: Vec<(Ordinal, Arc<DataFile>, RoaringBitmap)> = Vec::new();
        for group in compacted {
            let mut deleted = RoaringBitmap::new();
            let mut abandoned = false;
            for input in &group.inputs {
                let current = match self.state.files.get(&input.ordinal) {
                    // Numbers are never reused, so it is the same file, perhaps with more rows gone.
                    Some(live) if live.file.location == input.location => live.deleted().rows(&self.store).await?,
                    _ => {
                        let mut all = RoaringBitmap::new();
                        all.insert_range(0..input.rows as u32);
                        Some(Arc::new(all))
                    }
                };
                let changed = current.as_ref().map_or(0, |c| c.len()) != input.skipped.len();
                // Without vectors a file that lost rows was rewritten, and its rows live elsewhere.
                abandoned |= changed && !self.has_deletion_vectors();
                deleted.extend(current.iter().flat_map(|now| group.deleted_since(input, now)));
            }
            if abandoned {
                self.maintenance.orphans.extend(group.output.map(|f| f.log_path.clone()));
                continue;
            }
            let output = self.state.allocate();
            for input in group.inputs {
                if let Some(live) = self.state.files.get(&input.ordinal) {
                    effect.removes.push((input.ordinal, live.to_remove(now, false)));
                }
                let redirect = Redirect { target: output, base: input.base, skipped: input.skipped };
                redirects.push((input.ordinal, redirect));
            }
            match group.output {
                Some(file) if deleted.len() < file.rows => outputs.push((output, file, deleted)),
                Some(file) => self.maintenance.orphans.push(file.log_path.clone()),
                None => {}
            }
        }
        if effect.removes.is_empty() && outputs.is_empty() {
            return Ok(());
        }
        effect.adds = self.with_vectors(outputs).await?;
        let written: Vec<String> = effect.adds.iter().map(|(_, f)| f.file.log_path.clone()).collect();
        let mut info = serde_json::Map::new();
        info.insert("files_removed".to_string(), effect.removes.len().into());
        info.insert("files_added".to_string(), effect.adds.len().into());
        if !self.commit_moves(effect, info).await? {
            self.maintenance.orphans.extend(written);
            return Ok(());
        }
        if let Some(locator) = &mut self.locator {
            for (file, redirect) in redirects {
                locator.redirect(file, redirect);
            }
        }
        Ok(())
    }

    async fn with_vectors(
        &self,
        outputs: Vec<(Ordinal, Arc<DataFile>, RoaringBitmap)>,
    ) -> Result<Vec<(Ordinal, LiveFile)>> {
        let bitmaps: Vec<Arc<RoaringBitmap>> =
            outputs.iter().filter(|(_, _, d)| !d.is_empty()).map(|(_, _, d)| Arc::new(d.clone())).collect();
        let mut vectors = Vec::new();
        if !bitmaps.is_empty() {
            let (name, bytes, descriptors) = vector::pack(&bitmaps, self.env.new_uuid())?;
            self.store.put(&name, bytes).await?;
            vectors.extend(descriptors.into_iter().zip(bitmaps).map(|(d, b)| Arc::new(Vector::known(d, b))));
        }
        let mut vectors = vectors.into_iter();
        Ok(outputs
            .into_iter()
            .map(|(ordinal, file, deleted)| {
                let vector = if deleted.is_empty() { None } else { vectors.next() };
                (ordinal, LiveFile { file, vector })
            })
            .collect())
    }
}

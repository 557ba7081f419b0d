//! The difference between what a table holds and what it should hold: recovery, fallback, bulk epochs and edits all end here.

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use futures::{Stream, TryStreamExt};
use hashbrown::HashMap;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;

use super::files::Ordinal;
use super::locator::Place;
use super::reader;
use super::table::Table;
use crate::error::{Error, Result};
use crate::types::SignedBatch;

/// Places that a wanted row has been found at.
#[derive(Default)]
struct Matched {
    bits: HashMap<Ordinal, Vec<u64>>,
    /// How many of the equal rows beyond the first have been found.
    others: HashMap<u128, usize>,
}

impl Matched {
    /// Marks a place; false when it was marked before.
    fn mark(&mut self, place: Place) -> bool {
        let words = self.bits.entry(place.file()).or_default();
        let (word, bit) = ((place.row() / 64) as usize, 1u64 << (place.row() % 64));
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        let new = words[word] & bit == 0;
        words[word] |= bit;
        new
    }

    fn has(&self, place: Place) -> bool {
        let words = self.bits.get(&place.file());
        words.and_then(|w| w.get((place.row() / 64) as usize)).is_some_and(|w| w & (1 << (place.row() % 64)) != 0)
    }
}

impl Table {
    /// The delta from the staged content to the multiset `wanted`: rows to insert as they were given, rows to retract as the
    /// table holds them, bit for bit. Stages nothing.
    pub async fn diff<S, E>(&mut self, mut wanted: S) -> Result<Vec<SignedBatch>>
    where
        S: Stream<Item = Result<RecordBatch, E>> + Send + Unpin,
        Error: From<E>,
    {
        self.check_usable()?;
        let mut delta = Vec::new();
        if self.row_count() == 0 {
            while let Some(batch) = wanted.try_next().await? {
                if batch.num_rows() > 0 {
                    delta.push(SignedBatch::inserts(self.conform(&batch)?));
                }
            }
            return Ok(delta);
        }
        self.ensure_locator().await?;
        let mut matched = Matched::default();
        while let Some(batch) = wanted.try_next().await? {
            let batch = self.conform(&batch)?;
            let hashes = self.hasher.hash(&batch)?;
            let Some(locator) = &mut self.locator else { break };
            let locator = locator.whole()?;
            let mut missing = Vec::new();
            for (i, hash) in hashes.into_iter().enumerate() {
                if locator.first(hash).is_some_and(|place| matched.mark(place)) {
                    continue;
                }
                let others = locator.others(hash);
                let seen = if others.is_empty() { None } else { Some(matched.others.entry(hash).or_default()) };
                match seen {
                    Some(seen) if *seen < others.len() => {
                        let place = others[*seen];
                        *seen += 1;
                        matched.mark(place);
                    }
                    _ => missing.push(i as u64),
                }
            }
            if missing.len() == batch.num_rows() && !missing.is_empty() {
                delta.push(SignedBatch::inserts(batch));
            } else if !missing.is_empty() {
                delta.push(SignedBatch::inserts(take_record_batch(&batch, &UInt64Array::from(missing))?));
            }
        }
        delta.extend(self.unmatched(&matched).await?);
        Ok(delta)
    }

    /// The rows no wanted row was found at, read back.
    async fn unmatched(&self, matched: &Matched) -> Result<Vec<SignedBatch>> {
        let mut rows: BTreeMap<Ordinal, RoaringBitmap> = BTreeMap::new();
        if let Some(locator) = &self.locator {
            for (_, place) in locator.entries()?.filter(|(_, place)| !matched.has(*place)) {
                let place = locator.resolve(place)?;
                rows.entry(place.file()).or_default().insert(place.row());
            }
        }
        let layout = self.layout();
        let mut delta = Vec::new();
        for (ordinal, rows) in rows {
            let found = self.pending.added.get(&ordinal).or_else(|| self.state.files.get(&ordinal).map(|f| &f.file));
            let file = found.ok_or_else(|| Error::diverged(format!("`{}`: a located file is gone", self.name)))?;
            let mut stream = reader::open(&layout, file, Some(reader::only(&rows, file.rows))).await?;
            while let Some(batch) = stream.try_next().await? {
                if batch.num_rows() > 0 {
                    delta.push(SignedBatch::retracts(batch));
                }
            }
        }
        Ok(delta)
    }
}

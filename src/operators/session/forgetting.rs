//! Sessions that have ended are forgotten, and come back whole.

use arrow::array::Int64Array;
use arrow::datatypes::DataType;
use std::collections::{BTreeSet, HashMap};

use super::recall::Held;
use super::spans::Touched;
use super::{Change, Sessions};
use crate::error::Result;
use crate::operators::eval;
use crate::state::Relation;
use crate::types::SignedBatch;

impl Sessions {
    /// Of the keys of some rows the sessions that are there.
    pub fn held(&mut self, rows: &[SignedBatch], held: &mut Held) -> Result<()> {
        for batch in rows {
            let keys = self.key_codec.encode(&self.partition.evaluate(&batch.rows)?, batch.num_rows())?;
            for i in 0..batch.num_rows() {
                let key = keys.row(i);
                if !held.contains_key(key) {
                    let id = self.keys.find_one(key);
                    held.insert(key.into(), self.spans.of(id).collect());
                }
            }
        }
        Ok(())
    }

    /// All sessions that are there.
    pub fn all_held(&self, held: &mut Held) {
        for (key, session) in self.spans.all() {
            held.entry(self.keys.key(key).into()).or_default().push(session);
        }
    }

    /// Types of its keys.
    pub fn key_types(&self) -> &[DataType] {
        &self.partition.types
    }

    /// Takes all rows of some sessions in, none of which is there; what was given out of them.
    pub fn remember(&mut self, rows: &[SignedBatch]) -> Result<Vec<SignedBatch>> {
        let (changes, _) = self.changes(rows)?;
        let mut touched = Touched::default();
        self.insert(&changes, &mut touched)?;
        let output = self.batch(self.output(&changes, &Touched::default())?)?;
        self.rows.sweep()?;
        Ok(output)
    }

    /// Forgets the sessions that have ended at `clock`, µs.
    pub fn forget(&mut self, clock: i64) -> Result<()> {
        let kept = self.spans.open(clock)?;
        if kept.len() == self.spans.len() {
            return Ok(());
        }
        let keys: Vec<u32> = kept.iter().map(|(key, ..)| *key).collect::<BTreeSet<_>>().into_iter().collect();
        let ids: Vec<u32> = kept.iter().map(|(.., id)| *id).collect();
        let mut rows = Relation::new(&self.input, self.rows.is_append_only())?;
        let mut of_rows: HashMap<u32, u32> = HashMap::new();
        if !ids.is_empty() {
            let columns = self.rows.columns(&ids, &(0..self.width).collect::<Vec<_>>())?;
            let weights: Int64Array = ids.iter().map(|id| Some(self.rows.weight(*id))).collect();
            let all = SignedBatch::new(eval::rows(&self.input, columns, ids.len())?, weights)?;
            of_rows = ids.into_iter().zip(rows.apply(&[all.into()])?.ids).collect();
            rows.sweep()?;
        }
        let of_keys: HashMap<u32, u32> = keys.iter().copied().zip(0..).collect();
        self.spans.keep(&of_keys, &of_rows);
        (self.keys, self.rows) = (self.keys.picked(&keys)?, rows);
        Ok(())
    }

    /// Rows that were not there.
    pub(super) fn insert(&mut self, changes: &[Change], touched: &mut Touched) -> Result<()> {
        for of_key in changes.chunk_by(|a, b| a.place.0 == b.place.0) {
            let new = of_key.iter().filter(|change| change.before == 0).map(|change| (change.place.1, change.place.2));
            self.spans.insert(of_key[0].place.0, new, touched)?;
        }
        Ok(())
    }
}

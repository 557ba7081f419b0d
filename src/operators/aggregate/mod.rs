//! GROUP BY, DISTINCT and global aggregates.
//!
//! A change is grouped once (keys → dense group ids), or once per grouping set; every aggregate keeps its state in vectors indexed by
//! group, whichever set it belongs to. The output of the touched groups is computed before and after the change, and the rows that differ
//! are given out: −old, +new.

mod bits;
mod calls;
mod cells;
mod distinct;
mod extremes;
mod kept;
mod keys;
mod multisets;
mod placed;
mod ranks;
mod recompute;
mod sums;

use arrow::array::{RecordBatch, UInt32Array, make_comparator};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;

use self::calls::Call;
use self::keys::Keys;
use super::eval::{self, arrow_schema};
use super::forgets::{Forgetting, Stays, kept};
use super::sharded::{Shard, materialized};
use crate::error::{Error, Result};
use crate::plan::incremental::{self, GroupingSet};
use crate::state::{GroupIndex, Narrow, StateReader, StateWriter};
use crate::types::{SelectedBatch, SignedBatch, Weight};

pub(super) struct Aggregate {
    keys: Keys,
    calls: Vec<Call>,
    schema: SchemaRef,
    groups: GroupIndex,
    /// Rows by group. A group without rows does not exist, except the permanent ones.
    weights: Narrow,
    /// Keys of the groups that are there without rows.
    permanent: Vec<Vec<u8>>,
    /// Whether the group was touched in this epoch, by group.
    touched: Vec<bool>,
}

impl Aggregate {
    pub fn new(
        input: &DFSchema,
        group: &[Expr],
        sets: &[GroupingSet],
        aggregates: &[incremental::Aggregate],
        schema: &DFSchema,
        session: &SessionState,
    ) -> Result<Self> {
        let schema = arrow_schema(schema);
        let number = schema.fields().get(group.len()).map(|field| field.data_type());
        let keys = Keys::new(group, sets, number, input, session)?;
        let width = keys.width();
        if schema.fields().len() != width + aggregates.len() {
            return Err(Error::internal("an aggregate's schema does not fit its expressions"));
        }
        let calls = aggregates
            .iter()
            .enumerate()
            .map(|(i, a)| Call::new(a, schema.field(width + i), input, session))
            .collect::<Result<_>>()?;
        Ok(Aggregate {
            permanent: keys.permanent()?,
            keys,
            calls,
            schema,
            groups: GroupIndex::new(),
            weights: Narrow::default(),
            touched: Vec::new(),
        })
    }

    /// Those of `groups` that have rows, or are `permanent`.
    fn present(&self, groups: &[u32], permanent: &[u32]) -> Vec<u32> {
        let present = |group: &u32| self.weights.get(*group as usize) > 0 || permanent.contains(group);
        groups.iter().copied().filter(present).collect()
    }

    fn grow(&mut self) {
        let bound = self.groups.bound();
        if bound > self.weights.len() {
            self.weights.resize(bound);
            self.touched.resize(bound, false);
            self.calls.iter_mut().for_each(|c| c.grow(bound));
        }
    }

    /// Output rows of `groups`.
    fn output(&mut self, groups: &[u32]) -> Result<Option<RecordBatch>> {
        if groups.is_empty() {
            return Ok(None);
        }
        let mut columns = self.keys.decode(groups.iter().map(|g| self.groups.key(*g)))?;
        for call in &mut self.calls {
            columns.push(call.evaluate(groups)?);
        }
        Ok(Some(eval::rows(&self.schema, columns, groups.len())?))
    }

    /// −old and +new of the groups whose rows differ. Both lists of groups are in the order of `touched`.
    fn difference(
        &self,
        touched: &[u32],
        (before, old): (&[u32], Option<RecordBatch>),
        (after, new): (&[u32], Option<RecordBatch>),
    ) -> Result<Vec<SignedBatch>> {
        let mut gone: Vec<u32> = (0..before.len() as u32).collect();
        let mut come: Vec<u32> = (0..after.len() as u32).collect();
        if let (Some(old), Some(new)) = (&old, &new) {
            let width = self.keys.width();
            let same = (width..old.num_columns())
                .map(|c| Ok(make_comparator(old.column(c), new.column(c), Default::default())?))
                .collect::<Result<Vec<_>>>()?;
            let (mut stays, mut stayed) = (vec![false; before.len()], vec![false; after.len()]);
            let (mut i, mut j) = (0, 0);
            for group in touched {
                let (was, is) = (before.get(i) == Some(group), after.get(j) == Some(group));
                if was && is && same.iter().all(|compare| compare(i, j).is_eq()) {
                    (stays[i], stayed[j]) = (true, true);
                }
                (i, j) = (i + usize::from(was), j + usize::from(is));
            }
            gone.retain(|i| !stays[*i as usize]);
            come.retain(|j| !stayed[*j as usize]);
        }
        let mut output = Vec::with_capacity(2);
        if let Some(old) = old.filter(|_| !gone.is_empty()) {
            let rows = take_record_batch(&old, &UInt32Array::from(gone))?;
            output.push(SignedBatch::retracts(rows));
        }
        if let Some(new) = new.filter(|_| !come.is_empty()) {
            output.push(SignedBatch::inserts(take_record_batch(&new, &UInt32Array::from(come))?));
        }
        Ok(output)
    }
}

impl Aggregate {
    /// The groups of every row, by batch and grouping set; new ones are added to `touched`, in order of first touch.
    fn group(&mut self, input: &[SignedBatch], touched: &mut Vec<u32>) -> Result<Vec<Vec<Vec<u32>>>> {
        touched.iter().for_each(|id| self.touched[*id as usize] = true);
        let mut ids: Vec<Vec<Vec<u32>>> = Vec::with_capacity(input.len());
        for batch in input {
            let mut of_batch = Vec::new();
            for keys in self.keys.encode(&batch.rows)? {
                let of_set = self.groups.intern(&keys)?;
                self.grow();
                for id in &of_set {
                    if !std::mem::replace(&mut self.touched[*id as usize], true) {
                        touched.push(*id);
                    }
                }
                of_batch.push(of_set);
            }
            ids.push(of_batch);
        }
        touched.iter().for_each(|id| self.touched[*id as usize] = false);
        Ok(ids)
    }

    /// Takes rows into their groups.
    fn take_in(&mut self, input: &[SignedBatch], ids: &[Vec<Vec<u32>>], touched: &[u32]) -> Result<()> {
        let weights: Vec<Vec<Weight>> =
            input.iter().map(|b| (0..b.num_rows()).map(|i| b.weight(i)).collect()).collect();
        for (weights, ids) in weights.iter().zip(ids) {
            for (id, weight) in ids.iter().flat_map(|of_set| of_set.iter().zip(weights)) {
                self.weights.add(*id as usize, *weight);
            }
        }
        for call in &mut self.calls {
            call.update(input, &weights, ids)?;
        }
        if touched.iter().any(|g| self.weights.get(*g as usize) < 0) {
            return Err(Error::diverged("aggregate: more rows of a group are retracted than were inserted"));
        }
        Ok(())
    }
}

impl Forgetting for Aggregate {
    fn remember(&mut self, rows: &[SignedBatch]) -> Result<()> {
        let mut touched = Vec::new();
        let ids = self.group(rows, &mut touched)?;
        self.take_in(rows, &ids, &touched)
    }

    fn forget(&mut self, stays: &Stays<'_>) -> Result<()> {
        let decode = |ids: &[u32]| self.keys.decode(ids.iter().map(|id| self.groups.key(*id)));
        let Some(kept) = kept(&self.groups, decode, stays)? else { return Ok(()) };
        self.calls.iter_mut().try_for_each(|call| call.keep(&kept))?;
        (self.weights, self.groups) = (self.weights.picked(&kept), self.groups.picked(&kept)?);
        self.touched = vec![false; kept.len()];
        Ok(())
    }
}

impl Shard for Aggregate {
    /// `first`: whether this is the circuit's first step, when permanent groups show their rows of no input.
    fn step(&mut self, mut inputs: Vec<Vec<SelectedBatch>>, first: bool) -> Result<Vec<SignedBatch>> {
        let input = materialized(inputs.pop())?;
        let appears = first && !self.permanent.is_empty();
        if input.is_empty() && !appears {
            return Ok(vec![]);
        }
        let permanent: Vec<u32> =
            self.permanent.iter().map(|key| self.groups.intern_one(key)).collect::<Result<_>>()?;
        self.grow();
        let mut touched: Vec<u32> = if appears { permanent.clone() } else { vec![] };
        let ids = self.group(&input, &mut touched)?;

        let before: Vec<u32> = self.present(&touched, if first { &[] } else { &permanent });
        let old = self.output(&before)?;

        self.take_in(&input, &ids, &touched)?;
        let after = self.present(&touched, &permanent);
        let new = self.output(&after)?;
        let output = self.difference(&touched, (&before, old), (&after, new))?;
        for group in touched {
            if self.weights.get(group as usize) == 0 {
                for call in &mut self.calls {
                    call.clear(group)?;
                }
                if !permanent.contains(&group) {
                    self.groups.remove(group);
                }
            }
        }
        Ok(output)
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        self.groups.save(out);
        self.weights.save("groups.weights", out);
        self.calls.iter_mut().try_for_each(|call| call.save(out))
    }

    fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        self.groups = GroupIndex::restore(from)?;
        let bound = self.groups.bound();
        self.weights = Narrow::restore("groups.weights", bound, from)?;
        self.touched = vec![false; bound];
        self.calls.iter_mut().try_for_each(|call| call.restore(from, bound))
    }

    fn state_rows(&self) -> usize {
        self.groups.len().saturating_sub(self.permanent.len())
            + self.calls.iter().map(|c| c.state_rows()).sum::<usize>()
    }

    fn state_bytes(&self) -> usize {
        self.groups.heap_size()
            + self.weights.heap_size()
            + self.touched.capacity()
            + self.calls.iter().map(|c| c.state_bytes()).sum::<usize>()
    }
}

//! Joins of one base with any number of arms, as one node: inner, left, semi, anti, NOT IN and mark.
//!
//! Every input's columns are stored once ([`Relation`]); base and arm meet through a dictionary of the arm's keys, which gives both
//! sides' rows as chains. An arm's condition sees the base and that arm only, so the result is, over base rows *b* of weight
//! *w*, the sum of *w · M₁(b) × … × Mₙ(b)*, where *Mᵢ(b)* are the arm's matching rows, or what stands in for
//! them ([`Arm::stand_in`]): the NULL row of a left arm without a match,
//! one row of a semi arm with a match.
//!
//! An epoch changes one factor at a time, each against the present state of all others:
//!
//! 1. for every arm: base rows whose key occurs in the arm's change × the change of *Mᵢ*, then × the other *Mⱼ*: the arms before
//!    it are new already, those after it still old; the base is old;
//! 2. the change of the base × all *Mᵢ*, new by now.
//!
//! What flows between these steps are [`Tuples`] of row ids; columns are gathered once, at the end. Over a streamed base
//! step 1 only updates state, and the base is not kept.

mod arm;
mod index;
mod tuples;

use arrow::datatypes::SchemaRef;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use std::sync::Arc;

use self::arm::Arm;
use self::tuples::Tuples;
use super::consolidate::consolidate;
use super::eval::{self, arrow_schema};
use super::linear::LARGE;
use super::sharded::{Part, Shard};
use crate::error::Result;
use crate::plan::incremental::{self, Node};
use crate::state::{Paged, PoolName, Relation, RowPools, RowStore, SharedLogs, StateReader, StateWriter, in_threads};
use crate::types::{SelectedBatch, SignedBatch, Weight};

pub(super) struct Join {
    base_schema: SchemaRef,
    base: Relation,
    arms: Vec<Arm>,
    schema: SchemaRef,
    streamed: bool,
    /// Threads of a large epoch; one of several shards has no others.
    threads: usize,
}

/// The rows of `node`, none yet; `part` of them. What other joins keep, too, is kept with them.
fn relation(node: &Node, part: Part, session: &SessionState) -> Result<Relation> {
    if let Node::Arranged { input, shown, arrangement, .. } = node {
        let name = PoolName { rows: Arc::clone(&arrangement.name), part };
        let (schema, shown) = (arrow_schema(input.schema()), shown.clone());
        // A session that nobody planned in shares with nobody.
        if input.is_append_only() {
            let logs = session.config().get_extension::<SharedLogs>().unwrap_or_default();
            return Ok(Relation::SharedLog(logs.hold(name, &schema, shown)?));
        }
        let pools = session.config().get_extension::<RowPools>().unwrap_or_default();
        return Ok(Relation::Pooled(pools.hold(name, &schema, shown)?));
    }
    Relation::new(&arrow_schema(node.schema()), node.is_append_only())
}

impl Join {
    pub fn new(
        base: &Node,
        arms: &[incremental::Arm],
        schema: &DFSchema,
        streamed: bool,
        part: Part,
        session: &SessionState,
    ) -> Result<Self> {
        Ok(Join {
            base: relation(base, part, session)?,
            arms: arms.iter().map(|a| Arm::new(a, base, streamed, part, session)).collect::<Result<_>>()?,
            schema: arrow_schema(schema),
            base_schema: arrow_schema(base.schema()),
            streamed,
            threads: if part.1 == 1 { session.config().target_partitions() } else { 1 },
        })
    }

    /// Applies the base's change; the tuples it makes, and the rows of a streamed base, which are not kept.
    fn base_change(&mut self, change: Vec<SelectedBatch>) -> Result<(Option<Tuples>, Option<Relation>)> {
        let all: Vec<usize> = (0..self.arms.len()).collect();
        if self.streamed {
            let mut scratch = Relation::Set(RowStore::unindexed(&self.base_schema));
            let applied = scratch.apply(&change)?;
            let keys = self.arms.iter_mut().map(|a| a.find_base_keys(&change, &scratch)).collect::<Result<Vec<_>>>()?;
            let tuples = Tuples::of_base(applied.net, self.arms.len());
            return Ok((self.expanded(tuples, &all, &scratch, Some(&keys))?, Some(scratch)));
        }
        let change = self.base.prepared(change)?;
        let applied = self.base.apply(&change)?;
        let base = &self.base;
        let link = |arms: &mut [Arm]| arms.iter_mut().try_for_each(|arm| arm.link_base(&change, &applied.ids, base));
        // Neighbours often look into the same index, which takes one of them at a time.
        let each = self.arms.len().div_ceil(self.lots(applied.ids.len())).max(1);
        let lots = self.arms.chunks_mut(each).collect();
        in_threads(lots, link)?.into_iter().collect::<Result<()>>()?;
        let net = self.base.seen(applied.net)?;
        let lots = Tuples::of_base(net, self.arms.len()).divided(self.lots(applied.ids.len()));
        let expanded = in_threads(lots, |tuples| self.expanded(tuples, &all, &self.base, None))?;
        let expanded = expanded.into_iter().collect::<Result<Vec<_>>>()?;
        let tuples = Tuples::one_after_the_other(expanded.into_iter().flatten());
        for arm in &mut self.arms {
            arm.unlink_base(&applied.removed);
        }
        Ok((tuples, None))
    }

    /// `tuples` × the matches of `arms`. `keys` are those of a base that is not linked, by arm and row.
    fn expanded(
        &self,
        mut tuples: Tuples,
        arms: &[usize],
        base: &Relation,
        keys: Option<&[Paged<u32>]>,
    ) -> Result<Option<Tuples>> {
        for j in arms {
            if tuples.is_empty() {
                return Ok(None);
            }
            let arm = &self.arms[*j];
            tuples = arm.expand(tuples, *j, base, keys.map_or(arm.base_keys(), |k| &k[*j]))?;
        }
        Ok((!tuples.is_empty()).then_some(tuples))
    }

    /// Threads that work of so many rows is worth.
    fn lots(&self, rows: usize) -> usize {
        if rows < LARGE { 1 } else { self.threads }
    }

    fn materialise(&self, tuples: Option<Tuples>, base: &Relation) -> Result<Vec<SignedBatch>> {
        let Some(tuples) = tuples else { return Ok(vec![]) };
        let lots = self.lots(tuples.len());
        let gathered = in_threads(tuples.divided(lots), |tuples| self.gathered(tuples, base))?;
        let batches = gathered.into_iter().collect::<Result<Vec<_>>>()?;
        if batches.iter().any(SignedBatch::has_retractions) && self.arms.iter().any(Arm::may_cancel) {
            return consolidate(&self.schema, batches);
        }
        Ok(batches)
    }

    /// The columns of `tuples`.
    fn gathered(&self, tuples: Tuples, base: &Relation) -> Result<SignedBatch> {
        let all: Vec<usize> = (0..self.base_schema.fields().len()).collect();
        let mut columns = base.columns(&tuples.base, &all)?;
        for (arm, rows) in self.arms.iter().zip(&tuples.arms) {
            columns.extend(arm.columns(rows)?);
        }
        let rows = eval::rows(&self.schema, columns, tuples.len())?;
        let weights: Vec<Weight> = tuples.weights;
        SignedBatch::new(rows, weights.into())
    }
}

impl Shard for Join {
    /// `inputs`: the base's change, then each arm's.
    fn step(&mut self, mut inputs: Vec<Vec<SelectedBatch>>, _: bool) -> Result<Vec<SignedBatch>> {
        let mut parts: Vec<Tuples> = Vec::new();
        let arms = self.arms.len();
        for i in 0..arms {
            let change = std::mem::take(&mut inputs[i + 1]);
            if change.is_empty() {
                continue;
            }
            let affected = self.arms[i].apply(change, &self.base, i, arms)?;
            let others: Vec<usize> = (0..arms).filter(|j| *j != i).collect();
            parts.extend(self.expanded(affected, &others, &self.base, None)?);
        }
        let mut scratch = None;
        if let Some(change) = inputs.into_iter().next().filter(|change| !change.is_empty()) {
            let (tuples, kept) = self.base_change(change)?;
            parts.extend(tuples);
            scratch = kept;
        }
        let output = self.materialise(Tuples::consolidated(parts), scratch.as_ref().unwrap_or(&self.base))?;
        for arm in &mut self.arms {
            arm.sweep()?;
        }
        self.base.sweep()?;
        Ok(output)
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        self.base.save(out)?;
        self.arms.iter_mut().try_for_each(|arm| arm.save(out))
    }

    fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        let base = self.base.restore(from)?;
        self.arms.iter_mut().try_for_each(|arm| arm.restore(from, base.as_deref()))
    }

    fn kept(&self) -> Vec<&Relation> {
        std::iter::once(&self.base).chain(self.arms.iter().map(Arm::rows)).collect()
    }

    fn state_rows(&self) -> usize {
        self.base.len() + self.arms.iter().map(Arm::state_rows).sum::<usize>()
    }

    fn state_bytes(&self) -> usize {
        self.base.heap_size() + self.arms.iter().map(Arm::state_bytes).sum::<usize>()
    }
}

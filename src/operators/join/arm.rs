//! One joined input: its rows, its keys, and how base rows find them.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::{DFSchema, NullEquality};
use datafusion::execution::SessionState;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use std::sync::Arc;

use super::tuples::Tuples;
use crate::error::{Error, Result};
use crate::operators::eval::{Exprs, Predicate, arrow_schema};
use crate::plan::incremental::{self, ArmKind};
use crate::state::{GroupIndex, Links, NONE, RowCodec, RowStore, StateReader, StateWriter};
use crate::types::SignedBatch;

pub(super) struct Arm {
    store: RowStore,
    width: usize,
    left: bool,
    keys: Keys,
    residual: Option<Residual>,
    /// Distinct keys of both sides; an id lives as long as a row of either has it.
    index: GroupIndex,
    base: Links,
    rows: Links,
    /// Keys that lost a row in this epoch.
    loose: Vec<u32>,
}

impl Arm {
    pub fn new(plan: &incremental::Arm, base: &DFSchema, session: &SessionState) -> Result<Self> {
        let schema = plan.input.schema();
        Ok(Arm {
            store: RowStore::new(&arrow_schema(schema))?,
            width: schema.fields().len(),
            left: plan.kind == ArmKind::Left,
            keys: Keys::new(plan, base, session)?,
            residual: plan.residual.as_ref().map(|r| Residual::new(r, base, schema, session)).transpose()?,
            index: GroupIndex::new(),
            base: Links::new(),
            rows: Links::new(),
            loose: Vec::new(),
        })
    }

    /// Applies the arm's change. Returns the tuples of base and arm by which it changes the join, the other arms aside. `slot` is this arm's place among `arms`.
    pub fn apply(&mut self, change: &[SignedBatch], base: &RowStore, slot: usize, arms: usize) -> Result<Tuples> {
        let applied = self.store.apply(change)?;
        // Keys of the rows that are new. Those of removed ones are known.
        let mut start = 0;
        let mut added: Vec<(u32, u32)> = Vec::new();
        for batch in change {
            let ids = &applied.ids[start..start + batch.num_rows()];
            start += batch.num_rows();
            let is_new = |id: u32| self.store.weight(id) > 0 && !self.rows.contains(id);
            if !ids.iter().any(|id| is_new(*id)) {
                continue;
            }
            let keys = self.keys.of_arm(&batch.rows)?;
            for (i, id) in ids.iter().enumerate() {
                if is_new(*id) {
                    added.push((*id, keys.intern(i, &mut self.index)?));
                }
            }
        }
        // Duplicates within the epoch are one row.
        added.sort_unstable();
        added.dedup();

        let mut affected = Tuples::new(arms);
        let key_of = |id: u32| match added.binary_search_by_key(&id, |(row, _)| *row) {
            Ok(at) => added[at].1,
            Err(_) => self.rows.keys()[id as usize],
        };
        let pairs: Vec<(u32, u32, i64)> = applied.net.iter().map(|(id, w)| (key_of(*id), *id, *w)).collect();
        // Over an empty or streamed base there is nothing to change.
        let touched = if base.is_empty() { vec![] } else { self.touched(&pairs) };
        let before = self.matched(&touched, base)?;
        for (row, key) in &added {
            self.rows.link(*row, *key);
        }
        for row in &applied.removed {
            let key = self.rows.keys()[*row as usize];
            self.rows.unlink(*row);
            if key != NONE {
                self.loose.push(key);
            }
        }
        let after = self.matched(&touched, base)?;
        if touched.is_empty() {
            return Ok(affected);
        }
        for (key, row, weight) in pairs {
            if key == NONE {
                continue;
            }
            for b in self.base.rows(key) {
                affected.push(b, slot, row, base.weight(b) * weight);
            }
        }
        if let Some(residual) = &self.residual {
            let kept = residual.passing(base, &affected.base, &self.store, &affected.arms[slot])?;
            affected = affected.pick(&kept);
        }
        if self.left {
            for ((b, before), after) in touched.iter().zip(before).zip(after) {
                if before != after {
                    // The NULL row stands in as long as nothing matches.
                    let sign = if before { 1 } else { -1 };
                    affected.push(*b, slot, NONE, sign * base.weight(*b));
                }
            }
        }
        Ok(affected)
    }

    /// Base rows with one of the keys of these changes, each once.
    fn touched(&self, pairs: &[(u32, u32, i64)]) -> Vec<u32> {
        let mut keys: Vec<u32> = pairs.iter().map(|(key, ..)| *key).filter(|k| *k != NONE).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.iter().flat_map(|key| self.base.rows(*key)).collect()
    }

    /// For each base row whether it has a match. Only left arms ask.
    fn matched(&self, base_rows: &[u32], base: &RowStore) -> Result<Vec<bool>> {
        if !self.left {
            return Ok(vec![]);
        }
        let keys = self.base.keys();
        let Some(residual) = &self.residual else {
            return Ok(base_rows.iter().map(|b| self.rows.head(keys[*b as usize]) != NONE).collect());
        };
        let (mut places, mut lefts, mut rights) = (vec![], vec![], vec![]);
        for (place, b) in base_rows.iter().enumerate() {
            for row in self.rows.rows(keys[*b as usize]) {
                places.push(place);
                lefts.push(*b);
                rights.push(row);
            }
        }
        let mut matched = vec![false; base_rows.len()];
        for pair in residual.passing(base, &lefts, &self.store, &rights)? {
            matched[places[pair as usize]] = true;
        }
        Ok(matched)
    }

    /// `tuples` × this arm's matches. `keys` are key ids by base row.
    pub fn expand(&self, tuples: Tuples, slot: usize, base: &RowStore, keys: &[u32]) -> Result<Tuples> {
        let mut picked: Vec<u32> = Vec::with_capacity(tuples.len());
        let mut rows: Vec<u32> = Vec::with_capacity(tuples.len());
        for (i, b) in tuples.base.iter().enumerate() {
            let key = keys[*b as usize];
            if key == NONE {
                continue;
            }
            for row in self.rows.rows(key) {
                picked.push(i as u32);
                rows.push(row);
            }
        }
        if let Some(residual) = &self.residual {
            let lefts: Vec<u32> = picked.iter().map(|i| tuples.base[*i as usize]).collect();
            let kept = residual.passing(base, &lefts, &self.store, &rows)?;
            picked = kept.iter().map(|k| picked[*k as usize]).collect();
            rows = kept.iter().map(|k| rows[*k as usize]).collect();
        }
        if self.left {
            let mut matched = vec![false; tuples.len()];
            picked.iter().for_each(|i| matched[*i as usize] = true);
            for (i, _) in matched.iter().enumerate().filter(|(_, m)| !**m) {
                picked.push(i as u32);
                rows.push(NONE);
            }
        }
        let mut expanded = tuples.pick(&picked);
        for (weight, row) in expanded.weights.iter_mut().zip(&rows) {
            if *row != NONE {
                *weight = weight
                    .checked_mul(self.store.weight(*row))
                    .ok_or_else(|| Error::user("overflow", "a row occurs more than 2^63 times"))?;
            }
        }
        Ok(expanded.with_arm(slot, rows))
    }

    /// Remembers the keys of base rows; `ids` are the rows of `change`, batches one after the other.
    pub fn link_base(&mut self, change: &[SignedBatch], ids: &[u32], base: &RowStore) -> Result<()> {
        let mut start = 0;
        for batch in change {
            let ids = &ids[start..start + batch.num_rows()];
            start += batch.num_rows();
            // A row that came and went within the epoch has no part in it.
            let is_new = |links: &Links, id: u32| base.weight(id) > 0 && !links.contains(id);
            if !ids.iter().any(|id| is_new(&self.base, *id)) {
                continue;
            }
            let keys = self.keys.of_base(&batch.rows)?;
            for (i, id) in ids.iter().enumerate() {
                if is_new(&self.base, *id) {
                    let key = keys.intern(i, &mut self.index)?;
                    self.base.link(*id, key);
                }
            }
        }
        Ok(())
    }

    pub fn unlink_base(&mut self, row: u32) {
        let key = self.base.keys()[row as usize];
        self.base.unlink(row);
        if key != NONE {
            self.loose.push(key);
        }
    }

    /// Key ids by base row.
    pub fn base_keys(&self) -> &[u32] {
        self.base.keys()
    }

    /// Key ids of base rows that are not kept; [`NONE`] where no arm row has the key.
    pub fn find_base_keys(&mut self, change: &[SignedBatch]) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        for batch in change {
            let keys = self.keys.of_base(&batch.rows)?;
            found.extend((0..batch.num_rows()).map(|i| keys.find(i, &mut self.index)));
        }
        Ok(found)
    }

    /// All columns of `rows`.
    pub fn columns(&self, rows: &[u32]) -> Result<Vec<ArrayRef>> {
        self.store.columns(rows, &(0..self.width).collect::<Vec<_>>())
    }

    /// Frees what died in this epoch.
    pub fn sweep(&mut self) -> Result<()> {
        self.loose.sort_unstable();
        self.loose.dedup();
        for key in std::mem::take(&mut self.loose) {
            if self.base.head(key) == NONE && self.rows.head(key) == NONE {
                self.index.remove(key);
            }
        }
        self.store.sweep()
    }

    pub fn save(&self, out: &mut StateWriter) -> Result<()> {
        self.store.save(out)?;
        self.index.save(out);
        self.base.save(out);
        self.rows.save(out);
        Ok(())
    }

    pub fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        self.store.restore(from)?;
        self.index = GroupIndex::restore(from)?;
        self.base = Links::restore(from)?;
        self.rows = Links::restore(from)?;
        Ok(())
    }

    pub fn state_rows(&self) -> usize {
        self.store.len()
    }

    pub fn state_bytes(&self) -> usize {
        self.store.heap_size() + self.index.heap_size() + self.base.heap_size() + self.rows.heap_size()
    }
}

/// The equal pairs of an arm's ON.
struct Keys {
    base: Exprs,
    arm: Exprs,
    types: Vec<DataType>,
    codec: RowCodec,
    null_equals_null: bool,
}

/// Keys of one batch.
struct BatchKeys {
    encoded: crate::state::Encoded,
    /// Rows whose key matches nothing because it has a NULL.
    nulls: Option<NullBuffer>,
}

impl Keys {
    fn new(plan: &incremental::Arm, base: &DFSchema, session: &SessionState) -> Result<Self> {
        let base = Exprs::new(plan.on.iter().map(|(l, _)| l), base, session)?;
        let arm = Exprs::new(plan.on.iter().map(|(_, r)| r), plan.input.schema(), session)?;
        let common = |(l, r): (&DataType, &DataType)| {
            if l == r {
                return Ok(l.clone());
            }
            comparison_coercion(l, r).ok_or_else(|| Error::user("join-key", format!("{l} and {r} cannot be compared")))
        };
        let types = base.types.iter().zip(&arm.types).map(common).collect::<Result<Vec<_>>>()?;
        let codec = RowCodec::new(types.iter().cloned())?;
        let null_equals_null = plan.null_equality == NullEquality::NullEqualsNull;
        Ok(Keys { base, arm, types, codec, null_equals_null })
    }

    fn of_base(&self, rows: &RecordBatch) -> Result<BatchKeys> {
        self.keys(self.base.evaluate(rows)?, rows.num_rows())
    }

    fn of_arm(&self, rows: &RecordBatch) -> Result<BatchKeys> {
        self.keys(self.arm.evaluate(rows)?, rows.num_rows())
    }

    fn keys(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<BatchKeys> {
        let columns = columns
            .into_iter()
            .zip(&self.types)
            .map(|(c, t)| if c.data_type() == t { Ok(c) } else { Ok(cast(&c, t)?) })
            .collect::<Result<Vec<_>>>()?;
        let mut nulls: Option<NullBuffer> = None;
        if !self.null_equals_null {
            for column in &columns {
                nulls = NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref());
            }
        }
        Ok(BatchKeys { encoded: self.codec.encode(&columns, rows)?, nulls })
    }
}

impl BatchKeys {
    fn matches_nothing(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|n| n.is_null(row))
    }

    fn intern(&self, row: usize, index: &mut GroupIndex) -> Result<u32> {
        if self.matches_nothing(row) { Ok(NONE) } else { index.intern_one(self.encoded.row(row)) }
    }

    fn find(&self, row: usize, index: &mut GroupIndex) -> u32 {
        if self.matches_nothing(row) { NONE } else { index.find_one(self.encoded.row(row)) }
    }
}

/// The rest of an arm's condition, over the columns it mentions.
struct Residual {
    predicate: Predicate,
    base_columns: Vec<usize>,
    arm_columns: Vec<usize>,
    schema: SchemaRef,
}

/// Pairs a residual is evaluated on at once.
const PAIRS: usize = 1 << 16;

impl Residual {
    fn new(
        expr: &datafusion::logical_expr::Expr,
        base: &DFSchema,
        arm: &DFSchema,
        session: &SessionState,
    ) -> Result<Self> {
        let all = base.join(arm)?;
        let mut columns: Vec<usize> = Vec::new();
        for column in expr.column_refs() {
            columns.push(all.index_of_column(column)?);
        }
        columns.sort_unstable();
        columns.dedup();
        let width = base.fields().len();
        let fields = columns.iter().map(|i| {
            let (qualifier, field) = all.qualified_field(*i);
            (qualifier.cloned(), Arc::clone(field))
        });
        let narrow = DFSchema::new_with_metadata(fields.collect(), Default::default())?;
        let schema: Schema = arrow_schema(&narrow).as_ref().clone();
        Ok(Residual {
            predicate: Predicate::new(expr, &narrow, session)?,
            base_columns: columns.iter().copied().filter(|i| *i < width).collect(),
            arm_columns: columns.iter().copied().filter(|i| *i >= width).map(|i| i - width).collect(),
            schema: Arc::new(schema),
        })
    }

    /// Indices of the pairs for which the condition is TRUE.
    fn passing(&self, base: &RowStore, base_rows: &[u32], arm: &RowStore, arm_rows: &[u32]) -> Result<Vec<u32>> {
        let mut passing = Vec::with_capacity(base_rows.len());
        for (n, (lefts, rights)) in base_rows.chunks(PAIRS).zip(arm_rows.chunks(PAIRS)).enumerate() {
            let mut columns = base.columns(lefts, &self.base_columns)?;
            columns.extend(arm.columns(rights, &self.arm_columns)?);
            let options = RecordBatchOptions::new().with_row_count(Some(lefts.len()));
            let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
            let mask = self.predicate.evaluate(&batch)?;
            passing.extend(mask.values().set_indices().map(|i| (n * PAIRS + i) as u32));
        }
        Ok(passing)
    }
}

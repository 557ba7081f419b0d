//! Inner and left equi-joins of one base with any number of arms, as one node.
//!
//! Write T₀ for the base and Tᵢ = Tᵢ₋₁ ⋈ Bᵢ (or ⟕). No Tᵢ is stored, only the base's and the arms' rows, each once, and per
//! arm one index from key to the base's and the arm's row ids. A change is computed arm by arm from
//!
//! ```text
//! ΔTᵢ = ΔTᵢ₋₁ ⟕ Bᵢ  +  (T′ᵢ₋₁ ⟕ B′ᵢ − T′ᵢ₋₁ ⟕ Bᵢ)        (′: after the change)
//! ```
//!
//! which holds because ⟕ is linear in its left argument. The second term concerns only base rows whose key occurs in ΔBᵢ;
//! their T′ᵢ₋₁ is made on demand from arms that have already changed. Tuples are row ids until the end.

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{DFSchema, NullEquality};
use datafusion::execution::SessionState;
use hashbrown::{HashMap, HashSet};

use super::expr::{self, Bound};
use crate::error::Result;
use crate::plan::incremental::{self, ArmKind};
use crate::state::{RowCodec, RowId, RowStore, consolidate};
use crate::types::SignedBatch;

/// A key that matches nothing.
const NO_KEY: u32 = u32::MAX;

pub(super) struct Join {
    schema: SchemaRef,
    base_schema: SchemaRef,
    base: RowStore,
    /// Per arm, where each base row stands in that arm's index, by row id.
    base_links: Vec<Vec<Link>>,
    arms: Vec<Arm>,
    /// The base is a stream: its rows are not kept and arms' changes only update them.
    streams: bool,
}

struct Arm {
    kind: ArmKind,
    schema: SchemaRef,
    base_on: Vec<Bound>,
    on: Vec<Bound>,
    residual: Option<(Bound, SchemaRef)>,
    null_equality: NullEquality,
    codec: RowCodec,
    rows: RowStore,
    /// Where each arm row stands in the index, by row id.
    row_links: Vec<Link>,
    keys: Keys,
}

/// Where a row stands in an index: its key, and its place among that key's rows.
#[derive(Debug, Clone, Copy)]
struct Link {
    key: u32,
    place: u32,
}

const UNLINKED: Link = Link { key: NO_KEY, place: 0 };

/// The distinct keys of one arm, and which rows of either side have them.
#[derive(Default)]
struct Keys {
    ids: HashMap<Box<[u8]>, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Keys whose entry is empty, roughly.
    unused: usize,
}

#[derive(Default)]
struct Entry {
    base: Vec<RowId>,
    arm: Vec<RowId>,
}

/// Output rows as row ids: base, then one per arm so far; `None` is the NULL row.
#[derive(Default)]
struct Tuples {
    base: Vec<RowId>,
    arms: Vec<Vec<Option<RowId>>>,
    weights: Vec<i64>,
}

impl Tuples {
    fn push(&mut self, from: &Tuples, at: usize, arm: Option<RowId>, weight: i64) {
        self.base.push(from.base[at]);
        for (own, other) in self.arms.iter_mut().zip(&from.arms) {
            own.push(other[at]);
        }
        if let Some(last) = self.arms.last_mut() {
            last.push(arm);
        }
        self.weights.push(weight);
    }

    fn with_arms(arms: usize) -> Self {
        Tuples { base: Vec::new(), arms: vec![Vec::new(); arms], weights: Vec::new() }
    }
}

impl Join {
    pub(super) fn new(
        base: &DFSchema,
        arms: &[incremental::Arm],
        schema: &DFSchema,
        streams: bool,
        session: &SessionState,
    ) -> Result<Self> {
        let base_schema = expr::arrow_schema(base);
        let mut built = Vec::with_capacity(arms.len());
        for arm in arms {
            let (left, right): (Vec<_>, Vec<_>) = arm.on.iter().cloned().unzip();
            let input = arm.input.schema();
            let base_on = expr::bind_all(&left, base, session)?;
            let on = expr::bind_all(&right, input, session)?;
            // Both sides were coerced to one type by the planner; keys are compared as bytes of the base's type.
            let types: Vec<DataType> = expr::types(&base_on, base)?;
            let residual = match &arm.residual {
                None => None,
                Some(residual) => {
                    let both = base.join(input)?;
                    Some((expr::bind(residual, &both, session)?, expr::arrow_schema(&both)))
                }
            };
            let arm_schema = expr::arrow_schema(input);
            built.push(Arm {
                kind: arm.kind,
                base_on,
                on,
                residual,
                null_equality: arm.null_equality,
                codec: RowCodec::new(&types)?,
                rows: RowStore::new(arm_schema.clone())?,
                schema: arm_schema,
                row_links: Vec::new(),
                keys: Keys::default(),
            });
        }
        Ok(Join {
            schema: expr::arrow_schema(schema),
            base: RowStore::new(base_schema.clone())?,
            base_schema,
            base_links: vec![Vec::new(); built.len()],
            arms: built,
            streams,
        })
    }

    pub(super) fn step(&mut self, inputs: &[Vec<SignedBatch>]) -> Result<Vec<SignedBatch>> {
        let mut arm_changes = Vec::with_capacity(self.arms.len());
        for (arm, input) in self.arms.iter().zip(&inputs[1..]) {
            arm_changes.push(consolidate(&arm.schema, input)?);
        }
        let base_change = consolidate(&self.base_schema, &inputs[0])?;
        if self.streams {
            for (arm, change) in self.arms.iter_mut().zip(&arm_changes) {
                arm.apply(change)?;
                arm.sweep();
            }
        }
        let base_ids = self.apply_base(&base_change)?;
        let mut delta = Tuples {
            base: base_ids,
            arms: Vec::new(),
            weights: base_change.weights_array().values().to_vec(),
        };
        for i in 0..self.arms.len() {
            let mut next = self.probe(i, &delta)?;
            if !self.streams && !arm_changes[i].is_empty() {
                let keys = self.arms[i].keys_of(&arm_changes[i])?;
                let prefix = self.prefix(i, &keys)?;
                let before = self.match_counts(i, &prefix)?;
                let ids = self.arms[i].apply(&arm_changes[i])?;
                self.bracket(i, &prefix, &before, &arm_changes[i], &ids, &keys, &mut next)?;
            }
            delta = next;
        }
        let out = self.materialise(&delta)?;
        self.sweep();
        if out.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![consolidate(&self.schema, &[out])?])
    }

    /// Adds the base's change to its store and to every arm's index.
    fn apply_base(&mut self, change: &SignedBatch) -> Result<Vec<RowId>> {
        let ids = self.base.apply(change)?;
        for (arm, links) in self.arms.iter_mut().zip(&mut self.base_links) {
            let keys = arm.encode(&arm.base_on, &change.rows)?;
            for ((id, is_new), key) in ids.iter().zip(keys) {
                if *is_new {
                    let key = key.map(|key| arm.keys.intern(key));
                    link(links, *id, key, |key| &mut arm.keys.entries[key as usize].base);
                }
            }
        }
        Ok(ids.into_iter().map(|(id, _)| id).collect())
    }

    /// `delta ⟕ Bᵢ` with the arm as it is now.
    fn probe(&self, i: usize, delta: &Tuples) -> Result<Tuples> {
        let arm = &self.arms[i];
        let mut pairs: Vec<(usize, RowId)> = Vec::new();
        for (at, base) in delta.base.iter().enumerate() {
            let key = self.base_links[i][*base as usize].key;
            if key != NO_KEY {
                pairs.extend(arm.keys.entries[key as usize].arm.iter().map(|row| (at, *row)));
            }
        }
        self.keep_matching(i, delta, &mut pairs)?;
        let mut out = Tuples::with_arms(i + 1);
        let mut pair = 0;
        for at in 0..delta.base.len() {
            let mut matched = false;
            while let Some((_, row)) = pairs.get(pair).filter(|(other, _)| *other == at) {
                pair += 1;
                let weight = arm.rows.weight(*row);
                if weight != 0 {
                    matched = true;
                    out.push(delta, at, Some(*row), delta.weights[at] * weight);
                }
            }
            if !matched && arm.kind == ArmKind::Left {
                out.push(delta, at, None, delta.weights[at]);
            }
        }
        Ok(out)
    }

    /// Drops the pairs (tuple, arm row) whose residual condition is not true.
    fn keep_matching(&self, i: usize, tuples: &Tuples, pairs: &mut Vec<(usize, RowId)>) -> Result<()> {
        let arm = &self.arms[i];
        let Some((residual, schema)) = &arm.residual else { return Ok(()) };
        if pairs.is_empty() {
            return Ok(());
        }
        let base: Vec<Option<RowId>> = pairs.iter().map(|(at, _)| Some(tuples.base[*at])).collect();
        let rows: Vec<Option<RowId>> = pairs.iter().map(|(_, row)| Some(*row)).collect();
        let mut columns = self.base.gather(&base, &all(&self.base_schema))?;
        columns.extend(arm.rows.gather(&rows, &all(&arm.schema))?);
        let mask = expr::mask(residual, &expr::batch_of(schema, columns, pairs.len())?)?;
        let mut at = 0;
        pairs.retain(|_| {
            at += 1;
            mask.value(at - 1)
        });
        Ok(())
    }

    /// T′ᵢ₋₁ of the base rows that have one of `keys` for arm `i`.
    fn prefix(&self, i: usize, keys: &[Option<u32>]) -> Result<Tuples> {
        let mut seen = HashSet::new();
        let mut prefix = Tuples::default();
        for key in keys.iter().flatten() {
            if !seen.insert(*key) {
                continue;
            }
            for base in &self.arms[i].keys.entries[*key as usize].base {
                let weight = self.base.weight(*base);
                if weight != 0 {
                    prefix.base.push(*base);
                    prefix.weights.push(weight);
                }
            }
        }
        for j in 0..i {
            prefix = self.probe(j, &prefix)?;
        }
        Ok(prefix)
    }

    /// For left arms: how many rows of the arm match each tuple now.
    fn match_counts(&self, i: usize, tuples: &Tuples) -> Result<Vec<i64>> {
        let arm = &self.arms[i];
        if arm.kind == ArmKind::Inner {
            return Ok(Vec::new());
        }
        let mut pairs = Vec::new();
        for (at, base) in tuples.base.iter().enumerate() {
            let key = self.base_links[i][*base as usize].key;
            pairs.extend(arm.keys.entries[key as usize].arm.iter().map(|row| (at, *row)));
        }
        self.keep_matching(i, tuples, &mut pairs)?;
        let mut counts = vec![0; tuples.base.len()];
        for (at, row) in pairs {
            counts[at] += arm.rows.weight(row);
        }
        Ok(counts)
    }

    /// `T′ᵢ₋₁ ⟕ B′ᵢ − T′ᵢ₋₁ ⟕ Bᵢ`, appended to `out`. `before`: match counts with the arm as it was.
    #[allow(clippy::too_many_arguments)]
    fn bracket(
        &self,
        i: usize,
        prefix: &Tuples,
        before: &[i64],
        change: &SignedBatch,
        ids: &[RowId],
        keys: &[Option<u32>],
        out: &mut Tuples,
    ) -> Result<()> {
        let mut changed: HashMap<u32, Vec<RowId>> = HashMap::new();
        let mut weight_of: HashMap<RowId, i64> = HashMap::new();
        for (n, (id, key)) in ids.iter().zip(keys).enumerate() {
            if let Some(key) = key {
                let weight = weight_of.entry(*id).or_insert_with(|| {
                    changed.entry(*key).or_default().push(*id);
                    0
                });
                *weight += change.weight(n);
            }
        }
        let mut pairs = Vec::new();
        for (at, base) in prefix.base.iter().enumerate() {
            let key = self.base_links[i][*base as usize].key;
            for row in changed.get(&key).into_iter().flatten() {
                pairs.push((at, *row));
            }
        }
        self.keep_matching(i, prefix, &mut pairs)?;
        let left = self.arms[i].kind == ArmKind::Left;
        let mut moved = vec![0; if left { prefix.base.len() } else { 0 }];
        for (at, row) in pairs {
            let weight = weight_of.get(&row).copied().unwrap_or(0);
            if weight != 0 {
                out.push(prefix, at, Some(row), prefix.weights[at] * weight);
            }
            if left {
                moved[at] += weight;
            }
        }
        for at in 0..moved.len() {
            match (before[at] == 0, before[at] + moved[at] == 0) {
                (true, false) => out.push(prefix, at, None, -prefix.weights[at]),
                (false, true) => out.push(prefix, at, None, prefix.weights[at]),
                _ => {}
            }
        }
        Ok(())
    }

    fn materialise(&self, tuples: &Tuples) -> Result<SignedBatch> {
        let base: Vec<Option<RowId>> = tuples.base.iter().copied().map(Some).collect();
        let mut columns: Vec<ArrayRef> = self.base.gather(&base, &all(&self.base_schema))?;
        for (arm, rows) in self.arms.iter().zip(&tuples.arms) {
            columns.extend(arm.rows.gather(rows, &all(&arm.schema))?);
        }
        let rows: RecordBatch = expr::batch_of(&self.schema, columns, tuples.base.len())?;
        SignedBatch::new(rows, Int64Array::from(tuples.weights.clone()))
    }

    /// Unlinks and frees rows that are gone; a stream's rows all are.
    fn sweep(&mut self) {
        let gone: Vec<RowId> = if self.streams { self.base.all() } else { self.base.dead() };
        for (arm, links) in self.arms.iter_mut().zip(&mut self.base_links) {
            for id in &gone {
                let key = unlink(links, *id, |key| &mut arm.keys.entries[key as usize].base);
                arm.keys.release(key);
            }
            arm.sweep();
        }
        if self.streams {
            self.base.clear();
        } else {
            self.base.sweep();
        }
    }

    pub(super) fn state_rows(&self) -> usize {
        self.base.len() + self.arms.iter().map(|a| a.rows.len()).sum::<usize>()
    }

    pub(super) fn state_bytes(&self) -> usize {
        let links: usize = self.base_links.iter().map(|l| l.capacity() * 8).sum();
        self.base.bytes() + links + self.arms.iter().map(|a| a.rows.bytes() + a.keys.bytes()).sum::<usize>()
    }
}

impl Arm {
    /// Key bytes per row; `None` where a NULL key matches nothing.
    fn encode(&self, on: &[Bound], rows: &RecordBatch) -> Result<Vec<Option<Box<[u8]>>>> {
        let mut columns = expr::evaluate_all(on, rows)?;
        for (column, wanted) in columns.iter_mut().zip(self.codec.types()) {
            if column.data_type() != wanted {
                *column = arrow::compute::cast(column, wanted)?;
            }
        }
        let encoded = self.codec.encode(&columns)?;
        let nulls = self.null_equality == NullEquality::NullEqualsNothing;
        Ok((0..rows.num_rows())
            .map(|i| {
                if nulls && columns.iter().any(|c| c.is_null(i)) {
                    None
                } else {
                    Some(Box::from(encoded.row(i).data()))
                }
            })
            .collect())
    }

    /// Key ids of an arm change's rows, made where they are new.
    fn keys_of(&mut self, change: &SignedBatch) -> Result<Vec<Option<u32>>> {
        let keys = self.encode(&self.on, &change.rows)?;
        Ok(keys.into_iter().map(|key| key.map(|key| self.keys.intern(key))).collect())
    }

    fn apply(&mut self, change: &SignedBatch) -> Result<Vec<RowId>> {
        let keys = self.keys_of(change)?;
        let ids = self.rows.apply(change)?;
        for ((id, is_new), key) in ids.iter().zip(keys) {
            if *is_new {
                link(&mut self.row_links, *id, key, |key| &mut self.keys.entries[key as usize].arm);
            }
        }
        Ok(ids.into_iter().map(|(id, _)| id).collect())
    }

    fn sweep(&mut self) {
        for id in self.rows.dead() {
            let key = unlink(&mut self.row_links, id, |key| &mut self.keys.entries[key as usize].arm);
            self.keys.release(key);
        }
        self.rows.sweep();
    }
}

/// Puts a row among the rows of its key; a row without a key stays unlinked.
fn link<'a>(links: &mut Vec<Link>, id: RowId, key: Option<u32>, rows: impl FnOnce(u32) -> &'a mut Vec<RowId>) {
    let at = id as usize;
    if links.len() <= at {
        links.resize(at + 1, UNLINKED);
    }
    links[at] = match key {
        None => UNLINKED,
        Some(key) => {
            let rows = rows(key);
            rows.push(id);
            Link { key, place: (rows.len() - 1) as u32 }
        }
    };
}

/// Takes a row from the rows of its key, in constant time; returns the key.
fn unlink<'a>(links: &mut [Link], id: RowId, rows: impl FnOnce(u32) -> &'a mut Vec<RowId>) -> u32 {
    let link = std::mem::replace(&mut links[id as usize], UNLINKED);
    if link.key != NO_KEY {
        let rows = rows(link.key);
        rows.swap_remove(link.place as usize);
        if let Some(moved) = rows.get(link.place as usize) {
            links[*moved as usize].place = link.place;
        }
        if rows.is_empty() {
            *rows = Vec::new();
        }
    }
    link.key
}

impl Keys {
    fn intern(&mut self, key: Box<[u8]>) -> u32 {
        let (entries, free) = (&mut self.entries, &mut self.free);
        *self.ids.entry(key).or_insert_with(|| match free.pop() {
            Some(id) => id,
            None => {
                entries.push(Entry::default());
                (entries.len() - 1) as u32
            }
        })
    }

    /// Forgets a key that no row has any more. Its bytes are dropped lazily, when half of all keys are unused.
    fn release(&mut self, key: u32) {
        if key == NO_KEY {
            return;
        }
        let entry = &self.entries[key as usize];
        if entry.base.is_empty() && entry.arm.is_empty() {
            self.unused += 1;
            if self.unused * 2 > self.ids.len() {
                self.compact();
            }
        }
    }

    fn compact(&mut self) {
        let (entries, free) = (&self.entries, &mut self.free);
        self.ids.retain(|_, id| {
            let entry = &entries[*id as usize];
            let used = !entry.base.is_empty() || !entry.arm.is_empty();
            if !used {
                free.push(*id);
            }
            used
        });
        self.unused = 0;
        if self.ids.is_empty() {
            *self = Keys::default();
        }
    }

    fn bytes(&self) -> usize {
        self.ids.iter().map(|(k, _)| k.len() + 32).sum::<usize>() + self.entries.capacity() * 48
    }
}

fn all(schema: &SchemaRef) -> Vec<usize> {
    (0..schema.fields().len()).collect()
}

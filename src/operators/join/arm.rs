//! One joined input: its rows, its keys, and how base rows find them.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::{DFSchema, NullEquality};
use datafusion::execution::SessionState;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::index::Index;
use super::relation;
use super::tuples::Tuples;
use crate::error::{Error, Result};
use crate::operators::eval::{NarrowExprs, Predicate, arrow_schema, narrowed};
use crate::operators::sharded::Part;
use crate::plan::incremental::{self, ArmKind, Node};
use crate::state::{AHEAD, Linked, Links, NONE, Paged, Relation, RowCodec, StateReader, StateWriter};
use crate::types::{SelectedBatch, Weight};

pub(super) struct Arm {
    /// Its rows by their keys, and the distinct keys of both sides; an id lives as long as a row of either has it. It goes before the rows.
    index: Index,
    store: Relation,
    width: usize,
    kind: ArmKind,
    keys: Keys,
    residual: Option<Residual>,
    base: Links,
    /// How many of the arm's rows each base row matches, where that is not a matter of the key alone.
    matches: Option<Vec<u32>>,
    /// Rows of the arm, and those of them whose key is NULL. Only NOT IN asks.
    present: usize,
    nulls: usize,
    /// Keys that lost a row in this epoch.
    loose: Vec<u32>,
}

/// A key without an id: no row has it. [`NONE`] is no key: a NULL.
const UNKNOWN: u32 = NONE - 1;

/// What an arm shows of a row that is there, beside its own columns.
const THERE: u32 = 1;
const NOT_THERE: u32 = 0;

impl Arm {
    /// `streamed`: rows of the base are not kept.
    pub fn new(
        plan: &incremental::Arm,
        base: &Node,
        streamed: bool,
        part: Part,
        session: &SessionState,
    ) -> Result<Self> {
        let schema = plan.input.schema();
        let residual = plan.residual.as_ref().map(|r| Residual::new(r, base.schema(), schema, session)).transpose()?;
        let counts = residual.is_some() && plan.kind != ArmKind::Inner && !streamed;
        let store = relation(&plan.input, part, session)?;
        let keys = Keys::new(plan, base.schema(), session)?;
        Ok(Arm {
            index: Index::new(&store, &keys.name(&plan.input))?,
            store,
            width: schema.fields().len(),
            kind: plan.kind,
            keys,
            residual,
            base: Links::new(base.is_append_only()),
            matches: counts.then(Vec::new),
            present: 0,
            nulls: 0,
            loose: Vec::new(),
        })
    }

    /// Its rows.
    pub fn rows(&self) -> &Relation {
        &self.store
    }

    /// Whether a base row appears with each of its matches.
    fn shows_matches(&self) -> bool {
        matches!(self.kind, ArmKind::Inner | ArmKind::Left)
    }

    /// Whether equal tuples may come and go at once: of rows that differ in what is not shown of them.
    pub fn may_cancel(&self) -> bool {
        self.matches.is_some() && self.shows_matches() && self.store.hides()
    }

    /// The row with which a base row appears once, whatever its matches are.
    fn stand_in(&self, matched: bool) -> Option<u32> {
        match self.kind {
            ArmKind::Inner => None,
            // The NULL row, as long as nothing matches.
            ArmKind::Left => (!matched).then_some(NONE),
            ArmKind::Semi => matched.then_some(THERE),
            ArmKind::Anti | ArmKind::NotIn => (!matched).then_some(THERE),
            ArmKind::Mark => Some(if matched { THERE } else { NOT_THERE }),
        }
    }

    /// Applies the arm's change. Returns the tuples of base and arm by which it changes the join, the other arms aside. `slot` is this arm's place among `arms`.
    pub fn apply(&mut self, change: Vec<SelectedBatch>, base: &Relation, slot: usize, arms: usize) -> Result<Tuples> {
        let change = self.store.prepared(change)?;
        let applied = self.store.apply(&change)?;
        self.index.follow(&self.store, &mut self.base)?;
        // Keys of the rows that are new. Those of removed ones are known.
        let mut start = 0;
        let mut added: Vec<(u32, u32)> = Vec::new();
        for batch in &change {
            let ids = &applied.ids[start..start + batch.num_rows()];
            start += batch.num_rows();
            let is_new = |index: &Index, id: u32| self.store.weight(id) > 0 && !index.contains(id);
            let new: Vec<(usize, u32)> =
                ids.iter().copied().enumerate().filter(|(_, id)| is_new(&self.index, *id)).collect();
            if new.is_empty() {
                continue;
            }
            // Others may have had the same rows.
            let known = new.last().map_or(Ok(true), |(_, last)| self.index.knows(*last))?;
            let keys = (!known).then(|| self.keys.of_arm(batch, &self.store)).transpose()?;
            let mut index = self.index.write()?;
            for lot in new.chunks(AHEAD) {
                index.look_ahead(lot.iter().filter_map(|(i, _)| keys.as_ref()?.key(*i)))?;
                for (i, id) in lot {
                    added.push((*id, index.key_of_row(*id, || keys.as_ref().and_then(|keys| keys.key(*i)))?));
                }
            }
        }
        // Duplicates within the epoch are one row.
        added.sort_unstable();
        added.dedup();
        // Rows of a log follow each other.
        let first = added.first().map_or(0, |(row, _)| *row);
        let dense = self.store.is_append_only();
        let added_at = |id: u32| match dense {
            true => Some(id.wrapping_sub(first) as usize).filter(|at| *at < added.len()),
            false => added.binary_search_by_key(&id, |(row, _)| *row).ok(),
        };
        // Matches are counted row by row.
        let net = if self.matches.is_none() { self.store.seen(applied.net)? } else { applied.net };
        let reader = self.index.read()?;
        let rows = reader.rows()?;
        let key_of = |id: u32| added_at(id).map_or_else(|| rows.key(id), |at| added[at].1);
        let pairs: Vec<(u32, u32, i64)> = net.iter().map(|(id, w)| (key_of(*id), *id, *w)).collect();
        let removed: Vec<(u32, u32)> = applied.removed.iter().map(|row| (*row, rows.key(*row))).collect();

        let before = self.presence();
        self.present = self.present + added.len() - removed.len();
        let nulls = |rows: &[(u32, u32)]| rows.iter().filter(|(_, key)| *key == NONE).count();
        self.nulls = self.nulls + nulls(&added) - nulls(&removed);
        // NOT IN depends on more than the key when the arm becomes empty or gets a NULL, or is so no more.
        let turns = self.kind == ArmKind::NotIn && before != self.presence();
        let stood = if turns { standing(&self.base, rows, before) } else { vec![] };

        // Whether a base row has a match is a matter of its key, where matches are not counted; an inner join does not ask.
        let mut keys: Vec<u32> = Vec::new();
        if self.kind != ArmKind::Inner && self.matches.is_none() {
            keys.extend(pairs.iter().map(|(key, ..)| *key).filter(|k| *k != NONE));
            keys.sort_unstable();
            keys.dedup();
        }
        let had: Vec<bool> = keys.iter().map(|key| rows.has(*key)).collect();
        drop(reader);
        for (row, key) in &added {
            self.index.link(*row, *key);
        }
        for lot in removed.chunks(AHEAD) {
            self.index.look_ahead_of(&lot.iter().map(|(row, _)| *row).collect::<Vec<_>>());
            for (row, key) in lot {
                self.index.unlink(*row);
                if *key != NONE {
                    self.loose.push(*key);
                }
            }
        }

        let mut affected = Tuples::new(arms);
        // Over an empty or streamed base there is nothing to change.
        if base.is_empty() {
            return Ok(affected);
        }
        if turns {
            let reader = self.index.read()?;
            let stands = standing(&self.base, reader.rows()?, self.presence());
            for ((b, stood), (_, stands)) in stood.into_iter().zip(stands) {
                if stood != stands {
                    affected.push(b, slot, THERE, if stands { base.weight(b) } else { -base.weight(b) });
                }
            }
            return Ok(affected);
        }
        if self.shows_matches() || self.residual.is_some() {
            for (key, row, weight) in pairs.into_iter().filter(|(key, ..)| *key != NONE) {
                for b in self.base.rows(key) {
                    affected.push(b, slot, row, base.weight(b) * weight);
                }
            }
        }
        if let Some(residual) = &self.residual {
            let kept = residual.passing(base, &affected.base, &self.store, &affected.arms[slot])?;
            affected = affected.pick(&kept);
        }
        // Base rows that have a match now and had none, or the other way round.
        let mut turned: Vec<(u32, bool)> = Vec::new();
        if let Some(matches) = &mut self.matches {
            let mut touched: BTreeMap<u32, u32> = BTreeMap::new();
            // A row that is added in pieces is one match.
            let mut pairs: Vec<(u32, u32)> =
                affected.base.iter().copied().zip(affected.arms[slot].iter().copied()).collect();
            pairs.sort_unstable();
            pairs.dedup();
            for (b, row) in pairs {
                let count = &mut matches[b as usize];
                if added_at(row).is_some() {
                    touched.entry(b).or_insert(*count);
                    *count += 1;
                } else if applied.removed.binary_search(&row).is_ok() {
                    touched.entry(b).or_insert(*count);
                    *count -= 1;
                }
            }
            let now = |b: u32| matches[b as usize] > 0;
            turned.extend(touched.into_iter().filter(|(b, was)| (*was > 0) != now(*b)).map(|(b, _)| (b, now(b))));
        } else if self.kind != ArmKind::Inner && !(self.kind == ArmKind::NotIn && self.nulls > 0) {
            let reader = self.index.read()?;
            let rows = reader.rows()?;
            for (key, had) in keys.into_iter().zip(had) {
                let has = rows.has(key);
                if had != has {
                    turned.extend(self.base.rows(key).map(|b| (b, has)));
                }
            }
        }
        if !self.shows_matches() {
            affected = Tuples::new(arms);
        }
        for (b, matched) in turned {
            if let Some(row) = self.stand_in(!matched) {
                affected.push(b, slot, row, -base.weight(b));
            }
            if let Some(row) = self.stand_in(matched) {
                affected.push(b, slot, row, base.weight(b));
            }
        }
        Ok(affected)
    }

    /// Whether NOT IN finds the arm empty, and whether it finds a NULL there.
    fn presence(&self) -> (bool, bool) {
        (self.present == 0, self.nulls > 0)
    }

    /// `tuples` × this arm's matches. `keys` are key ids by base row.
    pub fn expand(&self, tuples: Tuples, slot: usize, base: &Relation, keys: &Paged<u32>) -> Result<Tuples> {
        let mut picked: Vec<u32> = Vec::with_capacity(tuples.len());
        let mut rows: Vec<u32> = Vec::with_capacity(tuples.len());
        if self.shows_matches() {
            (picked, rows) = self.matching(&tuples, base, keys)?;
        }
        let mut expanded = Vec::new();
        let asks = !self.shows_matches() && self.matches.is_none() && self.residual.is_some();
        let found = if asks { self.matching(&tuples, base, keys)?.0 } else { vec![] };
        if self.kind != ArmKind::Inner {
            let mut matched = vec![false; tuples.len()];
            let reader = self.index.read()?;
            let own = reader.rows()?;
            match (&self.matches, &self.residual) {
                _ if self.shows_matches() => picked.iter().for_each(|i| matched[*i as usize] = true),
                (Some(matches), _) => {
                    tuples.base.iter().zip(&mut matched).for_each(|(b, m)| *m = matches[*b as usize] > 0);
                }
                (None, None) => {
                    let has = |key: u32| key != NONE && own.has(key);
                    tuples.base.iter().zip(&mut matched).for_each(|(b, m)| *m = has(keys[*b as usize]));
                }
                (None, Some(_)) => found.iter().for_each(|i| matched[*i as usize] = true),
            }
            if self.kind == ArmKind::NotIn {
                let presence = self.presence();
                let surely_none = |b: &u32| is_surely_none(keys[*b as usize], own, presence);
                tuples.base.iter().zip(&mut matched).for_each(|(b, m)| *m = !surely_none(b));
            }
            let alone = matched.iter().enumerate();
            expanded.extend(alone.filter_map(|(i, matched)| Some((i as u32, self.stand_in(*matched)?))));
        }
        let shown = rows.len();
        picked.extend(expanded.iter().map(|(i, _)| *i));
        rows.extend(expanded.iter().map(|(_, row)| *row));
        let mut expanded = tuples.pick(&picked);
        for (weight, row) in expanded.weights.iter_mut().zip(&rows[..shown]) {
            *weight = weight
                .checked_mul(self.store.weight(*row))
                .ok_or_else(|| Error::user("overflow", "a row occurs more than 2^63 times"))?;
        }
        Ok(expanded.with_arm(slot, rows))
    }

    /// The arm's rows that `tuples` match, and by which tuple.
    fn matching(&self, tuples: &Tuples, base: &Relation, keys: &Paged<u32>) -> Result<(Vec<u32>, Vec<u32>)> {
        let mut picked: Vec<u32> = Vec::with_capacity(tuples.len());
        let mut rows: Vec<u32> = Vec::with_capacity(tuples.len());
        let reader = self.index.read()?;
        let own = reader.rows()?;
        for (i, b) in tuples.base.iter().enumerate() {
            let key = keys[*b as usize];
            if key == NONE {
                continue;
            }
            for row in own.of(key) {
                picked.push(i as u32);
                rows.push(row);
            }
        }
        drop(reader);
        if let Some(residual) = &self.residual {
            let lefts: Vec<u32> = picked.iter().map(|i| tuples.base[*i as usize]).collect();
            let kept = residual.passing(base, &lefts, &self.store, &rows)?;
            picked = kept.iter().map(|k| picked[*k as usize]).collect();
            rows = kept.iter().map(|k| rows[*k as usize]).collect();
        }
        Ok((picked, rows))
    }

    /// Remembers the keys of base rows; `ids` are the rows of `change`, batches one after the other.
    pub fn link_base(&mut self, change: &[SelectedBatch], ids: &[u32], base: &Relation) -> Result<()> {
        let mut start = 0;
        let mut linked: Vec<(u32, Weight)> = Vec::new();
        for batch in change {
            let ids = &ids[start..start + batch.num_rows()];
            start += batch.num_rows();
            // A row that came and went within the epoch has no part in it.
            let is_new = |links: &Links, id: u32| base.weight(id) > 0 && !links.contains(id);
            if !ids.iter().any(|id| is_new(&self.base, *id)) {
                continue;
            }
            let keys = self.keys.of_base(batch, base)?;
            let mut index = self.index.write()?;
            for (i, id) in ids.iter().enumerate() {
                if i % AHEAD == 0 {
                    let lot = i..ids.len().min(i + AHEAD);
                    index.look_ahead(lot.filter_map(|i| keys.key(i)))?;
                }
                if is_new(&self.base, *id) {
                    let key = index.key_of_base(keys.key(i))?;
                    self.base.link(*id, key);
                    if self.matches.is_some() {
                        linked.push((*id, 1));
                    }
                }
            }
        }
        if self.matches.is_some() && !linked.is_empty() {
            let tuples = Tuples::of_base(linked, 0);
            let (matching, _) = self.matching(&tuples, base, self.base.keys())?;
            if let Some(matches) = &mut self.matches {
                matches.resize(self.base.keys().len(), 0);
                matching.iter().for_each(|i| matches[tuples.base[*i as usize] as usize] += 1);
            }
        }
        Ok(())
    }

    /// Forgets base rows that are no more.
    pub fn unlink_base(&mut self, rows: &[u32]) {
        for lot in rows.chunks(AHEAD) {
            self.base.look_ahead_of(lot);
            lot.iter().for_each(|row| self.unlink_base_row(*row));
        }
    }

    fn unlink_base_row(&mut self, row: u32) {
        let key = self.base.keys()[row as usize];
        self.base.unlink(row);
        if let Some(matches) = &mut self.matches {
            matches[row as usize] = 0;
        }
        if key != NONE {
            self.loose.push(key);
        }
    }

    /// Key ids by base row.
    pub fn base_keys(&self) -> &Paged<u32> {
        self.base.keys()
    }

    /// Key ids of base rows that are not kept; [`UNKNOWN`] where no arm row has the key.
    pub fn find_base_keys(&mut self, change: &[SelectedBatch], base: &Relation) -> Result<Paged<u32>> {
        let mut found = Paged::default();
        for batch in change {
            let keys = self.keys.of_base(batch, base)?;
            let mut index = self.index.write()?;
            for i in 0..batch.num_rows() {
                if i % AHEAD == 0 {
                    index.look_ahead((i..batch.num_rows().min(i + AHEAD)).filter_map(|i| keys.key(i)))?;
                }
                found.push(match keys.key(i) {
                    None => NONE,
                    Some(key) => Some(index.find(key)?).filter(|key| *key != NONE).unwrap_or(UNKNOWN),
                });
            }
        }
        Ok(found)
    }

    /// What it shows of `rows`.
    pub fn columns(&self, rows: &[u32]) -> Result<Vec<ArrayRef>> {
        if self.kind == ArmKind::Mark {
            return Ok(vec![Arc::new(rows.iter().map(|row| Some(*row == THERE)).collect::<BooleanArray>())]);
        }
        if !self.shows_matches() {
            return Ok(vec![]);
        }
        self.store.columns(rows, &(0..self.width).collect::<Vec<_>>())
    }

    /// Frees what died in this epoch.
    pub fn sweep(&mut self) -> Result<()> {
        self.index.sweep(std::mem::take(&mut self.loose), &self.base)?;
        self.store.sweep()
    }

    pub fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        self.store.save(out)?;
        self.index.save(&mut self.base, out)?;
        if let Some(matches) = &self.matches {
            out.words("matches", matches.iter().copied());
        }
        Ok(())
    }

    /// `base`: the ids that rows of the base have now, where those are others than they were.
    pub fn restore(&mut self, from: &mut StateReader, base: Option<&[u32]>) -> Result<()> {
        let rows = self.store.restore(from)?;
        self.index.follow(&self.store, &mut self.base)?;
        let (links, counted) = self.index.restore(from, &self.base, base, rows.as_deref())?;
        self.base = links;
        if let Some(matches) = &mut self.matches {
            let stored: Vec<u32> = from.exactly("matches", counted)?;
            *matches = match base {
                None => stored,
                Some(now) => {
                    let mut matches = vec![0; self.base.keys().len()];
                    for (now, count) in now.iter().zip(stored).filter(|(now, _)| **now != NONE) {
                        matches[*now as usize] = count;
                    }
                    matches
                }
            };
            matches.resize(self.base.keys().len(), 0);
        }
        let reader = self.index.read()?;
        let keys = || reader.rows().map(|rows| rows.iter());
        (self.present, self.nulls) = (keys()?.count(), keys()?.filter(|(_, key)| *key == NONE).count());
        Ok(())
    }

    pub fn state_rows(&self) -> usize {
        self.store.len()
    }

    pub fn state_bytes(&self) -> usize {
        let matches = self.matches.as_ref().map_or(0, |matches| matches.capacity() * 4);
        self.store.heap_size() + self.index.heap_size() + self.base.heap_size() + matches
    }
}

/// Whether a base row with this key appears under NOT IN.
fn is_surely_none(key: u32, rows: Linked<'_>, (empty, nulls): (bool, bool)) -> bool {
    empty || (!nulls && key != NONE && !rows.has(key))
}

/// All rows of `base`, and whether they appear under NOT IN.
fn standing(base: &Links, rows: Linked<'_>, presence: (bool, bool)) -> Vec<(u32, bool)> {
    base.iter().map(|(b, key)| (b, is_surely_none(key, rows, presence))).collect()
}

/// The equal pairs of an arm's ON.
struct Keys {
    base: NarrowExprs,
    arm: NarrowExprs,
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
        let base = NarrowExprs::new(plan.on.iter().map(|(l, _)| l), base, session)?;
        let arm = NarrowExprs::new(plan.on.iter().map(|(_, r)| r), plan.input.schema(), session)?;
        let common = |(l, r): (&DataType, &DataType)| {
            if l == r {
                return Ok(l.clone());
            }
            comparison_coercion(l, r).ok_or_else(|| Error::user("join-key", format!("{l} and {r} cannot be compared")))
        };
        let types = base.types().iter().zip(arm.types()).map(common).collect::<Result<Vec<_>>>()?;
        let codec = RowCodec::new(types.iter().cloned())?;
        let null_equals_null = plan.null_equality == NullEquality::NullEqualsNull;
        Ok(Keys { base, arm, types, codec, null_equals_null })
    }

    /// Equal for equal keys of rows that other joins look into, too.
    fn name(&self, arm: &Node) -> String {
        match arm {
            Node::Arranged { arrangement, .. } => format!("{:?} {:?}", arrangement.key, self.types),
            _ => String::new(),
        }
    }

    /// Of rows that come to `base`.
    fn of_base(&self, rows: &SelectedBatch, base: &Relation) -> Result<BatchKeys> {
        self.of(&self.base, rows, base)
    }

    /// Of rows that come to `arm`.
    fn of_arm(&self, rows: &SelectedBatch, arm: &Relation) -> Result<BatchKeys> {
        self.of(&self.arm, rows, arm)
    }

    fn of(&self, exprs: &NarrowExprs, rows: &SelectedBatch, kept: &Relation) -> Result<BatchKeys> {
        let columns = rows.columns(&kept.places(&exprs.columns))?;
        self.keys(exprs.evaluate(&columns)?, rows.num_rows())
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

    /// None: it matches nothing.
    fn key(&self, row: usize) -> Option<&[u8]> {
        (!self.matches_nothing(row)).then(|| self.encoded.row(row))
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
        let (columns, narrow) = narrowed([expr], &all)?;
        let width = base.fields().len();
        let schema: Schema = arrow_schema(&narrow).as_ref().clone();
        Ok(Residual {
            predicate: Predicate::new(expr, &narrow, session)?,
            base_columns: columns.iter().copied().filter(|i| *i < width).collect(),
            arm_columns: columns.iter().copied().filter(|i| *i >= width).map(|i| i - width).collect(),
            schema: Arc::new(schema),
        })
    }

    /// Indices of the pairs for which the condition is TRUE.
    fn passing(&self, base: &Relation, base_rows: &[u32], arm: &Relation, arm_rows: &[u32]) -> Result<Vec<u32>> {
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

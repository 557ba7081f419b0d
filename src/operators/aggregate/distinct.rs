//! DISTINCT: how often each value is there, and an aggregate over those that are.
//!
//! The aggregate sees a value when its first row comes, and loses it when its last one goes: a change costs what it changes, however many
//! values there are. The values of all groups stand in one hash table, each behind the number of its group.

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, UInt32Type};
use std::sync::Arc;

use super::calls::{Change, GroupStates, left_over};
use crate::error::{Error, Result};
use crate::state::{GroupIndex, NONE, Narrow, RowCodec, StateReader, StateWriter};

pub(super) struct Distinct {
    /// Of group and value.
    codec: RowCodec,
    values: GroupIndex,
    /// Rows by value.
    weights: Narrow,
    /// Values by group.
    counts: Narrow,
    over: Box<dyn GroupStates>,
}

impl Distinct {
    /// Of an aggregate with one argument, which does not see NULLs.
    pub fn new(argument: DataType, over: Box<dyn GroupStates>) -> Result<Self> {
        Ok(Distinct {
            codec: RowCodec::new([DataType::UInt32, argument])?,
            values: GroupIndex::new(),
            weights: Narrow::default(),
            counts: Narrow::default(),
            over,
        })
    }

    /// Adds to the weight of a value: +1 if it has come, −1 if it has gone, 0 if it stays.
    fn add(&mut self, value: &[u8], weight: i64) -> Result<i64> {
        let id = if weight > 0 { self.values.intern_one(value)? } else { self.values.find_one(value) };
        if id as usize >= self.weights.len() && id != NONE {
            self.weights.resize(self.values.bound());
        }
        let after = if id == NONE { weight } else { self.weights.add(id as usize, weight) };
        if after < 0 {
            return Err(Error::diverged("aggregate: a value is retracted that is not there"));
        }
        if after == 0 {
            self.values.remove(id);
        }
        Ok(i64::from(after != 0) - i64::from(after != weight))
    }
}

impl GroupStates for Distinct {
    fn grow(&mut self, bound: usize) {
        self.counts.resize(bound);
        self.over.grow(bound);
    }

    /// So a change brings values, or takes them away, never both.
    fn is_ordered(&self) -> bool {
        true
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        let numbers: ArrayRef = Arc::new(UInt32Array::from(change.groups.to_vec()));
        let encoded = self.codec.encode(&[numbers, Arc::clone(&change.args[0])], change.groups.len())?;
        let (mut rows, mut groups, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (i, group, weight) in change.present() {
            let sign = self.add(encoded.row(i), weight)?;
            if sign != 0 {
                self.counts.add(group, sign);
                rows.push(i as u32);
                groups.push(group as u32);
                weights.push(sign);
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        if self.values.is_empty() {
            (self.values, self.weights) = (GroupIndex::new(), Narrow::default());
        }
        let args: Vec<ArrayRef> = if rows.len() == change.groups.len() {
            change.args.to_vec()
        } else {
            let rows = UInt32Array::from(rows);
            change.args.iter().map(|arg| Ok(take(arg, &rows, None)?)).collect::<Result<_>>()?
        };
        debug_assert!(args.iter().all(|arg| arg.len() == groups.len()));
        self.over.update(&Change { groups: &groups, weights: &weights, args: &args })
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        self.over.evaluate(groups)
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        if self.counts.get(group as usize) != 0 {
            return Err(left_over());
        }
        self.over.clear(group)
    }

    fn keep(&mut self, groups: &[u32]) -> Result<()> {
        let mut numbers = vec![NONE; self.counts.len()];
        groups.iter().zip(0..).for_each(|(old, new)| numbers[*old as usize] = new);
        let (mut values, mut weights) = (GroupIndex::new(), Narrow::default());
        // So many are decoded at once.
        for ids in self.values.ids().chunks(8_192) {
            let mut columns = self.codec.decode(ids.iter().map(|id| self.values.key(*id)))?;
            let renumbered: UInt32Array = columns[0].as_primitive::<UInt32Type>().unary(|old| numbers[old as usize]);
            columns[0] = Arc::new(renumbered.clone());
            let encoded = self.codec.encode(&columns, ids.len())?;
            for (i, id) in ids.iter().enumerate().filter(|(i, _)| renumbered.value(*i) != NONE) {
                values.intern_one(encoded.row(i))?;
                weights.push(self.weights.get(*id as usize));
            }
        }
        (self.values, self.weights, self.counts) = (values, weights, self.counts.picked(groups));
        self.over.keep(groups)
    }

    fn rows(&self) -> usize {
        self.values.len() + self.over.rows()
    }

    fn bytes(&self) -> usize {
        self.values.heap_size() + self.weights.heap_size() + self.counts.heap_size() + self.over.bytes()
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        self.values.save(out);
        self.weights.save("distinct.weights", out);
        self.counts.save("distinct.counts", out);
        self.over.save(out)
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        self.values = GroupIndex::restore(from)?;
        // An id that no value has yet has no weight yet either.
        self.weights = Narrow::restore("distinct.weights", self.values.bound(), from)?;
        self.counts = Narrow::restore("distinct.counts", bound, from)?;
        self.over.restore(from, bound)
    }
}

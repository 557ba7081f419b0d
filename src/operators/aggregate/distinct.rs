//! DISTINCT: how often each value is there, and an aggregate over those that are.
//!
//! The aggregate sees a value when its first row comes, and loses it when its last one goes: a change costs what it changes, however many
//! values there are.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;

use super::calls::{Change, GroupStates};
use super::multisets::Multisets;
use crate::error::Result;
use crate::state::{Presence, RowCodec, StateReader, StateWriter};

pub(super) struct Distinct {
    codec: RowCodec,
    values: Multisets,
    over: Box<dyn GroupStates>,
}

impl Distinct {
    /// Of an aggregate with one argument, which does not see NULLs.
    pub fn new(argument: DataType, over: Box<dyn GroupStates>) -> Result<Self> {
        Ok(Distinct { codec: RowCodec::new([argument])?, values: Multisets::default(), over })
    }
}

impl GroupStates for Distinct {
    fn grow(&mut self, bound: usize) {
        self.values.grow(bound);
        self.over.grow(bound);
    }

    /// So a change brings values, or takes them away, never both.
    fn is_ordered(&self) -> bool {
        true
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        let encoded = self.codec.encode(change.args, change.groups.len())?;
        let (mut rows, mut groups, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (i, group, weight) in change.present() {
            let sign = match self.values.add(group, encoded.row(i), weight)? {
                Presence::Appeared => 1,
                Presence::Vanished => -1,
                Presence::Stays(_) => continue,
            };
            rows.push(i as u32);
            groups.push(group as u32);
            weights.push(sign);
        }
        if rows.is_empty() {
            return Ok(());
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
        self.values.clear(group)?;
        self.over.clear(group)
    }

    fn rows(&self) -> usize {
        self.values.rows() + self.over.rows()
    }

    fn bytes(&self) -> usize {
        self.values.heap_size() + self.over.bytes()
    }

    fn save(&self, out: &mut StateWriter) -> Result<()> {
        self.values.save("distinct", out);
        self.over.save(out)
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        self.values = Multisets::restore("distinct", from, bound)?;
        self.over.restore(from, bound)
    }
}

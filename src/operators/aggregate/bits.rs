//! bit_and and bit_or: how many values have each bit.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use super::calls::{Change, GroupStates, left_over, picked};
use crate::error::{Error, Result};
use crate::functions::{bits_as, for_each_integer};
use crate::state::{Narrow, StateReader, StateWriter};

pub(super) struct Bits {
    /// A bit of the result is one that all values have (bit_and), or any (bit_or).
    all: bool,
    output: DataType,
    /// Values that are not NULL, by group.
    values: Narrow,
    /// By group, of each bit the number of values that have it, up to the highest that any has had.
    ones: Vec<Vec<i64>>,
    /// Bytes of these counts.
    heap: usize,
}

impl Bits {
    pub fn new(all: bool, output: DataType) -> Self {
        Bits { all, output, values: Narrow::default(), ones: Vec::new(), heap: 0 }
    }

    /// The bits of the type.
    fn mask(&self) -> i64 {
        let bits = self.output.primitive_width().unwrap_or(8) as u32 * 8;
        if bits >= 64 { -1 } else { (1 << bits) - 1 }
    }

    fn value(&self, group: u32) -> i64 {
        let values = self.values.get(group as usize);
        let bits = self.ones[group as usize].iter().enumerate();
        bits.filter(|(_, ones)| if self.all { **ones == values } else { **ones > 0 })
            .fold(0, |value, (bit, _)| value | 1 << bit)
    }
}

impl GroupStates for Bits {
    fn grow(&mut self, bound: usize) {
        self.values.resize(bound);
        self.ones.resize_with(bound, Vec::new);
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        let mask = self.mask();
        let (values, all_ones, heap) = (&mut self.values, &mut self.ones, &mut self.heap);
        for_each_integer(&change.args[0], |row, value| {
            let weight = change.weights[row];
            if weight == 0 {
                return;
            }
            let group = change.groups[row] as usize;
            values.add(group, weight);
            let (ones, mut bits) = (&mut all_ones[group], value & mask);
            let width = 64 - bits.leading_zeros() as usize;
            if ones.len() < width {
                let before = ones.capacity();
                ones.resize(width, 0);
                *heap += (ones.capacity() - before) * size_of::<i64>();
            }
            while bits != 0 {
                ones[bits.trailing_zeros() as usize] += weight;
                bits &= bits.wrapping_sub(1);
            }
        })?;
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let null = ScalarValue::try_from(&self.output)?;
        if groups.is_empty() {
            return Ok(null.to_array_of_size(0)?);
        }
        let value = |group: &u32| match self.values.get(*group as usize) {
            0 => Ok(null.clone()),
            _ => bits_as(self.value(*group), &self.output),
        };
        let values: Vec<ScalarValue> = groups.iter().map(value).collect::<Result<_, _>>()?;
        Ok(ScalarValue::iter_to_array(values)?)
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        let ones = std::mem::take(&mut self.ones[group as usize]);
        self.heap -= ones.capacity() * size_of::<i64>();
        let empty = self.values.get(group as usize) == 0 && ones.iter().all(|ones| *ones == 0);
        if empty { Ok(()) } else { Err(left_over()) }
    }

    fn keep(&mut self, groups: &[u32]) -> Result<()> {
        self.values = self.values.picked(groups);
        self.ones = picked(&mut self.ones, groups);
        self.heap = self.ones.iter().map(|ones| ones.capacity() * size_of::<i64>()).sum();
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.values.heap_size() + self.ones.capacity() * size_of::<Vec<i64>>() + self.heap
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        self.values.save("bits.values", out);
        out.words("bits.width", self.ones.iter().map(|ones| ones.len() as u32));
        out.words("bits.ones", self.ones.iter().flatten().copied());
        Ok(())
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        self.values = Narrow::restore("bits.values", bound, from)?;
        let widths = from.exactly::<u32>("bits.width", bound)?;
        let ones = from.exactly::<i64>("bits.ones", widths.iter().map(|width| *width as usize).sum())?;
        if widths.iter().any(|width| *width > 64) {
            return Err(Error::internal("stored bits are wider than any integer"));
        }
        let mut ones = ones.into_iter();
        self.ones = widths.iter().map(|width| ones.by_ref().take(*width as usize).collect()).collect();
        self.heap = self.ones.iter().map(|ones| ones.capacity() * size_of::<i64>()).sum();
        Ok(())
    }
}

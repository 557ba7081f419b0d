//! min and max: the values of each group, in order.

use arrow::array::{ArrayRef, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::DataType;

use super::calls::{Change, GroupStates, left_over};
use crate::error::{Error, Result};
use crate::state::{Multiset, Presence, RowCodec, StateReader, StateWriter};

/// Values order as ORDER BY orders them; NaN is the largest number.
pub(super) struct Extremes {
    codec: RowCodec,
    argument: DataType,
    largest: bool,
    values: Vec<Multiset>,
    rows: usize,
    bytes: usize,
}

impl Extremes {
    pub fn smallest(argument: DataType) -> Result<Self> {
        Self::new(argument, false)
    }

    pub fn largest(argument: DataType) -> Result<Self> {
        Self::new(argument, true)
    }

    fn new(argument: DataType, largest: bool) -> Result<Self> {
        let codec = RowCodec::new([argument.clone()])?;
        Ok(Extremes { codec, argument, largest, values: Vec::new(), rows: 0, bytes: 0 })
    }
}

impl GroupStates for Extremes {
    fn grow(&mut self, bound: usize) {
        self.values.resize_with(bound, Multiset::default);
    }

    fn is_ordered(&self) -> bool {
        true
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        let encoded = self.codec.encode(change.args, change.groups.len())?;
        for (i, group, weight) in change.present() {
            let value = encoded.row(i);
            match self.values[group].add(value, weight) {
                Presence::Appeared if weight > 0 => {
                    self.rows += 1;
                    self.bytes += Multiset::value_size(value.len());
                }
                Presence::Vanished => {
                    self.rows -= 1;
                    self.bytes -= Multiset::value_size(value.len());
                }
                Presence::Stays(left) if left > 0 => {}
                _ => return Err(Error::diverged("min/max: a value is retracted that is not there")),
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let mut found: Vec<&[u8]> = Vec::with_capacity(groups.len());
        let mut places: Vec<Option<u32>> = Vec::with_capacity(groups.len());
        for group in groups {
            let values = &self.values[*group as usize];
            let value = if self.largest { values.last() } else { values.first() };
            places.push(value.map(|_| found.len() as u32));
            found.extend(value);
        }
        if found.is_empty() {
            return Ok(new_null_array(&self.argument, groups.len()));
        }
        let values = self.codec.decode(found)?.swap_remove(0);
        Ok(take(&values, &UInt32Array::from(places), None)?)
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        if self.values[group as usize].is_empty() { Ok(()) } else { Err(left_over()) }
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<Multiset>() + self.bytes
    }

    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.multisets("extremes", &self.values);
        Ok(())
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        self.values = from.multisets("extremes", bound)?;
        self.rows = self.values.iter().map(Multiset::len).sum();
        self.bytes = self.values.iter().map(Multiset::bytes).sum();
        Ok(())
    }
}

//! min and max: the values of each group, in order; where nothing is ever retracted, only the one that counts.

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::DataType;

use super::calls::{Change, GroupStates};
use super::kept::Kept;
use crate::error::Result;
use crate::state::{RowCodec, StateReader, StateWriter};

/// Values order as ORDER BY orders them; NaN is the largest number.
pub(super) struct Extremes {
    codec: RowCodec,
    argument: DataType,
    largest: bool,
    kept: Kept,
}

impl Extremes {
    pub fn new(argument: DataType, largest: bool, append_only: bool) -> Result<Self> {
        let codec = RowCodec::new([argument.clone()])?;
        let kept = if append_only { Kept::best(largest) } else { Kept::all() };
        Ok(Extremes { codec, argument, largest, kept })
    }
}

/// Values found for groups, as a column: `values[i]` decoded, NULL where there is none. `column` of the decoded ones is wanted.
pub(super) fn decoded(
    values: &[Option<&[u8]>],
    codec: &RowCodec,
    column: usize,
    data_type: &DataType,
) -> Result<ArrayRef> {
    let found: Vec<&[u8]> = values.iter().flatten().copied().collect();
    if found.is_empty() {
        return Ok(new_null_array(data_type, values.len()));
    }
    let all = found.len() == values.len();
    let decoded = codec.decode(found)?.swap_remove(column);
    if all {
        return Ok(decoded);
    }
    let mut next = 0..decoded.len() as u32;
    let places: UInt32Array = values.iter().map(|value| value.and_then(|_| next.next())).collect();
    Ok(take(&decoded, &places, None)?)
}

impl GroupStates for Extremes {
    fn grow(&mut self, bound: usize) {
        self.kept.grow(bound);
    }

    fn is_ordered(&self) -> bool {
        true
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        let encoded = self.codec.encode(change.args, change.groups.len())?;
        change.present().try_for_each(|(i, group, weight)| self.kept.add(group, encoded.row(i), weight))
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let kept = &self.kept;
        let value = |group: &u32| if self.largest { kept.last(*group) } else { kept.first(*group) };
        let values: Vec<Option<&[u8]>> = groups.iter().map(value).collect();
        decoded(&values, &self.codec, 0, &self.argument)
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        self.kept.clear(group)
    }

    fn keep(&mut self, groups: &[u32]) -> Result<()> {
        self.kept.keep(groups);
        Ok(())
    }

    fn rows(&self) -> usize {
        self.kept.rows()
    }

    fn bytes(&self) -> usize {
        self.kept.heap_size()
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        self.kept.save("extremes", out);
        Ok(())
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        self.kept.restore("extremes", from, bound)
    }
}

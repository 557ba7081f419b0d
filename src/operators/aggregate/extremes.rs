//! min and max: the values of each group, in order; where nothing is ever retracted, only the one that counts.

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::DataType;

use super::calls::{Change, GroupStates};
use super::multisets::Multisets;
use crate::error::{Error, Result};
use crate::state::{RowCodec, StateReader, StateWriter};

/// Values order as ORDER BY orders them; NaN is the largest number.
pub(super) struct Extremes {
    codec: RowCodec,
    argument: DataType,
    largest: bool,
    kept: Kept,
}

enum Kept {
    All(Multisets),
    /// Over append-only input. An empty one stands for no value: no value is encoded as no bytes.
    Best {
        values: Vec<Box<[u8]>>,
        bytes: usize,
    },
}

impl Extremes {
    pub fn new(argument: DataType, largest: bool, append_only: bool) -> Result<Self> {
        let codec = RowCodec::new([argument.clone()])?;
        let kept = match append_only {
            true => Kept::Best { values: Vec::new(), bytes: 0 },
            false => Kept::All(Multisets::default()),
        };
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
        match &mut self.kept {
            Kept::All(values) => values.grow(bound),
            Kept::Best { values, .. } => values.resize_with(bound, Box::default),
        }
    }

    fn is_ordered(&self) -> bool {
        true
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        let encoded = self.codec.encode(change.args, change.groups.len())?;
        for (i, group, weight) in change.present() {
            let value = encoded.row(i);
            match &mut self.kept {
                Kept::All(values) => {
                    values.add(group, value, weight)?;
                }
                Kept::Best { .. } if weight < 0 => {
                    return Err(Error::diverged("min/max: append-only input retracts a value"));
                }
                Kept::Best { values, bytes } => {
                    let kept = &mut values[group];
                    if kept.is_empty() || (value > &**kept) == self.largest && value != &**kept {
                        *bytes = *bytes + value.len() - kept.len();
                        *kept = value.into();
                    }
                }
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let value = |group: &u32| match &self.kept {
            Kept::All(values) if self.largest => values.get(*group).last(),
            Kept::All(values) => values.get(*group).first(),
            Kept::Best { values, .. } => Some(&*values[*group as usize]).filter(|value| !value.is_empty()),
        };
        let values: Vec<Option<&[u8]>> = groups.iter().map(value).collect();
        decoded(&values, &self.codec, 0, &self.argument)
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        match &mut self.kept {
            Kept::All(values) => values.clear(group),
            Kept::Best { values, bytes } => {
                *bytes -= std::mem::take(&mut values[group as usize]).len();
                Ok(())
            }
        }
    }

    fn rows(&self) -> usize {
        match &self.kept {
            Kept::All(values) => values.rows(),
            Kept::Best { .. } => 0,
        }
    }

    fn bytes(&self) -> usize {
        match &self.kept {
            Kept::All(values) => values.heap_size(),
            Kept::Best { values, bytes } => values.capacity() * size_of::<Box<[u8]>>() + bytes,
        }
    }

    fn save(&self, out: &mut StateWriter) -> Result<()> {
        match &self.kept {
            Kept::All(values) => values.save("extremes", out),
            Kept::Best { values, .. } => out.strings("extreme", values.iter().map(|value| &**value)),
        }
        Ok(())
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        self.kept = match &self.kept {
            Kept::All(_) => Kept::All(Multisets::restore("extremes", from, bound)?),
            Kept::Best { .. } => {
                let stored = from.strings("extreme")?;
                if stored.len() != bound {
                    return Err(Error::internal("stored extremes are not those of the groups"));
                }
                let values: Vec<Box<[u8]>> = stored.iter().map(Box::from).collect();
                let bytes = values.iter().map(|value| value.len()).sum();
                Kept::Best { values, bytes }
            }
        };
        Ok(())
    }
}

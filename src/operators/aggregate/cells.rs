//! Aggregates of an exact total: variances, covariances, correlations, regressions, bit_xor, try_sum.
//!
//! The totals are those of the bulk functions ([`crate::functions`]), and so is what is made of them: the same rows give the same bits.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use super::calls::{Change, GroupStates, left_over, picked};
use crate::error::{Error, Result};
use crate::functions::{Finish, Total};
use crate::state::{StateReader, StateWriter};

/// Total and number of the rows whose arguments are all there.
#[derive(Clone, Default)]
struct Cell<T> {
    total: T,
    rows: i64,
}

pub(super) struct Cells<T> {
    cells: Vec<Cell<T>>,
    finish: Finish,
    /// Of no rows.
    null: ScalarValue,
    /// Bytes of the totals on the heap.
    heap: usize,
}

impl<T: Total> Cells<T> {
    pub fn new(finish: Finish, output: &DataType) -> Result<Self> {
        Ok(Cells { cells: Vec::new(), finish, null: ScalarValue::try_from(output)?, heap: 0 })
    }
}

impl<T: Total> GroupStates for Cells<T> {
    fn grow(&mut self, bound: usize) {
        self.cells.resize_with(bound, Cell::default);
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        let (cells, heap) = (&mut self.cells, &mut self.heap);
        T::for_each(change.args, |row, value| {
            let weight = change.weights[row];
            if weight != 0 {
                let cell = &mut cells[change.groups[row] as usize];
                let before = cell.total.heap_size();
                cell.total.add(value, weight);
                cell.rows += weight;
                *heap = *heap + cell.total.heap_size() - before;
            }
        })?;
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        if groups.is_empty() {
            return Ok(self.null.to_array_of_size(0)?);
        }
        let value = |group: &u32| {
            let cell = &self.cells[*group as usize];
            if cell.rows == 0 { Ok(self.null.clone()) } else { cell.total.finish(cell.rows, &self.finish) }
        };
        let values: Vec<ScalarValue> = groups.iter().map(value).collect::<Result<_, _>>()?;
        Ok(ScalarValue::iter_to_array(values)?)
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        let cell = std::mem::take(&mut self.cells[group as usize]);
        self.heap -= cell.total.heap_size();
        if cell.total.is_zero() && cell.rows == 0 { Ok(()) } else { Err(left_over()) }
    }

    fn keep(&mut self, groups: &[u32]) -> Result<()> {
        self.cells = picked(&mut self.cells, groups);
        self.heap = self.cells.iter().map(|cell| cell.total.heap_size()).sum();
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.cells.capacity() * size_of::<Cell<T>>() + self.heap
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        let mut lengths = Vec::with_capacity(self.cells.len());
        let mut bytes = Vec::new();
        for cell in &self.cells {
            let start = bytes.len();
            // Ids that wait for a group have nothing.
            if cell.rows != 0 || !cell.total.is_zero() {
                cell.total.write_bytes(&mut bytes);
            }
            lengths.push((bytes.len() - start) as u32);
        }
        out.words("totals", lengths);
        out.bytes("totals", bytes);
        out.words("totals.rows", self.cells.iter().map(|cell| cell.rows));
        Ok(())
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        let totals = from.strings("totals")?;
        let rows = from.exactly::<i64>("totals.rows", bound)?;
        let total = |bytes: &[u8]| if bytes.is_empty() { Some(T::default()) } else { T::from_bytes(bytes) };
        let cell = |(bytes, rows): (&[u8], i64)| Some(Cell { total: total(bytes)?, rows });
        let cells: Option<Vec<Cell<T>>> = totals.iter().zip(rows).map(cell).collect();
        self.cells = cells
            .filter(|cells| cells.len() == bound)
            .ok_or_else(|| Error::internal("stored totals are no totals of this version"))?;
        self.heap = self.cells.iter().map(|cell| cell.total.heap_size()).sum();
        Ok(())
    }
}

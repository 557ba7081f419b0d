//! The accumulators: one group ([`One`]), or all groups of a hash aggregation ([`Groups`]).
//!
//! A group's state is its total, as bytes, and its number of rows that are not NULL; a sum of none is NULL.

use super::total::{Finish, Total};
use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use std::sync::Arc;

#[derive(Debug, Clone, Default)]
struct Cell<T> {
    total: T,
    rows: i64,
}

impl<T: Total> Cell<T> {
    fn finish(&self, finish: &Finish, null: &ScalarValue) -> Result<ScalarValue> {
        if self.rows == 0 { Ok(null.clone()) } else { self.total.finish(self.rows, finish) }
    }

    fn merge(&mut self, bytes: &[u8], rows: i64) -> Result<()> {
        let Some(total) = T::from_bytes(bytes) else {
            return internal_err!("the state of a sum is damaged");
        };
        self.total.merge(&total);
        self.rows += rows;
        Ok(())
    }
}

/// The two state columns.
pub fn state_fields(name: &str) -> Vec<FieldRef> {
    vec![
        Arc::new(Field::new(format_state_name(name, "total"), DataType::Binary, true)),
        Arc::new(Field::new(format_state_name(name, "rows"), DataType::Int64, true)),
    ]
}

/// Accumulates one group; also over sliding window frames.
#[derive(Debug)]
pub struct One<T> {
    cell: Cell<T>,
    finish: Finish,
    null: ScalarValue,
}

impl<T: Total> One<T> {
    pub fn new(finish: Finish, data_type: &DataType) -> Result<Self> {
        Ok(One { cell: Cell::default(), finish, null: ScalarValue::try_from(data_type)? })
    }

    fn add(&mut self, values: &[ArrayRef], weight: i64) -> Result<()> {
        T::for_each(values, |_, value| {
            self.cell.total.add(value, weight);
            self.cell.rows += weight;
        })
    }
}

impl<T: Total> Accumulator for One<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(values, 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(values, -1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.cell.finish(&self.finish, &self.null)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.cell.total.heap_size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut bytes = Vec::new();
        self.cell.total.write_bytes(&mut bytes);
        Ok(vec![ScalarValue::Binary(Some(bytes)), ScalarValue::Int64(Some(self.cell.rows))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for_each_state(states, |_, bytes, rows| self.cell.merge(bytes, rows))
    }
}

fn for_each_state(states: &[ArrayRef], mut each: impl FnMut(usize, &[u8], i64) -> Result<()>) -> Result<()> {
    let [totals, rows] = states else { return internal_err!("the state of a sum has two columns") };
    let (totals, rows) = (totals.as_binary::<i32>(), rows.as_primitive::<Int64Type>());
    for i in 0..totals.len() {
        if totals.is_valid(i) && rows.is_valid(i) {
            each(i, totals.value(i), rows.value(i))?;
        }
    }
    Ok(())
}

/// Accumulates the groups of a hash aggregation.
#[derive(Debug)]
pub struct Groups<T> {
    cells: Vec<Cell<T>>,
    finish: Finish,
    null: ScalarValue,
    /// Bytes of the totals on the heap, as of the last batch.
    heap: usize,
}

impl<T: Total> Groups<T> {
    pub fn new(finish: Finish, data_type: &DataType) -> Result<Self> {
        Ok(Groups { cells: Vec::new(), finish, null: ScalarValue::try_from(data_type)?, heap: 0 })
    }

    fn remeasure(&mut self) {
        // A total's size depends on the spread of its addends only, so a sample tells.
        let sample = self.cells.len().min(64);
        let heap: usize = self.cells[..sample].iter().map(|c| c.total.heap_size()).sum();
        self.heap = heap * self.cells.len() / sample.max(1);
    }
}

fn accepted(filter: Option<&BooleanArray>, row: usize) -> bool {
    filter.is_none_or(|f| f.is_valid(row) && f.value(row))
}

impl<T: Total> GroupsAccumulator for Groups<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.cells.resize_with(total_groups, Cell::default);
        T::for_each(values, |row, value| {
            if accepted(filter, row) {
                let cell = &mut self.cells[groups[row]];
                cell.total.add(value, 1);
                cell.rows += 1;
            }
        })?;
        self.remeasure();
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let cells = emit.take_needed(&mut self.cells);
        self.remeasure();
        if cells.is_empty() {
            return self.null.to_array_of_size(0);
        }
        let values = cells.iter().map(|c| c.finish(&self.finish, &self.null)).collect::<Result<Vec<_>>>()?;
        ScalarValue::iter_to_array(values)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let cells = emit.take_needed(&mut self.cells);
        self.remeasure();
        Ok(states(cells.iter()))
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.cells.resize_with(total_groups, Cell::default);
        for_each_state(values, |row, bytes, rows| self.cells[groups[row]].merge(bytes, rows))?;
        self.remeasure();
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mut cells = vec![Cell::<T>::default(); values.first().map_or(0, |v| v.len())];
        T::for_each(values, |row, value| {
            if accepted(filter, row) {
                cells[row].total.add(value, 1);
                cells[row].rows = 1;
            }
        })?;
        Ok(states(cells.iter()))
    }

    fn size(&self) -> usize {
        self.cells.capacity() * size_of::<Cell<T>>() + self.heap
    }
}

fn states<'a, T: Total>(cells: impl Iterator<Item = &'a Cell<T>>) -> Vec<ArrayRef> {
    let mut totals = BinaryBuilder::new();
    let mut rows = Vec::new();
    let mut bytes = Vec::new();
    for cell in cells {
        bytes.clear();
        cell.total.write_bytes(&mut bytes);
        totals.append_value(&bytes);
        rows.push(cell.rows);
    }
    vec![Arc::new(totals.finish()), Arc::new(Int64Array::from(rows))]
}

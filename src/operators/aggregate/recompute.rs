//! Any aggregate: the rows of each group are kept, and DataFusion's accumulator runs over those of touched groups.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{SortOptions, take};
use arrow::datatypes::DataType;
use arrow::row::SortField;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};
use std::sync::Arc;

use super::calls::{Change, GroupStates, picked};
use super::multisets::Multisets;
use crate::error::Result;
use crate::operators::eval::Exprs;
use crate::state::{RowCodec, StateReader, StateWriter};

pub(super) struct Recompute {
    function: Arc<AggregateFunctionExpr>,
    /// Of the ORDER BY values, each with its direction, then the arguments: the accumulator sees rows in this order, which
    /// depends on nothing but the rows.
    codec: RowCodec,
    order: usize,
    /// What the accumulator takes: for each of its inputs the column of a kept row.
    inputs: Vec<usize>,
    output: DataType,
    rows: Multisets,
    /// The aggregate's value by group, while it is valid.
    values: Vec<Option<ScalarValue>>,
    /// Bytes of these values.
    value_bytes: usize,
}

/// Rows that are decoded at once, about.
const TOGETHER: usize = 8_192;

impl Recompute {
    /// Also the expressions whose values [`GroupStates::update`] wants as arguments.
    pub fn new(call: &Expr, input: &DFSchema, session: &SessionState) -> Result<(Exprs, Self)> {
        let schema = input.as_arrow();
        let context = PhysicalPlanningContext::default();
        let builder = LoweredAggregateBuilder::new(call, input, schema, session.execution_props(), &context);
        let lowered = builder.with_name("value").with_human_display("value").build()?;
        let function = lowered.aggregate;
        let order = lowered.order_bys;
        let args = function.expressions();
        // Order-insensitive functions take no ordering columns, whatever the call says.
        let ordering = function.order_bys().len().min(order.len());
        let inputs = (order.len()..order.len() + args.len()).chain(0..ordering).collect();
        let options: Vec<SortOptions> = order.iter().map(|o| o.options).collect();
        let exprs = Exprs::physical(order.iter().map(|o| Arc::clone(&o.expr)).chain(args).collect(), schema)?;
        let fields = exprs
            .types
            .iter()
            .enumerate()
            .map(|(i, t)| SortField::new_with_options(t.clone(), options.get(i).copied().unwrap_or_default()));
        let codec = RowCodec::ordered(fields.collect())?;
        let output = function.field().data_type().clone();
        let rows = Multisets::default();
        let order = options.len();
        let state = Recompute { function, codec, order, inputs, output, rows, values: Vec::new(), value_bytes: 0 };
        Ok((exprs, state))
    }

    /// The values of groups, computed from their rows.
    fn computed(&self, groups: &[u32]) -> Result<Vec<ScalarValue>> {
        let mut values = Vec::with_capacity(groups.len());
        while values.len() < groups.len() {
            // Rows of many groups are decoded together.
            let (mut rows, mut times, mut ends): (Vec<&[u8]>, Vec<u32>, Vec<usize>) = Default::default();
            for group in &groups[values.len()..] {
                for (row, weight) in self.rows.get(*group).iter() {
                    times.extend(std::iter::repeat_n(rows.len() as u32, weight as usize));
                    rows.push(row);
                }
                ends.push(times.len());
                if times.len() >= TOGETHER {
                    break;
                }
            }
            let once = rows.len() == times.len();
            let columns = if rows.is_empty() { vec![] } else { self.codec.decode(rows)? };
            let times = UInt32Array::from(times);
            let column = |c: &usize| match columns.get(*c) {
                Some(column) if once => Ok(Some(Arc::clone(column))),
                Some(column) => Ok(Some(take(column, &times, None)?)),
                None => Ok(None),
            };
            let inputs: Vec<ArrayRef> =
                self.inputs.iter().filter_map(|c| column(c).transpose()).collect::<Result<_>>()?;
            let mut start = 0;
            for end in ends {
                let mut accumulator = self.function.create_accumulator()?;
                if end > start {
                    let slices: Vec<ArrayRef> = inputs.iter().map(|input| input.slice(start, end - start)).collect();
                    accumulator.update_batch(&slices)?;
                }
                start = end;
                let mut value = accumulator.evaluate()?;
                // Not a piece of the columns of all groups.
                value.compact();
                values.push(value);
            }
        }
        Ok(values)
    }

    fn forget(&mut self, group: usize) {
        if let Some(value) = self.values[group].take() {
            self.value_bytes -= value.size();
        }
    }
}

impl GroupStates for Recompute {
    fn grow(&mut self, bound: usize) {
        self.rows.grow(bound);
        self.values.resize(bound, None);
    }

    fn is_ordered(&self) -> bool {
        true
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        debug_assert!(change.args.len() >= self.order);
        let encoded = self.codec.encode(change.args, change.groups.len())?;
        for (i, weight) in change.weights.iter().enumerate().filter(|(_, w)| **w != 0) {
            let group = change.groups[i] as usize;
            self.forget(group);
            self.rows.add(group, encoded.row(i), *weight)?;
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let unknown: Vec<u32> = groups.iter().copied().filter(|g| self.values[*g as usize].is_none()).collect();
        for (group, value) in unknown.iter().zip(self.computed(&unknown)?) {
            self.forget(*group as usize);
            self.value_bytes += value.size();
            self.values[*group as usize] = Some(value);
        }
        let values: Vec<ScalarValue> = groups.iter().filter_map(|g| self.values[*g as usize].clone()).collect();
        if values.is_empty() {
            return Ok(arrow::array::new_empty_array(&self.output));
        }
        Ok(ScalarValue::iter_to_array(values)?)
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        self.forget(group as usize);
        self.rows.clear(group)
    }

    fn keep(&mut self, groups: &[u32]) -> Result<()> {
        self.rows.keep(groups);
        self.values = picked(&mut self.values, groups);
        self.value_bytes = self.values.iter().flatten().map(ScalarValue::size).sum();
        Ok(())
    }

    fn rows(&self) -> usize {
        self.rows.rows()
    }

    fn bytes(&self) -> usize {
        self.rows.heap_size() + self.values.capacity() * size_of::<Option<ScalarValue>>() + self.value_bytes
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        self.rows.save("rows", out);
        Ok(())
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        self.rows = Multisets::restore("rows", from, bound)?;
        // Values are computed again when they are asked for.
        (self.values, self.value_bytes) = (vec![None; bound], 0);
        Ok(())
    }
}

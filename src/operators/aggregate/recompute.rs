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

use super::calls::{Change, GroupStates};
use super::multisets::Multisets;
use crate::error::Result;
use crate::operators::eval::Exprs;
use crate::state::{Multiset, RowCodec, StateReader, StateWriter};

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
}

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
        let state = Recompute { function, codec, order: options.len(), inputs, output, rows, values: Vec::new() };
        Ok((exprs, state))
    }

    fn value(&self, rows: &Multiset) -> Result<ScalarValue> {
        let mut accumulator = self.function.create_accumulator()?;
        if !rows.is_empty() {
            let distinct: Vec<(&[u8], i64)> = rows.iter().collect();
            let columns = self.codec.decode(distinct.iter().map(|(row, _)| *row))?;
            let repeated: Option<UInt32Array> = distinct.iter().any(|(_, w)| *w != 1).then(|| {
                let times = distinct.iter().enumerate();
                UInt32Array::from_iter_values(times.flat_map(|(i, (_, w))| std::iter::repeat_n(i as u32, *w as usize)))
            });
            let column = |c: &usize| -> Result<ArrayRef> {
                Ok(match &repeated {
                    Some(repeated) => take(&columns[*c], repeated, None)?,
                    None => Arc::clone(&columns[*c]),
                })
            };
            let values = self.inputs.iter().map(column).collect::<Result<Vec<_>>>()?;
            accumulator.update_batch(&values)?;
        }
        Ok(accumulator.evaluate()?)
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
            self.values[group] = None;
            self.rows.add(group, encoded.row(i), *weight)?;
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let mut values = Vec::with_capacity(groups.len());
        for group in groups {
            let value = match self.values[*group as usize].take() {
                Some(value) => value,
                None => self.value(self.rows.get(*group))?,
            };
            self.values[*group as usize] = Some(value.clone());
            values.push(value);
        }
        if values.is_empty() {
            return Ok(arrow::array::new_empty_array(&self.output));
        }
        Ok(ScalarValue::iter_to_array(values)?)
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        self.values[group as usize] = None;
        self.rows.clear(group)
    }

    fn rows(&self) -> usize {
        self.rows.rows()
    }

    fn bytes(&self) -> usize {
        self.rows.heap_size() + self.values.capacity() * size_of::<Option<ScalarValue>>()
    }

    fn save(&self, out: &mut StateWriter) -> Result<()> {
        self.rows.save("rows", out);
        Ok(())
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        self.rows = Multisets::restore("rows", from, bound)?;
        // Values are computed again when they are asked for.
        self.values = vec![None; bound];
        Ok(())
    }
}

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

use super::calls::{Change, GroupStates, left_over};
use crate::error::{Error, Result};
use crate::operators::eval::Exprs;
use crate::state::{Multiset, Presence, RowCodec, StateReader, StateWriter};

pub(super) struct Recompute {
    function: Arc<AggregateFunctionExpr>,
    /// Of the ORDER BY values, each with its direction, then the arguments: the accumulator sees rows in this order, which
    /// depends on nothing but the rows.
    codec: RowCodec,
    order: usize,
    /// What the accumulator takes: for each of its inputs the column of a kept row.
    inputs: Vec<usize>,
    output: DataType,
    groups: Vec<Group>,
    rows: usize,
    bytes: usize,
}

#[derive(Default)]
struct Group {
    rows: Multiset,
    /// The aggregate's value, while it is valid.
    value: Option<ScalarValue>,
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
        let state =
            Recompute { function, codec, order: options.len(), inputs, output, groups: Vec::new(), rows: 0, bytes: 0 };
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
        self.groups.resize_with(bound, Group::default);
    }

    fn is_ordered(&self) -> bool {
        true
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        debug_assert!(change.args.len() >= self.order);
        let encoded = self.codec.encode(change.args, change.groups.len())?;
        for (i, weight) in change.weights.iter().enumerate().filter(|(_, w)| **w != 0) {
            let group = &mut self.groups[change.groups[i] as usize];
            group.value = None;
            let row = encoded.row(i);
            match group.rows.add(row, *weight) {
                Presence::Appeared if *weight > 0 => {
                    self.rows += 1;
                    self.bytes += Multiset::value_size(row.len());
                }
                Presence::Vanished => {
                    self.rows -= 1;
                    self.bytes -= Multiset::value_size(row.len());
                }
                Presence::Stays(left) if left > 0 => {}
                _ => return Err(Error::diverged("aggregate: a row is retracted that is not there")),
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let mut values = Vec::with_capacity(groups.len());
        for group in groups {
            let group = *group as usize;
            let value = match &self.groups[group].value {
                Some(value) => value.clone(),
                None => self.value(&self.groups[group].rows)?,
            };
            self.groups[group].value = Some(value.clone());
            values.push(value);
        }
        if values.is_empty() {
            return Ok(arrow::array::new_empty_array(&self.output));
        }
        Ok(ScalarValue::iter_to_array(values)?)
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        let group = std::mem::take(&mut self.groups[group as usize]);
        if group.rows.is_empty() { Ok(()) } else { Err(left_over()) }
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<Group>() + self.bytes
    }

    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.multisets("rows", self.groups.iter().map(|group| &group.rows));
        Ok(())
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        // Values are computed again when they are asked for.
        let groups = from.multisets("rows", bound)?.into_iter().map(|rows| Group { rows, value: None });
        self.groups = groups.collect();
        self.rows = self.groups.iter().map(|group| group.rows.len()).sum();
        self.bytes = self.groups.iter().map(|group| group.rows.bytes()).sum();
        Ok(())
    }
}

//! One aggregate call: its arguments, its FILTER, and its state by group.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field};
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;

use super::extremes::Extremes;
use super::recompute::Recompute;
use super::sums::{Averages, Booleans, Counts, DecimalSums, FloatSums, IntegerSums};
use crate::error::{Error, Result};
use crate::operators::eval::{Exprs, Predicate};
use crate::plan::incremental::{Aggregate, AggregateClass};
use crate::state::{StateReader, StateWriter};
use crate::types::{SignedBatch, Weight};

/// A batch as one call sees it.
pub(super) struct Change<'a> {
    /// Group of each row.
    pub groups: &'a [u32],
    /// Weight of each row; 0 for rows that FILTER leaves out.
    pub weights: &'a [Weight],
    pub args: &'a [ArrayRef],
}

impl Change<'_> {
    /// Rows that count and whose first argument is not NULL: row, group, weight.
    pub fn present(&self) -> impl Iterator<Item = (usize, usize, Weight)> + '_ {
        let nulls = self.args.first().and_then(|a| a.logical_nulls());
        (0..self.groups.len())
            .filter(move |i| self.weights[*i] != 0 && nulls.as_ref().is_none_or(|n| n.is_valid(*i)))
            .map(|i| (i, self.groups[i] as usize, self.weights[i]))
    }
}

/// State of one aggregate for all groups.
pub(super) trait GroupStates: Send {
    /// Makes room for groups below `bound`.
    fn grow(&mut self, bound: usize);

    /// Whether insertions must be seen before retractions.
    fn is_ordered(&self) -> bool {
        false
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()>;

    /// The aggregate's value for each of `groups`. Changes nothing that matters.
    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef>;

    /// Forgets a group that has no rows any more; something left of it is a divergence.
    fn clear(&mut self, group: u32) -> Result<()>;

    /// Values kept beyond a fixed size per group.
    fn rows(&self) -> usize {
        0
    }

    fn bytes(&self) -> usize;

    /// Writes the values of all groups.
    fn save(&self, out: &mut StateWriter) -> Result<()>;

    /// Becomes what [`GroupStates::save`] wrote; groups are below `bound`.
    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()>;
}

/// What is left of a group without rows.
pub(super) fn left_over() -> Error {
    Error::diverged("aggregate: a group without rows still has values")
}

pub(super) struct Call {
    args: Exprs,
    filter: Option<Predicate>,
    states: Box<dyn GroupStates>,
}

impl Call {
    pub fn new(plan: &Aggregate, output: &Field, input: &DFSchema, session: &SessionState) -> Result<Self> {
        let filter = plan.filter.as_ref().map(|f| Predicate::new(f, input, session)).transpose()?;
        if plan.class == AggregateClass::Recompute {
            let (args, states) = Recompute::new(&plan.call, input, session)?;
            return Ok(Call { args, filter, states: Box::new(states) });
        }
        let args = Exprs::new(&plan.args, input, session)?;
        let argument = args.types.first().cloned().unwrap_or(DataType::Int64);
        let output_type = output.data_type();
        let states: Box<dyn GroupStates> = match plan.class {
            AggregateClass::Count => Box::new(Counts::default()),
            AggregateClass::Sum if output_type.is_floating() => Box::new(FloatSums::default()),
            AggregateClass::Sum if output_type.is_integer() => Box::new(IntegerSums::new(output_type.clone())),
            AggregateClass::Sum if is_decimal(output_type) => Box::new(DecimalSums::new(output_type.clone())),
            AggregateClass::Avg if is_decimal(&argument) => Box::new(Averages::decimal(&argument, output_type.clone())),
            AggregateClass::Avg if output_type.is_floating() => Box::new(Averages::float()),
            AggregateClass::Min => Box::new(Extremes::smallest(argument)?),
            AggregateClass::Max => Box::new(Extremes::largest(argument)?),
            AggregateClass::BoolAnd => Box::new(Booleans::all()),
            AggregateClass::BoolOr => Box::new(Booleans::any()),
            // Sums of anything else (durations) are rare enough for the stock accumulator.
            AggregateClass::Sum | AggregateClass::Avg | AggregateClass::Recompute => {
                let (args, states) = Recompute::new(&plan.call, input, session)?;
                return Ok(Call { args, filter, states: Box::new(states) });
            }
        };
        Ok(Call { args, filter, states })
    }

    pub fn grow(&mut self, bound: usize) {
        self.states.grow(bound);
    }

    /// `groups[i]` are the groups of the rows of `input[i]`.
    pub fn update(&mut self, input: &[SignedBatch], groups: &[Vec<u32>]) -> Result<()> {
        let mut changes = Vec::with_capacity(input.len());
        for batch in input {
            let args = self.args.evaluate(&batch.rows)?;
            let mut weights: Vec<Weight> = (0..batch.num_rows()).map(|i| batch.weight(i)).collect();
            if let Some(filter) = &self.filter {
                let mask = filter.evaluate(&batch.rows)?;
                weights.iter_mut().enumerate().filter(|(i, _)| !mask.value(*i)).for_each(|(_, w)| *w = 0);
            }
            changes.push((args, weights));
        }
        let retracts = input.iter().any(SignedBatch::has_retractions);
        if !retracts || !self.states.is_ordered() {
            for ((args, weights), groups) in changes.iter().zip(groups) {
                self.states.update(&Change { groups, weights, args })?;
            }
            return Ok(());
        }
        for sign in [1, -1] {
            for ((args, weights), groups) in changes.iter().zip(groups) {
                let weights: Vec<Weight> = weights.iter().map(|w| if w.signum() == sign { *w } else { 0 }).collect();
                self.states.update(&Change { groups, weights: &weights, args })?;
            }
        }
        Ok(())
    }

    pub fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        self.states.evaluate(groups)
    }

    pub fn clear(&mut self, group: u32) -> Result<()> {
        self.states.clear(group)
    }

    pub fn save(&self, out: &mut StateWriter) -> Result<()> {
        self.states.save(out)
    }

    pub fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        self.states.restore(from, bound)
    }

    pub fn state_rows(&self) -> usize {
        self.states.rows()
    }

    pub fn state_bytes(&self) -> usize {
        self.states.bytes()
    }
}

pub(super) fn is_decimal(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..)
    )
}

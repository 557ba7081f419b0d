//! One aggregate call: its arguments, its FILTER, and its state by group.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field};
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use std::borrow::Cow;

use super::bits::Bits;
use super::cells::Cells;
use super::distinct::Distinct;
use super::extremes::Extremes;
use super::placed::Placed;
use super::ranks::Ranks;
use super::recompute::Recompute;
use super::sums::{Averages, Booleans, Counts, DecimalSums, FloatSums, IntegerSums};
use crate::error::{Error, Result};
use crate::functions::{self, IntegerTotal, Kind, Pairs, Parity, Spread};
use crate::operators::eval::{Exprs, Predicate};
use crate::plan::incremental::{Aggregate, AggregateClass};
use crate::state::{ExactSum, StateReader, StateWriter};
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

    /// Becomes the state of `groups` alone, which are 0, 1, 2 … from now on.
    fn keep(&mut self, groups: &[u32]) -> Result<()>;

    /// Values kept beyond a fixed size per group.
    fn rows(&self) -> usize {
        0
    }

    fn bytes(&self) -> usize;

    /// Writes the values of all groups.
    fn save(&mut self, out: &mut StateWriter) -> Result<()>;

    /// Becomes what [`GroupStates::save`] wrote; groups are below `bound`.
    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()>;
}

/// What is left of a group without rows.
pub(super) fn left_over() -> Error {
    Error::diverged("aggregate: a group without rows still has values")
}

/// Those of `all` that belong to `groups`, in that order.
pub(super) fn picked<T: Default>(all: &mut [T], groups: &[u32]) -> Vec<T> {
    groups.iter().map(|group| std::mem::take(&mut all[*group as usize])).collect()
}

pub(super) struct Call {
    args: Exprs,
    filter: Option<Predicate>,
    states: Box<dyn GroupStates>,
}

impl Call {
    pub fn new(plan: &Aggregate, output: &Field, input: &DFSchema, session: &SessionState) -> Result<Self> {
        let filter = plan.filter.as_ref().map(|f| Predicate::new(f, input, session)).transpose()?;
        let (args, states) = Self::states(plan, output.data_type(), input, session)?;
        Ok(Call { args, filter, states })
    }

    /// The state of a call, and what it is given.
    fn states(
        plan: &Aggregate,
        output: &DataType,
        input: &DFSchema,
        session: &SessionState,
    ) -> Result<(Exprs, Box<dyn GroupStates>)> {
        if let AggregateClass::Place(place) = plan.class {
            let (args, states) = Placed::new(&plan.call, place, plan.append_only, input, session)?;
            return Ok((args, Box::new(states)));
        }
        let args = Exprs::new(&plan.args, input, session)?;
        let argument = args.types.first().cloned().unwrap_or(DataType::Int64);
        if let AggregateClass::Quantile(quantile) = plan.class {
            let states = Ranks::new(&plan.call, quantile, plan.distinct, argument, input, session)?;
            return Ok((args, Box::new(states)));
        }
        let states: Option<Box<dyn GroupStates>> = match plan.class {
            AggregateClass::Count => Some(Box::new(Counts::default())),
            AggregateClass::Sum if output.is_floating() => Some(Box::new(FloatSums::default())),
            AggregateClass::Sum if output.is_integer() => Some(Box::new(IntegerSums::new(output.clone()))),
            AggregateClass::Sum if is_decimal(output) => Some(Box::new(DecimalSums::new(output.clone()))),
            AggregateClass::Avg if is_decimal(&argument) => {
                Some(Box::new(Averages::decimal(&argument, output.clone())))
            }
            AggregateClass::Avg if output.is_floating() => Some(Box::new(Averages::float())),
            AggregateClass::Total => Self::total(plan, &args.types, output)?,
            AggregateClass::Min => Some(Box::new(Extremes::new(argument.clone(), false, plan.append_only)?)),
            AggregateClass::Max => Some(Box::new(Extremes::new(argument.clone(), true, plan.append_only)?)),
            AggregateClass::BoolAnd => Some(Box::new(Booleans::all())),
            AggregateClass::BoolOr => Some(Box::new(Booleans::any())),
            AggregateClass::BitAnd => Some(Box::new(Bits::new(true, output.clone()))),
            AggregateClass::BitOr => Some(Box::new(Bits::new(false, output.clone()))),
            // Sums of anything else (durations) are rare enough for the stock accumulator.
            _ => None,
        };
        match states {
            Some(states) if plan.distinct => Ok((args, Box::new(Distinct::new(argument, states)?))),
            Some(states) => Ok((args, states)),
            None => {
                let (args, states) = Recompute::new(&plan.call, input, session)?;
                Ok((args, Box::new(states)))
            }
        }
    }

    fn total(plan: &Aggregate, args: &[DataType], output: &DataType) -> Result<Option<Box<dyn GroupStates>>> {
        let Expr::AggregateFunction(call) = &plan.call else { return Ok(None) };
        Ok(match functions::kind(&call.func, args, output, plan.distinct) {
            Some(Kind::Integer(finish)) => Some(Box::new(Cells::<IntegerTotal>::new(finish, output)?)),
            Some(Kind::Float(finish)) => Some(Box::new(Cells::<ExactSum>::new(finish, output)?)),
            Some(Kind::Spread(finish)) => Some(Box::new(Cells::<Spread>::new(finish, output)?)),
            Some(Kind::Pairs(finish)) => Some(Box::new(Cells::<Pairs>::new(finish, output)?)),
            Some(Kind::Parity(finish)) => Some(Box::new(Cells::<Parity>::new(finish, output)?)),
            None => None,
        })
    }

    pub fn grow(&mut self, bound: usize) {
        self.states.grow(bound);
    }

    /// `weights[i]` are the weights of the rows of `input[i]`, and `groups[i]` their groups, by grouping set.
    pub fn update(&mut self, input: &[SignedBatch], weights: &[Vec<Weight>], groups: &[Vec<Vec<u32>>]) -> Result<()> {
        let mut changes = Vec::with_capacity(input.len());
        for (batch, weights) in input.iter().zip(weights) {
            let args = self.args.evaluate(&batch.rows)?;
            let mut weights = Cow::Borrowed(weights.as_slice());
            if let Some(filter) = &self.filter {
                let mask = filter.evaluate(&batch.rows)?;
                weights.to_mut().iter_mut().enumerate().filter(|(i, _)| !mask.value(*i)).for_each(|(_, w)| *w = 0);
            }
            changes.push((args, weights));
        }
        let retracts = input.iter().any(SignedBatch::has_retractions);
        if !retracts || !self.states.is_ordered() {
            for ((args, weights), sets) in changes.iter().zip(groups) {
                sets.iter().try_for_each(|groups| self.states.update(&Change { groups, weights, args }))?;
            }
            return Ok(());
        }
        for sign in [1, -1] {
            for ((args, weights), sets) in changes.iter().zip(groups) {
                let weights: Vec<Weight> = weights.iter().map(|w| if w.signum() == sign { *w } else { 0 }).collect();
                sets.iter().try_for_each(|groups| self.states.update(&Change { groups, weights: &weights, args }))?;
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

    /// What of `groups` alone is remembered, which are 0, 1, 2 … from now on.
    pub fn keep(&mut self, groups: &[u32]) -> Result<()> {
        self.states.keep(groups)
    }

    pub fn save(&mut self, out: &mut StateWriter) -> Result<()> {
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

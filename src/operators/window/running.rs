//! Functions whose value is what the rows of a partition up to a row make of it: ranks, and aggregates and single rows of a frame from the first row on.
//!
//! They can go on where an earlier evaluation stood. So the window keeps a [`Checkpoint`] every few rows of a partition, and a change
//! at its end costs what stands behind the last one before it, however long the partition is. One that holds distinct values stands as many rows behind the one before as
//! that holds, so that all of them together hold no more values than there are rows.

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::filter;
use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Accumulator, Expr, WindowFrameUnits, WindowFunctionDefinition};
use datafusion::physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::operators::eval::{Exprs, Predicate};
use crate::plan::reach::{RowOfFrame, is_running, keeps_distinct, row_of_frame};

/// Rows between two checkpoints, at least: how many are looked at again for one that comes at the end.
pub const EVERY: usize = if cfg!(test) { 4 } else { 256 };

/// What an accumulator says of the rows that went in. Empty for a rank.
pub type State = Vec<ScalarValue>;

/// What the rows of a partition before a place amount to.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// The order's bytes of the rows that come next.
    pub at: Box<[u8]>,
    pub rows: usize,
    /// Distinct orders.
    pub groups: usize,
    /// Of every running function.
    pub states: Vec<State>,
}

impl Checkpoint {
    /// Bytes it takes, about.
    pub fn size(&self) -> usize {
        let values = self.states.iter().flatten().map(ScalarValue::size).sum::<usize>();
        size_of::<Self>() + self.at.len() + self.states.len() * size_of::<State>() + values
    }

    /// Distinct values it holds.
    pub fn values(&self) -> usize {
        let held = self.states.iter().flatten().map(|value| match value {
            ScalarValue::List(values) => values.values().len(),
            _ => 0,
        });
        held.sum()
    }
}

/// Consecutive rows of one partition.
pub struct Stretch<'a> {
    /// What stands before them, unless they are the partition's first.
    pub start: Option<&'a Checkpoint>,
    /// Peers, by their places in the stretch; one after the other.
    pub peers: &'a [Range<usize>],
    /// Before which of these a checkpoint is wanted, ascending.
    pub marks: &'a [usize],
}

pub enum Running {
    RowNumber,
    Rank,
    DenseRank,
    Aggregate(Box<Aggregate>),
    Row(Box<Row>),
}

/// `aggregate(…) filter (…) over (… from the first row to this one)`.
pub struct Aggregate {
    function: Arc<AggregateFunctionExpr>,
    args: Exprs,
    filter: Option<Predicate>,
    keeps_distinct: bool,
    /// To the last of its peers.
    to_peers: bool,
}

/// `first_value(…) over (… from the first row to this one)`, and others that give one row's value.
pub struct Row {
    of: RowOfFrame,
    arg: Exprs,
    /// To the last of its peers.
    to_peers: bool,
}

impl Running {
    /// Whether its state is as large as there are distinct values.
    pub fn keeps_distinct(&self) -> bool {
        matches!(self, Running::Aggregate(aggregate) if aggregate.keeps_distinct)
    }

    /// None: another function.
    pub fn new(function: &WindowFunction, input: &DFSchema, session: &SessionState) -> Result<Option<Self>> {
        if !is_running(function) {
            return Ok(None);
        }
        let (params, keeps_distinct) = (&function.params, keeps_distinct(function));
        let to_peers = params.window_frame.units != WindowFrameUnits::Rows;
        let aggregate = match &function.fun {
            WindowFunctionDefinition::WindowUDF(f) => {
                return Ok(Some(match (f.name(), row_of_frame(f.name(), &params.args)) {
                    (_, Some(of)) => {
                        let arg = Exprs::new(params.args.first(), input, session)?;
                        Running::Row(Box::new(Row { of, arg, to_peers }))
                    }
                    ("row_number", _) => Running::RowNumber,
                    ("rank", _) => Running::Rank,
                    _ => Running::DenseRank,
                }));
            }
            WindowFunctionDefinition::AggregateUDF(aggregate) => aggregate,
        };
        let filter = params.filter.as_ref().map(|filter| Predicate::new(filter, input, session)).transpose()?;
        let args = params.args.clone();
        let call = AggregateFunction::new_udf(Arc::clone(aggregate), args, keeps_distinct, None, vec![], None);
        let call = Expr::AggregateFunction(call);
        let (schema, context) = (input.as_arrow(), PhysicalPlanningContext::default());
        let builder = LoweredAggregateBuilder::new(&call, input, schema, session.execution_props(), &context);
        let function_expr = builder.with_name("value").with_human_display("value").build()?.aggregate;
        Ok(Some(Running::Aggregate(Box::new(Aggregate {
            args: Exprs::physical(function_expr.expressions(), schema)?,
            function: function_expr,
            filter,
            keeps_distinct,
            to_peers,
        }))))
    }

    /// The values of stretches that follow one another in `rows`; by stretch and mark, the state there. `number` is its place among running functions.
    pub fn evaluate(
        &self,
        rows: &RecordBatch,
        stretches: &[Stretch<'_>],
        number: usize,
    ) -> Result<(ArrayRef, Vec<Vec<State>>)> {
        match self {
            Running::Aggregate(aggregate) => return aggregate.evaluate(rows, stretches, number),
            Running::Row(row) => return row.evaluate(rows, stretches, number),
            _ => {}
        }
        let mut values: Vec<u64> = Vec::with_capacity(rows.num_rows());
        for stretch in stretches {
            let (before, groups) = stretch.start.map_or((0, 0), |start| (start.rows, start.groups));
            for (group, peers) in stretch.peers.iter().enumerate() {
                match self {
                    Running::RowNumber => values.extend(peers.clone().map(|row| (before + row + 1) as u64)),
                    Running::Rank => values.extend(peers.clone().map(|_| (before + peers.start + 1) as u64)),
                    _ => values.extend(peers.clone().map(|_| (groups + group + 1) as u64)),
                }
            }
        }
        let states = stretches.iter().map(|stretch| vec![State::new(); stretch.marks.len()]).collect();
        Ok((Arc::new(UInt64Array::from(values)), states))
    }
}

impl Aggregate {
    fn evaluate(
        &self,
        rows: &RecordBatch,
        stretches: &[Stretch<'_>],
        number: usize,
    ) -> Result<(ArrayRef, Vec<Vec<State>>)> {
        let args = self.args.evaluate(rows)?;
        let counts: Option<BooleanArray> = self.filter.as_ref().map(|filter| filter.evaluate(rows)).transpose()?;
        let mut values: Vec<ScalarValue> = Vec::with_capacity(rows.num_rows());
        let mut states = Vec::with_capacity(stretches.len());
        let mut offset = 0;
        for stretch in stretches {
            let mut accumulator = self.from(stretch.start.and_then(|start| start.states.get(number)))?;
            let mut marked: Vec<State> = Vec::with_capacity(stretch.marks.len());
            for (group, peers) in stretch.peers.iter().enumerate() {
                if stretch.marks.get(marked.len()) == Some(&group) {
                    let mut state = accumulator.state()?;
                    state.iter_mut().for_each(ScalarValue::compact);
                    // To say it may have used it up.
                    accumulator = self.from(Some(&state))?;
                    marked.push(state);
                }
                let mut take = |range: Range<usize>| -> Result<ScalarValue> {
                    let (from, length) = (offset + range.start, range.len());
                    let part = args.iter().map(|arg| arg.slice(from, length));
                    let part: Vec<ArrayRef> = match counts.as_ref().map(|counts| counts.slice(from, length)) {
                        Some(counts) => part.map(|arg| filter(&arg, &counts)).collect::<Result<_, _>>()?,
                        None => part.collect(),
                    };
                    accumulator.update_batch(&part)?;
                    Ok(accumulator.evaluate()?)
                };
                if self.to_peers {
                    let value = take(peers.clone())?;
                    values.extend(std::iter::repeat_n(value, peers.len()));
                } else {
                    for row in peers.clone() {
                        values.push(take(row..row + 1)?);
                    }
                }
            }
            offset += stretch.peers.last().map_or(0, |last| last.end);
            states.push(marked);
        }
        Ok((array(values, self.function.field().data_type())?, states))
    }

    /// An accumulator that has taken the rows `state` tells of.
    fn from(&self, state: Option<&State>) -> Result<Box<dyn Accumulator>> {
        let mut accumulator = self.function.create_accumulator()?;
        if let Some(state) = state {
            let columns = state.iter().map(ScalarValue::to_array).collect::<Result<Vec<ArrayRef>, _>>()?;
            accumulator.merge_batch(&columns)?;
        }
        Ok(accumulator)
    }
}

impl Row {
    /// The state is the row's value, once there is that row.
    fn evaluate(
        &self,
        rows: &RecordBatch,
        stretches: &[Stretch<'_>],
        number: usize,
    ) -> Result<(ArrayRef, Vec<Vec<State>>)> {
        let missing = || Error::internal("a window function without its argument");
        let arg = self.arg.evaluate(rows)?.pop().ok_or_else(missing)?;
        let none = ScalarValue::try_from(arg.data_type())?;
        let mut values: Vec<ScalarValue> = Vec::with_capacity(rows.num_rows());
        let mut states = Vec::with_capacity(stretches.len());
        let mut offset = 0;
        for stretch in stretches {
            let before = stretch.start.map_or(0, |start| start.rows);
            let known = stretch.start.and_then(|start| start.states.get(number)).and_then(|state| state.first());
            let length = stretch.peers.last().map_or(0, |last| last.end);
            let nth = match (self.of, known) {
                (RowOfFrame::Last, _) => None,
                (RowOfFrame::Nth(place), Some(known)) => Some((place, known.clone())),
                (RowOfFrame::Nth(place), None) => match place.checked_sub(before).filter(|at| *at < length) {
                    Some(at) => Some((place, ScalarValue::try_from_array(&arg, offset + at)?)),
                    None => None,
                },
            };
            let mut marked: Vec<State> = Vec::with_capacity(stretch.marks.len());
            for (group, peers) in stretch.peers.iter().enumerate() {
                if stretch.marks.get(marked.len()) == Some(&group) {
                    let there = nth.iter().filter(|(place, _)| *place < before + peers.start);
                    let mut state: State = there.map(|(_, value)| value.clone()).collect();
                    state.iter_mut().for_each(ScalarValue::compact);
                    marked.push(state);
                }
                for row in peers.clone() {
                    let last = if self.to_peers { peers.end - 1 } else { row };
                    values.push(match (self.of, &nth) {
                        (RowOfFrame::Last, _) => ScalarValue::try_from_array(&arg, offset + last)?,
                        (_, Some((place, value))) if *place <= before + last => value.clone(),
                        _ => none.clone(),
                    });
                }
            }
            offset += length;
            states.push(marked);
        }
        Ok((array(values, arg.data_type())?, states))
    }
}

fn array(values: Vec<ScalarValue>, data_type: &DataType) -> Result<ArrayRef> {
    Ok(match values.is_empty() {
        true => arrow::array::new_empty_array(data_type),
        false => ScalarValue::iter_to_array(values)?,
    })
}

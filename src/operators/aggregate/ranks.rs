//! median and percentile_cont: the values of each group in order, and the ones at a rank.

use arrow::array::{ArrayRef, AsArray, Float64Array, new_null_array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};
use std::sync::Arc;

use super::calls::{Change, GroupStates, picked};
use super::multisets::Multisets;
use crate::error::{Error, Result};
use crate::plan::incremental::Quantile;
use crate::state::{Multiset, Presence, Rank, RowCodec, StateReader, StateWriter};

pub(super) struct Ranks {
    quantile: Quantile,
    distinct: bool,
    codec: RowCodec,
    argument: DataType,
    /// DataFusion's, which makes a median of the one or two values in the middle.
    function: Arc<AggregateFunctionExpr>,
    values: Multisets,
    /// By group: how many values count, and where the last rank was.
    counts: Vec<i64>,
    ranks: Vec<Rank>,
}

impl Ranks {
    pub fn new(
        call: &Expr,
        quantile: Quantile,
        distinct: bool,
        argument: DataType,
        input: &DFSchema,
        session: &SessionState,
    ) -> Result<Self> {
        let context = PhysicalPlanningContext::default();
        let builder = LoweredAggregateBuilder::new(call, input, input.as_arrow(), session.execution_props(), &context);
        let lowered = builder.with_name("value").with_human_display("value").build()?;
        Ok(Ranks {
            quantile,
            distinct,
            codec: RowCodec::new([argument.clone()])?,
            argument,
            function: lowered.aggregate,
            values: Multisets::default(),
            counts: Vec::new(),
            ranks: Vec::new(),
        })
    }

    /// Ranks of the lower and the upper value, and how far between them the quantile lies.
    fn place(&self, count: i64) -> (i64, i64, f64) {
        match self.quantile {
            Quantile::Median if count % 2 == 0 => (count / 2 - 1, count / 2, 0.5),
            Quantile::Median => (count / 2, count / 2, 0.0),
            Quantile::Percentile(share) => {
                let index = share * (count - 1) as f64;
                // The share in millionths, cut, as DataFusion has it.
                let weight = ((index - index.floor()) * 1e6) as i64 as f64 / 1e6;
                (index.floor() as i64, index.ceil() as i64, weight)
            }
        }
    }

    /// The quantile between two values of every pair.
    fn between(&self, pairs: &ArrayRef, places: &[(i64, i64, f64)]) -> Result<ArrayRef> {
        if let Some(values) = pairs.as_primitive_opt::<Float64Type>() {
            let value = |(i, (lower, upper, weight)): (usize, &(i64, i64, f64))| {
                let (low, high) = (values.value(2 * i), values.value(2 * i + 1));
                match self.quantile {
                    _ if lower == upper => low,
                    Quantile::Median => (low + high) / 2.0,
                    Quantile::Percentile(_) => low + (high - low) * weight,
                }
            };
            return Ok(Arc::new(places.iter().enumerate().map(value).collect::<Float64Array>()));
        }
        let value = |(i, (lower, upper, _)): (usize, &(i64, i64, f64))| {
            let mut accumulator = self.function.create_accumulator()?;
            accumulator.update_batch(&[pairs.slice(2 * i, if lower == upper { 1 } else { 2 })])?;
            Ok(accumulator.evaluate()?)
        };
        let values = places.iter().enumerate().map(value).collect::<Result<Vec<ScalarValue>>>()?;
        Ok(ScalarValue::iter_to_array(values)?)
    }
}

impl GroupStates for Ranks {
    fn grow(&mut self, bound: usize) {
        self.values.grow(bound);
        self.counts.resize(bound, 0);
        let distinct = self.distinct;
        self.ranks.resize_with(bound, || Rank::new(distinct));
    }

    fn is_ordered(&self) -> bool {
        true
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        let encoded = self.codec.encode(&change.args[..1], change.groups.len())?;
        for (i, group, weight) in change.present() {
            let value = encoded.row(i);
            let counts = match self.values.add(group, value, weight)? {
                _ if !self.distinct => weight,
                Presence::Appeared => 1,
                Presence::Vanished => -1,
                Presence::Stays(_) => continue,
            };
            self.counts[group] += counts;
            self.ranks[group].shift(value, counts);
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let mut found: Vec<&[u8]> = Vec::with_capacity(2 * groups.len());
        let mut places = Vec::with_capacity(groups.len());
        let mut present: Vec<Option<u32>> = Vec::with_capacity(groups.len());
        for group in groups {
            let count = self.counts[*group as usize];
            if count == 0 {
                present.push(None);
                continue;
            }
            let (lower, upper, weight) = self.place(count);
            let (values, rank) = (self.values.get(*group), &mut self.ranks[*group as usize]);
            for place in [lower, upper] {
                let lost = || Error::internal("a rank within its values has none");
                found.push(rank.find(values, place).ok_or_else(lost)?);
            }
            present.push(Some(places.len() as u32));
            places.push((lower, upper, weight));
        }
        if found.is_empty() {
            return Ok(new_null_array(&self.argument, groups.len()));
        }
        let values = self.between(&self.codec.decode(found)?.swap_remove(0), &places)?;
        Ok(arrow::compute::take(&values, &arrow::array::UInt32Array::from(present), None)?)
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        self.counts[group as usize] = 0;
        self.ranks[group as usize] = Rank::new(self.distinct);
        self.values.clear(group)
    }

    fn keep(&mut self, groups: &[u32]) -> Result<()> {
        self.values.keep(groups);
        self.counts = picked(&mut self.counts, groups);
        self.ranks = groups.iter().map(|_| Rank::new(self.distinct)).collect();
        Ok(())
    }

    fn rows(&self) -> usize {
        self.values.rows()
    }

    fn bytes(&self) -> usize {
        // A remembered value is one of many where it matters.
        self.values.heap_size() + self.counts.capacity() * 8 + self.ranks.capacity() * size_of::<Rank>()
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        self.values.save("ranked", out);
        Ok(())
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        self.values = Multisets::restore("ranked", from, bound)?;
        let count = |values: &Multiset| {
            if self.distinct { values.len() as i64 } else { values.iter().map(|(_, weight)| weight).sum() }
        };
        self.counts = (0..bound as u32).map(|group| count(self.values.get(group))).collect();
        self.ranks = (0..bound).map(|_| Rank::new(self.distinct)).collect();
        Ok(())
    }
}

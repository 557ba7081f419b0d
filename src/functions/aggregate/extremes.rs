//! `min` and `max` of floats: NaN is the largest number and equals itself, −0.0 is 0.0, as ORDER BY and the state have it.
//!
//! Stock `min` and `max` compare as IEEE 754 does, so what they answer depends on where NaN stands. Other types go to them.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature, StatisticsArgs,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// `min` and `max`.
pub fn functions() -> [AggregateUDF; 2] {
    [(min_udaf(), false), (max_udaf(), true)].map(|(stock, largest)| AggregateUDF::from(Extreme { stock, largest }))
}

/// `min`.
pub fn smallest() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Extreme { stock: min_udaf(), largest: false }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    stock: Arc<AggregateUDF>,
    largest: bool,
}

/// An order of doubles: one zero, one NaN above all.
fn key(value: f64) -> i64 {
    let bits = if value.is_nan() { f64::NAN } else { value + 0.0 }.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

fn value(key: i64) -> f64 {
    f64::from_bits((key ^ (((key >> 63) as u64) >> 1) as i64) as u64)
}

fn better(largest: bool, kept: Option<i64>, new: i64) -> i64 {
    kept.map_or(new, |kept| if largest { kept.max(new) } else { kept.min(new) })
}

/// Calls `each` with every row that is there.
fn for_each(values: &[ArrayRef], mut each: impl FnMut(usize, i64)) -> Result<()> {
    let [values] = values else { return internal_err!("min and max have one argument") };
    let doubles = cast(values, &DataType::Float64)?;
    let doubles = doubles.as_primitive::<Float64Type>();
    for (row, double) in doubles.iter().enumerate() {
        if let Some(double) = double {
            each(row, key(double));
        }
    }
    Ok(())
}

fn array(keys: impl Iterator<Item = Option<i64>>, data_type: &DataType) -> Result<ArrayRef> {
    let doubles: ArrayRef = Arc::new(keys.map(|k| k.map(value)).collect::<Float64Array>());
    Ok(cast(&doubles, data_type)?)
}

/// One group.
#[derive(Debug)]
struct One {
    largest: bool,
    data_type: DataType,
    kept: Option<i64>,
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for_each(values, |_, key| self.kept = Some(better(self.largest, self.kept, key)))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&array(std::iter::once(self.kept), &self.data_type)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

/// One group over sliding window frames: each value with its number of rows.
#[derive(Debug)]
struct Sliding {
    largest: bool,
    data_type: DataType,
    rows: BTreeMap<i64, u64>,
}

impl Accumulator for Sliding {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for_each(values, |_, key| *self.rows.entry(key).or_default() += 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for_each(values, |_, key| {
            let left = self.rows.get(&key).map_or(0, |rows| rows.saturating_sub(1));
            if left == 0 {
                self.rows.remove(&key);
            } else {
                self.rows.insert(key, left);
            }
        })
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let kept = if self.largest { self.rows.last_key_value() } else { self.rows.first_key_value() };
        ScalarValue::try_from_array(&array(std::iter::once(kept.map(|(key, _)| *key)), &self.data_type)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.rows.len() * 2 * size_of::<(i64, u64)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

/// The groups of a hash aggregation.
#[derive(Debug)]
struct Groups {
    largest: bool,
    data_type: DataType,
    kept: Vec<Option<i64>>,
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.kept.resize(total_groups, None);
        for_each(values, |row, key| {
            if filter.is_none_or(|f| f.is_valid(row) && f.value(row)) {
                let kept = &mut self.kept[groups[row]];
                *kept = Some(better(self.largest, *kept, key));
            }
        })
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        array(emit.take_needed(&mut self.kept).into_iter(), &self.data_type)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.update_batch(values, groups, None, total_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mut kept = vec![None; values.first().map_or(0, |v| v.len())];
        for_each(values, |row, key| {
            if filter.is_none_or(|f| f.is_valid(row) && f.value(row)) {
                kept[row] = Some(key);
            }
        })?;
        Ok(vec![array(kept.into_iter(), &self.data_type)?])
    }

    fn size(&self) -> usize {
        self.kept.capacity() * size_of::<Option<i64>>()
    }
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.stock.name()
    }

    fn aliases(&self) -> &[String] {
        self.stock.aliases()
    }

    fn signature(&self) -> &Signature {
        self.stock.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.stock.return_type(types)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.stock.coerce_types(types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let data_type = args.return_field.data_type().clone();
        if !data_type.is_floating() {
            return self.stock.accumulator(args);
        }
        Ok(Box::new(One { largest: self.largest, data_type, kept: None }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let data_type = args.return_field.data_type().clone();
        if !data_type.is_floating() {
            return self.stock.create_sliding_accumulator(args);
        }
        Ok(Box::new(Sliding { largest: self.largest, data_type, rows: BTreeMap::new() }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.stock.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        args.return_field.data_type().is_floating() || self.stock.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let data_type = args.return_field.data_type().clone();
        if !data_type.is_floating() {
            return self.stock.create_groups_accumulator(args);
        }
        Ok(Box::new(Groups { largest: self.largest, data_type, kept: Vec::new() }))
    }

    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        // Statistics of files leave NaN out.
        if args.return_type.is_floating() { None } else { self.stock.value_from_stats(args) }
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn is_descending(&self) -> Option<bool> {
        self.stock.is_descending()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.stock.inner().set_monotonicity(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.stock.documentation()
    }
}

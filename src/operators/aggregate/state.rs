//! States of aggregates under insertion and retraction, one vector entry per group.
//!
//! Sums are exact: integers and decimals in 128 bits and checked against the output type, floats in [`ExactSum`]. Minimum and
//! maximum keep an ordered multiset. Everything else keeps its rows and asks the stock accumulator again.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, UInt64Array, new_null_array,
};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Decimal128Type, DecimalType, Float64Type, Int64Type, UInt64Type};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::NullTreatment;
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::operators::expr::{self, Bound};
use crate::plan::incremental::{Aggregate, AggregateClass};
use crate::state::{ExactSum, RowCodec};

/// State of one aggregate, for all groups.
pub(super) trait State: Send {
    /// Makes room for `groups` groups; with 0 everything is forgotten.
    fn grow(&mut self, groups: usize);
    /// Applies rows: group, argument values and weight of each. A row of weight 0 is left out.
    fn update(&mut self, groups: &[u32], args: &[ArrayRef], weights: &[i64]) -> Result<()>;
    /// Values of the given groups.
    fn output(&mut self, groups: &[u32]) -> Result<ArrayRef>;
    /// Forgets a group, so that its number can be used again.
    fn reset(&mut self, group: u32);
    /// Rows held beyond one entry per group.
    fn rows(&self) -> usize {
        0
    }
    /// Bytes held, roughly.
    fn bytes(&self) -> usize;
}

/// The state for an aggregate whose result has type `output`, and the expressions it wants evaluated.
pub(super) fn state(
    aggregate: &Aggregate,
    output: &DataType,
    input: &DFSchema,
    session: &SessionState,
) -> Result<(Vec<Bound>, Box<dyn State>)> {
    let args = expr::bind_all(&aggregate.args, input, session)?;
    let types = expr::types(&args, input)?;
    let simple: Option<Box<dyn State>> = match (aggregate.class, types.first(), output) {
        (AggregateClass::Count, _, _) => Some(Box::new(Count::default())),
        (AggregateClass::Sum, Some(_), DataType::Int64 | DataType::UInt64 | DataType::Decimal128(_, _)) => {
            Some(Box::new(Exact { output: output.clone(), average: None, sums: Vec::new(), counts: Vec::new() }))
        }
        (AggregateClass::Sum, Some(_), DataType::Float64) => Some(Box::new(Float { average: false, groups: Vec::new() })),
        (AggregateClass::Avg, Some(_), DataType::Float64) => Some(Box::new(Float { average: true, groups: Vec::new() })),
        (AggregateClass::Avg, Some(DataType::Decimal128(_, scale)), DataType::Decimal128(_, wanted))
            if wanted >= scale =>
        {
            let widen = 10i128.pow(u32::from((wanted - scale) as u8));
            Some(Box::new(Exact { output: output.clone(), average: Some(widen), sums: Vec::new(), counts: Vec::new() }))
        }
        (AggregateClass::Min | AggregateClass::Max, Some(of), _) => Some(Box::new(Extreme {
            largest: aggregate.class == AggregateClass::Max,
            codec: RowCodec::new(std::slice::from_ref(of))?,
            data_type: of.clone(),
            groups: Vec::new(),
            rows: 0,
        })),
        (AggregateClass::BoolAnd | AggregateClass::BoolOr, Some(DataType::Boolean), _) => {
            Some(Box::new(Bool { and: aggregate.class == AggregateClass::BoolAnd, groups: Vec::new() }))
        }
        _ => None,
    };
    match simple {
        Some(state) => Ok((args, state)),
        None => recompute(aggregate, args, input, session),
    }
}

#[derive(Default)]
struct Count {
    counts: Vec<i64>,
}

impl State for Count {
    fn grow(&mut self, groups: usize) {
        resize(&mut self.counts, groups);
    }

    fn update(&mut self, groups: &[u32], args: &[ArrayRef], weights: &[i64]) -> Result<()> {
        let nulls: Vec<_> = args.iter().filter_map(|a| a.logical_nulls()).collect();
        for (row, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if nulls.iter().all(|n| n.is_valid(row)) {
                self.counts[*group as usize] += weight;
            }
        }
        Ok(())
    }

    fn output(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        Ok(Arc::new(groups.iter().map(|g| self.counts[*g as usize]).collect::<Int64Array>()))
    }

    fn reset(&mut self, group: u32) {
        self.counts[group as usize] = 0;
    }

    fn bytes(&self) -> usize {
        self.counts.capacity() * 8
    }
}

/// Sums of integers and decimals, and averages of decimals.
struct Exact {
    output: DataType,
    /// For an average: what widens the sum to the output's scale.
    average: Option<i128>,
    sums: Vec<i128>,
    counts: Vec<i64>,
}

impl State for Exact {
    fn grow(&mut self, groups: usize) {
        resize(&mut self.sums, groups);
        resize(&mut self.counts, groups);
    }

    fn update(&mut self, groups: &[u32], args: &[ArrayRef], weights: &[i64]) -> Result<()> {
        let values = &args[0];
        let widened: Vec<i128>;
        let values_i128: &[i128] = match values.data_type() {
            DataType::Decimal128(_, _) => values.as_primitive::<Decimal128Type>().values(),
            DataType::UInt64 => {
                widened = values.as_primitive::<UInt64Type>().values().iter().map(|v| i128::from(*v)).collect();
                &widened
            }
            _ => {
                let ints = cast(values, &DataType::Int64)?;
                widened = ints.as_primitive::<Int64Type>().values().iter().map(|v| i128::from(*v)).collect();
                &widened
            }
        };
        for (row, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight == 0 || values.is_null(row) {
                continue;
            }
            let sum = &mut self.sums[*group as usize];
            *sum = values_i128[row]
                .checked_mul(i128::from(*weight))
                .and_then(|v| sum.checked_add(v))
                .ok_or_else(|| overflow(&self.output))?;
            self.counts[*group as usize] += weight;
        }
        Ok(())
    }

    fn output(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let mut values: Vec<Option<i128>> = Vec::with_capacity(groups.len());
        for group in groups {
            let count = self.counts[*group as usize];
            let sum = self.sums[*group as usize];
            values.push(match (count, self.average) {
                (0, _) => None,
                (_, None) => Some(sum),
                // As the stock average: widened, then cut off.
                (_, Some(widen)) => {
                    Some(sum.checked_mul(widen).ok_or_else(|| overflow(&self.output))? / i128::from(count))
                }
            });
        }
        match &self.output {
            DataType::Int64 => {
                let ints: Result<Vec<Option<i64>>> =
                    values.into_iter().map(|v| v.map(|v| i64::try_from(v).map_err(|_| overflow(&self.output))).transpose()).collect();
                Ok(Arc::new(Int64Array::from(ints?)))
            }
            DataType::UInt64 => {
                let ints: Result<Vec<Option<u64>>> =
                    values.into_iter().map(|v| v.map(|v| u64::try_from(v).map_err(|_| overflow(&self.output))).transpose()).collect();
                Ok(Arc::new(UInt64Array::from(ints?)))
            }
            DataType::Decimal128(precision, scale) => {
                for value in values.iter().flatten() {
                    Decimal128Type::validate_decimal_precision(*value, *precision, *scale)
                        .map_err(|_| overflow(&self.output))?;
                }
                Ok(Arc::new(Decimal128Array::from(values).with_precision_and_scale(*precision, *scale)?))
            }
            other => Err(Error::internal(format!("no exact sum of {other}"))),
        }
    }

    fn reset(&mut self, group: u32) {
        self.sums[group as usize] = 0;
        self.counts[group as usize] = 0;
    }

    fn bytes(&self) -> usize {
        self.sums.capacity() * 16 + self.counts.capacity() * 8
    }
}

fn overflow(output: &DataType) -> Error {
    Error::user("overflow", format!("a sum or average does not fit {}", crate::types::sql_type_name(output)))
        .with_hint("cast the argument to a wider type, for example DECIMAL(38, 2)")
}

/// Sums and averages of floats.
struct Float {
    average: bool,
    groups: Vec<(ExactSum, i64)>,
}

impl State for Float {
    fn grow(&mut self, groups: usize) {
        resize(&mut self.groups, groups);
    }

    fn update(&mut self, groups: &[u32], args: &[ArrayRef], weights: &[i64]) -> Result<()> {
        let values = cast(&args[0], &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        for (row, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight != 0 && values.is_valid(row) {
                let (sum, count) = &mut self.groups[*group as usize];
                sum.add(values.value(row), *weight);
                *count += weight;
            }
        }
        Ok(())
    }

    fn output(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let values = groups.iter().map(|g| {
            let (sum, count) = &self.groups[*g as usize];
            match (*count, self.average) {
                (0, _) => None,
                (_, false) => Some(sum.value()),
                (count, true) => Some(sum.avg(count)),
            }
        });
        Ok(Arc::new(values.collect::<Float64Array>()))
    }

    fn reset(&mut self, group: u32) {
        self.groups[group as usize] = Default::default();
    }

    fn bytes(&self) -> usize {
        self.groups.iter().map(|(sum, _)| sum.size() + 8).sum()
    }
}

/// Smallest or largest value.
struct Extreme {
    largest: bool,
    codec: RowCodec,
    data_type: DataType,
    groups: Vec<BTreeMap<Box<[u8]>, i64>>,
    rows: usize,
}

impl State for Extreme {
    fn grow(&mut self, groups: usize) {
        resize(&mut self.groups, groups);
        if groups == 0 {
            self.rows = 0;
        }
    }

    fn update(&mut self, groups: &[u32], args: &[ArrayRef], weights: &[i64]) -> Result<()> {
        let rows = self.codec.encode(&args[..1])?;
        let nulls = args[0].logical_nulls();
        for (row, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight == 0 || nulls.as_ref().is_some_and(|n| n.is_null(row)) {
                continue;
            }
            change(&mut self.groups[*group as usize], rows.row(row).data().into(), *weight, &mut self.rows);
        }
        Ok(())
    }

    fn output(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let mut found: Vec<&[u8]> = Vec::with_capacity(groups.len());
        let mut at: Vec<Option<u64>> = Vec::with_capacity(groups.len());
        for group in groups {
            let values = &self.groups[*group as usize];
            let value = if self.largest { values.last_key_value() } else { values.first_key_value() };
            at.push(value.map(|(bytes, weight)| {
                debug_assert!(*weight > 0);
                found.push(bytes.as_ref());
                (found.len() - 1) as u64
            }));
        }
        if found.is_empty() {
            return Ok(new_null_array(&self.data_type, groups.len()));
        }
        let values = self.codec.decode(found)?;
        Ok(arrow::compute::take(&values[0], &UInt64Array::from(at), None)?)
    }

    fn reset(&mut self, group: u32) {
        self.rows -= std::mem::take(&mut self.groups[group as usize]).len();
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn bytes(&self) -> usize {
        self.rows * 64 + self.groups.capacity() * 24
    }
}

/// Adds `weight` to a value of a multiset; values of weight 0 leave it.
fn change<K: Ord>(values: &mut BTreeMap<K, i64>, key: K, weight: i64, rows: &mut usize) {
    match values.entry(key) {
        std::collections::btree_map::Entry::Vacant(vacant) => {
            vacant.insert(weight);
            *rows += 1;
        }
        std::collections::btree_map::Entry::Occupied(mut entry) => {
            *entry.get_mut() += weight;
            if *entry.get() == 0 {
                entry.remove();
                *rows -= 1;
            }
        }
    }
}

/// bool_and, bool_or.
struct Bool {
    and: bool,
    /// How many are true, how many false.
    groups: Vec<(i64, i64)>,
}

impl State for Bool {
    fn grow(&mut self, groups: usize) {
        resize(&mut self.groups, groups);
    }

    fn update(&mut self, groups: &[u32], args: &[ArrayRef], weights: &[i64]) -> Result<()> {
        let values = args[0].as_boolean();
        for (row, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if values.is_valid(row) {
                let (yes, no) = &mut self.groups[*group as usize];
                *(if values.value(row) { yes } else { no }) += weight;
            }
        }
        Ok(())
    }

    fn output(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let values = groups.iter().map(|g| match (self.groups[*g as usize], self.and) {
            ((0, 0), _) => None,
            ((_, no), true) => Some(no == 0),
            ((yes, _), false) => Some(yes > 0),
        });
        Ok(Arc::new(values.collect::<BooleanArray>()))
    }

    fn reset(&mut self, group: u32) {
        self.groups[group as usize] = (0, 0);
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * 16
    }
}

type RowBytes = (Box<[u8]>, Box<[u8]>);

/// Any other aggregate: its rows are kept in order (ORDER BY columns, then arguments) and the stock accumulator is run again.
struct Recompute {
    function: AggregateFunctionExpr,
    /// Arguments come first, then the ORDER BY columns.
    arguments: usize,
    order: Option<RowCodec>,
    codec: RowCodec,
    output: DataType,
    groups: Vec<BTreeMap<RowBytes, i64>>,
    rows: usize,
    bytes: usize,
}

fn recompute(
    aggregate: &Aggregate,
    args: Vec<Bound>,
    input: &DFSchema,
    session: &SessionState,
) -> Result<(Vec<Bound>, Box<dyn State>)> {
    let mut call = &aggregate.call;
    while let Expr::Alias(alias) = call {
        call = &alias.expr;
    }
    let Expr::AggregateFunction(function) = call else {
        return Err(Error::internal(format!("not an aggregate: {}", aggregate.call)));
    };
    let params = &function.params;
    let mut order = Vec::with_capacity(params.order_by.len());
    let mut options = Vec::with_capacity(params.order_by.len());
    for sort in &params.order_by {
        let option = SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
        order.push(PhysicalSortExpr { expr: expr::bind(&sort.expr, input, session)?, options: option });
        options.push(option);
    }
    let ignore_nulls = params.null_treatment == Some(NullTreatment::IgnoreNulls);
    let function = AggregateExprBuilder::new(Arc::clone(&function.func), args.clone())
        .schema(Arc::new(input.as_arrow().clone()))
        .alias(aggregate.call.schema_name().to_string())
        .order_by(order.clone())
        .with_distinct(params.distinct)
        .with_ignore_nulls(ignore_nulls)
        .build()?;
    let output = function.field().data_type().clone();
    let arguments = args.len();
    let order_types =
        order.iter().map(|o| Ok(o.expr.data_type(input.as_arrow())?)).collect::<Result<Vec<DataType>>>()?;
    let mut wanted = args;
    wanted.extend(order.into_iter().map(|o| o.expr));
    let state = Recompute {
        arguments,
        order: if order_types.is_empty() { None } else { Some(RowCodec::with_options(&order_types, &options)?) },
        codec: RowCodec::new(&expr::types(&wanted, input)?)?,
        function,
        output,
        groups: Vec::new(),
        rows: 0,
        bytes: 0,
    };
    Ok((wanted, Box::new(state)))
}

impl State for Recompute {
    fn grow(&mut self, groups: usize) {
        resize(&mut self.groups, groups);
        if groups == 0 {
            (self.rows, self.bytes) = (0, 0);
        }
    }

    fn update(&mut self, groups: &[u32], args: &[ArrayRef], weights: &[i64]) -> Result<()> {
        let rows = self.codec.encode(args)?;
        let order = self.order.as_ref().map(|codec| codec.encode(&args[self.arguments..])).transpose()?;
        for (row, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if *weight == 0 {
                continue;
            }
            let place: Box<[u8]> = order.as_ref().map_or_else(Default::default, |o| o.row(row).data().into());
            let bytes: Box<[u8]> = rows.row(row).data().into();
            let size = place.len() + bytes.len() + 64;
            let before = self.rows;
            change(&mut self.groups[*group as usize], (place, bytes), *weight, &mut self.rows);
            match self.rows.cmp(&before) {
                std::cmp::Ordering::Greater => self.bytes += size,
                std::cmp::Ordering::Less => self.bytes = self.bytes.saturating_sub(size),
                std::cmp::Ordering::Equal => {}
            }
        }
        Ok(())
    }

    fn output(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        if groups.is_empty() {
            return Ok(new_null_array(&self.output, 0));
        }
        let mut values = Vec::with_capacity(groups.len());
        for group in groups {
            let mut accumulator = self.function.create_accumulator()?;
            let rows = self.groups[*group as usize].iter();
            let expanded: Vec<&[u8]> = rows
                .flat_map(|((_, row), weight)| std::iter::repeat_n(row.as_ref(), usize::try_from(*weight).unwrap_or(0)))
                .collect();
            if !expanded.is_empty() {
                accumulator.update_batch(&self.codec.decode(expanded)?)?;
            }
            values.push(accumulator.evaluate()?);
        }
        Ok(ScalarValue::iter_to_array(values)?)
    }

    fn reset(&mut self, group: u32) {
        let rows = std::mem::take(&mut self.groups[group as usize]);
        self.rows -= rows.len();
        let size: usize = rows.keys().map(|(a, b)| a.len() + b.len() + 64).sum();
        self.bytes = self.bytes.saturating_sub(size);
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

fn resize<T: Default + Clone>(values: &mut Vec<T>, len: usize) {
    if len == 0 {
        *values = Vec::new();
    } else if values.len() < len {
        values.resize(len, T::default());
    }
}

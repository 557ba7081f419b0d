//! Linear aggregates: what a row adds, its retraction takes away.

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array, Decimal256Array, Float64Array,
    Int64Array, PrimitiveArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type, DecimalType, Float64Type, Int64Type,
    UInt64Type, i256,
};
use std::sync::Arc;

use super::calls::{Change, GroupStates, left_over, picked};
use crate::error::{Error, Result};
use crate::state::{ExactSum, Narrow, StateReader, StateWriter, Totals};
use crate::types::Weight;

fn overflow(what: &str, data_type: &DataType) -> Error {
    Error::user("overflow", format!("{what} does not fit {data_type}"))
        .with_hint("cast the argument to a wider DECIMAL: sum(cast(x as decimal(38, 0)))")
}

fn primitives<T: ArrowPrimitiveType>(array: &ArrayRef) -> Result<PrimitiveArray<T>> {
    let array = if array.data_type() == &T::DATA_TYPE { Arc::clone(array) } else { cast(array, &T::DATA_TYPE)? };
    array.as_primitive_opt::<T>().cloned().ok_or_else(|| Error::internal("an aggregate's argument has another type"))
}

/// count(*), count(x, …).
#[derive(Default)]
pub(super) struct Counts(Narrow);

impl GroupStates for Counts {
    fn grow(&mut self, bound: usize) {
        self.0.resize(bound);
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        if change.args.len() <= 1 {
            for (_, group, weight) in change.present() {
                self.0.add(group, weight);
            }
            return Ok(());
        }
        let nulls: Vec<_> = change.args.iter().filter_map(|a| a.logical_nulls()).collect();
        for (_, group, weight) in change.present().filter(|(i, ..)| nulls.iter().all(|n| n.is_valid(*i))) {
            self.0.add(group, weight);
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(groups.iter().map(|g| self.0.get(*g as usize)))))
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        if self.0.get(group as usize) == 0 { Ok(()) } else { Err(left_over()) }
    }

    fn keep(&mut self, groups: &[u32]) -> Result<()> {
        self.0 = self.0.picked(groups);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.0.heap_size()
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        self.0.save("counts", out);
        Ok(())
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        self.0 = Narrow::restore("counts", bound, from)?;
        Ok(())
    }
}

/// Sum and count of the non-NULL values.
#[derive(Clone, Default)]
struct Total<T> {
    sum: T,
    count: i64,
}

/// Exact sums and counts of the non-NULL values, by group. Whether a sum fits its type is asked when it is read: transient ones do not
/// matter.
#[derive(Default)]
pub(super) struct ExactTotals {
    sums: Totals,
    counts: Narrow,
}

impl ExactTotals {
    fn grow(&mut self, bound: usize) {
        self.sums.grow(bound);
        self.counts.resize(bound);
    }

    /// The sum, unless there was no value.
    fn get(&self, group: u32) -> Option<i256> {
        (self.counts.get(group as usize) != 0).then(|| self.sums.get(group))
    }

    fn add(&mut self, group: usize, value: i128, weight: Weight) -> Result<()> {
        self.sums.add(group, value, weight).ok_or_else(too_wide)?;
        self.counts.add(group, weight);
        Ok(())
    }

    /// Adds decimals of any width, in units of the argument's scale.
    fn add_decimals(&mut self, change: &Change<'_>) -> Result<()> {
        let argument = &change.args[0];
        if let Some(values) = argument.as_primitive_opt::<Decimal128Type>() {
            return change.present().try_for_each(|(i, group, weight)| self.add(group, values.value(i), weight));
        }
        let scale = scale_of(argument.data_type());
        let wide = cast(argument, &DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale))?;
        let values = wide.as_primitive_opt::<Decimal256Type>();
        let values = values.ok_or_else(|| Error::internal("a decimal argument is no decimal"))?;
        change.present().try_for_each(|(i, group, weight)| {
            self.sums.add_wide(group, values.value(i), weight).ok_or_else(too_wide)?;
            self.counts.add(group, weight);
            Ok(())
        })
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        if self.sums.is_zero(group) && self.counts.get(group as usize) == 0 { Ok(()) } else { Err(left_over()) }
    }

    fn keep(&mut self, groups: &[u32]) {
        (self.sums, self.counts) = (self.sums.picked(groups), self.counts.picked(groups));
    }

    fn bytes(&self) -> usize {
        self.sums.heap_size() + self.counts.heap_size()
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        self.sums.save(out);
        self.counts.save("sums.counts", out);
        Ok(())
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        self.sums = Totals::restore(from, bound)?;
        self.counts = Narrow::restore("sums.counts", bound, from)?;
        Ok(())
    }
}

fn too_wide() -> Error {
    Error::user("overflow", "a sum has more than 76 digits")
}

/// sum of integers, checked against the output type when it is read.
pub(super) struct IntegerSums {
    totals: ExactTotals,
    output: DataType,
}

impl IntegerSums {
    pub fn new(output: DataType) -> Self {
        IntegerSums { totals: ExactTotals::default(), output }
    }
}

impl GroupStates for IntegerSums {
    fn grow(&mut self, bound: usize) {
        self.totals.grow(bound);
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        let totals = &mut self.totals;
        if self.output == DataType::UInt64 {
            let values = primitives::<UInt64Type>(&change.args[0])?;
            change.present().try_for_each(|(i, group, weight)| totals.add(group, i128::from(values.value(i)), weight))
        } else {
            let values = primitives::<Int64Type>(&change.args[0])?;
            change.present().try_for_each(|(i, group, weight)| totals.add(group, i128::from(values.value(i)), weight))
        }
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let error = || overflow("a sum", &self.output);
        let sums = groups.iter().map(|group| {
            let sum = self.totals.get(*group).map(|sum| sum.to_i128().ok_or_else(error));
            sum.transpose()
        });
        if self.output == DataType::UInt64 {
            let fit = |sum: i128| u64::try_from(sum).map_err(|_| error());
            return Ok(Arc::new(sums.map(|s| s?.map(fit).transpose()).collect::<Result<UInt64Array>>()?));
        }
        let fit = |sum: i128| i64::try_from(sum).map_err(|_| error());
        Ok(Arc::new(sums.map(|s| s?.map(fit).transpose()).collect::<Result<Int64Array>>()?))
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        self.totals.clear(group)
    }

    fn keep(&mut self, groups: &[u32]) -> Result<()> {
        self.totals.keep(groups);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.totals.bytes()
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        self.totals.save(out)
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        self.totals.restore(from, bound)
    }
}

fn scale_of(data_type: &DataType) -> i8 {
    match data_type {
        DataType::Decimal32(_, s)
        | DataType::Decimal64(_, s)
        | DataType::Decimal128(_, s)
        | DataType::Decimal256(_, s) => *s,
        _ => 0,
    }
}

/// Values in units of `output`'s scale as an array of that type; one that has too many digits is an error.
fn decimals(values: Vec<Option<i256>>, what: &str, output: &DataType) -> Result<ArrayRef> {
    let error = || overflow(what, output);
    let narrow = |p: u8, s: i8| -> Result<Decimal128Array> {
        let narrow = |v: i256| {
            let v = v.to_i128().ok_or_else(error)?;
            Decimal128Type::validate_decimal_precision(v, p, s).map_err(|_| error())?;
            Ok(v)
        };
        let values = values.iter().map(|v| v.map(narrow).transpose()).collect::<Result<Decimal128Array>>()?;
        Ok(values.with_precision_and_scale(p, s)?)
    };
    Ok(match output {
        DataType::Decimal128(p, s) => Arc::new(narrow(*p, *s)?),
        DataType::Decimal256(p, s) => {
            let valid =
                |v: i256| Decimal256Type::validate_decimal_precision(v, *p, *s).map(|()| v).map_err(|_| error());
            let values = values.iter().map(|v| v.map(valid).transpose()).collect::<Result<Decimal256Array>>()?;
            Arc::new(values.with_precision_and_scale(*p, *s)?)
        }
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => cast(&narrow(*p, *s)?, output)?,
        other => return Err(Error::internal(format!("{what} cannot be {other}"))),
    })
}

/// sum of decimals.
pub(super) struct DecimalSums {
    totals: ExactTotals,
    output: DataType,
}

impl DecimalSums {
    pub fn new(output: DataType) -> Self {
        DecimalSums { totals: ExactTotals::default(), output }
    }
}

impl GroupStates for DecimalSums {
    fn grow(&mut self, bound: usize) {
        self.totals.grow(bound);
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        self.totals.add_decimals(change)
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        decimals(groups.iter().map(|g| self.totals.get(*g)).collect(), "a sum", &self.output)
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        self.totals.clear(group)
    }

    fn keep(&mut self, groups: &[u32]) -> Result<()> {
        self.totals.keep(groups);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.totals.bytes()
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        self.totals.save(out)
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        self.totals.restore(from, bound)
    }
}

/// sum of floats: exact, rounded once.
#[derive(Default)]
pub(super) struct FloatSums {
    totals: Vec<Total<ExactSum>>,
    /// Bytes of the sums on the heap.
    heap: usize,
}

impl FloatSums {
    fn value_of(&self, group: u32) -> Option<(f64, i64)> {
        let total = &self.totals[group as usize];
        (total.count != 0).then(|| (total.sum.value(), total.count))
    }
}

impl GroupStates for FloatSums {
    fn grow(&mut self, bound: usize) {
        self.totals.resize(bound, Total::default());
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        let values = primitives::<Float64Type>(&change.args[0])?;
        for (i, group, weight) in change.present() {
            let total = &mut self.totals[group];
            let before = total.sum.heap_size();
            total.sum.add(values.value(i), weight);
            total.count += weight;
            self.heap = self.heap + total.sum.heap_size() - before;
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let sums = groups.iter().map(|g| self.value_of(*g).map(|(sum, _)| sum));
        Ok(Arc::new(sums.collect::<Float64Array>()))
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        let total = std::mem::take(&mut self.totals[group as usize]);
        self.heap -= total.sum.heap_size();
        if total.sum.is_zero() && total.count == 0 { Ok(()) } else { Err(left_over()) }
    }

    fn keep(&mut self, groups: &[u32]) -> Result<()> {
        self.totals = picked(&mut self.totals, groups);
        self.heap = self.totals.iter().map(|total| total.sum.heap_size()).sum();
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.totals.capacity() * size_of::<Total<ExactSum>>() + self.heap
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        let mut lengths = Vec::with_capacity(self.totals.len());
        let mut bytes = Vec::new();
        for total in &self.totals {
            let start = bytes.len();
            total.sum.write_bytes(&mut bytes);
            lengths.push((bytes.len() - start) as u32);
        }
        out.words("sums.exact", lengths);
        out.bytes("sums.exact", bytes);
        out.words("sums.counts", self.totals.iter().map(|t| t.count));
        Ok(())
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        let sums = from.strings("sums.exact")?;
        let counts = from.exactly::<i64>("sums.counts", bound)?;
        let total = |(bytes, count): (&[u8], i64)| Some(Total { sum: ExactSum::from_bytes(bytes)?, count });
        let totals: Option<Vec<Total<ExactSum>>> = sums.iter().zip(counts).map(total).collect();
        self.totals = totals
            .filter(|totals| totals.len() == bound)
            .ok_or_else(|| Error::internal("stored sums are no sums of this version"))?;
        self.heap = self.totals.iter().map(|t| t.sum.heap_size()).sum();
        Ok(())
    }
}

/// avg: sum and count, divided when read as the stock function divides.
pub(super) enum Averages {
    Float(FloatSums),
    Decimal { totals: ExactTotals, scale: i8, output: DataType },
}

impl Averages {
    pub fn float() -> Self {
        Averages::Float(FloatSums::default())
    }

    pub fn decimal(argument: &DataType, output: DataType) -> Self {
        Averages::Decimal { totals: ExactTotals::default(), scale: scale_of(argument), output }
    }
}

impl GroupStates for Averages {
    fn grow(&mut self, bound: usize) {
        match self {
            Averages::Float(sums) => sums.grow(bound),
            Averages::Decimal { totals, .. } => totals.grow(bound),
        }
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        match self {
            Averages::Float(sums) => sums.update(change),
            Averages::Decimal { totals, .. } => totals.add_decimals(change),
        }
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        match self {
            Averages::Float(sums) => {
                let averages = groups.iter().map(|g| sums.value_of(*g).map(|(sum, count)| sum / count as f64));
                Ok(Arc::new(averages.collect::<Float64Array>()))
            }
            Averages::Decimal { totals, scale, output } => {
                // DataFusion widens the scale, then truncates the quotient.
                let widen = u32::try_from(i32::from(scale_of(output)) - i32::from(*scale)).unwrap_or(0);
                let factor = i256::from_i128(10).checked_pow(widen);
                let average = |group: &u32| {
                    let count = i256::from_i128(i128::from(totals.counts.get(*group as usize)));
                    let average = |sum: i256| factor.and_then(|f| sum.checked_mul(f))?.checked_div(count);
                    let error = || overflow("an average", output);
                    totals.get(*group).map(|sum| average(sum).ok_or_else(error)).transpose()
                };
                let averages = groups.iter().map(average).collect::<Result<Vec<_>>>()?;
                decimals(averages, "an average", output)
            }
        }
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        match self {
            Averages::Float(sums) => sums.clear(group),
            Averages::Decimal { totals, .. } => totals.clear(group),
        }
    }

    fn keep(&mut self, groups: &[u32]) -> Result<()> {
        match self {
            Averages::Float(sums) => sums.keep(groups)?,
            Averages::Decimal { totals, .. } => totals.keep(groups),
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        match self {
            Averages::Float(sums) => sums.bytes(),
            Averages::Decimal { totals, .. } => totals.bytes(),
        }
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        match self {
            Averages::Float(sums) => sums.save(out),
            Averages::Decimal { totals, .. } => totals.save(out),
        }
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        match self {
            Averages::Float(sums) => sums.restore(from, bound),
            Averages::Decimal { totals, .. } => totals.restore(from, bound),
        }
    }
}

/// bool_and and bool_or: how many values decide, and how many there are.
pub(super) struct Booleans {
    /// The value that decides alone: FALSE for bool_and, TRUE for bool_or.
    decisive: bool,
    counts: Vec<(i64, i64)>,
}

impl Booleans {
    pub fn all() -> Self {
        Booleans { decisive: false, counts: Vec::new() }
    }

    pub fn any() -> Self {
        Booleans { decisive: true, counts: Vec::new() }
    }
}

impl GroupStates for Booleans {
    fn grow(&mut self, bound: usize) {
        self.counts.resize(bound, (0, 0));
    }

    fn update(&mut self, change: &Change<'_>) -> Result<()> {
        let argument = cast(&change.args[0], &DataType::Boolean)?;
        let values = argument.as_boolean();
        for (i, group, weight) in change.present() {
            let (decisive, all) = &mut self.counts[group];
            *all += weight;
            if values.value(i) == self.decisive {
                *decisive += weight;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let value = |(decisive, all): (i64, i64)| (all != 0).then_some((decisive != 0) == self.decisive);
        Ok(Arc::new(groups.iter().map(|g| value(self.counts[*g as usize])).collect::<BooleanArray>()))
    }

    fn clear(&mut self, group: u32) -> Result<()> {
        if self.counts[group as usize] == (0, 0) { Ok(()) } else { Err(left_over()) }
    }

    fn keep(&mut self, groups: &[u32]) -> Result<()> {
        self.counts = picked(&mut self.counts, groups);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.counts.capacity() * 16
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        out.words("booleans.decisive", self.counts.iter().map(|(decisive, _)| *decisive));
        out.words("booleans.all", self.counts.iter().map(|(_, all)| *all));
        Ok(())
    }

    fn restore(&mut self, from: &mut StateReader, bound: usize) -> Result<()> {
        let decisive = from.exactly("booleans.decisive", bound)?.into_iter();
        self.counts = decisive.zip(from.exactly("booleans.all", bound)?).collect();
        Ok(())
    }
}

//! The exact aggregates as DataFusion sees them: the stock functions' names, arguments and types, our accumulators.

use super::bits::Parity;
use super::cells::{self, Groups, One};
use super::distinct::{self, Distinct};
use super::moments::{Pairs, Spread, Statistic};
use super::total::{Finish, IntegerTotal, Total};
use crate::state::ExactSum;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::bit_and_or_xor::bit_xor_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::functions_aggregate::{correlation, covariance, regr, stddev, variance};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, Signature,
};
use std::sync::Arc;

/// `sum` and `try_sum`, `avg` (`mean`), variances, covariances, `corr`, the `regr_*` family and `bit_xor`. `regr_count` is exact as it is.
pub fn functions() -> Vec<AggregateUDF> {
    let moments = [
        (variance::var_samp_udaf(), Statistic::VarSamp),
        (variance::var_pop_udaf(), Statistic::VarPop),
        (stddev::stddev_udaf(), Statistic::StddevSamp),
        (stddev::stddev_pop_udaf(), Statistic::StddevPop),
        (covariance::covar_samp_udaf(), Statistic::CovarSamp),
        (covariance::covar_pop_udaf(), Statistic::CovarPop),
        (correlation::corr_udaf(), Statistic::Corr),
        (regr::regr_slope_udaf(), Statistic::Slope),
        (regr::regr_intercept_udaf(), Statistic::Intercept),
        (regr::regr_r2_udaf(), Statistic::R2),
        (regr::regr_avgx_udaf(), Statistic::AvgX),
        (regr::regr_avgy_udaf(), Statistic::AvgY),
        (regr::regr_sxx_udaf(), Statistic::Sxx),
        (regr::regr_syy_udaf(), Statistic::Syy),
        (regr::regr_sxy_udaf(), Statistic::Sxy),
    ];
    [(sum_udaf(), Wanted::Sum), (sum_udaf(), Wanted::TrySum), (avg_udaf(), Wanted::Avg), (bit_xor_udaf(), Wanted::Xor)]
        .into_iter()
        .chain(moments.into_iter().map(|(stock, statistic)| (stock, Wanted::Moment(statistic))))
        .map(|(stock, wanted)| AggregateUDF::from(Exact { stock, wanted }))
        .collect()
}

/// One of them, over the stock function it replaces.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Exact {
    stock: Arc<AggregateUDF>,
    wanted: Wanted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Wanted {
    Sum,
    /// NULL where the sum does not fit its type.
    TrySum,
    Avg,
    Xor,
    Moment(Statistic),
}

/// What total a call accumulates, and how it ends.
pub enum Kind {
    /// [`IntegerTotal`]
    Integer(Finish),
    /// [`ExactSum`]
    Float(Finish),
    /// [`Spread`]
    Spread(Finish),
    /// [`Pairs`]
    Pairs(Finish),
    /// [`Parity`]
    Parity(Finish),
}

/// Whether it is one of [`functions`]: another of the same name may mean something else.
pub fn is_exact(function: &AggregateUDF) -> bool {
    function.inner().downcast_ref::<Exact>().is_some()
}

/// What `function` accumulates over arguments of these types; None where it is none of ours, or goes to the stock function.
pub fn kind(function: &AggregateUDF, arguments: &[DataType], result: &DataType, distinct: bool) -> Option<Kind> {
    function.inner().downcast_ref::<Exact>()?.kind(arguments, result, distinct)
}

impl Exact {
    fn kind(&self, arguments: &[DataType], result: &DataType, distinct: bool) -> Option<Kind> {
        let doubles = arguments.iter().all(|a| a == &DataType::Float64);
        Some(match (self.wanted, arguments.first()?) {
            (Wanted::Moment(statistic), _) if doubles && arguments.len() == 1 && statistic.is_single() => {
                Kind::Spread(Finish::Statistic(statistic))
            }
            (Wanted::Moment(statistic), _) if doubles && arguments.len() == 2 && !distinct => {
                Kind::Pairs(Finish::Statistic(statistic))
            }
            (Wanted::Avg, DataType::Float64) => Kind::Float(Finish::Avg),
            (Wanted::Sum | Wanted::TrySum, DataType::Float64) => Kind::Float(Finish::Sum(result.clone())),
            (
                wanted @ (Wanted::Sum | Wanted::TrySum),
                DataType::Int64
                | DataType::UInt64
                | DataType::Decimal32(..)
                | DataType::Decimal64(..)
                | DataType::Decimal128(..),
            ) => Kind::Integer(match wanted {
                Wanted::TrySum => Finish::TrySum(result.clone()),
                _ => Finish::Sum(result.clone()),
            }),
            (Wanted::Xor, argument) if argument.is_integer() => Kind::Parity(Finish::Sum(result.clone())),
            // Stock averages of decimals are exact: they add in a wider decimal.
            _ => return None,
        })
    }

    fn kind_of(&self, args: &AccumulatorArgs) -> Option<Kind> {
        self.kind(&types(args.expr_fields), args.return_field.data_type(), args.is_distinct)
    }
}

fn types(fields: &[FieldRef]) -> Vec<DataType> {
    fields.iter().map(|field| field.data_type().clone()).collect()
}

fn one<T: Total>(finish: Finish, args: &AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
    let data_type = args.return_field.data_type();
    Ok(if args.is_distinct {
        Box::new(Distinct::<T>::new(finish, data_type)?)
    } else {
        Box::new(One::<T>::new(finish, data_type)?)
    })
}

impl AggregateUDFImpl for Exact {
    fn name(&self) -> &str {
        match self.wanted {
            Wanted::TrySum => "try_sum",
            _ => self.stock.name(),
        }
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

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match self.kind_of(&args) {
            Some(Kind::Integer(finish)) => one::<IntegerTotal>(finish, &args),
            Some(Kind::Float(finish)) => one::<ExactSum>(finish, &args),
            Some(Kind::Spread(finish)) => one::<Spread>(finish, &args),
            Some(Kind::Pairs(finish)) => one::<Pairs>(finish, &args),
            Some(Kind::Parity(finish)) => one::<Parity>(finish, &args),
            None => self.stock.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match self.kind_of(&args) {
            None => self.stock.create_sliding_accumulator(args),
            // Ours can always slide.
            Some(_) => self.accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        match self.kind(&types(args.input_fields), args.return_field.data_type(), args.is_distinct) {
            None => self.stock.state_fields(args),
            _ if args.is_distinct => Ok(distinct::state_fields(args.name)),
            _ => Ok(cells::state_fields(args.name)),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        match self.kind_of(&args) {
            None => self.stock.groups_accumulator_supported(args),
            Some(_) => !args.is_distinct,
        }
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let data_type = args.return_field.data_type();
        Ok(match self.kind_of(&args) {
            Some(Kind::Integer(finish)) => Box::new(Groups::<IntegerTotal>::new(finish, data_type)?),
            Some(Kind::Float(finish)) => Box::new(Groups::<ExactSum>::new(finish, data_type)?),
            Some(Kind::Spread(finish)) => Box::new(Groups::<Spread>::new(finish, data_type)?),
            Some(Kind::Pairs(finish)) => Box::new(Groups::<Pairs>::new(finish, data_type)?),
            Some(Kind::Parity(finish)) => Box::new(Groups::<Parity>::new(finish, data_type)?),
            None => return self.stock.create_groups_accumulator(args),
        })
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.stock.documentation()
    }
}

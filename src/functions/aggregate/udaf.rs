//! The exact aggregates as DataFusion sees them: the stock functions' names, arguments and types, our accumulators.

use super::cells::{self, Groups, One};
use super::distinct::{self, Distinct};
use super::moments::{Pairs, Spread, Statistic};
use super::total::{Finish, IntegerTotal, Total};
use crate::state::ExactSum;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::functions_aggregate::{correlation, covariance, regr, stddev, variance};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, Signature,
};
use std::sync::Arc;

/// `sum`, `avg` (`mean`), variances, covariances, `corr` and the `regr_*` family. `regr_count` is exact as it is.
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
    [(sum_udaf(), Wanted::Sum), (avg_udaf(), Wanted::Avg)]
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
    Avg,
    Moment(Statistic),
}

/// How a call accumulates.
enum Kind {
    Integer(Finish),
    Float(Finish),
    Spread(Finish),
    Pairs(Finish),
    Stock,
}

impl Exact {
    fn kind(&self, arguments: &[FieldRef], result: &DataType, distinct: bool) -> Kind {
        let argument = arguments.first().map_or(&DataType::Null, |a| a.data_type());
        let doubles = arguments.iter().all(|a| a.data_type() == &DataType::Float64);
        match (self.wanted, argument) {
            (Wanted::Moment(statistic), _) if doubles && arguments.len() == 1 && statistic.is_single() => {
                Kind::Spread(Finish::Statistic(statistic))
            }
            (Wanted::Moment(statistic), _) if doubles && arguments.len() == 2 && !distinct => {
                Kind::Pairs(Finish::Statistic(statistic))
            }
            (Wanted::Avg, DataType::Float64) => Kind::Float(Finish::Avg),
            (Wanted::Sum, DataType::Float64) => Kind::Float(Finish::Sum(result.clone())),
            (
                Wanted::Sum,
                DataType::Int64
                | DataType::UInt64
                | DataType::Decimal32(..)
                | DataType::Decimal64(..)
                | DataType::Decimal128(..),
            ) => Kind::Integer(Finish::Sum(result.clone())),
            // Stock averages of decimals are exact: they add in a wider decimal.
            _ => Kind::Stock,
        }
    }

    fn kind_of(&self, args: &AccumulatorArgs) -> Kind {
        self.kind(args.expr_fields, args.return_field.data_type(), args.is_distinct)
    }
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

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match self.kind_of(&args) {
            Kind::Integer(finish) => one::<IntegerTotal>(finish, &args),
            Kind::Float(finish) => one::<ExactSum>(finish, &args),
            Kind::Spread(finish) => one::<Spread>(finish, &args),
            Kind::Pairs(finish) => one::<Pairs>(finish, &args),
            Kind::Stock => self.stock.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match self.kind_of(&args) {
            Kind::Stock => self.stock.create_sliding_accumulator(args),
            // Ours can always slide.
            _ => self.accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        match self.kind(args.input_fields, args.return_field.data_type(), args.is_distinct) {
            Kind::Stock => self.stock.state_fields(args),
            _ if args.is_distinct => Ok(distinct::state_fields(args.name)),
            _ => Ok(cells::state_fields(args.name)),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        match self.kind_of(&args) {
            Kind::Stock => self.stock.groups_accumulator_supported(args),
            _ => !args.is_distinct,
        }
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let data_type = args.return_field.data_type();
        Ok(match self.kind_of(&args) {
            Kind::Integer(finish) => Box::new(Groups::<IntegerTotal>::new(finish, data_type)?),
            Kind::Float(finish) => Box::new(Groups::<ExactSum>::new(finish, data_type)?),
            Kind::Spread(finish) => Box::new(Groups::<Spread>::new(finish, data_type)?),
            Kind::Pairs(finish) => Box::new(Groups::<Pairs>::new(finish, data_type)?),
            Kind::Stock => return self.stock.create_groups_accumulator(args),
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

//! `sum` and `avg` as DataFusion sees them: the stock functions' names, arguments and types, our accumulators.

use super::cells::{self, Groups, One};
use super::distinct::{self, Distinct};
use super::total::{Finish, IntegerTotal, Total};
use crate::state::ExactSum;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, Signature,
};
use std::sync::Arc;

/// `sum` and `avg` (`mean`).
pub fn functions() -> Vec<AggregateUDF> {
    [(sum_udaf(), false), (avg_udaf(), true)]
        .into_iter()
        .map(|(stock, average)| AggregateUDF::from(Exact { stock, average }))
        .collect()
}

/// One of them, over the stock function it replaces.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Exact {
    stock: Arc<AggregateUDF>,
    average: bool,
}

/// How a call accumulates.
enum Kind {
    Integer(Finish),
    Float(Finish),
    Stock,
}

impl Exact {
    fn kind(&self, argument: &DataType, result: &DataType) -> Kind {
        match argument {
            DataType::Float64 if self.average => Kind::Float(Finish::Avg),
            DataType::Float64 => Kind::Float(Finish::Sum(result.clone())),
            // Stock averages of decimals are exact: they add in a wider decimal.
            _ if self.average => Kind::Stock,
            DataType::Int64
            | DataType::UInt64
            | DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..) => Kind::Integer(Finish::Sum(result.clone())),
            _ => Kind::Stock,
        }
    }

    fn kind_of(&self, args: &AccumulatorArgs) -> Kind {
        match args.expr_fields {
            [argument] => self.kind(argument.data_type(), args.return_field.data_type()),
            _ => Kind::Stock,
        }
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
        let kind = match args.input_fields {
            [argument] => self.kind(argument.data_type(), args.return_field.data_type()),
            _ => Kind::Stock,
        };
        match kind {
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

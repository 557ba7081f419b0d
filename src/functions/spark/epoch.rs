//! Instants as numbers since 1970-01-01 00:00 UTC, and back: `unix_seconds`, `unix_millis`, `unix_micros`, `timestamp_millis`, `timestamp_micros`.
//!
//! What is smaller than the unit is dropped downwards, before 1970 too.

use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// The functions.
pub(super) fn functions() -> impl Iterator<Item = ScalarUDF> {
    [
        ("unix_seconds", Way::Count, 1_000_000),
        ("unix_millis", Way::Count, 1000),
        ("unix_micros", Way::Count, 1),
        ("timestamp_millis", Way::Instant, 1000),
        ("timestamp_micros", Way::Instant, 1),
    ]
    .into_iter()
    .map(|(name, way, unit)| {
        ScalarUDF::from(Epoch { name, way, unit, signature: Signature::user_defined(Volatility::Immutable) })
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    /// An instant to a number.
    Count,
    /// A number to an instant.
    Instant,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Epoch {
    name: &'static str,
    way: Way,
    /// µs.
    unit: i64,
    signature: Signature,
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl ScalarUDFImpl for Epoch {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.way, types) {
            (Way::Count, [t]) if t.is_temporal() || t.is_string() || t.is_null() => Ok(vec![timestamp()]),
            (Way::Instant, [t]) if t.is_integer() || t.is_null() => Ok(vec![DataType::Int64]),
            (Way::Count, _) => plan_err!("{} takes a timestamp or a date", self.name),
            (Way::Instant, _) => plan_err!("{} takes a whole number", self.name),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.way {
            Way::Count => DataType::Int64,
            Way::Instant => timestamp(),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(argument) = args.args.first() else { return plan_err!("{} takes one argument", self.name) };
        let constant = matches!(argument, ColumnarValue::Scalar(_));
        let values = argument.to_array(if constant { 1 } else { args.number_rows })?;
        let result: ArrayRef = match self.way {
            Way::Count => {
                let instants = cast(&values, &timestamp())?;
                let instants = instants.as_primitive::<TimestampMicrosecondType>();
                let counts: Int64Array = instants.unary(|micros| micros.div_euclid(self.unit));
                Arc::new(counts)
            }
            Way::Instant => {
                let numbers = cast(&values, &DataType::Int64)?;
                let numbers = numbers.as_primitive::<Int64Type>();
                let instants: TimestampMicrosecondArray = numbers.try_unary(|n| {
                    n.checked_mul(self.unit).ok_or_else(|| exec_datafusion_err!("{}({n}) is no timestamp", self.name))
                })?;
                Arc::new(instants.with_timezone("UTC"))
            }
        };
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

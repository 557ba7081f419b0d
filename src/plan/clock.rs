//! `now()`, `current_date` and `current_time` over a clock that is handed in.
//!
//! DataFusion folds them to a literal when it plans; a plan here lives for months. Ours are volatile, read the clock when they
//! are evaluated, and are allowed only where a row is computed once (streaming tables) or a query runs once.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// µs since 1970-01-01 UTC.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A clock that stands at 1970-01-01: for plans that are never run.
pub fn stopped() -> Clock {
    Arc::new(|| 0)
}

const DAY: i64 = 86_400_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Now,
    Date,
    Time,
}

struct ClockFunction {
    part: Part,
    aliases: Vec<String>,
    signature: Signature,
    clock: Clock,
}

impl fmt::Debug for ClockFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for ClockFunction {
    fn eq(&self, other: &Self) -> bool {
        self.part == other.part && Arc::ptr_eq(&self.clock, &other.clock)
    }
}

impl Eq for ClockFunction {}

impl Hash for ClockFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.part.hash(state);
    }
}

impl ScalarUDFImpl for ClockFunction {
    fn name(&self) -> &str {
        match self.part {
            Part::Now => "now",
            Part::Date => "current_date",
            Part::Time => "current_time",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(match self.part {
            Part::Now => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Part::Date => DataType::Date32,
            Part::Time => DataType::Time64(TimeUnit::Microsecond),
        })
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let now = (self.clock)();
        Ok(ColumnarValue::Scalar(match self.part {
            Part::Now => ScalarValue::TimestampMicrosecond(Some(now), Some("UTC".into())),
            Part::Date => ScalarValue::Date32(i32::try_from(now.div_euclid(DAY)).ok()),
            Part::Time => ScalarValue::Time64Microsecond(Some(now.rem_euclid(DAY))),
        }))
    }
}

/// The three functions, to be registered over DataFusion's.
pub(crate) fn functions(clock: &Clock) -> Vec<Arc<ScalarUDF>> {
    [(Part::Now, vec!["current_timestamp"]), (Part::Date, vec!["today"]), (Part::Time, vec![])]
        .into_iter()
        .map(|(part, aliases)| {
            Arc::new(ScalarUDF::new_from_impl(ClockFunction {
                part,
                aliases: aliases.into_iter().map(String::from).collect(),
                signature: Signature::nullary(Volatility::Volatile),
                clock: Arc::clone(clock),
            }))
        })
        .collect()
}

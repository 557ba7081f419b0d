//! `months_between(a, b[, round])`: how many months `a` lies behind `b`, as Spark, Snowflake and Oracle count them.
//!
//! Whole months where both are the same day of their months, or both the last; else days and times of day count against months of 31
//! days. Rounded to eight digits unless the third argument is false.

use arrow::array::{Array, AsArray, Float64Builder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct MonthsBetween {
    signature: Signature,
}

impl MonthsBetween {
    pub fn new() -> Self {
        MonthsBetween { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for MonthsBetween {
    fn name(&self) -> &str {
        "months_between"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let is_time = |t: &DataType| t.is_temporal() || t.is_string() || t.is_null();
        match types {
            [a, b] if is_time(a) && is_time(b) => Ok(vec![instant.clone(), instant]),
            [a, b, DataType::Boolean] if is_time(a) && is_time(b) => {
                Ok(vec![instant.clone(), instant, DataType::Boolean])
            }
            _ => plan_err!("months_between takes two dates or timestamps: months_between(later, earlier)"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let columns = args.args.iter().map(|a| a.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let [a, b, rounded @ ..] = columns.as_slice() else { return plan_err!("months_between takes two instants") };
        let (a, b) = (cast(a, &instant)?, cast(b, &instant)?);
        let (a, b) = (a.as_primitive::<TimestampMicrosecondType>(), b.as_primitive::<TimestampMicrosecondType>());
        let mut months = Float64Builder::with_capacity(rows);
        for row in 0..rows {
            let rounded = rounded.first().map(|r| (r.is_valid(row), r.as_boolean().value(row)));
            let at = |micros| DateTime::from_timestamp_micros(micros).map(|t| t.naive_utc());
            let found = match (at(a.value(row)), at(b.value(row))) {
                _ if a.is_null(row) || b.is_null(row) || rounded.is_some_and(|(there, _)| !there) => None,
                (Some(a), Some(b)) => Some(between(a, b)),
                _ => None,
            };
            let digits =
                |months: f64| if rounded.is_none_or(|(_, r)| r) { (months * 1e8).round() / 1e8 } else { months };
            months.append_option(found.map(digits));
        }
        let months = months.finish();
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&months, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(months)))
    }
}

fn is_last(t: NaiveDateTime) -> bool {
    t.date().succ_opt().is_none_or(|next| next.month() != t.month())
}

fn between(a: NaiveDateTime, b: NaiveDateTime) -> f64 {
    let months = f64::from((a.year() - b.year()) * 12 + a.month() as i32 - b.month() as i32);
    if a.day() == b.day() || (is_last(a) && is_last(b)) {
        return months;
    }
    let seconds = |t: NaiveDateTime| i64::from(t.day()) * 86_400 + i64::from(t.num_seconds_from_midnight());
    months + (seconds(a) - seconds(b)) as f64 / (31.0 * 86_400.0)
}

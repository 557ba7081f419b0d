//! `to_utc_timestamp(local, zone)`: the instant at which clocks in `zone` show `local`, as Java's `LocalDateTime.atZone` has it.
//!
//! What clocks show twice is the first of both; what they leave out is as much later as they jump.

use arrow::array::timezone::Tz;
use arrow::array::{Array, AsArray, TimestampMicrosecondBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_datafusion_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ToUtc {
    signature: Signature,
}

impl ToUtc {
    pub fn new() -> Self {
        ToUtc { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl ScalarUDFImpl for ToUtc {
    fn name(&self) -> &str {
        "to_utc_timestamp"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let is_time = |t: &DataType| t.is_temporal() || t.is_string() || t.is_null();
        match types {
            [local, zone] if is_time(local) && (zone.is_string() || zone.is_null()) => {
                Ok(vec![timestamp(), DataType::Utf8])
            }
            _ => {
                plan_err!("to_utc_timestamp takes a timestamp and a time zone: to_utc_timestamp(t, 'America/New_York')")
            }
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(timestamp())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let columns = args.args.iter().map(|a| a.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let [locals, zones] = columns.as_slice() else { return plan_err!("to_utc_timestamp takes two arguments") };
        let (locals, zones) = (cast(locals, &timestamp())?, cast(zones, &DataType::Utf8)?);
        let (locals, zones) = (locals.as_primitive::<TimestampMicrosecondType>(), zones.as_string::<i32>());
        let mut instants = TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC");
        let mut last: Option<(&str, Tz)> = None;
        for row in 0..rows {
            if locals.is_null(row) || zones.is_null(row) {
                instants.append_null();
                continue;
            }
            let name = zones.value(row);
            let zone = match last {
                Some((of, zone)) if of == name => zone,
                _ => name.parse().map_err(|_| exec_datafusion_err!("there is no time zone `{name}`"))?,
            };
            last = Some((name, zone));
            instants.append_value(instant(locals.value(row), zone)?);
        }
        let instants = instants.finish();
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&instants, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(instants)))
    }
}

/// When clocks in `zone` show `local` (µs, as if UTC); µs.
fn instant(local: i64, zone: Tz) -> Result<i64, DataFusionError> {
    let beyond = || exec_datafusion_err!("{local} µs since 1970 are beyond the calendar");
    let shown = DateTime::from_timestamp_micros(local).ok_or_else(beyond)?.naive_utc();
    let seconds = i64::from(offset(shown, zone).ok_or_else(beyond)?);
    local.checked_sub(seconds * 1_000_000).ok_or_else(beyond)
}

/// Seconds by which `zone` is ahead of UTC when its clocks show `local`; in a gap those before it.
fn offset(mut local: NaiveDateTime, zone: Tz) -> Option<i32> {
    // The longest gap is the day that Samoa left out.
    for _ in 0..48 {
        if let Some(offset) = zone.offset_from_local_datetime(&local).earliest() {
            return Some(offset.fix().local_minus_utc());
        }
        local = local.checked_sub_signed(TimeDelta::hours(1))?;
    }
    None
}

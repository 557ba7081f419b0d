//! `dateadd(unit, n, x)`, `datediff(unit, a, b)` and `last_day(x, unit)`: calendar arithmetic by unit.
//!
//! `dateadd` adds calendar units: a month after 31 January is the last day of February. A date stays a date unless the
//! unit is smaller than a day. `datediff` counts the boundaries between two instants, as Snowflake and dbt's macro do: from 31 December to 1 January is one year. Weeks begin on Monday. UTC throughout.

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int64Array, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Field, FieldRef, Int64Type, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveDateTime, TimeDelta};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

/// All functions of this family.
pub fn functions() -> Vec<ScalarUDF> {
    let make = |kind, name, aliases: &[&str]| {
        ScalarUDF::from(Calendar {
            kind,
            name,
            aliases: aliases.iter().map(|a| a.to_string()).collect(),
            signature: Signature::user_defined(Volatility::Immutable),
        })
    };
    vec![
        make(Kind::Add, "dateadd", &["timestampadd"]),
        make(Kind::Diff, "datediff", &["timestampdiff"]),
        make(Kind::LastDay, "last_day", &[]),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Unit {
    Micros(i64),
    Days(i64),
    Months(i64),
}

const SECOND: i64 = 1_000_000;

impl Unit {
    fn of(name: &str) -> Option<Self> {
        Some(match name.to_lowercase().as_str() {
            "year" | "years" | "yyyy" | "yy" | "y" | "yr" => Unit::Months(12),
            "quarter" | "quarters" | "qtr" | "q" => Unit::Months(3),
            "month" | "months" | "mm" | "mon" => Unit::Months(1),
            "week" | "weeks" | "w" | "wk" => Unit::Days(7),
            "day" | "days" | "dd" | "d" => Unit::Days(1),
            "hour" | "hours" | "hh" | "h" => Unit::Micros(3600 * SECOND),
            "minute" | "minutes" | "mi" | "m" => Unit::Micros(60 * SECOND),
            "second" | "seconds" | "ss" | "s" => Unit::Micros(SECOND),
            "millisecond" | "milliseconds" | "ms" => Unit::Micros(1000),
            "microsecond" | "microseconds" | "us" => Unit::Micros(1),
            _ => return None,
        })
    }

    fn add(self, t: NaiveDateTime, n: i64) -> Option<NaiveDateTime> {
        match self {
            Unit::Micros(size) => t.checked_add_signed(TimeDelta::microseconds(size.checked_mul(n)?)),
            Unit::Days(size) => t.checked_add_signed(TimeDelta::try_days(size.checked_mul(n)?)?),
            Unit::Months(size) => {
                let months = Months::new(u32::try_from(size.checked_mul(n)?.unsigned_abs()).ok()?);
                if n < 0 { t.checked_sub_months(months) } else { t.checked_add_months(months) }
            }
        }
    }

    /// The number of the unit that `t` lies in, counted from a common beginning.
    fn number(self, t: NaiveDateTime) -> i64 {
        match self {
            Unit::Micros(size) => t.and_utc().timestamp_micros().div_euclid(size),
            Unit::Days(1) => i64::from(t.num_days_from_ce()),
            // Day 1 of the calendar was a Monday.
            Unit::Days(size) => (i64::from(t.num_days_from_ce()) - 1).div_euclid(size),
            Unit::Months(size) => (i64::from(t.year()) * 12 + i64::from(t.month0())).div_euclid(size),
        }
    }

    fn last_day(self, t: NaiveDateTime) -> Option<NaiveDate> {
        match self {
            Unit::Months(size) => {
                let next = (self.number(t) + 1) * size;
                let (year, month) = (next.div_euclid(12), next.rem_euclid(12) as u32 + 1);
                NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, 1)?.pred_opt()
            }
            Unit::Days(7) => NaiveDate::from_num_days_from_ce_opt(i32::try_from((self.number(t) + 1) * 7).ok()?),
            _ => Some(t.date()),
        }
    }
}

/// Whether `name` is a unit of time: what may stand bare in `dateadd(day, 1, x)`.
pub fn is_unit(name: &str) -> bool {
    Unit::of(name).is_some()
        || ["dayofweek", "dayofyear", "dow", "doy", "epoch", "epoch_second"].contains(&&*name.to_lowercase())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Add,
    Diff,
    LastDay,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Calendar {
    kind: Kind,
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
}

const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

impl Calendar {
    /// Dates and timestamps stay what they are; texts become timestamps.
    fn instant(&self, data_type: &DataType) -> Result<DataType> {
        match data_type {
            DataType::Date32 | DataType::Date64 => Ok(DataType::Date32),
            DataType::Timestamp(_, zone) => Ok(DataType::Timestamp(TimeUnit::Microsecond, zone.clone())),
            DataType::Null => Ok(TIMESTAMP),
            text if text.is_string() => Ok(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
            other => plan_err!("{} takes dates and timestamps, not {other}", self.name),
        }
    }

    fn unit(&self, value: Option<&ScalarValue>) -> Result<Unit> {
        match (value.and_then(|v| v.try_as_str()), self.kind) {
            (Some(Some(name)), _) => match Unit::of(name) {
                Some(unit) => Ok(unit),
                None => plan_err!(
                    "{}: no unit `{name}`; there are year, quarter, month, week, day, hour, minute, second, millisecond, microsecond",
                    self.name
                ),
            },
            (None, Kind::LastDay) => Ok(Unit::Months(1)),
            _ => plan_err!("{}: the unit is a text that stands in the query: {}('day', …)", self.name, self.name),
        }
    }
}

impl ScalarUDFImpl for Calendar {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.kind, types) {
            (Kind::Add, [_, number, instant]) if number.is_numeric() || number.is_null() => {
                Ok(vec![DataType::Utf8, DataType::Int64, self.instant(instant)?])
            }
            (Kind::Diff, [_, from, to]) => Ok(vec![DataType::Utf8, self.instant(from)?, self.instant(to)?]),
            (Kind::LastDay, [instant]) => Ok(vec![self.instant(instant)?]),
            (Kind::LastDay, [instant, _]) => Ok(vec![self.instant(instant)?, DataType::Utf8]),
            (Kind::Add, _) => plan_err!("write dateadd('day', 1, x)"),
            (Kind::Diff, _) => plan_err!("write datediff('day', a, b)"),
            (Kind::LastDay, _) => plan_err!("write last_day(x) or last_day(x, 'month')"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        plan_err!("{} needs its unit", self.name)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let scalar = |i: usize| args.scalar_arguments.get(i).copied().flatten();
        let data_type = match self.kind {
            Kind::Diff => {
                self.unit(scalar(0))?;
                DataType::Int64
            }
            Kind::LastDay => {
                self.unit(scalar(1))?;
                DataType::Date32
            }
            Kind::Add => match (self.unit(scalar(0))?, args.arg_fields[2].data_type()) {
                (Unit::Micros(_), DataType::Date32) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                (_, same) => same.clone(),
            },
        };
        Ok(Arc::new(Field::new(self.name, data_type, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let unit_at = if self.kind == Kind::LastDay { 1 } else { 0 };
        let unit = self.unit(match args.args.get(unit_at) {
            Some(ColumnarValue::Scalar(value)) => Some(value),
            _ => None,
        })?;
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let array = |i: usize| -> Result<ArrayRef> { args.args[i].to_array(rows) };
        let result_type = args.return_field.data_type();
        let result: ArrayRef = match self.kind {
            Kind::Diff => {
                let (from, to) = (instants(&array(1)?)?, instants(&array(2)?)?);
                let diff = |row: usize| Some(unit.number(to[row]?) - unit.number(from[row]?));
                Arc::new(Int64Array::from_iter((0..rows).map(diff)))
            }
            Kind::LastDay => {
                let instants = instants(&array(0)?)?;
                let last = |row: usize| Some(Date32Type::from_naive_date(unit.last_day(instants[row]?)?));
                Arc::new(Date32Array::from_iter((0..rows).map(last)))
            }
            Kind::Add => {
                let numbers = array(1)?;
                let numbers = numbers.as_primitive::<Int64Type>();
                let instants = instants(&array(2)?)?;
                let mut added: Vec<Option<NaiveDateTime>> = Vec::with_capacity(rows);
                for (row, instant) in instants.into_iter().enumerate() {
                    added.push(match instant {
                        Some(t) if numbers.is_valid(row) => match unit.add(t, numbers.value(row)) {
                            Some(t) => Some(t),
                            None => return exec_err!("dateadd: {t} plus {} is out of range", numbers.value(row)),
                        },
                        _ => None,
                    });
                }
                match result_type {
                    DataType::Date32 => {
                        let days = added.into_iter().map(|t| Some(Date32Type::from_naive_date(t?.date())));
                        Arc::new(Date32Array::from_iter(days))
                    }
                    _ => {
                        let micros = added.into_iter().map(|t| Some(t?.and_utc().timestamp_micros()));
                        let zone = match result_type {
                            DataType::Timestamp(_, zone) => zone.clone(),
                            _ => None,
                        };
                        Arc::new(TimestampMicrosecondArray::from_iter(micros).with_timezone_opt(zone))
                    }
                }
            }
        };
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}

/// Each row as a UTC instant.
fn instants(array: &ArrayRef) -> Result<Vec<Option<NaiveDateTime>>> {
    // A timestamp with a zone counts in UTC already: the cast drops the zone's name only.
    let array = match array.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => Arc::clone(array),
        _ => cast(array, &TIMESTAMP)?,
    };
    let micros = array.as_primitive::<TimestampMicrosecondType>();
    Ok(micros.iter().map(|t| t.and_then(DateTime::from_timestamp_micros).map(|t| t.naive_utc())).collect())
}

//! What the table functions `tumble`, `hop` and `session` compute per row: which windows an instant lies in.
//!
//! Windows of a fixed size begin at multiples of it counted from 1970-01-01 00:00 UTC (so weeks begin on a Thursday), or at that plus
//! an offset; those of months and years are the calendar's. A window contains its start and not its end. NULL lies in none.

use arrow::array::{ArrayRef, AsArray, ListBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, IntervalMonthDayNano, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveTime};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

/// Windows one row may lie in.
const MOST_WINDOWS: i64 = 10_000;

/// The instant of a row of `session`.
pub const SESSION_TIME: &str = "session_time";
/// That instant and the gap: when its session ends if no row follows within it.
pub const SESSION_END: &str = "session_end";

/// All functions of this family.
pub fn functions() -> Vec<ScalarUDF> {
    [Kind::TumbleStart, Kind::HopStarts, Kind::WindowEnd, Kind::SessionTime, Kind::SessionEnd]
        .into_iter()
        .map(|kind| ScalarUDF::from(Windows { kind, signature: Signature::user_defined(Volatility::Immutable) }))
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// (time, size [, offset]) → TIMESTAMP
    TumbleStart,
    /// (time, slide, size [, offset]) → ARRAY<TIMESTAMP>, ascending
    HopStarts,
    /// (start, size) → TIMESTAMP
    WindowEnd,
    /// (time) → TIMESTAMP
    SessionTime,
    /// (time, gap) → TIMESTAMP
    SessionEnd,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::TumbleStart => "tumble_start",
            Kind::HopStarts => "hop_starts",
            Kind::WindowEnd => "window_end",
            Kind::SessionTime => SESSION_TIME,
            Kind::SessionEnd => SESSION_END,
        }
    }

    /// The table function it is a part of.
    fn of(self) -> &'static str {
        match self {
            Kind::TumbleStart => "tumble",
            Kind::HopStarts => "hop",
            Kind::WindowEnd => "window_end",
            Kind::SessionTime | Kind::SessionEnd => "session",
        }
    }

    /// What its interval arguments are, and whether they must be longer than nothing.
    fn intervals(self) -> &'static [(&'static str, bool)] {
        match self {
            Kind::TumbleStart => &[("size", true), ("offset", false)],
            Kind::HopStarts => &[("slide", true), ("size", true), ("offset", false)],
            Kind::WindowEnd => &[("size", true)],
            Kind::SessionTime => &[],
            Kind::SessionEnd => &[("gap", true)],
        }
    }
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Of the calendar.
    Months(i64),
    /// µs.
    Micros(i64),
}

impl Length {
    /// Of an interval; the error says what is wrong with it.
    pub fn of(interval: IntervalMonthDayNano) -> Result<Length, &'static str> {
        let IntervalMonthDayNano { months, days, nanoseconds } = interval;
        if nanoseconds % 1000 != 0 {
            return Err("must be whole microseconds");
        }
        let micros = i64::from(days) * 86_400_000_000 + nanoseconds / 1000;
        match (months, micros) {
            (0, micros) => Ok(Length::Micros(micros)),
            (months, 0) => Ok(Length::Months(i64::from(months))),
            _ => Err("is of months or of days and smaller units, not both: months differ in length"),
        }
    }

    fn is_positive(self) -> bool {
        matches!(self, Length::Months(n) | Length::Micros(n) if n > 0)
    }

    /// At most so long, µs.
    fn longest(self) -> i64 {
        match self {
            Length::Months(n) => n * 31 * 86_400_000_000,
            Length::Micros(n) => n,
        }
    }

    fn shortest(self) -> i64 {
        match self {
            Length::Months(n) => n * 28 * 86_400_000_000,
            Length::Micros(n) => n,
        }
    }

    /// The number of the interval of this length that `time` lies in.
    fn number(self, time: i64) -> Option<i64> {
        match self {
            Length::Micros(n) => Some(time.div_euclid(n)),
            Length::Months(n) => {
                let date = DateTime::from_timestamp_micros(time)?;
                Some(((i64::from(date.year()) - 1970) * 12 + i64::from(date.month0())).div_euclid(n))
            }
        }
    }

    /// When the interval of that number begins.
    fn start(self, number: i64) -> Option<i64> {
        match self {
            Length::Micros(n) => number.checked_mul(n),
            Length::Months(n) => {
                let month = number.checked_mul(n)?;
                let year = i32::try_from(1970 + month.div_euclid(12)).ok()?;
                let date = NaiveDate::from_ymd_opt(year, month.rem_euclid(12) as u32 + 1, 1)?;
                Some(date.and_time(NaiveTime::MIN).and_utc().timestamp_micros())
            }
        }
    }

    /// The instant (µs) that is so much later than `time`; None if there is none.
    pub fn after(self, time: i64) -> Option<i64> {
        match self {
            Length::Micros(n) => time.checked_add(n),
            Length::Months(n) => {
                let months = Months::new(u32::try_from(n).ok()?);
                Some(DateTime::from_timestamp_micros(time)?.checked_add_months(months)?.timestamp_micros())
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Windows {
    kind: Kind,
    signature: Signature,
}

impl Windows {
    /// The lengths of the interval arguments.
    fn lengths(&self, arguments: &[Option<&ScalarValue>]) -> Result<Vec<Length>> {
        let function = self.kind.of();
        let mut lengths = Vec::new();
        for ((what, positive), argument) in self.kind.intervals().iter().zip(arguments) {
            let Some(ScalarValue::IntervalMonthDayNano(Some(interval))) = argument else {
                return plan_err!(
                    "Function '{function}': its {what} must be a constant interval, such as interval '5 minutes'"
                );
            };
            let length = match Length::of(*interval) {
                Ok(length) => length,
                Err(why) => return plan_err!("Function '{function}': its {what} {why}"),
            };
            if *positive && !length.is_positive() {
                return plan_err!("Function '{function}': its {what} must be longer than nothing");
            }
            if !positive && matches!(length, Length::Months(_)) {
                return plan_err!("Function '{function}': its {what} is of days and smaller units");
            }
            lengths.push(length);
        }
        if let (Kind::HopStarts, [slide, size, ..]) = (self.kind, lengths.as_slice()) {
            let windows = size.longest() / slide.shortest();
            if windows > MOST_WINDOWS {
                return plan_err!("Function 'hop': a row would lie in {windows} windows, more than {MOST_WINDOWS}");
            }
        }
        Ok(lengths)
    }

    /// The starts of the windows `time` lies in, ascending.
    fn starts(&self, lengths: &[Length], time: i64, out: &mut Vec<i64>) -> Option<()> {
        out.clear();
        let (slide, size, offset) = match (self.kind, lengths) {
            (Kind::HopStarts, [slide, size, rest @ ..]) => (*slide, *size, rest.first()),
            (_, [size, rest @ ..]) => (*size, *size, rest.first()),
            _ => return None,
        };
        let offset = if let Some(Length::Micros(offset)) = offset { *offset } else { 0 };
        let mut number = slide.number(time.checked_sub(offset)?)?;
        loop {
            let start = slide.start(number)?.checked_add(offset)?;
            if size.after(start)? <= time {
                break;
            }
            out.push(start);
            number -= 1;
        }
        out.reverse();
        Some(())
    }
}

impl ScalarUDFImpl for Windows {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// What does not fit is left as it is, for [`ScalarUDFImpl::return_field_from_args`] to say so in plain words.
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let coerced = types.iter().enumerate().map(|(i, t)| match t {
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null if i == 0 => timestamp(),
            DataType::Interval(_) if i > 0 => DataType::Interval(IntervalUnit::MonthDayNano),
            other => other.clone(),
        });
        Ok(coerced.collect())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("the type of {} depends on its arguments", self.name())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let function = self.kind.of();
        let intervals = self.kind.intervals();
        let needed = intervals.iter().filter(|(_, positive)| *positive).count() + 1;
        if args.arg_fields.len() < needed || args.arg_fields.len() > intervals.len() + 1 {
            return plan_err!("Function '{function}': {} arguments are too few or too many", args.arg_fields.len());
        }
        match args.arg_fields[0].data_type() {
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null => {}
            other => {
                return plan_err!("Function '{function}': the time of a row is a TIMESTAMP or a DATE, not {other}");
            }
        }
        self.lengths(&args.scalar_arguments[1..])?;
        let data_type = match self.kind {
            Kind::HopStarts => DataType::List(Arc::new(Field::new_list_field(timestamp(), true))),
            _ => timestamp(),
        };
        Ok(Arc::new(Field::new(self.name(), data_type, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalars: Vec<Option<&ScalarValue>> = args.args[1..]
            .iter()
            .map(|a| match a {
                ColumnarValue::Scalar(scalar) => Some(scalar),
                ColumnarValue::Array(_) => None,
            })
            .collect();
        let lengths = self.lengths(&scalars)?;
        let times = cast(&args.args[0].to_array(args.number_rows)?, &timestamp())?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let out_of_range = || exec_datafusion_err!("Function '{}': an instant is out of range", self.kind.of());
        let mut starts = Vec::new();
        let array: ArrayRef = match self.kind {
            Kind::HopStarts => {
                let values = TimestampMicrosecondBuilder::new().with_timezone("UTC");
                let mut lists = ListBuilder::new(values).with_field(Arc::new(Field::new_list_field(timestamp(), true)));
                for time in times {
                    if let Some(time) = time {
                        self.starts(&lengths, time, &mut starts).ok_or_else(out_of_range)?;
                        lists.values().append_slice(&starts);
                    }
                    lists.append(time.is_some());
                }
                Arc::new(lists.finish())
            }
            _ => {
                let mut one = |time: i64| match (self.kind, lengths.as_slice()) {
                    (Kind::TumbleStart, _) => {
                        self.starts(&lengths, time, &mut starts)?;
                        starts.last().copied()
                    }
                    (Kind::SessionTime, _) => Some(time),
                    (_, [length, ..]) => length.after(time),
                    _ => None,
                };
                let values = times
                    .iter()
                    .map(|time| time.map(|t| one(t).ok_or_else(out_of_range)).transpose())
                    .collect::<Result<TimestampMicrosecondArray>>()?;
                Arc::new(values.with_timezone("UTC"))
            }
        };
        Ok(ColumnarValue::Array(array))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(&format!("{text}Z")).unwrap().timestamp_micros()
    }

    /// Starts of the windows that `time` lies in.
    fn starts(kind: Kind, intervals: &[(i32, i32, i64)], time: &str) -> Vec<String> {
        let lengths: Vec<Length> = intervals
            .iter()
            .map(|(months, days, seconds)| {
                Length::of(IntervalMonthDayNano::new(*months, *days, seconds * 1_000_000_000)).unwrap()
            })
            .collect();
        let windows = Windows { kind, signature: Signature::user_defined(Volatility::Immutable) };
        let mut out = Vec::new();
        windows.starts(&lengths, micros(time), &mut out).unwrap();
        let text = |t: &i64| DateTime::from_timestamp_micros(*t).unwrap().format("%Y-%m-%dT%H:%M:%S").to_string();
        out.iter().map(text).collect()
    }

    #[test]
    fn windows_of_a_fixed_size_count_from_1970() {
        let five_minutes = &[(0, 0, 300)];
        assert_eq!(starts(Kind::TumbleStart, five_minutes, "2024-03-01T10:04:59"), ["2024-03-01T10:00:00"]);
        assert_eq!(starts(Kind::TumbleStart, five_minutes, "2024-03-01T10:05:00"), ["2024-03-01T10:05:00"]);
        assert_eq!(starts(Kind::TumbleStart, five_minutes, "1969-12-31T23:59:59"), ["1969-12-31T23:55:00"]);
        let offset = &[(0, 1, 0), (0, 0, 3600)];
        assert_eq!(starts(Kind::TumbleStart, offset, "2024-03-01T00:30:00"), ["2024-02-29T01:00:00"]);
        // 1970-01-01 was a Thursday.
        assert_eq!(starts(Kind::TumbleStart, &[(0, 7, 0)], "2024-03-06T00:00:00"), ["2024-02-29T00:00:00"]);
    }

    #[test]
    fn months_are_the_calendars() {
        assert_eq!(starts(Kind::TumbleStart, &[(1, 0, 0)], "2024-02-29T23:59:59"), ["2024-02-01T00:00:00"]);
        assert_eq!(starts(Kind::TumbleStart, &[(3, 0, 0)], "2024-02-29T23:59:59"), ["2024-01-01T00:00:00"]);
        assert_eq!(starts(Kind::TumbleStart, &[(12, 0, 0)], "1969-02-01T00:00:00"), ["1969-01-01T00:00:00"]);
        let hops = starts(Kind::HopStarts, &[(1, 0, 0), (3, 0, 0)], "2024-03-31T12:00:00");
        assert_eq!(hops, ["2024-01-01T00:00:00", "2024-02-01T00:00:00", "2024-03-01T00:00:00"]);
    }

    #[test]
    fn hops_overlap_or_leave_gaps() {
        let overlapping = &[(0, 0, 60), (0, 0, 150)];
        let expected = ["2024-03-01T10:02:00", "2024-03-01T10:03:00", "2024-03-01T10:04:00"];
        assert_eq!(starts(Kind::HopStarts, overlapping, "2024-03-01T10:04:10"), expected);
        assert_eq!(starts(Kind::HopStarts, overlapping, "2024-03-01T10:04:40"), expected[1..]);
        let gaps = &[(0, 0, 60), (0, 0, 10)];
        assert_eq!(starts(Kind::HopStarts, gaps, "2024-03-01T10:04:09"), ["2024-03-01T10:04:00"]);
        assert_eq!(starts(Kind::HopStarts, gaps, "2024-03-01T10:04:10"), [""; 0]);
    }

    #[test]
    fn what_is_no_length_is_refused() {
        assert!(Length::of(IntervalMonthDayNano::new(1, 1, 0)).unwrap_err().contains("not both"));
        assert!(Length::of(IntervalMonthDayNano::new(0, 0, 1)).unwrap_err().contains("whole microseconds"));
        assert!(!Length::Micros(0).is_positive() && !Length::Months(-1).is_positive());
    }
}

//! `to_char(timestamp | date | time, pattern)`: text by a pattern of the project's dialect. Timestamps are written in UTC.

use super::datetime::Language;
use super::format::{Format, Moment};
use crate::error::Error;
use crate::project::Dialect;
use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::ops::Range;
use std::sync::Arc;

/// All functions of this family.
pub fn functions(dialect: Dialect) -> Vec<ScalarUDF> {
    let function = |name, aliases: &[&str], language| {
        ScalarUDF::from(ToChar {
            name,
            aliases: aliases.iter().map(|a| a.to_string()).collect(),
            language,
            signature: Signature::user_defined(Volatility::Immutable),
        })
    };
    vec![
        function("to_char", &["date_format", "to_varchar"], Language::Of(dialect)),
        function("strftime", &[], Language::Strftime),
    ]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToChar {
    name: &'static str,
    aliases: Vec<String>,
    language: Language,
    signature: Signature,
}

impl ScalarUDFImpl for ToChar {
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
        let [value, _] = types else {
            return plan_err!("{} takes a timestamp, date or time, and a pattern", self.name);
        };
        let value = match value {
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => value.clone(),
            DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Nanosecond),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
            }
            other => return plan_err!("{} takes a timestamp, date or time, not {other}", self.name),
        };
        Ok(vec![value, DataType::Utf8])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if let Some(Some(Some(text))) = args.scalar_arguments.get(1).map(|p| p.and_then(|s| s.try_as_str())) {
            self.language.compile(text)?;
        }
        Ok(Arc::new(Field::new(self.name, DataType::Utf8, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let [values, patterns] = args.args.as_slice() else {
            return plan_err!("{} takes a timestamp, date or time, and a pattern", self.name);
        };
        let moments = Moments::new(&values.to_array(rows)?)?;
        let result: StringArray = match patterns {
            ColumnarValue::Scalar(pattern) => match pattern.try_as_str().flatten() {
                None => StringArray::new_null(rows),
                Some(pattern) => {
                    let format = self.language.compile(pattern)?;
                    moments.render(|_| Ok(Some(&format)))?
                }
            },
            ColumnarValue::Array(patterns) => {
                // Compiled ahead: one per change from row to row, as patterns in columns come in runs.
                let texts = patterns.as_string::<i32>();
                let mut formats: Vec<Option<Arc<Format>>> = Vec::with_capacity(texts.len());
                let mut last: Option<Arc<Format>> = None;
                for text in texts {
                    let Some(text) = text else {
                        formats.push(None);
                        continue;
                    };
                    if last.as_ref().is_none_or(|f| f.pattern() != text) {
                        last = Some(Arc::new(self.language.compile(text)?));
                    }
                    formats.push(last.clone());
                }
                moments.render(|row| Ok(formats[row].as_deref()))?
            }
        };
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(result)))
    }
}

/// A column of instants, as units since 1970.
struct Moments {
    units: ArrayRef,
    per_second: i64,
}

impl Moments {
    fn new(values: &ArrayRef) -> Result<Moments> {
        let (values, per_second) = match values.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => (Arc::clone(values), 1),
            DataType::Timestamp(TimeUnit::Millisecond, _) => (Arc::clone(values), 1_000),
            DataType::Timestamp(TimeUnit::Microsecond, _) => (Arc::clone(values), 1_000_000),
            DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Time64(TimeUnit::Nanosecond) => {
                (Arc::clone(values), 1_000_000_000)
            }
            // Dates.
            _ => (cast(values, &DataType::Timestamp(TimeUnit::Second, None))?, 1),
        };
        Ok(Moments { units: cast(&values, &DataType::Int64)?, per_second })
    }

    fn render<'f>(&self, format: impl Fn(usize) -> Result<Option<&'f Format>>) -> Result<StringArray> {
        let units = self.units.as_primitive::<Int64Type>();
        let mut out = StringBuilder::with_capacity(units.len(), units.len() * 20);
        let mut text = String::new();
        // Events come in order, more or less: most have the day, or the minute, of the one before.
        let mut written: Option<(&Format, Range<i64>)> = None;
        for (row, unit) in units.iter().enumerate() {
            let (Some(unit), Some(format)) = (unit, format(row)?) else {
                out.append_null();
                continue;
            };
            if written.as_ref().is_some_and(|(by, same)| std::ptr::eq(*by, format) && same.contains(&unit)) {
                out.append_value(&text);
                continue;
            }
            let nanos = unit.rem_euclid(self.per_second) * (1_000_000_000 / self.per_second);
            let moment = Moment::new(unit.div_euclid(self.per_second), nanos as u32).ok_or_else(|| {
                super::datetime::external(Error::user(
                    "cast",
                    format!("{unit}: outside the calendar, cannot be written"),
                ))
            })?;
            text.clear();
            format.render(moment, &mut text);
            out.append_value(&text);
            written = format.period().map(|seconds| (format, self.around(unit, seconds)));
        }
        Ok(out.finish())
    }

    /// The units of the same period.
    fn around(&self, unit: i64, seconds: i64) -> Range<i64> {
        let period = seconds * self.per_second;
        let from = unit.saturating_sub(unit.rem_euclid(period));
        from..from.saturating_add(period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use arrow::datatypes::DataType::Timestamp;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_row_is_written_as_it_is_by_itself_whatever_stands_before_it() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let patterns = [
            "%Y-%m-%d",
            "%H:%M",
            "%I %p",
            "%j %U %W %u %w %a %B %C %y %G-W%V",
            "%S",
            "%s",
            "%H %f",
            "%q %Z %z",
            "",
            "at",
        ];
        let formats = patterns.map(|p| Language::Strftime.compile(p));
        let formats: Vec<Format> = formats.into_iter().flatten().collect();
        assert!(formats.len() > 7, "{}", formats.len());
        for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
            for reach in [10_i64, 1_000, 100_000, 10_000_000_000] {
                let mut at = rng.random_range(-2_000_000_000..2_000_000_000_i64);
                let units = (0..300).map(|_| {
                    at += rng.random_range(-reach / 10..=reach);
                    (rng.random_range(0..9) > 0).then_some(at)
                });
                let units: ArrayRef = cast(&Int64Array::from_iter(units), &Timestamp(unit, None)).unwrap();
                // One pattern for long, now and then another.
                let others: Vec<usize> = (0..300).map(|_| rng.random_range(0..60)).collect();
                let of =
                    |row: usize| &formats[(formats.len() * row / 300 + others[row].saturating_sub(50)) % formats.len()];
                let together = Moments::new(&units).unwrap().render(|row| Ok(Some(of(row)))).unwrap();
                for row in 0..300 {
                    let alone = Moments::new(&units.slice(row, 1)).unwrap().render(|_| Ok(Some(of(row)))).unwrap();
                    assert_eq!(together.slice(row, 1), alone, "{}", of(row).pattern());
                }
            }
        }
    }
}

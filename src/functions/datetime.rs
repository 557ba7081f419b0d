//! `to_timestamp`, `to_date` and their `try_` forms: text by pattern, numbers as seconds, dates and timestamps as they are.
//!
//! The result is TIMESTAMP (µs, UTC) or DATE. A text without zone is UTC. Of several patterns the first that matches counts.
//! A literal pattern is checked when the query is planned and compiled once per batch.

use super::format::{Format, Mismatch, Style};
use crate::error::Error;
use crate::project::Dialect;
use arrow::array::{Array, ArrayRef, AsArray, Date32Array, StringArray, TimestampMicrosecondArray};
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Field, FieldRef, Float64Type, Int64Type, TimeUnit};
use chrono::Utc;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

/// All functions of this family.
pub fn functions(dialect: Dialect) -> Vec<ScalarUDF> {
    let own = Language::Of(dialect);
    [
        ("to_timestamp", own, Target::Timestamp, false),
        ("try_to_timestamp", own, Target::Timestamp, true),
        ("to_date", own, Target::Date, false),
        ("try_to_date", own, Target::Date, true),
        ("strptime", Language::Strftime, Target::Timestamp, false),
        ("try_strptime", Language::Strftime, Target::Timestamp, true),
    ]
    .into_iter()
    .map(|(name, language, target, lenient)| {
        ScalarUDF::from(FromText {
            name,
            language,
            target,
            lenient,
            signature: Signature::user_defined(Volatility::Immutable),
        })
    })
    .collect()
}

/// Which pattern language a function reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    Of(Dialect),
    Strftime,
}

impl Language {
    /// Compiles `pattern`.
    pub fn compile(self, pattern: &str) -> Result<Format> {
        let style = match self {
            Language::Of(dialect) => Style::of(dialect, pattern),
            Language::Strftime => Style::of(Dialect::DuckDb, pattern),
        };
        Format::compile(pattern, style).map_err(external)
    }
}

/// Our error inside DataFusion's; it comes back out whole.
pub fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Target {
    Timestamp,
    Date,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FromText {
    name: &'static str,
    language: Language,
    target: Target,
    /// NULL instead of an error.
    lenient: bool,
    signature: Signature,
}

impl ScalarUDFImpl for FromText {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let Some((value, patterns)) = types.split_first() else {
            return plan_err!("{} needs a text, and may have patterns", self.name);
        };
        let value = match value {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => DataType::Utf8,
            DataType::Dictionary(_, of) if of.is_string() => DataType::Utf8,
            // 20240229 with a pattern is a text made of digits.
            numeric if numeric.is_numeric() && !patterns.is_empty() => DataType::Utf8,
            integer if integer.is_integer() => DataType::Int64,
            DataType::Float16 | DataType::Float32 | DataType::Float64 => DataType::Float64,
            // Microseconds, exactly.
            decimal if decimal.is_decimal() => DataType::Decimal128(38, 6),
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => value.clone(),
            other => return plan_err!("{} takes a text, a number, a date or a timestamp, not {other}", self.name),
        };
        Ok(std::iter::once(value).chain(patterns.iter().map(|_| DataType::Utf8)).collect())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.target {
            Target::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Target::Date => DataType::Date32,
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        for pattern in args.scalar_arguments.iter().skip(1).flatten() {
            if let Some(Some(text)) = pattern.try_as_str() {
                self.compile(text)?;
            }
        }
        Ok(Arc::new(Field::new(self.name, self.return_type(&[])?, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let Some((value, patterns)) = args.args.split_first() else {
            return plan_err!("{} needs an argument", self.name);
        };
        let values = value.to_array(rows)?;
        let result = match values.data_type() {
            DataType::Utf8 if patterns.is_empty() => self.of_texts(values.as_string(), |_, text| self.free(text))?,
            DataType::Utf8 => {
                let mut patterns = patterns.iter().map(|p| Pattern::new(p, self)).collect::<Result<Vec<_>>>()?;
                self.of_texts(values.as_string(), |row, text| self.match_one(text, &mut patterns, row))?
            }
            _ => self.of_values(&values)?,
        };
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

impl FromText {
    fn compile(&self, pattern: &str) -> Result<Format> {
        let format = self.language.compile(pattern)?;
        format.check_parses().map_err(external)?;
        Ok(format)
    }

    /// `convert` gives µs or days for each text that is there, and is told its row.
    fn of_texts(
        &self,
        texts: &StringArray,
        mut convert: impl FnMut(usize, &str) -> Result<Option<i64>>,
    ) -> Result<ArrayRef> {
        let values = texts.iter().enumerate().map(|(row, text)| text.map_or(Ok(None), |text| convert(row, text)));
        Ok(match self.target {
            Target::Timestamp => Arc::new(values.collect::<Result<TimestampMicrosecondArray>>()?.with_timezone("UTC")),
            // Days come from an i32.
            Target::Date => {
                Arc::new(values.map(|v| v.map(|v| v.map(|days| days as i32))).collect::<Result<Date32Array>>()?)
            }
        })
    }

    /// Text without a pattern: ISO 8601 and its relatives, as DataFusion reads them.
    fn free(&self, text: &str) -> Result<Option<i64>> {
        let parsed = match self.target {
            Target::Timestamp => string_to_datetime(&Utc, text).ok().map(|t| t.timestamp_micros()),
            Target::Date => Date32Type::parse(text).map(i64::from),
        };
        if parsed.is_some() || self.lenient {
            return Ok(parsed);
        }
        let (what, example) = match self.target {
            Target::Timestamp => ("timestamp", "2024-02-29T12:30:00Z"),
            Target::Date => ("date", "2024-02-29"),
        };
        let error = Error::user("cast", format!("'{text}' is no ISO 8601 {what} such as {example}"));
        Err(external(error.with_hint(format!("give a pattern, or use try_{} for NULL instead", self.strict_name()))))
    }

    fn strict_name(&self) -> &str {
        self.name.strip_prefix("try_").unwrap_or(self.name)
    }

    fn match_one(&self, text: &str, patterns: &mut [Pattern], row: usize) -> Result<Option<i64>> {
        let mut failed: Option<(usize, Mismatch)> = None;
        for (index, pattern) in patterns.iter_mut().enumerate() {
            // A NULL pattern makes the result NULL, as any NULL argument does.
            let Some(format) = pattern.at(row, self)? else { return Ok(None) };
            let value = format.parse(text).and_then(|parts| match self.target {
                Target::Timestamp => parts.timestamp_micros(),
                Target::Date => parts.days().map(i64::from),
            });
            match value {
                Ok(value) => return Ok(Some(value)),
                Err(mismatch) => failed = failed.or(Some((index, mismatch))),
            }
        }
        if self.lenient {
            return Ok(None);
        }
        let Some((index, mismatch)) = failed else { return Ok(None) };
        let remedy = format!("try_{}", self.strict_name());
        match patterns[index].at(row, self)? {
            Some(format) => Err(external(format.explain(text, mismatch, &remedy))),
            None => Ok(None),
        }
    }

    /// Numbers are seconds (days for `to_date`); dates and timestamps are converted.
    fn of_values(&self, values: &ArrayRef) -> Result<ArrayRef> {
        let out_of_range = |value: String| {
            let error = Error::user("cast", format!("{}({value}): out of range", self.name));
            external(error.with_hint(format!("try_{} gives NULL instead", self.strict_name())))
        };
        let keep = |micros: Option<i64>, value: &dyn Fn() -> String| match micros {
            None if !self.lenient => Err(out_of_range(value())),
            micros => Ok(micros),
        };
        let micros: TimestampMicrosecondArray = match (values.data_type(), self.target) {
            (DataType::Int64, Target::Timestamp) => {
                let each = |v: i64| keep(v.checked_mul(1_000_000), &|| v.to_string());
                values.as_primitive::<Int64Type>().iter().map(|v| v.map_or(Ok(None), each)).collect::<Result<_>>()?
            }
            (DataType::Float64, Target::Timestamp) => {
                let each = |v: f64| {
                    let micros = (v * 1e6).round();
                    // 2⁶³ itself is out; NaN fails both comparisons.
                    let fits = micros >= i64::MIN as f64 && micros < i64::MAX as f64;
                    keep(fits.then_some(micros as i64), &|| v.to_string())
                };
                values.as_primitive::<Float64Type>().iter().map(|v| v.map_or(Ok(None), each)).collect::<Result<_>>()?
            }
            (DataType::Decimal128(_, 6), Target::Timestamp) => {
                let each = |v: i128| keep(i64::try_from(v).ok(), &|| v.to_string());
                values
                    .as_primitive::<Decimal128Type>()
                    .iter()
                    .map(|v| v.map_or(Ok(None), each))
                    .collect::<Result<_>>()?
            }
            _ => {
                let options = CastOptions { safe: self.lenient, ..Default::default() };
                // There is no cast from BIGINT to DATE, but one from INTEGER: days since 1970.
                let values = match values.data_type() {
                    DataType::Int64 => cast_with_options(values, &DataType::Int32, &options)?,
                    _ => Arc::clone(values),
                };
                return Ok(cast_with_options(&values, &self.return_type(&[])?, &options)?);
            }
        };
        Ok(Arc::new(micros.with_timezone("UTC")))
    }
}

/// A pattern argument: compiled once if it is constant, else whenever it changes from row to row.
enum Pattern {
    Constant(Option<Format>),
    Column { texts: StringArray, last: Option<Format> },
}

impl Pattern {
    fn new(argument: &ColumnarValue, function: &FromText) -> Result<Pattern> {
        Ok(match argument {
            ColumnarValue::Scalar(scalar) => {
                Pattern::Constant(scalar.try_as_str().flatten().map(|text| function.compile(text)).transpose()?)
            }
            ColumnarValue::Array(array) => Pattern::Column { texts: array.as_string().clone(), last: None },
        })
    }

    fn at(&mut self, row: usize, function: &FromText) -> Result<Option<&Format>> {
        match self {
            Pattern::Constant(format) => Ok(format.as_ref()),
            Pattern::Column { texts, .. } if texts.is_null(row) => Ok(None),
            Pattern::Column { texts, last } => {
                let text = texts.value(row);
                if last.as_ref().is_none_or(|format| format.pattern() != text) {
                    *last = Some(function.compile(text)?);
                }
                Ok(last.as_ref())
            }
        }
    }
}

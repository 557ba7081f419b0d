//! What is taken from `datafusion-spark`, and what stands around each function.
//!
//! The crate's functions read the session for ANSI mode and trust their callers in what they are handed. Here each one runs in ANSI mode, is
//! called with one row where all arguments are constants, gives NULL of a NULL constant (`char(NULL)` is an error in the crate), and gets
//! lists that begin where their values do.

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion_spark::function::{array, bitmap, bitwise, datetime, hash, map, math, string, url};
use std::sync::{Arc, LazyLock};

/// What else is demanded of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Rule {
    /// NULL if any argument is.
    Strict,
    /// It knows what to do with NULLs.
    Lenient,
    /// NULL of arguments that are none is an error: in ANSI mode the function fails.
    Fails(&'static str),
    /// A constant pattern, and texts and whole numbers to put into it.
    Pattern,
}

/// The functions.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let strict = [
        array::slice(),
        bitmap::bitmap_bit_position(),
        bitmap::bitmap_bucket_number(),
        bitmap::bitmap_count(),
        bitwise::bit_count(),
        bitwise::bit_get(),
        bitwise::bitwise_not(),
        bitwise::shiftleft(),
        bitwise::shiftright(),
        bitwise::shiftrightunsigned(),
        datetime::from_utc_timestamp(),
        datetime::monthname(),
        datetime::weekday(),
        hash::crc32(),
        hash::sha1(),
        hash::sha2(),
        map::map_from_arrays(),
        map::map_from_entries(),
        math::bin(),
        math::ceil(),
        math::csc(),
        math::expm1(),
        math::factorial(),
        math::floor(),
        math::hex(),
        math::hypot(),
        math::negative(),
        math::pmod(),
        math::pow(),
        math::rint(),
        math::sec(),
        math::unhex(),
        string::base64(),
        string::char(),
        string::ilike(),
        string::is_valid_utf8(),
        string::length(),
        string::like(),
        string::luhn_check(),
        string::make_valid_utf8(),
        string::quote(),
        string::soundex(),
        string::unbase64(),
        url::try_url_decode(),
        url::url_decode(),
        url::url_encode(),
    ];
    let lenient =
        [array::spark_array_contains(), array::shuffle(), hash::xxhash64(), string::concat_ws(), string::elt()];
    let fails = [
        (datetime::next_day(), "`next_day` takes a date and a day of the week: 'Mo', 'Mon' or 'Monday'"),
        (datetime::make_dt_interval(), "`make_dt_interval`: these parts do not fit an interval"),
        (datetime::make_interval(), "`make_interval`: these parts do not fit an interval"),
    ];
    strict
        .into_iter()
        .map(|function| (function, Rule::Strict))
        .chain(lenient.into_iter().map(|function| (function, Rule::Lenient)))
        .chain(fails.into_iter().map(|(function, message)| (function, Rule::Fails(message))))
        .chain([(string::format_string(), Rule::Pattern)])
        .map(|(function, rule)| ScalarUDF::from(Taken { function, rule }))
        .chain([substring()])
        .collect()
}

/// Places from 1, or from the end: what `SUBSTRING(x FROM a FOR b)` is planned as.
pub(super) fn substring() -> ScalarUDF {
    ScalarUDF::from(Taken { function: string::substring(), rule: Rule::Strict })
}

/// ANSI mode, whatever the session says.
static ANSI: LazyLock<Arc<ConfigOptions>> = LazyLock::new(|| {
    let mut options = ConfigOptions::default();
    options.execution.enable_ansi_mode = true;
    Arc::new(options)
});

#[derive(Debug, PartialEq, Eq, Hash)]
struct Taken {
    function: Arc<ScalarUDF>,
    rule: Rule,
}

impl ScalarUDFImpl for Taken {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.inner().coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if self.rule == Rule::Pattern {
            check_pattern(&args)?;
        }
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        let field = self.function.inner().return_field_from_args(args)?;
        // The crate's fields call nothing NULL that is made of what is not.
        Ok(if nullable && !field.is_nullable() { Arc::new(field.as_ref().clone().with_nullable(true)) } else { field })
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.function.inner().simplify(args, info)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.inner().documentation()
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let dice = self.signature().volatility == Volatility::Volatile;
        let constant = !dice && args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        if constant {
            args.number_rows = 1;
        }
        let missing = args.args.iter().any(|a| matches!(a, ColumnarValue::Scalar(value) if value.is_null()));
        if missing && self.rule == Rule::Strict {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from(args.return_field.data_type())?));
        }
        for (i, argument) in args.args.iter_mut().enumerate() {
            let spread = matches!(self.rule, Rule::Fails(_)) && !constant || dice && i == 0;
            if let (ColumnarValue::Scalar(_), true) = (&*argument, spread) {
                *argument = ColumnarValue::Array(argument.to_array(args.number_rows)?);
            }
            if let ColumnarValue::Array(array) = argument {
                own_values(array)?;
            }
        }
        args.config_options = Arc::clone(&ANSI);
        let (rows, given) = (args.number_rows, args.args.clone());
        let result = self.function.inner().invoke_with_args(args)?;
        if let Rule::Fails(message) = self.rule {
            fails(&given, &result, rows, message)?;
        }
        match result {
            ColumnarValue::Array(array) if constant => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
            result => Ok(result),
        }
    }
}

/// A list whose values are its own, from the first to the last: the crate's maps take the first key of a slice for the first of all.
fn own_values(array: &mut ArrayRef) -> Result<()> {
    let Some(list) = array.as_list_opt::<i32>() else { return Ok(()) };
    let offsets = list.offsets();
    let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
    if first == 0 && last as usize == list.values().len() {
        return Ok(());
    }
    let DataType::List(field) = list.data_type() else { return Ok(()) };
    let values = list.values().slice(first as usize, (last - first) as usize);
    let offsets = OffsetBuffer::new(offsets.iter().map(|offset| offset - first).collect());
    *array = Arc::new(ListArray::try_new(Arc::clone(field), offsets, values, list.nulls().cloned())?);
    Ok(())
}

/// An error where `result` is NULL and none of the arguments is.
fn fails(given: &[ColumnarValue], result: &ColumnarValue, rows: usize, message: &str) -> Result<()> {
    let result = result.to_array(rows)?;
    if result.null_count() == 0 {
        return Ok(());
    }
    let given = given.iter().map(|a| a.to_array(rows)).collect::<Result<Vec<_>>>()?;
    match (0..rows).any(|row| result.is_null(row) && given.iter().all(|a| a.is_valid(row))) {
        true => exec_err!("{message}"),
        false => Ok(()),
    }
}

/// `format_string`'s pattern is read anew for each row, floats are rounded in binary where Java rounds their decimal digits up, decimals to even, and `%s`
/// of a decimal has no point.
fn check_pattern(args: &ReturnFieldArgs) -> Result<()> {
    if args.scalar_arguments.first().is_none_or(Option::is_none) {
        return plan_err!("the pattern of `format_string` is a literal: format_string('%s-%05d', a, b)");
    }
    let fits = |t: &DataType| t.is_string() || t.is_integer() || t.is_null();
    match args.arg_fields.iter().skip(1).map(|field| field.data_type()).find(|t| !fits(t)) {
        Some(other) => plan_err!(
            "`format_string` takes texts and whole numbers, not {other}: say how it is written, with `cast(cast(x as decimal(18, 2)) as string)` or `date_format(x, 'yyyy-MM-dd')`, and give that to `%s`"
        ),
        None => Ok(()),
    }
}

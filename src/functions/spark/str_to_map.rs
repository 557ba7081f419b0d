//! `str_to_map(text[, pairs[, values]])`: a text of pairs as a MAP, as Spark reads it.
//!
//! Both delimiters are regular expressions; by default `,` and `:`. A pair without a value has NULL. A key that stands twice is an error, the empty key
//! of empty pairs too.

use arrow::array::{Array, AsArray, MapBuilder, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use std::collections::HashSet;
use std::sync::Arc;

use crate::functions::split::Splitter;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct StrToMap {
    signature: Signature,
}

impl StrToMap {
    pub fn new() -> Self {
        StrToMap { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for StrToMap {
    fn name(&self) -> &str {
        "str_to_map"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types.len() {
            1..=3 if types.iter().all(|t| t.is_string() || t.is_null()) => Ok(vec![DataType::Utf8; types.len()]),
            _ => plan_err!("str_to_map takes a text and perhaps two delimiters: str_to_map('a:1,b:2', ',', ':')"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        let parts = vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Utf8, true)];
        Ok(DataType::Map(Arc::new(Field::new("entries", DataType::Struct(parts.into()), false)), false))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let text = |a: &ColumnarValue| Ok(cast(&a.to_array(rows)?, &DataType::Utf8)?);
        let columns = args.args.iter().map(text).collect::<Result<Vec<_>>>()?;
        let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        let (mut pairs, mut values) = (Splitter::default(), Splitter::default());
        let mut seen = HashSet::new();
        for row in 0..rows {
            if columns.iter().any(|c| c.is_null(row)) {
                maps.append(false)?;
                continue;
            }
            let at = |i: usize, default| columns.get(i).map_or(default, |c| c.as_string::<i32>().value(row));
            seen.clear();
            for pair in pairs.split(at(0, ""), at(1, ","), None)? {
                let mut parts = values.split(pair, at(2, ":"), Some(2))?.into_iter();
                let key = parts.next().unwrap_or_default();
                if !seen.insert(key) {
                    return exec_err!("the key `{key}` stands twice in `{}`", at(0, ""));
                }
                maps.keys().append_value(key);
                maps.values().append_option(parts.next());
            }
            maps.append(true)?;
        }
        let maps = maps.finish();
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&maps, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(maps)))
    }
}

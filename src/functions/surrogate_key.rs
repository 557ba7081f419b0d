//! `surrogate_key(a, b, …)`: dbt_utils' `generate_surrogate_key` as a function.
//!
//! The MD5, in hexadecimal, of the arguments as text joined by `-`; NULL counts as `_dbt_utils_surrogate_key_null_`, so that it
//! differs from an empty text. The keys equal those that dbt makes from the same values' text.

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use md5::{Digest, Md5};
use std::sync::Arc;

const NULL: &[u8] = b"_dbt_utils_surrogate_key_null_";

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SurrogateKey {
    signature: Signature,
    aliases: Vec<String>,
}

impl SurrogateKey {
    pub fn new() -> Self {
        SurrogateKey {
            signature: Signature::variadic_any(Volatility::Immutable),
            aliases: vec!["generate_surrogate_key".to_string()],
        }
    }
}

impl ScalarUDFImpl for SurrogateKey {
    fn name(&self) -> &str {
        "surrogate_key"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if let Some(field) = args.arg_fields.iter().find(|f| f.data_type().is_nested()) {
            return plan_err!("surrogate_key takes plain columns, not the nested {}", field.name());
        }
        Ok(Arc::new(Field::new(self.name(), DataType::Utf8, false)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let texts: Vec<ArrayRef> = args
            .args
            .iter()
            .map(|a| {
                let options = CastOptions { safe: false, ..Default::default() };
                Ok(cast_with_options(&a.to_array(rows)?, &DataType::Utf8, &options)?)
            })
            .collect::<Result<_>>()?;
        let mut keys = StringBuilder::with_capacity(rows, rows * 32);
        let mut hex = [0u8; 32];
        for row in 0..rows {
            let mut hash = Md5::new();
            for (i, text) in texts.iter().enumerate() {
                if i > 0 {
                    hash.update(b"-");
                }
                let text = text.as_string::<i32>();
                hash.update(if text.is_null(row) { NULL } else { text.value(row).as_bytes() });
            }
            for (i, byte) in hash.finalize().iter().enumerate() {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                hex[2 * i] = DIGITS[usize::from(byte >> 4)];
                hex[2 * i + 1] = DIGITS[usize::from(byte & 15)];
            }
            keys.append_value(String::from_utf8_lossy(&hex));
        }
        let keys = keys.finish();
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&keys, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(keys)))
    }
}

//! `from_json(text, 'STRUCT<…>')`: JSON text as a value of a SQL type, by the decoder that reads JSON sources.
//!
//! A text that does not fit the type is NULL, and so is NULL; nothing else of the batch is touched. The type is a literal:
//! a STRUCT, an ARRAY or a MAP, or Spark's short form of a STRUCT (`'id BIGINT, name STRING'`).

use super::datetime::external;
use crate::decode::Formats;
use crate::decode::json::FromJson as Decoder;
use crate::types::parse_sql_type;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct FromJson {
    signature: Signature,
}

impl FromJson {
    pub fn new() -> Self {
        FromJson { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

fn parse_type(text: &str) -> Result<DataType> {
    parse_sql_type(text).or_else(|error| parse_sql_type(&format!("STRUCT<{text}>")).map_err(|_| external(error)))
}

impl ScalarUDFImpl for FromJson {
    fn name(&self) -> &str {
        "from_json"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [text, _] if text.is_string() || text.is_binary() => Ok(vec![text.clone(), DataType::Utf8]),
            [DataType::Null, _] => Ok(vec![DataType::Utf8, DataType::Utf8]),
            [other, _] => plan_err!("from_json reads text, not {other}"),
            _ => plan_err!("from_json takes a text and a type: from_json(x, 'STRUCT<id: BIGINT>')"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("the type of from_json is in its second argument")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.scalar_arguments.get(1).map(|scalar| scalar.and_then(|s| s.try_as_str())) {
            Some(Some(Some(text))) => Ok(Arc::new(Field::new(self.name(), parse_type(text)?, true))),
            _ => plan_err!("from_json needs its type as a literal: from_json(x, 'STRUCT<id: BIGINT>')"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(texts) = args.args.first() else { return plan_err!("from_json takes a text and a type") };
        let constant = matches!(texts, ColumnarValue::Scalar(_));
        let texts = texts.to_array(if constant { 1 } else { args.number_rows })?;
        let decoded = Decoder::new(args.return_field.data_type(), &Formats::new())
            .and_then(|mut decoder| decoder.decode(texts.as_ref()));
        let (values, _) = decoded.map_err(external)?;
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?));
        }
        Ok(ColumnarValue::Array(values))
    }
}

//! An order for lists, structs and maps that is the same everywhere.
//!
//! DataFusion 55.2 sorts them in more than one way: where a NULL stands inside, a sort with a limit and one without disagree, and an
//! aggregate's order does not take maps at all. A tie must not be decided by who sorts. So it is decided by the bytes of Arrow's row format.

use arrow::array::BinaryArray;
use arrow::datatypes::DataType;
use datafusion::common::DataFusionError;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

use crate::state::RowCodec;

/// What to order by instead of `expr`, a value in values.
pub(super) fn order_key(expr: Expr) -> Expr {
    ScalarUDF::new_from_impl(OrderKey::default()).call(vec![expr])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OrderKey {
    signature: Signature,
}

impl Default for OrderKey {
    fn default() -> Self {
        OrderKey { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for OrderKey {
    fn name(&self) -> &str {
        "order_key"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Binary)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let values = args.args[0].to_array(args.number_rows)?;
        let external = |e| DataFusionError::External(Box::new(e));
        let codec = RowCodec::new([values.data_type().clone()]).map_err(external)?;
        let rows = codec.encode(&[values], args.number_rows).map_err(external)?;
        let keys = (0..rows.len()).map(|i| rows.row(i));
        Ok(ColumnarValue::Array(Arc::new(BinaryArray::from_iter_values(keys))))
    }
}

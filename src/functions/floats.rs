//! Floats that expressions make, in one representation: −0.0 is 0.0, and there is one NaN.
//!
//! What is stored is normalised when it is written, but `-x`, `x * -1`, `0.0 / 0.0` or `ceil(-0.5)` make such values anew, and DataFusion's
//! comparisons, groups and orders take their bits for what they are. A rewrite of the analyzer normalises them where they are made, so that
//! bulk plans and circuits see the same. What only hands on one of its arguments (CASE, `coalesce`) needs nothing.

use crate::state::canonical;
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use std::sync::Arc;

/// Functions that give one of their arguments back, or a part of one.
const HAND_ON: [&str; 8] = ["coalesce", "nullif", "nvl", "nvl2", "get_field", "array_element", "greatest", "least"];

const NAME: &str = "canonical_float";

/// The analyzer's rewrite.
#[derive(Debug)]
pub struct CanonicalFloats(Arc<ScalarUDF>);

impl CanonicalFloats {
    pub fn new() -> Self {
        CanonicalFloats(Arc::new(ScalarUDF::from(Canonical { signature: Signature::any(1, Volatility::Immutable) })))
    }

    fn is_canonical(expr: &Expr) -> bool {
        matches!(expr, Expr::ScalarFunction(f) if f.name() == NAME)
    }
}

fn is_arithmetic(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo)
}

impl FunctionRewrite for CanonicalFloats {
    fn name(&self) -> &str {
        NAME
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        let makes_floats = match &expr {
            Expr::BinaryExpr(BinaryExpr { op, .. }) => is_arithmetic(*op),
            Expr::Negative(_) => true,
            Expr::Cast(cast) => !cast.expr.get_type(schema).is_ok_and(|t| t.is_numeric()),
            Expr::TryCast(cast) => !cast.expr.get_type(schema).is_ok_and(|t| t.is_numeric()),
            Expr::ScalarFunction(f) => !Self::is_canonical(&expr) && !HAND_ON.contains(&f.name()),
            Expr::Literal(ScalarValue::Float64(Some(v)), _) => v.is_nan() || *v == 0.0 && v.is_sign_negative(),
            Expr::Literal(ScalarValue::Float32(Some(v)), _) => v.is_nan() || *v == 0.0 && v.is_sign_negative(),
            _ => false,
        };
        if !makes_floats || !expr.get_type(schema).is_ok_and(|t| t.is_floating()) {
            return Ok(Transformed::no(expr));
        }
        Ok(Transformed::yes(self.0.call(vec![expr])))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Canonical {
    signature: Signature,
}

impl ScalarUDFImpl for Canonical {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let external = |e| DataFusionError::External(Box::new(e));
        match args.args.remove(0) {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(canonical(&array).map_err(external)?)),
            ColumnarValue::Scalar(value) => {
                let array = canonical(&value.to_array()?).map_err(external)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
        }
    }
}

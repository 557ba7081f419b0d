//! `+`, `-` and `*` of integers that do not wrap around.
//!
//! DataFusion's operators wrap silently; SQL's do not. A rewrite of the analyzer replaces them, where both sides are signed integers, by
//! functions of the same type that stop with an error. Other types keep their operators: decimals are checked already,
//! doubles have infinities, dates and intervals their own rules.

use crate::error::Error;
use crate::types::sql_type_name;
use arrow::compute::kernels::numeric::{add, mul, sub};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::physical_expr_common::datum::apply;
use std::sync::Arc;

/// The analyzer's rewrite.
#[derive(Debug)]
pub struct CheckedArithmetic {
    add: Arc<ScalarUDF>,
    subtract: Arc<ScalarUDF>,
    multiply: Arc<ScalarUDF>,
}

impl CheckedArithmetic {
    pub fn new() -> Self {
        let function = |name, operator| {
            let signature = Signature::user_defined(Volatility::Immutable);
            Arc::new(ScalarUDF::from(Checked { name, operator, signature }))
        };
        CheckedArithmetic {
            add: function("checked_add", Operator::Plus),
            subtract: function("checked_subtract", Operator::Minus),
            multiply: function("checked_multiply", Operator::Multiply),
        }
    }
}

impl FunctionRewrite for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return Ok(Transformed::no(expr)) };
        let function = match op {
            Operator::Plus => &self.add,
            Operator::Minus => &self.subtract,
            Operator::Multiply => &self.multiply,
            _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
        };
        // A column of an outer query has no type here; its operator stays as it is.
        let integers = [&left, &right].iter().all(|e| e.get_type(schema).is_ok_and(|t| t.is_signed_integer()));
        if !integers {
            return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
        }
        Ok(Transformed::yes(function.call(vec![*left, *right])))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    name: &'static str,
    operator: Operator,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Both sides as the wider of them, as the operator has it.
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [left, right] if left.is_signed_integer() && right.is_signed_integer() => {
                let wider = if left.primitive_width() >= right.primitive_width() { left } else { right };
                Ok(vec![wider.clone(), wider.clone()])
            }
            _ => plan_err!("{} takes two integers", self.name),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let types = self.coerce_types(types)?;
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else { return plan_err!("{} takes two integers", self.name) };
        let kernel = match self.operator {
            Operator::Plus => add,
            Operator::Minus => sub,
            _ => mul,
        };
        apply(left, right, kernel).map_err(|error| match error.find_root() {
            // "Overflow happened on: 9223372036854775807 + 1"
            DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
                ArrowError::ArithmeticOverflow(message) => {
                    let what = message.strip_prefix("Overflow happened on: ").unwrap_or(message);
                    let error = Error::user(
                        "overflow",
                        format!("{what} does not fit {}", sql_type_name(args.return_field.data_type())),
                    )
                    .with_hint("cast to a wider type: cast(… as bigint), cast(… as decimal(38, 0))");
                    DataFusionError::External(Box::new(error))
                }
                _ => error,
            },
            _ => error,
        })
    }
}

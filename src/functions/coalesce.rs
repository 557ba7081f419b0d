//! `coalesce` of a date or time and a text: `coalesce(valid_to, '2099-01-01')`. The text is read as the other's type, as where the two are
//! compared; DataFusion finds no common type for them. All else is DataFusion's function.

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::functions::core::coalesce::CoalesceFunc;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature};

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Coalesce(CoalesceFunc);

impl Coalesce {
    pub fn new() -> Self {
        Coalesce(CoalesceFunc::new())
    }
}

impl ScalarUDFImpl for Coalesce {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.0.return_field_from_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.0.simplify(args, info)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.0.invoke_with_args(args)
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.0.conditional_arguments(args)
    }

    fn short_circuits(&self) -> bool {
        self.0.short_circuits()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let coerced = self.0.coerce_types(types);
        match (&coerced, temporal(types)) {
            (Err(_), Some(temporal)) => Ok(vec![temporal.clone(); types.len()]),
            _ => coerced,
        }
    }
}

/// The one temporal type among texts and NULLs.
fn temporal(types: &[DataType]) -> Option<&DataType> {
    let mut found = types.iter().filter(|t| !t.is_null() && !t.is_string());
    let first = found.next().filter(|t| t.is_temporal())?;
    found.all(|t| t == first).then_some(first)
}

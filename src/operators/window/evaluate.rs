//! The functions of a window over spans of rows.

use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array, new_empty_array};
use arrow::compute::concat;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_planner::create_window_expr;
use std::sync::Arc;

use super::region::Span;
use crate::error::Result;

pub struct Calls(Vec<Call>);

enum Call {
    /// Its spans begin with their partition.
    RowNumber,
    Other(Arc<dyn WindowExpr>),
}

impl Calls {
    pub fn new(calls: &[Expr], input: &DFSchema, session: &SessionState) -> Result<Self> {
        let one = |call: &Expr| {
            if matches!(call, Expr::WindowFunction(f) if f.fun.name() == "row_number") {
                return Ok(Call::RowNumber);
            }
            Ok(Call::Other(create_window_expr(call, input, session.execution_props(), &Default::default())?))
        };
        Ok(Calls(calls.iter().map(one).collect::<Result<_>>()?))
    }

    /// One column for every call: its values for the rows of all spans, which follow one another in `rows`.
    pub fn evaluate(&self, rows: &RecordBatch, spans: &[Span]) -> Result<Vec<ArrayRef>> {
        self.0
            .iter()
            .map(|call| match call {
                Call::RowNumber => {
                    let numbers = spans.iter().flat_map(|span| 1..=span.shown.len() as u64);
                    Ok(Arc::new(UInt64Array::from_iter_values(numbers)) as ArrayRef)
                }
                Call::Other(call) => {
                    let spans = spans.iter().map(|span| &span.shown).filter(|shown| !shown.is_empty());
                    let parts = spans
                        .map(|shown| Ok(call.evaluate(&rows.slice(shown.start, shown.len()))?))
                        .collect::<Result<Vec<ArrayRef>>>()?;
                    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
                    match parts.as_slice() {
                        [] => Ok(new_empty_array(call.field()?.data_type())),
                        parts => Ok(concat(parts)?),
                    }
                }
            })
            .collect()
    }
}

//! The functions of a window over spans of rows.

use arrow::array::{Array, ArrayRef, RecordBatch, new_empty_array};
use arrow::compute::concat;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_planner::create_window_expr;
use std::sync::Arc;

use super::region::Span;
use super::running::{Running, State, Stretch};
use crate::error::Result;

pub struct Calls(Vec<Call>);

enum Call {
    Running(Running),
    Other(Arc<dyn WindowExpr>),
}

/// Values of some rows.
pub struct Values {
    /// One column for every call.
    pub columns: Vec<ArrayRef>,
    /// By running call, stretch and mark.
    pub states: Vec<Vec<Vec<State>>>,
}

impl Calls {
    pub fn new(calls: &[Expr], input: &DFSchema, session: &SessionState) -> Result<Self> {
        let one = |call: &Expr| {
            if let Expr::WindowFunction(function) = call
                && let Some(running) = Running::new(function, input, session)?
            {
                return Ok(Call::Running(running));
            }
            Ok(Call::Other(create_window_expr(call, input, session.execution_props(), &Default::default())?))
        };
        Ok(Calls(calls.iter().map(one).collect::<Result<_>>()?))
    }

    /// Whether one of them asks for the peers in a stretch.
    pub fn any_running(&self) -> bool {
        self.0.iter().any(|call| matches!(call, Call::Running(_)))
    }

    /// Whether the state of one of them is as large as there are distinct values.
    pub fn keep_distinct(&self) -> bool {
        self.0.iter().any(|call| matches!(call, Call::Running(call) if call.keeps_distinct()))
    }

    /// Of the rows of all spans, which follow one another in `rows`; each span is a stretch.
    pub fn evaluate(&self, rows: &RecordBatch, spans: &[Span], stretches: &[Stretch<'_>]) -> Result<Values> {
        let mut values = Values { columns: Vec::with_capacity(self.0.len()), states: Vec::new() };
        for call in &self.0 {
            let column = match call {
                Call::Running(call) => {
                    let (column, states) = call.evaluate(rows, stretches, values.states.len())?;
                    values.states.push(states);
                    column
                }
                Call::Other(call) => {
                    let spans = spans.iter().map(|span| &span.shown).filter(|shown| !shown.is_empty());
                    let parts = spans
                        .map(|shown| Ok(call.evaluate(&rows.slice(shown.start, shown.len()))?))
                        .collect::<Result<Vec<ArrayRef>>>()?;
                    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
                    match parts.as_slice() {
                        [] => new_empty_array(call.field()?.data_type()),
                        parts => concat(parts)?,
                    }
                }
            };
            values.columns.push(column);
        }
        Ok(values)
    }
}

//! A scalar subquery gives at most one row; more is an error when the query runs.
//!
//! We let DataFusion turn scalar subqueries into joins (the other way cannot be maintained), and a join would silently repeat
//! rows. So a subquery that may give several rows goes through [`SingleValue`], an aggregate that accepts one.

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, Aggregate, AggregateUDF, AggregateUDFImpl, Expr, LogicalPlan, Signature, Volatility,
};
use std::sync::Arc;

use crate::error::Error;

/// Guards every uncorrelated scalar subquery of `plan` that may give more than one row.
pub(crate) fn guard(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    Ok(plan
        .transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let expr = expr.transform_up(|e| match e {
                    Expr::ScalarSubquery(mut sub)
                        if sub.outer_ref_columns.is_empty() && sub.subquery.max_rows().is_none_or(|n| n > 1) =>
                    {
                        let (qualifier, field) = sub.subquery.schema().qualified_field(0);
                        let column = Expr::Column(Column::from((qualifier, field)));
                        let call = Expr::AggregateFunction(AggregateFunction::new_udf(
                            Arc::new(AggregateUDF::new_from_impl(SingleValue::default())),
                            vec![column],
                            false,
                            None,
                            vec![],
                            None,
                        ));
                        let guarded = Aggregate::try_new(Arc::clone(&sub.subquery), vec![], vec![call])?;
                        sub.subquery = Arc::new(LogicalPlan::Aggregate(guarded));
                        Ok(Transformed::yes(Expr::ScalarSubquery(sub)))
                    }
                    other => Ok(Transformed::no(other)),
                })?;
                Ok(expr.update_data(|e| name.restore(e)))
            })
        })?
        .data)
}

/// The one value of a group; an error when there are two rows, NULL when there is none.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleValue {
    signature: Signature,
}

impl Default for SingleValue {
    fn default() -> Self {
        SingleValue { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for SingleValue {
    fn name(&self) -> &str {
        "single_value"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(types[0].clone())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>, DataFusionError> {
        let value = ScalarValue::try_from(args.return_field.data_type())?;
        Ok(Box::new(Single { value, rows: 0 }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>, DataFusionError> {
        Ok(vec![
            Arc::new(Field::new("value", args.return_field.data_type().clone(), true)),
            Arc::new(Field::new("rows", DataType::Int64, false)),
        ])
    }
}

#[derive(Debug)]
struct Single {
    value: ScalarValue,
    rows: i64,
}

impl Single {
    fn add(&mut self, values: &ArrayRef, at: usize, rows: i64) -> Result<(), DataFusionError> {
        if rows == 0 {
            return Ok(());
        }
        self.rows += rows;
        if self.rows > 1 {
            let error = Error::user("several-rows", "a scalar subquery gave more than one row")
                .with_hint("aggregate it: `max(…)`, or order it and LIMIT 1");
            return Err(DataFusionError::External(Box::new(error)));
        }
        self.value = ScalarValue::try_from_array(values, at)?;
        Ok(())
    }
}

impl Accumulator for Single {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        (0..values[0].len().min(2)).try_for_each(|i| self.add(&values[0], i, 1))
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.value.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        Ok(vec![self.value.clone(), ScalarValue::Int64(Some(self.rows))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        let Some(rows) = states[1].as_any().downcast_ref::<Int64Array>() else {
            return Err(DataFusionError::Internal("single_value: state of another type".to_string()));
        };
        (0..rows.len()).try_for_each(|i| self.add(&states[0], i, rows.value(i)))
    }
}

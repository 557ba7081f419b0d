//! A scalar subquery gives at most one row; more is an error when the query runs.
//!
//! We let DataFusion turn scalar subqueries into joins (the other way cannot be maintained), and a join would silently repeat
//! rows. So a subquery that may give several rows goes through [`SingleValue`], an aggregate that accepts one. A correlated one gives a value for
//! each key, and several are wrong only where an outer row asks for them: its values go through the join as a list ([`FewValues`]),
//! which [`OnlyValue`] takes apart.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, Aggregate, AggregateUDF, AggregateUDFImpl, ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Subquery, Volatility,
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
                        sub.subquery = Arc::new(single_value(sub.subquery)?);
                        Ok(Transformed::yes(Expr::ScalarSubquery(sub)))
                    }
                    other => Ok(Transformed::no(other)),
                })?;
                Ok(expr.update_data(|e| name.restore(e)))
            })
        })?
        .data)
}

/// The value of `subquery`, which has one column; NULL when it has no row, an error when it has several.
fn single_value(subquery: Arc<LogicalPlan>) -> Result<LogicalPlan, DataFusionError> {
    aggregated(subquery, AggregateUDF::new_from_impl(SingleValue::default()))
}

/// `subquery`, which is correlated and has one column, as an expression with the same meaning that has one row for each key.
pub(super) fn only_value(mut subquery: Subquery) -> Result<Expr, DataFusionError> {
    let few = AggregateUDF::new_from_impl(FewValues::default());
    subquery.subquery = Arc::new(aggregated(subquery.subquery, few)?);
    Ok(ScalarUDF::new_from_impl(OnlyValue::default()).call(vec![Expr::ScalarSubquery(subquery)]))
}

fn aggregated(subquery: Arc<LogicalPlan>, function: AggregateUDF) -> Result<LogicalPlan, DataFusionError> {
    let (qualifier, field) = subquery.schema().qualified_field(0);
    let column = Expr::Column(Column::from((qualifier, field)));
    let call = AggregateFunction::new_udf(Arc::new(function), vec![column], false, None, vec![], None);
    Ok(LogicalPlan::Aggregate(Aggregate::try_new(subquery, vec![], vec![Expr::AggregateFunction(call)])?))
}

fn several_rows() -> DataFusionError {
    let error = Error::user("several-rows", "a scalar subquery gave more than one row")
        .with_hint("aggregate it: `max(…)`, or order it and LIMIT 1");
    DataFusionError::External(Box::new(error))
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
            return Err(several_rows());
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

/// Up to two values of a group, as a list: enough to know the only one, or that it is not.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FewValues {
    signature: Signature,
}

impl Default for FewValues {
    fn default() -> Self {
        FewValues { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for FewValues {
    fn name(&self) -> &str {
        "few_values"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::List(Arc::new(Field::new_list_field(types[0].clone(), true))))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>, DataFusionError> {
        let DataType::List(item) = args.return_field.data_type() else {
            return Err(DataFusionError::Internal("few_values: no list".to_string()));
        };
        Ok(Box::new(Few { item: item.data_type().clone(), values: Vec::new() }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>, DataFusionError> {
        Ok(vec![Arc::new(Field::new("values", args.return_field.data_type().clone(), true))])
    }
}

#[derive(Debug)]
struct Few {
    item: DataType,
    values: Vec<ScalarValue>,
}

impl Few {
    fn add(&mut self, values: &ArrayRef) -> Result<(), DataFusionError> {
        for i in 0..values.len().min(2 - self.values.len()) {
            self.values.push(ScalarValue::try_from_array(values, i)?);
        }
        Ok(())
    }
}

impl Accumulator for Few {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.add(&values[0])
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        // Which two there are depends on the order of rows; that there are two does not.
        if self.values.len() > 1 {
            self.values = vec![ScalarValue::try_from(&self.item)?; 2];
        }
        Ok(ScalarValue::List(ScalarValue::new_list_nullable(&self.values, &self.item)))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.values.iter().map(ScalarValue::size).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&self.values, &self.item))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        let lists = states[0].as_list::<i32>();
        lists.iter().flatten().try_for_each(|values| self.add(&values))
    }
}

/// The element of a list that has one, NULL of an empty list or none; an error of a longer one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OnlyValue {
    signature: Signature,
}

impl Default for OnlyValue {
    fn default() -> Self {
        OnlyValue { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for OnlyValue {
    fn name(&self) -> &str {
        "only_value"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError> {
        match &types[0] {
            DataType::List(item) => Ok(item.data_type().clone()),
            other => Err(DataFusionError::Internal(format!("only_value of {other}"))),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let lists = args.args[0].to_array(args.number_rows)?;
        let lists = lists.as_list::<i32>();
        let mut places: Vec<Option<u32>> = Vec::with_capacity(lists.len());
        for i in 0..lists.len() {
            let values = if lists.is_null(i) { 0 } else { lists.value_length(i) };
            places.push(match values {
                0 => None,
                1 => Some(lists.value_offsets()[i] as u32),
                _ => return Err(several_rows()),
            });
        }
        Ok(ColumnarValue::Array(take(lists.values(), &UInt32Array::from(places), None)?))
    }
}

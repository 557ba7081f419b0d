//! Physical expressions over batches.

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// An expression bound to an input schema.
pub(super) type Bound = Arc<dyn PhysicalExpr>;

/// Binds `expr` to columns of `schema`.
pub(super) fn bind(expr: &Expr, schema: &DFSchema, session: &SessionState) -> Result<Bound> {
    let context = datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext::default();
    Ok(datafusion::physical_expr::create_physical_expr(expr, schema, session.execution_props(), &context)?)
}

/// Binds several.
pub(super) fn bind_all(exprs: &[Expr], schema: &DFSchema, session: &SessionState) -> Result<Vec<Bound>> {
    exprs.iter().map(|e| bind(e, schema, session)).collect()
}

/// Values of an expression, one per row.
pub(super) fn evaluate(expr: &Bound, batch: &RecordBatch) -> Result<ArrayRef> {
    Ok(expr.evaluate(batch)?.into_array(batch.num_rows())?)
}

/// Values of several.
pub(super) fn evaluate_all(exprs: &[Bound], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|e| evaluate(e, batch)).collect()
}

/// A predicate's rows; NULL is false.
pub(super) fn mask(predicate: &Bound, batch: &RecordBatch) -> Result<BooleanArray> {
    let values = evaluate(predicate, batch)?;
    if values.data_type() == &DataType::Null {
        return Ok(BooleanArray::from(vec![false; batch.num_rows()]));
    }
    let mask = values.as_boolean_opt().ok_or_else(|| Error::internal("a predicate that is not boolean"))?;
    Ok(if mask.null_count() > 0 { arrow::compute::prep_null_mask_filter(mask) } else { mask.clone() })
}

use arrow::array::Array;

/// Types of expressions.
pub(super) fn types(exprs: &[Bound], schema: &DFSchema) -> Result<Vec<DataType>> {
    exprs.iter().map(|e| Ok(e.data_type(schema.as_arrow())?)).collect()
}

/// Columns as a batch of `schema`, cast where the planner's types and the kernels' differ only in representation.
pub(super) fn batch_of(schema: &arrow::datatypes::SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let columns: Vec<ArrayRef> = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                Ok(column)
            } else {
                Ok(arrow::compute::cast(&column, field.data_type())?)
            }
        })
        .collect::<Result<_>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The Arrow schema of a plan node, every column nullable: outer joins and retractions make NULLs the planner does not see.
pub(super) fn arrow_schema(schema: &DFSchema) -> arrow::datatypes::SchemaRef {
    let fields: Vec<arrow::datatypes::Field> =
        schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    Arc::new(arrow::datatypes::Schema::new(fields))
}

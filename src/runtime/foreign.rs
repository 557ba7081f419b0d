//! Tables that somebody else makes, as models read them: with the columns a model was compiled with.
//!
//! A table that is not there yet has the columns its source declares. When it comes it may have more of them, in another order; later
//! it may gain some. Rows are matched by name, here, before anything counts columns.

use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::common::Column;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlanBuilder};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::types::SignedBatch;

/// Whether two relations have the same columns, in the same order.
pub(super) fn same_columns(one: &SchemaRef, other: &SchemaRef) -> bool {
    let columns = |schema: &SchemaRef| -> Vec<_> {
        schema.fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect()
    };
    columns(one) == columns(other)
}

fn missing(table: &str, column: &str) -> Error {
    Error::user("foreign-columns", format!("the table `{table}` has no column `{column}`"))
        .with_hint("the model was compiled with the columns its source declares: correct them, or start again")
}

/// A table with the columns of `schema`.
pub(super) fn with_columns(
    name: &str,
    table: Arc<dyn TableProvider>,
    schema: &SchemaRef,
) -> Result<Arc<dyn TableProvider>> {
    let there = table.schema();
    if same_columns(&there, schema) {
        return Ok(table);
    }
    let scan = LogicalPlanBuilder::scan("foreign", provider_as_source(table), None)?;
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        if there.index_of(field.name()).is_err() {
            return Err(missing(name, field.name()));
        }
        let column = Expr::Column(Column::new(Some("foreign"), field.name()));
        columns.push(column.cast_to(field.data_type(), scan.schema())?.alias(field.name()));
    }
    Ok(Arc::new(ViewTable::new(scan.project(columns)?.build()?, None)))
}

/// Rows with the columns of `schema`.
pub(super) fn rows_with_columns(name: &str, rows: &[SignedBatch], schema: &SchemaRef) -> Result<Vec<SignedBatch>> {
    let conform = |batch: &SignedBatch| {
        let there = batch.rows.schema();
        if same_columns(&there, schema) {
            return Ok(batch.clone());
        }
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let at = there.index_of(field.name()).map_err(|_| missing(name, field.name()))?;
            columns.push(cast(batch.rows.column(at), field.data_type())?);
        }
        Ok(batch.with_rows(arrow::array::RecordBatch::try_new(Arc::clone(schema), columns)?))
    };
    rows.iter().map(conform).collect()
}

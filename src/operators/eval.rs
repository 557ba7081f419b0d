//! DataFusion expressions over batches.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray,
};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use std::sync::Arc;

use super::pattern;
use crate::error::{Error, Result};

/// Expressions over batches of one schema.
pub(super) struct Exprs {
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    pub types: Vec<DataType>,
}

impl Exprs {
    pub fn new<'a>(
        exprs: impl IntoIterator<Item = &'a Expr>,
        schema: &DFSchema,
        session: &SessionState,
    ) -> Result<Self> {
        let exprs = exprs.into_iter().map(|e| physical(e, schema, session)).collect::<Result<Vec<_>>>()?;
        Self::physical(exprs, schema.as_arrow())
    }

    pub fn physical(exprs: Vec<Arc<dyn PhysicalExpr>>, schema: &Schema) -> Result<Self> {
        let types = exprs.iter().map(|e| Ok(e.data_type(schema)?)).collect::<Result<Vec<_>>>()?;
        Ok(Exprs { exprs, types })
    }

    /// One array per expression, with as many rows as `batch`.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.evaluate_first(self.exprs.len(), batch)
    }

    /// Of the first `count` expressions alone.
    pub fn evaluate_first(&self, count: usize, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.exprs[..count].iter().map(|e| Ok(e.evaluate(batch)?.into_array(batch.num_rows())?)).collect()
    }
}

fn physical(expr: &Expr, schema: &DFSchema, session: &SessionState) -> Result<Arc<dyn PhysicalExpr>> {
    pattern::compiled(session.create_physical_expr(expr.clone(), schema)?, schema.as_arrow())
}

/// Expressions over those columns of a schema that they mention.
pub(super) struct NarrowExprs {
    /// The columns.
    pub columns: Vec<usize>,
    exprs: Exprs,
}

impl NarrowExprs {
    pub fn new<'a>(
        exprs: impl IntoIterator<Item = &'a Expr> + Clone,
        schema: &DFSchema,
        session: &SessionState,
    ) -> Result<Self> {
        let (columns, narrow) = narrowed(exprs.clone(), schema)?;
        Ok(NarrowExprs { columns, exprs: Exprs::new(exprs, &narrow, session)? })
    }

    pub fn types(&self) -> &[DataType] {
        &self.exprs.types
    }

    /// One array per expression. `batch` has the [columns](Self::columns) alone.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.exprs.evaluate(batch)
    }
}

/// The columns of `schema` that the expressions mention, in its order, and the schema of these alone.
pub(super) fn narrowed<'a>(
    exprs: impl IntoIterator<Item = &'a Expr>,
    schema: &DFSchema,
) -> Result<(Vec<usize>, DFSchema)> {
    let mut columns = Vec::new();
    for column in exprs.into_iter().flat_map(Expr::column_refs) {
        columns.push(schema.index_of_column(column)?);
    }
    columns.sort_unstable();
    columns.dedup();
    let fields = columns.iter().map(|i| {
        let (qualifier, field) = schema.qualified_field(*i);
        (qualifier.cloned(), Arc::clone(field))
    });
    let narrow = DFSchema::new_with_metadata(fields.collect(), Default::default())?;
    Ok((columns, narrow))
}

/// A condition; NULL is false.
pub(super) struct Predicate(Arc<dyn PhysicalExpr>);

impl Predicate {
    pub fn new(expr: &Expr, schema: &DFSchema, session: &SessionState) -> Result<Self> {
        Ok(Predicate(physical(expr, schema, session)?))
    }

    /// For each row whether the condition is TRUE. Never null.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let array = self.0.evaluate(batch)?.into_array(batch.num_rows())?;
        if array.data_type() == &DataType::Null {
            return Ok(BooleanArray::from(vec![false; batch.num_rows()]));
        }
        let mask = array.as_boolean_opt().ok_or_else(|| Error::internal("a condition is no boolean"))?;
        Ok(match mask.nulls() {
            Some(nulls) => BooleanArray::new(mask.values() & nulls.inner(), None),
            None => mask.clone(),
        })
    }
}

/// The arrow schema of a node's rows. All columns may hold NULL: nullability is the planner's knowledge, not ours to enforce.
pub(super) fn arrow_schema(schema: &DFSchema) -> SchemaRef {
    let fields: Vec<Field> =
        schema.fields().iter().map(|f| Field::new(f.name(), f.data_type().clone(), true)).collect();
    Arc::new(Schema::new(fields))
}

/// Columns as rows of `schema`; types that differ are cast, a value that does not fit is an error.
pub(super) fn rows(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let columns =
        columns
            .into_iter()
            .zip(schema.fields())
            .map(|(c, f)| {
                if c.data_type() == f.data_type() { Ok(c) } else { Ok(cast_with_options(&c, f.data_type(), &options)?) }
            })
            .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// TIMESTAMPs or DATEs, in µs.
pub(super) fn instants(values: &ArrayRef) -> Result<TimestampMicrosecondArray> {
    let values = cast(values, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    Ok(values.as_primitive::<TimestampMicrosecondType>().clone())
}

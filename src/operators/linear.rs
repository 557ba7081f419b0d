//! Operators without state: the change of the output is the operator applied to the change of the input.

use arrow::datatypes::SchemaRef;

use super::eval::{self, Exprs, Predicate};
use crate::error::Result;
use crate::types::SignedBatch;

/// SELECT expressions.
pub(super) struct Project {
    pub exprs: Exprs,
    pub schema: SchemaRef,
}

impl Project {
    pub fn step(&self, input: Vec<SignedBatch>) -> Result<Vec<SignedBatch>> {
        let project = |b: SignedBatch| {
            let columns = self.exprs.evaluate(&b.rows)?;
            Ok(b.with_rows(eval::rows(&self.schema, columns, b.num_rows())?))
        };
        input.into_iter().map(project).collect()
    }
}

/// WHERE.
pub(super) struct Filter {
    pub predicate: Predicate,
}

impl Filter {
    pub fn step(&self, input: Vec<SignedBatch>) -> Result<Vec<SignedBatch>> {
        let mut output = Vec::with_capacity(input.len());
        for batch in input {
            let mask = self.predicate.evaluate(&batch.rows)?;
            match mask.true_count() {
                0 => {}
                n if n == batch.num_rows() => output.push(batch),
                _ => output.push(batch.filter(&mask)?),
            }
        }
        Ok(output)
    }
}

/// Batches under another schema: columns picked, names and types of `schema`.
pub(super) fn conform(
    input: &[SignedBatch],
    columns: impl Fn(usize) -> usize,
    schema: &SchemaRef,
) -> Result<Vec<SignedBatch>> {
    let width = schema.fields().len();
    let conform = |b: &SignedBatch| {
        let picked = (0..width).map(|i| b.rows.column(columns(i)).clone()).collect();
        Ok(b.with_rows(eval::rows(schema, picked, b.num_rows())?))
    };
    input.iter().filter(|b| !b.is_empty()).map(conform).collect()
}

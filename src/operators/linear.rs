//! Linear nodes: what they do to a relation they do to its change.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::expr::{self, Bound};
use crate::error::Result;
use crate::types::SignedBatch;

/// Some columns of an input relation, in the plan's types.
pub(super) struct Input {
    pub slot: usize,
    pub columns: Vec<usize>,
    pub schema: SchemaRef,
}

impl Input {
    pub(super) fn step(&self, inputs: &[Vec<SignedBatch>]) -> Result<Vec<SignedBatch>> {
        let Some(batches) = inputs.get(self.slot) else { return Ok(Vec::new()) };
        batches
            .iter()
            .filter(|b| !b.is_empty())
            .map(|b| {
                let columns = self.columns.iter().map(|c| b.rows.column(*c).clone()).collect();
                Ok(b.with_rows(expr::batch_of(&self.schema, columns, b.num_rows())?))
            })
            .collect()
    }
}

/// Rows that never change, emitted once.
pub(super) struct Constant {
    pub rows: Vec<RecordBatch>,
    pub schema: SchemaRef,
    pub emitted: bool,
}

impl Constant {
    pub(super) fn step(&mut self) -> Result<Vec<SignedBatch>> {
        if std::mem::replace(&mut self.emitted, true) {
            return Ok(Vec::new());
        }
        self.rows
            .iter()
            .map(|b| Ok(SignedBatch::inserts(expr::batch_of(&self.schema, b.columns().to_vec(), b.num_rows())?)))
            .collect()
    }
}

/// Expressions, row by row.
pub(super) struct Project {
    pub exprs: Vec<Bound>,
    pub schema: SchemaRef,
}

impl Project {
    pub(super) fn step(&self, input: Vec<SignedBatch>) -> Result<Vec<SignedBatch>> {
        input
            .into_iter()
            .map(|b| {
                let columns = expr::evaluate_all(&self.exprs, &b.rows)?;
                Ok(b.with_rows(expr::batch_of(&self.schema, columns, b.num_rows())?))
            })
            .collect()
    }
}

/// Rows whose predicate is true.
pub(super) struct Filter {
    pub predicate: Bound,
}

impl Filter {
    pub(super) fn step(&self, input: Vec<SignedBatch>) -> Result<Vec<SignedBatch>> {
        let mut out = Vec::with_capacity(input.len());
        for batch in input {
            let kept = batch.filter(&expr::mask(&self.predicate, &batch.rows)?)?;
            if !kept.is_empty() {
                out.push(kept);
            }
        }
        Ok(out)
    }
}

/// All rows of all inputs, in one schema.
pub(super) struct Union {
    pub schema: SchemaRef,
}

impl Union {
    pub(super) fn step(&self, inputs: Vec<Vec<SignedBatch>>) -> Result<Vec<SignedBatch>> {
        inputs
            .into_iter()
            .flatten()
            .map(|b| Ok(b.with_rows(expr::batch_of(&self.schema, b.rows.columns().to_vec(), b.num_rows())?)))
            .collect()
    }
}

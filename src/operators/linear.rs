//! Operators without state: the change of the output is the operator applied to the change of the input.

use arrow::datatypes::SchemaRef;

use super::eval::{self, Exprs, Predicate};
use crate::error::Result;
use crate::state::in_threads;
use crate::types::SignedBatch;

/// SELECT expressions.
pub(super) struct Project {
    pub exprs: Exprs,
    pub schema: SchemaRef,
}

impl Project {
    pub fn step(&self, input: Vec<SignedBatch>, threads: usize) -> Result<Vec<SignedBatch>> {
        in_parts(input, threads, |b: SignedBatch| {
            let columns = self.exprs.evaluate(&b.rows)?;
            Ok(Some(b.with_rows(eval::rows(&self.schema, columns, b.num_rows())?)))
        })
    }
}

/// WHERE.
pub(super) struct Filter {
    pub predicate: Predicate,
}

impl Filter {
    pub fn step(&self, input: Vec<SignedBatch>, threads: usize) -> Result<Vec<SignedBatch>> {
        in_parts(input, threads, |batch| {
            let mask = self.predicate.evaluate(&batch.rows)?;
            Ok(match mask.true_count() {
                0 => None,
                n if n == batch.num_rows() => Some(batch),
                _ => Some(batch.filter(&mask)?),
            })
        })
    }
}

/// Rows from which on threads are worth starting. Tests have few.
pub(super) const LARGE: usize = if cfg!(test) { 8 } else { 1 << 14 };

/// What `of` makes of every batch, in order; large ones are cut and dealt out to threads.
pub(super) fn in_parts<T: Send>(
    input: Vec<SignedBatch>,
    threads: usize,
    of: impl Fn(SignedBatch) -> Result<Option<T>> + Sync,
) -> Result<Vec<T>> {
    let rows: usize = input.iter().map(SignedBatch::num_rows).sum();
    if threads <= 1 || rows < LARGE {
        return input.into_iter().filter_map(|batch| of(batch).transpose()).collect();
    }
    let part = rows.div_ceil(threads);
    let mut lots: Vec<Vec<SignedBatch>> = vec![vec![]];
    let mut room = part;
    for batch in input {
        let mut from = 0;
        while from < batch.num_rows() {
            if room == 0 {
                lots.push(vec![]);
                room = part;
            }
            let count = room.min(batch.num_rows() - from);
            if let Some(lot) = lots.last_mut() {
                lot.push(batch.slice(from, count));
            }
            (from, room) = (from + count, room - count);
        }
    }
    let work = |lot: Vec<SignedBatch>| lot.into_iter().filter_map(|batch| of(batch).transpose()).collect();
    let made = in_threads(lots, work)?.into_iter().collect::<Result<Vec<Vec<T>>>>()?;
    Ok(made.into_iter().flatten().collect())
}

/// Rows of a batch above which it is cut: what is made of it on the way should stay in the caches.
const CUT: usize = 1 << 16;

/// The batches in pieces of at most [`CUT`] rows.
pub(super) fn cut(batches: Vec<SignedBatch>) -> Vec<SignedBatch> {
    if batches.iter().all(|batch| batch.num_rows() <= CUT) {
        return batches;
    }
    let pieces = |batch: &SignedBatch| -> Vec<SignedBatch> {
        let rows = batch.num_rows();
        (0..rows).step_by(CUT).map(|from| batch.slice(from, CUT.min(rows - from))).collect()
    };
    batches.iter().flat_map(pieces).collect()
}

/// Rows of a batch below which it is put together with its neighbours: what a batch costs, however small it is, is spent once for
/// all of them. Tests have few.
const SMALL: usize = if cfg!(test) { 3 } else { 1 << 12 };

/// The batches, neighbours that are small as one.
pub(super) fn gathered(schema: &SchemaRef, batches: Vec<SignedBatch>) -> Result<Vec<SignedBatch>> {
    let mut out = Vec::with_capacity(batches.len());
    let mut small: Vec<SignedBatch> = Vec::new();
    for batch in batches {
        let is_small = batch.num_rows() < SMALL;
        let waiting: usize = small.iter().map(SignedBatch::num_rows).sum();
        if !small.is_empty() && (!is_small || waiting >= SMALL) {
            out.push(SignedBatch::concat(schema, &std::mem::take(&mut small))?);
        }
        if is_small { &mut small } else { &mut out }.push(batch);
    }
    if !small.is_empty() {
        out.push(SignedBatch::concat(schema, &small)?);
    }
    Ok(out)
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

//! Views that forget the groups of time buckets behind their input's watermark, and read a bucket again from the input's table when a late row comes.
//!
//! After a step the circuit forgets what the watermark has passed. Before the next one it says which forgotten buckets the changes touch; their
//! rows are taken from the upstream table *as the circuit has seen it*: as it is committed, less what the log says has changed since the
//! circuit last stepped. Files whose statistics lie elsewhere in time are not opened. So the step finds the groups as if they had never been
//! forgotten, and the view's table equals its query, late rows and late retractions included. How far sessions reach is seen from their rows, so it is
//! asked until nothing is needed.
//!
//! Whatever goes wrong costs the circuit: the model is computed from its inputs, as one that has lost its state.

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, Operator, binary_expr, lit};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use std::sync::Arc;

use super::pipeline::{Pipeline, Upstream};
use crate::error::{Error, Result};
use crate::operators::{Circuit, Needed, consolidate};
use crate::types::SignedBatch;

/// Rows that are taken in at once.
const TOGETHER: usize = 1 << 19;
/// µs.
const DAY: i64 = 86_400_000_000;

impl Pipeline {
    /// Reads what the circuit of model `index` has forgotten and a step with `inputs` touches. `since`: what the tables of its inputs have changed
    /// by since it last stepped, this epoch's changes excluded; each entry by input.
    pub(super) async fn remember_buckets(
        &mut self,
        index: usize,
        circuit: &mut Circuit,
        inputs: &[Vec<SignedBatch>],
        since: &[&[Vec<SignedBatch>]],
    ) -> Result<()> {
        loop {
            let all = tokio::task::block_in_place(|| circuit.needed(inputs))?;
            if all.is_empty() {
                return Ok(());
            }
            for needed in all {
                self.remember_bucket(index, circuit, needed, since).await?;
            }
        }
    }

    async fn remember_bucket(
        &mut self,
        index: usize,
        circuit: &mut Circuit,
        needed: Needed,
        since: &[&[Vec<SignedBatch>]],
    ) -> Result<()> {
        let Upstream::Node(up) = self.nodes[index].upstreams[needed.slot] else {
            return Err(Error::internal("what was forgotten is in no table"));
        };
        let cell = self.nodes[up].main.as_mut().ok_or_else(|| Error::internal("an upstream without a table"))?;
        let snapshot = cell.ready().await?.committed_snapshot();
        let relation = Arc::clone(&self.nodes[index].compiled.inputs[needed.slot].schema);
        let time = relation.field(needed.time);
        let since: Vec<SignedBatch> = since
            .iter()
            .filter_map(|changes| changes.get(needed.slot))
            .flatten()
            .map(|batch| taken_back(batch, &needed))
            .collect::<Result<_>>()?;
        tracing::debug!(model = self.nodes[index].name(), table = snapshot.name(), spans = ?needed.spans, "forgotten rows are read again");
        let context = SessionContext::new_with_state(self.planner.session_state().clone());
        let columns = needed.columns.iter().map(|column| named(relation.field(*column)));
        let rows = context
            .read_table(snapshot.within(time.name(), &needed.spans).provider())?
            .filter(within(time, &needed.spans))?
            .select(columns.collect::<Vec<_>>())?;
        let mut rows = rows.execute_stream().await?;
        if since.is_empty() {
            let (mut part, mut count) = (Vec::new(), 0);
            while let Some(batch) = rows.try_next().await? {
                count += batch.num_rows();
                part.push(SignedBatch::inserts(batch));
                // Groups that are spilled are brought back once for all of them.
                if count >= TOGETHER {
                    count = 0;
                    let part = std::mem::take(&mut part);
                    tokio::task::block_in_place(|| circuit.remember(&needed, part))?;
                }
            }
            if !part.is_empty() {
                tokio::task::block_in_place(|| circuit.remember(&needed, part))?;
            }
        } else {
            let mut all: Vec<SignedBatch> = rows.map_ok(SignedBatch::inserts).try_collect().await?;
            all.extend(since);
            let schema = Arc::new(relation.project(&needed.columns)?);
            // Those of other spans of time may be retracted there: they are in no bucket that is needed.
            let conform = |batch: SignedBatch| Ok(batch.with_rows(to_schema(&batch, &schema)?));
            let all = all.into_iter().map(conform).collect::<Result<Vec<_>>>()?;
            let rows = consolidate(&schema, all)?;
            tokio::task::block_in_place(|| circuit.remember(&needed, rows))?;
        }
        circuit.remembered(&needed)?;
        Ok(())
    }

    /// After a step of model `index`: forgets what its inputs' watermarks have passed.
    pub(super) fn forget_buckets(&mut self, index: usize) -> Result<()> {
        let Some(mut circuit) = self.nodes[index].circuit.take() else { return Ok(()) };
        let watermark = |slot: usize| match self.nodes[index].upstreams.get(slot)? {
            Upstream::Node(up) => self.watermark(*up),
            _ => None,
        };
        tokio::task::block_in_place(|| circuit.forget(watermark))?;
        self.nodes[index].circuit = Some(circuit);
        Ok(())
    }
}

fn named(field: &Field) -> Expr {
    Expr::Column(Column::new_unqualified(field.name()))
}

/// Whether a row's time lies in one of the spans.
fn within(time: &Field, spans: &[(i64, i64)]) -> Expr {
    let instant = |micros: i64| match time.data_type() {
        DataType::Timestamp(_, zone) => ScalarValue::TimestampMicrosecond(Some(micros), zone.clone()),
        _ => ScalarValue::Date32(Some(day(micros))),
    };
    let compared =
        |operator: Operator, micros: i64| binary_expr(named(time), operator, Expr::Literal(instant(micros), None));
    let within = |(from, until): &(i64, i64)| {
        // The last one of them is in it.
        let until = compared(Operator::LtEq, until.saturating_sub(1));
        match *from {
            i64::MIN => until,
            from => compared(Operator::GtEq, from).and(until),
        }
    };
    spans.iter().map(within).reduce(Expr::or).unwrap_or_else(|| lit(false))
}

/// The day an instant lies in, or the first or the last there is.
fn day(micros: i64) -> i32 {
    let day = micros.div_euclid(DAY);
    i32::try_from(day).unwrap_or(if day < 0 { i32::MIN } else { i32::MAX })
}

/// A change taken back, in the columns that are needed.
fn taken_back(batch: &SignedBatch, needed: &Needed) -> Result<SignedBatch> {
    let weights: Vec<i64> = (0..batch.num_rows()).map(|i| -batch.weight(i)).collect();
    SignedBatch::new(batch.rows.project(&needed.columns)?, weights.into())
}

/// The same rows in the types of `schema`.
fn to_schema(batch: &SignedBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.rows.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| Ok(cast(column, field.data_type())?)).collect::<Result<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

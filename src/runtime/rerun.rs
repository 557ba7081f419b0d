//! Runs of incremental models, as dbt runs them: the first run and a full refresh make the whole table, every other run brings its rows in.
//!
//! A run is part of one epoch and its planned instant a `txn` of the commit that holds its rows, as with every model that is made at
//! times; so a run that was killed is made again, and one that was committed is not.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, new_null_array};
use arrow::compute::{cast, filter_record_batch, nullif};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::{Column, ScalarValue};
use datafusion::prelude::{DataFrame, Expr, SessionContext, cast as cast_expr, col, lit};
use futures::TryStreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::compute::{EpochState, How, Outcome, apply_expectations};
use super::pipeline::{Pipeline, Refresh};
use crate::error::{Error, Result};
use crate::operators::{Merge, numbered, replace};
use crate::plan::stored::to_stored;
use crate::plan::{CompiledModel, CompiledRerun, Matching, ROW, RerunChange};
use crate::types::SignedBatch;

/// Start (µs) of a batch of event time, and the start of the next.
type Window = (i64, i64);

impl Pipeline {
    /// One run of incremental model `index`.
    pub(super) async fn run_incremental(
        &mut self,
        index: usize,
        epoch: &mut EpochState,
        planned: i64,
    ) -> Result<Outcome> {
        let compiled = Arc::clone(&self.nodes[index].compiled);
        let rerun = rerun_of(&compiled)?;
        let last = self.nodes[index].job.as_ref().filter(|job| !job.full).and_then(|job| job.last);
        if let RerunChange::Batches { batches, event_time } = &rerun.change {
            let windows = match self.options.event_time {
                (None, None) => batches.batches(last, planned),
                (start, end) => {
                    batches.between(start.unwrap_or(batches.begin), end.unwrap_or(planned.saturating_add(1)))
                }
            };
            let mut added: Vec<RecordBatch> = Vec::new();
            let mut gone = Vec::new();
            for window in &windows {
                // What an earlier batch put into this one's time makes place too.
                added = outside(added, *event_time, *window)?;
                if last.is_some() {
                    gone.extend(self.rows_within(index, *event_time, *window).await?);
                }
                added.extend(self.rows_of_run(index, epoch, last.is_some(), Some(*window)).await?);
            }
            return match last {
                None => self.hold(index, added.into_iter().map(SignedBatch::inserts).collect(), How::Run).await,
                Some(_) => {
                    let (mut outcome, rows) = self.expected(index, added)?;
                    outcome.delta = replace(&compiled.schema, gone, rows)?;
                    Ok(outcome)
                }
            };
        }
        let rows = self.rows_of_run(index, epoch, last.is_some(), None).await?;
        if last.is_none() {
            return self.hold(index, rows.into_iter().map(SignedBatch::inserts).collect(), How::Run).await;
        }
        let (mut outcome, rows) = self.expected(index, rows)?;
        outcome.delta = match &rerun.change {
            RerunChange::Append | RerunChange::Batches { .. } => replace(&compiled.schema, Vec::new(), rows)?,
            RerunChange::Merge { matching, key, updated } => {
                let (rows, matched) = self.matched(index, matching, &rows).await?;
                let merge = Merge { name: &compiled.model.name, schema: Arc::clone(&compiled.schema), key, updated };
                merge.change(&matched, &rows)?
            }
            RerunChange::Replace(matching) => {
                let (rows, gone) = self.matched(index, matching, &rows).await?;
                replace(&compiled.schema, gone, vec![rows])?
            }
            RerunChange::ReplaceAll => {
                let gone = self.table_frame(index).await?.collect().await?;
                replace(&compiled.schema, stored(gone, &compiled.schema)?, rows)?
            }
        };
        Ok(outcome)
    }

    /// Gives the table the model's columns before a run does: what reads it expects them.
    pub(super) async fn sync_columns(&mut self, index: usize) -> Result<Outcome> {
        let compiled = Arc::clone(&self.nodes[index].compiled);
        // The next run makes all rows anew.
        let keeps = self.nodes[index].job.as_ref().is_some_and(|job| !job.full && job.last.is_some());
        let main =
            self.nodes[index].main.as_mut().ok_or_else(|| Error::internal("an incremental model without a table"))?;
        let table = main.ready().await?;
        let old: Vec<RecordBatch> = match keeps {
            true => table.snapshot().rows().try_collect().await?,
            false => Vec::new(),
        };
        let by_name = |batch: &RecordBatch| -> Vec<Option<usize>> {
            compiled.schema.fields().iter().map(|f| batch.schema().index_of(f.name()).ok()).collect()
        };
        let rows: Vec<RecordBatch> =
            old.iter().map(|b| conform(b, &by_name(b), &compiled)).collect::<Result<_>>().map_err(|e| {
                e.context(format!("{}: changing the columns of its table", compiled.model.name))
                    .with_hint("run it with --full-refresh")
            })?;
        let rows = futures::stream::iter(rows.into_iter().map(Ok::<_, Error>));
        table.replace(Arc::clone(&compiled.schema), BTreeMap::new(), Box::pin(rows)).await?;
        main.must_commit = true;
        self.nodes[index].replace = false;
        for reader in self.readers_of(index) {
            let refresh = &mut self.nodes[reader].refresh;
            if matches!(refresh, None | Some(Refresh::Behind)) {
                *refresh = Some(Refresh::Replaced);
            }
        }
        Ok(Outcome { how: How::Refresh("columns"), ..Outcome::default() })
    }

    /// What the query of a run returns, in the table's columns.
    async fn rows_of_run(
        &mut self,
        index: usize,
        epoch: &EpochState,
        again: bool,
        window: Option<Window>,
    ) -> Result<Vec<RecordBatch>> {
        let compiled = Arc::clone(&self.nodes[index].compiled);
        let rerun = rerun_of(&compiled)?;
        let mut providers = Vec::with_capacity(compiled.inputs.len());
        for slot in 0..compiled.inputs.len() {
            let provider = self.full_provider(index, slot, epoch).await?;
            providers.push(match (window, &rerun.event_times[slot]) {
                (Some(window), Some(column)) => {
                    let kind = provider.schema().field_with_name(column)?.data_type().clone();
                    self.context().read_table(provider)?.filter(within(column, &kind, window))?.into_view()
                }
                _ => provider,
            });
        }
        let (plan, columns) = match again {
            true => (self.planner.bind_rerun(&compiled, &providers)?, &rerun.columns),
            false => (self.planner.bind(&compiled, &providers)?, &rerun.first_columns),
        };
        let rows: Vec<RecordBatch> = self.planner.execute(&plan).await?.try_collect().await?;
        rows.iter().filter(|b| b.num_rows() > 0).map(|b| conform(b, columns, &compiled)).collect()
    }

    /// The rows that meet the model's expectations; the outcome has the others.
    fn expected(&mut self, index: usize, rows: Vec<RecordBatch>) -> Result<(Outcome, Vec<RecordBatch>)> {
        let mut outcome =
            Outcome { how: How::Run, rows_in: rows.iter().map(RecordBatch::num_rows).sum(), ..Outcome::default() };
        apply_expectations(&mut self.nodes[index], rows.into_iter().map(SignedBatch::inserts).collect(), &mut outcome)?;
        let kept = std::mem::take(&mut outcome.delta).into_iter().map(|b| b.rows).collect();
        Ok((outcome, kept))
    }

    /// The rows as one batch, and what of the table they concern.
    async fn matched(
        &mut self,
        index: usize,
        matching: &Matching,
        rows: &[RecordBatch],
    ) -> Result<(RecordBatch, Vec<RecordBatch>)> {
        let schema = Arc::clone(&self.nodes[index].compiled.schema);
        let mut fields = schema.fields().to_vec();
        fields.push(Arc::new(arrow::datatypes::Field::new(ROW, DataType::UInt64, false)));
        let with = Arc::new(arrow::datatypes::Schema::new(fields));
        let (rows, numbered) = numbered(rows, &schema, &with)?;
        let source: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(with, vec![vec![numbered]])?);
        let table = self.table_provider(index).await?;
        let plan = self.planner.bind_matching(matching, table, source)?;
        let matched: Vec<RecordBatch> = self.planner.execute(&plan).await?.try_collect().await?;
        let matched = matched.into_iter().map(|batch| {
            let (columns, number) = batch.columns().split_at(schema.fields().len());
            let table = RecordBatch::try_new(Arc::clone(&schema), columns.to_vec())?;
            let table = to_stored(&table, &schema)?;
            match number {
                [] => Ok(table),
                [number, ..] => {
                    let mut columns = table.columns().to_vec();
                    columns.push(cast(number, &DataType::UInt64)?);
                    let mut fields = schema.fields().to_vec();
                    fields.push(Arc::new(arrow::datatypes::Field::new(ROW, DataType::UInt64, true)));
                    Ok(RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns)?)
                }
            }
        });
        Ok((rows, matched.collect::<Result<_>>()?))
    }

    async fn rows_within(&mut self, index: usize, column: usize, window: Window) -> Result<Vec<RecordBatch>> {
        let schema = Arc::clone(&self.nodes[index].compiled.schema);
        let field = schema.field(column);
        let frame = self.table_frame(index).await?.filter(within(field.name(), field.data_type(), window))?;
        stored(frame.collect().await?, &schema)
    }

    async fn table_frame(&mut self, index: usize) -> Result<DataFrame> {
        let provider = self.table_provider(index).await?;
        Ok(self.context().read_table(provider)?)
    }

    async fn table_provider(&mut self, index: usize) -> Result<Arc<dyn TableProvider>> {
        let main =
            self.nodes[index].main.as_mut().ok_or_else(|| Error::internal("an incremental model without a table"))?;
        Ok(main.ready().await?.snapshot().provider())
    }

    fn context(&self) -> SessionContext {
        SessionContext::new_with_state(self.planner.session_state().clone())
    }
}

fn rerun_of(compiled: &CompiledModel) -> Result<&CompiledRerun> {
    compiled.rerun.as_ref().ok_or_else(|| Error::internal("an incremental model without its runs"))
}

fn stored(rows: Vec<RecordBatch>, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    rows.iter().map(|rows| to_stored(rows, schema)).collect()
}

/// Rows in the table's columns: each from the column that fills it, cast where the table has another type, else NULL.
fn conform(rows: &RecordBatch, columns: &[Option<usize>], compiled: &CompiledModel) -> Result<RecordBatch> {
    let partitions = &compiled.model.config.partition_by;
    let filled = columns.iter().zip(compiled.schema.fields()).map(|(column, field)| -> Result<ArrayRef> {
        let Some(column) = column else { return Ok(new_null_array(field.data_type(), rows.num_rows())) };
        let array = rows.column(*column);
        // In a partition column the lake knows no empty text.
        match array.as_string_opt::<i32>().filter(|_| partitions.iter().any(|p| p.eq_ignore_ascii_case(field.name()))) {
            Some(texts) => {
                let empty: BooleanArray = texts.iter().map(|t| Some(t == Some(""))).collect();
                Ok(nullif(array, &empty)?)
            }
            None => Ok(Arc::clone(array)),
        }
    });
    let filled = filled.collect::<Result<Vec<_>>>()?;
    let fields = filled.iter().zip(compiled.schema.fields());
    let fields: Vec<_> =
        fields.map(|(array, f)| f.as_ref().clone().with_data_type(array.data_type().clone())).collect();
    let named = RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), filled)?;
    to_stored(&named, &compiled.schema)
}

/// `start <= column < end`.
fn within(column: &str, kind: &DataType, (start, end): Window) -> Expr {
    let instant = |at: i64| {
        let zone = match kind {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        cast_expr(lit(ScalarValue::TimestampMicrosecond(Some(at), zone)), kind.clone())
    };
    let column = || col(Column::new_unqualified(column));
    column().gt_eq(instant(start)).and(column().lt(instant(end)))
}

/// The rows whose time is not in `window`.
fn outside(rows: Vec<RecordBatch>, column: usize, (start, end): Window) -> Result<Vec<RecordBatch>> {
    let keep = |batch: RecordBatch| -> Result<RecordBatch> {
        let times = cast(batch.column(column), &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let times: &Int64Array = &times.as_primitive::<TimestampMicrosecondType>().reinterpret_cast();
        let outside = times.iter().map(|t| Some(t.is_none_or(|t| t < start || t >= end)));
        Ok(filter_record_batch(&batch, &outside.collect::<BooleanArray>())?)
    };
    rows.into_iter().map(keep).collect()
}

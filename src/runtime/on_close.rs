//! Streaming tables whose windows are written once, when the watermark has passed their end.
//!
//! A step has two parts. First the new rows of the stream come in, while the clock of the circuit stands where windows were last closed: rows
//! of windows before that are late and go to the side table. Then the clock moves to the stream's watermark: what the windows up to there
//! hold is the change of the table, and their rows leave the state.
//!
//! Two streams that are joined by time go the same way, with matches for windows: see `plan::interval_join`. Where matches are grouped into windows, the clock
//! moves in the join first: what it settles belongs to windows that may close in the same step.
//!
//! One commit holds the windows, the position in the stream and the watermark up to which they are written. So after a crash the same rows
//! meet the same clock. Late rows are committed before; those the side table holds already are told from its position. A circuit
//! that was lost is filled with the rows that were consumed: those of closed windows it leaves out. Where rows stay behind the watermark for a
//! while, in a join of streams and in sessions, it is told by the side table which were late.

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::compute::{EpochState, How, Outcome, apply_expectations};
use super::pipeline::{Node, Pipeline, Refresh, Upstream, cell_name};
use super::positions::closed_app;
use super::stream::step_stream;
use crate::error::{Error, Result};
use crate::operators::{Circuit, Known, Mode, rejected, texts, without_nulls};
use crate::plan::incremental::{Node as Plan, TemporalRole};
use crate::types::{RejectKind, SignedBatch};

impl Pipeline {
    pub(super) async fn compute_on_close(&mut self, index: usize, epoch: &mut EpochState) -> Result<Outcome> {
        let node = &self.nodes[index];
        if node.refresh == Some(Refresh::Asked) || (node.replace && node.refresh.is_some()) {
            self.restart_stream(index).await?;
        }
        let streams = streams(&self.nodes[index]);
        let closed = self.closed(index)?;
        let inputs = self.nodes[index].upstreams.len();
        let mut dimensions = self.changes_of_inputs(index, epoch)?;
        let (mut early, mut rest) = (vec![Vec::new(); inputs], vec![Vec::new(); inputs]);
        let mut outcome = Outcome::default();
        for slot in &streams {
            let Upstream::Node(up) = self.nodes[index].upstreams[*slot] else {
                return Err(Error::internal("windows of a stream that is no table"));
            };
            let (known, new) = self.stream_changes(index, up, epoch).await?;
            outcome.rows_in += known.iter().chain(&new).map(SignedBatch::num_rows).sum::<usize>();
            early[*slot] = self.without_change_commits(index, *slot, known)?;
            rest[*slot] = self.without_change_commits(index, *slot, new)?;
            dimensions[*slot].clear();
        }
        if self.nodes[index].circuit.is_none() {
            self.warm_on_close(index, &streams, closed, &early, epoch).await?;
            dimensions.iter_mut().for_each(Vec::clear);
        }
        let (mut late, mut written) = (Vec::new(), Vec::new());
        for (mut rows, is_new) in [(early, false), (rest, true)] {
            for (slot, change) in std::mem::replace(&mut dimensions, vec![Vec::new(); inputs]).into_iter().enumerate() {
                rows[slot].extend(change);
            }
            let node = &mut self.nodes[index];
            written.extend(step_stream(node, &rows)?);
            let came_late = node.circuit.as_mut().map(Circuit::take_late).unwrap_or_default();
            if is_new {
                late.extend(came_late);
            }
        }
        let is_final = self.ended == Some(true);
        let watermark = self.stream_watermark(index);
        let node = &mut self.nodes[index];
        let last = |node: &Node| match &node.circuit {
            Some(circuit) if is_final => circuit.last_change(),
            _ => Ok(watermark),
        };
        let mut reached = last(node)?.unwrap_or(closed).max(closed);
        if reached > closed {
            if plan_of(node)?.looks_back().is_some() {
                // What the streams' join settles belongs to windows that may close at once, and may have those close later that it comes to.
                loop {
                    if let Some(circuit) = &mut node.circuit {
                        circuit.set_clock_of_joins(reached);
                    }
                    written.extend(step_stream(node, &vec![Vec::new(); inputs])?);
                    match last(node)? {
                        Some(later) if later > reached => reached = later,
                        _ => break,
                    }
                }
            }
            if let Some(circuit) = &mut node.circuit {
                circuit.set_clock(reached);
            }
            written.extend(step_stream(node, &vec![Vec::new(); inputs])?);
            outcome.closed = Some(reached);
        }
        if outcome.rows_in > 0 || !written.is_empty() {
            outcome.how = How::Incremental;
        }
        let model = node.name().to_string();
        for (slot, batch) in late {
            let reasons = vec![Some(format!("late: the watermark stands at {}", text(closed))); batch.num_rows()];
            let rows = rejected(&model, RejectKind::Late, &batch, &reasons)?;
            outcome.late.push(match streams.len() {
                1 => rows,
                _ => of_stream(&rows, &stream_name(node, slot))?,
            });
        }
        apply_expectations(node, written, &mut outcome)?;
        Ok(outcome)
    }

    /// Up to where the windows of model `index` are written, µs.
    fn closed(&self, index: usize) -> Result<i64> {
        let Some(main) = &self.nodes[index].main else { return Ok(i64::MIN) };
        Ok(main.consumed.get(&closed_app(&cell_name(main)?)).copied().unwrap_or(i64::MIN))
    }

    /// A circuit with the rows of open windows, and with the dimensions as they are. `early`: rows behind those it had consumed which
    /// the side table has been told of.
    async fn warm_on_close(
        &mut self,
        index: usize,
        streams: &[usize],
        closed: i64,
        early: &[Vec<SignedBatch>],
        epoch: &EpochState,
    ) -> Result<()> {
        let compiled = std::sync::Arc::clone(&self.nodes[index].compiled);
        let plan = plan_of(&self.nodes[index])?;
        let mode = Mode::Stream { slot: streams[0] };
        let mut circuit = Circuit::new(&compiled.model.name, plan, mode, self.planner.session_state())?;
        // Windows hold what the streams' join gave out long ago: it is given out again while their clock stands so far back.
        let back = plan.looks_back();
        circuit.set_clock_of_gates(closed);
        circuit.set_clock(closed.saturating_sub(back.unwrap_or(0)));
        if keeps_rows_behind(plan) {
            for slot in streams {
                let mut late = self.late_rows(index, streams, *slot).await?;
                for batch in circuit.judge(*slot, &early[*slot])? {
                    for text in texts(&batch)? {
                        *late.entry(text).or_default() -= 1;
                    }
                }
                circuit.recall(*slot, &late);
            }
        }
        let mut inputs = vec![Vec::new(); self.nodes[index].upstreams.len()];
        for (slot, input) in inputs.iter_mut().enumerate() {
            *input = match streams.contains(&slot) {
                true => self.consumed_stream(index, slot).await?,
                false => self.full_input(index, slot, epoch).await?,
            };
        }
        tokio::task::block_in_place(|| circuit.step(&inputs))?;
        if back.is_some() {
            let nothing = vec![Vec::new(); inputs.len()];
            circuit.set_clock_of_joins(closed);
            tokio::task::block_in_place(|| circuit.step(&nothing))?;
            circuit.set_clock(closed);
            tokio::task::block_in_place(|| circuit.step(&nothing))?;
        }
        // They were late then, and stand in the side table.
        circuit.take_late();
        self.nodes[index].circuit = Some(circuit);
        Ok(())
    }

    /// The rows of a stream that the side table holds.
    async fn late_rows(&mut self, index: usize, streams: &[usize], slot: usize) -> Result<Known> {
        let mut known = Known::default();
        let Some(cell) = &mut self.nodes[index].late else { return Ok(known) };
        let provider = cell.ready().await?.committed_snapshot().provider();
        let name = (streams.len() > 1).then(|| stream_name(&self.nodes[index], slot));
        for batch in self.scan(provider).await? {
            let column = |name: &str| -> Result<StringArray> {
                let column =
                    batch.column_by_name(name).ok_or_else(|| Error::internal("late rows without their columns"))?;
                Ok(cast(column, &DataType::Utf8)?.as_string().clone())
            };
            let (rows, topics) = (column("row")?, column("topic")?);
            for i in (0..batch.num_rows()).filter(|i| rows.is_valid(*i)) {
                if name.as_deref().is_none_or(|name| topics.is_valid(i) && topics.value(i) == name) {
                    *known.entry(without_nulls(rows.value(i))?).or_default() += 1;
                }
            }
        }
        Ok(known)
    }

    /// Whether windows are written when they close.
    pub(super) fn closes_windows(&self) -> bool {
        self.nodes.iter().any(|node| node.runs() && node.late.is_some())
    }
}

fn plan_of(node: &Node) -> Result<&Plan> {
    node.compiled.incremental.as_ref().map_err(|f| Error::internal(format!("{}: {}", f.operator, f.reason)))
}

fn text(micros: i64) -> String {
    chrono::DateTime::from_timestamp_micros(micros).map_or_else(|| "its beginning".to_string(), |t| t.to_rfc3339())
}

/// The streams of a model, the first one first.
pub(super) fn streams(node: &Node) -> Vec<usize> {
    node.compiled.stream.into_iter().chain(node.compiled.joined_stream).collect()
}

fn stream_name(node: &Node, slot: usize) -> String {
    node.compiled.inputs.get(slot).map(|input| input.relation.to_string()).unwrap_or_default()
}

/// Late rows, `topic` saying which of the streams they came in.
fn of_stream(rows: &SignedBatch, name: &str) -> Result<SignedBatch> {
    let schema = rows.schema();
    let mut columns = rows.rows.columns().to_vec();
    columns[schema.index_of("topic")?] = std::sync::Arc::new(StringArray::from(vec![name; rows.num_rows()]));
    Ok(rows.with_rows(RecordBatch::try_new(schema, columns)?))
}

/// Whether rows are remembered although the watermark has passed them, so that the time alone does not say which rows were late.
fn keeps_rows_behind(plan: &Plan) -> bool {
    match plan {
        Plan::Temporal { role: TemporalRole::Settle, .. } | Plan::Session { closes: Some(_), .. } => true,
        other => other.below().into_iter().any(keeps_rows_behind),
    }
}

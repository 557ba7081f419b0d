//! A run in stages: some models are made to their end, somebody looks at them, then the next ones are made, or not.
//!
//! 1. Only the models of the stage at hand are at work; the others' tables stay at their versions, as those that a run has not selected.
//! 2. A stage begins like a run: what is behind its inputs catches up, from their logs or by recomputation, in an epoch without input;
//!    then its sources are read to their end, and what is made at times is made.
//! 3. Before each stage, and after the last, the [`Gate`] may look at the lake, and refuses models, which then stop. One that has written to
//!    what the pipeline holds says so: the pipeline is opened anew, and goes on with the stage at hand.
//! 4. A table that is missing is made when its model's stage begins: what is refused before has none.
//!
//! Invariants: a commit of a stage is a commit like any other, so every promise about crashes holds in each. All stages read a source to the same
//! end, the one it had when the first of them opened it, and tables that somebody else maintains at the version they had at the start: so
//! when the last stage has ended and nothing was refused, all tables are of one cut. Epochs before that are marked `partial`, and all of a run
//! whose gate has disturbed: what it wrote is seen by the models that come after it, as an earlier run would have.

use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrow::array::Int64Array;

use super::held::{Held, RunHooks};
use super::pipeline::{Pipeline, Upstream};
use crate::error::{Error, Result};
use crate::types::{Positions, SourceBatch};

/// How long maintenance may keep hooks waiting.
pub(super) const QUIET: Duration = Duration::from_secs(60);

/// Code of the errors by which a gate refuses models: they are no failures of their own.
pub const SKIPPED: &str = "skipped";

/// Who decides between two stages.
#[async_trait(?Send)]
pub trait Gate {
    /// Whether it may write to the lake before `stage`: maintenance is over then.
    fn writes(&self, _stage: usize) -> bool {
        false
    }

    /// The stages before `stage` have ended, with these models stopped in them.
    async fn pass(&self, stage: usize, stopped: &[(String, Error)]) -> Result<Verdict>;
}

/// What a gate says.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The models that must not be made, or count as not made, and why.
    pub refused: Vec<(String, Error)>,
    /// Tables that a pipeline holds have got commits meanwhile.
    pub disturbed: bool,
}

/// What comes next in a [`Course`].
pub(super) enum Next {
    Stage,
    /// The same stage, in a pipeline that is opened anew.
    Reopened,
    End,
}

/// How far a run in stages has come. It outlives the pipeline, which is opened again after an error.
pub(super) struct Course<'a> {
    stages: &'a [BTreeSet<String>],
    gate: Option<&'a dyn Gate>,
    at: usize,
    /// The gate was asked about the stage at hand.
    asked: bool,
    /// A gate has disturbed: what was made before may be behind.
    disturbed: bool,
    /// Models that stopped, or were stopped, in the stages before.
    pub stopped: Vec<(String, Error)>,
    /// Where each source (`source.table`) ended when it was first opened.
    pub ends: BTreeMap<String, Positions>,
    /// Runs with hooks around them.
    pub held: Held<'a>,
}

impl<'a> Course<'a> {
    /// A run of one stage, which has everything.
    pub fn undivided() -> Self {
        Course {
            stages: &[],
            gate: None,
            at: 0,
            asked: false,
            disturbed: false,
            stopped: Vec::new(),
            ends: BTreeMap::new(),
            held: Held::default(),
        }
    }

    /// The same, with hooks around runs that come due.
    pub fn with_hooks(hooks: &'a dyn RunHooks) -> Self {
        Course { held: Held::by(hooks), ..Course::undivided() }
    }

    pub fn new(stages: &'a [BTreeSet<String>], gate: &'a dyn Gate) -> Self {
        Course { stages, gate: Some(gate), ..Course::undivided() }
    }

    /// Whether the gate will write when it is asked next.
    pub fn writes(&self) -> bool {
        !self.asked && self.gate.is_some_and(|gate| gate.writes(self.at))
    }

    /// Asks the gate.
    pub async fn enter(&mut self) -> Result<Next> {
        let more = |more: bool| if more { Next::Stage } else { Next::End };
        let Some(gate) = self.gate else { return Ok(more(self.at == 0)) };
        if !self.asked {
            let verdict = gate.pass(self.at, &self.stopped).await?;
            self.stop(verdict.refused);
            self.asked = true;
            self.disturbed |= verdict.disturbed;
            if verdict.disturbed && self.at < self.stages.len() {
                return Ok(Next::Reopened);
            }
        }
        Ok(more(self.at < self.stages.len()))
    }

    /// Models whose stage has begun.
    pub fn begun(&self) -> impl Iterator<Item = &String> {
        self.stages.iter().take(self.at + usize::from(self.asked)).flatten()
    }

    /// The stage has ended.
    pub fn leave(&mut self, stopped: &[(String, Error)]) {
        self.stop(stopped.to_vec());
        self.at += 1;
        self.asked = false;
    }

    fn stop(&mut self, models: Vec<(String, Error)>) {
        for (model, error) in models {
            if !self.stopped.iter().any(|(known, _)| *known == model) {
                self.stopped.push((model, error));
            }
        }
    }

    /// Whether sources end for all stages where they ended for the first.
    pub fn is_divided(&self) -> bool {
        self.gate.is_some()
    }
}

impl Pipeline {
    /// Puts the models of the stage at hand to work, and those to rest that are not of it.
    pub(super) async fn enter(&mut self, course: &Course<'_>) -> Result<()> {
        if !course.is_divided() {
            return Ok(());
        }
        self.keeps_foreign = true;
        let more = course.at + 1 < course.stages.len();
        self.unfinished = more || course.disturbed || !course.stopped.is_empty();
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            node.rests = course.stages.get(course.at).is_none_or(|stage| !stage.contains(node.name()));
            let stopped = course.stopped.iter().find(|(name, _)| name == node.name());
            if let (Some((_, error)), None) = (stopped, &node.parked) {
                let error = error.clone();
                self.park(index, error).await;
            }
            let node = &self.nodes[index];
            if node.rests || !node.active || node.parked.is_some() || node.main.is_some() {
                continue;
            }
            if let Some(upstream) = self.parked_upstream(index) {
                let error = Error::user("upstream-parked", format!("waits for {upstream}, which is stopped"));
                self.park(index, error).await;
            } else if node.compiled.model.materialized.has_table() {
                self.open_late(index).await?;
            }
        }
        self.fence().await?;
        // The feeds of the stage before have ended: those of this one begin where its models are.
        self.sources.iter_mut().for_each(|source| source.taken.clear());
        self.find_what_is_behind().await
    }

    /// Whether a model at work reads the source.
    pub(super) fn is_read(&self, source: usize) -> bool {
        self.nodes.iter().any(|n| n.runs() && n.upstreams.contains(&Upstream::Source(source)))
    }
}

/// What of `batch` lies before `until`; None when nothing does, and the position before it is behind.
pub(super) fn before(batch: SourceBatch, until: &Positions) -> Option<SourceBatch> {
    let end = until.get(&batch.partition).copied()?;
    if batch.next <= end {
        return Some(batch);
    }
    let rows = batch.offsets.values().partition_point(|o| *o < end);
    let rejects = batch.rejects.map(|(rows, offsets)| {
        let count = offsets.values().partition_point(|o| *o < end);
        (rows.slice(0, count), offsets.slice(0, count))
    });
    let rejects = rejects.filter(|(rows, _)| rows.num_rows() > 0);
    if rows == 0 && rejects.is_none() {
        return None;
    }
    Some(SourceBatch {
        next: end,
        rows: super::compute::slice(&batch.rows, 0, rows),
        offsets: Int64Array::from(batch.offsets.values()[..rows].to_vec()),
        rejects,
        partition: batch.partition,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{SignedBatch, SourcePartition, reject_schema};
    use arrow::array::{ArrayRef, RecordBatch, new_null_array};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    #[test]
    fn batches_end_where_the_first_stage_ended() {
        let partition = |number| SourcePartition { topic: "t".into(), partition: number };
        let until = Positions::from([(partition(0), 5)]);
        let batch = |offsets: &[i64], rejected: &[i64], next| {
            let column: ArrayRef = Arc::new(Int64Array::from(offsets.to_vec()));
            let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
            let columns =
                reject_schema().fields().iter().map(|f| new_null_array(f.data_type(), rejected.len())).collect();
            let rejects = RecordBatch::try_new(reject_schema(), columns).unwrap();
            SourceBatch {
                partition: partition(0),
                next,
                rows: SignedBatch::inserts(RecordBatch::try_new(schema, vec![column]).unwrap()),
                offsets: Int64Array::from(offsets.to_vec()),
                rejects: (!rejected.is_empty()).then(|| (rejects, Int64Array::from(rejected.to_vec()))),
            }
        };
        let cut = |b: SourceBatch| {
            let b = before(b, &until)?;
            assert_eq!(b.rows.num_rows(), b.offsets.len());
            let rejected = b.rejects.map_or(0, |(rows, offsets)| rows.num_rows().min(offsets.len()));
            Some((b.offsets.values().to_vec(), rejected, b.next))
        };
        assert_eq!(cut(batch(&[1, 2], &[3], 5)), Some((vec![1, 2], 1, 5)));
        assert_eq!(cut(batch(&[3, 4, 5], &[5], 6)), Some((vec![3, 4], 0, 5)));
        assert_eq!(cut(batch(&[5], &[4, 6], 7)), Some((vec![], 1, 5)));
        assert_eq!(cut(batch(&[5, 6], &[], 7)), None);
        let appeared = SourceBatch { partition: partition(1), ..batch(&[0], &[], 1) };
        assert!(before(appeared, &until).is_none(), "a partition that came since");
    }
}

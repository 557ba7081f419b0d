//! Forgetting groups and partitions of time buckets that have ended, and taking them in again when a late row comes ([`super::Forgets`]).
//!
//! 1. Between two steps, [`Circuit::forget`] is told how far the inputs' watermarks are.
//! 2. Before a step, [`Circuit::needed`] runs its late rows up to the operators that forget and says which buckets of those are forgotten.
//! 3. [`Circuit::remember`] takes the rows that were in these buckets until then up the same way. Nothing else of the circuit sees
//!    them, and nothing is given out.

use super::{Circuit, Forgets, Kind, Operator};
use crate::error::{Error, Result};
use crate::operators::forgets::{Forgetting, Needed};
use crate::operators::linear::conform;
use crate::plan::incremental::Bucket;
use crate::types::SignedBatch;

impl Circuit {
    /// What was forgotten and a step with these changes needs. Rows that all inputs together have had before that step go to
    /// [`Circuit::remember`].
    pub fn needed(&mut self, inputs: &[Vec<SignedBatch>]) -> Result<Vec<Needed>> {
        if self.broken {
            return Err(Error::diverged("an earlier epoch failed in the middle of this model's state"));
        }
        let mut late = Vec::new();
        self.each_forgetting(|node, forgets, _| {
            let rows = forgets.late(inputs)?;
            if !rows.is_empty() {
                late.push((node, Fed::new(&forgets.bucket, rows)));
            }
            Ok(())
        })?;
        let mut all = Vec::new();
        for (of, fed) in late {
            let fed = self.feed(fed)?;
            self.each_forgetting(|node, forgets, operator| {
                if node == of {
                    let touched = forgets.touched(&operator.given(&fed)?)?;
                    if !touched.is_empty() {
                        all.push(forgets.needed(node, touched));
                    }
                }
                Ok(())
            })?;
        }
        Ok(all)
    }

    /// Takes inserted rows in that were given out before: some of those that are `needed`, which has all its rows then. Nothing else may be done
    /// with the circuit before [`Circuit::remembered`].
    pub fn remember(&mut self, needed: &Needed, rows: Vec<SignedBatch>) -> Result<()> {
        self.broken = true;
        let mut rows = Some(rows);
        let mut fed = None;
        self.each_forgetting(|node, forgets, _| {
            if node == needed.node {
                fed = rows.take().map(|rows| Fed::new(&forgets.bucket, rows));
            }
            Ok(())
        })?;
        let fed = self.feed(fed.ok_or_else(|| Error::internal("what is needed belongs to another circuit"))?)?;
        self.each_forgetting(|node, forgets, operator| match node == needed.node {
            true => {
                let rows = forgets.only(operator.given(&fed)?, &needed.buckets)?;
                forgets.again += rows.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
                operator.remember(&rows)
            }
            false => Ok(()),
        })
    }

    /// All rows of what was needed were taken in.
    pub fn remembered(&mut self, needed: &Needed) -> Result<()> {
        self.each_forgetting(|node, forgets, _| {
            if node == needed.node {
                forgets.remembered(&needed.buckets);
            }
            Ok(())
        })?;
        self.broken = false;
        Ok(())
    }

    /// Between two steps: forgets groups that lie behind the watermark (µs) of the input they are made of. None of this shows in any output, as long
    /// as [`Circuit::needed`] is asked before each step.
    pub fn forget(&mut self, watermark: impl Fn(usize) -> Option<i64>) -> Result<()> {
        if self.broken {
            return Ok(());
        }
        self.broken = true;
        self.each_forgetting(|_, forgets, operator| match watermark(forgets.bucket.slot) {
            Some(watermark) => operator.forget(forgets, watermark),
            None => Ok(()),
        })?;
        self.broken = false;
        Ok(())
    }

    /// How often its operators have forgotten groups since it was made, and how many forgotten buckets were read again.
    pub fn forgotten(&mut self) -> (u64, u64) {
        let mut all = (0, 0);
        let counted = self.each_forgetting(|_, forgets, _| {
            all = (all.0 + forgets.counts.0, all.1 + forgets.counts.1);
            Ok(())
        });
        debug_assert!(counted.is_ok());
        all
    }

    /// Every operator that forgets, with its number.
    fn each_forgetting(
        &mut self,
        mut with: impl FnMut(usize, &mut Forgets, &mut Operator) -> Result<()>,
    ) -> Result<()> {
        let mut number = 0;
        let mut counted = |forgets: &mut Forgets, operator: &mut Operator| {
            number += 1;
            with(number - 1, forgets, operator)
        };
        self.operators_mut().try_for_each(|operator| operator.each_forgetting(&mut counted))
    }

    /// What everything shared makes of some rows.
    fn feed(&mut self, mut fed: Fed) -> Result<Fed> {
        for operator in &mut self.shared {
            let output = operator.linear(&fed)?;
            fed.shared.push(output);
        }
        Ok(fed)
    }
}

/// Rows of one input by themselves.
struct Fed {
    slot: usize,
    columns: Vec<usize>,
    /// In these columns.
    rows: Vec<SignedBatch>,
    /// What shared operators make of them, by number: those that look at one row alone.
    shared: Vec<Option<Vec<SignedBatch>>>,
}

impl Fed {
    fn new(bucket: &Bucket, rows: Vec<SignedBatch>) -> Self {
        Fed { slot: bucket.slot, columns: bucket.columns.clone(), rows, shared: vec![] }
    }
}

impl Operator {
    /// What it makes of some rows of an input alone; None where it looks at other rows, too.
    fn linear(&mut self, fed: &Fed) -> Result<Option<Vec<SignedBatch>>> {
        let below = match self.inputs.first_mut() {
            Some(input) => input.linear(fed)?,
            None => None,
        };
        Ok(match (&mut self.kind, below) {
            (Kind::Input { slot, columns, schema }, _) if (*slot, &*columns) == (fed.slot, &fed.columns) => {
                Some(conform(&fed.rows, |i| i, schema)?)
            }
            (Kind::Shared { id, schema }, _) => {
                let output = fed.shared.get(*id).and_then(Option::as_ref);
                output.map(|output| conform(output, |i| i, schema)).transpose()?
            }
            (Kind::Project(project), Some(below)) => Some(project.step(below, self.threads)?),
            (Kind::Filter(filter), Some(below)) => Some(filter.step(below, self.threads)?),
            (Kind::Unnest(unnest), Some(below)) => Some(unnest.step(below, self.threads)?),
            _ => None,
        })
    }

    /// What it is given for them.
    fn given(&mut self, fed: &Fed) -> Result<Vec<SignedBatch>> {
        let given = match self.inputs.first_mut() {
            Some(input) => input.linear(fed)?,
            None => None,
        };
        given.ok_or_else(|| Error::internal("what an operator forgets does not come from one table"))
    }

    fn each_forgetting(&mut self, with: &mut dyn FnMut(&mut Forgets, &mut Operator) -> Result<()>) -> Result<()> {
        if let Some(mut forgets) = self.forgets.take() {
            let done = with(&mut forgets, self);
            self.forgets = Some(forgets);
            done?;
        }
        self.inputs.iter_mut().try_for_each(|input| input.each_forgetting(with))
    }

    fn remember(&mut self, rows: &[SignedBatch]) -> Result<()> {
        let memory = &mut self.memory;
        match &mut self.kind {
            Kind::Aggregate(node) => node.each_with(rows, memory, |node, rows| node.remember(&rows))?,
            Kind::First(node) => node.each_with(rows, memory, |node, rows| node.remember(&rows))?,
            Kind::Window(node) => node.each_with(rows, memory, |node, rows| node.remember(&rows))?,
            Kind::TopK(node) => node.each_with(rows, memory, |node, rows| node.remember(&rows))?,
            _ => return Ok(()),
        }
        self.memory.resize(self.kind.state_bytes())
    }

    fn forget(&mut self, forgets: &mut Forgets, watermark: i64) -> Result<()> {
        let Some(end) = forgets.due(watermark, self.kind.state_rows()) else { return Ok(()) };
        let (key, memory) = (forgets.bucket.key, &mut self.memory);
        match &mut self.kind {
            Kind::Aggregate(node) => node.each(memory, |node| node.forget(key, end))?,
            Kind::First(node) => node.each(memory, |node| node.forget(key, end))?,
            Kind::Window(node) => node.each(memory, |node| node.forget(key, end))?,
            Kind::TopK(node) => node.each(memory, |node| node.forget(key, end))?,
            _ => return Ok(()),
        }
        forgets.forgot(watermark, end, self.kind.state_rows());
        self.memory.resize(self.kind.state_bytes())
    }
}

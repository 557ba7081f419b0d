//! Forgetting groups and partitions of time buckets that have ended, and taking them in again when a late row comes ([`super::Forgets`]).
//!
//! 1. Between two steps, [`Circuit::forget`] is told how far the inputs' watermarks are.
//! 2. Before a step, [`Circuit::needed`] runs its late rows up to the operators that forget and says which buckets of those are forgotten.
//! 3. [`Circuit::remember`] takes the rows that were in these buckets until then up the same way. Nothing else of the circuit sees
//!    them, and nothing is given out.
//! 4. How far sessions reach is seen from their rows, so [`Circuit::needed`] is asked again until nothing is needed.
//!
//! What stands above sessions and goes with them ([`OfSession`]) forgets what the operator of the sessions has forgotten, and gets what that says of those that came back.

use super::{Circuit, Forgets, Kind, Operator};
use crate::error::{Error, Result};
use crate::operators::forgets::{Forgetting, Needed, Stays, from};
use crate::operators::linear::conform;
use crate::operators::session::recall::{Held, Left};
use crate::plan::incremental::{Bucket, OfSession};
use crate::types::SignedBatch;
use std::sync::Arc;

impl Circuit {
    /// What was forgotten and a step with these changes needs. Rows that all inputs together have had before that step go to
    /// [`Circuit::remember`]; after that it may need more.
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
                if node == of && forgets.sessions.is_some() {
                    let spans = operator.touched_sessions(forgets, &fed)?;
                    all.extend((!spans.is_empty()).then(|| forgets.needed_of_sessions(node, &spans)));
                } else if node == of {
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
                let rows = operator.given(&fed)?;
                if let Some(recall) = &mut forgets.sessions {
                    forgets.again += recall.take(rows)? as u64;
                    return Ok(());
                }
                let rows = forgets.only(rows, &needed.buckets)?;
                forgets.again += rows.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
                operator.remember(&rows)
            }
            false => Ok(()),
        })
    }

    /// All rows of what was needed were taken in.
    pub fn remembered(&mut self, needed: &Needed) -> Result<()> {
        self.broken = true;
        let mut came_back = false;
        self.each_forgetting(|node, forgets, operator| {
            let Some(recall) = forgets.sessions.as_mut().filter(|_| node == needed.node) else {
                if node == needed.node {
                    forgets.remembered(&needed.buckets);
                }
                return Ok(());
            };
            if let Some(whole) = recall.advance()? {
                recall.shown = Some(operator.remember_sessions(&whole.rows)?);
                forgets.remembered(&whole.starts);
                came_back = true;
            }
            Ok(())
        })?;
        if came_back {
            let mut shared = Vec::with_capacity(self.shared.len());
            for operator in &mut self.shared {
                let rows = operator.rise(&shared)?;
                shared.push(rows);
            }
            self.root.rise(&shared)?;
        }
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
        let mut shared = Vec::with_capacity(self.shared.len());
        for operator in &mut self.shared {
            let left = operator.follow_sessions(&shared)?;
            shared.push(left);
        }
        self.root.follow_sessions(&shared)?;
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
        match &mut forgets.sessions {
            Some(recall) => recall.left = Some(Arc::new(self.forget_sessions(end)?)),
            None => self.keep(&from(forgets.bucket.key, end))?,
        }
        forgets.forgot(watermark, end, self.kind.state_rows());
        Ok(())
    }

    /// Forgets all keys but these.
    fn keep(&mut self, stays: &Stays<'_>) -> Result<()> {
        let memory = &mut self.memory;
        match &mut self.kind {
            Kind::Aggregate(node) => node.each(memory, |node| node.forget(stays))?,
            Kind::First(node) => node.each(memory, |node| node.forget(stays))?,
            Kind::Window(node) => node.each(memory, |node| node.forget(stays))?,
            Kind::TopK(node) => node.each(memory, |node| node.forget(stays))?,
            _ => return Ok(()),
        }
        self.memory.resize(self.kind.state_bytes())
    }

    /// Where in the time of sessions rows are needed before a step with these.
    fn touched_sessions(&mut self, forgets: &mut Forgets, fed: &Fed) -> Result<Vec<(i64, i64)>> {
        let (end, rows) = (forgets.end(), self.given(fed)?);
        let (Kind::Sessions(node), Some(recall)) = (&mut self.kind, &mut forgets.sessions) else { return Ok(vec![]) };
        if !recall.is_reading() {
            let mut held = Held::new();
            node.each_with(&rows, &mut self.memory, |node, rows| node.held(&rows, &mut held))?;
            recall.start(&rows, &held, end)?;
        }
        Ok(recall.spans())
    }

    /// Takes whole sessions in; what was given out of them.
    fn remember_sessions(&mut self, rows: &[SignedBatch]) -> Result<Vec<SignedBatch>> {
        let Kind::Sessions(node) = &mut self.kind else { return Err(Error::internal("no sessions come back")) };
        let mut shown = Vec::new();
        node.each_with(rows, &mut self.memory, |node, rows| {
            shown.extend(node.remember(&rows)?);
            Ok(())
        })?;
        self.memory.resize(self.kind.state_bytes())?;
        Ok(shown)
    }

    /// Forgets the sessions that have ended at `end`; the others.
    fn forget_sessions(&mut self, end: i64) -> Result<Left> {
        let Kind::Sessions(node) = &mut self.kind else { return Err(Error::internal("no sessions are forgotten")) };
        let (mut held, mut types) = (Held::new(), vec![]);
        node.each(&mut self.memory, |node| {
            node.forget(end)?;
            node.all_held(&mut held);
            types = node.key_types().to_vec();
            Ok(())
        })?;
        self.memory.resize(self.kind.state_bytes())?;
        Left::new(&types, held)
    }

    /// Takes up what sessions that came back say, as far as those operators that go with them. `shared`: what those that are shared give.
    fn rise(&mut self, shared: &[Option<Vec<SignedBatch>>]) -> Result<Option<Vec<SignedBatch>>> {
        let below = self.inputs.iter_mut().map(|input| input.rise(shared)).collect::<Result<Vec<_>>>()?;
        let rows = below.into_iter().flatten().next();
        Ok(match (&mut self.kind, rows) {
            (Kind::Sessions(_), _) => self
                .forgets
                .as_mut()
                .and_then(|forgets| forgets.sessions.as_mut())
                .and_then(|recall| recall.shown.take()),
            (Kind::Shared { id, schema }, _) => {
                let rows = shared.get(*id).and_then(Option::as_ref);
                rows.map(|rows| conform(rows, |i| i, schema)).transpose()?
            }
            (Kind::Project(project), Some(rows)) => Some(project.step(rows, self.threads)?),
            (Kind::Filter(filter), Some(rows)) => Some(filter.step(rows, self.threads)?),
            (_, Some(rows)) if self.of_session.is_some() => {
                self.remember(&rows)?;
                None
            }
            _ => None,
        })
    }

    /// Where sessions were forgotten, those above that go with them forget theirs. Which ones are left, as far as these.
    fn follow_sessions(&mut self, shared: &[Option<Arc<Left>>]) -> Result<Option<Arc<Left>>> {
        let below = self.inputs.iter_mut().map(|input| input.follow_sessions(shared)).collect::<Result<Vec<_>>>()?;
        let left = below.into_iter().flatten().next();
        match (&self.kind, &self.of_session) {
            (Kind::Sessions(_), _) => {
                let recall = self.forgets.as_mut().and_then(|forgets| forgets.sessions.as_mut());
                Ok(recall.and_then(|recall| recall.left.take()))
            }
            (Kind::Shared { id, .. }, _) => Ok(shared.get(*id).cloned().flatten()),
            (Kind::Project(_) | Kind::Filter(_), _) => Ok(left),
            (_, Some(OfSession { keys, start })) => {
                let Some(left) = left else { return Ok(None) };
                let (keys, start) = (keys.clone(), *start);
                let lost = || Error::internal("a key of a session is none above it");
                self.keep(&move |columns| {
                    let keys = keys.iter().map(|key| columns.get(*key).cloned().ok_or_else(lost));
                    left.has(&keys.collect::<Result<Vec<_>>>()?, columns.get(start).ok_or_else(lost)?)
                })?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

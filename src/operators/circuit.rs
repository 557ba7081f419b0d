//! The tree of operators of one model.

use datafusion::execution::SessionState;
use std::time::{Duration, Instant};

use super::aggregate::Aggregate;
use super::expr::{self, arrow_schema};
use super::first::First;
use super::join::Join;
use super::linear::{Constant, Filter, Input, Project, Union};
use crate::error::Result;
use crate::plan::incremental::Node;
use crate::types::SignedBatch;

/// What the output follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every change of every input: the output is the query over all of them.
    View,
    /// The rows of one input only, each once, against the other inputs as they are in that epoch.
    Stream {
        /// Slot of that input.
        slot: usize,
    },
}

/// What a node has done and holds.
#[derive(Debug, Clone, Default)]
pub struct NodeMetrics {
    pub name: &'static str,
    pub depth: usize,
    pub rows_in: u64,
    pub rows_out: u64,
    pub busy: Duration,
    pub state_rows: usize,
    pub state_bytes: usize,
}

/// An incremental plan with its state.
pub struct Circuit {
    root: Operator,
    streams: bool,
}

struct Operator {
    kind: Kind,
    inputs: Vec<Operator>,
    rows_in: u64,
    rows_out: u64,
    busy: Duration,
}

enum Kind {
    Input(Input),
    Constant(Constant),
    Project(Project),
    Filter(Filter),
    Union(Union),
    Aggregate(Box<Aggregate>),
    First(Box<First>),
    Join(Box<Join>),
}

impl Circuit {
    /// A circuit without state.
    pub fn new(plan: &Node, mode: Mode, session: &SessionState) -> Result<Self> {
        let stream = match mode {
            Mode::View => None,
            Mode::Stream { slot } => Some(slot),
        };
        Ok(Circuit { root: build(plan, stream, session)?, streams: stream.is_some() })
    }

    /// Applies one epoch's changes (by slot, in the relations' full schemas) and returns the change of the output. After an error
    /// the circuit must be dropped.
    pub fn step(&mut self, inputs: &[Vec<SignedBatch>]) -> Result<Vec<SignedBatch>> {
        self.root.step(inputs)
    }

    /// Whether a streaming circuit holds state about its stream (deduplication), which must be loaded after a restart.
    pub fn remembers_stream(&self) -> bool {
        self.streams && self.root.remembers()
    }

    /// Rows held by all nodes.
    pub fn state_rows(&self) -> usize {
        self.metrics().iter().map(|m| m.state_rows).sum()
    }

    /// Bytes held by all nodes, roughly.
    pub fn state_bytes(&self) -> usize {
        self.metrics().iter().map(|m| m.state_bytes).sum()
    }

    /// Every node, from the root down.
    pub fn metrics(&self) -> Vec<NodeMetrics> {
        let mut all = Vec::new();
        self.root.metrics(0, &mut all);
        all
    }
}

fn reads(plan: &Node, slot: usize) -> bool {
    match plan {
        Node::Input { slot: own, .. } => *own == slot,
        Node::Constant { .. } => false,
        Node::Project { input, .. }
        | Node::Filter { input, .. }
        | Node::Aggregate { input, .. }
        | Node::First { input, .. } => reads(input, slot),
        Node::Union { inputs, .. } => inputs.iter().any(|i| reads(i, slot)),
        Node::Join { base, arms, .. } => reads(base, slot) || arms.iter().any(|a| reads(&a.input, slot)),
    }
}

fn build(plan: &Node, stream: Option<usize>, session: &SessionState) -> Result<Operator> {
    // Below a node that does not read the stream everything is a view.
    let stream = stream.filter(|slot| reads(plan, *slot));
    let (kind, inputs) = match plan {
        Node::Input { slot, columns, schema } => {
            let input = Input { slot: *slot, columns: columns.clone(), schema: arrow_schema(schema) };
            (Kind::Input(input), vec![])
        }
        Node::Constant { rows, schema } => {
            (Kind::Constant(Constant { rows: rows.clone(), schema: arrow_schema(schema), emitted: false }), vec![])
        }
        Node::Project { input, exprs, schema } => {
            let exprs = expr::bind_all(exprs, input.schema(), session)?;
            let project = Project { exprs, schema: arrow_schema(schema) };
            (Kind::Project(project), vec![build(input, stream, session)?])
        }
        Node::Filter { input, predicate } => {
            let predicate = expr::bind(predicate, input.schema(), session)?;
            (Kind::Filter(Filter { predicate }), vec![build(input, stream, session)?])
        }
        Node::Union { inputs, schema } => {
            let built = inputs.iter().map(|i| build(i, stream, session)).collect::<Result<_>>()?;
            (Kind::Union(Union { schema: arrow_schema(schema) }), built)
        }
        Node::Aggregate { input, group, aggregates, schema } => {
            let aggregate = Aggregate::new(input.schema(), group, aggregates, schema, session)?;
            (Kind::Aggregate(Box::new(aggregate)), vec![build(input, stream, session)?])
        }
        Node::First { input, partition, order } => {
            let first = First::new(input.schema(), partition, order, stream.is_some(), session)?;
            (Kind::First(Box::new(first)), vec![build(input, stream, session)?])
        }
        Node::Join { base, arms, schema } => {
            let join = Join::new(base.schema(), arms, schema, stream.is_some(), session)?;
            let mut inputs = vec![build(base, stream, session)?];
            for arm in arms {
                inputs.push(build(&arm.input, stream, session)?);
            }
            (Kind::Join(Box::new(join)), inputs)
        }
    };
    Ok(Operator { kind, inputs, rows_in: 0, rows_out: 0, busy: Duration::ZERO })
}

impl Operator {
    fn step(&mut self, slots: &[Vec<SignedBatch>]) -> Result<Vec<SignedBatch>> {
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for input in &mut self.inputs {
            let change = input.step(slots)?;
            self.rows_in += change.iter().map(|b| b.num_rows() as u64).sum::<u64>();
            inputs.push(change);
        }
        let started = Instant::now();
        let out = match &mut self.kind {
            Kind::Input(input) => input.step(slots)?,
            Kind::Constant(constant) => constant.step()?,
            Kind::Project(project) => project.step(inputs.swap_remove(0))?,
            Kind::Filter(filter) => filter.step(inputs.swap_remove(0))?,
            Kind::Union(union) => union.step(inputs)?,
            Kind::Aggregate(aggregate) => aggregate.step(&inputs[0])?,
            Kind::First(first) => first.step(&inputs[0])?,
            Kind::Join(join) => join.step(&inputs)?,
        };
        self.busy += started.elapsed();
        self.rows_out += out.iter().map(|b| b.num_rows() as u64).sum::<u64>();
        Ok(out)
    }

    fn remembers(&self) -> bool {
        match &self.kind {
            Kind::First(first) => first.streams(),
            // Dimensions of a join are loaded from their tables; only its base is the stream.
            Kind::Join(_) => self.inputs[0].remembers(),
            _ => self.inputs.iter().any(Operator::remembers),
        }
    }

    fn metrics(&self, depth: usize, all: &mut Vec<NodeMetrics>) {
        let (name, state_rows, state_bytes) = match &self.kind {
            Kind::Input(_) => ("input", 0, 0),
            Kind::Constant(_) => ("constant", 0, 0),
            Kind::Project(_) => ("project", 0, 0),
            Kind::Filter(_) => ("filter", 0, 0),
            Kind::Union(_) => ("union all", 0, 0),
            Kind::Aggregate(a) => ("aggregate", a.state_rows(), a.state_bytes()),
            Kind::First(f) => ("first row", f.state_rows(), f.state_bytes()),
            Kind::Join(j) => ("join", j.state_rows(), j.state_bytes()),
        };
        all.push(NodeMetrics {
            name,
            depth,
            rows_in: self.rows_in,
            rows_out: self.rows_out,
            busy: self.busy,
            state_rows,
            state_bytes,
        });
        for input in &self.inputs {
            input.metrics(depth + 1, all);
        }
    }
}

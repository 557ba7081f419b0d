//! A tree of operators.

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SessionState;
use std::time::Instant;

use super::StateMemory;
use super::aggregate::Aggregate;
use super::consolidate::consolidate;
use super::eval::{Exprs, Predicate, arrow_schema};
use super::first::First;
use super::join::Join;
use super::linear::{Filter, Project, conform};
use super::metrics::{NodeMetrics, Running};
use super::temporal::Temporal;
use super::unnest::Unnest;
use super::window::{self, Window};
use crate::error::{Error, Result};
use crate::plan::incremental::Node;
use crate::state::{StateReader, StateWriter};
use crate::types::SignedBatch;

/// What a circuit's output means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The change of a view: all inputs alike.
    View,
    /// Rows of a streaming table: each row of the input in `slot` is processed once, against all other inputs as they are at
    /// that epoch. Changes of those alone give no output.
    Stream {
        /// The streamed input.
        slot: usize,
    },
}

/// An instantiated query with its state.
pub struct Circuit {
    root: Operator,
    schema: SchemaRef,
    /// Whether the root can give +1 and −1 of equal rows.
    nets: bool,
    first_step: bool,
    /// Set while a step runs: an error leaves it set, and the state is not to be trusted any more.
    broken: bool,
}

impl Circuit {
    /// The circuit of `plan`, with no state yet. Its state counts against the session's memory; `model` names it there.
    pub fn new(model: &str, plan: &Node, mode: Mode, session: &SessionState) -> Result<Circuit> {
        let root = Operator::new(model, plan, mode, session)?;
        let schema = arrow_schema(plan.schema());
        let nets = !matches!(plan, Node::Aggregate { .. } | Node::First { .. } | Node::Join { .. });
        Ok(Circuit { root, schema, nets, first_step: true, broken: false })
    }

    /// Schema of the output, in the plan's types.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Applies the change of one epoch. `inputs[slot]` is the change of that input relation, in its full schema; the
    /// result is the change of the output. Equal rows are netted out. State that outgrows the session's memory is an error.
    pub fn step(&mut self, inputs: &[Vec<SignedBatch>]) -> Result<Vec<SignedBatch>> {
        if self.broken {
            return Err(Error::diverged("an earlier epoch failed in the middle of this model's state"));
        }
        self.broken = true;
        let output = self.root.step(inputs, self.first_step)?;
        let output = if self.nets { consolidate(&self.schema, output)? } else { output };
        self.first_step = false;
        self.broken = false;
        Ok(output)
    }

    /// The clock of the steps that follow, µs. One that is earlier than before changes nothing.
    pub fn set_clock(&mut self, now: i64) {
        self.root.set_clock(now);
    }

    /// When rows next come or go although no input changes, µs.
    pub fn next_change(&self) -> Result<Option<i64>> {
        self.root.next_change()
    }

    /// Writes the state of every node, root first. Columns are shared, the rest is copied.
    pub fn save(&self, out: &mut StateWriter) -> Result<()> {
        if self.broken {
            return Err(Error::diverged("the state of a failed epoch is not worth keeping"));
        }
        out.words("circuit.stepped", [u32::from(!self.first_step)]);
        self.root.save(out)
    }

    /// Becomes what [`Circuit::save`] wrote of a circuit of the same plan; on an error it is not usable any more. State that does not
    /// fit into the session's memory is an error.
    pub fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        self.broken = true;
        self.first_step = from.exactly::<u32>("circuit.stepped", 1)? == [0];
        self.root.restore(from)?;
        self.broken = false;
        Ok(())
    }

    /// Rows, groups and values remembered by all nodes.
    pub fn state_rows(&self) -> usize {
        self.metrics().iter().map(|m| m.state_rows).sum()
    }

    /// Bytes they take.
    pub fn state_bytes(&self) -> usize {
        self.metrics().iter().map(|m| m.state_bytes).sum()
    }

    /// Figures of every node, root first.
    pub fn metrics(&self) -> Vec<NodeMetrics> {
        let mut all = Vec::new();
        self.root.metrics(0, &mut all);
        all
    }
}

/// One node: what it does, and what stands below it.
struct Operator {
    kind: Kind,
    inputs: Vec<Operator>,
    running: Running,
    /// The memory its state takes.
    memory: StateMemory,
}

enum Kind {
    Input { slot: usize, columns: Vec<usize>, schema: SchemaRef },
    Constant { rows: Vec<RecordBatch>, schema: SchemaRef },
    Project(Project),
    Filter(Filter),
    Union { schema: SchemaRef },
    Unnest(Unnest),
    Aggregate(Box<Aggregate>),
    First(Box<First>),
    Temporal(Box<Temporal>),
    Join(Box<Join>),
    Window(Box<Window>),
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Kind::Input { .. } => "input",
            Kind::Constant { .. } => "constant",
            Kind::Project(_) => "project",
            Kind::Filter(_) => "filter",
            Kind::Union { .. } => "union all",
            Kind::Unnest(_) => "unnest",
            Kind::Aggregate(_) => "aggregate",
            Kind::First(_) => "first row",
            Kind::Temporal(_) => "temporal filter",
            Kind::Join(_) => "join",
            Kind::Window(_) => "window",
        }
    }

    fn state_rows(&self) -> usize {
        match self {
            Kind::Aggregate(node) => node.state_rows(),
            Kind::First(node) => node.state_rows(),
            Kind::Temporal(node) => node.state_rows(),
            Kind::Join(node) => node.state_rows(),
            Kind::Window(node) => node.state_rows(),
            _ => 0,
        }
    }

    fn state_bytes(&self) -> usize {
        match self {
            Kind::Aggregate(node) => node.state_bytes(),
            Kind::First(node) => node.state_bytes(),
            Kind::Temporal(node) => node.state_bytes(),
            Kind::Join(node) => node.state_bytes(),
            Kind::Window(node) => node.state_bytes(),
            _ => 0,
        }
    }
}

impl Operator {
    fn new(model: &str, plan: &Node, mode: Mode, session: &SessionState) -> Result<Self> {
        let below = |node: &Node| Operator::new(model, node, mode, session);
        let (kind, inputs) = match plan {
            Node::Input { slot, columns, schema } => {
                (Kind::Input { slot: *slot, columns: columns.clone(), schema: arrow_schema(schema) }, vec![])
            }
            Node::Constant { rows, schema } => {
                (Kind::Constant { rows: rows.clone(), schema: arrow_schema(schema) }, vec![])
            }
            Node::Project { input, exprs, schema } => {
                let exprs = Exprs::new(exprs, input.schema(), session)?;
                (Kind::Project(Project { exprs, schema: arrow_schema(schema) }), vec![below(input)?])
            }
            Node::Filter { input, predicate } => {
                let predicate = Predicate::new(predicate, input.schema(), session)?;
                (Kind::Filter(Filter { predicate }), vec![below(input)?])
            }
            Node::Union { inputs, schema } => {
                let inputs = inputs.iter().map(below).collect::<Result<_>>()?;
                (Kind::Union { schema: arrow_schema(schema) }, inputs)
            }
            Node::Unnest { input, lists, structs, nulls, schema } => {
                let (lists, structs) = (lists.clone(), structs.clone());
                let unnest = Unnest { lists, structs, nulls: *nulls, schema: arrow_schema(schema) };
                (Kind::Unnest(unnest), vec![below(input)?])
            }
            Node::Aggregate { input, group, sets, aggregates, schema } => {
                let aggregate = Aggregate::new(input.schema(), group, sets, aggregates, schema, session)?;
                (Kind::Aggregate(Box::new(aggregate)), vec![below(input)?])
            }
            Node::First { input, partition, order } => {
                let options: Vec<SortOptions> =
                    order.iter().map(|o| SortOptions { descending: !o.asc, nulls_first: o.nulls_first }).collect();
                let partition = Exprs::new(partition, input.schema(), session)?;
                let order = Exprs::new(order.iter().map(|o| &o.expr), input.schema(), session)?;
                let schema = arrow_schema(input.schema());
                let first = First::new(partition, order, &options, schema, streams(input, mode))?;
                (Kind::First(Box::new(first)), vec![below(input)?])
            }
            Node::Window { input, partition, order, calls, reach, visible, schema } => {
                let spec = window::Spec { partition, order, calls, reach: *reach, visible: *visible };
                let window = Window::new(input.schema(), &spec, schema, session)?;
                (Kind::Window(Box::new(window)), vec![below(input)?])
            }
            Node::Temporal { input, bounds } => {
                let exprs = Exprs::new(bounds.iter().map(|b| &b.expr), input.schema(), session)?;
                let temporal = Temporal::new(bounds.clone(), exprs, arrow_schema(input.schema()))?;
                (Kind::Temporal(Box::new(temporal)), vec![below(input)?])
            }
            Node::Join { base, arms, schema } => {
                if arms.iter().any(|a| streams(&a.input, mode)) {
                    return Err(Error::user(
                        "stream-in-join",
                        "a streamed table must stand left of the tables it is joined to",
                    )
                    .with_hint("write: from STREAM(…) join …"));
                }
                let join = Join::new(base, arms, schema, streams(base, mode), session)?;
                let inputs = std::iter::once(&**base).chain(arms.iter().map(|a| &a.input)).map(below);
                (Kind::Join(Box::new(join)), inputs.collect::<Result<_>>()?)
            }
        };
        let memory = StateMemory::new(model, kind.name(), &session.runtime_env().memory_pool);
        Ok(Operator { kind, inputs, running: Running::default(), memory })
    }

    fn step(&mut self, inputs: &[Vec<SignedBatch>], first: bool) -> Result<Vec<SignedBatch>> {
        let mut below =
            self.inputs.iter_mut().map(|i| i.step(inputs, first)).collect::<Result<Vec<Vec<SignedBatch>>>>()?;
        let start = Instant::now();
        let rows_in = below.iter().flatten().map(SignedBatch::num_rows).sum();
        let mut only = || below.pop().unwrap_or_default();
        let output = match &mut self.kind {
            Kind::Input { slot, columns, schema } => {
                let change = inputs.get(*slot).ok_or_else(|| Error::internal("an input of the circuit is missing"))?;
                conform(change, |i| columns[i], schema)?
            }
            Kind::Constant { rows, schema } if first => {
                let rows: Vec<SignedBatch> = rows.iter().cloned().map(SignedBatch::inserts).collect();
                conform(&rows, |i| i, schema)?
            }
            Kind::Constant { .. } => vec![],
            Kind::Project(project) => project.step(only())?,
            Kind::Filter(filter) => filter.step(only())?,
            Kind::Unnest(unnest) => unnest.step(only())?,
            Kind::Union { schema } => {
                let mut output = Vec::new();
                for input in &below {
                    output.extend(conform(input, |i| i, schema)?);
                }
                output
            }
            Kind::Aggregate(aggregate) => aggregate.step(only(), first)?,
            Kind::First(node) => node.step(only())?,
            Kind::Temporal(node) => node.step(only())?,
            Kind::Join(join) => join.step(below)?,
            Kind::Window(window) => window.step(only())?,
        };
        self.memory.resize(self.kind.state_bytes())?;
        self.running.record(rows_in, output.iter().map(SignedBatch::num_rows).sum(), start);
        Ok(output)
    }

    fn set_clock(&mut self, now: i64) {
        if let Kind::Temporal(node) = &mut self.kind {
            node.set_clock(now);
        }
        self.inputs.iter_mut().for_each(|input| input.set_clock(now));
    }

    fn next_change(&self) -> Result<Option<i64>> {
        let mut next = match &self.kind {
            Kind::Temporal(node) => node.next_change()?,
            _ => None,
        };
        for input in &self.inputs {
            next = [next, input.next_change()?].into_iter().flatten().min();
        }
        Ok(next)
    }

    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.words::<u32>(self.kind.name(), []);
        match &self.kind {
            Kind::Aggregate(node) => node.save(out)?,
            Kind::First(node) => node.save(out),
            Kind::Temporal(node) => node.save(out),
            Kind::Join(node) => node.save(out)?,
            Kind::Window(node) => node.save(out),
            _ => {}
        }
        self.inputs.iter().try_for_each(|input| input.save(out))
    }

    fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        from.exactly::<u32>(self.kind.name(), 0)?;
        match &mut self.kind {
            Kind::Aggregate(node) => node.restore(from)?,
            Kind::First(node) => node.restore(from)?,
            Kind::Temporal(node) => node.restore(from)?,
            Kind::Join(node) => node.restore(from)?,
            Kind::Window(node) => node.restore(from)?,
            _ => {}
        }
        self.memory.resize(self.kind.state_bytes())?;
        self.inputs.iter_mut().try_for_each(|input| input.restore(from))
    }

    fn metrics(&self, depth: usize, all: &mut Vec<NodeMetrics>) {
        let (name, state_rows, state_bytes) = (self.kind.name(), self.kind.state_rows(), self.kind.state_bytes());
        let Running { rows_in, rows_out, elapsed } = self.running;
        all.push(NodeMetrics { name, depth, rows_in, rows_out, elapsed, state_rows, state_bytes });
        self.inputs.iter().for_each(|i| i.metrics(depth + 1, all));
    }
}

/// Whether the streamed input stands in or below `node`.
fn streams(node: &Node, mode: Mode) -> bool {
    let Mode::Stream { slot } = mode else { return false };
    match node {
        Node::Input { slot: s, .. } => *s == slot,
        Node::Constant { .. } => false,
        Node::Project { input, .. }
        | Node::Filter { input, .. }
        | Node::Unnest { input, .. }
        | Node::Aggregate { input, .. }
        | Node::First { input, .. }
        | Node::Window { input, .. }
        | Node::Temporal { input, .. } => streams(input, mode),
        Node::Union { inputs, .. } => inputs.iter().any(|i| streams(i, mode)),
        Node::Join { base, arms, .. } => streams(base, mode) || arms.iter().any(|a| streams(&a.input, mode)),
    }
}

//! A tree of operators, and those that several places of it read.
//!
//! An epoch steps every [`Node::Shared`] first, by number, so what one of them reads is there; then the tree from its leaves up.

mod forgetting;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SessionState;
use std::sync::Arc;
use std::time::Instant;

use super::aggregate::Aggregate;
use super::consolidate::consolidate;
use super::eval::{Exprs, Predicate, arrow_schema};
use super::first::First;
use super::forgets::Forgets;
use super::gate::{Gate, Known};
use super::join::Join;
use super::linear::{Filter, Project, conform, cut, gathered};
use super::make;
use super::metrics::{NodeMetrics, Running};
use super::session::Sessions;
use super::session::recall::Recall;
use super::sharded::{Means, Sharded};
use super::temporal::Temporal;
use super::top_k::TopK;
use super::unnest::Unnest;
use super::window::Window;
use crate::error::{Error, Result};
use crate::plan::incremental::{Node, OfSession, Routes, TemporalRole};
use crate::state::{StateMemory, StateReader, StateWriter};
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
    /// By their numbers in the plan.
    shared: Vec<Operator>,
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
        let mut shared = Vec::new();
        let root = Operator::new(model, plan, mode, &Arc::new(session.clone()), &mut shared)?;
        let schema = arrow_schema(plan.schema());
        let nets = !matches!(plan, Node::Aggregate { .. } | Node::First { .. } | Node::Join { .. });
        Ok(Circuit { shared, root, schema, nets, first_step: true, broken: false })
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
        let mut epoch = Epoch { inputs, shared: Vec::with_capacity(self.shared.len()), first: self.first_step };
        for operator in &mut self.shared {
            let output = operator.step(&epoch)?;
            epoch.shared.push(output);
        }
        let output = self.root.step(&epoch)?;
        let output = if self.nets { consolidate(&self.schema, output)? } else { output };
        self.first_step = false;
        self.broken = false;
        Ok(output)
    }

    /// The clock of the steps that follow, µs. One that is earlier than before changes nothing.
    pub fn set_clock(&mut self, now: i64) {
        self.operators_mut().for_each(|operator| operator.set_clock(now));
    }

    /// The same of joins of streams and of what stands below them: what they settle comes to what stands above while that has the clock it had.
    pub fn set_clock_of_joins(&mut self, now: i64) {
        self.operators_mut().for_each(|operator| operator.set_clock_of_joins(now));
    }

    /// The same of what tells late rows from others.
    pub fn set_clock_of_gates(&mut self, now: i64) {
        self.each_gate(&mut |gate| gate.set_clock(now));
    }

    /// When rows next come or go although no input changes, µs.
    pub fn next_change(&self) -> Result<Option<i64>> {
        let mut next = None;
        for operator in self.operators() {
            next = [next, operator.next_change()?].into_iter().flatten().min();
        }
        Ok(next)
    }

    /// When the last row that waits for the clock comes or goes, µs.
    pub fn last_change(&self) -> Result<Option<i64>> {
        let mut last = None;
        for operator in self.operators() {
            last = last.max(operator.last_change()?);
        }
        Ok(last)
    }

    /// Rows that came late since this was last asked, each with its input's slot.
    pub fn take_late(&mut self) -> Vec<(usize, SignedBatch)> {
        let (mut late, mut told) = (Vec::new(), Vec::new());
        self.each_gate(&mut |gate| {
            let batches = gate.take_late();
            // A stream that is read twice has equal gates.
            if !told.contains(&gate.slot) {
                told.push(gate.slot);
                late.extend(batches.into_iter().map(|batch| (gate.slot, batch)));
            }
        });
        late
    }

    /// The rows of input `slot` in `rows` that are late where the clock stands.
    pub fn judge(&mut self, slot: usize, rows: &[SignedBatch]) -> Result<Vec<SignedBatch>> {
        let mut late = None;
        self.each_gate(&mut |gate| {
            if gate.slot == slot && late.is_none() {
                late = Some(gate.judge(rows));
            }
        });
        late.unwrap_or_else(|| Ok(Vec::new()))
    }

    /// The rows of input `slot` in the next step were judged before: those in `late` were late then.
    pub fn recall(&mut self, slot: usize, late: &Known) {
        self.each_gate(&mut |gate| {
            if gate.slot == slot {
                gate.recall(late.clone());
            }
        });
    }

    fn each_gate(&mut self, apply: &mut dyn FnMut(&mut Gate)) {
        self.operators_mut().for_each(|operator| operator.each_gate(apply));
    }

    /// What is shared, by number, then the root.
    fn operators(&self) -> impl Iterator<Item = &Operator> {
        self.shared.iter().chain([&self.root])
    }

    fn operators_mut(&mut self) -> impl Iterator<Item = &mut Operator> {
        self.shared.iter_mut().chain([&mut self.root])
    }

    /// Writes the state of every node: of what is shared, then of the rest, root first. Most of it is shared, and copied when it changes.
    pub fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        if self.broken {
            return Err(Error::diverged("the state of a failed epoch is not worth keeping"));
        }
        out.words("circuit.stepped", [u32::from(!self.first_step)]);
        self.operators_mut().try_for_each(|operator| operator.save(out))
    }

    /// Becomes what [`Circuit::save`] wrote of a circuit of the same plan; on an error it is not usable any more. State that does not
    /// fit into the session's memory is an error.
    pub fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        self.broken = true;
        self.first_step = from.exactly::<u32>("circuit.stepped", 1)? == [0];
        self.operators_mut().try_for_each(|operator| operator.restore(from))?;
        self.broken = false;
        Ok(())
    }

    /// Puts state on disk while the session's memory has lent more than there is.
    pub fn relieve(&mut self) -> Result<()> {
        self.operators_mut().try_for_each(Operator::relieve)
    }

    /// Rows, groups and values remembered by all nodes.
    pub fn state_rows(&self) -> usize {
        self.metrics().iter().map(|m| m.state_rows).sum()
    }

    /// Bytes they take.
    pub fn state_bytes(&self) -> usize {
        self.metrics().iter().map(|m| m.state_bytes).sum()
    }

    /// Figures of every node, root first; below what is shared where it is read first.
    pub fn metrics(&self) -> Vec<NodeMetrics> {
        let mut listing = Listing { shared: &self.shared, listed: 0, all: Vec::new() };
        listing.add(&self.root, 0);
        listing.all
    }
}

/// What one step is given.
struct Epoch<'a> {
    /// The change of every input relation.
    inputs: &'a [Vec<SignedBatch>],
    /// What shared operators gave, by number: those that stepped.
    shared: Vec<Vec<SignedBatch>>,
    /// Whether the circuit has not stepped before.
    first: bool,
}

/// Figures being listed.
struct Listing<'a> {
    shared: &'a [Operator],
    /// How many of them are there.
    listed: usize,
    all: Vec<NodeMetrics>,
}

impl Listing<'_> {
    fn add(&mut self, operator: &Operator, depth: usize) {
        self.all.push(operator.metrics(depth));
        operator.inputs.iter().for_each(|input| self.add(input, depth + 1));
        if let Kind::Shared { id, .. } = operator.kind
            && id >= self.listed
            && let Some(shared) = self.shared.get(id)
        {
            self.add(shared, depth + 1);
            self.listed = id + 1;
        }
    }
}

/// One node: what it does, and what stands below it.
struct Operator {
    kind: Kind,
    inputs: Vec<Operator>,
    running: Running,
    /// How many it may use.
    threads: usize,
    /// The memory its state takes.
    memory: StateMemory,
    /// What of its state it can do without.
    forgets: Option<Box<Forgets>>,
    /// Where it goes with the sessions below it.
    of_session: Option<OfSession>,
}

enum Kind {
    Input { slot: usize, columns: Vec<usize>, schema: SchemaRef },
    Constant { rows: Vec<RecordBatch>, schema: SchemaRef },
    Project(Project),
    Filter(Filter),
    Union { schema: SchemaRef },
    Unnest(Unnest),
    Aggregate(Sharded<Aggregate>),
    First(Sharded<First>),
    Temporal(Box<Temporal>),
    Gate(Box<Gate>),
    Join(Sharded<Join>),
    Window(Sharded<Window>),
    TopK(Sharded<TopK>),
    Sessions(Sharded<Sessions>),
    Shared { id: usize, schema: SchemaRef },
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
            Kind::Gate(_) => "gate",
            Kind::Join(_) => "join",
            Kind::Window(_) => "window",
            Kind::TopK(_) => "first rows",
            Kind::Sessions(_) => "session",
            Kind::Shared { .. } => "shared",
        }
    }

    fn state_rows(&self) -> usize {
        match self {
            Kind::Aggregate(node) => node.state_rows(),
            Kind::First(node) => node.state_rows(),
            Kind::Temporal(node) => node.state_rows(),
            Kind::Join(node) => node.state_rows(),
            Kind::Window(node) => node.state_rows(),
            Kind::TopK(node) => node.state_rows(),
            Kind::Sessions(node) => node.state_rows(),
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
            Kind::TopK(node) => node.state_bytes(),
            Kind::Sessions(node) => node.state_bytes(),
            _ => 0,
        }
    }
}

impl Operator {
    /// `shared`: those of lower numbers, and then those below `plan`, too.
    fn new(
        model: &str,
        plan: &Node,
        mode: Mode,
        session: &Arc<SessionState>,
        shared: &mut Vec<Operator>,
    ) -> Result<Self> {
        let threads = session.config().target_partitions();
        let means = || Means::of(session);
        let mut below = |node: &Node| Operator::new(model, node, mode, session, shared);
        let (kind, inputs) = match plan {
            Node::Input { slot, columns, schema, .. } => {
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
            Node::Aggregate { input, group, sets, .. } => {
                // A row belongs to a group of every set.
                let by = if sets.is_empty() { &group[..] } else { &[] };
                let (plan, session) = (plan.clone(), Arc::clone(session));
                let make = move || make::aggregate(&plan, &session);
                let groups = Sharded::new(means(), Routes::by(input, by), make)?;
                (Kind::Aggregate(groups), vec![below(input)?])
            }
            Node::First { input, partition, .. } => {
                let (by, streamed) = (Routes::by(input, partition), streams(input, mode));
                let (plan, session) = (plan.clone(), Arc::clone(session));
                let kind = if input.is_append_only() && !streamed {
                    Kind::TopK(Sharded::new(means(), by, move || make::top_k(&plan, &session))?)
                } else {
                    let by = by.filter(|_| !streamed);
                    Kind::First(Sharded::new(means(), by, move || make::first(&plan, streamed, &session))?)
                };
                (kind, vec![below(input)?])
            }
            Node::Window { input, partition, .. } => {
                let (by, forgets) = (Routes::by(input, partition), plan.forgets_hidden_rows());
                let (plan, session) = (plan.clone(), Arc::clone(session));
                let kind = if forgets {
                    Kind::TopK(Sharded::new(means(), by, move || make::top_k(&plan, &session))?)
                } else {
                    Kind::Window(Sharded::new(means(), by, move || make::window(&plan, &session))?)
                };
                (kind, vec![below(input)?])
            }
            Node::Session { input, partition, closes, .. } => {
                // All of them have one clock.
                let by = Routes::by(input, partition).filter(|_| closes.is_none());
                let (plan, session) = (plan.clone(), Arc::clone(session));
                let sessions = Sharded::new(means(), by, move || Sessions::new(&plan, &session))?;
                (Kind::Sessions(sessions), vec![below(input)?])
            }
            Node::Temporal { input, bounds, role: TemporalRole::Late } => {
                let (Node::Input { slot, .. }, [bound]) = (&**input, bounds.as_slice()) else {
                    return Err(Error::internal("late rows are told from the others directly above their stream"));
                };
                let expr = Exprs::new([&bound.expr], input.schema(), session)?;
                (Kind::Gate(Box::new(Gate::new(*slot, bound.clone(), expr))), vec![below(input)?])
            }
            Node::Temporal { input, bounds, role } => {
                let exprs = Exprs::new(bounds.iter().map(|b| &b.expr), input.schema(), session)?;
                let temporal = Temporal::new(bounds.clone(), exprs, arrow_schema(input.schema()), *role)?;
                (Kind::Temporal(Box::new(temporal)), vec![below(input)?])
            }
            Node::Join { base, arms, .. } => {
                if arms.iter().any(|a| streams(&a.input, mode)) {
                    return Err(Error::user(
                        "stream-in-join",
                        "a streamed table must stand left of the tables it is joined to",
                    )
                    .with_hint("write: from STREAM(…) join …"));
                }
                let streamed = streams(base, mode);
                let by = Routes::of_join(base, arms).or_else(|| Routes::of_star(base, arms)).filter(|_| !streamed);
                let (plan, session) = (plan.clone(), Arc::clone(session));
                let join = Sharded::in_parts(means(), by, move |part| make::join(&plan, streamed, part, &session))?;
                let inputs = std::iter::once(&**base).chain(arms.iter().map(|a| &a.input)).map(below);
                (Kind::Join(join), inputs.collect::<Result<_>>()?)
            }
            // It is the join above that keeps them.
            Node::Arranged { input, .. } => return below(input),
            Node::Shared { id, node, schema } => {
                if *id >= shared.len() {
                    let operator = Operator::new(model, node, mode, session, shared)?;
                    shared.push(operator);
                }
                if *id >= shared.len() {
                    return Err(Error::internal("what is shared is out of order"));
                }
                (Kind::Shared { id: *id, schema: arrow_schema(schema) }, vec![])
            }
        };
        let memory = StateMemory::new(model, kind.name(), session);
        let forgets = match plan {
            Node::Aggregate { input, group: keys, bucket: Some(bucket), .. }
            | Node::First { input, partition: keys, bucket: Some(bucket), .. }
            | Node::Window { input, partition: keys, bucket: Some(bucket), .. } => {
                Some(Box::new(Forgets::new(bucket, keys, input.schema(), session)?))
            }
            Node::Session { input, time, bucket: Some(bucket), .. } => {
                let mut forgets = Forgets::new(bucket, std::slice::from_ref(time), input.schema(), session)?;
                forgets.sessions = Some(Box::new(Recall::new(plan, session)?));
                Some(Box::new(forgets))
            }
            _ => None,
        };
        let of_session = plan.of_session();
        Ok(Operator { kind, inputs, running: Running::default(), threads, memory, forgets, of_session })
    }

    fn step(&mut self, epoch: &Epoch<'_>) -> Result<Vec<SignedBatch>> {
        let first = epoch.first;
        let mut below = self.inputs.iter_mut().map(|i| i.step(epoch)).collect::<Result<Vec<Vec<SignedBatch>>>>()?;
        let start = Instant::now();
        let rows_in: usize = below.iter().flatten().map(SignedBatch::num_rows).sum();
        if let Some(forgets) = &mut self.forgets {
            forgets.steps(rows_in)?;
        }
        let mut only = || below.pop().unwrap_or_default();
        let output = match &mut self.kind {
            Kind::Input { slot, columns, schema } => {
                let change =
                    epoch.inputs.get(*slot).ok_or_else(|| Error::internal("an input of the circuit is missing"))?;
                gathered(schema, cut(conform(change, |i| columns[i], schema)?))?
            }
            Kind::Constant { rows, schema } if first => {
                let rows: Vec<SignedBatch> = rows.iter().cloned().map(SignedBatch::inserts).collect();
                conform(&rows, |i| i, schema)?
            }
            Kind::Constant { .. } => vec![],
            Kind::Project(project) => project.step(only(), self.threads)?,
            Kind::Filter(filter) => filter.step(only(), self.threads)?,
            Kind::Unnest(unnest) => unnest.step(only(), self.threads)?,
            Kind::Union { schema } => {
                let mut output = Vec::new();
                for input in &below {
                    output.extend(conform(input, |i| i, schema)?);
                }
                output
            }
            Kind::Aggregate(node) => node.step(vec![only()], first, &mut self.memory)?,
            Kind::First(node) => node.step(vec![only()], first, &mut self.memory)?,
            Kind::Temporal(node) => node.step(only())?,
            Kind::Gate(gate) => gate.step(only())?,
            Kind::Join(join) => join.step(below, first, &mut self.memory)?,
            Kind::Window(window) => window.step(vec![only()], first, &mut self.memory)?,
            Kind::TopK(node) => node.step(vec![only()], first, &mut self.memory)?,
            Kind::Sessions(node) => node.step(vec![only()], first, &mut self.memory)?,
            Kind::Shared { id, schema } => {
                let output = epoch.shared.get(*id).ok_or_else(|| Error::internal("what is shared was not computed"))?;
                conform(output, |i| i, schema)?
            }
        };
        self.memory.resize(self.kind.state_bytes())?;
        self.running.record(rows_in, output.iter().map(SignedBatch::num_rows).sum(), start);
        Ok(output)
    }

    fn relieve(&mut self) -> Result<()> {
        if !self.memory.is_over() {
            return Ok(());
        }
        match &mut self.kind {
            Kind::Aggregate(node) => node.relieve(&mut self.memory)?,
            Kind::First(node) => node.relieve(&mut self.memory)?,
            Kind::Join(node) => node.relieve(&mut self.memory)?,
            Kind::Window(node) => node.relieve(&mut self.memory)?,
            Kind::TopK(node) => node.relieve(&mut self.memory)?,
            Kind::Sessions(node) => node.relieve(&mut self.memory)?,
            _ => {}
        }
        self.inputs.iter_mut().try_for_each(Operator::relieve)
    }

    fn set_clock(&mut self, now: i64) {
        match &mut self.kind {
            Kind::Temporal(node) => node.set_clock(now),
            Kind::Gate(gate) => gate.set_clock(now),
            Kind::Sessions(node) => node.only_mut().into_iter().for_each(|node| node.set_clock(now)),
            _ => {}
        }
        self.inputs.iter_mut().for_each(|input| input.set_clock(now));
    }

    fn set_clock_of_joins(&mut self, now: i64) {
        match &self.kind {
            Kind::Temporal(node) if node.settles() => self.set_clock(now),
            _ => self.inputs.iter_mut().for_each(|input| input.set_clock_of_joins(now)),
        }
    }

    fn last_change(&self) -> Result<Option<i64>> {
        let mut last = match &self.kind {
            Kind::Temporal(node) => node.last_change()?,
            Kind::Sessions(node) => node.only().map(Sessions::last_change).transpose()?.flatten(),
            _ => None,
        };
        for input in &self.inputs {
            last = last.max(input.last_change()?);
        }
        Ok(last)
    }

    fn each_gate(&mut self, apply: &mut dyn FnMut(&mut Gate)) {
        if let Kind::Gate(gate) = &mut self.kind {
            apply(gate);
        }
        self.inputs.iter_mut().for_each(|input| input.each_gate(apply));
    }

    fn next_change(&self) -> Result<Option<i64>> {
        let mut next = match &self.kind {
            Kind::Temporal(node) => node.next_change()?,
            Kind::Sessions(node) => node.only().map(Sessions::next_change).transpose()?.flatten(),
            _ => None,
        };
        for input in &self.inputs {
            next = [next, input.next_change()?].into_iter().flatten().min();
        }
        Ok(next)
    }

    fn save(&mut self, out: &mut StateWriter) -> Result<()> {
        out.words::<u32>(self.kind.name(), []);
        match &mut self.kind {
            Kind::Aggregate(node) => node.save(out)?,
            Kind::First(node) => node.save(out)?,
            Kind::Temporal(node) => node.save(out),
            Kind::Join(node) => node.save(out)?,
            Kind::Window(node) => node.save(out)?,
            Kind::TopK(node) => node.save(out)?,
            Kind::Sessions(node) => node.save(out)?,
            _ => {}
        }
        if let Some(forgets) = &self.forgets {
            forgets.save(out);
        }
        self.inputs.iter_mut().try_for_each(|input| input.save(out))
    }

    fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        from.exactly::<u32>(self.kind.name(), 0)?;
        match &mut self.kind {
            Kind::Aggregate(node) => node.restore(from, &mut self.memory)?,
            Kind::First(node) => node.restore(from, &mut self.memory)?,
            Kind::Temporal(node) => node.restore(from)?,
            Kind::Join(node) => node.restore(from, &mut self.memory)?,
            Kind::Window(node) => node.restore(from, &mut self.memory)?,
            Kind::TopK(node) => node.restore(from, &mut self.memory)?,
            Kind::Sessions(node) => node.restore(from, &mut self.memory)?,
            _ => {}
        }
        if let Some(forgets) = &mut self.forgets {
            forgets.restore(from, self.kind.state_rows())?;
        }
        self.memory.resize(self.kind.state_bytes())?;
        self.inputs.iter_mut().try_for_each(|input| input.restore(from))
    }

    fn metrics(&self, depth: usize) -> NodeMetrics {
        let (name, state_rows, state_bytes) = (self.kind.name(), self.kind.state_rows(), self.kind.state_bytes());
        let Running { rows_in, rows_out, elapsed } = self.running;
        NodeMetrics { name, depth, rows_in, rows_out, elapsed, state_rows, state_bytes }
    }
}

/// Whether each row of `node` is processed once.
fn streams(node: &Node, mode: Mode) -> bool {
    matches!(mode, Mode::Stream { slot } if node.streams(slot))
}

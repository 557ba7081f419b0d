//! `smelt explain`: how a model is kept up to date, node by node: what each does with a change, and what it must remember; in full also what
//! its state grows with ([`facts`]) and what was [`measured`] when it ran.

mod facts;
mod measured;

use datafusion::common::{NullHandling, ScalarValue};
use datafusion::logical_expr::{Expr, Operator, SortExpr};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

pub use self::measured::{Measured, NodeFigures};
use super::compile::CompiledModel;
use super::incremental::{
    Aggregate, AggregateClass, Arm, ArmKind, Bound, Bucket, Extent, GroupingSet, Length, Moving, Node, Rank, Reach,
    SessionEnd, TemporalRole, UnnestedList, Visible,
};
use super::reach::Distance;
use super::relation::Input;
use super::session::Planner;
use super::shape::shape;
use crate::project::Materialization;

impl Planner {
    /// The incremental tree with its state, or why the model is recomputed.
    pub fn explain(&self, model: &CompiledModel) -> String {
        self.tree(model, false, None)
    }

    /// The same with facts and figures below each node. `measured`: of a circuit of this model, as it is or was compiled.
    pub fn explain_in_full(&self, model: &CompiledModel, measured: Option<&Measured>) -> String {
        self.tree(model, true, measured)
    }

    fn tree(&self, model: &CompiledModel, full: bool, measured: Option<&Measured>) -> String {
        let mut out = String::new();
        let kind = model.model.materialized.name();
        let scheduled = model.model.materialized.is_scheduled();
        let when = match &model.model.config.schedule {
            Some(schedule) => schedule.when.to_string(),
            None => "at start and when its SQL changes".to_string(),
        };
        let changes = if model.append_only { "append-only" } else { "rows may be retracted" };
        let _ = writeln!(out, "{} ({kind}, {changes})", model.model.name);
        match (model.model.materialized, &model.incremental) {
            (Materialization::View | Materialization::Ephemeral, _) => out.push_str("  inlined into its readers\n"),
            (Materialization::Table, _) => {
                let _ = writeln!(out, "  recomputed as a whole: {when}");
            }
            (Materialization::Snapshot, _) => {
                let _ = writeln!(out, "  its query's rows are compared with their last versions: {when}");
            }
            _ => {}
        }
        match &model.incremental {
            _ if scheduled => {}
            Ok(node) => {
                let fits = measured.filter(|m| m.shape == shape(node));
                if full {
                    let _ = writeln!(out, "  {}", path(model, fits));
                    out.push_str(&said_of(measured, fits));
                }
                let (inputs, readers) = (model.inputs.as_slice(), readers(node));
                let streams = [model.stream, model.joined_stream];
                let figures = fits.map_or(&[][..], |m| m.nodes.as_slice()).iter();
                let head = None;
                let name = model.model.name.as_str();
                let mut tree =
                    Tree { model: name, inputs, streams, readers, shared: 0, full, head, figures, out: &mut out };
                tree.node(node, 1, "");
            }
            Err(fallback) => {
                let _ = writeln!(out, "  full refresh: {}: {}", fallback.operator, fallback.reason);
                for input in &model.inputs {
                    let _ = writeln!(out, "    read {} (all rows, at every change)", input.relation);
                }
            }
        }
        for e in &model.expectations {
            let _ = writeln!(out, "  expect {}: {} ({:?})", e.name, e.predicate, e.on_violation);
        }
        out
    }
}

struct Tree<'a> {
    model: &'a str,
    inputs: &'a [Input],
    streams: [Option<usize>; 2],
    /// Places that read each shared node.
    readers: Vec<usize>,
    /// Shared nodes that were shown.
    shared: usize,
    /// With facts and figures.
    full: bool,
    /// The node whose own line comes next.
    head: Option<&'a Node>,
    /// Of the nodes to come.
    figures: std::slice::Iter<'a, NodeFigures>,
    out: &'a mut String,
}

/// Which way an epoch goes.
fn path(model: &CompiledModel, measured: Option<&Measured>) -> String {
    if model.stream.is_some() {
        return "path: each new row of the stream goes through the circuit once".to_string();
    }
    let last = measured.and_then(|m| m.path.as_ref()).map_or(String::new(), |p| format!("; the last one was {p}"));
    if model.append_only {
        return format!("path: every epoch steps the circuit{last}");
    }
    let rewrite = match measured.and_then(|m| m.rewrite) {
        Some(rows) => format!("{} rows or more as things are", measured::thousands(rows)),
        None => "more rows than its inputs hold".to_string(),
    };
    format!(
        "path: an epoch steps the circuit; one that changes {rewrite} fills a new one, and the next such one is a stock plan{last}"
    )
}

/// Where the figures are from, or why there are none.
fn said_of(measured: Option<&Measured>, fits: Option<&Measured>) -> String {
    match (measured, fits) {
        (None, _) => "  measured: not yet; `smelt run` or `smelt up` measures\n".to_string(),
        (Some(_), None) => "  measured: not since the query was changed\n".to_string(),
        (_, Some(measured)) => {
            let at = chrono::DateTime::from_timestamp_micros(measured.at).unwrap_or_default();
            let at = at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            format!("  measured: until epoch {}, at {at}, since its circuit was made or loaded\n", measured.epoch)
        }
    }
}

impl<'a> Tree<'a> {
    fn line(&mut self, depth: usize, text: &str) {
        let _ = writeln!(self.out, "{}{text}", "  ".repeat(depth));
        if let Some(node) = self.head.take() {
            self.known(node, depth + 1);
        }
    }

    /// What is known of a node, below its own line.
    fn known(&mut self, node: &Node, depth: usize) {
        let figures = self.figures.next();
        if !self.full {
            return;
        }
        if let Some(facts) = facts::facts(node, self.streams[0]) {
            self.line(depth, &format!("· {facts}"));
        }
        if let Some(figures) = figures {
            self.line(depth, &format!("· {}", figures.text(!node.below().is_empty())));
        }
    }

    /// Joins, by their models.
    fn joins<'r>(&self, readers: impl Iterator<Item = &'r (String, Option<Arc<str>>)>) -> String {
        let mut joins: BTreeMap<&str, usize> = BTreeMap::new();
        readers.for_each(|(model, _)| *joins.entry(model).or_default() += 1);
        let mut own = String::new();
        if let Some(count) = joins.remove(self.model) {
            own = if count == 1 { "this join".to_string() } else { format!("{count} joins here") };
        }
        let others = joins.into_iter().map(|(model, count)| match count {
            1 => format!("a join of {model}"),
            count => format!("{count} joins of {model}"),
        });
        std::iter::once(own).chain(others).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ")
    }

    /// What becomes of groups whose time is over.
    fn forgets(&self, node: &Node, what: &str, bucket: &Option<Box<Bucket>>, keys: &[Expr]) -> String {
        let Some(bucket) = bucket else {
            return node
                .of_session()
                .map(|_| format!("; {what} of a session are forgotten with it"))
                .unwrap_or_default();
        };
        let relation = self.inputs.get(bucket.slot).map_or("?".to_string(), |input| input.relation.to_string());
        let key = keys.get(bucket.key).map_or(String::new(), Expr::to_string);
        format!(
            "; {what} whose {key} is behind the watermark of {relation} are forgotten, and read from it again for a late row"
        )
    }

    fn node(&mut self, node: &'a Node, depth: usize, label: &str) {
        if let Node::Arranged { input, arrangement, .. } = node {
            // No node of the circuit.
            let all = arrangement.readers.iter();
            let by_key = all.clone().filter(|(_, key)| key.is_some() && *key == arrangement.key);
            let (what, index) = match by_key.clone().count() {
                0 | 1 => ("rows", String::new()),
                count if count == arrangement.readers.len() => ("rows and index", String::new()),
                _ => ("rows", format!("; one index for {}", self.joins(by_key))),
            };
            self.line(depth, &format!("{label}{what} kept once for {}{index}:", self.joins(all)));
            return self.node(input, depth + 1, "");
        }
        self.head = Some(node);
        match node {
            Node::Arranged { .. } => {}
            Node::Input { slot, columns, schema, .. } => {
                let names: Vec<&str> = match self.inputs.get(*slot) {
                    Some(input) => columns.iter().map(|c| input.schema.field(*c).name().as_str()).collect(),
                    None => schema.fields().iter().map(|f| f.name().as_str()).collect(),
                };
                let (relation, append_only) = self
                    .inputs
                    .get(*slot)
                    .map_or(("?".to_string(), false), |i| (i.relation.to_string(), i.append_only));
                let how = match (self.streams[0], append_only) {
                    _ if self.streams.contains(&Some(*slot)) => "each row once",
                    (Some(_), _) => "as it is at that epoch",
                    (None, true) => "append-only",
                    (None, false) => "may retract",
                };
                self.line(depth, &format!("{label}read {relation} [{}]: {how}", names.join(", ")));
            }
            Node::Shared { id, .. } if *id < self.shared => {
                self.line(depth, &format!("{label}shared {}: as above", id + 1));
            }
            Node::Shared { id, node, .. } => {
                let readers = self.readers.get(*id).copied().unwrap_or_default();
                self.line(depth, &format!("{label}shared {}: computed once for {readers} readers", id + 1));
                self.node(node, depth + 1, "");
                self.shared = id + 1;
            }
            Node::Constant { rows, .. } => {
                let count: usize = rows.iter().map(arrow::array::RecordBatch::num_rows).sum();
                self.line(depth, &format!("{label}constant: {count} rows"));
            }
            Node::Project { input, exprs, schema } => {
                let exprs = exprs.iter().zip(schema.fields()).map(|(e, f)| named(e, f.name()));
                let exprs = exprs.collect::<Vec<_>>().join(", ");
                self.line(depth, &format!("{label}project {exprs}: linear"));
                self.node(input, depth + 1, "");
            }
            Node::Filter { input, predicate } => {
                self.line(depth, &format!("{label}filter {predicate}: linear"));
                self.node(input, depth + 1, "");
            }
            Node::Union { inputs, .. } => {
                self.line(depth, &format!("{label}union all: linear"));
                inputs.iter().for_each(|i| self.node(i, depth + 1, ""));
            }
            Node::Unnest { input, lists, structs, schema: _, nulls } => {
                let name = |column: usize| unnested(input.schema().field(column).name());
                let list = |l: &UnnestedList| match l.depth {
                    1 => name(l.column),
                    depth => format!("{} (depth {depth})", name(l.column)),
                };
                let columns: Vec<String> = lists.iter().map(list).chain(structs.iter().map(|s| name(*s))).collect();
                let kept = match (lists.is_empty(), nulls) {
                    (true, _) | (false, NullHandling::Drop) => "",
                    (false, NullHandling::Preserve) => ", a NULL list keeps its row",
                    (false, NullHandling::PreserveAndExpandEmpty) => ", a NULL or empty list keeps its row",
                };
                self.line(depth, &format!("{label}unnest {}{kept}: linear", columns.join(", ")));
                self.node(input, depth + 1, "");
            }
            Node::Join { base, arms, .. } => {
                let text = match self.streams[0] {
                    Some(stream) if !base.streams(stream) => {
                        "join: incremental; state: the needed columns of the rows below once, and one index per key"
                    }
                    Some(_) => "lookup: incremental; state: the dimensions' needed columns and one index per key",
                    None => "join: incremental; state: each input's needed columns once, and one index per key",
                };
                self.line(depth, &format!("{label}{text}"));
                self.node(base, depth + 1, "base: ");
                for arm in arms {
                    self.node(&arm.input, depth + 1, &arm_label(arm));
                }
            }
            Node::Aggregate { input, group, sets, aggregates, bucket, .. } => {
                let by = by(group, sets);
                let forgets = self.forgets(node, "groups", bucket, group);
                let calls: Vec<String> = aggregates.iter().map(aggregate_text).collect();
                let text = match calls.as_slice() {
                    [] => format!("distinct {by}: incremental; state: a count per distinct row{forgets}"),
                    calls => {
                        let state = state(aggregates);
                        format!("aggregate {} by {by}: incremental; state: {state}{forgets}", calls.join(", "))
                    }
                };
                self.line(depth, &format!("{label}{text}"));
                self.node(input, depth + 1, "");
            }
            Node::Temporal { input, bounds, role: TemporalRole::Late } => {
                let until = bounds.first().map(|b| b.expr.to_string()).unwrap_or_default();
                self.line(depth, &format!("{label}on time until {until}: rows behind the watermark go to __late"));
                self.node(input, depth + 1, "");
            }
            Node::Temporal { input, bounds, role: TemporalRole::Open } => {
                let text = match bounds.first() {
                    Some(Bound { expr, moving, operator: Operator::GtEq }) => format!(
                        "rows until the watermark is more than {} past {expr}: state: those rows, bounded by the watermarks of both streams",
                        length(moving.micros)
                    ),
                    Some(bound) => {
                        let until = passed(bound);
                        format!("open windows until {until}: state: the rows of open windows, bounded by the watermark")
                    }
                    None => String::new(),
                };
                self.line(depth, &format!("{label}{text}"));
                self.node(input, depth + 1, "");
            }
            Node::Temporal { input, role: TemporalRole::Settle, .. } => {
                let text = "matches are given out at once, what has none when the watermark says so; state: rows without a match, bounded by the watermarks of both streams";
                self.line(depth, &format!("{label}settle: {text}"));
                self.node(input, depth + 1, "");
            }
            Node::Temporal { input, bounds, role: TemporalRole::Close } => {
                let end = bounds.first().map(passed).unwrap_or_default();
                let text = "written once; state: the results of open windows, bounded by the watermark";
                self.line(depth, &format!("{label}on close of {end}: {text}"));
                self.node(input, depth + 1, "");
            }
            Node::Temporal { input, bounds, role: TemporalRole::Filter } => {
                let text: Vec<String> = bounds.iter().map(bound_text).collect();
                let text = text.join(" and ");
                self.line(
                    depth,
                    &format!(
                        "{label}temporal filter {text}: incremental; state: the rows that come or go later, by when"
                    ),
                );
                self.node(input, depth + 1, "");
            }
            Node::First { input, partition, order, bucket } => {
                let keeps = match (self.streams[0], input.is_append_only()) {
                    (Some(_), _) => "state: the keys seen",
                    (None, true) => "state: the first row per key, as its input is append-only",
                    (None, false) => "state: the rows of each key, in order",
                };
                let order = order.iter().map(SortExpr::to_string).collect::<Vec<_>>().join(", ");
                let (per, forgets) = (list(partition), self.forgets(node, "rows", bucket, partition));
                self.line(depth, &format!("{label}first row per {per} by {order}: incremental; {keeps}{forgets}"));
                self.node(input, depth + 1, "");
            }
            Node::Session { input, partition, time, gap, ends, closes, bucket, .. } => {
                let per = if partition.is_empty() { "all rows".to_string() } else { list(partition) };
                let gap = match gap {
                    Length::Micros(micros) => length(*micros),
                    Length::Months(1) => "1 month".to_string(),
                    Length::Months(months) => format!("{months} months"),
                };
                let reaches = match ends {
                    SessionEnd::Each => "a change reaches its session",
                    SessionEnd::Absent | SessionEnd::Last => "a change reaches its session where that begins anew",
                };
                let state = match closes {
                    Some(0) => {
                        format!("the rows of open sessions in the order of time, bounded by the watermark; {reaches}")
                    }
                    Some(behind) => format!(
                        "the rows of sessions in the order of time until the watermark is {} past their end; {reaches}",
                        length(*behind)
                    ),
                    None => format!("the rows in the order of time; {reaches}"),
                };
                let forgets = match bucket.as_ref().and_then(|bucket| self.inputs.get(bucket.slot)) {
                    Some(Input { relation, .. }) => format!(
                        "; sessions that ended before the watermark of {relation} are forgotten, and read from it again for a late row"
                    ),
                    None => String::new(),
                };
                self.line(
                    depth,
                    &format!("{label}session of {time} within {gap} per {per}: incremental; state: {state}{forgets}"),
                );
                self.node(input, depth + 1, "");
            }
            Node::Window { input, partition, order, calls, reach, visible, bucket, .. } => {
                let per = if partition.is_empty() { "all rows".to_string() } else { list(partition) };
                let what = match visible {
                    Some(Visible { rank, most }) => {
                        let forgets = node.forgets_hidden_rows();
                        let rank = match rank {
                            Rank::RowNumber => "row number",
                            Rank::Rank => "rank",
                            Rank::DenseRank => "dense rank",
                        };
                        let by: Vec<String> = order.iter().map(ToString::to_string).collect();
                        format!(
                            "top {most} by {rank} per {per} by {}: incremental; state: {}",
                            by.join(", "),
                            if forgets {
                                "these rows alone, as its input is append-only"
                            } else {
                                "the rows; a change behind them costs nothing"
                            }
                        )
                    }
                    None => {
                        let calls = list(calls);
                        format!(
                            "window {calls} over {per}: incremental; state: the rows; a change reaches {}",
                            reached(*reach)
                        )
                    }
                };
                let forgets = self.forgets(node, "rows", bucket, partition);
                self.line(depth, &format!("{label}{what}{forgets}"));
                self.node(input, depth + 1, "");
            }
        }
    }
}

/// When the watermark has passed the end of a window far enough.
fn passed(bound: &Bound) -> String {
    match bound.moving.micros {
        0 => bound.expr.to_string(),
        behind => format!("{} and {} more", bound.expr, length(behind)),
    }
}

/// How many places read each shared node, by number.
fn readers(root: &Node) -> Vec<usize> {
    fn visit(node: &Node, readers: &mut Vec<usize>) {
        if let Node::Shared { id, .. } = node {
            if let Some(known) = readers.get_mut(*id).filter(|n| **n > 0) {
                *known += 1;
                return;
            }
            readers.resize(readers.len().max(id + 1), 0);
            readers[*id] = 1;
        }
        node.below().into_iter().for_each(|n| visit(n, readers));
    }
    let mut all = Vec::new();
    visit(root, &mut all);
    all
}

fn bound_text(bound: &Bound) -> String {
    let Moving { whole_days, months, micros } = bound.moving;
    let clock = if whole_days { "current_date" } else { "now()" };
    let sign = |n: i64| if n < 0 { "-" } else { "+" };
    let shift = match (months, micros) {
        (0, 0) => String::new(),
        (0, micros) => {
            format!(" {} {}", sign(micros), length(micros))
        }
        (months, _) => format!(" {} {} months", sign(months), months.abs()),
    };
    format!("{} {} {clock}{shift}", bound.expr, bound.operator)
}

fn length(micros: i64) -> String {
    format!("{:?}", std::time::Duration::from_micros(micros.unsigned_abs()))
}

/// What is unfolded, without the wrapping DataFusion names it by.
fn unnested(name: &str) -> String {
    let inner = name.strip_prefix("__unnest_placeholder(").and_then(|n| n.strip_suffix(')')).unwrap_or(name);
    inner.replace("outer_ref(", "(")
}

fn named(expr: &Expr, name: &str) -> String {
    match expr {
        Expr::Column(c) if c.name == name => name.to_string(),
        other => format!("{other} as {name}"),
    }
}

fn list(exprs: &[Expr]) -> String {
    exprs.iter().map(Expr::to_string).collect::<Vec<_>>().join(", ")
}

fn by(group: &[Expr], sets: &[GroupingSet]) -> String {
    if !sets.is_empty() {
        let set = |set: &GroupingSet| {
            let kept = group.iter().zip(&set.rolled_up).filter(|(_, rolled_up)| !**rolled_up);
            format!("({})", kept.map(|(expr, _)| expr.to_string()).collect::<Vec<_>>().join(", "))
        };
        return format!("grouping sets {}", sets.iter().map(set).collect::<Vec<_>>().join(", "));
    }
    if group.is_empty() { "all rows".to_string() } else { list(group) }
}

/// What is computed anew for a changed row: those that look at it.
fn reached(reach: Reach) -> String {
    let side = |extent: Extent, side: &str| match extent {
        _ if extent.is_all() => Some(format!("all {side} it")),
        Extent { distance: Some(Distance::Number { units, scale }), .. } => {
            let distance = ScalarValue::Decimal128(Some(units), 38, scale);
            Some(format!("those up to {distance} {side} it"))
        }
        Extent { distance: Some(Distance::Time { nanos }), .. } => {
            Some(format!("those up to {} s {side} it", nanos as f64 / 1e9))
        }
        Extent { groups: 1, .. } => Some(format!("one group of peers {side} it")),
        Extent { groups: 2.., .. } => Some(format!("{} groups of peers {side} it", extent.groups)),
        Extent { rows: 0, peers: false, .. } => None,
        Extent { rows: 0, peers: true, .. } => Some(format!("its peers {side} it")),
        Extent { rows: 1, .. } => Some(format!("one row {side} it")),
        Extent { rows, .. } => Some(format!("{rows} rows {side} it")),
    };
    match (reach.before.is_all(), reach.after.is_all()) {
        (true, true) => "its whole partition".to_string(),
        // Rows that look back see it from behind.
        _ => match [side(reach.after, "before"), side(reach.before, "behind")] {
            [None, None] => "no other row".to_string(),
            sides => sides.into_iter().flatten().collect::<Vec<_>>().join(" and "),
        },
    }
}

fn arm_label(arm: &Arm) -> String {
    let kind = match arm.kind {
        ArmKind::Inner => "inner",
        ArmKind::Left => "left",
        ArmKind::Semi => "semi",
        ArmKind::Anti => "anti",
        ArmKind::NotIn => "anti (not in)",
        ArmKind::Mark => "mark",
    };
    let on = arm.on.iter().map(|(l, r)| format!("{l} = {r}")).collect::<Vec<_>>().join(" and ");
    match &arm.residual {
        Some(residual) => format!("{kind} on {on} and {residual}: "),
        None => format!("{kind} on {on}: "),
    }
}

fn aggregate_text(aggregate: &Aggregate) -> String {
    aggregate.call.to_string()
}

/// What the aggregates make the node remember, the widest first.
fn state(aggregates: &[Aggregate]) -> String {
    use AggregateClass as Class;
    let recomputed = |a: &&Aggregate| a.class == Class::Recompute;
    let mut names: Vec<&str> = Vec::new();
    for aggregate in aggregates.iter().filter(recomputed) {
        if let Expr::AggregateFunction(call) = &aggregate.call
            && !names.contains(&call.func.name())
        {
            names.push(call.func.name());
        }
    }
    let mut parts = Vec::new();
    if !names.is_empty() {
        parts.push(format!("the rows of each group, from which {} is recomputed when one changes", names.join(", ")));
    }
    let mut has = |what: &str, wanted: &dyn Fn(&Aggregate) -> bool| {
        if aggregates.iter().any(wanted) {
            parts.push(what.to_string());
        }
    };
    has("the rows of each group, in order", &|a| matches!(a.class, Class::Place(_)) && !a.is_running());
    has("the distinct values of each group", &|a| a.distinct && !matches!(a.class, Class::Quantile(_)));
    has("ordered values per group", &|a| {
        matches!(a.class, Class::Min | Class::Max | Class::Quantile(_)) && !a.is_running()
    });
    has("the first or last of each group, as its input is append-only", &Aggregate::is_running);
    let sums = |a: &Aggregate| {
        !matches!(a.class, Class::Recompute | Class::Place(_) | Class::Min | Class::Max | Class::Quantile(_))
    };
    has("counts and sums per group", &sums);
    parts.join("; ")
}

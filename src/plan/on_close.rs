//! `emit: on_close`: each window of a streaming table is written once, when the watermark has passed its end.
//!
//! Three nodes are put around what is computed of a window. At the bottom stands the gate where late rows are set aside ([`lateness`]). Below
//! what remembers rows stands one that takes them out again when their window has closed, so that state is bounded: what is computed of a
//! window then goes as it came, since every GROUP BY and PARTITION BY on the way has `window_end` among its keys. At the top stands one that
//! holds results back until the window closes, and does not look at what becomes of them after that.
//!
//! Where windows are those of two streams that are joined by time, rows are late by the join, and the node below what remembers stands on top of it
//! ([`interval_join`]): it holds what the join gives out until the watermark is far enough past the end of a window that nothing more comes for it.
//!
//! When a session ends is not known from a row alone. So a row is late when its time is behind the watermark, and the session node takes rows
//! out when the watermark has passed the end of their session: no later row can belong to it. Over joined streams it waits as much longer as a row may for the other
//! stream.

use arrow::datatypes::Schema;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use super::fault::Fault;
use super::incremental::{Bound, Node, TemporalRole};
use super::interval_join;
use super::lateness::{self, Judgement, Stream, column};
use super::lower::{Fallback, substitute};
use crate::project::OnViolation;

/// The column that says when a row's window ends.
const END: &str = "window_end";

/// What is computed of windows: rows of one stream, or of two that are joined by time.
pub(super) struct Source<'a> {
    pub streams: &'a [Stream<'a>],
    pub joined: bool,
}

/// Where the end of a window stands in the rows of a node.
#[derive(Clone, Copy)]
struct End {
    column: usize,
    /// What is to be added to the column, as months and ns: it says when a window begins.
    plus: Option<(i64, i64)>,
}

impl End {
    fn of(self, node: &Node) -> Result<Expr, Fault> {
        self.plus(column(node.schema(), self.column).ok_or_else(lost)?)
    }

    fn plus(self, expr: Expr) -> Result<Expr, Fault> {
        let Some(length) = self.plus else { return Ok(expr) };
        let length = interval_join::interval(length).ok_or_else(lost)?;
        Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(expr), Operator::Plus, Box::new(length))))
    }
}

/// `tree` of a query whose windows are written when they close.
pub(super) fn close(tree: Result<Node, Fallback>, schema: &Schema, source: &Source<'_>) -> Result<Node, Fault> {
    let tree = tree.map_err(|fallback| {
        Fault::new("not-a-stream", format!("{} cannot be computed window by window", fallback.operator))
            .hint("make the model a materialized_view, which corrects its windows")
    })?;
    let named = schema.fields().iter().position(|f| f.name().eq_ignore_ascii_case(END));
    let end = named.map(|column| End { column, plus: None }).or_else(|| begins(&tree, source)).ok_or_else(|| {
        Fault::new(
            "no-window-end",
            "`emit: on_close` writes windows when they end, and the query selects no `window_end`",
        )
        .hint("select window_start, window_end from tumble(STREAM …, ts, interval '5 minutes'), and group by both")
    })?;
    let (opened, behind) = open(tree, end, source)?;
    let expr = end.of(&opened)?;
    Ok(bounded(opened, expr, Operator::LtEq, behind, TemporalRole::Close))
}

/// The column that says when a window begins, of a query that groups by it: the bucket of a time that is selected, the shortest of them.
fn begins(tree: &Node, source: &Source<'_>) -> Option<End> {
    let columns = (0..tree.schema().fields().len()).filter_map(|column| {
        let plus = source.remembers(tree).then(|| length(tree, column, source)).flatten()?;
        Some((plus, End { column, plus: Some(plus) }))
    });
    columns.min_by_key(|(length, _)| *length).map(|(_, end)| end)
}

/// How long the bucket of a time is that a column of `node` is.
fn length(node: &Node, index: usize, source: &Source<'_>) -> Option<(i64, i64)> {
    let of = |input: &Node, expr: &Expr| match interval_join::plain(expr) {
        Expr::Column(c) if source.remembers(input) => length(input, input.schema().maybe_index_of_column(c)?, source),
        expr => bucket_of(input, expr.clone()),
    };
    match node {
        Node::Project { input, exprs, .. } => of(input, exprs.get(index)?),
        Node::Aggregate { input, group, .. } => of(input, group.get(index)?),
        Node::Filter { input, .. } | Node::First { input, .. } | Node::Window { input, .. } => {
            length(input, index, source)
        }
        Node::Join { base, .. } if source.remembers(base) => length(base, index, source),
        _ => None,
    }
}

/// The same of an expression over rows that come as they are.
fn bucket_of(node: &Node, expr: Expr) -> Option<(i64, i64)> {
    match node {
        Node::Project { input, exprs, schema } => bucket_of(input, substitute(expr, schema, exprs).ok()?),
        Node::Filter { input, .. } => bucket_of(input, expr),
        _ => interval_join::bucket(&expr).map(|(_, length)| length).filter(|length| *length != (0, 0)),
    }
}

fn bounded(input: Node, expr: Expr, operator: Operator, behind: i64, role: TemporalRole) -> Node {
    let bounds = vec![Bound { expr, operator, moving: interval_join::earlier(behind) }];
    Node::Temporal { input: Box::new(input), bounds, role }
}

/// Rows of open windows, told by `expr` over them, and how far past its end the watermark is when a window is complete.
fn opened(node: Node, expr: Expr, source: &Source<'_>) -> Result<(Node, i64), Fault> {
    if source.joined {
        let (node, window) = interval_join::opened(node, expr, source.streams)?;
        return Ok((node, window.behind));
    }
    let judgement = Judgement { instant: expr.clone(), operator: Operator::Gt, conditions: vec![] };
    let node = lateness::judged(node, judgement, source.streams.first().ok_or_else(lost)?)?;
    Ok((bounded(node, expr, Operator::Gt, 0, TemporalRole::Open), 0))
}

/// Lets rows of open windows into what `node` computes; `end` is the column of its output that says when a window ends.
fn open(node: Node, end: End, source: &Source<'_>) -> Result<(Node, i64), Fault> {
    if !source.remembers(&node) {
        let expr = end.of(&node)?;
        return opened(node, expr, source);
    }
    let below = |input: &Node, expr: &Expr| match interval_join::plain(expr) {
        Expr::Column(c) => input.schema().maybe_index_of_column(c).map(|column| End { column, ..end }).ok_or_else(lost),
        _ => Err(not_grouped()),
    };
    match node {
        Node::Project { input, exprs, schema } => {
            let end = below(&input, exprs.get(end.column).ok_or_else(lost)?)?;
            let (input, behind) = open(*input, end, source)?;
            Ok((Node::Project { input: Box::new(input), exprs, schema }, behind))
        }
        Node::Filter { input, predicate } => {
            let (input, behind) = open(*input, end, source)?;
            Ok((Node::Filter { input: Box::new(input), predicate }, behind))
        }
        Node::Aggregate { input, group, sets, mut aggregates, bucket, schema } => {
            let Some(expr) = group.get(end.column).cloned() else { return Err(not_grouped()) };
            if !sets.is_empty() {
                return Err(Fault::new("not-a-stream", "`emit: on_close` knows no GROUPING SETS, ROLLUP or CUBE")
                    .hint("group in a streaming_table of its own, and that in a materialized_view that reads it"));
            }
            let (input, behind) = match source.remembers(&input) {
                true => {
                    let end = below(&input, &expr)?;
                    open(*input, end, source)?
                }
                false => opened(*input, end.plus(expr)?, source)?,
            };
            // Rows leave with their window.
            aggregates.iter_mut().for_each(|a| a.append_only = false);
            Ok((Node::Aggregate { input: Box::new(input), group, sets, aggregates, bucket, schema }, behind))
        }
        Node::First { input, partition, order, bucket } => {
            has_end(&partition, &input, end.column)?;
            let (input, behind) = open(*input, end, source)?;
            Ok((Node::First { input: Box::new(input), partition, order, bucket }, behind))
        }
        Node::Window { input, partition, order, calls, reach, visible, bucket, schema } => {
            has_end(&partition, &input, end.column)?;
            let (input, behind) = open(*input, end, source)?;
            let input = Box::new(input);
            Ok((Node::Window { input, partition, order, calls, reach, visible, bucket, schema }, behind))
        }
        Node::Session { input, partition, time, gap, ends, schema, .. } => {
            if end.column != input.schema().fields().len() + 1 || end.plus.is_some() {
                return Err(lost());
            }
            if source.joined {
                if source.remembers(&input) {
                    return Err(Fault::new(
                        "not-a-stream",
                        "sessions that close are those of rows that the join of the streams gives",
                    )
                    .hint("write what is computed below them into a streaming_table of its own, and read that here"));
                }
                let (input, behind) = interval_join::sessions(*input, &time, source.streams)?;
                let (input, closes) = (Box::new(input), Some(behind));
                return Ok((Node::Session { input, partition, time, gap, ends, closes, bucket: None, schema }, behind));
            }
            let one = source.streams.first().filter(|_| !source.remembers(&input));
            let Some(stream) = one else {
                return Err(Fault::new("not-a-stream", "sessions that close are those of a stream's own rows")
                    .hint("write what is computed below them into a streaming_table of its own, and read that here"));
            };
            // No row comes that lies before the watermark, so none is in a session that ends there.
            let judgement = Judgement { instant: time.clone(), operator: Operator::GtEq, conditions: vec![] };
            let input = Box::new(lateness::judged(*input, judgement, stream)?);
            Ok((Node::Session { input, partition, time, gap, ends, closes: Some(0), bucket: None, schema }, 0))
        }
        Node::Join { base, arms, schema } => {
            if end.column >= base.schema().fields().len() || arms.iter().any(|a| source.is_read_by(&a.input)) {
                return Err(Fault::new("not-a-stream", "`emit: on_close` joins the windows of one stream to dimensions only")
                    .hint("compare windows by window functions over (partition by window_end), or in a materialized_view that reads this table"));
            }
            let (base, behind) = open(*base, end, source)?;
            Ok((Node::Join { base: Box::new(base), arms, schema }, behind))
        }
        _ => Err(Fault::new(
            "not-a-stream",
            "`emit: on_close` knows projection, filter, GROUP BY, window functions and joins to dimensions",
        )
        .hint("do the rest in a materialized_view that reads this table")),
    }
}

impl Source<'_> {
    fn is_read_by(&self, node: &Node) -> bool {
        self.streams.iter().any(|s| reads(node, s.slot))
    }

    /// Whether something is computed of several rows of the stream, or of several that two joined streams give.
    pub fn remembers(&self, node: &Node) -> bool {
        match node {
            _ if !self.joined => remembers(node),
            Node::Input { .. } => false,
            Node::Project { input, .. } | Node::Filter { input, .. } | Node::Unnest { input, .. } => {
                self.remembers(input)
            }
            Node::Union { inputs, .. } => inputs.iter().any(|i| self.remembers(i)),
            Node::Join { base, arms, .. } => {
                let inputs = std::iter::once(&**base).chain(arms.iter().map(|a| &a.input));
                inputs.filter(|i| self.is_read_by(i)).any(|i| self.remembers(i))
            }
            _ => true,
        }
    }
}

/// Column `end` of `input` is among the keys of a partition.
fn has_end(partition: &[Expr], input: &Node, end: usize) -> Result<(), Fault> {
    let is_end = |e: &Expr| matches!(e, Expr::Column(c) if input.schema().maybe_index_of_column(c) == Some(end));
    if end < input.schema().fields().len() && partition.iter().any(is_end) {
        return Ok(());
    }
    Err(Fault::new("no-window-end", "a window function, LIMIT or DISTINCT ON here looks at rows of several windows")
        .hint("write: over (partition by window_end, … order by …)"))
}

fn lost() -> Fault {
    Fault::new("no-window-end", "the column `window_end` is lost in the plan")
}

fn not_grouped() -> Fault {
    Fault::new(
        "no-window-end",
        "`window_end` is not what rows are grouped by, so it is not known when a group is complete",
    )
    .hint("group by window_start, window_end")
}

/// Whether a row's result depends on other rows; dimensions that are joined are looked up, and count as such.
fn remembers(node: &Node) -> bool {
    match node {
        Node::Input { .. } => false,
        Node::Project { input, .. } | Node::Filter { input, .. } | Node::Unnest { input, .. } => remembers(input),
        Node::Join { base, .. } => remembers(base),
        _ => true,
    }
}

/// Whether two streams are joined row by row, or one to itself.
pub(super) fn joins_streams(node: &Node, streams: &[Stream<'_>]) -> bool {
    let has_stream = |node: &Node| streams.iter().any(|s| reads(node, s.slot));
    let is_joined = match node {
        Node::Join { base, arms, .. } => {
            let mut inputs = std::iter::once(&**base).chain(arms.iter().map(|a| &a.input)).filter(|i| has_stream(i));
            inputs.clone().count() > 1 && inputs.all(|i| !remembers(i))
        }
        _ => false,
    };
    is_joined || node.below().into_iter().any(|below| joins_streams(below, streams))
}

/// Whether rows of input `slot` come to `node`.
pub(super) fn reads(node: &Node, slot: usize) -> bool {
    match node {
        Node::Input { slot: own, .. } => *own == slot,
        other => other.below().into_iter().any(|n| reads(n, slot)),
    }
}

/// What `emit: on_close` demands beside the query.
pub(super) struct Demands<'a> {
    pub is_streaming_table: bool,
    /// The stream is a model's table, whose rows can be found again.
    pub reads_table: bool,
    pub append_only: bool,
    /// Of the stream, or of what it reads.
    pub has_watermark: bool,
    pub violations: &'a [OnViolation],
}

/// The first that is not met.
pub(super) fn check(demands: &Demands<'_>) -> Result<(), Fault> {
    if !demands.is_streaming_table {
        return Err(Fault::new(
            "on-close",
            "`emit: on_close` is for a streaming_table: a view corrects its windows when late rows come",
        )
        .hint("set materialized: streaming_table, or take `emit` out"));
    }
    if !demands.reads_table {
        return Err(Fault::new("on-close", "the rows of open windows must be found again after a restart, and a source's may be gone")
            .hint("read the source in a streaming_table of its own, and that table here: from tumble(STREAM {{ ref('bronze') }}, …)"));
    }
    if !demands.append_only {
        return Err(Fault::new(
            "on-close",
            "a window that was written cannot be taken back, and the stream retracts rows",
        )
        .hint("make the model a materialized_view, or set `skip_change_commits: true`"));
    }
    if !demands.has_watermark {
        return Err(Fault::new(
            "no-watermark",
            "`emit: on_close` waits for a watermark, and nothing the stream is made of has one",
        )
        .hint("say it of the source or of the model that is read: watermark: {column: ts, delay: 10 minutes}"));
    }
    if demands.violations.contains(&OnViolation::Quarantine) {
        return Err(Fault::new(
            "on-close",
            "a window is written once: it cannot stand in quarantine until its rows are corrected",
        )
        .hint("use on_violation: drop, or put the expectation on a model that reads this table"));
    }
    Ok(())
}

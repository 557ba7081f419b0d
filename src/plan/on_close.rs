//! `emit: on_close`: each window of a streaming table is written once, when the watermark has passed its end.
//!
//! Three nodes are put around what is computed of a window. At the bottom stands the gate where late rows are set aside ([`lateness`]). Below
//! what remembers rows stands one that takes them out again when their window has closed, so that state is bounded: what is computed of a
//! window then goes as it came, since every GROUP BY and PARTITION BY on the way has `window_end` among its keys. At the top stands one that
//! holds results back until the window closes, and does not look at what becomes of them after that.
//!
//! When a session ends is not known from a row alone. So a row is late when its time is behind the watermark, and the session node takes rows
//! out when the watermark has passed the end of their session: no later row can belong to it.

use arrow::datatypes::Schema;
use datafusion::logical_expr::{Expr, Operator};

use super::fault::Fault;
use super::incremental::{Bound, Moving, Node, TemporalRole};
use super::lateness::{self, Judgement, Stream, column};
use super::lower::Fallback;
use crate::project::OnViolation;

/// The column that says when a row's window ends.
const END: &str = "window_end";

/// `tree` of a query whose windows are written when they close.
pub(super) fn close(tree: Result<Node, Fallback>, schema: &Schema, streams: &[Stream<'_>]) -> Result<Node, Fault> {
    let Some(stream) = streams.first() else { return Err(lost()) };
    let tree = tree.map_err(|fallback| {
        Fault::new("not-a-stream", format!("{} cannot be computed window by window", fallback.operator))
            .hint("make the model a materialized_view, which corrects its windows")
    })?;
    let end = schema.fields().iter().position(|f| f.name().eq_ignore_ascii_case(END)).ok_or_else(|| {
        Fault::new(
            "no-window-end",
            "`emit: on_close` writes windows when they end, and the query selects no `window_end`",
        )
        .hint("select window_start, window_end from tumble(STREAM …, ts, interval '5 minutes'), and group by both")
    })?;
    let opened = open(tree, end, stream)?;
    let expr = column(opened.schema(), end).ok_or_else(lost)?;
    Ok(bounded(opened, expr, Operator::LtEq, TemporalRole::Close))
}

fn bounded(input: Node, expr: Expr, operator: Operator, role: TemporalRole) -> Node {
    let moving = Moving { whole_days: false, months: 0, micros: 0 };
    Node::Temporal { input: Box::new(input), bounds: vec![Bound { expr, operator, moving }], role }
}

/// Rows of open windows, told by `expr` over them.
fn opened(node: Node, expr: Expr, stream: &Stream<'_>) -> Result<Node, Fault> {
    let judgement = Judgement { instant: expr.clone(), operator: Operator::Gt, conditions: vec![] };
    let node = lateness::judged(node, judgement, stream)?;
    Ok(bounded(node, expr, Operator::Gt, TemporalRole::Open))
}

/// Lets rows of open windows into what `node` computes; `end` is the column of its output that says when a window ends.
fn open(node: Node, end: usize, stream: &Stream<'_>) -> Result<Node, Fault> {
    if !remembers(&node) {
        let expr = column(node.schema(), end).ok_or_else(lost)?;
        return opened(node, expr, stream);
    }
    let below = |input: &Node, expr: &Expr| match expr.clone().unalias() {
        Expr::Column(c) => input.schema().maybe_index_of_column(&c).ok_or_else(lost),
        _ => Err(not_grouped()),
    };
    match node {
        Node::Project { input, exprs, schema } => {
            let end = below(&input, exprs.get(end).ok_or_else(lost)?)?;
            Ok(Node::Project { input: Box::new(open(*input, end, stream)?), exprs, schema })
        }
        Node::Filter { input, predicate } => {
            Ok(Node::Filter { input: Box::new(open(*input, end, stream)?), predicate })
        }
        Node::Aggregate { input, group, sets, mut aggregates, bucket, schema } => {
            let Some(expr) = group.get(end).cloned() else { return Err(not_grouped()) };
            if !sets.is_empty() {
                return Err(Fault::new("not-a-stream", "`emit: on_close` knows no GROUPING SETS, ROLLUP or CUBE")
                    .hint("group in a streaming_table of its own, and that in a materialized_view that reads it"));
            }
            let input = match remembers(&input) {
                true => {
                    let end = below(&input, &expr)?;
                    open(*input, end, stream)?
                }
                false => opened(*input, expr, stream)?,
            };
            // Rows leave with their window.
            aggregates.iter_mut().for_each(|a| a.append_only = false);
            Ok(Node::Aggregate { input: Box::new(input), group, sets, aggregates, bucket, schema })
        }
        Node::First { input, partition, order } => {
            has_end(&partition, &input, end)?;
            Ok(Node::First { input: Box::new(open(*input, end, stream)?), partition, order })
        }
        Node::Window { input, partition, order, calls, reach, visible, schema } => {
            has_end(&partition, &input, end)?;
            let input = Box::new(open(*input, end, stream)?);
            Ok(Node::Window { input, partition, order, calls, reach, visible, schema })
        }
        Node::Session { input, partition, time, gap, ends, schema, .. } => {
            if end != input.schema().fields().len() + 1 {
                return Err(lost());
            }
            if remembers(&input) {
                return Err(Fault::new("not-a-stream", "sessions that close are those of a stream's own rows")
                    .hint("write what is computed below them into a streaming_table of its own, and read that here"));
            }
            // No row comes that lies before the watermark, so none is in a session that ends there.
            let judgement = Judgement { instant: time.clone(), operator: Operator::GtEq, conditions: vec![] };
            let input = Box::new(lateness::judged(*input, judgement, stream)?);
            Ok(Node::Session { input, partition, time, gap, ends, closes: true, schema })
        }
        Node::Join { base, arms, schema } => {
            if end >= base.schema().fields().len() || arms.iter().any(|a| reads(&a.input, stream.slot)) {
                return Err(Fault::new("not-a-stream", "`emit: on_close` joins the windows of one stream to dimensions only")
                    .hint("compare windows by window functions over (partition by window_end), or in a materialized_view that reads this table"));
            }
            Ok(Node::Join { base: Box::new(open(*base, end, stream)?), arms, schema })
        }
        _ => Err(Fault::new(
            "not-a-stream",
            "`emit: on_close` knows projection, filter, GROUP BY, window functions and joins to dimensions",
        )
        .hint("do the rest in a materialized_view that reads this table")),
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

/// Whether a stream is joined to itself, and no windows are computed of it.
pub(super) fn joins_itself(node: &Node, streams: &[Stream<'_>]) -> bool {
    match node {
        Node::Project { input, .. } | Node::Filter { input, .. } => joins_itself(input, streams),
        Node::Union { inputs, .. } => inputs.iter().any(|i| joins_itself(i, streams)),
        Node::Join { base, arms, .. } => {
            let both = |s: &Stream<'_>| reads(base, s.slot) && arms.iter().any(|a| reads(&a.input, s.slot));
            !remembers(base) && streams.iter().any(both)
        }
        _ => false,
    }
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

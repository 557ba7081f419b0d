//! What a materialization demands of its query.

use arrow::datatypes::{FieldRef, Schema};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use std::collections::BTreeSet;

use super::fault::Fault;
use super::incremental::Node;
use super::lower::Fallback;
use super::relation::Input;
use super::temporal;
use crate::types::ChangeKind;

/// Functions of `plan` whose value is not a function of their arguments. With `timed`, conditions that bound rows in time may ask the clock.
pub(crate) fn unstable_functions(plan: &LogicalPlan, timed: bool) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut visit = |expr: &Expr| {
        let _ = expr.apply(|e| {
            if let Expr::ScalarFunction(f) = e
                && f.func.signature().volatility != Volatility::Immutable
            {
                names.insert(f.func.name().to_string());
            }
            Ok(TreeNodeRecursion::Continue)
        });
    };
    let _ = plan.apply_with_subqueries(|node| {
        if let (true, LogicalPlan::Filter(filter)) = (timed, node) {
            split_conjunction(&filter.predicate)
                .into_iter()
                .filter(|e| temporal::bounds(e, filter.input.schema()).is_none())
                .for_each(&mut visit);
            return Ok(TreeNodeRecursion::Continue);
        }
        node.apply_expressions(|e| {
            visit(e);
            Ok(TreeNodeRecursion::Continue)
        })
    });
    names
}

/// The error for a view that asks the clock, or dice.
pub(crate) fn unstable_in_view(name: &str) -> Fault {
    let clock = ["now", "current_date", "current_time"].contains(&name);
    let fault = Fault::new(
        "not-a-function-of-its-inputs",
        format!("`{name}()` gives another value at each call, so the rows of a view that uses it could never be right"),
    );
    fault.hint(if clock {
        "in WHERE it may bound rows in time: `ts > now() - interval '1 hour'` (months with current_date: they differ in length); elsewhere include processing_time in the source and use that column, or compute it in a streaming_table, where each row asks once"
    } else {
        "compute it in a streaming_table, where each row asks once, or derive it from the row: md5(…)"
    })
}

/// The error for a view that asks the clock and is recomputed as a whole.
pub(crate) fn untimed(fallback: &Fallback) -> Fault {
    Fault::new(
        "clock-in-full-refresh",
        format!("rows of this view expire with the clock, and it cannot be maintained: {fallback}"),
    )
    .hint("put the condition on the clock into a materialized_view of its own, and read that here")
}

/// What the streamed input of a streaming table is.
pub(crate) struct Streamed {
    pub slot: usize,
    pub changes: ChangeKind,
}

/// Whether the tree can run as a stream: each row of the streamed input once, against the other inputs as they are.
pub(crate) fn streamable(tree: &Result<Node, Fallback>, streamed: &Streamed) -> Result<(), Fault> {
    let node = match tree {
        Ok(node) => node,
        Err(fallback) => {
            return Err(Fault::new(
                "not-a-stream",
                format!("{} cannot be applied to one row of a stream at a time", fallback.operator),
            )
            .hint("make the model a materialized_view (its query is then kept right under every change), or move this part into one downstream"));
        }
    };
    stream_node(node, streamed).map(|_| ())
}

/// Whether the stream is below `node`; an error when something on its way cannot take it.
fn stream_node(node: &Node, streamed: &Streamed) -> Result<bool, Fault> {
    let downstream = "make the model a materialized_view, or move this part into one that reads it; windows may be written once with `emit: on_close`";
    match node {
        Node::Input { slot, .. } => Ok(*slot == streamed.slot),
        Node::Constant { .. } => Ok(false),
        Node::Project { input, .. } | Node::Filter { input, .. } | Node::Arranged { input, .. } => {
            stream_node(input, streamed)
        }
        Node::Shared { node, .. } => stream_node(node, streamed),
        Node::Unnest { input, .. } => {
            let below = stream_node(input, streamed)?;
            if below && matches!(streamed.changes, ChangeKind::Keyed(_)) {
                return Err(Fault::new(
                    "not-a-stream",
                    "UNNEST makes several rows of one, and the table of a keyed changelog holds one row per key",
                )
                .hint("keep the list here, and unnest it in a materialized_view that reads this table"));
            }
            Ok(below)
        }
        Node::Union { inputs, .. } => {
            let mut below = false;
            for input in inputs {
                below |= stream_node(input, streamed)?;
            }
            Ok(below)
        }
        Node::Join { base, arms, .. } => {
            if streamed.changes == ChangeKind::Signed && stream_node(base, streamed)? {
                return Err(Fault::new(
                    "not-a-stream",
                    "a retraction would meet the dimension as it is then, not the row that was written",
                )
                .hint("join in a materialized_view that reads this table"));
            }
            for arm in arms {
                if base.streams(streamed.slot) && arm.input.streams(streamed.slot) {
                    let message = "a subquery that refers to a row of a stream, or a join of a stream with itself, reads the stream a second time";
                    return Err(Fault::new("not-a-stream", message)
                        .hint("use functions of the row (array_length, array_has, map_keys, …), or move this part into a materialized_view that reads this table"));
                }
                if stream_node(&arm.input, streamed)? {
                    return Err(Fault::new("not-a-stream", "the streamed input must stand first in its joins")
                        .hint("write `from STREAM x [left] join dimension on …`: a dimension's row may meet many of the stream, not the other way round"));
                }
            }
            stream_node(base, streamed)
        }
        Node::Aggregate { input, group, aggregates, .. } => {
            let below = stream_node(input, streamed)?;
            if !below {
                return Ok(false);
            }
            let what = if aggregates.is_empty() && !group.is_empty() { "DISTINCT" } else { "GROUP BY" };
            Err(Fault::new("not-a-stream", format!("{what} over a stream would have to change rows already written"))
                .hint(downstream))
        }
        Node::Window { input, .. } => {
            if !stream_node(input, streamed)? {
                return Ok(false);
            }
            let message = "a window function or LIMIT over a stream would have to change rows already written";
            Err(Fault::new("not-a-stream", message).hint(downstream))
        }
        Node::Session { input, .. } => {
            if !stream_node(input, streamed)? {
                return Ok(false);
            }
            let message = "a row of a stream can make a session longer, or one of two, and would have to change rows already written";
            Err(Fault::new("not-a-stream", message).hint(downstream))
        }
        Node::First { input, .. } => {
            let below = stream_node(input, streamed)?;
            if below && streamed.changes != ChangeKind::Append {
                return Err(
                    Fault::new("not-a-stream", "the first row per key of a changelog may change").hint(downstream)
                );
            }
            Ok(below)
        }
        Node::Temporal { input, .. } => stream_node(input, streamed),
    }
}

/// A streaming table over a keyed changelog holds one row per key, so the key is among its columns, unchanged.
pub(crate) fn keeps_key(node: &Node, schema: &Schema, streamed: &Streamed, input: &Input) -> Result<(), Fault> {
    let ChangeKind::Keyed(key) = &streamed.changes else { return Ok(()) };
    for name in key {
        let same = |f: &FieldRef| f.name().eq_ignore_ascii_case(name);
        let kept = match (schema.fields().iter().position(same), input.schema.fields().iter().position(same)) {
            (Some(out), Some(column)) => source_column(node, out) == Some((streamed.slot, column)),
            _ => false,
        };
        if !kept {
            let message = format!(
                "`{name}` is part of the key of `{}`, and the query does not select it as it is",
                input.relation
            );
            return Err(Fault::new("key-not-selected", message)
                .hint(format!("select `{name}` under its own name: the table holds one row per key")));
        }
    }
    Ok(())
}

/// The input column that output `column` of `node` is a plain copy of.
fn source_column(node: &Node, column: usize) -> Option<(usize, usize)> {
    match node {
        Node::Input { slot, columns, .. } => columns.get(column).map(|c| (*slot, *c)),
        Node::Project { input, exprs, .. } => match exprs.get(column)? {
            Expr::Column(c) => source_column(input, input.schema().maybe_index_of_column(c)?),
            _ => None,
        },
        Node::Filter { input, .. } | Node::First { input, .. } | Node::Temporal { input, .. } => {
            source_column(input, column)
        }
        Node::Shared { node, .. } => source_column(node, column),
        Node::Window { input, .. } | Node::Session { input, .. } if column < input.schema().fields().len() => {
            source_column(input, column)
        }
        Node::Join { base, .. } if column < base.schema().fields().len() => source_column(base, column),
        _ => None,
    }
}

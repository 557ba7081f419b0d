//! Groups of sessions, so that a longer session does not change all its rows.
//!
//! `group by key, window_start, window_end` over sessions by `key`: each row that extends a session would change `window_end` with all of its
//! rows. But a session is known by its key and its start, and its end is the maximum of what any of its rows say. So the rows are grouped by key
//! and start, the session node says the end with one row of each session ([`SessionEnd::Last`]), and the maximum of that is the end of the group. It is
//! exact where a group consists of whole sessions, so what rows are filtered and grouped by is of the session alone: its keys and its start.

use arrow::datatypes::Field;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::functions_aggregate::min_max::max_udaf;
use datafusion::logical_expr::{Expr, ExprSchemable};
use std::sync::Arc;

use super::incremental::{Aggregate, AggregateClass, Node, SessionEnd};
use super::lower::{columns_of, substitute, unaliased};

/// The end of a group's sessions.
const END: &str = "__last_session_end";

/// `root` with groups of sessions by their starts.
pub(super) fn compact(mut root: Node) -> Node {
    rewrite(&mut root);
    root
}

fn rewrite(node: &mut Node) {
    node.below_mut().into_iter().for_each(rewrite);
    if let Some(compacted) = compacted(node) {
        *node = compacted;
    }
}

fn compacted(node: &Node) -> Option<Node> {
    let Node::Aggregate { input, group, sets, aggregates, bucket: None, schema } = node else { return None };
    if !sets.is_empty() {
        return None;
    }
    let calls = aggregates.iter().map(|a| &a.call);
    let (session, conditions, exprs) = over_session(input, group.iter().chain(calls))?;
    let (groups, calls) = exprs.split_at(group.len());
    if !conditions.iter().all(|e| session.is_whole(e)) {
        return None;
    }
    let is_end = |e: &Expr| matches!(e, Expr::Column(c) if session.place(c) == Some(session.start + 1));
    let is_start = |e: &Expr| matches!(e, Expr::Column(c) if session.place(c) == Some(session.start));
    let end = groups.iter().position(is_end);
    if !groups.iter().all(|e| is_end(e) || session.is_whole(e)) {
        return None;
    }
    if end.is_some() && !(groups.iter().any(is_start) && session.partition.iter().all(|key| groups.contains(key))) {
        return None;
    }
    let keeps = |(aggregate, call): (&Aggregate, &Expr)| {
        let maximum = match call {
            Expr::AggregateFunction(f) => aggregate.filter.is_none() && f.params.args.first().is_some_and(is_end),
            _ => false,
        };
        (aggregate.class == AggregateClass::Max && maximum) || !mentions(call, &is_end)
    };
    if !aggregates.iter().zip(calls).all(keeps) {
        return None;
    }
    let mut below = input.as_ref().clone();
    say_last(&mut below)?;
    let Some(end) = end else {
        return Some(Node::Aggregate {
            input: Box::new(below),
            group: group.clone(),
            sets: vec![],
            aggregates: aggregates.clone(),
            bucket: None,
            schema: Arc::clone(schema),
        });
    };
    // The group's columns but the ends, the aggregates, the end.
    let kept = |i: &usize| !groups.get(*i).is_some_and(is_end);
    let width = schema.fields().len();
    let mut fields: Vec<_> = schema.iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).enumerate().collect();
    fields.retain(|(i, _)| kept(i));
    let mut fields: Vec<_> = fields.into_iter().map(|(_, field)| field).collect();
    let data_type = group[end].get_type(input.schema()).ok()?;
    fields.push((None, Arc::new(Field::new(END, data_type, true))));
    let inner = Arc::new(DFSchema::new_with_metadata(fields, Default::default()).ok()?);
    let mut aggregates = aggregates.clone();
    aggregates.push(Aggregate {
        class: AggregateClass::Max,
        distinct: false,
        append_only: false,
        call: max_udaf().call(vec![group[end].clone()]),
        args: vec![group[end].clone()],
        filter: None,
    });
    let by = group.iter().enumerate().filter(|(i, _)| kept(i)).map(|(_, e)| e.clone()).collect();
    let grouped =
        Node::Aggregate { input: Box::new(below), group: by, sets: vec![], aggregates, bucket: None, schema: inner };
    let of_session = Expr::Column(Column::new_unqualified(END));
    let columns = columns_of(schema);
    let exprs = (0..width).map(|i| if kept(&i) { columns[i].clone() } else { of_session.clone() }).collect();
    Some(Node::Project { input: Box::new(grouped), exprs, schema: Arc::clone(schema) })
}

/// A session node that says the end with each row.
struct Session<'a> {
    partition: &'a [Expr],
    schema: &'a DFSchema,
    /// The column of its start; that of the end is the next one.
    start: usize,
}

impl Session<'_> {
    fn place(&self, column: &Column) -> Option<usize> {
        self.schema.maybe_index_of_column(column)
    }

    /// Whether `expr` has one value for all rows of a session.
    fn is_whole(&self, expr: &Expr) -> bool {
        let mut whole = !expr.is_volatile();
        let visited = expr.apply(|e| {
            Ok(match e {
                e if self.partition.contains(e) => TreeNodeRecursion::Jump,
                Expr::Column(c) if self.place(c) != Some(self.start) => {
                    whole = false;
                    TreeNodeRecursion::Stop
                }
                _ => TreeNodeRecursion::Continue,
            })
        });
        whole && visited.is_ok()
    }
}

/// The session node below projections and filters; these conditions, and `exprs`, over its output.
fn over_session<'a>(
    node: &'a Node,
    exprs: impl Iterator<Item = &'a Expr>,
) -> Option<(Session<'a>, Vec<Expr>, Vec<Expr>)> {
    let mut exprs: Vec<Expr> = exprs.map(unaliased).collect();
    let mut conditions: Vec<Expr> = Vec::new();
    let mut at = node;
    loop {
        match at {
            Node::Project { input, exprs: made, schema } => {
                let below = |e: &Expr| substitute(e.clone(), schema, made).map(|e| unaliased(&e)).ok();
                exprs = exprs.iter().map(below).collect::<Option<_>>()?;
                conditions = conditions.iter().map(below).collect::<Option<_>>()?;
                at = input;
            }
            Node::Filter { input, predicate } => {
                conditions.push(predicate.clone());
                at = input;
            }
            Node::Session { input, partition, ends: SessionEnd::Each, schema, .. } => {
                let start = input.schema().fields().len();
                return Some((Session { partition, schema, start }, conditions, exprs));
            }
            _ => return None,
        }
    }
}

fn mentions(expr: &Expr, is_it: &impl Fn(&Expr) -> bool) -> bool {
    expr.exists(|e| Ok(is_it(e))).unwrap_or(true)
}

/// The session node below projections and filters says the end once.
fn say_last(node: &mut Node) -> Option<()> {
    match node {
        Node::Project { input, .. } | Node::Filter { input, .. } => say_last(input),
        Node::Session { ends, .. } => {
            *ends = SessionEnd::Last;
            Some(())
        }
        _ => None,
    }
}

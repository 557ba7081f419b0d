//! What state an incremental plan keeps, as one number: stored state serves a plan of the same shape only.
//!
//! The fingerprint of a model's SQL survives upgrades of DataFusion, and so do its tables; state does not have to, and an optimiser that
//! splits a query otherwise keeps other things in other nodes. So this hashes the plan itself: nodes, expressions, types.

use datafusion::logical_expr::{Expr, SortExpr};
use std::fmt::Write;
use xxhash_rust::xxh3::xxh3_128;

use super::forgetting;
use super::incremental::{ArmKind, Bucket, Node};

/// 32 hex digits.
pub fn shape(plan: &Node) -> String {
    let mut text = String::new();
    write(plan, &mut text);
    format!("{:032x}", xxh3_128(text.as_bytes()))
}

fn exprs<'a>(exprs: impl IntoIterator<Item = &'a Expr>) -> String {
    exprs.into_iter().map(|e| format!("{e}")).collect::<Vec<_>>().join("; ")
}

fn orders(orders: &[SortExpr]) -> String {
    orders.iter().map(|o| format!("{o}")).collect::<Vec<_>>().join("; ")
}

fn write(plan: &Node, out: &mut String) {
    // Writing to a text cannot fail.
    let _ = match plan {
        // Who keeps its rows, too, is no matter of its own; what others need of them is.
        Node::Arranged { input, shown, .. } if shown.iter().copied().eq(0..input.schema().fields().len()) => {
            return write(input, out);
        }
        Node::Arranged { shown, .. } => write!(out, "kept with more {shown:?}"),
        // Its state is kept once, by number.
        Node::Shared { id, .. } => write!(out, "shared {id}"),
        Node::Input { slot, columns, append_only, .. } => {
            // Operators keep less of rows that stay.
            write!(out, "input {slot} {columns:?}{}", if *append_only { " append-only" } else { "" })
        }
        Node::Constant { rows, .. } => write!(out, "constant {rows:?}"),
        Node::Project { exprs: list, .. } => write!(out, "project {}", exprs(list)),
        Node::Filter { predicate, .. } => write!(out, "filter {predicate}"),
        Node::Union { .. } => write!(out, "union"),
        Node::Unnest { lists, structs, nulls, .. } => write!(out, "unnest {lists:?} {structs:?} {nulls:?}"),
        Node::Join { arms, .. } => {
            let mut text = String::from("join");
            for arm in arms {
                let on = arm.on.iter().map(|(l, r)| format!("{l} = {r}")).collect::<Vec<_>>().join("; ");
                let residual = arm.residual.as_ref().map(ToString::to_string).unwrap_or_default();
                // Matches are counted where they are no matter of the key alone.
                let counted = if arm.residual.is_some() && arm.kind != ArmKind::Inner { " counted" } else { "" };
                let _ = write!(text, " [{:?} {:?} on {on} and {residual}{counted}]", arm.kind, arm.null_equality);
            }
            write!(out, "{text}")
        }
        Node::Aggregate { group, sets, aggregates, bucket, .. } => {
            let calls = aggregates.iter().map(|a| {
                let filter = a.filter.as_ref().map(ToString::to_string).unwrap_or_default();
                let running = if a.is_running() { " running" } else { "" };
                let distinct = if a.distinct { " distinct" } else { "" };
                format!("{:?}{running}{distinct} {} ({}) {filter}", a.class, a.call, exprs(&a.args))
            });
            let sets = sets.iter().map(|set| format!(" {}", set.number)).collect::<String>();
            let forgets = forgets(bucket);
            write!(out, "aggregate by {}{sets}{forgets}: {}", exprs(group), calls.collect::<Vec<_>>().join("; "))
        }
        Node::Temporal { bounds, role, .. } => write!(out, "temporal {role:?} {bounds:?}"),
        Node::Session { partition, time, gap, ends, closes, bucket, .. } => {
            let (forgets, closes) = (forgets(bucket), closes.is_some());
            write!(out, "session by {} at {time} {gap:?} {ends:?} {closes}{forgets}", exprs(partition))
        }
        Node::First { partition, order, bucket, .. } => {
            write!(out, "first by {} order {}{}", exprs(partition), orders(order), forgets(bucket))
        }
        Node::Window { partition, order, calls, visible, bucket, .. } => {
            let visible = visible.map(|v| format!(" {:?} <= {}", v.rank, v.most)).unwrap_or_default();
            let forgets = forgets(bucket);
            write!(out, "window {} by {} order {}{visible}{forgets}", exprs(calls), exprs(partition), orders(order))
        }
    };
    for field in plan.schema().fields() {
        let _ = write!(out, " |{} {}", field.name(), field.data_type());
    }
    out.push_str(" (");
    for node in plan.below() {
        write(node, out);
        out.push(',');
    }
    out.push(')');
}

fn forgets(bucket: &Option<Box<Bucket>>) -> String {
    bucket.as_ref().map(|b| format!(" forgetting by {}", forgetting::text(b))).unwrap_or_default()
}

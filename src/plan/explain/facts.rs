//! What is known of a node before it runs: whether what it gives out is ever retracted, its key, and what its state grows with.

use super::{by, list};
use crate::plan::incremental::{Aggregate, AggregateClass, Arm, Node, TemporalRole};

/// Of stateful nodes all of it; of the others whether rows are retracted. None of what says so itself.
pub(super) fn facts(node: &Node, stream: Option<usize>) -> Option<String> {
    let output = match (stream, node.is_append_only()) {
        (Some(_), _) => "each row once",
        (None, true) => "append-only",
        (None, false) => "may retract",
    };
    let only_grows = |node: &Node| stream.is_none() && node.is_append_only() && !node.is_timed();
    let (key, state) = match node {
        Node::Input { .. } | Node::Constant { .. } | Node::Shared { .. } | Node::Arranged { .. } => return None,
        Node::Project { .. } | Node::Filter { .. } | Node::Union { .. } | Node::Unnest { .. } => {
            return Some(format!("output {output}"));
        }
        Node::Aggregate { group, sets, bucket: Some(_), .. } => {
            (by(group, sets), "the watermark: what has come since, and the groups of late rows".to_string())
        }
        Node::Aggregate { group, sets, .. } if node.of_session().is_some() => {
            (by(group, sets), OPEN_SESSIONS.to_string())
        }
        Node::Aggregate { input, group, sets, aggregates, .. } => {
            let keeps_rows = aggregates.iter().any(keeps_values);
            let bound = match (group.is_empty(), keeps_rows) {
                (true, false) => "one entry".to_string(),
                (_, true) => grows("the values of its input", only_grows(input)),
                (false, false) => grows("the keys its input holds", only_grows(input)),
            };
            (by(group, sets), bound)
        }
        Node::First { partition, bucket: Some(_), .. } | Node::Window { partition, bucket: Some(_), .. } => {
            (keys(&list(partition)), "the watermark: what has come since, and the buckets of late rows".to_string())
        }
        Node::First { partition, .. } | Node::Window { partition, .. } if node.of_session().is_some() => {
            (keys(&list(partition)), OPEN_SESSIONS.to_string())
        }
        Node::First { input, partition, .. } => {
            let what = match (stream, only_grows(input)) {
                (None, false) => "the rows of its input",
                _ => "the keys its input holds",
            };
            (keys(&list(partition)), grows(what, only_grows(input) || stream.is_some()))
        }
        Node::Window { partition, visible: Some(visible), .. } if node.forgets_hidden_rows() => {
            (keys(&list(partition)), format!("{} rows of each key", visible.most))
        }
        Node::Session { closes: Some(_), .. } => {
            return Some(format!("output {output}; state bounded by the watermark"));
        }
        Node::Session { partition, bucket: Some(_), .. } => (keys(&list(partition)), OPEN_SESSIONS.to_string()),
        Node::Session { input, partition, .. } => {
            (keys(&list(partition)), grows("the rows of its input", only_grows(input)))
        }
        Node::Window { input, partition, .. } => {
            (keys(&list(partition)), grows("the rows of its input", only_grows(input)))
        }
        Node::Temporal { role: TemporalRole::Late, .. } => return Some(format!("output {output}")),
        Node::Temporal { role, .. } => {
            let by = if *role == TemporalRole::Filter { "clock" } else { "watermark" };
            return Some(format!("output {output}; state bounded by the {by}"));
        }
        Node::Join { base, arms, .. } => {
            let growing = arms.iter().any(|arm| only_grows(&arm.input)) || only_grows(base);
            let key = arms.iter().map(arm_key).collect::<Vec<_>>().join("; ");
            let what = match stream.is_some_and(|slot| base.streams(slot)) {
                true => "the rows of its dimensions",
                false => "the rows of its inputs",
            };
            (key, grows(what, growing))
        }
    };
    Some(format!("output {output}; key {key}; state bounded by {state}"))
}

/// What bounds the state of sessions that are forgotten.
const OPEN_SESSIONS: &str = "the watermark: open sessions, and those of late rows";

fn keys(list: &str) -> String {
    if list.is_empty() { "none: all rows".to_string() } else { list.to_string() }
}

/// What bounds a state; `growing`: nothing does, in the long run.
fn grows(what: &str, growing: bool) -> String {
    match growing {
        false => what.to_string(),
        true => format!(
            "{what}, and that only grows: a condition on the clock below it (`ts > now() - interval '…'`) would end it"
        ),
    }
}

/// The arm's side of its equal pairs.
fn arm_key(arm: &Arm) -> String {
    let on: Vec<String> = arm.on.iter().map(|(_, right)| right.to_string()).collect();
    on.join(", ")
}

/// Whether an aggregate keeps values or rows, not only counts and sums.
fn keeps_values(aggregate: &Aggregate) -> bool {
    use AggregateClass as Class;
    let ordered =
        matches!(aggregate.class, Class::Min | Class::Max | Class::Place(_) | Class::Quantile(_) | Class::Recompute);
    (ordered && !aggregate.is_running()) || aggregate.distinct
}

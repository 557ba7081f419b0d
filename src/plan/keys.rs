//! Columns of which no two rows of a node are equal, as far as a plan shows them: groups, first rows per key, declared keys.
//!
//! What is not found costs a worse order of joins ([`super::join_order`]), nothing else.

use arrow::datatypes::Schema;
use datafusion::logical_expr::Expr;
use std::collections::BTreeSet;

use super::incremental::{Arm, ArmKind, Node, Rank, TemporalRole, Visible};
use super::relation::Input;
use crate::types::ChangeKind;

/// Places of columns.
pub(super) type Key = BTreeSet<usize>;

/// The keys of `node`'s rows; an empty one says that there is at most one row.
pub(super) fn unique(node: &Node, inputs: &[Input]) -> Vec<Key> {
    match node {
        Node::Input { slot, columns, .. } => {
            let declared = inputs.get(*slot).map_or(&[][..], |input| &input.unique);
            let place = |column: &usize| columns.iter().position(|of| of == column);
            declared.iter().filter_map(|key| key.iter().map(place).collect()).collect()
        }
        Node::Constant { rows, .. } => {
            let count: usize = rows.iter().map(arrow::array::RecordBatch::num_rows).sum();
            if count > 1 { vec![] } else { vec![Key::new()] }
        }
        Node::Project { input, exprs, .. } => {
            let shown = exprs.iter().map(|e| column(e, input)).collect::<Vec<_>>();
            let place = |column: &usize| shown.iter().position(|of| *of == Some(*column));
            let keys = unique(input, inputs);
            keys.iter().filter_map(|key| key.iter().map(place).collect()).collect()
        }
        Node::Filter { input, .. }
        | Node::Session { input, .. }
        | Node::Temporal { input, role: TemporalRole::Filter, .. } => unique(input, inputs),
        Node::Aggregate { group, sets, .. } if sets.is_empty() => vec![(0..group.len()).collect()],
        Node::First { input, partition, .. } => one_more(unique(input, inputs), partition, input),
        Node::Window { input, partition, visible: Some(Visible { rank: Rank::RowNumber, most: 1 }), .. } => {
            one_more(unique(input, inputs), partition, input)
        }
        Node::Window { input, .. } => unique(input, inputs),
        Node::Join { base, arms, .. } if !arms.iter().any(|arm| multiplies(arm, inputs)) => unique(base, inputs),
        Node::Shared { node, .. } => unique(node, inputs),
        Node::Join { .. }
        | Node::Aggregate { .. }
        | Node::Temporal { .. }
        | Node::Union { .. }
        | Node::Unnest { .. }
        | Node::Arranged { .. } => vec![],
    }
}

fn one_more(mut keys: Vec<Key>, partition: &[Expr], input: &Node) -> Vec<Key> {
    keys.extend(partition.iter().map(|e| column(e, input)).collect::<Option<Key>>());
    keys
}

/// The keys of the table that holds what `node` gives out.
pub(super) fn of_table(node: &Node, inputs: &[Input]) -> Vec<Vec<usize>> {
    unique(node, inputs).into_iter().map(|key| key.into_iter().collect()).collect()
}

/// The key that a changelog goes by, where `schema` has it.
pub(super) fn declared(changes: &ChangeKind, schema: &Schema) -> Vec<Vec<usize>> {
    match changes {
        ChangeKind::Keyed(key) => named(key, schema),
        ChangeKind::Append | ChangeKind::Signed => vec![],
    }
}

/// The key of these columns.
pub(super) fn named(key: &[String], schema: &Schema) -> Vec<Vec<usize>> {
    let place = |name: &String| schema.fields().iter().position(|field| field.name().eq_ignore_ascii_case(name));
    key.iter().map(place).collect::<Option<_>>().into_iter().collect()
}

/// The column of `node`'s rows that an expression is.
pub(super) fn column(expr: &Expr, node: &Node) -> Option<usize> {
    match expr {
        Expr::Column(column) => node.schema().maybe_index_of_column(column),
        _ => None,
    }
}

/// Whether rows of `node` that agree in what `by` gives are one row.
pub(super) fn is_unique<'a>(node: &Node, by: impl Iterator<Item = &'a Expr>, inputs: &[Input]) -> bool {
    let columns: Key = by.filter_map(|e| column(e, node)).collect();
    unique(node, inputs).iter().any(|key| key.is_subset(&columns))
}

/// Whether a base row may appear more than once because of the arm.
pub(super) fn multiplies(arm: &Arm, inputs: &[Input]) -> bool {
    matches!(arm.kind, ArmKind::Inner | ArmKind::Left)
        && !is_unique(&arm.input, arm.on.iter().map(|(_, of_arm)| of_arm), inputs)
}

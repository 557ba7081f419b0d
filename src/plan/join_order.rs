//! In which order the arms of a join are looked up: those that drop rows first, those that multiply them last.
//!
//! A base row appears with the matches of all arms, whatever their order; each arm is asked for what the ones before it have left ([`super::incremental::Node::Join`]).
//! What counts is what the plan knows: keys ([`super::keys`]) and filters, never how many rows there are, so that the same project has the same
//! plan at every start, which stored state depends on. What nothing tells apart stays as it is written. Which joins become one node, and which comes first
//! where they do not, is `lower::chain`'s.

use datafusion::common::{DFSchema, DataFusionError};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Operator};
use std::sync::Arc;

use super::incremental::{Arm, ArmKind, Node, TemporalRole};
use super::keys::{is_unique, multiplies};
use super::relation::Input;

/// `root` with the arms of every join in their order.
pub(super) fn ordered(mut root: Node, inputs: &[Input]) -> Node {
    order(&mut root, inputs, false);
    root
}

/// `by_name`: what reads `node` names its columns.
fn order(node: &mut Node, inputs: &[Input], by_name: bool) {
    let names = match node {
        Node::Project { .. } => true,
        Node::Filter { .. } => by_name,
        _ => false,
    };
    node.below_mut().into_iter().for_each(|below| order(below, inputs, names));
    let Node::Join { base, arms, schema } = node else { return };
    let ranks: Vec<Rank> = arms.iter().map(|arm| rank(arm, inputs)).collect();
    let mut places: Vec<usize> = (0..arms.len()).collect();
    places.sort_by_key(|at| ranks[*at]);
    if places.is_sorted() {
        return;
    }
    let written = Arc::clone(schema);
    let Ok(moved) = reordered(base.schema().fields().len(), arms, &places, schema) else { return };
    let arms = places.iter().map(|at| arms[*at].clone()).collect();
    let join = Node::Join { base: base.clone(), arms, schema: Arc::new(moved) };
    *node = match by_name {
        true => join,
        false => {
            let exprs = written.columns().into_iter().map(Expr::Column).collect();
            Node::Project { input: Box::new(join), exprs, schema: written }
        }
    };
}

/// The schema of a join whose arms stand in the order of `places`.
fn reordered(base: usize, arms: &[Arm], places: &[usize], schema: &DFSchema) -> Result<DFSchema, DataFusionError> {
    let mut start = base;
    let mut columns: Vec<std::ops::Range<usize>> = Vec::with_capacity(arms.len());
    for arm in arms {
        columns.push(start..start + arm.shown());
        start += arm.shown();
    }
    let all = (0..base).chain(places.iter().flat_map(|at| columns[*at].clone()));
    let fields = all.map(|at| {
        let (qualifier, field) = schema.qualified_field(at);
        (qualifier.cloned(), Arc::clone(field))
    });
    DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())
}

/// What an arm does to the number of rows, the fewest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// EXISTS, IN and their opposites: rows stay or go.
    Asks,
    /// One row at most, of those that pass a filter.
    FilteredRow,
    /// One row at most.
    Row,
    /// The row stays, with one other at most.
    Beside,
    /// Any number of rows, of those that pass a filter.
    Filtered,
    Rows,
    /// The same, and the row stays without any.
    RowsBeside,
    /// Every row is compared with every other.
    Compares,
    /// Every row with every other.
    Crosses,
}

fn rank(arm: &Arm, inputs: &[Input]) -> Rank {
    let equal = arm.on.iter().any(|(l, r)| !l.column_refs().is_empty() && !r.column_refs().is_empty());
    let single = !multiplies(arm, inputs);
    let asks = matches!(arm.kind, ArmKind::Semi | ArmKind::Anti | ArmKind::NotIn);
    match (arm.kind, &arm.residual) {
        // One row is compared with every other, or whether there is a row at all is asked.
        _ if !equal && arm.residual.is_some() && !(single && !asks && arm.kind != ArmKind::Mark) => Rank::Compares,
        (ArmKind::Semi | ArmKind::Anti | ArmKind::NotIn, _) => Rank::Asks,
        (ArmKind::Mark, _) => Rank::Beside,
        (ArmKind::Left, _) if single => Rank::Beside,
        (ArmKind::Inner, _) if single && is_filtered(&arm.input) => Rank::FilteredRow,
        (ArmKind::Inner, _) if single => Rank::Row,
        _ if !equal => Rank::Crosses,
        (ArmKind::Inner, _) if is_filtered(&arm.input) => Rank::Filtered,
        (ArmKind::Inner, _) => Rank::Rows,
        (ArmKind::Left, _) => Rank::RowsBeside,
    }
}

/// Whether only some of the rows there are come out of `node`.
pub(super) fn is_filtered(node: &Node) -> bool {
    match node {
        Node::Filter { input, predicate } => {
            split_conjunction(predicate).into_iter().any(selects) || is_filtered(input)
        }
        Node::Temporal { role: TemporalRole::Filter, .. } => true,
        Node::Project { input, .. }
        | Node::Aggregate { input, .. }
        | Node::First { input, .. }
        | Node::Window { input, .. }
        | Node::Session { input, .. }
        | Node::Temporal { input, .. }
        | Node::Arranged { input, .. } => is_filtered(input),
        Node::Shared { node, .. } => is_filtered(node),
        Node::Join { base, arms, .. } => {
            let drops = |arm: &Arm| matches!(arm.kind, ArmKind::Semi | ArmKind::Inner) && is_filtered(&arm.input);
            is_filtered(base) || arms.iter().any(drops)
        }
        Node::Input { .. } | Node::Constant { .. } | Node::Union { .. } | Node::Unnest { .. } => false,
    }
}

/// Whether a condition says what rows are rather than what they are not.
fn selects(condition: &Expr) -> bool {
    match condition {
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::Or => selects(&binary.left) && selects(&binary.right),
            Operator::Eq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => true,
            _ => false,
        },
        Expr::InList(list) => !list.negated,
        Expr::Between(between) => !between.negated,
        Expr::Like(like) => !like.negated,
        Expr::IsNull(_) | Expr::Column(_) => true,
        _ => false,
    }
}

/// Where a relation may stand among others that are joined to a chain, the first ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// It is found by an equality, drops rows, and is one more arm of the same node.
    Drops,
    /// It is found by a key: no row becomes two.
    Found,
    /// It is found by an equality.
    Joined,
    /// It is compared.
    Compared,
    Crossed,
}

impl Turn {
    /// Of a relation that is found `by` these expressions, if by any. `extends`: it would be one more arm of the node as it is.
    pub fn of<'a>(
        relation: &Node,
        by: impl ExactSizeIterator<Item = &'a Expr>,
        extends: bool,
        compared: bool,
        inputs: &[Input],
    ) -> Turn {
        match (by.len(), compared) {
            (0, true) => Turn::Compared,
            (0, false) => Turn::Crossed,
            _ if extends && is_filtered(relation) => Turn::Drops,
            _ if is_unique(relation, by, inputs) => Turn::Found,
            _ => Turn::Joined,
        }
    }
}

//! Joins: chains of joins become one [`Node::Join`] of a base and its arms.
//!
//! `((f ⋈ a) ⋈ b) ⋈ c` is one node when every arm's condition looks at `f` and that arm only: then each input is kept once.
//! The optimizer puts projections and filters between the joins; they are lifted above the node, which is sound because the
//! left side of these joins is the side whose rows are kept or dropped whole. An arm whose condition looks at
//! another arm (`a.city = b.city`) starts a node of its own, with the chain so far as its base. In which order inner joins are put is [`super::chain`]'s, in
//! which order the arms of a node stand is [`crate::plan::join_order`]'s. A full join is a left join and, for the
//! right side's other rows, an anti join.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, JoinType, ScalarValue};
use datafusion::logical_expr::{Expr, Join, lit};
use std::sync::Arc;

use super::{Fallback, Lowering, columns_of, filter_of, no_subquery, project, substitute};
use crate::plan::incremental::{Arm, ArmKind, Node};

impl Lowering<'_> {
    pub(super) fn join(&self, join: &Join) -> Result<Node, Fallback> {
        if let Some(chain) = self.chain(join)? {
            return Ok(chain);
        }
        no_subquery(join.filter.as_slice())?;
        if join.join_type == JoinType::Full {
            return self.full_join(join);
        }
        let (kind, base_is_right) = match join.join_type {
            JoinType::Inner => (ArmKind::Inner, false),
            JoinType::Left => (ArmKind::Left, false),
            JoinType::Right => (ArmKind::Left, true),
            JoinType::LeftSemi => (ArmKind::Semi, false),
            JoinType::RightSemi => (ArmKind::Semi, true),
            JoinType::LeftAnti if join.null_aware => (ArmKind::NotIn, false),
            JoinType::LeftAnti => (ArmKind::Anti, false),
            JoinType::RightAnti if !join.null_aware => (ArmKind::Anti, true),
            JoinType::LeftMark if !join.null_aware => (ArmKind::Mark, false),
            JoinType::RightMark if !join.null_aware => (ArmKind::Mark, true),
            other => {
                return Err(Fallback::new(format!("{other} join"), "NULLs in its keys are told apart by a bulk plan"));
            }
        };
        if kind == ArmKind::NotIn && (join.filter.is_some() || join.on.len() != 1) {
            return Err(Fallback::new("NOT IN", "a correlated one is evaluated by a bulk plan"));
        }
        let (left, right) = (self.plan(&join.left)?, self.plan(&join.right)?);
        let on = join.on.clone();
        let (base, arm, on) = match base_is_right {
            true => (right, left, on.into_iter().map(|(l, r)| (r, l)).collect()),
            false => (left, right, on),
        };
        let arm = arm_of(arm, kind, on, join);
        Ok(project(one_more(base, arm)?, columns_of(&join.schema), Arc::clone(&join.schema))?)
    }

    /// What the left join gives, and the rows of the right side that match nothing.
    fn full_join(&self, join: &Join) -> Result<Node, Fallback> {
        let (left, right) = (self.plan(&join.left)?, self.plan(&join.right)?);
        let mut unmatched: Vec<Expr> = Vec::with_capacity(join.schema.fields().len());
        for field in left.schema().fields() {
            unmatched.push(Expr::Literal(ScalarValue::try_from(field.data_type())?, None));
        }
        unmatched.extend(columns_of(right.schema()));
        let swapped = join.on.iter().map(|(l, r)| (r.clone(), l.clone())).collect();
        let alone = one_more(right.clone(), arm_of(left.clone(), ArmKind::Anti, swapped, join))?;
        let matched = one_more(left, arm_of(right, ArmKind::Left, join.on.clone(), join))?;
        let schema = &join.schema;
        let inputs = vec![
            project(matched, columns_of(schema), Arc::clone(schema))?,
            project(alone, unmatched, Arc::clone(schema))?,
        ];
        Ok(Node::Union { inputs, schema: Arc::clone(schema) })
    }
}

pub(super) fn arm_of(input: Node, kind: ArmKind, on: Vec<(Expr, Expr)>, join: &Join) -> Arm {
    Arm { input, kind, on: equal_to(on), residual: join.filter.clone(), null_equality: join.null_equality }
}

/// These pairs. A join without equality compares every row with every other: one key for all. Scalar subqueries are such joins.
pub(super) fn equal_to(mut on: Vec<(Expr, Expr)>) -> Vec<(Expr, Expr)> {
    if on.is_empty() {
        on.push((lit(1i64), lit(1i64)));
    }
    on
}

/// `base` joined to one arm.
pub(in crate::plan) fn one_more(base: Node, arm: Arm) -> Result<Node, Fallback> {
    if let Some(node) = extend(&base, &arm)? {
        return Ok(node);
    }
    let schema = joined(base.schema(), arm.input.schema(), arm.kind)?;
    Ok(Node::Join { base: Box::new(base), arms: vec![arm], schema: Arc::new(schema) })
}

/// Columns of `base`, then what the arm shows.
pub(in crate::plan) fn joined(base: &DFSchema, arm: &DFSchema, kind: ArmKind) -> Result<DFSchema, DataFusionError> {
    let join_type = match kind {
        ArmKind::Inner => JoinType::Inner,
        ArmKind::Left => JoinType::Left,
        ArmKind::Semi => JoinType::LeftSemi,
        ArmKind::Anti | ArmKind::NotIn => JoinType::LeftAnti,
        ArmKind::Mark => JoinType::LeftMark,
    };
    datafusion::logical_expr::build_join_schema(base, arm, &join_type)
}

/// `left` with one arm more, when it is a chain of joins and the arm looks at its base only. Output: columns of `left`, then of
/// the arm.
fn extend(left: &Node, arm: &Arm) -> Result<Option<Node>, Fallback> {
    let Some(chain) = open(left)? else { return Ok(None) };
    let Node::Join { base, arms, schema } = chain.join else { return Ok(None) };
    let base_columns = base.schema().fields().len();
    let of_base =
        |e: &Expr| e.column_refs().iter().all(|c| schema.maybe_index_of_column(c).is_some_and(|i| i < base_columns));

    let mut on = Vec::with_capacity(arm.on.len());
    for (l, r) in &arm.on {
        let l = substitute(l.clone(), left.schema(), &chain.columns)?;
        if !of_base(&l) {
            return Ok(None);
        }
        on.push((l, r.clone()));
    }
    let arm_schema = arm.input.schema();
    // Two relations under one name would be confused in the widened schema, and by a residual.
    let Ok(widened) = joined(schema, arm_schema, arm.kind) else { return Ok(None) };
    let seen = joined(schema, arm_schema, ArmKind::Inner);
    if widened.check_names().is_err() || seen.is_ok_and(|seen| seen.check_names().is_err()) {
        return Ok(None);
    }
    let residual = match &arm.residual {
        None => None,
        Some(residual) => {
            let mut inside = true;
            let lifted = residual.clone().transform_up(|e| match &e {
                Expr::Column(c) => match left.schema().maybe_index_of_column(c) {
                    Some(i) => {
                        inside &= of_base(&chain.columns[i]);
                        Ok(Transformed::yes(chain.columns[i].clone()))
                    }
                    None => Ok(Transformed::no(e)),
                },
                _ => Ok(Transformed::no(e)),
            })?;
            if !inside {
                return Ok(None);
            }
            Some(lifted.data)
        }
    };
    let mut exprs = chain.columns;
    exprs.extend(columns_of(&widened).split_off(schema.fields().len()));
    let names = joined(left.schema(), arm_schema, arm.kind)?;
    let mut arms = arms.clone();
    arms.push(Arm { input: arm.input.clone(), on, residual, ..*arm });
    let mut node = Node::Join { base: base.clone(), arms, schema: Arc::new(widened) };
    for predicate in chain.filters {
        node = filter_of(node, predicate);
    }
    Ok(Some(project(node, exprs, Arc::new(names))?))
}

/// A chain of joins below projections and filters.
struct Chain<'a> {
    join: &'a Node,
    /// The output's columns, as expressions over the join's.
    columns: Vec<Expr>,
    /// Filters that stand above the join, over its columns.
    filters: Vec<Expr>,
}

fn open(node: &Node) -> Result<Option<Chain<'_>>, Fallback> {
    let mut at = node;
    let mut columns = columns_of(node.schema());
    let mut filters: Vec<Expr> = Vec::new();
    loop {
        match at {
            Node::Project { input, exprs, schema } => {
                columns = columns.into_iter().map(|e| substitute(e, schema, exprs)).collect::<Result<_, _>>()?;
                filters = filters.into_iter().map(|e| substitute(e, schema, exprs)).collect::<Result<_, _>>()?;
                at = input;
            }
            Node::Filter { input, predicate } => {
                filters.insert(0, predicate.clone());
                at = input;
            }
            Node::Join { .. } => return Ok(Some(Chain { join: at, columns, filters })),
            _ => return Ok(None),
        }
    }
}

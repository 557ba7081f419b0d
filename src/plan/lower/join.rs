//! Joins: chains of inner and left equi-joins become one [`Node::Join`] of a base and its arms.
//!
//! `((f ⋈ a) ⋈ b) ⋈ c` is one node when every arm's condition looks at `f` and that arm only: then each input is kept once.
//! The optimizer puts projections and filters between the joins; they are lifted above the node, which is sound because the
//! left side of an inner or left join is the side whose rows are kept or dropped whole. An arm whose condition looks at
//! another arm (`a.city = b.city`) starts a node of its own, with the chain so far as its base.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, JoinType};
use datafusion::logical_expr::{Expr, Join, lit};
use std::sync::Arc;

use super::{Fallback, Lowering, columns_of, filter_of, no_subquery, project, substitute};
use crate::plan::incremental::{Arm, ArmKind, Node};

impl Lowering<'_> {
    pub(super) fn join(&self, join: &Join) -> Result<Node, Fallback> {
        let kind = match join.join_type {
            JoinType::Inner => ArmKind::Inner,
            JoinType::Left | JoinType::Right => ArmKind::Left,
            other => {
                return Err(Fallback::new(format!("{other} join"), "its matches are counted by a bulk plan"));
            }
        };
        no_subquery(join.filter.as_slice())?;
        let mut on = join.on.clone();
        if on.is_empty() {
            // A join without equality compares every row with every other: one key for all. Scalar subqueries are such joins.
            on.push((lit(1i64), lit(1i64)));
        }
        let (left, right) = if join.join_type == JoinType::Right {
            on = on.into_iter().map(|(l, r)| (r, l)).collect();
            (self.plan(&join.right)?, self.plan(&join.left)?)
        } else {
            (self.plan(&join.left)?, self.plan(&join.right)?)
        };
        let names = join.schema.iter().map(|(q, f)| datafusion::common::Column::from((q, f)));
        let wanted: Vec<Expr> = names.map(Expr::Column).collect();
        let arm = Arm { input: right, kind, on, residual: join.filter.clone(), null_equality: join.null_equality };
        let node = match extend(&left, &arm)? {
            Some(node) => node,
            None => {
                let schema = joined(left.schema(), arm.input.schema(), kind)?;
                Node::Join { base: Box::new(left), arms: vec![arm], schema: Arc::new(schema) }
            }
        };
        Ok(project(node, wanted, Arc::clone(&join.schema))?)
    }
}

/// Columns of `left`, then of `right`.
fn joined(left: &DFSchema, right: &DFSchema, kind: ArmKind) -> Result<DFSchema, DataFusionError> {
    let join_type = match kind {
        ArmKind::Inner => JoinType::Inner,
        ArmKind::Left => JoinType::Left,
    };
    datafusion::logical_expr::build_join_schema(left, right, &join_type)
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
    // Two relations under one name would be confused in the widened schema.
    let Ok(widened) = joined(schema, arm_schema, arm.kind) else { return Ok(None) };
    if widened.check_names().is_err() {
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
    exprs.extend(columns_of(arm_schema));
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

//! The order of a chain of inner joins, `((a ⋈ b) ⋈ c) ⋈ d`.
//!
//! 1. The chain is taken apart: relations, equal pairs of two of them, and other conditions.
//! 2. The first relation stays the first, unless nothing is equal to it while others are to each other: rows would be multiplied before any are dropped.
//! 3. The others follow by their [`Turn`]; what nothing tells apart, as it is written. A relation stands behind one that it is found by.
//! 4. One after the other becomes an arm ([`super::join`]), and columns that nothing asks for any more are left out.
//!
//! Inner joins may be put in any order: a row of all relations appears if all conditions hold. A left join among them is a relation as a whole. What is not
//! surely so — a condition over columns of several names, a function that gives something else each time, NULLs that are equal — is left as it is written.

use datafusion::common::{Column, DFSchema, JoinType, NullEquality};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Projection};
use std::collections::BTreeSet;
use std::sync::Arc;

use super::join::{arm_of, equal_to, one_more};
use super::{Fallback, Lowering, columns_of, no_subquery, project, unaliased};
use crate::plan::incremental::{Arm, ArmKind, Node};
use crate::plan::join_order::Turn;

/// A join, and the projections between it and the next one.
struct Level<'a> {
    join: &'a Join,
    above: Vec<&'a Projection>,
}

impl Lowering<'_> {
    /// The chain of inner joins that `join` is the end of; None if there is no order to choose.
    pub(super) fn chain(&self, join: &Join) -> Result<Option<Node>, Fallback> {
        if self.slots.streamed.contains(&true) || !is_inner(join) {
            return Ok(None);
        }
        let levels = levels(join);
        if levels.len() < 2 {
            return Ok(None);
        }
        levels.iter().try_for_each(|level| no_subquery(level.join.filter.as_slice()))?;
        let plans = std::iter::once(&levels[0].join.left).chain(levels.iter().map(|level| &level.join.right));
        let relations = plans.map(|plan| self.plan(plan)).collect::<Result<Vec<_>, _>>()?;
        let chosen = Conditions::of(&levels, &relations).map(|conditions| {
            let order = self.order(&relations, &conditions);
            (conditions, order)
        });
        match chosen {
            Some((conditions, order)) if !order.is_sorted() => {
                Ok(Some(in_order(relations, conditions, &order, &join.schema)?))
            }
            _ => Ok(Some(as_written(relations, &levels)?)),
        }
    }

    /// The relations by their turns.
    fn order(&self, relations: &[Node], conditions: &Conditions) -> Vec<usize> {
        let has_equal = |at: usize| conditions.equal.iter().any(|pair| pair.of[0] == at || pair.of[1] == at);
        let first = (0..relations.len()).find(|at| has_equal(*at)).unwrap_or(0);
        let mut order = vec![first];
        // Relations that the base of the node so far is made of.
        let mut base: BTreeSet<usize> = BTreeSet::from([first]);
        while order.len() < relations.len() {
            let joined: BTreeSet<usize> = order.iter().copied().collect();
            let turn = |at: usize| {
                let pairs: Vec<(usize, &Expr)> = conditions.pairs(at, &joined).map(|(of, _, own)| (of, own)).collect();
                let compared: Vec<&BTreeSet<usize>> = conditions.compared(at, &joined).collect();
                let known = |of: &usize| *of == at || base.contains(of);
                let extends =
                    pairs.iter().all(|(of, _)| base.contains(of)) && compared.iter().all(|of| of.iter().all(known));
                let by = pairs.iter().map(|(_, own)| *own);
                (Turn::of(&relations[at], by, extends, !compared.is_empty(), &self.slots.inputs), extends)
            };
            let left = (0..relations.len()).filter(|at| !joined.contains(at));
            let Some((_, at, extends)) = left.map(|at| (turn(at), at)).map(|((t, e), at)| (t, at, e)).min() else {
                break;
            };
            if !extends {
                base = joined;
            }
            order.push(at);
        }
        order
    }
}

fn is_inner(join: &Join) -> bool {
    join.join_type == JoinType::Inner && join.null_equality == NullEquality::NullEqualsNothing
}

/// The joins of a chain, the innermost first.
fn levels(join: &Join) -> Vec<Level<'_>> {
    let mut levels = vec![Level { join, above: vec![] }];
    loop {
        let mut above: Vec<&Projection> = Vec::new();
        let mut at = levels[levels.len() - 1].join.left.as_ref();
        while let LogicalPlan::Projection(projection) = at
            && projection.expr.iter().zip(projection.schema.columns()).all(|(e, c)| *e == Expr::Column(c))
        {
            above.push(projection);
            at = projection.input.as_ref();
        }
        match at {
            LogicalPlan::Join(join) if is_inner(join) => levels.push(Level { join, above }),
            _ => break,
        }
    }
    levels.reverse();
    levels
}

/// The relations joined as the levels say.
fn as_written(relations: Vec<Node>, levels: &[Level<'_>]) -> Result<Node, Fallback> {
    let mut relations = relations.into_iter();
    let mut node = relations.next().ok_or_else(|| Fallback::new("a join", "it joins nothing"))?;
    for (level, right) in levels.iter().zip(relations) {
        let Level { join, above } = level;
        let arm = arm_of(right, ArmKind::Inner, join.on.clone(), join);
        node = project(one_more(node, arm)?, columns_of(&join.schema), Arc::clone(&join.schema))?;
        for projection in above.iter().rev() {
            let exprs = projection.expr.iter().map(unaliased).collect();
            node = project(node, exprs, Arc::clone(&projection.schema))?;
        }
    }
    Ok(node)
}

/// An expression over each of two relations, which are equal.
struct Pair {
    of: [usize; 2],
    sides: [Expr; 2],
}

/// What holds between relations.
struct Conditions {
    equal: Vec<Pair>,
    /// Other conditions, and the relations they are about.
    others: Vec<(BTreeSet<usize>, Expr)>,
}

impl Conditions {
    /// None where it is not clear which relations a condition is about.
    fn of(levels: &[Level<'_>], relations: &[Node]) -> Option<Self> {
        let mut names: BTreeSet<Column> = BTreeSet::new();
        if !relations.iter().flat_map(|node| node.schema().columns()).all(|column| names.insert(column)) {
            return None;
        }
        let about = |expr: &Expr| -> Option<BTreeSet<usize>> {
            let of = |column: &Column| {
                let mut having = (0..relations.len()).filter(|at| relations[*at].schema().has_column(column));
                having.next().filter(|_| having.next().is_none())
            };
            if expr.is_volatile() { None } else { expr.column_refs().into_iter().map(of).collect() }
        };
        let mut conditions = Conditions { equal: vec![], others: vec![] };
        for join in levels.iter().map(|level| level.join) {
            for (left, right) in &join.on {
                let one = |expr: &Expr| about(expr).filter(|about| about.len() == 1)?.pop_first();
                let of = [one(left)?, one(right)?];
                if of[0] == of[1] {
                    return None;
                }
                conditions.equal.push(Pair { of, sides: [left.clone(), right.clone()] });
            }
            for condition in join.filter.iter().flat_map(split_conjunction) {
                let about = about(condition).filter(|about| !about.is_empty())?;
                conditions.others.push((about, condition.clone()));
            }
        }
        Some(conditions)
    }

    /// Equal pairs of relation `at` and those that are `joined`: which one, its side, and the side of `at`.
    fn pairs<'a>(
        &'a self,
        at: usize,
        joined: &'a BTreeSet<usize>,
    ) -> impl Iterator<Item = (usize, &'a Expr, &'a Expr)> {
        self.equal.iter().filter_map(move |Pair { of: [l, r], sides: [left, right] }| match at {
            at if at == *r && joined.contains(l) => Some((*l, left, right)),
            at if at == *l && joined.contains(r) => Some((*r, right, left)),
            _ => None,
        })
    }

    /// What other conditions are about that can be asked once `at` has come to those that are `joined`, and not before.
    fn compared<'a>(&'a self, at: usize, joined: &'a BTreeSet<usize>) -> impl Iterator<Item = &'a BTreeSet<usize>> {
        let known = move |of: &usize| *of == at || joined.contains(of);
        self.others.iter().map(|(about, _)| about).filter(move |about| about.contains(&at) && about.iter().all(known))
    }
}

/// The relations joined in this order, with the columns of `schema`.
fn in_order(
    relations: Vec<Node>,
    mut conditions: Conditions,
    order: &[usize],
    schema: &Arc<DFSchema>,
) -> Result<Node, Fallback> {
    let mut joined = BTreeSet::from([order[0]]);
    let mut node = relations[order[0]].clone();
    for at in &order[1..] {
        let on = conditions.pairs(*at, &joined).map(|(_, of, own)| (of.clone(), own.clone())).collect();
        joined.insert(*at);
        conditions.equal.retain(|pair| !pair.of.iter().all(|of| joined.contains(of)));
        let (now, later) = conditions.others.into_iter().partition(|(about, _)| about.is_subset(&joined));
        conditions.others = later;
        let now: Vec<(BTreeSet<usize>, Expr)> = now;
        let arm = Arm {
            input: relations[*at].clone(),
            kind: ArmKind::Inner,
            on: equal_to(on),
            residual: conjunction(now.into_iter().map(|(_, condition)| condition)),
            null_equality: NullEquality::NullEqualsNothing,
        };
        node = needed(one_more(node, arm)?, schema, &conditions)?;
    }
    Ok(project(node, columns_of(schema), Arc::clone(schema))?)
}

/// The columns of `node` that `schema` has or conditions ask for.
fn needed(node: Node, schema: &DFSchema, conditions: &Conditions) -> Result<Node, Fallback> {
    let sides = conditions.equal.iter().flat_map(|pair| &pair.sides);
    let asked: BTreeSet<&Column> =
        sides.chain(conditions.others.iter().map(|(_, condition)| condition)).flat_map(Expr::column_refs).collect();
    let all = node.schema().columns();
    let is_needed = |column: &Column| schema.has_column(column) || asked.contains(column);
    let columns: Vec<usize> = (0..all.len()).filter(|at| is_needed(&all[*at])).collect();
    if columns.is_empty() || columns.len() == all.len() {
        return Ok(node);
    }
    let fields = columns.iter().map(|at| {
        let (qualifier, field) = node.schema().qualified_field(*at);
        (qualifier.cloned(), Arc::clone(field))
    });
    let narrow = Arc::new(DFSchema::new_with_metadata(fields.collect(), Default::default())?);
    Ok(project(node, columns_of(&narrow), narrow)?)
}

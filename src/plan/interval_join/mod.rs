//! Two streams joined where their times are near each other: `a join b on a.k = b.k and b.ts between a.ts - interval '1 hour' and a.ts`.
//!
//! Let *b.ts* lie in *[a.ts − back, a.ts + ahead]*, and let *C* be the watermark of both streams, the earlier of the two. A row whose time is
//! before *C* is late. So nothing more comes for a row of *a* once *a.ts + ahead < C*, nor for one of *b* once *b.ts + back < C*: it is settled.
//! A match is given out at once, and stays. What says that a row has no match (the NULLs of an outer join, NOT EXISTS), or must be said once
//! (EXISTS), is given out when the row is settled.
//!
//! Settled rows leave the state. One that others need to know that they have a match stays until those are settled too: a matching *a*
//! of a row of *b* is at most *ahead* older. What leaving rows would change is behind the watermark, where nothing is given out.
//!
//! Dimensions are looked up above all that, wherever they stand in FROM ([`rows`]): by what the join gives out, when it does. A row that waits
//! for a match is not looked up before, so a restart, which finds the rows that wait again, finds them as they were.
//!
//! What is computed of windows of one of the two times ([`windows`]) stands above a node that holds the join's rows until their window closes.

mod rows;
mod windows;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, Operator, lit, utils::split_conjunction, when};
use datafusion::prelude::cast;
use std::sync::Arc;

pub(super) use self::windows::{bucket, interval, opened, plain, sessions};
use super::fault::Fault;
use super::incremental::{Arm, ArmKind, Bound, Moving, Node, TemporalRole};
use super::lateness::{self, Judgement, Stream};
use super::lower::{Fallback, joined};
use super::on_close::reads;

const DAY: i64 = 86_400_000_000;

/// `tree` of a query over `streams` with state bounded by their watermarks: rows of the join as they come.
pub(super) fn bounded(tree: Result<Node, Fallback>, streams: &[Stream<'_>]) -> Result<Node, Fault> {
    let tree = tree.map_err(|fallback| {
        Fault::new("not-a-stream", format!("{} cannot be computed over two streams", fallback.operator))
            .hint("join the streams in a materialized_view")
    })?;
    one_judgement(rows::placed(tree, streams)?)
}

/// `node`, where each stream has one way to be late.
pub(super) fn one_judgement(node: Node) -> Result<Node, Fault> {
    let mut gates = Vec::new();
    collect(&node, &mut gates);
    let differs = |(slot, gate): &(usize, String)| gates.iter().any(|(s, g)| s == slot && g != gate);
    match gates.iter().any(differs) {
        true => Err(Fault::new(
            "not-a-stream",
            "one stream is read twice, and its rows would be late by two times or under two conditions",
        )
        .hint("read it the second time through a streaming_table of its own")),
        false => Ok(node),
    }
}

/// Rows of two streams, each row by row, joined by `arm`, whose conditions see these two alone.
fn paired(base: Node, left: &Stream<'_>, arm: Arm, right: &Stream<'_>) -> Result<Node, Fault> {
    let near = Near::of(&base, &arm)?;
    let schema = joined(base.schema(), arm.input.schema(), arm.kind).map_err(sql)?;
    let (ahead, back) = (near.ahead.max(0), near.back.max(0));
    let settled = match arm.kind {
        ArmKind::Inner | ArmKind::Left => {
            let kind = near.base.get_type(base.schema()).map_err(sql)?;
            when(near.arm.clone().is_not_null(), cast(lit(ScalarValue::Null), kind))
                .otherwise(near.base.clone())
                .map_err(sql)?
        }
        // EXISTS and NOT EXISTS are decided when the row is settled, as NULLs are.
        ArmKind::Semi | ArmKind::Anti | ArmKind::Mark => near.base.clone(),
        ArmKind::NotIn => {
            return Err(
                Fault::new("not-a-stream", "NOT IN cannot be computed over two streams").hint("write NOT EXISTS")
            );
        }
    };
    let base_waits = arm.kind != ArmKind::Inner;
    let base = window(base, &near.base, ahead, left)?;
    let input = window(arm.input, &near.arm, if base_waits { back + ahead } else { back }, right)?;
    let join = Node::Join { base: Box::new(base), arms: vec![Arm { input, ..arm }], schema: Arc::new(schema) };
    let bounds = vec![Bound { expr: settled, operator: Operator::Lt, moving: earlier(ahead) }];
    Ok(Node::Temporal { input: Box::new(join), bounds, role: TemporalRole::Settle })
}

/// The rows of a stream that may still match, or be needed, until the watermark is `stays` µs past their time.
fn window(node: Node, time: &Expr, stays: i64, stream: &Stream<'_>) -> Result<Node, Fault> {
    let judgement = Judgement { instant: time.clone(), operator: Operator::GtEq, conditions: vec![] };
    let judged = lateness::judged(node, judgement, stream)?;
    let bounds = vec![Bound { expr: time.clone(), operator: Operator::GtEq, moving: earlier(stays) }];
    Ok(Node::Temporal { input: Box::new(judged), bounds, role: TemporalRole::Open })
}

/// The watermark less `micros`.
pub(super) fn earlier(micros: i64) -> Moving {
    Moving { whole_days: false, months: 0, micros: -micros }
}

fn sql(error: datafusion::common::DataFusionError) -> Fault {
    Fault::new("sql", error.strip_backtrace())
}

fn more() -> Fault {
    Fault::new("not-a-stream", "two streams are joined before anything is computed of them, to dimensions too, and then grouped by a window")
        .hint("compute it in a streaming_table of its own and read that here, or do the rest in a materialized_view that reads this table")
}

fn collect(node: &Node, gates: &mut Vec<(usize, String)>) {
    if let Node::Temporal { input, bounds, role: TemporalRole::Late } = node
        && let Node::Input { slot, .. } = **input
    {
        // Aliases do not matter.
        let plain = |expr: Expr| match expr {
            Expr::Column(c) => Ok(Transformed::yes(Expr::Column(datafusion::common::Column::new_unqualified(c.name)))),
            other => Ok(Transformed::no(other)),
        };
        let bound = bounds.first().and_then(|b| b.expr.clone().transform(plain).ok());
        gates.push((slot, bound.map(|b| b.data.to_string()).unwrap_or_default()));
    }
    node.below().into_iter().for_each(|below| collect(below, gates));
}

/// How near two times are: `arm` lies in [`base` − back, `base` + ahead], µs.
struct Near {
    base: Expr,
    arm: Expr,
    back: i64,
    ahead: i64,
}

impl Near {
    /// Of the join's conditions. Other conditions are left to the join.
    fn of(base: &Node, arm: &Arm) -> Result<Near, Fault> {
        // (time of the base, time of the arm, least and most of the latter less the former)
        let mut found: Vec<(Expr, Expr, Option<i64>, Option<i64>)> = Vec::new();
        let mut compare = |left: &Expr, operator: Operator, right: &Expr| {
            let sides = [(left, operator, right), (right, operator.swap().unwrap_or(operator), left)];
            for (left, operator, right) in sides {
                let (Some((of_base, more)), Some((of_arm, more_arm))) = (time(left, base), time(right, &arm.input))
                else {
                    continue;
                };
                let at = match found.iter().position(|(b, a, ..)| *b == of_base && *a == of_arm) {
                    Some(at) => at,
                    None => {
                        found.push((of_base, of_arm, None, None));
                        found.len() - 1
                    }
                };
                // base + more <operator> arm + more_arm
                let difference = more - more_arm;
                let (_, _, least, most) = &mut found[at];
                if matches!(operator, Operator::Lt | Operator::LtEq | Operator::Eq) {
                    *least = Some(least.map_or(difference, |l| l.max(difference)));
                }
                if matches!(operator, Operator::Gt | Operator::GtEq | Operator::Eq) {
                    *most = Some(most.map_or(difference, |m| m.min(difference)));
                }
                return;
            }
        };
        for (left, right) in &arm.on {
            compare(left, Operator::Eq, right);
        }
        for conjunct in arm.residual.iter().flat_map(split_conjunction) {
            match conjunct {
                Expr::BinaryExpr(BinaryExpr { left, op, right }) => compare(left, *op, right),
                Expr::Between(between) if !between.negated => {
                    compare(&between.expr, Operator::GtEq, &between.low);
                    compare(&between.expr, Operator::LtEq, &between.high);
                }
                _ => {}
            }
        }
        let near = found
            .into_iter()
            .find_map(|(base, arm, least, most)| Some(Near { base, arm, back: least?.checked_neg()?, ahead: most? }));
        near.ok_or_else(|| {
            Fault::new("unbounded-join", "nothing says how far apart in time rows of the two streams may match, so all of them would be kept")
                .hint("add it to the join's condition: and b.ts between a.ts - interval '10 minutes' and a.ts + interval '10 minutes'")
        })
    }
}

/// A TIMESTAMP of a row of `node`, and how many µs are added to it.
fn time(expr: &Expr, node: &Node) -> Option<(Expr, i64)> {
    let (mut expr, mut added) = (expr, 0i64);
    loop {
        match expr {
            Expr::Cast(Cast { expr: inner, field }) if is_time(field.data_type()) => expr = inner,
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => match (micros(left), micros(right)) {
                (_, Some(more)) => (expr, added) = (left, added.checked_add(more)?),
                (Some(more), _) => (expr, added) = (right, added.checked_add(more)?),
                _ => return None,
            },
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
                (expr, added) = (left, added.checked_sub(micros(right)?)?);
            }
            _ => break,
        }
    }
    let mut columns = 0;
    let mut elsewhere = false;
    let _ = expr.apply(|e| {
        if let Expr::Column(c) = e {
            columns += 1;
            elsewhere |= node.schema().maybe_index_of_column(c).is_none();
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    });
    let fits = columns > 0 && !elsewhere && !expr.is_volatile();
    (fits && is_time(&expr.get_type(node.schema()).ok()?)).then(|| (expr.clone(), added))
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _))
}

/// A constant interval of days and smaller units.
fn micros(expr: &Expr) -> Option<i64> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = expr else { return None };
    let whole = interval.months == 0 && interval.nanoseconds % 1000 == 0;
    let micros = i64::from(interval.days).checked_mul(DAY)?.checked_add(interval.nanoseconds / 1000)?;
    whole.then_some(micros)
}

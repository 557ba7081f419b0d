//! Windows of what two joined streams give out: when they are complete, and who holds their rows until then.
//!
//! A window is told by its end, which is computed of one of the two times that the join compares, *t*, and lies behind it: no further than *length*. Of
//! the rows that are still to come *a.ts + ahead ≥ C* and *b.ts + back ≥ C* (see above), so none lies in a window of *a.ts* with *end + ahead ≤ C*, nor in
//! one of *b.ts* with *end + back ≤ C*: these are complete. What settles then was settled before: *t < end*.
//!
//! The windows of `hop` that a row lies in follow from its time alike; the row stays until the last of them is complete. Nor does any row still come with a time
//! before *C − ahead*, or *C − back*, so a session that ends until then is complete, too.
//!
//! So rows stay, above the join, until the watermark is that much past the end of their window. What stands above, dimensions too, is maintained.
//! And rows that may lie in an open window have *t ≥ C − ahead − length*: so far back a restart reads.

use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, ScalarValue};
use datafusion::functions_nested::expr_fn::array_max;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, Operator, lit};

use super::super::fault::Fault;
use super::super::forgetting::{is_instant, length};
use super::super::incremental::{Arm, ArmKind, Bound, Node, TemporalRole, UnnestedList};
use super::super::lateness::{Stream, column, is_windows};
use super::super::lower::substitute;
use super::{DAY, earlier, is_time, one_judgement, rows, sql};
use crate::functions::SESSION_TIME;

/// How the rows of a window lie: all lengths in µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::plan) struct Window {
    /// How far past the end of a window the watermark is when the last of its rows has come.
    pub behind: i64,
    /// How long before its end a row may lie.
    pub length: i64,
}

/// The join of `streams` that `node` is, its rows held until the windows that end at `end` are complete, and how late that is.
pub(in crate::plan) fn opened(node: Node, end: Expr, streams: &[Stream<'_>]) -> Result<(Node, Window), Fault> {
    let node = one_judgement(rows::placed(node, streams)?)?;
    let mut all = Window::default();
    at_joins(node.clone(), end.clone(), &mut |join, end| {
        if let Some((window, _)) = of_join(&join, &end)? {
            all = Window { behind: all.behind.max(window.behind), length: all.length.max(window.length) };
        }
        Ok(join)
    })?;
    let node = at_joins(node, end, &mut |join, end| {
        let mut bounds = vec![Bound { expr: end.clone(), operator: Operator::Gt, moving: earlier(all.behind) }];
        if let Some((_, time)) = of_join(&join, &end)? {
            bounds.push(Bound { expr: time, operator: Operator::GtEq, moving: earlier(all.behind + all.length) });
        }
        Ok(Node::Temporal { input: Box::new(join), bounds, role: TemporalRole::Open })
    })?;
    Ok((node, all))
}

/// The join of `streams` that `node` is, and how far past the end of a session by `time` the watermark is when it is complete.
pub(in crate::plan) fn sessions(node: Node, time: &Expr, streams: &[Stream<'_>]) -> Result<(Node, i64), Fault> {
    let node = one_judgement(rows::placed(node, streams)?)?;
    let mut behind = 0;
    at_joins(node.clone(), time.clone(), &mut |join, time| {
        if let Some((side, _)) = side_of_join(&join, &time, |of_stream| Some((instant(of_stream).clone(), 0)))? {
            behind = behind.max(side.behind);
        }
        Ok(join)
    })?;
    Ok((node, behind))
}

/// The time that a session's is of.
fn instant(time: &Expr) -> &Expr {
    match plain(time) {
        Expr::ScalarFunction(call) if call.func.name() == SESSION_TIME => call.args.first().map_or(time, plain),
        time => time,
    }
}

/// `apply` to each join of streams in `node` and to `end`, an expression over the rows of `node`, over that join's.
fn at_joins(node: Node, end: Expr, apply: &mut dyn FnMut(Node, Expr) -> Result<Node, Fault>) -> Result<Node, Fault> {
    match node {
        Node::Project { input, exprs, schema } => {
            let end = substitute(end, &schema, &exprs).map_err(sql)?;
            Ok(Node::Project { input: Box::new(at_joins(*input, end, apply)?), exprs, schema })
        }
        Node::Filter { input, predicate } => {
            Ok(Node::Filter { input: Box::new(at_joins(*input, end, apply)?), predicate })
        }
        Node::Union { inputs, schema } => {
            let into = |input: Node, apply: &mut dyn FnMut(Node, Expr) -> Result<Node, Fault>| {
                let columns: Option<Vec<Expr>> =
                    (0..schema.fields().len()).map(|i| column(input.schema(), i)).collect();
                let end = substitute(end.clone(), &schema, &columns.ok_or_else(unknown)?).map_err(sql)?;
                at_joins(input, end, apply)
            };
            let inputs = inputs.into_iter().map(|input| into(input, apply)).collect::<Result<_, _>>()?;
            Ok(Node::Union { inputs, schema })
        }
        Node::Join { base, arms, schema } => {
            let of_base = base.schema().fields().len();
            let columns: Vec<Expr> = (0..of_base).filter_map(|i| column(base.schema(), i)).collect();
            let sees = |c| schema.maybe_index_of_column(c).is_some_and(|i| i < of_base);
            if !end.column_refs().into_iter().all(sees) {
                return Err(unknown());
            }
            let end = substitute(end, &schema, &columns).map_err(sql)?;
            Ok(Node::Join { base: Box::new(at_joins(*base, end, apply)?), arms, schema })
        }
        Node::Unnest { input, lists, structs, nulls, schema } => {
            let [UnnestedList { column: list, depth: 1 }] = lists[..] else { return Err(unknown()) };
            if !structs.is_empty() {
                return Err(unknown());
            }
            // A row stays until the last of its windows has closed.
            let of_hop = is_windows(&input, list).then(|| column(input.schema(), list).map(array_max)).flatten();
            let origin = |i: usize| if i == list { of_hop.clone() } else { column(input.schema(), i) };
            let columns: Vec<Option<Expr>> = (0..schema.fields().len()).map(origin).collect();
            let known = |c: &Column| schema.maybe_index_of_column(c).is_some_and(|i| columns[i].is_some());
            if !end.column_refs().into_iter().all(known) {
                return Err(unknown());
            }
            let columns: Vec<Expr> = columns.into_iter().map(|c| c.unwrap_or_else(|| lit(ScalarValue::Null))).collect();
            let end = substitute(end, &schema, &columns).map_err(sql)?;
            Ok(Node::Unnest { input: Box::new(at_joins(*input, end, apply)?), lists, structs, nulls, schema })
        }
        join @ Node::Temporal { role: TemporalRole::Settle, .. } => apply(join, end),
        _ => Err(unknown()),
    }
}

/// The windows of a join of streams that end at `end`, and the time they are of; None if its rows lie in none.
fn of_join(join: &Node, end: &Expr) -> Result<Option<(Window, Expr)>, Fault> {
    side_of_join(join, end, behind_time)
}

/// The same of what `of` says is made of a stream's time, and lies so far behind it at most.
fn side_of_join(
    join: &Node,
    end: &Expr,
    of: impl Fn(&Expr) -> Option<(Expr, i64)>,
) -> Result<Option<(Window, Expr)>, Fault> {
    let Node::Temporal { input, .. } = join else { return Err(unknown()) };
    let Node::Join { base, arms, .. } = &**input else { return Err(unknown()) };
    let [Arm { input: arm, kind, .. }] = arms.as_slice() else { return Err(unknown()) };
    // What a side that is not there has for a time.
    let is_null = |e: &Expr| Ok(matches!(e, Expr::Literal(value, _) if value.is_null()));
    if end.column_refs().is_empty() && end.exists(is_null).unwrap_or(false) {
        return Ok(None);
    }
    let (Some((near_base, ahead)), Some((near_arm, stays))) = (stays(base), stays(arm)) else { return Err(unknown()) };
    let back = if *kind == ArmKind::Inner { stays } else { stays - ahead };
    for (side, near, behind) in [(&**base, near_base, ahead), (arm, near_arm, back)] {
        let Some(of_stream) = made_of(side, end.clone()) else { continue };
        let Some((time, length)) = of(&of_stream) else { continue };
        if made_of(side, near.clone()).is_some_and(|near| plain(&near) == plain(&time)) {
            return Ok(Some((Window { behind, length }, near.clone())));
        }
    }
    Err(unknown())
}

/// The time of a stream's rows, and how long they stay.
fn stays(node: &Node) -> Option<(&Expr, i64)> {
    match node {
        Node::Temporal { bounds, role: TemporalRole::Open, .. } => {
            bounds.first().map(|bound| (&bound.expr, -bound.moving.micros))
        }
        _ => None,
    }
}

/// `expr` over the rows of a stream as `node` has them, over the stream's own columns.
fn made_of(node: &Node, expr: Expr) -> Option<Expr> {
    let schema = node.schema();
    if !expr.column_refs().into_iter().all(|c| schema.has_column(c)) {
        return None;
    }
    match node {
        Node::Project { input, exprs, .. } => made_of(input, substitute(expr, schema, exprs).ok()?),
        Node::Filter { input, .. } | Node::Temporal { input, .. } => made_of(input, expr),
        // By their places: names do not matter.
        Node::Input { columns, .. } => {
            let place = |i: usize| column(schema, i);
            let columns: Option<Vec<Expr>> = (0..columns.len()).map(place).collect();
            substitute(expr, schema, &columns?).ok()
        }
        _ => None,
    }
}

/// The time that `end` lies behind, and how far at most.
fn behind_time(end: &Expr) -> Option<(Expr, i64)> {
    let (start, added) = match plain(end) {
        Expr::ScalarFunction(call) if call.func.name() == "window_end" => match call.args.as_slice() {
            [start, size] => (start, length(size)?),
            _ => return None,
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => match (length(left), length(right)) {
            (_, Some(added)) => (&**left, added),
            (Some(added), _) => (&**right, added),
            _ => return None,
        },
        _ => return None,
    };
    let (time, size) = bucket(start)?;
    let reaches = match (size, added) {
        ((0, 0), _) => true,
        ((0, size), (0, added)) | ((size, 0), (added, 0)) => size <= added,
        _ => false,
    };
    // The longest months there are.
    let micros = (added.0.checked_mul(31 * DAY)?).checked_add(added.1 / 1_000 + 1)?;
    reaches.then_some((time, micros))
}

/// The time whose bucket `expr` is, and the bucket's length in months or ns: the time itself is a bucket of none.
pub(in crate::plan) fn bucket(expr: &Expr) -> Option<(Expr, (i64, i64))> {
    const SECOND: i64 = 1_000_000_000;
    let expr = plain(expr);
    let (of, size) = match expr {
        Expr::Cast(Cast { expr, field }) if *field.data_type() == arrow::datatypes::DataType::Date32 => {
            (&**expr, (0, DAY * 1_000))
        }
        Expr::ScalarFunction(call) => match (call.func.name(), call.args.as_slice()) {
            ("date_trunc", [Expr::Literal(unit, _), of]) => {
                let size = match unit.try_as_str()??.to_lowercase().as_str() {
                    "microsecond" => (0, 1_000),
                    "millisecond" => (0, 1_000_000),
                    "second" => (0, SECOND),
                    "minute" => (0, 60 * SECOND),
                    "hour" => (0, 3_600 * SECOND),
                    "day" => (0, DAY * 1_000),
                    "week" => (0, 7 * DAY * 1_000),
                    "month" => (1, 0),
                    "quarter" => (3, 0),
                    "year" => (12, 0),
                    _ => return None,
                };
                (of, size)
            }
            // The last window of a row.
            ("array_max", [Expr::ScalarFunction(windows)]) if windows.func.name() == "hop_starts" => {
                match windows.args.as_slice() {
                    [of, _, size] => (of, length(size)?),
                    [of, _, size, Expr::Literal(..)] => (of, length(size).filter(|(months, _)| *months == 0)?),
                    _ => return None,
                }
            }
            ("date_bin", [size, of]) => (of, length(size)?),
            ("tumble_start", [of, size]) => (of, length(size)?),
            // Months from the 31st on are of another length than their intervals.
            ("date_bin", [size, of, Expr::Literal(..)]) => (of, length(size).filter(|(months, _)| *months == 0)?),
            ("tumble_start", [of, size, Expr::Literal(..)]) => (of, length(size).filter(|(months, _)| *months == 0)?),
            _ => return None,
        },
        time => (time, (0, 0)),
    };
    matches!(plain(of), Expr::Column(_)).then(|| (of.clone(), size))
}

/// Without what changes neither a time nor its order.
pub(in crate::plan) fn plain(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => plain(&alias.expr),
        Expr::Cast(Cast { expr, field }) if is_time(field.data_type()) && is_instant(field.data_type()) => plain(expr),
        other => other,
    }
}

/// An interval of `(months, ns)`.
pub(in crate::plan) fn interval((months, nanos): (i64, i64)) -> Option<Expr> {
    let interval = arrow::datatypes::IntervalMonthDayNano::new(i32::try_from(months).ok()?, 0, nanos);
    Some(Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), None))
}

fn unknown() -> Fault {
    Fault::new("no-window-end", "windows of two joined streams are those of one of the two times that the join's condition compares")
        .hint("group by date_bin(interval '1 hour', a.ts), of a time in `b.ts between a.ts and a.ts + interval '10 minutes'`; other windows in a streaming_table that reads this table, with a watermark of its own")
}

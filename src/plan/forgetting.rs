//! Groups that a view may forget: those of time buckets that lie behind the watermark of the table they are made of.
//!
//! A table with a watermark seldom gets rows of long ago. So where a GROUP BY has a bucket of its event time among its keys, the groups of buckets
//! that have ended need not stay in memory: when such a row comes all the same, its bucket's rows are read from the table again, and the
//! groups are as they were. [`crate::operators::Circuit::forget`] says how; nothing of it is seen in the view.
//!
//! The same holds of the partitions of first rows and window functions, whose rows are a bucket's.
//!
//! Sessions are forgotten when the watermark has passed their end. So are, with them, the groups and partitions above whose keys say of which session they are
//! ([`OfSession`]).
//!
//! It is done where it is provably right: between the table and the GROUP BY or OVER stand projections, filters and the windows of `hop` alone, which
//! look at one row; and the bucket never goes back where the time goes on, so that the rows of a bucket are those of a span of time. NULL lies in no
//! bucket that ends.

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::functions_nested::expr_fn::{array_max, array_min};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable};

use super::incremental::{Bucket, Length, Node, SessionEnd};
use super::lateness::{column, is_windows};
use super::lower::{columns_of, substitute, unaliased};
use super::share::placed;

/// Notes at every GROUP BY and PARTITION BY in `node` the bucket by which it can forget groups. `time`: of the input in a slot the column (of the whole relation) whose
/// watermark is known.
pub(super) fn mark(node: &mut Node, time: &dyn Fn(usize) -> Option<usize>) {
    node.below_mut().into_iter().for_each(|below| mark(below, time));
    let (input, keys, bucket) = match node {
        Node::Aggregate { input, group, sets, bucket, .. } if sets.is_empty() => (input, group, bucket),
        Node::First { input, partition, bucket, .. } | Node::Window { input, partition, bucket, .. } => {
            (input, partition, bucket)
        }
        // From a row on it is a fixed time until its session can end. Months differ.
        Node::Session { input, time: of_row, gap: Length::Micros(_), closes: None, bucket, .. } => {
            // A row that has become several has one time.
            *bucket = found(input, 0, of_row, time).filter(|bucket| bucket.low == bucket.high).map(Box::new);
            return;
        }
        _ => return,
    };
    *bucket = keys.iter().enumerate().find_map(|(key, expr)| Some(Box::new(found(input, key, expr, time)?)));
}

/// The bucket that key `expr` is.
fn found(input: &Node, key: usize, expr: &Expr, time: &dyn Fn(usize) -> Option<usize>) -> Option<Bucket> {
    if !is_instant(&expr.get_type(input.schema()).ok()?) {
        return None;
    }
    let traced = traced(input, [expr.clone(), expr.clone()], time)?;
    let schema = traced.schema();
    let [low, high] = &traced.exprs;
    (rises(low, &schema) && rises(high, &schema)).then(|| {
        let Traced { slot, columns, time, field, exprs: [low, high] } = traced;
        Bucket { key, slot, columns, time, field, low, high }
    })
}

/// Of an operator above sessions that are forgotten, whose groups or partitions are each of one session: where its keys say of which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfSession {
    /// The key that each of the session's keys is.
    pub keys: Vec<usize>,
    /// The key that is its start.
    pub start: usize,
}

impl Node {
    /// Whether its groups or partitions are forgotten with their sessions.
    pub fn of_session(&self) -> Option<OfSession> {
        let (input, keys) = match self {
            Node::Aggregate { input, group, sets, bucket: None, .. } if sets.is_empty() => (input, group),
            Node::First { input, partition, bucket: None, .. }
            | Node::Window { input, partition, bucket: None, .. } => (input, partition),
            _ => return None,
        };
        let mut keys: Vec<Expr> = keys.iter().map(unaliased).collect();
        let mut at: &Node = input;
        loop {
            let (below, schema, made) = match at {
                Node::Project { input, exprs, schema } => (&**input, schema, exprs.clone()),
                Node::Shared { node, schema, .. } => (&**node, schema, columns_of(node.schema())),
                Node::Filter { input, .. } => {
                    at = input;
                    continue;
                }
                Node::Session { input, partition, bucket: Some(_), schema, .. } => {
                    let keys = placed(&keys, schema)?;
                    let place = |wanted: &Expr| keys.iter().position(|key| key == wanted);
                    let start = Expr::Column(Column::new_unqualified(input.schema().fields().len().to_string()));
                    let partition = placed(partition, input.schema())?;
                    return Some(OfSession {
                        keys: partition.iter().map(place).collect::<Option<_>>()?,
                        start: place(&start)?,
                    });
                }
                _ => return None,
            };
            keys = keys
                .into_iter()
                .map(|key| Some(unaliased(&substitute(key, schema, &made).ok()?)))
                .collect::<Option<_>>()?;
            at = below;
        }
    }
}

/// `root` with sessions that say their end with one row each forgotten only where what reads them is, too: when they come again, it may be another row
/// of the same time that says it.
pub(super) fn settle(mut root: Node) -> Node {
    fn settled(node: &mut Node, above: bool) {
        let below = match node {
            Node::Project { .. } | Node::Filter { .. } => above,
            Node::Session { ends: SessionEnd::Last, bucket, .. } if !above => {
                *bucket = None;
                false
            }
            _ => node.of_session().is_some(),
        };
        node.below_mut().into_iter().for_each(|input| settled(input, below));
    }
    settled(&mut root, false);
    root
}

/// Expressions over the rows of a node, in terms of the one column of the relation they are made of.
struct Traced {
    slot: usize,
    columns: Vec<usize>,
    time: usize,
    field: Field,
    exprs: [Expr; 2],
}

impl Traced {
    fn schema(&self) -> DFSchema {
        // One column has no other of its name.
        DFSchema::try_from(Schema::new(vec![self.field.clone()])).unwrap_or_else(|_| DFSchema::empty())
    }
}

/// `[low, high]` over the rows of `node`: where a row becomes several, of the first and of the last of them.
fn traced(node: &Node, exprs: [Expr; 2], time: &dyn Fn(usize) -> Option<usize>) -> Option<Traced> {
    let schema = node.schema();
    match node {
        Node::Input { slot, columns, .. } => {
            let time = time(*slot)?;
            let place = columns.iter().position(|c| *c == time)?;
            let field = schema.field(place);
            if !is_instant(field.data_type())
                || matches!(field.data_type(), DataType::Timestamp(unit, _) if *unit != TimeUnit::Microsecond)
            {
                return None;
            }
            let field = Field::new("time", field.data_type().clone(), true);
            let only = |i: usize| (i == place).then(|| Expr::Column(Column::new_unqualified("time")));
            let [low, high] = exprs;
            let exprs = [through(low, schema, &only)?, through(high, schema, &only)?];
            Some(Traced { slot: *slot, columns: columns.clone(), time, field, exprs })
        }
        Node::Project { input, exprs: made, .. } => {
            let of = |i: usize| made.get(i).cloned().map(Expr::unalias);
            let [low, high] = exprs;
            traced(input, [through(low, schema, &of)?, through(high, schema, &of)?], time)
        }
        Node::Filter { input, .. } => traced(input, exprs, time),
        Node::Unnest { input, lists, structs, .. } if structs.is_empty() && lists.len() == 1 => {
            let below = input.schema();
            let of = |end: fn(Expr) -> Expr| {
                move |i: usize| match lists[0].column == i {
                    true if lists[0].depth == 1 && is_windows(input, i) => Some(end(column(below, i)?)),
                    true => None,
                    false => column(below, i),
                }
            };
            let [low, high] = exprs;
            traced(input, [through(low, schema, &of(array_min))?, through(high, schema, &of(array_max))?], time)
        }
        _ => None,
    }
}

/// `expr` with what `origin` says in the place of every column of `schema`.
fn through(expr: Expr, schema: &DFSchema, origin: &dyn Fn(usize) -> Option<Expr>) -> Option<Expr> {
    let mut lost = false;
    let replaced = expr.transform(|e| {
        let Expr::Column(c) = &e else { return Ok(Transformed::no(e)) };
        Ok(match schema.maybe_index_of_column(c).and_then(origin) {
            // What has been put in is not looked at again.
            Some(found) => Transformed::new(found, true, TreeNodeRecursion::Jump),
            None => {
                lost = true;
                Transformed::no(e)
            }
        })
    });
    replaced.ok().map(|r| r.data).filter(|_| !lost)
}

pub(super) fn is_instant(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(_, zone) => zone.as_deref().is_none_or(|z| z == "UTC"),
        DataType::Date32 => true,
        _ => false,
    }
}

/// Whether a value never goes back where its one column goes on, and is NULL where that is.
fn rises(expr: &Expr, schema: &DFSchema) -> bool {
    let instant = |e: &Expr| e.get_type(schema).is_ok_and(|t| is_instant(&t));
    match expr {
        Expr::Column(_) => true,
        Expr::Alias(alias) => rises(&alias.expr, schema),
        Expr::Cast(Cast { expr, field }) => is_instant(field.data_type()) && instant(expr) && rises(expr, schema),
        Expr::ScalarFunction(call) => match (call.func.name(), call.args.as_slice()) {
            ("date_trunc", [Expr::Literal(..), of]) => instant(of) && rises(of, schema),
            ("date_bin", [size, of]) => length(size).is_some() && instant(of) && rises(of, schema),
            ("date_bin", [size, of, Expr::Literal(..)]) => length(size).is_some() && instant(of) && rises(of, schema),
            ("tumble_start", [of, size] | [of, size, Expr::Literal(..)]) => length(size).is_some() && rises(of, schema),
            ("session_time", [of]) => instant(of) && rises(of, schema),
            ("window_end", [of, size]) => length(size).is_some() && rises(of, schema),
            ("array_min" | "array_max", [Expr::ScalarFunction(windows)]) if windows.func.name() == "hop_starts" => {
                match windows.args.as_slice() {
                    // Windows with gaps between them leave some instants without any.
                    [of, slide, size] | [of, slide, size, Expr::Literal(..)] => {
                        let lengths = length(slide).zip(length(size));
                        let overlap = |(slide, size): ((i64, i64), (i64, i64))| match (slide, size) {
                            ((0, slide), (0, size)) | ((slide, 0), (size, 0)) => slide <= size,
                            _ => false,
                        };
                        lengths.is_some_and(overlap) && rises(of, schema)
                    }
                    _ => false,
                }
            }
            _ => false,
        },
        _ => false,
    }
}

/// A constant length of time above 0: months, or ns.
pub(super) fn length(expr: &Expr) -> Option<(i64, i64)> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(length)), _) = expr else { return None };
    let nanos = i64::from(length.days).checked_mul(86_400_000_000_000)?.checked_add(length.nanoseconds)?;
    let months = i64::from(length.months);
    ((months == 0 && nanos > 0) || (months > 0 && nanos == 0)).then_some((months, nanos))
}

/// What the bucket of a plan is made of, as `explain` and stored state name it.
pub(super) fn text(bucket: &Bucket) -> String {
    format!("{} of input {}", bucket.low, bucket.slot)
}

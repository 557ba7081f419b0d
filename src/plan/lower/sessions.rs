//! `session_window_start` and `session_window_end` over what `session` in FROM makes of a relation: [`Node::Session`].
//!
//! The two functions go through DataFusion's optimizer as any window functions do. Where they are found over a time and an end that are known
//! to be `session_time(x)` and `session_end(x, gap)`, in the order of that time, they are one node; anywhere else they stay a
//! [`Node::Window`], which is as right and looks at a whole key.

use datafusion::common::{Column, DFSchema, DataFusionError, ScalarValue};
use datafusion::logical_expr::expr::{ScalarFunction, WindowFunction};
use datafusion::logical_expr::{Expr, SortExpr, WindowFunctionDefinition};
use std::sync::Arc;

use super::{columns_of, project, substitute, unaliased};
use crate::functions::{SESSION_END, SESSION_TIME, SESSION_WINDOW_END, SESSION_WINDOW_START};
use crate::plan::incremental::{Length, Node, SessionEnd};

/// The columns that the node adds.
const START: &str = "__session_start";
const END: &str = "__session_end";

/// `window` as a session node, if it is one.
pub(super) fn recognised(window: Node) -> Result<Node, DataFusionError> {
    Ok(match session(&window)? {
        Some(node) => node,
        None => window,
    })
}

fn session(window: &Node) -> Result<Option<Node>, DataFusionError> {
    let Node::Window { input, partition, order, calls, visible: None, schema, .. } = window else { return Ok(None) };
    let Some((time, end)) = arguments(calls, order) else { return Ok(None) };
    let Some((gap, end_of)) = gap(input, time, end)? else { return Ok(None) };
    // The end is known from the time, so it need not be kept.
    let width = input.schema().fields().len();
    let place = |e: &Expr| match e {
        Expr::Column(c) => input.schema().maybe_index_of_column(c),
        _ => None,
    };
    let dropped = place(end).filter(|at| {
        let others = partition.iter().chain([time]);
        !others.flat_map(Expr::column_refs).any(|c| input.schema().maybe_index_of_column(c) == Some(*at))
    });
    let (input, dropped) = match (&**input, dropped) {
        (Node::Project { input: below, exprs, schema }, Some(at)) => {
            let without = |i: &usize| *i != at;
            let exprs = (0..width).filter(without).map(|i| exprs[i].clone()).collect();
            let fields = schema.iter().enumerate().filter(|(i, _)| without(i));
            let fields = fields.map(|(_, (q, f))| (q.cloned(), Arc::clone(f))).collect();
            let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
            (Node::Project { input: below.clone(), exprs, schema }, Some(at))
        }
        (other, _) => (other.clone(), None),
    };
    let mut fields: Vec<_> = input.schema().iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
    let says_end = calls.iter().any(|call| is_call(call, SESSION_WINDOW_END));
    let bound = |name: &str| (None, Arc::new(schema.field(width).as_ref().clone().with_name(name)));
    fields.push(bound(START));
    fields.extend(says_end.then(|| bound(END)));
    let Ok(made) = DFSchema::new_with_metadata(fields, Default::default()) else { return Ok(None) };
    let node = Node::Session {
        schema: Arc::new(made),
        input: Box::new(input),
        partition: partition.iter().map(unaliased).collect(),
        time: unaliased(time),
        gap,
        ends: if says_end { SessionEnd::Each } else { SessionEnd::Absent },
        closes: None,
        bucket: None,
    };
    let mut exprs = columns_of(schema);
    if let Some(at) = dropped {
        exprs[at] = Expr::ScalarFunction(end_of);
    }
    for (call, expr) in calls.iter().zip(&mut exprs[width..]) {
        *expr = Expr::Column(Column::new_unqualified(if is_call(call, SESSION_WINDOW_END) { END } else { START }));
    }
    project(node, exprs, Arc::clone(schema)).map(Some)
}

fn is_call(call: &Expr, name: &str) -> bool {
    matches!(call, Expr::WindowFunction(f) if matches!(&f.fun, WindowFunctionDefinition::WindowUDF(u) if u.name() == name))
}

/// The time and the end that all calls have, if they are the two functions, in the order of that time.
fn arguments<'a>(calls: &'a [Expr], order: &[SortExpr]) -> Option<(&'a Expr, &'a Expr)> {
    let mut common = None;
    for call in calls {
        let Expr::WindowFunction(function) = call else { return None };
        if ![SESSION_WINDOW_START, SESSION_WINDOW_END].iter().any(|name| is_call(call, name)) {
            return None;
        }
        let WindowFunction { params, .. } = &**function;
        let [time, end] = params.args.as_slice() else { return None };
        if *common.get_or_insert((time, end)) != (time, end) || params.filter.is_some() || params.distinct {
            return None;
        }
    }
    common.filter(|(time, _)| order.first().is_some_and(|key| key.asc && key.expr == **time))
}

/// How long a session is waited for, if `time` and `end` over `input` are an instant and that much later; and the latter as a function of the former.
fn gap(input: &Node, time: &Expr, end: &Expr) -> Result<Option<(Length, ScalarFunction)>, DataFusionError> {
    let (Expr::ScalarFunction(instant), Expr::ScalarFunction(later)) = (defined(input, time)?, defined(input, end)?)
    else {
        return Ok(None);
    };
    let ([of], [from, Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(gap)), _)]) =
        (instant.args.as_slice(), later.args.as_slice())
    else {
        return Ok(None);
    };
    if (instant.func.name(), later.func.name()) != (SESSION_TIME, SESSION_END) || of != from || of.is_volatile() {
        return Ok(None);
    }
    let Ok(length) = Length::of(*gap) else { return Ok(None) };
    Ok(Some((length, ScalarFunction { func: later.func, args: vec![time.clone(), later.args[1].clone()] })))
}

/// `expr` over `node`, as what the projections below make of it.
fn defined(node: &Node, expr: &Expr) -> Result<Expr, DataFusionError> {
    let (mut at, mut expr) = (node, unaliased(expr));
    while let Node::Project { input, exprs, schema } = at {
        expr = unaliased(&substitute(expr, schema, exprs)?);
        at = input;
    }
    Ok(expr)
}

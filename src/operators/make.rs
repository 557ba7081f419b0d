//! Stateful operators from the nodes of a plan.

use arrow::compute::SortOptions;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, SortExpr};

use super::aggregate::Aggregate;
use super::eval::{Exprs, arrow_schema};
use super::first::First;
use super::join::Join;
use super::sharded::Part;
use super::top_k::TopK;
use super::window::{self, Window};
use crate::error::{Error, Result};
use crate::plan::incremental::Node;

fn another() -> Error {
    Error::internal("a node of the plan is of another kind")
}

/// GROUP BY.
pub(super) fn aggregate(plan: &Node, session: &SessionState) -> Result<Aggregate> {
    let Node::Aggregate { input, group, sets, aggregates, schema, .. } = plan else { return Err(another()) };
    Aggregate::new(input.schema(), group, sets, aggregates, schema, session)
}

/// The first row of each partition.
pub(super) fn first(plan: &Node, streamed: bool, session: &SessionState) -> Result<First> {
    let Node::First { input, partition, order, .. } = plan else { return Err(another()) };
    let (partition, order, options) = ordered(input, partition, order, session)?;
    First::new(partition, order, &options, arrow_schema(input.schema()), streamed)
}

/// The first rows of each partition, over rows that stay.
pub(super) fn top_k(plan: &Node, session: &SessionState) -> Result<TopK> {
    let (input, partition, order, most, schema) = match plan {
        Node::First { input, partition, order, .. } => (input, partition, order, 1, input.schema()),
        Node::Window { input, partition, order, visible: Some(visible), schema, .. } => {
            (input, partition, order, visible.most, schema)
        }
        _ => return Err(another()),
    };
    let (partition, order, options) = ordered(input, partition, order, session)?;
    TopK::new(partition, order, &options, most, arrow_schema(input.schema()), arrow_schema(schema))
}

/// Window functions.
pub(super) fn window(plan: &Node, session: &SessionState) -> Result<Window> {
    let Node::Window { input, partition, order, calls, reach, visible, schema, .. } = plan else {
        return Err(another());
    };
    let spec = window::Spec { partition, order, calls, reach: *reach, visible: *visible };
    Window::new(input.schema(), &spec, schema, session)
}

/// Joins of one base; `part`: of the rows.
pub(super) fn join(plan: &Node, streamed: bool, part: Part, session: &SessionState) -> Result<Join> {
    let Node::Join { base, arms, schema } = plan else { return Err(another()) };
    Join::new(base, arms, schema, streamed, part, session)
}

fn ordered(
    input: &Node,
    partition: &[Expr],
    order: &[SortExpr],
    session: &SessionState,
) -> Result<(Exprs, Exprs, Vec<SortOptions>)> {
    let partition = Exprs::new(partition, input.schema(), session)?;
    let options = order.iter().map(|o| SortOptions { descending: !o.asc, nulls_first: o.nulls_first }).collect();
    let order = Exprs::new(order.iter().map(|o| &o.expr), input.schema(), session)?;
    Ok((partition, order, options))
}

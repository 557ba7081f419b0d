//! Stateful operators from the nodes of a plan, and the columns by which their rows can be dealt out.

use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, SortExpr};

use super::aggregate::Aggregate;
use super::eval::{Exprs, arrow_schema};
use super::first::First;
use super::join::Join;
use super::sharded::Routes;
use super::top_k::TopK;
use super::window::{self, Window};
use crate::error::{Error, Result};
use crate::plan::incremental::{Arm, ArmKind, Node};

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
    let Node::First { input, partition, order } = plan else { return Err(another()) };
    let (partition, order, options) = ordered(input, partition, order, session)?;
    First::new(partition, order, &options, arrow_schema(input.schema()), streamed)
}

/// The first rows of each partition, over rows that stay.
pub(super) fn top_k(plan: &Node, session: &SessionState) -> Result<TopK> {
    let (input, partition, order, most, schema) = match plan {
        Node::First { input, partition, order } => (input, partition, order, 1, input.schema()),
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
    let Node::Window { input, partition, order, calls, reach, visible, schema } = plan else { return Err(another()) };
    let spec = window::Spec { partition, order, calls, reach: *reach, visible: *visible };
    Window::new(input.schema(), &spec, schema, session)
}

/// Joins of one base.
pub(super) fn join(plan: &Node, streamed: bool, session: &SessionState) -> Result<Join> {
    let Node::Join { base, arms, schema } = plan else { return Err(another()) };
    Join::new(base, arms, schema, streamed, session)
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

/// A column and its type.
type Typed = (usize, DataType);
/// Equal columns of a base and an arm.
type Pair = (Typed, Typed);

/// The column that an expression is, and its type.
fn column(expr: &Expr, schema: &DFSchema) -> Option<Typed> {
    let Expr::Column(column) = expr else { return None };
    let at = schema.maybe_index_of_column(column)?;
    Some((at, schema.field(at).data_type().clone()))
}

/// By those of the expressions `by` over `input` that are columns.
pub(super) fn routes_by(input: &Node, by: &[Expr]) -> Option<Routes> {
    Routes::new(vec![by.iter().filter_map(|expr| column(expr, input.schema())).collect()])
}

/// By columns of the base that every arm is joined by. NOT IN asks whether there is any row at all.
pub(super) fn routes_of_join(base: &Node, arms: &[Arm]) -> Option<Routes> {
    if arms.iter().any(|arm| arm.kind == ArmKind::NotIn) {
        return None;
    }
    let pairs = |arm: &Arm| -> Vec<Pair> {
        let pair = |(l, r): &(Expr, Expr)| Some((column(l, base.schema())?, column(r, arm.input.schema())?));
        arm.on.iter().filter_map(pair).collect()
    };
    let pairs: Vec<_> = arms.iter().map(pairs).collect();
    let mut inputs: Vec<Vec<Typed>> = vec![vec![]; arms.len() + 1];
    for (of_base, _) in pairs.first()? {
        let matching =
            |pairs: &Vec<Pair>| pairs.iter().find(|(left, _)| left.0 == of_base.0).map(|(_, right)| right.clone());
        let Some(of_arms) = pairs.iter().map(matching).collect::<Option<Vec<_>>>() else { continue };
        for (columns, column) in inputs.iter_mut().zip(std::iter::once(of_base.clone()).chain(of_arms)) {
            columns.push(column);
        }
    }
    Routes::new(inputs)
}

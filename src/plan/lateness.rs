//! Where late rows are told from the others: directly above the stream, where its rows are whole.
//!
//! What decides is known further up: when the last window of a row ends, and which rows WHERE leaves out (those are never late). Both are
//! carried down the plan, through projections, filters and the windows of `hop`, until they are expressions over the stream's own columns.

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::functions_nested::expr_fn::array_max;
use datafusion::logical_expr::{Expr, Operator, when};
use std::sync::Arc;

use super::fault::Fault;
use super::incremental::{Bound, Moving, Node, TemporalRole};

/// The stream of a table that sets late rows aside.
pub(super) struct Stream<'a> {
    pub slot: usize,
    /// All columns of the relation.
    pub schema: &'a SchemaRef,
}

/// What is known of the rows of a node: until when they are on time (`instant`, compared with the watermark by `operator`), and which of them count.
pub(super) struct Judgement {
    pub instant: Expr,
    pub operator: Operator,
    pub conditions: Vec<Expr>,
}

/// `node` with a gate above its stream that judges each row as `judgement` says of the rows that `node` makes of it.
pub(super) fn judged(node: Node, judgement: Judgement, stream: &Stream<'_>) -> Result<Node, Fault> {
    match node {
        Node::Input { slot, .. } if slot == stream.slot => gate(node, judgement, stream),
        Node::Project { input, exprs, schema } => {
            let below = judgement.through(&schema, |i| exprs.get(i).cloned().map(Expr::unalias))?;
            Ok(Node::Project { input: Box::new(judged(*input, below, stream)?), exprs, schema })
        }
        Node::Filter { input, predicate } => {
            let mut below = judgement;
            below.conditions.push(predicate.clone());
            Ok(Node::Filter { input: Box::new(judged(*input, below, stream)?), predicate })
        }
        Node::Join { base, arms, schema } => {
            let of_base = Arc::clone(base.schema());
            let below = judgement.through(&schema, |i| column(&of_base, i))?;
            Ok(Node::Join { base: Box::new(judged(*base, below, stream)?), arms, schema })
        }
        Node::Unnest { input, lists, structs, nulls, schema } => {
            // Where each output column comes from, and whether as an element of a list.
            let mut origins = Vec::with_capacity(schema.fields().len());
            for (index, field) in input.schema().fields().iter().enumerate() {
                let unnested = lists.iter().filter(|l| l.column == index).count();
                match field.data_type() {
                    _ if unnested > 0 => origins.extend(std::iter::repeat_n((index, true), unnested)),
                    // Its fields are not followed.
                    arrow::datatypes::DataType::Struct(fields) if structs.contains(&index) => {
                        origins.extend(std::iter::repeat_n((usize::MAX, false), fields.len()));
                    }
                    _ => origins.push((index, false)),
                }
            }
            let of_input = Arc::clone(input.schema());
            let below = judgement.through(&schema, |i| match origins.get(i)? {
                // The row is on time as long as the last of its windows is open.
                (index, true) if is_windows(&input, *index) => Some(array_max(column(&of_input, *index)?)),
                (_, true) => None,
                (index, false) => column(&of_input, *index),
            })?;
            Ok(Node::Unnest { input: Box::new(judged(*input, below, stream)?), lists, structs, nulls, schema })
        }
        _ => Err(unknown()),
    }
}

impl Judgement {
    /// The same, in terms of what stands below: `origin` is what a column of `schema` is made of. Conditions that cannot be told there are left
    /// out.
    fn through(self, schema: &DFSchema, origin: impl Fn(usize) -> Option<Expr>) -> Result<Judgement, Fault> {
        let below = |expr: Expr| -> Option<Expr> {
            let mut lost = false;
            let replaced = expr.transform(|e| {
                let Expr::Column(c) = &e else { return Ok(Transformed::no(e)) };
                Ok(match schema.maybe_index_of_column(c).and_then(&origin) {
                    // What has been put in is not looked at again.
                    Some(found) => {
                        Transformed::new(found, true, datafusion::common::tree_node::TreeNodeRecursion::Jump)
                    }
                    None => {
                        lost = true;
                        Transformed::no(e)
                    }
                })
            });
            replaced.ok().map(|r| r.data).filter(|_| !lost)
        };
        let instant = below(self.instant).ok_or_else(unknown)?;
        let conditions = self.conditions.into_iter().filter_map(below).collect();
        Ok(Judgement { instant, operator: self.operator, conditions })
    }
}

/// Whether a column of `node` is the list of windows that `hop` makes.
pub(super) fn is_windows(node: &Node, index: usize) -> bool {
    let Node::Project { exprs, .. } = node else { return false };
    match exprs.get(index).cloned().map(Expr::unalias) {
        Some(Expr::ScalarFunction(function)) => function.func.name() == "hop_starts",
        _ => false,
    }
}

/// The stream with all its columns, its gate, and above that the columns that are needed.
fn gate(input: Node, judgement: Judgement, stream: &Stream<'_>) -> Result<Node, Fault> {
    let Node::Input { slot, columns, append_only, schema } = input else { return Err(unknown()) };
    let fault = |e: datafusion::common::DataFusionError| Fault::new("sql", e.strip_backtrace());
    let qualifier = schema.iter().next().and_then(|(qualifier, _)| qualifier.cloned());
    let fields = stream.schema.fields().iter().map(|field| (qualifier.clone(), Arc::clone(field))).collect();
    let whole = Arc::new(DFSchema::new_with_metadata(fields, Default::default()).map_err(fault)?);
    let all = (0..stream.schema.fields().len()).collect();
    let input = Node::Input { slot, columns: all, append_only, schema: Arc::clone(&whole) };
    let expr = match judgement.conditions.into_iter().reduce(Expr::and) {
        Some(counts) => when(counts, judgement.instant).end().map_err(fault)?,
        None => judgement.instant,
    };
    let moving = Moving { whole_days: false, months: 0, micros: 0 };
    let bounds = vec![Bound { expr, operator: judgement.operator, moving }];
    let gate = Node::Temporal { input: Box::new(input), bounds, role: TemporalRole::Late };
    let exprs = columns.iter().map(|c| column(&whole, *c).ok_or_else(unknown)).collect::<Result<_, _>>()?;
    Ok(Node::Project { input: Box::new(gate), exprs, schema })
}

pub(super) fn column(schema: &DFSchema, index: usize) -> Option<Expr> {
    let (qualifier, field) = schema.iter().nth(index)?;
    Some(Expr::Column(Column::from((qualifier, field))))
}

fn unknown() -> Fault {
    Fault::new("no-window-end", "when the windows of a row end cannot be told from the stream's own columns")
        .hint("compute the time in a streaming_table of its own, and read that here")
}

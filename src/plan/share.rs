//! Subplans that stand in a tree several times become one [`Node::Shared`]: a named query that is read twice, the sides of a full join, equal
//! arms of a UNION.
//!
//! 1. Every node gets a *class*, from the leaves up: two nodes are of one class when they do the same work on inputs of the same classes.
//!    Columns count by place, so what each reader calls them does not matter; types do.
//! 2. Walking down from the root, each place that reads a class is counted. A class that was met before is not entered again.
//! 3. What is read more than once and costs anything becomes shared; it is computed once per epoch and its state is kept once.
//!
//! Invariants: a tree gives the same rows as before; dice (volatile functions) are thrown as often as they stand in the query; what costs
//! nothing (columns picked from an input) is not shared.

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{Expr, SortExpr};
use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;

use super::incremental::Node;

/// `root` with equal subplans shared.
pub(super) fn share(mut root: Node) -> Node {
    let mut classes = Classes::default();
    let classed = classes.classify(&root);
    let mut readers = vec![0; classes.costly.len()];
    count(&classed, &classes.costly, &mut readers);
    if readers.iter().all(|n| *n < 2) {
        return root;
    }
    Sharing { readers, shared: HashMap::new() }.rewrite(&mut root, &classed);
    root
}

/// A node's class, and those of the nodes it reads.
struct Classed {
    class: usize,
    below: Vec<Classed>,
}

/// What a node does: nodes with equal work are of one class.
#[derive(PartialEq, Eq, Hash)]
struct Work {
    kind: Discriminant<Node>,
    /// Columns are named by their place.
    exprs: Vec<Expr>,
    /// All that is no expression.
    detail: String,
    types: Vec<DataType>,
    /// Classes.
    below: Vec<usize>,
}

#[derive(Default)]
struct Classes<'a> {
    known: HashMap<Work, usize>,
    constants: Vec<&'a [RecordBatch]>,
    /// Of each class, whether it computes or remembers anything.
    costly: Vec<bool>,
}

impl<'a> Classes<'a> {
    fn classify(&mut self, node: &'a Node) -> Classed {
        let below: Vec<Classed> = node.below().into_iter().map(|n| self.classify(n)).collect();
        let costly = costs(node) || below.iter().any(|b| self.costly[b.class]);
        let next = self.costly.len();
        let class = match self.work(node, &below) {
            Some(work) => *self.known.entry(work).or_insert(next),
            // Like nothing else.
            None => next,
        };
        if class == next {
            self.costly.push(costly);
        }
        Classed { class, below }
    }

    /// None of what gives another result each time.
    fn work(&mut self, node: &'a Node, below: &[Classed]) -> Option<Work> {
        let (exprs, detail) = match node {
            Node::Constant { rows, .. } => (vec![], self.constant(rows).to_string()),
            other => work(other)?,
        };
        if exprs.iter().any(Expr::is_volatile) {
            return None;
        }
        let types = node.schema().fields().iter().map(|f| f.data_type().clone()).collect();
        Some(Work { kind: discriminant(node), exprs, detail, types, below: below.iter().map(|b| b.class).collect() })
    }

    /// The number of these rows.
    fn constant(&mut self, rows: &'a [RecordBatch]) -> usize {
        let same = |known: &&[RecordBatch]| {
            known.len() == rows.len()
                && known.iter().zip(rows).all(|(a, b)| a.num_rows() == b.num_rows() && a.columns() == b.columns())
        };
        self.constants.iter().position(same).unwrap_or_else(|| {
            self.constants.push(rows);
            self.constants.len() - 1
        })
    }
}

/// Whether the node itself computes or remembers anything.
fn costs(node: &Node) -> bool {
    match node {
        Node::Project { exprs, .. } => exprs.iter().any(|e| !matches!(e, Expr::Column(_) | Expr::Literal(..))),
        Node::Input { .. }
        | Node::Constant { .. }
        | Node::Union { .. }
        | Node::Shared { .. }
        | Node::Arranged { .. } => false,
        _ => true,
    }
}

/// Expressions of a node, columns named by their place, and the rest of what it does. None of constants, and of what this module makes.
pub(super) fn work(node: &Node) -> Option<(Vec<Expr>, String)> {
    Some(match node {
        Node::Input { slot, columns, .. } => (vec![], format!("{slot} {columns:?}")),
        Node::Project { input, exprs, .. } => (placed(exprs, input.schema())?, String::new()),
        Node::Filter { input, predicate } => (placed([predicate], input.schema())?, String::new()),
        Node::Union { .. } => (vec![], String::new()),
        Node::Unnest { lists, structs, nulls, .. } => (vec![], format!("{lists:?} {structs:?} {nulls:?}")),
        Node::Join { base, arms, .. } => {
            let (mut exprs, mut detail) = (Vec::new(), String::new());
            for arm in arms {
                let seen = base.schema().join(arm.input.schema()).ok();
                exprs.extend(placed(arm.on.iter().map(|(l, _)| l), base.schema())?);
                exprs.extend(placed(arm.on.iter().map(|(_, r)| r), arm.input.schema())?);
                if let Some(residual) = &arm.residual {
                    exprs.extend(placed([residual], &seen?)?);
                }
                let (kind, nulls, keys) = (arm.kind, arm.null_equality, arm.on.len());
                detail += &format!("{kind:?} {nulls:?} {keys} {}; ", arm.residual.is_some());
            }
            (exprs, detail)
        }
        Node::Aggregate { input, group, sets, aggregates, .. } => {
            let mut exprs = placed(group, input.schema())?;
            let mut detail = format!("{} {sets:?}", group.len());
            for aggregate in aggregates {
                exprs.extend(placed([&aggregate.call], input.schema())?);
                exprs.extend(placed(&aggregate.args, input.schema())?);
                exprs.extend(placed(&aggregate.filter, input.schema())?);
                let (class, distinct, append_only) = (aggregate.class, aggregate.distinct, aggregate.append_only);
                let (args, filter) = (aggregate.args.len(), aggregate.filter.is_some());
                detail += &format!("; {class:?} {distinct} {append_only} {args} {filter}");
            }
            (exprs, detail)
        }
        Node::First { input, partition, order, .. } => {
            let mut exprs = placed(partition, input.schema())?;
            exprs.extend(placed(order.iter().map(|o| &o.expr), input.schema())?);
            (exprs, format!("{} {}", partition.len(), directions(order)))
        }
        Node::Window { input, partition, order, calls, reach, visible, .. } => {
            let mut exprs = placed(partition, input.schema())?;
            exprs.extend(placed(order.iter().map(|o| &o.expr), input.schema())?);
            exprs.extend(placed(calls, input.schema())?);
            (exprs, format!("{} {} {reach:?} {visible:?}", partition.len(), directions(order)))
        }
        Node::Session { input, partition, time, gap, ends, closes, bucket, .. } => {
            let exprs = placed(partition.iter().chain([time]), input.schema())?;
            // One that may forget says another row's end when it comes again, which not every reader can do with.
            (exprs, format!("{} {gap:?} {ends:?} {closes:?} {}", partition.len(), bucket.is_some()))
        }
        Node::Temporal { input, bounds, role } => {
            let bounded = bounds.iter().map(|b| format!("{:?} {:?}; ", b.operator, b.moving)).collect::<String>();
            let detail = format!("{role:?} {bounded}");
            (placed(bounds.iter().map(|b| &b.expr), input.schema())?, detail)
        }
        Node::Constant { .. } | Node::Shared { .. } | Node::Arranged { .. } => return None,
    })
}

fn directions(order: &[SortExpr]) -> String {
    order.iter().map(|o| format!("{} {}, ", o.asc, o.nulls_first)).collect()
}

/// Expressions over `schema` with columns named by their place, and without other names.
pub(super) fn placed<'a>(exprs: impl IntoIterator<Item = &'a Expr>, schema: &DFSchema) -> Option<Vec<Expr>> {
    let place = |e: Expr| {
        Ok(match e {
            Expr::Column(column) => {
                let place = schema.index_of_column(&column)?;
                Transformed::yes(Expr::Column(Column::new_unqualified(place.to_string())))
            }
            Expr::Alias(alias) => Transformed::yes(*alias.expr),
            other => Transformed::no(other),
        })
    };
    exprs.into_iter().map(|e| Some(e.clone().transform_up(place).ok()?.data)).collect()
}

/// Counts the places that read each class.
fn count(node: &Classed, costly: &[bool], readers: &mut [usize]) {
    if costly[node.class] {
        readers[node.class] += 1;
        if readers[node.class] > 1 {
            return;
        }
    }
    node.below.iter().for_each(|n| count(n, costly, readers));
}

struct Sharing {
    readers: Vec<usize>,
    /// By class: its number, and the node.
    shared: HashMap<usize, (usize, Arc<Node>)>,
}

impl Sharing {
    fn rewrite(&mut self, node: &mut Node, classed: &Classed) {
        if let Some((id, shared)) = self.shared.get(&classed.class) {
            *node = Node::Shared { id: *id, node: Arc::clone(shared), schema: Arc::clone(node.schema()) };
            return;
        }
        for (below, classed) in node.below_mut().into_iter().zip(&classed.below) {
            self.rewrite(below, classed);
        }
        if self.readers[classed.class] < 2 {
            return;
        }
        let (id, schema) = (self.shared.len(), Arc::clone(node.schema()));
        let shared = Arc::new(node.clone());
        self.shared.insert(classed.class, (id, Arc::clone(&shared)));
        *node = Node::Shared { id, node: shared, schema };
    }
}

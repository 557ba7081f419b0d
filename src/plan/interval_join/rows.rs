//! Where dimensions are looked up beside a join of streams: above it, by what it gives out.
//!
//! A join node keeps or drops rows of its base whole, so it does not matter which of its arms comes first, as long as none looks at another. So
//! `a join d join b` is taken apart into the streams themselves and what is looked up for their rows, in order; the streams are joined, and the rest
//! is put together above them. It cannot be where the streams' own condition looks at a dimension, nor where a row of the right side is to be dropped
//! by one although the left side asks whether it is there.
//!
//! Every stream and dimension has names of its own on the way; those of the query come back in the end.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DFSchemaRef, NullEquality, TableReference};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, when};
use std::sync::Arc;

use super::super::fault::Fault;
use super::super::incremental::{Arm, ArmKind, Node};
use super::super::lateness::Stream;
use super::super::lower::{Fallback, columns_of, joined, one_more, project, renamed, substitute};
use super::{Near, more, paired, reads, sql};

/// `node` with its join of `streams` bounded, and everything else above that.
pub(super) fn placed(node: Node, streams: &[Stream<'_>]) -> Result<Node, Fault> {
    let rows = Taking { streams, names: DFSchema::empty(), renamed: 0 }.apart(node)?;
    match rows.stream {
        Some(_) => Err(more()),
        None => rows.together(),
    }
}

/// A relation that is made of a stream row by row, taken apart.
struct Rows<'a> {
    core: Node,
    /// What `core` is, unless it is two streams that were joined.
    stream: Option<&'a Stream<'a>>,
    /// In this order, over the columns of `core` and those looked up before.
    steps: Vec<Step>,
    /// What the relation's columns are made of.
    columns: Vec<Expr>,
    schema: DFSchemaRef,
}

enum Step {
    Lookup(Box<Arm>),
    Filter(Expr),
}

impl Rows<'_> {
    fn together(self) -> Result<Node, Fault> {
        let mut node = self.core;
        for step in self.steps {
            node = match step {
                Step::Lookup(arm) => one_more(node, *arm).map_err(lost)?,
                Step::Filter(predicate) => Node::Filter { input: Box::new(node), predicate },
            };
        }
        if self.columns == columns_of(node.schema()) && node.schema() == &self.schema {
            return Ok(node);
        }
        project(node, self.columns, self.schema).map_err(sql)
    }
}

struct Taking<'a> {
    streams: &'a [Stream<'a>],
    /// Of all columns so far.
    names: DFSchema,
    renamed: usize,
}

impl<'a> Taking<'a> {
    fn apart(&mut self, node: Node) -> Result<Rows<'a>, Fault> {
        if let Some(stream) = self.streams.iter().find(|s| is_made_of(&node, s.slot)) {
            let schema = Arc::clone(node.schema());
            let (core, columns) = self.named(node)?;
            return Ok(Rows { core, stream: Some(stream), steps: vec![], columns, schema });
        }
        match node {
            Node::Project { input, exprs, schema } => {
                let rows = self.apart(*input)?;
                let made = |e| substitute(e, &rows.schema, &rows.columns).map_err(sql);
                let columns = exprs.into_iter().map(made).collect::<Result<_, _>>()?;
                Ok(Rows { columns, schema, ..rows })
            }
            Node::Filter { input, predicate } => {
                let mut rows = self.apart(*input)?;
                rows.steps.push(Step::Filter(substitute(predicate, &rows.schema, &rows.columns).map_err(sql)?));
                Ok(rows)
            }
            // A full join is a left join and what is left over of the other side.
            Node::Union { inputs, schema } => {
                let inputs = inputs.into_iter().map(|i| placed(i, self.streams)).collect::<Result<_, _>>()?;
                let (core, columns) = self.named(Node::Union { inputs, schema: Arc::clone(&schema) })?;
                Ok(Rows { core, stream: None, steps: vec![], columns, schema })
            }
            Node::Unnest { input, lists, structs, nulls, schema } => {
                let input = Box::new(placed(*input, self.streams)?);
                let unnest = Node::Unnest { input, lists, structs, nulls, schema: Arc::clone(&schema) };
                let (core, columns) = self.named(unnest)?;
                Ok(Rows { core, stream: None, steps: vec![], columns, schema })
            }
            Node::Join { base, arms, schema } => self.join(*base, arms, schema),
            _ => Err(more()),
        }
    }

    fn join(&mut self, base: Node, arms: Vec<Arm>, schema: DFSchemaRef) -> Result<Rows<'a>, Fault> {
        let base_schema = Arc::clone(base.schema());
        // What each arm shows, in the order of the join's output.
        let mut shown: Vec<Vec<Expr>> = vec![vec![]; arms.len()];
        let mut arms: Vec<(usize, Arm)> = arms.into_iter().enumerate().collect();
        let (mut rows, of_base) = match self.has_stream(&base) {
            true => {
                let mut rows = self.apart(base)?;
                let columns = std::mem::take(&mut rows.columns);
                (rows, columns)
            }
            // A dimension joined to a stream is that stream joined to the dimension.
            false => {
                let is_inner = |(_, arm): &(usize, Arm)| arm.kind == ArmKind::Inner && self.has_stream(&arm.input);
                let (slot, arm) = arms.remove(arms.iter().position(is_inner).ok_or_else(backwards)?);
                let arm_schema = Arc::clone(arm.input.schema());
                let mut rows = self.apart(arm.input)?;
                shown[slot] = std::mem::take(&mut rows.columns);
                let (input, of_base) = self.named(base)?;
                let mut on = Vec::with_capacity(arm.on.len());
                for (of_dimension, of_stream) in arm.on {
                    let left = substitute(of_stream, &arm_schema, &shown[slot]).map_err(sql)?;
                    on.push((left, substitute(of_dimension, &base_schema, &of_base).map_err(sql)?));
                }
                let residual = arm.residual.map(|r| both(r, (&base_schema, &of_base), (&arm_schema, &shown[slot])));
                let (residual, null_equality) = (residual.transpose()?, arm.null_equality);
                rows.steps.push(Step::Lookup(Box::new(Arm {
                    input,
                    kind: ArmKind::Inner,
                    on,
                    residual,
                    null_equality,
                })));
                (rows, of_base)
            }
        };
        for (slot, arm) in arms {
            let Arm { input, kind, on, residual, null_equality } = arm;
            let arm_schema = Arc::clone(input.schema());
            let other = match self.has_stream(&input) {
                true => Some(self.apart(input.clone())?),
                false => None,
            };
            let (input, mut of_arm) = match other {
                Some(Rows { ref core, ref columns, .. }) => (core.clone(), columns.clone()),
                None => self.named(input)?,
            };
            let on = on
                .into_iter()
                .map(|(l, r)| Ok((substitute(l, &base_schema, &of_base)?, substitute(r, &arm_schema, &of_arm)?)))
                .collect::<Result<Vec<_>, _>>()
                .map_err(sql)?;
            let residual = residual.map(|r| both(r, (&base_schema, &of_base), (&arm_schema, &of_arm))).transpose()?;
            let arm = Arm { input, kind, on, residual, null_equality };
            let mark = match kind {
                ArmKind::Mark => columns_of(&joined(&DFSchema::empty(), arm.input.schema(), kind).map_err(sql)?),
                _ => vec![],
            };
            match other {
                None => rows.steps.push(Step::Lookup(Box::new(arm))),
                Some(other) => self.pair(&mut rows, arm, other, &mut of_arm)?,
            }
            shown[slot] = match kind {
                ArmKind::Inner | ArmKind::Left => of_arm,
                ArmKind::Semi | ArmKind::Anti | ArmKind::NotIn => vec![],
                ArmKind::Mark => mark,
            };
        }
        let columns = of_base.into_iter().chain(shown.into_iter().flatten()).collect();
        Ok(Rows { columns, schema, ..rows })
    }

    /// Joins the stream of `rows` to that of `other`, which `arm` reads; `shows`: what of it the join's columns are made of.
    fn pair(&self, rows: &mut Rows<'a>, arm: Arm, other: Rows<'a>, shows: &mut [Expr]) -> Result<(), Fault> {
        let (left, right) = (rows.stream.take().ok_or_else(more)?, other.stream.ok_or_else(more)?);
        let sees = |e: &Expr| {
            let has = |node: &Node, c: &Column| node.schema().has_column(c);
            e.column_refs().into_iter().all(|c| has(&rows.core, c) || has(&arm.input, c))
        };
        if !arm.on.iter().all(|(l, r)| sees(l) && sees(r)) || !arm.residual.iter().all(sees) {
            return Err(Fault::new("not-a-stream", "the condition that joins the two streams looks at a dimension")
                .hint("look it up in a streaming_table of its own, and read that as the stream here; or put that part of the condition into WHERE of what reads this table"));
        }
        let has_left_lookups_alone =
            other.steps.iter().all(|step| matches!(step, Step::Lookup(a) if a.kind == ArmKind::Left));
        match arm.kind {
            ArmKind::Inner => {}
            ArmKind::Left => {
                if !other.steps.iter().all(|step| matches!(step, Step::Lookup(a) if finds_nothing_for_null(a))) {
                    return Err(dropped());
                }
                let near = Near::of(&rows.core, &arm)?;
                for expr in shows.iter_mut().filter(|e| !matches!(e, Expr::Column(_))) {
                    *expr = when(near.arm.clone().is_not_null(), expr.clone()).end().map_err(sql)?;
                }
            }
            _ if !has_left_lookups_alone => return Err(dropped()),
            _ => {}
        }
        let shows_matches = matches!(arm.kind, ArmKind::Inner | ArmKind::Left);
        let core = std::mem::replace(&mut rows.core, Node::Union { inputs: vec![], schema: Arc::clone(&rows.schema) });
        rows.core = paired(core, left, arm, right)?;
        // Whether there is a match is no matter of what is looked up for it.
        rows.steps.extend(other.steps.into_iter().filter(|_| shows_matches));
        Ok(())
    }

    fn has_stream(&self, node: &Node) -> bool {
        self.streams.iter().any(|s| reads(node, s.slot))
    }

    /// `node` under names that nothing else has, and its columns.
    fn named(&mut self, node: Node) -> Result<(Node, Vec<Expr>), Fault> {
        let own = Arc::clone(node.schema());
        let taken = |schema: &DFSchema| self.names.join(schema).ok().filter(|all| all.check_names().is_ok());
        if let Some(all) = taken(&own) {
            self.names = all;
            let columns = columns_of(&own);
            return Ok((node, columns));
        }
        self.renamed += 1;
        let qualifier = Some(TableReference::bare(format!("again_{}", self.renamed)));
        let field = |(i, field): (usize, &arrow::datatypes::FieldRef)| {
            let name = format!("{}_{}_{i}", field.name(), self.renamed);
            (qualifier.clone(), Arc::new(field.as_ref().clone().with_name(name)))
        };
        let fields = own.fields().iter().enumerate().map(field).collect();
        let schema = DFSchema::new_with_metadata(fields, Default::default()).map_err(sql)?;
        self.names = self.names.join(&schema).map_err(sql)?;
        let columns = columns_of(&schema);
        Ok((renamed(node, Arc::new(schema)), columns))
    }
}

/// A condition over the columns of two relations, over what these are made of.
fn both(expr: Expr, left: (&DFSchema, &[Expr]), right: (&DFSchema, &[Expr])) -> Result<Expr, Fault> {
    let made = |c: &Column| {
        let of = |(schema, exprs): (&DFSchema, &[Expr])| exprs.get(schema.maybe_index_of_column(c)?).cloned();
        of(left).or_else(|| of(right))
    };
    let replaced = expr.transform_up(|e| {
        let found = if let Expr::Column(c) = &e { made(c) } else { None };
        Ok(found.map_or_else(|| Transformed::no(e), Transformed::yes))
    });
    Ok(replaced.map_err(sql)?.data)
}

/// Whether a row that is NULL in all that the arm looks at keeps its place, and gets NULLs.
fn finds_nothing_for_null(arm: &Arm) -> bool {
    fn is_strict(expr: &Expr) -> bool {
        match expr {
            Expr::Column(_) => true,
            Expr::Cast(Cast { expr, .. }) => is_strict(expr),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                op.is_numerical_operators() && (is_strict(left) || is_strict(right))
            }
            _ => false,
        }
    }
    arm.kind == ArmKind::Left
        && arm.null_equality == NullEquality::NullEqualsNothing
        && arm.on.iter().any(|(left, _)| is_strict(left))
}

/// Whether `node` is made of input `slot`, row by row.
fn is_made_of(node: &Node, slot: usize) -> bool {
    match node {
        Node::Input { slot: own, .. } => *own == slot,
        Node::Project { input, .. } | Node::Filter { input, .. } => is_made_of(input, slot),
        _ => false,
    }
}

fn lost(fallback: Fallback) -> Fault {
    Fault::new("not-a-stream", fallback.to_string()).hint("join the dimensions in a model that reads this table")
}

fn backwards() -> Fault {
    Fault::new("not-a-stream", "a streamed table stands on the side of a join that is looked up")
        .hint("write: from STREAM(…) join …, the dimensions behind the streams")
}

fn dropped() -> Fault {
    Fault::new("not-a-stream", "a dimension decides which rows of the second stream there are, and the join asks whether there is one")
        .hint("look it up in a streaming_table of its own, and read that as the stream here; a LEFT JOIN to the dimension keeps all rows")
}

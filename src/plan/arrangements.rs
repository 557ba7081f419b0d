//! Rows that several joins keep become one [`Arrangement`]: a dimension that many models join, both sides of a full join, a table joined to itself.
//!
//! 1. What a join reads has a *name*: what computes it, down to the relations, where columns count by place, and the columns by which its rows are
//!    dealt out to threads. Names are equal across models.
//! 2. Where a name stands in several places of all models, each place says so ([`Node::Arranged`]), and `operators` keep those rows once.
//!
//! A name is a hint: rows are found by their value, so joins whose rows turn out to differ would only share fewer of them. Rows that are never
//! retracted are not found by anything where they are kept (`state::log`), and are kept by each join.

use datafusion::logical_expr::Expr;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

use super::compile::CompiledModel;
use super::incremental::{Arm, Arrangement, Node, Routes};
use super::relation::Input;
use super::share::{placed, work};

/// Marks what joins of `models` keep together.
pub(super) fn arrange(models: &mut [CompiledModel]) {
    let mut readers: HashMap<Arc<str>, Vec<(String, Option<Arc<str>>)>> = HashMap::new();
    for model in models.iter_mut() {
        let reader = model.model.name.clone();
        each_kept(model, &mut |name, key| {
            readers.entry(name).or_default().push((reader.clone(), key));
            None
        });
    }
    readers.retain(|_, readers| readers.len() > 1);
    if readers.is_empty() {
        return;
    }
    for model in models {
        each_kept(model, &mut |name, key| Some(Arrangement { readers: readers.get(&name)?.clone(), name, key }));
    }
}

/// What becomes of rows with this name and this key.
type Arrange<'a> = dyn FnMut(Arc<str>, Option<Arc<str>>) -> Option<Arrangement> + 'a;

/// Asks for the arrangement of everything that joins of `model` keep and that has a name.
fn each_kept(model: &mut CompiledModel, arrangement: &mut Arrange<'_>) {
    let kind = model.model.materialized;
    if !kind.has_table() || kind.is_scheduled() {
        return;
    }
    if let Ok(root) = &mut model.incremental {
        Walk { inputs: &model.inputs, stream: model.stream, shared: HashMap::new(), arrangement }.walk(root);
    }
}

/// By what rows of an arm are found, columns by their place.
fn key(arm: &Arm) -> Option<Arc<str>> {
    let schema = arm.input.schema();
    let by = placed(arm.on.iter().map(|(_, r)| r), schema)?;
    Some(format!("{by:?} {:?}", arm.null_equality).into())
}

struct Walk<'a> {
    inputs: &'a [Input],
    /// Slot of the streamed input.
    stream: Option<usize>,
    /// What several places of the tree read, by number.
    shared: HashMap<usize, Arc<Node>>,
    arrangement: &'a mut Arrange<'a>,
}

impl Walk<'_> {
    fn walk(&mut self, node: &mut Node) {
        if let Node::Shared { id, node, .. } = node {
            if let Some(walked) = self.shared.get(id) {
                *node = Arc::clone(walked);
                return;
            }
            let mut below = Node::clone(node);
            self.walk(&mut below);
            *node = Arc::new(below);
            self.shared.insert(*id, Arc::clone(node));
            return;
        }
        node.below_mut().into_iter().for_each(|below| self.walk(below));
        let Node::Join { base, arms, .. } = node else { return };
        // Rows of a streamed base are not kept, and its join is not dealt out.
        let streamed = self.stream.is_some_and(|slot| base.streams(slot));
        let routes = Routes::of_join(base, arms).filter(|_| !streamed).map_or_else(Vec::new, |Routes(routes)| routes);
        let keys: Vec<_> = arms.iter().map(key).collect();
        let kept = std::iter::once((&mut **base, None)).chain(arms.iter_mut().map(|arm| &mut arm.input).zip(keys));
        for (at, (input, key)) in kept.enumerate().skip(usize::from(streamed)) {
            if input.is_append_only() || input.schema().fields().is_empty() {
                continue;
            }
            let Some(name) = self.name(input, routes.get(at).map_or(&[], Vec::as_slice)) else { continue };
            if let Some(arrangement) = (self.arrangement)(name, key) {
                let below =
                    std::mem::replace(input, Node::Union { inputs: vec![], schema: Arc::clone(input.schema()) });
                *input = Node::Arranged { input: Box::new(below), arrangement };
            }
        }
    }

    /// 32 hex digits. None of what is computed anew in each place.
    fn name(&self, node: &Node, routes: &[usize]) -> Option<Arc<str>> {
        let mut text = format!("{routes:?} ");
        self.write(node, &mut text)?;
        Some(format!("{:032x}", xxh3_128(text.as_bytes())).into())
    }

    fn write(&self, node: &Node, out: &mut String) -> Option<()> {
        match node {
            Node::Shared { node, .. } => return self.write(node, out),
            Node::Arranged { input, .. } => return self.write(input, out),
            Node::Input { slot, columns, .. } => {
                write!(out, "{} {columns:?}", self.inputs.get(*slot)?.relation).ok()?;
            }
            other => {
                let (exprs, detail) = work(other)?;
                if exprs.iter().any(Expr::is_volatile) {
                    return None;
                }
                write!(out, "{:?} {exprs:?} {detail} (", std::mem::discriminant(other)).ok()?;
                for below in other.below() {
                    self.write(below, out)?;
                    out.push(',');
                }
                out.push(')');
            }
        }
        for field in node.schema().fields() {
            write!(out, " {}", field.data_type()).ok()?;
        }
        Some(())
    }
}

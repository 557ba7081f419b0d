//! Rows that several joins keep become one [`Arrangement`]: a dimension that many models join, both sides of a full join, a table joined to itself.
//!
//! 1. What a join reads has a *name*: what computes it, down to the relations, where columns count by place, and the columns by which its rows are
//!    dealt out to threads. Names are equal across models. Of a relation read as it is, or filtered, the name does not say which columns are read.
//! 2. Where joins of one name need different columns, they keep together all that any of them needs, if that is less than what they would keep apart ([`Kept::bytes`]).
//! 3. Where several joins keep the same rows, each place says so ([`Node::Arranged`]), and `operators` keep those rows once.
//!
//! A name is a hint: rows are found by their value, so joins whose rows turn out to differ would only share fewer of them. Rows that are never
//! retracted are shared by their order (`state::log::shared`): a join that gets them in another one parts from the others.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::logical_expr::Expr;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

use super::compile::CompiledModel;
use super::incremental::{Arm, Arrangement, Node, Routes};
use super::relation::Input;
use super::share::{placed, work};

/// Marks what joins of `models` keep together.
pub(super) fn arrange(models: &mut [CompiledModel]) {
    let mut places: Vec<(String, Kept)> = Vec::new();
    for model in models.iter_mut() {
        let reader = model.model.name.clone();
        each_kept(model, &mut |kept| {
            places.push((reader.clone(), kept));
            None
        });
    }
    let mut arrangements = together(&places).into_iter();
    for model in models {
        each_kept(model, &mut |_| arrangements.next().flatten());
    }
}

/// What a join keeps of an input.
#[derive(Clone)]
struct Kept {
    name: String,
    /// Whether no row is ever retracted.
    only_grows: bool,
    /// By what an arm's rows are found.
    key: Option<Arc<str>>,
    /// Of a relation that is read as it is, or filtered: the columns needed of it, and about how many bytes a value of each takes.
    columns: Option<BTreeMap<usize, usize>>,
}

/// What a row takes beside its columns: where it is, how it is found by its value and by a key.
const ROW: usize = 60;
/// What each holder of rows that are kept once has of its own for a row.
const HOLD: usize = 16;
/// What a row takes beside its columns that is never retracted: its place under a key. A holder has nothing of its own.
const LOGGED: usize = 12;

impl Kept {
    fn bytes(&self) -> usize {
        let row = if self.only_grows { LOGGED } else { ROW };
        row + self.columns.iter().flat_map(BTreeMap::values).sum::<usize>()
    }

    /// Whether rows with the columns of all `holders` take less than rows of each of them, which take `apart`.
    fn is_less(&self, holders: usize, apart: usize) -> bool {
        match self.only_grows {
            // Columns that others need are read and compared.
            true => self.bytes() * 4 <= apart * 3,
            false => self.bytes() + HOLD * holders < apart,
        }
    }
}

/// What is to be kept of a relation together, and the arrangement.
struct Decided {
    /// In this order; None: as it is.
    columns: Option<Vec<usize>>,
    arrangement: Arrangement,
}

/// For each of `places`, with whom it keeps its rows.
fn together(places: &[(String, Kept)]) -> Vec<Option<Decided>> {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, (_, kept)) in places.iter().enumerate() {
        groups.entry(&kept.name).or_default().push(at);
    }
    let mut decided: Vec<Option<Decided>> = places.iter().map(|_| None).collect();
    for (name, group) in groups.into_iter().filter(|(_, group)| group.len() > 1) {
        let mut union: BTreeMap<usize, usize> = BTreeMap::new();
        group.iter().flat_map(|at| &places[*at].1.columns).for_each(|columns| union.extend(columns));
        let apart: usize = group.iter().map(|at| places[*at].1.bytes()).sum();
        let once = Kept { columns: Some(union), ..places[group[0]].1.clone() }.is_less(group.len(), apart);
        let mut parts: BTreeMap<Option<Vec<usize>>, Vec<usize>> = BTreeMap::new();
        for at in group {
            // Together, or with those that need the same.
            let own = places[at].1.columns.as_ref();
            let columns = own.map(|own| if once { BTreeMap::new() } else { own.clone() });
            parts.entry(columns.map(|columns| columns.into_keys().collect())).or_default().push(at);
        }
        for part in parts.into_values().filter(|part| part.len() > 1) {
            let columns = places[part[0]].1.columns.as_ref().map(|_| {
                let all: BTreeSet<usize> =
                    part.iter().flat_map(|at| &places[*at].1.columns).flat_map(BTreeMap::keys).copied().collect();
                all.into_iter().collect::<Vec<_>>()
            });
            let name: Arc<str> = format!("{:032x}", xxh3_128(format!("{name} {columns:?}").as_bytes())).into();
            let readers: Vec<_> = part.iter().map(|at| (places[*at].0.clone(), places[*at].1.key.clone())).collect();
            for at in part {
                let key = places[at].1.key.clone();
                let arrangement = Arrangement { name: Arc::clone(&name), key, readers: readers.clone() };
                decided[at] = Some(Decided { columns: columns.clone(), arrangement });
            }
        }
    }
    decided
}

/// What becomes of what a join keeps.
type Decide<'a> = dyn FnMut(Kept) -> Option<Decided> + 'a;

/// Asks what becomes of everything that joins of `model` keep and that has a name, always in the same order.
fn each_kept(model: &mut CompiledModel, decide: &mut Decide<'_>) {
    let kind = model.model.materialized;
    if !kind.has_table() || kind.is_scheduled() {
        return;
    }
    if let Ok(root) = &mut model.incremental {
        Walk { inputs: &model.inputs, stream: model.stream, shared: HashMap::new(), decide }.walk(root);
    }
}

struct Walk<'a, 'd> {
    inputs: &'a [Input],
    /// Slot of the streamed input.
    stream: Option<usize>,
    /// What several places of the tree read, by number.
    shared: HashMap<usize, Arc<Node>>,
    decide: &'a mut Decide<'d>,
}

impl Walk<'_, '_> {
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
        for at in usize::from(streamed)..=arms.len() {
            let routes = routes.get(at).map_or(&[][..], Vec::as_slice);
            let arm = at.checked_sub(1).map(|at| &arms[at]);
            let input = arm.map_or(&**base, |arm| &arm.input);
            let Some(kept) = self.kept(input, arm, routes) else { continue };
            let Some(decided) = (self.decide)(kept) else { continue };
            let arranged = self.arranged(input, decided);
            match at.checked_sub(1) {
                None => **base = arranged,
                Some(at) => arms[at].input = arranged,
            }
        }
    }

    fn arranged(&self, input: &Node, Decided { columns, arrangement }: Decided) -> Node {
        let schema = Arc::clone(input.schema());
        let as_it_is = || ((0..schema.fields().len()).collect(), input.clone());
        let (shown, input) = match (columns, self.scan(input)) {
            (Some(columns), Some(scan)) if scan.columns != columns => {
                let place = |column: &usize| columns.iter().position(|of| of == column);
                let shown: Option<Vec<usize>> = scan.columns.iter().map(place).collect();
                shown.zip(self.widened(&scan, &columns)).unwrap_or_else(as_it_is)
            }
            _ => as_it_is(),
        };
        Node::Arranged { input: Box::new(input), shown, arrangement, schema }
    }

    /// What is kept of a join's input; None of what goes by itself.
    fn kept(&self, input: &Node, arm: Option<&Arm>, routes: &[usize]) -> Option<Kept> {
        if input.schema().fields().is_empty() {
            return None;
        }
        let only_grows = input.is_append_only();
        let of = if only_grows { "log of " } else { "" };
        if let Some(scan) = self.scan(input) {
            let routes: Vec<usize> = routes.iter().map(|place| scan.columns[*place]).collect();
            let relation = &self.inputs.get(scan.slot)?;
            let bytes = |column: &usize| {
                let width = relation.schema.field(*column).data_type().primitive_width();
                (*column, width.unwrap_or(24))
            };
            return Some(Kept {
                name: format!("{of}{} where {:?} by {routes:?}", relation.relation, scan.predicates),
                only_grows,
                key: arm.and_then(|arm| key(arm, &|place| scan.columns.get(place).copied())),
                columns: Some(scan.columns.iter().map(bytes).collect()),
            });
        }
        let mut name = format!("{of}{routes:?} ");
        self.write(input, &mut name)?;
        Some(Kept { name, only_grows, key: arm.and_then(|arm| key(arm, &Some)), columns: None })
    }

    fn write(&self, node: &Node, out: &mut String) -> Option<()> {
        match node {
            Node::Shared { node, .. } => return self.write(node, out),
            Node::Arranged { input, shown, .. } => {
                write!(out, "{shown:?} of ").ok()?;
                return self.write(input, out);
            }
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

    /// `node` as columns of a relation's rows.
    fn scan(&self, node: &Node) -> Option<Scan> {
        match node {
            Node::Input { slot, columns, schema, .. } if !columns.is_empty() => {
                let qualifier = schema.qualified_field(0).0.cloned();
                let known = columns.iter().zip(schema.fields());
                let relation = &self.inputs.get(*slot)?.schema;
                let same = known.into_iter().all(|(column, field)| relation.field(*column).name() == field.name());
                same.then(|| Scan { slot: *slot, qualifier, columns: columns.clone(), predicates: vec![] })
            }
            Node::Filter { input, predicate } => {
                let mut scan = self.scan(input)?;
                let [predicate] = placed([predicate], input.schema())?.try_into().ok()?;
                scan.predicates.push(renamed(predicate, &|place| scan.columns.get(place).copied())?);
                (!scan.predicates.iter().any(Expr::is_volatile)).then_some(scan)
            }
            Node::Project { input, exprs, .. } => {
                let mut scan = self.scan(input)?;
                let places = placed(exprs, input.schema())?;
                let column = |e: &Expr| match e {
                    Expr::Column(column) => scan.columns.get(column.name.parse::<usize>().ok()?).copied(),
                    _ => None,
                };
                scan.columns = places.iter().map(column).collect::<Option<_>>()?;
                Some(scan)
            }
            _ => None,
        }
    }

    /// These columns of the same rows.
    fn widened(&self, scan: &Scan, columns: &[usize]) -> Option<Node> {
        let relation = self.inputs.get(scan.slot)?;
        let asked = scan.predicates.iter().flat_map(Expr::column_refs).map(|c| c.name.parse::<usize>());
        let mut all: BTreeSet<usize> = columns.iter().copied().collect();
        for column in asked {
            all.insert(column.ok()?);
        }
        let name = |column: usize| Column::new(scan.qualifier.clone(), relation.schema.field(column).name());
        let schema = |columns: &mut dyn Iterator<Item = usize>| {
            let field = |column: usize| (scan.qualifier.clone(), Arc::new(relation.schema.field(column).clone()));
            DFSchema::new_with_metadata(columns.map(field).collect(), HashMap::default()).ok().map(Arc::new)
        };
        let wide = schema(&mut all.iter().copied())?;
        let read: Vec<usize> = all.into_iter().collect();
        let is_exact = read == columns;
        let mut node = Node::Input { slot: scan.slot, columns: read, append_only: relation.append_only, schema: wide };
        for predicate in &scan.predicates {
            let named = predicate.clone().transform_up(|e| match &e {
                Expr::Column(column) => match column.name.parse::<usize>() {
                    Ok(place) => Ok(Transformed::yes(Expr::Column(name(place)))),
                    Err(_) => Ok(Transformed::no(e)),
                },
                _ => Ok(Transformed::no(e)),
            });
            node = Node::Filter { input: Box::new(node), predicate: named.ok()?.data };
        }
        if !is_exact {
            let exprs = columns.iter().map(|column| Expr::Column(name(*column))).collect();
            node = Node::Project { input: Box::new(node), exprs, schema: schema(&mut columns.iter().copied())? };
        }
        Some(node)
    }
}

/// Columns of a relation's rows that pass a filter.
struct Scan {
    slot: usize,
    qualifier: Option<TableReference>,
    columns: Vec<usize>,
    /// Over the relation's columns, which are named by their place in it.
    predicates: Vec<Expr>,
}

/// `expr`, whose columns are named by their place, with the places that `place` gives for them.
fn renamed(expr: Expr, place: &dyn Fn(usize) -> Option<usize>) -> Option<Expr> {
    let mut known = true;
    let renamed = expr.transform_up(|e| match &e {
        Expr::Column(column) => match column.name.parse().ok().and_then(place) {
            Some(place) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(place.to_string())))),
            None => {
                known = false;
                Ok(Transformed::no(e))
            }
        },
        _ => Ok(Transformed::no(e)),
    });
    renamed.ok().map(|renamed| renamed.data).filter(|_| known)
}

/// By what rows of an arm are found; `place` says where a column of the arm's stands.
fn key(arm: &Arm, place: &dyn Fn(usize) -> Option<usize>) -> Option<Arc<str>> {
    let by = placed(arm.on.iter().map(|(_, r)| r), arm.input.schema())?;
    let by: Vec<Expr> = by.into_iter().map(|e| renamed(e, place)).collect::<Option<_>>()?;
    Some(format!("{by:?} {:?}", arm.null_equality).into())
}

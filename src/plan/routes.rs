//! How the rows of a stateful node can be dealt out to several of its kind: by columns that its key contains.
//!
//! A join of one base with arms by different keys (a star) has no such columns. Each of several can have a part of the base, though, with the matching
//! rows of the arms that are found by the same columns as that part, and all rows of the other arms.

use arrow::datatypes::DataType;
use datafusion::logical_expr::Expr;

use super::incremental::{Arm, ArmKind, Node};
use super::join_order::is_filtered;

/// Columns by which rows are dealt out: of every input as many, with equal types; or none, where each gets all rows of that input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes(pub Vec<Vec<usize>>);

impl Routes {
    /// By input, columns of which equal rows of all inputs have equal values; None if there is none that can be hashed.
    fn new(inputs: Vec<Vec<(usize, DataType)>>) -> Option<Self> {
        let first = inputs.first()?;
        let usable = |i: &usize| {
            let types = || inputs.iter().filter_map(|columns| columns.get(*i).map(|(_, t)| t));
            is_hashable(&first[*i].1) && types().count() == inputs.len() && types().all(|t| *t == first[*i].1)
        };
        let usable: Vec<usize> = (0..first.len()).filter(usable).collect();
        let of_input = |columns: &Vec<(usize, DataType)>| usable.iter().map(|i| columns[*i].0).collect();
        (!usable.is_empty()).then(|| Routes(inputs.iter().map(of_input).collect()))
    }

    /// By those of the expressions `by` over `input` that are columns.
    pub fn by(input: &Node, by: &[Expr]) -> Option<Routes> {
        Routes::new(vec![by.iter().filter_map(|expr| column(expr, input)).collect()])
    }

    /// Whether some input is not dealt out: each gets all of its rows.
    pub fn copies(&self) -> bool {
        self.0.iter().any(Vec::is_empty)
    }

    /// By columns of the base that every arm is joined by.
    pub fn of_join(base: &Node, arms: &[Arm]) -> Option<Routes> {
        Self::of_arms(base, &arms.iter().collect::<Vec<_>>())
    }

    /// By columns of the base that some arms are joined by, as many as can be; others have their rows copied. The larger an arm, the better it is to
    /// deal it out: one without a filter goes before others. Where no arm is joined by columns, the base is dealt out by what it has.
    pub fn of_star(base: &Node, arms: &[Arm]) -> Option<Routes> {
        let led_by = |first: usize| {
            let mut dealt = vec![first];
            let mut routes = Self::of_arms(base, &[&arms[first]])?;
            for other in (0..arms.len()).filter(|other| *other != first) {
                let more: Vec<&Arm> = dealt.iter().chain([&other]).map(|at| &arms[*at]).collect();
                if let Some(found) = Self::of_arms(base, &more) {
                    routes = found;
                    dealt.push(other);
                }
            }
            let rank = (dealt.len(), !is_filtered(&arms[first].input));
            Some((rank, dealt, routes))
        };
        let all = vec![vec![]; arms.len() + 1];
        // The first of those that are equal.
        let best = (0..arms.len()).rev().filter_map(led_by).max_by_key(|(rank, ..)| *rank);
        let Some((_, dealt, Routes(columns))) = best else {
            let hashable = base.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
            let Routes(mut own) = Self::by(base, &hashable)?;
            let mut inputs = all;
            inputs[0] = own.pop()?;
            return Some(Routes(inputs));
        };
        let mut inputs = all;
        for (input, columns) in std::iter::once(0).chain(dealt.into_iter().map(|arm| arm + 1)).zip(columns) {
            inputs[input] = columns;
        }
        Some(Routes(inputs))
    }

    /// NOT IN asks whether there is any row at all.
    fn of_arms(base: &Node, arms: &[&Arm]) -> Option<Routes> {
        if arms.iter().any(|arm| arm.kind == ArmKind::NotIn) {
            return None;
        }
        let pairs = |arm: &Arm| -> Vec<Pair> {
            let pair = |(l, r): &(Expr, Expr)| Some((column(l, base)?, column(r, &arm.input)?));
            arm.on.iter().filter_map(pair).collect()
        };
        let pairs: Vec<_> = arms.iter().map(|arm| pairs(arm)).collect();
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
}

/// A column and its type.
type Typed = (usize, DataType);
/// Equal columns of a base and an arm.
type Pair = (Typed, Typed);

/// The column of `node`'s rows that an expression is, and its type.
fn column(expr: &Expr, node: &Node) -> Option<Typed> {
    let Expr::Column(column) = expr else { return None };
    let at = node.schema().maybe_index_of_column(column)?;
    let data_type = node.schema().field(at).data_type().clone();
    match node {
        // Its rows have more columns than it shows.
        Node::Arranged { shown, .. } => Some((*shown.get(at)?, data_type)),
        _ => Some((at, data_type)),
    }
}

fn is_hashable(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(data_type, DataType::Utf8 | DataType::Binary | DataType::Date32 | DataType::Timestamp(..))
}

//! Window functions, and `ORDER BY … LIMIT` as a condition on the row number.

use arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprFunctionExt, FetchType, Limit, LogicalPlan, Operator, SkipType, Sort, Window,
    WindowFunctionDefinition, lit,
};
use std::sync::Arc;

use super::first::stripped;
use super::{Fallback, Lowering, columns_of, filter_of, no_subquery, project, renamed, sessions, unaliased};
use crate::plan::determinism;
use crate::plan::incremental::{Extent, Node, Rank, Reach, Visible};
use crate::plan::reach::reach_of;

/// The column that numbers rows for a LIMIT.
const NUMBER: &str = "__row_number";

impl Lowering<'_> {
    /// Functions over one partitioning and order are one node.
    pub(super) fn window(&self, window: &Window) -> Result<Node, Fallback> {
        no_subquery(&window.window_expr)?;
        let mut node = self.plan(&window.input)?;
        let width = window.input.schema().fields().len();
        let mut left: Vec<(usize, WindowFunction)> = Vec::with_capacity(window.window_expr.len());
        for (i, expr) in window.window_expr.iter().enumerate() {
            match unaliased(expr) {
                Expr::WindowFunction(function) => left.push((width + i, *function)),
                _ => return Err(Fallback::new("a window", "one of its expressions is no window function")),
            }
        }
        while let Some((_, first)) = left.first() {
            let (partition, order) = (first.params.partition_by.clone(), first.params.order_by.clone());
            let same = |f: &WindowFunction| f.params.partition_by == partition && f.params.order_by == order;
            let (these, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, function)| same(function));
            left = others;
            let mut fields: Vec<_> = node.schema().iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
            fields.extend(these.iter().map(|(at, _)| {
                let (qualifier, field) = window.schema.qualified_field(*at);
                (qualifier.cloned(), Arc::clone(field))
            }));
            let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
            let reach = these.iter().fold(Reach::default(), |reach, (_, function)| reach.and(reach_of(function)));
            let calls = these.into_iter().map(|(_, function)| Expr::WindowFunction(Box::new(function))).collect();
            let (input, visible, bucket) = (Box::new(node), None, None);
            let made = Node::Window { input, partition, order, calls, reach, visible, bucket, schema };
            node = sessions::recognised(made)?;
        }
        Ok(project(node, columns_of(&window.schema), Arc::clone(&window.schema))?)
    }

    pub(super) fn limit(&self, limit: &Limit) -> Result<Node, Fallback> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Err(Fallback::new("LIMIT", "its bounds are no constants"));
        };
        // A bound that determinism gave it, so that DataFusion leaves its sort where it is.
        let fetch = fetch.filter(|fetch| *fetch < determinism::MOST as usize);
        self.limited(&limit.input, skip, fetch)
    }

    /// A sort, of which nobody sees more than how many rows it gives out.
    pub(super) fn sort(&self, sort: &Sort) -> Result<Node, Fallback> {
        match sort.fetch {
            Some(_) => self.numbered(sort, 0, sort.fetch),
            None => self.plan(&sort.input),
        }
    }

    /// Rows number `skip` + 1 and so on of what a sort below `plan` gives; `fetch` of them.
    fn limited(&self, plan: &LogicalPlan, skip: usize, fetch: Option<usize>) -> Result<Node, Fallback> {
        match plan {
            LogicalPlan::Sort(sort) => {
                let fetch = match (fetch, sort.fetch) {
                    (Some(fetch), Some(sorted)) => Some(fetch.min(sorted.saturating_sub(skip))),
                    (None, Some(sorted)) => Some(sorted.saturating_sub(skip)),
                    (fetch, None) => fetch,
                };
                self.numbered(sort, skip, fetch)
            }
            LogicalPlan::Projection(projection) => {
                no_subquery(&projection.expr)?;
                let input = self.limited(&projection.input, skip, fetch)?;
                let exprs = projection.expr.iter().map(unaliased).collect();
                Ok(project(input, exprs, Arc::clone(&projection.schema))?)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                Ok(renamed(self.limited(&alias.input, skip, fetch)?, Arc::clone(&alias.schema)))
            }
            _ => Err(Fallback::new("LIMIT", "the visible range is found by sorting all rows")),
        }
    }

    fn numbered(&self, sort: &Sort, skip: usize, fetch: Option<usize>) -> Result<Node, Fallback> {
        let keys: Vec<Expr> = sort.expr.iter().map(|key| key.expr.clone()).collect();
        no_subquery(&keys)?;
        let input = self.plan(&sort.input)?;
        let number = WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), vec![]);
        let call = Expr::from(number).order_by(sort.expr.clone()).build()?;
        let of_input = Arc::clone(input.schema());
        if of_input.iter().any(|(_, field)| field.name() == NUMBER) {
            return Err(Fallback::new("LIMIT", format!("`{NUMBER}` is the name of a column")));
        }
        let mut fields: Vec<_> = of_input.iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
        fields.push((None, Arc::new(Field::new(NUMBER, DataType::UInt64, false))));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        let most = fetch.map(|fetch| skip.saturating_add(fetch));
        let node = Node::Window {
            input: Box::new(input),
            partition: vec![],
            order: sort.expr.clone(),
            calls: vec![call],
            reach: Reach { before: Extent::ALL, after: Extent::default() },
            visible: most.map(|most| Visible { rank: Rank::RowNumber, most }),
            bucket: None,
            schema,
        };
        let skipped = Expr::Column(Column::new_unqualified(NUMBER)).gt(lit(skip as u64));
        let node = if skip > 0 { filter_of(node, skipped) } else { node };
        Ok(project(node, columns_of(&of_input), of_input)?)
    }
}

/// `predicate` over `node`; where it lets only the first ranks of a window through, the window is told.
pub(super) fn filtered(mut node: Node, predicate: Expr) -> Node {
    for part in split_conjunction(&predicate) {
        if let Some((column, most)) = upper_bound(part)
            && let Some(place) = node.schema().maybe_index_of_column(column)
        {
            show(&mut node, place, most);
        }
    }
    filter_of(node, predicate)
}

/// Tells the window below `node` that of the column in `place`, if that is a rank of its own, only values up to `most` are wanted.
fn show(node: &mut Node, place: usize, most: usize) {
    match node {
        Node::Project { input, exprs, .. } => {
            if let Some(Expr::Column(column)) = exprs.get(place)
                && let Some(place) = input.schema().maybe_index_of_column(column)
            {
                show(input, place, most);
            }
        }
        Node::Filter { input, .. } => show(input, place, most),
        Node::Window { input, calls, reach, visible, .. } => {
            let call = place.checked_sub(input.schema().fields().len()).and_then(|at| calls.get(at));
            let rank = match call {
                Some(Expr::WindowFunction(f)) if f.fun.name() == "row_number" => Rank::RowNumber,
                Some(Expr::WindowFunction(f)) if f.fun.name() == "rank" => Rank::Rank,
                Some(Expr::WindowFunction(f)) if f.fun.name() == "dense_rank" => Rank::DenseRank,
                _ => return,
            };
            // The others must find all that they look at among the first.
            let is_enough = reach.after.rows == 0 && (!reach.after.peers || rank != Rank::RowNumber);
            if is_enough && visible.is_none_or(|visible| most < visible.most) {
                *visible = Some(Visible { rank, most });
            }
        }
        _ => {}
    }
}

/// `column <= most`, as some comparison with a constant says it.
fn upper_bound(predicate: &Expr) -> Option<(&Column, usize)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = predicate else { return None };
    let (column, op, bound) = match (stripped(left), stripped(right)) {
        (Expr::Column(column), Expr::Literal(bound, _)) => (column, *op, bound),
        (Expr::Literal(bound, _), Expr::Column(column)) => (column, op.swap()?, bound),
        _ => return None,
    };
    let Ok(ScalarValue::Int64(Some(bound))) = bound.cast_to(&DataType::Int64) else { return None };
    let most = match op {
        Operator::Eq | Operator::LtEq => bound,
        Operator::Lt => bound.saturating_sub(1),
        _ => return None,
    };
    Some((column, usize::try_from(most.max(0)).ok()?))
}

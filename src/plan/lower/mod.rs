//! Optimised logical plan → [`Node`], or the reason why not.
//!
//! One function per operator; what none of them takes is a [`Fallback`]: the whole model is then recomputed and compared with
//! its table, which is right by construction. Column pruning and filter placement have been done by DataFusion's
//! optimizer; here only the shape changes: joins become n-way, `row_number() = 1` becomes [`Node::First`], and
//! projections that only rename are merged into what stands below or above them.

mod aggregate;
mod chain;
mod first;
mod join;
mod sessions;
mod window;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DFSchemaRef, DataFusionError, ScalarValue};
use datafusion::datasource::source_as_provider;
use datafusion::execution::SessionState;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    ColumnUnnestList, EmptyRelation, Expr, Filter, LogicalPlan, Projection, TableScan, Unnest, Values,
};
use datafusion::physical_plan::{ColumnarValue, ExecutionPlanProperties};
use futures::TryStreamExt;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

pub(super) use self::join::{joined, one_more};
use super::incremental::{Node, TemporalRole, UnnestedList};
use super::relation::{Input, relation_of};
use super::temporal;

/// Why a model is recomputed as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// The operator, as SQL knows it: `ORDER BY … LIMIT`.
    pub operator: String,
    pub reason: String,
}

impl Fallback {
    pub(crate) fn new(operator: impl Into<String>, reason: impl Into<String>) -> Self {
        Fallback { operator: operator.into(), reason: reason.into() }
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operator, self.reason)
    }
}

impl From<DataFusionError> for Fallback {
    fn from(error: DataFusionError) -> Self {
        Fallback::new("the plan", format!("could not be taken apart ({})", error.strip_backtrace()))
    }
}

/// Rows of a table function that are kept as a constant.
const MOST_GENERATED: usize = 1_000_000;

/// Lowers `plan`, whose scans read `inputs`. `key` of an input is its relation and whether it is streamed. With `timed` the clock is an
/// input: conditions on it become [`Node::Temporal`], otherwise each row asks it once.
pub(crate) fn lower(plan: &LogicalPlan, slots: &Slots, state: &SessionState, timed: bool) -> Result<Node, Fallback> {
    Lowering { slots, state, timed }.plan(plan)
}

/// The slots of a model: its inputs, and which of them is read as a stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots {
    pub inputs: Vec<Input>,
    pub streamed: Vec<bool>,
}

impl Slots {
    pub fn find(&self, source: &super::relation::RelationSource) -> Option<usize> {
        (0..self.inputs.len())
            .find(|i| self.inputs[*i].relation == source.relation && self.streamed[*i] == source.streamed)
    }

    /// A streamed input beside `stream`.
    pub fn other_stream(&self, stream: Option<usize>) -> Option<usize> {
        stream.and_then(|one| (0..self.inputs.len()).find(|slot| *slot != one && self.streamed[*slot]))
    }
}

struct Lowering<'a> {
    slots: &'a Slots,
    state: &'a SessionState,
    timed: bool,
}

impl Lowering<'_> {
    fn plan(&self, plan: &LogicalPlan) -> Result<Node, Fallback> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Filter(filter) if self.timed && temporal::asks_clock(&filter.predicate) => {
                self.temporal(filter)
            }
            LogicalPlan::Filter(filter) => {
                if let Some((window, columns)) = first::window_below(&filter.input)?
                    && let Some(first) = self.first(filter, window, columns)?
                {
                    return Ok(first);
                }
                no_subquery(std::slice::from_ref(&filter.predicate))?;
                Ok(window::filtered(self.plan(&filter.input)?, filter.predicate.clone()))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.plan(&alias.input)?;
                Ok(renamed(input, Arc::clone(&alias.schema)))
            }
            LogicalPlan::Union(union) => {
                let inputs = union.inputs.iter().map(|i| self.plan(i)).collect::<Result<Vec<_>, _>>()?;
                Ok(Node::Union { inputs, schema: Arc::clone(&union.schema) })
            }
            LogicalPlan::EmptyRelation(empty) => constant_empty(empty),
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Sort(sort) => self.sort(sort),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::RecursiveQuery(_) => {
                Err(Fallback::new("WITH RECURSIVE", "a change can reach any row of the result"))
            }
            LogicalPlan::Subquery(_) => Err(Fallback::new("a correlated subquery", "it is evaluated row by row")),
            other => Err(Fallback::new(operator_name(other), "it is executed by a bulk plan")),
        }
    }

    /// Conditions on the clock stand above the others.
    fn temporal(&self, filter: &Filter) -> Result<Node, Fallback> {
        let (clocked, plain): (Vec<&Expr>, Vec<&Expr>) =
            split_conjunction(&filter.predicate).into_iter().partition(|e| temporal::asks_clock(e));
        let mut bounds = Vec::new();
        for condition in clocked {
            let found = temporal::bounds(condition, filter.input.schema());
            bounds.extend(found.ok_or_else(|| Fallback::new("a condition on the clock", "it bounds no rows in time"))?);
        }
        let input = match conjunction(plain.into_iter().cloned()) {
            Some(predicate) => {
                self.plan(&LogicalPlan::Filter(Filter::try_new(predicate, Arc::clone(&filter.input))?))?
            }
            None => self.plan(&filter.input)?,
        };
        Ok(Node::Temporal { input: Box::new(input), bounds, role: TemporalRole::Filter })
    }

    fn scan(&self, scan: &TableScan) -> Result<Node, Fallback> {
        let Some(source) = relation_of(&scan.source) else { return self.generated(scan) };
        let slot = self
            .slots
            .find(source)
            .ok_or_else(|| Fallback::new(format!("`{}`", scan.table_name), "it is no input of the model"))?;
        if scan.fetch.is_some() {
            return Err(Fallback::new("LIMIT", "the visible range is found by sorting all rows"));
        }
        let columns = scan.projection.clone().unwrap_or_else(|| (0..scan.source.schema().fields().len()).collect());
        // The scan's filters are hints; a filter above it applies them.
        let append_only = self.slots.inputs.get(slot).is_some_and(|input| input.append_only);
        Ok(Node::Input { slot, columns, append_only, schema: Arc::clone(&scan.projected_schema) })
    }

    /// A table function over constants (`generate_series`): its rows are made here, they never change.
    fn generated(&self, scan: &TableScan) -> Result<Node, Fallback> {
        let operator = || format!("table function `{}`", scan.table_name);
        if !["generate_series()", "range()"].contains(&scan.table_name.table()) {
            return Err(Fallback::new(operator(), "its rows are read by a bulk plan"));
        }
        let provider = source_as_provider(&scan.source)?;
        // Nothing here waits: the rows are computed from two numbers. Without `unconstrained` the streams would still ask for the
        // budget of the task that compiles, and be polled forever once it is used up.
        let rows = futures::executor::block_on(tokio::task::coop::unconstrained(async {
            let plan = provider.scan(self.state, scan.projection.as_ref(), &[], None).await?;
            let mut rows: Vec<RecordBatch> = Vec::new();
            for partition in 0..plan.output_partitioning().partition_count() {
                let mut stream = plan.execute(partition, self.state.task_ctx())?;
                while let Some(batch) = stream.try_next().await? {
                    rows.push(batch);
                    if rows.iter().map(RecordBatch::num_rows).sum::<usize>() > MOST_GENERATED {
                        return Ok(None);
                    }
                }
            }
            Ok::<_, DataFusionError>(Some(rows))
        }))?;
        let rows = rows.ok_or_else(|| Fallback::new(operator(), format!("it has more than {MOST_GENERATED} rows")))?;
        Ok(Node::Constant { rows, schema: Arc::clone(&scan.projected_schema) })
    }

    fn projection(&self, projection: &Projection) -> Result<Node, Fallback> {
        no_subquery(&projection.expr)?;
        let input = self.plan(&projection.input)?;
        let exprs = projection.expr.iter().map(unaliased).collect();
        Ok(project(input, exprs, Arc::clone(&projection.schema))?)
    }

    fn unnest(&self, unnest: &Unnest) -> Result<Node, Fallback> {
        let list = |(column, list): &(usize, ColumnUnnestList)| UnnestedList { column: *column, depth: list.depth };
        Ok(Node::Unnest {
            input: Box::new(self.plan(&unnest.input)?),
            lists: unnest.list_type_columns.iter().map(list).collect(),
            structs: unnest.struct_type_columns.clone(),
            nulls: unnest.options.null_handling,
            schema: Arc::clone(&unnest.schema),
        })
    }

    fn values(&self, values: &Values) -> Result<Node, Fallback> {
        let one_row = one_row()?;
        let empty = DFSchema::empty();
        let mut columns: Vec<Vec<ScalarValue>> = vec![Vec::new(); values.schema.fields().len()];
        for row in &values.values {
            for (i, expr) in row.iter().enumerate() {
                let value = self.state.create_physical_expr(expr.clone(), &empty)?.evaluate(&one_row)?;
                columns[i].push(match value {
                    ColumnarValue::Scalar(scalar) => scalar,
                    ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0)?,
                });
            }
        }
        let arrays = columns
            .into_iter()
            .zip(values.schema.fields())
            .map(|(column, field)| -> Result<ArrayRef, DataFusionError> {
                let array = ScalarValue::iter_to_array(column)?;
                Ok(arrow::compute::cast(&array, field.data_type())?)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let schema: Arc<Schema> = Arc::new(values.schema.as_arrow().clone());
        let rows = RecordBatch::try_new(schema, arrays).map_err(DataFusionError::from)?;
        Ok(Node::Constant { rows: vec![rows], schema: Arc::clone(&values.schema) })
    }
}

fn one_row() -> Result<RecordBatch, DataFusionError> {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?)
}

fn constant_empty(empty: &EmptyRelation) -> Result<Node, Fallback> {
    let rows = match (empty.produce_one_row, empty.schema.fields().is_empty()) {
        (true, true) => vec![one_row()?],
        (true, false) => return Err(Fallback::new("a constant row", "it has columns of unknown value")),
        (false, _) => vec![],
    };
    Ok(Node::Constant { rows, schema: Arc::clone(&empty.schema) })
}

fn operator_name(plan: &LogicalPlan) -> String {
    let shown = plan.display().to_string();
    shown.split([':', ' ']).next().unwrap_or("the plan").to_string()
}

/// Subqueries that the optimizer could not turn into joins.
fn no_subquery(exprs: &[Expr]) -> Result<(), Fallback> {
    let subquery = |e: &Expr| {
        matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_))
            || matches!(e, Expr::OuterReferenceColumn(..))
    };
    if exprs.iter().any(|e| e.exists(|e| Ok(subquery(e))).unwrap_or(true)) {
        return Err(Fallback::new("a subquery in an expression", "it could not be turned into a join"));
    }
    Ok(())
}

/// The expression below any aliases: names come from schemas here.
pub(super) fn unaliased(expr: &Expr) -> Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other.clone(),
    }
}

/// The columns of a schema, as expressions.
pub(super) fn columns_of(schema: &DFSchema) -> Vec<Expr> {
    schema.iter().map(|(q, f)| Expr::Column(Column::from((q, f)))).collect()
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_))
}

/// `input` under other names.
pub(super) fn renamed(input: Node, schema: DFSchemaRef) -> Node {
    match input {
        // Names are schemas; the rows stay as they are.
        Node::Input { slot, columns, append_only, .. } => Node::Input { slot, columns, append_only, schema },
        Node::Constant { rows, .. } => Node::Constant { rows, schema },
        Node::Project { input, exprs, .. } => Node::Project { input, exprs, schema },
        Node::Union { inputs, .. } => Node::Union { inputs, schema },
        Node::Unnest { input, lists, structs, nulls, .. } => Node::Unnest { input, lists, structs, nulls, schema },
        Node::Aggregate { input, group, sets, aggregates, bucket, .. } => {
            Node::Aggregate { input, group, sets, aggregates, bucket, schema }
        }
        other => {
            let exprs = columns_of(other.schema());
            Node::Project { input: Box::new(other), exprs, schema }
        }
    }
}

/// `exprs` over `input`; merges with a projection below where one of the two only picks columns.
pub(super) fn project(input: Node, exprs: Vec<Expr>, schema: DFSchemaRef) -> Result<Node, DataFusionError> {
    match pruned(input, &exprs)? {
        Node::Project { input: below, exprs: inner, schema: inner_schema }
            if exprs.iter().all(is_column) || inner.iter().all(is_column) =>
        {
            let exprs =
                exprs.into_iter().map(|e| substitute(e, &inner_schema, &inner)).collect::<Result<Vec<_>, _>>()?;
            project(*below, exprs, schema)
        }
        input if identity(&exprs, input.schema()) => Ok(renamed(input, schema)),
        input => Ok(Node::Project { input: Box::new(input), exprs, schema }),
    }
}

/// A projection without what it computes for none of `exprs` above it.
fn pruned(input: Node, exprs: &[Expr]) -> Result<Node, DataFusionError> {
    let Node::Project { input: below, exprs: inner, schema } = input else { return Ok(input) };
    let columns = exprs.iter().flat_map(Expr::column_refs);
    let read: BTreeSet<usize> = columns.filter_map(|c| schema.maybe_index_of_column(c)).collect();
    let in_vain = inner.iter().enumerate().any(|(i, e)| !is_column(e) && !read.contains(&i));
    if read.is_empty() || !in_vain {
        return Ok(Node::Project { input: below, exprs: inner, schema });
    }
    let fields = read.iter().map(|i| {
        let (qualifier, field) = schema.qualified_field(*i);
        (qualifier.cloned(), Arc::clone(field))
    });
    let schema = Arc::new(DFSchema::new_with_metadata(fields.collect(), Default::default())?);
    Ok(Node::Project { input: below, exprs: read.iter().map(|i| inner[*i].clone()).collect(), schema })
}

/// Whether `exprs` are exactly the columns of `schema`, in order.
fn identity(exprs: &[Expr], schema: &DFSchema) -> bool {
    exprs.len() == schema.fields().len()
        && exprs.iter().enumerate().all(|(i, e)| match e {
            Expr::Column(c) => schema.maybe_index_of_column(c) == Some(i),
            _ => false,
        })
}

/// `expr` over a projection's output, as an expression over its input.
pub(super) fn substitute(expr: Expr, schema: &DFSchema, exprs: &[Expr]) -> Result<Expr, DataFusionError> {
    Ok(expr
        .transform_up(|e| match &e {
            Expr::Column(column) => {
                let index = schema.index_of_column(column)?;
                Ok(Transformed::yes(exprs[index].clone()))
            }
            _ => Ok(Transformed::no(e)),
        })?
        .data)
}

fn filter_of(input: Node, predicate: Expr) -> Node {
    Node::Filter { input: Box::new(input), predicate }
}

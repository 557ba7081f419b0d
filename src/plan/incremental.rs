//! The incremental plan: what `plan` hands to `operators`.
//!
//! A tree of nodes over signed batches; what it computes in several places stands there as one [`Node::Shared`]. Expressions are DataFusion's logical ones, already analysed, coerced and
//! simplified; column references name columns of the node's input schema (qualified as DataFusion qualifies them). The weight is
//! never a column.

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DFSchemaRef, NullEquality, NullHandling};
use datafusion::logical_expr::{Expr, Operator, SortExpr};
use std::sync::Arc;

pub use super::forgetting::OfSession;
pub use super::reach::{Extent, Reach};
pub use super::routes::Routes;
pub use super::temporal::{Bound, Moving};
pub use crate::functions::Length;

/// One node and what is below it.
#[derive(Debug, Clone)]
pub enum Node {
    /// The change of an input relation; `slot` indexes `Compiled::inputs`. `columns` are indices into the relation's schema.
    Input { slot: usize, columns: Vec<usize>, append_only: bool, schema: DFSchemaRef },
    /// Rows that never change (VALUES, `select 1`, a generated range): emitted once, when the circuit is new.
    Constant { rows: Vec<arrow::array::RecordBatch>, schema: DFSchemaRef },
    /// Linear.
    Project { input: Box<Node>, exprs: Vec<Expr>, schema: DFSchemaRef },
    /// Linear. NULL is false.
    Filter { input: Box<Node>, predicate: Expr },
    /// Linear: UNION ALL. Inputs have `schema`'s types, column by column.
    Union { inputs: Vec<Node>, schema: DFSchemaRef },
    /// Linear: UNNEST. In the place of a list column stand its elements, one row each (once per depth it is unnested by), in the place of a
    /// struct column (`structs`, indices into the input's) its fields; the other columns are repeated.
    Unnest { input: Box<Node>, lists: Vec<UnnestedList>, structs: Vec<usize>, nulls: NullHandling, schema: DFSchemaRef },
    /// Joins of one base with any number of arms, as one node: output = base columns, then what each arm shows, in order
    /// ([`Arm::shown`]). An arm's `on` and `residual` see the base and this arm only.
    Join { base: Box<Node>, arms: Vec<Arm>, schema: DFSchemaRef },
    /// GROUP BY (DISTINCT when `aggregates` is empty). With no `group` there is always exactly one output row. Under GROUPING SETS
    /// each row belongs to one group of each of `sets`, and one that rolls up everything always has its row.
    /// Output = group columns, the set's number if there are `sets`, then aggregates.
    Aggregate {
        input: Box<Node>,
        group: Vec<Expr>,
        sets: Vec<GroupingSet>,
        aggregates: Vec<Aggregate>,
        /// By which it may forget groups.
        bucket: Option<Box<Bucket>>,
        schema: DFSchemaRef,
    },
    /// `row_number() over (partition by … order by …) = 1`: the first row of each partition. `order` is total over the
    /// columns the model mentions. Output schema = input schema (the row number, constant 1, is projected above when asked for).
    First {
        input: Box<Node>,
        partition: Vec<Expr>,
        order: Vec<SortExpr>,
        /// By which it may forget partitions.
        bucket: Option<Box<Bucket>>,
    },
    /// Window functions that share a partitioning and an order. Output = input columns, then one for every call.
    Window {
        input: Box<Node>,
        partition: Vec<Expr>,
        order: Vec<SortExpr>,
        calls: Vec<Expr>,
        /// Of all calls together.
        reach: Reach,
        /// Only these rows are given out: a top-k.
        visible: Option<Visible>,
        /// By which it may forget partitions.
        bucket: Option<Box<Bucket>>,
        schema: DFSchemaRef,
    },
    /// `session` in FROM: rows of one `partition` whose times follow one another within `gap` share a session. A row without a time is left
    /// out. Output = input columns, then when the session of the row begins and, where `ends` says so, when it ends.
    Session {
        input: Box<Node>,
        partition: Vec<Expr>,
        /// TIMESTAMP of a row.
        time: Expr,
        gap: Length,
        ends: SessionEnd,
        /// Below `emit: on_close`: rows leave when the watermark is so far past the end of their session, µs.
        closes: Option<i64>,
        /// The time of its rows, by which it may forget sessions that have ended.
        bucket: Option<Box<Bucket>>,
        schema: DFSchemaRef,
    },
    /// Rows while all conditions on them and the clock hold. Output schema = input schema.
    Temporal { input: Box<Node>, bounds: Vec<Bound>, role: TemporalRole },
    /// What several places of the tree read, computed once per epoch: the same `node` under each `id`. Ids count from 0; what is below `node`
    /// has lower ones, and walking a tree down, base before arms, they are met in order of their ends. `schema` has this reader's
    /// names for `node`'s columns. Made by [`super::share`].
    Shared { id: usize, node: Arc<Node>, schema: DFSchemaRef },
    /// Directly below a [`Node::Join`]: rows that other joins keep, too, of this model or of others, and that are kept once. `shown` are those
    /// of the input's columns that this join needs, in the order of `schema`. Made by [`super::arrangements`].
    Arranged { input: Box<Node>, shown: Vec<usize>, arrangement: Arrangement, schema: DFSchemaRef },
}

/// Rows that several joins keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrangement {
    /// Equal for equal rows that are dealt out in equal ways.
    pub name: Arc<str>,
    /// By what an arm's rows are found; equal for equal keys. None of a base.
    pub key: Option<Arc<str>>,
    /// All joins that keep these rows: model and key.
    pub readers: Vec<(String, Option<Arc<str>>)>,
}

/// What a [`Node::Temporal`] is for, and what its clock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemporalRole {
    /// WHERE; the clock is `now()`.
    Filter,
    /// Directly above a stream. The clock is the watermark; rows that come behind it are late and set aside.
    Late,
    /// Below what is computed of open windows: rows stay until the watermark has passed the end of their window.
    Open,
    /// Above a join of two streams. A row without an instant, a match, is given out at once; another when the watermark has passed its instant,
    /// if it is still there. What is given out stays.
    Settle,
    /// Above what is computed of open windows: what a window holds when the watermark passes its end is given out, once.
    Close,
}

impl Node {
    /// The nodes it reads: of a join the base first.
    pub fn below(&self) -> Vec<&Node> {
        match self {
            Node::Input { .. } | Node::Constant { .. } => vec![],
            Node::Project { input, .. }
            | Node::Filter { input, .. }
            | Node::Unnest { input, .. }
            | Node::Aggregate { input, .. }
            | Node::First { input, .. }
            | Node::Window { input, .. }
            | Node::Session { input, .. }
            | Node::Arranged { input, .. }
            | Node::Temporal { input, .. } => vec![input],
            Node::Union { inputs, .. } => inputs.iter().collect(),
            Node::Join { base, arms, .. } => std::iter::once(&**base).chain(arms.iter().map(|a| &a.input)).collect(),
            Node::Shared { node, .. } => vec![node],
        }
    }

    /// The places of the nodes it reads, in the order of [`Node::below`]. What is shared is not to be changed in one place.
    pub(super) fn below_mut(&mut self) -> Vec<&mut Node> {
        match self {
            Node::Input { .. } | Node::Constant { .. } | Node::Shared { .. } => vec![],
            Node::Project { input, .. }
            | Node::Filter { input, .. }
            | Node::Unnest { input, .. }
            | Node::Aggregate { input, .. }
            | Node::First { input, .. }
            | Node::Window { input, .. }
            | Node::Session { input, .. }
            | Node::Arranged { input, .. }
            | Node::Temporal { input, .. } => vec![input],
            Node::Union { inputs, .. } => inputs.iter_mut().collect(),
            Node::Join { base, arms, .. } => {
                std::iter::once(&mut **base).chain(arms.iter_mut().map(|a| &mut a.input)).collect()
            }
        }
    }

    /// Whether it remembers nothing: what it gives for a change depends on the change alone.
    pub fn is_stateless(&self) -> bool {
        match self {
            // It is given out once.
            Node::Constant { .. } => false,
            Node::Join { .. } | Node::Aggregate { .. } | Node::First { .. } | Node::Window { .. } => false,
            Node::Session { .. } | Node::Temporal { .. } => false,
            other => other.below().into_iter().all(Node::is_stateless),
        }
    }

    /// Whether no row it has emitted is ever retracted.
    pub fn is_append_only(&self) -> bool {
        match self {
            Node::Input { append_only, .. } => *append_only,
            Node::Constant { .. } => true,
            Node::Project { input, .. }
            | Node::Filter { input, .. }
            | Node::Unnest { input, .. }
            | Node::Arranged { input, .. } => input.is_append_only(),
            Node::Union { inputs, .. } => inputs.iter().all(Node::is_append_only),
            Node::Shared { node, .. } => node.is_append_only(),
            Node::Join { base, arms, .. } => {
                let only_adds = |a: &Arm| matches!(a.kind, ArmKind::Inner | ArmKind::Semi) && a.input.is_append_only();
                base.is_append_only() && arms.iter().all(only_adds)
            }
            // DISTINCT: a row that is there stays.
            Node::Aggregate { input, group, aggregates, .. } => {
                aggregates.is_empty() && !group.is_empty() && input.is_append_only()
            }
            Node::First { .. } | Node::Window { .. } | Node::Session { .. } => false,
            // What only comes stays.
            Node::Temporal { input, bounds, .. } => {
                bounds.iter().all(|b| matches!(b.operator, Operator::Lt | Operator::LtEq)) && input.is_append_only()
            }
        }
    }

    /// Whether it is a top-k by row number alone over rows that stay: what is hidden once is so for ever.
    pub fn forgets_hidden_rows(&self) -> bool {
        let is_row_number = |call: &Expr| matches!(call, Expr::WindowFunction(f) if f.fun.name() == "row_number");
        match self {
            Node::Window { input, calls, visible: Some(visible), .. } => {
                visible.rank == Rank::RowNumber && calls.iter().all(is_row_number) && input.is_append_only()
            }
            _ => false,
        }
    }

    /// Whether each of its rows is given out once: rows of the stream in `slot` that nothing takes back.
    pub fn streams(&self, slot: usize) -> bool {
        match self {
            Node::Input { slot: own, .. } => *own == slot,
            // Its rows are taken out again: what stands above is maintained.
            Node::Temporal { role: TemporalRole::Open, .. } | Node::Session { closes: Some(_), .. } => false,
            // What was given out stays.
            Node::Temporal { role: TemporalRole::Settle | TemporalRole::Close, .. } => true,
            other => other.below().into_iter().any(|node| node.streams(slot)),
        }
    }

    /// How far behind the watermark it may still hold rows of windows of two joined streams, µs. None where it computes no such windows.
    pub fn looks_back(&self) -> Option<i64> {
        fn settles(node: &Node) -> bool {
            matches!(node, Node::Temporal { role: TemporalRole::Settle, .. }) || node.below().into_iter().any(settles)
        }
        match self {
            Node::Temporal { input, bounds, role: TemporalRole::Open } if settles(input) => {
                bounds.iter().map(|bound| -bound.moving.micros).max()
            }
            // A session may be of any length.
            Node::Session { input, closes: Some(_), .. } if settles(input) => Some(i64::MAX),
            other => other.below().into_iter().filter_map(Node::looks_back).max(),
        }
    }

    /// Whether its rows come and go with the clock.
    pub fn is_timed(&self) -> bool {
        matches!(self, Node::Temporal { role: TemporalRole::Filter, .. })
            || self.below().into_iter().any(Node::is_timed)
    }
}

/// One list that a [`Node::Unnest`] unfolds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnnestedList {
    /// Index into the input's columns.
    pub column: usize,
    /// How many levels of lists in lists become rows, 1 or more.
    pub depth: usize,
}

/// Whether, and with which rows, a [`Node::Session`] says when a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// It does not.
    Absent,
    /// With each row.
    Each,
    /// With one of the last rows of the session, and NULL with the others: of all rows of a session, the maximum is its end. A row that extends a
    /// session then changes one other row, not all of them.
    Last,
}

/// The first rows of each partition: those whose rank is at most so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visible {
    pub rank: Rank,
    pub most: usize,
}

/// What counts as a rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// The place of a row; of equal ones, each has its own.
    RowNumber,
    /// One more than there are rows before it and its peers.
    Rank,
    /// One more than there are groups of peers before it.
    DenseRank,
}

/// One joined input of a [`Node::Join`].
#[derive(Debug, Clone)]
pub struct Arm {
    /// The joined relation.
    pub input: Node,
    /// What becomes of a base row by its matches.
    pub kind: ArmKind,
    /// Equal pairs: an expression over the base, one over the arm. Never empty.
    pub on: Vec<(Expr, Expr)>,
    /// Further condition over base columns and this arm's columns; NULL is false. Its schema is base ++ arm.
    pub residual: Option<Expr>,
    /// Whether NULL keys match.
    pub null_equality: NullEquality,
}

impl Arm {
    /// How many columns it adds to the base's.
    pub fn shown(&self) -> usize {
        match self.kind {
            ArmKind::Inner | ArmKind::Left => self.input.schema().fields().len(),
            ArmKind::Semi | ArmKind::Anti | ArmKind::NotIn => 0,
            ArmKind::Mark => 1,
        }
    }
}

/// What becomes of a base row by its matches in an arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArmKind {
    /// It appears with each of them.
    Inner,
    /// The same; without any it appears once, the arm's columns NULL.
    Left,
    /// It appears once if it has one: EXISTS, IN.
    Semi,
    /// It appears if it has none: NOT EXISTS.
    Anti,
    /// It appears if its key is surely none of the arm's: NOT IN. A NULL on either side makes that unknown, an empty arm certain.
    NotIn,
    /// It appears once, and one column says whether it has one: EXISTS under OR.
    Mark,
}

/// One of GROUPING SETS, ROLLUP or CUBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupingSet {
    /// Of each group expression, whether it is NULL here.
    pub rolled_up: Vec<bool>,
    /// DataFusion's `__grouping_id`: a bit per group expression, the last one lowest, set where it is rolled up; above them how many
    /// equal sets stand before this one.
    pub number: u64,
}

/// A key of a [`Node::Aggregate`], or of the partitions of a [`Node::First`] or [`Node::Window`], that is a bucket of the event time of a table with a watermark: a value that rises with that time.
/// Of a [`Node::Session`] its time, which is no key.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Index into `group` or `partition`.
    pub key: usize,
    /// The table.
    pub slot: usize,
    /// What is read of it, as indices into the relation's schema.
    pub columns: Vec<usize>,
    /// Index of its event time in the relation's schema.
    pub time: usize,
    /// The one column that `low` and `high` see: the event time, called `time`.
    pub field: Field,
    /// The first bucket that a row of this time lies in, and the last; NULL where that is.
    pub low: Expr,
    pub high: Expr,
}

impl Bucket {
    /// Of the rows that `low` and `high` see.
    pub fn time_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![self.field.clone()]))
    }
}

/// One aggregate of a [`Node::Aggregate`].
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// How it is maintained.
    pub class: AggregateClass,
    /// Whether it is maintained over distinct values: DISTINCT, where that matters and the class can.
    pub distinct: bool,
    /// Whether the node's input is never retracted.
    pub append_only: bool,
    /// The whole call as DataFusion sees it (`Expr::AggregateFunction`, without alias), arguments over the node's input.
    pub call: Expr,
    /// Arguments, coerced to what the function wants.
    pub args: Vec<Expr>,
    /// FILTER (WHERE …).
    pub filter: Option<Expr>,
}

impl Aggregate {
    /// Whether one value per group is kept of those that could be taken back, since none is.
    pub fn is_running(&self) -> bool {
        use AggregateClass::{Max, Min};
        let place = AggregateClass::Place;
        let end = [Min, Max, place(Place::First), place(Place::Last)];
        self.append_only && end.contains(&self.class)
    }
}

/// How an aggregate is maintained under retraction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AggregateClass {
    /// count(*) , count(x).
    Count,
    /// sum of integers or decimals (exact, checked), or of floats (exact accumulator, rounded once).
    Sum,
    /// avg = sum / count.
    Avg,
    /// Variances, covariances, correlations, regressions, bit_xor: an exact total that rows are added to and taken from.
    Total,
    /// Smallest value: ordered multiset per group, or the value alone over append-only input.
    Min,
    /// Largest value, likewise.
    Max,
    /// bool_and: counts of false and of non-null.
    BoolAnd,
    /// bool_or: counts of true and of non-null.
    BoolOr,
    /// bit_and: of each bit, how many values have it.
    BitAnd,
    /// bit_or: likewise.
    BitOr,
    /// first_value, last_value, nth_value: the rows in their order, or the first or last alone over append-only input.
    Place(Place),
    /// median, percentile_cont: the values in order, and where the quantile was.
    Quantile(Quantile),
    /// Anything else: rows of the touched groups are kept and the stock accumulator recomputes them.
    Recompute,
}

/// A place in an order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    First,
    Last,
    /// From 1 upwards from the front, from −1 downwards from the back.
    Nth(i64),
}

/// A place in an order of numbers, between two of them perhaps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantile {
    Median,
    /// percentile_cont, ascending: this share of the way from the smallest value to the largest.
    Percentile(f64),
}

impl Node {
    /// Schema of the rows this node emits.
    pub fn schema(&self) -> &DFSchemaRef {
        match self {
            Node::Input { schema, .. }
            | Node::Constant { schema, .. }
            | Node::Project { schema, .. }
            | Node::Union { schema, .. }
            | Node::Unnest { schema, .. }
            | Node::Join { schema, .. }
            | Node::Window { schema, .. }
            | Node::Session { schema, .. }
            | Node::Shared { schema, .. }
            | Node::Arranged { schema, .. }
            | Node::Aggregate { schema, .. } => schema,
            Node::Filter { input, .. } | Node::First { input, .. } | Node::Temporal { input, .. } => input.schema(),
        }
    }
}

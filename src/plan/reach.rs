//! Which rows of a partition the value of a window function depends on.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition};

/// Where, in the order of its partition, the rows stand that the values of a row depend on, besides itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    pub before: Extent,
    pub after: Extent,
}

/// How far they stand, in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// At most so many rows away.
    pub rows: usize,
    /// Its peers, too: rows that the order does not tell apart.
    pub peers: bool,
    /// At most so many groups of peers away.
    pub groups: usize,
    /// Where the value that they are ordered by is at most so much away.
    pub distance: Option<Distance>,
}

/// A distance between values of the order's one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distance {
    /// Of numbers: `units` · 10^−`scale`.
    Number { units: i128, scale: i8 },
    /// Of dates and timestamps: at most so many nanoseconds.
    Time { nanos: i128 },
}

impl Extent {
    /// Any row of the partition.
    pub const ALL: Extent = Extent { rows: usize::MAX, peers: true, groups: 0, distance: None };
    /// Its peers.
    pub const PEERS: Extent = Extent { rows: 0, peers: true, groups: 0, distance: None };

    /// At most so many rows away.
    pub const fn rows(rows: usize) -> Extent {
        Extent { rows, peers: false, groups: 0, distance: None }
    }

    /// Whether there is no bound.
    pub fn is_all(self) -> bool {
        self.rows == usize::MAX
    }

    /// What both reach.
    pub fn and(self, other: Extent) -> Extent {
        if self.is_all() || other.is_all() {
            return Extent::ALL;
        }
        let distance = match (self.distance, other.distance) {
            (distance, None) | (None, distance) => distance,
            (Some(one), Some(other)) => match one.or_farther(other) {
                Some(farther) => Some(farther),
                None => return Extent::ALL,
            },
        };
        Extent {
            rows: self.rows.max(other.rows),
            peers: self.peers || other.peers,
            groups: self.groups.max(other.groups),
            distance,
        }
    }
}

impl Distance {
    /// None: they are of different kinds.
    fn or_farther(self, other: Distance) -> Option<Distance> {
        match (self, other) {
            (Distance::Number { units, scale }, Distance::Number { units: others, scale: of_other }) => {
                (scale == of_other).then_some(Distance::Number { units: units.max(others), scale })
            }
            (Distance::Time { nanos }, Distance::Time { nanos: others }) => {
                Some(Distance::Time { nanos: nanos.max(others) })
            }
            _ => None,
        }
    }

    /// Of a frame's bound. None: it is unbounded, or not exact (a float).
    fn of(bound: &ScalarValue) -> Option<Distance> {
        const DAY: i128 = 86_400_000_000_000;
        let number = |units: i128, scale: i8| Some(Distance::Number { units, scale });
        let time = |nanos: i128| Some(Distance::Time { nanos });
        match bound {
            ScalarValue::Decimal128(Some(units), _, scale) => number(*units, *scale),
            ScalarValue::IntervalYearMonth(Some(months)) => time(i128::from(*months) * 31 * DAY),
            ScalarValue::IntervalDayTime(Some(span)) => {
                time(i128::from(span.days) * DAY + i128::from(span.milliseconds) * 1_000_000)
            }
            // Thirty-one days are a month at most.
            ScalarValue::IntervalMonthDayNano(Some(span)) => {
                time((i128::from(span.months) * 31 + i128::from(span.days)) * DAY + i128::from(span.nanoseconds))
            }
            integer if integer.data_type().is_integer() => match integer.cast_to(&DataType::Decimal128(38, 0)) {
                Ok(ScalarValue::Decimal128(Some(units), ..)) => number(units, 0),
                _ => None,
            },
            _ => None,
        }
        .filter(|distance| match distance {
            Distance::Number { units, .. } => *units >= 0,
            Distance::Time { nanos } => *nanos >= 0,
        })
    }
}

impl Reach {
    /// The whole partition.
    pub const ALL: Reach = Reach { before: Extent::ALL, after: Extent::ALL };

    /// What both reach.
    pub fn and(self, other: Reach) -> Reach {
        Reach { before: self.before.and(other.before), after: self.after.and(other.after) }
    }
}

/// Aggregates whose state is small and says all of the rows that went in.
const RESUMABLE: [&str; 17] = [
    "sum",
    "count",
    "avg",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "var",
    "var_pop",
    "stddev",
    "stddev_pop",
    "covar_samp",
    "covar_pop",
    "corr",
];

/// Which rows a function looks at.
pub(crate) fn reach_of(function: &WindowFunction) -> Reach {
    let arguments = &function.params.args;
    let is_shift = |name: &str| matches!(name, "lag" | "lead") && function.params.null_treatment.is_none();
    match &function.fun {
        WindowFunctionDefinition::WindowUDF(f) => match f.name() {
            "row_number" | "rank" | "dense_rank" => Reach { before: Extent::ALL, after: Extent::default() },
            name if is_shift(name) => {
                let shift = arguments.get(1).map_or(Some(1), |shift| match shift {
                    Expr::Literal(value, _) => match value.cast_to(&DataType::Int64) {
                        Ok(ScalarValue::Int64(shift)) => shift,
                        _ => None,
                    },
                    _ => None,
                });
                let Some(shift) = shift else { return Reach::ALL };
                let rows = Extent::rows(usize::try_from(shift.unsigned_abs()).unwrap_or(usize::MAX));
                match (name == "lag") == (shift >= 0) {
                    true => Reach { before: rows, after: Extent::default() },
                    false => Reach { before: Extent::default(), after: rows },
                }
            }
            "first_value" | "last_value" | "nth_value" => reach_of_frame(&function.params.window_frame),
            _ => Reach::ALL,
        },
        WindowFunctionDefinition::AggregateUDF(_) => reach_of_frame(&function.params.window_frame),
    }
}

fn reach_of_frame(frame: &WindowFrame) -> Reach {
    use WindowFrameBound::{Following, Preceding};
    let count = |distance: &ScalarValue| match distance.cast_to(&DataType::UInt64) {
        Ok(ScalarValue::UInt64(Some(count))) => usize::try_from(count).ok(),
        _ => None,
    };
    let extent = |distance: &ScalarValue| match frame.units {
        WindowFrameUnits::Rows => count(distance).map(Extent::rows),
        WindowFrameUnits::Groups => count(distance).map(|groups| Extent { groups, ..Extent::PEERS }),
        WindowFrameUnits::Range => Distance::of(distance).map(|d| Extent { distance: Some(d), ..Extent::PEERS }),
    };
    // One that begins behind the row, or ends before it, does not reach to the other side.
    let here = if frame.units == WindowFrameUnits::Rows { Extent::default() } else { Extent::PEERS };
    let before = if let Preceding(distance) = &frame.start_bound { extent(distance) } else { Some(here) };
    let after = if let Following(distance) = &frame.end_bound { extent(distance) } else { Some(here) };
    Reach { before: before.unwrap_or(Extent::ALL), after: after.unwrap_or(Extent::ALL) }
}

/// Whether the function's value is what the rows up to a row make of it, and can go on from what an earlier row's made of them.
pub(crate) fn is_running(function: &WindowFunction) -> bool {
    let params = &function.params;
    if params.null_treatment.is_some() {
        return false;
    }
    match &function.fun {
        WindowFunctionDefinition::WindowUDF(f) if params.filter.is_none() && !params.distinct => match f.name() {
            "row_number" | "rank" | "dense_rank" => true,
            name => row_of_frame(name, &params.args).is_some() && is_from_the_first(&params.window_frame),
        },
        WindowFunctionDefinition::WindowUDF(_) => false,
        WindowFunctionDefinition::AggregateUDF(f) => {
            let resumable = RESUMABLE.contains(&f.name())
                && (!params.distinct || IGNORES_DISTINCT.contains(&f.name()) || KEEPS_DISTINCT.contains(&f.name()));
            resumable && is_from_the_first(&params.window_frame)
        }
    }
}

/// Those of [`RESUMABLE`] to which it does not matter whether values are distinct.
const IGNORES_DISTINCT: [&str; 6] = ["min", "max", "bool_and", "bool_or", "bit_and", "bit_or"];

/// Those that keep the distinct values.
const KEEPS_DISTINCT: [&str; 2] = ["count", "sum"];

/// Whether the state of a running function is as large as there are distinct values.
pub(crate) fn keeps_distinct(function: &WindowFunction) -> bool {
    function.params.distinct && KEEPS_DISTINCT.contains(&function.fun.name())
}

/// A row of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowOfFrame {
    /// From 0 upwards.
    Nth(usize),
    Last,
}

/// The row whose value first_value, nth_value or last_value gives. None: another function, or one that is counted from the end.
pub(crate) fn row_of_frame(name: &str, arguments: &[Expr]) -> Option<RowOfFrame> {
    match (name, arguments) {
        ("first_value", [_]) => Some(RowOfFrame::Nth(0)),
        ("last_value", [_]) => Some(RowOfFrame::Last),
        ("nth_value", [_, Expr::Literal(number, _)]) => match number.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(number))) => {
                Some(RowOfFrame::Nth(usize::try_from(number).ok()?.checked_sub(1)?))
            }
            _ => None,
        },
        _ => None,
    }
}

fn is_from_the_first(frame: &WindowFrame) -> bool {
    let unbounded = matches!(&frame.start_bound, WindowFrameBound::Preceding(distance) if distance.is_null());
    unbounded && matches!(frame.end_bound, WindowFrameBound::CurrentRow)
}

/// Where checkpoints bound what is looked at: the reach of those of `calls` that do not go on from one. None: some look at all rows before theirs.
pub(crate) fn reach_between_checkpoints(calls: &[Expr]) -> Option<Reach> {
    let mut reach = Reach::default();
    let mut running = false;
    for call in calls {
        let Expr::WindowFunction(function) = call else { return None };
        match is_running(function) {
            true => running = true,
            false => reach = reach.and(reach_of(function)),
        }
    }
    (running && !reach.before.is_all()).then_some(reach)
}

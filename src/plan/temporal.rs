//! `ts > now() - interval '1 hour'`: conditions by which rows of a view come and go with the clock.
//!
//! A condition compares a value of the row with the clock: `now()` or `current_date`, plus or minus one constant interval. For each row
//! it then holds from some instant on, or until one: [`Moving::first`] says when. Anything else that asks the clock is no such condition,
//! and an error in a view.

use arrow::datatypes::{DataType, TimeUnit};
use chrono::{DateTime, Months};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator, TryCast};

const DAY: i64 = 86_400_000_000;

/// A value that moves with the clock: now, perhaps the beginning of its day, and so much more or less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moving {
    /// Of the day now lies in, its beginning (UTC).
    pub whole_days: bool,
    /// Calendar months added, to whole days only; 0 where `micros` is not.
    pub months: i64,
    /// µs added.
    pub micros: i64,
}

impl Moving {
    /// The first instant (µs) of the clock at which this is `bound` (µs) or later; with `beyond`, later.
    pub fn first(&self, bound: i64, beyond: bool) -> i64 {
        let target = bound.saturating_add(i64::from(beyond));
        if self.months == 0 {
            let now = target.saturating_sub(self.micros);
            return if self.whole_days { ceiling(now) } else { now };
        }
        // Months differ in length, and adding them to days never goes backwards.
        let near = [28, 31].map(|days| target.saturating_sub(self.months.saturating_mul(days * DAY)));
        let low = near[0].min(near[1]).saturating_sub(5 * DAY).div_euclid(DAY);
        let high = near[0].max(near[1]).saturating_add(5 * DAY).div_euclid(DAY) + 1;
        let (mut low, mut high) = (low, high);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.shifted(middle.saturating_mul(DAY)) >= target {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low.saturating_mul(DAY)
    }

    fn shifted(&self, time: i64) -> i64 {
        let months = Months::new(u32::try_from(self.months.unsigned_abs()).unwrap_or(u32::MAX));
        let shifted = DateTime::from_timestamp_micros(time)
            .and_then(|t| if self.months < 0 { t.checked_sub_months(months) } else { t.checked_add_months(months) });
        // Further away than any calendar goes.
        shifted.map_or(if time < 0 { i64::MIN } else { i64::MAX }, |t| t.timestamp_micros())
    }
}

fn ceiling(time: i64) -> i64 {
    let day = time.div_euclid(DAY);
    if time.rem_euclid(DAY) == 0 { time } else { (day + 1).saturating_mul(DAY) }
}

/// A condition on one row and the clock. NULL never holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// TIMESTAMP or DATE of the row.
    pub expr: Expr,
    /// `expr` compared with `moving`: <, <=, =, >= or >.
    pub operator: Operator,
    pub moving: Moving,
}

impl Bound {
    /// From when on (µs, inclusive) and until when (exclusive) the condition holds for a row whose value is `value`.
    pub fn span(&self, value: i64) -> (i64, i64) {
        match self.operator {
            Operator::Lt => (self.moving.first(value, true), i64::MAX),
            Operator::LtEq => (self.moving.first(value, false), i64::MAX),
            Operator::Gt => (i64::MIN, self.moving.first(value, false)),
            Operator::GtEq => (i64::MIN, self.moving.first(value, true)),
            _ => (self.moving.first(value, false), self.moving.first(value, true)),
        }
    }
}

/// Whether an expression asks the clock.
pub(crate) fn asks_clock(expr: &Expr) -> bool {
    expr.exists(|e| Ok(clock_name(e).is_some())).unwrap_or(true)
}

fn clock_name(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::ScalarFunction(f) if ["now", "current_date", "current_time"].contains(&f.func.name()) => {
            Some(f.func.name())
        }
        _ => None,
    }
}

/// The conditions a conjunct of WHERE is made of; None when it asks the clock in another way, or not at all.
pub(crate) fn bounds(conjunct: &Expr, schema: &DFSchema) -> Option<Vec<Bound>> {
    match conjunct {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let operator = match op {
                Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq | Operator::Eq => *op,
                _ => return None,
            };
            if asks_clock(right) {
                Some(vec![bound(left, operator, right, schema)?])
            } else {
                Some(vec![bound(right, operator.swap()?, left, schema)?])
            }
        }
        Expr::Between(between) if !between.negated => {
            let mut found = Vec::new();
            for (operator, side) in [(Operator::GtEq, &between.low), (Operator::LtEq, &between.high)] {
                found.push(bound(&between.expr, operator, side, schema)?);
            }
            Some(found)
        }
        _ => None,
    }
}

fn bound(row: &Expr, operator: Operator, clock: &Expr, schema: &DFSchema) -> Option<Bound> {
    let volatile = row.is_volatile();
    let mut expr = row;
    // Coercion may have widened both sides.
    while let Expr::Cast(Cast { expr: inner, field }) = expr {
        if !is_instant(field.data_type()) || !is_instant(&inner.get_type(schema).ok()?) {
            break;
        }
        expr = inner;
    }
    let data_type = expr.get_type(schema).ok()?;
    // Below a microsecond the clock does not go.
    let exact = is_instant(&data_type) && !matches!(data_type, DataType::Timestamp(TimeUnit::Nanosecond, _));
    if volatile || !exact {
        return None;
    }
    Some(Bound { expr: expr.clone(), operator, moving: moving(clock)? })
}

fn is_instant(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(_, zone) => zone.as_deref().is_none_or(|z| z == "UTC"),
        DataType::Date32 => true,
        _ => false,
    }
}

/// `expr` as a moving value.
fn moving(expr: &Expr) -> Option<Moving> {
    let day_of = |inner: &Expr| {
        let Moving { months: 0, micros: 0, .. } = moving(inner)? else { return None };
        Some(Moving { whole_days: true, months: 0, micros: 0 })
    };
    match expr {
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => match field.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _) if is_instant(field.data_type()) => {
                moving(expr)
            }
            DataType::Date32 => day_of(expr),
            _ => None,
        },
        Expr::ScalarFunction(f) if f.func.name() == "date_trunc" => match f.args.as_slice() {
            [Expr::Literal(unit, _), inner] => match unit.try_as_str() {
                Some(Some(unit)) if unit.eq_ignore_ascii_case("day") => day_of(inner),
                _ => None,
            },
            _ => None,
        },
        Expr::ScalarFunction(_) => match clock_name(expr)? {
            "now" => Some(Moving { whole_days: false, months: 0, micros: 0 }),
            "current_date" => Some(Moving { whole_days: true, months: 0, micros: 0 }),
            _ => None,
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
            shifted(left, right, 1).or_else(|| shifted(right, left, 1))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => shifted(left, right, -1),
        _ => None,
    }
}

fn shifted(clock: &Expr, by: &Expr, sign: i64) -> Option<Moving> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = by else { return None };
    let Moving { whole_days, months: 0, micros: 0 } = moving(clock)? else { return None };
    let micros = i64::from(interval.days).checked_mul(DAY)?.checked_add(interval.nanoseconds / 1000)?;
    let months = i64::from(interval.months);
    let plain = interval.nanoseconds % 1000 == 0 && (months == 0 || micros == 0);
    // A date has no hours to take off. A month before 30 March 13:00 is later than one before 31 March 0:00, so that rows would go and come
    // back: months are taken off whole days only.
    let whole = if whole_days { micros % DAY == 0 } else { months == 0 };
    (plain && whole).then_some(Moving { whole_days, months: sign * months, micros: sign * micros })
}

/// `plan` with `now` (µs) in the place of the clock.
pub(crate) fn at(plan: LogicalPlan, now: i64) -> Result<LogicalPlan, DataFusionError> {
    let replace = |e: Expr| {
        let value = match clock_name(&e) {
            Some("now") => ScalarValue::TimestampMicrosecond(Some(now), Some("UTC".into())),
            Some("current_date") => ScalarValue::Date32(i32::try_from(now.div_euclid(DAY)).ok()),
            _ => return Ok(Transformed::no(e)),
        };
        Ok(Transformed::yes(Expr::Literal(value, None)))
    };
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Filter(_) => node.map_expressions(|e| e.transform_up(replace)),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> i64 {
        crate::types::parse_instant(text).unwrap()
    }

    /// Whether the condition holds at `now`, by its definition.
    fn holds(bound: &Bound, value: i64, now: i64) -> bool {
        let Moving { whole_days, months, micros } = bound.moving;
        let day = if whole_days { now.div_euclid(DAY) * DAY } else { now };
        let moved = if months == 0 { day + micros } else { bound.moving.shifted(day) };
        match bound.operator {
            Operator::Lt => value < moved,
            Operator::LtEq => value <= moved,
            Operator::Gt => value > moved,
            Operator::GtEq => value >= moved,
            _ => value == moved,
        }
    }

    #[test]
    fn a_condition_holds_exactly_within_its_span() {
        let hour = 3_600_000_000;
        let shifts = [(0, 0), (0, -hour), (0, 2 * DAY), (1, 0), (-1, 0), (-13, 0)];
        let values =
            ["2024-02-29T12:00:00Z", "2024-01-31T00:00:00Z", "2024-03-01T00:00:00Z", "2023-12-31T23:59:59.999999Z"];
        for operator in [Operator::Lt, Operator::LtEq, Operator::Eq, Operator::GtEq, Operator::Gt] {
            for (months, micros_added) in shifts {
                for whole_days in [false, true] {
                    let whole_days = (whole_days && micros_added % DAY == 0) || months != 0;
                    let moving = Moving { whole_days, months, micros: micros_added };
                    let bound = Bound { expr: datafusion::logical_expr::lit(1), operator, moving };
                    for value in values.map(micros) {
                        let (from, until) = bound.span(value);
                        let ends = [from, until].into_iter().filter(|t| ![i64::MIN, i64::MAX].contains(t));
                        let near = ends.flat_map(|t| [t - DAY, t - 1, t, t + 1, t + DAY]).chain([value]);
                        for now in near {
                            let within = from <= now && now < until;
                            assert_eq!(
                                within,
                                holds(&bound, value, now),
                                "{bound:?} {value} at {now}: {from}..{until}"
                            );
                        }
                    }
                }
            }
        }
    }
}

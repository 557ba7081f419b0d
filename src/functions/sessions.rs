//! `session_window_start(time, end)` and `session_window_end(time, end)`, over rows in the order of `time`: the bounds of the session a row lies in.
//!
//! `end` is the instant from which on a row begins another session, if none came between. It is a function of the time, so rows of one
//! instant are peers, and it does not matter which comes first. `plan` makes these calls for `session` in FROM, and maintains them by a node of their own.

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl};
use std::sync::Arc;

/// When a row's session begins.
pub const SESSION_WINDOW_START: &str = "session_window_start";
/// When it ends.
pub const SESSION_WINDOW_END: &str = "session_window_end";

/// All functions of this family.
pub(super) fn functions() -> Vec<WindowUDF> {
    let signature = || Signature::exact(vec![timestamp(), timestamp()], Volatility::Immutable);
    [Bound::Start, Bound::End].map(|bound| WindowUDF::from(Session { bound, signature: signature() })).into()
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Bound {
    Start,
    End,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Session {
    bound: Bound,
    signature: Signature,
}

impl WindowUDFImpl for Session {
    fn name(&self) -> &str {
        match self.bound {
            Bound::Start => SESSION_WINDOW_START,
            Bound::End => SESSION_WINDOW_END,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Scan(self.bound)))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), timestamp(), true)))
    }
}

/// One pass over a partition.
#[derive(Debug)]
struct Scan(Bound);

impl PartitionEvaluator for Scan {
    fn evaluate_all(&mut self, values: &[ArrayRef], _: usize) -> Result<ArrayRef> {
        let [times, ends] = values else { return exec_err!("a session has a time and an end") };
        let (times, ends) =
            (times.as_primitive::<TimestampMicrosecondType>(), ends.as_primitive::<TimestampMicrosecondType>());
        let bounds = match self.0 {
            Bound::Start => starts(times, ends),
            Bound::End => last_ends(times, ends),
        };
        Ok(Arc::new(TimestampMicrosecondArray::from(bounds).with_timezone("UTC")))
    }
}

/// A row without a time lies in no session.
fn starts(times: &TimestampMicrosecondArray, ends: &TimestampMicrosecondArray) -> Vec<Option<i64>> {
    let mut open: Option<(i64, i64)> = None;
    let mut start_of = |i: usize| {
        let (time, end) = (times.value(i), ends.value(i));
        let start = open.filter(|(_, end)| time < *end).map_or(time, |(start, _)| start);
        open = Some((start, end));
        start
    };
    (0..times.len()).map(|i| times.is_valid(i).then(|| start_of(i))).collect()
}

fn last_ends(times: &TimestampMicrosecondArray, ends: &TimestampMicrosecondArray) -> Vec<Option<i64>> {
    // The row behind, and when its session ends.
    let mut behind: Option<(i64, i64)> = None;
    let mut bounds = vec![None; times.len()];
    for i in (0..times.len()).rev().filter(|i| times.is_valid(*i)) {
        let end = behind.filter(|(time, _)| *time < ends.value(i)).map_or(ends.value(i), |(_, end)| end);
        behind = Some((times.value(i), end));
        bounds[i] = Some(end);
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_come_before_the_end_of_the_one_before_share_its_session() {
        let times = TimestampMicrosecondArray::from(vec![0, 5, 9, 9, 19, 30, 39]);
        let ends: TimestampMicrosecondArray = times.unary(|t| t + 10);
        let bounds = |bounds: Vec<Option<i64>>| bounds.into_iter().flatten().collect::<Vec<_>>();
        // A row at the very end begins another.
        assert_eq!(bounds(starts(&times, &ends)), [0, 0, 0, 0, 19, 30, 30]);
        assert_eq!(bounds(last_ends(&times, &ends)), [19, 19, 19, 19, 29, 49, 49]);
    }
}

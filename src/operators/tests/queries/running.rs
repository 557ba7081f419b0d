//! Window functions over frames from the first row on, with FILTER and DISTINCT.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::super::tables::Kind;
use super::{Column, Generator, Query};

impl Generator<'_> {
    /// A few of them over one partitioning or two, of long partitions.
    pub fn running(&mut self) -> Query {
        let alias = self.alias("w");
        let at = [0, 0, 4][self.rng.random_range(0..3)];
        let (source, columns) = self.table(at, &alias);
        let filter = if self.rng.random_bool(0.2) { self.filter(&columns) } else { String::new() };
        let (mut list, mut output) = self.select(&columns);
        for _ in 0..self.rng.random_range(1..3) {
            let partition = match self.rng.random_range(0..3) {
                0 => String::new(),
                1 => format!("partition by {alias}.k1 "),
                _ => format!("partition by {alias}.s "),
            };
            // DataFusion asserts that functions over one window are ordered alike, which those are not whose keys are ordered by as well.
            let keys = [format!("{alias}.k1"), format!("{alias}.s")];
            let others: Vec<Column> = columns.iter().filter(|(name, _)| !keys.contains(name)).cloned().collect();
            let order = match self.rng.random_range(0..3) {
                0 => self.order(&others),
                1 => format!("{alias}.ts, {alias}.id"),
                _ => format!("{alias}.id desc"),
            };
            for _ in 0..self.rng.random_range(1..4) {
                let (call, kind) = self.running_call(&columns);
                let frame = match self.rng.random_range(0..6) {
                    0 | 1 => " rows between unbounded preceding and current row",
                    2 => " groups between unbounded preceding and current row",
                    // Not from the first row on, beside others that are.
                    3 if self.rng.random_bool(0.3) => " rows between 2 preceding and current row",
                    _ => "",
                };
                let frame = if call.starts_with("rank") { "" } else { frame };
                let name = self.alias("c");
                list.push_str(&format!(", {call} over ({partition}order by {order}{frame}) as {name}"));
                output.push((name, kind));
            }
        }
        Query { sql: format!("select {list} from {source}{filter}"), columns: output }
    }

    fn running_call(&mut self, columns: &[Column]) -> Column {
        let (int, text) = (self.expr(columns, Kind::Int), self.expr(columns, Kind::Text));
        let plain =
            columns.iter().filter(|(_, kind)| matches!(kind, Kind::Int | Kind::Text | Kind::Float | Kind::Decimal));
        let any = plain.collect::<Vec<_>>().choose(self.rng).map_or((int.clone(), Kind::Int), |c| (*c).clone());
        let value = |call: String| (call, any.1);
        let (call, kind) = match self.rng.random_range(0..12) {
            0 => ("rank()".to_string(), Kind::Int),
            1 => value(format!("first_value({})", any.0)),
            2 => value(format!("nth_value({}, {})", any.0, self.rng.random_range(1..8))),
            3 => value(format!("last_value({})", any.0)),
            4 | 5 => (format!("sum({int})"), Kind::Int),
            6 => (format!("count({})", any.0), Kind::Int),
            7 => (format!("count(distinct {})", any.0), Kind::Int),
            8 => (format!("sum(distinct {int})"), Kind::Int),
            9 => (format!("max({text})"), Kind::Text),
            10 => (format!("min(distinct {text})"), Kind::Text),
            _ => ("count(*)".to_string(), Kind::Int),
        };
        let is_aggregate = ["sum(", "count(", "max(", "min("].iter().any(|name| call.starts_with(name));
        match is_aggregate && self.rng.random_bool(0.6) {
            true => (format!("{call} filter (where {})", self.predicate(columns)), kind),
            false => (call, kind),
        }
    }
}

//! Windows in time: tumbling, hopping, sessions.

use rand::Rng;

use super::super::tables::Kind;
use super::{Generator, Query};

impl Generator<'_> {
    /// Rows of a window table function, or groups of them.
    pub(super) fn in_time(&mut self, depth: usize) -> Query {
        let alias = self.alias("w");
        let (relation, columns) = if depth == 0 || self.rng.random_bool(0.6) {
            let at = [0, 0, 2, 4].map(|at| self.readable.get(at)).into_iter().flatten().count();
            let at = [0, 0, 2, 4][self.rng.random_range(0..at)];
            let table = self.readable[at].clone();
            (table.name, table.columns)
        } else {
            let query = self.query(depth - 1);
            (format!("({})", query.sql), query.columns)
        };
        let time = self.expr(&columns, Kind::Time);
        let call = match self.rng.random_range(0..5) {
            0 | 1 => format!("tumble({relation}, {time}, interval '150 minutes')"),
            2 => format!("hop({relation}, {time}, interval '1 hour', interval '3 hours')"),
            3 => format!("hop({relation}, {time}, interval '4 hours', interval '90 minutes', interval '1 hour')"),
            _ => {
                let keys = if self.rng.random_bool(0.7) { self.column(&columns, Kind::Int) } else { None };
                let keys = keys.map(|k| format!(", {k}")).unwrap_or_default();
                format!("session({relation}, {time}, interval '2 hours'{keys})")
            }
        };
        let mut columns: Vec<_> = columns.into_iter().map(|(n, k)| (format!("{alias}.{n}"), k)).collect();
        columns.extend(["window_start", "window_end"].map(|n| (format!("{alias}.{n}"), Kind::Time)));
        let filter = self.filter(&columns);
        let (start, end) = (self.alias("c"), self.alias("c"));
        if self.rng.random_bool(0.5) {
            let (list, mut output) = self.select(&columns);
            output.extend([(start.clone(), Kind::Time), (end.clone(), Kind::Time)]);
            let sql = format!(
                "select {list}, {alias}.window_start as {start}, {alias}.window_end as {end} from {call} as {alias}{filter}"
            );
            return Query { sql, columns: output };
        }
        let mut list = vec![format!("window_start as {start}"), format!("max({alias}.window_end) as {end}")];
        let mut output = vec![(start, Kind::Time), (end, Kind::Time)];
        for _ in 0..self.rng.random_range(1..3) {
            let (call, kind) = self.call(&columns);
            let name = self.alias("c");
            list.push(format!("{call} as {name}"));
            output.push((name, kind));
        }
        let list = list.join(", ");
        Query { sql: format!("select {list} from {call} as {alias}{filter} group by window_start"), columns: output }
    }
}

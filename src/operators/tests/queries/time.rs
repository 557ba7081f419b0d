//! Windows in time: tumbling, hopping, sessions.

use rand::Rng;

use super::super::tables::Kind;
use super::{Generator, Query};

impl Generator<'_> {
    /// Sessions, their rows, groups of them, or what is read above or below them.
    pub fn sessions(&mut self) -> Query {
        let alias = self.alias("w");
        let (relation, columns) = match self.rng.random_range(0..4) {
            // Of groups, joins and sessions.
            0 => {
                let query = if self.rng.random_bool(0.3) { self.sessions() } else { self.query(0) };
                (format!("({})", query.sql), query.columns)
            }
            at => {
                let table = self.readable[if at == 1 { 4 } else { 0 }].clone();
                (table.name, table.columns)
            }
        };
        let time = self.expr(&columns, Kind::Time);
        let mut keys: Vec<(String, Kind)> = Vec::new();
        for _ in 0..self.rng.random_range(0..3) {
            let key = self.any_expr(&columns);
            keys.extend(Some(key).filter(|(_, kind)| !kind.is_nested()));
        }
        let list: String = keys.iter().map(|(key, _)| format!(", {key}")).collect();
        let gap = ["1 hour", "90 minutes", "2 hours", "1 month"][self.rng.random_range(0..4)];
        let call = format!("session({relation}, {time}, interval '{gap}'{list}) as {alias}");
        let mut columns: Vec<_> = columns.into_iter().map(|(n, k)| (format!("{alias}.{n}"), k)).collect();
        let bounds = ["window_start", "window_end"].map(|n| (format!("{alias}.{n}"), Kind::Time));
        let own = columns.clone();
        columns.extend(bounds.clone());
        let filter = match self.rng.random_range(0..8) {
            0 => format!(" where {}", self.predicate(&bounds[..1])),
            1 => format!(" where {}", self.predicate(&bounds)),
            2 => self.filter(&own),
            _ => String::new(),
        };
        if self.rng.random_bool(0.35) {
            let (list, mut output) = self.select(&columns);
            let mut list = vec![list];
            for (bound, kind) in &bounds {
                if self.rng.random_bool(0.3) {
                    continue;
                }
                let name = self.alias("c");
                list.push(format!("{bound} as {name}"));
                output.push((name, *kind));
            }
            let distinct = if self.rng.random_bool(0.2) { "distinct " } else { "" };
            let sql = format!("select {distinct}{} from {call}{filter}", list.join(", "));
            return Query { sql, columns: output };
        }
        // By what sessions are made by, mostly; by less or more sometimes.
        let mut group: Vec<(String, Kind)> = Vec::new();
        if !self.rng.random_bool(0.15) {
            group.extend(keys);
        }
        group.extend(bounds.iter().filter(|_| self.rng.random_bool(0.85)).cloned());
        if self.rng.random_bool(0.1) {
            group.push(self.any_expr(&own));
        }
        let (mut list, mut output) = (Vec::new(), Vec::new());
        for (expr, kind) in &group {
            let name = self.alias("c");
            list.push(format!("{expr} as {name}"));
            output.push((name, *kind));
        }
        for _ in 0..self.rng.random_range(1..4) {
            let (call, kind) = match self.rng.random_range(0..5) {
                0 => (format!("max({alias}.window_end)"), Kind::Time),
                1 => self.call(&columns),
                _ => self.call(&own),
            };
            let name = self.alias("c");
            list.push(format!("{call} as {name}"));
            output.push((name, kind));
        }
        let by: Vec<&str> = group.iter().map(|(expr, _)| expr.as_str()).collect();
        let by = if by.is_empty() { String::new() } else { format!(" group by {}", by.join(", ")) };
        Query { sql: format!("select {} from {call}{filter}{by}", list.join(", ")), columns: output }
    }

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

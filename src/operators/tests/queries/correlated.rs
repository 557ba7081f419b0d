//! Random correlated subqueries in every place: compared in any way, from several queries further within, below aggregates, windows, unions, joins and LIMIT; in
//! SELECT, WHERE, ON, ORDER BY, PARTITION BY and the arguments of aggregates.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Column, Generator, Query};
use crate::operators::tests::tables::Kind;

const COMPARABLE: [Kind; 4] = [Kind::Int, Kind::Text, Kind::Time, Kind::Bool];

impl Generator<'_> {
    /// A query that asks another relation about each of its rows, and the same in other words, if another engine understands only these.
    pub fn correlated(&mut self) -> (Query, Option<String>) {
        if self.rng.random_bool(0.12) {
            let (query, same) = self.correlated_join();
            return (query, Some(same));
        }
        let (source, columns) = self.some_table();
        let (list, mut output) = self.select(&columns);
        let name = self.alias("c");
        let mut with = |kind: Kind| {
            output.push((name.clone(), kind));
            output.clone()
        };
        let query = match self.rng.random_range(0..8) {
            6 => self.correlated_lateral(),
            0..2 => {
                let (value, kind) = self.asked_value(&columns, 2);
                let filter = self.filter(&columns);
                Query { sql: format!("select {list}, {value} as {name} from {source}{filter}"), columns: with(kind) }
            }
            2..4 => {
                let truth = self.asked_truth(&columns, 2);
                let or =
                    if self.rng.random_bool(0.3) { format!(" or {}", self.predicate(&columns)) } else { String::new() };
                Query { sql: format!("select {list} from {source} where {truth}{or}"), columns: output }
            }
            4 => {
                let (value, order) = (self.asked_value(&columns, 1).0, self.order(&columns));
                let sql = format!("select {list} from {source} order by {value} desc nulls last, {order} limit 3");
                Query { sql, columns: output }
            }
            5 => {
                let (value, order) = (self.asked_value(&columns, 1).0, self.order(&columns));
                let sql = format!(
                    "select {list}, row_number() over (partition by {value} order by {order}) as {name} from {source}"
                );
                Query { sql, columns: with(Kind::Int) }
            }
            _ => {
                let (truth, (key, kind)) = (self.asked_truth(&columns, 1), self.any_expr(&columns));
                let group = self.alias("c");
                let sql = format!(
                    "select {key} as {group}, sum(case when {truth} then 1 else 0 end) as {name} from {source} group by {key}"
                );
                Query { sql, columns: vec![(group, kind), (name, Kind::Int)] }
            }
        };
        (query, None)
    }

    /// Rows of another relation that have to do with a row, beside it.
    fn correlated_lateral(&mut self) -> Query {
        let (source, columns) = self.some_table();
        let (list, mut output) = self.select(&columns);
        let (rows, inner_columns) = self.asked(&columns, 1);
        let kind = [Kind::Int, Kind::Text, Kind::Time].choose(self.rng).copied().unwrap_or(Kind::Int);
        let value = self.expr(&inner_columns, kind);
        let (alias, name) = (self.alias("l"), self.alias("c"));
        let (beside, kind) = match self.rng.random_range(0..5) {
            0 => (format!("select {value} as {name} from {rows}"), kind),
            1 => (format!("select count(*) as {name} from {rows}"), Kind::Int),
            2 => (
                format!("select max({value}) as {name} from {rows} group by {}", self.expr(&inner_columns, Kind::Int)),
                kind,
            ),
            3 => {
                let (inner, outer) = (self.expr(&inner_columns, Kind::Int), self.expr(&columns, Kind::Int));
                (format!("select distinct {inner} + {outer} as {name} from {rows}"), Kind::Int)
            }
            _ => {
                let order = self.order(&inner_columns);
                (format!("select {value} as {name} from {rows} order by {order} limit 2"), kind)
            }
        };
        output.push((name.clone(), kind));
        let join = ["cross join lateral", "left join lateral"].choose(self.rng).unwrap();
        let on = if join.starts_with("left") { " on true" } else { "" };
        let filter = self.filter(&columns);
        let sql = format!("select {list}, {alias}.{name} from {source} {join} ({beside}) as {alias}{on}{filter}");
        Query { sql, columns: output }
    }

    /// A join whose condition asks, and what it is: the pairs that fulfil it, and the rows of a side that are in none.
    fn correlated_join(&mut self) -> (Query, String) {
        let ((left, left_columns), (right, right_columns)) = (self.some_table(), self.some_table());
        let (mut list, mut output) = self.select(&left_columns);
        let name = self.alias("c");
        list.push_str(&format!(", {} as {name}", self.expr(&right_columns, Kind::Int)));
        output.push((name, Kind::Int));
        let on = format!("{} = {}", self.expr(&left_columns, Kind::Int), self.expr(&right_columns, Kind::Int));
        let all: Vec<Column> = left_columns.iter().chain(&right_columns).cloned().collect();
        let about = [&left_columns, &right_columns, &all][self.rng.random_range(0..3)];
        let truth = self.asked_truth(about, 1);
        let kind = ["inner", "left", "right", "full"].choose(self.rng).unwrap();
        let mut parts = vec![format!("select {list} from {left} join {right} on {on} where {truth}")];
        for (side, other) in [("left", &right), ("right", &left)] {
            if [side, "full"].contains(kind) {
                parts.push(format!(
                    "select {list} from {left} {side} join {right} on false where not exists (select 1 from {other} where {on} and {truth})"
                ));
            }
        }
        let sql = format!("select {list} from {left} {kind} join {right} on {on} and {truth}");
        (Query { sql, columns: output }, parts.join(" union all "))
    }

    fn some_table(&mut self) -> (String, Vec<Column>) {
        let alias = self.alias("r");
        let at = self.rng.random_range(0..self.readable.len());
        self.table(at, &alias)
    }

    /// Rows of another relation that have to do with a row of `outer`, and their columns.
    fn asked(&mut self, outer: &[Column], depth: usize) -> (String, Vec<Column>) {
        let (inner, columns) = self.some_table();
        let mut conditions = vec![self.comparison(outer, &columns)];
        if self.rng.random_bool(0.4) {
            conditions.push(self.comparison(outer, &columns));
        }
        if depth > 0 && self.rng.random_bool(0.5) {
            // The further one sees both.
            let both: Vec<Column> = columns.iter().chain(outer).cloned().collect();
            conditions.push(self.asked_truth(&both, depth - 1));
        }
        (format!("{inner} where {}", conditions.join(" and ")), columns)
    }

    fn comparison(&mut self, outer: &[Column], inner: &[Column]) -> String {
        let both = |kind: &Kind| [outer, inner].iter().all(|side| side.iter().any(|c| c.1 == *kind));
        let kinds: Vec<Kind> = COMPARABLE.into_iter().filter(|kind| both(kind)).collect();
        let kind = kinds.choose(self.rng).copied().unwrap_or(Kind::Int);
        let operator = ["=", "=", "<", "<=", ">", "<>", "is not distinct from"].choose(self.rng).unwrap();
        // Now and then it is a value that is compared with the outer row.
        let inner = if self.rng.random_bool(0.1) { &[] } else { inner };
        format!("{} {operator} {}", self.expr(inner, kind), self.expr(outer, kind))
    }

    fn asked_truth(&mut self, outer: &[Column], depth: usize) -> String {
        let not = if self.rng.random_bool(0.4) { "not " } else { "" };
        let kind = if self.rng.random_bool(0.6) { Kind::Int } else { Kind::Text };
        match self.rng.random_range(0..6) {
            0..2 => {
                let offset = ["", "", "", " offset 1", " limit 2"].choose(self.rng).unwrap();
                format!("{not}exists (select 1 from {}{offset})", self.asked(outer, depth).0)
            }
            2 => {
                let (rows, columns) = self.asked(outer, depth);
                let first = match self.rng.random_bool(0.3) {
                    true => format!(" order by {} limit 2", self.order(&columns)),
                    false => String::new(),
                };
                format!("{} {not}in (select {} from {rows}{first})", self.expr(outer, kind), self.expr(&columns, kind))
            }
            3 => {
                let (rows, columns) = self.asked(outer, depth);
                let which = ["any", "all"].choose(self.rng).unwrap();
                format!("{} >= {which} (select {} from {rows})", self.expr(outer, kind), self.expr(&columns, kind))
            }
            4 => {
                format!("{} {not}in (select count(*) from {})", self.expr(outer, Kind::Int), self.asked(outer, depth).0)
            }
            _ => {
                let (value, kind) = self.asked_value(outer, depth);
                format!("{value} > {}", self.expr(outer, kind))
            }
        }
    }

    fn asked_value(&mut self, outer: &[Column], depth: usize) -> Column {
        let (rows, columns) = self.asked(outer, depth);
        let kind = [Kind::Int, Kind::Text, Kind::Time].choose(self.rng).copied().unwrap_or(Kind::Int);
        let value = self.expr(&columns, kind);
        let (alias, n) = (self.alias("d"), self.alias("n"));
        let int = match self.rng.random_range(0..10) {
            0..2 => format!("select count(*) from {rows}"),
            2 => return (format!("(select max({value}) from {rows})"), kind),
            3 => {
                let (order, skip) = (self.order(&columns), ["", " offset 1"].choose(self.rng).unwrap());
                return (format!("(select {value} from {rows} order by {order} limit 1{skip})"), kind);
            }
            4 => {
                let (inner, outer) = (self.expr(&columns, Kind::Int), self.expr(outer, Kind::Int));
                format!("select sum({inner} + {outer}) from {rows}")
            }
            5 => format!("select count(*) from (select distinct {value} as {n} from {rows}) as {alias}"),
            6 => {
                // DuckDB has no total of no rows where something is correlated.
                let mut by = || match self.rng.random_range(0..4) {
                    0 => (format!("rollup ({value}) having count(*) > 0"), format!(" + 2 * grouping({value})")),
                    1 => {
                        let other = self.expr(&columns, Kind::Int);
                        (format!("grouping sets (({value}, {other}), ({other}))"), format!(" + grouping({other})"))
                    }
                    _ => (value.clone(), String::new()),
                };
                let (by, more) = by();
                format!("select max({n}) from (select count(*){more} as {n} from {rows} group by {by}) as {alias}")
            }
            7 => {
                let order = self.order(&columns);
                format!(
                    "select max({n}) from (select row_number() over (order by {order}) as {n} from {rows}) as {alias}"
                )
            }
            8 => {
                let (others, other_columns) = self.asked(outer, 0);
                let other = self.expr(&other_columns, kind);
                let all = if self.rng.random_bool(0.5) { " all" } else { "" };
                format!(
                    "select count(*) from (select {value} as {n} from {rows} union{all} select {other} as {n} from {others}) as {alias}"
                )
            }
            _ => {
                let ((left, left_columns), (right, right_columns)) = (self.some_table(), self.some_table());
                let kind = ["join", "left join", "right join", "full join"].choose(self.rng).unwrap();
                let on = format!("{} = {}", self.expr(&left_columns, Kind::Int), self.expr(&right_columns, Kind::Int));
                let (about, counted) = (self.comparison(outer, &right_columns), self.expr(&right_columns, Kind::Int));
                let rest = self.comparison(outer, &left_columns);
                format!("select count({counted}) from {left} {kind} {right} on {on} and {about} where {rest}")
            }
        };
        (format!("({int})"), Kind::Int)
    }
}

//! Lists and structs unfolded: in the SELECT list, in FROM, of every row or of some.

use rand::Rng;

use super::super::tables::Kind;
use super::{Column, Generator, Query};

impl Generator<'_> {
    pub(super) fn unnest(&mut self, depth: usize) -> Query {
        if self.rng.random_bool(0.5) { self.unnest_selected(depth) } else { self.unnest_joined(depth) }
    }

    /// A list of BIGINT.
    fn list(&mut self, columns: &[Column]) -> String {
        let column = self.column(columns, Kind::List);
        match (column, self.rng.random_range(0..6)) {
            (Some(column), 0) => format!("case when {} then {column} end", self.predicate(columns)),
            (Some(column), 1) => {
                format!("array_append({column}, {})", self.expr(columns, Kind::Int))
            }
            (Some(column), 2..) => column,
            _ => format!("make_array({}, {})", self.expr(columns, Kind::Int), self.expr(columns, Kind::Int)),
        }
    }

    /// `select …, unnest(li), unnest(unnest(…))`.
    fn unnest_selected(&mut self, depth: usize) -> Query {
        let (source, columns) = self.source(depth);
        let filter = self.filter(&columns);
        let (mut list, mut output) = self.select(&columns);
        for _ in 0..self.rng.random_range(1..3) {
            let one = self.list(&columns);
            let unfolded = match self.rng.random_range(0..4) {
                0 => format!("unnest(unnest(make_array({one}, {})))", self.list(&columns)),
                1 => format!("unnest({one}) + 1"),
                _ => format!("unnest({one})"),
            };
            let name = self.alias("c");
            list.push_str(&format!(", {unfolded} as {name}"));
            output.push((name, Kind::Int));
        }
        Query { sql: format!("select {list} from {source}{filter}"), columns: output }
    }

    /// `from r, unnest(r.li)`.
    fn unnest_joined(&mut self, depth: usize) -> Query {
        let (mut source, mut columns) = self.source(depth);
        let count = self.rng.random_range(1..3);
        for number in 1..=count {
            let list = self.list(&columns);
            let (alias, name) = (self.alias("u"), self.alias("x"));
            source = match self.rng.random_range(0..6) {
                0 => format!("{source} cross join unnest({list}) as {alias}({name})"),
                1 => format!("{source} left join unnest({list}) as {alias}({name}) on true"),
                2 => {
                    let inner = self.alias("u");
                    format!(
                        "{source} cross join lateral (select {name} from unnest({list}) as {inner}({name}) where {name} > 0) as {alias}"
                    )
                }
                // Rows that stay where no element meets the condition, or where none is left of those that are computed.
                3 => {
                    let mut seen = columns.clone();
                    seen.push((format!("{alias}.{name}"), Kind::Int));
                    let condition = self.predicate(&seen);
                    format!("{source} left join unnest({list}) as {alias}({name}) on {condition}")
                }
                4 => {
                    let (inner, x) = (self.alias("u"), self.alias("x"));
                    let least = self.rng.random_range(-2..3);
                    format!(
                        "{source} left join lateral (select coalesce({x}, 7) % 5 as {name} from unnest({list}) as {inner}({x}) \
                         where {x} is null or {x} > {least}) as {alias} on {alias}.{name} <> 2"
                    )
                }
                // What is joined behind a comma does not see what stands before it.
                _ if number < count => format!("{source} cross join unnest({list}) as {alias}({name})"),
                _ => format!("{source}, unnest({list}) as {alias}({name})"),
            };
            columns.push((format!("{alias}.{name}"), Kind::Int));
        }
        let filter = self.filter(&columns);
        let (list, output) = self.select(&columns);
        Query { sql: format!("select {list} from {source}{filter}"), columns: output }
    }

    /// Subqueries over a list of the row they stand beside, in WHERE and in the SELECT list.
    pub fn over_lists(&mut self) -> Query {
        let depth = self.rng.random_range(0..2);
        let (source, columns) = self.source(depth);
        let filter = match self.rng.random_range(0..4) {
            0 => format!(" where {}", self.of_elements(&columns)),
            1 => format!(" where {} or {}", self.of_elements(&columns), self.predicate(&columns)),
            2 => format!(" where {} and {}", self.of_elements(&columns), self.of_elements(&columns)),
            _ => self.filter(&columns),
        };
        let (mut list, mut output) = self.select(&columns);
        for _ in 0..self.rng.random_range(1..3) {
            let (value, kind) = match self.rng.random_range(0..3) {
                0 => (self.of_elements(&columns), Kind::Bool),
                _ => (self.of_all_elements(&columns), Kind::Int),
            };
            let name = self.alias("c");
            list.push_str(&format!(", {value} as {name}"));
            output.push((name, kind));
        }
        Query { sql: format!("select {list} from {source}{filter}"), columns: output }
    }

    /// `unnest(list) as u(x)` with or without a condition on `x` and the row, and `x`.
    fn elements(&mut self, columns: &[Column]) -> (String, String) {
        // Maps cannot be compared.
        let plain: Vec<Column> = columns.iter().filter(|(_, kind)| *kind != Kind::Map).cloned().collect();
        let list = self.list(&plain);
        let (alias, name) = (self.alias("u"), self.alias("x"));
        let condition = match self.rng.random_range(0..4) {
            0 => String::new(),
            1 => format!(" where {name} > {}", self.rng.random_range(-2..4)),
            _ => {
                let mut seen = plain;
                seen.push((format!("{alias}.{name}"), Kind::Int));
                format!(" where {} and {}", self.predicate(&seen), self.predicate(&seen[seen.len() - 1..]))
            }
        };
        (format!("unnest({list}) as {alias}({name}){condition}"), name)
    }

    /// Something true, false or unknown about the elements of a list.
    fn of_elements(&mut self, columns: &[Column]) -> String {
        let (elements, x) = self.elements(columns);
        let not = if self.rng.random_bool(0.4) { "not " } else { "" };
        match self.rng.random_range(0..3) {
            0 => format!("{} {not}in (select {x} from {elements})", self.expr(columns, Kind::Int)),
            1 => format!("{} {not}in (select {x} + 1 from {elements})", self.rng.random_range(0..4)),
            _ => format!("{not}exists (select 1 from {elements})"),
        }
    }

    /// One value of all of them.
    fn of_all_elements(&mut self, columns: &[Column]) -> String {
        let (elements, x) = self.elements(columns);
        let value = match self.rng.random_range(0..4) {
            0 => "count(*)".to_string(),
            1 => format!("max({x})"),
            2 => format!("sum({x} % 7)"),
            _ => format!("count(distinct {x})"),
        };
        format!("(select {value} from {elements})")
    }
}

//! Random subqueries: in SELECT lists, below OR, NOT and CASE, correlated, with LIMIT, beside tables in FROM, and named ones read twice.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Column, Generator, Query};
use crate::operators::tests::tables::Kind;

impl Generator<'_> {
    /// A select list or a condition with subqueries in it, or a lateral one beside a table.
    pub fn subqueries(&mut self, depth: usize) -> Query {
        let (source, columns) = self.source(depth);
        let (list, mut output) = self.select(&columns);
        if self.rng.random_bool(0.2) {
            return self.lateral(&source, &columns, &list, output);
        }
        let filter = match self.rng.random_range(0..3) {
            0 => {
                let (member, other) = (self.truth(&columns), self.predicate(&columns));
                match self.rng.random_range(0..4) {
                    0 => format!(" where {member} or {other}"),
                    1 => format!(" where not ({member})"),
                    2 => format!(" where ({member}) is null or {other}"),
                    _ => format!(" where case when {other} then {member} else true end"),
                }
            }
            _ => self.filter(&columns),
        };
        let name = self.alias("c");
        let (value, kind) = match self.rng.random_range(0..4) {
            0 => (self.truth(&columns), Kind::Bool),
            1 => {
                let member = self.truth(&columns);
                (format!("case when {member} then 1 else 2 end"), Kind::Int)
            }
            _ => self.scalar(&columns),
        };
        output.push((name.clone(), kind));
        Query { sql: format!("select {list}, {value} as {name} from {source}{filter}"), columns: output }
    }

    /// A relation with a key that it may share with `columns`: its text, columns, and `inner = outer`.
    fn inner(&mut self, columns: &[Column]) -> (String, Vec<Column>, String, [String; 2]) {
        let alias = self.alias("r");
        let at = self.rng.random_range(0..self.readable.len());
        let (inner, inner_columns) = self.table(at, &alias);
        let kinds: Vec<Kind> = (inner_columns.iter().map(|c| c.1))
            .filter(|k| columns.iter().any(|c| c.1 == *k) && *k != Kind::Float && !k.is_nested())
            .collect();
        let kind = kinds.choose(self.rng).copied().unwrap_or(Kind::Int);
        let (outer, of_inner) = (self.expr(columns, kind), self.expr(&inner_columns, kind));
        (inner, inner_columns, format!("{of_inner} = {outer}"), [outer, of_inner])
    }

    /// Something true, false or unknown that asks another relation.
    fn truth(&mut self, columns: &[Column]) -> String {
        let (inner, inner_columns, on, [outer, of_inner]) = self.inner(columns);
        let not = if self.rng.random_bool(0.4) { "not " } else { "" };
        match self.rng.random_range(0..3) {
            0 => format!("{not}exists (select 1 from {inner} where {on})"),
            1 => {
                let filter = self.filter(&inner_columns);
                format!("{outer} {not}in (select {of_inner} from {inner}{filter})")
            }
            _ => {
                let kind = if self.rng.random_bool(0.5) { Kind::Int } else { Kind::Text };
                let (value, member) = (self.expr(columns, kind), self.expr(&inner_columns, kind));
                format!("{value} {not}in (select {member} from {inner} where {on})")
            }
        }
    }

    /// One value of the rows of another relation that belong to a row.
    fn scalar(&mut self, columns: &[Column]) -> Column {
        let (inner, inner_columns, on, _) = self.inner(columns);
        let kind = [Kind::Int, Kind::Text, Kind::Time][self.rng.random_range(0..3)];
        let value = self.expr(&inner_columns, kind);
        match self.rng.random_range(0..5) {
            0 => (format!("(select count(*) from {inner} where {on})"), Kind::Int),
            1 => (format!("(select max({value}) from {inner} where {on})"), kind),
            2 => (format!("(select min({value}) from {inner})"), kind),
            _ => {
                let order = self.order(&inner_columns);
                let skip = ["", " offset 1"][self.rng.random_range(0..2)];
                (format!("(select {value} from {inner} where {on} order by {order} limit 1{skip})"), kind)
            }
        }
    }

    /// The first rows of another relation that belong to a row, beside it.
    fn lateral(&mut self, source: &str, columns: &[Column], list: &str, mut output: Vec<Column>) -> Query {
        let (inner, inner_columns, on, _) = self.inner(columns);
        let kind = [Kind::Int, Kind::Text, Kind::Time][self.rng.random_range(0..3)];
        let value = self.expr(&inner_columns, kind);
        let (name, alias, order) = (self.alias("c"), self.alias("l"), self.order(&inner_columns));
        let limit = if self.rng.random_bool(0.7) {
            format!(" order by {order} limit {}", self.rng.random_range(1..3))
        } else {
            String::new()
        };
        output.push((name.clone(), kind));
        let sql = format!(
            "select {list}, {alias}.{name} from {source} cross join lateral (select {value} as {name} from {inner} where {on}{limit}) as {alias}"
        );
        Query { sql, columns: output }
    }
}

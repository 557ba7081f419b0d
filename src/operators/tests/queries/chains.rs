//! Random chains of joins in an order that nobody would choose: relations that are found by keys, filtered ones, comparisons and cross products,
//! where they come.

use rand::Rng;

use super::{Column, Generator, Kind, Query};

impl Generator<'_> {
    /// Three to five relations; each is joined to one or two of those before it.
    pub fn chain(&mut self) -> Query {
        let (mut sql, first) = self.link();
        let mut before = vec![first];
        let count = self.rng.random_range(3..6);
        let mut crossed = false;
        while before.len() < count {
            let (link, columns) = self.link();
            let mut on: Vec<String> = Vec::new();
            let pairs = if self.rng.random_bool(0.2) { 2 } else { 1 };
            for _ in 0..pairs {
                let other = self.rng.random_range(0..before.len());
                let left = self.expr(&before[other], Kind::Int);
                let right = self.expr(&columns, Kind::Int);
                on.push(match self.rng.random_range(0..10) {
                    0 => format!("{left} < {right}"),
                    1 => format!("{left} + {right} = 4"),
                    _ => format!("{left} = {right}"),
                });
            }
            if self.rng.random_bool(0.1) {
                on.push(self.predicate(&columns));
            }
            let kind = match self.rng.random_range(0..10) {
                0 if !crossed => "cross join",
                1 => "left join",
                _ => "join",
            };
            match kind {
                "cross join" => {
                    crossed = true;
                    sql.push_str(&format!(" cross join {link}"));
                }
                kind => sql.push_str(&format!(" {kind} {link} on {}", on.join(" and "))),
            }
            before.push(columns);
        }
        let all: Vec<Column> = before.concat();
        let filter = self.filter(&all);
        let (list, output) = self.select(&all);
        Query { sql: format!("select {list} from {sql}{filter}"), columns: output }
    }

    /// A table, some of its rows, or one row for each of its keys.
    fn link(&mut self) -> (String, Vec<Column>) {
        let (inner, alias) = (self.alias("r"), self.alias("r"));
        let at = self.rng.random_range(0..self.readable.len());
        let (table, columns) = self.table(at, &inner);
        match self.rng.random_range(0..10) {
            0..3 => {
                let key = self.column(&columns, Kind::Int).unwrap_or_else(|| columns[0].0.clone());
                let kind = columns.iter().find(|(name, _)| *name == key).map_or(Kind::Int, |(_, kind)| *kind);
                let sql = format!("(select {key} as g, count(*) as n from {table} group by {key}) as {alias}");
                (sql, vec![(format!("{alias}.g"), kind), (format!("{alias}.n"), Kind::Int)])
            }
            3 | 4 => {
                let filter = self.predicate(&columns);
                let bare = |name: &str| name.rsplit('.').next().unwrap_or_default().to_string();
                let own = columns.iter().map(|(name, kind)| (format!("{alias}.{}", bare(name)), *kind)).collect();
                (format!("(select {inner}.* from {table} where {filter}) as {alias}"), own)
            }
            _ => (table, columns),
        }
    }
}

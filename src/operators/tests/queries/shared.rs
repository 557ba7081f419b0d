//! Random queries that name something and read it in several places.

use rand::Rng;

use super::{Column, Generator, Query};
use crate::operators::tests::tables::Kind;

impl Generator<'_> {
    /// A named query, mostly one that keeps state, and two or three readers of it; sometimes a second one that reads it as well.
    pub fn shared(&mut self, depth: usize) -> Query {
        let query = match self.rng.random_range(0..8) {
            0 => self.windowed(depth),
            1 => self.first(depth),
            2 => self.distinct(depth),
            3 => self.join(depth),
            4 => self.linear(depth),
            5 => self.limited(depth),
            _ => self.aggregate(depth),
        };
        let name = self.alias("w");
        let with = format!("with {name} as ({})", query.sql);
        let key = query.columns[self.rng.random_range(0..query.columns.len())].clone();
        let key = if matches!(key.1, Kind::Int | Kind::Text | Kind::Day) { Some(key.0) } else { None };
        let (left, right) = (self.alias("r"), self.alias("r"));
        let (mut columns, more) = (qualified(&left, &query), qualified(&right, &query));
        match (self.rng.random_range(0..7), key) {
            // Of each key the rows that say the most.
            (0 | 1, Some(key)) => {
                let value = self.column(&columns, Kind::Int);
                let value = value.map_or("1".to_string(), |c| c.replacen(&format!("{left}."), "", 1));
                let (most, second) = (self.alias("c"), self.alias("w"));
                columns.push((format!("{right}.{most}"), Kind::Int));
                let (list, output) = self.select(&columns);
                let call = ["max", "min", "count", "sum"][self.rng.random_range(0..4)];
                let sql = format!(
                    "{with}, {second} as (select {key}, {call}({value}) as {most} from {name} group by {key}) \
                     select {list} from {name} as {left} join {second} as {right} on {left}.{key} = {right}.{key}{}",
                    self.filter(&columns)
                );
                Query { sql, columns: output }
            }
            (2, Some(key)) => {
                let not = if self.rng.random_bool(0.5) { "not " } else { "" };
                let (list, output) = self.select(&columns);
                let filter = self.filter(&more);
                let sql = format!(
                    "{with} select {list} from {name} as {left} where {left}.{key} {not}in (select {right}.{key} from {name} as {right}{filter})"
                );
                Query { sql, columns: output }
            }
            (3, Some(key)) => {
                let kind = ["left join", "full join", "right join", "join"][self.rng.random_range(0..4)];
                columns.extend(more);
                let (list, output) = self.select(&columns);
                let sql = format!(
                    "{with} select {list} from {name} as {left} {kind} {name} as {right} on {left}.{key} = {right}.{key}"
                );
                Query { sql, columns: output }
            }
            (4, _) => {
                // Two named queries of one text.
                let again = self.alias("w");
                let (list, output) = self.select(&columns);
                let other = list.replace(&format!("{left}."), &format!("{right}."));
                let word = ["union all", "union", "except", "intersect"][self.rng.random_range(0..4)];
                let (a, b) = (self.filter(&columns), self.filter(&more));
                let sql = format!(
                    "{with}, {again} as ({}) select {list} from {name} as {left}{a} {word} select {other} from {again} as {right}{b}",
                    query.sql
                );
                Query { sql, columns: output }
            }
            _ => {
                let (list, output) = self.select(&columns);
                let other = list.replace(&format!("{left}."), &format!("{right}."));
                let third = list.replace(&format!("{left}."), "");
                let (a, b) = (self.filter(&columns), self.filter(&more));
                let sql = format!(
                    "{with} select {list} from {name} as {left}{a} union all select {other} from {name} as {right}{b} \
                     union all select {third} from {name}"
                );
                Query { sql, columns: output }
            }
        }
    }
}

fn qualified(alias: &str, query: &Query) -> Vec<Column> {
    query.columns.iter().map(|(name, kind)| (format!("{alias}.{name}"), *kind)).collect()
}

//! Conditions that compare rows with the clock, and what may stand above them.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::super::tables::Kind;
use super::{Column, Generator, Query};

impl Generator<'_> {
    /// A query whose rows come and go with the clock.
    pub fn timed(&mut self) -> Query {
        let inner = self.timed_rows();
        let alias = self.alias("r");
        let columns: Vec<Column> = inner.columns.iter().map(|(n, k)| (format!("{alias}.{n}"), *k)).collect();
        match self.rng.random_range(0..5) {
            0 => {
                let (list, output) = self.select(&columns);
                Query { sql: format!("select distinct {list} from ({}) as {alias}", inner.sql), columns: output }
            }
            1 => {
                let (call, kind) = self.call(&columns);
                let (by, by_kind) = columns.choose(self.rng).unwrap().clone();
                let (key, value) = (self.alias("c"), self.alias("c"));
                let sql =
                    format!("select {by} as {key}, {call} as {value} from ({}) as {alias} group by {by}", inner.sql);
                Query { sql, columns: vec![(key, by_kind), (value, kind)] }
            }
            2 => {
                let other = self.alias("r");
                let (arm, arm_columns) = self.table(1, &other);
                let on = format!("{} = {}", self.expr(&columns, Kind::Int), self.expr(&arm_columns, Kind::Int));
                let all: Vec<Column> = columns.into_iter().chain(arm_columns).collect();
                let (list, output) = self.select(&all);
                let sql = format!("select {list} from ({}) as {alias} left join {arm} on {on}", inner.sql);
                Query { sql, columns: output }
            }
            _ => inner,
        }
    }

    fn timed_rows(&mut self) -> Query {
        let alias = self.alias("r");
        let at = [0, 0, 2, 4][self.rng.random_range(0..4)];
        let (source, columns) = self.table(at, &alias);
        let (list, output) = self.select(&columns);
        let mut conditions: Vec<String> = (0..self.rng.random_range(1..3)).map(|_| self.bound(&columns)).collect();
        if self.rng.random_bool(0.4) {
            conditions.push(self.predicate(&columns));
        }
        Query { sql: format!("select {list} from {source} where {}", conditions.join(" and ")), columns: output }
    }

    fn bound(&mut self, columns: &[Column]) -> String {
        let time = self.expr(columns, Kind::Time);
        let operator = ["<", "<=", ">", ">=", ">", ">="][self.rng.random_range(0..6)];
        let hours = self.rng.random_range(0..6);
        match self.rng.random_range(0..8) {
            0 => format!("{time} {operator} now()"),
            1 => format!("now() + interval '{hours} hours' {operator} {time}"),
            2 => format!("{time} between now() - interval '{hours} hours' and now()"),
            3 => format!("{time} + interval '1 month' {operator} now()"),
            4 => format!("{time} {operator} current_date - interval '1 month'"),
            5 => match self.column(columns, Kind::Day) {
                Some(day) => format!("{day} {operator} current_date - interval '673 days'"),
                None => format!("{time} {operator} current_date"),
            },
            6 => format!("{time} {operator} date_trunc('day', now())"),
            _ => format!("{time} {operator} now() - interval '{hours} hours'"),
        }
    }
}

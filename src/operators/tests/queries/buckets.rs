//! Groups and partitions of time buckets, which a view may forget behind the watermark of the table they are made of, and what may stand above them.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::super::tables::Kind;
use super::{Column, Generator, Query};

impl Generator<'_> {
    /// A query over such groups.
    pub fn bucketed(&mut self) -> Query {
        let inner = if self.rng.random_bool(0.35) { self.partitions() } else { self.buckets() };
        self.above(inner)
    }

    /// A query over sessions, by the time `ts` of a table or, of the first one, by `day`.
    pub fn bucketed_sessions(&mut self, by_day: bool) -> Query {
        let alias = self.alias("w");
        let at = if by_day { 0 } else { [0, 0, 4][self.rng.random_range(0..3)] };
        let table = self.readable[at].clone();
        let mut columns: Vec<Column> = table.columns.iter().map(|(n, k)| (format!("{alias}.{n}"), *k)).collect();
        let relation = match self.rng.random_range(0..4) {
            0 => {
                let own: Vec<Column> = table.columns.iter().map(|(n, k)| (format!("n.{n}"), *k)).collect();
                let filter = self.filter(&own);
                format!("(select n.* from {} as n{filter})", table.name)
            }
            _ => table.name,
        };
        let time = match (by_day, self.rng.random_range(0..6)) {
            (true, _) => "day",
            (false, 0) => "date_bin(interval '90 minutes', ts)",
            (false, 1) => "date_trunc('day', ts)",
            (false, _) => "ts",
        };
        let gaps = if by_day { ["1 day", "2 days", "30 hours"] } else { ["30 minutes", "90 minutes", "2 hours"] };
        let gap = match self.rng.random_range(0..8) {
            0 => "1 month",
            1 => "1 hour",
            n => gaps[n % 3],
        };
        let mut keys: Vec<Column> = Vec::new();
        for _ in 0..[0, 1, 1, 1, 2][self.rng.random_range(0..5)] {
            let kind = [Kind::Int, Kind::Int, Kind::Text][self.rng.random_range(0..3)];
            keys.extend(self.column(&columns, kind).map(|name| (name, kind)));
        }
        keys.dedup();
        // The call's arguments are the relation's own columns.
        let by: String = keys.iter().map(|(key, _)| format!(", {}", key.replace(&format!("{alias}."), ""))).collect();
        let call = format!("session({relation}, {time}, interval '{gap}'{by}) as {alias}");
        let bounds = ["window_start", "window_end"].map(|n| (format!("{alias}.{n}"), Kind::Time));
        let own = columns.clone();
        columns.extend(bounds.clone());
        let filter = match self.rng.random_range(0..8) {
            0 => format!(" where {}", self.predicate(&bounds)),
            1 => self.filter(&own),
            _ => String::new(),
        };
        let mut groups: Vec<Column> = keys.into_iter().filter(|_| self.rng.random_bool(0.93)).collect();
        groups.push(bounds[0].clone());
        if self.rng.random_bool(0.15) {
            groups.extend(self.column(&own, Kind::Int).map(|name| (name, Kind::Int)));
        }
        let inner = match self.rng.random_range(0..10) {
            0 | 1 => {
                let (list, mut output) = self.select(&own);
                let names = bounds.each_ref().map(|_| self.alias("c"));
                let list = format!("{list}, {} as {}, {} as {}", bounds[0].0, names[0], bounds[1].0, names[1]);
                output.extend(names.into_iter().map(|name| (name, Kind::Time)));
                Query { sql: format!("select {list} from {call}{filter}"), columns: output }
            }
            2 | 3 => self.partitions_of(&call, &columns, &groups, &filter),
            4 => {
                // Two readers of one call.
                let [one, other] = [0, 1].map(|_| self.call(&own).0);
                let named = format!("with x as (select {alias}.*, {alias}.id + 1 as more from {call}{filter})");
                let list: Vec<String> = groups.iter().map(|(g, _)| g.replace(&format!("{alias}."), "x.")).collect();
                let by = list.join(", ");
                let read = |c: &str| {
                    format!(
                        "select x.window_start as c_s, {} as c_v from x group by {by}",
                        c.replace(&format!("{alias}."), "x.")
                    )
                };
                let sql = format!(
                    "{named} select c_s, cast(c_v as varchar) as c_v from ({}) union all select c_s, cast(c_v as varchar) as c_v from ({})",
                    read(&one),
                    read(&other)
                );
                Query { sql, columns: vec![("c_s".into(), Kind::Time), ("c_v".into(), Kind::Text)] }
            }
            _ => {
                groups.extend(Some(bounds[1].clone()).filter(|_| self.rng.random_bool(0.6)));
                self.groups_of(&call, &own, &groups, &filter)
            }
        };
        self.above(inner)
    }

    /// What is read of a query over buckets.
    fn above(&mut self, inner: Query) -> Query {
        let alias = self.alias("r");
        let columns: Vec<Column> = inner.columns.iter().map(|(n, k)| (format!("{alias}.{n}"), *k)).collect();
        match self.rng.random_range(0..9) {
            0 => {
                let (call, kind) = self.call(&columns);
                let (by, by_kind) = columns.choose(self.rng).unwrap().clone();
                let (key, value) = (self.alias("c"), self.alias("c"));
                let sql =
                    format!("select {by} as {key}, {call} as {value} from ({}) as {alias} group by {by}", inner.sql);
                Query { sql, columns: vec![(key, by_kind), (value, kind)] }
            }
            1 => {
                let other = self.alias("r");
                let (arm, arm_columns) = self.table(1, &other);
                let on = format!("{} = {}", self.expr(&columns, Kind::Int), self.expr(&arm_columns, Kind::Int));
                let all: Vec<Column> = columns.into_iter().chain(arm_columns).collect();
                let (list, output) = self.select(&all);
                let sql = format!("select {list} from ({}) as {alias} left join {arm} on {on}", inner.sql);
                Query { sql, columns: output }
            }
            2 => {
                // What is read twice is computed once.
                let (first, second) = (&inner.columns[0].0, &inner.columns[inner.columns.len() - 1].0);
                let sql = format!(
                    "with w as ({}) select x.{first} as c_x, y.{second} as c_y from w as x join w as y on x.{first} = y.{first}",
                    inner.sql
                );
                Query {
                    sql,
                    columns: vec![("c_x".into(), inner.columns[0].1), ("c_y".into(), inner.columns.last().unwrap().1)],
                }
            }
            3 => {
                // Two aggregates over one named query.
                let (source, columns) = self.table(0, "n");
                let filter = self.filter(&columns);
                let sql = format!(
                    "with n as (select n.*, n.id + 1 as more from {source}{filter}) \
                     select date_trunc('hour', ts) as c_b, sum(more) as c_v from n group by date_trunc('hour', ts) union all \
                     select ts as c_b, count(distinct more) as c_v from n group by ts"
                );
                Query { sql, columns: vec![("c_b".into(), Kind::Time), ("c_v".into(), Kind::Int)] }
            }
            _ => inner,
        }
    }

    /// What is read, its columns, and keys of which one is a bucket.
    fn bucket_keys(&mut self) -> (String, Vec<Column>, Vec<Column>) {
        let alias = self.alias("w");
        let at = [0, 0, 0, 4][self.rng.random_range(0..4)];
        let (mut source, mut columns) = self.table(at, &alias);
        let name = self.readable[at].name.clone();
        let time = format!("{alias}.ts");
        let mut keys: Vec<Column> = match self.rng.random_range(0..14) {
            0 => vec![(format!("date_trunc('hour', {time})"), Kind::Time)],
            1 => vec![(format!("date_trunc('day', {time})"), Kind::Time)],
            2 => vec![(format!("date_bin(interval '150 minutes', {time})"), Kind::Time)],
            3 => vec![(format!("date_bin(interval '2 hours', {time}, timestamp '2020-01-01T00:30:00Z')"), Kind::Time)],
            4 => vec![(format!("cast({time} as date)"), Kind::Day)],
            5 => vec![(time, Kind::Time)],
            6 => vec![(format!("date_trunc('month', {time})"), Kind::Time)],
            7 => match at {
                0 => vec![(format!("date_trunc('week', {alias}.day)"), Kind::Time)],
                _ => vec![(format!("date_trunc('hour', date_trunc('minute', {time}))"), Kind::Time)],
            },
            kind => {
                let call = match kind {
                    8 | 9 => format!("tumble({name}, ts, interval '150 minutes')"),
                    10 => format!("tumble({name}, ts, interval '1 month', interval '1 hour')"),
                    11 | 12 => format!("hop({name}, ts, interval '1 hour', interval '3 hours')"),
                    // Between these there are gaps.
                    _ => format!("hop({name}, ts, interval '4 hours', interval '90 minutes', interval '1 hour')"),
                };
                source = format!("{call} as {alias}");
                let window = ["window_start", "window_end"].map(|n| (format!("{alias}.{n}"), Kind::Time));
                columns.extend(window.clone());
                match self.rng.random_range(0..3) {
                    0 => vec![window[0].clone()],
                    1 => vec![window[1].clone()],
                    _ => window.to_vec(),
                }
            }
        };
        if self.rng.random_bool(0.5) {
            let kind = [Kind::Int, Kind::Text][self.rng.random_range(0..2)];
            let key = self.expr(&columns, kind);
            let at = self.rng.random_range(0..=keys.len());
            if keys.iter().all(|(known, _)| *known != key) && columns.iter().any(|(n, _)| *n == key) {
                keys.insert(at, (key, kind));
            }
        }
        (source, columns, keys)
    }

    /// Window functions and first rows within buckets.
    fn partitions(&mut self) -> Query {
        let (source, columns, keys) = self.bucket_keys();
        let filter = self.filter(&columns);
        self.partitions_of(&source, &columns, &keys, &filter)
    }

    fn partitions_of(&mut self, source: &str, columns: &[Column], keys: &[Column], filter: &str) -> Query {
        let by = keys.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(", ");
        // DataFusion asserts that functions over one window are ordered alike, which those are not whose keys are ordered by as well.
        let others: Vec<Column> = columns.iter().filter(|(name, _)| !by.contains(name.as_str())).cloned().collect();
        let order = self.order(&others);
        let (mut list, mut output) = self.select(columns);
        let is_top = self.rng.random_bool(0.5);
        for number in 0..self.rng.random_range(1..3) {
            let (call, kind) = match is_top {
                true if number == 0 && self.rng.random_bool(0.5) => ("row_number()".to_string(), Kind::Int),
                true => {
                    (["rank()", "dense_rank()", "row_number()"][self.rng.random_range(0..3)].to_string(), Kind::Int)
                }
                false => self.window_call(columns),
            };
            let frame = match self.rng.random_range(0..4) {
                0 if call.starts_with("sum(") => " rows between 1 preceding and 1 following",
                1 if call.starts_with("max(") => " groups between 1 preceding and current row",
                _ => "",
            };
            let name = self.alias("c");
            list.push_str(&format!(", {call} over (partition by {by} order by {order}{frame}) as {name}"));
            output.push((name, kind));
        }
        let sql = format!("select {list} from {source}{filter}");
        let sql = match is_top {
            true => {
                let names: Vec<&str> = output.iter().map(|(n, _)| n.as_str()).collect();
                let condition = ["= 1", "<= 1", "<= 2", "< 4", "= 2"][self.rng.random_range(0..5)];
                let rank = names.last().copied().unwrap_or_default();
                format!("select {} from ({sql}) as x where {rank} {condition}", names.join(", "))
            }
            false => sql,
        };
        Query { sql, columns: output }
    }

    fn buckets(&mut self) -> Query {
        let (source, columns, keys) = self.bucket_keys();
        let filter = self.filter(&columns);
        self.groups_of(&source, &columns, &keys, &filter)
    }

    fn groups_of(&mut self, source: &str, columns: &[Column], keys: &[Column], filter: &str) -> Query {
        let by = keys.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(", ");
        let mut output = Vec::new();
        let mut list = Vec::new();
        for (key, kind) in keys {
            let name = self.alias("c");
            list.push(format!("{key} as {name}"));
            output.push((name, *kind));
        }
        if self.rng.random_bool(0.1) {
            return Query {
                sql: format!("select distinct {} from {source}{filter}", list.join(", ")),
                columns: output,
            };
        }
        for _ in 0..self.rng.random_range(1..4) {
            let (call, kind) = if self.rng.random_bool(0.5) { self.call(columns) } else { self.any_call(columns) };
            let name = self.alias("c");
            list.push(format!("{call} as {name}"));
            output.push((name, kind));
        }
        let having = if self.rng.random_bool(0.2) { " having count(*) > 1" } else { "" };
        Query {
            sql: format!("select {} from {source}{filter} group by {by}{having}", list.join(", ")),
            columns: output,
        }
    }
}

//! Random queries over [`super::tables`].

mod aggregates;
mod buckets;
mod chains;
mod clock;
mod correlated;
mod running;
mod sets;
mod shared;
mod subqueries;
mod time;
mod total;
mod unnest;

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::tables::{Kind, TABLES};

pub type Column = (String, Kind);

/// Something a query can read: its name in SQL, and its columns.
#[derive(Debug, Clone)]
pub struct Readable {
    pub name: String,
    pub columns: Vec<Column>,
}

impl Readable {
    pub fn new(schema: &str, name: &str, columns: Vec<Column>) -> Self {
        Readable { name: format!("\"{schema}\".\"{name}\""), columns }
    }

    /// All of [`TABLES`]; the first is the fact table.
    pub fn tables() -> Vec<Self> {
        let columns = |t: &super::tables::Table| t.columns.iter().map(|(n, k)| (n.to_string(), *k)).collect();
        TABLES.iter().map(|t| Readable::new("src", t.name, columns(t))).collect()
    }
}

/// Statistics of two variables.
const PAIR_STATISTICS: [&str; 11] = [
    "covar_samp",
    "covar_pop",
    "corr",
    "regr_slope",
    "regr_intercept",
    "regr_r2",
    "regr_avgx",
    "regr_avgy",
    "regr_sxx",
    "regr_syy",
    "regr_sxy",
];

/// SQL text, and its columns.
#[derive(Debug, Clone)]
pub struct Query {
    pub sql: String,
    pub columns: Vec<Column>,
}

pub struct Generator<'a> {
    pub rng: &'a mut ChaCha8Rng,
    readable: Vec<Readable>,
    names: usize,
    /// Whether every order is made total by all columns there are ([`total`]), so that another engine has the same.
    total: bool,
}

impl<'a> Generator<'a> {
    /// Queries over [`TABLES`].
    pub fn new(rng: &'a mut ChaCha8Rng) -> Self {
        Generator::over(Readable::tables(), rng)
    }

    /// Queries over `readable`, mostly over the first.
    pub fn over(readable: Vec<Readable>, rng: &'a mut ChaCha8Rng) -> Self {
        Generator { rng, readable, names: 0, total: false }
    }

    pub fn query(&mut self, depth: usize) -> Query {
        match self.rng.random_range(0..28) {
            19..22 => self.subqueries(depth),
            22 | 23 => self.set_operation(depth),
            24 => self.named_twice(depth),
            25 => self.distinct_on(depth),
            26 => self.keyless_join(depth),
            18 => self.unnest(depth),
            27 => self.in_time(depth),
            13 | 14 => self.related(depth),
            15 | 16 => self.windowed(depth),
            17 => self.limited(depth),
            0 => self.linear(depth),
            1 => self.union(depth),
            2 => self.distinct(depth),
            3..6 => self.join(depth),
            6..8 => self.first(depth),
            _ => self.aggregate(depth),
        }
    }

    fn alias(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    /// Something to select from, under an alias, with its columns qualified.
    fn source(&mut self, depth: usize) -> (String, Vec<Column>) {
        let alias = self.alias("r");
        if depth == 0 || self.rng.random_bool(0.5) {
            let at = if self.rng.random_bool(0.6) { 0 } else { self.rng.random_range(0..self.readable.len()) };
            return self.table(at, &alias);
        }
        let query = self.query(depth - 1);
        let columns = query.columns.into_iter().map(|(n, k)| (format!("{alias}.{n}"), k)).collect();
        (format!("({}) as {alias}", query.sql), columns)
    }

    fn table(&self, at: usize, alias: &str) -> (String, Vec<Column>) {
        let table = &self.readable[at];
        let columns = table.columns.iter().map(|(n, k)| (format!("{alias}.{n}"), *k)).collect();
        (format!("{} as {alias}", table.name), columns)
    }

    fn column(&mut self, columns: &[Column], kind: Kind) -> Option<String> {
        let fitting: Vec<&Column> = columns.iter().filter(|(_, k)| *k == kind).collect();
        fitting.choose(self.rng).map(|(n, _)| n.clone())
    }

    fn expr(&mut self, columns: &[Column], kind: Kind) -> String {
        if self.rng.random_bool(0.1)
            && let Some(part) = self.part(columns, kind)
        {
            return part;
        }
        let column = self.column(columns, kind);
        let Some(column) = column else {
            return match kind {
                // As a bare number it would be a position in ORDER BY and GROUP BY.
                Kind::Int => format!("cast({} as bigint)", self.rng.random_range(0..5)),
                Kind::Text => "'k'".into(),
                Kind::Float => "cast(1.5 as double)".into(),
                Kind::Decimal => "cast(1.25 as decimal(10,2))".into(),
                Kind::Bool => "true".into(),
                Kind::Time => "timestamp '2023-11-15 00:00:00'".into(),
                Kind::Day => "date '2022-01-10'".into(),
                Kind::Struct => "named_struct('x', cast(1 as bigint), 'y', 'k')".into(),
                Kind::List => "make_array(cast(1 as bigint), cast(2 as bigint))".into(),
                Kind::Map => "map(['k'], [cast(1 as bigint)])".into(),
            };
        };
        let choice = self.rng.random_range(0..10);
        match (kind, choice) {
            (Kind::Int, 0) => format!("{column} + 1"),
            (Kind::Int, 1) => format!("coalesce({column}, 3)"),
            (Kind::Int, 2) => format!("case when {} then {column} else {column} % 3 end", self.predicate(columns)),
            (Kind::Int, 3) => format!("nullif({column}, 2)"),
            (Kind::Text, 0) => format!("upper({column})"),
            (Kind::Text, 1) => format!("concat({column}, '!')"),
            (Kind::Text, 2) => format!("coalesce({column}, 'none')"),
            (Kind::Float, 0) => format!("{column} * 2"),
            (Kind::Float, 1) => format!("{column} + cast(0.5 as double)"),
            (Kind::Float, 2) => format!("-{column}"),
            (Kind::Float, 3) => format!("{column} * -1"),
            (Kind::Decimal, 0) => format!("cast({column} + {column} as decimal(10,2))"),
            (Kind::Bool, 0) => format!("not {column}"),
            (Kind::Time, 0) => format!("date_trunc('day', {column})"),
            _ => column,
        }
    }

    /// A value out of a nested column.
    fn part(&mut self, columns: &[Column], kind: Kind) -> Option<String> {
        match (kind, self.rng.random_range(0..2)) {
            (Kind::Int, 0) => Some(format!("{}['x']", self.column(columns, Kind::Struct)?)),
            (Kind::Int, _) => Some(format!("{}[1]", self.column(columns, Kind::List)?)),
            (Kind::Text, _) => Some(format!("{}['y']", self.column(columns, Kind::Struct)?)),
            _ => None,
        }
    }

    fn any_expr(&mut self, columns: &[Column]) -> Column {
        let kind = columns.choose(self.rng).map_or(Kind::Int, |c| c.1);
        (self.expr(columns, kind), kind)
    }

    pub fn predicate(&mut self, columns: &[Column]) -> String {
        let (column, kind) = columns.choose(self.rng).unwrap().clone();
        let simple = match (kind, self.rng.random_range(0..4)) {
            (_, 0) => format!("{column} is not null"),
            (Kind::Int, 1) => format!("{column} in (1, 2, 5)"),
            (Kind::Int, _) => format!("{column} > {}", self.rng.random_range(0..6)),
            (Kind::Text, 1) => format!("{column} like 'a%'"),
            (Kind::Text, _) => format!("{column} <> 'b'"),
            (Kind::Float, _) => format!("{column} < cast(2 as double)"),
            (Kind::Decimal, _) => format!("{column} >= 0"),
            (Kind::Bool, _) => column,
            (Kind::Time, _) => format!("{column} > timestamp '2023-11-15 02:00:00'"),
            (Kind::Day, _) => format!("{column} <> date '2022-01-10'"),
            (Kind::Struct, _) => format!("{column}['x'] > 0"),
            (Kind::List, _) => format!("{column}[1] < 2"),
            (Kind::Map, _) => format!("{column} is null"),
        };
        match self.rng.random_range(0..6) {
            0 => format!("({simple} or {})", self.predicate(columns)),
            1 => format!("({simple} and {})", self.predicate(columns)),
            2 => format!("not ({simple})"),
            _ => simple,
        }
    }

    fn filter(&mut self, columns: &[Column]) -> String {
        if self.rng.random_bool(0.4) { format!(" where {}", self.predicate(columns)) } else { String::new() }
    }

    /// `select` list of some expressions under new names.
    fn select(&mut self, columns: &[Column]) -> (String, Vec<Column>) {
        let count = self.rng.random_range(1..6);
        let mut list = Vec::new();
        let mut output = Vec::new();
        for _ in 0..count {
            let (expr, kind) = self.any_expr(columns);
            let name = self.alias("c");
            list.push(format!("{expr} as {name}"));
            output.push((name, kind));
        }
        (list.join(", "), output)
    }

    fn linear(&mut self, depth: usize) -> Query {
        let (source, columns) = self.source(depth);
        let filter = self.filter(&columns);
        let (list, output) = self.select(&columns);
        Query { sql: format!("select {list} from {source}{filter}"), columns: output }
    }

    fn distinct(&mut self, depth: usize) -> Query {
        let query = self.linear(depth);
        Query { sql: query.sql.replacen("select", "select distinct", 1), columns: query.columns }
    }

    fn union(&mut self, depth: usize) -> Query {
        let kinds: Vec<Kind> = (0..self.rng.random_range(1..4))
            .map(|_| [Kind::Int, Kind::Text, Kind::Float, Kind::Struct, Kind::List][self.rng.random_range(0..5)])
            .collect();
        let names: Vec<String> = kinds.iter().map(|_| self.alias("c")).collect();
        let mut parts = Vec::new();
        for _ in 0..self.rng.random_range(2..4) {
            let (source, columns) = self.source(depth);
            let list: Vec<String> =
                kinds.iter().zip(&names).map(|(k, n)| format!("{} as {n}", self.expr(&columns, *k))).collect();
            parts.push(format!("select {} from {source}{}", list.join(", "), self.filter(&columns)));
        }
        let word = if self.rng.random_bool(0.5) { " union all " } else { " union " };
        Query { sql: parts.join(word), columns: names.into_iter().zip(kinds).collect() }
    }

    /// A star: a base and one to three arms, each on the base, some with residuals; sometimes an arm on another arm.
    fn join(&mut self, depth: usize) -> Query {
        let (base, base_columns) = if self.rng.random_bool(0.7) {
            let alias = self.alias("r");
            self.table(0, &alias)
        } else {
            self.source(depth)
        };
        let mut all = base_columns.clone();
        let mut sql = base;
        for _ in 0..self.rng.random_range(1..4) {
            let (arm, arm_columns) = if self.rng.random_bool(0.75) {
                let alias = self.alias("r");
                let at = self.rng.random_range(0..self.readable.len());
                self.table(at, &alias)
            } else {
                self.source(depth)
            };
            let mut on = Vec::new();
            let from = if self.rng.random_bool(0.9) { &base_columns } else { &all };
            for _ in 0..self.rng.random_range(1..3) {
                let kinds: Vec<Kind> = arm_columns
                    .iter()
                    .map(|c| c.1)
                    .filter(|k| from.iter().any(|c| c.1 == *k) && *k != Kind::Float && !k.is_nested())
                    .collect();
                let kind = kinds.choose(self.rng).copied().unwrap_or(Kind::Int);
                let equals = if self.rng.random_bool(0.2) { "is not distinct from" } else { "=" };
                on.push(format!("{} {equals} {}", self.expr(from, kind), self.expr(&arm_columns, kind)));
            }
            if self.rng.random_bool(0.4) {
                let (left, right) = (self.column(from, Kind::Int), self.column(&arm_columns, Kind::Int));
                if let (Some(left), Some(right)) = (left, right) {
                    on.push(format!("{left} <= {right} + 1"));
                }
            }
            if self.rng.random_bool(0.15) {
                on.push(self.predicate(&arm_columns));
            }
            let kinds = ["left join", "left join", "left join", "left join", "join", "join", "right join", "full join"];
            let kind = kinds[self.rng.random_range(0..kinds.len())];
            sql.push_str(&format!(" {kind} {arm} on {}", on.join(" and ")));
            all.extend(arm_columns);
        }
        let filter = self.filter(&all);
        let (list, output) = self.select(&all);
        Query { sql: format!("select {list} from {sql}{filter}"), columns: output }
    }

    /// Rows that are, or are not, related to those of other tables: EXISTS and IN, negated or not, alone or beside OR.
    fn related(&mut self, depth: usize) -> Query {
        let (source, columns) = self.source(depth);
        let conditions: Vec<String> = (0..self.rng.random_range(1..3)).map(|_| self.relation(&columns)).collect();
        let (list, output) = self.select(&columns);
        Query { sql: format!("select {list} from {source} where {}", conditions.join(" and ")), columns: output }
    }

    fn relation(&mut self, columns: &[Column]) -> String {
        let alias = self.alias("r");
        let at = self.rng.random_range(0..self.readable.len());
        let (inner, inner_columns) = self.table(at, &alias);
        let kinds: Vec<Kind> = (inner_columns.iter().map(|c| c.1))
            .filter(|k| columns.iter().any(|c| c.1 == *k) && *k != Kind::Float && !k.is_nested())
            .collect();
        let kind = kinds.choose(self.rng).copied().unwrap_or(Kind::Int);
        let (outer_key, inner_key) = (self.expr(columns, kind), self.expr(&inner_columns, kind));
        let not = if self.rng.random_bool(0.4) { "not " } else { "" };
        let condition = if self.rng.random_bool(0.5) {
            let filter = self.filter(&inner_columns);
            format!("{outer_key} {not}in (select {inner_key} from {inner}{filter})")
        } else {
            let mut on = vec![format!("{inner_key} = {outer_key}")];
            let (outer, inner_int) = (self.column(columns, Kind::Int), self.column(&inner_columns, Kind::Int));
            if let (true, Some(outer), Some(inner_int)) = (self.rng.random_bool(0.4), outer, inner_int) {
                on.push(format!("{outer} <= {inner_int} + 1"));
            }
            if self.rng.random_bool(0.2) {
                on.push(self.predicate(&inner_columns));
            }
            format!("{not}exists (select 1 from {inner} where {})", on.join(" and "))
        };
        if self.rng.random_bool(0.25) {
            return format!("({condition} or {})", self.predicate(columns));
        }
        condition
    }

    /// Keys to order by, with their directions.
    fn order(&mut self, columns: &[Column]) -> String {
        let keys: Vec<String> = (0..self.rng.random_range(1..3))
            .map(|_| {
                let direction = ["", " desc", " desc nulls last", " nulls first"][self.rng.random_range(0..4)];
                // DataFusion orders a window by plain columns only.
                let kind = columns.choose(self.rng).map_or(Kind::Int, |c| c.1);
                let kind = if kind.is_nested() { Kind::Int } else { kind };
                format!("{}{direction}", self.expr(columns, kind))
            })
            .collect();
        self.in_total(keys, columns)
    }

    /// Window functions over one or two partitionings, sometimes with a condition on them.
    fn windowed(&mut self, depth: usize) -> Query {
        let (source, columns) = self.source(depth);
        let filter = self.filter(&columns);
        let (mut list, mut output) = self.select(&columns);
        let mut last = (String::new(), Kind::Int);
        for _ in 0..self.rng.random_range(1..3) {
            let keys: Vec<String> = (0..self.rng.random_range(0..3)).map(|_| self.any_expr(&columns).0).collect();
            let partition = if keys.is_empty() { String::new() } else { format!("partition by {} ", keys.join(", ")) };
            let order = self.order(&columns);
            if let Some((order, call, frame)) = self.among_peers(&columns) {
                let name = self.alias("c");
                list.push_str(&format!(", {call} over ({partition}order by {order}{frame}) as {name}"));
                last = (name.clone(), Kind::Int);
                output.push((name, Kind::Int));
                continue;
            }
            for _ in 0..self.rng.random_range(1..3) {
                let (call, kind) = self.window_call(&columns);
                let frame = match self.rng.random_range(0..10) {
                    0 => " rows between 1 preceding and 1 following",
                    1 => " rows between unbounded preceding and current row",
                    2 => " groups between 1 preceding and current row",
                    3 => " rows between 2 preceding and 1 preceding",
                    4 => " rows between 1 following and 3 following",
                    5 => " range between current row and unbounded following",
                    6 => " rows between current row and unbounded following",
                    _ => "",
                };
                let framed = ["sum(", "count(", "max(", "first_value(", "last_value(", "nth_value("];
                let frame = if framed.iter().any(|f| call.starts_with(f)) { frame } else { "" };
                let name = self.alias("c");
                list.push_str(&format!(", {call} over ({partition}order by {order}{frame}) as {name}"));
                last = (name.clone(), kind);
                output.push((name, kind));
            }
        }
        let sql = format!("select {list} from {source}{filter}");
        let names: Vec<&str> = output.iter().map(|(n, _)| n.as_str()).collect();
        let sql = match self.rng.random_bool(0.4) && last.1 == Kind::Int {
            true => {
                let condition = ["<= 2", "= 1", "< 4", "= 3"][self.rng.random_range(0..4)];
                format!("select {} from ({sql}) as x where {} {condition}", names.join(", "), last.0)
            }
            false => sql,
        };
        Query { sql, columns: output }
    }

    fn window_call(&mut self, columns: &[Column]) -> Column {
        let int = self.expr(columns, Kind::Int);
        let text = self.expr(columns, Kind::Text);
        match self.rng.random_range(0..10) {
            0 => ("row_number()".to_string(), Kind::Int),
            1 => ("rank()".to_string(), Kind::Int),
            2 => ("dense_rank()".to_string(), Kind::Int),
            3 => (format!("lag({int}, {}, 7)", self.rng.random_range(-1..3)), Kind::Int),
            4 => (format!("lead({text}, 2)"), Kind::Text),
            5 if self.rng.random_bool(0.5) => (format!("nth_value({int}, 2)"), Kind::Int),
            5 => (format!("first_value({int})"), Kind::Int),
            6 => (format!("last_value({text})"), Kind::Text),
            7 => (format!("sum({int})"), Kind::Int),
            8 => (format!("max({text})"), Kind::Text),
            _ => ("count(*)".to_string(), Kind::Int),
        }
    }

    /// The first rows of some order.
    fn limited(&mut self, depth: usize) -> Query {
        let (source, columns) = self.source(depth);
        let filter = self.filter(&columns);
        let (list, output) = self.select(&columns);
        // A key that has the name of an output column is ambiguous to DataFusion.
        let of_output = |name: &str| output.iter().any(|(n, _)| name.ends_with(&format!(".{n}")));
        let keys: Vec<Column> = columns.into_iter().filter(|(n, _)| !of_output(n)).collect();
        let order = self.order(&keys);
        let limit = match self.rng.random_range(0..6) {
            0 => format!("offset {}", self.rng.random_range(0..4)),
            1 | 2 => format!("limit {} offset {}", self.rng.random_range(1..5), self.rng.random_range(0..4)),
            _ => format!("limit {}", self.rng.random_range(0..5)),
        };
        let alias = self.alias("r");
        let names: Vec<&str> = output.iter().map(|(n, _)| n.as_str()).collect();
        let sql = format!(
            "select {} from (select {list} from {source}{filter} order by {order} {limit}) as {alias}",
            names.join(", ")
        );
        Query { sql, columns: output }
    }

    fn first(&mut self, depth: usize) -> Query {
        let (source, columns) = self.source(depth);
        let filter = self.filter(&columns);
        let (list, output) = self.select(&columns);
        let partition: Vec<String> = (0..self.rng.random_range(0..3)).map(|_| self.any_expr(&columns).0).collect();
        let order = self.order(&columns);
        let partition =
            if partition.is_empty() { String::new() } else { format!("partition by {} ", partition.join(", ")) };
        let rank = self.alias("rn");
        let names: Vec<&str> = output.iter().map(|(n, _)| n.as_str()).collect();
        let sql = format!(
            "select {} from (select {list}, row_number() over ({partition}order by {}) as {rank} from {source}{filter}) as x where {rank} = 1",
            names.join(", "),
            order
        );
        Query { columns: output.clone(), sql }
    }

    fn aggregate(&mut self, depth: usize) -> Query {
        if self.rng.random_bool(0.5) {
            return self.any_aggregate(depth);
        }
        let (source, columns) = self.source(depth);
        let filter = self.filter(&columns);
        let group: Vec<Column> =
            (0..[0, 1, 1, 1, 2][self.rng.random_range(0..5)]).map(|_| self.any_expr(&columns)).collect();
        let mut list = Vec::new();
        let mut output = Vec::new();
        for (expr, kind) in &group {
            let name = self.alias("c");
            list.push(format!("{expr} as {name}"));
            output.push((name, *kind));
        }
        for _ in 0..self.rng.random_range(1..5) {
            let (call, kind) = self.call(&columns);
            let name = self.alias("c");
            list.push(format!("{call} as {name}"));
            output.push((name, kind));
        }
        let by = group.iter().map(|(e, _)| e.as_str()).collect::<Vec<_>>().join(", ");
        let by = if group.is_empty() { by } else { format!(" group by {by}") };
        let having = if self.rng.random_bool(0.15) { " having count(*) > 1" } else { "" };
        Query { sql: format!("select {} from {source}{filter}{by}{having}", list.join(", ")), columns: output }
    }

    fn call(&mut self, columns: &[Column]) -> Column {
        let filter = if self.rng.random_bool(0.25) {
            format!(" filter (where {})", self.predicate(columns))
        } else {
            String::new()
        };
        let distinct = if self.rng.random_bool(0.15) { "distinct " } else { "" };
        let int = self.expr(columns, Kind::Int);
        let text = self.expr(columns, Kind::Text);
        let kinds = [Kind::Int, Kind::Text, Kind::Float, Kind::Decimal, Kind::Time, Kind::Day];
        let kind = kinds[self.rng.random_range(0..kinds.len())];
        let (call, kind) = match self.rng.random_range(0..19) {
            0 => (format!("count(*){filter}"), Kind::Int),
            1 => (format!("count({distinct}{}){filter}", self.any_expr(columns).0), Kind::Int),
            2 => (format!("sum({distinct}{int}){filter}"), Kind::Int),
            3 => (format!("sum({}){filter}", self.expr(columns, Kind::Float)), Kind::Float),
            4 => (format!("cast(sum({}){filter} as decimal(10,2))", self.expr(columns, Kind::Decimal)), Kind::Decimal),
            5 => (format!("avg({int}){filter}"), Kind::Float),
            6 => (format!("avg({}){filter}", self.expr(columns, Kind::Float)), Kind::Float),
            7 => (format!("cast(avg({}){filter} as decimal(10,2))", self.expr(columns, Kind::Decimal)), Kind::Decimal),
            8 => (format!("min({}){filter}", self.expr(columns, kind)), kind),
            9 => (format!("max({}){filter}", self.expr(columns, kind)), kind),
            10 => (format!("bool_and({}){filter}", self.expr(columns, Kind::Bool)), Kind::Bool),
            11 => (format!("bool_or({}){filter}", self.expr(columns, Kind::Bool)), Kind::Bool),
            12 => (format!("string_agg({text}, ',' order by {int}, {text}){filter}"), Kind::Text),
            13 => {
                let name = ["var_samp", "var_pop", "stddev_samp", "stddev_pop"].choose(self.rng).unwrap();
                (format!("{name}({distinct}{}){filter}", self.expr(columns, Kind::Float)), Kind::Float)
            }
            14 | 15 => {
                let (y, x) =
                    (self.expr(columns, Kind::Float), self.expr(columns, [Kind::Float, Kind::Int][kind as usize % 2]));
                (format!("{}({y}, {x}){filter}", PAIR_STATISTICS.choose(self.rng).unwrap()), Kind::Float)
            }
            16 => (format!("nth_value({int}, 2 order by {text} desc, {int}){filter}"), Kind::Int),
            _ => (format!("first_value({int} order by {text} desc, {int}){filter}"), Kind::Int),
        };
        (call, kind)
    }
}

//! Random aggregations: every function with FILTER, DISTINCT and ORDER BY where it takes them, over expressions, under GROUP BY, ROLLUP,
//! CUBE and GROUPING SETS, with HAVING.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::{Column, Generator, PAIR_STATISTICS, Query};
use crate::operators::tests::tables::Kind;

/// GROUP BY as text, its expressions, and whether they are grouping sets.
struct Groups {
    by: String,
    exprs: Vec<Column>,
    sets: bool,
}

impl Generator<'_> {
    /// An aggregation of any kind.
    pub fn any_aggregate(&mut self, depth: usize) -> Query {
        let (source, columns) = self.source(depth);
        let filter = self.filter(&columns);
        let groups = self.groups(&columns);
        let mut list = Vec::new();
        let mut output = Vec::new();
        let mut add = |name: String, expr: String, kind: Kind| {
            list.push(format!("{expr} as {name}"));
            output.push((name, kind));
        };
        for (expr, kind) in &groups.exprs {
            if groups.sets && self.rng.random_bool(0.3) {
                let name = self.alias("c");
                add(name, format!("cast(grouping({expr}) as bigint)"), Kind::Int);
            }
            // A key need not be shown.
            if self.rng.random_bool(0.9) {
                let name = self.alias("c");
                add(name, expr.clone(), *kind);
            }
        }
        for _ in 0..self.rng.random_range(1..4) {
            let (call, kind) = self.any_call(&columns);
            let name = self.alias("c");
            add(name, call, kind);
        }
        let having = match self.rng.random_range(0..8) {
            0 => " having count(*) > 1".to_string(),
            1 => format!(" having count(distinct {}) < 3", self.any_expr(&columns).0),
            2 if groups.sets => format!(" having grouping({}) = 0", groups.exprs[0].0),
            3 => format!(" having max({}) is not null", self.expr(&columns, Kind::Int)),
            _ => String::new(),
        };
        Query { sql: format!("select {} from {source}{filter}{}{having}", list.join(", "), groups.by), columns: output }
    }

    fn groups(&mut self, columns: &[Column]) -> Groups {
        let sets = self.rng.random_bool(0.4);
        let count = if sets { self.rng.random_range(1..4) } else { [0, 1, 1, 1, 2][self.rng.random_range(0..5)] };
        let mut exprs: Vec<Column> = Vec::new();
        for _ in 0..count {
            let (expr, kind) = self.any_expr(columns);
            let wanted = !sets || !kind.is_nested();
            if wanted && exprs.iter().all(|(known, _)| *known != expr) {
                exprs.push((expr, kind));
            }
        }
        let list = |exprs: &[Column]| exprs.iter().map(|(e, _)| e.as_str()).collect::<Vec<_>>().join(", ");
        if exprs.is_empty() {
            return Groups { by: String::new(), exprs, sets: false };
        }
        if !sets {
            return Groups { by: format!(" group by {}", list(&exprs)), exprs, sets };
        }
        let by = match self.rng.random_range(0..4) {
            0 => format!("rollup ({})", list(&exprs)),
            1 => format!("cube ({})", list(&exprs)),
            2 if exprs.len() > 1 => format!("{}, rollup ({})", exprs[0].0, list(&exprs[1..])),
            _ => {
                // All of them in the first, so that each can be selected.
                let mut sets = vec![format!("({})", list(&exprs))];
                for _ in 0..self.rng.random_range(1..4) {
                    let picked: Vec<Column> = exprs.iter().filter(|_| self.rng.random_bool(0.4)).cloned().collect();
                    sets.push(format!("({})", list(&picked)));
                }
                sets.shuffle(self.rng);
                format!("grouping sets ({})", sets.join(", "))
            }
        };
        Groups { by: format!(" group by {by}"), exprs, sets }
    }

    /// `order by` one or two expressions, with directions.
    fn within(&mut self, columns: &[Column]) -> String {
        let keys: Vec<String> = (0..self.rng.random_range(1..3))
            .map(|_| {
                let kind = [Kind::Int, Kind::Text, Kind::Float, Kind::Time][self.rng.random_range(0..4)];
                let direction = ["", " desc", " desc nulls last", " nulls first"][self.rng.random_range(0..4)];
                format!("{}{direction}", self.expr(columns, kind))
            })
            .collect();
        format!("order by {}", self.in_total(keys, columns))
    }

    /// One call of any aggregate function.
    pub fn any_call(&mut self, columns: &[Column]) -> Column {
        let filter = if self.rng.random_bool(0.25) {
            format!(" filter (where {})", self.predicate(columns))
        } else {
            String::new()
        };
        let distinct = if self.rng.random_bool(0.35) { "distinct " } else { "" };
        let int = self.expr(columns, Kind::Int);
        let float = self.expr(columns, Kind::Float);
        let decimal = self.expr(columns, Kind::Decimal);
        let text = self.expr(columns, Kind::Text);
        let plain = [Kind::Int, Kind::Text, Kind::Float, Kind::Decimal, Kind::Time, Kind::Day, Kind::Bool];
        let kind = *plain.choose(self.rng).unwrap();
        let any = self.expr(columns, kind);
        let within = self.within(columns);
        let share = ["0.5", "0.25", "0.9", "0.0", "1.0", "0.333"].choose(self.rng).copied().unwrap();
        let number = self.rng.random_range(1..4);
        let direction = ["", " desc"].choose(self.rng).copied().unwrap();
        let (call, kind) = match self.rng.random_range(0..27) {
            0 => ("count(*)".to_string(), Kind::Int),
            1 | 2 => (format!("count({distinct}{any})"), Kind::Int),
            3 => (format!("sum({distinct}{int})"), Kind::Int),
            4 => (format!("sum({distinct}{float})"), Kind::Float),
            5 => return (format!("cast(sum({distinct}{decimal}){filter} as decimal(10,2))"), Kind::Decimal),
            6 => (format!("avg({distinct}{int})"), Kind::Float),
            7 => (format!("avg({distinct}{float})"), Kind::Float),
            8 => return (format!("cast(avg({distinct}{decimal}){filter} as decimal(10,2))"), Kind::Decimal),
            9 => (format!("min({distinct}{any})"), kind),
            10 => (format!("max({distinct}{any})"), kind),
            11 => (format!("bool_and({distinct}{})", self.expr(columns, Kind::Bool)), Kind::Bool),
            12 => (format!("bool_or({distinct}{})", self.expr(columns, Kind::Bool)), Kind::Bool),
            13 => {
                let name = ["bit_and", "bit_or", "bit_xor"].choose(self.rng).unwrap();
                (format!("{name}({distinct}{int})"), Kind::Int)
            }
            14 | 15 => {
                let name = ["var_samp", "var_pop", "stddev_samp", "stddev_pop"].choose(self.rng).unwrap();
                let argument = if self.rng.random() { float } else { int };
                (format!("{name}({distinct}{argument})"), Kind::Float)
            }
            16 | 17 => {
                let (y, x) = if self.rng.random() { (float, int) } else { (int, float) };
                (format!("{}({y}, {x})", PAIR_STATISTICS.choose(self.rng).unwrap()), Kind::Float)
            }
            18 => return (format!("cast(regr_count({float}, {int}){filter} as bigint)"), Kind::Int),
            19 => (format!("median({distinct}{})", if self.rng.random() { float } else { int }), Kind::Float),
            20 => return (format!("cast(median({distinct}{decimal}){filter} as decimal(10,2))"), Kind::Decimal),
            21 => (format!("percentile_cont({share}) within group (order by {float}{direction})"), Kind::Float),
            22 => (format!("first_value({any} {within})"), kind),
            23 => (format!("last_value({any} {within})"), kind),
            24 => (format!("nth_value({any}, {number} {within})"), kind),
            25 if distinct.is_empty() => (format!("string_agg({text}, ',' {within})"), Kind::Text),
            25 => (format!("string_agg(distinct {text}, ';' order by {text})"), Kind::Text),
            _ if distinct.is_empty() => (format!("array_agg({int} {within})"), Kind::List),
            _ => (format!("array_agg(distinct {int} order by {int}{direction})"), Kind::List),
        };
        (format!("{call}{filter}"), kind)
    }
}

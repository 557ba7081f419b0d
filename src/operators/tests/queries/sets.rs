//! Random set operations, named queries read twice, DISTINCT ON, QUALIFY, VALUES, and joins without a key or by common names.

use rand::Rng;

use super::{Column, Generator, Query};
use crate::operators::tests::tables::Kind;

impl Generator<'_> {
    /// Two relations as sets or bags of one or two columns.
    pub fn set_operation(&mut self, depth: usize) -> Query {
        let kinds: Vec<Kind> = (0..self.rng.random_range(1..3))
            .map(|_| [Kind::Int, Kind::Text, Kind::Bool, Kind::Day, Kind::Struct][self.rng.random_range(0..5)])
            .collect();
        let names: Vec<String> = kinds.iter().map(|_| self.alias("c")).collect();
        let side = |generator: &mut Self| {
            let (source, columns) = generator.source(depth);
            let filter = generator.filter(&columns);
            let list: Vec<String> = kinds
                .iter()
                .zip(&names)
                .map(|(kind, name)| format!("{} as {name}", generator.expr(&columns, *kind)))
                .collect();
            format!("select {} from {source}{filter}", list.join(", "))
        };
        let (left, right) = (side(self), side(self));
        let operation = ["intersect", "except", "intersect all", "except all", "union"][self.rng.random_range(0..5)];
        Query { sql: format!("{left} {operation} {right}"), columns: names.into_iter().zip(kinds).collect() }
    }

    /// A named query that meets itself.
    pub fn named_twice(&mut self, depth: usize) -> Query {
        let query = self.query(depth.saturating_sub(1));
        let (name, left, right) = (self.alias("w"), self.alias("r"), self.alias("r"));
        let qualified =
            |alias: &str| -> Vec<Column> { query.columns.iter().map(|(n, k)| (format!("{alias}.{n}"), *k)).collect() };
        let (left_columns, right_columns) = (qualified(&left), qualified(&right));
        let kind = if self.rng.random_bool(0.7) { Kind::Int } else { Kind::Text };
        let (l, r) = (self.expr(&left_columns, kind), self.expr(&right_columns, kind));
        let (list, output) = self.select(&[left_columns, right_columns].concat());
        let sql = format!(
            "with {name} as ({}) select {list} from {name} as {left} join {name} as {right} on {l} = {r}",
            query.sql
        );
        // A query of one name can stand in FROM as any other.
        Query { sql, columns: output }
    }

    /// The first row of each key.
    pub fn distinct_on(&mut self, depth: usize) -> Query {
        let (source, columns) = self.source(depth);
        let filter = self.filter(&columns);
        let key = self.expr(&columns, Kind::Int);
        let order = self.order(&columns);
        let (list, output) = self.select(&columns);
        if self.rng.random_bool(0.4) {
            let most = self.rng.random_range(1..4);
            let sql = format!(
                "select {list} from {source}{filter} qualify row_number() over (partition by {key} order by {order}) <= {most}"
            );
            return Query { sql, columns: output };
        }
        // A key that is ordered by twice is none to DataFusion.
        let order = match self.total_but(&columns, &key) {
            Some(total) => total,
            None if order.contains(&key) => String::new(),
            None => format!(", {order}"),
        };
        Query {
            sql: format!("select distinct on ({key}) {list} from {source}{filter} order by {key}{order}"),
            columns: output,
        }
    }

    /// Every pair, or those within a range; constant rows; common names.
    pub fn keyless_join(&mut self, depth: usize) -> Query {
        let (left, mut columns) = self.source(depth);
        let alias = self.alias("r");
        if self.rng.random_bool(0.2) {
            let key = self.expr(&columns, Kind::Int);
            columns.extend([(format!("{alias}.n"), Kind::Int), (format!("{alias}.w"), Kind::Text)]);
            let (list, output) = self.select(&columns);
            let join = ["join", "left join"][self.rng.random_range(0..2)];
            let rows = format!("(values (1, 'one'), (2, 'two'), (2, null), (null, 'none')) as {alias} (n, w)");
            return Query {
                sql: format!("select {list} from {left} {join} {rows} on {key} = {alias}.n"),
                columns: output,
            };
        }
        let at = self.rng.random_range(0..self.readable.len());
        let (right, right_columns) = self.table(at, &alias);
        let (a, b) = (self.expr(&columns, Kind::Int), self.expr(&right_columns, Kind::Int));
        let condition = [format!("{a} < {b}"), format!("{a} between {b} and {b} + 2"), format!("{a} <> {b}")];
        let condition = &condition[self.rng.random_range(0..3)];
        let join = ["join", "left join", "right join", "full join"][self.rng.random_range(0..4)];
        let sql = if self.rng.random_bool(0.2) {
            format!("{left} cross join {right}")
        } else {
            format!("{left} {join} {right} on {condition}")
        };
        columns.extend(right_columns);
        let (list, output) = self.select(&columns);
        Query { sql: format!("select {list} from {sql}"), columns: output }
    }
}

//! The dialect of the random queries in DuckDB's words. What is not named here is the same in both.

/// `sql` for DuckDB.
pub fn translated(sql: &str) -> String {
    let mut sql = sql
        .replace("named_struct('x', cast(1 as bigint), 'y', 'k')", "{'x': cast(1 as bigint), 'y': 'k'}")
        .replace("make_array(", "list_value(")
        .replace("array_append(", "list_append(");
    for (name, duckdb) in [("first_value", "first"), ("last_value", "last"), ("nth_value", "nth_value")] {
        sql = with_calls(&sql, name, |call| match (call.over, name) {
            (true, _) => None,
            // The n-th row of an aggregate is that of a list.
            (false, "nth_value") => {
                let (value, rest) = call.arguments.split_once_top(',')?;
                let (number, order) = rest.trim().split_once(' ')?;
                Some(format!("(list({value} {order}){})[{number}]", call.filter))
            }
            (false, _) => Some(format!("{duckdb}({}){}", call.arguments.0, call.filter)),
        });
    }
    sql = with_calls(&sql, "tumble", |call| windows(&call.arguments, "tumble"));
    sql = with_calls(&sql, "hop", |call| windows(&call.arguments, "hop"));
    with_calls(&sql, "session", |call| windows(&call.arguments, "session"))
}

/// A table function over time, as a query.
fn windows(arguments: &Text, name: &str) -> Option<String> {
    let arguments = arguments.parts(',');
    let (relation, time) = (arguments[0].trim(), arguments[1].trim());
    let bucket = |size: &str, at: &str| format!("time_bucket({size}, {at}, timestamp '1970-01-01')");
    Some(match name {
        "tumble" => {
            let size = arguments[2].trim();
            let start = bucket(size, time);
            format!(
                "(select *, {start} as window_start, {start} + {size} as window_end from {relation} as q where {time} is not null)"
            )
        }
        "hop" => {
            let (slide, size) = (arguments[2].trim(), arguments[3].trim());
            let offset = arguments.get(4).map_or("interval '0 hours'", |o| o.trim());
            // The window that begins last, and those before it that are long enough.
            let last = format!("{} + {offset}", bucket(slide, &format!("{time} - {offset}")));
            format!(
                "(select * exclude (n), {last} - n * {slide} as window_start, {last} - n * {slide} + {size} as window_end \
                 from {relation} as q, range(0, 12) as r(n) where {last} - n * {slide} + {size} > {time})"
            )
        }
        _ => {
            let gap = arguments[2].trim();
            let keys = arguments[3..].iter().map(|key| key.trim()).collect::<Vec<_>>().join(", ");
            let by = if keys.is_empty() { String::new() } else { format!("partition by {keys} ") };
            format!(
                "(select * exclude (q_time, q_new, q_number), min(q_time) over (partition by q_number{comma}{keys}) as window_start, \
                 max(q_time) over (partition by q_number{comma}{keys}) + {gap} as window_end from (select *, \
                 sum(q_new) over ({by}order by q_time range between unbounded preceding and current row) as q_number from (select *, {time} as q_time, \
                 case when {time} < lag({time}) over ({by}order by {time}) + {gap} then 0 else 1 end as q_new \
                 from {relation} as q where {time} is not null)))",
                comma = if keys.is_empty() { "" } else { ", " },
            )
        }
    })
}

/// SQL text between parentheses.
struct Text(String);

impl Text {
    /// Its parts between `separator`s that stand in no parentheses, brackets or quotes.
    fn parts(&self, separator: char) -> Vec<String> {
        let (mut parts, mut depth, mut quoted) = (vec![String::new()], 0, false);
        for c in self.0.chars() {
            match c {
                '\'' => quoted = !quoted,
                '(' | '[' | '{' if !quoted => depth += 1,
                ')' | ']' | '}' if !quoted => depth -= 1,
                _ => {}
            }
            if c == separator && depth == 0 && !quoted {
                parts.push(String::new());
            } else {
                parts.last_mut().unwrap().push(c);
            }
        }
        parts
    }

    fn split_once_top(&self, separator: char) -> Option<(String, String)> {
        let parts = self.parts(separator);
        let separator = separator.to_string();
        (parts.len() > 1).then(|| (parts[0].clone(), parts[1..].join(&separator)))
    }
}

/// A call of a function.
struct Call {
    arguments: Text,
    /// ` filter (…)` behind it, or nothing.
    filter: String,
    over: bool,
}

/// `sql` with calls of `name` rewritten, inner ones first.
fn with_calls(sql: &str, name: &str, rewrite: impl Fn(&Call) -> Option<String> + Copy) -> String {
    let mut output = String::new();
    let mut rest = sql;
    let open = format!("{name}(");
    while let Some(at) = rest.find(&open) {
        output.push_str(&rest[..at]);
        let whole_word = !output.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let from = at + name.len();
        let length = closing(&rest[from..]);
        if !whole_word {
            output.push_str(&rest[at..from + 1]);
            rest = &rest[from + 1..];
            continue;
        }
        let arguments = Text(with_calls(&rest[from + 1..from + length - 1], name, rewrite));
        let mut end = from + length;
        let mut filter = String::new();
        if rest[end..].starts_with(" filter (") {
            let length = closing(&rest[end + 8..]);
            filter = with_calls(&rest[end..end + 8 + length], name, rewrite);
            end += 8 + length;
        }
        let over = rest[end..].starts_with(" over (");
        let call = Call { arguments, filter, over };
        output.push_str(&rewrite(&call).unwrap_or_else(|| format!("{name}({}){}", call.arguments.0, call.filter)));
        rest = &rest[end..];
    }
    output + rest
}

/// The length of what `text` begins with, up to the parenthesis that closes its first one.
fn closing(text: &str) -> usize {
    let (mut depth, mut quoted) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    panic!("{text}: a parenthesis is open")
}

#[test]
fn aggregates_of_places_have_other_names_and_windows_do_not() {
    for (smelt, duckdb) in [
        ("select first_value(a order by b) as x", "select first(a order by b) as x"),
        ("select first_value(a) over (order by b) as x", "select first_value(a) over (order by b) as x"),
        (
            "nth_value(a + (1), 2 order by b desc, c) filter (where (d))",
            "(list(a + (1) order by b desc, c) filter (where (d)))[2]",
        ),
        ("nth_value(a, 2) over (order by b)", "nth_value(a, 2) over (order by b)"),
        (
            "last_value(first_value(a order by ')')) + make_array(1, 2)[1]",
            "last(first(a order by ')')) + list_value(1, 2)[1]",
        ),
    ] {
        assert_eq!(translated(smelt), duckdb);
    }
}

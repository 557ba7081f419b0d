//! Spark's functions, written as the SQL that the engine has, so that its exact aggregates and checked arithmetic are theirs. What cannot be said so
//! is a function of its own (`functions::spark`).

use datafusion::sql::sqlparser::ast::{Expr, Value};

use super::json_access::call;
use super::spelling::{fill, places};

/// (function, number of arguments, what it stands for).
pub(crate) const SPARK: &[(&str, usize, &str)] = &[
    ("collect_list", 1, "coalesce(array_agg($1) FILTER (WHERE $1 IS NOT NULL), make_array())"),
    ("collect_set", 1, "coalesce(array_agg(DISTINCT $1) FILTER (WHERE $1 IS NOT NULL), make_array())"),
    ("count_if", 1, "count(CASE WHEN $1 THEN 1 END)"),
    ("isnull", 1, "$1 IS NULL"),
    ("isnotnull", 1, "$1 IS NOT NULL"),
    ("nullifzero", 1, "nullif($1, 0)"),
    ("zeroifnull", 1, "coalesce($1, 0)"),
    ("equal_null", 2, "$1 IS NOT DISTINCT FROM $2"),
    ("try_divide", 2, "CASE WHEN $2 <> 0 THEN $1 / $2 END"),
    ("year", 1, "date_part('year', $1)"),
    ("quarter", 1, "date_part('quarter', $1)"),
    ("month", 1, "date_part('month', $1)"),
    ("weekofyear", 1, "date_part('week', $1)"),
    ("day", 1, "date_part('day', $1)"),
    ("dayofmonth", 1, "date_part('day', $1)"),
    ("dayofweek", 1, "date_part('dow', $1) + 1"),
    ("weekday", 1, "weekday(CAST($1 AS DATE))"),
    ("dayofyear", 1, "date_part('doy', $1)"),
    ("hour", 1, "date_part('hour', $1)"),
    ("minute", 1, "date_part('minute', $1)"),
    ("second", 1, "CAST(floor(date_part('second', $1)) AS INT)"),
    ("date_add", 2, "dateadd('day', $2, CAST($1 AS DATE))"),
    ("date_sub", 2, "dateadd('day', -($2), CAST($1 AS DATE))"),
    ("add_months", 2, "dateadd('month', $2, CAST($1 AS DATE))"),
    ("datediff", 2, "datediff('day', CAST($2 AS DATE), CAST($1 AS DATE))"),
    ("date_diff", 2, "datediff('day', CAST($2 AS DATE), CAST($1 AS DATE))"),
    ("trunc", 2, "CAST(date_trunc($2, CAST($1 AS DATE)) AS DATE)"),
    ("unix_timestamp", 1, "unix_seconds(to_timestamp($1))"),
    ("unix_timestamp", 2, "unix_seconds(to_timestamp($1, $2))"),
    ("to_unix_timestamp", 1, "unix_seconds(to_timestamp($1))"),
    ("to_unix_timestamp", 2, "unix_seconds(to_timestamp($1, $2))"),
    ("unix_date", 1, "datediff('day', DATE '1970-01-01', CAST($1 AS DATE))"),
    ("from_unixtime", 1, "date_format(to_timestamp($1), 'yyyy-MM-dd HH:mm:ss')"),
    ("from_unixtime", 2, "date_format(to_timestamp($1), $2)"),
    ("timestamp_seconds", 1, "to_timestamp($1)"),
    ("from_utc_timestamp", 2, "from_utc_timestamp(to_timestamp($1), $2)"),
    ("next_day", 2, "next_day(CAST($1 AS DATE), $2)"),
    ("monthname", 1, "monthname(CAST($1 AS DATE))"),
    ("dayname", 1, "date_format($1, 'EEE')"),
    // Seconds have six digits.
    ("make_interval", 7, "make_interval($1, $2, $3, $4, $5, $6, CAST($7 AS DECIMAL(18, 6)))"),
    ("make_dt_interval", 4, "make_dt_interval($1, $2, $3, CAST($4 AS DECIMAL(18, 6)))"),
    ("if", 3, "CASE WHEN $1 THEN $2 ELSE $3 END"),
    ("space", 1, "repeat(' ', $1)"),
    ("substring_index", 3, "substr_index($1, $2, $3)"),
    ("size", 1, "CAST(cardinality($1) AS INT)"),
    ("cardinality", 1, "CAST(cardinality($1) AS INT)"),
    ("any_value", 1, "min($1)"),
    ("mean", 1, "avg($1)"),
    ("ucase", 1, "upper($1)"),
    ("lcase", 1, "lower($1)"),
    ("startswith", 2, "starts_with($1, $2)"),
    ("endswith", 2, "ends_with($1, $2)"),
    ("locate", 2, "strpos($2, $1)"),
    ("instr", 2, "strpos($1, $2)"),
    ("rlike", 2, "regexp_like($1, $2)"),
    ("regexp_replace", 3, "regexp_replace($1, $2, $3, 'g')"),
    (
        "regexp_extract",
        2,
        "CASE WHEN $1 IS NOT NULL AND $2 IS NOT NULL THEN coalesce(regexp_match($1, concat('(', $2, ')'))[2], '') END",
    ),
    (
        "regexp_extract",
        3,
        "CASE WHEN $1 IS NOT NULL AND $2 IS NOT NULL THEN coalesce(regexp_match($1, concat('(', $2, ')'))[$3 + 1], '') END",
    ),
    ("array_size", 1, "CAST(array_length($1) AS INT)"),
    ("sort_array", 1, "array_sort($1)"),
    // Literals are BIGINT here and INT in Spark, and doubles are what Spark's powers are.
    ("slice", 3, "slice($1, CAST($2 AS INT), CAST($3 AS INT))"),
    ("factorial", 1, "factorial(CAST($1 AS INT))"),
    ("pow", 2, "pow(CAST($1 AS DOUBLE), CAST($2 AS DOUBLE))"),
    ("power", 2, "pow(CAST($1 AS DOUBLE), CAST($2 AS DOUBLE))"),
    ("positive", 1, "$1"),
    ("chr", 1, "char($1)"),
    (
        "width_bucket",
        4,
        "CASE WHEN $4 <= 0 OR $2 = $3 THEN NULL \
         WHEN $2 < $3 AND $1 < $2 OR $2 > $3 AND $1 > $2 THEN 0 \
         WHEN $2 < $3 AND $1 >= $3 OR $2 > $3 AND $1 <= $3 THEN $4 + 1 \
         ELSE CAST(floor((CAST($1 AS DOUBLE) - $2) * $4 / ($3 - $2)) AS BIGINT) + 1 END",
    ),
    ("rand", 0, "random()"),
    // The crate's function stops with a panic at a NULL.
    ("shuffle", 1, "CASE WHEN $1 IS NOT NULL THEN shuffle($1) END"),
];

/// Functions that only have another name.
pub(crate) const SPARK_NAMES: &[(&str, &str)] = &[
    ("every", "bool_and"),
    ("some", "bool_or"),
    ("approx_count_distinct", "approx_distinct"),
    ("array", "make_array"),
    ("first", "first_value"),
    ("last", "last_value"),
    ("percentile", "percentile_cont"),
    ("timestampadd", "dateadd"),
    ("timestampdiff", "datediff"),
];

/// Units of `date_trunc` and `trunc` that Spark writes shorter.
const UNITS: &[(&str, &str)] = &[("yy", "year"), ("yyyy", "year"), ("mm", "month"), ("mon", "month"), ("dd", "day")];

/// Parts of a date that count days from another one than the engine's do: (part, the engine's name, what is added).
const PARTS: &[(&str, &str, u8)] = &[
    ("dow", "dow", 1),
    ("dayofweek", "dow", 1),
    ("dow_iso", "isodow", 0),
    ("dayofweek_iso", "isodow", 0),
    ("yearofweek", "isoyear", 0),
];

/// What `function` of these arguments stands for, where a template cannot say it.
pub(crate) fn rewritten(function: &str, arguments: &[Expr]) -> Option<Expr> {
    match (function, arguments) {
        ("split", [_, _] | [_, _, _]) => Some(call("regexp_split", arguments.to_vec())),
        // NULL if any is: DataFusion's leaves NULLs out. Lists one after the other: the crate's makes texts of them.
        ("concat", [_, _, ..]) => fill(&places(arguments.len(), " || "), arguments),
        ("struct", [_, ..]) => Some(call("named_struct", named(arguments.to_vec()))),
        ("date_trunc", [unit, value]) => Some(call("date_trunc", vec![long(unit)?, value.clone()])),
        ("trunc", [value, unit]) => {
            fill("CAST(date_trunc($2, CAST($1 AS DATE)) AS DATE)", &[value.clone(), long(unit)?])
        }
        ("date_part" | "datepart", [part, value]) => {
            let (_, name, more) = PARTS.iter().find(|(part_name, ..)| text(part).as_deref() == Some(*part_name))?;
            let counted =
                call("date_part", vec![Expr::value(Value::SingleQuotedString(name.to_string())), value.clone()]);
            if *more == 0 { Some(counted) } else { fill("$1 + 1", &[counted]) }
        }
        // `map(k, v, l, w)`: keys and values in turn. Two lists are the engine's own `map`.
        ("map", [Expr::Value(_), _] | [_, _, _, _, ..]) if arguments.len().is_multiple_of(2) => {
            let side = |from: usize| call("make_array", arguments.iter().skip(from).step_by(2).cloned().collect());
            Some(call("map", vec![side(0), side(1)]))
        }
        _ => None,
    }
}

/// A text literal, in lower case.
fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.to_lowercase()),
            _ => None,
        },
        _ => None,
    }
}

/// A unit as the engine writes it; None if it is that already.
fn long(unit: &Expr) -> Option<Expr> {
    let short = text(unit)?;
    let (_, long) = UNITS.iter().find(|(name, _)| *name == short)?;
    Some(Expr::value(Value::SingleQuotedString(long.to_string())))
}

/// The arguments of `struct(a, t.b, x + 1 as c, 7)` behind the names that their fields have: `a`, `b`, `c`, `col4`.
fn named(arguments: Vec<Expr>) -> Vec<Expr> {
    let field = |(i, argument): (usize, Expr)| {
        let (name, value) = match argument {
            Expr::Named { expr, name } => (name.value, *expr),
            Expr::Identifier(ident) => (ident.value.clone(), Expr::Identifier(ident)),
            Expr::CompoundIdentifier(parts) => {
                (parts.last().map(|part| part.value.clone()).unwrap_or_default(), Expr::CompoundIdentifier(parts))
            }
            other => (format!("col{}", i + 1), other),
        };
        [Expr::value(Value::SingleQuotedString(name)), value]
    };
    arguments.into_iter().enumerate().flat_map(field).collect()
}

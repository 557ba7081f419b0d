//! Spark's functions, written as the SQL that the engine has, so that its exact aggregates and checked arithmetic are theirs.

use datafusion::sql::sqlparser::ast::{Expr, Value};

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
    ("weekday", 1, "(date_part('dow', $1) + 6) % 7"),
    ("dayofyear", 1, "date_part('doy', $1)"),
    ("hour", 1, "date_part('hour', $1)"),
    ("minute", 1, "date_part('minute', $1)"),
    ("second", 1, "CAST(floor(date_part('second', $1)) AS INT)"),
    ("date_add", 2, "dateadd('day', $2, CAST($1 AS DATE))"),
    ("date_sub", 2, "dateadd('day', -($2), CAST($1 AS DATE))"),
    ("add_months", 2, "dateadd('month', $2, CAST($1 AS DATE))"),
    ("datediff", 2, "datediff('day', CAST($2 AS DATE), CAST($1 AS DATE))"),
    ("date_diff", 2, "datediff('day', CAST($2 AS DATE), CAST($1 AS DATE))"),
    ("trunc", 2, "CAST(date_trunc($2, $1) AS DATE)"),
    ("unix_timestamp", 1, "CAST(date_part('epoch', to_timestamp($1)) AS BIGINT)"),
    ("unix_timestamp", 2, "CAST(date_part('epoch', to_timestamp($1, $2)) AS BIGINT)"),
    ("to_unix_timestamp", 1, "CAST(date_part('epoch', to_timestamp($1)) AS BIGINT)"),
    ("to_unix_timestamp", 2, "CAST(date_part('epoch', to_timestamp($1, $2)) AS BIGINT)"),
    ("unix_seconds", 1, "CAST(floor(date_part('epoch', $1)) AS BIGINT)"),
    ("unix_millis", 1, "CAST(date_part('epoch', $1) * 1000 AS BIGINT)"),
    ("unix_date", 1, "datediff('day', DATE '1970-01-01', CAST($1 AS DATE))"),
    ("from_unixtime", 1, "date_format(to_timestamp($1), 'yyyy-MM-dd HH:mm:ss')"),
    ("from_unixtime", 2, "date_format(to_timestamp($1), $2)"),
    ("timestamp_seconds", 1, "to_timestamp($1)"),
    ("if", 3, "CASE WHEN $1 THEN $2 ELSE $3 END"),
    ("len", 1, "length($1)"),
    ("space", 1, "repeat(' ', $1)"),
    ("substring_index", 3, "substr_index($1, $2, $3)"),
    (
        "sha2",
        2,
        "CASE $2 WHEN 224 THEN encode(sha224($1), 'hex') WHEN 384 THEN encode(sha384($1), 'hex') WHEN 512 THEN encode(sha512($1), 'hex') ELSE encode(sha256($1), 'hex') END",
    ),
    ("pmod", 2, "(($1 % $2) + $2) % $2"),
    ("hex", 1, "upper(to_hex($1))"),
    ("shiftleft", 2, "$1 << $2"),
    ("shiftright", 2, "$1 >> $2"),
    ("size", 1, "CAST(cardinality($1) AS INT)"),
    ("array_contains", 2, "array_has($1, $2)"),
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
    ("regexp_extract", 2, "CASE WHEN $1 IS NOT NULL THEN coalesce(regexp_match($1, concat('(', $2, ')'))[2], '') END"),
    (
        "regexp_extract",
        3,
        "CASE WHEN $1 IS NOT NULL THEN coalesce(regexp_match($1, concat('(', $2, ')'))[$3 + 1], '') END",
    ),
    ("array_size", 1, "CAST(array_length($1) AS INT)"),
    ("sort_array", 1, "array_sort($1)"),
];

/// Functions that only have another name.
pub(crate) const SPARK_NAMES: &[(&str, &str)] = &[
    ("every", "bool_and"),
    ("some", "bool_or"),
    ("approx_count_distinct", "approx_distinct"),
    ("first", "first_value"),
    ("last", "last_value"),
    ("percentile", "percentile_cont"),
    ("timestampadd", "dateadd"),
    ("timestampdiff", "datediff"),
];

/// The arguments of `struct(a, t.b, x + 1 as c, 7)` behind the names that their fields have: `a`, `b`, `c`, `col4`.
pub(crate) fn named(arguments: Vec<Expr>) -> Vec<Expr> {
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

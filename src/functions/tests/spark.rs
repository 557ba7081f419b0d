//! Spark's functions: what is taken from `datafusion-spark` as it is called here, and what is not taken, with the answers that are the reason.

use super::*;
use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use datafusion::prelude::SessionConfig;

const SPARK: Dialect = Dialect::Spark;

/// The only value that the crate's own function gives, in ANSI mode.
fn crates(expression: &str) -> String {
    crates_over(expression, None)
}

fn crates_over(expression: &str, table: Option<RecordBatch>) -> String {
    let mut session = SessionContext::new_with_config(SessionConfig::new().with_enable_ansi_mode(true));
    datafusion_spark::register_all(&mut session).unwrap();
    values(&session, expression, table)
}

/// The values of an expression over a table or one row, joined by commas.
fn values(session: &SessionContext, expression: &str, table: Option<RecordBatch>) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let from = if table.is_some() { " FROM t" } else { "" };
    if let Some(batch) = table {
        session.register_batch("t", batch).unwrap();
    }
    let query = format!("SELECT {expression}{from}");
    let batches = match runtime.block_on(async { session.sql(&query).await?.collect().await }) {
        Ok(batches) => batches,
        Err(error) => return format!("error: {error}"),
    };
    let options = FormatOptions::default().with_null("NULL");
    let mut values = Vec::new();
    for batch in batches {
        let column = ArrayFormatter::try_new(batch.column(0).as_ref(), &options).unwrap();
        values.extend((0..batch.num_rows()).map(|row| column.value(row).to_string()));
    }
    values.join(", ")
}

/// (call, the crate's answer, Spark's).
const WRONG: &[(&str, &str, &str)] = &[
    // An hour after the clocks went forward, UTC is 7 hours ahead, not 8.
    (
        "to_utc_timestamp(timestamp '2024-03-10 03:30:00', 'America/Los_Angeles')",
        "2024-03-10T11:30:00",
        "2024-03-10T10:30:00Z",
    ),
    ("unix_seconds(timestamp '1969-12-31 23:59:59.5')", "0", "-1"),
    ("unix_millis(timestamp '1969-12-31 23:59:59.9995')", "0", "-1"),
    ("parse_url('http://EXAMPLE.com:80/A%7e?q=1', 'HOST')", "example.com", "EXAMPLE.com"),
    ("parse_url('http://EXAMPLE.com:80/A%7e?q=1', 'AUTHORITY')", "example.com", "EXAMPLE.com:80"),
    ("str_to_map('a=1|b=2', '[|]', '=')", "{a: 1|b=2}", "{a: 1, b: 2}"),
    ("str_to_map('a:1,', ',', ':')", "{a: 1}", "{a: 1, : NULL}"),
];

#[test]
fn what_is_left_out_is_wrong() {
    for (call, crates_answer, right) in WRONG {
        assert_eq!(crates(call), *crates_answer, "the crate's {call}");
        assert_eq!(one(SPARK, call), *right, "{call}");
    }
    // Those whose place SQL takes (docs/dialects.md has the right answers).
    for (call, answer) in [
        ("size(cast(NULL as int[]))", "-1"),
        ("concat(make_array(1, 2), make_array(3))", "[1, 2][3]"),
        ("arrow_cast(date_add(arrow_cast(2147483647, 'Date32'), arrow_cast(1, 'Int32')), 'Int32')", "-2147483648"),
        ("width_bucket(0.3, 0.0, 1.0, 10)", "3"),
        ("arrow_typeof(round(cast(9.99 as decimal(3, 2)), 1))", "Decimal128(3, 2)"),
        ("get_field(json_tuple('{\"a\":1.10}', 'a'), 'c0')", "1.1"),
        ("format_string('%.2f', 0.125)", "0.12"),
        ("format_string('%s', cast(1.50 as decimal(3, 2)))", "150"),
    ] {
        assert_eq!(crates(call), answer, "the crate's {call}");
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let max = i64::MAX;
    for call in [
        "negative(-9223372036854775808)".to_string(),
        "elt(3, 'a', 'b')".to_string(),
        "pmod(1, 0)".to_string(),
        "slice(make_array(1), 0, 1)".to_string(),
        "bit_get(1, 64)".to_string(),
        "next_day(date '2024-01-01', 'Someday')".to_string(),
        "make_dt_interval(arrow_cast(2147483647, 'Int32'))".to_string(),
        "url_decode('%2')".to_string(),
        "map_from_arrays(make_array('a', 'a'), make_array(1, 2))".to_string(),
        "map_from_arrays(make_array('a', NULL), make_array(1, 2))".to_string(),
        "str_to_map('a:1,a:2')".to_string(),
        "timestamp_millis(9223372036854775807)".to_string(),
        "to_utc_timestamp('2024-01-01', 'Nowhere/Town')".to_string(),
        "parse_url('http://a b.com', 'HOST')".to_string(),
        format!("sum(x) FROM (VALUES ({max}), (1)) v(x)"),
    ] {
        assert!(try_rows(SPARK, &format!("SELECT {call}")).is_err(), "{call}");
    }
    assert_eq!(one(SPARK, "pmod(5, 9223372036854775807)"), "5");
    let sum =
        |of: &str, values: &str| rows(SPARK, &format!("SELECT try_sum({of}) FROM (VALUES {values}) v(x)")).remove(0);
    assert_eq!(sum("x", &format!("({max}), (1)")), "NULL");
    assert_eq!(sum("cast(x as decimal(38, 0))", &format!("({max}), (1)")), "9223372036854775808");
    // The way there does not matter.
    assert_eq!(sum("x", &format!("({max}), (1), (-1)")), format!("{max}"));
}

/// Calls of which one argument is NULL.
const OF_NULL: &[&str] = &[
    "char(NULL)",
    "luhn_check(NULL)",
    "soundex(NULL)",
    "sha2(NULL, 256)",
    "sha2('a', NULL)",
    "crc32(NULL)",
    "hex(NULL)",
    "unhex(NULL)",
    "bin(NULL)",
    "factorial(NULL)",
    "rint(NULL)",
    "ceil(NULL)",
    "floor(NULL)",
    "pmod(cast(NULL as int), 2)",
    "pmod(2, cast(NULL as int))",
    "negative(NULL)",
    "base64(NULL)",
    "unbase64(NULL)",
    "quote(NULL)",
    "url_encode(NULL)",
    "url_decode(NULL)",
    "parse_url(NULL, 'HOST')",
    "substring(NULL, 1)",
    "substring('a', NULL)",
    "length(NULL)",
    "bit_count(NULL)",
    "shiftleft(NULL, 1)",
    "shiftleft(1, NULL)",
    "unix_seconds(NULL)",
    "timestamp_millis(NULL)",
    "to_utc_timestamp(NULL, 'UTC')",
    "to_utc_timestamp(timestamp '2024-01-01 00:00:00', NULL)",
    "str_to_map(NULL)",
    "monthname(NULL)",
    "weekday(NULL)",
    "next_day(NULL, 'Mo')",
    "next_day(date '2024-01-01', NULL)",
    "like(NULL, 'a')",
    "array_contains(make_array(1, NULL), 2)",
    "concat_ws(NULL, 'a')",
    "elt(NULL, 'a')",
    "elt(1, NULL)",
    "slice(NULL, 1, 1)",
    "map_from_arrays(NULL, make_array(1))",
];

#[test]
fn null_gives_null() {
    for call in OF_NULL {
        let query = format!("SELECT {call}");
        let found = try_rows(SPARK, &query).unwrap_or_else(|e| panic!("{call}: {e:?}"));
        assert_eq!(found, ["NULL"], "{call}");
    }
}

/// Columns of which every row but the first two is another's: slices begin inside their buffers.
fn slice() -> RecordBatch {
    let lists = |rows: Vec<Option<Vec<Option<i64>>>>| -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows))
    };
    let keys = lists((0..6).map(|i| (i != 3).then(|| vec![Some(10 * i), Some(10 * i + 1)])).collect());
    let values = lists((0..6).map(|i| Some(vec![Some(100 * i), None])).collect());
    let texts: ArrayRef = Arc::new(StringArray::from_iter((0..6).map(|i| (i != 4).then(|| format!("t{i}")))));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter((0..6).map(|i| (i != 4).then_some(i))));
    RecordBatch::try_from_iter([("k", keys), ("v", values), ("s", texts), ("n", numbers)]).unwrap().slice(2, 3)
}

#[test]
fn slices_give_their_own_rows() {
    let map = "map_from_arrays(k, v)";
    // Why lists are handed to the crate with values of their own.
    assert_ne!(crates_over(map, Some(slice())), "{20: 200, 21: NULL}, NULL, {40: 400, 41: NULL}");
    for (call, expected) in [
        (map, "{20: 200, 21: NULL}, NULL, {40: 400, 41: NULL}"),
        ("array_contains(v, 200)", "true, NULL, NULL"),
        ("slice(k, 2, 1)", "[21], NULL, [41]"),
        ("concat_ws('-', s, k)", "t2-20-21, t3, 40-41"),
        ("pmod(-n, 3)", "1, 0, NULL"),
        ("hex(n + 14)", "10, 11, NULL"),
        ("next_day(date '2024-01-01', 'M' || left(s, 0) || 'o')", "2024-01-08, 2024-01-08, NULL"),
        ("unix_seconds(timestamp_millis(n * 1000 - 1))", "1, 2, NULL"),
        ("elt(n - 1, 'a', 'b')", "a, b, NULL"),
    ] {
        assert_eq!(values(&session(SPARK), call, Some(slice())), expected, "{call}");
    }
}

#[test]
fn instants_and_zones() {
    let utc = |local: &str, zone: &str| one(SPARK, &format!("to_utc_timestamp(timestamp '{local}', '{zone}')"));
    assert_eq!(utc("2016-08-31 00:00:00", "Asia/Seoul"), "2016-08-30T15:00:00Z");
    assert_eq!(utc("2016-08-31 00:00:00", "+05:30"), "2016-08-30T18:30:00Z");
    // Left out by the clocks of New York: an hour later. Shown twice: the first time.
    assert_eq!(utc("2024-03-10 02:30:00", "America/New_York"), "2024-03-10T07:30:00Z");
    assert_eq!(utc("2024-11-03 01:30:00", "America/New_York"), "2024-11-03T05:30:00Z");
    // Samoa had no 30 December 2011.
    assert_eq!(utc("2011-12-30 12:00:00", "Pacific/Apia"), "2011-12-30T22:00:00Z");
    let back =
        "from_utc_timestamp(to_utc_timestamp(timestamp '2024-07-01 12:00:00', 'Europe/Berlin'), 'Europe/Berlin')";
    assert_eq!(one(SPARK, back), "2024-07-01T12:00:00Z");
}

/// (url, part, value)
const URLS: &[(&str, &str, &str)] = &[
    ("http://spark.apache.org/path?query=1", "HOST", "spark.apache.org"),
    ("http://spark.apache.org/path?query=1", "QUERY", "query=1"),
    ("http://spark.apache.org/path?query=1#Ref", "REF", "Ref"),
    ("https://user:pw@Example.com:8080/a/b.php?x=1&y=2#f", "PROTOCOL", "https"),
    ("https://user:pw@Example.com:8080/a/b.php?x=1&y=2#f", "USERINFO", "user:pw"),
    ("https://user:pw@Example.com:8080/a/b.php?x=1&y=2#f", "AUTHORITY", "user:pw@Example.com:8080"),
    ("https://user:pw@Example.com:8080/a/b.php?x=1&y=2#f", "HOST", "Example.com"),
    ("https://user:pw@Example.com:8080/a/b.php?x=1&y=2#f", "FILE", "/a/b.php?x=1&y=2"),
    ("https://user:pw@Example.com:8080/a/b.php?x=1&y=2#f", "PATH", "/a/b.php"),
    ("https://user:pw@Example.com:8080/a/b.php?x=1&y=2#f", "QUERY', 'y", "2"),
    ("https://user:pw@Example.com:8080/a/b.php?x=1&y=2#f", "QUERY', 'z", "NULL"),
    ("https://user:pw@Example.com:8080/a/b.php?x=1&y=2#f", "HOST', 'y", "NULL"),
    ("http://[::1]:80/", "HOST", "[::1]"),
    ("http://example.com", "PATH", ""),
    ("http://example.com", "QUERY", "NULL"),
    ("http://example.com/ä%20b", "PATH", "/ä%20b"),
    ("mailto:a@example.com", "PROTOCOL", "mailto"),
    ("mailto:a@example.com", "PATH", "NULL"),
    ("mailto:a@example.com", "HOST", "NULL"),
    ("/a/b?q=1", "PATH", "/a/b"),
    ("/a/b?q=1", "HOST", "NULL"),
    ("http://example.com/", "NOTHING", "NULL"),
];

#[test]
fn parts_of_urls_are_as_written() {
    for (url, part, value) in URLS {
        assert_eq!(one(SPARK, &format!("parse_url('{url}', '{part}')")), *value, "{url} {part}");
    }
    for none in ["http://a b.com", "http://a.com/%2", "1http://a.com", "http:", "http://a.com/<x>", "a b"] {
        assert_eq!(one(SPARK, &format!("try_parse_url('{none}', 'PATH')")), "NULL", "{none}");
        assert!(try_rows(SPARK, &format!("SELECT parse_url('{none}', 'PATH')")).is_err(), "{none}");
    }
}

#[test]
fn patterns_of_format_string() {
    assert_eq!(one(SPARK, "format_string('%s has %05d of %x', 'ä', 42, 255)"), "ä has 00042 of ff");
    assert_eq!(one(SPARK, "printf('%2$s-%1$s|%5s|%-5s|', 'a', 'b')"), "b-a|    a|b    |");
    assert_eq!(one(SPARK, "format_string('%s', cast(NULL as varchar))"), "null");
    for (call, says) in [
        ("format_string('%.2f', 1.5)", "takes texts and whole numbers"),
        ("format_string('%s', true)", "takes texts and whole numbers"),
        ("format_string('%s', date '2024-01-01')", "takes texts and whole numbers"),
        ("format_string(p, 1) FROM (VALUES ('%d')) v(p)", "is a literal"),
    ] {
        let error = error(SPARK, &format!("SELECT {call}"));
        assert!(error.message().contains(says), "{call}: {error:?}");
    }
}

#[test]
fn the_other_dialects_do_not_have_them() {
    for call in ["pmod(7, 3)", "crc32('a')", "shuffle(make_array(1))", "parse_url('a', 'HOST')"] {
        assert!(try_rows(DF, &format!("SELECT {call}")).is_err(), "{call}");
    }
    // And keep their own meaning of what both have.
    assert_eq!(one(DF, "substr('abc', -1, 3)"), "a");
    assert_eq!(one(DF, "ceil(1.2)"), "2.0");
    assert_eq!(one(DF, "concat('a', NULL)"), "a");
}

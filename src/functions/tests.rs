//! The functions as SQL sees them.

use super::*;
use crate::error::Error;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::SessionContext;

mod json;
mod spark;

fn session(dialect: Dialect) -> SessionContext {
    let mut session = SessionContext::new();
    register(&mut session, dialect).unwrap();
    session
}

/// Runs a query and gives its rows, columns joined by ` | `.
fn try_rows(dialect: Dialect, sql: &str) -> Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let session = session(dialect);
        let batches = session.sql(sql).await?.collect().await?;
        let mut rows = Vec::new();
        for batch in batches {
            let options = FormatOptions::default().with_null("NULL");
            let columns: Vec<_> =
                batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
            for row in 0..batch.num_rows() {
                rows.push(columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join(" | "));
            }
        }
        Ok(rows)
    })
}

fn rows(dialect: Dialect, sql: &str) -> Vec<String> {
    try_rows(dialect, sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"))
}

/// The only value of a query.
fn one(dialect: Dialect, expression: &str) -> String {
    // A column as well as a literal: constant folding and batches must agree.
    let literal = rows(dialect, &format!("SELECT {expression}")).join("\n");
    let column = rows(dialect, &format!("SELECT {expression} FROM (VALUES (1), (2)) v(x)"));
    assert_eq!(column, [literal.clone(), literal.clone()], "{expression}");
    literal
}

fn error(dialect: Dialect, sql: &str) -> Error {
    try_rows(dialect, sql).expect_err(sql)
}

const DF: Dialect = Dialect::DataFusion;

#[test]
fn to_timestamp_reads_text_by_the_dialects_pattern() {
    for (dialect, pattern) in [
        (DF, "DD-MM-YYYY HH24:MI:SS"),
        (DF, "%d-%m-%Y %H:%M:%S"),
        (Dialect::Snowflake, "DD-MM-YYYY HH24:MI:SS"),
        (Dialect::Postgres, "DD-MM-YYYY HH24:MI:SS"),
        (Dialect::Spark, "dd-MM-yyyy HH:mm:ss"),
        (Dialect::Databricks, "dd-MM-yyyy HH:mm:ss"),
        (Dialect::DuckDb, "%d-%m-%Y %H:%M:%S"),
    ] {
        let good = one(dialect, &format!("to_timestamp('29-02-2024 23:59:58', '{pattern}')"));
        assert_eq!(good, "2024-02-29T23:59:58Z", "{dialect:?} {pattern}");
        let bad = one(dialect, &format!("try_to_timestamp('30-02-2024 23:59:58', '{pattern}')"));
        assert_eq!(bad, "NULL", "{dialect:?} {pattern}");
        let date = one(dialect, &format!("to_date('29-02-2024 23:59:58', '{pattern}')"));
        assert_eq!(date, "2024-02-29", "{dialect:?} {pattern}");
    }
    assert_eq!(one(DF, "strptime('5/3/2024', '%d/%m/%Y')"), "2024-03-05T00:00:00Z");
}

#[test]
fn to_timestamp_without_pattern_is_iso_text_seconds_dates_and_timestamps() {
    for (expression, expected) in [
        ("to_timestamp('2024-02-29T12:30:00Z')", "2024-02-29T12:30:00Z"),
        ("to_timestamp('2024-02-29 12:30:00.000001+02:00')", "2024-02-29T10:30:00.000001Z"),
        ("to_timestamp('2024-02-29')", "2024-02-29T00:00:00Z"),
        ("to_timestamp('0001-01-01')", "0001-01-01T00:00:00Z"),
        ("to_timestamp('9999-12-31T23:59:59.999999')", "9999-12-31T23:59:59.999999Z"),
        ("try_to_timestamp('2023-02-29')", "NULL"),
        ("try_to_timestamp('')", "NULL"),
        ("to_timestamp(1)", "1970-01-01T00:00:01Z"),
        ("to_timestamp(-1)", "1969-12-31T23:59:59Z"),
        ("to_timestamp(1.5)", "1970-01-01T00:00:01.500Z"),
        ("to_timestamp(cast(1.000001 as decimal(20, 6)))", "1970-01-01T00:00:01.000001Z"),
        ("try_to_timestamp(9223372036854775807)", "NULL"),
        ("try_to_timestamp(cast('NaN' as double))", "NULL"),
        ("to_timestamp(date '2024-02-29')", "2024-02-29T00:00:00Z"),
        ("to_timestamp(timestamp '2024-02-29 01:02:03')", "2024-02-29T01:02:03Z"),
        ("to_timestamp(NULL)", "NULL"),
        ("to_timestamp('x', NULL)", "NULL"),
        ("to_date('2024-02-29')", "2024-02-29"),
        ("to_date(20240229, 'YYYYMMDD')", "2024-02-29"),
        ("to_date(timestamp '2024-02-29 23:59:59')", "2024-02-29"),
        ("try_to_date('2024-02-30')", "NULL"),
        ("arrow_typeof(to_timestamp(1))", "Timestamp(µs, \"UTC\")"),
        ("arrow_typeof(to_date('2024-02-29'))", "Date32"),
    ] {
        assert_eq!(one(DF, expression), expected, "{expression}");
    }
}

#[test]
fn several_patterns_are_tried_in_order_and_a_pattern_may_be_a_column() {
    let read = "to_date(t, 'YYYY-MM-DD', 'DD/MM/YYYY')";
    assert_eq!(
        rows(DF, &format!("SELECT {read} FROM (VALUES ('2024-02-29'), ('29/02/2024'), (NULL)) v(t)")),
        ["2024-02-29", "2024-02-29", "NULL"]
    );
    let values = "(VALUES ('2024-02-29', 'YYYY-MM-DD'), ('29/02/2024', 'DD/MM/YYYY'), ('x', NULL)) v(t, p)";
    assert_eq!(rows(DF, &format!("SELECT to_date(t, p) FROM {values}")), ["2024-02-29", "2024-02-29", "NULL"]);
    assert_eq!(
        rows(DF, "SELECT to_char(date '2024-02-29', p) FROM (VALUES ('YY'), ('MM'), (NULL)) v(p)"),
        ["24", "02", "NULL"]
    );
}

#[test]
fn a_text_that_does_not_match_is_an_error_with_value_pattern_and_remedy() {
    let error = error(DF, "SELECT to_timestamp(t, 'DD-MM-YYYY') FROM (VALUES ('01-01-2024'), ('2024-01-01')) v(t)");
    assert_eq!(error.code(), "cast");
    assert_eq!(error.kind(), crate::error::ErrorKind::User);
    assert_eq!(
        error.message(),
        "'2024-01-01' does not match the pattern 'DD-MM-YYYY': expected the pattern's own text at '24-01-01'"
    );
    assert_eq!(error.hint(), Some("try_to_timestamp gives NULL instead"));
    let free = super::tests::error(DF, "SELECT to_timestamp(t) FROM (VALUES ('yesterday')) v(t)");
    assert_eq!(free.message(), "'yesterday' is no ISO 8601 timestamp such as 2024-02-29T12:30:00Z");
}

#[test]
fn a_bad_literal_pattern_is_found_before_any_row_is_read() {
    let error = error(Dialect::Spark, "SELECT to_timestamp(t, 'YYYY') FROM (SELECT 'x' AS t WHERE false) v");
    assert_eq!(error.code(), "format-pattern");
    assert!(error.hint().unwrap().contains("yyyy"), "{error:?}");
}

#[test]
fn to_char_writes_by_the_dialects_pattern() {
    let at = "to_timestamp('2024-03-05T14:07:09.123456Z')";
    for (dialect, call, expected) in [
        (DF, "to_char({}, 'DD-MON-YYYY HH12:MI:SS.FF3 AM')", "05-Mar-2024 02:07:09.123 PM"),
        (DF, "to_char({}, '%d %b %Y')", "05 Mar 2024"),
        (Dialect::Snowflake, "to_varchar({}, 'DY MMMM')", "Tue March"),
        (Dialect::Postgres, "to_char({}, 'FMMonth DY')", "March TUE"),
        (Dialect::Spark, "date_format({}, 'dd MMMM yyyy hh:mm a')", "05 March 2024 02:07 PM"),
        (Dialect::DuckDb, "strftime({}, '%Y-%m-%d %f')", "2024-03-05 123456"),
        (DF, "to_char(date '2024-03-05', 'YYYYMMDD')", "20240305"),
        (DF, "to_char('2024-03-05', 'HH24:MI')", "00:00"),
        (DF, "to_char(time '14:07:09', 'HH24:MI')", "14:07"),
        (DF, "to_char(date '1969-12-31', 'YYYY-MM-DD HH24')", "1969-12-31 00"),
        (DF, "to_char(cast(NULL as timestamp), 'YYYY')", "NULL"),
        (DF, "to_char({}, NULL)", "NULL"),
    ] {
        assert_eq!(one(dialect, &call.replace("{}", at)), expected, "{dialect:?} {call}");
    }
    // Nanoseconds, which a TIMESTAMP column has lost, are still there in an expression.
    assert_eq!(one(DF, "to_char(arrow_cast(-1, 'Timestamp(Nanosecond, None)'), 'SS.FF9')"), "59.999999999");
}

#[test]
fn surrogate_keys_are_those_of_dbt_utils() {
    use md5::{Digest, Md5};
    let md5 = |text: &str| Md5::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(one(DF, "surrogate_key('a', 1, date '2024-02-29')"), md5("a-1-2024-02-29"));
    assert_eq!(one(DF, "surrogate_key(NULL, '')"), md5("_dbt_utils_surrogate_key_null_-"));
    assert_eq!(one(DF, "generate_surrogate_key('a')"), "0cc175b9c0f1b6a831c399e269772661");
    // The same as the macro's SQL.
    let macros = "md5(coalesce(cast(a as string), '_dbt_utils_surrogate_key_null_') || '-' || \
                  coalesce(cast(b as string), '_dbt_utils_surrogate_key_null_'))";
    let values = "(VALUES (1, true), (NULL, false), (3, NULL)) v(a, b)";
    let compared = rows(DF, &format!("SELECT surrogate_key(a, b) = {macros} FROM {values}"));
    assert_eq!(compared, ["true", "true", "true"]);
    assert!(error(DF, "SELECT surrogate_key(make_array(1))").message().contains("plain columns"));
}

#[test]
fn md5_is_hexadecimal_text() {
    assert_eq!(one(DF, "md5('a')"), "0cc175b9c0f1b6a831c399e269772661");
    assert!(["Utf8", "Utf8View"].contains(&one(DF, "arrow_typeof(md5('a'))").as_str()));
}

#[test]
fn try_cast_gives_null() {
    assert_eq!(one(DF, "try_cast('x' as int)"), "NULL");
    assert_eq!(error(DF, "SELECT cast('x' as int)").code(), "cast");
}

/// `query` over 20 orders of `values`, in 3 batch layouts and with 1 and 4 partitions: always the same answer.
fn in_any_order(query: &str, values: &[String]) -> String {
    use rand::SeedableRng;
    use rand::seq::SliceRandom;
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let mut values = values.to_vec();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut answers = std::collections::BTreeSet::new();
    for round in 0..20 {
        values.shuffle(&mut rng);
        let config = datafusion::prelude::SessionConfig::new()
            .with_batch_size([1, 3, 8192][round % 3])
            .with_target_partitions([1, 4][round % 2])
            .with_repartition_aggregations(true);
        let mut session = SessionContext::new_with_config(config);
        register(&mut session, DF).unwrap();
        let rows = runtime.block_on(async {
            // A table, so that partitions and partial aggregates exist.
            let table = format!("CREATE TABLE t AS SELECT * FROM (VALUES {}) v(g, x)", values.join(", "));
            session.sql(&table).await.unwrap().collect().await.unwrap();
            session.sql(query).await.unwrap().collect().await.unwrap()
        });
        answers.insert(arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string());
    }
    assert_eq!(answers.len(), 1, "{query}: {answers:?}");
    let answer = answers.pop_first().unwrap();
    let cells = |line: &str| {
        line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" | ").trim_end().to_string()
    };
    answer.lines().filter(|l| l.starts_with('|')).skip(1).map(cells).collect::<Vec<_>>().join("; ")
}

#[test]
fn sums_of_floats_are_exact_in_any_order() {
    let values: Vec<String> = [0.1, 1e16, 0.2, -1e16, 0.3, 1e-300, 7e22, -7e22]
        .iter()
        .flat_map(|v: &f64| [format!("(1, cast({v:e} as double))"), format!("(2, cast({v:e} as double))")])
        .chain(["(3, NULL)".to_string()])
        .collect();
    // 0.1 + 0.2 + 0.3, exactly, is nearer to 0.6 than to any other double.
    assert_eq!(in_any_order("SELECT g, sum(x) FROM t GROUP BY g ORDER BY g", &values), "1 | 0.6; 2 | 0.6; 3 |");
    assert_eq!(in_any_order("SELECT sum(x), avg(x), mean(x) FROM t", &values), "1.2 | 0.075 | 0.075");
    assert_eq!(in_any_order("SELECT sum(DISTINCT x), avg(DISTINCT x) FROM t", &values), "0.6 | 0.075");
    assert_eq!(
        in_any_order("SELECT g, sum(x) FILTER (WHERE x > 1 AND x < 1e20) FROM t GROUP BY g ORDER BY g", &values),
        "1 | 1e16; 2 | 1e16; 3 |"
    );
}

#[test]
fn sums_of_floats_slide_over_frames() {
    let window = "SELECT sum(x) OVER (ORDER BY i ROWS BETWEEN 1 PRECEDING AND CURRENT ROW), \
                  sum(DISTINCT x) OVER (ORDER BY i ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) \
                  FROM (VALUES (1, 1e16), (2, 1.0), (3, 1.0), (4, 0.1)) v(i, x) ORDER BY i";
    assert_eq!(rows(DF, window), ["1e16 | 1e16", "1e16 | 1e16", "2.0 | 1.0", "1.1 | 1.1"]);
}

#[test]
fn sums_keep_the_stock_functions_types() {
    for (argument, data_type) in [
        ("cast(1 as smallint)", "Int64"),
        ("1", "Int64"),
        ("arrow_cast(1, 'UInt32')", "UInt64"),
        ("cast(1 as real)", "Float64"),
        ("cast(1 as decimal(10, 2))", "Decimal128(20, 2)"),
        ("cast(1 as decimal(38, 2))", "Decimal128(38, 2)"),
    ] {
        assert_eq!(rows(DF, &format!("SELECT arrow_typeof(sum({argument}))")), [data_type], "{argument}");
    }
    assert_eq!(
        rows(DF, "SELECT arrow_typeof(avg(cast(1 as decimal(10, 2)))), avg(2), sum(1.5)"),
        ["Decimal128(14, 6) | 2.0 | 1.5"]
    );
    assert_eq!(rows(DF, "SELECT sum(x), avg(x) FROM (SELECT 1 AS x WHERE false) v"), ["NULL | NULL"]);
}

#[test]
fn sums_of_integers_do_not_wrap_and_do_not_mind_the_way_there() {
    let max = i64::MAX;
    let values: Vec<String> = [max, max, -max, 5, -5].iter().map(|v| format!("(1, {v})")).collect();
    // Half of the orders overflow in the middle.
    assert_eq!(in_any_order("SELECT g, sum(x) FROM t GROUP BY g", &values), format!("1 | {max}"));
    assert_eq!(in_any_order("SELECT sum(x) FROM t", &values), format!("{max}"));
    let overflow = error(DF, &format!("SELECT sum(x) FROM (VALUES ({max}), (1)) v(x)"));
    assert_eq!((overflow.code(), overflow.message()), ("overflow", "the sum does not fit its type, BIGINT"));
    let overflow = error(DF, &format!("SELECT g, sum(x) FROM (VALUES (1, {max}), (1, 1)) v(g, x) GROUP BY g"));
    assert_eq!(overflow.code(), "overflow");
}

#[test]
fn sums_of_decimals_are_checked_against_their_precision() {
    let nines = "9".repeat(38);
    let values: Vec<String> =
        [&nines, &nines, &format!("-{nines}")].iter().map(|v| format!("(1, cast('{v}' as decimal(38, 0)))")).collect();
    assert_eq!(in_any_order("SELECT sum(x) FROM t", &values), nines);
    let values = format!("(VALUES (cast('{nines}' as decimal(38, 0))), (cast(1 as decimal(38, 0)))) v(x)");
    let overflow = error(DF, &format!("SELECT sum(x) FROM {values}"));
    assert_eq!((overflow.code(), overflow.message()), ("overflow", "the sum does not fit its type, DECIMAL(38,0)"));
}

#[test]
fn integers_do_not_wrap_around() {
    let max = i64::MAX;
    for (expression, message) in [
        (format!("x + {max}"), format!("1 + {max} does not fit BIGINT")),
        (format!("-2 - {max} * x"), format!("-2 - {max} does not fit BIGINT")),
        (format!("{max} * (x + 1)"), format!("{max} * 2 does not fit BIGINT")),
        ("arrow_cast(127, 'Int8') + arrow_cast(x, 'Int8')".to_string(), "127 + 1 does not fit TINYINT".to_string()),
    ] {
        let error = error(DF, &format!("SELECT {expression} FROM (VALUES (1)) v(x)"));
        assert_eq!((error.code(), error.message()), ("overflow", message.as_str()), "{expression}");
    }
    let values = "(VALUES (1, 2), (3, NULL)) v(x, y)";
    assert_eq!(
        rows(DF, &format!("SELECT x + y, x - 1, 2 * x FROM {values} ORDER BY x")),
        ["3 | 0 | 2", "NULL | 2 | 6"]
    );
    // Names, grouping, ordering and correlation are as before.
    let grouped = "SELECT x + 1, sum(x * 2) FROM (VALUES (1), (1), (2)) v(x) GROUP BY x + 1 ORDER BY x + 1";
    assert_eq!(rows(DF, grouped), ["2 | 4", "3 | 4"]);
    assert_eq!(rows(DF, "SELECT \"v.x + Int64(1)\" FROM (SELECT x + 1 FROM (VALUES (1)) v(x)) w"), ["2"]);
    let correlated =
        "SELECT x FROM (VALUES (1), (5)) v(x) WHERE EXISTS (SELECT 1 FROM (VALUES (2)) w(y) WHERE y = x + 1)";
    assert_eq!(rows(DF, correlated), ["1"]);
    // Other types keep their operators.
    assert_eq!(one(DF, "date '2024-02-28' + interval '1 day' = timestamp '2024-02-29'"), "true");
    assert_eq!(one(DF, "1 + 0.5"), "1.5");
    assert_eq!(one(DF, "cast(2 as int) * cast(3 as bigint)"), "6");
}

#[test]
fn from_json_is_the_sources_decoder() {
    let read = |json: &str, data_type: &str| one(DF, &format!("from_json('{json}', '{data_type}')"));
    let call = "STRUCT<sid: STRING, duration: BIGINT, from: STRUCT<number: STRING>>";
    assert_eq!(
        read(r#"{"sid": "a", "duration": 7, "from": {"number": "1"}, "more": []}"#, call),
        "{sid: a, duration: 7, from: {number: 1}}"
    );
    assert_eq!(read("[1, 2, null]", "ARRAY<INT>"), "[1, 2, NULL]");
    assert_eq!(read(r#"{"id": 1, "name": "x"}"#, "id BIGINT, name STRING"), "{id: 1, name: x}");
    // One bad text among good ones is NULL alone.
    let texts = r#"('{"sid": "a"}'), ('{"sid": "b"'), ('{"duration": 1.5}'), (NULL), ('[]'), ('{"sid": "c"}')"#;
    let fields = format!("SELECT f.sid FROM (SELECT from_json(t, '{call}') AS f FROM (VALUES {texts}) v(t)) w");
    assert_eq!(rows(DF, &fields), ["a", "NULL", "NULL", "NULL", "NULL", "c"]);
    let data_type = rows(DF, "SELECT arrow_typeof(from_json('1', 'STRUCT<at: TIMESTAMP, amount: DECIMAL(20, 2)>'))");
    assert!(
        data_type[0].contains("Timestamp(µs, \"UTC\")") && data_type[0].contains("Decimal128(20, 2)"),
        "{data_type:?}"
    );
    let error = error(DF, "SELECT from_json('{}', 'STRUCT<a: INTT>')");
    assert!(error.message().contains("INTT"), "{error:?}");
    assert!(super::tests::error(DF, "SELECT from_json(t, t) FROM (VALUES ('{}')) v(t)").message().contains("literal"));
}

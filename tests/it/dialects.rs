//! docs/dialects.md, table "Meaning": one assertion per row and dialect, through the planner that models go through.

use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use smelt::plan::{Planner, PlannerOptions};
use smelt::project::{Dialect, SourceMap};

const ALL: [Dialect; 6] =
    [Dialect::DataFusion, Dialect::Postgres, Dialect::Snowflake, Dialect::DuckDb, Dialect::Spark, Dialect::Databricks];

/// The first column of a query in a project of this dialect, or the code of its error.
fn ask(dialect: Dialect, sql: &str) -> Result<Vec<String>, &'static str> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let planner = Planner::new(PlannerOptions::new(dialect)).unwrap();
        let plan =
            planner.plan_query(sql, &SourceMap::verbatim("query.sql".into(), sql), &[]).map_err(|e| e[0].code())?;
        let stream = planner.execute(&plan).await.map_err(|e| e.code())?;
        let batches: Vec<_> = stream.try_collect().await.map_err(|e| smelt::error::Error::from(e).code())?;
        let options = FormatOptions::default().with_null("NULL");
        let mut values = Vec::new();
        for batch in batches {
            let column = ArrayFormatter::try_new(batch.column(0).as_ref(), &options).unwrap();
            values.extend((0..batch.num_rows()).map(|row| column.value(row).to_string()));
        }
        Ok(values)
    })
}

#[test]
fn division_of_integers() {
    for dialect in ALL {
        let expected = match dialect {
            Dialect::DataFusion | Dialect::Postgres => "3",
            Dialect::Snowflake => "3.500000",
            Dialect::DuckDb | Dialect::Spark | Dialect::Databricks => "3.5",
        };
        let found = ask(dialect, "SELECT a / b AS q FROM (VALUES (7, 2)) v(a, b)");
        assert_eq!(found, Ok(vec![expected.to_string()]), "{dialect:?}");
    }
}

#[test]
fn order_of_nulls() {
    for dialect in ALL {
        let (ascending, descending) = match dialect {
            Dialect::DataFusion | Dialect::Postgres | Dialect::Snowflake => (["1", "2", "NULL"], ["NULL", "2", "1"]),
            Dialect::DuckDb => (["1", "2", "NULL"], ["2", "1", "NULL"]),
            Dialect::Spark | Dialect::Databricks => (["NULL", "1", "2"], ["2", "1", "NULL"]),
        };
        let values = "FROM (VALUES (2), (NULL), (1)) v(x) ORDER BY x";
        let found = ask(dialect, &format!("SELECT x {values}"));
        assert_eq!(found, Ok(ascending.map(String::from).to_vec()), "{dialect:?}");
        let found = ask(dialect, &format!("SELECT x {values} DESC"));
        assert_eq!(found, Ok(descending.map(String::from).to_vec()), "{dialect:?}");
    }
}

#[test]
fn failed_casts_and_overflow() {
    let max = i64::MAX;
    for dialect in ALL {
        assert_eq!(ask(dialect, "SELECT cast(t AS int) AS i FROM (VALUES ('x')) v(t)"), Err("cast"), "{dialect:?}");
        let tried = ask(dialect, "SELECT try_cast(t AS int) AS i FROM (VALUES ('x')) v(t)");
        assert_eq!(tried, Ok(vec!["NULL".to_string()]), "{dialect:?}");
        for expression in
            [format!("x + {max}"), format!("-2 - x * {max}"), format!("2 * x * {max}"), format!("sum(y * {max})")]
        {
            let found = ask(dialect, &format!("SELECT {expression} AS z FROM (VALUES (1, 1), (1, 1)) v(x, y)"));
            assert_eq!(found, Err("overflow"), "{dialect:?} {expression}");
        }
    }
}

/// (written, gives) of the rows under a heading of docs/dialects.md.
fn rows_of(heading: &str) -> Vec<(String, String)> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/dialects.md")).unwrap();
    let section = page.split(heading).nth(1).unwrap().split("\n## ").next().unwrap().to_string();
    let section = section.split("\nAggregates").next().unwrap();
    rows_in(section)
}

/// The same of a piece of it. A `|` inside a cell is part of it.
fn rows_in(section: &str) -> Vec<(String, String)> {
    let cell = |c: &str| c.trim().trim_matches('`').to_string();
    let row = |line: &str| {
        let (written, gives) = line.trim_matches('|').split_once("` | `").unwrap_or_else(|| panic!("{line}"));
        (cell(written), cell(gives))
    };
    section.lines().filter(|l| l.starts_with("| `")).map(row).collect()
}

fn check(dialect: Dialect, rows: &[(String, String)], from: &str) {
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|(written, gives)| {
            let found = ask(dialect, &format!("SELECT {written} AS answer {from}"));
            (found != Ok(vec![gives.clone()])).then(|| format!("{dialect:?} {written}: {found:?}, not {gives}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn units_are_the_same_in_every_dialect() {
    let rows = rows_of("\n## Units");
    assert!(rows.len() >= 12);
    for dialect in ALL {
        check(dialect, &rows, "");
    }
    assert_eq!(ask(Dialect::DataFusion, "SELECT dateadd(fortnight, 1, date '2024-01-01') AS d"), Err("unknown-column"));
}

#[test]
fn functions_of_every_dialect() {
    let rows = rows_of("\n## In every dialect");
    assert!(rows.len() >= 6);
    for dialect in ALL {
        check(dialect, &rows, "");
    }
    // A condition between a call's parentheses is one, though DuckDB has arguments with names.
    let sql = "SELECT coalesce(a = b AND c, false) AS x FROM (VALUES (1, 1, true)) v(a, b, c)";
    for dialect in ALL {
        assert_eq!(ask(dialect, sql), Ok(vec!["true".to_string()]), "{dialect:?}");
    }
}

#[test]
fn json_in_every_dialect() {
    let rows = rows_of("\n## JSON");
    assert!(rows.len() >= 15);
    for dialect in ALL {
        check(dialect, &rows, "");
    }
    let chained = "SELECT x -> 'a' -> 'b' ->> 1 AS v FROM (VALUES ('{\"a\":{\"b\":[1,\"x\"]}}')) t(x)";
    for dialect in [Dialect::DataFusion, Dialect::Postgres] {
        assert_eq!(ask(dialect, chained), Ok(vec!["x".to_string()]), "{dialect:?}");
    }
    let once = "SELECT x -> 'a' AS v FROM (VALUES ('{\"a\":\"x\"}')) t(x)";
    assert_eq!(ask(Dialect::DuckDb, once), Ok(vec!["\"x\"".to_string()]));
    let path = "SELECT v:a.b[1]::int AS n FROM (VALUES ('{\"a\":{\"b\":[1,2]}}')) t(v)";
    for dialect in [Dialect::Snowflake, Dialect::Databricks] {
        assert_eq!(ask(dialect, path), Ok(vec!["2".to_string()]), "{dialect:?}");
    }
}

#[test]
fn sparks_functions() {
    let rows = rows_of("\n## Spark's functions");
    assert!(rows.len() >= 50);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/dialects.md")).unwrap();
    let aggregates = page.split("\nAggregates in Spark's").nth(1).unwrap().split("\n## ").next().unwrap();
    let aggregates = rows_in(aggregates);
    assert!(aggregates.len() >= 9);
    for dialect in [Dialect::Spark, Dialect::Databricks] {
        check(dialect, &rows, "");
        check(dialect, &aggregates, "FROM (VALUES (3), (1), (2), (1)) v(x)");
    }
}

#[test]
fn lists_become_rows() {
    let lists = "(VALUES (1, make_array('a', 'b')), (2, make_array()), (3, NULL)) AS t(id, x)";
    let spark = |select: &str, from: &str| {
        let sql = format!("SELECT {select} AS v FROM (SELECT {from}) AS q ORDER BY 1");
        [Dialect::Spark, Dialect::Databricks].map(|dialect| ask(dialect, &sql)).to_vec()
    };
    let both = |values: &[&str]| vec![Ok(values.iter().map(|v| v.to_string()).collect::<Vec<_>>()); 2];
    assert_eq!(spark("concat(id, col)", &format!("id, explode(x) FROM {lists}")), both(&["1a", "1b"]));
    assert_eq!(spark("concat(id, y)", &format!("id, explode(x) AS y FROM {lists}")), both(&["1a", "1b"]));
    assert_eq!(
        spark("concat(id, coalesce(y, '-'))", &format!("id, explode_outer(x) AS y FROM {lists}")),
        both(&["1a", "1b", "2-", "3-"])
    );
    assert_eq!(spark("concat(pos, col)", &format!("id, posexplode(x) FROM {lists}")), both(&["0a", "1b"]));
    assert_eq!(spark("concat(p, y)", &format!("id, posexplode(x) AS (p, y) FROM {lists}")), both(&["0a", "1b"]));
    let view = |view: &str| format!("t.id, v.* FROM {lists} LATERAL VIEW {view}");
    assert_eq!(spark("concat(id, a)", &view("explode(x) v AS a")), both(&["1a", "1b"]));
    assert_eq!(spark("concat(id, a)", &view("explode(t.x) v AS a WHERE a <> 'a'")), both(&["1b"]));
    assert_eq!(
        spark("concat(id, coalesce(a, '-'))", &view("OUTER explode(x) v AS a")),
        both(&["1a", "1b", "2-", "3-"])
    );
    assert_eq!(spark("concat(p, a)", &view("posexplode(x) v AS p, a")), both(&["0a", "1b"]));
    let flattened = format!("SELECT t.id || f.value AS v FROM {lists}, LATERAL FLATTEN(input => t.x) f ORDER BY 1");
    assert_eq!(ask(Dialect::Snowflake, &flattened), Ok(vec!["1a".to_string(), "1b".to_string()]));
}

#[test]
fn left_rows_stay_where_the_list_gives_none() {
    let lists = "(VALUES (1, make_array(1, 2, 5)), (2, make_array()), (3, NULL), (4, make_array(0, NULL)), (1, make_array(1, 2, 5))) AS t(id, xs)";
    let gives = |right: &str, values: &[&str]| {
        let sql = format!(
            "SELECT t.id || ':' || coalesce(cast(u.x AS varchar), '-') AS v FROM {lists} LEFT JOIN {right} ORDER BY 1"
        );
        let expected = Ok(values.iter().map(|v| v.to_string()).collect::<Vec<_>>());
        assert_eq!(ask(Dialect::DataFusion, &sql), expected, "{right}");
    };
    gives("unnest(t.xs) AS u(x) ON true", &["1:1", "1:1", "1:2", "1:2", "1:5", "1:5", "2:-", "3:-", "4:-", "4:0"]);
    gives("unnest(t.xs) AS u(x) ON u.x > 1", &["1:2", "1:2", "1:5", "1:5", "2:-", "3:-", "4:-"]);
    gives("unnest(t.xs) AS u(x) ON u.x = t.id + 1", &["1:2", "1:2", "2:-", "3:-", "4:-"]);
    gives("unnest(t.xs) AS u(x) ON u.x IS NULL", &["1:-", "1:-", "2:-", "3:-", "4:-"]);
    gives("unnest(t.xs) AS u(x) ON false", &["1:-", "1:-", "2:-", "3:-", "4:-"]);
    gives(
        "LATERAL (SELECT coalesce(l.y, 9) AS x FROM unnest(t.xs) AS l(y)) AS u ON true",
        &["1:1", "1:1", "1:2", "1:2", "1:5", "1:5", "2:-", "3:-", "4:0", "4:9"],
    );
    gives(
        "LATERAL (SELECT l.y * 10 AS x FROM unnest(t.xs) AS l(y) WHERE l.y > 0) AS u ON u.x < 50",
        &["1:10", "1:10", "1:20", "1:20", "2:-", "3:-", "4:-"],
    );
    // Two of them, and a join behind.
    let sql = format!(
        "SELECT t.id || ':' || coalesce(cast(u.x AS varchar), '-') || coalesce(cast(w.y AS varchar), '-') AS v FROM {lists} \
         LEFT JOIN unnest(t.xs) AS u(x) ON u.x > 1 LEFT JOIN unnest(make_array(u.x, t.id)) AS w(y) ON w.y > 2 \
         JOIN (VALUES (1), (4)) AS i(id) ON i.id = t.id ORDER BY 1"
    );
    let expected = ["1:2-", "1:2-", "1:55", "1:55", "4:-4"].map(String::from).to_vec();
    assert_eq!(ask(Dialect::DataFusion, &sql), Ok(expected));
}

#[test]
fn maps_structs_and_json_become_rows() {
    let gives = |dialect, sql: &str, values: &[&str]| {
        let expected = Ok(values.iter().map(|v| v.to_string()).collect::<Vec<_>>());
        assert_eq!(ask(dialect, &format!("{sql} ORDER BY 1")), expected, "{dialect:?}: {sql}");
    };
    let maps = "(VALUES (1, map(['a', 'b'], [10, 20])), (2, NULL)) AS t(id, m)";
    let structs = "(VALUES (1, make_array(named_struct('a', 1, 'b', 'x'), named_struct('a', 2, 'b', 'y'))), (2, NULL)) AS t(id, r)";
    let texts = "(VALUES (1, '{\"a\": 1, \"b\": \"x\"}'), (2, 'no JSON')) AS t(id, j)";
    for dialect in [Dialect::Spark, Dialect::Databricks] {
        gives(
            dialect,
            &format!("SELECT concat(k, v) AS x FROM (SELECT explode(m) AS (k, v) FROM {maps}) AS q"),
            &["a10", "b20"],
        );
        let view = |view: &str| format!("FROM {maps} LATERAL VIEW {view}");
        gives(
            dialect,
            &format!("SELECT concat(p, k, v) AS x {}", view("posexplode(m) e AS p, k, v")),
            &["0a10", "1b20"],
        );
        gives(
            dialect,
            &format!("SELECT concat(id, coalesce(k, '-')) AS x {}", view("OUTER explode(m) e AS k, v")),
            &["1a", "1b", "2-"],
        );
        gives(
            dialect,
            &format!("SELECT concat(b, id, a) AS x FROM {structs} LATERAL VIEW inline(r) i AS a, b"),
            &["x11", "y12"],
        );
        gives(
            dialect,
            &format!("SELECT concat(q, id, p) AS x FROM (SELECT id, inline(r) AS (p, q) FROM {structs}) AS s"),
            &["x11", "y12"],
        );
        gives(
            dialect,
            &format!(
                "SELECT concat(id, coalesce(a, '-'), coalesce(b, '-')) AS x FROM {texts} LATERAL VIEW json_tuple(j, 'a', 'b') e AS a, b"
            ),
            &["11x", "2--"],
        );
        gives(
            dialect,
            &format!(
                "SELECT coalesce(concat(c0, c1), '-') AS x FROM (SELECT json_tuple(j, 'b', 'a') FROM {texts}) AS s"
            ),
            &["-", "x1"],
        );
    }
    let json = "(VALUES (1, '{\"a\": [1, \"x\", {\"n\": 7}], \"b\": null}'), (2, '[]'), (3, NULL)) AS t(id, j)";
    let flatten = |select: &str, call: &str| format!("SELECT {select} AS x FROM {json}, LATERAL FLATTEN({call}) AS f");
    let sf = Dialect::Snowflake;
    gives(
        sf,
        &flatten("concat(id, f.key, coalesce(f.value, '-'))", "input => t.j"),
        &["1a[1, \"x\", {\"n\": 7}]", "1b-"],
    );
    gives(sf, &flatten("concat(f.index, f.value)", "input => t.j, path => 'a'"), &["01", "1x", "2{\"n\":7}"]);
    gives(sf, &flatten("concat(f.value:n, id, f.index)", "input => t.j:a"), &["712", "NULL", "NULL"]);
    gives(sf, &flatten("concat(id, coalesce(f.key, '-'))", "input => t.j, outer => true"), &["1a", "1b", "2-", "3-"]);
    // Paths and what values stand in; one kind of them; all levels, each value before what it contains.
    gives(sf, &flatten("concat(id, f.path)", "input => t.j"), &["1a", "1b"]);
    gives(sf, &flatten("concat(id, f.path)", "input => t.j, path => 'a'"), &["1a[0]", "1a[1]", "1a[2]"]);
    gives(sf, &flatten("f.this", "input => t.j, path => 'a'"), &["[1,\"x\",{\"n\":7}]"; 3]);
    gives(
        sf,
        &flatten("concat(id, f.path, f.this)", "input => t.j, outer => true, mode => 'array'"),
        &["1{\"a\": [1, \"x\", {\"n\": 7}], \"b\": null}", "2[]", "NULL"],
    );
    gives(sf, &flatten("f.path", "input => t.j, recursive => true"), &["a", "a[0]", "a[1]", "a[2]", "a[2].n", "b"]);
    gives(sf, &flatten("f.path", "input => t.j, recursive => true, mode => 'object'"), &["a", "b"]);
    gives(
        sf,
        &flatten("coalesce(f.value, '-')", "input => t.j, recursive => true"),
        &["-", "1", "7", "[1, \"x\", {\"n\": 7}]", "x", "{\"n\": 7}"],
    );
    let unlisted = "SELECT f.value AS x FROM (VALUES (make_array(1))) AS t(l), LATERAL FLATTEN(input => t.l, recursive => true) AS f";
    assert_eq!(ask(sf, unlisted), Err("sql"));
    let lists = "(VALUES (1, make_array('p', 'q'))) AS t(id, l)";
    gives(
        sf,
        &format!("SELECT concat(f.index, f.value) AS x FROM {lists}, TABLE(FLATTEN(input => t.l)) AS f"),
        &["0p", "1q"],
    );
    gives(
        sf,
        &format!("SELECT concat(f.path, array_size(f.this)) AS x FROM {lists}, TABLE(FLATTEN(input => t.l)) AS f"),
        &["[0]2", "[1]2"],
    );
    gives(sf, &format!("SELECT f.value AS x FROM {lists}, TABLE(FLATTEN(input => t.l, mode => 'object')) AS f"), &[]);
    for dialect in [Dialect::DataFusion, Dialect::Postgres] {
        gives(
            dialect,
            &format!("SELECT u.a || u.n AS x FROM {lists}, unnest(t.l) WITH ORDINALITY AS u(a, n)"),
            &["p1", "q2"],
        );
    }
}

#[test]
fn snowflakes_functions() {
    let rows = rows_of("\n## Snowflake's functions");
    assert!(rows.len() >= 50);
    check(Dialect::Snowflake, &rows, "");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/dialects.md")).unwrap();
    let aggregates = page.split("\nAggregates, over").nth(1).unwrap();
    let rows = rows_in(aggregates);
    assert!(rows.len() >= 9);
    check(Dialect::Snowflake, &rows, "FROM (VALUES (3), (1), (2)) v(x)");
    // Elsewhere `iff` is nobody's.
    assert!(ask(Dialect::Postgres, "SELECT iff(true, 1, 2) AS x").is_err());
    let qualified = "SELECT x FROM (VALUES (3), (1), (2)) v(x) QUALIFY row_number() OVER (ORDER BY x DESC) = 1";
    assert_eq!(ask(Dialect::Snowflake, qualified), Ok(vec!["3".to_string()]));
    // Words of the table that are columns stay columns.
    let column = "SELECT dateadd(day, day, date '2024-01-01') AS d FROM (VALUES (3)) v(day)";
    assert_eq!(ask(Dialect::Snowflake, column), Ok(vec!["2024-01-04".to_string()]));
}

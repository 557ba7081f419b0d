//! Models as they are written for Spark and Databricks, with the functions of docs/dialects.md, in tables and over changing input.

use crate::support::Sandbox;

const SETTINGS: &str =
    "name: telecom\ndialect: databricks\ntarget: dev\ntargets:\n  dev: {lake: ./lake, commit_interval: 100ms}\n";

const SOURCES: &str = "version: 2\nsources:\n  - name: web\n    config: {connector: files, format: json}\n    tables:\n      \
    - {name: visits, config: {path: data/visits}, columns: [{name: id, data_type: BIGINT}, {name: page, data_type: STRING}, \
      {name: at, data_type: TIMESTAMP}, {name: zone, data_type: STRING}, {name: bytes, data_type: BIGINT}, \
      {name: amount, data_type: \"DECIMAL(9,2)\"}, {name: ratio, data_type: DOUBLE}, {name: tags, data_type: \"ARRAY<STRING>\"}]}\n";

const VISITS: &str = "\
SELECT
    id,
    parse_url(page, 'HOST')                                   AS host,
    url_decode(parse_url(page, 'QUERY', 'q'))                 AS asked,
    substring(page, -3)                                       AS ending,
    length(page)                                              AS characters,
    sha2(page, 256)                                           AS page_key,
    xxhash64(id, page)                                        AS row_hash,
    crc32(page)                                               AS page_crc,
    to_utc_timestamp(at, zone)                                AS at_utc,
    unix_millis(at)                                           AS at_millis,
    at + make_dt_interval(0, 1)                               AS an_hour_later,
    date_trunc('MM', at)                                      AS month,
    next_day(at, 'Mon')                                       AS next_monday,
    weekday(at)                                               AS weekday,
    pmod(bytes, 1000)                                         AS rest,
    hex(bytes)                                                AS bytes_hex,
    shiftright(bytes, 10)                                     AS kilobytes,
    ceil(ratio)                                               AS upper_bound,
    floor(amount)                                             AS whole_amount,
    array_contains(tags, 'new')                               AS is_new,
    concat_ws('|', zone, tags)                                AS labels,
    map_from_arrays(array('bytes', 'id'), array(bytes, id))   AS numbers,
    str_to_map('a:1,b:2')                                     AS pairs,
    unhex(hex(page))                                          AS raw_page,
    format_string('%s has %d', zone, bytes)                   AS said
FROM {{ source('web', 'visits') }}
";

fn visit(id: i64, query: &str, at: &str, zone: &str, bytes: i64, tags: &str) -> String {
    format!(
        "{{\"id\": {id}, \"page\": \"https://Example.com/p?q={query}\", \"at\": \"{at}\", \"zone\": \"{zone}\", \"bytes\": {bytes}, \
         \"amount\": \"-1.25\", \"ratio\": -0.5, \"tags\": {tags}}}\n"
    )
}

fn project() -> Sandbox {
    let sandbox = Sandbox::with(&[
        ("smelt.yml", SETTINGS),
        ("models/sources.yml", SOURCES),
        ("queries/visits.sql", VISITS),
        (
            "queries/per_host.sql",
            "{{ config(incremental='strict') }}\nSELECT host, try_sum(rest) AS rest, try_sum(at_millis * 5000000) AS none, collect_set(weekday) AS days,\n\
             count_if(is_new) AS new_ones, sum(DISTINCT upper_bound) AS bounds\nFROM {{ ref('visits') }} GROUP BY host",
        ),
    ]);
    sandbox.write(
        "data/visits/1.json",
        visit(1, "a+b", "2024-03-10 03:30:00", "America/Los_Angeles", 2048, "[\"new\", null]")
            + &visit(2, "%C3%A4", "2024-03-11 00:00:00", "UTC", -7, "[null]"),
    );
    sandbox
}

#[test]
fn a_model_written_for_databricks_runs_unchanged() {
    let sandbox = project();
    sandbox.smelt(&["run"]).ok();
    let texts = sandbox.rows(
        "select concat_ws(' ', host, asked, ending, characters, at_utc, next_monday, weekday, rest, bytes_hex, kilobytes, upper_bound, \
         whole_amount, is_new, labels, numbers['bytes'], pairs['b'], make_valid_utf8(raw_page), said) as r from visits order by id",
    );
    assert_eq!(
        texts,
        [
            "{\"r\":\"Example.com a b a+b 27 2024-03-10T10:30:00Z 2024-03-11 6 48 800 2 0 -2 true America/Los_Angeles|new 2048 2 \
             https://Example.com/p?q=a+b America/Los_Angeles has 2048\"}",
            "{\"r\":\"Example.com ä %A4 30 2024-03-11T00:00:00Z 2024-03-18 0 993 FFFFFFFFFFFFFFF9 -1 0 -2 UTC -7 2 \
             https://Example.com/p?q=%C3%A4 UTC has -7\"}",
        ]
    );
    let per_host = "select concat_ws(' ', host, rest, coalesce(cast(none as string), 'too much'), days, new_ones, bounds) as r from per_host";
    assert_eq!(sandbox.rows(per_host), ["{\"r\":\"Example.com 1041 too much 0 6 1 0\"}"]);
    // More of the same host, in another run.
    sandbox.write("data/visits/2.json", visit(3, "c", "2024-03-12 00:00:00", "UTC", 5, "[\"new\"]"));
    sandbox.smelt(&["run"]).ok();
    assert_eq!(sandbox.rows(per_host), ["{\"r\":\"Example.com 1046 too much 0 1 6 2 0\"}"]);
}

/// What stands left in the tables under Spark's heading, but for the aggregates.
fn written() -> Vec<String> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/dialects.md")).unwrap();
    let section = page.split("\n## Spark's functions").nth(1).unwrap().split("\nAggregates").next().unwrap();
    let left = |line: &str| line.strip_prefix("| `")?.split("` | `").next().map(String::from);
    section.lines().filter_map(left).collect()
}

#[test]
fn a_table_can_hold_what_every_function_gives() {
    let sandbox = project();
    let calls = written();
    assert!(calls.len() > 150);
    let columns: Vec<String> = calls.iter().enumerate().map(|(i, call)| format!("{call} as c{i}")).collect();
    let view = format!("select id, {} from {{{{ source('web', 'visits') }}}}", columns.join(",\n"));
    sandbox.write("queries/everything.sql", view);
    sandbox.smelt(&["run", "-s", "everything"]).ok();
    let counts: Vec<String> = (0..calls.len()).map(|i| format!("count(c{i})")).collect();
    let rows = sandbox.rows(&format!("select count(*) as n, {} as filled from everything", counts.join(" + ")));
    let nulls = written().len() * 2;
    assert!(rows[0].starts_with("{\"n\":2,"), "{rows:?} of {nulls}");
}

#[test]
fn dice_are_refused_in_views_and_thrown_once_in_streams() {
    for dice in ["shuffle(tags)", "rand()", "uuid()"] {
        let sandbox = project();
        sandbox.write("queries/dice.sql", format!("select id, {dice} as d from {{{{ source('web', 'visits') }}}}"));
        let name = match dice {
            "rand()" => "random",
            other => other.split('(').next().unwrap(),
        };
        sandbox.smelt(&["compile"]).fails(2, &format!("`{name}()` gives another value at each call"));
        sandbox.write(
            "queries/dice.sql",
            format!("{{{{ config(materialized='streaming_table') }}}}\nselect id, {dice} as d from stream {{{{ source('web', 'visits') }}}}"),
        );
        sandbox.smelt(&["run", "-s", "dice"]).ok();
        assert_eq!(sandbox.count("dice"), 2, "{dice}");
    }
}

#[test]
fn what_no_table_holds_is_said_with_a_remedy() {
    for (call, says) in [
        ("make_interval(1, 2)", "an interval"),
        ("make_dt_interval(1)", "an interval"),
        ("format_string('%.2f', ratio)", "takes texts and whole numbers"),
    ] {
        let sandbox = project();
        sandbox.write("queries/bad.sql", format!("select id, {call} as x from {{{{ source('web', 'visits') }}}}"));
        sandbox.smelt(&["compile"]).fails(2, says);
    }
}

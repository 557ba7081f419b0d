//! One unit test for every shape of query: joins, sets, subqueries, aggregates, windows, lists, windows in time, the clock, recursion.
//!
//! The queries are those of the golden scripts in `src/plan/scripts`, and [`MORE`]. All of them read the same tables, which change in five steps: rows come,
//! change, go, and all are gone. What must come out stands in `shapes.json`; DuckDB says so too, where it is there. So each shape is
//! computed by the incremental engine, by the batch plan, and by another engine. Last, every expected row is altered once: no test may pass then.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::python;
use crate::support::Sandbox;

/// Scripts whose materialized views are shapes: all of the first, of the others those that `shapes.json` has.
const SCRIPTS: [&str; 9] =
    ["shapes", "aggregates", "first", "joins", "sessions", "subqueries", "time_windows", "unnest", "clock"];

/// Those that are none: they read other models, are about types, or approximate.
const NOT_HERE: [&str; 3] = ["joins_between", "aggregates_types", "aggregates_approximate"];

/// Shapes that no script has.
const MORE: &[(&str, &str)] = &[
    (
        "recursion",
        "with recursive reached as (select user_id as place, 0 as hops from \"ref\".\"users\" where user_id = 1 \
         union all select e.id, r.hops + 1 from reached as r join \"ref\".\"events\" as e on e.user_id = r.place and e.id <> r.place where r.hops < 3) \
         select place, hops from reached",
    ),
    (
        "window_running",
        "select id, sum(seconds) over (partition by user_id order by ts, id) as s, count(*) over (partition by user_id) as n from \"ref\".\"events\"",
    ),
    (
        "window_neighbours",
        "select id, lag(id) over (partition by user_id order by ts, id) as b, lead(seconds, 1, -1) over (partition by user_id order by ts, id) as a, \
         first_value(id) over (partition by user_id order by ts, id) as f, last_value(id) over (partition by user_id order by ts, id) as l, \
         nth_value(id, 2) over (partition by user_id order by ts, id) as n from \"ref\".\"events\"",
    ),
    (
        "window_rows",
        "select id, sum(seconds) over (order by ts, id rows between 1 preceding and 1 following) as s from \"ref\".\"events\"",
    ),
    (
        "window_range",
        "select id, sum(seconds) over (order by seconds range between 10 preceding and 5 following) as s from \"ref\".\"events\"",
    ),
    (
        "window_groups",
        "select id, count(*) over (order by user_id groups between 1 preceding and current row) as n from \"ref\".\"events\"",
    ),
    (
        "window_ranks",
        "select id, rank() over (order by user_id) as r, dense_rank() over (order by user_id) as d, row_number() over (order by ts, id) as n from \"ref\".\"events\"",
    ),
    ("window_top_dense", "select id from \"ref\".\"events\" qualify dense_rank() over (order by user_id) <= 2"),
    (
        "any_all_sets",
        "select user_id, city from \"ref\".\"users\" except (select user_id, 'a' from \"ref\".\"events\" union all select 2, 'b')",
    ),
    (
        "exists_in_aggregate",
        "select e.user_id, sum(case when exists (select 1 from \"ref\".\"users\" as u where u.user_id = e.user_id) then seconds else 0 end) as s, \
         count(*) filter (where e.user_id in (select user_id from \"ref\".\"users\")) as n from \"ref\".\"events\" as e group by e.user_id",
    ),
    (
        "every_total",
        "select round(var_pop(price), 6) as v, round(corr(price, seconds), 6) as c, bit_xor(id) as x, min(tags[1]) as t from \"ref\".\"events\"",
    ),
    (
        "sets_of_groups",
        "select user_id, city_id, count(*) as n from \"ref\".\"users\" group by grouping sets ((user_id), (city_id), ())",
    ),
    ("ordinality", "select e.id, u.tag, u.n from \"ref\".\"events\" as e, unnest(e.tags) with ordinality as u(tag, n)"),
];

/// What DuckDB calls differently: the same question in its words.
const IN_DUCKDB: &[(&str, &str)] = &[
    (
        "aggregates_ordered",
        "select user_id, array_agg(seconds order by ts, seconds, price) as all_seconds, first(price order by ts) as first_price, string_agg(distinct x['from'].number, ',' order by x['from'].number) as numbers from ref.events group by user_id",
    ),
    (
        "subqueries_on_one_side",
        "select e.id, u.city from ref.events as e left join (select * from ref.users as u where u.city_id in (select o.city_id from ref.users as o where o.user_id < u.user_id)) as u on e.user_id = u.user_id",
    ),
    (
        "subqueries_on_both_sides",
        "select e.id, u.city from ref.events as e full join ref.users as u on e.user_id = u.user_id and list_contains(e.tags, u.city)",
    ),
    ("ordinality", "select id, unnest(tags) as tag, unnest(range(1, len(tags) + 1)) as n from ref.events"),
    ("unnest_tags", "select id, unnest(tags) as tag from ref.events"),
    (
        "unnest_long_tags",
        "select id, unnest(case when id <> 9 and len([t for t in tags if t <> 'b']) > 0 then [t for t in tags if t <> 'b'] else [null] end) as tag from ref.events",
    ),
    (
        "unnest_computed",
        "select id, unnest(case when len(tags) > 0 then [coalesce(t, '') for t in tags] else [null] end) as tag from ref.events",
    ),
    ("unnest_levels", "select unnest([id, user_id]) as one, unnest(tags) as deep from ref.events, range(2)"),
    ("unnest_fields", "select x['from'] as a, x.ok as ok from ref.events"),
    (
        "unnest_all_tags",
        "select id, tag, count(*) as n from (select id, unnest(case when len(tags) > 0 then tags else [null] end) as tag from ref.events) group by id, tag",
    ),
    (
        "sessions_sessions",
        "select user_id, min(ts) as window_start, max(ts) + interval '30 minutes' as window_end, count(*) as n from (select *, \
         sum(fresh) over (partition by user_id order by ts range between unbounded preceding and current row) as s from (select *, \
         case when ts < lag(ts) over (partition by user_id order by ts) + interval '30 minutes' then 0 else 1 end as fresh from ref.events)) group by user_id, s",
    ),
    (
        "time_windows_per_five_minutes",
        "select time_bucket(interval '5 minutes', ts) as window_start, time_bucket(interval '5 minutes', ts) + interval '5 minutes' as window_end, count(*) as n from ref.events group by 1, 2",
    ),
    (
        "time_windows_hopping",
        "select id, time_bucket(interval '1 minute', ts) - n * interval '1 minute' as window_start, time_bucket(interval '1 minute', ts) - n * interval '1 minute' + interval '5 minutes' as window_end from ref.events, range(0, 5) as r(n)",
    ),
    (
        "time_windows_monthly",
        "select date_trunc('month', ts) as window_start, sum(seconds) as seconds from ref.events where seconds > 0 group by 1",
    ),
    (
        "time_windows_days",
        "select time_bucket(interval '1 day', ts - interval '6 hours', timestamp '1970-01-01') + interval '6 hours' as window_start, count(*) as n, \
         time_bucket(interval '6 hours', max(ts), timestamp '1970-01-01') as quarter from ref.events group by 1",
    ),
    (
        "time_windows_loud",
        "select time_bucket(interval '1 hour', ts, timestamp '1970-01-01') as started, id from ref.events",
    ),
];

/// A table, its columns, and the one that tells its rows apart.
type Table = (&'static str, &'static [(&'static str, &'static str)], &'static str);

const TABLES: [Table; 4] = [
    (
        "events",
        &[
            ("id", "BIGINT"),
            ("user_id", "BIGINT"),
            ("site_id", "BIGINT"),
            ("device_id", "BIGINT"),
            ("ts", "TIMESTAMP"),
            ("seconds", "BIGINT"),
            ("price", "DOUBLE"),
            ("amount", "DECIMAL(10,2)"),
            ("tags", "ARRAY<STRING>"),
            ("x", "STRUCT<from: STRUCT<number: STRING>, ok: BOOLEAN>"),
        ],
        "id",
    ),
    ("users", &[("user_id", "BIGINT"), ("city", "STRING"), ("City_Id", "BIGINT"), ("since", "DATE")], "City_Id"),
    ("sites", &[("site_id", "BIGINT"), ("city_id", "BIGINT"), ("name", "STRING")], "site_id"),
    ("devices", &[("device_id", "BIGINT"), ("brand", "STRING")], "device_id"),
];

/// A row of each table by its columns' order.
fn row(table: &str, values: Value) -> Map<String, Value> {
    let (_, columns, _) = TABLES.iter().find(|(name, ..)| *name == table).unwrap();
    columns.iter().map(|(name, _)| name.to_string()).zip(values.as_array().unwrap().iter().cloned()).collect()
}

/// What happens to a row.
enum Change {
    Comes(&'static str, Value),
    /// The row with this key takes these values.
    Becomes(&'static str, i64, Value),
    Goes(&'static str, i64),
}

/// The steps: where the clock stands, and what changes.
fn steps() -> Vec<(&'static str, Vec<Change>)> {
    use Change::*;
    let at = |time: &str| format!("2024-03-01 {time}");
    let said = |number: Value, ok: bool| json!({"from": {"number": number}, "ok": ok});
    vec![
        (
            "2024-03-01 11:30:00",
            vec![
                Comes(
                    "events",
                    json!([1, 1, 1, 1, at("10:00:00"), 10, 1.5, "10.00", ["a", "b"], said(json!("111"), true)]),
                ),
                Comes("events", json!([2, 1, 1, 2, at("10:04:00"), 20, 2.5, "20.50", [], said(json!("222"), false)])),
                Comes("events", json!([3, 2, 2, 1, at("10:02:00"), 30, null, "5.25", null, said(json!("111"), true)])),
                Comes(
                    "events",
                    json!([4, null, 1, null, at("10:20:00"), 5, 4.0, null, ["c"], said(json!(null), true)]),
                ),
                Comes(
                    "events",
                    json!([5, 3, 2, 2, at("11:00:00"), 0, -1.25, "1.00", ["a"], said(json!("333"), false)]),
                ),
                Comes(
                    "events",
                    json!([6, 1, 3, 1, at("11:05:00"), 40, 8.0, "2.00", ["b", ""], said(json!("222"), true)]),
                ),
                Comes(
                    "events",
                    json!([7, 1, 2, 3, at("12:00:00"), 50, 16.0, "3.00", ["a", "b", "c"], said(json!("111"), true)]),
                ),
                Comes(
                    "events",
                    json!([8, 4, 1, 1, "2024-02-20 07:30:00", 7, 0.5, "4.75", ["c"], said(json!("444"), false)]),
                ),
                Comes("users", json!([1, "a", 1, "2024-02-01"])),
                Comes("users", json!([2, "b", 2, "2024-03-05"])),
                Comes("users", json!([3, "a", 3, null])),
                Comes("users", json!([null, "c", 4, "2024-03-01"])),
                Comes("users", json!([7, "x", 5, "2024-03-01"])),
                Comes("sites", json!([1, 1, "north"])),
                Comes("sites", json!([2, 2, "south"])),
                Comes("devices", json!([1, "a"])),
                Comes("devices", json!([2, "x"])),
            ],
        ),
        (
            "2024-03-01 12:40:00",
            vec![
                Becomes(
                    "events",
                    2,
                    json!([2, 2, 3, 2, at("10:06:00"), 21, 2.5, "20.50", ["b"], said(json!("222"), true)]),
                ),
                Goes("events", 7),
                Comes(
                    "events",
                    json!([9, 5, 2, 1, at("11:20:00"), 9, 3.25, "9.99", ["c", "a"], said(json!("555"), true)]),
                ),
                Comes("events", json!([10, 3, 1, 2, at("10:01:00"), 60, 5.5, "0.50", null, said(json!("333"), true)])),
                Becomes("users", 2, json!([2, "a", 2, "2024-01-15"])),
                Goes("users", 4),
                Comes("users", json!([4, "d", 6, "2024-03-01"])),
                Becomes("sites", 2, json!([2, 1, "south east"])),
                Comes("devices", json!([3, "c"])),
            ],
        ),
        (
            "2024-03-05 00:00:00",
            vec![
                Goes("events", 1),
                Goes("events", 6),
                Becomes(
                    "events",
                    5,
                    json!([5, null, 1, 3, at("10:03:00"), 2, -1.25, "1.00", ["c", "c"], said(json!("333"), true)]),
                ),
                Comes(
                    "events",
                    json!([11, 2, 2, 3, at("10:09:00"), 11, 7.0, "11.00", ["a"], said(json!("111"), false)]),
                ),
                Goes("users", 1),
                Goes("users", 5),
                Comes("users", json!([5, "e", 7, "2024-03-04"])),
                Goes("sites", 1),
                Goes("devices", 1),
            ],
        ),
        // First what is asked about is gone, then what asks.
        (
            "2024-03-06 00:00:00",
            [("users", &[2, 3, 6, 7][..]), ("sites", &[2]), ("devices", &[2, 3])]
                .into_iter()
                .flat_map(|(table, keys)| keys.iter().map(move |key| Goes(table, *key)))
                .collect(),
        ),
        ("2024-03-06 00:00:00", [2, 3, 4, 5, 8, 9, 10, 11].into_iter().map(|key| Goes("events", key)).collect()),
    ]
}

/// Every shape by its name, over the tables `"ref"."…"`.
fn shapes() -> BTreeMap<String, String> {
    let mut shapes = BTreeMap::new();
    let known = answers();
    for script in SCRIPTS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/scripts").join(script);
        for entry in std::fs::read_to_string(path).unwrap().split("\n\n\n") {
            let (asked, answer) = entry.split_once("\n---\n").unwrap();
            let mut lines = asked.lines().skip_while(|line| line.is_empty() || line.starts_with('#'));
            let words: Vec<&str> = lines.next().unwrap().split(' ').collect();
            let name = format!("{script}_{}", words[0]);
            if words[1] != "materialized_view" || answer.starts_with("error[") || NOT_HERE.contains(&name.as_str()) {
                continue;
            }
            if script != SCRIPTS[0] && !known.contains_key(&name) {
                continue;
            }
            let sql = lines.collect::<Vec<_>>().join("\n").replace("\"cdc\".\"users\"", "\"ref\".\"users\"");
            assert!(shapes.insert(name, sql).is_none());
        }
    }
    shapes.extend(MORE.iter().map(|(name, sql)| (name.to_string(), sql.to_string())));
    shapes
}

/// Whether `shapes.json` is to be written anew.
fn updating() -> bool {
    std::env::var("UPDATE_GOLDEN").is_ok()
}

/// Rows of an answer.
type Rows = Vec<Map<String, Value>>;

fn answers_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/shapes.json")
}

/// What every shape gives after each step.
fn answers() -> BTreeMap<String, Vec<Rows>> {
    serde_json::from_str(&std::fs::read_to_string(answers_path()).unwrap()).unwrap()
}

/// The project: every shape as a view, with a unit test that expects `answers`.
fn project(answers: &BTreeMap<String, Vec<Rows>>) -> Sandbox {
    let settings = "name: shapes\ntarget: dev\ntargets:\n  dev: {lake: ./lake}\n";
    let sandbox = Sandbox::with(&[("smelt.yml", settings)]);
    let tables: Vec<Value> = TABLES
        .iter()
        .map(|(name, columns, _)| {
            let columns: Vec<Value> = columns.iter().map(|(n, t)| json!({"name": n, "data_type": t})).collect();
            json!({"name": name, "config": {"path": format!("data/{name}-*.json")}, "columns": columns})
        })
        .collect();
    let config = json!({"connector": "files", "format": "debezium-json"});
    let mut tests = Vec::new();
    for (name, sql) in shapes() {
        let mut template = sql.clone();
        let mut read: Vec<&str> = Vec::new();
        for (table, ..) in TABLES {
            let written = format!("\"ref\".\"{table}\"");
            if template.contains(&written) {
                template = template.replace(&written, &format!("{{{{ source('ref', '{table}') }}}}"));
                read.push(table);
            }
        }
        sandbox.write(&format!("queries/{name}.sql"), template);
        let mut steps: Vec<Value> = steps()
            .iter()
            .enumerate()
            .map(|(number, (now, changes))| {
                let given: Vec<Value> = read.iter().map(|table| given(table, changes, number == 0)).collect();
                json!({"now": now, "given": given, "expect": {"rows": answers[&name][number]}})
            })
            .collect();
        let mut test = steps.remove(0);
        test["name"] = name.clone().into();
        test["model"] = name.into();
        test["then"] = steps.into();
        tests.push(test);
    }
    // JSON is YAML.
    let properties = json!({
        "version": 2,
        "sources": [{"name": "ref", "config": config, "tables": tables}],
        "unit_tests": tests,
    });
    // Not in one line: a place in a file has its line with it.
    sandbox.write("models/shapes.yml", format!("{properties:#}"));
    sandbox
}

/// The changes of one input in a step.
fn given(table: &str, changes: &[Change], first: bool) -> Value {
    let (_, _, key) = TABLES.iter().find(|(name, ..)| *name == table).unwrap();
    let rows: Vec<Value> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Comes(name, values) if *name == table => Some(Value::Object(row(table, values.clone()))),
            Change::Becomes(name, _, values) if *name == table => {
                let mut row = row(table, values.clone());
                row.insert("_op".into(), "update".into());
                Some(Value::Object(row))
            }
            Change::Goes(name, at) if *name == table => Some(json!({"_op": "delete", *key: at})),
            _ => None,
        })
        .collect();
    let input = format!("source('ref', '{table}')");
    if first { json!({"input": input, "rows": rows}) } else { json!({"input": input, "key": key, "rows": rows}) }
}

#[test]
fn every_shape_has_a_unit_test_that_holds_after_every_step() {
    let answers = answers();
    let (named, asked): (Vec<&String>, Vec<String>) = (answers.keys().collect(), shapes().into_keys().collect());
    assert_eq!(named, asked.iter().collect::<Vec<_>>(), "a shape is new, or gone: see duckdb_gives_the_same_answers");
    for name in &named {
        let rows = answers[*name].iter().take(4).filter(|rows| !rows.is_empty()).count();
        assert!(rows > 0, "{name}: nothing ever comes out of it");
    }
    let ended = project(&answers).smelt(&["test"]);
    let failures: Vec<&str> = ended.stdout.lines().filter(|l| l.contains("FAIL") || l.contains("ERROR")).collect();
    assert_eq!(ended.code, Some(0), "{failures:#?}\n{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains(&format!("Done. PASS={}", answers.len())), "{}", ended.stdout);
}

#[test]
fn no_unit_test_passes_with_another_expectation() {
    for number in 0..steps().len() {
        let mut altered = answers();
        let mut count = 0;
        for steps in altered.values_mut() {
            // Of a step that has rows: a row of other values, none of its rows, one row too many, one too few; of one without: nothing to alter.
            let rows = &mut steps[number];
            if rows.is_empty() {
                continue;
            }
            count += 1;
            let last = rows.len() - 1;
            match (count + number) % 4 {
                0 => alter(rows, 0),
                1 => drop(rows.pop()),
                2 => rows.push(rows[0].clone()),
                _ => alter(rows, last),
            }
        }
        let expected = altered.len() - count;
        let ended = project(&altered).smelt(&["test"]);
        let done = ended.stdout.lines().find(|l| l.starts_with("Done.")).unwrap_or_default().to_string();
        assert!(
            done.contains(&format!("PASS={expected} ")),
            "step {number}: {done}, {count} were altered\n{}",
            ended.stdout
        );
        assert!(done.contains(&format!("ERROR={count} ")), "step {number}: {done}");
        let of_step = ended.stdout.matches(&format!("step {}: actual ", number + 1)).count();
        assert_eq!(of_step, count, "each fails at its altered row\n{}", ended.stdout);
        assert!(!ended.stdout.contains("bug in smelt"), "{}", ended.stdout);
        assert!(number > 2 || count * 10 >= altered.len() * 7, "step {number}: only {count} have rows");
    }
}

/// NULL in the place of the first value of a row; where it has none, the row comes twice.
fn alter(rows: &mut Rows, at: usize) {
    match rows[at].values_mut().find(|value| !value.is_null()) {
        Some(value) => *value = Value::Null,
        None => rows.push(rows[at].clone()),
    }
}

/// SQL of DuckDB for a value of a column.
fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::String(text) => format!("'{text}'"),
        Value::Array(items) => format!("[{}]::VARCHAR[]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members: Vec<String> = members.iter().map(|(k, v)| format!("'{k}': {}", literal(v))).collect();
            format!("{{{}}}", members.join(", "))
        }
        other => other.to_string(),
    }
}

/// The tables as they are after so many steps.
fn setup(after: usize) -> Vec<String> {
    let mut statements = vec!["create schema ref".to_string()];
    for (table, columns, key) in TABLES {
        let types: Vec<String> = columns
            .iter()
            .map(|(name, t)| {
                let t = match *t {
                    "STRING" => "VARCHAR",
                    "ARRAY<STRING>" => "VARCHAR[]",
                    t if t.starts_with("STRUCT") => "STRUCT(\"from\" STRUCT(number VARCHAR), ok BOOLEAN)",
                    t => t,
                };
                format!("\"{name}\" {t}")
            })
            .collect();
        statements.push(format!("create table ref.{table} ({})", types.join(", ")));
        let insert = |values: &Value| {
            let values: Vec<String> = values.as_array().unwrap().iter().map(literal).collect();
            format!("insert into ref.{table} values ({})", values.join(", "))
        };
        let delete = |at: &i64| format!("delete from ref.{table} where \"{key}\" = {at}");
        for change in steps().iter().take(after + 1).flat_map(|(_, changes)| changes) {
            match change {
                Change::Comes(name, values) if *name == table => statements.push(insert(values)),
                Change::Becomes(name, at, values) if *name == table => statements.extend([delete(at), insert(values)]),
                Change::Goes(name, at) if *name == table => statements.push(delete(at)),
                _ => {}
            }
        }
    }
    statements
}

/// What DuckDB says of a value, as a unit test expects it.
fn expected(value: Value) -> Value {
    match value {
        Value::String(text) => {
            let number = |prefix: &str| text.strip_prefix(prefix).and_then(|n| n.parse::<i64>().ok());
            if let Some(micros) = number("time ") {
                return chrono::DateTime::from_timestamp_micros(micros)
                    .unwrap()
                    .format("%Y-%m-%d %H:%M:%S")
                    .to_string()
                    .into();
            }
            if let Some(days) = number("date ") {
                return chrono::DateTime::from_timestamp(days * 86_400, 0)
                    .unwrap()
                    .format("%Y-%m-%d")
                    .to_string()
                    .into();
            }
            text.into()
        }
        Value::Array(items) => items.into_iter().map(expected).collect(),
        Value::Object(members) => members.into_iter().map(|(k, v)| (k, expected(v))).collect(),
        other => other,
    }
}

/// Whether two answers are the same, numbers but for 1e-9 of their size: the last digit of a statistic is each engine's own.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| alike(a, b)))
        }
        (a, b) => a == b,
    }
}

/// With `UPDATE_GOLDEN=1` its answers become those that are expected. A shape of a script that is not `shapes` is put into the file first, with five
/// empty steps.
#[test]
fn duckdb_gives_the_same_answers() {
    if !python::available() {
        return;
    }
    let mut lines = Vec::new();
    for (name, sql) in shapes() {
        let sql = IN_DUCKDB.iter().find(|(other, _)| *other == name).map_or(sql, |(_, sql)| sql.to_string());
        for (number, (now, _)) in steps().iter().enumerate() {
            let sql = sql
                .replace("now()", &format!("timestamp '{now}'"))
                .replace("current_date", &format!("date '{}'", &now[..10]));
            lines.push(json!({"setup": setup(number), "sql": sql}).to_string());
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/duckdb_rows.py");
    let mut child =
        Command::new(python::python()).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        std::io::Write::write_all(&mut input, (lines.join("\n") + "\n").as_bytes()).unwrap()
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let found: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut by_shape: BTreeMap<String, Vec<Rows>> = BTreeMap::new();
    for ((name, sql), steps) in shapes().into_iter().zip(found.chunks(steps().len())) {
        let steps = steps.iter().map(|answer| {
            assert!(answer["error"].is_null(), "{name}: {}\n{sql}", answer["error"]);
            let columns: Vec<&str> =
                answer["columns"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
            let row = |row: &Value| -> Map<String, Value> {
                let values = row.as_array().unwrap().iter().cloned().map(expected);
                columns.iter().map(|name| name.to_string()).zip(values).collect()
            };
            let mut rows: Rows = answer["rows"].as_array().unwrap().iter().map(row).collect();
            rows.sort_by_key(|row| Value::Object(row.clone()).to_string());
            rows
        });
        let steps = steps.collect();
        by_shape.insert(name, steps);
    }
    if updating() {
        let shapes: Vec<String> = by_shape
            .iter()
            .map(|(name, steps)| {
                let steps: Vec<String> = steps.iter().map(|rows| format!("  {}", json!(rows))).collect();
                format!("\"{name}\": [\n{}\n]", steps.join(",\n"))
            })
            .collect();
        std::fs::write(answers_path(), format!("{{\n{}\n}}\n", shapes.join(",\n"))).unwrap();
        return;
    }
    for (name, steps) in answers() {
        let same = alike(&json!(by_shape[&name]), &json!(steps));
        assert!(same, "{name}: DuckDB (left) has other rows than shapes.json\n{:?}\n{steps:?}", by_shape[&name]);
    }
}

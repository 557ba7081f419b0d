//! JSON functions: `get_json_object` as Spark has it, and those of `datafusion-functions-json`.

use super::*;

/// (text, path, value). Source: Spark's documentation and the cases of its `JsonExpressionsSuite` (the store's document, by its rules).
const SPARK: &[(&str, &str, &str)] = &[
    (r#"{"a":"b"}"#, "$.a", "b"),
    (r#"{"a":{"b":[10,20]}}"#, "$.a.b[0]", "10"),
    (r#"{"a":{"b":[10,20]}}"#, "$.a.b[2]", "NULL"),
    (r#"{"a":{"b":[10,20]}}"#, "$.a.b", "[10,20]"),
    (r#" { "a" : { "b" : [ 1 , "x y" ] } } "#, "$.a", r#"{"b":[1,"x y"]}"#),
    (r#"{"a b":1}"#, "$['a b']", "1"),
    (r#"{"a.b":1}"#, "$['a.b']", "1"),
    (r#"{"a b":1}"#, "$.a b", "1"),
    (r#"{"a":null}"#, "$.a", "NULL"),
    (r#"{"a":null,"a":2}"#, "$.a", "2"),
    (r#"{"a":1,"a":2}"#, "$.a", "1"),
    (r#"{"a":true}"#, "$.a", "true"),
    (r#"{"a":"x\ny\u00e4"}"#, "$.a", "x\ny\u{e4}"),
    (r#"{"a":["x\ny\u00e4","\"\/"]}"#, "$.a", "[\"x\\ny\u{e4}\",\"\\\"/\"]"),
    (r#"{"a":1.10}"#, "$.a", "1.10"),
    (r#"{"a":123456789012345678901234567890}"#, "$.a", "123456789012345678901234567890"),
    ("[1,2]", "$[1]", "2"),
    ("[1,2]", "$", "[1,2]"),
    (r#""text""#, "$", "text"),
    // Wildcards: one match stands alone, several in an array; strings keep their quotes.
    (r#"{"a":[{"b":"x"},{"b":"y"}]}"#, "$.a[*].b", r#"["x","y"]"#),
    (r#"{"a":[{"b":"x"},{"c":"y"}]}"#, "$.a[*].b", r#""x""#),
    (r#"{"a":[{"c":"y"}]}"#, "$.a[*].b", "NULL"),
    (r#"{"a":[[1,2],[3]]}"#, "$.a[*]", "[[1,2],[3]]"),
    (r#"{"a":[[1,2],[3]]}"#, "$.a[*][*]", "[1,2,3]"),
    (r#"{"a":[[1,2],[3]]}"#, "$.a[0][*]", "[1,2]"),
    (r#"{"a":[[1],[3]]}"#, "$.a[0][*]", "[1]"),
    (r#"{"a":{"x":1,"y":2}}"#, "$.a.*", "1"),
    // No paths, no JSON, nothing there.
    (r#"{"a":1}"#, "a", "NULL"),
    (r#"{"a":1}"#, "$.", "NULL"),
    (r#"{"a":1}"#, "$a", "NULL"),
    (r#"{"a":1}"#, "$[x]", "NULL"),
    (r#"{"a":1}"#, "$[-1]", "NULL"),
    (r#"{"a":1}"#, "$['a'", "NULL"),
    (r#"{"a":1}"#, "$.a.b", "NULL"),
    (r#"{"a":1}"#, "$[0]", "NULL"),
    (r#"{"a":1"#, "$.a", "NULL"),
    (r#"{"a" 1}"#, "$.a", "NULL"),
    (r#"{"b":x,"a":1}"#, "$.a", "NULL"),
    ("", "$.a", "NULL"),
    ("nonsense", "$", "NULL"),
];

#[test]
fn get_json_object_is_spark_s() {
    for (text, path, value) in SPARK {
        let call = format!("get_json_object('{}', '{}')", text, path.replace('\'', "''"));
        assert_eq!(one(DF, &call), *value, "{call}");
    }
}

#[test]
fn paths_and_texts_may_be_columns() {
    let table = r#"(VALUES ('{"a":1,"b":2}', '$.a'), ('{"a":1,"b":2}', '$.b'), (NULL, '$.a'), ('{}', NULL), ('{', '$')) v(t, p)"#;
    assert_eq!(rows(DF, &format!("SELECT get_json_object(t, p) FROM {table}")), ["1", "2", "NULL", "NULL", "NULL"]);
}

/// (call over the text `j`, value).
const PARTS: &[(&str, &str)] = &[
    ("json_get(j, 'n')", "5"),
    ("json_get(j, 'x')", "five"),
    ("json_get(j, 'nothing')", "NULL"),
    ("json_get(j, 'no')", "NULL"),
    ("json_get(j, 'o', 'k')", "[1,2.5,\"z\"]"),
    ("json_get(j, 'o', 'k', 2)", "z"),
    ("json_get(j, 'o', 'k', -1)", "z"),
    ("json_get(j, 'o', 'k', -3)", "1"),
    ("json_get(j, 'o', 'k', -4)", "NULL"),
    ("json_get(j, 'o', 'k', 3)", "NULL"),
    ("json_get(j, 'o', NULL)", "NULL"),
    ("json_get(j, 'twice')", "2"),
    ("json_get_json(j, 'x')", "\"five\""),
    ("json_get_json(j, 'nothing')", "null"),
    ("json_get_str(j, 'x')", "five"),
    ("json_get_str(j, 'n')", "NULL"),
    ("json_get_int(j, 'n')", "5"),
    ("json_get_int(j, 'x')", "NULL"),
    ("json_get_int(j, 'd')", "NULL"),
    ("json_get_float(j, 'o', 'k', 1)", "2.5"),
    ("json_get_float(j, 'n')", "5.0"),
    ("json_get_bool(j, 'b')", "true"),
    ("json_get_bool(j, 'n')", "NULL"),
    ("json_get_array(j, 'o', 'k')", "[1, 2.5, \"z\"]"),
    ("json_get_array(j, 'n')", "NULL"),
    ("json_contains(j, 'nothing')", "true"),
    ("json_contains(j, 'no')", "false"),
    ("json_length(j, 'o', 'k')", "3"),
    ("json_length(j)", "8"),
    ("json_length(j, 'n')", "NULL"),
    ("json_object_keys(j, 'o')", "[k, \u{e4}\"]"),
    ("json_as_text('{\"a\": [1,', 'a')", "NULL"),
    ("json_as_text('{\"a\": 1} x', 'a')", "NULL"),
    ("cast(json_get(j, 'd') AS decimal(19, 2))", "12345678901234567.89"),
    ("try_cast(json_get(j, 'x') AS int)", "NULL"),
];

#[test]
fn parts_of_texts() {
    let text = r#"{"n": 5, "d": 12345678901234567.89, "x": "five", "nothing": null, "b": true, "twice": 1, "twice": 2, "o": {"k": [1,2.5,"z"], "\u00e4\"": 0}}"#;
    for (call, value) in PARTS {
        // A column, NULL among its rows, and a constant.
        let column = rows(DF, &format!("SELECT {call} FROM (VALUES ('{text}'), (NULL)) v(j)"));
        if call.contains("(j") {
            assert_eq!(column, [*value, "NULL"], "{call}");
        }
        assert_eq!(
            one(DF, &call.replace("(j,", &format!("('{text}',")).replace("(j)", &format!("('{text}')"))),
            *value,
            "{call}"
        );
    }
    assert_eq!(
        error(DF, &format!("SELECT cast(json_get(j, 'x') AS int) FROM (VALUES ('{text}')) v(j)")).code(),
        "cast"
    );
}

/// (text, `json_get_int(text, 'a')`, `json_get_float`, `json_get_bool`): what reads as a number or a truth is one.
const CONVERTED: &[(&str, &str, &str, &str)] = &[
    (r#"{"a":7.0}"#, "7", "7.0", "NULL"),
    (r#"{"a":-70e-1}"#, "-7", "-7.0", "NULL"),
    (r#"{"a":0.0}"#, "0", "0.0", "NULL"),
    (r#"{"a":-0.0}"#, "0", "0.0", "NULL"),
    (r#"{"a":1.5e1}"#, "15", "15.0", "NULL"),
    (r#"{"a":1.5}"#, "NULL", "1.5", "NULL"),
    (r#"{"a":9007199254740993.0}"#, "9007199254740993", "9007199254740992.0", "NULL"),
    (r#"{"a":9223372036854775807}"#, "9223372036854775807", "9.223372036854775807e18", "NULL"),
    (r#"{"a":9223372036854775808}"#, "NULL", "9.223372036854775808e18", "NULL"),
    (r#"{"a":-9223372036854775808.0}"#, "-9223372036854775808", "-9.223372036854775808e18", "NULL"),
    (r#"{"a":1e400}"#, "NULL", "inf", "NULL"),
    (r#"{"a":1e-400}"#, "NULL", "0.0", "NULL"),
    (r#"{"a":"12"}"#, "12", "12.0", "NULL"),
    (r#"{"a":"1.5"}"#, "NULL", "1.5", "NULL"),
    (r#"{"a":"NaN"}"#, "NULL", "NaN", "NULL"),
    (r#"{"a":NaN}"#, "NULL", "NULL", "NULL"),
    (r#"{"a":"x"}"#, "NULL", "NULL", "NULL"),
    (r#"{"a":true}"#, "NULL", "NULL", "true"),
    (r#"{"a":"false"}"#, "NULL", "NULL", "false"),
    (r#"{"a":null}"#, "NULL", "NULL", "NULL"),
];

#[test]
fn what_reads_as_a_number_is_one() {
    for (text, int, float, bool) in CONVERTED {
        assert_eq!(one(DF, &format!("json_get_int('{text}', 'a')")), *int, "{text}");
        let expected = if float.contains('e') { float.parse::<f64>().unwrap().to_string() } else { float.to_string() };
        let found = one(DF, &format!("json_get_float('{text}', 'a')"));
        assert!(found == expected || found.parse::<f64>() == expected.parse::<f64>(), "{text}: {found}");
        assert_eq!(one(DF, &format!("json_get_bool('{text}', 'a')")), *bool, "{text}");
    }
    assert_eq!(one(DF, "json_from_scalar('x')"), "\"x\"");
    assert_eq!(one(DF, "json_from_scalar(1.5)"), "1.5");
}

/// A session with the functions of `datafusion-functions-json`.
fn crate_session() -> SessionContext {
    let mut session = SessionContext::new();
    datafusion_functions_json::register_all(&mut session).unwrap();
    session
}

/// The rows of a query over `texts`, or the error.
fn over(session: &SessionContext, query: &str, texts: &[Option<String>]) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let column: arrow::array::ArrayRef = Arc::new(arrow::array::StringArray::from(texts.to_vec()));
    let batch = arrow::array::RecordBatch::try_from_iter([("j", column)]).unwrap();
    let _ = session.deregister_table("t");
    session.register_batch("t", batch).unwrap();
    let run = async { session.sql(query).await?.collect().await };
    let batches = runtime.block_on(run).map_err(|e| e.to_string())?;
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
        rows.extend(
            (0..batch.num_rows())
                .map(|row| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join(" | ")),
        );
    }
    Ok(rows)
}

/// A JSON value in which no key stands twice.
fn random_json(rng: &mut rand_chacha::ChaCha8Rng, depth: usize) -> String {
    use rand::Rng;
    let space = if rng.random_bool(0.1) { " " } else { "" };
    let kinds = if depth == 0 { 7 } else { 9 };
    match rng.random_range(0..kinds) {
        0 => "null".to_string(),
        1 => ["true", "false"][rng.random_range(0..2)].to_string(),
        2 => rng.random_range(-5..50i64).to_string(),
        3 => rng.random::<i64>().to_string(),
        4 => ["1.5", "-2.25", "1e3", "1E+2", "0.1", "7.0", "12345678901234567890", "1.10"][rng.random_range(0..8)]
            .to_string(),
        5 | 6 => {
            let text =
                ["", "x", "12", "true", "1.5", r"a\nb", r"\u00e4\ud83d\ude00", "ä 😀", r#"\"q\""#, r"\\", "null"];
            format!("\"{}\"", text[rng.random_range(0..text.len())])
        }
        7 => {
            let parts: Vec<String> = (0..rng.random_range(0..4)).map(|_| random_json(rng, depth - 1)).collect();
            format!("[{space}{}{space}]", parts.join(&format!(",{space}")))
        }
        _ => {
            let keys = ["a", "b", "", r"\u00e4", "k 1"];
            let member = |key: &&str, rng: &mut _| format!("\"{key}\"{space}:{}", random_json(rng, depth - 1));
            let from = rng.random_range(0..keys.len());
            let count = rng.random_range(0..=keys.len() - from);
            let members: Vec<String> = keys[from..from + count].iter().map(|key| member(key, rng)).collect();
            format!("{{{space}{}}}", members.join(","))
        }
    }
}

#[test]
fn the_crate_agrees_on_json_with_single_keys() {
    use rand::SeedableRng;
    let (ours, theirs) = (session(DF), crate_session());
    let paths = [
        "",
        ", 'a'",
        ", 0",
        ", -1",
        ", 'a', 'b'",
        ", 'b', 1",
        ", 'a', -2",
        ", 'ä'",
        ", ''",
        ", 1, 'a'",
        ", 'k 1', 0, 'a'",
    ];
    let functions = [
        "json_as_text",
        "json_get_json",
        "json_get_str",
        "json_get_int",
        "json_get_float",
        "json_get_bool",
        "json_get_array",
        "json_object_keys",
        "json_contains",
        "json_length",
    ];
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    let texts: Vec<Option<String>> = (0..2000).map(|_| Some(random_json(&mut rng, 3))).collect();
    for path in paths {
        for function in functions {
            if path.is_empty() && function == "json_contains" {
                continue;
            }
            let call = format!("{function}(j{path})");
            let call = if function == "json_length" { format!("cast({call} as bigint)") } else { call };
            let query = format!("SELECT {call} FROM t");
            let (ours, theirs) = (over(&ours, &query, &texts).unwrap(), over(&theirs, &query, &texts).unwrap());
            for ((text, ours), theirs) in texts.iter().zip(&ours).zip(&theirs) {
                assert_eq!(ours, theirs, "{call} of {text:?}");
            }
        }
    }
}

/// (text, call over `j`, the crate's answer, ours).
const DIFFERENT: &[(Option<&str>, &str, &str, &str)] = &[
    // The first of two keys, where JSON sources and Postgres have the last.
    (Some(r#"{"a":1,"a":2}"#), "json_get_int(j, 'a')", "1", "2"),
    (Some(r#"{"a":{"b":1},"a":3}"#), "json_get_int(j, 'a', 'b')", "1", "NULL"),
    // What is cut off, or goes on: values of a record that a source sets aside as a bad one.
    (Some(r#"{"a":1,"b":"#), "json_get_int(j, 'a')", "1", "NULL"),
    (Some(r#"{"a":1} x"#), "json_as_text(j, 'a')", "1", "NULL"),
    (Some(r#"{"a":1}{"a":2}"#), "json_get_int(j, 'a')", "1", "NULL"),
    (Some(r#"[1, x"#), "json_get_int(j, 0)", "1", "NULL"),
    (Some(r#"{"a":"b","#), "json_contains(j, 'a')", "true", "false"),
    // NULL is not known to have no key.
    (None, "json_contains(j, 'a')", "false", "NULL"),
    // Whole numbers by way of doubles.
    (Some(r#"{"a":9007199254740993.0}"#), "json_get_int(j, 'a')", "9007199254740992", "9007199254740993"),
    // Unsigned lengths would be decimals in a table.
    (Some("[1]"), "arrow_typeof(json_length(j))", "UInt64", "Int64"),
];

#[test]
fn where_the_crate_is_not_used_it_is_for_a_reason() {
    let (ours, theirs) = (session(DF), crate_session());
    for (text, call, crates, own) in DIFFERENT {
        let (query, text) = (format!("SELECT {call} FROM t"), [text.map(String::from)]);
        assert_eq!(over(&theirs, &query, &text).unwrap(), [*crates], "the crate's {call} of {text:?}");
        assert_eq!(over(&ours, &query, &text).unwrap(), [*own], "{call} of {text:?}");
    }
    let columns =
        "SELECT json_get_int(j, k, l) FROM (SELECT j, left(j, 0) || 'a' AS k, left(j, 0) || 'b' AS l FROM t) v";
    let text = [Some(r#"{"a":{"b":7}}"#.to_string())];
    assert!(over(&theirs, columns, &text).unwrap_err().contains("More than 1 path element"));
    assert_eq!(over(&ours, columns, &text).unwrap(), ["7"]);
}

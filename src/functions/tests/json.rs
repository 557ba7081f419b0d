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

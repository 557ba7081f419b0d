//! What is good, what is bad, and that the decoder agrees with a slow reference on random records, whole and damaged.

mod random;
mod reference;

use arrow::array::{Array, AsArray, BinaryArray, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reference::{Dom, Rules, Val, value_at};
use std::sync::Arc;

use super::*;
use crate::decode::{DecodeOptions, Decoder};
use crate::types::{DecodedChunk, RawChunk, parse_sql_type};

fn chunk<T: AsRef<[u8]>>(values: &[Option<T>]) -> RawChunk {
    RawChunk {
        topic: "t".into(),
        partition: 0,
        file: None,
        values: values.iter().map(|v| v.as_ref().map(|v| v.as_ref())).collect(),
        keys: None,
        offsets: Int64Array::from_iter_values(0..values.len() as i64),
        timestamps: TimestampMicrosecondArray::from(vec![None; values.len()]),
        headers: None,
    }
}

fn options(columns: &[(&str, &str)]) -> DecodeOptions {
    let fields: Vec<Field> = columns.iter().map(|(n, t)| Field::new(*n, parse_sql_type(t).unwrap(), true)).collect();
    DecodeOptions::new(Arc::new(Schema::new(fields)))
}

fn decode(options: &DecodeOptions, values: &[&str]) -> DecodedChunk {
    let values: Vec<Option<&str>> = values.iter().map(|v| Some(*v)).collect();
    JsonDecoder::new(options).unwrap().decode(&chunk(&values)).unwrap()
}

/// The one value of column `x` of type `sql` in `{"x": json}`, or the reason.
fn one(sql: &str, json: &str) -> Result<Val, String> {
    let decoded = decode(&options(&[("x", sql)]), &[&format!("{{\"x\":{json}}}")]);
    match decoded.errors.first() {
        Some(error) => {
            assert_eq!(decoded.rows.num_rows(), 0);
            Err(error.reason.clone())
        }
        None => Ok(value_at(decoded.rows.column(0), 0)),
    }
}

fn text(s: &str) -> Val {
    Val::Text(s.into())
}

#[test]
fn values_that_fit() {
    let float = |x: f64| Val::Float(x.to_bits());
    let single = |x: f32| Val::Float(x.to_bits() as u64);
    let micros = |seconds: i64, micros: i64| Val::Int((seconds * 1_000_000 + micros) as i128);
    let cases: Vec<(&str, &str, Val)> = vec![
        ("STRING", r#""a""#, text("a")),
        ("STRING", r#""""#, text("")),
        ("STRING", r#""\"\\\/\b\f\n\r\t\u0041\u00e9\ud83d\ude00""#, text("\"\\/\u{8}\u{c}\n\r\tAé😀")),
        ("STRING", "\"ü\u{7f}\"", text("ü\u{7f}")),
        ("STRING", "null", Val::Null),
        ("BOOLEAN", "true", Val::Bool(true)),
        ("TINYINT", "-128", Val::Int(-128)),
        ("SMALLINT", "32767", Val::Int(32767)),
        ("INT", "-2147483648", Val::Int(-2147483648)),
        ("INT", "1.0", Val::Int(1)),
        ("INT", "1e2", Val::Int(100)),
        ("INT", "1200e-2", Val::Int(12)),
        ("INT", "\"120\"", Val::Int(120)),
        ("INT", "\"-007\"", Val::Int(-7)),
        ("INT", "-0", Val::Int(0)),
        ("BIGINT", "9223372036854775807", Val::Int(i64::MAX as i128)),
        ("BIGINT", "-9223372036854775808", Val::Int(i64::MIN as i128)),
        ("BIGINT", "9007199254740993", Val::Int(9007199254740993)),
        ("BIGINT", "92233720368547758070e-1", Val::Int(i64::MAX as i128)),
        ("DOUBLE", "0.1", float(0.1)),
        ("DOUBLE", "-0.0", float(-0.0)),
        ("DOUBLE", "1", float(1.0)),
        ("DOUBLE", "123456789012345678901234567890", float(123456789012345678901234567890.0)),
        ("DOUBLE", "2.2250738585072011e-308", float("2.2250738585072011e-308".parse().unwrap())),
        ("DOUBLE", "1e-999", float(0.0)),
        ("DOUBLE", "\"NaN\"", float(f64::NAN)),
        ("DOUBLE", "\"-Infinity\"", float(f64::NEG_INFINITY)),
        ("DOUBLE", "\"2.5\"", float(2.5)),
        ("FLOAT", "16777217", single(16777216.0)),
        ("FLOAT", "0.1", single(0.1)),
        ("FLOAT", "1.00000017881393432617187499", single(1.0000001)),
        ("DECIMAL(10,2)", "1.5", Val::Int(150)),
        ("DECIMAL(10,2)", "\"1.50\"", Val::Int(150)),
        ("DECIMAL(10,2)", "1.500000", Val::Int(150)),
        ("DECIMAL(10,2)", "-99999999.99", Val::Int(-9999999999)),
        ("DECIMAL(10,2)", "15e-1", Val::Int(150)),
        ("DECIMAL(10,2)", "0e9999999999", Val::Int(0)),
        ("DECIMAL(38,0)", "99999999999999999999999999999999999999", Val::Int(10i128.pow(38) - 1)),
        ("DECIMAL(38,38)", "0.00000000000000000000000000000000000001", Val::Int(1)),
        ("DECIMAL(38,10)", "1234567890123456789.0123456789", Val::Int(12345678901234567890123456789)),
        ("DATE", "\"1970-01-02\"", Val::Int(1)),
        ("DATE", "\"2000-02-29\"", Val::Int(11016)),
        ("DATE", "\"1969-12-31\"", Val::Int(-1)),
        ("DATE", "\"0000-03-01\"", Val::Int(-719468)),
        ("TIMESTAMP", "\"2026-01-07T14:05:12Z\"", micros(1767794712, 0)),
        ("TIMESTAMP", "\"2026-01-07 14:05:12\"", micros(1767794712, 0)),
        ("TIMESTAMP", "\"2026-01-07T16:05:12.123456789+02:00\"", micros(1767794712, 123456)),
        ("TIMESTAMP", "\"2026-01-07T14:05:12.5Z\"", micros(1767794712, 500000)),
        ("TIMESTAMP", "\"2026-01-07T14:05\"", micros(1767794700, 0)),
        ("TIMESTAMP", "\"2026-01-07\"", micros(1767744000, 0)),
        ("TIMESTAMP", "\"1969-12-31T23:59:59.9999999Z\"", Val::Int(-1)),
        ("TIMESTAMP_NTZ", "\"2026-01-07T14:05:12\"", micros(1767794712, 0)),
        ("BINARY", "\"aGVsbG8=\"", Val::Bytes(b"hello".to_vec())),
        ("BINARY", "\"_-8\"", Val::Bytes(vec![0xff, 0xef])),
        ("STRUCT<a: INT, b: STRING>", r#"{"b":"x","a":1}"#, Val::Row(vec![Val::Int(1), text("x")])),
        ("STRUCT<a: INT>", "{}", Val::Row(vec![Val::Null])),
        ("STRUCT<a: INT>", "null", Val::Null),
        ("ARRAY<INT>", "[1,null,2]", Val::List(vec![Val::Int(1), Val::Null, Val::Int(2)])),
        (
            "ARRAY<ARRAY<INT>>",
            "[ [ ] , null , [1] ]",
            Val::List(vec![Val::List(vec![]), Val::Null, Val::List(vec![Val::Int(1)])]),
        ),
        ("MAP<STRING, INT>", r#"{"a":1,"b":null}"#, Val::Map(vec![(text("a"), Val::Int(1)), (text("b"), Val::Null)])),
        (
            "MAP<STRING, INT>",
            r#"{"a":"bad","b":2,"a":1}"#,
            Val::Map(vec![(text("b"), Val::Int(2)), (text("a"), Val::Int(1))]),
        ),
        ("MAP<INT, INT>", r#"{"1":1,"01":2}"#, Val::Map(vec![(Val::Int(1), Val::Int(2))])),
    ];
    for (sql, json, value) in cases {
        assert_eq!(one(sql, json), Ok(value), "{json} as {sql}");
    }
}

#[test]
fn values_that_do_not_fit() {
    for (sql, json, reason) in [
        ("STRING", "1", "a number is no STRING"),
        ("STRING", "true", "a boolean is no STRING"),
        ("STRING", "{}", "an object is no STRING"),
        ("INT", "1.5", "1.5 is no INT: it has a fraction"),
        ("INT", "2147483648", "2147483648 does not fit INT"),
        ("TINYINT", "128", "does not fit TINYINT"),
        ("BIGINT", "9223372036854775808", "does not fit BIGINT"),
        ("BIGINT", "1e30", "does not fit BIGINT"),
        ("INT", "1e-1", "has a fraction"),
        ("INT", "true", "a boolean is no INT"),
        ("INT", "\"\"", "`` is no INT"),
        ("INT", "\" 1\"", "` 1` is no INT"),
        ("INT", "\"1x\"", "`1x` is no INT"),
        ("INT", "\"NaN\"", "`NaN` is no INT"),
        ("INT", "[1]", "an array is no INT"),
        ("DOUBLE", "1e999", "1e999 does not fit DOUBLE"),
        ("DOUBLE", "\"inf\"", "`inf` is no DOUBLE"),
        ("FLOAT", "1e39", "does not fit FLOAT"),
        ("DECIMAL(10,2)", "1.005", "1.005 has more than the 2 fractional digits of DECIMAL(10,2)"),
        ("DECIMAL(10,2)", "100000000", "does not fit DECIMAL(10,2)"),
        ("DECIMAL(10,2)", "\"1,5\"", "`1,5` is no DECIMAL(10,2)"),
        ("BOOLEAN", "1", "a number is no BOOLEAN"),
        ("BOOLEAN", "\"true\"", "text is no BOOLEAN"),
        ("DATE", "\"2026-02-30\"", "`2026-02-30` is no DATE"),
        ("DATE", "\"2026-1-1\"", "is no DATE"),
        ("DATE", "\"2026-01-07T00:00:00\"", "is no DATE"),
        ("DATE", "20260107", "a number is no DATE"),
        ("TIMESTAMP", "1767794712", "a number is no TIMESTAMP"),
        ("TIMESTAMP", "\"2026-01-07T25:00:00\"", "is no TIMESTAMP"),
        ("TIMESTAMP", "\"2026-01-07T14:05:12.1234567890\"", "is no TIMESTAMP"),
        ("TIMESTAMP", "\"07-01-2026 14:05:12\"", "is no TIMESTAMP"),
        ("TIMESTAMP_NTZ", "\"2026-01-07T14:05:12Z\"", "is no TIMESTAMP_NTZ"),
        ("BINARY", "\"a\"", "`a` is no base64"),
        ("BINARY", "\"aGVsbG9=\"", "is no base64"),
        ("STRUCT<a: INT>", "[]", "an array is no STRUCT"),
        ("STRUCT<a: INT>", "{\"a\":\"x\"}", "line 1 column 11: x.a: `x` is no INT"),
        ("ARRAY<INT>", "{}", "an object is no ARRAY"),
        ("ARRAY<INT>", "[1,\"x\"]", "line 1 column 9: x: `x` is no INT"),
        ("MAP<STRING, INT>", "[]", "an array is no MAP"),
        ("MAP<INT, INT>", "{\"x\":1}", "`x` is no INT"),
    ] {
        let found = one(sql, json);
        assert!(found.as_ref().is_err_and(|r| r.contains(reason)), "{json} as {sql}: {found:?}");
    }
}

#[test]
fn records_that_are_no_json() {
    let deep = |n: usize| format!("{{\"y\":{}{}}}", "[".repeat(n), "]".repeat(n));
    assert_eq!(decode(&options(&[("x", "INT")]), &[&deep(127)]).errors, vec![]);
    for (record, reason) in [
        ("", "line 1 column 1: the record is empty"),
        (" \n ", "line 2 column 2: the record is empty"),
        ("{", "line 1 column 2: the record ends where a key in double quotes should stand"),
        ("{\"x\"", "the record ends where `:` should stand"),
        ("{\"x\":", "the record ends where a value should stand"),
        ("{\"x\":1", "the record ends where `,` or `}` should stand"),
        ("{\"x\":1,", "the record ends where a key in double quotes should stand"),
        ("{\"x\":1,}", "line 1 column 8: expected a key in double quotes, found `}`"),
        ("{\"x\":1,,\"y\":2}", "line 1 column 8: expected a key in double quotes, found `,`"),
        ("{,\"x\":1}", "expected a key in double quotes, found `,`"),
        ("{\"x\":1 \"y\":2}", "line 1 column 8: expected `,` or `}`, found `\"`"),
        ("{\"x\":1}{\"x\":2}", "line 1 column 8: unexpected text after the end of the record"),
        ("{\"x\":1} x", "unexpected text after the end"),
        ("{\"x\":1}\u{feff}", "unexpected text after the end"),
        ("[{\"x\":1}]", "line 1 column 1: the record is no object"),
        ("1", "the record is no object"),
        ("null", "the record is no object"),
        ("nul", "expected a value"),
        ("{x:1}", "expected a key in double quotes, found `x`"),
        ("{'x':1}", "expected a key in double quotes, found `'`"),
        ("{\"x\":}", "line 1 column 6: expected a value, found `}`"),
        ("{\"x\":01}", "a number has no leading zeros"),
        ("{\"x\":+1}", "expected a value, found `+`"),
        ("{\"x\":.5}", "expected a value, found `.`"),
        ("{\"x\":5.}", "expected a digit after the point"),
        ("{\"x\":-}", "expected a digit"),
        ("{\"x\":1e}", "expected a digit in the exponent"),
        ("{\"x\":NaN}", "expected a value, found `N`"),
        ("{\"x\":True}", "expected a value, found `T`"),
        ("{\"x\":nulll}", "expected `,` or `}`, found `l`"),
        ("{\"x\":\"1}", "this string is never closed"),
        ("{\"x\":\"1\\", "this string is never closed"),
        ("{\"x\":\"\\x\"}", "unknown escape"),
        ("{\"x\":\"\\u12g4\"}", "four hexadecimal digits"),
        ("{\"x\":\"\\ud800\"}", "lone surrogate"),
        ("{\"x\":\"\\ud800\\u0041\"}", "lone surrogate"),
        ("{\"x\":\"\\udc00\"}", "lone surrogate"),
        ("{\"x\":\"a\nb\"}", "control character"),
        ("{\"unknown\":01}", "leading zeros"),
        ("{\"unknown\":{\"a\":[1,2}}", "expected `,` or `]`, found `}`"),
        ("{\"unknown\":\"\\ud800\"}", "lone surrogate"),
        ("{\"\\ud800\":1}", "lone surrogate"),
        ("{\"x\":1}\0", "unexpected text"),
        (&deep(128), "nested deeper than 128 levels"),
        (&deep(1_000_000), "nested deeper than 128 levels"),
        (&"{\"x\":".repeat(1_000_000), "an object is no INT"),
    ] {
        let shown: String = record.chars().take(60).collect();
        let decoded = decode(&options(&[("x", "INT")]), &["{\"x\":1}", record, "{\"x\":2}"]);
        let rows = decoded.rows.column(0).as_primitive::<arrow::datatypes::Int32Type>().values().to_vec();
        assert_eq!((rows, decoded.records.values().to_vec()), (vec![1, 2], vec![0, 2]), "{shown}");
        assert_eq!(decoded.errors.len(), 1, "{shown}");
        let found = &decoded.errors[0].reason;
        // Beyond what fits no column the grammar still counts.
        let expected = if record.len() > 4_000_000 { "nested deeper" } else { reason };
        assert!(found.contains(expected), "{shown}: {found}");
    }
}

#[test]
fn invalid_utf8_is_bad_also_where_the_neighbour_completes_it() {
    let records: [&[u8]; 5] =
        [b"{\"x\":\"a\"}", b"{\"x\":\"\xff\"}", b"{\"y\":\"\xc3\"}", b"{\"x\":\"b\"}\xc3", b"\xa9{\"x\":\"c\"}"];
    let mut decoder = JsonDecoder::new(&options(&[("x", "STRING")])).unwrap();
    let decoded = decoder.decode(&chunk(&records.map(Some))).unwrap();
    assert_eq!(decoded.records.values().to_vec(), vec![0]);
    assert_eq!(decoded.errors[0].reason, "line 1 column 7: invalid UTF-8");
    // These two alone are valid UTF-8 side by side.
    let decoded = decoder.decode(&chunk(&[Some(records[3]), Some(records[4])])).unwrap();
    assert_eq!(decoded.rows.num_rows(), 0);
}

#[test]
fn a_tombstone_is_a_bad_record() {
    let decoded =
        JsonDecoder::new(&options(&[("x", "INT")])).unwrap().decode(&chunk(&[None, Some("{\"x\":1}")])).unwrap();
    assert_eq!(decoded.errors, vec![crate::types::RecordError { record: 0, reason: "tombstone (null value)".into() }]);
    assert_eq!(decoded.records.values().to_vec(), vec![1]);
}

#[test]
fn keys_match_exactly_then_ignoring_case_and_the_last_wins() {
    let options = options(&[("callId", "INT"), ("straße", "INT")]);
    for (record, expected) in [
        (r#"{"callid":1}"#, Val::Int(1)),
        (r#"{"CALLID":1,"callId":2,"callid":3}"#, Val::Int(2)),
        (r#"{"callid":1,"CALLID":2}"#, Val::Int(2)),
        (r#"{"callId":1,"callId":2}"#, Val::Int(2)),
        (r#"{"callId":"bad","callId":2}"#, Val::Int(2)),
        (r#"{"callId":1,"callId":null}"#, Val::Null),
        (r#"{"call\u0049d":7}"#, Val::Int(7)),
        (r#"{"callId" : 8 , "unknown": {"callId":9}}"#, Val::Int(8)),
        (r#"{"STRASSE":1}"#, Val::Null),
    ] {
        // Twice each, since keys are learnt.
        let decoded = decode(&options, &[record, record]);
        assert_eq!(decoded.errors, vec![], "{record}");
        for row in 0..2 {
            assert_eq!(value_at(decoded.rows.column(0), row), expected, "{record}");
        }
    }
    assert_eq!(decode(&options, &[r#"{"callId":1,"callId":"bad"}"#]).errors.len(), 1);
    let decoded = decode(&options, &[r#"{"STRAßE":1}"#]);
    assert_eq!(value_at(decoded.rows.column(1), 0), Val::Int(1));
}

#[test]
fn declared_formats_and_iso_are_both_read() {
    let mut options = options(&[("t", "TIMESTAMP"), ("d", "DATE"), ("s", "STRUCT<t: TIMESTAMP>"), ("z", "TIMESTAMP")]);
    for (column, format) in
        [("t", "%d-%m-%Y %H:%M:%S"), ("d", "%d-%m-%Y"), ("s.t", "%d %b %Y"), ("z", "%Y/%m/%d %H:%M:%S%.f %z")]
    {
        options.formats.insert(column.into(), format.into());
    }
    let decoded = decode(
        &options,
        &[
            r#"{"t":"07-01-2026 14:05:12","d":"14-06-2025","s":{"t":"07 Jan 2026"},"z":"2026/01/07 16:05:12.5 +0200"}"#,
            r#"{"t":"2026-01-07T14:05:12Z","d":"2025-06-14","s":{"t":"2026-01-07"}}"#,
            r#"{"t":"7-1-2026 14:05:12"}"#,
            r#"{"t":"32-01-2026 14:05:12"}"#,
        ],
    );
    assert_eq!(decoded.records.values().to_vec(), vec![0, 1, 2]);
    assert_eq!(
        decoded.errors[0].reason,
        "line 1 column 6: t: `32-01-2026 14:05:12` is no TIMESTAMP (`%d-%m-%Y %H:%M:%S`, or ISO 8601)"
    );
    let column = |i: usize, row: usize| value_at(decoded.rows.column(i), row);
    for row in 0..3 {
        assert_eq!(column(0, row), Val::Int(1767794712000000));
    }
    assert_eq!((column(1, 0), column(1, 1)), (Val::Int(20253), Val::Int(20253)));
    assert_eq!(
        (column(2, 0), column(2, 1)),
        (Val::Row(vec![Val::Int(1767744000000000)]), Val::Row(vec![Val::Int(1767744000000000)]))
    );
    assert_eq!(column(3, 0), Val::Int(1767794712500000));
    options.formats.insert("t".into(), "%Q".into());
    assert!(JsonDecoder::new(&options).unwrap_err().message().contains("column `t`: `%Q` is no strftime format"));
}

#[test]
fn rescued_fields_are_kept_as_json() {
    let mut options = options(&[("a", "INT"), ("s", "STRUCT<b: INT, c: STRING>"), ("l", "ARRAY<STRUCT<d: INT>>")]);
    options.rescued = true;
    for (record, a, rescued) in [
        (r#"{"a":1,"s":{"b":2}}"#, Val::Int(1), None),
        (r#"{"a":"x"}"#, Val::Null, Some(r#"{"a":"x"}"#)),
        (r#"{"a":"x","a":2}"#, Val::Int(2), None),
        (r#"{"a":1,"new": [1, {"y":2}]}"#, Val::Int(1), Some(r#"{"new":[1, {"y":2}]}"#)),
        (r#"{"s":{"b":1.5,"c":"k","z":null},"a":3}"#, Val::Int(3), Some(r#"{"s":{"b":1.5,"z":null}}"#)),
        (r#"{"l":[{"d":1,"e":2}],"a":4}"#, Val::Int(4), Some(r#"{"l":[{"d":1,"e":2}]}"#)),
        (r#"{"l":7,"a":4}"#, Val::Int(4), Some(r#"{"l":7}"#)),
        (r#"{"u":1,"u":2,"a":4}"#, Val::Int(4), Some(r#"{"u":2}"#)),
    ] {
        let decoded = decode(&options, &[record]);
        assert_eq!(decoded.errors, vec![], "{record}");
        assert_eq!(value_at(decoded.rows.column(0), 0), a, "{record}");
        let found = decoded.rescued.unwrap();
        assert_eq!(found.is_valid(0).then(|| found.value(0)), rescued, "{record}");
    }
    let decoded = decode(&options, &[r#"{"a":"x""#, "{}"]);
    assert_eq!((decoded.errors.len(), decoded.rescued.unwrap().null_count()), (1, 1));
}

#[test]
fn from_json_gives_null_where_the_text_is_bad() {
    let DataType::Struct(fields) = parse_sql_type("STRUCT<a: INT, b: ARRAY<STRING>>").unwrap() else { panic!() };
    let texts = StringArray::from(vec![
        Some(r#"{"a":1,"b":["x"]}"#),
        None,
        Some("{"),
        Some(" {\"a\":2} "),
        Some(""),
        Some("[]"),
        Some("null"),
    ]);
    let (array, errors) = decode_texts(&texts, &fields).unwrap();
    let null: Vec<bool> = (0..7).map(|i| array.is_null(i)).collect();
    assert_eq!(null, [false, true, true, false, true, true, true]);
    assert_eq!(errors.iter().map(|e| e.record).collect::<Vec<_>>(), [2, 4, 5]);
    assert_eq!(value_at(&array, 0), Val::Row(vec![Val::Int(1), Val::List(vec![text("x")])]));
    let bytes = BinaryArray::from_vec(vec![b"[1,2]", b"[\xff]"]);
    let (array, errors) =
        FromJson::new(&parse_sql_type("ARRAY<INT>").unwrap(), &Default::default()).unwrap().decode(&bytes).unwrap();
    assert_eq!((value_at(&array, 0), errors.len()), (Val::List(vec![Val::Int(1), Val::Int(2)]), 1));
}

#[test]
fn objects_without_columns_still_count_rows() {
    let decoded = decode(&options(&[]), &["{}", "{\"a\":1}", "{"]);
    assert_eq!((decoded.rows.num_rows(), decoded.errors.len()), (2, 1));
}

/// One chunk of random records against the reference.
fn check(seed: u64, rescue: bool, damaged: bool) {
    let mut rng = StdRng::seed_from_u64(seed);
    let fields: Fields = random::schema(&mut rng);
    let mut options = DecodeOptions::new(Arc::new(Schema::new(fields.clone())));
    options.rescued = rescue;
    let mut decoder = JsonDecoder::new(&options).unwrap();
    // The decoder is used again: nothing may stay from one chunk to the next.
    for round in 0..3 {
        let records: Vec<Option<Vec<u8>>> = (0..rng.random_range(0..40))
            .map(|_| {
                let mut record = random::record(&mut rng, &fields);
                if damaged && rng.random() {
                    random::damage(&mut rng, &mut record);
                }
                rng.random_ratio(60, 61).then_some(record)
            })
            .collect();
        let decoded = decoder.decode(&chunk(&records)).unwrap();
        let mut row = 0;
        let mut bad = decoded.errors.iter().map(|e| (e.record, e.reason.as_str())).peekable();
        for (i, record) in records.iter().enumerate() {
            let shown = record.as_ref().map(|r| String::from_utf8_lossy(r).into_owned());
            let context = || format!("seed {seed} round {round} record {i} {shown:?} as {fields:?}");
            let mut rules = Rules { rescue, rescued: false };
            let expected = match record.as_deref().and_then(reference::parse) {
                Some(Dom::Object(members)) => rules.row(&fields, &members).ok(),
                _ => None,
            };
            let reason = bad.next_if(|(record, _)| *record == i as u32).map(|(_, reason)| reason);
            match (expected, reason) {
                (None, Some(_)) => {}
                (None, None) => panic!("should be bad: {}", context()),
                (Some(_), Some(reason)) => panic!("should be good, not {reason}: {}", context()),
                (Some(expected), None) => {
                    let found: Vec<Val> = decoded.rows.columns().iter().map(|c| value_at(c, row)).collect();
                    assert_eq!(found, expected, "{}", context());
                    assert_eq!(decoded.records.value(row), i as u32, "{}", context());
                    if let Some(rescued) = &decoded.rescued {
                        assert_eq!(rescued.is_valid(row), rules.rescued, "{}", context());
                        if rules.rescued {
                            let json = rescued.value(row).as_bytes();
                            assert!(matches!(reference::parse(json), Some(Dom::Object(_))), "{}", context());
                        }
                    }
                    row += 1;
                }
            }
        }
        assert_eq!((row, bad.next()), (decoded.rows.num_rows(), None), "seed {seed}");
        for column in decoded.rows.columns() {
            column.to_data().validate_full().unwrap();
        }
    }
}

#[test]
fn random_records_agree_with_the_reference() {
    for seed in 0..600 {
        check(seed, seed % 2 == 1, false);
    }
}

#[test]
fn damaged_records_agree_with_the_reference() {
    for seed in 1000..1900 {
        check(seed, seed % 3 == 1, true);
    }
}

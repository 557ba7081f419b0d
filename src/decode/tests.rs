//! CSV, Debezium and raw.

use arrow::array::{Array, BinaryArray, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::sync::Arc;

use super::csv::{parse_header, split_records};
use super::*;
use crate::types::{DecodedChunk, RawChunk, parse_sql_type};

fn options(columns: &[(&str, &str)]) -> DecodeOptions {
    let fields: Vec<Field> = columns.iter().map(|(n, t)| Field::new(*n, parse_sql_type(t).unwrap(), true)).collect();
    DecodeOptions::new(Arc::new(Schema::new(fields)))
}

/// (key, value) pairs as a chunk.
fn chunk(records: &[(Option<&str>, Option<&str>)]) -> RawChunk {
    RawChunk {
        topic: "t".into(),
        partition: 0,
        file: None,
        values: records.iter().map(|(_, v)| *v).collect(),
        keys: Some(BinaryArray::from_iter(records.iter().map(|(k, _)| *k))),
        offsets: Int64Array::from_iter_values(0..records.len() as i64),
        timestamps: TimestampMicrosecondArray::from(vec![None; records.len()]),
        headers: None,
    }
}

fn values(records: &[&str]) -> RawChunk {
    chunk(&records.iter().map(|v| (None, Some(*v))).collect::<Vec<_>>())
}

/// `record: [weight] value|value`, then `record: ! reason`.
fn show(decoded: &DecodedChunk) -> Vec<String> {
    let display = FormatOptions::default().with_null("NULL");
    let columns: Vec<ArrayFormatter> =
        decoded.rows.columns().iter().map(|c| ArrayFormatter::try_new(c, &display).unwrap()).collect();
    let mut lines = Vec::new();
    for row in 0..decoded.rows.num_rows() {
        let cells: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
        let weight = decoded.weights.as_ref().map_or(String::new(), |w| format!("{:+} ", w.value(row)));
        lines.push(format!("{}: {weight}{}", decoded.records.value(row), cells.join("|")));
    }
    lines.extend(decoded.errors.iter().map(|e| format!("{}: ! {}", e.record, e.reason)));
    lines
}

#[test]
fn csv_reads_by_header_and_keeps_quotes_apart_from_nulls() {
    let mut options = options(&[("id", "INT"), ("name", "STRING"), ("tags", "ARRAY<STRING>"), ("ok", "BOOLEAN")]);
    options.csv.header = Some(parse_header("\u{feff}Name,extra,ID,tags".as_bytes(), &options.csv).unwrap());
    let mut decoder = decoder(DecodeFormat::Csv, &options).unwrap();
    let decoded = decoder
        .decode(&values(&[
            "Salma,,1,\"[\"\"a\"\",null]\"",
            "\"Refaat, \"\"S\"\"\nline two\",x,007,",
            "\"\",,,",
            "a,b",
            "a,b,x,",
            "a,b,1,[",
            "a\"b,,1,",
            "\"a,,1,",
            "\"a\"b,,1,",
            "über,,3,\r\n",
        ]))
        .unwrap();
    assert_eq!(
        show(&decoded),
        [
            "0: 1|Salma|[a, NULL]|NULL",
            "1: 7|Refaat, \"S\"\nline two|NULL|NULL",
            "2: NULL||NULL|NULL",
            "9: 3|über|NULL|NULL",
            "3: ! line 1 column 1: 2 cells, but 4 columns",
            "4: ! line 1 column 5: ID: `x` is no INT",
            "5: ! line 1 column 7: tags: line 1 column 2: the record ends where a value should stand",
            "6: ! line 1 column 2: a quote inside a cell without quotes",
            "7: ! line 1 column 1: this quote is never closed",
            "8: ! line 1 column 4: unexpected text after a closing quote",
        ]
    );
}

#[test]
fn csv_without_header_goes_by_position_and_rescues() {
    let mut options = options(&[("a", "DECIMAL(5,2)"), ("t", "TIMESTAMP")]);
    options.csv.delimiter = b';';
    options.csv.null = Some("\\N".into());
    options.rescued = true;
    options.formats.insert("t".into(), "%d/%m/%Y".into());
    let decoded =
        decoder(DecodeFormat::Csv, &options).unwrap().decode(&values(&["1.5;07/01/2026", "\\N;x\"", "y;"])).unwrap();
    assert_eq!(
        show(&decoded),
        ["0: 1.50|2026-01-07T00:00:00Z", "2: NULL|NULL", "1: ! line 1 column 5: a quote inside a cell without quotes"]
    );
    let rescued = decoded.rescued.unwrap();
    assert_eq!((rescued.is_null(0), rescued.value(1)), (true, r#"{"a":"y"}"#));
}

#[test]
fn csv_bad_utf8_does_not_hide_between_neighbours() {
    let mut chunk = values(&["x", "y"]);
    chunk.values = BinaryArray::from_vec(vec![b"a\xc3", b"\xa9b"]).into();
    let decoded = decoder(DecodeFormat::Csv, &options(&[("a", "STRING")])).unwrap().decode(&chunk).unwrap();
    assert_eq!(show(&decoded), ["0: ! line 1 column 2: invalid UTF-8", "1: ! line 1 column 1: invalid UTF-8"]);
}

#[test]
fn csv_files_split_into_records() {
    let content = b"a,b\r\n\"x\ny\",1\n\n  \n\"q\"\"\n\",2\nlast";
    let records: Vec<&[u8]> = split_records(content, &CsvOptions::default()).into_iter().map(|r| &content[r]).collect();
    assert_eq!(records, [&b"a,b"[..], b"\"x\ny\",1", b"\"q\"\"\n\",2", b"last"]);
    assert!(split_records(b"", &CsvOptions::default()).is_empty());
    assert!(parse_header(b"a,b,a", &CsvOptions::default()).unwrap_err().message().contains("`a` stands twice"));
}

#[test]
fn debezium_without_key_gives_signed_rows() {
    let mut decoder = decoder(DecodeFormat::DebeziumJson, &options(&[("id", "INT"), ("v", "STRING")])).unwrap();
    let decoded = decoder
        .decode(&chunk(&[
            (None, Some(r#"{"before":null,"after":{"id":1,"v":"a"},"op":"c","ts_ms":1}"#)),
            (None, Some(r#"{"schema":{"type":"struct"},"payload":{"op":"u","before":{"id":1,"v":"a"},"after":{"id":1,"v":"b"}}}"#)),
            (None, Some(r#"{"before":{"id":1,"v":"b"},"after":null,"op":"d"}"#)),
            (Some("{\"id\":1}"), None),
            (None, Some(r#"{"after":{"id":2},"op":"r"}"#)),
            (None, Some(r#"{"before":null,"after":{"id":1},"op":"u"}"#)),
            (None, Some(r#"{"before":{"id":2},"after":{"id":"x"},"op":"u"}"#)),
            (None, Some(r#"{"before":null,"op":"d"}"#)),
            (None, Some(r#"{"after":{"id":1}}"#)),
            (None, Some(r#"{"after":{"id":1},"op":"x"}"#)),
            (None, Some(r#"{"after":{"id":1},"op":"c"}}"#)),
            (None, Some(r#"{"after":[],"op":"c"}"#)),
            (None, Some(r#"{"schema":null,"payload":null}"#)),
            (None, Some(r#"{"op":"m","message":{}}"#)),
            (None, Some(r#"{"op":"t"}"#)),
            (None, Some("[]")),
            (None, Some(r#"{"after":{"id":3},"op":"c"}"#)),
        ]))
        .unwrap();
    assert_eq!(
        show(&decoded),
        [
            "0: +1 1|a",
            "1: -1 1|a",
            "1: +1 1|b",
            "2: -1 1|b",
            "4: +1 2|NULL",
            "16: +1 3|NULL",
            "5: ! line 1 column 38: an update has no `before`: declare a primary_key, or have the database log whole rows",
            "6: ! line 1 column 34: id: `x` is no INT",
            "7: ! line 1 column 21: a delete has no `before`: declare a primary_key, or have the database log whole rows",
            "8: ! line 1 column 1: no change event: `op` is missing",
            "9: ! line 1 column 24: op is none of c, r, u, d",
            "10: ! line 1 column 28: unexpected text after the end of the record",
            "11: ! line 1 column 10: `before` and `after` are objects",
            "14: ! line 1 column 7: the table was truncated (op t): no single row says so; reload the source",
            "15: ! line 1 column 1: the record is no object",
        ]
    );
}

#[test]
fn debezium_with_key_gives_upserts_and_deletes() {
    let mut keyed = options(&[("id", "INT"), ("v", "STRING")]);
    keyed.primary_key = vec!["ID".into()];
    keyed.rescued = true;
    let mut decoder = decoder(DecodeFormat::DebeziumJson, &keyed).unwrap();
    let decoded = decoder
        .decode(&chunk(&[
            (None, Some(r#"{"before":null,"after":{"id":1,"v":"a"},"op":"c"}"#)),
            (None, Some(r#"{"before":null,"after":{"id":1,"v":"b","w":1},"op":"u"}"#)),
            (None, Some(r#"{"before":{"id":1,"v":"b"},"after":null,"op":"d"}"#)),
            (Some("{\"schema\":{},\"payload\":{\"id\":2}}"), Some(r#"{"before":null,"op":"d"}"#)),
            (Some("{\"id\":3}"), None),
            (Some("4"), None),
            (None, None),
            (Some("{\"id\":5}"), Some(r#"{"payload":null}"#)),
            (Some("{\"other\":5}"), None),
            (Some("{\"id\":"), None),
            (None, Some(r#"{"op":"d"}"#)),
            (None, Some(r#"{"after":{"v":"x"},"op":"c"}"#)),
            (Some("{\"id\":6}"), Some(r#"{"before":{"v":"y"},"op":"d"}"#)),
        ]))
        .unwrap();
    assert_eq!(
        show(&decoded),
        [
            "0: +1 1|a",
            "1: +1 1|b",
            "2: -1 1|b",
            "3: -1 2|NULL",
            "4: -1 3|NULL",
            "5: -1 4|NULL",
            "7: -1 5|NULL",
            "12: -1 6|NULL",
            "8: ! line 1 column 1: record key, character 1: the primary key's column `id` is NULL",
            "9: ! line 1 column 1: record key, character 7: the record ends where a value should stand",
            "10: ! line 1 column 7: a delete has neither `before` nor a record key",
            "11: ! line 1 column 10: the primary key's column `id` is NULL",
        ]
    );
    let rescued = decoded.rescued.unwrap();
    assert_eq!((rescued.len(), rescued.null_count(), rescued.value(1)), (8, 7, r#"{"w":1}"#));
    keyed.primary_key = vec!["idd".into()];
    let error = super::decoder(DecodeFormat::DebeziumJson, &keyed).err().unwrap();
    assert_eq!(error.hint(), Some("did you mean `id`?"));
}

#[test]
fn raw_never_fails() {
    let decoded =
        decoder(DecodeFormat::Raw, &options(&[])).unwrap().decode(&chunk(&[(None, None), (None, Some("{"))])).unwrap();
    assert_eq!((decoded.rows.num_rows(), decoded.errors.len(), decoded.records.len()), (2, 0, 2));
}

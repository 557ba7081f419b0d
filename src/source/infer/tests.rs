//! What is printed loads as a project's sources, and reads every sample it was made from.

use arrow::array::{Array, BinaryArray, Int64Array, TimestampMicrosecondArray};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::sync::Arc;

use super::sample::{Content, Origin, Record, Sample};
use super::*;
use crate::kafka::{EmbeddedBroker, Producer};
use crate::project::{LoadOptions, SourceTable, load};
use crate::source::assemble::Assembler;
use crate::types::RawChunk;

fn request(location: &str) -> Request {
    Request {
        location: location.to_string(),
        records: 1000,
        name: None,
        format: None,
        connection: None,
        dir: PathBuf::from("/nowhere"),
    }
}

fn records(lines: &[&str]) -> Vec<Record> {
    lines.iter().map(|line| Record { key: None, value: Some(line.as_bytes().to_vec()) }).collect()
}

fn printed(records: &[Record]) -> Result<String> {
    let origin = Origin::Files { path: "data/orders.json".to_string() };
    let sample = Sample { origin, content: Content::Records(records.to_vec()) };
    Ok(yaml::print(&describe::describe(&sample, &request("data/orders.json"))?))
}

/// The columns that are printed for these records.
fn columns(lines: &[&str]) -> Vec<String> {
    let text = printed(&records(lines)).unwrap();
    let rows = text.split("columns:\n").nth(1).unwrap().lines();
    rows.map(|row| row.trim().trim_start_matches("- ").to_string()).collect()
}

/// The source table of a project with this properties file.
#[track_caller]
fn loaded(yaml: &str) -> SourceTable {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("smelt.yml"), "name: p\ntarget: dev\ntargets: {dev: {lake: ./lake}}\n").unwrap();
    std::fs::create_dir(dir.path().join("models")).unwrap();
    std::fs::write(dir.path().join("models/x.yml"), yaml).unwrap();
    let options = LoadOptions { dir: dir.path().to_path_buf(), ..LoadOptions::default() };
    let project = load(&options, &Env::real()).unwrap_or_else(|errors| panic!("{errors:?}\n{yaml}"));
    let table = project.sources.into_iter().next().unwrap();
    Arc::unwrap_or_clone(table)
}

/// Rows and reasons that the printed source makes of the records.
fn read(yaml: &str, records: &[Record]) -> (usize, Vec<String>) {
    let chunk = RawChunk {
        topic: "t".into(),
        partition: 0,
        file: None,
        values: records.iter().map(|r| r.value.as_deref()).collect(),
        keys: Some(records.iter().map(|r| r.key.as_deref()).collect::<BinaryArray>()),
        offsets: Int64Array::from_iter_values(0..records.len() as i64),
        timestamps: TimestampMicrosecondArray::from(vec![None; records.len()]),
        headers: None,
    };
    let assembled = Assembler::new(Arc::new(loaded(yaml))).unwrap().assemble(&chunk, 0).unwrap();
    let reasons = assembled.rejects.map_or_else(Vec::new, |(rows, _)| {
        let reasons = rows.column_by_name("reason").unwrap();
        (0..reasons.len()).map(|i| arrow::util::display::array_value_to_string(reasons, i).unwrap()).collect()
    });
    (assembled.rows.num_rows(), reasons)
}

#[test]
fn a_record_of_the_sample() {
    let text = printed(&records(&[
        r#"{"sid": "CA1", "from": {"number": "+2010", "imei": null}, "tags": ["a"], "duration": 12, "cost": 1.25, "at": "2026-01-05T08:00:00Z", "day": "2026-01-05", "ok": true}"#,
        r#"{"sid": "CA2", "from": {"number": "+2011", "imei": "35"}, "duration": 9007199254740993, "cost": 3, "at": "2026-01-05T08:00:01.5+02:00", "day": "2026-01-06"}"#,
    ]))
    .unwrap();
    assert_eq!(
        text,
        "# From 2 records of data/orders.json\n\
         version: 2\n\
         sources:\n\
         \x20 - name: files\n\
         \x20   tables:\n\
         \x20     - name: orders\n\
         \x20       config:\n\
         \x20         connector: files\n\
         \x20         path: \"data/orders.json\"\n\
         \x20         format: json\n\
         \x20       columns:\n\
         \x20         - {name: sid, data_type: STRING}\n\
         \x20         - {name: from, data_type: \"STRUCT<number: STRING, imei: STRING>\"}\n\
         \x20         - {name: tags, data_type: \"ARRAY<STRING>\"}  # null or absent in 1 of 2\n\
         \x20         - {name: duration, data_type: BIGINT}\n\
         \x20         - {name: cost, data_type: \"DECIMAL(18,2)\"}  # at most 2 digits after the point in the samples; DOUBLE if there can be more\n\
         \x20         - {name: at, data_type: TIMESTAMP}\n\
         \x20         - {name: day, data_type: DATE}\n\
         \x20         - {name: ok, data_type: BOOLEAN}  # null or absent in 1 of 2\n"
    );
}

#[test]
fn types_hold_every_value_seen() {
    for (values, expected) in [
        (&["1", "-7"][..], "BIGINT"),
        (&["1", "9223372036854775808"], "\"DECIMAL(38,0)\""),
        (&["1", "1.5"], "\"DECIMAL(18,2)\""),
        (&["1.12345"], "DOUBLE"),
        (&["1e3", "2"], "DOUBLE"),
        (&["1", "\"2\""], "BIGINT"),
        (&["\"12.50\"", "\"7.25\""], "\"DECIMAL(18,2)\""),
        (&["\"1.2\"", "\"1.10\""], "STRING"),
        (&["\"007\"", "\"12\""], "STRING"),
        (&["\"2026-01-05\"", "\"2026-01-05T08:00\""], "TIMESTAMP"),
        (&["\"2026-01-05\"", "\"soon\""], "STRING"),
        (&["\"2026-02-30\""], "STRING"),
        (&["\"13-01-2026 08:00:00\"", "\"05-01-2026 09:00:00\""], "TIMESTAMP, format: \"%d-%m-%Y %H:%M:%S\""),
        (&["\"01-13-2026\""], "DATE, format: \"%m-%d-%Y\""),
        (&["\"05-01-2026\""], "STRING"),
        (&["[1]", "[]"], "\"ARRAY<BIGINT>\""),
        (&["[{\"a\": 1}, {\"b\": \"x\"}]"], "\"ARRAY<STRUCT<a: BIGINT, b: STRING>>\""),
        (&["{}"], "\"MAP<STRING, STRING>\""),
        (&["null"], "STRING"),
        (&["{\"a b\": {\"c`d\": true}}"], "\"STRUCT<`a b`: STRUCT<`c``d`: BOOLEAN>>\""),
    ] {
        let lines: Vec<String> = values.iter().map(|v| format!("{{\"x\": {v}}}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let shown = columns(&lines);
        assert!(shown[0].starts_with(&format!("{{name: x, data_type: {expected}}}")), "{values:?}: {shown:?}");
        let text = printed(&records(&lines)).unwrap();
        assert_eq!(read(&text, &records(&lines)), (lines.len(), vec![]), "{text}");
    }
}

#[test]
fn values_without_a_common_type_are_rescued() {
    let lines = [r#"{"x": "a"}"#, r#"{"x": 1}"#, r#"{"x": {"y": [true]}}"#];
    let text = printed(&records(&lines)).unwrap();
    assert!(text.contains("          rescued_data: _rescued\n"), "{text}");
    assert!(
        text.contains("# numbers and texts and objects in the samples; what is no text goes to rescued data"),
        "{text}"
    );
    assert_eq!(read(&text, &records(&lines)), (3, vec![]));
}

#[test]
fn objects_with_ever_new_keys_are_maps() {
    let lines: Vec<String> = (0..80).map(|i| format!("{{\"by_user\": {{\"u{i}\": {i}}}}}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(columns(&lines), ["{name: by_user, data_type: \"MAP<STRING, BIGINT>\"}"]);
}

#[test]
fn what_would_be_a_dead_letter_is_said() {
    let lines = [r#"{"x": 1}"#, "{\"x\": 1,, }", "[1]"];
    let text = printed(&records(&lines)).unwrap();
    assert!(
        text.contains("# From 3 records of data/orders.json\n# 2 of them would become dead letters: line 1 column 9:"),
        "{text}"
    );
    assert_eq!(read(&text, &records(&lines)).0, 1);
    let error = printed(&records(&["[", "{\"x\": 1},", "]"])).unwrap_err();
    assert_eq!(error.code(), "no-json");
    assert!(error.hint().unwrap().contains("one object per line"), "{error:?}");
}

#[test]
fn change_events_are_recognised_with_their_key() {
    let event = |op: &str, before: &str, after: &str| {
        format!("{{\"before\": {before}, \"after\": {after}, \"op\": \"{op}\", \"ts_ms\": 1}}")
    };
    let (one, two) = ("{\"id\": 1, \"city\": \"Cairo\"}", "{\"id\": 1, \"city\": \"Giza\"}");
    let events = [event("c", "null", one), event("u", "null", two), event("d", "null", "null")];
    let lines: Vec<&str> = events.iter().map(String::as_str).collect();
    let mut keyed = records(&lines);
    for record in &mut keyed {
        record.key = Some(b"{\"payload\": {\"ID\": 1}}".to_vec());
    }
    keyed.push(Record { key: Some(b"{\"id\": 1}".to_vec()), value: None });
    let text = printed(&keyed).unwrap();
    assert!(text.contains("format: debezium-json\n          primary_key: [id]\n"), "{text}");
    assert!(text.contains("- {name: city, data_type: STRING}"), "{text}");
    assert_eq!(read(&text, &keyed), (4, vec![]));
    // Wrapped in Connect's schema, without keys, with whole rows before.
    let wrapped = format!("{{\"schema\": {{}}, \"payload\": {}}}", event("u", one, two).replace("id", "nr"));
    let text = printed(&records(&[&wrapped])).unwrap();
    assert!(
        text.contains("format: debezium-json\n        columns:\n          - {name: nr, data_type: BIGINT}"),
        "{text}"
    );
    assert_eq!(read(&text, &records(&[&wrapped])), (2, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_files_give_names_delimiter_and_types() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "a.csv",
        "id;name;phone;amount;since;active\n1;\"x;\ny\";0100;1.50;2026-01-05;true\n2;;0101;2;2026-01-06;FALSE\n",
    );
    let ask = |name: &str| Request { dir: dir.path().to_path_buf(), ..request(name) };
    let text = infer(&ask("a.csv"), &Env::real()).await.unwrap();
    assert!(text.contains("path: \"a.csv\"\n          format: csv\n          options: {delimiter: \";\"}\n"), "{text}");
    for column in [
        "{name: id, data_type: BIGINT}",
        "{name: name, data_type: STRING}  # null or absent in 1 of 2",
        "{name: phone, data_type: STRING}",
        "{name: amount, data_type: \"DECIMAL(18,2)\"}",
        "{name: since, data_type: DATE}",
        "{name: active, data_type: BOOLEAN}",
    ] {
        assert!(text.contains(column), "{column}:\n{text}");
    }
    write("b.csv", "1,2026-01-05\n2,x\n");
    let text = infer(&ask("b.csv"), &Env::real()).await.unwrap();
    assert!(text.contains("options: {header: false}\n"), "{text}");
    assert!(text.contains("{name: c1, data_type: BIGINT}\n          - {name: c2, data_type: STRING}"), "{text}");
    write("c.csv.gz", "?");
    assert_eq!(infer(&ask("c.csv.gz"), &Env::real()).await.unwrap_err().code(), "compressed");
    assert_eq!(infer(&ask("*.json"), &Env::real()).await.unwrap_err().code(), "no-samples");
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_files_say_their_columns() {
    use arrow::array::{ArrayRef, DictionaryArray, StringArray, UInt32Array};
    use arrow::datatypes::Int32Type;
    let dir = tempfile::tempdir().unwrap();
    let names: DictionaryArray<Int32Type> = vec!["a", "b"].into_iter().collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(UInt32Array::from(vec![1, u32::MAX]))),
        ("name", Arc::new(names)),
        ("note", Arc::new(StringArray::from(vec![None, Some("x")]))),
    ];
    let batch = arrow::array::RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(dir.path().join("part-0.parquet")).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let ask = Request { dir: dir.path().to_path_buf(), name: Some("lab.parts".into()), ..request("*.parquet") };
    let text = infer(&ask, &Env::real()).await.unwrap();
    assert!(text.contains("- name: lab\n    tables:\n      - name: parts\n"), "{text}");
    assert!(text.contains("{name: \"n\", data_type: BIGINT}  # never null, the file says\n"), "{text}");
    assert!(text.contains("{name: note, data_type: STRING}\n"), "{text}");
    assert!(loaded(&text).format == Format::Parquet);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_gives_its_records_and_keys() {
    let broker = EmbeddedBroker::start(&[("shop.orders", 2)]).unwrap();
    let mut producer = Producer::new(broker.bootstrap_servers()).unwrap();
    for i in 0..50 {
        let (key, value) = (format!("o{i}"), format!("{{\"id\": \"o{i}\", \"n\": {i}}}"));
        let record = crate::kafka::Record {
            topic: "shop.orders",
            partition: i % 2,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            timestamp_millis: Some(5),
        };
        producer.send(record).await.unwrap();
    }
    producer.flush().await.unwrap();
    let url = format!("kafka://{}/shop.orders", broker.bootstrap_servers());
    let text = infer(&request(&url), &Env::real()).await.unwrap();
    assert!(
        text.contains(&format!(
            "properties: {{bootstrap.servers: \"{}\"}}\n          topic: \"shop.orders\"\n",
            broker.bootstrap_servers()
        )),
        "{text}"
    );
    assert!(text.contains("# From 50 records") && text.contains("# The record's key is its `id`\n"), "{text}");
    assert_eq!(loaded(&text).name, "shop_orders");
    let properties = BTreeMap::from([("bootstrap.servers".to_string(), broker.bootstrap_servers().to_string())]);
    let named =
        Request { connection: Some(("telco".into(), properties)), records: 10, ..request("kafka:///shop.orders") };
    let text = infer(&named, &Env::real()).await.unwrap();
    assert!(text.contains("# From 10 records") && text.contains("- name: telco\n"), "{text}");
    assert!(text.contains("connection: telco\n          topic: \"shop.orders\"\n"), "{text}");
    let missing = infer(&request(&url.replace("orders", "order")), &Env::real()).await.unwrap_err();
    assert_eq!((missing.code(), missing.hint()), ("unknown-topic", Some("did you mean `shop.orders`?")));
    assert_eq!(infer(&request("kafka://localhost:9092"), &Env::real()).await.unwrap_err().code(), "bad-location");
}

/// Random JSON of a few kinds per field: some fields have one type, others several.
struct Source {
    rng: ChaCha8Rng,
}

const NAMES: [&str; 20] = [
    "id",
    "ID",
    "from",
    "a b",
    "we\"ird",
    "ключ",
    "Ключ",
    "x.y",
    "select",
    "yes",
    "null",
    "{{ x }}",
    "",
    "_rescued",
    "c`d",
    "#no",
    "tab\there",
    "\u{feff}bom",
    "1st",
    "- dash",
];

impl Source {
    fn pick<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.rng.random_range(0..of.len())]
    }

    fn scalar(&mut self, kind: usize) -> String {
        match kind {
            0 => "null".into(),
            1 => self.pick(&["true", "false"]).into(),
            2 => self.rng.random_range(-5i64..1000).to_string(),
            3 => self
                .pick(&[
                    "9223372036854775807",
                    "-9223372036854775808",
                    "9223372036854775808",
                    "123456789012345678901234567890",
                ])
                .into(),
            4 => self.pick(&["0.5", "12.50", "-3.1415926535", "1.0", "99999999999999999.99", "0.0001"]).into(),
            5 => {
                self.pick(&["1e3", "1E-7", "-2.5e+10", "1e400", "123456789012345678901234567890123456789012345"]).into()
            }
            6 => self.pick(&["\"2026-01-05\"", "\"1999-12-31\""]).into(),
            7 => self
                .pick(&["\"2026-01-05T08:00:00Z\"", "\"2026-01-05 08:00\"", "\"2026-01-05T08:00:00.123456789+02:00\""])
                .into(),
            8 => self.pick(&["\"12.50\"", "\"0.25\"", "\"-7.10\"", "\"1234567890123456789.00\""]).into(),
            9 => self.pick(&["\"13/01/2026\"", "\"05/01/2026\"", "\"20260105080000\""]).into(),
            10 => self
                .pick(&[
                    "\"\"",
                    "\"x\"",
                    "\"007\"",
                    "\"NaN\"",
                    "\"true\"",
                    "\"\\u0000\\n\"",
                    "\"{{ jinja }}\"",
                    "\"٣\"",
                ])
                .into(),
            _ => self.pick(&["1767600000000", "1767600000000000", "\"17\"", "\"+5\""]).into(),
        }
    }

    fn value(&mut self, kinds: &[usize], depth: usize) -> String {
        let kind = kinds[self.rng.random_range(0..kinds.len())];
        match kind {
            0..12 => self.scalar(kind),
            12 if depth < 4 => {
                let count = self.rng.random_range(0..4);
                let items: Vec<String> = (0..count).map(|_| self.value(&[kinds[0], 2], depth + 1)).collect();
                format!("[{}]", items.join(", "))
            }
            13 if depth < 4 => self.object(&[kinds[0], 10], depth + 1),
            _ => "[]".into(),
        }
    }

    fn object(&mut self, kinds: &[usize], depth: usize) -> String {
        let count = self.rng.random_range(0..5);
        let members: Vec<String> = (0..count)
            .map(|_| {
                let name = serde_json::Value::from(NAMES[self.rng.random_range(0..NAMES.len())]);
                format!("{name}: {}", self.value(kinds, depth))
            })
            .collect();
        format!("{{{}}}", members.join(","))
    }
}

#[test]
fn whatever_json_is_sampled_the_printed_source_reads_it() {
    for seed in 0..40 {
        let mut source = Source { rng: ChaCha8Rng::seed_from_u64(seed) };
        let count = source.rng.random_range(1..7);
        let fields: Vec<(&str, Vec<usize>)> = (0..count)
            .map(|_| {
                let name = NAMES[source.rng.random_range(0..NAMES.len())];
                let kinds = source.rng.random_range(1..4);
                (name, (0..kinds).map(|_| source.rng.random_range(0..14)).collect())
            })
            .collect();
        let rows = source.rng.random_range(1..20);
        let lines: Vec<String> = (0..rows)
            .map(|_| {
                let mut members = vec!["\"always\": 1".to_string()];
                for (name, kinds) in &fields {
                    if source.rng.random_bool(0.8) {
                        members.push(format!("{}: {}", serde_json::Value::from(*name), source.value(kinds, 0)));
                    }
                }
                format!("{{{}}}", members.join(", "))
            })
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let text = printed(&records(&lines)).unwrap();
        assert!(!text.contains("dead letter"), "seed {seed}:\n{text}\n{}", lines.join("\n"));
        assert_eq!(read(&text, &records(&lines)), (lines.len(), vec![]), "seed {seed}:\n{text}\n{}", lines.join("\n"));
    }
}

#[test]
fn paths_name_the_table() {
    for (path, name) in [
        ("data/orders.json", "orders"),
        ("data/orders-*.json", "orders"),
        ("s3://bucket/calls/*.json", "calls"),
        ("in/2026-01.csv", "t_2026_01"),
        ("in/", "in"),
    ] {
        let sample =
            Sample { origin: Origin::Files { path: path.into() }, content: Content::Records(records(&["{\"x\":1}"])) };
        assert_eq!(describe::describe(&sample, &request(path)).unwrap().table, name, "{path}");
        assert!(!Path::new(path).is_absolute());
    }
}

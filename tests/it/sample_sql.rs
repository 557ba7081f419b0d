//! The sample project's SQL, run by stock DataFusion over the generator's records, gives what the generator counted.
//!
//! No part of smelt's engine takes part: this checks the SQL and the manifest against each other, so that a difference
//! in the end-to-end tests is the engine's. Decoding is arrow-json's, Jinja has `ref`, `source`, `config` and the project's macros, and
//! each model's result is the next one's table.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, Int32Array, Int64Array, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{cast, concat, concat_batches};
use arrow::datatypes::{
    DataType, Date32Type, Field, Fields, Float64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::{SessionConfig, SessionContext};
use smelt::source::datagen::telecom::{Manifest, Options, TableDigest, TableManifest, Telecom, reference_files};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MODELS: [(&str, &str); 18] = [
    ("queries/silver/staging", "stg_call_events"),
    ("queries/silver/staging", "stg_sms_events"),
    ("queries/silver", "silver_call_events"),
    ("queries/silver", "silver_sms_events"),
    ("queries/silver", "silver_quarantine"),
    ("queries/silver", "silver_event_users"),
    ("queries/silver", "silver_cell_sites"),
    ("queries/silver", "silver_device_tacs"),
    ("queries/gold", "dim_date"),
    ("queries/gold", "dim_time"),
    ("queries/gold", "dim_user"),
    ("queries/gold", "dim_cell_site"),
    ("queries/gold", "dim_device_tac"),
    ("queries/gold", "fact_events"),
    ("queries/gold", "gold_user_daily"),
    ("queries/gold", "gold_user_360"),
    ("queries/tests", "every_event_is_in_the_fact"),
    ("queries/tests", "user_totals_agree"),
];

#[tokio::test]
async fn the_sample_sql_gives_what_the_generator_counted() {
    let mut telecom = Telecom::new(Options::default()).unwrap();
    let mut values: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for record in &mut telecom {
        values.entry(format!("bronze_{}s", record.topic)).or_default().push(Record {
            key: Some(String::from_utf8(record.key).unwrap()),
            timestamp: Some(record.timestamp_micros),
            topic: record.topic.to_string(),
            partition: record.partition,
            value: record.value,
        });
    }
    for file in reference_files(telecom.population()) {
        let load = i32::from(file.name == "load-2.ndjson");
        values.entry(format!("bronze_{}", file.entity)).or_default().extend(file.content.lines().map(|line| Record {
            key: None,
            timestamp: None,
            topic: file.entity.to_string(),
            partition: load,
            value: line.into(),
        }));
    }
    let manifest = telecom.manifest();
    let context = context();
    for (bronze, records) in &values {
        let table = bronze_table(columns(bronze), records);
        check(&manifest, bronze, &table);
        register(&context, bronze, table);
    }
    for (folder, name) in MODELS {
        let sql = render(folder, name);
        let table = query(&context, name, &sql).await;
        if let Some(entity) = name.strip_prefix("stg_") {
            let (kept, rejects) = quarantine(&context, name, table).await;
            register(&context, &format!("stg_{entity}__quarantine"), rejects);
            check(&manifest, name, &kept);
            register(&context, name, kept);
        } else if folder == "queries/tests" {
            assert_eq!(table.num_rows(), 0, "{name}");
        } else {
            check(&manifest, name, &table);
            register(&context, name, table);
        }
    }
}

struct Record {
    key: Option<String>,
    timestamp: Option<i64>,
    topic: String,
    partition: i32,
    value: Vec<u8>,
}

fn context() -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    context.register_udf(create_udf(
        "try_to_timestamp",
        vec![DataType::Utf8, DataType::Utf8],
        timestamp,
        Volatility::Immutable,
        Arc::new(|args: &[ColumnarValue]| {
            let arrays = ColumnarValue::values_to_arrays(args)?;
            let (texts, formats) = (arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>());
            let parsed: TimestampMicrosecondArray = texts
                .iter()
                .zip(formats)
                .map(|(text, format)| {
                    let (text, format) = (text?, format?);
                    let format =
                        [("YYYY", "%Y"), ("MM", "%m"), ("DD", "%d"), ("HH24", "%H"), ("MI", "%M"), ("SS", "%S")]
                            .iter()
                            .fold(format.to_string(), |f, (from, to)| f.replace(from, to));
                    let day = |d: chrono::NaiveDate| d.and_time(chrono::NaiveTime::MIN);
                    chrono::NaiveDateTime::parse_from_str(text, &format)
                        .or_else(|_| chrono::NaiveDate::parse_from_str(text, &format).map(day))
                        .ok()
                        .map(|t| t.and_utc().timestamp_micros())
                })
                .collect();
            Ok(ColumnarValue::Array(Arc::new(parsed.with_timezone("UTC"))))
        }),
    ));
    context
}

/// The declared columns of the source a bronze table reads, as Arrow types.
fn columns(bronze: &str) -> Fields {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    let text = |name: &str| field(name, DataType::Utf8);
    let party = |name: &str| {
        let members = vec![
            text("number"),
            text("cell_site"),
            text("imei"),
            field("customer_id", DataType::Int64),
            text("plan_type"),
        ];
        field(name, DataType::Struct(members.into()))
    };
    let billing = vec![field("amount", DataType::Decimal128(10, 2)), text("currency")];
    let mut event = vec![
        text("event_type"),
        text("sid"),
        party("from"),
        party("to"),
        text("status"),
        text("timestamp"),
        field("billing_info", DataType::Struct(billing.into())),
    ];
    match bronze {
        "bronze_call_events" => {
            event.extend([field("call_duration_seconds", DataType::Int32), text("call_type")]);
            event.into()
        }
        "bronze_sms_events" => {
            event.extend([text("body"), field("customer_id", DataType::Int64), text("registration_date")]);
            event.into()
        }
        "bronze_event_users" => {
            ["phone_number", "first_name", "last_name", "sex", "email", "city", "plan_type", "status"]
                .map(text)
                .into_iter()
                .chain([field("age", DataType::Int32), field("customer_id", DataType::Int64)])
                .collect()
        }
        "bronze_cell_sites" => ["cell_id", "city", "site_name"]
            .map(text)
            .into_iter()
            .chain(["latitude", "longitude"].map(|name| field(name, DataType::Float64)))
            .collect(),
        _ => vec![text("tac_code"), text("manufacturer")].into(),
    }
}

fn bronze_table(fields: Fields, records: &[Record]) -> RecordBatch {
    let schema: SchemaRef = Arc::new(Schema::new(fields.clone()));
    let mut offsets: BTreeMap<i32, i64> = BTreeMap::new();
    let mut bytes = BinaryBuilder::new();
    let (mut rows, mut errors, mut offset) = (Vec::new(), Vec::new(), Vec::new());
    for record in records {
        let row = parse(&schema, &record.value);
        errors.push(row.is_none().then_some("bad"));
        rows.push(match row {
            Some(row) => Arc::new(StructArray::from(row)) as ArrayRef,
            None => new_null_array(&DataType::Struct(fields.clone()), 1),
        });
        match std::str::from_utf8(&record.value) {
            Ok(_) => bytes.append_null(),
            Err(_) => bytes.append_value(&record.value),
        }
        let next = offsets.entry(record.partition).or_default();
        offset.push(*next);
        *next += 1;
    }
    let parsed = concat(&rows.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>()).unwrap();
    let timestamps = records.iter().map(|r| r.timestamp).collect::<TimestampMicrosecondArray>().with_timezone("UTC");
    RecordBatch::try_from_iter_with_nullable([
        ("key", Arc::new(records.iter().map(|r| r.key.as_deref()).collect::<StringArray>()) as ArrayRef, true),
        ("timestamp", Arc::new(timestamps), true),
        ("topic", Arc::new(records.iter().map(|r| Some(&r.topic)).collect::<StringArray>()), true),
        ("partition", Arc::new(records.iter().map(|r| r.partition).collect::<Int32Array>()), true),
        ("offset", Arc::new(Int64Array::from(offset)), true),
        (
            "raw_data",
            Arc::new(records.iter().map(|r| std::str::from_utf8(&r.value).ok()).collect::<StringArray>()),
            true,
        ),
        ("raw_bytes", Arc::new(bytes.finish()), true),
        ("parsed_data", parsed, true),
        ("_error", Arc::new(errors.into_iter().collect::<StringArray>()), true),
    ])
    .unwrap()
}

/// One record as one row; `None` when it is bad.
fn parse(schema: &SchemaRef, value: &[u8]) -> Option<RecordBatch> {
    if !value.starts_with(b"{") || serde_json::from_slice::<serde_json::Value>(value).is_err() {
        return None;
    }
    let mut decoder = arrow::json::ReaderBuilder::new(Arc::clone(schema)).build_decoder().unwrap();
    decoder.decode(value).ok()?;
    decoder.flush().ok()?
}

/// The model's SQL without Jinja.
fn render(folder: &str, name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: PathBuf| std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut text = String::new();
    for entry in std::fs::read_dir(root.join("macros")).unwrap() {
        text += &read(entry.unwrap().path());
    }
    text += &read(root.join(folder).join(format!("{name}.sql")));
    let mut jinja = minijinja::Environment::new();
    jinja.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    jinja.add_function("ref", |name: String| name);
    jinja.add_function("source", |_: String, table: String| table);
    jinja.add_function("config", |_: minijinja::value::Kwargs| "");
    // What smelt's own parser allows and DataFusion's does not: the STREAM mark, and a column named offset.
    let sql = jinja.render_str(&text, ()).unwrap();
    sql.replace("from STREAM ", "from ").replace(" offset", " \"offset\"")
}

async fn query(context: &SessionContext, name: &str, sql: &str) -> RecordBatch {
    let frame = context.sql(sql).await.unwrap_or_else(|e| panic!("{name}: {e}\n{sql}"));
    let planned = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await.unwrap_or_else(|e| panic!("{name}: {e}"));
    // The plan may say Utf8 where the function returned Utf8View.
    let schema = batches.first().map_or(planned, |b| b.schema());
    let all = concat_batches(&schema, &batches).unwrap();
    // As it is stored: plain strings.
    let columns = schema.fields().iter().zip(all.columns()).map(|(field, column)| match field.data_type() {
        DataType::Utf8View => (field.name(), cast(column, &DataType::Utf8).unwrap(), true),
        _ => (field.name(), Arc::clone(column), true),
    });
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn register(context: &SessionContext, name: &str, table: RecordBatch) {
    let provider = MemTable::try_new(table.schema(), vec![vec![table]]).unwrap();
    context.register_table(name, Arc::new(provider)).unwrap();
}

/// What the expectations that quarantine do to a staging table.
async fn quarantine(context: &SessionContext, name: &str, table: RecordBatch) -> (RecordBatch, RecordBatch) {
    register(context, "staged", table);
    let bad_time = "(event_timestamp >= '2000-01-01' and event_timestamp < '2100-01-01') is not true";
    let kept =
        query(context, name, &format!("select * from staged where parse_error is null and not {bad_time}")).await;
    let sql = format!(
        "select case when parse_error is not null then 'parse_ok' else 'event_time_present' end as reason, *
         from staged where parse_error is not null or {bad_time}"
    );
    let rejects = query(context, name, &sql).await;
    context.deregister_table("staged").unwrap();
    (kept, rejects)
}

fn check(manifest: &Manifest, name: &str, table: &RecordBatch) {
    let expected: &TableManifest = &manifest.tables[name];
    let mut digest = TableDigest::default();
    let columns: Vec<&ArrayRef> = expected
        .columns
        .iter()
        .map(|c| table.column_by_name(c).unwrap_or_else(|| panic!("{name} has no column {c}")))
        .collect();
    let mut first = String::new();
    for row in 0..table.num_rows() {
        let texts: Vec<String> = columns.iter().map(|column| cell(column, row)).collect();
        if row == 0 {
            first = texts.join(" | ");
        }
        digest.add_columns(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    }
    assert_eq!(digest.rows, expected.rows, "rows of {name}");
    assert_eq!(digest.sum.to_string(), expected.checksum, "checksum of {name}, whose first row is\n{first}");
}

/// A value as the row text of a checksum shows it.
fn cell(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return String::new();
    }
    match column.data_type() {
        DataType::Timestamp(..) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            chrono::DateTime::from_timestamp_micros(micros).unwrap().format("%Y-%m-%d %H:%M:%S").to_string()
        }
        DataType::Date32 => column.as_primitive::<Date32Type>().value_as_date(row).unwrap().to_string(),
        DataType::Float64 => format!("{:.6}", column.as_primitive::<Float64Type>().value(row)),
        _ => ArrayFormatter::try_new(column, &FormatOptions::default()).unwrap().value(row).to_string(),
    }
}

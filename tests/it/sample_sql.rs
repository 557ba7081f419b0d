//! The sample project's SQL, run by stock DataFusion over the generator's records, gives what the generator counted.
//!
//! No part of smelt's engine takes part but the project's loader: this checks the SQL and the manifest against each other,
//! so that a difference in the end-to-end tests is the engine's. Decoding is arrow-json's, and each model's result is the next
//! one's table.

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
use smelt::env::{Env, FaultPlan, FaultyStore};
use smelt::project::{Connector, LoadOptions, Materialization, Model, Project, load};
use smelt::source::datagen::telecom::{Manifest, Options, TableDigest, TableManifest, Telecom, reference_files};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The sample project on the target that reads files.
fn sample() -> Project {
    let options =
        LoadOptions { dir: env!("CARGO_MANIFEST_DIR").into(), target: Some("files".into()), ..LoadOptions::default() };
    load(&options, &Env::real()).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(|e| e.render()).collect::<Vec<_>>().join("\n"));
    })
}

#[test]
fn the_sample_project_loads_without_a_warning_on_every_target() {
    let vars = BTreeMap::from([
        ("LAKE", "/lake"),
        ("KAFKA", "broker:9092"),
        ("SMELT_SECRET_TELCO", r#"{"api_key": "key", "api_secret": "secret"}"#),
    ]);
    let vars = vars.into_iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let env = Env::simulated(1, 0, vars, FaultyStore::new(FaultPlan::default()));
    for target in ["dev", "files", "prod"] {
        let options = LoadOptions {
            dir: env!("CARGO_MANIFEST_DIR").into(),
            target: Some(target.into()),
            ..LoadOptions::default()
        };
        let project = load(&options, &env).unwrap_or_else(|errors| {
            panic!("{target}: {}", errors.iter().map(|e| e.render()).collect::<Vec<_>>().join("\n"));
        });
        let warnings: Vec<String> = project.warnings.iter().map(|w| w.render_warning()).collect();
        assert_eq!(warnings, Vec::<String>::new(), "{target}");
        assert_eq!(project.models.len(), 24, "{target}");
        let calls = project.sources.iter().find(|s| s.name == "call_event").unwrap();
        assert_eq!(matches!(calls.connector, Connector::Kafka(_)), target != "files", "{target}");
        let users = project.sources.iter().find(|s| s.name == "event_users").unwrap();
        assert!(matches!(users.connector, Connector::Files(_)), "reference data are files on {target}");
    }
}

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
    for schema in ["bronze", "silver", "snapshots", "gold", "rejects"] {
        context.sql(&format!("create schema {schema}")).await.unwrap();
    }
    let project = sample();
    // A view over the tables of rejects depends on no model, and shows them once they are there.
    let (views, tables): (Vec<_>, Vec<_>) =
        project.models.iter().partition(|m| m.materialized == Materialization::View);
    for model in tables.into_iter().chain(views) {
        let name = &model.name;
        let table = match values.get(name) {
            Some(records) => bronze_table(columns(name), records),
            None => query(&context, name, &with_versions(model)).await,
        };
        let kept = if model.expectations.is_empty() {
            table
        } else {
            let (kept, rejects) = quarantine(&context, name, table).await;
            register(&context, &format!("rejects.{name}__quarantine"), rejects);
            kept
        };
        match HISTORY.contains(&name.as_str()) {
            true => assert!(kept.num_rows() > 0, "{name}"),
            false => check(&manifest, name, &kept),
        }
        register(&context, &format!("{}.{name}", model.schema), kept);
    }
    assert_eq!(project.models.len(), manifest.tables.len() + HISTORY.len(), "every model is checked");
    for test in &project.tests {
        let failures = query(&context, &test.name, &test.sql).await;
        assert_eq!(failures.num_rows(), 0, "{}:\n{}", test.name, test.sql);
    }
    assert!(project.tests.len() > 50, "only {} data tests", project.tests.len());
}

/// Tables that depend on when snapshots were taken: the generator knows nothing of them.
const HISTORY: [&str; 3] = ["cdc_users", "cdc_cell_site", "dim_user_history"];

/// The model's query; a snapshot's with the columns of its first versions.
fn with_versions(model: &Model) -> String {
    let Some(snapshot) = &model.config.snapshot else { return model.sql.clone() };
    format!(
        "select *, md5({}) as dbt_scd_id, now() as dbt_updated_at, now() as dbt_valid_from, cast(null as timestamp) as dbt_valid_to from ({})",
        snapshot.unique_key[0], model.sql
    )
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

async fn query(context: &SessionContext, name: &str, sql: &str) -> RecordBatch {
    // What smelt's own parser allows and DataFusion's does not: the STREAM mark, and a column named offset.
    let sql = &sql.replace("from STREAM ", "from ").replace(" offset", " \"offset\"");
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

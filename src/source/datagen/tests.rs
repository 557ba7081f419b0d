//! A datagen source returns each record once, goes on where it stopped, keeps its rate, and ends when it is bounded.

use arrow::array::{Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::json;
use std::time::Duration;

use super::*;
use crate::env::{FaultPlan, FaultyStore};
use crate::error::Span;
use crate::project::{Column, Connector, OnError};
use crate::types::{Poll, PollLimit, Positions, SignedBatch, SourcePartition};

fn table(columns: &[(&str, &str)]) -> Arc<SourceTable> {
    let span = Span::at("models/x.yml", "x", 0, 1);
    let columns = columns
        .iter()
        .map(|(name, data_type)| Column {
            name: name.to_string(),
            data_type: Some(data_type.to_string()),
            format: None,
            description: None,
            span: span.clone(),
        })
        .collect();
    Arc::new(SourceTable {
        source: "made".into(),
        name: "rows".into(),
        unique_id: "source.p.made.rows".into(),
        package: "p".into(),
        fqn: vec!["p".into(), "made".into(), "rows".into()],
        description: None,
        connector: Connector::Datagen { options: BTreeMap::new() },
        format: Format::Json,
        columns,
        include: vec![],
        rescued_data: None,
        on_error: OnError::Keep,
        primary_key: vec![],
        watermark: None,
        freshness: None,
        event_time: None,
        span,
    })
}

fn env() -> Env {
    Env::simulated(1, 0, BTreeMap::new(), FaultyStore::new(FaultPlan::default()))
}

/// A source whose rows are the raw values.
fn source(env: &Env, table: &Arc<SourceTable>, options: serde_json::Value) -> Result<Box<dyn Source>> {
    let schema = Arc::new(Schema::new(vec![Field::new("value", DataType::Utf8, true)]));
    let options: BTreeMap<String, Value> = serde_json::from_value(options).unwrap();
    let of_chunk = Arc::clone(&schema);
    open(table, &options, env, schema, move |chunk, _| {
        let values: StringArray = chunk.values.texts().clone();
        let rows = RecordBatch::try_new(Arc::clone(&of_chunk), vec![Arc::new(values)])?;
        Ok(SourceBatch {
            partition: SourcePartition { topic: Arc::clone(&chunk.topic), partition: chunk.partition },
            next: chunk.offsets.values().last().map_or(0, |o| o + 1),
            rows: SignedBatch::inserts(rows),
            offsets: chunk.offsets.clone(),
            rejects: None,
        })
    })
}

const LIMIT: PollLimit = PollLimit { max_rows: 700, max_files: 1, wait: Duration::from_millis(1) };

/// All a bounded source returns from `from` on: (partition, offset, value), and the position after it.
async fn drain(source: &mut dyn Source, from: Positions) -> (Vec<(i32, i64, Option<String>)>, Positions) {
    let mut positions = from.clone();
    positions.extend(source.open(&from, true).await.unwrap());
    let mut rows = Vec::new();
    loop {
        match source.poll(LIMIT).await.unwrap() {
            Poll::End => return (rows, positions),
            Poll::Idle => panic!("a bounded source is never idle"),
            Poll::Batches(batches) => {
                for batch in batches {
                    take(&batch, &mut rows);
                    positions.insert(batch.partition.clone(), batch.next);
                }
            }
        }
    }
}

fn take(batch: &SourceBatch, rows: &mut Vec<(i32, i64, Option<String>)>) {
    let values = batch.rows.rows.column(0).as_any().downcast_ref::<StringArray>().unwrap();
    let offsets: &Int64Array = &batch.offsets;
    for i in 0..offsets.len() {
        let value = values.is_valid(i).then(|| values.value(i).to_string());
        rows.push((batch.partition.partition, offsets.value(i), value));
    }
}

#[tokio::test]
async fn the_telecom_source_is_one_topic_of_the_traffic() {
    let table = table(&[]);
    let options = json!({"generator": "telecom", "topic": "sms_event", "events": 1000});
    let mut source = source(&env(), &table, options.clone()).unwrap();
    let (mut rows, _) = drain(source.as_mut(), Positions::new()).await;
    let telecom = Telecom::new(Options { events: 1000, ..Options::default() }).unwrap();
    let mut next = [0; PARTITIONS as usize];
    let mut expected = Vec::new();
    for record in telecom.filter(|r| r.topic == "sms_event") {
        let offset = &mut next[record.partition as usize];
        expected.push((record.partition, *offset, String::from_utf8(record.value).ok()));
        *offset += 1;
    }
    rows.sort();
    expected.sort();
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn a_source_goes_on_where_it_stopped() {
    let table = table(&[]);
    let options = json!({"generator": "telecom", "topic": "call_event", "events": 3000});
    let env = env();
    let (mut whole, end) = drain(source(&env, &table, options.clone()).unwrap().as_mut(), Positions::new()).await;

    let mut first = source(&env, &table, options.clone()).unwrap();
    first.open(&Positions::new(), true).await.unwrap();
    let Poll::Batches(batches) = first.poll(LIMIT).await.unwrap() else { panic!("no batches") };
    let (mut rows, mut positions) = (Vec::new(), Positions::new());
    for batch in &batches {
        take(batch, &mut rows);
        positions.insert(batch.partition.clone(), batch.next);
    }
    assert_eq!(rows.len(), LIMIT.max_rows);
    let (rest, positions) = drain(source(&env, &table, options).unwrap().as_mut(), positions).await;
    rows.extend(rest);
    rows.sort();
    whole.sort();
    assert_eq!(rows, whole);
    assert_eq!(positions, end);
}

#[tokio::test]
async fn the_rate_bounds_what_a_running_source_returns() {
    let table = table(&[("id", "BIGINT"), ("name", "STRING")]);
    let env = env();
    let mut source = source(&env, &table, json!({"rate": 100})).unwrap();
    source.open(&Positions::new(), false).await.unwrap();
    assert!(matches!(source.poll(LIMIT).await.unwrap(), Poll::Idle), "no time has passed");
    env.advance(2_500_000);
    let Poll::Batches(batches) = source.poll(LIMIT).await.unwrap() else { panic!("no batches") };
    let mut rows = Vec::new();
    take(&batches[0], &mut rows);
    assert_eq!(rows.len(), 250);
    assert_eq!(rows[41], (0, 41, Some(r#"{"id":42,"name":"name-41"}"#.to_string())));
    assert!(matches!(source.poll(LIMIT).await.unwrap(), Poll::Idle));
}

#[tokio::test]
async fn a_bounded_run_ends_with_the_rows_or_after_a_second_of_an_endless_stream() {
    let table = table(&[("id", "BIGINT")]);
    let env = env();
    let (rows, _) = drain(source(&env, &table, json!({"rows": 1234})).unwrap().as_mut(), Positions::new()).await;
    assert_eq!(rows.len(), 1234);
    let (rows, positions) = drain(source(&env, &table, json!({"rate": 50})).unwrap().as_mut(), Positions::new()).await;
    assert_eq!(rows.len(), 50);
    let (rows, _) = drain(source(&env, &table, json!({"rate": 50})).unwrap().as_mut(), positions).await;
    assert_eq!((rows.len(), rows[0].1), (50, 50));
}

#[test]
fn wrong_options_say_what_is_wrong() {
    let table = table(&[("id", "BIGINT")]);
    let error = |options| source(&env(), &table, options).err().unwrap();
    assert_eq!(error(json!({"generator": "telekom"})).hint(), Some("did you mean `telecom`?"));
    assert_eq!(error(json!({"generator": "telecom", "topic": "mms"})).hint(), Some("it can be: call_event, sms_event"));
    assert_eq!(error(json!({"generator": "telecom"})).code(), "missing-topic");
    assert_eq!(error(json!({"rowz": 1})).hint(), Some("did you mean `rows`?"));
    assert_eq!(error(json!({"fields": {"ident": {}}})).code(), "bad-option");
    assert!(error(json!({"rate": 0})).message().contains("above 0"));
    assert!(error(json!({"rate": 1, "rowz": 1})).span().is_some());
}

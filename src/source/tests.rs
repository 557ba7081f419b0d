//! Files are consumed once, in name order, for ever under the same number; Kafka's chunks become rows, gaps dead letters.

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::error::Span;
use crate::kafka::{EmbeddedBroker, Producer, Record};
use crate::project::{Column, FilesConfig, Format, Include, KafkaConfig, OnDataLoss, OnError, Start, Topics};
use crate::types::{FileEntry, Poll, PollLimit, Positions, SourceBatch, SourcePartition};

#[derive(Default)]
struct MemoryLedger(Mutex<Vec<FileEntry>>);

#[async_trait]
impl Ledger for MemoryLedger {
    async fn entries(&self) -> Result<Vec<FileEntry>> {
        Ok(self.0.lock().clone())
    }

    async fn append(&self, entries: &[FileEntry]) -> Result<()> {
        self.0.lock().extend_from_slice(entries);
        Ok(())
    }
}

fn table(connector: Connector, format: Format, on_error: OnError) -> SourceTable {
    let span = Span::at("models/x.yml", "x", 0, 1);
    let column = |name: &str, data_type: &str| Column {
        name: name.into(),
        data_type: Some(data_type.into()),
        format: None,
        description: None,
        span: span.clone(),
    };
    SourceTable {
        source: "telco".into(),
        name: "calls".into(),
        unique_id: "source.p.telco.calls".into(),
        package: "p".into(),
        fqn: vec!["p".into(), "telco".into(), "calls".into()],
        description: None,
        connector,
        format,
        columns: vec![column("id", "BIGINT"), column("name", "STRING")],
        include: vec![],
        rescued_data: None,
        on_error,
        primary_key: vec![],
        watermark: None,
        freshness: None,
        event_time: None,
        span,
    }
}

fn context(ledger: Option<Arc<dyn Ledger>>) -> OpenContext {
    OpenContext { env: Env::real(), ledger, project: "p".into(), target: "t".into() }
}

fn folder(path: String, options: &[(&str, serde_json::Value)]) -> Connector {
    let options = options.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
    Connector::Files(FilesConfig { path, options })
}

const LIMIT: PollLimit = PollLimit { max_rows: 1_000, max_files: 100, wait: Duration::from_secs(20) };

/// Everything a bounded source has from `from` on.
async fn drain(source: &mut dyn Source, from: &Positions, limit: PollLimit) -> Result<Vec<SourceBatch>> {
    source.open(from, true).await?;
    let mut all = Vec::new();
    loop {
        match source.poll(limit).await? {
            Poll::End => return Ok(all),
            Poll::Idle => panic!("idle before the end"),
            Poll::Batches(batches) => all.extend(batches),
        }
    }
}

fn ids(batches: &[SourceBatch]) -> Vec<Option<i64>> {
    batches.iter().flat_map(|b| b.rows.rows.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn files_are_read_once_in_name_order_and_keep_their_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("b.json", "{\"id\":3}\n\n   \r\n{\"id\":4}\r\n");
    write("a.json", "{\"id\":1}\nbad\n{\"id\":2}");
    write("c.json", "");
    write(".hidden.json", "{\"id\":9}");
    write("d.json.tmp", "{\"id\":9}");
    let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::default());
    let path = format!("{}/*.json*", dir.path().display());
    let table = Arc::new(table(folder(path, &[]), Format::Json, OnError::DeadLetter));
    let context = context(Some(Arc::clone(&ledger)));
    let mut source = open(&table, &context).unwrap();
    let first = drain(source.as_mut(), &Positions::new(), LIMIT).await.unwrap();
    assert_eq!(ids(&first), [Some(1), Some(2), Some(3), Some(4)]);
    assert_eq!(first.iter().map(|b| b.next).collect::<Vec<_>>(), [1, 2, 3]);
    let (rejects, offsets) = first[0].rejects.as_ref().unwrap();
    assert_eq!((rejects.num_rows(), offsets.value(0)), (1, 0));
    // A file that sorts before the others but comes later is later.
    write("0.json", "{\"id\":5}");
    let at = SourcePartition { topic: "calls".into(), partition: 0 };
    let mut source = open(&table, &context).unwrap();
    let second = drain(source.as_mut(), &Positions::from([(at.clone(), 3)]), LIMIT).await.unwrap();
    assert_eq!((ids(&second), second[0].next), (vec![Some(5)], 4));
    // One file per poll; the same numbers from the start.
    let mut source = open(&table, &context).unwrap();
    let again = drain(source.as_mut(), &Positions::new(), PollLimit { max_files: 1, ..LIMIT }).await.unwrap();
    assert_eq!(ids(&again), [Some(1), Some(2), Some(3), Some(4), Some(5)]);
    std::fs::remove_file(dir.path().join("b.json")).unwrap();
    let mut source = open(&table, &context).unwrap();
    let error = drain(source.as_mut(), &Positions::new(), LIMIT).await.unwrap_err();
    assert!(error.code() == "file-gone" && error.message().contains("b.json"), "{error}");
}

#[tokio::test]
async fn csv_files_have_headers_and_quoted_line_breaks() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.csv"), "name,ID\n\"x\ny\",1\nz,2\n").unwrap();
    let path = format!("{}/a.csv", dir.path().display());
    let table = Arc::new(table(folder(path, &[]), Format::Csv, OnError::Fail));
    let mut source = open(&table, &context(Some(Arc::new(MemoryLedger::default())))).unwrap();
    let batches = drain(source.as_mut(), &Positions::new(), LIMIT).await.unwrap();
    assert_eq!(ids(&batches), [Some(1), Some(2)]);
    assert_eq!(batches[0].rows.rows.column(1).as_string::<i32>().value(0), "x\ny");
}

fn topic(servers: &str, start: Start, on_data_loss: OnDataLoss) -> Connector {
    Connector::Kafka(KafkaConfig {
        properties: BTreeMap::from([("bootstrap.servers".to_string(), servers.to_string())]),
        topics: Topics::Named(vec!["calls".into()]),
        start,
        on_data_loss,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_records_become_rows_with_their_metadata() {
    let broker = EmbeddedBroker::start(&[("calls", 2)]).unwrap();
    let mut producer = Producer::new(broker.bootstrap_servers()).unwrap();
    for i in 0..100 {
        let value = if i == 7 { b"\xff".to_vec() } else { format!("{{\"id\":{i}}}").into_bytes() };
        let record =
            Record { topic: "calls", partition: 0, key: Some(b"k"), value: Some(&value), timestamp_millis: Some(5) };
        producer.send(record).await.unwrap();
    }
    producer.flush().await.unwrap();
    let connector = topic(broker.bootstrap_servers(), Start::Earliest, OnDataLoss::Fail);
    let mut table = table(connector, Format::Json, OnError::Keep);
    table.include = vec![
        (Include::Offset, "_offset".into()),
        (Include::Key, "_key".into()),
        (Include::Value, "_raw".into()),
        (Include::ValueBytes, "_bytes".into()),
        (Include::Error, "_error".into()),
    ];
    let mut source = open(&Arc::new(table), &context(None)).unwrap();
    // Polls of ten rows split the chunks, and nothing is lost between them.
    let batches = drain(source.as_mut(), &Positions::new(), PollLimit { max_rows: 10, ..LIMIT }).await.unwrap();
    assert!(batches.len() >= 10 && batches.iter().all(|b| b.rows.num_rows() <= 10));
    let expected: Vec<Option<i64>> = (0..100).map(|i| (i != 7).then_some(i)).collect();
    assert_eq!(ids(&batches), expected);
    let offsets: Vec<i64> = batches.iter().flat_map(|b| b.offsets.values().to_vec()).collect();
    assert_eq!(offsets, (0..100).collect::<Vec<_>>());
    assert!(batches.windows(2).all(|w| w[0].next <= w[1].next));
    assert_eq!(batches.last().unwrap().next, 100);
    // How many records one fetch returns is the broker's affair: look at all batches as one.
    let rows =
        arrow::compute::concat_batches(&batches[0].rows.rows.schema(), batches.iter().map(|b| &b.rows.rows)).unwrap();
    assert_eq!(rows.column(3).as_string::<i32>().value(7), "k");
    assert!(rows.column(4).is_null(7) && rows.column(6).is_valid(7));
    assert_eq!(rows.column(5).as_binary::<i32>().value(7), b"\xff");
    assert!(!source.identity().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_beyond_the_end_says_what_to_do_after_the_identity() {
    let broker = EmbeddedBroker::start(&[("calls", 1)]).unwrap();
    let connector = topic(broker.bootstrap_servers(), Start::Earliest, OnDataLoss::Fail);
    let table = Arc::new(table(connector, Format::Json, OnError::DeadLetter));
    let mut source = open(&table, &context(None)).unwrap();
    let from = Positions::from([(SourcePartition { topic: "calls".into(), partition: 0 }, 5)]);
    // Opening works: the identity comes first, for a topic that was made anew.
    source.open(&from, true).await.unwrap();
    let error = source.poll(LIMIT).await.unwrap_err();
    assert_eq!(error.code(), "data-loss");
    assert!(error.hint().unwrap().contains("--reset-source telco.calls"), "{error:?}");
}
